/* SPDX-License-Identifier: MIT */
/* The directory of bitmaps (section 16), and what its entries may say. */
#include <inttypes.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow2/bitmap.h"

bool qcow2_bitmap_entry_decode(struct reader *r, struct qcow2_bitmap_entry *ret)
{
    ret->table = read_be64(r);
    ret->n_table = read_be32(r);
    ret->flags = read_be32(r);
    ret->type = read_u8(r);
    ret->granularity_bits = read_u8(r);
    ret->name_len = read_be16(r);
    ret->extra_len = read_be32(r);
    ret->extra = read_bytes(r, ret->extra_len);
    ret->name = read_bytes(r, ret->name_len);
    read_skip(r, round_up(r->pos, 8) - r->pos);
    return !r->failed && ret->name_len > 0 && ret->name_len <= QCOW2_BITMAP_MAX_NAME &&
           !memchr(ret->name, 0, ret->name_len);
}

void qcow2_bitmap_entry_encode(struct writer *w, const struct qcow2_bitmap_entry *e)
{
    write_be64(w, e->table);
    write_be32(w, e->n_table);
    write_be32(w, e->flags);
    write_u8(w, e->type);
    write_u8(w, e->granularity_bits);
    write_be16(w, e->name_len);
    write_be32(w, e->extra_len);
    write_bytes(w, e->extra, e->extra_len);
    write_bytes(w, e->name, e->name_len);
    write_pad_to(w, round_up(w->pos, 8));
}

bool qcow2_bitmap_table_size(const struct image *img, uint64_t size, unsigned granularity_bits,
                             uint64_t *ret)
{
    uint64_t cluster = qcow2_of(img)->cluster_size;
    uint64_t bytes = div_up(div_up(size, UINT64_C(1) << granularity_bits), 8);
    *ret = max_u64(div_up(bytes, cluster), 1);
    return *ret <= QCOW2_BITMAP_MAX_BYTES / cluster;
}

bool qcow2_bitmap_table_fits(const struct image *img, hoff off, uint32_t n)
{
    const struct qcow2 *q = qcow2_of(img);
    uint64_t len = n * UINT64_C(8);
    return off && off % q->cluster_size == 0 && n && range_inside(off, len, q->file_size) &&
           !qcow2_hits_tables(q, off, len);
}

const char *qcow2_bitmap_cluster_problem(const struct image *img, uint64_t entry)
{
    const struct qcow2 *q = qcow2_of(img);
    hoff off = entry & QCOW2_OFFSET_MASK;

    if (entry & QCOW2_BITMAP_RESERVED || (off && entry & QCOW2_BITMAP_ONES))
        return "reserved bits are set";
    if (off % q->cluster_size)
        return "it is not a multiple of the cluster size";
    if (off && (off >= q->file_size || qcow2_hits_tables(q, off, q->cluster_size)))
        return "it points out of the file, or into the header or a table";
    return NULL;
}

const char *qcow2_bitmap_entry_problem(const struct image *img, const struct qcow2_bitmap_entry *e,
                                       uint64_t size)
{
    uint64_t needed;

    if (e->flags & ~(uint32_t)QCOW2_BITMAP_FLAGS)
        return "it has flags that this version does not know";
    if (e->type != QCOW2_BITMAP_TRACKING)
        return "it is of a type that this version does not know";
    if (e->extra_len && !(e->flags & QCOW2_BITMAP_EXTRA_COMPATIBLE))
        return "it has extra data that this version does not know";
    if (e->granularity_bits < QCOW2_BITMAP_MIN_BITS || e->granularity_bits > QCOW2_BITMAP_MAX_BITS)
        return "its granularity is not between 512 bytes and 2 GiB";
    if (!qcow2_bitmap_table_fits(img, e->table, e->n_table))
        return "its table is not where a table can be";
    if (e->flags & QCOW2_BITMAP_IN_USE)
        return "it was in use when the image was last closed, and may not know all changes";
    if (!qcow2_bitmap_table_size(img, size, e->granularity_bits, &needed) || e->n_table < needed)
        return "its table is too short for the disk, or longer than any may be";
    return NULL;
}

int qcow2_bitmap_directory_read(struct image *img, uint8_t **ret, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    hoff off = q->extensions.bitmap_directory;
    uint64_t size = q->extensions.bitmap_directory_size;

    *ret = NULL;
    if (off == 0 || off % q->cluster_size || qcow2_hits_tables(q, off, size) ||
        size < q->extensions.n_bitmaps * (uint64_t)QCOW2_BITMAP_ENTRY)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: a bitmap directory of %" PRIu64 " bytes at %" PRIu64 " for %" PRIu32
                    " bitmaps is impossible",
                    img->stream->name, size, off, q->extensions.n_bitmaps);
    int r = budget_alloc(img->budget, size, "the bitmap directory", ret, err);
    if (r == 0)
        r = stream_pread(img->stream, *ret, size, off, err);
    if (r < 0) {
        budget_free(img->budget, TAKE(*ret), size);
        return fail_in(err, r, "the bitmap directory");
    }
    return 0;
}
