/* SPDX-License-Identifier: MIT */
/* The stream over a test's own memory: buffer.h. */
#include "support/buffer.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/memory.h"
#include "stream/inside.h"
#include "support/must.h"

struct buffer_stream {
    struct stream head;
    struct buffer *buffer;
    uint64_t came; /* bytes that were read front to back */
};

struct buffer buffer_new(uint64_t capacity)
{
    struct buffer b = {.bytes = calloc(1, capacity ? capacity : 1), .capacity = capacity};
    MUST(b.bytes);
    return b;
}

/*
 * Memory of copies that were freed. Tests make thousands of copies of images, of which they write
 * little: new memory, cleared by the system and watched by a sanitizer, would cost more than all
 * that is done with it.
 */
static struct buffer kept[8];
static pthread_mutex_t kept_lock = PTHREAD_MUTEX_INITIALIZER;

/* Some that was kept and has room enough, but not far too much; none: bytes are NULL. */
static struct buffer take_kept(uint64_t capacity)
{
    WITH_LOCK(&kept_lock);
    struct buffer *best = NULL, taken = {0};
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (kept[i].bytes && kept[i].room >= capacity && kept[i].room / 4 <= capacity &&
            (!best || kept[i].room < best->room))
            best = &kept[i];
    if (best) {
        taken = *best;
        *best = (struct buffer){0};
    }
    return taken;
}

/* Keeps memory in the place of the smallest that is kept. What is to be freed instead. */
static uint8_t *put_kept(struct buffer b)
{
    WITH_LOCK(&kept_lock);
    struct buffer *least = &kept[0];
    for (size_t i = 1; i < sizeof kept / sizeof *kept; i++)
        if (kept[i].room < least->room)
            least = &kept[i];
    if (b.room <= least->room)
        return b.bytes;
    uint8_t *bytes = least->bytes;
    *least = b;
    return bytes;
}

struct buffer buffer_copy(const struct buffer *b, uint64_t capacity)
{
    capacity = max_u64(max_u64(capacity, b->size), 1);
    struct buffer copy = take_kept(capacity);
    if (!copy.bytes)
        copy = (struct buffer){.bytes = calloc(1, capacity), .room = capacity};
    MUST(copy.bytes);
    if (b->size)
        memcpy(copy.bytes, b->bytes, b->size);
    if (b->size < copy.used)
        memset(copy.bytes + b->size, 0, copy.used - b->size);
    copy.size = copy.used = b->size;
    copy.capacity = capacity;
    return copy;
}

void buffer_free(struct buffer *b)
{
    b->used = max_u64(b->used, b->size);
    free(b->room ? put_kept(*b) : b->bytes);
    *b = (struct buffer){0};
}

struct buffer buffer_load(const char *path, uint64_t capacity)
{
    FILE *f = fopen(path, "rb");
    MUST(f && fseeko(f, 0, SEEK_END) == 0);
    uint64_t size = (uint64_t)ftello(f);
    MUST(fseeko(f, 0, SEEK_SET) == 0);
    struct buffer b = buffer_new(max_u64(capacity, size));
    b.size = size;
    MUST(fread(b.bytes, 1, size, f) == size);
    fclose(f);
    return b;
}

void buffer_save(const struct buffer *b, const char *path)
{
    FILE *f = fopen(path, "wb");
    MUST(f && fwrite(b->bytes, 1, b->size, f) == b->size);
    MUST(fclose(f) == 0);
}

static struct buffer *buffer_of(struct stream *s)
{
    return ((struct buffer_stream *)s)->buffer;
}

static int buffer_grow(struct buffer *b, uint64_t end, struct platter_error *err)
{
    if (end > b->capacity)
        return fail(err, ENOSPC, "the test's buffer holds %llu bytes",
                    (unsigned long long)b->capacity);
    if (end > b->size) {
        memset(b->bytes + b->size, 0, end - b->size);
        b->size = end;
        b->used = max_u64(b->used, end);
    }
    return 0;
}

static int buffer_pread(struct stream *s, void *buf, size_t len, hoff off,
                        struct platter_error *err)
{
    const struct buffer *b = buffer_of(s);
    if (!range_inside(off, len, b->size))
        return stream_fail_past_end(s, off, len, b->size, err);
    memcpy(buf, b->bytes + off, len);
    return 0;
}

static int buffer_pwrite(struct stream *s, const void *buf, size_t len, hoff off,
                         struct platter_error *err)
{
    struct buffer *b = buffer_of(s);
    uint64_t end;
    if (ckd_add(&end, off, len))
        return fail(err, EFBIG, "%s: a write past 2^64", s->name);
    int r = buffer_grow(b, end, err);
    if (r == 0)
        memcpy(b->bytes + off, buf, len);
    return r;
}

static int buffer_flush(struct stream *s, struct platter_error *err)
{
    (void)s, (void)err;
    return 0;
}

static int buffer_zero(struct stream *s, hoff off, uint64_t len, unsigned flags,
                       struct platter_error *err)
{
    (void)flags;
    struct buffer *b = buffer_of(s);
    uint64_t end;
    if (ckd_add(&end, off, len))
        return fail(err, EFBIG, "%s: zeros past 2^64", s->name);
    int r = buffer_grow(b, end, err);
    if (r == 0)
        memset(b->bytes + off, 0, len);
    return r;
}

static int buffer_discard(struct stream *s, hoff off, uint64_t len, struct platter_error *err)
{
    (void)err;
    struct buffer *b = buffer_of(s);
    if (off < b->size)
        memset(b->bytes + off, 0, min_u64(len, b->size - off));
    return 0;
}

static int buffer_size(struct stream *s, uint64_t *ret_size, struct platter_error *err)
{
    (void)err;
    *ret_size = buffer_of(s)->size;
    return 0;
}

static int buffer_resize(struct stream *s, uint64_t size, struct platter_error *err)
{
    struct buffer *b = buffer_of(s);
    if (size < b->size)
        b->size = size;
    return buffer_grow(b, size, err);
}

static const struct stream_ops buffer_ops = {
    .name = "buffer",
    .pread = buffer_pread,
    .pwrite = buffer_pwrite,
    .flush = buffer_flush,
    .zero = buffer_zero,
    .discard = buffer_discard,
    .size = buffer_size,
    .resize = buffer_resize,
};

int stream_buffer_open(struct buffer *b, const char *name, bool writable, struct stream **ret,
                       struct platter_error *err)
{
    struct buffer_stream *s = stream_new(sizeof *s, &buffer_ops, name, err);
    if (!s)
        return -ENOMEM;
    s->head.writable = writable;
    s->buffer = b;
    *ret = &s->head;
    return 0;
}

static int buffer_read(struct stream *s, void *buf, size_t len, size_t *ret_len,
                       struct platter_error *err)
{
    struct buffer_stream *in = (struct buffer_stream *)s;
    *ret_len = (size_t)min_u64(len, in->buffer->size - in->came);
    int r = buffer_pread(s, buf, *ret_len, in->came, err);
    in->came += *ret_len;
    return r;
}

static const struct stream_ops input_ops = {.name = "pipe", .read = buffer_read};

int stream_buffer_input_open(struct buffer *b, const char *name, struct stream **ret,
                             struct platter_error *err)
{
    struct buffer_stream *s = stream_new(sizeof *s, &input_ops, name, err);
    if (!s)
        return -ENOMEM;
    s->head.sequential = true;
    s->buffer = b;
    *ret = &s->head;
    return 0;
}
