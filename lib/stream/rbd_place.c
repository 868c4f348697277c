/* SPDX-License-Identifier: MIT */
/*
 * "rbd:" names. Two spellings say more than where the image is: "?key=value&key=value" is that of
 * URIs, where %XX stands for a byte of a value; ":key=value:key=value" is that of Ceph and
 * qemu-img, where any option of Ceph's is a key, and a backslash keeps the sign behind it from
 * meaning anything. What is no key of ours goes into "config".
 */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "stream/rbd.h"

static const char *const rbd_prefixes[] = {"rbd:", NULL};

static const struct option_def rbd_keys[] = {
    {"pool_name", OPTION_STRING, NULL, NULL, 0, 0, "the pool"},
    {"pool_id", OPTION_NUMBER, NULL, NULL, 0, INT64_MAX, "... by its number"},
    {"pool_namespace", OPTION_STRING, NULL, NULL, 0, 0, "the namespace in it"},
    {"image_name", OPTION_STRING, NULL, NULL, 0, 0, "the image"},
    {"image_id", OPTION_STRING, NULL, NULL, 0, 0, "... by its id, also one in the trash"},
    {"snap_name", OPTION_STRING, NULL, NULL, 0, 0, "a snapshot of it, to be read"},
    {"snap_id", OPTION_NUMBER, NULL, NULL, 0, INT64_MAX, "... by its number"},
    {"cluster_name", OPTION_STRING, NULL, NULL, 0, 0,
     "whose configuration file is looked for: that of \"ceph\""},
    {"client_name", OPTION_STRING, NULL, NULL, 0, 0, "who we are there: client.admin"},
    {"id", OPTION_STRING, NULL, NULL, 0, 0, "... without \"client.\""},
    {"conf", OPTION_STRING, NULL, NULL, 0, 0,
     "Ceph's configuration file; that of CEPH_CONF, or one in /etc/ceph"},
    {"mon_host", OPTION_STRING, NULL, NULL, 0, 0, "where the monitors are"},
    {"keyring", OPTION_STRING, NULL, NULL, 0, 0, "the file with our key"},
    {"key", OPTION_STRING, NULL, NULL, 0, 0, "the key itself: env:NAME, file:PATH, or as it is"},
    {"config", OPTION_STRING, NULL, NULL, 0, 0,
     "more of Ceph's options: NAME=VALUE, with commas between them"},
    {"timeout", OPTION_NUMBER, "30", NULL, 1, 86400, "seconds to wait for the monitors' answers"},
    {"io_timeout", OPTION_NUMBER, "120", NULL, 1, 86400,
     "seconds to wait for an answer to a read or write"},
    {"object_size", OPTION_SIZE, NULL, NULL, 4096, 32 << 20,
     "of a new image: bytes of an object, a power of two; what the cluster has as default"},
    {"features", OPTION_STRING, NULL, NULL, 0, 0,
     "of a new image: what it has, by Ceph's names, with + or commas between them"},
    {"stripe_unit", OPTION_SIZE, NULL, NULL, 512, 32 << 20,
     "of a new image: bytes that go to an object before the next one has its turn"},
    {"stripe_count", OPTION_NUMBER, NULL, NULL, 1, 1 << 20, "... and how many objects take turns"},
    {"data_pool", OPTION_STRING, NULL, NULL, 0, 0, "of a new image: where its data goes"},
    {0},
};

/* ---- names ----------------------------------------------------------------------------------- */

static bool is_key(const char *word)
{
    for (const struct option_def *d = rbd_keys; d->name; d++)
        if (strcmp(d->name, word) == 0)
            return true;
    return false;
}

/* The next word of a name: up to one of `ends`, with backslashes taken off. *from moves to that
 * sign. Malloc'ed, or NULL. */
static char *word_until(const char **from, const char *ends)
{
    const char *p = *from;
    char *word = malloc(strlen(p) + 1), *to = word;
    while (word && *p && !strchr(ends, *p)) {
        p += *p == '\\' && p[1];
        *to++ = *p++;
    }
    if (word)
        *to = '\0';
    *from = p;
    return word;
}

