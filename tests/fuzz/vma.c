/* SPDX-License-Identifier: MIT */
/*
 * Opens the input as a VMA archive, and maps, reads and describes the disk in it. Its first byte
 * says whether the checksums of header and extents are made right first, which no chance would
 * find.
 */
#include "fuzz/target.h"
#include "fuzz/vma_seal.h"

enum { MOST = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t bytes[MOST];
    if (size == 0 || size > MOST)
        return 0;
    struct buffer file = {.bytes = bytes, .size = size - 1, .capacity = size - 1};
    memcpy(bytes, data + 1, file.size);
    if (data[0] & 1)
        vma_seal_all(bytes, file.size);
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
