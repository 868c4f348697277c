/* SPDX-License-Identifier: MIT */
/*
 * Header and footer of a hosted sparse file that is checked: vmdk.md sections 4.1, 5.3 and 13.
 *
 * Each of several readings is put to the test that open puts a header to; the first that passes is
 * what the check goes on with, and what the repair writes down.
 */
#include <inttypes.h>

#include "format/vmdk/check.h"

/* ---- reading --------------------------------------------------------------------------------- */

int header_pair_read(struct stream *s, uint64_t size, struct header_pair *ret,
                     struct platter_error *err)
{
    uint8_t sector[VMDK_SECTOR];
    int r = stream_pread_tail(s, sector, sizeof sector, 0, err);
    if (r < 0)
        return r;
    *ret = (struct header_pair){.has_header = hosted_magic(sector)};
    hosted_decode(sector, &ret->header);
    r = hosted_find_footer(s, size, &ret->footer, &ret->footer_at, err);
    ret->has_footer = ret->footer_at != 0;
    return r;
}

void header_pair_descriptor(const struct header_pair *p, uint64_t *ret_at, uint64_t *ret_len)
{
    const struct hosted_header *h = p->has_header ? &p->header : &p->footer;
    bool sane = h->descriptor_offset < VMDK_MAX_DESCRIPTOR &&
                h->descriptor_size <= VMDK_MAX_DESCRIPTOR / VMDK_SECTOR;
    if (!sane && p->has_header && p->has_footer)
        h = &p->footer;
    *ret_at = h->descriptor_offset;
    *ret_len = h->descriptor_size;
    if (h->descriptor_offset >= VMDK_MAX_DESCRIPTOR) { /* where all writers have it */
        *ret_at = VMDK_DESCRIPTOR_SECTOR;
        *ret_len = VMDK_DESCRIPTOR_SECTORS;
    }
}

/* ---- which to believe ------------------------------------------------------------------------ */

/* A header as a candidate: what it would be with the directory where it says. */
static bool is_good(struct sparse_check *s, const struct hosted_header *h,
                    struct platter_error *ret_why)
{
    struct hosted_header settled = *h;
    struct platter_error why;
    hosted_forget_second(&settled);
    int r = hosted_check(s->name, &settled, s->size, &why);
    if (r == 0)
        r = hosted_check_marker(s->stream, &settled, &why);
    check_tells(s, r, &why);
    if (r == 0)
        s->h = settled;
    else if (ret_why)
        *ret_why = why;
    return r == 0;
}

/* Writes a sector of the header, or the footer. One sector is written whole or not at all. */
static int write_header(struct sparse_check *s, const struct hosted_header *h, hoff at,
                        struct platter_error *err)
{
    uint8_t sector[VMDK_SECTOR];
    hosted_encode(h, sector);
    int r = stream_pwrite(s->stream, sector, sizeof sector, at, err);
    return r < 0 ? r : stream_flush(s->stream, err);
}

int check_write_header(struct sparse_check *s, struct platter_error *err)
{
    return write_header(s, &s->h, 0, err);
}

/* Reports what is wrong with the header, and writes the better one. */
static int replace_header(struct sparse_check *s, const struct hosted_header *better, hoff at,
                          const char *from, const struct platter_error *why,
                          struct platter_error *err)
{
    int r = check_failure(s, err);
    if (r == 0 && s->mend)
        r = write_header(s, better, at, err);
    if (r == 0)
        check_found(s->check, PLATTER_FINDING_ERROR, s->mend, 1, "%s%s%s", why->message,
                    s->mend ? "; it was made anew from " : "; it can be made anew from ", from);
    return r;
}

/* One of the two directories of a file is nowhere: the other is enough. *ret: 1 if not even that.
 */
