/* SPDX-License-Identifier: MIT */
/*
 * gzip files (RFC 1952). Nothing in them tells where one could begin to unpack, so one pass over
 * all of the file, which also checks it, notes places between two blocks of deflate with the 32 KiB
 * in front of them, which is all that unpacking from there depends on. They are as far apart as the
 * memory wants it. Each piece has its CRC-32 noted, and is held against it whenever it is unpacked.
 *
 * Decompressors that stand somewhere (cursors) are kept: reading on from there costs no search.
 */
#include <inttypes.h>
#include <string.h>

#include <libdeflate.h>
#define ZLIB_CONST
#include <zlib.h>

#include "base/ckd.h"
#include "base/codec.h"
#include "stream/unpacked.h"

enum {
    PIECE = 1 << 20,
    WINDOW = 32 << 10,
    MOST_PACKED = WINDOW + 1024, /* of a window that does not get shorter */
    INPUT = 64 << 10,
    TRAILER = 8,  /* of a member: CRC-32 and length */
    GZIP = 31,    /* windowBits: zlib looks after header and trailer */
    RAW = -15,    /* ... or there are none */
    CURSORS = 16, /* more than threads that read at different places, most times */
    CURSOR_COST = 48 << 10
};

/* A place where unpacking can begin. */
struct checkpoint {
    uint64_t plain, packed; /* offsets inside, and of the next whole byte in the file */
    uint8_t bits;           /* of the byte before that which belong to what follows */
    bool member;            /* a member begins here */
    uint16_t window_len;
    uint8_t *window; /* the 32 KiB before it, packed; NULL: nothing is before it */
};

/* A decompressor. While it is used by a thread, it will stand at the end of what that wants. */
struct cursor {
    z_stream z;
    uint64_t plain, packed; /* where it stands, or will; the next byte to read from the file */
    bool used, ready, raw;  /* by a thread; initialized; inside of a member without its header */
    uint64_t used_at;
    uint8_t in[INPUT];
};

struct gzip_file {
    struct unpacked u;
    struct checkpoint *points;
    size_t n_points, room_points;
    uint64_t index_bytes, index_taken; /* of points and windows; of the budget for them */
    uint64_t spacing;                  /* unpacked bytes from one to the next */
    uint32_t *crcs;                    /* of the pieces */
    size_t n_crcs, room_crcs;
    pthread_mutex_t lock; /* of the cursors */
    pthread_cond_t moved;
    struct cursor *cursors[CURSORS];
    uint64_t clock;
};

static struct gzip_file *gzip_of(struct unpacked *u)
{
    return container_of(u, struct gzip_file, u);
}

static int damaged(const struct gzip_file *g, uint64_t off, const char *why,
                   struct platter_error *err)
{
    return fail(err, PLATTER_ECORRUPT, "%s: the gzip data is damaged at offset %" PRIu64 ": %s",
                g->u.head.name, off, why);
}

/* ---- input of a decompressor -------------------------------------------------------------------
 */

/* Fills c->in where it is empty. *ret_more: there is something. */
static int refill(struct gzip_file *g, struct cursor *c, bool *ret_more, struct platter_error *err)
{
    uint64_t size;
    *ret_more = c->z.avail_in > 0;
    if (*ret_more)
        return 0;
    int r = stream_size(g->u.head.base, &size, err);
    size_t n = r == 0 && c->packed < size ? (size_t)min_u64(size - c->packed, INPUT) : 0;
    if (r == 0)
        r = stream_pread(g->u.head.base, c->in, n, c->packed, err);
    if (r < 0)
        return r;
    c->z.next_in = c->in;
    c->z.avail_in = (unsigned)n;
    c->packed += n;
    *ret_more = n > 0;
    return 0;
}

/* Where in the file it is. */
static uint64_t place_of(const struct cursor *c)
{
    return c->packed - c->z.avail_in;
}

/* After the end of a member: 1 if another one follows, which begins with the next byte; zeros may
 * come behind the last one, as on tapes. */
