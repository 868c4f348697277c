/* SPDX-License-Identifier: MIT */
/*
 * FAT12, FAT16 and FAT32 with long names, read-only, as Microsoft's "FAT32 File System
 * Specification" (FAT: General Overview of On-Disk Format, 1.03) has them.
 *
 * No library of Debian's reads FAT through a callback, and the programs that do need the disk as a
 * file, which takes FUSE. A node's id is where its entry stands on the volume; 0 is the root. A
 * chain of clusters ends after as many as there are at most: none goes round for ever.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "files.h"

enum {
    ENTRY = 32,
    MAX_FOLDER = 2 << 20, /* bytes; the specification's limit */
    LONG_UNITS = 13,      /* UTF-16 units of a long name in one entry */
    MAX_LONG = 20,        /* entries of one */
    READ_ONLY = 0x01,
    VOLUME_LABEL = 0x08,
    FOLDER = 0x10,
    LONG = 0x0f
};

struct fat {
    struct volume *volume;
    unsigned bits;              /* of an entry of the table: 12, 16, 32 */
    uint32_t cluster_size;      /* bytes */
    uint32_t clusters;          /* numbered from 2 */
    uint64_t table, root, data; /* offsets; root: of FAT12 and FAT16 */
    uint64_t table_size;        /* bytes */
    uint32_t root_size;         /* bytes; 0 on FAT32 */
    uint32_t root_cluster;      /* FAT32 */
};

static uint32_t le32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint16_t le16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

/* ---- open ------------------------------------------------------------------------------------ */

static int fat_decode(struct fat *f, const uint8_t *b, struct platter_error *err)
{
    uint32_t sector = le16(b + 11), reserved = le16(b + 14), copies = b[16];
    uint32_t entries = le16(b + 17), sectors = le16(b + 19), per_table = le16(b + 22);
    bool is_32 = per_table == 0;
    if (!sectors)
        sectors = le32(b + 32);
    if (is_32)
        per_table = le32(b + 36);
    f->cluster_size = sector * b[13];
    f->root_size = (entries * ENTRY + sector - 1) / sector * sector;
    f->table = (uint64_t)reserved * sector;
    f->table_size = (uint64_t)per_table * sector;
    /* FAT32 can have one of its tables in use alone. */
    if (is_32 && le16(b + 40) & 0x80)
        f->table += f->table_size * (le16(b + 40) & 0xf);
    f->root = (uint64_t)reserved * sector + copies * f->table_size;
    f->data = f->root + f->root_size;
    uint64_t size = (uint64_t)sectors * sector;
    if (size > f->volume->length || f->data >= size || f->table + f->table_size > f->root)
        return files_fail(err, PLATTER_ECORRUPT,
                          "%s: its file system has %llu bytes, tables to %llu, on %llu bytes: is "
                          "something of the disk missing?",
                          f->volume->title, (unsigned long long)size, (unsigned long long)f->data,
                          (unsigned long long)f->volume->length);
    uint64_t clusters = (size - f->data) / f->cluster_size;
    f->bits = is_32 ? 32 : clusters < 4085 ? 12 : 16;
    /* No more than the table has entries for. */
    uint64_t room = f->table_size * 8 / f->bits;
    if (room < 3 || clusters > 0x0ffffff5)
        return files_fail(err, PLATTER_ECORRUPT,
                          "%s: its table has %llu entries, for %llu clusters", f->volume->title,
                          (unsigned long long)room, (unsigned long long)clusters);
    f->clusters = (uint32_t)(clusters < room - 2 ? clusters : room - 2);
    f->root_cluster = is_32 ? le32(b + 44) : 0;
    return 0;
}

static int fat_open(struct volume *v, void **ret, struct platter_error *err)
{
    uint8_t boot[512];
    struct fs_kind kind;
    struct fat *f = calloc(1, sizeof *f);
    if (!f)
        return files_fail(err, ENOMEM, "%s: no memory to open it", v->title);
    f->volume = v;
    int r = fs_identify(v, &kind, err);
    if (r == 0 && kind.ops != &fat_ops)
        r = files_fail(err, PLATTER_ECORRUPT, "%s: has no FAT", v->title);
    if (r == 0)
        r = volume_read(v, boot, sizeof boot, 0, err);
    if (r == 0)
        r = fat_decode(f, boot, err);
    if (r < 0)
        free(f);
    else
        *ret = f;
    return r;
}

