/* SPDX-License-Identifier: MIT */
/* Ciphers, hashes and LUKS headers. Vectors: IEEE 1619 (4, 10), RFC 6070, RFC 7914; the digests of
 * whole runs of sectors were made with OpenSSL. */
#include "unit.h"

#include <nettle/sha2.h>
#include <stdlib.h>

#include "base/cipher.h"
#include "base/cursor.h"
#include "format/luks1.h"

enum { SECTORS = 11, BYTES = SECTORS * CIPHER_SECTOR };

static const uint64_t first_sector = 0xfffffffa; /* 32 bits end within the run */

static void from_hex(const char *text, uint8_t *out)
{
    for (size_t i = 0; text[2 * i]; i++) {
        unsigned byte;
        assert_int_equal(sscanf(text + 2 * i, "%2x", &byte), 1);
        out[i] = (uint8_t)byte;
    }
}

static void assert_hex(const uint8_t *bytes, const char *text)
{
    uint8_t expected[128];
    from_hex(text, expected);
    assert_memory_equal(bytes, expected, strlen(text) / 2);
}

/* ---- ciphers --------------------------------------------------------------------------------- */

static void test_published_xts(void **state)
{
    (void)state;
    uint8_t key[64], bytes[CIPHER_SECTOR];
    struct cipher *c;

    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)i;
    from_hex("2718281828459045235360287471352631415926535897932384626433832795", key);
    assert_works(cipher_new("aes", "xts-plain64", key, 32, &c, &err));
    cipher_encrypt(c, 0, bytes, bytes, sizeof bytes);
    assert_hex(bytes, "27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c");
    cipher_decrypt(c, 0, bytes, bytes, sizeof bytes);
    cipher_free(c);

    from_hex("2718281828459045235360287471352662497757247093699959574966967627"
             "3141592653589793238462643383279502884197169399375105820974944592",
             key);
    assert_works(cipher_new("aes", "xts-plain64", key, 64, &c, &err));
    cipher_encrypt(c, 0xff, bytes, bytes, sizeof bytes);
    assert_hex(bytes, "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b");
    cipher_free(c);
}

static const struct {
    const char *name, *mode;
    size_t key_len;
    const char *sha256; /* of all sectors, encrypted; NULL: only there and back */
} runs[] = {
    {"aes", "xts-plain64", 32, "864a12589a1cd8eb668b379c855b5e19dc01de2f914cf1858aaca7aed7828059"},
    {"aes", "xts-plain", 32, "e209ace9eb616120add6a6eee287c8b71829dd2cb7d909c8a8eaa646f9808a34"},
    {"aes", "xts-plain64", 64, "8b53a8b90e4b48f46f141ac430589f79ce06c200f706972b3323c170203aa550"},
    {"aes", "xts-plain", 64, "6c885cd801dde33d6cda642658dc3103a4ac045a1ad2aab2064565bf56153b19"},
    {"aes", "cbc-plain64", 16, "fb24d3296d1324a90e910d0c1a424d620761a39fd3844426cae2deaa048f8619"},
    {"aes", "cbc-plain64", 24, "f9ce450b9d940d856c9b9fe02e327c50702b6bb4c05d96f4f754386c29788a81"},
    {"aes", "cbc-plain64", 32, "190b30faab6b08bd624dd4565dd7153134e93ff1b451de491cba369e7b7f9fa1"},
    {"aes", "cbc-essiv:sha256", 16,
     "b91ef4337e307e4b1bf3411933bb29269093af46e319f8736f80af0abe4837b1"},
    {"aes", "cbc-essiv:sha256", 32,
     "1c15cfc2d6981e42f1bb1c08e15d0a4db801ae7d37f4f5c708d04de4c22e7da4"},
    {"aes", "xts-essiv:sha256", 64,
     "7150011a2c23c936eadc1b91069054e8b0eb6f2184881c9a412aaad894531b8d"},
    {"aes", "ecb", 32, "e334f3e8787cb3135944daca854f539b2d3ea9a88354bb72edd4d90029a20e66"},
    {"camellia", "cbc-plain64", 32,
     "427250ad150435a4ded8070040d518bc2093de040ff22c79e316038c301c5480"},
    {"cast5", "cbc-plain64", 16,
     "3ff9257b875c0cf2783bf5d17f9d99cb761c17e649e101b0381b731b0b3f6fd7"},
    {"serpent", "xts-plain64", 64, NULL},
    {"serpent", "cbc-essiv:sha256", 16, NULL},
    {"twofish", "xts-plain64", 32, NULL},
    {"twofish", "cbc-plain64", 24, NULL},
    {"aes", "ctr-plain64", 32, "fb6cb0d3319089479b7aa0d6d755be954865096a812244dfc64c8693327e3416"},
    {"aes", "ecb-plain64", 32, "e334f3e8787cb3135944daca854f539b2d3ea9a88354bb72edd4d90029a20e66"},
};