static int next_member(struct gzip_file *g, struct cursor *c, struct platter_error *err)
{
    bool more = true;
    int r = refill(g, c, &more, err);
    if (r < 0 || !more)
        return r;
    if (c->z.next_in[0] != 0)
        return inflateReset2(&c->z, GZIP) == Z_OK ? 1 : fail_memory(err, "decompression");
    for (; r == 0 && more; r = refill(g, c, &more, err)) {
        if (!is_zero(c->z.next_in, c->z.avail_in))
            return damaged(g, place_of(c), "what follows is neither compressed nor zeros", err);
        c->z.avail_in = 0;
    }
    return r;
}

/* One call of inflate(). Z_OK also where it could do nothing for want of input or room. */
static int step(struct gzip_file *g, struct cursor *c, int flush, int *ret_status,
                struct platter_error *err)
{
    bool more;
    int r = refill(g, c, &more, err);
    if (r < 0)
        return r;
    if (!more)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: ends at offset %" PRIu64 ", inside of a gzip member: it is truncated",
                    g->u.head.name, c->packed);
    *ret_status = inflate(&c->z, flush);
    if (*ret_status == Z_BUF_ERROR)
        *ret_status = Z_OK;
    if (*ret_status == Z_MEM_ERROR)
        return fail_memory(err, "decompression");
    if (*ret_status != Z_OK && *ret_status != Z_STREAM_END)
        return damaged(g, place_of(c), c->z.msg ? c->z.msg : "it makes no sense", err);
    return 0;
}

/* ---- the pass over all of it -------------------------------------------------------------------
 */

static uint64_t cost_of(const struct checkpoint *p)
{
    return sizeof *p + p->window_len;
}

/* How far behind the one before it a checkpoint has to be. The beginnings of members are cheap. */
static uint64_t distance(const struct gzip_file *g, bool member)
{
    return member ? max_u64(PIECE, g->spacing / 32) : g->spacing;
}

/* Every second one goes, nearly, until there are few enough. */
static void thin(struct gzip_file *g)
{
    while (g->index_bytes > unpacked_most_index(g->u.budget) / 2 && g->n_points > 1) {
        size_t kept = 1;
        g->spacing *= 2;
        for (size_t i = 1; i < g->n_points; i++) {
            struct checkpoint *p = &g->points[i];
            if (p->plain - g->points[kept - 1].plain >= distance(g, p->member)) {
                g->points[kept++] = *p;
            } else {
                g->index_bytes -= cost_of(p);
                free(p->window);
            }
        }
        g->n_points = kept;
    }
}

static int keep_window(struct checkpoint *p, struct cursor *c, struct platter_error *err)
{
    uint8_t window[WINDOW], packed[MOST_PACKED];
    unsigned len = 0;
    size_t packed_len;
    if (inflateGetDictionary(&c->z, window, &len) != Z_OK)
        return fail_memory(err, "decompression");
    if (len == 0)
        return 0;
    int r = codec_pack(CODEC_DEFLATE, window, len, packed, sizeof packed, &packed_len, err);
    if (r < 0)
        return r;
    p->window_len = (uint16_t)packed_len;
    p->window = malloc(packed_len);
    if (!p->window)
        return fail_memory(err, "the index of a compressed file");
    memcpy(p->window, packed, packed_len);
    return 0;
}

static int grow(void **array, size_t *room, size_t each, struct gzip_file *g,
                struct platter_error *err)
{
    size_t more = *room ? *room : 64;
    int r = budget_take(g->u.budget, more * each, "the index of a compressed file", err);
    if (r < 0)
        return r;
    g->index_taken += more * each;
    void *bigger = reallocarray(*array, *room + more, each);
    if (!bigger)
        return fail_memory(err, "the index of a compressed file");
    *array = bigger;
    *room += more;
    return 0;
}

/* Notes where the cursor stands. */
static int add_point(struct gzip_file *g, struct cursor *c, bool member, struct platter_error *err)
{
    struct checkpoint p = {.plain = c->plain,
                           .packed = place_of(c),
                           .bits = member ? 0 : c->z.data_type & 7,
                           .member = member};
    int r = member ? 0 : keep_window(&p, c, err);
    if (r == 0 && g->n_points == g->room_points)
        r = grow((void **)&g->points, &g->room_points, sizeof p, g, err);
    if (r < 0) {
        free(p.window);
        return r;
    }
    g->points[g->n_points++] = p;
    g->index_bytes += cost_of(&p);
    thin(g);
    return 0;
}

