/* SPDX-License-Identifier: MIT */
/* Requests to a server of S3: see s3.h. source-spec.md section 5. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/ckd.h"
#include "base/memory.h"
#include "stream/s3.h"
#include "stream/s3_sign.h"

enum { HASTY_RETRIES = 3, HASTY_TIME = 15 }; /* of the client that takes back */

/* ---- servers -----------------------------------------------------------------------------------
 */

int s3_server_new(struct s3_login *login, const struct http_settings *settings, uint64_t part_size,
                  struct s3_server **ret, struct platter_error *err)
{
    struct s3_server *s = calloc(1, sizeof *s);
    if (!s) {
        s3_login_done(login);
        return fail_memory(err, "a server of S3");
    }
    s->login = *login;
    *login = (struct s3_login){0};
    s->part_size = part_size;
    s->connections = settings->connections;
    atomic_init(&s->refs, 1);
    pthread_mutex_init(&s->lock, NULL);
    snprintf(s->region, sizeof s->region, "%s", s->login.region);
    struct http_settings hasty = *settings;
    hasty.retries = hasty.retries < HASTY_RETRIES ? hasty.retries : HASTY_RETRIES;
    hasty.retry_time = hasty.retry_time < HASTY_TIME ? hasty.retry_time : HASTY_TIME;
    int r = http_client_new(settings, &s->client, err);
    if (r == 0)
        r = http_client_new(&hasty, &s->spare, err);
    if (r < 0)
        s3_server_unref(s);
    else
        *ret = s;
    return r;
}

