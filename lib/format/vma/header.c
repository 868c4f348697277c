/* SPDX-License-Identifier: MIT */
/*
 * The header of an archive, decoded (section 3). Names and contents are blobs: a length and bytes,
 * one behind the other, and a pointer to one must hit where one begins.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "base/hash.h"
#include "format/vma/vma.h"

enum {
    VERSION = 1,
    UUID_AT = 8,
    CTIME_AT = 24,
    MD5_AT = 32,
    MD5_SIZE = 16,
    BLOBS_AT = 48,
    BLOBS_SIZE_AT = 52,
    SIZE_AT = 56,
    NAMES_AT = 2044,
    DATA_AT = 3068,
    DEVICES_AT = 4096,
    DEVICE_SIZE = 32,
    POINTERS = 2 * VMA_CONFIGS + VMA_DEVICES
};

static const uint8_t magic[4] = {'V', 'M', 'A', 0};

struct decoding {
    const char *file;
    const uint8_t *bytes;
    uint32_t size;
    struct platter_error *err;
    /* The buffer of blobs, and what points into it: where that is the start of one. */
    const uint8_t *blobs;
    uint32_t blobs_off, blobs_size;
    uint32_t wanted[POINTERS];
    bool found[POINTERS];
    unsigned n_wanted;
};

static int corrupt(const struct decoding *d, uint64_t at, const char *field, uint64_t value,
                   const char *why)
{
    return fail(d->err, PLATTER_ECORRUPT, "%s: %s at offset %" PRIu64 " is %" PRIu64 ": %s",
                d->file, field, at, value, why);
}

/* ---- the fixed part ----------------------------------------------------------------------------
 */

int vma_header_size(const char *file, const uint8_t *fixed, uint32_t *ret,
                    struct platter_error *err)
{
    const struct decoding d = {.file = file, .err = err};
    uint64_t size = get_be(fixed + SIZE_AT, 4);

    if (memcmp(fixed, magic, sizeof magic) != 0)
        return fail(err, PLATTER_ENOFORMAT, "%s: is no VMA archive: it does not begin with VMA",
                    file);
    if (size <= VMA_FIXED || size > VMA_MOST_HEADER)
        return corrupt(&d, SIZE_AT, "header_size", size,
                       "it must be more than 12288 and at most 16777216");
    *ret = (uint32_t)size;
    return 0;
}

/* The checksum is that of a header without one. */
static bool checksum_is_right(uint8_t *bytes, uint32_t size)
{
    uint8_t stored[MD5_SIZE], md5[MD5_SIZE];

    memcpy(stored, bytes + MD5_AT, sizeof stored);
    memset(bytes + MD5_AT, 0, MD5_SIZE);
    hash_bytes(hash_find("md5"), bytes, size, NULL, 0, md5);
    memcpy(bytes + MD5_AT, stored, sizeof stored);
    return memcmp(md5, stored, sizeof md5) == 0;
}

static int take_bounds(struct decoding *d)
{
    uint64_t version = get_be(d->bytes + 4, 4);
    uint64_t off = get_be(d->bytes + BLOBS_AT, 4), size = get_be(d->bytes + BLOBS_SIZE_AT, 4);

    if (version != VERSION)
        return fail(d->err, ENOTSUP,
                    "%s: is a VMA archive of version %" PRIu64 ", of which only 1 is known",
                    d->file, version);
    if (off < VMA_FIXED || off > d->size)
        return corrupt(d, BLOBS_AT, "blob_buffer_offset", off,
                       "the blobs must stand in the header, behind its first 12288 bytes");
    if (size > d->size - off)
        return corrupt(d, BLOBS_SIZE_AT, "blob_buffer_size", size,
                       "the blobs must end where the header does, or before");
    d->blobs = d->bytes + off;
    d->blobs_off = (uint32_t)off;
    d->blobs_size = (uint32_t)size;
    return 0;
}

/* ---- blobs -------------------------------------------------------------------------------------
 */

struct blob {
    uint32_t at;
    const uint8_t *bytes;
    uint32_t len;
};

