/* SPDX-License-Identifier: MIT */
/* What is special about files: holes, copies, what is refused, and new files under temporary names.
 */
#include "unit.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "access_list.h"
#include "base/memory.h"
#include "stream/stream.h"
#include "support/prng.h"
#include "support/process.h"

enum { TEMPORARY = STREAM_FILE_TEMPORARY };

/* Makes a file with a text in it and these rights; its path is the caller's. */
static char *make_file(const char *name, const char *text, mode_t mode)
{
    char *path = scratch_path(name);
    unlink(path);
    int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (int)strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
    return path;
}

static void assert_text(const char *path, const char *text)
{
    char got[256] = "";
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    assert_int_equal(read(fd, got, sizeof got - 1), (int)strlen(text));
    assert_string_equal(got, text);
    close(fd);
}

static struct stream *open_file(const char *path, unsigned flags)
{
    struct stream *s = NULL;
    assert_works(stream_file_open(path, flags, &s, &err));
    return s;
}

static void write_text(struct stream *s, const char *text)
{
    assert_works(stream_pwrite(s, text, strlen(text), 0, &err));
}

static mode_t mode_of(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return st.st_mode & 07777;
}

/* How many names in the scratch folder speak of unfinished files. */
static unsigned partials(void)
{
    unsigned n = 0;
    DIR *folder = opendir(scratch_folder());
    assert_non_null(folder);
    for (struct dirent *e; (e = readdir(folder));)
        n += e->d_name[0] == '.' && strstr(e->d_name, "platter-partial") != NULL;
    closedir(folder);
    return n;
}

/* ---- holes and copies ------------------------------------------------------------------------ */

static void test_holes(void **state)
{
    (void)state;
    auto_free char *path = make_file("holes", "", 0600);
    struct stream *s = open_file(path, STREAM_FILE_WRITE);
    uint64_t len, taken;
    bool hole;
    assert_works(stream_resize(s, 4 << 20, &err));
    assert_works(stream_allocated(s, &taken, &err));
    assert_true(taken < 1 << 20);
    write_text(s, "data in the first block");
    assert_works(stream_pwrite(s, "more", 4, 1 << 20, &err));
    assert_works(stream_extents(s, 4096, 4 << 20, &len, &hole, &err));
    assert_true(hole && len == (1 << 20) - 4096);
    assert_works(stream_extents(s, 4096, 100, &len, &hole, &err));
    assert_true(hole && len == 100);
    assert_works(stream_extents(s, 1 << 20, 4 << 20, &len, &hole, &err));
    assert_true(!hole && len == 4096);
    assert_works(stream_allocate(s, 0, 4 << 20, &err));
    assert_works(stream_allocated(s, &taken, &err));
    assert_true(taken >= 4 << 20);
    assert_works(stream_zero(s, 0, 3 << 20, STREAM_ZERO_UNMAP, &err));
    assert_works(stream_allocated(s, &taken, &err));
    assert_true(taken <= 2 << 20);
    assert_works(stream_discard(s, 0, 4 << 20, &err));
    assert_works(stream_allocated(s, &taken, &err));
    assert_true(taken < 1 << 20);
    stream_close(s);
}

static void test_copy_from(void **state)
{
    (void)state;
    auto_free char *from_path = make_file("from", "0123456789", 0600);
    auto_free char *to_path = make_file("to", "abc", 0600);
    struct stream *from = open_file(from_path, 0), *to = open_file(to_path, STREAM_FILE_WRITE);
    struct stream *memory;
    assert_works(stream_copy_from(to, 2, from, 5, 5, &err));
    assert_text(to_path, "ab56789");
    assert_fails(stream_copy_from(to, 0, from, 5, 6, &err), PLATTER_ECORRUPT, "ends at 10");
    assert_fails(stream_copy_from(from, 0, to, 0, 1, &err), EBADF, "reading only");
    assert_works(stream_memory_open("memory", 100, &memory, &err));
    struct platter_error err = {0};
    assert_int_equal(stream_copy_from(to, 0, memory, 0, 1, &err), -ENOTSUP);
    assert_int_equal(stream_copy_from(memory, 0, from, 0, 1, &err), -ENOTSUP);
    assert_int_equal(err.code, 0);
    stream_close(memory);
    stream_close(from);
    stream_close(to);
}

