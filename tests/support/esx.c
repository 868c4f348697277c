/* SPDX-License-Identifier: MIT */
/* Sparse files of ESX: esx.h. */
#include "support/esx.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "base/memory.h"
#include "support/must.h"

enum { SECTOR_BYTES = 512, TABLE_ENTRIES = 4096, COWD_TABLE = 32, SE_TABLE = 64, SE_GRAIN = 8 };

enum esx_kind esx_kind_of(const uint8_t *bytes, uint64_t size)
{
    if (size >= 4 && memcmp(bytes, "COWD", 4) == 0)
        return ESX_COWD;
    return size >= 8 && get_le(bytes, 8) == 0xcafebabe ? ESX_SESPARSE : ESX_NONE;
}

uint64_t esx_sectors(const uint8_t *bytes, uint64_t size)
{
    enum esx_kind kind = esx_kind_of(bytes, size);
    if (kind == ESX_COWD)
        return size >= 16 ? get_le(bytes + 12, 4) : 0;
    return kind == ESX_SESPARSE && size >= 24 ? get_le(bytes + 16, 8) : 0;
}

/* Makes the file longer by n sectors; where they begin. */
static uint64_t append(struct buffer *b, uint64_t n)
{
    uint64_t at = b->size / SECTOR_BYTES;
    struct buffer larger = buffer_copy(b, b->size + n * SECTOR_BYTES);
    larger.size = b->size + n * SECTOR_BYTES;
    buffer_free(b);
    *b = larger;
    return at;
}

/* ---- COWD ------------------------------------------------------------------------------------ */

static void add_cowd_grain(struct buffer *b, uint64_t number, uint32_t grain, const uint8_t *data,
                           uint64_t len)
{
    uint64_t gde = 4 * SECTOR_BYTES + number / TABLE_ENTRIES * 4;
    if (get_le(b->bytes + gde, 4) == 0) {
        uint64_t table = append(b, COWD_TABLE);
        put_le(b->bytes + gde, 4, table);
    }
    uint64_t gte = get_le(b->bytes + gde, 4) * SECTOR_BYTES + number % TABLE_ENTRIES * 4;
    uint64_t at = append(b, grain);
    put_le(b->bytes + gte, 4, at);
    memcpy(b->bytes + at * SECTOR_BYTES, data, len);
}

static struct buffer make_cowd(uint64_t size, uint32_t grain, const uint8_t *content,
                               uint64_t filled)
{
    uint64_t sectors = size / SECTOR_BYTES, bytes = (uint64_t)grain * SECTOR_BYTES;
    uint64_t entries = div_up(sectors, (uint64_t)grain * TABLE_ENTRIES);
    struct buffer b = {0};
    append(&b, 4 + div_up(entries * 4, SECTOR_BYTES));
    const uint64_t fields[][2] = {{0, 0x44574f43}, {4, 1},  {8, 3},       {12, sectors},
                                  {16, grain},     {20, 4}, {24, entries}};
    for (unsigned i = 0; i < sizeof fields / sizeof fields[0]; i++)
        put_le(b.bytes + fields[i][0], 4, fields[i][1]);
    for (uint64_t off = 0; off < filled; off += bytes)
        add_cowd_grain(&b, off / bytes, grain, content + off, min_u64(bytes, size - off));
    put_le(b.bytes + 28, 4, b.size / SECTOR_BYTES);
    return b;
}

/* ---- seSparse -------------------------------------------------------------------------------- */

