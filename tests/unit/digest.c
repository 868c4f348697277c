/* SPDX-License-Identifier: MIT */
/* The digest: the vectors of docs/digest.md, with any number of threads and wherever the holes. */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disks.h"
#include "ops/ops.h"
#include "ops/tree.h"

struct vector {
    uint64_t size;
    const char *digest, *node;
};

static const char *const zero_subtrees[] = {
    "3266304f31be278d06c3bd3eb9aa3e00c59bedec0a890de466568b0b90b0e01f",
    "e6d1bfb8086d1d2bd05607ae6805499c7a1935946f346285c8e449fecd5a1839",
    "389d3cc97dd1ec1877c40ee9fd74ff03b7412a31baa68b5080364485791e2dba",
    "379e73cc753fbbb255b5c8f7084dce22a69086179e5fb20e819026c81ab148ae",
    "9cef963a0de416f132b8dcc15877d0a826d0b8bd08f4e14b46400e23a93222a9",
    "ae438a85eb617bad8e27a6311be9541370c360f1ee6991894ea21f46e9969671",
    "dbdf904a6f1d09adac6eceb38750bea499ec3d898b89e5b02a1e70b9ced25782"};

static const struct vector zeros[] = {
    {0, "224592cdd2ee8694aed1434aa9691f1114c525700ce538e510fda8ba32a418c6", NULL},
    {512, "9692a531b30599d2f3ca64a9b0d7ef0b0e090442c59be239d65f13ec7942fa75", NULL},
    {65536, "3fe5a8bac763cdd94efd897e6dde9f0b93287d442a7e409c2ef037182a406f1e", NULL},
    {1 << 24, "e35b7e8ba14b6035251f743a8d7eca78e6a5a21fc631b4aa43f8e3423691b78f", NULL},
    {(1 << 24) + 512, "d110c5c83bad4d07c6118f9fad7abb03978204753e63c30606a5a7b714f5360c", NULL},
    {1ull << 32, "4f27f43f0c33a4c91043d055e976a26b5a6ce74628034bfda62c654420943e84", NULL},
    {(1ull << 32) + 512, "8bbe7bc89dd7d4c1942b21402bd481b0a00b038a6a4e72804602fd53ada48ee3", NULL},
    {1ull << 43, "9425c3223dbb8b20cbf53890131fe7769ea020916dc6b5e6f3008a194708bd27", NULL},
    {(1ull << 63) - 512, "f4e78716b411edf3979ae3aa3360d654d9a30643b4369388a4f040025c64c3d2", NULL},
};

static const struct vector patterns[] = {
    {1, "fa20e09a9be208c5171720e092c16570058995d9ddbeec31e4b4a4920bbc58f3",
     "e6d1bfb8086d1d2bd05607ae6805499c7a1935946f346285c8e449fecd5a1839"},
    {512, "3bb6deb1e20ab057c0a44b6f47af54ca9ebccb2ba4acb4239562c642791e3855",
     "dfaa82c482ca757edc18686f814b3603ad12e315239f1ad29f50bc81d3ed1efb"},
    {65024, "a4ff6c61bb3d3350c8e8befc45da0537dc3734f25378374d9b9da6b0374d2626",
     "4ab157175da1153b06d6b0f0344155adf731cd8d65f570ffb3a7546f562fa591"},
    {65536, "3dfb2a42672c1a696e5f1e95a66ee89ffff1c30114089cc1f918d536f8057b47",
     "87e4734a5527daa3c5734c16b30b3da6414b039beccff2bf30348faea262fec9"},
    {66048, "d7ada482ca35b8903d8f160ba6feb320fefd73570fe166d3bbaab48441f7216c",
     "cfac36e1c3ab5a56a9e94574098bb93c7f8a9b49ddad6da2e52df39d403689ad"},
    {1 << 24, "7402d4d2365d134300ccf805e4e16faba2e9e7b98f1f10bee1706209db8af73b",
     "1d24d37feb7dc0c90e3bfde8dc6c76a3322b1b87ba5a156e41c3441e9bf1d14a"},
    {(1 << 24) + 512, "0ebe229945e64dc109ce67db00a2fbe284f72623d05cf6c4afbbc5454e9e28be",
     "1d24d37feb7dc0c90e3bfde8dc6c76a3322b1b87ba5a156e41c3441e9bf1d14a"},
};

