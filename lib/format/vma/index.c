/* SPDX-License-Identifier: MIT */
#include "format/vma/index.h"

#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"

enum {
    CHUNK_BITS = 12, /* clusters that are looked up together: 256 MiB of a disk */
    CHUNK = 1 << CHUNK_BITS,
    PAGE_BITS = 10, /* chunks that are allocated together */
    PAGE = 1 << PAGE_BITS,
    PAGES = 1 << (32 - CHUNK_BITS - PAGE_BITS),
    FEW_RUNS = 8,
    MOST_RUNS = 1024, /* beyond that an array is faster, and soon smaller */
    FEW = 64
};

#define NOWHERE UINT32_MAX

/* Clusters first .. first + n - 1 of a chunk have ordinals that go up by one, too. */
struct run {
    uint16_t first, n;
    uint32_t ordinal;
};

struct chunk {
    struct run *runs;   /* ascending; NULL: there are none, or there is an array */
    uint32_t *ordinals; /* CHUNK of them, NOWHERE where none is; or NULL */
    uint16_t n_runs, room;
};

/* An extent that has clusters of a device. */
struct part {
    uint32_t extent, ordinal; /* its number, and that of its first cluster */
};

struct device {
    struct chunk *pages[PAGES]; /* PAGE of them each, or NULL */
    struct part *parts;
    uint32_t n_parts, room_parts;
    uint32_t n; /* ordinals so far */
};

struct vma_index {
    struct budget *budget;
    struct device *devices[VMA_DEVICES]; /* or NULL */
    uint64_t *extents;                   /* their offsets */
    uint32_t n_extents, room_extents;
};

static const char what[] = "the index of an archive";

/* ---- life --------------------------------------------------------------------------------------
 */

int vma_index_new(struct budget *budget, struct vma_index **ret, struct platter_error *err)
{
    int r = budget_alloc(budget, sizeof **ret, what, ret, err);
    if (r == 0)
        (*ret)->budget = budget;
    return r;
}

static void chunk_free(struct budget *budget, struct chunk *c)
{
    budget_free(budget, c->runs, c->room * sizeof *c->runs);
    budget_free(budget, c->ordinals, CHUNK * sizeof *c->ordinals);
}

static void device_free(struct budget *budget, struct device *d)
{
    for (unsigned i = 0; d && i < PAGES; i++) {
        for (unsigned k = 0; d->pages[i] && k < PAGE; k++)
            chunk_free(budget, &d->pages[i][k]);
        budget_free(budget, d->pages[i], PAGE * sizeof **d->pages);
    }
    if (d)
        budget_free(budget, d->parts, d->room_parts * sizeof *d->parts);
    budget_free(budget, d, sizeof *d);
}

void vma_index_free(struct vma_index *x)
{
    if (!x)
        return;
    for (unsigned i = 0; i < VMA_DEVICES; i++)
        device_free(x->budget, x->devices[i]);
    budget_free(x->budget, x->extents, x->room_extents * sizeof *x->extents);
    budget_free(x->budget, x, sizeof *x);
}

/* Room for one more of `size` bytes each in the array that a pointer at `array` has: doubled. */
static int grow(struct budget *budget, void *array, uint32_t n, uint32_t *room, size_t size,
                struct platter_error *err)
{
    void *old, *more;
    uint32_t wanted = *room ? *room * 2 : FEW;

    if (n < *room)
        return 0;
    if (wanted < *room)
        return fail(err, EFBIG, "an archive of more than 2147483648 extents");
    int r = budget_alloc(budget, wanted * (uint64_t)size, what, &more, err);
    if (r < 0)
        return r;
    memcpy(&old, array, sizeof old);
    if (n)
        memcpy(more, old, n * size);
    budget_free(budget, old, *room * (uint64_t)size);
    memcpy(array, &more, sizeof more);
    *room = wanted;
    return 0;
}

