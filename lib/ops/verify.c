/* SPDX-License-Identifier: MIT */
/*
 * Verifies an archive: reads all of it, in order, and compares the data with digests of it, side by
 * side. A chunk of the walk is a batch of the reader.
 */
#include <stdio.h>
#include <string.h>

#include "base/ckd.h"
#include "ops/archive.h"
#include "ops/batches.h"
#include "ops/digest_check.h"
#include "stream/place.h"

struct verify {
    struct platter_archive *archive;
    struct platter_verification *result;
    struct digest_check *digests; /* NULL: there are none */
    struct batches batches;
    uint64_t done, total; /* bytes of disks: that came, that there are */
};

/* ---- the walk ----------------------------------------------------------------------------------
 */

static int verify_next(void *opaque, struct walk_chunk *ret, struct platter_error *err)
{
    struct verify *v = opaque;
    struct archive_reader *reader = v->archive->reader;
    struct archive_batch *batch = batch_take(&v->batches);
    int r = reader->ops->next(reader, batch, err);

    if (r <= 0) {
        batch_give(&v->batches, batch);
        return r;
    }
    v->result->extents++;
    ret->of_next = batch;
    ret->moved = batch->len;
    ret->off = v->done;
    for (unsigned i = 0; i < batch->n_runs; i++)
        v->done += batch->runs[i].len;
    /* A state may be longer than the archive guesses. */
    v->done = min_u64(v->done, v->total);
    ret->len = v->done - ret->off;
    return 1;
}

static int verify_work(void *opaque, unsigned worker, struct walk_chunk *c,
                       struct platter_error *err)
{
    struct verify *v = opaque;
    return v->digests ? digest_check_batch(v->digests, worker, c->of_next, err) : 0;
}

static int verify_after(void *opaque, unsigned worker, struct walk_chunk *c, bool failed,
                        struct platter_error *err)
{
    struct verify *v = opaque;
    (void)worker, (void)failed, (void)err;
    batch_give(&v->batches, c->of_next);
    return 0;
}

static const struct walk_ops verify_ops = {
    .next = verify_next, .work = verify_work, .after = verify_after};

static void tell(void *opaque, const struct archive_fault *fault)
{
    archive_tell(opaque, fault);
}

/* ---- digests -----------------------------------------------------------------------------------
 */

/* A program that was killed may have left them under another name. */
static void tell_aside(struct platter_archive *a, const char *name)
{
    struct platter_error why = {0};
    const struct archive_fault f = {.kind = ARCHIVE_FAULT_NOTE, .text = why.message};
    if (stream_check_not_aside(name, &why) < 0)
        archive_tell(a, &f);
}

/* A file of digests. Where it is not asked for by name, there need not be one: *ret_text is NULL
 * then. */
static int read_file(struct verify *v, const char *name, bool must, char **ret_text,
                     size_t *ret_len, struct platter_error *err)
{
    struct stream *s = NULL;
    uint64_t size;

    int r = stream_open_with(name, v->archive->place, 0, 0, &s, err);
    if (r == -ENOENT && !must) {
        tell_aside(v->archive, name);
        return 0;
    }
    if (r == 0)
        r = stream_size(s, &size, err);
    /* It is unpacked to less than it is as text. */
    if (r == 0)
        r = budget_take(v->archive->budget, size, "a file of digests", err);
    if (r == 0) {
        *ret_text = malloc(size + 1);
        *ret_len = size;
        r = *ret_text ? stream_pread(s, *ret_text, size, 0, err)
                      : fail_memory(err, "a file of digests");
        budget_give(v->archive->budget, size);
    }
    stream_close(s);
    return r;
}

/* The configurations platter.digest, .1, .2 and so on, one behind the other. */
static int read_configs(struct verify *v, char **ret_text, size_t *ret_len,
                        struct platter_error *err)
{
    const struct archive_listing *l = &v->archive->reader->listing;
    char name[sizeof DIGEST_CONFIG + 16] = DIGEST_CONFIG;
    size_t room = 0;

    for (unsigned i = 0; i < l->n_configs; i++)
        room += l->configs[i].size;
    auto_free char *text = malloc(room + 1);
    if (!text)
        return fail_memory(err, "digests");
    *ret_len = 0;
    for (unsigned part = 0, i = 0; i < l->n_configs;) {
        if (strcmp(l->configs[i].name, name) != 0) {
            i++;
            continue;
        }
        memcpy(text + *ret_len, l->configs[i].bytes, l->configs[i].size);
        *ret_len += l->configs[i].size;
        snprintf(name, sizeof name, DIGEST_CONFIG ".%u", ++part);
        i = 0;
    }
    if (*ret_len)
        *ret_text = TAKE(text);
    return 0;
}

