/* SPDX-License-Identifier: MIT */
/* Another cluster 0 for a qcow2 (qcow2.md section 2.1): where names go, what is kept, and that no
 * prefix of the writes, nor a part of what was not flushed, leaves anything but the old name or the
 * new one. */
#include "unit.h"

#include <platter/platter.h>

#include "base/cursor.h"
#include "disk/disk.h"
#include "support/buffer.h"
#include "support/log.h"
#include "support/must.h"
#include "support/process.h"
#include "support/seen.h"

enum { SIZE = 1 << 20, UNKNOWN_TYPE = 0x12345678 };

static struct buffer new_image(const char *options)
{
    auto_free char *path = scratch_path("image.qcow2");
    struct platter_create_options o = {.size = sizeof o,
                                       .format = "qcow2",
                                       .has_disk_size = true,
                                       .disk_size = SIZE,
                                       .options = options};
    assert_works(platter_create(path, &o, &err));
    return buffer_load(path, 1 << 20);
}

static int open_stream(struct stream *s, bool writable, struct platter_disk **ret,
                       struct platter_error *err)
{
    const struct format *format = &format_qcow2;
    return disk_assemble(&s, &format, 1, writable, true, 0, NULL, ret, err);
}

static struct platter_disk *open_image(struct buffer *b, bool writable)
{
    struct platter_disk *disk;
    struct stream *s;
    MUST(stream_buffer_open(b, "image", writable, &s, NULL) == 0);
    assert_works(open_stream(s, writable, &disk, &err));
    return disk;
}

static void set_backing(struct buffer *b, const char *name)
{
    struct platter_disk *disk = open_image(b, true);
    assert_works(format_qcow2.set_backing(disk_top(disk), name, name ? "raw" : NULL, NULL, &err));
    assert_works(disk_close(disk, &err));
}

static void assert_backing(struct platter_disk *disk, const char *name)
{
    const struct image *top = disk_top(disk);
    assert_true(top->has_backing == (name != NULL));
    if (!name) {
        assert_null(top->backing_name);
        return;
    }
    assert_string_equal(top->backing_name, name);
    assert_string_equal(top->backing_format, "raw");
}

static char *long_name(size_t len, char c)
{
    char *name = calloc(1, len + 1);
    MUST(name);
    memset(name, c, len);
    return name;
}

/* Names of many lengths after each other: each is there, durably, and all else stays. */
static void test_names(void **state)
{
    static const char *const options[] = {"cluster_size=512", "cluster_size=4k,compat=0.10",
                                          "cluster_size=64k,compression_type=zstd"};
    static const size_t lengths[] = {1, 200, 1023, 40, 900, 0, 1023, 1022, 0, 300};
    (void)state;
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        struct buffer b = new_image(options[i]);
        for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
            auto_free char *name = lengths[k] ? long_name(lengths[k], (char)('a' + k)) : NULL;
            if (i == 0 && lengths[k] > 300) /* no room in 512 bytes */
                continue;
            set_backing(&b, name);
            struct platter_disk *disk = open_image(&b, false);
            assert_backing(disk, name);
            assert_int_equal(disk_size(disk), SIZE);
            disk_close(disk, NULL);
        }
        buffer_free(&b);
    }
}

static void test_no_room(void **state)
{
    (void)state;
    struct buffer b = new_image("cluster_size=512");
    set_backing(&b, "old");
    struct platter_disk *disk = open_image(&b, true);
    auto_free char *name = long_name(500, 'x');
    assert_fails(format_qcow2.set_backing(disk_top(disk), name, "raw", NULL, &err), ENOSPC,
                 "no room");
    assert_works(disk_close(disk, &err));
    disk = open_image(&b, false);
    assert_backing(disk, "old");
    disk_close(disk, NULL);
    buffer_free(&b);
}

/* An extension of tomorrow, and a longer header, are as they were. */
static void test_keeps_what_it_does_not_know(void **state)
{
    static const char text[] = "what somebody needs";
    (void)state;
    struct buffer b = new_image("cluster_size=4k");
    put_be(b.bytes + 100, 4, 128); /* header_length: two fields that we do not know */
    memset(b.bytes + 112, 0, 400);
    memset(b.bytes + 112, 0x5a, 16);
    put_be(b.bytes + 128, 4, UNKNOWN_TYPE);
    put_be(b.bytes + 132, 4, sizeof text);
    memcpy(b.bytes + 136, text, sizeof text);
    for (int i = 0; i < 3; i++) {
        auto_free char *name = long_name(i == 1 ? 1000 : 10, 'n');
        set_backing(&b, i == 2 ? NULL : name);
        assert_int_equal(get_be(b.bytes + 100, 4), 128);
        assert_int_equal(b.bytes[112], 0x5a);
        assert_int_equal(b.bytes[127], 0x5a);
        assert_non_null(memmem(b.bytes + 128, 384, text, sizeof text));
    }
    buffer_free(&b);
}

/* Whether a state of the file has the one name or the other. */
static void judge(struct log_state *s, const char *old, const char *new)
{
    struct platter_disk *disk;
    assert_works(open_stream(log_state_open(s, "state"), false, &disk, &err));
    const char *now = disk_top(disk)->backing_name;
    bool is_old = old && now ? strcmp(old, now) == 0 : !old && !now;
    assert_backing(disk, is_old ? old : new);
    disk_close(disk, NULL);
}

static void cut_everywhere(const char *options, const char *old, const char *new)
{
    struct buffer b = new_image(options);
    struct platter_disk *disk;
    struct stream *s;
    if (old)
        set_backing(&b, old);
    struct write_log *log = write_log_new();
    struct log_state state = {0};
    struct seen seen = {0};
    MUST(stream_buffer_open(&b, "image", true, &s, NULL) == 0);
    MUST(stream_log_open(log, s, &s, NULL) == 0);
    assert_works(open_stream(s, true, &disk, &err));
    assert_works(format_qcow2.set_backing(disk_top(disk), new, new ? "raw" : NULL, NULL, &err));
    assert_works(disk_close(disk, &err));
    for (size_t n = 0; n <= write_log_length(log); n++)
        for (uint64_t seed = 0; seed < 30; seed++) {
            if (seed)
                write_log_crash(log, 0, n, seed, &state);
            else
                write_log_prefix(log, 0, n, &state);
            if (seen_add(&seen, seen_hash(state.bytes, state.size, 0)))
                judge(&state, old, new);
        }
    seen_free(&seen);
    log_state_free(&state);
    write_log_free(log);
    buffer_free(&b);
}

static void test_crash(void **state)
{
    (void)state;
    auto_free char *long_a = long_name(1000, 'a'), *long_b = long_name(1000, 'b');
    auto_free char *middle = long_name(300, 'm');
    const char *const names[] = {NULL, "short", middle, long_a, long_b};
    static const char *const options[] = {"cluster_size=4k", "cluster_size=4k,compat=0.10",
                                          "cluster_size=64k"};
    for (size_t o = 0; o < sizeof options / sizeof *options; o++)
        for (size_t i = 0; i < 5; i++)
            for (size_t k = 0; k < 5; k++)
                if (i != k)
                    cut_everywhere(options[o], names[i], names[k]);
    cut_everywhere("cluster_size=512", "one", "another");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_no_room),
        cmocka_unit_test(test_keeps_what_it_does_not_know),
        cmocka_unit_test(test_crash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