static void assert_digest(const uint8_t digest[32], const char *expected)
{
    char hex[65];
    for (int i = 0; i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    assert_string_equal(hex, expected);
}

static void assert_tree(struct platter_disk *disk, unsigned workers, const char *expected)
{
    struct platter_digest_options options = {.size = sizeof options, .workers = workers};
    uint8_t digest[32];
    assert_int_equal(ops_digest(disk, &options, digest, NULL), 0);
    assert_digest(digest, expected);
}

/* ---- the tree alone -------------------------------------------------------------------------- */

static void test_zero_subtrees(void **state)
{
    (void)state;
    auto_free struct tree *t = malloc(sizeof *t);
    tree_init(t, 0);
    for (unsigned i = 0; i <= TREE_MAX_HEIGHT; i++)
        assert_digest(t->zero[i], zero_subtrees[i]);
}

static void test_zero_disks(void **state)
{
    (void)state;
    auto_free struct tree *t = malloc(sizeof *t);
    for (size_t i = 0; i < sizeof zeros / sizeof *zeros; i++) {
        tree_hash root;
        tree_init(t, zeros[i].size);
        tree_add_zeros(t, zeros[i].size / TREE_NODE + (zeros[i].size % TREE_NODE != 0));
        tree_root(t, root);
        assert_digest(root, zeros[i].digest);
    }
}

/* Runs of zeros of any length at any place are what their nodes are one by one. */
static void test_runs_equal_nodes(void **state)
{
    (void)state;
    enum { NODES = 200000 };
    auto_free struct tree *runs = malloc(sizeof *runs);
    auto_free struct tree *singles = malloc(sizeof *singles);
    tree_hash a, b, mark = {1};
    tree_init(runs, (uint64_t)NODES * TREE_NODE);
    tree_init(singles, (uint64_t)NODES * TREE_NODE);
    uint64_t left = NODES;
    for (uint64_t n = 1; left > 0; n = n * 5 / 2 + 1) {
        uint64_t run = n < left ? n : left - 1;
        tree_add_zeros(runs, run);
        for (uint64_t i = 0; i < run; i++)
            tree_add(singles, singles->zero[1]);
        tree_add(runs, mark);
        tree_add(singles, mark);
        left -= run + 1;
    }
    tree_root(runs, a);
    tree_root(singles, b);
    assert_memory_equal(a, b, TREE_HASH);
}

/* ---- disks ----------------------------------------------------------------------------------- */

static int keep_first_node(void *opaque, uint64_t offset, uint64_t length, const uint8_t digest[32])
{
    (void)length;
    if (offset == 0)
        memcpy(opaque, digest, 32);
    return 0;
}

static void test_patterns(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        struct platter_disk *disk = pattern_disk(patterns[i].size);
        uint8_t digest[32], node[32];
        struct platter_digest_options options = {
            .size = sizeof options, .node = keep_first_node, .opaque = node};
        assert_int_equal(ops_digest(disk, &options, digest, NULL), 0);
        assert_digest(digest, patterns[i].digest);
        assert_digest(node, patterns[i].node);
        for (unsigned workers = 1; workers <= 5; workers++)
            assert_tree(disk, workers, patterns[i].digest);
        disk_close(disk, NULL);
    }
}

