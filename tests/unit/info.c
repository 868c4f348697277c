/* SPDX-License-Identifier: MIT */
/* What is told about images and formats, and what a new image would take. */
#include "unit.h"

#include <string.h>
#include <unistd.h>

#include "disks.h"
#include "ops/ops.h"
#include "support/process.h"

/* The object or array in text, which is freed. */
static json_t *parse(char *text)
{
    json_t *root = json_loads(text, 0, NULL);
    assert_non_null(root);
    free(text);
    return root;
}

static void test_raw(void **state)
{
    (void)state;
    struct platter_disk *disk = sparse_disk(1 << 20, 0, "abc", 3);
    char *text;
    assert_int_equal(ops_info(disk, 0, &text, NULL), 0);
    json_t *info = parse(text);
    assert_int_equal(json_integer_value(json_object_get(info, "virtual-size")), 1 << 20);
    assert_in_range(json_integer_value(json_object_get(info, "actual-size")), 1, 1 << 17);
    assert_string_equal(json_string_value(json_object_get(info, "format")), "raw");
    assert_string_equal(json_string_value(json_object_get(info, "filename")),
                        disk_top(disk)->stream->name);
    assert_true(json_is_false(json_object_get(info, "dirty-flag")));
    assert_null(json_object_get(info, "cluster-size"));
    assert_null(json_object_get(info, "backing-filename"));
    json_decref(info);

    struct platter_error err = {0};
    assert_int_equal(ops_info(disk, 1, &text, &err), -EINVAL);
    assert_int_equal(ops_views(disk, &text, NULL), 0);
    json_t *views = parse(text);
    assert_true(json_is_array(views));
    assert_int_equal(json_array_size(views), 0);
    json_decref(views);
    disk_close(disk, NULL);
}

static json_t *find_named(json_t *list, const char *name)
{
    size_t i;
    json_t *entry;
    json_array_foreach (list, i, entry)
        if (strcmp(json_string_value(json_object_get(entry, "name")), name) == 0)
            return entry;
    return NULL;
}

/* Every format and every option is there, with what a program needs to make a form of it. */
static void test_formats(void **state)
{
    (void)state;
    char *text;
    assert_int_equal(ops_formats(&text, NULL), 0);
    json_t *list = parse(text);
    size_t n = 0;
    for (; formats[n]; n++) {
        json_t *entry = find_named(list, formats[n]->name);
        assert_non_null(entry);
        assert_true(json_is_true(json_object_get(entry, "read")));
        json_t *options = json_object_get(entry, "options");
        for (const struct option_def *def = formats[n]->create_options; def && def->name; def++) {
            json_t *option = find_named(options, def->name);
            assert_non_null(option);
            assert_string_equal(json_string_value(json_object_get(option, "help")), def->help);
            assert_int_equal(json_object_get(option, "values") != NULL, def->type == OPTION_ENUM);
        }
    }
    assert_int_equal(json_array_size(list), n);
    json_decref(list);
}

static void test_measure_raw(void **state)
{
    (void)state;
    struct platter_measurement m = {.size = sizeof m};
    assert_int_equal(ops_measure(NULL, 1000 * 512, "raw", NULL, &m, NULL), 0);
    assert_int_equal(m.required, 1000 * 512);
    assert_int_equal(m.fully_allocated, 1000 * 512);
    struct platter_error err = {0};
    assert_int_equal(ops_measure(NULL, 512, "nosuch", NULL, &m, &err), -EINVAL);
    assert_non_null(strstr(err.message, "nosuch"));
    assert_int_equal(ops_measure(NULL, 512, "raw", "nosuch=1", &m, &err), -EINVAL);
    /* As large as create makes it. */
    assert_int_equal(ops_measure(NULL, 1000, "raw", NULL, &m, NULL), 0);
    assert_int_equal(m.required, 1024);
}

/* qcow2.md section 15: header, L1, L2, refcount table and block are five clusters here; a cluster
 * counts as soon as one byte of it is stored. */
static void test_measure_qcow2(void **state)
{
    (void)state;
    struct platter_measurement m = {.size = sizeof m};
    assert_int_equal(ops_measure(NULL, 1 << 30, "qcow2", NULL, &m, NULL), 0);
    assert_int_equal(m.required, 393216);
    assert_int_equal(m.fully_allocated, 1074135040);
    struct platter_disk *disk = sparse_disk(1 << 30, (5 << 20) + 65536 - 1, "ab", 2);
    assert_int_equal(ops_measure(disk, 0, "qcow2", NULL, &m, NULL), 0);
    assert_int_equal(m.required, 393216 + 2 * 65536);
    assert_int_equal(ops_measure(disk, 0, "qcow2", "cluster_size=2M", &m, NULL), 0);
    assert_int_equal(m.fully_allocated - m.required, (1 << 30) - (2 << 20));
    disk_close(disk, NULL);
}

/* Clusters that preallocation left as holes of the file are zeros, as qemu-img has it; clusters
 * behind the end of a file that was cut are damage. */
static void test_preallocated(void **state)
{
    (void)state;
    auto_free char *path = scratch_path("preallocated");
    struct platter_create_options create = {.size = sizeof create,
                                            .format = "qcow2",
                                            .has_disk_size = true,
                                            .disk_size = 1 << 30,
                                            .options = "preallocation=metadata"};
    assert_works(platter_create(path, &create, &err));
    struct platter_open_options open = {.size = sizeof open};
    struct platter_digest_options options = {.size = sizeof options};
    struct platter_measurement m = {.size = sizeof m};
    struct platter_disk *disk;
    uint8_t digest[32];
    assert_works(platter_open(path, &open, &disk, &err));
    assert_works(ops_measure(disk, 0, "qcow2", NULL, &m, &err));
    assert_int_equal(m.required, 393216);
    assert_works(ops_digest(disk, &options, digest, &err));
    platter_close(disk, NULL);

    assert_int_equal(truncate(path, 100 << 20), 0);
    assert_works(platter_open(path, &open, &disk, &err));
    assert_fails(ops_digest(disk, &options, digest, &err), PLATTER_ECORRUPT, path);
    platter_close(disk, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_raw),          cmocka_unit_test(test_formats),
        cmocka_unit_test(test_measure_raw),  cmocka_unit_test(test_measure_qcow2),
        cmocka_unit_test(test_preallocated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
