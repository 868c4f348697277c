/* SPDX-License-Identifier: MIT */
/* Resizing, and the further files that an image may need to grow (rule 9). */
#include <string.h>

#include "base/signals.h"
#include "ops/ops.h"

/* Makes files beside an image. */
struct growth {
    struct file_maker maker;
    const struct image *image;
    struct stream **files;
    unsigned n_files;
    bool published;
    sigset_t before;
};

static int keep_file(struct growth *g, struct stream *s, struct platter_error *err)
{
    struct stream **files = reallocarray(g->files, g->n_files + 1, sizeof *files);
    if (!files)
        return fail_memory(err, "the files of an image");
    g->files = files;
    g->files[g->n_files++] = s;
    return 0;
}

/* Under a temporary name, with the locks of a file that is open for writing. */
static int make_file(const struct file_maker *maker, const char *name, struct stream **ret,
                     struct platter_error *err)
{
    const unsigned change = STREAM_LOCK_WRITE | STREAM_LOCK_RESIZE;
    struct growth *g = container_of(maker, struct growth, maker);
    const char *image = g->image->stream->name;
    auto_free char *path = NULL;
    struct stream *s = NULL;
    int r = gate_resolve(image, name, &path, err);
    if (r == 0 && (!path || strchr(name, '/')))
        r = fail(err, EINVAL,
                 "%s: a further file of it would be called \"%s\", which is no plain name in its "
                 "folder",
                 image, name);
    if (r == 0)
        r = stream_file_open(
            path, STREAM_FILE_WRITE | STREAM_FILE_TEMPORARY | STREAM_FILE_EXCLUSIVE, &s, err);
    if (r == -EEXIST)
        fail_in(err, r,
                "%s: needs a further file of a name that is taken (if a resize that was cut off "
                "left the file, remove it)",
                image);
    if (r == 0)
        stream_take_rights(s, g->image->stream);
    if (r == 0)
        r = stream_lock(s, STREAM_LOCK_READ | change, change, err);
    if (r == 0)
        r = keep_file(g, s, err);
    if (r < 0) {
        stream_close(s);
        return r;
    }
    *ret = s;
    return 0;
}

static int publish_files(const struct file_maker *maker, struct platter_error *err)
{
    struct growth *g = container_of(maker, struct growth, maker);
    int r = 0;
    if (!g->published)
        hold_signals(&g->before); /* until the image names them, too */
    g->published = true;
    for (unsigned i = 0; i < g->n_files && r == 0; i++)
        r = stream_publish(g->files[i], true, err);
    return r;
}

/* What has its name already is taken away again, unless the image may have come to name it: it is
 * poisoned then. */
static void growth_end(struct growth *g, bool failed)
{
    for (unsigned i = 0; i < g->n_files; i++) {
        if (failed && g->image->poison == 0)
            stream_withdraw(g->files[i], true, NULL);
        stream_close(g->files[i]);
    }
    free(g->files);
    if (g->published)
        release_signals(&g->before);
}

int ops_resize(struct platter_disk *disk, uint64_t size, unsigned flags,
               enum platter_preallocation preallocation, struct platter_error *err)
{
    struct growth g = {.maker = {make_file, publish_files}, .image = disk_top(disk)};
    int r = disk_resize(disk, size, flags, preallocation, &g.maker, err);
    growth_end(&g, r < 0);
    return r;
}
