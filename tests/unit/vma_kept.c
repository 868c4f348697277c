/* SPDX-License-Identifier: MIT */
/*
 * The index that is kept beside a VMA archive: disks read with it are what they are without it, and
 * whatever is wrong with the index, by chance or by design, only costs the time to do without.
 */
#include "unit.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "disk/inside.h"
#include "format/vma/archive.h"
#include "support/vmaimage.h"
#include "support/vmakept.h"

/* An archive, and what the gate gives for the name of its index. */
struct files {
    struct name_opener opener; /* first */
    struct vmaimage v;
    struct buffer index;
    unsigned asked;
};

static int give_index(const struct name_opener *opener, const struct image *image, const char *name,
                      enum platter_name_kind kind, bool writable, struct stream **ret,
                      struct platter_error *err)
{
    struct files *f = (struct files *)(uintptr_t)opener;
    assert_int_equal(kind, PLATTER_NAME_INDEX);
    assert_string_equal(name, "./a.vma.index");
    assert_string_equal(image->stream->name, "folder/a.vma");
    assert_false(writable);
    f->asked++;
    if (f->index.size == 0)
        return fail(err, ENOENT, "it is not there");
    return stream_buffer_open(&f->index, "a.vma.index", false, ret, err);
}

static void write_index(struct files *f)
{
    struct platter_disk *disk;
    struct stream *s, *out;
    buffer_free(&f->index);
    f->index = buffer_new(1 << 20);
    assert_works(stream_buffer_open(&f->v.file, "folder/a.vma", false, &s, &err));
    assert_works(disk_assemble_for_check(s, &format_vma, false, 0, NULL, &disk, &err));
    assert_works(stream_buffer_open(&f->index, "a.vma.index", true, &out, &err));
    assert_false(vma_is_index(out));
    assert_works(vma_keep_index(disk_top(disk), out, &err));
    assert_true(vma_is_index(out));
    stream_close(out);
    assert_works(disk_close(disk, &err));
}

/* Three disks and a state, small ones. */
static void start(struct files *f, uint64_t seed, enum vmaimage_order order)
{
    *f = (struct files){.opener = {.open = give_index}};
    vmaimage_start(&f->v, seed);
    vmaimage_add_config(&f->v, "qemu-server.conf", "a", 1);
    vmaimage_add_disk(&f->v, 1, "one", 14 * VI_CLUSTER + 5000, true);
    vmaimage_add_disk(&f->v, 2, "vmstate", 2 * VI_CLUSTER, true);
    vmaimage_add_disk(&f->v, 9, "two", 4 * VI_CLUSTER - 512, true);
    vmaimage_add_disk(&f->v, 255, "three", 7, false);
    vmaimage_arrange(&f->v, order, 20);
    vmaimage_pack(&f->v, 4, 5);
    vmaimage_write(&f->v);
    write_index(f);
}

static void end(struct files *f)
{
    vmaimage_free(&f->v);
    buffer_free(&f->index);
}

static int open_view(struct files *f, const char *view, struct platter_disk **ret,
                     struct platter_error *err)
{
    struct platter_disk *disk;
    struct image *img;
    struct stream *s;
    assert_int_equal(disk_new(0, &disk, err), 0);
    assert_int_equal(stream_buffer_open(&f->v.file, "folder/a.vma", false, &s, err), 0);
    struct image_setup setup = {.format = &format_vma,
                                .view = view,
                                .ordered = true,
                                .budget = disk->budget,
                                .opener = &f->opener};
    int r = image_load(s, &setup, &img, err);
    if (r == 0)
        r = disk_append(disk, img, err);
    if (r < 0)
        disk_close(disk, NULL);
    else
        *ret = disk;
    return r;
}

static const struct vma_archive *archive_of(const struct platter_disk *disk)
{
    return vma_of(disk_top(disk))->archive;
}

static bool was_surveyed(const struct platter_disk *disk)
{
    return atomic_load(&archive_of(disk)->index) != NULL;
}

static void assert_content(struct platter_disk *disk, const struct vmaimage_disk *d)
{
    uint64_t size = d->state ? d->clusters * (uint64_t)VI_CLUSTER : d->size;
    uint8_t *bytes = malloc(size);
    assert_non_null(bytes);
    assert_int_equal(disk_size(disk), size);
    assert_works(disk_read(disk, bytes, size, 0, &err));
    assert_memory_equal(bytes, d->content, size);
    free(bytes);
}

