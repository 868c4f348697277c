/* SPDX-License-Identifier: MIT */
/* Digests as text: what is printed is read again, in the length that names and sizes give; and what
 * is damaged, or made to be a trap, is refused. */
#include "unit.h"

#include <stdlib.h>

#include "base/ckd.h"
#include "base/memory.h"
#include "ops/digest_file.h"
#include "support/prng.h"

/* A disk whose nodes are random. */
static void make_disk(struct disk_digest *d, const char *name, uint64_t size, struct prng *p)
{
    struct tree *tree = malloc(sizeof *tree);
    *d = (struct disk_digest){
        .name = string_copy(name), .size = size, .n_nodes = div_up(size, TREE_NODE)};
    d->nodes = calloc(d->n_nodes + 1, sizeof *d->nodes);
    tree_init(tree, size);
    for (uint64_t i = 0; i < d->n_nodes; i++) {
        for (unsigned k = 0; k < TREE_HASH; k++)
            d->nodes[i][k] = (uint8_t)prng_next(p);
        tree_add(tree, d->nodes[i]);
    }
    tree_root(tree, d->root);
    free(tree);
}

static void make_file(struct digest_file *f, uint64_t seed)
{
    static const uint64_t sizes[] = {1,        512,           TREE_NODE,          TREE_NODE + 1,
                                     40 << 20, 2 * TREE_NODE, 257ull * TREE_NODE, 5ull << 30};
    struct prng p = {.state = seed};
    f->n = (unsigned)(prng_next(&p) % 5);
    f->disks = calloc(f->n + 1, sizeof *f->disks);
    for (unsigned i = 0; i < f->n; i++) {
        char *name = string_format("disk \"%u\" \xc3\xa4\n", i);
        make_disk(&f->disks[i], name, sizes[prng_next(&p) % 8], &p);
        free(name);
    }
}

static char *print(const struct digest_file *f, size_t *ret_len)
{
    char *text = NULL;
    assert_works(digest_file_print(f, &text, ret_len, &err));
    assert_int_equal(strlen(text), *ret_len);
    return text;
}

static void test_round_trip(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct digest_file f, got;
        size_t len;
        make_file(&f, seed);
        char *text = print(&f, &len);
        assert_works(digest_file_parse("a", text, len, &got, &err));
        assert_int_equal(got.n, f.n);
        for (unsigned i = 0; i < f.n; i++) {
            const struct disk_digest *a = &f.disks[i], *b = &got.disks[i];
            assert_string_equal(a->name, b->name);
            assert_int_equal(a->size, b->size);
            assert_int_equal(a->n_nodes, b->n_nodes);
            assert_memory_equal(a->root, b->root, TREE_HASH);
            assert_memory_equal(a->nodes, b->nodes, (size_t)a->n_nodes * TREE_HASH);
        }
        free(text);
        digest_file_free(&got);
        digest_file_free(&f);
    }
}

/* Room is left for it before the digests are known. */
static void test_length(void **state)
{
    (void)state;
    struct digest_file f;
    size_t known, before;
    make_file(&f, 4);
    assert_true(f.n > 1);
    char *text = print(&f, &known);
    for (unsigned i = 0; i < f.n; i++) {
        memset(f.disks[i].root, 0, TREE_HASH);
        memset(f.disks[i].nodes, 0, (size_t)f.disks[i].n_nodes * TREE_HASH);
    }
    char *blank = print(&f, &before);
    assert_int_equal(known, before);
    free(text);
    free(blank);
    digest_file_free(&f);
}

/* No change of a byte is taken for what was there, and none is read where it should not be. */
static void test_damage(void **state)
{
    (void)state;
    struct digest_file f, got;
    size_t len, refused = 0;
    struct prng p = {.state = 1};
    make_file(&f, 4);
    char *text = print(&f, &len);
    for (unsigned i = 0; i < 2000; i++) {
        size_t at = (size_t)(prng_next(&p) % len);
        char old = text[at];
        text[at] = (char)prng_next(&p);
        if (digest_file_parse("a", text, len, &got, NULL) < 0)
            refused++;
        else
            digest_file_free(&got);
        text[at] = old;
    }
    assert_true(refused > 1500);
    for (unsigned i = 0; i < 500; i++) {
        size_t cut = (size_t)(prng_next(&p) % (len - 3));
        char *copy = malloc(cut + 1);
        memcpy(copy, text, cut);
        assert_int_equal(digest_file_parse("a", copy, cut, &got, NULL), -PLATTER_ECORRUPT);
        free(copy);
    }
    free(text);
    digest_file_free(&f);
}

