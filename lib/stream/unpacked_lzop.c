/* SPDX-License-Identifier: MIT */
/*
 * Files of lzop, by their blocks: each is packed by itself, and begins with how long it is, so that
 * one gets from block to block without unpacking (vma.md section 10). The layout was found by
 * looking at what the program writes:
 *
 *     magic (9) version (2) of the library (2) needed (2) method (1) level (1) flags (4)
 *     mode (4) time (8) length of the name (1) name checksum (4)
 *     blocks: unpacked (4) packed (4) checksums (4 each, by the flags) bytes
 *     end: 0 (4)
 *
 * Numbers are big-endian. Of the checksums of the packed bytes there are none where those are the
 * unpacked ones. A piece is unpacked by the program: what it gets is a file of the same header and
 * only the wanted blocks. Whatever is not as told here is left to the program as a whole: with a
 * filter (flag 0x800) blocks depend on those before them.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "stream/unpacked.h"

enum {
    MOST_HEADER = 9 + 2 + 2 + 2 + 1 + 1 + 4 + 4 + 4 + 8 + 1 + 255 + 4,
    END_MARK = 4,
    BLOCK_HEADER = 8,
    MOST_BLOCK = 64 << 20,
    PROGRAM = 5 << 20, /* bytes that stream_unzip_open() takes, about */
    TARGET = 4 << 20   /* bytes that one start of the program is worth */
};

enum {
    HAS_ADLER = 0x1,
    HAS_ADLER_PACKED = 0x2,
    FROM_INPUT = 0x4,
    TO_OUTPUT = 0x8,
    HAS_CRC = 0x100,
    HAS_CRC_PACKED = 0x200,
    HEADER_CRC = 0x1000,
    /* ... and the upper twelve bits, which tell of the system that it was made on. */
    KNOWN = HAS_ADLER | HAS_ADLER_PACKED | FROM_INPUT | TO_OUTPUT | HAS_CRC | HAS_CRC_PACKED |
            HEADER_CRC
};
static const uint32_t system_bits = 0xFFF00000;

struct lzop_file {
    struct unpacked u;
    struct spans spans;
    uint8_t header[MOST_HEADER];
    size_t header_len;
    uint32_t flags;
};

static struct lzop_file *lzop_of(struct unpacked *u)
{
    return container_of(u, struct lzop_file, u);
}

/* ---- some blocks as a file of their own --------------------------------------------------------
 */

struct excerpt {
    struct stream head;
    const struct lzop_file *from;
    struct span span;     /* what is left of the blocks: `plain` is their end */
    size_t before, after; /* bytes of the header and of the end mark that were read */
};

static size_t give(void *to, const void *bytes, size_t len, size_t *done, size_t room)
{
    size_t n = (size_t)min_u64(len - *done, room);
    memcpy(to, (const uint8_t *)bytes + *done, n);
    *done += n;
    return n;
}

static int excerpt_read(struct stream *s, void *buf, size_t len, size_t *ret_len,
                        struct platter_error *err)
{
    struct excerpt *e = container_of(s, struct excerpt, head);
    uint8_t *to = buf, end[END_MARK] = {0};
    to += give(to, e->from->header, e->from->header_len, &e->before, len);
    size_t room = len - (size_t)(to - (uint8_t *)buf);
    size_t n = (size_t)min_u64(room, e->span.plain - e->span.packed);
    int r = stream_pread(e->from->u.head.base, to, n, e->span.packed, err);
    if (r < 0)
        return r;
    e->span.packed += n;
    to += n;
    if (n < room)
        to += give(to, end, sizeof end, &e->after, room - n);
    *ret_len = (size_t)(to - (uint8_t *)buf);
    return 0;
}

static const struct stream_ops excerpt_ops = {.name = "excerpt", .read = excerpt_read};

static int open_excerpt(const struct lzop_file *l, uint64_t number, struct stream **ret,
                        struct platter_error *err)
{
    const struct span *span = l->spans.all + number;
    struct excerpt *e = stream_new(sizeof *e, &excerpt_ops, l->u.head.name, err);
    if (!e)
        return -ENOMEM;
    e->head.sequential = true;
    e->from = l;
    e->span = (struct span){.packed = span[0].packed, .plain = span[1].packed};
    return stream_unzip_open(&e->head, WRAP_LZOP, l->u.budget, ret, err);
}

/* ---- pieces ------------------------------------------------------------------------------------
 */

static void lzop_find(const struct unpacked *u, hoff off, struct piece *ret)
{
    spans_find(&container_of(u, const struct lzop_file, u)->spans, off, ret);
}

static int lzop_unpack(struct unpacked *u, const struct piece *p, uint8_t *out, uint8_t *packed,
                       struct platter_error *err)
{
    (void)packed;
    struct stream *s = NULL;
    size_t len = 0, more = 0;
    uint8_t byte;
    int r = open_excerpt(lzop_of(u), p->number, &s, err);
    if (r < 0)
        return r;
    r = stream_read(s, out, p->len, &len, err);
    if (r == 0) /* the end is where checksums and the program's verdict are */
        r = stream_read(s, &byte, 1, &more, err);
    stream_close(s);
    if (r == 0 && (len != p->len || more))
        r = fail(err, PLATTER_ECORRUPT, "%s: there is not what their headers say", u->head.name);
    return r < 0 ? fail_in(err, r, "the blocks at offset %" PRIu64,
                           lzop_of(u)->spans.all[p->number].packed)
                 : 0;
}