/* ---- chunks ------------------------------------------------------------------------------------
 */

/* How many runs begin at `at` or before. */
static unsigned runs_until(const struct chunk *c, uint32_t at)
{
    unsigned low = 0, high = c->n_runs;
    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        if (c->runs[middle].first <= at)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static uint32_t chunk_find(const struct chunk *c, uint32_t at)
{
    if (c->ordinals)
        return c->ordinals[at];
    unsigned i = runs_until(c, at);
    if (i == 0 || at - c->runs[i - 1].first >= c->runs[i - 1].n)
        return NOWHERE;
    return c->runs[i - 1].ordinal + (at - c->runs[i - 1].first);
}

/* Runs become an array. */
static int unroll(struct budget *budget, struct chunk *c, struct platter_error *err)
{
    uint32_t *ordinals;
    int r = budget_alloc(budget, CHUNK * sizeof *ordinals, what, &ordinals, err);
    if (r < 0)
        return r;
    for (uint32_t at = 0; at < CHUNK; at++)
        ordinals[at] = chunk_find(c, at);
    budget_free(budget, TAKE(c->runs), c->room * sizeof *c->runs);
    c->ordinals = ordinals;
    c->n_runs = c->room = 0;
    return 0;
}

/* Room for one more run, or an array. */
static int chunk_grow(struct budget *budget, struct chunk *c, struct platter_error *err)
{
    struct run *more;
    uint16_t room = c->room ? (uint16_t)(c->room * 2) : FEW_RUNS;

    if (c->n_runs < c->room || c->ordinals)
        return 0;
    if (c->n_runs == MOST_RUNS)
        return unroll(budget, c, err);
    int r = budget_alloc(budget, room * sizeof *more, what, &more, err);
    if (r < 0)
        return r;
    if (c->n_runs)
        memcpy(more, c->runs, c->n_runs * sizeof *more);
    budget_free(budget, c->runs, c->room * sizeof *c->runs);
    c->runs = more;
    c->room = room;
    return 0;
}

static int chunk_add(struct budget *budget, struct chunk *c, uint32_t at, uint32_t ordinal,
                     struct platter_error *err)
{
    unsigned i = runs_until(c, at);
    struct run *before = i ? &c->runs[i - 1] : NULL;

    if (before && before->first + before->n == (int)at && before->ordinal + before->n == ordinal) {
        before->n++;
        return 0;
    }
    int r = chunk_grow(budget, c, err);
    if (r < 0)
        return r;
    if (c->ordinals) {
        c->ordinals[at] = ordinal;
        return 0;
    }
    memmove(c->runs + i + 1, c->runs + i, (c->n_runs - i) * sizeof *c->runs);
    c->runs[i] = (struct run){(uint16_t)at, 1, ordinal};
    c->n_runs++;
    return 0;
}

static struct chunk *chunk_of(const struct device *d, uint32_t cluster)
{
    struct chunk *page = d ? d->pages[cluster >> (CHUNK_BITS + PAGE_BITS)] : NULL;
    return page ? &page[cluster >> CHUNK_BITS & (PAGE - 1)] : NULL;
}

/* The chunk of a cluster, made if it is not there. */
static int chunk_make(struct vma_index *x, struct device *d, uint32_t cluster, struct chunk **ret,
                      struct platter_error *err)
{
    struct chunk **page = &d->pages[cluster >> (CHUNK_BITS + PAGE_BITS)];
    int r = *page ? 0 : budget_alloc(x->budget, PAGE * sizeof **page, what, page, err);
    *ret = r == 0 ? chunk_of(d, cluster) : NULL;
    return r;
}

/* ---- entering ----------------------------------------------------------------------------------
 */

/* The device of a slot of the extent that is being entered. */
static int device_make(struct vma_index *x, unsigned number, struct device **ret,
                       struct platter_error *err)
{
    struct device **d = &x->devices[number];
    int r = *d ? 0 : budget_alloc(x->budget, sizeof **d, what, d, err);
    if (r == 0 && ((*d)->n_parts == 0 || (*d)->parts[(*d)->n_parts - 1].extent != x->n_extents)) {
        r = grow(x->budget, &(*d)->parts, (*d)->n_parts, &(*d)->room_parts, sizeof *(*d)->parts,
                 err);
        if (r == 0)
            (*d)->parts[(*d)->n_parts++] = (struct part){x->n_extents, (*d)->n};
    }
    *ret = *d;
    return r;
}

static int add_slot(struct vma_index *x, const struct vma_slot *s, struct platter_error *err)
{
    struct device *d;
    struct chunk *c;

    int r = device_make(x, s->device, &d, err);
    if (r == 0)
        r = chunk_make(x, d, s->cluster, &c, err);
    if (r < 0)
        return r;
    if (chunk_find(c, s->cluster & (CHUNK - 1)) != NOWHERE)
        return fail(err, PLATTER_ECORRUPT,
                    "cluster %" PRIu32 " of device %u is there a second time", s->cluster,
                    s->device);
    if (d->n == NOWHERE)
        return fail(err, PLATTER_ECORRUPT, "device %u has more clusters than there can be",
                    s->device);
    r = chunk_add(x->budget, c, s->cluster & (CHUNK - 1), d->n, err);
    d->n += r == 0;
    return r;
}

int vma_index_add(struct vma_index *x, uint64_t off, const struct vma_extent *e,
                  struct platter_error *err)
{
    bool used = false;
    int r = grow(x->budget, &x->extents, x->n_extents, &x->room_extents, sizeof *x->extents, err);

    for (unsigned i = 0; r == 0 && i < VMA_SLOTS; i++) {
        const struct vma_slot *s = &e->slots[i];
        if (s->device == 0)
            continue;
        used = true;
        r = add_slot(x, s, err);
    }
    if (used && (r == 0 || r == -PLATTER_ECORRUPT))
        x->extents[x->n_extents++] = off;
    return r;
}

/* ---- asking ------------------------------------------------------------------------------------
 */

bool vma_index_find(const struct vma_index *x, unsigned device, uint32_t cluster, uint64_t *ret_off)
{
    const struct device *d = x->devices[device];
    const struct chunk *c = chunk_of(d, cluster);
    uint32_t ordinal = c ? chunk_find(c, cluster & (CHUNK - 1)) : NOWHERE;
    uint32_t low = 0, high;

    if (ordinal == NOWHERE)
        return false;
    /* The last part that begins at the ordinal or before. */
    for (high = d->n_parts; high - low > 1;) {
        uint32_t middle = low + (high - low) / 2;
        if (d->parts[middle].ordinal <= ordinal)
            low = middle;
        else
            high = middle;
    }
    *ret_off = x->extents[d->parts[low].extent];
    return true;
}

uint64_t vma_index_count(const struct vma_index *x, unsigned device)
{
    return x->devices[device] ? x->devices[device]->n : 0;
}

bool vma_index_next(const struct vma_index *x, unsigned device, uint64_t *cluster)
{
    const struct device *d = x->devices[device];
    uint64_t at = *cluster;

    while (d && at <= UINT32_MAX) {
        const struct chunk *c = chunk_of(d, (uint32_t)at);
        if (!c) {
            at = round_down(at, CHUNK * PAGE) + CHUNK * PAGE;
        } else if (!c->ordinals && c->n_runs == 0) {
            at = round_down(at, CHUNK) + CHUNK;
        } else if (chunk_find(c, at & (CHUNK - 1)) == NOWHERE) {
            at++;
        } else {
            *cluster = at;
            return true;
        }
    }
    return false;
}

uint32_t vma_index_extents(const struct vma_index *x)
{
    return x->n_extents;
}

uint64_t vma_index_extent(const struct vma_index *x, uint32_t i)
{
    return x->extents[i];
}
