/* SPDX-License-Identifier: MIT */
/* Random reads, writes, zeros and discards on encrypted disks, at any offset, against a flat array;
 * and that nothing of it stands in the file as it is. */
#include "unit.h"

#include <stdlib.h>

#include "base/ckd.h"
#include "base/memory.h"
#include "base/secret.h"
#include "disk/disk.h"
#include "support/prng.h"

enum { SIZE = 3 << 20, STEPS = 400, MOST = 300 << 10 };

static const char passphrase[] = "open sesame";

static int tell(const struct name_opener *opener, const struct platter_secret *question,
                struct secret *ret, struct platter_error *err)
{
    (void)opener, (void)err;
    assert_int_equal(question->attempt, 0);
    ret->len = sizeof passphrase - 1;
    memcpy(ret->bytes, passphrase, ret->len);
    return 0;
}

static const struct name_opener opener = {.secret = tell};

static struct stream *make_image(const struct format *format, const char *options, uint64_t size)
{
    struct stream *s;
    struct create_request request = {.name = "image", .size = size, .opener = &opener};
    struct option_values *values;
    assert_works(stream_memory_open("image", 64 << 20, &s, &err));
    assert_works(options_parse(format->create_options, options, &values, &err));
    request.stream = s;
    request.options = values;
    assert_works(format->create(&request, &err));
    options_free(values);
    return s;
}

static struct platter_disk *open_image(struct stream *s, const struct format *format)
{
    struct platter_disk *disk;
    s = stream_share(s);
    assert_works(disk_assemble(&s, &format, 1, true, true, 0, &opener, &disk, &err));
    return disk;
}

/* Bytes that are found again if they stand anywhere as they are. */
static void fill(struct prng *p, uint8_t *bytes, size_t len)
{
    static const char text[] = "this text is not to be seen. ";
    size_t start = prng_below(p, sizeof text - 1);
    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)text[(start + i) % (sizeof text - 1)];
}

static void step(struct platter_disk *disk, struct prng *p, uint8_t *flat, uint8_t *buf)
{
    uint64_t off = prng_below(p, SIZE), len = 1 + prng_below(p, prng_chance(p, 50) ? 2000 : MOST);
    len = min_u64(len, SIZE - off);
    switch (prng_below(p, 6)) {
    case 0:
        assert_works(disk_zero(disk, off, len, prng_chance(p, 50), &err));
        memset(flat + off, 0, len);
        break;
    case 1:
        assert_works(disk_discard(disk, off, len, &err));
        assert_works(disk_read(disk, flat + off, len, off, &err));
        break;
    case 2:
        assert_works(disk_read(disk, buf, len, off, &err));
        assert_memory_equal(buf, flat + off, len);
        break;
    default:
        fill(p, buf, len);
        assert_works(disk_write(disk, buf, len, off, &err));
        memcpy(flat + off, buf, len);
    }
}

static void assert_hidden(struct stream *s)
{
    uint64_t size;
    assert_works(stream_size(s, &size, &err));
    uint8_t *bytes = malloc(size);
    assert_non_null(bytes);
    assert_works(stream_pread(s, bytes, size, 0, &err));
    assert_null(memmem(bytes, size, "not to be seen", 14));
    free(bytes);
}

static void run(const struct format *format, const char *options, uint64_t seed)
{
    struct prng p = {.state = seed};
    struct stream *s = make_image(format, options, SIZE);
    struct platter_disk *disk = open_image(s, format);
    uint8_t *flat = calloc(2, SIZE), *buf = flat + SIZE;
    assert_non_null(flat);
    if (format->not_zero)
        assert_works(disk_write(disk, flat, SIZE, 0, &err));
    for (unsigned i = 0; i < STEPS; i++) {
        step(disk, &p, flat, buf);
        if (i % 100 == 99) {
            assert_works(disk_close(disk, &err));
            disk = open_image(s, format);
        }
    }
    assert_works(disk_read(disk, buf, SIZE, 0, &err));
    assert_memory_equal(buf, flat, SIZE);
    assert_works(disk_close(disk, &err));
    assert_hidden(s);
    stream_close(s);
    free(flat);
}

#define LUKS "encrypt.format=luks,encrypt.iter-time=1"

static void test_luks(void **state)
{
    (void)state;
    run(&format_luks, "iter-time=1", 1);
    run(&format_luks, "iter-time=1,cipher-mode=cbc,ivgen-alg=essiv", 2);
}

static void test_qcow2(void **state)
{
    (void)state;
    run(&format_qcow2, LUKS, 3);
    run(&format_qcow2, LUKS ",cluster_size=512", 4);
    run(&format_qcow2, LUKS ",cluster_size=2M", 5);
    run(&format_qcow2, LUKS ",extended_l2=on,encrypt.cipher-alg=twofish-128", 6);
    run(&format_qcow2, LUKS ",compat=0.10", 7);
    run(&format_qcow2, LUKS ",preallocation=metadata", 8);
    run(&format_qcow2, LUKS ",preallocation=full,extended_l2=on", 9);
}

