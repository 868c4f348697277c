/* SPDX-License-Identifier: MIT */
/* The kind of places "s3": its names and keys, and objects that are read. */
#include "stream/s3.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "base/ckd.h"
#include "base/memory.h"
#include "stream/cached.h"
#include "stream/place.h"
#include "stream/s3_sign.h"

static const char *const prefixes[] = {"s3://", NULL};

static const struct option_def s3_keys[] = {
    {"bucket", OPTION_STRING, NULL, NULL, 0, 0, "the bucket"},
    {"key", OPTION_STRING, NULL, NULL, 0, 0, "the name of the object in it"},
    {"url", OPTION_STRING, NULL, NULL, 0, 0,
     "http[s]://HOST[:PORT]/BUCKET/KEY, instead of endpoint, bucket and key"},
    S3_LOGIN_KEYS,
    {"part_size", OPTION_SIZE, NULL, NULL, 5 << 20, 1 << 30,
     "bytes of the first parts of an upload, unless that is too little; by how large it may get"},
    HTTP_PLACE_KEYS,
    {0},
};

/* ---- names -------------------------------------------------------------------------------------
 */

/* "name=value&name=value", percent-encoded; the text is taken apart. */
static int keys_of_query(char *query, char **keys, struct platter_error *err)
{
    int r = 0;
    for (char *next; query && *query && r == 0; query = next) {
        next = strchr(query, '&');
        if (next)
            *next++ = '\0';
        char *value = strchr(query, '=');
        if (!value)
            return fail(err, EINVAL, "what stands behind the ? of a name of S3 is NAME=VALUE");
        *value++ = '\0';
        if (!*query || !s3_unescape(query) || !s3_unescape(value) || strpbrk(query, ",="))
            return fail(err, EINVAL, "what stands behind the ? of a name of S3 is percent-encoded");
        r = option_text(keys, query, value, err);
    }
    return r;
}

int s3_keys_of(const char *uri, char **ret_keys, struct platter_error *err)
{
    auto_free char *text = string_copy(uri + strlen("s3://"));
    *ret_keys = NULL;
    if (!text)
        return fail_memory(err, "a name");
    char *query = strchr(text, '?');
    if (query)
        *query++ = '\0';
    char *key = strchr(text, '/');
    if (key)
        *key++ = '\0';
    if (!*text || !key || !*key)
        return fail(err, EINVAL, "an object of S3 is called s3://BUCKET/KEY[?NAME=VALUE&...]");
    if (strchr(text, '@')) /* as with other servers: it is not shown */
        return fail(err, EINVAL,
                    "a name of S3 has no user and password: what is in front of the @ is said by "
                    "the keys access_key and secret_key");
    if (!s3_unescape(text) || !s3_unescape(key))
        return fail(err, EINVAL,
                    "a %% in a name of S3 stands in front of two digits; a %% itself is %%25");
    int r = option_text(ret_keys, "bucket", text, err);
    if (r == 0)
        r = option_text(ret_keys, "key", key, err);
    if (r == 0)
        r = keys_of_query(query, ret_keys, err);
    if (r < 0)
        free(TAKE(*ret_keys));
    return r;
}

/* Which object on which server. */
struct address {
    char *endpoint, *bucket, *key; /* endpoint NULL: as the login says */
};

static void address_done(struct address *a)
{
    free(a->endpoint);
    free(a->bucket);
    free(a->key);
}

static int fail_address(struct address *a, struct platter_error *err)
{
    address_done(a);
    return fail(err, EINVAL,
                "the url of an object of S3 is to be http[s]://HOST[:PORT]/BUCKET/KEY, and no "
                "endpoint, bucket or key stands beside it");
}

