/* SPDX-License-Identifier: MIT */
/*
 * Descriptions of images as QEMU's documentation has them, {"driver": "qcow2", "file": {"driver":
 * "http", "url": ...}}, or the same with dots ("file.driver"). Those that are a format over one
 * file or server, which need no more than a name, become a source-spec; of all others a sentence
 * says what is expected instead.
 */
#include <string.h>

#include "disk/source.h"

/* What QEMU calls a key of a driver, and what we do, of which stream. */
static const struct same {
    const char *driver, *theirs, *type, *ours;
} sames[] = {
    {"file", "filename", "file", "file_path"},
    {"host_device", "filename", "file", "file_path"},
    {"host_cdrom", "filename", "file", "file_path"},
    {"http", "url", "http", "url"},
    {"https", "url", "http", "url"},
    {"nbd", "uri", "nbd", "uri"},
    {"nbd", "export", "nbd", "export"},
    {"rbd", "pool", "rbd", "pool_name"},
    {"rbd", "namespace", "rbd", "pool_namespace"},
    {"rbd", "image", "rbd", "image_name"},
    {"rbd", "snapshot", "rbd", "snap_name"},
};

enum { SAMES = sizeof sames / sizeof *sames };

static int refuse(const char *title, const char *before, const char *key, struct platter_error *err)
{
    return fail(err, EINVAL,
                "%s: %s%s: of QEMU's descriptions only those of a format over one file or server "
                "are understood, by their names; what is expected is {\"type\": \"qcow\", "
                "\"stream\": {\"type\": \"http\", \"url\": ...}}",
                title, before, key);
}

/* "file.driver" and so on become an object. */
static int fold(const json_t *given, const char *title, json_t *top, json_t *file,
                struct platter_error *err)
{
    const char *key;
    json_t *value;
    int r = 0;
    json_object_foreach ((json_t *)(uintptr_t)given, key, value) {
        if (strcmp(key, "file") == 0 && json_is_object(value))
            r |= json_object_update(file, value);
        else if (strncmp(key, "file.", 5) == 0)
            r |= json_object_set(file, key + 5, value);
        else
            r |= json_object_set(top, key, value);
    }
    if (r)
        return fail_memory(err, "a source-spec");
    if (!json_object_get(top, "driver") && json_object_size(file) == 0)
        return refuse(title, "", "type: is missing", err);
    return 0;
}

static const struct same *find(const char *driver, const char *theirs)
{
    for (size_t i = 0; i < SAMES; i++)
        if (strcmp(sames[i].driver, driver) == 0 &&
            (!theirs || strcmp(sames[i].theirs, theirs) == 0))
            return &sames[i];
    return NULL;
}

/* The stream that a driver's own keys mean. */
static int translate(const json_t *file, const char *before, const char *title, json_t *stream,
                     struct platter_error *err)
{
    const json_t *named = json_object_get(file, "driver");
    const char *key, *driver = named ? json_string_value(named) : "file";
    const struct same *same = driver ? find(driver, NULL) : NULL;
    json_t *value;
    if (!same)
        return refuse(title, before, "driver", err);
    int r = json_object_set_new(stream, "type", json_string(same->type));
    json_object_foreach ((json_t *)(uintptr_t)file, key, value) {
        if (strcmp(key, "driver") == 0)
            continue;
        same = find(driver, key);
        if (!same)
            return refuse(title, before, key, err);
        r |= json_object_set(stream, same->ours, value);
    }
    return r ? fail_memory(err, "a source-spec") : 0;
}

/* The two halves: a format, which may be left out where it is raw, and what it stands in. */
static int convert(json_t *top, const json_t *file, const char *title, json_t *ret,
                   struct platter_error *err)
{
    json_t *stream = json_object();
    int r = json_object_set_new(ret, "stream", stream) < 0 ? fail_memory(err, "a source-spec") : 0;
    const char *driver = json_string_value(json_object_get(top, "driver"));
    bool alone = json_object_size(file) == 0;
    if (r == 0)
        r = translate(alone ? top : file, alone ? "" : "file.", title, stream, err);
    if (r == 0 &&
        json_object_set_new(ret, "type", json_string(alone || !driver ? "raw" : driver)) < 0)
        r = fail_memory(err, "a source-spec");
    json_object_del(top, "driver");
    if (r == 0 && !alone && json_object_size(top) > 0)
        r = refuse(title, "", json_object_iter_key(json_object_iter(top)), err);
    return r;
}

int source_of_qemu(const json_t *given, const char *title, json_t **ret, struct platter_error *err)
{
    json_t *top = json_object(), *file = json_object();
    *ret = json_object();
    int r = top && file && *ret ? fold(given, title, top, file, err)
                                : fail_memory(err, "a source-spec");
    if (r == 0)
        r = convert(top, file, title, *ret, err);
    json_decref(top);
    json_decref(file);
    if (r < 0)
        json_decref(TAKE(*ret));
    return r;
}
