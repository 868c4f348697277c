/* SPDX-License-Identifier: MIT */
/* Requests until they are answered: tries, delays and redirects (source-spec.md section 4). */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/awake.h"
#include "base/ckd.h"
#include "base/memory.h"
#include "stream/http_inside.h"

enum {
    MOST_REDIRECTS = 10,
    FIRST_DELAY_MS = 500, /* before the second try; then twice as long each time ... */
    MOST_DELAY_MS = 30 * 1000,
    MOST_ASKED_S = 120, /* ... or as long as the server says */
    TRIES_AT_NOBODY = 3 /* where no server was ever heard of: the name may just be wrong */
};

void http_answer_done(struct http_answer *a)
{
    http_headers_done(&a->headers);
    free(a->text);
    free(a->url);
    *a = (struct http_answer){0};
}

/* ---- what passes -------------------------------------------------------------------------------
 */

static bool status_passes(const struct http_request *q, const struct http_answer *a)
{
    static const unsigned passing[] = {408, 425, 429, 500, 502, 503, 504};
    for (size_t i = 0; i < sizeof passing / sizeof *passing; i++)
        if (passing[i] == a->headers.status)
            return true;
    return q->hooks && q->hooks->passes && q->hooks->passes(q->hooks->opaque, a);
}

static bool is_unreachable(CURLcode code)
{
    return code == CURLE_COULDNT_RESOLVE_HOST || code == CURLE_COULDNT_RESOLVE_PROXY ||
           code == CURLE_COULDNT_CONNECT || code == CURLE_SSL_CONNECT_ERROR;
}

/* A proxy does not want to lead us there. */
static bool is_refused(const struct transfer *t)
{
    return t->code != CURLE_OK && t->tunnel >= 400 && t->tunnel < 500 && t->tunnel != 408 &&
           t->tunnel != 425 && t->tunnel != 429;
}

static bool code_passes(CURLcode code)
{
    switch ((unsigned)code) {
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_PARTIAL_FILE:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
    case CURLE_NO_CONNECTION_AVAILABLE:
        return true;
    }
    return is_unreachable(code);
}

static int code_errno(CURLcode code)
{
    switch ((unsigned)code) {
    case CURLE_OPERATION_TIMEDOUT:
        return ETIMEDOUT;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        return EHOSTUNREACH;
    case CURLE_COULDNT_CONNECT:
        return ECONNREFUSED;
    case CURLE_OUT_OF_MEMORY:
        return ENOMEM;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
        return EACCES;
    }
    return EIO;
}

static const char *code_hint(const struct transfer *t)
{
    if (t->tunnel == 407)
        return "; look at the proxy's user and password";
    switch ((unsigned)t->code) {
    case CURLE_PEER_FAILED_VERIFICATION:
        return "; if its certificate is to be trusted, name the file of who signed it (ca_file)";
    case CURLE_SSL_CACERT_BADFILE:
        return "; look at ca_file, CURL_CA_BUNDLE and SSL_CERT_FILE";
    case CURLE_SSL_CERTPROBLEM:
        return "; look at cert and key";
    case CURLE_COULDNT_RESOLVE_HOST:
        return "; look at how the host's name is written";
    }
    return "";
}

static int fail_code(const struct transfer *t, unsigned tries, struct platter_error *err)
{
    const struct http_request *q = t->q;
    const char *why = *t->why ? t->why : http_curl.easy_strerror(t->code);
    char at[64] = "", times[32] = "";
    if (q->ranged && q->off > 0)
        snprintf(at, sizeof at, " for %" PRIu64 " bytes at offset %" PRIu64, q->len, q->off);
    if (tries > 1)
        snprintf(times, sizeof times, " (%u tries)", tries);
    return fail(err, is_refused(t) ? EACCES : code_errno(t->code),
                "%s: the server does not answer%s%s: %s%s", q->name, at, times, why, code_hint(t));
}

/* ---- delays ------------------------------------------------------------------------------------
 */

static bool is_stopped(const struct http_request *q)
{
    return q->stop && atomic_load(q->stop);
}

