/* SPDX-License-Identifier: MIT */
/*
 * The bits of one bitmap, in chunks of a cluster each.
 *
 * Setting a bit takes no lock where its chunk is in memory: a chunk, once it is there, stays for as
 * long as the image may be written to, and bits only ever become 1 while others are at work. What
 * makes them 0, or takes chunks away, is done while nobody else uses the disk. In an image that is
 * only read one chunk of a bitmap is kept, and looked at under image->lock.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow2/bitmap.h"

struct qcow2_bitmap_chunk {
    atomic_bool changed; /* differs from what the table says */
    uint32_t len;
    uint8_t bytes[];
};

/* Stands for a chunk of ones, whole and not the bitmap's last. */
static struct qcow2_bitmap_chunk ones;

/* ---- geometry ----------------------------------------------------------------------------------
 */

static uint64_t n_bits(const struct qcow2_bitmap *b)
{
    return div_up(b->size, UINT64_C(1) << b->granularity_bits);
}

/* log2 of the bits of a chunk. */
static unsigned chunk_bits(const struct image *img)
{
    return qcow2_of(img)->cluster_bits + 3;
}

/* Bits of chunk i that the disk has. */
static uint64_t bits_in(const struct image *img, const struct qcow2_bitmap *b, uint64_t i)
{
    return min_u64(n_bits(b) - (i << chunk_bits(img)), UINT64_C(1) << chunk_bits(img));
}

/* Bytes that chunk i takes in memory: whole sectors. */
static uint32_t chunk_len(const struct image *img, const struct qcow2_bitmap *b, uint64_t i)
{
    return (uint32_t)round_up(max_u64(div_up(bits_in(img, b, i), 8), 1), 512);
}

static bool is_full(const struct image *img, const struct qcow2_bitmap *b, uint64_t i)
{
    return bits_in(img, b, i) == UINT64_C(1) << chunk_bits(img);
}

/* ---- bits of a chunk ---------------------------------------------------------------------------
 */

static bool set_some(uint8_t *byte, unsigned mask)
{
    if ((__atomic_load_n(byte, __ATOMIC_RELAXED) & mask) == mask)
        return false;
    __atomic_fetch_or(byte, (uint8_t)mask, __ATOMIC_RELAXED);
    return true;
}

/* Sets the bits [first, end); whether one of them was 0. */
static bool set_bits(uint8_t *bytes, uint64_t first, uint64_t end)
{
    bool changed = false;
    while (first < end) {
        unsigned from = first % 8, n = (unsigned)min_u64(8 - from, end - first);
        changed |= set_some(bytes + first / 8, ((1u << n) - 1) << from);
        first += n;
    }
    return changed;
}

/* The first bit of [first, end) that is not `value`, or end. */
static uint64_t find_other(const uint8_t *bytes, uint64_t first, uint64_t end, bool value)
{
    while (first < end) {
        uint8_t byte = __atomic_load_n(bytes + first / 8, __ATOMIC_RELAXED);
        if (first % 8 == 0 && byte == (value ? 0xff : 0)) {
            first += 8;
            continue;
        }
        if ((byte >> first % 8 & 1) != value)
            return first;
        first++;
    }
    return end;
}

/* Bits behind the end of the disk mean nothing (section 16). */
static void mask_tail(struct qcow2_bitmap_chunk *c, uint64_t bits)
{
    uint64_t whole = div_up(bits, 8);
    if (bits % 8)
        c->bytes[bits / 8] &= (uint8_t)((1u << bits % 8) - 1);
    if (whole < c->len)
        memset(c->bytes + whole, 0, c->len - whole);
}

/* ---- chunks ------------------------------------------------------------------------------------
 */

static void chunk_free(struct image *img, struct qcow2_bitmap_chunk *c)
{
    if (c && c != &ones)
        budget_free(img->budget, c, sizeof *c + c->len);
}

static int chunk_new(struct image *img, uint32_t len, struct qcow2_bitmap_chunk **ret,
                     struct platter_error *err)
{
    int r = budget_alloc(img->budget, sizeof **ret + len, "a part of a bitmap", ret, err);
    if (r == 0)
        (*ret)->len = len;
    return r;
}

