/* SPDX-License-Identifier: MIT */
/*
 * New VMA archives, byte for byte: that of vma.md section 11, and what a model of its own says of
 * random disks. The model is written from sections 4 and 6: it has all of a disk in memory, and
 * makes one extent after the other.
 */
#include "unit.h"

#include <stdlib.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "base/hash.h"
#include "format/vma/vma.h"
#include "format/vma/writer.h"
#include "support/prng.h"

enum { MOST_DISK = 70 * VMA_CLUSTER, MOST_FILE = 4 * MOST_DISK, PER_EXTENT = 58 };

static struct budget *budget;

/* ---- the model ---------------------------------------------------------------------------------
 */

struct model {
    uint8_t *bytes;
    size_t len;
    size_t extent; /* where the one that is filled begins */
    unsigned n;    /* clusters in it */
    unsigned extents;
};

static void model_close_extent(struct model *m)
{
    uint8_t *at = m->bytes + m->extent;
    size_t blocks = (m->len - m->extent - 512) / 4096;
    put_be(at + 6, 2, blocks);
    hash_bytes(hash_find("md5"), at, 512, NULL, 0, at + 24);
    m->n = 0;
    m->extents++;
}

static void model_cluster(struct model *m, const uint8_t *uuid, unsigned device, uint32_t cluster,
                          const uint8_t *data, size_t len, bool all)
{
    uint8_t whole[65536] = {0};
    unsigned mask = 0;
    if (m->n == 0) {
        m->extent = m->len;
        memset(m->bytes + m->len, 0, 512);
        memcpy(m->bytes + m->len, "VMAE", 4);
        memcpy(m->bytes + m->len + 8, uuid, 16);
        m->len += 512;
    }
    memcpy(whole, data, len);
    for (unsigned k = 0; k < 16; k++) {
        bool zero = true;
        for (unsigned i = 0; i < 4096; i++)
            zero = zero && whole[k * 4096 + i] == 0;
        if (zero && !all)
            continue;
        mask |= 1u << k;
        memcpy(m->bytes + m->len, whole + k * 4096, 4096);
        m->len += 4096;
    }
    put_be(m->bytes + m->extent + 40 + m->n * 8, 8,
           (uint64_t)mask << 48 | (uint64_t)device << 32 | cluster);
    if (++m->n == PER_EXTENT)
        model_close_extent(m);
}

/* ---- a random archive --------------------------------------------------------------------------
 */

struct specimen {
    struct archive_disk disks[4];
    uint8_t *data[4];
    struct archive_config configs[2];
    struct archive_plan plan;
    struct prng rng;
};

static size_t random_size(struct prng *p)
{
    static const size_t around[] = {
        1,     511,   512,    4095,       4096,       4097,           65535,
        65536, 65537, 540672, 57 * 65536, 58 * 65536, 58 * 65536 + 1, 59 * 65536};
    uint64_t r = prng_next(p);
    if (r % 2)
        return around[r / 2 % (sizeof around / sizeof *around)];
    return 1 + (size_t)(prng_next(p) % (MOST_DISK / (1 + r / 2 % 8)));
}

/* Blocks of data and of zeros in runs; some only have a byte, the first or the last. */
static void fill_disk(struct prng *p, uint8_t *data, size_t size)
{
    memset(data, 0, size);
    for (size_t at = 0; at < size;) {
        uint64_t r = prng_next(p);
        size_t n = (size_t)min_u64((1 + r % 40) * 4096, size - at);
        if (r >> 8 & 1)
            memset(data + at, (int)(1 + r % 255), n);
        else if (r >> 9 & 1)
            data[at + (r >> 10 & 1 ? 0 : n - 1)] = 1;
        at += n;
    }
}

