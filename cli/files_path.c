/* SPDX-License-Identifier: MIT */
/*
 * Paths inside of a file system. What leads upwards are the folders that were gone through, not the
 * entries ".." of the disk; links begin at the uppermost folder of the same file system, so that
 * none leads out of it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "files.h"

enum {
    MAX_LINKS = 40,   /* as Linux has it */
    MAX_DEPTH = 4096, /* folders in one another */
    MAX_REST = 1 << 16
};

struct walk {
    struct fs *fs;
    const char *path; /* as it was given, for sentences */
    struct node *stack;
    size_t depth, room;
    unsigned links;
    char *rest; /* what is still to be walked, allocated */
};

bool name_is_sound(const char *name)
{
    return name[0] && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static int push(struct walk *w, const struct node *n, struct platter_error *err)
{
    if (w->depth == w->room) {
        size_t room = w->room ? 2 * w->room : 16;
        struct node *more = room > MAX_DEPTH ? NULL : realloc(w->stack, room * sizeof *more);
        if (!more)
            return files_fail(err, ENAMETOOLONG, "%s: %s: goes through too many folders",
                              w->fs->volume.title, w->path);
        w->stack = more;
        w->room = room;
    }
    w->stack[w->depth++] = *n;
    return 0;
}

static bool is_called(const struct fs *fs, const struct entry *e, const char *name)
{
    int (*compare)(const char *, const char *) = fs->ops->any_case ? strcasecmp : strcmp;
    return compare(e->name, name) == 0 || (e->alias && compare(e->alias, name) == 0);
}

/* The entry of a folder. */
static int look_up(struct walk *w, const char *name, struct node *ret, struct platter_error *err)
{
    struct fs *fs = w->fs;
    const struct node *dir = &w->stack[w->depth - 1];
    if (!S_ISDIR(dir->mode))
        return files_fail(err, ENOTDIR, "%s: %s: what should have \"%s\" in it is no folder",
                          fs->volume.title, w->path, name);
    struct listing l = {0};
    int r = fs->ops->list(fs->own, dir, &l, err);
    size_t i = 0;
    while (r == 0 && i < l.n && !is_called(fs, &l.entries[i], name))
        i++;
    if (r == 0)
        r = i < l.n ? fs->ops->node(fs->own, l.entries[i].id, ret, err)
                    : files_fail(err, ENOENT, "%s: %s: there is no \"%s\"", fs->volume.title,
                                 w->path, name);
    listing_free(&l);
    return r;
}

/* Puts the target of a link in front of the rest, which begins with "/" or is empty. */
static int follow(struct walk *w, const struct node *link, const char *rest,
                  struct platter_error *err)
{
    char *target = NULL, *both = NULL;
    if (++w->links > MAX_LINKS)
        return files_fail(err, ELOOP, "%s: %s: goes through more than %d symbolic links",
                          w->fs->volume.title, w->path, MAX_LINKS);
    int r = w->fs->ops->target(w->fs->own, link, &target, err);
    if (r < 0)
        return r;
    if (strlen(target) + strlen(rest) > MAX_REST)
        r = files_fail(err, ENAMETOOLONG, "%s: %s: leads to too long a path", w->fs->volume.title,
                       w->path);
    else if (asprintf(&both, "%s%s", target, rest) < 0)
        r = files_fail(err, ENOMEM, "no memory for a path");
    if (r == 0 && target[0] == '/')
        w->depth = 1;
    free(target);
    if (r < 0)
        return r;
    free(w->rest);
    w->rest = both;
    return 0;
}

/* One component of the rest; *ret_done where there is none. */
static int step(struct walk *w, bool follow_last, bool *ret_done, struct platter_error *err)
{
    char *at = w->rest + strspn(w->rest, "/");
    size_t len = strcspn(at, "/");
    *ret_done = len == 0;
    if (len == 0)
        return 0;
    char *end = at + len;
    bool last = end[strspn(end, "/")] == '\0', slash = *end == '/';
    char *rest = strdup(end);
    *end = '\0';
    int r = rest ? 0 : files_fail(err, ENOMEM, "no memory for a path");
    struct node node;
    if (r == 0 && strcmp(at, "..") == 0) {
        w->depth -= w->depth > 1;
    } else if (r == 0 && strcmp(at, ".") != 0) {
        r = look_up(w, at, &node, err);
        if (r == 0 && S_ISLNK(node.mode) && (!last || slash || follow_last)) {
            r = follow(w, &node, rest, err);
            free(rest);
            return r;
        }
        if (r == 0 && last && slash && !S_ISDIR(node.mode))
            r = files_fail(err, ENOTDIR, "%s: %s: is no folder", w->fs->volume.title, w->path);
        if (r == 0)
            r = push(w, &node, err);
    }
    if (r < 0) {
        free(rest);
        return r;
    }
    free(w->rest);
    w->rest = rest;
    return 0;
}

int path_find(struct fs *fs, const char *path, bool follow_last, struct node *ret,
              struct platter_error *err)
{
    struct walk w = {.fs = fs, .path = path, .rest = strdup(path)};
    struct node root;
    int r = w.rest ? fs->ops->node(fs->own, fs->ops->root, &root, err)
                   : files_fail(err, ENOMEM, "no memory for a path");
    if (r == 0)
        r = push(&w, &root, err);
    for (bool done = false; r == 0 && !done;)
        r = step(&w, follow_last, &done, err);
    if (r == 0)
        *ret = w.stack[w.depth - 1];
    free(w.stack);
    free(w.rest);
    return r;
}
