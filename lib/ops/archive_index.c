/* SPDX-License-Identifier: MIT */
/* The index of an archive, kept beside it: made anew from the archive, whatever is there. */
#include <string.h>

#include "format/archive.h"
#include "ops/ops.h"
#include "stream/place.h"

#define INDEX_MEMORY (UINT64_C(512) << 20)

/* Nothing but an older index is replaced. */
static int check_replaceable(const struct archive_ops *ops, const char *path,
                             struct platter_error *err)
{
    struct stream *old;
    int r = stream_file_open(path, 0, &old, err);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    bool is_index = ops->is_index(old);
    stream_close(old);
    return is_index ? 0
                    : fail(err, EEXIST,
                           "%s: is there already, and is no index of an archive: name another file "
                           "(-o), or remove it",
                           path);
}

static int write_index(struct image *img, const char *path, struct platter_error *err)
{
    const struct archive_ops *ops = img->format->archive;
    struct stream *out;

    int r = check_replaceable(ops, path, err);
    if (r == 0)
        r = stream_file_open(path, STREAM_FILE_WRITE | STREAM_FILE_TEMPORARY, &out, err);
    if (r < 0)
        return r;
    stream_take_rights(out, img->stream);
    r = ops->keep_index(img, out, err);
    if (r == 0)
        r = stream_publish(out, true, err);
    stream_close(out);
    return r;
}

int ops_archive_index(const char *name, const char *index, struct platter_error *err)
{
    /* It is all of the archive that is looked at, as by a check. */
    struct platter_open_options open = {.size = sizeof open, .memory_limit = INDEX_MEMORY};
    struct platter_disk *disk;
    if (!index && (strcmp(name, "-") == 0 || place_is_spec(name)))
        return fail(err, EINVAL,
                    "an index of standard input, or of a source-spec, has nothing to stand beside: "
                    "name a file for it (-o)");
    int r = disk_open_for_check(name, &open, false, &disk, err);
    if (r < 0)
        return r;
    struct image *img = disk_top(disk);
    auto_free char *beside = string_format("%s.index", name);
    if (!img->format->archive || !img->format->archive->keep_index)
        r = fail(err, ENOTSUP, "%s: is of the format %s, which has no index to be kept",
                 img->stream->name, img->format->name);
    else if (!beside)
        r = fail_memory(err, "a file name");
    else
        r = write_index(img, index ? index : beside, err);
    disk_close(disk, NULL);
    return r;
}
