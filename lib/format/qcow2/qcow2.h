/* SPDX-License-Identifier: MIT */
/*
 * qcow2: what its files share. Section numbers are those of qcow2.md.
 *
 * Locks. image->lock guards everything in struct qcow2 and is never held over stream I/O: functions
 * named *_locked are called with it and return with it, but may drop it in between where their
 * comment says so. Whoever changes metadata holds the token as well (qcow2_enter(), `busy`): there
 * is one such change at a time, flush included, so what the token's holder leaves half done while
 * it waits for a read is seen by no other change. map() needs only the lock: bytes of tables and L1
 * entries change under it.
 *
 * What is true on the disk at every moment (section 3, I1-I4): a stored count is at least the
 * number of stored references; a table is complete before anything points at it; and what lost its
 * last reference is not reused before that loss is durable. flush.c keeps the order, alloc.c the
 * last of them.
 */
#ifndef QCOW2_QCOW2_H
#define QCOW2_QCOW2_H

#include "format/format.h"
#include "format/tables.h"

struct writer;

enum {
    QCOW2_MIN_CLUSTER_BITS = 9,
    QCOW2_MAX_CLUSTER_BITS = 21,
    QCOW2_HEADER_V2 = 72,          /* bytes of a version 2 header */
    QCOW2_HEADER_V3 = 104,         /* bytes a version 3 header has at least */
    QCOW2_HEADER_NOW = 112,        /* bytes we write */
    QCOW2_MAX_NAME = 1023,         /* of a backing file */
    QCOW2_MAX_FORMAT_NAME = 15,    /* of its format */
    QCOW2_MAX_L1_BYTES = 32 << 20, /* 2 PiB with 64 KiB clusters: section 22 */
    QCOW2_MAX_REFTABLE_BYTES = 8 << 20,
    QCOW2_MAX_SNAPSHOTS = 65536,
    QCOW2_MAX_SNAPSHOT_EXTRA = 1024,
    QCOW2_SNAPSHOT_EXTRA = 24, /* bytes of extra data that we know and write */
    QCOW2_MAX_BITMAPS = 65535,
    QCOW2_MAX_BITMAP_DIRECTORY = 1024 * 65535,
    QCOW2_MAX_SNAPSHOT_TABLE = 64 << 20,
    QCOW2_MAX_FREES = 1 << 16 /* runs that wait to be freed before a flush is made to free them */
};

#define QCOW2_MAX_SIZE ((UINT64_C(1) << 63) - 1)

enum {
    QCOW2_INCOMPATIBLE_DIRTY = 1 << 0,
    QCOW2_INCOMPATIBLE_CORRUPT = 1 << 1,
    QCOW2_INCOMPATIBLE_DATA_FILE = 1 << 2,
    QCOW2_INCOMPATIBLE_COMPRESSION = 1 << 3,
    QCOW2_INCOMPATIBLE_EXTENDED_L2 = 1 << 4,
    QCOW2_INCOMPATIBLE_KNOWN = (1 << 5) - 1,
    QCOW2_COMPATIBLE_LAZY = 1 << 0,
    QCOW2_AUTOCLEAR_BITMAPS = 1 << 0,
    QCOW2_AUTOCLEAR_RAW = 1 << 1
};

enum { QCOW2_CRYPT_NONE, QCOW2_CRYPT_AES, QCOW2_CRYPT_LUKS };
enum { QCOW2_DEFLATE, QCOW2_ZSTD };

#define QCOW2_COPIED      (UINT64_C(1) << 63) /* the target's count is exactly 1 */
#define QCOW2_PACKED      (UINT64_C(1) << 62)
#define QCOW2_ZERO        UINT64_C(1)
#define QCOW2_OFFSET_MASK UINT64_C(0x00FFFFFFFFFFFE00)
#define QCOW2_L1_RESERVED UINT64_C(0x7F000000000001FF)
#define QCOW2_L2_RESERVED UINT64_C(0x3F000000000001FE)
#define QCOW2_RB_RESERVED UINT64_C(0x00000000000001FF)
#define QCOW2_MAX_OFFSET  (UINT64_C(1) << 56) /* of anything a table points at */

/* ---- the header (header.c) ----------------------------------------------------------------------
 */