/* Chunk i out of the file. */
static int chunk_read(struct image *img, const struct qcow2_bitmap *b, uint64_t i,
                      struct qcow2_bitmap_chunk *c, struct platter_error *err)
{
    uint64_t entry = b->table[i];
    const char *problem = qcow2_bitmap_cluster_problem(img, entry);
    int r = 0;

    if (problem)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: bitmap \"%s\": entry %" PRIu64 " of its table is 0x%" PRIx64 ": %s",
                    img->stream->name, b->name, i, entry, problem);
    if (entry == QCOW2_BITMAP_ONES)
        memset(c->bytes, 0xff, c->len);
    else if (entry)
        r = stream_pread(img->stream, c->bytes, c->len, entry, err);
    if (r < 0)
        return fail_in(err, r, "bitmap \"%s\"", b->name);
    mask_tail(c, bits_in(img, b, i));
    return 0;
}

/* Puts a chunk where none is yet; if somebody was faster, his is taken. Lock held. */
static void chunk_put(struct image *img, struct qcow2_bitmap *b, uint64_t i,
                      struct qcow2_bitmap_chunk **c)
{
    struct qcow2_bitmap_chunk *there = atomic_load(&b->chunks[i]);
    if (there) {
        chunk_free(img, *c);
        *c = there;
        return;
    }
    if (!img->writable) {
        chunk_free(img, atomic_exchange(&b->chunks[b->loaded], NULL));
        b->loaded = i;
    }
    atomic_store(&b->chunks[i], *c);
}

/* Chunk i in memory. Lock held; drops it to read. */
static int chunk_need(struct image *img, struct qcow2_bitmap *b, uint64_t i,
                      struct qcow2_bitmap_chunk **ret, struct platter_error *err)
{
    *ret = atomic_load(&b->chunks[i]);
    if (*ret)
        return 0;
    if (b->table[i] == QCOW2_BITMAP_ONES && is_full(img, b, i)) {
        *ret = &ones;
        chunk_put(img, b, i, ret);
        return 0;
    }
    pthread_mutex_unlock(&img->lock);
    int r = chunk_new(img, chunk_len(img, b, i), ret, err);
    if (r == 0)
        r = chunk_read(img, b, i, *ret, err);
    pthread_mutex_lock(&img->lock);
    if (r == 0)
        chunk_put(img, b, i, ret);
    else
        chunk_free(img, TAKE(*ret));
    return r;
}

/* Chunk i, of which all bits are to become 1: whether that needs no memory. */
static bool chunk_fill(struct image *img, struct qcow2_bitmap *b, uint64_t i)
{
    WITH_LOCK(&img->lock);
    struct qcow2_bitmap_chunk *c = atomic_load(&b->chunks[i]);
    if (c)
        return c == &ones;
    if (b->table[i] != QCOW2_BITMAP_ONES)
        atomic_store(&b->changed, true);
    atomic_store(&b->chunks[i], &ones);
    return true;
}

/* ---- the bitmap --------------------------------------------------------------------------------
 */

static void drop_room(struct image *img, struct qcow2_bitmap *b)
{
    budget_free(img->budget, b->chunks, b->n * sizeof *b->chunks);
    budget_free(img->budget, b->table, b->n * sizeof *b->table);
    b->chunks = NULL;
    b->table = NULL;
    b->n = 0;
}

/* Room for table and chunks, all 0. What there is after a failure is for drop_room(). */
static int make_room(struct image *img, struct qcow2_bitmap *b, uint64_t n,
                     struct platter_error *err)
{
    int r = budget_alloc(img->budget, n * sizeof *b->table, "a bitmap's table", &b->table, err);
    if (r < 0)
        return r;
    b->n = n;
    return budget_alloc(img->budget, n * sizeof *b->chunks, "a bitmap's table", &b->chunks, err);
}

void qcow2_bitmap_free(struct image *img, struct qcow2_bitmap *b)
{
    if (!b)
        return;
    for (uint64_t i = 0; b->chunks && i < b->n; i++)
        chunk_free(img, atomic_load(&b->chunks[i]));
    drop_room(img, b);
    budget_give(img->budget, b->memory);
    free(b->name);
    free(b->extra);
    free(b);
}