static void test_same_file(void **state)
{
    (void)state;
    auto_free char *one = make_file("one", "1", 0600);
    auto_free char *two = make_file("two", "1", 0600);
    auto_free char *three = scratch_path("three");
    assert_int_equal(link(one, three), 0);
    struct stream *a = open_file(one, 0), *b = open_file(two, 0), *c = open_file(three, 0), *m;
    assert_works(stream_memory_open("one", 100, &m, &err));
    assert_true(stream_same_file(a, a) && stream_same_file(a, c));
    assert_false(stream_same_file(a, b) || stream_same_file(a, m) || stream_same_file(m, m));
    stream_close(a);
    stream_close(b);
    stream_close(c);
    stream_close(m);
}

/* Writes past the cache and through it, side by side, add up to the same file. */
static void test_direct(void **state)
{
    (void)state;
    enum { SIZE = 8 << 20, ROUNDS = 200 };
    struct prng p = {.state = 1};
    auto_free uint8_t *model = calloc(1, SIZE), *got = malloc(SIZE);
    auto_free uint8_t *buf = aligned_alloc(4096, SIZE);
    auto_free char *path = scratch_path("direct");
    assert_true(model && got && buf);
    struct stream *s = open_file(path, TEMPORARY | STREAM_FILE_DIRECT);
    assert_works(stream_resize(s, SIZE, &err));
    for (int i = 0; i < ROUNDS; i++) {
        hoff off = prng_below(&p, SIZE / 512) * 512;
        off = prng_chance(&p, 50) ? off & ~4095ull : off;
        size_t len = 1 + prng_below(&p, prng_chance(&p, 50) ? 1 << 20 : 5000);
        len = len > SIZE - off ? SIZE - off : len;
        memset(buf, i, len);
        memset(model + off, i, len);
        assert_works(stream_pwrite(s, buf, len, off, &err));
        assert_works(stream_pread(s, got, len + off, 0, &err));
        assert_memory_equal(got, model, len + off);
    }
    assert_works(stream_publish(s, true, &err));
    assert_works(stream_pread(s, got, SIZE, 0, &err));
    assert_memory_equal(got, model, SIZE);
    stream_close(s);
}

/* ---- what is refused ------------------------------------------------------------------------- */

static void test_refusals(void **state)
{
    (void)state;
    auto_free char *path = make_file("plain", "text", 0600);
    auto_free char *to = scratch_path("link"), *pipe_path = scratch_path("pipe");
    auto_free char *missing = scratch_path("missing");
    auto_free char *folder = scratch_path("linked"), *through = scratch_path("linked/plain");
    struct stream *s;
    assert_int_equal(symlink("plain", to), 0);
    assert_int_equal(symlink(".", folder), 0);
    assert_int_equal(mkfifo(pipe_path, 0600), 0);
    assert_fails(stream_file_open(missing, 0, &s, &err), ENOENT, missing);
    assert_fails(stream_file_open(scratch_folder(), 0, &s, &err), EISDIR, "folder");
    assert_fails(stream_file_open(pipe_path, 0, &s, &err), EINVAL, "neither a regular file");
    assert_fails(stream_file_open(pipe_path, STREAM_FILE_REGULAR, &s, &err), PLATTER_EGATE,
                 "not a regular file");
    assert_fails(stream_file_open("/dev/null", 0, &s, &err), EINVAL, "neither a regular file");
    assert_fails(stream_file_open("/dev/null", STREAM_FILE_REGULAR, &s, &err), PLATTER_EGATE,
                 "not a regular file");
    assert_fails(stream_file_open(to, STREAM_FILE_REGULAR, &s, &err), PLATTER_EGATE,
                 "symbolic link");
    assert_fails(stream_file_open(through, STREAM_FILE_REGULAR, &s, &err), PLATTER_EGATE,
                 "symbolic link");
    stream_close(open_file(through, 0));
    s = open_file(to, 0);
    assert_fails(stream_pwrite(s, "x", 1, 0, &err), EBADF, "reading only");
    assert_fails(stream_resize(s, 1, &err), EBADF, "reading only");
    assert_works(stream_flush(s, &err));
    stream_close(s);
    stream_close(open_file(path, STREAM_FILE_REGULAR));
}

/* ---- temporary names ------------------------------------------------------------------------- */

static void test_publish(void **state)
{
    (void)state;
    auto_free char *path = make_file("target", "old", 0640);
    struct stream *s = open_file(path, TEMPORARY);
    write_text(s, "new");
    assert_text(path, "old");
    assert_int_equal(partials(), 1);
    assert_works(stream_publish(s, true, &err));
    assert_text(path, "new");
    assert_int_equal(partials(), 0);
    assert_int_equal(mode_of(path), 0640);
    write_text(s, "NEW");
    assert_works(stream_publish(s, true, &err));
    stream_close(s);
    assert_text(path, "NEW");
}