/* %XX becomes a byte, in place. */
static bool unescape(char *text)
{
    char *to = text;
    for (const char *p = text; *p; p++) {
        unsigned byte;
        if (*p != '%') {
            *to++ = *p;
        } else if (isxdigit((unsigned char)p[1]) && isxdigit((unsigned char)p[2]) &&
                   sscanf(p + 1, "%2x", &byte) == 1 && byte) {
            *to++ = (char)byte;
            p += 2;
        } else {
            return false;
        }
    }
    *to = '\0';
    return true;
}

/* pool[/namespace]/image[@snapshot]; `*at` moves behind it. */
static int parse_image(const char **at, char **keys, struct platter_error *err)
{
    static const char *const names[] = {"pool_name", "pool_namespace", "image_name"};
    char *parts[3] = {NULL};
    unsigned n = 0;
    int r = 0;
    do {
        *at += n > 0;
        parts[n] = word_until(at, "/@:?");
    } while (parts[n++] && n < 3 && **at == '/');
    auto_free char *snap = NULL;
    if (**at == '@') {
        ++*at;
        snap = word_until(at, ":?");
        r = snap ? 0 : fail_memory(err, "a name");
    }
    if (n < 2 || **at == '/')
        r = fail(err, EINVAL, "\"rbd:\" is followed by POOL/IMAGE, or POOL/NAMESPACE/IMAGE");
    for (unsigned i = 0; i < n; i++) {
        const char *name = names[n == 2 && i == 1 ? 2 : i];
        if (r == 0 && !parts[i])
            r = fail_memory(err, "a name");
        if (r == 0 && !*parts[i])
            r = fail(err, EINVAL, "behind \"rbd:\" stands no %s: POOL/IMAGE is expected", name);
        if (r == 0)
            r = option_text(keys, name, parts[i], err);
        free(parts[i]);
    }
    return r < 0 ? r : option_text(keys, "snap_name", snap, err);
}

/* The value behind a key, up to the next pair. */
static int parse_value(const char **at, bool uri, const char *key, char **ret,
                       struct platter_error *err)
{
    size_t n = strcspn(*at, "&");
    *ret = uri ? string_format("%.*s", (int)n, *at) : word_until(at, ":");
    *at += uri ? n : 0;
    if (!*ret)
        return fail_memory(err, "a name");
    return !uri || unescape(*ret)
               ? 0
               : fail(err, EINVAL,
                      "the value of %s has a %% that is not followed by two hexadecimal digits",
                      key);
}

/* The next key=value, in either spelling. What is no key of ours is an option of Ceph's. */
static int parse_pair(const char **at, bool uri, char **keys, char **config,
                      struct platter_error *err)
{
    auto_free char *key = word_until(at, uri ? "=&" : "=:");
    auto_free char *value = NULL;
    if (!key)
        return fail_memory(err, "a name");
    if (**at != '=')
        return fail(err, EINVAL, "behind the image, KEY=VALUE is expected, not \"%s\"", key);
    ++*at;
    int r = parse_value(at, uri, key, &value, err);
    return r < 0 ? r : option_text(uri || is_key(key) ? keys : config, key, value, err);
}

static int rbd_keys_of(const char *uri, char **ret_keys, struct platter_error *err)
{
    const char *at = uri + strlen("rbd:");
    auto_free char *config = NULL;
    int r = parse_image(&at, ret_keys, err);
    bool query = *at == '?';
    while (r == 0 && *at) {
        at++;
        r = parse_pair(&at, query, ret_keys, &config, err);
    }
    return r < 0 ? r : option_text(ret_keys, "config", config, err);
}

static char *rbd_name_of(const struct option_values *keys)
{
    const char *pool = options_string(keys, "pool_name"), *space, *image, *snap;
    char number[32] = "", snap_number[32] = "";
    space = options_string(keys, "pool_namespace");
    image = options_string(keys, "image_name");
    snap = options_string(keys, "snap_name");
    if (!image)
        image = options_string(keys, "image_id");
    if (options_given(keys, "pool_id"))
        snprintf(number, sizeof number, "(pool %" PRIu64 ")", options_number(keys, "pool_id"));
    if (options_given(keys, "snap_id"))
        snprintf(snap_number, sizeof snap_number, "(%" PRIu64 ")", options_number(keys, "snap_id"));
    return string_format("rbd:%s%s%s/%s%s%s", pool ? pool : number, space ? "/" : "",
                         space ? space : "", image ? image : "", snap || *snap_number ? "@" : "",
                         snap ? snap : snap_number);
}

