/* SPDX-License-Identifier: MIT */
/*
 * Opens the input as a VMDK or VMA twice: as it is, and for a salvage. Where the one reads the
 * other must have the same; but for VMDKs with second tables, from which a salvage takes what the
 * first ones leave out.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "base/memory.h"
#include "fuzz/target.h"
#include "support/must.h"

enum { PIECE = 4096, MOST = 1 << 20, FLAGS_AT = 8, REDUNDANT = 2 };

static struct platter_disk *open_as(const char *name, unsigned flags)
{
    struct platter_open_options options = {.size = sizeof options,
                                           .flags = flags | PLATTER_OPEN_NO_LOCK |
                                                    PLATTER_OPEN_NO_BACKING,
                                           .format = FUZZ_FORMAT,
                                           .memory_limit = FUZZ_MEMORY};
    struct platter_disk *disk = NULL;
    struct platter_error err = {0};
    if (disk_open(name, &options, &disk, &err) != 0 && (err.code <= 0 || err.message[0] == 0))
        fuzz_found("open failed without a word");
    return disk;
}

static void compare(struct platter_disk *plain, struct platter_disk *salvage)
{
    static uint8_t a[PIECE], b[PIECE];
    uint64_t size = min_u64(disk_size(plain), MOST);
    if (disk_size(plain) != disk_size(salvage))
        fuzz_found("a salvage has another size");
    for (uint64_t off = 0, n; off < size; off += n) {
        n = min_u64(PIECE, size - off);
        if (disk_read(plain, a, (size_t)n, off, NULL) != 0)
            continue;
        if (disk_read(salvage, b, (size_t)n, off, NULL) != 0)
            fuzz_found("what reads is lost in a salvage at %llu", (unsigned long long)off);
        if (memcmp(a, b, (size_t)n) != 0)
            fuzz_found("a salvage reads otherwise at %llu", (unsigned long long)off);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    MUST(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    auto_free char *name = string_format("/proc/self/fd/%d", fd);
    struct platter_disk *plain = open_as(name, 0);
    struct platter_disk *salvage = open_as(name, PLATTER_OPEN_SALVAGE);
    bool redundant = strcmp(FUZZ_FORMAT, "vmdk") == 0 && size >= FLAGS_AT + 4 &&
                     (get_le(data + FLAGS_AT, 4) & REDUNDANT);
    if (plain && salvage && !redundant)
        compare(plain, salvage);
    if (salvage)
        fuzz_read(salvage);
    disk_close(plain, NULL);
    disk_close(salvage, NULL);
    close(fd);
    return 0;
}
