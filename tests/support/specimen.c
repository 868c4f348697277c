/* SPDX-License-Identifier: MIT */
/* Images to work on: specimen.h. */
#include "support/specimen.h"

#include "base/cursor.h"
#include "base/secret.h"
#include "support/must.h"
#include "support/process.h"

enum {
    KIB = 1024,
    STAMP_BACKING = 0x7ffffff1, /* numbers no ledger gives out */
    STAMP_FILLED = 0x7ffffff2,
    SPARE = 24 << 20 /* room for a file to grow */
};

/* Three of four runs of 16 sectors hold something. */
static void fill_pattern(uint8_t *out, uint64_t bytes, uint32_t stamp)
{
    for (uint64_t sector = 0; sector < bytes / SECTOR; sector++) {
        if (sector / 16 % 4 != 3)
            ledger_stamp(out + sector * SECTOR, stamp, sector, 1);
    }
}

static char *as_option(const char *key, const char *value)
{
    char *text = value ? string_format("%s '%s'", key, value) : string_copy("");
    MUST(text);
    return text;
}

/* Makes `path` hold the first `bytes` of content, in any format. */
static void convert_content(const uint8_t *content, uint64_t bytes, const char *path,
                            const char *format, bool packed, const char *options)
{
    auto_free char *flat = scratch_path("flat");
    struct buffer b = {.bytes = (uint8_t *)content, .size = bytes};
    buffer_save(&b, flat);
    int fine = packed && strcmp(format, "qcow") == 0; /* qemu-img answers 1 when that is done */
    MUST(run_command(fine, "qemu-img convert %s -f raw -O %s %s '%s' '%s'", packed ? "-c" : "",
                     format, options, flat, path) == fine);
}

static void make_backing(struct specimen *s)
{
    const struct specimen_spec *spec = s->spec;
    auto_free uint8_t *content = calloc(1, spec->backing_size);
    MUST(content);
    fill_pattern(content, spec->backing_size, STAMP_BACKING);
    auto_free char *path = scratch_path("backing");
    /* Small clusters, so that those of top and backing do not line up. */
    bool qcow2 = strcmp(spec->backing, "qcow2") == 0;
    convert_content(content, spec->backing_size, path, spec->backing, spec->backing_packed,
                    qcow2 ? "-o cluster_size=4k" : "");
    s->backing = buffer_load(path, 0);
    uint64_t seen = spec->size < spec->backing_size ? spec->size : spec->backing_size;
    memcpy(s->content, content, seen);
}

/* Room for all that is going to be written, never zeroed. */
static void extend_with_garbage(struct specimen *s)
{
    uint64_t old = s->top.size, size = old + s->spec->size * 3 / 2;
    struct buffer larger = buffer_copy(&s->top, size);
    larger.size = size;
    memset(larger.bytes + old, 0xe5, size - old);
    buffer_free(&s->top);
    s->top = larger;
}

/* vmdk.md section 4.5: readers take an empty directory for an empty disk. */
static void empty_directories(struct buffer *b)
{
    for (unsigned at = 48; at <= 56; at += 8)
        put_le(b->bytes + get_le(b->bytes + at, 8) * SECTOR, 4, 0);
}

/* A new image gets other tables: qcow.md sections 2 and 3. */
static void reshape_qcow(struct specimen *s)
{
    const struct specimen_spec *spec = s->spec;
    unsigned shift = spec->cluster_bits + spec->l2_bits;
    uint64_t l1 = get_be(s->top.bytes + 40, 8), n = (spec->size + (1u << shift) - 1) >> shift;
    s->top.bytes[32] = (uint8_t)spec->cluster_bits;
    s->top.bytes[33] = (uint8_t)spec->l2_bits;
    struct buffer larger = buffer_copy(&s->top, l1 + n * 8 + s->top.size);
    if (larger.size < l1 + n * 8)
        larger.size = l1 + n * 8;
    buffer_free(&s->top);
    s->top = larger;
}

static void make_esx(struct specimen *s)
{
    const struct specimen_spec *spec = s->spec;
    if (spec->filled)
        fill_pattern(s->content, spec->filled, STAMP_FILLED);
    s->top = esx_make(spec->esx, spec->size, spec->grain, s->content, spec->filled);
}

