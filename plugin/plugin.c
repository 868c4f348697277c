/* SPDX-License-Identifier: MIT */
/*
 * nbdkit platter file=IMAGE: serves a disk in any format, from any place. nbdkit speaks NBD,
 * platter does the rest. Documented in nbdkit-platter-plugin(1).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "hangup.h"
#include "migration.h"
#include "shelf.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

enum {
    MAX_ALLOW = 64,
    MAX_KEYS = 16,
    MAX_EXPORTS = 9999,      /* that nbdkit lists beside the disk itself */
    MAX_EXTENTS = 8192,      /* of one answer: the client asks again behind it */
    PREFERRED_MIN = 4096,    /* bytes; pages of the guest */
    PREFERRED_MAX = 32 << 20 /* what the protocol allows */
};

static const char *allow[MAX_ALLOW + 1];
static unsigned n_allow;
static struct {
    uint8_t *bytes;
    size_t length;
} keys[MAX_KEYS]; /* tried in their order */
static unsigned n_keys;
static int status_fd = -1;
static bool copy_on_read = true;
static struct shelf_options options = {.open = {.size = sizeof options.open},
                                       .migrate = {.size = sizeof options.migrate}};

/* ---- parameters ------------------------------------------------------------------------------ */

/* Where a parameter that is a text goes; NULL: it is none of these. */
static const char **text_parameter(const char *key)
{
    const struct {
        const char *key, **at;
    } known[] = {
        {"file", &options.file},
        {"spec", &options.file},
        {"format", &options.open.format},
        {"view", &options.view},
        {"snapshot", &options.view},
        {"place", &options.open.place},
        {"backing-format", &options.open.backing_format},
        {"spool", &options.open.spool},
        {"state", &options.migrate.state},
        {"source", &options.migrate.source},
        {"target-place", &options.migrate.target_place},
        {"source-place", &options.migrate.source_place},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(key, known[i].key) == 0)
            return known[i].at;
    return NULL;
}

/* A parameter that is yes or no, as a flag of the open. */
static unsigned flag_parameter(const char *key)
{
    if (strcmp(key, "force-share") == 0)
        return PLATTER_OPEN_FORCE_SHARE;
    if (strcmp(key, "probe-backing") == 0)
        return PLATTER_OPEN_PROBE_BACKING;
    if (strcmp(key, "ignore-cid") == 0)
        return PLATTER_OPEN_IGNORE_CID;
    return strcmp(key, "salvage") == 0 ? PLATTER_OPEN_SALVAGE : 0;
}

static int config_flag(const char *value, unsigned flag)
{
    int on = nbdkit_parse_bool(value);
    if (on > 0)
        options.open.flags |= flag;
    return on < 0 ? -1 : 0;
}

/* ... as what else they are; *ret_known: whether it is one of them. */
static int config_bool(const char *key, const char *value, bool *ret_known)
{
    const struct {
        const char *key;
        bool *at;
    } known[] = {{"read-only", &options.read_only},
                 {"migration", &options.is_migration},
                 {"execute", &options.executes},
                 {"copy-on-read", &copy_on_read}};
    *ret_known = false;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(key, known[i].key) != 0)
            continue;
        int on = nbdkit_parse_bool(value);
        *ret_known = true;
        if (on >= 0)
            *known[i].at = on;
        return on < 0 ? -1 : 0;
    }
    return 0;
}

static int config_rate(const char *value)
{
    int64_t rate = nbdkit_parse_size(value);
    if (rate > 0)
        options.migrate.rate = (uint64_t)rate;
    return rate < 0 ? -1 : 0;
}

static int config_memory(const char *value)
{
    int64_t size = nbdkit_parse_size(value);
    if (size > 0)
        options.open.memory_limit = (uint64_t)size;
    return size < 0 ? -1 : 0;
}