static int add_crc(struct gzip_file *g, const uint8_t *bytes, size_t len, struct platter_error *err)
{
    int r = g->n_crcs < g->room_crcs
                ? 0
                : grow((void **)&g->crcs, &g->room_crcs, sizeof *g->crcs, g, err);
    if (r == 0)
        g->crcs[g->n_crcs++] = libdeflate_crc32(0, bytes, len);
    return r;
}

/* Whether it is time for a checkpoint. */
static bool is_far(const struct gzip_file *g, const struct cursor *c, bool member)
{
    return c->plain - g->points[g->n_points - 1].plain >= distance(g, member);
}

/* Unpacks the next piece, as far as the file goes: *ret_len; and notes checkpoints on the way. 1:
 * the file ended. */
static int scan_piece(struct gzip_file *g, struct cursor *c, uint8_t *out, size_t *ret_len,
                      struct platter_error *err)
{
    int status = Z_OK, r = 0;
    c->z.next_out = out;
    c->z.avail_out = PIECE;
    for (size_t before = PIECE; r == 0 && c->z.avail_out > 0; before = c->z.avail_out) {
        r = step(g, c, Z_BLOCK, &status, err);
        if (r < 0)
            break;
        c->plain += before - c->z.avail_out;
        if (status == Z_STREAM_END) {
            r = next_member(g, c, err);
            if (r == 1)
                r = is_far(g, c, true) ? add_point(g, c, true, err) : 0;
            else if (r == 0)
                r = 1;
        } else if ((c->z.data_type & 192) == 128 && is_far(g, c, false)) {
            /* Between two blocks, neither of which is the last of its member. */
            r = add_point(g, c, false, err);
        }
    }
    *ret_len = PIECE - c->z.avail_out;
    return r;
}

static int scan(struct gzip_file *g, struct cursor *c, const struct unpack_policy *policy,
                struct platter_error *err)
{
    auto_free uint8_t *out = malloc(PIECE);
    size_t len;
    int r = out ? add_point(g, c, true, err) : fail_memory(err, "unpacking");
    while (r == 0) {
        r = scan_piece(g, c, out, &len, err);
        if (r >= 0 && len > 0 && add_crc(g, out, len, err) < 0)
            r = -ENOMEM;
        if (r >= 0)
            g->u.size += len;
        if (r == 0)
            r = unpack_tick(policy, g->u.head.base, place_of(c), err);
    }
    return r < 0 ? r : 0;
}

/* What the windows take is known now. */
static int take_windows(struct gzip_file *g, struct platter_error *err)
{
    uint64_t bytes = g->index_bytes - g->n_points * sizeof *g->points;
    int r = budget_take(g->u.budget, bytes, "the index of a compressed file", err);
    g->index_taken += r == 0 ? bytes : 0;
    return r;
}

/* ---- cursors -----------------------------------------------------------------------------------
 */

static const struct checkpoint *point_before(const struct gzip_file *g, uint64_t plain)
{
    size_t low = 0, high = g->n_points;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (g->points[middle].plain <= plain)
            low = middle;
        else
            high = middle;
    }
    return &g->points[low];
}

/* The bits and bytes in front of a checkpoint. */
static int prime(struct cursor *c, const struct checkpoint *p, struct stream *base,
                 struct platter_error *err)
{
    uint8_t window[WINDOW], byte;
    size_t len = 0;
    int r = 0, status = Z_OK;
    if (p->bits) {
        r = stream_pread(base, &byte, 1, p->packed - 1, err);
        if (r == 0)
            status = inflatePrime(&c->z, p->bits, byte >> (8 - p->bits));
    }
    if (r == 0 && p->window) {
        r = codec_unpack(CODEC_DEFLATE, p->window, p->window_len, window, WINDOW, &len, err);
        if (r == 0 && status == Z_OK)
            status = inflateSetDictionary(&c->z, window, (unsigned)len);
    }
    return r == 0 && status != Z_OK ? fail_memory(err, "decompression") : r;
}

