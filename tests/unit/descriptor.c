/* SPDX-License-Identifier: MIT */
/* The text descriptor of a VMDK: its grammar, changes to it, and the encodings of its names. */
#include "unit.h"

#include <time.h>

#include "format/vmdk/vmdk.h"

#include "support/must.h"

#define KEYS                                                                                       \
    "# Disk DescriptorFile\n"                                                                      \
    "version=1\n"                                                                                  \
    "CID=12345678\n"                                                                               \
    "parentCID=ffffffff\n"                                                                         \
    "createType=\"custom\"\n"
#define MARK     "\xef\xbb\xbf"
#define EXTENT   "RW 63 FLAT \"a.vmdk\" 0\n"
#define DATABASE "\n# The Disk Data Base\n#DDB\n\nddb.adapterType = \"ide\"\n"

static struct budget *budget;

static int parse(const char *text, struct descriptor **ret, struct platter_error *err)
{
    return descriptor_parse(budget, "x.vmdk", (const uint8_t *)text, strlen(text), false, ret, err);
}

static struct descriptor *parsed(const char *text)
{
    struct descriptor *d = NULL;
    assert_works(parse(text, &d, &err));
    return d;
}

/* ---- grammar --------------------------------------------------------------------------------- */

static void test_spellings(void **state)
{
    (void)state;
    struct descriptor *d = parsed("\xef\xbb\xbf# disk descriptorfile \r\n"
                                  " VERSION = 3 \r\n\t\r\n"
                                  "cid=00AbC\r\n"
                                  "parentCID=\"fffffffe\"\r\n"
                                  "CreateType=\"2GbMaxExtentFlat\" \t\r\n"
                                  "unknown.key=\"a = b\"\r\n"
                                  "   rw  4096\tflat   \"with blanks.vmdk\"  8 uuid devid\r\n"
                                  "RDONLY 1 VMFS \"v\"\r\n"
                                  "NOACCESS 7 ZERO\r\n"
                                  "RW 2 VmfsSparse \"d\"\r\n"
                                  "RW 3 SESPARSE \"e\"\r\n"
                                  "RW 4 VMFSRDM \"f\"\r\n"
                                  "RW 5 VMFSRAW \"g\"\r\n"
                                  "RW 6 SOMETHING \"h\"\r\n"
                                  "#ddb.comment = \"no\"\r\n"
                                  "ddb.comment = un quoted");
    assert_int_equal(d->cid, 0xabc);
    assert_int_equal(d->parent_cid, VMDK_LONG_CID);
    assert_string_equal(descriptor_value(d, "createtype"), "2GbMaxExtentFlat");
    assert_string_equal(descriptor_value(d, "Unknown.Key"), "a = b");
    assert_string_equal(descriptor_value(d, "ddb.comment"), "un quoted");
    assert_int_equal(d->n_extents, 8);
    static const struct descriptor_extent right[] = {
        {ACCESS_WRITE, TYPE_FLAT, "flat", 4096, "with blanks.vmdk", 8},
        {ACCESS_READ, TYPE_VMFS, "VMFS", 1, "v", 0},
        {ACCESS_NONE, TYPE_ZERO, "ZERO", 7, NULL, 0},
        {ACCESS_WRITE, TYPE_VMFSSPARSE, "VmfsSparse", 2, "d", 0},
        {ACCESS_WRITE, TYPE_SESPARSE, "SESPARSE", 3, "e", 0},
        {ACCESS_WRITE, TYPE_VMFSRDM, "VMFSRDM", 4, "f", 0},
        {ACCESS_WRITE, TYPE_VMFSRAW, "VMFSRAW", 5, "g", 0},
        {ACCESS_WRITE, TYPE_OTHER, "SOMETHING", 6, "h", 0},
    };
    for (unsigned i = 0; i < d->n_extents; i++) {
        const struct descriptor_extent *x = &d->extents[i];
        assert_int_equal(x->access, right[i].access);
        assert_int_equal(x->type, right[i].type);
        assert_string_equal(x->word, right[i].word);
        assert_int_equal(x->sectors, right[i].sectors);
        assert_int_equal(x->offset, right[i].offset);
        assert_int_equal(x->file == NULL, right[i].file == NULL);
        if (x->file)
            assert_string_equal(x->file, right[i].file);
    }
    descriptor_free(d);
}

