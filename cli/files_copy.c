/* SPDX-License-Identifier: MIT */
/* Copies files, links and folders out of a file system: see files_copy.h. */
#include "files_copy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

/* What cannot be read is no reason to leave out the rest. */
static int not_read(struct copy *c, const char *shown)
{
    say("%s: %s", shown, c->err.message);
    c->failed = true;
    return 0;
}

/* ---- bytes ----------------------------------------------------------------------------------- */

struct pouring {
    struct copy *copy;
    int fd;
    bool in_order; /* a pipe: holes are written */
    uint64_t at;   /* where it is, then */
    int failed;    /* errno of a write */
};

static int write_all(struct pouring *p, const char *bytes, size_t len, uint64_t at)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = p->in_order ? write(p->fd, bytes + done, len - done)
                                : pwrite(p->fd, bytes + done, len - done, (off_t)(at + done));
        if (n < 0 && errno == EINTR && !signals_caught())
            continue;
        if (n <= 0) {
            p->failed = n < 0 ? errno : ENOSPC;
            return -p->failed;
        }
        done += (size_t)n;
    }
    return 0;
}

/* A pipe gets zeros up to there. */
static int pour_hole(struct pouring *p, uint64_t to)
{
    static const char zeros[64 << 10];
    int r = 0;
    while (p->in_order && r == 0 && p->at < to) {
        size_t n = to - p->at < sizeof zeros ? (size_t)(to - p->at) : sizeof zeros;
        r = write_all(p, zeros, n, p->at);
        p->at += n;
        if (r == 0 && signals_caught())
            r = files_fail(&p->copy->err, ECANCELED, "interrupted");
    }
    return r;
}

static int pour_run(void *opaque, const struct run *run, struct platter_error *err)
{
    struct pouring *p = opaque;
    struct copy *c = p->copy;
    int r = pour_hole(p, run->at);
    for (uint64_t done = 0; r == 0 && done < run->length;) {
        size_t n =
            run->length - done < COPY_BUFFER ? (size_t)(run->length - done) : (size_t)COPY_BUFFER;
        const char *from = c->buffer;
        if (run->bytes)
            from = (const char *)run->bytes + done;
        else
            r = volume_read(&c->fs->volume, c->buffer, n, run->offset + done, err);
        if (r == 0)
            r = write_all(p, from, n, run->at + done);
        if (r == 0 && signals_caught())
            r = files_fail(err, ECANCELED, "interrupted");
        done += n;
    }
    p->at = run->at + run->length;
    return r;
}

int copy_to_pipe(struct copy *c, const struct node *n, int fd)
{
    struct pouring p = {c, fd, .in_order = true};
    int r = c->fs->ops->runs(c->fs->own, n, pour_run, &p, &c->err);
    if (r == 0)
        r = pour_hole(&p, n->size);
    if (p.failed)
        return put_failed("standard output", "cannot write to it", p.failed);
    if (r < 0)
        say_error(&c->err);
    return r;
}

/* ---- what a file has beside its bytes -------------------------------------------------------- */

/* Never the bits that would make a program run as somebody else: a disk may come from anybody. */
static mode_t mode_of(const struct copy *c, const struct node *n)
{
    return c->preserve ? n->mode & 01777 : n->mode & 0777 & ~c->mask;
}

/* The highest number is nobody's: to the system it says that the owner stays as it is. */
static bool is_owner(const struct node *n)
{
    return n->uid != UINT32_MAX && n->gid != UINT32_MAX;
}

static int dress(const struct copy *c, const struct node *n, int fd, const char *shown)
{
    struct timespec times[2] = {n->atime, n->mtime};
    if (c->owner && (!is_owner(n) || fchown(fd, n->uid, n->gid) < 0))
        return put_failed(shown, "cannot set its owner", is_owner(n) ? errno : EINVAL);
    if (fchmod(fd, mode_of(c, n)) < 0)
        return put_failed(shown, "cannot set its mode", errno);
    if (c->preserve && futimens(fd, times) < 0)
        return put_failed(shown, "cannot set its times", errno);
    return 0;
}

