/* SPDX-License-Identifier: MIT */
/* Whether two streams are the same bytes somewhere. */
#include <string.h>
#include <sys/stat.h>

#include "stream/inside.h"

/* Which file a stream is; false: none, as a pipe or a terminal. */
static bool is_file(struct stream *s, struct stat *ret)
{
    return s->ops->descriptor && fstat(s->ops->descriptor(s), ret) == 0 &&
           (S_ISREG(ret->st_mode) || S_ISBLK(ret->st_mode));
}

static struct stream *bottom(struct stream *s)
{
    while (s->base)
        s = s->base;
    return s;
}

bool stream_same_file(struct stream *a, struct stream *b)
{
    struct stat x, y;
    a = bottom(a);
    b = bottom(b);
    const char *here = a->ops->url ? a->ops->url(a) : NULL;
    const char *there = b->ops->url ? b->ops->url(b) : NULL;
    if (here && there)
        return strcmp(here, there) == 0;
    if (a->ops == b->ops && a->ops->same)
        return a->ops->same(a, b);
    if (!is_file(a, &x) || !is_file(b, &y) || S_ISBLK(x.st_mode) != S_ISBLK(y.st_mode))
        return false;
    return S_ISBLK(x.st_mode) ? x.st_rdev == y.st_rdev
                              : x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

bool stream_same_bytes(struct stream *a, struct stream *b)
{
    if (a->ops == b->ops && a->ops->same)
        return a->ops->same(a, b);
    return (a->base != NULL) == (b->base != NULL) && stream_same_file(a, b);
}
