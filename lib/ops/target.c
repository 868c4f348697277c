/* SPDX-License-Identifier: MIT */
/* New images: see target.h. */
#include "ops/target.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/memory.h"
#include "base/signals.h"
#include "ops/publish.h"
#include "stream/place.h"

/* No file has that name: as ARCHIVE@DISK it is a disk of one. -ENOENT, and the sentence that there
 * is: there is no such archive either. */
static int open_disk_of(const char *path, const struct platter_open_options *open,
                        struct platter_disk **ret, struct platter_error *err)
{
    struct platter_open_options o = *open;
    for (const char *at = strrchr(path, '@'); at; at = memrchr(path, '@', (size_t)(at - path))) {
        auto_free char *file = string_format("%.*s", (int)(at - path), path);
        if (!file)
            return fail_memory(err, "a file name");
        o.view = at + 1;
        if (access(file, F_OK) == 0)
            return disk_open(file, &o, ret, err);
    }
    return -ENOENT;
}

int open_backing_of(const char *name, const char *backing, const struct platter_open_options *open,
                    struct platter_disk **ret, struct platter_error *err)
{
    auto_free char *path = NULL;
    int r = gate_resolve(name, backing, &path, err);
    if (r < 0)
        return r;
    if (!path &&
        place_is_spec(backing)) /* it may hold secrets, and anybody could read them there */
        return fail(
            err, EINVAL,
            "%s: no image opens a source-spec as its backing file: give the name of a file, "
            "or a URI",
            name);
    if (!path)
        return fail(err, EINVAL,
                    "%s: \"%s\" as the name of a backing file is empty, or would be taken for a "
                    "protocol: for a file whose name has a colon write ./NAME",
                    name, backing);
    r = disk_open(path, open, ret, err);
    if (r == -ENOENT && format_has_disks(open->format))
        r = open_disk_of(path, open, ret, err);
    if (r < 0)
        return fail_in(err, r, "the backing file of %s", name);
    if ((*ret)->depth < DISK_MAX_DEPTH)
        return 0;
    disk_close(TAKE(*ret), NULL);
    return fail(err, EINVAL, "%s: its chain would be longer than %d images and never open", name,
                DISK_MAX_DEPTH);
}

/* A new image over itself would replace what it needs, and never open. */
static int check_not_itself(const struct target_request *q, struct platter_error *err)
{
    struct stream *old = NULL, *below = NULL;
    auto_free char *path = NULL;
    int r = gate_resolve(q->name, q->backing, &path, err);
    if (r < 0 || !path)
        return r;
    bool itself = strcmp(path, q->name) == 0;
    if (stream_open_with(q->name, q->place, 0, 0, &old, NULL) == 0 &&
        stream_open(path, 0, &below, NULL) == 0)
        itself = stream_same_file(old, below);
    stream_close(old);
    stream_close(below);
    return itself ? fail(err, EINVAL, "%s: cannot be its own backing file", q->name) : 0;
}

/* ---- what must not be replaced --------------------------------------------------------------- */

static bool has_file(const struct image *img, struct stream *s)
{
    struct stream *file;
    for (unsigned i = 0; img->format->file && img->format->file(img, i, &file); i++)
        if (file && stream_same_file(file, s))
            return true;
    return false;
}

int check_stream_not_of(struct stream *to, const struct platter_disk *disk, const char *role,
                        struct platter_error *err)
{
    int r = 0;
    for (unsigned i = 0; i < disk->depth && r == 0; i++) {
        const struct image *img = disk->chain[i];
        if (stream_same_file(img->stream, to))
            r = fail(err, EINVAL, "%s: is the %s itself, or a backing file of it", to->name, role);
        else if (has_file(img, to))
            r = fail(err, EINVAL, "%s: is a file of the %s %s", to->name, role, img->stream->name);
    }
    return r;
}