static void test_not_published(void **state)
{
    (void)state;
    auto_free char *path = make_file("kept", "old", 0600), *absent = scratch_path("absent");
    struct stream *s = open_file(path, TEMPORARY);
    write_text(s, "new");
    stream_close(s);
    assert_text(path, "old");
    s = open_file(absent, TEMPORARY);
    stream_close(s);
    assert_int_equal(access(absent, F_OK), -1);
    assert_int_equal(partials(), 0);
}

static void test_new_target(void **state)
{
    (void)state;
    auto_free char *path = scratch_path("fresh");
    mode_t old = umask(027);
    struct stream *s = open_file(path, TEMPORARY);
    umask(old);
    write_text(s, "new");
    assert_int_equal(access(path, F_OK), -1);
    assert_works(stream_publish(s, false, &err));
    stream_close(s);
    assert_text(path, "new");
    assert_int_equal(mode_of(path), 0640);
}

static void test_relative_target(void **state)
{
    (void)state;
    char here[4096];
    assert_non_null(getcwd(here, sizeof here));
    assert_int_equal(chdir(scratch_folder()), 0);
    struct stream *s = open_file("relative", TEMPORARY);
    assert_int_equal(chdir(here), 0);
    write_text(s, "new");
    assert_works(stream_publish(s, true, &err));
    stream_close(s);
    auto_free char *path = scratch_path("relative");
    assert_text(path, "new");
}

static void test_exclusive(void **state)
{
    (void)state;
    auto_free char *path = make_file("taken", "old", 0600), *fresh = scratch_path("free");
    struct stream *s;
    assert_fails(stream_file_open(path, TEMPORARY | STREAM_FILE_EXCLUSIVE, &s, &err), EEXIST,
                 "exists already");
    s = open_file(fresh, TEMPORARY | STREAM_FILE_EXCLUSIVE);
    write_text(s, "new");
    free(make_file("free", "intruder", 0600));
    assert_fails(stream_publish(s, true, &err), EEXIST, "cannot give the new file its name");
    assert_text(fresh, "intruder");
    unlink(fresh);
    assert_works(stream_publish(s, true, &err));
    stream_close(s);
    assert_text(fresh, "new");
    assert_int_equal(partials(), 0);
}

