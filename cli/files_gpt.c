/* SPDX-License-Identifier: MIT */
/*
 * GPT, of the UEFI specification (chapter 5): a header in the second sector, a copy of it in the
 * last one, each with an array of entries, all under CRC-32. Where the first is damaged the copy is
 * taken, and that is told.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "files.h"

enum {
    HEADER = 92,
    MAX_ARRAY = 1 << 20 /* bytes of entries; 16 KiB in general */
};

struct gpt {
    uint64_t first, last; /* sectors that partitions may have */
    uint32_t count, entry;
    uint8_t *entries;
};

static uint64_t le(const uint8_t *p, unsigned n)
{
    uint64_t value = 0;
    for (unsigned i = n; i > 0; i--)
        value = value << 8 | p[i - 1];
    return value;
}

static const struct {
    const char *guid, *name;
} types[] = {{"c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "EFI system"},
             {"e3c9e316-0b5c-4db8-817d-f92df00215ae", "Microsoft reserved"},
             {"ebd0a0a2-b9e5-4433-87c0-68b6b72699c7", "Microsoft data"},
             {"de94bba4-06d1-4d40-a16a-bfd50179d6ac", "Windows recovery"},
             {"0fc63daf-8483-4772-8e79-3d69d8477de4", "Linux"},
             {"4f68bce3-e8cd-4db1-96e7-fbcaf984b709", "Linux root"},
             {"b921b045-1df0-41c3-af44-4c6f280d3fae", "Linux root"},
             {"933ac7e1-2eb4-4f13-b844-0e14e2aef915", "Linux home"},
             {"4d21b016-b534-45c2-a9fb-5c16e091fd2d", "Linux var"},
             {"bc13c2ff-59e6-4262-a352-b275fd6f7172", "Linux boot"},
             {"0657fd6d-a4ab-43c4-84e5-0933c84b4f4f", "Linux swap"},
             {"e6d6d379-f507-44c2-a23c-238f2a3df928", "Linux LVM"},
             {"a19d880f-05fc-4d3b-a006-743f0f84911e", "Linux RAID"},
             {"21686148-6449-6e6f-744e-656564454649", "BIOS boot"}};

/* Whether there is a header at this sector that is whole, with its entries; *ret is filled then. */
static bool read_copy(struct platter_disk *disk, unsigned size, uint64_t sector, struct gpt *ret)
{
    uint8_t header[4096];
    if (sector + 1 > platter_size(disk) / size ||
        platter_pread(disk, header, size, sector * size, NULL) ||
        memcmp(header, "EFI PART", 8) != 0 || le(header + 24, 8) != sector)
        return false;
    uint32_t length = (uint32_t)le(header + 12, 4), crc = (uint32_t)le(header + 16, 4);
    if (length < HEADER || length > size)
        return false;
    memset(header + 16, 0, 4);
    uint64_t at = le(header + 72, 8);
    ret->count = (uint32_t)le(header + 80, 4);
    ret->entry = (uint32_t)le(header + 84, 4);
    uint64_t bytes = (uint64_t)ret->count * ret->entry;
    if (crc32(0, header, length) != crc || ret->entry < 128 || ret->entry > 4096 ||
        bytes > MAX_ARRAY || bytes == 0 || at > platter_size(disk) / size ||
        bytes > platter_size(disk) - at * size)
        return false;
    ret->first = le(header + 40, 8);
    ret->last = le(header + 48, 8);
    ret->entries = malloc(bytes);
    if (ret->entries && platter_pread(disk, ret->entries, bytes, at * size, NULL) == 0 &&
        crc32(0, ret->entries, (uInt)bytes) == le(header + 88, 4))
        return true;
    free(ret->entries);
    ret->entries = NULL;
    return false;
}

static void add_entry(struct table *t, const struct gpt *g, unsigned number, const uint8_t *e)
{
    static const uint8_t unused[16] = {0};
    uint64_t first = le(e + 32, 8), last = le(e + 40, 8);
    if (memcmp(e, unused, 16) == 0)
        return;
    if (first < g->first || last < first || last > g->last) {
        snprintf(t->doubt, sizeof t->doubt,
                 "partition %u is said to be from sector %llu to %llu, which cannot be: left out",
                 number, (unsigned long long)first, (unsigned long long)last);
        return;
    }
    struct partition *p =
        table_add(t, number, first * t->sector_size, (last - first + 1) * t->sector_size);
    if (!p) {
        snprintf(t->doubt, sizeof t->doubt, "has more than %d partitions", MAX_PARTITIONS);
        return;
    }
    guid_text(e, p->type_id);
    guid_text(e + 16, p->uuid);
    utf16_text(e + 56, 36, p->name, sizeof p->name);
    memcpy(p->type, p->type_id, sizeof p->type);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].guid, p->type_id) == 0)
            snprintf(p->type, sizeof p->type, "%s", types[i].name);
}

static bool find(struct platter_disk *disk, struct gpt *g, struct table *t)
{
    for (unsigned size = 512; size <= 4096; size *= 8) {
        uint64_t sectors = platter_size(disk) / size;
        t->sector_size = size;
        if (sectors < 3)
            break;
        if (read_copy(disk, size, 1, g))
            return true;
        if (read_copy(disk, size, sectors - 1, g)) {
            snprintf(t->doubt, sizeof t->doubt,
                     "its first GPT is damaged: the copy at the end of the disk is taken");
            return true;
        }
    }
    return false;
}

int gpt_read(struct platter_disk *disk, struct table *t)
{
    struct gpt g = {0};
    if (!find(disk, &g, t))
        return -ENOENT;
    t->scheme = "gpt";
    if (g.last >= UINT64_MAX / t->sector_size)
        g.last = UINT64_MAX / t->sector_size - 1;
    for (uint32_t i = 0; i < g.count; i++)
        add_entry(t, &g, i + 1, g.entries + (size_t)i * g.entry);
    free(g.entries);
    return 0;
}
