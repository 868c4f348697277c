/* SPDX-License-Identifier: MIT */
/* One sending of a request, as libcurl sees it: what it is told, and what comes of the answer. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/ckd.h"
#include "base/library.h"
#include "base/memory.h"
#include "config.h"
#include "stream/http_inside.h"

enum {
    MOST_TEXT = 1 << 20,          /* of a body that is for no buffer: lists and failures are XML */
    MOST_ANSWERS = 32,            /* in front of the one that counts: "100 Continue" */
    RECEIVED_AT_ONCE = 512 << 10, /* the most that curl takes */
    SLOWEST = 512 /* bytes a second: what comes slower drips, and would never come to an end */
};

/* ---- libcurl -----------------------------------------------------------------------------------
 */

struct http_curl http_curl;

static const struct library_symbol symbols[] = {
    {"curl_global_init", &http_curl.global_init},
    {"curl_easy_init", &http_curl.easy_init},
    {"curl_easy_cleanup", &http_curl.easy_cleanup},
    {"curl_easy_setopt", &http_curl.easy_setopt},
    {"curl_easy_getinfo", &http_curl.easy_getinfo},
    {"curl_easy_pause", &http_curl.easy_pause},
    {"curl_easy_strerror", &http_curl.easy_strerror},
    {"curl_multi_init", &http_curl.multi_init},
    {"curl_multi_cleanup", &http_curl.multi_cleanup},
    {"curl_multi_setopt", &http_curl.multi_setopt},
    {"curl_multi_add_handle", &http_curl.multi_add_handle},
    {"curl_multi_remove_handle", &http_curl.multi_remove_handle},
    {"curl_multi_perform", &http_curl.multi_perform},
    {"curl_multi_poll", &http_curl.multi_poll},
    {"curl_multi_wakeup", &http_curl.multi_wakeup},
    {"curl_multi_info_read", &http_curl.multi_info_read},
    {"curl_multi_strerror", &http_curl.multi_strerror},
    {"curl_slist_append", &http_curl.slist_append},
    {"curl_slist_free_all", &http_curl.slist_free_all},
    {0},
};
static struct library libcurl = {"libcurl.so.4", "what is read over http, https or s3", symbols};

int http_curl_load(struct platter_error *err)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static bool begun;
    int r = library_load(&libcurl, err);
    if (r < 0)
        return r;
    WITH_LOCK(&lock);
    if (!begun && http_curl.global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return fail(err, EIO, "libcurl cannot be made ready");
    begun = true;
    return 0;
}

/* ---- what comes --------------------------------------------------------------------------------
 */

/* The answer is refused: curl is told to break off. */
static size_t refuse(struct transfer *t, int r)
{
    t->result = r;
    return 0;
}

static size_t take_header(char *line, size_t size, size_t n, void *opaque)
{
    struct transfer *t = opaque;
    if (size * n >= 5 && memcmp(line, "HTTP/", 5) == 0) { /* after "100 Continue", or a login */
        t->body = BODY_OPEN;
        t->a->got = 0;
        t->a->text_len = 0;
        if (t->n_answers++ == MOST_ANSWERS)
            return refuse(
                t, fail(&t->error, EPROTO, "%s: the server's answer does not begin", t->q->name));
    }
    int r = http_headers_add(&t->a->headers, line, size * n, &t->error);
    return r < 0 ? refuse(t, fail_in(&t->error, r, "%s", t->q->name)) : size * n;
}

