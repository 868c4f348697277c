/* SPDX-License-Identifier: MIT */
/*
 * lzop, front to back, through the program of that name: the one way there is whose licence is not
 * that of its library.
 *
 *     in -> feeder -> its standard input    its standard output -> worker -> out
 *
 * The program knows checksums and parts that follow one another; how it ends, and what it says
 * then, is the result. Nothing is resumed behind damage: the program has read on by then, as far as
 * a pipe goes, and does not tell to where it came.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cursor.h"
#include "config.h"
#include "stream/unzip.h"

enum {
    WORDS = 300,            /* bytes of what it says that are kept */
    PIPE_BYTES = 1 << 20,   /* on their way to it and back, if the system lets us */
    STATUS_WARNED = 2,      /* of the program: something was not as it should be */
    STATUS_NOT_FOUND = 127, /* of the program, where it could not be started after all */
    ABOVE_STANDARD = 3,     /* the first descriptor that is none of the standard ones */
    LZOP_FLAGS_AT = 17,     /* in the header: which checksums there are */
    LZOP_ADLER = 0x1,
    LZOP_CRC = 0x100
};

struct lzop {
    struct unzip *z;
    int to, from, said; /* our ends of its standard input, output and error */
    pid_t pid;
    char words[WORDS];
    size_t words_len;

    pthread_t feeder;
    int fed; /* how feeding it ended */
    struct platter_error feed_error;
};

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* ---- starting it ----------------------------------------------------------------------------- */

/* A pipe whose ends are none of the standard descriptors, should the program have closed those. */
static int open_pipe(int ends[2], struct platter_error *err)
{
    if (pipe2(ends, O_CLOEXEC) < 0)
        return fail_errno(err, errno, "cannot make a pipe for lzop");
    for (int i = 0; i < 2; i++) {
        int low = ends[i];
        if (low >= ABOVE_STANDARD)
            continue;
        ends[i] = fcntl(low, F_DUPFD_CLOEXEC, ABOVE_STANDARD);
        int code = errno;
        close(low);
        if (ends[i] < 0)
            return fail_errno(err, code, "cannot make a pipe for lzop");
    }
    (void)fcntl(ends[0], F_SETPIPE_SZ, PIPE_BYTES);
    return 0;
}

/* The environment without LZOP, whose options are for people. In memory the caller frees. */
static char **environment(void)
{
    size_t n = 0, kept = 0;
    while (environ && environ[n])
        n++;
    char **copy = calloc(n + 1, sizeof *copy);
    for (size_t i = 0; copy && i < n; i++)
        if (strncmp(environ[i], "LZOP=", 5) != 0)
            copy[kept++] = environ[i];
    return copy;
}

/* It gets these three descriptors and no other, no signal of ours, and none from the terminal: it
 * ends when we say so. */
static int spawn(const int standard[3], char **env, pid_t *ret)
{
    static char *const argv[] = {"lzop", "-dc", NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none, usual;

    sigemptyset(&none);
    sigemptyset(&usual);
    sigaddset(&usual, SIGPIPE);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &usual);
    posix_spawnattr_setpgroup(&attr, 0);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                        POSIX_SPAWN_SETPGROUP);
    int code = 0;
    for (int i = 0; i < 3 && code == 0; i++)
        code = posix_spawn_file_actions_adddup2(&files, standard[i], i);
#if HAVE_SPAWN_CLOSEFROM
    if (code == 0)
        code = posix_spawn_file_actions_addclosefrom_np(&files, ABOVE_STANDARD);
#endif
    if (code == 0)
        code = posix_spawnp(ret, "lzop", &files, &attr, argv, env);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    return code;
}

/* Starts it, unless the stream is being closed. */
static int start_child(struct lzop *l, const int standard[3], struct platter_error *err)
{
    auto_free char **env = environment();
    if (!env)
        return fail_memory(err, "starting lzop");
    WITH_LOCK(&l->z->child_lock);
    if (l->z->stopping)
        return fail(err, ECANCELED, "cancelled");
    pid_t pid;
    int code = spawn(standard, env, &pid);
    if (code == ENOENT)
        return fail(err, ENOTSUP,
                    "%s: is packed with lzop, and the program lzop is not installed: install it",
                    l->z->head.name);
    if (code)
        return fail_errno(err, code, "%s: cannot start lzop", l->z->head.name);
    l->z->child = l->pid = pid;
    return 0;
}

