/* SPDX-License-Identifier: MIT */
/* Which blocks are in memory: see cached_inside.h. */
#include <stdlib.h>

#include "stream/cached_inside.h"

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

static struct block *take_free(struct blocks *b)
{
    struct block *block = b->free;
    if (block) {
        b->free = block->same_hash;
        return block;
    }
    if (b->n < CACHED_BLOCKS && (b->all[b->n].bytes = malloc(CACHED_BLOCK)))
        return &b->all[b->n++];
    return evict(b);
}

struct block *blocks_claim(struct blocks *b, uint64_t number, struct fetch *f)
{
    struct block *block = take_free(b);
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
    block->same_hash = b->free;
    b->free = block;
}

void blocks_done(struct blocks *b)
{
    for (unsigned i = 0; i < b->n; i++)
        free(b->all[i].bytes);
}
