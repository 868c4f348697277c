/* SPDX-License-Identifier: MIT */
/*
 * Making, applying and deleting internal snapshots (sections 9.3 to 9.5), each in an order in which
 * a crash leaves the old image or the new one, and leaks at worst:
 *
 * - what becomes shared is counted, durably, before bit 63 goes, durably, before the second
 *   reference can be reached;
 * - what can be reached no more, durably, is counted down only then, and bit 63 is set last.
 *
 * The engine holds the whole disk, so no reservation is open, and has flushed it.
 */
#include <inttypes.h>
#include <limits.h>
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow2/snapshot.h"

enum { SIZE_AT = 24, MAX_ID = 127, MAX_NAME = 255 };

/* ---- which snapshot ----------------------------------------------------------------------------
 */

static const struct qcow2_snapshot *find_by(const struct image *img, const char *name, bool by_id)
{
    const struct qcow2 *q = qcow2_of(img);

    for (uint32_t i = 0; i < q->header.n_snapshots; i++)
        if (strcmp(by_id ? q->snapshots[i].id : q->snapshots[i].name, name) == 0)
            return &q->snapshots[i];
    return NULL;
}

const struct qcow2_snapshot *qcow2_snapshot_get(const struct image *img, const char *name,
                                                unsigned by, struct platter_error *err)
{
    bool any = !(by & (PLATTER_SNAPSHOT_BY_ID | PLATTER_SNAPSHOT_BY_NAME));
    const struct qcow2_snapshot *s = NULL;

    if (any || by & PLATTER_SNAPSHOT_BY_ID)
        s = find_by(img, name, true);
    if (!s && (any || by & PLATTER_SNAPSHOT_BY_NAME))
        s = find_by(img, name, false);
    if (!s)
        fail(err, ENOENT, "%s: there is no snapshot with the %s \"%s\"", img->stream->name,
             any                             ? "id or name"
             : by & PLATTER_SNAPSHOT_BY_NAME ? "name"
                                             : "id",
             name);
    return s;
}

/* The number that an id begins with. */
static unsigned long long number_of(const char *id)
{
    return *id >= '0' && *id <= '9' ? strtoull(id, NULL, 10) : 0;
}

/* Section 9.1: one more than the largest of them. */
static int next_id(const struct image *img, char **ret, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    unsigned long long largest = 0;

    for (uint32_t i = 0; i < q->header.n_snapshots; i++)
        largest = max_u64(largest, number_of(q->snapshots[i].id));
    if (largest == ULLONG_MAX)
        return fail(err, EOVERFLOW, "%s: no number is left for the id of a snapshot: give one",
                    img->stream->name);
    *ret = string_format("%llu", largest + 1);
    return *ret ? 0 : fail_memory(err, "the id of a snapshot");
}

/* ---- what all of them do -----------------------------------------------------------------------
 */

/* All is on the disk, nothing waits to be freed, and what follows comes after it. */
static int settle(struct image *img, struct platter_error *err)
{
    int r = qcow2_flush_locked(img, err);
    return r < 0 ? r : qcow2_barrier(img, err);
}

static uint64_t l1_clusters(const struct qcow2 *q, uint32_t n)
{
    return div_up(n * UINT64_C(8), q->cluster_size);
}

static void give_back(struct image *img, hoff off, uint64_t n)
{
    if (off && atomic_load(&img->poison) == 0)
        qcow2_count_down(img, off >> qcow2_of(img)->cluster_bits, n, false, NULL);
}

/* What changed is done: the sentence is about what could not be cleaned up behind it. */
static int leaked(struct image *img, int code, const char *done, struct platter_error *err)
{
    return fail_in(err, code,
                   "%s: %s, but what is not needed any more could not all be given back (a check "
                   "finds the leaks)",
                   img->stream->name, done);
}

int qcow2_snapshots_possible(const struct image *img, struct platter_error *err)
{
    if (qcow2_of(img)->data_file)
        return fail(err, ENOTSUP,
                    "%s: the image has an external data file, which cannot have snapshots",
                    img->stream->name);
    return 0;
}

