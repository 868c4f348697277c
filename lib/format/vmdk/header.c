/* SPDX-License-Identifier: MIT */
/*
 * The header of a hosted sparse file, and the footer that replaces it in streams whose grain
 * directory stands at the end: vmdk.md sections 4.1, 4.2, 5.2, 5.3.
 *
 * Invariant: a header that hosted_read() returned has every number bounded, so that sums and
 * products of its fields with the size of a sector cannot overflow.
 */
#include <inttypes.h>

#include "format/vmdk/vmdk.h"

static const uint8_t newline_bytes[4] = {'\n', ' ', '\r', '\n'};

bool hosted_magic(const uint8_t *sector)
{
    return memcmp(sector, "KDMV", 4) == 0;
}

void hosted_decode(const uint8_t sector[VMDK_SECTOR], struct hosted_header *ret)
{
    struct reader r = reader_over(sector, VMDK_SECTOR);
    read_skip(&r, 4);
    ret->version = read_le32(&r);
    ret->flags = read_le32(&r);
    ret->capacity = read_le64(&r);
    ret->grain_size = read_le64(&r);
    ret->descriptor_offset = read_le64(&r);
    ret->descriptor_size = read_le64(&r);
    ret->gtes_per_gt = read_le32(&r);
    ret->rgd_offset = read_le64(&r);
    ret->gd_offset = read_le64(&r);
    ret->overhead = read_le64(&r);
    ret->unclean = read_u8(&r);
    for (unsigned i = 0; i < sizeof ret->newlines; i++)
        ret->newlines[i] = read_u8(&r);
    ret->compression = read_le16(&r);
    ret->at_end = false;
}

void hosted_encode(const struct hosted_header *h, uint8_t sector[VMDK_SECTOR])
{
    struct writer w = writer_over(sector, VMDK_SECTOR);
    write_bytes(&w, "KDMV", 4);
    write_le32(&w, h->version);
    write_le32(&w, h->flags);
    write_le64(&w, h->capacity);
    write_le64(&w, h->grain_size);
    write_le64(&w, h->descriptor_offset);
    write_le64(&w, h->descriptor_size);
    write_le32(&w, h->gtes_per_gt);
    write_le64(&w, h->rgd_offset);
    write_le64(&w, h->gd_offset);
    write_le64(&w, h->overhead);
    write_u8(&w, h->unclean);
    write_bytes(&w, newline_bytes, sizeof newline_bytes);
    write_le16(&w, h->compression);
    write_pad_to(&w, VMDK_SECTOR);
}

void marker_encode(enum marker type, uint64_t sectors, uint8_t sector[VMDK_SECTOR])
{
    struct writer w = writer_over(sector, VMDK_SECTOR);
    write_le64(&w, sectors);
    write_le32(&w, 0);
    write_le32(&w, type);
    write_pad_to(&w, VMDK_SECTOR);
}

bool marker_is(const uint8_t sector[VMDK_SECTOR], enum marker type)
{
    return get_le(sector + 8, 4) == 0 && get_le(sector + 12, 4) == type;
}

bool marker_leads(const uint8_t sector[VMDK_SECTOR], enum marker type, uint64_t payload)
{
    uint64_t sectors = get_le(sector, 8);
    return marker_is(sector, type) && (sectors == 0 || sectors >= div_up(payload, VMDK_SECTOR));
}

/* ---- checks ---------------------------------------------------------------------------------- */

uint64_t hosted_directory_entries(const struct hosted_header *h)
{
    return div_up(h->capacity, h->grain_size * h->gtes_per_gt);
}