struct qcow2_header {
    uint32_t version;
    hoff backing_offset; /* in cluster 0; 0: none */
    uint32_t backing_size;
    uint32_t cluster_bits;
    uint64_t size; /* guest bytes */
    uint32_t crypt_method;
    uint32_t l1_size; /* entries */
    hoff l1_offset;
    hoff reftable_offset;
    uint32_t reftable_clusters;
    uint32_t n_snapshots;
    hoff snapshots_offset;
    uint64_t incompatible, compatible, autoclear;
    uint32_t refcount_order; /* a count has 1 << order bits */
    uint32_t length;         /* of the header itself, bytes */
    uint8_t compression;
};

/* Decodes the fixed part; false: not a qcow2 header of a version we know, or cut short. */
bool qcow2_header_decode(const uint8_t *bytes, size_t len, struct qcow2_header *ret);
/* cluster_bits and header_length, which tell where the extensions stand. */
int qcow2_header_check_length(const struct image *img, const struct qcow2_header *h,
                              struct platter_error *err);
/* The other rules of section 22 that need nothing but the header and the file's size. */
int qcow2_header_check(const struct image *img, const struct qcow2_header *h, uint64_t file_size,
                       struct platter_error *err);
/* ... and those of them that no repair can do without. */
int qcow2_header_check_fixed(const struct image *img, const struct qcow2_header *h,
                             uint64_t file_size, struct platter_error *err);
void qcow2_header_encode(const struct qcow2_header *h, struct writer *w);

/* ---- the rest of cluster 0 (extension.c) -------------------------------------------------------
 */

/* What header extensions say (section 2.1). */
struct qcow2_extensions {
    char *backing_format; /* or NULL */
    char *data_file;      /* or NULL */
    bool has_crypto, has_bitmaps;
    hoff crypto_offset;
    uint64_t crypto_len;
    uint32_t n_bitmaps;
    uint64_t bitmap_directory_size;
    hoff bitmap_directory;
    uint8_t *unknown; /* those we do not know, as they stand in the file; or NULL */
    size_t unknown_len;
    size_t end; /* where the list ends in cluster 0 */
};

/* Decodes the extensions out of the first `len` bytes of cluster 0. -ERANGE without a sentence:
 * that is not enough, ask again with the whole cluster. Unknown incompatible features fail here, in
 * the words of the image's own feature table. */
int qcow2_extensions_decode(const struct image *img, const struct qcow2_header *h,
                            const uint8_t *bytes, size_t len, struct qcow2_extensions *ret,
                            struct platter_error *err);
void qcow2_extensions_free(struct qcow2_extensions *x);
/* The whole list, with or without the names of features. */
void qcow2_extensions_encode(const struct qcow2_extensions *x, bool with_features,
                             struct writer *w);
/* Lays out cluster 0 of a new image: header, extensions, backing name, for which h->backing_* is
 * set. false: it does not fit into `len` bytes. */
bool qcow2_cluster0_encode(struct qcow2_header *h, const char *backing_name,
                           const struct qcow2_extensions *x, uint8_t *bytes, size_t len,
                           size_t *ret_len);

/* ---- another cluster 0 (rewrite.c) -------------------------------------------------------------
 */

/* What cluster 0 of an open image is to say, beginning with what it says. */
struct qcow2_rewrite {
    struct qcow2_header header; /* backing_* are laid out anew */
    struct qcow2_extensions extensions;
    char *backing_name; /* or NULL */
};

int qcow2_rewrite_begin(const struct image *img, struct qcow2_rewrite *w,
                        struct platter_error *err);
/* Replaces a text of the above; NULL takes it away. */
int qcow2_rewrite_text(char **text, const char *value, struct platter_error *err);
/*
 * Writes it so that a crash leaves the old one or the new one, durably, and takes it over into the
 * image (section 2.1). What it points at must be durable before. ENOSPC: there is no room in
 * cluster 0. Token and lock held; drops the lock. Poisons where writing failed.
 */
int qcow2_rewrite_commit(struct image *img, struct qcow2_rewrite *w, struct platter_error *err);
/* Frees what is left; after commit or instead of it. */
void qcow2_rewrite_end(struct qcow2_rewrite *w);

int qcow2_may_set_backing(struct image *img, const char *name, const char *format,
                          const struct image *backing, struct platter_error *err);
int qcow2_set_backing(struct image *img, const char *name, const char *format,
                      const struct image *backing, struct platter_error *err);