static void check_run(size_t i)
{
    uint8_t key[64], plain[BYTES], sealed[BYTES], bytes[BYTES], digest[32];
    struct sha256_ctx sha;
    struct cipher *c;

    for (size_t k = 0; k < BYTES; k++)
        plain[k] = (uint8_t)(k * 7 + k / 256);
    for (size_t k = 0; k < sizeof key; k++)
        key[k] = (uint8_t)(k * 13 + 5);
    assert_works(cipher_new(runs[i].name, runs[i].mode, key, runs[i].key_len, &c, &err));
    cipher_encrypt(c, first_sector, sealed, plain, BYTES);
    assert_memory_not_equal(sealed, plain, CIPHER_SECTOR);
    if (runs[i].sha256) {
        sha256_init(&sha);
        sha256_update(&sha, BYTES, sealed);
        sha256_digest(&sha, sizeof digest, digest);
        assert_hex(digest, runs[i].sha256);
    }
    cipher_decrypt(c, first_sector, bytes, sealed, BYTES);
    assert_memory_equal(bytes, plain, BYTES);
    /* One sector alone, out of the middle. */
    cipher_decrypt(c, first_sector + 9, bytes, sealed + 9 * CIPHER_SECTOR, CIPHER_SECTOR);
    assert_memory_equal(bytes, plain + 9 * CIPHER_SECTOR, CIPHER_SECTOR);
    cipher_free(c);
}

static void test_runs_of_sectors(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++)
        check_run(i);
}

static void test_unknown_ciphers(void **state)
{
    (void)state;
    assert_fails(cipher_check("rot13", "xts-plain64", 64, &err), ENOTSUP, "rot13");
    assert_fails(cipher_check("aes", "xts-plain64", 48 + 1, &err), ENOTSUP, "49 bytes");
    assert_fails(cipher_check("aes", "xts-plain64", 16, &err), ENOTSUP, "16 bytes");
    assert_fails(cipher_check("aes", "gcm-plain64", 32, &err), ENOTSUP, "gcm-plain64");
    assert_fails(cipher_check("aes", "xts", 64, &err), ENOTSUP, "\"xts\"");
    assert_fails(cipher_check("aes", "cbc-essiv:md4", 32, &err), ENOTSUP, "essiv:md4");
    assert_fails(cipher_check("aes", "ecb-\xff", 32, &err), ENOTSUP, "ecb-");
    assert_fails(cipher_check("aes", "cbc-essiv:sha512", 32, &err), ENOTSUP, "64 bytes");
    assert_fails(cipher_check("cast5", "xts-plain64", 32, &err), ENOTSUP, "cast5");
}

/* ---- hashes ---------------------------------------------------------------------------------- */

static void derive(const char *hash, const char *password, const char *salt, uint32_t n, size_t len,
                   const char *expected)
{
    uint8_t out[128];
    assert_works(pbkdf2_derive(hash_find(hash), password, strlen(password), salt, strlen(salt), n,
                               out, len, &err));
    assert_hex(out, expected);
}

static void test_pbkdf2(void **state)
{
    (void)state;
    derive("sha1", "password", "salt", 4096, 20, "4b007901b765489abead49d926f721d065a429c1");
    derive("sha1", "passwordPASSWORDpassword", "saltSALTsaltSALTsaltSALTsaltSALTsalt", 4096, 25,
           "3d2eec4fe41c849b80c8d83662c0e44a8b291a964cf2f07038");
    derive("sha256", "passwd", "salt", 1, 64,
           "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc"
           "49ca9cccf179b645991664b39d77ef317c71b845b1e30bd509112041d3a19783");
    static const char *const more[][2] = {
        {"sha224", "693f0e50cd21dd2d363f4d5aaaff3b9fb42be40e439c37129eee76e7"},
        {"sha384", "2db2ed2c09b45b6b561c69151fb8839e055e31459a90a0801061ab618ff250bc"},
        {"sha512", "81ae3c777968c5973977d331c9bcf37039873f851168a0f9b1917df60178d5e1"},
        {"ripemd160", "7d73e7796d2bde51b8b11b4565b7d31592cc61b16600e4769a52c62f3eded5c3"}};
    for (size_t i = 0; i < sizeof more / sizeof *more; i++)
        derive(more[i][0],
               "passphrase passphrase passphrase passphrase passphrase passphrase passphrase "
               "passphrase passphrase ",
               "salt", 77, strlen(more[i][1]) / 2, more[i][1]);
    assert_null(hash_find("md4"));
}

