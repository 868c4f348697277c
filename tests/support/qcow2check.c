/* SPDX-License-Identifier: MIT */
/*
 * Counts what refers to each cluster of a qcow2 and compares that with the counts the image stores
 * (qcow2.md section 18). An error is a count below the references, a COPIED flag on what is not
 * owned once, an entry that cannot be true, or one cluster used for two purposes.
 */
#include "support/imagecheck.h"

#include <stdlib.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "support/must.h"

enum use {
    USE_NONE,
    USE_HEADER,
    USE_L1,
    USE_TABLE,
    USE_BLOCK,
    USE_SNAPSHOTS,
    USE_BITMAPS,
    USE_L2,
    USE_DATA,
    USE_PACKED
};

struct checker {
    const uint8_t *bytes;
    uint64_t size;
    struct image_report *report;
    uint32_t version, cluster_bits, order;
    uint64_t cluster, clusters; /* size of one, and how many the file has, the cut one included */
    uint64_t table, table_entries;
    uint32_t n_snapshots;
    bool extended, data_file;
    uint64_t *refs;  /* per cluster of the file */
    uint8_t *use;    /* enum use of the first that referred to it */
    uint8_t *copied; /* an entry that refers to it has COPIED set */
};

static uint64_t be(const struct checker *c, uint64_t off, unsigned n)
{
    /* The file may end inside its last cluster: zeros follow (section 1). */
    uint64_t value = 0;
    for (unsigned i = 0; i < n; i++)
        value = value << 8 | (off + i < c->size ? c->bytes[off + i] : 0);
    return value;
}

/* The count that the image stores for a cluster (section 3). */
static uint64_t stored_count(const struct checker *c, uint64_t index)
{
    uint64_t bits = (uint64_t)1 << c->order, per_block = c->cluster * 8 / bits;
    if (index / per_block >= c->table_entries)
        return 0;
    uint64_t block = be(c, c->table + index / per_block * 8, 8) & ~(uint64_t)511;
    if (block == 0)
        return 0;
    uint64_t bit = index % per_block * bits;
    if (bits >= 8)
        return be(c, block + bit / 8, (unsigned)bits / 8);
    return be(c, block + bit / 8, 1) >> bit % 8 & (((uint64_t)1 << bits) - 1);
}

/* Whether [off, off + len) may be a structure: aligned, inside the file. */
static bool placed(struct checker *c, uint64_t off, uint64_t len, const char *what)
{
    if (off % c->cluster == 0 && off != 0 && range_inside(off, len, c->clusters * c->cluster))
        return true;
    report_error(c->report, "%s at %#llx + %#llx is misaligned or outside the file", what,
                 (unsigned long long)off, (unsigned long long)len);
    return false;
}

/* Whether two references of these kinds may share a cluster at all. */
static bool may_share(const struct checker *c, enum use a, enum use b)
{
    return a == b && (a == USE_PACKED || (c->n_snapshots && (a == USE_L2 || a == USE_DATA)));
}

static void refer(struct checker *c, uint64_t off, uint64_t len, enum use use)
{
    for (uint64_t i = off >> c->cluster_bits; i <= (off + len - 1) >> c->cluster_bits; i++) {
        if (c->refs[i]++ == 0)
            c->use[i] = (uint8_t)use;
        else if (!may_share(c, c->use[i], use))
            report_error(c->report, "cluster at %#llx has two owners, of kinds %u and %u",
                         (unsigned long long)(i << c->cluster_bits), c->use[i], use);
    }
}

static bool own(struct checker *c, uint64_t off, uint64_t len, enum use use, const char *what)
{
    if (len == 0)
        return false;
    bool good = placed(c, off, len, what);
    if (good)
        refer(c, off, len, use);
    return good;
}

/* COPIED promises that there is one reference (section 3). They are judged at the end. */
static void check_copied(struct checker *c, uint64_t entry, uint64_t off)
{
    if (entry >> 63)
        c->copied[off >> c->cluster_bits] = 1;
}

static void check_packed(struct checker *c, uint64_t entry)
{
    unsigned x = 62 - (c->cluster_bits - 8);
    uint64_t off = entry & (((uint64_t)1 << x) - 1);
    uint64_t sectors = (entry & ~((uint64_t)3 << 62)) >> x;
    uint64_t len = (sectors + 1) * 512 - off % 512;
    if (entry >> 63 || c->data_file)
        report_error(c->report, "compressed entry %#llx is not allowed", (unsigned long long)entry);
    else if (off < c->cluster || !range_inside(off, len, c->clusters * c->cluster) ||
             off >= c->size)
        report_error(c->report, "compressed entry %#llx lies outside the file",
                     (unsigned long long)entry);
    else
        refer(c, off, len, USE_PACKED);
}

