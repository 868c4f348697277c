/* SPDX-License-Identifier: MIT */
/*
 * NBD, through libnbd. An export is one disk of a server; a wire is one connection to it.
 *
 * There is no thread of our own. Any number of threads have requests on a wire; one of those who
 * wait, whoever came first, moves the bytes for all of them, and passes that on when its own answer
 * is there. So a lone request is written, waited for and read by one thread, as a blocking call
 * would do it, and many at once cost one wake-up each.
 *
 * A wire that fails once has failed: it is cut, so that libnbd lets go of all buffers, and every
 * request of the export fails with the same sentence. New wires are laid only where the export is
 * read alone and held to stay as it is (stream_persist()): else nobody knows which of the writes
 * that were not flushed a server still has, or whether what is there is the same disk.
 */
#ifndef STREAM_NBD_H
#define STREAM_NBD_H

#include <libnbd.h>
#include <pthread.h>
#include <stdatomic.h>

#include "stream/stream.h"

/* ---- the library ----------------------------------------------------------------------------- */

#define NBD_FUNCTIONS(X)                                                                           \
    X(create)                                                                                      \
    X(close)                                                                                       \
    X(get_error)                                                                                   \
    X(get_errno)                                                                                   \
    X(set_tls)                                                                                     \
    X(set_tls_certificates)                                                                        \
    X(set_tls_psk_file)                                                                            \
    X(set_tls_username)                                                                            \
    X(set_tls_verify_peer)                                                                         \
    X(set_strict_mode)                                                                             \
    X(get_strict_mode)                                                                             \
    X(set_pread_initialize)                                                                        \
    X(set_opt_mode)                                                                                \
    X(set_export_name)                                                                             \
    X(get_export_name)                                                                             \
    X(add_meta_context)                                                                            \
    X(can_meta_context)                                                                            \
    X(is_read_only)                                                                                \
    X(can_flush)                                                                                   \
    X(can_fua)                                                                                     \
    X(can_trim)                                                                                    \
    X(can_zero)                                                                                    \
    X(can_multi_conn)                                                                              \
    X(get_size)                                                                                    \
    X(get_block_size)                                                                              \
    X(aio_connect_uri)                                                                             \
    X(aio_opt_go)                                                                                  \
    X(aio_is_connecting)                                                                           \
    X(aio_is_negotiating)                                                                          \
    X(aio_is_ready)                                                                                \
    X(aio_is_dead)                                                                                 \
    X(aio_is_closed)                                                                               \
    X(aio_get_fd)                                                                                  \
    X(aio_get_direction)                                                                           \
    X(aio_notify_read)                                                                             \
    X(aio_notify_write)                                                                            \
    X(aio_disconnect)                                                                              \
    X(aio_pread_structured)                                                                        \
    X(aio_pwrite)                                                                                  \
    X(aio_zero)                                                                                    \
    X(aio_trim)                                                                                    \
    X(aio_flush)                                                                                   \
    X(aio_block_status)

/* nbd_create() is libnbd.create(), and so on. */
struct nbd_functions {
#define NBD_MEMBER(name) typeof(nbd_##name) *name;
    NBD_FUNCTIONS(NBD_MEMBER)
#undef NBD_MEMBER
};
extern struct nbd_functions libnbd;

int nbd_load(struct platter_error *err);

/* ---- wires ----------------------------------------------------------------------------------- */

/* How to connect: kept, since further wires come when they are needed. */
struct nbd_way {
    char *name; /* for sentences */
    char *uri, *export, *certificates, *psk_file, *username;
    bool export_given, no_verify;
    uint64_t timeout_ns; /* of a server that does not move at all */
};

/* One request; its fields are the wire's. */
struct nbd_request {
    int code; /* when it is done: 0, or a positive errno value */
    bool done;
    pthread_cond_t changed;
    struct nbd_request *next, *prev; /* of those who wait */
    struct nbd_wire *wire;
};

struct nbd_wire {
    struct nbd_handle *h;
    const struct nbd_way *way;
    const atomic_bool *interrupted; /* of the whole export */
    int wake;                       /* an eventfd: who polls is to look again */
    atomic_uint in_flight;
    atomic_uint flushing;      /* of these: what may take a server very long */
    _Atomic uint64_t heard_ns; /* when the server last moved, or was first asked to */
    pthread_mutex_t lock;      /* what follows; libnbd is never called with it held */
    bool polled;               /* by one of those who wait */
    struct nbd_request *first, *last;
    int broken; /* 0, or a positive code */
    char why[240];
};

void nbd_way_done(struct nbd_way *way);

/* Connects, and waits until requests can be made, for at most `patience_ns`. */
int nbd_wire_open(const struct nbd_way *way, const atomic_bool *interrupted, uint64_t patience_ns,
                  struct nbd_wire **ret, struct platter_error *err);
