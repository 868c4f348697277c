/* SPDX-License-Identifier: MIT */
/* An index that was kept: opened, judged, asked. */
#include "format/vma/kept.h"

#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "base/hash.h"
#include "format/vma/archive.h"

enum { CACHED = 32 /* pieces in memory, of at most 48 KiB */ };

struct piece {
    uint64_t entry; /* its number in the directory */
    uint8_t *runs;
    uint32_t n; /* 0: nothing is here */
};

struct vma_kept {
    struct budget *budget;
    struct stream *stream;
    uint64_t size; /* of its file */
    uint8_t *entries;
    uint64_t n_entries;
    uint64_t archive_size;
    pthread_mutex_t lock; /* guards the pieces */
    struct piece pieces[CACHED];
};

static const char what[] = "the kept index of an archive";

void kept_sum(const uint8_t *header, const uint8_t *entries, uint64_t n_entries, uint8_t *out)
{
    uint8_t copy[KEPT_HEADER];
    memcpy(copy, header, sizeof copy);
    memset(copy + KEPT_SUM_AT, 0, KEPT_SUM);
    hash_bytes(hash_find("sha256"), copy, sizeof copy, entries, n_entries * KEPT_ENTRY, out);
}

void vma_kept_free(struct vma_kept *k)
{
    if (!k)
        return;
    for (unsigned i = 0; i < CACHED; i++)
        budget_free(k->budget, k->pieces[i].runs, k->pieces[i].n * (uint64_t)KEPT_RUN);
    budget_free(k->budget, k->entries, k->n_entries * KEPT_ENTRY);
    stream_close(k->stream);
    pthread_mutex_destroy(&k->lock);
    budget_free(k->budget, k, sizeof *k);
}

/* ---- the directory -----------------------------------------------------------------------------
 */

struct entry {
    unsigned device;
    uint32_t n_runs, number;
    uint64_t off;
    const uint8_t *sum;
};

static struct entry entry_at(const struct vma_kept *k, uint64_t i)
{
    const uint8_t *p = k->entries + i * KEPT_ENTRY;
    return (struct entry){.device = p[0],
                          .n_runs = (uint32_t)get_be(p + 2, 2),
                          .number = (uint32_t)get_be(p + 4, 4),
                          .off = get_be(p + 8, 8),
                          .sum = p + 16};
}

static bool comes_before(const struct entry *e, unsigned device, uint32_t number)
{
    return e->device < device || (e->device == device && e->number < number);
}

static bool find_entry(const struct vma_kept *k, unsigned device, uint32_t number, uint64_t *ret)
{
    uint64_t low = 0, high = k->n_entries;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        struct entry e = entry_at(k, middle);
        if (comes_before(&e, device, number))
            low = middle + 1;
        else
            high = middle;
    }
    *ret = low;
    if (low == k->n_entries)
        return false;
    struct entry e = entry_at(k, low);
    return e.device == device && e.number == number;
}

/* Ascending, and each piece in the file. */
static bool entries_are_sound(const struct vma_kept *k)
{
    struct entry last = {0};
    for (uint64_t i = 0; i < k->n_entries; i++) {
        struct entry e = entry_at(k, i);
        if (!comes_before(&last, e.device, e.number) && !(i == 0 && e.device))
            return false;
        if (e.n_runs == 0 || e.n_runs > KEPT_PIECE || e.number > UINT32_MAX >> KEPT_PIECE_BITS ||
            !range_inside(e.off, e.n_runs * (uint64_t)KEPT_RUN, k->size))
            return false;
        last = e;
    }
    return true;
}

/* ---- judging -----------------------------------------------------------------------------------
 */

/* The reason why it cannot be used. */
static const char damaged[] = "is damaged";
static const char foreign[] = "is of another archive, or of this one as it was before";
static const char newer[] = "is of a newer kind";

static const char *judge_header(const uint8_t *header, const struct vma_archive *a, uint64_t size)
{
    const uint8_t *sizes = header + KEPT_SIZE_AT;
    if (get_be(header + 8, 4) != KEPT_VERSION || get_be(header + 12, 4) & ~(uint64_t)KEPT_EXTRA)
        return newer;
    if (memcmp(header + KEPT_UUID_AT, a->header.uuid, VMA_UUID) != 0 ||
        memcmp(header + KEPT_MD5_AT, a->bytes + VMA_HEADER_MD5_AT, KEPT_MD5) != 0 ||
        get_be(sizes, 8) != a->size)
        return foreign;
    if (get_be(sizes + 16, 8) > (size - KEPT_HEADER) / KEPT_ENTRY || get_be(sizes + 24, 8) != size)
        return damaged;
    return NULL;
}