/* What is taken for a descriptor, when the format is guessed: section 2. */
static void test_probe(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool is;
    } cases[] = {
        {"# Disk DescriptorFile\nversion=1\ncreateType=\"x\"\n", true},
        {"\xef\xbb\xbf# disk descriptorfile \r\nversion=1\r\nCREATETYPE=x\r\n", true},
        {"\n \t\n# a comment\n version = \"3\"\ncreateType=x", true},
        {"# a comment\n# Disk DescriptorFile\ncreateType=x", true},
        {"version=4\ncreateType=x", false},
        {"version=1\nCID=1\n", false},
        {"CID=1\nversion=1\ncreateType=x", false},
        {"# Disk DescriptorFil\ncreateType=x", false},
        {"", false},
        {"\n\n", false},
        {"\xef\xbb\xbf", false},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        /* Of exactly its size, so that a sanitizer sees a look behind its end. */
        size_t len = strlen(cases[i].text);
        uint8_t *bytes = malloc(len);
        MUST(bytes || len == 0);
        if (len)
            memcpy(bytes, cases[i].text, len);
        if (descriptor_probe(bytes, len) != cases[i].is)
            fail_msg("case %u: %s", i, cases[i].text);
        free(bytes);
    }
    static const uint8_t nul[] = "# Disk DescriptorFile\0version=1\ncreateType=x";
    assert_false(descriptor_probe(nul, sizeof nul));
}

static void test_first_of_duplicates_wins(void **state)
{
    (void)state;
    struct descriptor *d = parsed(KEYS "CID=1\ncreateType=\"vmfs\"\n" EXTENT);
    assert_int_equal(d->cid, 0x12345678);
    assert_string_equal(descriptor_value(d, "createType"), "custom");
    assert_int_equal(d->lines[1].pos, strlen("# Disk DescriptorFile\nversion=1\nCID="));
    descriptor_free(d);
}

static void test_errors(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int code;
        const char *words;
    } cases[] = {
        {KEYS, PLATTER_ECORRUPT, "names no extent"},
        {KEYS "RW 63 FLAT a.vmdk 0\n", PLATTER_ECORRUPT, "\"RW 63 FLAT a.vmdk 0\""},
        {KEYS "RW -1 FLAT \"a\" 0\n", PLATTER_ECORRUPT, "RW -1 FLAT"},
        {KEYS "RW 63 FLAT \"a\" -8\n", PLATTER_ECORRUPT, "ACCESS SECTORS TYPE"},
        {KEYS "RW 63 FLAT \"\" 0\n", PLATTER_ECORRUPT, "ACCESS SECTORS TYPE"},
        {KEYS "RW 63 FLAT \"a\x01\" 0\n", PLATTER_ECORRUPT, "ACCESS SECTORS TYPE"},
        {KEYS "RW 63 FLAT \"a 0\n", PLATTER_ECORRUPT, "ACCESS SECTORS TYPE"},
        {KEYS "RW 63\n", PLATTER_ECORRUPT, "\"RW 63\""},
        {KEYS "RW\n", PLATTER_ECORRUPT, "\"RW\""},
        {KEYS "RW 18014398509481984 FLAT \"a\" 0\n", PLATTER_ECORRUPT, "ACCESS SECTORS TYPE"},
        {KEYS "RW 36893488147419103233 FLAT \"a\" 0\n", PLATTER_ECORRUPT, "ACCESS SECTORS TYPE"},
        {KEYS "READWRITE 63 FLAT \"a\" 0\n", PLATTER_ECORRUPT, "neither a key nor an extent"},
        {KEYS EXTENT "RDWR 63 FLAT \"a=b.vmdk\" 0\n", PLATTER_ECORRUPT,
         "neither a key nor an extent"},
        {KEYS "= 7\n" EXTENT, PLATTER_ECORRUPT, "neither a key nor an extent"},
        {"CID=1\nparentCID=1\ncreateType=\"x\"\n" EXTENT, PLATTER_ECORRUPT, "no version"},
        {"version=4\nCID=1\nparentCID=1\ncreateType=\"x\"\n" EXTENT, ENOTSUP, "version \"4\""},
        {"version=1\nparentCID=1\ncreateType=\"x\"\n" EXTENT, PLATTER_ECORRUPT, "no CID"},
        {"version=1\nCID=1\ncreateType=\"x\"\n" EXTENT, PLATTER_ECORRUPT, "no parentCID"},
        {"version=1\nCID=1\nparentCID=1\n" EXTENT, PLATTER_ECORRUPT, "no createType"},
        {"version=1\nCID=123456789\nparentCID=1\n" EXTENT, PLATTER_ECORRUPT, "1 to 8 hex"},
        {"version=1\nCID=\nparentCID=1\n" EXTENT, PLATTER_ECORRUPT, "1 to 8 hex"},
        {"version=1\nCID=0x12\nparentCID=1\n" EXTENT, PLATTER_ECORRUPT, "1 to 8 hex"},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct descriptor *d = NULL;
        assert_fails(parse(cases[i].text, &d, &err), cases[i].code, cases[i].words);
    }
}

