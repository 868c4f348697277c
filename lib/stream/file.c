/* SPDX-License-Identifier: MIT */
/*
 * Local files and block devices.
 *
 * The position of the descriptor is never used for data, so that any call may run beside any other.
 * A flush that failed once fails for ever: the kernel forgets the pages it could not write.
 */
#include "stream/file.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/awake.h"
#include "base/ckd.h"
#include "base/memory.h"

enum {
    DIRECT_ALIGN = 4096, /* of address, offset and length: no device in use wants more */
    /* Smaller writes are better gathered by the cache: measured, each waits for the file system. */
    DIRECT_LEAST = 512 * 1024,
    LEAST_BLOCK = 512,
    MOST_BLOCK = 64 << 10, /* network file systems speak of what they like to transfer */
    EAGER_EVERY = 8 << 20  /* bytes in the cache until the disk is told to begin */
};

static struct file_stream *file_of(struct stream *s)
{
    return (struct file_stream *)s;
}

/* The file system or device says that it does not do such a thing at all. */
static bool is_unsupported(int code)
{
    return code == EOPNOTSUPP || code == ENOSYS || code == ENOTTY || code == EINVAL ||
           code == EPERM;
}

static int file_size(struct stream *s, uint64_t *ret_size, struct platter_error *err)
{
    struct file_stream *f = file_of(s);
    struct stat st;
    if (f->block) {
        if (ioctl(f->fd, BLKGETSIZE64, ret_size) < 0)
            return fail_errno(err, errno, "%s: cannot tell the size of the device", s->name);
        return 0;
    }
    if (fstat(f->fd, &st) < 0)
        return fail_errno(err, errno, "%s: cannot tell the size of the file", s->name);
    *ret_size = (uint64_t)st.st_size;
    return 0;
}

static int file_pread(struct stream *s, void *buf, size_t len, hoff off, struct platter_error *err)
{
    struct file_stream *f = file_of(s);
    for (size_t done = 0; done < len;) {
        ssize_t n = pread(f->fd, (char *)buf + done, len - done, (off_t)(off + done));
        if (n > 0) {
            done += (size_t)n;
        } else if (n == 0) {
            return stream_fail_past_end(s, off, len, off + done, err);
        } else if (errno != EINTR) {
            return fail_errno(err, errno, "%s: cannot read %zu bytes at offset %" PRIu64, s->name,
                              len - done, off + done);
        }
    }
    return 0;
}

static void take_write_turn(struct file_stream *f)
{
    uint64_t until = 0;
    while (pthread_mutex_trylock(&f->write_turn) != 0)
        if (!stay_awake(&until)) {
            pthread_mutex_lock(&f->write_turn);
            return;
        }
}

static int write_all(const struct file_stream *f, const char *buf, size_t len, hoff off,
                     struct platter_error *err)
{
    while (len > 0) {
        ssize_t n = pwrite(f->fd, buf, len, (off_t)off);
        if (n > 0) {
            buf += n;
            off += (size_t)n;
            len -= (size_t)n;
        } else if (n == 0 || errno != EINTR) {
            return fail_errno(err, n == 0 ? ENOSPC : errno,
                              "%s: cannot write %zu bytes at offset %" PRIu64, f->head.name, len,
                              off);
        }
    }
    return 0;
}

static int write_cached(struct file_stream *f, const char *buf, size_t len, hoff off,
                        struct platter_error *err)
{
    if (len == 0)
        return 0;
    take_write_turn(f);
    int r = write_all(f, buf, len, off, err);
    pthread_mutex_unlock(&f->write_turn);
    return r;
}

/* Writes past the host's cache what is large and aligned, as far as it gets: bytes written. The
 * kernel keeps the cache true to what is written this way; whoever writes parts of the same block
 * at the same time is in the wrong anyhow. */
