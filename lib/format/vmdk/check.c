/* SPDX-License-Identifier: MIT */
/*
 * The check of a VMDK as a whole: from the file to the descriptor to the extents, and what the
 * descriptor says of them. vmdk.md section 13.
 *
 * Open goes as far as it can and keeps why it could not go on; the check tells. A file that begins
 * as a sparse one is judged as such even where its descriptor is lost.
 */
#include <inttypes.h>

#include "format/vmdk/check.h"

/* ---- opening --------------------------------------------------------------------------------- */

static int add_files(struct image *img, unsigned n, struct platter_error *err)
{
    struct checkup *k = vmdk_of(img)->checkup;
    k->max_files = n;
    return budget_alloc(img->budget, n * sizeof *k->files, "the extents of a VMDK", &k->files, err);
}

/* Reads the text at off; what is wrong with it is kept for the check. */
static int read_text(struct image *img, hoff off, uint64_t len, bool embedded,
                     struct platter_error *err)
{
    struct checkup *k = vmdk_of(img)->checkup;
    k->code = vmdk_read_descriptor(img, off, len, embedded, &k->why);
    return k->code == -ENOMEM ? fail(err, ENOMEM, "%s", k->why.message) : 0;
}

/* Past what does not tell a name from another: slashes that are doubled, "./". */
static const char *skip_idle(const char *name)
{
    for (;; name += strspn(name, "/")) {
        if (name[0] != '.' || name[1] != '/')
            return name;
        name += 2;
    }
}

static bool is_same_name(const char *a, const char *b)
{
    for (a = skip_idle(a), b = skip_idle(b); *a == *b; a++, b++) {
        if (*a == '\0')
            return true;
        if (*a == '/') { /* the next part of both */
            a = skip_idle(a + strspn(a, "/")) - 1;
            b = skip_idle(b + strspn(b, "/")) - 1;
        }
    }
    return false;
}

/* The first extent that has its file in that stream, or in a file of that name; or `end`. */
static struct check_file *find_file(struct checkup *k, struct check_file *end,
                                    struct stream *stream)
{
    struct check_file *f = k->files;
    for (; f < end; f++)
        if (stream ? f->stream && stream_same_file(f->stream, stream)
                   : f->stream && is_same_name(f->line->file, end->line->file))
            break;
    return f;
}

/* However many lines name a file, and however they spell it, it is opened once. */
static void open_named(struct image *img, struct check_file *f)
{
    struct checkup *k = vmdk_of(img)->checkup;
    if (f->line->type == TYPE_ZERO)
        return;
    struct check_file *first = find_file(k, f, NULL);
    if (first == f) {
        f->code = vmdk_open_named(img, f->line->file, img->writable, &f->stream, &f->why);
        if (f->code < 0)
            return;
        f->owned = true;
        first = find_file(k, f, f->stream);
    }
    bool itself = f->owned && stream_same_file(f->stream, img->stream);
    if (itself)
        f->code = fail(&f->why, PLATTER_ECORRUPT, "%s: the descriptor names itself as an extent",
                       img->stream->name);
    if (f->owned && (itself || first < f)) {
        stream_close(TAKE(f->stream));
        f->owned = false;
    }
    if (first < f)
        f->stream = first->stream;
}

static int open_extents(struct image *img, struct platter_error *err)
{
    const struct descriptor *d = vmdk_of(img)->descriptor;
    struct checkup *k = vmdk_of(img)->checkup;
    if (!d)
        return 0;
    int r = add_files(img, d->n_extents, err);
    for (unsigned i = 0; i < d->n_extents && r == 0; i++) {
        k->files[k->n_files++].line = &d->extents[i];
        open_named(img, &k->files[i]);
    }
    return r;
}

/* The file is its own extent. */
static int open_self(struct image *img, struct platter_error *err)
{
    struct checkup *k = vmdk_of(img)->checkup;
    const struct descriptor *d = vmdk_of(img)->descriptor;
    int r = add_files(img, 1, err);
    if (r < 0)
        return r;
    k->n_files = 1;
    k->files[0] = (struct check_file){.line = d ? &d->extents[0] : NULL, .stream = img->stream};
    return 0;
}

