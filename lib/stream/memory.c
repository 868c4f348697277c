/* SPDX-License-Identifier: MIT */
/* A stream in memory that grows up to a limit. Its bytes are guarded by a lock: many readers or one
 * writer. Bytes between size and room are not zero by themselves: growing clears them. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/ckd.h"
#include "base/hash.h"
#include "base/memory.h"
#include "stream/inside.h"

enum {
    FIRST_ROOM = 64 * 1024 /* bytes; doubled from there */
};

struct memory_stream {
    struct stream head;
    pthread_rwlock_t lock;
    uint8_t *bytes;
    uint64_t size, room;
    uint64_t limit; /* most bytes it may grow to */
};

static struct memory_stream *memory_of(struct stream *s)
{
    return (struct memory_stream *)s;
}

/* Makes the stream at least `size` long. Under the lock for writing. */
static int memory_grow(struct memory_stream *m, uint64_t size, struct platter_error *err)
{
    if (size <= m->size)
        return 0;
    if (size > m->limit)
        return fail(err, ENOSPC, "%s: cannot grow to %" PRIu64 " bytes, the limit is %" PRIu64,
                    m->head.name, size, m->limit);
    if (size > m->room) {
        uint64_t room = min_u64(m->limit, max_u64(size, max_u64(FIRST_ROOM, 2 * m->room)));
        uint8_t *bytes = realloc(m->bytes, room);
        if (!bytes)
            return fail_memory(err, "a memory stream");
        m->bytes = bytes;
        m->room = room;
    }
    memset(m->bytes + m->size, 0, size - m->size);
    m->size = size;
    return 0;
}

static int memory_pread(struct stream *s, void *buf, size_t len, hoff off,
                        struct platter_error *err)
{
    struct memory_stream *m = memory_of(s);
    int r = 0;
    pthread_rwlock_rdlock(&m->lock);
    if (range_inside(off, len, m->size))
        memcpy(buf, m->bytes + off, len);
    else
        r = stream_fail_past_end(s, off, len, m->size, err);
    pthread_rwlock_unlock(&m->lock);
    return r;
}

static int memory_pwrite(struct stream *s, const void *buf, size_t len, hoff off,
                         struct platter_error *err)
{
    struct memory_stream *m = memory_of(s);
    pthread_rwlock_wrlock(&m->lock);
    int r = memory_grow(m, off + len, err);
    if (r == 0)
        memcpy(m->bytes + off, buf, len);
    pthread_rwlock_unlock(&m->lock);
    return r;
}

static int memory_zero(struct stream *s, hoff off, uint64_t len, unsigned flags,
                       struct platter_error *err)
{
    (void)flags;
    struct memory_stream *m = memory_of(s);
    pthread_rwlock_wrlock(&m->lock);
    int r = memory_grow(m, off + len, err);
    if (r == 0)
        memset(m->bytes + off, 0, len);
    pthread_rwlock_unlock(&m->lock);
    return r;
}

static int memory_size(struct stream *s, uint64_t *ret_size, struct platter_error *err)
{
    (void)err;
    struct memory_stream *m = memory_of(s);
    pthread_rwlock_rdlock(&m->lock);
    *ret_size = m->size;
    pthread_rwlock_unlock(&m->lock);
    return 0;
}

static int memory_resize(struct stream *s, uint64_t size, struct platter_error *err)
{
    struct memory_stream *m = memory_of(s);
    pthread_rwlock_wrlock(&m->lock);
    int r = memory_grow(m, size, err);
    if (r == 0)
        m->size = size;
    pthread_rwlock_unlock(&m->lock);
    return r;
}

/* Nothing but the bytes themselves lives longer than the stream. */
static int memory_identity(struct stream *s, char **text, struct platter_error *err)
{
    struct memory_stream *m = memory_of(s);
    uint8_t digest[HASH_MAX];
    char hex[2 * sizeof digest + 1] = "";
    const struct hash *h = hash_find("sha256");
    pthread_rwlock_rdlock(&m->lock);
    uint64_t size = m->size;
    hash_bytes(h, size ? m->bytes : digest, size, NULL, 0, digest);
    pthread_rwlock_unlock(&m->lock);
    for (size_t i = 0; i < hash_size(h); i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    int r = identity_add(text, err, "size", "%" PRIu64, size);
    return r < 0 ? r : identity_add(text, err, "sha256", "%s", hex);
}

static void memory_close(struct stream *s)
{
    struct memory_stream *m = memory_of(s);
    pthread_rwlock_destroy(&m->lock);
    free(m->bytes);
}

static const struct stream_ops memory_ops = {
    .name = "memory",
    .pread = memory_pread,
    .pwrite = memory_pwrite,
    .zero = memory_zero,
    .size = memory_size,
    .resize = memory_resize,
    .identity = memory_identity,
    .close = memory_close,
};

int stream_memory_open(const char *name, uint64_t limit, struct stream **ret,
                       struct platter_error *err)
{
    struct memory_stream *m = stream_new(sizeof *m, &memory_ops, name, err);
    if (!m)
        return -ENOMEM;
    m->head.writable = true;
    m->limit = min_u64(limit, INT64_MAX);
    pthread_rwlock_init(&m->lock, NULL);
    *ret = &m->head;
    return 0;
}
