/* SPDX-License-Identifier: MIT */
/* Older states of raw disks: see raw_states.h. */
#include "format/raw_states.h"

#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"

enum { COMPARED = 256 << 10, GRAIN = 64 << 10 }; /* bytes that are read, and told of, at once */

static unsigned count(const struct image *img)
{
    return img->stream->states ? img->stream->states->n : 0;
}

/* By its id or else by its name, as snapshots of a qcow2 are found; count(): there is none. */
static unsigned find(const struct image *img, const char *word)
{
    const struct stream_states *states = img->stream->states;
    for (unsigned i = 0; i < count(img); i++)
        if (strcmp(states->all[i].id, word) == 0)
            return i;
    for (unsigned i = 0; i < count(img); i++)
        if (strcmp(states->all[i].name, word) == 0)
            return i;
    return count(img);
}

static int fail_missing(const struct image *img, const char *word, struct platter_error *err)
{
    return count(img)
               ? fail(err, ENOENT, "%s: no snapshot is called \"%s\"", img->stream->name, word)
               : fail(err, ENOENT, "%s: a raw image has no views, so none named \"%s\"",
                      img->stream->name, word);
}

int raw_states_open(struct image *img, struct platter_error *err)
{
    struct stream *state, *now = img->stream;
    unsigned i = find(img, img->view);
    if (i == count(img))
        return fail_missing(img, img->view, err);
    int r = now->states->open(now, i, &state, err);
    if (r < 0)
        return r;
    img->stream = state;
    stream_close(now);
    return 0;
}

bool raw_states_file(const struct image *img, unsigned i, struct stream **ret)
{
    const struct stream_states *states = img->stream->states;
    bool open = states && states->streams && i < states->n;
    *ret = open ? states->streams[i] : NULL;
    return open;
}

/* ---- told --------------------------------------------------------------------------------------
 */

/* With the fields of qemu-img. */
static json_t *describe(const struct stream_state *s)
{
    return json_pack("{s:o, s:o, s:i, s:I, s:i, s:i, s:i}", "id", json_name(s->id), "name",
                     json_name(s->name), "vm-state-size", 0, "date-sec", (json_int_t)s->date_sec,
                     "date-nsec", (int)s->date_nsec, "vm-clock-sec", 0, "vm-clock-nsec", 0);
}

json_t *raw_states_views(struct image *img)
{
    json_t *list = json_array();
    int r = list ? 0 : -1;
    for (unsigned i = 0; r == 0 && i < count(img); i++) {
        const struct stream_state *s = &img->stream->states->all[i];
        json_t *view = describe(s);
        r = json_object_set_new(view, "size", json_integer((json_int_t)s->size));
        r |= json_array_append_new(list, view);
    }
    if (r == 0)
        return list;
    json_decref(list);
    return NULL;
}

int raw_states_info(struct image *img, json_t *info)
{
    json_t *list = count(img) ? json_array() : NULL;
    int r = 0;
    for (unsigned i = 0; list && r == 0 && i < count(img); i++)
        r = json_array_append_new(list, describe(&img->stream->states->all[i]));
    if (r == 0 && count(img))
        r = json_object_set_new(info, "snapshots", json_incref(list));
    json_decref(list);
    return r < 0 ? -ENOMEM : 0;
}

/* ---- snapshots ---------------------------------------------------------------------------------
 */

static bool states_there(const struct image *img)
{
    return img->stream->states;
}

static int fail_change(const struct image *img, const char *what, struct platter_error *err)
{
    return fail(err, ENOTSUP, "%s: its snapshots cannot be %s here", img->stream->name, what);
}

static int states_accepts(const struct image *img, const struct snapshot_request *request,
                          struct platter_error *err)
{
    const struct stream_states *states = img->stream->states;
    if (request->vm_state_size)
        return fail(
            err, ENOTSUP,
            "%s: snapshot \"%s\" has the state of a machine, which a snapshot of a raw disk "
            "cannot hold: it can be left behind (convert --no-vm-state)",
            img->stream->name, request->name);
    return states->accepts ? states->accepts(img->stream, request->name, err) : 0;
}

