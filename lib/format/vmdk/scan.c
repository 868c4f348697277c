/* SPDX-License-Identifier: MIT */
/*
 * Finding the grains of a stream without its tables: vmdk.md section 5.6.
 *
 * Every record has the address of its grain in its head and a checksum at its end, so none is taken
 * for what it is not: only what inflates is sound. Nothing else that a file says is believed, not
 * even how long a record is; where one ends, its data tells.
 */
#include "base/codec.h"
#include "format/vmdk/vmdk.h"

enum {
    WINDOW = 256 << 10,
    MOST_PACKED = 1032 /* bytes that one byte of deflate can become: RFC 1951 */
};

struct scan {
    struct stream *stream;
    const struct hosted_header *header;
    uint64_t size;
    uint64_t grain;  /* bytes */
    uint8_t *window; /* bytes of the file from `at` on; it has room for the longest record */
    uint64_t room, have;
    hoff at;
    uint8_t *out;      /* an inflated grain */
    uint64_t in_vain;  /* bytes inflated at most for records that were none */
    uint64_t last;     /* the last sound record since a table: its grain, and where it stands */
    uint64_t last_at;  /* in sectors; 0: none */
    stream_item_fn fn; /* whom it is told */
    void *opaque;
};

/* How many bytes of the file there are from off on, of at most `most`. */
static uint64_t there(const struct scan *c, hoff off, uint64_t most)
{
    return off < c->size ? min_u64(most, c->size - off) : 0;
}

/* Gets `len` bytes at off, which the file has, into the window. */
static int look(struct scan *c, hoff off, uint64_t len, const uint8_t **ret,
                struct platter_error *err)
{
    int r = 0;
    if (off < c->at || off + len > c->at + c->have) {
        c->at = off;
        c->have = there(c, off, c->room);
        r = stream_pread(c->stream, c->window, (size_t)c->have, off, err);
        if (r < 0)
            c->have = 0;
    }
    *ret = c->window + (off - c->at);
    return r;
}

/* How long the hole of the file is that begins at off; asked where the window ends. */
static int hole_at(const struct scan *c, hoff off, uint64_t *ret, struct platter_error *err)
{
    bool hole = false;
    uint64_t len = 0;
    int r = 0;
    if (off >= c->at + c->have)
        r = stream_extents(c->stream, off, c->size - off, &len, &hole, err);
    *ret = hole ? round_down(len, VMDK_SECTOR) : 0;
    return r;
}

/* ---- records --------------------------------------------------------------------------------- */

/* RFC 1950: deflate, a window of at most 32 KiB, no preset dictionary, and a check of its own. */
static bool is_zlib(const uint8_t *p)
{
    return (p[0] & 15) == 8 && p[0] >> 4 <= 7 && (p[1] & 0x20) == 0 && (p[0] << 8 | p[1]) % 31 == 0;
}

bool stream_is_record(const struct hosted_header *h, const uint8_t p[RECORD_LOOK])
{
    uint64_t lba = get_le(p, 8), size = get_le(p + 8, 4);
    return size != 0 && size <= 2 * h->grain_size * VMDK_SECTOR && lba % h->grain_size == 0 &&
           lba < (h->capacity ? h->capacity : VMDK_MAX_SECTORS) && is_zlib(p + RECORD_HEAD);
}

/* How much of a grain the disk has. */
static uint64_t needed(const struct scan *c, uint64_t lba)
{
    uint64_t capacity = c->header->capacity;
    return capacity ? min_u64(c->grain, (capacity - lba) * VMDK_SECTOR) : 1;
}

/* Records stand side by side: what they hold has a limit, and what is no record as well, unless the
 * file was made so that all of it is inflated from each sector anew. */
static int note_unsound(struct scan *c, struct platter_error *err)
{
    c->in_vain += c->grain;
    if (c->in_vain / MOST_PACKED <= c->size)
        return 0;
    return fail(err, PLATTER_ECORRUPT,
                "%s: more of it looks like compressed grains than it can hold: the search for its "
                "grains was given up",
                c->stream->name);
}