static int check_version(const char *name, const struct hosted_header *h, struct platter_error *err)
{
    if (h->version < 1 || h->version > 3)
        return fail(err, ENOTSUP, "%s: VMDK version %" PRIu32 " is not known (1 to 3 are)", name,
                    h->version);
    uint32_t unknown = h->flags >> 16 & ~UINT32_C(3);
    if (unknown)
        return fail(err, ENOTSUP,
                    "%s: header flags 0x%08" PRIx32 " have bits that are not known and must be",
                    name, h->flags);
    if ((h->flags & HOSTED_NEWLINES) && memcmp(h->newlines, newline_bytes, 4) != 0)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the line ends in its header (offset 73) were changed: the file was "
                    "transferred as text and is damaged; transfer it again as binary",
                    name);
    if (h->compression > 1)
        return fail(err, ENOTSUP, "%s: compression method %u is not known", name, h->compression);
    if ((h->flags & (HOSTED_COMPRESSED | HOSTED_MARKERS)) && h->compression == 0)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: header flags 0x%08" PRIx32 " say compressed, but the method is 0", name,
                    h->flags);
    return 0;
}

static int check_geometry(const char *name, const struct hosted_header *h,
                          struct platter_error *err)
{
    if (h->capacity > VMDK_MAX_SECTORS)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: capacity (header offset 12) of %" PRIu64 " sectors is beyond the limit",
                    name, h->capacity);
    if (!is_power_of_2(h->grain_size) || h->grain_size > VMDK_MAX_GRAIN)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: grain size (header offset 20) of %" PRIu64
                    " sectors is not a power of two from 1 to %d",
                    name, h->grain_size, VMDK_MAX_GRAIN);
    if (!is_power_of_2(h->gtes_per_gt) || h->gtes_per_gt < VMDK_MIN_GTES ||
        h->gtes_per_gt > VMDK_MAX_GTES)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: grain tables (header offset 44) of %" PRIu32
                    " entries: not a power of two from %d to %d",
                    name, h->gtes_per_gt, VMDK_MIN_GTES, VMDK_MAX_GTES);
    uint64_t entries = hosted_directory_entries(h);
    if (entries > VMDK_MAX_DIRECTORY)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: capacity %" PRIu64 " with grains of %" PRIu64
                    " sectors takes a grain directory of %" PRIu64 " entries; %d is the limit",
                    name, h->capacity, h->grain_size, entries, VMDK_MAX_DIRECTORY);
    return 0;
}

/* Whether `sectors` sectors at `at` stand in the file, behind the header. */
static int check_area(const char *name, const char *what, uint64_t at, uint64_t bytes,
                      uint64_t file_size, struct platter_error *err)
{
    uint64_t off;
    if (at == 0 || ckd_mul(&off, at, (uint64_t)VMDK_SECTOR) || !range_inside(off, bytes, file_size))
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the %s (%" PRIu64 " bytes at sector %" PRIu64
                    ") is not inside the file of %" PRIu64 " bytes: it is truncated or damaged",
                    name, what, bytes, at, file_size);
    return 0;
}

/* The padding of a descriptor is no directory, though it reads like one that is empty. */
static int check_directory(const char *name, const char *what, uint64_t at,
                           const struct hosted_header *h, uint64_t file_size,
                           struct platter_error *err)
{
    uint64_t bytes = hosted_directory_entries(h) * 4;
    int r = check_area(name, what, at, bytes, file_size, err);
    if (r < 0 || h->descriptor_offset == 0 || at >= h->descriptor_offset + h->descriptor_size ||
        at + div_up(bytes, VMDK_SECTOR) <= h->descriptor_offset)
        return r;
    return fail(err, PLATTER_ECORRUPT,
                "%s: the %s (at sector %" PRIu64 ") lies in the descriptor, which takes %" PRIu64
                " sectors from sector %" PRIu64 " on",
                name, what, at, h->descriptor_size, h->descriptor_offset);
}

static int check_descriptor(const char *name, const struct hosted_header *h, uint64_t file_size,
                            struct platter_error *err)
{
    if (h->descriptor_offset == 0)
        return 0;
    if (h->descriptor_size > VMDK_MAX_DESCRIPTOR / VMDK_SECTOR)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: descriptor (header offset 36) of %" PRIu64 " sectors; %d is the limit",
                    name, h->descriptor_size, VMDK_MAX_DESCRIPTOR / VMDK_SECTOR);
    return check_area(name, "descriptor", h->descriptor_offset, h->descriptor_size * VMDK_SECTOR,
                      file_size, err);
}

