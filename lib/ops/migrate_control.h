/* SPDX-License-Identifier: MIT */
/*
 * How processes reach the owner of a migration: a Unix socket that only the same user and root can
 * use. One connection is one request, a JSON object in a line, and its answer:
 *
 *     {"do": "execute", "id": ID, "workers": N, "rate": N}   {"done": N, "total": N, "moved": N}
 * ...
 *     {"do": "status", "id": ID}
 *     {"do": "commit", "id": ID}
 *     {"do": "yield", "id": ID}
 *
 * and then {"ok": true}, with "status" where that was asked, or {"code": ERRNO, "message": TEXT}.
 * Whoever closes the connection while the copy runs ends it.
 *
 *     migrate_socket.c    where the socket is, who may be at its other end, lines
 *     migrate_control.c   the owner's side
 *     migrate_call.c      the caller's side
 */
#ifndef OPS_MIGRATE_CONTROL_H
#define OPS_MIGRATE_CONTROL_H

#include "ops/migrate.h"

enum {
    CONTROL_MOST_REQUEST = 64 << 10, /* bytes of a line: a request is four words */
    CONTROL_MOST_ANSWER = 1 << 20,   /* ... a status has at most 1000 ranges */
    CONTROL_PATIENCE = 10 * 1000     /* milliseconds for a line that is under way */
};

/* ---- the owner -------------------------------------------------------------------------------
 */

/* From now on the owner gives way to a process that asks for it (yield), which it does not
 * otherwise: it is there for its copy alone. That is stopped then. */
void control_may_yield(struct control *c);
/* Whether somebody asked. */
bool control_yielded(struct control *c);

/* ---- the socket ------------------------------------------------------------------------------
 */

/* A folder, kept open, with the name of a socket in it. */
struct socket_place {
    int folder; /* -1: none */
    char name[80];
};

/* Makes the socket, in the place of one that nobody listens at, for the image's lock says that we
 * are the owner. */
int socket_listen(const struct migrate_state *state, struct socket_place *ret, int *ret_fd,
                  struct platter_error *err);
/* Nobody finds it from now on. */
void socket_remove(struct socket_place *place);
/* ENOTCONN: nobody listens. */
int socket_connect(const struct migrate_state *state, const char *target, int *ret_fd,
                   struct platter_error *err);
/* Whether who called may: the same user, or root. */
bool socket_peer_may(int fd);

/* ---- lines -----------------------------------------------------------------------------------
 */

struct line_reader {
    int fd;
    size_t most; /* bytes of a line */
    char *bytes; /* what was read of it; line_reader_free() */
    size_t used, room;
};

/* The next line, within so many milliseconds; what came of it stays for the next call. ETIMEDOUT,
 * ECONNRESET (no more comes), EMSGSIZE, EBADMSG (it is no JSON object), without a sentence. */
int line_read(struct line_reader *r, int milliseconds, json_t **ret);
void line_reader_free(struct line_reader *r);
/* Takes the value; `flags` are those of send(). Without a sentence. */
int line_send(int fd, json_t *value, int flags);

#endif
