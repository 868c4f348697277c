/* SPDX-License-Identifier: MIT */
/* Windows over what can only be read front to back. */
#include "unit.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/ckd.h"
#include "stream/inside.h"
#include "stream/window.h"

enum { BUDGET = 8 << 20, WINDOW = BUDGET / 2, LONG = 9 << 20, CHUNK = 100000 };

/* Byte number i says where it stands. */
static uint8_t byte_at(uint64_t i)
{
    return (uint8_t)(i * 7 + i / 256 * 13 + i / 65536);
}

/* A stream of `len` bytes that come in pieces of any length. */
struct drip {
    struct stream head;
    uint64_t at, len, fails_at; /* 0: never */
    uint64_t says;              /* its size; UINT64_MAX: it does not know */
    unsigned reads;
};

static int drip_read(struct stream *s, void *buf, size_t len, size_t *ret_len,
                     struct platter_error *err)
{
    struct drip *d = (struct drip *)s;
    uint64_t end = d->fails_at ? d->fails_at : d->len;
    size_t n = (size_t)min_u64(len, end - d->at);
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)buf)[i] = byte_at(d->at + i);
    d->at += n;
    d->reads++;
    *ret_len = n;
    return n < len && d->fails_at ? fail(err, EIO, "drip: it broke at %d", (int)d->at) : 0;
}

static int drip_size(struct stream *s, uint64_t *ret_size, struct platter_error *err)
{
    *ret_size = ((struct drip *)s)->says;
    return *ret_size == UINT64_MAX ? fail(err, ENOTSUP, "drip: has no size") : 0;
}

static const struct stream_ops drip_ops = {.name = "drip", .read = drip_read, .size = drip_size};

static struct stream *window_over(uint64_t len, uint64_t says, uint64_t fails_at)
{
    struct budget *budget = budget_new(BUDGET);
    struct stream *ret = NULL;
    struct drip *d = stream_new(sizeof *d, &drip_ops, "drip", NULL);
    assert_non_null(d);
    d->head.sequential = true;
    d->len = len;
    d->says = says;
    d->fails_at = fails_at;
    assert_works(stream_window_open(&d->head, budget, &ret, &err));
    budget_unref(budget);
    return ret;
}

static void assert_bytes(struct stream *s, uint64_t off, size_t len)
{
    auto_free uint8_t *got = calloc(1, len);
    assert_works(stream_pread(s, got, len, off, &err));
    for (size_t i = 0; i < len; i++)
        if (got[i] != byte_at(off + i))
            fail_msg("byte %zu is wrong", (size_t)off + i);
}

static uint64_t size_of(struct stream *s)
{
    uint64_t size = 0;
    assert_works(stream_size(s, &size, &err));
    return size;
}

/* What fits is read anywhere, and again. */
static void test_short(void **state)
{
    (void)state;
    static const uint64_t lengths[] = {0, 1, 262143, 262144, 262145, WINDOW - 1};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct stream *s = window_over(lengths[i], UINT64_MAX, 0);
        uint8_t byte;
        assert_true(s->window == 0);
        assert_true(size_of(s) == lengths[i]);
        for (int n = 0; n < 2 && lengths[i]; n++) {
            assert_bytes(s, lengths[i] / 2, (size_t)(lengths[i] - lengths[i] / 2));
            assert_bytes(s, 0, 1);
        }
        assert_fails(stream_pread(s, &byte, 1, lengths[i], &err), PLATTER_ECORRUPT, "ends at");
        stream_close(s);
    }
}

