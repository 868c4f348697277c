/* SPDX-License-Identifier: MIT */
/*
 * What is on a volume, by the marks that file systems put at its beginning, and their label and
 * UUID: enough to tell people what they have, also where its files cannot be read here.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "files.h"

enum { HEAD = 68 << 10 }; /* the last mark, that of btrfs, is at 64 KiB */

static uint32_t le32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint16_t le16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

/* ---- texts ----------------------------------------------------------------------------------- */

static void uuid_text(const uint8_t *u, char ret[48])
{
    char *to = ret;
    for (unsigned i = 0; i < 16; i++)
        to += sprintf(to, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", u[i]);
}

void guid_text(const uint8_t g[16], char ret[48])
{
    uint8_t big[16] = {g[3], g[2], g[1], g[0], g[5], g[4], g[7], g[6]};
    memcpy(big + 8, g + 8, 8);
    uuid_text(big, ret);
}

static size_t utf8_put(uint32_t c, char *to)
{
    if (c < 0x80) {
        to[0] = (char)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, c >>= 6)
        to[i] = (char)(0x80 | (c & 0x3f));
    to[0] = (char)((0xf00 >> n) | c);
    return n;
}

void utf16_text(const uint8_t *units, size_t n, char *ret, size_t size)
{
    size_t len = 0;
    for (size_t i = 0; i < n && len + 5 < size; i++) {
        uint32_t c = le16(units + 2 * i);
        if (c == 0)
            break;
        uint32_t low = i + 1 < n ? le16(units + 2 * i + 2) : 0;
        if (c >= 0xd800 && c < 0xdc00 && low >= 0xdc00 && low < 0xe000) {
            c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
            i++;
        } else if (c >= 0xd800 && c < 0xe000) {
            c = 0xfffd;
        }
        len += utf8_put(c, ret + len);
    }
    ret[len] = '\0';
}

/* Text that ends with zeros or with blanks. */
static void padded_text(const uint8_t *bytes, size_t n, char *ret)
{
    size_t len = strnlen((const char *)bytes, n);
    while (len > 0 && bytes[len - 1] == ' ')
        len--;
    memcpy(ret, bytes, len);
    ret[len] = '\0';
}

/* ---- marks ----------------------------------------------------------------------------------- */

/* Label and UUID stand at fixed places, or nowhere (0). */
struct mark {
    const char *name;
    uint32_t at, len;
    const char *bytes;
    uint32_t label, label_len, uuid;
    bool uuid_is_text;
};

static const struct mark marks[] = {
    {"luks", 0, 6, "LUKS\xba\xbe", 0, 0, 168, true},
    {"xfs", 0, 4, "XFSB", 108, 12, 32, false},
    {"ntfs", 3, 8, "NTFS    ", 0, 0, 0, false},
    {"exfat", 3, 8, "EXFAT   ", 0, 0, 0, false},
    {"bitlocker", 3, 8, "-FVE-FS-", 0, 0, 0, false},
    {"refs", 3, 8, "ReFS\0\0\0\0", 0, 0, 0, false},
    {"squashfs", 0, 4, "hsqs", 0, 0, 0, false},
    {"lvm", 512, 8, "LABELONE", 0, 0, 0, false},
    {"lvm", 0, 8, "LABELONE", 0, 0, 0, false},
    {"lvm", 1024, 8, "LABELONE", 0, 0, 0, false},
    {"lvm", 1536, 8, "LABELONE", 0, 0, 0, false},
    {"f2fs", 1024, 4, "\x10\x20\xf5\xf2", 0, 0, 1024 + 108, false},
    {"erofs", 1024, 4, "\xe2\xe1\xf5\xe0", 1024 + 64, 16, 1024 + 48, false},
    {"hfsplus", 1024, 2, "H+", 0, 0, 0, false},
    {"raid", 4096, 4, "\xfc\x4e\x2b\xa9", 4096 + 32, 32, 4096 + 16, false},
    {"raid", 0, 4, "\xfc\x4e\x2b\xa9", 32, 32, 16, false},
    {"swap", 4086, 10, "SWAPSPACE2", 1024 + 28, 16, 1024 + 12, false},
    {"btrfs", 65536 + 64, 8, "_BHRfS_M", 65536 + 299, 256, 65536 + 32, false},
    {"iso9660", 32769, 5, "CD001", 32808, 32, 0, false},
    {"vmfs", 0, 4, "\x5e\xf1\xab\x2f", 0, 0, 0, false},
};

static bool mark_fits(const struct mark *m, const uint8_t *head, size_t len, struct fs_kind *ret)
{
    if (m->at + m->len > len || memcmp(head + m->at, m->bytes, m->len) != 0)
        return false;
    ret->name = m->name;
    if (m->label && m->label + m->label_len <= len)
        padded_text(head + m->label, m->label_len, ret->label);
    if (m->uuid && m->uuid_is_text && m->uuid + 40 <= len)
        padded_text(head + m->uuid, 40, ret->uuid);
    else if (m->uuid && m->uuid + 16 <= len)
        uuid_text(head + m->uuid, ret->uuid);
    return true;
}

enum { EXT_AT = 1024, EXT_JOURNAL_DEVICE = 8, EXT_NEWER = 0x40 | 0x80 | 0x200 | 0x8000 };

static bool is_ext(const uint8_t *head, size_t len, struct fs_kind *ret)
{
    const uint8_t *s = head + EXT_AT;
    if (len < EXT_AT + 1024 || le16(s + 56) != 0xef53)
        return false;
    uint32_t compatible = le32(s + 92), incompatible = le32(s + 96), read_only = le32(s + 100);
    bool newer = incompatible & EXT_NEWER || read_only & 0x478; /* 0x478: huge files, checksums.. */
    ret->name = incompatible & EXT_JOURNAL_DEVICE ? "ext-journal"
                : newer                           ? "ext4"
                : compatible & 4                  ? "ext3"
                                                  : "ext2";
    ret->ops = incompatible & EXT_JOURNAL_DEVICE ? NULL : &ext_ops;
    uuid_text(s + 104, ret->uuid);
    padded_text(s + 120, 16, ret->label);
    return true;
}

static bool is_power(uint32_t n, uint32_t from, uint32_t to)
{
    return n >= from && n <= to && (n & (n - 1)) == 0;
}

/* FAT has no mark that others have not: its parameters have to make sense. */
static bool is_fat(const uint8_t *h, size_t len, struct fs_kind *ret)
{
    if (len < 512 || le16(h + 510) != 0xaa55 || !is_power(le16(h + 11), 512, 4096) ||
        !is_power(h[13], 1, 128) || le16(h + 14) == 0 || h[16] < 1 || h[16] > 4 ||
        (h[21] < 0xf8 && h[21] != 0xf0) || (le16(h + 19) == 0 && le32(h + 32) == 0) ||
        (le16(h + 22) == 0 && le32(h + 36) == 0))
        return false;
    const uint8_t *more = h + (le16(h + 22) ? 36 : 64);
    ret->name = "vfat";
    ret->ops = &fat_ops;
    if (more[2] == 0x29) {
        uint32_t serial = le32(more + 3);
        sprintf(ret->uuid, "%04X-%04X", serial >> 16, serial & 0xffff);
        padded_text(more + 7, 11, ret->label);
        if (strcmp(ret->label, "NO NAME") == 0)
            ret->label[0] = '\0';
    }
    return true;
}

int fs_identify(struct volume *v, struct fs_kind *ret, struct platter_error *err)
{
    size_t len = v->length < HEAD ? (size_t)v->length : HEAD;
    *ret = (struct fs_kind){0};
    uint8_t *head = malloc(len + 1);
    if (!head)
        return files_fail(err, ENOMEM, "%s: no memory for its first bytes", v->title);
    int r = len ? volume_read(v, head, len, 0, err) : 0;
    bool found = r < 0;
    for (size_t i = 0; !found && i < sizeof marks / sizeof *marks; i++)
        found = mark_fits(&marks[i], head, len, ret);
    if (!found)
        found = is_ext(head, len, ret) || is_fat(head, len, ret);
    free(head);
    return r;
}

/* ---- listings -------------------------------------------------------------------------------- */

enum { MAX_ENTRIES = 8 << 20 }; /* ext4's own limit is about ten million */

int listing_add(struct listing *l, const char *name, size_t len, const char *alias, uint64_t id,
                struct platter_error *err)
{
    if (l->n == MAX_ENTRIES)
        return files_fail(err, EFBIG, "a folder has more than %d entries", MAX_ENTRIES);
    if (l->n == l->room) {
        size_t room = l->room ? 2 * l->room : 64;
        struct entry *more = realloc(l->entries, room * sizeof *more);
        if (!more)
            return files_fail(err, ENOMEM, "no memory for the entries of a folder");
        l->entries = more;
        l->room = room;
    }
    struct entry e = {strndup(name, len), alias ? strdup(alias) : NULL, id};
    if (!e.name || (alias && !e.alias)) {
        free(e.name);
        free(e.alias);
        return files_fail(err, ENOMEM, "no memory for the entries of a folder");
    }
    l->entries[l->n++] = e;
    return 0;
}

static int compare_entries(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    int r = strcmp(x->name, y->name);
    return r ? r : (x->id > y->id) - (x->id < y->id);
}

void listing_sort(struct listing *l)
{
    if (l->n)
        qsort(l->entries, l->n, sizeof *l->entries, compare_entries);
}

const char *listing_twice(struct listing *l)
{
    listing_sort(l);
    for (size_t i = 1; i < l->n; i++)
        if (strcmp(l->entries[i - 1].name, l->entries[i].name) == 0)
            return l->entries[i].name;
    return NULL;
}

void listing_free(struct listing *l)
{
    for (size_t i = 0; i < l->n; i++) {
        free(l->entries[i].name);
        free(l->entries[i].alias);
    }
    free(l->entries);
    *l = (struct listing){0};
}

/* ---- folders that were gone into ------------------------------------------------------------- */

static uint64_t *slot_of(uint64_t *places, size_t room, uint64_t key)
{
    size_t at = (size_t)(key * 0x9e3779b97f4a7c15u >> 20) & (room - 1);
    while (places[at] && places[at] != key)
        at = (at + 1) & (room - 1);
    return &places[at];
}

static int seen_grow(struct seen *s, struct platter_error *err)
{
    size_t room = s->room ? 2 * s->room : 64;
    uint64_t *more = calloc(room, sizeof *more);
    if (!more)
        return files_fail(err, ENOMEM, "no memory for the folders that were gone into");
    for (size_t i = 0; i < s->room; i++)
        if (s->places[i])
            *slot_of(more, room, s->places[i]) = s->places[i];
    free(s->places);
    s->places = more;
    s->room = room;
    return 0;
}

int seen_add(struct seen *s, uint64_t place, struct platter_error *err)
{
    int r = 2 * (s->n + 1) > s->room ? seen_grow(s, err) : 0;
    if (r < 0)
        return r;
    uint64_t *slot = slot_of(s->places, s->room, place + 1);
    if (*slot)
        return files_fail(err, EEXIST,
                          "is a folder that was there before: it is in itself, or in two places");
    *slot = place + 1;
    s->n++;
    return 0;
}

void seen_free(struct seen *s)
{
    free(s->places);
    *s = (struct seen){0};
}