/* Opens and reads all disks. How many were read with the index alone. */
static unsigned read_all(struct files *f)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < f->v.n_disks; i++) {
        struct platter_disk *disk;
        assert_works(open_view(f, f->v.disks[i].name, &disk, &err));
        assert_content(disk, &f->v.disks[i]);
        kept += !was_surveyed(disk);
        assert_works(disk_close(disk, &err));
    }
    return kept;
}

/* ---- as it should be ---------------------------------------------------------------------------
 */

static void test_orders(void **state)
{
    (void)state;
    for (unsigned order = VI_ASCENDING; order <= VI_SHUFFLED; order++) {
        struct files f;
        start(&f, order, order);
        assert_int_equal(read_all(&f), 3); /* nothing but clusters tells how long a state is */
        assert_int_equal(f.asked, 3);
        buffer_free(&f.index);
        assert_int_equal(read_all(&f), 0);
        end(&f);
    }
}

/* Beyond one piece of the index, and of disks that are mostly not there. */
static void test_pieces(void **state)
{
    (void)state;
    static const uint32_t clusters[] = {0, 1, 4095, 4096, 4097, 99999, 4194303, 4194304, 16777215};
    struct vma_header h = {.devices = {[1] = {.name = "one", .size = UINT64_C(1) << 40}}};
    struct budget *budget = budget_new(1 << 20);
    struct files f = {.opener = {.open = give_index}};
    struct platter_disk *disk;
    struct vma_extent e = {0};
    uint8_t *header, block[VMA_BLOCK];
    uint32_t size;
    assert_works(vma_header_encode(&h, budget, &header, &size, &err));
    f.v.file = buffer_new(1 << 20);
    memcpy(f.v.file.bytes, header, size);
    uint64_t at = size;
    for (unsigned i = 0; i < sizeof clusters / sizeof *clusters; i++) {
        e.slots[0] = (struct vma_slot){.mask = 2, .device = 1, .cluster = clusters[i]};
        vma_extent_encode(&e, h.uuid, f.v.file.bytes + at);
        memset(f.v.file.bytes + at + VMA_EXTENT, (int)i + 1, VMA_BLOCK);
        at += VMA_EXTENT + VMA_BLOCK;
    }
    f.v.file.size = at;
    write_index(&f);
    assert_works(open_view(&f, NULL, &disk, &err));
    for (unsigned i = 0; i < sizeof clusters / sizeof *clusters; i++) {
        uint64_t off = clusters[i] * (uint64_t)VMA_CLUSTER + VMA_BLOCK;
        assert_works(disk_read(disk, block, sizeof block, off, &err));
        assert_int_equal(block[17], i + 1);
        assert_works(disk_read(disk, block, sizeof block, off - VMA_BLOCK, &err));
        assert_true(is_zero(block, sizeof block));
    }
    assert_false(was_surveyed(disk));
    assert_int_equal(archive_of(disk)->counts[1], 9);
    assert_fails(disk_read(disk, block, 1, 2 * VMA_CLUSTER, &err), PLATTER_ECORRUPT,
                 "cluster 2 of device 1 (one) is not in the archive");
    assert_true(was_surveyed(disk));
    assert_works(disk_close(disk, &err));
    budget_free(budget, header, size);
    budget_unref(budget);
    buffer_free(&f.v.file);
    buffer_free(&f.index);
}

/* A second view of an open file reads no headers again, and lives as long as it is open. */
static void test_views_share(void **state)
{
    (void)state;
    for (unsigned kept = 0; kept < 2; kept++) {
        struct files f;
        struct platter_disk *disk;
        struct disk_view views[2];
        start(&f, 5, VI_LIVE);
        if (!kept)
            buffer_free(&f.index);
        assert_works(open_view(&f, "one", &disk, &err));
        f.asked = 0;
        assert_works(disk_view_open(disk, "two", &views[0], &err));
        assert_ptr_equal(archive_of(views[0].own), archive_of(disk));
        assert_content(views[0].disk, &f.v.disks[2]);
        assert_int_equal(was_surveyed(disk), !kept);
        assert_works(disk_view_open(disk, "vmstate", &views[1], &err));
        assert_content(views[1].disk, &f.v.disks[1]);
        assert_int_equal(f.asked, 0);
        disk_view_close(&views[0]);
        assert_content(views[1].disk, &f.v.disks[1]);
        assert_content(disk, &f.v.disks[0]);
        disk_view_close(&views[1]);
        assert_works(disk_close(disk, &err));
        end(&f);
    }
}