void nbd_wire_close(struct nbd_wire *w);

/*
 * A request: nbd_request_begin(), then a call of libnbd.aio_...() with nbd_request_callback(),
 * whose answer goes to nbd_request_end(), which waits. 0, or a positive errno value that the server
 * gave; or -1 if the wire is broken, after which libnbd has no pointer into the request or its
 * buffer.
 */
void nbd_request_begin(struct nbd_wire *w, struct nbd_request *q);
void nbd_request_drop(struct nbd_request *q); /* instead, of one that was only begun */
nbd_completion_callback nbd_request_callback(struct nbd_request *q);
int nbd_request_end(struct nbd_request *q, int64_t cookie);

bool nbd_wire_is_broken(struct nbd_wire *w);
/* That it is broken, and why: what was said first counts. */
void nbd_wire_note(struct nbd_wire *w, int code, const char *why);
/* Whoever waits on the wire is to look whether it was interrupted. */
void nbd_wire_wake(struct nbd_wire *w);
/* Why a wire is broken: "...: TEXT: why". Returns the negative code. */
int nbd_wire_fail(struct nbd_wire *w, const char *text, struct platter_error *err);

/* ---- exports --------------------------------------------------------------------------------- */

enum {
    NBD_MOST_WIRES = 16,
    NBD_MOST_EXTENTS = 64 << 10 /* of one answer are kept */
};

/* What a server said of extents: `n` of them, one behind the other from `start` on. */
struct nbd_status {
    uint64_t start;
    uint64_t asked_ns;
    size_t n;
    struct nbd_run {
        uint64_t end;
        bool zero;
    } * runs;
};

struct nbd_export {
    struct stream head;
    struct nbd_way way;
    char *export;       /* its name there */
    char identity[200]; /* which server and export it is; empty: not known */
    uint64_t size;
    uint32_t block; /* requests begin and end at multiples of it, a power of two */
    uint32_t most;  /* bytes of one read or write */
    bool can_flush, can_fua, can_trim, can_zero;
    atomic_bool can_status;
    atomic_bool cannot_zero; /* the server said so when it was asked to */
    atomic_bool interrupted;
    unsigned allowed_wires;
    unsigned most_wires; /* that the server seems to give; guarded by grow */
    atomic_uint n_wires;
    atomic_bool alone;   /* only the first wire is used from now on */
    atomic_bool settled; /* ... and what was written on others is seen there */
    struct nbd_wire *wires[NBD_MOST_WIRES];
    pthread_mutex_t grow; /* around one more wire */
    atomic_bool lasting;  /* wires that broke are laid anew: nbd_export_ask() */
    /* Taken for reading by who has requests, for writing by who puts new wires there. */
    pthread_rwlock_t laying;
    pthread_mutex_t dialing;      /* around who tries to; guards what follows */
    unsigned generation;          /* of the wires; read also by who holds `laying` */
    uint64_t tried_ns, wait_ns;   /* when that was, and how long nobody does again */
    struct platter_error refused; /* ... and what is said meanwhile */
    atomic_uint unanswered;       /* connections, since something was */
    _Atomic uint64_t size_now;    /* that the export had when it was last connected to */
    pthread_mutex_t partial;      /* around reading and writing back a block that changes in part */
    pthread_mutex_t known;        /* around what follows */
    struct nbd_status status;
    struct platter_error lost; /* of the first flush that failed; code 0: none did */
};

extern const struct stream_ops nbd_export_ops;

/*
 * Begins a request on the wire that has least to do. What is written on one wire is sure to be seen
 * on another only after a flush: so of an export that is written, whoever `reads` has all go on
 * with one wire first, where several were in use.
 */
struct nbd_wire *nbd_export_begin(struct nbd_export *x, struct nbd_request *q, bool reads);
/* A request that changes nothing, from its begin to its judgement. Where the export lasts and the
 * wires broke, it is made on new ones. ESTALE: what is there now is another export. */
typedef int (*nbd_ask_fn)(struct nbd_export *x, void *question, struct platter_error *err);
int nbd_export_ask(struct nbd_export *x, nbd_ask_fn ask, void *question, struct platter_error *err);
/* Once one failed all do: what it was to make durable may be gone, and a server may tell so once.
 */
int nbd_export_flush(struct stream *s, struct platter_error *err);
/* What became of a request: 0, or the sentence. `doing` is "read", "write" ... */
int nbd_export_judge(struct nbd_export *x, struct nbd_wire *w, int code, const char *doing,
                     uint64_t len, hoff off, struct platter_error *err);

int nbd_export_extents(struct stream *s, hoff off, uint64_t len, uint64_t *ret_len, bool *ret_hole,
                       struct platter_error *err);

#endif
