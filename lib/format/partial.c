/* SPDX-License-Identifier: MIT */
/*
 * partial: a raw disk that is not complete yet, with its map of presence (format/partial.h).
 *
 * A bit of the map in memory (format/presence.h) stands for bytes of a unit that are complete, but
 * perhaps only in somebody's cache. It goes to the map's stream by way of a flush alone, which
 * first copies the sectors of the map that changed and then makes the data durable: so no bit is
 * ever written whose data was written after that began (rule 2). What a crash takes back is a bit,
 * and then the unit comes from below again, as before the write that was not flushed.
 *
 * What stands in the place of a unit that is absent is nobody's: a write that was cut off may have
 * left anything there. So it is never taken for zeros without asking the stream.
 */
#include "format/partial.h"

#include <assert.h>
#include <inttypes.h>

#include "base/ckd.h"
#include "format/presence.h"

enum {
    /* A server is asked which parts of the disk are holes only where so many bytes are to be zeros;
     * else it has less work with the zeros. */
    WORTH_ASKING = 16 << 20
};

struct partial {
    /* All under image->lock, but for what presence_write() looks at. */
    struct presence map;
    bool complete; /* partial_complete(): the map does not matter */
    /* One flush runs at a time. What was there when somebody called is covered by the next one that
     * begins, which all who wait for it share. */
    pthread_cond_t ended; /* a flush did */
    bool flushing;
    uint64_t n_begun, n_ended; /* flushes */
};

static struct partial *partial_of(const struct image *img)
{
    return img->state;
}

/* ---- opening and closing --------------------------------------------------------------------- */

static int check_size(const struct image *img, struct platter_error *err)
{
    uint64_t have;
    int r = stream_size(img->stream, &have, err);
    if (r == 0 && have < img->size)
        r = fail(err, PLATTER_ECORRUPT,
                 "%s: has %" PRIu64 " bytes, but by its map of presence (%s) the disk has %" PRIu64
                 ": it was cut, or the map is that of another disk",
                 img->stream->name, have, partial_of(img)->map.stream->name, (uint64_t)img->size);
    return r;
}

static int partial_open(struct image *img, struct platter_error *err)
{
    struct partial *p = calloc(1, sizeof *p);
    struct stream *s;
    if (!p)
        return fail_memory(err, "a disk that is not complete");
    pthread_cond_init(&p->ended, NULL);
    img->state = p;
    img->has_backing = true;
    int r = img->opener->open(img->opener, img, PARTIAL_PRESENCE, PLATTER_NAME_DATA_FILE,
                              img->writable, &s, err);
    if (r == 0)
        r = presence_load(&p->map, s, img->writable, img->budget, err);
    if (r < 0)
        return r;
    img->size = p->map.disk_size;
    img->unit = (uint32_t)p->map.unit;
    return check_size(img, err);
}

static int partial_close(struct image *img, struct platter_error *err)
{
    struct partial *p = TAKE(img->state);
    (void)err;
    if (!p)
        return 0;
    presence_free(&p->map);
    pthread_cond_destroy(&p->ended);
    free(p);
    return 0;
}

static bool partial_file(const struct image *img, unsigned i, struct stream **ret)
{
    *ret = partial_of(img)->map.stream;
    return i == 0;
}

void partial_complete(struct image *img)
{
    WITH_LOCK(&img->lock);
    struct partial *p = partial_of(img);
    p->complete = true;
    stream_close(TAKE(p->map.stream));
    img->has_backing = false;
}

/* ---- where bytes are, and go ----------------------------------------------------------------- */

static bool is_present(struct image *img, goff off, uint64_t len, uint64_t *ret_len)
{
    struct partial *p = partial_of(img);
    WITH_LOCK(&img->lock);
    *ret_len = len;
    return p->complete || presence_find(&p->map, off, len, ret_len);
}

static void set_present(struct image *img, goff off, uint64_t len)
{
    struct partial *p = partial_of(img);
    WITH_LOCK(&img->lock);
    if (!p->complete)
        presence_set(&p->map, off, len);
}

/* Holes of what is present are for disk_find_holes(): to ask for each read and write is dear. */
static int partial_map(struct image *img, goff off, uint64_t len, struct extent *ret,
                       struct platter_error *err)
{
    (void)err;
    bool present = is_present(img, off, len, &len);
    *ret = (struct extent){.kind = present ? EXTENT_DATA : EXTENT_BACKING, .len = len};
    if (present) {
        ret->in_place = true;
        ret->stream = img->stream;
        ret->off = off;
    }
    return 0;
}

