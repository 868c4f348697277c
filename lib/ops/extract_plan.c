/* SPDX-License-Identifier: MIT */
/* What is asked for, and whether it makes sense; nothing is opened or made yet. */
#include <string.h>
#include <sys/stat.h>

#include "ops/extract_inside.h"

/* ---- what is asked for ----------------------------------------------------------------------- */

static int find_disk(const struct extraction *job, struct exit *x, struct platter_error *err)
{
    const char *file = job->archive->stream->name;
    int r = archive_find(job->archive, x->q.disk, &x->disk, err);
    if (r == 0 && !x->disk && !job->archive->reader->lost_header)
        r = fail(err, ENOENT, "%s: has no disk called \"%s\"", file, x->q.disk);
    for (struct exit *y = job->exits; y < x && r == 0; y++)
        if (strcmp(y->q.disk, x->q.disk) == 0)
            r = fail(err, EINVAL, "%s: the disk \"%s\" cannot have two targets", file, x->q.disk);
    return r;
}

static int check_new(struct exit *x, struct platter_error *err)
{
    const char *name = x->q.format ? x->q.format : "raw";
    x->format = format_find(name);
    if (!x->format)
        return fail(err, ENOTSUP, "no format is called \"%s\"", name);
    if (x->disk && x->disk->state && x->format != &format_raw)
        return fail(err, ENOTSUP,
                    "%s: the state of a machine is no disk: it is written as it is, not as %s",
                    x->q.target, name);
    if ((x->q.flags & PLATTER_EXTRACT_COMPRESS) && !x->format->pack && !x->format->ordered)
        return fail(err, ENOTSUP, "%s: the %s format does not compress", x->q.target, name);
    return 0;
}

static int check_existing(const struct exit *x, struct platter_error *err)
{
    if (x->q.options)
        return fail(err, EINVAL, "%s: an existing target has the options it has", x->q.target);
    if (x->q.flags & (PLATTER_EXTRACT_COMPRESS | PLATTER_EXTRACT_EXCLUSIVE))
        return fail(err, EINVAL, "%s: an existing target cannot be compressed, nor be a new file",
                    x->q.target);
    if (grows(x))
        return fail(err, ENOTSUP,
                    "%s: the disk \"%s\" has no known size: it can go to a new file only",
                    x->q.target, x->q.disk);
    return 0;
}

/* Whether both paths are the same name in the same folder, or lead to the same file. */
static bool same_place(const char *a, const char *b)
{
    struct stat x, y;
    if (stat(a, &x) == 0 && stat(b, &y) == 0)
        return S_ISBLK(x.st_mode) ? S_ISBLK(y.st_mode) && x.st_rdev == y.st_rdev
                                  : x.st_dev == y.st_dev && x.st_ino == y.st_ino;
    const char *p = strrchr(a, '/'), *q = strrchr(b, '/');
    if (strcmp(p ? p + 1 : a, q ? q + 1 : b) != 0)
        return false;
    auto_free char *in_a = p ? string_format("%.*s/", (int)(p - a), a) : string_copy(".");
    auto_free char *in_b = q ? string_format("%.*s/", (int)(q - b), b) : string_copy(".");
    return in_a && in_b && stat(in_a, &x) == 0 && stat(in_b, &y) == 0 && x.st_dev == y.st_dev &&
           x.st_ino == y.st_ino;
}

/* No target may be the archive, or the target of another disk. */
static int check_place(const struct extraction *job, const struct exit *x,
                       struct platter_error *err)
{
    struct stat archive, target;
    const char *name = job->archive->name;
    bool known = strcmp(name, "-") == 0 ? fstat(0, &archive) == 0 : stat(name, &archive) == 0;
    if (known && stat(x->q.target, &target) == 0 && archive.st_dev == target.st_dev &&
        archive.st_ino == target.st_ino)
        return fail(err, EINVAL, "%s: is the archive itself", x->q.target);
    for (const struct exit *y = job->exits; y < x; y++)
        if (same_place(x->q.target, y->q.target))
            return fail(err, EINVAL, "%s: cannot be the target of two disks, \"%s\" and \"%s\"",
                        x->q.target, y->q.disk, x->q.disk);
    return 0;
}

int extract_plan(struct extraction *job, struct platter_error *err)
{
    int r = 0;
    for (size_t i = 0; i < job->o->n_targets && r == 0; i++) {
        struct exit *x = &job->exits[i];
        x->q = *job->o->targets[i];
        r = find_disk(job, x, err);
        if (r == 0)
            r = is_existing(x) ? check_existing(x, err) : check_new(x, err);
        if (r == 0)
            r = check_place(job, x, err);
    }
    return r;
}