void s3_server_unref(struct s3_server *s)
{
    if (!s || atomic_fetch_sub(&s->refs, 1) != 1)
        return;
    http_client_unref(s->client);
    http_client_unref(s->spare);
    s3_login_done(&s->login);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* ---- objects -----------------------------------------------------------------------------------
 */

/* What has a meaning in a URI, or none for who reads it, is percent-encoded. */
char *s3_name(const char *bucket, const char *key)
{
    char *ret = malloc(strlen(bucket) + 3 * strlen(key) + sizeof "s3:///"), *p = ret;
    if (!ret)
        return NULL;
    p += sprintf(p, "s3://%s/", bucket);
    for (; *key; key++) {
        unsigned char c = (unsigned char)*key;
        p += sprintf(p, c < ' ' || c == 0x7f || strchr("%?#", c) ? "%%%02X" : "%c", c);
    }
    return ret;
}

/* Whether it can stand in front of a host's name that a certificate for *.host covers. */
static bool is_label(const char *bucket)
{
    for (const char *p = bucket; *p; p++)
        if (!(islower((unsigned char)*p) || isdigit((unsigned char)*p) || *p == '-'))
            return false;
    return true;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcasecmp(text + n - m, end) == 0;
}

/* Amazon's servers, of which those of new buckets know the other way only. There are machines of
 * anybody below the same name. */
static bool is_amazon(const char *endpoint)
{
    bool s3 = strstr(endpoint, "//s3.") || strstr(endpoint, "//s3-") || strstr(endpoint, ".s3.") ||
              strstr(endpoint, ".s3-");
    return s3 &&
           (ends_with(endpoint, ".amazonaws.com") || ends_with(endpoint, ".amazonaws.com.cn"));
}

static char *endpoint_of(const struct s3_server *s)
{
    if (s->login.endpoint)
        return string_copy(s->login.endpoint);
    return string_format("https://s3.%s.amazonaws.com%s", s->region,
                         strncmp(s->region, "cn-", 3) == 0 ? ".cn" : "");
}

static int aim(struct s3_object *o, struct platter_error *err)
{
    struct s3_server *s = o->server;
    WITH_LOCK(&s->lock);
    enum s3_style style = s->login.style;
    auto_free char *endpoint = endpoint_of(s), *path = s3_escape(o->key, true),
                   *bucket = s3_escape(o->bucket, false);
    if (!endpoint || !path || !bucket)
        return fail_memory(err, "a URL");
    if (style == S3_STYLE_AUTO)
        style = is_amazon(endpoint) && is_label(o->bucket) ? S3_STYLE_HOST : S3_STYLE_PATH;
    int scheme = (int)(strstr(endpoint, "://") + 3 - endpoint);
    free(o->url);
    o->url = style == S3_STYLE_HOST
                 ? string_format("%.*s%s.%s/%s", scheme, endpoint, bucket, endpoint + scheme, path)
                 : string_format("%s/%s/%s", endpoint, bucket, path);
    return o->url ? 0 : fail_memory(err, "a URL");
}

int s3_object_new(struct s3_server *s, const char *bucket, const char *key, struct s3_object **ret,
                  struct platter_error *err)
{
    struct s3_object *o = calloc(1, sizeof *o);
    if (!o)
        return fail_memory(err, "an object");
    atomic_fetch_add(&s->refs, 1);
    o->server = s;
    o->bucket = string_copy(bucket);
    o->key = string_copy(key);
    o->name = s3_name(bucket, key);
    int r = o->bucket && o->key && o->name ? aim(o, err) : fail_memory(err, "an object");
    if (r < 0)
        s3_object_free(o);
    else
        *ret = o;
    return r;
}

void s3_object_free(struct s3_object *o)
{
    if (!o)
        return;
    s3_server_unref(o->server);
    free(o->bucket);
    free(o->key);
    free(o->name);
    free(o->url);
    free(o);
}

bool s3_server_moved(struct s3_server *s)
{
    WITH_LOCK(&s->lock);
    bool moved = *s->told && strcmp(s->told, s->region) != 0;
    if (moved)
        memcpy(s->region, s->told, sizeof s->region);
    *s->told = '\0';
    return moved;
}

/* ---- what is sent ------------------------------------------------------------------------------
 */

/* A signature is worth nothing at another host than the one that it is for. But a token would be
 * shown there, so it is for Amazon's other servers alone. */
static bool may_sign(const struct s3_server *s, const char *url, bool own)
{
    if (!s->login.access_key)
        return false;
    auto_free char *host = string_format("%.*s", (int)strcspn(url + 8, ":/?") + 8, url);
    bool at_amazon = !s->login.endpoint || is_amazon(s->login.endpoint);
    return own || (at_amazon && host && is_amazon(host));
}

static int sign(void *opaque, const struct http_request *q, const char *url, bool own,
                struct http_lines *lines, struct platter_error *err)
{
    const struct s3_object *o = opaque;
    struct s3_server *s = o->server;
    char payload[S3_HASH_TEXT], date[S3_DATE_TEXT], region[S3_MOST_REGION];
    const struct s3_header token = {"x-amz-security-token", s->login.token};
    if (!may_sign(s, url, own))
        return 0;
    pthread_mutex_lock(&s->lock);
    memcpy(region, s->region, sizeof region);
    pthread_mutex_unlock(&s->lock);
    s3_hash(q->body ? q->body : "", q->body ? q->body_len : 0, payload);
    const struct s3_signing what = {.method = q->method,
                                    .url = url,
                                    .access_key = s->login.access_key,
                                    .secret_key = s->login.secret_key,
                                    .region = region,
                                    .now = time(NULL),
                                    .payload = payload,
                                    .headers = &token,
                                    .n_headers = token.value ? 1 : 0};
    auto_free char *authorization = NULL;
    int r = s3_sign(&what, date, &authorization, err);
    if (r == 0)
        r = http_lines_add(lines, err, "x-amz-date: %s", date);
    if (r == 0)
        r = http_lines_add(lines, err, "x-amz-content-sha256: %s", payload);
    if (r == 0 && token.value)
        r = http_lines_add(lines, err, "x-amz-security-token: %s", token.value);
    return r < 0 ? r : http_lines_add(lines, err, "Authorization: %s", authorization);
}

/* ---- what comes --------------------------------------------------------------------------------
 */

static const struct {
    const char *name, *character;
} entities[] = {{"&amp;", "&"}, {"&lt;", "<"}, {"&gt;", ">"}, {"&quot;", "\""}, {"&apos;", "'"}};

/* One character of a text, with the entity it may be; how many bytes it takes there. */
static size_t next_character(const char *p, char *ret)
{
    *ret = (unsigned char)*p < ' ' || *p == 0x7f ? '?' : *p;
    for (size_t i = 0; *p == '&' && i < sizeof entities / sizeof *entities; i++)
        if (strncmp(p, entities[i].name, strlen(entities[i].name)) == 0) {
            *ret = *entities[i].character;
            return strlen(entities[i].name);
        }
    unsigned number = 0;
    size_t len = 2;
    for (; strncmp(p, "&#", 2) == 0 && len < 5 && isdigit((unsigned char)p[len]); len++)
        number = 10 * number + (unsigned)(p[len] - '0');
    if (number < ' ' || number >= 0x7f || p[len] != ';')
        return 1;
    *ret = (char)number;
    return len + 1;
}

size_t s3_xml_text(const char *xml, const char *tag, char *ret, size_t room)
{
    size_t n = 0, len = strlen(tag);
    const char *p = xml;
    *ret = '\0';
    while ((p = strchr(p, '<')) && (strncmp(p + 1, tag, len) != 0 || p[1 + len] != '>'))
        p++;
    if (!p)
        return 0;
    for (p += len + 2; *p && *p != '<'; n++) {
        char c;
        p += next_character(p, &c);
        if (n + 1 < room) {
            ret[n] = c;
            ret[n + 1] = '\0';
        }
    }
    return *p ? n : 0;
}

static bool is_region(const char *text)
{
    return *text && text[strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-_")] == '\0';
}

/* Whether an answer says that the bucket is in another region than we sign for, and which. */
static bool is_elsewhere(struct s3_server *s, const struct http_answer *a,
                         char ret[static S3_MOST_REGION])
{
    const char *header = http_header(&a->headers, "x-amz-bucket-region");
    size_t len = 0;
    if (header)
        len = (size_t)snprintf(ret, S3_MOST_REGION, "%s", header);
    else if (a->text)
        len = s3_xml_text(a->text, "Region", ret, S3_MOST_REGION);
    if (len == 0 || len >= S3_MOST_REGION || !is_region(ret))
        return false;
    WITH_LOCK(&s->lock);
    return strcmp(ret, s->region) != 0;
}

/* Such a redirect is not followed: signed for the other region, it is asked for anew. */
static bool stays(void *opaque, const struct http_answer *a)
{
    const struct s3_object *o = opaque;
    char region[S3_MOST_REGION];
    return is_elsewhere(o->server, a, region);
}

/* How far our clock is from the server's. */
static void tell_clock(const struct http_answer *a, char *ret, size_t room)
{
    const char *date = http_header(&a->headers, "Date");
    struct tm tm = {0};
    const char *end = date ? strptime(date, "%a, %d %b %Y %H:%M:%S GMT", &tm) : NULL;
    double off = end ? difftime(time(NULL), timegm(&tm)) : 0;
    if (end)
        snprintf(ret, room,
                 ": the clock of this machine is %.0f seconds %s that of the server: set it right",
                 off < 0 ? -off : off, off < 0 ? "behind" : "ahead of");
    else
        snprintf(ret, room, ": the clock of this machine is not right");
}

static const struct {
    const char *code, *hint;
} hints[] = {
    {"SignatureDoesNotMatch", "look at the secret key"},
    {"InvalidAccessKeyId", "the server does not know the access key"},
    {"ExpiredToken", "the keys were good for a while only; get new ones"},
    {"InvalidToken", "look at the security token"},
    {"NoSuchKey", "there is no such object in the bucket"},
    {"NoSuchBucket", "there is no such bucket"},
    {"PreconditionFailed", "it changed on the server meanwhile; begin again"},
    {"InvalidRange", "it has become shorter"},
};

/* Why it may not be. */
static void tell_denied(const struct s3_object *o, const struct http_answer *a, char *ret,
                        size_t room)
{
    if (!o->server->login.access_key)
        snprintf(ret, room, ": it is not for everybody; keys are needed");
    else if (a->url && !http_same_server(a->url, o->url)) /* without what may be a login */
        snprintf(ret, room,
                 ": the server redirects to %.*s, which is not told who we are: give that as the "
                 "endpoint",
                 (int)min_u64(100, 8 + strcspn(a->url + 8, "/?#")), a->url);
    else
        snprintf(ret, room, ": the owner of the access key may not");
}

static void tell_hint(const struct s3_object *o, const struct http_answer *a, const char *code,
                      char *ret, size_t room)
{
    for (size_t i = 0; i < sizeof hints / sizeof *hints; i++)
        if (strcmp(hints[i].code, code) == 0)
            snprintf(ret, room, ": %s", hints[i].hint);
    if (strcmp(code, "RequestTimeTooSkewed") == 0)
        tell_clock(a, ret, room);
    else if (strcmp(code, "AccessDenied") == 0)
        tell_denied(o, a, ret, room);
    if (!*ret && a->text) { /* whatever the server itself has to say */
        memcpy(ret, ": ", 3);
        if (s3_xml_text(a->text, "Message", ret + 2, room - 2) == 0)
            *ret = '\0';
    }
}

static char *explain(void *opaque, const struct http_answer *a)
{
    const struct s3_object *o = opaque;
    struct s3_server *s = o->server;
    char code[64] = "", id[128] = "", hint[256] = "", region[S3_MOST_REGION];
    const char *header = http_header(&a->headers, "x-amz-request-id");
    bool elsewhere = is_elsewhere(s, a, region);
    if (elsewhere) {
        WITH_LOCK(&s->lock);
        memcpy(s->told, region, sizeof region);
    }
    if (a->text)
        s3_xml_text(a->text, "Code", code, sizeof code);
    if (a->text)
        s3_xml_text(a->text, "RequestId", id, sizeof id);
    if (!*id && header)
        snprintf(id, sizeof id, "%s", header);
    if (elsewhere)
        snprintf(hint, sizeof hint, ": the bucket is in the region %s", region);
    else if (*code)
        tell_hint(o, a, code, hint, sizeof hint);
    else
        return NULL;
    return string_format("%s (request %s)%s", *code ? code : "no reason",
                         *id ? id : "without a number", hint);
}

static bool passes(void *opaque, const struct http_answer *a)
{
    static const char *const codes[] = {"RequestTimeout", "SlowDown", "InternalError",
                                        "ServiceUnavailable", "OperationAborted"};
    char code[64] = "";
    (void)opaque;
    if (!a->text || s3_xml_text(a->text, "Code", code, sizeof code) >= sizeof code)
        return false;
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (strcmp(codes[i], code) == 0)
            return true;
    return false;
}

struct http_hooks s3_object_hooks(struct s3_object *o)
{
    return (struct http_hooks){
        .opaque = o, .sign = sign, .explain = explain, .passes = passes, .stays = stays};
}
