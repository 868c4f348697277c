/* SPDX-License-Identifier: MIT */
/*
 * A stream is a flat array of bytes somewhere: a file, a pipe, memory, a slice of another stream, a
 * decompressor over another.
 *
 * Contract of every stream:
 * - Reads are whole or fail. A read past the end is an error (ECORRUPT, with offset and size): a
 *   format whose rules let a file end early uses stream_pread_tail().
 * - Any call may run beside any other, close excepted.
 * - An operation that is NULL is not there: the stream_*() functions below answer ENOTSUP, or do it
 *   another way where their comment says so.
 */
#ifndef STREAM_STREAM_H
#define STREAM_STREAM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef uint64_t hoff; /* offset in a stream, bytes */

enum {
    STREAM_ZERO_UNMAP = 1u << 0 /* stream_zero(): space may be given back */
};

/* What we do, and what we deny others, with a file: the permissions QEMU's locks speak of
 * (qcow2.md section 21). */
enum { STREAM_LOCK_READ = 1u << 0, STREAM_LOCK_WRITE = 1u << 1, STREAM_LOCK_RESIZE = 1u << 3 };

struct stream;

/*
 * An older state of the bytes of a stream, which is a whole of its own, and may have another size:
 * a snapshot of an RBD image, or one of the list of a source-spec. As a raw disk it is a view.
 */
struct stream_state {
    const char *id, *name;        /* never NULL; either of them finds it */
    uint64_t size;                /* bytes */
    uint32_t date_sec, date_nsec; /* when it was made; 0: not known */
    bool is_protected;            /* it cannot be removed before somebody says that it may */
};

/* All that a stream has of them, filled in when it is opened. */
struct stream_states {
    const struct stream_state *all; /* oldest first */
    unsigned n;
    struct stream *const *streams; /* those that are open all the time, n of them; or NULL */
    /* Opens number i, read-only; its name is that of the stream with "@" and its own. */
    int (*open)(struct stream *s, unsigned i, struct stream **ret, struct platter_error *err);
    /* Whether the bytes at `off` may differ between two of them (n: the bytes as they are now), and
     * for how many (1 .. len) that holds. NULL: nobody can tell but by reading. */
    int (*differ)(struct stream *s, unsigned from, unsigned to, hoff off, uint64_t len,
                  uint64_t *ret_len, bool *ret_differ, struct platter_error *err);
    /* Whether one can be called so. NULL: as far as is known. */
    int (*accepts)(struct stream *s, const char *name, struct platter_error *err);
    /* Makes one more, durably, of the bytes as they are. NULL: that cannot be. */
    int (*create)(struct stream *s, const char *name, struct platter_error *err);
    /* Number i goes, or the bytes become what it has, with its size. NULL: likewise. */
    int (*remove)(struct stream *s, unsigned i, struct platter_error *err);
    int (*apply)(struct stream *s, unsigned i, struct platter_error *err);
    void (*close)(struct stream_states *states);
};

/* What a server tells of a place: a text, or, where that is NULL, a number. */
struct stream_fact {
    const char *key; /* words, with hyphens between them */
    const char *text;
    uint64_t number;
    bool listed; /* one of several of that key */
};

typedef void (*stream_tell_fn)(void *opaque, const struct stream_fact *fact);

