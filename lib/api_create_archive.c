/* SPDX-License-Identifier: MIT */
/* The public surface of making archives: checks arguments, and calls down. */
#include <stdlib.h>

#include "api.h"
#include "base/memory.h"
#include "ops/create_archive.h"

enum {
    CREATE_ARCHIVE_FLAGS = PLATTER_ARCHIVE_REPRODUCIBLE | PLATTER_ARCHIVE_EMBED_DIGEST |
                           PLATTER_ARCHIVE_EXCLUSIVE | PLATTER_ARCHIVE_TO_FD |
                           PLATTER_ARCHIVE_UNSAFE,
    MOST_PARTS = 1 << 16, /* disks, or configurations; formats have fewer */
    MOST_CONTENT = 65535  /* bytes of a configuration */
};

/* Complete copies of what the plan lists. */
struct parts {
    struct platter_archive_source *disks;
    const struct platter_archive_source **disk_list;
    struct platter_archive_file *files;
    const struct platter_archive_file **file_list;
};

static void free_parts(struct parts *p)
{
    free(p->disks);
    free(p->disk_list);
    free(p->files);
    free(p->file_list);
}

static int complete_disk(struct platter_archive_source *own,
                         const struct platter_archive_source *given, struct platter_error *err)
{
    int r = need(given, "a disk of the archive", err);
    if (r == 0)
        r = complete(own, sizeof *own, given, err);
    if (r == 0)
        r = need(own->name, "the name of a disk", err);
    return r < 0 ? r : need(own->disk, "a disk of the archive", err);
}

static int complete_file(struct platter_archive_file *own, const struct platter_archive_file *given,
                         struct platter_error *err)
{
    int r = need(given, "a configuration of the archive", err);
    if (r == 0)
        r = complete(own, sizeof *own, given, err);
    if (r == 0)
        r = need(own->name, "the name of a configuration", err);
    if (r == 0 && own->length > 0)
        r = need(own->bytes, "the content of a configuration", err);
    if (r == 0 && own->length > MOST_CONTENT)
        r = fail(err, EFBIG,
                 "the configuration %s has %zu bytes, but in an archive it has at most %d",
                 own->name, own->length, MOST_CONTENT);
    return r;
}

static int complete_parts(struct platter_archive_plan *o, struct parts *p,
                          struct platter_error *err)
{
    if (o->n_disks > MOST_PARTS || o->n_files > MOST_PARTS)
        return fail(err, EINVAL, "no archive has so many disks or configurations");
    int r = o->n_disks > 0 ? need(o->disks, "the disks", err) : 0;
    if (r == 0 && o->n_files > 0)
        r = need(o->files, "the configurations", err);
    if (r < 0)
        return r;
    p->disks = calloc(o->n_disks + 1, sizeof *p->disks);
    p->disk_list = calloc(o->n_disks + 1, sizeof *p->disk_list);
    p->files = calloc(o->n_files + 1, sizeof *p->files);
    p->file_list = calloc(o->n_files + 1, sizeof *p->file_list);
    if (!p->disks || !p->disk_list || !p->files || !p->file_list)
        return fail_memory(err, "an archive");
    for (size_t i = 0; i < o->n_disks && r == 0; i++) {
        r = complete_disk(&p->disks[i], o->disks[i], err);
        p->disk_list[i] = &p->disks[i];
    }
    for (size_t i = 0; i < o->n_files && r == 0; i++) {
        r = complete_file(&p->files[i], o->files[i], err);
        p->file_list[i] = &p->files[i];
    }
    o->disks = p->disk_list;
    o->files = p->file_list;
    return r;
}

/* Fills the caller's array, whose elements may be longer or shorter than ours. */
static void give_archived(struct platter_archived *ret, const struct platter_archived *full,
                          size_t n)
{
    size_t size = ret->size;
    for (size_t i = 0; i < n; i++) {
        struct platter_archived one = full[i];
        one.size = size;
        memcpy((uint8_t *)ret + i * size, &one, min_u64(size, sizeof one));
    }
}

static int create(const char *target, const struct platter_archive_plan *o,
                  struct platter_archived *ret_archived, struct platter_error *err)
{
    auto_free struct platter_archived *full = calloc(o->n_disks + 1, sizeof *full);
    if (!full)
        return fail_memory(err, "an archive");
    int r = archive_create(target, o, full, err);
    if (r == 0 && ret_archived)
        give_archived(ret_archived, full, o->n_disks);
    return r;
}

int platter_archive_create(const char *target, const struct platter_archive_plan *plan,
                           struct platter_archived *ret_archived, struct platter_error *err)
{
    struct platter_archive_plan o = {0};
    struct parts parts = {0};
    int r = complete(&o, sizeof o, plan, err);
    if (r == 0)
        r = check_flags(o.flags, CREATE_ARCHIVE_FLAGS, "platter_archive_create()", err);
    if (r == 0 && !(o.flags & PLATTER_ARCHIVE_TO_FD))
        r = need(target, "a target", err);
    if (r == 0 && ret_archived && o.n_disks > 0)
        r = check_room(ret_archived->size, sizeof *ret_archived, err);
    if (r == 0)
        r = complete_parts(&o, &parts, err);
    if (r == 0)
        r = create(target, &o, ret_archived, err);
    free_parts(&parts);
    return r;
}
