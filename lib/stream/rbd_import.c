/* SPDX-License-Identifier: MIT */
/*
 * Images that Ceph brings to itself: `rbd migration` from what is no image of the cluster
 * (source-spec.md section 1). Who may have that is judged elsewhere (ops/migrate_native.c): here it
 * is done, and told in our words.
 *
 * Nothing here opens an image whose source may be gone more often than it must: librbd, which opens
 * the source with it, sometimes dies of that (16.2).
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/ckd.h"
#include "base/library.h"
#include "base/memory.h"
#include "base/signals.h"
#include "stream/rbd.h"

enum { TELL_MS = 100 };

/* ---- the library ----------------------------------------------------------------------------- */

/* Apart from those of all images: older versions do not have them. */
#define IMPORT_FUNCTIONS(F)                                                                        \
    F(rbd, migration_prepare_import)                                                               \
    F(rbd, migration_execute_with_progress)                                                        \
    F(rbd, migration_commit)                                                                       \
    F(rbd, migration_abort)                                                                        \
    F(rbd, migration_status)                                                                       \
    F(rbd, migration_status_cleanup)                                                               \
    F(rbd, get_migration_source_spec)

static struct {
    IMPORT_FUNCTIONS(RBD_MEMBER)
} import;

#define SYMBOL(library, name) {#library "_" #name, &import.name},
static const struct library_symbol symbols[] = {IMPORT_FUNCTIONS(SYMBOL){0}};
static struct library library = {"librbd.so.1", "rbd", symbols, false};

/* The stream of a place's pool, for what is done with the image by its name. */
static int open_pool(const struct place *p, struct stream **ret, struct platter_error *err)
{
    int r = rbd_open_pool(p, ret, err);
    if (r < 0)
        return r;
    if ((r = library_load(&library, err)) < 0)
        stream_close(TAKE(*ret));
    return r;
}

/* ---- prepare --------------------------------------------------------------------------------- */

static int fail_prepare(const struct stream *s, int r, struct platter_error *err)
{
    switch (-r) {
    case EEXIST:
        return fail(err, EEXIST,
                    "%s: exists already: remove it first (rbd rm), or take another "
                    "name",
                    s->name);
    case ENOSYS:
        return fail(err, ENOTSUP,
                    "%s: this version of Ceph's library does not know sources of that kind: "
                    "migrate it without its help",
                    s->name);
    case EIO:
        return fail(err, EIO,
                    "%s: Ceph cannot read the source: of web servers it wants ranges, and it "
                    "follows no redirects",
                    s->name);
    case EACCES:
        return fail(err, EACCES,
                    "%s: the source's server does not let Ceph in: to S3 it signs by version 2, "
                    "which many servers do not take",
                    s->name);
    }
    return rbd_fail(s, r, err, "Ceph cannot begin to bring the source here");
}

struct prepare {
    const struct place *place;
    const char *spec;
};

static int prepare_alone(struct rbd_stream *s, const void *arg, struct platter_error *err)
{
    const struct prepare *p = arg;
    const struct option_values *keys = p->place->keys;
    rbd_image_options_t options;
    librbd.image_options_create(&options);
    int r = rbd_set_options(s, options, keys, err);
    if (r == 0) {
        r = import.migration_prepare_import(p->spec, s->pool, options_string(keys, "image_name"),
                                            options);
        r = r < 0 ? fail_prepare(&s->head, r, err) : 0;
    }
    librbd.image_options_destroy(options);
    return r;
}

static int import_prepare(const struct place *place, const char *spec, struct platter_error *err)
{
    const struct prepare p = {place, spec};
    struct stream *s;
    int r = open_pool(place, &s, err);
    if (r < 0)
        return r;
    r = rbd_alone(rbd_of(s), prepare_alone, &p, err);
    stream_close(s);
    return r;
}

/* ---- execute --------------------------------------------------------------------------------- */

