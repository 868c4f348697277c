/* SPDX-License-Identifier: MIT */
/* Writes the index of an archive to be kept: kept.h. */
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "base/hash.h"
#include "format/vma/archive.h"

struct keeping {
    struct image *img;
    const struct vma_index *index;
    struct stream *out;
    uint8_t *entries, *runs;
    uint64_t n_entries, n_written;
    hoff pos; /* where the next piece goes */
};

static const char what[] = "the kept index of an archive";

/* The next piece of any device that has clusters, *device and *cluster or behind. */
static bool next_piece(const struct vma_index *x, unsigned *device, uint64_t *cluster)
{
    for (; *device < VMA_DEVICES; ++*device, *cluster = 0)
        if (vma_index_next(x, *device, cluster)) {
            *cluster = round_down(*cluster, KEPT_PIECE);
            return true;
        }
    return false;
}

static uint64_t count_pieces(const struct vma_index *x)
{
    uint64_t n = 0, cluster = 0;
    for (unsigned device = 0; next_piece(x, &device, &cluster); cluster += KEPT_PIECE)
        n++;
    return n;
}

/* The runs of the piece that begins at `cluster`: how many. */
static uint32_t make_runs(const struct keeping *k, unsigned device, uint32_t cluster)
{
    uint64_t off = 0, last_off = 0;
    uint32_t n = 0, length = 0;

    for (uint32_t at = 0; at < KEPT_PIECE; at++, last_off = off) {
        if (!vma_index_find(k->index, device, cluster + at, &off))
            off = 0; /* where no extent is */
        if (off == 0)
            continue;
        if (off != last_off) {
            uint8_t *run = k->runs + n++ * (size_t)KEPT_RUN;
            put_be(run, 2, at);
            put_be(run + 4, 8, off);
            length = 0;
        }
        put_be(k->runs + (n - 1) * (size_t)KEPT_RUN + 2, 2, ++length);
    }
    return n;
}

static int write_piece(struct keeping *k, unsigned device, uint32_t cluster,
                       struct platter_error *err)
{
    uint8_t *entry = k->entries + k->n_written++ * KEPT_ENTRY, sum[HASH_MAX];
    uint32_t n = make_runs(k, device, cluster);
    size_t len = n * (size_t)KEPT_RUN;

    hash_bytes(hash_find("sha256"), k->runs, len, NULL, 0, sum);
    entry[0] = (uint8_t)device;
    put_be(entry + 2, 2, n);
    put_be(entry + 4, 4, cluster >> KEPT_PIECE_BITS);
    put_be(entry + 8, 8, k->pos);
    memcpy(entry + 16, sum, KEPT_PIECE_SUM);
    int r = stream_pwrite(k->out, k->runs, len, k->pos, err);
    k->pos += len;
    return r;
}

static int write_pieces(struct keeping *k, struct platter_error *err)
{
    uint64_t cluster = 0;
    int r = 0;
    for (unsigned device = 0; r == 0 && next_piece(k->index, &device, &cluster);
         cluster += KEPT_PIECE)
        r = write_piece(k, device, (uint32_t)cluster, err);
    return r;
}

/* The first extent, the last, and some in between. */
static int put_samples(const struct keeping *k, uint8_t *header, struct platter_error *err)
{
    uint32_t n = vma_index_extents(k->index), most = (uint32_t)min_u64(n, KEPT_SAMPLES);
    int r = 0;

    for (uint32_t i = 0; r == 0 && i < most; i++) {
        uint64_t number = most > 1 ? i * (uint64_t)(n - 1) / (most - 1) : 0;
        uint64_t off = vma_index_extent(k->index, (uint32_t)number);
        uint8_t *p = header + KEPT_SAMPLES_AT + i * (size_t)KEPT_SAMPLE;
        put_be(p, 8, off);
        r = stream_pread(k->img->stream, p + 8, KEPT_MD5, off + VMA_EXTENT_MD5_AT, err);
    }
    return r;
}

static int write_head(const struct keeping *k, struct platter_error *err)
{
    const struct vma_archive *a = vma_of(k->img)->archive;
    uint8_t header[KEPT_HEADER] = {0};
    struct writer w = writer_over(header, sizeof header);

    write_bytes(&w, KEPT_MAGIC, KEPT_MAGIC_SIZE);
    write_be32(&w, KEPT_VERSION);
    write_be32(&w, a->extra ? KEPT_EXTRA : 0);
    write_bytes(&w, a->header.uuid, VMA_UUID);
    write_bytes(&w, a->bytes + VMA_HEADER_MD5_AT, KEPT_MD5);
    write_be64(&w, a->size);
    write_be64(&w, a->n_extents);
    write_be64(&w, k->n_entries);
    write_be64(&w, k->pos);
    for (unsigned i = 0; i < VMA_DEVICES; i++)
        put_be(header + KEPT_COUNTS_AT + i * (size_t)8, 8, a->counts[i]);
    int r = put_samples(k, header, err);
    if (r < 0)
        return r;
    kept_sum(header, k->entries, k->n_entries, header + KEPT_SUM_AT);
    r = stream_pwrite(k->out, header, sizeof header, 0, err);
    return r < 0 ? r
                 : stream_pwrite(k->out, k->entries, k->n_entries * KEPT_ENTRY, KEPT_HEADER, err);
}

int vma_keep_index(struct image *img, struct stream *out, struct platter_error *err)
{
    struct vma_archive *a = vma_of(img)->archive;
    struct keeping k = {.img = img, .out = out};

    int r = vma_archive_survey(img, a, err);
    if (r < 0)
        return r;
    k.index = atomic_load(&a->index);
    k.n_entries = count_pieces(k.index);
    k.pos = KEPT_HEADER + k.n_entries * KEPT_ENTRY;
    r = budget_alloc(a->budget, KEPT_PIECE * KEPT_RUN, what, &k.runs, err);
    if (r == 0 && k.n_entries)
        r = budget_alloc(a->budget, k.n_entries * KEPT_ENTRY, what, &k.entries, err);
    if (r == 0)
        r = write_pieces(&k, err);
    if (r == 0)
        r = write_head(&k, err);
    budget_free(a->budget, k.runs, KEPT_PIECE * KEPT_RUN);
    budget_free(a->budget, k.entries, k.n_entries * KEPT_ENTRY);
    return r;
}
