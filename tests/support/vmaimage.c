/* SPDX-License-Identifier: MIT */
/* The writer of vmaimage.h: header, extents, and archives out of a seed. */
#include "support/vmaimage.h"

#include <nettle/md5.h>
#include <stdio.h>
#include <string.h>

#include "support/must.h"

static void put(uint8_t *at, unsigned n, uint64_t value)
{
    while (n--) {
        at[n] = (uint8_t)value;
        value >>= 8;
    }
}

static void *grow(void *array, size_t n, size_t each)
{
    void *p = realloc(array, n * each);
    MUST(p);
    return p;
}

/* MD5 of some bytes as if those at md5_at were zeros, put there. */
static void seal(uint8_t *bytes, size_t len, size_t md5_at)
{
    struct md5_ctx md5;
    memset(bytes + md5_at, 0, MD5_DIGEST_SIZE);
    md5_init(&md5);
    md5_update(&md5, len, bytes);
    md5_digest(&md5, MD5_DIGEST_SIZE, bytes + md5_at);
}

static void randomize(struct prng *p, uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)prng_next(p);
}

/* ---- disks and configurations ------------------------------------------------------------------
 */

void vmaimage_start(struct vmaimage *v, uint64_t seed)
{
    *v = (struct vmaimage){.prng = {seed}, .ctime = 1700000000, .align = 512};
    randomize(&v->prng, v->uuid, sizeof v->uuid);
}

void vmaimage_free(struct vmaimage *v)
{
    for (unsigned i = 0; i < v->n_disks; i++)
        free(v->disks[i].content);
    free(v->disks);
    free(v->configs);
    free(v->slots);
    free(v->extents);
    buffer_free(&v->file);
    *v = (struct vmaimage){0};
}

void vmaimage_add_config(struct vmaimage *v, const char *name, const void *bytes, uint32_t size)
{
    v->configs = grow(v->configs, v->n_configs + 1, sizeof *v->configs);
    v->configs[v->n_configs++] =
        (struct vmaimage_config){.name = name, .bytes = bytes, .size = size};
}

/* Whole clusters of zeros, single blocks of them, and now and then a byte alone. */
static void fill(struct prng *p, struct vmaimage_disk *d)
{
    for (uint32_t c = 0; c < d->clusters; c++) {
        if (prng_chance(p, 20))
            continue;
        unsigned holes = (unsigned)prng_below(p, 3) * 40;
        for (unsigned b = 0; b < VI_BLOCKS; b++) {
            uint8_t *block = d->content + (size_t)c * VI_CLUSTER + b * VI_BLOCK;
            if (prng_chance(p, holes))
                continue;
            if (prng_chance(p, 10))
                block[prng_below(p, VI_BLOCK)] = 1;
            else
                randomize(p, block, VI_BLOCK);
        }
    }
}

struct vmaimage_disk *vmaimage_add_disk(struct vmaimage *v, uint8_t id, const char *name,
                                        uint64_t size, bool random)
{
    v->disks = grow(v->disks, v->n_disks + 1, sizeof *v->disks);
    struct vmaimage_disk *d = &v->disks[v->n_disks++];
    *d = (struct vmaimage_disk){.id = id, .state = strcmp(name, "vmstate") == 0, .size = size};
    MUST(strlen(name) < sizeof d->name);
    strcpy(d->name, name);
    d->clusters = (uint32_t)((size + VI_CLUSTER - 1) / VI_CLUSTER);
    d->content = calloc(d->clusters + 1, VI_CLUSTER);
    MUST(d->content);
    if (random)
        fill(&v->prng, d);
    return d;
}

/* ---- the order of clusters ---------------------------------------------------------------------
 */

/* The blocks of a cluster that the rules let be stored: those that begin in front of the end. */
static unsigned most_blocks(const struct vmaimage_disk *d, uint32_t cluster)
{
    uint64_t start = (uint64_t)cluster * VI_CLUSTER;
    uint64_t n = d->state ? VI_BLOCKS : (d->size - start + VI_BLOCK - 1) / VI_BLOCK;
    return n < VI_BLOCKS ? (unsigned)n : VI_BLOCKS;
}

static struct vmaimage_slot slot_of(struct vmaimage *v, const struct vmaimage_disk *d,
                                    uint32_t cluster, unsigned full)
{
    static const uint8_t zeros[VI_BLOCK];
    const uint8_t *data = d->content + (size_t)cluster * VI_CLUSTER;
    struct vmaimage_slot s = {.device = d->id, .cluster = cluster, .data = data};

    for (unsigned b = 0; b < most_blocks(d, cluster); b++)
        if (memcmp(data + b * VI_BLOCK, zeros, VI_BLOCK) != 0)
            s.mask |= (uint16_t)(1u << b);
    if (prng_chance(&v->prng, full))
        s.mask = VI_FULL;
    return s;
}

