/* SPDX-License-Identifier: MIT */
/*
 * Who has an image open for writing watches it (rbd_open() sees to that), until it is closed, or
 * for half a minute after its program was killed. The image's own exclusive lock is no help against
 * a virtual machine: that gives it away when it is asked to, and goes on to write when it gets it
 * back. So we look who watches, take the lock, and look again.
 *
 * Who only reads keeps nobody from writing, or from removing what is read, which reads as zeros
 * then. So when all is read we look whether the image is still what it was.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "stream/rbd.h"

static int watchers(struct rbd_stream *s, rbd_image_watcher_t **ret, size_t *ret_n,
                    struct platter_error *err)
{
    size_t n = 8;
    int r;
    do {
        free(*ret);
        *ret = calloc(n, sizeof **ret);
        if (!*ret)
            return fail_memory(err, "those who have an image open");
        *ret_n = n;
        r = librbd.watchers_list(s->image, *ret, ret_n);
        n = *ret_n;
    } while (r == -ERANGE);
    if (r < 0)
        *ret_n = 0;
    return r < 0 ? rbd_fail(&s->head, r, err, "who has the image open cannot be told") : 0;
}

static int check_nobody(struct rbd_stream *s, struct platter_error *err)
{
    rbd_image_watcher_t *all = NULL;
    size_t n = 0;
    int64_t we = (int64_t)librados.get_instance_id(s->cluster->handle);
    int r = watchers(s, &all, &n, err);
    for (size_t i = 0; i < n && r == 0; i++)
        if (all[i].id != we)
            r = fail(err, EBUSY,
                     "%s: client.%" PRId64 " at %s has the image open for writing: end that (one "
                     "that was killed counts for 30 seconds), or read a snapshot of it",
                     s->head.name, all[i].id, all[i].addr);
    if (n > 0)
        librbd.watchers_list_cleanup(all, n);
    free(all);
    return r;
}

/* A lock that a person put there (rbd lock add). The cluster's own begin with "auto". */
static int check_no_lock(struct rbd_stream *s, struct platter_error *err)
{
    char tag[256], clients[4096], cookies[4096], addrs[4096];
    size_t lens[] = {sizeof tag, sizeof clients, sizeof cookies, sizeof addrs};
    int exclusive = 0;
    ssize_t n = librbd.list_lockers(s->image, &exclusive, tag, &lens[0], clients, &lens[1], cookies,
                                    &lens[2], addrs, &lens[3]);
    if (n == -ENOENT || n == 0)
        return 0;
    if (n < 0 && n != -ERANGE)
        return rbd_fail(&s->head, (int)n, err, "who has locked the image cannot be told");
    if (n > 0 && strncmp(cookies, "auto ", 5) == 0)
        return 0; /* whose holder would watch as well, if it lived */
    return fail(err, EBUSY, "%s: is locked as \"%s\" by %s at %s (rbd lock ls, rbd lock rm)",
                s->head.name, n > 0 ? cookies : "...", n > 0 ? clients : "several clients",
                n > 0 ? addrs : "several places");
}

static int take_lock(struct rbd_stream *s, struct platter_error *err)
{
    if (s->locked || !(s->features & RBD_FEATURE_EXCLUSIVE_LOCK))
        return 0;
    int r = librbd.lock_acquire(s->image, RBD_LOCK_MODE_EXCLUSIVE);
    if (r == -EROFS || r == -EBUSY)
        return fail(err, EBUSY, "%s: another client holds the image's exclusive lock",
                    s->head.name);
    if (r < 0)
        return rbd_fail(&s->head, r, err, "the image's exclusive lock cannot be had");
    s->locked = true;
    return 0;
}

/* ---- changes --------------------------------------------------------------------------------- */

enum { RECENT_S = 600 }; /* several times what keeps a write from being noted in an image */

/* Whoever takes the exclusive lock, to write, changes the object map; who reads does not. */
static uint64_t map_version(struct rbd_stream *s)
{
    char name[96];
    uint64_t size;
    time_t when;
    snprintf(name, sizeof name, "rbd_object_map.%s", s->id);
    return s->features & RBD_FEATURE_OBJECT_MAP && librados.stat(s->pool, name, &size, &when) == 0
               ? librados.get_last_version(s->pool)
               : 0;
}

static int look(struct rbd_stream *s, rbd_image_t image, struct rbd_mark *ret)
{
    int r = librbd.get_size(image, &ret->size);
    if (r == 0)
        r = librbd.get_modify_timestamp(image, &ret->modified);
    ret->map = map_version(s);
    return r;
}

