/* SPDX-License-Identifier: MIT */
/*
 * Every way in which an archive can be wrong (vma.md sections 11 and 12), each with its own
 * sentence and kind: read front to back, where the first fault is the error; verified, where it is
 * told; salvaged; and opened to be read at any place.
 */
#include "unit.h"

#include <stdlib.h>

#include "archives.h"
#include "base/memory.h"
#include "support/must.h"
#include "support/process.h"

/* ---- harm --------------------------------------------------------------------------------------
 */

/* A field of extent 1, which is sealed. */
static void in_extent(struct vmaimage *v, uint64_t at, unsigned n, uint64_t value)
{
    vmaimage_put(v, v->extents[1].off + at, n, value);
    vmaimage_seal_extent(v, v->extents[1].off);
}

static void cut_at(struct vmaimage *v, uint64_t size)
{
    v->file.size = size;
}

static void append(struct vmaimage *v, uint64_t n, uint8_t byte)
{
    struct buffer longer = buffer_copy(&v->file, v->file.size + n);
    memset(longer.bytes + v->file.size, byte, n);
    longer.size += n;
    buffer_free(&v->file);
    v->file = longer;
}

/* ... of extents, before they are written. */

static void bad_magic(struct vmaimage *v)
{
    in_header(v, 3, 1, 'x');
}
static void short_header(struct vmaimage *v)
{
    cut_at(v, VI_FIXED - 1);
}
static void nothing(struct vmaimage *v)
{
    cut_at(v, 0);
}
static void short_blobs(struct vmaimage *v)
{
    cut_at(v, v->header_size - 1);
}
static void small_header_size(struct vmaimage *v)
{
    in_header(v, VI_HEADER_SIZE_AT, 4, VI_FIXED);
}
static void vast_header_size(struct vmaimage *v)
{
    in_header(v, VI_HEADER_SIZE_AT, 4, 0xfffffe00);
}
static void header_checksum(struct vmaimage *v)
{
    vmaimage_put(v, 100, 1, 1);
}
static void version_2(struct vmaimage *v)
{
    in_header(v, VI_VERSION_AT, 4, 2);
}
static void blobs_too_early(struct vmaimage *v)
{
    in_header(v, VI_BLOBS_AT, 4, VI_FIXED - 1);
}
static void blobs_too_long(struct vmaimage *v)
{
    in_header(v, VI_BLOBS_SIZE_AT, 4, v->header_size - VI_FIXED + 1);
}
static void config_name_pointer(struct vmaimage *v)
{
    in_header(v, VI_NAMES_AT, 4, v->configs[0].name_at + 1);
}
static void config_data_pointer(struct vmaimage *v)
{
    in_header(v, VI_DATA_AT, 4, v->configs[0].data_at + 1);
}
static void device_without_size(struct vmaimage *v)
{
    in_header(v, VI_DEVICES_AT + VIRTIO * 32 + 8, 8, 0);
}
static void device_without_name(struct vmaimage *v)
{
    in_header(v, VI_DEVICES_AT + VIRTIO * 32, 4, 0);
}
static void device_pointer(struct vmaimage *v)
{
    in_header(v, VI_DEVICES_AT + VIRTIO * 32, 4, v->disks[1].name_at + 2);
}
static void name_without_end(struct vmaimage *v)
{
    in_header(v, VI_FIXED + v->disks[1].name_at + 2 + 13, 1, 'x');
}
static void two_states(struct vmaimage *v)
{
    strcpy(v->disks[1].name, "vmstate");
    vmaimage_write(v);
}
static void extent_checksum(struct vmaimage *v)
{
    vmaimage_put(v, v->extents[1].off + VI_EXTENT - 1, 1, 0x80);
}
static void extent_uuid(struct vmaimage *v)
{
    in_extent(v, VI_UUID_AT, 1, v->uuid[0] ^ 1u);
}
static void extent_magic(struct vmaimage *v)
{
    in_extent(v, 0, 1, 'v');
}
static void extent_reserved(struct vmaimage *v)
{
    in_extent(v, VI_RESERVED_AT, 2, 0x0100);
}
static uint64_t blocks_of(const struct vmaimage *v, size_t i)
{
    return (v->extents[i].len - VI_EXTENT) / VI_BLOCK;
}
static void count_too_high(struct vmaimage *v)
{
    in_extent(v, VI_COUNT_AT, 2, blocks_of(v, 1) + 1);
}
static void count_too_low(struct vmaimage *v)
{
    in_extent(v, VI_COUNT_AT, 2, blocks_of(v, 1) - 1);
}
static void count_impossible(struct vmaimage *v)
{
    in_extent(v, VI_COUNT_AT, 2, 0x2010);
}
static void scrap(struct vmaimage *v)
{
    append(v, 100, 'x');
}
static void scrap_of_zeros(struct vmaimage *v)
{
    append(v, 100, 0);
}
static void cut_in_extent_header(struct vmaimage *v)
{
    cut_at(v, v->extents[2].off + VI_EXTENT - 1);
}
static void cut_in_extent_magic(struct vmaimage *v)
{
    cut_at(v, v->extents[2].off + 3);
}
static void scrap_like_extent(struct vmaimage *v)
{
    append(v, 100, 'x'); /* of another archive */
    memcpy(v->file.bytes + v->file.size - 100, "VMAE", 4);
}
static void cut_in_data(struct vmaimage *v)
{
    cut_at(v, v->extents[2].off + VI_EXTENT);
}
static void cut_at_last_byte(struct vmaimage *v)
{
    cut_at(v, v->file.size - 1);
}
static void unknown_device(struct vmaimage *v)
{
    *last_slot(v) = (struct vmaimage_slot){.device = 9, .cluster = 3};
    vmaimage_write(v);
}
static void unknown_device_with_data(struct vmaimage *v)
{
    *last_slot(v) = *vmaimage_find(v, SCSI, 0);
    last_slot(v)->device = 9;
    vmaimage_write(v);
}
static void duplicate(struct vmaimage *v)
{
    *last_slot(v) = *vmaimage_find(v, SCSI, 2);
    vmaimage_write(v);
}
static void duplicate_of_zeros(struct vmaimage *v)
{
    *last_slot(v) = (struct vmaimage_slot){.device = SCSI, .cluster = 2};
    vmaimage_write(v);
}
static void missing_cluster(struct vmaimage *v)
{
    vmaimage_find(v, SCSI, 1)->device = 0;
    vmaimage_write(v);
}
static void missing_last(struct vmaimage *v)
{
    vmaimage_find(v, VIRTIO, 1)->device = 0;
    vmaimage_write(v);
}
static void missing_disk(struct vmaimage *v)
{
    vmaimage_find(v, VIRTIO, 0)->device = 0;
    vmaimage_find(v, VIRTIO, 1)->device = 0;
    vmaimage_write(v);
}
static void missing_extent(struct vmaimage *v)
{
    vmaimage_drop_extent(v, 0);
    vmaimage_write(v);
}
static void extra_with_data(struct vmaimage *v)
{
    *last_slot(v) = *vmaimage_find(v, SCSI, 0);
    last_slot(v)->cluster = 4;
    vmaimage_write(v);
}
static void extra_far(struct vmaimage *v)
{
    *last_slot(v) = (struct vmaimage_slot){.device = VIRTIO, .cluster = 1000};
    vmaimage_write(v);
}
static void extra_farthest(struct vmaimage *v)
{
    *last_slot(v) = (struct vmaimage_slot){.device = VIRTIO, .cluster = UINT32_MAX};
    vmaimage_write(v);
}
static void bit_past_end(struct vmaimage *v)
{
    vmaimage_find(v, SCSI, 3)->mask |= 2;
    vmaimage_write(v);
}
static void state_backwards(struct vmaimage *v)
{
    struct vmaimage_slot *a = vmaimage_find(v, STATE, 0), *b = vmaimage_find(v, STATE, 1);
    struct vmaimage_slot s = *a;
    *a = *b;
    *b = s;
    vmaimage_write(v);
}
static void state_with_gap(struct vmaimage *v)
{
    vmaimage_find(v, STATE, 1)->device = 0;
    vmaimage_write(v);
}
static void state_twice(struct vmaimage *v)
{
    vmaimage_find(v, STATE, 2)->cluster = 1;
    vmaimage_write(v);
}

