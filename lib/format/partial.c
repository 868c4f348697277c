/* SPDX-License-Identifier: MIT */
/*
 * partial: a raw disk that is not complete yet, with its map of presence (format/partial.h).
 *
 * The whole map is in memory, one bit for each unit. A bit that is set there stands for bytes of
 * the unit that are complete, but perhaps only in somebody's cache. It goes to the map's stream by
 * way of a flush alone, which first copies the sectors of the map that changed and then makes the
 * data durable: so no bit is ever written that was set after that began (rule 2). What a crash
 * takes back is a bit, and then the unit comes from below again, as before the write that was not
 * flushed.
 *
 * What stands in the place of a unit that is absent is nobody's: a write that was cut off may have
 * left anything there. So it is never taken for zeros without asking the stream.
 */
#include "format/partial.h"

#include <assert.h>
#include <inttypes.h>
#include <libdeflate.h>
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"

enum {
    SECTOR = 512,              /* of the map */
    SECTOR_BYTES = SECTOR - 4, /* ... of bits */
    SECTOR_BITS = SECTOR_BYTES * 8,
    VERSION = 1,
    LEAST_UNIT = 512,
    FIRST_UNIT = 64 << 10,
    /* A guest's first write to a unit copies the rest of it. */
    MOST_UNIT = 64 << 20,
    /* The map takes 16 MiB of memory at most: a quarter of what a disk may use by default. */
    MOST_UNITS = 1 << 27,
    /* An extent is not looked for further than this, in units: who walks over a disk whose lower
     * images are in small pieces asks again for each of them. */
    MOST_SCAN = 1 << 18,
    PIECE = 128, /* sectors of the map that are read at once */
    /* Sectors that are written behind one flush of the data: 1 MiB. */
    BATCH = 2048,
    /* A server is asked which parts of the disk are holes only where so many bytes are to be zeros;
     * else it has less work with the zeros. */
    WORTH_ASKING = 16 << 20
};

static const char magic[16] = "PLATTER PRESENCE";

struct partial {
    struct stream *presence; /* of the map */
    unsigned unit_bits;
    uint64_t n_units, n_sectors; /* sectors without the header */
    uint64_t taken;              /* of the budget */
    /* All below under image->lock. */
    uint8_t *bits;    /* SECTOR_BYTES for each sector, one behind the other, up to whole words */
    bool complete;    /* partial_complete() */
    uint8_t *changed; /* a bit for each sector: it is to be written */

    /* One flush runs at a time. What was there when somebody called is covered by the next one that
     * begins, which all who wait for it share. */
    pthread_cond_t ended; /* a flush did */
    bool flushing;
    uint64_t n_begun, n_ended; /* flushes */
    uint8_t *todo;             /* as changed: what the flush that runs still has to write */
    /* Of the flush that runs, without the lock: */
    uint8_t *copy;     /* sectors as they are to be written */
    uint32_t *numbers; /* ... which they are */
    size_t n_copied;
};

static struct partial *partial_of(const struct image *img)
{
    return img->state;
}

/* ---- bits ------------------------------------------------------------------------------------ */

static uint64_t word_at(const uint8_t *bits, uint64_t i)
{
    return get_le(bits + i / 64 * 8, 8);
}

/* Where the run of bits of this value ends that holds i, or else is empty: at `end` or before. */
static uint64_t run_end(const uint8_t *bits, uint64_t i, uint64_t end, bool value)
{
    while (i < end) {
        uint64_t others = (value ? ~word_at(bits, i) : word_at(bits, i)) >> i % 64;
        if (others)
            return min_u64(end, i + (unsigned)__builtin_ctzll(others));
        i = round_down(i, 64) + 64;
    }
    return end;
}

static bool bit_get(const uint8_t *bits, uint64_t i)
{
    return bits[i / 8] >> i % 8 & 1;
}

