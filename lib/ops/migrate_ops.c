/* SPDX-License-Identifier: MIT */
/*
 * The verbs by the name of a target. Each asks the owner first, for that takes no lock and opens no
 * source; where nobody listens this process becomes the owner for as long as it takes. Between the
 * two somebody else may, so both are tried again for a while.
 *
 * Who only copies gives way to a server: it ends its copy, lets go of the target, and has the new
 * owner go on with it.
 */
#include <poll.h>

#include "base/awake.h"
#include "ops/migrate_control.h"
#include "ops/migrate_native.h"

enum {
    PAUSE_MS = 50,          /* between two tries */
    PATIENCE_MS = 5 * 1000, /* while an owner is about to listen, or has just ended */
    YIELD_MS = 60 * 1000    /* until who gives way has made all durable */
};

static uint64_t in_ms(int milliseconds)
{
    return now_ns() + (uint64_t)milliseconds * 1000000;
}

/* Asks the owner (takes the request). ENOTCONN: there is none; ECONNRESET: not any more. */
static int ask(const char *target, const struct platter_migrate_options *options, json_t *request,
               platter_progress_fn progress, void *opaque, json_t **ret_answer,
               struct platter_error *err)
{
    struct migrate_state state = {0};
    int r = migrate_state_open(target, options->state, options->target_place, false, &state, err);
    if (r < 0)
        json_decref(request);
    else
        r = control_call(&state, target, request, progress, opaque, ret_answer, err);
    migrate_state_close(&state);
    return r;
}

static bool is_gone(int r)
{
    return r == -ENOTCONN || r == -ECONNRESET;
}

/* ---- open ------------------------------------------------------------------------------------ */

static int open_owned(const char *target, const struct platter_migrate_options *options,
                      struct platter_migration **ret, struct platter_error *err)
{
    uint64_t until = in_ms(PATIENCE_MS);
    bool yields = false;
    for (;;) {
        int r = migration_open(target, options, ret, err);
        if (r != -EBUSY || now_ns() > until)
            return r;
        int asked = ask(target, options, json_pack("{s:s}", "do", "yield"), NULL, NULL, NULL, NULL);
        if (asked == 0 && !yields)
            until = in_ms(YIELD_MS);
        if (asked < 0 && !is_gone(asked))
            return r;
        yields |= asked == 0;
        poll(NULL, 0, PAUSE_MS);
    }
}

/* ---- execute --------------------------------------------------------------------------------- */

struct execution {
    const char *target;
    const struct platter_migrate_options *options;
    struct platter_migration *here; /* that this process owns, or NULL */
    bool moved;                     /* something was copied since this was false */
    bool canceled;                  /* by the caller */
    bool yielded;                   /* ... by a new owner */
    uint64_t until;                 /* when to give up */
    struct platter_progress last;   /* that was told */
};

static int execution_tick(void *opaque, const struct platter_progress *now)
{
    struct execution *e = opaque;
    const struct platter_migrate_options *o = e->options;
    e->moved |= now->done > e->last.done;
    e->last = *now;
    if (e->here && control_yielded(e->here->control))
        return 1;
    e->canceled |= o->progress && o->progress(o->opaque, now) != 0;
    return e->canceled;
}

static int execute_there(struct execution *e, struct platter_error *err)
{
    json_t *request =
        json_pack("{s:s, s:I, s:I}", "do", "execute", "workers", (json_int_t)e->options->workers,
                  "rate", (json_int_t)e->options->rate);
    return ask(e->target, e->options, request, execution_tick, e, NULL, err);
}

static int execute_here(struct execution *e, struct platter_error *err)
{
    struct platter_error closing = {0};
    int r = migration_open(e->target, e->options, &e->here, err);
    if (r < 0)
        return r;
    control_may_yield(e->here->control);
    r = migration_execute(e->here, e->options->workers, e->options->rate, execution_tick, e, err);
    e->yielded = r == -ECANCELED && !e->canceled && control_yielded(e->here->control);
    int closed = migration_close(TAKE(e->here), &closing);
    if (closed < 0 && (r == 0 || e->yielded)) {
        e->yielded = false;
        r = fail(err, -closed, "%s", closing.message);
    }
    return r;
}

/* Whether to try again, after a pause. */
static bool execution_goes_on(struct execution *e, int r)
{
    bool gone = is_gone(r) || r == -EBUSY || e->yielded;
    if (e->moved || e->yielded)
        e->until = in_ms(YIELD_MS);
    e->moved = false;
    if (!gone || e->canceled || now_ns() > e->until)
        return false;
    poll(NULL, 0, PAUSE_MS);
    return execution_tick(e, &e->last) == 0;
}

