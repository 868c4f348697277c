/* SPDX-License-Identifier: MIT */
/*
 * A copy of what can only be read front to back, to be read anywhere: in memory as long as there is
 * little of it, and else in a temporary file without a name, with holes for zeros.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "stream/inside.h"
#include "stream/wrapper.h"

enum {
    MEMORY_SHARE = 2, /* of the budget, that a copy in memory may take */
    COPY_PIECE = 256 << 10,
    HOLE = 4096 /* bytes of zeros that are not written */
};

struct spool {
    struct stream head;
    struct stream *copy;
    char *identity; /* of what was copied, where nothing of it is left to be asked; or NULL */
    struct budget *budget;
    uint64_t taken; /* from it, while the copy is in memory */
    uint64_t size;
};

static struct spool *spool_of(struct stream *s)
{
    return container_of(s, struct spool, head);
}

static int spool_pread(struct stream *s, void *buf, size_t len, hoff off, struct platter_error *err)
{
    struct spool *p = spool_of(s);
    if (!range_inside(off, len, p->size))
        return stream_fail_past_end(s, off, len, p->size, err);
    return stream_pread(p->copy, buf, len, off, err);
}

static int spool_size(struct stream *s, uint64_t *ret_size, struct platter_error *err)
{
    (void)err;
    *ret_size = spool_of(s)->size;
    return 0;
}

static int spool_extents(struct stream *s, hoff off, uint64_t len, uint64_t *ret_len,
                         bool *ret_hole, struct platter_error *err)
{
    return stream_extents(spool_of(s)->copy, off, len, ret_len, ret_hole, err);
}

/* The copy does not change any more; but another one may be made, of other bytes. */
static int spool_identity(struct stream *s, char **text, struct platter_error *err)
{
    const struct spool *p = spool_of(s);
    if (!s->base && !p->identity)
        return fail(err, ENOTSUP,
                    "%s: nothing tells later whether a pipe still has the same bytes: make a file "
                    "of it",
                    s->name);
    int r = s->base ? stream_identity(s->base, text, err) : 0;
    if (r == 0 && s->base)
        return identity_add(text, err, "unpacked", "yes");
    *text = s->base ? NULL : string_copy(p->identity);
    return r < 0 || *text ? r : fail_memory(err, "the identity of a source");
}

static void spool_close(struct stream *s)
{
    struct spool *p = spool_of(s);
    free(p->identity);
    stream_close(p->copy);
    budget_give(p->budget, p->taken);
    budget_unref(p->budget);
}

static const struct stream_ops spool_ops = {
    .name = "spooled",
    .pread = spool_pread,
    .size = spool_size,
    .extents = spool_extents,
    .identity = spool_identity,
    .close = spool_close,
};

/* Writes what is not zeros. */
static int write_sparse(struct stream *to, const uint8_t *bytes, size_t len, hoff off,
                        struct platter_error *err)
{
    size_t start = 0;
    int r = 0;
    for (size_t at = 0, n; r == 0 && at < len; at += n) {
        n = (size_t)min_u64(len - at, HOLE);
        if (!is_zero(bytes + at, n))
            continue;
        r = stream_pwrite(to, bytes + start, at - start, off + start, err);
        start = at + n;
    }
    return r < 0 ? r : stream_pwrite(to, bytes + start, len - start, off + start, err);
}

/* From memory to a file, when there is more than was thought. */
static int move_to_file(struct spool *p, const char *folder, uint8_t *buf,
                        struct platter_error *err)
{
    struct stream *file = NULL;
    int r = stream_file_open(folder, STREAM_FILE_WRITE | STREAM_FILE_UNNAMED, &file, err);
    for (uint64_t off = 0, n; r == 0 && off < p->size; off += n) {
        n = min_u64(p->size - off, COPY_PIECE);
        r = stream_pread_tail(p->copy, buf, n, off, err); /* it ends where zeros begin */
        if (r == 0)
            r = write_sparse(file, buf, n, off, err);
    }
    if (r < 0) {
        stream_close(file);
        return r;
    }
    stream_close(p->copy);
    p->copy = file;
    budget_give(p->budget, p->taken);
    p->taken = 0;
    return 0;
}

static int fail_no_spool(const struct stream *s, uint64_t limit, struct platter_error *err)
{
    return fail(err, ENOTSUP,
                "%s: is compressed so that it can only be read front to back, and holds more than "
                "the %" PRIu64
                " bytes that fit into memory: allow a temporary unpacked copy (--spool FOLDER), "
                "make a file of it that can be read anywhere (platter vma repack), or take the "
                "disks out of an archive front to back (platter extract)",
                s->name, limit);
}

/* Room for n bytes more. */
static int make_room(struct spool *p, size_t n, const char *folder, uint8_t *buf,
                     struct platter_error *err)
{
    uint64_t limit = budget_limit(p->budget) / MEMORY_SHARE;
    if (p->size > 0 && p->taken == 0)
        return 0; /* in a file */
    if (p->size + n <= limit && budget_take(p->budget, n, "an unpacked copy", NULL) == 0) {
        p->taken += n;
        return 0;
    }
    return folder ? move_to_file(p, folder, buf, err) : fail_no_spool(&p->head, limit, err);
}

static int copy_all(struct spool *p, struct stream *from, const struct unpack_policy *policy,
                    struct platter_error *err)
{
    auto_free uint8_t *buf = malloc(2 * COPY_PIECE);
    if (!buf)
        return fail_memory(err, "copying");
    for (size_t n;; p->size += n) {
        int r = stream_read(from, buf, COPY_PIECE, &n, err);
        if (r == 0 && n == 0)
            return stream_resize(p->copy, p->size, err);
        if (r == 0)
            r = make_room(p, n, policy->spool, buf + COPY_PIECE, err);
        if (r == 0)
            r = write_sparse(p->copy, buf, n, p->size, err);
        if (r == 0 && from->base)
            r = unpack_tick(policy, from->base, from->base->position, err);
        if (r < 0)
            return r;
    }
}

int unpack_tick(const struct unpack_policy *policy, struct stream *file, uint64_t done,
                struct platter_error *err)
{
    uint64_t size = done;
    if (!policy->tick)
        return 0;
    if (file->ops->size && stream_size(file, &size, err) < 0)
        return err ? -err->code : -EIO;
    if (policy->tick(policy->tick_opaque, min_u64(done, size), size))
        return fail(err, ECANCELED, "%s: cancelled", file->name);
    return 0;
}

int stream_spool_open(struct stream *from, const struct unpack_policy *policy,
                      struct budget *budget, struct stream **ret, struct platter_error *err)
{
    struct spool *p = stream_new(sizeof *p, &spool_ops, from->name, err);
    int r = p ? 0 : -ENOMEM;
    if (p) {
        p->budget = budget_ref(budget);
        p->head.base = from->base ? stream_share(from->base) : NULL;
        r = stream_memory_open(from->name, budget_limit(budget), &p->copy, err);
    }
    if (r == 0)
        r = copy_all(p, from, policy, err);
    if (r == 0 && !from->base && stream_identity(from, &p->identity, NULL) == -ENOMEM)
        r = fail_memory(err, "the identity of a source");
    stream_close(from);
    if (r < 0) {
        if (p)
            stream_close(&p->head);
        return r;
    }
    *ret = &p->head;
    return 0;
}