/* A header with capacity 0 makes the file a mere container of a descriptor: section 4.1. */
static bool is_container(const struct header_pair *p, const struct descriptor *d)
{
    return d && p->has_header && p->header.capacity == 0 && !p->has_footer &&
           !(d->n_extents == 1 && d->extents[0].type == TYPE_SPARSE);
}

static int open_hosted(struct image *img, const struct header_pair *p, struct platter_error *err)
{
    uint64_t at, len;
    header_pair_descriptor(p, &at, &len);
    int r = 0;
    if (at == 0 || len == 0)
        vmdk_of(img)->bare = true;
    else
        r = read_text(img, at * VMDK_SECTOR, len * VMDK_SECTOR, true, err);
    if (r < 0)
        return r;
    return is_container(p, vmdk_of(img)->descriptor) ? open_extents(img, err) : open_self(img, err);
}

int vmdk_open_for_check(struct image *img, struct platter_error *err)
{
    struct vmdk *v = vmdk_of(img);
    struct header_pair pair = {0};
    uint8_t magic[8] = {0};
    uint64_t size;
    v->checkup = calloc(1, sizeof *v->checkup);
    if (!v->checkup)
        return fail_memory(err, "a check");
    int r = stream_size(img->stream, &size, err);
    if (r == 0)
        r = stream_pread_tail(img->stream, magic, sizeof magic, 0, err);
    if (r < 0)
        return r;
    if (memcmp(magic, "kdmv", 4) == 0)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: an unfinished VMDK: whatever wrote it did not come to its end",
                    img->stream->name);
    if (cowd_magic(magic) || se_magic(magic)) {
        v->bare = true;
        return open_self(img, err);
    }
    if (size >= VMDK_SECTOR)
        r = header_pair_read(img->stream, size, &pair, err);
    if (r < 0)
        return r;
    if (pair.has_header || pair.has_footer)
        return open_hosted(img, &pair, err);
    r = read_text(img, 0, size, false, err);
    return r < 0 ? r : open_extents(img, err);
}

void vmdk_close_checked(struct image *img)
{
    struct checkup *k = vmdk_of(img)->checkup;
    if (!k)
        return;
    for (unsigned i = 0; i < k->n_files; i++)
        if (k->files[i].owned)
            stream_close(k->files[i].stream);
    budget_free(img->budget, k->files, k->max_files * sizeof *k->files);
    free(k);
}

/* ---- flat extents ---------------------------------------------------------------------------- */

/* Two extents that write to the same place: section 3.5. */
static void check_overlap(struct check *c, const struct checkup *k, unsigned n)
{
    const struct check_file *f = &k->files[n];
    for (unsigned i = 0; i < n; i++) {
        const struct descriptor_extent *a = f->line, *b = k->files[i].line;
        if (k->files[i].stream == f->stream && line_is_flat(b) &&
            a->offset < b->offset + b->sectors && b->offset < a->offset + a->sectors)
            check_found(c, PLATTER_FINDING_NOTE, false, 1,
                        "%s: extents %u and %u of the descriptor have sectors of it in common",
                        f->stream->name, i, n);
    }
}

static int check_flat(struct image *img, struct check *c, unsigned n, struct platter_error *err)
{
    const struct check_file *f = &vmdk_of(img)->checkup->files[n];
    uint64_t size, need = (f->line->offset + f->line->sectors) * VMDK_SECTOR;
    int r = stream_size(f->stream, &size, err);
    if (r < 0)
        return r;
    check_overlap(c, vmdk_of(img)->checkup, n);
    if (size >= need)
        return 0;
    if (c->mend_all) {
        r = stream_resize(f->stream, need, err);
        if (r == 0)
            r = stream_flush(f->stream, err);
    }
    if (r == 0)
        check_found(c, PLATTER_FINDING_ERROR, c->mend_all, 1,
                    "%s: ends at byte %" PRIu64 ", but the descriptor %s has %" PRIu64
                    " bytes of the disk up to byte %" PRIu64 " in it: it was truncated%s",
                    f->stream->name, size, img->stream->name, f->line->sectors * VMDK_SECTOR, need,
                    c->mend_all ? "; what was behind is lost and reads as zeros" : "");
    return r;
}

