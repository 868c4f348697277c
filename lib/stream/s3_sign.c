/* SPDX-License-Identifier: MIT */
/* Signature version 4: see s3_sign.h. */
#include "stream/s3_sign.h"

#include <ctype.h>
#include <nettle/hmac.h>
#include <nettle/sha2.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/memory.h"

enum { MOST_SIGNED = 8 /* headers */ };

/* ---- text --------------------------------------------------------------------------------------
 */

static void to_hex(const uint8_t *bytes, size_t n, char *ret)
{
    for (size_t i = 0; i < n; i++)
        sprintf(ret + 2 * i, "%02x", bytes[i]);
}

void s3_hash(const void *bytes, size_t len, char ret[static S3_HASH_TEXT])
{
    struct sha256_ctx ctx;
    uint8_t digest[SHA256_DIGEST_SIZE];
    sha256_init(&ctx);
    sha256_update(&ctx, len, bytes);
    sha256_digest(&ctx, sizeof digest, digest);
    to_hex(digest, sizeof digest, ret);
}

static bool is_unreserved(unsigned char c)
{
    return c < 0x80 && (isalnum(c) || (c && strchr("-._~", c)));
}

char *s3_escape(const char *text, bool slashes)
{
    char *ret = malloc(3 * strlen(text) + 1), *p = ret;
    if (!ret)
        return NULL;
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (is_unreserved(c) || (slashes && c == '/'))
            *p++ = *text;
        else
            p += sprintf(p, "%%%02X", c);
    }
    *p = '\0';
    return ret;
}

static int digit_of(char c)
{
    return isdigit((unsigned char)c)    ? c - '0'
           : isxdigit((unsigned char)c) ? tolower((unsigned char)c) - 'a' + 10
                                        : -1;
}

bool s3_unescape(char *text)
{
    char *to = text;
    for (; *text; text++) {
        if (*text != '%') {
            *to++ = *text;
            continue;
        }
        int high = digit_of(text[1]), low = high < 0 ? -1 : digit_of(text[2]);
        if (low < 0 || high + low == 0)
            return false;
        *to++ = (char)(16 * high + low);
        text += 2;
    }
    *to = '\0';
    return true;
}

/* ---- canonical requests ------------------------------------------------------------------------
 */

/* What stands in a URL. */
struct parts {
    char *host; /* as it is sent: small letters, without the port that is the scheme's */
    const char *path, *query;
    size_t path_len;
};

static int take_apart(const char *url, struct parts *ret, struct platter_error *err)
{
    const char *colon = strstr(url, "://"), *host = colon ? colon + 3 : url;
    size_t len = strcspn(host, "/?");
    bool tls = strncasecmp(url, "https:", 6) == 0;
    const char *port = tls ? ":443" : ":80";
    const char *path = host + len;
    if (len > strlen(port) && strncmp(path - strlen(port), port, strlen(port)) == 0)
        len -= strlen(port);
    ret->host = string_format("%.*s", (int)len, host);
    if (!ret->host)
        return fail_memory(err, "a request");
    for (char *p = ret->host; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    ret->path_len = strcspn(path, "?");
    ret->query = path[ret->path_len] ? path + ret->path_len + 1 : "";
    ret->path = ret->path_len > 0 ? path : "/";
    ret->path_len = ret->path_len > 0 ? ret->path_len : 1;
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct s3_header *)a)->name, ((const struct s3_header *)b)->name);
}

/* Without blanks around it, and one for each run of them inside of it. */
static void put_value(FILE *f, const char *value)
{
    value += strspn(value, " \t");
    while (*value) {
        size_t word = strcspn(value, " \t");
        fwrite(value, 1, word, f);
        value += word + strspn(value + word, " \t");
        if (*value)
            fputc(' ', f);
    }
}

static void put_names(FILE *f, const struct s3_header *headers, size_t n)
{
    for (size_t i = 0; i < n; i++)
        fprintf(f, "%s%s", i ? ";" : "", headers[i].name);
}

/* Its hash is what is signed. */
static int hash_request(const struct s3_signing *s, const struct parts *parts,
                        const struct s3_header *headers, size_t n, char ret[static S3_HASH_TEXT],
                        struct platter_error *err)
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    if (!f)
        return fail_memory(err, "a request");
    fprintf(f, "%s\n%.*s\n%s\n", s->method, (int)parts->path_len, parts->path, parts->query);
    for (size_t i = 0; i < n; i++) {
        fprintf(f, "%s:", headers[i].name);
        put_value(f, headers[i].value);
        fputc('\n', f);
    }
    fputc('\n', f);
    put_names(f, headers, n);
    fprintf(f, "\n%s", s->payload);
    bool failed = ferror(f) != 0;
    failed |= fclose(f) != 0;
    if (!failed)
        s3_hash(text, len, ret);
    free(text);
    return failed ? fail_memory(err, "a request") : 0;
}

