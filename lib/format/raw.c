/* SPDX-License-Identifier: MIT */
/*
 * raw: the disk as it is. The simplest format, and the one to read before adding another.
 *
 * Every guest offset stands at the same host offset. There are no tables, so nothing is ever
 * reserved (`flat`): holes of the file are zeros with a place. Raw has no magic and is never
 * guessed: probe is NULL.
 */
#include "format/format.h"

#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "format/raw_states.h"

/* A run of data that the file system told of, all of it: asking again for each part would have it
 * look for the end of the run each time. Holes are not remembered, as somebody might fill them. */
struct raw {
    goff start, end;
};

static int raw_open(struct image *img, struct platter_error *err)
{
    img->unit = 512;
    img->state = calloc(1, sizeof(struct raw));
    if (!img->state)
        return fail_memory(err, "a raw image");
    uint64_t size = 0;
    int r = img->view ? raw_states_open(img, err) : 0;
    if (r == 0)
        r = stream_size(img->stream, &size, err);
    img->size = size;
    return r;
}

static int raw_close(struct image *img, struct platter_error *err)
{
    (void)err;
    free(TAKE(img->state));
    return 0;
}

/* How many bytes from off on are known to be data; 0: nothing is known. */
static uint64_t recall_data(struct image *img, goff off)
{
    const struct raw *raw = img->state;
    WITH_LOCK(&img->lock);
    return off >= raw->start && off < raw->end ? raw->end - off : 0;
}

static void remember_data(struct image *img, goff off, uint64_t len)
{
    struct raw *raw = img->state;
    WITH_LOCK(&img->lock);
    if (!img->writable)
        *raw = (struct raw){off, off + len};
}

/* What the file has lost since it was opened is no hole. */
static int check_not_cut(struct image *img, goff off, uint64_t len, struct platter_error *err)
{
    uint64_t size;
    int r = stream_size(img->stream, &size, err);
    if (r == 0 && !range_inside(off, len, size))
        r = fail(err, PLATTER_ECORRUPT,
                 "%s: has only %" PRIu64 " bytes left of the %" PRIu64
                 " it had when it was opened: offset %" PRIu64 " cannot be read",
                 img->stream->name, size, img->size, max_u64(off, size));
    return r;
}

static int raw_map(struct image *img, goff off, uint64_t len, struct extent *ret,
                   struct platter_error *err)
{
    bool hole = false;
    uint64_t n = min_u64(recall_data(img, off), len);
    int r = 0;
    if (n == 0) {
        r = stream_extents(img->stream, off, img->writable ? len : img->size - off, &n, &hole, err);
        if (r == 0 && !hole)
            remember_data(img, off, n);
        n = min_u64(n, len);
        if (r == 0 && hole)
            r = check_not_cut(img, off, n, err);
    }
    if (r < 0)
        return r;
    *ret = (struct extent){
        .kind = hole ? EXTENT_ZERO : EXTENT_DATA,
        .len = n,
        .in_place = !hole,
        .has_place = hole,
        .looked = true,
        .stream = img->stream,
        .off = off,
    };
    return 0;
}

static int raw_mark(struct image *img, goff off, uint64_t len, enum mark mark, bool unmap,
                    struct platter_error *err)
{
    if (mark == MARK_DISCARD)
        return stream_discard(img->stream, off, len, err);
    return stream_zero(img->stream, off, len, unmap ? STREAM_ZERO_UNMAP : 0, err);
}

static int raw_flush(struct image *img, struct platter_error *err)
{
    return img->ordered ? stream_flush(img->stream, err) : 0;
}

/* ---- creating -------------------------------------------------------------------------------- */

enum raw_preallocation { RAW_OFF, RAW_FALLOC, RAW_FULL };

static const char *const raw_preallocations[] = {"off", "falloc", "full", NULL};

static const struct option_def raw_options[] = {
    {"preallocation", OPTION_ENUM, "off", raw_preallocations, 0, 0,
     "reserve space (falloc), or write zeros to all of it (full)"},
    {0},
};

static int write_zeros(struct stream *s, hoff from, hoff to, struct platter_error *err)
{
    static const uint8_t zeros[1 << 16];
    int r = 0;
    for (hoff off = from; off < to && r == 0; off += sizeof zeros)
        r = stream_pwrite(s, zeros, min_u64(sizeof zeros, to - off), off, err);
    return r;
}

/* A block device keeps its size and its content: it only has to be large enough. */
static int raw_create(const struct create_request *request, struct platter_error *err)
{
    struct stream *s = request->stream;
    uint64_t have;
    int r = stream_size(s, &have, err);
    if (r < 0)
        return r;
    if (have == 0)
        r = stream_resize(s, request->size, err);
    else if (have < request->size)
        r = fail(err, ENOSPC, "%s has %" PRIu64 " bytes, but the disk has %" PRIu64, s->name, have,
                 request->size);
    if (r < 0 || have != 0)
        return r;

    switch ((enum raw_preallocation)options_enum(request->options, "preallocation")) {
    case RAW_OFF:
        break;
    case RAW_FALLOC:
        return stream_allocate(s, 0, request->size, err);
    case RAW_FULL:
        return write_zeros(s, 0, request->size, err);
    }
    return 0;
}