/* Digests by the name that is given, or that are in the archive, or beside it. */
static int find_digests(struct verify *v, const char *given, struct digest_file *ret, bool *ret_any,
                        struct platter_error *err)
{
    auto_free char *beside = place_beside(v->archive->name, DIGEST_SUFFIX);
    auto_free char *text = NULL;
    const char *what = given;
    size_t len = 0;

    int r = beside ? 0 : fail_memory(err, "a name");
    if (r == 0 && given)
        r = read_file(v, given, true, &text, &len, err);
    else if (r == 0)
        r = read_configs(v, &text, &len, err);
    if (text && !given)
        what = v->archive->stream->name;
    if (r == 0 && !text && strcmp(v->archive->name, "-") != 0) {
        r = read_file(v, beside, false, &text, &len, err);
        what = beside;
    }
    *ret_any = r == 0 && text;
    return *ret_any ? digest_file_parse(what, text, len, ret, err) : r;
}

/* Has digests ready, if there are any, and as many batches as they are compared with side by side:
 * all else is done by the one thread that reads. */
static int open_digests(struct verify *v, const struct platter_verify_options *o,
                        struct platter_error *err)
{
    struct platter_archive *a = v->archive;
    struct platter_error why = {0};
    struct digest_file digests = {0};
    struct digest_check_plan plan = {.digests = &digests,
                                     .listing = &a->reader->listing,
                                     .budget = a->budget,
                                     .file = a->stream->name,
                                     .tell = tell,
                                     .opaque = a};
    int r = find_digests(v, o->digest, &digests, &v->result->digests, &why);

    /* Digests that are damaged themselves say nothing about the data. */
    if (r == -PLATTER_ECORRUPT && !o->digest) {
        const struct archive_fault f = {.kind = ARCHIVE_FAULT_DIGEST, .text = why.message};
        archive_tell(a, &f);
        v->result->digests = false;
    } else if (r < 0) {
        return fail(err, -r, "%s", why.message);
    }
    r = batches_open(&v->batches, a->reader, a->budget, v->result->digests ? o->workers : 1, err);
    plan.workers = v->batches.n;
    if (r == 0 && v->result->digests)
        return digest_check_open(&plan, &v->digests, err);
    digest_file_free(&digests);
    return r;
}

/* ---- all of it ---------------------------------------------------------------------------------
 */

static void verify_close(struct verify *v)
{
    digest_check_close(v->digests);
    batches_close(&v->batches);
}

/* Nobody can say which of two disks of one name is wanted: they cannot be extracted. */
static void check_names(struct verify *v)
{
    const struct archive_listing *l = &v->archive->reader->listing;
    for (unsigned i = 0; i < l->n_disks; i++)
        for (unsigned k = 0; k < i; k++) {
            struct archive_fault f = {.kind = ARCHIVE_FAULT_DUPLICATE};
            if (strcmp(l->disks[i].name, l->disks[k].name) != 0)
                continue;
            auto_free char *text = string_format(
                "%s: devices %u and %u have the same name, %s: they can be told apart by salvaging",
                v->archive->stream->name, l->disks[k].id, l->disks[i].id, l->disks[i].name);
            f.text = text ? text : "two devices have the same name";
            archive_tell(v->archive, &f);
            break;
        }
}

static int verify_run(struct verify *v, const struct platter_verify_options *o,
                      struct platter_error *err)
{
    struct archive_reader *reader = v->archive->reader;
    struct walk walk = {.ops = &verify_ops,
                        .opaque = v,
                        .workers = v->batches.n,
                        .total = v->total,
                        .progress = o->progress,
                        .progress_opaque = o->opaque};

    reader->flags |= ARCHIVE_VERIFY;
    if (!v->digests && !(o->flags & PLATTER_VERIFY_DATA))
        reader->flags |= ARCHIVE_HEADERS;
    int r = walk_run(&walk, err);
    if (r == 0)
        r = stream_unchanged(v->archive->stream, err);
    return r == 0 && v->digests ? digest_check_finish(v->digests, err) : r;
}

static void count(struct verify *v)
{
    const struct archive_reader *reader = v->archive->reader;
    for (unsigned i = 0; i < reader->listing.n_disks; i++) {
        const struct archive_disk *d = &reader->listing.disks[i];
        uint64_t have = reader->ops->have(reader, d);
        v->result->clusters += div_up(have, TREE_LEAF);
        if (!d->state && !d->unsized)
            v->result->missing += d->size - have;
    }
    v->result->faults = v->archive->faults;
}

int archive_verify(struct platter_archive *a, const struct platter_verify_options *options,
                   struct platter_verification *ret, struct platter_error *err)
{
    struct verify v = {.archive = a, .result = ret};
    int r = archive_use(a, err);
    if (r < 0)
        return r;
    for (unsigned i = 0; i < a->reader->listing.n_disks; i++)
        v.total += a->reader->listing.disks[i].size;
    check_names(&v);
    r = open_digests(&v, options, err);
    if (r == 0)
        r = verify_run(&v, options, err);
    count(&v);
    verify_close(&v);
    return r;
}
