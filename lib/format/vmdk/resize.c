/* SPDX-License-Identifier: MIT */
/*
 * A larger disk: vmdk.md section 4.6.
 *
 * The last extent grows, and where the disk is split into files of one size, more of them come
 * behind it. All of that is durable, and what must hide the parent does, before the descriptor
 * tells of it: a crash leaves the old disk in files with room for more.
 */
#include <ctype.h>
#include <inttypes.h>
#include <strings.h>

#include "format/vmdk/vmdk.h"

/* 2047 MiB, the size of VMware's own pieces: section 9. */
#define PIECE_SECTORS (UINT64_C(2047) << 20 >> 9)

/* A resize under way. */
struct growth {
    struct image *img;
    const struct resize_request *q;
    uint64_t last;               /* sectors of the extent that was the last, afterwards */
    uint64_t piece;              /* of those behind it, but for the last of all */
    struct vmdk_extent *extents; /* all of them, as they will be */
    unsigned n, max;
    struct descriptor_edit *edit;
};

/* ---- what can grow --------------------------------------------------------------------------- */

static const struct vmdk_extent *last_extent(const struct image *img)
{
    const struct vmdk *v = vmdk_of(img);
    return &v->extents[v->n_extents - 1];
}

/* Whether the disk is in pieces of one size: section 1. */
static bool is_split(const struct image *img)
{
    const char *type = descriptor_value(vmdk_of(img)->descriptor, "createType");
    return type && (strncasecmp(type, "twoGbMaxExtent", 14) == 0 ||
                    strncasecmp(type, "2GbMaxExtent", 12) == 0);
}

static uint64_t piece_size(const struct image *img)
{
    const struct vmdk *v = vmdk_of(img);
    uint64_t first = v->extents[0].len / VMDK_SECTOR;
    return v->n_extents > 1 ? first : max_u64(first, PIECE_SECTORS);
}

/* Another extent in the same file stands where a flat one would grow to. */
static bool is_shared(const struct image *img, const struct vmdk_extent *x)
{
    const struct vmdk *v = vmdk_of(img);
    for (unsigned i = 0; i < v->n_extents; i++)
        if (&v->extents[i] != x && v->extents[i].stream == x->stream)
            return true;
    return false;
}

static int check_last(const struct image *img, enum platter_preallocation preallocation,
                      struct platter_error *err)
{
    const struct vmdk_extent *x = last_extent(img);
    const char *name = img->stream->name;
    if (x->type == TYPE_ZERO)
        return 0;
    if (x->access != ACCESS_WRITE || !x->stream)
        return fail(err, EROFS, "%s: its last extent (%s) cannot grow: it may not be written", name,
                    x->word);
    if (!x->sparse && is_shared(img, x))
        return fail(err, ENOTSUP,
                    "%s: its last extent cannot grow: %s is the file of another one as well", name,
                    x->stream->name);
    if (x->sparse && preallocation > PLATTER_PREALLOCATION_METADATA)
        return fail(err, ENOTSUP,
                    "%s: the grains of a sparse VMDK cannot be preallocated, only its tables are",
                    name);
    if (!x->sparse && preallocation == PLATTER_PREALLOCATION_METADATA)
        return fail(err, ENOTSUP, "%s: a flat VMDK has no metadata that could be preallocated",
                    name);
    return 0;
}

static int check_resize(const struct image *img, const struct resize_request *q,
                        struct platter_error *err)
{
    const char *name = img->stream->name;
    if (q->size < img->size)
        return fail(err, ENOTSUP,
                    "%s: a VMDK cannot be made smaller: make a smaller one and copy into it", name);
    if (q->size % VMDK_SECTOR != 0)
        return fail(err, EINVAL, "%s: The new size must be a multiple of 512", name);
    if (q->size > VMDK_MAX_SECTORS * VMDK_SECTOR)
        return fail(err, EFBIG, "%s: a VMDK has less than 2^54 sectors", name);
    if (vmdk_of(img)->n_extents == 0)
        return fail(err, ENOTSUP, "%s: has no extents that could grow", name);
    return check_last(img, q->preallocation, err);
}

