/* SPDX-License-Identifier: MIT */
/*
 * Files of many zstd frames (RFC 8878). Where each begins stands in a table at the end of files
 * that are made to be read anywhere (the seekable format of zstd: a skippable frame), and otherwise
 * is found by going from block to block, whose headers tell how long they are. The table is only
 * believed where it agrees with the size of the file and with what each frame says of itself: a
 * length that is wrong would move all that follows.
 */
#include <inttypes.h>

#include "base/ckd.h"
#include "base/codec.h"
#include "base/cursor.h"
#include "config.h"
#include "stream/unpacked.h"

enum {
    BLOCK_HEADER = 3,
    MOST_HEADER = 18, /* of a frame, with its magic */
    MOST_BLOCK = 128 << 10,
    SKIPPABLE_HEADER = 8,
    FOOTER = 9,     /* of the table: frames, flags, magic */
    MOST_TRIED = 16 /* damaged frames, until it is the table that is not believed */
};

static const uint32_t frame_magic = 0xFD2FB528, skippable_magic = 0x184D2A50,
                      table_magic = 0x184D2A5E, footer_magic = 0x8F92EAB1;

struct zstd_file {
    struct unpacked u;
    struct spans spans;
    struct peephole hole, table; /* while the frames are looked for: at those, and in the table */
    unsigned tried;              /* frames that say otherwise than the table */
};

static struct zstd_file *zstd_of(struct unpacked *u)
{
    return container_of(u, struct zstd_file, u);
}

/* ---- frames ------------------------------------------------------------------------------------
 */

struct frame {
    uint64_t content; /* UINT64_MAX: not told */
    uint64_t bound;   /* what it can give at most, as far as its blocks were seen */
    uint32_t block;   /* largest */
    bool checksum;
    uint64_t len; /* of it, as far as it was seen */
};

static int damaged(const struct zstd_file *z, hoff off, const char *why, struct platter_error *err)
{
    return fail(err, PLATTER_ECORRUPT, "%s: the zstd data is damaged at offset %" PRIu64 ": %s",
                z->u.head.name, off, why);
}

static int cut_short(const struct zstd_file *z, struct platter_error *err)
{
    return fail(err, PLATTER_ECORRUPT,
                "%s: ends at offset %" PRIu64 ", inside of a zstd frame: it is truncated",
                z->u.head.name, z->hole.size);
}

/* RFC 8878, section 3.1.1.1. */
static int read_frame_header(struct zstd_file *z, hoff off, struct frame *f,
                             struct platter_error *err)
{
    const uint8_t *bytes;
    size_t len;
    int r = peephole_look(&z->hole, off, MOST_HEADER, &bytes, &len, err);
    if (r < 0)
        return r;
    struct reader in = reader_over(bytes, len);
    read_skip(&in, 4);
    unsigned flags = read_u8(&in), single = flags & 0x20, size_code = flags >> 6;
    uint64_t window = UINT64_MAX;
    if (!single) {
        unsigned code = read_u8(&in);
        uint64_t base = UINT64_C(1) << (10 + (code >> 3));
        window = base + base / 8 * (code & 7);
    }
    read_skip(&in, (const size_t[]){0, 1, 2, 4}[flags & 3]);
    size_t size_len = size_code == 0 ? single != 0 : (size_t)1 << size_code;
    const uint8_t *size = read_bytes(&in, size_len);
    if (in.failed)
        return cut_short(z, err);
    if (flags & 8)
        return damaged(z, off, "a bit of the frame header that must be 0 is set", err);
    *f = (struct frame){.content = UINT64_MAX, .checksum = flags & 4, .len = in.pos};
    if (size_len)
        f->content = get_le(size, (unsigned)size_len) + (size_len == 2 ? 256 : 0);
    f->block = (uint32_t)min_u64(single ? f->content : window, MOST_BLOCK);
    return 0;
}

/* One block behind what was seen of the frame at `off`. 1: the last one. */
static int skip_block(struct zstd_file *z, hoff off, struct frame *f, struct platter_error *err)
{
    enum { RAW, RLE, PACKED, RESERVED };
    const uint8_t *bytes;
    size_t len;
    int r = peephole_look(&z->hole, off + f->len, BLOCK_HEADER, &bytes, &len, err);
    if (r < 0)
        return r;
    if (len < BLOCK_HEADER)
        return cut_short(z, err);
    uint32_t header = (uint32_t)get_le(bytes, BLOCK_HEADER), size = header >> 3;
    unsigned kind = header >> 1 & 3;
    if (kind == RESERVED || size > MOST_BLOCK)
        return damaged(z, off + f->len, "there is no block header", err);
    f->len += BLOCK_HEADER + (kind == RLE ? 1 : size);
    f->bound += kind == PACKED ? f->block : size;
    return header & 1;
}

/* How long the frame at `off` is. -E2BIG without a sentence: it, or what it may give, is larger
 * than what can be unpacked at once. */