/* KEYS and n times a line. */
static char *repeated(const char *line, size_t n)
{
    size_t len = strlen(line);
    char *text = malloc(sizeof KEYS + n * len);
    MUST(text);
    strcpy(text, KEYS);
    for (size_t i = 0; i < n; i++)
        strcpy(text + sizeof KEYS - 1 + i * len, line);
    return text;
}

static void test_limits(void **state)
{
    (void)state;
    struct descriptor *d = NULL;
    char *text = repeated("RW 1 ZERO\n", VMDK_MAX_EXTENTS);
    assert_works(parse(text, &d, &err));
    assert_int_equal(d->n_extents, VMDK_MAX_EXTENTS);
    descriptor_free(d);
    free(text);
    text = repeated("RW 1 ZERO\n", VMDK_MAX_EXTENTS + 1);
    assert_fails(parse(text, &d, &err), PLATTER_ECORRUPT, "more than 4096 extents");
    free(text);
    text = repeated("\n", VMDK_MAX_LINES);
    assert_fails(parse(text, &d, &err), PLATTER_ECORRUPT, "more than 65536 lines");
    free(text);
}

/* ---- changes --------------------------------------------------------------------------------- */

static struct descriptor_edit *edit_of(const char *text)
{
    struct descriptor_edit *e = NULL;
    assert_works(descriptor_edit_text(budget, "x.vmdk", text, strlen(text), &e, &err));
    return e;
}

/* Ends the edit, whose text must be this one. */
static void expect(struct descriptor_edit *e, const char *right)
{
    const char *text;
    size_t len;
    assert_works(descriptor_edit_result(e, &text, &len, &err));
    char *got = strndup(text, len);
    assert_string_equal(got, right);
    free(got);
    descriptor_edit_drop(e);
}

static void expect_failure(struct descriptor_edit *e, int code, const char *words)
{
    const char *text;
    size_t len;
    assert_fails(descriptor_edit_result(e, &text, &len, &err), code, words);
    descriptor_edit_drop(e);
}

static void test_nothing_changes_nothing(void **state)
{
    (void)state;
    static const char odd[] = "\n \t\n  version = 1 \r\nCID=1\n\n\nRW 1 ZERO\n# x\r\nno newline";
    struct descriptor_edit *e = edit_of(odd);
    descriptor_edit_remove(e, "not.there");
    expect(e, odd);
}

static void test_values(void **state)
{
    (void)state;
    struct descriptor_edit *e = edit_of(KEYS "\n" EXTENT DATABASE);
    descriptor_edit_set_cid(e, "CID", 0xabc);
    descriptor_edit_set(e, "parentcid", "00000001");
    descriptor_edit_set(e, "createType", "vmfs");
    descriptor_edit_set(e, "ddb.adapterType", "lsilogic");
    expect(e, "# Disk DescriptorFile\nversion=1\nCID=00000abc\nparentCID=00000001\n"
              "createType=\"vmfs\"\n\n" EXTENT
              "\n# The Disk Data Base\n#DDB\n\nddb.adapterType = \"lsilogic\"\n");
}

