/* SPDX-License-Identifier: MIT */
/* Compressed files that are read anywhere: what several threads read at random equals what was
 * packed, whatever packed it; and damage is an error, never other bytes. */
#include "unit.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "stream/wrapper.h"
#include "support/buffer.h"
#include "support/fault.h"
#include "support/prng.h"
#include "support/process.h"
#include "unpacked_samples.h"

enum { BUDGET = 32 << 20, THREADS = 4, READS = 20, MOST_READ = 200000 };

/* ---- reading ----------------------------------------------------------------------------------
 */

/* Opens what a buffer holds, with a folder for a copy if `spool`. */
static int open_buffer(struct buffer *b, bool spool, bool query, uint64_t limit,
                       struct stream **ret, struct platter_error *err)
{
    const struct unpack_policy policy = {.spool = spool ? scratch_folder() : NULL, .query = query};
    struct budget *budget = budget_new(limit);
    struct stream *base;
    assert_non_null(budget);
    assert_int_equal(stream_buffer_open(b, "a.packed", false, &base, err), 0);
    enum wrapper w = wrapper_probe(b->bytes, WRAP_PROBE);
    int r = w == WRAP_NONE ? fail(err, PLATTER_ENOFORMAT, "the magic is damaged") : 0;
    if (r == 0)
        r = stream_unpacked_open(base, w, &policy, budget, ret, err);
    else
        stream_close(base);
    budget_unref(budget);
    return r;
}

struct reader_thread {
    struct stream *s;
    uint64_t seed;
    pthread_t thread;
    bool in_order;
    char wrong[sizeof(struct platter_error)];
};

static void *read_some(void *arg)
{
    struct reader_thread *t = arg;
    struct prng prng = (struct prng){t->seed};
    struct platter_error err = {0};
    uint8_t *buf = malloc(MOST_READ);
    for (int i = 0; i < READS && !t->wrong[0]; i++) {
        uint64_t off = t->in_order ? (uint64_t)i * (PLAIN / READS) : prng_below(&prng, PLAIN);
        size_t len = (size_t)min_u64(prng_below(&prng, MOST_READ) + 1, PLAIN - off);
        if (stream_pread(t->s, buf, len, off, &err) < 0)
            snprintf(t->wrong, sizeof t->wrong, "%s", err.message);
        else if (memcmp(buf, plain.bytes + off, len) != 0)
            snprintf(t->wrong, sizeof t->wrong, "other bytes at %llu", (unsigned long long)off);
    }
    free(buf);
    return NULL;
}

