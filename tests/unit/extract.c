/* SPDX-License-Identifier: MIT */
/* Disks out of an archive, through the public functions: what appears when, and what is refused. */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "support/must.h"
#include "support/vmaimage.h"

enum { CLUSTER = VI_CLUSTER, SIZE = 40 * CLUSTER + 1536 };

static char folder[] = "extract-XXXXXX";
static struct vmaimage image;

static const char *in_folder(const char *name)
{
    static char paths[8][128];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static void write_file(const char *name, const void *bytes, size_t len)
{
    FILE *f = fopen(in_folder(name), "w");
    MUST(f && fwrite(bytes, 1, len, f) == len && fclose(f) == 0);
}

static uint64_t file_size(const char *name)
{
    struct stat st;
    return stat(in_folder(name), &st) == 0 ? (uint64_t)st.st_size : UINT64_MAX;
}

static bool is_there(const char *name)
{
    return access(in_folder(name), F_OK) == 0;
}

/* Files in the folder, whatever they are called. */
static unsigned files_there(void)
{
    char command[128];
    unsigned n = 0;
    snprintf(command, sizeof command, "find %s -type f | wc -l", folder);
    FILE *f = popen(command, "r");
    MUST(f && fscanf(f, "%u", &n) == 1 && pclose(f) == 0);
    return n;
}

static void check_content(const char *name, const struct vmaimage_disk *disk, uint64_t size)
{
    uint8_t *bytes = malloc(size);
    FILE *f = fopen(in_folder(name), "r");
    MUST(bytes && f && fread(bytes, 1, size, f) == size && fgetc(f) == EOF);
    fclose(f);
    assert_memory_equal(bytes, disk->content, size);
    free(bytes);
}

/* Two disks, a state and a configuration, in the order that is asked for; x.vma. */
static int make_archive(void **state)
{
    (void)state;
    MUST(mkdtemp(folder));
    vmaimage_start(&image, 5);
    vmaimage_add_config(&image, "conf", "text", 4);
    vmaimage_add_config(&image, "../conf", "text", 4);
    vmaimage_add_disk(&image, 1, "a", SIZE, true);
    vmaimage_add_disk(&image, 9, "b", 5 * CLUSTER, true);
    vmaimage_add_disk(&image, 4, "vmstate", 7 * CLUSTER, true);
    vmaimage_arrange(&image, VI_SHUFFLED, 10);
    vmaimage_pack(&image, 6, 10);
    vmaimage_write(&image);
    write_file("x.vma", image.file.bytes, image.file.size);
    return 0;
}

static int remove_archive(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", folder);
    MUST(system(command) == 0);
    strcpy(folder, "extract-XXXXXX");
    vmaimage_free(&image);
    return 0;
}

/* ---- extracting ------------------------------------------------------------------------------ */

struct wish {
    const char *disk, *target;
    unsigned flags;
    const char *format;
    uint64_t rate;
    const char *group;
};

struct how {
    unsigned archive_flags;
    platter_progress_fn progress;
    void *opaque;
    platter_fault_fn fault;
    uint64_t holes; /* set */
};

static int extract_again(struct platter_archive *a, const struct wish *wishes, size_t n,
                         struct how *how, struct platter_error *err)
{
    struct platter_extract_target targets[8];
    const struct platter_extract_target *list[8];
    for (size_t i = 0; i < n; i++) {
        list[i] = &targets[i];
        targets[i] = (struct platter_extract_target){.size = sizeof targets[i],
                                                     .disk = wishes[i].disk,
                                                     .target = in_folder(wishes[i].target),
                                                     .flags = wishes[i].flags,
                                                     .format = wishes[i].format,
                                                     .rate = wishes[i].rate,
                                                     .rate_group = wishes[i].group};
    }
    struct platter_extract_options options = {.size = sizeof options,
                                              .flags = PLATTER_EXTRACT_UNSAFE,
                                              .targets = list,
                                              .n_targets = n,
                                              .workers = 3,
                                              .progress = how->progress,
                                              .opaque = how->opaque};
    return platter_archive_extract(a, &options, &how->holes, err);
}

static int extract(const struct wish *wishes, size_t n, struct how *how, struct platter_error *err)
{
    struct platter_archive *a;
    struct platter_archive_options options = {.size = sizeof options,
                                              .flags = how->archive_flags,
                                              .fault = how->fault,
                                              .opaque = how->opaque};
    int r = platter_archive_open(in_folder("x.vma"), &options, &a, err);
    if (r == 0) {
        r = extract_again(a, wishes, n, how, err);
        platter_archive_close(a);
    }
    return r;
}

static void test_all_of_it(void **state)
{
    (void)state;
    struct how how = {0};
    const struct wish wishes[] = {{"b", "b.raw"}, {"a", "a.raw"}, {"vmstate", "s.raw"}};
    assert_works(extract(wishes, 3, &how, &err));
    check_content("a.raw", &image.disks[0], SIZE);
    check_content("b.raw", &image.disks[1], 5 * CLUSTER);
    check_content("s.raw", &image.disks[2], 7 * CLUSTER);
    assert_int_equal(files_there(), 4);
    assert_int_equal(how.holes, 0);
    assert_works(extract(wishes, 0, &how, &err)); /* which reads, and writes nothing */
}

static void test_once(void **state)
{
    (void)state;
    struct how how = {0};
    struct platter_archive *a;
    const struct wish wish = {"b", "b.raw"}, other = {"a", "a.raw"};
    assert_works(platter_archive_open(in_folder("x.vma"), NULL, &a, &err));
    assert_works(extract_again(a, &wish, 1, &how, &err));
    assert_fails(extract_again(a, &other, 1, &how, &err), EINVAL, "is read once");
    platter_archive_close(a);
    assert_false(is_there("a.raw"));
    assert_int_equal(files_there(), 2);
}

/* What cannot be done is known before anything is there. */
static void test_wishes_that_cannot_be(void **state)
{
    (void)state;
    struct how how = {0};
    const struct {
        struct wish wishes[2];
        int code;
        const char *words;
    } cases[] = {
        {{{"b", "b.raw"}, {"c", "c.raw"}}, ENOENT, "has no disk called \"c\""},
        {{{"b", "b.raw"}, {"b", "c.raw"}}, EINVAL, "cannot have two targets"},
        {{{"b", "b.raw"}, {"a", "./b.raw"}}, EINVAL, "the target of two disks"},
        {{{"b", "b.raw"}, {"a", "x.vma"}}, EINVAL, "is the archive itself"},
        {{{"b", "b.raw"}, {"a", "no/a.raw"}}, ENOENT, "cannot open its folder"},
        {{{"b", "b.raw"}, {"a", "a.raw", 0, "nope"}}, ENOTSUP, "no format is called"},
        {{{"b", "b.raw"}, {"a", "a.raw", PLATTER_EXTRACT_COMPRESS}}, ENOTSUP, "does not compress"},
        {{{"b", "b.raw"}, {"a", "a.raw", PLATTER_EXTRACT_EXISTING}}, ENOENT, "cannot open"},
        {{{"b", "b.raw"}, {"vmstate", "s", 0, "qcow2"}}, ENOTSUP, "the state of a machine"},
        {{{"b", "b.raw"}, {"vmstate", "old", PLATTER_EXTRACT_EXISTING}}, ENOTSUP, "no known size"},
        {{{"b", "b.raw"}, {"a", "old", PLATTER_EXTRACT_EXCLUSIVE}}, EEXIST, "exists already"},
        {{{"b", "b.raw"}, {"a", "old", PLATTER_EXTRACT_EXISTING}}, ENOSPC, "less than"},
    };
    write_file("old", "old", 3);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_fails(extract(cases[i].wishes, 2, &how, &err), cases[i].code, cases[i].words);
        assert_int_equal(files_there(), 2);
    }
    assert_int_equal(file_size("old"), 3);
}

