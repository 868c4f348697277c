/* SPDX-License-Identifier: MIT */
/* Names of places: see place.h. */
#include "stream/place.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/memory.h"
#include "config.h"
#include "stream/inside.h"

/* ---- files -------------------------------------------------------------------------------------
 */

static const char *const file_prefixes[] = {"file:", NULL};

static const struct option_def file_keys[] = {
    {"file_path", OPTION_STRING, NULL, NULL, 0, 0, "the file, or a block device"},
    {"offset", OPTION_SIZE, "0", NULL, 0, INT64_MAX,
     "where the bytes begin in it, of a disk inside of a larger file; read-only"},
    {"length", OPTION_SIZE, NULL, NULL, 1, INT64_MAX, "... and how many they are; to its end"},
    {0},
};

static const char *path_of(const char *name)
{
    if (strncasecmp(name, "file:", 5) != 0)
        return name;
    name += 5;
    /* "file:///x" has an empty host, as in a browser. */
    return strncmp(name, "///", 3) == 0 ? name + 2 : name;
}

static int file_keys_of(const char *uri, char **ret_keys, struct platter_error *err)
{
    return option_text(ret_keys, "file_path", path_of(uri), err);
}

static char *file_name_of(const struct option_values *keys)
{
    return string_copy(options_string(keys, "file_path"));
}

/* A part of a file is a stream of its own. */
static int open_part(const struct place *p, struct stream *file, struct stream **ret,
                     struct platter_error *err)
{
    uint64_t offset = options_number(p->keys, "offset"), size;
    int r = stream_size(file, &size, err);
    if (r < 0)
        return r;
    uint64_t most = offset < size ? size - offset : 0;
    uint64_t len = options_given(p->keys, "length") ? options_number(p->keys, "length") : most;
    if (offset > size)
        return fail(err, EINVAL, "%s: offset %" PRIu64 " lies behind its end, which is at %" PRIu64,
                    file->name, offset, size);
    if (len > most)
        return stream_fail_past_end(file, offset, len, size, err);
    return stream_part_open(file, offset, len, ret, err);
}

static bool is_part(const struct place *p)
{
    return options_given(p->keys, "offset") || options_given(p->keys, "length");
}

int place_part(const struct place *p, struct stream *file, struct stream **ret,
               struct platter_error *err)
{
    *ret = file;
    if (!is_part(p))
        return 0;
    int r = file->sequential ? fail(err, ENOTSUP,
                                    "%s: can only be read front to back, and as a whole: no part "
                                    "of it (offset, length) can be taken",
                                    file->name)
                             : open_part(p, file, ret, err);
    if (r < 0)
        stream_close(file);
    return r;
}

static int file_open(const struct place *p, unsigned flags, struct stream **ret,
                     struct platter_error *err)
{
    const char *path = options_string(p->keys, "file_path");
    if (!path || !*path)
        return fail(err, ENOENT, "no file is given: its name is empty");
    if (is_part(p) && (flags & (STREAM_FILE_WRITE | STREAM_FILE_TEMPORARY)))
        return fail(err, ENOTSUP, "%s: a part of a file can only be read", path);
    int r = stream_file_open(path, flags, ret, err);
    return r < 0 ? r : place_part(p, *ret, ret, err);
}

static int file_remove(const struct place *p, struct platter_error *err)
{
    return stream_file_remove(options_string(p->keys, "file_path"), err);
}

static const struct place_kind place_file = {
    .name = "file",
    .prefixes = file_prefixes,
    .keys = file_keys,
    .keys_of = file_keys_of,
    .name_of = file_name_of,
    .open = file_open,
    .remove = file_remove,
    .folders = true,
    .needs = "file_path",
    .can = PLACE_WRITE | PLACE_CREATE | PLACE_EXTENTS,
};

/* ---- kinds -------------------------------------------------------------------------------------
 */

const struct place_kind *const place_kinds[] = {
    &place_file,
#if HAVE_CURL
    &place_http, &place_s3,
#endif
#if HAVE_NBD
    &place_nbd,
#endif
#if HAVE_RBD
    &place_rbd,
#endif
    NULL,
};

/* Kinds that this build was made without, and the option that makes one with them. */
static const struct {
    const char *name, *option;
} left_out[] = {
#if !HAVE_CURL
    {"http", "curl"}, {"https", "curl"}, {"s3", "curl"},
#endif
#if !HAVE_NBD
    {"nbd", "nbd"},   {"nbds", "nbd"},   {"nbd+unix", "nbd"}, {"nbds+unix", "nbd"},
#endif
#if !HAVE_RBD
    {"rbd", "rbd"},
#endif
    {NULL, NULL},
};

static bool has_prefix(const struct place_kind *kind, const char *name)
{
    for (const char *const *p = kind->prefixes; *p; p++)
        if (strncasecmp(name, *p, strlen(*p)) == 0)
            return true;
    return false;
}

