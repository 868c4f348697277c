/* SPDX-License-Identifier: MIT */
/*
 * A format turns a stream into extents, and says where new data may go. It does not move guest data
 * (but for unpacking what is stored packed), knows nothing of chains, and starts no threads.
 *
 * Threads: every operation but open, close and create may run beside every other on one image. The
 * engine (lib/disk) holds a lock on the guest range around map + read (shared) and around
 * map / reserve / commit / mark (exclusive), so two operations never work on the same allocation
 * unit at once unless both only read. The format guards its tables with image->lock, which is never
 * held over stream I/O.
 *
 * Poison (rule 5): when a write of metadata failed, the format calls image_poison(); the engine
 * refuses writes from then on.
 */
#ifndef FORMAT_FORMAT_H
#define FORMAT_FORMAT_H

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/memory.h"
#include "base/options.h"
#include "stream/stream.h"

typedef uint64_t goff; /* offset on the disk a guest sees, bytes */

struct secret;
struct teller;
struct luks1;
struct luks1_area;

/* ---- extents --------------------------------------------------------------------------------- */

enum extent_kind {
    EXTENT_BACKING, /* this image does not say: ask the one below */
    EXTENT_ZERO,    /* reads as zeros */
    EXTENT_DATA,    /* stands as it is at (stream, off) */
    EXTENT_PACKED   /* stands compressed; image->format->unpack() gives the whole unit */
};

/* Where one run of guest bytes lives. */
struct extent {
    enum extent_kind kind;
    uint64_t len;   /* guest bytes from the offset asked, at least 1 */
    bool in_place;  /* DATA: may be overwritten where it stands, without telling the format */
    bool has_place; /* ZERO, BACKING: host space is reserved at (stream, off) all the same */
    bool looked;    /* the file was asked for its holes already */
    bool sealed;    /* DATA: stands encrypted; the engine's, from image->sealed */
    struct stream *stream; /* DATA, PACKED */
    hoff off;              /* DATA, has_place: of the first byte asked; PACKED: of the record */
    uint64_t packed_len;   /* PACKED: bytes there at most, 0 if only the record tells */
    goff unit_start;       /* PACKED: the guest range the record holds */
    uint64_t unit_len;
};

/* Room for new data: the engine writes all of [start, start + len) to (stream, off), then calls
 * commit(), or abandon() on failure. */
struct reservation {
    goff start; /* where the range begins: at or before the offset asked, to be filled from what was
                   there before */
    uint64_t len; /* may reach past the range asked (fill likewise) and past the end of the disk
                     (fill with zeros) */
    struct stream *stream;
    hoff off;
    bool blank;         /* the place reads as zeros, which need not be written there */
    uint64_t cookie[4]; /* the format's own */
};

/* ---- an open image --------------------------------------------------------------------------- */

struct format;
struct image;

/* Opens a file that an image names, through the caller's gate (rule 6). Given to open. `writable`
 * may only be asked for where the image is writable itself. */
struct name_opener {
    int (*open)(const struct name_opener *opener, const struct image *image, const char *name,
                enum platter_name_kind kind, bool writable, struct stream **ret,
                struct platter_error *err);
    /* Asks for the secret of an encrypted image; NULL: there is none. Call ask_secret(). */
    int (*secret)(const struct name_opener *opener, const struct platter_secret *question,
                  struct secret *ret, struct platter_error *err);
    uint64_t kdf_limit; /* most iterations for a key slot; 0: the default */
};

/* Asks whoever opens an image; ENOKEY where nobody can tell. `ret` was made by secret_new(). */
int call_secret(platter_secret_fn fn, void *opaque, const struct platter_secret *question,
                struct secret *ret, struct platter_error *err);
int ask_secret(const struct name_opener *opener, const struct platter_secret *question,
               struct secret *ret, struct platter_error *err);

/* Makes the further files of an image that is new or grows (extents): beside its main file, by a
 * plain name, and like that under a temporary name until all of them are complete. The stream stays
 * the maker's: who keeps it has it shared. */
struct file_maker {
    int (*make)(const struct file_maker *maker, const char *name, struct stream **ret,
                struct platter_error *err);
    /* Makes them durable and gives them their names, which must be free. Of a resize only: it is
     * the format that knows when. If the resize fails after that, they are removed. */
    int (*publish)(const struct file_maker *maker, struct platter_error *err);
};

