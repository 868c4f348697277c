/* SPDX-License-Identifier: MIT */
/* Disks that are not complete, in memory: partial.h. */
#include "support/partial.h"

#include <libdeflate.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "support/ledger.h"
#include "support/must.h"
#include "support/prng.h"

/* Gives the map to the disk that asks for it. */
struct map_giver {
    struct name_opener opener;
    struct stream *map; /* until it was given */
};

static int give_map(const struct name_opener *opener, const struct image *image, const char *name,
                    enum platter_name_kind kind, bool writable, struct stream **ret,
                    struct platter_error *err)
{
    struct map_giver *giver = (struct map_giver *)opener;
    MUST(strcmp(name, PARTIAL_PRESENCE) == 0 && kind == PLATTER_NAME_DATA_FILE);
    MUST(writable == image->writable);
    if (!giver->map)
        return fail(err, ENOENT, "%s: there is no map", image->stream->name);
    *ret = TAKE(giver->map);
    return 0;
}

int partial_disk_open(struct stream *data, struct stream *map, struct stream *below, bool writable,
                      uint64_t memory_limit, struct platter_disk **ret, struct platter_error *err)
{
    struct stream *streams[] = {data, below};
    const struct format *formats_of[] = {&format_partial, &format_raw};
    struct map_giver giver = {.opener = {.open = give_map}, .map = map};
    int r = disk_assemble(streams, formats_of, below ? 2 : 1, writable, true, memory_limit,
                          &giver.opener, ret, err);
    stream_close(giver.map);
    return r;
}

void partial_map_seal(struct buffer *map)
{
    for (uint64_t at = 0; at + 512 <= map->size; at += 512)
        if (!is_zero(map->bytes + at, 512))
            put_le(map->bytes + at + 508, 4, libdeflate_crc32(0, map->bytes + at, 508));
}

struct buffer partial_map_new(uint64_t disk_size, uint32_t unit)
{
    struct platter_error err;
    struct stream *s;
    uint64_t room = partial_map_size(disk_size);
    if (unit)
        room = 512 * (1 + ((disk_size + unit - 1) / unit + 4063) / 4064);
    struct buffer map = buffer_new(room + partial_map_size(disk_size));
    MUST(stream_buffer_open(&map, "map", true, &s, NULL) == 0);
    MUST(partial_create(s, disk_size, &err) == 0);
    stream_close(s);
    if (!unit)
        return map;
    map.size = room;
    put_le(map.bytes + 20, 4, unit);
    partial_map_seal(&map);
    return map;
}

/* ---- specimens --------------------------------------------------------------------------------
 */

enum { KIB = 1024, GARBAGE = 0xee, STAMP_BELOW = 0x7ffffff1 };

const struct partial_shape partial_shapes[] = {
    {.name = "64k", .size = 1024 * KIB, .below_size = 1024 * KIB, .unit = 64 * KIB},
    {.name = "64k-short",
     .size = 1000 * KIB + 512,
     .below_size = 700 * KIB + 512,
     .unit = 64 * KIB},
    {.name = "4k", .size = 500 * KIB + 512, .below_size = 600 * KIB, .unit = 4 * KIB},
    {.name = "512", .size = 2300 * KIB, .below_size = 2200 * KIB, .unit = 512},
    {0}};

struct partial_specimen partial_specimen_make(const struct partial_shape *shape)
{
    struct partial_specimen s = {.shape = shape,
                                 .data = buffer_new(shape->size),
                                 .map = partial_map_new(shape->size, shape->unit),
                                 .below = buffer_new(shape->below_size),
                                 .content = calloc(1, shape->size)};
    MUST(s.content);
    s.data.size = shape->size;
    memset(s.data.bytes, GARBAGE, s.data.size);
    s.below.size = shape->below_size;
    for (uint64_t i = 0; i < shape->below_size / SECTOR; i++)
        if (i / 40 % 4 != 3)
            ledger_stamp(s.below.bytes + i * SECTOR, STAMP_BELOW, i, 1);
    memcpy(s.content, s.below.bytes,
           shape->size < shape->below_size ? shape->size : shape->below_size);
    return s;
}