/* ---- snapshots (snapshot.c) --------------------------------------------------------------------
 */

struct qcow2_snapshot {
    char *id, *name;
    hoff l1_offset;
    uint32_t l1_size;
    uint32_t date_sec, date_nsec;
    uint64_t clock_nsec;
    uint64_t vm_state_size;
    uint64_t disk_size;
    uint64_t icount;  /* UINT64_MAX: not recorded */
    uint8_t *unknown; /* extra data behind the fields we know, or NULL */
    uint32_t unknown_len;
};

int qcow2_snapshots_load(struct image *img, struct platter_error *err);
void qcow2_snapshots_free(struct image *img);
json_t *qcow2_views(struct image *img);
/* As `qemu-img info` has it. */
json_t *qcow2_snapshot_describe(const struct qcow2_snapshot *s);

/* ---- an open image -----------------------------------------------------------------------------
 */

/* Clusters whose references went away, to be freed when that is durable (rule 3). */
struct qcow2_free {
    uint64_t first, n; /* host clusters; with `data_file`: bytes of the data file */
    bool punch;        /* give space back where the count reaches 0 */
    bool data_file;
};

/* Dirty bitmaps (section 16): what they need before a change, and during it. */
enum qcow2_bitmaps_state {
    QCOW2_BITMAPS_NONE,
    QCOW2_BITMAPS_DAMAGED,  /* they cannot be read, and become invalid by the first change */
    QCOW2_BITMAPS_STORED,   /* valid on the disk */
    QCOW2_BITMAPS_RECORDING /* marked as in use on the disk; changes are recorded in memory */
};

struct qcow2_bitmap;
struct qcow2_bitmap_list {
    struct qcow2_bitmap **items; /* on the budget, with room for `room` */
    uint32_t n, room;
};

/* What an open for a check found wrong in cluster 0, and went on. */
struct qcow2_checkup {
    int code, bitmaps_code; /* of all but the bitmaps extension; of that */
    struct platter_error why, bitmaps_why;
};

struct qcow2 {
    struct qcow2_header header;
    struct qcow2_extensions extensions;
    uint32_t cluster_bits;
    uint64_t cluster_size;
    uint32_t entry_size; /* of an L2 entry: 8, or 16 with extended L2 */
    uint32_t n_sub;      /* subclusters of a cluster: 32 with extended L2, or 1 */
    uint32_t sub_bits;   /* log2 of a subcluster's size */
    uint32_t slice_bits; /* log2 of the guest bytes that one slice of an L2 table maps */
    uint32_t l1_bits;    /* log2 of the guest bytes that one L1 entry maps */
    bool frozen;         /* a snapshot's view, or opened read-only: nothing here ever changes */
    struct stream *data; /* where data clusters live: image->stream, or the data file */
    bool data_file;      /* external */
    bool data_raw;       /* which is the disk as it is, byte by byte */
    uint64_t file_size;  /* of image->stream, at least: it grows */
    uint64_t data_size;  /* of the data file */

    struct luks1 *luks;    /* the LUKS header, as far as it could be read; or NULL */
    struct cipher *cipher; /* of an encrypted image's data; NULL: only tables are wanted */

    struct pointers l1;       /* of the view that is open */
    struct pointers reftable; /* loaded for writing only */
    struct slices l2, blocks;
    struct qcow2_snapshot *snapshots; /* header.n_snapshots of them */
    uint64_t snapshots_size;          /* bytes of the snapshot table */
    uint64_t snapshots_memory;        /* what they took from the budget */

    /* Writing. */
    pthread_cond_t changed; /* a slice was loaded or written, or the token is free */
    bool busy;              /* the token */
    bool prepared;          /* the header is ready for changes, data in place included */
    bool pad;               /* packed data was written: the file is to end with a whole sector */
    bool snapshots_seen;    /* the counts of the L2 tables of snapshots were looked at */
    uint64_t old_clusters;  /* of the file at open: what is behind is surely nobody's */
    uint64_t next_free;     /* no free cluster before this one */
    hoff taken_end;         /* behind it nothing was ever taken, nor was in the file at open */
    hoff packed_cursor;     /* where the next packed record may start; 0: nowhere */
    struct qcow2_free *frees;
    uint32_t n_frees, room_frees;

