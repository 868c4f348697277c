/* SPDX-License-Identifier: MIT */
/*
 * A set of numbers, for finding those that come twice in files of any size: a bit for each, in
 * leaves of bits that a hash table leads to. When there are too many leaves the upper half of them
 * goes, and the set says up to where it knows everything; what is behind is for another look.
 */
#include <sys/random.h>

#include "format/vmdk/check.h"

enum {
    WORDS = 8, /* of a leaf */
    WORD = 64,
    LEAF = WORDS * WORD,   /* numbers */
    MOST_LEAVES = 1 << 17, /* 10 MiB */
    LEAST_LEAVES = 1 << 6,
    SLOTS_PER_LEAF = 2
};

struct number_leaf {
    uint64_t number; /* of the leaf */
    uint64_t bits[WORDS];
};

int number_set_open(struct number_set *t, struct budget *budget, struct platter_error *err)
{
    uint64_t each = sizeof *t->leaves + SLOTS_PER_LEAF * sizeof *t->slots;
    *t = (struct number_set){.budget = budget, .max = LEAST_LEAVES};
    while (t->max < MOST_LEAVES && t->max * 2 * each <= budget_limit(budget) / 4)
        t->max *= 2;
    t->n_slots = t->max * SLOTS_PER_LEAF;
    /* The numbers are chosen by whoever made the file: all of them in one slot would take for ever.
     * (Without the answer it still works.) */
    if (getrandom(&t->factor, sizeof t->factor, GRND_NONBLOCK) < 0)
        t->factor = UINT64_C(0x9e3779b97f4a7c15);
    t->factor |= 1;
    int r =
        budget_alloc(budget, t->max * sizeof *t->leaves, "what is used of a VMDK", &t->leaves, err);
    if (r == 0)
        r = budget_alloc(budget, t->n_slots * sizeof *t->slots, "what is used of a VMDK", &t->slots,
                         err);
    if (r < 0)
        number_set_close(t);
    return r;
}

void number_set_close(struct number_set *t)
{
    budget_free(t->budget, TAKE(t->leaves), t->max * sizeof *t->leaves);
    budget_free(t->budget, TAKE(t->slots), t->n_slots * sizeof *t->slots);
}

void number_set_begin(struct number_set *t, uint64_t from)
{
    t->n = 0;
    t->from = from;
    t->end = UINT64_MAX;
    memset(t->slots, 0, t->n_slots * sizeof *t->slots);
}

void number_set_again(struct number_set *t)
{
    for (uint32_t i = 0; i < t->n; i++)
        memset(t->leaves[i].bits, 0, sizeof t->leaves[i].bits);
}

/* The slot of a leaf, or the free one where it belongs: half of them are free. */
static uint32_t *find_slot(struct number_set *t, uint64_t number)
{
    uint32_t i = (uint32_t)(number * t->factor >> 32);
    for (;; i++) {
        uint32_t *slot = &t->slots[i & (t->n_slots - 1)];
        if (*slot == 0 || t->leaves[*slot - 1].number == number)
            return slot;
    }
}

static int compare_leaves(const void *a, const void *b)
{
    uint64_t x = ((const struct number_leaf *)a)->number;
    uint64_t y = ((const struct number_leaf *)b)->number;
    return (x > y) - (x < y);
}

/* The upper half goes. */
static void drop_half(struct number_set *t)
{
    qsort(t->leaves, t->n, sizeof *t->leaves, compare_leaves);
    t->n /= 2;
    t->end = t->leaves[t->n].number * LEAF;
    memset(t->slots, 0, t->n_slots * sizeof *t->slots);
    for (uint32_t i = 0; i < t->n; i++)
        *find_slot(t, t->leaves[i].number) = i + 1;
}

bool number_set_add(struct number_set *t, uint64_t number)
{
    if (number < t->from || number >= t->end)
        return false;
    uint32_t *slot = find_slot(t, number / LEAF);
    if (*slot == 0 && t->n == t->max) {
        drop_half(t);
        return number_set_add(t, number);
    }
    if (*slot == 0) {
        t->leaves[t->n] = (struct number_leaf){.number = number / LEAF};
        *slot = ++t->n;
    }
    uint64_t *word = &t->leaves[*slot - 1].bits[number % LEAF / WORD];
    uint64_t bit = UINT64_C(1) << number % WORD;
    bool was = *word & bit;
    *word |= bit;
    return was;
}
