/* SPDX-License-Identifier: MIT */
/* Broken images: damage.h. Places are found by vmdk.md sections 4.1 to 4.4, 6 and 7 alone. */
#include "support/damage.h"

#include "base/cursor.h"
#include "support/esx.h"
#include "support/ledger.h"
#include "support/must.h"
#include "support/process.h"

enum {
    MIB = 1 << 20,
    DISK = 34 * MIB, /* two grain tables */
    ROOM = 4 * MIB,
    GRAIN = 128,      /* sectors */
    TABLE = 512,      /* entries */
    ESX_GRAIN = 8,    /* sectors; of both kinds: three tables */
    ESX_TABLE = 4096, /* entries */
    COWD_GD_AT = 4 * SECTOR,
    COWD_FREE_AT = 28,
    COWD_UNCLEAN_AT = 1648,
    SE_GD_AT = 128,
    SE_TABLES_AT = 144,
    NOWHERE = 10000000
};

/* What ESX would make of a disk with the same content. */
static struct buffer esx_base(enum esx_kind kind)
{
    struct buffer content = buffer_new(700 * SECTOR);
    ledger_stamp(content.bytes, 1, 0, 700);
    struct buffer one = esx_make(kind, DISK, ESX_GRAIN, content.bytes, ESX_GRAIN * SECTOR);
    struct buffer b = buffer_copy(&one, ROOM);
    struct stream *s;
    struct platter_disk *disk;
    buffer_free(&one);
    MUST(stream_buffer_open(&b, "image", true, &s, NULL) == 0);
    MUST(esx_open(kind, DISK / SECTOR, s, NULL, 0, true, 0, &disk, NULL) == 0);
    MUST(disk_write(disk, content.bytes, 700 * SECTOR, 0, NULL) == 0);
    ledger_stamp(content.bytes, 2, 65536, 300);
    MUST(disk_write(disk, content.bytes, 300 * SECTOR, 32 * (uint64_t)MIB, NULL) == 0);
    MUST(disk_flush(disk, NULL) == 0 && disk_close(disk, NULL) == 0);
    buffer_free(&content);
    return b;
}

const char *damage_format(enum damage_base base)
{
    if (base == DAMAGE_QCOW2)
        return "qcow2";
    return base == DAMAGE_QCOW || base == DAMAGE_QCOW_PACKED ? "qcow" : "vmdk";
}

struct buffer damage_base(enum damage_base base)
{
    static const char *const options[] = {[DAMAGE_SPARSE] = "subformat=monolithicSparse",
                                          [DAMAGE_STREAM] = "subformat=streamOptimized",
                                          [DAMAGE_QCOW2] = "cluster_size=4096",
                                          [DAMAGE_QCOW_PACKED] = NULL};
    if (base == DAMAGE_COWD || base == DAMAGE_SESPARSE)
        return esx_base(base == DAMAGE_COWD ? ESX_COWD : ESX_SESPARSE);
    auto_free char *raw = scratch_path("damage.raw"), *path = scratch_path("damage.vmdk");
    struct buffer content = buffer_new(DISK);
    content.size = DISK;
    ledger_stamp(content.bytes, 1, 0, 700);
    ledger_stamp(content.bytes + 32 * (uint64_t)MIB, 2, 65536, 300);
    buffer_save(&content, raw);
    buffer_free(&content);
    struct platter_open_options open = {.size = sizeof open, .format = "raw"};
    struct platter_convert_options convert = {
        .size = sizeof convert,
        .format = damage_format(base),
        .flags = base == DAMAGE_QCOW_PACKED ? PLATTER_CONVERT_COMPRESS : 0,
        .options = options[base]};
    struct platter_disk *disk;
    MUST(platter_open(raw, &open, &disk, NULL) == 0);
    MUST(platter_convert(&disk, 1, path, &convert, NULL, NULL) == 0);
    platter_close(disk, NULL);
    if (base == DAMAGE_QCOW2)
        damage_prepare_qcow2(path);
    return buffer_load(path, 0);
}

struct buffer damage_make(const struct buffer *base, const struct damage *d)
{
    struct buffer b = buffer_copy(base, base->size + ROOM);
    d->harm(&b);
    return b;
}

/* No damage is done to the magic and version of a qcow or qcow2. */
static const struct format *format_of(struct stream *s)
{
    uint8_t magic[8] = {0};
    stream_pread(s, magic, sizeof magic, 0, NULL);
    if (memcmp(magic, "QFI\xfb\0\0\0\1", 8) == 0)
        return format_find("qcow");
    return format_find(memcmp(magic, "QFI\xfb", 4) == 0 ? "qcow2" : "vmdk");
}

