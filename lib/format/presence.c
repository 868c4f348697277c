/* SPDX-License-Identifier: MIT */
/*
 * The map of presence, all of it in memory, one bit for each unit: presence.h. What stands in its
 * stream is told in partial.h.
 */
#include "format/presence.h"

#include <inttypes.h>
#include <libdeflate.h>
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/partial.h"

enum {
    SECTOR = 512,
    SECTOR_BYTES = SECTOR - 4, /* of bits */
    SECTOR_BITS = SECTOR_BYTES * 8,
    VERSION = 1,
    LEAST_UNIT = 512,
    FIRST_UNIT = 64 << 10,
    /* A guest's first write to a unit copies the rest of it. */
    MOST_UNIT = 64 << 20,
    /* The map takes 16 MiB of memory at most: a quarter of what a disk may use by default. */
    MOST_UNITS = 1 << 27,
    /* A run is not looked for further than this, in units: who walks over a disk whose lower images
     * are in small pieces asks again for each of them. */
    MOST_SCAN = 1 << 18,
    PIECE = 128, /* sectors that are read at once */
    BATCH = 2048 /* sectors that are copied, and so written, at once: 1 MiB */
};

static const char magic[16] = "PLATTER PRESENCE";

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

void presence_set(struct presence *p, uint64_t off, uint64_t len)
{
    uint64_t first = off / p->unit, end = div_up(off + len, p->unit);
    while (first < end) {
        uint64_t sector = first / SECTOR_BITS, next = min_u64(end, (sector + 1) * SECTOR_BITS);
        if (run_end(p->bits, first, next, true) < next) {
            bits_set(p->bits, first, next);
            bits_set(p->changed, sector, sector + 1);
        }
        first = next;
    }
}

bool presence_find(const struct presence *p, uint64_t off, uint64_t len, uint64_t *ret_len)
{
    uint64_t first = off / p->unit;
    uint64_t most = min_u64(div_up(off + len, p->unit), first + MOST_SCAN);
    bool there = bit_get(p->bits, first);
    *ret_len = min_u64(off + len, run_end(p->bits, first, most, there) * p->unit) - off;
    return there;
}

/* ---- making one ------------------------------------------------------------------------------ */

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
    uint64_t unit = unit_for(disk_size), size = map_size(disk_size, unit), have;
    if (unit > MOST_UNIT)
        return fail(err, EFBIG,
                    "%s: a map of presence is for disks of at most %" PRIu64 " bytes, not %" PRIu64,
                    presence->name, (uint64_t)MOST_UNITS * MOST_UNIT, disk_size);
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

/* ---- reading one ----------------------------------------------------------------------------- */

static int check_header(const struct presence *p, uint32_t version, struct platter_error *err)
{
    const char *name = p->stream->name;
    if (version != VERSION)
        return fail(err, ENOTSUP,
                    "%s: offset 16: the map of presence is of version %" PRIu32
                    ", which is made by a newer program than this one: use that",
                    name, version);
    if (!is_power_of_2(p->unit) || p->unit < LEAST_UNIT || p->unit > MOST_UNIT)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: offset 20: the unit of a map of presence must be a power of two from %d "
                    "to %d, not %" PRIu64,
                    name, LEAST_UNIT, MOST_UNIT, p->unit);
    if (div_up(p->disk_size, p->unit) > MOST_UNITS)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: offset 24: a disk of %" PRIu64 " bytes has more than %d units of %" PRIu64
                    " bytes",
                    name, p->disk_size, MOST_UNITS, p->unit);
    return 0;
}

static int load_header(struct presence *p, struct platter_error *err)
{
    uint8_t sector[SECTOR];
    int r = stream_pread(p->stream, sector, sizeof sector, 0, err);
    if (r < 0)
        return r;
    struct reader header = reader_over(sector, sizeof sector);
    if (memcmp(read_bytes(&header, sizeof magic), magic, sizeof magic) != 0 ||
        !crc_is_right(sector))
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the header of the map of presence, 512 bytes at offset 0, is damaged: it "
                    "does not start with \"PLATTER PRESENCE\", or its checksum is wrong",
                    p->stream->name);
    uint32_t version = read_le32(&header);
    p->unit = read_le32(&header);
    p->disk_size = read_le64(&header);
    r = check_header(p, version, err);
    if (r < 0)
        return r;
    p->n_units = div_up(p->disk_size, p->unit);
    p->n_sectors = div_up(p->n_units, SECTOR_BITS);
    return 0;
}

/* A stream that is too short would seem to have holes. */
static int check_size(const struct presence *p, struct platter_error *err)
{
    uint64_t have, least = map_size(p->disk_size, p->unit);
    int r = stream_size(p->stream, &have, err);
    if (r == 0 && have < least)
        r = fail(err, PLATTER_ECORRUPT,
                 "%s: the map of presence ends at %" PRIu64 ", and must have %" PRIu64
                 " bytes: it is truncated",
                 p->stream->name, have, least);
    return r;
}

/* Memory that reads as zeros and is not touched: where the map is empty it costs nothing. */
static int take(struct presence *p, uint64_t n, const char *what, void *ret,
                struct platter_error *err)
{
    int r = budget_take(p->budget, n, what, err);
    if (r < 0)
        return r;
    p->taken += n;
    *(void **)ret = calloc(1, n ? n : 1);
    return *(void **)ret ? 0 : fail_memory(err, what);
}