int check_not_of(const char *path, const struct platter_disk *disk, const char *role,
                 struct platter_error *err)
{
    struct stream *s;
    if (!place_is_file(path, &path) || stream_file_open(path, 0, &s, NULL) < 0)
        return 0; /* there is none, or it is not replaced before it is known */
    int r = check_stream_not_of(s, disk, role, err);
    stream_close(s);
    return r;
}

/* What is written in place, once it is open: the names of a device or an export say little. */
static int check_stream_free(const struct target *t, struct platter_error *err)
{
    const struct target_request *q = t->request;
    int r = t->backing ? check_stream_not_of(t->stream, t->backing, "backing file", err) : 0;
    for (unsigned i = 0; i < q->n_sources && r == 0; i++)
        r = check_stream_not_of(t->stream, q->sources[i], "source", err);
    return r;
}

static int check_free(const struct target *t, const char *path, struct platter_error *err)
{
    const struct target_request *q = t->request;
    int r = t->backing ? check_not_of(path, t->backing, "backing file", err) : 0;
    for (unsigned i = 0; i < q->n_sources && r == 0; i++)
        r = check_not_of(path, q->sources[i], "source", err);
    return r;
}

/* A shell may have given a file as stdout. */
static int open_output(struct target *t, struct platter_error *err)
{
    const struct target_request *q = t->request;
    int r = stream_pipe_open(q->fd, q->name, &t->stream, err);
    for (unsigned i = 0; i < q->n_sources && r == 0; i++)
        r = check_stream_not_of(t->stream, q->sources[i], "source", err);
    return r;
}

/* A device is written in place, so a program that uses it must be kept out; the locks of a file
 * that is replaced are its temporary's. */
static int lock_device(struct target *t, struct platter_error *err)
{
    const unsigned deny = STREAM_LOCK_WRITE | STREAM_LOCK_RESIZE;
    return t->in_place ? stream_lock(t->stream, STREAM_LOCK_READ | deny, deny, err) : 0;
}

/* ---- further files --------------------------------------------------------------------------- */

static unsigned file_flags(const struct target_request *q)
{
    unsigned flags = STREAM_FILE_WRITE | STREAM_FILE_TEMPORARY;
    flags |= q->exclusive ? STREAM_FILE_EXCLUSIVE : 0;
    bool bulk = q->bulk || q->n_sources > 0; /* the rest writes little */
    flags |= q->durable && bulk ? STREAM_FILE_DIRECT : 0;
    return flags;
}

static struct target_file *find_file(const struct target *t, const char *name)
{
    for (unsigned i = t->n_files; i-- > 0;)
        if (strcmp(t->files[i].name, name) == 0)
            return &t->files[i];
    return NULL;
}

static int make_file(const struct file_maker *maker, const char *name, struct stream **ret,
                     struct platter_error *err)
{
    struct target *t = container_of(maker, struct target, maker);
    if (t->n_files == t->max_files) {
        unsigned room = t->max_files ? 2 * t->max_files : 16;
        struct target_file *files = reallocarray(t->files, room, sizeof *files);
        if (!files)
            return fail_memory(err, "the files of a new image");
        t->files = files;
        t->max_files = room;
    }
    auto_free char *path = NULL;
    int r = gate_resolve(t->request->name, name, &path, err);
    if (r == 0 && (!path || strchr(name, '/') || find_file(t, name)))
        r = fail(err, EINVAL,
                 "%s: cannot have a further file called \"%s\": it would be taken for a protocol, "
                 "stand in another folder, or be there twice",
                 t->request->name, name);
    if (r == 0)
        r = check_free(t, path, err);
    if (r < 0)
        return r;
    struct target_file file = {.name = string_copy(name)};
    const unsigned flags = file_flags(t->request) | STREAM_FILE_REGULAR;
    r = file.name ? stream_file_open(path, flags, &file.stream, err)
                  : fail_memory(err, "a file name");
    if (r < 0) {
        free(file.name);
        return r;
    }
    stream_take_rights(file.stream, t->stream);
    t->files[t->n_files++] = file;
    *ret = file.stream;
    return 0;
}

