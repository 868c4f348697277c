/* SPDX-License-Identifier: MIT */
/*
 * The check of persistent bitmaps (sections 16, 18): the directory, and the table and data of each.
 * A bitmap that lost something is worth nothing, as nobody can tell which changes it forgot: it is
 * given up. The others are copied, byte by byte, into a new directory behind the end of the file.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow2/check.h"

enum { ENTRY_SIZE = 24, MOST_DATA = 512 << 20, ENTRIES = CHECK_PIECE / 8 };

#define TABLE_RESERVED UINT64_C(0xFF000000000001FE)

/* An entry of the directory. */
struct bitmap {
    const uint8_t *bytes;
    uint64_t len; /* with padding */
    hoff table;
    uint32_t n; /* entries of its table */
    uint32_t flags;
    uint8_t type, granularity;
    uint32_t name_len, extra;
};

/* ---- one bitmap --------------------------------------------------------------------------------
 */

/* Decodes the entry at `at`; NULL, or why it cannot be. */
static const char *decode(const uint8_t *bytes, uint64_t left, struct bitmap *ret)
{
    struct reader r = reader_over(bytes, left);
    *ret = (struct bitmap){.bytes = bytes};
    ret->table = read_be64(&r);
    ret->n = read_be32(&r);
    ret->flags = read_be32(&r);
    ret->type = read_u8(&r);
    ret->granularity = read_u8(&r);
    ret->name_len = read_be16(&r);
    ret->extra = read_be32(&r);
    read_skip(&r, ret->extra);
    read_skip(&r, ret->name_len);
    ret->len = round_up(r.pos, 8);
    return r.failed || ret->len > left ? "the directory ends inside of an entry" : NULL;
}

static const char *judge_fields(const struct qcow2_check *k, const struct bitmap *b)
{
    if (b->name_len == 0 || b->name_len > 1023)
        return "its name must have 1 to 1023 bytes";
    if (b->flags & ~7u)
        return "reserved flags are set";
    if (b->type != 1)
        return "its type is not known";
    if (b->granularity < 9 || b->granularity > 31)
        return "its granularity is impossible";
    if (b->n == 0 || b->n * k->q->cluster_size > MOST_DATA)
        return "the length of its table is impossible";
    /* What is not in use covers the disk; the other is not to be read. */
    uint64_t bits = div_up(k->q->header.size, UINT64_C(1) << b->granularity);
    if (!(b->flags & 1) && div_up(div_up(bits, 8), k->q->cluster_size) != b->n)
        return "its table does not cover the disk";
    return qcow2_check_place(k, b->table, b->n * UINT64_C(8));
}

static const char *judge_entry(const struct qcow2_check *k, uint64_t raw)
{
    hoff off = raw & QCOW2_OFFSET_MASK;
    if (raw & TABLE_RESERVED || (off && raw & 1))
        return "reserved bits of its table are set";
    if (!off)
        return NULL;
    const char *why = qcow2_check_place(k, off, k->q->cluster_size);
    if (!why && counts_any(&k->counts, off >> k->q->cluster_bits, 1))
        why = "its data stands where something else is";
    return why;
}

/* Counts the clusters of the table's entries below `end`, or takes that back; *ret_done: how many
 * entries were fine. 1: it could not be read. */
static int count_data(struct qcow2_check *k, const struct bitmap *b, uint64_t end, bool back,
                      uint64_t *ret_done, const char **ret_why, struct platter_error *err)
{
    int r = 0;
    *ret_why = NULL;
    for (uint64_t i = 0; i < end && r == 0; i++) {
        if (i % ENTRIES == 0)
            r = qcow2_check_read(k, k->l1, min_u64(b->n - i, ENTRIES) * 8, b->table + i * 8, err);
        if (r)
            return r;
        uint64_t raw = get_be(k->l1 + i % ENTRIES * 8, 8);
        uint64_t cluster = (raw & QCOW2_OFFSET_MASK) >> k->q->cluster_bits;
        *ret_done = i;
        *ret_why = back ? NULL : judge_entry(k, raw);
        if (*ret_why)
            return 0;
        if (cluster && back)
            counts_take(&k->counts, cluster, 1);
        else if (cluster)
            r = counts_add(&k->counts, cluster, 1, 1, err);
    }
    return r;
}

static int count_bitmap(struct qcow2_check *k, const struct bitmap *b, const char **ret_why,
                        struct platter_error *err)
{
    uint64_t first = b->table >> k->q->cluster_bits, done = 0;
    const char *none;
    *ret_why = judge_fields(k, b);
    if (*ret_why)
        return 0;
    uint64_t n = qcow2_check_clusters(k, b->table, b->n * UINT64_C(8));
    if (counts_any(&k->counts, first, n))
        *ret_why = "its table stands where something else is";
    if (*ret_why)
        return 0;
    int r = counts_add(&k->counts, first, n, 1, err);
    if (r == 0)
        r = count_data(k, b, b->n, false, &done, ret_why, err);
    if (r || !*ret_why)
        return r;
    counts_take(&k->counts, first, n);
    return count_data(k, b, done, true, &done, &none, err);
}

/* ---- the directory -----------------------------------------------------------------------------
 */

struct directory {
    uint8_t *bytes; /* what is kept moves to the front */
    uint64_t size, kept;
    uint32_t n, n_kept;
};

