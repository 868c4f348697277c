/* SPDX-License-Identifier: MIT */
/*
 * Another cluster 0 for an image that is there (section 2.1): other extensions, another backing
 * file's name, other features, so that a crash leaves the old one or the new one.
 *
 * Sectors are written at once or not at all. So the header and all extensions are laid out in the
 * first sector, where the names of features are left out if they do not fit; the backing file's
 * name goes there too, or to a place that the old cluster 0 does not use, durably, before the first
 * sector says where it is. Where even the extensions need more than a sector, the cluster is
 * written as it comes: there is no better order then.
 */
#include <inttypes.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow2/qcow2.h"

enum { SECTOR = 512, HEADER_LENGTH_AT = 100 };

/* ---- what is to change -------------------------------------------------------------------------
 */

int qcow2_rewrite_text(char **text, const char *value, struct platter_error *err)
{
    char *copy = value ? string_copy(value) : NULL;
    if (value && !copy)
        return fail_memory(err, "a name in the header");
    free(*text);
    *text = copy;
    return 0;
}

int qcow2_rewrite_begin(const struct image *img, struct qcow2_rewrite *w, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    const struct qcow2_extensions *old = &q->extensions;

    *w = (struct qcow2_rewrite){.header = q->header, .extensions = *old};
    struct qcow2_extensions *x = &w->extensions;
    x->backing_format = x->data_file = NULL;
    x->unknown = NULL;
    int r = qcow2_rewrite_text(&x->backing_format, old->backing_format, err);
    if (r == 0)
        r = qcow2_rewrite_text(&x->data_file, old->data_file, err);
    if (r == 0)
        r = qcow2_rewrite_text(&w->backing_name, img->backing_name, err);
    if (r == 0 && old->unknown_len) {
        x->unknown = malloc(old->unknown_len);
        if (x->unknown)
            memcpy(x->unknown, old->unknown, old->unknown_len);
        else
            r = fail_memory(err, "a header extension");
    }
    if (r < 0)
        qcow2_rewrite_end(w);
    return r;
}

void qcow2_rewrite_end(struct qcow2_rewrite *w)
{
    qcow2_extensions_free(&w->extensions);
    free(w->backing_name);
    *w = (struct qcow2_rewrite){0};
}

/* ---- laying it out -----------------------------------------------------------------------------
 */

/* Whether [off, off + len) of cluster 0 is none of what the old one uses behind the first sector.
 */
static bool is_unused(const struct qcow2 *q, hoff off, uint64_t len)
{
    const struct qcow2_header *h = &q->header;
    hoff name = h->backing_offset, name_end = name + h->backing_size;
    return off >= max_u64(SECTOR, q->extensions.end) &&
           (name == 0 || off + len <= name || off >= name_end);
}

/* Where the backing file's name can stand, the list of extensions ending at `end`; 0: nowhere. */
static hoff place_name(const struct qcow2 *q, size_t end, uint64_t len)
{
    if (end + len <= SECTOR)
        return end;
    hoff places[] = {max_u64(SECTOR, round_up(q->extensions.end, 8)),
                     round_up(q->header.backing_offset + q->header.backing_size, 8)};
    for (int i = 0; i < 2; i++)
        if (is_unused(q, places[i], len) && places[i] + len <= q->cluster_size)
            return places[i];
    return 0;
}

struct layout {
    size_t end;  /* of header and extensions */
    hoff name;   /* where the backing file's name stands; 0: there is none */
    size_t len;  /* of what is written last, from the start of the file */
    bool atomic; /* that is one sector */
};

/* Extensions behind the header, in the first `len` bytes. */
static bool lay_out_list(const struct qcow2_rewrite *w, uint8_t *bytes, size_t len,
                         bool with_features, struct layout *l)
{
    struct writer list = writer_over(bytes, len);
    list.pos = w->header.length;
    list.failed = list.pos > len;
    qcow2_extensions_encode(&w->extensions, with_features, &list);
    l->end = list.pos;
    return !list.failed;
}

/* All of it into `bytes`, a whole cluster with what stands there now. */
static bool lay_out(const struct qcow2 *q, struct qcow2_rewrite *w, uint8_t *bytes,
                    struct layout *l)
{
    size_t name_len = w->backing_name ? strlen(w->backing_name) : 0;
    bool new_enough = w->header.version >= 3;

    *l = (struct layout){.len = SECTOR};
    l->atomic = (new_enough && lay_out_list(w, bytes, SECTOR, true, l)) ||
                lay_out_list(w, bytes, SECTOR, false, l);
    if (l->atomic) /* what a longer attempt or the old list left */
        memset(bytes + l->end, 0, SECTOR - l->end);
    if (l->atomic && w->backing_name) {
        l->name = place_name(q, l->end, name_len);
        l->atomic = l->name != 0;
    }
    if (!l->atomic) {
        if (!lay_out_list(w, bytes, q->cluster_size, false, l))
            return false;
        l->name = w->backing_name ? l->end : 0;
        l->len = l->end + name_len;
    }
    if (l->name + name_len > q->cluster_size)
        return false;
    if (w->backing_name)
        memcpy(bytes + l->name, w->backing_name, name_len);
    w->header.backing_offset = l->name;
    w->header.backing_size = (uint32_t)name_len;
    w->extensions.end = l->end;
    /* Fields behind those we know stay as they are. */
    struct qcow2_header h = w->header;
    struct writer head = writer_over(bytes, SECTOR);
    h.length = (uint32_t)min_u64(h.length, QCOW2_HEADER_NOW);
    qcow2_header_encode(&h, &head);
    if (new_enough)
        put_be(bytes + HEADER_LENGTH_AT, 4, w->header.length);
    return !head.failed;
}

