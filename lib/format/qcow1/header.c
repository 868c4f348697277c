/* SPDX-License-Identifier: MIT */
/* The header: sections 2 and 12. */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow1/qcow1.h"

#define MAGIC UINT32_C(0x514649fb)

bool qcow1_header_decode(const uint8_t bytes[QCOW1_HEADER], struct qcow1_header *ret)
{
    struct reader r = reader_over(bytes, QCOW1_HEADER);
    uint32_t magic = read_be32(&r);
    *ret = (struct qcow1_header){.version = read_be32(&r)};
    ret->backing_offset = read_be64(&r);
    ret->backing_size = read_be32(&r);
    ret->mtime = read_be32(&r);
    ret->size = read_be64(&r);
    ret->cluster_bits = read_u8(&r);
    ret->l2_bits = read_u8(&r);
    ret->padding = read_be16(&r);
    ret->crypt_method = read_be32(&r);
    ret->l1_offset = read_be64(&r);
    return magic == MAGIC;
}

void qcow1_header_encode(const struct qcow1_header *h, uint8_t bytes[QCOW1_HEADER])
{
    struct writer w = writer_over(bytes, QCOW1_HEADER);
    write_be32(&w, MAGIC);
    write_be32(&w, h->version);
    write_be64(&w, h->backing_offset);
    write_be32(&w, h->backing_size);
    write_be32(&w, h->mtime);
    write_be64(&w, h->size);
    write_u8(&w, (uint8_t)h->cluster_bits);
    write_u8(&w, (uint8_t)h->l2_bits);
    write_be16(&w, (uint16_t)h->padding);
    write_be32(&w, h->crypt_method);
    write_be64(&w, h->l1_offset);
}

uint64_t qcow1_l1_entries(const struct qcow1_header *h, uint64_t size)
{
    return div_up(size, UINT64_C(1) << qcow1_l1_bits(h));
}

/* A number that must be in a range. */
static int check_bits(const char *name, const char *field, uint32_t value, uint32_t min,
                      uint32_t max, struct platter_error *err)
{
    if (value >= min && value <= max)
        return 0;
    return fail(err, PLATTER_ECORRUPT,
                "%s: header field %s is %" PRIu32 ", but must be from %" PRIu32 " to %" PRIu32,
                name, field, value, min, max);
}

int qcow1_header_check_shape(const char *name, const struct qcow1_header *h, uint64_t file_size,
                             struct platter_error *err)
{
    if (h->version != 1)
        return fail(err, ENOTSUP,
                    "%s: header field version is %" PRIu32
                    ", but only 1 is qcow; 2 and 3 are qcow2",
                    name, h->version);
    int r = check_bits(name, "cluster_bits", h->cluster_bits, QCOW1_MIN_CLUSTER_BITS,
                       QCOW1_MAX_CLUSTER_BITS, err);
    if (r == 0)
        r = check_bits(name, "l2_bits", h->l2_bits, QCOW1_MIN_L2_BITS, QCOW1_MAX_L2_BITS, err);
    if (r < 0)
        return r;
    if (h->size < 2 || h->size > QCOW1_MAX_SIZE)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: header field size is %" PRIu64 ", but must be from 2 to 2^63 - 1", name,
                    h->size);
    uint64_t l1 = qcow1_l1_entries(h, h->size) * 8;
    if (l1 > QCOW1_MAX_L1_BYTES)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: header field size is %" PRIu64 ", for which an L1 table of %" PRIu64
                    " bytes is needed, more than the %d that are read",
                    name, h->size, l1, QCOW1_MAX_L1_BYTES);
    if (h->l1_offset < QCOW1_HEADER)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: header field l1_table_offset is %" PRIu64
                    ", inside of the header, which has %d bytes",
                    name, h->l1_offset, QCOW1_HEADER);
    if (!range_inside(h->l1_offset, l1, file_size))
        return fail(err, PLATTER_ECORRUPT,
                    "%s: header field l1_table_offset is %" PRIu64 ", but the file ends at %" PRIu64
                    " and the L1 table has %" PRIu64 " bytes: it was cut short, or is damaged",
                    name, h->l1_offset, file_size, l1);
    return 0;
}

int qcow1_header_check_backing(const char *name, const struct qcow1_header *h, uint64_t file_size,
                               struct platter_error *err)
{
    if (h->backing_offset == 0 || h->backing_size == 0)
        return 0;
    if (h->backing_size > QCOW1_MAX_NAME)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: header field backing_file_size is %" PRIu32 ", but must be at most %d",
                    name, h->backing_size, QCOW1_MAX_NAME);
    if (h->backing_offset < QCOW1_HEADER ||
        !range_inside(h->backing_offset, h->backing_size, file_size))
        return fail(err, PLATTER_ECORRUPT,
                    "%s: header field backing_file_offset is %" PRIu64 ", but the name of %" PRIu32
                    " bytes must stand between the header and the end of the file, which has "
                    "%" PRIu64 " bytes",
                    name, h->backing_offset, h->backing_size, file_size);
    uint64_t l1 = qcow1_l1_entries(h, h->size) * 8;
    if (h->backing_offset < h->l1_offset + l1 && h->l1_offset < h->backing_offset + h->backing_size)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: header field backing_file_offset is %" PRIu64
                    ", inside of the L1 table, which stands at %" PRIu64 " with %" PRIu64 " bytes",
                    name, h->backing_offset, h->l1_offset, l1);
    return 0;
}

int qcow1_header_check(const char *name, const struct qcow1_header *h, uint64_t file_size,
                       struct platter_error *err)
{
    int r = qcow1_header_check_shape(name, h, file_size, err);
    if (r < 0)
        return r;
    if (h->crypt_method > 1)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: header field crypt_method is %" PRIu32
                    ", but only 0 (none) and 1 (AES) are known",
                    name, h->crypt_method);
    return qcow1_header_check_backing(name, h, file_size, err);
}