static const struct place_kind *kind_of(const char *name)
{
    for (const struct place_kind *const *k = place_kinds; *k; k++)
        if (has_prefix(*k, name))
            return *k;
    return NULL;
}

/* The length of the "word" of "word://", or 0. */
static size_t scheme_length(const char *name)
{
    size_t n = 0;
    while (isalnum((unsigned char)name[n]) || (n > 0 && name[n] && strchr("+-.", name[n])))
        n++;
    return n > 1 && strncmp(name + n, "://", 3) == 0 ? n : 0;
}

static int fail_unknown(const char *word, size_t len, struct platter_error *err)
{
    char known[256] = "";
    for (size_t i = 0; left_out[i].name; i++)
        if (strlen(left_out[i].name) == len && strncasecmp(left_out[i].name, word, len) == 0)
            return fail(err, ENOTSUP, "this build of platter was made without %s: -D%s=enabled",
                        left_out[i].name, left_out[i].option);
    for (const struct place_kind *const *k = place_kinds; *k; k++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", used ? ", " : "", (*k)->name);
    }
    return fail(
        err, EPROTONOSUPPORT,
        "no kind of place is called \"%.*s\": those known here are %s (a file whose name looks "
        "so is ./NAME)",
        (int)len, word, known);
}

bool place_is_spec(const char *name)
{
    return name[strspn(name, " \t\r\n")] == '{' || strncmp(name, "json:", 5) == 0;
}

bool place_is_file(const char *name, const char **ret_path)
{
    const struct place_kind *kind = kind_of(name);
    if (kind ? kind != &place_file : scheme_length(name) > 0)
        return false;
    if (ret_path)
        *ret_path = path_of(name);
    return true;
}

bool place_has_keys(const char *name)
{
    const struct place_kind *kind = kind_of(name);
    return kind && kind->keys_behind && strpbrk(strchr(name, ':') + 1, kind->keys_behind);
}

/* Where the host begins in what stands behind "//", if a user with a password stands before it. */
static size_t login_length(const char *authority)
{
    const char *end = authority + strcspn(authority, "/?#"),
               *at = memrchr(authority, '@', end - authority);
    return at && memchr(authority, ':', (size_t)(at - authority)) ? (size_t)(at + 1 - authority)
                                                                  : 0;
}

char *place_shown(const char *name)
{
    const struct place_kind *kind = kind_of(name);
    if (!kind || kind == &place_file)
        return string_copy(place_is_spec(name) ? "source-spec" : name);
    size_t scheme = (size_t)(strchr(name, ':') + 1 - name);
    const char *signs = kind->keys_behind ? kind->keys_behind : "?#";
    const char *rest = name + scheme;
    if (strncmp(rest, "//", 2) == 0) {
        scheme += 2;
        rest += 2;
        rest += login_length(rest);
    }
    return string_format("%.*s%.*s", (int)scheme, name, (int)strcspn(rest, signs), rest);
}

size_t place_root(const char *uri)
{
    const struct place_kind *kind = kind_of(uri);
    size_t scheme = scheme_length(uri);
    if (!kind || kind == &place_file || !kind->folders || !scheme)
        return 0;
    size_t host = scheme + 3, n = strcspn(uri + host, "/?#");
    return uri[host + n] == '/' ? host + n + 1 : 0;
}

char *place_beside(const char *name, const char *suffix)
{
    size_t len = place_root(name) ? strcspn(name, "?#") : strlen(name);
    return string_format("%.*s%s%s", (int)len, name, suffix, name + len);
}

/* ---- parsing -----------------------------------------------------------------------------------
 */

static int fill(struct place *p, const char *keys, struct platter_error *err)
{
    int r = options_parse(p->kind->keys, keys, &p->keys, err);
    if (r < 0)
        return fail_in(err, r, "a place of type %s", p->kind->name);
    p->name = p->kind->name_of(p->keys);
    if (p->name)
        return 0;
    place_done(p);
    return fail_memory(err, "a place");
}

const struct place_kind *place_kind_find(const char *name)
{
    for (const struct place_kind *const *k = place_kinds; *k; k++)
        if (strcmp((*k)->name, name) == 0)
            return *k;
    return NULL;
}

static bool has_key(const struct place_kind *kind, const char *key)
{
    const struct option_def *def = kind->keys;
    while (def->name && strcmp(def->name, key) != 0)
        def++;
    return def->name;
}

/* Whether a kind of place takes a key; one that no kind knows is left for options_parse() to
 * refuse. */
static bool concerns(const void *opaque, const char *key)
{
    const struct place_kind *kind = opaque;
    for (const struct place_kind *const *k = place_kinds; *k; k++)
        if (*k != kind && has_key(*k, key))
            return has_key(kind, key);
    return true;
}