/* ---- what is to be said ------------------------------------------------------------------------
 */

/* Where a sentence holds an offset that only the archive knows, said has a '%': that of extent 1,
 * or of extent 2 for what cuts or lengthens the end. */
struct fault_case {
    const char *name;
    void (*harm)(struct vmaimage *v);
    enum archive_fault_kind kind;
    const char *said;
    int code;     /* positive, of reading front to back; 0: PLATTER_ECORRUPT */
    bool at_open; /* it is the beginning, without which nothing can be read */
    /* Of an open to read drive-scsi0 anywhere, and reading it: NULL: the same sentence; "": nothing
     * is wrong there, because what is wrong is none of its business. */
    const char *anywhere;
};

static const struct fault_case cases[] = {
    {"bad magic", bad_magic, ARCHIVE_FAULT_HEADER, "does not begin with VMA", PLATTER_ENOFORMAT,
     true},
    {"short header", short_header, ARCHIVE_FAULT_HEADER, "cut short", 0, true},
    {"nothing", nothing, ARCHIVE_FAULT_HEADER, "is no VMA archive", PLATTER_ENOFORMAT, true,
     .anywhere = "cut short"},
    {"short blobs", short_blobs, ARCHIVE_FAULT_HEADER, "cut short", 0, true},
    {"header_size small", small_header_size, ARCHIVE_FAULT_HEADER,
     "header_size at offset 56 is 12288", 0, true},
    {"header_size vast", vast_header_size, ARCHIVE_FAULT_HEADER,
     "header_size at offset 56 is 4294966784", 0, true},
    {"header checksum", header_checksum, ARCHIVE_FAULT_HEADER, "the checksum of the header", 0,
     true},
    {"version", version_2, ARCHIVE_FAULT_HEADER, "of version 2", ENOTSUP, true},
    {"blob_buffer_offset", blobs_too_early, ARCHIVE_FAULT_HEADER,
     "blob_buffer_offset at offset 48 is 12287", 0, true},
    {"blob_buffer_size", blobs_too_long, ARCHIVE_FAULT_HEADER,
     "blob_buffer_size at offset 52 is 513", 0, true},
    {"config name", config_name_pointer, ARCHIVE_FAULT_HEADER,
     "the name of a configuration at offset 2044 is 2", 0, true},
    {"config data", config_data_pointer, ARCHIVE_FAULT_HEADER,
     "the content of a configuration at offset 3068 is 21", 0, true},
    {"device without size", device_without_size, ARCHIVE_FAULT_HEADER,
     "the size of a device at offset 4232 is 0", 0, true},
    {"device without name", device_without_name, ARCHIVE_FAULT_HEADER,
     "the name of a device at offset 4224 is 0", 0, true},
    {"device pointer", device_pointer, ARCHIVE_FAULT_HEADER,
     "the name of a device at offset 4224 is 50", 0, true},
    {"name without end", name_without_end, ARCHIVE_FAULT_HEADER,
     "the name of a device at offset 4224", 0, true},
    {"two states", two_states, ARCHIVE_FAULT_HEADER, "a second state of the machine", 0, true},
    {"extent checksum", extent_checksum, ARCHIVE_FAULT_EXTENT,
     "the extent at %: the checksum of its header is wrong"},
    {"extent uuid", extent_uuid, ARCHIVE_FAULT_EXTENT, "the extent at %: it is of another archive"},
    {"extent magic", extent_magic, ARCHIVE_FAULT_EXTENT,
     "the extent at %: it does not begin with VMAE"},
    {"extent reserved", extent_reserved, ARCHIVE_FAULT_EXTENT, "the extent at %: reserved bytes"},
    {"count too high", count_too_high, ARCHIVE_FAULT_EXTENT, "but its clusters have"},
    {"count too low", count_too_low, ARCHIVE_FAULT_EXTENT, "but its clusters have"},
    {"count impossible", count_impossible, ARCHIVE_FAULT_EXTENT,
     "the extent at %: block_count is 8208"},
    {"scrap", scrap, ARCHIVE_FAULT_TRAILING, "100 bytes at"},
    {"scrap of zeros", scrap_of_zeros, ARCHIVE_FAULT_TRAILING, "100 bytes at"},
    {"cut in extent header", cut_in_extent_header, ARCHIVE_FAULT_TRUNCATED,
     "the header of the extent at % is cut off: 511 of its 512 bytes"},
    {"cut in magic of extent", cut_in_extent_magic, ARCHIVE_FAULT_TRUNCATED,
     "the header of the extent at % is cut off: 3 of its 512 bytes"},
    {"scrap that begins like an extent", scrap_like_extent, ARCHIVE_FAULT_TRAILING, "100 bytes at"},
    {"cut in data", cut_in_data, ARCHIVE_FAULT_TRUNCATED, "the extent at % has"},
    {"cut at last byte", cut_at_last_byte, ARCHIVE_FAULT_TRUNCATED, "the extent at % has"},
    {"unknown device", unknown_device, ARCHIVE_FAULT_UNKNOWN,
     "cluster 3 of device 9, but there is no such device"},
    {"unknown device with data", unknown_device_with_data, ARCHIVE_FAULT_UNKNOWN,
     "cluster 0 of device 9, but there is no such device"},
    {"duplicate", duplicate, ARCHIVE_FAULT_DUPLICATE, "cluster 2 of device 1"},
    {"duplicate of zeros", duplicate_of_zeros, ARCHIVE_FAULT_DUPLICATE, "cluster 2 of device 1"},
    {"missing cluster", missing_cluster, ARCHIVE_FAULT_MISSING, "cluster 1 of device 1"},
    {"missing last cluster", missing_last, ARCHIVE_FAULT_MISSING, "cluster 1 of device 4",
     .anywhere = ""},
    {"missing disk", missing_disk, ARCHIVE_FAULT_MISSING, "of device 4", .anywhere = ""},
    {"missing extent", missing_extent, ARCHIVE_FAULT_MISSING, "of device 1"},
    {"extra cluster with data", extra_with_data, ARCHIVE_FAULT_BEYOND,
     "cluster 4 of device 1 (drive-scsi0), which has only 4 of them"},
    {"extra cluster far away", extra_far, ARCHIVE_FAULT_BEYOND,
     "cluster 1000 of device 4 (drive-virtio1), which has only 2 of them"},
    {"extra cluster farthest away", extra_farthest, ARCHIVE_FAULT_BEYOND,
     "cluster 4294967295 of device 4 (drive-virtio1)"},
    {"bit past end", bit_past_end, ARCHIVE_FAULT_BEYOND, "behind its end at 197120"},
    {"state backwards", state_backwards, ARCHIVE_FAULT_ORDER, "where cluster 0 was to come",
     .anywhere = ""},
    {"state with a gap", state_with_gap, ARCHIVE_FAULT_ORDER, "where cluster 1 was to come",
     .anywhere = ""},
    {"state twice", state_twice, ARCHIVE_FAULT_DUPLICATE, "cluster 1 of device 7"},
};

