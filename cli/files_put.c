/* SPDX-License-Identifier: MIT */
/*
 * A new file, which has a name when it is complete and not before. Where the file system can do
 * that it has none until then, so that whatever ends us leaves nothing behind.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "cli.h"
#include "files_copy.h"

int put_failed(const char *shown, const char *what, int code)
{
    say("%s: %s: %s", shown, what, strerror(code));
    return code ? -code : -EIO;
}

int stat_keep(struct stat **list, size_t *n, const struct stat *st)
{
    struct stat *more = realloc(*list, (*n + 1) * sizeof *more);
    if (!more) {
        say("out of memory");
        return -ENOMEM;
    }
    *list = more;
    more[(*n)++] = *st;
    return 0;
}

static bool stat_is_kept(const struct stat *list, size_t n, const struct stat *st)
{
    for (size_t i = 0; i < n; i++)
        if (list[i].st_dev == st->st_dev && list[i].st_ino == st->st_ino)
            return true;
    return false;
}

static void make_name(char name[40])
{
    uint64_t random[2] = {0};
    if (getrandom(random, sizeof random, 0) < 0)
        random[0] = (uint64_t)getpid();
    snprintf(name, 40, ".platter-%016llx", (unsigned long long)(random[0] ^ random[1]));
}

int fresh_open(struct fresh *f, int folder, const char *shown)
{
    *f = (struct fresh){.folder = folder, .fd = -1};
    if (access("/proc/self/fd", X_OK) == 0) /* without which it could get no name later */
        f->fd = openat(folder, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
    if (f->fd >= 0)
        return 0;
    signals_end_at_once(false);
    make_name(f->name);
    f->fd = openat(folder, f->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (f->fd >= 0)
        return 0;
    f->name[0] = '\0';
    return put_failed(shown, "cannot make a file beside it", errno);
}

void fresh_close(struct fresh *f)
{
    if (f->name[0])
        unlinkat(f->folder, f->name, 0);
    f->name[0] = '\0';
    if (f->fd >= 0)
        close(f->fd);
    f->fd = -1;
    signals_end_at_once(true);
}

/* Whether what has the name already may go: *ret_there tells if there is anything. */
static int check_there(const struct copy *c, int folder, const char *name, const char *shown,
                       bool *ret_there)
{
    struct stat st;
    *ret_there = fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
    if (!*ret_there)
        return errno == ENOENT ? 0 : put_failed(shown, "cannot look for it", errno);
    if (!S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode)) {
        say("%s: what has its name here is no file, and is left alone", shown);
        return -EEXIST;
    }
    const char *what = stat_is_kept(c->own, c->n_own, &st)     ? "the image that is read"
                       : stat_is_kept(c->made, c->n_made, &st) ? "what another one became"
                                                               : NULL;
    if (what)
        say("%s: what has its name here is %s, and is left alone", shown, what);
    return what ? -EEXIST : 0;
}

/* A name for a file that has none. */
static int give_name(struct fresh *f, const char *name)
{
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", f->fd);
    return linkat(AT_FDCWD, path, f->folder, name, AT_SYMLINK_FOLLOW);
}

int fresh_place(struct copy *c, struct fresh *f, const char *name, const char *shown)
{
    bool there;
    int r = check_there(c, f->folder, name, shown, &there);
    if (r < 0)
        return r;
    if (!f->name[0] && !there && give_name(f, name) == 0)
        return 0;
    signals_end_at_once(false);
    if (!f->name[0]) {
        make_name(f->name);
        if (give_name(f, f->name) < 0) {
            f->name[0] = '\0';
            return put_failed(shown, "cannot give it its name", errno);
        }
    }
    if (renameat(f->folder, f->name, f->folder, name) < 0)
        return put_failed(shown, "cannot give it its name", errno);
    f->name[0] = '\0';
    return 0;
}

int fresh_link(struct copy *c, const char *target, int folder, const char *name, const char *shown)
{
    char fresh[40];
    bool there;
    int r = check_there(c, folder, name, shown, &there);
    if (r < 0)
        return r;
    if (!there && symlinkat(target, folder, name) == 0)
        return 0;
    make_name(fresh);
    signals_end_at_once(false);
    if (symlinkat(target, folder, fresh) < 0)
        r = put_failed(shown, "cannot make a symbolic link", errno);
    else if (renameat(folder, fresh, folder, name) < 0)
        r = put_failed(shown, "cannot give it its name", errno);
    if (r < 0)
        unlinkat(folder, fresh, 0);
    signals_end_at_once(true);
    return r;
}
