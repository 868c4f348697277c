/* SPDX-License-Identifier: MIT */
/*
 * The owner's side of control (migrate_control.h). One thread waits for callers, for those who
 * leave while the copy they asked for runs, and for the end; each caller has a thread, which does
 * what was asked. Those that have ended are joined before the next one comes, so that none is left
 * when control_close() returns.
 */
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/awake.h"
#include "base/memory.h"
#include "base/signals.h"
#include "ops/migrate_control.h"

enum {
    MOST_CALLERS = 16,
    TELL_NS = 500 * 1000 * 1000, /* between two lines of progress */
    END_MS = 100                 /* between two tries to end a copy */
};

/* One of those who are served; under the lock of the control, but for what its thread alone has. */
struct caller {
    struct control *control;
    pthread_t thread;
    int fd;
    enum { CALLER_NONE, CALLER_SERVED, CALLER_DONE } stage;
    bool copying;  /* it is its copy that runs */
    bool left;     /* ... and it was stopped for that the caller is gone */
    uint64_t told; /* when it was told last; its thread's */
};

struct control {
    struct platter_migration *migration;
    char *id; /* of its state, which goes with a commit */
    struct socket_place place;
    int listener, wake; /* wake: something to look at */
    pthread_t thread;
    pthread_mutex_t lock;
    struct caller callers[MOST_CALLERS];
    bool closing, may_yield, yielded, removed;
};

static void control_wake(struct control *c)
{
    eventfd_write(c->wake, 1);
}

static bool is_closing(struct control *c)
{
    WITH_LOCK(&c->lock);
    return c->closing;
}

/* ---- what is asked ---------------------------------------------------------------------------
 */

