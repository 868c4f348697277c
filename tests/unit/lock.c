/* SPDX-License-Identifier: MIT */
/* Locks that other programs see, and that we see of them: between our own descriptors, and with a
 * running qemu-io. */
#include "unit.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/memory.h"
#include "platter/platter.h"
#include "stream/stream.h"
#include "support/process.h"

enum {
    READ = STREAM_LOCK_READ,
    WRITE = STREAM_LOCK_WRITE,
    RESIZE = STREAM_LOCK_RESIZE,
    CHANGE = WRITE | RESIZE
};

static char *make_image(const char *name)
{
    char *path = scratch_path(name);
    assert_int_equal(run_command(0, "qemu-img create -q -f qcow2 '%s' 1M", path), 0);
    return path;
}

static struct stream *open_image(const char *path)
{
    struct stream *s = NULL;
    assert_works(stream_file_open(path, STREAM_FILE_WRITE, &s, &err));
    return s;
}

static void test_between_streams(void **state)
{
    (void)state;
    auto_free char *path = make_image("between");
    struct stream *writer = open_image(path), *reader = open_image(path), *more = open_image(path);
    assert_works(stream_lock(writer, READ | CHANGE, CHANGE, &err));
    assert_fails(stream_lock(reader, READ, CHANGE, &err), EBUSY, "write lock held");
    assert_fails(stream_lock(reader, READ, CHANGE, &err), EBUSY, path);
    assert_fails(stream_lock(reader, READ, CHANGE, &err), EBUSY, "by this program itself (");
    assert_fails(stream_lock(reader, WRITE, 0, &err), EBUSY, "allows no writers");
    assert_works(stream_lock(reader, READ, 0, &err));
    /* What failed left no locks behind: the writer may start anew. */
    assert_works(stream_lock(writer, 0, 0, &err));
    assert_works(stream_lock(writer, READ | CHANGE, CHANGE, &err));
    assert_works(stream_lock(writer, 0, 0, &err));
    assert_works(stream_lock(reader, READ, CHANGE, &err));
    assert_works(stream_lock(more, READ, CHANGE, &err));
    assert_fails(stream_lock(writer, READ | CHANGE, CHANGE, &err), EBUSY, "allows no writers");
    assert_fails(stream_lock(writer, READ, READ, &err), EBUSY, "read lock held");
    stream_close(reader);
    assert_fails(stream_lock(writer, READ | CHANGE, CHANGE, &err), EBUSY, "-U");
    stream_close(more);
    assert_works(stream_lock(writer, READ | CHANGE, CHANGE, &err));
    stream_close(writer);
}

/* A lock that is changed keeps what it does not need to let go, and gives back the rest. */
static void test_change(void **state)
{
    (void)state;
    auto_free char *path = make_image("change");
    struct stream *a = open_image(path), *b = open_image(path);
    assert_works(stream_lock(a, READ, CHANGE, &err));
    assert_works(stream_lock(b, READ, CHANGE, &err));
    assert_fails(stream_lock(a, READ | CHANGE, CHANGE, &err), EBUSY, "in use");
    assert_fails(stream_lock(b, READ | WRITE, 0, &err), EBUSY, "in use");
    assert_works(stream_lock(b, READ, 0, &err));
    assert_works(stream_lock(a, READ | CHANGE, CHANGE, &err));
    stream_close(a);
    stream_close(b);
}

/* They see us. */
static void test_seen_by_others(void **state)
{
    (void)state;
    auto_free char *path = make_image("seen");
    struct stream *s = open_image(path);
    const char *write_one = "qemu-io -c 'write 0 512' '%s' >/dev/null 2>&1";
    const char *read_one = "qemu-io -r -c 'read 0 512' '%s' >/dev/null 2>&1";
    const char *info = "qemu-img info '%s' >/dev/null 2>&1";
    assert_works(stream_lock(s, READ | CHANGE, CHANGE, &err));
    assert_int_equal(run_command(1, write_one, path), 1);
    assert_int_equal(run_command(1, read_one, path), 1);
    assert_int_equal(run_command(1, info, path), 1);
    assert_works(stream_lock(s, READ, CHANGE, &err));
    assert_int_equal(run_command(1, write_one, path), 1);
    assert_int_equal(run_command(1, read_one, path), 0);
    assert_works(stream_lock(s, 0, 0, &err));
    assert_int_equal(run_command(1, write_one, path), 0);
    stream_close(s);
}

/* Starts qemu-io with the image open, and waits until it is. Its input is the caller's to close. */
static FILE *start_qemu_io(const char *options, const char *path)
{
    auto_free char *sign = scratch_path("opened");
    auto_free char *command = string_format("qemu-io %s '%s' >'%s' 2>&1", options, path, sign);
    unlink(sign);
    FILE *to = popen(command, "w");
    assert_non_null(to);
    fputs("read 0 512\n", to);
    fflush(to);
    for (int i = 0; i < 10000; i++) {
        char text[256] = "";
        int fd = open(sign, O_RDONLY);
        ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : 0;
        if (fd >= 0)
            close(fd);
        if (n > 0 && strstr(text, "read 512/512"))
            return to;
        usleep(1000);
    }
    fail_msg("qemu-io did not open %s", path);
    return to;
}