/* ---- files ----------------------------------------------------------------------------------- */

/* A flat file of so many bytes, with zeros from `from` on. */
static int grow_flat(struct stream *s, hoff from, hoff to, enum platter_preallocation how,
                     struct platter_error *err)
{
    static const uint8_t zeros[1 << 16];
    uint64_t size;
    int r = stream_size(s, &size, err);
    if (r == 0 && from < size) /* what stood behind the disk is not to be seen */
        r = stream_zero(s, from, min_u64(size, to) - from, 0, err);
    if (r == 0 && size < to)
        r = stream_resize(s, to, err);
    if (r == 0 && how == PLATTER_PREALLOCATION_FALLOC)
        r = stream_allocate(s, from, to - from, err);
    for (hoff off = from; off < to && r == 0 && how == PLATTER_PREALLOCATION_FULL;
         off += sizeof zeros)
        r = stream_pwrite(s, zeros, (size_t)min_u64(sizeof zeros, to - off), off, err);
    return r < 0 ? r : stream_flush(s, err);
}

static int grow_last(struct growth *g, struct platter_error *err)
{
    struct vmdk *v = vmdk_of(g->img);
    struct vmdk_extent *x = &v->extents[v->n_extents - 1];
    uint64_t bytes = g->last * VMDK_SECTOR;
    int r = 0;
    if (bytes == x->len)
        return 0;
    if (x->sparse)
        r = sparse_grow(g->img, x, g->last, err);
    else if (x->stream)
        r = grow_flat(x->stream, x->off + x->len, x->off + bytes, g->q->preallocation, err);
    struct vmdk_extent *later = &g->extents[v->n_extents - 1];
    *later = *x;
    later->len = bytes;
    later->end = max_u64(x->end, x->off + bytes);
    return r;
}

/* "vm-s003.vmdk" -> "vm-s004.vmdk"; NULL: there is no number in front of the suffix. */
static char *next_name(const char *name)
{
    const char *dot = strrchr(name, '.'), *end = dot ? dot : name + strlen(name), *from = end;
    while (from > name && isdigit((unsigned char)from[-1]) && end - from < 9)
        from--;
    if (from == end)
        return NULL;
    return string_format("%.*s%0*lu%s", (int)(from - name), name, (int)(end - from),
                         strtoul(from, NULL, 10) + 1, end);
}

/* The name of the extent behind one called `before` (in UTF-8). */
static int name_piece(const struct growth *g, const char *before, char **ret,
                      struct platter_error *err)
{
    *ret = next_name(before);
    if (!*ret)
        return fail(err, ENOTSUP,
                    "%s: cannot grow by another file: the last one, \"%s\", has no number in its "
                    "name to go on from",
                    g->img->stream->name, before);
    return 0;
}

/* Pieces have the grains of new files; what the engine keeps writers apart by stays as it is. */
static int check_piece(const struct growth *g, const struct vmdk_extent *x,
                       struct platter_error *err)
{
    const uint32_t grain = VMDK_GRAIN * VMDK_SECTOR;
    if (!x->sparse || ((x->start % grain == 0 || g->img->askew) && g->img->unit >= grain))
        return 0;
    return fail(err, ENOTSUP,
                "%s: cannot grow by another file: it would begin inside a grain, or its grains "
                "would be larger than those there are: convert it",
                g->img->stream->name);
}

/* Fills the file of a new extent, and opens it. */
static int fill_piece(struct growth *g, struct vmdk_extent *x, const struct vmdk_extent *like,
                      struct platter_error *err)
{
    struct sparse_layout l;
    if (!like->sparse)
        return grow_flat(x->stream, 0, x->len, g->q->preallocation, err);
    bool zeroed = like->sparse->header.flags & HOSTED_ZEROED;
    int r = layout_plan(x->stream->name, x->len / VMDK_SECTOR, zeroed, &l, err);
    if (r == 0)
        r = layout_write(x->stream, &l, NULL, err);
    return r < 0 ? r : sparse_open(g->img, x->stream, true, &x->sparse, err);
}