static int snapshot_possible(const struct image *img, bool of_sizes, struct platter_error *err)
{
    if (of_sizes && qcow2_of(img)->header.version < 3)
        return fail(err, ENOTSUP,
                    "%s: a qcow2 of version 2 cannot have snapshots of disks of several sizes: "
                    "version 3 can (compat=1.1)",
                    img->stream->name);
    return qcow2_snapshots_possible(img, err);
}

/* ---- create ------------------------------------------------------------------------------------
 */

static int check_request(const struct image *img, const struct snapshot_request *request,
                         struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    const char *file = img->stream->name;

    if (q->header.n_snapshots >= QCOW2_MAX_SNAPSHOTS)
        return fail(err, EMLINK, "%s: has %d snapshots, and cannot have more", file,
                    QCOW2_MAX_SNAPSHOTS);
    if (strlen(request->name) > MAX_NAME || (request->id && strlen(request->id) > MAX_ID))
        return fail(err, ENAMETOOLONG,
                    "%s: the name of a snapshot has at most %d bytes, and its id %d", file,
                    MAX_NAME, MAX_ID);
    if (request->id && find_by(img, request->id, true))
        return fail(err, EEXIST, "%s: there is a snapshot with the id \"%s\" already", file,
                    request->id);
    if (request->unique && find_by(img, request->name, false))
        return fail(err, EEXIST, "%s: there is a snapshot with the name \"%s\" already", file,
                    request->name);
    if (!qcow2_state_fits(img, q->header.size, request->vm_state_size))
        return fail(err, EINVAL,
                    "%s: the machine's state is to have %" PRIu64
                    " bytes, more than were written for it",
                    file, request->vm_state_size);
    return qcow2_snapshots_possible(img, err);
}

/* The list with one more entry, whose L1 table is yet to come. */
static int longer_list(struct image *img, const struct snapshot_request *request,
                       struct qcow2_snapshot **ret, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint32_t n = q->header.n_snapshots;
    struct qcow2_snapshot s = {.l1_size = q->l1.n,
                               .date_sec = request->date_sec,
                               .date_nsec = request->date_nsec,
                               .clock_nsec = request->clock_nsec,
                               .vm_state_size = request->vm_state_size,
                               .disk_size = q->header.size,
                               .icount = request->icount};

    int r = 0;
    s.name = string_copy(request->name);
    if (request->id)
        s.id = string_copy(request->id);
    else
        r = next_id(img, &s.id, err);
    if (r == 0 && (!s.name || !s.id))
        r = fail_memory(err, "a snapshot");
    uint64_t memory = r < 0 ? 0 : strlen(s.name) + strlen(s.id) + 2;
    if (r == 0)
        r = budget_take(img->budget, memory, "snapshot names", err);
    if (r < 0) {
        free(s.id);
        free(s.name);
        return r;
    }
    q->snapshots_memory += memory;
    r = qcow2_snapshots_copy(img, n + 1, ret, err);
    if (r < 0)
        qcow2_snapshot_free(img, &s);
    else
        (*ret)[n] = s;
    return r;
}

/* Everything below the active table has a second owner: counts first, then bit 63. */
static int share_all(struct image *img, struct qcow2_walks *walks, uint64_t *ret_counted,
                     struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    struct qcow2_tree t = qcow2_tree_of(&q->l1);

    t.walks = walks;
    int r = qcow2_tree_count_up(img, &t, ret_counted, err);
    if (r == 0)
        r = settle(img, err);
    if (r == 0)
        r = qcow2_tree_share(img, &t, err);
    for (uint32_t i = 0; r == 0 && i < q->l1.n; i++)
        if (q->l1.entries[i] & QCOW2_COPIED)
            pointers_set(&q->l1, i, q->l1.entries[i] & ~QCOW2_COPIED);
    return r < 0 ? r : settle(img, err);
}

