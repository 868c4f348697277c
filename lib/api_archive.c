/* SPDX-License-Identifier: MIT */
/* The public surface of archives: checks arguments, and calls down. */
#include "api.h"
#include "ops/archive.h"
#include "ops/ops.h"

int platter_archive_open(const char *name, const struct platter_archive_options *options,
                         struct platter_archive **ret_archive, struct platter_error *err)
{
    struct platter_archive_options o = {0};
    int r = complete(&o, sizeof o, options, err);
    if (r == 0)
        r = check_flags(o.flags, PLATTER_ARCHIVE_SALVAGE, "platter_archive_open()", err);
    if (r == 0)
        r = need(name, "a name", err);
    if (r == 0)
        r = need(ret_archive, "a place for the archive", err);
    if (r == 0 && o.uuid && !(o.flags & PLATTER_ARCHIVE_SALVAGE))
        r = fail(err, EINVAL, "%s: a uuid is for archives that are salvaged", name);
    return r < 0 ? r : archive_open(name, &o, ret_archive, err);
}

void platter_archive_close(struct platter_archive *archive)
{
    archive_close(archive);
}

int platter_archive_info(struct platter_archive *archive, char **ret_json,
                         struct platter_error *err)
{
    int r = need(ret_json, "a place for the description", err);
    return r < 0 ? r : archive_info(archive, ret_json, err);
}

int platter_archive_config(struct platter_archive *archive, unsigned index, const char **ret_name,
                           const void **ret_bytes, size_t *ret_length, struct platter_error *err)
{
    int r = need(ret_name, "a place for the name", err);
    if (r == 0)
        r = need(ret_bytes, "a place for the bytes", err);
    if (r == 0)
        r = need(ret_length, "a place for the length", err);
    return r < 0 ? r : archive_config(archive, index, ret_name, ret_bytes, ret_length, err);
}

int platter_archive_index(const char *name, const char *index, struct platter_error *err)
{
    int r = need(name, "a name", err);
    return r < 0 ? r : ops_archive_index(name, index, err);
}

int platter_archive_repack(const char *name, const char *target,
                           const struct platter_repack_options *options, struct platter_error *err)
{
    struct platter_repack_options o = {0};
    int r = complete(&o, sizeof o, options, err);
    if (r == 0)
        r = check_flags(o.flags,
                        PLATTER_ARCHIVE_EXCLUSIVE | PLATTER_ARCHIVE_TO_FD | PLATTER_ARCHIVE_UNSAFE,
                        "platter_archive_repack()", err);
    if (r == 0)
        r = need(name, "a name", err);
    if (r == 0)
        r = need(target, "a target", err);
    return r < 0 ? r : ops_repack(name, target, &o, err);
}

int platter_archive_verify(struct platter_archive *archive,
                           const struct platter_verify_options *options,
                           struct platter_verification *verification, struct platter_error *err)
{
    struct platter_verification full = {.size = sizeof full};
    struct platter_verify_options o = {0};
    int r = complete(&o, sizeof o, options, err);
    if (r == 0)
        r = check_flags(o.flags, PLATTER_VERIFY_DATA, "platter_archive_verify()", err);
    if (r == 0)
        r = need(verification, "a place for what is found", err);
    if (r == 0)
        r = check_room(verification->size, sizeof full, err);
    if (r < 0)
        return r;
    full.size = verification->size;
    r = archive_verify(archive, &o, &full, err);
    memcpy(verification, &full, min_u64(full.size, sizeof full));
    return r;
}