/* Takes `bytes`, malloc'ed. */
static int add_key(uint8_t *bytes, size_t length)
{
    if (n_keys == MAX_KEYS || length > PLATTER_MAX_SECRET) {
        nbdkit_error("at most %d keys, of at most %d bytes", MAX_KEYS, PLATTER_MAX_SECRET);
        explicit_bzero(bytes, length);
        free(bytes);
        return -1;
    }
    keys[n_keys].bytes = bytes;
    keys[n_keys++].length = length;
    return 0;
}

static int config_secret(const char *value)
{
    char *text = NULL;
    if (nbdkit_read_password(value, &text) < 0)
        return -1;
    return add_key((uint8_t *)text, strlen(text));
}

/* All bytes of the file are the key, a line end as well. */
static int config_key_file(const char *path)
{
    uint8_t *bytes = malloc(PLATTER_MAX_SECRET + 1);
    FILE *file = bytes ? fopen(path, "re") : NULL;
    size_t length = 0;
    bool bad = !file;
    if (file) {
        setvbuf(file, NULL, _IONBF, 0); /* no copy of a secret stays in a buffer */
        length = fread(bytes, 1, PLATTER_MAX_SECRET + 1, file);
        bad = ferror(file);
    }
    if (bad)
        nbdkit_error("%s: cannot read the key: %s", path, strerror(errno));
    if (file)
        fclose(file);
    if (!bad)
        return add_key(bytes, length);
    if (bytes)
        explicit_bzero(bytes, PLATTER_MAX_SECRET + 1);
    free(bytes);
    return -1;
}

/* The name of a file as a path that still means the same when nbdkit has changed its folder; URIs
 * and source-specs stay. nbdkit has taken standard input away when the disk is opened. */
static const char *keep_name(const char *value)
{
    const char *file = strncmp(value, "json:", 5) == 0 ? value + 5 : value;
    if (strcmp(file, "-") == 0) {
        nbdkit_error("standard input cannot be served: put it into a file");
        return NULL;
    }
    if (*file == '{' || (file == value && strchr(value, ':') && access(value, F_OK) < 0))
        return nbdkit_strdup_intern(value);
    char *path = nbdkit_absolute_path(file);
    const char *kept =
        path ? nbdkit_printf_intern("%s%s", file == value ? "" : "json:", path) : NULL;
    free(path);
    return kept;
}

static int config_allow(const char *value)
{
    if (n_allow == MAX_ALLOW) {
        nbdkit_error("allow: at most %d times", MAX_ALLOW);
        return -1;
    }
    options.open.allow = allow;
    return (allow[n_allow++] = keep_name(value)) ? 0 : -1;
}

static int config_text(const char *key, const char *value, const char **text)
{
    bool name = text == &options.file || text == &options.open.spool ||
                text == &options.migrate.state || text == &options.migrate.source;
    bool joined = text == &options.open.place || text == &options.migrate.target_place ||
                  text == &options.migrate.source_place;
    if (*text && !joined) {
        nbdkit_error("%s: given twice", key);
        return -1;
    }
    if (name)
        *text = keep_name(value);
    else
        *text = *text ? nbdkit_printf_intern("%s,%s", *text, value) : nbdkit_strdup_intern(value);
    return *text ? 0 : -1;
}

static int platter_config(const char *key, const char *value)
{
    const char **text = text_parameter(key);
    bool is_bool = false;
    if (text)
        return config_text(key, value, text);
    int r = config_bool(key, value, &is_bool);
    if (is_bool)
        return r;
    if (flag_parameter(key))
        return config_flag(value, flag_parameter(key));
    if (strcmp(key, "allow") == 0)
        return config_allow(value);
    if (strcmp(key, "memory") == 0)
        return config_memory(value);
    if (strcmp(key, "rate") == 0)
        return config_rate(value);
    if (strcmp(key, "secret") == 0)
        return config_secret(value);
    if (strcmp(key, "key-file") == 0)
        return config_key_file(value);
    if (strcmp(key, "status-fd") == 0)
        return nbdkit_parse_int(key, value, &status_fd);
    nbdkit_error("unknown parameter \"%s\": see nbdkit platter --help", key);
    return -1;
}

