/* SPDX-License-Identifier: MIT */
/*
 * Salvages of streams of which something is missing, where allocation N fails, or there is less
 * memory than all would take: then it says so, and nothing reads as other than it was.
 */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/memory.h"
#include "disk/disk.h"
#include "support/alloc.h"
#include "support/must.h"
#include "support/process.h"

enum { GRAIN = 65536, GRAINS = 40, SIZE = GRAINS * GRAIN, MOST = 100000 };

static uint8_t content[SIZE];

/* Text-like grains with holes between them. */
static void make_content(void)
{
    for (unsigned i = 0; i < SIZE; i++)
        content[i] = i / GRAIN % 3 == 1 ? 0 : (uint8_t)("salvage "[i % 8] + i / 4096 % 40);
}

/* A stream of the content, without its last `cut` bytes and without its header where asked. */
static int make_stream(off_t cut, bool headless)
{
    struct platter_error err = {0};
    auto_free char *raw = scratch_path("raw");
    auto_free char *image = scratch_path("image");
    FILE *f = fopen(raw, "wb");
    MUST(f && fwrite(content, 1, SIZE, f) == SIZE && fclose(f) == 0);
    struct platter_open_options open = {.size = sizeof open, .format = "raw"};
    struct platter_convert_options convert = {
        .size = sizeof convert, .format = "vmdk", .options = "subformat=streamOptimized"};
    struct platter_disk *disk;
    MUST(platter_open(raw, &open, &disk, &err) == 0);
    MUST(platter_convert(&disk, 1, image, &convert, NULL, &err) == 0);
    MUST(platter_close(disk, NULL) == 0);
    f = fopen(image, "rb");
    int fd = memfd_create("stream", MFD_CLOEXEC);
    MUST(f && fd >= 0);
    for (int c; (c = getc(f)) != EOF;) {
        uint8_t byte = (uint8_t)c;
        MUST(write(fd, &byte, 1) == 1);
    }
    MUST(ftruncate(fd, lseek(fd, 0, SEEK_END) - cut) == 0);
    static const uint8_t zeros[512];
    MUST(!headless || pwrite(fd, zeros, sizeof zeros, 0) == sizeof zeros);
    fclose(f);
    unlink(raw);
    unlink(image);
    return fd;
}

/* Opens and reads all of it. 0, or what failed, which must be memory. */
static int salvage(const char *name, uint64_t memory)
{
    struct platter_error err = {0};
    struct platter_open_options options = {.size = sizeof options,
                                           .flags = PLATTER_OPEN_SALVAGE | PLATTER_OPEN_NO_LOCK,
                                           .format = "vmdk",
                                           .memory_limit = memory};
    struct platter_disk *disk;
    static uint8_t grain[GRAIN];
    int r = platter_open(name, &options, &disk, &err);
    if (r == 0) {
        MUST(platter_size(disk) == SIZE);
        for (uint64_t off = 0; off < SIZE && r == 0; off += GRAIN) {
            r = platter_pread(disk, grain, GRAIN, off, &err);
            MUST(r < 0 || memcmp(grain, content + off, GRAIN) == 0);
        }
        platter_close(disk, NULL);
    }
    if (r < 0 && (r != -ENOMEM || err.message[0] == 0)) {
        fprintf(stderr, "%d: %s\n", r, err.message);
        MUST(false);
    }
    return r;
}

static void check(const char *what, int fd)
{
    auto_free char *name = string_format("/proc/self/fd/%d", fd);
    MUST(name && salvage(name, 0) == 0);
    unsigned failed = 0;
    for (uint64_t at = 1;; at++) {
        MUST(at < MOST);
        alloc_fail_at(at, false);
        failed += salvage(name, 0) < 0;
        bool struck = alloc_failed() > 0;
        alloc_fail_at(0, false);
        if (!struck)
            break;
    }
    uint64_t least = 4096;
    while (salvage(name, least) < 0)
        least += 65536;
    printf("%s: %u allocations failed; %llu KiB are enough\n", what, failed,
           (unsigned long long)least >> 10);
    MUST(failed > 0 && least > 65536 && least < 8 << 20);
    close(fd);
}

int main(void)
{
    make_content();
    check("whole", make_stream(0, false));
    check("no footer", make_stream(3 * 512, false));
    check("no directory", make_stream(6 * 512, false));
    check("no header", make_stream(0, true));
    return 0;
}