static void fat_close(void *fs)
{
    free(fs);
}

/* ---- chains ---------------------------------------------------------------------------------- */

enum { END = 0 }; /* which no cluster is called; an empty file begins there */

/* The cluster behind this one, or END. */
static int next_cluster(struct fat *f, uint32_t cluster, uint32_t *ret, struct platter_error *err)
{
    uint8_t bytes[4] = {0};
    unsigned size = f->bits == 32 ? 4 : 2;
    uint64_t at = f->bits == 12 ? cluster + cluster / 2 : (uint64_t)cluster * size;
    int r = volume_read(f->volume, bytes, size, f->table + at, err);
    if (r < 0)
        return r;
    uint32_t value = le32(bytes), mask = f->bits == 32 ? 0x0fffffff : (1u << f->bits) - 1;
    if (f->bits == 12 && cluster & 1)
        value >>= 4;
    value &= mask;
    if (value >= (mask & ~7u)) {
        *ret = END;
        return 0;
    }
    if (value < 2 || value - 2 >= f->clusters)
        return files_fail(err, PLATTER_ECORRUPT,
                          "%s: its table leads from cluster %u to %u, which is none",
                          f->volume->title, cluster, value);
    *ret = value;
    return 0;
}

/* Tells the pieces of a chain, of `size` bytes; where that is UINT64_MAX, up to its end. */
static int chain_runs(struct fat *f, uint32_t cluster, uint64_t size, run_fn fn, void *opaque,
                      struct platter_error *err)
{
    struct run run = {0};
    bool open_end = size == UINT64_MAX;
    int r = 0;
    if (cluster != END && (cluster < 2 || cluster - 2 >= f->clusters))
        return files_fail(err, PLATTER_ECORRUPT, "%s: a file begins at cluster %u, which is none",
                          f->volume->title, cluster);
    for (uint64_t at = 0, n = 0; r == 0 && at < size && cluster != END; n++) {
        uint64_t offset = f->data + (uint64_t)(cluster - 2) * f->cluster_size;
        if (n == f->clusters)
            return files_fail(err, PLATTER_ECORRUPT, "%s: a chain of clusters has no end",
                              f->volume->title);
        if (run.length && run.offset + run.length != offset) {
            r = fn(opaque, &run, err);
            run = (struct run){0};
        }
        if (!run.length)
            run = (struct run){.at = at, .offset = offset};
        run.length += size - at < f->cluster_size ? size - at : f->cluster_size;
        at += f->cluster_size;
        if (r == 0 && at < size)
            r = next_cluster(f, cluster, &cluster, err);
    }
    uint64_t end = run.at + run.length;
    if (r == 0 && run.length)
        r = fn(opaque, &run, err);
    if (r == 0 && !open_end && end < size)
        return files_fail(err, PLATTER_ECORRUPT,
                          "%s: a file has %llu bytes, but its clusters only %llu", f->volume->title,
                          (unsigned long long)size, (unsigned long long)end);
    return r;
}

/* ---- names ----------------------------------------------------------------------------------- */

/* Code page 437, from 0x80: what short names are in where nobody says otherwise. */
static const uint16_t page_437[128] = {
    0x00c7, 0x00fc, 0x00e9, 0x00e2, 0x00e4, 0x00e0, 0x00e5, 0x00e7, 0x00ea, 0x00eb, 0x00e8, 0x00ef,
    0x00ee, 0x00ec, 0x00c4, 0x00c5, 0x00c9, 0x00e6, 0x00c6, 0x00f4, 0x00f6, 0x00f2, 0x00fb, 0x00f9,
    0x00ff, 0x00d6, 0x00dc, 0x00a2, 0x00a3, 0x00a5, 0x20a7, 0x0192, 0x00e1, 0x00ed, 0x00f3, 0x00fa,
    0x00f1, 0x00d1, 0x00aa, 0x00ba, 0x00bf, 0x2310, 0x00ac, 0x00bd, 0x00bc, 0x00a1, 0x00ab, 0x00bb,
    0x2591, 0x2592, 0x2593, 0x2502, 0x2524, 0x2561, 0x2562, 0x2556, 0x2555, 0x2563, 0x2551, 0x2557,
    0x255d, 0x255c, 0x255b, 0x2510, 0x2514, 0x2534, 0x252c, 0x251c, 0x2500, 0x253c, 0x255e, 0x255f,
    0x255a, 0x2554, 0x2569, 0x2566, 0x2560, 0x2550, 0x256c, 0x2567, 0x2568, 0x2564, 0x2565, 0x2559,
    0x2558, 0x2552, 0x2553, 0x256b, 0x256a, 0x2518, 0x250c, 0x2588, 0x2584, 0x258c, 0x2590, 0x2580,
    0x03b1, 0x00df, 0x0393, 0x03c0, 0x03a3, 0x03c3, 0x00b5, 0x03c4, 0x03a6, 0x0398, 0x03a9, 0x03b4,
    0x221e, 0x03c6, 0x03b5, 0x2229, 0x2261, 0x00b1, 0x2265, 0x2264, 0x2320, 0x2321, 0x00f7, 0x2248,
    0x00b0, 0x2219, 0x00b7, 0x221a, 0x207f, 0x00b2, 0x25a0, 0x00a0};

