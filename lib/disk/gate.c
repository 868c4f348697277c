/* SPDX-License-Identifier: MIT */
/*
 * The gate (rule 6): whoever makes an image chooses the names in it, so they are opened only
 * through the caller's policy. The built-in one allows local regular files in the folder of the
 * image that names them or below it, and where the user said (`allow`). Links are followed before
 * the question is put, so a link inside the folder leads nowhere else. An image on a server may
 * name what is in its folder there, or below it.
 */
#include <ctype.h>
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "disk/inside.h"
#include "stream/place.h"

/* "nbd:...", "json:{...}", "http://...": a colon before any slash makes it no plain path; nor is
 * what a command would take for a description, or for standard input. */
static bool is_plain_path(const char *name)
{
    size_t word = strcspn(name, ":/");
    return name[0] != '\0' && name[word] != ':' && name[0] != '{' && strcmp(name, "-") != 0;
}

/* ---- URIs --------------------------------------------------------------------------------------
 */

/* A path as it stands in a URI: all but letters, digits and a few signs as %XX. */
static char *escape_path(const char *path)
{
    char *ret = malloc(3 * strlen(path) + 1), *p = ret;
    for (; ret && *path; path++) {
        if (isalnum((unsigned char)*path) || strchr("-._~/", *path))
            *p++ = *path;
        else
            p += sprintf(p, "%%%02X", (unsigned)(unsigned char)*path);
    }
    if (ret)
        *p = '\0';
    return ret;
}

/* How much of a URI is the folder that it stands in: up to the last slash of its path. */
static size_t uri_folder(const char *uri)
{
    size_t end = place_root(uri), n = end + strcspn(uri + end, "?#");
    while (n > end && uri[n - 1] != '/')
        n--;
    return n;
}

/* How many characters of a URI are one of `signs`, as it is or as %XX; 0: it is none. */
static size_t sign_at(const char *p, const char *signs)
{
    char byte[3] = "";
    if (*p && strchr(signs, *p))
        return 1;
    if (*p != '%' || !isxdigit((unsigned char)p[1]) || !isxdigit((unsigned char)p[2]))
        return 0;
    memcpy(byte, p + 1, 2);
    unsigned long code = strtoul(byte, NULL, 16);
    return code && code < 128 && strchr(signs, (int)code) ? 3 : 0;
}

/* Whether a URI can lead nowhere else than it seems to: no "..", however it is written; servers
 * take "%2f" for a slash, and some a backslash. */
static bool is_straight(const char *uri)
{
    for (const char *p = uri + place_root(uri); *p && !strchr("?#", *p);) {
        unsigned dots = 0;
        for (size_t n; (n = sign_at(p, ".")); p += n)
            dots++;
        size_t end = sign_at(p, "/\\");
        if ((dots == 1 || dots == 2) && (end || !*p || strchr("?#", *p)))
            return false;
        while (!end && *p && !strchr("?#", *p))
            end = sign_at(++p, "/\\");
        p += end;
    }
    return true;
}

/* Whether a URI lies below that of a folder, or is it. */
static bool uri_is_below(const char *uri, const char *folder, size_t len)
{
    return len > 0 && strncmp(uri, folder, len) == 0 &&
           (folder[len - 1] == '/' || uri[len] == '\0' || strchr("/?#", uri[len]));
}

/* One that says more than where it is (whose keys are shown, whom to trust) only as it was allowed,
 * to the letter. */
static bool uri_is_allowed(const struct gate *gate, const struct platter_name *n)
{
    for (const char *const *allow = gate->allow; allow && *allow; allow++)
        if (strcmp(n->path, *allow) == 0)
            return true;
    if (!is_straight(n->path) || place_has_keys(n->path))
        return false;
    for (const char *const *allow = gate->allow; allow && *allow; allow++)
        if (!place_is_file(*allow, NULL) && uri_is_below(n->path, *allow, strlen(*allow)))
            return true;
    return place_root(n->image) > 0 && uri_is_below(n->path, n->image, uri_folder(n->image));
}

/* A path that is relative to a URI. Where nothing is beside an image, a whole one is that of a
 * local file. */
