/* SPDX-License-Identifier: MIT */
/*
 * A disk that is filled from below (struct filling): fill what is absent, copy on read, and in the
 * end the cut.
 *
 * A fill is a write that any write of a guest beats: under the lock on the range it looks at what
 * the top image has, and stores whole units that have nothing. What is below does not change, so it
 * does not matter when its bytes were read; copy on read holds the lock over the read as well, so
 * that what many ask for is fetched once.
 *
 * An image whose units have parts (subclusters) may have some of them: such a unit is filled part
 * by part.
 */
#include <string.h>

#include "base/awake.h"
#include "base/ckd.h"
#include "disk/inside.h"

enum {
    READ_PIECE = 1 << 20, /* copy on read fetches at most so much at once */
    ZERO_PIECE = 1 << 30,
    BUSY_MS = 500 /* a guest that read below will read again */
};

int filling_touch(struct filling *f, struct platter_error *err)
{
    if (atomic_load(&f->is_touched))
        return 0;
    int r = f->touched(f->opaque, err);
    if (r == 0)
        atomic_store(&f->is_touched, true);
    return r;
}

bool filling_wants_way(const struct filling *f, bool *ret_now)
{
    *ret_now = atomic_load(&f->reading) > 0;
    return *ret_now || now_ns() - atomic_load(&f->read_at) < (uint64_t)BUSY_MS * UINT64_C(1000000);
}

int disk_check_no_target(const struct platter_disk *disk, const char *what,
                         struct platter_error *err)
{
    const struct image *top = disk_top(disk);
    size_t len = strlen(DISK_MIGRATION_MARK);
    if (!top->backing_name || strncmp(top->backing_name, DISK_MIGRATION_MARK, len) != 0)
        return 0;
    return fail(err, EBUSY,
                "%s: cannot %s: it is the target of a live migration that is not committed, and a "
                "part of it may still be in the source alone (platter migrate status)",
                top->stream->name, what);
}

/* ---- what is absent -------------------------------------------------------------------------- */

enum presence { PRESENT, ABSENT, MIXED };

/* What the top image has of the first units of [off, end), which begins at one; *ret_end: as far as
 * that is so. The range is held. */
static int look(struct image *top, goff off, goff end, enum presence *ret, goff *ret_end,
                struct platter_error *err)
{
    struct extent e;
    int r = top->format->map(top, off, end - off, &e, err);
    if (r < 0)
        return r;
    *ret = e.kind == EXTENT_BACKING ? ABSENT : PRESENT;
    *ret_end = off + e.len >= end ? end : round_down(off + e.len, top->unit);
    if (*ret_end <= off) {
        *ret = MIXED;
        *ret_end = min_u64(end, round_down(off, top->unit) + top->unit);
    }
    return 0;
}

static int plan_absent(struct disk_write *w, struct platter_error *err)
{
    goff end = w->off + w->len, next;
    int r = 0;
    for (goff off = w->off; off < end && r == 0; off = next) {
        enum presence presence = PRESENT;
        r = look(disk_top(w->disk), off, end, &presence, &next, err);
        if (r == 0 && presence == ABSENT)
            r = disk_write_plan(w, off, next - off, err);
        w->mixed |= presence == MIXED;
    }
    return r;
}

int disk_fill_begin(struct platter_disk *disk, goff off, uint64_t len, struct disk_write *w,
                    struct platter_error *err)
{
    *w = (struct disk_write){.disk = disk, .off = off, .len = len};
    int r = disk_check_writable(disk, "fill", 0, 0, err);
    if (r == 0)
        r = disk_check_range(disk, "fill", off, len, err);
    if (r < 0 || len == 0) {
        w->disk = NULL;
        return r;
    }
    r = disk_lock_units(disk, "fill", &w->hold, off, len, err);
    return r < 0 ? r : plan_absent(w, err);
}

