/* SPDX-License-Identifier: MIT */
/* platter vma create: an archive of disks and configurations, as Proxmox's program vma makes it
 * (section 8.3 of vma.md). */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"

enum {
    MOST_DISKS = 256,
    MOST_CONFIGS = 256,
    MOST_CONFIG = 65535 /* bytes; what the format can hold */
};

/* What -c and -d are as actions. */
enum { ADD_CONFIG = 1, ADD_DISK };

struct creation {
    const struct args *args;
    struct platter_archive_source disks[MOST_DISKS];
    const struct platter_archive_source *disk_list[MOST_DISKS];
    struct platter_archive_file files[MOST_CONFIGS];
    const struct platter_archive_file *file_list[MOST_CONFIGS];
    struct platter_archived archived[MOST_DISKS];
    char *names[MOST_DISKS]; /* owned */
    unsigned n_disks, n_files;
    int percent; /* that was shown last */
};

/* ---- configurations -------------------------------------------------------------------------- */

static int add_config(struct creation *c, const char *path)
{
    const char *slash = strrchr(path, '/');
    FILE *f = fopen(path, "re");
    char *bytes = f ? malloc(MOST_CONFIG + 1) : NULL;
    size_t len = bytes ? fread(bytes, 1, MOST_CONFIG + 1, f) : 0;
    int code = errno;
    bool good = bytes && !ferror(f);
    if (f)
        fclose(f);
    if (!good)
        say("%s: cannot read: %s", path, strerror(code));
    else if (len > MOST_CONFIG)
        say("%s: a configuration in an archive has at most %d bytes", path, MOST_CONFIG);
    else if (c->n_files == MOST_CONFIGS)
        say("%s: an archive has at most %d configurations", path, MOST_CONFIGS);
    if (!good || len > MOST_CONFIG || c->n_files == MOST_CONFIGS) {
        free(bytes);
        return -1;
    }
    struct platter_archive_file *file = &c->files[c->n_files];
    *file = (struct platter_archive_file){
        .size = sizeof *file, .name = slash ? slash + 1 : path, .bytes = bytes, .length = len};
    c->file_list[c->n_files++] = file;
    return 0;
}

/* ---- disks ----------------------------------------------------------------------------------- */

/* Opens a disk and enters it under `name`, which is taken; NULL: it has none. */
static int add_disk(struct creation *c, char *name, const char *path, const char *format)
{
    struct platter_disk *disk = NULL;
    unsigned i = c->n_disks;
    if (i == MOST_DISKS) {
        say("there are more disks than an archive can hold");
        free(name);
        return -1;
    }
    if (!name && asprintf(&name, "disk%u", i) < 0)
        name = NULL;
    c->names[i] = name;
    struct args quiet = {.quiet = true}; /* what is not known is raw: it has no option to say so */
    if (!name || image_open(&quiet, path, format, 0, &disk))
        return -1;
    struct platter_archive_source *s = &c->disks[i];
    *s = (struct platter_archive_source){
        .size = sizeof *s, .name = name, .disk = disk, .state = strcmp(name, "vmstate") == 0};
    c->disk_list[c->n_disks++] = s;
    if (platter_size(disk) > 0)
        return 0;
    say("%s: is empty: an archive has no disks of no bytes", path);
    return -1;
}

/* [NAME=]PATH */
static int add_operand(struct creation *c, const char *text)
{
    const char *equals = strchr(text, '=');
    char *name = equals ? strndup(text, (size_t)(equals - text)) : NULL;
    return add_disk(c, name, equals ? equals + 1 : text, NULL);
}

/* [format=FMT:]NAME=PATH */
static int add_option(struct creation *c, const char *text)
{
    static const char prefix[] = "format=";
    const char *colon = strchr(text, ':');
    bool has_format = strncmp(text, prefix, sizeof prefix - 1) == 0;
    if (has_format && !colon) {
        say("-d %s: the format does not end with a colon", text);
        return -1;
    }
    const char *rest = has_format ? colon + 1 : text, *equals = strchr(rest, '=');
    if (!equals || equals == rest) {
        say("-d %s: give [format=FMT:]NAME=PATH", text);
        return -1;
    }
    const char *start = text + sizeof prefix - 1;
    char *format = has_format ? strndup(start, (size_t)(colon - start)) : NULL;
    int r = add_disk(c, strndup(rest, (size_t)(equals - rest)), equals + 1, format);
    free(format);
    return r;
}

static int add_all(struct creation *c)
{
    const struct args *args = c->args;
    int r = 0;
    for (unsigned i = 0; i < args->n_actions && !r; i++)
        r = args->actions[i].action == ADD_CONFIG ? add_config(c, args->actions[i].value)
                                                  : add_option(c, args->actions[i].value);
    for (int i = 1; i < args->n_operands && !r; i++)
        r = add_operand(c, args->operands[i]);
    return r;
}

/* ---- the work -------------------------------------------------------------------------------- */

