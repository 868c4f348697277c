/* SPDX-License-Identifier: MIT */
/*
 * How often each host cluster is referred to. Nearly all counts are 0 or 1, and what is used lies
 * together: so a count is a bit until one near it is more, and pieces of the file that nobody
 * refers to take nothing.
 */
#include <string.h>

#include "base/ckd.h"
#include "format/qcow2/check.h"

enum {
    CHUNK = 1 << COUNT_CHUNK_BITS,
    MARK_BYTES = CHUNK / 8,
    MAX_CHUNKS = 1 << 17 /* 256 TiB of file with 64 KiB clusters, and 5 MiB of list */
};

static uint64_t chunk_bytes(unsigned width)
{
    return (uint64_t)CHUNK / 8 * width;
}

int counts_open(struct counts *c, struct budget *budget, uint64_t first, struct platter_error *err)
{
    *c = (struct counts){.budget = budget,
                         .first = first,
                         .limit = first + (uint64_t)MAX_CHUNKS * CHUNK,
                         .next = UINT64_MAX,
                         .n_chunks = 16};
    return budget_alloc(budget, c->n_chunks * sizeof *c->chunks, "the counts of a check",
                        &c->chunks, err);
}

static void chunk_free(struct counts *c, struct count_chunk *chunk)
{
    budget_free(c->budget, chunk->counts, chunk_bytes(chunk->width));
    for (int mark = 0; mark < MARK_KINDS; mark++)
        budget_free(c->budget, chunk->marks[mark], MARK_BYTES);
    *chunk = (struct count_chunk){0};
}

void counts_close(struct counts *c)
{
    for (uint64_t i = 0; c->chunks && i < c->n_chunks; i++)
        chunk_free(c, &c->chunks[i]);
    budget_free(c->budget, c->chunks, c->n_chunks * sizeof *c->chunks);
    *c = (struct counts){0};
}

/* Gives up the highest chunk that has memory, not below chunk i: later passes will see to it. 1: it
 * was i itself. */
static int shrink(struct counts *c, uint64_t i, struct platter_error *err)
{
    uint64_t highest = i;
    for (uint64_t n = i; n < c->n_chunks; n++) {
        const struct count_chunk *chunk = &c->chunks[n];
        bool has = chunk->counts;
        for (int mark = 0; mark < MARK_KINDS; mark++)
            has = has || chunk->marks[mark];
        if (has)
            highest = n;
    }
    if (highest == 0)
        return -ENOMEM;
    if (highest < c->n_chunks)
        chunk_free(c, &c->chunks[highest]);
    c->limit = c->first + (highest << COUNT_CHUNK_BITS);
    c->next = c->limit; /* what it counted is to be counted again */
    c->cut = true;
    if (err)
        *err = (struct platter_error){0};
    return highest == i;
}

/* Memory for chunk i; *ret NULL: there is none, and the chunk is left to another pass. */
static int take(struct counts *c, uint64_t i, uint64_t bytes, void *ret, struct platter_error *err)
{
    void **memory = ret;
    *memory = NULL;
    for (;;) {
        struct platter_error why = {0};
        int r = budget_alloc(c->budget, bytes, "the counts of a check", memory, &why);
        if (r == 0)
            return 0;
        r = shrink(c, i, NULL);
        if (r < 0)
            return fail(err, ENOMEM, "%s", why.message);
        if (r == 1)
            return 0;
    }
}

/* The list reaches chunk i, or the chunk is left to another pass. */
static int reach(struct counts *c, uint64_t i, struct platter_error *err)
{
    uint64_t n = c->n_chunks;
    struct count_chunk *chunks;
    if (i < n)
        return 0;
    while (n <= i)
        n *= 2;
    int r = take(c, i, n * sizeof *chunks, &chunks, err);
    if (r < 0 || !chunks)
        return r;
    memcpy(chunks, c->chunks, c->n_chunks * sizeof *chunks);
    budget_free(c->budget, c->chunks, c->n_chunks * sizeof *chunks);
    c->chunks = chunks;
    c->n_chunks = n;
    return 0;
}

bool counts_inside(const struct counts *c, uint64_t cluster)
{
    return cluster >= c->first && cluster < c->limit;
}

static const struct count_chunk *find(const struct counts *c, uint64_t cluster)
{
    uint64_t i = (cluster - c->first) >> COUNT_CHUNK_BITS;
    return counts_inside(c, cluster) && i < c->n_chunks ? &c->chunks[i] : NULL;
}

