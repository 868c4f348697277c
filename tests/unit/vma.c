/* SPDX-License-Identifier: MIT */
/* Headers of VMA archives and of their extents: the archive of vma.md section 11, byte for byte,
 * and each kind of damage with its own sentence. */
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "base/hash.h"
#include "format/vma/index.h"
#include "support/prng.h"

enum { HEADER = 12800, SIZE = 66048, NAMES_AT = 2044, DATA_AT = 3068, DEVICE_AT = 4096 };

static const uint8_t config[] = "memory: 512\n";

static struct vma_header plain_header(void)
{
    struct vma_header h = {.ctime = 1700000000, .n_configs = 1};
    memset(h.uuid, 0x11, sizeof h.uuid);
    h.configs[0] =
        (struct vma_config){.name = "qemu-server.conf", .bytes = config, .size = sizeof config - 1};
    h.devices[1] = (struct vma_device){.name = "drive-scsi0", .size = SIZE};
    return h;
}

static uint8_t *encode(struct vma_header *h, struct budget *budget)
{
    uint8_t *bytes;
    uint32_t size;
    assert_works(vma_header_encode(h, budget, &bytes, &size, &err));
    assert_int_equal(size, h->size);
    return bytes;
}

static void assert_hex(const uint8_t *bytes, const char *hex)
{
    for (; *hex; hex += 2, bytes++) {
        char digits[3] = {hex[0], hex[1], 0};
        assert_int_equal(*bytes, strtoul(digits, NULL, 16));
    }
}

/* ---- the archive of section 11 -----------------------------------------------------------------
 */

static void test_vector(void **state)
{
    (void)state;
    struct budget *budget = budget_new(1 << 20);
    struct vma_header h = plain_header();
    uint8_t *header = encode(&h, budget);
    uint8_t file[HEADER + VMA_EXTENT + VMA_BLOCK] = {0}, sha[32];
    struct vma_extent e = {.slots = {{.device = 1}, {.mask = 1, .device = 1, .cluster = 1}}};

    assert_int_equal(h.size, HEADER);
    memcpy(file, header, HEADER);
    vma_extent_encode(&e, h.uuid, file + HEADER);
    memset(file + HEADER + VMA_EXTENT, 0x78, 512);
    assert_hex(file, "564d410000000001"
                     "11111111111111111111111111111111"
                     "000000006553f100"
                     "525be0afa640703e34a915ea4b6d1901"
                     "000030000000003000003200");
    assert_hex(file + HEADER + 24,
               "651cc6fc5cf2348c34cc14537850db0c00000001000000000001000100000001");
    hash_bytes(hash_find("sha256"), file, sizeof file, NULL, 0, sha);
    assert_hex(sha, "9d8bc7cde73c7e8e79e1af2f0b2e79fb630bf9fe65a18558ba54e240f39fef5d");
    budget_free(budget, header, h.size);
    budget_unref(budget);
}

static void test_decode(void **state)
{
    (void)state;
    struct budget *budget = budget_new(1 << 20);
    struct vma_header h = plain_header(), got;
    struct platter_error why = {0};
    h.devices[7] = (struct vma_device){.name = "vmstate", .size = 5};
    h.devices[255] = (struct vma_device){.name = "drive-scsi0", .size = 1};
    h.configs[h.n_configs++] = (struct vma_config){.name = "empty", .bytes = config};
    uint8_t *header = encode(&h, budget);
    uint32_t size;

    assert_works(vma_header_size("a", header, &size, &err));
    assert_int_equal(size, h.size);
    assert_works(vma_header_decode("a", header, size, &got, &err));
    assert_int_equal(got.ctime, 1700000000);
    assert_int_equal(got.n_configs, 2);
    assert_string_equal(got.configs[0].name, "qemu-server.conf");
    assert_int_equal(got.configs[0].size, 12);
    assert_memory_equal(got.configs[0].bytes, config, 12);
    assert_int_equal(got.configs[1].size, 0);
    assert_true(got.devices[7].state);
    assert_int_equal(got.devices[255].size, 1);
    assert_null(got.devices[2].name);
    assert_int_equal(vma_device_find("a", &got, "vmstate", NULL), 7);
    assert_int_equal(vma_device_find("a", &got, "scsi0", &why), -ENOENT);
    assert_int_equal(vma_device_find("a", &got, "drive-scsi0", &why), -EINVAL);
    assert_non_null(strstr(why.message, "devices 1 and 255"));
    budget_free(budget, header, h.size);
    budget_unref(budget);
}

