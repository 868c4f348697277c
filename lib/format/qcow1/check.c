/* SPDX-License-Identifier: MIT */
/* The check: header, L1 table and L2 tables. check.h. */
#include <inttypes.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow1/check.h"

enum { REACH = 1 << 30 /* behind the end of the file: what leads there is no cut off cluster */ };

int space_check_open(struct space_check *s, struct image *img, struct check *c,
                     struct platter_error *err)
{
    *s = (struct space_check){.img = img, .check = c, .mend = c->mend_all};
    int r = stream_size(img->stream, &s->size, err);
    s->append = s->size;
    if (r == 0)
        r = budget_alloc(img->budget, qcow1_of(img)->table_size, "an L2 table", &s->table, err);
    return r < 0 ? r : places_open(&s->places, img->budget, s->size, err);
}

void space_check_close(struct space_check *s)
{
    if (s->places.budget)
        places_close(&s->places);
    budget_free(s->img->budget, s->table, qcow1_of(s->img)->table_size);
}

/* ---- mending --------------------------------------------------------------------------------- */

int qcow1_mend_entry(struct space_check *s, hoff at, uint64_t raw, bool durable,
                     struct platter_error *err)
{
    uint8_t bytes[8];
    put_be(bytes, 8, raw);
    int r = durable ? stream_flush(s->img->stream, err) : 0;
    if (r == 0)
        r = stream_pwrite(s->img->stream, bytes, sizeof bytes, at, err);
    s->changed = true;
    return r;
}

/* An entry that leads nowhere goes, and what it led to is lost. */
static int drop(struct space_check *s, hoff at, const struct platter_error *why,
                struct platter_error *err)
{
    int r = s->mend ? qcow1_mend_entry(s, at, 0, false, err) : 0;
    if (r < 0)
        return r;
    s->dropped |= s->mend;
    check_found(s->check, PLATTER_FINDING_ERROR, s->mend, 1, "%s%s", why->message,
                s->mend ? "; it was dropped" : "");
    return 0;
}

/* What the file lacks of something becomes zeros, when all was looked at. */
static void extend(struct space_check *s, hoff end, const struct platter_error *why)
{
    if (s->mend)
        s->append = max_u64(s->append, end);
    s->changed |= s->mend;
    check_found(s->check, PLATTER_FINDING_ERROR, s->mend, 1, "%s%s", why->message,
                s->mend ? "; the file was made longer, what it lacks is lost" : "");
}

/* ---- the L1 table ---------------------------------------------------------------------------- */

/* What is wrong with an entry that is not 0; NULL: nothing. */
static const char *judge_l1(const struct space_check *s, uint64_t raw)
{
    const struct qcow1 *q = qcow1_of(s->img);
    if (raw & QCOW1_PACKED)
        return "bit 63 is set, which means nothing here";
    if (raw >= s->size)
        return "the L2 table must stand behind the end of the file, where nothing is";
    if (qcow1_hits_header(q, raw, q->table_size))
        return "it leads into the header or the L1 table";
    return NULL;
}

/* A table that stands nowhere else is not mended where most of it makes no sense: it may stand
 * elsewhere. */
static bool is_doubtful(uint64_t bad, uint64_t all)
{
    return bad > 2 && bad * 2 > all;
}

static int check_l1_entry(struct space_check *s, uint32_t i, struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(s->img);
    uint64_t raw = q->l1.entries[i];
    goff guest = (goff)i << q->l1_bits;
    hoff at = q->l1.off + i * UINT64_C(8);
    const char *wrong = raw ? judge_l1(s, raw) : NULL;
    struct platter_error why;

    if (raw == 0)
        return 0;
    if (wrong) {
        fail(&why, PLATTER_ECORRUPT,
             "%s: the L1 entry %" PRIu32 " (guest offset %" PRIu64 ") is 0x%" PRIx64 ": %s",
             s->img->stream->name, i, guest, raw, wrong);
        q->l1.entries[i] = 0;
        return drop(s, at, &why, err);
    }
    if (raw + q->table_size > s->size) {
        fail(&why, PLATTER_ECORRUPT,
             "%s: the L2 table at %" PRIu64 " (guest offset %" PRIu64 ") has %" PRIu32
             " bytes, but the file ends at %" PRIu64,
             s->img->stream->name, raw, guest, q->table_size, s->size);
        extend(s, raw + q->table_size, &why);
    }
    return 0;
}