enum { N_CASES = sizeof cases / sizeof *cases };

/* said, with the offset where it has a '%'. */
static char *expand(const struct fault_case *c, const struct vmaimage *v)
{
    bool end = c->kind == ARCHIVE_FAULT_TRUNCATED;
    const char *mark = strchr(c->said, '%');
    char *text = mark ? string_format("%.*s%llu%s", (int)(mark - c->said), c->said,
                                      (unsigned long long)v->extents[1 + end].off, mark + 1)
                      : string_copy(c->said);
    MUST(text);
    return text;
}

/* ---- reading -----------------------------------------------------------------------------------
 */

static void read_strictly(const struct fault_case *c, struct vmaimage *v, unsigned flags)
{
    struct platter_error why = {0};
    struct told told = {0};
    auto_free char *said = expand(c, v);
    int r = read_through(v, flags, &told, &why);
    if (r != -(c->code ? c->code : PLATTER_ECORRUPT) || why.code != -r)
        fail_msg("%s, flags %u: %d, %s", c->name, flags, r, why.message);
    if (!strstr(why.message, said) || !strstr(why.message, "archive.vma"))
        fail_msg("%s, flags %u: '%s' does not say '%s'", c->name, flags, why.message, said);
    if (strstr(strstr(why.message, "archive.vma") + 1, "archive.vma"))
        fail_msg("%s: '%s' names the file twice", c->name, why.message);
    if (told.n)
        fail_msg("%s, flags %u: told as well: %s", c->name, flags, told.last);
}