static void read_by_threads(struct stream *s, bool in_order)
{
    struct reader_thread threads[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        threads[i] = (struct reader_thread){.s = s, .seed = i, .in_order = in_order};
        assert_int_equal(pthread_create(&threads[i].thread, NULL, read_some, &threads[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i].thread, NULL);
    for (unsigned i = 0; i < THREADS; i++)
        if (threads[i].wrong[0])
            fail_msg("%s", threads[i].wrong);
}

static void check_all(struct buffer *b, bool spooled, uint64_t limit)
{
    struct stream *s = NULL;
    uint64_t size = 0;
    uint8_t byte;
    assert_works(open_buffer(b, true, false, limit, &s, &err));
    assert_string_equal(s->ops->name, spooled ? "spooled" : "compressed");
    assert_works(stream_size(s, &size, &err));
    assert_int_equal(size, PLAIN);
    read_by_threads(s, false);
    read_by_threads(s, true);
    assert_fails(stream_pread(s, &byte, 1, PLAIN, &err), PLATTER_ECORRUPT, "ends at");
    stream_close(s);
}

static void test_random_reads(void **state)
{
    (void)state;
    for (size_t i = 0; i < SAMPLES; i++) {
        check_all(&packed[i], samples[i].spooled, BUDGET);
    }
}

/* With little memory the checkpoints of gzip get few, and one large frame is not read as it is. */
static void test_little_memory(void **state)
{
    (void)state;
    for (size_t i = 0; i < SAMPLES; i++) {
        uint64_t limit = samples[i].wrapper == WRAP_GZIP ? 6 << 20 : 16 << 20;
        check_all(&packed[i], samples[i].spooled || i == 0 || strcmp(samples[i].name, "pzstd") == 0,
                  limit);
    }
}

/* More checkpoints than there is memory for: they get fewer, and reading starts farther back. */
static void test_many_checkpoints(void **state)
{
    (void)state;
    enum { LENGTH = 24 << 20, LIMIT = 4 << 20, READ = 5000, TIMES = 40 };
    struct prng prng = {9};
    struct buffer all = buffer_new(LENGTH), b;
    struct stream *s = NULL;
    uint8_t bytes[READ];
    char *from = scratch_path("plain"), *to = scratch_path("packed");
    all.size = LENGTH;
    for (uint64_t i = 0; i < LENGTH; i += 8) /* noise, but for a bit of each byte */
        put_le(all.bytes + i, 8, prng_next(&prng) & 0x7F7F7F7F7F7F7F7F);
    buffer_save(&all, from);
    assert_int_equal(run_command(0, "gzip -1 -c '%s' > '%s'", from, to), 0);
    b = buffer_load(to, 0);
    assert_works(open_buffer(&b, false, false, LIMIT, &s, &err));
    for (int i = 0; i < TIMES; i++) {
        uint64_t off = i == 0 ? LENGTH - READ : prng_below(&prng, LENGTH - READ);
        assert_works(stream_pread(s, bytes, READ, off, &err));
        assert_memory_equal(bytes, all.bytes + off, READ);
    }
    stream_close(s);
    unlink(from);
    unlink(to);
    free(from);
    free(to);
    buffer_free(&b);
    buffer_free(&all);
}

/* ---- what may not be done ----------------------------------------------------------------------
 */

static void test_no_spool(void **state)
{
    (void)state;
    struct stream *s = NULL;
    for (size_t i = 0; i < SAMPLES; i++) {
        if (!samples[i].spooled)
            continue;
        assert_fails(open_buffer(&packed[i], false, false, 8 << 20, &s, &err), ENOTSUP,
                     "--spool FOLDER");
        /* What is little fits into memory. */
        assert_works(open_buffer(&packed[i], false, false, BUDGET, &s, &err));
        read_by_threads(s, false);
        stream_close(s);
    }
}

/* A copy that moves from memory to a file in the middle of zeros, and ends with them. */
static void test_spool_zeros(void **state)
{
    (void)state;
    enum { MEBI = 1 << 20, LIMIT = 8 << 20 };
    struct buffer b = buffer_new(11 * MEBI);
    const struct unpack_policy policy = {.spool = scratch_folder()};
    struct budget *budget = budget_new(LIMIT);
    struct stream *base = NULL, *s = NULL;
    uint8_t byte = 0;
    uint64_t size = 0, len = 0;
    bool hole = false;
    b.size = b.capacity;
    memset(b.bytes + MEBI, 0xA5, 100);
    memset(b.bytes + 9 * MEBI, 0x5A, 100);
    assert_works(stream_buffer_input_open(&b, "from", &base, &err));
    assert_works(stream_spool_open(base, &policy, budget, &s, &err));
    assert_works(stream_size(s, &size, &err));
    assert_int_equal(size, b.size);
    for (uint64_t off = 0; off < size; off += MEBI) {
        assert_works(stream_pread(s, &byte, 1, off, &err));
        assert_int_equal(byte, b.bytes[off]);
    }
    assert_works(stream_extents(s, 2 * MEBI, size - 2 * MEBI, &len, &hole, &err));
    assert_true(hole && len >= 6 * MEBI);
    stream_close(s);
    budget_unref(budget);
    buffer_free(&b);
}

/* A query makes no pass: what it can have at once it has, and else the bytes from the front. */
static void test_query(void **state)
{
    (void)state;
    for (size_t i = 0; i < SAMPLES; i++) {
        struct stream *s = NULL;
        bool at_once = !samples[i].spooled && samples[i].wrapper != WRAP_GZIP &&
                       !strstr(samples[i].name, "zstd, not") &&
                       !strstr(samples[i].name, "do not") && strcmp(samples[i].name, "pzstd") != 0;
        uint8_t bytes[1000];
        size_t len = 0;
        assert_works(open_buffer(&packed[i], false, true, BUDGET, &s, &err));
        assert_int_equal(s->sequential, !at_once);
        assert_works(stream_read(s, bytes, sizeof bytes, &len, &err));
        assert_int_equal(len, sizeof bytes);
        assert_memory_equal(bytes, plain.bytes, sizeof bytes);
        stream_close(s);
    }
}

/* ---- damage ------------------------------------------------------------------------------------
 */

/* Reads all of it. Whether that failed; other bytes are never right. */
static bool read_damaged(struct buffer *b, const char *what, uint64_t at)
{
    struct platter_error error = {0};
    struct stream *s = NULL;
    uint64_t size = 0;
    bool failed = open_buffer(b, true, false, BUDGET, &s, &error) < 0;
    if (!failed) {
        uint8_t *bytes = malloc(MOST_READ);
        assert_works(stream_size(s, &size, &err));
        for (uint64_t off = 0, n; off < min_u64(size, PLAIN); off += n) {
            n = min_u64(min_u64(size, PLAIN) - off, MOST_READ);
            if (stream_pread(s, bytes, n, off, &error) < 0)
                failed = true;
            else if (memcmp(bytes, plain.bytes + off, n) != 0)
                fail_msg("%s, byte %llu damaged: other bytes at %llu", what, (unsigned long long)at,
                         (unsigned long long)off);
        }
        if (!failed && size != PLAIN)
            fail_msg("%s, byte %llu damaged: another size", what, (unsigned long long)at);
        free(bytes);
        stream_close(s);
    }
    if (failed)
        assert_true(error.code != 0 && error.message[0]);
    return failed;
}

static void test_damage(void **state)
{
    (void)state;
    struct prng prng = (struct prng){7};
    for (size_t i = 0; i < SAMPLES; i++) {
        /* lzop --no-checksum cannot tell, and starting programs takes time. */
        int times = samples[i].wrapper == WRAP_LZOP || samples[i].spooled ? 3 : 7, noticed = 0;
        if (strcmp(samples[i].name, "lzop --no-checksum") == 0)
            continue;
        for (int t = 0; t < times; t++) {
            /* The first bytes, which of gzip are a date and a name. */
            bool first = t < 3 && samples[i].wrapper != WRAP_GZIP;
            uint64_t at =
                first ? (uint64_t)t * 5 + 4 : 100 + prng_below(&prng, packed[i].size - 100);
            uint8_t flip = (uint8_t)(1 << prng_below(&prng, 8));
            packed[i].bytes[at] ^= flip;
            noticed += read_damaged(&packed[i], samples[i].name, at);
            packed[i].bytes[at] ^= flip;
        }
        /* What is skipped means nothing. */
        print_message("%s: %d of %d noticed\n", samples[i].name, noticed, times);
        assert_true(noticed >= times - 1);
    }
}

/* Opens and reads all of a stream. Whether that failed; then it said why. */
static bool fails_to_read(struct stream *base, enum wrapper w, uint64_t limit, const char *what)
{
    const struct unpack_policy policy = {.spool = scratch_folder()};
    struct budget *budget = budget_new(limit);
    struct platter_error error = {0};
    struct stream *s = NULL;
    uint8_t *bytes = malloc(PLAIN);
    int r = stream_unpacked_open(base, w, &policy, budget, &s, &error);
    if (r == 0)
        r = stream_pread(s, bytes, PLAIN, 0, &error);
    if (r == 0 && memcmp(bytes, plain.bytes, PLAIN) != 0)
        fail_msg("%s: other bytes", what);
    if (r < 0)
        assert_true(error.code == -r && error.message[0]);
    stream_close(s);
    budget_unref(budget);
    free(bytes);
    return r < 0;
}

/* A disk that fails at any time. */
static void test_faults(void **state)
{
    (void)state;
    for (size_t i = 0; i < SAMPLES; i++) {
        bool some = i == FRAMES_SAMPLE || strcmp(samples[i].name, "gzip") == 0 ||
                    strcmp(samples[i].name, "lzop") == 0;
        bool failed = some;
        for (uint64_t at = 1; failed; at += 1 + at / 3) {
            struct fault_plan plan = {
                .kinds = FAULT_PREAD | FAULT_SIZE, .at = at, .lasting = true, .code = EIO};
            struct stream *base, *faulty;
            assert_works(stream_buffer_open(&packed[i], "a.packed", false, &base, &err));
            assert_works(stream_fault_open(base, &plan, &faulty, &err));
            failed = fails_to_read(faulty, samples[i].wrapper, BUDGET, samples[i].name);
            assert_int_equal(failed, plan.failed > 0);
        }
    }
}

/* Memory that is not enough is an error, or enough after all. */
static void test_budgets(void **state)
{
    (void)state;
    static const uint64_t limits[] = {0, 5000, 1 << 20};
    for (size_t i = 0; i < SAMPLES; i++)
        for (size_t k = 0; k < sizeof limits / sizeof *limits; k++) {
            struct stream *base;
            assert_works(stream_buffer_open(&packed[i], "a.packed", false, &base, &err));
            bool failed = fails_to_read(base, samples[i].wrapper, limits[k], samples[i].name);
            assert_true(failed || limits[k] >= 200000);
        }
}

/* A file that changes after it was opened, and after the pass over it. */
static void test_changed(void **state)
{
    (void)state;
    enum { STRIDE = 64 << 10 };
    for (size_t i = 0; i < SAMPLES; i++) {
        struct stream *s = NULL;
        unsigned failed = 0;
        if (samples[i].spooled || strstr(samples[i].name, "--no-checksum"))
            continue;
        uint8_t *bytes = malloc(STRIDE);
        struct buffer b = buffer_copy(&packed[i], packed[i].size);
        assert_works(open_buffer(&b, false, false, BUDGET, &s, &err));
        for (uint64_t at = 100000; at < b.size; at += 300000)
            b.bytes[at] ^= 0x10;
        for (uint64_t off = 0; off + STRIDE <= PLAIN; off += STRIDE)
            if (stream_pread(s, bytes, STRIDE, off, NULL) < 0)
                failed++;
            else if (memcmp(bytes, plain.bytes + off, STRIDE) != 0)
                fail_msg("%s: other bytes at %llu", samples[i].name, (unsigned long long)off);
        assert_true(failed > 0);
        stream_close(s);
        buffer_free(&b);
        free(bytes);
    }
}

static void test_truncated(void **state)
{
    (void)state;
    struct prng prng = (struct prng){8};
    for (size_t i = 0; i < SAMPLES; i++) {
        uint64_t size = packed[i].size;
        for (int t = 0; t < 3; t++) {
            packed[i].size = t == 0 ? size - 1 : WRAP_PROBE + prng_below(&prng, size - WRAP_PROBE);
            bool whole = strstr(samples[i].name, "behind") && packed[i].size > size - 100001;
            if (!whole && !read_damaged(&packed[i], samples[i].name, packed[i].size))
                fail_msg("%s: cut to %llu of %llu, and nobody noticed", samples[i].name,
                         (unsigned long long)packed[i].size, (unsigned long long)size);
        }
        packed[i].size = size;
    }
}

/* ---- the table of frames ------------------------------------------------------------------------
 */

enum { FRAME = 700001 };

struct table {
    uint32_t n, packed[64], plain[64];
};

/* Where the frames of the sample are: each begins with the magic, and that stands nowhere else. */
static struct table find_table(const struct buffer *b)
{
    struct table t = {0};
    uint64_t last = 0;
    for (uint64_t i = 4; i <= b->size; i++) {
        if (i < b->size && (i + 4 > b->size || get_le(b->bytes + i, 4) != 0xFD2FB528))
            continue;
        t.packed[t.n] = (uint32_t)(i - last);
        t.plain[t.n] = (uint32_t)min_u64(FRAME, PLAIN - (uint64_t)t.n * FRAME);
        t.n++;
        last = i;
    }
    assert_int_equal(t.n, div_up(PLAIN, FRAME));
    return t;
}

static struct buffer with_table(const struct buffer *b, const struct table *t, bool checksums,
                                uint32_t n)
{
    uint32_t entry = checksums ? 12 : 8, len = t->n * entry + 9;
    struct buffer ret = buffer_copy(b, b->size + 8 + len);
    uint8_t *p = ret.bytes + b->size;
    ret.size += 8 + len;
    put_le(p, 4, 0x184D2A5E);
    put_le(p + 4, 4, len);
    p += 8;
    for (uint32_t i = 0; i < t->n; i++, p += entry) {
        put_le(p, 4, t->packed[i]);
        put_le(p + 4, 4, t->plain[i]);
    }
    put_le(p, 4, n);
    p[4] = checksums ? 0x80 : 0;
    put_le(p + 5, 4, 0x8F92EAB1);
    return ret;
}

static void test_table(void **state)
{
    (void)state;
    struct buffer *frames = &packed[FRAMES_SAMPLE];
    struct table t = find_table(frames);
    for (int checksums = 0; checksums < 2; checksums++) {
        struct buffer b = with_table(frames, &t, checksums, t.n);
        check_all(&b, false, BUDGET);
        /* It is the table that says where frames are: one whose header is damaged is not looked at
         * before it is read. */
        struct stream *s = NULL;
        uint8_t byte = 0;
        b.bytes[t.packed[0]] ^= 1;
        assert_works(open_buffer(&b, false, false, BUDGET, &s, &err));
        assert_works(stream_pread(s, &byte, 1, FRAME - 1, &err));
        assert_int_equal(byte, plain.bytes[FRAME - 1]);
        assert_fails(stream_pread(s, &byte, 1, FRAME, &err), PLATTER_ECORRUPT,
                     "the frame at offset");
        assert_works(stream_pread(s, &byte, 1, 2 * FRAME, &err));
        assert_int_equal(byte, plain.bytes[2 * FRAME]);
        stream_close(s);
        /* ... and one whose length is damaged does not move those behind it. */
        b.bytes[t.packed[0]] ^= 1;
        b.bytes[t.packed[0] + 5] ^= 1;
        assert_works(open_buffer(&b, false, false, BUDGET, &s, &err));
        assert_fails(stream_pread(s, &byte, 1, FRAME, &err), PLATTER_ECORRUPT,
                     "the frame at offset");
        assert_works(stream_pread(s, &byte, 1, 2 * FRAME, &err));
        assert_int_equal(byte, plain.bytes[2 * FRAME]);
        stream_close(s);
        buffer_free(&b);
    }
}

/* What a table says that is not so. */
static void test_table_lies(void **state)
{
    (void)state;
    struct buffer *frames = &packed[FRAMES_SAMPLE];
    const struct table right = find_table(frames);
    for (int lie = 0; lie < 10; lie++) {
        struct table t = right;
        uint32_t n = t.n;
        bool believed = false;
        switch (lie) {
        case 0: /* sums */
            t.packed[2] += 1;
            break;
        case 1: /* a frame that is huge */
            t.plain[3] = UINT32_MAX;
            break;
        case 2: /* more of them than there are */
            n = UINT32_MAX;
            break;
        case 3:
            n = t.n - 1;
            break;
        case 4: /* none */
            n = 0;
            break;
        case 5: /* a byte of one belongs to the next: the sums are right */
            t.plain[1]++;
            t.plain[2]--;
            break;
        case 6: /* which looks as if a frame was damaged */
            t.packed[1]++;
            t.packed[2]--;
            believed = true;
            break;
        case 7: /* shorter than it is */
            t.plain[t.n - 1]--;
            break;
        case 8: /* nothing is in it */
            t.plain[1] = 0;
            break;
        default:
            t.plain[t.n - 1] = 0;
        }
        struct buffer b = with_table(frames, &t, false, n);
        if (believed)
            assert_true(read_damaged(&b, "a table that lies", (uint64_t)lie));
        else
            check_all(&b, false, BUDGET);
        buffer_free(&b);
    }
}

/* A frame that claims to hold more than there can be. */
static void test_huge_claims(void **state)
{
    (void)state;
    static const uint8_t frame[] = {0x28, 0xB5, 0x2F, 0xFD, 0xE0, 0,    0,    0,
                                    0,    0,    0,    0,    0x10, 0x01, 0x00, 0x00};
    struct buffer b = buffer_new(sizeof frame);
    struct stream *s = NULL;
    memcpy(b.bytes, frame, sizeof frame);
    b.size = sizeof frame;
    struct platter_error err = {0};
    assert_true(open_buffer(&b, true, false, BUDGET, &s, &err) < 0);
    buffer_free(&b);
}

/* ---- how far it has come ---------------------------------------------------------------------
 */

struct ticks {
    unsigned n, cancel_at;
    uint64_t last, total;
};

static int tick(void *opaque, uint64_t done, uint64_t total)
{
    struct ticks *t = opaque;
    assert_true(done >= t->last && done <= total);
    t->last = done;
    t->total = total;
    return ++t->n == t->cancel_at;
}

/* Whoever goes through all of a file tells of it, and ends when that is not wanted any more. */
static void test_ticks(void **state)
{
    (void)state;
    for (size_t i = 0; i < SAMPLES; i++) {
        enum wrapper w = wrapper_probe(packed[i].bytes, WRAP_PROBE);
        for (unsigned cancel = 0; cancel < 2 && w != WRAP_ZSTD && w != WRAP_LZOP; cancel++) {
            struct ticks t = {.cancel_at = 2 * cancel};
            const struct unpack_policy policy = {
                .spool = scratch_folder(), .tick = tick, .tick_opaque = &t};
            struct budget *budget = budget_new(BUDGET);
            struct stream *base = NULL, *s = NULL;
            assert_works(stream_buffer_open(&packed[i], "packed", false, &base, &err));
            if (cancel) {
                assert_fails(stream_unpacked_open(base, w, &policy, budget, &s, &err), ECANCELED,
                             "cancelled");
                assert_int_equal(t.n, 2);
            } else {
                assert_works(stream_unpacked_open(base, w, &policy, budget, &s, &err));
                assert_true(t.n >= 3 && t.last >= packed[i].size / 2);
                stream_close(s);
            }
            assert_int_equal(t.total, packed[i].size);
            assert_works(budget_take(budget, BUDGET, "all of it", &err));
            budget_unref(budget);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_reads),
        cmocka_unit_test(test_little_memory),
        cmocka_unit_test(test_many_checkpoints),
        cmocka_unit_test(test_spool_zeros),
        cmocka_unit_test(test_no_spool),
        cmocka_unit_test(test_query),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_changed),
        cmocka_unit_test(test_ticks),
        cmocka_unit_test(test_budgets),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_table_lies),
        cmocka_unit_test(test_huge_claims),
    };
    return cmocka_run_group_tests(tests, make_samples, free_samples);
}
