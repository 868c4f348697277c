/* SPDX-License-Identifier: MIT */
/*
 * Every way in which an archive can be wrong (vma.md sections 11 and 12), each with its own
 * sentence and kind: read front to back, where the first fault is the error; verified, where it is
 * told; and opened to be read at any place. And what is only strange, which is no fault. The
 * archives are by the tests' own writer.
 */
#include "unit.h"

#include <nettle/sha2.h>
#include <stdlib.h>

#include "base/memory.h"
#include "format/archive.h"
#include "support/must.h"
#include "support/process.h"
#include "support/vmaimage.h"

enum {
    SCSI = 1,
    VIRTIO = 4,
    STATE = 7,
};

/* 3 clusters and 512 bytes, 2 clusters, and a state of 3: the slots of the first extent are
 * scsi 0..2, those of the second scsi 3, virtio 0 1, of the third the state. */
static void make_plain(struct vmaimage *v)
{
    static const char config[] = "memory: 512\n";
    vmaimage_start(v, 1);
    vmaimage_add_config(v, "qemu-server.conf", config, sizeof config - 1);
    vmaimage_add_disk(v, SCSI, "drive-scsi0", 3 * VI_CLUSTER + 512, true);
    vmaimage_add_disk(v, VIRTIO, "drive-virtio1", 2 * VI_CLUSTER, true);
    vmaimage_add_disk(v, STATE, "vmstate", 3 * VI_CLUSTER, true);
    /* Something is stored of each cluster, so that nothing is passed over. */
    for (unsigned i = 0; i < v->n_disks; i++)
        for (uint32_t c = 0; c < v->disks[i].clusters; c++)
            v->disks[i].content[(size_t)c * VI_CLUSTER] = 7;
    vmaimage_arrange(v, VI_ASCENDING, 0);
    vmaimage_pack(v, 3, 0);
    vmaimage_write(v);
    assert_int_equal(v->n_extents, 3);
}

/* ---- harm --------------------------------------------------------------------------------------
 */

/* A field of the header, which is sealed. */
static void in_header(struct vmaimage *v, uint64_t at, unsigned n, uint64_t value)
{
    vmaimage_put(v, at, n, value);
    vmaimage_seal_header(v);
}

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
static struct vmaimage_slot *last_slot(struct vmaimage *v)
{
    return &v->extents[1].slots[VI_SLOTS - 1];
}

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
    {"short header", short_header, ARCHIVE_FAULT_TRUNCATED, "cut short", 0, true},
    {"nothing", nothing, ARCHIVE_FAULT_TRUNCATED, "is no VMA archive", PLATTER_ENOFORMAT, true,
     .anywhere = "cut short"},
    {"short blobs", short_blobs, ARCHIVE_FAULT_TRUNCATED, "cut short", 0, true},
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
    {"cut in extent header", cut_in_extent_header, ARCHIVE_FAULT_TRAILING, "511 bytes at"},
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

/* Beside ARCHIVE_*: what can only be read front to back. */
#define PIPE 0x80000000u

struct told {
    const struct fault_case *of; /* NULL: nothing must be told but notes */
    const char *said;
    unsigned n, right, notes;
    char last[512];
};

static void take_fault(void *opaque, const struct archive_fault *f)
{
    struct told *t = opaque;
    snprintf(t->last, sizeof t->last, "kind %d: %s", (int)f->kind, f->text);
    if (f->kind == ARCHIVE_FAULT_NOTE) {
        t->notes++;
        return;
    }
    t->n++;
    t->right += t->of && f->kind == t->of->kind && strstr(f->text, t->said) &&
                strstr(f->text, "archive.vma");
}

/* Reads all of it: 0, or the first error. */
static int read_through(struct vmaimage *v, unsigned flags, struct told *told,
                        struct platter_error *err)
{
    struct budget *budget = budget_new(32 << 20);
    struct archive_request request = {
        .flags = flags & ~PIPE, .budget = budget, .fault = take_fault, .opaque = told};
    struct archive_reader *reader = NULL;
    struct archive_batch batch = {0};
    MUST((flags & PIPE
              ? stream_buffer_input_open(&v->file, "archive.vma", &request.stream, NULL)
              : stream_buffer_open(&v->file, "archive.vma", false, &request.stream, NULL)) == 0);
    int r = format_find("vma")->archive->reader_open(&request, &reader, err);
    if (r == 0) {
        batch.room = malloc(reader->batch_bytes);
        MUST(batch.room);
        while ((r = reader->ops->next(reader, &batch, err)) > 0)
            ;
        reader->ops->close(reader);
        free(batch.room);
    }
    stream_close(request.stream);
    budget_unref(budget);
    return r;
}

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
    struct told told = {.of = c, .said = said};
    int r = read_through(v, flags, &told, &why);
    if (r < 0)
        fail_msg("%s, flags %u: %d, %s", c->name, flags, r, why.message);
    if (told.right == 0)
        fail_msg("%s, flags %u: not told as kind %d, '%s'; %u were, at last %s", c->name, flags,
                 (int)c->kind, said, told.n, told.last);
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

