/* SPDX-License-Identifier: MIT */
/* What the client of web servers makes of headers and URLs, without a server. */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stream/http.h"
#include "stream/place.h"

/* ---- headers -----------------------------------------------------------------------------------
 */

static int add(struct http_headers *h, const char *line)
{
    return http_headers_add(h, line, strlen(line), NULL);
}

static void test_status(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        unsigned status; /* 0: refused */
        const char *reason;
    } cases[] = {
        {"HTTP/1.1 206 Partial Content\r\n", 206, "Partial Content"},
        {"HTTP/2 200\r\n", 200, ""},
        {"HTTP/2 200 \r\n", 200, ""},
        {"HTTP/1.0   404   Not  Found", 404, "Not  Found"},
        {"HTTP/1.1 503 bad\x01\x1b[31mword\xff", 503, "bad[31mword"},
        {"HTTP/1.1", 0, ""},
        {"HTTP/1.1 20", 0, ""},
        {"HTTP/1.1 2000 OK", 0, ""},
        {"HTTP/1.1 2x0 OK", 0, ""},
        {"HTTP/1.1 -20 OK", 0, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct http_headers h = {0};
        int r = add(&h, cases[i].line);
        assert_int_equal(r, cases[i].status ? 0 : -EPROTO);
        assert_int_equal(h.status, cases[i].status);
        assert_string_equal(h.reason, cases[i].reason);
        http_headers_done(&h);
    }
}

static void test_headers(void **state)
{
    (void)state;
    struct http_headers h = {0};
    assert_int_equal(add(&h, "HTTP/1.1 100 Continue\r\n"), 0);
    assert_int_equal(add(&h, "ETag: \"old\"\r\n"), 0);
    assert_int_equal(add(&h, "\r\n"), 0);
    assert_int_equal(add(&h, "HTTP/1.1 206 Partial\r\n"), 0);
    assert_int_equal(add(&h, "eTAG: \t \"a b\" \t\r\n"), 0);
    assert_int_equal(add(&h, "X-Empty:\r\n"), 0);
    assert_int_equal(add(&h, "X: 1\r\n"), 0);
    assert_int_equal(add(&h, "x: 2\r\n"), 0);
    assert_int_equal(add(&h, "no colon\r\n"), 0);
    assert_string_equal(http_header(&h, "ETag"), "\"a b\"");
    assert_string_equal(http_header(&h, "x-empty"), "");
    assert_string_equal(http_header(&h, "X"), "1");
    assert_int_equal(http_header_count(&h, "X"), 2);
    assert_null(http_header(&h, "ETa"));
    assert_null(http_header(&h, "ETags"));
    assert_int_equal(http_header_count(&h, "no colon"), 0);
    http_headers_done(&h);
}

static void test_many_headers(void **state)
{
    (void)state;
    struct http_headers h = {0};
    struct platter_error err = {0};
    size_t bytes = 0;
    int r = 0;
    assert_int_equal(add(&h, "HTTP/1.1 200 OK\r\n"), 0);
    for (int i = 0; i < 100000 && r == 0; i++) {
        r = http_headers_add(&h, "Name: value\r\n", 13, &err);
        bytes += r == 0 ? 12 : 0;
    }
    assert_int_equal(r, -EMSGSIZE);
    assert_non_null(strstr(err.message, "65536"));
    assert_true(bytes <= HTTP_MOST_HEADERS && bytes > HTTP_MOST_HEADERS - 24);
    /* The next answer begins anew. */
    assert_int_equal(add(&h, "HTTP/1.1 200 OK\r\n"), 0);
    assert_int_equal(add(&h, "Name: value\r\n"), 0);
    assert_int_equal(http_header_count(&h, "Name"), 1);
    http_headers_done(&h);
}