static int open_own_file(const struct name_opener *opener, const struct image *image,
                         const char *name, enum platter_name_kind kind, bool writable,
                         struct stream **ret, struct platter_error *err)
{
    (void)kind, (void)writable;
    const struct target *t = container_of(opener, const struct target, opener);
    const struct target_file *file = find_file(t, name);
    if (!file)
        return fail(err, PLATTER_EGATE, "%s: a new image names \"%s\", which it did not make",
                    image->stream->name, name);
    *ret = stream_share(file->stream);
    return 0;
}

/* One question for a new image: what it is made with opens it. */
static int tell_secret(const struct name_opener *opener, const struct platter_secret *question,
                       struct secret *ret, struct platter_error *err)
{
    struct target *t = container_of(opener, struct target, opener);
    struct platter_secret first = *question;
    first.kind = PLATTER_SECRET_NEW;
    int r = 0;
    if (!t->secret.bytes) {
        r = secret_new(&t->secret, err);
        if (r == 0)
            r = call_secret(t->request->secret, t->request->secret_opaque, &first, &t->secret, err);
    } else if (question->attempt > 0) {
        r = fail(err, EACCES, "%s: does not open with the key it was made with", question->image);
    }
    if (r == 0) {
        memcpy(ret->bytes, t->secret.bytes, t->secret.len);
        ret->len = t->secret.len;
    }
    return r;
}

/* ---- open and close -------------------------------------------------------------------------- */

/* Whether it can be written front to back only. */
static bool is_sequential(const struct target *t)
{
    return t->request->fd >= 0 || t->stream->sequential;
}

/* What it can be made of, where it can only be written front to back. */
static int check_ordered(const struct target *t, struct platter_error *err)
{
    const struct target_request *q = t->request;
    const char *instead = q->fd >= 0 ? "give a file name" : "make a file, and copy that as raw";
    if (!q->format->writer_open)
        return fail(err, ENOTSUP, "%s: the %s format cannot be written front to back: %s", q->name,
                    q->format->name, instead);
    if (!target_is_ordered(t))
        return fail(err, ENOTSUP,
                    "%s: with these options the %s format cannot be written front to back", q->name,
                    q->format->name);
    return 0;
}

static int open_stream(struct target *t, struct platter_error *err)
{
    const struct target_request *q = t->request;
    if (q->fd >= 0)
        return open_output(t, err);
    int r = stream_check_not_aside(q->name, err); /* its extents would be replaced */
    if (r == 0)
        r = stream_open_with(q->name, q->place, file_flags(q), q->endless ? 0 : q->size, &t->stream,
                             err);
    if (r < 0)
        return r;
    uint64_t size = 0;
    r = stream_size(t->stream, &size, err);
    t->in_place = size > 0;
    if (r == 0 && (t->in_place || t->stream->sequential))
        r = check_stream_free(t, err);
    if (r == 0 && t->in_place && q->format->needs_file)
        r = fail(err, ENOTSUP,
                 "%s: has a size of its own, as a block device or an export has, and a new image "
                 "of the %s "
                 "format grows: give the name of a file",
                 q->name, q->format->name);
    return r < 0 ? r : lock_device(t, err);
}

static int check_request(const struct target_request *q, struct platter_error *err)
{
    const struct format *f = q->format;
    if (!f->create && !f->writer_open)
        return fail(err, ENOTSUP, "%s: images of format %s cannot be made", q->name, f->name);
    if (q->backing && f->no_backing)
        return fail(err, ENOTSUP, "%s: the %s format has no backing files", q->name, f->name);
    if (q->backing && !q->backing_format)
        return fail(err, EINVAL, "%s: the format of its backing file %s must be given (-F)",
                    q->name, q->backing);
    if (q->backing_format && !format_find(q->backing_format))
        return fail(err, ENOTSUP, "%s: no format is called \"%s\"", q->name, q->backing_format);
    return 0;
}

