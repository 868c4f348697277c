/* SPDX-License-Identifier: MIT */
/*
 * Writing, zeroing, discarding: rule 1 for every format alike.
 *
 * The guest range is locked out to whole allocation units, because a unit that is copied is read
 * and written as a whole (rule 4); by a unit on either side where nobody but the format knows where
 * they begin. Inside the lock: map; what may be overwritten in place is; for
 * the rest the format reserves room, the engine fills it (data, and around it what was there
 * before), and the format commits. Whatever fails is abandoned.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "disk/inside.h"

enum {
    /* Requests are cut into pieces of this size, so that a huge one does not lock the whole disk.
     */
    PIECE = 8 << 20,
    /* A unit up to this size is put together in memory and written at once. */
    BOUNCE = 256 << 10,
    /* Zeros are written in pieces of this size. */
    ZEROS = 64 << 10,
    /* mark() is asked for at most this much at once. */
    MARK_PIECE = 1 << 30
};

/* One part of a write: in place, or into reserved room. */
struct disk_write_step {
    goff off; /* of the request's bytes */
    uint64_t len;
    bool reserved;
    struct reservation room; /* reserved */
    struct stream *stream;   /* in place */
    hoff at;
};

int disk_check_writable(const struct platter_disk *disk, const char *what, goff off, uint64_t len,
                        struct platter_error *err)
{
    const struct image *top = disk_top(disk);
    if (!disk->writable)
        return fail(err, EROFS, "%s: is open for reading only", top->stream->name);
    int poison = atomic_load(&top->poison);
    if (poison < 0)
        return fail(
            err, -poison,
            "%s: takes no more writes, because an earlier write of its tables failed: close "
            "it, and check it",
            top->stream->name);
    int r = disk_check_range(disk, what, off, len, err);
    return r < 0 || len == 0 || !disk->filling ? r : filling_touch(disk->filling, err);
}

/* It may have come to lie behind the end of the disk while we waited for the lock. */
int disk_lock_units(struct platter_disk *disk, const char *what, struct range_hold *hold, goff off,
                    uint64_t len, struct platter_error *err)
{
    const struct image *top = disk_top(disk);
    goff start = round_down(off, top->unit), end = round_up(off + len, top->unit);
    if (top->askew) {
        start = off - min_u64(off, top->unit);
        end = off + len + top->unit;
    }
    range_lock_take(&disk->ranges, hold, start, end, true);
    return disk_check_range(disk, what, off, len, err);
}

static int add_step(struct disk_write *w, const struct disk_write_step *step,
                    struct platter_error *err)
{
    struct disk_write_step *steps = reallocarray(w->steps, w->n_steps + 1, sizeof *steps);
    if (!steps)
        return fail_memory(err, "a write");
    w->steps = steps;
    steps[w->n_steps++] = *step;
    return 0;
}

/* Where the top image has a range now, for writing. */
static int map_to_write(struct image *top, goff off, uint64_t len, struct extent *ret,
                        struct platter_error *err)
{
    if (!top->format->flat)
        return top->format->map(top, off, len, ret, err);
    *ret = (struct extent){
        .kind = EXTENT_DATA, .len = len, .in_place = true, .stream = top->stream, .off = off};
    return 0;
}

/* Plans the first part of [off, off + len). Returns its length, or a negative code. */
static int64_t plan_step(struct disk_write *w, goff off, uint64_t len, struct platter_error *err)
{
    struct image *top = disk_top(w->disk);
    struct extent e;
    int r = map_to_write(top, off, len, &e, err);
    if (r < 0)
        return r;
    struct disk_write_step step = {.off = off, .len = e.len};
    if (e.kind == EXTENT_DATA && e.in_place) {
        step.stream = e.stream;
        step.at = e.off;
    } else {
        /* All that is left is asked for, not just this extent: subclusters of different kinds in
         * one cluster must get one place, and only one reservation knows of it. */
        step.reserved = true;
        r = top->format->reserve(top, off, len, &step.room, err);
        if (r < 0)
            return r;
        step.len = min_u64(len, step.room.start + step.room.len - off);
    }
    r = add_step(w, &step, err);
    if (r < 0 && step.reserved)
        top->format->abandon(top, &step.room);
    return r < 0 ? r : (int64_t)step.len;
}