static void test_existing(void **state)
{
    (void)state;
    struct how how = {0};
    const unsigned flags = PLATTER_EXTRACT_EXISTING | PLATTER_EXTRACT_FITTING;
    const uint64_t most = SIZE + (4 << 20);
    uint8_t *old = malloc(most);
    MUST(old);
    memset(old, 0x55, most);
    for (int zeros = 0; zeros < 2; zeros++) {
        const struct wish wish = {"a", "a.raw", flags | (zeros ? PLATTER_EXTRACT_WRITE_ZEROS : 0)};
        write_file("a.raw", old, most);
        assert_works(extract(&wish, 1, &how, &err));
        assert_int_equal(file_size("a.raw"), most);
        FILE *f = fopen(in_folder("a.raw"), "r");
        uint8_t *got = malloc(most);
        MUST(f && got && fread(got, 1, most, f) == most);
        fclose(f);
        assert_memory_equal(got + SIZE, old + SIZE, most - SIZE);
        bool same = memcmp(got, image.disks[0].content, SIZE) == 0;
        assert_int_equal(same, zeros);
        free(got);
    }
    free(old);
    const struct wish wish = {"a", "a.raw", flags};
    MUST(truncate(in_folder("a.raw"), (off_t)most + 1) == 0);
    assert_fails(extract(&wish, 1, &how, &err), EINVAL, "over 4 MiB more");
}

