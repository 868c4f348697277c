/* SPDX-License-Identifier: MIT */
/*
 * The header's fixed part (sections 2, 22): decode, encode, check. Every number is checked here
 * before anything is made of it.
 */
#include <inttypes.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow2/qcow2.h"

enum { MAGIC = 0x514649FB };

bool qcow2_header_decode(const uint8_t *bytes, size_t len, struct qcow2_header *ret)
{
    struct reader r = reader_over(bytes, len);
    struct qcow2_header h = {.length = QCOW2_HEADER_V2, .refcount_order = 4};

    if (read_be32(&r) != MAGIC)
        return false;
    h.version = read_be32(&r);
    if (h.version != 2 && h.version != 3)
        return false;
    h.backing_offset = read_be64(&r);
    h.backing_size = read_be32(&r);
    h.cluster_bits = read_be32(&r);
    h.size = read_be64(&r);
    h.crypt_method = read_be32(&r);
    h.l1_size = read_be32(&r);
    h.l1_offset = read_be64(&r);
    h.reftable_offset = read_be64(&r);
    h.reftable_clusters = read_be32(&r);
    h.n_snapshots = read_be32(&r);
    h.snapshots_offset = read_be64(&r);
    if (h.version == 3) {
        h.incompatible = read_be64(&r);
        h.compatible = read_be64(&r);
        h.autoclear = read_be64(&r);
        h.refcount_order = read_be32(&r);
        h.length = read_be32(&r);
        if (h.length > QCOW2_HEADER_V3)
            h.compression = read_u8(&r);
    }
    *ret = h;
    return !r.failed;
}

void qcow2_header_encode(const struct qcow2_header *h, struct writer *w)
{
    write_be32(w, MAGIC);
    write_be32(w, h->version);
    write_be64(w, h->backing_offset);
    write_be32(w, h->backing_size);
    write_be32(w, h->cluster_bits);
    write_be64(w, h->size);
    write_be32(w, h->crypt_method);
    write_be32(w, h->l1_size);
    write_be64(w, h->l1_offset);
    write_be64(w, h->reftable_offset);
    write_be32(w, h->reftable_clusters);
    write_be32(w, h->n_snapshots);
    write_be64(w, h->snapshots_offset);
    if (h->version < 3)
        return;
    write_be64(w, h->incompatible);
    write_be64(w, h->compatible);
    write_be64(w, h->autoclear);
    write_be32(w, h->refcount_order);
    write_be32(w, h->length);
    if (h->length > QCOW2_HEADER_V3)
        write_u8(w, h->compression);
    write_pad_to(w, h->length);
}

/* ---- checks ---------------------------------------------------------------------------------- */

static int corrupt(const struct image *img, struct platter_error *err, const char *field,
                   uint64_t value, const char *expected)
{
    return fail(err, PLATTER_ECORRUPT, "%s: header field %s is %" PRIu64 ", but must be %s",
                img->stream->name, field, value, expected);
}

/* A table that begins at a cluster and lies inside the file, whose last cluster may be cut. */
static int check_table(const struct image *img, const char *field, hoff off, uint64_t bytes,
                       uint64_t cluster, uint64_t file_size, struct platter_error *err)
{
    uint64_t end;
    if (off & (cluster - 1))
        return corrupt(img, err, field, off, "a multiple of the cluster size");
    if (off == 0)
        return corrupt(img, err, field, off, "behind the header");
    if (ckd_add(&end, off, bytes) || end > QCOW2_MAX_OFFSET)
        return corrupt(img, err, field, off, "less than 2^56");
    if (off >= file_size || end > round_up(file_size, cluster))
        return fail(err, PLATTER_ECORRUPT,
                    "%s: header field %s puts a table at %" PRIu64 " .. %" PRIu64
                    ", but the file ends at %" PRIu64 ": it was cut short",
                    img->stream->name, field, off, end, file_size);
    return 0;
}

static int check_version_3(const struct image *img, const struct qcow2_header *h,
                           struct platter_error *err)
{
    if (h->refcount_order > 6)
        return corrupt(img, err, "refcount_order", h->refcount_order, "at most 6");
    bool typed = h->incompatible & QCOW2_INCOMPATIBLE_COMPRESSION;
    if (typed != (h->compression != QCOW2_DEFLATE))
        return fail(err, PLATTER_ECORRUPT,
                    "%s: header field compression_type is %u, but incompatible feature bit 3 is %s",
                    img->stream->name, h->compression, typed ? "set" : "clear");
    if (h->compression > QCOW2_ZSTD)
        return fail(err, ENOTSUP, "%s: compression type %u is not known", img->stream->name,
                    h->compression);
    if (h->incompatible & QCOW2_INCOMPATIBLE_EXTENDED_L2 && h->cluster_bits < 14)
        return corrupt(img, err, "cluster_bits", h->cluster_bits,
                       "at least 14 with extended L2 entries");
    return 0;
}