static int resolve_at(const char *image_name, const char *name, char **ret,
                      struct platter_error *err)
{
    size_t root = place_root(image_name), keep = *name == '/' ? root : uri_folder(image_name);
    if (root == 0 && *name == '/') {
        *ret = string_copy(name);
        return *ret ? 0 : fail_memory(err, "a file name");
    }
    if (keep == 0 || place_has_keys(image_name))
        return 0;
    auto_free char *path = escape_path(*name == '/' ? name + 1 : name);
    *ret = path ? string_format("%.*s%s", (int)keep, image_name, path) : NULL;
    return *ret ? 0 : fail_memory(err, "a name");
}

/* ---- names -------------------------------------------------------------------------------------
 */

int gate_resolve(const char *image_name, const char *name, char **ret, struct platter_error *err)
{
    *ret = NULL;
    if (!place_is_file(name, NULL)) { /* a URI; "word://" of a kind that is not known */
        *ret = string_copy(name);
        return *ret ? 0 : fail_memory(err, "a name");
    }
    if (!is_plain_path(name))
        return 0;
    if (!place_is_file(image_name, &image_name))
        return resolve_at(image_name, name, ret, err);
    const char *slash = strrchr(image_name, '/');
    if (name[0] == '/' || !slash)
        *ret = string_copy(name);
    else
        *ret = string_format("%.*s%s", (int)(slash - image_name + 1), image_name, name);
    return *ret ? 0 : fail_memory(err, "a file name");
}

/* ---- files -------------------------------------------------------------------------------------
 */

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
    if (!place_is_file(image_name, &image_name))
        return false;
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
    case PLATTER_NAME_INDEX:
        return "index";
    }
    return "file";
}

/* Takes the last component off a path, or, where it is a link, goes where that leads. */
static void step_back(char path[PATH_MAX])
{
    char target[PATH_MAX], *slash = strrchr(path, '/');
    ssize_t n = readlink(path, target, sizeof target - 1);
    size_t keep = slash ? (size_t)(slash - path) + 1 : 0;
    if (n > 0 && target[0] == '/')
        keep = 0;
    if (n > 0 && keep + (size_t)n < PATH_MAX) {
        memcpy(path + keep, target, (size_t)n);
        path[keep + (size_t)n] = '\0';
    } else if (!slash) {
        strcpy(path, ".");
    } else {
        *(slash == path ? slash + 1 : slash) = '\0';
    }
}

/*
 * Where a path leads, without links, or the nearest folder to it that is there; what is missing is
 * returned as an errno value. So that an image cannot learn what there is where it must not look:
 * whether it may is asked of the folder if there is no file.
 */
static int lead(const char *path, char real[PATH_MAX])
{
    enum { MOST_STEPS = 4096 }; /* links may lead around in a circle */
    char nearest[PATH_MAX];
    int missing = 0;
    strcpy(real, "/");
    if (snprintf(nearest, sizeof nearest, "%s", path) >= (int)sizeof nearest)
        return ENAMETOOLONG;
    for (int i = 0; i < MOST_STEPS && !realpath(nearest, real); i++) {
        missing = missing ? missing : errno;
        strcpy(real, "/");
        step_back(nearest);
    }
    return missing;
}

static int uri_gate(const struct gate *gate, const struct platter_name *n, char **ret_path,
                    struct platter_error *err)
{
    if (!uri_is_allowed(gate, n) && place_has_keys(n->path))
        return fail(
            err, PLATTER_EGATE,
            "%s: names the %s \"%s\", which is on a server, and says more than where: allow "
            "this very name (--allow) if you trust the image",
            n->image, kind_name(n->kind), n->path);
    if (!uri_is_allowed(gate, n))
        return fail(err, PLATTER_EGATE,
                    "%s: names the %s \"%s\", which is on a server, and not in the image's own "
                    "folder: allow it (--allow) if you trust the image",
                    n->image, kind_name(n->kind), n->path);
    *ret_path = string_copy(n->path);
    return *ret_path ? 0 : fail_memory(err, "a name");
}

