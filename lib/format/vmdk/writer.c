/* SPDX-License-Identifier: MIT */
/*
 * streamOptimized, written front to back with its directory and footer at the end, as VMware does:
 * vmdk.md sections 5.1 to 5.5 (A).
 *
 * Nothing is ever written twice, so a pipe and a file get the same bytes, but for the CID: that
 * must differ between any two disks, and stands in front of what makes them differ, so it is left
 * to chance.
 */
#include <inttypes.h>

#include "base/codec.h"
#include "format/vmdk/vmdk.h"

enum {
    GRAIN_BYTES = VMDK_GRAIN * VMDK_SECTOR,
    RECORD_MAX = GRAIN_BYTES + VMDK_SECTOR, /* what other readers have room for: section 5.1 */
    GT_BYTES = VMDK_GTES * 4,
    BUFFER_BYTES = 1 << 20 /* written at once */
};

struct stream_writer {
    struct image_writer w;
    struct stream *stream;
    struct budget *budget;
    struct hosted_header header;
    uint8_t *buffer; /* BUFFER_BYTES that are not yet written */
    size_t fill;
    hoff written;     /* bytes of the file before the buffer */
    uint32_t *gd;     /* one entry for each table */
    uint64_t gd_size; /* bytes */
    uint64_t tables;
    uint64_t table; /* the one being filled */
    bool used;      /* it has an entry */
    uint8_t gt[GT_BYTES];
    goff next; /* appends go on here or behind */
};

/* ---- the output ------------------------------------------------------------------------------ */

static int drain(struct stream_writer *s, struct platter_error *err)
{
    int r = stream_pwrite(s->stream, s->buffer, s->fill, s->written, err);
    s->written += s->fill;
    s->fill = 0;
    return r;
}

static int put(struct stream_writer *s, const void *bytes, size_t len, struct platter_error *err)
{
    const uint8_t *from = bytes;
    while (len > 0) {
        size_t n = (size_t)min_u64(len, BUFFER_BYTES - s->fill);
        memcpy(s->buffer + s->fill, from, n);
        s->fill += n;
        from += n;
        len -= n;
        int r = s->fill == BUFFER_BYTES ? drain(s, err) : 0;
        if (r < 0)
            return r;
    }
    return 0;
}

static int put_zeros(struct stream_writer *s, size_t len, struct platter_error *err)
{
    static const uint8_t zeros[VMDK_SECTOR];
    int r = 0;
    for (size_t n; len > 0 && r == 0; len -= n) {
        n = (size_t)min_u64(len, sizeof zeros);
        r = put(s, zeros, n, err);
    }
    return r;
}

static int put_marker(struct stream_writer *s, enum marker type, uint64_t sectors,
                      struct platter_error *err)
{
    uint8_t sector[VMDK_SECTOR];
    marker_encode(type, sectors, sector);
    return put(s, sector, sizeof sector, err);
}

/* The sector that comes next; tables can only name the first 2^32. */
static int here(const struct stream_writer *s, uint32_t *ret, struct platter_error *err)
{
    uint64_t sector = (s->written + s->fill) / VMDK_SECTOR;
    if (sector > UINT32_MAX)
        return fail(err, EFBIG, "%s: a VMDK file cannot grow beyond 2 TiB", s->stream->name);
    *ret = (uint32_t)sector;
    return 0;
}

/* ---- the writer ------------------------------------------------------------------------------ */

static size_t stream_bound(const struct image_writer *w)
{
    (void)w;
    return RECORD_MAX;
}

/* Every grain is packed whole: some readers reject a shorter last one. */
static int stream_encode(struct image_writer *w, goff off, const void *data, size_t len, void *out,
                         size_t *ret_len, struct platter_error *err)
{
    (void)w;
    auto_free uint8_t *whole = NULL;
    uint8_t *record = out;
    if (len < GRAIN_BYTES) {
        whole = calloc(1, GRAIN_BYTES);
        if (!whole)
            return fail_memory(err, "a grain");
        memcpy(whole, data, len);
        data = whole;
    }
    size_t packed;
    int r = codec_pack(CODEC_ZLIB, data, GRAIN_BYTES, record + RECORD_HEAD,
                       RECORD_MAX - RECORD_HEAD, &packed, err);
    if (r == -E2BIG)
        return fail(err, E2BIG, "the grain at guest offset %" PRIu64 " does not fit a record", off);
    if (r < 0)
        return r;
    put_le(record, 8, off / VMDK_SECTOR);
    put_le(record + 8, 4, packed);
    *ret_len = round_up(RECORD_HEAD + packed, VMDK_SECTOR);
    memset(record + RECORD_HEAD + packed, 0, *ret_len - RECORD_HEAD - packed);
    return 0;
}

/* Ends a table. One without entries is left out. */
static int end_table(struct stream_writer *s, struct platter_error *err)
{
    if (!s->used)
        return 0;
    int r = put_marker(s, MARKER_GT, GT_BYTES / VMDK_SECTOR, err);
    if (r == 0)
        r = here(s, &s->gd[s->table], err);
    if (r == 0)
        r = put(s, s->gt, GT_BYTES, err);
    memset(s->gt, 0, GT_BYTES);
    s->used = false;
    return r;
}