/* ---- signatures --------------------------------------------------------------------------------
 */

static void hmac(const uint8_t *key, size_t key_len, const char *text, uint8_t *ret)
{
    struct hmac_sha256_ctx ctx;
    hmac_sha256_set_key(&ctx, key_len, key);
    hmac_sha256_update(&ctx, strlen(text), (const uint8_t *)text);
    hmac_sha256_digest(&ctx, SHA256_DIGEST_SIZE, ret);
    explicit_bzero(&ctx, sizeof ctx);
}

/* One HMAC after the other: the day, the region, the service, a word, and what is signed. */
static int sign_text(const struct s3_signing *s, const char *day, const char *text,
                     char ret[static S3_HASH_TEXT], struct platter_error *err)
{
    const char *links[] = {day, s->region, "s3", "aws4_request", text};
    uint8_t key[SHA256_DIGEST_SIZE];
    char *first = string_format("AWS4%s", s->secret_key);
    if (!first)
        return fail_memory(err, "a signature");
    hmac((const uint8_t *)first, strlen(first), links[0], key);
    for (size_t i = 1; i < sizeof links / sizeof *links; i++)
        hmac(key, sizeof key, links[i], key);
    to_hex(key, sizeof key, ret);
    explicit_bzero(key, sizeof key);
    explicit_bzero(first, strlen(first));
    free(first);
    return 0;
}

static int make_date(time_t now, char date[static S3_DATE_TEXT], struct platter_error *err)
{
    struct tm tm;
    if (!gmtime_r(&now, &tm) || strftime(date, S3_DATE_TEXT, "%Y%m%dT%H%M%SZ", &tm) == 0)
        return fail(err, ERANGE, "the clock of this machine shows no date that can be sent");
    return 0;
}

static int put_together(const struct s3_signing *s, const struct s3_header *headers, size_t n,
                        const char *scope, const char *signature, char **ret,
                        struct platter_error *err)
{
    size_t len = 0;
    FILE *f = open_memstream(ret, &len);
    if (!f)
        return fail_memory(err, "a signature");
    fprintf(f, "AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=", s->access_key, scope);
    put_names(f, headers, n);
    fprintf(f, ", Signature=%s", signature);
    bool failed = ferror(f) != 0;
    failed |= fclose(f) != 0;
    if (failed)
        free(TAKE(*ret));
    return failed ? fail_memory(err, "a signature") : 0;
}

int s3_sign(const struct s3_signing *s, char date[static S3_DATE_TEXT], char **ret,
            struct platter_error *err)
{
    struct s3_header headers[MOST_SIGNED];
    char request[S3_HASH_TEXT], signature[S3_HASH_TEXT];
    struct parts parts = {0};
    if (s->n_headers + 3 > MOST_SIGNED)
        return fail(err, E2BIG, "too many headers are to be signed");
    int r = make_date(s->now, date, err);
    if (r == 0)
        r = take_apart(s->url, &parts, err);
    if (r < 0)
        return r;
    auto_free char *host = parts.host;
    headers[0] = (struct s3_header){"host", host};
    headers[1] = (struct s3_header){"x-amz-content-sha256", s->payload};
    headers[2] = (struct s3_header){"x-amz-date", date};
    for (size_t i = 0; i < s->n_headers; i++)
        headers[3 + i] = s->headers[i];
    size_t n = 3 + s->n_headers;
    qsort(headers, n, sizeof *headers, by_name);

    r = hash_request(s, &parts, headers, n, request, err);
    auto_free char *scope = string_format("%.8s/%s/s3/aws4_request", date, s->region);
    auto_free char *day = string_format("%.8s", date);
    auto_free char *text =
        scope ? string_format("AWS4-HMAC-SHA256\n%s\n%s\n%s", date, scope, request) : NULL;
    if (r == 0 && (!day || !text))
        r = fail_memory(err, "a signature");
    if (r == 0)
        r = sign_text(s, day, text, signature, err);
    return r < 0 ? r : put_together(s, headers, n, scope, signature, ret, err);
}
