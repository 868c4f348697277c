/* SPDX-License-Identifier: MIT */
/*
 * An image of several files takes the place of an older one, or grows, and at each step of that the
 * call fails, all calls fail from there on, a signal ends the program, or it is killed. The calls
 * that change names are this program's own, and do what the system's do.
 */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "access_list.h"
#include "base/memory.h"
#include "platter/migrate.h"
#include "platter/platter.h"
#include "support/must.h"
#include "support/process.h"

#define SIZE (UINT64_C(5) << 30) /* three pieces of 2047 MiB */

enum { MAX_STEPS = 1000, FILES = 4, UNTOUCHED = 9 };

static const char *const names[FILES] = {"vm.vmdk", "vm-f001.vmdk", "vm-f002.vmdk", "vm-f003.vmdk"};

enum blow { FAIL_ONE, FAIL_ALL, FAIL_AND_KEEP, END, KILL };

/* What befalls the call number `at`; 0: nothing. And what was done, a letter each. */
static struct {
    enum blow blow;
    unsigned at, calls;
    char done[MAX_STEPS + 1];
} plan;

/* ---- the calls ------------------------------------------------------------------------------- */

static bool struck(void)
{
    plan.calls++;
    if (plan.at == 0 || plan.calls < plan.at || (plan.calls > plan.at && plan.blow != FAIL_ALL))
        return false;
    if (plan.blow == KILL)
        raise(SIGKILL);
    if (plan.blow == END)
        raise(SIGTERM);
    errno = EIO;
    return plan.blow != END;
}

static void note(char what)
{
    size_t n = strlen(plan.done);
    if (n < MAX_STEPS)
        plan.done[n] = what;
}

/* m, e: the main file, an extent moved aside; M, E: named. */
static void note_rename(const char *from, const char *to)
{
    const char *name = from[0] == '.' ? to : from;
    bool extent = strcmp(name, names[0]) != 0;
    note(from[0] == '.' ? (extent ? 'E' : 'M') : (extent ? 'e' : 'm'));
}

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags)
{
    if (struck())
        return -1;
    note_rename(from, to);
    return (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
}

int renameat(int from_folder, const char *from, int to_folder, const char *to)
{
    return renameat2(from_folder, from, to_folder, to, 0);
}

int unlinkat(int folder, const char *name, int flags)
{
    if (struck() || (plan.blow == FAIL_AND_KEEP && plan.at > 0)) {
        errno = EIO;
        return -1;
    }
    note('u');
    return (int)syscall(SYS_unlinkat, folder, name, flags);
}

int unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}

/* s: a folder, d: a file made durable. */
static void note_sync(int fd)
{
    struct stat st;
    if (fstat(fd, &st) == 0)
        note(S_ISDIR(st.st_mode) ? 's' : 'd');
}

int fsync(int fd)
{
    if (struck())
        return -1;
    note_sync(fd);
    return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    if (struck())
        return -1;
    note_sync(fd);
    return (int)syscall(SYS_fdatasync, fd);
}

/* ---- a new image over an old one ------------------------------------------------------------- */

static char *folder(void)
{
    static char *path;
    if (!path)
        path = scratch_path("publish");
    return path;
}

static int create_of(uint64_t size, struct platter_error *err)
{
    struct platter_create_options o = {.size = sizeof o,
                                       .format = "vmdk",
                                       .options = "subformat=twoGbMaxExtentFlat",
                                       .has_disk_size = true,
                                       .disk_size = size};
    auto_free char *image = string_format("%s/vm.vmdk", folder());
    return platter_create(image, &o, err);
}

static int create(struct platter_error *err)
{
    return create_of(SIZE, err);
}

static struct platter_disk *open_image(unsigned flags)
{
    struct platter_open_options o = {.size = sizeof o, .flags = flags, .format = "vmdk"};
    auto_free char *image = string_format("%s/vm.vmdk", folder());
    struct platter_disk *disk = NULL;
    assert_works(platter_open(image, &o, &disk, &err));
    return disk;
}

static int grow(struct platter_error *err)
{
    struct platter_disk *disk = open_image(PLATTER_OPEN_WRITE);
    int r = platter_resize(disk, SIZE, 0, PLATTER_PREALLOCATION_OFF, err);
    platter_close(disk, NULL);
    return r;
}

/* A folder with an old image, of which each file says so. */
static void prepare(unsigned files)
{
    MUST(run_command(0, "rm -rf '%s' && mkdir '%s'", folder(), folder()) == 0);
    for (unsigned i = 0; i < files; i++)
        MUST(run_command(0, "echo old >'%s/%s'", folder(), names[i]) == 0);
}

