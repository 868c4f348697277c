/* SPDX-License-Identifier: MIT */
/*
 * The gate (rule 6): whoever makes an image chooses the names in it, so they are opened only
 * through the caller's policy. The built-in one allows local regular files in the folder of the
 * image that names them or below it, and where the user said (`allow`). Links are followed before
 * the question is put, so a link inside the folder leads nowhere else.
 */
#include <dirent.h>
#include <limits.h>
#include <string.h>
#include <strings.h>

#include "disk/inside.h"

/* "nbd:...", "json:{...}", "http://...": a colon before any slash makes it no plain path. */
static bool is_plain_path(const char *name)
{
    size_t word = strcspn(name, ":/");
    return name[0] != '\0' && name[word] != ':';
}

int gate_resolve(const char *image_name, const char *name, char **ret, struct platter_error *err)
{
    *ret = NULL;
    if (!is_plain_path(name))
        return 0;
    const char *slash = strrchr(image_name, '/');
    if (name[0] == '/' || !slash)
        *ret = string_copy(name);
    else
        *ret = string_format("%.*s%s", (int)(slash - image_name + 1), image_name, name);
    return *ret ? 0 : fail_memory(err, "a file name");
}

/* Whether `real` is `folder` or lies below it; both without links. */
static bool is_below(const char *real, const char *folder)
{
    size_t n = strlen(folder);
    if (strcmp(folder, "/") == 0)
        return true;
    return strncmp(real, folder, n) == 0 && (real[n] == '/' || real[n] == '\0');
}

static bool is_allowed(const char *const *allow, const char *real)
{
    char folder[PATH_MAX];
    for (; allow && *allow; allow++)
        if (realpath(*allow, folder) && is_below(real, folder))
            return true;
    return false;
}

static bool is_in_folder_of(const char *image_name, const char *real)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(image_name, '/');
    auto_free char *dir =
        slash ? string_format("%.*s/", (int)(slash - image_name), image_name) : string_copy(".");
    return dir && realpath(dir, folder) && is_below(real, folder);
}

static const char *kind_name(enum platter_name_kind kind)
{
    switch (kind) {
    case PLATTER_NAME_BACKING:
        return "backing file";
    case PLATTER_NAME_DATA_FILE:
        return "data file";
    case PLATTER_NAME_EXTENT:
        return "extent";
    }
    return "file";
}

static int builtin_gate(const struct gate *gate, const struct platter_name *n, char **ret_path,
                        struct platter_error *err)
{
    const char *kind = kind_name(n->kind);
    if (!n->path)
        return fail(err, PLATTER_EGATE,
                    "%s: names the %s \"%s\", which is no plain file name: names inside images may "
                    "only lead to local files",
                    n->image, kind, n->name);
    char real[PATH_MAX];
    if (!realpath(n->path, real))
        return fail_errno(err, errno, "%s: its %s \"%s\" (%s) cannot be found", n->image, kind,
                          n->name, n->path);
    if (!is_in_folder_of(n->image, real) && !is_allowed(gate->allow, real))
        return fail(err, PLATTER_EGATE,
                    "%s: names the %s \"%s\" outside its own folder: allow it (--allow) if you "
                    "trust the image",
                    n->image, kind, n->name);
    *ret_path = string_copy(real);
    return *ret_path ? 0 : fail_memory(err, "a file name");
}

/* Asks the policy; on success *ret_path is what may be opened, malloc'ed. */
static int gate_pass(const struct gate *gate, const struct platter_name *n, char **ret_path,
                     struct platter_error *err)
{
    if (!gate->fn)
        return builtin_gate(gate, n, ret_path, err);
    if (!n->path || gate->fn(gate->opaque, n) != 0)
        return fail(err, PLATTER_EGATE, "%s: its %s \"%s\" was refused", n->image,
                    kind_name(n->kind), n->name);
    *ret_path = string_copy(n->path);
    return *ret_path ? 0 : fail_memory(err, "a file name");
}

/* Hosts of Windows do not tell small from capital letters, and images from there neither: where a
 * file is not there, *ret is the only one of its folder that a host like that would take; or NULL.
 */
static int find_any_case(const char *path, char **ret, struct platter_error *err)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    auto_free char *folder = string_format("%.*s", (int)(name - path), path), *found = NULL;
    DIR *dir = folder ? opendir(*folder ? folder : ".") : NULL;
    unsigned n = 0;
    if (folder && !dir && errno != ENOENT && errno != ENOTDIR && errno != EACCES)
        return fail_errno(err, errno, "%s: cannot look for it in its folder", path);
    for (const struct dirent *e; dir && (e = readdir(dir));)
        if (strcasecmp(e->d_name, name) == 0 && n++ == 0)
            found = string_format("%s%s", folder, e->d_name);
    if (dir)
        closedir(dir);
    if (!folder || (n > 0 && !found))
        return fail_memory(err, "a file name");
    *ret = n == 1 ? TAKE(found) : NULL;
    return 0;
}

/* Asks about a path that the name in the image means (NULL: it is none), and opens it. */
static int open_path(const struct gate *gate, const struct platter_name *n, bool writable,
                     struct stream **ret, struct platter_error *err)
{
    auto_free char *real = NULL;
    int r = gate_pass(gate, n, &real, err);
    if (r < 0)
        return r;
    /* What a caller's own gate let through may be anything it knows to be right. */
    unsigned flags = (gate->fn ? 0u : STREAM_FILE_REGULAR) | (writable ? STREAM_FILE_WRITE : 0u);
    r = stream_file_open(real, flags, ret, err);
    if (r < 0)
        return fail_in(err, r, "%s of %s", kind_name(n->kind), n->image);
    /* It is spoken of by the name that the image leads to, not by where links end. */
    char *name = string_copy(n->path);
    if (!name) {
        stream_close(*ret);
        return fail_memory(err, "a file name");
    }
    free((*ret)->name);
    (*ret)->name = name;
    return 0;
}

int gate_open(const struct gate *gate, const char *image_name, const char *name,
              enum platter_name_kind kind, bool any_case, bool writable, struct stream **ret,
              struct platter_error *err)
{
    auto_free char *path = NULL, *other = NULL;
    int r = gate_resolve(image_name, name, &path, err);
    if (r < 0)
        return r;
    struct platter_name n = {
        .size = sizeof n, .kind = kind, .image = image_name, .name = name, .path = path};
    r = open_path(gate, &n, writable, ret, err);
    if (r != -ENOENT || !any_case || !path)
        return r;
    int found = find_any_case(path, &other, err);
    if (found < 0 || !other)
        return found < 0 ? found : r;
    n.path = other;
    return open_path(gate, &n, writable, ret, err);
}

static int open_named(const struct name_opener *opener, const struct image *image, const char *name,
                      enum platter_name_kind kind, bool writable, struct stream **ret,
                      struct platter_error *err)
{
    const unsigned change = STREAM_LOCK_WRITE | STREAM_LOCK_RESIZE;
    const struct gate *gate = (const struct gate *)opener;
    struct stream *s;
    int r = gate_open(gate, image->stream->name, name, kind, kind == PLATTER_NAME_EXTENT, writable,
                      &s, err);
    if (r < 0)
        return r;
    unsigned use = writable ? gate->lock_use : gate->lock_use & ~change;
    r = gate->no_lock ? 0 : stream_lock(s, use, gate->lock_deny, err);
    if (r < 0) {
        stream_close(s);
        return r;
    }
    *ret = s;
    return 0;
}

int (*const gate_opener)(const struct name_opener *, const struct image *, const char *,
                         enum platter_name_kind, bool, struct stream **,
                         struct platter_error *) = open_named;