static int secret_tell(void *opaque, const struct platter_secret *question, uint8_t *buffer,
                       size_t *ret_length)
{
    (void)opaque;
    if (question->kind != PLATTER_SECRET_OPEN || question->attempt >= n_keys)
        return -1;
    *ret_length = keys[question->attempt].length;
    memcpy(buffer, keys[question->attempt].bytes, *ret_length);
    return 0;
}

/* What is served and not a migration has none of its parameters. */
static int complete_image(void)
{
    const struct platter_migrate_options *m = &options.migrate;
    if (m->state || m->source || m->target_place || m->source_place || m->rate ||
        options.executes || !copy_on_read) {
        nbdkit_error("state, source, target-place, source-place, rate, execute and copy-on-read "
                     "are for migration=true");
        return -1;
    }
    return 0;
}

/* What the source is opened with was told when it was prepared. */
static int complete_migration(void)
{
    const struct platter_open_options *o = &options.open;
    if (o->format || options.view || o->place || o->backing_format || o->spool || o->flags ||
        options.read_only) {
        nbdkit_error("of a migration format, view, place, backing-format, spool and the like are "
                     "what it was prepared with");
        return -1;
    }
    options.migrate.flags = copy_on_read ? 0 : PLATTER_MIGRATE_NO_COPY_ON_READ;
    options.migrate.allow = o->allow;
    options.migrate.memory_limit = o->memory_limit;
    options.migrate.secret = o->secret;
    return 0;
}

static int platter_config_complete(void)
{
    if (!options.file) {
        nbdkit_error("file=IMAGE is missing: a path, a URI, or spec=JSON");
        return -1;
    }
    options.open.secret = secret_tell;
    return options.is_migration ? complete_migration() : complete_image();
}

#define CONFIG_HELP                                                                                \
    "file=IMAGE           (required) A path, a URI, or a source-spec.\n"                           \
    "spec=JSON            The same, for a source-spec.\n"                                          \
    "format=FORMAT        Its format; found by content if not given, never raw.\n"                 \
    "view=NAME            Serve this snapshot, or disk of an archive, alone.\n"                    \
    "snapshot=NAME        The same.\n"                                                             \
    "read-only=BOOL       Open for reading only, as nbdkit -r.\n"                                  \
    "secret=PASSPHRASE    Opens encrypted images; +FILE, -: see nbdkit(1).\n"                      \
    "key-file=PATH        The same, all bytes of a file; may be repeated.\n"                       \
    "allow=PATH           Names inside images may lead there; may be repeated.\n"                  \
    "backing-format=FMT   Of backing files whose image does not name it.\n"                        \
    "place=KEY=VALUE,...  More about a URI: see platter-places(7).\n"                              \
    "memory=SIZE          Most memory for tables and caches (64M).\n"                              \
    "spool=DIR            For a copy of what can only be read front to back.\n"                    \
    "migration=BOOL       file= is the target of a migration, which is gone on with:\n"            \
    "  execute=BOOL, rate=SIZE        copy what is missing, so many bytes a second;\n"             \
    "  copy-on-read=BOOL              keep what was read from the source (true);\n"                \
    "  state=, source=, target-place=, source-place=   as platter migrate has them.\n"             \
    "force-share=BOOL, probe-backing=BOOL, ignore-cid=BOOL, salvage=BOOL: as platter(1) has them."

static void platter_dump_plugin(void)
{
    printf("platter_version=%s\n", platter_version());
}

/* ---- life ------------------------------------------------------------------------------------ */

/* Tells whoever started nbdkit how far it is; see status-fd in nbdkit-platter-plugin(1). */
static void tell_status(const char *line)
{
    if (status_fd >= 0 && write(status_fd, line, strlen(line)) < 0)
        nbdkit_debug("status-fd: %s", strerror(errno));
}

/* What cannot be served is told before nbdkit goes into the background. */
static int platter_get_ready(void)
{
    return status_fd >= 0 ? 0 : shelf_try(&options);
}