/* Only the value changes: blanks, quotes and what stands behind it stay. */
static void test_spelling_stays(void **state)
{
    (void)state;
    struct descriptor_edit *e = edit_of("version=1\r\n  CID \t=  \"1\" \t\r\nparentCID=2\r\n"
                                        "hint = a b \r\nRW\t7  FLAT \"a\"  0  x y\r\n");
    descriptor_edit_set(e, "CID", "12345678");
    descriptor_edit_set(e, "hint", "c d");
    descriptor_edit_sectors(e, 0, 1234567890123);
    descriptor_edit_file(e, 0, "longer.vmdk");
    expect(e, "version=1\r\n  CID \t=  \"12345678\" \t\r\nparentCID=2\r\n"
              "hint = \"c d\" \r\nRW\t1234567890123  FLAT \"longer.vmdk\"  0  x y\r\n");
}

static void test_new_keys(void **state)
{
    (void)state;
    struct descriptor_edit *e = edit_of(KEYS "\n# Extents\n" EXTENT DATABASE);
    descriptor_edit_set(e, "parentFileNameHint", "base.vmdk");
    descriptor_edit_set(e, "ddb.longContentID", "0123");
    expect(e, KEYS "parentFileNameHint=\"base.vmdk\"\n\n# Extents\n" EXTENT DATABASE
                   "ddb.longContentID = \"0123\"\n");
    e = edit_of("version=1\r\nparentCID=2\r\nRW 1 ZERO");
    descriptor_edit_set(e, "CID", "00000001");
    descriptor_edit_set(e, "ddb.uuid", "u");
    expect(e, "version=1\r\nCID=00000001\r\nparentCID=2\r\nRW 1 ZERO\r\nddb.uuid = \"u\"\r\n");
}

/* Nothing goes in front of the mark that a text of Windows begins with, and nothing takes it away.
 */
static void test_mark_stays_first(void **state)
{
    (void)state;
    struct descriptor_edit *e = edit_of(MARK EXTENT);
    descriptor_edit_set(e, "CID", "00000001");
    expect(e, MARK "CID=00000001\n" EXTENT);
    e = edit_of(MARK "a=1\n" EXTENT "RW 1 ZERO\n");
    descriptor_edit_remove(e, "a");
    descriptor_edit_remove_extent(e, 0);
    expect(e, MARK "RW 1 ZERO\n");
    e = edit_of(MARK EXTENT "a=1\n");
    descriptor_edit_remove(e, "a");
    descriptor_edit_remove_extent(e, 0);
    descriptor_edit_set(e, "CID", "00000001");
    expect(e, MARK "CID=00000001\n");
}

static void test_removed_keys(void **state)
{
    (void)state;
    struct descriptor_edit *e = edit_of("a=1\nb=2\nA = 3\n" EXTENT "a=4");
    descriptor_edit_remove(e, "a");
    expect(e, "b=2\n" EXTENT);
}

/* As many as there can be, each not moving all that is behind it. */
static void test_many_removed_keys(void **state)
{
    (void)state;
    char *text = repeated("ddb.x=12345\n", VMDK_MAX_LINES - 10);
    clock_t start = clock();
    struct descriptor_edit *e = edit_of(text);
    descriptor_edit_remove(e, "ddb.x");
    expect(e, KEYS);
    assert_true(clock() - start < CLOCKS_PER_SEC);
    free(text);
}

static void test_extents(void **state)
{
    (void)state;
    struct descriptor_edit *e = edit_of(KEYS "\n" EXTENT "# here\nRW 9 ZERO\n" DATABASE);
    struct descriptor_extent flat = {ACCESS_WRITE, TYPE_FLAT, NULL, 5, "b.vmdk", 0};
    struct descriptor_extent vmfs = {ACCESS_READ, TYPE_VMFS, NULL, 6, "c.vmdk", 0};
    struct descriptor_extent zero = {ACCESS_NONE, TYPE_ZERO, NULL, 7, NULL, 0};
    descriptor_edit_sectors(e, 1, 10);
    descriptor_edit_add_extent(e, &flat);
    descriptor_edit_add_extent(e, &vmfs);
    descriptor_edit_add_extent(e, &zero);
    descriptor_edit_remove_extent(e, 0);
    expect(e, KEYS "\n# here\nRW 10 ZERO\nRW 5 FLAT \"b.vmdk\" 0\nRDONLY 6 VMFS \"c.vmdk\"\n"
                   "NOACCESS 7 ZERO\n" DATABASE);
    e = edit_of(KEYS DATABASE);
    descriptor_edit_add_extent(e, &flat);
    expect(e, KEYS "RW 5 FLAT \"b.vmdk\" 0\n" DATABASE);
}