static const char *judge_counts(const uint8_t *header, const struct vma_archive *a)
{
    for (unsigned i = 0; i < VMA_DEVICES; i++) {
        const struct vma_device *d = &a->header.devices[i];
        uint64_t n = get_be(header + KEPT_COUNTS_AT + i * 8, 8);
        uint64_t most = !d->name ? 0 : d->state ? UINT32_MAX : vma_clusters(d->size);
        if (n > most)
            return damaged;
    }
    return NULL;
}

/* Some extents have to stand where they did. */
static const char *judge_samples(const struct image *img, const uint8_t *header,
                                 const struct vma_archive *a)
{
    uint8_t bytes[VMA_EXTENT];
    struct vma_extent e;

    for (unsigned i = 0; i < KEPT_SAMPLES; i++) {
        const uint8_t *p = header + KEPT_SAMPLES_AT + i * KEPT_SAMPLE;
        uint64_t off = get_be(p, 8);
        if (off == 0)
            continue;
        if (!range_inside(off, VMA_EXTENT, a->size) ||
            stream_pread(img->stream, bytes, sizeof bytes, off, NULL) < 0 ||
            memcmp(bytes + VMA_EXTENT_MD5_AT, p + 8, KEPT_MD5) != 0 ||
            vma_extent_decode(img->stream->name, off, bytes, a->header.uuid, &e, NULL) < 0)
            return foreign;
    }
    return NULL;
}

static int load_entries(struct vma_kept *k, const uint8_t *header, struct platter_error *err)
{
    k->n_entries = get_be(header + KEPT_SIZE_AT + 16, 8);
    if (k->n_entries == 0)
        return 0;
    int r = budget_alloc(k->budget, k->n_entries * KEPT_ENTRY, what, &k->entries, err);
    return r < 0 ? r
                 : stream_pread(k->stream, k->entries, k->n_entries * KEPT_ENTRY, KEPT_HEADER, err);
}

/* *ret_why: the reason why it cannot be used, or NULL. */
static int judge(const struct image *img, struct vma_kept *k, const uint8_t *header,
                 const struct vma_archive *a, const char **ret_why, struct platter_error *err)
{
    uint8_t sum[KEPT_SUM];

    if ((*ret_why = judge_header(header, a, k->size)))
        return 0;
    int r = load_entries(k, header, err);
    if (r < 0)
        return r;
    kept_sum(header, k->entries, k->n_entries, sum);
    if (memcmp(sum, header + KEPT_SUM_AT, sizeof sum) != 0 || !entries_are_sound(k))
        *ret_why = damaged;
    else if (!(*ret_why = judge_counts(header, a)))
        *ret_why = judge_samples(img, header, a);
    return 0;
}

/* ---- opening -----------------------------------------------------------------------------------
 */

static bool read_head(struct stream *s, uint64_t *ret_size, uint8_t *header)
{
    return stream_size(s, ret_size, NULL) == 0 && *ret_size >= KEPT_HEADER &&
           stream_pread(s, header, KEPT_HEADER, 0, NULL) == 0 &&
           memcmp(header, KEPT_MAGIC, KEPT_MAGIC_SIZE) == 0;
}

bool vma_is_index(struct stream *s)
{
    uint8_t header[KEPT_HEADER];
    uint64_t size;
    return read_head(s, &size, header);
}

/* Opens NAME.index through the gate. A file that does not begin as one is none of ours. */
static bool open_file(struct image *img, struct stream **ret, uint64_t *ret_size, uint8_t *header)
{
    const char *name = img->stream->name, *slash = strrchr(name, '/');
    auto_free char *beside = string_format("./%s" KEPT_SUFFIX, slash ? slash + 1 : name);
    struct stream *s;

    if (!beside || !img->opener ||
        img->opener->open(img->opener, img, beside, PLATTER_NAME_INDEX, false, &s, NULL) < 0)
        return false;
    if (read_head(s, ret_size, header)) {
        *ret = s;
        return true;
    }
    stream_close(s);
    return false;
}