static int measure_frame(struct zstd_file *z, hoff off, struct frame *f, struct platter_error *err)
{
    int r = read_frame_header(z, off, f, err);
    while (r == 0) {
        uint64_t plain = f->content == UINT64_MAX ? f->bound : f->content;
        if (plain > z->spans.most || f->len > z->spans.most - plain)
            return -E2BIG;
        r = skip_block(z, off, f, err);
    }
    if (r < 0)
        return r;
    f->len += f->checksum ? 4 : 0;
    if (f->content != UINT64_MAX && f->content > f->bound)
        return damaged(z, off, "the frame says that it holds more than its blocks can", err);
    return f->len <= z->hole.size - off ? 0 : cut_short(z, err);
}

/* Of a frame that does not tell how much it gives. */
static int unpack_to_measure(struct zstd_file *z, hoff off, struct frame *f,
                             struct platter_error *err)
{
    uint64_t room = f->len + f->bound;
    uint8_t *bytes = NULL;
    size_t len = 0;
    int r = budget_alloc(z->u.budget, room, "a zstd frame", &bytes, err);
    if (r == 0)
        r = stream_pread(z->hole.s, bytes, f->len, off, err);
    if (r == 0) {
        r = codec_unpack_frames(bytes, f->len, bytes + f->len, f->bound, &len, err);
        if (r < 0)
            fail_in(err, r, "%s: the frame at offset %" PRIu64, z->u.head.name, off);
    }
    f->content = len;
    budget_free(z->u.budget, bytes, room);
    return r;
}

/* ---- the table ---------------------------------------------------------------------------------
 */

/* Looks for a table that may be one: where it begins, and how its entries are. */
static int find_table(struct zstd_file *z, hoff *ret_start, uint32_t *ret_n, size_t *ret_entry,
                      struct platter_error *err)
{
    const uint8_t *bytes;
    size_t len;
    *ret_n = 0;
    if (z->hole.size < SKIPPABLE_HEADER + FOOTER)
        return 0;
    int r = peephole_look(&z->table, z->hole.size - FOOTER, FOOTER, &bytes, &len, err);
    if (r < 0 || get_le(bytes + 5, 4) != footer_magic || bytes[4] & 0x7C)
        return r;
    uint32_t n = (uint32_t)get_le(bytes, 4);
    *ret_entry = bytes[4] & 0x80 ? 12 : 8;
    uint64_t content = (uint64_t)n * *ret_entry + FOOTER;
    if (content > UINT32_MAX || content + SKIPPABLE_HEADER > z->hole.size)
        return 0;
    *ret_start = z->hole.size - content - SKIPPABLE_HEADER;
    r = peephole_look(&z->table, *ret_start, SKIPPABLE_HEADER, &bytes, &len, err);
    if (r == 0 && get_le(bytes, 4) == table_magic && get_le(bytes + 4, 4) == content)
        *ret_n = n;
    return r;
}

/* A frame that says otherwise than the table: ECORRUPT where it is damaged, -E2BIG without a
 * sentence where it is the table that is wrong, or may be. */
static int try_frame(struct zstd_file *z, hoff off, struct frame *f, struct platter_error *err)
{
    if (++z->tried > MOST_TRIED)
        return -E2BIG;
    int r = measure_frame(z, off, f, err);
    if (r == 0)
        r = unpack_to_measure(z, off, f, err);
    return r == 0 ? -E2BIG : r;
}

/* Whether the frame at `off` may be as the table has it: 1 or 0. One that does not even begin as a
 * frame is damaged, and that is for who reads it. */
static int check_entry(struct zstd_file *z, hoff off, uint64_t plain, uint64_t packed,
                       struct platter_error *err)
{
    const uint8_t *bytes;
    size_t len;
    struct frame f;
    if (packed > z->hole.size - off)
        return 0;
    int r = peephole_look(&z->hole, off, SKIPPABLE_HEADER, &bytes, &len, err);
    if (r < 0 || len < SKIPPABLE_HEADER)
        return r;
    uint32_t magic = (uint32_t)get_le(bytes, 4);
    if ((magic & ~UINT32_C(15)) == skippable_magic)
        return plain == 0 && packed == SKIPPABLE_HEADER + get_le(bytes + 4, 4);
    if (magic != frame_magic)
        return 1;
    r = read_frame_header(z, off, &f, err);
    if (r == 0 && f.content != plain)
        r = f.content == UINT64_MAX ? -E2BIG : try_frame(z, off, &f, err);
    if (r == 0 || r == -PLATTER_ECORRUPT)
        return 1;
    return r == -E2BIG ? 0 : r;
}

/* 1: the frames are known; 0: there is no table, or it cannot be right. -E2BIG as spans_add(). */
static int read_table(struct zstd_file *z, bool query, struct platter_error *err)
{
    hoff start = 0;
    uint32_t n;
    size_t entry = 0, len;
    const uint8_t *bytes;
    /* Where little is read it is not worth to look at all frames of a large file. */
    bool trust = query && z->hole.size > UNPACKED_QUERY;
    int r = find_table(z, &start, &n, &entry, err);
    for (uint32_t i = 0; i < n && r == 0; i++) {
        hoff at = start + SKIPPABLE_HEADER + i * (uint64_t)entry;
        r = peephole_look(&z->table, at, entry, &bytes, &len, err);
        if (r < 0)
            return r;
        uint64_t packed = get_le(bytes, 4), plain = get_le(bytes + 4, 4);
        r = trust ? 1 : check_entry(z, spans_end(&z->spans).packed, plain, packed, err);
        if (r <= 0)
            return r;
        r = plain ? spans_add(&z->spans, plain, packed, err) : spans_skip(&z->spans, packed, err);
    }
    if (r < 0 || n == 0)
        return r;
    return spans_end(&z->spans).packed == start;
}

