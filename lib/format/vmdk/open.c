/* SPDX-License-Identifier: MIT */
/*
 * From a file to its descriptor to its extents: vmdk.md sections 2, 3 and 4.1.
 *
 * Behaviour follows from extent lines and headers, never from the name createType. Extents are
 * sorted by where they start on the disk, without gaps.
 */
#include <inttypes.h>

#include "format/vmdk/vmdk.h"

/* ---- the descriptor -------------------------------------------------------------------------- */

static int read_descriptor(struct image *img, hoff off, uint64_t len, bool embedded,
                           struct platter_error *err)
{
    struct vmdk *v = vmdk_of(img);
    uint8_t *text;
    int r = budget_alloc(img->budget, len, "a VMDK descriptor", &text, err);
    if (r < 0)
        return r;
    v->descriptor_off = off;
    r = stream_pread(img->stream, text, (size_t)len, off, err);
    if (r == 0 && embedded && text[0] == 0)
        r = fail(err, ENOTSUP,
                 "%s: one extent of a disk, whose descriptor is another file: open that",
                 img->stream->name);
    if (r == 0)
        r = descriptor_parse(img->budget, img->stream->name, text, (size_t)len, embedded,
                             &v->descriptor, err);
    budget_free(img->budget, text, len);
    return r;
}

/* ---- extents --------------------------------------------------------------------------------- */

static int make_extents(struct image *img, struct platter_error *err)
{
    struct vmdk *v = vmdk_of(img);
    v->max_extents = v->descriptor->n_extents;
    return budget_alloc(img->budget, v->max_extents * sizeof *v->extents, "the extents of a VMDK",
                        &v->extents, err);
}

static int check_capacity(const struct image *img, const struct sparse *s, uint64_t sectors,
                          struct platter_error *err)
{
    if (s->header.capacity >= sectors)
        return 0;
    return fail(err, PLATTER_ECORRUPT,
                "%s: has a capacity of %" PRIu64 " sectors, but the descriptor in %s says %" PRIu64,
                s->stream->name, s->header.capacity, img->stream->name, sectors);
}

static bool is_flat(const struct descriptor_extent *line)
{
    return line->type == TYPE_FLAT || line->type == TYPE_VMFS;
}

/* The file of an extent. Flat extents may share one, which is then opened, and locked, once. */
static int open_stream(struct image *img, const struct descriptor_extent *line,
                       struct vmdk_extent *x, struct platter_error *err)
{
    const struct vmdk *v = vmdk_of(img);
    for (unsigned i = 0; is_flat(line) && &v->extents[i] != x; i++) {
        const struct descriptor_extent *before = &v->descriptor->extents[i];
        if (is_flat(before) && strcmp(before->file, line->file) == 0) {
            x->stream = v->extents[i].stream;
            x->shares = true;
            return 0;
        }
    }
    return img->opener->open(img->opener, img, line->file, PLATTER_NAME_EXTENT,
                             img->writable && x->access == ACCESS_WRITE, &x->stream, err);
}

static int open_extent_file(struct image *img, const struct descriptor_extent *line,
                            struct vmdk_extent *x, struct platter_error *err)
{
    int r = open_stream(img, line, x, err);
    if (r < 0)
        return r;
    if (stream_same_file(x->stream, img->stream))
        return fail(err, PLATTER_ECORRUPT, "%s: the descriptor names itself as an extent",
                    img->stream->name);
    if (is_flat(line)) {
        x->off = line->offset * VMDK_SECTOR;
        return stream_size(x->stream, &x->end, err);
    }
    r = sparse_open(img, x->stream, img->writable && x->access == ACCESS_WRITE, &x->sparse, err);
    return r < 0 ? r : check_capacity(img, x->sparse, line->sectors, err);
}

static int open_extent(struct image *img, const struct descriptor_extent *line,
                       struct platter_error *err)
{
    struct vmdk *v = vmdk_of(img);
    if (line->type == TYPE_OTHER)
        return fail(err, ENOTSUP,
                    "%s: extents of type %s are not supported (FLAT, VMFS, SPARSE and ZERO are)",
                    img->stream->name, line->word);
    if (line->sectors == 0 && vmdk_of(img)->descriptor->n_extents > 1) /* alone: an empty disk */
        return fail(err, PLATTER_ECORRUPT, "%s: the descriptor has an extent of 0 sectors",
                    img->stream->name);
    struct vmdk_extent *x = &v->extents[v->n_extents++];
    *x = (struct vmdk_extent){.start = img->size,
                              .len = line->sectors * VMDK_SECTOR,
                              .access = line->access,
                              .word = line->word};
    img->size += x->len;
    if (img->size > VMDK_MAX_SECTORS * VMDK_SECTOR)
        return fail(err, PLATTER_ECORRUPT, "%s: its extents add up to 2^54 sectors or more",
                    img->stream->name);
    return line->type == TYPE_ZERO ? 0 : open_extent_file(img, line, x, err);
}