/* Twelve characters, each of which may take three bytes, and what utf16_text() wants free. */
enum { SHORT_NAME = 12 * 3 + 8 };

static void short_name(const uint8_t *e, char ret[SHORT_NAME])
{
    uint8_t units[24];
    size_t n = 0;
    for (unsigned part = 0; part < 2; part++) {
        unsigned from = part ? 8 : 0, to = part ? 11 : 8;
        while (to > from && e[to - 1] == ' ')
            to--;
        if (part && to > from) {
            units[2 * n] = '.';
            units[2 * n++ + 1] = 0;
        }
        bool lower = e[12] & (part ? 0x10 : 0x08); /* as Windows NT keeps it */
        for (unsigned i = from; i < to; i++) {
            uint8_t c = i == 0 && e[0] == 0x05 ? 0xe5 : e[i];
            unsigned unit = c >= 0x80                       ? page_437[c - 0x80]
                            : lower && c >= 'A' && c <= 'Z' ? c + 32u
                            : c                             ? c
                                                            : '/'; /* no name has that */
            units[2 * n] = (uint8_t)unit;
            units[2 * n++ + 1] = (uint8_t)(unit >> 8);
        }
    }
    utf16_text(units, n, ret, SHORT_NAME);
}

/* A long name stands in entries before its short one, last part first. */
struct long_name {
    uint8_t units[MAX_LONG * LONG_UNITS * 2];
    unsigned parts, next; /* parts it has; the number of the one that must come, 0: it is whole */
    uint8_t sum;          /* of the short name */
};

static void long_part(struct long_name *l, const uint8_t *e)
{
    unsigned number = e[0] & 0x3f;
    if (e[0] & 0x40)
        *l = (struct long_name){.parts = number, .next = number, .sum = e[13]};
    if (number == 0 || number > MAX_LONG || number != l->next || e[13] != l->sum) {
        l->parts = 0;
        return;
    }
    uint8_t *to = l->units + (number - 1) * LONG_UNITS * 2;
    memcpy(to, e + 1, 10);
    memcpy(to + 10, e + 14, 12);
    memcpy(to + 22, e + 28, 4);
    l->next = number - 1;
}

static bool long_fits(const struct long_name *l, const uint8_t *e)
{
    uint8_t sum = 0;
    for (unsigned i = 0; i < 11; i++)
        sum = (uint8_t)((sum >> 1 | sum << 7) + e[i]);
    return l->parts && l->next == 0 && l->sum == sum;
}

/* ---- folders --------------------------------------------------------------------------------- */

struct scan {
    struct fat *fat;
    struct listing *listing;
    struct long_name name;
    bool ended;
    uint64_t bytes;
};

static int add_entry(struct scan *s, const uint8_t *e, uint64_t at, struct platter_error *err)
{
    char alias[SHORT_NAME], name[MAX_LONG * LONG_UNITS * 3 + 8];
    if (e[11] & VOLUME_LABEL)
        return 0;
    short_name(e, alias);
    if (strcmp(alias, ".") == 0 || strcmp(alias, "..") == 0)
        return 0;
    bool is_long = long_fits(&s->name, e);
    if (is_long)
        utf16_text(s->name.units, (size_t)s->name.parts * LONG_UNITS, name, sizeof name);
    return listing_add(s->listing, is_long ? name : alias, is_long ? strlen(name) : strlen(alias),
                       is_long ? alias : NULL, at, err);
}

