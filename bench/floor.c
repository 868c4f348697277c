/* SPDX-License-Identifier: MIT */
/*
 * floor MODE FILE: prints the seconds that all cores together need to pack, unpack or hash the data
 * of a sparse file, in memory, with nothing around it. What a program that does more needs at
 * least.
 *
 * Only a sample of the file is taken, spread evenly over its data; the time is scaled up.
 */
#include <fcntl.h>
#include <libdeflate.h>
#include <nettle/sha2.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zstd.h>

enum {
    UNIT = 65536,         /* bytes of a block */
    ROOM = 2 * UNIT,      /* of a packed one, at most */
    MAX_BLOCKS = 1 << 13, /* of the sample: 512 MiB */
    MAX_THREADS = 64
};

struct block {
    uint8_t *plain;
    uint8_t *packed;
    size_t packed_len;
};

struct mode {
    const char *name;
    void (*work)(struct block *b);
    void (*prepare)(struct block *b); /* not timed; may be NULL */
};

static struct block blocks[MAX_BLOCKS];
static size_t n_blocks;
static atomic_size_t next_block;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void *must(void *memory)
{
    if (!memory)
        die("floor: memory");
    return memory;
}

/* Each thread keeps its contexts, as a program in earnest would; they end with the program. */
static _Thread_local struct libdeflate_compressor *deflater;
static _Thread_local struct libdeflate_decompressor *inflater;
static _Thread_local ZSTD_CCtx *zstd_packer;
static _Thread_local ZSTD_DCtx *zstd_unpacker;

static void pack_zlib(struct block *b)
{
    if (!deflater)
        deflater = must(libdeflate_alloc_compressor(1));
    b->packed_len = libdeflate_zlib_compress(deflater, b->plain, UNIT, b->packed, ROOM);
}

static void unpack_zlib(struct block *b)
{
    if (!inflater)
        inflater = must(libdeflate_alloc_decompressor());
    if (libdeflate_zlib_decompress(inflater, b->packed, b->packed_len, b->plain, UNIT, NULL) != 0)
        die("floor: inflate");
}

static void pack_zstd(struct block *b)
{
    if (!zstd_packer)
        zstd_packer = must(ZSTD_createCCtx());
    b->packed_len = ZSTD_compressCCtx(zstd_packer, b->packed, ROOM, b->plain, UNIT, 1);
}

static void unpack_zstd(struct block *b)
{
    if (!zstd_unpacker)
        zstd_unpacker = must(ZSTD_createDCtx());
    size_t n = ZSTD_decompressDCtx(zstd_unpacker, b->plain, UNIT, b->packed, b->packed_len);
    if (n != UNIT)
        die("floor: zstd");
}

static void hash(struct block *b)
{
    struct sha256_ctx context;
    sha256_init(&context);
    sha256_update(&context, UNIT, b->plain);
    sha256_digest(&context, SHA256_DIGEST_SIZE, b->packed);
}

static const struct mode modes[] = {
    {"zlib", pack_zlib, NULL},
    {"zstd", pack_zstd, NULL},
    {"unzlib", unpack_zlib, pack_zlib},
    {"unzstd", unpack_zstd, pack_zstd},
    {"sha256", hash, NULL},
};

/* Calls take() for each whole block of data in the file; returns how many there are. */
static uint64_t each_block(int fd, void (*take)(int fd, off_t off, uint64_t number))
{
    uint64_t number = 0;
    off_t end = lseek(fd, 0, SEEK_END);
    off_t at = lseek(fd, 0, SEEK_DATA);
    while (at >= 0 && at + UNIT <= end) {
        off_t hole = lseek(fd, at, SEEK_HOLE);
        for (; at + UNIT <= hole; at += UNIT, number++)
            take(fd, at, number);
        at = lseek(fd, hole, SEEK_DATA);
    }
    return number;
}

static void take_none(int fd, off_t off, uint64_t number)
{
    (void)fd, (void)off, (void)number;
}

static uint64_t sample_step = 1;

static void take_sample(int fd, off_t off, uint64_t number)
{
    if (number % sample_step != 0 || n_blocks == MAX_BLOCKS)
        return;
    struct block *b = &blocks[n_blocks++];
    b->plain = must(malloc(UNIT));
    b->packed = must(malloc(ROOM));
    memset(b->packed, 0, ROOM);
    if (pread(fd, b->plain, UNIT, off) != UNIT)
        die("floor: read");
}

static void *thread_main(void *opaque)
{
    void (*work)(struct block * b) = ((const struct mode *)opaque)->work;
    for (size_t i; (i = atomic_fetch_add(&next_block, 1)) < n_blocks;)
        work(&blocks[i]);
    return NULL;
}

static double run_threads(const struct mode *mode)
{
    pthread_t threads[MAX_THREADS];
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int n = cores < MAX_THREADS ? (int)cores : MAX_THREADS;
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (int i = 0; i < n; i++) {
        if (pthread_create(&threads[i], NULL, thread_main, (void *)(uintptr_t)mode) != 0)
            die("floor: thread");
    }
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    clock_gettime(CLOCK_MONOTONIC, &to);
    return (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9;
}

static const struct mode *find_mode(const char *name)
{
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        if (strcmp(modes[i].name, name) == 0)
            return &modes[i];
    }
    return NULL;
}

int main(int argc, char **argv)
{
    const struct mode *mode = argc == 3 ? find_mode(argv[1]) : NULL;
    if (!mode) {
        fprintf(stderr, "usage: floor zlib|zstd|unzlib|unzstd|sha256 FILE\n");
        return 2;
    }
    int fd = open(argv[2], O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        die(argv[2]);
    uint64_t all = each_block(fd, take_none);
    sample_step = all / MAX_BLOCKS + 1;
    each_block(fd, take_sample);
    close(fd);
    for (size_t i = 0; mode->prepare && i < n_blocks; i++)
        mode->prepare(&blocks[i]);
    double seconds = run_threads(mode);
    printf("%.3f\n", n_blocks ? seconds * (double)all / (double)n_blocks : 0.0);
    return 0;
}
