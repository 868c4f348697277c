/* SPDX-License-Identifier: MIT */
/*
 * QEMU's locks on image files (qcow2.md section 21): byte 100 + i says "I do this", byte 200 + i
 * says "I deny this to others". Everybody only takes read locks, which never collide by themselves;
 * who stands in whose way is found by asking whether a write lock could be had.
 */
#include <fcntl.h>
#include <unistd.h>

#include "stream/file.h"

enum {
    USE_BYTE = 100,
    DENY_BYTE = 200,
    PERMISSIONS = 4 /* bits 0 to 3; 2 (write what is there already) is never used here */
};

/* Locks or unlocks one byte. -ENOTSUP: the file system has no locks. */
static int lock_byte(int fd, off_t byte, short type)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
        return 0;
    return errno == EAGAIN || errno == EACCES ? -EBUSY : -ENOTSUP;
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

/* The bits of a mask on whose bytes somebody else has a lock. */
static unsigned foreign_locks(int fd, off_t first, unsigned mask)
{
    unsigned found = 0;
    for (int i = 0; i < PERMISSIONS; i++) {
        struct flock lock = {
            .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = first + i, .l_len = 1};
        if ((mask & 1u << i) && fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK)
            found |= 1u << i;
    }
    return found;
}

static int fail_busy(const char *name, const char *what, struct platter_error *err)
{
    return fail(
        err, EBUSY,
        "%s: is in use by another program (%s): end it first, or, if it only has to be read "
        "and may be inconsistent, use -U",
        name, what);
}

static int check_foreign(int fd, const char *name, unsigned use, unsigned deny,
                         struct platter_error *err)
{
    unsigned users = foreign_locks(fd, USE_BYTE, deny);
    unsigned deniers = foreign_locks(fd, DENY_BYTE, use);
    if (users & (STREAM_LOCK_WRITE | STREAM_LOCK_RESIZE))
        return fail_busy(name, "write lock held", err);
    if (users)
        return fail_busy(name, "read lock held", err);
    if (deniers & STREAM_LOCK_READ)
        return fail_busy(name, "exclusive lock held", err);
    if (deniers)
        return fail_busy(name, "it allows no writers beside it", err);
    return 0;
}

int file_lock_change(int fd, const char *name, unsigned *held_use, unsigned *held_deny,
                     unsigned use, unsigned deny, struct platter_error *err)
{
    int r = lock_bytes(fd, USE_BYTE, use & ~*held_use, F_RDLCK);
    if (r == 0)
        r = lock_bytes(fd, DENY_BYTE, deny & ~*held_deny, F_RDLCK);
    if (r == -EBUSY)
        fail_busy(name, "exclusive lock held", err);
    else if (r == 0)
        r = check_foreign(fd, name, use, deny, err);
    if (r == -ENOTSUP)
        return 0; /* advice at best: go on without, as everybody does there */
    if (r < 0) {
        lock_bytes(fd, USE_BYTE, use & ~*held_use, F_UNLCK);
        lock_bytes(fd, DENY_BYTE, deny & ~*held_deny, F_UNLCK);
        return r;
    }
    lock_bytes(fd, USE_BYTE, *held_use & ~use, F_UNLCK);
    lock_bytes(fd, DENY_BYTE, *held_deny & ~deny, F_UNLCK);
    *held_use = use;
    *held_deny = deny;
    return 0;
}
