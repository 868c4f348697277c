/* SPDX-License-Identifier: MIT */
/*
 * Files by libguestfs: a small machine of its own has the kernel's drivers, and gets the disk,
 * read-only, from a server beside us. It takes seconds to start, so it is for what nobody else here
 * reads: XFS, Btrfs, NTFS, what is in logical volumes.
 *
 * The library is loaded if it is there. Its header, which would bring all of it to who builds this,
 * is not needed: what is declared here is part of its stable interface (guestfs(3)). Nodes are
 * paths, which are kept until the end, and their numbers.
 */
#include "files_guest.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

enum {
    DRIVE_READONLY = 0,
    DRIVE_FORMAT = 1,
    DRIVE_PROTOCOL = 5,
    DRIVE_SERVER = 6,
    DRIVE_NO_MORE = -1
};

struct guestfs;

struct guestfs_stat {
    int64_t dev, ino, mode, nlink, uid, gid, rdev, size, blksize, blocks;
    int64_t atime_sec, atime_nsec, mtime_sec, mtime_nsec, ctime_sec, ctime_nsec, spare[6];
};

struct guestfs_entry {
    int64_t ino;
    char type;
    char *name;
};

struct guestfs_entries {
    uint32_t n;
    struct guestfs_entry *entries;
};

static struct {
    struct guestfs *(*create)(void);
    void (*close)(struct guestfs *g);
    void (*set_error_handler)(struct guestfs *g, void *handler, void *opaque);
    const char *(*last_error)(struct guestfs *g);
    int (*set_backend)(struct guestfs *g, const char *backend);
    int (*set_backend_setting)(struct guestfs *g, const char *name, const char *value);
    int (*add_drive_opts)(struct guestfs *g, const char *name, ...);
    int (*launch)(struct guestfs *g);
    char **(*inspect_os)(struct guestfs *g);
    char **(*inspect_get_mountpoints)(struct guestfs *g, const char *root);
    char **(*list_filesystems)(struct guestfs *g);
    int (*mount_ro)(struct guestfs *g, const char *device, const char *at);
    struct guestfs_entries *(*readdir)(struct guestfs *g, const char *path);
    void (*free_dirent_list)(struct guestfs_entries *entries);
    struct guestfs_stat *(*lstatns)(struct guestfs *g, const char *path);
    char *(*readlink)(struct guestfs *g, const char *path);
    char *(*pread)(struct guestfs *g, const char *path, int count, int64_t offset, size_t *size);
} lib;

static const struct {
    const char *name;
    void *ret;
} symbols[] = {{"guestfs_create", &lib.create},
               {"guestfs_close", &lib.close},
               {"guestfs_set_error_handler", &lib.set_error_handler},
               {"guestfs_last_error", &lib.last_error},
               {"guestfs_set_backend", &lib.set_backend},
               {"guestfs_set_backend_setting", &lib.set_backend_setting},
               {"guestfs_add_drive_opts", &lib.add_drive_opts},
               {"guestfs_launch", &lib.launch},
               {"guestfs_inspect_os", &lib.inspect_os},
               {"guestfs_inspect_get_mountpoints", &lib.inspect_get_mountpoints},
               {"guestfs_list_filesystems", &lib.list_filesystems},
               {"guestfs_mount_ro", &lib.mount_ro},
               {"guestfs_readdir", &lib.readdir},
               {"guestfs_free_dirent_list", &lib.free_dirent_list},
               {"guestfs_lstatns", &lib.lstatns},
               {"guestfs_readlink", &lib.readlink},
               {"guestfs_pread", &lib.pread}};

bool guest_there(void)
{
    static int there = -1;
    void *handle = there < 0 ? dlopen("libguestfs.so.0", RTLD_NOW | RTLD_NODELETE) : NULL;
    if (there >= 0)
        return there;
    there = handle != NULL;
    for (size_t i = 0; there && i < sizeof symbols / sizeof *symbols; i++) {
        void *address = dlsym(handle, symbols[i].name);
        there = address != NULL;
        memcpy(symbols[i].ret, &address, sizeof address);
    }
    return there;
}

struct guest {
    struct guestfs *g;
    struct disk_server server;
    char title[512];
    char **paths; /* of the nodes */
    size_t n, room;
};

static int failed(const struct guest *g, const char *what, struct platter_error *err)
{
    const char *why = g->g ? lib.last_error(g->g) : NULL;
    return files_fail(err, EIO, "%.400s: %.200s: libguestfs: %.350s", g->title, what,
                      why ? why : "no reason given");
}

static void free_list(char **list)
{
    for (char **at = list; list && *at; at++)
        free(*at);
    free(list);
}

/* ---- start ----------------------------------------------------------------------------------- */

