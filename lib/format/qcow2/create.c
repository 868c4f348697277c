/* SPDX-License-Identifier: MIT */
/*
 * Creating (section 12). Header, refcount table, refcount blocks, L1 table and, with preallocation,
 * L2 tables and data follow each other, so every table's content can be computed by index and is
 * written through one small buffer, whatever the disk's size. The header goes last. The file ends
 * with the last L1 entry, or with the preallocated data.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow2/layout.h"

enum { BUFFER = 1 << 20 };

struct creation {
    const struct create_request *request;
    struct qcow2_choice choice;
    struct qcow2_layout layout;
    uint8_t *buffer;     /* BUFFER bytes */
    struct stream *data; /* where data goes: the image's file, or the data file */
};

/* A table whose entry i is base + i * step, for n entries; each followed, with `wide`, by `bitmap`.
 */
struct progression {
    hoff off;
    uint64_t n, base, step;
    bool wide;
    uint64_t bitmap;
};

static int write_progression(struct creation *c, struct progression p, struct platter_error *err)
{
    uint32_t size = p.wide ? 16 : 8;
    uint64_t per_buffer = BUFFER / size;

    for (uint64_t i = 0; i < p.n; i += per_buffer) {
        struct writer w = writer_over(c->buffer, BUFFER);
        for (uint64_t k = i; k < p.n && k < i + per_buffer; k++) {
            write_be64(&w, p.base + k * p.step);
            if (p.wide)
                write_be64(&w, p.bitmap);
        }
        int r = stream_pwrite(c->request->stream, c->buffer, w.pos, p.off + i * size, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Counts of 1 for all clusters there are; what follows in the last block stays a hole. */
static int write_counts(struct creation *c, hoff off, struct platter_error *err)
{
    uint32_t order = c->choice.refcount_order;
    uint64_t per_buffer = (uint64_t)BUFFER * 8 >> order, left = c->layout.total;

    while (left) {
        uint64_t n = min_u64(left, per_buffer), bytes = div_up(n << order, 8);
        memset(c->buffer, 0, bytes);
        for (uint64_t k = 0; k < n; k++)
            qcow2_count_put(c->buffer, order, k, 1);
        int r = stream_pwrite(c->request->stream, c->buffer, bytes, off, err);
        if (r < 0)
            return r;
        off += bytes;
        left -= n;
    }
    return 0;
}

static int write_l1(struct creation *c, hoff off, hoff l2, struct platter_error *err)
{
    uint64_t cluster = c->layout.cluster_size;
    if (c->layout.l2 == 0)
        return 0;
    return write_progression(
        c,
        (struct progression){
            .off = off, .n = c->layout.l1_entries, .base = l2 | QCOW2_COPIED, .step = cluster},
        err);
}

/* With extended L2 entries the subclusters have a place, but hold nothing yet: so a backing file
 * shows through. A raw data file has no backing file, and holds all. */
static int write_l2(struct creation *c, hoff off, hoff data, struct platter_error *err)
{
    /* What nobody encrypted is no zeros: the entry says that they are. */
    uint64_t unwritten = c->choice.sealed && !c->choice.extended ? QCOW2_ZERO : 0;
    return write_progression(
        c,
        (struct progression){.off = off,
                             .n = c->layout.data,
                             .base = (c->choice.data_file ? 0 : data) | QCOW2_COPIED | unwritten,
                             .step = c->layout.cluster_size,
                             .wide = c->choice.extended,
                             .bitmap = c->choice.data_raw ? UINT32_MAX : 0},
        err);
}

static int write_data(struct creation *c, hoff off, struct platter_error *err)
{
    struct stream *s = c->data;
    uint64_t left = c->layout.data * c->layout.cluster_size;
    int r = 0;

    if (c->choice.data_file) { /* it is as long as the disk */
        off = 0;
        left = min_u64(left, c->request->size);
        r = stream_resize(s, c->request->size, err);
    }
    if (r < 0)
        return r;
    if (c->choice.preallocation == PREALLOCATION_FALLOC && left)
        return stream_allocate(s, off, left, err);
    if (c->choice.preallocation != PREALLOCATION_FULL)
        return 0;
    memset(c->buffer, 0, BUFFER);
    for (uint64_t n; r == 0 && left; off += n, left -= n) {
        n = min_u64(left, BUFFER);
        r = stream_pwrite(s, c->buffer, n, off, err);
    }
    return r;
}

static int write_keys(struct creation *c, hoff off, struct platter_error *err)
{
    const struct create_request *q = c->request;
    const struct luks1_area area = {
        .stream = q->stream, .off = off, .len = luks1_area_len(&c->choice.luks)};
    const struct platter_secret question = {.size = sizeof question,
                                            .kind = PLATTER_SECRET_NEW,
                                            .image = q->name,
                                            .id = options_string(q->options, "encrypt.key-secret")};
    struct secret secret;

    if (!c->choice.sealed)
        return 0;
    int r = secret_new(&secret, err);
    if (r == 0)
        r = ask_secret(q->opener, &question, &secret, err);
    if (r == 0)
        r = luks1_create(&c->choice.luks, &area, &secret, err);
    secret_wipe(&secret);
    return r;
}

static int write_header(struct creation *c, hoff reftable, hoff l1, struct platter_error *err)
{
    const struct create_request *request = c->request;
    const struct qcow2_choice *choice = &c->choice;
    struct qcow2_header h = {
        .version = choice->version,
        .cluster_bits = choice->cluster_bits,
        .size = request->size,
        .crypt_method = choice->sealed ? QCOW2_CRYPT_LUKS : QCOW2_CRYPT_NONE,
        .l1_size = (uint32_t)c->layout.l1_entries,
        .l1_offset = c->layout.l1_entries ? l1 : 0,
        .reftable_offset = reftable,
        .reftable_clusters = (uint32_t)c->layout.reftable,
        .incompatible = (choice->zstd ? QCOW2_INCOMPATIBLE_COMPRESSION : 0) |
                        (choice->extended ? QCOW2_INCOMPATIBLE_EXTENDED_L2 : 0) |
                        (choice->data_file ? QCOW2_INCOMPATIBLE_DATA_FILE : 0),
        .autoclear = choice->data_raw ? QCOW2_AUTOCLEAR_RAW : 0,
        .compatible = choice->lazy ? QCOW2_COMPATIBLE_LAZY : 0,
        .refcount_order = choice->refcount_order,
        .length = choice->version >= 3 ? QCOW2_HEADER_NOW : QCOW2_HEADER_V2,
        .compression = choice->zstd ? QCOW2_ZSTD : QCOW2_DEFLATE,
    };
    auto_free char *backing_format = NULL, *data_file = NULL;
    size_t len;

    int r = qcow2_rewrite_text(&backing_format, request->backing_format, err);
    if (r == 0)
        r = qcow2_rewrite_text(&data_file, choice->data_file, err);
    if (r < 0)
        return r;
    struct qcow2_extensions extensions = {
        .backing_format = backing_format,
        .data_file = data_file,
        .has_crypto = choice->sealed,
        .crypto_offset = l1 + c->layout.l1 * c->layout.cluster_size,
        .crypto_len = choice->sealed ? luks1_area_len(&choice->luks) : 0};
    if (!qcow2_cluster0_encode(&h, request->backing_name, &extensions, c->buffer,
                               min_u64(BUFFER, c->layout.cluster_size), &len))
        return fail(
            err, EINVAL,
            "%s: no room in the header: the names of backing file and data file are too long "
            "for "
            "clusters of %" PRIu64 " bytes",
            request->name, c->layout.cluster_size);
    return stream_pwrite(request->stream, c->buffer, len, 0, err);
}

static int write_image(struct creation *c, struct platter_error *err)
{
    const struct qcow2_layout *l = &c->layout;
    uint64_t cluster = l->cluster_size;
    hoff reftable = cluster, blocks = reftable + l->reftable * cluster;
    hoff l1 = blocks + l->blocks * cluster, luks = l1 + l->l1 * cluster;
    hoff l2 = luks + l->luks * cluster, data = l2 + l->l2 * cluster;
    hoff end = l->l2 || l->luks ? l->total * cluster : l1 + l->l1_entries * 8;
    struct progression to_blocks = {
        .off = reftable, .n = l->blocks, .base = blocks, .step = cluster};

    /* A new file only grows by this; a device holds whatever was on it before. */
    int r = stream_zero(c->request->stream, 0, end, STREAM_ZERO_UNMAP, err);
    if (r == 0)
        r = stream_resize(c->request->stream, end, err);
    if (r == 0)
        r = write_progression(c, to_blocks, err);
    if (r == 0)
        r = write_counts(c, blocks, err);
    if (r == 0)
        r = write_l1(c, l1, l2, err);
    if (r == 0)
        r = write_l2(c, l2, data, err);
    if (r == 0)
        r = write_keys(c, luks, err); /* asks somebody, who should not have to wait for the data */
    if (r == 0)
        r = write_data(c, data, err);
    if (r == 0)
        r = write_header(c, reftable, l1, err);
    return r;
}

static int open_data_file(struct creation *c, struct platter_error *err)
{
    const struct create_request *request = c->request;

    c->data = request->stream;
    if (!c->choice.data_file)
        return 0;
    if (!request->maker)
        return fail(err, ENOTSUP, "%s: a data file stands beside an image that is a file, not here",
                    request->name);
    const char *slash = strrchr(request->name, '/');
    if (strcmp(slash ? slash + 1 : request->name, c->choice.data_file) == 0)
        return fail(err, EINVAL, "%s: cannot be its own data file", request->name);
    return request->maker->make(request->maker, c->choice.data_file, &c->data, err);
}

int qcow2_create(const struct create_request *request, struct platter_error *err)
{
    struct creation c = {.request = request};
    auto_free uint8_t *buffer = NULL;

    int r = qcow2_choose(request->options, &c.choice, err);
    if (r == 0)
        r = qcow2_layout_compute(&c.choice, request->size, request->name, &c.layout, err);
    if (r < 0)
        return r;
    if (request->size % 512)
        return fail(err, EINVAL, "%s: the size %" PRIu64 " is not a multiple of 512", request->name,
                    request->size);
    if (request->backing_name && c.choice.data_raw)
        return fail(err, EINVAL,
                    "%s: Backing file and data-file-raw cannot be used at the same time",
                    request->name);
    if (request->backing_name && c.choice.preallocation && !c.choice.extended)
        return fail(err, EINVAL,
                    "%s: a backing file and preallocation go together only with extended_l2=on",
                    request->name);
    if (request->backing_name && strlen(request->backing_name) > QCOW2_MAX_NAME)
        return fail(err, EINVAL, "%s: the name of the backing file is longer than 1023 bytes",
                    request->name);
    if (request->backing_format && strlen(request->backing_format) > QCOW2_MAX_FORMAT_NAME)
        return fail(err, EINVAL, "%s: the name of the backing format is longer than 15 bytes",
                    request->name);
    buffer = malloc(BUFFER);
    if (!buffer)
        return fail_memory(err, "a new image");
    c.buffer = buffer;
    r = open_data_file(&c, err);
    return r < 0 ? r : write_image(&c, err);
}
