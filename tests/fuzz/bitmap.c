/* SPDX-License-Identifier: MIT */
/*
 * The dirty bitmaps of an image: listed, looked at, changed, recording writes, resized, stored. The
 * input is one byte with the number of calls, four bytes for each, and the image. What a successful
 * close leaves must open again with the same bitmaps.
 */
#include <string.h>

#include "base/ckd.h"
#include "base/memory.h"
#include "fuzz/target.h"
#include "ops/ops.h"

enum { MOST_CALLS = 16, CALL_BYTES = 4, MOST_FILE = 1 << 20, ROOM = 4 << 20, MOST_RUNS = 64 };

static const char *const names[] = {"map", "second", "b0", ""};

/* Looks at all that can be used; how many there are. */
static size_t look(struct platter_disk *disk, struct platter_error *err)
{
    struct image *top = disk_top(disk);
    auto_free struct bitmap_info *all = NULL;
    size_t n = 0;
    uint64_t len, size = disk_size(disk);
    bool dirty;

    if (top->format->bitmaps->list(top, &all, &n, err) < 0)
        return 0;
    for (size_t i = 0; i < n && i < MOST_RUNS; i++) {
        goff off = 0;
        for (int k = 0; k < MOST_RUNS && off < size; k++, off += len) {
            if (top->format->bitmaps->map(top, all[i].name, off, size - off, &len, &dirty, NULL) <
                0)
                break;
            if (len == 0 || len > size - off)
                fuzz_found("a run of %llu bytes", (unsigned long long)len);
        }
    }
    return n;
}

static void change(struct platter_disk *disk, const uint8_t *call)
{
    const struct platter_bitmap_change c = {
        .size = sizeof c,
        .action = (enum platter_bitmap_action)(PLATTER_BITMAP_ADD + call[0] % 6),
        .name = names[call[1] % 4],
        .granularity = call[0] % 6 == 0 ? UINT64_C(1) << call[3] % 34 : 0,
        .source_name = names[call[2] % 4]};
    ops_bitmap_change(disk, &c, 1, NULL);
}

static void run_call(struct platter_disk *disk, const uint8_t *call)
{
    uint64_t size = disk_size(disk);
    uint8_t bytes[1024] = {1};
    goff off = size / 256 * call[1];
    uint64_t len = min_u64(sizeof bytes, size - off);

    switch (call[0] / 6 % 5) {
    case 0:
        disk_write(disk, bytes, len, off, NULL);
        break;
    case 1:
        disk_zero(disk, off, min_u64((uint64_t)call[2] << 16, size - off), call[3] & 1, NULL);
        break;
    case 2:
        disk_resize(disk, (uint64_t)call[1] << (9 + call[2] % 24), PLATTER_RESIZE_SHRINK,
                    PLATTER_PREALLOCATION_OFF, NULL, NULL);
        break;
    case 3:
        look(disk, NULL);
        break;
    default:
        change(disk, call);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t bytes[MOST_FILE + ROOM];
    const struct format *format = format_find("qcow2");
    size_t calls = size ? min_u64(data[0] % (MOST_CALLS + 1), (size - 1) / CALL_BYTES) : 0;
    if (size == 0 || size - 1 - calls * CALL_BYTES > MOST_FILE)
        return 0;
    const uint8_t *image = data + 1 + calls * CALL_BYTES;
    struct buffer file = {
        .bytes = bytes, .size = size - 1 - calls * CALL_BYTES, .capacity = sizeof bytes};
    memcpy(bytes, image, file.size);
    struct platter_disk *disk = fuzz_open(format, &file, true);
    if (!disk)
        return 0;
    for (size_t i = 0; i < calls; i++)
        run_call(disk, data + 1 + i * CALL_BYTES);
    struct platter_error err = {0};
    size_t before = look(disk, &err);
    if (disk_close(disk, NULL) < 0 || !(disk = fuzz_open(format, &file, false)))
        return 0;
    size_t after = look(disk, &err);
    if (after != before)
        fuzz_found("there were %zu bitmaps, and now there are %zu: %s", before, after, err.message);
    disk_close(disk, NULL);
    return 0;
}