    struct qcow2_checkup *checkup; /* of an image that is opened to be checked, or NULL */

    /* Changes while the engine keeps all others away, or (bitmaps_loaded) with the token. */
    struct qcow2_bitmap_list bitmaps;
    bool bitmaps_loaded;
    atomic_int bitmaps_state; /* enum qcow2_bitmaps_state */
    char *bitmap_lost;        /* why some bitmap does not know all changes, or NULL */
};

static inline struct qcow2 *qcow2_of(const struct image *img)
{
    return img->state;
}

int qcow2_open(struct image *img, struct platter_error *err);
int qcow2_close(struct image *img, struct platter_error *err);

/* ---- encryption (crypt.c, section 17) ----------------------------------------------------------
 */

/* Reads the LUKS header, and asks for the key where data is going to be read. */
int qcow2_crypt_open(struct image *img, struct platter_error *err);
void qcow2_crypt_close(struct image *img);
/* format->crypt, format->key_area */
void qcow2_crypt(const struct image *img, bool encrypt, void *out, const void *in, size_t len,
                 goff guest, hoff host);
bool qcow2_key_area(const struct image *img, struct luks1_area *ret,
                    const struct luks1 **ret_header);
json_t *qcow2_crypt_info(const struct image *img);

/* ---- L2 entries (entry.c) ----------------------------------------------------------------------
 */

/* An L2 entry, with standard ones seen as a cluster of one subcluster: bit i of `alloc` and `zero`
 * is about subcluster i; neither: ask the backing file. */
struct qcow2_entry {
    bool packed;
    bool has_place; /* `off` is a cluster of the host */
    bool copied;
    uint32_t alloc, zero;
    hoff off;            /* of the host cluster, or of the packed record */
    uint64_t packed_len; /* bytes that may belong to the record: section 5 */
};

/* Decodes and checks the entry for the cluster at guest offset `guest` (for sentences). */
int qcow2_entry_decode(const struct image *img, const uint8_t *bytes, goff guest,
                       struct qcow2_entry *ret, struct platter_error *err);
void qcow2_entry_encode(const struct image *img, uint8_t *bytes, const struct qcow2_entry *e);
/* The L2 table that entry i of an L1 table, `raw`, points at: 0 if there is none. */
int qcow2_l1_decode(const struct image *img, uint64_t i, uint64_t raw, hoff *ret,
                    struct platter_error *err);
/* Where the L2 table for a guest offset stands: 0 if there is none. Checks the L1 entry. */
int qcow2_l2_find(const struct image *img, goff guest, hoff *ret, struct platter_error *err);
/* The slice of the L2 table that maps `guest`, and the entry's place in it; *ret NULL: no table.
 * Lock held; drops it to read. */
int qcow2_l2_get(struct image *img, goff guest, struct slice **ret, uint8_t **ret_entry,
                 struct platter_error *err);
/* Whether [off, off + len) of the file touches the header, L1 or refcount table, or keys. */
bool qcow2_hits_tables(const struct qcow2 *q, hoff off, uint64_t len);
/* The same for the snapshot table and the bitmap directory. */
bool qcow2_hits_lists(const struct qcow2 *q, hoff off, uint64_t len);

/* Refuses to write to a file that was cut short (length.c). */
int qcow2_check_length(struct image *img, struct platter_error *err);

int qcow2_map(struct image *img, goff off, uint64_t len, struct extent *ret,
              struct platter_error *err);

/* ---- counts (refcount.c) -----------------------------------------------------------------------
 */

/* Entry k of a refcount block's bytes. */
uint64_t qcow2_count_get(const uint8_t *bytes, uint32_t order, uint64_t k);
void qcow2_count_put(uint8_t *bytes, uint32_t order, uint64_t k, uint64_t value);
uint64_t qcow2_count_max(uint32_t order);
/* The block slice that holds the count of a host cluster, and the entry in it; *ret NULL: no block,
 * the count is 0. Token and lock held; drops the lock to read. */
int qcow2_count_slot(struct image *img, uint64_t cluster, struct slice **ret, uint64_t *ret_k,
                     struct platter_error *err);
/* The count of a cluster. */
int qcow2_count_read(struct image *img, uint64_t cluster, uint64_t *ret, struct platter_error *err);
/* Adds 1 to the counts of n clusters that have blocks, all or (EOVERFLOW: a count is full) none, or
 * takes 1 away. */
