/* SPDX-License-Identifier: MIT */
/*
 * What dirty bitmaps take moves (section 16): the clusters of their bits, their tables and the
 * directory. Valid or in use, they stay what they are, to the byte. Entries of tables and of the
 * directory are changed in place, the directory's own place by another cluster 0.
 */
#include <inttypes.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow2/bitmap.h"
#include "format/qcow2/compact.h"

enum { STEP = 512 }; /* entries of a bitmap's table that change at once */

/* ---- what there is -----------------------------------------------------------------------------
 */

void compact_bitmaps_forget(struct compact *c)
{
    budget_free(c->img->budget, c->bitmaps, c->q->extensions.n_bitmaps * sizeof *c->bitmaps);
    c->bitmaps = NULL;
    c->n_bitmaps = 0;
}

static int decode_all(struct compact *c, const uint8_t *bytes, struct platter_error *err)
{
    const struct qcow2_extensions *x = &c->q->extensions;
    struct reader r = reader_over(bytes, x->bitmap_directory_size);
    struct qcow2_bitmap_entry e;

    for (uint32_t i = 0; i < x->n_bitmaps; i++) {
        hoff at = x->bitmap_directory + r.pos;
        if (!qcow2_bitmap_entry_decode(&r, &e) ||
            !qcow2_bitmap_table_fits(c->img, e.table, e.n_table))
            return fail(err, PLATTER_ECORRUPT,
                        "%s: entry %" PRIu32 " of the bitmap directory, at %" PRIu64
                        ", is damaged: the image must be repaired (check -r all)",
                        c->img->stream->name, i, at);
        c->bitmaps[c->n_bitmaps++] = (struct compact_bitmap){at, e.table, e.n_table};
    }
    return 0;
}

int compact_bitmaps_load(struct compact *c, struct platter_error *err)
{
    const struct qcow2_extensions *x = &c->q->extensions;
    uint8_t *bytes;

    compact_bitmaps_forget(c);
    /* Void ones may not have their clusters any more. */
    if (!x->has_bitmaps || !(c->q->header.autoclear & QCOW2_AUTOCLEAR_BITMAPS))
        return 0;
    pthread_mutex_unlock(&c->img->lock);
    int r = qcow2_bitmap_directory_read(c->img, &bytes, err);
    pthread_mutex_lock(&c->img->lock);
    if (r < 0)
        return r;
    r = budget_alloc(c->img->budget, x->n_bitmaps * sizeof *c->bitmaps, "the list of bitmaps",
                     &c->bitmaps, err);
    if (r == 0)
        r = decode_all(c, bytes, err);
    budget_free(c->img->budget, bytes, x->bitmap_directory_size);
    return r;
}

/* ---- bits --------------------------------------------------------------------------------------
 */

/* Entries of a table, some of which change. */
struct bits {
    uint8_t bytes[STEP * 8];
    uint32_t n;
    uint32_t n_moved;
    struct {
        uint64_t from, to; /* clusters */
    } moved[STEP];
};

/* Copies of what must go, and the entries that lead there. */
static int copy_bits(struct compact *c, struct bits *b, struct platter_error *err)
{
    unsigned bits = c->q->cluster_bits;
    uint64_t to;
    int r = 0;

    for (uint32_t i = 0; r == 0 && i < b->n; i++) {
        uint64_t raw = get_be(b->bytes + i * 8, 8), cluster = (raw & QCOW2_OFFSET_MASK) >> bits;
        if (cluster == 0 || !compact_must_go(c, cluster))
            continue;
        if (qcow2_bitmap_cluster_problem(c->img, raw))
            return fail(err, PLATTER_ECORRUPT,
                        "%s: an entry of a bitmap's table is 0x%" PRIx64
                        ": the image must be repaired (check -r all)",
                        c->img->stream->name, raw);
        r = compact_take(c, &to, err);
        if (r < 0 || to == 0)
            return r;
        b->moved[b->n_moved].from = cluster;
        b->moved[b->n_moved++].to = to;
        put_be(b->bytes + i * 8, 8, to << bits);
        r = compact_copy(c, cluster << bits, to << bits, c->q->cluster_size, false, err);
    }
    return r;
}