static int address_of_url(const char *url, struct address *ret, struct platter_error *err)
{
    const char *host = strstr(url, "://");
    host = host ? host + 3 : url;
    size_t server = (size_t)(host - url) + strcspn(host, "/?#");
    const char *bucket = url + server + (url[server] == '/');
    size_t len = strcspn(bucket, "/?#");
    const char *key = bucket + len + (bucket[len] == '/');
    *ret = (struct address){
        .endpoint = string_format("%s%.*s", host == url ? "http://" : "", (int)server, url),
        .bucket = string_format("%.*s", (int)len, bucket),
        .key = string_copy(key)};
    if (!ret->endpoint || !ret->bucket || !ret->key) {
        address_done(ret);
        return fail_memory(err, "a name");
    }
    if (!*ret->bucket || !*ret->key || strpbrk(key, "?#") || !s3_unescape(ret->bucket) ||
        !s3_unescape(ret->key))
        return fail_address(ret, err);
    return 0;
}

/* "." and ".." are for whoever stands in between to take away, and the object is another one. */
static bool has_dots(const char *key)
{
    for (size_t len; *key; key += len + (key[len] == '/')) {
        len = strcspn(key, "/");
        if ((len == 1 && *key == '.') || (len == 2 && strncmp(key, "..", 2) == 0))
            return true;
    }
    return false;
}

static int check_address(struct address *a, struct platter_error *err)
{
    int r = 0;
    for (const char *p = a->bucket; *p && r == 0; p++)
        if (!isalnum((unsigned char)*p) && !strchr(".-_:", *p))
            r = fail(err, EINVAL, "\"%s\" is not the name of a bucket of S3", a->bucket);
    if (r == 0 && strlen(a->bucket) > 255)
        r = fail(err, EINVAL, "the name of a bucket of S3 is at most 255 bytes long");
    if (r == 0 && strlen(a->key) > 1024)
        r = fail(err, ENAMETOOLONG, "the key of an object of S3 is at most 1024 bytes long");
    if (r == 0 && has_dots(a->key))
        r = fail(err, EINVAL,
                 "the key \"%s\" has \".\" or \"..\" between slashes: servers differ "
                 "in what object that is",
                 a->key);
    if (r < 0)
        address_done(a);
    return r;
}

static int address_of(const struct option_values *keys, struct address *ret,
                      struct platter_error *err)
{
    const char *url = options_string(keys, "url"), *bucket = options_string(keys, "bucket"),
               *key = options_string(keys, "key");
    *ret = (struct address){0};
    if (url && (bucket || key || options_string(keys, "endpoint")))
        return fail_address(ret, err);
    if (url) {
        int r = address_of_url(url, ret, err);
        return r < 0 ? r : check_address(ret, err);
    }
    if (!bucket || !*bucket || !key || !*key)
        return fail(err, EINVAL, "a place of type s3 needs a bucket and a key, or a url");
    ret->bucket = string_copy(bucket);
    ret->key = string_copy(key);
    if (ret->bucket && ret->key)
        return check_address(ret, err);
    address_done(ret);
    return fail_memory(err, "a name");
}

static char *name_of(const struct option_values *keys)
{
    struct address a;
    if (address_of(keys, &a, NULL) < 0)
        return string_copy("s3://...");
    char *name = s3_name(a.bucket, a.key);
    address_done(&a);
    return name;
}

/* ---- opening -----------------------------------------------------------------------------------
 */

static void release(void *opaque)
{
    s3_object_free(opaque);
}

/* An image beside this one, at the same server and as the same user. */
static int open_sibling(void *opaque, const char *uri, unsigned flags, struct stream **ret,
                        struct platter_error *err)
{
    const struct s3_object *o = opaque;
    auto_free char *text = NULL;
    struct option_values *keys = NULL;
    struct address a;
    if (strchr(uri, '?'))
        return fail(err, EINVAL, "%s: a name inside of an image cannot say how to reach a server",
                    uri);
    int r = s3_keys_of(uri, &text, err);
    if (r == 0)
        r = options_parse(s3_keys, text, &keys, err);
    if (r == 0)
        r = address_of(keys, &a, err);
    options_free(keys);
    if (r < 0)
        return r;
    r = s3_open(o->server, a.bucket, a.key, flags, 0, ret, err);
    address_done(&a);
    return r;
}

