/* SPDX-License-Identifier: MIT */
/* The two sinks. */
#include "ops/sink.h"

#include <string.h>

#include "base/ckd.h"

int parcel_add(struct parcel *p, const struct piece *piece, struct platter_error *err)
{
    if (p->n_pieces == p->room_for) {
        size_t room = p->room_for ? p->room_for * 2 : 16;
        struct piece *pieces = reallocarray(p->pieces, room, sizeof *pieces);
        if (!pieces)
            return fail_memory(err, "the pieces of a copy");
        p->pieces = pieces;
        p->room_for = room;
    }
    p->pieces[p->n_pieces++] = *piece;
    return 0;
}

/* ---- a disk ---------------------------------------------------------------------------------- */

struct disk_sink {
    struct sink sink;
    struct platter_disk *disk;
    bool compress;
    bool fill; /* only what the disk lacks itself is stored */
    bool late; /* room is not reserved in the order of the disk, but when the data is written */
};

static struct disk_sink *disk_sink_of(struct sink *s)
{
    return (struct disk_sink *)s;
}

static size_t disk_out_len(const struct sink *s, size_t chunk)
{
    return ((const struct disk_sink *)s)->compress ? chunk : 0;
}

/* Packs the unit at the start of data, or leaves it as it is where that saves nothing. A unit cut
 * by the end of the disk is packed with zeros behind it: qcow2.md section 5. One cut by the end of
 * the source, where the target is longer, is not packed: what stands behind it there must stay. */
static int pack_unit(struct disk_sink *s, struct parcel *p, struct piece *piece,
                     struct platter_error *err)
{
    struct image *top = disk_top(s->disk);
    auto_free uint8_t *whole = NULL;
    const uint8_t *unit = piece->bytes;
    if (piece->len < top->unit && piece->off + piece->len < top->size)
        return 0;
    if (piece->len < top->unit) {
        whole = calloc(1, top->unit);
        if (!whole)
            return fail_memory(err, "a cluster");
        memcpy(whole, piece->bytes, piece->len);
        unit = whole;
    }
    size_t len;
    int r = top->format->pack(top, unit, p->out + p->out_used,
                              (size_t)min_u64(top->unit, p->out_len - p->out_used), &len, err);
    if (r == 0) {
        piece->kind = PIECE_PACKED;
        piece->bytes = p->out + p->out_used;
        piece->packed_len = len;
        p->out_used += len;
    }
    return r == -E2BIG ? 0 : r;
}

static int disk_prepare(struct sink *base, struct parcel *p, struct platter_error *err)
{
    struct disk_sink *s = disk_sink_of(base);
    if (!s->compress)
        return 0;
    size_t n = p->n_pieces;
    struct piece *plain = TAKE(p->pieces);
    p->n_pieces = p->room_for = 0;
    p->out_used = 0;
    int r = 0;
    for (size_t i = 0; i < n && r == 0; i++) {
        uint64_t step = plain[i].kind == PIECE_DATA ? base->unit : plain[i].len;
        for (uint64_t done = 0; done < plain[i].len && r == 0; done += step) {
            struct piece piece = plain[i];
            piece.off += done;
            piece.len = min_u64(step, plain[i].len - done);
            if (piece.kind == PIECE_DATA) {
                piece.bytes += done;
                r = pack_unit(s, p, &piece, err);
            }
            if (r == 0)
                r = parcel_add(p, &piece, err);
        }
    }
    free(plain);
    return r;
}

