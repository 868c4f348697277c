/* SPDX-License-Identifier: MIT */
/* Snapshots of a qcow2: what their table may say, changes that end early, tables of several slices.
 * Sections are those of qcow2.md. */
#include "unit.h"

#include <platter/platter.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "base/memory.h"
#include "base/teller.h"
#include "disk/disk.h"
#include "support/buffer.h"
#include "support/imagecheck.h"
#include "support/must.h"
#include "support/process.h"

enum { SPARE = 16 << 20 };

static struct buffer new_image(const char *options, uint64_t size)
{
    auto_free char *path = scratch_path("snapshots.qcow2");
    struct platter_create_options o = {.size = sizeof o,
                                       .format = "qcow2",
                                       .options = options,
                                       .has_disk_size = true,
                                       .disk_size = size};
    assert_works(platter_create(path, &o, &err));
    return buffer_load(path, SPARE);
}

static int open_disk(struct buffer *b, bool writable, struct platter_disk **ret,
                     struct platter_error *err)
{
    const struct format *format = &format_qcow2;
    struct stream *s;
    MUST(stream_buffer_open(b, "image", writable, &s, NULL) == 0);
    return disk_assemble(&s, &format, 1, writable, true, 0, NULL, ret, err);
}

static struct platter_disk *must_open(struct buffer *b, bool writable)
{
    struct platter_disk *disk;
    assert_works(open_disk(b, writable, &disk, &err));
    return disk;
}

static int make(struct platter_disk *disk, const char *name, const char *id, struct teller *teller,
                struct platter_error *err)
{
    struct snapshot_request request = {.name = name, .id = id, .icount = UINT64_MAX};
    int r = disk_snapshot_create(disk, &request, teller, err);
    assert_int_equal(r == 0, request.ret_id != NULL);
    free(request.ret_id);
    return r;
}

static void fill(struct platter_disk *disk, goff off, size_t len, int byte)
{
    auto_free uint8_t *bytes = malloc(len);
    MUST(bytes);
    memset(bytes, byte, len);
    assert_works(disk_write(disk, bytes, len, off, &err));
}

/* Whether all of [off, off + len) is `byte`. */
static bool is_filled(struct platter_disk *disk, goff off, size_t len, int byte)
{
    auto_free uint8_t *bytes = malloc(2 * len);
    MUST(bytes);
    memset(bytes + len, byte, len);
    assert_works(disk_read(disk, bytes, len, off, &err));
    return memcmp(bytes, bytes + len, len) == 0;
}

static void assert_sound(const struct buffer *b)
{
    struct image_report report;
    image_check("qcow2", b->bytes, b->size, &report);
    if (report.errors || report.leaks)
        fail_msg("%llu errors, %llu leaks: %s", (unsigned long long)report.errors,
                 (unsigned long long)report.leaks, report.first);
}

static unsigned count_snapshots(const struct platter_disk *disk)
{
    struct snapshot_request s;
    unsigned n = 0;
    while (format_qcow2.snapshots->describe(disk_top(disk), n, &s))
        n++;
    return n;
}

/* ---- tables of several slices ------------------------------------------------------------------
 */

/* What is read of a table at once is less than a cluster; its space goes when its count does. */
static void several_slices(const char *options)
{
    static const goff places[] = {0, UINT64_C(3) << 29, UINT64_C(3) << 30};
    struct buffer b = new_image(options, UINT64_C(4) << 30);
    struct platter_disk *disk = must_open(&b, true);
    for (int i = 0; i < 3; i++)
        fill(disk, places[i], 4096, 1);
    assert_works(make(disk, "one", NULL, NULL, &err));
    assert_works(disk_close(disk, &err));
    disk = must_open(&b, true);
    for (int i = 0; i < 3; i++)
        fill(disk, places[i], 4096, 2);
    assert_works(make(disk, "two", NULL, NULL, &err));
    for (int i = 0; i < 3; i++)
        fill(disk, places[i], 4096, 3);
    assert_works(disk_close(disk, &err));
    assert_sound(&b);
    disk = must_open(&b, true); /* no table is in memory */
    assert_works(disk_snapshot_delete(disk, "one", 0, NULL, &err));
    assert_works(disk_close(disk, &err));
    assert_sound(&b);
    disk = must_open(&b, true);
    assert_works(disk_snapshot_apply(disk, "two", 0, NULL, &err));
    for (int i = 0; i < 3; i++)
        assert_true(is_filled(disk, places[i], 4096, 2));
    assert_works(disk_close(disk, &err));
    assert_sound(&b);
    buffer_free(&b);
}

