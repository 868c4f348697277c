/* SPDX-License-Identifier: MIT */
/* One image of a chain: opening it, closing it. */
#include "disk/inside.h"

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
    img->compression = setup->compression;
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
