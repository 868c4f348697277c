/* SPDX-License-Identifier: MIT */
/* Broken qcow2 images: damage.h. Places are found by qcow2.md sections 2 to 4, 9 and 16 alone. */
#include "base/cursor.h"
#include "support/damage.h"
#include "support/ledger.h"
#include "support/must.h"

enum { CLUSTER = 4096, ENTRIES = CLUSTER / 8, BITMAPS = 0x23852875 };

#define COPIED (UINT64_C(1) << 63)
#define OFFSET UINT64_C(0x00FFFFFFFFFFFE00)
#define FAR    (UINT64_C(1) << 40)

static void write_stamps(struct platter_disk *disk, uint32_t number, uint64_t sector)
{
    uint8_t bytes[16 * SECTOR];
    ledger_stamp(bytes, number, sector, 16);
    MUST(platter_pwrite(disk, bytes, sizeof bytes, sector * SECTOR, NULL) == 0);
}

/* Two snapshots, which share some tables with the disk, and two bitmaps. */
void damage_prepare_qcow2(const char *path)
{
    struct platter_open_options open = {
        .size = sizeof open, .format = "qcow2", .flags = PLATTER_OPEN_WRITE};
    struct platter_snapshot_options one = {.size = sizeof one, .name = "one", .has_date = true};
    struct platter_snapshot_options two = {.size = sizeof two, .name = "two", .has_date = true};
    const struct platter_bitmap_change maps[] = {
        {.size = sizeof maps[0], .action = PLATTER_BITMAP_ADD, .name = "daily"},
        {.size = sizeof maps[0], .action = PLATTER_BITMAP_ADD, .name = "weekly"}};
    struct platter_disk *disk;
    MUST(platter_open(path, &open, &disk, NULL) == 0);
    MUST(platter_snapshot_create(disk, &one, NULL, NULL) == 0);
    write_stamps(disk, 3, 64);
    MUST(platter_snapshot_create(disk, &two, NULL, NULL) == 0);
    MUST(platter_bitmap_change(disk, maps, 2, NULL) == 0);
    write_stamps(disk, 4, 128);
    MUST(platter_close(disk, NULL) == 0);
}

/* ---- places ---------------------------------------------------------------------------------- */

static uint64_t number(const struct buffer *b, uint64_t at)
{
    return get_be(b->bytes + at, 8);
}

static uint8_t *l1_entry(struct buffer *b, uint64_t i)
{
    return b->bytes + number(b, 40) + i * 8;
}

static uint8_t *l2_entry(struct buffer *b, uint64_t cluster)
{
    uint64_t table = get_be(l1_entry(b, cluster / ENTRIES), 8) & OFFSET;
    return b->bytes + table + cluster % ENTRIES * 8;
}

static uint64_t place(struct buffer *b, uint64_t cluster)
{
    return get_be(l2_entry(b, cluster), 8) & OFFSET;
}

static uint8_t *block_entry(struct buffer *b, uint64_t i)
{
    return b->bytes + number(b, 48) + i * 8;
}

static void set_count(struct buffer *b, uint64_t off, unsigned count)
{
    put_be(b->bytes + get_be(block_entry(b, 0), 8) + off / CLUSTER * 2, 2, count);
}

/* The extension's payload, or NULL: section 2.1. */
static uint8_t *bitmaps(struct buffer *b)
{
    uint64_t at = get_be(b->bytes + 100, 4), type;
    while ((type = get_be(b->bytes + at, 4)) != BITMAPS && type)
        at += 8 + ((get_be(b->bytes + at + 4, 4) + 7) & ~UINT64_C(7));
    return type ? b->bytes + at + 8 : NULL;
}

uint64_t damage_kept(struct buffer *b)
{
    if (memcmp(b->bytes, "QFI\xfb", 4) != 0)
        return 0;
    return get_be(b->bytes + 60, 4) << 32 | (bitmaps(b) ? get_be(bitmaps(b), 4) : 0);
}

/* ---- damage ---------------------------------------------------------------------------------- */

static void harm_counts(struct buffer *b)
{
    set_count(b, place(b, 0), 0);
    set_count(b, place(b, 5), 9);
    set_count(b, place(b, 8192), 7);
    for (uint64_t n = 1000; n < 1100; n++)
        set_count(b, n * CLUSTER, 1);
}

