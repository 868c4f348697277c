/* SPDX-License-Identifier: MIT */
/*
 * From the lines of a descriptor to extents and their files: vmdk.md sections 3.5 and 3.8.
 *
 * Behaviour follows from extent lines and headers, never from the name createType. Extents are
 * sorted by where they start on the disk, without gaps.
 */
#include <inttypes.h>

#include "format/vmdk/vmdk.h"

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

/* Fills `files`, sorted by name, each once; returns how many they are. */
static unsigned collect_flat(const struct descriptor *d, struct flat_file *files)
{
    unsigned n = 0, kept = 0;
    for (unsigned i = 0; i < d->n_extents; i++)
        if (line_is_flat(&d->extents[i]) && d->extents[i].access != ACCESS_NONE)
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

/* "/dev/sda", "\\.\PhysicalDrive0": fullDevice, partitionedDevice. Files in memory are none. */
static bool is_device(const char *name)
{
    return (strncmp(name, "/dev/", 5) == 0 && strncmp(name, "/dev/shm/", 9) != 0) ||
           strncmp(name, "\\\\.\\", 4) == 0;
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

int vmdk_make_extents(struct image *img, struct platter_error *err)
{
    struct vmdk *v = vmdk_of(img);
    v->max_extents = v->descriptor->n_extents;
    return budget_alloc(img->budget, v->max_extents * sizeof *v->extents, "the extents of a VMDK",
                        &v->extents, err);
}

int vmdk_check_capacity(const struct image *img, const struct sparse *s, uint64_t sectors,
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
    return r < 0 ? r : vmdk_check_capacity(img, x->sparse, line->sectors, err);
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
int vmdk_add_extent(struct image *img, const struct descriptor_extent *line,
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
    int r = vmdk_add_extent(img, line, err);
    if (r < 0 || line->type == TYPE_ZERO || line->access == ACCESS_NONE)
        return r;
    struct vmdk_extent *x = &v->extents[i];
    r = line_is_flat(line) ? open_flat(img, line, x, find_flat(files, n_files, line->file), err)
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

int vmdk_open_extents(struct image *img, struct platter_error *err)
{
    const struct descriptor *d = vmdk_of(img)->descriptor;
    struct flat_file *files;
    uint64_t bytes = d->n_extents * sizeof *files;
    int r = vmdk_make_extents(img, err);
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
