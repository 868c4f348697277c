/* SPDX-License-Identifier: MIT */
#include "format/vma/coverage.h"

#include "base/ckd.h"

enum {
    /* Pages and folders are smaller than what is aligned, of which malloc() takes twice as much. */
    PAGE_BITS = 14, /* clusters of a page: 1 GiB of a disk in 2 KiB */
    PAGE = 1 << PAGE_BITS,
    WORDS = PAGE / 64,
    FOLDER_BITS = 7, /* pages of a folder: 128 GiB */
    FOLDER = 1 << FOLDER_BITS,
    FOLDERS = 1 << (32 - PAGE_BITS - FOLDER_BITS)
};

struct page {
    uint32_t n;      /* clusters that are there; PAGE: all of them */
    uint64_t *words; /* NULL where n is 0 or PAGE */
};

struct coverage {
    struct budget *budget;
    uint64_t n, end;
    struct page *folders[FOLDERS];
};

int coverage_new(struct budget *budget, struct coverage **ret, struct platter_error *err)
{
    struct coverage *c;
    int r = budget_alloc(budget, sizeof *c, "a map of clusters", &c, err);
    if (r < 0)
        return r;
    c->budget = budget;
    *ret = c;
    return 0;
}

void coverage_free(struct coverage *c)
{
    if (!c)
        return;
    for (unsigned i = 0; i < FOLDERS; i++) {
        for (unsigned k = 0; c->folders[i] && k < FOLDER; k++)
            budget_free(c->budget, c->folders[i][k].words, WORDS * sizeof(uint64_t));
        budget_free(c->budget, c->folders[i], FOLDER * sizeof(struct page));
    }
    budget_free(c->budget, c, sizeof *c);
}

static struct page *page_of(const struct coverage *c, uint64_t cluster)
{
    struct page *folder = c->folders[cluster >> (PAGE_BITS + FOLDER_BITS)];
    return folder ? &folder[cluster >> PAGE_BITS & (FOLDER - 1)] : NULL;
}

static bool page_has(const struct page *p, uint64_t cluster)
{
    uint64_t bit = cluster & (PAGE - 1);
    if (!p || !p->words)
        return p && p->n == PAGE;
    return p->words[bit / 64] >> bit % 64 & 1;
}

static int make_page(struct coverage *c, uint32_t cluster, struct page **ret,
                     struct platter_error *err)
{
    struct page **folder = &c->folders[cluster >> (PAGE_BITS + FOLDER_BITS)];
    int r = 0;

    if (!*folder)
        r = budget_alloc(c->budget, FOLDER * sizeof **folder, "a map of clusters", folder, err);
    if (r < 0)
        return r;
    *ret = page_of(c, cluster);
    if ((*ret)->words)
        return 0;
    return budget_alloc(c->budget, WORDS * sizeof(uint64_t), "a map of clusters", &(*ret)->words,
                        err);
}

int coverage_add(struct coverage *c, uint32_t cluster, struct platter_error *err)
{
    struct page *p = page_of(c, cluster);
    uint32_t bit = cluster & (PAGE - 1);

    if (page_has(p, cluster))
        return 0;
    int r = p && p->words ? 0 : make_page(c, cluster, &p, err);
    if (r < 0)
        return r;
    p->words[bit / 64] |= UINT64_C(1) << bit % 64;
    if (++p->n == PAGE)
        budget_free(c->budget, TAKE(p->words), WORDS * sizeof(uint64_t));
    c->n++;
    c->end = max_u64(c->end, (uint64_t)cluster + 1);
    return 1;
}

bool coverage_has(const struct coverage *c, uint32_t cluster)
{
    return page_has(page_of(c, cluster), cluster);
}

uint64_t coverage_count(const struct coverage *c)
{
    return c->n;
}

uint64_t coverage_end(const struct coverage *c)
{
    return c->end;
}

/* How many clusters from `at` on are missing, or not, alike: as far as a word of its page tells. */
static uint64_t alike(const struct coverage *c, uint64_t at, bool *ret_missing)
{
    const struct page *p = page_of(c, at);
    uint64_t bit = at & (PAGE - 1);

    *ret_missing = !page_has(p, at);
    if (!p)
        return (FOLDER * (uint64_t)PAGE) - (at & (FOLDER * (uint64_t)PAGE - 1));
    if (!p->words)
        return PAGE - bit;
    uint64_t word = p->words[bit / 64] >> bit % 64;
    uint64_t others = *ret_missing ? word : ~word;
    return min_u64(others ? (unsigned)__builtin_ctzll(others) : 64, 64 - bit % 64);
}

uint64_t coverage_missing(const struct coverage *c, uint64_t from, uint64_t end,
                          uint64_t *ret_first)
{
    uint64_t found = 0, n;
    bool missing;

    for (uint64_t at = from; at < end; at += n) {
        n = min_u64(alike(c, at, &missing), end - at);
        if (!missing && found)
            break;
        if (missing && found == 0)
            *ret_first = at;
        found += missing ? n : 0;
    }
    return found;
}