/* A writer of 2013 has the content pointer show the name. */
static void test_displaced(void **state)
{
    (void)state;
    struct budget *budget = budget_new(1 << 20);
    struct vma_header h = plain_header(), got;
    uint8_t *header = encode(&h, budget);

    memcpy(header + DATA_AT, header + NAMES_AT, 4);
    memset(header + 32, 0, 16);
    hash_bytes(hash_find("md5"), header, HEADER, NULL, 0, header + 32);
    assert_works(vma_header_decode("a", header, HEADER, &got, &err));
    assert_true(got.configs[0].displaced);
    assert_int_equal(got.configs[0].size, 12);
    assert_memory_equal(got.configs[0].bytes, config, 12);
    budget_free(budget, header, h.size);
    budget_unref(budget);
}

static void test_too_much(void **state)
{
    (void)state;
    struct budget *budget = budget_new(1 << 20);
    static uint8_t large[VMA_MOST_BLOB + 1];
    struct platter_error why = {0};
    uint8_t *bytes;
    uint32_t size;
    struct vma_header h = plain_header();

    h.configs[0] = (struct vma_config){.name = "a", .bytes = large, .size = VMA_MOST_BLOB};
    bytes = encode(&h, budget);
    budget_free(budget, bytes, h.size);
    h.configs[0].size++;
    assert_int_equal(vma_header_encode(&h, budget, &bytes, &size, &why), -EFBIG);
    h.n_configs = 8;
    for (unsigned i = 0; i < 8; i++)
        h.configs[i] = (struct vma_config){.name = "a", .bytes = large, .size = VMA_MOST_BLOB};
    assert_int_equal(vma_header_encode(&h, budget, &bytes, &size, &why), -EFBIG);
    assert_non_null(strstr(why.message, "at most 524288"));
    budget_unref(budget);
}

/* ---- damage ------------------------------------------------------------------------------------
 */

struct damage {
    unsigned at, n;
    uint64_t value;
    bool keep_sum; /* the checksum is not made anew */
    int code;
    const char *said; /* NULL: it is fine all the same */
};

static const struct damage headers[] = {
    {0, 4, 0x564d4101, false, -PLATTER_ENOFORMAT, "does not begin with VMA"},
    {56, 4, 12288, false, -PLATTER_ECORRUPT, "header_size at offset 56 is 12288"},
    {56, 4, 0xffffffff, false, -PLATTER_ECORRUPT, "header_size at offset 56 is 4294967295"},
    {56, 4, HEADER - 1, false, -PLATTER_ECORRUPT, "not what was read"},
    {100, 1, 1, true, -PLATTER_ECORRUPT, "the checksum of the header (12800 bytes)"},
    {4, 4, 2, false, -ENOTSUP, "of version 2"},
    {48, 4, 12287, false, -PLATTER_ECORRUPT, "blob_buffer_offset at offset 48 is 12287"},
    {48, 4, 12801, false, -PLATTER_ECORRUPT, "blob_buffer_offset at offset 48 is 12801"},
    {52, 4, 513, false, -PLATTER_ECORRUPT, "blob_buffer_size at offset 52 is 513"},
    {52, 4, 512, false, 0, NULL}, /* a tail of zeros is a run of empty blobs */
    {NAMES_AT, 4, 2, false, -PLATTER_ECORRUPT, "the name of a configuration at offset 2044 is 2"},
    {NAMES_AT, 4, 0, false, 0, NULL},
    {DATA_AT, 4, 21, false, -PLATTER_ECORRUPT, "the content of a configuration at offset 3068"},
    {DEVICE_AT + 32, 4, 35, false, -PLATTER_ECORRUPT, "the name of a device at offset 4128 is 35"},
    {DEVICE_AT + 32, 4, 0, false, -PLATTER_ECORRUPT, "the name of a device at offset 4128 is 0"},
    {DEVICE_AT + 40, 8, 0, false, -PLATTER_ECORRUPT, "the size of a device at offset 4136 is 0"},
    {DEVICE_AT + 40, 8, (UINT64_C(1) << 48) + 1, false, -PLATTER_ECORRUPT, "at most 256 TiB"},
    {DEVICE_AT + 40, 8, UINT64_C(1) << 48, false, 0, NULL},
    {12288 + 34 + 2 + 11, 1, 'x', false, -PLATTER_ECORRUPT, "the name of a device"},
    {12288 + 34 + 2 + 3, 1, 0, false, -PLATTER_ECORRUPT, "the name of a device"},
    {12288 + 34, 1, 255, false, -PLATTER_ECORRUPT, "the name of a device"},
};