/* Stores what is still absent, one part after the other: each may share a unit with the next. */
static int fill_parts(struct disk_write *w, const uint8_t *buf, struct platter_error *err)
{
    struct image *top = disk_top(w->disk);
    goff end = w->off + w->len;
    int r = 0;
    for (goff off = w->off; off < end && r == 0;) {
        struct extent e;
        r = top->format->map(top, off, end - off, &e, err);
        if (r == 0 && e.kind == EXTENT_BACKING) {
            struct disk_write part = {.disk = w->disk, .off = off, .len = e.len};
            r = disk_write_plan(&part, off, e.len, err);
            int e2 = disk_write_run(&part, r == 0 ? buf + (off - w->off) : NULL, err);
            r = r < 0 ? r : e2;
            free(part.steps);
        }
        off += r == 0 ? e.len : 0;
    }
    return r;
}

int disk_fill_end(struct disk_write *w, const void *buf, struct platter_error *err)
{
    if (!w->disk)
        return 0;
    int r = disk_write_run(w, buf, err);
    if (r == 0 && buf && w->mixed)
        r = fill_parts(w, buf, err);
    disk_write_done(w);
    return r;
}

/* The range is held. */
static int zero_absent(struct platter_disk *disk, goff off, goff end, struct platter_error *err)
{
    struct image *top = disk_top(disk);
    int r = 0;
    while (off < end && r == 0) {
        struct extent e;
        r = top->format->map(top, off, end - off, &e, err);
        if (r == 0 && e.kind == EXTENT_BACKING)
            r = disk_zero_held(disk, off, e.len, true, err);
        off += r == 0 ? e.len : 0;
    }
    return r;
}

int disk_fill_zero(struct platter_disk *disk, goff off, uint64_t len, struct platter_error *err)
{
    int r = disk_check_writable(disk, "fill", 0, 0, err);
    if (r == 0)
        r = disk_check_range(disk, "fill", off, len, err);
    for (uint64_t done = 0, n = 0; done < len && r == 0; done += n) {
        n = min_u64(len - done, ZERO_PIECE - (off + done) % ZERO_PIECE);
        struct disk_write w = {.disk = disk};
        r = disk_lock_units(disk, "fill", &w.hold, off + done, n, err);
        if (r == 0)
            r = zero_absent(disk, off + done, off + done + n, err);
        disk_write_done(&w);
    }
    return r;
}

/* The end of the disk counts as aligned. */
int disk_uncover(struct platter_disk *disk, goff off, uint64_t len, struct platter_error *err)
{
    const struct image *top = disk_top(disk);
    int r = disk_check_writable(disk, "uncover", off, len, err);
    if (r < 0 || len == 0)
        return r;
    if (!top->format->uncover)
        return fail(err, ENOTSUP, "%s: images of the %s format keep what they have",
                    top->stream->name, top->format->name);
    goff end = min_u64(round_up(off + len, top->unit), top->size);
    off = round_down(off, top->unit);
    for (uint64_t n = 0; off < end && r == 0; off += n) {
        n = min_u64(end - off, ZERO_PIECE - off % ZERO_PIECE);
        struct disk_write w = {.disk = disk};
        r = disk_lock_units(disk, "uncover", &w.hold, off, n, err);
        if (r == 0)
            r = top->format->uncover(disk_top(disk), off, n, err);
        disk_write_done(&w);
    }
    return r;
}

/* ---- copy on read ---------------------------------------------------------------------------- */

/* Fetches [off, end) of what is absent, whose range is held, and stores it. A target that takes no
 * more is no reason for a guest not to read. */
static int fetch(struct disk_write *w, goff off, goff end, struct platter_error *err)
{
    size_t len = (size_t)(end - off);
    auto_free uint8_t *bytes = malloc(len);
    if (!bytes)
        return 0; /* the read itself needs none */
    int r = disk_read_held(w->disk, bytes, len, off, err);
    if (r < 0)
        return r;
    struct disk_write part = {.disk = w->disk, .off = off, .len = len};
    int p = disk_write_plan(&part, off, len, NULL);
    disk_write_run(&part, p == 0 ? bytes : NULL, NULL);
    free(part.steps);
    return 0;
}