static int open_source(struct s3_server *s, const char *bucket, const char *key,
                       struct stream **ret, struct platter_error *err)
{
    struct s3_object *o;
    int r = s3_object_new(s, bucket, key, &o, err);
    if (r < 0)
        return r;
    struct http_hooks hooks = s3_object_hooks(o);
    hooks.sibling = open_sibling;
    return stream_http_cached_open(s->client, o->url, o->name, &hooks, release, ret, err);
}

static int open_target(struct s3_server *s, const char *bucket, const char *key, unsigned flags,
                       uint64_t size, struct stream **ret, struct platter_error *err)
{
    struct s3_object *o;
    int r = s3_object_new(s, bucket, key, &o, err);
    if (r < 0)
        return r;
    r = s3_upload_open(o, flags, size, ret, err);
    if (r < 0)
        s3_object_free(o);
    return r;
}

int s3_open(struct s3_server *s, const char *bucket, const char *key, unsigned flags, uint64_t size,
            struct stream **ret, struct platter_error *err)
{
    if ((flags & STREAM_FILE_TEMPORARY) && key[strlen(key) - 1] == '/')
        return fail(err, EISDIR,
                    "s3://%s/%s: would look like a folder: give the name of an object behind it",
                    bucket, key);
    if ((flags & STREAM_FILE_WRITE) && !(flags & STREAM_FILE_TEMPORARY))
        return fail(err, ENOTSUP,
                    "s3://%s/%s: objects of S3 are not changed, but replaced as a whole: write a "
                    "new one",
                    bucket, key);
    int r = -EAGAIN;
    for (unsigned tries = 0; r < 0 && (tries == 0 || (tries < 3 && s3_server_moved(s))); tries++)
        r = flags & STREAM_FILE_TEMPORARY ? open_target(s, bucket, key, flags, size, ret, err)
                                          : open_source(s, bucket, key, ret, err);
    return r;
}

static int open_server(const struct place *p, struct address *a, struct s3_server **ret,
                       struct platter_error *err)
{
    struct s3_login login;
    struct http_settings settings = {0};
    char *password = NULL;
    const char *written = options_string(p->keys, "key_password");
    int r = written ? place_secret(written, "passphrase of the key", &password, err) : 0;
    if (r < 0)
        return r;
    http_settings_of(p->keys, &settings);
    settings.key_password = password;
    r = s3_login_find(p->keys, a->endpoint, &login, err);
    if (r == 0 && !settings.ca_file)
        settings.ca_file = login.ca_file;
    uint64_t part = options_given(p->keys, "part_size") ? options_number(p->keys, "part_size") : 0;
    if (r == 0)
        r = s3_server_new(&login, &settings, part, ret, err);
    if (password)
        explicit_bzero(password, strlen(password));
    free(password);
    return r;
}

static int open_place(const struct place *p, unsigned flags, struct stream **ret,
                      struct platter_error *err)
{
    struct address a;
    struct s3_server *server;
    int r = address_of(p->keys, &a, err);
    if (r < 0)
        return r;
    r = open_server(p, &a, &server, err);
    if (r < 0)
        fail_in(err, r, "%s", p->name);
    if (r == 0) {
        r = s3_open(server, a.bucket, a.key, flags, p->size, ret, err);
        s3_server_unref(server);
    }
    address_done(&a);
    return r;
}

const struct place_kind place_s3 = {
    .name = "s3",
    .prefixes = prefixes,
    .keys_behind = "?",
    .keys = s3_keys,
    .keys_of = s3_keys_of,
    .name_of = name_of,
    .open = open_place,
    .folders = true,
    .can = PLACE_IN_ORDER,
};