static void bits_set(uint8_t *bits, uint64_t i, uint64_t end)
{
    for (; i < end && i % 8; i++)
        bits[i / 8] |= (uint8_t)(1u << i % 8);
    if (i < end)
        memset(bits + i / 8, 0xff, (end - i) / 8);
    for (i = max_u64(i, round_down(end, 8)); i < end; i++)
        bits[i / 8] |= (uint8_t)(1u << i % 8);
}

static uint64_t bytes_of(uint64_t bits)
{
    return div_up(bits, 64) * 8;
}

/* The units [first, end) are present from now on. Under the lock. */
static void set_present(struct partial *p, uint64_t first, uint64_t end)
{
    while (first < end && !p->complete) {
        uint64_t sector = first / SECTOR_BITS, next = min_u64(end, (sector + 1) * SECTOR_BITS);
        if (run_end(p->bits, first, next, true) < next) {
            bits_set(p->bits, first, next);
            bits_set(p->changed, sector, sector + 1);
        }
        first = next;
    }
}

/* Whether the unit `off` is in is present, and for how many bytes (1 .. len) that holds. */
static bool look_up(struct image *img, goff off, uint64_t len, uint64_t *ret_len)
{
    struct partial *p = partial_of(img);
    uint64_t first = off >> p->unit_bits, unit = UINT64_C(1) << p->unit_bits;
    WITH_LOCK(&img->lock);
    *ret_len = len;
    if (p->complete)
        return true;
    bool present = bit_get(p->bits, first);
    uint64_t most = min_u64(div_up(off + len, unit), first + MOST_SCAN);
    goff end = run_end(p->bits, first, most, present) << p->unit_bits;
    *ret_len = min_u64(off + len, end) - off;
    return present;
}

/* ---- the map's stream ------------------------------------------------------------------------ */

static uint64_t unit_for(uint64_t disk_size)
{
    uint64_t unit = FIRST_UNIT;
    while (div_up(disk_size, unit) > MOST_UNITS)
        unit *= 2;
    return unit;
}

static uint64_t map_size(uint64_t disk_size, uint64_t unit)
{
    return SECTOR * (1 + div_up(div_up(disk_size, unit), SECTOR_BITS));
}

uint64_t partial_map_size(uint64_t disk_size)
{
    return map_size(disk_size, unit_for(disk_size));
}

static uint32_t crc_of(const uint8_t *sector)
{
    return libdeflate_crc32(0, sector, SECTOR_BYTES);
}

static void put_crc(uint8_t *sector)
{
    put_le(sector + SECTOR_BYTES, 4, crc_of(sector));
}

static bool crc_is_right(const uint8_t *sector)
{
    return get_le(sector + SECTOR_BYTES, 4) == crc_of(sector);
}

int partial_create(struct stream *presence, uint64_t disk_size, struct platter_error *err)
{
    uint8_t sector[SECTOR];
    uint64_t unit = unit_for(disk_size), size, have;
    if (unit > MOST_UNIT)
        return fail(err, EFBIG,
                    "%s: the map of a disk that is not complete is for disks of at most %" PRIu64
                    " bytes, not %" PRIu64,
                    presence->name, (uint64_t)MOST_UNITS * MOST_UNIT, disk_size);
    size = map_size(disk_size, unit);
    int r = stream_size(presence, &have, err);
    if (r == 0 && have < size)
        r = stream_resize(presence, size, err);
    if (r < 0)
        return r;
    struct writer w = writer_over(sector, sizeof sector);
    write_bytes(&w, magic, sizeof magic);
    write_le32(&w, VERSION);
    write_le32(&w, (uint32_t)unit);
    write_le64(&w, disk_size);
    write_pad_to(&w, SECTOR);
    put_crc(sector);
    r = stream_pwrite(presence, sector, sizeof sector, 0, err);
    return r < 0 ? r : stream_flush(presence, err);
}