static void make_specimen(struct specimen *s, uint64_t seed)
{
    static const char *const names[] = {"drive-scsi0", "drive-virtio1", "drive-efidisk0", "ide2"};
    *s = (struct specimen){.rng = {.state = seed}};
    s->plan = (struct archive_plan){.ctime = (int64_t)seed,
                                    .configs = s->configs,
                                    .n_configs = (unsigned)(seed % 3),
                                    .disks = s->disks,
                                    .n_disks = 1 + (unsigned)(prng_next(&s->rng) % 4),
                                    .budget = budget};
    for (unsigned i = 0; i < 16; i++)
        s->plan.uuid[i] = (uint8_t)prng_next(&s->rng);
    s->configs[0] = (struct archive_config){
        .name = "qemu-server.conf", .bytes = (const uint8_t *)"memory: 512\n", .size = 12};
    s->configs[1] = (struct archive_config){.name = "empty", .bytes = (const uint8_t *)""};
    for (unsigned i = 0; i < s->plan.n_disks; i++) {
        bool state = i == 1 && seed % 5 == 0;
        size_t size = random_size(&s->rng);
        s->disks[i] = (struct archive_disk){
            .name = state ? "vmstate" : names[i], .size = size, .state = state};
        s->data[i] = malloc(size);
        fill_disk(&s->rng, s->data[i], size);
    }
}

static void free_specimen(struct specimen *s)
{
    for (unsigned i = 0; i < s->plan.n_disks; i++)
        free(s->data[i]);
}

static void model_archive(const struct specimen *s, struct model *m)
{
    uint8_t *header;
    uint32_t size;
    struct vma_header h = {.ctime = s->plan.ctime, .n_configs = s->plan.n_configs};
    memcpy(h.uuid, s->plan.uuid, 16);
    for (unsigned i = 0; i < s->plan.n_configs; i++)
        h.configs[i] = (struct vma_config){
            .name = s->configs[i].name, .bytes = s->configs[i].bytes, .size = s->configs[i].size};
    for (unsigned i = 0; i < s->plan.n_disks; i++)
        h.devices[i + 1] = (struct vma_device){.name = s->disks[i].name, .size = s->disks[i].size};
    assert_works(vma_header_encode(&h, budget, &header, &size, &err));
    memcpy(m->bytes, header, size);
    m->len = size;
    budget_free(budget, header, size);
    for (unsigned i = 0; i < s->plan.n_disks; i++)
        for (uint64_t off = 0; off < s->disks[i].size; off += 65536)
            model_cluster(m, s->plan.uuid, i + 1, (uint32_t)(off / 65536), s->data[i] + off,
                          (size_t)min_u64(65536, s->disks[i].size - off), s->disks[i].state);
    if (m->n > 0)
        model_close_extent(m);
}

/* ---- the writer --------------------------------------------------------------------------------
 */

static bool all_zero(const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (bytes[i])
            return false;
    return true;
}

/* What is zeros is told of, left out, or given as data, whatever the seed says. */
static void write_disk(struct specimen *s, struct image_writer *w, unsigned i)
{
    uint64_t size = s->disks[i].size;
    uint8_t *out = malloc(w->ops->encode_bound(w));
    for (uint64_t off = 0; off < size; off += w->unit) {
        size_t len = (size_t)min_u64(w->unit, size - off), packed;
        uint64_t how = prng_next(&s->rng) % 3;
        if (all_zero(s->data[i] + off, len) && how == 0)
            continue;
        if (all_zero(s->data[i] + off, len) && how == 1) {
            assert_works(w->ops->zeros(w, off, len, &err));
            continue;
        }
        assert_works(w->ops->encode(w, off, s->data[i] + off, len, out, &packed, &err));
        assert_true(packed <= w->ops->encode_bound(w));
        assert_works(w->ops->append(w, off, len, out, packed, &err));
    }
    free(out);
}

static uint64_t zero_bytes(const struct specimen *s, unsigned i)
{
    uint64_t zeros = 0, size = s->disks[i].size;
    for (uint64_t off = 0; off < size && !s->disks[i].state; off += 4096) {
        size_t len = (size_t)min_u64(4096, size - off);
        zeros += all_zero(s->data[i] + off, len) ? len : 0;
    }
    return zeros;
}

static void write_archive(struct specimen *s, struct stream *stream)
{
    struct archive_writer *w;
    s->plan.stream = stream;
    assert_works(vma_writer_open(&s->plan, &w, &err));
    for (unsigned i = 0; i < s->plan.n_disks; i++) {
        struct image_writer *disk;
        assert_works(w->ops->disk(w, i, &disk, &err));
        write_disk(s, disk, i);
        assert_works(disk->ops->finish(disk, &err));
        assert_int_equal(disk->zeros, zero_bytes(s, i));
        disk->ops->close(disk);
    }
    assert_works(w->ops->finish(w, &err));
    w->ops->close(w);
}