/* A machine with the disk; `emulated` where the processor's help does not work. */
static int launch(struct guest *g, bool emulated)
{
    char server[128];
    char *servers[] = {server, NULL};
    snprintf(server, sizeof server, "unix:%s", g->server.socket);
    if (g->g)
        lib.close(g->g);
    g->g = lib.create();
    if (!g->g)
        return -1;
    lib.set_error_handler(g->g, NULL, NULL);
    lib.set_backend(g->g, "direct"); /* who reads is us: the socket is ours alone */
    if (emulated)
        lib.set_backend_setting(g->g, "force_tcg", "1");
    if (lib.add_drive_opts(g->g, "", DRIVE_READONLY, 1, DRIVE_FORMAT, "raw", DRIVE_PROTOCOL, "nbd",
                           DRIVE_SERVER, servers, DRIVE_NO_MORE) < 0)
        return -1;
    return lib.launch(g->g);
}

/* ---- what is mounted ------------------------------------------------------------------------- */

/* "/boot" after "/", as one is in the other. */
static int compare_points(const void *a, const void *b)
{
    const char *const *x = a, *const *y = b;
    size_t m = strlen(x[0]), n = strlen(y[0]);
    return (m > n) - (m < n);
}

/* All file systems of a system, as its fstab has them. */
static int mount_system(struct guest *g, const char *root, struct platter_error *err)
{
    char **points = lib.inspect_get_mountpoints(g->g, root);
    size_t n = 0;
    int r = 0;
    while (points && points[n])
        n++;
    if (!points)
        return failed(g, "its system", err);
    qsort(points, n / 2, 2 * sizeof *points, compare_points);
    for (size_t i = 0; i + 1 < n && r == 0; i += 2)
        if (lib.mount_ro(g->g, points[i + 1], points[i]) < 0) {
            r = failed(g, points[i + 1], err);
            if (strcmp(points[i], "/") != 0) {
                say("warning: %s: %s cannot be mounted, and is left out", g->title, points[i]);
                r = 0;
            }
        }
    free_list(points);
    return r;
}

/* Where no system is found: the only file system, or an error that lists them. */
static int mount_only(struct guest *g, struct platter_error *err)
{
    char **found = lib.list_filesystems(g->g), choices[512] = "";
    const char *only = NULL;
    size_t n = 0, len = 0;
    if (!found)
        return failed(g, "its file systems", err);
    for (char **at = found; at[0] && at[1]; at += 2) {
        if (strcmp(at[1], "unknown") == 0 || strcmp(at[1], "swap") == 0)
            continue;
        only = at[0];
        n++;
        if (len + 100 < sizeof choices)
            len += (size_t)snprintf(choices + len, sizeof choices - len, "%s%.60s (%.20s)",
                                    len ? ", " : "", at[0], at[1]);
    }
    int r = 0;
    if (n != 1)
        r = files_fail(err, EINVAL,
                       n ? "%s: has several file systems: choose one with --partition: %s"
                         : "%s: has no file system that libguestfs knows%s",
                       g->title, choices);
    else if (lib.mount_ro(g->g, only, "/") < 0)
        r = failed(g, only, err);
    free_list(found);
    return r;
}

static int mount_found(struct guest *g, struct platter_error *err)
{
    char **roots = lib.inspect_os(g->g);
    int r;
    if (roots && roots[0] && !roots[1])
        r = mount_system(g, roots[0], err);
    else if (roots && roots[0])
        r = files_fail(err, EINVAL,
                       "%s: has several systems: choose one with --partition: %s, %s%s", g->title,
                       roots[0], roots[1], roots[2] ? ", ..." : "");
    else
        r = mount_only(g, err);
    free_list(roots);
    return r;
}

/* ---- nodes ----------------------------------------------------------------------------------- */

/* The number of a path, which is taken over. */
static int64_t keep(struct guest *g, char *path)
{
    if (path && g->n == g->room) {
        size_t room = g->room ? 2 * g->room : 64;
        char **more = realloc(g->paths, room * sizeof *more);
        if (!more) {
            free(path);
            return -1;
        }
        g->paths = more;
        g->room = room;
    }
    if (!path)
        return -1;
    g->paths[g->n] = path;
    return (int64_t)g->n++;
}

static int guest_node(void *fs, uint64_t id, struct node *ret, struct platter_error *err)
{
    struct guest *g = fs;
    struct guestfs_stat *s = lib.lstatns(g->g, g->paths[id]);
    if (!s)
        return failed(g, g->paths[id], err);
    *ret = (struct node){.id = id,
                         .place = id,
                         .mode = (uint32_t)s->mode,
                         .uid = (uint32_t)s->uid,
                         .gid = (uint32_t)s->gid,
                         .links = (uint32_t)s->nlink,
                         .major = major((dev_t)s->rdev),
                         .minor = minor((dev_t)s->rdev),
                         .size = s->size < 0 ? 0 : (uint64_t)s->size,
                         .mtime = {s->mtime_sec, s->mtime_nsec},
                         .atime = {s->atime_sec, s->atime_nsec}};
    free(s); /* as guestfs_free_statns() does, for a structure without pointers */
    return 0;
}