/* ---- one of each kind ------------------------------------------------------------------------ */

/* Its content; *ret_lost: it cannot be read, and that is all that is wrong. */
static int fill(struct copy *c, const struct node *n, int fd, const char *shown, bool *ret_lost)
{
    struct pouring p = {.copy = c, .fd = fd};
    *ret_lost = false;
    if (n->size > INT64_MAX || ftruncate(fd, (off_t)n->size) < 0)
        return put_failed(shown, "cannot make a file of its size",
                          n->size > INT64_MAX ? EFBIG : errno);
    int r = c->fs->ops->runs(c->fs->own, n, pour_run, &p, &c->err);
    if (p.failed)
        return put_failed(shown, "cannot write it", p.failed);
    if (signals_caught()) {
        say("interrupted: %s: is not complete, and was not made", shown);
        return -ECANCELED;
    }
    *ret_lost = r < 0;
    return r < 0 ? not_read(c, shown) : 0;
}

static int copy_file(struct copy *c, const struct node *n, int folder, const char *name,
                     const char *shown)
{
    struct fresh f;
    bool lost = false;
    int r = fresh_open(&f, folder, shown);
    if (r == 0)
        r = fill(c, n, f.fd, shown, &lost);
    if (r == 0 && !lost)
        r = dress(c, n, f.fd, shown);
    if (r == 0 && !lost && !c->in_tree && fsync(f.fd) < 0)
        r = put_failed(shown, "cannot make it durable", errno);
    if (r == 0 && !lost)
        r = fresh_place(c, &f, name, shown);
    if (r == 0 && !lost && !c->in_tree) {
        struct stat st;
        fsync(folder);
        r = fstat(f.fd, &st) == 0 ? stat_keep(&c->made, &c->n_made, &st) : 0;
    }
    fresh_close(&f);
    return r;
}

/* The owner of the link, and not of what somebody else may have put in its place meanwhile. */
static int own_link(const struct node *n, int folder, const char *name, const char *shown)
{
    struct stat st;
    int fd = openat(folder, name, O_PATH | O_NOFOLLOW | O_CLOEXEC), r = 0;
    if (fd < 0 || fstat(fd, &st) < 0)
        r = put_failed(shown, "cannot open what was made", errno);
    else if (!S_ISLNK(st.st_mode))
        r = put_failed(shown, "is no link any more", EEXIST);
    else if (!is_owner(n) || fchownat(fd, "", n->uid, n->gid, AT_EMPTY_PATH) < 0)
        r = put_failed(shown, "cannot set its owner", is_owner(n) ? errno : EINVAL);
    if (fd >= 0)
        close(fd);
    return r;
}

static int copy_link(struct copy *c, const struct node *n, int folder, const char *name,
                     const char *shown)
{
    char *target = NULL;
    struct timespec times[2] = {n->atime, n->mtime};
    if (c->fs->ops->target(c->fs->own, n, &target, &c->err) < 0)
        return not_read(c, shown);
    int r = fresh_link(c, target, folder, name, shown);
    free(target);
    if (r == 0 && c->owner)
        r = own_link(n, folder, name, shown);
    if (r == 0 && c->preserve && utimensat(folder, name, times, AT_SYMLINK_NOFOLLOW) < 0)
        r = put_failed(shown, "cannot set its times", errno);
    return r;
}

static int enter(struct copy *c, const struct node *dir)
{
    int r = c->depth < COPY_DEPTH ? seen_add(&c->seen, dir->place, &c->err)
                                  : files_fail(&c->err, ENAMETOOLONG, "is in too many folders");
    c->depth += r == 0;
    return r;
}

static int copy_listing(struct copy *c, const struct node *dir, int folder, const char *shown);

