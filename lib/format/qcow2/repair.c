/* SPDX-License-Identifier: MIT */
/*
 * What every repair of a qcow2 needs: its marks in the header, barriers, and room for what it
 * makes, where nothing that may still be of use is overwritten.
 */
#include <inttypes.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow2/check.h"

enum { FEATURES_AT = 72, FEATURES_SIZE = 24 };

/* The three masks stand side by side in one sector: section 2. */
static int write_features(struct qcow2_check *k, const struct qcow2_header *h,
                          struct platter_error *err)
{
    uint8_t bytes[FEATURES_SIZE];
    struct writer w = writer_over(bytes, sizeof bytes);
    write_be64(&w, h->incompatible);
    write_be64(&w, h->compatible);
    write_be64(&w, h->autoclear);
    int r = stream_pwrite(k->img->stream, bytes, sizeof bytes, FEATURES_AT, err);
    if (r == 0)
        r = stream_flush(k->img->stream, err);
    if (r == 0)
        k->q->header = *h;
    return r;
}

/* Before the first change: whoever opens what a crash leaves repairs it, and autoclear bits of
 * programs that know more than we do are cleared. Version 2 has no such bits. */
int qcow2_repair_begin(struct qcow2_check *k, struct platter_error *err)
{
    struct qcow2_header h = k->q->header;
    int r = 0;
    h.incompatible |= QCOW2_INCOMPATIBLE_DIRTY;
    h.autoclear &= QCOW2_AUTOCLEAR_BITMAPS | QCOW2_AUTOCLEAR_RAW;
    if (!k->q->data_file)
        h.autoclear &= ~(uint64_t)QCOW2_AUTOCLEAR_RAW;
    if (h.version >= 3)
        r = write_features(k, &h, err);
    k->begun = r == 0;
    return r;
}

int qcow2_repair_write(struct qcow2_check *k, const void *bytes, size_t len, hoff off,
                       struct platter_error *err)
{
    int r = k->begun ? 0 : qcow2_repair_begin(k, err);
    if (r == 0)
        r = stream_pwrite(k->img->stream, bytes, len, off, err);
    k->changed = true;
    return r;
}

int qcow2_repair_barrier(struct qcow2_check *k, struct platter_error *err)
{
    int r = k->changed ? stream_flush(k->img->stream, err) : 0;
    k->changed = false;
    return r;
}

int qcow2_repair_settle(struct qcow2_check *k, struct platter_error *err)
{
    int r = k->begun ? 0 : qcow2_repair_begin(k, err);
    return r < 0 ? r : qcow2_repair_barrier(k, err);
}

int qcow2_repair_fill(struct qcow2_check *k, struct platter_error *err)
{
    uint64_t size, whole = round_up(k->q->file_size, k->q->cluster_size);
    int r = k->begun ? 0 : qcow2_repair_begin(k, err);
    if (r == 0)
        r = stream_size(k->img->stream, &size, err);
    if (r == 0 && size < whole) /* what was made behind it fills it, too */
        r = stream_resize(k->img->stream, whole, err);
    if (r < 0)
        return r;
    k->q->file_size = whole;
    k->changed = true;
    return 0;
}

int qcow2_repair_append(struct qcow2_check *k, uint64_t len, hoff *ret, struct platter_error *err)
{
    *ret = k->end;
    k->end = round_up(k->end + len, k->q->cluster_size);
    if (k->end > QCOW2_MAX_OFFSET)
        return fail(err, EFBIG, "%s: the file would be larger than qcow2 allows", k->name);
    return 0;
}

int qcow2_repair_bitmaps_extension(struct qcow2_check *k, uint32_t n, hoff directory, uint64_t size,
                                   struct platter_error *err)
{
    struct qcow2_rewrite w;
    int r = qcow2_repair_settle(k, err);
    if (r == 0)
        r = qcow2_rewrite_begin(k->img, &w, err);
    if (r < 0)
        return r;
    w.extensions.has_bitmaps = n > 0;
    w.extensions.n_bitmaps = n;
    w.extensions.bitmap_directory = directory;
    w.extensions.bitmap_directory_size = size;
    if (n == 0)
        w.header.autoclear &= ~(uint64_t)QCOW2_AUTOCLEAR_BITMAPS;
    pthread_mutex_lock(&k->img->lock);
    k->q->busy = true;
    r = qcow2_rewrite_commit(k->img, &w, err);
    k->q->busy = false;
    pthread_mutex_unlock(&k->img->lock);
    qcow2_rewrite_end(&w);
    return r;
}

int qcow2_repair_end(struct qcow2_check *k, struct platter_error *err)
{
    struct qcow2_header h = k->q->header;
    const uint64_t marks = QCOW2_INCOMPATIBLE_DIRTY | QCOW2_INCOMPATIBLE_CORRUPT;
    const struct platter_check_result *found = &k->check->result;
    int r = qcow2_repair_barrier(k, err);
    if (r < 0 || h.version < 3 || !(h.incompatible & marks) || found->corruptions ||
        found->check_errors)
        return r;
    h.incompatible &= ~marks;
    return write_features(k, &h, err);
}
