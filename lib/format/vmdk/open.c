/* SPDX-License-Identifier: MIT */
/*
 * From a file to its descriptor to its extents: vmdk.md sections 2, 3 and 4.1.
 *
 * Behaviour follows from extent lines and headers, never from the name createType. Extents are
 * sorted by where they start on the disk, without gaps.
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

static int read_descriptor(struct image *img, hoff off, uint64_t len, bool embedded,
                           struct platter_error *err)
{
    struct vmdk *v = vmdk_of(img);
    uint8_t *text;
    int r = budget_alloc(img->budget, len, "a VMDK descriptor", &text, err);
    if (r < 0)
        return r;
    v->descriptor_off = off;
    v->descriptor_len = len;
    v->embedded = embedded;
    r = stream_pread(img->stream, text, (size_t)len, off, err);
    /* Pieces of a split disk have room for a text, but none: section 3.1. */
    v->bare = r == 0 && embedded && text[0] == 0;
    if (r == 0 && !v->bare)
        r = descriptor_parse(img->budget, img->stream->name, text, (size_t)len, embedded,
                             &v->descriptor, err);
    budget_free(img->budget, text, len);
    return r;
}

/* ---- the files of extents -------------------------------------------------------------------- */

/* A file that flat extents name: opened, and locked, once, however many they are. */
struct flat_file {
    const char *name;
    unsigned first; /* extent that names it */
    bool writable;  /* one of them is to be written */
};

static int compare_names(const void *a, const void *b)
{
    const struct flat_file *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    return order ? order : (x->first > y->first) - (x->first < y->first);
}

static bool is_flat(const struct descriptor_extent *line)
{
    return line->type == TYPE_FLAT || line->type == TYPE_VMFS;
}

/* Fills `files`, sorted by name, each once; returns how many they are. */
static unsigned collect_flat(const struct descriptor *d, struct flat_file *files)
{
    unsigned n = 0, kept = 0;
    for (unsigned i = 0; i < d->n_extents; i++)
        if (is_flat(&d->extents[i]) && d->extents[i].access != ACCESS_NONE)
            files[n++] =
                (struct flat_file){d->extents[i].file, i, d->extents[i].access == ACCESS_WRITE};
    qsort(files, n, sizeof *files, compare_names);
    for (unsigned i = 0; i < n; i++)
        if (kept > 0 && strcmp(files[kept - 1].name, files[i].name) == 0)
            files[kept - 1].writable |= files[i].writable;
        else
            files[kept++] = files[i];
    return kept;
}

static const struct flat_file *find_flat(const struct flat_file *files, unsigned n,
                                         const char *name)
{
    unsigned low = 0, high = n;
    while (high - low > 1) {
        unsigned middle = (low + high) / 2;
        if (strcmp(files[middle].name, name) <= 0)
            low = middle;
        else
            high = middle;
    }
    return &files[low];
}

/* "/dev/sda", "\\.\PhysicalDrive0": fullDevice, partitionedDevice. */
static bool is_device(const char *name)
{
    return strncmp(name, "/dev/", 5) == 0 || strncmp(name, "\\\\.\\", 4) == 0;
}

