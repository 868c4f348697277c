/* SPDX-License-Identifier: MIT */
/* platter archive create: disks in any format, configurations and a name into one archive. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "qemu_conf.h"

enum { MOST_DISKS = 256, MOST_CONTENT = 65535 /* bytes of a configuration */ };

enum { ADD_DISK = 1, ADD_CONFIG, ADD_MAP, ADD_SETTING };

/* An archive that is put together. */
struct order {
    const struct args *args;
    struct platter_archive_source disks[MOST_DISKS];
    const struct platter_archive_source *disk_list[MOST_DISKS];
    struct conf_disk conf_disks[MOST_DISKS];
    char *names[MOST_DISKS]; /* owned */
    unsigned n_disks;
    struct platter_archive_file files[MAX_ACTIONS + 1];
    const struct platter_archive_file *file_list[MAX_ACTIONS + 1];
    char *contents[MAX_ACTIONS + 1]; /* owned */
    char *file_names[MAX_ACTIONS + 1];
    struct stat read[MAX_ACTIONS]; /* the files that they were read from */
    unsigned n_files, n_read;
    const char *maps[MAX_ACTIONS], *settings[MAX_ACTIONS];
    struct conf_request conf;
    struct platter_archived archived[MOST_DISKS];
    struct platter_archive_plan plan;
    char *target, *digest; /* owned */
    struct progress progress;
};

/* ---- disks -------------------------------------------------------------------------------------
 */

static int add_disk(struct order *o, const char *name, size_t name_len, const char *image,
                    bool state)
{
    struct platter_disk *disk = NULL;
    unsigned i = o->n_disks;
    if (i == MOST_DISKS) {
        say("an archive has at most 254 disks");
        return EXIT_FAILED;
    }
    o->names[i] = strndup(name, name_len);
    if (!o->names[i] || image_open(o->args, image, state ? "raw" : o->args->format, 0, &disk))
        return EXIT_FAILED;
    o->disks[i] = (struct platter_archive_source){
        .size = sizeof o->disks[i], .name = o->names[i], .disk = disk, .state = state};
    o->disk_list[i] = &o->disks[i];
    o->n_disks++;
    if (platter_size(disk) == 0) {
        say("%s: has no bytes: an archive cannot have such a disk", image);
        return EXIT_FAILED;
    }
    if (!state)
        o->conf_disks[o->conf.n_disks++] =
            (struct conf_disk){.name = o->names[i], .size = platter_size(disk)};
    return EXIT_FINE;
}

static int add_named_disk(struct order *o, const char *text)
{
    const char *equals = strchr(text, '=');
    if (!equals || equals == text || !equals[1])
        return usage_error(&verb_archive_create,
                           "-d %s: give NAME=IMAGE, where NAME is what the disk is called in the "
                           "archive, as in drive-scsi0=%s",
                           text, equals ? "vm.qcow2" : text);
    return add_disk(o, text, (size_t)(equals - text), equals + 1, false);
}

/* ---- configurations ----------------------------------------------------------------------------
 */

/* Takes the content. */
static void enter_file(struct order *o, char *name, char *content, size_t len)
{
    unsigned i = o->n_files++;
    o->file_names[i] = name;
    o->contents[i] = content;
    o->files[i] = (struct platter_archive_file){
        .size = sizeof o->files[i], .name = name, .bytes = content, .length = len};
    o->file_list[i] = &o->files[i];
}