static int raw_measure(uint64_t size, uint64_t data, const struct option_values *options,
                       struct platter_measurement *ret, struct platter_error *err)
{
    (void)data, (void)options, (void)err;
    ret->fully_allocated = size;
    ret->required = size; /* the length of the file, holes included */
    return 0;
}

static uint32_t raw_create_unit(const struct option_values *options)
{
    (void)options;
    return 512;
}

/* ---- resizing -------------------------------------------------------------------------------- */

/* Reserves, or writes, the space from the old end to the new one. */
static int fill_new_space(struct stream *s, hoff from, const struct resize_request *q,
                          struct platter_error *err)
{
    switch (q->preallocation) {
    case PLATTER_PREALLOCATION_OFF:
        return stream_resize(s, q->size, err);
    case PLATTER_PREALLOCATION_FALLOC:
        return stream_allocate(s, from, q->size - from, err);
    case PLATTER_PREALLOCATION_FULL:
        return write_zeros(s, from, q->size, err);
    case PLATTER_PREALLOCATION_METADATA:
        break;
    }
    return fail(err, ENOTSUP, "%s: the raw format has no metadata that could be preallocated",
                s->name);
}

/* A device that is larger than the disk asked for would show all of itself again when it is opened
 * next. */
static int check_device(struct stream *s, uint64_t size, struct platter_error *err)
{
    uint64_t now;
    int r = stream_size(s, &now, err);
    return r < 0 || now == size
               ? r
               : fail(err, ENOTSUP,
                      "%s: has %" PRIu64 " bytes and cannot be made to have %" PRIu64
                      ": it is no file",
                      s->name, now, size);
}

static int raw_resize(struct image *img, const struct resize_request *q, struct platter_error *err)
{
    struct stream *s = img->stream;
    uint64_t old = img->size;
    int r = q->size > old ? fill_new_space(s, old, q, err) : stream_resize(s, q->size, err);
    if (r == 0)
        r = check_device(s, q->size, err);
    if (r == 0)
        r = stream_flush(s, err);
    if (r < 0 && q->size > old)
        stream_resize(s, old, NULL); /* what is half grown has no use */
    if (r == 0)
        img->size = q->size;
    return r;
}

/* ---- front to back: raw on a pipe ------------------------------------------------------------ */

struct raw_writer {
    struct image_writer w;
    struct stream *stream;
    uint64_t size; /* guest bytes in all */
    uint64_t pos;  /* guest bytes written so far */
};

static size_t raw_encode_bound(const struct image_writer *w)
{
    return w->unit;
}

static int raw_encode(struct image_writer *w, goff off, const void *data, size_t len, void *out,
                      size_t *ret_len, struct platter_error *err)
{
    (void)w, (void)off, (void)err;
    memcpy(out, data, len);
    *ret_len = len;
    return 0;
}

static int raw_writer_zeros_to(struct raw_writer *w, uint64_t end, struct platter_error *err)
{
    static const uint8_t zeros[1 << 16];
    int r = 0;
    while (w->pos < end && r == 0) {
        size_t n = (size_t)min_u64(end - w->pos, sizeof zeros);
        r = stream_pwrite(w->stream, zeros, n, w->pos, err);
        w->pos += n;
    }
    return r;
}

static int raw_append(struct image_writer *base, goff off, size_t len, const void *packed,
                      size_t packed_len, struct platter_error *err)
{
    (void)len;
    struct raw_writer *w = (struct raw_writer *)base;
    int r = raw_writer_zeros_to(w, off, err);
    if (r < 0)
        return r;
    w->pos += packed_len;
    return stream_pwrite(w->stream, packed, packed_len, off, err);
}

static int raw_finish(struct image_writer *base, struct platter_error *err)
{
    struct raw_writer *w = (struct raw_writer *)base;
    return raw_writer_zeros_to(w, w->size, err);
}

static void raw_writer_close(struct image_writer *base)
{
    free(base);
}

static const struct writer_ops raw_writer_ops = {
    .encode_bound = raw_encode_bound,
    .encode = raw_encode,
    .append = raw_append,
    .finish = raw_finish,
    .close = raw_writer_close,
};

static int raw_writer_open(const struct create_request *request, struct image_writer **ret,
                           struct platter_error *err)
{
    struct raw_writer *w = calloc(1, sizeof *w);
    if (!w)
        return fail_memory(err, "a raw writer");
    w->w.ops = &raw_writer_ops;
    w->w.unit = 1 << 16;
    w->stream = request->stream;
    w->size = request->size;
    *ret = &w->w;
    return 0;
}

const struct format format_raw = {
    .name = "raw",
    .title = "the disk as it is",
    .no_backing = true,
    .flat = true,
    .open = raw_open,
    .close = raw_close,
    .map = raw_map,
    .mark = raw_mark,
    .flush = raw_flush,
    .resize = raw_resize,
    .create_options = raw_options,
    .create = raw_create,
    .writer_open = raw_writer_open,
    .measure = raw_measure,
    .create_unit = raw_create_unit,
    .file = raw_states_file,
    .info_top = raw_states_info,
    .views = raw_states_views,
    .snapshots = &raw_states_ops,
};