static int start(struct lzop *l, struct platter_error *err)
{
    int in[2] = {-1, -1}, out[2] = {-1, -1}, said[2] = {-1, -1};

    int r = open_pipe(in, err);
    if (r == 0)
        r = open_pipe(out, err);
    if (r == 0)
        r = open_pipe(said, err);
    if (r == 0)
        r = start_child(l, (int[]){in[0], out[1], said[1]}, err);
    close_fd(&in[0]);
    close_fd(&out[1]);
    close_fd(&said[1]);
    l->to = in[1];
    l->from = out[0];
    l->said = said[0];
    return r;
}

/* ---- feeding it ------------------------------------------------------------------------------ */

/* Writes some; whether it takes any more. SIGPIPE is blocked on this thread, and ends with it. */
static bool feed_some(struct lzop *l, const uint8_t *bytes, size_t len)
{
    ssize_t n = write(l->to, bytes, len);
    if (n > 0)
        ring_take(&l->z->in, (size_t)n);
    return n > 0 || (n < 0 && errno == EINTR);
}

static void *feed(void *arg)
{
    struct lzop *l = arg;
    const uint8_t *bytes;
    size_t len;

    do
        l->fed = ring_bytes(&l->z->in, 1, &bytes, &len, &l->feed_error);
    while (l->fed == 0 && len && feed_some(l, bytes, len));
    close_fd(&l->to);
    return NULL;
}

/* ---- what comes out -------------------------------------------------------------------------- */

static void kill_child(struct lzop *l)
{
    WITH_LOCK(&l->z->child_lock);
    if (l->z->child)
        kill(l->z->child, SIGKILL);
}

/* Reads what is there of its output: 0 at the end, ECANCELED when nobody wants it. */
static int take_output(struct lzop *l)
{
    uint8_t *room;
    size_t len = ring_room(&l->z->out, UNZIP_PIECE, &room);
    if (len == 0)
        return -ECANCELED;
    ssize_t n = read(l->from, room, len);
    if (n > 0) {
        ring_put(&l->z->out, (size_t)n);
        ring_mark(&l->z->out); /* it checks each block before it gives it out */
    }
    return n > 0 || (n < 0 && errno == EINTR) ? 1 : 0;
}

/* The last of its words are kept. 0 at the end. */
static int take_words(struct lzop *l)
{
    char more[WORDS];
    ssize_t n = read(l->said, more, sizeof more);
    if (n < 0)
        return errno == EINTR;
    size_t room = sizeof l->words - 1 - l->words_len;
    size_t goes = (size_t)n > room ? (size_t)n - room : 0;
    if (goes > l->words_len)
        goes = l->words_len;
    memmove(l->words, l->words + goes, l->words_len - goes);
    l->words_len -= goes;
    size_t kept = sizeof l->words - 1 - l->words_len;
    if (kept > (size_t)n)
        kept = (size_t)n;
    memcpy(l->words + l->words_len, more + n - kept, kept);
    l->words_len += kept;
    return n > 0;
}

/* All that it writes, until it has closed both. */
static int drain(struct lzop *l, struct platter_error *err)
{
    struct pollfd fds[] = {{.fd = l->from, .events = POLLIN}, {.fd = l->said, .events = POLLIN}};
    while (fds[0].fd >= 0 || fds[1].fd >= 0) {
        if (poll(fds, 2, -1) < 0 && errno != EINTR && errno != EAGAIN)
            return fail_errno(err, errno, "cannot wait for lzop");
        int r = fds[0].revents ? take_output(l) : 1;
        if (r < 0)
            return fail(err, -r, "cancelled");
        if (r == 0)
            fds[0].fd = -1;
        if (fds[1].revents && take_words(l) == 0)
            fds[1].fd = -1;
    }
    return 0;
}