static void test_tables_of_several_slices(void **state)
{
    (void)state;
    several_slices("cluster_size=128k");
    several_slices("cluster_size=128k,extended_l2=on");
}

/* ---- what is written down ----------------------------------------------------------------------
 */

/* Where entry i of the snapshot table stands (section 9.1). */
static uint8_t *entry_of(const struct buffer *b, unsigned i)
{
    uint64_t start = get_be(b->bytes + 64, 8), at = start;
    for (; i > 0; i--) {
        const uint8_t *e = b->bytes + at;
        at += 40 + get_be(e + 12, 2) + get_be(e + 14, 2) + get_be(e + 36, 4);
        at = start + round_up(at - start, 8);
    }
    return b->bytes + at;
}

static void test_all_that_an_entry_says(void **state)
{
    (void)state;
    const uint64_t size = (UINT64_C(5) << 30) + 1;
    struct buffer b = new_image(NULL, 1 << 20);
    struct platter_disk *disk = must_open(&b, true);
    char longest[256];
    memset(longest, 'x', 255);
    longest[255] = '\0';
    struct snapshot_request s = {.name = longest,
                                 .id = "an id",
                                 .date_sec = UINT32_MAX,
                                 .date_nsec = 999999999,
                                 .clock_nsec = UINT64_MAX - 1,
                                 .icount = 0,
                                 .vm_state_size = size};
    assert_fails(disk_snapshot_create(disk, &s, NULL, &err), EINVAL, "more than were written");
    assert_null(s.ret_id);
    assert_works(disk_state_write(disk, "!", 1, size - 1, &err));
    assert_works(disk_snapshot_create(disk, &s, NULL, &err));
    assert_string_equal(s.ret_id, "an id");
    free(s.ret_id);
    assert_works(make(disk, "", "", NULL, &err)); /* nothing says that there must be a name */
    assert_works(disk_close(disk, &err));
    assert_sound(&b);
    assert_int_equal(get_be(entry_of(&b, 0) + 32, 4), 0); /* it does not fit */
    assert_int_equal(get_be(entry_of(&b, 0) + 36, 4), 24);
    assert_int_equal(get_be(entry_of(&b, 0) + 40, 8), size);
    assert_int_equal(get_be(entry_of(&b, 0) + 48, 8), 1 << 20);
    assert_int_equal(get_be(entry_of(&b, 1) + 32, 4), 0);
    assert_int_equal(get_be(entry_of(&b, 1) + 56, 8), UINT64_MAX);
    disk = must_open(&b, false);
    struct snapshot_request is;
    assert_true(format_qcow2.snapshots->describe(disk_top(disk), 0, &is));
    assert_string_equal(is.name, longest);
    assert_string_equal(is.id, "an id");
    assert_int_equal(is.date_sec, UINT32_MAX);
    assert_int_equal(is.date_nsec, 999999999);
    assert_int_equal(is.clock_nsec, UINT64_MAX - 1);
    assert_int_equal(is.icount, 0);
    assert_int_equal(is.vm_state_size, size);
    struct disk_view view;
    char last[2] = "";
    assert_works(disk_view_open(disk, "an id", &view, &err));
    assert_works(disk_state_read(view.disk, last, 1, size - 1, &err));
    assert_string_equal(last, "!");
    disk_view_close(&view);
    assert_works(disk_close(disk, &err));
    buffer_free(&b);
}

static void test_the_next_id(void **state)
{
    (void)state;
    static const char *const ids[] = {"7", "abc", "-1", "12 or so", " 99"};
    struct snapshot_request s = {.name = "next"};
    struct buffer b = new_image(NULL, 1 << 20);
    struct platter_disk *disk = must_open(&b, true);
    for (int i = 0; i < 5; i++)
        assert_works(make(disk, "same name", ids[i], NULL, &err));
    assert_fails(make(disk, "n", "7", NULL, &err), EEXIST, "id \"7\" already");
    assert_works(disk_snapshot_create(disk, &s, NULL, &err));
    assert_string_equal(s.ret_id, "13");
    free(s.ret_id);
    assert_works(make(disk, "most", "18446744073709551615", NULL, &err));
    assert_fails(make(disk, "n", NULL, NULL, &err), EOVERFLOW, "no number is left");
    assert_works(disk_close(disk, &err));
    assert_sound(&b);
    buffer_free(&b);
}

/* ---- damage ------------------------------------------------------------------------------------
 */