static void test_range(void **state)
{
    (void)state;
    static const struct {
        const char *value;
        bool fine;
        struct http_range range;
    } cases[] = {
        {"bytes 0-9/100", true, {true, true, 0, 9, 100}},
        {"Bytes 90-99/100", true, {true, true, 90, 99, 100}},
        {"bytes 5-5/*", true, {true, false, 5, 5, 0}},
        {"bytes */0", true, {false, true, 0, 0, 0}},
        {"bytes */9223372036854775807", true, {false, true, 0, 0, INT64_MAX}},
        {"bytes */9223372036854775808", false, {0}},
        {"bytes 0-9/18446744073709551617", false, {0}},
        {"bytes 9-0/100", false, {0}},
        {"bytes 0-100/100", false, {0}},
        {"bytes */*", false, {0}},
        {"bytes 0-9", false, {0}},
        {"bytes 0-/10", false, {0}},
        {"bytes -9/10", false, {0}},
        {"bytes 0-9/10 ", false, {0}},
        {"bytes 0-9/10, 20-29/100", false, {0}},
        {"lines 0-9/100", false, {0}},
        {"bytes", false, {0}},
        {"", false, {0}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct http_range r;
        assert_int_equal(http_range_parse(cases[i].value, &r), cases[i].fine);
        if (!cases[i].fine)
            continue;
        assert_int_equal(r.has_range, cases[i].range.has_range);
        assert_int_equal(r.has_total, cases[i].range.has_total);
        assert_true(r.first == cases[i].range.first && r.last == cases[i].range.last &&
                    r.total == cases[i].range.total);
    }
}

static void test_length(void **state)
{
    (void)state;
    static const struct {
        const char *lines[3];
        bool fine;
        uint64_t length;
    } cases[] = {
        {{"Content-Length: 0"}, true, 0},
        {{"content-length: 9223372036854775807"}, true, INT64_MAX},
        {{"Content-Length: 9223372036854775808"}, false, 0},
        {{"Content-Length: -1"}, false, 0},
        {{"Content-Length: 5, 5"}, false, 0},
        {{"Content-Length: 5", "Content-Length: 6"}, false, 0},
        {{"Content-Length: 5", "Transfer-Encoding: chunked"}, false, 0},
        {{"X: y"}, false, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct http_headers h = {0};
        uint64_t length = 0;
        assert_int_equal(add(&h, "HTTP/1.1 200 OK"), 0);
        for (const char *const *line = cases[i].lines; *line; line++)
            assert_int_equal(add(&h, *line), 0);
        assert_int_equal(http_length(&h, &length), cases[i].fine);
        assert_true(!cases[i].fine || length == cases[i].length);
        http_headers_done(&h);
    }
}

static void test_coding(void **state)
{
    (void)state;
    static const struct {
        const char *lines[3], *coding;
    } cases[] = {
        {{"X: y"}, NULL},
        {{"content-encoding: Identity"}, NULL},
        {{"Content-Encoding: gzip"}, "gzip"},
        {{"Content-Encoding:"}, NULL}, /* as some servers of S3 have it */
        {{"Content-Encoding: identity", "Content-Encoding: gzip"}, "more than one"},
        {{"Content-Encoding: gzip", "Content-Encoding: identity"}, "gzip"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct http_headers h = {0};
        assert_int_equal(add(&h, "HTTP/1.1 200 OK"), 0);
        for (const char *const *line = cases[i].lines; *line; line++)
            assert_int_equal(add(&h, *line), 0);
        const char *coding = http_coding(&h);
        assert_true(!coding == !cases[i].coding);
        if (coding)
            assert_string_equal(coding, cases[i].coding);
        http_headers_done(&h);
    }
}

static void test_retry_after(void **state)
{
    (void)state;
    const time_t now = 784111770; /* seven seconds before the date of RFC 9110 */
    static const struct {
        const char *value;
        int seconds; /* -1: refused */
    } cases[] = {
        {"0", 0},
        {"120", 120},
        {"99999999999", 1000000},
        {"Sun, 06 Nov 1994 08:49:37 GMT", 7},
        {"Sun, 06 Nov 1994 08:49:00 GMT", 0},
        {"Sun, 06 Nov 1994 08:49:37 CET", -1},
        {"Sun, 06 Foo 1994 08:49:37 GMT", -1},
        {"Sun, 06 anF 1994 08:49:37 GMT", -1},
        {"Sun, 32 Nov 1994 08:49:37 GMT", -1},
        {"Sunday, 06-Nov-94 08:49:37 GMT", -1},
        {"-1", -1},
        {"1.5", -1},
        {"", -1},
        {"Sun, 06 N", -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        unsigned seconds = 0;
        bool fine = http_retry_after_parse(cases[i].value, now, &seconds);
        assert_int_equal(fine, cases[i].seconds >= 0);
        if (fine)
            assert_int_equal(seconds, cases[i].seconds);
    }
}

/* ---- URLs --------------------------------------------------------------------------------------
 */

static void test_clean(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"http://h/a b", "http://h/a%20b"},
        {"http://h/a%20b%", "http://h/a%20b%"},
        {"http://h/\xc3\xa4?x=\"1\"#part", "http://h/%C3%A4?x=%221%22"},
        {"http://h/a\nHost: x", "http://h/a%0AHost:%20x"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *url;
        assert_works(http_url_clean(cases[i][0], &url, &err));
        assert_string_equal(url, cases[i][1]);
        free(url);
    }
}

static void test_server(void **state)
{
    (void)state;
    assert_true(http_same_server("http://h/a", "HTTP://H:80/b?c"));
    assert_true(http_same_server("https://h:443", "https://u:p@h/b"));
    assert_true(http_same_server("http://[::1]/a", "http://[::1]:80/b"));
    assert_false(http_same_server("http://[::1]:1/a", "http://[::1]:2/b"));
    assert_false(http_same_server("http://h/a", "https://h/a"));
    assert_false(http_same_server("http://h/a", "http://h:8080/a"));
    assert_false(http_same_server("http://h/a", "http://h.evil/a"));
    assert_false(http_same_server("http://h/a", "http://evil/@h/a"));
    assert_false(http_same_server("http://h@evil/a", "http://h/a"));
    assert_false(http_same_server("h/a", "h/a"));
}

static void test_login(void **state)
{
    (void)state;
    static const char *const cases[][4] = {
        {"http://h/a@b", "http://h/a@b", NULL, NULL},
        {"https://u@h/a", "https://h/a", "u", NULL},
        {"https://u:p@h:1/a", "https://h:1/a", "u", "p"},
        {"https://u%40x:p%3a%25:q@h/a", "https://h/a", "u@x", "p:%:q"},
        {"https://u:@h", "https://h", "u", ""},
        {"https://a@b:c@h/", "https://h/", "a", "b:c"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *url, *user, *password;
        assert_works(http_url_login(cases[i][0], &url, &user, &password, &err));
        assert_string_equal(url, cases[i][1]);
        assert_string_equal(user ? user : "(none)", cases[i][2] ? cases[i][2] : "(none)");
        assert_string_equal(password ? password : "(none)", cases[i][3] ? cases[i][3] : "(none)");
        free(url);
        free(user);
        free(password);
    }
}

/* Nothing that may be a secret is in a name. */
static void test_name(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"http://h/a.qcow2", "http://h/a.qcow2"},
        {"https://u:secret@h:1/a", "https://h:1/a"},
        {"https://h/a?token=secret&v=secret#x", "https://h/a?token=...&v=..."},
        {"https://h/a?flag&x=", "https://h/a?flag&x=..."},
        {"https://u:secret@h?a=secret=secret", "https://h?a=..."},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *name = http_url_name(cases[i][0]);
        assert_non_null(name);
        assert_null(strstr(name, "secret"));
        assert_string_equal(name, cases[i][1]);
        free(name);
    }
}

/* ---- places ------------------------------------------------------------------------------------
 */

static void test_place(void **state)
{
    (void)state;
    struct place p;
    assert_works(place_parse("HTTPS://me:pass,word@h/a,b.qcow2", &p, &err));
    assert_string_equal(p.kind->name, "http");
    assert_string_equal(options_string(p.keys, "user"), "me");
    assert_string_equal(options_string(p.keys, "password"), "pass,word");
    assert_string_equal(options_string(p.keys, "url"), "HTTPS://h/a,b.qcow2");
    assert_string_equal(p.name, "HTTPS://h/a,b.qcow2");
    place_done(&p);
}

static void fails_to_open(const char *name, const char *more, unsigned flags, int code,
                          const char *sentence)
{
    struct platter_error err = {0};
    struct stream *s;
    struct place p;
    assert_int_equal(place_parse_with(name, more, &p, &err), 0);
    assert_int_equal(place_open(&p, flags, &s, &err), -code);
    assert_non_null(strstr(err.message, sentence));
    assert_null(strstr(err.message, "secret"));
    place_done(&p);
}

static void test_refused(void **state)
{
    (void)state;
    fails_to_open("http://h/a", NULL, STREAM_FILE_WRITE, EROFS, "only be read");
    fails_to_open("http://h/a", "headers=no colon secret", 0, EINVAL, "Name: value");
    fails_to_open("http://h/a", "headers=bad name: secret", 0, EINVAL, "Name: value");
    fails_to_open("http://h/a", "headers=range: bytes=secret", 0, EINVAL, "range");
    fails_to_open("http://h/a", "headers=X: a\x01secret", 0, EINVAL, "control");
    fails_to_open("http://h/a", "headers=X: env:PLATTER_HAS_NO_SUCH", 0, EINVAL,
                  "PLATTER_HAS_NO_SUCH");
    fails_to_open("http://h/a", "password=file:/nonexistent/word", 0, ENOENT, "/nonexistent/word");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_status),       cmocka_unit_test(test_headers),
        cmocka_unit_test(test_many_headers), cmocka_unit_test(test_range),
        cmocka_unit_test(test_retry_after),  cmocka_unit_test(test_clean),
        cmocka_unit_test(test_server),       cmocka_unit_test(test_login),
        cmocka_unit_test(test_name),         cmocka_unit_test(test_place),
        cmocka_unit_test(test_length),       cmocka_unit_test(test_coding),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