/* Who watches wants to know of errors now, and the disk is opened only once for it. */
static int platter_after_fork(void)
{
    bool writable = false;
    if (status_fd < 0 && !options.is_migration)
        return 0;
    if (shelf_ready(&options, &writable) < 0 ||
        (options.executes && migration_copy_start(&options) < 0))
        return -1;
    if (status_fd >= 0 && hangup_watch(status_fd) < 0)
        return -1;
    tell_status(writable ? "writable\n" : "readable\n");
    return 0;
}

static void platter_unload(void)
{
    hangup_end();
    migration_copy_end();
    if (shelf_close() == 0)
        tell_status("closed\n");
    while (n_keys > 0) {
        n_keys--;
        explicit_bzero(keys[n_keys].bytes, keys[n_keys].length);
        free(keys[n_keys].bytes);
    }
}

/* ---- exports --------------------------------------------------------------------------------- */

static int platter_list_exports(int readonly, int is_tls, struct nbdkit_exports *exports)
{
    (void)is_tls;
    (void)readonly;
    if (options.view)
        return nbdkit_add_export(exports, "", options.view);
    const struct shelf_views *views = shelf_views(&options);
    if (!views)
        return -1;
    int r = views->only ? 0 : nbdkit_add_export(exports, "", "the disk itself");
    for (size_t i = 0; r == 0 && i < views->n && i < MAX_EXPORTS; i++)
        r = nbdkit_add_export(exports, views->v[i].name, views->v[i].about);
    return r;
}

static const char *platter_default_export(int readonly, int is_tls)
{
    (void)readonly;
    (void)is_tls;
    return "";
}

static void *platter_open_export(int readonly)
{
    const char *name = nbdkit_export_name();
    if (!name)
        return NULL;
    return shelf_take(&options, name, readonly);
}

static void platter_close_export(void *handle)
{
    shelf_give_back(handle);
}

static const char *platter_export_description(void *handle)
{
    const struct served *s = handle;
    return s->view ? nbdkit_printf_intern("view %s", s->view) : platter_format(s->disk);
}

static int64_t platter_get_size(void *handle)
{
    const struct served *s = handle;
    return (int64_t)platter_size(s->disk);
}

static int is_writable(void *handle)
{
    const struct served *s = handle;
    return s->writable;
}

static int yes(void *handle)
{
    (void)handle;
    return 1;
}

static int emulate_fua(void *handle)
{
    (void)handle;
    return NBDKIT_FUA_EMULATE;
}

static int platter_block_size(void *handle, uint32_t *minimum, uint32_t *preferred,
                              uint32_t *maximum)
{
    const struct served *s = handle;
    uint64_t unit = platter_cluster_size(s->disk);
    bool is_power = unit && (unit & (unit - 1)) == 0;
    *minimum = 1;
    *preferred = !is_power || unit < PREFERRED_MIN ? PREFERRED_MIN
                 : unit > PREFERRED_MAX            ? PREFERRED_MAX
                                                   : (uint32_t)unit;
    *maximum = UINT32_MAX;
    return 0;
}

/* ---- data ------------------------------------------------------------------------------------ */

/* What an error is to a client, to whom the protocol says little. */
static int answer(int r, const struct platter_error *err)
{
    if (r >= 0)
        return 0;
    nbdkit_error("%s", err->message);
    switch (-r) {
    case ENOSPC:
    case EDQUOT:
    case ENOMEM:
    case EINVAL:
    case EPERM:
        nbdkit_set_error(-r);
        break;
    case EROFS:
        nbdkit_set_error(EPERM);
        break;
    case EFBIG:
        nbdkit_set_error(ENOSPC);
        break;
    case ECANCELED:
        nbdkit_set_error(ESHUTDOWN);
        break;
    default: /* of ENOTSUP nbdkit would think that another way is left to try, and there is none */
        nbdkit_set_error(EIO);
    }
    return -1;
}

