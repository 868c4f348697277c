/* SPDX-License-Identifier: MIT */
/* Where the pieces of a compressed file stand, and looking for them. */
#include <string.h>

#include "base/ckd.h"
#include "stream/unpacked.h"

enum {
    FIRST_ROOM = 256,
    SPAN_TARGET = 256 << 10, /* smaller ones are not worth being unpacked one by one */
    SHORT_SKIP = 64 << 10
};

void spans_init(struct spans *s, struct budget *budget)
{
    *s = (struct spans){.budget = budget, .target = SPAN_TARGET, .most = unpacked_most(budget)};
}

void spans_free(struct spans *s)
{
    budget_free(s->budget, s->all, s->room * sizeof *s->all);
    s->all = NULL;
    s->n = s->room = 0;
}

struct span spans_end(const struct spans *s)
{
    return s->all ? s->all[s->n] : (struct span){0};
}

/* Whether what lies between two places may be one piece, if it is not longer than `plain`. */
static bool fits(const struct spans *s, struct span from, struct span to, uint64_t plain)
{
    uint64_t inside = to.plain - from.plain, of_file = to.packed - from.packed;
    return inside <= plain && inside <= s->most && of_file <= s->most - inside;
}

/* Puts neighbours together until there is half the number, or nothing more can be done. */
static void thin(struct spans *s)
{
    uint64_t before = s->n;
    while (s->n > before / 2 && s->target < s->most) {
        uint64_t to = 0;
        s->target *= 2;
        for (uint64_t i = 1; i <= s->n; i++) {
            /* What holds nothing stays alone. */
            bool one = to > 0 && s->all[i].plain > s->all[to].plain &&
                       s->all[to].plain > s->all[to - 1].plain &&
                       fits(s, s->all[to - 1], s->all[i], s->target);
            s->all[one ? to : ++to] = s->all[i];
        }
        s->n = to;
    }
}

static int grow(struct spans *s, struct platter_error *err)
{
    uint64_t room = s->room ? 2 * s->room : FIRST_ROOM, bytes = room * sizeof *s->all;
    struct span *all = NULL;
    if (bytes > unpacked_most_index(s->budget)) {
        thin(s);
        return s->n + 1 < s->room ? 0 : -E2BIG;
    }
    int r = budget_alloc(s->budget, bytes, "the index of a compressed file", &all, err);
    if (r < 0)
        return r;
    if (s->all)
        memcpy(all, s->all, (s->n + 1) * sizeof *all);
    budget_free(s->budget, s->all, s->room * sizeof *all);
    s->all = all;
    s->room = room;
    return 0;
}

static int append(struct spans *s, struct span end, struct platter_error *err)
{
    int r = s->n + 1 < s->room ? 0 : grow(s, err);
    if (r == 0)
        s->all[++s->n] = end;
    return r;
}

int spans_add(struct spans *s, uint64_t plain, uint64_t packed, struct platter_error *err)
{
    struct span last = spans_end(s), end;
    if (ckd_add(&end.plain, last.plain, plain) || ckd_add(&end.packed, last.packed, packed) ||
        end.plain > INT64_MAX || !fits(s, last, end, s->most))
        return -E2BIG;
    if (s->n == 0 || last.plain == s->all[s->n - 1].plain ||
        !fits(s, s->all[s->n - 1], end, s->target))
        return append(s, end, err);
    s->all[s->n] = end;
    return 0;
}

int spans_skip(struct spans *s, uint64_t packed, struct platter_error *err)
{
    struct span end = spans_end(s);
    if (ckd_add(&end.packed, end.packed, packed))
        return -E2BIG;
    /* It goes with the piece before it if it is short, or with what holds nothing either. */
    bool joins = s->n > 0 && (s->all[s->n - 1].plain == end.plain ||
                              (packed <= SHORT_SKIP && fits(s, s->all[s->n - 1], end, s->most)));
    if (!joins)
        return append(s, end, err);
    s->all[s->n] = end;
    return 0;
}

void spans_most(const struct spans *s, uint64_t *ret_plain, uint64_t *ret_packed)
{
    *ret_plain = *ret_packed = 0;
    for (uint64_t i = 0; i < s->n; i++) {
        uint64_t plain = s->all[i + 1].plain - s->all[i].plain;
        *ret_plain = max_u64(*ret_plain, plain);
        if (plain > 0)
            *ret_packed = max_u64(*ret_packed, s->all[i + 1].packed - s->all[i].packed);
    }
}

void spans_find(const struct spans *s, uint64_t plain, struct piece *ret)
{
    uint64_t low = 0, high = s->n; /* all[low] begins at `plain` or before, all[high] behind it */
    while (high - low > 1) {
        uint64_t middle = low + (high - low) / 2;
        if (s->all[middle].plain <= plain)
            low = middle;
        else
            high = middle;
    }
    *ret = (struct piece){.start = s->all[low].plain,
                          .len = s->all[low + 1].plain - s->all[low].plain,
                          .number = low};
}

int peephole_open(struct peephole *p, struct stream *s, struct platter_error *err)
{
    p->s = s;
    p->start = p->len = 0;
    return stream_size(s, &p->size, err);
}

int peephole_look(struct peephole *p, hoff off, size_t len, const uint8_t **ret, size_t *ret_len,
                  struct platter_error *err)
{
    *ret_len = off < p->size ? (size_t)min_u64(len, p->size - off) : 0;
    if (!range_inside(off - p->start, *ret_len, p->len)) {
        size_t n = off < p->size ? (size_t)min_u64(sizeof p->bytes, p->size - off) : 0;
        p->len = 0;
        int r = stream_pread(p->s, p->bytes, n, off, err);
        if (r < 0)
            return r;
        p->start = off;
        p->len = n;
    }
    *ret = p->bytes + (off - p->start);
    return 0;
}
