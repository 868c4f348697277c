/* SPDX-License-Identifier: MIT */
/* What names of disks say: see source.h. The document itself: source_spec.c. */
#include "disk/source.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk/disk.h"
#include "disk/source_spec.h"

/* ---- names -------------------------------------------------------------------------------------
 */

static int of_place(const char *name, const char *keys, struct source *ret,
                    struct platter_error *err)
{
    ret->input = strcmp(name, "-") == 0;
    return place_parse_with(name, keys, &ret->place, err);
}

int source_of(const char *name, const char *keys, struct source *ret, struct platter_error *err)
{
    *ret = (struct source){0};
    int r = place_is_spec(name) ? spec_parse(name, keys, ret, err) : of_place(name, keys, ret, err);
    if (r < 0)
        source_done(ret);
    return r;
}

void source_done(struct source *s)
{
    for (unsigned i = 0; i < s->n_states; i++) {
        free(s->states[i].name);
        place_done(&s->states[i].place);
    }
    free(TAKE(s->states));
    s->n_states = 0;
    free(TAKE(s->view));
    place_done(&s->place);
}

const char *source_name(const struct source *s)
{
    return s->input ? "standard input" : s->place.name;
}

/* ---- older states ------------------------------------------------------------------------------
 */

struct listed {
    struct stream_states states; /* first */
    struct stream_state *all;
    char **names; /* what the strings in `all` point to */
    struct stream **streams;
};

static int listed_open(struct stream *s, unsigned i, struct stream **ret, struct platter_error *err)
{
    (void)err;
    *ret = stream_share(s->states->streams[i]);
    return 0;
}

static void listed_close(struct stream_states *states)
{
    struct listed *l = (struct listed *)states;
    for (unsigned i = 0; i < states->n; i++) {
        stream_close(l->streams[i]);
        free(l->names[i]);
    }
    free(l->streams);
    free(l->names);
    free(l->all);
    free(l);
}

static int listed_add(struct listed *l, const struct source_state *state, struct platter_error *err)
{
    unsigned i = l->states.n;
    struct stream *s;
    int r = place_open(&state->place, 0, &s, err);
    if (r < 0)
        return fail_in(err, r, "snapshot \"%s\"", state->name);
    l->streams[i] = s;
    l->names[i] = string_copy(state->name);
    l->states.n++;
    if (!l->names[i])
        return fail_memory(err, "the name of a snapshot");
    l->all[i].id = l->all[i].name = l->names[i];
    if (s->sequential)
        return fail(err, ENOTSUP,
                    "snapshot \"%s\": %s can only be read front to back, and a snapshot is read "
                    "beside the others",
                    state->name, s->name);
    return stream_size(s, &l->all[i].size, err);
}

/* Opens all of them: what cannot be read is told before anything is copied. */
static int open_states(const struct source *source, struct stream *s, struct platter_error *err)
{
    if (source->n_states == 0)
        return 0;
    if (s->states)
        return fail(err, EINVAL, "%s: has snapshots of its own: a list of others cannot be given",
                    s->name);
    struct listed *l = calloc(1, sizeof *l);
    if (!l)
        return fail_memory(err, "a list of snapshots");
    l->all = calloc(source->n_states, sizeof *l->all);
    l->names = calloc(source->n_states, sizeof *l->names);
    l->streams = calloc(source->n_states, sizeof(struct stream *));
    l->states = (struct stream_states){
        .all = l->all, .streams = l->streams, .open = listed_open, .close = listed_close};
    s->states = &l->states; /* closed with it from here on */
    int r = l->all && l->names && l->streams ? 0 : fail_memory(err, "a list of snapshots");
    for (unsigned i = 0; r == 0 && i < source->n_states; i++)
        r = listed_add(l, &source->states[i], err);
    return r;
}

/* ---- opening -----------------------------------------------------------------------------------
 */

/* Standard input is a file like others where it is one and nothing of it was read. */
static int open_input(struct stream **ret, struct platter_error *err)
{
    struct stat st;
    if (fstat(STDIN_FILENO, &st) == 0 && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)) &&
        lseek(STDIN_FILENO, 0, SEEK_CUR) == 0 &&
        stream_file_open("/proc/self/fd/0", 0, ret, NULL) == 0) {
        char *name = string_copy("standard input");
        if (name) {
            free((*ret)->name);
            (*ret)->name = name;
        }
        return 0;
    }
    return stream_source_open("-", ret, err);
}

/* Whether a place is a local file that is read front to back: a pipe, or, with `any`, a tape, a
 * terminal and the like. */
static bool is_pipe(const struct place *p, bool any)
{
    struct stat st;
    if (p->kind != place_kind_find("file") || stat(p->name, &st) < 0)
        return false;
    return S_ISFIFO(st.st_mode) ||
           (any && !S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode) && !S_ISDIR(st.st_mode));
}

static int open_any(const struct source *s, unsigned flags, bool any, struct stream **ret,
                    struct platter_error *err)
{
    bool pipe = !s->input && !(flags & STREAM_FILE_WRITE) && is_pipe(&s->place, any);
    int r = s->input ? open_input(ret, err)
            : pipe   ? stream_source_open(s->place.name, ret, err)
                     : place_open(&s->place, flags, ret, err);
    if (r == 0 && (s->input || pipe))
        r = place_part(&s->place, *ret, ret, err);
    if (r == -ENOENT)
        stream_check_not_aside(s->place.name, err); /* it has more to say */
    if (r == -ENOENT && strncmp(s->place.name, "nbd:", 4) == 0 && s->place.name[4] != '/')
        fail_in(err, r,
                "an NBD server is nbd://HOST:PORT/EXPORT, or nbd+unix:///EXPORT?socket=PATH");
    return r;
}

int source_open(const struct source *s, unsigned flags, struct stream **ret,
                struct platter_error *err)
{
    if (flags & STREAM_FILE_WRITE && (s->input || s->n_states > 0))
        return fail(err, ENOTSUP, "%s: can only be read%s", source_name(s),
                    s->input ? "" : ", as it has a list of snapshots");
    int r = open_any(s, flags, false, ret, err);
    if (r < 0)
        return r;
    r = open_states(s, *ret, err);
    if (r < 0)
        stream_close(TAKE(*ret));
    return r;
}

int source_stream(const char *name, const char *keys, struct stream **ret,
                  struct platter_error *err)
{
    struct source s;
    int r = source_of(name, keys, &s, err);
    if (r < 0)
        return r;
    if (s.view || s.n_states)
        r = fail(err, EINVAL, "%s: one of its disks is named, where all of it is wanted",
                 source_name(&s));
    else if (s.spec && (s.qcow || (strcmp(s.format, "raw") != 0 && !format_has_disks(s.format))))
        r = fail(err, EINVAL, "%s: is said to be a %s image, and an archive is wanted",
                 source_name(&s), s.qcow ? "qcow" : s.format);
    else
        r = open_any(&s, 0, true, ret, err);
    source_done(&s);
    return r;
}
