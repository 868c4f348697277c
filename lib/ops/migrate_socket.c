/* SPDX-License-Identifier: MIT */
/*
 * Where the owner of a migration listens: beside the state where that is a file, else, or where no
 * socket can be, in a folder of the user's own. Names are short whatever the path is, as an address
 * leads through the open folder.
 *
 * The owner takes the first place where it can be, a caller tries all of them.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/awake.h"
#include "base/hash.h"
#include "base/memory.h"
#include "ops/migrate_control.h"
#include "stream/stream.h"

enum { PLACES = 4, LONGEST_NAME = 79 /* of sun_path the folder's descriptor takes the rest */ };

/* ---- places ----------------------------------------------------------------------------------
 */

/* The first half of the SHA-256 of a text, in hex. */
static void name_hash(const char *text, char ret[33])
{
    uint8_t digest[HASH_MAX];
    hash_bytes(hash_find("sha256"), text, strlen(text), NULL, 0, digest);
    for (int i = 0; i < 16; i++)
        snprintf(ret + 2 * i, 3, "%02x", digest[i]);
}

static int state_descriptor(const struct migrate_state *state)
{
    const struct stream_ops *ops = state->stream->ops;
    return ops->descriptor ? ops->descriptor(state->stream) : -1;
}

/* STATE.sock, where the state is a file. */
static void place_beside(const struct migrate_state *state, struct socket_place *ret)
{
    if (state_descriptor(state) < 0)
        return;
    const char *path = state->stream->name, *slash = strrchr(path, '/');
    const char *base = slash ? slash + 1 : path;
    auto_free char *folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    char hash[33];
    name_hash(base, hash);
    if (strlen(base) + strlen(".sock") <= LONGEST_NAME)
        snprintf(ret->name, sizeof ret->name, "%s.sock", base);
    else
        snprintf(ret->name, sizeof ret->name, ".platter-%s.sock", hash);
    ret->folder = folder ? open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
}

/* Whether nobody else can put anything into a folder. */
static bool folder_is_ours(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && st.st_uid == geteuid() && (st.st_mode & 077) == 0;
}

/* ... of ours, by the identity of the target. */
static void place_apart(const struct migrate_state *state, const char *folder, bool make,
                        struct socket_place *ret)
{
    char hash[33];
    if (!folder || folder[0] != '/' || (make && mkdir(folder, 0700) < 0 && errno != EEXIST))
        return;
    name_hash(state->id, hash);
    snprintf(ret->name, sizeof ret->name, "platter-%s.sock", hash);
    ret->folder = open(folder, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (ret->folder >= 0 && !folder_is_ours(ret->folder)) {
        close(ret->folder);
        ret->folder = -1;
    }
}

/* Number i of the places; folder is -1 if it is not there. */
static struct socket_place place_open(const struct migrate_state *state, unsigned i, bool make)
{
    struct socket_place place = {.folder = -1};
    char folder[64];
    if (i == 0)
        place_beside(state, &place);
    if (i == 1)
        place_apart(state, getenv("XDG_RUNTIME_DIR"), false, &place);
    snprintf(folder, sizeof folder, i == 2 ? "/run/user/%u" : "/tmp/platter-%u",
             (unsigned)geteuid());
    if (i == 2 || i == 3)
        place_apart(state, folder, make && i == 3, &place);
    return place;
}

static void place_close(struct socket_place *place)
{
    if (place->folder >= 0)
        close(place->folder);
    place->folder = -1;
}

static struct sockaddr_un place_address(const struct socket_place *place)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s", place->folder,
             place->name);
    return address;
}

void socket_remove(struct socket_place *place)
{
    if (place->folder >= 0)
        unlinkat(place->folder, place->name, 0);
    place_close(place);
}

/* ---- sockets ---------------------------------------------------------------------------------
 */

static int socket_new(void)
{
    struct timeval patience = {.tv_sec = CONTROL_PATIENCE / 1000};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    return fd;
}

/* What is there and is a socket was left by an owner that was killed. 0 or -errno. */
static int place_bind(const struct socket_place *place, int fd)
{
    struct stat st;
    struct sockaddr_un address = place_address(place);
    bool there = fstatat(place->folder, place->name, &st, AT_SYMLINK_NOFOLLOW) == 0;
    if (there && !S_ISSOCK(st.st_mode))
        return -EEXIST;
    if (there && unlinkat(place->folder, place->name, 0) < 0)
        return -errno;
    if (fchmod(fd, 0600) < 0 || /* the mode of what bind() makes */
        bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
        return -errno;
    return listen(fd, SOMAXCONN) < 0 ? -errno : 0;
}

int socket_listen(const struct migrate_state *state, struct socket_place *ret, int *ret_fd,
                  struct platter_error *err)
{
    int r = -ENOENT;
    const char *name = state->stream->name;
    for (unsigned i = 0; i < PLACES; i++) {
        struct socket_place place = place_open(state, i, true);
        if (place.folder < 0)
            continue;
        int fd = socket_new();
        int code = fd < 0 ? -errno : place_bind(&place, fd);
        if (code == 0) {
            *ret = place;
            *ret_fd = fd;
            return 0;
        }
        r = r == -ENOENT ? code : r; /* of the place where it ought to be */
        if (fd >= 0)
            close(fd);
        place_close(&place);
    }
    return fail_errno(err, -r,
                      "%s: there is no place for the socket %s.sock, nor in a folder "
                      "of this user (XDG_RUNTIME_DIR)",
                      name, name);
}

static int peer_of(int fd, uid_t *ret)
{
    struct ucred who;
    socklen_t len = sizeof who;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0)
        return -errno;
    *ret = who.uid;
    return 0;
}

