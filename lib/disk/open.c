/* SPDX-License-Identifier: MIT */
/* Opening by name: the image, and its backing files down to the base. */
#include <string.h>

#include "disk/inside.h"
#include "disk/source.h"

/* The locks of qcow2.md section 21: a writer and a reader both keep other writers out. */
static void choose_locks(struct gate *gate, unsigned flags, bool writable)
{
    gate->no_lock = flags & PLATTER_OPEN_NO_LOCK;
    gate->lock_deny = STREAM_LOCK_WRITE | STREAM_LOCK_RESIZE;
    gate->lock_use = STREAM_LOCK_READ;
    if (writable)
        gate->lock_use |= STREAM_LOCK_WRITE | STREAM_LOCK_RESIZE;
    else if (flags & PLATTER_OPEN_FORCE_SHARE)
        gate->lock_deny = 0;
    else if (flags & PLATTER_OPEN_QUERY)
        gate->lock_use = 0;
}

/* ---- chains ---------------------------------------------------------------------------------- */

static int check_link(const struct platter_disk *disk, struct stream *s, const char *child,
                      struct platter_error *err)
{
    if (disk->depth >= DISK_MAX_DEPTH)
        return fail(err, PLATTER_ECORRUPT, "%s: the chain of backing files is longer than %d",
                    child, DISK_MAX_DEPTH);
    for (unsigned i = 0; i < disk->depth; i++)
        if (stream_same_file(disk->chain[i]->stream, s))
            return fail(err, PLATTER_ECORRUPT,
                        "%s: its backing file \"%s\" is part of the chain already: a loop", child,
                        s->name);
    return 0;
}

/* What the caller says of the format of the lowest image's backing file, if that image does not:
 * one of several words, top first, of which the last is for all that follow. NULL: nothing. */
static int say_format(const struct platter_disk *disk, const struct platter_open_options *o,
                      char **ret, struct platter_error *err)
{
    const struct image *child = disk->chain[disk->depth - 1];
    const char *word = o->backing_format;
    *ret = string_copy(child->backing_format);
    if (child->backing_format || !word)
        return *ret || !child->backing_format ? 0 : fail_memory(err, "the name of a format");
    for (unsigned i = 0; i + 1 < disk->depth && strchr(word, ','); i++)
        if (!disk->chain[i]->backing_format)
            word = strchr(word, ',') + 1;
    *ret = string_format("%.*s", (int)strcspn(word, ","), word);
    return *ret ? 0 : fail_memory(err, "the name of a format");
}

static int refuse_guess(const struct image *child, struct platter_error *err)
{
    return fail(err, PLATTER_EGATE,
                "%s: does not name the format of its backing file \"%s\", and guessing it would "
                "let a guest choose what is opened: %ssay which it is (--backing-format), or ask "
                "for the guess (--probe-backing)",
                child->stream->name, child->backing_name,
                child->format->unnamed_backing ? "" : "name it in the image (rebase -u -F), ");
}

static int identify_backing(const struct image *child, const char *format, struct stream **s,
                            const struct platter_open_options *o, struct image_setup *setup,
                            struct platter_error *err)
{
    const struct image_choice choice = {.format = format,
                                        .spool = o->spool,
                                        .progress = o->progress,
                                        .progress_opaque = o->progress_opaque};
    if (!choice.format && !(o->flags & PLATTER_OPEN_PROBE_BACKING))
        return refuse_guess(child, err);
    int r = image_identify(s, &choice, setup, err);
    if (r == 0)
        r = image_check_window(*s, setup, 0, err);
    return r < 0 ? fail_in(err, r, "backing file of %s", child->stream->name) : 0;
}

/* Whether it is the backing file that child was made over; a doubt of it, if that is to be ignored.
 */
