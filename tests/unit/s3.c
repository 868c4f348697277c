/* SPDX-License-Identifier: MIT */
/* What of S3 needs no server: signatures, names, keys out of files, answers. */
#include "unit.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "stream/place.h"
#include "stream/s3.h"
#include "stream/s3_profile.h"
#include "stream/s3_sign.h"

/* The request of source-spec.md section 5, whose signature a server accepted. */
static struct s3_signing vector(void)
{
    static const struct s3_header headers[] = {{"range", "bytes=0-65535"},
                                               {"if-match", "\"0123456789abcdef\""}};
    return (struct s3_signing){.method = "GET",
                               .url = "http://127.0.0.1:9000/bkt/a%20b%2Bc.raw",
                               .access_key = "TESTACCESSKEY0000001",
                               .secret_key = "testsecretkey000000000000000000000000001",
                               .region = "us-east-1",
                               .now = 1767323045,
                               .payload = S3_UNSIGNED_PAYLOAD,
                               .headers = headers,
                               .n_headers = 2};
}

static void check_signature(const struct s3_signing *s, const char *expected)
{
    struct platter_error error;
    char date[S3_DATE_TEXT], *got;
    assert_int_equal(s3_sign(s, date, &got, &error), 0);
    assert_string_equal(date, "20260102T030405Z");
    assert_string_equal(strrchr(got, '=') + 1, expected);
    free(got);
}

static void test_vector(void **state)
{
    (void)state;
    static const char right[] = "af33a3d99ef24057a7625f47b4ee2329ac31660f11672168edb65486e97fdae0";
    struct s3_signing s = vector();
    char date[S3_DATE_TEXT], *got;
    check_signature(&s, right);
    assert_int_equal(s3_sign(&s, date, &got, NULL), 0);
    assert_string_equal(got, "AWS4-HMAC-SHA256 Credential=TESTACCESSKEY0000001/20260102/us-east-1/"
                             "s3/aws4_request, SignedHeaders=host;if-match;range;"
                             "x-amz-content-sha256;x-amz-date, Signature="
                             "af33a3d99ef24057a7625f47b4ee2329ac31660f11672168edb65486e97fdae0");
    free(got);

    /* Blanks around values and runs of them do not count; nor does the port of the scheme. */
    struct s3_header blanks[] = {{"if-match", "\"0123456789abcdef\" "},
                                 {"range", "  bytes=0-65535\t"}};
    s.headers = blanks;
    check_signature(&s, right);
    const char *same[][2] = {{"http://Host/k?a=&b=1", "http://host:80/k?a=&b=1"},
                             {"https://host", "https://host:443/"}};
    for (size_t i = 0; i < 2; i++) {
        char *other;
        s.url = same[i][0];
        assert_int_equal(s3_sign(&s, date, &got, NULL), 0);
        s.url = same[i][1];
        assert_int_equal(s3_sign(&s, date, &other, NULL), 0);
        assert_string_equal(got, other);
        free(got);
        free(other);
    }
}

static void test_escape(void **state)
{
    (void)state;
    char *got = s3_escape("a b+c/~-._%\xc3\xa4", true);
    assert_string_equal(got, "a%20b%2Bc/~-._%25%C3%A4");
    assert_true(s3_unescape(got));
    assert_string_equal(got, "a b+c/~-._%\xc3\xa4");
    free(got);
    got = s3_escape("a/b", false);
    assert_string_equal(got, "a%2Fb");
    free(got);
    static const char *const wrong[] = {"%", "a%2", "%zz", "%2g", "%00"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char text[8];
        strcpy(text, wrong[i]);
        assert_false(s3_unescape(text));
    }
}

/* ---- names -------------------------------------------------------------------------------------
 */