static int execute_owned(const char *target, const struct platter_migrate_options *options,
                         struct platter_error *err)
{
    struct execution e = {.target = target,
                          .options = options,
                          .until = in_ms(PATIENCE_MS),
                          .last = {.size = sizeof e.last, .total = 1}};
    uint64_t leave_until = 0; /* to who asked for it */
    int r;
    do {
        e.yielded = false;
        r = execute_there(&e, err);
        if (r == -ENOTCONN && now_ns() > leave_until)
            r = execute_here(&e, err);
        if (e.yielded)
            leave_until = in_ms(PATIENCE_MS);
    } while (execution_goes_on(&e, r));
    return e.canceled ? fail(err, ECANCELED, "%s: canceled", target) : r;
}

/* ---- status and commit ----------------------------------------------------------------------- */

/* Without an owner: what there is to see. */
static int status_here(const char *target, const struct platter_migrate_options *options,
                       json_t **ret, struct platter_error *err)
{
    struct platter_migration *m = NULL;
    int r = migration_look(target, options, &m, err);
    if (r < 0)
        return r;
    r = migration_status(m, ret, err);
    migration_close(m, NULL);
    return r;
}

static int status_owned(const char *target, const struct platter_migrate_options *options,
                        json_t **ret, struct platter_error *err)
{
    json_t *status = NULL;
    int r = ask(target, options, json_pack("{s:s}", "do", "status"), NULL, NULL, &status, err);
    if (is_gone(r))
        return status_here(target, options, ret, err);
    if (r == 0 && !json_is_object(status))
        r = fail(err, EPROTO, "%s: the process that has it open tells nothing of it", target);
    if (r == 0)
        *ret = json_incref(status);
    json_decref(status);
    return r;
}

/* As the owner. */
static int commit_here(const char *target, const struct platter_migrate_options *options,
                       struct platter_error *err)
{
    struct platter_migration *m = NULL;
    int r = migration_finish(target, options, err);
    if (r != 0)
        return r < 0 ? r : 0;
    r = migration_open(target, options, &m, err);
    if (r < 0)
        return r;
    r = migration_commit(m, err);
    int closed = migration_close(m, r < 0 ? NULL : err);
    return r < 0 ? r : closed;
}

static int commit_owned(const char *target, const struct platter_migrate_options *options,
                        struct platter_error *err)
{
    uint64_t until = in_ms(PATIENCE_MS);
    for (;;) {
        int r = ask(target, options, json_pack("{s:s}", "do", "commit"), NULL, NULL, NULL, err);
        if (r == -ENOTCONN)
            r = commit_here(target, options, err);
        if ((r != -EBUSY && !is_gone(r)) || now_ns() > until)
            return r;
        poll(NULL, 0, PAUSE_MS);
    }
}

/* ---- the public functions ---------------------------------------------------------------------
 */

/* What Ceph migrates by itself has no owner: everybody asks Ceph. */

int ops_migrate_open(const char *target, const struct platter_migrate_options *options,
                     struct platter_migration **ret, struct platter_error *err)
{
    struct place native;
    int r = migrate_native_find(target, options, &native, err);
    if (r == 0)
        return open_owned(target, options, ret, err);
    if (r > 0) {
        r = migrate_native_refuse_owner(&native, err);
        place_done(&native);
    }
    return r;
}

int ops_migrate_close(struct platter_migration *m, struct platter_error *err)
{
    return migration_close(m, err);
}

int ops_migrate_execute(const char *target, const struct platter_migrate_options *options,
                        struct platter_error *err)
{
    struct place native;
    int r = migrate_native_find(target, options, &native, err);
    if (r == 0)
        return execute_owned(target, options, err);
    if (r > 0) {
        r = migrate_native_execute(&native, options, err);
        place_done(&native);
    }
    return r;
}

int ops_migrate_status(const char *target, const struct platter_migrate_options *options,
                       json_t **ret, struct platter_error *err)
{
    struct place native;
    int r = migrate_native_find(target, options, &native, err);
    if (r == 0)
        return status_owned(target, options, ret, err);
    if (r > 0) {
        r = migrate_native_status(&native, ret, err);
        place_done(&native);
    }
    return r;
}

int ops_migrate_commit(const char *target, const struct platter_migrate_options *options,
                       struct platter_error *err)
{
    struct place native;
    int r = migrate_native_find(target, options, &native, err);
    if (r == 0)
        return commit_owned(target, options, err);
    if (r > 0) {
        r = migrate_native_commit(&native, err);
        place_done(&native);
    }
    return r;
}