/* As many as there can be, and not by looking through all of the text for each. */
static void test_many_extents(void **state)
{
    (void)state;
    struct descriptor_edit *e = edit_of(KEYS "\n" EXTENT DATABASE);
    char name[32];
    for (unsigned i = 1; i < VMDK_MAX_EXTENTS; i++) {
        snprintf(name, sizeof name, "piece-%u.vmdk", i);
        struct descriptor_extent x = {ACCESS_WRITE, TYPE_SPARSE, NULL, i, name, 0};
        descriptor_edit_add_extent(e, &x);
    }
    const char *text;
    size_t len;
    struct descriptor *d;
    assert_works(descriptor_edit_result(e, &text, &len, &err));
    assert_works(descriptor_parse(budget, "x.vmdk", (const uint8_t *)text, len, true, &d, &err));
    assert_int_equal(d->n_extents, VMDK_MAX_EXTENTS);
    for (unsigned i = 1; i < VMDK_MAX_EXTENTS; i++) {
        snprintf(name, sizeof name, "piece-%u.vmdk", i);
        assert_int_equal(d->extents[i].sectors, i);
        assert_string_equal(d->extents[i].file, name);
    }
    assert_string_equal(descriptor_value(d, "ddb.adapterType"), "ide");
    descriptor_free(d);
    descriptor_edit_drop(e);
}

static void test_refused_changes(void **state)
{
    (void)state;
    struct descriptor_edit *e = edit_of(KEYS EXTENT);
    descriptor_edit_sectors(e, 1, 10);
    descriptor_edit_set(e, "CID", "00000001"); /* does nothing any more */
    expect_failure(e, EINVAL, "no extent 1");
    e = edit_of(KEYS EXTENT);
    descriptor_edit_set(e, "parentFileNameHint", "a\"b");
    expect_failure(e, EINVAL, "quote");
    e = edit_of(KEYS EXTENT);
    descriptor_edit_file(e, 0, "a\nRW 1 FLAT");
    expect_failure(e, EINVAL, "control character");
    e = edit_of(KEYS "RW 1 ZERO\n");
    descriptor_edit_file(e, 0, "a");
    expect_failure(e, EINVAL, "has no file");
    char *large = calloc(1, VMDK_MAX_DESCRIPTOR + 1);
    MUST(large);
    memset(large, 'x', VMDK_MAX_DESCRIPTOR);
    e = edit_of(KEYS EXTENT);
    descriptor_edit_set(e, "ddb.comment", large);
    expect_failure(e, E2BIG, "longer than");
    free(large);
}

/* ---- encodings ------------------------------------------------------------------------------- */

/* Bytes in an encoding, and what they are. */
static const struct {
    const char *encoding, *bytes, *utf8;
} texts[] = {
    {NULL, "plain", "plain"},
    {NULL, "\xff\xfe", "\xff\xfe"},
    {"UTF-8", "caf\xc3\xa9", "caf\xc3\xa9"},
    {"cp65001", "\xc3\xa9 \xff", "\xc3\xa9 \xff"},
    {"windows-1252", "caf\xe9 \x80", "caf\xc3\xa9 \xe2\x82\xac"},
    {"Windows-1251", "\xe4\xe8\xf1\xea", "\xd0\xb4\xd0\xb8\xd1\x81\xd0\xba"},
    {"Shift_JIS", "\x83\x66\x83\x42\x83\x58\x83\x4e \x83\x5c",
     "\xe3\x83\x87\xe3\x82\xa3\xe3\x82\xb9\xe3\x82\xaf \xe3\x82\xbd"}, /* the last ends in a \ */
    {"windows-932", "\x87\x40", "\xe2\x91\xa0"},
    {"GBK", "\xb4\xc5\xc5\xcc", "\xe7\xa3\x81\xe7\x9b\x98"},
    {"windows-936", "\xb4\xc5\xc5\xcc", "\xe7\xa3\x81\xe7\x9b\x98"},
    {"Big5", "\xba\xcf\xba\xd0", "\xe7\xa3\x81\xe7\xa2\x9f"},
    {"x-windows-949", "\xb5\xf0", "\xeb\x94\x94"},
    {"cp437", "\x81", "\xc3\xbc"},
    {"ISO-8859-15", "\xa4", "\xe2\x82\xac"},
    {"GB18030", "\xb4\xc5\xc5\xcc", "\xe7\xa3\x81\xe7\x9b\x98"},
    {"no such thing", "plain", "plain"},
};