static int scan_entry(struct scan *s, const uint8_t *e, uint64_t at, struct platter_error *err)
{
    int r = 0;
    if (e[0] == 0) {
        s->ended = true;
    } else if (e[0] == 0xe5) {
        s->name.parts = 0;
    } else if ((e[11] & 0x3f) == LONG) {
        long_part(&s->name, e);
    } else {
        r = add_entry(s, e, at, err);
        s->name.parts = 0;
    }
    return r;
}

static int scan_run(void *opaque, const struct run *run, struct platter_error *err)
{
    struct scan *s = opaque;
    s->bytes += run->length;
    if (s->bytes > MAX_FOLDER && !s->ended)
        return files_fail(err, PLATTER_ECORRUPT, "%s: a folder has more than %d bytes",
                          s->fat->volume->title, MAX_FOLDER);
    for (uint64_t done = 0; done < run->length && !s->ended; done += ENTRY) {
        uint8_t e[ENTRY];
        int r = volume_read(s->fat->volume, e, ENTRY, run->offset + done, err);
        if (r == 0)
            r = scan_entry(s, e, run->offset + done, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Where a chain begins: cluster 0 is the root, in entries "..", which nobody looks at. */
static uint32_t first_cluster(const struct fat *f, const uint8_t *e)
{
    return le16(e + 26) | (f->bits == 32 ? (uint32_t)le16(e + 20) << 16 : 0);
}

static int read_entry(struct fat *f, uint64_t id, uint8_t e[ENTRY], struct platter_error *err)
{
    return volume_read(f->volume, e, ENTRY, id, err);
}

static int fat_list(void *fs, const struct node *dir, struct listing *ret,
                    struct platter_error *err)
{
    struct fat *f = fs;
    struct scan *s = calloc(1, sizeof *s);
    if (!s)
        return files_fail(err, ENOMEM, "no memory for a folder");
    *s = (struct scan){.fat = f, .listing = ret};
    uint8_t e[ENTRY];
    int r = 0;
    uint32_t cluster = f->root_cluster;
    if (dir->id) {
        r = read_entry(f, dir->id, e, err);
        cluster = first_cluster(f, e);
    }
    if (r == 0 && !dir->id && f->bits != 32)
        r = scan_run(s, &(struct run){.offset = f->root, .length = f->root_size}, err);
    else if (r == 0 && !cluster)
        r = files_fail(err, PLATTER_ECORRUPT, "%s: a folder has no cluster", f->volume->title);
    else if (r == 0)
        r = chain_runs(f, cluster, UINT64_MAX, scan_run, s, err);
    free(s);
    if (r < 0)
        listing_free(ret);
    return r;
}

/* ---- nodes ----------------------------------------------------------------------------------- */

/* Local time, of whatever zone: ours, as everybody takes it. */
static struct timespec time_of(uint16_t date, uint16_t time)
{
    struct tm t = {.tm_year = 80 + (date >> 9),
                   .tm_mon = (date >> 5 & 15) - 1,
                   .tm_mday = date & 31,
                   .tm_hour = time >> 11,
                   .tm_min = time >> 5 & 63,
                   .tm_sec = 2 * (time & 31),
                   .tm_isdst = -1};
    if (!date)
        return (struct timespec){0};
    return (struct timespec){.tv_sec = mktime(&t)};
}

static int fat_node(void *fs, uint64_t id, struct node *ret, struct platter_error *err)
{
    uint8_t e[ENTRY];
    struct fat *f = fs;
    *ret = (struct node){.id = id, .place = f->root_cluster, .links = 1, .mode = S_IFDIR | 0755};
    if (!id)
        return 0;
    int r = read_entry(f, id, e, err);
    if (r < 0)
        return r;
    ret->place = first_cluster(f, e);
    if (!(e[11] & FOLDER)) {
        ret->mode = S_IFREG | (e[11] & READ_ONLY ? 0444 : 0644);
        ret->size = le32(e + 28);
    }
    ret->mtime = time_of(le16(e + 24), le16(e + 22));
    ret->atime = time_of(le16(e + 18), 0);
    return 0;
}

static int fat_runs(void *fs, const struct node *file, run_fn fn, void *opaque,
                    struct platter_error *err)
{
    uint8_t e[ENTRY];
    int r = read_entry(fs, file->id, e, err);
    return r < 0 ? r : chain_runs(fs, first_cluster(fs, e), file->size, fn, opaque, err);
}

const struct fs_ops fat_ops = {.open = fat_open,
                               .close = fat_close,
                               .any_case = true,
                               .node = fat_node,
                               .list = fat_list,
                               .runs = fat_runs};