#define ROOT         "0000000000000000000000000000000000000000000000000000000000000000"
#define DISK(fields) "{\"platter-digest\": 1, \"disks\": [{" fields "}]}"

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"", "is no file of digests"},
        {"[]", "is no file of digests"},
        {"{\"disks\": []}", "is no file of digests"},
        {"{\"platter-digest\": 1}", "is no file of digests"},
        {"{\"platter-digest\": 1, \"platter-digest\": 1, \"disks\": []}", "duplicate"},
        {DISK("\"size\": 0"), "\"name\" of disk 0"},
        {DISK("\"name\": \"a\\u0000b\", \"size\": 0"), "\"name\" of disk 0"},
        {DISK("\"name\": \"a\""), "\"size\" of disk 0"},
        {DISK("\"name\": \"a\", \"size\": -1"), "\"size\" of disk 0"},
        {DISK("\"name\": \"a\", \"size\": 1e3"), "\"size\" of disk 0"},
        {DISK("\"name\": \"a\", \"size\": 5"), "\"digest\" of disk 0"},
        {DISK("\"name\": \"a\", \"size\": 5, \"digest\": \"00\""), "\"digest\" of disk 0"},
        {DISK("\"name\": \"a\", \"size\": 5, \"digest\": \"" ROOT "\""), "\"nodes\" of disk 0"},
        {DISK("\"name\": \"a\", \"size\": 5, \"digest\": \"" ROOT "\", \"nodes\": \"AAAA\""),
         "\"nodes\" of disk 0"},
        /* so many nodes that their bytes do not fit a number */
        {DISK("\"name\": \"a\", \"size\": 9223372036854775807, \"digest\": \"" ROOT
              "\", \"nodes\": \"AAAA\""),
         "\"nodes\" of disk 0"},
        {DISK("\"name\": \"a\", \"size\": 0, \"digest\": \"" ROOT "\", \"nodes\": \"\""),
         "what the nodes of that disk give"},
        {DISK("\"name\": \"a\", \"size\": 5, \"digest\": \"" ROOT
              "\", \"nodes\": \"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\""),
         "what the nodes of that disk give"},
        {DISK("\"name\": \"a\", \"size\": 5, \"digest\": \"" ROOT
              "\", \"nodes\": \"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA        =\""),
         "\"nodes\" of disk 0"},
    };
    struct digest_file got;
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_fails(digest_file_parse("a", cases[i].text, strlen(cases[i].text), &got, &err),
                     PLATTER_ECORRUPT, cases[i].words);
        assert_int_equal(got.n, 0);
    }
    const char *newer = "{\"platter-digest\": 2, \"disks\": []}";
    assert_fails(digest_file_parse("a", newer, strlen(newer), &got, &err), ENOTSUP, "version 2");
}

/* Each disk costs a tree: there are no more of them than an archive can have. */
static void test_many(void **state)
{
    (void)state;
    enum { MANY = 100000 };
    static const char front[] = "{\"platter-digest\": 1, \"disks\": [{}";
    char *text = malloc(sizeof front + 3 * MANY + 3);
    size_t len = sizeof front - 1;
    struct digest_file got;
    memcpy(text, front, len);
    for (unsigned i = 0; i < MANY; i++, len += 3)
        memcpy(text + len, ",{}", 3);
    memcpy(text + len, "]}", 2);
    assert_fails(digest_file_parse("a", text, len + 2, &got, &err), PLATTER_ECORRUPT, "255");
    free(text);
}

static void test_name(void **state)
{
    (void)state;
    struct disk_digest disk = {.name = (char *)(uintptr_t) "\xff"};
    struct digest_file f = {.disks = &disk, .n = 1};
    char *text;
    size_t len;
    assert_fails(digest_file_print(&f, &text, &len, &err), EILSEQ, "not UTF-8");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_length),
        cmocka_unit_test(test_damage),     cmocka_unit_test(test_refused),
        cmocka_unit_test(test_many),       cmocka_unit_test(test_name)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