static int check_header(const struct stream *s, uint32_t version, uint32_t unit, uint64_t size,
                        struct platter_error *err)
{
    if (version != VERSION)
        return fail(err, ENOTSUP,
                    "%s: the map of presence is of version %" PRIu32
                    ", and this program knows version 1: a newer one is needed",
                    s->name, version);
    if (!is_power_of_2(unit) || unit < LEAST_UNIT || unit > MOST_UNIT)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: offset 20: the unit of the map must be a power of two from 512 to "
                    "67108864, not %" PRIu32,
                    s->name, unit);
    if (div_up(size, unit) > MOST_UNITS)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: offset 24: a disk of %" PRIu64 " bytes has more than %d units of %" PRIu32
                    " bytes",
                    s->name, size, MOST_UNITS, unit);
    return 0;
}

static int load_header(struct image *img, struct platter_error *err)
{
    struct partial *p = partial_of(img);
    struct stream *s = p->presence;
    uint8_t sector[SECTOR];
    int r = stream_pread(s, sector, sizeof sector, 0, err);
    if (r < 0)
        return r;
    struct reader header = reader_over(sector, sizeof sector);
    if (memcmp(read_bytes(&header, sizeof magic), magic, sizeof magic) != 0 ||
        !crc_is_right(sector))
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the header of the map of presence, 512 bytes at offset 0, is damaged: it "
                    "does not start with \"PLATTER PRESENCE\", or its checksum is wrong",
                    s->name);
    uint32_t version = read_le32(&header), unit = read_le32(&header);
    uint64_t size = read_le64(&header);
    r = check_header(s, version, unit, size, err);
    if (r < 0)
        return r;
    img->size = size;
    img->unit = unit;
    p->unit_bits = (unsigned)__builtin_ctz(unit);
    p->n_units = div_up(size, unit);
    p->n_sectors = div_up(p->n_units, SECTOR_BITS);
    return 0;
}

static int check_sizes(struct image *img, struct platter_error *err)
{
    struct partial *p = partial_of(img);
    uint64_t data, map, least = map_size(img->size, img->unit);
    int r = stream_size(img->stream, &data, err);
    if (r == 0)
        r = stream_size(p->presence, &map, err);
    if (r < 0)
        return r;
    if (data < img->size)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: has %" PRIu64
                    " bytes, but by its map of presence (%s) the disk has %" PRIu64
                    ": it was cut, or the map is that of another disk",
                    img->stream->name, data, p->presence->name, (uint64_t)img->size);
    if (map < least)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the map of presence ends at %" PRIu64 ", and must have %" PRIu64
                    " bytes: it is truncated",
                    p->presence->name, map, least);
    return 0;
}

/* Takes memory that reads as zeros, untouched: where the map is empty it costs nothing. */
static int take(struct image *img, uint64_t n, const char *what, void *ret,
                struct platter_error *err)
{
    int r = budget_take(img->budget, n, what, err);
    if (r < 0)
        return r;
    partial_of(img)->taken += n;
    *(void **)ret = calloc(1, n ? n : 1);
    return *(void **)ret ? 0 : fail_memory(err, what);
}

static int take_memory(struct image *img, struct platter_error *err)
{
    struct partial *p = partial_of(img);
    uint64_t batch = min_u64(p->n_sectors, BATCH);
    int r =
        take(img, round_up(p->n_sectors * SECTOR_BYTES, 8), "the map of presence", &p->bits, err);
    if (r < 0 || !img->writable)
        return r;
    r = take(img, bytes_of(p->n_sectors), "changes of the map", &p->changed, err);
    if (r == 0)
        r = take(img, bytes_of(p->n_sectors), "changes of the map", &p->todo, err);
    if (r == 0)
        r = take(img, batch * SECTOR, "parts of the map that are written", &p->copy, err);
    return r < 0 ? r
                 : take(img, batch * sizeof *p->numbers, "parts of the map that are written",
                        &p->numbers, err);
}