/* A 206 must be of the one range that was asked for, or of its beginning. */
static int check_range(struct transfer *t)
{
    const struct http_request *q = t->q;
    const struct http_headers *h = &t->a->headers;
    const char *value = http_header(h, "Content-Range");
    struct http_range range;
    if (!value || http_header_count(h, "Content-Range") > 1 || !http_range_parse(value, &range) ||
        !range.has_range)
        return fail(&t->error, EPROTO,
                    "%s: the server answers a request for bytes %" PRIu64 "-%" PRIu64
                    " with part of the file, but not with which (Content-Range: %.80s)",
                    q->name, q->off, q->off + q->len - 1, value ? value : "none");
    if (range.first != q->off || range.last - range.first >= q->len)
        return fail(&t->error, EPROTO,
                    "%s: the server was asked for bytes %" PRIu64 "-%" PRIu64
                    " and answers with bytes %" PRIu64 "-%" PRIu64,
                    q->name, q->off, q->off + q->len - 1, range.first, range.last);
    t->expected = range.last - range.first + 1;
    return 0;
}

/* Ranges of something compressed would be of other bytes. */
static int check_coding(struct transfer *t)
{
    const char *coding = http_coding(&t->a->headers);
    if (!coding)
        return 0;
    return fail(&t->error, EPROTO,
                "%s: the server sends it encoded (Content-Encoding: %.40s), though it was asked "
                "not to",
                t->q->name, coding);
}

/* Where the body goes. */
static int begin_body(struct transfer *t)
{
    const struct http_request *q = t->q;
    unsigned status = t->a->headers.status;
    t->body = status == 206 && q->into   ? BODY_INTO
              : status == 200 && q->sink ? BODY_SINK
                                         : BODY_TEXT;
    if (q->begin && !t->began)
        q->begin(q->opaque, &t->a->headers);
    t->began = true;
    if (t->body == BODY_TEXT)
        return 0;
    int r = check_coding(t);
    return r == 0 && t->body == BODY_INTO ? check_range(t) : r;
}

static size_t take_into(struct transfer *t, const void *bytes, size_t n)
{
    if (n > t->expected - t->a->got)
        return refuse(t, fail(&t->error, EPROTO,
                              "%s: the server sends more than the %" PRIu64
                              " bytes at offset %" PRIu64 " that it says it does",
                              t->q->name, t->expected, t->q->off));
    memcpy((char *)t->q->into + t->a->got, bytes, n);
    t->a->got += n;
    return n;
}

/* Of what was not asked for as a body nothing is read: it may be the whole file. */
static size_t take_text(struct transfer *t, const void *bytes, size_t n)
{
    struct http_answer *a = t->a;
    bool unwanted = a->headers.status / 100 == 2 && (t->q->into || t->q->sink);
    if (unwanted || n > MOST_TEXT - a->text_len) {
        a->cut = true;
        return 0;
    }
    char *text = realloc(a->text, a->text_len + n + 1);
    if (!text)
        return refuse(t, fail_memory(&t->error, "a server's answer"));
    memcpy(text + a->text_len, bytes, n);
    a->text = text;
    a->text_len += n;
    text[a->text_len] = '\0';
    return n;
}

static size_t take_body(char *bytes, size_t size, size_t n, void *opaque)
{
    struct transfer *t = opaque;
    int r = t->body == BODY_OPEN ? begin_body(t) : 0;
    n *= size;
    if (r < 0)
        return refuse(t, r);
    if (t->body == BODY_TEXT)
        return take_text(t, bytes, n);
    if (t->body == BODY_INTO)
        return take_into(t, bytes, n);
    if (!t->q->sink(t->q->opaque, bytes, n))
        return CURL_WRITEFUNC_PAUSE;
    t->a->got += n;
    return n;
}

void http_transfer_end(struct transfer *t, CURLcode code)
{
    t->code = t->a->cut ? CURLE_OK : code;
    http_curl.easy_getinfo(t->easy, CURLINFO_HTTP_CONNECTCODE, &t->tunnel);
    if (t->code == CURLE_OK && t->result == 0 && t->body == BODY_OPEN)
        t->result = begin_body(t);
    /* A body that ends early without the connection's breaking. */
    if (t->code == CURLE_OK && t->body == BODY_INTO && t->a->got < t->expected)
        t->code = CURLE_PARTIAL_FILE;
}

/* ---- what is sent ------------------------------------------------------------------------------
 */