/* The absent units at `off`, as far as they are wanted. */
static int partial_reserve(struct image *img, goff off, uint64_t len, struct reservation *ret,
                           struct platter_error *err)
{
    (void)err;
    goff start = round_down(off, img->unit);
    goff end = min_u64(round_up(off + len, img->unit), img->size);
    bool present = is_present(img, start, end - start, &len);
    assert(!present);
    (void)present;
    *ret = (struct reservation){.start = start, .len = len, .stream = img->stream, .off = start};
    return 0;
}

static int partial_commit(struct image *img, const struct reservation *room,
                          struct platter_error *err)
{
    (void)err;
    set_present(img, room->start, room->len);
    return 0;
}

static void partial_abandon(struct image *img, const struct reservation *room)
{
    (void)img, (void)room;
}

/* Makes what may stand in the place of absent units read as zeros. */
static int clear_place(struct stream *s, hoff off, uint64_t len, struct platter_error *err)
{
    int r = 0;
    for (uint64_t n; len > 0 && r == 0; off += n, len -= n) {
        bool hole = false;
        n = len;
        if (s->depth == 0 || len >= WORTH_ASKING)
            r = stream_extents(s, off, len, &n, &hole, err);
        if (r == 0 && !hole)
            r = stream_zero(s, off, n, STREAM_ZERO_UNMAP, err);
    }
    return r;
}

/* Units that are absent become present by a discard, too: what was given up must not come from
 * below again, and need not be copied. */
static int partial_mark(struct image *img, goff off, uint64_t len, enum mark mark, bool unmap,
                        struct platter_error *err)
{
    struct stream *s = img->stream;
    int r = 0;
    assert(off % img->unit == 0 && (len % img->unit == 0 || off + len == img->size));
    for (uint64_t n; len > 0 && r == 0; off += n, len -= n) {
        bool present = is_present(img, off, len, &n);
        if (!present)
            r = clear_place(s, off, n, err);
        else if (mark == MARK_DISCARD)
            r = stream_discard(s, off, n, err);
        else
            r = stream_zero(s, off, n, unmap ? STREAM_ZERO_UNMAP : 0, err);
        if (r == 0 && !present)
            set_present(img, off, n);
    }
    return r;
}

/* ---- flushing -------------------------------------------------------------------------------- */

/* Rule 2, for as many changes of the map as are written at once. Under the lock, which it leaves;
 * 1: there are more. */
static int flush_batch(struct image *img, struct platter_error *err)
{
    struct presence *map = &partial_of(img)->map;
    bool more = presence_copy(map);
    pthread_mutex_unlock(&img->lock);
    int r = stream_flush(img->stream, err);
    if (r == 0)
        r = presence_write(map, err);
    if (r == 0 && !more && map->n_copied > 0)
        r = stream_flush(map->stream, err);
    pthread_mutex_lock(&img->lock);
    return r < 0 ? r : more;
}

/* Under the lock. A flush of the data that failed is as bad as a write of the map: the next one may
 * succeed although bytes are lost, and bits would stand for them (rule 5). */
static int flush_alone(struct image *img, struct platter_error *err)
{
    struct partial *p = partial_of(img);
    int r;
    p->flushing = true;
    p->n_begun++;
    if (!p->complete)
        presence_begin(&p->map);
    do
        r = flush_batch(img, err);
    while (r > 0);
    if (r < 0)
        image_poison(img, r);
    p->flushing = false;
    p->n_ended = p->n_begun;
    pthread_cond_broadcast(&p->ended);
    return r;
}

static int check_poison(const struct image *img, struct platter_error *err)
{
    int poison = atomic_load(&img->poison);
    return poison == 0 ? 0
                       : fail(err, -poison,
                              "%s: cannot be made durable any more: an earlier attempt failed, "
                              "and what it lost is not known",
                              img->stream->name);
}

static int partial_flush(struct image *img, struct platter_error *err)
{
    struct partial *p = partial_of(img);
    WITH_LOCK(&img->lock);
    uint64_t mine = p->n_begun + 1;
    int r = check_poison(img, err);
    while (r == 0 && p->n_ended < mine) {
        if (!p->flushing)
            return flush_alone(img, err);
        pthread_cond_wait(&p->ended, &img->lock);
        r = check_poison(img, err);
    }
    return r;
}

const struct format format_partial = {
    .name = "raw",
    .title = "the disk as it is, as far as it is there",
    .open = partial_open,
    .close = partial_close,
    .map = partial_map,
    .reserve = partial_reserve,
    .commit = partial_commit,
    .abandon = partial_abandon,
    .mark = partial_mark,
    .flush = partial_flush,
    .file = partial_file,
};
