/* SPDX-License-Identifier: MIT */
/*
 * What the journal of ext3 and ext4 has and the file system has not yet: a disk that was copied
 * while it was mounted, as backups are, always has some. It is applied as a kernel does at the next
 * mount, but in memory: the volume learns where the newer state of a block stands, and nothing is
 * written.
 *
 * The layout is that of the Linux kernel's documentation (filesystems/ext4/journal). A transaction
 * counts when its commit block is there, and whatever has checksums when they fit. What cannot be
 * applied is told as the doubt of the volume, which then is as it stands.
 */
#include "files_ext.h"

#if HAVE_EXT2FS

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAGIC = 0xc03b3998u,
    DESCRIPTOR = 1,
    COMMIT = 2,
    SUPERBLOCK = 4, /* version 2; 3 is version 1 */
    REVOKE = 5,
    WIDE = 0x02, /* features */
    ASYNC = 0x04,
    SUM_2 = 0x08,
    SUM_3 = 0x10,
    FAST = 0x20,
    KNOWN = 0x3f,
    ESCAPED = 1, /* flags of a tag */
    SAME_UUID = 2,
    LAST = 8,
    MAX_BLOCKS = 10 << 20, /* of a journal, which e2fsprogs makes no larger either */
    MAX_RECORDS = 4 << 20  /* 128 MiB: a journal of 4 GiB, all of it in use */
};

/* A block of a transaction: its newer state, or that older ones do not count. */
struct record {
    uint64_t block;
    uint64_t at; /* journal block */
    uint32_t sequence, sum;
    bool escaped, revoked;
};

struct journal {
    struct ext *ext;
    uint8_t *bytes; /* the block at hand */
    uint32_t size;  /* bytes of a block */
    uint32_t length, first, end, start, sequence, features, seed;
    struct run *runs; /* where its blocks are */
    size_t n_runs, runs_room;
    struct record *records;
    size_t n_records, room, n_committed, n_data; /* n_data: those that are blocks */
    bool torn; /* behind what is complete a block of it does not fit its checksum */
    struct platter_error *err;
};

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static int broken(struct journal *j, const char *what)
{
    return files_fail(j->err, PLATTER_ECORRUPT, "%s", what);
}

/* ---- its blocks ------------------------------------------------------------------------------ */

static int add_run(void *opaque, const struct run *run, struct platter_error *err)
{
    struct journal *j = opaque;
    if (j->n_runs == j->runs_room) {
        size_t room = j->runs_room ? 2 * j->runs_room : 16;
        struct run *more = realloc(j->runs, room * sizeof *more);
        if (!more)
            return files_fail(err, ENOMEM, "no memory for the journal's places");
        j->runs = more;
        j->runs_room = room;
    }
    if (run->bytes)
        return files_fail(err, PLATTER_ECORRUPT, "it is in its inode");
    j->runs[j->n_runs++] = *run;
    return 0;
}

/* Where a block of the journal stands on the volume; 0: nowhere. */
static uint64_t place_of(const struct journal *j, uint64_t block)
{
    uint64_t at = block * j->size;
    size_t low = 0, high = j->n_runs; /* they are in order; the one before `low` is it */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (j->runs[middle].at <= at)
            low = middle + 1;
        else
            high = middle;
    }
    const struct run *run = low ? &j->runs[low - 1] : NULL;
    if (!run || at + j->size > run->at + run->length)
        return 0;
    return run->offset + (at - run->at);
}

static int read_block(struct journal *j, uint64_t block)
{
    uint64_t at = place_of(j, block);
    return at ? volume_read(j->ext->volume, j->bytes, j->size, at, j->err)
              : broken(j, "a block of it is nowhere");
}

static uint32_t next_of(const struct journal *j, uint64_t block)
{
    return (uint32_t)(block >= j->end ? j->first + (block - j->end) : block);
}

static bool has_sums(const struct journal *j)
{
    return j->features & (SUM_2 | SUM_3);
}

/* The sum at `at`, over the first bytes of the block with zeros there. */
static bool sum_fits(struct journal *j, uint32_t seed, size_t at, uint32_t len)
{
    uint8_t kept[4];
    if (!has_sums(j))
        return true;
    memcpy(kept, j->bytes + at, 4);
    memset(j->bytes + at, 0, 4);
    uint32_t sum = ext_lib.crc32c(seed, j->bytes, len);
    memcpy(j->bytes + at, kept, 4);
    return sum == be32(kept);
}