static int add_line(struct http_lines *l, const char *line, struct platter_error *err)
{
    struct curl_slist *longer = http_curl.slist_append(l->list, line);
    if (!longer)
        return fail_memory(err, "headers");
    l->list = longer;
    return 0;
}

int http_lines_add(struct http_lines *l, struct platter_error *err, const char *format, ...)
{
    char *line = NULL;
    va_list args;
    va_start(args, format);
    int n = vasprintf(&line, format, args);
    va_end(args);
    if (n < 0)
        return fail_memory(err, "headers");
    int r = add_line(l, line, err);
    explicit_bzero(line, (size_t)n); /* it may hold a password */
    free(line);
    return r;
}

static int add_lines(struct http_lines *l, const char *const *lines, struct platter_error *err)
{
    int r = 0;
    for (; lines && *lines && r == 0; lines++)
        r = add_line(l, *lines, err);
    return r;
}

static int make_lines(const struct http_client *c, const struct http_request *q, const char *url,
                      bool own, struct http_lines *l, struct platter_error *err)
{
    int r = http_lines_add(l, err, "Accept-Encoding: identity");
    if (r == 0 && q->ranged)
        r = http_lines_add(l, err, "Range: bytes=%" PRIu64 "-%" PRIu64, q->off,
                           q->off + q->len - 1);
    if (r == 0 && q->body) /* neither what curl takes the body for, nor waiting for leave */
        r = add_lines(l, (const char *const[]){"Content-Type:", "Expect:", NULL}, err);
    if (r == 0)
        r = add_lines(l, q->headers, err);
    if (r == 0 && own)
        r = add_lines(l, c->settings.headers, err);
    if (r == 0 && q->hooks && q->hooks->sign)
        r = q->hooks->sign(q->hooks->opaque, q, url, own, l, err);
    return r;
}

#define SET(option, value) (failed |= http_curl.easy_setopt(e, option, value) != CURLE_OK)
#define SET_IF(option, value)                                                                      \
    do {                                                                                           \
        if (value)                                                                                 \
            SET(option, value);                                                                    \
    } while (0)

/* What does not depend on the request. */
static bool set_general(CURL *e, const struct http_settings *s)
{
    static const long versions[] = {CURL_HTTP_VERSION_2TLS, CURL_HTTP_VERSION_1_1,
                                    CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE};
    bool failed = false;
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_NOPROGRESS, 1L);
    SET(CURLOPT_BUFFERSIZE, (long)RECEIVED_AT_ONCE);
    SET(CURLOPT_TCP_KEEPALIVE, 1L);
    SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    SET(CURLOPT_PATH_AS_IS, 1L);
    SET(CURLOPT_USERAGENT, "platter/" PLATTER_VERSION);
    SET(CURLOPT_HTTP_VERSION, versions[s->http2]);
    SET(CURLOPT_CONNECTTIMEOUT, (long)s->connect_timeout);
    SET(CURLOPT_LOW_SPEED_LIMIT, (long)SLOWEST);
    SET(CURLOPT_LOW_SPEED_TIME, (long)s->timeout);
#if LIBCURL_VERSION_NUM >= 0x075500
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
#else
    SET(CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
    SET_IF(CURLOPT_PROXY, s->proxy);
    return failed;
}

static bool set_trust(CURL *e, const struct http_settings *s)
{
    bool failed = false;
    const char *folder = getenv("SSL_CERT_DIR");
    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    SET_IF(CURLOPT_CAINFO, s->ca_file);
    if (folder && *folder)
        SET(CURLOPT_CAPATH, folder);
    if (s->insecure) {
        SET(CURLOPT_SSL_VERIFYPEER, 0L);
        SET(CURLOPT_SSL_VERIFYHOST, 0L);
    }
    return failed;
}

