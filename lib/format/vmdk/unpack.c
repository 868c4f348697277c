/* SPDX-License-Identifier: MIT */
/*
 * Compressed grains: vmdk.md sections 5.1 and 5.6.
 *
 * A record is trusted in nothing: its length is bounded, its address must be that of the grain that
 * was asked for, and the grain must come out whole.
 */
#include <inttypes.h>

#include "base/codec.h"
#include "format/vmdk/vmdk.h"

enum {
    RECORD_HEAD_PLAIN = 4, /* of a record where the file has no markers: length alone */
    FIRST_READ = 4096      /* where nothing tells how long the record may be */
};

/* Where a record is read to. They are kept for the next reader. */
struct unpack_buffer {
    struct unpack_buffer *next;
    uint8_t record[];
};

/* The longest record: twice the grain is what other readers accept. */
static uint64_t record_limit(uint32_t grain)
{
    return 2 * (uint64_t)grain + VMDK_SECTOR;
}

/* Behind a record that is hardly longer than its grain there is room for the grain. */
static uint64_t record_room(uint32_t grain)
{
    return record_limit(grain) + grain / 64;
}

static uint64_t buffer_size(const struct image *img)
{
    return sizeof(struct unpack_buffer) + record_room(img->unit);
}

/* One that is idle, or a new one; where there is no memory for another, those there are go round.
 */
static int buffer_take(struct image *img, struct unpack_buffer **ret, struct platter_error *err)
{
    static const char what[] = "a compressed grain of a VMDK";
    struct vmdk *v = vmdk_of(img);
    WITH_LOCK(&img->lock);
    while (!v->buffers) {
        bool alone = v->n_buffers == 0;
        int r = budget_alloc(img->budget, buffer_size(img), what, ret, alone ? err : NULL);
        if (r == 0)
            v->n_buffers++;
        if (r == 0 || alone)
            return r;
        pthread_cond_wait(&v->tables.changed, &img->lock);
    }
    *ret = v->buffers;
    v->buffers = (*ret)->next;
    return 0;
}

static void buffer_give(struct image *img, struct unpack_buffer *b)
{
    struct vmdk *v = vmdk_of(img);
    WITH_LOCK(&img->lock);
    b->next = v->buffers;
    v->buffers = b;
    pthread_cond_broadcast(&v->tables.changed);
}

void vmdk_free_buffers(struct image *img)
{
    struct vmdk *v = vmdk_of(img);
    while (v->buffers) {
        struct unpack_buffer *b = v->buffers;
        v->buffers = b->next;
        budget_free(img->budget, b, buffer_size(img));
    }
}

/* Checks the head of a record at e->off; *ret_head and *ret_size are its lengths. */
static int check_head(const struct sparse *s, const struct extent *e, uint64_t lba, uint64_t limit,
                      const uint8_t *record, size_t *ret_head, size_t *ret_size,
                      struct platter_error *err)
{
    bool markers = s->header.flags & HOSTED_MARKERS;
    struct reader r = reader_over(record, RECORD_HEAD);
    uint64_t found = markers ? read_le64(&r) : lba;
    uint32_t size = read_le32(&r);
    *ret_head = markers ? RECORD_HEAD : RECORD_HEAD_PLAIN;
    *ret_size = size;
    if (found != lba)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the record at byte %" PRIu64 " is of sector %" PRIu64
                    " of the disk, but the table names it for sector %" PRIu64,
                    s->stream->name, e->off, found, lba);
    if (size == 0 || size > 2 * (uint64_t)s->grain)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the record at byte %" PRIu64 " says it has %" PRIu32
                    " bytes; 1 to %" PRIu64 " are possible",
                    s->stream->name, e->off, size, 2 * (uint64_t)s->grain);
    if (*ret_head + size > limit)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the record at byte %" PRIu64 " has %" PRIu32
                    " bytes, which reach over the next record or over the end of the file at byte "
                    "%" PRIu64 ": it is truncated or damaged",
                    s->stream->name, e->off, size, s->end);
    return 0;
}