/* Tells dirty bitmaps of what is about to change. The range is held. */
static int disk_touch(struct platter_disk *disk, goff off, uint64_t len, struct platter_error *err)
{
    struct image *top = disk_top(disk);
    return top->format->bitmaps ? top->format->bitmaps->touch(top, off, len, err) : 0;
}

int disk_write_plan(struct disk_write *w, goff off, uint64_t len, struct platter_error *err)
{
    for (uint64_t done = 0; done < len;) {
        int64_t n = plan_step(w, off + done, len - done, err);
        if (n < 0)
            return (int)n;
        done += (uint64_t)n;
    }
    return 0;
}

/* Plans all of w->off, w->len. The range is held. */
static int plan(struct disk_write *w, struct platter_error *err)
{
    int r = disk_touch(w->disk, w->off, w->len, err);
    return r < 0 ? r : disk_write_plan(w, w->off, w->len, err);
}

int disk_write_begin(struct platter_disk *disk, goff off, uint64_t len, struct disk_write *w,
                     struct platter_error *err)
{
    *w = (struct disk_write){.disk = disk, .off = off, .len = len};
    int r = disk_check_writable(disk, "write", off, len, err);
    if (r < 0 || len == 0) {
        w->disk = NULL;
        return r;
    }
    r = disk_lock_units(disk, "write", &w->hold, off, len, err);
    return r < 0 ? r : plan(w, err);
}

/* ---- filling reserved room ------------------------------------------------------------------- */

/* Puts the whole of a reservation together in memory and writes it. */
static int fill_bounced(struct platter_disk *disk, const struct disk_write_step *step,
                        const uint8_t *data, struct platter_error *err)
{
    const struct reservation *room = &step->room;
    size_t head = (size_t)(step->off - room->start);
    size_t tail = (size_t)(room->len - head - step->len);
    auto_free uint8_t *whole = malloc(room->len);
    if (!whole)
        return fail_memory(err, "a copied cluster");
    memcpy(whole + head, data, step->len);
    int r = disk_read_held(disk, whole, head, room->start, err);
    if (r == 0)
        r = disk_read_held(disk, whole + head + step->len, tail, step->off + step->len, err);
    return r < 0 ? r : stream_pwrite(room->stream, whole, room->len, room->off, err);
}

/* Copies [off, off + len) of what is there now into a reservation. */
static int fill_old(struct platter_disk *disk, const struct reservation *room, goff off,
                    uint64_t len, struct platter_error *err)
{
    if (len == 0)
        return 0;
    size_t n = (size_t)min_u64(len, BOUNCE);
    auto_free uint8_t *old = malloc(n);
    if (!old)
        return fail_memory(err, "a copied cluster");
    int r = 0;
    for (uint64_t done = 0; done < len && r == 0; done += n) {
        n = (size_t)min_u64(len - done, n);
        r = disk_read_held(disk, old, n, off + done, err);
        if (r == 0)
            r = stream_pwrite(room->stream, old, n, room->off + (off + done - room->start), err);
    }
    return r;
}

/* Whether nothing but zeros is known to stand in [off, end), at the end of the disk or before. */
static int holds_nothing(struct platter_disk *disk, goff off, goff end, bool *ret,
                         struct platter_error *err)
{
    end = min_u64(end, disk_size(disk));
    while (*ret && off < end) {
        struct disk_extent x;
        int r = disk_map_held(disk, off, end - off, &x, err);
        if (r < 0)
            return r;
        *ret = x.e.kind == EXTENT_ZERO;
        off += x.e.len;
    }
    return 0;
}

static int fill(struct platter_disk *disk, const struct disk_write_step *step, const uint8_t *data,
                struct platter_error *err)
{
    const struct reservation *room = &step->room;
    goff data_end = step->off + step->len;
    bool only_data = room->blank;
    int r = holds_nothing(disk, room->start, step->off, &only_data, err);
    if (r == 0)
        r = holds_nothing(disk, data_end, room->start + room->len, &only_data, err);
    if (r < 0)
        return r;
    if (only_data)
        return stream_pwrite(room->stream, data, step->len, room->off + (step->off - room->start),
                             err);
    if (room->len != step->len && room->len <= BOUNCE)
        return fill_bounced(disk, step, data, err);
    r = fill_old(disk, room, room->start, step->off - room->start, err);
    if (r == 0)
        r = fill_old(disk, room, data_end, room->start + room->len - data_end, err);
    if (r == 0)
        r = stream_pwrite(room->stream, data, step->len, room->off + (step->off - room->start),
                          err);
    return r;
}

