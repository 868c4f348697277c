/* SPDX-License-Identifier: MIT */
/*
 * Writes, zeroes, discards and flushes an image of FUZZ_FORMAT, makes, applies, deletes and
 * compares snapshots inside, and compacts it. The input is one byte with the number of calls, eight
 * bytes for each, and the image. A damaged image may refuse anything. One that a checker of our own
 * finds sound must take all calls, read as it should and stay sound.
 */
#include "base/ckd.h"
#include "base/cursor.h"
#include "base/memory.h"
#include "format/qcow2/qcow2.h"
#include "fuzz/target.h"
#include "support/esx.h"
#include "support/imagecheck.h"
#include "support/must.h"

enum {
    MOST_CALLS = 24,
    CALL_BYTES = 8,
    MOST_FILE = 1 << 20,
    ROOM = 4 << 20,      /* for a file to grow */
    MOST_DISK = 1 << 20, /* of a disk whose content is followed */
    MOST_LENGTH = 256 << 10
};

struct change {
    const struct format *format;
    struct buffer file;
    struct platter_disk *disk;
    uint8_t *bytes, *content; /* room for a disk each */
    uint8_t *expected;        /* content: what the disk holds; NULL where that is not followed */
};

static bool is_sound(const struct change *c)
{
    struct image_report report;
    image_check(c->format->name, c->file.bytes, c->file.size, &report);
    return report.errors == 0;
}

static void read_all(const struct change *c, uint8_t *out)
{
    struct platter_error err = {0};
    if (disk_read(c->disk, out, disk_size(c->disk), 0, &err) != 0)
        fuzz_found("a sound image cannot be read: %s", err.message);
}

static void compare_all(struct change *c)
{
    read_all(c, c->bytes);
    for (uint64_t i = 0; i < disk_size(c->disk); i++) {
        if (c->bytes[i] != c->expected[i])
            fuzz_found("byte %llu is wrong", (unsigned long long)i);
    }
}

/* A sound image may hold compressed clusters that do not inflate: only what reads is followed. */
static void start_following(struct change *c)
{
    uint64_t size = disk_size(c->disk);
    if (size > MOST_DISK || disk_top(c->disk)->has_backing || !is_sound(c))
        return;
    if (disk_read(c->disk, c->content, size, 0, NULL) == 0)
        c->expected = c->content;
}

/* After a discard each byte is what it was, or zero. */
static void follow_discard(struct change *c, uint64_t off, uint64_t len)
{
    struct platter_error err = {0};
    if (disk_read(c->disk, c->bytes, len, off, &err) != 0)
        fuzz_found("read after discard: %s", err.message);
    for (uint64_t i = 0; i < len; i++) {
        if (c->bytes[i] != 0 && c->bytes[i] != c->expected[off + i])
            fuzz_found("byte %llu after a discard", (unsigned long long)(off + i));
    }
    memcpy(c->expected + off, c->bytes, len);
}

static void follow(struct change *c, unsigned kind, uint64_t off, uint64_t len)
{
    if (kind < 2)
        memset(c->expected + off, kind ? 0xa5 : 0x5a, len);
    else if (kind < 4)
        memset(c->expected + off, 0, len);
    else if (kind == 4)
        follow_discard(c, off, len);
}

/* ---- snapshots --------------------------------------------------------------------------------
 */

enum { SNAPSHOTS = 6, CREATE = SNAPSHOTS, APPLY, DELETE, DIFF, COMPACT, CALLS };

static int make_snapshot(struct change *c, struct platter_error *err)
{
    struct snapshot_request request = {.name = "fuzz", .icount = UINT64_MAX};
    int r = disk_snapshot_create(c->disk, &request, NULL, err);
    free(request.ret_id);
    return r;
}

static int compare_snapshots(struct change *c, const char *from, struct platter_error *err)
{
    struct snapshot_difference found;
    struct disk_diff d;
    int r = disk_snapshot_diff_open(c->disk, from, NULL, &d, err);
    if (r < 0)
        return r;
    for (goff off = 0; (r = disk_snapshot_diff_next(&d, off, &found, err)) > 0;)
        off = found.off + found.len;
    disk_snapshot_diff_close(&d);
    return r;
}

/* What is moved reads as before. Bitmaps move as well, and our checker knows nothing of them. */
static void call_compact(struct change *c, uint64_t number)
{
    struct compact_request request = {.zeros = number % 2, .dry_run = number % 16 == 15};
    if (!c->format->compact)
        return;
    int r = disk_compact(c->disk, &request, NULL);
    if (r < 0 || qcow2_of(disk_top(c->disk))->extensions.has_bitmaps)
        c->expected = NULL;
}

/* What counts cannot hold, and what snapshots say that is none of our checker's business, ends the
 * following; so does another disk that is to be seen. */
