/* SPDX-License-Identifier: MIT */
/* The disk of ls and cp, and which of its file systems is meant. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli.h"
#include "files.h"

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

/* Other file systems are for the programs of libguestfs, which have the kernel's. */
static int refuse_kind(const struct browse *b, const struct partition *p, struct platter_error *err)
{
    char title[512];
    title_of(b, p, title, sizeof title);
    if (!p->kind.name)
        return files_fail(err, ENOTSUP, "%s: has no file system that is known here", title);
    return files_fail(err, ENOTSUP,
                      "%s: has %s, whose files cannot be read here; guestfish(1) of libguestfs "
                      "reads them: platter serve -r IMAGE --exec 'guestfish --ro --format=raw -a "
                      "\"$uri\" -i'",
                      title, p->kind.name);
}

static int open_partition(struct browse *b, const struct partition *p, struct platter_error *err)
{
    char title[512];
    title_of(b, p, title, sizeof title);
    if (!p->kind.ops)
        return refuse_kind(b, p, err);
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

static int choose_by_number(struct browse *b, const char *text, struct platter_error *err)
{
    char *end;
    errno = 0;
    unsigned long number = strtoul(text, &end, 10);
    bool valid = text[0] >= '0' && text[0] <= '9' && !*end && !errno;
    for (unsigned i = 0; valid && i < b->table->n; i++)
        if (b->table->parts[i].number == number)
            return open_partition(b, &b->table->parts[i], err);
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

static int choose_root(const struct args *args, struct browse *b, struct platter_error *err)
{
    const struct partition *found = NULL;
    char choices[512];
    unsigned n = 0;
    for (unsigned i = 0; i < b->table->n; i++) {
        const struct partition *p = &b->table->parts[i];
        if (!p->kind.ops || open_partition(b, p, NULL) < 0)
            continue;
        if (is_root(b)) {
            found = p;
            n++;
        }
        fs_close(&b->fs);
    }
    if (n != 1) {
        list_choices(b, choices, sizeof choices);
        return files_fail(err, EINVAL,
                          "%s: has several file systems: choose one with --partition: %s", b->title,
                          choices);
    }
    if (!args->quiet)
        say("%s: partition %u (%s), which has /etc, is taken; --partition takes another", b->title,
            found->number, found->kind.name);
    return open_partition(b, found, err);
}

static int choose(const struct args *args, struct browse *b, struct platter_error *err)
{
    const struct partition *readable = NULL, *known = NULL;
    unsigned n = 0;
    if (args->partition)
        return choose_by_number(b, args->partition, err);
    for (unsigned i = 0; i < b->table->n; i++) {
        const struct partition *p = &b->table->parts[i];
        bool data = p->kind.name && strcmp(p->kind.name, "swap") != 0;
        if (p->kind.ops) {
            readable = p;
            n++;
        } else if (data || !known) {
            known = p;
        }
    }
    if (n > 1)
        return choose_root(args, b, err);
    if (n == 1 && known && known->kind.name && strcmp(known->kind.name, "swap") && !args->quiet)
        say("%s: partition %u (%s) is taken; partition %u has %s, which cannot be read here",
            b->title, readable->number, readable->kind.name, known->number, known->kind.name);
    if (n == 1)
        return open_partition(b, readable, err);
    if (!known)
        return files_fail(err, ENOTSUP, "%s: has no partition", b->title);
    return refuse_kind(b, known, err);
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
