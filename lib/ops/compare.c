/* SPDX-License-Identifier: MIT */
/*
 * Compares what two guests would see.
 *
 * next() passes over what need not be read: ranges that are zero in both disks, or that both find
 * at the same place of the same file. work() compares a chunk; it never fails, but keeps what it
 * found, a difference or an error, until turn(), so that the answer is that of a reader from front
 * to back, the same in every run. next() leaves errors of the map to work() for that reason.
 *
 * Behind the end of the shorter disk there are zeros that nobody stores.
 */
#include <string.h>

#include "base/ckd.h"
#include "ops/ops.h"
#include "ops/pieces.h"
#include "ops/walk.h"

enum { SIDES = 2 };

/* What a range asks for, as bits. No bit: equal without a look. */
enum {
    NEED_A = 1u << 0, /* read a; where only this is set, b is zero */
    NEED_B = 1u << 1,
    NEED_VERDICT = 1u << 2 /* strict: stored in different ways */
};

/* What a worker has to say about its chunk. */
struct finding {
    enum platter_difference difference;
    goff offset;
    int failed; /* side, or -1 */
    int code;   /* 0, or why it failed */
    struct platter_error err;
};

struct compare {
    struct platter_disk *disks[SIDES];
    struct pieces pieces;
    struct walk *walk;
    bool strict;
    goff next;                   /* where the next chunk starts */
    struct finding *findings;    /* one for each worker */
    const struct finding *first; /* what ended the walk, or NULL */
};

/* Bytes that both disks have, and that the longer one has: as far as is known. */
static uint64_t common(const struct compare *cmp)
{
    return min_u64(disk_size(cmp->disks[0]), disk_size(cmp->disks[1]));
}

static uint64_t total(const struct compare *cmp)
{
    return max_u64(disk_size(cmp->disks[0]), disk_size(cmp->disks[1]));
}

/* ---- what to read ---------------------------------------------------------------------------- */

static int map_side(struct platter_disk *disk, goff off, uint64_t len, struct disk_extent *ret,
                    struct platter_error *err)
{
    uint64_t size = disk_size(disk);
    if (off >= size) {
        *ret = (struct disk_extent){.e = {.kind = EXTENT_ZERO, .len = len}};
        return 0;
    }
    int r = disk_map(disk, off, min_u64(len, size - off), ret, err);
    return r < 0 ? r : disk_find_holes(ret, err);
}

/* Whether two extents of one guest offset are the same bytes of the same file. */
static bool same_place(const struct compare *cmp, const struct disk_extent *a,
                       const struct disk_extent *b)
{
    bool stored = a->e.kind == EXTENT_DATA || a->e.kind == EXTENT_PACKED;
    if (!stored || a->e.kind != b->e.kind || a->e.off != b->e.off || a->e.sealed != b->e.sealed ||
        !stream_same_bytes(a->e.stream, b->e.stream))
        return false;
    return a->e.kind == EXTENT_DATA ||
           (a->e.unit_start == b->e.unit_start && a->e.unit_len == b->e.unit_len &&
            cmp->disks[0]->chain[a->depth]->format == cmp->disks[1]->chain[b->depth]->format);
}

static unsigned need_of(const struct compare *cmp, const struct disk_extent *a,
                        const struct disk_extent *b)
{
    if (cmp->strict && (a->present != b->present || a->e.kind != b->e.kind))
        return NEED_VERDICT;
    if (same_place(cmp, a, b))
        return 0;
    return (a->e.kind != EXTENT_ZERO ? NEED_A : 0) | (b->e.kind != EXTENT_ZERO ? NEED_B : 0);
}

/* What the first run of [off, off + len) asks for. A failure leaves the side in *ret_failed. */
static int need_at(const struct compare *cmp, goff off, uint64_t len, unsigned *ret_need,
                   uint64_t *ret_len, int *ret_failed, struct platter_error *err)
{
    struct disk_extent e[SIDES];
    for (int side = 0; side < SIDES; side++) {
        int r = map_side(cmp->disks[side], off, len, &e[side], err);
        if (r < 0) {
            *ret_failed = side;
            return r;
        }
    }
    *ret_need = need_of(cmp, &e[0], &e[1]);
    *ret_len = min_u64(e[0].e.len, e[1].e.len);
    return 0;
}