static void lzop_close(struct unpacked *u)
{
    spans_free(&lzop_of(u)->spans);
}

static const struct unpacked_ops lzop_ops = {
    .find = lzop_find, .unpack = lzop_unpack, .close = lzop_close};

/* ---- headers -----------------------------------------------------------------------------------
 */

/* 1: it is understood, and kept. */
static int read_header(struct lzop_file *l, struct peephole *hole, struct platter_error *err)
{
    const uint8_t *bytes;
    size_t len;
    int r = peephole_look(hole, 0, sizeof l->header, &bytes, &len, err);
    if (r < 0)
        return r;
    struct reader in = reader_over(bytes, len);
    read_skip(&in, 9 + 2 + 2 + 2 + 1 + 1);
    l->flags = read_be32(&in);
    read_skip(&in, 4 + 8);
    size_t name = read_u8(&in);
    read_skip(&in, name + 4);
    if (in.failed || l->flags & ~(KNOWN | system_bits))
        return 0;
    memcpy(l->header, bytes, in.pos);
    l->header_len = in.pos;
    return 1;
}

/* Bytes of checksums in front of a block. */
static uint64_t checksums_of(uint32_t flags, bool packed)
{
    static const struct {
        uint32_t flag;
        bool packed;
    } all[] = {
        {HAS_ADLER, false}, {HAS_CRC, false}, {HAS_ADLER_PACKED, true}, {HAS_CRC_PACKED, true}};
    uint64_t n = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        n += flags & all[i].flag && (packed || !all[i].packed) ? 4 : 0;
    return n;
}

/* Enters all blocks. 1: they are all there is; 0, or -E2BIG without a sentence: this is not the way
 * to read it. */
static int hop(struct lzop_file *l, struct peephole *hole, struct platter_error *err)
{
    const uint8_t *bytes;
    size_t len;
    uint64_t usual = 0;
    bool last = false;
    int r = 0;
    for (hoff off = l->header_len; r == 0;) {
        r = peephole_look(hole, off, BLOCK_HEADER, &bytes, &len, err);
        if (r < 0)
            return r;
        uint64_t plain = len < END_MARK ? UINT64_MAX : get_be(bytes, 4);
        if (plain == 0)
            return off + END_MARK == hole->size;
        uint64_t packed = len < BLOCK_HEADER ? UINT64_MAX : get_be(bytes + 4, 4);
        uint64_t all = BLOCK_HEADER + checksums_of(l->flags, packed < plain) + packed;
        if (packed == UINT64_MAX || all > hole->size - off)
            return fail(err, PLATTER_ECORRUPT,
                        "%s: ends at offset %" PRIu64 ", inside of its lzop data, or is damaged at "
                        "offset %" PRIu64,
                        l->u.head.name, hole->size, off);
        if (plain > MOST_BLOCK || packed > plain || packed == 0)
            return fail(err, PLATTER_ECORRUPT,
                        "%s: the lzop data is damaged at offset %" PRIu64
                        ": there is no block header",
                        l->u.head.name, off);
        /* All of them have the same length, but for the last. Nothing protects it, and a wrong one
         * would move all that follows. */
        usual = usual ? usual : plain;
        if (last || plain > usual)
            return 0;
        last = plain < usual;
        r = spans_add(&l->spans, plain, all, err);
        off += all;
    }
    return r;
}

static int find_blocks(struct lzop_file *l, bool query, struct platter_error *err)
{
    struct peephole hole;
    int r = peephole_open(&hole, l->u.head.base, err);
    if (r < 0 || (query && hole.size > UNPACKED_QUERY))
        return r;
    r = read_header(l, &hole, err);
    /* They begin behind the header; what stands in front of them is no part of the first one. */
    if (r == 1)
        r = spans_skip(&l->spans, l->header_len, err);
    return r == 0 && l->header_len ? hop(l, &hole, err) : r;
}

int unpacked_lzop_open(struct stream *base, bool query, struct budget *budget,
                       struct unpacked **ret, struct platter_error *err)
{
    struct lzop_file *l = (struct lzop_file *)unpacked_new(sizeof *l, base, budget, err);
    if (!l)
        return -ENOMEM;
    l->u.how = &lzop_ops;
    spans_init(&l->spans, budget);
    l->spans.target = max_u64(l->spans.target, min_u64(TARGET, l->spans.most / 2));
    int r = find_blocks(l, query, err);
    if (r <= 0) {
        stream_close(&l->u.head);
        return r == -E2BIG ? 0 : r;
    }
    spans_most(&l->spans, &l->u.most_plain, &l->u.most_packed);
    l->u.most_packed = 0; /* it goes through the program */
    l->u.most_besides = PROGRAM;
    l->u.size = spans_end(&l->spans).plain;
    *ret = &l->u;
    return 0;
}