/*
 * A copy that runs. librbd calls back to tell how far it is, but goes on whatever the answer is. So
 * a thread of its own waits for it. Who had enough leaves that alone, with all that it uses, which
 * is never closed then: by when the copy ends the process may be about to.
 */
struct run {
    struct run *next; /* of those of the process; under runs_lock */
    struct stream *s;
    char *name;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t done, total; /* objects, as librbd counts */
    bool ended, left;
    int result;
};

static pthread_mutex_t runs_lock = PTHREAD_MUTEX_INITIALIZER;
static struct run *runs;

static void run_leave(const struct run *run)
{
    WITH_LOCK(&runs_lock);
    struct run **link = &runs;
    while (*link && *link != run)
        link = &(*link)->next;
    if (*link)
        *link = run->next;
}

/* Of one whose thread has ended, or never began. */
static void run_free(struct run *run)
{
    run_leave(run);
    stream_close(run->s);
    pthread_mutex_destroy(&run->lock);
    pthread_cond_destroy(&run->changed);
    free(run->name);
    free(run);
}

static bool same_target(const struct run *a, const struct run *b)
{
    const struct rbd_stream *x = rbd_of(a->s), *y = rbd_of(b->s);
    return strcmp(a->name, b->name) == 0 && strcmp(x->cluster->id, y->cluster->id) == 0 &&
           librados.ioctx_get_id(x->pool) == librados.ioctx_get_id(y->pool) &&
           strcmp(x->space ? x->space : "", y->space ? y->space : "") == 0;
}

/* Adds it to those of the process, which has only one of each. */
static int run_enter(struct run *run, struct platter_error *err)
{
    WITH_LOCK(&runs_lock);
    for (const struct run *r = runs; r; r = r->next)
        if (same_target(r, run))
            return fail(err, EALREADY, "%s: this process copies it already", run->s->name);
    run->next = runs;
    runs = run;
    return 0;
}

static int run_tell(uint64_t done, uint64_t total, void *arg)
{
    struct run *run = arg;
    WITH_LOCK(&run->lock);
    run->done = done;
    run->total = total;
    return 0;
}

static void *run_main(void *arg)
{
    struct run *run = arg;
    int r = import.migration_execute_with_progress(rbd_of(run->s)->pool, run->name, run_tell, run);
    pthread_mutex_lock(&run->lock);
    run->result = r;
    run->ended = true;
    bool left = run->left;
    pthread_cond_broadcast(&run->changed);
    pthread_mutex_unlock(&run->lock);
    if (left)
        run_leave(run);
    return NULL;
}

/* Takes the stream, on failure as well. */
static int run_new(struct stream *s, const char *name, struct run **ret, struct platter_error *err)
{
    struct run *run = calloc(1, sizeof *run);
    if (!run) {
        stream_close(s);
        return fail_memory(err, "a copy");
    }
    run->s = s;
    pthread_mutex_init(&run->lock, NULL);
    pthread_cond_init(&run->changed, NULL);
    run->name = string_copy(name);
    int r = run->name ? run_enter(run, err) : fail_memory(err, "a copy");
    int code = r == 0 ? thread_start(&run->thread, run_main, run) : 0;
    if (code)
        r = fail_errno(err, code, "cannot start a thread");
    if (r < 0)
        run_free(run);
    else
        *ret = run;
    return r;
}

/* Whether it has ended, after a little while; else how far it is. */
static bool run_wait(struct run *run, uint64_t size, struct platter_progress *now)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += TELL_MS * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    WITH_LOCK(&run->lock);
    if (!run->ended)
        pthread_cond_timedwait(&run->changed, &run->lock, &until);
    uint64_t done = min_u64(run->done, run->total);
    now->total = size;
    now->done = run->total ? (uint64_t)((double)size * ((double)done / (double)run->total)) : 0;
    now->done = min_u64(now->done, size);
    now->moved = now->done;
    return run->ended;
}

