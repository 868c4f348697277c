/* SPDX-License-Identifier: MIT */
/* By what the bytes of a stream, and the files of a disk, are known again. What needs a server is
 * in tests/interop and tests/servers. */
#include "unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "disk/disk.h"
#include "packed.h"
#include "stream/window.h"
#include "support/process.h"

enum { SIZE = 3 << 20, AT = 1 << 20 };

static char *identity_of(struct stream *s)
{
    char *text = NULL;
    assert_works(stream_identity(s, &text, &err));
    assert_non_null(text);
    return text;
}

/* That of a stream, which is closed. */
static char *last_identity(struct stream *s)
{
    char *text = identity_of(s);
    stream_close(s);
    return text;
}

#define assert_stays(s, before)                                                                    \
    do {                                                                                           \
        auto_free char *now = identity_of(s);                                                      \
        assert_string_equal(now, before);                                                          \
    } while (0)

#define assert_other(s, before)                                                                    \
    do {                                                                                           \
        auto_free char *now = identity_of(s);                                                      \
        assert_string_not_equal(now, before);                                                      \
    } while (0)

static void fill_file(const char *path, const void *bytes, size_t len, uint64_t size)
{
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), len);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    close(fd);
}

static struct stream *open_file(const char *path)
{
    struct stream *s = NULL;
    assert_works(stream_file_open(path, 0, &s, &err));
    return s;
}

static void write_at(const char *path, off_t off, char byte)
{
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, &byte, 1, off), 1);
    close(fd);
}

/* Past what file systems note times in. */
static void wait_for_the_clock(void)
{
    usleep(50 * 1000);
}

/* ---- files ----------------------------------------------------------------------------------- */

