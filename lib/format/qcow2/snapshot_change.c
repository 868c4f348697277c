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

/* Section 9.1: one more than the largest number that an id begins with. */
static int next_id(const struct image *img, char **ret, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    unsigned long long largest = 0;

    for (uint32_t i = 0; i < q->header.n_snapshots; i++)
        largest = max_u64(largest, strtoull(q->snapshots[i].id, NULL, 10));
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

static int check_use(const struct image *img, struct platter_error *err)
{
    if (qcow2_of(img)->data_file)
        return fail(err, ENOTSUP,
                    "%s: the image has an external data file, which cannot have snapshots",
                    img->stream->name);
    return 0;
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
    return check_use(img, err);
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
                               .disk_size =
                                   request->disk_size ? request->disk_size : q->header.size,
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
static int share_all(struct image *img, uint64_t *ret_counted, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    struct qcow2_tree t = qcow2_tree_of(&q->l1);

    int r = qcow2_tree_count_up(img, &t, ret_counted, err);
    if (r == 0)
        r = settle(img, err);
    if (r == 0)
        r = qcow2_tree_share(img, &t, err);
    for (uint32_t i = 0; r == 0 && i < q->l1.n; i++)
        if (q->l1.entries[i] & QCOW2_COPIED)
            qcow2_pointers_set(&q->l1, i, q->l1.entries[i] & ~QCOW2_COPIED);
    return r < 0 ? r : settle(img, err);
}

/* Steps 2 to 6 of section 9.3; the last entry of the list is the new one. */
static int create_in(struct image *img, struct qcow2_snapshot *list, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint32_t n = q->header.n_snapshots;
    struct qcow2_snapshot *s = &list[n];
    struct qcow2_tree t = qcow2_tree_of(&q->l1);
    uint64_t clusters = l1_clusters(q, s->l1_size), counted = 0;

    int r = clusters ? qcow2_alloc_table(img, clusters, &s->l1_offset, err) : 0;
    if (r == 0)
        r = share_all(img, &counted, err);
    if (r == 0 && clusters) /* after bit 63 went: a copy has none */
        r = qcow2_pointers_copy(img, &q->l1, s->l1_offset, err);
    if (r == 0)
        r = qcow2_snapshots_write(img, list, n + 1, err);
    if (r == 0 || q->header.n_snapshots > n)
        return r;
    give_back(img, s->l1_offset, clusters);
    if (atomic_load(&img->poison) == 0 && counted && qcow2_flush_locked(img, NULL) == 0 &&
        qcow2_tree_count_down(img, &t, counted, NULL) == 0 && settle(img, NULL) == 0)
        qcow2_tree_own(img, NULL);
    return r;
}

static int create(struct image *img, struct snapshot_request *request, struct platter_error *err)
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
    r = request->ret_id ? create_in(img, list, err) : fail_memory(err, "the id of a snapshot");
    if (q->header.n_snapshots > n)
        return r < 0 ? leaked(img, r, "the snapshot was made", err) : 0;
    qcow2_snapshot_free(img, &list[n]);
    budget_free(img->budget, list, (n + 1) * sizeof *list);
    free(TAKE(request->ret_id));
    return r;
}

static int snapshot_create(struct image *img, struct snapshot_request *request,
                           struct platter_error *err)
{
    int r = qcow2_enter(img, err);
    if (r < 0)
        return r;
    r = create(img, request, err);
    qcow2_leave(img);
    return r;
}

/* ---- apply -------------------------------------------------------------------------------------
 */

/* A copy of a snapshot's L1 table without bit 63, with n entries at `off`: the active one that is
 * to be, in memory and in the file. */
static int new_l1(struct image *img, const struct qcow2_snapshot *s, hoff off, uint32_t n,
                  struct qcow2_pointers *p, struct platter_error *err)
{
    struct qcow2_tree t = qcow2_tree_of_snapshot(s);
    hoff table;

    int r = qcow2_pointers_new(img, p, off, n, "the L1 table", err);
    for (uint32_t i = 0; r == 0 && i < n; i++) {
        table = 0;
        if (i < s->l1_size)
            r = qcow2_tree_table(img, &t, i, &table, err);
        if (r == 0)
            qcow2_pointers_set(p, i, table);
    }
    return r < 0 ? r : qcow2_pointers_write(img, p, err);
}

/* The one write that makes it the new disk; *p is the old table then. */
static int switch_disk(struct image *img, uint64_t size, struct qcow2_pointers *p,
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
        r = qcow2_meta_write(img, field, sizeof field, SIZE_AT, err);
    if (r == 0)
        r = qcow2_barrier(img, err);
    if (r < 0)
        return r;
    struct qcow2_pointers old = q->l1;
    q->l1 = *p;
    *p = old;
    q->header.size = size;
    q->header.l1_size = q->l1.n;
    q->header.l1_offset = q->l1.off;
    img->size = round_down(size, 512);
    return 0;
}

/* Steps 1 to 3 of section 9.4; *p is what was the active table then. */
static int switch_to(struct image *img, const struct qcow2_snapshot *s, struct qcow2_pointers *p,
                     struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint64_t needed = div_up(s->disk_size, UINT64_C(1) << q->l1_bits), counted = 0;
    uint32_t n = (uint32_t)max_u64(max_u64(s->l1_size, needed), 1);
    struct qcow2_tree t = qcow2_tree_of_snapshot(s);
    hoff off = 0;

    int r = qcow2_alloc_table(img, l1_clusters(q, n), &off, err);
    if (r < 0)
        return r;
    r = qcow2_tree_count_up(img, &t, &counted, err);
    if (r == 0)
        r = settle(img, err);
    if (r == 0)
        r = qcow2_tree_share(img, &t, err);
    if (r == 0)
        r = new_l1(img, s, off, n, p, err);
    if (r == 0)
        r = switch_disk(img, s->disk_size, p, err);
    if (r == 0)
        return 0;
    qcow2_pointers_free(img, p);
    give_back(img, off, l1_clusters(q, n));
    if (atomic_load(&img->poison) == 0 && counted && qcow2_flush_locked(img, NULL) == 0)
        qcow2_tree_count_down(img, &t, counted, NULL);
    return r;
}

/* Steps 4 and 5. All of the new disk belongs to its snapshot as well, so bit 63 is set nowhere. */
static int drop_old(struct image *img, struct qcow2_pointers *old, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    struct qcow2_tree t = qcow2_tree_of(old);

    int r = qcow2_tree_count_down(img, &t, UINT64_MAX, err);
    if (old->n)
        give_back(img, old->off, l1_clusters(q, old->n));
    qcow2_pointers_free(img, old);
    int e = atomic_load(&img->poison) == 0 ? settle(img, r < 0 ? NULL : err) : 0;
    return r < 0 ? r : e;
}

static int apply(struct image *img, const char *name, unsigned by, struct platter_error *err)
{
    struct qcow2_pointers old = {0};

    const struct qcow2_snapshot *s = qcow2_snapshot_get(img, name, by, err);
    int r = s ? check_use(img, err) : -ENOENT;
    if (r == 0)
        r = qcow2_snapshot_check(img, s, err);
    if (r == 0)
        r = settle(img, err);
    if (r == 0)
        r = switch_to(img, s, &old, err);
    if (r < 0)
        return r;
    r = drop_old(img, &old, err);
    return r < 0 ? leaked(img, r, "the snapshot was applied", err) : 0;
}

/* Takes and drops the token around a change of one snapshot. */
static int change_one(struct image *img, const char *name, unsigned by,
                      int (*change)(struct image *, const char *, unsigned, struct platter_error *),
                      struct platter_error *err)
{
    int r = qcow2_enter(img, err);
    if (r < 0)
        return r;
    r = change(img, name, by, err);
    qcow2_leave(img);
    return r;
}

static int snapshot_apply(struct image *img, const char *name, unsigned by,
                          struct platter_error *err)
{
    return change_one(img, name, by, apply, err);
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
    r = qcow2_snapshots_write(img, list, n - 1, err);
    if (q->header.n_snapshots == n)
        budget_free(img->budget, list, (n - 1) * sizeof *list);
    return r;
}

/* Steps 2 and 3 of section 9.5. */
static int drop_tree(struct image *img, const struct qcow2_snapshot *s, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    struct qcow2_tree t = qcow2_tree_of_snapshot(s);

    int r = qcow2_tree_count_down(img, &t, UINT64_MAX, err);
    if (r == 0 && s->l1_size)
        r = qcow2_count_down(img, s->l1_offset >> q->cluster_bits, l1_clusters(q, s->l1_size), true,
                             err);
    if (r == 0)
        r = settle(img, err);
    if (r == 0)
        r = qcow2_tree_own(img, err);
    return r < 0 ? r : settle(img, err);
}

static int remove_snapshot(struct image *img, const char *name, unsigned by,
                           struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint32_t n = q->header.n_snapshots;

    const struct qcow2_snapshot *s = qcow2_snapshot_get(img, name, by, err);
    int r = s ? check_use(img, err) : -ENOENT;
    if (r == 0)
        r = qcow2_snapshot_check(img, s, err);
    if (r == 0)
        r = settle(img, err);
    if (r < 0)
        return r;
    struct qcow2_snapshot old = *s;
    r = shorter_list(img, (uint32_t)(s - q->snapshots), err);
    if (q->header.n_snapshots == n)
        return r;
    if (r == 0)
        r = drop_tree(img, &old, err);
    qcow2_snapshot_free(img, &old);
    return r < 0 ? leaked(img, r, "the snapshot was deleted", err) : 0;
}

static int snapshot_remove(struct image *img, const char *name, unsigned by,
                           struct platter_error *err)
{
    return change_one(img, name, by, remove_snapshot, err);
}

/* ---- the machine's state (section 10) ----------------------------------------------------------
 */

/* It begins at the first L1 entry that the disk does not need. */
static goff state_start(const struct qcow2 *q, uint64_t disk_size)
{
    return round_up(disk_size, UINT64_C(1) << q->l1_bits);
}

static int snapshot_state(const struct image *img, goff *ret_start, uint64_t *ret_len,
                          struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    const struct qcow2_snapshot *s = img->view ? qcow2_snapshot_find(img, img->view) : NULL;
    goff end = (goff)q->l1.n << q->l1_bits;

    *ret_start = state_start(q, s ? s->disk_size : q->header.size);
    *ret_len = s ? s->vm_state_size : 0;
    if (*ret_len && (*ret_start > end || *ret_len > end - *ret_start))
        return fail(err, PLATTER_ECORRUPT,
                    "%s: snapshot \"%s\": a machine state of %" PRIu64
                    " bytes does not fit into what its L1 table of %" PRIu32
                    " entries has behind the disk",
                    img->stream->name, s->name, *ret_len, q->l1.n);
    return 0;
}

static int snapshot_state_room(struct image *img, uint64_t disk_size, uint64_t len, goff *ret_start,
                               struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    goff end = 0;

    *ret_start = state_start(q, disk_size);
    int r = check_use(img, err);
    if (r == 0 && (ckd_add(&end, *ret_start, len) || end > QCOW2_MAX_SIZE ||
                   div_up(end, UINT64_C(1) << q->l1_bits) * 8 > QCOW2_MAX_L1_BYTES))
        r = fail(err, EFBIG,
                 "%s: a machine state of %" PRIu64 " bytes does not fit behind the disk",
                 img->stream->name, len);
    if (r == 0)
        r = qcow2_enter(img, err);
    if (r < 0)
        return r;
    r = qcow2_l1_grow(img, (uint32_t)div_up(end, UINT64_C(1) << q->l1_bits), err);
    qcow2_leave(img);
    return r;
}

/* Behind the disk goes all there is, be it of a longer state from before. */
static int snapshot_state_drop(struct image *img, uint64_t disk_size, uint64_t len,
                               struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    goff start = state_start(q, disk_size);

    int r = qcow2_enter(img, err);
    if (r < 0)
        return r;
    if (start >= q->header.size)
        r = qcow2_l1_cut(img, (uint32_t)min_u64(start >> q->l1_bits, q->l1.n), err);
    else
        r = qcow2_forget(img, start, round_up(start + len, q->cluster_size), err);
    qcow2_leave(img);
    return r;
}

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
    .state = snapshot_state,
    .state_room = snapshot_state_room,
    .state_drop = snapshot_state_drop,
    .describe = snapshot_describe,
    .diff_open = qcow2_diff_open,
    .diff_next = qcow2_diff_next,
    .diff_close = qcow2_diff_close,
};