/* Tables that have bytes in common: which of the entries is right nobody can tell. */
static void check_l1_shared(struct space_check *s)
{
    struct qcow1 *q = qcow1_of(s->img);
    for (uint32_t i = 0; i < q->l1.n; i++) {
        if (q->l1.entries[i] == 0 || !qcow1_is_shared(q, q->l1.entries[i]))
            continue;
        check_found(s->check, PLATTER_FINDING_ERROR, false, 1,
                    "%s: the L1 entry %" PRIu32 " (guest offset %" PRIu64 ") is 0x%" PRIx64
                    ": it leads into the L2 table of another entry",
                    s->img->stream->name, i, (goff)i << q->l1_bits, q->l1.entries[i]);
        q->l1.entries[i] = 0;
        s->keep = true;
    }
}

static int check_l1(struct space_check *s, struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(s->img);
    uint64_t bad = 0, all = 0;
    int r = 0;

    for (uint32_t i = 0; i < q->l1.n; i++) {
        all += q->l1.entries[i] != 0;
        bad += q->l1.entries[i] && judge_l1(s, q->l1.entries[i]);
    }
    bool mend = s->mend, doubtful = is_doubtful(bad, all);
    s->mend &= !doubtful;
    for (uint32_t i = 0; r == 0 && i < q->l1.n; i++)
        r = check_l1_entry(s, i, err);
    s->mend = mend;
    s->keep |= doubtful;
    if (doubtful && mend)
        check_found(s->check, PLATTER_FINDING_NOTE, false, 1,
                    "%s: most of the L1 table makes no sense: it is left alone, as it may stand "
                    "elsewhere",
                    s->img->stream->name);
    if (r == 0)
        r = qcow1_list_tables(s->img, err);
    if (r == 0)
        check_l1_shared(s);
    return r;
}

/* ---- L2 tables ------------------------------------------------------------------------------- */

uint64_t qcow1_needed(const struct image *img, goff guest, const struct qcow1_entry *e)
{
    const struct qcow1 *q = qcow1_of(img);
    if (e->kind == EXTENT_PACKED)
        return e->packed_len;
    return guest < img->size ? min_u64(q->cluster_size, img->size - guest) : 1;
}

/* An entry that is not 0, of a cluster in front of the end of the disk. 1: it is one to go on with.
 */
static int judge_entry(struct space_check *s, struct checked_entry *x, bool judge,
                       struct platter_error *err)
{
    const struct qcow1 *q = qcow1_of(s->img);
    struct platter_error why;

    bool right = qcow1_entry_decode(s->img, x->raw, x->guest, &x->e, &why) == 0;
    if (!right && judge)
        return drop(s, x->at, &why, err);
    uint64_t need = qcow1_needed(s->img, x->guest, &x->e);
    if (!judge && !(right && range_inside(x->e.off, need, s->append))) {
        s->keep = true; /* it was told, or somebody else is to judge it */
        return 0;
    }
    if (!judge || range_inside(x->e.off, need, s->size))
        return 1;
    bool packed = x->e.kind == EXTENT_PACKED;
    fail(&why, PLATTER_ECORRUPT,
         "%s: the %scluster of guest offset %" PRIu64 " must be at %" PRIu64 " with %" PRIu64
         " bytes, but the file ends at %" PRIu64,
         s->img->stream->name, packed ? "compressed " : "", x->guest, x->e.off, need, s->size);
    if (packed || x->e.off >= s->size)
        return drop(s, x->at, &why, err);
    extend(s, x->e.off + q->cluster_size, &why);
    return 1;
}

/* What a disk that was larger left behind. */
static int judge_behind(struct space_check *s, const struct checked_entry *x,
                        struct platter_error *err)
{
    const struct platter_check_result *c = &s->check->result;
    bool mend = s->check->mend_leaks && c->corruptions == 0 && c->check_errors == 0 && !s->dropped;
    int r = mend ? qcow1_mend_entry(s, x->at, 0, false, err) : 0;
    if (r == 0)
        check_found(s->check, PLATTER_FINDING_LEAK, mend, 1,
                    "%s: the L2 entry of guest offset %" PRIu64 ", behind the end of the disk, is "
                    "0x%" PRIx64 "%s",
                    s->img->stream->name, x->guest, x->raw, mend ? "; it was cleared" : "");
    return r;
}

/* Whether an entry is nothing that a writer could have meant. */
static bool is_nonsense(const struct space_check *s, uint64_t raw, goff guest)
{
    struct qcow1_entry e;
    return raw && (qcow1_entry_decode(s->img, raw, guest, &e, NULL) < 0 ||
                   (e.kind != EXTENT_BACKING && e.off > s->size && e.off - s->size > REACH));
}

/* The table in s->table, which most of does not make sense. */
static bool is_nonsense_table(const struct space_check *s, goff guest)
{
    const struct qcow1 *q = qcow1_of(s->img);
    uint64_t bad = 0, all = 0;
    for (uint32_t i = 0; i < q->table_size; i += 8) {
        uint64_t raw = get_be(s->table + i, 8);
        all += raw != 0;
        bad += is_nonsense(s, raw, guest);
    }
    return is_doubtful(bad, all);
}