/* ---- a chunk --------------------------------------------------------------------------------- */

/* The first of n bytes that differ from those of `other`, or from zero where that is NULL. */
static size_t first_difference(const uint8_t *bytes, const uint8_t *other, size_t n)
{
    size_t i = 0;
    while (i < n && bytes[i] == (other != NULL ? other[i] : 0))
        i++;
    return i;
}

static void differs(const struct compare *cmp, struct finding *f, goff off)
{
    f->difference = off < common(cmp) ? PLATTER_CONTENT_DIFFERS : PLATTER_TAIL_DIFFERS;
    f->offset = off;
}

/* Reads what is needed of [off, off + len), at most a piece, and looks for a difference. */
static void compare_piece(struct compare *cmp, unsigned worker, unsigned need, goff off, size_t len,
                          struct walk_chunk *c)
{
    struct finding *f = &cmp->findings[worker];
    const uint8_t *bytes[SIDES] = {NULL, NULL};
    for (int side = 0; side < SIDES; side++) {
        if (!(need & ((unsigned)NEED_A << side)))
            continue;
        uint8_t *piece = pieces_of(&cmp->pieces, worker, (unsigned)side);
        f->code = disk_read(cmp->disks[side], piece, len, off, &f->err);
        if (f->code < 0) {
            f->failed = side;
            return;
        }
        c->moved += len;
        bytes[side] = piece;
    }
    const uint8_t *one = bytes[0] != NULL ? bytes[0] : bytes[1];
    const uint8_t *other = bytes[0] != NULL ? bytes[1] : NULL;
    if (other != NULL ? memcmp(one, other, len) != 0 : !is_zero(one, len))
        differs(cmp, f, off + first_difference(one, other, len));
}

/* How far, up to `most`, the need stays what it is at off, where it holds for `len` bytes. */
static uint64_t extend(const struct compare *cmp, goff off, unsigned need, uint64_t len,
                       uint64_t most)
{
    while (len < most) {
        unsigned more;
        uint64_t n;
        int failed;
        if (need_at(cmp, off + len, most - len, &more, &n, &failed, NULL) < 0 || more != need)
            break;
        len += n;
    }
    return min_u64(len, most);
}

/* Compares the first run of [off, end); *ret_len is how far that came. */
static void compare_run(struct compare *cmp, unsigned worker, goff off, goff end, uint64_t *ret_len,
                        struct walk_chunk *c)
{
    struct finding *f = &cmp->findings[worker];
    unsigned need;
    f->code = need_at(cmp, off, end - off, &need, ret_len, &f->failed, &f->err);
    if (f->code < 0 || need == 0)
        return;
    if (need & NEED_VERDICT) {
        f->difference = PLATTER_ALLOCATION_DIFFERS;
        f->offset = off;
        return;
    }
    /* A piece ends where pieces of the whole disk end: packed units are not cut in two. */
    uint64_t most = min_u64(cmp->pieces.len - (off & (cmp->pieces.len - 1)), end - off);
    *ret_len = extend(cmp, off, need, *ret_len, most);
    compare_piece(cmp, worker, need, off, (size_t)*ret_len, c);
}

/* ---- the walk -------------------------------------------------------------------------------- */

/* What has no size yet may get it now. */
static int reach(struct compare *cmp, goff off, struct platter_error *err)
{
    bool known;
    int r = 0;
    for (int side = 0; r == 0 && side < SIDES; side++)
        r = disk_reach(cmp->disks[side], off, &known, err);
    cmp->walk->total = total(cmp);
    return r;
}

static int compare_next(void *opaque, struct walk_chunk *ret, struct platter_error *err)
{
    struct compare *cmp = opaque;
    unsigned need = 0;
    uint64_t len = 0;
    int failed;
    uint64_t chunk = max_u64(WALK_CHUNK, cmp->pieces.len);
    for (;; cmp->next += len) {
        int r = reach(cmp, cmp->next + chunk, err);
        if (r < 0)
            return r;
        if (cmp->next >= total(cmp) ||
            need_at(cmp, cmp->next, total(cmp) - cmp->next, &need, &len, &failed, NULL) < 0 ||
            need != 0)
            break;
    }
    ret->off = cmp->next;
    ret->len = min_u64(chunk - (cmp->next & (chunk - 1)), total(cmp) - cmp->next);
    cmp->next += ret->len;
    return ret->len > 0;
}

