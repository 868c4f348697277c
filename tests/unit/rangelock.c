/* SPDX-License-Identifier: MIT */
/* Range locks: exclusion under load, sharing, and order of arrival. */
#include "unit.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/rangelock.h"
#include "support/prng.h"

enum { CELLS = 64, THREADS = 8, ROUNDS = 3000, WRITING = 1000 };

static struct range_lock lock;
static atomic_int cells[CELLS]; /* how many read it; WRITING while somebody writes */
static atomic_bool broken;

static void visit(uint64_t start, uint64_t end, bool exclusive)
{
    struct range_hold hold;
    range_lock_take(&lock, &hold, start, end, exclusive);
    for (uint64_t i = start; i < end; i++) {
        int before = atomic_fetch_add(&cells[i], exclusive ? WRITING : 1);
        if (exclusive ? before != 0 : before >= WRITING)
            atomic_store(&broken, true);
    }
    for (uint64_t i = start; i < end; i++)
        atomic_fetch_sub(&cells[i], exclusive ? WRITING : 1);
    range_lock_give(&lock, &hold);
}

static void *visitor(void *seed)
{
    struct prng p = {.state = (uintptr_t)seed};
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t start = prng_below(&p, CELLS);
        visit(start, start + 1 + prng_below(&p, CELLS - start), prng_chance(&p, 40));
    }
    return NULL;
}

static void test_exclusion(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, visitor, (void *)(i + 1)), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_false(atomic_load(&broken));
}

struct waiter {
    uint64_t start, end;
    bool exclusive;
    atomic_bool has;
};

static void *wait_for_range(void *opaque)
{
    struct waiter *w = opaque;
    struct range_hold hold;
    range_lock_take(&lock, &hold, w->start, w->end, w->exclusive);
    atomic_store(&w->has, true);
    range_lock_give(&lock, &hold);
    return NULL;
}

/* How many holds are listed, waiting ones included. */
static unsigned listed(void)
{
    unsigned n = 0;
    pthread_mutex_lock(&lock.mutex);
    for (const struct range_hold *h = lock.first; h; h = h->next)
        n++;
    pthread_mutex_unlock(&lock.mutex);
    return n;
}

static void test_readers_share_and_neighbours_pass(void **state)
{
    (void)state;
    struct range_hold a, b, c;
    range_lock_take(&lock, &a, 0, 10, false);
    range_lock_take(&lock, &b, 5, 15, false);
    range_lock_take(&lock, &c, 15, 20, true);
    assert_int_equal(listed(), 3);
    range_lock_give(&lock, &b);
    range_lock_give(&lock, &a);
    range_lock_give(&lock, &c);
    assert_int_equal(listed(), 0);
}

/* A reader that came after a waiting writer does not overtake it. */
static void test_order_of_arrival(void **state)
{
    (void)state;
    struct range_hold first;
    struct waiter writer = {.start = 0, .end = 10, .exclusive = true};
    struct waiter reader = {.start = 5, .end = 6};
    pthread_t threads[2];
    range_lock_take(&lock, &first, 0, 20, false);
    pthread_create(&threads[0], NULL, wait_for_range, &writer);
    while (listed() < 2)
        usleep(100);
    pthread_create(&threads[1], NULL, wait_for_range, &reader);
    while (listed() < 3)
        usleep(100);
    usleep(2000);
    assert_false(atomic_load(&writer.has));
    assert_false(atomic_load(&reader.has));
    range_lock_give(&lock, &first);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    assert_true(atomic_load(&writer.has) && atomic_load(&reader.has));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exclusion),
        cmocka_unit_test(test_readers_share_and_neighbours_pass),
        cmocka_unit_test(test_order_of_arrival),
    };
    range_lock_init(&lock);
    int r = cmocka_run_group_tests(tests, NULL, NULL);
    range_lock_destroy(&lock);
    return r;
}
