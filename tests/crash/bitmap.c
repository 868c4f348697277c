/* SPDX-License-Identifier: MIT */
/*
 * Dirty bitmaps beside a model of them, and what the power failing leaves of them: after each
 * prefix of the log, and in random subsets of what was not flushed, each is in use, or as it was
 * stored and right about all that changed. The image as a whole has leaks at worst.
 *
 * crash-bitmap STEPS STATES [seed]; without states it is the model alone, for longer
 */
#include "base/memory.h"
#include "support/damage.h"
#include "support/dirty.h"
#include "support/must.h"
#include "support/process.h"

enum { MAX_SESSIONS = 256 };

struct run {
    struct dirty dirty;
    struct buffer file;
    struct write_log *log;
    struct log_state state;
    unsigned cluster, states, judged;
    size_t began[MAX_SESSIONS]; /* positions of the log: each open is a stream of its own */
    unsigned sessions;
    uint64_t seed;
};

static int complain(const struct run *r, const char *what, const char *why)
{
    fprintf(stderr, "clusters of %u, seed %llu: %s: %s\n", r->cluster, (unsigned long long)r->seed,
            what, why);
    return -1;
}

static int open_again(struct run *r, struct platter_error *err)
{
    struct stream *s;
    MUST(stream_buffer_open(&r->file, "image", true, &s, NULL) == 0);
    if (r->states) {
        MUST(r->sessions < MAX_SESSIONS);
        r->began[r->sessions++] = write_log_length(r->log);
        MUST(stream_log_open(r->log, s, &s, NULL) == 0);
    }
    return dirty_open(&r->dirty, s, err);
}

/* Steps, and a close and a look every now and then. */
static int workload(struct run *r, unsigned steps)
{
    struct platter_error err = {0};
    char why[256];

    int e = open_again(r, &err);
    for (unsigned i = 1; e == 0 && i <= steps; i++) {
        e = dirty_step(&r->dirty, &err);
        if (e < 0 || (i % 16 && i < steps))
            continue;
        e = dirty_close(&r->dirty, &err);
        if (e == 0 && !dirty_matches(&r->dirty, &r->file, why, sizeof why))
            return complain(r, "after a close", why);
        if (e == 0 && i < steps)
            e = open_again(r, &err);
    }
    return e < 0 ? complain(r, "the workload", err.message) : 0;
}

static int check_whole(const struct run *r, struct buffer *file, bool ask_qemu)
{
    struct platter_check_result result = {0};
    struct platter_error err = {0};
    auto_free char *path = scratch_path("state");
    struct stream *s;

    MUST(stream_buffer_open(file, "image", false, &s, NULL) == 0);
    if (damage_check(s, false, &result, &err) < 0)
        return complain(r, "the check", err.message);
    if (result.corruptions || result.check_errors)
        return complain(r, "the check", "finds errors");
    if (!ask_qemu)
        return 0;
    buffer_save(file, path);
    return run_command(3, "qemu-img check -q -f qcow2 '%s'", path) % 3
               ? complain(r, "qemu-img check", "is not content")
               : 0;
}

/* A write after the crash: what is in use stays so, what is valid goes on recording. */
static int go_on(const struct run *r, const struct buffer *state)
{
    struct buffer file = buffer_copy(state, state->size + (4 << 20));
    struct platter_error err = {0};
    const uint8_t bytes[512] = {1};
    struct dirty after;
    struct stream *s;
    MUST(stream_buffer_open(&file, "image", true, &s, NULL) == 0);
    dirty_init(&after, 0);
    int e = dirty_open(&after, s, &err);
    if (e == 0) {
        e = disk_write(after.disk, bytes, sizeof bytes, 0, &err);
        int c = disk_close(after.disk, e < 0 ? NULL : &err);
        e = e < 0 ? e : c;
    }
    e = e < 0 ? complain(r, "going on", err.message) : check_whole(r, &file, false);
    dirty_free(&after);
    buffer_free(&file);
    return e;
}

static int judge(struct run *r, size_t position, bool subset)
{
    char why[256] = "";
    unsigned session = r->sessions - 1;
    while (r->began[session] > position)
        session--;
    if (subset)
        write_log_crash(r->log, session, position, r->seed + r->judged, &r->state);
    else
        write_log_prefix(r->log, session, position, &r->state);
    struct buffer file = {.bytes = r->state.bytes, .size = r->state.size};
    int e = 0;
    if (!dirty_allows(&r->dirty, &file, position, why, sizeof why)) {
        fprintf(stderr, "after %zu log entries%s\n", position, subset ? ", a subset" : "");
        e = complain(r, "after a crash", why);
    }
    if (e == 0 && r->judged % 8 == 0)
        e = check_whole(r, &file, r->judged % 128 == 0);
    if (e == 0 && r->judged % 8 == 4)
        e = go_on(r, &file);
    r->judged++;
    return e;
}

static int judge_all(struct run *r)
{
    size_t n = write_log_length(r->log), step = 1 + 2 * n / r->states;
    int e = 0;
    for (size_t position = 0; e == 0 && position <= n; position += step) {
        e = judge(r, position, false);
        if (e == 0)
            e = judge(r, position, true);
    }
    return e;
}

static int run_one(unsigned cluster, unsigned steps, unsigned states, uint64_t seed)
{
    struct run r = {.cluster = cluster, .states = states, .seed = seed};
    r.file = dirty_image(cluster);
    r.log = write_log_new();
    dirty_init(&r.dirty, seed);
    r.dirty.log = states ? r.log : NULL;
    int e = workload(&r, steps);
    if (e == 0)
        e = check_whole(&r, &r.file, true);
    if (e == 0 && states)
        e = judge_all(&r);
    printf("clusters of %7u: %5zu log entries, %4u stores, %5u states%s\n", cluster,
           write_log_length(r.log), r.dirty.n_stored - 1, r.judged, e ? ": FAILED" : "");
    dirty_free(&r.dirty);
    buffer_free(&r.file);
    log_state_free(&r.state);
    write_log_free(r.log);
    return e;
}

int main(int argc, char **argv)
{
    static const unsigned clusters[] = {512, 4096, 65536};
    unsigned steps = argc > 1 ? (unsigned)atoi(argv[1]) : 100;
    unsigned states = argc > 2 ? (unsigned)atoi(argv[2]) : 500;
    uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 0) : 1;
    int failed = 0;
    for (int i = 0; i < 3; i++)
        failed |= run_one(clusters[i], steps, states, seed);
    return failed != 0;
}
