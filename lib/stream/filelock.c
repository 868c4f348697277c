/* SPDX-License-Identifier: MIT */
/*
 * QEMU's locks on image files (qcow2.md section 21): byte 100 + i says "I do this", byte 200 + i
 * says "I deny this to others". Everybody only takes read locks, which never collide by themselves;
 * who stands in whose way is found by asking whether a write lock could be had.
 */
#include <fcntl.h>
#include <unistd.h>

#include "base/memory.h"
#include "stream/file.h"

enum {
    USE_BYTE = 100,
    DENY_BYTE = 200,
    PERMISSIONS = 4 /* bits 0 to 3; 2 (write what is there already) is never used here */
};

/* Locks or unlocks one byte. -EBUSY: somebody is in the way; -ENOTSUP: the file system has no
 * locks, or nobody who keeps them (ENOLCK, of network file systems). */
static int lock_byte(int fd, off_t byte, short type)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
        return 0;
    switch (errno) {
    case EAGAIN:
    case EACCES:
        return -EBUSY;
    case ENOLCK:
    case ENOSYS:
    case EOPNOTSUPP:
    case EINVAL:
        return -ENOTSUP;
    default:
        return -errno;
    }
}

/* Locks or unlocks the bytes of all bits of a mask; stops at the first failure. */
static int lock_bytes(int fd, off_t first, unsigned mask, short type)
{
    for (int i = 0; i < PERMISSIONS; i++) {
        int r = mask & 1u << i ? lock_byte(fd, first + i, type) : 0;
        if (r < 0)
            return r;
    }
    return 0;
}

/* The bits of a mask on whose bytes somebody else has a lock that a lock of that type would collide
 * with. */
static unsigned foreign_locks(int fd, off_t first, unsigned mask, short type)
{
    unsigned found = 0;
    for (int i = 0; i < PERMISSIONS; i++) {
        struct flock lock = {
            .l_type = type, .l_whence = SEEK_SET, .l_start = first + i, .l_len = 1};
        if ((mask & 1u << i) && fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK)
            found |= 1u << i;
    }
    return found;
}

/* What stands in our way, and on which byte. */
struct conflict {
    const char *what; /* NULL: nothing */
    off_t byte;
};

static struct conflict conflict_at(off_t first, unsigned bits, const char *what)
{
    return (struct conflict){what, bits ? first + __builtin_ctz(bits) : first};
}

static struct conflict find_conflict(int fd, unsigned use, unsigned deny)
{
    const unsigned change = STREAM_LOCK_WRITE | STREAM_LOCK_RESIZE;
    unsigned users = foreign_locks(fd, USE_BYTE, deny, F_WRLCK);
    unsigned deniers = foreign_locks(fd, DENY_BYTE, use, F_WRLCK);
    if (users & change)
        return conflict_at(USE_BYTE, users & change, "write lock held");
    if (users)
        return conflict_at(USE_BYTE, users, "read lock held");
    if (deniers & STREAM_LOCK_READ)
        return conflict_at(DENY_BYTE, STREAM_LOCK_READ, "exclusive lock held");
    if (deniers)
        return conflict_at(DENY_BYTE, deniers, "it allows no writers beside it");
    return conflict_at(0, 0, NULL);
}

/* One of our own bytes could not be had: it is locked against readers. */
static struct conflict find_exclusive(int fd, unsigned use, unsigned deny)
{
    unsigned users = foreign_locks(fd, USE_BYTE, use, F_RDLCK);
    unsigned deniers = foreign_locks(fd, DENY_BYTE, deny, F_RDLCK);
    return users ? conflict_at(USE_BYTE, users, "exclusive lock held")
                 : conflict_at(DENY_BYTE, deniers, "exclusive lock held");
}

/* Looking for who it is takes time: call it with the locks released that failed. */
static int fail_busy(int fd, const char *name, const struct conflict *c, struct platter_error *err)
{
    auto_free char *who = err ? file_lock_holder(fd, c->byte) : NULL;
    return fail(err, EBUSY,
                "%s: is in use by %s (%s): end it first, or, if it only has to be read and may be "
                "inconsistent, use -U",
                name, who ? who : "another program", c->what);
}

/* Takes the locks of the masks, and none of them if that fails. */
static int take_locks(int fd, const char *name, unsigned use, unsigned deny, struct conflict *ret,
                      struct platter_error *err)
{
    int r = lock_bytes(fd, USE_BYTE, use, F_RDLCK);
    if (r == 0)
        r = lock_bytes(fd, DENY_BYTE, deny, F_RDLCK);
    if (r == 0)
        return 0;
    if (r == -EBUSY)
        *ret = find_exclusive(fd, use, deny);
    lock_bytes(fd, USE_BYTE, use, F_UNLCK);
    lock_bytes(fd, DENY_BYTE, deny, F_UNLCK);
    if (r != -EBUSY && r != -ENOTSUP)
        fail_errno(err, -r, "%s: cannot be locked", name);
    return r;
}

int file_lock_change(int fd, const char *name, unsigned *held_use, unsigned *held_deny,
                     unsigned use, unsigned deny, struct platter_error *err)
{
    struct conflict c = {NULL, 0};
    int r = take_locks(fd, name, use & ~*held_use, deny & ~*held_deny, &c, err);
    if (r == -ENOTSUP)
        return 0; /* they are advice, and QEMU must have been told to do without as well */
    if (r < 0 && r != -EBUSY)
        return r;
    if (r == 0)
        c = find_conflict(fd, use, deny);
    if (c.what) {
        lock_bytes(fd, USE_BYTE, use & ~*held_use, F_UNLCK);
        lock_bytes(fd, DENY_BYTE, deny & ~*held_deny, F_UNLCK);
        return fail_busy(fd, name, &c, err);
    }
    lock_bytes(fd, USE_BYTE, *held_use & ~use, F_UNLCK);
    lock_bytes(fd, DENY_BYTE, *held_deny & ~deny, F_UNLCK);
    *held_use = use;
    *held_deny = deny;
    return 0;
}
