/* SPDX-License-Identifier: MIT */
/*
 * A header for a new archive, as the writer of Proxmox VE lays it out (sections 3.2 and 6): for
 * each configuration its name and content, then the names of the devices. The room for them grows
 * by whole sectors of what does not fit any more, and all of it counts to the header.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "base/hash.h"
#include "format/vma/vma.h"

enum {
    SECTOR = 512,
    NAMES_AT = 2044,
    DATA_AT = 3068,
    DEVICES_AT = 4096,
    DEVICE_SIZE = 32,
    MOST_WRITTEN = 512 << 10 /* that writer makes none that is longer */
};

/* Blobs that are laid out: first only counted, then written. */
struct blobs {
    uint8_t *bytes; /* NULL: they are counted */
    uint32_t used, room;
};

static uint32_t add(struct blobs *b, const void *bytes, uint32_t len)
{
    uint32_t at = b->used, all = len + 2;

    if (all > b->room - b->used)
        b->room += (uint32_t)round_up(all, SECTOR);
    if (b->bytes) {
        put_le(b->bytes + at, 2, len);
        memcpy(b->bytes + at + 2, bytes, len);
    }
    b->used += all;
    return at;
}

static uint32_t add_name(struct blobs *b, const char *name)
{
    return add(b, name, (uint32_t)strlen(name) + 1);
}

/* header NULL: it is only counted. */
static void put(uint8_t *header, size_t at, unsigned n, uint64_t value)
{
    if (header)
        put_be(header + at, n, value);
}

static uint32_t lay_out(const struct vma_header *h, struct blobs *b, uint8_t *header)
{
    *b = (struct blobs){.bytes = header ? header + VMA_FIXED : NULL, .used = 1, .room = SECTOR};
    for (uint32_t i = 0; i < h->n_configs; i++) {
        put(header, NAMES_AT + i * 4, 4, add_name(b, h->configs[i].name));
        put(header, DATA_AT + i * 4, 4, add(b, h->configs[i].bytes, h->configs[i].size));
    }
    for (uint32_t i = 1; i < VMA_DEVICES; i++) {
        if (!h->devices[i].name)
            continue;
        put(header, DEVICES_AT + i * DEVICE_SIZE, 4, add_name(b, h->devices[i].name));
        put(header, DEVICES_AT + i * DEVICE_SIZE + 8, 8, h->devices[i].size);
    }
    return VMA_FIXED + b->room;
}

static int check(const struct vma_header *h, struct platter_error *err)
{
    for (uint32_t i = 0; i < h->n_configs; i++) {
        const struct vma_config *c = &h->configs[i];
        if (c->size > VMA_MOST_BLOB || strlen(c->name) >= VMA_MOST_BLOB || !c->name[0])
            return fail(err, EFBIG,
                        "the configuration %.64s has %" PRIu32
                        " bytes, but name and content can have at most 65535 each in an archive",
                        c->name, c->size);
    }
    for (uint32_t i = 1; i < VMA_DEVICES; i++) {
        const struct vma_device *d = &h->devices[i];
        if (d->name && (!d->name[0] || strlen(d->name) >= VMA_MOST_BLOB))
            return fail(err, EINVAL, "device %" PRIu32 " needs a name of 1 to 65534 bytes", i);
        if (d->name && (d->size == 0 || vma_clusters(d->size) > (uint64_t)UINT32_MAX + 1))
            return fail(err, EINVAL,
                        "device %s has %" PRIu64
                        " bytes: an archive holds devices of 1 byte to 256 TiB",
                        d->name, d->size);
    }
    return 0;
}

int vma_header_encode(struct vma_header *h, struct budget *budget, uint8_t **ret,
                      uint32_t *ret_size, struct platter_error *err)
{
    uint8_t *bytes = NULL;
    struct blobs blobs;

    int r = check(h, err);
    if (r < 0)
        return r;
    h->size = lay_out(h, &blobs, NULL);
    if (h->size > MOST_WRITTEN)
        return fail(err, EFBIG,
                    "all configurations and names together need a header of %" PRIu32
                    " bytes, but that of an archive has at most %d",
                    h->size, MOST_WRITTEN);
    r = budget_alloc(budget, h->size, "the header of an archive", &bytes, err);
    if (r < 0)
        return r;
    struct writer w = writer_over(bytes, VMA_FIXED);
    write_bytes(&w, "VMA", 4);
    write_be32(&w, 1);
    write_bytes(&w, h->uuid, VMA_UUID);
    write_be64(&w, (uint64_t)h->ctime);
    write_pad_to(&w, 48);
    write_be32(&w, VMA_FIXED);
    write_be32(&w, blobs.used);
    write_be32(&w, h->size);
    lay_out(h, &blobs, bytes);
    hash_bytes(hash_find("md5"), bytes, h->size, NULL, 0, bytes + 32);
    *ret = bytes;
    *ret_size = h->size;
    return 0;
}
