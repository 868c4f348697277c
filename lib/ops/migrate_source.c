/* SPDX-License-Identifier: MIT */
/*
 * What the source of a migration was opened with, kept in the state, so that another process, days
 * later and in another folder, opens the same. Secrets of encrypted images are not kept; those that
 * stand in a source-spec or in keys of a place are.
 */
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "ops/migrate.h"
#include "stream/place.h"

enum { MAX_ALLOW = 256 };

/* ---- names that mean the same from everywhere -------------------------------------------------
 */

/* A path as it is from the root; malloc'ed. */
static char *whole_path(const char *path)
{
    char here[4096];
    if (path[0] == '/' || !getcwd(here, sizeof here))
        return string_copy(path);
    return string_format("%s/%s", strcmp(here, "/") == 0 ? "" : here, path);
}

static char *whole_name(const char *name)
{
    const char *path;
    if (strncmp(name, "json:", 5) == 0 && name[5 + strspn(name + 5, " \t\r\n")] != '{') {
        auto_free char *whole = whole_path(name + 5);
        return whole ? string_format("json:%s", whole) : NULL;
    }
    return !place_is_spec(name) && place_is_file(name, &path) ? whole_path(path)
                                                              : string_copy(name);
}

/* ---- kept ------------------------------------------------------------------------------------ */

static int keep_text(json_t *o, const char *key, const char *text)
{
    return text ? json_object_set_new(o, key, json_string(text)) : 0;
}

static int keep_allowed(json_t *o, const char *const *allow)
{
    json_t *list = json_array();
    int r = json_object_set_new(o, "allow", list);
    for (; r == 0 && allow && *allow; allow++) {
        auto_free char *whole = whole_name(*allow);
        r = whole ? json_array_append_new(list, json_string(whole)) : -1;
    }
    return r;
}

static int keep(json_t *o, const char *name, const struct platter_open_options *open)
{
    auto_free char *spool = open->spool ? whole_path(open->spool) : NULL;
    int r = keep_text(o, "name", name);
    r |= json_object_set_new(o, "flags", json_integer(open->flags));
    r |= keep_text(o, "format", open->format);
    r |= keep_text(o, "view", open->view);
    r |= keep_text(o, "spool", spool);
    r |= keep_text(o, "backing-format", open->backing_format);
    r |= keep_text(o, "place", open->place);
    return r < 0 ? r : keep_allowed(o, open->allow);
}

int migrate_source_keep(const char *name, const struct platter_open_options *open, json_t **ret,
                        struct platter_error *err)
{
    if (strcmp(name, "-") == 0 || strcmp(name, "json:-") == 0)
        return fail(err, EINVAL,
                    "standard input cannot be migrated: it is gone when the target is used");
    auto_free char *whole = whole_name(name);
    *ret = json_object();
    if (whole && keep(*ret, whole, open) == 0)
        return 0;
    json_decref(TAKE(*ret));
    return fail(err, EINVAL,
                "what the source is opened with cannot be kept: its names are no UTF-8");
}

/* ---- opened ---------------------------------------------------------------------------------- */

static const char *kept_text(const json_t *source, const char *key)
{
    return json_string_value(json_object_get(source, key));
}

/* Both lists of what is allowed; `all` has room for MAX_ALLOW and an end. */
static void add_allowed(const json_t *source, const struct platter_migrate_options *options,
                        const char **all)
{
    const json_t *list = json_object_get(source, "allow");
    unsigned n = 0;
    for (size_t i = 0; i < json_array_size(list) && n < MAX_ALLOW; i++)
        if (json_is_string(json_array_get(list, i)))
            all[n++] = json_string_value(json_array_get(list, i));
    for (const char *const *allow = options->allow; allow && *allow && n < MAX_ALLOW; allow++)
        all[n++] = *allow;
    all[n] = NULL;
}

int migrate_source_open(const json_t *source, const struct platter_migrate_options *options,
                        struct platter_disk **ret, struct platter_error *err)
{
    const char *allow[MAX_ALLOW + 1];
    const char *name = options->source ? options->source : kept_text(source, "name");
    add_allowed(source, options, allow);
    struct platter_open_options open = {
        .size = sizeof open,
        .flags = (unsigned)json_integer_value(json_object_get(source, "flags")) &
                 ~(unsigned)(PLATTER_OPEN_WRITE | PLATTER_OPEN_QUERY | PLATTER_OPEN_NO_BACKING |
                             PLATTER_OPEN_IN_ORDER),
        .format = kept_text(source, "format"),
        .view = kept_text(source, "view"),
        .memory_limit = options->memory_limit,
        .allow = allow,
        .secret = options->secret,
        .secret_opaque = options->secret_opaque,
        .spool = kept_text(source, "spool"),
        .backing_format = kept_text(source, "backing-format"),
        .place = options->source_place ? options->source_place : kept_text(source, "place")};
    if (!name)
        return fail(err, PLATTER_ECORRUPT, "the state of the migration does not name its source");
    return disk_open(name, &open, ret, err);
}

/* ---- as a backing file ----------------------------------------------------------------------- */

int migrate_source_as_backing(const json_t *source, char **ret, struct platter_error *err)
{
    const char *name = kept_text(source, "name"), *view = kept_text(source, "view");
    const char *format = kept_text(source, "format");
    bool archive = view && format_has_disks(format);
    if (!name || place_is_spec(name) || place_has_keys(name) || kept_text(source, "place") ||
        (view && !archive))
        return fail(err, ENOTSUP,
                    "no image can name this source as its backing file: it takes more than a path "
                    "or a URI to open it. Keep all of the disk instead: execute and commit");
    *ret = archive ? string_format("%s@%s", name, view) : string_copy(name);
    return *ret ? 0 : fail_memory(err, "a name");
}
