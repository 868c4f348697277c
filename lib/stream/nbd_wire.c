/* SPDX-License-Identifier: MIT */
/* One connection to an NBD server, and the requests on it: see nbd.h. */
#include "stream/nbd.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/awake.h"
#include "base/library.h"
#include "base/memory.h"

enum {
    LOOK_MS = 100,   /* how long a wait lasts until it looks whether somebody has enough */
    FLUSH_TIMES = 10 /* the timeout: a server may have gigabytes that are not on its disk yet */
};

/* ---- the library ----------------------------------------------------------------------------- */

struct nbd_functions libnbd;

#define NBD_SYMBOL(name) {"nbd_" #name, &libnbd.name},
static const struct library_symbol symbols[] = {NBD_FUNCTIONS(NBD_SYMBOL){0}};

static struct library library = {"libnbd.so.0", "NBD", symbols};

int nbd_load(struct platter_error *err)
{
    return library_load(&library, err);
}

/* What libnbd has to say, without the name of its function. */
static const char *said(void)
{
    const char *text = libnbd.get_error(), *colon = text ? strstr(text, ": ") : NULL;
    if (colon && strncmp(text, "nbd_", 4) == 0)
        text = colon + 2;
    return text && *text ? text : "no reason given";
}

/* ---- failing --------------------------------------------------------------------------------- */

void nbd_wire_note(struct nbd_wire *w, int code, const char *why)
{
    WITH_LOCK(&w->lock);
    if (w->broken)
        return;
    w->broken = code;
    snprintf(w->why, sizeof w->why, "%s", why);
}

/* Cuts the wire. libnbd then sees its end, and gives up all that is under way. */
static void cut(struct nbd_wire *w, int code, const char *why)
{
    nbd_wire_note(w, code, why);
    int fd = libnbd.aio_get_fd(w->h);
    if (fd >= 0)
        shutdown(fd, SHUT_RDWR);
}

static bool is_over(struct nbd_wire *w)
{
    return libnbd.aio_is_dead(w->h) == 1 || libnbd.aio_is_closed(w->h) == 1;
}

static int broken(struct nbd_wire *w)
{
    WITH_LOCK(&w->lock);
    return w->broken;
}

bool nbd_wire_is_broken(struct nbd_wire *w)
{
    return broken(w) || is_over(w);
}

int nbd_wire_fail(struct nbd_wire *w, const char *text, struct platter_error *err)
{
    WITH_LOCK(&w->lock);
    return fail(err, w->broken ? w->broken : ENOTCONN, "%s: %s: %s", w->way->name, text,
                w->broken ? w->why : "the server closed the connection");
}

/* ---- moving bytes ---------------------------------------------------------------------------- */

void nbd_wire_wake(struct nbd_wire *w)
{
    const uint64_t one = 1;
    ssize_t n = write(w->wake, &one, sizeof one);
    (void)n; /* full: it is awake */
}

/* Nothing moved for a while: whether anybody still wants to wait. */
static void look_at_clock(struct nbd_wire *w, uint64_t patience_ns)
{
    char why[120];
    if (atomic_load(w->interrupted)) {
        cut(w, ECANCELED, "cancelled");
    } else if (now_ns() - atomic_load(&w->heard_ns) >= patience_ns) {
        snprintf(why, sizeof why, "the server did not answer for %.3g seconds (timeout)",
                 (double)patience_ns / 1e9);
        cut(w, ETIMEDOUT, why);
    }
}

/* What libnbd wants to be told, of what poll() saw. */
static void notify(struct nbd_wire *w, int events)
{
    unsigned direction = libnbd.aio_get_direction(w->h);
    int r = 0;
    if ((direction & LIBNBD_AIO_DIRECTION_READ) && (events & (POLLIN | POLLHUP | POLLERR)))
        r = libnbd.aio_notify_read(w->h);
    else if ((direction & LIBNBD_AIO_DIRECTION_WRITE) && (events & (POLLOUT | POLLHUP | POLLERR)))
        r = libnbd.aio_notify_write(w->h);
    if (r < 0)
        nbd_wire_note(w, libnbd.get_errno() ? libnbd.get_errno() : ENOTCONN, said());
}