static int read_anywhere(const char *path, struct platter_error *err)
{
    struct platter_open_options options = {
        .size = sizeof options, .format = "vma", .view = "drive-scsi0"};
    static uint8_t bytes[4 * VI_CLUSTER];
    struct platter_disk *disk;
    int r = platter_open(path, &options, &disk, err);
    if (r < 0)
        return r;
    if (platter_size(disk) != 3 * VI_CLUSTER + 512)
        fail_msg("its size is %llu", (unsigned long long)platter_size(disk));
    r = platter_pread(disk, bytes, 3 * VI_CLUSTER + 512, 0, err);
    platter_close(disk, NULL);
    return r;
}

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

/* ---- what is strange, and sound ----------------------------------------------------------------
 */

static void stay(struct vmaimage *v)
{
    (void)v;
}
static void reserved_in_slot(struct vmaimage *v)
{
    for (unsigned i = 0; i < VI_SLOTS; i++)
        v->extents[1].slots[i].reserved = 0xee;
    vmaimage_write(v);
}
static void header_of_any_length(struct vmaimage *v)
{
    v->align = 1;
    v->blob_gap = 3;
    vmaimage_write(v);
}
static void full_masks(struct vmaimage *v)
{
    vmaimage_arrange(v, VI_SHUFFLED, 100);
    vmaimage_pack(v, VI_SLOTS, 0);
    vmaimage_write(v);
}
static void empty_slots(struct vmaimage *v)
{
    vmaimage_arrange(v, VI_TURNS, 0);
    vmaimage_pack(v, 2, 70);
    vmaimage_write(v);
}
static void names_of_configs(struct vmaimage *v)
{
    static uint8_t largest[65535];
    vmaimage_add_config(v, "../x", "y", 1);
    vmaimage_add_config(v, "empty", "", 0);
    vmaimage_add_config(v, "largest", largest, sizeof largest);
    vmaimage_write(v);
}
static void state_with_zeros(struct vmaimage *v)
{
    memset(v->disks[2].content + VI_CLUSTER, 0, VI_CLUSTER + 3 * VI_BLOCK);
    vmaimage_arrange(v, VI_TURNS, 0);
    vmaimage_pack(v, 3, 0);
    vmaimage_write(v);
}
static void state_of_other_size(struct vmaimage *v)
{
    v->disks[2].size = 1;
    vmaimage_write(v);
}
static void blobs_rounded(struct vmaimage *v)
{
    in_header(v, VI_BLOBS_SIZE_AT, 4, v->header_size - VI_FIXED);
}
static void other_ids(struct vmaimage *v)
{
    v->disks[0].id = 7;
    v->disks[1].id = 255;
    v->disks[2].id = 254;
    vmaimage_arrange(v, VI_TURNS, 0);
    vmaimage_pack(v, 3, 0);
    vmaimage_write(v);
}
static void drop_disks(struct vmaimage *v)
{
    while (v->n_disks)
        free(v->disks[--v->n_disks].content);
}
static void no_disks(struct vmaimage *v)
{
    drop_disks(v);
    v->n_extents = 1;
    v->extents[0] = (struct vmaimage_extent){0};
    vmaimage_write(v);
}
static void header_only(struct vmaimage *v)
{
    drop_disks(v);
    v->n_extents = 0;
    vmaimage_write(v);
}
/* Section 7.3: pointers to the names, and a cluster of zeros behind the end. */
static void displaced(struct vmaimage *v)
{
    v->displaced = true;
    vmaimage_write(v);
}
static void zeros_behind_the_end(struct vmaimage *v)
{
    static const uint8_t zeros[VI_CLUSTER];
    *last_slot(v) =
        (struct vmaimage_slot){.device = VIRTIO, .mask = VI_FULL, .cluster = 2, .data = zeros};
    vmaimage_write(v);
}