/* Has a cursor stand at a checkpoint. */
static int set_cursor(struct gzip_file *g, struct cursor *c, const struct checkpoint *p,
                      struct platter_error *err)
{
    int bits = p->member ? GZIP : RAW;
    int status = c->ready ? inflateReset2(&c->z, bits) : inflateInit2(&c->z, bits);
    if (status != Z_OK)
        return fail_memory(err, "decompression");
    c->ready = true;
    c->raw = !p->member;
    c->z.avail_in = 0;
    c->packed = p->packed;
    return prime(c, p, g->u.head.base, err);
}

/* Of all free ones the best to be set to another place; one more where there may be. NULL: there is
 * none now, but will be, unless the answer is negative. */
static int idle_cursor(struct gzip_file *g, struct cursor **ret, struct platter_error *err)
{
    struct cursor *best = NULL, **room = NULL;
    bool any = false;
    for (size_t i = 0; i < CURSORS; i++) {
        struct cursor *c = g->cursors[i];
        if (!c)
            room = room ? room : &g->cursors[i];
        else if (!c->used && (!best || c->used_at < best->used_at))
            best = c;
        any |= c != NULL;
    }
    *ret = best;
    if (!room)
        return 0;
    int r =
        budget_take(g->u.budget, sizeof **room + CURSOR_COST, "decompression", any ? NULL : err);
    if (r < 0)
        return any ? 0 : r;
    *ret = *room = calloc(1, sizeof **room);
    if (*room)
        return 0;
    budget_give(g->u.budget, sizeof **room + CURSOR_COST);
    return fail_memory(err, "decompression");
}

/* The cursor from which it is least to unpack to get to `plain`, which may be busy on its way to
 * where it can be used from; NULL: a checkpoint is nearer. */
static struct cursor *nearest(struct gzip_file *g, uint64_t plain, const struct checkpoint *p)
{
    struct cursor *best = NULL;
    uint64_t least = plain - p->plain;
    for (size_t i = 0; i < CURSORS; i++) {
        struct cursor *c = g->cursors[i];
        if (!c || c->plain > plain)
            continue;
        uint64_t cost = plain - c->plain + (c->used ? PIECE : 0);
        if (cost < least || (cost == least && !c->used)) {
            best = c;
            least = cost;
        }
    }
    return best;
}

/* A cursor in front of a piece, for this thread; *ret_skip bytes in front of it. */
static int take_cursor(struct gzip_file *g, const struct piece *p, struct cursor **ret,
                       uint64_t *ret_skip, struct platter_error *err)
{
    const struct checkpoint *point = point_before(g, p->start);
    struct cursor *c;
    int r = 0;
    pthread_mutex_lock(&g->lock);
    for (;;) {
        c = nearest(g, p->start, point);
        bool fresh = !c;
        if (fresh)
            r = idle_cursor(g, &c, err);
        if (r < 0)
            break;
        if (c && !c->used) {
            *ret_skip = p->start - (fresh ? point->plain : c->plain);
            c->used = true;
            c->plain = p->start + p->len;
            c->used_at = ++g->clock;
            pthread_mutex_unlock(&g->lock);
            *ret = c;
            return fresh ? set_cursor(g, c, point, err) : 0;
        }
        pthread_cond_wait(&g->moved, &g->lock);
    }
    pthread_mutex_unlock(&g->lock);
    return r;
}

static void give_cursor(struct gzip_file *g, struct cursor *c, bool good)
{
    WITH_LOCK(&g->lock);
    c->used = false;
    if (!good)
        c->plain = UINT64_MAX;
    pthread_cond_broadcast(&g->moved);
}

/* ---- pieces ------------------------------------------------------------------------------------
 */

