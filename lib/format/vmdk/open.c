/* SPDX-License-Identifier: MIT */
/* From a file to its descriptor to its extents, and to its parent: vmdk.md sections 2, 3 and 4.1.
 */
#include <ctype.h>
#include <inttypes.h>

#include "format/vmdk/vmdk.h"

/* ---- the descriptor -------------------------------------------------------------------------- */

const struct descriptor *vmdk_descriptor(struct image *img)
{
    WITH_LOCK(&img->lock);
    return vmdk_of(img)->descriptor;
}

int vmdk_read_descriptor(struct image *img, hoff off, uint64_t len, bool embedded,
                         struct platter_error *err)
{
    struct vmdk *v = vmdk_of(img);
    uint8_t *text;
    if (len == 0 || len > VMDK_MAX_DESCRIPTOR)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: a VMDK descriptor of %" PRIu64 " bytes; 1 is the least, %d the limit",
                    img->stream->name, len, VMDK_MAX_DESCRIPTOR);
    int r = budget_alloc(img->budget, len, "a VMDK descriptor", &text, err);
    if (r < 0)
        return r;
    v->descriptor_off = off;
    v->descriptor_len = len;
    v->embedded = embedded;
    r = stream_pread(img->stream, text, (size_t)len, off, err);
    /* Pieces of a split disk have room for a text, but none: section 3.1. */
    v->bare = r == 0 && embedded && is_zero(text, (size_t)len);
    if (r == 0 && !v->bare)
        r = descriptor_parse(img->budget, img->stream->name, text, (size_t)len, embedded,
                             &v->descriptor, err);
    budget_free(img->budget, text, len);
    return r;
}

/* ---- the two kinds of files ------------------------------------------------------------------ */

/* The one extent that is the file itself. The name in its line is often stale: ignored. */
static int embed_extent(struct image *img, struct sparse **sparse, struct platter_error *err)
{
    struct vmdk *v = vmdk_of(img);
    const struct descriptor_extent *line = &v->descriptor->extents[0];
    if (v->descriptor->n_extents != 1 || line_is_flat(line) || line->type == TYPE_ZERO)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: its descriptor has %u extents, the first of type %s, but the file holds "
                    "one SPARSE extent",
                    img->stream->name, v->descriptor->n_extents, line->word);
    if (img->writable && line->access != ACCESS_WRITE)
        return fail(err, EROFS, "%s: its descriptor says that it may not be written",
                    img->stream->name);
    int r = vmdk_check_capacity(img, *sparse, line->sectors, err);
    if (r == 0)
        r = vmdk_make_extents(img, err);
    if (r == 0)
        r = vmdk_add_extent(img, line, err);
    if (r < 0)
        return r;
    v->extents[0].word = "";
    v->extents[0].stream = img->stream;
    v->extents[0].sparse = TAKE(*sparse);
    return 0;
}

/* A header with capacity 0 makes the file a mere container of a descriptor; unless that speaks of
 * an empty disk. */
static bool is_container(const struct sparse *s, const struct descriptor *d)
{
    return s->header.capacity == 0 &&
           !(d->n_extents == 1 && d->extents[0].type == TYPE_SPARSE && d->extents[0].sectors == 0);
}

/* An extent without its descriptor, which is often opened by mistake: it is read as a disk of its
 * own without a parent. What is told of it comes from the descriptor it would have. */
static int open_bare(struct image *img, struct sparse **sparse, struct platter_error *err)
{
    static const char *const types[] = {"monolithicSparse", "vmfsSparse", "seSparse"};
    struct vmdk *v = vmdk_of(img);
    if (img->writable)
        return fail(
            err, ENOTSUP,
            "%s: one extent of a disk, whose descriptor is another file: open that to write",
            img->stream->name);
    v->bare = true;
    v->embedded = false;
    int r = img->doubt
                ? 0
                : image_doubt(img, err,
                              "%s: one extent of a disk, opened without its descriptor: what "
                              "it does not store reads as zeros, not as its parent",
                              img->stream->name);
    if (r < 0)
        return r;
    auto_free char *text =
        string_format("version=1\nCID=ffffffff\nparentCID=ffffffff\ncreateType=\"%s\"\n"
                      "RDONLY %" PRIu64 " SPARSE \"-\"\n",
                      types[(*sparse)->kind], (*sparse)->header.capacity);
    if (!text)
        return fail_memory(err, "a VMDK descriptor");
    r = descriptor_parse(img->budget, img->stream->name, (const uint8_t *)text, strlen(text), true,
                         &v->descriptor, err);
    return r < 0 ? r : embed_extent(img, sparse, err);
}

