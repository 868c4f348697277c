/* SPDX-License-Identifier: MIT */
/*
 * Opens the input as a VMA archive, and maps, reads and describes the disk in it. Its first byte
 * says whether the checksums of header and extents are made right first, which no chance would
 * find.
 */
#include "format/vma/vma.h"
#include "base/ckd.h"
#include "base/cursor.h"
#include "base/hash.h"
#include "fuzz/target.h"

enum { MOST = 1 << 20, SIZE_AT = 56, HEADER_MD5_AT = 32, EXTENT_MD5_AT = 24, COUNT_AT = 6 };

static void seal(uint8_t *bytes, size_t len, size_t md5_at)
{
    uint8_t md5[16];
    memset(bytes + md5_at, 0, sizeof md5);
    hash_bytes(hash_find("md5"), bytes, len, NULL, 0, md5);
    memcpy(bytes + md5_at, md5, sizeof md5);
}

static void seal_all(uint8_t *bytes, size_t size)
{
    size_t off = size < VMA_FIXED ? 0 : get_be(bytes + SIZE_AT, 4);
    if (off < VMA_FIXED || off > size)
        return;
    seal(bytes, off, HEADER_MD5_AT);
    while (size > off && size - off >= VMA_EXTENT) {
        seal(bytes + off, VMA_EXTENT, EXTENT_MD5_AT);
        off += VMA_EXTENT + get_be(bytes + off + COUNT_AT, 2) * VMA_BLOCK;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t bytes[MOST];
    if (size == 0 || size > MOST)
        return 0;
    struct buffer file = {.bytes = bytes, .size = size - 1, .capacity = size - 1};
    memcpy(bytes, data + 1, file.size);
    if (data[0] & 1)
        seal_all(bytes, file.size);
    struct platter_disk *disk = fuzz_open(format_find("vma"), &file, false);
    if (!disk)
        return 0;
    char *json = NULL;
    if (platter_info(disk, 0, &json, NULL) == 0)
        platter_free(json);
    fuzz_read(disk);
    disk_close(disk, NULL);
    return 0;
}
