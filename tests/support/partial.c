/* SPDX-License-Identifier: MIT */
/* Disks that are not complete, in memory: partial.h. */
#include "support/partial.h"

#include <libdeflate.h>

#include "base/cursor.h"
#include "support/must.h"

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
