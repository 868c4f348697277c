/* SPDX-License-Identifier: MIT */
/* wreck.h: damage, and what it leaves. */
#include "model/wreck.h"

#include <string.h>

#include "support/must.h"

/* Whether `len` bytes at `at` are those from `off` of the whole archive but for one bit, which
 * their checksum tells. */
static bool is_near(const struct vmaimage *v, const struct vmaimage_wreck *w, uint64_t at, hoff off,
                    uint64_t len)
{
    unsigned wrong = 0;
    if (at > w->file.size || len > w->file.size - at)
        return false;
    for (uint64_t i = 0; i < len && wrong < 2; i++)
        wrong += (unsigned)__builtin_popcount(w->file.bytes[at + i] ^ v->file.bytes[off + i]);
    return wrong < 2;
}

/* The extent whose header stands at `at` of the damaged file. In its place behind another one, one
 * bit may be wrong. */
static const struct vmaimage_extent *extent_at(const struct vmaimage *v,
                                               const struct vmaimage_wreck *w, uint64_t at,
                                               bool in_place)
{
    /* A bit of one of the two is wrong at most. */
    if (at > w->file.size || w->file.size - at < VI_EXTENT ||
        (memcmp(w->file.bytes + at, "VM", 2) != 0 && memcmp(w->file.bytes + at + 2, "AE", 2) != 0))
        return NULL;
    for (size_t i = 0; i < v->n_extents; i++) {
        hoff off = v->extents[i].off;
        if (w->was[at] != (int32_t)off && w->was[at + 1] != (int32_t)off + 1)
            continue;
        if (wreck_is(w, at, off, VI_EXTENT) || (in_place && is_near(v, w, at, off, VI_EXTENT)))
            return &v->extents[i];
    }
    return NULL;
}

/* ---- what is left ------------------------------------------------------------------------------
 */

static struct remains *remains_of(struct oracle *o, uint8_t device)
{
    for (unsigned i = 0; i < o->n_disks; i++)
        if (o->disks[i].of->id == device)
            return &o->disks[i];
    MUST(false); /* a sound archive has no such slot */
    return NULL;
}

static void unpack(uint8_t *out, uint16_t mask, const uint8_t *stored)
{
    for (unsigned b = 0; b < VI_BLOCKS; b++)
        if (mask >> b & 1) {
            memcpy(out + b * VI_BLOCK, stored, VI_BLOCK);
            stored += VI_BLOCK;
        }
}

/* The next extent stands in the midst of the data of the one that `until` cuts short, so bytes of
 * that are gone: `cut`. */
static void take_slot(struct oracle *o, const struct vmaimage_slot *s,
                      const struct vmaimage_wreck *w, uint64_t at, uint64_t until, bool cut)
{
    struct remains *d = remains_of(o, s->device);
    unsigned blocks = (unsigned)__builtin_popcount(s->mask);

    if (blocks && at + (uint64_t)blocks * VI_BLOCK > until) {
        o->sound = false;
        return;
    }
    if (d->have[s->cluster] || (d->of->state && s->cluster != d->end))
        o->sound = false;
    if (d->have[s->cluster])
        return;
    d->have[s->cluster] = true;
    d->shifted[s->cluster] = cut && blocks && !wreck_is(w, at, s->off, (uint64_t)blocks * VI_BLOCK);
    if (d->of->state && d->end <= s->cluster)
        d->end = s->cluster + 1;
    unpack(d->content + (size_t)s->cluster * VI_CLUSTER, s->mask, w->file.bytes + at);
}

/* What of the extent lies in front of `until`. */
static void take_extent(struct oracle *o, const struct vmaimage_extent *e,
                        const struct vmaimage_wreck *w, uint64_t at, uint64_t until)
{
    bool cut = until < at + e->len && until < w->file.size;
    o->extents++;
    for (unsigned i = 0; i < VI_SLOTS; i++)
        if (e->slots[i].device)
            take_slot(o, &e->slots[i], w, at + (e->slots[i].off - e->off), until, cut);
}