/* The image as it was when it was opened, before anything was read. */
static int set_mark(struct rbd_stream *s, struct platter_error *err)
{
    struct timespec now;
    int r = look(s, s->image, &s->mark);
    if (r < 0)
        return rbd_fail(&s->head, r, err, "the image cannot be examined");
    clock_gettime(CLOCK_REALTIME, &now);
    s->recent = s->mark.modified.tv_sec > now.tv_sec - RECENT_S;
    s->marked = true;
    return 0;
}

static bool same_mark(const struct rbd_stream *s, const struct rbd_mark *now)
{
    const struct rbd_mark *was = &s->mark;
    return was->size == now->size && was->modified.tv_sec == now->modified.tv_sec &&
           was->modified.tv_nsec == now->modified.tv_nsec && (!s->recent || was->map == now->map);
}

static int fail_gone(const struct rbd_stream *s, struct platter_error *err)
{
    return fail(err, ESTALE, "%s: was removed while it was read, and what was read may be zeros",
                s->head.name);
}

/* What the image is now. It is opened anew, since who has it open is not told that it is gone. */
static int look_again(struct rbd_stream *s, struct rbd_mark *ret, struct platter_error *err)
{
    rbd_image_t image;
    int r = librbd.open_by_id_read_only(s->pool, s->id, &image, NULL);
    if (r == -ENOENT)
        return fail_gone(s, err);
    if (r < 0)
        return rbd_fail(&s->head, r, err, "whether the image changed cannot be told");
    *ret = (struct rbd_mark){.size = s->size};
    r = s->snap == RBD_NO_SNAP ? look(s, image, ret) : librbd.snap_set_by_id(image, s->snap);
    librbd.close(image);
    if (r == -ENOENT)
        return fail_gone(s, err);
    return r < 0 ? rbd_fail(&s->head, r, err, "whether the image changed cannot be told") : 0;
}

int rbd_unchanged(struct stream *base, struct platter_error *err)
{
    struct rbd_stream *s = rbd_of(base);
    struct rbd_mark now;
    if (base->writable || !*s->id)
        return 0;
    int r = look_again(s, &now, err);
    if (r < 0)
        return r;
    return !s->marked || same_mark(s, &now)
               ? 0
               : fail(err, ESTALE,
                      "%s: somebody had the image open for writing while it was read: begin again, "
                      "or make a snapshot of it and read that",
                      base->name);
}

/* The version of the object map is there whether the image changed long ago or not: that would be
 * another answer later. So whoever has it open for writing meanwhile, as who makes a snapshot of it
 * has, is said to have changed it. */
int rbd_identity(struct stream *base, char **text, struct platter_error *err)
{
    struct rbd_stream *s = rbd_of(base);
    struct rbd_mark now;
    if (!*s->id)
        return fail(err, ENOTSUP,
                    "%s: an image of the first format has nothing by which it is known again",
                    base->name);
    int r = look_again(s, &now, err);
    if (r == 0)
        r = identity_add(text, err, "cluster", "%s", s->cluster->id);
    if (r == 0)
        r = identity_add(text, err, "pool", "%" PRIi64, librados.ioctx_get_id(s->pool));
    if (r == 0)
        r = identity_add(text, err, "image", "%s", s->id);
    if (r == 0)
        r = identity_add(text, err, "size", "%" PRIu64, now.size);
    if (r < 0 || s->snap != RBD_NO_SNAP)
        return r < 0 ? r : identity_add(text, err, "snapshot", "%" PRIu64, s->snap);
    r = identity_add(text, err, "modified", "%jd.%09ld", (intmax_t)now.modified.tv_sec,
                     now.modified.tv_nsec);
    return r < 0 || now.map == 0 ? r : identity_add(text, err, "map", "%" PRIu64, now.map);
}

/* ---- locks ----------------------------------------------------------------------------------- */

int rbd_lock(struct stream *base, unsigned use, unsigned deny, struct platter_error *err)
{
    struct rbd_stream *s = rbd_of(base);
    if (s->snap != RBD_NO_SNAP || use == 0 || s->temporary)
        return 0;
    bool writes = use & STREAM_LOCK_WRITE && base->writable;
    bool denies = deny & STREAM_LOCK_WRITE;
    int r = denies && !base->writable && !s->marked ? set_mark(s, err) : 0;
    if (r == 0 && denies)
        r = check_nobody(s, err);
    if (r == 0 && writes)
        r = check_no_lock(s, err);
    if (r == 0 && writes)
        r = take_lock(s, err);
    return r == 0 && writes && denies ? check_nobody(s, err) : r;
}