struct platter_open_options target_below(const struct target_request *q, unsigned flags)
{
    return (struct platter_open_options){.size = sizeof(struct platter_open_options),
                                         .flags = flags |
                                                  (q->probe_below ? PLATTER_OPEN_PROBE_BACKING : 0),
                                         .format = q->backing_format,
                                         .backing_format = q->below_format,
                                         .allow = q->allow,
                                         .secret = q->secret,
                                         .secret_opaque = q->secret_opaque};
}

int target_open(const struct target_request *q, uint64_t memory_limit, struct target *t,
                struct platter_error *err)
{
    /* An empty image only needs to know what is below it, not to read there. */
    const struct platter_open_options below =
        target_below(q, q->n_sources ? 0 : PLATTER_OPEN_QUERY);
    *t = (struct target){.request = q,
                         .maker = {make_file},
                         .opener = {.open = open_own_file,
                                    .secret = tell_secret,
                                    .kdf_limit = UINT64_MAX /* it is we who chose it */}};
    int r = check_request(q, err);
    if (r < 0)
        return r;
    t->budget = budget_new(memory_limit ? memory_limit : 64 << 20);
    r = t->budget ? options_parse(q->format->create_options, q->options, &t->options, err)
                  : fail_memory(err, "a memory budget");
    if (r < 0)
        fail_in(err, r, "%s", q->name);
    if (r == 0 && q->backing)
        r = check_not_itself(q, err);
    if (r == 0 && q->backing && q->look_at_backing)
        r = open_backing_of(q->name, q->backing, &below, &t->backing, err);
    if (r == 0 && q->fd < 0)
        r = check_free(t, q->name, err);
    if (r == 0)
        r = open_stream(t, err);
    return r == 0 && is_sequential(t) ? check_ordered(t, err) : r;
}

static void close_files(struct target *t)
{
    stream_close(TAKE(t->stream));
    for (unsigned i = 0; i < t->n_files; i++) {
        stream_close(t->files[i].stream);
        free(t->files[i].name);
    }
    free(TAKE(t->files));
    t->n_files = 0;
}

void target_close(struct target *t)
{
    close_files(t);
    secret_wipe(&t->secret);
    disk_close(TAKE(t->backing), NULL);
    options_free(TAKE(t->options));
    budget_unref(TAKE(t->budget));
}

int target_end(struct target *t, int r, struct platter_error *err)
{
    if (r < 0)
        r = stream_give_up(t->stream, r, err);
    target_close(t);
    return r;
}

bool target_is_ordered(const struct target *t)
{
    const struct format *f = t->request->format;
    return f->ordered ? f->ordered(t->options) : is_sequential(t);
}

static struct create_request target_create_request(const struct target *t)
{
    return (struct create_request){
        .name = t->request->name,
        .stream = t->stream,
        .size = t->request->size,
        .options = t->options,
        .backing_name = t->request->backing,
        .backing_format = t->request->backing_format,
        .backing = t->backing ? disk_top(t->backing) : NULL,
        .maker = is_sequential(t) || t->in_place ? NULL : &t->maker,
        .opener = &t->opener,
        .budget = t->budget,
        .compress = t->request->compress,
    };
}

static int open_writer(struct target *t, struct image_writer **ret, struct platter_error *err)
{
    struct create_request request = target_create_request(t);
    int r = t->request->format->writer_open(&request, ret, err);
    if (r == 0)
        (*ret)->stream = t->stream;
    return r;
}

static int fail_over_backing(const struct target *t, struct platter_error *err)
{
    return fail(err, ENOTSUP,
                "%s: an image of the %s format that is written front to back holds all of the "
                "disk: it cannot be made over a backing file",
                t->request->name, t->request->format->name);
}

/* What is left out of the image reads as zeros, not as what a backing file has there. */
int target_writer(struct target *t, struct image_writer **ret, struct platter_error *err)
{
    return t->request->backing ? fail_over_backing(t, err) : open_writer(t, ret, err);
}

/* An empty image may well have a backing file, but for one of those that are only written in this
 * way where the place wants it: their writers know of none. */