static int take_memory(struct presence *p, bool writable, struct platter_error *err)
{
    uint64_t batch = min_u64(p->n_sectors, BATCH);
    int r = take(p, bytes_of(p->n_sectors * SECTOR_BITS), "the map of presence", &p->bits, err);
    if (r < 0 || !writable)
        return r;
    r = take(p, bytes_of(p->n_sectors), "changes of the map of presence", &p->changed, err);
    if (r == 0)
        r = take(p, bytes_of(p->n_sectors), "changes of the map of presence", &p->pending, err);
    if (r == 0)
        r = take(p, batch * SECTOR, "a part of the map of presence", &p->copy, err);
    if (r == 0)
        r = take(p, batch * sizeof *p->numbers, "a part of the map of presence", &p->numbers, err);
    return r;
}

static int load_sector(struct presence *p, uint64_t i, const uint8_t *sector,
                       struct platter_error *err)
{
    if (is_zero(sector, SECTOR))
        return 0;
    if (!crc_is_right(sector))
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the map of presence is damaged: the checksum of the 512 bytes at offset "
                    "%" PRIu64 " is wrong, so what the disk has at %" PRIu64
                    " and behind is not known",
                    p->stream->name, SECTOR * (i + 1), i * SECTOR_BITS * p->unit);
    memcpy(p->bits + i * SECTOR_BYTES, sector, SECTOR_BYTES);
    return 0;
}

static int load_run(struct presence *p, uint64_t i, uint64_t end, struct platter_error *err)
{
    auto_free uint8_t *sectors = malloc((size_t)PIECE * SECTOR);
    if (!sectors)
        return fail_memory(err, "a part of the map of presence");
    int r = 0;
    while (i < end && r == 0) {
        uint64_t n = min_u64(end - i, PIECE);
        r = stream_pread(p->stream, sectors, (size_t)n * SECTOR, SECTOR * (i + 1), err);
        for (uint64_t k = 0; k < n && r == 0; k++)
            r = load_sector(p, i + k, sectors + k * SECTOR, err);
        i += n;
    }
    return r;
}

static int load_bits(struct presence *p, struct platter_error *err)
{
    int r = 0;
    for (uint64_t i = 0, end; i < p->n_sectors && r == 0; i = end) {
        uint64_t len;
        bool hole;
        r = stream_extents(p->stream, SECTOR * (i + 1), SECTOR * (p->n_sectors - i), &len, &hole,
                           err);
        if (r < 0)
            return r;
        /* Holes and data may begin and end anywhere: what is in both is read. */
        end = i + (hole ? len / SECTOR : div_up(len, SECTOR));
        if (!hole || end == i) {
            end = max_u64(end, i + 1);
            r = load_run(p, i, end, err);
        }
    }
    uint64_t all = p->n_sectors * SECTOR_BITS;
    if (r == 0 && run_end(p->bits, p->n_units, all, false) < all)
        r = fail(err, PLATTER_ECORRUPT,
                 "%s: offset %" PRIu64 ": the map of presence goes on behind the last of %" PRIu64
                 " units: it is damaged",
                 p->stream->name, SECTOR * p->n_sectors, p->n_units);
    return r;
}

int presence_load(struct presence *p, struct stream *stream, bool writable, struct budget *budget,
                  struct platter_error *err)
{
    p->stream = stream;
    p->budget = budget;
    int r = load_header(p, err);
    if (r == 0)
        r = check_size(p, err);
    if (r == 0)
        r = take_memory(p, writable, err);
    return r < 0 ? r : load_bits(p, err);
}

void presence_free(struct presence *p)
{
    stream_close(p->stream);
    free(p->bits);
    free(p->changed);
    free(p->pending);
    free(p->copy);
    free(p->numbers);
    if (p->budget)
        budget_give(p->budget, p->taken);
    *p = (struct presence){0};
}

/* ---- writing --------------------------------------------------------------------------------- */

void presence_begin(struct presence *p)
{
    memcpy(p->pending, p->changed, bytes_of(p->n_sectors));
    memset(p->changed, 0, bytes_of(p->n_sectors));
}

bool presence_copy(struct presence *p)
{
    uint64_t i = run_end(p->pending, 0, p->n_sectors, false);
    p->n_copied = 0;
    while (i < p->n_sectors && p->n_copied < BATCH) {
        uint8_t *sector = p->copy + p->n_copied * SECTOR;
        memcpy(sector, p->bits + i * SECTOR_BYTES, SECTOR_BYTES);
        put_crc(sector);
        /* What was set since begin goes along. */
        p->pending[i / 8] &= (uint8_t) ~(1u << i % 8);
        p->changed[i / 8] &= (uint8_t) ~(1u << i % 8);
        p->numbers[p->n_copied++] = (uint32_t)i;
        i = run_end(p->pending, i, p->n_sectors, false);
    }
    return i < p->n_sectors;
}

int presence_write(const struct presence *p, struct platter_error *err)
{
    int r = 0;
    for (size_t i = 0, n; i < p->n_copied && r == 0; i += n) {
        n = 1;
        while (i + n < p->n_copied && p->numbers[i + n] == p->numbers[i] + n)
            n++;
        r = stream_pwrite(p->stream, p->copy + i * SECTOR, n * SECTOR,
                          SECTOR * (p->numbers[i] + UINT64_C(1)), err);
    }
    return r;
}