/* Of all disks in turns: clusters of the same number follow each other. */
static int in_turns(const void *a, const void *b)
{
    const struct vmaimage_slot *x = a, *y = b;
    if (x->cluster != y->cluster)
        return x->cluster < y->cluster ? -1 : 1;
    return (x->device > y->device) - (x->device < y->device);
}

static void swap_slots(struct vmaimage *v, size_t i, size_t k)
{
    struct vmaimage_slot s = v->slots[i];
    v->slots[i] = v->slots[k];
    v->slots[k] = s;
}

/* The clusters of a state, wherever they are now, among themselves in order. */
static void order_state(struct vmaimage *v, const struct vmaimage_disk *d, unsigned full)
{
    uint32_t next = 0;
    for (size_t i = 0; i < v->n_slots; i++)
        if (v->slots[i].device == d->id)
            v->slots[i] = slot_of(v, d, next++, full);
}

void vmaimage_arrange(struct vmaimage *v, enum vmaimage_order order, unsigned full)
{
    v->n_slots = 0;
    for (unsigned i = 0; i < v->n_disks; i++) {
        const struct vmaimage_disk *d = &v->disks[i];
        v->slots = grow(v->slots, v->n_slots + d->clusters + 1, sizeof *v->slots);
        for (uint32_t c = 0; c < d->clusters; c++)
            v->slots[v->n_slots++] = slot_of(v, d, c, full);
    }
    if (order == VI_TURNS && v->n_slots)
        qsort(v->slots, v->n_slots, sizeof *v->slots, in_turns);
    for (size_t i = 0; i < v->n_slots && order >= VI_LIVE; i++)
        if (order == VI_SHUFFLED || prng_chance(&v->prng, 5))
            swap_slots(v, i, i + prng_below(&v->prng, v->n_slots - i));
    for (unsigned i = 0; i < v->n_disks; i++)
        if (v->disks[i].state)
            order_state(v, &v->disks[i], full);
}

/* ---- extents -----------------------------------------------------------------------------------
 */

static struct vmaimage_extent *new_extent(struct vmaimage *v)
{
    v->extents = grow(v->extents, v->n_extents + 1, sizeof *v->extents);
    struct vmaimage_extent *e = &v->extents[v->n_extents++];
    *e = (struct vmaimage_extent){0};
    return e;
}

void vmaimage_pack(struct vmaimage *v, unsigned most, unsigned empty)
{
    v->n_extents = 0;
    for (size_t at = 0; at < v->n_slots;) {
        struct vmaimage_extent *e = new_extent(v);
        unsigned n = most ? most : 1 + (unsigned)prng_below(&v->prng, VI_SLOTS);
        if (prng_chance(&v->prng, empty))
            continue;
        for (unsigned i = 0; i < VI_SLOTS && n && at < v->n_slots; i++)
            if (!prng_chance(&v->prng, empty)) {
                e->slots[i] = v->slots[at++];
                n--;
            }
    }
    if (v->n_extents == 0 || prng_chance(&v->prng, empty))
        new_extent(v);
}

static unsigned stored_blocks(const struct vmaimage_slot *s)
{
    unsigned n = 0;
    for (unsigned b = 0; s->device && b < VI_BLOCKS; b++)
        n += s->mask >> b & 1;
    return n;
}

static uint64_t extent_length(const struct vmaimage_extent *e)
{
    uint64_t len = VI_EXTENT;
    for (unsigned i = 0; i < VI_SLOTS; i++)
        len += (uint64_t)stored_blocks(&e->slots[i]) * VI_BLOCK;
    return len;
}

static void write_extent(struct vmaimage *v, struct vmaimage_extent *e, hoff off)
{
    uint8_t *head = v->file.bytes + off;
    uint64_t at = off + VI_EXTENT;

    e->off = off;
    memcpy(head, "VMAE", 4);
    memcpy(head + VI_UUID_AT, v->uuid, VI_UUID);
    for (unsigned i = 0; i < VI_SLOTS; i++) {
        struct vmaimage_slot *s = &e->slots[i];
        uint8_t *field = head + VI_SLOTS_AT + i * 8;
        s->off = at;
        put(field, 2, s->mask);
        field[2] = s->reserved;
        field[3] = s->device;
        put(field + 4, 4, s->cluster);
        for (unsigned b = 0; s->device && b < VI_BLOCKS; b++)
            if (s->mask >> b & 1) {
                memcpy(v->file.bytes + at, s->data + b * VI_BLOCK, VI_BLOCK);
                at += VI_BLOCK;
            }
    }
    e->len = at - off;
    put(head + VI_COUNT_AT, 2, (e->len - VI_EXTENT) / VI_BLOCK);
    seal(head, VI_EXTENT, VI_EXTENT_MD5_AT);
}

