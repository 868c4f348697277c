/* SPDX-License-Identifier: MIT */
/* The disk of ls and cp, and which of its file systems is meant. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "files_guest.h"

int browse_open(const struct args *args, const char *image, struct browse *ret)
{
    struct platter_error err = {0};
    char title[4096];
    *ret = (struct browse){.name = image};
    int r = image_open(args, image, args->format, 0, &ret->disk);
    if (r < 0)
        return r;
    snprintf(ret->title, sizeof ret->title, "%s", image_title(ret->disk, image, title));
    r = table_read(ret->disk, ret->title, &ret->table, &err);
    if (r < 0)
        say_error(&err);
    else if (ret->table->doubt[0] && !args->quiet)
        say("warning: %s: %s", ret->title, ret->table->doubt);
    if (r < 0)
        browse_close(ret);
    return r;
}

static void fs_close(struct fs *fs)
{
    if (fs->ops)
        fs->ops->close(fs->own);
    volume_close(&fs->volume);
    *fs = (struct fs){0};
}

void browse_close(struct browse *b)
{
    fs_close(&b->fs);
    free(b->table);
    platter_close(b->disk, NULL);
    *b = (struct browse){0};
}

/* ---- one partition --------------------------------------------------------------------------- */

static void title_of(const struct browse *b, const struct partition *p, char *buf, size_t size)
{
    if (p->number)
        snprintf(buf, size, "%.460s: partition %u", b->title, p->number);
    else
        snprintf(buf, size, "%.460s", b->title);
}

/* The error of one whose beginning cannot be read, and 0 for others. */
static int check_read(const struct browse *b, const struct partition *p, struct platter_error *err)
{
    char title[512];
    struct platter_error own = {0};
    struct volume v = {0};
    struct fs_kind kind;
    if (!p->unread)
        return 0;
    title_of(b, p, title, sizeof title);
    int r = volume_open(&v, b->disk, title, p->start, p->length, &own);
    if (r == 0)
        r = fs_identify(&v, &kind, &own);
    volume_close(&v);
    return files_fail(err, r < 0 ? -r : EIO, "%s: its beginning cannot be read: %.400s", title,
                      r < 0 ? own.message : "not the first time");
}

int browse_check(const struct browse *b)
{
    int r = 0;
    for (unsigned i = 0; i < b->table->n; i++) {
        struct platter_error err = {0};
        if (check_read(b, &b->table->parts[i], &err) < 0)
            r = -say_error(&err);
    }
    return r;
}

/* A file system that nobody here reads. */
static int refuse_kind(const struct args *args, const struct browse *b, const struct partition *p,
                       struct platter_error *err)
{
    char title[512];
    int r = check_read(b, p, err);
    if (r < 0)
        return r;
    title_of(b, p, title, sizeof title);
    if (!p->kind.name)
        return files_fail(err, ENOTSUP, "%s: has no file system that is known here", title);
    return files_fail(err, ENOTSUP, "%s: has %s, which takes libguestfs to read: %s", title,
                      p->kind.name,
                      args->no_guest ? "--no-libguestfs says that it is not to be used"
                                     : "it is not installed (Debian: libguestfs0)");
}

/* One that is read here. */
static int open_partition(struct browse *b, const struct partition *p, struct platter_error *err)
{
    char title[512];
    title_of(b, p, title, sizeof title);
    int r = volume_open(&b->fs.volume, b->disk, title, p->start, p->length, err);
    if (r == 0)
        r = p->kind.ops->open(&b->fs.volume, &b->fs.own, err);
    if (r == 0)
        b->fs.ops = p->kind.ops;
    else
        volume_close(&b->fs.volume);
    return r;
}

/* ---- which one ------------------------------------------------------------------------------- */

static bool has_guest(const struct args *args)
{
    return !args->no_guest && guest_there();
}

/* By libguestfs, which is told, as it takes a while; device NULL: whatever it finds. */
static int open_guest(const struct args *args, struct browse *b, const char *device,
                      struct platter_error *err)
{
    if (!args->quiet)
        say("%s: is read by libguestfs, which takes some seconds to start", b->title);
    return guest_open(args, b->name, b->title, device, &b->fs, err);
}

static int choose_partition(const struct args *args, struct browse *b, const struct partition *p,
                            struct platter_error *err)
{
    char device[32] = "/dev/sda";
    if (p->kind.ops)
        return open_partition(b, p, err);
    if (!p->kind.name || !has_guest(args))
        return refuse_kind(args, b, p, err);
    if (p->number)
        snprintf(device, sizeof device, "/dev/sda%u", p->number);
    return open_guest(args, b, device, err);
}

