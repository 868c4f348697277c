/* SPDX-License-Identifier: MIT */
/* Opens the input as an image of FUZZ_FORMAT, and maps, reads and describes it. */
#include "fuzz/target.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buffer file = {.bytes = (uint8_t *)data, .size = size, .capacity = size};
    const struct format *format = format_find(FUZZ_FORMAT);
    if (format->probe)
        format->probe(data, size < 65536 ? size : 65536, size);
    struct platter_disk *disk = fuzz_open(format, &file, false);
    if (!disk)
        return 0;
    char *json = NULL;
    if (platter_info(disk, 0, &json, NULL) == 0)
        platter_free(json);
    if (platter_views(disk, &json, NULL) == 0)
        platter_free(json);
    fuzz_read(disk);
    disk_close(disk, NULL);
    return 0;
}