/* ---- writing it --------------------------------------------------------------------------------
 */

static int write_out(struct image *img, const struct qcow2_rewrite *w, const struct layout *l,
                     const uint8_t *bytes, struct platter_error *err)
{
    int r = 0;
    if (l->atomic && l->name + w->header.backing_size > SECTOR) {
        r = image_meta_write(img, bytes + l->name, w->header.backing_size, l->name, err);
        if (r == 0)
            r = qcow2_barrier(img, err);
    }
    if (r == 0)
        r = image_meta_write(img, bytes, l->len, 0, err);
    return r < 0 ? r : qcow2_barrier(img, err);
}

static int take_over(struct image *img, struct qcow2_rewrite *w, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    int r = qcow2_rewrite_text(&img->backing_name, w->backing_name, err);
    if (r == 0)
        r = qcow2_rewrite_text(&img->backing_format, w->extensions.backing_format, err);
    if (r < 0) /* the file says more than we know of it */
        return image_poison(img, r);
    img->has_backing = w->backing_name != NULL;
    struct qcow2_extensions old = q->extensions;
    q->extensions = w->extensions;
    q->header = w->header;
    w->extensions = old;
    return 0;
}

static int fail_room(const struct image *img, struct platter_error *err)
{
    return fail(err, ENOSPC,
                "%s: no room in the header's cluster of %" PRIu64
                " bytes: take a shorter name for the backing file",
                img->stream->name, qcow2_of(img)->cluster_size);
}

int qcow2_rewrite_commit(struct image *img, struct qcow2_rewrite *w, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    auto_free uint8_t *bytes = malloc(q->cluster_size);
    struct layout l;

    if (!bytes)
        return fail_memory(err, "the header");
    pthread_mutex_unlock(&img->lock);
    int r = stream_pread_tail(img->stream, bytes, q->cluster_size, 0, err);
    pthread_mutex_lock(&img->lock);
    if (r < 0)
        return r;
    if (!lay_out(q, w, bytes, &l))
        return fail_room(img, err);
    r = write_out(img, w, &l, bytes, err);
    return r < 0 ? r : take_over(img, w, err);
}

/* ---- another backing file ----------------------------------------------------------------------
 */

static int check_backing(const struct image *img, const char *name, const char *format,
                         struct platter_error *err)
{
    const char *image = img->stream->name;
    if (!name)
        return 0;
    if (qcow2_of(img)->data_raw)
        return fail(err, EINVAL,
                    "%s: its data file is the disk as it is (data_file_raw), which a backing file "
                    "would contradict",
                    image);
    if (strlen(name) > QCOW2_MAX_NAME)
        return fail(err, EINVAL, "%s: the name of the backing file is longer than %d bytes", image,
                    QCOW2_MAX_NAME);
    if (format && strlen(format) > QCOW2_MAX_FORMAT_NAME)
        return fail(err, EINVAL, "%s: the name of the backing format is longer than %d bytes",
                    image, QCOW2_MAX_FORMAT_NAME);
    return 0;
}

/* The cluster 0 that names another backing file, or none. */
static int plan_backing(const struct image *img, struct qcow2_rewrite *w, const char *name,
                        const char *format, struct platter_error *err)
{
    int r = qcow2_rewrite_begin(img, w, err);
    if (r == 0)
        r = qcow2_rewrite_text(&w->backing_name, name, err);
    if (r == 0)
        r = qcow2_rewrite_text(&w->extensions.backing_format, name ? format : NULL, err);
    return r;
}

int qcow2_may_set_backing(struct image *img, const char *name, const char *format,
                          const struct image *backing, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    auto_free uint8_t *bytes = calloc(1, q->cluster_size);
    struct qcow2_rewrite w = {0};
    struct layout l;

    (void)backing;
    int r = check_backing(img, name, format, err);
    if (r == 0 && !bytes)
        r = fail_memory(err, "the header");
    if (r == 0)
        r = plan_backing(img, &w, name, format, err);
    if (r == 0 && !lay_out(q, &w, bytes, &l))
        r = fail_room(img, err);
    qcow2_rewrite_end(&w);
    return r;
}

int qcow2_set_backing(struct image *img, const char *name, const char *format,
                      const struct image *backing, struct platter_error *err)
{
    struct qcow2_rewrite w;
    (void)backing;
    int r = check_backing(img, name, format, err);
    if (r == 0)
        r = qcow2_enter(img, err);
    if (r < 0)
        return r;
    r = plan_backing(img, &w, name, format, err);
    if (r == 0) /* what was copied for it is durable before */
        r = qcow2_flush_locked(img, err);
    if (r == 0)
        r = qcow2_barrier(img, err);
    if (r == 0)
        r = qcow2_rewrite_commit(img, &w, err);
    qcow2_rewrite_end(&w);
    qcow2_leave(img);
    return r;
}