int vmdk_open_named(struct image *img, const char *bytes, bool writable, struct stream **ret,
                    struct platter_error *err)
{
    const struct name_opener *o = img->opener;
    const char *encoding = descriptor_value(vmdk_of(img)->descriptor, "encoding");
    auto_free char *name = NULL;
    if (is_device(bytes))
        return fail(err, PLATTER_EGATE,
                    "%s: its extent \"%s\" is a device of the host it was made on: images may not "
                    "lead to devices; open the device itself, as raw",
                    img->stream->name, bytes);
    int r = encoding_decode(encoding, bytes, &name, err);
    if (r < 0)
        fail_in(err, r, "%s", img->stream->name);
    else
        r = o->open(o, img, name, PLATTER_NAME_EXTENT, writable, ret, err);
    bool other = name ? strcmp(name, bytes) != 0 : r != -ENOMEM;
    if (r < 0 && other && (r == -ENOENT || !name) &&
        o->open(o, img, bytes, PLATTER_NAME_EXTENT, writable, ret, NULL) == 0)
        return 0;
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

static int open_flat(struct image *img, const struct descriptor_extent *line, struct vmdk_extent *x,
                     const struct flat_file *file, struct platter_error *err)
{
    struct vmdk *v = vmdk_of(img);
    const struct vmdk_extent *first = &v->extents[file->first];
    x->off = line->offset * VMDK_SECTOR;
    if (first != x) {
        x->stream = first->stream;
        x->end = first->end;
        x->shares = true;
        return 0;
    }
    int r = vmdk_open_named(img, line->file, img->writable && file->writable, &x->stream, err);
    return r < 0 ? r : stream_size(x->stream, &x->end, err);
}

/* Who writes grains has the end of the file to itself. */
static int check_unshared(const struct image *img, const struct descriptor_extent *line,
                          struct platter_error *err)
{
    const struct descriptor *d = vmdk_of(img)->descriptor;
    for (unsigned i = 0; i < d->n_extents; i++)
        if (&d->extents[i] != line && d->extents[i].file &&
            strcmp(d->extents[i].file, line->file) == 0)
            return fail(err, PLATTER_ECORRUPT,
                        "%s: its extents %td and %u are both in the sparse file %s: that can be "
                        "read, but not written",
                        img->stream->name, line - d->extents, i, line->file);
    return 0;
}

static int open_grains(struct image *img, const struct descriptor_extent *line,
                       struct vmdk_extent *x, struct platter_error *err)
{
    bool writable = img->writable && x->access == ACCESS_WRITE;
    int r = writable ? check_unshared(img, line, err) : 0;
    if (r < 0)
        return r;
    r = vmdk_open_named(img, line->file, writable, &x->stream, err);
    if (r == 0)
        r = sparse_open(img, x->stream, writable, &x->sparse, err);
    return r < 0 ? r : check_capacity(img, x->sparse, line->sectors, err);
}

static int check_line(struct image *img, const struct descriptor_extent *line,
                      struct platter_error *err)
{
    const char *name = img->stream->name;
    if (line->type == TYPE_VMFSRDM || line->type == TYPE_VMFSRAW)
        return fail(err, ENOTSUP,
                    "%s: its extent of type %s is a device of an ESX host (raw device mapping), "
                    "which is not in any file: open that device, as raw",
                    name, line->word);
    if (line->type == TYPE_OTHER)
        return fail(err, ENOTSUP,
                    "%s: extents of type %.20s are not known (FLAT, SPARSE, ZERO, VMFS, VMFSSPARSE "
                    "and SESPARSE are)",
                    name, line->word);
    if (line->sectors == 0 && vmdk_of(img)->descriptor->n_extents > 1) /* alone: an empty disk */
        return fail(err, PLATTER_ECORRUPT, "%s: the descriptor has an extent of 0 sectors", name);
    return 0;
}

/* Appends an extent, whose file is not opened yet. */
static int add_extent(struct image *img, const struct descriptor_extent *line,
                      struct platter_error *err)
{
    struct vmdk *v = vmdk_of(img);
    int r = check_line(img, line, err);
    if (r < 0)
        return r;
    v->extents[v->n_extents++] = (struct vmdk_extent){.start = img->size,
                                                      .len = line->sectors * VMDK_SECTOR,
                                                      .access = line->access,
                                                      .type = line->type,
                                                      .word = line->word};
    img->size += line->sectors * VMDK_SECTOR;
    if (img->size > VMDK_MAX_SECTORS * VMDK_SECTOR)
        return fail(err, PLATTER_ECORRUPT, "%s: its extents add up to 2^54 sectors or more",
                    img->stream->name);
    return 0;
}

/* A file of grains that is written through two extents: each would put its grains where the other
 * does. Where there are locks they have seen to that. */
static int check_apart(const struct image *img, unsigned i, struct platter_error *err)
{
    const struct vmdk *v = vmdk_of(img);
    const struct vmdk_extent *x = &v->extents[i];
    if (!img->writable || x->access != ACCESS_WRITE || x->shares)
        return 0;
    for (const struct vmdk_extent *y = v->extents; y < x; y++)
        if (y->stream && y->access == ACCESS_WRITE && (x->sparse || y->sparse) &&
            stream_same_file(x->stream, y->stream))
            return fail(err, PLATTER_ECORRUPT,
                        "%s: its extents %td and %u are the same file, %s: it can be read only",
                        img->stream->name, y - v->extents, i, x->stream->name);
    return 0;
}

/* What may not be accessed keeps its place on the disk, and its file is left alone. */
static int open_extent(struct image *img, unsigned i, const struct flat_file *files,
                       unsigned n_files, struct platter_error *err)
{
    struct vmdk *v = vmdk_of(img);
    const struct descriptor_extent *line = &v->descriptor->extents[i];
    int r = add_extent(img, line, err);
    if (r < 0 || line->type == TYPE_ZERO || line->access == ACCESS_NONE)
        return r;
    struct vmdk_extent *x = &v->extents[i];
    r = is_flat(line) ? open_flat(img, line, x, find_flat(files, n_files, line->file), err)
                      : open_grains(img, line, x, err);
    if (r == 0 && !x->shares && stream_same_file(x->stream, img->stream))
        r = fail(err, PLATTER_ECORRUPT, "%s: the descriptor names itself as an extent",
                 img->stream->name);
    return r < 0 ? r : check_apart(img, i, err);
}

static int compare_places(const void *a, const void *b)
{
    const struct vmdk_extent *x = *(struct vmdk_extent *const *)a;
    const struct vmdk_extent *y = *(struct vmdk_extent *const *)b;
    if (x->stream != y->stream)
        return (uintptr_t)x->stream > (uintptr_t)y->stream ? 1 : -1;
    return (x->off > y->off) - (x->off < y->off);
}

/* Flat extents that share bytes of a file are legal, but hardly meant to be written. */
static int doubt_overlaps(struct image *img, struct platter_error *err)
{
    struct vmdk *v = vmdk_of(img);
    struct vmdk_extent **flat;
    uint64_t bytes = v->n_extents * sizeof *flat;
    int r = budget_alloc(img->budget, bytes, "the extents of a VMDK", &flat, err);
    if (r < 0)
        return r;
    unsigned n = 0;
    for (unsigned i = 0; i < v->n_extents; i++)
        if (v->extents[i].stream && !v->extents[i].sparse && v->extents[i].access == ACCESS_WRITE)
            flat[n++] = &v->extents[i];
    qsort(flat, n, sizeof *flat, compare_places);
    for (unsigned i = 1; i < n && r == 0 && !img->doubt; i++)
        if (flat[i]->stream == flat[i - 1]->stream &&
            flat[i]->off - flat[i - 1]->off < flat[i - 1]->len)
            r = image_doubt(
                img, err,
                "%s: its extents %td and %td lie upon each other in %s: what is written "
                "to one changes the other",
                img->stream->name, flat[i - 1] - v->extents, flat[i] - v->extents,
                flat[i]->stream->name);
    budget_free(img->budget, flat, bytes);
    return r;
}

static int open_extents(struct image *img, struct platter_error *err)
{
    const struct descriptor *d = vmdk_of(img)->descriptor;
    struct flat_file *files;
    uint64_t bytes = d->n_extents * sizeof *files;
    int r = make_extents(img, err);
    if (r == 0)
        r = budget_alloc(img->budget, bytes, "the extents of a VMDK", &files, err);
    if (r < 0)
        return r;
    unsigned n_files = collect_flat(d, files);
    for (unsigned i = 0; i < d->n_extents && r == 0; i++)
        r = open_extent(img, i, files, n_files, err);
    budget_free(img->budget, files, bytes);
    return r == 0 ? doubt_overlaps(img, err) : r;
}

/* ---- the two kinds of files ------------------------------------------------------------------ */

/* The one extent that is the file itself. The name in its line is often stale: ignored. */
static int embed_extent(struct image *img, struct sparse **sparse, struct platter_error *err)
{
    struct vmdk *v = vmdk_of(img);
    const struct descriptor_extent *line = &v->descriptor->extents[0];
    if (v->descriptor->n_extents != 1 || is_flat(line) || line->type == TYPE_ZERO)
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
    if (r == 0)
        r = add_extent(img, line, err);
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
        r = read_descriptor(img, h->descriptor_offset * VMDK_SECTOR,
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
    if (!descriptor_probe(prefix, len))
        return fail(
            err, PLATTER_ENOFORMAT,
            "%s: not a VMDK: it begins neither with KDMV nor with a descriptor; the data of "
            "a flat disk opens by its descriptor, or as raw",
            name);
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

/* The engine keeps writers of one unit apart, so no grain that may be written must lie in two. */
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
        if (!is_power_of_2(x->sparse->grain))
            x->unfit = "the size of its grains is no power of two";
        else if (x->sparse->grain > most)
            x->unfit = "its grains are larger than 16 MiB";
        else if (x->start % x->sparse->grain != 0)
            x->unfit = "it does not start at a multiple of its grains";
        if (x->unfit)
            x->access = ACCESS_READ;
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
