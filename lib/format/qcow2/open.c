/* SPDX-License-Identifier: MIT */
/* Opening and closing: cluster 0, then the tables that stay in memory. */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "base/codec.h"
#include "format/qcow2/check.h"
#include "format/qcow2/snapshot.h"

enum { PREFIX = 4096 }; /* of cluster 0: nearly always holds all extensions */

static int load_header(struct image *img, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint8_t bytes[QCOW2_HEADER_NOW];

    int r = stream_size(img->stream, &q->file_size, err);
    if (r < 0)
        return r;
    r = stream_pread_tail(img->stream, bytes, sizeof bytes, 0, err);
    if (r < 0)
        return r;
    if (!qcow2_header_decode(bytes, min_u64(q->file_size, sizeof bytes), &q->header))
        return fail(err, PLATTER_ECORRUPT,
                    "%s: no qcow2 header of version 2 or 3 at offset 0 (the file has %" PRIu64
                    " bytes)",
                    img->stream->name, q->file_size);
    return qcow2_header_check_length(img, &q->header, err);
}

static int load_extensions(struct image *img, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint64_t cluster = UINT64_C(1) << q->header.cluster_bits;
    int r = -ERANGE;

    for (uint64_t len = min_u64(PREFIX, cluster); r == -ERANGE; len = cluster) {
        auto_free uint8_t *bytes = malloc(len);
        if (!bytes)
            return fail_memory(err, "the header");
        r = stream_pread_tail(img->stream, bytes, len, 0, err);
        if (r < 0)
            return r;
        qcow2_extensions_free(&q->extensions);
        r = qcow2_extensions_decode(img, &q->header, bytes, len, &q->extensions, err);
        if (r == -ERANGE && len == cluster)
            return fail(err, PLATTER_ECORRUPT, "%s: header extensions reach past the first cluster",
                        img->stream->name);
    }
    return r;
}

static int load_backing(struct image *img, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    const struct qcow2_header *h = &q->header;

    if (h->backing_offset == 0 || h->backing_size == 0)
        return 0;
    int r = image_read_backing_name(img, h->backing_offset, h->backing_size, err);
    if (r < 0)
        return r;
    if (q->extensions.backing_format) {
        img->backing_format = string_copy(q->extensions.backing_format);
        if (!img->backing_format)
            return fail_memory(err, "the backing file's format");
    }
    return 0;
}

/* What the header allows to be done with the image. */
static int check_use(const struct image *img, struct platter_error *err)
{
    const struct qcow2_header *h = &qcow2_of(img)->header;
    const char *name = img->stream->name;

    if (!img->writable)
        return 0;
    if (h->incompatible & QCOW2_INCOMPATIBLE_CORRUPT)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the image is marked corrupt and is not written to: it must be repaired "
                    "first; reading it is possible",
                    name);
    if (img->view)
        return fail(err, EROFS, "%s: snapshot \"%s\" cannot be written to", name, img->view);
    return 0;
}

static void set_geometry(struct image *img)
{
    struct qcow2 *q = qcow2_of(img);
    bool extended = q->header.incompatible & QCOW2_INCOMPATIBLE_EXTENDED_L2;

    q->cluster_bits = q->header.cluster_bits;
    q->cluster_size = UINT64_C(1) << q->cluster_bits;
    q->entry_size = extended ? 16 : 8;
    q->n_sub = extended ? 32 : 1;
    q->sub_bits = extended ? q->cluster_bits - 5 : q->cluster_bits;
    q->l1_bits = 2 * q->cluster_bits - (extended ? 4 : 3);
    q->slice_bits = q->l1_bits;
    if (q->cluster_size > SLICE_MAX)
        q->slice_bits = q->cluster_bits + 16 - (extended ? 4 : 3);
    q->frozen = !img->writable || img->view;
    q->data_file = q->header.incompatible & QCOW2_INCOMPATIBLE_DATA_FILE;
    /* Encrypted it is not the disk, whatever the image says of it. */
    q->data_raw = q->header.autoclear & QCOW2_AUTOCLEAR_RAW && !q->header.crypt_method;
    q->old_clusters = div_up(q->file_size, q->cluster_size);
    q->taken_end = q->old_clusters << q->cluster_bits;
    q->prepared = !(q->header.autoclear & ~(uint64_t)QCOW2_AUTOCLEAR_RAW);
    img->size = round_down(q->header.size, 512);
    img->unit = (uint32_t)q->cluster_size;
}

/* The L1 table of the disk itself, or of the snapshot that is asked for (section 9.6). */
static int load_l1(struct image *img, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);

    if (!img->view)
        return pointers_load(img, &q->l1, q->header.l1_offset, q->header.l1_size, "the L1 table",
                             err);
    const struct qcow2_snapshot *s = qcow2_snapshot_get(img, img->view, 0, err);
    int r = s ? qcow2_snapshot_check(img, s, err) : -ENOENT;
    if (r < 0)
        return r;
    img->size = round_down(s->disk_size, 512);
    return pointers_load(img, &q->l1, s->l1_offset, s->l1_size, "the snapshot's L1 table", err);
}

static int open_data_file(struct image *img, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);

    q->data = img->stream;
    if (!q->data_file || img->query)
        return 0;
    if (!q->extensions.data_file)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the image has an external data file, but does not say its name",
                    img->stream->name);
    struct stream *data;
    int r = img->opener->open(img->opener, img, q->extensions.data_file, PLATTER_NAME_DATA_FILE,
                              img->writable, &data, err);
    if (r < 0)
        return r;
    q->data = data;
    return stream_size(q->data, &q->data_size, err);
}

