/* SPDX-License-Identifier: MIT */
/*
 * Compressed grains that are checked, and the tables of a stream made anew from them: vmdk.md
 * sections 5.1 to 5.6 and 13.
 *
 * A stream is made anew from its records alone: what stands behind the last of them is cut off,
 * then tables, directory and footer are appended. At any point in between the records are all
 * there, so that it can be done again.
 */
#include <endian.h>
#include <inttypes.h>

#include "base/codec.h"
#include "format/vmdk/check.h"

enum { HEAD_PLAIN = 4, LOOK = 64 << 10 };

/* ---- one record ------------------------------------------------------------------------------ */

static uint64_t head_size(const struct sparse_check *s)
{
    return s->h.flags & HOSTED_MARKERS ? RECORD_HEAD : HEAD_PLAIN;
}

int check_record(struct sparse_check *s, uint64_t grain, uint64_t sector, uint64_t *ret_sectors,
                 struct platter_error *why)
{
    bool markers = s->h.flags & HOSTED_MARKERS;
    uint8_t head[RECORD_HEAD];
    uint64_t lba = grain * s->h.grain_size, bytes = s->h.grain_size * VMDK_SECTOR;
    hoff off = sector * VMDK_SECTOR;
    *ret_sectors = 0;
    int r = stream_pread_tail(s->stream, head, sizeof head, off, why);
    if (r < 0)
        return r;
    uint64_t found = markers ? get_le(head, 8) : lba;
    uint64_t size = get_le(markers ? head + 8 : head, 4);
    if (found != lba)
        return fail(why, PLATTER_ECORRUPT,
                    "%s: the record at byte %" PRIu64 " is of sector %" PRIu64
                    " of the disk, but the table names it for sector %" PRIu64,
                    s->name, off, found, lba);
    if (size == 0 || size > 2 * bytes)
        return fail(why, PLATTER_ECORRUPT,
                    "%s: the record at byte %" PRIu64 " says it has %" PRIu64
                    " bytes; 1 to %" PRIu64 " are possible",
                    s->name, off, size, 2 * bytes);
    if (!range_inside(off, head_size(s) + size, s->size))
        return fail(why, PLATTER_ECORRUPT,
                    "%s: the record at byte %" PRIu64 " has %" PRIu64
                    " bytes, which reach over the end of the file at byte %" PRIu64,
                    s->name, off, size, s->size);
    *ret_sectors = div_up(head_size(s) + size, VMDK_SECTOR);
    return 0;
}

/* ---- a scan ---------------------------------------------------------------------------------- */

/* Whether a record may stand at a sector. What inflates is believed more than the header's overHead
 * where all tables are made anew: that is then made to fit. */
static bool may_stand(const struct sparse_check *s, uint64_t sector)
{
    const struct hosted_header *h = &s->h;
    bool text =
        sector >= h->descriptor_offset && sector - h->descriptor_offset < h->descriptor_size;
    if (sector == 0 || sector > UINT32_MAX || text)
        return false;
    return s->rebuild || (sector >= h->overhead && !check_in_meta(s, sector, 1));
}

/* A record that inflates; the later of two is the newer one. */
static int note_record(void *opaque, const struct stream_item *item, struct platter_error *err)
{
    (void)err;
    struct sparse_check *s = opaque;
    if (item->kind != ITEM_RECORD || item->grain >= s->grains || !may_stand(s, item->sector))
        return 0;
    if (!item->sound) { /* damaged, but not gone: what is left of it is kept */
        if (s->rebuild && range_inside(item->sector * VMDK_SECTOR, item->bytes, s->size))
            s->end = max_u64(s->end, item->sector + div_up(item->bytes, VMDK_SECTOR));
        return 0;
    }
    s->found[item->grain] = (uint32_t)item->sector;
    if (s->rebuild) {
        s->end = max_u64(s->end, item->sector + div_up(item->bytes, VMDK_SECTOR));
        s->h.overhead = min_u64(s->h.overhead, item->sector);
    }
    return 0;
}

static int scan(struct sparse_check *s, struct platter_error *err)
{
    if (s->found)
        return 0;
    int r =
        budget_alloc(s->budget, s->grains * 4, "the places of a stream's grains", &s->found, err);
    if (r == 0 && (s->h.flags & HOSTED_MARKERS))
        r = stream_scan(s->stream, &s->h, s->size, s->budget, note_record, s, err);
    return r;
}

