/* SPDX-License-Identifier: MIT */
/*
 * Storing bitmaps (section 16): what changed goes to new clusters, a new directory behind it, all
 * of that durable with its counts; then cluster 0 is switched to the new directory; then what only
 * the old one referred to is free. A crash leaves the old bitmaps or the new ones, and clusters
 * that nobody uses at worst.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow2/bitmap.h"

/* ---- lists of clusters -------------------------------------------------------------------------
 */

struct clusters {
    uint64_t *at;
    size_t n, room;
};

static int clusters_add(struct image *img, struct clusters *c, uint64_t cluster,
                        struct platter_error *err)
{
    if (c->n == c->room) {
        uint64_t *more = NULL;
        size_t room = c->room ? c->room * 2 : 64;
        int r = budget_alloc(img->budget, room * sizeof *more, "clusters of bitmaps", &more, err);
        if (r < 0)
            return r;
        if (c->n)
            memcpy(more, c->at, c->n * sizeof *more);
        budget_free(img->budget, c->at, c->room * sizeof *more);
        c->at = more;
        c->room = room;
    }
    c->at[c->n++] = cluster;
    return 0;
}

static int clusters_add_run(struct image *img, struct clusters *c, hoff off, uint64_t len,
                            struct platter_error *err)
{
    unsigned bits = qcow2_of(img)->cluster_bits;
    uint64_t first = off >> bits, n = div_up(len, UINT64_C(1) << bits);
    int r = 0;
    for (uint64_t i = 0; r == 0 && i < n; i++)
        r = clusters_add(img, c, first + i, err);
    return r;
}

static void clusters_free(struct image *img, struct clusters *c)
{
    budget_free(img->budget, c->at, c->room * sizeof *c->at);
    *c = (struct clusters){0};
}

