/* SPDX-License-Identifier: MIT */
/* Digests as text, and back: see digest_file.h. What is parsed may come out of any archive. */
#include "ops/digest_file.h"

#include <inttypes.h>
#include <jansson.h>
#include <nettle/base16.h>
#include <nettle/base64.h>
#include <stdio.h>
#include <string.h>

#include "base/ckd.h"
#include "base/memory.h"

enum {
    VERSION = 1,
    HEX_ROOT = 2 * TREE_HASH,
    MOST_DISKS = 255 /* no archive has more: each costs a tree */
};

void digest_file_free(struct digest_file *d)
{
    for (unsigned i = 0; i < d->n; i++) {
        free(d->disks[i].name);
        free(d->disks[i].nodes);
    }
    free(d->disks);
    *d = (struct digest_file){0};
}

/* ---- printing ----------------------------------------------------------------------------------
 */

/* Text that is laid out: first only counted, then written. */
struct text {
    char *bytes; /* NULL: it is counted */
    size_t used;
};

static void put(struct text *t, const char *bytes, size_t len)
{
    if (t->bytes)
        memcpy(t->bytes + t->used, bytes, len);
    t->used += len;
}

static void put_string(struct text *t, const char *string)
{
    put(t, string, strlen(string));
}

static void put_nodes(struct text *t, const struct disk_digest *d)
{
    size_t len = (size_t)d->n_nodes * TREE_HASH, room = BASE64_ENCODE_RAW_LENGTH(len);
    if (t->bytes)
        base64_encode_raw(t->bytes + t->used, len, (const uint8_t *)d->nodes);
    t->used += room;
}

static int put_disk(struct text *t, const struct disk_digest *d, struct platter_error *err)
{
    char root[HEX_ROOT], size[32];
    json_t *string = json_string(d->name);
    if (!string)
        return fail(err, EILSEQ,
                    "the disk %s cannot have a digest in a file: its name is not UTF-8", d->name);
    auto_free char *name = json_dumps(string, JSON_ENCODE_ANY);
    json_decref(string);
    if (!name)
        return fail_memory(err, "digests");
    base16_encode_update(root, TREE_HASH, d->root);
    snprintf(size, sizeof size, "%" PRIu64, d->size);
    put_string(t, "{\"name\": ");
    put_string(t, name);
    put_string(t, ", \"size\": ");
    put_string(t, size);
    put_string(t, ", \"digest\": \"");
    put(t, root, sizeof root);
    put_string(t, "\", \"nodes\": \"");
    put_nodes(t, d);
    put_string(t, "\"}");
    return 0;
}

static int lay_out(struct text *t, const struct digest_file *d, struct platter_error *err)
{
    int r = 0;
    t->used = 0;
    put_string(t, "{\"platter-digest\": 1, \"disks\": [");
    for (unsigned i = 0; i < d->n && r == 0; i++) {
        put_string(t, i > 0 ? ",\n" : "\n");
        r = put_disk(t, &d->disks[i], err);
    }
    put_string(t, "]}\n");
    return r;
}

int digest_file_print(const struct digest_file *d, char **ret_text, size_t *ret_len,
                      struct platter_error *err)
{
    struct text t = {0};
    int r = lay_out(&t, d, err);
    if (r < 0)
        return r;
    t.bytes = malloc(t.used + 1);
    if (!t.bytes)
        return fail_memory(err, "digests");
    r = lay_out(&t, d, err);
    if (r < 0) {
        free(t.bytes);
        return r;
    }
    t.bytes[t.used] = '\0';
    *ret_text = t.bytes;
    *ret_len = t.used;
    return 0;
}

/* ---- parsing -----------------------------------------------------------------------------------
 */

struct parsing {
    const char *what;
    unsigned disk; /* number of the one that is looked at */
    struct platter_error *err;
};

static int bad(const struct parsing *p, const char *field, const char *expected)
{
    return fail(p->err, PLATTER_ECORRUPT, "%s: \"%s\" of disk %u is not %s", p->what, field,
                p->disk, expected);
}

