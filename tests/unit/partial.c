/* SPDX-License-Identifier: MIT */
/* A raw disk that is not complete: its map of presence, and what comes from where. */
#include "partial_kit.h"

#include "support/fault.h"
#include "support/log.h"

/* ---- the map ----------------------------------------------------------------------------------
 */

static void test_map_sizes(void **state)
{
    (void)state;
    const uint64_t per_sector = (uint64_t)SECTOR_BITS * UNIT;
    assert_int_equal(partial_map_size(0), SECTOR);
    assert_int_equal(partial_map_size(1), 2 * SECTOR);
    assert_int_equal(partial_map_size(per_sector), 2 * SECTOR);
    assert_int_equal(partial_map_size(per_sector + 1), 3 * SECTOR);
    assert_true(partial_map_size(8 * TIB) < 17 << 20);
    assert_true(partial_map_size(8 * TIB + 1) < partial_map_size(8 * TIB) / 2 + 2 * SECTOR);
    assert_true(partial_map_size(8192 * TIB) < 17 << 20);
}

/* The bytes that partial.h promises. */
static void test_header(void **state)
{
    (void)state;
    struct buffer map = partial_map_new(5 * UNIT + 1, 0);
    uint8_t zeros[508 - 32] = {0};
    assert_int_equal(map.size, 2 * SECTOR);
    assert_memory_equal(map.bytes, "PLATTER PRESENCE", 16);
    assert_int_equal(get_le(map.bytes + 16, 4), 1);
    assert_int_equal(get_le(map.bytes + 20, 4), UNIT);
    assert_int_equal(get_le(map.bytes + 24, 8), 5 * UNIT + 1);
    assert_memory_equal(map.bytes + 32, zeros, sizeof zeros);
    assert_true(is_zero(map.bytes + SECTOR, SECTOR));
    buffer_free(&map);
}

static void test_no_room_for_a_map(void **state)
{
    (void)state;
    struct buffer b = buffer_new(4096);
    struct stream *s = over(&b, "map", true), *part;
    assert_fails(partial_create(s, 8192 * TIB + 1, &err), EFBIG, "disks of at most");
    assert_fails(partial_create(s, TIB, &err), ENOSPC, "");
    assert_works(stream_slice_open(s, 0, 512, &part, &err));
    struct platter_error err = {0};
    assert_true(partial_create(part, UNIT, &err) < 0);
    assert_true(is_zero(b.bytes, b.size)); /* no header without a map */
    stream_close(part);
    stream_close(s);
    buffer_free(&b);
}

/* Sizes around the unit: what is there, and what is not, at both ends. */
static void test_sizes(void **state)
{
    static const uint64_t sizes[] = {0,    1,        511,          512,      UNIT - 1,
                                     UNIT, UNIT + 1, 3 * UNIT - 1, 3 * UNIT, 3 * UNIT + 700};
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct kit k = kit_new(sizes[i], 0);
        kit_open(&k, true);
        assert_int_equal(disk_top(k.disk)->unit, UNIT);
        assert_true(disk_top(k.disk)->has_backing);
        kit_compare(&k);
        if (k.size > 0) {
            assert_run(k.disk, 0, k.size, EXTENT_BACKING, k.size);
            kit_write(&k, 'x', k.size - 1, 1);
            uint64_t last = (k.size - 1) / UNIT * UNIT;
            assert_run(k.disk, last, k.size - last, EXTENT_DATA, k.size - last);
        }
        kit_compare(&k);
        kit_close(&k);
        kit_open(&k, false);
        kit_compare(&k);
        kit_close(&k);
        assert_int_equal(k.data.size, k.size);
        kit_free(&k);
    }
}