static int accept_backing(struct image *child, const struct image *img, bool ignore,
                          struct platter_error *err)
{
    struct platter_error why = {0};
    int r = child->format->accept_backing(child, img, &why);
    if (r < 0 && ignore)
        return image_doubt(child, err, "%s", why.message);
    return r < 0 ? fail(err, -r,
                        "%s: look for the right one, or use --ignore-cid if you know that this one "
                        "holds the same",
                        why.message)
                 : 0;
}

bool format_has_disks(const char *name)
{
    const struct format *f = name ? format_find(name) : NULL;
    return f && f->archive;
}

/* The file; where none is called so and it is to be an archive, ARCHIVE@DISK is one of its disks:
 * *ret_view. */
static int open_backing_file(struct gate *gate, const struct image *child, const char *format,
                             const char *name, bool writable, const char **ret_view,
                             struct stream **ret, struct platter_error *err)
{
    *ret_view = NULL;
    int r = gate_open(gate, child->stream, name, PLATTER_NAME_BACKING, child->backing_hints,
                      writable, ret, err);
    const char *at = r == -ENOENT && format_has_disks(format) ? strrchr(name, '@') : NULL;
    for (; at && r == -ENOENT; at = memrchr(name, '@', (size_t)(at - name))) {
        auto_free char *file = string_format("%.*s", (int)(at - name), name);
        if (!file)
            return fail_memory(err, "a file name");
        if (gate_open(gate, child->stream, file, PLATTER_NAME_BACKING, false, writable, ret, NULL) <
            0)
            continue;
        *ret_view = at + 1;
        r = 0;
    }
    return r;
}

/* The target of a live migration names what no file is called: whoever has its state opens it, with
 * the source below (ops/migrate.h). */
static int refuse_target(const struct image *child, const char *name, struct platter_error *err)
{
    return strncmp(name, DISK_MIGRATION_MARK, strlen(DISK_MIGRATION_MARK)) != 0
               ? 0
               : fail(err, EBUSY,
                      "%s: is the target of a live migration that is not committed: a part of it "
                      "may still be in the source alone. See how far it is (platter migrate "
                      "status), use it through its owner (platter migrate serve), or have it stand "
                      "alone (platter migrate execute, then commit)",
                      child->stream->name);
}

/* Opens a file as the backing file of the lowest image. */
static int try_backing(struct platter_disk *disk, const struct platter_open_options *o,
                       const char *name, bool writable, struct platter_error *err)
{
    struct image *child = disk->chain[disk->depth - 1];
    struct gate gate = gate_of(o);
    choose_locks(&gate, o->flags, writable);

    struct stream *s;
    const char *view;
    auto_free char *format = NULL;
    int r = refuse_target(child, name, err);
    if (r == 0)
        r = say_format(disk, o, &format, err);
    if (r == 0)
        r = open_backing_file(&gate, child, format, name, writable, &view, &s, err);
    if (r < 0) {
        gate_done(&gate);
        return r;
    }
    struct image_setup setup = {.view = view,
                                .writable = writable,
                                .ordered = true,
                                .query = o->flags & PLATTER_OPEN_QUERY,
                                .salvage = o->flags & PLATTER_OPEN_SALVAGE,
                                .budget = disk->budget,
                                .opener = &gate.opener};
    if ((r = check_link(disk, s, child->stream->name, err)) < 0 ||
        (r = gate.no_lock ? 0 : stream_lock(s, gate.lock_use, gate.lock_deny, err)) < 0 ||
        (r = identify_backing(child, format, &s, o, &setup, err)) < 0) {
        gate_done(&gate);
        stream_close(s);
        return r;
    }
    struct image *img;
    r = image_load(s, &setup, &img, err);
    gate_done(&gate);
    if (r < 0)
        return fail_in(err, r, "backing file of %s", child->stream->name);
    if (child->format->accept_backing)
        r = accept_backing(child, img, o->flags & PLATTER_OPEN_IGNORE_CID, err);
    if (r < 0) {
        image_free(img);
        return r;
    }
    return disk_append(disk, img, err);
}

