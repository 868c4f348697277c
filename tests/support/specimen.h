/* SPDX-License-Identifier: MIT */
/*
 * Small images to work on, made by qemu-img, and workloads that go through the corners of a format:
 * first writes, copies from a backing file, overwritten compressed clusters, zeros, discards.
 */
#ifndef SUPPORT_SPECIMEN_H
#define SUPPORT_SPECIMEN_H

#include "disk/disk.h"
#include "support/buffer.h"
#include "support/esx.h"
#include "support/ledger.h"
#include "support/prng.h"

struct specimen_spec {
    const char *name;
    const char *format;
    const char *options;   /* for qemu-img -o; NULL: none */
    enum esx_kind esx;     /* the file is the extent of a VMDK of ESX, made by hand */
    uint32_t grain;        /* COWD: its grains, in sectors */
    uint64_t size;         /* guest bytes, a multiple of 512 */
    uint64_t filled;       /* bytes at the start that the image itself holds */
    bool packed;           /* ... compressed */
    bool snapshot;         /* ... and shared with an internal snapshot */
    bool no_tables;        /* VMDK: the grain directories are emptied, so tables must be made */
    bool device;           /* the file goes on with garbage behind the image, as a device does */
    const char *backing;   /* format of the backing file, ESX: vmdk; NULL: none */
    uint64_t backing_size; /* its guest bytes */
    bool backing_packed;
    const char *key;                /* qcow: encrypted with this passphrase; NULL: not */
    unsigned cluster_bits, l2_bits; /* qcow: others than QEMU gives new images; 0: those */
    uint64_t memory_limit;          /* for the disk; 0: its default */
};

struct specimen {
    const struct specimen_spec *spec;
    struct buffer top, backing; /* the files as they stand; backing.bytes is NULL without one */
    uint8_t *content;           /* what the guest sees: spec->size bytes */
    uint64_t cluster;           /* allocation unit */
};

/* A list of them that ends with .name = NULL. */
extern const struct specimen_spec specimens[];

struct specimen specimen_make(const struct specimen_spec *spec);
void specimen_free(struct specimen *s);

/* The disk of a specimen over another top (consumed, on failure as well) than the file it was made
 * with. */
int specimen_open(const struct specimen *s, struct stream *top, bool writable,
                  struct platter_disk **ret, struct platter_error *err);

/* Reads all of it: spec->size bytes. */
int specimen_read(const struct specimen *s, struct platter_disk *disk, uint8_t *ret_content,
                  struct platter_error *err);

/* ---- workloads --------------------------------------------------------------------------------
 */

struct write_log;

struct workload {
    struct platter_disk *disk;
    struct ledger *ledger;
    struct write_log *log; /* or NULL: all positions are 0 then */
    struct prng prng;
    uint64_t sectors; /* of the disk */
    uint64_t cluster; /* in sectors */
    uint8_t *scratch; /* room for all of the disk */
    unsigned failed;  /* calls that failed */
    unsigned failed_flushes;
};

/* One call each, kept in the ledger; sectors. The code is that of the call. */
int workload_write(struct workload *w, uint64_t first, uint64_t n);
int workload_zero(struct workload *w, uint64_t first, uint64_t n, bool unmap);
int workload_discard(struct workload *w, uint64_t first, uint64_t n);
int workload_flush(struct workload *w);

/* The same calls for every seed and disk: each corner once. */
void workload_script(struct workload *w);
/* A random call. */
void workload_step(struct workload *w);

#endif