/* An extent at which the chain breaks is followed by no other: the next may stand inside of what
 * its own data was to be, and then its data ends there. */
static uint64_t where_it_ends(const struct vmaimage *v, const struct vmaimage_wreck *w, uint64_t at,
                              const struct vmaimage_extent *e)
{
    uint64_t end = at + e->len;

    if (end == w->file.size || extent_at(v, w, end, true))
        return end;
    for (uint64_t i = at + VI_EXTENT; i < end && i < w->file.size; i++)
        if (extent_at(v, w, i, false))
            return i;
    return end < w->file.size ? end : w->file.size;
}

static void walk(struct oracle *o, const struct vmaimage *v, const struct vmaimage_wreck *w)
{
    bool in_place = is_near(v, w, 0, 0, v->header_size);
    uint64_t at = in_place ? v->header_size : 0;

    while (at < w->file.size) {
        const struct vmaimage_extent *e = extent_at(v, w, at, in_place);
        if (!e) {
            o->sound = in_place = false;
            at++;
            continue;
        }
        uint64_t end = where_it_ends(v, w, at, e);
        if (end != at + e->len || !wreck_is(w, at, e->off, VI_EXTENT))
            o->sound = false;
        take_extent(o, e, w, at, end);
        in_place = end == at + e->len;
        at = end;
    }
}

void oracle_make(struct oracle *o, const struct vmaimage *v, const struct vmaimage_wreck *w)
{
    *o = (struct oracle){.header = wreck_is(w, 0, 0, v->header_size), .n_disks = v->n_disks};
    o->sound = o->header;
    for (unsigned i = 0; i < v->n_disks; i++) {
        const struct vmaimage_disk *d = &v->disks[i];
        o->disks[i] = (struct remains){.of = d,
                                       .end = d->state ? 0 : d->clusters,
                                       .have = calloc(d->clusters + 1, sizeof(bool)),
                                       .shifted = calloc(d->clusters + 1, sizeof(bool)),
                                       .content = calloc(d->clusters + 1, VI_CLUSTER)};
        MUST(o->disks[i].have && o->disks[i].shifted && o->disks[i].content);
    }
    walk(o, v, w);
    for (unsigned i = 0; i < v->n_disks; i++)
        for (uint32_t c = 0; c < o->disks[i].end; c++)
            o->sound &= o->disks[i].have[c];
}

void oracle_free(struct oracle *o)
{
    for (unsigned i = 0; i < o->n_disks; i++) {
        free(o->disks[i].have);
        free(o->disks[i].shifted);
        free(o->disks[i].content);
    }
}

/* ---- damage ------------------------------------------------------------------------------------
 */

struct place {
    const struct vmaimage_extent *extent;
    uint64_t at;
};

/* One of the extents that are still there. */
static bool pick(const struct vmaimage *v, const struct vmaimage_wreck *w, struct prng *p,
                 struct place *ret)
{
    size_t n = 0;
    for (uint64_t at = 0; at < w->file.size; at++) {
        const struct vmaimage_extent *e = extent_at(v, w, at, false);
        if (e && at + e->len <= w->file.size && prng_below(p, ++n) == 0)
            *ret = (struct place){e, at};
    }
    return n > 0;
}

/* Junk that looks like something: bytes, zeros, magics, an extent of another archive. */
static void insert_junk(struct vmaimage_wreck *w, struct prng *p, hoff at, bool *ret_foreign)
{
    uint8_t foreign[VI_EXTENT];
    uint64_t len = prng_chance(p, 50) ? 512 * (1 + prng_below(p, 20)) : 1 + prng_below(p, 600000);

    wreck_insert(w, at, NULL, len, p);
    if (prng_chance(p, 30)) {
        void *zeros = calloc(1, len);
        MUST(zeros);
        wreck_overwrite(w, at, zeros, len, p);
        free(zeros);
    }
    if (prng_chance(p, 40))
        wreck_overwrite(w, at + prng_below(p, len > 4 ? len - 3 : 1), "VMAE", len < 4 ? len : 4, p);
    if (len >= VI_EXTENT && prng_chance(p, 40)) {
        vmaimage_foreign_extent(p, foreign);
        wreck_overwrite(w, at + prng_below(p, len - VI_EXTENT + 1), foreign, VI_EXTENT, p);
        *ret_foreign = true;
    }
}