static int try_one_directory(struct sparse_check *s, const struct hosted_header *h,
                             const struct platter_error *why, struct platter_error *err)
{
    struct hosted_header one = *h;
    if (!(h->flags & HOSTED_REDUNDANT))
        return 1;
    one.flags &= ~(uint32_t)HOSTED_REDUNDANT;
    one.rgd_offset = 0;
    if (is_good(s, &one, NULL))
        return replace_header(s, &one, 0, "what it says without its redundant directory", why, err);
    one.gd_offset = h->rgd_offset;
    if (is_good(s, &one, NULL))
        return replace_header(s, &one, 0, "what it says of its redundant directory", why, err);
    return 1;
}

/* The header as a footer's copy of it would be; but the descriptor may have moved since. */
static struct hosted_header header_of(const struct sparse_check *s,
                                      const struct hosted_header *footer)
{
    const struct vmdk *v = vmdk_of(s->img);
    struct hosted_header h = *footer;
    h.gd_offset = HOSTED_GD_AT_END;
    if (v->descriptor && v->embedded) {
        h.descriptor_offset = v->descriptor_off / VMDK_SECTOR;
        h.descriptor_size = v->descriptor_len / VMDK_SECTOR;
    }
    return h;
}

/* A header that leads to the end of the file, and no directory there: the grains are what is left.
 */
static int lost_directory(struct sparse_check *s, const struct hosted_header *h,
                          const struct platter_error *why)
{
    struct hosted_header found;
    const struct descriptor *d = vmdk_of(s->img)->descriptor;
    struct platter_error not_found;
    int r = hosted_find(s->stream, s->size, &found, &not_found);
    if (!check_tells(s, r, &not_found) || s->failed < 0)
        return s->failed; /* the caller gives the sentence */
    if (r == 0 && found.capacity == 0 && d && d->extents[0].type == TYPE_SPARSE)
        found.capacity = d->extents[0].sectors;
    if (r < 0 || !(h->flags & HOSTED_MARKERS) || h->compression == 0 || found.capacity == 0) {
        check_failed(s->check, -why->code, why);
        return 1;
    }
    check_found(s->check, PLATTER_FINDING_ERROR, s->mend, 1, "%s%s", why->message,
                s->mend ? "; tables and footer are made anew from the grains"
                        : "; tables and footer can be made anew from the grains");
    s->h = found;
    s->h.gd_offset = HOSTED_GD_AT_END;
    s->h.flags &= ~(uint32_t)HOSTED_REDUNDANT;
    s->at_end = s->rebuild = true;
    return 0;
}

/* ---- header against footer ------------------------------------------------------------------- */

/* Whether the records of the first table of a directory are where a header makes them be. */
static int table_agrees(struct sparse_check *s, const struct hosted_header *h, uint64_t first,
                        uint32_t gt, bool *ret, struct platter_error *err)
{
    uint8_t table[VMDK_MAX_GTES * 4], head[RECORD_HEAD];
    int r = stream_pread_tail(s->stream, table, h->gtes_per_gt * 4, (hoff)gt * VMDK_SECTOR, err);
    for (uint32_t i = 0; i < h->gtes_per_gt && r == 0 && *ret; i++) {
        uint32_t gte = (uint32_t)get_le(table + i * 4, 4);
        if (gte <= 1)
            continue;
        r = stream_pread_tail(s->stream, head, sizeof head, (hoff)gte * VMDK_SECTOR, err);
        uint64_t lba = get_le(head, 8);
        *ret = lba == (first + i) * h->grain_size && lba < h->capacity;
    }
    return r;
}

/* Whether a header of a stream, that is_good(), fits the records: not if it has another grain
 * size or a smaller capacity. */