static int fail_execute(const struct stream *s, int r, struct platter_error *err)
{
    switch (-r) {
    case ENOENT:
        return fail(err, ENOENT, "%s: there is no such image, or what it is migrated from is gone",
                    s->name);
    case EINVAL:
        return fail(err, EINVAL,
                    "%s: Ceph does not go on with this migration: is it one (rbd status), and not "
                    "executed already",
                    s->name);
    case ERANGE:
        return fail(err, EIO,
                    "%s: Ceph cannot read all of the source: it became shorter, or holds what Ceph "
                    "does not know; abort it, and migrate it without Ceph's help",
                    s->name);
    }
    return rbd_fail(s, r, err, "Ceph could not bring all of the source here");
}

/* False: it has ended all the same. */
static bool run_abandon(struct run *run)
{
    WITH_LOCK(&run->lock);
    run->left = !run->ended;
    if (run->left)
        pthread_detach(run->thread);
    return run->left;
}

static int run_watch(struct run *run, uint64_t size, platter_progress_fn progress, void *opaque,
                     struct platter_error *err)
{
    struct platter_progress now = {.size = sizeof now};
    while (!run_wait(run, size, &now))
        if (progress && progress(opaque, &now) != 0 && run_abandon(run))
            return fail(err, ECANCELED,
                        "%s: cancelled; Ceph cannot be stopped, and copies until this process ends",
                        run->s->name);
    pthread_join(run->thread, NULL);
    int r = run->result < 0 ? fail_execute(run->s, run->result, err) : 0;
    now.done = now.moved = now.total = size;
    if (r == 0 && progress)
        progress(opaque, &now);
    run_free(run);
    return r;
}

static int import_execute(const struct place *p, platter_progress_fn progress, void *opaque,
                          struct platter_error *err)
{
    struct place_import before;
    struct run *run = NULL;
    struct stream *s;
    int r = rbd_import_ops.status(p, &before, err);
    if (r < 0)
        return r;
    uint64_t size = before.size;
    bool executed = strcmp(before.state, "executed") == 0;
    if (before.why)
        r = fail(err, EIO, "%s: %s", p->name, before.why);
    place_import_done(&before);
    if (r < 0 || executed)
        return r;
    r = open_pool(p, &s, err);
    if (r == 0)
        r = run_new(s, options_string(p->keys, "image_name"), &run, err);
    return r < 0 ? r : run_watch(run, size, progress, opaque, err);
}

/* ---- the end --------------------------------------------------------------------------------- */

static int fail_end(const struct stream *s, int r, const char *what, struct platter_error *err)
{
    if (r == -EBUSY)
        return fail(err, EBUSY, "%s: a client has the image open: end that first", s->name);
    if (r == -ENOENT)
        return fail(err, ENOENT, "%s: the pool has no such image", s->name);
    return rbd_fail(s, r, err, "the migration cannot be %s", what);
}

static int commit_alone(struct rbd_stream *s, const void *name, struct platter_error *err)
{
    int r = import.migration_commit(s->pool, name);
    if (r == -EINVAL)
        return fail(err, EAGAIN, "%s: is not all here yet: execute the migration first",
                    s->head.name);
    return r < 0 ? fail_end(&s->head, r, "committed", err) : 0;
}

static int abort_alone(struct rbd_stream *s, const void *name, struct platter_error *err)
{
    int r = import.migration_abort(s->pool, name);
    return r < 0 ? fail_end(&s->head, r, "aborted", err) : 0;
}

static int end(const struct place *p,
               int (*call)(struct rbd_stream *s, const void *arg, struct platter_error *err),
               struct platter_error *err)
{
    struct stream *s;
    int r = open_pool(p, &s, err);
    if (r < 0)
        return r;
    r = rbd_alone(rbd_of(s), call, options_string(p->keys, "image_name"), err);
    stream_close(s);
    return r;
}

static int import_commit(const struct place *p, struct platter_error *err)
{
    return end(p, commit_alone, err);
}

static int import_abort(const struct place *p, struct platter_error *err)
{
    return end(p, abort_alone, err);
}