static int builtin_gate(const struct gate *gate, const struct platter_name *n, char **ret_path,
                        struct platter_error *err)
{
    const char *kind = kind_name(n->kind);
    if (!n->path && is_plain_path(n->name))
        return fail(
            err, PLATTER_EGATE,
            "%s: names the %s \"%s\", which is relative, and nothing stands beside an image "
            "there: name it as a whole (platter rebase -u)",
            n->image, kind, n->name);
    if (!n->path)
        return fail(err, PLATTER_EGATE,
                    "%s: names the %s \"%s\", which is no plain file name: names inside images may "
                    "only lead to local files",
                    n->image, kind, n->name);
    if (!place_is_file(n->path, NULL))
        return uri_gate(gate, n, ret_path, err);
    char real[PATH_MAX];
    int missing = lead(n->path, real);
    if (!is_in_folder_of(n->image, real) && !is_allowed(gate->allow, real))
        return fail(err, PLATTER_EGATE,
                    "%s: names the %s \"%s\" outside its own folder: allow it (--allow) if you "
                    "trust the image",
                    n->image, kind, n->name);
    if (missing)
        return fail_errno(err, missing, "%s: its %s \"%s\" (%s) cannot be found", n->image, kind,
                          n->name, n->path);
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

/* ---- names in small and capital letters ------------------------------------------------------ */

/* The names in a folder, sorted as hosts of Windows have them: an image of hundreds of files that
 * all are called otherwise reads it once. */
struct folder {
    char *path; /* with the slash behind it */
    char **names;
    size_t n, room;
};

static void folder_free(struct folder *f)
{
    for (size_t i = 0; f && i < f->n; i++)
        free(f->names[i]);
    if (f) {
        free(f->names);
        free(f->path);
    }
    free(f);
}

void gate_done(struct gate *gate)
{
    folder_free(TAKE(gate->folder));
}

static int folder_add(struct folder *f, const char *name, struct platter_error *err)
{
    if (f->n == f->room) {
        size_t room = f->room ? 2 * f->room : 64;
        char **names = reallocarray(f->names, room, sizeof *names);
        if (!names)
            return fail_memory(err, "the names in a folder");
        f->names = names;
        f->room = room;
    }
    f->names[f->n] = string_copy(name);
    return f->names[f->n] ? (f->n++, 0) : fail_memory(err, "the names in a folder");
}

static int compare_names(const void *a, const void *b)
{
    return strcasecmp(*(char *const *)a, *(char *const *)b);
}

/* A folder that cannot be read has no names. */
static int folder_read(struct folder *f, struct platter_error *err)
{
    DIR *dir = opendir(*f->path ? f->path : ".");
    int r = 0;
    if (!dir && errno != ENOENT && errno != ENOTDIR && errno != EACCES)
        return fail_errno(err, errno, "%s: cannot look for names in this folder", f->path);
    for (const struct dirent *e; r == 0 && dir && (e = readdir(dir));)
        r = folder_add(f, e->d_name, err);
    if (dir)
        closedir(dir);
    if (f->n > 0)
        qsort(f->names, f->n, sizeof *f->names, compare_names);
    return r;
}

/* Reads the folder of the first `len` bytes of a path, unless it was the last one that was read. */
static int need_folder(struct gate *gate, const char *path, size_t len, struct platter_error *err)
{
    const struct folder *last = gate->folder;
    if (last && strlen(last->path) == len && memcmp(last->path, path, len) == 0)
        return 0;
    struct folder *f = calloc(1, sizeof *f);
    int r = f && (f->path = string_format("%.*s", (int)len, path)) ? folder_read(f, err)
                                                                   : fail_memory(err, "a folder");
    gate_done(gate);
    if (r == 0)
        gate->folder = TAKE(f);
    folder_free(f);
    return r;
}

/* Hosts of Windows do not tell small from capital letters, and images from there neither: where a
 * file is not there, *ret is the only one of its folder that a host like that would take; or NULL.
 */
static int find_any_case(struct gate *gate, const char *path, char **ret, struct platter_error *err)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    int r = need_folder(gate, path, (size_t)(name - path), err);
    if (r < 0)
        return r;
    const struct folder *f = gate->folder;
    *ret = NULL;
    char **found =
        f->n > 0 ? bsearch(&name, f->names, f->n, sizeof *f->names, compare_names) : NULL;
    if (!found || (found > f->names && strcasecmp(found[-1], name) == 0) ||
        (found + 1 < f->names + f->n && strcasecmp(found[1], name) == 0))
        return 0;
    *ret = string_format("%s%s", f->path, *found);
    return *ret ? 0 : fail_memory(err, "a file name");
}