static void call_snapshot(struct change *c, unsigned kind, uint64_t number)
{
    const struct snapshot_ops *ops = c->format->snapshots;
    struct snapshot_request s;
    if (!ops)
        return;
    bool any = ops->describe(disk_top(c->disk), (uint32_t)(number % 4), &s);
    char *name = string_copy(any ? s.name : "");
    MUST(name);
    int r = kind == CREATE   ? make_snapshot(c, NULL)
            : kind == APPLY  ? disk_snapshot_apply(c->disk, name, 0, NULL, NULL)
            : kind == DELETE ? disk_snapshot_delete(c->disk, name, 0, NULL, NULL)
                             : compare_snapshots(c, name, NULL);
    free(name);
    if (r < 0 && (r != -ENOENT || any))
        c->expected = NULL;
    if (r == 0 && kind == APPLY && c->expected) {
        c->expected = disk_size(c->disk) <= MOST_DISK ? c->content : NULL;
        if (c->expected && disk_read(c->disk, c->expected, disk_size(c->disk), 0, NULL) != 0)
            c->expected = NULL;
    }
}

static int call(struct change *c, unsigned kind, uint64_t off, uint64_t len,
                struct platter_error *err)
{
    switch (kind) {
    case 0:
    case 1:
        memset(c->bytes, kind ? 0xa5 : 0x5a, len);
        return disk_write(c->disk, c->bytes, len, off, err);
    case 2:
    case 3:
        return disk_zero(c->disk, off, len, kind == 3, err);
    case 4:
        return disk_discard(c->disk, off, len, err);
    default:
        return disk_flush(c->disk, err);
    }
}

/* The test's buffer may be full; and the files of ESX are not always for us to write. */
static bool may_fail(const struct change *c, int code)
{
    return code == -ENOSPC || (esx_kind_of(c->file.bytes, c->file.size) != ESX_NONE &&
                               (code == -ENOTSUP || code == -EROFS));
}

/* Kind, length in 16 bits, offset in 40: bytes, or sectors where the kind's top bit is set. */
static void run_call(struct change *c, struct reader *r)
{
    struct platter_error err = {0};
    unsigned byte = read_u8(r);
    uint64_t len = read_le16(r), off = (uint64_t)read_u8(r) << 32;
    off |= read_le32(r);
    if (byte & 0x80) {
        len *= 512;
        off *= 512;
    }
    uint64_t size = disk_size(c->disk);
    if (size == 0)
        return;
    off %= size;
    len = min_u64(min_u64(len, MOST_LENGTH), size - off);
    unsigned kind = (byte & 0x7f) % CALLS;
    if (kind == COMPACT) {
        call_compact(c, off);
        return;
    }
    if (kind >= SNAPSHOTS) {
        call_snapshot(c, kind, off);
        return;
    }
    int code = call(c, kind, off, len, &err);
    if (c->expected && may_fail(c, code))
        c->expected = NULL;
    if (code == 0 && c->expected)
        follow(c, kind, off, len);
    else if (code != 0 && c->expected)
        fuzz_found("call %u on a sound image: %s", kind, err.message);
}

static void check_result(struct change *c)
{
    struct image_report report;
    image_check(c->format->name, c->file.bytes, c->file.size, &report);
    if (report.errors)
        fuzz_found("the image is not sound any more: %s", report.first);
    c->disk = fuzz_open(c->format, &c->file, false);
    if (!c->disk)
        fuzz_found("the image does not open any more");
    compare_all(c);
    disk_close(c->disk, NULL);
}

static void change_image(struct change *c, struct reader *calls)
{
    unsigned n = (unsigned)(calls->len / CALL_BYTES);
    c->disk = fuzz_open(c->format, &c->file, true);
    if (!c->disk)
        return;
    start_following(c);
    for (unsigned i = 0; i < n; i++)
        run_call(c, calls);
    if (c->expected)
        compare_all(c);
    else
        fuzz_read(c->disk);
    int r = disk_close(c->disk, NULL);
    if (c->expected && r == 0)
        check_result(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t file[MOST_FILE + ROOM], bytes[MOST_DISK], expected[MOST_DISK];
    size_t calls = size ? min_u64(data[0] % (MOST_CALLS + 1) * CALL_BYTES, size - 1) : 0;
    if (size == 0 || size - 1 - calls > MOST_FILE)
        return 0;
    struct change c = {.format = format_find(FUZZ_FORMAT),
                       .file = {.bytes = file, .size = size - 1 - calls, .capacity = sizeof file},
                       .bytes = bytes,
                       .content = expected};
    memcpy(file, data + 1 + calls, c.file.size);
    struct reader r = reader_over(data + 1, calls);
    change_image(&c, &r);
    return 0;
}