static int load_tables(struct image *img, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint64_t share = budget_limit(img->budget);

    int r = load_l1(img, err);
    if (r == 0)
        r = slices_init(img, &q->l2, &q->changed, "L2 table", q->cluster_size, share / 4, err);
    if (r < 0 || !img->writable)
        return r;
    r = slices_init(img, &q->blocks, &q->changed, "refcount block", q->cluster_size, share / 16,
                    err);
    if (r == 0)
        r = pointers_load(img, &q->reftable, q->header.reftable_offset,
                          (uint32_t)(q->header.reftable_clusters * q->cluster_size / 8),
                          "the refcount table", err);
    return r;
}

static int check_name(const struct image *img, struct platter_error *err)
{
    const struct qcow2_header *h = &qcow2_of(img)->header;
    if (h->backing_offset &&
        (h->backing_size > QCOW2_MAX_NAME ||
         !range_inside(h->backing_offset, h->backing_size, UINT64_C(1) << h->cluster_bits)))
        return fail(err, PLATTER_ECORRUPT,
                    "%s: header fields backing_file_offset %" PRIu64
                    " and backing_file_size %" PRIu32
                    " must lie in the first cluster, with at most 1023 bytes",
                    img->stream->name, h->backing_offset, h->backing_size);
    return 0;
}

/* After an unclean end the counts may be stale (section 7): they are made right before the first
 * change. */
static int make_clean(struct image *img, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    if (!img->writable || !(q->header.incompatible & QCOW2_INCOMPATIBLE_DIRTY))
        return 0;
    int r = qcow2_repair_dirty(img, err);
    if (r == 0)
        r = load_header(img, err);
    if (r == 0)
        r = load_extensions(img, err);
    return r < 0 ? r : qcow2_header_check(img, &q->header, q->file_size, err);
}

/* For a check nothing is believed but what cluster 0 itself says; what is wrong there is kept. */
static int open_for_check(struct image *img, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    struct qcow2_checkup *checkup = q->checkup = calloc(1, sizeof *checkup);
    if (!checkup)
        return fail_memory(err, "a check");
    int r = load_header(img, err);
    if (r < 0)
        return r;
    checkup->code = load_extensions(img, &checkup->why);
    set_geometry(img);
    if (checkup->code == 0)
        checkup->code = check_name(img, &checkup->why);
    if (checkup->code == 0)
        checkup->code = load_backing(img, &checkup->why);
    if (checkup->code < 0 && checkup->code != -PLATTER_ECORRUPT)
        return fail(err, -checkup->code, "%s", checkup->why.message);
    return 0;
}

int qcow2_open(struct image *img, struct platter_error *err)
{
    struct qcow2 *q = calloc(1, sizeof *q);
    if (!q)
        return fail_memory(err, "an image");
    img->state = q;
    q->data = img->stream;
    pthread_cond_init(&q->changed, NULL);
    if (img->checking)
        return open_for_check(img, err);

    int r = load_header(img, err);
    if (r == 0)
        r = load_extensions(img,
                            err); /* first: an unknown feature may change what the rest means */
    if (r == 0)
        r = qcow2_header_check(img, &q->header, q->file_size, err);
    if (r == 0)
        r = check_name(img, err);
    if (r == 0)
        r = check_use(img, err);
    if (r < 0)
        return r;
    set_geometry(img);
    enum codec codec = q->header.compression == QCOW2_ZSTD ? CODEC_ZSTD : CODEC_DEFLATE;
    if (!img->query && (r = codec_check(codec, err)) < 0)
        return fail_in(err, r, "%s", img->stream->name);
    if (r == 0)
        r = load_backing(img, err);
    if (r == 0)
        r = make_clean(img, err);
    if (r == 0)
        r = qcow2_snapshots_load(img, err);
    if (r == 0)
        r = load_tables(img, err);
    if (r == 0)
        r = open_data_file(img, err);
    if (r == 0)
        r = qcow2_crypt_open(img, err);
    if (r == 0 && img->writable)
        r = qcow2_check_length(img, err);
    if (r == 0 && img->writable && !img->checking)
        r = qcow2_bitmaps_open(img, err);
    return r;
}

/* A record at the end of the file takes whole sectors (section 5). Nobody else is at work here, who
 * might write behind the end. */
static int pad_file(struct image *img, struct platter_error *err)
{
    uint64_t size;
    int r = stream_size(img->stream, &size, err);
    return r < 0 || size % 512 == 0 ? r : stream_resize(img->stream, round_up(size, 512), err);
}

int qcow2_close(struct image *img, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    int r = 0;

    if (!q)
        return 0;
    if (img->writable)
        r = qcow2_bitmaps_close(img, err);
    if (q->pad && atomic_load(&img->poison) == 0) {
        int padded = pad_file(img, r < 0 ? NULL : err);
        r = r < 0 ? r : padded;
    }
    qcow2_bitmaps_free(img);
    if (q->data != img->stream)
        stream_close(q->data);
    slices_free(img, &q->l2);
    slices_free(img, &q->blocks);
    pointers_free(img, &q->l1);
    pointers_free(img, &q->reftable);
    qcow2_snapshots_free(img);
    qcow2_crypt_close(img);
    qcow2_extensions_free(&q->extensions);
    budget_give(img->budget, q->room_frees * sizeof *q->frees);
    free(q->frees);
    free(q->checkup);
    pthread_cond_destroy(&q->changed);
    free(q);
    img->state = NULL;
    return r;
}
