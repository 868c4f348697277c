/* SPDX-License-Identifier: MIT */
/*
 * New files beside the name they will have (rule 9): made under a name of their own in the same
 * folder, moved over the target when they are complete. Names are used relative to an open folder,
 * so that nothing changes when the program or somebody else moves about.
 *
 * Every temporary file stands in a fixed table as long as it lives, which a signal handler can
 * walk: a slot's fields do not change while it is LIVE.
 */
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/memory.h"
#include "stream/file.h"
#include "stream/unfinished.h"

enum {
    SLOTS = 4200,      /* temporary files at once that a signal can remove: extents of a VMDK */
    MAX_LINKS = 40,    /* symbolic links from the given name to the target */
    MAX_ATTEMPTS = 100 /* names that are tried before giving up */
};

enum slot_state { SLOT_FREE, SLOT_BUSY, SLOT_LIVE };

static struct slot {
    atomic_int state;
    int folder;
    char name[NAME_MAX + 1];
} slots[SLOTS];

struct temporary {
    int folder;   /* open folder of the target */
    int held;     /* the file that will be replaced, locked against use; or -1 */
    char *target; /* its name in the folder */
    char *shown;  /* the target's path, for sentences */
    char name[NAME_MAX + 1];
    bool made;     /* a file of that name is there */
    bool replaces; /* when it was made there was a file under the target's name */
    char aside[NAME_MAX + 1];
    bool moved_aside; /* the file that is replaced has that name now */
    bool exclusive;
    struct slot *slot; /* NULL: the table was full */
};

void stream_file_remove_temporaries(void)
{
    for (int i = 0; i < SLOTS; i++)
        if (atomic_load(&slots[i].state) == SLOT_LIVE)
            unlinkat(slots[i].folder, slots[i].name, 0);
    unfinished_undo_all();
}

static struct slot *slot_take(int folder, const char *name)
{
    for (int i = 0; i < SLOTS; i++) {
        int expected = SLOT_FREE;
        if (!atomic_compare_exchange_strong(&slots[i].state, &expected, SLOT_BUSY))
            continue;
        slots[i].folder = folder;
        strcpy(slots[i].name, name);
        atomic_store(&slots[i].state, SLOT_LIVE);
        return &slots[i];
    }
    return NULL;
}

static void slot_give(struct slot *slot)
{
    if (slot)
        atomic_store(&slot->state, SLOT_FREE);
}

/* One step along a symbolic link: 1 and the path it leads to, or 0 if path is none. */
static int follow_link(const char *path, char **ret_path)
{
    char to[PATH_MAX];
    ssize_t n = readlink(path, to, sizeof to - 1);
    if (n < 0)
        return 0;
    to[n] = '\0';
    const char *slash = strrchr(path, '/');
    int folder = to[0] == '/' || !slash ? 0 : (int)(slash - path) + 1;
    *ret_path = string_format("%.*s%s", folder, path, to);
    return *ret_path ? 1 : -ENOMEM;
}

/* The name that is no link any more: replacing it leaves the links as they are. */
static int resolve_links(const char *path, char **ret_path, struct platter_error *err)
{
    auto_free char *now = string_copy(path);
    if (!now)
        return fail_memory(err, "a path");
    for (int i = 0; i < MAX_LINKS; i++) {
        char *next = NULL;
        int r = follow_link(now, &next);
        if (r < 0)
            return fail_memory(err, "a path");
        if (r == 0) {
            *ret_path = TAKE(now);
            return 0;
        }
        free(now);
        now = next;
    }
    return fail(err, ELOOP, "%s: leads through more than %d symbolic links", path, MAX_LINKS);
}

/* Opens the folder of t->shown and finds the name in it. */
static int open_folder(struct temporary *t, struct platter_error *err)
{
    auto_free char *copy = string_copy(t->shown);
    const char *slash = strrchr(t->shown, '/');
    const char *name = slash ? slash + 1 : t->shown;
    t->target = string_copy(name);
    if (!copy || !t->target)
        return fail_memory(err, "a path");
    if (*name == '\0')
        return fail(err, EISDIR, "%s: is not the name of a file", t->shown);
    if (strlen(name) > NAME_MAX)
        return fail(err, ENAMETOOLONG, "%s: the name is longer than %d bytes", t->shown, NAME_MAX);
    t->folder = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (t->folder < 0)
        return fail_errno(err, errno, "%s: cannot open its folder", t->shown);
    return 0;
}