/* [NAME=]FILE: the first, where there is no file of that literal name. */
static int add_config(struct order *o, const char *text)
{
    const char *equals = access(text, F_OK) == 0 ? NULL : strchr(text, '=');
    const char *path = equals ? equals + 1 : text, *slash = strrchr(path, '/');
    char *name = equals ? strndup(text, (size_t)(equals - text)) : strdup(slash ? slash + 1 : path);
    char *content = malloc(MOST_CONTENT + 1);
    FILE *in = fopen(path, "re");
    size_t len = in && content ? fread(content, 1, MOST_CONTENT + 1, in) : 0;
    int code = EXIT_FINE;
    if (!name || !content || !in || ferror(in)) {
        say("%s: cannot read: %s", path, strerror(errno ? errno : ENOMEM));
        code = EXIT_FAILED;
    } else if (len > MOST_CONTENT) {
        say("%s: is longer than %d bytes, which is the most that a configuration in an archive has",
            path, MOST_CONTENT);
        code = EXIT_FAILED;
    }
    if (in && fstat(fileno(in), &o->read[o->n_read]) == 0)
        o->n_read++;
    if (in)
        fclose(in);
    if (code == EXIT_FINE) {
        enter_file(o, name, content, len);
        return EXIT_FINE;
    }
    free(name);
    free(content);
    return code;
}

/* No file that a configuration was read from may be written over. */
static int check_not_read(const struct order *o, const char *path, int fd)
{
    struct stat st;
    if (fd >= 0 ? fstat(fd, &st) : stat(path, &st))
        return EXIT_FINE; /* it is new */
    for (unsigned i = 0; i < o->n_read && S_ISREG(st.st_mode); i++)
        if (o->read[i].st_dev == st.st_dev && o->read[i].st_ino == st.st_ino) {
            say("%s: is the file that a configuration is read from, and cannot be the target as "
                "well",
                path);
            return EXIT_FAILED;
        }
    return EXIT_FINE;
}

static unsigned find_conf(const struct order *o)
{
    unsigned i = 0;
    while (i < o->n_files && strcmp(o->files[i].name, QEMU_CONF) != 0)
        i++;
    return i;
}

static int generate_conf(struct order *o)
{
    char *text = NULL, *name = strdup(QEMU_CONF);
    size_t len = 0;
    int code = name ? conf_generate(&o->conf, &text, &len) : EXIT_FAILED;
    if (code == EXIT_FINE) {
        enter_file(o, name, text, len);
        return EXIT_FINE;
    }
    free(name);
    free(text);
    return code;
}

static int map_conf(struct order *o, unsigned at)
{
    char *text = NULL;
    size_t len = 0;
    int code = conf_add_maps(&o->conf, o->contents[at], o->files[at].length, &text, &len);
    free(o->contents[at]);
    o->contents[at] = text;
    o->files[at].bytes = text;
    o->files[at].length = len;
    return code;
}

/* The machine's configuration: as it was given, with more lines, or made. */
static int arrange_conf(struct order *o)
{
    const struct args *args = o->args;
    unsigned at = find_conf(o);
    bool there = at < o->n_files;
    int code = EXIT_FINE;
    if (args->generate_conf && there)
        return usage_error(&verb_archive_create,
                           "there is a " QEMU_CONF " already: --generate-conf makes one");
    if (o->conf.n_settings > 0 && !args->generate_conf)
        return usage_error(&verb_archive_create, "--set is for --generate-conf");
    if (o->conf.n_maps > 0 && !there && !args->generate_conf)
        return usage_error(&verb_archive_create,
                           "--map adds to " QEMU_CONF ": give one with -c, or --generate-conf");
    if (args->generate_conf)
        code = generate_conf(o);
    else if (o->conf.n_maps > 0)
        code = map_conf(o, at);
    else if (!there && o->conf.n_disks > 0 && !args->quiet)
        say("notice: there is no " QEMU_CONF ", without which qmrestore refuses an archive: give "
            "one with -c, or --generate-conf");
    at = find_conf(o);
    if (code == EXIT_FINE && at < o->n_files && !args->quiet)
        conf_warn(&o->conf, o->contents[at], o->files[at].length);
    return code;
}

/* ---- uuid, date and name -----------------------------------------------------------------------
 */

