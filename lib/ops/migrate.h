/* SPDX-License-Identifier: MIT */
/*
 * Live migration, inside (source-spec.md section 6). A migration is a disk whose top image is the
 * target and whose other images are the source, which is filled from below: lib/disk/fill.c. There
 * is one owner, which has the target open for writing and so locked; it alone writes the state.
 *
 *     migrate_state.c    the state, beside the target
 *     migrate_prepare.c  a new target with its state
 *     migrate_snapshots.c  the snapshots that come along
 *     migrate.c          owning: open, close, the source and its identity, what is known of it
 *     migrate_source.c   what the source is opened with
 *     migrate_execute.c  the copy
 *     migrate_status.c   what there is to tell
 *     migrate_end.c      commit and abort
 *     migrate_remove.c   what is left of a preparation, or of an abort, goes
 *     migrate_control.c  how other processes reach the owner
 *     migrate_ops.c      the verbs by the name of a target: here or in the owner's process
 */
#ifndef OPS_MIGRATE_H
#define OPS_MIGRATE_H

#include <jansson.h>

#include "disk/disk.h"
#include "ops/ops.h"

/* ---- the state --------------------------------------------------------------------------------
 */

enum migrate_phase {
    MIGRATE_PREPARING, /* nothing that could be used: not prepared yet, or given up */
    MIGRATE_PREPARED,
    MIGRATE_EXECUTING, /* a copy was begun, and runs if there is an owner that says so */
    MIGRATE_EXECUTED,  /* the source is not needed any more */
    MIGRATE_COMMITTING /* the link is cut, as far as the target goes */
};

/* What stands in the state, and where that is. */
struct migrate_state {
    struct stream *stream; /* open for writing, or for reading only */
    struct stream *map;    /* the part of it that is the map of presence, once asked for; or NULL */
    uint64_t sequence;     /* of what was read or written last */
    enum migrate_phase phase;
    char *id;          /* says which target this is the state of */
    json_t *source;    /* "name", and what it was opened with: see migrate_source.c */
    json_t *identity;  /* of disk_identity(), of the source */
    char *format;      /* of the target: "qcow2" or "raw" */
    char *place;       /* where the bytes of the target are: TARGET or TARGET.part */
    bool foreign;      /* ... which had another name when this was written */
    uint64_t size;     /* of the disk, bytes */
    bool part;         /* a raw file, which gets its name at the end */
    bool made;         /* the target was complete, and about to get its name */
    bool written;      /* by a guest */
    json_t *error;     /* null or the sentence that ended the last copy */
    json_t *snapshots; /* names of those that must go before the target can; NULL: none */
};

/* Where it is: `state` as it was given, or beside the target. malloc'ed. */
char *migrate_state_name(const char *target, const char *state);
/* Where the bytes of a target are; `part`: of a raw file. malloc'ed. */
char *migrate_place_of(const char *target, bool part);
/* Opens and reads it; ENOENT where there is none. */
int migrate_state_open(const char *target, const char *state, const char *keys, bool writable,
                       struct migrate_state *ret, struct platter_error *err);
/* Makes a new one of what *state has, but its stream, with a map of presence if asked. */
int migrate_state_create(const char *target, const char *name, const char *keys, bool presence,
                         struct migrate_state *state, struct platter_error *err);
/* ESTALE: it was written for a target of another name. */
int migrate_state_check_target(const struct migrate_state *state, struct platter_error *err);
/* Opens it for who removes what is left of a prepare or of an abort: if it says that there is
 * nothing of use, that is so until it is closed, as far as files can tell. EBUSY: somebody else
 * prepares the target, or does the same; ENOENT; ESTALE: it is another target's. */
int migrate_state_claim(const char *target, const char *name, const char *keys,
                        struct migrate_state *ret, struct platter_error *err);
/* Removes and closes it. */
int migrate_state_remove(struct migrate_state *state, const char *target, const char *name,
                         const char *keys, struct platter_error *err);
/* Writes it, durably: a crash leaves the old one or the new. */
int migrate_state_write(struct migrate_state *state, struct platter_error *err);
/* The part of the stream with the map of presence; it is the state's. */
int migrate_state_presence(struct migrate_state *state, struct stream **ret,
                           struct platter_error *err);
void migrate_state_close(struct migrate_state *state);
const char *migrate_phase_name(enum migrate_phase phase);

/* ---- owning -----------------------------------------------------------------------------------
 */

struct control; /* migrate_control.c */

struct platter_migration {
    char *target;                           /* as it was named */
    struct platter_migrate_options options; /* its strings are ours: own_options_keep() */
    bool look;                              /* not the owner: only to see what is there */
    struct platter_disk *disk;              /* target over source */
    struct filling filling;
    struct migrate_state state;
    pthread_mutex_t lock;   /* guards state, and all below; taken inside of range locks */
    bool lost;              /* the source could not be opened, or is another one by now */
    char *reason;           /* ... why; or NULL */
    bool changed;           /* ... it is another one */
    uint64_t checked_at;    /* when it was last seen that it is not, ns */
    uint64_t failed_before; /* reads, when it was opened */
    bool executing, ending; /* a copy runs; the migration is being committed */
    bool ended;             /* ... and was: its state is not written any more */
    atomic_bool stop;       /* the copy is to end */
    uint64_t done, total;   /* of the copy: bytes of the disk that it is through with */
    uint64_t rate;          /* ... bytes a second that it moved of late */
    struct control *control;
};

/* Becomes the owner, or only looks. Does not wait for anybody: EBUSY. */
int migration_open(const char *target, const struct platter_migrate_options *options,
                   struct platter_migration **ret, struct platter_error *err);