/* ---- opening --------------------------------------------------------------------------------- */

static int check_keys(const struct place *p, unsigned flags, struct platter_error *err)
{
    static const char *const either[][2] = {
        {"pool_name", "pool_id"}, {"snap_name", "snap_id"}, {"client_name", "id"}};
    const struct option_values *k = p->keys;
    for (size_t i = 0; i < sizeof either / sizeof *either; i++)
        if (options_given(k, either[i][0]) && options_given(k, either[i][1]))
            return fail(err, EINVAL, "%s: %s and %s are two words for the same: give one of them",
                        p->name, either[i][0], either[i][1]);
    if (!options_given(k, "pool_name") && !options_given(k, "pool_id"))
        return fail(err, EINVAL, "%s: a place of type rbd needs a pool_name, or a pool_id",
                    p->name);
    if (!options_given(k, "image_name") && !options_given(k, "image_id"))
        return fail(err, EINVAL, "%s: a place of type rbd needs an image_name, or an image_id",
                    p->name);
    bool snap = options_given(k, "snap_name") || options_given(k, "snap_id");
    if (snap && (flags & STREAM_FILE_WRITE))
        return fail(err, EROFS, "%s: a snapshot cannot be written to", p->name);
    return 0;
}

static int open_pool(struct rbd_stream *s, const struct option_values *k, struct platter_error *err)
{
    const char *pool = options_string(k, "pool_name"), *space = options_string(k, "pool_namespace");
    bool there = true;
    int r = pool ? librados.ioctx_create(s->cluster->handle, pool, &s->pool)
                 : librados.ioctx_create2(s->cluster->handle, (int64_t)options_number(k, "pool_id"),
                                          &s->pool);
    if (r < 0)
        s->pool = NULL;
    if (r == -ENOENT)
        return fail(err, ENOENT, "%s: the cluster has no such pool", s->head.name);
    if (r < 0)
        return rbd_fail(&s->head, r, err, "the pool cannot be opened");
    librados.set_pool_full_try(s->pool); /* else what writes to a full one waits until it is not */
    r = space ? librbd.namespace_exists(s->pool, space, &there) : 0;
    if (r < 0)
        return rbd_fail(&s->head, r, err, "the namespace cannot be looked for");
    if (!there)
        return fail(err, ENOENT, "%s: the pool has no namespace \"%s\"", s->head.name, space);
    if (space)
        librados.ioctx_set_namespace(s->pool, space);
    s->space = string_copy(space);
    return space && !s->space ? fail_memory(err, "a name") : 0;
}

/* An image is also said not to be there where that is true of what it is migrated from. */
static bool is_named(const struct rbd_stream *s, const char *name)
{
    auto_free char *object = name ? string_format("rbd_id.%s", name) : NULL;
    uint64_t size;
    time_t when;
    return object && librados.stat(s->pool, object, &size, &when) == 0;
}

static int fail_open(const struct rbd_stream *s, const char *name, int r, struct platter_error *err)
{
    if (r == -ENOENT && is_named(s, name))
        return fail(err, EIO,
                    "%s: the image cannot be opened: what it is migrated from, or is a clone of, "
                    "is not there",
                    s->head.name);
    if (r == -ENOENT)
        return fail(err, ENOENT, "%s: the pool has no such image", s->head.name);
    return rbd_fail(&s->head, r, err, "the image cannot be opened");
}