static int check_areas(const char *name, const struct hosted_header *h, uint64_t file_size,
                       struct platter_error *err)
{
    if (h->overhead > file_size / VMDK_SECTOR)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: metadata takes %" PRIu64 " sectors (header offset 64), but the file ends "
                    "after %" PRIu64 ": it is truncated",
                    name, h->overhead, file_size / VMDK_SECTOR);
    int r = check_descriptor(name, h, file_size, err);
    if (r < 0 || h->capacity == 0)
        return r;
    r = check_directory(name, "grain directory", h->gd_offset, h, file_size, err);
    if (r == 0 && (h->flags & HOSTED_REDUNDANT))
        r = check_directory(name, "redundant grain directory", h->rgd_offset, h, file_size, err);
    return r;
}

int hosted_check(const char *name, const struct hosted_header *h, uint64_t file_size,
                 struct platter_error *err)
{
    int r = check_version(name, h, err);
    if (r == 0)
        r = check_geometry(name, h, err);
    if (r == 0)
        r = check_areas(name, h, file_size, err);
    return r;
}

/* ---- reading --------------------------------------------------------------------------------- */

static bool is_footer(const uint8_t marker_and_footer[2 * VMDK_SECTOR])
{
    return marker_is(marker_and_footer, MARKER_FOOTER) &&
           hosted_magic(marker_and_footer + VMDK_SECTOR);
}

/*
 * The footer stands in the last sector but one, behind its marker. Padding or text that was added
 * to the file, or an end-of-stream marker that is missing, move it: search a little (section 5.3).
 */
int hosted_find_footer(struct stream *s, uint64_t file_size, struct hosted_header *ret,
                       hoff *ret_at, struct platter_error *err)
{
    enum { FOOTER_SEARCH = 128 }; /* sectors */
    uint8_t tail[(FOOTER_SEARCH + 2) * VMDK_SECTOR];
    uint64_t end = round_down(file_size, VMDK_SECTOR);
    size_t len = (size_t)min_u64(end, sizeof tail);
    int r = stream_pread(s, tail, len, end - len, err);
    *ret_at = 0;
    for (size_t at = len; r == 0 && at >= 2 * VMDK_SECTOR && !*ret_at; at -= VMDK_SECTOR) {
        const uint8_t *marker = tail + at - 2 * VMDK_SECTOR;
        if (!is_footer(marker))
            continue;
        hosted_decode(marker + VMDK_SECTOR, ret);
        ret->at_end = true;
        *ret_at = end - len + at - VMDK_SECTOR;
    }
    return r;
}

static int read_footer(struct stream *s, uint64_t file_size, struct hosted_header *ret,
                       struct platter_error *err)
{
    hoff at;
    int r = hosted_find_footer(s, file_size, ret, &at, err);
    if (r == 0 && !at)
        r = fail(err, PLATTER_ECORRUPT,
                 "%s: its header says that the grain directory is at the end, but there is no "
                 "footer in the last sectors of %" PRIu64
                 " bytes: the file is truncated (convert --salvage finds what it holds)",
                 s->name, file_size);
    return r;
}

/* What the footer may not change: it is a copy of the header that knows the directory's place, and
 * perhaps the capacity. The descriptor's place is that of the header, which may change (store.c).
 */
bool hosted_is_footer_of(const struct hosted_header *f, const struct hosted_header *h)
{
    return f->version == h->version && f->flags == h->flags && f->grain_size == h->grain_size &&
           f->gtes_per_gt == h->gtes_per_gt && f->compression == h->compression &&
           (h->capacity == 0 || f->capacity == h->capacity);
}

/* A directory at the end stands behind its marker: what else the footer points to is none. */
int hosted_check_marker(struct stream *s, const struct hosted_header *h, struct platter_error *err)
{
    uint8_t sector[VMDK_SECTOR];
    if (!h->at_end || !(h->flags & HOSTED_MARKERS) || h->capacity == 0)
        return 0;
    int r = stream_pread(s, sector, sizeof sector, (h->gd_offset - 1) * VMDK_SECTOR, err);
    if (r < 0 || marker_leads(sector, MARKER_GD, hosted_directory_entries(h) * 4))
        return r;
    return fail(err, PLATTER_ECORRUPT,
                "%s: the footer (gdOffset) says that the grain directory is at sector %" PRIu64
                ", but no marker of one stands in front of that: the file is damaged",
                s->name, h->gd_offset);
}