int migration_look(const char *target, const struct platter_migrate_options *options,
                   struct platter_migration **ret, struct platter_error *err);
int migration_close(struct platter_migration *m, struct platter_error *err);

/* Opens the source, if it is not open, or has failed: ESTALE where it is another one. */
int migration_attach(struct platter_migration *m, struct platter_error *err);
/* Asks whether the source is still what it was; ESTALE. For who holds a range of the disk, or
 * copies. */
int migration_check_source(struct platter_migration *m, struct platter_error *err);
/* Changes what the state says and writes it. `error` NULL: none. */
int migration_enter(struct platter_migration *m, enum migrate_phase phase, const char *error,
                    struct platter_error *err);

/* The verbs on a migration that is owned here. Thread-safe. */
int migration_execute(struct platter_migration *m, unsigned workers, uint64_t rate,
                      platter_progress_fn progress, void *opaque, struct platter_error *err);
/* Has it come back soon, with ECANCELED. */
void migration_stop(struct platter_migration *m);
int migration_commit(struct platter_migration *m, struct platter_error *err);
/* Of one that is only looked at as well. *ret is a new reference. */
int migration_status(struct platter_migration *m, json_t **ret, struct platter_error *err);
/* Ends a commit that was cut off where only the state is left of it: 1; 0: there is more to do. */
int migration_finish(const char *target, const struct platter_migrate_options *options,
                     struct platter_error *err);

/* ---- migrate_remove.c -------------------------------------------------------------------------
 */

/* Removes the bytes of a target, if they are its own, and not a device. */
int migrate_remove_target(const struct migrate_state *state, const char *keys,
                          struct platter_error *err);
/* The same with its state, where that says that there is nothing of use yet, or any more:
 * *ret_done. */
int migrate_remove_remains(const char *target, const struct platter_migrate_options *options,
                           bool *ret_done, struct platter_error *err);

/* ---- migrate_source.c: how the source is opened, kept in the state -----------------------------
 */

/* *ret is a new reference. */
int migrate_source_keep(const char *name, const struct platter_open_options *open, json_t **ret,
                        struct platter_error *err);
int migrate_source_open(const json_t *source, const struct platter_migrate_options *options,
                        struct platter_disk **ret, struct platter_error *err);
/* The name of an image of it that a qcow2 may have as its backing file; ENOTSUP: there is none.
 * malloc'ed. */
int migrate_source_as_backing(const json_t *source, char **ret, struct platter_error *err);

/* What the backing file of a qcow2 is called that is a target: nothing opens that. malloc'ed. */
char *migrate_mark(const struct migrate_state *state);

/* ---- migrate_snapshots.c: snapshots of the source become such of the target --------------------
 */

struct migrate_snapshots {
    uint32_t n;
    uint64_t first_size; /* of a new image that the oldest goes to */
    json_t *names;       /* a new reference, on failure as well */
};

/* What there is to bring along, and whether a target of `format` can have it as far as that can be
 * told before there is one. */
int migrate_snapshots_look(struct platter_disk *source, const char *target,
                           const struct format *format, struct migrate_snapshots *ret,
                           struct platter_error *err);
/* Copies them, of which there are some, to a target that is empty, has no backing file yet, and
 * first_size bytes. It has all that it should have then, and shows the source for the rest. */
int migrate_snapshots_copy(struct platter_disk *source, struct platter_disk *target,
                           struct migrate_state *state,
                           const struct platter_migrate_prepare_options *o,
                           struct platter_error *err);
/* Before a target is removed that goes only without its snapshots: those that came along are
 * removed, if there are no others. */
int migrate_snapshots_remove(const struct migrate_state *state, const char *keys,
                             struct platter_error *err);

/* ---- migrate_control.c ------------------------------------------------------------------------
 */

/* Listens from now on, in a thread of its own, for control_call() of other processes, which must
 * belong to the same user or to root. */
int control_open(struct platter_migration *m, struct control **ret, struct platter_error *err);
/* No call is served any more, and all have been answered. NULL is fine. */
void control_close(struct control *c);

/*
 * Asks the owner of a migration: "execute" (with "workers" and "rate"; told of progress, and that
 * it ends by what `progress` answers), "status" (*ret_answer, a new reference), "commit". Errors
 * are those the owner had. ENOTCONN: there is no owner that listens; ECONNRESET: there was, but it
 * has ended before it had an answer. Takes the request.
 */
int control_call(const struct migrate_state *state, const char *target, json_t *request,
                 platter_progress_fn progress, void *opaque, json_t **ret_answer,
                 struct platter_error *err);

/* ---- migrate_ops.c: the public functions of their names -------------------------------------- */

int ops_migrate_prepare(const char *source, const struct platter_open_options *open,
                        const char *target, const struct platter_migrate_prepare_options *options,
                        struct platter_error *err);
int ops_migrate_open(const char *target, const struct platter_migrate_options *options,
                     struct platter_migration **ret, struct platter_error *err);
int ops_migrate_close(struct platter_migration *m, struct platter_error *err);
int ops_migrate_execute(const char *target, const struct platter_migrate_options *options,
                        struct platter_error *err);
int ops_migrate_status(const char *target, const struct platter_migrate_options *options,
                       json_t **ret, struct platter_error *err);
int ops_migrate_commit(const char *target, const struct platter_migrate_options *options,
                       struct platter_error *err);
int ops_migrate_abort(const char *target, const struct platter_migrate_options *options,
                      struct platter_error *err);

#endif