static int compare_numbers(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void clusters_sort(struct clusters *c)
{
    if (c->n)
        qsort(c->at, c->n, sizeof *c->at, compare_numbers);
}

static bool clusters_have(const struct clusters *c, uint64_t cluster)
{
    return c->n && bsearch(&cluster, c->at, c->n, sizeof *c->at, compare_numbers);
}

/* ---- one store ---------------------------------------------------------------------------------
 */

/* Where a bitmap stands from now on. */
struct place {
    hoff table_off, flags_at;
    uint32_t n_table;
    uint64_t *table; /* b->n of them; NULL: it stays as it is */
};

struct store {
    struct image *img;
    const struct qcow2_bitmap_list *list;
    struct place *places; /* of each */
    struct clusters old;  /* what the directory on the disk refers to, and may refer to no more */
    struct clusters kept; /* what the new one refers to as well; sorted */
    struct clusters fresh;
    uint8_t *bounce; /* a cluster */
    hoff directory;
    uint64_t directory_size;
};

/* Whether the bitmap's table and bits stay where they are. */
static bool stays(const struct qcow2_bitmap *b)
{
    return b->table_off && (qcow2_bitmap_problem(b) || !atomic_load(&b->changed));
}

/* ---- what the old directory refers to ----------------------------------------------------------
 */

/* What a table that goes refers to; what is damaged in it stays where it is, and leaks. */
static int collect_table(struct store *s, hoff off, uint32_t n, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(s->img);
    uint64_t per_cluster = q->cluster_size / 8;
    int r = 0;

    if (!qcow2_bitmap_table_fits(s->img, off, n))
        return 0;
    for (uint64_t i = 0; r == 0 && i < n; i += per_cluster) {
        uint64_t some = min_u64(per_cluster, n - i);
        r = stream_pread(s->img->stream, s->bounce, some * 8, off + i * 8, err);
        for (uint64_t k = 0; r == 0 && k < some; k++) {
            uint64_t entry = get_be(s->bounce + k * 8, 8);
            if (entry & QCOW2_OFFSET_MASK && !qcow2_bitmap_cluster_problem(s->img, entry))
                r = clusters_add(s->img, &s->old, entry >> q->cluster_bits, err);
        }
    }
    return r < 0 ? r : clusters_add_run(s->img, &s->old, off, n * UINT64_C(8), err);
}

static int collect_entries(struct store *s, const struct clusters *tables, const uint8_t *bytes,
                           struct platter_error *err)
{
    const struct qcow2_extensions *x = &qcow2_of(s->img)->extensions;
    struct reader reader = reader_over(bytes, x->bitmap_directory_size);
    struct qcow2_bitmap_entry e;
    int r = clusters_add_run(s->img, &s->old, x->bitmap_directory, x->bitmap_directory_size, err);

    for (uint32_t i = 0; r == 0 && i < x->n_bitmaps; i++) {
        if (!qcow2_bitmap_entry_decode(&reader, &e))
            break;
        if (!clusters_have(tables, e.table))
            r = collect_table(s, e.table, e.n_table, err);
    }
    return r;
}

static int collect_old(struct store *s, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(s->img);
    struct clusters tables = {0}; /* their offsets: those that stay */
    uint8_t *bytes;
    int r = 0;

    if (!q->extensions.has_bitmaps || !(q->header.autoclear & QCOW2_AUTOCLEAR_BITMAPS))
        return 0; /* whoever cleared the bit may have given their clusters away */
    if (qcow2_bitmap_directory_read(s->img, &bytes, NULL) < 0)
        return 0;
    for (uint32_t i = 0; r == 0 && i < s->list->n; i++)
        if (stays(s->list->items[i]))
            r = clusters_add(s->img, &tables, s->list->items[i]->table_off, err);
    clusters_sort(&tables);
    if (r == 0)
        r = collect_entries(s, &tables, bytes, err);
    clusters_free(s->img, &tables);
    budget_free(s->img->budget, bytes, q->extensions.bitmap_directory_size);
    return r;
}

/* ---- writing -----------------------------------------------------------------------------------
 */

/* Clusters side by side for `len` bytes. */
static int take(struct store *s, uint64_t len, hoff *ret, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(s->img);
    uint64_t n = div_up(len, q->cluster_size);
    int r = qcow2_alloc_table(s->img, n, ret, err);
    if (r < 0)
        return r;
    q->file_size = max_u64(q->file_size, *ret + n * q->cluster_size);
    r = clusters_add_run(s->img, &s->fresh, *ret, len, err);
    if (r < 0)
        qcow2_count_down(s->img, *ret >> q->cluster_bits, n, false, NULL);
    return r;
}

static int store_chunk(struct store *s, const uint8_t *bytes, size_t len, uint64_t *ret,
                       struct platter_error *err)
{
    uint64_t cluster = qcow2_of(s->img)->cluster_size;
    int r = take(s, cluster, ret, err);
    if (r < 0)
        return r;
    memcpy(s->bounce, bytes, len);
    memset(s->bounce + len, 0, cluster - len);
    return image_meta_write(s->img, s->bounce, cluster, *ret, err);
}

/* Numbers, as big endian, in whole clusters. */
static int store_table(struct store *s, const uint64_t *table, uint64_t n, hoff *ret,
                       struct platter_error *err)
{
    uint64_t cluster = qcow2_of(s->img)->cluster_size, per_cluster = cluster / 8;
    int r = take(s, n * 8, ret, err);
    for (uint64_t i = 0; r == 0 && i < n; i += per_cluster) {
        memset(s->bounce, 0, cluster);
        for (uint64_t k = 0; k < per_cluster && i + k < n; k++)
            put_be(s->bounce + k * 8, 8, table[i + k]);
        r = image_meta_write(s->img, s->bounce, cluster, *ret + i * 8, err);
    }
    return r;
}

static int store_bitmap(struct store *s, const struct qcow2_bitmap *b, struct place *p,
                        struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(s->img);
    const uint8_t *bytes;
    size_t len;

    *p = (struct place){.table_off = b->table_off, .n_table = b->n_table};
    if (stays(b))
        return 0;
    int r =
        budget_alloc(s->img->budget, b->n * sizeof *p->table, "a bitmap's table", &p->table, err);
    for (uint64_t i = 0; r == 0 && i < b->n; i++) {
        p->table[i] = qcow2_bitmap_chunk(s->img, b, i, &bytes, &len);
        if (bytes)
            r = store_chunk(s, bytes, len, &p->table[i], err);
        else if (p->table[i] & QCOW2_OFFSET_MASK)
            r = clusters_add(s->img, &s->kept, p->table[i] >> q->cluster_bits, err);
    }
    p->n_table = (uint32_t)b->n;
    return r < 0 ? r : store_table(s, p->table, b->n, &p->table_off, err);
}

static struct qcow2_bitmap_entry entry_of(const struct qcow2_bitmap *b, const struct place *p)
{
    return (struct qcow2_bitmap_entry){.table = p->table_off,
                                       .n_table = p->n_table,
                                       .flags = b->flags |
                                                (atomic_load(&b->lost) ? QCOW2_BITMAP_IN_USE : 0),
                                       .type = b->type,
                                       .granularity_bits = b->granularity_bits,
                                       .name_len = (uint16_t)strlen(b->name),
                                       .extra_len = b->extra_len,
                                       .extra = b->extra,
                                       .name = (const uint8_t *)b->name};
}

static int store_directory(struct store *s, struct platter_error *err)
{
    uint64_t size = 0;
    uint8_t *bytes;

    for (uint32_t i = 0; i < s->list->n; i++)
        size += round_up(QCOW2_BITMAP_ENTRY + (uint64_t)s->list->items[i]->extra_len +
                             strlen(s->list->items[i]->name),
                         8);
    if (size > QCOW2_MAX_BITMAP_DIRECTORY)
        return fail(err, ENOSPC, "%s: the names of the bitmaps take too much room",
                    s->img->stream->name);
    int r = budget_alloc(s->img->budget, size, "the bitmap directory", &bytes, err);
    if (r < 0)
        return r;
    s->directory_size = size;
    r = take(s, size, &s->directory, err);
    struct writer w = writer_over(bytes, size);
    for (uint32_t i = 0; i < s->list->n; i++) {
        s->places[i].flags_at = s->directory + w.pos + QCOW2_BITMAP_FLAGS_AT;
        const struct qcow2_bitmap_entry e = entry_of(s->list->items[i], &s->places[i]);
        qcow2_bitmap_entry_encode(&w, &e);
    }
    if (r == 0)
        r = image_meta_write(s->img, bytes, size, s->directory, err);
    budget_free(s->img->budget, bytes, size);
    return r;
}

static int store_all(struct store *s, struct platter_error *err)
{
    int r = collect_old(s, err);
    for (uint32_t i = 0; r == 0 && i < s->list->n; i++)
        r = store_bitmap(s, s->list->items[i], &s->places[i], err);
    if (r == 0 && s->list->n)
        r = store_directory(s, err);
    /* The data that the bits speak of goes along: it is no worse off than the bits. */
    if (r == 0)
        r = qcow2_flush_locked(s->img, err);
    return r < 0 ? r : qcow2_barrier(s->img, err);
}

/* ---- the switch --------------------------------------------------------------------------------
 */

static int switch_over(struct store *s, struct platter_error *err)
{
    struct qcow2_rewrite w;
    int r = qcow2_rewrite_begin(s->img, &w, err);
    if (r < 0)
        return r;
    w.extensions.has_bitmaps = s->list->n > 0;
    w.extensions.n_bitmaps = s->list->n;
    w.extensions.bitmap_directory = s->directory;
    w.extensions.bitmap_directory_size = s->directory_size;
    w.header.autoclear &= ~(uint64_t)QCOW2_AUTOCLEAR_BITMAPS;
    w.header.autoclear |= s->list->n ? QCOW2_AUTOCLEAR_BITMAPS : 0;
    r = qcow2_rewrite_commit(s->img, &w, err);
    qcow2_rewrite_end(&w);
    return r;
}

/* Nothing on the disk refers to it any more. Where two referred to one cluster it goes once. What
 * an error leaves behind is leaked, which harms nobody. */
static void free_old(struct store *s)
{
    int r = 0;

    clusters_sort(&s->old);
    clusters_sort(&s->kept);
    for (size_t i = 0; r == 0 && i < s->old.n; i++)
        if ((i == 0 || s->old.at[i] != s->old.at[i - 1]) && !clusters_have(&s->kept, s->old.at[i]))
            r = qcow2_count_down(s->img, s->old.at[i], 1, false, NULL);
    slices_write(s->img, &qcow2_of(s->img)->blocks, NULL);
}

static void take_over(struct store *s)
{
    struct qcow2 *q = qcow2_of(s->img);

    for (uint32_t i = 0; i < s->list->n; i++) {
        struct qcow2_bitmap *b = s->list->items[i];
        struct place *p = &s->places[i];
        if (p->table)
            qcow2_bitmap_stored(s->img, b, TAKE(p->table));
        b->table_off = p->table_off;
        b->n_table = p->n_table;
        b->flags_at = p->flags_at;
    }
    q->bitmaps_loaded = true;
    q->prepared = !(q->header.autoclear & ~(uint64_t)QCOW2_AUTOCLEAR_RAW);
    atomic_store(&q->bitmaps_state, s->list->n ? QCOW2_BITMAPS_STORED : QCOW2_BITMAPS_NONE);
}

/* What was taken for nothing is given back: nothing ever referred to it. */
static void give_back(struct store *s)
{
    for (size_t i = 0; i < s->fresh.n; i++)
        qcow2_count_down(s->img, s->fresh.at[i], 1, false, NULL);
}

static int run(struct store *s, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(s->img);
    int r = budget_alloc(s->img->budget, q->cluster_size, "a part of a bitmap", &s->bounce, err);
    if (r == 0)
        r = budget_alloc(s->img->budget, s->list->n * sizeof *s->places, "the list of bitmaps",
                         &s->places, err);
    if (r == 0)
        r = store_all(s, err);
    if (r == 0)
        r = switch_over(s, err);
    if (r < 0) {
        give_back(s);
        return r;
    }
    take_over(s);
    free_old(s);
    return 0;
}

static void store_end(struct store *s)
{
    struct budget *budget = s->img->budget;
    for (uint32_t i = 0; s->places && i < s->list->n; i++)
        budget_free(budget, s->places[i].table, s->list->items[i]->n * sizeof(uint64_t));
    budget_free(budget, s->places, s->list->n * sizeof *s->places);
    budget_free(budget, s->bounce, qcow2_of(s->img)->cluster_size);
    clusters_free(s->img, &s->old);
    clusters_free(s->img, &s->kept);
    clusters_free(s->img, &s->fresh);
}

int qcow2_bitmaps_store(struct image *img, const struct qcow2_bitmap_list *list,
                        struct platter_error *err)
{
    struct store s = {.img = img, .list = list};
    int r = qcow2_enter_quietly(img, err);
    if (r < 0)
        return r;
    r = run(&s, err);
    store_end(&s);
    qcow2_leave(img);
    return r;
}