/* Zeros that are stored are not told from holes. */
static void test_stored_zeros(void **state)
{
    (void)state;
    for (size_t i = 0; zeros[i].size <= 32 << 20; i++) {
        struct platter_disk *stored = zero_disk(zeros[i].size);
        struct platter_disk *hole = sparse_disk(zeros[i].size, 0, NULL, 0);
        assert_tree(stored, 0, zeros[i].digest);
        assert_tree(hole, 0, zeros[i].digest);
        disk_close(stored, NULL);
        disk_close(hole, NULL);
    }
}

static void test_sparse_8t(void **state)
{
    (void)state;
    struct platter_disk *disk = sparse_disk(8ull << 40, 5ull << 40, "abc", 3);
    assert_tree(disk, 0, "a1bf3a5e26668c34ff73d361c5ae59fb64132774df73d31c79d8792456586918");
    disk_close(disk, NULL);
}

struct node_list {
    uint64_t next, stop_at;
    unsigned n, not_zero;
};

static int check_node(void *opaque, uint64_t offset, uint64_t length, const uint8_t digest[32])
{
    struct node_list *list = opaque;
    assert_int_equal(offset, list->next);
    char hex[65];
    for (int i = 0; i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    list->not_zero += strcmp(hex, zero_subtrees[1]) != 0;
    list->next += length;
    list->n++;
    return list->next >= list->stop_at;
}

static void test_nodes_in_order(void **state)
{
    (void)state;
    uint64_t size = (1ull << 32) + 512;
    struct platter_disk *disk = sparse_disk(size, 1ull << 30, "abc", 3);
    struct node_list list = {.stop_at = UINT64_MAX};
    struct platter_digest_options options = {
        .size = sizeof options, .node = check_node, .opaque = &list};
    uint8_t digest[32];
    assert_int_equal(ops_digest(disk, &options, digest, NULL), 0);
    assert_int_equal(list.next, size);
    assert_int_equal(list.n, 257);
    assert_int_equal(list.not_zero, 1);
    list = (struct node_list){.stop_at = 3 << 24};
    struct platter_error err;
    assert_int_equal(ops_digest(disk, &options, digest, &err), -ECANCELED);
    assert_int_equal(list.n, 3);
    disk_close(disk, NULL);
}

/* The message of FIPS 180-4's example that fits: "abc". */
static void test_plain(void **state)
{
    (void)state;
    struct platter_disk *disk = sparse_disk(3, 0, "abc", 3);
    struct platter_digest_options options = {.size = sizeof options,
                                             .algorithm = PLATTER_DIGEST_SHA256};
    uint8_t digest[32];
    assert_int_equal(ops_digest(disk, &options, digest, NULL), 0);
    assert_digest(digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    disk_close(disk, NULL);
    /* A million letters a, in pieces that threads read. */
    disk = zero_disk(1000000);
    for (uint64_t i = 0; i < 1000000; i++)
        disk_poke(disk, i, 'a');
    assert_int_equal(ops_digest(disk, &options, digest, NULL), 0);
    assert_digest(digest, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    disk_close(disk, NULL);
}

static void test_read_error(void **state)
{
    (void)state;
    for (int algorithm = PLATTER_DIGEST_TREE; algorithm <= PLATTER_DIGEST_SHA256; algorithm++) {
        struct platter_disk *disk = pattern_disk(40 << 20);
        disk_spoil(disk, 33 << 20);
        struct platter_digest_options options = {
            .size = sizeof options, .algorithm = (enum platter_digest_algorithm)algorithm};
        uint8_t digest[32];
        struct platter_error err = {0};
        assert_int_equal(ops_digest(disk, &options, digest, &err), -EIO);
        assert_int_equal(err.code, EIO);
        disk_close(disk, NULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zero_subtrees),    cmocka_unit_test(test_zero_disks),
        cmocka_unit_test(test_runs_equal_nodes), cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_stored_zeros),     cmocka_unit_test(test_sparse_8t),
        cmocka_unit_test(test_nodes_in_order),   cmocka_unit_test(test_plain),
        cmocka_unit_test(test_read_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
