/* SPDX-License-Identifier: MIT */
/*
 * Cuts the power at every point of a repair. Whatever state that leaves, another repair must end
 * with an image that is clean, and that holds what the repair would have left undisturbed: which in
 * turn must be all that was good before.
 */
#include "base/memory.h"
#include "support/damage.h"
#include "support/imagecheck.h"
#include "support/log.h"
#include "support/must.h"
#include "support/seen.h"

enum { SUBSETS = 24, LEAST_GOOD = 4 * 65536 };

struct repair {
    const struct damage *of;
    uint8_t *before, *right,
        *content;  /* what the image held; what a repair leaves; what is there */
    uint64_t kept; /* snapshots and bitmaps that a repair leaves */
    struct log_state state;
    struct seen seen;
    unsigned states, distinct;
};

static int complain(const struct repair *t, size_t position, unsigned subset, const char *why)
{
    fprintf(stderr, "%s, after %zu log entries, subset %u: %s\n", t->of->name, position, subset,
            why);
    return -1;
}

/* Repairs what is in a buffer, through a log or not, and sees that it is clean then. */
static int repair(struct buffer *b, struct write_log *log, struct platter_error *err)
{
    struct platter_check_result result;
    struct stream *s;
    MUST(stream_buffer_open(b, "image", true, &s, NULL) == 0);
    MUST(!log || stream_log_open(log, s, &s, NULL) == 0);
    int r = damage_check(s, true, &result, err);
    if (r < 0)
        return r;
    MUST(stream_buffer_open(b, "image", false, &s, NULL) == 0);
    r = damage_check(s, false, &result, err);
    if (r == 0 && (result.corruptions || result.check_errors))
        r = fail(err, EIO, "a repair left %llu errors, %llu of what cannot be seen",
                 (unsigned long long)result.corruptions, (unsigned long long)result.check_errors);
    return r;
}

/* Our own checker, which knows nothing of the library. */
static int judge_structure(const struct repair *t, const struct buffer *b,
                           struct platter_error *err)
{
    struct image_report report = {0};
    if (t->of->base != DAMAGE_STREAM)
        image_check(damage_format(t->of->base), b->bytes, b->size, &report);
    return report.errors ? fail(err, EIO, "the checker: %s", report.first) : 0;
}

static int judge(struct repair *t, struct write_log *log, size_t position, unsigned subset)
{
    struct platter_error err = {0};
    if (subset)
        write_log_crash(log, 0, position, subset, &t->state);
    else
        write_log_prefix(log, 0, position, &t->state);
    t->states++;
    if (!seen_add(&t->seen, seen_hash(t->state.bytes, t->state.size, 0)))
        return 0;
    t->distinct++;
    struct buffer whole = {.bytes = t->state.bytes, .size = t->state.size};
    struct buffer b = buffer_copy(&whole, whole.size + (8 << 20));
    int r = repair(&b, NULL, &err);
    if (r == 0)
        r = judge_structure(t, &b, &err);
    if (r == 0)
        r = damage_read(&b, t->content, &err);
    if (r == 0 && memcmp(t->content, t->right, DAMAGE_SEEN) != 0)
        r = fail(&err, EIO, "other content than after an undisturbed repair");
    if (r == 0 && damage_kept(&b) != t->kept)
        r = fail(&err, EIO, "other snapshots or bitmaps than after an undisturbed repair");
    buffer_free(&b);
    return r < 0 ? complain(t, position, subset, err.message) : 0;
}

/* How many sectors that held something still hold it. */
static unsigned good_bytes(const struct repair *t)
{
    unsigned n = 0;
    for (unsigned at = 0; at < DAMAGE_SEEN; at += 512)
        if (!is_zero(t->before + at, 512) && memcmp(t->before + at, t->right + at, 512) == 0)
            n += 512;
    return n;
}

static int run(struct repair *t, const struct buffer *base)
{
    struct platter_error err = {0};
    struct write_log *log = write_log_new();
    struct buffer b = damage_make(base, t->of);
    MUST(log && damage_read((struct buffer *)base, t->before, NULL) == 0);
    int r = repair(&b, log, &err);
    if (r == 0)
        r = damage_read(&b, t->right, &err);
    t->kept = damage_kept(&b);
    if (r == 0 && good_bytes(t) < LEAST_GOOD)
        r = fail(&err, EIO, "only %u bytes are left", good_bytes(t));
    if (r == 0 && write_log_loose(log, 0) > 0)
        r = fail(&err, EIO, "what was said to be mended is not durable");
    if (r < 0)
        complain(t, 0, 0, err.message);
    size_t n = write_log_length(log);
    for (size_t position = 0; position <= n && r == 0; position++)
        for (unsigned subset = 0; subset <= SUBSETS && r == 0; subset++)
            r = judge(t, log, position, subset);
    buffer_free(&b);
    write_log_free(log);
    seen_free(&t->seen);
    printf("%-20s %6zu log entries, %6u states, %6u of them distinct%s\n", t->of->name, n,
           t->states, t->distinct, r ? ": FAILED" : "");
    return r;
}

int main(int argc, char **argv)
{
    struct buffer bases[DAMAGE_BASES];
    struct repair t = {.before = malloc(DAMAGE_SEEN),
                       .right = malloc(DAMAGE_SEEN),
                       .content = malloc(DAMAGE_SEEN)};
    int failed = 0, ran = 0;
    MUST(t.before && t.right && t.content);
    for (unsigned i = 0; i < DAMAGE_BASES; i++)
        bases[i] = damage_base((enum damage_base)i);
    while ((t.of = damage_next(t.of))) {
        if (argc > 1 && strcmp(argv[1], t.of->name) != 0)
            continue;
        t.states = t.distinct = 0;
        failed |= run(&t, &bases[t.of->base]);
        ran++;
    }
    for (unsigned i = 0; i < DAMAGE_BASES; i++)
        buffer_free(&bases[i]);
    free(t.before);
    free(t.right);
    free(t.content);
    log_state_free(&t.state);
    return failed != 0 || ran == 0;
}