/* One step: waits a moment for the server or for who wakes us, and has libnbd go on. */
static void move(struct nbd_wire *w, uint64_t patience_ns)
{
    unsigned direction = libnbd.aio_get_direction(w->h);
    struct pollfd p[2] = {{.fd = libnbd.aio_get_fd(w->h)}, {.fd = w->wake, .events = POLLIN}};
    if (direction & LIBNBD_AIO_DIRECTION_READ)
        p[0].events |= POLLIN;
    if (direction & LIBNBD_AIO_DIRECTION_WRITE)
        p[0].events |= POLLOUT;
    int n = poll(p, 2, LOOK_MS);
    if (n > 0 && p[1].revents) {
        uint64_t count;
        ssize_t got = read(w->wake, &count, sizeof count);
        (void)got;
    }
    if (n > 0 && p[0].revents) {
        atomic_store(&w->heard_ns, now_ns());
        notify(w, p[0].revents);
    }
    if (n <= 0 || !p[0].revents || atomic_load(w->interrupted))
        look_at_clock(w, patience_ns);
}

/* ---- requests -------------------------------------------------------------------------------- */

void nbd_request_begin(struct nbd_wire *w, struct nbd_request *q)
{
    *q = (struct nbd_request){.wire = w};
    pthread_cond_init(&q->changed, NULL);
    if (atomic_fetch_add(&w->in_flight, 1) == 0)
        atomic_store(&w->heard_ns, now_ns());
}

/* Called by libnbd in whichever thread moves the bytes. */
static int complete(void *opaque, int *error)
{
    struct nbd_request *q = opaque;
    struct nbd_wire *w = q->wire;
    WITH_LOCK(&w->lock);
    q->code = *error;
    q->done = true;
    pthread_cond_signal(&q->changed);
    return 1; /* libnbd may forget it */
}

nbd_completion_callback nbd_request_callback(struct nbd_request *q)
{
    return (nbd_completion_callback){.callback = complete, .user_data = q};
}

static void enlist(struct nbd_wire *w, struct nbd_request *q)
{
    q->prev = w->last;
    *(w->last ? &w->last->next : &w->first) = q;
    w->last = q;
}

static void delist(struct nbd_wire *w, struct nbd_request *q)
{
    *(q->prev ? &q->prev->next : &w->first) = q->next;
    *(q->next ? &q->next->prev : &w->last) = q->prev;
}

/* Of a connection that ended, who moves bytes learns why, and is about to note it. */
static bool is_settled(const struct nbd_wire *w, const struct nbd_request *q)
{
    return q->done && (q->code != ENOTCONN || !w->polled);
}

/* Waits for the answer; the one who finds nobody moving bytes does that meanwhile. */
static void await(struct nbd_wire *w, struct nbd_request *q)
{
    pthread_mutex_lock(&w->lock);
    enlist(w, q);
    if (q->done && !is_settled(w, q))
        nbd_wire_wake(w); /* he may not know yet that it has ended */
    while (!is_settled(w, q)) {
        if (w->polled) {
            pthread_cond_wait(&q->changed, &w->lock);
            continue;
        }
        w->polled = true;
        pthread_mutex_unlock(&w->lock);
        bool over = is_over(w);
        if (!over)
            move(w, w->way->timeout_ns * (atomic_load(&w->flushing) ? FLUSH_TIMES : 1));
        pthread_mutex_lock(&w->lock);
        w->polled = false;
        if (over && !q->done) { /* libnbd has answered all it knew of */
            q->code = ENOTCONN;
            q->done = true;
        }
    }
    delist(w, q);
    if (!w->polled && w->first)
        pthread_cond_signal(&w->first->changed);
    pthread_mutex_unlock(&w->lock);
}

void nbd_request_drop(struct nbd_request *q)
{
    pthread_cond_destroy(&q->changed);
    atomic_fetch_sub(&q->wire->in_flight, 1);
}

int nbd_request_end(struct nbd_request *q, int64_t cookie)
{
    struct nbd_wire *w = q->wire;
    if (cookie < 0) {
        q->code = libnbd.get_errno() ? libnbd.get_errno() : EIO;
        if (is_over(w)) {
            q->code = ENOTCONN;
            q->done = true;
            await(w, q);
            nbd_wire_note(w, ENOTCONN, "the connection is closed");
        }
    } else {
        /* What did not fit into the socket is for who polls, and he may not know of it. */
        if (libnbd.aio_get_direction(w->h) & LIBNBD_AIO_DIRECTION_WRITE)
            nbd_wire_wake(w);
        await(w, q);
    }
    nbd_request_drop(q);
    /* What a server answers before it goes is still its answer; of this it knows nothing: it is how
     * libnbd gives up what was under way. */
    if (q->code == ENOTCONN)
        return -1;
    return cookie < 0 && (broken(w) || is_over(w)) ? -1 : q->code;
}