/* Steps 2 to 6 of section 9.3; the last entry of the list is the new one. */
static int create_in(struct image *img, struct qcow2_snapshot **list, struct teller *teller,
                     struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint32_t n = q->header.n_snapshots;
    struct qcow2_snapshot *s = &(*list)[n];
    struct qcow2_tree t = qcow2_tree_of(&q->l1);
    struct qcow2_walks walks = {.teller = teller, .total = UINT64_C(2) * q->l1.n};
    uint64_t clusters = l1_clusters(q, s->l1_size), counted = 0;
    hoff off = 0;

    /* Before anything is allocated: where a count is wrong that would take somebody's cluster. */
    int r = share_all(img, &walks, &counted, err);
    if (r == 0 && clusters)
        r = qcow2_alloc_table(img, clusters, &off, err);
    if (r == 0 && clusters) { /* after bit 63 went: a copy has none */
        s->l1_offset = off;
        r = pointers_copy(img, &q->l1, off, err);
    }
    if (r == 0)
        r = qcow2_snapshots_write(img, list, n + 1, err);
    if (r == 0)
        r = settle(img, err);
    if (q->header.n_snapshots > n)
        return r;
    give_back(img, s->l1_offset, clusters);
    if (atomic_load(&img->poison) == 0 && counted && qcow2_flush_locked(img, NULL) == 0 &&
        qcow2_tree_count_down(img, &t, counted, NULL) == 0 && settle(img, NULL) == 0)
        qcow2_tree_own(img, NULL, NULL);
    return r;
}

static int create(struct image *img, struct snapshot_request *request, struct teller *teller,
                  struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    struct qcow2_snapshot *list = NULL;
    uint32_t n = q->header.n_snapshots;

    int r = check_request(img, request, err);
    if (r == 0)
        r = settle(img, err);
    if (r == 0)
        r = longer_list(img, request, &list, err);
    if (r < 0)
        return r;
    request->ret_id = string_copy(list[n].id);
    r = request->ret_id ? create_in(img, &list, teller, err)
                        : fail_memory(err, "the id of a snapshot");
    if (q->header.n_snapshots > n)
        return r < 0 ? leaked(img, r, "the snapshot was made", err) : 0;
    qcow2_snapshot_free(img, &list[n]);
    budget_free(img->budget, list, (n + 1) * sizeof *list);
    free(TAKE(request->ret_id));
    return r;
}

/* A guest sees the same disk as before. */
static int snapshot_create(struct image *img, struct snapshot_request *request,
                           struct teller *teller, struct platter_error *err)
{
    int r = qcow2_enter_quietly(img, err);
    if (r < 0)
        return r;
    r = create(img, request, teller, err);
    qcow2_leave(img);
    return r;
}

/* ---- apply -------------------------------------------------------------------------------------
 */

/* A copy of a snapshot's L1 table without bit 63, with n entries: the active one that is to be, in
 * memory and in the file. */
static int new_l1(struct image *img, const struct qcow2_snapshot *s, uint32_t n, struct pointers *p,
                  struct platter_error *err)
{
    struct qcow2_tree t = qcow2_tree_of_snapshot(s);
    hoff table, off;

    int r = pointers_new(img, p, 0, n, "the L1 table", err);
    if (r == 0)
        r = qcow2_alloc_table(img, l1_clusters(qcow2_of(img), n), &off, err);
    if (r == 0)
        p->off = off;
    for (uint32_t i = 0; r == 0 && i < n; i++) {
        table = 0;
        if (i < s->l1_size)
            r = qcow2_tree_table(img, &t, i, &table, err);
        if (r == 0)
            pointers_set(p, i, table);
    }
    return r < 0 ? r : pointers_write(img, p, err);
}

