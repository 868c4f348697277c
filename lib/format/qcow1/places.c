/* SPDX-License-Identifier: MIT */
/* A set of ranges of the file, in bounded memory: check.h. */
#include "base/ckd.h"
#include "format/qcow1/check.h"

enum {
    MOST = 1 << 20,  /* ranges of a window: 16 MiB */
    LEAST = 1 << 10, /* what a check cannot do without */
    SHARED = 1 << 10
};

int places_open(struct places *p, struct budget *budget, uint64_t file_size,
                struct platter_error *err)
{
    const char *what = "what stands where in a qcow";
    uint64_t most = LEAST;
    *p = (struct places){.budget = budget, .to = UINT64_MAX};
    int r = budget_alloc(budget, SHARED * sizeof *p->shared, what, &p->shared, err);
    if (r < 0)
        return r;
    while (most < MOST && most < file_size / 4) /* each range takes an entry of 8 bytes, or two */
        most *= 2;
    r = -ENOMEM;
    for (p->max = most; r < 0 && p->max >= LEAST; p->max /= 2)
        if (p->max * sizeof *p->items <= budget_limit(budget) / 4 || p->max == LEAST)
            r = budget_alloc_buffer(budget, p->max * sizeof *p->items, what, &p->items, err);
    p->max *= 2;
    return r;
}

void places_close(struct places *p)
{
    budget_free(p->budget, p->items, p->max * sizeof *p->items);
    budget_free(p->budget, p->shared, SHARED * sizeof *p->shared);
}

void places_begin(struct places *p, hoff from)
{
    p->n = 0;
    p->from = from;
    p->to = UINT64_MAX;
}

static int compare(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    return (x->from > y->from) - (x->from < y->from);
}

static void note_shared(struct places *p, hoff from, hoff end)
{
    struct place *last = p->n_shared ? &p->shared[p->n_shared - 1] : NULL;
    if (last && from <= last->end && last->from <= end) {
        last->from = min_u64(last->from, from);
        last->end = max_u64(last->end, end);
    } else if (p->n_shared < SHARED) {
        p->shared[p->n_shared++] = (struct place){from, end};
    } else {
        p->more_shared = true;
    }
}

/* Sorts the items, and joins those that touch. */
static void join(struct places *p)
{
    size_t n = 0;
    if (p->n == 0)
        return;
    qsort(p->items, p->n, sizeof *p->items, compare);
    for (size_t i = 1; i < p->n; i++) {
        struct place *last = &p->items[n], *next = &p->items[i];
        if (next->from > last->end) {
            p->items[++n] = *next;
            continue;
        }
        if (next->from < last->end)
            note_shared(p, next->from, min_u64(last->end, next->end));
        last->end = max_u64(last->end, next->end);
    }
    p->n = n + 1;
}

/* Makes room: the upper half is left to the next window, if joining is not enough. */
static void squeeze(struct places *p)
{
    join(p);
    if (p->n < p->max / 2)
        return;
    p->n = p->max / 2;
    p->to = p->items[p->n].from;
}

void places_add(struct places *p, hoff from, uint64_t len)
{
    hoff end = from + len;
    from = max_u64(from, p->from);
    end = min_u64(end, p->to);
    if (from >= end)
        return;
    if (p->n && p->items[p->n - 1].end == from) {
        p->items[p->n - 1].end = end;
        return;
    }
    if (p->n == p->max) {
        squeeze(p);
        end = min_u64(end, p->to);
        if (from >= end)
            return;
    }
    p->items[p->n++] = (struct place){from, end};
}

void places_finish(struct places *p)
{
    join(p);
}