struct stream_ops {
    const char *name; /* "file", "memory" ... */
    int (*pread)(struct stream *s, void *buf, size_t len, hoff off, struct platter_error *err);
    /* Of what can only be read front to back, instead of pread: the next bytes, `len` of them
     * unless the end comes first. Never two calls at once. */
    int (*read)(struct stream *s, void *buf, size_t len, size_t *ret_len,
                struct platter_error *err);
    /* Of what was read, up to where it is known to be right: see stream_checked(). */
    uint64_t (*checked)(struct stream *s);
    /* Of a file, or of what may be one all the same: read or written where it stands. */
    int (*descriptor)(const struct stream *s);
    /* From any thread: a read that waits, and all later ones, come back with ECANCELED. */
    void (*interrupt)(struct stream *s);
    void (*persist)(struct stream *s); /* see stream_persist() */
    /* After a read that failed for damage: whether what can still be read behind it comes next. */
    bool (*resume)(struct stream *s);
    /* Whether some of what was read had no checksum: see stream_lacks_checksums(). */
    bool (*lacks_checksums)(struct stream *s);
    int (*pwrite)(struct stream *s, const void *buf, size_t len, hoff off,
                  struct platter_error *err);
    int (*flush)(struct stream *s, struct platter_error *err);
    int (*zero)(struct stream *s, hoff off, uint64_t len, unsigned flags,
                struct platter_error *err);
    int (*discard)(struct stream *s, hoff off, uint64_t len, struct platter_error *err);
    int (*size)(struct stream *s, uint64_t *ret_size, struct platter_error *err);
    /* Of what is read front to back and may not know its size: see stream_reach(). */
    int (*reach)(struct stream *s, hoff off, uint64_t *ret_size, struct platter_error *err);
    int (*resize)(struct stream *s, uint64_t size, struct platter_error *err);
    int (*allocate)(struct stream *s, hoff off, uint64_t len, struct platter_error *err);
    int (*extents)(struct stream *s, hoff off, uint64_t len, uint64_t *ret_len, bool *ret_hole,
                   struct platter_error *err);
    int (*copy_from)(struct stream *s, hoff off, struct stream *src, hoff src_off, uint64_t len,
                     struct platter_error *err);
    int (*lock)(struct stream *s, unsigned use, unsigned deny, struct platter_error *err);
    int (*unchanged)(struct stream *s, struct platter_error *err);
    /* The words of stream_identity(), added to *text. */
    int (*identity)(struct stream *s, char **text, struct platter_error *err);
    /* Tells all there is to know of it. */
    int (*facts)(struct stream *s, stream_tell_fn tell, void *opaque);
    /* The space it takes: see stream_allocated(). */
    int (*allocated)(struct stream *s, uint64_t *ret, struct platter_error *err);
    int (*publish)(struct stream *s, bool durable, struct platter_error *err);
    int (*make_way)(struct stream *s, bool durable, struct platter_error *err);
    int (*withdraw)(struct stream *s, bool back, struct platter_error *err);
    int (*give_up)(struct stream *s, struct platter_error *err);
    int (*replace)(struct stream *s, const void *bytes, size_t len, struct platter_error *err);
    /* Opens what another URI of the same server means, with what this one was opened with (who it
     * is, whom it trusts). NULL: anybody can. */
    int (*sibling)(struct stream *s, const char *uri, unsigned flags, struct stream **ret,
                   struct platter_error *err);
    /* Whether another stream with these operations is the same bytes: NULL where that is not known,
     * or is told by the descriptor. */
    bool (*same)(const struct stream *s, const struct stream *other);
    /* Of what lies under a URL of a web server, or will: that URL, by which it is the same. */
    const char *(*url)(const struct stream *s);
    void (*close)(struct stream *s); /* what it holds; name and s itself go in stream_close() */
};

/* The head of every stream; the implementation's own fields follow. */
struct stream {
    const struct stream_ops *ops;
    char *name;      /* for sentences and for finding neighbours: the path as it was given */
    bool writable;   /* pwrite and friends may be called */
    bool sequential; /* only front to back, whether it is read or written: a pipe */
    /* Of what is only written front to back: so many bytes of its beginning, as far as they are
     * written, can be written again until it is published. */
    uint64_t rewritable;
    /* Of what lies behind a network: how many requests at once are worth their while. 0: it is on
     * this machine, and as many as there are cores will do. */
    unsigned depth;
    /* What its bytes are unpacked from, packed into, or a part of, and belongs to it: answers what
     * is asked about the file (which it is, its locks, the space it takes). NULL: it is the file
     * itself. */
    struct stream *base;
    /* Of what is read front to back underneath: how many bytes behind the furthest that was read
     * can still be read. 0: all. */
    uint64_t window;
    struct stream_states *states; /* NULL: none are known, and none can be made; else owned */
    _Atomic hoff position;        /* of stream_read(): bytes that it gave so far */
    uint64_t known_size; /* ... of what can be read anywhere: it had so many when last asked */
    uint8_t *ahead;      /* of stream_peek(), where the stream is sequential; or NULL */
    size_t ahead_used, ahead_len;
    atomic_uint shared; /* how many owners there are beside the first: stream_share() */
};