/* Runs end where they end, wherever words and sectors of the map do. */
static void test_runs(void **state)
{
    static const uint64_t present[][2] = {{3, 4},       {63, 65},     {100, 229},  {512, 576},
                                          {4060, 4070}, {8127, 8128}, {8128, 8130}};
    const uint64_t units = 2 * SECTOR_BITS + 10;
    (void)state;
    struct kit k = kit_new(units * 512 - 100, 512);
    kit_open(&k, true);
    for (size_t i = 0; i < sizeof present / sizeof *present; i++)
        kit_write(&k, 'p', present[i][0] * 512, (present[i][1] - present[i][0]) * 512);
    for (unsigned again = 0; again < 2; again++) {
        uint64_t at = 0;
        for (size_t i = 0; i < 6; i++) {
            uint64_t from = present[i][0], to = i == 5 ? 8130 : present[i][1];
            assert_run(k.disk, at * 512, k.size - at * 512, EXTENT_BACKING, (from - at) * 512);
            assert_run(k.disk, from * 512, k.size - from * 512, EXTENT_DATA, (to - from) * 512);
            assert_run(k.disk, from * 512 + 5, 100, EXTENT_DATA, 100);
            at = to;
        }
        assert_run(k.disk, at * 512, k.size - at * 512, EXTENT_BACKING, k.size - at * 512);
        kit_compare(&k);
        kit_close(&k);
        kit_open(&k, true);
    }
    kit_free(&k);
}

static void test_damaged_map(void **state)
{
    (void)state;
    struct kit k = kit_new((SECTOR_BITS + 5) * UINT64_C(512), 512);
    struct buffer good = buffer_copy(&k.map, 0);
    const struct {
        unsigned at, n;
        uint64_t value;
        bool seal;
        int code;
        const char *words;
    } damages[] = {
        {0, 1, 'p', false, PLATTER_ECORRUPT, "offset 0, is damaged"},
        {0, 1, 'p', true, PLATTER_ECORRUPT, "offset 0, is damaged"},
        {25, 1, 0, false, PLATTER_ECORRUPT, "offset 0, is damaged"},
        {300, 1, 1, false, PLATTER_ECORRUPT, "offset 0, is damaged"},
        {16, 4, 2, true, ENOTSUP, "version 2"},
        {20, 4, 513, true, PLATTER_ECORRUPT, "offset 20"},
        {20, 4, 256, true, PLATTER_ECORRUPT, "offset 20"},
        {20, 4, 0, true, PLATTER_ECORRUPT, "offset 20"},
        {20, 4, 128 << 20, true, PLATTER_ECORRUPT, "offset 20"},
        {24, 8, UINT64_MAX, true, PLATTER_ECORRUPT, "offset 24"},
        {24, 8, (2 * SECTOR_BITS + 1) * UINT64_C(512), true, PLATTER_ECORRUPT, "it is truncated"},
        {24, 8, (SECTOR_BITS + 6) * UINT64_C(512), true, PLATTER_ECORRUPT, "another disk"},
        {512, 1, 1, false, PLATTER_ECORRUPT, "the 512 bytes at offset 512 is wrong"},
        {1023, 1, 1, false, PLATTER_ECORRUPT, "the 512 bytes at offset 512 is wrong"},
        {1024, 1, 1, false, PLATTER_ECORRUPT, "the 512 bytes at offset 1024 is wrong"},
        {1024, 1, 1 << 5, true, PLATTER_ECORRUPT, "goes on behind the last of 4069 units"},
        {1531, 1, 1 << 7, true, PLATTER_ECORRUPT, "goes on behind the last of 4069 units"},
    };
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        memcpy(k.map.bytes, good.bytes, good.size);
        put_le(k.map.bytes + damages[i].at, damages[i].n, damages[i].value);
        if (damages[i].seal)
            partial_map_seal(&k.map);
        assert_fails(kit_try(&k, false, &err), damages[i].code, damages[i].words);
    }
    memcpy(k.map.bytes, good.bytes, good.size);
    for (k.map.size = 0; k.map.size < good.size; k.map.size += 256)
        assert_fails(kit_try(&k, false, &err), PLATTER_ECORRUPT, "truncated");
    k.data.size--;
    assert_fails(kit_try(&k, false, &err), PLATTER_ECORRUPT, "it was cut");
    k.data.size++;
    kit_open(&k, false);
    buffer_free(&good);
    kit_free(&k);
}

