/* SPDX-License-Identifier: MIT */
/*
 * Who has an image open for writing watches it (rbd_open() sees to that), until it is closed, or
 * for half a minute after its program was killed. The image's own exclusive lock is no help against
 * a virtual machine: that gives it away when it is asked to, and goes on to write when it gets it
 * back. So we look who watches, take the lock, and look again.
 */
#include <inttypes.h>
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

int rbd_lock(struct stream *base, unsigned use, unsigned deny, struct platter_error *err)
{
    struct rbd_stream *s = rbd_of(base);
    if (s->snap != RBD_NO_SNAP || use == 0 || s->temporary)
        return 0;
    bool writes = use & STREAM_LOCK_WRITE && base->writable;
    int r = deny & STREAM_LOCK_WRITE ? check_nobody(s, err) : 0;
    if (r == 0 && writes)
        r = check_no_lock(s, err);
    if (r == 0 && writes)
        r = take_lock(s, err);
    return r == 0 && writes && deny & STREAM_LOCK_WRITE ? check_nobody(s, err) : r;
}