/* What stands at `at`, if all of it does. Byte 0 is no blob's. */
static bool read_blob(const struct decoding *d, uint32_t at, struct blob *ret)
{
    if (at == 0 || d->blobs_size < 2 || at > d->blobs_size - 2)
        return false;
    *ret = (struct blob){at, d->blobs + at + 2, (uint32_t)get_le(d->blobs + at, 2)};
    return ret->len <= d->blobs_size - at - 2;
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void want(struct decoding *d, size_t field)
{
    uint32_t at = (uint32_t)get_be(d->bytes + field, 4);
    if (at)
        d->wanted[d->n_wanted++] = at;
}

/* Finds out which of all pointers hit the start of a blob: one walk over them does. */
static void find_starts(struct decoding *d)
{
    struct blob b;
    unsigned i = 0;

    for (size_t k = 0; k < VMA_CONFIGS; k++) {
        want(d, NAMES_AT + k * 4);
        want(d, DATA_AT + k * 4);
        want(d, DEVICES_AT + k * DEVICE_SIZE);
    }
    qsort(d->wanted, d->n_wanted, sizeof *d->wanted, by_value);
    for (uint32_t at = 1; read_blob(d, at, &b); at += 2 + b.len) {
        while (i < d->n_wanted && d->wanted[i] < at)
            i++;
        for (; i < d->n_wanted && d->wanted[i] == at; i++)
            d->found[i] = true;
    }
}

static bool find_blob(const struct decoding *d, uint32_t at, struct blob *ret)
{
    const uint32_t *p =
        at ? bsearch(&at, d->wanted, d->n_wanted, sizeof *d->wanted, by_value) : NULL;
    return p && d->found[p - d->wanted] && read_blob(d, at, ret);
}

/* A name: it ends with the only zero byte it has. */
static const char *find_name(const struct decoding *d, uint32_t at)
{
    struct blob b;
    if (!find_blob(d, at, &b) || b.len < 2 || memchr(b.bytes, 0, b.len) != b.bytes + b.len - 1)
        return NULL;
    return (const char *)b.bytes;
}

/* ---- configurations and devices ----------------------------------------------------------------
 */

static int take_config(const struct decoding *d, unsigned i, struct vma_header *h)
{
    size_t name_at = NAMES_AT + i * (size_t)4, data_at = DATA_AT + i * (size_t)4;
    uint32_t name = (uint32_t)get_be(d->bytes + name_at, 4);
    uint32_t data = (uint32_t)get_be(d->bytes + data_at, 4);
    struct vma_config *c = &h->configs[h->n_configs];
    struct blob b, next;

    if (name == 0 || data == 0)
        return 0;
    *c = (struct vma_config){.name = find_name(d, name)};
    if (!c->name)
        return corrupt(d, name_at, "the name of a configuration", name,
                       "no name begins there in the blobs");
    if (!find_blob(d, data, &b))
        return corrupt(d, data_at, "the content of a configuration", data, "no blob begins there");
    /* The one behind it, then, if there is one. */
    if (data == name && read_blob(d, b.at + 2 + b.len, &next)) {
        c->displaced = true;
        b = next;
    }
    c->bytes = b.bytes;
    c->size = b.len;
    h->n_configs++;
    return 0;
}

static int take_device(const struct decoding *d, unsigned i, struct vma_header *h)
{
    size_t at = DEVICES_AT + i * (size_t)DEVICE_SIZE;
    uint32_t name = (uint32_t)get_be(d->bytes + at, 4);
    uint64_t size = get_be(d->bytes + at + 8, 8);
    struct vma_device *v = &h->devices[i];

    if (name == 0 && size == 0)
        return 0;
    *v = (struct vma_device){.name = find_name(d, name), .size = size};
    if (!v->name)
        return corrupt(d, at, "the name of a device", name, "no name begins there in the blobs");
    if (size == 0)
        return corrupt(d, at + 8, "the size of a device", size, "a device has bytes");
    if (vma_clusters(size) > (uint64_t)UINT32_MAX + 1)
        return corrupt(d, at + 8, "the size of a device", size,
                       "clusters are counted with 32 bits: at most 256 TiB");
    v->state = strcmp(v->name, "vmstate") == 0;
    for (unsigned k = 1; v->state && k < i; k++)
        if (h->devices[k].state)
            return corrupt(d, at, "the name of a device", name,
                           "a second state of the machine, of which there can be one");
    return 0;
}

int vma_header_decode(const char *file, uint8_t *bytes, uint32_t size, struct vma_header *ret,
                      struct platter_error *err)
{
    struct decoding d = {.file = file, .bytes = bytes, .size = size, .err = err};
    uint32_t said = 0;

    *ret = (struct vma_header){.size = size};
    int r = vma_header_size(file, bytes, &said, err);
    if (r == 0 && said != size)
        r = corrupt(&d, SIZE_AT, "header_size", said, "it is not what was read");
    if (r == 0 && !checksum_is_right(bytes, size))
        r = fail(err, PLATTER_ECORRUPT,
                 "%s: the checksum of the header (%" PRIu32 " bytes) is wrong", file, size);
    if (r == 0)
        r = take_bounds(&d);
    if (r < 0)
        return r;
    memcpy(ret->uuid, bytes + UUID_AT, VMA_UUID);
    ret->ctime = (int64_t)get_be(bytes + CTIME_AT, 8);
    find_starts(&d);
    for (unsigned i = 1; r == 0 && i < VMA_DEVICES; i++)
        r = take_device(&d, i, ret);
    for (unsigned i = 0; r == 0 && i < VMA_CONFIGS; i++)
        r = take_config(&d, i, ret);
    return r;
}

bool vma_header_rescue(const char *file, uint8_t *bytes, uint32_t size, struct vma_header *ret)
{
    struct decoding d = {.file = file, .bytes = bytes, .size = size};
    bool any = false;

    *ret = (struct vma_header){.size = size};
    if (size <= VMA_FIXED)
        return false;
    if (take_bounds(&d) < 0) { /* then they are where they usually are */
        d.blobs = bytes + VMA_FIXED;
        d.blobs_off = VMA_FIXED;
        d.blobs_size = size - VMA_FIXED;
    }
    ret->ctime = (int64_t)get_be(bytes + CTIME_AT, 8);
    find_starts(&d);
    for (unsigned i = 1; i < VMA_DEVICES; i++) {
        if (take_device(&d, i, ret) < 0)
            ret->devices[i] = (struct vma_device){0};
        any |= ret->devices[i].name != NULL;
    }
    for (unsigned i = 0; i < VMA_CONFIGS; i++)
        take_config(&d, i, ret);
    return any;
}

int vma_device_find(const char *file, const struct vma_header *h, const char *name,
                    struct platter_error *err)
{
    int found = 0;
    for (int i = 1; i < VMA_DEVICES; i++) {
        if (!h->devices[i].name || strcmp(h->devices[i].name, name) != 0)
            continue;
        if (found)
            return fail(err, EINVAL, "%s: devices %d and %d have the same name, %s", file, found, i,
                        name);
        found = i;
    }
    return found ? found : fail(err, ENOENT, "%s: has no device called %s", file, name);
}