int check_find_record(struct sparse_check *s, uint64_t grain, uint32_t *ret_sector,
                      struct platter_error *err)
{
    int r = scan(s, err);
    *ret_sector = r == 0 ? s->found[grain] : 0;
    return r;
}

/* ---- what no table knows --------------------------------------------------------------------- */

int check_zero_run(struct sparse_check *s, uint64_t sector, uint64_t most, uint64_t *ret,
                   struct platter_error *err)
{
    uint8_t bytes[LOOK];
    *ret = 0;
    while (*ret < most) {
        uint64_t len, want = (most - *ret) * VMDK_SECTOR;
        bool hole;
        int r = stream_extents(s->stream, (sector + *ret) * VMDK_SECTOR, want, &len, &hole, err);
        if (r == 0 && hole && len >= VMDK_SECTOR) {
            *ret += len / VMDK_SECTOR;
            continue;
        }
        uint64_t n = min_u64(want, sizeof bytes);
        if (r == 0)
            r = stream_pread(s->stream, bytes, (size_t)n, (sector + *ret) * VMDK_SECTOR, err);
        if (r < 0)
            return r;
        for (uint64_t i = 0; i < n; i += VMDK_SECTOR, ++*ret)
            if (!is_zero(bytes + i, VMDK_SECTOR))
                return 0;
    }
    return 0;
}

/* What the table says of a grain: 0 where there is no table. */
static int entry_of(struct sparse_check *s, uint64_t grain, uint32_t *ret,
                    struct platter_error *err)
{
    uint8_t entry[4] = {0};
    uint32_t gt = s->gd[PRIMARY] ? s->gd[PRIMARY][grain / s->h.gtes_per_gt] : 0;
    int r = 0;
    if (gt)
        r = stream_pread(s->stream, entry, sizeof entry,
                         (hoff)gt * VMDK_SECTOR + grain % s->h.gtes_per_gt * 4, err);
    *ret = (uint32_t)get_le(entry, 4);
    return r;
}

/* Whether the record inflates, to all that the disk shows of its grain: what a scan would find. */
static int is_sound(struct sparse_check *s, hoff off, uint64_t number, uint64_t size, bool *ret,
                    struct platter_error *err)
{
    uint64_t grain = s->h.grain_size * VMDK_SECTOR, room = size + grain;
    uint64_t need = min_u64(grain, s->h.capacity * VMDK_SECTOR - number * grain);
    uint8_t *bytes;
    size_t got = 0;
    int r = budget_alloc(s->budget, room, "a compressed grain of a VMDK", &bytes, err);
    if (r < 0)
        return r;
    r = stream_pread(s->stream, bytes, (size_t)size, off + head_size(s), err);
    *ret = r == 0 &&
           codec_unpack(CODEC_ZLIB, bytes, (size_t)size, bytes + size, (size_t)grain, &got, NULL) ==
               0 &&
           got >= need;
    budget_free(s->budget, bytes, room);
    return r;
}

/* A record that no table names. A stream with its directory at the end was written once, from front
 * to back: each of its records was named once. */
static int check_stray_record(struct sparse_check *s, uint64_t sector, uint64_t grain,
                              uint64_t size, enum stray *ret, struct platter_error *err)
{
    uint32_t entry = 0;
    bool sound = false;
    int r = s->at_end ? entry_of(s, grain, &entry, err) : 0;
    *ret = STRAY_LEAK;
    if (r == 0 && s->at_end && entry == 0)
        r = is_sound(s, sector * VMDK_SECTOR, grain, size, &sound, err);
    if (r < 0 || !sound)
        return r;
    *ret = STRAY_LOST;
    s->rebuild = true;
    check_found(s->check, PLATTER_FINDING_ERROR, s->mend, 1,
                "%s: the record at byte %" PRIu64 " is of grain %" PRIu64 " (sector %" PRIu64
                " of the extent), but no table names it%s",
                s->name, sector * VMDK_SECTOR, grain, grain * s->h.grain_size,
                s->mend ? "; all tables are made anew" : "");
    return 0;
}

/* What a sector begins with. */
enum what { WHAT_ZEROS, WHAT_MARKER, WHAT_RECORD, WHAT_NOISE };

