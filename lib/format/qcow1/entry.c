/* SPDX-License-Identifier: MIT */
/* Entries of L1 and L2 tables: sections 3, 4 and 12. */
#include <inttypes.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow1/qcow1.h"

static bool overlap(hoff a, uint64_t a_len, hoff b, uint64_t b_len)
{
    return a < b + b_len && b < a + a_len;
}

bool qcow1_hits_header(const struct qcow1 *q, hoff off, uint64_t len)
{
    const struct qcow1_header *h = &q->header;
    return off < QCOW1_HEADER || overlap(off, len, q->l1.off, q->l1.n * UINT64_C(8)) ||
           (h->backing_offset && overlap(off, len, h->backing_offset, h->backing_size));
}

/* How many tables begin in front of `off`. */
static uint32_t tables_before(const struct qcow1 *q, hoff off)
{
    uint32_t from = 0, to = q->n_tables;
    while (from < to) {
        uint32_t middle = from + (to - from) / 2;
        if (q->tables[middle] < off)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

bool qcow1_hits_tables(const struct qcow1 *q, hoff off, uint64_t len)
{
    uint32_t i = tables_before(q, off + len);
    return i > 0 && q->tables[i - 1] + q->table_size > off;
}

/* ---- L2 entries ------------------------------------------------------------------------------ */

static int corrupt(const struct image *img, goff guest, uint64_t raw, const char *why,
                   struct platter_error *err)
{
    return fail(err, PLATTER_ECORRUPT,
                "%s: the L2 entry of guest offset %" PRIu64 " is 0x%" PRIx64 ": %s",
                img->stream->name, guest, raw, why);
}

int qcow1_entry_decode(const struct image *img, uint64_t raw, goff guest, struct qcow1_entry *ret,
                       struct platter_error *err)
{
    const struct qcow1 *q = qcow1_of(img);
    const unsigned bits = q->header.cluster_bits;
    uint64_t len = q->cluster_size;

    *ret = (struct qcow1_entry){.kind = EXTENT_BACKING};
    if (raw == 0)
        return 0;
    if (raw & QCOW1_PACKED) {
        len = raw >> (63 - bits) & (q->cluster_size - 1);
        *ret = (struct qcow1_entry){.kind = EXTENT_PACKED,
                                    .off = raw & ((UINT64_C(1) << (63 - bits)) - 1),
                                    .packed_len = (uint32_t)len};
        if (len == 0)
            return corrupt(img, guest, raw, "a compressed cluster of 0 bytes", err);
    } else {
        *ret = (struct qcow1_entry){.kind = EXTENT_DATA, .off = raw};
        if (raw % QCOW1_SECTOR)
            return corrupt(img, guest, raw, "its offset is not a multiple of 512", err);
    }
    if (ret->off > QCOW1_MAX_SIZE - len)
        return corrupt(img, guest, raw, "its offset is larger than any file", err);
    if (qcow1_hits_header(q, ret->off, len))
        return corrupt(img, guest, raw, "it leads into the header or the L1 table", err);
    if (qcow1_hits_tables(q, ret->off, len))
        return corrupt(img, guest, raw, "it leads into an L2 table", err);
    return 0;
}

uint64_t qcow1_entry_encode(const struct qcow1 *q, const struct qcow1_entry *e)
{
    if (e->kind == EXTENT_BACKING)
        return 0;
    return e->kind == EXTENT_DATA
               ? e->off
               : QCOW1_PACKED | (uint64_t)e->packed_len << (63 - q->header.cluster_bits) | e->off;
}

/* ---- L2 tables ------------------------------------------------------------------------------- */

bool qcow1_is_shared(const struct qcow1 *q, hoff off)
{
    uint32_t i = tables_before(q, off);
    return (i > 0 && q->tables[i - 1] + q->table_size > off) ||
           (i + 1 < q->n_tables && q->tables[i + 1] < off + q->table_size);
}

bool qcow1_is_late(const struct qcow1 *q, hoff off)
{
    return off != 0 && off >= q->file_size && off == round_up(q->file_size, q->cluster_size);
}

int qcow1_l2_find(const struct image *img, goff guest, hoff *ret, struct platter_error *err)
{
    const struct qcow1 *q = qcow1_of(img);
    uint64_t i = guest >> q->l1_bits;
    uint64_t raw = i < q->l1.n ? q->l1.entries[i] : 0;
    const char *why = NULL;

    *ret = raw;
    if (raw == 0)
        return 0;
    if (raw & QCOW1_PACKED)
        why = "bit 63 is set, which means nothing here";
    else if (!range_inside(raw, q->table_size, max_u64(q->file_size, q->end)))
        why = "the L2 table would reach behind the end of the file: it was cut short, or its "
              "writer crashed (check -r all)";
    else if (qcow1_hits_header(q, raw, q->table_size))
        why = "it leads into the header or the L1 table";
    else if (qcow1_is_shared(q, raw))
        why = "it leads into the L2 table of another entry";
    if (!why)
        return 0;
    if (img->salvage && qcow1_is_late(q, raw)) {
        *ret = 0;
        return 0;
    }
    return fail(err, PLATTER_ECORRUPT,
                "%s: the L1 entry %" PRIu64 " (guest offset %" PRIu64 ") is 0x%" PRIx64 ": %s",
                img->stream->name, i, i << q->l1_bits, raw, why);
}

int qcow1_l2_get(struct image *img, goff guest, struct slice **ret, uint8_t **ret_entry,
                 struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(img);
    uint64_t i = guest >> q->header.cluster_bits & ((UINT64_C(1) << q->header.l2_bits) - 1);
    hoff table;

    *ret = NULL;
    int r = qcow1_l2_find(img, guest, &table, err);
    if (r < 0 || table == 0)
        return r;
    r = slices_get(img, &q->l2, table, ret, err);
    *ret_entry = r == 0 ? (*ret)->bytes + i * 8 : NULL;
    return r;
}