struct image {
    const struct format *format;
    struct stream *stream; /* owned; the file as it was opened, or what is inside of it */
    /* What the file is compressed with, a static string; NULL: it is not. */
    const char *compression;
    void *state; /* the format's own */
    /* Guest bytes; any multiple of 1 (raw), most formats of 512. Only resize changes it, while the
     * engine keeps all other calls but those that just ask for it away. */
    _Atomic uint64_t size;
    uint32_t unit; /* allocation unit (cluster, grain) in bytes, a power of two; raw: 512 */
    /* Units begin anywhere, not at multiples of `unit`, which is what none is larger than. What is
     * marked as whole units may then begin or end inside of one. */
    bool askew;
    bool writable;
    bool query;         /* only tables are wanted (PLATTER_OPEN_QUERY): data files need not open */
    bool salvage;       /* PLATTER_OPEN_SALVAGE: find what can be found where tables are lost */
    bool checking;      /* opened by check: what format->check() judges is no error of open */
    bool sealed;        /* all DATA stands encrypted: format->crypt() */
    bool has_backing;   /* the image says that there is one, even if it could not be opened */
    char *view;         /* the view asked, or NULL */
    char *backing_name; /* as it stands in the image, or NULL */
    char *backing_format; /* as it stands in the image, or NULL */
    /* NULL, or more names, NULL-ended: where the backing file may be if it is not there. Of formats
     * that can tell whether a file is the right one; small and capital letters do not matter. */
    char **backing_hints;
    char *doubt; /* image_doubt(), or NULL */
    struct budget *budget;
    const struct name_opener *opener; /* valid while open runs */
    /* While open runs: another view of the same file, which is open: its key will do. Or NULL. */
    const struct image *sibling;
    pthread_mutex_t lock; /* guards the format's tables */
    atomic_int poison;    /* 0, or the negative code of the write that failed */
    /* False while a new image is built under a temporary name, where a crash leaves nothing that is
     * looked at: flushes need no barriers then. */
    bool ordered;
    /* True while writes move bytes about without changing what a guest reads (resize, rebase): the
     * children of the image stay what they are. */
    bool same_content;
};

/* Reads the name of the backing file, `len` bytes at `off` of the image's file, which the caller
 * bounded: img->backing_name and has_backing. */