static bool bit_get(const uint64_t *bits, uint64_t k)
{
    return bits && (bits[k / 64] >> k % 64 & 1);
}

static uint64_t mask_of(uint64_t k, uint64_t n) /* n bits from bit k % 64 on, in one word */
{
    return (n == 64 ? UINT64_MAX : (UINT64_C(1) << n) - 1) << k % 64;
}

/* Calls for each word that the bits [k, k + n) touch. */
#define FOR_WORDS(k, n, word, mask)                                                                \
    for (uint64_t at_ = (k), left_ = (n), len_, word, mask;                                        \
         left_ &&                                                                                  \
         (len_ = min_u64(left_, 64 - at_ % 64), word = at_ / 64, mask = mask_of(at_, len_), true); \
         at_ += len_, left_ -= len_)

static bool bits_any(const uint64_t *bits, uint64_t k, uint64_t n)
{
    if (!bits)
        return false;
    FOR_WORDS(k, n, word, mask)
    if (bits[word] & mask)
        return true;
    return false;
}

static uint64_t get(const struct count_chunk *chunk, uint64_t k)
{
    if (!chunk->counts)
        return 0;
    if (chunk->width == 1)
        return bit_get(chunk->counts, k);
    return chunk->width == 8 ? ((const uint8_t *)chunk->counts)[k]
                             : ((const uint32_t *)chunk->counts)[k];
}

/* Counts of another width; chunk->counts NULL: it is left to another pass. */
static int widen(struct counts *c, uint64_t i, unsigned width, struct platter_error *err)
{
    void *counts;
    int r = take(c, i, chunk_bytes(width), &counts, err);
    if (r < 0 || !counts)
        return r;
    struct count_chunk *chunk = &c->chunks[i];
    for (uint64_t k = 0; chunk->counts && k < CHUNK; k++) {
        uint64_t count = get(chunk, k);
        if (width == 8)
            ((uint8_t *)counts)[k] = (uint8_t)count;
        else
            ((uint32_t *)counts)[k] = (uint32_t)count;
    }
    budget_free(c->budget, chunk->counts, chunk_bytes(chunk->width));
    chunk->counts = counts;
    chunk->width = width;
    return 0;
}

static void put(struct count_chunk *chunk, uint64_t k, uint64_t value)
{
    if (chunk->width == 8)
        ((uint8_t *)chunk->counts)[k] = (uint8_t)value;
    else if (chunk->width == 32)
        ((uint32_t *)chunk->counts)[k] = (uint32_t)value;
    else if (value)
        ((uint64_t *)chunk->counts)[k / 64] |= UINT64_C(1) << k % 64;
    else
        ((uint64_t *)chunk->counts)[k / 64] &= ~(UINT64_C(1) << k % 64);
}

static int add_one(struct counts *c, uint64_t i, uint64_t k, uint64_t by, struct platter_error *err)
{
    uint64_t value = get(&c->chunks[i], k) + by;
    int r = 0;
    if (value > 1)
        c->shared = true;
    if (value > UINT32_MAX)
        value = UINT32_MAX;
    if (value > UINT8_MAX && c->chunks[i].width < 32)
        r = widen(c, i, 32, err);
    else if (value > 1 && c->chunks[i].width < 8)
        r = widen(c, i, 8, err);
    if (r == 0 && c->chunks[i].counts && counts_inside(c, c->first + (i << COUNT_CHUNK_BITS)))
        put(&c->chunks[i], k, value);
    return r;
}

/* [k, k + n) of chunk i. */
static int add_in(struct counts *c, uint64_t i, uint64_t k, uint64_t n, uint64_t by,
                  struct platter_error *err)
{
    int r = reach(c, i, err);
    if (r == 0 && i < c->n_chunks && !c->chunks[i].counts)
        r = widen(c, i, 1, err);
    if (r < 0 || i >= c->n_chunks || !c->chunks[i].counts)
        return r;
    struct count_chunk *chunk = &c->chunks[i];
    if (by == 1 && chunk->width == 1 && !bits_any(chunk->counts, k, n)) {
        uint64_t *bits = chunk->counts;
        FOR_WORDS(k, n, word, mask)
        bits[word] |= mask;
        return 0;
    }
    for (uint64_t j = 0; r == 0 && j < n && c->chunks[i].counts; j++)
        r = add_one(c, i, k + j, by, err);
    return r;
}

