/* SPDX-License-Identifier: MIT */
/* The images of the model test: cases.h. */
#include "model/cases.h"

#include "base/ckd.h"
#include "base/cursor.h"
#include "base/memory.h"
#include "support/buffer.h"
#include "support/must.h"
#include "support/process.h"

enum { KIB = 1024, MIB = 1024 * KIB, STAMP_BELOW = 0x7ffffff1 };

/* Three of four runs of 48 sectors hold something. */
static struct buffer pattern(uint64_t size)
{
    struct buffer b = buffer_new(round_up(size, SECTOR));
    for (uint64_t sector = 0; sector < b.capacity / SECTOR; sector++) {
        if (sector / 48 % 4 != 3)
            ledger_stamp(b.bytes + sector * SECTOR, STAMP_BELOW, sector, 1);
    }
    b.size = size;
    return b;
}

/* An image that holds the pattern, by qemu-img. */
static void convert_pattern(const struct buffer *b, const char *path, const char *format,
                            const char *option, bool packed)
{
    auto_free char *raw = scratch_path("pattern");
    buffer_save(b, raw);
    int fine = packed && strcmp(format, "qcow") == 0; /* qemu-img answers 1 when that is done */
    MUST(run_command(fine, "qemu-img convert -f raw %s -O %s %s '%s' '%s'", packed ? "-c" : "",
                     format, option, raw, path) == fine);
}

int case_key(void *opaque, const struct platter_secret *question, uint8_t *ret, size_t *ret_len)
{
    const struct model_case *of = opaque;
    (void)question;
    *ret_len = strlen(of->key);
    memcpy(ret, of->key, *ret_len);
    return 0;
}

/* A new image gets other tables: qcow.md sections 2 and 3. */
static void reshape_qcow(const struct model_case *of, const char *path)
{
    unsigned shift = of->cluster_bits + of->l2_bits;
    struct buffer b = buffer_load(path, MIB);
    uint64_t end = get_be(b.bytes + 40, 8) + ((of->size + (1u << shift) - 1) >> shift) * 8;
    b.bytes[32] = (uint8_t)of->cluster_bits;
    b.bytes[33] = (uint8_t)of->l2_bits;
    MUST(end <= b.capacity);
    b.size = max_u64(b.size, end);
    buffer_save(&b, path);
    buffer_free(&b);
}

static void create(const struct model_case *of, const char *path, uint64_t size)
{
    struct platter_error err = {0};
    struct platter_create_options options = {.size = sizeof options,
                                             .format = of->format,
                                             .has_disk_size = true,
                                             .disk_size = size,
                                             .options = of->options,
                                             .backing = of->backing ? "model.below" : NULL,
                                             .backing_format = of->backing,
                                             .secret = of->key ? case_key : NULL,
                                             .secret_opaque = (void *)(uintptr_t)of};
    int r = platter_create(path, &options, &err);
    if (r == 0 && of->cluster_bits)
        reshape_qcow(of, path);
    if (r == 0)
        return;
    fprintf(stderr, "%s: create: %s\n", of->name, err.message);
    exit(1);
}

static char *piece_path(unsigned n)
{
    auto_free char *name = string_format("model.piece%u", n);
    MUST(name);
    return scratch_path(name);
}

static uint32_t cid_below(const struct model_case *of)
{
    if (!of->backing)
        return UINT32_MAX;
    auto_free char *below = scratch_path("model.below");
    struct buffer b = buffer_load(below, 0);
    uint32_t cid = esx_cid_of(&b);
    buffer_free(&b);
    return cid;
}

/* Several extents, and a descriptor that lists them. Without a backing file each third is flat. */
static void make_pieces(const struct model_case *of, const char *path)
{
    char text[4096];
    snprintf(text, sizeof text,
             "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=%08x\n"
             "createType=\"twoGbMaxExtentSparse\"\n%s",
             cid_below(of), of->backing ? "parentFileNameHint=\"model.below\"\n" : "");
    for (unsigned n = 0; n * of->piece < of->size; n++) {
        uint64_t size = min_u64(of->piece, of->size - n * of->piece);
        bool flat = !of->backing && n % 3 == 2;
        auto_free char *piece = piece_path(n);
        if (flat)
            MUST(run_command(0, "rm -f '%s'; truncate -s %llu '%s'", piece,
                             (unsigned long long)size, piece) == 0);
        else
            create(of, piece, size);
        size_t used = strlen(text);
        snprintf(text + used, sizeof text - used, "RW %llu %s \"model.piece%u\"%s\n",
                 (unsigned long long)size / SECTOR, flat ? "FLAT" : "SPARSE", n, flat ? " 0" : "");
    }
    struct buffer descriptor = {.bytes = (uint8_t *)text, .size = strlen(text)};
    buffer_save(&descriptor, path);
}