/* ---- a vast archive ----------------------------------------------------------------------------
 */

enum { VAST_GIB = 128, VAST_SLOTS = 58 };
#define VAST_SIZE     ((uint64_t)VAST_GIB << 30)
#define VAST_CLUSTERS (VAST_SIZE / VMA_CLUSTER)
#define VAST_EXTENT   (VMA_EXTENT + VAST_SLOTS * (uint64_t)VMA_CLUSTER)

/* An archive of one disk, all of it stored and in order, that is made up as it is read: each block
 * begins with its number. Reads are counted. */
struct vast {
    struct stream head;
    struct vma_header h;
    uint8_t *header;
    uint32_t size;
    unsigned reads;
};

static uint64_t vast_extents(void)
{
    return (VAST_CLUSTERS + VAST_SLOTS - 1) / VAST_SLOTS;
}

static int vast_size(struct stream *s, uint64_t *ret, struct platter_error *err)
{
    (void)err;
    *ret = container_of(s, struct vast, head)->size + vast_extents() * VMA_EXTENT + VAST_SIZE;
    return 0;
}

static int vast_pread(struct stream *s, void *buf, size_t len, hoff off, struct platter_error *err)
{
    struct vast *v = container_of(s, struct vast, head);
    (void)err;
    v->reads++;
    memset(buf, 0, len);
    if (off < v->size) {
        memcpy(buf, v->header + off, len);
        return 0;
    }
    uint64_t number = (off - v->size) / VAST_EXTENT, at = (off - v->size) % VAST_EXTENT;
    struct vma_extent e = {0};
    for (uint64_t i = 0, c = number * VAST_SLOTS; i < VAST_SLOTS && c < VAST_CLUSTERS; i++, c++)
        e.slots[i] = (struct vma_slot){.mask = UINT16_MAX, .device = 1, .cluster = (uint32_t)c};
    uint8_t bytes[VMA_EXTENT];
    vma_extent_encode(&e, v->h.uuid, bytes);
    if (at < VMA_EXTENT)
        memcpy(buf, bytes + at, len);
    else
        put_be(buf, 8, number * VAST_SLOTS * VMA_BLOCKS + (at - VMA_EXTENT) / VMA_BLOCK);
    return 0;
}

static void vast_close(struct stream *s)
{
    (void)s;
}

static const struct stream_ops vast_ops = {
    .name = "vast", .pread = vast_pread, .size = vast_size, .close = vast_close};

/* Opens it, of which there is one; the number of reads that takes. */
static unsigned vast_open(struct vast *v, struct files *f, uint64_t memory,
                          struct platter_disk **ret)
{
    struct stream *s = malloc(sizeof *v);
    const struct format *format = &format_vma;
    assert_non_null(s);
    memcpy(s, v, sizeof *v);
    s->name = string_copy("folder/a.vma");
    ((struct vast *)s)->reads = 0;
    assert_works(disk_assemble(&s, &format, 1, false, true, memory, &f->opener, ret, &err));
    return ((struct vast *)disk_top(*ret)->stream)->reads;
}

static void check_blocks(struct platter_disk *disk)
{
    struct vast *v = (struct vast *)disk_top(disk)->stream;
    struct prng prng = {9};
    uint8_t bytes[8];
    v->reads = 0;
    for (unsigned i = 0; i < 100; i++) {
        uint64_t block = prng_below(&prng, VAST_SIZE / VMA_BLOCK);
        assert_works(disk_read(disk, bytes, 8, block * VMA_BLOCK, &err));
        assert_int_equal(get_be(bytes, 8), block);
    }
    assert_in_range(v->reads, 100, 200); /* the header of the extent, and the data */
}

