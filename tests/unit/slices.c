/* SPDX-License-Identifier: MIT */
/* The cache of table slices: it takes memory for what is read, finds everything again however it
 * grew, and lives with little memory. */
#include "unit.h"

#include <pthread.h>

#include "base/cursor.h"
#include "format/tables.h"
#include "support/buffer.h"
#include "support/must.h"

enum { TABLE = 512, TABLES = 1000, KIB = 1 << 10, MIB = 1 << 20, LIMIT = 16 * MIB };

/* A file of tables, each full of its number, from offset TABLE on. */
struct kit {
    struct buffer file;
    struct image img;
    pthread_cond_t changed;
    struct slices cache;
};

static void kit_open(struct kit *k, uint64_t limit, uint64_t share, bool writable)
{
    *k = (struct kit){.file = buffer_new((TABLES + 1) * TABLE), .img.writable = writable};
    k->file.size = k->file.capacity;
    for (unsigned i = 1; i <= TABLES; i++)
        for (unsigned at = 0; at < TABLE; at += 8)
            put_be(k->file.bytes + i * TABLE + at, 8, i);
    pthread_mutex_init(&k->img.lock, NULL);
    pthread_cond_init(&k->changed, NULL);
    assert_non_null(k->img.budget = budget_new(limit));
    assert_works(stream_buffer_open(&k->file, "tables", true, &k->img.stream, &err));
    assert_works(slices_init(&k->img, &k->cache, &k->changed, "L2 table", TABLE, share, &err));
}

static void kit_close(struct kit *k)
{
    slices_free(&k->img, &k->cache);
    assert_works(
        budget_take(k->img.budget, budget_limit(k->img.budget), "all", &err)); /* none was kept */
    budget_unref(k->img.budget);
    stream_close(k->img.stream);
    pthread_cond_destroy(&k->changed);
    pthread_mutex_destroy(&k->img.lock);
    buffer_free(&k->file);
}

/* How much of its budget a kit uses: the rest can be taken, and a byte more cannot. */
static uint64_t used(const struct kit *k)
{
    uint64_t all = budget_limit(k->img.budget), from = 0, to = all;
    while (from < to) {
        uint64_t middle = (from + to) / 2;
        if (budget_take(k->img.budget, all - middle, "what is left", NULL) == 0) {
            budget_give(k->img.budget, all - middle);
            to = middle;
        } else {
            from = middle + 1;
        }
    }
    return from;
}

/* What stands in table i, as the cache has it. */
static uint64_t look_at(struct kit *k, unsigned i)
{
    struct slice *slot;
    WITH_LOCK(&k->img.lock);
    assert_works(slices_get(&k->img, &k->cache, (hoff)i * TABLE, &slot, &err));
    assert_memory_equal(slot->bytes, slot->bytes + 8, TABLE - 8);
    return get_be(slot->bytes, 8);
}

static void assert_all_there(struct kit *k)
{
    for (unsigned i = 1; i <= TABLES; i++)
        assert_int_equal(look_at(k, i), i);
    for (unsigned i = TABLES; i >= 1; i--)
        assert_int_equal(look_at(k, i), i);
}

static void test_memory_follows_use(void **state)
{
    (void)state;
    struct kit k;
    kit_open(&k, LIMIT, LIMIT / 4, false);
    assert_in_range(used(&k), 1, KIB);
    look_at(&k, 1);
    look_at(&k, 2);
    assert_in_range(used(&k), 2 * TABLE, 8 * KIB);
    assert_all_there(&k);
    assert_in_range(used(&k), TABLES * TABLE, TABLES * TABLE * 3 / 2);
    assert_true(k.cache.n_buckets >= k.cache.n); /* and is found quickly */
    memset(k.file.bytes, 0, k.file.size);        /* all of it is in memory */
    assert_all_there(&k);
    kit_close(&k);
}

static void test_share_is_kept(void **state)
{
    (void)state;
    struct kit k;
    kit_open(&k, LIMIT, 100 * TABLE, false);
    assert_all_there(&k);
    assert_in_range(used(&k), 100 * TABLE, 120 * TABLE);
    kit_close(&k);
}

/* Others took the budget while the cache grew. */
static void test_little_memory(void **state)
{
    static const unsigned sizes[] = {4 * KIB, 40 * KIB, 80 * KIB, 200 * KIB};
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        struct kit k;
        kit_open(&k, sizes[i], MIB, false);
        assert_all_there(&k);
        kit_close(&k);
    }
}