/* Opens the folder of that name, which is made where there is none; a link is none. */
static int folder_open(int folder, const char *name, const char *shown, bool *ret_new)
{
    *ret_new = mkdirat(folder, name, 0700) == 0;
    if (!*ret_new && errno != EEXIST)
        return put_failed(shown, "cannot make a folder", errno);
    int fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && (errno == ELOOP || errno == ENOTDIR)) {
        say("%s: what has its name here is no folder, and is left alone", shown);
        return -EEXIST;
    }
    return fd < 0 ? put_failed(shown, "cannot open the folder", errno) : fd;
}

static int copy_folder(struct copy *c, const struct node *n, int folder, const char *name,
                       const char *shown)
{
    bool new;
    if (enter(c, n) < 0)
        return not_read(c, shown);
    int fd = folder_open(folder, name, shown, &new);
    int r = fd < 0 ? fd : copy_listing(c, n, fd, shown);
    if (r == 0 && (new || c->preserve))
        r = dress(c, n, fd, shown);
    if (fd >= 0)
        close(fd);
    c->depth--;
    return r;
}

/* ---- trees ----------------------------------------------------------------------------------- */

/* Whether something failed here for what this one file or folder is, be it that its name or size is
 * not possible here. A disk must not be able to keep all else from being copied by one of those. */
static bool is_of_one(int r)
{
    static const int codes[] = {EEXIST, ENAMETOOLONG, EFBIG, EINVAL,    EILSEQ, EACCES,
                                EISDIR, ENOTDIR,      ELOOP, EOVERFLOW, EMFILE};
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (r == -codes[i])
            return true;
    return false;
}

static int copy_entry(struct copy *c, const struct entry *e, int folder, const char *shown)
{
    struct node n;
    char *below = NULL;
    if (!name_is_sound(e->name)) {
        files_fail(&c->err, PLATTER_ECORRUPT, "has an entry with a name that cannot be: \"%s\"",
                   e->name);
        return not_read(c, shown);
    }
    if (asprintf(&below, "%s/%s", shown[1] ? shown : "", e->name) < 0)
        return put_failed(shown, "cannot go on", ENOMEM);
    int r = c->fs->ops->node(c->fs->own, e->id, &n, &c->err);
    r = r < 0 ? not_read(c, below) : copy_node(c, &n, folder, e->name, below);
    free(below);
    if (!is_of_one(r))
        return r;
    c->failed = true;
    return 0;
}

static int copy_listing(struct copy *c, const struct node *dir, int folder, const char *shown)
{
    struct listing l = {0};
    int r = c->fs->ops->list(c->fs->own, dir, &l, &c->err);
    if (r < 0)
        r = not_read(c, shown);
    if (r == 0 && listing_twice(&l)) {
        files_fail(&c->err, PLATTER_ECORRUPT,
                   "has more than one \"%s\", of which one takes the place of another",
                   listing_twice(&l));
        not_read(c, shown);
    }
    for (size_t i = 0; r == 0 && i < l.n; i++)
        r = copy_entry(c, &l.entries[i], folder, shown);
    listing_free(&l);
    return r;
}

int copy_entries(struct copy *c, const struct node *dir, int folder, const char *shown)
{
    if (enter(c, dir) < 0)
        return not_read(c, shown);
    int r = copy_listing(c, dir, folder, shown);
    c->depth--;
    return r;
}

int copy_node(struct copy *c, const struct node *n, int folder, const char *name, const char *shown)
{
    if (S_ISREG(n->mode))
        return copy_file(c, n, folder, name, shown);
    if (S_ISLNK(n->mode))
        return copy_link(c, n, folder, name, shown);
    if (S_ISDIR(n->mode) && c->recursive)
        return copy_folder(c, n, folder, name, shown);
    if (S_ISDIR(n->mode)) {
        files_fail(&c->err, EISDIR, "is a folder: -r copies those");
        return not_read(c, shown);
    }
    say("%s: is a device, a FIFO or a socket: it is left out", shown);
    c->skipped++;
    return 0;
}
