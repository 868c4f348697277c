/* SPDX-License-Identifier: MIT */
/*
 * The partitions of a disk: a GPT (files_gpt.c), the four of an MBR with the logical ones in its
 * extended partition, or none, and then the disk is a volume itself.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "files.h"

enum {
    ENTRIES = 446, /* where the four entries of an MBR stand; 16 bytes each */
    MAX_LOGICAL = 256
};

static uint32_t le32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

int table_peek(struct platter_disk *disk, const char *title, void *buffer, size_t len,
               uint64_t offset, struct platter_error *err)
{
    uint64_t size = platter_size(disk);
    if (offset > size || len > size - offset)
        return files_fail(err, PLATTER_ECORRUPT,
                          "%s: its partition table leads to %llu, behind the end of the disk",
                          title, (unsigned long long)offset);
    return platter_pread(disk, buffer, len, offset, err);
}

struct partition *table_add(struct table *t, unsigned number, uint64_t start, uint64_t length)
{
    if (t->n == MAX_PARTITIONS)
        return NULL;
    struct partition *p = &t->parts[t->n++];
    *p = (struct partition){.number = number, .start = start, .length = length};
    return p;
}

/* ---- MBR ------------------------------------------------------------------------------------- */

static const struct {
    uint8_t id;
    const char *name;
} types[] = {{0x01, "FAT12"},      {0x04, "FAT16"},
             {0x05, "extended"},   {0x06, "FAT16"},
             {0x07, "NTFS/exFAT"}, {0x0b, "FAT32"},
             {0x0c, "FAT32"},      {0x0e, "FAT16"},
             {0x0f, "extended"},   {0x27, "Windows recovery"},
             {0x82, "Linux swap"}, {0x83, "Linux"},
             {0x85, "extended"},   {0x8e, "Linux LVM"},
             {0xa5, "FreeBSD"},    {0xee, "GPT"},
             {0xef, "EFI system"}, {0xfb, "VMware VMFS"},
             {0xfd, "Linux RAID"}};

static bool is_extended(uint8_t type)
{
    return type == 0x05 || type == 0x0f || type == 0x85;
}

/* Adds what an entry says; `base` is what its start counts from, in sectors. */
static struct partition *add_entry(struct table *t, unsigned number, const uint8_t *e,
                                   uint64_t base)
{
    uint64_t start = base + le32(e + 8), sectors = le32(e + 12);
    struct partition *p = table_add(t, number, start * t->sector_size, sectors * t->sector_size);
    if (!p)
        return NULL;
    snprintf(p->type_id, sizeof p->type_id, "0x%02x", e[4]);
    memcpy(p->type, p->type_id, sizeof p->type);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].id == e[4])
            snprintf(p->type, sizeof p->type, "%s", types[i].name);
    p->is_container = is_extended(e[4]);
    return p;
}

/* The chain of logical partitions: each table has one, and tells where the next table is. A table
 * that is not there ends the chain, and that is told. */
static int read_logical(struct platter_disk *disk, const char *title, uint64_t extended,
                        struct table *t, struct platter_error *err)
{
    uint64_t at = extended;
    for (unsigned n = 0; n <= MAX_LOGICAL; n++) {
        uint8_t sector[512];
        if (at * t->sector_size + 512 > platter_size(disk)) {
            snprintf(t->doubt, sizeof t->doubt,
                     "its chain of logical partitions leads behind the end of the disk");
            return 0;
        }
        int r = table_peek(disk, title, sector, sizeof sector, at * t->sector_size, err);
        if (r < 0)
            return r;
        if (sector[510] != 0x55 || sector[511] != 0xaa || n == MAX_LOGICAL) {
            snprintf(t->doubt, sizeof t->doubt,
                     n == MAX_LOGICAL ? "its chain of logical partitions has no end"
                                      : "the table of logical partitions at sector %llu is damaged",
                     (unsigned long long)at);
            return 0;
        }
        const uint8_t *own = sector + ENTRIES, *next = own + 16;
        if (own[4] && le32(own + 12))
            add_entry(t, 5 + n, own, at);
        if (!is_extended(next[4]) || !le32(next + 12))
            return 0;
        at = extended + le32(next + 8);
    }
    return 0;
}

/* The start of the first extended partition, in sectors, or 0. */
static uint64_t add_primary(struct table *t, const uint8_t *mbr)
{
    uint64_t extended = 0;
    for (unsigned i = 0; i < 4; i++) {
        const uint8_t *e = mbr + ENTRIES + 16 * i;
        if (!e[4] || !le32(e + 12))
            continue;
        add_entry(t, i + 1, e, 0);
        if (is_extended(e[4]) && !extended)
            extended = le32(e + 8);
        unsigned long serial = le32(mbr + 440);
        if (serial)
            snprintf(t->parts[t->n - 1].uuid, sizeof t->parts[0].uuid, "%08lx-%02x", serial, i + 1);
    }
    return extended;
}