static int disk_place(struct sink *base, struct parcel *p, struct platter_error *err)
{
    struct disk_sink *s = disk_sink_of(base);
    for (size_t i = 0; i < p->n_pieces && !s->late; i++) {
        struct piece *piece = &p->pieces[i];
        if (piece->kind == PIECE_ZERO)
            continue;
        piece->placed = true;
        int r = piece->kind == PIECE_DATA
                    ? disk_write_begin(s->disk, piece->off, piece->len, &piece->write, err)
                    : disk_write_packed_begin(s->disk, piece->off, piece->packed_len, &piece->write,
                                              err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int fill_piece(struct disk_sink *s, struct piece *piece, struct platter_error *err)
{
    int r = disk_fill_begin(s->disk, piece->off, piece->len, &piece->write, err);
    int e = disk_fill_end(&piece->write, r < 0 ? NULL : piece->bytes, r < 0 ? NULL : err);
    return r < 0 ? r : e;
}

static int store_piece(struct disk_sink *s, struct piece *piece, bool failed,
                       struct platter_error *err)
{
    const uint8_t *bytes = failed ? NULL : piece->bytes;
    switch (piece->kind) {
    case PIECE_ZERO:
        if (s->fill)
            return failed ? 0 : disk_fill_zero(s->disk, piece->off, piece->len, err);
        return failed ? 0 : disk_zero(s->disk, piece->off, piece->len, true, err);
    case PIECE_DATA:
        if (s->fill)
            return failed ? 0 : fill_piece(s, piece, err);
        if (s->late)
            return failed ? 0 : disk_write(s->disk, bytes, piece->len, piece->off, err);
        return piece->placed ? disk_write_end(&piece->write, bytes, err) : 0;
    case PIECE_PACKED:
        return piece->placed ? disk_write_packed_end(&piece->write, bytes, piece->packed_len, err)
                             : 0;
    }
    return 0;
}

static int disk_store(struct sink *base, struct parcel *p, bool failed, struct platter_error *err)
{
    int r = 0;
    for (size_t i = 0; i < p->n_pieces; i++) {
        int e = store_piece(disk_sink_of(base), &p->pieces[i], failed || r < 0, err);
        r = r < 0 ? r : e;
    }
    return r;
}

static int disk_finish(struct sink *base, struct platter_error *err)
{
    return disk_flush(disk_sink_of(base)->disk, err);
}

static void sink_free(struct sink *s)
{
    free(s);
}

static void disk_sink_interrupt(struct sink *sink)
{
    disk_interrupt(((struct disk_sink *)sink)->disk);
}

static const struct sink_ops disk_sink_ops = {
    .prepare = disk_prepare,
    .place = disk_place,
    .store = disk_store,
    .out_len = disk_out_len,
    .finish = disk_finish,
    .close = sink_free,
    .interrupt = disk_sink_interrupt,
};

int sink_disk_open(struct platter_disk *disk, bool compress, struct sink **ret,
                   struct platter_error *err)
{
    const struct image *top = disk_top(disk);
    if (compress && !top->format->pack)
        return fail(err, ENOTSUP,
                    "%s: of the %s format, only new images that are written front to back are "
                    "compressed: choose options that make one",
                    top->stream->name, top->format->name);
    if (compress && top->sealed)
        return fail(err, ENOTSUP,
                    "%s: an encrypted image is not compressed: its data would stand "
                    "there for all to read",
                    top->stream->name);
    struct disk_sink *s = calloc(1, sizeof *s);
    if (!s)
        return fail_memory(err, "a copy");
    s->sink.ops = &disk_sink_ops;
    s->sink.unit = top->unit;
    s->sink.requests = disk_requests(disk);
    s->disk = disk;
    s->compress = compress;
    /* Where pieces have a unit in common, nobody may hold one and ask for the next. */
    s->late = top->askew;
    *ret = &s->sink;
    return 0;
}

int sink_fill_open(struct platter_disk *disk, struct sink **ret, struct platter_error *err)
{
    int r = sink_disk_open(disk, false, ret, err);
    if (r < 0)
        return r;
    /* Others work on this disk. Whoever holds one piece and asks for the next would wait for one of
     * them that wants both. */
    disk_sink_of(*ret)->fill = disk_sink_of(*ret)->late = true;
    return 0;
}

/* ---- an ordered writer ----------------------------------------------------------------------- */

struct writer_sink {
    struct sink sink;
    struct image_writer *w;
};

static size_t writer_out_len(const struct sink *s, size_t chunk)
{
    const struct image_writer *w = ((const struct writer_sink *)s)->w;
    return div_up(chunk, w->unit) * w->ops->encode_bound(w);
}

static int writer_prepare(struct sink *base, struct parcel *p, struct platter_error *err)
{
    struct image_writer *w = ((struct writer_sink *)base)->w;
    size_t n = p->n_pieces;
    struct piece *plain = TAKE(p->pieces);
    p->n_pieces = p->room_for = 0;
    p->out_used = 0;
    int r = 0;
    for (size_t i = 0; i < n && r == 0; i++) {
        if (plain[i].kind == PIECE_ZERO && w->ops->zeros)
            r = parcel_add(p, &plain[i], err);
        for (uint64_t done = 0; plain[i].kind == PIECE_DATA && done < plain[i].len && r == 0;
             done += w->unit) {
            struct piece piece = {.kind = PIECE_PACKED,
                                  .off = plain[i].off + done,
                                  .len = min_u64(w->unit, plain[i].len - done),
                                  .bytes = p->out + p->out_used};
            r = w->ops->encode(w, piece.off, plain[i].bytes + done, (size_t)piece.len,
                               p->out + p->out_used, &piece.packed_len, err);
            p->out_used += piece.packed_len;
            if (r == 0)
                r = parcel_add(p, &piece, err);
        }
    }
    free(plain);
    return r;
}

static int writer_place(struct sink *base, struct parcel *p, struct platter_error *err)
{
    struct image_writer *w = ((struct writer_sink *)base)->w;
    int r = 0;
    for (size_t i = 0; i < p->n_pieces && r == 0; i++) {
        const struct piece *piece = &p->pieces[i];
        r = piece->kind == PIECE_ZERO ? w->ops->zeros(w, piece->off, piece->len, err)
                                      : w->ops->append(w, piece->off, (size_t)piece->len,
                                                       piece->bytes, piece->packed_len, err);
    }
    return r;
}

static int writer_store(struct sink *s, struct parcel *p, bool failed, struct platter_error *err)
{
    (void)s, (void)p, (void)failed, (void)err;
    return 0;
}

static int writer_finish(struct sink *base, struct platter_error *err)
{
    struct image_writer *w = ((struct writer_sink *)base)->w;
    return w->ops->finish(w, err);
}

static void writer_close(struct sink *base)
{
    struct image_writer *w = ((struct writer_sink *)base)->w;
    w->ops->close(w);
    free(base);
}

static void writer_interrupt(struct sink *base)
{
    stream_interrupt(((struct writer_sink *)base)->w->stream);
}

static const struct sink_ops writer_sink_ops = {
    .prepare = writer_prepare,
    .place = writer_place,
    .store = writer_store,
    .out_len = writer_out_len,
    .finish = writer_finish,
    .interrupt = writer_interrupt,
    .close = writer_close,
};

int sink_writer_open(struct image_writer *w, struct sink **ret, struct platter_error *err)
{
    struct writer_sink *s = calloc(1, sizeof *s);
    if (!s) {
        w->ops->close(w);
        return fail_memory(err, "a copy");
    }
    s->sink.ops = &writer_sink_ops;
    s->sink.unit = w->unit;
    for (const struct stream *to = w->stream; to; to = to->base)
        s->sink.requests = to->depth > s->sink.requests ? to->depth : s->sink.requests;
    s->w = w;
    *ret = &s->sink;
    return 0;
}