static int guest_list(void *fs, const struct node *dir, struct listing *ret,
                      struct platter_error *err)
{
    struct guest *g = fs;
    const char *path = g->paths[dir->id];
    struct guestfs_entries *found = lib.readdir(g->g, path);
    int r = found ? 0 : failed(g, path, err);
    for (uint32_t i = 0; found && i < found->n && r == 0; i++) {
        const char *name = found->entries[i].name;
        char *full = NULL;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
            continue;
        if (asprintf(&full, "%s%s%s", path, path[1] ? "/" : "", name) < 0)
            full = NULL;
        path = NULL; /* the table may move */
        int64_t id = keep(g, full);
        r = id < 0 ? files_fail(err, ENOMEM, "no memory for the entries of a folder")
                   : listing_add(ret, name, strlen(name), NULL, (uint64_t)id, err);
        path = g->paths[dir->id];
    }
    if (found)
        lib.free_dirent_list(found);
    if (r < 0)
        listing_free(ret);
    return r;
}

static int guest_target(void *fs, const struct node *link, char **ret, struct platter_error *err)
{
    struct guest *g = fs;
    *ret = lib.readlink(g->g, g->paths[link->id]);
    return *ret ? 0 : failed(g, g->paths[link->id], err);
}

/* ---- bytes ----------------------------------------------------------------------------------- */

enum { PIECE = 2 << 20, HOLE = 64 << 10 };

/* Tells what is not zeros. */
static int tell_data(const char *bytes, size_t len, uint64_t at, run_fn fn, void *opaque,
                     struct platter_error *err)
{
    static const char zeros[HOLE];
    int r = 0;
    for (size_t done = 0; done < len && r == 0; done += HOLE) {
        size_t n = len - done < HOLE ? len - done : HOLE;
        struct run run = {.at = at + done, .length = n, .bytes = bytes + done};
        if (memcmp(bytes + done, zeros, n) != 0)
            r = fn(opaque, &run, err);
    }
    return r;
}

static int guest_runs(void *fs, const struct node *file, run_fn fn, void *opaque,
                      struct platter_error *err)
{
    struct guest *g = fs;
    int r = 0;
    for (uint64_t at = 0; at < file->size && r == 0; at += PIECE) {
        size_t wanted = file->size - at < PIECE ? (size_t)(file->size - at) : (size_t)PIECE;
        size_t n = 0;
        char *bytes = lib.pread(g->g, g->paths[file->id], (int)wanted, (int64_t)at, &n);
        if (!bytes)
            return failed(g, g->paths[file->id], err);
        r = n == wanted ? tell_data(bytes, n, at, fn, opaque, err)
                        : files_fail(err, EIO, "%.400s: %.400s: ends at %llu of %llu bytes",
                                     g->title, g->paths[file->id], (unsigned long long)(at + n),
                                     (unsigned long long)file->size);
        free(bytes);
    }
    return r;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static void guest_close(void *fs)
{
    struct guest *g = fs;
    if (g->g)
        lib.close(g->g);
    disk_server_stop(&g->server);
    for (size_t i = 0; i < g->n; i++)
        free(g->paths[i]);
    free(g->paths);
    free(g);
}

static const struct fs_ops guest_ops = {.close = guest_close,
                                        .node = guest_node,
                                        .list = guest_list,
                                        .target = guest_target,
                                        .runs = guest_runs};

static int start(struct guest *g, const struct args *args, const char *image, const char *device,
                 struct platter_error *err)
{
    int r = disk_server_start(args, image, &g->server, err);
    if (r < 0)
        return r;
    if (launch(g, false) < 0 && launch(g, true) < 0)
        return failed(g, "cannot start a machine to read it", err);
    if (!device)
        r = mount_found(g, err);
    else if (lib.mount_ro(g->g, device, "/") < 0)
        r = failed(g, device, err);
    if (r == 0 && keep(g, strdup("/")) < 0)
        r = files_fail(err, ENOMEM, "no memory for a path");
    return r;
}

int guest_open(const struct args *args, const char *image, const char *title, const char *device,
               struct fs *ret, struct platter_error *err)
{
    struct guest *g = calloc(1, sizeof *g);
    if (!g)
        return files_fail(err, ENOMEM, "%s: no memory to open it", title);
    snprintf(g->title, sizeof g->title, "%.500s", title);
    int r = start(g, args, image, device, err);
    if (r < 0) {
        guest_close(g);
        return r;
    }
    *ret = (struct fs){.ops = &guest_ops, .own = g};
    snprintf(ret->volume.title, sizeof ret->volume.title, "%s", g->title);
    return 0;
}
