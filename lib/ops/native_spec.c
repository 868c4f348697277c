/* SPDX-License-Identifier: MIT */
/*
 * Where a source is, as Ceph wants to be told: source-spec.md section 2. A key that Ceph does not
 * know it passes over, and reads something else than we did; so each is refused here that has no
 * counterpart there.
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "ops/migrate_native.h"

/* What a kind of places can be told, and Ceph too, in some way. */
static const struct {
    const char *kind;
    const char *keys[8];
} known[] = {
    {"file", {"file_path"}},
    {"http", {"url"}},
    {"nbd", {"uri"}},
    /* Ceph signs by a version that has no regions. */
    {"s3", {"url", "endpoint", "bucket", "key", "access_key", "secret_key", "region"}},
};

static const char *const *known_keys(const struct place_kind *kind)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].kind, kind->name) == 0)
            return known[i].keys;
    return NULL;
}

static bool is_one_of(const char *const *words, const char *word)
{
    while (*words && strcmp(*words, word) != 0)
        words++;
    return *words;
}

static int check_keys(const struct place *p, struct platter_error *err)
{
    const char *const *keys = known_keys(p->kind);
    if (!keys)
        return native_refuse(err, p->name,
                             "it reads from files, web servers, S3 and NBD servers, not from %s",
                             p->kind->name);
    for (const struct option_def *def = p->kind->keys; def->name; def++)
        if (options_given(p->keys, def->name) && !is_one_of(keys, def->name))
            return native_refuse(err, p->name, "it cannot be told \"%s\"", def->name);
    return 0;
}

/* ---- the kinds ---------------------------------------------------------------------------------
 */

/* It is opened by whoever opens the target, in whatever folder that is. */
static int add_file(const struct place *p, json_t *stream, struct platter_error *err)
{
    const char *name = options_string(p->keys, "file_path");
    char *path = realpath(name ? name : "", NULL);
    if (!path)
        return fail_errno(err, errno, "%s: cannot be found", p->name);
    json_t *value = json_string(path);
    int r = 0;
    if (!value)
        r = native_refuse(err, p->name, "its path is not UTF-8, which a document of JSON is");
    else if (json_object_set_new(stream, "file_path", value) < 0)
        r = fail_memory(err, "a source-spec");
    free(path);
    return r;
}

/* A URL that is sent as it stands. */
static int add_url(const struct place *p, json_t *stream, const char *key, const char *url,
                   struct platter_error *err)
{
    const char *host = strstr(url, "://"), *c = url;
    host = host ? host + 3 : url;
    while ((unsigned char)*c > ' ' && (unsigned char)*c < 0x7f && !strchr("#\"<>\\^`{|}", *c))
        c++;
    if (*c)
        return native_refuse(err, p->name,
                             "it sends a URL as it stands, and this one has signs that must be "
                             "percent-encoded");
    if (memchr(host, '@', strcspn(host, "/?")))
        return native_refuse(err, p->name, "it tells no server a user and password");
    return json_object_set_new(stream, key, json_string(url)) < 0
               ? fail_memory(err, "a source-spec")
               : 0;
}

static int add_http(const struct place *p, json_t *stream, struct platter_error *err)
{
    const char *url = options_string(p->keys, "url");
    if (!url)
        return fail(err, EINVAL, "%s: a place of type http needs a url", p->name);
    if (strchr(url, '?'))
        return native_refuse(err, p->name,
                             "it keeps the URL, and what stands behind the ? of one mostly does "
                             "not hold for long");
    return add_url(p, stream, "url", url, err);
}

static int add_nbd(const struct place *p, json_t *stream, struct platter_error *err)
{
    const char *uri = options_string(p->keys, "uri");
    return uri ? add_url(p, stream, "uri", uri, err)
               : fail(err, EINVAL, "%s: a place of type nbd needs a uri", p->name);
}

static char *escape(const char *text)
{
    char *ret = malloc(3 * strlen(text) + 1), *to = ret;
    for (; ret && *text; text++) {
        unsigned char c = (unsigned char)*text;
        bool plain =
            (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || strchr("-._~/", c);
        if (plain)
            *to++ = *text;
        else
            to += sprintf(to, "%%%02X", c);
    }
    if (ret)
        *to = '\0';
    return ret;
}

/* Ceph keeps it with the image, for all to see who may see that. What was kept out of the command,
 * or the document, does not go there. */
static int add_secret(const struct place *p, json_t *stream, const char *key,
                      struct platter_error *err)
{
    const char *value = options_string(p->keys, key);
    if (!value || strncmp(value, "env:", 4) == 0 || strncmp(value, "file:", 5) == 0)
        return native_refuse(err, p->name,
                             "it keeps the %s with the image, where who may see that can read it: "
                             "that is only done with one that is written out",
                             key);
    return json_object_set_new(stream, key, json_string(value)) < 0
               ? fail_memory(err, "a source-spec")
               : 0;
}

static int add_s3(const struct place *p, json_t *stream, struct platter_error *err)
{
    const char *url = options_string(p->keys, "url"),
               *endpoint = options_string(p->keys, "endpoint"),
               *bucket = options_string(p->keys, "bucket"), *key = options_string(p->keys, "key");
    auto_free char *escaped = url || !key ? NULL : escape(key);
    if (!url && !endpoint)
        return native_refuse(err, p->name,
                             "it must be told the endpoint, which it does not take out of the "
                             "environment");
    if (!url && (!bucket || !key))
        return fail(err, EINVAL, "%s: a place of type s3 needs a bucket and a key", p->name);
    size_t len = endpoint ? strlen(endpoint) : 0;
    while (len > 0 && endpoint[len - 1] == '/')
        len--;
    auto_free char *full =
        url ? string_copy(url)
            : string_format("%.*s/%s/%s", (int)len, endpoint, bucket, escaped ? escaped : "");
    if (!full || (!url && !escaped))
        return fail_memory(err, "a source-spec");
    int r = add_url(p, stream, "url", full, err);
    if (r == 0)
        r = add_secret(p, stream, "access_key", err);
    return r < 0 ? r : add_secret(p, stream, "secret_key", err);
}

/* ---- the document ------------------------------------------------------------------------------
 */

static int add_place(const struct place *p, json_t *stream, struct platter_error *err)
{
    static int (*const adders[])(const struct place *, json_t *,
                                 struct platter_error *) = {add_file, add_http, add_nbd, add_s3};
    if (json_object_set_new(stream, "type", json_string(p->kind->name)) < 0)
        return fail_memory(err, "a source-spec");
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].kind, p->kind->name) == 0)
            return adders[i](p, stream, err);
    return 0;
}

int native_spec(const struct source *source, const struct format *format, char **ret,
                struct platter_error *err)
{
    *ret = NULL;
    if (source->input)
        return native_refuse(err, source_name(source), "it cannot read from here");
    if (source->n_states > 0)
        return native_refuse(err, source_name(source),
                             "that is not done with a list of snapshots of other files");
    int r = check_keys(&source->place, err);
    if (r < 0)
        return r;
    json_t *stream = json_object();
    json_t *doc =
        json_pack("{s:s, s:o}", "type", format == &format_raw ? "raw" : "qcow", "stream", stream);
    r = doc ? add_place(&source->place, stream, err) : fail_memory(err, "a source-spec");
    if (r == 0 && !(*ret = json_dumps(doc, JSON_COMPACT)))
        r = fail_memory(err, "a source-spec");
    json_decref(doc);
    return r;
}