/* New disks of a qcow2 read as zeros, also where clusters have a place already. */
static void test_new_is_zero(void **state)
{
    (void)state;
    static const char *const options[] = {LUKS, LUKS ",preallocation=metadata",
                                          LUKS ",preallocation=full",
                                          LUKS ",preallocation=metadata,extended_l2=on"};
    uint8_t *buf = malloc(SIZE);
    assert_non_null(buf);
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        struct stream *s = make_image(&format_qcow2, options[i], SIZE);
        struct platter_disk *disk = open_image(s, &format_qcow2);
        assert_works(disk_read(disk, buf, SIZE, 0, &err));
        assert_true(is_zero(buf, SIZE));
        assert_works(disk_close(disk, &err));
        stream_close(s);
    }
    free(buf);
}

/* A volume keeps what it has when it gets another size; new space that is written is zeros. */
static void test_resize(void **state)
{
    (void)state;
    struct stream *s = make_image(&format_luks, "iter-time=1", SIZE);
    struct platter_disk *disk = open_image(s, &format_luks);
    uint8_t *flat = malloc(2 * SIZE), *buf = flat + SIZE;
    struct prng p = {.state = 10};
    assert_non_null(flat);
    fill(&p, flat, SIZE);
    assert_works(disk_write(disk, flat, SIZE, 0, &err));
    assert_works(disk_resize(disk, SIZE + 512, 0, PLATTER_PREALLOCATION_OFF, NULL, &err));
    assert_works(disk_resize(disk, SIZE + (1 << 20), 0, PLATTER_PREALLOCATION_FULL, NULL, &err));
    assert_works(disk_read(disk, buf, (1 << 20) - 512, SIZE + 512, &err));
    assert_true(is_zero(buf, (1 << 20) - 512));
    assert_fails(
        disk_resize(disk, SIZE + (1 << 20) + 100, 0, PLATTER_PREALLOCATION_OFF, NULL, &err), EINVAL,
        "multiple of 512");
    assert_works(disk_close(disk, &err));
    disk = open_image(s, &format_luks);
    assert_int_equal(disk_size(disk), SIZE + (1 << 20));
    assert_works(disk_read(disk, buf, SIZE, 0, &err));
    assert_memory_equal(buf, flat, SIZE);
    assert_works(disk_resize(disk, SIZE - 512, PLATTER_RESIZE_SHRINK, PLATTER_PREALLOCATION_OFF,
                             NULL, &err));
    assert_works(disk_read(disk, buf, SIZE - 512, 0, &err));
    assert_memory_equal(buf, flat, SIZE - 512);
    assert_works(disk_close(disk, &err));
    stream_close(s);
    free(flat);
}

/* A snapshot of an open disk is read with the key that the disk was opened with. */
static void test_view(void **state)
{
    (void)state;
    struct stream *s = make_image(&format_qcow2, LUKS, SIZE);
    struct platter_disk *disk = open_image(s, &format_qcow2);
    struct snapshot_request request = {.name = "before", .icount = UINT64_MAX};
    struct disk_view view;
    uint8_t one[3000], buf[3000];
    struct prng p = {.state = 11};
    fill(&p, one, sizeof one);
    assert_works(disk_write(disk, one, sizeof one, 1000, &err));
    assert_works(disk_snapshot_create(disk, &request, NULL, &err));
    free(request.ret_id);
    memset(buf, 7, sizeof buf);
    assert_works(disk_write(disk, buf, sizeof buf, 1000, &err));
    assert_works(disk_view_open(disk, "before", &view, &err));
    assert_works(disk_read(view.disk, buf, sizeof buf, 1000, &err));
    assert_memory_equal(buf, one, sizeof one);
    disk_view_close(&view);
    assert_works(disk_read(disk, buf, sizeof buf, 1000, &err));
    assert_int_equal(buf[0], 7);
    assert_works(disk_close(disk, &err));
    stream_close(s);
}

/* Nobody gives the key: the image does not open, and says so. */
static void test_no_key(void **state)
{
    (void)state;
    struct stream *s = make_image(&format_qcow2, LUKS, SIZE);
    const struct format *format = &format_qcow2;
    struct platter_disk *disk;
    assert_fails(disk_assemble(&s, &format, 1, false, true, 0, NULL, &disk, &err), ENOKEY,
                 "encrypted");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_luks),        cmocka_unit_test(test_qcow2),
        cmocka_unit_test(test_new_is_zero), cmocka_unit_test(test_resize),
        cmocka_unit_test(test_view),        cmocka_unit_test(test_no_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
