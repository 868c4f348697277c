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
#include "format/qcow2/bitmap.h"
#include "format/qcow2/check.h"

enum { ENTRIES = CHECK_PIECE / 8 };

/* An entry of the directory. */
struct bitmap {
    struct qcow2_bitmap_entry e;
    const uint8_t *bytes;
    uint64_t len; /* with padding */
    bool twice;   /* another one has its name */
    bool always;  /* what is wrong depends on what is counted: told in the pass that counts it */
};

/* ---- one bitmap --------------------------------------------------------------------------------
 */

/* Decodes the entry at `at`; NULL, or why it cannot be. */
static const char *decode(const uint8_t *bytes, uint64_t left, struct bitmap *ret)
{
    struct reader r = reader_over(bytes, left);
    *ret = (struct bitmap){.bytes = bytes};
    qcow2_bitmap_entry_decode(&r, &ret->e); /* its name is judged below */
    ret->len = r.pos;
    return r.failed ? "the directory ends inside of an entry" : NULL;
}

/* What bitmaps lose when the file is cut cannot be filled up with zeros. */
static const char *judge_range(const struct qcow2_check *k, hoff off, uint64_t len)
{
    const char *why = qcow2_check_place(k, off, len);
    return !why && off + len > k->q->file_size ? "it reaches behind the end of the file" : why;
}

static const char *judge_fields(const struct qcow2_check *k, const struct bitmap *b)
{
    const struct qcow2_bitmap_entry *e = &b->e;
    uint64_t needed;
    if (e->name_len == 0 || e->name_len > QCOW2_BITMAP_MAX_NAME || memchr(e->name, 0, e->name_len))
        return "its name must have 1 to 1023 bytes, none of them 0";
    if (b->twice)
        return "another one has the same name";
    if (e->flags & ~(uint32_t)QCOW2_BITMAP_FLAGS)
        return "reserved flags are set";
    if (e->type != QCOW2_BITMAP_TRACKING)
        return "its type is not known";
    if (e->granularity_bits < QCOW2_BITMAP_MIN_BITS || e->granularity_bits > QCOW2_BITMAP_MAX_BITS)
        return "its granularity is impossible";
    if (e->n_table == 0 || e->n_table * k->q->cluster_size > QCOW2_BITMAP_MAX_BYTES)
        return "the length of its table is impossible";
    /* What is not in use covers the disk; the other is not to be read. */
    if (!(e->flags & QCOW2_BITMAP_IN_USE) &&
        (!qcow2_bitmap_table_size(k->img, k->q->header.size, e->granularity_bits, &needed) ||
         e->n_table < needed))
        return "its table does not cover the disk";
    return judge_range(k, e->table, e->n_table * UINT64_C(8));
}

/* Entry i of the table of a bitmap. */
static const char *judge_entry(const struct qcow2_check *k, struct bitmap *b, uint64_t i,
                               uint64_t raw)
{
    hoff off = raw & QCOW2_OFFSET_MASK;
    if (raw & QCOW2_BITMAP_RESERVED || (off && raw & QCOW2_BITMAP_ONES))
        return "reserved bits of its table are set";
    if (!off)
        return NULL;
    uint64_t bits = div_up(k->q->header.size, UINT64_C(1) << b->e.granularity_bits);
    uint64_t bytes = div_up(bits, 8), at = i << k->q->cluster_bits;
    uint64_t len = at < bytes ? min_u64(bytes - at, k->q->cluster_size) : 0;
    const char *why = qcow2_check_place(k, off, k->q->cluster_size);
    if (!why)
        why = judge_range(k, off, len);
    if (why || !counts_any(&k->counts, off >> k->q->cluster_bits, 1))
        return why;
    b->always = true;
    return "its data stands where something else is";
}

/* Counts the clusters of the table's entries below `end`, or takes that back; *ret_done: how many
 * entries were fine. 1: it could not be read. */
static int count_data(struct qcow2_check *k, struct bitmap *b, uint64_t end, bool back,
                      uint64_t *ret_done, const char **ret_why, struct platter_error *err)
{
    int r = 0;
    *ret_why = NULL;
    for (uint64_t i = 0; i < end && r == 0; i++) {
        if (i % ENTRIES == 0)
            r = qcow2_check_read(k, k->l1, min_u64(b->e.n_table - i, ENTRIES) * 8,
                                 b->e.table + i * 8, err);
        if (r)
            return r;
        uint64_t raw = get_be(k->l1 + i % ENTRIES * 8, 8);
        uint64_t cluster = (raw & QCOW2_OFFSET_MASK) >> k->q->cluster_bits;
        *ret_done = i;
        *ret_why = back ? NULL : judge_entry(k, b, i, raw);
        if (*ret_why)
            return 0;
        if (cluster && back)
            counts_take(&k->counts, cluster, 1);
        else if (cluster)
            r = counts_add(&k->counts, cluster, 1, 1, err);
    }
    return r;
}

