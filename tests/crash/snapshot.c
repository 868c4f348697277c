/* SPDX-License-Identifier: MIT */
/*
 * Cuts the power at every point of making, applying and deleting a snapshot, of giving up parts of
 * a disk that has some, and of the writes that follow: after every prefix of what was written, and
 * random subsets of what was not flushed, the disk is the old one or the new one, every snapshot
 * holds what it held, and space is leaked at worst; and the image can be worked on.
 *
 * snapshot [specimen ...]
 */
#include "base/memory.h"
#include "support/log.h"
#include "support/must.h"
#include "support/seen.h"
#include "support/snapshots.h"

enum { SUBSETS = 50 }; /* at each barrier, where most is not flushed yet; 1 anywhere else */

struct crash {
    struct snapshot_case of;
    struct write_log *log;
    struct log_state state;
    struct seen seen; /* states at their stages */
    size_t done;      /* entries when the change had returned */
    unsigned states, distinct;
};

static void note_done(void *opaque)
{
    struct crash *c = opaque;
    c->done = write_log_length(c->log);
}

static int judge(struct crash *c, size_t n, uint64_t seed)
{
    char why[512] = "";
    enum change_stage stage = n < c->done ? CHANGE_BEGUN : CHANGE_DONE;
    if (seed)
        write_log_crash(c->log, 0, n, seed, &c->state);
    else
        write_log_prefix(c->log, 0, n, &c->state);
    c->states++;
    if (!seen_add(&c->seen, seen_hash(c->state.bytes, c->state.size, stage)))
        return 0;
    struct buffer image = {.bytes = c->state.bytes, .size = c->state.size};
    bool good = snapshot_case_judge(&c->of, &image, stage, why, sizeof why);
    if (good && c->distinct++ % 16 == 0)
        good = snapshot_case_go_on(&c->of, &image, why, sizeof why);
    if (!good)
        fprintf(stderr, "%s, %s, after %zu log entries of %zu, subset %llu: %s\n",
                c->of.specimen.spec->name, change_names[c->of.change], n, c->done,
                (unsigned long long)seed, why);
    return good ? 0 : -1;
}

static int run(struct crash *c, struct buffer *file)
{
    struct platter_error err = {0};
    struct stream *top;
    char why[512] = "";
    MUST(stream_buffer_open(file, "top", true, &top, NULL) == 0);
    MUST(stream_log_open(c->log, top, &top, NULL) == 0);
    int r = snapshot_case_run(&c->of, top, note_done, c, &err);
    if (c->of.overflows)
        r = r == -EOVERFLOW ? 0 : fail(&err, EIO, "it should not fit: %d", r);
    enum change_stage stage = c->of.overflows ? CHANGE_REFUSED : CHANGE_CLOSED;
    if (r == 0 && !snapshot_case_judge(&c->of, file, stage, why, sizeof why))
        r = fail(&err, EIO, "%s", why);
    if (r < 0)
        fprintf(stderr, "%s, %s: %s\n", c->of.specimen.spec->name, change_names[c->of.change],
                err.message);
    return r;
}

static int run_case(const struct specimen_spec *spec, enum change change)
{
    struct crash c = {.log = write_log_new(), .done = SIZE_MAX};
    if (!snapshot_case_make(spec, change, &c.of)) {
        write_log_free(c.log);
        return 0;
    }
    struct buffer file = buffer_copy(&c.of.before, c.of.before.capacity);
    int r = run(&c, &file);
    size_t n = write_log_length(c.log);
    for (size_t at = 0; at <= n && r == 0; at++) {
        bool barrier = at == n || write_log_entry(c.log, at).kind == LOG_FLUSH;
        for (unsigned i = 0; i <= (barrier ? SUBSETS : 1) && r == 0; i++)
            r = judge(&c, at, i * 100);
    }
    printf("%-28s %-8s %5zu log entries, %6u states, %6u of them distinct%s\n", spec->name,
           change_names[change], n, c.states, c.distinct, r ? ": FAILED" : "");
    fflush(stdout);
    write_log_free(c.log);
    log_state_free(&c.state);
    seen_free(&c.seen);
    buffer_free(&file);
    snapshot_case_free(&c.of);
    return r;
}

int main(int argc, char **argv)
{
    return snapshot_case_main(argc, argv, run_case);
}
