/* SPDX-License-Identifier: MIT */
/*
 * Checks the input as an image of FUZZ_FORMAT, repairs it, and checks it again: what a repair left
 * without errors must open, and must have none when it is looked at again.
 */
#include "base/memory.h"
#include "fuzz/target.h"

enum { ROOM = 8 << 20 };

static int check(struct buffer *file, bool mend, struct platter_check_result *ret)
{
    const struct format *format = format_find(FUZZ_FORMAT);
    struct check c = {.mend_all = mend, .mend_leaks = mend};
    struct platter_error err = {0};
    struct stream *s;
    struct platter_disk *disk;
    if (stream_buffer_open(file, "fuzz", mend, &s, NULL) != 0)
        abort();
    int r = disk_assemble_for_check(s, format, mend, FUZZ_MEMORY, NULL, &disk, &err);
    if (r == 0) {
        r = format->check(disk_top(disk), &c, &err);
        int closed = disk_close(disk, NULL);
        r = r < 0 ? r : closed;
    }
    if (r < 0 && !err.message[0])
        fuzz_found("a check failed without a word");
    *ret = c.result;
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buffer given = {.bytes = (uint8_t *)data, .size = size, .capacity = size};
    struct platter_check_result before, mended, after;
    int r = check(&given, false, &before);
    struct buffer file = buffer_copy(&given, size + ROOM);
    int repaired = check(&file, true, &mended);
    if (r == 0 && repaired == 0 && !mended.corruptions && !mended.check_errors) {
        if (check(&file, false, &after) < 0 || after.corruptions)
            fuzz_found("%llu errors were mended, but %llu are there",
                       (unsigned long long)mended.corruptions_fixed,
                       (unsigned long long)after.corruptions);
    }
    buffer_free(&file);
    return 0;
}
