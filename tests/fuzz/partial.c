/* SPDX-License-Identifier: MIT */
/*
 * A disk that is not complete, whose map is the input: opened, read, written, zeroed, discarded,
 * flushed. The input is one byte with the number of calls, and whether checksums of the map are
 * made right; eight bytes for each call; and the map. What opens must take all calls, read as it
 * should if it is small, and open again with the same content.
 */
#include "support/partial.h"
#include "base/ckd.h"
#include "base/cursor.h"
#include "base/memory.h"
#include "fuzz/target.h"
#include "stream/inside.h"
#include "support/must.h"

enum {
    MOST_CALLS = 24,
    CALL_BYTES = 8,
    SEAL = 0x80,
    MOST_MAP = 1 << 20,
    MOST_DISK = 1 << 20, /* of a disk whose content is followed */
    MOST_LENGTH = 256 << 10
};

/* ---- what holds nothing, and has room for all --------------------------------------------------
 */

static int void_pread(struct stream *s, void *buf, size_t len, hoff off, struct platter_error *err)
{
    (void)s, (void)off, (void)err;
    memset(buf, 0, len);
    return 0;
}

static int void_pwrite(struct stream *s, const void *buf, size_t len, hoff off,
                       struct platter_error *err)
{
    (void)s, (void)buf, (void)len, (void)off, (void)err;
    return 0;
}

static int void_size(struct stream *s, uint64_t *ret, struct platter_error *err)
{
    (void)s, (void)err;
    *ret = INT64_MAX;
    return 0;
}

static int void_extents(struct stream *s, hoff off, uint64_t len, uint64_t *ret_len, bool *ret_hole,
                        struct platter_error *err)
{
    (void)s, (void)off, (void)err;
    *ret_len = len;
    *ret_hole = true;
    return 0;
}

static void void_close(struct stream *s)
{
    (void)s;
}

static const struct stream_ops void_ops = {.name = "void",
                                           .pread = void_pread,
                                           .pwrite = void_pwrite,
                                           .size = void_size,
                                           .extents = void_extents,
                                           .close = void_close};

static struct stream *void_open(void)
{
    struct stream *s = stream_new(sizeof *s, &void_ops, "void", NULL);
    MUST(s);
    s->writable = true;
    return s;
}

/* ---- the disk ----------------------------------------------------------------------------------
 */

struct fuzz {
    struct buffer map, data, below;
    bool small; /* the content is followed */
    struct platter_disk *disk;
    uint8_t *content, *bytes; /* what it holds; room for as much */
};

static bool open_disk(struct fuzz *f, bool writable)
{
    struct stream *map, *data, *below;
    struct platter_error err = {0};
    MUST(stream_buffer_open(&f->map, "map", writable, &map, NULL) == 0);
    if (f->small) {
        MUST(stream_buffer_open(&f->data, "data", writable, &data, NULL) == 0);
        MUST(stream_buffer_open(&f->below, "below", false, &below, NULL) == 0);
    } else {
        data = void_open();
        below = void_open();
    }
    if (partial_disk_open(data, map, below, writable, FUZZ_MEMORY, &f->disk, &err) == 0)
        return true;
    if (err.code <= 0 || err.message[0] == 0)
        fuzz_found("open failed without a word");
    return false;
}

static void read_all(struct fuzz *f, uint8_t *out)
{
    struct platter_error err = {0};
    if (disk_read(f->disk, out, disk_size(f->disk), 0, &err) != 0)
        fuzz_found("cannot be read: %s", err.message);
}

static void compare(struct fuzz *f)
{
    read_all(f, f->bytes);
    for (uint64_t i = 0; i < disk_size(f->disk); i++)
        if (f->bytes[i] != f->content[i])
            fuzz_found("byte %llu is wrong", (unsigned long long)i);
}

/* After a discard each byte is what it was, or zero. */
static void follow_discard(struct fuzz *f, uint64_t off, uint64_t len)
{
    read_all(f, f->bytes);
    for (uint64_t i = off; i < off + len; i++)
        if (f->bytes[i] != 0 && f->bytes[i] != f->content[i])
            fuzz_found("byte %llu after a discard", (unsigned long long)i);
    memcpy(f->content + off, f->bytes + off, len);
}

static void run_call(struct fuzz *f, const uint8_t *call)
{
    static uint8_t bytes[MOST_LENGTH];
    struct platter_error err = {0};
    uint64_t size = disk_size(f->disk), len = get_le(call + 1, 2) * (call[0] & 0x40 ? 16 : 1);
    uint64_t off = (uint64_t)call[3] << 32 | get_le(call + 4, 4);
    off = size ? (call[0] & 0x20 ? off << 12 : off) % size : 0;
    unsigned kind = call[0] % 6;
    int r;
    len = min_u64(len, size - off);
    if (kind < 2) {
        len = min_u64(len, sizeof bytes);
        memset(bytes, kind ? 0xa5 : 0x5a, len);
        r = disk_write(f->disk, bytes, len, off, &err);
    } else if (kind < 4) {
        if (!f->small) /* much at once */
            len = min_u64(len << 24, size - off);
        r = disk_zero(f->disk, off, len, kind == 3, &err);
    } else if (kind == 4) {
        r = disk_discard(f->disk, off, len, &err);
    } else {
        r = disk_flush(f->disk, &err);
    }
    if (r != 0)
        fuzz_found("call of kind %u: %s", kind, err.message);
    if (f->small && kind < 2)
        memcpy(f->content + off, bytes, len);
    else if (f->small && kind < 4)
        memset(f->content + off, 0, len);
    else if (f->small && kind == 4)
        follow_discard(f, off, len);
}

static void change(struct fuzz *f, const uint8_t *calls, size_t n)
{
    struct platter_error err = {0};
    fuzz_read(f->disk);
    if (f->small)
        read_all(f, f->content);
    for (size_t i = 0; i < n; i++)
        run_call(f, calls + i * CALL_BYTES);
    if (f->small)
        compare(f);
    if (disk_close(TAKE(f->disk), &err) != 0)
        fuzz_found("close: %s", err.message);
    if (!open_disk(f, false))
        fuzz_found("does not open again");
    if (f->small)
        compare(f);
    fuzz_read(f->disk);
    disk_close(f->disk, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t map[MOST_MAP], place[MOST_DISK], below[MOST_DISK], content[MOST_DISK],
        bytes[MOST_DISK];
    size_t n = size ? min_u64((data[0] & ~SEAL) % (MOST_CALLS + 1), (size - 1) / CALL_BYTES) : 0;
    size_t head = 1 + n * CALL_BYTES;
    if (size == 0 || size - head > MOST_MAP)
        return 0;
    struct fuzz f = {.map = {.bytes = map, .size = size - head, .capacity = sizeof map},
                     .content = content,
                     .bytes = bytes};
    memcpy(map, data + head, f.map.size);
    if (data[0] & SEAL)
        partial_map_seal(&f.map);
    uint64_t disk = f.map.size >= 32 ? get_le(map + 24, 8) : 0;
    f.small = disk <= MOST_DISK;
    if (f.small) {
        f.data = (struct buffer){.bytes = place, .size = disk, .capacity = disk};
        f.below = (struct buffer){.bytes = below, .size = disk, .capacity = disk};
        memset(place, 0xee, disk);
        memset(below, 0x33, disk);
    }
    if (open_disk(&f, true))
        change(&f, data + 1, n);
    return 0;
}
