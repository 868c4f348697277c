/* SPDX-License-Identifier: MIT */
/*
 * Images in a Ceph cluster, through librbd (source-spec.md section 7): what the files of this kind
 * of place share.
 *
 * rbd_place.c      names and keys, and opening
 * rbd_library.c    the functions of librados and librbd
 * rbd_cluster.c    connections, which all streams of one cluster and client share
 * rbd_stream.c     bytes
 * rbd_runs.c       what an image stores, and in what two of its states differ
 * rbd_states.c     snapshots
 * rbd_holder.c     who else has an image open for writing, or had
 * rbd_create.c     new images
 * rbd_facts.c      what is told of one
 * rbd_import.c     images that Ceph brings to itself
 */
#ifndef STREAM_RBD_H
#define STREAM_RBD_H

#include <pthread.h>
#include <rados/librados.h>
#include <rbd/librbd.h>
#include <stdatomic.h>

#include "base/options.h"
#include "stream/inside.h"
#include "stream/place.h"
#include "stream/unfinished.h"

/* ---- libraries ------------------------------------------------------------------------------- */

#define RBD_RADOS_FUNCTIONS(F)                                                                     \
    F(rados, create2)                                                                              \
    F(rados, conf_read_file)                                                                       \
    F(rados, conf_parse_env)                                                                       \
    F(rados, conf_set)                                                                             \
    F(rados, connect)                                                                              \
    F(rados, shutdown)                                                                             \
    F(rados, cluster_fsid)                                                                         \
    F(rados, get_instance_id)                                                                      \
    F(rados, ioctx_create)                                                                         \
    F(rados, ioctx_create2)                                                                        \
    F(rados, ioctx_destroy)                                                                        \
    F(rados, ioctx_get_id)                                                                         \
    F(rados, ioctx_set_namespace)                                                                  \
    F(rados, set_pool_full_try)                                                                    \
    F(rados, pool_reverse_lookup)                                                                  \
    F(rados, stat)                                                                                 \
    F(rados, get_last_version)

#define RBD_FUNCTIONS(F)                                                                           \
    F(rbd, image_options_create)                                                                   \
    F(rbd, image_options_destroy)                                                                  \
    F(rbd, image_options_set_uint64)                                                               \
    F(rbd, image_options_set_string)                                                               \
    F(rbd, features_from_string)                                                                   \
    F(rbd, features_to_string)                                                                     \
    F(rbd, namespace_exists)                                                                       \
    F(rbd, create4)                                                                                \
    F(rbd, remove)                                                                                 \
    F(rbd, rename)                                                                                 \
    F(rbd, open)                                                                                   \
    F(rbd, open_read_only)                                                                         \
    F(rbd, open_by_id)                                                                             \
    F(rbd, open_by_id_read_only)                                                                   \
    F(rbd, close)                                                                                  \
    F(rbd, stat)                                                                                   \
    F(rbd, get_size)                                                                               \
    F(rbd, get_features)                                                                           \
    F(rbd, get_flags)                                                                              \
    F(rbd, get_id)                                                                                 \
    F(rbd, get_parent)                                                                             \
    F(rbd, linked_image_spec_cleanup)                                                              \
    F(rbd, snap_spec_cleanup)                                                                      \
    F(rbd, get_stripe_unit)                                                                        \
    F(rbd, get_stripe_count)                                                                       \
    F(rbd, get_data_pool_id)                                                                       \
    F(rbd, get_modify_timestamp)                                                                   \
    F(rbd, resize)                                                                                 \
    F(rbd, read)                                                                                   \
    F(rbd, write)                                                                                  \
    F(rbd, write_zeroes)                                                                           \
    F(rbd, discard)                                                                                \
    F(rbd, flush)                                                                                  \
    F(rbd, diff_iterate2)                                                                          \
    F(rbd, snap_list)                                                                              \
    F(rbd, snap_list_end)                                                                          \
    F(rbd, snap_get_id)                                                                            \
    F(rbd, snap_set_by_id)                                                                         \
    F(rbd, snap_get_namespace_type)                                                                \
    F(rbd, snap_get_timestamp)                                                                     \
    F(rbd, snap_is_protected)                                                                      \
    F(rbd, snap_create)                                                                            \
    F(rbd, snap_remove)                                                                            \
    F(rbd, snap_rollback)                                                                          \
    F(rbd, lock_acquire)                                                                           \
    F(rbd, list_lockers)                                                                           \
    F(rbd, watchers_list)                                                                          \
    F(rbd, watchers_list_cleanup)