/* The one write that makes it the new disk; *p is the old table then. */
static int switch_disk(struct image *img, uint64_t size, struct pointers *p,
                       struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint8_t field[24];

    put_be(field, 8, size);
    put_be(field + 8, 4, q->header.crypt_method);
    put_be(field + 12, 4, p->n);
    put_be(field + 16, 8, p->off);
    int r = settle(img, err);
    if (r == 0)
        r = qcow2_bitmaps_resize(img, round_down(size, 512), err);
    if (r == 0)
        qcow2_bitmaps_all_dirty(img);
    if (r == 0)
        r = image_meta_write(img, field, sizeof field, SIZE_AT, err);
    if (r == 0)
        r = qcow2_barrier(img, err);
    if (r < 0)
        return r;
    struct pointers old = q->l1;
    q->l1 = *p;
    *p = old;
    q->header.size = size;
    q->header.l1_size = q->l1.n;
    q->header.l1_offset = q->l1.off;
    img->size = round_down(size, 512);
    return 0;
}

/* Steps 1 to 3 of section 9.4; *p is what was the active table then. */
static int switch_to(struct image *img, const struct qcow2_snapshot *s, struct pointers *p,
                     struct qcow2_walks *walks, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint64_t needed = div_up(s->disk_size, UINT64_C(1) << q->l1_bits), counted = 0;
    uint32_t n = (uint32_t)max_u64(max_u64(s->l1_size, needed), 1);
    struct qcow2_tree t = qcow2_tree_of_snapshot(s);

    t.walks = walks;
    int r = qcow2_tree_count_up(img, &t, &counted, err);
    if (r == 0)
        r = settle(img, err);
    if (r == 0)
        r = qcow2_tree_share(img, &t, err);
    if (r == 0)
        r = new_l1(img, s, n, p, err);
    if (r == 0)
        r = switch_disk(img, s->disk_size, p, err);
    walks->sure = true;
    if (r == 0)
        return 0;
    t.walks = NULL;
    give_back(img, p->off, l1_clusters(q, n));
    pointers_free(img, p);
    if (atomic_load(&img->poison) == 0 && counted && qcow2_flush_locked(img, NULL) == 0)
        qcow2_tree_count_down(img, &t, counted, NULL);
    return r;
}

/* Steps 4 and 5. All of the new disk belongs to its snapshot as well, so bit 63 is set nowhere. */
static int drop_old(struct image *img, struct pointers *old, struct qcow2_walks *walks,
                    struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    struct qcow2_tree t = qcow2_tree_of(old);

    t.walks = walks;
    int r = qcow2_tree_count_down(img, &t, UINT64_MAX, err);
    if (old->n)
        give_back(img, old->off, l1_clusters(q, old->n));
    pointers_free(img, old);
    int e = atomic_load(&img->poison) == 0 ? settle(img, r < 0 ? NULL : err) : 0;
    return r < 0 ? r : e;
}

static int apply(struct image *img, const struct qcow2_snapshot *s, struct teller *teller,
                 struct platter_error *err)
{
    struct pointers old = {0};
    struct qcow2_walks walks = {.teller = teller,
                                .total = UINT64_C(2) * s->l1_size + qcow2_of(img)->l1.n};

    int r = switch_to(img, s, &old, &walks, err);
    if (r < 0)
        return r;
    r = drop_old(img, &old, &walks, err);
    return r < 0 ? leaked(img, r, "the snapshot was applied", err) : 0;
}

/* What is done to one snapshot, by whoever has the token. */
typedef int change_fn(struct image *img, const struct qcow2_snapshot *s, struct teller *teller,
                      struct platter_error *err);

static int change_one(struct image *img, const char *name, unsigned by, change_fn *change,
                      struct teller *teller, struct platter_error *err)
{
    const struct qcow2_snapshot *s = qcow2_snapshot_get(img, name, by, err);
    int r = s ? qcow2_snapshots_possible(img, err) : -ENOENT;

    if (r == 0)
        r = qcow2_snapshot_check(img, s, err);
    if (r == 0)
        r = settle(img, err);
    return r < 0 ? r : change(img, s, teller, err);
}

