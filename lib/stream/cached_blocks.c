/* SPDX-License-Identifier: MIT */
/* Which blocks are in memory: see cached_inside.h. */
#include <stdlib.h>

#include "base/ckd.h"
#include "base/memory.h"
#include "stream/cached_inside.h"

static atomic_uint n_caches, n_held; /* of the process */

void blocks_begin(struct blocks *b)
{
    *b = (struct blocks){0};
    atomic_fetch_add(&n_caches, 1);
}

unsigned blocks_most(void)
{
    unsigned share = CACHED_ALL / (unsigned)max_u64(1, atomic_load(&n_caches));
    return (unsigned)min_u64(CACHED_BLOCKS, max_u64(CACHED_FEWEST, share));
}

static struct block **bucket(struct blocks *b, uint64_t number)
{
    return &b->hash[number % CACHED_BLOCKS];
}

struct block *blocks_find(struct blocks *b, uint64_t number)
{
    struct block *found = *bucket(b, number);
    while (found && found->number != number)
        found = found->same_hash;
    return found;
}

static void unhash(struct blocks *b, struct block *block)
{
    struct block **p = bucket(b, block->number);
    while (*p != block)
        p = &(*p)->same_hash;
    *p = block->same_hash;
}

static void unlist(struct blocks *b, struct block *block)
{
    *(block->older ? &block->older->newer : &b->oldest) = block->newer;
    *(block->newer ? &block->newer->older : &b->newest) = block->older;
    block->older = block->newer = NULL;
}

static void list(struct blocks *b, struct block *block)
{
    block->older = b->newest;
    *(b->newest ? &b->newest->newer : &b->oldest) = block;
    b->newest = block;
}

void blocks_touch(struct blocks *b, struct block *block)
{
    unlist(b, block);
    list(b, block);
}

/* The one that was unused longest, out of all lists. */
static struct block *evict(struct blocks *b)
{
    struct block *block = b->oldest;
    while (block && block->pins > 0)
        block = block->newer;
    if (block) {
        unlist(b, block);
        unhash(b, block);
    }
    return block;
}

/* Its memory goes; it is in no list. */
static void release(struct blocks *b, struct block *block)
{
    free(block->bytes);
    block->bytes = NULL;
    b->held--;
    atomic_fetch_sub(&n_held, 1);
    block->same_hash = b->free;
    b->free = block;
}

/* One with memory that was not there before; NULL: there is enough, or no more. */
static struct block *extend(struct blocks *b)
{
    bool room = b->held < CACHED_FEWEST || atomic_load(&n_held) < CACHED_ALL;
    uint8_t *bytes = room && b->held < blocks_most() ? malloc(CACHED_BLOCK) : NULL;
    if (!bytes)
        return NULL;
    struct block *block = b->free ? b->free : &b->all[b->n++];
    if (b->free)
        b->free = block->same_hash;
    block->bytes = bytes;
    b->held++;
    atomic_fetch_add(&n_held, 1);
    return block;
}

/* Where there are more than there should be by now, some go. */
static struct block *take(struct blocks *b)
{
    struct block *block = extend(b);
    while (!block && b->held > blocks_most() && (block = evict(b)))
        release(b, TAKE(block));
    return block ? block : evict(b);
}

struct block *blocks_claim(struct blocks *b, uint64_t number, struct fetch *f)
{
    struct block *block = take(b);
    if (!block)
        return NULL;
    block->number = number;
    block->fetch = f;
    block->same_hash = *bucket(b, number);
    *bucket(b, number) = block;
    return block;
}

void blocks_arrived(struct blocks *b, struct block *block, bool fine)
{
    block->fetch = NULL;
    if (fine) {
        list(b, block);
        return;
    }
    unhash(b, block);
    release(b, block);
}

void blocks_done(struct blocks *b)
{
    for (unsigned i = 0; i < b->n; i++)
        free(b->all[i].bytes);
    atomic_fetch_sub(&n_held, b->held);
    atomic_fetch_sub(&n_caches, 1);
}
