/* SPDX-License-Identifier: MIT */
/*
 * Makes call after call of a repair fail: those of the file, then those for memory. The repair says
 * so, nothing leaks, and another one afterwards ends with what the first would have left. A check
 * that only looks never takes a failure for health.
 */
#include "base/memory.h"
#include "support/alloc.h"
#include "support/damage.h"
#include "support/fault.h"
#include "support/must.h"
#include "support/seen.h"

enum { MAX_RUNS = 1 << 16, ROOM_OF_DEVICE = 256 << 10 };

struct repair {
    const struct damage *of;
    struct buffer broken;
    uint8_t *right, *content;
    struct seen seen; /* what failures left */
};

static int complain(const struct repair *t, const char *what, uint64_t at, const char *why)
{
    fprintf(stderr, "%s, %s, number %llu: %s\n", t->of->name, what, (unsigned long long)at, why);
    return -1;
}

static int check(struct buffer *b, struct fault_plan *plan, bool mend,
                 struct platter_check_result *ret, struct platter_error *err)
{
    struct stream *s;
    MUST(stream_buffer_open(b, "image", mend, &s, NULL) == 0);
    if (plan && stream_fault_open(s, plan, &s, err) != 0)
        return -ENOMEM;
    return damage_check(s, mend, ret, err);
}

/* What a failure left can be repaired, and is what it should be then. */
static int judge(struct repair *t, struct buffer *b, const char *what, uint64_t at)
{
    struct platter_check_result result;
    struct platter_error err = {0};
    if (!seen_add(&t->seen, seen_hash(b->bytes, b->size, 0)))
        return 0;
    int r = check(b, NULL, true, &result, &err);
    if (r == 0)
        r = check(b, NULL, false, &result, &err);
    if (r == 0 && (result.corruptions || result.check_errors))
        r = fail(&err, EIO, "it cannot be repaired any more");
    if (r == 0)
        r = damage_read(b, t->content, &err);
    if (r == 0 && memcmp(t->content, t->right, DAMAGE_SEEN) != 0)
        r = fail(&err, EIO, "other content than after an undisturbed repair");
    return r < 0 ? complain(t, what, at, err.message) : 0;
}

static bool unchanged(const struct repair *t, const struct buffer *b)
{
    return b->size == t->broken.size && memcmp(b->bytes, t->broken.bytes, b->size) == 0;
}

static int calls_fail(struct repair *t, bool mend, const char *what)
{
    for (uint64_t at = 1; at < MAX_RUNS; at++) {
        struct fault_plan plan = {
            .kinds = FAULT_ALL & ~(unsigned)FAULT_LOCK, .at = at, .torn = at % 2, .code = EIO};
        struct platter_check_result result = {0};
        struct platter_error err = {0};
        struct buffer b = buffer_copy(&t->broken, t->broken.size + (8 << 20));
        int r = check(&b, &plan, mend, &result, &err), bad = 0;
        bool struck = atomic_load(&plan.failed) > 0;
        if (r < 0 && !err.message[0])
            bad = complain(t, what, at, "failed without a word");
        if (r == 0 && !mend && !result.corruptions && !result.leaks && !result.check_errors)
            bad = complain(t, what, at, "found nothing");
        if (!mend && !unchanged(t, &b))
            bad = complain(t, what, at, "changed what it looked at");
        if (bad == 0)
            bad = judge(t, &b, what, at);
        buffer_free(&b);
        if (bad || !struck)
            return bad;
    }
    return complain(t, what, MAX_RUNS, "never ends");
}

static int memory_fails(struct repair *t)
{
    for (uint64_t at = 1; at < MAX_RUNS; at++) {
        struct platter_check_result result = {0};
        struct platter_error err = {0};
        struct buffer b = buffer_copy(&t->broken, t->broken.size + (8 << 20));
        struct stream *s;
        MUST(stream_buffer_open(&b, "image", true, &s, NULL) == 0);
        alloc_fail_at(at, false);
        int r = damage_check(s, true, &result, &err), bad = 0;
        bool struck = alloc_failed() > 0;
        alloc_fail_at(0, false);
        if (r < 0 && !err.message[0])
            bad = complain(t, "allocation", at, "failed without a word");
        if (bad == 0)
            bad = judge(t, &b, "allocation", at);
        buffer_free(&b);
        if (bad || !struck)
            return bad;
    }
    return complain(t, "allocation", MAX_RUNS, "never ends");
}

/* A device that is larger than the image on it, and cannot grow. */
static int stays_inside(struct repair *t)
{
    struct platter_check_result result = {0};
    struct platter_error err = {0};
    struct buffer b = buffer_copy(&t->broken, t->broken.size + ROOM_OF_DEVICE);
    b.size = b.capacity;
    int r = check(&b, NULL, true, &result, &err), bad = 0;
    if (r < 0)
        bad = complain(t, "a device", 0, err.message);
    if (bad == 0)
        bad = judge(t, &b, "a device", 0);
    buffer_free(&b);
    return bad;
}

static int run(struct repair *t, const struct buffer *base)
{
    struct platter_check_result result;
    t->broken = damage_make(base, t->of);
    struct buffer b = buffer_copy(&t->broken, t->broken.size + (8 << 20));
    MUST(check(&b, NULL, true, &result, NULL) == 0 && damage_read(&b, t->right, NULL) == 0);
    int r = calls_fail(t, true, "repair");
    if (r == 0)
        r = calls_fail(t, false, "check");
    if (r == 0)
        r = memory_fails(t);
    if (r == 0 && t->of->base == DAMAGE_QCOW2)
        r = stays_inside(t);
    printf("%-20s %5zu distinct ends: %s\n", t->of->name, t->seen.n, r ? "FAILED" : "ok");
    seen_free(&t->seen);
    buffer_free(&b);
    buffer_free(&t->broken);
    return r;
}

int main(int argc, char **argv)
{
    struct buffer bases[DAMAGE_BASES];
    struct repair t = {.right = malloc(DAMAGE_SEEN), .content = malloc(DAMAGE_SEEN)};
    int failed = 0, ran = 0;
    MUST(t.right && t.content);
    for (unsigned i = 0; i < DAMAGE_BASES; i++)
        bases[i] = damage_base((enum damage_base)i);
    while ((t.of = damage_next(t.of)))
        if (argc < 2 || strcmp(argv[1], t.of->name) == 0) {
            failed |= run(&t, &bases[t.of->base]);
            ran++;
        }
    for (unsigned i = 0; i < DAMAGE_BASES; i++)
        buffer_free(&bases[i]);
    free(t.right);
    free(t.content);
    return failed != 0 || ran == 0;
}
