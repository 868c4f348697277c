/* SPDX-License-Identifier: MIT */
/* A descriptor that is written front to back. Offsets must follow one another without a gap. */
#include <inttypes.h>
#include <poll.h>
#include <unistd.h>

#include "base/memory.h"
#include "stream/inside.h"

struct pipe_stream {
    struct stream head;
    int fd; /* the caller's */
    pthread_mutex_t lock;
    uint64_t written; /* bytes that went out; guarded by lock */
};

static struct pipe_stream *pipe_of(struct stream *s)
{
    return (struct pipe_stream *)s;
}

/* Writes all; a descriptor that does not block is waited for. */
static int write_all(struct pipe_stream *p, const char *buf, size_t len, struct platter_error *err)
{
    while (len > 0) {
        ssize_t n = write(p->fd, buf, len);
        if (n > 0) {
            buf += n;
            len -= (size_t)n;
            p->written += (uint64_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            struct pollfd wait = {.fd = p->fd, .events = POLLOUT};
            poll(&wait, 1, -1);
        } else if (n == 0 || errno != EINTR) {
            return fail_errno(err, n == 0 ? EIO : errno, "%s: cannot write at offset %" PRIu64,
                              p->head.name, p->written);
        }
    }
    return 0;
}

static int pipe_pwrite(struct stream *s, const void *buf, size_t len, hoff off,
                       struct platter_error *err)
{
    struct pipe_stream *p = pipe_of(s);
    WITH_LOCK(&p->lock);
    if (off != p->written)
        return fail(err, ESPIPE,
                    "%s: cannot write at offset %" PRIu64 ": a pipe goes on at %" PRIu64, s->name,
                    off, p->written);
    return write_all(p, buf, len, err);
}

static int pipe_size(struct stream *s, uint64_t *ret_size, struct platter_error *err)
{
    (void)err;
    struct pipe_stream *p = pipe_of(s);
    WITH_LOCK(&p->lock);
    *ret_size = p->written;
    return 0;
}

/* Growing is writing zeros; what went out cannot be taken back. */
static int pipe_resize(struct stream *s, uint64_t size, struct platter_error *err)
{
    uint64_t written;
    pipe_size(s, &written, err);
    if (size < written)
        return fail(err, ESPIPE, "%s: cannot cut a pipe to %" PRIu64 " bytes, %" PRIu64 " went out",
                    s->name, size, written);
    return stream_write_zeros(s, written, size - written, err);
}

static int pipe_flush(struct stream *s, struct platter_error *err)
{
    /* A shell may have given a file as stdout; a pipe itself answers EINVAL. */
    if (fdatasync(pipe_of(s)->fd) < 0 && errno != EINVAL && errno != EROFS && errno != ENOTSUP)
        return fail_errno(err, errno, "%s: cannot flush", s->name);
    return 0;
}

static int pipe_descriptor(const struct stream *s)
{
    return ((const struct pipe_stream *)s)->fd;
}

static void pipe_close(struct stream *s)
{
    pthread_mutex_destroy(&pipe_of(s)->lock);
}

static const struct stream_ops pipe_ops = {
    .name = "pipe",
    .pwrite = pipe_pwrite,
    .flush = pipe_flush,
    .size = pipe_size,
    .resize = pipe_resize,
    .descriptor = pipe_descriptor,
    .close = pipe_close,
};

int stream_pipe_open(int fd, const char *name, struct stream **ret, struct platter_error *err)
{
    struct pipe_stream *p = stream_new(sizeof *p, &pipe_ops, name, err);
    if (!p)
        return -ENOMEM;
    p->head.writable = true;
    p->head.sequential = true;
    p->fd = fd;
    pthread_mutex_init(&p->lock, NULL);
    *ret = &p->head;
    return 0;
}