static size_t write_direct(struct file_stream *f, const char *buf, size_t len, hoff off)
{
    size_t want = round_down(len, DIRECT_ALIGN), done = 0;
    if (f->direct_fd < 0 || len < DIRECT_LEAST || ((uintptr_t)buf | off) % DIRECT_ALIGN != 0 ||
        atomic_load(&f->direct_refused))
        return 0;
    while (done < want) {
        ssize_t n = pwrite(f->direct_fd, buf + done, want - done, (off_t)(off + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EINVAL)
            atomic_store(&f->direct_refused, true);
        done += n > 0 ? (size_t)n : 0;
        if (n <= 0 || done % DIRECT_ALIGN != 0)
            break; /* the way through the cache will tell what is wrong, if anything is */
    }
    return done;
}

/* Has the disk begin with what is in the cache, so that little is left to wait for in the end. */
static void write_eagerly(struct file_stream *f, size_t len)
{
    if (f->direct_fd < 0 || len == 0)
        return;
    uint64_t before = atomic_fetch_add(&f->cached, len);
    if (before / EAGER_EVERY != (before + len) / EAGER_EVERY)
        sync_file_range(f->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

static int file_pwrite(struct stream *s, const void *buf, size_t len, hoff off,
                       struct platter_error *err)
{
    struct file_stream *f = file_of(s);
    pthread_rwlock_rdlock(&f->size_lock);
    size_t done = write_direct(f, buf, len, off);
    int r = write_cached(f, (const char *)buf + done, len - done, off + done, err);
    pthread_rwlock_unlock(&f->size_lock);
    write_eagerly(f, len - done);
    return r;
}

/* Waits for the disk with fdatasync() or fsync(). */
static int file_sync(struct stream *s, int (*sync_call)(int), struct platter_error *err)
{
    struct file_stream *f = file_of(s);
    int code = -atomic_load(&f->flush_failed);
    if (code == 0 && sync_call(f->fd) < 0) {
        code = errno;
        atomic_store(&f->flush_failed, -code);
    }
    if (code)
        return fail_errno(err, code, "%s: cannot flush: what was written may be lost", s->name);
    return 0;
}

static int file_flush(struct stream *s, struct platter_error *err)
{
    return file_sync(s, fdatasync, err);
}

/* Makes the file at least `size` long. */
static int file_grow(struct stream *s, uint64_t size, struct platter_error *err)
{
    struct file_stream *f = file_of(s);
    uint64_t now = 0;
    pthread_rwlock_wrlock(&f->size_lock);
    int r = file_size(s, &now, err);
    if (r == 0 && now < size && ftruncate(f->fd, (off_t)size) < 0)
        r = fail_errno(err, errno, "%s: cannot grow to %" PRIu64 " bytes", s->name, size);
    pthread_rwlock_unlock(&f->size_lock);
    return r;
}

/* fallocate() with a mode. -ENOTSUP, without a sentence, where it is not known here. */
static int file_fallocate(struct stream *s, int mode, hoff off, uint64_t len,
                          struct platter_error *err)
{
    int code;
    do {
        code = fallocate(file_of(s)->fd, mode, (off_t)off, (off_t)len) < 0 ? errno : 0;
    } while (code == EINTR);
    if (code == 0)
        return 0;
    if (is_unsupported(code))
        return -ENOTSUP;
    return fail_errno(err, code, "%s: cannot %s %" PRIu64 " bytes at offset %" PRIu64, s->name,
                      mode == 0                       ? "allocate"
                      : (mode & FALLOC_FL_PUNCH_HOLE) ? "free"
                                                      : "zero",
                      len, off);
}

static int file_discard(struct stream *s, hoff off, uint64_t len, struct platter_error *err)
{
    return file_fallocate(s, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len, err);
}

/* What lies in front of the file's end is zeroed in place; behind it the file just grows. Works on
 * block devices alike (the kernel checks the alignment and that zeros will be read). */
static int file_zero(struct stream *s, hoff off, uint64_t len, unsigned flags,
                     struct platter_error *err)
{
    uint64_t size;
    int r = file_size(s, &size, err);
    if (r < 0)
        return r;
    uint64_t inside = off < size ? min_u64(len, size - off) : 0;
    if (inside > 0) {
        r = flags & STREAM_ZERO_UNMAP ? file_discard(s, off, inside, err) : -ENOTSUP;
        if (r == -ENOTSUP)
            r = file_fallocate(s, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, off, inside, err);
        if (r == -ENOTSUP)
            r = stream_write_zeros(s, off, inside, err);
    }
    return r < 0 || inside == len ? r : file_grow(s, off + len, err);
}

static int device_resize(struct stream *s, uint64_t size, struct platter_error *err)
{
    uint64_t now;
    int r = file_size(s, &now, err);
    if (r == 0 && size > now)
        return fail(err, ENOSPC, "%s: the device has %" PRIu64 " bytes, but %" PRIu64 " are needed",
                    s->name, now, size);
    return r;
}

static int file_resize(struct stream *s, uint64_t size, struct platter_error *err)
{
    struct file_stream *f = file_of(s);
    int r = 0;
    if (f->block)
        return device_resize(s, size, err);
    pthread_rwlock_wrlock(&f->size_lock);
    if (ftruncate(f->fd, (off_t)size) < 0)
        r = fail_errno(err, errno, "%s: cannot change its size to %" PRIu64 " bytes", s->name,
                       size);
    pthread_rwlock_unlock(&f->size_lock);
    return r;
}

/* Without fallocate() space is reserved by writing to it, which must not touch what is there: only
 * what lies behind the end can be done. */
static int file_allocate(struct stream *s, hoff off, uint64_t len, struct platter_error *err)
{
    struct file_stream *f = file_of(s);
    if (f->block)
        return device_resize(s, off + len, err);
    pthread_rwlock_wrlock(&f->size_lock);
    int r = file_fallocate(s, 0, off, len, err);
    pthread_rwlock_unlock(&f->size_lock);
    if (r != -ENOTSUP)
        return r;
    uint64_t size;
    r = file_size(s, &size, err);
    if (r < 0 || off + len <= size)
        return r;
    hoff from = max_u64(off, size);
    return stream_write_zeros(s, from, off + len - from, err);
}

/* A file system that cannot tell holes shows the whole file as data; a device answers EINVAL. */
static int file_extents(struct stream *s, hoff off, uint64_t len, uint64_t *ret_len, bool *ret_hole,
                        struct platter_error *err)
{
    struct file_stream *f = file_of(s);
    *ret_hole = false;
    *ret_len = len;
    if (f->block)
        return 0;
    off_t data = lseek(f->fd, (off_t)off, SEEK_DATA);
    if (data < 0 && errno != ENXIO) {
        if (is_unsupported(errno))
            return 0;
        return fail_errno(err, errno, "%s: cannot look for data at offset %" PRIu64, s->name, off);
    }
    if (data < 0 || (hoff)data > off) {
        *ret_hole = true;
        *ret_len = data < 0 ? len : min_u64(len, (hoff)data - off);
        return 0;
    }
    off_t hole = lseek(f->fd, (off_t)off, SEEK_HOLE);
    if (hole > 0 && (hoff)hole > off)
        *ret_len = min_u64(len, (hoff)hole - off);
    return 0;
}

/* Copies through the kernel piece by piece. Once something was copied a failure is real. */
static int copy_pieces(struct file_stream *f, hoff off, struct file_stream *src, hoff src_off,
                       uint64_t len, struct platter_error *err)
{
    for (uint64_t done = 0; done < len;) {
        loff_t in = (loff_t)(src_off + done), out = (loff_t)(off + done);
        ssize_t n =
            copy_file_range(src->fd, &in, f->fd, &out, (size_t)min_u64(len - done, 1u << 30), 0);
        if (n > 0) {
            done += (uint64_t)n;
        } else if (n == 0) {
            return stream_fail_past_end(&src->head, src_off, len, src_off + done, err);
        } else if (done == 0 && (is_unsupported(errno) || errno == EXDEV || errno == ETXTBSY)) {
            return -ENOTSUP;
        } else if (errno != EINTR) {
            return fail_errno(err, errno,
                              "%s: cannot copy %" PRIu64 " bytes from %s at offset %" PRIu64
                              " to offset %" PRIu64,
                              f->head.name, len - done, src->head.name, (hoff)in, (hoff)out);
        }
    }
    return 0;
}

static const struct stream_ops file_ops;

static int file_copy_from(struct stream *s, hoff off, struct stream *src, hoff src_off,
                          uint64_t len, struct platter_error *err)
{
    if (src->ops != &file_ops || file_of(s)->block || file_of(src)->block)
        return -ENOTSUP;
    struct file_stream *to = file_of(s), *from = file_of(src);
    struct file_clone_range range = {
        .src_fd = from->fd, .src_offset = src_off, .src_length = len, .dest_offset = off};
    pthread_rwlock_rdlock(&to->size_lock);
    int r = ioctl(to->fd, FICLONERANGE, &range) == 0
                ? 0
                : copy_pieces(to, off, from, src_off, len, err);
    pthread_rwlock_unlock(&to->size_lock);
    return r;
}

static int file_lock(struct stream *s, unsigned use, unsigned deny, struct platter_error *err)
{
    struct file_stream *f = file_of(s);
    return file_lock_change(f->fd, s->name, &f->use, &f->deny, use, deny, err);
}

static int file_publish(struct stream *s, bool durable, struct platter_error *err)
{
    struct file_stream *f = file_of(s);
    if (!f->temporary)
        return durable ? stream_flush(s, err) : 0;
    int r = durable ? file_sync(s, fsync, err) : 0;
    if (r == 0)
        r = temporary_publish(f->temporary, durable, err);
    if (r == 0)
        f->published = TAKE(f->temporary);
    return r;
}

static int file_withdraw(struct stream *s, bool back, struct platter_error *err)
{
    const struct file_stream *f = file_of(s);
    struct temporary *t = f->published ? f->published : f->temporary;
    return t ? temporary_withdraw(t, f->dev, f->ino, back, err) : 0;
}

static int file_make_way(struct stream *s, bool durable, struct platter_error *err)
{
    const struct file_stream *f = file_of(s);
    return f->temporary ? temporary_make_way(f->temporary, durable, err) : 0;
}

static void file_close(struct stream *s)
{
    struct file_stream *f = file_of(s);
    temporary_free(f->temporary);
    temporary_free(f->published);
    if (f->direct_fd >= 0)
        close(f->direct_fd);
    if (f->fd >= 0)
        close(f->fd);
    pthread_mutex_destroy(&f->write_turn);
    pthread_rwlock_destroy(&f->size_lock);
}

static int file_descriptor(const struct stream *s)
{
    return ((const struct file_stream *)s)->fd;
}

static const struct stream_ops file_ops = {
    .descriptor = file_descriptor,
    .name = "file",
    .pread = file_pread,
    .pwrite = file_pwrite,
    .flush = file_flush,
    .zero = file_zero,
    .discard = file_discard,
    .size = file_size,
    .resize = file_resize,
    .allocate = file_allocate,
    .extents = file_extents,
    .copy_from = file_copy_from,
    .lock = file_lock,
    .identity = file_identity,
    .publish = file_publish,
    .make_way = file_make_way,
    .withdraw = file_withdraw,
    .replace = file_replace,
    .close = file_close,
};

/* Looks at what was opened and refuses what is neither file nor device. */
static int file_identify(struct file_stream *f, unsigned flags, struct platter_error *err)
{
    struct stat st;
    if (fstat(f->fd, &st) < 0)
        return fail_errno(err, errno, "%s: cannot examine the file", f->head.name);
    if (S_ISDIR(st.st_mode))
        return fail(err, EISDIR, "%s: is a folder, not a disk image", f->head.name);
    if (!S_ISREG(st.st_mode) && (flags & STREAM_FILE_REGULAR))
        return fail(err, PLATTER_EGATE,
                    "%s: is not a regular file, and an image may not lead to anything else",
                    f->head.name);
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return fail(err, EINVAL, "%s: is neither a regular file nor a block device", f->head.name);
    f->block = S_ISBLK(st.st_mode);
    f->block_size = LEAST_BLOCK;
    while (!f->block && f->block_size < MOST_BLOCK && f->block_size < st.st_blksize)
        f->block_size *= 2;
    f->dev = f->block ? st.st_rdev : st.st_dev;
    f->ino = f->block ? 0 : st.st_ino;
    return 0;
}

/* Follows no link anywhere: who may change a folder on the way must not lead us elsewhere after the
 * gate has looked at the path. Where the kernel (before 5.6) or a sandbox does not know the call,
 * the last component is looked after at least. */
static int open_without_links(const char *path, int mode)
{
    struct open_how how = {.flags = (unsigned)mode, .resolve = RESOLVE_NO_SYMLINKS};
    int fd = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
    return fd >= 0 || (errno != ENOSYS && errno != EPERM) ? fd : open(path, mode | O_NOFOLLOW);
}

static int refuse_link(const char *path, struct platter_error *err)
{
    struct stat st;
    if (lstat(path, &st) < 0 || !S_ISLNK(st.st_mode))
        return 0;
    return fail(err, PLATTER_EGATE, "%s: is a symbolic link, and an image may not lead through one",
                path);
}

static int file_open_path(struct file_stream *f, const char *path, unsigned flags,
                          struct platter_error *err)
{
    struct stat st;
    int mode = (flags & STREAM_FILE_WRITE ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
    if ((flags & STREAM_FILE_WRITE) && stat(path, &st) == 0 && S_ISBLK(st.st_mode))
        mode |= O_EXCL; /* fails while the device is mounted */
    f->fd = flags & STREAM_FILE_REGULAR ? open_without_links(path, mode) : open(path, mode);
    if (f->fd >= 0)
        return 0;
    if (errno == ELOOP && (flags & STREAM_FILE_REGULAR))
        return fail(err, PLATTER_EGATE,
                    "%s: is a symbolic link, and an image may not lead through one", path);
    return fail_errno(err, errno, "%s: cannot open%s", path,
                      flags & STREAM_FILE_WRITE ? " for writing" : "");
}

/* A second way to the same file. Where it cannot be had everything goes through the cache. */
static void file_open_direct(struct file_stream *f)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", f->fd);
    f->direct_fd = open(path, O_WRONLY | O_DIRECT | O_CLOEXEC);
}

/* Many short writes must not keep the one who wants to grow the file waiting for ever. */
static void file_init_lock(pthread_rwlock_t *lock)
{
    pthread_rwlockattr_t attr;
    pthread_rwlockattr_init(&attr);
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(lock, &attr);
    pthread_rwlockattr_destroy(&attr);
}

int stream_file_open(const char *path, unsigned flags, struct stream **ret,
                     struct platter_error *err)
{
    struct file_stream *f = stream_new(sizeof *f, &file_ops, path, err);
    if (!f)
        return -ENOMEM;
    f->fd = f->direct_fd = -1;
    f->head.writable = flags & (STREAM_FILE_WRITE | STREAM_FILE_TEMPORARY);
    file_init_lock(&f->size_lock);
    pthread_mutex_init(&f->write_turn, NULL);
    int r = flags & STREAM_FILE_REGULAR ? refuse_link(path, err) : 0;
    if (r == 0 && (flags & STREAM_FILE_TEMPORARY))
        r = temporary_open(path, flags & STREAM_FILE_EXCLUSIVE, &f->temporary, &f->fd, err);
    if (r == 0 && (flags & STREAM_FILE_UNNAMED))
        r = temporary_open_unnamed(path, &f->fd, err);
    if (r == 0 && f->fd < 0)
        r = file_open_path(f, path, flags | (f->head.writable ? STREAM_FILE_WRITE : 0), err);
    if (r == 0)
        r = file_identify(f, flags, err);
    if (r < 0) {
        stream_close(&f->head);
        return r;
    }
    if (f->head.writable && (flags & STREAM_FILE_DIRECT))
        file_open_direct(f);
    *ret = &f->head;
    return 0;
}

void stream_take_rights(struct stream *s, struct stream *of)
{
    if (s->ops == &file_ops && of->ops == &file_ops && file_of(s)->temporary)
        temporary_take_rights(file_of(s)->temporary, file_of(s)->fd, file_of(of)->fd);
}

uint32_t stream_block_size(struct stream *s)
{
    return s->ops == &file_ops ? file_of(s)->block_size : LEAST_BLOCK;
}

/* Nine tenths is where qemu-img begins to ask (qcow2.md section 20). */
static enum density look_at_density(const struct file_stream *f)
{
    struct stat st;
    if (fstat(f->fd, &st) < 0)
        return DENSITY_SPARSE; /* who looks there will be told why */
    return (uint64_t)st.st_blocks * 512 >= (uint64_t)st.st_size / 10 * 9 ? DENSITY_DENSE
                                                                         : DENSITY_SPARSE;
}

bool stream_is_dense(struct stream *s)
{
    struct file_stream *f = file_of(s);
    if (s->ops != &file_ops || f->block)
        return s->depth == 0 || !s->ops->extents;
    int density = s->writable ? DENSITY_UNKNOWN : atomic_load(&f->density);
    if (density == DENSITY_UNKNOWN) {
        density = (int)look_at_density(f);
        atomic_store(&f->density, density);
    }
    return density == DENSITY_DENSE;
}

int stream_allocated(struct stream *s, uint64_t *ret, struct platter_error *err)
{
    struct stat st;
    while (s->base && s->base->ops->size) /* a pipe has none */
        s = s->base;
    if (s->ops->allocated)
        return s->ops->allocated(s, ret, err);
    if (s->ops != &file_ops || file_of(s)->block)
        return stream_size(s, ret, err);
    if (fstat(file_of(s)->fd, &st) < 0)
        return fail_errno(err, errno, "%s: cannot examine the file", s->name);
    *ret = (uint64_t)st.st_blocks * 512;
    return 0;
}
