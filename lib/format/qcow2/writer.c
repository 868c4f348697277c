/* SPDX-License-Identifier: MIT */
/*
 * A new image that is written front to back, to where only the beginning can be written again: an
 * upload. Clusters of data come in guest order, each L2 table behind the last one that it maps; of
 * the tables only L1 and the refcount table stay in memory, until the end:
 *
 *     header | data, L2 | data, L2 | ... refcount block | data, L2 ... | L1 | refcount table |
 * block
 *
 * A refcount block is the last cluster of those that it counts. The header comes last. What is not
 * written reads as zeros, so there is no backing file.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "base/codec.h"
#include "base/cursor.h"
#include "format/qcow2/layout.h"

enum { BUFFER = 1 << 20 };

struct qcow2_writer {
    struct image_writer w;
    struct stream *stream;
    struct budget *budget;
    struct qcow2_choice choice;
    struct qcow2_header header;
    uint64_t cluster; /* bytes */
    bool compress;
    goff next; /* appends go on here or behind */

    uint8_t *buffer; /* BUFFER bytes that are not yet written */
    size_t fill;
    hoff written; /* bytes of the file before the buffer */

    uint8_t *l2; /* the table that is filled, for entry `table` of the L1 table */
    uint64_t table;
    bool used;
    uint64_t *l1, l1_entries;

    uint8_t *counts; /* the block that is filled, for `per_block` clusters from `first` on */
    uint64_t first, per_block;
    uint64_t *blocks; /* where those before it stand */
    uint64_t n_blocks, max_blocks;
};

/* ---- the file ----------------------------------------------------------------------------------
 */

static hoff here(const struct qcow2_writer *q)
{
    return q->written + q->fill;
}

static int put(struct qcow2_writer *q, const void *bytes, size_t len, struct platter_error *err)
{
    const uint8_t *from = bytes;
    int r = 0;
    for (size_t n; len > 0 && r == 0; from += n, len -= n) {
        n = (size_t)min_u64(len, BUFFER - q->fill);
        memcpy(q->buffer + q->fill, from, n);
        q->fill += n;
        if (q->fill < BUFFER)
            continue;
        r = stream_pwrite(q->stream, q->buffer, q->fill, q->written, err);
        q->written += q->fill;
        q->fill = 0;
    }
    return r;
}

static int put_zeros_to(struct qcow2_writer *q, hoff end, struct platter_error *err)
{
    static const uint8_t zeros[4096];
    int r = 0;
    while (here(q) < end && r == 0)
        r = put(q, zeros, (size_t)min_u64(sizeof zeros, end - here(q)), err);
    return r;
}

/* ---- counts ------------------------------------------------------------------------------------
 */

/* One more reference to each cluster of a range, all of this block. */
static void count(struct qcow2_writer *q, hoff off, uint64_t len)
{
    uint32_t order = q->choice.refcount_order;
    for (uint64_t c = off / q->cluster; c <= (off + len - 1) / q->cluster; c++)
        qcow2_count_put(q->counts, order, c - q->first,
                        qcow2_count_get(q->counts, order, c - q->first) + 1);
}

static uint64_t count_of(const struct qcow2_writer *q, hoff off)
{
    return qcow2_count_get(q->counts, q->choice.refcount_order, off / q->cluster - q->first);
}

static int note_block(struct qcow2_writer *q, hoff off, struct platter_error *err)
{
    if (q->n_blocks == q->max_blocks)
        return fail(err, EFBIG, "%s: more clusters than the image can have are written",
                    q->stream->name);
    q->blocks[q->n_blocks++] = off;
    return 0;
}

/* The block ends the clusters that it counts; the next one begins. */
static int end_block(struct qcow2_writer *q, struct platter_error *err)
{
    hoff off = (q->first + q->per_block - 1) * q->cluster;
    int r = put_zeros_to(q, off, err);
    if (r == 0)
        r = note_block(q, off, err);
    if (r < 0)
        return r;
    count(q, off, q->cluster);
    r = put(q, q->counts, q->cluster, err);
    memset(q->counts, 0, q->cluster);
    q->first += q->per_block;
    return r;
}

/* Whether a range ends in front of the last cluster that the block counts. */
static bool fits_block(const struct qcow2_writer *q, hoff off, uint64_t len)
{
    return off + len <= (q->first + q->per_block - 1) * q->cluster;
}