static int fail_stopped(const struct http_request *q, struct platter_error *err)
{
    return fail(err, ECANCELED, "%s: reading was given up", q->name);
}

static void sleep_until(struct http_client *c, const struct http_request *q, uint64_t until_ns)
{
    const struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000),
                                   .tv_nsec = (long)(until_ns % 1000000000)};
    WITH_LOCK(&c->lock);
    while (!is_stopped(q) && now_ns() < until_ns)
        pthread_cond_timedwait(&c->woken, &c->lock, &until);
}

/* Half of the delay, and by chance up to the other: those who failed together do not come again
 * together. */
static uint64_t delay_of(unsigned tries)
{
    uint64_t ms = FIRST_DELAY_MS;
    for (unsigned i = 1; i < tries && ms < MOST_DELAY_MS; i++)
        ms *= 2;
    ms = min_u64(ms, MOST_DELAY_MS);
    return (ms / 2 + now_ns() / 1000 % (ms / 2)) * 1000000;
}

/* Waits before the next try; false: there is none. `asked`: seconds that the server said. */
static bool wait_again(struct http_client *c, struct http_request *q, unsigned asked, bool nobody)
{
    struct http_patience *p = q->patience;
    uint64_t now = now_ns(), delay = delay_of(p->tries);
    if (asked > 0)
        delay = max_u64(delay, min_u64(asked, MOST_ASKED_S) * 1000000000);
    if (p->since_ns == 0)
        p->since_ns = now;
    if (p->tries > c->settings.retries || (nobody && p->tries >= TRIES_AT_NOBODY) ||
        now + delay - p->since_ns > (uint64_t)c->settings.retry_time * 1000000000)
        return false;
    sleep_until(c, q, now + delay);
    return true;
}

/* ---- redirects ---------------------------------------------------------------------------------
 */

static bool is_redirect(const struct http_request *q, const struct http_answer *a)
{
    unsigned s = a->headers.status;
    bool reads = strcmp(q->method, "GET") == 0 || strcmp(q->method, "HEAD") == 0;
    bool moved = s == 301 || s == 302 || s == 303;
    if (q->keep_redirects || !http_header(&a->headers, "Location"))
        return false;
    if (q->hooks && q->hooks->stays && q->hooks->stays(q->hooks->opaque, a))
        return false;
    return s == 307 || s == 308 || (moved && reads);
}

/* a->url becomes the URL that the answer leads to. */
static int follow(const struct http_request *q, struct transfer *t, unsigned *hops,
                  struct platter_error *err)
{
    struct http_answer *a = t->a;
    char *to = NULL;
    http_curl.easy_getinfo(t->easy, CURLINFO_REDIRECT_URL, &to);
    if (!to || (strncasecmp(to, "http://", 7) != 0 && strncasecmp(to, "https://", 8) != 0))
        return fail(err, EPROTO, "%s: the server redirects to what is no http or https URL",
                    q->name);
    if (strncasecmp(a->url, "https:", 6) == 0 && strncasecmp(to, "https:", 6) != 0)
        return fail(err, EPROTO,
                    "%s: the server redirects from https to http, which is not followed: what is "
                    "read there could be changed on its way",
                    q->name);
    if (++*hops > MOST_REDIRECTS)
        return fail(err, ELOOP, "%s: more than %d redirects", q->name, MOST_REDIRECTS);
    char *url;
    int r = http_url_clean(to, &url, err);
    if (r < 0)
        return r;
    free(a->url);
    a->url = url;
    return 0;
}

/* ---- sending -----------------------------------------------------------------------------------
 */