enum place { HEADER, ENTRY, L1_TABLE, L2_TABLE };

struct damage {
    const char *what;
    enum place place;
    unsigned at, width;
    uint64_t value;
    int code;          /* of opening; 0: it opens, and what is done to the snapshot fails */
    const char *words; /* of that failure */
};

static const struct damage damages[] = {
    {"too many snapshots", HEADER, 60, 4, 65537, PLATTER_ECORRUPT, "nb_snapshots"},
    {"a table that begins anywhere", HEADER, 64, 8, 0x5008, PLATTER_ECORRUPT, "snapshots_offset"},
    {"a table behind the file", HEADER, 64, 8, 1 << 30, PLATTER_ECORRUPT, "snapshots_offset"},
    {"a table at the header", HEADER, 64, 8, 0, PLATTER_ECORRUPT, "snapshots_offset"},
    {"an id that is too long", ENTRY, 12, 2, 65535, PLATTER_ECORRUPT, "snapshot table entry 0"},
    {"a name that is too long", ENTRY, 14, 2, 65535, PLATTER_ECORRUPT, "snapshot table entry 0"},
    {"too much extra data", ENTRY, 36, 4, 1025, PLATTER_ECORRUPT, "1024 bytes at most"},
    {"extra data without end", ENTRY, 36, 4, UINT32_MAX, PLATTER_ECORRUPT, "1024 bytes at most"},
    {"an L1 table anywhere", ENTRY, 0, 8, 0x5008, 0, "is impossible"},
    {"an L1 table behind all files", ENTRY, 0, 8, UINT64_C(1) << 56, 0, "is impossible"},
    {"an L1 table behind the file", ENTRY, 0, 8, 1 << 30, 0, "an L1 table at 1073741824"},
    {"the header as an L1 table", ENTRY, 0, 8, 0, 0, "is impossible"},
    {"the refcount table as an L1 table", ENTRY, 0, 8, 0x1000, 0, "is impossible"},
    {"the disk's L1 table", ENTRY, 0, 8, 0x3000, 0, "is impossible"},
    {"an L1 table that is too short", ENTRY, 8, 4, 1, 0, "is impossible"},
    {"an L1 table that is too long", ENTRY, 8, 4, (4 << 20) + 1, 0, "is impossible"},
    {"a disk that is too large", ENTRY, 48, 8, UINT64_C(1) << 63, 0, "is impossible"},
    {"a disk larger than its table", ENTRY, 48, 8, 1 << 30, 0, "is impossible"},
    {"reserved bits of L1", L1_TABLE, 0, 1, 0x7f, 0, "reserved bits are set"},
    {"an L2 table anywhere", L1_TABLE, 6, 2, 0x5200, 0, "multiple of the cluster size"},
    {"no L2 table", L1_TABLE, 8, 8, 0, 0, NULL}, /* that can be: nothing shows it */
    {"the L1 table as an L2 table", L1_TABLE, 0, 8, 0x3000, 0, "into the header or a table"},
    {"an L2 table behind the file", L1_TABLE, 0, 8, 1 << 30, 0, "L2 table at 1073741824"},
    {"reserved bits of L2", L2_TABLE, 0, 1, 0x3f, 0, "reserved bits are set"},
    {"data in the refcount table", L2_TABLE, 0, 8, 0x1000, 0, "into the header or a table"},
    {"packed data that owns", L2_TABLE, 0, 1, 0xc0, 0, "must not have bit 63"},
    {.what = NULL}};

/* Clusters of 4 KiB: an L1 entry is for 2 MiB. One snapshot, of which no table is the disk's. */
static struct buffer image_to_harm(void)
{
    struct buffer b = new_image("cluster_size=4k", 8 << 20);
    struct platter_disk *disk = must_open(&b, true);
    fill(disk, 0, 3 << 20, 1);
    assert_works(make(disk, "one", NULL, NULL, &err));
    fill(disk, 0, 3 << 20, 2);
    assert_works(disk_close(disk, &err));
    assert_int_equal(get_be(b.bytes + 40, 8), 0x3000);
    assert_sound(&b);
    return b;
}

/* The table to the end of the file, so that what is too long reaches behind it. */
static void move_table(struct buffer *b)
{
    uint64_t end = round_up(b->size, 4096), at = get_be(b->bytes + 64, 8);
    memset(b->bytes + b->size, 0, end - b->size);
    memcpy(b->bytes + end, b->bytes + at, 4096);
    b->size = end + 4096;
    put_be(b->bytes + 64, 8, end);
}

