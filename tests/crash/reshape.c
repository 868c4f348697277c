/* SPDX-License-Identifier: MIT */
/*
 * Cuts the power at every point of a resize, a commit and a rebase: after every prefix of what was
 * written, and random subsets of what was not flushed, the child opens over its parent and a guest
 * sees the disk it had, at the old size or the new one; and the work can be done again.
 *
 * reshape [case ...]
 */
#include "support/reshape.h"
#include "base/memory.h"
#include "support/log.h"
#include "support/must.h"
#include "support/seen.h"

enum { PUBLISHED = 1000 }; /* a mark in the log: this + file */

struct crash {
    struct reshape reshape;
    struct reshape_place place; /* where the logged run happens */
    struct buffer files[RESHAPE_FILES];
    struct write_log *log;
    int streams[RESHAPE_FILES]; /* of the log, by file; -1: none */
    int n_streams;
    struct log_state bytes[RESHAPE_FILES]; /* of the state at hand */
    struct seen seen;
    unsigned states, distinct;
};

static int wrap(struct reshape_place *place, enum reshape_file file, struct stream *base,
                struct stream **ret, struct platter_error *err)
{
    struct crash *c = place->opaque;
    MUST(c->streams[file] < 0); /* each is opened once */
    c->streams[file] = c->n_streams++;
    return stream_log_open(c->log, base, ret, err);
}

static void note_published(struct reshape_place *place, enum reshape_file file)
{
    struct crash *c = place->opaque;
    write_log_mark(c->log, PUBLISHED + (uint64_t)file);
}

/* Which files have their names after n entries. */
static void find_names(struct crash *c, size_t n, bool there[RESHAPE_FILES])
{
    for (int i = 0; i < RESHAPE_FILES; i++)
        there[i] = c->reshape.files[i].bytes != NULL;
    for (size_t i = 0; i < n; i++) {
        struct log_entry e = write_log_entry(c->log, i);
        if (e.kind == LOG_MARK)
            there[e.mark - PUBLISHED] = true;
    }
}

/* The files after n entries; seed 0: exactly. */
static void make_state(struct crash *c, size_t n, uint64_t seed, struct buffer *files)
{
    for (int i = 0; i < RESHAPE_FILES; i++) {
        files[i] = c->reshape.files[i];
        if (c->streams[i] < 0)
            continue;
        struct log_state *s = &c->bytes[i];
        if (seed)
            write_log_crash(c->log, (unsigned)c->streams[i], n, seed + (uint64_t)i, s);
        else
            write_log_prefix(c->log, (unsigned)c->streams[i], n, s);
        files[i] = (struct buffer){.bytes = s->bytes, .size = s->size};
    }
}

/* Whether this state was not there yet. */
static bool is_new(struct crash *c, const bool *there)
{
    uint64_t hash = 0;
    for (int i = 0; i < RESHAPE_FILES; i++) {
        hash = 2 * hash + there[i];
        if (c->streams[i] >= 0)
            hash = seen_hash(c->bytes[i].bytes, c->bytes[i].size, hash);
    }
    return seen_add(&c->seen, hash);
}

/* Does the work again on copies of a state. */
static bool do_again(struct crash *c, const struct buffer *files, const bool *there, char *why,
                     size_t why_size)
{
    struct buffer copies[RESHAPE_FILES];
    struct platter_error err = {0};
    struct reshape_place place = reshape_place_of(files, copies);
    memcpy(place.there, there, sizeof place.there);
    int r = reshape_run(&c->reshape, &place, &err);
    bool left_over = r == -EEXIST; /* a new file that nothing names: it is not written over */
    if (r < 0 && !left_over)
        snprintf(why, why_size, "doing it again: %.200s", err.message);
    bool good = left_over || (r == 0 && reshape_judge(&c->reshape, &place, true, why, why_size));
    for (int i = 0; i < RESHAPE_FILES; i++)
        buffer_free(&copies[i]);
    return good;
}

static int judge(struct crash *c, size_t n, uint64_t seed)
{
    char why[256] = "";
    struct buffer files[RESHAPE_FILES];
    struct reshape_place place = {.files = files};
    make_state(c, n, seed, files);
    find_names(c, n, place.there);
    c->states++;
    if (!is_new(c, place.there))
        return 0;
    bool good = reshape_judge(&c->reshape, &place, false, why, sizeof why);
    if (good && c->distinct++ % 4 == 0)
        good = do_again(c, files, place.there, why, sizeof why);
    if (!good)
        fprintf(stderr, "%s, after %zu log entries, subset %llu: %s\n", c->reshape.of->name, n,
                (unsigned long long)seed, why);
    return good ? 0 : -1;
}

/* What was said to be done is durable. */
static bool is_durable(struct crash *c, char *why, size_t why_size)
{
    for (unsigned i = 0; i < (unsigned)c->n_streams; i++)
        if (write_log_loose(c->log, i) > 0) {
            snprintf(why, why_size, "it is done, but not all of it is durable");
            return false;
        }
    return true;
}

static int run_case(const struct reshape_case *of)
{
    enum { STATES = 400 }; /* of each case, at least */
    struct crash c = {.reshape = reshape_make(of), .log = write_log_new()};
    struct platter_error err = {0};
    char why[256] = "";
    memset(c.streams, 0xff, sizeof c.streams);
    c.place = reshape_place_of(c.reshape.files, c.files);
    c.place.wrap = wrap;
    c.place.published = note_published;
    c.place.opaque = &c;
    int r = reshape_run(&c.reshape, &c.place, &err);
    if (r < 0)
        fprintf(stderr, "%s: %s\n", of->name, err.message);
    else if (!reshape_judge(&c.reshape, &c.place, true, why, sizeof why) ||
             !is_durable(&c, why, sizeof why))
        r = fprintf(stderr, "%s: %s\n", of->name, why) ? -1 : -1;
    size_t n = write_log_length(c.log);
    unsigned subsets = 4 + (unsigned)(STATES / (n + 1));
    for (size_t at = 0; at <= n && r == 0; at++)
        for (unsigned i = 0; i <= subsets && r == 0; i++)
            r = judge(&c, at, i * 100);
    printf("%-20s %5zu log entries, %6u states, %6u of them distinct%s\n", of->name, n, c.states,
           c.distinct, r ? ": FAILED" : "");
    fflush(stdout);
    write_log_free(c.log);
    seen_free(&c.seen);
    for (int i = 0; i < RESHAPE_FILES; i++) {
        buffer_free(&c.files[i]);
        log_state_free(&c.bytes[i]);
    }
    reshape_free(&c.reshape);
    return r;
}

int main(int argc, char **argv)
{
    return reshape_main(argc, argv, run_case);
}