/* Who we are: for the server itself alone. */
static bool set_identity(CURL *e, const struct http_settings *s)
{
    static const unsigned long ways[] = {CURLAUTH_BASIC, CURLAUTH_DIGEST, CURLAUTH_ANY};
    bool failed = false;
    if (s->user || s->password) {
        SET(CURLOPT_HTTPAUTH, (long)ways[s->auth]);
        SET(CURLOPT_USERNAME, s->user ? s->user : "");
        SET(CURLOPT_PASSWORD, s->password ? s->password : "");
    }
    SET_IF(CURLOPT_AWS_SIGV4, s->sigv4);
    SET_IF(CURLOPT_SSLCERT, s->cert);
    SET_IF(CURLOPT_SSLKEY, s->key ? s->key : s->cert);
    SET_IF(CURLOPT_KEYPASSWD, s->key_password);
    return failed;
}

static bool set_request(CURL *e, struct transfer *t, const char *url)
{
    const struct http_request *q = t->q;
    bool failed = false;
    SET(CURLOPT_URL, url);
    SET(CURLOPT_ERRORBUFFER, t->why);
    SET(CURLOPT_PRIVATE, t);
    SET(CURLOPT_HTTPHEADER, t->lines.list);
    SET(CURLOPT_HEADERFUNCTION, take_header);
    SET(CURLOPT_HEADERDATA, t);
    SET(CURLOPT_WRITEFUNCTION, take_body);
    SET(CURLOPT_WRITEDATA, t);
    if (strcmp(q->method, "HEAD") == 0) {
        SET(CURLOPT_NOBODY, 1L);
    } else if (q->body || strcmp(q->method, "POST") == 0 || strcmp(q->method, "PUT") == 0) {
        SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)q->body_len);
        SET(CURLOPT_POSTFIELDS, q->body ? q->body : "");
        SET(CURLOPT_CUSTOMREQUEST, q->method);
    } else if (strcmp(q->method, "GET") != 0) {
        SET(CURLOPT_CUSTOMREQUEST, q->method);
    }
    return failed;
}

/* Whether it goes by a connection that is there. */
static bool set_sharing(CURL *e, const struct http_settings *s, const char *url)
{
    bool failed = false, secure = strncasecmp(url, "https:", 6) == 0;
    /* Waiting for a connection to show whether it can be shared costs where it cannot. */
    if (secure && s->http2 == HTTP_VERSION_AUTO)
        SET(CURLOPT_PIPEWAIT, 1L);
    /* libcurl 7.88 breaks one of HTTP/2 without TLS when it is used a second time. */
    if (!secure && s->http2 == HTTP_VERSION_ALWAYS) {
        SET(CURLOPT_FRESH_CONNECT, 1L);
        SET(CURLOPT_FORBID_REUSE, 1L);
    }
    return failed;
}

int http_transfer_new(struct http_client *c, const struct http_request *q, const char *url,
                      bool own, struct http_answer *a, struct transfer **ret,
                      struct platter_error *err)
{
    struct transfer *t = calloc(1, sizeof *t);
    CURL *e = t ? http_curl.easy_init() : NULL;
    if (!e) {
        free(t);
        return fail_memory(err, "a request");
    }
    *t = (struct transfer){.q = q, .a = a, .easy = e};
    pthread_cond_init(&t->finished, NULL);
    int r = make_lines(c, q, url, own, &t->lines, err);
    bool failed = r == 0 && (set_general(e, &c->settings) || set_trust(e, &c->settings) ||
                             set_request(e, t, url) || (own && set_identity(e, &c->settings)));
    failed |= set_sharing(e, &c->settings, url);
    if (r == 0 && failed)
        r = fail(err, ENOTSUP, "%s: the libcurl that is installed is too old or lacks TLS",
                 q->name);
    if (r < 0)
        http_transfer_free(t);
    else
        *ret = t;
    return r;
}

void http_transfer_free(struct transfer *t)
{
    http_curl.easy_cleanup(t->easy);
    for (struct curl_slist *l = t->lines.list; l; l = l->next)
        explicit_bzero(l->data, strlen(l->data)); /* it may hold a password */
    http_curl.slist_free_all(t->lines.list);
    pthread_cond_destroy(&t->finished);
    free(t);
}