static int records_agree(struct sparse_check *s, const struct hosted_header *h, bool *ret,
                         struct platter_error *err)
{
    enum { PIECE = 4096 };
    uint8_t gd[PIECE];
    uint64_t entries = hosted_directory_entries(h);
    int r = 0;
    *ret = true;
    for (uint64_t from = 0; from < entries && r == 0; from += PIECE / 4) {
        uint64_t n = min_u64(PIECE / 4, entries - from);
        r = stream_pread(s->stream, gd, (size_t)n * 4, h->gd_offset * VMDK_SECTOR + from * 4, err);
        for (uint64_t i = 0; i < n && r == 0; i++)
            if (get_le(gd + i * 4, 4))
                return table_agrees(s, h, (from + i) * h->gtes_per_gt,
                                    (uint32_t)get_le(gd + i * 4, 4), ret, err);
    }
    return r;
}

/* Whether it is the descriptor's size, too. */
static bool line_agrees(const struct sparse_check *s, const struct hosted_header *h)
{
    const struct descriptor *d = vmdk_of(s->img)->descriptor;
    return d && d->n_extents == 1 && d->extents[0].sectors == h->capacity;
}

/* Both make sense, and contradict each other: which of them do the records, and then the
 * descriptor, bear out? The footer where neither tells: it was written last. */
static int choose_footer(struct sparse_check *s, const struct hosted_header *header,
                         const struct hosted_header *footer, bool *ret, struct platter_error *err)
{
    bool records[2] = {false, false};
    int r = records_agree(s, header, &records[0], err);
    if (r == 0)
        r = records_agree(s, footer, &records[1], err);
    *ret =
        records[0] != records[1] ? records[1] : !line_agrees(s, header) || line_agrees(s, footer);
    return r;
}

static int check_footer(struct sparse_check *s, const struct header_pair *p,
                        struct platter_error *err)
{
    struct platter_error why = {0};
    struct hosted_header ours = p->header;
    s->at_end = true;
    if (!p->has_footer) {
        fail(&why, PLATTER_ECORRUPT,
             "%s: its header says that the grain directory is at the end, but there is no footer "
             "in the last sectors of %" PRIu64 " bytes: the file is truncated",
             s->name, s->size);
        return lost_directory(s, &p->header, &why);
    }
    bool agree = hosted_is_footer_of(&p->footer, &p->header);
    bool footer = is_good(s, &p->footer, &why);
    if (agree && footer)
        return 0;
    if (agree)
        return lost_directory(s, &p->header, &why);
    fail(&why, PLATTER_ECORRUPT,
         "%s: header and footer (at byte %" PRIu64 ") contradict each other", s->name,
         p->footer_at);
    struct hosted_header mended = header_of(s, &p->footer);
    ours.gd_offset = p->footer.gd_offset;
    ours.rgd_offset = p->footer.rgd_offset;
    ours.at_end = true;
    bool header = is_good(s, &ours, NULL), take_footer = !header;
    int r = 0;
    if (header && footer)
        r = choose_footer(s, &ours, &p->footer, &take_footer, err);
    if (r < 0)
        return r;
    if (footer && take_footer && is_good(s, &p->footer, NULL))
        return replace_header(s, &mended, 0, "the footer", &why, err);
    if (header && is_good(s, &ours, NULL))
        return replace_header(s, &ours, p->footer_at, "the header", &why, err);
    return lost_directory(s, &p->header, &why);
}

static int choose(struct sparse_check *s, const struct header_pair *p, struct platter_error *err)
{
    struct platter_error why = {0};
    if (!p->has_header)
        fail(&why, PLATTER_ECORRUPT, "%s: not a sparse VMDK file (no KDMV at offset 0)", s->name);
    else if (p->header.gd_offset == HOSTED_GD_AT_END)
        return check_footer(s, p, err);
    else if (is_good(s, &p->header, &why))
        return 0;
    if (p->has_footer && is_good(s, &p->footer, NULL)) {
        struct hosted_header mended = header_of(s, &p->footer);
        s->at_end = true;
        return replace_header(s, &mended, 0, "the footer", &why, err);
    }
    int r = p->has_header ? try_one_directory(s, &p->header, &why, err) : 1;
    if (r == 1 && s->failed == 0)
        check_failed(s->check, -why.code, &why);
    return r;
}