static int platter_pread_export(void *handle, void *buf, uint32_t count, uint64_t offset,
                                uint32_t flags)
{
    const struct served *s = handle;
    struct platter_error err = {0};
    (void)flags;
    return answer(platter_pread(s->disk, buf, count, offset, &err), &err);
}

static int platter_pwrite_export(void *handle, const void *buf, uint32_t count, uint64_t offset,
                                 uint32_t flags)
{
    const struct served *s = handle;
    struct platter_error err = {0};
    (void)flags; /* FUA is a flush, which nbdkit asks for */
    return answer(platter_pwrite(s->disk, buf, count, offset, &err), &err);
}

static int platter_flush_export(void *handle, uint32_t flags)
{
    const struct served *s = handle;
    struct platter_error err = {0};
    (void)flags;
    return answer(platter_flush(s->disk, &err), &err);
}

static int platter_trim_export(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    const struct served *s = handle;
    struct platter_error err = {0};
    (void)flags;
    return answer(platter_discard(s->disk, offset, count, &err), &err);
}

static int platter_zero_export(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    const struct served *s = handle;
    struct platter_error err = {0};
    unsigned how = flags & NBDKIT_FLAG_MAY_TRIM ? PLATTER_ZERO_UNMAP : 0;
    return answer(platter_zero(s->disk, offset, count, how, &err), &err);
}

/* A hole is what is stored nowhere; zeros may have room all the same. */
static uint32_t extent_type(const struct platter_extent *extent)
{
    if (!(extent->flags & PLATTER_EXTENT_ZERO))
        return 0;
    return NBDKIT_EXTENT_ZERO | (extent->flags & PLATTER_EXTENT_OFFSET ? 0 : NBDKIT_EXTENT_HOLE);
}

static int platter_extents(void *handle, uint32_t count, uint64_t offset, uint32_t flags,
                           struct nbdkit_extents *extents)
{
    const struct served *s = handle;
    uint64_t end = offset + count, found = 0;
    while (offset < end && found < MAX_EXTENTS) {
        struct platter_extent extent = {.size = sizeof extent};
        struct platter_error err = {0};
        int r = platter_map(s->disk, offset, end - offset, &extent, &err);
        if (r < 0 && !s->migration)
            return answer(r, &err);
        if (r < 0) /* where its source does not answer there may be data */
            extent = (struct platter_extent){.length = end - offset};
        if (nbdkit_add_extent(extents, offset, extent.length, extent_type(&extent)) < 0)
            return -1;
        offset += extent.length;
        found++;
        if (flags & NBDKIT_FLAG_REQ_ONE)
            break;
    }
    return 0;
}

static struct nbdkit_plugin plugin = {
    .name = "platter",
    .longname = "virtual machine disks in any format",
    .description = "Serves a disk in any format, from any place, and the views it has.",
    .unload = platter_unload,
    .config = platter_config,
    .config_complete = platter_config_complete,
    .config_help = CONFIG_HELP,
    .magic_config_key = "file",
    .dump_plugin = platter_dump_plugin,
    .get_ready = platter_get_ready,
    .after_fork = platter_after_fork,
    .list_exports = platter_list_exports,
    .default_export = platter_default_export,
    .open = platter_open_export,
    .close = platter_close_export,
    .export_description = platter_export_description,
    .get_size = platter_get_size,
    .block_size = platter_block_size,
    .can_write = is_writable,
    .can_trim = is_writable,
    .can_zero = is_writable,
    .can_flush = yes,
    .can_fua = emulate_fua,
    .can_multi_conn = yes,
    .can_extents = yes,
    .pread = platter_pread_export,
    .pwrite = platter_pwrite_export,
    .flush = platter_flush_export,
    .trim = platter_trim_export,
    .zero = platter_zero_export,
    .extents = platter_extents,
};

NBDKIT_DLL_PUBLIC struct nbdkit_plugin *plugin_init(void); /* what nbdkit looks for */
NBDKIT_REGISTER_PLUGIN(plugin)