static int open_sparse(struct image *img, struct platter_error *err)
{
    struct vmdk *v = vmdk_of(img);
    struct sparse *s;
    int r = sparse_open(img, img->stream, img->writable, &s, err);
    if (r < 0)
        return r;
    const struct hosted_header *h = &s->header;
    v->bare = s->kind != SPARSE_HOSTED || h->descriptor_offset == 0 || h->descriptor_size == 0;
    if (!v->bare)
        r = vmdk_read_descriptor(img, h->descriptor_offset * VMDK_SECTOR,
                                 h->descriptor_size * VMDK_SECTOR, true, err);
    if (img->salvage && s->kind == SPARSE_HOSTED && (r < 0 || v->bare) && r != -ENOMEM) {
        v->bare = true;
        r = image_doubt(img, err,
                        "%s: has no descriptor: if it has a parent, what stands there is missing",
                        img->stream->name);
    }
    if (r == 0 && v->bare)
        r = open_bare(img, &s, err);
    else if (r == 0)
        r = is_container(s, v->descriptor) ? vmdk_open_extents(img, err)
                                           : embed_extent(img, &s, err);
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
    if (!descriptor_probe(prefix, len))
        return fail(
            err, PLATTER_ENOFORMAT,
            "%s: not a VMDK: it begins neither with KDMV nor with a descriptor; the data of "
            "a flat disk opens by its descriptor, or as raw",
            name);
    int r = vmdk_read_descriptor(img, 0, size, false, err);
    return r < 0 ? r : vmdk_open_extents(img, err);
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
    bool salvage = img->salvage && !descriptor_probe(prefix, len); /* where the magic is lost */
    if ((len >= 4 && (hosted_magic(prefix) || cowd_magic(prefix))) ||
        (len >= 8 && se_magic(prefix)) || salvage)
        return open_sparse(img, err);
    return open_text(img, prefix, len, size, err);
}

/* ---- the image ------------------------------------------------------------------------------- */

/* The last component of a path of any host, and what stands in front of it without the slash. */
static const char *last_part(const char *path, size_t *ret_len)
{
    size_t end = *ret_len, start = end;
    while (start > 0 && path[start - 1] != '/' && path[start - 1] != '\\')
        start--;
    *ret_len = start > 0 ? start - 1 : 0;
    return path + start;
}

/* Takes the hint, unless it is what is tried anyway; false: there was no memory for it. */
static bool add_hint(char **hints, const char *but, char *hint)
{
    if (!hint)
        return false;
    while (*hints)
        hints++;
    if (strcmp(hint, but) == 0)
        free(hint);
    else
        *hints = hint;
    return true;
}

/* Where a parent may be if its hint is of another time or another host: beside the child, or in the
 * folder of that name beside the child's (section 3.8). */
static int hint_at_parent(struct image *img, const char *bytes, struct platter_error *err)
{
    const char *hint = img->backing_name;
    const char *store = *hint == '[' ? strstr(hint, "] ") : NULL; /* "[store] folder/file" */
    const char *path = store ? store + 2 : hint;
    size_t len = strlen(path);
    const char *base = last_part(path, &len), *end = path + len;
    const char *folder = last_part(path, &len);
    char **hints = calloc(4, sizeof *hints);
    img->backing_hints = hints;
    bool fine = hints && add_hint(hints, hint, string_copy(bytes));
    if (fine && *base)
        fine = add_hint(hints, hint, string_copy(base));
    if (fine && *base && end > folder)
        fine =
            add_hint(hints, hint, string_format("../%.*s/%s", (int)(end - folder), folder, base));
    return fine ? 0 : fail_memory(err, "a backing file's name");
}

static int note_backing(struct image *img, struct platter_error *err)
{
    const struct descriptor *d = vmdk_of(img)->descriptor;
    const char *hint = descriptor_value(d, "parentFileNameHint"), *name = img->stream->name;
    img->has_backing = hint || d->parent_cid != VMDK_NO_CID;
    if (!hint)
        return 0;
    for (const char *c = hint; *c; c++)
        if (iscntrl((unsigned char)*c))
            return fail(err, PLATTER_ECORRUPT,
                        "%s: the name of its parent (parentFileNameHint) has control characters",
                        name);
    int r = encoding_decode(descriptor_value(d, "encoding"), hint, &img->backing_name, err);
    if (r < 0)
        return fail_in(err, r, "%s", name);
    /* A parent is a VMDK by definition, and never guessed: section 3.8. */
    img->backing_format = string_copy("vmdk");
    return img->backing_format ? hint_at_parent(img, hint, err)
                               : fail_memory(err, "a backing file's name");
}

/* The engine keeps writers of one unit apart, so no grain that may be written is larger than that;
 * and it has to know if one lies in two of them. */
static void choose_unit(struct image *img)
{
    const uint32_t most = VMDK_MAX_GRAIN * VMDK_SECTOR; /* a COWD may claim 1 GiB */
    struct vmdk *v = vmdk_of(img);
    img->unit = VMDK_SECTOR;
    for (unsigned i = 0; i < v->n_extents; i++) {
        struct vmdk_extent *x = &v->extents[i];
        if (!x->sparse)
            continue;
        while (img->unit < x->sparse->grain && img->unit < most)
            img->unit *= 2;
        if (!img->writable || x->access != ACCESS_WRITE)
            continue;
        if (x->sparse->grain > most) {
            x->unfit = "its grains are larger than 16 MiB";
            x->access = ACCESS_READ;
        } else if (!is_power_of_2(x->sparse->grain) || x->start % x->sparse->grain != 0) {
            img->askew = true;
        }
    }
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
    if (r == 0 && img->checking)
        return vmdk_open_for_check(img, err);
    if (r == 0)
        r = open_file(img, err);
    if (r == 0)
        r = note_backing(img, err);
    if (r < 0)
        return r;
    choose_unit(img);
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
    vmdk_close_checked(img);
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