/* We see them. */
static void test_sees_a_writer(void **state)
{
    (void)state;
    auto_free char *path = make_image("writer");
    FILE *qemu_io = start_qemu_io("", path);
    struct stream *s = open_image(path), *replacement;
    assert_fails(stream_lock(s, READ, CHANGE, &err), EBUSY, "write lock held");
    assert_fails(stream_lock(s, READ | CHANGE, CHANGE, &err), EBUSY, "write lock held");
    assert_fails(stream_lock(s, 0, CHANGE, &err), EBUSY, "write lock held");
    assert_works(stream_lock(s, READ, 0, &err));
    assert_fails(stream_file_open(path, STREAM_FILE_TEMPORARY, &replacement, &err), EBUSY,
                 "in use by qemu-io (process ");
    pclose(qemu_io);
    assert_works(stream_lock(s, READ | CHANGE, CHANGE, &err));
    stream_close(s);
}

static void test_sees_a_reader(void **state)
{
    (void)state;
    auto_free char *path = make_image("reader");
    FILE *qemu_io = start_qemu_io("-r", path);
    struct stream *s = open_image(path), *replacement;
    assert_fails(stream_lock(s, READ | CHANGE, CHANGE, &err), EBUSY, "allows no writers");
    assert_works(stream_lock(s, READ, CHANGE, &err));
    assert_fails(stream_file_open(path, STREAM_FILE_TEMPORARY, &replacement, &err), EBUSY,
                 "in use by qemu-io (process ");
    pclose(qemu_io);
    stream_close(s);
}

static void test_shared_reader_is_harmless(void **state)
{
    (void)state;
    auto_free char *path = make_image("shared");
    FILE *qemu_io = start_qemu_io("-r -U", path);
    struct stream *s = open_image(path);
    assert_works(stream_lock(s, READ | CHANGE, CHANGE, &err));
    pclose(qemu_io);
    stream_close(s);
}

/* ---- who it is ------------------------------------------------------------------------------- */

/* Another process: it has taken a lock, and ends when its pipe is closed. */
struct holder {
    pid_t pid;
    int pipe;
};

static void hold(const char *path, int command, const struct flock *lock, int told, int pipe)
{
    char byte = 'x';
    int fd = open(path, O_RDWR);
    prctl(PR_SET_NAME, "ho)lder: 1");
    if (fd < 0 || fcntl(fd, command, lock) < 0 || write(told, &byte, 1) != 1)
        _exit(1);
    _exit(read(pipe, &byte, 1) == 0 ? 0 : 1);
}

static struct holder start_holder(const char *path, int command, const struct flock *lock)
{
    int told[2], end[2];
    char byte;
    assert_int_equal(pipe2(told, O_CLOEXEC), 0);
    assert_int_equal(pipe2(end, O_CLOEXEC), 0);
    struct holder h = {.pid = fork(), .pipe = end[1]};
    assert_true(h.pid >= 0);
    if (h.pid == 0) {
        close(end[1]);
        hold(path, command, lock, told[1], end[0]);
    }
    close(end[0]);
    close(told[1]);
    assert_int_equal(read(told[0], &byte, 1), 1);
    close(told[0]);
    return h;
}

static void end_holder(const struct holder *h)
{
    int status;
    close(h->pipe);
    assert_int_equal(waitpid(h->pid, &status, 0), h->pid);
    assert_int_equal(status, 0);
}

/* Whoever has the very byte, by a lock of either kind, alone or in a range. */
static void test_names_the_process(void **state)
{
    (void)state;
    static const struct {
        int command;
        struct flock lock;
        bool in_the_way;
    } cases[] = {
        {F_OFD_SETLK, {.l_type = F_RDLCK, .l_start = 101, .l_len = 1}, true},
        {F_OFD_SETLK, {.l_type = F_RDLCK, .l_start = 50, .l_len = 52}, true},
        {F_OFD_SETLK, {.l_type = F_RDLCK, .l_start = 50, .l_len = 51}, false},
        {F_OFD_SETLK, {.l_type = F_RDLCK, .l_start = 102, .l_len = 1}, false},
        {F_OFD_SETLK, {.l_type = F_RDLCK, .l_start = 0, .l_len = 0}, true},
        {F_OFD_SETLK, {.l_type = F_WRLCK, .l_start = 100, .l_len = 1}, true},
        {F_OFD_SETLK, {.l_type = F_WRLCK, .l_start = 203, .l_len = 7}, true},
        {F_SETLK, {.l_type = F_RDLCK, .l_start = 101, .l_len = 1}, true},
        {F_SETLK, {.l_type = F_RDLCK, .l_start = 7, .l_len = 0}, true},
    };
    auto_free char *path = make_image("named");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct holder h = start_holder(path, cases[i].command, &cases[i].lock);
        auto_free char *words = string_format("in use by ho)lder: 1 (process %d) (", (int)h.pid);
        struct stream *s = open_image(path);
        if (cases[i].in_the_way)
            assert_fails(stream_lock(s, READ, CHANGE, &err), EBUSY, words);
        else
            assert_works(stream_lock(s, READ, CHANGE, &err));
        stream_close(s);
        end_holder(&h);
        s = open_image(path);
        assert_works(stream_lock(s, READ, CHANGE, &err));
        stream_close(s);
    }
}