static void test_no_map(void **state)
{
    (void)state;
    struct kit k = kit_new(UNIT, 0);
    struct stream *data = over(&k.data, "data", true);
    assert_fails(partial_disk_open(data, NULL, NULL, true, 0, &k.disk, &err), ENOENT,
                 "there is no map");
    const struct format *format = &format_partial;
    data = over(&k.data, "data", true);
    assert_fails(disk_assemble(&data, &format, 1, true, true, 0, NULL, &k.disk, &err),
                 PLATTER_EGATE, "presence");
    kit_free(&k);
}

/* ---- what comes from where ---------------------------------------------------------------------
 */

/* The rest of a unit that is written in part comes from below, also behind the end of what is
 * below; what is in the place already never shows. */
static void test_writes(void **state)
{
    (void)state;
    struct kit k = kit_new(40 * UNIT + 100, 0);
    k.below.size = 20 * UNIT + 1000;
    memset(k.flat + k.below.size, 0, k.size - k.below.size);
    kit_open(&k, true);
    kit_compare(&k);
    kit_write(&k, 'a', 5 * UNIT + 1, 1);
    kit_write(&k, 'b', 7 * UNIT - 1, 2 * UNIT + 2);
    kit_write(&k, 'c', 20 * UNIT + 10, 1);
    kit_write(&k, 'd', 4 * UNIT + 10, 6 * UNIT); /* over some that is there */
    kit_write(&k, 'e', 30 * UNIT + 1, 9 * UNIT);
    kit_write(&k, 'f', 40 * UNIT + 50, 7);
    kit_compare(&k);
    assert_run(k.disk, 4 * UNIT, 36 * UNIT, EXTENT_DATA, 7 * UNIT);
    kit_close(&k);
    kit_open(&k, true);
    kit_compare(&k);
    kit_free(&k);
}

/* A write that fails leaves bytes in the place of a unit, which nobody ever sees. */
static void test_cut_off(void **state)
{
    (void)state;
    struct kit k = kit_new(4 * UNIT, 0);
    struct fault_plan plan = {.kinds = FAULT_PWRITE, .torn = true, .code = EIO};
    struct stream *data = over(&k.data, "data", true);
    assert_works(stream_fault_open(data, &plan, &data, &err));
    assert_works(partial_disk_open(data, over(&k.map, "map", true), over(&k.below, "below", false),
                                   true, 0, &k.disk, &err));
    plan.at = 1;
    assert_fails(disk_write(k.disk, "xyz", 3, UNIT + 7, &err), EIO, "");
    assert_run(k.disk, 0, k.size, EXTENT_BACKING, k.size);
    kit_compare(&k);
    memset(k.flat + UNIT, 0, UNIT);
    assert_works(disk_zero(k.disk, UNIT, UNIT, true, &err));
    kit_compare(&k);
    kit_write(&k, 'w', 2 * UNIT + 9, 1);
    kit_compare(&k);
    kit_close(&k);
    kit_open(&k, false);
    kit_compare(&k);
    kit_free(&k);
}

static void test_marks(void **state)
{
    (void)state;
    struct kit k = kit_new(12 * UNIT + 9, 0);
    kit_open(&k, true);
    kit_write(&k, 'a', 2 * UNIT, UNIT);
    /* Absent, present, absent; ragged ends are copied; up to the end of the disk. */
    memset(k.flat + UNIT - 5, 0, 3 * UNIT + 10);
    assert_works(disk_zero(k.disk, UNIT - 5, 3 * UNIT + 10, false, &err));
    kit_compare(&k);
    assert_run(k.disk, 0, k.size, EXTENT_DATA, 5 * UNIT);
    assert_works(disk_discard(k.disk, 6 * UNIT - 1, 2 * UNIT + 1, &err));
    memset(k.flat + 6 * UNIT, 0, 2 * UNIT);
    kit_compare(&k);
    assert_run(k.disk, 5 * UNIT, 2 * UNIT, EXTENT_BACKING, UNIT);
    assert_run(k.disk, 6 * UNIT, k.size - 6 * UNIT, EXTENT_DATA, 2 * UNIT);
    assert_works(disk_zero(k.disk, 11 * UNIT, UNIT + 9, true, &err));
    memset(k.flat + 11 * UNIT, 0, UNIT + 9);
    kit_compare(&k);
    assert_works(disk_discard(k.disk, 8 * UNIT, 2 * UNIT - 1, &err));
    memset(k.flat + 8 * UNIT, 0, UNIT);
    kit_compare(&k);
    kit_close(&k);
    kit_open(&k, false);
    kit_compare(&k);
    kit_free(&k);
}