/* Appends an extent in a file of its own. */
static int add_piece(struct growth *g, const char *file, uint64_t sectors,
                     struct platter_error *err)
{
    const struct vmdk_extent *like = &g->extents[g->n - 1];
    struct vmdk_extent *x = &g->extents[g->n];
    struct stream *s;
    int r = g->q->maker->make(g->q->maker, file, &s, err);
    if (r < 0)
        return r;
    *x = (struct vmdk_extent){.start = like->start + like->len,
                              .len = sectors * VMDK_SECTOR,
                              .access = ACCESS_WRITE,
                              .type = like->type,
                              .word = like->word,
                              .stream = stream_share(s),
                              .end = sectors * VMDK_SECTOR};
    g->n++;
    r = fill_piece(g, x, like, err);
    if (r == 0)
        r = check_piece(g, x, err);
    struct descriptor_extent line = {ACCESS_WRITE, like->type, like->word, sectors, file, 0};
    descriptor_edit_add_extent(g->edit, &line);
    return r;
}

static int add_pieces(struct growth *g, struct platter_error *err)
{
    const struct descriptor *d = vmdk_of(g->img)->descriptor;
    uint64_t left = g->q->size / VMDK_SECTOR - g->extents[g->n - 1].start / VMDK_SECTOR - g->last;
    auto_free char *name = NULL;
    int r = 0;
    if (left == 0)
        return 0;
    if (!g->q->maker)
        return fail(err, ENOTSUP, "%s: cannot grow by another file here", g->img->stream->name);
    r = encoding_decode(descriptor_value(d, "encoding"), d->extents[g->n - 1].file, &name, err);
    while (left > 0 && r == 0) {
        char *next;
        uint64_t sectors = min_u64(left, g->piece);
        r = name_piece(g, name, &next, err);
        if (r < 0)
            break;
        free(name);
        name = next;
        r = add_piece(g, name, sectors, err);
        left -= sectors;
    }
    return r;
}

/* ---- the descriptor -------------------------------------------------------------------------- */

static uint64_t number_of(const struct descriptor *d, const char *key)
{
    const char *value = descriptor_value(d, key);
    return value && isdigit((unsigned char)value[0]) ? strtoull(value, NULL, 10) : 0;
}

/* A hint that nobody computes sizes from (section 10): it goes on where it was made of the size. */
static void edit_geometry(const struct growth *g)
{
    const struct descriptor *d = vmdk_of(g->img)->descriptor;
    uint64_t heads = number_of(d, "ddb.geometry.heads");
    uint64_t track = number_of(d, "ddb.geometry.sectors"), cylinder;
    char text[24];
    if (ckd_mul(&cylinder, heads, track) || cylinder == 0 ||
        number_of(d, "ddb.geometry.cylinders") != g->img->size / VMDK_SECTOR / cylinder)
        return;
    snprintf(text, sizeof text, "%" PRIu64, g->q->size / VMDK_SECTOR / cylinder);
    descriptor_edit_set(g->edit, "ddb.geometry.cylinders", text);
}

/* ---- all of it ------------------------------------------------------------------------------- */

/* Zeros in the new space, as far as a longer parent would show there. */
static int hide_below(const struct growth *g, struct platter_error *err)
{
    goff from = g->img->size, to = min_u64(g->q->size, g->q->below);
    int r = 0;
    for (unsigned i = vmdk_of(g->img)->n_extents - 1; i < g->n && r == 0; i++) {
        const struct vmdk_extent *x = &g->extents[i];
        if (x->sparse && x->start < to)
            r = sparse_hide(g->img, x->sparse, max_u64(from, x->start) - x->start,
                            min_u64(to - x->start, x->len), err);
    }
    return r;
}

