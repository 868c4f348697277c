/* SPDX-License-Identifier: MIT */
/* New images of several files: all of them get their names, or none of them does. */
#include "unit.h"

#include <dirent.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "platter/platter.h"
#include "support/must.h"
#include "support/process.h"

#define SIZE (UINT64_C(5) << 30) /* three pieces of 2047 MiB */

static const char split[] = "subformat=twoGbMaxExtentFlat";

struct target {
    char *folder, *source, *image;
    const char *obstacle;  /* name of a folder that is in the way of a file, once all is copied */
    bool cancel, unfinish; /* at that moment: cancel, or do as a fatal signal does */
};

static void in_folder(const struct target *t, const char *command)
{
    MUST(run_command(0, "cd '%s' && %s", t->folder, command) == 0);
}

static int setup(void **state)
{
    struct target *t = calloc(1, sizeof *t);
    MUST(t);
    t->folder = scratch_path("target");
    t->source = string_format("%s/../source.raw", t->folder);
    t->image = string_format("%s/vm.vmdk", t->folder);
    MUST(run_command(0, "rm -rf '%s' && mkdir '%s' && truncate -s %llu '%s'", t->folder, t->folder,
                     (unsigned long long)SIZE, t->source) == 0);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct target *t = *state;
    free(t->folder);
    free(t->source);
    free(t->image);
    free(t);
    return 0;
}

/* The names in the folder, in order, blanks between them. */
static void assert_folder(const struct target *t, const char *expected)
{
    struct dirent **entries;
    char names[1024] = "";
    int n = scandir(t->folder, &entries, NULL, alphasort);
    MUST(n >= 0);
    for (int i = 0; i < n; i++) {
        const char *name = entries[i]->d_name;
        size_t used = strlen(names);
        if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0)
            snprintf(names + used, sizeof names - used, "%s%s", used ? " " : "", name);
        free(entries[i]);
    }
    free(entries);
    assert_string_equal(names, expected);
}

static int at_the_end(void *opaque, const struct platter_progress *p)
{
    const struct target *t = opaque;
    if (p->done < p->total)
        return 0;
    if (t->obstacle)
        MUST(run_command(0, "mkdir -p '%s/%s'", t->folder, t->obstacle) == 0);
    if (t->unfinish)
        platter_remove_unfinished();
    return t->cancel;
}

static int convert(struct target *t, struct platter_error *err)
{
    struct platter_open_options open = {.size = sizeof open, .format = "raw"};
    struct platter_convert_options o = {
        .size = sizeof o, .format = "vmdk", .options = split, .progress = at_the_end, .opaque = t};
    struct platter_disk *source;
    MUST(platter_open(t->source, &open, &source, NULL) == 0);
    int r = platter_convert(&source, 1, t->image, &o, NULL, err);
    platter_close(source, NULL);
    return r;
}

static void test_obstacles(void **state)
{
    static const char *const obstacles[] = {"vm-f001.vmdk", "vm-f002.vmdk", "vm-f003.vmdk",
                                            "vm.vmdk"};
    struct target *t = *state;
    for (unsigned i = 0; i < 4; i++) {
        t->obstacle = obstacles[i];
        auto_free char *path = string_format("%s/%s", t->folder, t->obstacle);
        assert_fails(convert(t, &err), EISDIR, obstacles[i]);
        assert_folder(t, obstacles[i]);
        MUST(rmdir(path) == 0);
    }
    t->obstacle = NULL;
    assert_works(convert(t, &err));
    assert_folder(t, "vm-f001.vmdk vm-f002.vmdk vm-f003.vmdk vm.vmdk");
}

/* What was to be replaced is there as it was. */
static void test_obstacle_when_replacing(void **state)
{
    struct target *t = *state;
    in_folder(t, "for f in vm.vmdk vm-f001.vmdk vm-f002.vmdk; do echo old $f >$f; done");
    t->obstacle = "vm-f003.vmdk";
    assert_fails(convert(t, &err), EISDIR, "vm-f003.vmdk");
    assert_folder(t, "vm-f001.vmdk vm-f002.vmdk vm-f003.vmdk vm.vmdk");
    in_folder(t, "for f in vm.vmdk vm-f001.vmdk vm-f002.vmdk; do "
                 "test \"$(cat $f)\" = \"old $f\" || exit 1; done");
    in_folder(t, "rmdir vm-f003.vmdk");
    t->obstacle = "vm.vmdk.d";
    assert_works(convert(t, &err));
    assert_folder(t, "vm-f001.vmdk vm-f002.vmdk vm-f003.vmdk vm.vmdk vm.vmdk.d");
    in_folder(t, "test $(stat -c %s vm-f001.vmdk) = 2146435072");
}

static void test_cancel(void **state)
{
    struct target *t = *state;
    t->cancel = true;
    assert_fails(convert(t, &err), ECANCELED, "");
    assert_folder(t, "");
    t->cancel = false;
    assert_works(convert(t, &err));
    in_folder(t, "echo old >vm.vmdk; rm vm-f001.vmdk");
    t->cancel = true;
    assert_fails(convert(t, &err), ECANCELED, "");
    assert_folder(t, "vm-f002.vmdk vm-f003.vmdk vm.vmdk");
    in_folder(t, "test \"$(cat vm.vmdk)\" = old");
}

static void test_signal(void **state)
{
    struct target *t = *state;
    t->unfinish = true;
    assert_fails(convert(t, &err), ENOENT, "cannot give the new file its name");
    assert_folder(t, "");
}

static int create(const struct target *t, unsigned flags, struct platter_error *err)
{
    struct platter_create_options o = {.size = sizeof o,
                                       .flags = flags,
                                       .format = "vmdk",
                                       .options = split,
                                       .has_disk_size = true,
                                       .disk_size = SIZE};
    return platter_create(t->image, &o, err);
}

static void test_exclusive(void **state)
{
    struct target *t = *state;
    assert_works(create(t, PLATTER_CREATE_EXCLUSIVE, &err));
    assert_fails(create(t, PLATTER_CREATE_EXCLUSIVE, &err), EEXIST, "vm.vmdk: exists already");
    in_folder(t, "rm vm.vmdk vm-f001.vmdk");
    assert_fails(create(t, PLATTER_CREATE_EXCLUSIVE, &err), EEXIST, "vm-f002.vmdk: exists already");
    assert_folder(t, "vm-f002.vmdk vm-f003.vmdk");
    assert_works(create(t, 0, &err));
    assert_folder(t, "vm-f001.vmdk vm-f002.vmdk vm-f003.vmdk vm.vmdk");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_obstacles, setup, teardown),
        cmocka_unit_test_setup_teardown(test_obstacle_when_replacing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancel, setup, teardown),
        cmocka_unit_test_setup_teardown(test_signal, setup, teardown),
        cmocka_unit_test_setup_teardown(test_exclusive, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