static void on_end(int signal_number)
{
    platter_remove_unfinished();
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

/* In a process of its own, which leaves the sentence it fails with in a file. */
static int run_struck(int (*run)(struct platter_error *err), enum blow blow, unsigned at)
{
    pid_t child = fork();
    MUST(child >= 0);
    if (child == 0) {
        struct platter_error err = {0};
        signal(SIGTERM, on_end);
        plan.calls = 0;
        plan.blow = blow;
        plan.at = at;
        int r = run(&err);
        bool untouched = plan.calls < at;
        plan.at = 0;
        FILE *said = fopen(scratch_path("said"), "w");
        MUST(said && fputs(err.message, said) >= 0 && fclose(said) == 0);
        _exit(untouched ? UNTOUCHED : r != 0);
    }
    int status;
    MUST(waitpid(child, &status, 0) == child);
    return status;
}

static bool is_old(const char *name)
{
    char text[8] = "";
    auto_free char *path = string_format("%s/%s", folder(), name);
    FILE *f = fopen(path, "r");
    bool old = f && fgets(text, sizeof text, f) && strcmp(text, "old\n") == 0;
    if (f)
        fclose(f);
    return old;
}

static bool exists(const char *name)
{
    auto_free char *path = string_format("%s/%s", folder(), name);
    return access(path, F_OK) == 0;
}

/* Under the name of the image there is all of one, or nothing. */
static void assert_of_one_piece(void)
{
    if (!exists(names[0]))
        return;
    for (unsigned i = 1; i < FILES; i++) {
        assert_true(exists(names[i]));
        assert_int_equal(is_old(names[i]), is_old(names[0]));
    }
}

static unsigned hidden(const char *pattern)
{
    return (unsigned)run_command(0, "exit $(ls -A '%s' | grep -c '%s')", folder(), pattern);
}

/* However it ended, all of the old image is there, or all of the new one. */
static void assert_nothing_lost(void)
{
    assert_of_one_piece();
    if (exists(names[0]))
        return;
    MUST(run_command(
             0,
             "cd '%s' && n=0 && for f in .*.old vm-*; do "
             "test \"$(head -c 3 $f | tr -d '\\0')\" = old && n=$((n + 1)); done; test $n = %d",
             folder(), FILES) == 0);
}

static void strike(enum blow blow, void (*judge)(int status))
{
    unsigned at = 1;
    for (int status = 0;; at++) {
        prepare(FILES);
        status = run_struck(create, blow, at);
        if (WIFEXITED(status) && WEXITSTATUS(status) == UNTOUCHED)
            break;
        assert_nothing_lost();
        judge(status);
    }
    assert_true(at > 2 * FILES);
}

static void judge_failure(int status)
{
    assert_true(WIFEXITED(status));
    assert_true(exists(names[0]));
    assert_int_equal(is_old(names[0]), WEXITSTATUS(status) == 1);
}

static void test_failure(void **state)
{
    (void)state;
    strike(FAIL_ONE, judge_failure);
}

/* Nothing can be moved back then, but the user is told where to look. */
static void judge_failures(int status)
{
    assert_true(WIFEXITED(status));
    if (exists(names[0]))
        return;
    assert_int_equal(WEXITSTATUS(status), 1);
    auto_free char *said = scratch_path("said");
    MUST(run_command(0,
                     "grep -q 'old .*/vm.vmdk could not have its name again and is called "
                     "[.]vm.vmdk.platter-partial-.*[.]old now: ' '%s'",
                     said) == 0);
}

static void test_failures(void **state)
{
    (void)state;
    strike(FAIL_ALL, judge_failures);
    strike(FAIL_AND_KEEP, judge_failures); /* and no file can be removed */
}

/* The signal waits for the end of it, and leaves nothing beside the image. */
static void judge_end(int status)
{
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    assert_true(exists(names[0]));
    assert_int_equal(hidden("partial"), 0);
}

static void test_signal(void **state)
{
    (void)state;
    strike(END, judge_end);
}

static void judge_kill(int status)
{
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void test_kill(void **state)
{
    (void)state;
    strike(KILL, judge_kill);
}

/* A disk that grows by two pieces has them, or none of them is there. */
static void strike_growing(enum blow blow, void (*judge)(int status))
{
    unsigned at = 1, grown = 0;
    for (int status = 0;; at++) {
        prepare(0);
        assert_works(create_of(SIZE / 5, &err));
        status = run_struck(grow, blow, at);
        if (WIFEXITED(status) && WEXITSTATUS(status) == UNTOUCHED)
            break;
        judge(status);
        struct platter_disk *disk = open_image(0);
        bool all = platter_size(disk) == SIZE;
        platter_close(disk, NULL);
        grown += all;
        assert_int_equal(exists(names[2]), all);
        assert_int_equal(exists(names[3]), all);
    }
    assert_in_range(grown, 1, at - 1);
}

static void test_signal_while_growing(void **state)
{
    (void)state;
    strike_growing(END, judge_end);
}

static void judge_growth(int status)
{
    assert_true(WIFEXITED(status));
    assert_int_equal(hidden("partial"), 0);
}

static void test_failure_while_growing(void **state)
{
    (void)state;
    strike_growing(FAIL_ONE, judge_growth);
}

/* What a power cut may leave: names change in any order between two flushes of the folder, so there
 * is one between the main file and the extents, and one before the old files go. What they hold is
 * durable before any name changes. */
static void test_order(void **state)
{
    (void)state;
    prepare(FILES);
    memset(&plan, 0, sizeof plan);
    assert_works(create(&err));
    assert_string_equal(plan.done, "ddddmseEeEedEsdMsuuuu");
    prepare(0);
    memset(&plan, 0, sizeof plan);
    assert_works(create(&err));
    assert_string_equal(plan.done, "ddddEEdEsdMs");
}

/* An extent that replaces none is nobody's to read who could not read the image before. */
static void test_rights(void **state)
{
    (void)state;
    struct stat st;
    prepare(2);
    MUST(run_command(0, "cd '%s' && chmod 600 vm.vmdk && chmod 640 vm-f001.vmdk", folder()) == 0);
    mode_t before = umask(022);
    assert_works(create(&err));
    umask(before);
    for (unsigned i = 0; i < FILES; i++) {
        auto_free char *path = string_format("%s/%s", folder(), names[i]);
        MUST(stat(path, &st) == 0);
        assert_int_equal(st.st_mode & 0777, i == 1 ? 0640 : 0600);
    }
}

/* A new file has the access list of what it replaces, or else that of the main file; where there
 * was none, it gets none from the folder. */
static void test_access_lists(void **state)
{
    (void)state;
    static const char name[] = "system.posix_acl_access", folders[] = "system.posix_acl_default";
    uint8_t got[256];
    prepare(2);
    auto_free char *image = string_format("%s/vm.vmdk", folder());
    MUST(run_command(0, "chmod 660 '%s'/vm-f001.vmdk", folder()) == 0);
    if (setxattr(image, name, access_list, sizeof access_list, 0) < 0) {
        assert_int_equal(errno, ENOTSUP); /* not here */
        return;
    }
    MUST(setxattr(folder(), folders, access_list, sizeof access_list, 0) == 0);
    assert_works(create(&err));
    for (unsigned i = 0; i < FILES; i++) {
        auto_free char *path = string_format("%s/%s", folder(), names[i]);
        ssize_t len = getxattr(path, name, got, sizeof got);
        assert_int_equal(len, i == 1 ? -1 : (ssize_t)sizeof access_list);
        assert_true(i == 1 || memcmp(got, access_list, sizeof access_list) == 0);
        struct stat st;
        MUST(stat(path, &st) == 0);
        assert_int_equal(st.st_mode & 0777, 0660);
    }
}

/* ---- a migration ----------------------------------------------------------------------------- */

static const char *target_format;

static int migrate(struct platter_error *err)
{
    struct platter_open_options open = {.size = sizeof open, .format = "raw"};
    struct platter_migrate_prepare_options o = {.size = sizeof o, .format = target_format};
    auto_free char *source = string_format("%s/source", folder());
    auto_free char *target = string_format("%s/vm", folder());
    return platter_migrate_prepare(source, &open, target, &o, err);
}

static int give_up(struct platter_error *err)
{
    struct platter_migrate_options o = {.size = sizeof o};
    auto_free char *target = string_format("%s/vm", folder());
    return platter_migrate_abort(target, &o, err);
}

static void assert_nothing_but_source(const char *also_hidden)
{
    assert_int_equal(run_command(0, "test \"$(ls %s '%s')\" = source", also_hidden, folder()), 0);
}

/* Whatever it left, the target can be prepared anew, in another format as well, and given up. */
static void assert_in_nobodys_way(const char *format)
{
    target_format = format;
    struct platter_error why = {0};
    int r = migrate(&why);
    if (r == -EEXIST) { /* it was prepared to its end, but for saying so */
        assert_works(give_up(&err));
        r = migrate(&why);
    }
    if (r != 0)
        fail_msg("%s", why.message);
    assert_works(give_up(&err));
    assert_nothing_but_source("");
}

static void strike_migration(enum blow blow, const char *format, const char *next)
{
    unsigned at = 1;
    for (int status = 0;; at++) {
        prepare(0);
        MUST(run_command(0, "truncate -s 1M '%s/source'", folder()) == 0);
        target_format = format;
        status = run_struck(migrate, blow, at);
        if (WIFEXITED(status) && WEXITSTATUS(status) == UNTOUCHED)
            break;
        if (blow == FAIL_ONE && WEXITSTATUS(status) == 1)
            assert_nothing_but_source("-A");
        assert_in_nobodys_way(next);
    }
    assert_true(at > 6);
}

static void test_migration(void **state)
{
    (void)state;
    static const enum blow blows[] = {FAIL_ONE, FAIL_ALL, KILL};
    for (unsigned i = 0; i < sizeof blows / sizeof *blows; i++) {
        strike_migration(blows[i], "raw", "raw");
        strike_migration(blows[i], "raw", "qcow2");
        strike_migration(blows[i], "qcow2", "raw");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_failure),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_signal),
        cmocka_unit_test(test_kill),
        cmocka_unit_test(test_signal_while_growing),
        cmocka_unit_test(test_failure_while_growing),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_rights),
        cmocka_unit_test(test_access_lists),
        cmocka_unit_test(test_migration),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
