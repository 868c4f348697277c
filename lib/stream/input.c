/* SPDX-License-Identifier: MIT */
/* A descriptor that is read front to back, and what is read so by its name. */
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "stream/inside.h"

struct input_stream {
    struct stream head;
    int fd;
    bool own;      /* to be closed */
    uint64_t came; /* bytes so far */
};

static int input_read(struct stream *s, void *buf, size_t len, size_t *ret_len,
                      struct platter_error *err)
{
    struct input_stream *in = (struct input_stream *)s;
    ssize_t n = 1;

    for (*ret_len = 0; n != 0 && *ret_len < len;) {
        n = read(in->fd, (char *)buf + *ret_len, len - *ret_len);
        if (n < 0 && errno == EAGAIN) {
            struct pollfd wait = {.fd = in->fd, .events = POLLIN};
            poll(&wait, 1, -1);
        } else if (n < 0 && errno != EINTR) {
            return fail_errno(err, errno, "%s: cannot read at offset %" PRIu64, s->name, in->came);
        } else if (n > 0) {
            *ret_len += (size_t)n;
            in->came += (uint64_t)n;
        }
    }
    return 0;
}

static void input_close(struct stream *s)
{
    const struct input_stream *in = (struct input_stream *)s;
    if (in->own)
        close(in->fd);
}

static const struct stream_ops input_ops = {
    .name = "pipe",
    .read = input_read,
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
    if (stat(name, &st) < 0 || S_ISREG(st.st_mode) || S_ISBLK(st.st_mode) || S_ISDIR(st.st_mode))
        return stream_file_open(name, 0, ret, err);
    int fd = open(name, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return fail_errno(err, errno, "%s: cannot open", name);
    return open_fd(fd, true, name, ret, err);
}