struct sound_case {
    const char *name;
    void (*change)(struct vmaimage *v);
    bool note; /* it is told that this is unusual */
};

static const struct sound_case sound[] = {
    {"as it is", stay},
    {"reserved bytes in slots", reserved_in_slot},
    {"header of any length", header_of_any_length},
    {"full masks, rubbish behind the end, 59 slots", full_masks},
    {"empty slots and extents", empty_slots},
    {"configurations", names_of_configs},
    {"zeros in a state", state_with_zeros},
    {"size of a state", state_of_other_size},
    {"rounded blobs", blobs_rounded},
    {"device numbers", other_ids},
    {"no disks", no_disks},
    {"header only", header_only},
    {"displaced configuration", displaced, true},
    {"zeros behind the end", zeros_behind_the_end, true},
};

static void test_sound(void **state)
{
    (void)state;
    static const unsigned modes[] = {0,
                                     ARCHIVE_HEADERS,
                                     ARCHIVE_VERIFY,
                                     ARCHIVE_VERIFY | ARCHIVE_HEADERS,
                                     ARCHIVE_SALVAGE,
                                     PIPE,
                                     PIPE | ARCHIVE_HEADERS,
                                     PIPE | ARCHIVE_SALVAGE};
    auto_free char *path = scratch_path("archive.vma");
    for (size_t i = 0; i < sizeof sound / sizeof *sound; i++) {
        struct vmaimage v;
        make_plain(&v);
        sound[i].change(&v);
        for (size_t m = 0; m < sizeof modes / sizeof *modes; m++) {
            struct platter_error why = {0};
            struct told told = {0};
            /* Whether data behind the end is zeros only who reads data can see. */
            bool headers = modes[m] & ARCHIVE_HEADERS;
            int r = read_through(&v, modes[m], &told, &why);
            if (r != 0 || told.n)
                fail_msg("%s, flags %u: %d, %s, %s", sound[i].name, modes[m], r, why.message,
                         told.last);
            if (!headers && (told.notes > 0) != sound[i].note)
                fail_msg("%s, flags %u: %u notes: %s", sound[i].name, modes[m], told.notes,
                         told.last);
        }
        struct platter_error why = {0};
        buffer_save(&v.file, path);
        if (v.n_disks && read_anywhere(path, &why) != 0)
            fail_msg("%s, anywhere: %s", sound[i].name, why.message);
        vmaimage_free(&v);
    }
}

/* ---- the archive of section 11 ------------------------------------------------------------------
 */

/* By the tests' own writer: so that one is known to be right. */
static void test_vector(void **state)
{
    (void)state;
    static const uint8_t expected[] = {0x9d, 0x8b, 0xc7, 0xcd, 0xe7, 0x3c, 0x7e, 0x8e,
                                       0x79, 0xe1, 0xaf, 0x2f, 0x0b, 0x2e, 0x79, 0xfb,
                                       0x63, 0x0b, 0xf9, 0xfe, 0x65, 0xa1, 0x85, 0x58,
                                       0xba, 0x54, 0xe2, 0x40, 0xf3, 0x9f, 0xef, 0x5d};
    uint8_t got[SHA256_DIGEST_SIZE];
    struct sha256_ctx sha;
    struct vmaimage v;
    vmaimage_start(&v, 1);
    memset(v.uuid, 0x11, sizeof v.uuid);
    vmaimage_add_config(&v, "qemu-server.conf", "memory: 512\n", 12);
    struct vmaimage_disk *d = vmaimage_add_disk(&v, 1, "drive-scsi0", 66048, false);
    memset(d->content + VI_CLUSTER, 0x78, 512);
    vmaimage_arrange(&v, VI_ASCENDING, 0);
    vmaimage_pack(&v, 58, 0);
    vmaimage_write(&v);
    assert_int_equal(v.file.size, 17408);
    sha256_init(&sha);
    sha256_update(&sha, v.file.size, v.file.bytes);
    sha256_digest(&sha, sizeof got, got);
    assert_memory_equal(got, expected, sizeof got);
    vmaimage_free(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vector), cmocka_unit_test(test_front_to_back),
        cmocka_unit_test(test_anywhere), cmocka_unit_test(test_sound)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
