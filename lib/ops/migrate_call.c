/* SPDX-License-Identifier: MIT */
/*
 * The caller's side of control (migrate_control.h). Whoever waits for an answer asks his progress
 * callback meanwhile, whether the owner has anything to say or not: so that a signal is noticed
 * also where the owner hangs.
 */
#include <inttypes.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/awake.h"
#include "base/memory.h"
#include "ops/migrate_control.h"

enum {
    LOOK_MS = 100,          /* between two looks whether to go on */
    STATUS_MS = 60 * 1000,  /* that an owner may take */
    COMMIT_MS = 600 * 1000, /* ... where much has to become durable */
};

struct call {
    int fd;
    const char *target;
    struct line_reader reader;
    platter_progress_fn progress;
    void *opaque;
    struct platter_progress now;
    bool canceled;
    uint64_t until; /* now_ns() when it took too long; UINT64_MAX: it may */
};

/* Whether the caller has had enough. The owner sees no more come then, and ends what it does. */
static void call_tick(struct call *c)
{
    if (c->canceled || !c->progress || c->progress(c->opaque, &c->now) == 0)
        return;
    c->canceled = true;
    c->until = now_ns() + (uint64_t)CONTROL_PATIENCE * 1000000;
    shutdown(c->fd, SHUT_WR);
}

static uint64_t count_of(const json_t *line, const char *key)
{
    json_int_t n = json_integer_value(json_object_get(line, key));
    return n < 0 ? 0 : (uint64_t)n;
}

static void take_progress(struct call *c, const json_t *line)
{
    c->now.total = count_of(line, "total");
    c->now.done = count_of(line, "done");
    c->now.moved = count_of(line, "moved");
    if (c->now.done > c->now.total)
        c->now.done = c->now.total;
}

/* What the owner answers in the end, a new reference. */
static int wait_for_answer(struct call *c, json_t **ret, struct platter_error *err)
{
    for (;;) {
        json_t *line = NULL;
        int r = line_read(&c->reader, LOOK_MS, &line);
        if (r == 0 && !json_object_get(line, "ok") && !json_object_get(line, "code")) {
            take_progress(c, line);
            json_decref(line);
        } else if (r == 0) {
            *ret = line;
            return 0;
        }
        if (r == -ECONNRESET)
            return fail(err, ECONNRESET, "%s: the process that had it open has ended", c->target);
        if (r < 0 && r != -ETIMEDOUT)
            return fail_errno(err, -r, "%s: the answer of the process that has it open", c->target);
        call_tick(c);
        if (now_ns() > c->until)
            return fail(err, ETIMEDOUT, "%s: the process that has it open does not answer",
                        c->target);
    }
}

/* What an answer says, as if it had happened here. */
static int take_answer(const struct call *c, const json_t *answer, json_t **ret_answer,
                       struct platter_error *err)
{
    const char *message = json_string_value(json_object_get(answer, "message"));
    uint64_t code = count_of(answer, "code");
    if (json_object_get(answer, "closing"))
        return fail(err, ECONNRESET, "%s: the process that had it open has ended", c->target);
    if (!json_object_get(answer, "ok"))
        return fail(err, code > 0 && code < INT32_MAX ? (int)code : EPROTO, "%s",
                    message ? message : "the process that has the migration open failed");
    if (ret_answer)
        *ret_answer = json_incref(json_object_get(answer, "status"));
    return 0;
}

static uint64_t patience_for(const char *verb)
{
    if (strcmp(verb, "execute") == 0)
        return UINT64_MAX;
    return now_ns() + (strcmp(verb, "commit") == 0 ? COMMIT_MS : STATUS_MS) * UINT64_C(1000000);
}

int control_call(const struct migrate_state *state, const char *target, json_t *request,
                 platter_progress_fn progress, void *opaque, json_t **ret_answer,
                 struct platter_error *err)
{
    struct call c = {.fd = -1,
                     .target = target,
                     .progress = progress,
                     .opaque = opaque,
                     .now = {.size = sizeof c.now, .total = state->size},
                     .until = patience_for(json_string_value(json_object_get(request, "do")))};
    json_t *answer = NULL;
    if (ret_answer)
        *ret_answer = NULL;
    int r = socket_connect(state, target, &c.fd, err);
    if (r < 0) {
        json_decref(request);
        return r;
    }
    c.reader = (struct line_reader){.fd = c.fd, .most = CONTROL_MOST_ANSWER};
    json_object_set_new(request, "id", json_string(state->id));
    /* Who is turned away is answered before all was sent. */
    r = line_send(c.fd, request, 0);
    if (r < 0 && r != -EPIPE)
        r = fail_errno(err, -r, "%s: the process that has it open cannot be asked", target);
    else
        r = wait_for_answer(&c, &answer, err);
    if (r == 0)
        r = take_answer(&c, answer, ret_answer, err);
    if (r < 0 && c.canceled)
        r = fail(err, ECANCELED, "%s: canceled", target);
    json_decref(answer);
    line_reader_free(&c.reader);
    close(c.fd);
    return r;
}