/* Some streams claim a second directory but have none: section 5.3. */
void hosted_forget_second(struct hosted_header *h)
{
    if (h->rgd_offset == 0 || h->rgd_offset == h->gd_offset || h->rgd_offset == HOSTED_GD_AT_END)
        h->flags &= ~(uint32_t)HOSTED_REDUNDANT;
}

int hosted_read(struct stream *s, uint64_t file_size, struct hosted_header *ret,
                struct platter_error *err)
{
    uint8_t sector[VMDK_SECTOR];
    int r = stream_pread(s, sector, sizeof sector, 0, err);
    if (r < 0)
        return r;
    if (!hosted_magic(sector))
        return fail(err, PLATTER_ECORRUPT, "%s: not a sparse VMDK file (no KDMV at offset 0)",
                    s->name);
    hosted_decode(sector, ret);
    if (ret->gd_offset == HOSTED_GD_AT_END) {
        struct hosted_header header = *ret;
        if ((r = check_version(s->name, &header, err)) < 0 ||
            (r = read_footer(s, file_size, ret, err)) < 0)
            return r;
        if (!hosted_is_footer_of(ret, &header))
            return fail(err, PLATTER_ECORRUPT,
                        "%s: header and footer contradict each other: one of them is damaged",
                        s->name);
        ret->descriptor_offset = header.descriptor_offset;
        ret->descriptor_size = header.descriptor_size;
    }
    hosted_forget_second(ret);
    r = hosted_check(s->name, ret, file_size, err);
    return r < 0 ? r : hosted_check_marker(s, ret, err);
}

/* ---- salvage --------------------------------------------------------------------------------- */

static int check_numbers(const char *name, const struct hosted_header *h, struct platter_error *err)
{
    int r = check_version(name, h, err);
    return r < 0 ? r : check_geometry(name, h, err);
}

int hosted_find(struct stream *s, uint64_t file_size, struct hosted_header *ret,
                struct platter_error *err)
{
    uint8_t sector[VMDK_SECTOR];
    struct hosted_header footer;
    hoff at;
    int r = stream_pread_tail(s, sector, sizeof sector, 0, err);
    if (r == 0)
        r = hosted_find_footer(s, file_size, &footer, &at, err);
    if (r < 0)
        return r;
    bool found = at && check_numbers(s->name, &footer, NULL) == 0;
    hosted_decode(sector, ret);
    r = hosted_magic(sector)
            ? check_numbers(s->name, ret, err)
            : fail(err, PLATTER_ECORRUPT, "%s: has no VMDK header, and no footer instead", s->name);
    if (found &&
        (r < 0 || (ret->gd_offset == HOSTED_GD_AT_END && hosted_is_footer_of(&footer, ret)))) {
        if (r == 0) {
            footer.descriptor_offset = ret->descriptor_offset;
            footer.descriptor_size = ret->descriptor_size;
        }
        *ret = footer;
        r = 0;
    }
    return r;
}

void hosted_forget_lost(struct stream *s, uint64_t file_size, struct hosted_header *h)
{
    const char *name = s->name;
    if (h->overhead > file_size / VMDK_SECTOR || h->compression) /* records speak for themselves */
        h->overhead = 1;
    if (check_descriptor(name, h, file_size, NULL) < 0)
        h->descriptor_offset = h->descriptor_size = 0;
    hosted_forget_second(h);
    bool second = (h->flags & HOSTED_REDUNDANT) &&
                  check_directory(name, "", h->rgd_offset, h, file_size, NULL) == 0;
    bool first = check_directory(name, "", h->gd_offset, h, file_size, NULL) == 0 &&
                 hosted_check_marker(s, h, NULL) == 0;
    if (!first)
        h->gd_offset = second ? h->rgd_offset : HOSTED_GD_AT_END;
    if (!first || !second)
        h->flags &= ~(uint32_t)HOSTED_REDUNDANT;
}
