/* SPDX-License-Identifier: MIT */
/*
 * A VMA archive with an index beside it: a byte of flags, the length of the index (2 bytes,
 * little-endian), the index, the archive. Flags: 1 the checksums of the archive are made right, 2
 * those of the index, 4 what says in the index which archive it is of. A disk that can be read
 * without the index must be the same with it.
 */
#include "base/ckd.h"
#include "format/vma/kept.h"
#include "fuzz/target.h"
#include "fuzz/vma_seal.h"
#include "support/vmakept.h"

enum { MOST = 1 << 20, HEAD = 3, PIECES = 64, PIECE = 8192 };

struct beside {
    struct name_opener opener; /* first */
    struct buffer index;       /* size 0: none */
};

static int give_index(const struct name_opener *opener, const struct image *image, const char *name,
                      enum platter_name_kind kind, bool writable, struct stream **ret,
                      struct platter_error *err)
{
    struct beside *b = (struct beside *)(uintptr_t)opener;
    (void)image, (void)name, (void)writable;
    if (kind != PLATTER_NAME_INDEX)
        fuzz_found("something else than an index is asked for");
    if (b->index.size == 0)
        return fail(err, ENOENT, "it is not there");
    return stream_buffer_open(&b->index, "fuzz.index", false, ret, err);
}

static struct platter_disk *open_archive(struct buffer *file, struct beside *beside)
{
    const struct format *format = format_find("vma");
    struct platter_error err = {0};
    struct platter_disk *disk;
    struct stream *s;
    if (stream_buffer_open(file, "fuzz", false, &s, NULL) != 0)
        abort();
    if (disk_assemble(&s, &format, 1, false, true, FUZZ_MEMORY, &beside->opener, &disk, &err) == 0)
        return disk;
    if (err.code <= 0 || err.message[0] == 0)
        fuzz_found("open failed without a word");
    return NULL;
}

/* The index says that it is of this archive. */
static void claim(struct buffer *index, const struct buffer *file)
{
    if (index->size < KEPT_HEADER || file->size < VMA_FIXED)
        return;
    memcpy(index->bytes, KEPT_MAGIC, KEPT_MAGIC_SIZE);
    put_be(index->bytes + 8, 4, KEPT_VERSION);
    memcpy(index->bytes + KEPT_UUID_AT, file->bytes + 8, VMA_UUID);
    memcpy(index->bytes + KEPT_MD5_AT, file->bytes + VMA_HEADER_MD5_AT, KEPT_MD5);
    put_be(index->bytes + KEPT_SIZE_AT, 8, file->size);
    put_be(index->bytes + KEPT_SIZE_AT + 24, 8, index->size);
}

static void compare(struct platter_disk *plain, struct platter_disk *indexed)
{
    static uint8_t a[PIECE], b[PIECE];
    uint64_t size = disk_size(plain);
    if (!indexed || disk_size(indexed) != size)
        fuzz_found("with an index it does not open, or is another disk");
    for (uint64_t i = 0; i < PIECES; i++) {
        uint64_t off = i < PIECES / 2 ? i * 20480 : size / PIECES * i;
        if (off >= size)
            break;
        size_t len = (size_t)min_u64(PIECE, size - off);
        int x = disk_read(plain, a, len, off, NULL), y = disk_read(indexed, b, len, off, NULL);
        if (x != y || (x == 0 && memcmp(a, b, len) != 0))
            fuzz_found("with an index other bytes are read");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t bytes[MOST];
    struct beside beside = {.opener = {.open = give_index}};
    if (size < HEAD || size > MOST || (size_t)data[1] + 256 * data[2] > size - HEAD)
        return 0;
    size_t len = (size_t)data[1] + 256 * data[2], rest = size - HEAD - len;
    memcpy(bytes, data + HEAD, len + rest);
    struct buffer index = {.bytes = bytes, .size = len, .capacity = len};
    struct buffer file = {.bytes = bytes + len, .size = rest, .capacity = rest};
    if (data[0] & 1)
        vma_seal_all(file.bytes, file.size);
    if (data[0] & 4)
        claim(&index, &file);
    if (data[0] & 2)
        vmakept_seal(&index);
    struct platter_disk *plain = open_archive(&file, &beside);
    beside.index = index;
    struct platter_disk *indexed = open_archive(&file, &beside);
    if (indexed)
        fuzz_read(indexed);
    if (plain)
        compare(plain, indexed);
    if (plain)
        disk_close(plain, NULL);
    if (indexed)
        disk_close(indexed, NULL);
    return 0;
}