/* A cluster of its own; *ret is where. */
static int put_cluster(struct qcow2_writer *q, const void *bytes, hoff *ret,
                       struct platter_error *err)
{
    int r = put_zeros_to(q, round_up(here(q), q->cluster), err);
    if (r == 0 && !fits_block(q, here(q), q->cluster))
        r = end_block(q, err);
    if (r < 0)
        return r;
    *ret = here(q);
    count(q, *ret, q->cluster);
    return put(q, bytes, q->cluster, err);
}

/* A packed cluster, behind others in the same one where that can be counted. */
static int put_packed(struct qcow2_writer *q, const void *bytes, size_t len, hoff *ret,
                      struct platter_error *err)
{
    int r = 0;
    if (!fits_block(q, here(q), len)) {
        r = end_block(q, err);
    } else if (count_of(q, here(q)) == qcow2_count_max(q->choice.refcount_order)) {
        r = put_zeros_to(q, round_up(here(q), q->cluster), err);
        if (r == 0 && !fits_block(q, here(q), len))
            r = end_block(q, err);
    }
    if (r < 0)
        return r;
    *ret = here(q);
    count(q, *ret, len);
    return put(q, bytes, len, err);
}

/* ---- the writer --------------------------------------------------------------------------------
 */

static struct qcow2_writer *writer_of(const struct image_writer *w)
{
    return (struct qcow2_writer *)w;
}

static size_t encode_bound(const struct image_writer *w)
{
    return w->unit;
}

/* What does not get shorter stays as it is: it is as long as a cluster. */
static int encode(struct image_writer *w, goff off, const void *data, size_t len, void *out,
                  size_t *ret_len, struct platter_error *err)
{
    const struct qcow2_writer *q = writer_of(w);
    auto_free uint8_t *whole = NULL;
    (void)off;
    if (len < q->cluster && q->compress) {
        whole = calloc(1, q->cluster);
        if (!whole)
            return fail_memory(err, "a cluster");
        data = memcpy(whole, data, len);
        len = q->cluster;
    }
    int r = q->compress ? codec_pack(q->choice.zstd ? CODEC_ZSTD : CODEC_DEFLATE, data, len, out,
                                     q->cluster - 1, ret_len, err)
                        : -E2BIG;
    if (r != -E2BIG)
        return r;
    memcpy(out, data, len);
    memset((uint8_t *)out + len, 0, q->cluster - len);
    *ret_len = q->cluster;
    return 0;
}

/* A table without entries is left out. */
static int end_table(struct qcow2_writer *q, struct platter_error *err)
{
    hoff off;
    if (!q->used)
        return 0;
    int r = put_cluster(q, q->l2, &off, err);
    if (r < 0)
        return r;
    q->l1[q->table] = off | QCOW2_COPIED;
    memset(q->l2, 0, q->cluster);
    q->used = false;
    return 0;
}

static uint64_t packed_entry(const struct qcow2_writer *q, hoff off, size_t len)
{
    unsigned x = 62 - (q->choice.cluster_bits - 8);
    return QCOW2_PACKED | ((off + len - 1) / 512 - off / 512) << x | off;
}

static int append(struct image_writer *w, goff off, size_t len, const void *bytes, size_t bytes_len,
                  struct platter_error *err)
{
    struct qcow2_writer *q = writer_of(w);
    uint64_t per_table = q->cluster / 8, unit = off / q->cluster;
    if (off < q->next || off % q->cluster != 0 || unit / per_table >= q->l1_entries)
        return fail(err, EINVAL, "%s: the cluster at guest offset %" PRIu64 " is out of order",
                    q->stream->name, off);
    q->next = off + len;
    int r = unit / per_table != q->table ? end_table(q, err) : 0;
    if (r < 0)
        return r;
    hoff at;
    bool packed = bytes_len < q->cluster;
    r = packed ? put_packed(q, bytes, bytes_len, &at, err) : put_cluster(q, bytes, &at, err);
    if (r == 0 && at + bytes_len > (packed ? UINT64_C(1) << (62 - (q->choice.cluster_bits - 8))
                                           : QCOW2_MAX_OFFSET))
        r = fail(err, EFBIG, "%s: is too long for its tables", q->stream->name);
    if (r < 0)
        return r;
    q->table = unit / per_table;
    q->used = true;
    put_be(q->l2 + unit % per_table * 8, 8,
           packed ? packed_entry(q, at, bytes_len) : at | QCOW2_COPIED);
    return 0;
}

/* ---- the end -----------------------------------------------------------------------------------
 */