/* Reads [off, off + len), all of it. */
int stream_pread(struct stream *s, void *buf, size_t len, hoff off, struct platter_error *err);
/* The same, but what lies past the end of the stream reads as zeros. */
int stream_pread_tail(struct stream *s, void *buf, size_t len, hoff off, struct platter_error *err);
/*
 * The next `len` bytes, front to back; fewer only where the end or a failure comes first: *ret_len,
 * which is right after a failure too, since what came before it was read. Works on every stream,
 * also one that can be read anywhere (where each call goes on). One reader at a time. The same is
 * true of stream_peek() and stream_skip().
 */
int stream_read(struct stream *s, void *buf, size_t len, size_t *ret_len,
                struct platter_error *err);
/* What the next stream_read() will begin with; len is at most STREAM_MOST_PEEK. */
enum { STREAM_MOST_PEEK = 64 << 10 };
int stream_peek(struct stream *s, void *buf, size_t len, size_t *ret_len,
                struct platter_error *err);
/* From any thread: a stream_read() that waits for what is to come, and all later ones, come back
 * with ECANCELED. Streams that never wait for long: nothing. */
void stream_interrupt(struct stream *s);
/* Of what is only read, and held to stay as it is: where a connection broke, later reads connect
 * anew, and fail (ESTALE) where it can be seen that another one is there. To be called before any
 * other thread reads. Streams that have no connection, or do so anyhow: nothing. */
void stream_persist(struct stream *s);
/* After a read that failed with ECORRUPT: whether reading goes on behind the damage, with what can
 * be read there; how much is missing nobody knows. */
bool stream_resume(struct stream *s);
/* Up to where what was read was checked, as far as no failure told of damage: by a checksum of the
 * compressed file that it comes out of. What was read behind it is of a part of that file whose end
 * is still to come, or, after such a failure, of the part that is damaged or cut off: any byte of
 * it may be wrong. Streams that check nothing: UINT64_MAX. For who reads. */
uint64_t stream_checked(struct stream *s);
/* Whether some of what was read came out of a part of a compressed file that has no checksum, so
 * that damage may be taken for data. */
bool stream_lacks_checksums(struct stream *s);
/* As stream_read() of so many bytes that nobody wants: not read where the stream can do without. */
int stream_skip(struct stream *s, uint64_t len, uint64_t *ret_len, struct platter_error *err);
/* Writes all; grows the stream where it ends earlier. */
int stream_pwrite(struct stream *s, const void *buf, size_t len, hoff off,
                  struct platter_error *err);
/* All writes that returned before this call are durable after it (fdatasync). */
int stream_flush(struct stream *s, struct platter_error *err);
/* Makes a range read as zeros; grows the stream where it ends earlier. Writes zeros when there is
 * no other way. */
int stream_zero(struct stream *s, hoff off, uint64_t len, unsigned flags,
                struct platter_error *err);
/* Gives space back; the range reads as zeros or as before after it. Nothing to do is no error. */
int stream_discard(struct stream *s, hoff off, uint64_t len, struct platter_error *err);
/* The size now, in bytes. */
int stream_size(struct stream *s, uint64_t *ret_size, struct platter_error *err);
/* The size, where it is known, or becomes known by reading on to `off`; else UINT64_MAX. */
int stream_reach(struct stream *s, hoff off, uint64_t *ret_size, struct platter_error *err);
/* Cuts or extends (with zeros, sparse). */
int stream_resize(struct stream *s, uint64_t size, struct platter_error *err);
/* Reserves real space for a range, which reads as zeros where nothing was written. */
int stream_allocate(struct stream *s, hoff off, uint64_t len, struct platter_error *err);
/* Whether there is a hole at off, and for how many bytes (1..len) the answer holds. A stream that
 * cannot tell says data. Past the end is a hole. */