/* Of a failure that passes: what is to be done. 1: another try, 0: it is the answer. */
static int after_failure(struct http_client *c, struct http_request *q, struct transfer *t,
                         struct platter_error *err)
{
    const char *later = http_header(&t->a->headers, "Retry-After");
    unsigned asked = 0;
    if (t->code == CURLE_OK && later && !http_retry_after_parse(later, time(NULL), &asked))
        asked = 0;
    bool nobody = is_unreachable(t->code) && !atomic_load(&c->answered);
    bool begun = t->body == BODY_SINK; /* what was handed on cannot be handed on again */
    bool passes =
        t->code == CURLE_OK ? status_passes(q, t->a) : code_passes(t->code) && !is_refused(t);
    bool again = passes && !begun && !q->once && wait_again(c, q, asked, nobody);
    if (is_stopped(q))
        return fail_stopped(q, err);
    if (again && t->code != CURLE_OK && t->body == BODY_INTO && t->a->got > 0)
        return 0;
    return again ? 1 : t->code == CURLE_OK ? 0 : fail_code(t, q->patience->tries, err);
}

/* One try. 0: that is the answer, or what came of it; 1: not yet. */
static int try_once(struct http_client *c, struct http_request *q, struct http_answer *a,
                    unsigned *hops, struct platter_error *err)
{
    struct transfer *t;
    bool own = http_same_server(a->url, q->trusted ? q->trusted : q->url);
    a->got = 0;
    a->text_len = 0;
    a->cut = false;
    a->headers.len = 0;
    a->headers.status = 0;
    int r = is_stopped(q) ? fail_stopped(q, err) : http_transfer_new(c, q, a->url, own, a, &t, err);
    if (r < 0)
        return r;
    r = http_transfer_run(c, t, err);
    if (r == 0 && t->stopped)
        r = fail_stopped(q, err);
    if (r == 0 && t->result < 0)
        r = fail(err, -t->result, "%s", t->error.message);
    if (a->headers.status)
        atomic_store(&c->answered, true);
    if (r == 0 && t->code == CURLE_OK && is_redirect(q, a)) {
        r = follow(q, t, hops, err);
        r = r == 0 ? 1 : r;
    } else if (r == 0 && (t->code != CURLE_OK || a->headers.status >= 400)) {
        a->tries = ++q->patience->tries;
        r = after_failure(c, q, t, err);
    }
    http_transfer_free(t);
    return r;
}

int http_send(struct http_client *c, struct http_request *q, struct http_answer *ret,
              struct platter_error *err)
{
    struct http_patience patience = {0}, *theirs = q->patience;
    unsigned hops = 0;
    *ret = (struct http_answer){.url = string_copy(q->url)};
    if (!ret->url)
        return fail_memory(err, "a URL");
    q->patience = theirs ? theirs : &patience;
    int r = 1;
    while (r == 1)
        r = try_once(c, q, ret, &hops, err);
    q->patience = theirs;
    if (r < 0)
        http_answer_done(ret);
    return r;
}

/* ---- failures ----------------------------------------------------------------------------------
 */

static int status_errno(unsigned status)
{
    switch (status) {
    case 401:
    case 403:
    case 407:
        return EACCES;
    case 404:
    case 410:
        return ENOENT;
    case 412:
        return ESTALE;
    }
    return EIO;
}

static const char *status_hint(unsigned status)
{
    switch (status) {
    case 401:
        return ": look at user and password";
    case 407:
        return ": look at the proxy's user and password";
    case 403:
        return ": who asks may not";
    case 404:
    case 410:
        return ": there is nothing of that name";
    case 412:
        return ": it changed on the server meanwhile; begin again";
    }
    return "";
}

int http_fail(const struct http_request *q, const struct http_answer *a, const char *what,
              struct platter_error *err)
{
    auto_free char *said =
        q->hooks && q->hooks->explain ? q->hooks->explain(q->hooks->opaque, a) : NULL;
    unsigned status = a->headers.status;
    char at[80] = "", times[32] = "";
    if (q->ranged && q->off > 0)
        snprintf(at, sizeof at, " (%" PRIu64 " bytes at offset %" PRIu64 ")", q->len, q->off);
    if (a->tries > 1)
        snprintf(times, sizeof times, " after %u tries", a->tries);
    return fail(err, status_errno(status), "%s: %s%s: the server answers %u%s%s%s%s%s%s", q->name,
                what, at, status, *a->headers.reason ? " " : "", a->headers.reason, times,
                said ? ", " : "", said ? said : "", said ? "" : status_hint(status));
}