static void test_complete(void **state)
{
    (void)state;
    struct kit k = kit_new(6 * UNIT + 1, 0);
    kit_open(&k, true);
    kit_write(&k, 'a', UNIT, 2 * UNIT);
    assert_works(disk_flush(k.disk, &err));
    struct buffer before = buffer_copy(&k.map, 0);
    memset(k.flat, GARBAGE, UNIT);
    memset(k.flat + 3 * UNIT, GARBAGE, 3 * UNIT + 1);
    partial_complete(disk_top(k.disk));
    assert_false(disk_top(k.disk)->has_backing);
    assert_run(k.disk, 0, k.size, EXTENT_DATA, k.size);
    kit_compare(&k);
    kit_write(&k, 'b', 4 * UNIT + 5, 1);
    memset(k.flat + 5 * UNIT, 0, UNIT);
    assert_works(disk_zero(k.disk, 5 * UNIT, UNIT, true, &err));
    memset(k.flat, 0, UNIT);
    assert_works(disk_discard(k.disk, 0, UNIT, &err));
    kit_compare(&k);
    kit_close(&k);
    assert_memory_equal(before.bytes, k.map.bytes, k.map.size);
    assert_memory_equal(k.data.bytes, k.flat, k.size);
    buffer_free(&before);
    kit_free(&k);
}

/* Only what is not a hole is made zero; a map that is a hole is not read. */
static void test_holes(void **state)
{
    (void)state;
    const uint64_t size = UINT64_C(4000) * UNIT;
    const char *folder = getenv("TMPDIR");
    struct stream *data, *map, *part;
    struct platter_disk *disk;
    struct write_log *log = write_log_new();
    struct fault_plan plan = {.kinds = FAULT_PREAD};
    assert_works(stream_file_open(folder ? folder : "/tmp", STREAM_FILE_WRITE | STREAM_FILE_UNNAMED,
                                  &data, &err));
    assert_works(stream_resize(data, size, &err));
    assert_works(stream_log_open(log, data, &data, &err));
    assert_works(stream_pwrite(data, "stale", 5, 9 * UNIT, &err));
    assert_works(stream_file_open(folder ? folder : "/tmp", STREAM_FILE_WRITE | STREAM_FILE_UNNAMED,
                                  &map, &err));
    assert_works(stream_resize(map, 3 << 20, &err));
    assert_works(stream_part_open(map, 4096, 2 << 20, &part, &err));
    assert_works(partial_create(part, size, &err));
    assert_works(stream_fault_open(part, &plan, &part, &err));
    assert_works(partial_disk_open(data, part, NULL, true, 0, &disk, &err));
    assert_true(plan.calls <= 2);
    size_t n = write_log_length(log);
    assert_works(disk_zero(disk, 0, size, false, &err));
    uint64_t zeroed = 0;
    for (; n < write_log_length(log); n++)
        zeroed += write_log_entry(log, n).kind == LOG_ZERO ? write_log_entry(log, n).len : 0;
    assert_in_range(zeroed, 5, UNIT);
    assert_works(disk_close(disk, &err));
    write_log_free(log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_map_sizes),
        cmocka_unit_test(test_header),
        cmocka_unit_test(test_no_room_for_a_map),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_runs),
        cmocka_unit_test(test_damaged_map),
        cmocka_unit_test(test_no_map),
        cmocka_unit_test(test_writes),
        cmocka_unit_test(test_cut_off),
        cmocka_unit_test(test_marks),
        cmocka_unit_test(test_complete),
        cmocka_unit_test(test_holes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