static int open_extents(struct image *img, struct platter_error *err)
{
    const struct descriptor *d = vmdk_of(img)->descriptor;
    int r = make_extents(img, err);
    for (unsigned i = 0; i < d->n_extents && r == 0; i++)
        r = open_extent(img, &d->extents[i], err);
    return r;
}

/* ---- the two kinds of files ------------------------------------------------------------------ */

/* The one extent that is the file itself. The name in its line is often stale: ignored. */
static int embed_extent(struct image *img, struct sparse **sparse, struct platter_error *err)
{
    struct vmdk *v = vmdk_of(img);
    const struct descriptor_extent *line = &v->descriptor->extents[0];
    if (v->descriptor->n_extents != 1 || line->type != TYPE_SPARSE)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: its descriptor has %u extents, the first of type %s, but the file holds "
                    "one SPARSE extent",
                    img->stream->name, v->descriptor->n_extents, line->word);
    if (img->writable && line->access != ACCESS_WRITE)
        return fail(err, EROFS, "%s: its descriptor says that it may not be written",
                    img->stream->name);
    int r = check_capacity(img, *sparse, line->sectors, err);
    if (r == 0)
        r = make_extents(img, err);
    if (r < 0)
        return r;
    img->size = line->sectors * VMDK_SECTOR;
    v->extents[v->n_extents++] = (struct vmdk_extent){.len = img->size,
                                                      .access = line->access,
                                                      .word = "",
                                                      .stream = img->stream,
                                                      .sparse = TAKE(*sparse)};
    return 0;
}

/* A header with capacity 0 makes the file a mere container of a descriptor; unless that speaks of
 * an empty disk. */
static bool is_container(const struct sparse *s, const struct descriptor *d)
{
    return s->header.capacity == 0 &&
           !(d->n_extents == 1 && d->extents[0].type == TYPE_SPARSE && d->extents[0].sectors == 0);
}

static int open_sparse(struct image *img, struct platter_error *err)
{
    struct vmdk *v = vmdk_of(img);
    struct sparse *s;
    int r = sparse_open(img, img->stream, img->writable, &s, err);
    if (r < 0)
        return r;
    const struct hosted_header *h = &s->header;
    if (h->descriptor_offset == 0 || h->descriptor_size == 0)
        r = fail(err, ENOTSUP,
                 "%s: one extent of a disk, whose descriptor is another file: open that",
                 img->stream->name);
    else
        r = read_descriptor(img, h->descriptor_offset * VMDK_SECTOR,
                            h->descriptor_size * VMDK_SECTOR, true, err);
    if (r == 0)
        r = is_container(s, v->descriptor) ? open_extents(img, err) : embed_extent(img, &s, err);
    sparse_free(s);
    return r;
}

static int open_text(struct image *img, const uint8_t *prefix, size_t len, uint64_t size,
                     struct platter_error *err)
{
    const char *name = img->stream->name;
    if (len >= 4 && memcmp(prefix, "kdmv", 4) == 0)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: an unfinished VMDK: whatever wrote it did not come to its end", name);
    if (len >= 4 && (memcmp(prefix, "COWD", 4) == 0 || get_le(prefix, 4) == 0xcafebabe))
        return fail(err, ENOTSUP, "%s: %s extents of ESX are not supported", name,
                    prefix[0] == 'C' ? "COWD" : "SESPARSE");
    if (!descriptor_probe(prefix, len))
        return fail(err, PLATTER_ENOFORMAT,
                    "%s: not a VMDK: it begins neither with KDMV nor with a descriptor", name);
    if (size > VMDK_MAX_DESCRIPTOR)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: a VMDK descriptor of %" PRIu64 " bytes; %d is the limit", name, size,
                    VMDK_MAX_DESCRIPTOR);
    int r = read_descriptor(img, 0, size, false, err);
    return r < 0 ? r : open_extents(img, err);
}

static int open_file(struct image *img, struct platter_error *err)
{
    uint8_t prefix[64 << 10]; /* what a probe looks at: section 2 */
    uint64_t size;
    int r = stream_size(img->stream, &size, err);
    if (r < 0)
        return r;
    size_t len = (size_t)min_u64(size, sizeof prefix);
    r = stream_pread(img->stream, prefix, len, 0, err);
    if (r < 0)
        return r;
    if (len >= 4 && hosted_magic(prefix))
        return open_sparse(img, err);
    return open_text(img, prefix, len, size, err);
}