static void test_encodings(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof texts / sizeof *texts; i++) {
        char *got = NULL;
        assert_works(encoding_decode(texts[i].encoding, texts[i].bytes, &got, &err));
        assert_string_equal(got, texts[i].utf8);
        free(got);
        assert_works(encoding_encode(texts[i].encoding, texts[i].utf8, &got, &err));
        assert_string_equal(got, texts[i].bytes);
        free(got);
    }
}

static void test_encoding_errors(void **state)
{
    (void)state;
    char *got = NULL;
    assert_fails(encoding_decode("no such thing", "\xe9", &got, &err), ENOTSUP, "no such thing");
    assert_fails(encoding_decode("Shift_JIS", "\x83", &got, &err), EILSEQ, "Shift_JIS");
    assert_fails(encoding_encode("windows-1252", "\xe7\xa3\x81", &got, &err), EILSEQ,
                 "windows-1252");
    assert_fails(encoding_encode("ISO-8859-1", "\xe2\x82\xac", &got, &err), EILSEQ, "");
    /* The sign is not to become a question mark, whatever the name asks iconv for. */
    assert_fails(encoding_encode("ISO-8859-1//TRANSLIT", "\xe2\x82\xac", &got, &err), ENOTSUP, "");
    assert_fails(encoding_encode("ISO-8859-1//IGNORE", "\xe2\x82\xac", &got, &err), ENOTSUP, "");
}

/* Encodings where ASCII is not itself, or where a text has states, are no choice of an image's: in
 * the first of these the bytes are "/etc". */
static void test_encodings_with_surprises(void **state)
{
    (void)state;
    static const char *const refused[] = {
        "IBM037", "CP037",   "UTF-16",       "UTF-7",     "ISO-2022-CN-EXT", "ISO-2022-JP-3",
        "CP930",  "IBM1364", "windows-1361", "ISO-8859-", "ISO-8859-1x"};
    for (unsigned i = 0; i < sizeof refused / sizeof *refused; i++) {
        char *got = NULL;
        assert_fails(encoding_decode(refused[i], "\x61\x85\xa3\x83", &got, &err), ENOTSUP,
                     refused[i]);
        assert_fails(encoding_encode(refused[i], "caf\xc3\xa9", &got, &err), ENOTSUP, refused[i]);
    }
}

/* What is put into a text is in its encoding. */
static void test_changes_in_an_encoding(void **state)
{
    (void)state;
    struct descriptor_edit *e = edit_of("version=1\nencoding=\"windows-1252\"\n" EXTENT);
    descriptor_edit_file(e, 0, "caf\xc3\xa9");
    descriptor_edit_set(e, "parentFileNameHint", "\xc3\xbc");
    expect(e, "version=1\nencoding=\"windows-1252\"\nparentFileNameHint=\"\xfc\"\n"
              "RW 63 FLAT \"caf\xe9\" 0\n");
    e = edit_of("version=1\nencoding=\"windows-1252\"\n" EXTENT);
    descriptor_edit_file(e, 0, "\xe7\xa3\x81");
    expect_failure(e, EILSEQ, "x.vmdk: the name");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spellings),
        cmocka_unit_test(test_probe),
        cmocka_unit_test(test_first_of_duplicates_wins),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_nothing_changes_nothing),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_spelling_stays),
        cmocka_unit_test(test_new_keys),
        cmocka_unit_test(test_mark_stays_first),
        cmocka_unit_test(test_removed_keys),
        cmocka_unit_test(test_many_removed_keys),
        cmocka_unit_test(test_extents),
        cmocka_unit_test(test_many_extents),
        cmocka_unit_test(test_refused_changes),
        cmocka_unit_test(test_encodings),
        cmocka_unit_test(test_encoding_errors),
        cmocka_unit_test(test_encodings_with_surprises),
        cmocka_unit_test(test_changes_in_an_encoding),
    };
    budget = budget_new(64 << 20);
    int r = cmocka_run_group_tests(tests, NULL, NULL);
    budget_unref(budget);
    return r;
}
