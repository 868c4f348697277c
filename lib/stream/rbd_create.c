/* SPDX-License-Identifier: MIT */
/*
 * New images (rule 9): made empty under a name of their own, renamed when they are complete. One
 * that has the name already is never replaced, as the cluster has no way to do that at once. When a
 * signal ends the program the image goes as well; killed, it leaves one whose name tells what it
 * is.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/memory.h"
#include "stream/rbd.h"

/* For what is under way when a signal comes: what the image is as a whole ends by itself, unless
 * the cluster stands still; a write may be that of the thread that waits for us. */
enum { PATIENCE_S = 8, PATIENCE_WRITE_S = 1 };

/* ---- options --------------------------------------------------------------------------------- */

static int fail_option(const struct rbd_stream *s, int r, const char *what,
                       struct platter_error *err)
{
    return rbd_fail(&s->head, r, err, "a new image cannot have this %s", what);
}

/* "layering+exclusive-lock", or with commas. */
static int set_features(const struct rbd_stream *s, rbd_image_options_t options, const char *names,
                        struct platter_error *err)
{
    uint64_t features = 0;
    auto_free char *list = string_copy(names);
    if (!list)
        return fail_memory(err, "names");
    for (char *p = list; (p = strchr(p, '+'));)
        *p = ',';
    int r = librbd.features_from_string(list, &features);
    if (r < 0)
        return fail(err, EINVAL, "%s: Ceph does not know the features \"%s\"", s->head.name, names);
    r = librbd.image_options_set_uint64(options, RBD_IMAGE_OPTION_FEATURES, features);
    return r < 0 ? fail_option(s, r, "list of features", err) : 0;
}

static int set_number(const struct rbd_stream *s, rbd_image_options_t options, int option,
                      const struct option_values *keys, const char *key, struct platter_error *err)
{
    uint64_t value = options_number(keys, key), order = 0;
    if (!options_given(keys, key))
        return 0;
    while (option == RBD_IMAGE_OPTION_ORDER && value >> order > 1)
        order++;
    if (order && value != UINT64_C(1) << order)
        return fail(err, EINVAL, "%s: %s must be a power of two, not %" PRIu64, s->head.name, key,
                    value);
    int r = librbd.image_options_set_uint64(options, option, order ? order : value);
    return r < 0 ? fail_option(s, r, key, err) : 0;
}

int rbd_set_options(const struct rbd_stream *s, rbd_image_options_t options,
                    const struct option_values *keys, struct platter_error *err)
{
    const char *features = options_string(keys, "features");
    const char *data_pool = options_string(keys, "data_pool");
    int r = set_number(s, options, RBD_IMAGE_OPTION_ORDER, keys, "object_size", err);
    if (r == 0)
        r = set_number(s, options, RBD_IMAGE_OPTION_STRIPE_UNIT, keys, "stripe_unit", err);
    if (r == 0)
        r = set_number(s, options, RBD_IMAGE_OPTION_STRIPE_COUNT, keys, "stripe_count", err);
    if (r == 0 && features)
        r = set_features(s, options, features, err);
    if (r == 0 && data_pool &&
        (r = librbd.image_options_set_string(options, RBD_IMAGE_OPTION_DATA_POOL, data_pool)) < 0)
        r = fail_option(s, r, "data_pool", err);
    return r;
}

/* ---- making ---------------------------------------------------------------------------------- */

static int check_free(struct rbd_stream *s, struct platter_error *err)
{
    rbd_image_t there;
    int r = librbd.open_read_only(s->pool, s->target, &there, NULL);
    if (r == 0) {
        librbd.close(there);
        return fail(err, EEXIST,
                    "%s: exists already, and an image in Ceph cannot be replaced at once: write "
                    "into it (convert -n), remove it first (rbd rm), or take another name",
                    s->head.name);
    }
    return r == -ENOENT ? 0 : rbd_fail(&s->head, r, err, "cannot look whether there is one");
}

static int name_temporary(const struct rbd_stream *s, char **ret, struct platter_error *err)
{
    uint32_t random;
    if (getrandom(&random, sizeof random, 0) != sizeof random)
        return fail_errno(err, errno, "%s: no random name to be had", s->head.name);
    *ret = string_format(".%s.platter-partial-%08" PRIx32, s->target, random);
    return *ret ? 0 : fail_memory(err, "a name");
}

/* A call that ran out of time may have made it all the same: from here on there is one to remove.
 */
static int create(struct rbd_stream *s, const void *arg, struct platter_error *err)
{
    const struct option_values *keys = arg;
    rbd_image_options_t options;
    char *name = NULL;
    librbd.image_options_create(&options);
    int r = rbd_set_options(s, options, keys, err);
    if (r == 0)
        r = name_temporary(s, &name, err);
    if (r == 0) {
        s->temporary = name;
        if ((r = librbd.create4(s->pool, name, 0, options)) < 0)
            r = rbd_fail(&s->head, r, err, "a new image cannot be made");
    }
    librbd.image_options_destroy(options);
    if (r == 0 && (r = librbd.open(s->pool, s->temporary, &s->image, NULL)) < 0) {
        s->image = NULL;
        r = rbd_fail(&s->head, r, err, "the new image cannot be opened");
    }
    return r;
}