static void test_file(void **state)
{
    (void)state;
    auto_free char *path = scratch_path("one"), *other = scratch_path("two");
    struct stat st;
    fill_file(path, "bytes", 5, SIZE);
    struct stream *s = open_file(path);
    auto_free char *before = identity_of(s);
    assert_int_equal(stat(path, &st), 0);
    auto_free char *want =
        string_format("size=%d inode=%ju modified=%jd.%09ld", SIZE, (uintmax_t)st.st_ino,
                      (intmax_t)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    assert_string_equal(before, want);

    wait_for_the_clock();
    char byte;
    assert_works(stream_pread(s, &byte, 1, 0, &err));
    assert_int_equal(chmod(path, 0400), 0);
    assert_int_equal(rename(path, other), 0);
    assert_stays(s, before);
    struct stream *again = open_file(other);
    assert_stays(again, before);
    stream_close(again);

    assert_int_equal(chmod(other, 0600), 0);
    write_at(other, AT, 'x');
    assert_other(s, before);
    auto_free char *written = identity_of(s);
    assert_int_equal(truncate(other, SIZE + 1), 0);
    assert_other(s, written);
    stream_close(s);
}

/* Another file under the name: who has the old one open reads that, who opens it does not. */
static void test_replaced(void **state)
{
    (void)state;
    auto_free char *path = scratch_path("replaced"), *other = scratch_path("new");
    fill_file(path, "bytes", 5, SIZE);
    fill_file(other, "bytes", 5, SIZE);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    const struct timespec times[2] = {st.st_atim, st.st_mtim};
    assert_int_equal(utimensat(AT_FDCWD, other, times, 0), 0);
    struct stream *s = open_file(path);
    auto_free char *before = identity_of(s);
    assert_int_equal(rename(other, path), 0);
    assert_stays(s, before);
    struct stream *again = open_file(path);
    assert_other(again, before);
    stream_close(again);
    stream_close(s);
}

/* ---- memory, slices, pipes ------------------------------------------------------------------- */

static void test_memory(void **state)
{
    (void)state;
    struct stream *s = NULL;
    assert_works(stream_memory_open("memory", SIZE, &s, &err));
    assert_stays(s, "size=0 sha256=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85"
                    "5");
    assert_works(stream_pwrite(s, "abc", 3, 0, &err));
    assert_stays(s, "size=3 sha256=ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015a"
                    "d");
    stream_close(s);
}

static void test_slice(void **state)
{
    (void)state;
    struct stream *s = NULL, *slice = NULL;
    assert_works(stream_memory_open("memory", SIZE, &s, &err));
    assert_works(stream_pwrite(s, "abcdef", 6, 0, &err));
    auto_free char *whole = identity_of(s);
    assert_works(stream_slice_open(s, 1, 4, &slice, &err));
    auto_free char *want = string_format("%s start=1 length=4", whole);
    assert_stays(slice, want);
    assert_works(stream_pwrite(s, "x", 1, 5, &err));
    assert_other(slice, want);
    stream_close(slice);
    stream_close(s);
}

static void test_pipe(void **state)
{
    (void)state;
    int ends[2];
    char *text = (char *)"untouched";
    struct stream *s = NULL;
    assert_int_equal(pipe(ends), 0);
    assert_works(stream_input_open(ends[0], "the pipe", &s, &err));
    assert_fails(stream_identity(s, &text, &err), ENOTSUP, "the pipe: nothing tells");
    assert_null(text);
    close(ends[1]);

    struct budget *budget = budget_new(PACKED_MEMORY);
    const struct unpack_policy policy = {0};
    struct stream *copy = NULL;
    assert_works(stream_spool_open(s, &policy, budget, &copy, &err));
    assert_fails(stream_identity(copy, &text, &err), ENOTSUP, "the pipe: nothing tells");
    stream_close(copy);
    budget_unref(budget);
    close(ends[0]);
}

/* ---- what is unpacked ------------------------------------------------------------------------ */

struct unpacking {
    struct budget *budget;
    struct unpack_policy policy;
    const char *path;
    enum wrapper w;
};

static struct stream *in_order(const struct unpacking *u)
{
    struct stream *s = NULL;
    assert_works(stream_unzip_open(open_file(u->path), u->w, u->budget, &s, &err));
    return s;
}

static struct stream *anywhere(const struct unpacking *u)
{
    struct stream *s = NULL;
    assert_works(stream_unpacked_open(open_file(u->path), u->w, &u->policy, u->budget, &s, &err));
    return s;
}

static struct stream *copied(const struct unpacking *u)
{
    struct stream *s = NULL;
    assert_works(stream_spool_open(in_order(u), &u->policy, u->budget, &s, &err));
    return s;
}

static struct stream *windowed(const struct unpacking *u)
{
    struct stream *s = NULL;
    assert_works(stream_window_open(in_order(u), u->budget, &s, &err));
    return s;
}

/* However it is unpacked, it is the same, and not what it is unpacked from. */
static void test_unpacked(void **state)
{
    (void)state;
    static struct stream *(*const ways[])(const struct unpacking *) = {in_order, anywhere, copied,
                                                                       windowed};
    auto_free char *path = scratch_path("packed");
    struct buffer content = content_new(PACKED_SMALL, 1);
    for (unsigned i = 0; i < WRAPPERS; i++) {
        struct buffer packed = packed_by(all_wrappers[i], "", &content);
        fill_file(path, packed.bytes, packed.size, packed.size);
        auto_free char *file = last_identity(open_file(path));
        auto_free char *want = string_format("%s unpacked=yes", file);
        const struct unpacking u = {
            .budget = budget_new(PACKED_MEMORY), .path = path, .w = all_wrappers[i]};
        for (size_t way = 0; way < sizeof ways / sizeof *ways; way++) {
            struct stream *s = ways[way](&u);
            assert_stays(s, want);
            wait_for_the_clock();
            if (way == sizeof ways / sizeof *ways - 1) {
                write_at(path, (off_t)packed.size, 'x');
                assert_other(s, want);
            }
            stream_close(s);
        }
        budget_unref(u.budget);
        buffer_free(&packed);
    }
    buffer_free(&content);
}

/* ---- disks ----------------------------------------------------------------------------------- */

static struct platter_disk *open_disk(const char *spec)
{
    struct platter_disk *disk = NULL;
    const struct platter_open_options o = {.size = sizeof o, .flags = PLATTER_OPEN_NO_LOCK};
    assert_works(disk_open(spec, &o, &disk, &err));
    return disk;
}

static json_t *disk_words(const struct platter_disk *disk)
{
    json_t *list = NULL;
    assert_works(disk_identity(disk, 0, &list, &err));
    return list;
}

#define FILE_AT "{\"type\":\"raw\",\"stream\":{\"type\":\"file\",\"file_path\":\"%s\"}%s}"

/* A raw disk with an older state in another file: both count. */
static void test_disk(void **state)
{
    (void)state;
    auto_free char *now = scratch_path("now.raw"), *then = scratch_path("then.raw");
    fill_file(now, "now", 3, SIZE);
    fill_file(then, "then", 4, SIZE);
    auto_free char *old = string_format(
        ",\"snapshots\":[{\"type\":\"raw\",\"name\":\"mon\",\"stream\":{\"type\":\"file\","
        "\"file_path\":\"%s\"}}]",
        then);
    auto_free char *spec = string_format(FILE_AT, now, old);
    auto_free char *alone = string_format(FILE_AT, now, "");

    struct platter_disk *disk = open_disk(spec), *one = open_disk(alone);
    json_t *before = disk_words(disk);
    const json_t *entry = json_array_get(before, 0), *files = json_object_get(entry, "files");
    assert_int_equal(json_array_size(before), 1);
    assert_string_equal(json_string_value(json_object_get(entry, "format")), "raw");
    assert_int_equal(json_integer_value(json_object_get(entry, "size")), SIZE);
    assert_null(json_object_get(entry, "view"));
    assert_int_equal(json_array_size(files), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(files, 1), "name")), then);
    assert_works(disk_identity_check(disk, 0, before, &err));
    assert_fails(disk_identity_check(one, 0, before, &err), ESTALE, "had 2 files, and has 1");

    wait_for_the_clock();
    write_at(then, 5, 'x');
    auto_free char *words = string_format("the source has changed: %s: its modified was ", then);
    assert_fails(disk_identity_check(disk, 0, before, &err), ESTALE, words);
    json_decref(before);
    disk_close(disk, NULL);
    disk_close(one, NULL);
}