int qcow2_count_up(struct image *img, uint64_t cluster, uint64_t n, struct platter_error *err);
/* The same for clusters that are referred to already: a count of 0 is damage. */
int qcow2_count_more(struct image *img, uint64_t cluster, uint64_t n, struct platter_error *err);
int qcow2_count_down(struct image *img, uint64_t cluster, uint64_t n, bool punch,
                     struct platter_error *err);
/* Adds `by` to the count of a cluster that is in use, or takes it away. EOVERFLOW: it is full. */
int qcow2_count_add(struct image *img, uint64_t cluster, uint64_t by, struct platter_error *err);
int qcow2_count_take(struct image *img, uint64_t cluster, uint64_t by, struct platter_error *err);

/* ---- allocation (alloc.c, overlap.c) -----------------------------------------------------------
 */

/* Whether n clusters that count as free are none that a table stands in: if one does the image is
 * marked as corrupt. Token and lock held; drops the lock on failure only. */
int qcow2_check_overlap(struct image *img, uint64_t cluster, uint64_t n, struct platter_error *err);
/* The same of all L2 tables of snapshots, and once for all: their counts tell. Token and lock held;
 * drops the lock. */
int qcow2_check_snapshot_counts(struct image *img, struct platter_error *err);

/* Finds and counts a run of 1 .. want free clusters. Token and lock held; drops the lock. */
int qcow2_alloc(struct image *img, uint64_t want, hoff *ret_off, uint64_t *ret_n,
                struct platter_error *err);
/* n clusters side by side, for a table. */
int qcow2_alloc_table(struct image *img, uint64_t n, hoff *ret_off, struct platter_error *err);
/* Has the header name another refcount table, durably, which is there durably. Lock held; drops it.
 * Poisons where that failed. */
int qcow2_reftable_switch(struct image *img, hoff off, uint64_t clusters,
                          struct platter_error *err);
/* Room for n more entries in the list of frees; call before the change that cannot be taken back.
 */
int qcow2_free_room(struct image *img, uint32_t n, struct platter_error *err);
/* Remembers that a reference to what an entry holds goes away. */
void qcow2_free_entry(struct image *img, const struct qcow2_entry *e, bool punch);
void qcow2_free_run(struct image *img, uint64_t first, uint64_t n, bool punch, bool data_file);
/* Frees for good what waits, after a barrier. Token and lock held; drops the lock. */
int qcow2_free_all(struct image *img, struct platter_error *err);

/* ---- changing (token.c, write.c, packed.c, mark.c, flush.c) ------------------------------------
 */

/* Takes the lock and the token, and makes ready for one change. */
int qcow2_enter(struct image *img, struct platter_error *err);
/* The same for a change that no guest sees, and bitmaps need not know of. */
int qcow2_enter_quietly(struct image *img, struct platter_error *err);
/* Takes the lock and the token, and nothing else. */
void qcow2_token_take(struct image *img);
void qcow2_leave(struct image *img);
/* What was written so far is durable before what follows (if the image is ordered). Lock held;
 * drops it. */
int qcow2_barrier(struct image *img, struct platter_error *err);
/* Metadata is about to be overwritten: marks the image as corrupt, in the file as well, and poisons
 * it. Lock held; drops it. Returns -ECORRUPT. */
int qcow2_mark_corrupt(struct image *img, hoff off, struct platter_error *err);
int qcow2_flush_locked(struct image *img, struct platter_error *err);
int qcow2_flush(struct image *img, struct platter_error *err);
/* A table of our own for the L1 entry of `guest`: new, or a copy of a shared one. */
int qcow2_l2_own(struct image *img, goff guest, struct platter_error *err);

int qcow2_reserve(struct image *img, goff off, uint64_t len, struct reservation *ret,
                  struct platter_error *err);
int qcow2_commit(struct image *img, const struct reservation *r, struct platter_error *err);
void qcow2_abandon(struct image *img, const struct reservation *r);

/* How many bytes of a packed extent are in the file. */
int qcow2_packed_there(struct image *img, const struct extent *e, uint64_t *ret_len,
                       struct platter_error *err);
int qcow2_unpack(struct image *img, const struct extent *e, void *out, struct platter_error *err);
int qcow2_pack(struct image *img, const void *unit, void *out, size_t cap, size_t *ret_len,
               struct platter_error *err);