static int look_at(struct sparse_check *s, uint64_t sector, uint8_t bytes[VMDK_SECTOR],
                   enum what *ret, struct platter_error *err)
{
    int r = stream_pread(s->stream, bytes, VMDK_SECTOR, sector * VMDK_SECTOR, err);
    uint64_t lba = get_le(bytes, 8), size = get_le(bytes + 8, 4);
    if (is_zero(bytes, VMDK_SECTOR))
        *ret = WHAT_ZEROS;
    else if (size == 0 && is_zero(bytes + 16, VMDK_SECTOR - 16))
        *ret = WHAT_MARKER;
    else if (size != 0 && lba % s->h.grain_size == 0 && lba < s->h.capacity &&
             size <= 2 * s->h.grain_size * VMDK_SECTOR &&
             range_inside(sector * VMDK_SECTOR, RECORD_HEAD + size, s->size))
        *ret = WHAT_RECORD;
    else
        *ret = WHAT_NOISE;
    return r;
}

/* How many sectors from `sector` on make no sense. */
static int noise_run(struct sparse_check *s, uint64_t sector, uint64_t most, uint64_t *ret,
                     struct platter_error *err)
{
    uint8_t bytes[VMDK_SECTOR];
    enum what what = WHAT_NOISE;
    int r = 0;
    for (*ret = 1; *ret < most && r == 0; ++*ret) {
        r = look_at(s, sector + *ret, bytes, &what, err);
        if (r == 0 && what != WHAT_NOISE)
            break;
    }
    return r;
}

/* A marker, with what it leads to: a table that was replaced, if no table is known there. */
static uint64_t marker_sectors(const struct sparse_check *s, const uint8_t *bytes)
{
    if (marker_is(bytes, MARKER_GT))
        return 1 + s->gt_sectors;
    if (marker_is(bytes, MARKER_GD))
        return 1 + div_up((uint64_t)s->gd_count * 4, VMDK_SECTOR);
    return marker_is(bytes, MARKER_FOOTER) ? 2 : 1;
}

int check_stray(struct sparse_check *s, uint64_t sector, uint64_t most, enum stray *ret,
                uint64_t *ret_sectors, struct platter_error *err)
{
    uint8_t bytes[VMDK_SECTOR];
    enum what what;
    *ret = STRAY_NOTHING;
    *ret_sectors = most;
    int r = s->h.flags & HOSTED_MARKERS ? look_at(s, sector, bytes, &what, err) : 0;
    if (r < 0 || !(s->h.flags & HOSTED_MARKERS))
        return r;
    uint64_t lba = get_le(bytes, 8), size = get_le(bytes + 8, 4);
    switch (what) {
    case WHAT_ZEROS:
        return check_zero_run(s, sector, most, ret_sectors, err);
    case WHAT_MARKER:
        *ret_sectors = min_u64(marker_sectors(s, bytes), most);
        return 0;
    case WHAT_RECORD:
        *ret_sectors = min_u64(div_up(RECORD_HEAD + size, VMDK_SECTOR), most);
        return check_stray_record(s, sector, lba / s->h.grain_size, size, ret, err);
    case WHAT_NOISE:
        break;
    }
    *ret = s->at_end ? STRAY_NOTHING : STRAY_LEAK;
    return noise_run(s, sector, most, ret_sectors, err);
}

/* ---- tables made anew ------------------------------------------------------------------------ */

/* The end of a stream while it is written. */
struct tail {
    struct sparse_check *s;
    uint64_t sector;
    uint32_t *gd; /* in the order of bytes of the file */
};

static int append(struct tail *t, const void *bytes, uint64_t sectors, struct platter_error *err)
{
    int r = stream_pwrite(t->s->stream, bytes, (size_t)(sectors * VMDK_SECTOR),
                          t->sector * VMDK_SECTOR, err);
    t->sector += sectors;
    return r;
}

static int append_marker(struct tail *t, enum marker type, uint64_t sectors,
                         struct platter_error *err)
{
    uint8_t sector[VMDK_SECTOR];
    marker_encode(type, sectors, sector);
    return append(t, sector, 1, err);
}