void partial_specimen_free(struct partial_specimen *s)
{
    buffer_free(&s->data);
    buffer_free(&s->map);
    buffer_free(&s->below);
    free(s->content);
}

int partial_specimen_open(const struct partial_specimen *s, struct stream *data, struct stream *map,
                          bool writable, struct platter_disk **ret, struct platter_error *err)
{
    struct stream *below;
    int r = stream_buffer_open((struct buffer *)&s->below, "below", false, &below, err);
    if (r < 0) {
        stream_close(data);
        stream_close(map);
        return r;
    }
    return partial_disk_open(data, map, below, writable, 0, ret, err);
}

int partial_specimen_look(const struct partial_specimen *s, struct buffer *data, struct buffer *map,
                          bool writable, struct platter_disk **ret, struct platter_error *err)
{
    struct stream *first, *second;
    MUST(stream_buffer_open(data, "data", writable, &first, NULL) == 0);
    MUST(stream_buffer_open(map, "map", writable, &second, NULL) == 0);
    return partial_specimen_open(s, first, second, writable, ret, err);
}

/* ---- filling ----------------------------------------------------------------------------------
 */

static int agree(void *opaque, struct platter_error *err)
{
    (void)opaque, (void)err;
    return 0;
}

void partial_source_bytes(const struct partial_specimen *s, uint8_t *out, uint64_t off,
                          uint64_t len)
{
    uint64_t inside = off < s->below.size ? min_u64(len, s->below.size - off) : 0;
    memcpy(out, s->below.bytes + off, inside);
    memset(out + inside, 0, len - inside);
}

void partial_filling_start(struct filling *f, struct platter_disk *disk)
{
    *f = (struct filling){.copy_on_read = true, .touched = agree, .may_read = agree};
    disk->filling = f;
}

/* A fill of some units, which waits a little while it has them; now and then one that is given up.
 */
static int fill_some(struct partial_fillers *f, struct prng *random, uint8_t *bytes)
{
    uint64_t size = f->specimen->shape->size, unit = f->specimen->shape->unit;
    uint64_t off = round_down(prng_below(random, size), unit);
    uint64_t len = min_u64(unit * (1 + prng_below(random, 3)), size - off);
    struct disk_write w;
    partial_source_bytes(f->specimen, bytes, off, len);
    if (is_zero(bytes, len))
        return disk_fill_zero(f->disk, off, len, NULL);
    int r = disk_fill_begin(f->disk, off, len, &w, NULL);
    usleep(f->pause / 4);
    int e = disk_fill_end(&w, r == 0 && !prng_chance(random, 10) ? bytes : NULL, NULL);
    return r < 0 ? r : e;
}

static int read_some(struct partial_fillers *f, struct prng *random, uint8_t *bytes)
{
    uint64_t size = f->specimen->shape->size, off = prng_below(random, size);
    uint64_t len = 1 + prng_below(random, 2 * f->specimen->shape->unit);
    return disk_read(f->disk, bytes, min_u64(len, size - off), off, NULL);
}

static void *fill_from_below(void *opaque)
{
    struct partial_fillers *f = opaque;
    unsigned number = atomic_fetch_add(&f->n_started, 1);
    struct prng random = {f->seed * PARTIAL_FILLERS + number};
    auto_free uint8_t *bytes = malloc(3 * (size_t)f->specimen->shape->unit);
    MUST(bytes);
    while (!atomic_load(&f->over)) {
        int r = number == 0 ? read_some(f, &random, bytes) : fill_some(f, &random, bytes);
        if (r != 0)
            atomic_fetch_add(&f->failed, 1);
        usleep(f->pause);
    }
    return NULL;
}

void partial_fillers_start(struct partial_fillers *f)
{
    partial_filling_start(&f->filling, f->disk);
    for (unsigned i = 0; i < PARTIAL_FILLERS; i++)
        MUST(pthread_create(&f->threads[i], NULL, fill_from_below, f) == 0);
}

int partial_fillers_stop(struct partial_fillers *f)
{
    atomic_store(&f->over, true);
    for (unsigned i = 0; i < PARTIAL_FILLERS; i++)
        pthread_join(f->threads[i], NULL);
    return atomic_load(&f->failed) ? -1 : 0;
}
