/* SPDX-License-Identifier: MIT */
/* What the files of the engine share among themselves. */
#ifndef DISK_INSIDE_H
#define DISK_INSIDE_H

#include "disk/disk.h"

/* ---- image.c: one of the chain --------------------------------------------------------------- */

/* What an image opens with. */
struct image_setup {
    const struct format *format;
    const char *compression; /* of the file: image->compression */
    const char *view;
    bool writable, query, salvage, checking, ordered;
    struct budget *budget;
    const struct name_opener *opener;
    const struct image *sibling; /* an open view of the same file, or NULL */
};

/* Takes the stream, on failure as well. */
int image_load(struct stream *stream, const struct image_setup *setup, struct image **ret,
               struct platter_error *err);
void image_free(struct image *img);

/* ---- identify.c: what a file is ---------------------------------------------------------------
 */

/* What is said of it. */
struct image_choice {
    const char *format;           /* NULL: found by content */
    bool allow_raw;               /* else, if nothing is found, take it as raw */
    bool qcow;                    /* what is found must be a QCOW, of any version */
    bool unpack;                  /* also where a format is named that has no magic */
    const char *spool;            /* platter_open_options.spool, */
    platter_progress_fn progress; /* .progress */
    void *progress_opaque;
};

/*
 * Finds out what `*stream` is, and fills in format and compression of a setup whose budget and
 * `query` are set. A file that is compressed is taken for what is inside of it, and *stream with
 * it, unless the format is named and has no magic: raw is the bytes as they are. The stream stays
 * the caller's, on failure as well, where it may be NULL then.
 */
int image_identify(struct stream **stream, const struct image_choice *choice,
                   struct image_setup *setup, struct platter_error *err);

/* After that, where the stream is a window over what is read front to back: whether that is enough,
 * for an opening with these flags. */
int image_check_window(struct stream *s, const struct image_setup *setup, unsigned flags,
                       struct platter_error *err);

/* ---- assemble.c ------------------------------------------------------------------------------ */

/* A disk without images; memory_limit 0 is the default. */
int disk_new(uint64_t memory_limit, struct platter_disk **ret, struct platter_error *err);
/* Appends an image at the base. Takes it, on failure as well. */
int disk_append(struct platter_disk *disk, struct image *img, struct platter_error *err);
/* Opens no file that an image names. */
extern const struct name_opener refuse_names;
/* Notes whether all is open that its bytes may come from: when the chain is complete. */
void disk_note_base(struct platter_disk *disk);

/* ---- gate.c: names found inside images ------------------------------------------------------- */

/* A caller's policy, for as long as an open runs. */
struct gate {
    struct name_opener opener; /* first: formats call it with a pointer to this */
    platter_gate_fn fn;        /* NULL: the built-in policy */
    void *opaque;
    const char *const *allow;
    platter_secret_fn secret; /* NULL: there are none */
    void *secret_opaque;
    unsigned lock_use, lock_deny; /* for files that formats open */
    bool no_lock;
    struct folder *folder; /* whose names were looked at last, or NULL */
};
/* When it is no longer asked. */
void gate_done(struct gate *gate);

/* A gate as the options have it, without locks. */
struct gate gate_of(const struct platter_open_options *o);

extern int (*const gate_opener)(const struct name_opener *opener, const struct image *image,
                                const char *name, enum platter_name_kind kind, bool writable,
                                struct stream **ret, struct platter_error *err);

/* Asks the policy about a name in the image whose file is `image`, and opens what it lets through.
 * The stream has the name that the image leads to. `any_case`: the one file whose name differs in
 * small and capital letters only will do as well. */
int gate_open(struct gate *gate, struct stream *image, const char *name,
              enum platter_name_kind kind, bool any_case, bool writable, struct stream **ret,
              struct platter_error *err);

/* ---- cache.c: inflated units ----------------------------------------------------------------- */

