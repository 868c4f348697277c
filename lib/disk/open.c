/* SPDX-License-Identifier: MIT */
/* Opening and closing: find the format, open the image, follow its backing files to the base. */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "disk/inside.h"

enum {
    PROBE_MAGIC = 4096,     /* of a file, where most formats have their magic */
    PROBE_BYTES = 64 << 10, /* the most that formats may look at: vmdk.md section 2 */
    DEFAULT_MEMORY = 64 << 20
};

static void image_free(struct image *img)
{
    if (!img)
        return;
    if (img->format)
        img->format->close(img, NULL);
    stream_close(img->stream);
    free(img->view);
    free(img->backing_name);
    for (char **hint = img->backing_hints; hint && *hint; hint++)
        free(*hint);
    free(img->backing_hints);
    free(img->backing_format);
    free(img->doubt);
    budget_unref(img->budget);
    pthread_mutex_destroy(&img->lock);
    free(img);
}

/* What an image opens with. */
struct image_setup {
    const struct format *format;
    const char *view;
    bool writable, query, salvage, checking, ordered;
    struct budget *budget;
    const struct name_opener *opener;
};

/* Takes the stream, on failure as well. */
static int image_open(struct stream *stream, const struct image_setup *setup, struct image **ret,
                      struct platter_error *err)
{
    struct image *img = calloc(1, sizeof *img);
    if (!img) {
        stream_close(stream);
        return fail_memory(err, "an image");
    }
    pthread_mutex_init(&img->lock, NULL);
    img->format = setup->format;
    img->stream = stream;
    img->writable = setup->writable;
    img->query = setup->query;
    img->salvage = setup->salvage;
    img->checking = setup->checking;
    img->ordered = setup->ordered;
    img->budget = budget_ref(setup->budget);
    img->opener = setup->opener;
    int r = 0;
    if (setup->view && !setup->format->views)
        r = fail(err, ENOENT, "%s: a %s image has no views, so none named \"%s\"", stream->name,
                 setup->format->name, setup->view);
    else if (setup->view && !(img->view = string_copy(setup->view)))
        r = fail_memory(err, "the name of a view");
    else
        r = setup->format->open(img, err);
    img->opener = NULL;
    if (r < 0) {
        img->writable = false; /* nothing was written, so there is nothing to mark on close */
        image_free(img);
        return r;
    }
    *ret = img;
    return 0;
}

/* Which format is surest that a file that begins with `prefix` is its own; NULL if none is. */
static const struct format *surest(const uint8_t *prefix, size_t len, uint64_t file_size)
{
    const struct format *ret = NULL;
    enum probe best = PROBE_NO;
    for (const struct format *const *f = formats; *f; f++) {
        enum probe sure = (*f)->probe ? (*f)->probe(prefix, len, file_size) : PROBE_NO;
        if (sure > best) {
            best = sure;
            ret = *f;
        }
    }
    return ret;
}

static int probe(struct stream *s, bool allow_raw, const struct format **ret,
                 struct platter_error *err)
{
    uint64_t size;
    int r = stream_size(s, &size, err);
    if (r < 0)
        return r;
    auto_free uint8_t *prefix = malloc(PROBE_BYTES);
    if (!prefix)
        return fail_memory(err, "the first bytes of a file");
    size_t n = (size_t)min_u64(size, PROBE_MAGIC);
    if ((r = stream_pread(s, prefix, n, 0, err)) < 0)
        return r;
    if ((*ret = surest(prefix, n, size)))
        return 0;
    n = (size_t)min_u64(size, PROBE_BYTES);
    if ((r = stream_pread(s, prefix, n, 0, err)) < 0)
        return r;
    if ((*ret = surest(prefix, n, size)))
        return 0;
    const char *foreign = format_foreign(prefix, n);
    if (foreign)
        return fail(
            err, PLATTER_ENOFORMAT,
            "%s: is %s, a format that cannot be read yet; -f raw takes the bytes of the file "
            "as the disk",
            s->name, foreign);
    if (!allow_raw)
        return fail(err, PLATTER_ENOFORMAT,
                    "%s: no format recognised: if it is a raw disk, say so (-f raw)", s->name);
    *ret = &format_raw;
    return 0;
}

static int choose_format(struct stream *s, const char *name, bool allow_raw,
                         const struct format **ret, struct platter_error *err)
{
    if (!name)
        return probe(s, allow_raw, ret, err);
    *ret = format_find(name);
    if (!*ret)
        return fail(err, ENOTSUP, "%s: no format is called \"%s\"", s->name, name);
    return 0;
}

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

static int disk_new(uint64_t memory_limit, struct platter_disk **ret, struct platter_error *err)
{
    struct platter_disk *disk = calloc(1, sizeof *disk);
    if (!disk)
        return fail_memory(err, "a disk");
    range_lock_init(&disk->ranges);
    disk->budget = budget_new(memory_limit ? memory_limit : DEFAULT_MEMORY);
    int r = disk->budget ? unit_cache_new(disk->budget, &disk->cache, err)
                         : fail_memory(err, "a memory budget");
    if (r < 0) {
        disk_close(disk, NULL);
        return r;
    }
    *ret = disk;
    return 0;
}

