/* SPDX-License-Identifier: MIT */
/* platter vma extract: restores as Proxmox VE asks for it (section 8.2 of vma.md). */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vma.h"
#include "vma_map.h"

enum {
    MOST_DISKS = 256,  /* of an archive */
    MOST_LINES = 4096, /* of a map; many more than there are disks */
    MOST_NAME = 255,   /* bytes that file systems take */
    SECTOR = 512
};

/* A line of the map; strings of `line` stand in `text`. */
struct mapping {
    char *text;
    struct map_line line;
};

struct extraction {
    const struct args *args;
    struct platter_archive *archive;
    const char *folder;
    struct mapping *map;
    unsigned n_map;
    struct platter_extract_target targets[MOST_DISKS];
    const struct platter_extract_target *list[MOST_DISKS];
    char *paths[MOST_DISKS];  /* of the targets in the folder; owned */
    char *finals[MOST_DISKS]; /* what they are called in the end, or NULL; owned */
    unsigned n;
};

/* ---- the map --------------------------------------------------------------------------------- */

/* A line without its newline: 1, 0 at the end of the file, or negative. */
static int read_line(FILE *f, const char *file, char buf[MAP_LINE_MOST + 1])
{
    size_t len = 0;
    int c;
    while ((c = getc(f)) != EOF && c != '\n') {
        if (len == MAP_LINE_MOST || c == '\0') {
            say("%s: a line of it is longer than %d bytes, or has a NUL in it", file,
                MAP_LINE_MOST);
            return -EINVAL;
        }
        buf[len++] = (char)c;
    }
    buf[len] = '\0';
    if (ferror(f)) {
        say("%s: cannot read: %s", file, strerror(errno));
        return -EIO;
    }
    return c == EOF && len == 0 ? 0 : 1;
}

static int add_line(struct extraction *x, const char *text)
{
    static const char *const modes[] = {"none", "writeback", "writethrough", "directsync",
                                        "unsafe"};
    const char *why = "there are too many lines";
    struct mapping *map = reallocarray(x->map, x->n_map + 1, sizeof *map);
    struct mapping m = {.text = strdup(text)};
    x->map = map ? map : x->map;
    bool good =
        map && m.text && x->n_map < MOST_LINES && map_line_parse(m.text, &m.line, &why) == 0;
    bool known = !good || !m.line.cache;
    for (size_t i = 0; !known && i < sizeof modes / sizeof *modes; i++)
        known = strcmp(modes[i], m.line.cache) == 0;
    if (good && known) {
        map[x->n_map++] = m;
        return 0;
    }
    say("%s: line \"%s\": %s", x->args->map_file, text, good ? "no such cache mode" : why);
    free(m.text);
    return -EINVAL;
}

static int read_map(struct extraction *x)
{
    const char *file = x->args->map_file;
    char text[MAP_LINE_MOST + 1];
    FILE *f = fopen(file, "re"); /* of a FIFO: waits until somebody writes */
    if (!f) {
        say("%s: cannot open: %s", file, strerror(errno));
        return -errno;
    }
    int r;
    while ((r = read_line(f, file, text)) == 1) {
        if (!*text || strcmp(text, "done") == 0)
            break;
        r = add_line(x, text);
        if (r < 0)
            break;
    }
    fclose(f);
    return r < 0 ? r : 0;
}

static const struct map_line *find_line(const struct extraction *x, const char *name)
{
    for (unsigned i = x->n_map; i-- > 0;)
        if (strcmp(x->map[i].line.name, name) == 0)
            return &x->map[i].line;
    return NULL;
}

/* ---- which disks go where -------------------------------------------------------------------- */

/* Whether a name is one of those that -d lists, which commas separate. */
static bool is_listed(const char *list, const char *name)
{
    size_t len = strlen(name);
    for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (strncmp(at, name, len) == 0 && (at[len] == ',' || !at[len]))
            return true;
    return false;
}

static bool has_disk(const struct extraction *x, const char *name, size_t len)
{
    struct platter_archive_device d = {.size = sizeof d};
    for (unsigned i = 0; !platter_archive_device(x->archive, i, &d, NULL); i++)
        if (strlen(d.name) == len && strncmp(d.name, name, len) == 0)
            return true;
    return false;
}

/* Whether the archive has all that -d lists. */
static int check_listed(const struct extraction *x)
{
    for (const char *at = x->args->disks; at;) {
        const char *comma = strchr(at, ',');
        size_t len = comma ? (size_t)(comma - at) : strlen(at);
        if (!has_disk(x, at, len)) {
            say("%s: has no disk called \"%.*s\"", x->args->operands[0], (int)len, at);
            return -ENOENT;
        }
        at = comma ? comma + 1 : NULL;
    }
    return 0;
}