/* Reads keys, and more of them, for a kind. */
static int fill_with(struct place *p, char **keys, const char *more, struct platter_error *err)
{
    int r = options_pick(keys, more, concerns, p->kind, err);
    return r < 0 ? r : fill(p, *keys, err);
}

int place_parse_with(const char *name, const char *more, struct place *ret,
                     struct platter_error *err)
{
    const struct place_kind *kind = kind_of(name);
    size_t scheme = kind ? 0 : scheme_length(name);
    if (scheme)
        return fail_unknown(name, scheme, err);
    auto_free char *keys = NULL;
    *ret = (struct place){.kind = kind ? kind : &place_file};
    int r = ret->kind->keys_of(name, &keys, err);
    return r < 0 ? r : fill_with(ret, &keys, more, err);
}

int place_parse(const char *name, struct place *ret, struct platter_error *err)
{
    return place_parse_with(name, NULL, ret, err);
}

int place_of_keys(const char *type, const char *keys, const char *more, struct place *ret,
                  struct platter_error *err)
{
    *ret = (struct place){.kind = place_kind_find(type)};
    if (!ret->kind)
        return fail_unknown(type, strlen(type), err);
    auto_free char *text = string_copy(keys);
    return keys && !text ? fail_memory(err, "a place") : fill_with(ret, &text, more, err);
}

void place_import_done(struct place_import *i)
{
    if (i->source)
        explicit_bzero(i->source, strlen(i->source));
    free(TAKE(i->source));
    free(TAKE(i->why));
}

void place_done(struct place *p)
{
    options_free(TAKE(p->keys));
    free(TAKE(p->name));
}

/* ---- opening -----------------------------------------------------------------------------------
 */

int place_open(const struct place *p, unsigned flags, struct stream **ret,
               struct platter_error *err)
{
    return p->kind->open(p, flags, ret, err);
}

int stream_open_with(const char *name, const char *more, unsigned flags, uint64_t size,
                     struct stream **ret, struct platter_error *err)
{
    const char *path;
    if (place_is_spec(name)) /* what it says is not shown */
        return fail(err, ENOENT,
                    "a source-spec says where a disk comes from, and nothing else is found or made "
                    "by one: give the name of a file, or a URI");
    if (!more && place_is_file(name, &path))
        return stream_file_open(path, flags, ret, err);
    struct place p;
    int r = place_parse_with(name, more, &p, err);
    if (r < 0)
        return r;
    p.size = size;
    r = place_open(&p, flags, ret, err);
    place_done(&p);
    return r;
}

int stream_open(const char *name, unsigned flags, struct stream **ret, struct platter_error *err)
{
    return stream_open_with(name, NULL, flags, 0, ret, err);
}

bool place_can_remove(const char *name)
{
    struct place p;
    if (place_parse_with(name, NULL, &p, NULL) < 0)
        return true; /* and then it says why not */
    bool can = p.kind->remove;
    place_done(&p);
    return can;
}

int place_remove(const char *name, const char *more, struct platter_error *err)
{
    struct place p;
    int r = place_parse_with(name, more, &p, err);
    if (r < 0)
        return r;
    r = p.kind->remove ? p.kind->remove(&p, err)
                       : fail(err, ENOTSUP, "%s: cannot be removed from here", p.name);
    place_done(&p);
    return r;
}

/* ---- secrets -----------------------------------------------------------------------------------
 */

static int first_line(const char *path, const char *what, char **ret, struct platter_error *err)
{
    enum { MOST = 64 << 10 };
    FILE *f = fopen(path, "re");
    if (!f)
        return fail_errno(err, errno, "%s: cannot read the %s from this file", path, what);
    char *line = calloc(1, MOST + 1);
    size_t n = line ? fread(line, 1, MOST, f) : 0;
    int failed = ferror(f) ? errno : 0;
    fclose(f);
    if (!line)
        return fail_memory(err, "a secret");
    line[strcspn(line, "\r\n")] = '\0';
    *ret = line;
    if (!failed && n > 0 && *line)
        return 0;
    free(TAKE(*ret));
    return failed ? fail_errno(err, failed, "%s: cannot read the %s from this file", path, what)
                  : fail(err, EINVAL, "%s: its first line is empty, where the %s is expected", path,
                         what);
}

int place_secret(const char *written, const char *what, char **ret, struct platter_error *err)
{
    *ret = NULL;
    if (strncmp(written, "file:", 5) == 0)
        return first_line(written + 5, what, ret, err);
    const char *value = written;
    if (strncmp(written, "env:", 4) == 0)
        value = getenv(written + 4);
    if (!value)
        return fail(err, EINVAL, "the environment has no %s, where the %s is expected", written + 4,
                    what);
    *ret = string_copy(value);
    return *ret ? 0 : fail_memory(err, "a secret");
}