int stream_extents(struct stream *s, hoff off, uint64_t len, uint64_t *ret_len, bool *ret_hole,
                   struct platter_error *err);
/* Copies inside the kernel, by sharing blocks where the file system can. -ENOTSUP (without a
 * sentence) where these two streams cannot; then nothing was copied. */
int stream_copy_from(struct stream *s, hoff off, struct stream *src, hoff src_off, uint64_t len,
                     struct platter_error *err);
/* Takes QEMU's byte-range locks: STREAM_LOCK_* bits we use, and that we deny to others. EBUSY when
 * another program stands in the way. Streams without locks answer 0. May be called again to change.
 */
int stream_lock(struct stream *s, unsigned use, unsigned deny, struct platter_error *err);
/* Of what nobody can be kept from changing or removing while it is only read, and where reads do
 * not tell: fails (ESTALE) if that has happened since it was opened, so that what was read may be
 * wrong. What it is unpacked from is asked as well. Other streams: 0. */
int stream_unchanged(struct stream *s, struct platter_error *err);
/*
 * By what its bytes are known again, in another program and after days: words "key=value" with one
 * space between them, malloc'ed. The same text means the same bytes, as far as can be known without
 * reading them: of a file its size, inode and time of change, of an object its ETag or date, of a
 * snapshot its number. It tells how things are now, and not how they were when it was opened; where
 * reading showed already that they changed it fails (ESTALE). There is nothing secret in it, and
 * not the name: what was renamed, or is reached by another URL, has the same. ENOTSUP: nothing
 * tells, as of a pipe.
 */
int stream_identity(struct stream *s, char **ret, struct platter_error *err);
/* A file made by STREAM_FILE_TEMPORARY gets its real name, atomically; `durable` waits for the disk
 * first. Other streams: a flush if durable. */
int stream_publish(struct stream *s, bool durable, struct platter_error *err);
/* Moves the file aside that stream_publish() would replace, for what cannot appear at once. It is
 * removed when the stream is closed. */
int stream_make_way(struct stream *s, bool durable, struct platter_error *err);
/* Where there is no file of that name, but one that was moved aside and never came back (a program
 * was killed in between): -EEXIST, with a sentence that says how the old image gets its names back.
 * Otherwise 0. */
int stream_check_not_aside(const char *path, struct platter_error *err);
/* Takes back what the two did: the new file goes, if it is still there, and what was moved aside
 * has its name again, if it is to come back. Where it has not, the answer is negative, and the
 * sentence in err, which is the reason for all this, also tells where the old file is. */
int stream_withdraw(struct stream *s, bool back, struct platter_error *err);
/* Of a new one that was not published, before it is closed, when nobody is at work with it: what a
 * server has of it goes. Closing does that as well, but has no way to tell that it failed; here the
 * sentence in err, which is that of the failure `r`, tells that, too. Answers `r`, or, where that
 * is -ECANCELED, what failed. NULL is fine. */
int stream_give_up(struct stream *s, int r, struct platter_error *err);
/* These bytes become all there is, durably; a crash leaves the old ones or the new. That is true of
 * files, which get a new one in their place. One that cannot be replaced (it has other names, or
 * its owner or attributes are not ours to give) is written over, while the new one stands beside
 * it; what is no file is written over. Only where nobody else writes meanwhile. */
int stream_replace(struct stream *s, const void *bytes, size_t len, struct platter_error *err);
/* One more owner of a stream, who closes it like the first. */
struct stream *stream_share(struct stream *s);
/* The last owner's closes and frees. A temporary file that was not published is removed. NULL is
 * fine. */