static bool is_wanted(const struct extraction *x, const char *name)
{
    const struct map_line *line = find_line(x, name);
    return (!x->args->disks || is_listed(x->args->disks, name)) && !(line && line->skip);
}

/* Of two disks of one name nobody can say which goes where; found out before a file is made. */
static int check_twins(const struct extraction *x)
{
    struct platter_archive_device a = {.size = sizeof a}, b = {.size = sizeof b};
    for (unsigned i = 0; !platter_archive_device(x->archive, i, &a, NULL); i++)
        for (unsigned k = 0; k < i && !platter_archive_device(x->archive, k, &b, NULL); k++)
            if (strcmp(a.name, b.name) == 0 && is_wanted(x, a.name)) {
                say("%s: devices %u and %u have the same name, %s: platter extract --salvage tells "
                    "them apart",
                    x->args->operands[0], b.id, a.id, a.name);
                return -EINVAL;
            }
    return 0;
}

static char *path_in(const struct extraction *x, const char *before, const char *name,
                     const char *after)
{
    char *path = NULL;
    if (asprintf(&path, "%s/%s%s%s", x->folder, before, name, after) < 0) {
        say("out of memory");
        return NULL;
    }
    return path;
}

static struct platter_extract_target *add_target(struct extraction *x, const char *disk)
{
    struct platter_extract_target *t = &x->targets[x->n];
    *t = (struct platter_extract_target){.size = sizeof *t, .disk = disk};
    x->list[x->n++] = t;
    return t;
}

static int add_state(struct extraction *x, const struct platter_archive_device *d)
{
    unsigned i = x->n;
    x->paths[i] = path_in(x, "", "vmstate", ".bin");
    if (!x->paths[i])
        return -ENOMEM;
    struct platter_extract_target *t = add_target(x, d->name);
    t->target = x->paths[i];
    t->flags = PLATTER_EXTRACT_EXCLUSIVE;
    return 0;
}

static int add_mapped(struct extraction *x, const struct platter_archive_device *d,
                      const struct map_line *line)
{
    if (!line) {
        say("%s: the disk \"%s\" is in the archive, but %s does not say where it goes",
            x->args->operands[0], d->name, x->args->map_file);
        return -ENOENT;
    }
    struct platter_extract_target *t = add_target(x, d->name);
    t->target = line->path;
    t->flags = PLATTER_EXTRACT_EXISTING | PLATTER_EXTRACT_FITTING |
               (line->write_zeros ? PLATTER_EXTRACT_WRITE_ZEROS : 0u);
    t->format = line->format;
    t->rate = line->bps;
    t->rate_group = line->group;
    return 0;
}

/* A new file of zeros, as long as a disk, in whole sectors. */
static int make_file(const char *path, uint64_t length)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    int code =
        fd < 0 || ftruncate(fd, (off_t)((length + SECTOR - 1) / SECTOR * SECTOR)) ? errno : 0;
    if (fd >= 0 && close(fd) && code == 0)
        code = errno;
    if (code)
        say("%s: cannot make a file of %" PRIu64 " bytes: %s", path, length, strerror(code));
    return -code;
}

/* A file in the folder, under a name that says that it is not finished. */
static int add_file(struct extraction *x, const struct platter_archive_device *d)
{
    unsigned i = x->n;
    if (!platter_archive_name_is_safe(d->name, MOST_NAME - strlen("tmp-disk-.raw"))) {
        say("%s: the disk \"%s\" has a name that is not safe in that of a file",
            x->args->operands[0], d->name);
        return -EINVAL;
    }
    x->paths[i] = path_in(x, "tmp-disk-", d->name, ".raw");
    x->finals[i] = path_in(x, "disk-", d->name, ".raw");
    if (!x->paths[i] || !x->finals[i])
        return -ENOMEM;
    fputs("DEVINFO ", stdout);
    put_text(stdout, x->paths[i]);
    printf(" %" PRIu64 "\n", d->length);
    int r = make_file(x->paths[i], d->length);
    if (r)
        return r;
    struct platter_extract_target *t = add_target(x, d->name);
    t->target = x->paths[i];
    t->flags = PLATTER_EXTRACT_EXISTING;
    t->format = "raw";
    return 0;
}

