/* SPDX-License-Identifier: MIT */
/*
 * L1 and L2 entries (sections 4, 4.1, 5): decoding, with every check that needs no reading, and
 * finding.
 */
#include <inttypes.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow2/qcow2.h"

static int corrupt(const struct image *img, goff guest, uint64_t raw, const char *why,
                   struct platter_error *err)
{
    return fail(err, PLATTER_ECORRUPT,
                "%s: the L2 entry of the cluster at guest offset %" PRIu64 " is 0x%" PRIx64 ": %s",
                img->stream->name, guest, raw, why);
}

bool qcow2_hits_tables(const struct qcow2 *q, hoff off, uint64_t len)
{
    const struct qcow2_header *h = &q->header;
    uint64_t l1 = h->l1_size * UINT64_C(8), reftable = h->reftable_clusters * q->cluster_size;
    hoff end = off + len;

    if (q->luks && off < q->extensions.crypto_offset + q->extensions.crypto_len &&
        end > q->extensions.crypto_offset)
        return true;
    return off < q->cluster_size || (off < h->l1_offset + l1 && end > h->l1_offset) ||
           (off < h->reftable_offset + reftable && end > h->reftable_offset);
}

bool qcow2_hits_lists(const struct qcow2 *q, hoff off, uint64_t len)
{
    hoff table = q->header.snapshots_offset, directory = q->extensions.bitmap_directory;
    uint64_t snapshots = q->header.n_snapshots ? q->snapshots_size : 0;
    uint64_t bitmaps = q->extensions.has_bitmaps ? q->extensions.bitmap_directory_size : 0;

    return (snapshots && off < table + snapshots && table < off + len) ||
           (bitmaps && off < directory + bitmaps && directory < off + len);
}

/* Section 5: x bits of offset, then the number of sectors behind the first. */
static int decode_packed(const struct image *img, uint64_t raw, uint64_t bitmap, goff guest,
                         struct qcow2_entry *ret, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    unsigned x = 62 - (q->cluster_bits - 8);
    uint64_t sectors = (raw & ~(QCOW2_COPIED | QCOW2_PACKED)) >> x;

    ret->packed = true;
    ret->off = raw & ((UINT64_C(1) << x) - 1);
    ret->packed_len = (sectors + 1) * 512 - ret->off % 512;
    if (raw & QCOW2_COPIED)
        return corrupt(img, guest, raw, "compressed entries must not have bit 63 set", err);
    if (bitmap)
        return corrupt(img, guest, raw, "the bitmap of a compressed entry must be 0", err);
    if (q->data_file)
        return corrupt(img, guest, raw, "with an external data file nothing is compressed", err);
    if (ret->off >= QCOW2_MAX_OFFSET || ret->off < q->cluster_size)
        return corrupt(img, guest, raw, "the compressed data cannot stand there", err);
    return 0;
}

/* What stands where the list of snapshots or of bitmaps is may be read, as those may be what is
 * damaged, but nothing is written there. */
static int check_place(const struct image *img, uint64_t raw, goff guest, struct qcow2_entry *e,
                       struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);

    if (e->off & (q->cluster_size - 1))
        return corrupt(img, guest, raw, "its offset is not a multiple of the cluster size", err);
    if (q->data_file)
        return e->off == guest
                   ? 0
                   : corrupt(img, guest, raw,
                             "with an external data file its offset must be the same", err);
    if (qcow2_hits_tables(q, e->off, q->cluster_size))
        return corrupt(img, guest, raw, "it points into the header or a table", err);
    e->copied = e->copied && !qcow2_hits_lists(q, e->off, q->cluster_size);
    return 0;
}