static void test_links_stay(void **state)
{
    (void)state;
    auto_free char *path = make_file("real", "old", 0600), *to = scratch_path("way");
    auto_free char *dangling = scratch_path("dangling"), *born = scratch_path("born");
    auto_free char *loop = scratch_path("loop");
    struct stat st;
    assert_int_equal(symlink("real", to), 0);
    assert_int_equal(symlink(born, dangling), 0);
    assert_int_equal(symlink("loop", loop), 0);
    struct stream *s = open_file(to, TEMPORARY);
    write_text(s, "new");
    assert_works(stream_publish(s, true, &err));
    stream_close(s);
    assert_int_equal(lstat(to, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_text(path, "new");
    s = open_file(dangling, TEMPORARY);
    write_text(s, "born");
    assert_works(stream_publish(s, true, &err));
    stream_close(s);
    assert_text(born, "born");
    assert_fails(stream_file_open(loop, TEMPORARY, &s, &err), ELOOP, "symbolic links");
}

static void test_refused_targets(void **state)
{
    (void)state;
    struct stream *s;
    auto_free char *deep = scratch_path("no/such/folder"), *slash = scratch_path("folder/");
    assert_int_equal(mkdir(slash, 0700), 0);
    assert_fails(stream_file_open(deep, TEMPORARY, &s, &err), ENOENT, "cannot open its folder");
    assert_fails(stream_file_open(slash, TEMPORARY, &s, &err), EISDIR, "not the name of a file");
    assert_fails(stream_file_open(scratch_folder(), TEMPORARY, &s, &err), EISDIR, "folder");
    assert_fails(stream_file_open("/dev/null", TEMPORARY, &s, &err), EINVAL, "neither a regular");
    char longest[300];
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    auto_free char *path = scratch_path(longest);
    assert_fails(stream_file_open(path, TEMPORARY, &s, &err), ENAMETOOLONG, "longer than 255");
    path[strlen(path) - (299 - 255)] = '\0';
    s = open_file(path, TEMPORARY);
    assert_works(stream_publish(s, false, &err));
    stream_close(s);
    assert_int_equal(access(path, F_OK), 0);
}

/* What a signal handler does before the process ends. */
static void test_remove_temporaries(void **state)
{
    (void)state;
    auto_free char *a = scratch_path("left-a"), *b = scratch_path("left-b");
    struct stream *published = open_file(a, TEMPORARY);
    assert_works(stream_publish(published, false, &err));
    struct stream *open[100];
    for (int i = 0; i < 100; i++) {
        open[i] = open_file(b, TEMPORARY);
        if (i >= 5)
            stream_close(open[i]);
    }
    assert_int_equal(partials(), 5);
    stream_file_remove_temporaries();
    assert_int_equal(partials(), 0);
    assert_int_equal(access(a, F_OK), 0);
    assert_fails(stream_publish(open[0], false, &err), ENOENT, "cannot give the new file its name");
    for (int i = 0; i < 5; i++)
        stream_close(open[i]);
    stream_close(published);
}

/* ---- new content in place of the old --------------------------------------------------------- */

/* The new file has the old one's rights, name, locks, and goes on under the stream. */
static void test_replace(void **state)
{
    (void)state;
    const unsigned use = STREAM_LOCK_READ | STREAM_LOCK_WRITE;
    auto_free char *path = make_file("replaced", "the old text", 0640);
    auto_free char *name = scratch_path("link-to-replaced");
    unlink(name);
    assert_int_equal(symlink("replaced", name), 0);
    struct stream *s = open_file(name, STREAM_FILE_WRITE), *old = open_file(path, 0);
    assert_works(stream_lock(s, use, STREAM_LOCK_WRITE, &err));
    assert_works(stream_replace(s, "new", 3, &err));
    assert_text(path, "new");
    assert_int_equal(mode_of(path), 0640);
    struct stream *again = open_file(path, STREAM_FILE_WRITE);
    assert_true(stream_same_file(s, again));
    assert_false(stream_same_file(s, old));
    assert_fails(stream_lock(again, use, STREAM_LOCK_WRITE, &err), EBUSY, "");
    assert_works(stream_lock(old, STREAM_LOCK_READ, STREAM_LOCK_WRITE, &err));
    stream_close(again);

    assert_works(stream_pwrite(s, "and more", 8, 3, &err));
    assert_text(path, "newand more");
    assert_works(stream_replace(s, "", 0, &err));
    assert_text(path, "");
    stream_close(s);
    stream_close(old);
    struct stat st;
    assert_int_equal(lstat(name, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_int_equal(partials(), 0);
}

/* A file that is not where it was, or not the same any more, is nobody's to replace. */
static void test_replace_of_what_moved(void **state)
{
    (void)state;
    auto_free char *path = make_file("here", "mine", 0600);
    auto_free char *there = scratch_path("there");
    struct stream *s = open_file(path, STREAM_FILE_WRITE);
    assert_int_equal(rename(path, there), 0);
    assert_fails(stream_replace(s, "new", 3, &err), ENOENT, "here");
    free(make_file("here", "another's", 0600));
    assert_fails(stream_replace(s, "new", 3, &err), ESTALE, "moved or replaced");
    assert_text(path, "another's");
    assert_text(there, "mine");
    write_text(s, "MI");
    assert_text(there, "MIne");
    stream_close(s);
    assert_int_equal(partials(), 0);
}

/* Where there is no room for the new content the old one stays. */
static void test_replace_that_fails(void **state)
{
    (void)state;
    enum { SMALL = 65536 };
    struct rlimit before, limit;
    auto_free char *path = make_file("full", "the old text", 0600);
    auto_free char *large = calloc(1, 2 * SMALL);
    struct stream *s = open_file(path, STREAM_FILE_WRITE);
    assert_non_null(large);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = before;
    limit.rlim_cur = SMALL;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    struct platter_error err = {0};
    int r = stream_replace(s, large, 2 * SMALL, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, handler);
    assert_int_equal(r, -EFBIG);
    assert_non_null(strstr(err.message, "cannot write its new content"));
    assert_text(path, "the old text");
    write_text(s, "THE");
    assert_text(path, "THE old text");
    assert_int_equal(partials(), 0);
    stream_close(s);
}

/* A file of two names has the new content under both. */
static void test_replace_of_two_names(void **state)
{
    (void)state;
    auto_free char *path = make_file("two-names", "the old text", 0640);
    auto_free char *other = scratch_path("second-name");
    unlink(other);
    assert_int_equal(link(path, other), 0);
    struct stream *s = open_file(path, STREAM_FILE_WRITE);
    assert_works(stream_lock(s, STREAM_LOCK_WRITE, STREAM_LOCK_WRITE, &err));
    assert_works(stream_replace(s, "new", 3, &err));
    assert_text(path, "new");
    assert_text(other, "new");
    struct stream *again = open_file(other, STREAM_FILE_WRITE);
    assert_true(stream_same_file(s, again));
    assert_fails(stream_lock(again, STREAM_LOCK_WRITE, 0, &err), EBUSY, "");
    stream_close(again);
    assert_works(stream_replace(s, "newer and longer", 16, &err));
    assert_text(other, "newer and longer");
    stream_close(s);
    assert_int_equal(partials(), 0);
}

/* Who might do what with the old file may do it with the new one, and nobody else. */
static void test_replace_keeps_attributes(void **state)
{
    (void)state;
    static const char name[] = "system.posix_acl_access";
    auto_free char *path = make_file("with-attributes", "the old text", 0600);
    bool has_lists = setxattr(path, name, access_list, sizeof access_list, 0) == 0;
    bool has_own = setxattr(path, "user.purpose", "a disk", 6, 0) == 0;
    if (!has_lists || !has_own)
        assert_int_equal(errno, ENOTSUP);
    mode_t mode = mode_of(path);
    struct stream *s = open_file(path, STREAM_FILE_WRITE);
    assert_works(stream_replace(s, "new", 3, &err));
    stream_close(s);
    uint8_t got[256];
    assert_text(path, "new");
    assert_int_equal(mode_of(path), mode);
    if (has_lists) {
        assert_int_equal(getxattr(path, name, got, sizeof got), sizeof access_list);
        assert_memory_equal(got, access_list, sizeof access_list);
    }
    if (has_own)
        assert_int_equal(getxattr(path, "user.purpose", got, sizeof got), 6);
}

static void replace_as_somebody_else(const char *path)
{
    struct stream *s;
    if (setgid(65534) != 0 || setuid(65534) != 0 ||
        stream_file_open(path, STREAM_FILE_WRITE, &s, NULL) < 0 ||
        stream_replace(s, "new", 3, NULL) < 0)
        _exit(1);
    stream_close(s);
    _exit(0);
}

/* Somebody who may write a file does not become its owner by that. Only the superuser can try. */
static void test_replace_keeps_owner(void **state)
{
    (void)state;
    auto_free char *path = make_file("of-another", "the old text", 0666);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    uid_t owner = st.st_uid;
    if (geteuid() == 0) {
        owner = 12345;
        assert_int_equal(chown(path, owner, 12345), 0);
        assert_int_equal(chmod(scratch_folder(), 0777), 0);
        pid_t child = fork();
        if (child == 0)
            replace_as_somebody_else(path);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
    } else {
        struct stream *s = open_file(path, STREAM_FILE_WRITE);
        assert_works(stream_replace(s, "new", 3, &err));
        stream_close(s);
    }
    assert_text(path, "new");
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_uid, owner);
    assert_int_equal(mode_of(path), 0666);
    assert_int_equal(partials(), 0);
}

static void test_replace_of_others(void **state)
{
    (void)state;
    auto_free char *path = make_file("read-only", "x", 0600);
    struct stream *s = open_file(path, 0), *m;
    assert_fails(stream_replace(s, "new", 3, &err), EBADF, "reading only");
    stream_close(s);
    assert_works(stream_memory_open("memory", 100, &m, &err));
    assert_works(stream_pwrite(m, "0123456789", 10, 0, &err));
    assert_works(stream_replace(m, "abc", 3, &err));
    uint64_t size;
    char got[3];
    assert_works(stream_size(m, &size, &err));
    assert_int_equal(size, 3);
    assert_works(stream_pread(m, got, 3, 0, &err));
    assert_memory_equal(got, "abc", 3);
    stream_close(m);
    /* A file that has no name yet is just written. */
    auto_free char *new = scratch_path("unborn");
    s = open_file(new, TEMPORARY);
    write_text(s, "first");
    assert_works(stream_replace(s, "2nd", 3, &err));
    assert_works(stream_publish(s, true, &err));
    assert_text(new, "2nd");
    stream_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replace),
        cmocka_unit_test(test_replace_of_what_moved),
        cmocka_unit_test(test_replace_of_two_names),
        cmocka_unit_test(test_replace_keeps_attributes),
        cmocka_unit_test(test_replace_keeps_owner),
        cmocka_unit_test(test_replace_of_others),
        cmocka_unit_test(test_replace_that_fails),
        cmocka_unit_test(test_holes),
        cmocka_unit_test(test_copy_from),
        cmocka_unit_test(test_direct),
        cmocka_unit_test(test_same_file),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_publish),
        cmocka_unit_test(test_not_published),
        cmocka_unit_test(test_new_target),
        cmocka_unit_test(test_relative_target),
        cmocka_unit_test(test_exclusive),
        cmocka_unit_test(test_links_stay),
        cmocka_unit_test(test_refused_targets),
        cmocka_unit_test(test_remove_temporaries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