static int read_superblock(struct journal *j)
{
    j->size = j->ext->fs->blocksize;
    j->bytes = malloc(j->size);
    if (!j->bytes)
        return files_fail(j->err, ENOMEM, "no memory for a block of it");
    const uint8_t *b = j->bytes;
    int r = read_block(j, 0);
    if (r < 0)
        return r;
    uint32_t version = be32(b + 4);
    if (be32(b) != MAGIC || (version != SUPERBLOCK && version != 3) || be32(b + 12) != j->size)
        return broken(j, "its superblock is damaged");
    j->length = be32(b + 16);
    j->first = be32(b + 20);
    j->sequence = be32(b + 24);
    j->start = be32(b + 28);
    j->features = version == SUPERBLOCK ? be32(b + 40) : 0;
    uint32_t fast = be32(b + 84) ? be32(b + 84) : 256;
    j->end = j->features & FAST && fast < j->length ? j->length - fast : j->length;
    if (j->features & ~KNOWN || (j->features & ASYNC && !has_sums(j)))
        return broken(j, "it has a feature that is not known here");
    if (has_sums(j) && b[80] != 4)
        return broken(j, "it has checksums that are not known here");
    j->seed = ext_lib.crc32c(~0u, b + 48, 16);
    if (!sum_fits(j, ~0u, 252, SUPERBLOCK_SIZE))
        return broken(j, "its superblock does not fit its checksum");
    if (j->length > MAX_BLOCKS || j->first == 0 || j->first >= j->end ||
        (j->start && (j->start < j->first || j->start >= j->end)))
        return broken(j, "its superblock is damaged");
    return 0;
}

/* ---- transactions ---------------------------------------------------------------------------- */

static int add_record(struct journal *j, const struct record *record)
{
    if (j->n_records == j->room) {
        size_t room = j->room ? 2 * j->room : 256;
        struct record *more = realloc(j->records, room * sizeof *more);
        if (!more)
            return files_fail(j->err, ENOMEM, "no memory for its blocks");
        j->records = more;
        j->room = room;
    }
    j->records[j->n_records++] = *record;
    return 0;
}

static size_t tag_size(const struct journal *j)
{
    if (j->features & SUM_3)
        return 16;
    return (j->features & WIDE ? 12u : 8u) + (j->features & SUM_2 ? 2u : 0u);
}

/* The blocks that follow a descriptor, up to *block. */
static int take_descriptor(struct journal *j, uint32_t sequence, uint32_t *block)
{
    size_t end = j->size - (has_sums(j) ? 4 : 0), each = tag_size(j);
    for (size_t at = 12; at + each <= end;) {
        const uint8_t *t = j->bytes + at;
        bool wide_tag = j->features & SUM_3;
        uint32_t flags = wide_tag ? be32(t + 4) : be32(t + 4) & 0xffff;
        struct record record = {.block = be32(t), .sequence = sequence};
        if (j->features & WIDE)
            record.block |= (uint64_t)be32(t + 8) << 32;
        record.sum = wide_tag ? be32(t + 12) : be32(t + 4) >> 16;
        record.escaped = flags & ESCAPED;
        *block = next_of(j, (uint64_t)*block + 1);
        record.at = *block;
        j->n_data++;
        int r = add_record(j, &record);
        if (r < 0 || flags & LAST)
            return r;
        at += each + (flags & SAME_UUID ? 0 : 16);
    }
    return 0;
}

static int take_revoked(struct journal *j, uint32_t sequence)
{
    size_t each = j->features & WIDE ? 8 : 4, end = be32(j->bytes + 12);
    if (end > j->size - (has_sums(j) ? 4 : 0))
        return broken(j, "a list of revoked blocks is damaged");
    for (size_t at = 16; at + each <= end; at += each) {
        struct record record = {.sequence = sequence, .revoked = true};
        record.block = be32(j->bytes + at);
        if (each == 8)
            record.block = record.block << 32 | be32(j->bytes + at + 4);
        int r = add_record(j, &record);
        if (r < 0)
            return r;
    }
    return 0;
}

/* All transactions that are complete. No block is looked at twice. */
static int read_transactions(struct journal *j)
{
    uint32_t block = j->start, sequence = j->sequence;
    for (uint32_t n = 0; j->start && n < j->length; n++) {
        int r = read_block(j, block);
        if (r < 0)
            return r;
        uint32_t kind = be32(j->bytes + 4);
        if (be32(j->bytes) != MAGIC || be32(j->bytes + 8) != sequence)
            break;
        j->torn = !sum_fits(j, j->seed, kind == COMMIT ? 16 : j->size - 4, j->size);
        if (j->torn)
            break;
        if (n + j->n_data >= j->end - j->first)
            return broken(j, "its transactions go round");
        if (kind == DESCRIPTOR)
            r = take_descriptor(j, sequence, &block);
        else if (kind == REVOKE)
            r = take_revoked(j, sequence);
        else if (kind != COMMIT)
            break;
        if (r < 0)
            return r;
        if (kind == COMMIT) {
            j->n_committed = j->n_records;
            sequence++;
        }
        if (j->n_records > MAX_RECORDS)
            return broken(j, "it has more blocks than are kept here");
        block = next_of(j, (uint64_t)block + 1);
    }
    j->sequence = sequence; /* of what would come next */
    return 0;
}

