/* SPDX-License-Identifier: MIT */
/*
 * The bytes of an image. Every call waits for the cluster's answer, so that as many operations are
 * under way as there are threads: s->head.depth asks for enough of them.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/ckd.h"
#include "base/memory.h"
#include "stream/rbd.h"

enum {
    DEPTH = 32,
    MOST_AT_ONCE = 256 << 20 /* bytes that are zeroed or discarded by one call */
};

/* ---- errors ---------------------------------------------------------------------------------- */

static const char *advice(int code)
{
    switch (code) {
    case ETIMEDOUT:
        return ": the cluster did not answer in time (io_timeout=SECONDS waits longer)";
    case ESHUTDOWN: /* EBLOCKLISTED */
        return ": the cluster has shut this client out, as somebody else broke its lock";
    case EROFS:
        return ": another client has taken the image over";
    case ENOSPC:
    case EDQUOT:
        return ": the cluster, or the pool, is full";
    case EPERM:
    case EACCES:
        return ": the client may not do that (its caps in Ceph)";
    }
    return "";
}

int rbd_fail(const struct stream *s, int code, struct platter_error *err, const char *format, ...)
{
    char what[256];
    va_list args;
    if (code == -ETIMEDOUT)
        rbd_hurry(((const struct rbd_stream *)s)->cluster, true);
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return fail(err, -code, "%s: %s: %s%s", s->name, what, strerror(-code), advice(-code));
}

/* ---- the image ------------------------------------------------------------------------------- */

int rbd_stream_new(struct rbd_cluster *cluster, const char *name, struct rbd_stream **ret,
                   struct platter_error *err)
{
    struct rbd_stream *s = stream_new(sizeof *s, &rbd_ops, name, err);
    if (!s) {
        rbd_cluster_put(cluster);
        return -ENOMEM;
    }
    s->cluster = cluster;
    s->head.depth = DEPTH;
    s->snap = RBD_NO_SNAP;
    pthread_rwlockattr_t attr; /* who changes the size does not wait for ever */
    pthread_rwlockattr_init(&attr);
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&s->gate, &attr);
    pthread_rwlockattr_destroy(&attr);
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_init(&s->whole, NULL);
    *ret = s;
    return 0;
}

int rbd_stream_learn(struct rbd_stream *s, struct platter_error *err)
{
    rbd_image_info_t info;
    uint64_t size;
    int r = librbd.stat(s->image, &info, sizeof info);
    if (r == 0)
        r = librbd.get_size(s->image, &size);
    if (r == 0)
        r = librbd.get_features(s->image, &s->features);
    if (r == 0 && librbd.get_id(s->image, s->id, sizeof s->id) < 0)
        s->id[0] = '\0'; /* an image of the first format has none */
    if (r < 0)
        return rbd_fail(&s->head, r, err, "the image cannot be examined");
    s->object = info.obj_size;
    s->size = s->room = size;
    if (s->head.writable && s->features & RBD_FEATURE_NON_PRIMARY)
        return fail(err, EROFS,
                    "%s: mirrors an image of another cluster and is written to by that alone: "
                    "promote it first (rbd mirror image promote)",
                    s->head.name);
    return rbd_states_load(s, err);
}

static int rbd_size(struct stream *base, uint64_t *ret, struct platter_error *err)
{
    (void)err;
    *ret = rbd_of(base)->size;
    return 0;
}

int rbd_set_size(struct rbd_stream *s, uint64_t size, uint64_t room, struct platter_error *err)
{
    int r = room == s->room ? 0 : librbd.resize(s->image, room);
    if (r < 0)
        return rbd_fail(&s->head, r, err, "the size cannot be made %" PRIu64 " bytes", room);
    s->room = room;
    s->size = size;
    return 0;
}

static int rbd_resize_stream(struct stream *base, uint64_t size, struct platter_error *err)
{
    struct rbd_stream *s = rbd_of(base);
    pthread_rwlock_wrlock(&s->gate);
    s->changes++;
    int r = rbd_set_size(s, size, size, err);
    pthread_rwlock_unlock(&s->gate);
    return r;
}