/* How much is read, and how much memory it takes, with the index and without. */
static void test_vast(void **state)
{
    (void)state;
    struct vast v = {.head = {.ops = &vast_ops},
                     .h = {.devices = {[1] = {"one", VAST_SIZE, false}}}};
    struct budget *budget = budget_new(1 << 20);
    struct files f = {.opener = {.open = give_index}, .index = buffer_new(1 << 20)};
    struct platter_disk *disk;
    struct stream *out;
    f.index.size = 0;
    assert_works(vma_header_encode(&v.h, budget, &v.header, &v.size, &err));
    assert_in_range(vast_open(&v, &f, 3 << 19, &disk), vast_extents(), vast_extents() + 4);
    check_blocks(disk);
    assert_works(stream_buffer_open(&f.index, "a.vma.index", true, &out, &err));
    assert_works(vma_keep_index(disk_top(disk), out, &err));
    stream_close(out);
    assert_works(disk_close(disk, &err));
    assert_in_range(vast_open(&v, &f, 96 << 10, &disk), 1, 3 + KEPT_SAMPLES);
    check_blocks(disk);
    assert_false(was_surveyed(disk));
    assert_works(disk_close(disk, &err));
    budget_free(budget, v.header, v.size);
    budget_unref(budget);
    buffer_free(&f.index);
}

/* ---- as it should not be -----------------------------------------------------------------------
 */

static void test_each_byte(void **state)
{
    (void)state;
    struct files f;
    start(&f, 1, VI_LIVE);
    /* Of the second disk, the state, the index is not asked. */
    const uint8_t *entry = f.index.bytes + KEPT_HEADER + KEPT_ENTRY;
    uint64_t unasked = get_be(entry + 8, 8), n = get_be(entry + 2, 2) * KEPT_RUN;
    for (uint64_t at = 0; at < f.index.size; at++) {
        if (at >= KEPT_UNUSED_AT && at < KEPT_HEADER - 8)
            continue; /* summed as all of the header is */
        f.index.bytes[at] ^= (uint8_t)(1 << at % 8);
        unsigned kept = read_all(&f);
        bool noticed = kept < 3;
        if (at < KEPT_HEADER + 4 * KEPT_ENTRY ? kept != 0 : noticed == (at - unasked < n))
            fail_msg("%u disks were read with an index that is wrong at %" PRIu64, kept, at);
        f.index.bytes[at] ^= (uint8_t)(1 << at % 8);
    }
    assert_int_equal(read_all(&f), 3);
    end(&f);
}

static void test_cut_short(void **state)
{
    (void)state;
    struct files f;
    start(&f, 2, VI_SHUFFLED);
    uint64_t whole = f.index.size;
    for (f.index.size = 1; f.index.size < whole; f.index.size += f.index.size < 4000 ? 500 : 1)
        assert_int_equal(read_all(&f), 0);
    f.index.size = whole;
    assert_int_equal(read_all(&f), 3);
    end(&f);
}

/* One that lies about where clusters are, but whose checksums are right: the archive itself says
 * what is so. */
static void test_lies(void **state)
{
    (void)state;
    struct prng prng = {77};
    struct files f;
    start(&f, 3, VI_LIVE);
    struct buffer good = buffer_copy(&f.index, f.index.size);
    uint64_t pieces = get_be(good.bytes + KEPT_SIZE_AT + 16, 8);
    uint64_t first = KEPT_HEADER + pieces * KEPT_ENTRY, n = (good.size - first) / KEPT_RUN;
    unsigned noticed = 0;
    for (unsigned i = 0; i < 600; i++) {
        uint8_t *run = f.index.bytes + first + prng_below(&prng, n) * KEPT_RUN;
        uint64_t extent = f.v.extents[prng_below(&prng, f.v.n_extents)].off;
        uint64_t any[] = {extent,           extent + VMA_EXTENT, prng_below(&prng, f.v.file.size),
                          f.v.file.size,    UINT64_MAX,          0,
                          extent + 3 * 4096};
        memcpy(f.index.bytes, good.bytes, good.size);
        switch (prng_below(&prng, 4)) {
        case 0:
            put_be(run + 4, 8, any[prng_below(&prng, 7)]);
            break;
        case 1:
            put_be(run, 2, prng_below(&prng, 50));
            break;
        case 2:
            put_be(run + 2, 2, prng_below(&prng, 70));
            break;
        default: /* of the directory, the counts, the samples */
            put_be(f.index.bytes + KEPT_SUM_AT + KEPT_SUM +
                       prng_below(&prng, first - KEPT_SUM_AT - KEPT_SUM - 2),
                   2, prng_next(&prng));
        }
        vmakept_seal(&f.index);
        noticed += read_all(&f) < 3;
    }
    assert_in_range(noticed, 200, 599);
    buffer_free(&good);
    end(&f);
}

