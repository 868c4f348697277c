/* SPDX-License-Identifier: MIT */
/* A descriptor that is read front to back, and what is read so by its name. */
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "stream/inside.h"
#include "stream/place.h"

struct input_stream {
    struct stream head;
    int fd;
    bool own;      /* to be closed */
    bool waits;    /* for more to come; what can only be written says so at once */
    int wake;      /* an eventfd: input_interrupt() was called */
    uint64_t came; /* bytes so far */
};

/* Comes back when there is something to read, or ECANCELED. */
static int wait_for_input(const struct input_stream *in, struct platter_error *err)
{
    struct pollfd fds[] = {{.fd = in->fd, .events = POLLIN}, {.fd = in->wake, .events = POLLIN}};
    while (in->waits && poll(fds, 2, -1) < 0)
        if (errno != EINTR && errno != EAGAIN)
            return fail_errno(err, errno, "%s: cannot wait for it", in->head.name);
    return fds[1].revents ? fail(err, ECANCELED, "%s: reading was cancelled", in->head.name) : 0;
}

static int input_read(struct stream *s, void *buf, size_t len, size_t *ret_len,
                      struct platter_error *err)
{
    struct input_stream *in = (struct input_stream *)s;
    ssize_t n = 1;

    for (*ret_len = 0; n != 0 && *ret_len < len;) {
        int r = wait_for_input(in, err);
        if (r < 0)
            return r;
        n = read(in->fd, (char *)buf + *ret_len, len - *ret_len);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return fail_errno(err, errno, "%s: cannot read at offset %" PRIu64, s->name, in->came);
        if (n > 0) {
            *ret_len += (size_t)n;
            in->came += (uint64_t)n;
        }
    }
    return 0;
}

static int input_descriptor(const struct stream *s)
{
    return ((const struct input_stream *)s)->fd;
}

static void input_interrupt(struct stream *s)
{
    const uint64_t one = 1;
    /* Of eight bytes nothing can be left, and a count that is full wakes as well. */
    (void)!write(((struct input_stream *)s)->wake, &one, sizeof one);
}

static void input_close(struct stream *s)
{
    const struct input_stream *in = (struct input_stream *)s;
    if (in->own)
        close(in->fd);
    if (in->wake >= 0)
        close(in->wake);
}

static const struct stream_ops input_ops = {
    .name = "pipe",
    .read = input_read,
    .descriptor = input_descriptor,
    .interrupt = input_interrupt,
    .close = input_close,
};

static int open_fd(int fd, bool own, const char *name, struct stream **ret,
                   struct platter_error *err)
{
    struct input_stream *in = stream_new(sizeof *in, &input_ops, name, err);
    if (!in) {
        if (own)
            close(fd);
        return -ENOMEM;
    }
    in->head.sequential = true;
    in->fd = fd;
    in->own = own;
    in->waits = (fcntl(fd, F_GETFL) & O_ACCMODE) != O_WRONLY;
    in->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (in->wake < 0) {
        int r = fail_errno(err, errno, "%s: cannot open", name);
        stream_close(&in->head);
        return r;
    }
    *ret = &in->head;
    return 0;
}

int stream_input_open(int fd, const char *name, struct stream **ret, struct platter_error *err)
{
    return open_fd(fd, false, name, ret, err);
}

int stream_source_open(const char *name, struct stream **ret, struct platter_error *err)
{
    struct stat st;

    if (strcmp(name, "-") == 0)
        return open_fd(STDIN_FILENO, false, "standard input", ret, err);
    if (!place_is_file(name, &name))
        return stream_open(name, 0, ret, err);
    if (stat(name, &st) < 0 || S_ISREG(st.st_mode) || S_ISBLK(st.st_mode) || S_ISDIR(st.st_mode))
        return stream_file_open(name, 0, ret, err);
    int fd = open(name, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return fail_errno(err, errno, "%s: cannot open", name);
    return open_fd(fd, true, name, ret, err);
}
