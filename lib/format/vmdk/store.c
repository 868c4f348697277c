/* SPDX-License-Identifier: MIT */
/*
 * A new text in the place of a descriptor: vmdk.md section 3.9.
 *
 * A sector is written whole or not at all, and so is a text that differs in one of them: it is
 * written where it stands. Otherwise a text file is replaced by a new one; and in a sparse file the
 * text is first written to a place that is free, the header is pointed there, and then it is
 * written, and pointed, to where it belongs: sector 1, the only place where QEMU looks for it. At
 * any moment the header points to a whole text.
 */
#include <inttypes.h>

#include "format/vmdk/vmdk.h"

/* Sectors of a file. */
struct place {
    uint64_t at, n;
};

enum { DESCRIPTOR_OFFSET_AT = 28, DESCRIPTOR_SIZE_AT = 36 }; /* in a header: section 4.1 */

/* ---- what is free in a sparse file ----------------------------------------------------------- */

/* Lowers *limit to the first grain table of a directory. */
static int above_tables(struct stream *s, const struct hosted_header *h, uint64_t directory,
                        uint64_t *limit, struct platter_error *err)
{
    enum { ENTRIES = 1024 };
    uint8_t entries[ENTRIES * 4];
    uint64_t n = hosted_directory_entries(h);
    int r = 0;
    *limit = min_u64(*limit, directory);
    for (uint64_t i = 0; i < n && r == 0; i += ENTRIES) {
        uint64_t some = min_u64(n - i, ENTRIES);
        r = stream_pread(s, entries, (size_t)some * 4, directory * VMDK_SECTOR + i * 4, err);
        for (uint64_t k = 0; k < some && r == 0; k++) {
            uint64_t table = get_le(entries + 4 * k, 4);
            *limit = table ? min_u64(*limit, table) : *limit;
        }
    }
    return r;
}

/* The sector where anything but header and descriptor may begin. The room for the descriptor of a
 * stream stands in its footer as well, and stays as it is. */
static int find_limit(struct stream *s, const struct hosted_header *h, uint64_t *ret,
                      struct platter_error *err)
{
    uint64_t size;
    int r = stream_size(s, &size, err);
    *ret = h->overhead ? h->overhead : h->descriptor_offset + h->descriptor_size;
    *ret = min_u64(*ret, size / VMDK_SECTOR);
    if (h->gd_offset == HOSTED_GD_AT_END)
        *ret = min_u64(*ret, h->descriptor_offset + h->descriptor_size);
    if (r < 0 || h->capacity == 0 || h->gd_offset == HOSTED_GD_AT_END)
        return r;
    r = hosted_check(s->name, h, size, err); /* it was read again */
    if (r == 0)
        r = above_tables(s, h, h->gd_offset, ret, err);
    if (r == 0 && (h->flags & HOSTED_REDUNDANT))
        r = above_tables(s, h, h->rgd_offset, ret, err);
    return r;
}

/* Whether a sector holds nothing, or a piece of text and NULs behind it: that is what is left of a
 * change that a crash ended. */
static bool is_free_sector(const uint8_t *sector)
{
    size_t text = strnlen((const char *)sector, VMDK_SECTOR);
    for (size_t i = 0; i < text; i++)
        if (sector[i] < ' ' && !strchr("\t\r\n", sector[i]))
            return false;
    return is_zero(sector + text, VMDK_SECTOR - text);
}