static void make_top(struct specimen *s)
{
    const struct specimen_spec *spec = s->spec;
    auto_free char *path = scratch_path("top");
    auto_free char *options = as_option("-o", spec->options);
    if (spec->key) {
        free(options);
        options = string_format("--object secret,id=s,data=%s -o encrypt.format=aes,"
                                "encrypt.key-secret=s",
                                spec->key);
    }
    MUST(options);
    auto_free char *below = string_copy("");
    if (spec->backing) {
        free(below);
        below = string_format("-b backing -F %s", spec->backing);
    }
    MUST(below);
    if (spec->filled) {
        fill_pattern(s->content, spec->filled, STAMP_FILLED);
        convert_content(s->content, spec->size, path, spec->format, spec->packed, options);
    } else {
        MUST(run_command(0, "qemu-img create -f %s %s %s '%s' %llu", spec->format, options, below,
                         path, (unsigned long long)spec->size) == 0);
    }
    if (spec->snapshot)
        MUST(run_command(0, "qemu-img snapshot -c before '%s'", path) == 0);
    s->top = buffer_load(path, 0);
    if (spec->cluster_bits)
        reshape_qcow(s);
    if (spec->no_tables)
        empty_directories(&s->top);
    if (spec->device)
        extend_with_garbage(s);
}

struct specimen specimen_make(const struct specimen_spec *spec)
{
    struct specimen s = {.spec = spec, .content = calloc(1, spec->size)};
    MUST(s.content);
    if (spec->backing)
        make_backing(&s);
    if (spec->esx)
        make_esx(&s);
    else
        make_top(&s);
    struct stream *top;
    struct platter_disk *disk;
    struct platter_error err = {0};
    MUST(stream_buffer_open(&s.top, "top", false, &top, NULL) == 0);
    if (specimen_open(&s, top, false, &disk, &err) != 0) {
        fprintf(stderr, "%s: %s\n", spec->name, err.message);
        exit(1);
    }
    s.cluster = disk_top(disk)->unit;
    disk_close(disk, NULL);
    return s;
}

void specimen_free(struct specimen *s)
{
    buffer_free(&s->top);
    buffer_free(&s->backing);
    free(s->content);
}

static int open_esx(const struct specimen *s, struct stream *top, bool writable,
                    struct platter_disk **ret, struct platter_error *err)
{
    const struct specimen_spec *spec = s->spec;
    struct stream *backing = NULL;
    uint32_t cid = 0;
    if (spec->backing) {
        int r = stream_buffer_open((struct buffer *)&s->backing, "backing", false, &backing, err);
        if (r != 0) {
            stream_close(top);
            return r;
        }
        cid = esx_cid_of(&s->backing);
    }
    return esx_open(spec->esx, spec->size / SECTOR, top, backing, cid, writable, spec->memory_limit,
                    ret, err);
}

/* Tells the key of an encrypted specimen. */
struct key_teller {
    struct name_opener opener;
    const char *key;
};

static int tell_key(const struct name_opener *opener, const struct platter_secret *question,
                    struct secret *ret, struct platter_error *err)
{
    (void)question, (void)err;
    const char *key = container_of(opener, const struct key_teller, opener)->key;
    ret->len = strlen(key);
    memcpy(ret->bytes, key, ret->len);
    return 0;
}

int specimen_open(const struct specimen *s, struct stream *top, bool writable,
                  struct platter_disk **ret, struct platter_error *err)
{
    const struct specimen_spec *spec = s->spec;
    if (spec->esx)
        return open_esx(s, top, writable, ret, err);
    struct stream *streams[2] = {top};
    const struct format *formats_of[2] = {format_find(spec->format)};
    unsigned n = 1;
    if (spec->backing) {
        /* The disk only reads it. */
        int r =
            stream_buffer_open((struct buffer *)&s->backing, "backing", false, &streams[1], err);
        if (r != 0) {
            stream_close(top);
            return r;
        }
        formats_of[n++] = format_find(spec->backing);
    }
    const struct key_teller teller = {.opener = {.secret = tell_key}, .key = spec->key};
    return disk_assemble(streams, formats_of, n, writable, true, spec->memory_limit,
                         spec->key ? &teller.opener : NULL, ret, err);
}