/* Longer: front to back, and the last WINDOW bytes; the size comes with the end. */
static void test_long(void **state)
{
    (void)state;
    struct stream *s = window_over(LONG, UINT64_MAX, 0);
    uint8_t byte;
    uint64_t size = 0;
    assert_true(s->window == WINDOW);
    assert_true(size_of(s) > (uint64_t)1 << 60);
    assert_bytes(s, 0, CHUNK); /* its beginning can be looked at first */
    assert_bytes(s, 64, CHUNK);
    for (uint64_t off = 0; off < LONG; off += CHUNK) {
        assert_works(stream_reach(s, off + CHUNK, &size, &err));
        assert_true((size == LONG) == (off + CHUNK > LONG));
        assert_bytes(s, off, (size_t)min_u64(CHUNK, LONG - off));
        if (off > CHUNK)
            assert_bytes(s, off - CHUNK, CHUNK); /* who is a little behind */
    }
    assert_true(size_of(s) == LONG);
    assert_bytes(s, LONG - WINDOW + (1 << 18), 1000);
    assert_fails(stream_pread(s, &byte, 1, 0, &err), ENOTSUP, "--spool");
    assert_fails(stream_pread(s, &byte, 1, LONG, &err), PLATTER_ECORRUPT, "ends at 9437184");
    stream_close(s);
}

static void test_known_size(void **state)
{
    (void)state;
    uint64_t size = 0;
    struct stream *s = window_over(LONG, LONG, 0);
    assert_true(size_of(s) == LONG && s->window == WINDOW);
    assert_works(stream_reach(s, 0, &size, &err));
    assert_true(size == LONG);
    stream_close(s);
    s = window_over(WINDOW, WINDOW, 0);
    assert_true(s->window == 0);
    assert_bytes(s, 0, WINDOW);
    assert_bytes(s, 0, 10);
    stream_close(s);
}

/* Less than was said is damage, not an end. */
static void test_cut_off(void **state)
{
    (void)state;
    struct stream *s = window_over(LONG - 5, LONG, 0);
    auto_free uint8_t *got = malloc(CHUNK);
    assert_bytes(s, LONG - 5 - CHUNK, CHUNK);
    assert_fails(stream_pread(s, got, 6, LONG - 6, &err), PLATTER_ECORRUPT, "cut off on its way");
    stream_close(s);
}

/* A failure stays one: what could not be read is not passed over. */
static void test_failure(void **state)
{
    (void)state;
    struct stream *s = window_over(LONG, UINT64_MAX, 5 << 20);
    uint8_t byte;
    uint64_t size;
    assert_bytes(s, (5 << 20) - 1000, 1000);
    for (int i = 0; i < 3; i++)
        assert_fails(stream_pread(s, &byte, 1, 5 << 20, &err), EIO, "it broke at 5242880");
    assert_fails(stream_reach(s, LONG, &size, &err), EIO, "it broke");
    assert_bytes(s, (5 << 20) - 1000, 1000);
    stream_close(s);
}

/* ---- side by side ------------------------------------------------------------------------------
 */

struct crew {
    struct stream *s;
    pthread_mutex_t lock;
    pthread_cond_t turned;
    unsigned next, turn;
    bool wrong;
};

static void *take_chunks(void *opaque)
{
    struct crew *c = opaque;
    auto_free uint8_t *got = malloc(CHUNK);
    pthread_mutex_lock(&c->lock);
    while ((uint64_t)c->next * CHUNK < LONG) {
        unsigned i = c->next++;
        uint64_t off = (uint64_t)i * CHUNK, n = min_u64(CHUNK, LONG - off);
        pthread_mutex_unlock(&c->lock);
        bool wrong = stream_pread(c->s, got, (size_t)n, off, NULL) < 0 || got[0] != byte_at(off) ||
                     got[n - 1] != byte_at(off + n - 1);
        pthread_mutex_lock(&c->lock);
        c->wrong |= wrong;
        while (c->turn != i) /* as workers of a walk wait for each other */
            pthread_cond_wait(&c->turned, &c->lock);
        c->turn++;
        pthread_cond_broadcast(&c->turned);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    struct crew crew = {.s = window_over(LONG, UINT64_MAX, 0),
                        .lock = PTHREAD_MUTEX_INITIALIZER,
                        .turned = PTHREAD_COND_INITIALIZER};
    pthread_t threads[8];
    for (int i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_chunks, &crew), 0);
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    assert_false(crew.wrong);
    stream_close(crew.s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_short),      cmocka_unit_test(test_long),
        cmocka_unit_test(test_known_size), cmocka_unit_test(test_cut_off),
        cmocka_unit_test(test_failure),    cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