/* ---- all or nothing -------------------------------------------------------------------------- */

struct meddling {
    const char *make; /* a file that appears while the work goes on */
    bool cancel;
};

static int meddle(void *opaque, const struct platter_progress *now)
{
    const struct meddling *m = opaque;
    (void)now;
    if (m->make && !is_there(m->make))
        write_file(m->make, "other", 5);
    return m->cancel;
}

/* One of the new files cannot have its name in the end: none of them has, and what was there before
 * is there again. */
static void test_names_all_or_none(void **state)
{
    (void)state;
    struct meddling m = {.make = "b.raw"};
    struct how how = {.progress = meddle, .opaque = &m};
    const struct wish wishes[] = {
        {"a", "a.raw"}, {"vmstate", "s.raw"}, {"b", "b.raw", PLATTER_EXTRACT_EXCLUSIVE}};
    write_file("a.raw", "old", 3);
    assert_fails(extract(wishes, 3, &how, &err), EEXIST, "cannot give the new file its name");
    assert_int_equal(file_size("a.raw"), 3);
    assert_int_equal(file_size("b.raw"), 5);
    assert_false(is_there("s.raw"));
    assert_int_equal(files_there(), 3);
}

static void test_cancel(void **state)
{
    (void)state;
    static const char *const formats[] = {"raw", "qcow2", "vmdk"};
    for (unsigned i = 0; i < 3; i++) {
        struct meddling m = {.cancel = true};
        struct how how = {.progress = meddle, .opaque = &m};
        const struct wish wishes[] = {{"a", "a.img", 0, formats[i]}, {"vmstate", "s.raw"}};
        write_file("a.img", "old", 3);
        assert_fails(extract(wishes, 2, &how, &err), ECANCELED, "cancelled");
        assert_int_equal(file_size("a.img"), 3);
        assert_int_equal(files_there(), 2);
    }
}

static void count_missing(void *opaque, const struct platter_fault *fault)
{
    unsigned *n = opaque;
    *n += fault->kind == PLATTER_FAULT_MISSING;
}