static void test_damaged_headers(void **state)
{
    (void)state;
    struct budget *budget = budget_new(1 << 20);
    struct vma_header h = plain_header(), got;
    uint8_t *good = encode(&h, budget), bytes[HEADER], before[HEADER];

    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        const struct damage *d = &headers[i];
        struct platter_error why = {0};
        memcpy(bytes, good, HEADER);
        put_be(bytes + d->at, d->n, d->value);
        if (!d->keep_sum) {
            memset(bytes + 32, 0, 16);
            hash_bytes(hash_find("md5"), bytes, HEADER, NULL, 0, bytes + 32);
        }
        memcpy(before, bytes, HEADER);
        int r = vma_header_decode("a.vma", bytes, HEADER, &got, &why);
        if (r != d->code || (d->said && !strstr(why.message, d->said)))
            fail_msg("case %zu: %d, %s", i, r, why.message);
        assert_memory_equal(bytes, before, HEADER);
    }
    budget_free(budget, good, h.size);
    budget_unref(budget);
}

static const struct damage extents[] = {
    {30, 1, 1, true, -PLATTER_ECORRUPT, "the checksum of its header is wrong"},
    {8, 1, 2, false, -PLATTER_ECORRUPT, "its uuid differs"},
    {3, 1, 'F', false, -PLATTER_ECORRUPT, "does not begin with VMAE"},
    {4, 2, 1, false, -PLATTER_ECORRUPT, "reserved bytes"},
    {6, 2, 0x2010, false, -PLATTER_ECORRUPT, "block_count is 8208"},
    {6, 2, 2, false, -PLATTER_ECORRUPT, "block_count is 2, but its clusters have 1 blocks"},
    {6, 2, 0, false, -PLATTER_ECORRUPT, "block_count is 0, but its clusters have 1 blocks"},
    {42, 1, 1, false, 0, NULL}, /* reserved, and not looked at */
};

static void test_damaged_extents(void **state)
{
    (void)state;
    struct vma_header h = plain_header();
    struct vma_extent e = {.slots = {{.device = 1}, {.mask = 1, .device = 1, .cluster = 1}}}, got;
    uint8_t good[VMA_EXTENT], bytes[VMA_EXTENT];

    vma_extent_encode(&e, h.uuid, good);
    assert_true(vma_extent_probe(good, h.uuid));
    for (size_t i = 0; i < sizeof extents / sizeof *extents; i++) {
        const struct damage *d = &extents[i];
        struct platter_error why = {0};
        memcpy(bytes, good, VMA_EXTENT);
        put_be(bytes + d->at, d->n, d->value);
        if (!d->keep_sum) {
            memset(bytes + 24, 0, 16);
            hash_bytes(hash_find("md5"), bytes, VMA_EXTENT, NULL, 0, bytes + 24);
        }
        int r = vma_extent_decode("a.vma", 12800, bytes, h.uuid, &got, &why);
        if (r != d->code || (d->said && !strstr(why.message, d->said)))
            fail_msg("case %zu: %d, %s", i, r, why.message);
        if (r < 0)
            assert_non_null(strstr(why.message, "a.vma: the extent at 12800"));
    }
}

static void test_slots(void **state)
{
    (void)state;
    static const struct {
        struct vma_slot slot;
        const char *said;
    } cases[] = {
        {{0, 0, 77}, NULL},
        {{0xffff, 1, 0}, NULL},
        {{1, 1, 1}, NULL},
        {{2, 1, 1}, "behind its end at 66048"},
        {{0xffff, 1, 1}, NULL}, /* copied as a whole */
        {{0, 1, 2}, "has only 2 of them"},
        {{0, 1, 1000}, "cluster 1000 of device 1 (drive-scsi0)"},
        {{0, 2, 0}, "there is no such device"},
        {{0xffff, 3, 4000}, NULL}, /* a state is as long as it is */
    };
    struct vma_header h = plain_header();
    h.devices[3] = (struct vma_device){.name = "vmstate", .size = 1, .state = true};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct platter_error why = {0};
        int r = vma_slot_check("a.vma", 512, &h, &cases[i].slot, &why);
        if (r != (cases[i].said ? -PLATTER_ECORRUPT : 0) ||
            (cases[i].said && !strstr(why.message, cases[i].said)))
            fail_msg("case %zu: %d, %s", i, r, why.message);
    }
}