/* What looks like a record; *ret_len is how many bytes to go on behind. */
static int scan_record(struct scan *c, hoff off, uint64_t lba, uint64_t size, uint64_t *ret_len,
                       struct platter_error *err)
{
    struct stream_item item = {.kind = ITEM_RECORD,
                               .sector = off / VMDK_SECTOR,
                               .grain = lba / c->header->grain_size,
                               .bytes = (uint32_t)(RECORD_HEAD + size)};
    const uint8_t *bytes;
    uint64_t len = there(c, off, item.bytes);
    size_t out = 0, used = 0;
    int r = look(c, off, len, &bytes, err);
    if (r < 0)
        return r;
    r = codec_unpack_zlib(bytes + RECORD_HEAD, (size_t)len - RECORD_HEAD, c->out, (size_t)c->grain,
                          &out, &used, err);
    if (r < 0 && r != -PLATTER_ECORRUPT)
        return r;
    item.sound = r == 0 && out >= needed(c, lba);
    if (item.sound) {
        *ret_len = round_up(RECORD_HEAD + used, VMDK_SECTOR);
        c->last = item.grain;
        c->last_at = item.sector;
    } else if ((r = note_unsound(c, err)) < 0) {
        return r;
    }
    return c->fn(c->opaque, &item, err);
}

/* ---- tables ---------------------------------------------------------------------------------- */

/*
 * A table does not say what it is for. It stands behind its grains, and has the last of them at its
 * place. Tables that are not found to be right are none: their grains are found without them.
 */
static int scan_table(struct scan *c, hoff off, uint64_t *ret_len, struct platter_error *err)
{
    uint32_t entries = c->header->gtes_per_gt;
    const uint8_t *table;
    uint64_t len = (uint64_t)entries * 4;
    if (c->last_at == 0 || there(c, off + VMDK_SECTOR, len) < len)
        return 0;
    int r = look(c, off + VMDK_SECTOR, len, &table, err);
    if (r < 0 || get_le(table + c->last % entries * 4, 4) != c->last_at)
        return r;
    struct stream_item item = {
        .kind = ITEM_TABLE, .sector = off / VMDK_SECTOR + 1, .grain = c->last - c->last % entries};
    *ret_len = VMDK_SECTOR + len;
    c->last_at = 0;
    return c->fn(c->opaque, &item, err);
}

/* ---- the walk -------------------------------------------------------------------------------- */

/* Looks at the sector at off; *ret_len is how far to go. */
static int scan_sector(struct scan *c, hoff off, uint64_t *ret_len, struct platter_error *err)
{
    const uint8_t *p;
    uint64_t have = there(c, off, VMDK_SECTOR);
    *ret_len = VMDK_SECTOR;
    int r = look(c, off, have, &p, err);
    if (r < 0 || have < RECORD_LOOK)
        return r;
    if (stream_is_record(c->header, p))
        return scan_record(c, off, get_le(p, 8), get_le(p + 8, 4), ret_len, err);
    if (have == VMDK_SECTOR && marker_is(p, MARKER_GT))
        return scan_table(c, off, ret_len, err);
    if (have == VMDK_SECTOR && marker_is(p, MARKER_GD)) {
        struct stream_item item = {.kind = ITEM_DIRECTORY, .sector = off / VMDK_SECTOR + 1};
        return c->fn(c->opaque, &item, err);
    }
    return 0;
}

static int scan_run(struct scan *c, struct platter_error *err)
{
    int r = 0;
    for (hoff off = VMDK_SECTOR; off < c->size && r == 0;) {
        uint64_t len;
        r = hole_at(c, off, &len, err);
        if (r == 0 && len == 0)
            r = scan_sector(c, off, &len, err);
        off += len;
    }
    return r;
}

int stream_scan(struct stream *s, const struct hosted_header *h, uint64_t size,
                struct budget *budget, stream_item_fn fn, void *opaque, struct platter_error *err)
{
    struct scan c = {.stream = s,
                     .header = h,
                     .size = size,
                     .grain = h->grain_size * VMDK_SECTOR,
                     .fn = fn,
                     .opaque = opaque};
    /* A little more, so that what looks like a record in each sector is not read anew for each. */
    uint64_t record = round_up(RECORD_HEAD + 2 * c.grain, VMDK_SECTOR);
    c.room = max_u64(WINDOW, record + round_up(record / 8, VMDK_SECTOR));
    int r = budget_alloc(budget, c.room, "the search for the grains of a VMDK", &c.window, err);
    if (r == 0)
        r = budget_alloc(budget, c.grain, "the search for the grains of a VMDK", &c.out, err);
    if (r == 0)
        r = scan_run(&c, err);
    budget_free(budget, c.out, c.grain);
    budget_free(budget, c.window, c.room);
    return r;
}