/* Without a beginning nothing can be verified; what else is wrong is told, of its kind. */
static void read_verifying(const struct fault_case *c, struct vmaimage *v, unsigned flags)
{
    struct platter_error why = {0};
    auto_free char *said = expand(c, v);
    struct told told = {.kind = c->kind, .said = said};
    int r = read_through(v, flags, &told, &why);
    if (r < 0)
        fail_msg("%s, flags %u: %d, %s", c->name, flags, r, why.message);
    if (told.right == 0)
        fail_msg("%s, flags %u: not told as kind %d, '%s'; %u were, at last %s", c->name, flags,
                 (int)c->kind, said, told.n, told.last);
}

/* What has lost its beginning: that is told, and its extents are found all the same. */
static void salvage_header(const struct fault_case *c, struct vmaimage *v, unsigned flags)
{
    struct platter_error why = {0};
    struct told told = {.kind = c->kind, .said = c->said};
    int r = read_through(v, ARCHIVE_SALVAGE | flags, &told, &why);
    bool extents = v->file.size > v->header_size;
    if (r != (extents ? 0 : -PLATTER_ENOFORMAT) || told.right != 1)
        fail_msg("%s, flags %u: %d, %s; %u faults were told, at last %s", c->name, flags, r,
                 why.message, told.n, told.last);
    if (extents && told.batches != v->n_extents)
        fail_msg("%s, flags %u: %u extents are left", c->name, flags, told.batches);
}