static int run_step(struct disk_write *w, const struct disk_write_step *step, const uint8_t *data,
                    struct platter_error *err)
{
    struct image *top = disk_top(w->disk);
    if (!step->reserved && top->sealed)
        return sealed_write(top, step->stream, data, step->len, step->at, step->off, err);
    if (!step->reserved)
        return stream_pwrite(step->stream, data, step->len, step->at, err);
    const struct new_data new = {.off = step->off, .len = step->len, .bytes = data};
    int r =
        top->sealed ? sealed_fill(w->disk, &step->room, &new, err) : fill(w->disk, step, data, err);
    if (r < 0) {
        top->format->abandon(top, &step->room);
        return r;
    }
    return top->format->commit(top, &step->room, err);
}

void disk_write_done(struct disk_write *w)
{
    unit_cache_drop(w->disk->cache, disk_top(w->disk), w->hold.start, w->hold.end - w->hold.start);
    range_lock_give(&w->disk->ranges, &w->hold);
    free(TAKE(w->steps));
}

int disk_write_run(struct disk_write *w, const void *buf, struct platter_error *err)
{
    struct image *top = disk_top(w->disk);
    int r = buf ? 0 : -ECANCELED;
    for (unsigned i = 0; i < w->n_steps; i++) {
        const struct disk_write_step *step = &w->steps[i];
        if (r == 0)
            r = run_step(w, step, (const uint8_t *)buf + (step->off - w->off), err);
        else if (step->reserved)
            top->format->abandon(top, &step->room);
    }
    return buf ? r : 0;
}

int disk_write_end(struct disk_write *w, const void *buf, struct platter_error *err)
{
    if (!w->disk)
        return 0;
    int r = disk_write_run(w, buf, err);
    disk_write_done(w);
    return r;
}

int disk_write(struct platter_disk *disk, const void *buf, size_t len, goff off,
               struct platter_error *err)
{
    int r = disk_check_writable(disk, "write", off, len, err);
    for (size_t done = 0; done < len && r == 0;) {
        size_t n = (size_t)min_u64(len - done, PIECE);
        struct disk_write w;
        r = disk_write_begin(disk, off + done, n, &w, err);
        int e = disk_write_end(&w, r == 0 ? (const uint8_t *)buf + done : NULL, err);
        r = r < 0 ? r : e;
        done += n;
    }
    return r;
}

/* ---- packed units ---------------------------------------------------------------------------- */

int disk_write_packed_begin(struct platter_disk *disk, goff unit, size_t packed_len,
                            struct disk_write *w, struct platter_error *err)
{
    struct image *top = disk_top(disk);
    uint64_t len = unit < top->size ? min_u64(top->unit, top->size - unit) : 0;
    *w = (struct disk_write){.disk = disk, .off = unit, .len = len};
    int r = disk_check_writable(disk, "write", unit, len, err);
    if (r < 0 || len == 0) {
        w->disk = NULL;
        return r;
    }
    r = disk_lock_units(disk, "write", &w->hold, unit, len, err);
    struct disk_write_step step = {.off = unit, .len = len, .reserved = true};
    if (r == 0)
        r = disk_touch(disk, unit, len, err);
    if (r == 0)
        r = top->format->reserve_packed(top, unit, packed_len, &step.room, err);
    if (r < 0)
        return r;
    r = add_step(w, &step, err);
    if (r < 0)
        top->format->abandon(top, &step.room);
    return r;
}

int disk_write_packed_end(struct disk_write *w, const void *packed, size_t packed_len,
                          struct platter_error *err)
{
    if (!w->disk)
        return 0;
    struct image *top = disk_top(w->disk);
    int r = 0;
    if (w->n_steps > 0) {
        const struct reservation *room = &w->steps[0].room;
        if (packed)
            r = stream_pwrite(room->stream, packed, packed_len, room->off, err);
        if (packed && r == 0)
            r = top->format->commit(top, room, err);
        else
            top->format->abandon(top, room);
    }
    disk_write_done(w);
    return r;
}