static int snapshot_apply(struct image *img, const char *name, unsigned by, struct teller *teller,
                          struct platter_error *err)
{
    int r = qcow2_enter(img, err);
    if (r < 0)
        return r;
    r = change_one(img, name, by, apply, teller, err);
    qcow2_leave(img);
    return r;
}

/* ---- delete ------------------------------------------------------------------------------------
 */

/* The list without entry i. */
static int shorter_list(struct image *img, uint32_t i, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint32_t n = q->header.n_snapshots;
    struct qcow2_snapshot *list;

    int r = qcow2_snapshots_copy(img, n - 1, &list, err);
    if (r < 0)
        return r;
    for (; i + 1 < n; i++)
        list[i] = q->snapshots[i + 1];
    r = qcow2_snapshots_write(img, &list, n - 1, err);
    budget_free(img->budget, list, (n - 1) * sizeof *list);
    return r;
}

/* Steps 2 and 3 of section 9.5. */
static int drop_tree(struct image *img, const struct qcow2_snapshot *s, struct qcow2_walks *walks,
                     struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    struct qcow2_tree t = qcow2_tree_of_snapshot(s);

    t.walks = walks;
    int r = qcow2_tree_count_down(img, &t, UINT64_MAX, err);
    if (r == 0 && s->l1_size)
        r = qcow2_count_down(img, s->l1_offset >> q->cluster_bits, l1_clusters(q, s->l1_size), true,
                             err);
    if (r == 0)
        r = settle(img, err);
    if (r == 0)
        r = qcow2_tree_own(img, walks, err);
    return r < 0 ? r : settle(img, err);
}

static int remove_one(struct image *img, const struct qcow2_snapshot *s, struct teller *teller,
                      struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint32_t n = q->header.n_snapshots;
    struct qcow2_walks walks = {.teller = teller, .total = (uint64_t)s->l1_size + q->l1.n};
    struct qcow2_snapshot old = *s;

    int r = qcow2_walks_tell(img, &walks, 0, err);
    if (r == 0)
        r = shorter_list(img, (uint32_t)(s - q->snapshots), err);
    walks.sure = true;
    if (q->header.n_snapshots == n)
        return r;
    int e = atomic_load(&img->poison) == 0 ? drop_tree(img, &old, &walks, r < 0 ? NULL : err) : 0;
    r = r < 0 ? r : e;
    qcow2_snapshot_free(img, &old);
    return r < 0 ? leaked(img, r, "the snapshot was deleted", err) : 0;
}

static int snapshot_remove(struct image *img, const char *name, unsigned by, struct teller *teller,
                           struct platter_error *err)
{
    int r = qcow2_enter_quietly(img, err);
    if (r < 0)
        return r;
    r = change_one(img, name, by, remove_one, teller, err);
    qcow2_leave(img);
    return r;
}

/* ---- all of them together ----------------------------------------------------------------------
 */

static bool snapshot_describe(const struct image *img, uint32_t i, struct snapshot_request *ret)
{
    const struct qcow2 *q = qcow2_of(img);

    if (i >= q->header.n_snapshots)
        return false;
    const struct qcow2_snapshot *s = &q->snapshots[i];
    *ret = (struct snapshot_request){.name = s->name,
                                     .id = s->id,
                                     .date_sec = s->date_sec,
                                     .date_nsec = s->date_nsec,
                                     .clock_nsec = s->clock_nsec,
                                     .icount = s->icount,
                                     .vm_state_size = s->vm_state_size,
                                     .disk_size = s->disk_size};
    return true;
}

const struct snapshot_ops qcow2_snapshot_ops = {
    .create = snapshot_create,
    .apply = snapshot_apply,
    .remove = snapshot_remove,
    .possible = snapshot_possible,
    .state = qcow2_state,
    .state_room = qcow2_state_room,
    .state_drop = qcow2_state_drop,
    .describe = snapshot_describe,
    .diff_open = qcow2_diff_open,
    .diff_next = qcow2_diff_next,
    .diff_close = qcow2_diff_close,
};
