/* SPDX-License-Identifier: MIT */
/*
 * The disk that an NBD server exports, as a stream: see nbd.h. Its size never changes.
 *
 * Where a server wants requests in whole blocks, what begins or ends inside of one is read as all
 * of that block, and written by reading, changing and writing it back under a lock.
 */
#include "stream/nbd.h"

#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "base/memory.h"
#include "stream/inside.h"

enum {
    /* NBD knows 32 bits; less, so that a server that writes zeros has moved before a timeout. */
    MOST_ZEROED = 256 << 20,
    ZEROS = 256 << 10 /* written at once where the server cannot make zeros */
};

static struct nbd_export *export_of(struct stream *s)
{
    return (struct nbd_export *)s;
}

/* ---- requests -------------------------------------------------------------------------------- */

int nbd_export_judge(struct nbd_export *x, struct nbd_wire *w, int code, const char *doing,
                     uint64_t len, hoff off, struct platter_error *err)
{
    if (code == 0)
        return 0;
    auto_free char *what =
        len ? string_format("cannot %s %" PRIu64 " bytes at offset %" PRIu64, doing, len, off)
            : string_format("cannot %s", doing);
    if (!what)
        return fail_memory(err, "a sentence");
    if (code < 0) {
        nbd_wire_note(w, ENOTCONN, "the server closed the connection");
        return nbd_wire_fail(w, what, err);
    }
    if (code == ESHUTDOWN && atomic_load(&x->lasting))
        nbd_wire_note(w, code, "the server is shutting down");
    if (code == ESHUTDOWN)
        return fail(err, code, "%s: %s: the server answers that it is shutting down", x->head.name,
                    what);
    return fail_errno(err, code, "%s: %s: the server answers", x->head.name, what);
}

static uint32_t write_flags(const struct nbd_export *x)
{
    /* A server that cannot flush can at least be asked not to need it. */
    return !x->can_flush && x->can_fua ? LIBNBD_CMD_FLAG_FUA : 0;
}

/*
 * What the pieces of an answer cover: libnbd does not look whether a server left some of the bytes
 * out. Each byte came once exactly if all places where pieces begin and end cancel out but for the
 * two ends of the question; so the sum of numbers that stand for them tells, whatever the order.
 */
struct pieces {
    uint64_t sum;
    bool failed; /* the server said where: */
    hoff at;
};