/* ---- sparse extents -------------------------------------------------------------------------- */

/* Flat extents may share a file. */
static bool is_shared_badly(const struct check_file *a, const struct check_file *b)
{
    if (!a->line->file || !b->line->file || (line_is_flat(a->line) && line_is_flat(b->line)))
        return false;
    return a->stream ? a->stream == b->stream : is_same_name(a->line->file, b->line->file);
}

/* A sparse file that two lines name: a write to one range of the disk would change the other. Told
 * before anything is mended, for then nothing is. */
static void check_alone(struct image *img, struct check *c)
{
    const struct checkup *k = vmdk_of(img)->checkup;
    for (unsigned n = 1; n < k->n_files; n++)
        for (unsigned i = 0; i < n; i++)
            if (is_shared_badly(&k->files[i], &k->files[n])) {
                check_found(c, PLATTER_FINDING_ERROR, false, 1,
                            "%s: extents %u and %u of the descriptor are both the file \"%s\"",
                            img->stream->name, i, n, k->files[n].line->file);
                c->mend_all = c->mend_leaks = false;
                break;
            }
}

/* How much of it the disk shows. */
static void note_nominal(const struct image *img, unsigned n, struct sparse_check *s)
{
    const struct descriptor_extent *line = vmdk_of(img)->checkup->files[n].line;
    s->nominal = line ? min_u64(line->sectors, s->h.capacity) : s->h.capacity;
}

static int rewrite_line(struct image *img, unsigned n, uint64_t sectors, struct platter_error *err)
{
    struct descriptor_edit *e;
    int r = descriptor_edit_begin(img, &e, err);
    if (r < 0)
        return r;
    descriptor_edit_sectors(e, n, sectors);
    return descriptor_edit_store(img, e, err);
}

/* The capacity that the tables have room for is made that of the line. */
static int widen(struct sparse_check *s, uint64_t sectors, struct platter_error *err)
{
    s->h.capacity = s->nominal = sectors;
    s->grains = div_up(sectors, s->h.grain_size);
    return s->mend ? check_write_header(s, err) : 0;
}

/* The nominal size in the descriptor must not be more than the capacity. If the tables are as many
 * for both, the larger one loses nothing; else it is the line that gives way. */
static int check_nominal(struct image *img, struct check *c, unsigned n, struct sparse_check *s,
                         struct platter_error *err)
{
    const struct descriptor_extent *line = vmdk_of(img)->checkup->files[n].line;
    if (!line || line->sectors <= s->h.capacity)
        return 0;
    uint64_t said = line->sectors, capacity = s->h.capacity;
    uint64_t cover = s->h.grain_size * s->h.gtes_per_gt;
    bool fits = !s->cowd && !s->se && !s->at_end && div_up(said, cover) == s->gd_count;
    int r = 0;
    if (fits)
        r = widen(s, said, err);
    else if (s->mend)
        r = rewrite_line(img, n, capacity, err);
    if (r == 0)
        check_found(c, PLATTER_FINDING_ERROR, s->mend, 1,
                    "%s: the descriptor gives it %" PRIu64
                    " sectors of the disk, but its capacity (header offset 12) is %" PRIu64 "%s",
                    s->name, said, capacity,
                    !s->mend ? ""
                    : fits   ? "; the header was changed, as its tables have room for that"
                             : "; the line of the descriptor was changed");
    return r;
}

/* Grains in front of what the header says is the first. With one copy of the tables there is
 * nothing to tell which of them is wrong. */
int check_overhead(struct sparse_check *s, struct platter_error *err)
{
    uint64_t said = s->h.overhead;
    bool mend = s->mend && s->copies == 2;
    int r = 0;
    if (s->early == 0)
        return 0;
    s->h.overhead = s->early;
    if (mend)
        r = check_write_header(s, err);
    if (r == 0)
        check_found(s->check, PLATTER_FINDING_ERROR, mend, 1,
                    "%s: overHead (header offset 64) says that grains begin at sector %" PRIu64
                    ", but one is at sector %" PRIu64 "%s",
                    s->name, said, s->early, mend ? "; the header was changed" : "");
    return r;
}