static void assert_same(struct stream *s, const uint8_t *bytes, size_t len)
{
    uint64_t size;
    uint8_t *got = malloc(len);
    assert_works(stream_size(s, &size, &err));
    assert_int_equal(size, len);
    assert_works(stream_pread(s, got, len, 0, &err));
    for (size_t i = 0; i < len; i++)
        if (got[i] != bytes[i])
            fail_msg("byte %zu is %02x, not %02x", i, got[i], bytes[i]);
    free(got);
}

static void test_random(void **state)
{
    (void)state;
    struct model m = {.bytes = malloc(MOST_FILE + (1 << 20))};
    unsigned extents = 0;
    for (uint64_t seed = 1; seed <= 150; seed++) {
        struct specimen s;
        struct stream *stream;
        make_specimen(&s, seed);
        m.n = m.extents = 0;
        model_archive(&s, &m);
        extents += m.extents > 1;
        assert_works(stream_memory_open("a", MOST_FILE, &stream, &err));
        write_archive(&s, stream);
        assert_same(stream, m.bytes, m.len);
        stream_close(stream);
        free_specimen(&s);
    }
    assert_true(extents > 10);
    free(m.bytes);
}

/* ---- by hand -----------------------------------------------------------------------------------
 */

static const uint8_t config[] = "memory: 512\n";
static const struct archive_config one_config = {
    .name = "qemu-server.conf", .bytes = config, .size = sizeof config - 1};

static struct archive_plan plan_of(const struct archive_disk *disks, unsigned n)
{
    struct archive_plan plan = {.ctime = 1700000000,
                                .configs = &one_config,
                                .n_configs = 1,
                                .disks = disks,
                                .n_disks = n,
                                .budget = budget};
    memset(plan.uuid, 0x11, sizeof plan.uuid);
    return plan;
}

static void test_vector(void **state)
{
    (void)state;
    const struct archive_disk disk = {.name = "drive-scsi0", .size = 66048};
    struct archive_plan plan = plan_of(&disk, 1);
    struct archive_writer *w;
    struct image_writer *d;
    uint8_t data[512], out[70000], file[17408], sha[32];
    static const uint8_t expected[] = {0x9d, 0x8b, 0xc7, 0xcd, 0xe7, 0x3c, 0x7e, 0x8e,
                                       0x79, 0xe1, 0xaf, 0x2f, 0x0b, 0x2e, 0x79, 0xfb,
                                       0x63, 0x0b, 0xf9, 0xfe, 0x65, 0xa1, 0x85, 0x58,
                                       0xba, 0x54, 0xe2, 0x40, 0xf3, 0x9f, 0xef, 0x5d};
    size_t packed;
    uint64_t size;
    memset(data, 0x78, sizeof data);
    assert_works(stream_memory_open("a", 1 << 20, &plan.stream, &err));
    assert_works(vma_writer_open(&plan, &w, &err));
    assert_works(w->ops->disk(w, 0, &d, &err));
    assert_works(d->ops->encode(d, 65536, data, sizeof data, out, &packed, &err));
    assert_works(d->ops->append(d, 65536, sizeof data, out, packed, &err));
    assert_works(d->ops->finish(d, &err));
    d->ops->close(d);
    assert_works(w->ops->finish(w, &err));
    assert_works(stream_size(plan.stream, &size, &err));
    assert_int_equal(size, sizeof file);
    assert_works(stream_pread(plan.stream, file, sizeof file, 0, &err));
    hash_bytes(hash_find("sha256"), file, sizeof file, NULL, 0, sha);
    assert_memory_equal(sha, expected, sizeof sha);
    w->ops->close(w);
    stream_close(plan.stream);
}