/* A seSparse file must hold something, or it takes nothing. */
static void make_esx(const struct model_case *of, const char *path, const uint8_t *flat)
{
    auto_free char *extent = case_data(of, path, 0);
    auto_free char *text = esx_descriptor(of->esx, of->size / SECTOR, "model.extent",
                                          of->backing ? "model.below" : NULL, cid_below(of));
    MUST(text);
    struct buffer descriptor = {.bytes = (uint8_t *)text, .size = strlen(text)};
    buffer_save(&descriptor, path);
    struct buffer data =
        esx_make(of->esx, of->size, of->grain, flat, of->esx == ESX_SESPARSE ? 4 * KIB : 0);
    buffer_save(&data, extent);
    buffer_free(&data);
}

void case_make(const struct model_case *of, const char *path, uint8_t *flat)
{
    bool own = of->packed && !of->backing;
    if (own || of->backing) {
        struct buffer b = pattern(own ? of->size : of->backing_size);
        auto_free char *below = scratch_path("model.below");
        auto_free char *option = string_format("%s%s", own && of->options ? "-o " : "",
                                               own && of->options ? of->options : "");
        MUST(option);
        convert_pattern(&b, own ? path : below, own ? of->format : of->backing, option, of->packed);
        memcpy(flat, b.bytes, min_u64(b.size, of->size));
        buffer_free(&b);
    }
    if (of->esx)
        make_esx(of, path, flat);
    else if (of->piece)
        make_pieces(of, path);
    else if (!own)
        create(of, path, of->size);
}

char *case_data(const struct model_case *of, const char *path, unsigned n)
{
    unsigned piece = of->backing ? n : n + n / 2;
    char *name = NULL;
    if (of->options && strstr(of->options, "Flat"))
        return NULL;
    if (of->piece && piece * of->piece < of->size)
        name = piece_path(piece);
    else if (of->piece || n > 0)
        return NULL;
    else
        name = of->esx ? scratch_path("model.extent") : string_copy(path);
    MUST(name);
    return name;
}

#define QCOW2(case_name, case_options, case_size, case_cluster, ...)                               \
    {                                                                                              \
        .name = "qcow2-" case_name, .format = "qcow2", .options = case_options, .size = case_size, \
        .cluster = case_cluster, ##__VA_ARGS__                                                     \
    }
#define VMDK(case_name, case_options, case_size, ...)                                              \
    {                                                                                              \
        .name = "vmdk-" case_name, .format = "vmdk", .options = case_options, .size = case_size,   \
        .cluster = 64 * KIB, ##__VA_ARGS__                                                         \
    }
#define ESX(case_name, case_kind, case_grain, case_size, ...)                                      \
    {                                                                                              \
        .name = "esx-" case_name, .format = "vmdk", .esx = case_kind, .grain = case_grain,         \
        .size = case_size, .cluster = case_grain * SECTOR, ##__VA_ARGS__                           \
    }
#define QCOW(case_name, case_size, case_bits, case_l2_bits, ...)                                   \
    {                                                                                              \
        .name = "qcow-" case_name, .format = "qcow", .size = case_size,                            \
        .cluster = 1u << case_bits, .cluster_bits = case_bits, .l2_bits = case_l2_bits,            \
        ##__VA_ARGS__                                                                              \
    }
#define OVER(case_backing, case_backing_size)                                                      \
    .backing = case_backing, .backing_size = case_backing_size