static int make_files_durable(const struct growth *g, struct platter_error *err)
{
    unsigned before = vmdk_of(g->img)->n_extents;
    int r = 0;
    for (unsigned i = before; i < g->n && r == 0; i++)
        r = stream_flush(g->extents[i].stream, err);
    return r < 0 || g->n == before ? r : g->q->maker->publish(g->q->maker, err);
}

/* From here on the image is what the descriptor says. */
static void take_over(struct growth *g)
{
    struct vmdk *v = vmdk_of(g->img);
    budget_free(g->img->budget, v->extents, v->max_extents * sizeof *v->extents);
    v->extents = TAKE(g->extents);
    v->max_extents = g->max;
    v->n_extents = g->n;
    g->img->size = g->q->size;
}

static int grow(struct growth *g, struct platter_error *err)
{
    int r = grow_last(g, err);
    if (r == 0)
        r = add_pieces(g, err);
    if (r == 0)
        r = hide_below(g, err);
    if (r == 0)
        r = make_files_durable(g, err);
    edit_geometry(g);
    if (r == 0)
        r = descriptor_edit_store(g->img, TAKE(g->edit), err);
    if (r == 0)
        take_over(g);
    return r;
}

/* How much the last extent gets, and how many there are behind it. */
static int plan(struct growth *g, struct platter_error *err)
{
    const struct vmdk *v = vmdk_of(g->img);
    const struct vmdk_extent *x = last_extent(g->img);
    uint64_t sectors = (g->q->size - x->start) / VMDK_SECTOR, pieces = 0;
    g->piece = piece_size(g->img);
    g->last = sectors;
    if (is_split(g->img) && x->type != TYPE_ZERO) {
        g->last = min_u64(sectors, max_u64(g->piece, x->len / VMDK_SECTOR));
        pieces = div_up(sectors - g->last, g->piece);
    }
    if (v->n_extents + pieces > VMDK_MAX_EXTENTS)
        return fail(err, EFBIG,
                    "%s: a disk of %" PRIu64 " bytes would be %" PRIu64 " files of up to %" PRIu64
                    " bytes, of which a VMDK can have %d: convert it to "
                    "subformat monolithicFlat or vmfs",
                    g->img->stream->name, g->q->size, v->n_extents + pieces, g->piece * VMDK_SECTOR,
                    VMDK_MAX_EXTENTS);
    g->n = v->n_extents;
    g->max = g->n + (unsigned)pieces;
    int r = budget_alloc(g->img->budget, g->max * sizeof *g->extents, "the extents of a VMDK",
                         &g->extents, err);
    if (r == 0)
        memcpy(g->extents, v->extents, g->n * sizeof *g->extents);
    return r;
}

static void growth_end(struct growth *g)
{
    const struct vmdk *v = vmdk_of(g->img);
    for (unsigned i = v->n_extents; g->extents && i < g->n; i++) {
        if (g->extents[i].sparse)
            tables_forget(g->img, g->extents[i].sparse);
        sparse_free(g->extents[i].sparse);
        stream_close(g->extents[i].stream);
    }
    budget_free(g->img->budget, g->extents, g->max * sizeof *g->extents);
    descriptor_edit_drop(g->edit);
}

int vmdk_resize(struct image *img, const struct resize_request *q, struct platter_error *err)
{
    struct growth g = {.img = img, .q = q};
    int r = check_resize(img, q, err);
    if (r == 0)
        r = vmdk_begin(img, err);
    if (r == 0)
        r = plan(&g, err);
    if (r == 0)
        r = descriptor_edit_begin(img, &g.edit, err);
    if (r == 0) {
        descriptor_edit_sectors(g.edit, g.n - 1, g.last);
        r = grow(&g, err);
    }
    growth_end(&g);
    return r;
}