/* Takes hold of the file that will be replaced, so that no other program uses it meanwhile. */
static int hold_target(struct temporary *t, struct platter_error *err)
{
    const unsigned locks = STREAM_LOCK_WRITE | STREAM_LOCK_RESIZE;
    unsigned use = 0, deny = 0;
    if (faccessat(t->folder, t->target, W_OK, AT_EACCESS) < 0)
        return fail_errno(err, errno, "%s: exists and may not be written", t->shown);
    t->held = openat(t->folder, t->target, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    if (t->held < 0)
        return 0; /* may be written but not read: cannot be locked either */
    return file_lock_change(t->held, t->shown, &use, &deny, locks, locks, err);
}

/* Makes a file under a new name with at most the rights `mode`. */
static int make_file(struct temporary *t, mode_t mode, int *ret_fd, struct platter_error *err)
{
    for (int i = 0; i < MAX_ATTEMPTS; i++) {
        uint64_t random;
        if (getrandom(&random, sizeof random, 0) != sizeof random)
            return fail_errno(err, errno, "%s: no random name to be had", t->shown);
        snprintf(t->name, sizeof t->name, ".%.200s.platter-partial-%08" PRIx64, t->target,
                 random >> 32);
        *ret_fd = openat(t->folder, t->name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        if (*ret_fd >= 0) {
            t->made = true;
            t->slot = slot_take(t->folder, t->name);
            return 0;
        }
        if (errno != EEXIST)
            return fail_errno(err, errno, "%s: cannot make a new file beside it", t->shown);
    }
    return fail(err, EEXIST, "%s: no free name for a new file beside it", t->shown);
}

/* The list that says who else may read or write the old file, or that there is none: the folder may
 * have given the new one some. */
static bool keep_access_list(int fd, int from)
{
    static const char name[] = "system.posix_acl_access";
    char list[4096];
    ssize_t len = fgetxattr(from, name, list, sizeof list);
    if (len >= 0)
        return fsetxattr(fd, name, list, (size_t)len, 0) == 0;
    if (errno == ENODATA && fremovexattr(fd, name) == 0)
        return true;
    return errno == ENODATA || errno == ENOTSUP;
}

/* The new file belongs to whom the old one belonged to, as far as we may, with the same rights.
 * `from`: the old one if it could be opened. */
static void keep_owner(int fd, const struct stat *old, int from)
{
    mode_t mode = old->st_mode & 0777;
    if (fchown(fd, old->st_uid, old->st_gid) < 0 && fchown(fd, (uid_t)-1, old->st_gid) < 0)
        mode &= 0707; /* without the group its rights must not fall to another one */
    else if (from >= 0 && !keep_access_list(fd, from))
        mode &= 0707; /* the rights of the group may have been the bounds of a list */
    fchmod(fd, mode);
}

/* Looks at what stands under the target's name. *ret_in_place: a device, which is not replaced. */
static int examine_target(struct temporary *t, struct stat *ret_old, bool *ret_exists,
                          bool *ret_in_place, struct platter_error *err)
{
    *ret_in_place = false;
    *ret_exists = fstatat(t->folder, t->target, ret_old, AT_SYMLINK_NOFOLLOW) == 0;
    if (!*ret_exists) {
        if (errno != ENOENT)
            return fail_errno(err, errno, "%s: cannot examine", t->shown);
        return 0;
    }
    if (t->exclusive)
        return fail(err, EEXIST, "%s: exists already", t->shown);
    if (S_ISDIR(ret_old->st_mode))
        return fail(err, EISDIR, "%s: is a folder", t->shown);
    *ret_in_place = S_ISBLK(ret_old->st_mode);
    if (!*ret_in_place && !S_ISREG(ret_old->st_mode))
        return fail(err, EINVAL, "%s: is neither a regular file nor a block device", t->shown);
    return *ret_in_place ? 0 : hold_target(t, err);
}

static int temporary_make(struct temporary *t, int *ret_fd, bool *ret_in_place,
                          struct platter_error *err)
{
    struct stat old;
    bool exists = false;
    int r = open_folder(t, err);
    if (r == 0)
        r = examine_target(t, &old, &exists, ret_in_place, err);
    if (r < 0 || *ret_in_place)
        return r;
    r = make_file(t, exists ? old.st_mode & 0600 : 0666, ret_fd, err);
    t->replaces = exists;
    if (r == 0 && exists)
        keep_owner(*ret_fd, &old, t->held);
    return r;
}

void temporary_take_rights(const struct temporary *t, int fd, int of)
{
    struct stat st;
    if (!t->replaces && fstat(of, &st) == 0 && S_ISREG(st.st_mode))
        keep_owner(fd, &st, of);
}

int temporary_open(const char *path, bool exclusive, struct temporary **ret, int *ret_fd,
                   struct platter_error *err)
{
    bool in_place = false;
    struct temporary *t = calloc(1, sizeof *t);
    if (!t)
        return fail_memory(err, "a new file");
    t->folder = t->held = -1;
    t->exclusive = exclusive;
    /* A link is something that is there as well, wherever it leads. */
    int r = exclusive ? 0 : resolve_links(path, &t->shown, err);
    if (exclusive && !(t->shown = string_copy(path)))
        r = fail_memory(err, "a path");
    if (r == 0)
        r = temporary_make(t, ret_fd, &in_place, err);
    if (r < 0 || in_place)
        temporary_free(TAKE(t));
    *ret = t;
    return r;
}

/* The file that will be replaced must still be the one that is open: it may have been moved. */
static int make_over(struct temporary *t, dev_t dev, ino_t ino, int *ret_fd,
                     struct platter_error *err)
{
    struct stat old;
    int r = open_folder(t, err);
    if (r < 0)
        return r;
    if (fstatat(t->folder, t->target, &old, AT_SYMLINK_NOFOLLOW) < 0)
        return fail_errno(err, errno, "%s: cannot examine", t->shown);
    if (old.st_dev != dev || old.st_ino != ino)
        return fail(err, ESTALE, "%s: was moved or replaced by somebody else since it was opened",
                    t->shown);
    r = make_file(t, old.st_mode & 0600, ret_fd, err);
    if (r == 0)
        keep_owner(*ret_fd, &old, -1); /* whoever replaces the file sees to its attributes */
    return r;
}

int temporary_open_over(const char *path, dev_t dev, ino_t ino, struct temporary **ret, int *ret_fd,
                        struct platter_error *err)
{
    struct temporary *t = calloc(1, sizeof *t);
    if (!t)
        return fail_memory(err, "a new file");
    t->folder = t->held = -1;
    int r = resolve_links(path, &t->shown, err);
    if (r == 0)
        r = make_over(t, dev, ino, ret_fd, err);
    if (r < 0)
        temporary_free(TAKE(t));
    *ret = t;
    return r;
}

/* In a file system that knows no files without a name it has one for a moment. */
int temporary_open_unnamed(const char *folder, int *ret_fd, struct platter_error *err)
{
    *ret_fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    int code = *ret_fd < 0 ? errno : 0;
    if (code == 0)
        return 0;
    auto_free char *path = string_format("%s/.platter-XXXXXX", folder);
    if (!path)
        return fail_memory(err, "a file name");
    errno = code;
    if (code == EOPNOTSUPP || code == EISDIR || code == EINVAL)
        *ret_fd = mkostemp(path, O_CLOEXEC);
    if (*ret_fd < 0)
        return fail_errno(err, errno, "%s: cannot make a temporary file in this folder", folder);
    unlink(path);
    return 0;
}

/* rename() that does not replace: by a hard link where the file system does not know the flag. */
static int rename_new(int folder, const char *from, const char *to)
{
    if (renameat2(folder, from, folder, to, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return -errno;
    if (linkat(folder, from, folder, to, 0) < 0)
        return -errno;
    unlinkat(folder, from, 0);
    return 0;
}

static int rename_into_place(const struct temporary *t)
{
    if (t->exclusive)
        return rename_new(t->folder, t->name, t->target);
    return renameat(t->folder, t->name, t->folder, t->target) < 0 ? -errno : 0;
}

int temporary_flush_folder(const struct temporary *t, struct platter_error *err)
{
    if (fsync(t->folder) < 0)
        return fail_errno(err, errno, "%s: cannot flush its folder", t->shown);
    return 0;
}

int temporary_publish(struct temporary *t, bool durable, struct platter_error *err)
{
    int r = rename_into_place(t);
    if (r < 0)
        return fail_errno(err, -r, "%s: cannot give the new file its name", t->shown);
    t->made = false;
    slot_give(TAKE(t->slot));
    if (t->held >= 0)
        close(t->held);
    t->held = -1;
    return durable ? temporary_flush_folder(t, err) : 0;
}

/* Where the file system knows neither way not to replace, we look before. */
static int move_back(const struct temporary *t)
{
    int r = rename_new(t->folder, t->aside, t->target);
    if (r == 0 || faccessat(t->folder, t->target, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        return r;
    return renameat(t->folder, t->aside, t->folder, t->target) < 0 ? -errno : 0;
}

const char *temporary_keep(struct temporary *t)
{
    t->made = false;
    slot_give(TAKE(t->slot));
    return t->name;
}

int temporary_make_way(struct temporary *t, bool durable, struct platter_error *err)
{
    struct stat old;
    if (t->exclusive)
        return 0; /* nothing will be replaced */
    if (fstatat(t->folder, t->target, &old, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : fail_errno(err, errno, "%s: cannot examine", t->shown);
    if (S_ISDIR(old.st_mode))
        return fail(err, EISDIR, "%s: is a folder", t->shown);
    snprintf(t->aside, sizeof t->aside, "%.*s.old", NAME_MAX - 4, t->name);
    if (renameat(t->folder, t->target, t->folder, t->aside) < 0)
        return fail_errno(err, errno, "%s: cannot move aside the file that is replaced", t->shown);
    t->moved_aside = true;
    return durable ? temporary_flush_folder(t, err) : 0;
}

/* Whether a file of a folder is what temporary_make_way() has made of `name`. */
static bool is_aside(const char *file, const char *name)
{
    auto_free char *start = string_format(".%.200s.platter-partial-", name);
    size_t n = start ? strlen(start) : 0, len = strlen(file);
    return n > 0 && strncmp(file, start, n) == 0 && len > n + 4 &&
           strcmp(file + len - 4, ".old") == 0;
}

int stream_check_not_aside(const char *path, struct platter_error *err)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    auto_free char *folder =
        slash ? string_format("%.*s", (int)(name - path), path) : string_copy(".");
    struct stat now;
    int r = 0;
    if (*name == '\0' || lstat(path, &now) == 0 || errno != ENOENT)
        return 0;
    DIR *dir = folder ? opendir(folder) : NULL;
    for (const struct dirent *e; r == 0 && dir && (e = readdir(dir));)
        if (is_aside(e->d_name, name))
            r = fail(
                err, EEXIST,
                "%s: is not there, but %s is in its folder: the image that was here, from when "
                "a program was killed that replaced it. It comes back when each file called "
                "like that gets its name again (that one is %s), whatever has it now; or "
                "remove them",
                path, e->d_name, name);
    if (dir)
        closedir(dir);
    return r;
}

int temporary_withdraw(struct temporary *t, dev_t dev, ino_t ino, bool back,
                       struct platter_error *err)
{
    struct stat now;
    if (!t->made && fstatat(t->folder, t->target, &now, AT_SYMLINK_NOFOLLOW) == 0 &&
        now.st_dev == dev && now.st_ino == ino)
        unlinkat(t->folder, t->target, 0);
    if (!t->moved_aside)
        return 0;
    t->moved_aside = false; /* whether that works or not, the file is not to be removed */
    int r = back ? move_back(t) : -ECANCELED;
    return r == 0 ? 0
                  : fail_in(err, r, "the old %s could not have its name again and is called %s now",
                            t->shown, t->aside);
}

void temporary_free(struct temporary *t)
{
    if (!t)
        return;
    if (t->made)
        unlinkat(t->folder, t->name, 0);
    if (t->moved_aside)
        unlinkat(t->folder, t->aside, 0);
    slot_give(t->slot);
    if (t->held >= 0)
        close(t->held);
    if (t->folder >= 0)
        close(t->folder);
    free(t->target);
    free(t->shown);
    free(t);
}