/* The name that was looked for leads to no file here, or to none that may be opened. */
static bool is_not_there(int r)
{
    return r == -ENOENT || r == -ENOTDIR || r == -EACCES || r == -ELOOP || r == -ENAMETOOLONG ||
           r == -PLATTER_EGATE;
}

/* Adds to a sentence where else the backing file was looked for. */
static void add_hints(const struct image *child, struct platter_error *err)
{
    auto_free char *said = err ? string_copy(err->message) : NULL;
    auto_free char *places = NULL;
    for (char *const *hint = child->backing_hints; said && *hint; hint++) {
        char *more = string_format("%s \"%s\"", places ? places : "; tried as well:", *hint);
        free(places);
        places = more;
    }
    if (said && places)
        fail(err, err->code, "%s%s", said, places);
}

/*
 * Opens the backing file of the lowest image: under the name it has in the image, or where the
 * format knows that it may be instead. Only a file that the format can tell is the right one is
 * taken from there. If there is none, what is wrong with the nearest thing to it is the error.
 */
static int open_backing(struct platter_disk *disk, const struct platter_open_options *o,
                        bool writable, struct platter_error *err)
{
    const struct image *child = disk->chain[disk->depth - 1];
    int r = try_backing(disk, o, child->backing_name, writable, err);
    if (r == 0 || !child->backing_hints)
        return r;
    for (char *const *hint = child->backing_hints; *hint; hint++) {
        struct platter_error later;
        if (!is_not_there(r) && r != -PLATTER_ECORRUPT && r != -PLATTER_ENOFORMAT)
            break;
        int l = try_backing(disk, o, *hint, writable, &later);
        if (l == 0)
            return 0;
        if (is_not_there(r) && !is_not_there(l)) {
            r = l;
            if (err)
                *err = later;
        }
    }
    add_hints(child, err);
    return r;
}