static void harm(struct buffer *b, const struct damage *d)
{
    if (d->place == ENTRY && d->code)
        move_table(b);
    uint8_t *entry = entry_of(b, 0), *l1 = b->bytes + get_be(entry, 8);
    uint8_t *l2 = b->bytes + (get_be(l1, 8) & UINT64_C(0x00fffffffffffe00));
    uint8_t *const places[] = {b->bytes, entry, l1, l2};
    put_be(places[d->place] + d->at, d->width, d->value);
}

/* Each of the calls fails in these words, and the disk stays what it is. */
static void assert_refused(struct buffer *b, const char *words)
{
    struct platter_disk *disk = must_open(b, true);
    struct disk_view view;
    struct disk_diff diff;
    struct snapshot_difference found;
    struct platter_error why = {0};
    assert_fails(disk_snapshot_apply(disk, "one", 0, NULL, &err), PLATTER_ECORRUPT, words);
    int r = disk_snapshot_diff_open(disk, "one", NULL, &diff, &why);
    if (r == 0) {
        r = disk_snapshot_diff_next(&diff, 0, &found, &why);
        disk_snapshot_diff_close(&diff);
    }
    assert_int_equal(r, -PLATTER_ECORRUPT);
    r = disk_view_open(disk, "one", &view, &why);
    if (r == 0) {
        uint8_t byte;
        r = disk_read(view.disk, &byte, 1, 0, &why);
        disk_view_close(&view);
    }
    assert_int_equal(r, -PLATTER_ECORRUPT);
    assert_fails(disk_snapshot_delete(disk, "one", 0, NULL, &err), PLATTER_ECORRUPT, words);
    assert_true(is_filled(disk, 0, 3 << 20, 2));
    assert_works(disk_close(disk, &err));
    disk = must_open(b, false);
    assert_true(is_filled(disk, 0, 3 << 20, 2));
    assert_works(disk_close(disk, &err));
}

static void test_damaged_tables(void **state)
{
    (void)state;
    struct buffer good = image_to_harm();
    for (const struct damage *d = damages; d->what; d++) {
        struct buffer b = buffer_copy(&good, good.size + SPARE);
        struct platter_disk *disk;
        print_message("%s\n", d->what);
        harm(&b, d);
        if (d->code) {
            assert_fails(open_disk(&b, true, &disk, &err), d->code, d->words);
            assert_fails(open_disk(&b, false, &disk, &err), d->code, d->words);
        } else if (d->words) {
            assert_refused(&b, d->words);
        } else {
            disk = must_open(&b, true);
            assert_works(disk_snapshot_apply(disk, "one", 0, NULL, &err));
            assert_works(disk_close(disk, &err));
        }
        buffer_free(&b);
    }
    buffer_free(&good);
}

static void test_a_state_that_is_not_there(void **state)
{
    (void)state;
    struct buffer b = image_to_harm();
    struct disk_view view;
    uint64_t size;
    put_be(entry_of(&b, 0) + 40, 8, UINT64_C(1) << 62);
    struct platter_disk *disk = must_open(&b, false);
    assert_works(disk_view_open(disk, "one", &view, &err));
    assert_fails(disk_state_size(view.disk, &size, &err), PLATTER_ECORRUPT, "does not fit");
    assert_true(is_filled(view.disk, 0, 3 << 20, 1));
    disk_view_close(&view);
    assert_works(disk_close(disk, &err));
    buffer_free(&b);
}

/* Where the count of a cluster stands that nobody's table is far from: one block, 16 bits. */
static uint8_t *count_of(const struct buffer *b, hoff cluster, uint64_t cluster_size)
{
    uint64_t block = get_be(b->bytes + get_be(b->bytes + 48, 8), 8);
    return b->bytes + block + cluster / cluster_size * 2;
}

/* A cluster that counts as free is about to be somebody else's: it is not shared on top of that,
 * and not freed when sharing ends. */
static void test_what_counts_as_free_is_not_shared(void **state)
{
    (void)state;
    struct buffer b = new_image("cluster_size=4k", 8 << 20);
    struct platter_disk *disk = must_open(&b, true);
    fill(disk, 0, 1 << 20, 1);
    assert_works(disk_close(disk, &err));
    const uint8_t *l1 = b.bytes + get_be(b.bytes + 40, 8);
    const uint8_t *l2 = b.bytes + (get_be(l1, 8) & UINT64_C(0x00fffffffffffe00));
    hoff data = get_be(l2 + 100 * 8, 8) & UINT64_C(0x00fffffffffffe00);
    uint8_t *count = count_of(&b, data, 4096);
    assert_int_equal(get_be(count, 2), 1);
    put_be(count, 2, 0);
    disk = must_open(&b, true);
    assert_fails(make(disk, "one", NULL, NULL, &err), PLATTER_ECORRUPT, "is 0 and cannot go up");
    assert_true(is_filled(disk, 0, 1 << 20, 1));
    assert_works(disk_close(disk, &err));
    assert_int_equal(get_be(count, 2), 0);
    put_be(count, 2, 1);
    assert_sound(&b);
    buffer_free(&b);
}