bool socket_peer_may(int fd)
{
    uid_t peer = 0;
    return peer_of(fd, &peer) == 0 && (peer == geteuid() || peer == 0);
}

/* Whether that is an owner: somebody else could stand where there was none. Who wrote the state
 * says what he likes anyhow. */
static bool may_be_owner(const struct migrate_state *state, int fd)
{
    uid_t peer = 0;
    struct stat st;
    int descriptor = state_descriptor(state);
    if (peer_of(fd, &peer) < 0)
        return false;
    return peer == geteuid() || peer == 0 ||
           (geteuid() == 0 && descriptor >= 0 && fstat(descriptor, &st) == 0 && st.st_uid == peer);
}

static int place_connect(const struct migrate_state *state, const struct socket_place *place,
                         int *ret_fd)
{
    struct sockaddr_un address = place_address(place);
    int fd = socket_new();
    int r = fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0 ? -errno : 0;
    if (r == 0 && !may_be_owner(state, fd))
        r = -ENOENT;
    if (r == 0)
        *ret_fd = fd;
    else if (fd >= 0)
        close(fd);
    return r;
}

int socket_connect(const struct migrate_state *state, const char *target, int *ret_fd,
                   struct platter_error *err)
{
    for (unsigned i = 0; i < PLACES; i++) {
        struct socket_place place = place_open(state, i, false);
        if (place.folder < 0)
            continue;
        int r = place_connect(state, &place, ret_fd);
        place_close(&place);
        if (r == 0)
            return 0;
        if (r == -EACCES || r == -EPERM)
            return fail(err, EACCES, "%s: the process that has it belongs to another user", target);
        if (r != -ENOENT && r != -ECONNREFUSED && r != -ENOTSOCK && r != -EPROTOTYPE)
            return fail_errno(err, -r, "%s: the process that has it cannot be reached", target);
    }
    return fail(err, ENOTCONN, "%s: no process has it open", target);
}

/* ---- lines -----------------------------------------------------------------------------------
 */

/* The line that is there, if one is. */
static int line_take(struct line_reader *r, json_t **ret)
{
    char *end = r->used ? memchr(r->bytes, '\n', r->used) : NULL;
    if (!end)
        return -EAGAIN;
    size_t length = (size_t)(end - r->bytes);
    *ret = json_loadb(r->bytes, length, JSON_REJECT_DUPLICATES, NULL);
    r->used -= length + 1;
    memmove(r->bytes, end + 1, r->used);
    if (json_is_object(*ret))
        return 0;
    json_decref(*ret);
    *ret = NULL;
    return -EBADMSG;
}

static int line_grow(struct line_reader *r)
{
    if (r->used < r->room)
        return 0;
    if (r->room >= r->most)
        return -EMSGSIZE;
    size_t room = r->room ? 2 * r->room : 4096;
    char *bytes = realloc(r->bytes, room);
    if (!bytes)
        return -ENOMEM;
    r->bytes = bytes;
    r->room = room;
    return 0;
}

int line_read(struct line_reader *r, int milliseconds, json_t **ret)
{
    uint64_t until = now_ns() + (uint64_t)milliseconds * 1000000;
    for (;;) {
        int code = line_take(r, ret);
        if (code != -EAGAIN)
            return code;
        code = line_grow(r);
        if (code < 0)
            return code;
        uint64_t now = now_ns();
        struct pollfd news = {.fd = r->fd, .events = POLLIN};
        int n = poll(&news, 1, now < until ? (int)((until - now) / 1000000) + 1 : 0);
        if (n == 0)
            return -ETIMEDOUT;
        if (n < 0)
            continue;
        ssize_t got = recv(r->fd, r->bytes + r->used, r->room - r->used, MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
            return -ECONNRESET;
        r->used += got > 0 ? (size_t)got : 0;
    }
}

void line_reader_free(struct line_reader *r)
{
    free(r->bytes);
    *r = (struct line_reader){.fd = -1};
}

int line_send(int fd, json_t *value, int flags)
{
    char *text = value ? json_dumps(value, JSON_COMPACT | JSON_ENSURE_ASCII) : NULL;
    size_t length = text ? strlen(text) : 0, done = 0;
    int r = text ? 0 : -ENOMEM;
    json_decref(value);
    if (text)
        text[length++] = '\n'; /* in the place of the NUL */
    while (r == 0 && done < length) {
        ssize_t n = send(fd, text + done, length - done, flags | MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR)
            r = errno == EAGAIN && !(flags & MSG_DONTWAIT) ? -ETIMEDOUT : -errno;
        done += n > 0 ? (size_t)n : 0;
    }
    free(text);
    return r;
}