/* ---- zero and discard ------------------------------------------------------------------------ */

int disk_write_held(struct platter_disk *disk, const void *buf, size_t len, goff off,
                    struct platter_error *err)
{
    struct disk_write w = {.disk = disk, .off = off, .len = len};
    int r = plan(&w, err);
    int e = disk_write_run(&w, r == 0 ? buf : NULL, err);
    free(w.steps);
    return r < 0 ? r : e;
}

/* Writes zeros where the range does not read as zeros already. The range is held. */
static int zero_by_writing(struct platter_disk *disk, goff off, uint64_t len,
                           struct platter_error *err)
{
    static const uint8_t zeros[ZEROS];
    int r = 0;
    while (len > 0 && r == 0) {
        struct disk_extent x;
        r = disk_map_held(disk, off, len, &x, err);
        if (r < 0)
            return r;
        if (x.e.kind != EXTENT_ZERO) {
            x.e.len = min_u64(x.e.len, ZEROS);
            r = disk_write_held(disk, zeros, x.e.len, off, err);
        }
        off += x.e.len;
        len -= x.e.len;
    }
    return r;
}

int disk_zero_held(struct platter_disk *disk, goff off, uint64_t len, bool unmap,
                   struct platter_error *err)
{
    struct image *top = disk_top(disk);
    goff end = off + len;
    goff from = round_up(off, top->unit);
    goff to = end == top->size ? end : round_down(end, top->unit);
    int r = disk_touch(disk, off, len, err);
    if (r < 0)
        return r;
    if (from >= to || !top->format->mark)
        return zero_by_writing(disk, off, len, err);
    r = zero_by_writing(disk, off, from - off, err);
    if (r == 0)
        r = top->format->mark(top, from, to - from, MARK_ZERO, unmap, err);
    if (r == -ENOTSUP)
        r = zero_by_writing(disk, from, to - from, err);
    return r < 0 ? r : zero_by_writing(disk, to, end - to, err);
}

int disk_zero(struct platter_disk *disk, goff off, uint64_t len, bool unmap,
              struct platter_error *err)
{
    int r = disk_check_writable(disk, "zero", off, len, err);
    for (uint64_t done = 0, n = 0; done < len && r == 0; done += n) {
        n = min_u64(len - done, MARK_PIECE - (off + done) % MARK_PIECE);
        struct disk_write w = {.disk = disk};
        r = disk_lock_units(disk, "zero", &w.hold, off + done, n, err);
        if (r == 0)
            r = disk_zero_held(disk, off + done, n, unmap, err);
        disk_write_done(&w);
    }
    return r;
}

int disk_discard(struct platter_disk *disk, goff off, uint64_t len, struct platter_error *err)
{
    int r = disk_check_writable(disk, "discard", off, len, err);
    struct image *top = disk_top(disk);
    goff end = off + len;
    off = round_up(off, top->unit);
    if (!top->format->mark)
        return r;
    while (off < end && r == 0) {
        uint64_t n = min_u64(end - off, MARK_PIECE - off % MARK_PIECE);
        struct disk_write w = {.disk = disk};
        r = disk_lock_units(disk, "discard", &w.hold, off, n, err);
        /* The end of the disk counts as aligned: where it is now, it may have moved before. */
        uint64_t whole = off + n == top->size ? n : round_down(n, top->unit);
        if (r == 0 && whole > 0)
            r = top->format->mark(top, off, whole, MARK_DISCARD, true, err);
        r = r == -ENOTSUP ? 0 : r;
        disk_write_done(&w);
        off += n;
    }
    return r;
}

int disk_flush(struct platter_disk *disk, struct platter_error *err)
{
    struct image *top = disk_top(disk);
    if (!disk->writable)
        return 0;
    int r = disk_check_writable(disk, "flush", 0, 0, err);
    if (r < 0)
        return r;
    struct range_hold hold;
    disk_pin(disk, &hold);
    r = top->format->flush(top, err);
    disk_unpin(disk, &hold);
    return r;
}