/* At the end of a member. */
static int go_on(struct gzip_file *g, struct cursor *c, struct platter_error *err)
{
    bool more = true;
    int r = 0;
    for (size_t left = c->raw ? TRAILER : 0, n; r == 0 && left > 0 && more; left -= n) {
        r = refill(g, c, &more, err);
        n = min_u64(left, c->z.avail_in);
        c->z.next_in += n;
        c->z.avail_in -= (unsigned)n;
    }
    c->raw = false;
    r = r < 0 ? r : next_member(g, c, err);
    return r < 0 ? r : 0;
}

/* The next n bytes; out NULL: nobody wants them. */
static int run(struct gzip_file *g, struct cursor *c, uint8_t *out, uint64_t n,
               struct platter_error *err)
{
    uint8_t unwanted[WINDOW];
    int status = Z_OK, r = 0;
    while (r == 0 && n > 0) {
        size_t room = (size_t)min_u64(n, out ? PIECE : sizeof unwanted);
        c->z.next_out = out ? out : unwanted;
        c->z.avail_out = (unsigned)room;
        r = step(g, c, Z_NO_FLUSH, &status, err);
        room -= c->z.avail_out;
        n -= room;
        out = out ? out + room : NULL;
        if (r == 0 && status == Z_STREAM_END)
            r = go_on(g, c, err);
    }
    return r;
}

static void gzip_find(const struct unpacked *u, hoff off, struct piece *ret)
{
    *ret = (struct piece){.number = off / PIECE, .start = round_down(off, PIECE)};
    ret->len = min_u64(PIECE, u->size - ret->start);
}

static int gzip_unpack(struct unpacked *u, const struct piece *p, uint8_t *out, uint8_t *packed,
                       struct platter_error *err)
{
    (void)packed;
    struct gzip_file *g = gzip_of(u);
    struct cursor *c = NULL;
    uint64_t skip;
    int r = take_cursor(g, p, &c, &skip, err);
    if (r == 0)
        r = run(g, c, NULL, skip, err);
    if (r == 0)
        r = run(g, c, out, p->len, err);
    if (r == 0 && libdeflate_crc32(0, out, p->len) != g->crcs[p->number])
        r = fail(err, PLATTER_ECORRUPT,
                 "%s: %" PRIu64 " bytes inside of it, at %" PRIu64
                 ", are not what they were when it was opened",
                 u->head.name, p->len, p->start);
    if (c)
        give_cursor(g, c, r == 0);
    return r;
}

static void gzip_close(struct unpacked *u)
{
    struct gzip_file *g = gzip_of(u);
    for (size_t i = 0; i < CURSORS; i++) {
        struct cursor *c = g->cursors[i];
        if (c && c->ready)
            inflateEnd(&c->z);
        if (c)
            budget_give(u->budget, sizeof *c + CURSOR_COST);
        free(c);
    }
    for (size_t i = 0; i < g->n_points; i++)
        free(g->points[i].window);
    free(g->points);
    free(g->crcs);
    budget_give(u->budget, g->index_taken);
    pthread_cond_destroy(&g->moved);
    pthread_mutex_destroy(&g->lock);
}

static const struct unpacked_ops gzip_ops = {
    .find = gzip_find, .unpack = gzip_unpack, .close = gzip_close};

int unpacked_gzip_open(struct stream *base, const struct unpack_policy *policy,
                       struct budget *budget, struct unpacked **ret, struct platter_error *err)
{
    struct cursor *c = NULL;
    struct gzip_file *g = (struct gzip_file *)unpacked_new(sizeof *g, base, budget, err);
    if (!g)
        return -ENOMEM;
    g->u.how = &gzip_ops;
    g->u.most_plain = g->spacing = PIECE;
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->moved, NULL);
    int r = idle_cursor(g, &c, err);
    if (r == 0) {
        r = set_cursor(g, c, &(struct checkpoint){.member = true}, err);
        c->plain = 0;
    }
    if (r == 0)
        r = scan(g, c, policy, err);
    if (r == 0)
        r = take_windows(g, err);
    if (r < 0) {
        stream_close(&g->u.head);
        return r;
    }
    c->plain = UINT64_MAX; /* at the end */
    *ret = &g->u;
    return 0;
}