static void test_front_to_back(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        struct vmaimage v;
        make_plain(&v);
        cases[i].harm(&v);
        read_strictly(&cases[i], &v, 0);
        read_strictly(&cases[i], &v, PIPE);
        read_strictly(&cases[i], &v, ARCHIVE_HEADERS);
        if (cases[i].at_open) {
            read_strictly(&cases[i], &v, ARCHIVE_VERIFY);
            salvage_header(&cases[i], &v, 0);
            salvage_header(&cases[i], &v, PIPE);
        } else {
            read_verifying(&cases[i], &v, ARCHIVE_VERIFY);
            read_verifying(&cases[i], &v, ARCHIVE_VERIFY | ARCHIVE_HEADERS);
            read_verifying(&cases[i], &v, ARCHIVE_VERIFY | PIPE);
            read_verifying(&cases[i], &v, ARCHIVE_SALVAGE);
            read_verifying(&cases[i], &v, ARCHIVE_SALVAGE | PIPE);
        }
        vmaimage_free(&v);
    }
}

/* ---- read at any place -------------------------------------------------------------------------
 */

static void test_anywhere(void **state)
{
    (void)state;
    auto_free char *path = scratch_path("archive.vma");
    for (size_t i = 0; i < N_CASES; i++) {
        const struct fault_case *c = &cases[i];
        struct platter_error why = {0};
        struct vmaimage v;
        make_plain(&v);
        c->harm(&v);
        buffer_save(&v.file, path);
        auto_free char *said = expand(c, &v);
        int r = read_anywhere(path, &why);
        if (c->anywhere && !*c->anywhere) {
            if (r != 0)
                fail_msg("%s: %s", c->name, why.message);
        } else if (r >= 0 || !strstr(why.message, c->anywhere ? c->anywhere : said)) {
            fail_msg("%s: %d, '%s' does not say '%s'", c->name, r, why.message, said);
        }
        vmaimage_free(&v);
    }
}

/* ---- gaps --------------------------------------------------------------------------------------
 */

/* Junk of every awkward length in front of an extent is passed over, and told; also in front of the
 * last one, behind which there is nothing. */
static void salvage_behind(size_t extent, uint64_t len)
{
    struct platter_error why = {0};
    struct vmaimage v;
    struct vmaimage_wreck w;
    struct prng p = {len};
    make_plain(&v);
    v.extents[2] = (struct vmaimage_extent){
        .slots[VI_SLOTS - 1] = {.device = STATE, .cluster = 0}}; /* which has no data */
    vmaimage_write(&v);
    vmaimage_wreck_start(&w, &v);
    uint64_t at = v.extents[extent].off;
    wreck_insert(&w, at, NULL, len, &p);
    for (uint64_t i = 0; i < len; i++)
        w.file.bytes[at + i] &= 0x0f; /* nothing that looks like something */
    struct buffer whole = v.file;
    v.file = w.file;
    for (unsigned flags = 0; flags < 2; flags++) {
        auto_free char *said = string_format("%llu bytes at %llu are lost", (unsigned long long)len,
                                             (unsigned long long)at);
        struct told told = {.kind = ARCHIVE_FAULT_LOST, .said = said};
        int r = read_through(&v, flags ? ARCHIVE_SALVAGE : ARCHIVE_SALVAGE | PIPE, &told, &why);
        if (r != 0 || told.batches != 3 || told.right != 1)
            fail_msg("%llu bytes in front of extent %zu: %d, %u extents; at last %s",
                     (unsigned long long)len, extent, r, told.batches, told.last);
    }
    v.file = whole;
    vmaimage_wreck_free(&w);
    vmaimage_free(&v);
}

static void test_gaps(void **state)
{
    (void)state;
    for (size_t extent = 1; extent < 3; extent++)
        for (uint64_t unit = 512; unit <= 1 << 20; unit *= 2)
            for (unsigned more = 0; more < 4; more++) {
                static const int off_by[] = {-1, 0, 1, 511};
                salvage_behind(extent, unit + (uint64_t)off_by[more]);
            }
    for (uint64_t len = 1; len < 30; len++)
        salvage_behind(1, len);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_front_to_back),
                                       cmocka_unit_test(test_anywhere),
                                       cmocka_unit_test(test_gaps)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
