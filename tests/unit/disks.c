/* SPDX-License-Identifier: MIT */
/* Raw disks for tests of whole-disk work. What fails here fails the test. */
#include "unit.h"

#include "disks.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "stream/inside.h"

struct byte_stream {
    struct stream head;
    uint8_t *bytes;
    uint64_t size;
    uint64_t bad_from; /* reads that reach it fail */
};

static int byte_pread(struct stream *s, void *buf, size_t len, hoff off, struct platter_error *err)
{
    struct byte_stream *b = (struct byte_stream *)s;
    if (off + len > b->bad_from)
        return fail(err, EIO, "%s: spoilt by the test", s->name);
    assert_true(off + len <= b->size);
    memcpy(buf, b->bytes + off, len);
    return 0;
}

static int byte_size(struct stream *s, uint64_t *ret_size, struct platter_error *err)
{
    (void)err;
    *ret_size = ((struct byte_stream *)s)->size;
    return 0;
}

static void byte_close(struct stream *s)
{
    free(((struct byte_stream *)s)->bytes);
}

static const struct stream_ops byte_ops = {
    .name = "bytes", .pread = byte_pread, .size = byte_size, .close = byte_close};

static struct platter_disk *raw_disk(struct stream *s)
{
    const struct format *format = &format_raw;
    struct platter_disk *disk;
    assert_int_equal(disk_assemble(&s, &format, 1, false, true, 0, NULL, &disk, NULL), 0);
    return disk;
}

struct platter_disk *zero_disk(uint64_t size)
{
    struct byte_stream *b = stream_new(sizeof *b, &byte_ops, "bytes", NULL);
    assert_non_null(b);
    b->bytes = calloc(1, size + 1);
    assert_non_null(b->bytes);
    b->size = size;
    b->bad_from = UINT64_MAX;
    return raw_disk(&b->head);
}

static struct byte_stream *below(struct platter_disk *disk)
{
    struct stream *s = disk_top(disk)->stream;
    assert_ptr_equal(s->ops, &byte_ops);
    return (struct byte_stream *)s;
}

struct platter_disk *pattern_disk(uint64_t size)
{
    struct platter_disk *disk = zero_disk(size);
    for (uint64_t i = 0; i < size; i++)
        below(disk)->bytes[i] = pattern_byte(i);
    return disk;
}

void disk_poke(struct platter_disk *disk, uint64_t off, uint8_t byte)
{
    assert_true(off < below(disk)->size);
    below(disk)->bytes[off] = byte;
}

void disk_spoil(struct platter_disk *disk, uint64_t off)
{
    below(disk)->bad_from = off;
}

struct platter_disk *sparse_disk(uint64_t size, uint64_t off, const void *bytes, size_t len)
{
    const char *folder = getenv("TMPDIR");
    auto_free char *path = string_format("%s/platter-unit-XXXXXX", folder ? folder : "/tmp");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    struct stream *s;
    assert_int_equal(stream_file_open(path, STREAM_FILE_WRITE, &s, NULL), 0);
    unlink(path);
    assert_int_equal(stream_resize(s, size, NULL), 0);
    if (len > 0)
        assert_int_equal(stream_pwrite(s, bytes, len, off, NULL), 0);
    return raw_disk(s);
}