/* Length and last signs tell how many bytes there are, before any room is made for them. */
static int parse_nodes(const struct parsing *p, const json_t *text, struct disk_digest *d)
{
    const char *from = json_string_value(text);
    size_t n = json_string_length(text);
    uint64_t bytes, groups;
    d->n_nodes = div_up(d->size, TREE_NODE);
    if (!from || ckd_mul(&bytes, d->n_nodes, TREE_HASH) || ckd_mul(&groups, div_up(bytes, 3), 4) ||
        groups != n)
        return bad(p, "nodes", "the base64 of 32 bytes for each 16 MiB of the disk");
    /* One more group than there is: the decoder is asked for bounds in groups. */
    d->nodes = malloc(n / 4 * 3 + 3);
    if (!d->nodes)
        return fail_memory(p->err, "digests");
    struct base64_decode_ctx ctx;
    size_t got = n / 4 * 3 + 3;
    base64_decode_init(&ctx);
    if (!base64_decode_update(&ctx, &got, (uint8_t *)d->nodes, n, from) ||
        !base64_decode_final(&ctx) || got != bytes)
        return bad(p, "nodes", "base64 of 32 bytes for each 16 MiB of the disk");
    return 0;
}

static int parse_root(const struct parsing *p, const json_t *text, struct disk_digest *d)
{
    const char *from = json_string_value(text);
    size_t got = TREE_HASH;
    struct base16_decode_ctx ctx;
    base16_decode_init(&ctx);
    if (!from || json_string_length(text) != HEX_ROOT ||
        !base16_decode_update(&ctx, &got, d->root, HEX_ROOT, from) || !base16_decode_final(&ctx) ||
        got != TREE_HASH)
        return bad(p, "digest", "64 hexadecimal digits");
    return 0;
}

/* Whether the nodes give the root. */
static int check_root(const struct parsing *p, const struct disk_digest *d)
{
    auto_free struct tree *tree = malloc(sizeof *tree);
    tree_hash root;
    if (!tree)
        return fail_memory(p->err, "digests");
    tree_init(tree, d->size);
    for (uint64_t i = 0; i < d->n_nodes; i++)
        tree_add(tree, d->nodes[i]);
    tree_root(tree, root);
    return memcmp(root, d->root, TREE_HASH) == 0
               ? 0
               : bad(p, "digest", "what the nodes of that disk give: the text is damaged");
}

static int parse_disk(const struct parsing *p, const json_t *disk, struct disk_digest *d)
{
    const json_t *name = json_object_get(disk, "name"), *size = json_object_get(disk, "size");
    if (!json_is_string(name) || strlen(json_string_value(name)) != json_string_length(name))
        return bad(p, "name", "a name");
    if (!json_is_integer(size) || json_integer_value(size) < 0)
        return bad(p, "size", "a number of bytes");
    d->size = (uint64_t)json_integer_value(size);
    d->name = string_copy(json_string_value(name));
    if (!d->name)
        return fail_memory(p->err, "digests");
    int r = parse_root(p, json_object_get(disk, "digest"), d);
    if (r == 0)
        r = parse_nodes(p, json_object_get(disk, "nodes"), d);
    return r < 0 ? r : check_root(p, d);
}

static int parse_all(struct parsing *p, const json_t *all, struct digest_file *ret)
{
    const json_t *list = json_object_get(all, "disks");
    const json_t *version = json_object_get(all, "platter-digest");
    size_t n = json_array_size(list);
    if (!json_is_integer(version) || !json_is_array(list))
        return fail(p->err, PLATTER_ECORRUPT,
                    "%s: is no file of digests: \"platter-digest\" and \"disks\" are not there",
                    p->what);
    if (json_integer_value(version) != VERSION)
        return fail(p->err, ENOTSUP,
                    "%s: is of version %" PRId64 " of files of digests; known is %d", p->what,
                    (int64_t)json_integer_value(version), VERSION);
    if (n > MOST_DISKS)
        return fail(p->err, PLATTER_ECORRUPT, "%s: has %zu disks, but there can be %d at most",
                    p->what, n, MOST_DISKS);
    ret->disks = calloc(n ? n : 1, sizeof *ret->disks);
    if (!ret->disks)
        return fail_memory(p->err, "digests");
    int r = 0;
    for (size_t i = 0; i < n && r == 0; i++) {
        p->disk = (unsigned)i;
        ret->n = (unsigned)i + 1;
        r = parse_disk(p, json_array_get(list, i), &ret->disks[i]);
    }
    return r;
}

int digest_file_parse(const char *what, const char *text, size_t len, struct digest_file *ret,
                      struct platter_error *err)
{
    struct parsing p = {.what = what, .err = err};
    json_error_t where;
    *ret = (struct digest_file){0};
    json_t *all = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &where);
    if (!all)
        return fail(err, PLATTER_ECORRUPT, "%s: is no file of digests: %s, at byte %d", what,
                    where.text, where.position);
    int r = parse_all(&p, all, ret);
    json_decref(all);
    if (r < 0)
        digest_file_free(ret);
    return r;
}