static void test_names(void **state)
{
    (void)state;
    static const char *const right[][2] = {
        {"s3://b/k", "bucket=b,key=k"},
        {"S3://b/a/b%20c%3Fd%25", "bucket=b,key=a/b c?d%"},
        {"s3://b//k", "bucket=b,key=/k"},
        {"s3://b/a,b", "bucket=b,key=a,,b"},
        {"s3://b/k?region=eu&endpoint=http%3A//h:1",
         "bucket=b,key=k,region=eu,endpoint=http://h:1"},
    };
    for (size_t i = 0; i < sizeof right / sizeof *right; i++) {
        char *keys;
        assert_int_equal(s3_keys_of(right[i][0], &keys, NULL), 0);
        assert_string_equal(keys, right[i][1]);
        free(keys);
    }
    static const char *const wrong[][2] = {
        {"s3://", "s3://BUCKET/KEY"},
        {"s3://b", "s3://BUCKET/KEY"},
        {"s3://b/", "s3://BUCKET/KEY"},
        {"s3:///k", "s3://BUCKET/KEY"},
        {"s3://b?x=/k", "s3://BUCKET/KEY"},
        {"s3://b/k%", "%25"},
        {"s3://AKEY:HIDDEN@b/k", "access_key and secret_key"},
        {"s3://AKEY:HID%DEN@b/k", "access_key and secret_key"},
        {"s3://b/k%00", "%25"},
        {"s3://b/k?region", "NAME=VALUE"},
        {"s3://b/k?=x", "percent-encoded"},
        {"s3://b/k?a=%x", "percent-encoded"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char *keys;
        assert_fails(s3_keys_of(wrong[i][0], &keys, &err), EINVAL, wrong[i][1]);
        assert_null(keys);
        struct platter_error error;
        s3_keys_of(wrong[i][0], &keys, &error);
        assert_null(strstr(error.message, "HID"));
    }
}

static void check_place(const char *keys, const char *name)
{
    struct place p;
    assert_int_equal(place_of_keys("s3", keys, NULL, &p, NULL), 0);
    assert_string_equal(p.name, name);
    place_done(&p);
}

/* What is read again from a name is what it was made of; secrets are not in it. */
static void test_places(void **state)
{
    (void)state;
    struct stream *s;
    struct place p;
    check_place("bucket=b,key=a b?c%d,access_key=A,secret_key=HIDDEN", "s3://b/a b%3Fc%25d");
    check_place("url=http://127.0.0.1:9000/vm/x/d%20e.raw", "s3://vm/x/d e.raw");
    static const char *const wrong[][2] = {
        {"bucket=b", "needs a bucket and a key"},
        {"url=http://h/b", "HOST[:PORT]/BUCKET/KEY"},
        {"url=http://h/b/k?x=y", "HOST[:PORT]/BUCKET/KEY"},
        {"url=http://h/b/k,bucket=b", "HOST[:PORT]/BUCKET/KEY"},
        {"bucket=b/c,key=k", "not the name of a bucket"},
        {"bucket=b,key=a/../k", "servers differ"},
        {"bucket=b,key=k,access_key=A,anonymous=on", "contradict"},
        {"bucket=b,key=k,access_key=A", "the secret key is missing"},
        {"bucket=b,key=k,access_key=config://a/b,secret_key=S", "ceph config-key get a/b"},
        {"bucket=b,key=k,access_key=env:NOT_THERE,secret_key=S", "NOT_THERE"},
        {"bucket=b,key=k,access_key=A,secret_key=S,endpoint=ftp://h", "endpoint"},
        {"bucket=b,key=k,access_key=A,secret_key=S,endpoint=http://u:p@h", "endpoint"},
        {"bucket=b,key=k,access_key=A,secret_key=S,region=a/b", "region"},
        {"bucket=b,key=k,access_key=A,secret_key=S,profile=none", "no profile"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct platter_error error = {0};
        assert_int_equal(place_of_keys("s3", wrong[i][0], NULL, &p, &error), 0);
        assert_true(place_open(&p, 0, &s, &error) < 0);
        if (!strstr(error.message, wrong[i][1]))
            fail_msg("%s: %s", wrong[i][0], error.message);
        place_done(&p);
    }
    assert_int_equal(
        place_of_keys("s3", "bucket=b,key=k,access_key=A,secret_key=S", NULL, &p, NULL), 0);
    assert_fails(place_open(&p, STREAM_FILE_WRITE, &s, &err), ENOTSUP, "replaced as a whole");
    place_done(&p);
}

/* ---- profiles ----------------------------------------------------------------------------------
 */

static const char config[] = "# a comment\n"
                             "[default]\r\n"
                             "region = eu-1\r\n"
                             "s3 =\n"
                             "    addressing_style = path\n"
                             "    region = not this\n"
                             "endpoint_url=http://h:1/\n"
                             "[profile \"my own\"]\n"
                             "region = eu-2\n"
                             "  region = indented below region\n"
                             "empty =\n"
                             "[my own]\n"
                             "region = eu-3\n"
                             "[services x]\n"
                             "s3 =\n"
                             "\tendpoint_url = http://h:2\n"
                             "[unclosed\n"
                             "a = b\n"
                             "[in]\n"
                             "  x : y = z\n"
                             "  s3=\n"
                             "    k = v\n"
                             "  last = 1\n"
                             "[profile my own]\n"
                             "a = b = c\n"
                             "REGION = last";

static void check_ini(const char *kind, const char *name, const char *key, const char *expected)
{
    char *got;
    assert_int_equal(s3_ini_value(config, kind, name, key, NULL, &got, NULL), 0);
    if (expected ? !got || strcmp(got, expected) != 0 : got != NULL)
        fail_msg("[%s %s] %s: %s instead of %s", kind, name, key, got ? got : "nothing",
                 expected ? expected : "nothing");
    free(got);
}

static void test_profiles(void **state)
{
    (void)state;
    check_ini("profile", "default", "region", "eu-1");
    check_ini("", "default", "region", "eu-1");
    check_ini("profile", "default", "s3.addressing_style", "path");
    check_ini("profile", "default", "addressing_style", NULL);
    check_ini("profile", "default", "endpoint_url", "http://h:1/");
    check_ini("profile", "my own", "region", "last");
    check_ini("profile", "my own", "empty", NULL);
    check_ini("profile", "my own", "a", "b = c");
    check_ini("", "my own", "region", "eu-3");
    check_ini("", "unclosed", "a", NULL);
    check_ini("services", "x", "s3.endpoint_url", "http://h:2");
    check_ini("", "in", "x", "y = z");
    check_ini("", "in", "s3.k", "v");
    check_ini("", "in", "k", NULL);
    check_ini("", "in", "last", "1");
    check_ini("services", "y", "s3.endpoint_url", NULL);
    bool found = false;
    char *got;
    assert_int_equal(s3_ini_value(config, "profile", "none", "a", &found, &got, NULL), 0);
    assert_false(found);
    assert_int_equal(s3_ini_value(config, "profile", "my own", "x", &found, &got, NULL), 0);
    assert_true(found);
    assert_null(got);
}

/* A profile whose keys come from elsewhere is not read for others that stand in it as well. */
static void test_ways(void **state)
{
    (void)state;
    static const struct {
        const char *line, *expected;
    } ways[] = {{"role_arn = arn:x", "role_arn"},
                {"sso_session = x", "sso_session"},
                {"credential_process = x", NULL}, /* of which the keys are the first choice */
                {"aws_session_token = T", NULL}};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        struct s3_login login;
        struct option_values *keys;
        struct place p;
        char path[] = "/tmp/unit-s3-XXXXXX";
        int fd = mkstemp(path);
        dprintf(fd, "\xef\xbb\xbf[default]\naws_access_key_id = A\nAWS_Secret_Access_Key = S\n%s\n",
                ways[i].line);
        close(fd);
        setenv("AWS_SHARED_CREDENTIALS_FILE", path, 1);
        assert_int_equal(place_of_keys("s3", "bucket=b,key=k", NULL, &p, NULL), 0);
        keys = p.keys;
        if (ways[i].expected) {
            assert_fails(s3_login_find(keys, NULL, &login, &err), ENOTSUP, ways[i].expected);
        } else {
            assert_int_equal(s3_login_find(keys, NULL, &login, NULL), 0);
            assert_string_equal(login.access_key, "A");
            assert_string_equal(login.secret_key, "S");
            s3_login_done(&login);
        }
        place_done(&p);
        unlink(path);
    }
    setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null", 1);
}

/* ---- parts -------------------------------------------------------------------------------------
 */

/* Whatever the size, there is room, in parts of sizes that S3 takes. */
static void check_parts(uint64_t wanted, uint64_t size, uint64_t first)
{
    const uint64_t mib = 1 << 20;
    uint64_t part = s3_first_part(wanted, size), room = 0;
    if (part != first * mib)
        fail_msg("%" PRIu64 " MiB instead of %" PRIu64, part / mib, first);
    for (unsigned n = 1; n <= 10000; n++) {
        uint64_t bytes = s3_part_size(part, n);
        assert_in_range(bytes, 5 * mib, 5120 * mib);
        room += bytes;
    }
    assert_true(room >= size);
}

static void test_parts(void **state)
{
    (void)state;
    const uint64_t gib = UINT64_C(1) << 30;
    check_parts(0, 0, 16);
    check_parts(0, 1, 8);
    check_parts(0, 100 * gib, 13);
    check_parts(0, 3000 * gib, 64);
    check_parts(0, 5 * 1024 * gib, 85);
    check_parts(0, 30 * 1024 * gib, 785);
    check_parts(5 << 20, 0, 5);
    check_parts(5 << 20, 300 * gib, 5);
    check_parts(5 << 20, 400 * gib, 7);
    check_parts(gib, 400 * gib, 1024);
    check_parts(gib, 40 * 1024 * gib, 1871);
}

/* ---- answers -----------------------------------------------------------------------------------
 */

static void check_xml(const char *xml, size_t length, const char *expected)
{
    char got[8];
    assert_int_equal(s3_xml_text(xml, "Code", got, sizeof got), length);
    assert_string_equal(got, expected);
}

static void test_answers(void **state)
{
    (void)state;
    check_xml("<?xml?><Error><Code>No</Code></Error>", 2, "No");
    check_xml("<Codes>x</Codes><Code>a&lt;&amp;&#34;&#10;\n</Code>", 10, "a<&\"&#1");
    check_xml("<Code>longer than it</Code>", 14, "longer ");
    check_xml("<Code>cut off", 0, "cut off");
    check_xml("<Code/>", 0, "");
    check_xml("<Code", 0, "");
    check_xml("<Code>&#65;&#065;&#6;&#127;&#65</Code>", 16, "AA&#6;&");
    check_xml("<", 0, "");
    check_xml("", 0, "");
    /* As long as an answer can be: in no time. */
    size_t len = 1 << 20;
    char *text = malloc(len + 1);
    for (size_t i = 0; i < len; i++)
        text[i] = "&#6"[i % 3];
    memcpy(text, "<Code>", 6);
    strcpy(text + len - 7, "</Code>");
    clock_t begin = clock();
    check_xml(text, len - 13, "&#6&#6&");
    assert_true(clock() - begin < CLOCKS_PER_SEC / 2);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vector),   cmocka_unit_test(test_escape),
        cmocka_unit_test(test_names),    cmocka_unit_test(test_places),
        cmocka_unit_test(test_profiles), cmocka_unit_test(test_ways),
        cmocka_unit_test(test_parts),    cmocka_unit_test(test_answers),
    };
    unsetenv("AWS_PROFILE");
    unsetenv("AWS_ACCESS_KEY_ID");
    unsetenv("AWS_SECRET_ACCESS_KEY");
    setenv("AWS_CONFIG_FILE", "/dev/null", 1);
    setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
