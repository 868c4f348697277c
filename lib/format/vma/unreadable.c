/* SPDX-License-Identifier: MIT */
#include "format/vma/unreadable.h"

#include <stdlib.h>
#include <string.h>

#include "base/ckd.h"
#include "base/memory.h"

enum {
    SECTOR = 512,
    /* Reads that may fail: minutes of a disk that tries hard. It bounds the number of parts, too.
     */
    MOST_FAILED = 1 << 16,
    STEP = 8 /* a part is left in steps of this share of what it is so far */
};

struct part {
    hoff start, end;
};

struct vma_unreadable {
    struct part *parts; /* ascending, apart from each other */
    size_t n, room;
    unsigned n_failed;
    size_t at_once; /* bytes that are tried first: fewer among parts that are close together */
};

/* A call of vma_unreadable_pread(). */
struct reading {
    struct vma_unreadable *all;
    struct stream *stream;
    uint64_t size;
    int code; /* of the last read that could not be done */
};

bool vma_is_unreadable(int code)
{
    static const int codes[] = {EIO,     EREMOTEIO, ENODATA, EILSEQ,
                                EBADMSG, EUCLEAN,   ENOLINK, ETIMEDOUT};
    for (unsigned i = 0; i < sizeof codes / sizeof *codes; i++)
        if (code == -codes[i])
            return true;
    return false;
}

/* ---- what is known -----------------------------------------------------------------------------
 */

/* How many parts end at `off` or in front of it. */
static size_t parts_before(const struct vma_unreadable *all, hoff off)
{
    size_t low = 0, high = all ? all->n : 0;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (all->parts[mid].end <= off)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

hoff vma_unreadable_find(const struct vma_unreadable *all, hoff start, hoff end, hoff *ret_start)
{
    size_t i = parts_before(all, start);
    if (!all || i == all->n || all->parts[i].start >= end)
        return 0;
    *ret_start = max_u64(all->parts[i].start, start);
    return min_u64(all->parts[i].end, end);
}

static int add_part(struct vma_unreadable *all, const struct part *part, struct platter_error *err)
{
    size_t i = parts_before(all, part->start);
    if (all->n == all->room) {
        size_t room = all->room ? 2 * all->room : 16;
        struct part *more = reallocarray(all->parts, room, sizeof *more);
        if (!more)
            return fail_memory(err, "what cannot be read of an archive");
        all->parts = more;
        all->room = room;
    }
    memmove(all->parts + i + 1, all->parts + i, (all->n - i) * sizeof *all->parts);
    all->parts[i] = *part;
    all->n++;
    return 0;
}

void vma_unreadable_free(struct vma_unreadable *all)
{
    if (all)
        free(all->parts);
    free(all);
}

/* ---- reading -----------------------------------------------------------------------------------
 */

/* One read: 1, 0 where it cannot be read, or negative. */
static int try_read(struct reading *t, void *buf, size_t len, hoff off, struct platter_error *err)
{
    struct platter_error why = {0};
    int r = stream_pread(t->stream, buf, len, off, &why);
    if (r == 0)
        return 1;
    if (!vma_is_unreadable(r))
        return fail(err, -r, "%s", why.message);
    t->code = -r;
    if (++t->all->n_failed <= MOST_FAILED)
        return 0;
    return fail(err, -r, "%s; after %d reads that failed no more are tried", why.message,
                MOST_FAILED);
}

static int try_sector(struct reading *t, hoff off, struct platter_error *err)
{
    uint8_t bytes[SECTOR];
    return try_read(t, bytes, (size_t)min_u64(SECTOR, t->size - off), off, err);
}

/* As much of `len` bytes as can be read from `off` on, in some pieces: *ret_len, 0 where the first
 * sector cannot. */
static int read_start(struct reading *t, void *buf, size_t len, hoff off, size_t *ret_len,
                      struct platter_error *err)
{
    int r = 0;
    *ret_len = 0;
    for (size_t n = (size_t)min_u64(len, t->all->at_once); n && r == 0;) {
        r = try_read(t, buf, n, off, err);
        if (r > 0)
            *ret_len = n;
        else if (r == 0) { /* half of it, in whole sectors */
            hoff end = max_u64(round_down(off + n / 2, SECTOR), round_down(off, SECTOR) + SECTOR);
            n = end < off + n ? (size_t)(end - off) : 0;
        }
        t->all->at_once = max_u64(SECTOR, r > 0 ? 2 * n : n);
    }
    return r < 0 ? r : 0;
}

/*
 * Where a part ends whose first sector, which ends at `bad`, cannot be read: steps over it grow
 * with it, so that a disk that is gone is asked some hundred times at most, and what is sound
 * between two such parts is found unless it is short beside them. Then the sector where it begins
 * is found by halves.
 */
static int find_end(struct reading *t, hoff start, hoff bad, hoff *ret_end,
                    struct platter_error *err)
{
    hoff good = t->size;
    int r = 0;
    while (bad < t->size) {
        hoff at = bad + max_u64(round_down((bad - start) / STEP, SECTOR), SECTOR) - SECTOR;
        r = at < t->size ? try_sector(t, at, err) : 1;
        if (r != 0) {
            good = min_u64(at, t->size);
            break;
        }
        bad = at + SECTOR;
    }
    while (r >= 0 && bad < good) {
        hoff at = bad + round_down((good - bad) / 2, SECTOR);
        r = try_sector(t, at, err);
        if (r > 0)
            good = at;
        else
            bad = at + SECTOR;
    }
    *ret_end = min_u64(good, t->size);
    return r < 0 ? r : 0;
}

/* A part that begins at `off`; it ends in front of the next one that is known. */
static int find_part(struct reading *t, hoff off, struct part *ret, struct platter_error *err)
{
    hoff next, bad = min_u64(round_down(off, SECTOR) + SECTOR, t->size);
    *ret = (struct part){.start = off};
    int r = find_end(t, off, bad, &ret->end, err);
    if (r == 0 && vma_unreadable_find(t->all, off, ret->end, &next))
        ret->end = next;
    return r < 0 ? r : add_part(t->all, ret, err);
}

int vma_unreadable_pread(struct vma_unreadable **all, struct stream *s, void *buf, size_t len,
                         hoff off, vma_unreadable_fn tell, void *opaque, struct platter_error *err)
{
    struct reading t = {.stream = s};
    struct part part;
    size_t n;

    if (!*all && !(*all = calloc(1, sizeof **all)))
        return fail_memory(err, "what cannot be read of an archive");
    t.all = *all;
    t.all->at_once = t.all->at_once ? t.all->at_once : len;
    int r = stream_size(s, &t.size, err);
    for (size_t done = 0; r == 0 && done < len; done += n) {
        const hoff at = off + done, all_end = off + len;
        hoff next = all_end, end = vma_unreadable_find(*all, at, all_end, &next);
        bool known = next == at;
        n = 0;
        if (!known)
            r = read_start(&t, (uint8_t *)buf + done, (size_t)(next - at), at, &n, err);
        if (r == 0 && n == 0 && !known) {
            r = find_part(&t, at, &part, err);
            if (r == 0)
                r = tell(opaque, part.start, part.end, t.code, err);
            end = min_u64(part.end, all_end);
        }
        if (r == 0 && n == 0) {
            n = (size_t)(end - at);
            memset((uint8_t *)buf + done, 0, n);
        }
    }
    return r;
}