#define RBD_MEMBER(library, name) typeof(library##_##name) *name;

struct rados_functions {
    RBD_RADOS_FUNCTIONS(RBD_MEMBER)
};

struct rbd_functions {
    RBD_FUNCTIONS(RBD_MEMBER)
};

extern struct rados_functions librados;
extern struct rbd_functions librbd;

/* Before any of them is called. */
int rbd_load(struct platter_error *err);

/* ---- clusters -------------------------------------------------------------------------------- */

struct rbd_cluster {
    struct rbd_cluster *next;
    char *keys; /* what it was connected with */
    unsigned users;
    rados_t handle;
    char id[64];         /* of the cluster */
    uint64_t io_timeout; /* seconds */
    atomic_bool hurries; /* some answer did not come in time, or nobody wants to wait any more */
};

/* A connection made with these keys; one that is there is shared. */
int rbd_cluster_get(const struct option_values *keys, const char *name, struct rbd_cluster **ret,
                    struct platter_error *err);
struct rbd_cluster *rbd_cluster_share(struct rbd_cluster *c);
void rbd_cluster_put(struct rbd_cluster *c);

/* Whether answers are waited for but briefly, as all that is left to do is to end; a read or write
 * that is answered ends that. Those that are under way wait as long as before. */
void rbd_hurry(struct rbd_cluster *c, bool hurry);
/* Calls that on a thread no signal comes to, nor to those that the libraries start meanwhile: one
 * would be handled beside what they hold. Whom it comes to waits for that thread, and may be ended
 * by it however long the cluster takes. */
void rbd_aside(void *(*call)(void *), void *arg);

/* ---- streams --------------------------------------------------------------------------------- */

/* A part of an image of which it is known where something is. */
struct rbd_run {
    hoff off;
    uint64_t len;
};

/* What is known of [start, end): the runs, in order and apart. */
struct rbd_runs {
    hoff start, end;
    struct rbd_run *all;
    size_t n, room;
};

/* What tells that an image was written to. */
struct rbd_mark {
    uint64_t size;
    struct timespec modified; /* set by the first write in a minute */
    uint64_t map;             /* the version of its object map; 0: there is none to be seen */
};

struct rbd_stream {
    struct stream head;
    struct rbd_cluster *cluster;
    rados_ioctx_t pool;
    char *space; /* the namespace, or NULL */
    rbd_image_t image;
    char id[64];     /* of the image */
    uint64_t snap;   /* the id of the snapshot that is read; CEPH_NOSNAP: none */
    uint64_t object; /* bytes of one */
    uint64_t features;
    bool locked; /* we hold its exclusive lock */
    bool marked; /* nobody may write to it while we read it: ... */
    bool recent; /* ... but somebody did not long ago */
    struct rbd_mark mark;

    /* Held for reading while an operation is under way, for writing while the size changes. */
    pthread_rwlock_t gate;
    _Atomic uint64_t size; /* of the stream */
    uint64_t room;         /* of the image: a new one grows ahead of what is written */

    pthread_mutex_t lock;    /* guards what follows */
    struct rbd_runs stored;  /* what of a part of the image is data ... */
    unsigned asked_at;       /* ... when so many changes were made */
    atomic_uint changes;     /* counted by every write */
    rbd_image_t newer;       /* the later of the two states that were compared last, or NULL */
    uint64_t compared[2];    /* the ids of the snapshots */
    struct rbd_runs changed; /* in what they differ */

    struct stream_states states;
    struct stream_state *snapshots; /* of states */
    uint64_t *snapshot_ids;

    /* Of a new image that is not published: its name until then, and the one it will have. */
    char *temporary, *target;
    struct unfinished unfinished;
    pthread_mutex_t whole; /* held around what rbd_alone() calls; before the gate */
    atomic_bool gone;      /* it is being removed, as the program ends */
    atomic_bool interrupted;
};

#define RBD_NO_SNAP UINT64_MAX