int unit_cache_new(struct budget *budget, struct unit_cache **ret, struct platter_error *err);
void unit_cache_free(struct unit_cache *c);
/* Reads [off, off + len) of the guest out of the packed extent e of img, which covers it. */
int unit_cache_read(struct unit_cache *c, struct image *img, const struct extent *e, void *buf,
                    size_t len, goff off, struct platter_error *err);
/* Forgets what is known of [off, off + len) of img. */
void unit_cache_drop(struct unit_cache *c, const struct image *img, goff off, uint64_t len);

/* ---- sealed.c: data that stands encrypted ---------------------------------------------------- */

/* Reads or writes `len` bytes of guest offset `guest`, which stand at `host` of s, in img. */
int sealed_read(const struct image *img, struct stream *s, void *buf, size_t len, hoff host,
                goff guest, struct platter_error *err);
int sealed_write(const struct image *img, struct stream *s, const void *buf, size_t len, hoff host,
                 goff guest, struct platter_error *err);

/* Bytes that a guest has at `off` from now on. */
struct new_data {
    goff off;
    uint64_t len;
    const uint8_t *bytes;
};
/* Fills the room with them and what was there around them. */
int sealed_fill(struct platter_disk *disk, const struct reservation *room,
                const struct new_data *new, struct platter_error *err);

/* ---- read.c ---------------------------------------------------------------------------------- */

/* disk_read() by somebody who holds the range already; what lies past the end reads as zeros. */
int disk_read_held(struct platter_disk *disk, void *buf, size_t len, goff off,
                   struct platter_error *err);

/* Reads all of an extent, which begins at guest offset `off`. */
int disk_read_extent(struct platter_disk *disk, const struct disk_extent *x, void *buf, goff off,
                     struct platter_error *err);

/* disk_map() by somebody who holds the range already. */
int disk_map_held(struct platter_disk *disk, goff off, uint64_t len, struct disk_extent *ret,
                  struct platter_error *err);

/* ---- map.c ----------------------------------------------------------------------------------- */

void disk_names_free(struct platter_disk *disk);

/* ---- fill.c -----------------------------------------------------------------------------------
 */

/* A guest is about to change something. */
int filling_touch(struct filling *f, struct platter_error *err);
/* For what would be done with all of an image, be there something below it or not: EBUSY where it
 * is the target of a migration. */
int disk_check_no_target(const struct platter_disk *disk, const char *what,
                         struct platter_error *err);
/* Stores what [off, off + len) lacks (copy on read). */
int disk_fill_for_read(struct platter_disk *disk, goff off, uint64_t len,
                       struct platter_error *err);

/* ---- write.c --------------------------------------------------------------------------------- */

/* What every change begins with; of no bytes: whether the disk may be changed at all. */
int disk_check_writable(const struct platter_disk *disk, const char *what, goff off, uint64_t len,
                        struct platter_error *err);
/* Locks what a request touches, which was checked, out to whole units. The range is held also where
 * this fails. */
int disk_lock_units(struct platter_disk *disk, const char *what, struct range_hold *hold, goff off,
                    uint64_t len, struct platter_error *err);
/* The parts of a write, for who has locked its range: where a part of it goes; all that was planned
 * is carried out with the data for all of the write, or, where buf is NULL, given back; and the
 * range is unlocked, and inflated units that were overwritten are forgotten. */
int disk_write_plan(struct disk_write *w, goff off, uint64_t len, struct platter_error *err);
int disk_write_run(struct disk_write *w, const void *buf, struct platter_error *err);
void disk_write_done(struct disk_write *w);
/* disk_write() by somebody who holds the whole disk. */
int disk_write_held(struct platter_disk *disk, const void *buf, size_t len, goff off,
                    struct platter_error *err);

/* disk_zero() by somebody who holds the whole disk. */
int disk_zero_held(struct platter_disk *disk, goff off, uint64_t len, bool unmap,
                   struct platter_error *err);

/* Range check for every request; a sentence that names the disk. */
int disk_check_range(const struct platter_disk *disk, const char *what, goff off, uint64_t len,
                     struct platter_error *err);

#endif