/* The table of a range, if it has grains. */
static int append_table(struct tail *t, uint32_t i, struct platter_error *err)
{
    const struct sparse_check *s = t->s;
    uint8_t table[VMDK_MAX_GTES * 4] = {0};
    uint32_t n = s->h.gtes_per_gt;
    uint64_t first = (uint64_t)i * n, have = min_u64(n, s->grains - first);
    for (uint64_t j = 0; j < have; j++)
        put_le(table + j * 4, 4, s->found[first + j]);
    if (is_zero(table, n * 4))
        return 0;
    int r = append_marker(t, MARKER_GT, s->gt_sectors, err);
    t->gd[i] = htole32((uint32_t)t->sector);
    return r < 0 ? r : append(t, table, s->gt_sectors, err);
}

/* Directory and footer: the footer is what makes all of it count, so it is written last. */
static int append_footer(struct tail *t, uint64_t gd_sectors, struct platter_error *err)
{
    struct sparse_check *s = t->s;
    struct hosted_header footer = s->h;
    uint8_t sectors[2 * VMDK_SECTOR] = {0}; /* and the end of the stream, which is zeros */
    int r = append_marker(t, MARKER_GD, gd_sectors, err);
    footer.gd_offset = t->sector;
    footer.rgd_offset = 0;
    footer.at_end = true;
    hosted_encode(&footer, sectors);
    if (r == 0)
        r = append(t, t->gd, gd_sectors, err);
    if (r == 0)
        r = stream_flush(s->stream, err);
    if (r == 0)
        r = append_marker(t, MARKER_FOOTER, 1, err);
    if (r == 0)
        r = append(t, sectors, 2, err);
    return r < 0 ? r : stream_flush(s->stream, err);
}

/* What the header must know before the footer goes: the capacity may have stood there alone
 * (section 4.1), and overHead be wrong. */
static int renew_header(struct sparse_check *s, struct platter_error *err)
{
    struct hosted_header header = s->h;
    uint8_t sector[VMDK_SECTOR];
    header.gd_offset = HOSTED_GD_AT_END;
    header.rgd_offset = 0;
    header.at_end = false;
    hosted_encode(&header, sector);
    int r = stream_pwrite(s->stream, sector, sizeof sector, 0, err);
    return r < 0 ? r : stream_flush(s->stream, err);
}

static int write_tail(struct sparse_check *s, struct platter_error *err)
{
    struct tail t = {.s = s, .sector = s->end};
    uint64_t gd_sectors = div_up((uint64_t)s->gd_count * 4, VMDK_SECTOR);
    int r = budget_alloc(s->budget, gd_sectors * VMDK_SECTOR, "the grain directory of a VMDK",
                         &t.gd, err);
    for (uint32_t i = 0; i < s->gd_count && r == 0; i++)
        r = append_table(&t, i, err);
    if (r == 0)
        r = t.sector > UINT32_MAX
                ? fail(err, EFBIG, "%s: is too large for tables of 32 bits", s->name)
                : append_footer(&t, gd_sectors, err);
    budget_free(s->budget, t.gd, gd_sectors * VMDK_SECTOR);
    return r;
}

/* A descriptor that is not in the file is nowhere, or where it was found all the same. */
static void settle_descriptor(struct sparse_check *s)
{
    const struct vmdk *v = vmdk_of(s->img);
    struct hosted_header *h = &s->h;
    uint64_t end;
    if (!ckd_add(&end, h->descriptor_offset, h->descriptor_size) && end <= s->size / VMDK_SECTOR)
        return;
    bool found = v->descriptor && v->embedded;
    h->descriptor_offset = found ? v->descriptor_off / VMDK_SECTOR : 0;
    h->descriptor_size = found ? v->descriptor_len / VMDK_SECTOR : 0;
}

int check_rebuild(struct sparse_check *s, struct platter_error *err)
{
    struct hosted_header *h = &s->h;
    budget_free(s->budget, s->found, s->grains * 4);
    s->found = NULL;
    settle_descriptor(s);
    s->end = max_u64(h->descriptor_offset + h->descriptor_size, 1);
    h->overhead = min_u64(h->overhead, s->size / VMDK_SECTOR);
    int r = scan(s, err);
    s->end = max_u64(s->end, h->overhead);
    if (r == 0)
        r = renew_header(s, err);
    if (r == 0)
        r = stream_resize(s->stream, s->end * VMDK_SECTOR, err);
    if (r == 0)
        r = stream_flush(s->stream, err);
    s->size = s->end * VMDK_SECTOR;
    return r == 0 ? write_tail(s, err) : r;
}