static void test_iterations(void **state)
{
    (void)state;
    uint32_t n;
    assert_works(pbkdf2_iterations(hash_find("sha256"), 64, 0, 1000, &n, &err));
    assert_int_equal(n, 1000);
    assert_works(pbkdf2_iterations(hash_find("sha256"), 64, 3600000, 1000, &n, &err));
    assert_true(n > 1000000);
}

/* ---- LUKS ------------------------------------------------------------------------------------ */

static struct secret secret_of(const char *text)
{
    struct secret s;
    assert_works(secret_new(&s, &err));
    s.len = strlen(text);
    memcpy(s.bytes, text, s.len);
    return s;
}

/* A new volume that opens with "one", in *area. */
static void make_volume(const char *options, struct luks1_area *area)
{
    static const struct option_def defs[] = {LUKS1_OPTIONS(""), {0}};
    struct option_values *values;
    struct luks1_choice choice;
    struct secret one = secret_of("one");

    assert_works(options_parse(defs, options, &values, &err));
    assert_works(luks1_choose(values, "", &choice, &err));
    options_free(values);
    *area = (struct luks1_area){.len = luks1_area_len(&choice)};
    assert_works(stream_memory_open("volume", 16 << 20, &area->stream, &err));
    assert_works(stream_resize(area->stream, area->len, &err));
    assert_works(luks1_create(&choice, area, &one, &err));
    secret_wipe(&one);
}

static int open_with(const struct luks1_area *area, const char *text, uint8_t key[CIPHER_MAX_KEY],
                     unsigned *slot, struct platter_error *err)
{
    struct luks1 l;
    struct secret s = secret_of(text);
    int r = luks1_load(area, &l, err);
    if (r == 0)
        r = luks1_unlock(area, &l, &s, 0, 0, key, slot, err);
    secret_wipe(&s);
    return r;
}

static void test_slots(void **state)
{
    (void)state;
    struct luks1_area area;
    struct luks1 l;
    uint8_t key[CIPHER_MAX_KEY], same[CIPHER_MAX_KEY];
    unsigned slot = 99;
    struct secret two = secret_of("two");

    make_volume("iter-time=1", &area);
    assert_works(open_with(&area, "one", key, &slot, &err));
    assert_int_equal(slot, 0);
    assert_fails(open_with(&area, "two", same, &slot, &err), EACCES, "opens none");
    for (unsigned i = 1; i < LUKS1_SLOTS; i++) {
        assert_works(luks1_load(&area, &l, &err));
        assert_works(luks1_slot_fill(&area, &l, i, key, &two, 1, &err));
    }
    assert_fails(luks1_slot_fill(&area, &l, 6, key, &two, 1, &err), EEXIST, "slot 6");
    assert_works(open_with(&area, "two", same, &slot, &err));
    assert_int_equal(slot, 1);
    assert_memory_equal(key, same, sizeof key);
    for (unsigned i = 1; i < LUKS1_SLOTS; i++)
        assert_works(luks1_slot_clear(&area, &l, i, &err));
    assert_fails(open_with(&area, "two", same, &slot, &err), EACCES, "opens none");
    assert_works(open_with(&area, "one", same, &slot, &err));
    assert_works(luks1_slot_clear(&area, &l, 0, &err));
    assert_fails(open_with(&area, "one", same, &slot, &err), EACCES, "no active");
    secret_wipe(&two);
    stream_close(area.stream);
}