/* Whose open files are not ours to see is not named: seen by somebody who may see little. */
static void test_does_not_name_strangers(void **state)
{
    (void)state;
    auto_free char *path = make_image("strangers");
    struct stream *writer = open_image(path), *s = open_image(path);
    assert_works(stream_lock(writer, READ | CHANGE, CHANGE, &err));
    assert_int_equal(prctl(PR_SET_DUMPABLE, 0), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct platter_error err = {0};
        stream_close(writer); /* ours alone: the parent's stays open, and locked */
        if (getuid() == 0 && setuid(65534) < 0)
            _exit(2);
        bool right = stream_lock(s, READ, CHANGE, &err) == -EBUSY &&
                     strstr(err.message, "in use by another program (write lock held)");
        if (!right)
            print_error("%s\n", err.message);
        _exit(right ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    prctl(PR_SET_DUMPABLE, 1);
    assert_int_equal(status, 0);
    stream_close(writer);
    stream_close(s);
}

/* ---- no locks -------------------------------------------------------------------------------- */

/* From now on this process gets no lock of a kind it might; asking for one answers `code`. */
static bool refuse_locks(unsigned code)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fcntl, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, F_OFD_SETLK, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | code),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* Where there are no locks we go on without; what else goes wrong is an error. */
static void test_no_locks(void **state)
{
    (void)state;
    static const struct {
        int code, expected;
    } cases[] = {{ENOLCK, 0}, {EOPNOTSUPP, 0}, {EIO, -EIO}, {ENOMEM, -ENOMEM}};
    auto_free char *path = make_image("without");
    struct stream *s = open_image(path);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct platter_error err = {0};
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            if (!refuse_locks((unsigned)cases[i].code))
                _exit(2);
            int r = stream_lock(s, READ | CHANGE, CHANGE, &err);
            bool said = r == 0 || strstr(err.message, "cannot be locked");
            _exit(r == cases[i].expected && said ? 0 : 1);
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
    }
    stream_close(s);
}

/* The files that a disk is made of are locked as the disk is. */
static void test_extents(void **state)
{
    (void)state;
    auto_free char *path = scratch_path("disk.vmdk");
    auto_free char *flat = scratch_path("disk-flat.vmdk");
    struct platter_open_options o = {.size = sizeof o, .format = "vmdk"};
    for (unsigned write = 0; write < 2; write++) {
        struct platter_disk *disk;
        assert_int_equal(
            run_command(0, "qemu-img create -q -f vmdk -o subformat=monolithicFlat '%s' 1M", path),
            0);
        o.flags = write ? PLATTER_OPEN_WRITE : 0;
        assert_works(platter_open(path, &o, &disk, &err));
        struct stream *s = open_image(flat);
        if (write)
            assert_fails(stream_lock(s, READ, CHANGE, &err), EBUSY, "write lock held");
        else
            assert_works(stream_lock(s, READ, CHANGE, &err));
        assert_fails(stream_lock(s, READ | CHANGE, CHANGE, &err), EBUSY, "");
        stream_close(s);
        assert_works(platter_close(disk, &err));
    }
}

/* Where no locks tell, the files do: each extent would put its grains where the other does. */
static void test_extents_in_one_file(void **state)
{
    (void)state;
    auto_free char *path = scratch_path("two.vmdk");
    struct platter_open_options o = {.size = sizeof o, .format = "vmdk"};
    struct platter_disk *disk;
    assert_int_equal(
        run_command(0,
                    "qemu-img create -q -f vmdk -o subformat=twoGbMaxExtentSparse '%s' 3G && "
                    "cd \"$(dirname '%s')\" && ln -f two-s001.vmdk two-s002.vmdk",
                    path, path),
        0);
    o.flags = PLATTER_OPEN_NO_LOCK;
    assert_works(platter_open(path, &o, &disk, &err));
    assert_works(platter_close(disk, &err));
    o.flags |= PLATTER_OPEN_WRITE;
    assert_fails(platter_open(path, &o, &disk, &err), PLATTER_ECORRUPT, "are the same file");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_extents),           cmocka_unit_test(test_extents_in_one_file),
        cmocka_unit_test(test_between_streams),   cmocka_unit_test(test_change),
        cmocka_unit_test(test_seen_by_others),    cmocka_unit_test(test_sees_a_writer),
        cmocka_unit_test(test_sees_a_reader),     cmocka_unit_test(test_shared_reader_is_harmless),
        cmocka_unit_test(test_names_the_process), cmocka_unit_test(test_does_not_name_strangers),
        cmocka_unit_test(test_no_locks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