/* ---- COWD ------------------------------------------------------------------------------------ */

int check_free_sector(struct sparse_check *s, struct platter_error *err)
{
    struct sparse engine = {.kind = SPARSE_COWD, .stream = s->stream, .end = s->size};
    return cowd_write_free_sector(s->img, &engine, err);
}

/* The engine reads the header; what it refuses is an error. */
static int check_cowd(struct sparse_check *s, struct platter_error *err)
{
    struct sparse engine = {.kind = SPARSE_COWD, .stream = s->stream, .end = s->size};
    struct platter_error why = {0};
    int r = cowd_read(&engine, &why);
    if (r < 0) {
        check_failed(s->check, r, &why);
        return 1;
    }
    s->h = engine.header;
    s->h.unclean = engine.was_unclean;
    s->cowd = true;
    if (engine.cowd.free_sector >= cowd_free_sector(s->size))
        return 0;
    if (s->mend)
        r = check_free_sector(s, err);
    if (r == 0)
        check_found(s->check, PLATTER_FINDING_ERROR, s->mend, 1,
                    "%s: freeSector (header offset 28) is %" PRIu32 ", inside the file of %" PRIu64
                    " bytes: ESX would write over what is there",
                    s->name, engine.cowd.free_sector, s->size);
    return r;
}

/* ---- the header ------------------------------------------------------------------------------ */

int check_header(struct sparse_check *s, struct platter_error *err)
{
    uint8_t magic[8] = {0};
    struct header_pair pair;
    int r = stream_pread_tail(s->stream, magic, sizeof magic, 0, err);
    if (r < 0)
        return r;
    if (se_magic(magic))
        return check_se_header(s, err);
    if (cowd_magic(magic)) {
        r = check_cowd(s, err);
    } else if ((r = header_pair_read(s->stream, s->size, &pair, err)) == 0) {
        header_pair_descriptor(&pair, &pair.footer.descriptor_offset, &pair.footer.descriptor_size);
        r = choose(s, &pair, err);
        if (s->failed < 0)
            r = check_failure(s, err);
    }
    if (r != 0)
        return r;
    const struct hosted_header *h = &s->h;
    s->grains = div_up(h->capacity, h->grain_size);
    s->gt_sectors = h->gtes_per_gt * 4 / VMDK_SECTOR;
    s->gd_count = (uint32_t)hosted_directory_entries(h);
    s->packed = h->compression != 0;
    s->copies = h->flags & HOSTED_REDUNDANT ? 2 : 1;
    /* Records that do not say which grain they are cannot be found again without their tables. */
    if (s->at_end && !(s->packed && (h->flags & HOSTED_MARKERS)))
        s->mend = false;
    s->gd_at[PRIMARY] = h->gd_offset;
    s->gd_at[REDUNDANT] = h->rgd_offset;
    s->check->result.total_clusters += s->grains;
    return 0;
}

int check_unclean(struct sparse_check *s, struct platter_error *err)
{
    const struct platter_check_result *found = &s->check->result;
    bool mend = s->check->mend_leaks && found->corruptions == 0 && found->check_errors == 0;
    if (!s->h.unclean)
        return 0;
    int r = 0;
    if (mend && s->cowd) {
        struct sparse engine = {.kind = SPARSE_COWD, .stream = s->stream, .end = s->size};
        r = cowd_set_unclean(&engine, false, err);
    } else if (mend) {
        r = stream_pwrite(s->stream, "", 1, HOSTED_UNCLEAN_AT, err);
    }
    if (r == 0 && mend)
        r = stream_flush(s->stream, err);
    if (r == 0)
        check_found(s->check, PLATTER_FINDING_NOTE, mend, 1,
                    "%s: it was not closed by whoever wrote it last (header offset %d)%s", s->name,
                    s->cowd ? COWD_UNCLEAN_AT : HOSTED_UNCLEAN_AT,
                    mend ? "; the mark was taken away" : "");
    return r;
}