static int compare_work(void *opaque, unsigned worker, struct walk_chunk *c,
                        struct platter_error *err)
{
    struct compare *cmp = opaque;
    struct finding *f = &cmp->findings[worker];
    (void)err;
    *f = (struct finding){.failed = -1};
    goff end = c->off + c->len;
    uint64_t n = 0;
    for (goff off = c->off; off < end && f->code == 0 && f->difference == PLATTER_SAME; off += n)
        compare_run(cmp, worker, off, end, &n, c);
    return 0;
}

static int compare_turn(void *opaque, unsigned worker, struct walk_chunk *c,
                        struct platter_error *err)
{
    struct compare *cmp = opaque;
    struct finding *f = &cmp->findings[worker];
    (void)c;
    if (f->code == 0 && f->difference == PLATTER_SAME)
        return 0;
    cmp->first = f;
    if (f->code < 0 && err != NULL)
        *err = f->err;
    return f->code < 0 ? f->code : fail(err, ECANCELED, "a difference was found");
}

static void compare_interrupt(void *opaque)
{
    const struct compare *cmp = opaque;
    disk_interrupt(cmp->disks[0]);
    disk_interrupt(cmp->disks[1]);
}

static int compare_walk(struct compare *cmp, const struct platter_compare_options *options,
                        struct platter_error *err)
{
    static const struct walk_ops ops = {
        .next = compare_next, .work = compare_work, .turn = compare_turn};
    struct walk walk = {.ops = &ops,
                        .opaque = cmp,
                        .workers = cmp->pieces.workers,
                        .total = total(cmp),
                        .progress = options->progress,
                        .progress_opaque = options->opaque};
    if (disk_requests(cmp->disks[0]) || disk_requests(cmp->disks[1]))
        walk.interrupt = compare_interrupt;
    cmp->walk = &walk;
    cmp->findings = calloc(cmp->pieces.workers, sizeof *cmp->findings);
    if (cmp->findings == NULL)
        return fail_memory(err, "the findings of a comparison");
    int r = walk_run(&walk, err);
    /* A difference ends the walk like a failure, but is none. */
    return cmp->first != NULL && cmp->first->code == 0 ? 0 : r;
}

int ops_compare(struct platter_disk *a, struct platter_disk *b,
                const struct platter_compare_options *options,
                enum platter_difference *ret_difference, uint64_t *ret_offset, int *ret_failed,
                struct platter_error *err)
{
    struct compare cmp = {.disks = {a, b}, .strict = options->flags & PLATTER_COMPARE_STRICT};
    *ret_difference = PLATTER_SAME;
    *ret_offset = 0;
    *ret_failed = -1;
    if (cmp.strict && (disk_window(a) || disk_window(b)))
        return fail(err, ENOTSUP,
                    "%s: what can only be read front to back does not tell how it is stored",
                    disk_top(disk_window(a) ? a : b)->stream->name);
    if (cmp.strict && common(&cmp) != total(&cmp)) {
        *ret_difference = PLATTER_SIZE_DIFFERS;
        return 0;
    }
    unsigned requests = (unsigned)max_u64(disk_requests(a), disk_requests(b));
    unsigned workers = options->workers;
    for (int side = 0; side < SIDES; side++)
        if (disk_window(cmp.disks[side]))
            workers = walk_workers_within(walk_workers(workers, requests),
                                          disk_window(cmp.disks[side]), WALK_CHUNK);
    int r = pieces_open(&cmp.pieces, cmp.disks, SIDES, workers, err);
    if (r == 0)
        r = compare_walk(&cmp, options, err);
    for (int side = 0; side < SIDES && r == 0; side++)
        r = disk_unchanged(cmp.disks[side], err);
    if (cmp.first != NULL) {
        *ret_difference = cmp.first->difference;
        *ret_offset = cmp.first->offset;
        *ret_failed = cmp.first->failed;
    }
    pieces_close(&cmp.pieces);
    free(cmp.findings);
    return r;
}