static int states_create(struct image *img, struct snapshot_request *request, struct teller *teller,
                         struct platter_error *err)
{
    const struct stream_states *states = img->stream->states;
    (void)teller;
    if (!states->create)
        return fail_change(img, "made", err);
    int r = states_accepts(img, request, err);
    if (r == 0)
        r = states->create(img->stream, request->name, err);
    if (r == 0 && !(request->ret_id = string_copy(request->name)))
        r = fail_memory(err, "the name of a snapshot");
    return r;
}

/* Which snapshot is meant by one word; count(): none, or it cannot be changed like this. */
static int find_to_change(const struct image *img, const char *name, bool can, const char *what,
                          unsigned *ret, struct platter_error *err)
{
    *ret = find(img, name);
    if (*ret == count(img))
        return fail_missing(img, name, err);
    return can ? 0 : fail_change(img, what, err);
}

static int states_apply(struct image *img, const char *name, unsigned by, struct teller *teller,
                        struct platter_error *err)
{
    const struct stream_states *states = img->stream->states;
    unsigned i;
    (void)by, (void)teller;
    int r = find_to_change(img, name, states->apply, "applied", &i, err);
    if (r < 0)
        return r;
    uint64_t size = states->all[i].size;
    r = states->apply(img->stream, i, err);
    if (r == 0)
        img->size = size;
    return r;
}

static int states_remove(struct image *img, const char *name, unsigned by, struct teller *teller,
                         struct platter_error *err)
{
    const struct stream_states *states = img->stream->states;
    unsigned i;
    (void)by, (void)teller;
    int r = find_to_change(img, name, states->remove, "deleted", &i, err);
    return r < 0 ? r : states->remove(img->stream, i, err);
}

static int states_possible(const struct image *img, bool of_sizes, struct platter_error *err)
{
    (void)of_sizes;
    bool can = !img->writable || img->stream->states->create;
    return can ? 0 : fail_change(img, "made", err);
}

static int states_state(const struct image *img, goff *ret_start, uint64_t *ret_len,
                        struct platter_error *err)
{
    (void)err;
    *ret_start = img->size;
    *ret_len = 0;
    return 0;
}

static int states_state_room(struct image *img, uint64_t len, goff *ret_start,
                             struct platter_error *err)
{
    *ret_start = img->size;
    return len ? fail(err, ENOTSUP, "%s: a raw disk has no room for the state of a machine",
                      img->stream->name)
               : 0;
}

static int states_state_drop(struct image *img, struct platter_error *err)
{
    (void)img, (void)err;
    return 0;
}

static bool states_describe(const struct image *img, uint32_t i, struct snapshot_request *ret)
{
    if (i >= count(img))
        return false;
    const struct stream_state *s = &img->stream->states->all[i];
    *ret = (struct snapshot_request){.name = s->name,
                                     .id = s->id,
                                     .date_sec = s->date_sec,
                                     .date_nsec = s->date_nsec,
                                     .icount = UINT64_MAX,
                                     .disk_size = s->size};
    return true;
}

/* ---- differences -------------------------------------------------------------------------------
 */

struct snapshot_diff {
    struct image *img;
    unsigned number[2]; /* states->n: the disk itself */
    struct stream *streams[2];
    uint64_t sizes[2];
    uint8_t *bytes[2]; /* COMPARED of them */
};

static void diff_close(struct snapshot_diff *d)
{
    for (int side = 0; d && side < 2; side++) {
        stream_close(d->streams[side]);
        budget_free(d->img->budget, d->bytes[side], COMPARED);
    }
    free(d);
}

static int open_side(struct snapshot_diff *d, int side, const char *name, struct platter_error *err)
{
    struct image *img = d->img;
    unsigned i = d->number[side] = name ? find(img, name) : count(img);
    int r = 0;
    if (name && i == count(img))
        return fail_missing(img, name, err);
    if (name)
        r = img->stream->states->open(img->stream, i, &d->streams[side], err);
    else
        d->streams[side] = stream_share(img->stream);
    if (r == 0)
        r = stream_size(d->streams[side], &d->sizes[side], err);
    return r < 0 ? r
                 : budget_alloc_buffer(img->budget, COMPARED, "comparing snapshots",
                                       &d->bytes[side], err);
}

