/* SPDX-License-Identifier: MIT */
/*
 * The wires of an NBD export (nbd.h): which one a request takes, when there is one more, and when
 * they are laid anew.
 */
#include <inttypes.h>
#include <time.h>

#include "base/awake.h"
#include "base/ckd.h"
#include "base/memory.h"
#include "stream/nbd.h"

enum {
    FURTHER_S = 5,       /* how long a further connection may take, which one can do without */
    TIMES = 3,           /* that a request is made where the connection breaks each time */
    MOST_UNANSWERED = 16 /* connections in a row on which nothing was answered */
};

/* How long one tries to connect anew; and how long nobody does after that was in vain: twice as
 * long each time. */
static const uint64_t GRACE_NS = 3 * UINT64_C(1000000000);
static const uint64_t AGAIN_NS = 1000000000, AGAIN_MOST_NS = 16 * UINT64_C(1000000000);

/* Whether a wire leads to what was learnt of the export when it was opened. */
static int check_same(const struct nbd_export *x, struct nbd_wire *w, struct platter_error *err)
{
    int64_t size = libnbd.get_size(w->h), block = libnbd.get_block_size(w->h, LIBNBD_SIZE_MINIMUM);
    int64_t most = libnbd.get_block_size(w->h, LIBNBD_SIZE_MAXIMUM);
    if (size < 0 || (uint64_t)size != x->size)
        return fail(err, ESTALE,
                    "%s: the export has %" PRIi64 " bytes now, and had %" PRIu64
                    " when it was opened: it is another one",
                    x->head.name, size, x->size);
    if (block > (int64_t)x->block || (most > 0 && most < (int64_t)x->most))
        return fail(err, ESTALE,
                    "%s: the server wants requests in other blocks than when it was opened",
                    x->head.name);
    return 0;
}

/* ---- further connections --------------------------------------------------------------------- */

/* One more, if the server gives one: else those there are must do. */
static void grow(struct nbd_export *x)
{
    unsigned n = atomic_load(&x->n_wires);
    struct nbd_wire *w;
    if (n >= x->most_wires)
        return;
    const uint64_t patience = min_u64(x->way.timeout_ns, FURTHER_S * UINT64_C(1000000000));
    if (nbd_wire_open(&x->way, &x->interrupted, patience, &w, NULL) < 0) {
        x->most_wires = n;
        return;
    }
    if (check_same(x, w, NULL) < 0 || (x->head.writable && libnbd.is_read_only(w->h) == 1)) {
        x->most_wires = n; /* it leads to another export */
        nbd_wire_close(w);
        return;
    }
    x->wires[n] = w;
    atomic_store(&x->n_wires, n + 1);
}

/* Of two, the one with less to do; one that broke only if both did. */
static struct nbd_wire *better(const struct nbd_export *x, struct nbd_wire *a, struct nbd_wire *b)
{
    if (atomic_load(&x->lasting) && nbd_wire_is_broken(a))
        return b;
    if (atomic_load(&x->lasting) && nbd_wire_is_broken(b))
        return a;
    return atomic_load(&b->in_flight) < atomic_load(&a->in_flight) ? b : a;
}

/* The one with least to do; one more, where all have something. */
static struct nbd_wire *pick(struct nbd_export *x)
{
    unsigned n = atomic_load(&x->n_wires);
    struct nbd_wire *best = x->wires[0];
    if (atomic_load(&x->alone))
        return best;
    for (unsigned i = 1; i < n; i++)
        best = better(x, best, x->wires[i]);
    if (atomic_load(&best->in_flight) == 0 || n >= NBD_MOST_WIRES ||
        pthread_mutex_trylock(&x->grow) != 0)
        return best;
    grow(x);
    if (atomic_load(&x->n_wires) > n)
        best = x->wires[n];
    pthread_mutex_unlock(&x->grow);
    return best;
}

/* From now on the first wire alone; what others have under way is waited for, which is as long as
 * their timeout at most. A flush that fails is told of by all later ones. */
static void go_alone(struct nbd_export *x)
{
    const struct timespec moment = {.tv_nsec = 500 * 1000};
    WITH_LOCK(&x->grow);
    if (atomic_load(&x->settled))
        return;
    x->most_wires = 1;
    atomic_store(&x->alone, true);
    unsigned n = atomic_load(&x->n_wires);
    for (unsigned i = 1; i < n; i++)
        while (atomic_load(&x->wires[i]->in_flight) > 0)
            nanosleep(&moment, NULL);
    if (n > 1)
        nbd_export_flush(&x->head, NULL);
    atomic_store(&x->settled, true);
}

struct nbd_wire *nbd_export_begin(struct nbd_export *x, struct nbd_request *q, bool reads)
{
    if (reads && x->head.writable && !atomic_load(&x->settled))
        go_alone(x);
    for (;;) {
        struct nbd_wire *w = pick(x);
        nbd_request_begin(w, q);
        if (w == x->wires[0] || !atomic_load(&x->alone))
            return w;
        nbd_request_drop(q); /* it came in between */
    }
}