static inline struct rbd_stream *rbd_of(struct stream *s)
{
    return (struct rbd_stream *)s;
}

extern const struct stream_ops rbd_ops;

/* A stream without an image; name is copied. The cluster is the stream's from then on, on failure
 * as well. */
int rbd_stream_new(struct rbd_cluster *cluster, const char *name, struct rbd_stream **ret,
                   struct platter_error *err);
/* Learns what there is to know of s->image, which is open. */
int rbd_stream_learn(struct rbd_stream *s, struct platter_error *err);

/* What every operation is between: fails once the image is gone. */
int rbd_enter(struct rbd_stream *s, struct platter_error *err);
void rbd_leave(struct rbd_stream *s);

/* What is done with the image as a whole (it is made, named, a snapshot made of it): one at a time,
 * and aside, so that who ends the program finds it done, or not begun. */
int rbd_alone(struct rbd_stream *s,
              int (*call)(struct rbd_stream *s, const void *arg, struct platter_error *err),
              const void *arg, struct platter_error *err);

/* The cluster answered `code` (negative) to what was to be done; a sentence with the cause and what
 * to do about it. */
int rbd_fail(const struct stream *s, int code, struct platter_error *err, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Nobody can have what is under way come back; but all that follows takes little time. */
void rbd_interrupt(struct stream *base);
int rbd_sibling(struct stream *base, const char *uri, unsigned flags, struct stream **ret,
                struct platter_error *err);
/* Another size of an image: `size` of the stream, and `room` of the image. s->gate is held for
 * writing. */
int rbd_set_size(struct rbd_stream *s, uint64_t size, uint64_t room, struct platter_error *err);

/* ---- runs ------------------------------------------------------------------------------------ */

int rbd_extents(struct stream *base, hoff off, uint64_t len, uint64_t *ret_len, bool *ret_hole,
                struct platter_error *err);
/* Of two snapshots by number, as struct stream_states has it. */
int rbd_differ(struct stream *base, unsigned from, unsigned to, hoff off, uint64_t len,
               uint64_t *ret_len, bool *ret_differ, struct platter_error *err);
/* Closes what is open for comparing. */
void rbd_runs_done(struct rbd_stream *s);

/* ---- snapshots ------------------------------------------------------------------------------- */

/* Fills in s->head.states. */
int rbd_states_load(struct rbd_stream *s, struct platter_error *err);
void rbd_states_free(struct rbd_stream *s);
/* Another handle for the image that s has open, at a snapshot. */
int rbd_open_at(struct rbd_stream *s, uint64_t snap, rbd_image_t *ret, struct platter_error *err);

/* ---- holders --------------------------------------------------------------------------------- */

int rbd_lock(struct stream *base, unsigned use, unsigned deny, struct platter_error *err);
int rbd_unchanged(struct stream *base, struct platter_error *err);
int rbd_identity(struct stream *base, char **text, struct platter_error *err);

/* ---- facts ----------------------------------------------------------------------------------- */

int rbd_facts(struct stream *base, stream_tell_fn fn, void *opaque);
int rbd_allocated(struct stream *base, uint64_t *ret, struct platter_error *err);

/* ---- names ----------------------------------------------------------------------------------- */

/* A stream without an image, in the pool of a place: for what is done with an image by its name. */
int rbd_open_pool(const struct place *p, struct stream **ret, struct platter_error *err);

int rbd_place_remove(const struct place *p, struct platter_error *err);

/* ---- images that Ceph brings to itself ------------------------------------------------------- */

extern const struct place_import_ops rbd_import_ops;

/* ---- new images ------------------------------------------------------------------------------ */

/* What the keys of a place say of a new image. */
int rbd_set_options(const struct rbd_stream *s, rbd_image_options_t options,
                    const struct option_values *keys, struct platter_error *err);

int rbd_create_open(struct rbd_stream *s, const struct option_values *keys,
                    struct platter_error *err);
int rbd_publish(struct stream *base, bool durable, struct platter_error *err);
int rbd_withdraw(struct stream *base, bool back, struct platter_error *err);
int rbd_give_up(struct stream *base, struct platter_error *err);
/* Closes the image, and removes it if it was not published. */
void rbd_create_done(struct rbd_stream *s);

#endif