static void check_bitmap(struct checker *c, uint64_t bitmap, bool somewhere, bool packed)
{
    if (packed ? bitmap != 0 : (bitmap & bitmap >> 32 & UINT32_MAX) != 0)
        report_error(c->report, "invalid subcluster bitmap %#llx", (unsigned long long)bitmap);
    else if (!packed && !somewhere && (bitmap & UINT32_MAX) != 0)
        report_error(c->report, "bitmap %#llx without a cluster", (unsigned long long)bitmap);
}

static void check_l2_entry(struct checker *c, uint64_t at, bool active)
{
    uint64_t entry = be(c, at, 8), off = entry & 0x00fffffffffffe00u;
    bool packed = entry >> 62 & 1;
    /* The first cluster of a data file has offset 0: it is COPIED that tells (section 4). */
    bool somewhere = off != 0 || (c->data_file && entry >> 63);
    if (c->extended)
        check_bitmap(c, be(c, at + 8, 8), somewhere, packed);
    if (packed) {
        check_packed(c, entry);
        return;
    }
    uint64_t reserved = 0x3f000000000001feu | (c->extended || c->version < 3 ? 1 : 0);
    if (entry & reserved)
        report_error(c->report, "L2 entry %#llx at %#llx has reserved bits",
                     (unsigned long long)entry, (unsigned long long)at);
    if (c->data_file || off == 0)
        return;
    if (own(c, off, c->cluster, USE_DATA, "data cluster") && active)
        check_copied(c, entry, off);
}

static void check_l2(struct checker *c, uint64_t off, bool active)
{
    uint64_t step = c->extended ? 16 : 8;
    for (uint64_t at = off; at < off + c->cluster; at += step)
        check_l2_entry(c, at, active);
}

static void check_l1(struct checker *c, uint64_t off, uint64_t entries, bool active)
{
    if (!own(c, off, entries * 8, USE_L1, "L1 table"))
        return;
    for (uint64_t i = 0; i < entries; i++) {
        uint64_t entry = be(c, off + i * 8, 8), l2 = entry & 0x00fffffffffffe00u;
        if (entry & 0x7f000000000001ffu)
            report_error(c->report, "L1 entry %#llx has reserved bits", (unsigned long long)entry);
        if (l2 == 0 || !own(c, l2, c->cluster, USE_L2, "L2 table"))
            continue;
        if (active)
            check_copied(c, entry, l2);
        check_l2(c, l2, active);
    }
}

/* Section 9.1. */
static void check_snapshots(struct checker *c, uint64_t off)
{
    uint64_t at = off;
    for (uint32_t i = 0; i < c->n_snapshots; i++) {
        check_l1(c, be(c, at, 8), be(c, at + 8, 4), false);
        at += 40 + be(c, at + 36, 4) + be(c, at + 12, 2) + be(c, at + 14, 2);
        at = round_up(at, 8);
    }
    if (c->n_snapshots)
        own(c, off, at - off, USE_SNAPSHOTS, "snapshot table");
}

/* Section 16: a table of offsets, and clusters of bits. */
static void check_bitmap_table(struct checker *c, uint64_t table, uint64_t entries)
{
    if (!own(c, table, entries * 8, USE_BITMAPS, "bitmap table"))
        return;
    for (uint64_t i = 0; i < entries; i++) {
        uint64_t entry = be(c, table + i * 8, 8), off = entry & 0x00fffffffffffe00u;
        if (entry & 0xff000000000001feu || (off && entry & 1))
            report_error(c->report, "bitmap table entry %#llx has reserved bits",
                         (unsigned long long)entry);
        else if (off)
            own(c, off, c->cluster, USE_BITMAPS, "cluster of a bitmap");
    }
}

