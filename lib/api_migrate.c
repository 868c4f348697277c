/* SPDX-License-Identifier: MIT */
/* The public surface: live migration. */
#include <platter/migrate.h>

#include "api.h"
#include "ops/migrate.h"

enum {
    PREPARE_FLAGS = PLATTER_MIGRATE_SNAPSHOTS | PLATTER_MIGRATE_NATIVE,
    MIGRATE_FLAGS = PLATTER_MIGRATE_NO_COPY_ON_READ | PLATTER_MIGRATE_DISCARD_WRITES,
    SOURCE_FLAGS = PLATTER_OPEN_FORCE_SHARE | PLATTER_OPEN_ALLOW_RAW | PLATTER_OPEN_NO_LOCK |
                   PLATTER_OPEN_PROBE_BACKING | PLATTER_OPEN_IGNORE_CID
};

int platter_migrate_prepare(const char *source, const struct platter_open_options *open,
                            const char *target,
                            const struct platter_migrate_prepare_options *options,
                            struct platter_error *err)
{
    struct platter_open_options from = {0};
    struct platter_migrate_prepare_options o = {0};
    int r = complete(&from, sizeof from, open, err);
    if (r == 0)
        r = complete(&o, sizeof o, options, err);
    if (r == 0)
        r = check_flags(from.flags, SOURCE_FLAGS, "the source of a migration", err);
    if (r == 0)
        r = check_flags(o.flags, PREPARE_FLAGS, "platter_migrate_prepare()", err);
    if (r == 0)
        r = need(source, "a source", err);
    if (r == 0)
        r = need(target, "a target", err);
    if (r == 0 && from.gate)
        r = fail(err, EINVAL, "a gate of one's own cannot be kept: name what is allowed");
    return r < 0 ? r : ops_migrate_prepare(source, &from, target, &o, err);
}

/* What all that take the name of a target look at first. */
static int check(const char *target, const struct platter_migrate_options *given,
                 struct platter_migrate_options *own, struct platter_error *err)
{
    int r = complete(own, sizeof *own, given, err);
    if (r == 0)
        r = check_flags(own->flags, MIGRATE_FLAGS, "a migration", err);
    return r < 0 ? r : need(target, "a target", err);
}

int platter_migrate_open(const char *target, const struct platter_migrate_options *options,
                         struct platter_migration **ret, struct platter_error *err)
{
    struct platter_migrate_options o = {0};
    int r = check(target, options, &o, err);
    if (r == 0)
        r = need(ret, "a place for the migration", err);
    return r < 0 ? r : ops_migrate_open(target, &o, ret, err);
}

struct platter_disk *platter_migrate_disk(struct platter_migration *migration)
{
    return migration->disk;
}

int platter_migrate_close(struct platter_migration *migration, struct platter_error *err)
{
    return migration ? migration_close(migration, err) : 0;
}

int platter_migrate_execute(const char *target, const struct platter_migrate_options *options,
                            struct platter_error *err)
{
    struct platter_migrate_options o = {0};
    int r = check(target, options, &o, err);
    return r < 0 ? r : ops_migrate_execute(target, &o, err);
}

int platter_migrate_status(const char *target, const struct platter_migrate_options *options,
                           char **ret_json, struct platter_error *err)
{
    struct platter_migrate_options o = {0};
    json_t *status = NULL;
    int r = check(target, options, &o, err);
    if (r == 0)
        r = need(ret_json, "a place for the answer", err);
    if (r == 0)
        r = ops_migrate_status(target, &o, &status, err);
    if (r < 0)
        return r;
    *ret_json = json_dumps(status, JSON_INDENT(4));
    json_decref(status);
    return *ret_json ? 0 : fail_memory(err, "a status");
}

int platter_migrate_commit(const char *target, const struct platter_migrate_options *options,
                           struct platter_error *err)
{
    struct platter_migrate_options o = {0};
    int r = check(target, options, &o, err);
    return r < 0 ? r : ops_migrate_commit(target, &o, err);
}

int platter_migrate_abort(const char *target, const struct platter_migrate_options *options,
                          struct platter_error *err)
{
    struct platter_migrate_options o = {0};
    int r = check(target, options, &o, err);
    return r < 0 ? r : ops_migrate_abort(target, &o, err);
}
