/* SPDX-License-Identifier: MIT */
/*
 * New content for a file, all of it at once.
 *
 * It is made durable in a new file beside the old one. If that can be to everybody what the old one
 * is, it takes over name and locks. If not (the old one has other names as well; its owner or
 * its attributes are not ours to give), what is in the new file is then written over the old one:
 * until that is durable, a crash leaves the new file to be found, whole.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/memory.h"
#include "stream/file.h"

/* These bytes and nothing else, durably. */
static int write_all(const char *name, int fd, const char *bytes, size_t len,
                     struct platter_error *err)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = pwrite(fd, bytes + done, len - done, (off_t)done);
        if (n > 0)
            done += (size_t)n;
        else if (n == 0 || errno != EINTR)
            return fail_errno(err, n == 0 ? ENOSPC : errno, "%s: cannot write its new content",
                              name);
    }
    if (ftruncate(fd, (off_t)len) < 0 || fsync(fd) < 0)
        return fail_errno(err, errno, "%s: cannot flush its new content", name);
    return 0;
}

/* ---- whether one file can be another --------------------------------------------------------- */

enum { ATTRIBUTES = 4096 }; /* bytes of names, of a value: who has more keeps the file */

/* Gives a file an attribute of another, unless it has it; false: that may not be. */
static bool copy_attribute(int from, int to, const char *name)
{
    char value[ATTRIBUTES], there[ATTRIBUTES];
    ssize_t len = fgetxattr(from, name, value, sizeof value);
    if (len < 0)
        return false;
    if (fgetxattr(to, name, there, sizeof there) == len && memcmp(value, there, (size_t)len) == 0)
        return true;
    return fsetxattr(to, name, value, (size_t)len, 0) == 0;
}

/* Access lists, labels and what else a file has beside its bytes; and none that it has not. */
static bool copy_attributes(int from, int to)
{
    char names[ATTRIBUTES];
    ssize_t len = flistxattr(from, names, sizeof names);
    if (len < 0)
        return errno == ENOTSUP;
    for (const char *name = names; name < names + len; name += strlen(name) + 1)
        if (!copy_attribute(from, to, name))
            return false;
    return flistxattr(to, NULL, 0) == len;
}

static bool can_be(int new, int old)
{
    struct stat x, y;
    return fstat(old, &y) == 0 && y.st_nlink == 1 && copy_attributes(old, new) &&
           fstat(new, &x) == 0 && x.st_uid == y.st_uid && x.st_gid == y.st_gid &&
           (x.st_mode & 0777) == (y.st_mode & 0777);
}

/* ---- the two ways ---------------------------------------------------------------------------- */

/* The new file gets locks and name, and the stream goes on with it. */
static int take_over(struct file_stream *f, struct temporary *t, int fd, struct platter_error *err)
{
    unsigned use = 0, deny = 0;
    struct stat st;
    int r = file_lock_change(fd, f->head.name, &use, &deny, f->use, f->deny, err);
    if (r == 0 && fstat(fd, &st) < 0)
        r = fail_errno(err, errno, "%s: cannot examine its new file", f->head.name);
    if (r == 0)
        r = temporary_publish(t, false, err);
    if (r < 0)
        return r;
    /* The content is the new one now; whether that lasts is what the next flush says. */
    int lasts = temporary_flush_folder(t, NULL);
    if (dup3(fd, f->fd, O_CLOEXEC) < 0)
        r = lasts = fail_errno(err, errno, "%s: cannot go on with its new file", f->head.name);
    if (lasts < 0)
        atomic_store(&f->flush_failed, lasts);
    f->dev = st.st_dev;
    f->ino = st.st_ino;
    if (f->direct_fd >= 0)
        atomic_store(&f->direct_refused, true);
    return r;
}

/* The new file is what is left if this is cut off. */
static int write_over(struct file_stream *f, struct temporary *t, const void *bytes, size_t len,
                      struct platter_error *err)
{
    int r = temporary_flush_folder(t, err);
    if (r < 0)
        return r;
    if (fallocate(f->fd, FALLOC_FL_KEEP_SIZE, 0, len > 0 ? (off_t)len : 1) < 0 &&
        (errno == ENOSPC || errno == EDQUOT || errno == EFBIG))
        return fail_errno(err, errno, "%s: has no room for its new content", f->head.name);
    r = write_all(f->head.name, f->fd, bytes, len, err);
    if (r == 0)
        return 0;
    atomic_store(&f->flush_failed, r);
    return fail_in(err, r, "%s: may be damaged now; what it should hold is in %s, beside it",
                   f->head.name, temporary_keep(t));
}

int file_replace(struct stream *s, const void *bytes, size_t len, struct platter_error *err)
{
    struct file_stream *f = (struct file_stream *)s;
    if (f->temporary)
        return stream_write_over(s, bytes, len, err);
    if (f->block)
        return fail(err, ENOTSUP, "%s: a block device cannot be replaced by a new file", s->name);
    struct temporary *t = NULL;
    int fd = -1;
    pthread_rwlock_wrlock(&f->size_lock);
    int r = temporary_open_over(s->name, f->dev, f->ino, &t, &fd, err);
    if (r == 0)
        r = write_all(s->name, fd, bytes, len, err);
    if (r == 0)
        r = can_be(fd, f->fd) ? take_over(f, t, fd, err) : write_over(f, t, bytes, len, err);
    temporary_free(t);
    if (fd >= 0)
        close(fd);
    pthread_rwlock_unlock(&f->size_lock);
    return r;
}