/* Header and one empty extent. */
static void test_diskless(void **state)
{
    (void)state;
    struct archive_plan plan = plan_of(NULL, 0);
    struct archive_writer *w;
    struct vma_extent e;
    uint8_t bytes[VMA_EXTENT];
    uint64_t size;
    assert_works(stream_memory_open("a", 1 << 20, &plan.stream, &err));
    assert_works(vma_writer_open(&plan, &w, &err));
    assert_works(w->ops->finish(w, &err));
    w->ops->close(w);
    assert_works(stream_size(plan.stream, &size, &err));
    assert_int_equal(size, 12800 + VMA_EXTENT);
    assert_works(stream_pread(plan.stream, bytes, sizeof bytes, 12800, &err));
    assert_works(vma_extent_decode("a", 12800, bytes, plan.uuid, &e, &err));
    for (unsigned i = 0; i < VMA_SLOTS; i++)
        assert_int_equal(e.slots[i].device, 0);
    stream_close(plan.stream);
}

/* A machine of many disks that are empty: 58 slots an extent, across disks. */
static void test_many_disks(void **state)
{
    (void)state;
    enum { N = 254 };
    static struct archive_disk disks[N];
    static char names[N][16];
    struct archive_plan plan = plan_of(disks, N);
    struct archive_writer *w;
    uint64_t size;
    for (unsigned i = 0; i < N; i++) {
        snprintf(names[i], sizeof names[i], "disk%u", i);
        disks[i] = (struct archive_disk){.name = names[i], .size = 3 * VMA_CLUSTER};
    }
    assert_works(stream_memory_open("a", 1 << 20, &plan.stream, &err));
    assert_works(vma_writer_open(&plan, &w, &err));
    for (unsigned i = 0; i < N; i++) {
        struct image_writer *d;
        assert_works(w->ops->disk(w, i, &d, &err));
        assert_works(d->ops->finish(d, &err));
        assert_int_equal(d->zeros, 3 * VMA_CLUSTER);
        d->ops->close(d);
    }
    assert_works(w->ops->finish(w, &err));
    w->ops->close(w);
    assert_works(stream_size(plan.stream, &size, &err));
    uint8_t fixed[VMA_FIXED];
    uint32_t header;
    assert_works(stream_pread(plan.stream, fixed, sizeof fixed, 0, &err));
    assert_works(vma_header_size("a", fixed, &header, &err));
    assert_int_equal(size - header, div_up(3 * N, 58) * VMA_EXTENT);
    stream_close(plan.stream);
}

/* The beginning again, with what is known only at the end. */
static void test_begin_again(void **state)
{
    (void)state;
    uint8_t text[] = "????", front[4096], header[12800];
    struct archive_config c = {.name = "a", .bytes = text, .size = 4};
    const struct archive_disk disk = {.name = "d", .size = 5};
    struct archive_plan plan = plan_of(&disk, 1);
    struct archive_writer *w;
    struct image_writer *d;
    struct vma_header h;
    plan.configs = &c;
    assert_works(stream_memory_open("a", 1 << 20, &plan.stream, &err));
    assert_works(vma_writer_open(&plan, &w, &err));
    assert_works(w->ops->disk(w, 0, &d, &err));
    assert_works(d->ops->finish(d, &err));
    d->ops->close(d);
    assert_works(w->ops->finish(w, &err));
    memcpy(text, "done", 4);
    assert_works(w->ops->begin_again(w, &err));
    assert_works(stream_pread(plan.stream, header, sizeof header, 0, &err));
    assert_works(vma_header_decode("a", header, sizeof header, &h, &err));
    assert_memory_equal(h.configs[0].bytes, "done", 4);
    assert_works(stream_pread(plan.stream, front, 4, sizeof header, &err));
    assert_memory_equal(front, "VMAE", 4);
    w->ops->close(w);
    stream_close(plan.stream);
}

/* ---- what is refused ---------------------------------------------------------------------------
 */

static void assert_refused(const struct archive_plan *plan, int code, const char *words)
{
    assert_fails(vma_may_write(plan, &err), code, words);
    struct archive_plan with_stream = *plan;
    struct archive_writer *w;
    uint64_t size;
    assert_works(stream_memory_open("a", 1 << 20, &with_stream.stream, &err));
    assert_fails(vma_writer_open(&with_stream, &w, &err), code, words);
    assert_works(stream_size(with_stream.stream, &size, &err));
    assert_int_equal(size, 0);
    stream_close(with_stream.stream);
}