void stream_close(struct stream *s);

/* ---- the streams there are ------------------------------------------------------------------- */

enum {
    STREAM_FILE_WRITE = 1u << 0,     /* open for reading and writing */
    STREAM_FILE_TEMPORARY = 1u << 1, /* make a new file beside `path`; see stream_publish() */
    STREAM_FILE_EXCLUSIVE = 1u << 2, /* TEMPORARY: publishing over an existing file is EEXIST */
    STREAM_FILE_REGULAR = 1u << 3,   /* refuse everything but regular files, and follow no link: for
                                        names out of images */
    STREAM_FILE_DIRECT = 1u << 4,    /* large aligned writes may pass the host's cache by */
    STREAM_FILE_UNNAMED = 1u << 5    /* WRITE: a new file in the folder `path` that nobody else can
                                        open, and that ends with the stream */
};

/* A local file or block device. Other kinds of files are refused. */
int stream_file_open(const char *path, unsigned flags, struct stream **ret,
                     struct platter_error *err);
/* A descriptor that is written front to back (a pipe, stdout); it stays the caller's. */
int stream_pipe_open(int fd, const char *name, struct stream **ret, struct platter_error *err);
/* A descriptor that is read front to back; it stays the caller's. */
int stream_input_open(int fd, const char *name, struct stream **ret, struct platter_error *err);
/* What is read front to back, by name: "-" is standard input, a file can be read anywhere, and all
 * else (a FIFO, a socket, a terminal) front to back only. */
int stream_source_open(const char *name, struct stream **ret, struct platter_error *err);
/* Memory that grows up to `limit` bytes. */
int stream_memory_open(const char *name, uint64_t limit, struct stream **ret,
                       struct platter_error *err);
/* [start, start + len) of another stream, which must live longer; reads and writes are bounded. */
int stream_slice_open(struct stream *base, hoff start, uint64_t len, struct stream **ret,
                      struct platter_error *err);
/* The same of a stream that belongs to it from then on, if that succeeds. */
int stream_part_open(struct stream *base, hoff start, uint64_t len, struct stream **ret,
                     struct platter_error *err);

/* Removes every temporary file of this process that is not yet published, and what is like that on
 * servers, for a handler of a signal that ends the process: async-signal-safe; the streams
 * themselves are left alone. */
void stream_file_remove_temporaries(void);

/* Changes the name of a file, durably, which no other must have; or takes it away. */
int stream_file_rename(const char *from, const char *to, struct platter_error *err);
int stream_file_remove(const char *path, struct platter_error *err);
/* Whether a stream is a block device. */
bool stream_is_device(struct stream *s);

/* A further file of an image: what is made by STREAM_FILE_TEMPORARY and replaces nothing gets owner
 * and rights of the file `of`, as far as we may give them, so that who may not read an image cannot
 * read a part of it. Other streams: nothing. */
void stream_take_rights(struct stream *s, struct stream *of);

/* Whether two streams are the same file (device and inode), or unpacked from it, or packed into it,
 * a descriptor that is a file among them; of other kinds, whether they are known to be the same. */
bool stream_same_file(struct stream *a, struct stream *b);
/* ... and read as the same bytes: both unpacked, or neither. */
bool stream_same_bytes(struct stream *a, struct stream *b);
/* What space is given back in, bytes, a power of two from 512 to 64 KiB: the block of a file. */
uint32_t stream_block_size(struct stream *s);
/* Whether a file takes nearly all of its length: where it has holes they are room set aside, which
 * counts as data, so nobody asks for them. Of one that is only read that is decided once. What lies
 * behind a network: whether it cannot tell of holes. Other streams: true. */
bool stream_is_dense(struct stream *s);
/* The bytes of disk space a file really takes, compressed where it is; its size where there is no
 * difference to be known. -ENOTSUP (without a sentence): there is one, but nobody can tell soon. */
int stream_allocated(struct stream *s, uint64_t *ret, struct platter_error *err);

#endif