const struct damage *damage_next(const struct damage *d)
{
    const struct damage *next = d ? d + 1 : vmdk_damages;
    if (!next->name && next->base != DAMAGE_QCOW2 && next->base != DAMAGE_QCOW)
        next = qcow2_damages;
    if (!next->name && next->base == DAMAGE_QCOW2)
        next = qcow_damages;
    return next->name ? next : NULL;
}

int damage_check(struct stream *s, bool repair, struct platter_check_result *ret,
                 struct platter_error *err)
{
    struct check c = {.mend_all = repair, .mend_leaks = repair};
    struct platter_disk *disk;
    const struct format *format = format_of(s);
    int r = disk_assemble_for_check(s, format, repair, 0, NULL, &disk, err);
    if (r < 0)
        return r;
    r = format->check(disk_top(disk), &c, err);
    *ret = c.result;
    int closed = disk_close(disk, r < 0 ? NULL : err);
    return r < 0 ? r : closed;
}

int damage_read(struct buffer *b, uint8_t ret_content[DAMAGE_SEEN], struct platter_error *err)
{
    struct stream *s;
    struct platter_disk *disk;
    MUST(stream_buffer_open(b, "image", false, &s, NULL) == 0);
    const struct format *format = format_of(s);
    int r = disk_assemble(&s, &format, 1, false, true, 0, NULL, &disk, err);
    if (r < 0)
        return r;
    r = disk_read(disk, ret_content, MIB, 0, err);
    if (r == 0)
        r = disk_read(disk, ret_content + MIB, MIB, 32 * (uint64_t)MIB, err);
    disk_close(disk, NULL);
    return r;
}

/* ---- places ---------------------------------------------------------------------------------- */

static uint8_t *directory(struct buffer *b, unsigned copy)
{
    uint64_t gd = get_le(b->bytes + (copy ? 48 : 56), 8);
    if (gd == UINT64_MAX)
        gd = get_le(b->bytes + b->size - 1024 + 56, 8);
    return b->bytes + gd * SECTOR;
}

static uint8_t *entry(struct buffer *b, unsigned copy, uint64_t grain)
{
    uint64_t table = get_le(directory(b, copy) + grain / TABLE * 4, 4);
    return b->bytes + table * SECTOR + grain % TABLE * 4;
}

static void set(struct buffer *b, unsigned copy, uint64_t grain, uint32_t value)
{
    put_le(entry(b, copy, grain), 4, value);
}

static void set_both(struct buffer *b, uint64_t grain, uint32_t value)
{
    set(b, 0, grain, value);
    set(b, 1, grain, value);
}

/* ---- damage ---------------------------------------------------------------------------------- */

static void harm_tables(struct buffer *b)
{
    uint32_t first = (uint32_t)get_le(entry(b, 0, 0), 4);
    set(b, 0, 1, NOWHERE);
    set(b, 1, 2, NOWHERE);
    set_both(b, 3, NOWHERE);
    set(b, 0, 4, 0);
    set(b, 1, 512, 0);
    set(b, 1, 513, first);
}

static void harm_shared(struct buffer *b)
{
    uint32_t first = (uint32_t)get_le(entry(b, 0, 0), 4);
    for (unsigned grain = 1; grain < 4; grain++)
        set_both(b, grain, first);
    set_both(b, 514, first + GRAIN / 2);
}

static void harm_directories(struct buffer *b)
{
    put_le(directory(b, 0), 4, NOWHERE);
    put_le(directory(b, 1) + 4, 4, 0);
}

static void harm_both_directories(struct buffer *b)
{
    set_both(b, 5, 5);
    put_le(directory(b, 0) + 4, 4, 3);
    put_le(directory(b, 1) + 4, 4, NOWHERE);
}

static void harm_same_table(struct buffer *b)
{
    memcpy(directory(b, 0) + 4, directory(b, 0), 4);
}

static void harm_header(struct buffer *b)
{
    put_le(b->bytes + 56, 8, NOWHERE);
    b->bytes[72] = 1;
}

static void harm_leaks(struct buffer *b)
{
    memset(b->bytes + b->size, 0xe5, 5 * GRAIN * SECTOR + 77);
    b->size += 5 * GRAIN * SECTOR + 77;
    set_both(b, 2, 0);
    b->bytes[72] = 1;
}

static void harm_space(struct buffer *b)
{
    harm_leaks(b);
    set_both(b, 543, GRAIN); /* behind the capacity */
    set_both(b, 600, GRAIN);
}