/* Opens a disk, which says `words`, and does without the index. */
static void assert_refused(struct files *f, const char *words)
{
    struct platter_disk *disk;
    assert_works(open_view(f, "one", &disk, &err));
    assert_true(was_surveyed(disk));
    const char *doubt = disk_top(disk)->doubt;
    if (words ? !doubt || !strstr(doubt, words) : doubt != NULL)
        fail_msg("%s", doubt ? doubt : "nothing is doubted");
    assert_content(disk, &f->v.disks[0]);
    assert_works(disk_close(disk, &err));
}

static void test_of_another(void **state)
{
    (void)state;
    static const char foreign[] = "a.vma.index: is of another archive";
    struct files f, g;
    start(&f, 6, VI_LIVE);
    start(&g, 7, VI_LIVE);
    struct buffer own = f.index;
    f.index = g.index;
    assert_refused(&f, foreign);
    f.index = own;
    /* The same header and length, but extents elsewhere. */
    vmaimage_swap_extents(&f.v, 0, f.v.n_extents - 1);
    vmaimage_write(&f.v);
    assert_refused(&f, foreign);
    write_index(&f);
    assert_int_equal(read_all(&f), 3);
    /* A header of an extent that is another one, of the same length. */
    vmaimage_put(&f.v, f.v.extents[0].off + VI_SLOTS_AT + 2, 1, 1);
    vmaimage_seal_extent(&f.v, f.v.extents[0].off);
    assert_refused(&f, foreign);
    write_index(&f);
    /* Longer, by an extent that is empty. */
    struct buffer before = f.v.file;
    f.v.file = buffer_copy(&before, before.size + VMA_EXTENT);
    vma_extent_encode(&(struct vma_extent){0}, f.v.uuid, f.v.file.bytes + before.size);
    f.v.file.size += VMA_EXTENT;
    assert_refused(&f, foreign);
    buffer_free(&f.v.file);
    f.v.file = before;
    assert_int_equal(read_all(&f), 3);
    put_be(f.index.bytes + 8, 4, 2);
    assert_refused(&f, "is of a newer kind");
    put_be(f.index.bytes + 8, 4, 1);
    f.index.bytes[KEPT_SUM_AT] ^= 1;
    assert_refused(&f, "is damaged, so it is not used: platter archive index folder/a.vma");
    memcpy(f.index.bytes, "something", 9);
    assert_refused(&f, NULL); /* somebody's own file */
    end(&f);
    end(&g);
}

/* An archive that is damaged behind an index that is right: an error, as without one. */
static void test_damaged_archive(void **state)
{
    (void)state;
    static uint8_t bytes[15 * VI_CLUSTER];
    struct files f;
    start(&f, 8, VI_ASCENDING);
    for (size_t i = 0; i < f.v.n_extents; i++) {
        struct platter_disk *disk = NULL;
        struct platter_error err = {0};
        uint8_t *at = f.v.file.bytes + f.v.extents[i].off + VI_SLOTS_AT;
        at[5] ^= 1;
        int r = open_view(&f, "one", &disk, &err);
        if (r == 0)
            r = disk_read(disk, bytes, f.v.disks[0].size, 0, &err);
        if (r == 0)
            assert_memory_equal(bytes, f.v.disks[0].content, f.v.disks[0].size);
        else
            assert_non_null(strstr(err.message, "the checksum of its header is wrong"));
        disk_close(disk, NULL);
        at[5] ^= 1;
    }
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_orders),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_views_share),
        cmocka_unit_test(test_vast),
        cmocka_unit_test(test_each_byte),
        cmocka_unit_test(test_cut_short),
        cmocka_unit_test(test_lies),
        cmocka_unit_test(test_of_another),
        cmocka_unit_test(test_damaged_archive),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
