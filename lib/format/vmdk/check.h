/* SPDX-License-Identifier: MIT */
/*
 * The check of a VMDK inside: what its files share. vmdk.md sections 12, 13 and 15.
 *
 *   check.c            file -> descriptor -> extents, and what the descriptor says of them
 *   check_header.c     header and footer of a sparse file: which to believe
 *   check_layout.c     whether directories are where the header says
 *   check_directory.c  grain directories, and where tables stand
 *   check_tables.c     grain tables: what each entry may be
 *   check_space.c      what stands where in the file: two grains in one place, space of nobody
 *   check_sesparse.c   seSparse files
 *   check_numbers.c    a set of numbers
 *   check_stream.c     compressed grains, and tables made anew from them
 *
 * A repair keeps this order, so that it can be interrupted anywhere and begun anew: what is moved
 * or made stands durably at the end of the file before an entry names it; of two copies of an entry
 * the redundant one is written first; space is given back, and the mark of an unclean shutdown
 * taken away, when all else is durable.
 */
#ifndef FORMAT_VMDK_CHECK_H
#define FORMAT_VMDK_CHECK_H

#include "format/vmdk/vmdk.h"

/* An extent as the descriptor has it. */
struct check_file {
    const struct descriptor_extent *line; /* NULL: the file was opened without a descriptor */
    struct stream *stream;                /* NULL: there is none, or it could not be opened */
    bool owned;
    int code; /* why it could not be opened */
    struct platter_error why;
};

/* Where the header of a hosted sparse file stands twice. */
struct header_pair {
    bool has_header, has_footer; /* the magic is there */
    struct hosted_header header, footer;
    hoff footer_at;
};

/* What open leaves for the check, beside the descriptor. */
struct checkup {
    int code; /* why there is no descriptor, though there should be */
    struct platter_error why;
    struct check_file *files;
    unsigned n_files, max_files;
};

enum { PRIMARY, REDUNDANT, COPIES };

struct sector_range {
    uint32_t start, len;
};

/* A set of numbers that takes little where they are close to each other, and no more memory than it
 * has: where there is no room for all, it keeps the lowest. */
struct number_set {
    struct budget *budget;
    struct number_leaf *leaves;
    uint32_t *slots; /* of a hash table: 1 + index of a leaf */
    uint32_t n, max, n_slots;
    uint64_t factor;    /* of the hash */
    uint64_t from, end; /* what is kept is in [from, end) */
};

/* A sparse file while it is checked. Sectors, where not said otherwise. */
struct sparse_check {
    struct check *check;
    struct image *img; /* that the extent belongs to */
    struct budget *budget;
    struct stream *stream;
    const char *name;
    hoff size; /* of the file, in bytes; a repair appends */
    struct hosted_header h;
    uint64_t grains;  /* of the capacity */
    uint64_t nominal; /* sectors that the disk shows of it */
    uint32_t gd_count, gt_sectors;
    bool packed;
    bool cowd;
    struct sparse *se;         /* of a seSparse file: opened by the engine; else NULL */
    struct number_set indexes; /* the same: of its grains */
    bool doubled;              /* the same: one of them came twice */
    bool at_end;               /* a stream whose directory stands at its end */
    bool mend;                 /* everything that the image's kind allows */
    bool keep;    /* what seems to be nobody's may not be: header or directory is doubtful */
    bool dropped; /* an entry, for it led nowhere: what it was to lead to may be there yet */
    unsigned copies;
    uint64_t gd_at[COPIES];
    uint32_t *gd[COPIES];      /* 0: no table that can be used */
    bool doubted[COPIES];      /* what it names is believed only at the usual place */
    struct sector_range *meta; /* all that is no grain, sorted, apart */
    uint32_t n_meta, max_meta;
    uint64_t *used; /* a bit for each sector of [used_from, used_from + used_len) */
    uint64_t used_from, used_len, used_room;
    uint64_t next;   /* the first sector behind those that is used; UINT64_MAX: none */
    uint64_t last;   /* where the sector behind the last grain in guest order is; 0: none yet */
    uint64_t end;    /* behind the last sector in use */
    uint64_t early;  /* the first grain in front of overHead that is not in metadata; 0: none */
    uint64_t placed; /* grains that were seen */
    bool odd;        /* one of them is an odd number of grains away from the first */
    uint64_t first_grain; /* the first that was seen: the others are aligned like it */
    bool told_value_1, told_unaligned;
    int failed; /* something could not be read: nothing is concluded from that, or written */
    struct platter_error failure;
    bool rebuild;    /* a stream's tables must be made anew */
    uint32_t *found; /* of a stream: where each grain's record is, by a scan; or NULL */
};

/* Whether a code tells what the file is like. Any other than 0 and those of damage is kept in
 * s->failed. */
