/* SPDX-License-Identifier: MIT */
/*
 * vast FILE: writes the VMA archive of a full disk of 1 TiB, after vma.md: the headers of its
 * extents, and holes where data would be. Clusters come in order but for some that a running
 * machine had copied early. It takes 1.2 GB of disk space.
 */
#include <fcntl.h>
#include <nettle/md5.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    CLUSTER = 65536,
    CLUSTERS = 1 << 24,
    FIXED = 12288,
    HEADER = FIXED + 512,
    EXTENT = 512,
    SLOTS = 58, /* that the writer of Proxmox VE fills */
    BLOCKS = 16,
    EARLY = 512,   /* one cluster in so many changes places */
    AWAY = 1 << 17 /* with the one so far away */
};

static const char device[] = "drive-scsi0";

static void put(uint8_t *at, unsigned n, uint64_t value)
{
    while (n--) {
        at[n] = (uint8_t)value;
        value >>= 8;
    }
}

static void seal(uint8_t *bytes, size_t len, size_t md5_at)
{
    struct md5_ctx md5;
    md5_init(&md5);
    md5_update(&md5, len, bytes);
    md5_digest(&md5, MD5_DIGEST_SIZE, bytes + md5_at);
}

static void write_at(int fd, const void *bytes, size_t len, off_t at)
{
    if (pwrite(fd, bytes, len, at) != (ssize_t)len) {
        perror("vast");
        exit(1);
    }
}

static void write_header(int fd)
{
    uint8_t h[HEADER] = "VMA";
    put(h + 4, 4, 1);
    memset(h + 8, 0x11, 16);
    put(h + 24, 8, 1700000000);
    put(h + 48, 4, FIXED);
    put(h + 52, 4, 1 + 2 + sizeof device);
    put(h + 56, 4, HEADER);
    put(h + 4096 + 32, 4, 1);
    put(h + 4096 + 32 + 8, 8, (uint64_t)CLUSTERS * CLUSTER);
    h[FIXED + 1] = sizeof device;
    memcpy(h + FIXED + 3, device, sizeof device);
    seal(h, sizeof h, 32);
    write_at(fd, h, sizeof h, 0);
}

/* Clusters first .. first + n - 1 in the order in which they come; its length in the file. */
static uint64_t write_extent(int fd, uint32_t first, unsigned n, uint64_t at)
{
    uint8_t e[EXTENT] = "VMAE";
    memset(e + 8, 0x11, 16);
    put(e + 6, 2, n * BLOCKS);
    for (unsigned i = 0; i < n; i++) {
        uint32_t c = first + i;
        if (c % EARLY == 0)
            c ^= AWAY;
        put(e + 40 + i * 8, 2, 0xffff);
        e[40 + i * 8 + 3] = 1;
        put(e + 40 + i * 8 + 4, 4, c);
    }
    seal(e, sizeof e, 24);
    write_at(fd, e, sizeof e, (off_t)at);
    return EXTENT + (uint64_t)n * CLUSTER;
}

int main(int argc, char **argv)
{
    uint64_t at = HEADER;
    int fd = argc == 2 ? open(argv[1], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666) : -1;
    if (fd < 0) {
        perror("vast FILE");
        return 1;
    }
    write_header(fd);
    for (uint32_t c = 0, n; c < CLUSTERS; c += n) {
        n = CLUSTERS - c < SLOTS ? CLUSTERS - c : SLOTS;
        at += write_extent(fd, c, n, at);
    }
    if (ftruncate(fd, (off_t)at) != 0 || close(fd) != 0) {
        perror("vast");
        return 1;
    }
    return 0;
}
