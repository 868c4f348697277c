/* SPDX-License-Identifier: MIT */
/* platter snapshot state: what a machine had in memory goes out of a snapshot, or into a new one.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"

enum { STATE_PIECE = 1 << 20 }; /* bytes that are moved at once */

static bool is_stdio(const char *file)
{
    return strcmp(file, "-") == 0;
}

/* A state on its way from or to a file. */
struct transfer {
    const char *file;
    struct platter_disk *disk;
    uint8_t *buffer; /* STATE_PIECE bytes */
    FILE *stream;
    struct progress progress;
    struct platter_error err;
};

/* Fails in the words of errno; of a stream it has no name to say. */
static int transfer_fail(struct transfer *t)
{
    t->err.code = errno ? errno : EIO;
    snprintf(t->err.message, sizeof t->err.message, "%s: %s",
             is_stdio(t->file) ? "standard stream" : t->file, strerror(t->err.code));
    return -t->err.code;
}

/* Non-zero when a signal came. */
static int transfer_tick(struct transfer *t, uint64_t done, uint64_t total)
{
    struct platter_progress now = {.size = sizeof now, .done = done, .total = total, .moved = done};
    if (!progress_tick(&t->progress, &now))
        return 0;
    t->err.code = ECANCELED;
    return -ECANCELED;
}

static int transfer_open(struct transfer *t, const char *mode, FILE *standard)
{
    t->buffer = malloc(STATE_PIECE);
    if (t->buffer)
        t->stream = is_stdio(t->file) ? standard : fopen(t->file, mode);
    return t->stream ? 0 : transfer_fail(t);
}

static bool is_regular(FILE *stream)
{
    struct stat s;
    return fstat(fileno(stream), &s) == 0 && S_ISREG(s.st_mode);
}

/* Closes the file; one that was written is complete and durable, or gone. */
static int transfer_close(struct transfer *t, bool writing, int r)
{
    free(t->buffer);
    if (!t->stream)
        return r;
    bool regular = writing && is_regular(t->stream);
    bool lost = writing && (fflush(t->stream) || (regular && fsync(fileno(t->stream))));
    if (r == 0 && lost)
        r = transfer_fail(t);
    if (!is_stdio(t->file) && fclose(t->stream) && r == 0 && writing)
        r = transfer_fail(t);
    if (r && regular && !is_stdio(t->file))
        remove(t->file);
    return r;
}

static int copy_out(struct transfer *t)
{
    uint64_t size = 0;
    int r = platter_vm_state_size(t->disk, &size, &t->err);
    for (uint64_t at = 0, n; r == 0 && at < size; at += n) {
        n = size - at < STATE_PIECE ? size - at : STATE_PIECE;
        r = transfer_tick(t, at, size);
        if (r == 0)
            r = platter_vm_state_read(t->disk, t->buffer, n, at, &t->err);
        if (r == 0 && fwrite(t->buffer, 1, n, t->stream) != n)
            r = transfer_fail(t);
    }
    return r;
}

static int export_run(const struct args *args, const char *image, const char *view)
{
    struct transfer t = {.file = args->export_file};
    if (view_open(args, image, view, PLATTER_OPEN_NO_BACKING, &t.disk))
        return EXIT_FAILED;
    progress_start(&t.progress, args, is_stdio(t.file));
    int r = transfer_open(&t, "wb", stdout);
    if (r == 0)
        r = copy_out(&t);
    r = transfer_close(&t, true, r);
    platter_close(t.disk, NULL);
    return snapshot_end(&t.progress, r, &t.err);
}

/* Reads all of a file into the state area; *ret_size is how much that was. */
static int copy_in(struct transfer *t, uint64_t *ret_size)
{
    struct stat s = {0};
    uint64_t total = fstat(fileno(t->stream), &s) == 0 ? (uint64_t)s.st_size : 0;
    size_t n;
    *ret_size = 0;
    while ((n = fread(t->buffer, 1, STATE_PIECE, t->stream)) > 0) {
        int r = platter_vm_state_write(t->disk, t->buffer, n, *ret_size, &t->err);
        *ret_size += n;
        if (r == 0)
            r = transfer_tick(t, *ret_size, total > *ret_size ? total : *ret_size);
        if (r)
            return r;
    }
    return ferror(t->stream) ? transfer_fail(t) : 0;
}

/* Whether a name or id is taken: before a long state is read, for that is found out again. */
static bool is_taken(struct platter_disk *disk, const char *key, const char *value)
{
    char *text = NULL;
    const json_t *view;
    size_t i;
    bool taken = false;
    json_t *list = value && !platter_views(disk, &text, NULL) ? json_loads(text, 0, NULL) : NULL;
    json_array_foreach (list, i, view) {
        const char *is = json_string_value(json_object_get(view, key));
        taken |= is && strcmp(is, value) == 0;
    }
    json_decref(list);
    platter_free(text);
    return taken;
}

/* What was taken for the state of a snapshot that is not going to be is given back. */
static int import_state(struct transfer *t, const struct args *args, const char *name)
{
    struct platter_snapshot_options options = {.size = sizeof options,
                                               .flags = PLATTER_SNAPSHOT_UNIQUE,
                                               .name = name,
                                               .id = args->id,
                                               .progress = progress_tick,
                                               .opaque = &t->progress};
    int r = 0;
    if (!is_taken(t->disk, "name", name) && !is_taken(t->disk, "id", args->id)) {
        /* What an applied snapshot, or one that was not finished, left there is not its own. */
        r = platter_vm_state_drop(t->disk, &t->err);
        if (r == 0)
            r = copy_in(t, &options.vm_state_size);
    }
    if (r == 0)
        r = platter_snapshot_create(t->disk, &options, NULL, &t->err);
    if (r && options.vm_state_size)
        platter_vm_state_drop(t->disk, NULL);
    return r;
}

static int import_run(const struct args *args, const char *image, const char *name)
{
    struct transfer t = {.file = args->import_file};
    progress_start(&t.progress, args, false);
    int r = transfer_open(&t, "rb", stdin);
    bool opened = r == 0 && image_open(args, image, args->format,
                                       PLATTER_OPEN_WRITE | PLATTER_OPEN_NO_BACKING, &t.disk) == 0;
    if (opened)
        r = import_state(&t, args, name);
    int e = platter_close(t.disk, r ? NULL : &t.err);
    r = transfer_close(&t, false, r ? r : e);
    return r || opened ? snapshot_end(&t.progress, r, &t.err) : EXIT_FAILED;
}

int snapshot_state(const struct args *args, const char *image, const char *name)
{
    return args->export_file ? export_run(args, image, name) : import_run(args, image, name);
}