const struct model_case model_cases[] = {
    {.name = "raw", .format = "raw", .size = 3 * MIB + 512, .cluster = 4 * KIB},
    QCOW2("512", "cluster_size=512", 2 * MIB, 512),
    QCOW2("512-little-memory", "cluster_size=512,refcount_bits=64", 4 * MIB, 512,
          .memory_limit = 256 * KIB),
    QCOW2("4k-v2", "cluster_size=4k,compat=0.10", 4 * MIB + 512, 4 * KIB),
    QCOW2("4k-v2-over-raw", "cluster_size=4k,compat=0.10", 4 * MIB, 4 * KIB,
          OVER("raw", 3 * MIB + 1536)),
    QCOW2("4k-1-bit", "cluster_size=4k,refcount_bits=1", 4 * MIB, 4 * KIB),
    QCOW2("4k-2-bit-over-packed", "cluster_size=4k,refcount_bits=2", 4 * MIB, 4 * KIB,
          OVER("qcow2", 4 * MIB), .packed = true),
    QCOW2("4k-4-bit-over-longer", "cluster_size=4k,refcount_bits=4", 3 * MIB, 4 * KIB,
          OVER("qcow2", 5 * MIB)),
    QCOW2("4k-8-bit-little-memory", "cluster_size=4k,refcount_bits=8", 8 * MIB, 4 * KIB,
          OVER("qcow2", 5 * MIB), .packed = true, .memory_limit = 512 * KIB),
    QCOW2("4k-32-bit", "cluster_size=4k,refcount_bits=32", 4 * MIB + 1536, 4 * KIB),
    QCOW2("4k-64-bit-preallocated", "cluster_size=4k,refcount_bits=64,preallocation=metadata",
          4 * MIB, 4 * KIB),
    QCOW2("4k-packed", "cluster_size=4k", 4 * MIB, 4 * KIB, .packed = true),
    QCOW2("64k", "lazy_refcounts=on", 12 * MIB + 512, 64 * KIB),
    QCOW2("64k-packed", NULL, 12 * MIB + 512, 64 * KIB, .packed = true),
    QCOW2("64k-packed-zstd", "compression_type=zstd", 12 * MIB, 64 * KIB, .packed = true),
    QCOW2("64k-over-shorter", NULL, 12 * MIB, 64 * KIB, OVER("raw", 5 * MIB + 512)),
    QCOW2("64k-falloc", "preallocation=falloc", 8 * MIB, 64 * KIB),
    QCOW2("64k-full", "preallocation=full", 8 * MIB, 64 * KIB),
    QCOW2("2m", "cluster_size=2M", 24 * MIB + 512, 2 * MIB),
    QCOW2("2m-over-packed", "cluster_size=2M", 16 * MIB, 2 * MIB, OVER("qcow2", 9 * MIB),
          .packed = true),
    QCOW2("extended", "cluster_size=64k,extended_l2=on", 12 * MIB + 512, 64 * KIB),
    QCOW2("extended-over-raw", "cluster_size=16k,extended_l2=on", 8 * MIB, 16 * KIB,
          OVER("raw", 6 * MIB + 512)),
    QCOW2("extended-over-packed", "cluster_size=128k,extended_l2=on", 12 * MIB, 128 * KIB,
          OVER("qcow2", 12 * MIB), .packed = true),
    QCOW2("extended-preallocated", "cluster_size=32k,extended_l2=on,preallocation=metadata",
          8 * MIB, 32 * KIB, OVER("qcow2", 8 * MIB)),
    {.name = "qcow-as-created", .format = "qcow", .size = 6 * MIB + 512, .cluster = 4 * KIB},
    {.name = "qcow-overlay-as-created",
     .format = "qcow",
     .size = 4 * MIB,
     .cluster = 512,
     OVER("raw", 3 * MIB + 1536)},
    QCOW("512", 2 * MIB, 9, 6),
    QCOW("512-little-memory", 4 * MIB, 9, 6, .memory_limit = 256 * KIB),
    {.name = "qcow-packed", .format = "qcow", .size = 6 * MIB, .cluster = 4 * KIB, .packed = true},
    QCOW("8k-over-packed", 6 * MIB + 512, 13, 7, OVER("qcow", 5 * MIB), .packed = true),
    QCOW("64k-over-shorter", 12 * MIB, 16, 13, OVER("raw", 5 * MIB + 512)),
    QCOW("64k-over-longer", 3 * MIB + 1536, 16, 6, OVER("qcow2", 5 * MIB)),
    QCOW("4k-aes", 4 * MIB + 512, 12, 9, .options = "encrypt.format=aes",
         .key = "a passphrase that is longer than the key"),
    QCOW("16k-aes-over-raw", 6 * MIB, 14, 6, .options = "encryption=on", .key = "short",
         OVER("raw", 5 * MIB + 512)),
    VMDK("sparse", "subformat=monolithicSparse", 36 * MIB + 512),
    VMDK("zeroed-grain", "subformat=monolithicSparse,zeroed_grain=on", 8 * MIB + 1536),
    VMDK("over-vmdk", "subformat=monolithicSparse", 8 * MIB, OVER("vmdk", 6 * MIB)),
    VMDK("zeroed-grain-over-vmdk", "subformat=monolithicSparse,zeroed_grain=on", 8 * MIB,
         OVER("vmdk", 8 * MIB)),
    VMDK("pieces", "subformat=monolithicSparse", 5 * MIB + 512, .piece = 640 * KIB),
    VMDK("pieces-askew", "subformat=monolithicSparse", 5 * MIB + 512, .piece = 1407 * SECTOR,
         .askew = true),
    VMDK("pieces-askew-over-vmdk", "subformat=monolithicSparse,zeroed_grain=on", 5 * MIB + 512,
         .piece = 1375 * SECTOR, OVER("vmdk", 4 * MIB), .askew = true),
    VMDK("pieces-zeroed-grain", "subformat=monolithicSparse,zeroed_grain=on", 8 * MIB,
         .piece = 3 * MIB),
    VMDK("flat", "subformat=monolithicFlat", 3 * MIB + 512),
    VMDK("little-memory", "subformat=monolithicSparse", 36 * MIB, .memory_limit = 256 * KIB),
    ESX("cowd", ESX_COWD, 1, 5 * MIB + 512),
    ESX("cowd-over-vmdk", ESX_COWD, 1, 5 * MIB, OVER("vmdk", 3 * MIB)),
    ESX("cowd-3-sectors-over-vmdk", ESX_COWD, 3, 5 * MIB, OVER("vmdk", 3 * MIB)),
    ESX("cowd-64k-over-vmdk", ESX_COWD, 128, 8 * MIB + 1536, OVER("vmdk", 8 * MIB + 1536)),
    ESX("cowd-little-memory", ESX_COWD, 1, 40 * MIB, .memory_limit = 256 * KIB),
    ESX("sesparse", ESX_SESPARSE, 8, 34 * MIB),
    ESX("sesparse-over-vmdk", ESX_SESPARSE, 8, 18 * MIB, OVER("vmdk", 17 * MIB)),
    {.name = NULL},
};