int specimen_read(const struct specimen *s, struct platter_disk *disk, uint8_t *ret_content,
                  struct platter_error *err)
{
    enum { PIECE = 96 * KIB };
    int r = 0;
    for (uint64_t off = 0; r == 0 && off < s->spec->size; off += PIECE) {
        uint64_t left = s->spec->size - off;
        r = disk_read(disk, ret_content + off, left < PIECE ? left : PIECE, off, err);
    }
    return r;
}

const struct specimen_spec specimens[] = {
    {.name = "raw", .format = "raw", .size = 512 * KIB, .filled = 256 * KIB},
    {.name = "qcow2-512", .format = "qcow2", .options = "cluster_size=512", .size = 512 * KIB},
    {.name = "qcow2-512-table-growth",
     .format = "qcow2",
     .options = "cluster_size=512,refcount_bits=64",
     .device = true,
     .size = 4096 * KIB},
    {.name = "qcow2-512-long-table",
     .format = "qcow2",
     .options = "cluster_size=512,refcount_bits=64",
     .size = 1280 * KIB},
    {.name = "qcow2-512-over-packed",
     .format = "qcow2",
     .options = "cluster_size=512,refcount_bits=1",
     .size = 512 * KIB,
     .backing = "qcow2",
     .backing_size = 300 * KIB,
     .backing_packed = true},
    {.name = "qcow2-512-packed",
     .format = "qcow2",
     .options = "cluster_size=512",
     .device = true,
     .size = 512 * KIB,
     .filled = 128 * KIB,
     .packed = true},
    {.name = "qcow2-4k-over-raw",
     .format = "qcow2",
     .options = "cluster_size=4k,refcount_bits=2",
     .size = 1024 * KIB,
     .backing = "raw",
     .backing_size = 1536 * KIB},
    {.name = "qcow2-4k-packed",
     .format = "qcow2",
     .options = "cluster_size=4k",
     .size = 1024 * KIB,
     .filled = 768 * KIB,
     .packed = true},
    {.name = "qcow2-64k-packed-zstd",
     .format = "qcow2",
     .options = "cluster_size=64k,compression_type=zstd",
     .device = true,
     .size = 1024 * KIB,
     .filled = 512 * KIB,
     .packed = true},
    {.name = "qcow2-extended",
     .format = "qcow2",
     .options = "cluster_size=16k,extended_l2=on",
     .device = true,
     .size = 1024 * KIB,
     .backing = "qcow2",
     .backing_size = 900 * KIB},
    {.name = "qcow2-extended-preallocated",
     .format = "qcow2",
     .options = "cluster_size=16k,extended_l2=on,preallocation=metadata",
     .size = 1024 * KIB,
     .backing = "raw",
     .backing_size = 1024 * KIB},
    {.name = "qcow2-v2",
     .format = "qcow2",
     .options = "cluster_size=1k,compat=0.10",
     .device = true,
     .size = 512 * KIB},
    {.name = "qcow2-v2-over-raw",
     .format = "qcow2",
     .options = "cluster_size=1k,compat=0.10",
     .device = true,
     .size = 512 * KIB,
     .backing = "raw",
     .backing_size = 512 * KIB},
    {.name = "qcow2-preallocated",
     .format = "qcow2",
     .options = "cluster_size=4k,preallocation=metadata",
     .size = 512 * KIB},
    {.name = "qcow2-lazy",
     .format = "qcow2",
     .options = "cluster_size=4k,lazy_refcounts=on,refcount_bits=4",
     .size = 512 * KIB},
    {.name = "qcow2-snapshot",
     .format = "qcow2",
     .options = "cluster_size=4k,refcount_bits=8",
     .size = 512 * KIB,
     .filled = 256 * KIB,
     .snapshot = true},
    {.name = "qcow2-snapshot-packed",
     .format = "qcow2",
     .options = "cluster_size=4k",
     .device = true,
     .size = 512 * KIB,
     .filled = 256 * KIB,
     .packed = true,
     .snapshot = true},
    {.name = "qcow2-little-memory",
     .format = "qcow2",
     .options = "cluster_size=512",
     .size = 1024 * KIB,
     .backing = "qcow2",
     .backing_size = 512 * KIB,
     .backing_packed = true,
     .memory_limit = 256 * KIB},
    {.name = "qcow-4k", .format = "qcow", .size = 5120 * KIB},
    {.name = "qcow-4k-filled", .format = "qcow", .size = 1024 * KIB, .filled = 512 * KIB},
    {.name = "qcow-packed",
     .format = "qcow",
     .size = 1024 * KIB,
     .filled = 768 * KIB,
     .packed = true},
    {.name = "qcow-over-raw",
     .format = "qcow",
     .size = 512 * KIB,
     .backing = "raw",
     .backing_size = 300 * KIB},
    {.name = "qcow-16k-over-packed",
     .format = "qcow",
     .cluster_bits = 14,
     .l2_bits = 6,
     .size = 2560 * KIB,
     .backing = "qcow",
     .backing_size = 2048 * KIB,
     .backing_packed = true},
    {.name = "qcow-64k-over-raw",
     .format = "qcow",
     .cluster_bits = 16,
     .l2_bits = 13,
     .size = 1024 * KIB + 512,
     .backing = "raw",
     .backing_size = 1536 * KIB},
    {.name = "qcow-512-little-memory",
     .format = "qcow",
     .cluster_bits = 9,
     .l2_bits = 6,
     .size = 1024 * KIB,
     .memory_limit = 256 * KIB},
    {.name = "qcow-encrypted",
     .format = "qcow",
     .key = "hello-0123456789-longpass",
     .size = 1024 * KIB,
     .filled = 256 * KIB},
    {.name = "qcow-encrypted-over-raw",
     .format = "qcow",
     .key = "short",
     .cluster_bits = 13,
     .l2_bits = 6,
     .size = 1024 * KIB,
     .backing = "raw",
     .backing_size = 700 * KIB},
    {.name = "vmdk", .format = "vmdk", .options = "subformat=monolithicSparse", .size = 1024 * KIB},
    {.name = "vmdk-no-tables",
     .format = "vmdk",
     .options = "subformat=monolithicSparse",
     .size = 1024 * KIB,
     .no_tables = true,
     .backing = "vmdk",
     .backing_size = 640 * KIB},
    {.name = "vmdk-filled",
     .format = "vmdk",
     .options = "subformat=monolithicSparse",
     .size = 1024 * KIB,
     .filled = 512 * KIB},
    {.name = "vmdk-zeroed-grain",
     .format = "vmdk",
     .options = "subformat=monolithicSparse,zeroed_grain=on",
     .size = 1024 * KIB},
    {.name = "vmdk-over-vmdk",
     .format = "vmdk",
     .options = "subformat=monolithicSparse",
     .size = 1024 * KIB,
     .backing = "vmdk",
     .backing_size = 640 * KIB},
    {.name = "vmdk-zeroed-grain-over-vmdk",
     .format = "vmdk",
     .options = "subformat=monolithicSparse,zeroed_grain=on",
     .size = 1024 * KIB,
     .backing = "vmdk",
     .backing_size = 1024 * KIB},
    {.name = "esx-cowd", .format = "vmdk", .esx = ESX_COWD, .grain = 1, .size = 512 * KIB},
    {.name = "esx-cowd-over-vmdk",
     .format = "vmdk",
     .esx = ESX_COWD,
     .grain = 8,
     .size = 1024 * KIB + 512,
     .backing = "vmdk",
     .backing_size = 640 * KIB},
    {.name = "esx-cowd-filled",
     .format = "vmdk",
     .esx = ESX_COWD,
     .grain = 128,
     .size = 1024 * KIB,
     .filled = 300 * KIB},
    {.name = "esx-sesparse",
     .format = "vmdk",
     .esx = ESX_SESPARSE,
     .size = 1024 * KIB,
     .filled = 64 * KIB},
    {.name = "esx-sesparse-over-vmdk",
     .format = "vmdk",
     .esx = ESX_SESPARSE,
     .size = 1024 * KIB,
     .filled = 4 * KIB,
     .backing = "vmdk",
     .backing_size = 640 * KIB},
    /* Two grain tables, of which the second is not made yet. */
    {.name = "esx-sesparse-tables",
     .format = "vmdk",
     .esx = ESX_SESPARSE,
     .size = 16640 * KIB,
     .filled = 4 * KIB},
    {.name = NULL},
};