/* ---- opening --------------------------------------------------------------------------------- */

/* What is on the same server is opened as the image itself was; so is what does not name one. */
static int open_uri(struct stream *of, const char *uri, unsigned flags, struct stream **ret,
                    struct platter_error *err)
{
    while (of->base)
        of = of->base;
    size_t root = place_root(uri), same = root ? root : strcspn(uri, ":") + 1;
    flags &= ~(unsigned)STREAM_FILE_REGULAR;
    if (of->ops->sibling && strncmp(uri, of->name, same) == 0)
        return of->ops->sibling(of, uri, flags, ret, err);
    return stream_open(uri, flags, ret, err);
}

/* Asks about a path that the name in the image means (NULL: it is none), and opens it. */
static int open_path(const struct gate *gate, struct stream *of, const struct platter_name *n,
                     bool writable, struct stream **ret, struct platter_error *err)
{
    auto_free char *real = NULL;
    int r = gate_pass(gate, n, &real, err);
    if (r < 0)
        return r;
    /* What a caller's own gate let through may be anything it knows to be right. */
    unsigned flags = (gate->fn ? 0u : STREAM_FILE_REGULAR) | (writable ? STREAM_FILE_WRITE : 0u);
    bool remote = !place_is_file(real, NULL);
    r = remote ? open_uri(of, real, flags, ret, err) : stream_file_open(real, flags, ret, err);
    if (r < 0)
        return fail_in(err, r, "%s of %s", kind_name(n->kind), n->image);
    if (remote)
        return 0;
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

int gate_open(struct gate *gate, struct stream *image, const char *name,
              enum platter_name_kind kind, bool any_case, bool writable, struct stream **ret,
              struct platter_error *err)
{
    auto_free char *path = NULL, *other = NULL;
    int r = gate_resolve(image->name, name, &path, err);
    if (r < 0)
        return r;
    struct platter_name n = {
        .size = sizeof n, .kind = kind, .image = image->name, .name = name, .path = path};
    r = open_path(gate, image, &n, writable, ret, err);
    if (r != -ENOENT || !any_case || !path || !place_is_file(path, NULL))
        return r;
    int found = find_any_case(gate, path, &other, err);
    if (found < 0 || !other)
        return found < 0 ? found : r;
    n.path = other;
    return open_path(gate, image, &n, writable, ret, err);
}

static int open_named(const struct name_opener *opener, const struct image *image, const char *name,
                      enum platter_name_kind kind, bool writable, struct stream **ret,
                      struct platter_error *err)
{
    const unsigned change = STREAM_LOCK_WRITE | STREAM_LOCK_RESIZE;
    struct gate *gate = (struct gate *)opener; /* whose opener it is */
    struct stream *s;
    int r =
        gate_open(gate, image->stream, name, kind, kind == PLATTER_NAME_EXTENT, writable, &s, err);
    if (r < 0)
        return r;
    unsigned use = writable ? gate->lock_use : gate->lock_use & ~change;
    /* An index is only ever replaced as a whole, and by whoever wants to. */
    bool lock = !gate->no_lock && kind != PLATTER_NAME_INDEX;
    r = lock ? stream_lock(s, use, gate->lock_deny, err) : 0;
    if (r < 0) {
        stream_close(s);
        return r;
    }
    *ret = s;
    return 0;
}

static int tell_secret(const struct name_opener *opener, const struct platter_secret *question,
                       struct secret *ret, struct platter_error *err)
{
    const struct gate *gate = (const struct gate *)opener;
    return call_secret(gate->secret, gate->secret_opaque, question, ret, err);
}

struct gate gate_of(const struct platter_open_options *o)
{
    return (struct gate){
        .opener = {.open = gate_opener, .secret = tell_secret, .kdf_limit = o->kdf_limit},
        .fn = o->gate,
        .opaque = o->gate_opaque,
        .allow = o->allow,
        .secret = o->secret,
        .secret_opaque = o->secret_opaque};
}

int (*const gate_opener)(const struct name_opener *, const struct image *, const char *,
                         enum platter_name_kind, bool, struct stream **,
                         struct platter_error *) = open_named;