int qcow2_bitmap_from(struct image *img, const struct qcow2_bitmap_entry *e,
                      struct qcow2_bitmap **ret, struct platter_error *err)
{
    uint64_t memory = sizeof **ret + e->name_len + UINT64_C(1) + e->extra_len;
    int r = budget_take(img->budget, memory, "a bitmap", err);
    if (r < 0)
        return r;
    struct qcow2_bitmap *b = calloc(1, sizeof *b);
    if (!b) {
        budget_give(img->budget, memory);
        return fail_memory(err, "a bitmap");
    }
    b->memory = memory;
    b->name = strndup((const char *)e->name, e->name_len);
    b->extra = malloc(e->extra_len + (size_t)1);
    if (!b->name || !b->extra) {
        qcow2_bitmap_free(img, b);
        return fail_memory(err, "a bitmap");
    }
    memcpy(b->extra, e->extra, e->extra_len);
    b->extra_len = e->extra_len;
    b->flags = e->flags;
    b->type = e->type;
    b->granularity_bits = e->granularity_bits;
    b->table_off = e->table;
    b->n_table = e->n_table;
    b->size = img->size;
    *ret = b;
    return 0;
}

int qcow2_bitmap_new(struct image *img, const char *name, unsigned granularity_bits,
                     struct qcow2_bitmap **ret, struct platter_error *err)
{
    const struct qcow2_bitmap_entry e = {.flags = QCOW2_BITMAP_AUTO,
                                         .type = QCOW2_BITMAP_TRACKING,
                                         .granularity_bits = (uint8_t)granularity_bits,
                                         .name_len = (uint16_t)strlen(name),
                                         .extra = (const uint8_t *)"",
                                         .name = (const uint8_t *)name};
    uint64_t n;
    if (!qcow2_bitmap_table_size(img, img->size, granularity_bits, &n))
        return fail(err, EFBIG,
                    "%s: a bitmap with a granularity of %" PRIu64
                    " bytes would take more than 512 MiB: take a coarser one",
                    img->stream->name, UINT64_C(1) << granularity_bits);
    int r = qcow2_bitmap_from(img, &e, ret, err);
    if (r < 0)
        return r;
    r = make_room(img, *ret, n, err);
    if (r < 0)
        qcow2_bitmap_free(img, TAKE(*ret));
    return r;
}

int qcow2_bitmap_load(struct image *img, struct qcow2_bitmap *b, struct platter_error *err)
{
    uint64_t n;

    if (b->chunks)
        return 0;
    /* That this is no more than the table has was checked when its entry was decoded. */
    qcow2_bitmap_table_size(img, b->size, b->granularity_bits, &n);
    int r = make_room(img, b, n, err);
    if (r == 0)
        r = stream_pread(img->stream, b->table, n * sizeof *b->table, b->table_off, err);
    if (r < 0) {
        drop_room(img, b);
        return fail_in(err, r, "the table of bitmap \"%s\"", b->name);
    }
    for (uint64_t i = 0; i < n; i++)
        b->table[i] = get_be((const uint8_t *)&b->table[i], 8);
    return 0;
}

/* Copies the chunks that are not as the table says. */
static int copy_chunks(struct image *img, struct qcow2_bitmap *from, struct qcow2_bitmap *to,
                       struct platter_error *err)
{
    for (uint64_t i = 0; i < from->n; i++) {
        struct qcow2_bitmap_chunk *c = atomic_load(&from->chunks[i]), *copy = c;
        if (!c || (c != &ones && !atomic_load(&c->changed)))
            continue;
        if (c != &ones) {
            int r = chunk_new(img, c->len, &copy, err);
            if (r < 0)
                return r;
            memcpy(copy->bytes, c->bytes, c->len);
            atomic_store(&copy->changed, true);
        }
        atomic_store(&to->chunks[i], copy);
    }
    return 0;
}