static int load_sector(const struct partial *p, uint64_t i, const uint8_t *sector,
                       struct platter_error *err)
{
    if (is_zero(sector, SECTOR))
        return 0;
    if (!crc_is_right(sector))
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the checksum of the map of presence is wrong at offset %" PRIu64
                    ": which of the units %" PRIu64 " and up the disk has is not known",
                    p->presence->name, SECTOR * (i + 1), i * SECTOR_BITS);
    memcpy(p->bits + i * SECTOR_BYTES, sector, SECTOR_BYTES);
    return 0;
}

/* Sectors [i, end), of which the stream has some. */
static int load_run(const struct partial *p, uint64_t i, uint64_t end, struct platter_error *err)
{
    auto_free uint8_t *sectors = malloc((size_t)PIECE * SECTOR);
    if (!sectors)
        return fail_memory(err, "a part of the map of presence");
    int r = 0;
    while (i < end && r == 0) {
        uint64_t n = min_u64(end - i, PIECE);
        r = stream_pread(p->presence, sectors, (size_t)n * SECTOR, SECTOR * (i + 1), err);
        for (uint64_t k = 0; k < n && r == 0; k++)
            r = load_sector(p, i + k, sectors + k * SECTOR, err);
        i += n;
    }
    return r;
}

/* What of the map is a hole is not looked at. */
static int load_map(const struct partial *p, struct platter_error *err)
{
    int r = 0;
    for (uint64_t i = 0; i < p->n_sectors && r == 0;) {
        uint64_t len;
        bool hole;
        r = stream_extents(p->presence, SECTOR * (i + 1), SECTOR * (p->n_sectors - i), &len, &hole,
                           err);
        if (r < 0)
            return r;
        uint64_t end = i + (hole ? len / SECTOR : div_up(len, SECTOR));
        if (!hole || end == i) {
            end = max_u64(end, i + 1); /* a hole may begin and end anywhere */
            r = load_run(p, i, end, err);
        }
        i = end;
    }
    uint64_t padded = p->n_sectors * SECTOR_BITS;
    if (r == 0 && run_end(p->bits, p->n_units, padded, false) < padded)
        r = fail(err, PLATTER_ECORRUPT,
                 "%s: offset %" PRIu64
                 ": the map of presence has units behind the last one, %" PRIu64,
                 p->presence->name, SECTOR * p->n_sectors, p->n_units);
    return r;
}

/* ---- opening and closing --------------------------------------------------------------------- */

static int partial_open(struct image *img, struct platter_error *err)
{
    struct partial *p = calloc(1, sizeof *p);
    if (!p)
        return fail_memory(err, "a disk that is not complete");
    pthread_cond_init(&p->ended, NULL);
    img->state = p;
    img->has_backing = true;
    struct stream *presence;
    int r = img->opener->open(img->opener, img, PARTIAL_PRESENCE, PLATTER_NAME_DATA_FILE,
                              img->writable, &presence, err);
    if (r < 0)
        return r;
    p->presence = presence;
    r = load_header(img, err);
    if (r == 0)
        r = check_sizes(img, err);
    if (r == 0)
        r = take_memory(img, err);
    return r < 0 ? r : load_map(p, err);
}

static int partial_close(struct image *img, struct platter_error *err)
{
    struct partial *p = TAKE(img->state);
    (void)err;
    if (!p)
        return 0;
    stream_close(p->presence);
    pthread_cond_destroy(&p->ended);
    free(p->bits);
    free(p->changed);
    free(p->todo);
    free(p->copy);
    free(p->numbers);
    budget_give(img->budget, p->taken);
    free(p);
    return 0;
}

static bool partial_file(const struct image *img, unsigned i, struct stream **ret)
{
    *ret = partial_of(img) ? partial_of(img)->presence : NULL;
    return i == 0;
}

void partial_complete(struct image *img)
{
    WITH_LOCK(&img->lock);
    partial_of(img)->complete = true;
    img->has_backing = false;
}

/* ---- where bytes are, and go ----------------------------------------------------------------- */