/* Gives back one of the two places of each. */
static int free_bits(struct compact *c, const struct bits *b, bool old, struct platter_error *err)
{
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < b->n_moved; i++)
        r = qcow2_count_down(c->img, old ? b->moved[i].from : b->moved[i].to, 1, false, err);
    return r;
}

/* The entries [first, first + n) of a table. */
static int move_bits(struct compact *c, const struct compact_bitmap *bitmap, uint32_t first,
                     struct bits *b, struct platter_error *err)
{
    hoff at = bitmap->table + first * UINT64_C(8);

    b->n = (uint32_t)min_u64(STEP, bitmap->n - first);
    b->n_moved = 0;
    pthread_mutex_unlock(&c->img->lock);
    int r = stream_pread(c->img->stream, b->bytes, b->n * (size_t)8, at, err);
    pthread_mutex_lock(&c->img->lock);
    if (r == 0)
        r = copy_bits(c, b, err);
    if (r == 0 && b->n_moved)
        r = compact_settle(c, err);
    if (r == 0 && b->n_moved)
        r = compact_switch(c, b->bytes, b->n * (size_t)8, at, err);
    if (r < 0) {
        if (atomic_load(&c->img->poison) == 0)
            free_bits(c, b, false, NULL);
        return r;
    }
    c->moved += b->n_moved;
    return free_bits(c, b, true, err);
}

int compact_bitmap_data(struct compact *c, struct platter_error *err)
{
    struct bits *b = NULL;
    int r = budget_alloc(c->img->budget, sizeof *b, "a part of a bitmap's table", &b, err);
    for (uint32_t i = 0; r == 0 && i < c->n_bitmaps; i++)
        for (uint32_t first = 0; r == 0 && first < c->bitmaps[i].n; first += STEP)
            r = move_bits(c, &c->bitmaps[i], first, b, err);
    budget_free(c->img->budget, b, sizeof *b);
    return r;
}

/* ---- tables and directory ----------------------------------------------------------------------
 */

/* The entry begins with where the table is. */
static int move_table(struct compact *c, struct compact_bitmap *b, bool several,
                      struct platter_error *err)
{
    uint64_t bytes = b->n * UINT64_C(8);
    hoff old = b->table, to;
    uint8_t field[8];

    int r = compact_copy_table(c, old, bytes, several, &to, err);
    if (r < 0 || to == 0)
        return r;
    put_be(field, 8, to);
    r = compact_switch(c, field, sizeof field, b->entry_at, err);
    if (r < 0)
        return r;
    b->table = to;
    return compact_free_table(c, old, bytes, err);
}

static int move_directory(struct compact *c, bool several, struct platter_error *err)
{
    struct qcow2_extensions *x = &c->q->extensions;
    uint64_t bytes = x->bitmap_directory_size;
    hoff old = x->bitmap_directory, to;
    struct qcow2_rewrite w;

    int r = compact_copy_table(c, old, bytes, several, &to, err);
    if (r < 0 || to == 0)
        return r;
    r = qcow2_rewrite_begin(c->img, &w, err);
    if (r == 0) {
        w.extensions.bitmap_directory = to;
        r = qcow2_rewrite_commit(c->img, &w, err);
        qcow2_rewrite_end(&w);
    }
    if (r < 0) {
        if (atomic_load(&c->img->poison) == 0)
            compact_free_table(c, to, bytes, NULL);
        return r;
    }
    for (uint32_t i = 0; i < c->n_bitmaps; i++)
        c->bitmaps[i].entry_at += to - old;
    return compact_free_table(c, old, bytes, err);
}

int compact_bitmap_tables(struct compact *c, bool several, struct platter_error *err)
{
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < c->n_bitmaps; i++)
        r = move_table(c, &c->bitmaps[i], several, err);
    return r == 0 && c->n_bitmaps ? move_directory(c, several, err) : r;
}