/* Often one byte, at most what is there. */
static uint64_t random_length(const struct vmaimage_wreck *w, struct prng *p, uint64_t at)
{
    uint64_t len = prng_chance(p, 40) ? 1 : 1 + prng_below(p, 300000);
    return len < w->file.size - at ? len : w->file.size - at;
}

static void swap_places(struct vmaimage_wreck *w, struct place a, struct place b)
{
    if (a.at > b.at) {
        struct place c = a;
        a = b;
        b = c;
    }
    if (a.at + a.extent->len <= b.at)
        wreck_swap(w, a.at, a.extent->len, b.at, b.extent->len);
}

/* Bytes come or go in the midst of data, so that the rest of it stands elsewhere. */
static void shift_data(struct vmaimage_wreck *w, struct prng *p, struct place a, bool away)
{
    uint64_t len = a.extent->len - VI_EXTENT, at, n;
    if (len == 0)
        return;
    at = prng_below(p, len);
    n = 1 + prng_below(p, prng_chance(p, 50) ? 600 : 100000);
    if (away)
        wreck_remove(w, a.at + VI_EXTENT + at, n < len - at ? n : len - at);
    else
        wreck_insert(w, a.at + VI_EXTENT + at, NULL, n, p);
}

/* Not in the size of a disk, which nothing else tells. */
static void flip_in_header(struct vmaimage_wreck *w, const struct vmaimage *v, struct prng *p)
{
    uint64_t at = prng_below(p, v->header_size);
    while (at >= VI_DEVICES_AT && at < VI_FIXED && at % 32 >= 8 && at % 32 < 16)
        at = prng_below(p, v->header_size);
    wreck_flip(w, at, (unsigned)prng_below(p, 8));
}

const char *wreck_something(struct vmaimage_wreck *w, const struct vmaimage *v, struct prng *p,
                            bool *ret_foreign)
{
    struct place a = {0}, b = {0};
    if (!pick(v, w, p, &a) || !pick(v, w, p, &b))
        return "nothing is left to damage";
    uint64_t behind = w->file.size - a.at, at;
    switch (prng_below(p, 15)) {
    case 0:
        flip_in_header(w, v, p);
        return "a flip in the header";
    case 1:
    case 2:
        wreck_flip(w, a.at + prng_below(p, VI_EXTENT), (unsigned)prng_below(p, 8));
        return "a flip in the header of an extent";
    case 3:
        wreck_flip(w, a.at + prng_below(p, behind), (unsigned)prng_below(p, 8));
        return "a flip anywhere behind the header";
    case 4:
        wreck_cut(w, a.at + prng_below(p, behind));
        return "cut short anywhere";
    case 5:
        wreck_cut(w, a.at);
        return "cut short behind an extent";
    case 6:
        wreck_remove(w, a.at, a.extent->len);
        return "an extent less";
    case 7:
        wreck_repeat(w, a.at, a.extent->len, b.at);
        return "an extent once more";
    case 8:
        insert_junk(w, p, a.at, ret_foreign);
        return "junk between extents";
    case 9:
        insert_junk(w, p, w->file.size, ret_foreign);
        return "junk at the end";
    case 10:
        at = a.at + prng_below(p, behind);
        wreck_overwrite(w, at, NULL, random_length(w, p, at), p);
        return "a range overwritten";
    case 11:
        at = a.at + prng_below(p, behind);
        wreck_remove(w, at, random_length(w, p, at));
        return "a range less";
    case 12:
        shift_data(w, p, a, true);
        return "bytes gone from data";
    case 13:
        shift_data(w, p, a, false);
        return "bytes put into data";
    default:
        swap_places(w, a, b);
        return "two extents that changed places";
    }
}