/* What was cleared does not open again when somebody puts the header back: its material is gone. */
static void test_material_goes(void **state)
{
    (void)state;
    struct luks1_area area;
    struct luks1 l;
    uint8_t header[LUKS1_HEADER], key[CIPHER_MAX_KEY];
    unsigned slot;

    make_volume("iter-time=1,cipher-alg=aes-192,cipher-mode=cbc,ivgen-alg=essiv", &area);
    assert_works(open_with(&area, "one", key, &slot, &err));
    assert_works(stream_pread(area.stream, header, sizeof header, 0, &err));
    assert_works(luks1_load(&area, &l, &err));
    assert_works(luks1_slot_clear(&area, &l, 0, &err));
    assert_works(stream_pwrite(area.stream, header, sizeof header, 0, &err));
    assert_fails(open_with(&area, "one", key, &slot, &err), EACCES, "opens none");
    stream_close(area.stream);
}

/* Each field of a good header, made impossible. */
static void test_damaged_headers(void **state)
{
    (void)state;
    static const struct {
        unsigned at, len;
        uint64_t value;
        int code;
        const char *words;
    } damage[] = {
        {0, 1, 'l', PLATTER_ECORRUPT, "no LUKS header"},
        {6, 2, 2, ENOTSUP, "version 2"},
        {8, 1, 'x', ENOTSUP, "\"xes\""},
        {40, 1, 'y', ENOTSUP, "yts-plain64"},
        {72, 1, 'z', ENOTSUP, "\"zha256\""},
        {104, 4, 8, PLATTER_ECORRUPT, "key slot 0 has its material"},
        {108, 4, 0x10000, PLATTER_ECORRUPT, "length of the key"},
        {108, 4, 63, ENOTSUP, "63 bytes"},
        {164, 4, 0, PLATTER_ECORRUPT, "digest"},
        {208, 4, 1, PLATTER_ECORRUPT, "state of key slot 0"},
        {212, 4, 0, PLATTER_ECORRUPT, "iterations of key slot 0"},
        {208 + 40, 4, 7, PLATTER_ECORRUPT, "key slot 0 has its material"},
        {208 + 48 + 40, 4, 8, PLATTER_ECORRUPT, "0 and 1"},
        {208 + 7 * 48 + 40, 4, 0xffffffff, PLATTER_ECORRUPT, "key slot 7 has its material"},
        {208 + 7 * 48 + 44, 4, 4001, PLATTER_ECORRUPT, "stripes of key slot 7"},
    };
    struct luks1_area area;
    uint8_t good[LUKS1_HEADER], bad[LUKS1_HEADER];
    struct luks1 l;

    make_volume("iter-time=1", &area);
    assert_works(stream_pread(area.stream, good, sizeof good, 0, &err));
    for (size_t i = 0; i < sizeof damage / sizeof *damage; i++) {
        memcpy(bad, good, sizeof bad);
        put_be(bad + damage[i].at, damage[i].len, damage[i].value);
        assert_fails(luks1_decode("volume", 0, bad, area.len, &l, &err), damage[i].code,
                     damage[i].words);
    }
    for (unsigned at = 8; at <= 72; at += 32) {
        memcpy(bad, good, sizeof bad);
        memset(bad + at, 'a', 32);
        assert_fails(luks1_decode("volume", 0, bad, area.len, &l, &err), PLATTER_ECORRUPT,
                     "zero byte");
    }
    assert_fails(luks1_decode("volume", 0, good, area.len - 4 * 512 - 1, &l, &err),
                 PLATTER_ECORRUPT, "key slot 7");
    assert_works(luks1_decode("volume", 0, good, area.len, &l, &err));
    luks1_encode(&l, bad);
    assert_memory_equal(good, bad, sizeof good);
    area.len = 500;
    assert_fails(luks1_load(&area, &l, &err), PLATTER_ECORRUPT, "500 bytes");
    stream_close(area.stream);
}

static void test_limit(void **state)
{
    (void)state;
    struct luks1_area area;
    struct luks1 l;
    struct secret one = secret_of("one");
    uint8_t key[CIPHER_MAX_KEY];
    unsigned slot;

    make_volume("iter-time=1", &area);
    assert_works(luks1_load(&area, &l, &err));
    l.slots[0].iterations = UINT32_MAX;
    assert_fails(luks1_unlock(&area, &l, &one, 0, 0, key, &slot, &err), EOVERFLOW, "key slot 0");
    l.iterations = UINT32_MAX;
    assert_fails(luks1_unlock(&area, &l, &one, 0, 0, key, &slot, &err), EOVERFLOW, "digest");
    secret_wipe(&one);
    stream_close(area.stream);
}

/* Answers with one text after the other. */
struct teller {
    struct name_opener opener;
    const char *const *texts;
    unsigned asked;
};