static void test_missing(void **state)
{
    (void)state;
    unsigned told = 0;
    struct how how = {.opaque = &told, .fault = count_missing};
    const struct wish a = {"a", "a.raw"}, b = {"b", "b.raw"};
    vmaimage_find(&image, 9, 3)->device = 0;
    vmaimage_write(&image);
    write_file("x.vma", image.file.bytes, image.file.size);
    assert_fails(extract(&b, 1, &how, &err), PLATTER_ECORRUPT, "cluster 3");
    assert_int_equal(files_there(), 1);
    assert_works(extract(&a, 1, &how, &err)); /* nobody asks for b */
    check_content("a.raw", &image.disks[0], SIZE);
    how.archive_flags = PLATTER_ARCHIVE_SALVAGE;
    assert_works(extract(&b, 1, &how, &err));
    assert_int_equal(how.holes, 1);
    assert_int_equal(told, 1);
    memset(image.disks[1].content + 3 * CLUSTER, 0, CLUSTER);
    check_content("b.raw", &image.disks[1], 5 * CLUSTER);
}

/* ---- rates ----------------------------------------------------------------------------------- */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void test_rates(void **state)
{
    (void)state;
    struct how how = {0};
    uint64_t stored = 0;
    for (size_t i = 0; i < image.n_slots; i++)
        if (image.slots[i].device == 1 || image.slots[i].device == 9)
            stored += (uint64_t)__builtin_popcount(image.slots[i].mask) * VI_BLOCK;
    const struct wish wishes[] = {{"a", "a.raw", 0, NULL, 2 * stored, "group"},
                                  {"b", "b.raw", 0, NULL, 100 * stored, "group"}};
    double start = seconds();
    assert_works(extract(wishes, 2, &how, &err));
    double took = seconds() - start; /* half a second, but for what is written as zeros */
    assert_true(took > 0.3);
    check_content("a.raw", &image.disks[0], SIZE);
}

/* ---- configurations -------------------------------------------------------------------------- */

static void test_configs(void **state)
{
    (void)state;
    struct platter_archive *a;
    assert_works(platter_archive_open(in_folder("x.vma"), NULL, &a, &err));
    assert_works(platter_archive_save_config(a, 0, folder, 0, &err));
    assert_int_equal(file_size("conf"), 4);
    assert_fails(platter_archive_save_config(a, 0, folder, 0, &err), EEXIST, "exists already");
    assert_fails(platter_archive_save_config(a, 1, folder, 0, &err), EINVAL, "not safe");
    assert_fails(platter_archive_save_config(a, 2, folder, 0, &err), ENOENT, "no configuration 2");
    assert_fails(platter_archive_save_config(a, 0, in_folder("no"), 0, &err), ENOENT, "its folder");
    assert_fails(platter_archive_save_config(a, 0, folder, 2, &err), EINVAL, "unknown flags");
    MUST(unlink(in_folder("conf")) == 0 && symlink("elsewhere", in_folder("conf")) == 0);
    assert_fails(platter_archive_save_config(a, 0, folder, 0, &err), EEXIST, "exists already");
    assert_false(is_there("elsewhere"));
    struct platter_archive_device d = {.size = sizeof d};
    assert_works(platter_archive_device(a, 1, &d, &err));
    assert_string_equal(d.name, "vmstate"); /* by number */
    assert_true(d.state && d.id == 4);
    assert_fails(platter_archive_device(a, 3, &d, &err), ENOENT, "no disk 3");
    platter_archive_close(a);
    assert_int_equal(files_there(), 1);
}

static void test_names(void **state)
{
    (void)state;
    const char *const good[] = {"a", "..a", "a b", "\xc3\xa4", "\xff", ".a", "drive-scsi0"};
    const char *const bad[] = {"", ".", "..", "a/b", "/", "a\\b", "a\nb", "\x7f", "\x1b[2J"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(platter_archive_name_is_safe(good[i], 255));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(platter_archive_name_is_safe(bad[i], 255));
    assert_true(platter_archive_name_is_safe("12345", 5));
    assert_false(platter_archive_name_is_safe("123456", 5));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_archive, remove_archive)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_all_of_it),
        TEST(test_once),
        TEST(test_wishes_that_cannot_be),
        TEST(test_existing),
        TEST(test_names_all_or_none),
        TEST(test_cancel),
        TEST(test_missing),
        TEST(test_rates),
        TEST(test_configs),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