/* Whether nobody is at the other end any more. */
static bool has_left(int fd)
{
    struct pollfd end = {.fd = fd, .events = POLLRDHUP};
    return poll(&end, 1, 0) > 0 && (end.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

static int caller_tick(void *opaque, const struct platter_progress *now)
{
    struct caller *caller = opaque;
    uint64_t time = now_ns();
    if (!caller->told) {
        WITH_LOCK(&caller->control->lock);
        caller->copying = true;
        control_wake(caller->control);
    }
    if (has_left(caller->fd) || is_closing(caller->control))
        return 1;
    if (caller->told && time - caller->told < TELL_NS)
        return 0;
    caller->told = time;
    /* Who does not read is told less. */
    int r = line_send(caller->fd,
                      json_pack("{s:I, s:I, s:I}", "done", (json_int_t)now->done, "total",
                                (json_int_t)now->total, "moved", (json_int_t)now->moved),
                      MSG_DONTWAIT);
    return r < 0 && r != -EAGAIN;
}

/* A number of the request; one that is not there is 0. */
static int number_of(const json_t *request, const char *key, uint64_t most, uint64_t *ret,
                     struct platter_error *err)
{
    const json_t *value = json_object_get(request, key);
    json_int_t n = json_integer_value(value);
    *ret = (uint64_t)n;
    if ((value && !json_is_integer(value)) || n < 0 || (uint64_t)n > most)
        return fail(err, EINVAL,
                    "\"%s\" of a request to the owner of a migration: a number from "
                    "0 to %" PRIu64 " is expected",
                    key, most);
    return 0;
}

static int do_execute(struct caller *caller, const json_t *request, json_t *answer,
                      struct platter_error *err)
{
    struct control *c = caller->control;
    uint64_t workers = 0, rate = 0;
    int r = number_of(request, "workers", 1024, &workers, err);
    if (r == 0)
        r = number_of(request, "rate", INT64_MAX, &rate, err);
    if (r < 0)
        return r;
    r = migration_execute(c->migration, (unsigned)workers, rate, caller_tick, caller, err);
    {
        WITH_LOCK(&c->lock);
        caller->copying = false;
        if (r == -ECANCELED && c->closing)
            json_object_set_new(answer, "closing", json_true());
    }
    return r;
}

static int do_status(struct caller *caller, const json_t *request, json_t *answer,
                     struct platter_error *err)
{
    json_t *status = NULL;
    (void)request;
    int r = migration_status(caller->control->migration, &status, err);
    return r == 0 && json_object_set_new(answer, "status", status) < 0
               ? fail_memory(err, "a status")
               : r;
}

static int do_commit(struct caller *caller, const json_t *request, json_t *answer,
                     struct platter_error *err)
{
    struct control *c = caller->control;
    (void)request;
    (void)answer;
    int r = migration_commit(c->migration, err);
    if (r < 0)
        return r;
    WITH_LOCK(&c->lock); /* the state is gone, and what belongs to it goes */
    if (!c->removed)
        socket_remove(&c->place);
    c->removed = true;
    return 0;
}

static int do_yield(struct caller *caller, const json_t *request, json_t *answer,
                    struct platter_error *err)
{
    struct control *c = caller->control;
    (void)request;
    (void)answer;
    {
        WITH_LOCK(&c->lock);
        if (!c->may_yield)
            return fail(err, EBUSY, "%s: process %ld has it open, and serves it",
                        c->migration->target, (long)getpid());
        c->yielded = true;
    }
    migration_stop(c->migration);
    return 0;
}

static int do_request(struct caller *caller, const json_t *request, json_t *answer,
                      struct platter_error *err)
{
    static const struct {
        const char *name;
        int (*run)(struct caller *, const json_t *, json_t *, struct platter_error *);
    } verbs[] = {
        {"execute", do_execute}, {"status", do_status}, {"commit", do_commit}, {"yield", do_yield}};
    const struct platter_migration *m = caller->control->migration;
    const char *verb = json_string_value(json_object_get(request, "do"));
    const char *id = json_string_value(json_object_get(request, "id"));
    if (!id || strcmp(id, caller->control->id) != 0)
        return fail(err, ESTALE, "%s: what process %ld has open is another migration", m->target,
                    (long)getpid());
    for (size_t i = 0; verb && i < sizeof verbs / sizeof *verbs; i++)
        if (strcmp(verbs[i].name, verb) == 0)
            return verbs[i].run(caller, request, answer, err);
    return fail(err, ENOTSUP, "the process that has the migration open does not know \"%.40s\"",
                verb ? verb : "");
}

/* ---- callers ---------------------------------------------------------------------------------
 */

static json_t *answer_of(int r, const struct platter_error *err, json_t *answer)
{
    if (r == 0)
        json_object_set_new(answer, "ok", json_true());
    else
        json_object_set_new(answer, "code", json_integer(-r));
    if (r < 0) { /* what stands in it may be a name, and no UTF-8 */
        json_t *text = json_string(err->message);
        json_object_set_new(answer, "message", text ? text : json_string("it failed"));
    }
    return answer;
}

static void *caller_main(void *arg)
{
    struct caller *caller = arg;
    struct control *c = caller->control;
    struct line_reader reader = {.fd = caller->fd, .most = CONTROL_MOST_REQUEST};
    struct platter_error err = {0};
    json_t *request = NULL, *answer = json_object();
    int r = line_read(&reader, CONTROL_PATIENCE, &request);
    if (r < 0)
        fail_errno(&err, -r, "a request to the owner of a migration cannot be read");
    else
        r = do_request(caller, request, answer, &err);
    line_send(caller->fd, answer_of(r, &err, answer), 0);
    shutdown(caller->fd, SHUT_RDWR);
    json_decref(request);
    line_reader_free(&reader);
    WITH_LOCK(&c->lock);
    caller->stage = CALLER_DONE;
    control_wake(c);
    return NULL;
}

static void turn_away(int fd, const char *why)
{
    struct platter_error err = {0};
    int r = fail(&err, EBUSY, "%s", why);
    line_send(fd, answer_of(r, &err, json_object()), MSG_DONTWAIT);
    close(fd);
}

/* Joins those that are through, and finds room for one more; NULL: there is none. Of the thread
 * that waits for callers, as is all below. */
static struct caller *caller_room(struct control *c)
{
    struct caller *room = NULL;
    for (unsigned i = 0; i < MOST_CALLERS; i++) {
        struct caller *caller = &c->callers[i];
        pthread_mutex_lock(&c->lock);
        bool done = caller->stage == CALLER_DONE, none = caller->stage == CALLER_NONE;
        pthread_mutex_unlock(&c->lock);
        if (done) {
            pthread_join(caller->thread, NULL);
            close(caller->fd);
            WITH_LOCK(&c->lock);
            *caller = (struct caller){.control = c, .fd = -1};
        }
        if (done || none)
            room = caller;
    }
    return room;
}

static void caller_accept(struct control *c)
{
    int fd = accept4(c->listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    struct timeval patience = {.tv_sec = CONTROL_PATIENCE / 1000};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    struct caller *caller = caller_room(c);
    if (!socket_peer_may(fd)) {
        close(fd);
        return;
    }
    if (!caller) {
        turn_away(fd, "too many processes ask the owner of the migration: try again");
        return;
    }
    WITH_LOCK(&c->lock);
    caller->fd = fd;
    caller->stage = CALLER_SERVED;
    if (thread_start(&caller->thread, caller_main, caller) == 0)
        return;
    caller->stage = CALLER_NONE;
    turn_away(fd, "the owner of the migration cannot start a thread");
}

/* Those whose copy runs, to be told when they leave. How many entries there are. */
static unsigned callers_watched(struct control *c, struct pollfd *fds, struct caller **of)
{
    unsigned n = 0;
    WITH_LOCK(&c->lock);
    for (unsigned i = 0; i < MOST_CALLERS; i++) {
        struct caller *caller = &c->callers[i];
        if (caller->stage != CALLER_SERVED || !caller->copying || caller->left)
            continue;
        fds[n] = (struct pollfd){.fd = caller->fd, .events = POLLRDHUP};
        of[n++] = caller;
    }
    return n;
}

static void caller_left(struct control *c, struct caller *caller)
{
    bool copying;
    {
        WITH_LOCK(&c->lock);
        caller->left = true;
        copying = caller->copying;
    }
    if (copying)
        migration_stop(c->migration);
}

static void *control_main(void *arg)
{
    struct control *c = arg;
    struct pollfd fds[2 + MOST_CALLERS];
    struct caller *of[MOST_CALLERS];
    while (!is_closing(c)) {
        fds[0] = (struct pollfd){.fd = c->wake, .events = POLLIN};
        fds[1] = (struct pollfd){.fd = c->listener, .events = POLLIN};
        unsigned n = callers_watched(c, fds + 2, of);
        eventfd_t count;
        if (poll(fds, 2 + n, -1) < 0)
            continue;
        if (fds[0].revents)
            eventfd_read(c->wake, &count);
        for (unsigned i = 0; i < n; i++)
            if (fds[2 + i].revents)
                caller_left(c, of[i]);
        if (fds[1].revents)
            caller_accept(c);
        else
            caller_room(c);
    }
    return NULL;
}

/* ---- the owner -------------------------------------------------------------------------------
 */

int control_open(struct platter_migration *m, struct control **ret, struct platter_error *err)
{
    struct control *c = calloc(1, sizeof *c);
    if (!c)
        return fail_memory(err, "what other processes reach a migration by");
    *c = (struct control){.migration = m, .place.folder = -1, .listener = -1};
    pthread_mutex_init(&c->lock, NULL);
    for (unsigned i = 0; i < MOST_CALLERS; i++)
        c->callers[i] = (struct caller){.control = c, .fd = -1};
    c->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    c->id = string_copy(m->state.id);
    int r = !c->id        ? fail_memory(err, "a name")
            : c->wake < 0 ? fail_errno(err, errno, "cannot make an event")
                          : socket_listen(&m->state, &c->place, &c->listener, err);
    int code = r == 0 ? thread_start(&c->thread, control_main, c) : 0;
    if (code)
        r = fail_errno(err, code, "cannot start a thread");
    if (r == 0) {
        *ret = c;
        return 0;
    }
    socket_remove(&c->place);
    if (c->listener >= 0)
        close(c->listener);
    if (c->wake >= 0)
        close(c->wake);
    pthread_mutex_destroy(&c->lock);
    free(c->id);
    free(c);
    return r;
}

/* Ends what callers wait for; whether any of them is still at work. */
static bool callers_hurry(struct control *c)
{
    bool any = false, copying = false;
    {
        WITH_LOCK(&c->lock);
        for (unsigned i = 0; i < MOST_CALLERS; i++) {
            if (c->callers[i].stage != CALLER_SERVED)
                continue;
            any = true;
            copying |= c->callers[i].copying;
            shutdown(c->callers[i].fd, SHUT_RD);
        }
    }
    if (copying)
        migration_stop(c->migration);
    return any;
}

void control_close(struct control *c)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    c->closing = true;
    if (!c->removed)
        socket_remove(&c->place);
    pthread_mutex_unlock(&c->lock);
    control_wake(c);
    pthread_join(c->thread, NULL);
    struct pollfd ended = {.fd = c->wake, .events = POLLIN};
    eventfd_t count;
    while (callers_hurry(c))
        if (poll(&ended, 1, END_MS) > 0)
            eventfd_read(c->wake, &count);
    caller_room(c);
    close(c->listener);
    close(c->wake);
    pthread_mutex_destroy(&c->lock);
    free(c->id);
    free(c);
}

void control_may_yield(struct control *c)
{
    WITH_LOCK(&c->lock);
    c->may_yield = true;
}

bool control_yielded(struct control *c)
{
    WITH_LOCK(&c->lock);
    return c->yielded;
}