static int take_uuid(const char *text, uint8_t ret[16])
{
    unsigned n = 0;
    for (const char *c = text; *c; c++) {
        if (*c == '-' && n % 2 == 0)
            continue;
        if (!isxdigit((unsigned char)*c) || n == 32)
            n = 64;
        if (n >= 32)
            break;
        unsigned digit = isdigit((unsigned char)*c)
                             ? (unsigned)(*c - '0')
                             : (unsigned)(tolower((unsigned char)*c) - 'a') + 10;
        ret[n / 2] = (uint8_t)(ret[n / 2] << 4 | digit);
        n++;
    }
    if (n == 32)
        return EXIT_FINE;
    return usage_error(&verb_archive_create, "--uuid: '%s' is no uuid, which has 32 digits 0 to f",
                       text);
}

/* Whether it is as the shape, with any digit for each 0: strptime() passes over blanks and more. */
static bool has_shape(const char *text, const char *shape)
{
    for (; *text && *shape; text++, shape++)
        if (*shape == '0' ? *text < '0' || *text > '9' : *text != *shape)
            return false;
    return *text == *shape;
}

/* Seconds since 1970, or a date and time as files have them in their names: local time. */
static int take_time(const char *text, int64_t *ret)
{
    const char *digits = text + (*text == '-');
    struct tm tm = {.tm_isdst = -1};
    errno = 0;
    *ret = strtoll(text, NULL, 10);
    if (!errno && *digits && !digits[strspn(digits, "0123456789")])
        return EXIT_FINE;
    const char *end =
        has_shape(text, "0000-00-00 00:00:00") ? strptime(text, "%Y-%m-%d %H:%M:%S", &tm) : NULL;
    const struct tm said = tm;
    if (end && !*end) {
        *ret = (int64_t)mktime(&tm);
        if (tm.tm_mon == said.tm_mon && tm.tm_mday == said.tm_mday) /* no 31st of February */
            return EXIT_FINE;
    }
    return usage_error(&verb_archive_create,
                       "--time: '%s' is neither seconds since 1970 nor \"YYYY-MM-DD HH:MM:SS\"",
                       text);
}

static bool is_vmid(const char *text)
{
    size_t len = strlen(text);
    return len >= 3 && len <= 9 && text[0] != '0' && strspn(text, "0123456789") == len;
}

static bool ends_with(const char *text, const char *end)
{
    size_t len = strlen(text), n = strlen(end);
    return len > n && strcmp(text + len - n, end) == 0;
}

/* What compresses, as it was said or as the name tells. */
static int choose_compression(struct order *o, const char *name)
{
    const char *said = o->args->compression;
    if (said)
        o->plan.compression = strcmp(said, "none") == 0 ? NULL : said;
    else if (ends_with(name, ".zst"))
        o->plan.compression = "zstd";
    else if (ends_with(name, ".gz"))
        o->plan.compression = "gzip";
    else if (ends_with(name, ".lzo") || ends_with(name, ".bz2") || ends_with(name, ".xz"))
        return usage_error(&verb_archive_create,
                           "%s: an archive is compressed with zstd (.zst) or gzip (.gz); "
                           "--compression=none writes it as it is under that name",
                           name);
    if (o->args->level && !o->plan.compression)
        return usage_error(&verb_archive_create, "--level is for compressed archives");
    o->plan.level = (int)o->args->level;
    return EXIT_FINE;
}

/* The name that Proxmox VE gives to a backup: section 9.1 of vma.md. */
static int name_in_folder(struct order *o, const char *folder)
{
    const char *c = o->plan.compression;
    const char *suffix = !c ? "" : strcmp(c, "zstd") == 0 ? ".zst" : ".gz";
    char date[32];
    time_t now = o->plan.has_ctime ? (time_t)o->plan.ctime : time(NULL);
    struct tm tm;
    if (!o->args->vmid)
        return usage_error(&verb_archive_create,
                           "%s: is a folder: give the name of a file, or --vmid N for a name as "
                           "Proxmox VE has it",
                           folder);
    if (!localtime_r(&now, &tm) || !strftime(date, sizeof date, "%Y_%m_%d-%H_%M_%S", &tm))
        return usage_error(&verb_archive_create, "the date does not fit into a name");
    if (!o->plan.has_ctime && !o->args->reproducible) {
        o->plan.has_ctime = true; /* the same in the name and in the archive */
        o->plan.ctime = (int64_t)now;
    }
    const char *slash = ends_with(folder, "/") || strcmp(folder, "/") == 0 ? "" : "/";
    if (asprintf(&o->target, "%s%svzdump-qemu-%s-%s.vma%s", folder, slash, o->args->vmid, date,
                 suffix) < 0)
        o->target = NULL;
    return o->target ? EXIT_FINE : EXIT_FAILED;
}