int target_create(struct target *t, struct platter_error *err)
{
    const struct format *f = t->request->format;
    struct create_request request = target_create_request(t);
    if (!target_is_ordered(t))
        return f->create(&request, err);
    if (t->request->backing && !f->ordered)
        return fail_over_backing(t, err);
    struct image_writer *w;
    int r = open_writer(t, &w, err);
    if (r < 0)
        return r;
    r = w->ops->finish(w, err);
    w->ops->close(w);
    return r;
}

int target_disk(struct target *t, uint64_t memory_limit, struct platter_disk **ret,
                struct platter_error *err)
{
    struct stream *stream = stream_share(t->stream);
    const struct format *format = t->request->format;
    struct platter_disk *disk;
    int r = disk_assemble(&stream, &format, 1, true, false, memory_limit, &t->opener, &disk, err);
    if (r < 0)
        return r;
    if (t->backing)
        r = disk_stack(disk, TAKE(t->backing), err);
    if (r < 0) {
        disk_close(disk, NULL);
        return r;
    }
    *ret = disk;
    return 0;
}

static int flush_all(const struct target *t, struct platter_error *err)
{
    int r = 0;
    for (unsigned i = 0; i < t->n_files && r == 0; i++)
        r = stream_flush(t->files[i].stream, err);
    return r < 0 ? r : stream_flush(t->stream, err);
}

/*
 * An image of several files cannot appear at once. An older one of the name is moved aside, its
 * main file first, and the new main file comes last, so that at any moment there is all of the old
 * one, no image, or all of the new one; never the main file of one with an extent of the other.
 * Extents of the old one that the new one does not have stay: nobody knows whether they are not
 * another's.
 */
static int publish_all(const struct target *t, struct platter_error *err)
{
    bool durable = t->request->durable;
    int r = stream_make_way(t->stream, durable, err);
    for (unsigned i = 0; i < t->n_files && r == 0; i++) {
        r = stream_make_way(t->files[i].stream, false, err);
        if (r == 0) /* they stand in one folder */
            r = stream_publish(t->files[i].stream, durable && i == t->n_files - 1, err);
    }
    return r < 0 ? r : stream_publish(t->stream, durable, err);
}

/* The other way round, so that the old main file comes back last, and only to its own extents. */
static void withdraw_all(const struct target *t, struct platter_error *err)
{
    bool all = true;
    for (unsigned i = 0; i < t->n_files; i++)
        if (stream_withdraw(t->files[i].stream, true, err) < 0)
            all = false;
    stream_withdraw(t->stream, all, err);
}

/* What can be taken back, if the next one cannot have its name. */
static int publish_each(struct target *const *targets, unsigned n, struct platter_error *err)
{
    int r = 0;
    unsigned done = 0;
    while (done < n && r == 0)
        r = publish_all(targets[done++], err);
    while (r < 0 && done > 0)
        withdraw_all(targets[--done], err);
    return r;
}

static int publish_alone(const struct target *t, struct platter_error *err)
{
    const struct target_request *q = t->request;
    int r = publish_watched(t->stream, q->durable, q->progress, q->progress_opaque, q->size, err);
    if (r < 0 && q->exclusive) /* it may have its name, but not for sure after a crash */
        stream_withdraw(t->stream, true, NULL);
    return r;
}

int targets_publish(struct target *const *targets, unsigned n, struct platter_error *err)
{
    if (n == 1 && targets[0]->n_files == 0)
        return publish_alone(targets[0], err);
    int r = 0;
    for (unsigned i = 0; i < n && r == 0; i++)
        r = targets[i]->request->durable ? flush_all(targets[i], err) : 0;
    if (r < 0)
        return r;
    sigset_t before; /* they wait until all are there, and nothing is left beside them */
    hold_signals(&before);
    r = publish_each(targets, n, err);
    for (unsigned i = 0; i < n; i++) {
        if (r < 0)
            r = stream_give_up(targets[i]->stream, r, err);
        close_files(targets[i]);
    }
    release_signals(&before);
    return r;
}

int target_publish(struct target *t, struct platter_error *err)
{
    return targets_publish(&t, 1, err);
}