static int open_snapshot(struct rbd_stream *s, const struct option_values *k,
                         struct platter_error *err)
{
    const char *name = options_string(k, "snap_name");
    int r = 0;
    if (name)
        r = librbd.snap_get_id(s->image, name, &s->snap);
    else if (options_given(k, "snap_id"))
        s->snap = options_number(k, "snap_id");
    if (r == 0 && s->snap != RBD_NO_SNAP)
        r = librbd.snap_set_by_id(s->image, s->snap);
    if (r == -ENOENT)
        return fail(err, ENOENT, "%s: the image has no such snapshot", s->head.name);
    return r < 0 ? rbd_fail(&s->head, r, err, "the snapshot cannot be opened") : 0;
}

static int open_image(struct rbd_stream *s, const struct option_values *k, bool writable,
                      struct platter_error *err)
{
    const char *name = options_string(k, "image_name"), *id = options_string(k, "image_id");
    int r;
    if (id)
        r = writable ? librbd.open_by_id(s->pool, id, &s->image, NULL)
                     : librbd.open_by_id_read_only(s->pool, id, &s->image, NULL);
    else
        r = writable ? librbd.open(s->pool, name, &s->image, NULL)
                     : librbd.open_read_only(s->pool, name, &s->image, NULL);
    if (r < 0) {
        s->image = NULL;
        return fail_open(s, name, r, err);
    }
    s->head.writable = writable;
    return open_snapshot(s, k, err);
}

static int open_with(struct rbd_cluster *cluster, const struct place *p, unsigned flags,
                     struct stream **ret, struct platter_error *err)
{
    struct rbd_stream *s;
    int r = rbd_stream_new(cluster, p->name, &s, err);
    if (r < 0)
        return r;
    r = open_pool(s, p->keys, err);
    if (r == 0 && flags & STREAM_FILE_TEMPORARY)
        r = rbd_create_open(s, p->keys, err);
    else if (r == 0)
        r = open_image(s, p->keys, flags & STREAM_FILE_WRITE, err);
    if (r == 0)
        r = rbd_stream_learn(s, err);
    if (r < 0) {
        stream_close(&s->head);
        return r;
    }
    *ret = &s->head;
    return 0;
}

int rbd_open_pool(const struct place *p, struct stream **ret, struct platter_error *err)
{
    struct rbd_cluster *cluster;
    struct rbd_stream *s;
    int r = check_keys(p, STREAM_FILE_WRITE, err);
    if (r == 0 && !options_given(p->keys, "image_name"))
        r = fail(err, EINVAL, "%s: it takes the name of the image", p->name);
    if (r == 0)
        r = rbd_cluster_get(p->keys, p->name, &cluster, err);
    if (r == 0)
        r = rbd_stream_new(cluster, p->name, &s, err);
    if (r < 0)
        return r;
    r = open_pool(s, p->keys, err);
    if (r < 0)
        stream_close(&s->head);
    *ret = r < 0 ? NULL : &s->head;
    return r;
}

static int rbd_open_place(const struct place *p, unsigned flags, struct stream **ret,
                          struct platter_error *err)
{
    struct rbd_cluster *cluster;
    int r = check_keys(p, flags, err);
    if (r == 0)
        r = rbd_cluster_get(p->keys, p->name, &cluster, err);
    return r < 0 ? r : open_with(cluster, p, flags, ret, err);
}

int rbd_sibling(struct stream *base, const char *uri, unsigned flags, struct stream **ret,
                struct platter_error *err)
{
    struct place p;
    int r = place_parse(uri, &p, err);
    if (r < 0)
        return r;
    if (p.kind == &place_rbd)
        r = check_keys(&p, flags, err);
    if (r == 0)
        r = p.kind == &place_rbd
                ? open_with(rbd_cluster_share(rbd_of(base)->cluster), &p, flags, ret, err)
                : place_open(&p, flags, ret, err);
    place_done(&p);
    return r;
}

const struct place_kind place_rbd = {
    .name = "rbd",
    .prefixes = rbd_prefixes,
    .keys_behind = "?:",
    .keys = rbd_keys,
    .keys_of = rbd_keys_of,
    .name_of = rbd_name_of,
    .open = rbd_open_place,
    .remove = rbd_place_remove,
    .can = PLACE_WRITE | PLACE_CREATE | PLACE_EXTENTS | PLACE_SNAPSHOTS,
    .import = &rbd_import_ops,
};