/* ---- status ---------------------------------------------------------------------------------- */

/* What only an open image tells; where it cannot be opened, nothing. */
static void look_inside(struct rbd_stream *s, const char *name, struct place_import *ret)
{
    rbd_image_t image;
    size_t room = 4096;
    int r = librbd.open_read_only(s->pool, name, &image, NULL);
    if (r < 0)
        return;
    if (librbd.get_size(image, &ret->size) < 0)
        ret->size = 0;
    do {
        free(ret->source);
        ret->source = calloc(1, room + 1);
        r = ret->source ? import.get_migration_source_spec(image, ret->source, &room) : -ENOMEM;
    } while (r == -ERANGE && room < 1 << 20);
    if (r < 0)
        free(TAKE(ret->source));
    librbd.close(image);
}

static void take_status(const rbd_image_migration_status_t *status, struct place_import *ret)
{
    const char *words = status->state_description;
    switch (status->state) {
    case RBD_IMAGE_MIGRATION_STATE_PREPARED:
        ret->state = "prepared";
        return;
    case RBD_IMAGE_MIGRATION_STATE_EXECUTING:
        ret->state = "executing"; /* and "95% complete" */
        ret->percent = words ? (unsigned)min_u64(strtoul(words, NULL, 10), 100) : 0;
        return;
    case RBD_IMAGE_MIGRATION_STATE_EXECUTED:
        ret->state = "executed";
        ret->percent = 100;
        return;
    default:
        ret->state = "failed"; /* half prepared, half aborted, or an error */
        ret->why = string_format("Ceph's state %d: %s", (int)status->state, words ? words : "");
    }
}

struct asking {
    const char *name;
    struct place_import *ret;
};

static int status_alone(struct rbd_stream *s, const void *arg, struct platter_error *err)
{
    const struct asking *a = arg;
    rbd_image_migration_status_t status = {0};
    auto_free char *object = string_format("rbd_id.%s", a->name);
    uint64_t size;
    time_t when;
    if (!object)
        return fail_memory(err, "a name");
    int r = librados.stat(s->pool, object, &size, &when);
    if (r == -ENOENT)
        return fail(err, ENOENT, "%s: the pool has no such image", s->head.name);
    r = import.migration_status(s->pool, a->name, &status, sizeof status);
    if (r == -EINVAL)
        return fail(err, ENOENT, "%s: is not being migrated", s->head.name);
    if (r == -ETIMEDOUT || r == -EPERM || r == -ESHUTDOWN)
        return rbd_fail(&s->head, r, err, "whether the image is migrated cannot be told");
    if (r < 0) { /* the image could not be opened, which takes the source */
        a->ret->state = "failed";
        a->ret->why = string_format("the image, or what it is migrated from, cannot be opened: %s",
                                    strerror(-r));
        return a->ret->why ? 0 : fail_memory(err, "a sentence");
    }
    bool inside = status.source_pool_id >= 0;
    take_status(&status, a->ret);
    import.migration_status_cleanup(&status);
    if (inside)
        return fail(err, ENOTSUP,
                    "%s: is migrated from another image of the cluster, which its own commands are "
                    "for (rbd migration)",
                    s->head.name);
    look_inside(s, a->name, a->ret);
    return 0;
}

static int import_status(const struct place *p, struct place_import *ret, struct platter_error *err)
{
    const struct asking a = {options_string(p->keys, "image_name"), ret};
    struct stream *s;
    *ret = (struct place_import){0};
    int r = open_pool(p, &s, err);
    if (r < 0)
        return r;
    r = rbd_alone(rbd_of(s), status_alone, &a, err);
    stream_close(s);
    if (r < 0)
        place_import_done(ret);
    return r;
}

const struct place_import_ops rbd_import_ops = {
    .prepare = import_prepare,
    .execute = import_execute,
    .commit = import_commit,
    .abort = import_abort,
    .status = import_status,
};