/* ---- the header --------------------------------------------------------------------------------
 */

/* Appends a blob; its pointer. Byte 0 of the blobs is none of any. */
static uint32_t add_blob(struct buffer *blobs, const void *bytes, size_t len)
{
    uint32_t at = (uint32_t)blobs->size;
    MUST(len <= 65535 && blobs->capacity - at >= len + 2);
    blobs->bytes[at] = (uint8_t)len;
    blobs->bytes[at + 1] = (uint8_t)(len >> 8);
    if (len)
        memcpy(blobs->bytes + at + 2, bytes, len);
    blobs->size += len + 2;
    return at;
}

static void add_blobs(struct vmaimage *v, struct buffer *blobs)
{
    blobs->size = 1;
    for (unsigned i = 0; i < v->n_configs; i++) {
        struct vmaimage_config *c = &v->configs[i];
        c->name_at = add_blob(blobs, c->name, strlen(c->name) + 1);
        c->data_at = add_blob(blobs, c->bytes, c->size);
        if (v->displaced)
            c->data_at = c->name_at;
    }
    for (unsigned i = 0; i < v->n_disks; i++)
        v->disks[i].name_at = add_blob(blobs, v->disks[i].name, strlen(v->disks[i].name) + 1);
}

static void write_header(struct vmaimage *v, const struct buffer *blobs)
{
    uint8_t *h = v->file.bytes;

    memcpy(h, "VMA", 4);
    put(h + VI_VERSION_AT, 4, 1);
    memcpy(h + VI_UUID_AT, v->uuid, VI_UUID);
    put(h + 24, 8, (uint64_t)v->ctime);
    put(h + VI_BLOBS_AT, 4, VI_FIXED + v->blob_gap);
    put(h + VI_BLOBS_SIZE_AT, 4, blobs->size);
    put(h + VI_HEADER_SIZE_AT, 4, v->header_size);
    for (unsigned i = 0; i < v->n_configs; i++) {
        put(h + VI_NAMES_AT + i * 4, 4, v->configs[i].name_at);
        put(h + VI_DATA_AT + i * 4, 4, v->configs[i].data_at);
    }
    for (unsigned i = 0; i < v->n_disks; i++) {
        uint8_t *field = h + VI_DEVICES_AT + v->disks[i].id * 32;
        put(field, 4, v->disks[i].name_at);
        put(field + 8, 8, v->disks[i].size);
    }
    memcpy(h + VI_FIXED + v->blob_gap, blobs->bytes, blobs->size);
    vmaimage_seal_header(v);
}

void vmaimage_write(struct vmaimage *v)
{
    struct buffer blobs = buffer_new(16 << 20);
    uint64_t size, off;

    add_blobs(v, &blobs);
    uint64_t used = VI_FIXED + v->blob_gap + blobs.size;
    v->header_size = (uint32_t)((used + v->align - 1) / v->align * v->align);
    size = v->header_size;
    for (size_t i = 0; i < v->n_extents; i++)
        size += extent_length(&v->extents[i]);
    buffer_free(&v->file);
    v->file = buffer_new(size);
    v->file.size = size;
    write_header(v, &blobs);
    off = v->header_size;
    for (size_t i = 0; i < v->n_extents; i++) {
        write_extent(v, &v->extents[i], off);
        off += v->extents[i].len;
    }
    buffer_free(&blobs);
}

/* ---- out of a seed -----------------------------------------------------------------------------
 */

static uint64_t random_size(struct prng *p)
{
    uint64_t clusters = prng_below(p, 30);
    switch (prng_below(p, 4)) {
    case 0:
        return (clusters + 1) * VI_CLUSTER;
    case 1:
        return clusters * VI_CLUSTER + (1 + prng_below(p, VI_BLOCKS)) * VI_BLOCK;
    case 2:
        return clusters * VI_CLUSTER + (1 + prng_below(p, 128)) * 512;
    default:
        return clusters * VI_CLUSTER + 1 + prng_below(p, VI_CLUSTER);
    }
}