/* Appends an image at the base. Takes it, on failure as well. */
static int disk_append(struct platter_disk *disk, struct image *img, struct platter_error *err)
{
    struct image **chain = reallocarray(disk->chain, disk->depth + 1, sizeof *chain);
    if (!chain) {
        image_free(img);
        return fail_memory(err, "a chain of images");
    }
    disk->chain = chain;
    chain[disk->depth++] = img;
    return 0;
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

static int backing_format(const struct image *child, struct stream *s, unsigned flags,
                          const struct format **ret, struct platter_error *err)
{
    const char *name = child->backing_format;
    if (!name && !(flags & PLATTER_OPEN_PROBE_BACKING))
        return fail(
            err, PLATTER_EGATE,
            "%s: does not name the format of its backing file \"%s\", and guessing it would "
            "let a guest choose what is opened: name it in the image (rebase -u -F) or ask "
            "for the guess (--probe-backing)",
            child->stream->name, child->backing_name);
    int r = choose_format(s, name, false, ret, err);
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

/* Opens a file as the backing file of the lowest image. */
static int try_backing(struct platter_disk *disk, const struct platter_open_options *o,
                       const char *name, bool writable, struct platter_error *err)
{
    struct image *child = disk->chain[disk->depth - 1];
    struct gate gate = {
        .opener = {gate_opener}, .fn = o->gate, .opaque = o->gate_opaque, .allow = o->allow};
    choose_locks(&gate, o->flags, writable);

    struct stream *s;
    int r = gate_open(&gate, child->stream->name, name, PLATTER_NAME_BACKING, child->backing_hints,
                      writable, &s, err);
    if (r < 0)
        return r;
    struct image_setup setup = {.writable = writable,
                                .ordered = true,
                                .query = o->flags & PLATTER_OPEN_QUERY,
                                .salvage = o->flags & PLATTER_OPEN_SALVAGE,
                                .budget = disk->budget,
                                .opener = &gate.opener};
    if ((r = check_link(disk, s, child->stream->name, err)) < 0 ||
        (r = backing_format(child, s, o->flags, &setup.format, err)) < 0 ||
        (r = gate.no_lock ? 0 : stream_lock(s, gate.lock_use, gate.lock_deny, err)) < 0) {
        stream_close(s);
        return r;
    }
    struct image *img;
    r = image_open(s, &setup, &img, err);
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

static int open_top(struct platter_disk *disk, const char *name,
                    const struct platter_open_options *o, bool checking, struct platter_error *err)
{
    struct gate gate = {
        .opener = {gate_opener}, .fn = o->gate, .opaque = o->gate_opaque, .allow = o->allow};
    choose_locks(&gate, o->flags, disk->writable);
    struct stream *s;
    int r = stream_file_open(name, disk->writable ? STREAM_FILE_WRITE : 0, &s, err);
    if (r < 0)
        return r;
    struct image_setup setup = {.view = o->view,
                                .writable = disk->writable,
                                .query = o->flags & PLATTER_OPEN_QUERY,
                                .salvage = o->flags & PLATTER_OPEN_SALVAGE,
                                .checking = checking,
                                .ordered = true,
                                .budget = disk->budget,
                                .opener = &gate.opener};
    if ((r = gate.no_lock ? 0 : stream_lock(s, gate.lock_use, gate.lock_deny, err)) < 0 ||
        (r = choose_format(s, o->format, o->flags & PLATTER_OPEN_ALLOW_RAW, &setup.format, err)) <
            0) {
        stream_close(s);
        return r;
    }
    struct image *img;
    r = image_open(s, &setup, &img, err);
    return r < 0 ? r : disk_append(disk, img, err);
}

/* Whether all is open that its bytes may come from. */
static void note_base(struct platter_disk *disk)
{
    disk->cut = disk->depth > 0 && disk->chain[disk->depth - 1]->has_backing;
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
                 name);
    if (r == 0)
        r = open_top(disk, name, o, false, err);
    if (r == 0 && !(o->flags & PLATTER_OPEN_NO_BACKING))
        r = open_chain(disk, o, base, err);
    if (r < 0) {
        disk->writable = false;
        disk_close(disk, NULL);
        return r;
    }
    note_base(disk);
    *ret = disk;
    return 0;
}

int disk_open(const char *name, const struct platter_open_options *o, struct platter_disk **ret,
              struct platter_error *err)
{
    return disk_open_with_base(name, o, 0, ret, err);
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

/* Names found by streams that came without a path are refused. */
static int refuse_named(const struct name_opener *opener, const struct image *image,
                        const char *name, enum platter_name_kind kind, bool writable,
                        struct stream **ret, struct platter_error *err)
{
    (void)opener, (void)kind, (void)writable, (void)ret;
    return fail(err, PLATTER_EGATE, "%s: the file \"%s\" that it names is not opened here",
                image->stream->name, name);
}

static const struct name_opener refuse = {refuse_named};

int disk_assemble_for_check(struct stream *stream, const struct format *format, bool repair,
                            uint64_t memory_limit, const struct name_opener *opener,
                            struct platter_disk **ret, struct platter_error *err)
{
    struct platter_disk *disk = NULL;
    int r = disk_new(memory_limit, &disk, err);
    if (r < 0) {
        stream_close(stream);
        return r;
    }
    struct image_setup setup = {.format = format,
                                .writable = repair,
                                .checking = true,
                                .ordered = true,
                                .budget = disk->budget,
                                .opener = opener ? opener : &refuse};
    struct image *img;
    r = image_open(stream, &setup, &img, err);
    if (r == 0)
        r = disk_append(disk, img, err);
    if (r < 0) {
        disk_close(disk, NULL);
        return r;
    }
    *ret = disk;
    return 0;
}

int disk_assemble(struct stream **streams, const struct format **formats_of, unsigned n,
                  bool writable, bool ordered, uint64_t memory_limit,
                  const struct name_opener *opener, struct platter_disk **ret,
                  struct platter_error *err)
{
    struct platter_disk *disk = NULL;
    int r = disk_new(memory_limit, &disk, err);
    unsigned i = 0;
    for (; i < n && r == 0; i++) {
        struct image_setup setup = {.format = formats_of[i],
                                    .writable = writable && i == 0,
                                    .ordered = ordered,
                                    .budget = disk->budget,
                                    .opener = opener ? opener : &refuse};
        struct image *img;
        r = image_open(streams[i], &setup, &img, err);
        if (r == 0)
            r = disk_append(disk, img, err);
    }
    if (r < 0) {
        for (; i < n; i++)
            stream_close(streams[i]);
        if (disk)
            disk_close(disk, NULL);
        return r;
    }
    disk->writable = writable;
    note_base(disk);
    *ret = disk;
    return 0;
}

static int borrow(struct platter_disk *disk, struct image *const *images, unsigned n,
                  struct platter_error *err)
{
    struct image **chain = reallocarray(disk->chain, disk->depth + n, sizeof *chain);
    if (!chain)
        return fail_memory(err, "a chain of images");
    disk->chain = chain;
    memcpy(chain + disk->depth, images, n * sizeof *chain);
    disk->depth += n;
    disk->borrowed = disk->depth;
    note_base(disk);
    return 0;
}

int disk_borrow(const struct platter_disk *from, unsigned first, unsigned n,
                struct platter_disk **ret, struct platter_error *err)
{
    struct platter_disk *disk;
    int r = disk_new(budget_limit(from->budget), &disk, err);
    if (r < 0)
        return r;
    r = borrow(disk, from->chain + first, n, err);
    if (r < 0) {
        disk_close(disk, NULL);
        return r;
    }
    disk->writable = disk_top(disk)->writable;
    *ret = disk;
    return 0;
}

int disk_borrow_below(struct platter_disk *disk, const struct platter_disk *from,
                      struct platter_error *err)
{
    return borrow(disk, from->chain, from->depth, err);
}

int disk_stack(struct platter_disk *disk, struct platter_disk *backing, struct platter_error *err)
{
    int r = 0;
    unsigned i = 0;
    for (; i < backing->depth && r == 0; i++)
        r = disk_append(disk, backing->chain[i], err);
    for (; i < backing->depth; i++)
        image_free(backing->chain[i]);
    backing->depth = 0;
    disk_close(backing, NULL);
    note_base(disk);
    return r;
}

/* ---- closing --------------------------------------------------------------------------------- */

/* Flushes the top image, and lets the format of each that is open for writing mark it as closed;
 * their streams stay open. */
static int close_images(struct platter_disk *disk, struct platter_error *err)
{
    int r = disk->writable ? disk_flush(disk, err) : 0;
    for (unsigned i = disk->borrowed; i < disk->depth; i++) {
        struct image *img = disk->chain[i];
        if (i > 0 && !img->writable)
            continue;
        int c = img->format->close(img, r < 0 ? NULL : err);
        img->format = NULL;
        r = r < 0 ? r : c;
    }
    return r;
}

int disk_close(struct platter_disk *disk, struct platter_error *err)
{
    if (!disk)
        return 0;
    int r = disk->depth > 0 ? close_images(disk, err) : 0;
    for (unsigned i = disk->borrowed; i < disk->depth; i++)
        image_free(disk->chain[i]);
    free(disk->chain);
    unit_cache_free(disk->cache);
    budget_unref(disk->budget);
    range_lock_destroy(&disk->ranges);
    free(disk);
    return r;
}
