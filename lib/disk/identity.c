/* SPDX-License-Identifier: MIT */
/* By what the files of a disk are known again: written down, and held against what is there now. */
#include <inttypes.h>
#include <string.h>

#include "base/memory.h"
#include "disk/disk.h"

/* ---- written down ------------------------------------------------------------------------------
 */

static int add_file(json_t *files, struct stream *s, struct platter_error *err)
{
    auto_free char *identity = NULL;
    int r = stream_identity(s, &identity, err);
    if (r < 0)
        return r;
    json_t *name = json_name(s->name);
    json_t *file = name ? json_pack("{s:o, s:s}", "name", name, "identity", identity) : NULL;
    return json_array_append_new(files, file) < 0 ? fail_memory(err, "the identity of a source")
                                                  : 0;
}

static int add_files(json_t *files, const struct image *img, struct platter_error *err)
{
    struct stream *file;
    int r = add_file(files, img->stream, err);
    for (unsigned i = 0; r == 0 && img->format->file && img->format->file(img, i, &file); i++)
        r = file ? add_file(files, file, err) : 0;
    return r;
}

static int add_image(json_t *list, const struct image *img, struct platter_error *err)
{
    json_t *entry = json_object(), *files = json_array();
    int r = json_array_append_new(list, entry);
    r |= json_object_set_new(entry, "name", json_name(img->stream->name));
    r |= json_object_set_new(entry, "format", json_string(img->format->name));
    r |= json_object_set_new(entry, "size", json_integer((json_int_t)img->size));
    if (img->view)
        r |= json_object_set_new(entry, "view", json_name(img->view));
    r |= json_object_set_new(entry, "files", files);
    return r < 0 ? fail_memory(err, "the identity of a source") : add_files(files, img, err);
}

int disk_identity(const struct platter_disk *disk, unsigned first, json_t **ret,
                  struct platter_error *err)
{
    json_t *list = json_array();
    int r = list ? 0 : fail_memory(err, "the identity of a source");
    for (unsigned i = first; r == 0 && i < disk->depth; i++)
        r = add_image(list, disk->chain[i], err);
    if (r < 0) {
        json_decref(list);
        list = NULL;
    }
    *ret = list;
    return r;
}

/* ---- compared ----------------------------------------------------------------------------------
 */

static int fail_text(const char *name, const char *what, const char *was, const char *now,
                     struct platter_error *err)
{
    return fail(err, ESTALE,
                "the source has changed: %s: its %s was %.100s, and is %.100s: migrate it anew, or "
                "bring back what was there",
                name, what, was && *was ? was : "none", now && *now ? now : "none");
}

/* The word of `key` in an identity, and its length; NULL: it has none. */
static const char *find_word(const char *identity, const char *key, size_t key_len, size_t *ret_len)
{
    for (const char *p = identity; *p; p += *p == ' ') {
        size_t len = strcspn(p, " ");
        if (len > key_len && p[key_len] == '=' && strncmp(p, key, key_len) == 0) {
            *ret_len = len - key_len - 1;
            return p + key_len + 1;
        }
        p += len;
    }
    return NULL;
}

/* The first word of `from` that `other` does not have; NULL: none. */
static const char *find_difference(const char *from, const char *other, size_t *ret_key_len)
{
    for (const char *p = from; *p; p += *p == ' ') {
        size_t len = strcspn(p, " "), key_len = strcspn(p, "= "), there;
        const char *word = find_word(other, p, key_len, &there);
        if (!word || there + key_len + 1 != len || memcmp(word, p + key_len + 1, there) != 0) {
            *ret_key_len = key_len;
            return p;
        }
        p += len;
    }
    return NULL;
}

static int fail_identity(const char *name, const char *was, const char *now,
                         struct platter_error *err)
{
    size_t key_len = 0, len = 0;
    const char *key = find_difference(was, now, &key_len);
    if (!key)
        key = find_difference(now, was, &key_len);
    if (!key)
        return fail_text(name, "identity", was, now, err);
    auto_free char *what = string_format("%.*s", (int)key_len, key);
    const char *word = find_word(was, key, key_len, &len);
    auto_free char *old = word ? string_format("%.*s", (int)len, word) : NULL;
    word = find_word(now, key, key_len, &len);
    auto_free char *new = word ? string_format("%.*s", (int)len, word) : NULL;
    return what ? fail_text(name, what, old, new, err) : fail_memory(err, "a sentence");
}

static int compare_texts(const json_t *was, const json_t *now, const char *key, const char *name,
                         struct platter_error *err)
{
    const char *a = json_string_value(json_object_get(was, key));
    const char *b = json_string_value(json_object_get(now, key));
    if (a == b || (a && b && strcmp(a, b) == 0))
        return 0;
    return a && b && strcmp(key, "identity") == 0 ? fail_identity(name, a, b, err)
                                                  : fail_text(name, key, a, b, err);
}

static int compare_sizes(const json_t *was, const json_t *now, const char *name,
                         struct platter_error *err)
{
    char a[24], b[24];
    snprintf(a, sizeof a, "%" JSON_INTEGER_FORMAT,
             json_integer_value(json_object_get(was, "size")));
    snprintf(b, sizeof b, "%" JSON_INTEGER_FORMAT,
             json_integer_value(json_object_get(now, "size")));
    return strcmp(a, b) == 0 ? 0 : fail_text(name, "size", a, b, err);
}

static int compare_counts(const json_t *was, const json_t *now, const char *what, const char *name,
                          struct platter_error *err)
{
    size_t a = json_array_size(was), b = json_array_size(now);
    return a == b ? 0
                  : fail(err, ESTALE, "the source has changed: %s: had %zu %s, and has %zu", name,
                         a, what, b);
}

static const char *name_of(const json_t *entry)
{
    const char *name = json_string_value(json_object_get(entry, "name"));
    return name ? name : "a file";
}

/* What changed in an image is told of its files first, which it follows from. */
static int compare_images(const json_t *was, const json_t *now, struct platter_error *err)
{
    const json_t *old = json_object_get(was, "files"), *new = json_object_get(now, "files");
    int r = compare_counts(old, new, "files", name_of(now), err);
    for (size_t i = 0; r == 0 && i < json_array_size(new); i++) {
        const json_t *file = json_array_get(new, i);
        r = compare_texts(json_array_get(old, i), file, "identity", name_of(file), err);
    }
    if (r == 0)
        r = compare_texts(was, now, "format", name_of(now), err);
    if (r == 0)
        r = compare_texts(was, now, "view", name_of(now), err);
    return r < 0 ? r : compare_sizes(was, now, name_of(now), err);
}

int disk_identity_check(const struct platter_disk *disk, unsigned first, const json_t *before,
                        struct platter_error *err)
{
    json_t *now;
    int r = disk_identity(disk, first, &now, err);
    if (r < 0)
        return r;
    const char *name = first < disk->depth ? disk->chain[first]->stream->name : "the disk";
    r = compare_counts(before, now, "images", name, err);
    for (size_t i = 0; r == 0 && i < json_array_size(now); i++)
        r = compare_images(json_array_get(before, i), json_array_get(now, i), err);
    json_decref(now);
    return r;
}