int qcow2_bitmap_clone(struct image *img, struct qcow2_bitmap *b, struct qcow2_bitmap **ret,
                       struct platter_error *err)
{
    const struct qcow2_bitmap_entry e = {.table = b->table_off,
                                         .n_table = b->n_table,
                                         .flags = b->flags,
                                         .type = b->type,
                                         .granularity_bits = b->granularity_bits,
                                         .name_len = (uint16_t)strlen(b->name),
                                         .extra_len = b->extra_len,
                                         .extra = b->extra,
                                         .name = (const uint8_t *)b->name};
    int r = qcow2_bitmap_load(img, b, err);
    if (r == 0)
        r = qcow2_bitmap_from(img, &e, ret, err);
    if (r < 0)
        return r;
    (*ret)->flags_at = b->flags_at;
    atomic_store(&(*ret)->changed, atomic_load(&b->changed));
    r = make_room(img, *ret, b->n, err);
    if (r == 0) {
        memcpy((*ret)->table, b->table, b->n * sizeof *b->table);
        r = copy_chunks(img, b, *ret, err);
    }
    if (r < 0)
        qcow2_bitmap_free(img, TAKE(*ret));
    return r;
}

int qcow2_bitmap_set(struct image *img, struct qcow2_bitmap *b, goff off, goff end,
                     struct platter_error *err)
{
    if (off >= min_u64(end, b->size))
        return 0;
    uint64_t bit = off >> b->granularity_bits;
    uint64_t stop = ((min_u64(end, b->size) - 1) >> b->granularity_bits) + 1;

    while (bit < stop) {
        uint64_t i = bit >> chunk_bits(img), start = i << chunk_bits(img);
        uint64_t next = min_u64(stop, start + bits_in(img, b, i));
        struct qcow2_bitmap_chunk *c = atomic_load(&b->chunks[i]);
        bool whole = bit == start && next - start == UINT64_C(1) << chunk_bits(img);
        if (!c && !(whole && chunk_fill(img, b, i))) {
            pthread_mutex_lock(&img->lock);
            int r = chunk_need(img, b, i, &c, err);
            pthread_mutex_unlock(&img->lock);
            if (r < 0)
                return r;
        }
        if (c && c != &ones && set_bits(c->bytes, bit - start, next - start)) {
            atomic_store(&c->changed, true);
            atomic_store(&b->changed, true);
        }
        bit = next;
    }
    return 0;
}

void qcow2_bitmap_clear(struct image *img, struct qcow2_bitmap *b)
{
    for (uint64_t i = 0; i < b->n; i++) {
        chunk_free(img, atomic_exchange(&b->chunks[i], NULL));
        b->table[i] = 0;
    }
    atomic_store(&b->changed, true);
}

/* The end of the run of equal bits that bit `bit` is in, inside its chunk. Lock held; drops it. */
static int run_in_chunk(struct image *img, struct qcow2_bitmap *b, uint64_t bit, bool *ret_dirty,
                        uint64_t *ret_end, struct platter_error *err)
{
    uint64_t i = bit >> chunk_bits(img), start = i << chunk_bits(img);
    struct qcow2_bitmap_chunk *c = atomic_load(&b->chunks[i]);

    *ret_end = start + bits_in(img, b, i);
    *ret_dirty = false;
    if (!c && b->table[i] == 0)
        return 0;
    int r = chunk_need(img, b, i, &c, err);
    if (r < 0)
        return r;
    *ret_dirty = true;
    if (c == &ones)
        return 0;
    *ret_dirty = find_other(c->bytes, bit - start, bit - start + 1, true) != bit - start;
    *ret_end = start + find_other(c->bytes, bit - start, *ret_end - start, *ret_dirty);
    return 0;
}

int qcow2_bitmap_run(struct image *img, struct qcow2_bitmap *b, goff off, goff end,
                     uint64_t *ret_len, bool *ret_dirty, struct platter_error *err)
{
    uint64_t bit = off >> b->granularity_bits, total = n_bits(b), next;
    bool dirty;

    WITH_LOCK(&img->lock);
    int r = run_in_chunk(img, b, bit, ret_dirty, &bit, err);
    while (r == 0 && bit < total && bit << b->granularity_bits < end) {
        r = run_in_chunk(img, b, bit, &dirty, &next, err);
        if (r < 0 || dirty != *ret_dirty)
            break;
        bit = next;
    }
    *ret_len = min_u64(bit >= total ? end : bit << b->granularity_bits, end) - off;
    return r;
}