/* Whether a guest may have what he asked for although what is around it cannot be read: then the
 * read itself tells. A server that does not answer is not asked twice. */
static bool is_of_others(struct platter_disk *disk, int r, bool asked)
{
    if (asked || (r != -EIO && r != -PLATTER_ECORRUPT))
        return false;
    atomic_fetch_sub(&disk->filling->failed_reads, 1);
    return true;
}

/* Fetches the first piece of an absent run that begins at `off`; *ret_end: where it ends. */
static int fetch_piece(struct platter_disk *disk, goff off, uint64_t len, goff *ret_end,
                       struct platter_error *err)
{
    struct image *top = disk_top(disk);
    goff start = round_down(off, top->unit);
    goff end = min_u64(round_up(off + min_u64(len, READ_PIECE), top->unit), disk_size(disk));
    struct disk_write w = {.disk = disk, .off = start, .len = end - start};
    int r = disk_lock_units(disk, "read", &w.hold, start, end - start, err);
    enum presence presence = PRESENT;
    goff next;
    for (goff at = start; at < end && r == 0; at = next) {
        struct disk_extent x;
        r = look(top, at, end, &presence, &next, err);
        if (r < 0 || presence != ABSENT)
            continue;
        /* What is known to be zeros costs nothing to ask for again. */
        r = disk_map_held(disk, at, next - at, &x, err);
        bool zeros = r == 0 && x.e.kind == EXTENT_ZERO && x.e.len >= top->unit;
        next = zeros ? at + round_down(x.e.len, top->unit)
                     : min_u64(next, round_up(at + x.e.len, top->unit));
        if (r == 0 && !zeros)
            r = fetch(&w, at, next, err);
        if (r < 0 && is_of_others(disk, r, at >= off && next <= off + len))
            r = 0;
    }
    disk_write_done(&w);
    *ret_end = end;
    return r;
}

int disk_fill_for_read(struct platter_disk *disk, goff off, uint64_t len, struct platter_error *err)
{
    goff end = off + len;
    int r = 0;
    while (off < end && r == 0) {
        struct disk_extent x;
        if (atomic_load(&disk_top(disk)->poison) < 0)
            return 0;
        r = disk_map(disk, off, end - off, &x, err);
        if (r < 0)
            break;
        goff next = off + x.e.len;
        if (x.depth > 0 && x.present && x.e.kind != EXTENT_ZERO)
            r = fetch_piece(disk, off, x.e.len, &next, err);
        off = next;
    }
    return r;
}

/* ---- the chain ------------------------------------------------------------------------------- */

static void drop_below(struct platter_disk *disk)
{
    for (unsigned i = 1; i < disk->depth; i++) {
        unit_cache_drop(disk->cache, disk->chain[i], 0, UINT64_MAX);
        image_free(disk->chain[i]);
    }
    disk->depth = 1;
    disk_note_base(disk);
    disk->cut = false; /* it needs nothing of what its image may still name: the rest is zeros */
}

int disk_stand_alone(struct platter_disk *disk,
                     int (*cut)(struct image *top, void *opaque, struct platter_error *err),
                     void *opaque, struct platter_error *err)
{
    struct image *top = disk_top(disk);
    struct range_hold hold;
    range_lock_take(&disk->ranges, &hold, 0, UINT64_MAX, true);
    int r = disk_check_writable(disk, "change", 0, 0, err);
    if (r == 0)
        r = top->format->flush(top, err);
    if (r == 0)
        r = cut(top, opaque, err);
    if (r == 0)
        drop_below(disk);
    range_lock_give(&disk->ranges, &hold);
    return r;
}

int disk_stack_live(struct platter_disk *disk, struct platter_disk *below,
                    struct platter_error *err)
{
    struct range_hold hold;
    range_lock_take(&disk->ranges, &hold, 0, UINT64_MAX, true);
    drop_below(disk);
    disk_note_base(disk); /* it does need that, should there be no room for what comes */
    int r = disk_stack(disk, below, err);
    range_lock_give(&disk->ranges, &hold);
    return r;
}