static int count_bitmap(struct qcow2_check *k, struct bitmap *b, const char **ret_why,
                        struct platter_error *err)
{
    uint64_t first = b->e.table >> k->q->cluster_bits, done = 0;
    const char *none;
    *ret_why = judge_fields(k, b);
    if (*ret_why)
        return 0;
    uint64_t n = qcow2_check_clusters(k, b->e.table, b->e.n_table * UINT64_C(8));
    if (counts_any(&k->counts, first, n)) {
        b->always = true;
        *ret_why = "its table stands where something else is";
        return 0;
    }
    int r = counts_add(&k->counts, first, n, 1, err);
    if (r == 0)
        r = count_data(k, b, b->e.n_table, false, &done, ret_why, err);
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

struct name {
    const uint8_t *bytes;
    uint16_t len;
    uint32_t i; /* which entry */
};

static int by_name(const void *a, const void *b)
{
    const struct name *x = a, *y = b;
    int r = memcmp(x->bytes, y->bytes, min_u64(x->len, y->len));
    return r ? r : x->len - y->len;
}

/* Two of one name cannot be told apart, so neither can be used: a bit for each entry. */
static int find_doubles(struct qcow2_check *k, const struct directory *d, uint8_t *bits,
                        struct platter_error *err)
{
    struct name *names;
    struct bitmap b;
    uint64_t at = 0;
    uint32_t n = 0;
    int r = budget_alloc(k->img->budget, d->n * sizeof *names, "the names of bitmaps", &names, err);
    if (r < 0)
        return r;
    for (; n < d->n && !decode(d->bytes + at, d->size - at, &b); n++, at += b.len)
        names[n] = (struct name){b.e.name, b.e.name_len, n};
    qsort(names, n, sizeof *names, by_name);
    for (uint32_t i = 1; i < n; i++)
        for (uint32_t j = i - 1; j <= i && by_name(&names[i - 1], &names[i]) == 0; j++)
            bits[names[j].i / 8] |= (uint8_t)(1u << names[j].i % 8);
    budget_free(k->img->budget, names, d->n * sizeof *names);
    return 0;
}

/* Counts entry i, or tells why it cannot be kept: *ret_kept. */
static int judge_one(struct qcow2_check *k, struct bitmap *b, uint32_t i, bool *ret_kept,
                     struct platter_error *err)
{
    const char *why = NULL;
    int r = count_bitmap(k, b, &why, err);
    /* Where one pass is not enough, what a later one finds stays: the directory is made anew once.
     */
    bool mends = k->mend && k->first_pass;
    if (r == 0 && why && (k->first_pass || b->always))
        CHECK_ERROR(k, mends, "%s: bitmap directory entry %" PRIu32 " (\"%.*s\"): %s%s", k->name, i,
                    (int)b->e.name_len, (const char *)b->e.name, why,
                    mends ? "; the bitmap is given up" : "");
    *ret_kept = !why;
    return r;
}

/* Judges each entry; returns why the rest of the directory makes no sense, or NULL. */
static int judge_entries(struct qcow2_check *k, struct directory *d, const uint8_t *doubles,
                         const char **ret_why, struct platter_error *err)
{
    uint64_t at = 0;
    for (uint32_t i = 0; i < d->n; i++) {
        struct bitmap b;
        bool kept;
        *ret_why = decode(d->bytes + at, d->size - at, &b);
        if (*ret_why)
            return 0;
        b.twice = doubles[i / 8] >> i % 8 & 1;
        int r = judge_one(k, &b, i, &kept, err);
        if (r)
            return r;
        if (kept) {
            memmove(d->bytes + d->kept, d->bytes + at, b.len);
            d->kept += b.len;
            d->n_kept++;
        }
        at += b.len;
    }
    if (at != d->size)
        *ret_why = "it is longer than its entries";
    else if (k->q->extensions.bitmap_directory + d->size > k->q->file_size)
        *ret_why = "the file ends inside of it"; /* what is missing was taken for zeros */
    return 0;
}

static int judge_all(struct qcow2_check *k, struct directory *d, const char **ret_why,
                     struct platter_error *err)
{
    uint64_t bytes = d->n / 8 + UINT64_C(1);
    uint8_t *doubles;
    int r = budget_alloc(k->img->budget, bytes, "the names of bitmaps", &doubles, err);
    if (r < 0)
        return r;
    r = find_doubles(k, d, doubles, err);
    if (r == 0)
        r = judge_entries(k, d, doubles, ret_why, err);
    budget_free(k->img->budget, doubles, bytes);
    return r;
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

static const char *judge_place(const struct qcow2_check *k, bool *ret_always)
{
    const struct qcow2_extensions *x = &k->q->extensions;
    uint64_t size = x->bitmap_directory_size;
    *ret_always = false;
    if (size < QCOW2_BITMAP_ENTRY)
        return "it is too short";
    const char *why = qcow2_check_place(k, x->bitmap_directory, size);
    if (why || !counts_any(&k->counts, x->bitmap_directory >> k->q->cluster_bits,
                           qcow2_check_clusters(k, x->bitmap_directory, size)))
        return why;
    *ret_always = true;
    return "something else stands there";
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
    /* As leaks, only if nothing else is wrong. */
    bool drop = k->mend || (x->has_bitmaps && k->lower && k->check->result.corruptions == 0);
    if (k->first_pass && x->has_bitmaps)
        CHECK_NOTE(k,
                   "%s: a program that knows no bitmaps wrote to the image: its %" PRIu32
                   " bitmaps are void%s",
                   k->name, x->n_bitmaps, drop ? ", and are given up" : "");
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
    bool always;
    const char *why = judge_place(k, &always);
    if (why) {
        if (k->first_pass || always)
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