/* Takes one chunk's part of a range from its start; 0: nothing of it is inside. */
static uint64_t next_part(const struct counts *c, uint64_t *cluster, uint64_t *n, uint64_t *ret_i,
                          uint64_t *ret_k)
{
    if (*cluster < c->first) {
        uint64_t before = min_u64(*n, c->first - *cluster);
        *cluster += before;
        *n -= before;
    }
    if (*n == 0 || *cluster >= c->limit)
        return 0;
    *ret_i = (*cluster - c->first) >> COUNT_CHUNK_BITS;
    *ret_k = (*cluster - c->first) & (CHUNK - 1);
    uint64_t part = min_u64(*n, CHUNK - *ret_k);
    *cluster += part;
    *n -= part;
    return part;
}

int counts_add(struct counts *c, uint64_t cluster, uint64_t n, uint64_t by,
               struct platter_error *err)
{
    uint64_t i, k, part;
    int r = 0;
    while (r == 0 && (part = next_part(c, &cluster, &n, &i, &k)))
        r = add_in(c, i, k, part, by, err);
    if (n)
        c->next = min_u64(c->next, cluster);
    return r;
}

void counts_take(struct counts *c, uint64_t cluster, uint64_t n)
{
    for (; n; n--, cluster++) {
        struct count_chunk *chunk = (struct count_chunk *)find(c, cluster);
        uint64_t k = (cluster - c->first) & (CHUNK - 1);
        if (chunk && get(chunk, k))
            put(chunk, k, get(chunk, k) - 1);
    }
}

uint64_t counts_get(const struct counts *c, uint64_t cluster)
{
    const struct count_chunk *chunk = find(c, cluster);
    return chunk ? get(chunk, (cluster - c->first) & (CHUNK - 1)) : 0;
}

bool counts_any(const struct counts *c, uint64_t cluster, uint64_t n)
{
    uint64_t i, k, part;
    while ((part = next_part(c, &cluster, &n, &i, &k))) {
        if (i >= c->n_chunks)
            return false;
        const struct count_chunk *chunk = &c->chunks[i];
        if (chunk->counts && chunk->width == 1 && bits_any(chunk->counts, k, part))
            return true;
        for (uint64_t j = 0; chunk->counts && chunk->width > 1 && j < part; j++)
            if (get(chunk, k + j))
                return true;
    }
    return false;
}

bool counts_word(const struct counts *c, uint64_t cluster, uint64_t *ret)
{
    const struct count_chunk *chunk = find(c, cluster);
    *ret = 0;
    if (!chunk || !chunk->counts)
        return true;
    if (chunk->width != 1)
        return false;
    *ret = ((const uint64_t *)chunk->counts)[((cluster - c->first) & (CHUNK - 1)) / 64];
    return true;
}

int counts_mark(struct counts *c, enum count_mark mark, uint64_t cluster, uint64_t n,
                struct platter_error *err)
{
    uint64_t i, k, part;
    while ((part = next_part(c, &cluster, &n, &i, &k))) {
        int r = reach(c, i, err);
        if (r == 0 && i < c->n_chunks && !c->chunks[i].marks[mark]) {
            uint64_t *bits;
            r = take(c, i, MARK_BYTES, &bits, err);
            if (r == 0 && bits)
                c->chunks[i].marks[mark] = bits;
        }
        if (r < 0 || i >= c->n_chunks || !c->chunks[i].marks[mark])
            return r;
        FOR_WORDS(k, part, word, mask)
        c->chunks[i].marks[mark][word] |= mask;
    }
    return 0;
}

bool counts_marked(const struct counts *c, enum count_mark mark, uint64_t cluster)
{
    const struct count_chunk *chunk = find(c, cluster);
    return chunk && bit_get(chunk->marks[mark], (cluster - c->first) & (CHUNK - 1));
}

bool counts_table(const struct counts *c, uint64_t cluster, uint64_t n)
{
    uint64_t i, k, part;
    while ((part = next_part(c, &cluster, &n, &i, &k))) {
        if (i >= c->n_chunks)
            return false;
        if (bits_any(c->chunks[i].marks[MARK_FIXED], k, part) ||
            bits_any(c->chunks[i].marks[MARK_L2], k, part))
            return true;
    }
    return false;
}

uint64_t counts_end(const struct counts *c)
{
    for (uint64_t i = c->n_chunks; i-- > 0;)
        for (uint64_t k = CHUNK; c->chunks[i].counts && k-- > 0;)
            if (get(&c->chunks[i], k))
                return c->first + (i << COUNT_CHUNK_BITS) + k + 1;
    return 0;
}