/* How many sectors are free from the first of a place on. */
static int count_unused(struct stream *s, struct place p, uint64_t *ret, struct platter_error *err)
{
    uint8_t sector[VMDK_SECTOR];
    int r = 0;
    for (*ret = 0; *ret < p.n && r == 0; ++*ret) {
        r = stream_pread(s, sector, sizeof sector, (p.at + *ret) * VMDK_SECTOR, err);
        if (r == 0 && !is_free_sector(sector))
            break;
    }
    return r;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* The text and NULs up to the end of the place, durably. */
static int write_text(struct image *img, struct place p, const char *text, size_t len,
                      struct platter_error *err)
{
    uint8_t *area;
    uint64_t bytes = p.n * VMDK_SECTOR;
    int r = budget_alloc(img->budget, bytes, "a VMDK descriptor", &area, err);
    if (r < 0)
        return r;
    memcpy(area, text, len);
    r = stream_pwrite(img->stream, area, (size_t)bytes, p.at * VMDK_SECTOR, err);
    budget_free(img->budget, area, bytes);
    return r < 0 ? r : stream_flush(img->stream, err);
}

/* Points the header to a place, durably, and all that know it. */
static int point_to(struct image *img, struct place p, struct platter_error *err)
{
    struct vmdk *v = vmdk_of(img);
    uint8_t sector[VMDK_SECTOR];
    int r = stream_pread(img->stream, sector, sizeof sector, 0, err);
    if (r < 0)
        return r;
    put_le(sector + DESCRIPTOR_OFFSET_AT, 8, p.at);
    put_le(sector + DESCRIPTOR_SIZE_AT, 8, p.n);
    r = stream_pwrite(img->stream, sector, sizeof sector, 0, err);
    if (r == 0)
        r = stream_flush(img->stream, err);
    if (r < 0)
        return r;
    v->descriptor_off = p.at * VMDK_SECTOR;
    v->descriptor_len = p.n * VMDK_SECTOR;
    WITH_LOCK(&img->lock);
    bool own = v->n_extents > 0 && v->extents[0].stream == img->stream; /* none: it is checked */
    struct sparse *s = own ? v->extents[0].sparse : NULL;
    if (s) {
        s->header.descriptor_offset = p.at;
        s->header.descriptor_size = p.n;
    }
    return 0;
}

/* ---- a sparse file --------------------------------------------------------------------------- */

/* How a text gets into a sparse file. */
struct move {
    const char *text;
    size_t len;
    uint64_t used; /* sectors the text takes, with a NUL behind it */
    struct place now;
    uint64_t now_used; /* by the old text */
    struct place home; /* where the text shall be in the end */
    uint64_t limit;
};

static bool overlap(struct place a, struct place b)
{
    return a.at < b.at + b.n && b.at < a.at + a.n;
}

/* Where the text shall stand: where it does, if it fits and that is sector 1; with room to grow.
 * What a torn move left there is text. */
static int choose_home(struct image *img, struct move *m, struct platter_error *err)
{
    bool fits = m->len <= m->now.n * VMDK_SECTOR, known = m->now.at == VMDK_DESCRIPTOR_SECTOR;
    m->home = m->now;
    if (fits && known)
        return 0;
    uint64_t need = div_up(m->len, VMDK_SECTOR), unused;
    struct place home = {VMDK_DESCRIPTOR_SECTOR, known ? m->now.n : 0}, more;
    more.at = home.at + home.n;
    more.n = min_u64(m->limit, home.at + max_u64(need, VMDK_DESCRIPTOR_SECTORS));
    more.n -= min_u64(more.n, more.at);
    int r = count_unused(img->stream, more, &unused, err);
    home.n += unused;
    if (r == 0 && home.n >= need)
        m->home = home;
    else if (r == 0 && !fits)
        r = fail(err, ENOSPC,
                 "%s: its descriptor would take %zu bytes, but there is room for %" PRIu64
                 " only: convert it to an image with more room",
                 img->stream->name, m->len, max_u64(m->now.n, home.n) * VMDK_SECTOR);
    return r;
}

/* A place for the time in between: behind both texts in the descriptor's own room, behind that, or
 * at the end of the file. */
static int choose_scratch(struct image *img, const struct move *m, struct place *ret,
                          struct platter_error *err)
{
    uint64_t behind = max_u64(m->now.at + m->now_used, m->home.at + m->used), size;
    uint64_t end = max_u64(m->now.at + m->now.n, m->home.at + m->home.n);
    *ret = (struct place){end - min_u64(end, m->used), m->used};
    if (ret->at >= behind)
        return 0;
    uint64_t unused = 0;
    *ret = (struct place){max_u64(behind, end), m->used};
    int r = 0;
    if (ret->at + ret->n <= m->limit)
        r = count_unused(img->stream, *ret, &unused, err);
    if (r < 0 || unused == ret->n)
        return r;
    r = stream_size(img->stream, &size, err);
    ret->at = div_up(size, VMDK_SECTOR);
    return r;
}

/* The text at home for good; what is behind it there is no longer needed. */
static int settle(struct image *img, const struct move *m, struct platter_error *err)
{
    struct place text = {m->home.at, min_u64(m->used, m->home.n)};
    int r = write_text(img, text, m->text, m->len, err);
    if (r == 0)
        r = point_to(img, m->home, err);
    if (r < 0 || text.n == m->home.n)
        return r;
    return stream_zero(img->stream, (text.at + text.n) * VMDK_SECTOR,
                       (m->home.n - text.n) * VMDK_SECTOR, 0, err);
}

static int move_text(struct image *img, const struct move *m, struct platter_error *err)
{
    struct place old = {m->now.at, m->now_used}, new = {m->home.at, m->used}, scratch;
    if (!overlap(old, new))
        return settle(img, m, err);
    uint64_t size;
    int r = choose_scratch(img, m, &scratch, err);
    if (r == 0)
        r = stream_size(img->stream, &size, err);
    if (r == 0)
        r = write_text(img, scratch, m->text, m->len, err);
    if (r == 0)
        r = point_to(img, scratch, err);
    if (r == 0)
        r = settle(img, m, err);
    if (r == 0 && scratch.at * VMDK_SECTOR >= size)
        return stream_resize(img->stream, size, err);
    if (r == 0 && scratch.at >= m->home.at + m->home.n)
        return stream_zero(img->stream, scratch.at * VMDK_SECTOR, scratch.n * VMDK_SECTOR, 0, err);
    return r;
}

/* ---- one sector ------------------------------------------------------------------------------ */

/* Writes over the old bytes where they differ, if all of that lies in one sector. *ret_done: so it
 * was. */
static int write_sector(struct image *img, const uint8_t *old, const uint8_t *new, uint64_t bytes,
                        bool *ret_done, struct platter_error *err)
{
    const struct vmdk *v = vmdk_of(img);
    uint64_t first = 0, end = bytes;
    while (first < bytes && old[first] == new[first])
        first++;
    while (end > first && old[end - 1] == new[end - 1])
        end--;
    hoff from = v->descriptor_off + first, to = v->descriptor_off + end;
    *ret_done = from == to || from / VMDK_SECTOR == (to - 1) / VMDK_SECTOR;
    if (!*ret_done || from == to)
        return 0;
    int r = stream_pwrite(img->stream, new + first, (size_t)(end - first), from, err);
    return r < 0 ? r : stream_flush(img->stream, err);
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* Where in a sparse file a text goes; fails where there is no room for it. */
static int plan_move(struct image *img, const char *text, size_t len, struct move *ret,
                     struct platter_error *err)
{
    const struct vmdk *v = vmdk_of(img);
    uint8_t sector[VMDK_SECTOR];
    struct hosted_header h;
    *ret = (struct move){.text = text,
                         .len = len,
                         .used = len / VMDK_SECTOR + 1,
                         .now = {v->descriptor_off / VMDK_SECTOR, v->descriptor_len / VMDK_SECTOR}};
    int r = stream_pread(img->stream, sector, sizeof sector, 0, err);
    if (r < 0)
        return r;
    hosted_decode(sector, &h);
    hosted_forget_second(&h);
    r = find_limit(img->stream, &h, &ret->limit, err);
    return r < 0 ? r : choose_home(img, ret, err);
}

static int write_embedded(struct image *img, const uint8_t *old, const char *text, size_t len,
                          struct platter_error *err)
{
    size_t old_len = strnlen((const char *)old, (size_t)vmdk_of(img)->descriptor_len);
    struct move m;
    int r = plan_move(img, text, len, &m, err);
    if (r < 0)
        return r;
    m.now_used = old_len / VMDK_SECTOR + 1;
    m.now_used = min_u64(m.now_used, m.now.n);
    m.used = min_u64(m.used, m.home.n);
    r = move_text(img, &m, err);
    return r < 0 ? image_poison(img, r) : 0;
}

static int write_alone(struct image *img, const uint8_t *bytes, size_t len,
                       struct platter_error *err)
{
    int r = stream_replace(img->stream, bytes, len, err);
    if (r < 0)
        return r;
    vmdk_of(img)->descriptor_len = len;
    r = stream_flush(img->stream, err);
    return r < 0 ? image_poison(img, r) : 0;
}

/* With the old bytes, and the new text padded with NULs as long as they. */
static int write_over(struct image *img, uint8_t *old, uint8_t *new, const char *text, size_t len,
                      struct platter_error *err)
{
    const struct vmdk *v = vmdk_of(img);
    uint64_t room = v->descriptor_len;
    int r = stream_pread(img->stream, old, (size_t)room, v->descriptor_off, err);
    if (r < 0)
        return r;
    /* A file that had NULs behind its text keeps its length, one that had none has none again. */
    bool padded = old[room - 1] == 0;
    bool fits = len == room || (len < room && (v->embedded || padded));
    bool at_home = !v->embedded || v->descriptor_off == VMDK_DESCRIPTOR_SECTOR * VMDK_SECTOR;
    if (fits)
        memcpy(new, text, len);
    if (fits && at_home) {
        bool done;
        r = write_sector(img, old, new, room, &done, err);
        if (r < 0 || done)
            return r < 0 ? image_poison(img, r) : 0;
    }
    if (v->embedded)
        return write_embedded(img, old, text, len, err);
    return fits ? write_alone(img, new, (size_t)room, err)
                : write_alone(img, (const uint8_t *)text, len, err);
}

int descriptor_write(struct image *img, const char *text, size_t len, struct platter_error *err)
{
    uint64_t room = vmdk_of(img)->descriptor_len;
    uint8_t *both;
    int r = budget_alloc(img->budget, 2 * room, "a VMDK descriptor", &both, err);
    if (r < 0)
        return r;
    r = write_over(img, both, both + room, text, len, err);
    budget_free(img->budget, both, 2 * room);
    return r;
}

int descriptor_fits(struct image *img, const char *text, size_t len, struct platter_error *err)
{
    const struct vmdk *v = vmdk_of(img);
    struct move m;
    return v->embedded ? plan_move(img, text, len, &m, err) : 0;
}