/* Whether the entries can be those of partitions: boot sectors of file systems end with the same
 * mark. */
static bool is_mbr(const uint8_t *mbr)
{
    bool any = false;
    for (unsigned i = 0; i < 4; i++) {
        const uint8_t *e = mbr + ENTRIES + 16 * i;
        if (e[0] & 0x7f)
            return false;
        any |= e[4] && le32(e + 12) && le32(e + 8);
    }
    return any && mbr[510] == 0x55 && mbr[511] == 0xaa;
}

static bool has_gpt_entry(const uint8_t *mbr)
{
    for (unsigned i = 0; i < 4; i++)
        if (mbr[ENTRIES + 16 * i + 4] == 0xee)
            return true;
    return false;
}

/* Those whose first sector has the mark of an MBR, and any bytes where that has entries. */
static bool begins_with_boot_sector(const struct fs_kind *kind)
{
    static const char *const names[] = {"vfat", "ntfs", "exfat", "bitlocker", "refs"};
    for (size_t i = 0; kind->name && i < sizeof names / sizeof *names; i++)
        if (strcmp(kind->name, names[i]) == 0)
            return true;
    return false;
}

static int look_into(struct platter_disk *disk, const char *title, struct partition *p,
                     struct platter_error *err)
{
    struct volume v;
    if (p->is_container || p->start >= platter_size(disk))
        return 0;
    int r = volume_open(&v, disk, title, p->start, p->length, err);
    if (r == 0)
        r = fs_identify(&v, &p->kind, err);
    volume_close(&v);
    return r;
}

/* An MBR does not tell the size of its sectors. It is 512, unless only 4096 leads to something. */
static unsigned guess_sector(struct platter_disk *disk, const char *title, const uint8_t *mbr)
{
    for (unsigned size = 512; size <= 4096; size *= 8) {
        for (unsigned i = 0; i < 4; i++) {
            const uint8_t *e = mbr + ENTRIES + 16 * i;
            struct partition p = {.start = (uint64_t)le32(e + 8) * size,
                                  .length = (uint64_t)le32(e + 12) * size};
            uint8_t s[512];
            if (!e[4] || !p.start || !p.length || p.start + 512 > platter_size(disk))
                continue;
            if (is_extended(e[4]) ? platter_pread(disk, s, 512, p.start, NULL) == 0 &&
                                        s[510] == 0x55 && s[511] == 0xaa
                                  : look_into(disk, title, &p, NULL) == 0 && p.kind.name)
                return size;
        }
    }
    return 512;
}

static int mbr_read(struct platter_disk *disk, const char *title, const uint8_t *mbr,
                    struct table *t, struct platter_error *err)
{
    t->scheme = "mbr";
    t->sector_size = guess_sector(disk, title, mbr);
    uint64_t extended = add_primary(t, mbr);
    return extended ? read_logical(disk, title, extended, t, err) : 0;
}

/* ---- any of them ----------------------------------------------------------------------------- */

static int read_scheme(struct platter_disk *disk, const char *title, struct table *t,
                       struct platter_error *err)
{
    uint8_t mbr[512] = {0};
    struct partition whole = {.length = platter_size(disk)};
    int r = platter_size(disk) < 512 ? 0 : platter_pread(disk, mbr, sizeof mbr, 0, err);
    if (r == 0)
        r = look_into(disk, title, &whole, err);
    if (r < 0)
        return r;
    bool table = is_mbr(mbr) && !begins_with_boot_sector(&whole.kind);
    if (table && !has_gpt_entry(mbr))
        return mbr_read(disk, title, mbr, t, err);
    /* Without a table a mark decides; with one it is left from before there was one. */
    if (table || !whole.kind.name)
        r = gpt_read(disk, t);
    else
        r = -ENOENT;
    if (r != -ENOENT)
        return r;
    if (table)
        return files_fail(err, PLATTER_ECORRUPT,
                          "%s: has a GPT, says its first sector, but neither that nor its copy at "
                          "the end of the disk is whole",
                          title);
    t->parts[0] = whole;
    t->n = 1;
    snprintf(t->parts[0].type, sizeof t->parts[0].type, "whole disk");
    return 0;
}

int table_read(struct platter_disk *disk, const char *title, struct table **ret,
               struct platter_error *err)
{
    struct table *t = calloc(1, sizeof *t);
    if (!t)
        return files_fail(err, ENOMEM, "%s: no memory for its partitions", title);
    t->sector_size = 512;
    int r = read_scheme(disk, title, t, err);
    for (unsigned i = 0; t->scheme && i < t->n && r == 0; i++)
        if (look_into(disk, title, &t->parts[i], err) < 0)
            t->parts[i].unread = true; /* whoever wants it will hear of it */
    if (r < 0) {
        free(t);
        return r;
    }
    *ret = t;
    return 0;
}