/* ---- from frame to frame -----------------------------------------------------------------------
 */

/* What stands at `off`: *ret_len bytes, entered. -E2BIG without a sentence: too large for that; 1:
 * it cannot be measured without reading all of it. */
static int enter_frame(struct zstd_file *z, hoff off, bool query, uint64_t *ret_len,
                       struct platter_error *err)
{
    const uint8_t *bytes;
    size_t len;
    struct frame f;
    int r = peephole_look(&z->hole, off, SKIPPABLE_HEADER, &bytes, &len, err);
    if (r < 0)
        return r;
    if (len < SKIPPABLE_HEADER)
        return cut_short(z, err);
    uint32_t magic = (uint32_t)get_le(bytes, 4);
    if ((magic & ~UINT32_C(15)) == skippable_magic) {
        *ret_len = SKIPPABLE_HEADER + get_le(bytes + 4, 4);
        return *ret_len <= z->hole.size - off ? spans_skip(&z->spans, *ret_len, err)
                                              : cut_short(z, err);
    }
    if (magic != frame_magic)
        return damaged(z, off, "no frame begins here", err);
    r = measure_frame(z, off, &f, err);
    if (r == 0 && f.content == UINT64_MAX && query)
        return 1;
    if (r == 0 && f.content == UINT64_MAX)
        r = unpack_to_measure(z, off, &f, err);
    if (r < 0)
        return r;
    *ret_len = f.len;
    return f.content ? spans_add(&z->spans, f.content, f.len, err)
                     : spans_skip(&z->spans, f.len, err);
}

static int hop(struct zstd_file *z, bool query, struct platter_error *err)
{
    int r = 0;
    for (uint64_t off = 0, len = 0; r == 0 && off < z->hole.size; off += len)
        r = enter_frame(z, off, query, &len, err);
    return r;
}

/* ---- pieces ------------------------------------------------------------------------------------
 */

static void zstd_find(const struct unpacked *u, hoff off, struct piece *ret)
{
    spans_find(&container_of(u, const struct zstd_file, u)->spans, off, ret);
}

static int zstd_unpack(struct unpacked *u, const struct piece *p, uint8_t *out, uint8_t *packed,
                       struct platter_error *err)
{
    const struct span *span = zstd_of(u)->spans.all + p->number;
    size_t packed_len = span[1].packed - span->packed, len = 0;
    int r = stream_pread(u->head.base, packed, packed_len, span->packed, err);
    if (r < 0)
        return r;
    r = codec_unpack_frames(packed, packed_len, out, p->len, &len, err);
    if (r == 0 && len != p->len)
        r = fail(err, PLATTER_ECORRUPT, "%zu bytes are in it, but %" PRIu64 " are expected", len,
                 p->len);
    return r < 0 ? fail_in(err, r, "%s: the frame at offset %" PRIu64, u->head.name, span->packed)
                 : 0;
}

static void zstd_close(struct unpacked *u)
{
    spans_free(&zstd_of(u)->spans);
}

static const struct unpacked_ops zstd_ops = {
    .find = zstd_find, .unpack = zstd_unpack, .close = zstd_close};

static int find_frames(struct zstd_file *z, bool query, struct platter_error *err)
{
    int r = peephole_open(&z->hole, z->u.head.base, err);
    if (r == 0)
        r = peephole_open(&z->table, z->u.head.base, err);
    if (r == 0)
        r = read_table(z, query, err);
    if (r == 1)
        return 0;
    if (r < 0 && r != -E2BIG)
        return r;
    spans_free(&z->spans);
    spans_init(&z->spans, z->u.budget);
    if (query && z->hole.size > UNPACKED_QUERY)
        return 1;
    return hop(z, query, err);
}

int unpacked_zstd_open(struct stream *base, bool query, struct budget *budget,
                       struct unpacked **ret, struct platter_error *err)
{
    struct zstd_file *z;
    if (!HAVE_ZSTD)
        return fail_in(err, codec_check(CODEC_ZSTD, err), "%s", base->name);
    if (!(z = (struct zstd_file *)unpacked_new(sizeof *z, base, budget, err)))
        return -ENOMEM;
    z->u.how = &zstd_ops;
    spans_init(&z->spans, budget);
    int r = find_frames(z, query, err);
    if (r != 0) {
        stream_close(&z->u.head);
        return r < 0 && r != -E2BIG ? r : 0;
    }
    spans_most(&z->spans, &z->u.most_plain, &z->u.most_packed);
    z->u.size = spans_end(&z->spans).plain;
    *ret = &z->u;
    return 0;
}