static int tick(void *opaque, const struct platter_progress *now)
{
    struct creation *c = opaque;
    int percent = now->total ? (int)(100.0 * (double)now->done / (double)now->total) : 100;
    if (signals_caught())
        return 1;
    if (!c->args->verbose || percent == c->percent)
        return 0;
    c->percent = percent;
    uint64_t zeros = now->done > now->moved ? now->done - now->moved : 0;
    fprintf(stderr, "progress %d%% %" PRIu64 "/%" PRIu64 " %" PRIu64 "\n", percent, now->done,
            now->total, zeros);
    return 0;
}

/* Standard output, or a FIFO that is there, opened; -1 where it is to be a new file. Negative
 * otherwise (printed). */
static int open_output(const char *name, int *ret_fd)
{
    struct stat st;
    *ret_fd = -1;
    if (strncmp(name, "exec:", 5) == 0 || strncmp(name, "/dev/fd", 7) == 0) {
        say("%s: is not supported: write to - and lead that to the command", name);
        return -1;
    }
    if (strcmp(name, "-") == 0) {
        *ret_fd = dup(STDOUT_FILENO);
        if (!isatty(STDOUT_FILENO))
            return 0;
        say("standard output is a terminal: lead it to a file or a pipe");
        return -1;
    }
    if (stat(name, &st) || !S_ISFIFO(st.st_mode))
        return 0;
    *ret_fd = open(name, O_WRONLY | O_CLOEXEC);
    if (*ret_fd >= 0)
        return 0;
    say("%s: cannot open: %s", name, strerror(errno));
    return -1;
}

static int create(struct creation *c, int fd)
{
    struct platter_error err = {0};
    const char *name = c->args->operands[0];
    struct platter_archive_plan plan = {.size = sizeof plan,
                                        .flags = fd >= 0 ? PLATTER_ARCHIVE_TO_FD
                                                         : PLATTER_ARCHIVE_EXCLUSIVE,
                                        .disks = c->disk_list,
                                        .n_disks = c->n_disks,
                                        .files = c->file_list,
                                        .n_files = c->n_files,
                                        .fd = fd,
                                        .progress = tick,
                                        .opaque = c};
    c->archived[0].size = sizeof c->archived[0];
    signals_catch(true);
    int r = platter_archive_create(name, &plan, c->archived, &err);
    if (r)
        say_end(&err, "the unfinished archive was taken away");
    for (unsigned i = 0; !r && c->args->verbose && i < c->n_disks; i++) {
        const struct platter_archived *a = &c->archived[i];
        fputs("image ", stderr);
        put_text(stderr, c->names[i]);
        fprintf(stderr, ": size=%" PRIu64 " zeros=%" PRIu64 " saved=%" PRIu64 "\n", a->length,
                a->zeros, a->zeros);
    }
    return r ? EXIT_FAILED : EXIT_FINE;
}

static void free_all(struct creation *c)
{
    for (unsigned i = 0; i < MOST_DISKS; i++)
        free(c->names[i]);
    for (unsigned i = 0; i < c->n_disks; i++)
        platter_close(c->disks[i].disk, NULL);
    for (unsigned i = 0; i < c->n_files; i++)
        free((void *)(uintptr_t)c->files[i].bytes);
    free(c);
}

static int create_run(const struct args *args)
{
    bool options = false;
    for (unsigned i = 0; i < args->n_actions; i++)
        options |= args->actions[i].action == ADD_DISK;
    if (args->n_operands < 1)
        return usage_error(&verb_vma_create, "Expecting the name of an archive");
    if (options && args->n_operands > 1)
        return usage_error(&verb_vma_create,
                           "disks are given with -d, or as [NAME=]PATH, not both");
    struct creation *c = calloc(1, sizeof *c);
    if (!c)
        return usage_error(NULL, "out of memory");
    c->args = args;
    c->percent = -1;
    int fd = -1;
    int code = add_all(c) || open_output(args->operands[0], &fd) ? EXIT_FAILED : create(c, fd);
    if (fd >= 0)
        close(fd);
    free_all(c);
    return output_end(code);
}

static const struct opt create_opts[] = {
    OPT_FLAG_AT('v', NULL, verbose, "show how far the work has come, on standard error"),
    {'c', NULL, "FILE", OPT_ACTION, ADD_CONFIG, 0, "a configuration; may be repeated"},
    {'d', NULL, "[format=FMT:]NAME=PATH", OPT_ACTION, ADD_DISK, 0,
     "a disk, of a format that is found by content if not given; may be repeated"},
    OPT_END};

const struct verb verb_vma_create = {
    .name = "vma create",
    .summary = "make an archive of disks and configurations",
    .operands = "ARCHIVE [[NAME=]PATH]...",
    .opts = create_opts,
    .examples =
        "platter vma create vm.vma -c qemu-server.conf -d format=qcow2:drive-scsi0=vm.qcow2\n",
    .run = create_run};
