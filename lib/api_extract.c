/* SPDX-License-Identifier: MIT */
/* The public surface of what comes out of archives: checks arguments, and calls down. */
#include <stdlib.h>

#include "api.h"
#include "ops/extract.h"

enum { TARGET_FLAGS = PLATTER_EXTRACT_FITTING * 2 - 1 };

int platter_archive_device(struct platter_archive *archive, unsigned index,
                           struct platter_archive_device *device, struct platter_error *err)
{
    int r = need(device, "a place for the disk", err);
    if (r == 0)
        r = check_room(device->size, sizeof *device, err);
    return r < 0 ? r : archive_device(archive, index, device, err);
}

int platter_archive_save_config(struct platter_archive *archive, unsigned index, const char *folder,
                                unsigned flags, struct platter_error *err)
{
    int r = need(folder, "a folder", err);
    if (r == 0)
        r = check_flags(flags, PLATTER_EXTRACT_UNSAFE, "platter_archive_save_config()", err);
    return r < 0 ? r : archive_save_config(archive, index, folder, flags, err);
}

static int complete_target(struct platter_extract_target *own,
                           const struct platter_extract_target *given, struct platter_error *err)
{
    int r = need(given, "a target", err);
    if (r == 0)
        r = complete(own, sizeof *own, given, err);
    if (r == 0)
        r = check_flags(own->flags, TARGET_FLAGS, "platter_archive_extract()", err);
    if (r == 0)
        r = need(own->disk, "the name of a disk", err);
    return r < 0 ? r : need(own->target, "a target", err);
}

int platter_archive_extract(struct platter_archive *archive,
                            const struct platter_extract_options *options, uint64_t *ret_holes,
                            struct platter_error *err)
{
    struct platter_extract_options o = {0};
    uint64_t holes = 0;
    int r = complete(&o, sizeof o, options, err);
    if (r == 0)
        r = check_flags(o.flags, PLATTER_EXTRACT_UNSAFE, "platter_archive_extract()", err);
    if (r == 0 && o.n_targets > 0)
        r = need(o.targets, "the targets", err);
    if (r < 0)
        return r;
    size_t n = o.n_targets;
    struct platter_extract_target *own = calloc(n + 1, sizeof *own);
    const struct platter_extract_target **list = calloc(n + 1, sizeof *list);
    if (!own || !list)
        r = fail_memory(err, "the targets");
    for (size_t i = 0; i < n && r == 0; i++) {
        list[i] = &own[i];
        r = complete_target(&own[i], o.targets[i], err);
    }
    o.targets = list;
    if (r == 0)
        r = archive_extract(archive, &o, ret_holes ? ret_holes : &holes, err);
    free(list);
    free(own);
    return r;
}
