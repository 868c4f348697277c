/* SPDX-License-Identifier: MIT */
/*
 * A program that is killed (SIGKILL) in front of any step by which files appear, are moved or go:
 * what it leaves is the old file, the new one, or none and a sentence that tells how the old one
 * comes back; never an archive beside the digests of another one.
 */
#include "unit.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/must.h"
#include "support/vmaimage.h"

enum { NEVER = 1 << 30, MOST_STEPS = 60, SIZE = 5 * VI_CLUSTER };

/* ---- steps: these stand in for those of the C library ----------------------------------------
 */

static int steps_left = NEVER;

static void step(void)
{
    if (steps_left != NEVER && steps_left-- == 0)
        kill(getpid(), SIGKILL);
}

int renameat(int from_folder, const char *from, int to_folder, const char *to)
{
    step();
    return (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, 0);
}

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags)
{
    step();
    return (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
}

int unlinkat(int folder, const char *name, int flags)
{
    step();
    return (int)syscall(SYS_unlinkat, folder, name, flags);
}

int fsync(int fd)
{
    step();
    return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    step();
    return (int)syscall(SYS_fdatasync, fd);
}

/* ---- archives --------------------------------------------------------------------------------
 */

static char folder[] = "killed-XXXXXX";

static const char *in_folder(const char *name)
{
    static char paths[8][128];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static bool is_there(const char *name)
{
    return access(in_folder(name), F_OK) == 0;
}

static void clear(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s && mkdir %s", folder, folder);
    MUST(system(command) == 0);
}

static void write_disk(const char *name, uint8_t fill)
{
    char bytes[4096];
    FILE *f = fopen(in_folder(name), "w");
    MUST(f);
    memset(bytes, fill, sizeof bytes);
    for (unsigned i = 0; i < SIZE; i += sizeof bytes)
        MUST(fwrite(bytes, 1, sizeof bytes, f) == sizeof bytes);
    MUST(fclose(f) == 0);
}

static int create(const char *disk, bool digest, struct platter_error *err)
{
    struct platter_disk *open = NULL;
    struct platter_open_options raw = {.size = sizeof raw, .format = "raw"};
    struct platter_archive_source source = {.size = sizeof source, .name = "a"};
    const struct platter_archive_source *list[] = {&source};
    char beside[160];
    snprintf(beside, sizeof beside, "%s", in_folder("x.vma.platter.digest"));
    struct platter_archive_plan plan = {.size = sizeof plan,
                                        .disks = list,
                                        .n_disks = 1,
                                        .digest = digest ? beside : NULL,
                                        .workers = 1};
    MUST(platter_open(in_folder(disk), &raw, &open, err) == 0);
    source.disk = open;
    int r = platter_archive_create(in_folder("x.vma"), &plan, NULL, err);
    platter_close(open, NULL);
    return r;
}

static void keep_words(void *opaque, const struct platter_fault *fault)
{
    char *words = opaque;
    if (!words[0])
        snprintf(words, 1024, "%s", fault->text);
}

/* Whether it is found to be whole, by digests too where there are any; the first words. */
static int verify(bool *ret_digests, char words[1024])
{
    struct platter_error error = {0};
    struct platter_archive *a;
    struct platter_archive_options options = {
        .size = sizeof options, .fault = keep_words, .opaque = words};
    struct platter_verification v = {.size = sizeof v};
    words[0] = 0;
    int r = platter_archive_open(in_folder("x.vma"), &options, &a, &error);
    if (r == 0) {
        r = platter_archive_verify(a, NULL, &v, &error);
        platter_archive_close(a);
    }
    if (r < 0)
        snprintf(words, 1024, "%s", error.message);
    *ret_digests = v.digests;
    return r < 0 ? r : v.faults > 0;
}

/* ---- the test --------------------------------------------------------------------------------
 */

/* Does it in a process that is killed in front of the nth step: false once it comes to its end. */
static bool kill_at(int n, int (*work)(void))
{
    int status;
    pid_t pid = fork();
    MUST(pid >= 0);
    if (pid == 0) {
        steps_left = n;
        int r = work();
        steps_left = NEVER;
        _exit(r < 0);
    }
    MUST(waitpid(pid, &status, 0) == pid);
    if (WIFEXITED(status))
        assert_int_equal(WEXITSTATUS(status), 0);
    return WIFSIGNALED(status);
}

static int create_plain(void)
{
    struct platter_error error = {0};
    return create("new.raw", false, &error);
}

static int create_both(void)
{
    struct platter_error error = {0};
    return create("new.raw", true, &error);
}

/* What the next run finds, and says. */
static void assert_left(int n, const char *how)
{
    char words[1024];
    bool digests;
    int r = verify(&digests, words);

    if (!is_there("x.vma")) {
        /* Nobody takes that for nothing, or makes a new one in its place. */
        if (r >= 0 || !strstr(words, "comes back"))
            fail_msg("%s, step %d: is gone, and only this is said: %s", how, n, words);
        assert_fails(create("new.raw", true, &err), EEXIST, "comes back");
        return;
    }
    if (r != 0)
        fail_msg("%s, step %d: %s", how, n, words);
    /* Digests that are moved aside are told. */
    if (!is_there("x.vma.platter.digest") && strcmp(how, "done") != 0) {
        assert_false(digests);
        if (!strstr(words, ".platter.digest.platter-partial-") || !strstr(words, "comes back"))
            fail_msg("%s, step %d: digests are gone, and only this is said: %s", how, n, words);
        assert_fails(create("new.raw", false, &err), EEXIST, "comes back");
    }
}

static void run(int (*work)(void), const char *how, bool old_digest)
{
    int n = 0;
    for (bool killed = true; killed; n++) {
        assert_in_range(n, 0, MOST_STEPS);
        clear();
        write_disk("old.raw", 1);
        write_disk("new.raw", 2);
        assert_works(create("old.raw", old_digest, &err));
        killed = kill_at(n, work);
        assert_left(n, killed ? how : "done");
    }
    assert_in_range(n, 4, MOST_STEPS);
}

static void test_create_over_digests(void **state)
{
    (void)state;
    run(create_plain, "create", true);
}

static void test_create_with_digests(void **state)
{
    (void)state;
    run(create_both, "create with digests", true);
}

/* ---- extract ---------------------------------------------------------------------------------
 */

static int extract_all(struct platter_error *err)
{
    static const char *const names[] = {"a", "b", "c"};
    struct platter_extract_target targets[3];
    const struct platter_extract_target *list[3];
    struct platter_archive *a;
    char paths[3][128];
    for (unsigned i = 0; i < 3; i++) {
        snprintf(paths[i], sizeof paths[i], "%s/%s.raw", folder, names[i]);
        list[i] = &targets[i];
        targets[i] = (struct platter_extract_target){
            .size = sizeof targets[i], .disk = names[i], .target = paths[i], .format = "raw"};
    }
    struct platter_extract_options options = {
        .size = sizeof options, .targets = list, .n_targets = 3, .workers = 2};
    int r = platter_archive_open(in_folder("x.vma"), NULL, &a, err);
    if (r == 0) {
        r = platter_archive_extract(a, &options, NULL, err);
        platter_archive_close(a);
    }
    return r;
}

static int extract(void)
{
    struct platter_error error = {0};
    return extract_all(&error);
}

/* 0: as it was, or moved aside; 1: it is the disk of the archive. */
static int which(const char *name, const struct vmaimage_disk *disk)
{
    if (!is_there(name)) { /* the next run does not take that for nothing */
        assert_fails(extract_all(&err), EEXIST, "comes back");
        return 0;
    }
    uint8_t *bytes = malloc(SIZE + 1);
    FILE *f = fopen(in_folder(name), "r");
    MUST(bytes && f);
    size_t n = fread(bytes, 1, SIZE + 1, f);
    fclose(f);
    int ret = n == 3 && memcmp(bytes, "old", 3) == 0                 ? 0
              : n == SIZE && memcmp(bytes, disk->content, SIZE) == 0 ? 1
                                                                     : -1;
    free(bytes);
    return ret;
}

/* Over files that are there: each is the old one or the new one, whole, or moved aside, and nothing
 * else is written meanwhile. */
static void test_extract(void **state)
{
    static const char *const names[] = {"a.raw", "b.raw", "c.raw"};
    struct vmaimage v;
    int n = 0, some = 0;
    (void)state;
    vmaimage_start(&v, 5);
    vmaimage_add_disk(&v, 1, "a", SIZE, true);
    vmaimage_add_disk(&v, 2, "b", SIZE, true);
    vmaimage_add_disk(&v, 3, "c", SIZE, true);
    vmaimage_arrange(&v, VI_SHUFFLED, 10);
    vmaimage_pack(&v, 6, 10);
    vmaimage_write(&v);
    for (bool killed = true; killed; n++) {
        int changed = 0;
        assert_in_range(n, 0, MOST_STEPS);
        clear();
        FILE *f = fopen(in_folder("x.vma"), "w");
        MUST(f && fwrite(v.file.bytes, 1, v.file.size, f) == v.file.size && fclose(f) == 0);
        for (unsigned i = 0; i < 3; i++) {
            f = fopen(in_folder(names[i]), "w");
            MUST(f && fputs("old", f) >= 0 && fclose(f) == 0);
        }
        killed = kill_at(n, extract);
        for (unsigned i = 0; i < 3; i++) {
            int is = which(names[i], &v.disks[i]);
            if (is < 0)
                fail_msg("step %d: %s is neither the old one nor the new one", n, names[i]);
            changed += is;
        }
        some += changed > 0 && changed < 3;
        if (!killed)
            assert_int_equal(changed, 3);
    }
    assert_true(some > 0);
    vmaimage_free(&v);
}

static int remove_folder(void **state)
{
    char command[128];
    (void)state;
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_create_over_digests),
        cmocka_unit_test(test_create_with_digests),
        cmocka_unit_test(test_extract),
    };
    MUST(mkdtemp(folder));
    return cmocka_run_group_tests(tests, NULL, remove_folder);
}
