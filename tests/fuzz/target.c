/* SPDX-License-Identifier: MIT */
/* What the fuzz targets share: target.h. */
#include "fuzz/target.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/ckd.h"
#include "support/esx.h"

enum {
    MOST_EXTENTS = 512,
    MOST_BYTES = 1 << 20, /* read at all */
    PIECE = 64 << 10      /* read of one extent */
};

_Noreturn void fuzz_found(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    abort();
}

struct platter_disk *fuzz_open(const struct format *format, struct buffer *file, bool writable)
{
    struct stream *s;
    struct platter_disk *disk;
    struct platter_error err = {0};
    if (stream_buffer_open(file, "fuzz", writable, &s, NULL) != 0)
        abort();
    enum esx_kind esx = format == &format_vmdk ? esx_kind_of(file->bytes, file->size) : ESX_NONE;
    if (esx && esx_open(esx, esx_sectors(file->bytes, file->size), s, NULL, 0, writable,
                        FUZZ_MEMORY, &disk, &err) == 0)
        return disk;
    if (!esx && disk_assemble(&s, &format, 1, writable, true, FUZZ_MEMORY, NULL, &disk, &err) == 0)
        return disk;
    if (err.code <= 0 || err.message[0] == 0)
        fuzz_found("open failed without a word");
    return NULL;
}

/* Reads the start of one extent. */
static void read_some(struct platter_disk *disk, uint64_t off, uint64_t len)
{
    static uint8_t bytes[PIECE];
    struct platter_error err = {0};
    if (disk_read(disk, bytes, (size_t)min_u64(len, PIECE), off, &err) != 0 && !err.message[0])
        fuzz_found("a read failed without a word");
}

void fuzz_read(struct platter_disk *disk)
{
    uint64_t size = disk_size(disk), taken = 0, off = 0;
    for (unsigned i = 0; i < MOST_EXTENTS && off < size && taken < MOST_BYTES; i++) {
        struct disk_extent x;
        struct platter_error err = {0};
        if (disk_map(disk, off, size - off, &x, &err) != 0) {
            if (!err.message[0])
                fuzz_found("map failed without a word");
            /* Go on behind what is damaged. */
            x.e.len = min_u64(disk_top(disk)->unit, size - off);
        } else if (x.e.len == 0 || x.e.len > size - off) {
            fuzz_found("map gave an extent of %llu bytes", (unsigned long long)x.e.len);
        }
        read_some(disk, off, x.e.len);
        taken += min_u64(x.e.len, PIECE);
        off += x.e.len;
    }
    if (size > 0)
        read_some(disk, size - min_u64(size, 4096), min_u64(size, 4096));
}