/* Not even one slot: the sentence comes each time, and when there is memory again all is well. */
static void test_no_memory(void **state)
{
    (void)state;
    struct kit k;
    struct slice *slot;
    kit_open(&k, LIMIT, MIB, false);
    uint64_t left = LIMIT - used(&k);
    assert_works(budget_take(k.img.budget, left, "others", &err));
    pthread_mutex_lock(&k.img.lock);
    for (unsigned i = 0; i < 2; i++)
        assert_fails(slices_get(&k.img, &k.cache, TABLE, &slot, &err), ENOMEM, "raise the limit");
    pthread_mutex_unlock(&k.img.lock);
    budget_give(k.img.budget, left);
    assert_all_there(&k);
    kit_close(&k);
}

/* A writer needs its slots at once; what it changed stays until it is written. */
static void test_changes(void **state)
{
    (void)state;
    struct kit k;
    struct slice *slot;
    kit_open(&k, LIMIT, 200 * TABLE, true);
    uint64_t first = used(&k);
    assert_true(first >= 16 * TABLE);
    pthread_mutex_lock(&k.img.lock);
    for (unsigned i = 1; i <= TABLES; i++) {
        if (slices_full(&k.cache))
            assert_works(slices_write(&k.img, &k.cache, &err));
        if (i % 3 == 0) {
            assert_works(slices_new(&k.img, &k.cache, (hoff)i * TABLE, &err));
            continue;
        }
        assert_works(slices_get(&k.img, &k.cache, (hoff)i * TABLE, &slot, &err));
        memset(slot->bytes, 0xee, TABLE);
        slices_dirty(&k.cache, slot);
        for (unsigned other = 1; other <= 3; other++) /* others want slots as well */
            assert_works(
                slices_get(&k.img, &k.cache, i * other * 37 % TABLES * TABLE + TABLE, &slot, &err));
    }
    slices_forget(&k.img, &k.cache, (hoff)TABLES * TABLE);
    assert_works(slices_write(&k.img, &k.cache, &err));
    assert_int_equal(k.cache.n_dirty, 0);
    pthread_mutex_unlock(&k.img.lock);
    for (unsigned i = 1; i <= TABLES; i++) {
        uint64_t now = i == TABLES ? TABLES : i % 3 == 0 ? 0 : UINT64_C(0xeeeeeeeeeeeeeeee);
        assert_int_equal(look_at(&k, i), now);
        assert_int_equal(get_be(k.file.bytes + i * TABLE, 8), now);
    }
    kit_close(&k);
}

/* Others take the budget while most of what there is is dirty. */
static void test_changes_with_little_memory(void **state)
{
    (void)state;
    for (unsigned until = 10; until < TABLES; until *= 2) {
        struct kit k;
        struct slice *slot;
        kit_open(&k, LIMIT, LIMIT / 4, true);
        uint64_t left = 0;
        pthread_mutex_lock(&k.img.lock);
        for (unsigned i = 1; i <= TABLES; i++) {
            if (i == until) {
                left = LIMIT - used(&k);
                assert_works(budget_take(k.img.budget, left, "others", &err));
            }
            if (slices_full(&k.cache))
                assert_works(slices_write(&k.img, &k.cache, &err));
            assert_works(slices_get(&k.img, &k.cache, (hoff)i * TABLE, &slot, &err));
            memset(slot->bytes, 0xee, TABLE);
            slices_dirty(&k.cache, slot);
        }
        assert_works(slices_write(&k.img, &k.cache, &err));
        pthread_mutex_unlock(&k.img.lock);
        budget_give(k.img.budget, left);
        for (unsigned i = TABLE; i < (TABLES + 1) * TABLE; i++)
            assert_int_equal(k.file.bytes[i], 0xee);
        kit_close(&k);
    }
}

static void *read_all(void *context)
{
    struct kit *k = context;
    for (unsigned i = 0, at = 0; i < 4 * TABLES; i++, at = (at + 7 + i % 5) % TABLES) {
        struct slice *slot;
        pthread_mutex_lock(&k->img.lock);
        MUST(slices_get(&k->img, &k->cache, (at + 1) * (hoff)TABLE, &slot, NULL) == 0);
        MUST(get_be(slot->bytes, 8) == at + 1);
        pthread_mutex_unlock(&k->img.lock);
    }
    return NULL;
}

/* The cache grows while others wait for what they read into it. */
static void test_threads(void **state)
{
    static const unsigned shares[] = {17 * TABLE, 300 * TABLE, MIB};
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct kit k;
        pthread_t threads[4];
        kit_open(&k, LIMIT, shares[i], false);
        for (unsigned t = 0; t < 4; t++)
            MUST(pthread_create(&threads[t], NULL, read_all, &k) == 0);
        for (unsigned t = 0; t < 4; t++)
            pthread_join(threads[t], NULL);
        kit_close(&k);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_follows_use),
        cmocka_unit_test(test_share_is_kept),
        cmocka_unit_test(test_little_memory),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_changes),
        cmocka_unit_test(test_changes_with_little_memory),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