/* Bytes are about to be written up to `end`. A new image gets room for more than that, since each
 * change of the size is a dozen of requests. */
static int grow(struct rbd_stream *s, uint64_t end, struct platter_error *err)
{
    int r = 0;
    if (end <= s->size)
        return 0;
    pthread_rwlock_wrlock(&s->gate);
    if (end > s->size) {
        uint64_t room = s->room;
        if (end > room)
            room = s->temporary ? round_up(end + end / 8, 64 << 20) : end;
        r = rbd_set_size(s, end, room, err);
    }
    pthread_rwlock_unlock(&s->gate);
    return r;
}

struct alone {
    struct rbd_stream *s;
    int (*call)(struct rbd_stream *s, const void *arg, struct platter_error *err);
    const void *arg;
    struct platter_error *err;
    int r;
};

static void *call_alone(void *arg)
{
    struct alone *a = arg;
    WITH_LOCK(&a->s->whole);
    a->r = a->s->gone ? fail(a->err, ECANCELED, "%s: is given up", a->s->head.name)
                      : a->call(a->s, a->arg, a->err);
    return NULL;
}

int rbd_alone(struct rbd_stream *s,
              int (*call)(struct rbd_stream *s, const void *arg, struct platter_error *err),
              const void *arg, struct platter_error *err)
{
    struct alone a = {.s = s, .call = call, .arg = arg, .err = err};
    rbd_aside(call_alone, &a);
    return a.r;
}

int rbd_enter(struct rbd_stream *s, struct platter_error *err)
{
    pthread_rwlock_rdlock(&s->gate);
    if (!s->gone && !s->interrupted)
        return 0;
    pthread_rwlock_unlock(&s->gate);
    return fail(err, ECANCELED, "%s: is given up", s->head.name);
}

void rbd_leave(struct rbd_stream *s)
{
    pthread_rwlock_unlock(&s->gate);
}

/* ---- bytes ----------------------------------------------------------------------------------- */

static int rbd_pread(struct stream *base, void *buf, size_t len, hoff off,
                     struct platter_error *err)
{
    struct rbd_stream *s = rbd_of(base);
    if (!range_inside(off, len, s->size))
        return stream_fail_past_end(base, off, len, s->size, err);
    int r = rbd_enter(s, err);
    if (r < 0)
        return r;
    ssize_t n = librbd.read(s->image, off, len, buf);
    rbd_leave(s);
    if (n >= 0)
        rbd_hurry(s->cluster, s->interrupted);
    if (n < 0)
        return rbd_fail(base, (int)n, err, "%zu bytes at offset %" PRIu64 " cannot be read", len,
                        off);
    return (size_t)n == len ? 0 : stream_fail_past_end(base, off, len, off + (uint64_t)n, err);
}

static int rbd_pwrite(struct stream *base, const void *buf, size_t len, hoff off,
                      struct platter_error *err)
{
    struct rbd_stream *s = rbd_of(base);
    int r = grow(s, off + len, err);
    if (r == 0)
        r = rbd_enter(s, err);
    if (r < 0)
        return r;
    ssize_t n = librbd.write(s->image, off, len, buf);
    s->changes++;
    rbd_leave(s);
    if (n >= 0)
        rbd_hurry(s->cluster, s->interrupted);
    if (n >= 0 && (size_t)n != len)
        n = -EIO;
    return n < 0 ? rbd_fail(base, (int)n, err, "%zu bytes at offset %" PRIu64 " cannot be written",
                            len, off)
                 : 0;
}

void rbd_interrupt(struct stream *base)
{
    struct rbd_stream *s = rbd_of(base);
    s->interrupted = true;
    rbd_hurry(s->cluster, true);
}

static int rbd_flush_stream(struct stream *base, struct platter_error *err)
{
    struct rbd_stream *s = rbd_of(base);
    int r = rbd_enter(s, err);
    if (r < 0)
        return r;
    r = librbd.flush(s->image);
    rbd_leave(s);
    return r < 0 ? rbd_fail(base, r, err, "what was written cannot be made durable") : 0;
}