static void take(struct vma_archive *a, const uint8_t *header)
{
    a->known = true;
    a->n_extents = get_be(header + KEPT_SIZE_AT + 8, 8);
    a->extra = get_be(header + 12, 4) & KEPT_EXTRA;
    for (unsigned i = 0; i < VMA_DEVICES; i++)
        a->counts[i] = get_be(header + KEPT_COUNTS_AT + i * 8, 8);
}

int vma_kept_open(struct image *img, struct vma_archive *a, struct vma_kept **ret,
                  struct platter_error *err)
{
    const char *name = img->stream->name, *why;
    uint8_t header[KEPT_HEADER];
    struct platter_error reason = {0};
    struct stream *stream;
    struct vma_kept *k;
    uint64_t size;

    *ret = NULL;
    if (!open_file(img, &stream, &size, header))
        return 0;
    int r = budget_alloc(a->budget, sizeof *k, what, &k, err);
    if (r < 0) {
        stream_close(stream);
        return r;
    }
    k->budget = a->budget;
    k->stream = stream;
    k->size = size;
    k->archive_size = a->size;
    pthread_mutex_init(&k->lock, NULL);
    if (judge(img, k, header, a, &why, &reason) == 0 && !why) {
        take(a, header);
        *ret = k;
        return 0;
    }
    vma_kept_free(k);
    return image_doubt(img, err,
                       "%s" KEPT_SUFFIX ": %s, so it is not used: platter archive index %s "
                       "writes it anew",
                       name, reason.code ? reason.message : why, name);
}

/* ---- asking ------------------------------------------------------------------------------------
 */

static const uint8_t *run_at(const struct piece *p, uint32_t i)
{
    return p->runs + i * (size_t)KEPT_RUN;
}

static bool find_run(const struct piece *p, uint32_t at, uint64_t *ret_off)
{
    uint32_t low = 0, high = p->n;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (get_be(run_at(p, middle), 2) <= at)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0)
        return false;
    const uint8_t *run = run_at(p, low - 1);
    *ret_off = get_be(run + 4, 8);
    return at - get_be(run, 2) < get_be(run + 2, 2);
}

/* Runs ascend, and their extents stand in the archive. */
static bool runs_are_sound(const struct vma_kept *k, const struct piece *p)
{
    uint64_t end = 0;
    for (uint32_t i = 0; i < p->n; i++) {
        uint64_t first = get_be(run_at(p, i), 2), n = get_be(run_at(p, i) + 2, 2);
        if (first < end || n == 0 || !range_inside(first, n, KEPT_PIECE) ||
            !range_inside(get_be(run_at(p, i) + 4, 8), VMA_EXTENT, k->archive_size))
            return false;
        end = first + n;
    }
    return true;
}

static bool load_piece(struct vma_kept *k, uint64_t number, struct piece *ret)
{
    struct entry e = entry_at(k, number);
    size_t len = e.n_runs * (size_t)KEPT_RUN;
    uint8_t sum[HASH_MAX];

    *ret = (struct piece){.entry = number, .n = e.n_runs};
    if (budget_alloc(k->budget, len, what, &ret->runs, NULL) < 0)
        return false;
    if (stream_pread(k->stream, ret->runs, len, e.off, NULL) == 0) {
        hash_bytes(hash_find("sha256"), ret->runs, len, NULL, 0, sum);
        if (memcmp(sum, e.sum, KEPT_PIECE_SUM) == 0 && runs_are_sound(k, ret))
            return true;
    }
    budget_free(k->budget, ret->runs, len);
    return false;
}

bool vma_kept_find(struct vma_kept *k, unsigned device, uint32_t cluster, uint64_t *ret_off)
{
    uint32_t at = cluster & (KEPT_PIECE - 1);
    struct piece fresh, old = {0};
    uint64_t number;
    bool found = false;

    if (!find_entry(k, device, cluster >> KEPT_PIECE_BITS, &number))
        return false;
    struct piece *p = &k->pieces[number % CACHED];
    pthread_mutex_lock(&k->lock);
    bool have = p->n > 0 && p->entry == number;
    if (have)
        found = find_run(p, at, ret_off);
    pthread_mutex_unlock(&k->lock);
    if (have || !load_piece(k, number, &fresh))
        return found;
    found = find_run(&fresh, at, ret_off);
    pthread_mutex_lock(&k->lock);
    old = *p;
    *p = fresh;
    pthread_mutex_unlock(&k->lock);
    budget_free(k->budget, old.runs, old.n * (uint64_t)KEPT_RUN);
    return found;
}