static int diff_open(struct image *img, const char *from, const char *to,
                     struct snapshot_diff **ret, uint64_t ret_sizes[2], struct platter_error *err)
{
    struct snapshot_diff *d = calloc(1, sizeof *d);
    if (!d)
        return fail_memory(err, "comparing snapshots");
    d->img = img;
    int r = open_side(d, 0, from, err);
    if (r == 0)
        r = open_side(d, 1, to, err);
    if (r < 0) {
        diff_close(d);
        return r;
    }
    memcpy(ret_sizes, d->sizes, sizeof d->sizes);
    *ret = d;
    return 0;
}

/* Whether there are zeros at `off`, by the file alone, and for how many bytes (1 .. len) that is
 * the answer. */
static int look(const struct snapshot_diff *d, int side, hoff off, uint64_t len, uint64_t *ret_len,
                bool *ret_zero, struct platter_error *err)
{
    *ret_len = len;
    *ret_zero = off >= d->sizes[side];
    return *ret_zero ? 0
                     : stream_extents(d->streams[side], off, min_u64(len, d->sizes[side] - off),
                                      ret_len, ret_zero, err);
}

/* Reads and compares the grain of [off, off + len). */
static int compare(const struct snapshot_diff *d, hoff off, uint64_t len, uint64_t *ret_len,
                   bool *ret_differ, struct platter_error *err)
{
    size_t n = (size_t)min_u64(len, COMPARED - off % COMPARED), at = 0;
    int r = 0;
    for (int side = 0; r == 0 && side < 2; side++)
        r = stream_pread_tail(d->streams[side], d->bytes[side], n, off, err);
    if (r < 0)
        return r;
    for (size_t step; at < n; at += step) {
        step = (size_t)min_u64(n - at, GRAIN - (off + at) % GRAIN);
        bool differ = memcmp(d->bytes[0] + at, d->bytes[1] + at, step) != 0;
        if (at > 0 && differ != *ret_differ)
            break;
        *ret_differ = differ;
    }
    *ret_len = at;
    return 0;
}

/* Whether the two differ at `off`, and for how many bytes (1 .. len) that is the answer. */
static int step(const struct snapshot_diff *d, hoff off, uint64_t len, uint64_t *ret_len,
                struct snapshot_difference *ret, bool *ret_differ, struct platter_error *err)
{
    const struct stream_states *states = d->img->stream->states;
    uint64_t n[2];
    bool zero[2];
    int r = 0;
    for (int side = 0; r == 0 && side < 2; side++, len = min_u64(len, n[side - 1]))
        r = look(d, side, off, len, &n[side], &zero[side], err);
    if (r < 0)
        return r;
    ret->kind = zero[1] ? EXTENT_ZERO : EXTENT_DATA;
    *ret_len = len;
    *ret_differ = false;
    if (zero[0] && zero[1])
        return 0;
    if (states->differ && off < d->sizes[0] && off < d->sizes[1])
        return states->differ(d->img->stream, d->number[0], d->number[1], off, len, ret_len,
                              ret_differ, err);
    return compare(d, off, len, ret_len, ret_differ, err);
}

static int diff_next(struct snapshot_diff *d, goff off, struct snapshot_difference *ret,
                     struct platter_error *err)
{
    uint64_t len, end = max_u64(d->sizes[0], d->sizes[1]);
    bool differ = false;
    for (; off < end; off += len) {
        int r = step(d, off, end - off, &len, ret, &differ, err);
        if (r < 0)
            return r;
        if (differ) {
            ret->off = off;
            ret->len = len;
            return 1;
        }
    }
    return 0;
}

const struct snapshot_ops raw_states_ops = {
    .there = states_there,
    .create = states_create,
    .apply = states_apply,
    .remove = states_remove,
    .possible = states_possible,
    .accepts = states_accepts,
    .unique = true,
    .state = states_state,
    .state_room = states_state_room,
    .state_drop = states_state_drop,
    .describe = states_describe,
    .diff_open = diff_open,
    .diff_next = diff_next,
    .diff_close = diff_close,
};
