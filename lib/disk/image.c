/* SPDX-License-Identifier: MIT */
/* One image of a chain: finding its format, opening it, closing it. */
#include "base/ckd.h"
#include "disk/inside.h"

enum {
    PROBE_MAGIC = 4096,    /* of a file, where most formats have their magic */
    PROBE_BYTES = 64 << 10 /* the most that formats may look at: vmdk.md section 2 */
};

void image_free(struct image *img)
{
    if (!img)
        return;
    if (img->format)
        img->format->close(img, NULL);
    stream_close(img->stream);
    free(img->view);
    free(img->backing_name);
    for (char **hint = img->backing_hints; hint && *hint; hint++)
        free(*hint);
    free(img->backing_hints);
    free(img->backing_format);
    free(img->doubt);
    budget_unref(img->budget);
    pthread_mutex_destroy(&img->lock);
    free(img);
}

/* Takes the stream, on failure as well. */
int image_load(struct stream *stream, const struct image_setup *setup, struct image **ret,
               struct platter_error *err)
{
    struct image *img = calloc(1, sizeof *img);
    if (!img) {
        stream_close(stream);
        return fail_memory(err, "an image");
    }
    pthread_mutex_init(&img->lock, NULL);
    img->format = setup->format;
    img->stream = stream;
    img->writable = setup->writable;
    img->query = setup->query;
    img->salvage = setup->salvage;
    img->checking = setup->checking;
    img->ordered = setup->ordered;
    img->budget = budget_ref(setup->budget);
    img->opener = setup->opener;
    img->sibling = setup->sibling;
    int r = 0;
    if (setup->view && !setup->format->views)
        r = fail(err, ENOENT, "%s: a %s image has no views, so none named \"%s\"", stream->name,
                 setup->format->name, setup->view);
    else if (setup->view && !(img->view = string_copy(setup->view)))
        r = fail_memory(err, "the name of a view");
    else
        r = setup->format->open(img, err);
    img->opener = NULL;
    img->sibling = NULL;
    if (r < 0) {
        img->writable = false; /* nothing was written, so there is nothing to mark on close */
        image_free(img);
        return r;
    }
    *ret = img;
    return 0;
}

/* Which format is surest that a file that begins with `prefix` is its own; NULL if none is. */
static const struct format *surest(const uint8_t *prefix, size_t len, uint64_t file_size)
{
    const struct format *ret = NULL;
    enum probe best = PROBE_NO;
    for (const struct format *const *f = formats; *f; f++) {
        enum probe sure = (*f)->probe ? (*f)->probe(prefix, len, file_size) : PROBE_NO;
        if (sure > best) {
            best = sure;
            ret = *f;
        }
    }
    return ret;
}

static int probe(struct stream *s, bool allow_raw, const struct format **ret,
                 struct platter_error *err)
{
    uint64_t size;
    int r = stream_size(s, &size, err);
    if (r < 0)
        return r;
    auto_free uint8_t *prefix = malloc(PROBE_BYTES);
    if (!prefix)
        return fail_memory(err, "the first bytes of a file");
    size_t n = (size_t)min_u64(size, PROBE_MAGIC);
    if ((r = stream_pread(s, prefix, n, 0, err)) < 0)
        return r;
    if ((*ret = surest(prefix, n, size)))
        return 0;
    n = (size_t)min_u64(size, PROBE_BYTES);
    if ((r = stream_pread(s, prefix, n, 0, err)) < 0)
        return r;
    if ((*ret = surest(prefix, n, size)))
        return 0;
    const char *foreign = format_foreign(prefix, n);
    if (foreign)
        return fail(
            err, PLATTER_ENOFORMAT,
            "%s: is %s, a format that cannot be read yet; -f raw takes the bytes of the file "
            "as the disk",
            s->name, foreign);
    if (!allow_raw)
        return fail(err, PLATTER_ENOFORMAT,
                    "%s: no format recognised: if it is a raw disk, say so (-f raw)", s->name);
    *ret = &format_raw;
    return 0;
}

int image_choose_format(struct stream *s, const char *name, bool allow_raw,
                        const struct format **ret, struct platter_error *err)
{
    if (!name)
        return probe(s, allow_raw, ret, err);
    *ret = format_find(name);
    if (!*ret)
        return fail(err, ENOTSUP, "%s: no format is called \"%s\"", s->name, name);
    return 0;
}