/* Whether there are changes of the other kind behind them, which are not applied here. */
static int check_fast(struct journal *j)
{
    if (!(j->features & FAST) || j->end == j->length)
        return 0;
    int r = read_block(j, j->end);
    const uint8_t *b = j->bytes;
    uint32_t of =
        (uint32_t)b[8] | (uint32_t)b[9] << 8 | (uint32_t)b[10] << 16 | (uint32_t)b[11] << 24;
    if (r == 0 && b[0] == 9 && b[1] == 0 && of == j->sequence)
        r = broken(j, "it has fast commits, which are not applied here");
    return r;
}

/* ---- blocks ---------------------------------------------------------------------------------- */

/* By block; the last state of one first, and what revokes it before that. */
static int compare_records(const void *a, const void *b)
{
    const struct record *x = a, *y = b;
    if (x->block != y->block)
        return x->block < y->block ? -1 : 1;
    if (x->sequence != y->sequence)
        return (int32_t)(x->sequence - y->sequence) > 0 ? -1 : 1;
    if (x->revoked != y->revoked)
        return x->revoked ? -1 : 1;
    return x->at == y->at ? 0 : x->at > y->at ? -1 : 1;
}

/* The block as the journal has it is what was written into it. */
static int check_record(struct journal *j, const struct record *record)
{
    uint8_t sequence[4] = {(uint8_t)(record->sequence >> 24), (uint8_t)(record->sequence >> 16),
                           (uint8_t)(record->sequence >> 8), (uint8_t)record->sequence};
    int r = read_block(j, record->at);
    if (r < 0 || !has_sums(j))
        return r;
    uint32_t sum = ext_lib.crc32c(ext_lib.crc32c(j->seed, sequence, 4), j->bytes, j->size);
    if ((j->features & SUM_3 ? sum : sum & 0xffff) != record->sum)
        return broken(j, "a block of it does not fit its checksum");
    return 0;
}

static int apply(struct journal *j)
{
    struct volume *v = j->ext->volume;
    struct patch *patches = calloc(j->n_committed + 1, sizeof *patches);
    size_t n = 0;
    int r = patches ? 0 : files_fail(j->err, ENOMEM, "no memory for its blocks");
    if (r == 0 && j->n_committed)
        qsort(j->records, j->n_committed, sizeof *j->records, compare_records);
    for (size_t i = 0; r == 0 && i < j->n_committed; i++) {
        const struct record *record = &j->records[i];
        if (record->revoked || (i > 0 && record->block == record[-1].block))
            continue; /* revoked then, or written again later */
        if (record->block >= v->length / j->size)
            r = broken(j, "a block of it belongs behind the end");
        else
            r = check_record(j, record);
        patches[n++] = (struct patch){record->block, place_of(j, record->at), record->escaped};
    }
    if (r < 0) {
        free(patches);
        return r;
    }
    volume_patch(v, patches, n, j->size);
    return 0;
}

static int replay(struct journal *j)
{
    struct ext2_super_block *s = j->ext->fs->super;
    struct node node;
    if (!s->s_journal_inum)
        return broken(j, "it is on another device");
    int r = ext_ops.node(j->ext, s->s_journal_inum, &node, j->err);
    if (r == 0)
        r = ext_runs(j->ext, &node, add_run, j, j->err);
    if (r == 0)
        r = read_superblock(j);
    if (r == 0)
        r = read_transactions(j);
    if (r == 0)
        r = apply(j);
    if (r == 0 && j->torn)
        r = broken(j, "a block of its last transaction does not fit its checksum");
    return r < 0 ? r : check_fast(j);
}

void ext_journal_apply(struct ext *e)
{
    struct platter_error err = {0};
    struct journal j = {.ext = e, .err = &err};
    if (replay(&j) < 0)
        snprintf(e->volume->doubt, sizeof e->volume->doubt,
                 "was not unmounted, and its journal is not applied, or in part, so that the last "
                 "changes may be missing: %.100s",
                 err.message);
    free(j.bytes);
    free(j.runs);
    free(j.records);
}

#endif