/* Numbers that add up to one another only by chance. */
static uint64_t stand_in(hoff place)
{
    uint64_t x = place + UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static int take_piece(void *opaque, const void *bytes, size_t len, uint64_t off, unsigned status,
                      int *error)
{
    struct pieces *p = opaque;
    (void)bytes, (void)error;
    if (status != LIBNBD_READ_ERROR) {
        p->sum += stand_in(off + len) - stand_in(off);
    } else if (!p->failed) {
        p->failed = true;
        p->at = off;
    }
    return 0;
}

static int judge_pieces(struct nbd_export *x, const struct pieces *p, int code, size_t len,
                        hoff off, struct platter_error *err)
{
    if (code > 0)
        return fail_errno(err, code,
                          "%s: cannot read %zu bytes at offset %" PRIu64
                          ": the server answers of offset %" PRIu64,
                          x->head.name, len, off, p->at);
    return fail(err, EPROTO,
                "%s: cannot read %zu bytes at offset %" PRIu64
                ": the server's answer leaves some of them out",
                x->head.name, len, off);
}

struct read {
    void *buf;
    size_t len;
    hoff off;
};

static int ask_read(struct nbd_export *x, void *question, struct platter_error *err)
{
    const struct read *a = question;
    struct nbd_request q;
    struct pieces p = {.sum = stand_in(a->off) - stand_in(a->off + a->len)};
    struct nbd_wire *w = nbd_export_begin(x, &q, true);
    int64_t cookie = libnbd.aio_pread_structured(
        w->h, a->buf, a->len, a->off, (nbd_chunk_callback){.callback = take_piece, .user_data = &p},
        nbd_request_callback(&q), 0);
    int code = nbd_request_end(&q, cookie);
    if (code > 0 ? p.failed && range_inside(p.at - a->off, 1, a->len) : code == 0 && p.sum != 0)
        return judge_pieces(x, &p, code, a->len, a->off, err);
    return nbd_export_judge(x, w, code, "read", a->len, a->off, err);
}

static int read_blocks(struct nbd_export *x, void *buf, size_t len, hoff off,
                       struct platter_error *err)
{
    return nbd_export_ask(x, ask_read, &(struct read){buf, len, off}, err);
}

static int write_blocks(struct nbd_export *x, const void *buf, size_t len, hoff off,
                        struct platter_error *err)
{
    struct nbd_request q;
    struct nbd_wire *w = nbd_export_begin(x, &q, false);
    int64_t cookie =
        libnbd.aio_pwrite(w->h, buf, len, off, nbd_request_callback(&q), write_flags(x));
    return nbd_export_judge(x, w, nbd_request_end(&q, cookie), "write", len, off, err);
}

/* ---- blocks ---------------------------------------------------------------------------------- */

/* A range inside of one block, or whole blocks, from the beginning of a longer one. */
struct part {
    hoff start; /* of the block */
    uint64_t len;
    size_t block; /* bytes of that block, which may be the last and short; 0: whole blocks */
};

static struct part first_part(const struct nbd_export *x, hoff off, uint64_t len, uint64_t most)
{
    hoff start = round_down(off, x->block), end = min_u64(start + x->block, x->size);
    if (off == start && off + len >= end) {
        hoff until = off + len == x->size ? x->size : round_down(off + len, x->block);
        return (struct part){.start = off, .len = min_u64(until - off, round_down(most, x->block))};
    }
    return (struct part){start, min_u64(len, end - off), (size_t)(end - start)};
}

static int read_inside(struct nbd_export *x, const struct part *p, void *buf, hoff off,
                       struct platter_error *err)
{
    auto_free uint8_t *block = malloc(p->block);
    if (!block)
        return fail_memory(err, "a block");
    int r = read_blocks(x, block, p->block, p->start, err);
    if (r == 0)
        memcpy(buf, block + (off - p->start), (size_t)p->len);
    return r;
}

/* Changes a part of a block; bytes of NULL are zeros. */
static int write_inside(struct nbd_export *x, const struct part *p, const void *bytes, hoff off,
                        struct platter_error *err)
{
    auto_free uint8_t *block = malloc(p->block);
    if (!block)
        return fail_memory(err, "a block");
    WITH_LOCK(&x->partial);
    int r = read_blocks(x, block, p->block, p->start, err);
    if (r < 0)
        return r;
    if (bytes)
        memcpy(block + (off - p->start), bytes, (size_t)p->len);
    else
        memset(block + (off - p->start), 0, (size_t)p->len);
    return write_blocks(x, block, p->block, p->start, err);
}

/* ---- operations ------------------------------------------------------------------------------ */

static int export_pread(struct stream *s, void *buf, size_t len, hoff off,
                        struct platter_error *err)
{
    struct nbd_export *x = export_of(s);
    int r = 0;
    if (!range_inside(off, len, x->size))
        return stream_fail_past_end(s, off, len, x->size, err);
    for (uint8_t *to = buf; len > 0 && r == 0;) {
        struct part p = first_part(x, off, len, x->most);
        r = p.block ? read_inside(x, &p, to, off, err)
                    : read_blocks(x, to, (size_t)p.len, off, err);
        to += p.len;
        off += p.len;
        len -= (size_t)p.len;
    }
    return r;
}

static int check_inside(const struct nbd_export *x, hoff off, uint64_t len,
                        struct platter_error *err)
{
    if (range_inside(off, len, x->size))
        return 0;
    return fail(err, ENOSPC,
                "%s: %" PRIu64 " bytes at offset %" PRIu64 " do not fit: the export has %" PRIu64
                " bytes, and an NBD server does not let it grow",
                x->head.name, len, off, x->size);
}

static int export_pwrite(struct stream *s, const void *buf, size_t len, hoff off,
                         struct platter_error *err)
{
    struct nbd_export *x = export_of(s);
    int r = check_inside(x, off, len, err);
    for (const uint8_t *from = buf; len > 0 && r == 0;) {
        struct part p = first_part(x, off, len, x->most);
        r = p.block ? write_inside(x, &p, from, off, err)
                    : write_blocks(x, from, (size_t)p.len, off, err);
        from += p.len;
        off += p.len;
        len -= (size_t)p.len;
    }
    return r;
}

int nbd_export_flush(struct stream *s, struct platter_error *err)
{
    struct nbd_export *x = export_of(s);
    if (!x->can_flush)
        return 0;                     /* it writes through, or cannot do better */
    struct nbd_wire *w = x->wires[0]; /* with several, a flush of one is one of all */
    struct nbd_request q;
    struct platter_error why;
    nbd_request_begin(w, &q);
    atomic_fetch_add(&w->flushing, 1);
    int64_t cookie = libnbd.aio_flush(w->h, nbd_request_callback(&q), 0);
    int code = nbd_request_end(&q, cookie);
    atomic_fetch_sub(&w->flushing, 1);
    int r = nbd_export_judge(x, w, code, "flush", 0, 0, &why);
    WITH_LOCK(&x->known);
    if (r < 0 && !x->lost.code)
        x->lost = why;
    return x->lost.code ? fail(err, x->lost.code, "%s", x->lost.message) : 0;
}

/* The server says that it does not do such a thing, or not so much of it. */
static bool is_unsupported(int code)
{
    return code == EOPNOTSUPP || code == ENOTSUP || code == EINVAL || code == EOVERFLOW ||
           code == ENOSYS;
}

static int write_zeros(struct nbd_export *x, uint64_t len, hoff off, struct platter_error *err)
{
    static uint8_t zeros[ZEROS];
    uint64_t step = min_u64(sizeof zeros, x->most);
    int r = 0;
    for (uint64_t n; len > 0 && r == 0; off += n, len -= n) {
        n = min_u64(len, step);
        r = write_blocks(x, zeros, (size_t)n, off, err);
    }
    return r;
}

static int zero_blocks(struct nbd_export *x, uint64_t len, hoff off, unsigned flags,
                       struct platter_error *err)
{
    if (!x->can_zero || atomic_load(&x->cannot_zero))
        return write_zeros(x, len, off, err);
    uint32_t more = write_flags(x) | (flags & STREAM_ZERO_UNMAP ? 0 : LIBNBD_CMD_FLAG_NO_HOLE);
    struct nbd_request q;
    struct nbd_wire *w = nbd_export_begin(x, &q, false);
    int code = nbd_request_end(&q, libnbd.aio_zero(w->h, len, off, nbd_request_callback(&q), more));
    if (code > 0 && is_unsupported(code)) {
        atomic_store(&x->cannot_zero, true);
        return write_zeros(x, len, off, err);
    }
    return nbd_export_judge(x, w, code, "zero", len, off, err);
}

static int export_zero(struct stream *s, hoff off, uint64_t len, unsigned flags,
                       struct platter_error *err)
{
    struct nbd_export *x = export_of(s);
    int r = check_inside(x, off, len, err);
    while (len > 0 && r == 0) {
        struct part p = first_part(x, off, len, MOST_ZEROED);
        r = p.block ? write_inside(x, &p, NULL, off, err) : zero_blocks(x, p.len, off, flags, err);
        off += p.len;
        len -= p.len;
    }
    return r;
}

/* Only whole blocks: what a discard leaves out is as it was, which is allowed. */
static int export_discard(struct stream *s, hoff off, uint64_t len, struct platter_error *err)
{
    struct nbd_export *x = export_of(s);
    if (!x->can_trim)
        return -ENOTSUP;
    hoff end = off + min_u64(len, off < x->size ? x->size - off : 0);
    end = end == x->size ? end : round_down(end, x->block);
    int r = 0;
    for (off = round_up(off, x->block); off < end && r == 0;) {
        uint64_t n = min_u64(end - off, MOST_ZEROED);
        struct nbd_request q;
        struct nbd_wire *w = nbd_export_begin(x, &q, false);
        int code = nbd_request_end(
            &q, libnbd.aio_trim(w->h, n, off, nbd_request_callback(&q), write_flags(x)));
        if (code > 0 && is_unsupported(code))
            return -ENOTSUP;
        r = nbd_export_judge(x, w, code, "discard", n, off, err);
        off += n;
    }
    return r;
}

static int export_size(struct stream *s, uint64_t *ret_size, struct platter_error *err)
{
    (void)err;
    *ret_size = export_of(s)->size;
    return 0;
}

/* As of a device: what fits is no change. */
static int export_resize(struct stream *s, uint64_t size, struct platter_error *err)
{
    const struct nbd_export *x = export_of(s);
    return size <= x->size ? 0
                           : fail(err, ENOSPC,
                                  "%s: the export has %" PRIu64 " bytes, but %" PRIu64
                                  " are needed, and an NBD server does not let it grow",
                                  s->name, x->size, size);
}

static int export_allocate(struct stream *s, hoff off, uint64_t len, struct platter_error *err)
{
    return export_resize(s, off + len, err);
}

/* All that the protocol tells. That is little: whether somebody wrote to the disk, or another one
 * is served under that name now, nobody says. */
static int export_identity(struct stream *s, char **text, struct platter_error *err)
{
    const struct nbd_export *x = export_of(s);
    int r = identity_add(text, err, "size", "%" PRIu64, atomic_load(&x->size_now));
    return r < 0 ? r : identity_add(text, err, "export", "%s", x->export);
}

static void export_interrupt(struct stream *s)
{
    struct nbd_export *x = export_of(s);
    atomic_store(&x->interrupted, true);
    if (pthread_rwlock_tryrdlock(&x->laying) != 0)
        return; /* who waits looks at that himself now and then */
    unsigned n = atomic_load(&x->n_wires);
    for (unsigned i = 0; i < n; i++)
        nbd_wire_wake(x->wires[i]);
    pthread_rwlock_unlock(&x->laying);
}

static void export_persist(struct stream *s)
{
    atomic_store(&export_of(s)->lasting, !s->writable);
}

static bool export_same(const struct stream *s, const struct stream *other)
{
    const struct nbd_export *a = (const struct nbd_export *)s;
    const struct nbd_export *b = (const struct nbd_export *)other;
    return a == b || (a->identity[0] && strcmp(a->identity, b->identity) == 0);
}

static void export_close(struct stream *s)
{
    struct nbd_export *x = export_of(s);
    for (unsigned i = 0; i < x->n_wires; i++)
        nbd_wire_close(x->wires[i]);
    nbd_way_done(&x->way);
    free(x->export);
    free(x->status.runs);
    pthread_mutex_destroy(&x->dialing);
    pthread_rwlock_destroy(&x->laying);
    pthread_mutex_destroy(&x->grow);
    pthread_mutex_destroy(&x->partial);
    pthread_mutex_destroy(&x->known);
}

const struct stream_ops nbd_export_ops = {
    .name = "NBD",
    .pread = export_pread,
    .interrupt = export_interrupt,
    .persist = export_persist,
    .pwrite = export_pwrite,
    .flush = nbd_export_flush,
    .zero = export_zero,
    .discard = export_discard,
    .size = export_size,
    .resize = export_resize,
    .allocate = export_allocate,
    .extents = nbd_export_extents,
    .identity = export_identity,
    .same = export_same,
    .close = export_close,
};