/* Reads the record; *ret_data points to the compressed bytes. */
static int read_record(const struct sparse *s, const struct extent *e, uint64_t lba,
                       uint8_t *record, const uint8_t **ret_data, size_t *ret_size,
                       struct platter_error *err)
{
    /* The map saw to it that a sector stands here. */
    uint64_t limit = min_u64(record_limit(s->grain), s->end - e->off);
    if (e->packed_len)
        limit = min_u64(limit, e->packed_len);
    size_t have = (size_t)(e->packed_len ? limit : min_u64(limit, FIRST_READ)), head;
    int r = stream_pread(s->stream, record, have, e->off, err);
    if (r == 0)
        r = check_head(s, e, lba, limit, record, &head, ret_size, err);
    if (r == 0 && head + *ret_size > have)
        r = stream_pread(s->stream, record + have, head + *ret_size - have, e->off + have, err);
    if (r == 0)
        *ret_data = record + head;
    return r;
}

/* The last grain of an extent may come out whole or only as far as it is needed. */
static int inflate_last(const struct sparse *s, const struct extent *e, const uint8_t *data,
                        size_t size, struct unpack_buffer *b, void *out, struct platter_error *err)
{
    uint8_t *whole = b->record + record_room(s->grain) - s->grain, *more = NULL;
    size_t got;
    int r = 0;
    if (data + size > whole) {
        r = budget_alloc(s->budget, s->grain, "a compressed grain of a VMDK", &more, err);
        whole = more;
    }
    if (r == 0)
        r = codec_unpack(CODEC_ZLIB, data, size, whole, s->grain, &got, err);
    if (r == 0 && got < e->unit_len)
        r = fail(err, PLATTER_ECORRUPT, "it holds %zu bytes instead of %" PRIu64, got, e->unit_len);
    if (r == 0)
        memcpy(out, whole, e->unit_len);
    budget_free(s->budget, more, s->grain);
    return r;
}

static int inflate_grain(const struct sparse *s, const struct extent *e, const uint8_t *data,
                         size_t size, struct unpack_buffer *b, void *out, struct platter_error *err)
{
    if (e->unit_len == s->grain)
        return codec_unpack(CODEC_ZLIB, data, size, out, s->grain, NULL, err);
    return inflate_last(s, e, data, size, b, out, err);
}

/* Where tables stand behind their grains, records stand side by side. */
static int check_gap(struct image *img, struct sparse *s, const struct extent *e, uint64_t len,
                     struct platter_error *err)
{
    hoff end = e->off + round_up(len, VMDK_SECTOR);
    bool dense = s->header.at_end && (s->header.flags & HOSTED_MARKERS) && !s->salvage;
    return dense && end < e->off + e->packed_len ? stream_check_gap(img, s, end, err) : 0;
}

/* Unpacks the record at e->off. */
static int unpack_at(struct image *img, struct sparse *s, const struct extent *e, uint64_t lba,
                     struct unpack_buffer *b, void *out, struct platter_error *err)
{
    const uint8_t *data = NULL;
    size_t size = 0;
    int r = read_record(s, e, lba, b->record, &data, &size, err);
    if (r == 0)
        r = check_gap(img, s, e, RECORD_HEAD + size, err);
    if (r < 0)
        return r;
    r = inflate_grain(s, e, data, size, b, out, err);
    if (r < 0)
        fail_in(err, r, "%s: the compressed grain at byte %" PRIu64 " (guest offset %" PRIu64 ")",
                s->stream->name, e->off, e->unit_start);
    return r;
}

/* Where the table is wrong, or the record in front reaches over this one, the grain may still be in
 * the file. `code` is what was wrong. */
static int unpack_elsewhere(struct image *img, struct sparse *s, const struct extent *e,
                            uint64_t lba, struct unpack_buffer *b, void *out, int code,
                            struct platter_error *err)
{
    uint32_t sector;
    int r = salvage_find(img, s, lba / s->header.grain_size, &sector, err);
    if (r < 0 || sector == 0)
        return r < 0 ? r : code;
    struct extent other = *e;
    other.off = (hoff)sector * VMDK_SECTOR;
    other.packed_len = 0;
    return unpack_at(img, s, &other, lba, b, out, err);
}

int vmdk_unpack(struct image *img, const struct extent *e, void *out, struct platter_error *err)
{
    const struct vmdk_extent *x = vmdk_extent_at(vmdk_of(img), e->unit_start);
    struct sparse *s = x->sparse;
    struct unpack_buffer *b;
    int r = buffer_take(img, &b, err);
    if (r < 0)
        return r;
    uint64_t lba = (e->unit_start - x->start) / VMDK_SECTOR;
    r = unpack_at(img, s, e, lba, b, out, err);
    if (r == -PLATTER_ECORRUPT && s->salvage)
        r = unpack_elsewhere(img, s, e, lba, b, out, r, err);
    buffer_give(img, b);
    return r;
}