int image_read_backing_name(struct image *img, hoff off, size_t len, struct platter_error *err);
/* Notes what a salvage cannot know of an image, a sentence for whoever reads it. */
int image_doubt(struct image *img, struct platter_error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Marks an image as unfit for further writes; returns code, so `return image_poison(img, r)`. */
int image_poison(struct image *img, int code);

/* ---- creating -------------------------------------------------------------------------------- */

/* A new image that is about to be written. */
struct create_request {
    const char *name; /* the name it will have in the end: descriptors speak of it */
    struct stream
        *stream;   /* its empty main file, writable (for a writer perhaps only sequential) */
    uint64_t size; /* guest bytes */
    const struct option_values *options; /* of format->create_options */
    const char *backing_name;            /* or NULL */
    const char *backing_format;          /* or NULL */
    struct image *backing;               /* open, or NULL: unknown */
    const struct file_maker *maker; /* of further files; NULL where only one file can be (a pipe) */
    const struct name_opener *opener; /* for ask_secret(); NULL: there are none */
    struct budget *budget;
    bool compress; /* a writer: units are packed where that saves room */
};

/* A new image that is written front to back, each unit once (an ordered sink). */
struct writer_ops;
struct image_writer {
    const struct writer_ops *ops;
    uint32_t unit;         /* bytes of guest data that are encoded and appended at once */
    struct stream *stream; /* where it goes, for who has it interrupted; or NULL */
    /* Bytes of the disk that were found to be zeros and not stored so far; of an archive's. */
    uint64_t zeros;
};

struct writer_ops {
    /* Packs one unit (`len` is unit, or less at the end of the disk) into out, which holds
     * encode_bound() bytes. Thread-safe. */
    size_t (*encode_bound)(const struct image_writer *w);
    int (*encode)(struct image_writer *w, goff off, const void *data, size_t len, void *out,
                  size_t *ret_len, struct platter_error *err);
    /* Appends what encode gave; offsets ascend; what is left out reads as zeros. */
    int (*append)(struct image_writer *w, goff off, size_t len, const void *packed,
                  size_t packed_len, struct platter_error *err);
    /* NULL, or told of zeros, in order with the rest, whole units but for the end of the disk: for
     * who has work with what is left out, which can be cancelled between two of them. */
    int (*zeros)(struct image_writer *w, goff off, uint64_t len, struct platter_error *err);
    /* Ends the image. */
    int (*finish)(struct image_writer *w, struct platter_error *err);
    void (*close)(struct image_writer *w); /* frees; after finish or instead of it */
};

/* ---- checking -------------------------------------------------------------------------------- */

/* A check that runs: what it is to do, whom it tells, and what it has counted. */
struct check {
    bool mend_leaks; /* give back what leaked, once nothing else is wrong */
    bool mend_all;   /* mend whatever can be; includes leaks */
    bool again;      /* the second look, after a repair */
    uint64_t told;   /* findings that were told in words */
    struct platter_check_result result;
    platter_finding_fn finding;
    platter_progress_fn progress;
    void *opaque;
};

/* Counts a finding and tells of it; for a leak, of `n` units. Behind a thousand findings the rest
 * is only counted. */
void check_found(struct check *c, enum platter_severity severity, bool mended, uint64_t n,
                 const char *format, ...) __attribute__((format(printf, 5, 6)));
/* A code and a sentence that ended the look at something: an error if it speaks of damage. */
void check_failed(struct check *c, int code, const struct platter_error *err);
/* -ECANCELED when the caller has enough. */
int check_progress(struct check *c, uint64_t done, uint64_t total, struct platter_error *err);

/* Another size for an image. */
struct resize_request {
    uint64_t size; /* guest bytes, not what it has now */
    /* The images below show this many bytes. Where the disk grows past its old end, up to here, the
     * image itself must say that there are zeros. The unit the old end is in is stored already, if
     * it matters. */
    uint64_t below;
    enum platter_preallocation preallocation; /* of the new space */
    const struct file_maker *maker;           /* of further files; NULL: there can be none */
    /* Makes a part of the new space read as zeros before there is such space, through the format's
     * own operations: its tables must reach there, and no lock may be held. */
    int (*zero)(const struct resize_request *request, goff off, uint64_t len,
                struct platter_error *err);
};

/* ---- snapshots inside an image ----------------------------------------------------------------
 */

/* A snapshot that is to be made of the disk as it is. */
struct snapshot_request {
    const char *name;
    const char *id; /* NULL: the next that is free */
    bool unique;    /* fail with EEXIST where another has the name */
    uint32_t date_sec, date_nsec;
    uint64_t clock_nsec;
    uint64_t icount;        /* UINT64_MAX: not recorded */
    uint64_t vm_state_size; /* bytes that were written to the state area */
    uint64_t disk_size;     /* of describe(): what its disk has */
    char *ret_id;           /* malloc'ed; NULL: no snapshot was made */
};

/* A range in which two snapshots differ, and what the second has there. */
struct snapshot_difference {
    goff off;
    uint64_t len;
    enum extent_kind kind;
};

struct snapshot_diff;

/* All of them work on an image that is open for writing and that the engine holds as a whole, with
 * nothing left to flush; diff_* on any image, held so that nothing changes. `by` and the names are
 * those of the public functions; `teller` may be NULL. */
struct snapshot_ops {
    /* Whether this image can have any at all; NULL: every image of the format can. */
    bool (*there)(const struct image *img);
    int (*create)(struct image *img, struct snapshot_request *request, struct teller *teller,
                  struct platter_error *err);
    int (*apply)(struct image *img, const char *name, unsigned by, struct teller *teller,
                 struct platter_error *err);
    int (*remove)(struct image *img, const char *name, unsigned by, struct teller *teller,
                  struct platter_error *err);
    /* Whether an image can have any; `of_sizes`: of disks of several sizes. */
    int (*possible)(const struct image *img, bool of_sizes, struct platter_error *err);
    /* Whether one like this can be made, as far as its name and the size of its state go. NULL: it
     * is found out then. */
    int (*accepts)(const struct image *img, const struct snapshot_request *request,
                   struct platter_error *err);
    bool unique; /* no two can have the same name */
    /* Where the machine's state stands behind the disk, or the view: as if it were guest data. The
     * length is what the view has. */
    int (*state)(const struct image *img, goff *ret_start, uint64_t *ret_len,
                 struct platter_error *err);
    /* Where it stands behind the disk, with tables for `len` bytes of it. */
    int (*state_room)(struct image *img, uint64_t len, goff *ret_start, struct platter_error *err);
    /* Forgets what stands there. */
    int (*state_drop)(struct image *img, struct platter_error *err);
    /* Describes snapshot number i, in strings of the image; false: there are no more. */
    bool (*describe)(const struct image *img, uint32_t i, struct snapshot_request *ret);
    /* What differs between two snapshots, from the tables alone; NULL is the disk itself. Sizes are
     * those of the disks. */
    int (*diff_open)(struct image *img, const char *from, const char *to,
                     struct snapshot_diff **ret, uint64_t ret_sizes[2], struct platter_error *err);
    /* The first difference at `off` or behind it: 1, or 0 where there is none. */
    int (*diff_next)(struct snapshot_diff *d, goff off, struct snapshot_difference *ret,
                     struct platter_error *err);
    void (*diff_close)(struct snapshot_diff *d);
};

/* What an open image has of them, NULL: none can be. */
const struct snapshot_ops *image_snapshots(const struct image *img);

/* ---- dirty bitmaps --------------------------------------------------------------------------- */

/* A bitmap that an image keeps of what was written to it. */
struct bitmap_info {
    const char *name; /* the image's, until its bitmaps are changed */
    uint64_t granularity;
    bool enabled, in_use;
    const char *problem; /* it cannot be used, for this reason; NULL: it can */
};

/* One of platter_bitmap_change(). */
struct bitmap_change {
    enum platter_bitmap_action action;
    const char *name;
    uint64_t granularity; /* ADD; 0: the format's default */
    struct image *source; /* MERGE: of a format with bitmaps; NULL: the image itself */
    const char *source_name;
};

struct bitmap_ops {
    /* The bytes a guest sees in [off, off + len) are about to be written; the range is locked. What
     * mark() does needs no such word. */
    int (*touch)(struct image *img, goff off, uint64_t len, struct platter_error *err);
    /* *ret is the caller's to free. */
    int (*list)(struct image *img, struct bitmap_info **ret, size_t *ret_n,
                struct platter_error *err);
    /* Whether the byte at `off` is dirty, and for how many bytes (1 .. len) that holds. */
    int (*map)(struct image *img, const char *name, goff off, uint64_t len, uint64_t *ret_len,
               bool *ret_dirty, struct platter_error *err);
    /* Bytes that those that can be used would take with clusters of another size. -ENOTSUP without
     * a sentence: this image can have none. */
    int (*measure)(struct image *img, uint32_t cluster, uint64_t *ret, struct platter_error *err);
    /* Whether a new image with these creation options may have some. */
    bool (*possible)(const struct option_values *options);
    /* All changes or none, durably; no changes: whether there may be some. The engine holds the
     * whole disk. */
    int (*change)(struct image *img, const struct bitmap_change *changes, size_t n,
                  struct platter_error *err);
};

/* Other properties for an image that is there. */
struct amend_request {
    const struct option_values *options; /* of format->amend_options */
    bool force;                          /* what the options leave no room for may be lost */
    platter_progress_fn progress;        /* or NULL */
    void *opaque;
};

/* What a file holds moves towards its front, and the file is cut behind it. */
struct compact_request {
    bool dry_run;          /* only tells what would be won: the image may be open for reading */
    bool inquiry;          /* a dry run that only refuses what cannot be compacted, at no cost */
    bool zeros;            /* clusters that read as zeros give up their place */
    struct teller *teller; /* or NULL */
    struct platter_compact_result result; /* the format's part of it, on failure as well */
};

/* ---- the operations of a format -------------------------------------------------------------- */

enum mark { MARK_ZERO, MARK_DISCARD };

/* How sure a probe is. */
enum probe { PROBE_NO = 0, PROBE_WEAK = 1, PROBE_SURE = 2 };

struct format {
    const char *name;
    const char *title;        /* for people: "QEMU copy-on-write, version 2 and 3" */
    bool no_backing;          /* its images never have a backing file */
    const char *only_backing; /* the one format that their backing files have; NULL: any */
    bool unnamed_backing;     /* its images cannot say which format theirs has */
    /* Every guest offset always stands at the same offset of img->stream, hole or not: the engine
     * writes there without asking, for on a file that is being written that question is dear. */
    bool flat;
    bool needs_file; /* new images need a file that grows and ends with them: no block device */
    bool not_zero;   /* a new image does not read as zeros before it is written */
    bool in_order;   /* a query opens on a stream that can only be read front to back as well */

    /* Pure: looks at the first bytes (up to 64 KiB) of a file of file_size bytes. NULL: never
     * guessed. */
    enum probe (*probe)(const uint8_t *prefix, size_t len, uint64_t file_size);

    /* Fills size, unit, has_backing, backing_*, state. img->stream, writable, view, budget and
     * opener are set. On failure the engine calls close() all the same. */
    int (*open)(struct image *img, struct platter_error *err);
    /* Whether `backing`, open, is the one that img was made over; NULL: the format cannot tell. */
    int (*accept_backing)(struct image *img, const struct image *backing,
                          struct platter_error *err);
    /* Frees state, also half-built. With img->writable and no poison everything was flushed before;
     * here the image is only marked as closed. Errors are those of that mark. */
    int (*close)(struct image *img, struct platter_error *err);

    /* The first extent of [off, off + len), which lies inside the disk. */
    int (*map)(struct image *img, goff off, uint64_t len, struct extent *ret,
               struct platter_error *err);
    /* Reads and unpacks a PACKED extent: e->unit_len bytes to out. */
    int (*unpack)(struct image *img, const struct extent *e, void *out, struct platter_error *err);

    /* Of images that are sealed: turns `len` bytes between what stands at `host` and what a guest
     * sees at `guest`; all three are multiples of 512. in and out may be the same. */
    void (*crypt)(const struct image *img, bool encrypt, void *out, const void *in, size_t len,
                  goff guest, hoff host);

    /* Where the keys of an image stand that is encrypted with LUKS 1, also one that was opened
     * without a key (query, checking); false: it has none that could be read. */
    bool (*key_area)(const struct image *img, struct luks1_area *ret,
                     const struct luks1 **ret_header);

    /* Room for [off, off + len) (inside the disk), or for a first part of it. Called when map did
     * not say in_place. */
    int (*reserve)(struct image *img, goff off, uint64_t len, struct reservation *ret,
                   struct platter_error *err);
    int (*commit)(struct image *img, const struct reservation *r, struct platter_error *err);
    void (*abandon)(struct image *img, const struct reservation *r);
    /* The pair for packed data: pack() one unit (thread-safe; -E2BIG without a sentence: not worth
     * it), reserve room for its bytes, write them, commit: in place of what the unit held. */
    int (*pack)(struct image *img, const void *unit, void *out, size_t cap, size_t *ret_len,
                struct platter_error *err);
    int (*reserve_packed)(struct image *img, goff unit, size_t packed_len, struct reservation *ret,
                          struct platter_error *err);

    /* Zero or discard whole units (the end of the disk counts as aligned). -ENOTSUP without a
     * sentence: cannot for this range; the engine writes zeros, or leaves the discard. `unmap`:
     * host space may be given back. */
    int (*mark)(struct image *img, goff off, uint64_t len, enum mark mark, bool unmap,
                struct platter_error *err);
    /* Whole units, likewise, are not stored any more: what is below shows, zeros where nothing is.
     * NULL: its images cannot take back what they say. */
    int (*uncover)(struct image *img, goff off, uint64_t len, struct platter_error *err);

    /* Makes everything durable that was committed before the call, in the order of rule 2. */
    int (*flush)(struct image *img, struct platter_error *err);

    /* Another size of the disk, durably, and img->size with it: a crash leaves the old one or the
     * new one. The engine holds the whole of it, and flushed. */
    int (*resize)(struct image *img, const struct resize_request *request,
                  struct platter_error *err);
    /* Names another backing file, or none (NULL), and nothing else, durably: rebase's last step.
     * `backing` is that file, open, or NULL: unknown. */
    int (*set_backing)(struct image *img, const char *name, const char *backing_format,
                       const struct image *backing, struct platter_error *err);
    /* `backing`, the image right below img, is open for writing and about to get img's data, after
     * which img would take it for another file. Sees to it, durably and in both, that img opens
     * over it whatever happens. Commit's first step; NULL: nothing to do. */
    int (*follow_backing)(struct image *img, struct image *backing, struct platter_error *err);
    /* Forgets all data, durably, so that the backing file shows everywhere: commit's last step. */
    int (*make_empty)(struct image *img, struct platter_error *err);
    /* Asked before data is copied, and nothing is changed: whether set_backing() will take this;
     * whether follow_backing() (`follow`) and make_empty() (`empty`) will do. As far as that can be
     * known then. NULL: yes. */
    int (*may_set_backing)(struct image *img, const char *name, const char *backing_format,
                           const struct image *backing, struct platter_error *err);
    int (*may_commit)(struct image *img, bool follow, bool empty, struct platter_error *err);

    /* Changes what the options say that were given, durably; a guest sees the same disk at any
     * time. The engine flushed, and nobody else is at work. */
    const struct option_def *amend_options;
    int (*amend)(struct image *img, const struct amend_request *request, struct platter_error *err);

    /* Moves what the file holds towards its front, durably, in steps of which a crash leaves the
     * same disk and snapshots, and leaks at worst. A cancel ends it between two steps. The engine
     * holds the whole disk, with nothing left to flush. */
    int (*compact)(struct image *img, struct compact_request *request, struct platter_error *err);

    /* Judges, and mends where c says so, an image that was opened with img->checking (and writable
     * to be mended): open took what it found, and close is all else that is called then. Findings
     * go through check_found(); fails only where the check itself cannot go on. NULL: images of
     * this format cannot be checked. */
    int (*check)(struct image *img, struct check *c, struct platter_error *err);

    const struct option_def *create_options;
    int (*create)(const struct create_request *request, struct platter_error *err);
    /* An ordered sink. Called instead of create where `ordered(options)` says so or where only a
     * sequential stream is there. */
    bool (*ordered)(const struct option_values *options);
    int (*writer_open)(const struct create_request *request, struct image_writer **ret,
                       struct platter_error *err);
    bool header_last; /* ... which writes the beginning of the stream again: see `rewritable` */

    /* What a file of `size` guest bytes takes: with `data` allocated units of image data (bytes,
     * multiple of the unit), and with all of it. */
    int (*measure)(uint64_t size, uint64_t data, const struct option_values *options,
                   struct platter_measurement *ret, struct platter_error *err);
    /* The unit a create with these options will have. */
    uint32_t (*create_unit)(const struct option_values *options);

    /* The further files of an open image (extents, a data file), by number: false behind the last.
     * *ret NULL: there is none of that number. NULL: its images are one file each. */
    bool (*file)(const struct image *img, unsigned i, struct stream **ret);

    /* Adds the fields of "format-specific": {"type": name, "data": returned object}; NULL: none. */
    json_t *(*info)(struct image *img);
    /* Adds top-level fields ("dirty-flag", "snapshots", "encrypted", ...) to info; may be NULL. */
    int (*info_top)(struct image *img, json_t *info);
    /* An array of views; NULL: has none. */
    json_t *(*views)(struct image *img);
    const struct bitmap_ops *bitmaps; /* NULL: its images have none */
    /* NULL: its images hold no snapshots. */
    const struct snapshot_ops *snapshots;
    /* NULL: its files are no archives (format/archive.h). */
    const struct archive_ops *archive;
};

extern const struct format format_raw, format_qcow, format_qcow2, format_vmdk, format_vma,
    format_luks;

/* All formats, NULL-ended, in the order they are probed. */
extern const struct format *const formats[];
const struct format *format_find(const char *name); /* NULL: unknown */
/* What a file is that starts like one of the formats we do not have, for people; or NULL. Such a
 * file is not taken as raw unless that is asked for: its bytes are not the disk. */
const char *format_foreign(const uint8_t *prefix, size_t len);

/* Names in images are plain bytes; JSON is UTF-8: what is not valid is shown as Latin-1. */
json_t *json_name(const char *name);

#endif