bool check_tells(struct sparse_check *s, int code, const struct platter_error *why);
int check_failure(const struct sparse_check *s, struct platter_error *err); /* 0 or s->failed */
void sparse_check_close(struct sparse_check *s);
uint64_t file_sectors(const struct sparse_check *s);
/* Room for n sectors behind the end of the file, aligned to grains. */
int check_append(struct sparse_check *s, uint64_t n, uint32_t *ret_sector,
                 struct platter_error *err);

/* Whether grains were found where the header says there are none. */
int check_overhead(struct sparse_check *s, struct platter_error *err);

/* ---- check_header.c -------------------------------------------------------------------------- */

/* Reads both; only reading can fail. */
int header_pair_read(struct stream *s, uint64_t size, struct header_pair *ret,
                     struct platter_error *err);
/* Which sector the descriptor begins at, as far as one can tell; *ret_len in sectors. */
void header_pair_descriptor(const struct header_pair *p, uint64_t *ret_at, uint64_t *ret_len);
/* Chooses s->h, and mends the other one. 1: there is none to go on with. */
int check_header(struct sparse_check *s, struct platter_error *err);
/* Writes s->h, durably; one sector is written whole or not at all. */
int check_write_header(struct sparse_check *s, struct platter_error *err);
/* COWD: what is behind the end is free, and says so before anything leads there. */
int check_free_sector(struct sparse_check *s, struct platter_error *err);
/* The last step. */
int check_unclean(struct sparse_check *s, struct platter_error *err);

/* ---- check_layout.c -------------------------------------------------------------------------- */

extern const char *const check_copy_words[COPIES];
/* Whether sectors are where new files have tables: in front of the grains. */
bool check_in_front(const struct sparse_check *s, uint64_t sector, uint64_t n);
/* Where new files have the table of a range: they follow their directory. */
uint64_t check_usual_place(const struct sparse_check *s, unsigned copy, uint64_t i);
/* Both directories against each other; one may be given up. */
int check_places(struct sparse_check *s, struct platter_error *err);
/* The tables against what the header says of all of them. */
void check_shape(struct sparse_check *s);

/* ---- check_directory.c ----------------------------------------------------------------------- */

int check_directories(struct sparse_check *s, struct platter_error *err);
/* Whether sectors touch what is no grain. */
bool check_in_meta(const struct sparse_check *s, uint64_t sector, uint64_t n);

/* ---- check_tables.c -------------------------------------------------------------------------- */

enum pass {
    PASS_WEIGH, /* whether what tables say makes sense as a whole */
    PASS_JUDGE, /* every entry is judged, and its place noted */
    PASS_PLACE, /* only what stands where is judged */
    PASS_MARK   /* only noted */
};

/* How many bytes of a grain must be there: the last may end where the disk does. */
uint64_t check_needed_bytes(const struct sparse_check *s, uint64_t grain);
/* All tables, once. */
int check_tables(struct sparse_check *s, enum pass pass, struct platter_error *err);

/* ---- check_space.c --------------------------------------------------------------------------- */

/* Judges the tables, and what stands where. */
int check_space(struct sparse_check *s, struct platter_error *err);
/* Notes that sectors are used; true if one of them was already. */
bool check_use(struct sparse_check *s, uint64_t sector, uint64_t n);

/* ---- check_sesparse.c, check_numbers.c ------------------------------------------------------- */

int check_se_header(struct sparse_check *s, struct platter_error *err);
/* Judges its directory and tables. */
int check_se(struct sparse_check *s, struct platter_error *err);

int number_set_open(struct number_set *t, struct budget *budget, struct platter_error *err);
void number_set_close(struct number_set *t);
/* Empty, for numbers from `from` on. */
void number_set_begin(struct number_set *t, uint64_t from);
/* Empty, for the numbers again that it had room for: so it has. */
void number_set_again(struct number_set *t);
/* True if the number was there already. */
bool number_set_add(struct number_set *t, uint64_t number);

/* ---- check_stream.c -------------------------------------------------------------------------- */

/* How many sectors the record at `sector` takes; 0, and why, if it cannot be that of `grain`. */
int check_record(struct sparse_check *s, uint64_t grain, uint64_t sector, uint64_t *ret_sectors,
                 struct platter_error *why);
/* Where a scan of the file found the grain; 0: nowhere. */
int check_find_record(struct sparse_check *s, uint64_t grain, uint32_t *ret_sector,
                      struct platter_error *err);
/* Whether space that no table knows is a marker, or zeros (*ret_sectors of it), or a lost record.
 */
enum stray { STRAY_NOTHING, STRAY_LEAK, STRAY_LOST };
int check_stray(struct sparse_check *s, uint64_t sector, uint64_t most, enum stray *ret,
                uint64_t *ret_sectors, struct platter_error *err);
/* How many sectors from `sector` on, at most so many, are zeros. */
int check_zero_run(struct sparse_check *s, uint64_t sector, uint64_t most, uint64_t *ret,
                   struct platter_error *err);
/* Makes tables, directory and footer of a stream anew. */
int check_rebuild(struct sparse_check *s, struct platter_error *err);

#endif