static int choose_named(const struct args *args, struct browse *b, struct platter_error *err)
{
    const char *text = args->partition;
    char *end;
    if (strncmp(text, "/dev/", 5) == 0 && has_guest(args))
        return open_guest(args, b, text, err);
    if (strncmp(text, "/dev/", 5) == 0)
        return files_fail(err, ENOTSUP, "%s: %s: takes libguestfs to read", b->title, text);
    errno = 0;
    unsigned long number = strtoul(text, &end, 10);
    bool valid = text[0] >= '0' && text[0] <= '9' && !*end && !errno;
    for (unsigned i = 0; valid && i < b->table->n; i++)
        if (b->table->parts[i].number == number)
            return choose_partition(args, b, &b->table->parts[i], err);
    return files_fail(err, EINVAL,
                      valid ? "%s: has no partition %s: platter ls lists those it has"
                            : "%s: \"%s\" is not the number of a partition",
                      b->title, text);
}

/* "1 (vfat), 2 (ext4)" */
static void list_choices(const struct browse *b, char *buf, size_t size)
{
    size_t len = 0;
    buf[0] = '\0';
    for (unsigned i = 0; i < b->table->n && len + 64 < size; i++) {
        const struct partition *p = &b->table->parts[i];
        if (p->kind.ops)
            len += (size_t)snprintf(buf + len, size - len, "%s%u (%s)", len ? ", " : "", p->number,
                                    p->kind.name);
    }
}

/* Whether the file system that is open is that of a system: Linux's root has /etc. */
static bool is_root(struct browse *b)
{
    struct node node;
    return path_find(&b->fs, "/etc", true, &node, NULL) == 0 && S_ISDIR(node.mode);
}

/* The only partition that is that of a system, of those that are read here; or NULL. */
static const struct partition *find_root(const struct args *args, struct browse *b)
{
    const struct partition *found = NULL;
    unsigned n = 0;
    for (unsigned i = 0; i < b->table->n; i++) {
        const struct partition *p = &b->table->parts[i];
        struct platter_error err = {0};
        if (!p->kind.ops)
            continue;
        if (open_partition(b, p, &err) < 0) { /* it may have been the one that is meant */
            if (!args->quiet)
                say("warning: %s", err.message);
            continue;
        }
        if (is_root(b)) {
            found = p;
            n++;
        }
        fs_close(&b->fs);
    }
    return n == 1 ? found : NULL;
}

/* What is on the disk beside one another. */
struct choice {
    const struct partition *readable, *other; /* the last ones; other: of a kind that is known */
    unsigned n_readable;
};

static struct choice count_kinds(const struct browse *b)
{
    struct choice c = {0};
    for (unsigned i = 0; i < b->table->n; i++) {
        const struct partition *p = &b->table->parts[i];
        if (p->kind.ops) {
            c.readable = p;
            c.n_readable++;
        } else if (p->kind.name && strcmp(p->kind.name, "swap") != 0) {
            c.other = p;
        }
    }
    return c;
}

static int refuse_all(const struct args *args, const struct browse *b, const struct choice *c,
                      struct platter_error *err)
{
    char choices[512];
    if (c->n_readable) {
        list_choices(b, choices, sizeof choices);
        return files_fail(err, EINVAL,
                          "%s: has several file systems: choose one with --partition: %s", b->title,
                          choices);
    }
    if (c->other || b->table->n)
        return refuse_kind(args, b, c->other ? c->other : &b->table->parts[0], err);
    return files_fail(err, ENOTSUP, "%s: has no partition", b->title);
}

/* The only file system; of several that of a system, be it with the help of libguestfs. */
static int choose(const struct args *args, struct browse *b, struct platter_error *err)
{
    struct choice c = count_kinds(b);
    if (args->partition)
        return choose_named(args, b, err);
    /* It may be the one that is meant. */
    for (unsigned i = 0; i < b->table->n; i++) {
        int r = check_read(b, &b->table->parts[i], err);
        if (r < 0)
            return r;
    }
    if (c.n_readable == 1 && !c.other)
        return open_partition(b, c.readable, err);
    const struct partition *root = find_root(args, b);
    if (root && !args->quiet)
        say("%s: partition %u (%s), which has /etc, is taken; --partition takes another", b->title,
            root->number, root->kind.name);
    if (root)
        return open_partition(b, root, err);
    if (c.other && has_guest(args))
        return open_guest(args, b, NULL, err);
    if (c.n_readable != 1)
        return refuse_all(args, b, &c, err);
    if (!args->quiet)
        say("%s: partition %u (%s) is taken; partition %u has %s, which takes libguestfs to read",
            b->title, c.readable->number, c.readable->kind.name, c.other->number,
            c.other->kind.name);
    return open_partition(b, c.readable, err);
}

int browse_choose(const struct args *args, struct browse *b)
{
    struct platter_error err = {0};
    int r = choose(args, b, &err);
    if (r < 0)
        say_error(&err);
    else if (b->fs.volume.doubt[0] && !args->quiet)
        say("warning: %s: %s", b->fs.volume.title, b->fs.volume.doubt);
    return r;
}