/* The sentences, and a state that was tampered with. */
static void test_compared(void **state)
{
    (void)state;
    auto_free char *path = scratch_path("compared.raw");
    fill_file(path, "bytes", 5, SIZE);
    auto_free char *spec = string_format(FILE_AT, path, "");
    struct platter_disk *disk = open_disk(spec);
    json_t *before = disk_words(disk);
    json_t *entry = json_array_get(before, 0);
    json_t *file = json_array_get(json_object_get(entry, "files"), 0);
    json_t *right = json_copy(json_object_get(file, "identity"));

    json_object_set_new(entry, "name", json_string("another name"));
    json_object_set_new(file, "name", json_string("another name"));
    assert_works(disk_identity_check(disk, 0, before, &err));
    json_object_set_new(entry, "size", json_integer(512));
    assert_fails(disk_identity_check(disk, 0, before, &err), ESTALE,
                 "its size was 512, and is 3145728");
    json_object_set_new(entry, "size", json_integer(SIZE));
    json_object_set_new(entry, "view", json_string("mon"));
    assert_fails(disk_identity_check(disk, 0, before, &err), ESTALE,
                 "its view was mon, and is none");
    json_object_del(entry, "view");
    json_object_set_new(entry, "format", json_string("qcow2"));
    assert_fails(disk_identity_check(disk, 0, before, &err), ESTALE,
                 "its format was qcow2, and is raw");
    json_object_set_new(entry, "format", json_string("raw"));
    static const char *const identities[][2] = {
        {"size=3145728", "its inode was none, and is "},
        {"etag=x size=3145728", "its etag was x, and is none"},
        {"size=3145 inode=1", "its size was 3145, and is 3145728"},
        {"size=31457288", "its size was 31457288, and is 3145728"},
        {"", "its size was none"},
        {"  = =x", "the source has changed"},
    };
    for (size_t i = 0; i < sizeof identities / sizeof *identities; i++) {
        json_object_set_new(file, "identity", json_string(identities[i][0]));
        assert_fails(disk_identity_check(disk, 0, before, &err), ESTALE, identities[i][1]);
    }
    json_object_set_new(file, "identity", json_integer(7));
    assert_fails(disk_identity_check(disk, 0, before, &err), ESTALE, "its identity was none");
    json_object_set(file, "identity", right);
    assert_works(disk_identity_check(disk, 0, before, &err));
    json_t *none = json_null();
    assert_fails(disk_identity_check(disk, 0, none, &err), ESTALE, "had 0 images, and has 1");
    assert_fails(disk_identity_check(disk, 1, before, &err), ESTALE, "had 1 images, and has 0");
    json_decref(right);
    json_decref(before);
    disk_close(disk, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file),   cmocka_unit_test(test_replaced),
        cmocka_unit_test(test_memory), cmocka_unit_test(test_slice),
        cmocka_unit_test(test_pipe),   cmocka_unit_test(test_unpacked),
        cmocka_unit_test(test_disk),   cmocka_unit_test(test_compared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