static int open_target(struct order *o)
{
    const char *name = o->args->operands[0];
    struct stat st;
    o->plan.fd = -1;
    if (strcmp(name, "-") == 0) {
        if (isatty(STDOUT_FILENO))
            return usage_error(&verb_archive_create,
                               "standard output is a terminal: lead it to a file or a pipe");
        o->plan.fd = STDOUT_FILENO;
    } else if (stat(name, &st) == 0 && S_ISDIR(st.st_mode)) {
        return name_in_folder(o, name);
    } else if (stat(name, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
        o->plan.fd = open(name, O_WRONLY | O_CLOEXEC); /* a FIFO, or the like */
        if (o->plan.fd < 0) {
            say("%s: cannot open: %s", name, strerror(errno));
            return EXIT_FAILED;
        }
    }
    o->target = strdup(name);
    if (o->plan.fd >= 0)
        o->plan.flags |= PLATTER_ARCHIVE_TO_FD;
    return o->target ? EXIT_FINE : EXIT_FAILED;
}

/* What stands in the options, but for disks and configurations. */
static int arrange_plan(struct order *o)
{
    const struct args *args = o->args;
    const char *name = args->operands[0];
    if (args->vmid && !is_vmid(args->vmid))
        return usage_error(&verb_archive_create,
                           "--vmid: '%s' is no number of a machine, which has 3 to 9 digits",
                           args->vmid);
    o->plan.flags =
        (args->reproducible ? PLATTER_ARCHIVE_REPRODUCIBLE : 0u) |
        (args->embed_digest ? PLATTER_ARCHIVE_EMBED_DIGEST : 0u) |
        (args->exclusive ? PLATTER_ARCHIVE_EXCLUSIVE : 0u) |
        (args->cache && strcmp(args->cache, "unsafe") == 0 ? PLATTER_ARCHIVE_UNSAFE : 0u);
    o->plan.has_uuid = args->uuid;
    o->plan.has_ctime = args->time_text;
    if ((args->uuid && take_uuid(args->uuid, o->plan.uuid)) ||
        (args->time_text && take_time(args->time_text, &o->plan.ctime)) ||
        choose_compression(o, name) || open_target(o))
        return EXIT_FAILED;
    if (check_not_read(o, o->target, o->plan.fd))
        return EXIT_FAILED;
    if (!args->digest_beside && o->plan.fd >= 0)
        return EXIT_FINE;
    if (o->plan.fd >= 0)
        return usage_error(&verb_archive_create,
                           "--digest makes a file beside the archive: give the name of one, or "
                           "--embed-digest");
    /* In front of what a URI says of how to get there. */
    size_t path = strstr(o->target, "://") ? strcspn(o->target, "?#") : strlen(o->target);
    if (asprintf(&o->digest, "%.*s.platter.digest%s", (int)path, o->target, o->target + path) < 0)
        o->digest = NULL;
    o->plan.digest = args->digest_beside ? o->digest : NULL;
    /* Old digests are written over as well, or go with the old archive. */
    return o->digest ? check_not_read(o, o->digest, -1) : EXIT_FAILED;
}

/* ---- the work ----------------------------------------------------------------------------------
 */

static int take_actions(struct order *o)
{
    int code = EXIT_FINE;
    for (unsigned i = 0; i < o->args->n_actions && code == EXIT_FINE; i++) {
        const char *value = o->args->actions[i].value;
        switch (o->args->actions[i].action) {
        case ADD_DISK:
            code = add_named_disk(o, value);
            break;
        case ADD_CONFIG:
            code = add_config(o, value);
            break;
        case ADD_MAP:
            o->maps[o->conf.n_maps++] = value;
            break;
        default:
            o->settings[o->conf.n_settings++] = value;
            break;
        }
    }
    if (code == EXIT_FINE && o->args->vmstate)
        code = add_disk(o, "vmstate", strlen("vmstate"), o->args->vmstate, true);
    return code;
}

static json_t *describe(const struct order *o)
{
    json_t *disks = json_array();
    for (unsigned i = 0; i < o->n_disks; i++)
        json_array_append_new(disks, json_pack("{s:o, s:I, s:I}", "name", json_text(o->names[i]),
                                               "size", (json_int_t)o->archived[i].length, "zeros",
                                               (json_int_t)o->archived[i].zeros));
    return json_pack("{s:o, s:o}", "filename", json_shown(o->target), "disks", disks);
}

/* What became of it, where there is somewhere to say so. */
static void report(const struct order *o)
{
    char size[32], zeros[32];
    if (wants_json(o->args))
        print_json(describe(o));
    if (wants_json(o->args) || o->args->quiet || o->plan.fd >= 0)
        return;
    for (unsigned i = 0; i < o->n_disks; i++) {
        put_text(stdout, o->names[i]);
        printf(": %s, of which %s are zeros\n", human_size(o->archived[i].length, size),
               human_size(o->archived[i].zeros, zeros));
    }
    fputs("Archive written to ", stdout);
    put_shown(stdout, o->target);
    puts(".");
}

static int create(struct order *o)
{
    struct platter_error err = {0};
    struct platter_archive_plan *plan = &o->plan;
    plan->size = sizeof *plan;
    plan->disks = o->disk_list;
    plan->n_disks = o->n_disks;
    plan->files = o->file_list;
    plan->n_files = o->n_files;
    plan->workers = (unsigned)o->args->workers;
    plan->memory_limit = o->args->memory;
    plan->rate = o->args->rate;
    plan->target_place = o->args->target_place;
    plan->progress = progress_tick;
    plan->opaque = &o->progress;
    o->archived[0].size = sizeof o->archived[0];
    progress_start(&o->progress, o->args, plan->fd == STDOUT_FILENO);
    int r = platter_archive_create(o->target, plan, o->archived, &err);
    progress_end(&o->progress, !r);
    if (r)
        return say_end(&err, plan->fd >= 0 ? "what was written is incomplete"
                                           : "the unfinished archive was taken away");
    report(o);
    return EXIT_FINE;
}

static void order_free(struct order *o)
{
    for (unsigned i = 0; i < o->n_disks; i++)
        platter_close(o->disks[i].disk, NULL);
    for (unsigned i = 0; i < MOST_DISKS; i++)
        free(o->names[i]);
    for (unsigned i = 0; i < o->n_files; i++) {
        free(o->contents[i]);
        free(o->file_names[i]);
    }
    if (o->plan.fd > STDERR_FILENO)
        close(o->plan.fd);
    free(o->target);
    free(o->digest);
    free(o);
}

static int archive_create_run(const struct args *args)
{
    if (args->n_operands != 1)
        return usage_error(&verb_archive_create,
                           "Expecting the name of one archive; disks are given with -d NAME=IMAGE");
    if (!cache_check(&verb_archive_create, args->cache, "cache"))
        return EXIT_FAILED;
    struct order *o = calloc(1, sizeof *o);
    if (!o)
        return usage_error(NULL, "out of memory");
    o->args = args;
    o->plan.fd = -1;
    o->conf = (struct conf_request){
        .disks = o->conf_disks, .maps = o->maps, .settings = o->settings, .vmid = args->vmid};
    int code = take_actions(o);
    if (code == EXIT_FINE && o->n_disks == 0 && o->n_files == 0 && !args->generate_conf)
        code = usage_error(&verb_archive_create, "an archive of nothing: give a disk with -d");
    if (code == EXIT_FINE)
        code = arrange_conf(o);
    if (code == EXIT_FINE)
        code = arrange_plan(o);
    if (code == EXIT_FINE)
        code = create(o);
    order_free(o);
    return output_end(code);
}

static const struct opt archive_create_opts[] = {
    {'d', "disk", "NAME=IMAGE", OPT_ACTION, ADD_DISK, 0,
     "a disk, under the name it is to have; IMAGE@VIEW is a view of one; may be repeated"},
    {'c', "config", "[NAME=]FILE", OPT_ACTION, ADD_CONFIG, 0,
     "a configuration, under the name of the file if none is given; may be repeated"},
    OPT_TEXT(0, "vmstate", "FILE", OPT_FILE, vmstate, "the state of the machine's memory"),
    OPT_INPUT_FORMAT,
    OPT_TEXT(0, "vmid", "N", OPT_STRING, vmid,
             "number of the machine: with a folder as TARGET the name is Proxmox VE's"),
    {0, "map", "VIRTDEV:DISK[:STORAGE[:FORMAT]]", OPT_ACTION, ADD_MAP, 0,
     "which drive of the machine a disk is, as qemu-server.conf has to tell; may be repeated"},
    OPT_FLAG_AT(0, "generate-conf", generate_conf, "make a qemu-server.conf for the disks"),
    {0, "set", "KEY=VALUE", OPT_ACTION, ADD_SETTING, 0,
     "a line of that, as in memory=4096; may be repeated"},
    OPT_TEXT(0, "compression", "zstd|gzip|none", OPT_CHOICE, compression,
             "what to compress with; as the name of TARGET ends if not given"),
    OPT_TEXT(0, "level", "N", OPT_NUMBER, level, "of the compression: 1 to 19, of gzip 1 to 12"),
    OPT_FLAG_AT(0, "reproducible", reproducible,
                "the same disks give the same bytes, and those that hardly changed nearly so"),
    OPT_TEXT(0, "uuid", "UUID", OPT_STRING, uuid, "of the archive"),
    OPT_TEXT(0, "time", "TIME", OPT_STRING, time_text,
             "of the backup: seconds since 1970, or \"YYYY-MM-DD HH:MM:SS\""),
    OPT_FLAG_AT(0, "digest", digest_beside, "write digests of the data to TARGET.platter.digest"),
    OPT_FLAG_AT(0, "embed-digest", embed_digest, "write digests of the data into the archive"),
    OPT_FLAG_AT(0, "exclusive", exclusive, "fail where the target exists"),
    OPT_TEXT('t', NULL, "CACHE", OPT_STRING, cache,
             "unsafe: do not wait until the target is durable; other modes are accepted"),
    OPT_OUTPUT,
    OPT_PROGRESS,
    OPT_QUIET,
    OPT_WORKERS,
    OPT_TEXT('r', NULL, "RATE", OPT_SIZE, rate, "most bytes a second to read"),
    {0, "memory", "SIZE", OPT_SIZE, offsetof(struct args, memory), 0,
     "most memory for tables and buffers"},
    OPT_SHARE,
    OPT_WHERE_TO,
    OPT_ALLOWED,
    OPT_KEYS,
    OPT_END};

const struct verb verb_archive_create = {
    .name = "archive create",
    .summary = "make an archive of disks and configurations",
    .operands = "TARGET",
    .opts = archive_create_opts,
    .examples =
        "platter archive create vm.vma.zst -d drive-scsi0=vm.qcow2 -c qemu-server.conf\n"
        "platter archive create --vmid 100 /var/lib/vz/dump -d drive-scsi0=vm.vmdk "
        "--generate-conf --set memory=4096\n"
        "platter archive create --reproducible - -d drive-virtio0=vm.raw | restic backup --stdin\n",
    .long_work = true,
    .run = archive_create_run};
