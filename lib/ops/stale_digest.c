/* SPDX-License-Identifier: MIT */
/* See stale_digest.h. */
#include "ops/stale_digest.h"

#include <sys/stat.h>

#include "base/memory.h"
#include "base/signals.h"
#include "ops/digest_file.h"
#include "ops/publish.h"
#include "stream/place.h"

/* On a server the two cannot change at once. */
static int check_no_digest(const char *name, const char *place, struct platter_error *err)
{
    struct stream *s;
    if (stream_open_with(name, place, 0, 0, &s, NULL) < 0)
        return 0; /* nor could who verifies the archive */
    stream_close(s);
    return fail(err, EEXIST,
                "%s: would be taken for digests of the new archive: remove it, or have digests "
                "written beside that as well",
                name);
}

int stale_digest_open(const char *target, const char *place, struct stream **ret,
                      struct platter_error *err)
{
    auto_free char *name = place_beside(target, DIGEST_SUFFIX);
    struct stat st;
    *ret = NULL;
    if (!name)
        return fail_memory(err, "a name");
    if (!place_is_file(name, NULL))
        return check_no_digest(name, place, err);
    if (lstat(name, &st) < 0)
        return stream_check_not_aside(name, err);
    if (!S_ISREG(st.st_mode))
        return fail(err, EEXIST,
                    "%s: would be taken for digests of the new archive, and is no file that could "
                    "be removed with the old one: remove it",
                    name);
    return stream_file_open(name, STREAM_FILE_WRITE | STREAM_FILE_TEMPORARY, ret, err);
}

int stale_digest_publish(struct stream *s, struct stream **stale, bool durable,
                         platter_progress_fn progress, void *opaque, uint64_t total,
                         struct platter_error *err)
{
    sigset_t before;
    if (!*stale)
        return publish_watched(s, durable, progress, opaque, total, err);
    hold_signals(&before);
    int r = stream_make_way(*stale, durable, err);
    if (r == 0)
        r = stream_publish(s, durable, err);
    if (r < 0)
        stream_withdraw(*stale, true, err);
    stream_close(TAKE(*stale));
    release_signals(&before);
    return r;
}