static int stream_append(struct image_writer *w, goff off, size_t len, const void *packed,
                         size_t packed_len, struct platter_error *err)
{
    struct stream_writer *s = (struct stream_writer *)w;
    uint64_t grain = off / GRAIN_BYTES;
    if (off < s->next || off % GRAIN_BYTES != 0 || grain / VMDK_GTES >= s->tables)
        return fail(err, EINVAL, "%s: guest offset %" PRIu64 " cannot be written behind %" PRIu64,
                    s->stream->name, off, s->next);
    s->next = off + len;
    int r = 0;
    if (grain / VMDK_GTES != s->table) {
        r = end_table(s, err);
        s->table = grain / VMDK_GTES;
    }
    uint32_t sector = 0;
    if (r == 0)
        r = here(s, &sector, err);
    if (r < 0)
        return r;
    put_le(s->gt + grain % VMDK_GTES * 4, 4, sector);
    s->used = true;
    return put(s, packed, packed_len, err);
}

static int put_directory(struct stream_writer *s, struct platter_error *err)
{
    uint64_t sectors = max_u64(div_up(s->gd_size, VMDK_SECTOR), 1);
    uint32_t sector = 0;
    int r = put_marker(s, MARKER_GD, sectors, err);
    if (r == 0)
        r = here(s, &sector, err);
    if (r < 0)
        return r;
    s->header.gd_offset = sector;
    for (uint64_t i = 0; i < s->tables && r == 0; i++) {
        uint8_t entry[4];
        put_le(entry, 4, s->gd[i]);
        r = put(s, entry, sizeof entry, err);
    }
    return r < 0 ? r : put_zeros(s, (size_t)(sectors * VMDK_SECTOR - s->gd_size), err);
}

static int stream_finish(struct image_writer *w, struct platter_error *err)
{
    struct stream_writer *s = (struct stream_writer *)w;
    uint8_t footer[VMDK_SECTOR];
    int r = end_table(s, err);
    if (r == 0)
        r = put_directory(s, err);
    if (r == 0)
        r = put_marker(s, MARKER_FOOTER, 1, err);
    if (r == 0) {
        hosted_encode(&s->header, footer);
        r = put(s, footer, sizeof footer, err);
    }
    if (r == 0)
        r = put_marker(s, MARKER_EOS, 0, err);
    return r < 0 || s->fill == 0 ? r : drain(s, err);
}

static void stream_writer_close(struct image_writer *w)
{
    struct stream_writer *s = (struct stream_writer *)w;
    if (!s)
        return;
    budget_free(s->budget, s->buffer, BUFFER_BYTES);
    budget_free(s->budget, s->gd, s->gd_size);
    free(s);
}

static const struct writer_ops stream_writer_ops = {
    .encode_bound = stream_bound,
    .encode = stream_encode,
    .append = stream_append,
    .finish = stream_finish,
    .close = stream_writer_close,
};

/* ---- beginning ------------------------------------------------------------------------------- */

/* Header and descriptor, up to the first grain. */
static int put_front(struct stream_writer *s, const struct create_request *request,
                     struct platter_error *err)
{
    uint8_t front[(1 + VMDK_DESCRIPTOR_SECTORS) * VMDK_SECTOR];
    struct descriptor_plan plan;
    int r = vmdk_plan(request, &plan, err);
    if (r < 0)
        return r;
    static const char *const file = "generated-stream.vmdk"; /* readers ignore it: section 3.8 */
    plan.files = &file;
    plan.n_files = 1;
    plan.piece = plan.sectors;
    s->header = (struct hosted_header){
        .version = 3,
        .flags = HOSTED_NEWLINES | HOSTED_COMPRESSED | HOSTED_MARKERS |
                 (options_bool(request->options, "zeroed_grain") ? HOSTED_ZEROED : 0),
        .capacity = plan.sectors,
        .grain_size = VMDK_GRAIN,
        .descriptor_offset = VMDK_DESCRIPTOR_SECTOR,
        .descriptor_size = VMDK_DESCRIPTOR_SECTORS,
        .gtes_per_gt = VMDK_GTES,
        .gd_offset = HOSTED_GD_AT_END,
        .overhead = VMDK_GRAIN,
        .compression = 1,
    };
    hosted_encode(&s->header, front);
    r = descriptor_compose_embedded(&plan, request->name, front + VMDK_SECTOR, err);
    if (r == 0)
        r = put(s, front, sizeof front, err);
    return r < 0 ? r : put_zeros(s, VMDK_GRAIN * VMDK_SECTOR - sizeof front, err);
}

int vmdk_writer_open(const struct create_request *request, struct image_writer **ret,
                     struct platter_error *err)
{
    struct stream_writer *s = calloc(1, sizeof *s);
    if (!s)
        return fail_memory(err, "a VMDK writer");
    s->w.ops = &stream_writer_ops;
    s->w.unit = GRAIN_BYTES;
    s->stream = request->stream;
    s->budget = request->budget;
    int r = budget_alloc(s->budget, BUFFER_BYTES, "a VMDK writer", &s->buffer, err);
    if (r == 0)
        r = put_front(s, request, err); /* with the limits of the size */
    s->tables = div_up(request->size, (uint64_t)GRAIN_BYTES * VMDK_GTES);
    s->gd_size = s->tables * 4;
    if (r == 0)
        r = budget_alloc(s->budget, s->gd_size, "a VMDK grain directory", &s->gd, err);
    if (r < 0) {
        stream_writer_close(&s->w);
        return r;
    }
    *ret = &s->w;
    return 0;
}