/* All entries of the table at `table`, which is in s->table. */
static int check_entries(struct space_check *s, goff guest, hoff table, bool judge, entry_fn fn,
                         struct platter_error *err)
{
    const struct qcow1 *q = qcow1_of(s->img);
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < q->table_size; i += 8, guest += q->cluster_size) {
        struct checked_entry x = {.guest = guest, .at = table + i, .raw = get_be(s->table + i, 8)};
        if (x.raw == 0)
            continue;
        if (guest >= q->header.size) {
            r = judge ? judge_behind(s, &x, err) : 0;
            continue;
        }
        r = judge_entry(s, &x, judge, err);
        if (r == 1)
            r = fn(s, &x, err);
    }
    return r;
}

/* Reads a table. 0: there is nothing in it. */
static int load_table(struct space_check *s, hoff table, struct platter_error *err)
{
    const struct qcow1 *q = qcow1_of(s->img);
    uint64_t len;
    bool hole;
    int r = stream_extents(s->img->stream, table, q->table_size, &len, &hole, err);
    if (r < 0 || (hole && len == q->table_size))
        return r;
    r = stream_pread_tail(s->img->stream, s->table, q->table_size, table, err);
    return r < 0 ? r : 1;
}

/* What cannot be read is no damage: nothing is concluded from it, and nothing mended. */
static int unread(struct space_check *s, int r, const struct platter_error *why,
                  struct platter_error *err)
{
    if (s->img->writable)
        return fail(err, -r, "%s", why->message);
    check_failed(s->check, r, why);
    return 0;
}

static int check_table(struct space_check *s, uint32_t i, bool judge, entry_fn fn,
                       struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(s->img);
    hoff table = q->l1.entries[i];
    goff guest = (goff)i << q->l1_bits;
    struct platter_error why = {0};

    int r = load_table(s, table, &why);
    s->keep |= r < 0;
    if (r < 0)
        return judge ? unread(s, r, &why, err) : 0;
    if (r == 0)
        return 0;
    bool mend = s->mend, doubtful = judge && is_nonsense_table(s, guest);
    s->mend &= !doubtful;
    s->keep |= doubtful;
    r = check_entries(s, guest, table, judge, fn, err);
    s->mend = mend;
    if (r == 0 && doubtful && mend)
        check_found(s->check, PLATTER_FINDING_NOTE, false, 1,
                    "%s: most of the L2 table at %" PRIu64 " (guest offset %" PRIu64
                    ") makes no sense: it is left alone, as it may stand elsewhere",
                    s->img->stream->name, table, guest);
    return r;
}

int qcow1_check_tables(struct space_check *s, bool judge, entry_fn fn, struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(s->img);
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < q->l1.n; i++) {
        if (q->l1.entries[i])
            r = check_table(s, i, judge, fn, err);
        if (r == 0 && i % 64 == 0)
            r = check_progress(s->check, (uint64_t)i << q->l1_bits, s->img->size, err);
    }
    return r;
}

/* ---- the image ------------------------------------------------------------------------------- */

static void check_header(const struct image *img, struct check *c)
{
    const struct qcow1_header *h = &qcow1_of(img)->header;
    const char *name = img->stream->name;
    if (h->size % QCOW1_SECTOR)
        check_found(c, PLATTER_FINDING_NOTE, false, 1,
                    "%s: header field size is %" PRIu64 ", of which the last %" PRIu64
                    " bytes are no whole sector and cannot be seen",
                    name, h->size, h->size % QCOW1_SECTOR);
    if (h->l1_offset % 8)
        check_found(c, PLATTER_FINDING_NOTE, false, 1,
                    "%s: header field l1_table_offset is %" PRIu64
                    ", no multiple of 8: the first write moves the table",
                    name, h->l1_offset);
}

int qcow1_check(struct image *img, struct check *c, struct platter_error *err)
{
    const struct qcow1_checkup *k = qcow1_of(img)->checkup;
    struct space_check s;

    if (k->code < 0) {
        check_failed(c, k->code, &k->why);
        return 0;
    }
    check_header(img, c);
    c->result.total_clusters = div_up(img->size, img->unit);
    int r = space_check_open(&s, img, c, err);
    if (r == 0)
        r = check_l1(&s, err);
    if (r == 0)
        r = qcow1_check_space(&s, err);
    if (r == 0)
        c->result.image_end_offset = min_u64(s.used_end, s.size);
    space_check_close(&s);
    return r;
}