static void harm_cut(struct buffer *b)
{
    b->size -= 1536;
}

static void harm_cut_record(struct buffer *b)
{
    b->size = get_le(entry(b, 0, 514), 4) * SECTOR + 300;
}

static void harm_footer(struct buffer *b)
{
    put_le(b->bytes + b->size - 1024 + 20, 8, 64);
}

static void harm_stream_header(struct buffer *b)
{
    put_le(b->bytes, 4, 0);
}

static void harm_stream_tables(struct buffer *b)
{
    set(b, 0, 1, (uint32_t)get_le(entry(b, 0, 2), 4));
    put_le(directory(b, 0) + 4, 4, 0);
}

/* The entry of a grain in a COWD file. */
static uint8_t *cowd_entry(struct buffer *b, uint64_t grain)
{
    uint64_t table = get_le(b->bytes + COWD_GD_AT + grain / ESX_TABLE * 4, 4);
    return b->bytes + table * SECTOR + grain % ESX_TABLE * 4;
}

static void harm_cowd_entries(struct buffer *b)
{
    put_le(cowd_entry(b, 1), 4, NOWHERE);
    put_le(cowd_entry(b, 2), 4, get_le(cowd_entry(b, 0), 4));
    put_le(cowd_entry(b, 3), 4, 2);
    put_le(cowd_entry(b, 8193), 4, get_le(cowd_entry(b, 0), 4) + ESX_GRAIN / 2);
    put_le(b->bytes + COWD_FREE_AT, 4, 10);
}

static void harm_cowd_directory(struct buffer *b)
{
    put_le(b->bytes + COWD_GD_AT + 8, 4, NOWHERE);
    put_le(cowd_entry(b, 5), 4, get_le(cowd_entry(b, 4), 4));
}

static void harm_cowd_leaks(struct buffer *b)
{
    memset(b->bytes + b->size, 0xe5, 5 * ESX_GRAIN * SECTOR + 77);
    b->size += 5 * ESX_GRAIN * SECTOR + 77;
    put_le(b->bytes + COWD_FREE_AT, 4, b->size / SECTOR + 1);
    put_le(cowd_entry(b, 2), 4, 0);
    put_le(b->bytes + COWD_UNCLEAN_AT, 4, 1);
}

/* The entry of a grain in a seSparse file. */
static uint8_t *se_entry(struct buffer *b, uint64_t grain)
{
    const uint8_t *gd = b->bytes + get_le(b->bytes + SE_GD_AT, 8) * SECTOR;
    uint64_t table = get_le(gd + grain / ESX_TABLE * 8, 4);
    return b->bytes + (get_le(b->bytes + SE_TABLES_AT, 8) + table * 64) * SECTOR +
           grain % ESX_TABLE * 8;
}

static void harm_se_entries(struct buffer *b)
{
    put_le(se_entry(b, 1), 8, UINT64_C(5) << 60);
    put_le(se_entry(b, 2), 8, UINT64_C(3) << 60 | 1 << 20); /* an index of 2^32 */
    put_le(se_entry(b, 8200), 8, 77);
    put_le(se_entry(b, 9000), 8, UINT64_C(3) << 60); /* behind the capacity */
}

const struct damage vmdk_damages[] = {
    {"tables", DAMAGE_SPARSE, harm_tables},
    {"shared", DAMAGE_SPARSE, harm_shared},
    {"directories", DAMAGE_SPARSE, harm_directories},
    {"both-directories", DAMAGE_SPARSE, harm_both_directories},
    {"same-table", DAMAGE_SPARSE, harm_same_table},
    {"header", DAMAGE_SPARSE, harm_header},
    {"leaks", DAMAGE_SPARSE, harm_leaks},
    {"space", DAMAGE_SPARSE, harm_space},
    {"cut", DAMAGE_STREAM, harm_cut},
    {"cut-record", DAMAGE_STREAM, harm_cut_record},
    {"footer", DAMAGE_STREAM, harm_footer},
    {"stream-header", DAMAGE_STREAM, harm_stream_header},
    {"stream-tables", DAMAGE_STREAM, harm_stream_tables},
    {"cowd-entries", DAMAGE_COWD, harm_cowd_entries},
    {"cowd-directory", DAMAGE_COWD, harm_cowd_directory},
    {"cowd-leaks", DAMAGE_COWD, harm_cowd_leaks},
    {"sesparse-entries", DAMAGE_SESPARSE, harm_se_entries},
    {NULL, DAMAGE_SPARSE, NULL},
};