/* ---- the index ---------------------------------------------------------------------------------
 */

enum { INDEX_DEVICES = 4, INDEX_CLUSTERS = 20000 };

/* Where each cluster was put, by the test's own book; 0: nowhere. */
struct book {
    uint64_t off[INDEX_DEVICES][INDEX_CLUSTERS];
};

static void assert_index(const struct vma_index *x, const struct book *book)
{
    for (unsigned d = 1; d < INDEX_DEVICES; d++) {
        uint64_t n = 0, off, next = 0;
        for (uint32_t c = 0; c < INDEX_CLUSTERS; c++) {
            bool there = book->off[d][c] != 0;
            assert_int_equal(vma_index_find(x, d, c, &off), there);
            if (!there)
                continue;
            assert_int_equal(off, book->off[d][c]);
            assert_true(vma_index_next(x, d, &next));
            assert_int_equal(next, c);
            next++;
            n++;
        }
        assert_false(vma_index_next(x, d, &next));
        assert_int_equal(vma_index_count(x, d), n);
    }
}

/* The clusters of some devices, in an order that is the more wild the higher `wild` is; every
 * ninth is left out, and a longer range. */
static struct vma_slot *make_order(unsigned wild, size_t *ret_n)
{
    struct prng prng = {wild + 1};
    size_t n = 0;
    struct vma_slot *order = calloc((size_t)(INDEX_DEVICES - 1) * INDEX_CLUSTERS, sizeof *order);
    assert_non_null(order);
    for (uint32_t c = 0; c < INDEX_CLUSTERS; c++)
        for (uint8_t d = 1; d < INDEX_DEVICES; d++)
            if ((c + d) % 9 && !(c > 5000 && c < 14000 && d == 2))
                order[n++] = (struct vma_slot){.mask = 1, .device = d, .cluster = c};
    for (size_t i = 0; i < n && wild; i++) {
        size_t k = wild == 1 ? i : prng_below(&prng, n);
        if (wild == 1 && i % 500 == 0) /* now and then one comes early, as in a live backup */
            k = i + prng_below(&prng, n - i);
        struct vma_slot s = order[i];
        order[i] = order[k];
        order[k] = s;
    }
    *ret_n = n;
    return order;
}

static void test_index(void **state)
{
    (void)state;
    static struct book book;
    for (unsigned wild = 0; wild < 3; wild++) {
        struct budget *budget = budget_new(4 << 20);
        auto_free struct vma_slot *order = NULL;
        struct vma_index *x;
        size_t n, at = 0;
        order = make_order(wild, &n);
        memset(&book, 0, sizeof book);
        assert_works(vma_index_new(budget, &x, &err));
        for (uint64_t off = 12800; at < n; off += 5000) {
            struct vma_extent e = {0};
            for (unsigned i = 0; i < VMA_SLOTS && at < n; i += 1 + (at % 100 == 0)) {
                e.slots[i] = order[at++];
                book.off[e.slots[i].device][e.slots[i].cluster] = off;
            }
            assert_works(vma_index_add(x, off, &e, &err));
            assert_int_equal(vma_index_extent(x, vma_index_extents(x) - 1), off);
        }
        assert_index(x, &book);
        struct vma_extent again = {.slots = {[4] = order[n / 2]}}, empty = {0};
        assert_fails(vma_index_add(x, 1 << 30, &again, &err), PLATTER_ECORRUPT, "a second time");
        n = vma_index_extents(x);
        assert_works(vma_index_add(x, 1 << 30, &empty, &err));
        assert_int_equal(vma_index_extents(x), n);
        assert_index(x, &book);
        vma_index_free(x);
        assert_works(budget_take(budget, 4 << 20, "all of it", &err)); /* nothing is missing */
        budget_unref(budget);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vector),          cmocka_unit_test(test_decode),
        cmocka_unit_test(test_displaced),       cmocka_unit_test(test_too_much),
        cmocka_unit_test(test_damaged_headers), cmocka_unit_test(test_damaged_extents),
        cmocka_unit_test(test_slots),           cmocka_unit_test(test_index),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
