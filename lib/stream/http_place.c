/* SPDX-License-Identifier: MIT */
/* What lies on web servers, by name: URLs, keys, and how one is opened. */
#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "base/memory.h"
#include "stream/http_stream.h"
#include "stream/place.h"

enum { MOST_LINES = 64 /* headers of the user's own */ };

static const char *const prefixes[] = {"http://", "https://", NULL};

static const struct option_def http_keys[] = {
    {"url", OPTION_STRING, NULL, NULL, 0, 0, "the URL; http:// where it has no scheme"},
    {"user", OPTION_STRING, NULL, NULL, 0, 0, "who we are, to the server of the URL alone"},
    {"password", OPTION_STRING, NULL, NULL, 0, 0, "... and the password, env:NAME or file:PATH"},
    {"auth", OPTION_ENUM, "basic", http_auth_names, 0, 0,
     "how the password is told: as it is, hashed, or as the server wants it, which takes one more "
     "request each time"},
    {"headers", OPTION_STRING, NULL, NULL, 0, 0,
     "lines \"Name: value\" for that server; a value may be env:NAME or file:PATH"},
    HTTP_PLACE_KEYS,
    {0},
};

/* ---- URLs --------------------------------------------------------------------------------------
 */

static int keys_of(const char *uri, char **ret_keys, struct platter_error *err)
{
    auto_free char *url = NULL, *user = NULL, *password = NULL;
    int r = http_url_login(uri, &url, &user, &password, err);
    if (r == 0)
        r = option_text(ret_keys, "url", url, err);
    if (r == 0)
        r = option_text(ret_keys, "user", user, err);
    if (r == 0)
        r = option_text(ret_keys, "password", password, err);
    if (r < 0)
        free(TAKE(*ret_keys));
    return r;
}

static bool has_scheme(const char *url)
{
    return strncasecmp(url, "http://", 7) == 0 || strncasecmp(url, "https://", 8) == 0;
}

/* As everybody else sees it: with a scheme, and without user and password. */
static char *name_of(const struct option_values *keys)
{
    const char *url = options_string(keys, "url");
    if (!url)
        return string_copy("http:");
    auto_free char *full = string_format("%s%s", has_scheme(url) ? "" : "http://", url);
    return full ? http_url_name(full) : NULL;
}

/* ---- headers -----------------------------------------------------------------------------------
 */

/* What the client says itself, and would be wrong if somebody else did. */
static bool is_ours(const char *line, size_t name)
{
    static const char *const ours[] = {
        "Range",           "If-Match",          "If-None-Match",
        "If-Range",        "If-Modified-Since", "If-Unmodified-Since",
        "Accept-Encoding", "Content-Length",    "Transfer-Encoding",
        "Connection"};
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        if (strlen(ours[i]) == name && strncasecmp(line, ours[i], name) == 0)
            return true;
    return false;
}

static bool is_token(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)text[i]) && !strchr("!#$%&'*+-.^_`|~", text[i]))
            return false;
    return n > 0;
}

/* One line of the key, checked, and its secret in place. The value is never shown. */
static int header_of(const char *line, size_t len, char **ret, struct platter_error *err)
{
    const char *colon = memchr(line, ':', len);
    size_t name = colon ? (size_t)(colon - line) : 0;
    if (!is_token(line, name))
        return fail(err, EINVAL, "headers: each of its lines is to be \"Name: value\"");
    if (is_ours(line, name))
        return fail(err, EINVAL, "headers: \"%.*s\" is not to be said by others than platter",
                    (int)name, line);
    const char *value = colon + 1;
    while (value < line + len && (*value == ' ' || *value == '\t'))
        value++;
    auto_free char *written = string_format("%.*s", (int)(line + len - value), value);
    char *secret = NULL;
    int r = written ? place_secret(written, "header", &secret, err) : fail_memory(err, "a header");
    if (r < 0)
        return r;
    for (const char *p = secret; *p && r == 0; p++)
        if ((unsigned char)*p < ' ' && *p != '\t')
            r = fail(err, EINVAL, "headers: the value of \"%.*s\" has control characters",
                     (int)name, line);
    /* Without a value curl would leave it out. */
    if (r == 0 && !(*ret = *secret ? string_format("%.*s: %s", (int)name, line, secret)
                                   : string_format("%.*s;", (int)name, line)))
        r = fail_memory(err, "a header");
    explicit_bzero(secret, strlen(secret));
    free(secret);
    return r;
}

static int headers_of(const char *text, char *lines[MOST_LINES + 1], struct platter_error *err)
{
    size_t n = 0;
    for (int r; text && *text; text += strspn(text, "\r\n")) {
        size_t len = strcspn(text, "\r\n");
        if (len > 0 && n == MOST_LINES)
            return fail(err, E2BIG, "headers: these are more than %d", MOST_LINES);
        if (len > 0 && (r = header_of(text, len, &lines[n], err)) < 0)
            return r;
        n += len > 0;
        text += len;
    }
    return 0;
}

/* ---- opening -----------------------------------------------------------------------------------
 */

int http_fail_write(const char *name, struct platter_error *err)
{
    return fail(err, EROFS,
                "%s: what lies on a web server can only be read: write it to a file, or to s3, nbd "
                "or rbd",
                name);
}

static void forget(char *secret)
{
    if (secret)
        explicit_bzero(secret, strlen(secret));
    free(secret);
}

/* A client that is who the keys say. */
static int client_of(const struct option_values *keys, struct http_client **ret,
                     struct platter_error *err)
{
    const char *written = options_string(keys, "password"),
               *written_key = options_string(keys, "key_password");
    char *password = NULL, *key_password = NULL, *lines[MOST_LINES + 1] = {NULL};
    int r = headers_of(options_string(keys, "headers"), lines, err);
    if (r == 0 && written)
        r = place_secret(written, "password", &password, err);
    if (r == 0 && written_key)
        r = place_secret(written_key, "passphrase of the key", &key_password, err);
    if (r == 0) {
        struct http_settings settings = {.user = options_string(keys, "user"),
                                         .password = password,
                                         .auth = (enum http_auth)options_enum(keys, "auth"),
                                         .headers = (const char *const *)lines};
        http_settings_of(keys, &settings);
        settings.key_password = key_password;
        r = http_client_new(&settings, ret, err);
    }
    for (size_t i = 0; i < MOST_LINES; i++)
        forget(lines[i]);
    forget(password);
    forget(key_password);
    return r;
}

static int http_open(const struct place *p, unsigned flags, struct stream **ret,
                     struct platter_error *err)
{
    const char *url = options_string(p->keys, "url");
    auto_free char *full = NULL, *sent = NULL;
    struct http_client *client = NULL;
    if (!url)
        return fail(err, EINVAL, "a place of type http needs a url");
    if (flags & (STREAM_FILE_WRITE | STREAM_FILE_TEMPORARY))
        return http_fail_write(p->name, err);
    full = string_format("%s%s", has_scheme(url) ? "" : "http://", url);
    int r = full ? http_url_clean(full, &sent, err) : fail_memory(err, "a URL");
    if (r == 0)
        r = client_of(p->keys, &client, err);
    if (r == 0)
        r = stream_http_cached_open(client, sent, p->name, NULL, NULL, ret, err);
    http_client_unref(client);
    return r;
}

const struct place_kind place_http = {
    .name = "http",
    .prefixes = prefixes,
    .keys = http_keys,
    .keys_of = keys_of,
    .name_of = name_of,
    .open = http_open,
    .folders = true,
    .needs = "url",
};