/* ---- connecting anew ------------------------------------------------------------------------- */

static unsigned count_broken(const struct nbd_export *x)
{
    unsigned n = 0;
    for (unsigned i = 0; i < atomic_load(&x->n_wires); i++)
        n += nbd_wire_is_broken(x->wires[i]);
    return n;
}

static void lay(struct nbd_export *x, struct nbd_wire *w)
{
    pthread_rwlock_wrlock(&x->laying);
    for (unsigned i = 0; i < x->n_wires; i++)
        nbd_wire_close(x->wires[i]);
    x->wires[0] = w;
    x->most_wires = x->allowed_wires;
    atomic_store(&x->n_wires, 1);
    atomic_store(&x->can_status,
                 libnbd.can_meta_context(w->h, LIBNBD_CONTEXT_BASE_ALLOCATION) == 1);
    x->generation++;
    pthread_rwlock_unlock(&x->laying);
    WITH_LOCK(&x->known);
    x->status.n = 0; /* another server may tell it otherwise */
}

static int dial(struct nbd_export *x, struct nbd_wire **ret, struct platter_error *err)
{
    struct nbd_wire *w;
    int r = nbd_wire_open(&x->way, &x->interrupted, x->way.timeout_ns, &w, err);
    if (r < 0)
        return r;
    int64_t size = libnbd.get_size(w->h);
    atomic_store(&x->size_now, size > 0 ? (uint64_t)size : 0);
    r = check_same(x, w, err);
    if (r < 0)
        nbd_wire_close(w);
    else
        *ret = w;
    return r;
}

/* A server that is started again does not listen for a moment. */
static int dial_for_a_while(struct nbd_export *x, struct nbd_wire **ret, struct platter_error *err)
{
    const struct timespec moment = {.tv_nsec = 100 * 1000 * 1000};
    uint64_t began = now_ns();
    for (;;) {
        int r = dial(x, ret, err);
        if (r == 0 || r == -ESTALE || atomic_load(&x->interrupted) || now_ns() - began > GRACE_NS)
            return r;
        nanosleep(&moment, NULL);
    }
}

/* Other wires than those of that generation. While one tries the others wait for him; for some time
 * after he did in vain, or after many had wires and no answer, all are told so at once. */
static int renew(struct nbd_export *x, unsigned seen, struct platter_error *err)
{
    struct nbd_wire *w;
    WITH_LOCK(&x->dialing);
    if (x->generation != seen)
        return 0;
    if (x->wait_ns > 0 && now_ns() - x->tried_ns < x->wait_ns)
        return fail(err, x->refused.code, "%s", x->refused.message);
    int r = x->wait_ns == 0 ? dial_for_a_while(x, &w, &x->refused) : dial(x, &w, &x->refused);
    bool vain = r < 0;
    if (r == 0 && atomic_fetch_add(&x->unanswered, 1) >= MOST_UNANSWERED) {
        vain = true; /* these wires are used, but not others before some time */
        fail(&x->refused, ENOTCONN, "%s: the server ends each connection without an answer",
             x->head.name);
    }
    x->tried_ns = now_ns();
    x->wait_ns = vain ? min_u64(max_u64(2 * x->wait_ns, AGAIN_NS), AGAIN_MOST_NS) : 0;
    if (r < 0)
        return fail(err, -r, "%s", x->refused.message);
    lay(x, w);
    return 0;
}

static void enter(struct nbd_export *x, bool alone)
{
    if (alone)
        pthread_rwlock_wrlock(&x->laying);
    else
        pthread_rwlock_rdlock(&x->laying);
}

/* Wires, held then: none is known to be broken, or no better ones can be had. */
static int hold(struct nbd_export *x, bool alone, struct platter_error *err)
{
    for (int r = 0;;) {
        enter(x, alone);
        unsigned broken = count_broken(x), seen = x->generation;
        if (broken == 0 || (r < 0 && broken < atomic_load(&x->n_wires)))
            return 0;
        pthread_rwlock_unlock(&x->laying);
        if (r < 0)
            return r;
        r = renew(x, seen, err);
    }
}

/* What one asks may break the connection under others, each time. So the last time one is alone
 * with it, and who fails then has himself to thank. */
int nbd_export_ask(struct nbd_export *x, nbd_ask_fn ask, void *question, struct platter_error *err)
{
    if (!atomic_load(&x->lasting))
        return ask(x, question, err);
    int r = -ENOTCONN;
    bool again = true;
    for (unsigned i = 0; i < TIMES && again; i++) {
        r = hold(x, i == TIMES - 1, err);
        if (r < 0)
            return r;
        r = ask(x, question, err);
        if (r == 0)
            atomic_store(&x->unanswered, 0);
        /* Who waited in vain, or was told to stop, does not wait anew. */
        again = r < 0 && r != -ETIMEDOUT && r != -ECANCELED && count_broken(x) > 0;
        pthread_rwlock_unlock(&x->laying);
    }
    return r;
}