static void add_random_disks(struct vmaimage *v)
{
    static const char *const names[] = {"drive-scsi0", "drive-efidisk0", "drive-virtio1",
                                        "vmstate"};
    bool used[256] = {true};
    for (unsigned n = 1 + (unsigned)prng_below(&v->prng, 4), i = 0; i < n; i++) {
        unsigned id = 0;
        while (used[id])
            id = 1 + (unsigned)prng_below(&v->prng, prng_chance(&v->prng, 50) ? 255 : 8);
        used[id] = true;
        struct vmaimage_disk *d =
            vmaimage_add_disk(v, (uint8_t)id, names[i], random_size(&v->prng), true);
        /* Of a state only a guess. */
        if (d->state)
            d->size = 1 + prng_below(&v->prng, 4 << 20);
    }
}

void vmaimage_random(struct vmaimage *v, uint64_t seed)
{
    static const unsigned mosts[] = {0, 0, 1, 7, 58, 59};
    static const uint32_t aligns[] = {1, 512, 512, 4096};
    static const char text[] = "memory: 512\n";

    vmaimage_start(v, seed);
    struct prng *p = &v->prng;
    v->align = aligns[prng_below(p, 4)];
    v->blob_gap = prng_chance(p, 20) ? (uint32_t)prng_below(p, 5000) : 0;
    if (prng_chance(p, 80))
        vmaimage_add_config(v, "qemu-server.conf", text, sizeof text - 1);
    if (prng_chance(p, 30))
        vmaimage_add_config(v, "empty", text, 0);
    add_random_disks(v);
    vmaimage_arrange(v, (enum vmaimage_order)prng_below(p, 4),
                     prng_chance(p, 25) ? 100 : (unsigned)prng_below(p, 20));
    vmaimage_pack(v, mosts[prng_below(p, 6)], prng_chance(p, 50) ? 30 : 0);
    vmaimage_write(v);
}

/* ---- changing ----------------------------------------------------------------------------------
 */

void vmaimage_drop_extent(struct vmaimage *v, size_t i)
{
    MUST(i < v->n_extents);
    v->n_extents--;
    memmove(v->extents + i, v->extents + i + 1, (v->n_extents - i) * sizeof *v->extents);
}

void vmaimage_repeat_extent(struct vmaimage *v, size_t i, size_t before)
{
    MUST(i < v->n_extents && before <= v->n_extents);
    struct vmaimage_extent e = v->extents[i];
    new_extent(v);
    memmove(v->extents + before + 1, v->extents + before,
            (v->n_extents - 1 - before) * sizeof *v->extents);
    v->extents[before] = e;
}

void vmaimage_swap_extents(struct vmaimage *v, size_t i, size_t k)
{
    MUST(i < v->n_extents && k < v->n_extents);
    struct vmaimage_extent e = v->extents[i];
    v->extents[i] = v->extents[k];
    v->extents[k] = e;
}

struct vmaimage_slot *vmaimage_find(struct vmaimage *v, uint8_t device, uint32_t cluster)
{
    for (size_t i = 0; i < v->n_extents; i++)
        for (unsigned k = 0; k < VI_SLOTS; k++) {
            struct vmaimage_slot *s = &v->extents[i].slots[k];
            if (s->device == device && s->cluster == cluster)
                return s;
        }
    MUST(false); /* it is in none of them */
    return NULL;
}

void vmaimage_put(struct vmaimage *v, uint64_t at, unsigned n, uint64_t value)
{
    MUST(at + n <= v->file.size);
    put(v->file.bytes + at, n, value);
}

void vmaimage_seal_header(struct vmaimage *v)
{
    seal(v->file.bytes, v->header_size, VI_MD5_AT);
}

void vmaimage_seal_extent(struct vmaimage *v, hoff off)
{
    MUST(off + VI_EXTENT <= v->file.size);
    seal(v->file.bytes + off, VI_EXTENT, VI_EXTENT_MD5_AT);
}

void vmaimage_foreign_extent(struct prng *p, uint8_t bytes[VI_EXTENT])
{
    memset(bytes, 0, VI_EXTENT);
    memcpy(bytes, "VMAE", 4);
    randomize(p, bytes + VI_UUID_AT, VI_UUID);
    bytes[VI_SLOTS_AT + 3] = 1; /* of cluster 0 of device 1, which is all zeros */
    seal(bytes, VI_EXTENT, VI_EXTENT_MD5_AT);
}