/* Holes of what is present are for disk_find_holes(): to ask for each read and write is dear. */
static int partial_map(struct image *img, goff off, uint64_t len, struct extent *ret,
                       struct platter_error *err)
{
    (void)err;
    bool present = look_up(img, off, len, &len);
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
    bool present = look_up(img, start, end - start, &len);
    assert(!present);
    (void)present;
    *ret = (struct reservation){.start = start, .len = len, .stream = img->stream, .off = start};
    return 0;
}

static int partial_commit(struct image *img, const struct reservation *room,
                          struct platter_error *err)
{
    (void)err;
    WITH_LOCK(&img->lock);
    set_present(partial_of(img), room->start / img->unit,
                div_up(room->start + room->len, img->unit));
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
        bool present = look_up(img, off, len, &n);
        if (!present)
            r = clear_place(s, off, n, err);
        else if (mark == MARK_DISCARD)
            r = stream_discard(s, off, n, err);
        else
            r = stream_zero(s, off, n, unmap ? STREAM_ZERO_UNMAP : 0, err);
        const struct reservation room = {.start = off, .len = n};
        if (r == 0 && !present)
            r = partial_commit(img, &room, err);
    }
    return r;
}

/* ---- flushing -------------------------------------------------------------------------------- */

/* Copies the next sectors that this flush is to write. Under the lock. */
static void copy_sectors(struct partial *p)
{
    p->n_copied = 0;
    uint64_t i = run_end(p->todo, 0, p->n_sectors, false);
    for (; i < p->n_sectors && p->n_copied < BATCH; i = run_end(p->todo, i, p->n_sectors, false)) {
        uint8_t *sector = p->copy + p->n_copied * SECTOR;
        memcpy(sector, p->bits + i * SECTOR_BYTES, SECTOR_BYTES);
        put_crc(sector);
        p->todo[i / 8] &= (uint8_t) ~(1u << i % 8);
        p->changed[i / 8] &= (uint8_t) ~(1u << i % 8);
        p->numbers[p->n_copied++] = (uint32_t)i;
    }
}

/* Writes the copied sectors, those that are neighbours at once. */
static int write_sectors(const struct partial *p, struct platter_error *err)
{
    int r = 0;
    for (size_t i = 0, n; i < p->n_copied && r == 0; i += n) {
        n = 1;
        while (i + n < p->n_copied && p->numbers[i + n] == p->numbers[i] + n)
            n++;
        r = stream_pwrite(p->presence, p->copy + i * SECTOR, n * SECTOR,
                          SECTOR * (p->numbers[i] + UINT64_C(1)), err);
    }
    return r;
}

/* Rule 2, for as many changes of the map as are written at once. Under the lock, which it leaves;
 * 1: there are more. */
static int flush_batch(struct image *img, struct platter_error *err)
{
    struct partial *p = partial_of(img);
    copy_sectors(p);
    bool last = run_end(p->todo, 0, p->n_sectors, false) == p->n_sectors;
    pthread_mutex_unlock(&img->lock);
    int r = stream_flush(img->stream, err);
    if (r == 0)
        r = write_sectors(p, err);
    if (r == 0 && last && p->n_copied > 0)
        r = stream_flush(p->presence, err);
    pthread_mutex_lock(&img->lock);
    return r < 0 ? r : !last;
}

/* Under the lock. A flush of the data that failed is as bad as a write of the map: the next one may
 * succeed although bytes are lost, and bits would stand for them (rule 5). */
static int flush_alone(struct image *img, struct platter_error *err)
{
    struct partial *p = partial_of(img);
    p->flushing = true;
    p->n_begun++;
    if (!p->complete) {
        memcpy(p->todo, p->changed, bytes_of(p->n_sectors));
        memset(p->changed, 0, bytes_of(p->n_sectors));
    }
    int r;
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
                              "%s: is not made durable any more: that failed before, so what is "
                              "lost of it is not known",
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
