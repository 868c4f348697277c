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
    FURTHER_S = 5, /* how long a connection may take that one can do without for now */
    AGAIN_S = 1,   /* how long nobody tries to connect anew after that failed; doubles up to */
    AGAIN_MOST_S = 16,
    TRIES = 3 /* of a request, each on wires of its own */
};

static uint64_t patience(const struct nbd_export *x)
{
    return min_u64(x->way.timeout_ns, FURTHER_S * UINT64_C(1000000000));
}

/* ---- further connections --------------------------------------------------------------------- */

/* One more, if the server gives one: else those there are must do. */
static void grow(struct nbd_export *x)
{
    unsigned n = atomic_load(&x->n_wires);
    struct nbd_wire *w;
    if (n >= x->most_wires)
        return;
    if (nbd_wire_open(&x->way, &x->interrupted, patience(x), &w, NULL) < 0) {
        x->most_wires = n;
        return;
    }
    if (libnbd.get_size(w->h) != (int64_t)x->size ||
        (x->head.writable && libnbd.is_read_only(w->h) == 1)) {
        x->most_wires = n; /* it leads to another export */
        nbd_wire_close(w);
        return;
    }
    x->wires[n] = w;
    atomic_store(&x->n_wires, n + 1);
}

/* The one with least to do; one more, where all have something. */
static struct nbd_wire *pick(struct nbd_export *x)
{
    unsigned n = atomic_load(&x->n_wires);
    struct nbd_wire *best = x->wires[0];
    if (atomic_load(&x->alone))
        return best;
    for (unsigned i = 1; i < n && atomic_load(&best->in_flight) > 0; i++)
        if (atomic_load(&x->wires[i]->in_flight) < atomic_load(&best->in_flight))
            best = x->wires[i];
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

/* ---- connecting anew --------------------------------------------------------------------------
 */

static bool is_broken(const struct nbd_export *x)
{
    for (unsigned i = 0; i < atomic_load(&x->n_wires); i++)
        if (nbd_wire_is_broken(x->wires[i]))
            return true;
    return false;
}

/* What was learnt of the export when it was opened must be true of what is there now. */
static int check_same(const struct nbd_export *x, struct nbd_wire *w, struct platter_error *err)
{
    int64_t size = libnbd.get_size(w->h), block = libnbd.get_block_size(w->h, LIBNBD_SIZE_MINIMUM);
    int64_t most = libnbd.get_block_size(w->h, LIBNBD_SIZE_MAXIMUM);
    if (size < 0 || (uint64_t)size != x->size)
        return fail(err, ESTALE,
                    "%s: the connection broke, and the export that is there now has %" PRIi64
                    " bytes where there were %" PRIu64,
                    x->head.name, size, x->size);
    if (block > (int64_t)x->block || (most > 0 && most < (int64_t)x->most))
        return fail(err, ESTALE,
                    "%s: the connection broke, and the server now wants requests in other blocks",
                    x->head.name);
    return 0;
}

/* All wires but a new one go. Nobody has a request on any. */
static int lay_anew(struct nbd_export *x, struct platter_error *err)
{
    struct platter_error why;
    struct nbd_wire *w;
    if (nbd_wire_open(&x->way, &x->interrupted, patience(x), &w, &why) < 0)
        return 0;
    int r = check_same(x, w, err);
    if (r < 0) {
        nbd_wire_close(w);
        return r;
    }
    if (libnbd.can_meta_context(w->h, LIBNBD_CONTEXT_BASE_ALLOCATION) != 1)
        atomic_store(&x->can_status, false);
    for (unsigned i = 0; i < x->n_wires; i++)
        nbd_wire_close(x->wires[i]);
    x->wires[0] = w;
    atomic_store(&x->n_wires, 1);
    x->generation++;
    return 1;
}

/* After a request on wires of that generation failed: 1: there are other ones; 0: there are not. */
static int renew(struct nbd_export *x, unsigned seen, struct platter_error *err)
{
    int r = 0;
    pthread_rwlock_wrlock(&x->renewing);
    if (x->generation != seen) {
        r = 1;
    } else if (!atomic_load(&x->interrupted) && is_broken(x) &&
               (x->wait_ns == 0 || now_ns() - x->tried_ns >= x->wait_ns)) {
        r = lay_anew(x, err);
        x->tried_ns = now_ns();
        x->wait_ns = r == 1 ? 0
                            : min_u64(max_u64(2 * x->wait_ns, AGAIN_S * UINT64_C(1000000000)),
                                      AGAIN_MOST_S * UINT64_C(1000000000));
    }
    pthread_rwlock_unlock(&x->renewing);
    return r;
}

int nbd_export_ask(struct nbd_export *x, nbd_ask_fn ask, void *question, struct platter_error *err)
{
    if (!atomic_load(&x->lasting))
        return ask(x, question, err);
    int r, again = 1;
    for (unsigned i = 0;; i++) {
        pthread_rwlock_rdlock(&x->renewing);
        unsigned seen = x->generation;
        r = ask(x, question, err);
        pthread_rwlock_unlock(&x->renewing);
        if (r == 0 || i == TRIES || (again = renew(x, seen, err)) != 1)
            return again < 0 ? again : r;
    }
}