/* Judges each entry; returns why the rest of the directory makes no sense, or NULL. */
static int judge_all(struct qcow2_check *k, struct directory *d, const char **ret_why,
                     struct platter_error *err)
{
    uint64_t at = 0;
    for (uint32_t i = 0; i < d->n; i++) {
        struct bitmap b;
        const char *why = NULL;
        *ret_why = decode(d->bytes + at, d->size - at, &b);
        if (*ret_why)
            return 0;
        int r = count_bitmap(k, &b, &why, err);
        if (r)
            return r;
        if (why && k->first_pass)
            CHECK_ERROR(k, k->mend, "%s: bitmap directory entry %" PRIu32 " (\"%.*s\"): %s%s",
                        k->name, i, (int)b.name_len, b.bytes + ENTRY_SIZE + b.extra, why,
                        k->mend ? "; the bitmap is given up" : "");
        if (!why) {
            memmove(d->bytes + d->kept, d->bytes + at, b.len);
            d->kept += b.len;
            d->n_kept++;
        }
        at += b.len;
    }
    *ret_why = at != d->size ? "it is longer than its entries" : NULL;
    return 0;
}

static int write_directory(struct qcow2_check *k, const struct directory *d,
                           struct platter_error *err)
{
    hoff at = 0;
    int r = d->kept ? qcow2_repair_append(k, d->kept, &at, err) : 0;
    if (r == 0 && d->kept)
        r = qcow2_repair_write(k, d->bytes, d->kept, at, err);
    if (r == 0)
        r = qcow2_repair_bitmaps_extension(k, d->n_kept, at, d->kept, err);
    return r < 0 || !d->kept ? r
                             : counts_add(&k->counts, at >> k->q->cluster_bits,
                                          qcow2_check_clusters(k, at, d->kept), 1, err);
}

static const char *judge_place(const struct qcow2_check *k)
{
    const struct qcow2_extensions *x = &k->q->extensions;
    if (x->bitmap_directory_size < ENTRY_SIZE)
        return "it is too short";
    const char *why = qcow2_check_place(k, x->bitmap_directory, x->bitmap_directory_size);
    if (!why && counts_any(&k->counts, x->bitmap_directory >> k->q->cluster_bits,
                           qcow2_check_clusters(k, x->bitmap_directory, x->bitmap_directory_size)))
        why = "something else stands there";
    return why;
}

static int judge_directory(struct qcow2_check *k, struct directory *d, const char **why,
                           struct platter_error *err)
{
    const struct qcow2_extensions *x = &k->q->extensions;
    uint64_t first = x->bitmap_directory >> k->q->cluster_bits;
    uint64_t n = qcow2_check_clusters(k, x->bitmap_directory, d->size);
    int r = qcow2_check_read(k, d->bytes, d->size, x->bitmap_directory, err);
    if (r == 0)
        r = counts_add(&k->counts, first, n, 1, err);
    if (r == 0)
        r = judge_all(k, d, why, err);
    if (r)
        return r < 0 ? r : 0;
    if (*why && k->first_pass)
        CHECK_ERROR(k, k->mend,
                    "%s: the bitmap directory at %" PRIu64 ": %s (%" PRIu32 " bitmaps of %" PRIu32
                    " are whole)%s",
                    k->name, x->bitmap_directory, *why, d->n_kept, d->n,
                    k->mend ? "; the rest is given up" : "");
    if (!k->mend || k->failed || !k->first_pass || (!*why && d->n_kept == d->n))
        return 0;
    counts_take(&k->counts, first, n);
    return write_directory(k, d, err);
}

/* An extension that nobody keeps: section 7. Its clusters are leaks, and so that they can be given
 * back nothing may name them. */
static int forget(struct qcow2_check *k, struct platter_error *err)
{
    const struct qcow2_extensions *x = &k->q->extensions;
    if (k->first_pass && x->has_bitmaps)
        CHECK_NOTE(k,
                   "%s: a program that knows no bitmaps wrote to the image: its %" PRIu32
                   " bitmaps are void%s",
                   k->name, x->n_bitmaps, k->lower ? ", and are given up" : "");
    bool drop = x->has_bitmaps ? k->lower : k->mend;
    return drop && !k->failed ? qcow2_repair_bitmaps_extension(k, 0, 0, 0, err) : 0;
}

int qcow2_check_bitmaps(struct qcow2_check *k, struct platter_error *err)
{
    const struct qcow2_extensions *x = &k->q->extensions;
    struct directory d = {.size = x->bitmap_directory_size, .n = x->n_bitmaps};
    bool kept = k->q->header.autoclear & QCOW2_AUTOCLEAR_BITMAPS;
    /* Where cluster 0 cannot be written anew, they are left alone. */
    if (k->q->checkup && k->q->checkup->code)
        return 0;
    if (k->bad_bitmaps && k->first_pass)
        CHECK_ERROR(k, k->mend, "%s%s", k->bad_bitmaps->message,
                    k->mend ? "; the bitmaps are given up" : "");
    if (!k->bad_bitmaps && !x->has_bitmaps)
        return 0;
    if (k->bad_bitmaps || !kept)
        return k->first_pass ? forget(k, err) : 0;
    const char *why = judge_place(k);
    if (why) {
        if (k->first_pass)
            CHECK_ERROR(k, k->mend, "%s: the bitmap directory at %" PRIu64 ": %s%s", k->name,
                        x->bitmap_directory, why, k->mend ? "; the bitmaps are given up" : "");
        return k->mend && !k->failed ? qcow2_repair_bitmaps_extension(k, 0, 0, 0, err) : 0;
    }
    int r = budget_alloc(k->img->budget, d.size, "the bitmap directory", &d.bytes, err);
    if (r == 0)
        r = judge_directory(k, &d, &why, err);
    budget_free(k->img->budget, d.bytes, d.size);
    return r;
}