/* Those that the extension in cluster 0 names, if they are valid. */
static void check_bitmaps(struct checker *c)
{
    enum { BITMAPS_EXTENSION = 0x23852875 };
    uint64_t at = c->version > 2 ? be(c, 100, 4) : 0, length;
    if (at == 0 || !(be(c, 88, 8) & 1))
        return;
    for (; be(c, at, 4) != BITMAPS_EXTENSION; at += 8 + round_up(length, 8)) {
        length = be(c, at + 4, 4);
        if (be(c, at, 4) == 0 || at + length > c->cluster)
            return;
    }
    uint64_t n = be(c, at + 8, 4), size = be(c, at + 16, 8), directory = be(c, at + 24, 8);
    if (!own(c, directory, size, USE_BITMAPS, "bitmap directory"))
        return;
    for (at = directory; n > 0 && at + 24 <= directory + size && !c->report->errors; n--) {
        check_bitmap_table(c, be(c, at, 8), be(c, at + 8, 4));
        at += round_up(24 + be(c, at + 18, 2) + be(c, at + 20, 4), 8);
    }
    if (n > 0 || at != directory + size)
        report_error(c->report, "the bitmap directory has another length");
}

static void check_table(struct checker *c)
{
    if (!own(c, c->table, c->table_entries * 8, USE_TABLE, "refcount table"))
        return;
    for (uint64_t i = 0; i < c->table_entries; i++) {
        uint64_t entry = be(c, c->table + i * 8, 8);
        if (entry & 511)
            report_error(c->report, "refcount table entry %#llx has reserved bits",
                         (unsigned long long)entry);
        else if (entry)
            own(c, entry, c->cluster, USE_BLOCK, "refcount block");
    }
}

/* What the counts say against what was found. */
static void compare_counts(struct checker *c)
{
    for (uint64_t i = 0; i < c->clusters; i++) {
        uint64_t count = stored_count(c, i);
        unsigned long long at = i << c->cluster_bits;
        if (c->copied[i] && (count != 1 || c->refs[i] != 1)) {
            report_error(c->report, "COPIED on %#llx: count %llu, references %llu", at,
                         (unsigned long long)count, (unsigned long long)c->refs[i]);
            c->report->overcounted += count > 1 && c->refs[i] == 1;
        }
        if (count < c->refs[i])
            report_error(c->report, "cluster at %#llx (kind %u): count %llu, references %llu", at,
                         c->use[i], (unsigned long long)count, (unsigned long long)c->refs[i]);
        else if (count > c->refs[i])
            report_leak(c->report, "cluster at %#llx: count %llu, references %llu", at,
                        (unsigned long long)count, (unsigned long long)c->refs[i]);
    }
}

/* Section 2. False: nothing more can be said. */
static bool read_header(struct checker *c)
{
    c->version = (uint32_t)be(c, 4, 4);
    c->cluster_bits = (uint32_t)be(c, 20, 4);
    if (c->size < 72 || be(c, 0, 4) != 0x514649fb || c->version < 2 || c->version > 3 ||
        c->cluster_bits < 9 || c->cluster_bits > 21) {
        report_error(c->report, "the header is not one of a qcow2");
        return false;
    }
    uint64_t incompatible = c->version > 2 ? be(c, 72, 8) : 0;
    if (incompatible & 3)
        report_error(c->report, "the image is marked as dirty or corrupt");
    c->data_file = incompatible >> 2 & 1;
    c->extended = incompatible >> 4 & 1;
    c->order = c->version > 2 ? (uint32_t)be(c, 96, 4) : 4;
    c->cluster = (uint64_t)1 << c->cluster_bits;
    c->clusters = div_up(c->size, c->cluster);
    c->table = be(c, 48, 8);
    c->table_entries = be(c, 56, 4) * c->cluster / 8;
    c->n_snapshots = (uint32_t)be(c, 60, 4);
    if (c->order > 6 || !range_inside(c->table, c->table_entries * 8, c->size + c->cluster)) {
        report_error(c->report, "the header's refcount table cannot be");
        return false;
    }
    return true;
}

void qcow2_judge(const uint8_t *bytes, uint64_t size, struct image_report *ret)
{
    struct checker c = {.bytes = bytes, .size = size, .report = ret};
    *ret = (struct image_report){0};
    if (!read_header(&c))
        return;
    c.refs = calloc(c.clusters, sizeof *c.refs);
    c.use = calloc(c.clusters, 1);
    c.copied = calloc(c.clusters, 1);
    MUST(c.refs && c.use && c.copied);
    refer(&c, 0, c.cluster, USE_HEADER);
    check_table(&c);
    check_l1(&c, be(&c, 40, 8), be(&c, 36, 4), true);
    check_snapshots(&c, be(&c, 64, 8));
    check_bitmaps(&c);
    compare_counts(&c);
    free(c.refs);
    free(c.use);
    free(c.copied);
}