static int choose_targets(struct extraction *x)
{
    struct platter_archive_device d = {.size = sizeof d};
    int r = x->args->disks ? check_listed(x) : 0;
    if (!r)
        r = check_twins(x);
    for (unsigned i = 0; !r && !platter_archive_device(x->archive, i, &d, NULL); i++) {
        const struct map_line *line = find_line(x, d.name);
        if (!is_wanted(x, d.name))
            continue;
        if (x->n == MOST_DISKS)
            break; /* there are no more in any archive */
        if (d.state)
            r = add_state(x, &d);
        else
            r = x->args->map_file ? add_mapped(x, &d, line) : add_file(x, &d);
    }
    return r ? r : output_end(EXIT_FINE) ? -EIO : 0;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static int save_configs(const struct extraction *x)
{
    struct platter_error err = {0};
    const char *name;
    const void *bytes;
    size_t len;
    for (unsigned i = 0; !platter_archive_config(x->archive, i, &name, &bytes, &len, NULL); i++)
        if (platter_archive_save_config(x->archive, i, x->folder, 0, &err)) {
            say_error(&err);
            return -EIO;
        }
    return 0;
}

static int rename_files(const struct extraction *x)
{
    for (unsigned i = 0; i < x->n; i++)
        if (x->finals[i] &&
            renameat2(AT_FDCWD, x->paths[i], AT_FDCWD, x->finals[i], RENAME_NOREPLACE)) {
            say("%s: cannot become %s: %s", x->paths[i], x->finals[i], strerror(errno));
            return -errno;
        }
    return 0;
}

static int restore(struct extraction *x)
{
    struct platter_error err = {0};
    struct vma_progress progress;
    struct platter_extract_options options = {.size = sizeof options,
                                              .targets = x->list,
                                              .n_targets = x->n,
                                              .progress = vma_progress_tick,
                                              .opaque = &progress};
    vma_progress_start(&progress, x->args->verbose);
    signals_catch(true);
    int r = platter_archive_extract(x->archive, &options, NULL, &err);
    if (r && signals_caught())
        say("interrupted: what was extracted is incomplete");
    else if (r)
        say_error(&err);
    if (!r && x->args->verbose && x->n == 0)
        puts("there is no data of disks in the archive, or none that was asked for");
    else if (!r && x->args->verbose)
        printf("extracted %u disk%s in %.1f seconds\n", x->n, x->n == 1 ? "" : "s",
               vma_progress_seconds(&progress));
    return r;
}

static int extract(struct extraction *x)
{
    if (mkdir(x->folder, 0777)) {
        say("%s: cannot make the folder: %s", x->folder, strerror(errno));
        return EXIT_FAILED;
    }
    /* Who reads the listing may look at the configurations then. */
    if (save_configs(x) || (x->args->map_file && (vma_print_listing(x->archive) || read_map(x))) ||
        choose_targets(x) || restore(x) || rename_files(x))
        return EXIT_FAILED;
    return EXIT_FINE;
}

static void print_note(void *opaque, const struct platter_fault *fault)
{
    (void)opaque;
    say("%s", fault->text);
}

static int extract_run(const struct args *args)
{
    if (args->n_operands != 2)
        return usage_error(&verb_vma_extract, "Expecting an archive and a folder");
    struct extraction *x = calloc(1, sizeof *x);
    if (!x)
        return usage_error(NULL, "out of memory");
    x->args = args;
    x->folder = args->operands[1];
    int code = vma_open(args, print_note, NULL, &x->archive) ? EXIT_FAILED : extract(x);
    platter_archive_close(x->archive);
    for (unsigned i = 0; i < x->n_map; i++)
        free(x->map[i].text);
    for (unsigned i = 0; i < MOST_DISKS; i++) {
        free(x->paths[i]);
        free(x->finals[i]);
    }
    free(x->map);
    free(x);
    return output_end(code);
}

static const struct opt extract_opts[] = {
    OPT_FLAG_AT('v', NULL, verbose, "show how far the work has come"),
    OPT_TEXT('d', NULL, "NAME,...", OPT_STRING, disks, "extract only these disks"),
    OPT_TEXT('r', NULL, "MAPFILE", OPT_FILE, map_file,
             "list what there is, then read from this file or FIFO where each disk goes"),
    OPT_WHERE, OPT_END};

const struct verb verb_vma_extract = {
    .name = "vma extract",
    .summary = "extract everything into a new folder, or to where a map says",
    .operands = "ARCHIVE FOLDER",
    .opts = extract_opts,
    .examples = "platter vma extract vzdump-qemu-100.vma restored\n"
                "zstd -dc backup.vma.zst | platter vma extract - -r map.fifo restored\n",
    .run = extract_run};