/* Numbers as a table of whole clusters, which follow each other; *ret is where. */
static int put_table(struct qcow2_writer *q, const uint64_t *numbers, uint64_t n, hoff *ret,
                     struct platter_error *err)
{
    auto_free uint8_t *bytes = calloc(1, q->cluster);
    uint64_t per_cluster = q->cluster / 8;
    int r =
        bytes ? put_zeros_to(q, round_up(here(q), q->cluster), err) : fail_memory(err, "a table");
    /* A block in between would tear it apart. */
    if (r == 0 && !fits_block(q, here(q), round_up(n * 8, q->cluster)))
        r = end_block(q, err);
    *ret = here(q);
    for (uint64_t i = 0; i < n && r == 0; i += per_cluster) {
        hoff off;
        memset(bytes, 0, q->cluster);
        for (uint64_t k = i; k < n && k < i + per_cluster; k++)
            put_be(bytes + (k - i) * 8, 8, numbers[k]);
        r = put_cluster(q, bytes, &off, err);
    }
    return r;
}

/* The refcount table, and behind it the last block, which counts the table and itself. */
static int put_counts(struct qcow2_writer *q, struct platter_error *err)
{
    int r = put_zeros_to(q, round_up(here(q), q->cluster), err);
    uint64_t bytes = round_up((q->n_blocks + 2) * 8, q->cluster);
    if (r == 0 && !fits_block(q, here(q), bytes))
        r = end_block(q, err);
    hoff last = here(q) + round_up((q->n_blocks + 1) * 8, q->cluster), off;
    if (r == 0)
        r = note_block(q, last, err);
    q->header.reftable_clusters = (uint32_t)div_up(q->n_blocks * 8, q->cluster);
    if (r == 0)
        r = put_table(q, q->blocks, q->n_blocks, &q->header.reftable_offset, err);
    if (r < 0)
        return r;
    count(q, last, q->cluster);
    off = here(q);
    if (off != last)
        return fail(err, EINVAL, "%s: the refcount table ends at %" PRIu64 ", not at %" PRIu64,
                    q->stream->name, off, last);
    return put(q, q->counts, q->cluster, err);
}

static int drain(struct qcow2_writer *q, struct platter_error *err)
{
    int r = q->fill > 0 ? stream_pwrite(q->stream, q->buffer, q->fill, q->written, err) : 0;
    q->written += q->fill;
    q->fill = 0;
    return r;
}

static int put_header(struct qcow2_writer *q, struct platter_error *err)
{
    const struct qcow2_extensions none = {0};
    auto_free uint8_t *bytes = calloc(1, q->cluster);
    size_t len;
    if (!bytes)
        return fail_memory(err, "a header");
    if (!qcow2_cluster0_encode(&q->header, NULL, &none, bytes, q->cluster, &len))
        return fail(err, EINVAL, "%s: no room for the header in a cluster of %" PRIu64 " bytes",
                    q->stream->name, q->cluster);
    return stream_pwrite(q->stream, bytes, len, 0, err);
}

static int finish(struct image_writer *w, struct platter_error *err)
{
    struct qcow2_writer *q = writer_of(w);
    int r = end_table(q, err);
    if (r == 0 && q->l1_entries > 0)
        r = put_table(q, q->l1, q->l1_entries, &q->header.l1_offset, err);
    if (r == 0)
        r = put_counts(q, err);
    if (r == 0)
        r = drain(q, err);
    return r < 0 ? r : put_header(q, err);
}

static void writer_close(struct image_writer *w)
{
    struct qcow2_writer *q = writer_of(w);
    budget_free(q->budget, q->buffer, BUFFER);
    budget_free(q->budget, q->l2, q->cluster);
    budget_free(q->budget, q->counts, q->cluster);
    budget_free(q->budget, q->l1, q->l1_entries * 8);
    budget_free(q->budget, q->blocks, q->max_blocks * 8);
    free(q);
}

static const struct writer_ops writer_ops = {
    .encode_bound = encode_bound,
    .encode = encode,
    .append = append,
    .finish = finish,
    .close = writer_close,
};

/* ---- opening -----------------------------------------------------------------------------------
 */