static int tell(const struct name_opener *opener, const struct platter_secret *question,
                struct secret *ret, struct platter_error *err)
{
    struct teller *t = (struct teller *)(uintptr_t)opener;
    assert_int_equal(question->attempt, t->asked);
    const char *text = t->texts[t->asked++];
    if (!text)
        return fail(err, ENOKEY, "there is no more");
    ret->len = strlen(text);
    memcpy(ret->bytes, text, ret->len);
    return 0;
}

static int ask_for(const struct luks1_area *area, const struct luks1 *l, struct teller *t,
                   struct cipher **ret, struct platter_error *err)
{
    t->opener.secret = tell;
    t->asked = 0;
    return luks1_open_cipher(area, l, &t->opener, ret, err);
}

/* Secrets are asked for until one fits; a slot that is too much work keeps none from the others. */
static void test_ask(void **state)
{
    (void)state;
    static const char *const wrong[] = {"none", "no", NULL}, *const none[] = {NULL},
                             *const right[] = {"none", "two", "one", NULL};
    struct teller t = {.texts = wrong};
    struct luks1_area area;
    struct luks1 l;
    struct secret two = secret_of("two");
    uint8_t key[CIPHER_MAX_KEY];
    struct cipher *cipher;
    unsigned slot;

    make_volume("iter-time=1", &area);
    assert_works(open_with(&area, "one", key, &slot, &err));
    assert_works(luks1_load(&area, &l, &err));
    assert_works(luks1_slot_fill(&area, &l, 3, key, &two, 1, &err));
    assert_fails(ask_for(&area, &l, &t, &cipher, &err), EACCES, "opens none");
    t.texts = none;
    assert_fails(ask_for(&area, &l, &t, &cipher, &err), ENOKEY, "no more");
    t.texts = right;
    l.slots[0].iterations = UINT32_MAX;
    assert_works(ask_for(&area, &l, &t, &cipher, &err));
    assert_int_equal(t.asked, 2);
    cipher_free(cipher);
    l.slots[3].iterations = LUKS1_KDF_LIMIT + 1;
    assert_fails(ask_for(&area, &l, &t, &cipher, &err), EOVERFLOW, "key slot 3");
    assert_int_equal(t.asked, 4);
    l.iterations = UINT32_MAX; /* nobody is asked */
    assert_fails(ask_for(&area, &l, &t, &cipher, &err), EOVERFLOW, "digest");
    assert_int_equal(t.asked, 0);
    secret_wipe(&two);
    stream_close(area.stream);
}

/* What would not be opened again is not made. */
static void test_too_long(void **state)
{
    (void)state;
    struct luks1_area area;
    struct luks1 l;
    struct secret two = secret_of("two");
    uint8_t key[CIPHER_MAX_KEY];
    unsigned slot;

    make_volume("iter-time=1", &area);
    assert_works(open_with(&area, "one", key, &slot, &err));
    assert_works(luks1_load(&area, &l, &err));
    assert_fails(luks1_slot_fill(&area, &l, 1, key, &two, 360000000, &err), EINVAL, "iter-time");
    assert_works(luks1_load(&area, &l, &err));
    assert_false(l.slots[1].active);
    secret_wipe(&two);
    stream_close(area.stream);
}

/* A key lasts as long as its last owner. */
static void test_shared_cipher(void **state)
{
    (void)state;
    static const uint8_t key[32] = {1, 2, 3};
    uint8_t bytes[CIPHER_SECTOR] = {0}, same[CIPHER_SECTOR] = {0};
    struct cipher *c;
    assert_works(cipher_new("aes", "xts-plain64", key, sizeof key, &c, &err));
    cipher_encrypt(c, 7, bytes, bytes, sizeof bytes);
    cipher_free(cipher_share(c));
    cipher_encrypt(c, 7, same, same, sizeof same);
    assert_memory_equal(bytes, same, sizeof same);
    cipher_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_xts),   cmocka_unit_test(test_runs_of_sectors),
        cmocka_unit_test(test_unknown_ciphers), cmocka_unit_test(test_pbkdf2),
        cmocka_unit_test(test_iterations),      cmocka_unit_test(test_slots),
        cmocka_unit_test(test_material_goes),   cmocka_unit_test(test_damaged_headers),
        cmocka_unit_test(test_limit),           cmocka_unit_test(test_ask),
        cmocka_unit_test(test_too_long),        cmocka_unit_test(test_shared_cipher),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