static int check_l1(const struct image *img, const struct qcow2_header *h, uint64_t file_size,
                    struct platter_error *err)
{
    uint64_t cluster = UINT64_C(1) << h->cluster_bits;
    uint64_t per_l2 = cluster / (h->incompatible & QCOW2_INCOMPATIBLE_EXTENDED_L2 ? 16 : 8);
    uint64_t bytes = (uint64_t)h->l1_size * 8;

    if (h->size > QCOW2_MAX_SIZE)
        return corrupt(img, err, "size", h->size, "less than 2^63");
    if (bytes > QCOW2_MAX_L1_BYTES)
        return corrupt(img, err, "l1_size", h->l1_size, "at most 4194304");
    if (h->l1_size < div_up(h->size, cluster * per_l2))
        return corrupt(img, err, "l1_size", h->l1_size, "enough for the disk's size");
    if (h->l1_size == 0)
        return 0;
    /* A new image ends with the last L1 entry, so that much must be there to the byte. */
    if (range_inside(h->l1_offset, 0, file_size) && !range_inside(h->l1_offset, bytes, file_size))
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the L1 table at %" PRIu64 " takes %" PRIu64
                    " bytes, but the file ends at %" PRIu64 ": it was cut short",
                    img->stream->name, h->l1_offset, bytes, file_size);
    return check_table(img, "l1_table_offset", h->l1_offset, bytes, cluster, file_size, err);
}

int qcow2_header_check_length(const struct image *img, const struct qcow2_header *h,
                              struct platter_error *err)
{
    if (h->cluster_bits < QCOW2_MIN_CLUSTER_BITS || h->cluster_bits > QCOW2_MAX_CLUSTER_BITS)
        return corrupt(img, err, "cluster_bits", h->cluster_bits, "from 9 to 21");
    if (h->version >= 3 && (h->length < QCOW2_HEADER_V3 || h->length % 8 ||
                            h->length > UINT64_C(1) << h->cluster_bits))
        return corrupt(img, err, "header_length", h->length,
                       "a multiple of 8 from 104 up to the cluster size");
    return 0;
}

int qcow2_header_check_fixed(const struct image *img, const struct qcow2_header *h,
                             uint64_t file_size, struct platter_error *err)
{
    int r = h->version == 3 ? check_version_3(img, h, err) : 0;
    if (r < 0)
        return r;
    if (h->crypt_method > QCOW2_CRYPT_LUKS)
        return corrupt(img, err, "crypt_method", h->crypt_method, "0, 1 or 2");
    return check_l1(img, h, file_size, err);
}

int qcow2_header_check(const struct image *img, const struct qcow2_header *h, uint64_t file_size,
                       struct platter_error *err)
{
    uint64_t cluster = UINT64_C(1) << h->cluster_bits;
    int r = qcow2_header_check_fixed(img, h, file_size, err);
    if (r < 0)
        return r;
    if (h->autoclear & QCOW2_AUTOCLEAR_RAW && !(h->incompatible & QCOW2_INCOMPATIBLE_DATA_FILE))
        return fail(err, PLATTER_ECORRUPT,
                    "%s: autoclear feature bit 1 (raw external data) is set, but the image has no "
                    "external data file",
                    img->stream->name);
    if (h->reftable_clusters == 0 ||
        (uint64_t)h->reftable_clusters * cluster > QCOW2_MAX_REFTABLE_BYTES)
        return corrupt(img, err, "refcount_table_clusters", h->reftable_clusters,
                       "1 or more, and 8 MiB in all at most");
    r = check_table(img, "refcount_table_offset", h->reftable_offset,
                    h->reftable_clusters * cluster, cluster, file_size, err);
    if (r < 0)
        return r;
    if (h->n_snapshots > QCOW2_MAX_SNAPSHOTS)
        return corrupt(img, err, "nb_snapshots", h->n_snapshots, "at most 65536");
    if (h->n_snapshots)
        r = check_table(img, "snapshots_offset", h->snapshots_offset, h->n_snapshots * UINT64_C(40),
                        cluster, file_size, err);
    if (r < 0)
        return r;
    return 0;
}