static void test_refused_disks(void **state)
{
    (void)state;
    static char longest[244];
    static struct archive_disk many[255];
    struct archive_disk two[2] = {{.name = "a", .size = 1}, {.name = "b", .size = 1}};
    struct archive_plan plan = plan_of(two, 2);
    assert_works(vma_may_write(&plan, &err));
    two[1].name = "a";
    assert_refused(&plan, EINVAL, "cannot both be called a");
    two[1] = (struct archive_disk){.name = "vmstate", .size = 1};
    assert_refused(&plan, EINVAL, "and not of a disk");
    two[1].state = true;
    assert_works(vma_may_write(&plan, &err));
    two[1].name = "b";
    assert_refused(&plan, EINVAL, "is called vmstate, not b");
    two[1].state = false;
    static const char *const names[] = {"a b", "a:b", "a=b", "a,b", "a\tb", ""};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        two[1].name = names[i];
        assert_refused(&plan, EINVAL, "name");
    }
    memset(longest, 'n', 243);
    two[1].name = longest;
    assert_refused(&plan, EINVAL, "at most 242 bytes");
    longest[242] = '\0';
    assert_works(vma_may_write(&plan, &err));
    two[1].size = 0;
    assert_refused(&plan, EINVAL, "1 byte to 256 TiB");
    two[1].size = 1ull << 48;
    assert_works(vma_may_write(&plan, &err));
    two[1].size++;
    assert_refused(&plan, EINVAL, "1 byte to 256 TiB");
    plan.disks = many;
    plan.n_disks = 255;
    assert_refused(&plan, EINVAL, "at most 254 disks");
}

static void test_refused_configs(void **state)
{
    (void)state;
    static uint8_t large[65536];
    static struct archive_config many[257];
    struct archive_plan plan = plan_of(NULL, 0);
    plan.configs = many;
    for (unsigned i = 0; i < 8; i++)
        many[i] = (struct archive_config){
            .name = (const char *[]){"a", "b", "c", "d", "e", "f", "g", "h"}[i],
            .bytes = large,
            .size = 65535};
    plan.n_configs = 7;
    assert_works(vma_may_write(&plan, &err));
    plan.n_configs = 8;
    assert_refused(&plan, EFBIG, "at most 524288");
    plan.n_configs = 1;
    many[0].size++;
    assert_refused(&plan, EFBIG, "at most 65535");
    plan.n_configs = 2;
    many[0] = many[1];
    assert_refused(&plan, EINVAL, "cannot both be called b");
    plan.n_configs = 257;
    assert_refused(&plan, EINVAL, "256 configurations");
}

static void test_order(void **state)
{
    (void)state;
    const struct archive_disk disk = {.name = "d", .size = 5 * VMA_CLUSTER + 7};
    struct archive_plan plan = plan_of(&disk, 1);
    struct archive_writer *w;
    struct image_writer *d;
    assert_works(stream_memory_open("a", 1 << 20, &plan.stream, &err));
    assert_works(vma_writer_open(&plan, &w, &err));
    assert_works(w->ops->disk(w, 0, &d, &err));
    assert_works(d->ops->zeros(d, 0, 2 * VMA_CLUSTER, &err));
    assert_fails(d->ops->zeros(d, VMA_CLUSTER, VMA_CLUSTER, &err), EINVAL, "cannot be written");
    assert_fails(d->ops->zeros(d, 2 * VMA_CLUSTER, 4096, &err), EINVAL, "cannot be written");
    assert_fails(d->ops->zeros(d, 5 * VMA_CLUSTER, VMA_CLUSTER, &err), EINVAL, "cannot be");
    assert_works(d->ops->zeros(d, 5 * VMA_CLUSTER, 7, &err));
    d->ops->close(d);
    w->ops->close(w);
    stream_close(plan.stream);
}

static int setup(void **state)
{
    (void)state;
    budget = budget_new(64 << 20);
    return budget ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    budget_unref(budget);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vector),          cmocka_unit_test(test_random),
        cmocka_unit_test(test_diskless),        cmocka_unit_test(test_many_disks),
        cmocka_unit_test(test_begin_again),     cmocka_unit_test(test_refused_disks),
        cmocka_unit_test(test_refused_configs), cmocka_unit_test(test_order)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