int qcow2_entry_decode(const struct image *img, const uint8_t *bytes, goff guest,
                       struct qcow2_entry *ret, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    uint64_t raw = get_be(bytes, 8), bitmap = 0, reserved = QCOW2_L2_RESERVED;
    struct qcow2_entry e = {.copied = raw & QCOW2_COPIED, .off = raw & QCOW2_OFFSET_MASK};

    if (q->n_sub > 1)
        bitmap = get_be(bytes + 8, 8);
    if (raw & QCOW2_PACKED) {
        *ret = (struct qcow2_entry){0};
        return decode_packed(img, raw, bitmap, guest, ret, err);
    }
    /* Offset 0 means nowhere, but for the first cluster of a data file (section 4). */
    e.has_place = e.off || (q->data_file && e.copied && !(raw & QCOW2_ZERO));
    if (q->n_sub > 1) {
        e.alloc = (uint32_t)bitmap;
        e.zero = (uint32_t)(bitmap >> 32);
        reserved |= QCOW2_ZERO;
    } else {
        e.zero = raw & QCOW2_ZERO;
        e.alloc = e.has_place && !e.zero;
        reserved |= q->header.version < 3 ? QCOW2_ZERO : 0;
    }
    if (raw & reserved)
        return corrupt(img, guest, raw, "reserved bits are set", err);
    if (e.alloc & e.zero || (e.alloc && !e.has_place))
        return corrupt(img, guest, raw, "its subcluster bitmap contradicts itself", err);
    *ret = e;
    return e.has_place ? check_place(img, raw, guest, ret, err) : 0;
}

void qcow2_entry_encode(const struct image *img, uint8_t *bytes, const struct qcow2_entry *e)
{
    const struct qcow2 *q = qcow2_of(img);
    uint64_t raw = e->off | (e->copied ? QCOW2_COPIED : 0);

    if (e->packed) {
        unsigned x = 62 - (q->cluster_bits - 8);
        uint64_t sectors = (e->off + e->packed_len - 1) / 512 - e->off / 512;
        raw = QCOW2_PACKED | sectors << x | e->off;
    } else if (q->n_sub == 1 && e->zero) {
        raw |= QCOW2_ZERO;
    }
    put_be(bytes, 8, raw);
    if (q->n_sub > 1)
        put_be(bytes + 8, 8, (uint64_t)e->zero << 32 | e->alloc);
}

int qcow2_l1_decode(const struct image *img, uint64_t i, uint64_t raw, hoff *ret,
                    struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    const char *why = NULL;

    *ret = raw & QCOW2_OFFSET_MASK;
    if (raw == 0)
        return 0;
    if (raw & QCOW2_L1_RESERVED)
        why = "reserved bits are set";
    else if (*ret & (q->cluster_size - 1))
        why = "its offset is not a multiple of the cluster size";
    else if (*ret && qcow2_hits_tables(q, *ret, q->cluster_size))
        why = "it points into the header or a table";
    if (why)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the L1 entry %" PRIu64 " (guest offset %" PRIu64 ") is 0x%" PRIx64 ": %s",
                    img->stream->name, i, i << q->l1_bits, raw, why);
    return 0;
}

int qcow2_l2_find(const struct image *img, goff guest, hoff *ret, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    uint64_t i = guest >> q->l1_bits;
    return qcow2_l1_decode(img, i, i < q->l1.n ? q->l1.entries[i] : 0, ret, err);
}

int qcow2_l2_get(struct image *img, goff guest, struct slice **ret, uint8_t **ret_entry,
                 struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    hoff table, now = 0;
    int r = qcow2_l2_find(img, guest, &table, err);

    *ret = NULL;
    while (r == 0 && table) {
        uint64_t entry = (guest >> q->cluster_bits) * q->entry_size & (q->cluster_size - 1);
        hoff slice = round_down(entry, q->l2.slice);
        r = slices_get(img, &q->l2, table + slice, ret, err);
        *ret_entry = r == 0 ? (*ret)->bytes + (entry - slice) : NULL;
        if (r == 0)
            r = qcow2_l2_find(img, guest, &now, err);
        /* The table may have been replaced by a copy while we read. */
        if (r == 0 && now == table)
            return 0;
        table = now;
        *ret = NULL;
    }
    return r;
}