/* Away with it, and its snapshots; nobody has it open. Once the name is gone, so is it. */
static int remove_image(struct rbd_stream *s)
{
    for (unsigned i = s->states.n; i-- > 0 && s->image;)
        librbd.snap_remove(s->image, s->snapshots[i].name);
    if (s->image)
        librbd.close(TAKE(s->image));
    int r = librbd.remove(s->pool, s->temporary);
    return r == -ENOENT ? 0 : r;
}

static int give_up(struct rbd_stream *s, const void *arg, struct platter_error *err)
{
    (void)arg;
    pthread_rwlock_wrlock(&s->gate);
    int r = s->temporary ? remove_image(s) : 0;
    if (r < 0)
        rbd_fail(&s->head, r, err, "\"%s\", the image that was not finished, is left behind",
                 s->temporary);
    free(TAKE(s->temporary));
    pthread_rwlock_unlock(&s->gate);
    return r;
}

static struct timespec in_seconds(int seconds)
{
    struct timespec ret;
    clock_gettime(CLOCK_REALTIME, &ret);
    ret.tv_sec += seconds;
    return ret;
}

/* A signal ends the program. Nothing begins any more, and what is under way ends, but for what the
 * thread waits for that stands still: the cluster has its answer all the same. */
static void undo(struct unfinished *u)
{
    struct rbd_stream *s = container_of(u, struct rbd_stream, unfinished);
    struct timespec until = in_seconds(PATIENCE_S);
    s->gone = true;
    rbd_hurry(s->cluster, true);
    if (pthread_mutex_timedlock(&s->whole, &until) != 0)
        return; /* nor would the cluster remove anything now */
    until = in_seconds(PATIENCE_WRITE_S);
    pthread_rwlock_timedwrlock(&s->gate, &until);
    if (s->temporary)
        remove_image(s);
}

int rbd_create_open(struct rbd_stream *s, const struct option_values *keys,
                    struct platter_error *err)
{
    const char *name = options_string(keys, "image_name");
    if (!name || options_given(keys, "image_id"))
        return fail(err, EINVAL, "%s: a new image needs an image_name, and its id is the cluster's",
                    s->head.name);
    s->unfinished.undo = undo;
    s->target = string_copy(name);
    int r = s->target ? check_free(s, err) : fail_memory(err, "a name");
    if (r == 0)
        r = unfinished_add(&s->unfinished, err);
    if (r == 0)
        r = rbd_alone(s, create, keys, err);
    s->head.writable = true;
    return r;
}

/* ---- names ----------------------------------------------------------------------------------- */

static int give_name(struct rbd_stream *s, const void *arg, struct platter_error *err)
{
    (void)arg;
    pthread_rwlock_wrlock(&s->gate);
    int r = rbd_set_size(s, s->size, s->size, err);
    if (r == 0 && (r = librbd.flush(s->image)) < 0)
        r = rbd_fail(&s->head, r, err, "what was written cannot be made durable");
    if (r == 0 && (r = librbd.rename(s->pool, s->temporary, s->target)) < 0)
        r = r == -EEXIST
                ? fail(err, EEXIST, "%s: somebody else has made one of that name meanwhile",
                       s->head.name)
                : rbd_fail(&s->head, r, err, "the new image cannot have its name");
    if (r == 0)
        free(TAKE(s->temporary));
    pthread_rwlock_unlock(&s->gate);
    return r;
}

int rbd_publish(struct stream *base, bool durable, struct platter_error *err)
{
    struct rbd_stream *s = rbd_of(base);
    if (!s->temporary)
        return durable ? stream_flush(base, err) : 0;
    int r = rbd_alone(s, give_name, NULL, err);
    if (r == 0)
        unfinished_remove(&s->unfinished);
    return r;
}

/* Nothing was replaced, so nothing comes back. */
int rbd_withdraw(struct stream *base, bool back, struct platter_error *err)
{
    struct rbd_stream *s = rbd_of(base);
    (void)back, (void)err;
    if (s->target && !s->temporary)
        s->temporary = string_copy(s->target);
    return 0;
}

int rbd_give_up(struct stream *base, struct platter_error *err)
{
    struct rbd_stream *s = rbd_of(base);
    return s->temporary ? rbd_alone(s, give_up, NULL, err) : 0;
}

void rbd_create_done(struct rbd_stream *s)
{
    rbd_give_up(&s->head, NULL);
    unfinished_remove(&s->unfinished);
    free(TAKE(s->target));
}

/* ---- removing -------------------------------------------------------------------------------- */

int rbd_place_remove(const struct place *p, struct platter_error *err)
{
    struct stream *pool;
    int r = rbd_open_pool(p, &pool, err);
    if (r < 0)
        return r;
    r = librbd.remove(rbd_of(pool)->pool, options_string(p->keys, "image_name"));
    if (r == -ENOENT)
        r = fail(err, ENOENT, "%s: the pool has no such image", pool->name);
    else if (r == -EBUSY)
        r = fail(err, EBUSY, "%s: is open somewhere, so it cannot be removed", pool->name);
    else if (r == -ENOTEMPTY)
        r = fail(err, ENOTEMPTY, "%s: has snapshots, so it cannot be removed (rbd snap purge)",
                 pool->name);
    else if (r < 0)
        r = rbd_fail(pool, r, err, "the image cannot be removed");
    stream_close(pool);
    return r;
}