static int check_choice(const struct create_request *request, const struct qcow2_choice *c,
                        struct platter_error *err)
{
    const char *what = c->sealed          ? "is encrypted"
                       : c->data_file     ? "has a data file"
                       : c->extended      ? "has extended L2 entries"
                       : c->preallocation ? "is preallocated"
                                          : NULL;
    if (request->stream->rewritable < UINT64_C(1) << c->cluster_bits)
        return fail(err, ENOTSUP,
                    "%s: the qcow2 format cannot be written front to back: give a file name",
                    request->name);
    if (what)
        return fail(err, ENOTSUP,
                    "%s: a qcow2 image that %s cannot be written front to back: make a file, and "
                    "copy that as raw",
                    request->name, what);
    if (request->size % 512)
        return fail(err, EINVAL, "%s: the size %" PRIu64 " is not a multiple of 512", request->name,
                    request->size);
    return 0;
}

/* As many blocks as there can be: for all data, with an L2 table for each so many clusters of it,
 * and each block among what it counts. Tables are not torn apart, which may leave a rest unused. */
static int size_tables(struct qcow2_writer *q, const struct qcow2_layout *l, const char *name,
                       struct platter_error *err)
{
    uint64_t data = div_up(q->header.size, q->cluster);
    uint64_t tables = l->l1 + div_up(l->l1_entries * 8, q->cluster);
    uint64_t all = data + l->l1_entries + 2 * tables + 16;
    q->max_blocks = 2 * (all / (q->per_block - 1)) + 4;
    uint64_t reftable = div_up(q->max_blocks * 8, q->cluster);
    if (reftable + 2 >= q->per_block || l->l1 + 2 >= q->per_block)
        return fail(err, EFBIG,
                    "%s: with clusters of %" PRIu64 " bytes so large a disk is not written front "
                    "to back: give a larger cluster_size",
                    name, q->cluster);
    return 0;
}

static int take_memory(struct qcow2_writer *q, struct platter_error *err)
{
    struct budget *b = q->budget;
    int r = budget_alloc(b, BUFFER, "a new image", &q->buffer, err);
    if (r == 0)
        r = budget_alloc(b, q->cluster, "an L2 table", &q->l2, err);
    if (r == 0)
        r = budget_alloc(b, q->cluster, "a refcount block", &q->counts, err);
    if (r == 0 && q->l1_entries > 0)
        r = budget_alloc(b, q->l1_entries * 8, "the L1 table", &q->l1, err);
    if (r == 0)
        r = budget_alloc(b, q->max_blocks * 8, "the refcount table", &q->blocks, err);
    return r;
}

static int prepare(struct qcow2_writer *q, const struct create_request *request,
                   struct platter_error *err)
{
    const struct qcow2_choice *c = &q->choice;
    struct qcow2_layout layout;
    int r = qcow2_choose(request->options, &q->choice, err);
    if (r == 0)
        r = check_choice(request, c, err);
    if (r == 0)
        r = qcow2_layout_compute(c, request->size, request->name, &layout, err);
    if (r < 0)
        return r;
    q->cluster = layout.cluster_size;
    q->w.unit = (uint32_t)q->cluster;
    q->per_block = q->cluster * 8 >> c->refcount_order;
    q->header = (struct qcow2_header){
        .version = c->version,
        .cluster_bits = c->cluster_bits,
        .size = request->size,
        .l1_size = (uint32_t)layout.l1_entries,
        .incompatible = c->zstd ? QCOW2_INCOMPATIBLE_COMPRESSION : 0,
        .compatible = c->lazy ? QCOW2_COMPATIBLE_LAZY : 0,
        .refcount_order = c->refcount_order,
        .length = c->version >= 3 ? QCOW2_HEADER_NOW : QCOW2_HEADER_V2,
        .compression = c->zstd ? QCOW2_ZSTD : QCOW2_DEFLATE,
    };
    r = size_tables(q, &layout, request->name, err);
    if (r < 0)
        return r;
    q->l1_entries = layout.l1_entries;
    return take_memory(q, err);
}

int qcow2_writer_open(const struct create_request *request, struct image_writer **ret,
                      struct platter_error *err)
{
    struct qcow2_writer *q = calloc(1, sizeof *q);
    if (!q)
        return fail_memory(err, "a new image");
    q->w.ops = &writer_ops;
    q->stream = request->stream;
    q->budget = request->budget;
    q->compress = request->compress;
    int r = prepare(q, request, err);
    if (r == 0) { /* room for the header */
        count(q, 0, q->cluster);
        r = put_zeros_to(q, q->cluster, err);
    }
    if (r < 0)
        writer_close(&q->w);
    else
        *ret = &q->w;
    return r;
}