/* ---- how it ended ---------------------------------------------------------------------------- */

/* Its status, as of waitpid(); -1: not known. */
static int reap(struct lzop *l)
{
    siginfo_t info;
    int status = -1;
    /* What has ended but was not waited for keeps its number: nobody else is killed. */
    while (waitid(P_PID, (id_t)l->pid, &info, WEXITED | WNOWAIT) < 0 && errno == EINTR)
        ;
    WITH_LOCK(&l->z->child_lock);
    if (waitpid(l->pid, &status, 0) != l->pid)
        status = -1;
    l->z->child = 0;
    return status;
}

/* Its last line, without its name. */
static const char *last_words(struct lzop *l)
{
    while (l->words_len && l->words[l->words_len - 1] == '\n')
        l->words_len--;
    l->words[l->words_len] = 0;
    char *line = strrchr(l->words, '\n');
    line = line ? line + 1 : l->words;
    return strncmp(line, "lzop: ", 6) == 0 ? line + 6 : line;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static int judge(struct lzop *l, int status, struct platter_error *err)
{
    const char *name = l->z->head.name, *words = last_words(l);
    uint64_t fed = l->z->start + ring_position(&l->z->in);

    if (status == 0)
        return 0;
    if (status == -1)
        return fail(err, ECHILD,
                    "%s: how lzop ended is not known: this program waits for all its children, or "
                    "ignores SIGCHLD",
                    name);
    /* Parts that follow one another are worth a warning to it, and fine for us. */
    if (WIFEXITED(status) && WEXITSTATUS(status) == STATUS_WARNED && strstr(words, "multipart"))
        return 0;
    if (WIFSIGNALED(status))
        return fail(err, EIO, "%s: lzop was ended by signal %d", name, WTERMSIG(status));
    if (WEXITSTATUS(status) == STATUS_NOT_FOUND)
        return fail(err, ENOTSUP, "%s: the program lzop cannot be started", name);
    /* Of an end that comes too early it says what the system had to say last, about nothing. */
    if (ends_with(words, ": <stdin>"))
        words = "unexpected end of file";
    return fail(err, PLATTER_ECORRUPT,
                "%s: the lzop data is damaged, or ends too early, in front of offset %" PRIu64
                "; lzop says: %s (exit status %d), and ends there: what follows is not read",
                name, fed, words, WEXITSTATUS(status));
}

/* Whether its header tells of checksums of what is inside: unpacked_lzop.c has the layout. */
static int note_checksums(struct unzip *z, struct platter_error *err)
{
    uint8_t header[LZOP_FLAGS_AT + 4];
    size_t len;
    int r = ring_peek(&z->in, header, sizeof header, &len, err);
    if (r == 0 && len == sizeof header)
        z->unsummed = !(get_be(header + LZOP_FLAGS_AT, 4) & (LZOP_ADLER | LZOP_CRC));
    return r;
}

int unzip_lzop(struct unzip *z, struct platter_error *err)
{
    struct lzop l = {.z = z, .to = -1, .from = -1, .said = -1};

    int r = note_checksums(z, err);
    if (r == 0)
        r = start(&l, err);
    int code = r == 0 ? pthread_create(&l.feeder, NULL, feed, &l) : 0;
    if (code)
        r = fail_errno(err, code, "no thread to unpack it");
    bool feeding = r == 0;
    if (r == 0)
        r = drain(&l, err);
    if (r < 0 && l.pid)
        kill_child(&l);
    /* It may have had enough while there is more to come. */
    ring_abandon(&z->in);
    if (feeding)
        pthread_join(l.feeder, NULL);
    close_fd(&l.to);
    close_fd(&l.from);
    close_fd(&l.said);
    int status = l.pid ? reap(&l) : 0;
    if (r == 0 && l.fed < 0 && l.fed != -ECANCELED) {
        *err = l.feed_error;
        return l.fed;
    }
    return r == 0 ? judge(&l, status, err) : r;
}