int qcow2_reserve_packed(struct image *img, goff unit, size_t packed_len, struct reservation *ret,
                         struct platter_error *err);
int qcow2_commit_packed(struct image *img, const struct reservation *r, struct platter_error *err);

int qcow2_mark(struct image *img, goff off, uint64_t len, enum mark mark, bool unmap,
               struct platter_error *err);

int qcow2_uncover(struct image *img, goff off, uint64_t len, struct platter_error *err);

/* Clears the entries of whole clusters in [off, end), which may lie behind the disk: nothing is
 * stored there. Token and lock held; drops the lock. */
int qcow2_forget(struct image *img, goff off, goff end, struct platter_error *err);

/* ---- another shape (drop.c, resize.c) ----------------------------------------------------------
 */

/* Whether a table can name a cluster of its own in each entry: a walk over what entries share would
 * have no end. */
int qcow2_check_distinct(const struct image *img, const struct pointers *p, const char *what,
                         struct platter_error *err);
/* Forgets all below the L1 entries from `first` on, durably. Token and lock held; drops the lock.
 */
int qcow2_l1_cut(struct image *img, uint32_t first, struct platter_error *err);
/* Cuts off the end of the file that nothing needs. Token and lock held; drops the lock. */
int qcow2_trim(struct image *img, struct platter_error *err);
int qcow2_make_empty(struct image *img, struct platter_error *err);
/* An L1 table of n entries at least, in the file as well. Token and lock held; drops the lock. */
int qcow2_l1_grow(struct image *img, uint32_t n, struct platter_error *err);
int qcow2_resize(struct image *img, const struct resize_request *request,
                 struct platter_error *err);

/* ---- dirty bitmaps (bitmap.c, bitmap_change.c; more in bitmap.h) -------------------------------
 */

extern const struct bitmap_ops qcow2_bitmap_ops;
/* Records that what a guest sees in [off, off + len) is about to change. */
int qcow2_touch(struct image *img, goff off, uint64_t len, struct platter_error *err);
/* Looks at them when an image is opened for writing; what they cannot survive is a doubt. */
int qcow2_bitmaps_open(struct image *img, struct platter_error *err);
/* The autoclear bit, if they stay valid when the image changes. */
uint64_t qcow2_bitmaps_feature(const struct image *img);
/* Marks them as in use, durably. Token and lock held; drops the lock. */
int qcow2_bitmaps_begin(struct image *img, struct platter_error *err);
/* All bits of the enabled ones become 1: another disk is to be seen now. After qcow2_enter(); drops
 * the lock. */
void qcow2_bitmaps_all_dirty(struct image *img);
/* Whether the disk may get another size with them. */
int qcow2_bitmaps_check_resize(const struct image *img, uint64_t size, struct platter_error *err);
/* For a disk of another size, before the header says it; img->size is the old one still. After
 * qcow2_enter(); drops the lock. */
int qcow2_bitmaps_resize(struct image *img, uint64_t size, struct platter_error *err);
/* Stores what they recorded, when all else is flushed. */
int qcow2_bitmaps_close(struct image *img, struct platter_error *err);
void qcow2_bitmaps_free(struct image *img);
/* What `info` says of them; NULL: nothing. */
json_t *qcow2_bitmaps_info(struct image *img);

extern const struct option_def qcow2_amend_options[];
int qcow2_amend(struct image *img, const struct amend_request *request, struct platter_error *err);

/* ---- new images and descriptions (create.c, layout.c, info.c) -----------------------------------
 */

extern const struct option_def qcow2_create_options[];
int qcow2_create(const struct create_request *request, struct platter_error *err);
int qcow2_writer_open(const struct create_request *request, struct image_writer **ret,
                      struct platter_error *err);
uint32_t qcow2_create_unit(const struct option_values *options);
int qcow2_measure(uint64_t size, uint64_t data, const struct option_values *options,
                  struct platter_measurement *ret, struct platter_error *err);
json_t *qcow2_info(struct image *img);
int qcow2_info_top(struct image *img, json_t *info);

/* reservation.cookie[0]: what kind of room it is. */
enum qcow2_room { QCOW2_ROOM_IN_PLACE, QCOW2_ROOM_FRESH, QCOW2_ROOM_PACKED };

#endif