/* Areas one behind the other; the maps are there, and zero. */
static struct buffer make_sesparse(uint64_t size, const uint8_t *content, uint64_t filled)
{
    uint64_t sectors = size / SECTOR_BYTES, bytes = SE_GRAIN * SECTOR_BYTES;
    uint64_t tables = div_up(sectors, (uint64_t)SE_GRAIN * TABLE_ENTRIES);
    uint64_t sizes[] = {1,
                        2,
                        8,
                        div_up(tables * 8, SECTOR_BYTES),
                        tables * SE_TABLE,
                        8,
                        16,
                        sectors * 2 + SE_GRAIN};
    uint64_t areas[8], at = 1;
    struct buffer b = {0};
    append(&b, 1);
    for (unsigned i = 0; i < 8; at += sizes[i++])
        areas[i] = at;
    append(&b, areas[7] - 1);
    const uint64_t head[] = {0xcafebabe, 0x200000001, sectors, SE_GRAIN, SE_TABLE};
    for (unsigned i = 0; i < 5; i++)
        put_le(b.bytes + 8 * i, 8, head[i]);
    for (unsigned i = 0; i < 8; i++) {
        put_le(b.bytes + 80 + 16 * i, 8, areas[i]);
        put_le(b.bytes + 88 + 16 * i, 8, sizes[i]);
    }
    put_le(b.bytes + areas[0] * SECTOR_BYTES, 8, 0xcafecafe);
    for (uint64_t number = 0; number * bytes < filled; number++) {
        uint64_t table = number / TABLE_ENTRIES;
        put_le(b.bytes + areas[0] * SECTOR_BYTES + 8, 8, table + 1);
        put_le(b.bytes + areas[3] * SECTOR_BYTES + table * 8, 8,
               UINT64_C(0x10000000) << 32 | table);
        put_le(b.bytes + areas[4] * SECTOR_BYTES + number * 8, 8,
               UINT64_C(3) << 60 | (number & 0xfff) << 48 | number >> 12);
        uint64_t place = append(&b, SE_GRAIN) * SECTOR_BYTES;
        memcpy(b.bytes + place, content + number * bytes, min_u64(bytes, size - number * bytes));
    }
    return b;
}

struct buffer esx_make(enum esx_kind kind, uint64_t size, uint32_t grain, const uint8_t *content,
                       uint64_t filled)
{
    return kind == ESX_COWD ? make_cowd(size, grain, content, filled)
                            : make_sesparse(size, content, filled);
}

/* ---- descriptors ----------------------------------------------------------------------------- */

uint32_t esx_cid_of(const struct buffer *vmdk)
{
    static const char key[] = "\nCID=";
    const char *at = memmem(vmdk->bytes, vmdk->size, key, sizeof key - 1);
    MUST(at);
    return (uint32_t)strtoul(at + sizeof key - 1, NULL, 16);
}

char *esx_descriptor(enum esx_kind kind, uint64_t sectors, const char *extent, const char *parent,
                     uint32_t parent_cid)
{
    bool cowd = kind == ESX_COWD;
    return string_format("# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=%08" PRIx32
                         "\ncreateType=\"%s\"\n%s%s%s\n# Extent description\nRW %" PRIu64
                         " %s \"%s\"\n",
                         parent ? parent_cid : UINT32_MAX, cowd ? "vmfsSparse" : "seSparse",
                         parent ? "parentFileNameHint=\"" : "", parent ? parent : "",
                         parent ? "\"\n" : "", sectors, cowd ? "VMFSSPARSE" : "SESPARSE", extent);
}

struct extent_opener {
    struct name_opener opener;
    struct stream *extent; /* until it is asked for */
};

static int give_extent(const struct name_opener *opener, const struct image *image,
                       const char *name, enum platter_name_kind kind, bool writable,
                       struct stream **ret, struct platter_error *err)
{
    struct extent_opener *o = (struct extent_opener *)opener;
    (void)image, (void)kind, (void)writable;
    if (!o->extent)
        return fail(err, ENOENT, "%s: no such extent", name);
    *ret = TAKE(o->extent);
    return 0;
}

/* The text as a stream of its own. */
static int open_text(const char *text, struct stream **ret, struct platter_error *err)
{
    if (!text)
        return fail_memory(err, "a descriptor");
    int r = stream_memory_open("disk", 1 << 20, ret, err);
    if (r == 0)
        r = stream_pwrite(*ret, text, strlen(text), 0, err);
    if (r < 0)
        stream_close(TAKE(*ret));
    return r;
}

int esx_open(enum esx_kind kind, uint64_t sectors, struct stream *extent, struct stream *backing,
             uint32_t parent_cid, bool writable, uint64_t memory_limit, struct platter_disk **ret,
             struct platter_error *err)
{
    struct extent_opener o = {.opener.open = give_extent, .extent = extent};
    struct stream *streams[2] = {NULL, backing};
    const struct format *formats_of[2] = {&format_vmdk, &format_vmdk};
    auto_free char *text =
        esx_descriptor(kind, sectors, "extent", backing ? "backing" : NULL, parent_cid);
    int r = open_text(text, &streams[0], err);
    if (r == 0)
        r = disk_assemble(streams, formats_of, backing ? 2 : 1, writable, true, memory_limit,
                          &o.opener, ret, err);
    else
        stream_close(backing);
    stream_close(o.extent);
    return r;
}