static void harm_flags(struct buffer *b)
{
    for (uint64_t i = 0; i < 20; i++)
        put_be(l2_entry(b, i), 8, get_be(l2_entry(b, i), 8) ^ COPIED);
    put_be(l1_entry(b, 0), 8, get_be(l1_entry(b, 0), 8) ^ COPIED);
}

static void harm_entries(struct buffer *b)
{
    put_be(l2_entry(b, 1), 8, FAR | COPIED);
    put_be(l2_entry(b, 2), 8, get_be(l2_entry(b, 2), 8) + 512);
    put_be(l2_entry(b, 3), 8, get_be(l2_entry(b, 3), 8) | UINT64_C(1) << 57);
    put_be(l2_entry(b, 4), 8, number(b, 40) | COPIED);
    put_be(l1_entry(b, 16), 8, get_be(l1_entry(b, 16), 8) | 1);
    put_be(l1_entry(b, 5), 8, FAR);
}

static void harm_shared(struct buffer *b)
{
    put_be(l2_entry(b, 1), 8, get_be(l2_entry(b, 2), 8));
    put_be(l1_entry(b, 3), 8, get_be(l1_entry(b, 0), 8));
}

static void harm_block(struct buffer *b)
{
    put_be(block_entry(b, 0), 8, get_be(block_entry(b, 0), 8) + 1);
    put_be(l2_entry(b, 1), 8, FAR | COPIED);
}

static void harm_table(struct buffer *b)
{
    put_be(b->bytes + 48, 8, FAR);
}

static void harm_snapshots(struct buffer *b)
{
    put_be(b->bytes + number(b, 64), 8, FAR);
    set_count(b, number(b, 64), 0);
}

static void harm_all_snapshots(struct buffer *b)
{
    put_be(b->bytes + 64, 8, number(b, 40));
}

static void harm_bitmaps(struct buffer *b)
{
    uint64_t directory = get_be(bitmaps(b) + 16, 8);
    put_be(b->bytes + directory, 8, place(b, 7));
}

static void harm_all_bitmaps(struct buffer *b)
{
    put_be(bitmaps(b) + 16, 8, FAR);
}

/* Offset 48 of the first snapshot's entry is the size of its disk. */
static void harm_sizes(struct buffer *b)
{
    put_be(b->bytes + number(b, 64) + 48, 8, FAR);
    harm_flags(b);
}

/* What stands last is cut, be it a table or data. */
static void harm_cut(struct buffer *b)
{
    uint64_t lost = CLUSTER / 2 + 100;
    harm_entries(b);
    b->size -= lost;
    memset(b->bytes + b->size, 0, lost);
}

static void harm_dirty(struct buffer *b)
{
    put_be(b->bytes + 72, 8, 3);
    harm_counts(b);
    harm_entries(b);
    harm_bitmaps(b);
    harm_snapshots(b);
}

const struct damage qcow2_damages[] = {
    {"qcow2-counts", DAMAGE_QCOW2, harm_counts},
    {"qcow2-flags", DAMAGE_QCOW2, harm_flags},
    {"qcow2-entries", DAMAGE_QCOW2, harm_entries},
    {"qcow2-shared", DAMAGE_QCOW2, harm_shared},
    {"qcow2-block", DAMAGE_QCOW2, harm_block},
    {"qcow2-table", DAMAGE_QCOW2, harm_table},
    {"qcow2-snapshots", DAMAGE_QCOW2, harm_snapshots},
    {"qcow2-all-snapshots", DAMAGE_QCOW2, harm_all_snapshots},
    {"qcow2-bitmaps", DAMAGE_QCOW2, harm_bitmaps},
    {"qcow2-all-bitmaps", DAMAGE_QCOW2, harm_all_bitmaps},
    {"qcow2-sizes", DAMAGE_QCOW2, harm_sizes},
    {"qcow2-cut", DAMAGE_QCOW2, harm_cut},
    {"qcow2-dirty", DAMAGE_QCOW2, harm_dirty},
    {NULL, DAMAGE_QCOW2, NULL},
};