/* `base`: the image that is open for writing as well; 0: none. */
static int open_chain(struct platter_disk *disk, const struct platter_open_options *o,
                      unsigned base, struct platter_error *err)
{
    while (disk->chain[disk->depth - 1]->has_backing) {
        const struct image *child = disk->chain[disk->depth - 1];
        if (!child->backing_name)
            return fail(
                err, PLATTER_ECORRUPT,
                "%s: says that it has a backing file, but not which: name it (rebase -u -b)",
                child->stream->name);
        int r = open_backing(disk, o, base > 0 && disk->depth == base, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* What a source-spec says of an image, and what was said otherwise, must go together. */
static int check_source(const struct source *source, const struct platter_open_options *o,
                        struct platter_error *err)
{
    const char *said = source->qcow ? "qcow" : source->format;
    bool one = !o->format || !source->spec || strcmp(o->format, said) == 0 ||
               (source->qcow && strcmp(o->format, "qcow2") == 0);
    if (!one)
        return fail(err, EINVAL, "%s: its source-spec says that it is %s, and -f that it is %s",
                    source_name(source), said, o->format);
    if (source->view && o->view)
        return fail(err, EINVAL, "%s: two views are named, \"%s\" and \"%s\"", source_name(source),
                    source->view, o->view);
    return 0;
}

/* Opens the stream of an image, and finds out what that is. */
static int open_source(struct platter_disk *disk, const struct source *source,
                       const struct platter_open_options *o, const struct gate *gate,
                       struct image_setup *setup, struct stream **ret, struct platter_error *err)
{
    const char *format = o->format ? o->format : source->format;
    const struct image_choice choice = {.format = format,
                                        .allow_raw =
                                            o->flags & PLATTER_OPEN_ALLOW_RAW && !source->qcow,
                                        .qcow = source->qcow,
                                        .unpack = source->unpack,
                                        .spool = o->spool,
                                        .progress = o->progress,
                                        .progress_opaque = o->progress_opaque};
    int r = check_source(source, o, err);
    if (r == 0)
        r = source_open(source, disk->writable ? STREAM_FILE_WRITE : 0, ret, err);
    if (r < 0)
        return r;
    if ((r = gate->no_lock ? 0 : stream_lock(*ret, gate->lock_use, gate->lock_deny, err)) < 0 ||
        (r = image_identify(ret, &choice, setup, err)) < 0 ||
        (r = image_check_window(*ret, setup, o->flags, err)) < 0)
        stream_close(TAKE(*ret));
    return r;
}

static int open_top(struct platter_disk *disk, const char *name,
                    const struct platter_open_options *o, bool checking, struct platter_error *err)
{
    struct gate gate = gate_of(o);
    choose_locks(&gate, o->flags, disk->writable);
    struct source source;
    struct stream *s;
    int r = source_of(name, o->place, &source, err);
    if (r < 0)
        return r;
    struct image_setup setup = {.view = source.view ? source.view : o->view,
                                .writable = disk->writable && !(o->flags & PLATTER_OPEN_QUERY),
                                .query = o->flags & PLATTER_OPEN_QUERY,
                                .salvage = o->flags & PLATTER_OPEN_SALVAGE,
                                .checking = checking,
                                .ordered = true,
                                .budget = disk->budget,
                                .opener = &gate.opener};
    struct image *img;
    r = open_source(disk, &source, o, &gate, &setup, &s, err);
    if (r == 0) {
        r = image_load(s, &setup, &img, err);
        gate_done(&gate);
    }
    source_done(&source);
    return r < 0 ? r : disk_append(disk, img, err);
}

int disk_open_with_base(const char *name, const struct platter_open_options *o, unsigned base,
                        struct platter_disk **ret, struct platter_error *err)
{
    struct platter_disk *disk;
    int r = disk_new(o->memory_limit, &disk, err);
    if (r < 0)
        return r;
    const unsigned read_only = PLATTER_OPEN_FORCE_SHARE | PLATTER_OPEN_QUERY | PLATTER_OPEN_SALVAGE;
    disk->writable = o->flags & PLATTER_OPEN_WRITE;
    if (disk->writable && (o->view || (o->flags & read_only)))
        r = fail(err, EINVAL, "%s: a view, a query, a salvage and a forced open are read-only",
                 place_is_spec(name) ? "source-spec" : name);
    if (r == 0)
        r = open_top(disk, name, o, false, err);
    if (r == 0 && !(o->flags & PLATTER_OPEN_NO_BACKING))
        r = open_chain(disk, o, base, err);
    if (r < 0) {
        disk->writable = false;
        disk_close(disk, NULL);
        return r;
    }
    disk_note_base(disk);
    *ret = disk;
    return 0;
}

int disk_open(const char *name, const struct platter_open_options *o, struct platter_disk **ret,
              struct platter_error *err)
{
    return disk_open_with_base(name, o, 0, ret, err);
}

int disk_open_for_keys(const char *name, const struct platter_open_options *o,
                       struct platter_disk **ret, struct platter_error *err)
{
    struct platter_open_options query = *o;
    struct platter_disk *disk = NULL;
    query.flags |= PLATTER_OPEN_QUERY;
    int r = disk_new(o->memory_limit, &disk, err);
    if (r < 0)
        return r;
    disk->writable = true;
    r = open_top(disk, name, &query, false, err);
    disk->writable = false; /* the image itself is not: only its keys are */
    if (r < 0) {
        disk_close(disk, NULL);
        return r;
    }
    *ret = disk;
    return 0;
}

int disk_open_for_check(const char *name, const struct platter_open_options *o, bool repair,
                        struct platter_disk **ret, struct platter_error *err)
{
    struct platter_disk *disk = NULL;
    int r = disk_new(o->memory_limit, &disk, err);
    if (r < 0)
        return r;
    disk->writable = repair;
    r = open_top(disk, name, o, true, err);
    disk->writable = false; /* it is the format that writes: there is nothing to flush at the end */
    if (r < 0) {
        disk_close(disk, NULL);
        return r;
    }
    *ret = disk;
    return 0;
}