/* The last chunk that two sizes share, as it is to be in the second one. */
static int refit(struct image *img, struct qcow2_bitmap *b, uint64_t i, uint64_t size,
                 struct platter_error *err)
{
    struct qcow2_bitmap_chunk *c, *fit;
    struct qcow2_bitmap as = {.size = size, .granularity_bits = b->granularity_bits};
    int r = 0;

    if (!atomic_load(&b->chunks[i]) && b->table[i] == 0)
        return 0;
    pthread_mutex_lock(&img->lock);
    r = chunk_need(img, b, i, &c, err);
    pthread_mutex_unlock(&img->lock);
    if (r == 0)
        r = chunk_new(img, chunk_len(img, &as, i), &fit, err);
    if (r < 0)
        return r;
    if (c == &ones)
        memset(fit->bytes, 0xff, fit->len);
    else
        memcpy(fit->bytes, c->bytes, min_u64(c->len, fit->len));
    mask_tail(fit, min_u64(bits_in(img, b, i), bits_in(img, &as, i)));
    atomic_store(&fit->changed, true);
    chunk_free(img, c);
    atomic_store(&b->chunks[i], fit);
    return 0;
}

int qcow2_bitmap_resize(struct image *img, struct qcow2_bitmap *b, uint64_t size,
                        struct platter_error *err)
{
    struct qcow2_bitmap old = {.n = b->n, .table = b->table, .chunks = b->chunks};
    uint64_t n;

    if (!qcow2_bitmap_table_size(img, size, b->granularity_bits, &n))
        return fail(err, EFBIG,
                    "%s: bitmap \"%s\" would take more than 512 MiB: remove it before the disk "
                    "gets that size",
                    img->stream->name, b->name);
    int r = refit(img, b, min_u64(n, b->n) - 1, size, err);
    if (r < 0)
        return r;
    b->table = NULL;
    b->chunks = NULL;
    r = make_room(img, b, n, err);
    if (r < 0) {
        drop_room(img, b);
        b->n = old.n;
        b->table = old.table;
        b->chunks = old.chunks;
        return r;
    }
    for (uint64_t i = 0; i < old.n; i++) {
        if (i < n) {
            b->table[i] = old.table[i];
            atomic_store(&b->chunks[i], atomic_load(&old.chunks[i]));
        } else {
            chunk_free(img, atomic_load(&old.chunks[i]));
        }
    }
    drop_room(img, &old);
    b->size = size;
    atomic_store(&b->changed, true);
    return 0;
}

/* ---- for storing -------------------------------------------------------------------------------
 */

uint64_t qcow2_bitmap_chunk(const struct image *img, const struct qcow2_bitmap *b, uint64_t i,
                            const uint8_t **ret_bytes, size_t *ret_len)
{
    const struct qcow2_bitmap_chunk *c = atomic_load(&b->chunks[i]);

    *ret_bytes = NULL;
    if (c == &ones)
        return QCOW2_BITMAP_ONES;
    if (!c || !atomic_load(&c->changed))
        return b->table[i];
    if (is_zero(c->bytes, c->len))
        return 0;
    if (is_full(img, b, i) &&
        find_other(c->bytes, 0, c->len * UINT64_C(8), true) == c->len * UINT64_C(8))
        return QCOW2_BITMAP_ONES;
    *ret_bytes = c->bytes;
    *ret_len = c->len;
    return 0;
}

void qcow2_bitmap_stored(struct image *img, struct qcow2_bitmap *b, uint64_t *table)
{
    budget_free(img->budget, b->table, b->n * sizeof *b->table);
    b->table = table;
    for (uint64_t i = 0; i < b->n; i++) {
        struct qcow2_bitmap_chunk *c = atomic_load(&b->chunks[i]);
        if (c && c != &ones)
            atomic_store(&c->changed, false);
    }
    atomic_store(&b->changed, false);
}