/* Discarding shrinks inwards to what the cluster gives back; zeroing is exact (section 7). */
static int clear(struct rbd_stream *s, hoff off, uint64_t len, bool exact, int flags,
                 struct platter_error *err)
{
    for (uint64_t n; len > 0; off += n, len -= n) {
        n = min_u64(len, MOST_AT_ONCE - off % MOST_AT_ONCE);
        int r = rbd_enter(s, err);
        if (r < 0)
            return r;
        ssize_t done = exact ? librbd.write_zeroes(s->image, off, n, flags, 0)
                             : librbd.discard(s->image, off, n);
        s->changes++;
        rbd_leave(s);
        if (done < 0)
            return rbd_fail(&s->head, (int)done, err,
                            "%" PRIu64 " bytes at offset %" PRIu64 " cannot be %s", n, off,
                            exact ? "made zero" : "discarded");
    }
    return 0;
}

static int rbd_zero(struct stream *base, hoff off, uint64_t len, unsigned flags,
                    struct platter_error *err)
{
    struct rbd_stream *s = rbd_of(base);
    bool unmap = flags & STREAM_ZERO_UNMAP;
    int r = grow(s, off + len, err);
    return r < 0 ? r
                 : clear(s, off, len, true, unmap ? 0 : RBD_WRITE_ZEROES_FLAG_THICK_PROVISION, err);
}

static int rbd_discard_range(struct stream *base, hoff off, uint64_t len, struct platter_error *err)
{
    struct rbd_stream *s = rbd_of(base);
    uint64_t size = s->size;
    return off < size ? clear(s, off, min_u64(len, size - off), false, 0, err) : 0;
}

/* What is stored stays; what is not gets zeros that take their space. */
static int rbd_allocate(struct stream *base, hoff off, uint64_t len, struct platter_error *err)
{
    struct rbd_stream *s = rbd_of(base);
    int r = grow(s, off + len, err);
    for (uint64_t n; len > 0 && r == 0; off += n, len -= n) {
        bool hole;
        r = stream_extents(base, off, len, &n, &hole, err);
        if (r == 0 && hole)
            r = rbd_zero(base, off, n, 0, err);
    }
    return r;
}

/* ---- the rest -------------------------------------------------------------------------------- */

static bool rbd_same(const struct stream *a, const struct stream *b)
{
    const struct rbd_stream *x = (const struct rbd_stream *)a, *y = (const struct rbd_stream *)b;
    return *x->id && strcmp(x->id, y->id) == 0 && strcmp(x->cluster->id, y->cluster->id) == 0 &&
           librados.ioctx_get_id(x->pool) == librados.ioctx_get_id(y->pool) && x->snap == y->snap;
}

static void rbd_close_stream(struct stream *base)
{
    struct rbd_stream *s = rbd_of(base);
    rbd_runs_done(s);
    rbd_states_free(s);
    rbd_create_done(s);
    if (s->image)
        librbd.close(s->image);
    if (s->pool)
        librados.ioctx_destroy(s->pool);
    rbd_cluster_put(s->cluster);
    free(s->space);
    pthread_rwlock_destroy(&s->gate);
    pthread_mutex_destroy(&s->lock);
    pthread_mutex_destroy(&s->whole);
}

const struct stream_ops rbd_ops = {
    .name = "rbd",
    .pread = rbd_pread,
    .interrupt = rbd_interrupt,
    .pwrite = rbd_pwrite,
    .flush = rbd_flush_stream,
    .zero = rbd_zero,
    .discard = rbd_discard_range,
    .size = rbd_size,
    .resize = rbd_resize_stream,
    .allocate = rbd_allocate,
    .extents = rbd_extents,
    .lock = rbd_lock,
    .unchanged = rbd_unchanged,
    .identity = rbd_identity,
    .facts = rbd_facts,
    .allocated = rbd_allocated,
    .publish = rbd_publish,
    .withdraw = rbd_withdraw,
    .give_up = rbd_give_up,
    .sibling = rbd_sibling,
    .same = rbd_same,
    .close = rbd_close_stream,
};