/* ---- the image ------------------------------------------------------------------------------- */

static int note_backing(struct image *img, struct platter_error *err)
{
    const struct descriptor *d = vmdk_of(img)->descriptor;
    const char *hint = descriptor_value(d, "parentFileNameHint");
    img->has_backing = hint || d->parent_cid != VMDK_NO_CID;
    if (!hint)
        return 0;
    /* A parent is a VMDK by definition, and never guessed: section 3.8. */
    img->backing_name = string_copy(hint);
    img->backing_format = string_copy("vmdk");
    return img->backing_name && img->backing_format ? 0 : fail_memory(err, "a backing file's name");
}

int vmdk_accept_backing(struct image *img, const struct image *backing, struct platter_error *err)
{
    const struct descriptor *d = vmdk_of(img)->descriptor;
    if (backing->format != &format_vmdk)
        return fail(err, PLATTER_ECORRUPT, "%s: its backing file %s is no VMDK", img->stream->name,
                    backing->stream->name);
    const struct descriptor *below = vmdk_of(backing)->descriptor;
    if (d->parent_cid == below->cid)
        return 0;
    return fail(err, PLATTER_ECORRUPT,
                "%s: its parent %s was changed or is another one: parentCID is %08" PRIx32
                ", but the CID there is %08" PRIx32,
                img->stream->name, backing->stream->name, d->parent_cid, below->cid);
}

static uint32_t largest_grain(const struct vmdk *v)
{
    uint32_t unit = VMDK_SECTOR;
    for (unsigned i = 0; i < v->n_extents; i++)
        if (v->extents[i].sparse && v->extents[i].sparse->grain > unit)
            unit = v->extents[i].sparse->grain;
    return unit;
}

/* The engine keeps writers of one unit apart, so a grain must not lie in two of them. */
static int check_grains_aligned(const struct image *img, struct platter_error *err)
{
    const struct vmdk *v = vmdk_of(img);
    for (unsigned i = 0; i < v->n_extents; i++) {
        const struct vmdk_extent *x = &v->extents[i];
        if (x->sparse && x->access == ACCESS_WRITE && x->start % x->sparse->grain != 0)
            return fail(err, ENOTSUP,
                        "%s: extent %u (%s) starts at guest offset %" PRIu64
                        ", inside a grain of %" PRIu32 " bytes: it cannot be written; convert it",
                        img->stream->name, i, x->stream->name, x->start, x->sparse->grain);
    }
    return 0;
}

int vmdk_open(struct image *img, struct platter_error *err)
{
    struct vmdk *v = calloc(1, sizeof *v);
    if (!v)
        return fail_memory(err, "a VMDK");
    img->state = v;
    pthread_mutex_init(&v->slow, NULL);
    /* Nobody can have seen an image that is still being built. */
    atomic_init(&v->begun, img->writable && !img->ordered);
    int r = tables_init(img, err);
    if (r == 0)
        r = open_file(img, err);
    if (r == 0)
        r = note_backing(img, err);
    if (r < 0)
        return r;
    img->unit = largest_grain(v);
    if (img->writable && (r = check_grains_aligned(img, err)) < 0)
        return r;
    if (img->writable && descriptor_find(v->descriptor, "changeTrackPath"))
        return fail(err, ENOTSUP,
                    "%s: its changes are tracked in a file of its own (changeTrackPath), which "
                    "writing would make wrong: convert it",
                    img->stream->name);
    return 0;
}

bool vmdk_file(const struct image *img, unsigned i, struct stream **ret)
{
    const struct vmdk *v = vmdk_of(img);
    if (i >= v->n_extents)
        return false;
    *ret = v->extents[i].stream;
    return true;
}

int vmdk_close(struct image *img, struct platter_error *err)
{
    struct vmdk *v = vmdk_of(img);
    if (!v)
        return 0;
    int r = vmdk_end(img, err);
    vmdk_free_buffers(img);
    for (unsigned i = 0; i < v->n_extents; i++) {
        sparse_free(v->extents[i].sparse);
        if (v->extents[i].stream != img->stream && !v->extents[i].shares)
            stream_close(v->extents[i].stream);
    }
    budget_free(img->budget, v->extents, v->max_extents * sizeof *v->extents);
    descriptor_free(v->descriptor);
    tables_destroy(img);
    pthread_mutex_destroy(&v->slow);
    free(v);
    img->state = NULL;
    return r;
}