/* ---- cancelled --------------------------------------------------------------------------------
 */

struct listener {
    struct teller teller;
    unsigned stop_at, calls; /* answers no at this call, and at all behind it */
    uint64_t done, total;
};

static int listen(void *opaque, const struct platter_progress *now)
{
    struct listener *l = opaque;
    l->teller.told_ns = 0; /* to be told of each step */
    assert_true(now->done >= l->done && now->done <= now->total);
    l->done = now->done;
    l->total = now->total;
    return ++l->calls >= l->stop_at;
}

static int change(struct platter_disk *disk, unsigned which, struct listener *l,
                  struct platter_error *err)
{
    l->teller = (struct teller){.fn = listen, .opaque = l};
    if (which == 0)
        return make(disk, "two", NULL, &l->teller, err);
    return which == 1 ? disk_snapshot_apply(disk, "one", 0, &l->teller, err)
                      : disk_snapshot_delete(disk, "one", 0, &l->teller, err);
}

/* Stopped at call number `at`: nothing has changed, or all. Whether it was. */
static bool cancel_at(const struct buffer *image, unsigned which, unsigned at)
{
    struct buffer b = buffer_copy(image, image->size + SPARE);
    struct platter_disk *disk = must_open(&b, true);
    struct platter_error why = {0};
    struct listener l = {.stop_at = at};
    int r = change(disk, which, &l, &why);
    assert_true(r == 0 || r == -ECANCELED);
    unsigned snapshots = r < 0 || which == 1 ? 1 : which == 0 ? 2 : 0;
    assert_int_equal(count_snapshots(disk), snapshots);
    assert_true(is_filled(disk, 0, 3 << 20, r == 0 && which == 1 ? 1 : 2));
    if (r == 0)
        assert_int_equal(l.done, l.total);
    fill(disk, 4096, 4096, 3); /* it goes on */
    assert_works(disk_close(disk, &err));
    assert_sound(&b);
    buffer_free(&b);
    return r < 0;
}

static void test_cancelled(void **state)
{
    (void)state;
    static const unsigned stops[] = {8, 8, 1}; /* the tables are gone through twice; one question */
    struct buffer b = image_to_harm();
    for (unsigned which = 0; which < 3; which++) {
        unsigned at = 1;
        while (cancel_at(&b, which, at))
            at++;
        assert_int_equal(at - 1, stops[which]);
    }
    buffer_free(&b);
}

/* ---- the machine's state -----------------------------------------------------------------------
 */

static void test_a_state_that_is_given_up(void **state)
{
    (void)state;
    struct buffer b = new_image("cluster_size=4k", 8 << 20);
    struct platter_disk *disk = must_open(&b, true);
    auto_free uint8_t *bytes = malloc(100000);
    MUST(bytes);
    memset(bytes, 5, 100000);
    fill(disk, 0, 1 << 20, 1);
    assert_works(disk_state_write(disk, bytes, 100000, 0, &err));
    uint64_t with = b.size;
    assert_works(platter_vm_state_drop(disk, &err));
    fill(disk, 1 << 20, 64 << 10, 2); /* where it stood */
    assert_int_equal(b.size, with);
    assert_works(disk_close(disk, &err));
    assert_sound(&b);
    disk = must_open(&b, false);
    assert_true(is_filled(disk, 0, 1 << 20, 1));
    assert_fails(platter_vm_state_drop(disk, &err), EROFS, "for reading only");
    assert_works(disk_close(disk, &err));
    buffer_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables_of_several_slices),
        cmocka_unit_test(test_all_that_an_entry_says),
        cmocka_unit_test(test_the_next_id),
        cmocka_unit_test(test_damaged_tables),
        cmocka_unit_test(test_a_state_that_is_not_there),
        cmocka_unit_test(test_what_counts_as_free_is_not_shared),
        cmocka_unit_test(test_cancelled),
        cmocka_unit_test(test_a_state_that_is_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