/* ---- connecting ------------------------------------------------------------------------------ */

static int fail_said(const struct nbd_way *way, struct platter_error *err)
{
    int code = libnbd.get_errno();
    return fail(err, code ? code : EIO, "%s: cannot connect: %s", way->name, said());
}

static int set_up(struct nbd_wire *w, struct platter_error *err)
{
    const struct nbd_way *way = w->way;
    struct nbd_handle *h = w->h;
    /* We keep to the server's blocks ourselves; only the end of an export may not be one. */
    unsigned strict = libnbd.get_strict_mode(h) & ~LIBNBD_STRICT_ALIGN;
    if (libnbd.set_strict_mode(h, strict) < 0 || libnbd.set_pread_initialize(h, false) < 0 ||
        libnbd.add_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) < 0 ||
        (way->certificates && libnbd.set_tls_certificates(h, way->certificates) < 0) ||
        (way->psk_file && libnbd.set_tls_psk_file(h, way->psk_file) < 0) ||
        (way->username && libnbd.set_tls_username(h, way->username) < 0) ||
        libnbd.set_tls_verify_peer(h, !way->no_verify) < 0 ||
        (way->export_given && libnbd.set_opt_mode(h, true) < 0) ||
        libnbd.aio_connect_uri(h, way->uri) < 0)
        return fail_said(way, err);
    return 0;
}

/* Goes on until the server and we agree, or until there is nothing to go on with. All of it is to
 * be done in time: a server can say things that lead nowhere for ever. */
static void negotiate(struct nbd_wire *w, uint64_t patience_ns)
{
    const uint64_t began = atomic_load(&w->heard_ns);
    while (libnbd.aio_is_connecting(w->h) == 1 && !broken(w)) {
        move(w, patience_ns);
        atomic_store(&w->heard_ns, began);
        look_at_clock(w, patience_ns);
    }
}

/* The export that was named besides the URI. */
static int go(struct nbd_wire *w, uint64_t patience_ns, struct platter_error *err)
{
    const struct nbd_way *way = w->way;
    if (libnbd.aio_is_negotiating(w->h) != 1)
        return broken(w) ? 0
                         : fail(err, ENOTSUP,
                                "%s: the server is too old to be asked for an export by its name",
                                way->name);
    if (libnbd.set_export_name(w->h, way->export) < 0 ||
        libnbd.aio_opt_go(w->h, NBD_NULL_COMPLETION) < 0)
        return fail_said(way, err);
    negotiate(w, patience_ns);
    return libnbd.aio_is_negotiating(w->h) == 1 && !broken(w)
               ? fail(err, ENOENT, "%s: the server refuses to give the export \"%s\"", way->name,
                      way->export)
               : 0;
}

static int connect_wire(struct nbd_wire *w, uint64_t patience_ns, struct platter_error *err)
{
    atomic_store(&w->heard_ns, now_ns());
    int r = set_up(w, err);
    if (r < 0)
        return r;
    negotiate(w, patience_ns);
    if (w->way->export_given && (r = go(w, patience_ns, err)) < 0)
        return r;
    return libnbd.aio_is_ready(w->h) == 1 ? 0 : nbd_wire_fail(w, "cannot connect", err);
}

int nbd_wire_open(const struct nbd_way *way, const atomic_bool *interrupted, uint64_t patience_ns,
                  struct nbd_wire **ret, struct platter_error *err)
{
    struct nbd_wire *w = calloc(1, sizeof *w);
    if (!w)
        return fail_memory(err, "a connection");
    pthread_mutex_init(&w->lock, NULL);
    w->way = way;
    w->interrupted = interrupted;
    w->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    w->h = libnbd.create();
    int r =
        w->wake >= 0 && w->h ? connect_wire(w, patience_ns, err) : fail_memory(err, "a connection");
    if (r < 0) {
        nbd_wire_close(w);
        return r;
    }
    *ret = w;
    return 0;
}

void nbd_wire_close(struct nbd_wire *w)
{
    if (!w)
        return;
    /* Says goodbye, as far as that goes without waiting. */
    if (w->h && libnbd.aio_is_ready(w->h) == 1)
        libnbd.aio_disconnect(w->h, 0);
    libnbd.close(w->h);
    if (w->wake >= 0)
        close(w->wake);
    pthread_mutex_destroy(&w->lock);
    free(w);
}