static int check_hosted(struct image *img, struct check *c, unsigned n, struct sparse_check *s,
                        struct platter_error *err)
{
    int r = check_header(s, err);
    if (r == 0)
        note_nominal(img, n, s);
    if (r == 0)
        r = check_directories(s, err);
    if (r == 0)
        r = check_nominal(img, c, n, s, err);
    if (r == 0)
        r = s->se ? check_se(s, err) : check_space(s, err);
    if (r == 0 && s->rebuild && s->mend)
        r = check_rebuild(s, err);
    if (r == 0)
        r = check_unclean(s, err);
    return r;
}

static int check_sparse(struct image *img, struct check *c, unsigned n, struct platter_error *err)
{
    struct stream *stream = vmdk_of(img)->checkup->files[n].stream;
    struct sparse_check s = {.check = c,
                             .img = img,
                             .budget = img->budget,
                             .stream = stream,
                             .name = stream->name,
                             .mend = c->mend_all};
    int r = stream_size(stream, &s.size, err);
    if (r == 0)
        r = check_hosted(img, c, n, &s, err);
    if (r >= 0 && s.end && vmdk_of(img)->checkup->n_files == 1)
        c->result.image_end_offset = min_u64(s.end * VMDK_SECTOR, s.size);
    sparse_check_close(&s);
    return r < 0 ? r : 0;
}

/* ---- the image ------------------------------------------------------------------------------- */

/* Whether a line before this one had its sparse file judged. */
static bool is_judged(const struct checkup *k, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (k->files[i].stream == k->files[n].stream && !line_is_flat(k->files[i].line))
            return true;
    return false;
}

static int check_file(struct image *img, struct check *c, unsigned n, struct platter_error *err)
{
    const struct check_file *f = &vmdk_of(img)->checkup->files[n];
    if (f->code < 0)
        return 0; /* was told */
    if (f->line && f->line->sectors == 0 && vmdk_of(img)->descriptor->n_extents > 1)
        check_found(c, PLATTER_FINDING_ERROR, false, 1,
                    "%s: extent %u of the descriptor has 0 sectors", img->stream->name, n);
    if (!f->stream)
        return 0;
    if (f->line && line_is_flat(f->line))
        return check_flat(img, c, n, err);
    return is_judged(vmdk_of(img)->checkup, n) ? 0 : check_sparse(img, c, n, err);
}

/* Files that could not be opened are told before anything is given back: one of them may be another
 * name of a file that is. */
static void tell_unopened(struct check *c, const struct checkup *k)
{
    for (unsigned i = 0; i < k->n_files; i++)
        if (k->files[i].code < 0)
            check_failed(c, k->files[i].code, &k->files[i].why);
}

/* What is wrong with one extent does not keep the others from being judged. */
static int check_files(struct image *img, struct check *c, struct platter_error *err)
{
    const struct checkup *k = vmdk_of(img)->checkup;
    for (unsigned i = 0; i < k->n_files; i++) {
        struct platter_error why = {0};
        int r = check_file(img, c, i, &why);
        if (r == -ECANCELED || (r < 0 && img->writable))
            return fail(err, -r, "%s", why.message);
        if (r < 0)
            check_failed(c, r, &why);
    }
    return 0;
}

int vmdk_check(struct image *img, struct check *c, struct platter_error *err)
{
    const struct checkup *k = vmdk_of(img)->checkup;
    if (k->code < 0)
        check_failed(c, k->code, &k->why);
    if (vmdk_of(img)->bare)
        check_found(c, PLATTER_FINDING_NOTE, false, 1,
                    "%s: one extent of a disk, without a descriptor: it is judged alone",
                    img->stream->name);
    tell_unopened(c, k);
    check_alone(img, c);
    return check_files(img, c, err);
}
