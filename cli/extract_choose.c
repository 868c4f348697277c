/* SPDX-License-Identifier: MIT */
/* What platter extract is to get out of an archive, and where it goes. */
#include <stdlib.h>
#include <string.h>

#include "extract.h"

enum { MOST_NAME = 255 /* bytes that file systems take */ };

/* Without -d, -c and --config it is everything. */
static bool is_chosen(const struct args *args, int kind, const char *name)
{
    if (args->n_actions == 0 && !args->configs)
        return true;
    if (kind == CHOOSE_CONFIG && args->configs)
        return true;
    for (unsigned i = 0; i < args->n_actions; i++)
        if (args->actions[i].action == kind && strcmp(args->actions[i].value, name) == 0)
            return true;
    return false;
}

static const char *extension(const struct extract_job *job, bool state)
{
    return state ? "bin" : job->args->out_format ? job->args->out_format : "raw";
}

/* The path that a name out of the archive has in the folder, or the target that was given; NULL
 * where there is none (printed). */
static char *choose_path(const struct extract_job *job, const char *what, const char *name,
                         const char *end)
{
    char *path = NULL;
    if (job->args->n_operands > 1)
        return strdup(job->args->operands[1]);
    size_t rest = *end ? strlen(end) + 1 : 0;
    if (!platter_archive_name_is_safe(name, MOST_NAME - rest)) {
        say("%s: the %s \"%s\" has a name that is not safe as that of a file: extract it on its "
            "own, to a file that you name",
            job->args->operands[0], what, name);
        return NULL;
    }
    if (asprintf(&path, "%s/%s%s%s", job->folder, name, *end ? "." : "", end) < 0)
        path = NULL;
    if (!path)
        say("out of memory");
    return path;
}

static unsigned target_flags(const struct args *args, bool state)
{
    bool named = args->n_operands > 1;
    if (state)
        return named ? 0 : PLATTER_EXTRACT_EXCLUSIVE;
    return (args->compress ? PLATTER_EXTRACT_COMPRESS : 0u) |
           (args->existing ? PLATTER_EXTRACT_EXISTING : 0u) |
           (args->existing && !args->target_is_zero ? PLATTER_EXTRACT_WRITE_ZEROS : 0u) |
           (named || args->existing ? 0u : PLATTER_EXTRACT_EXCLUSIVE);
}

static int add_disk(struct extract_job *job, const struct platter_archive_device *device)
{
    const struct args *args = job->args;
    struct extract_disk *d = &job->disks[job->n_disks];
    d->name = strdup(device->name);
    d->path = choose_path(job, "disk", device->name, extension(job, device->state));
    d->length = device->length;
    d->unsized = device->unsized || device->state;
    d->holes.list = json_array();
    d->doubts.list = json_array();
    d->target = (struct platter_extract_target){.size = sizeof d->target,
                                                .disk = d->name,
                                                .target = d->path,
                                                .flags = target_flags(args, device->state),
                                                .format = device->state ? NULL : args->out_format,
                                                .options = device->state ? NULL : args->creation,
                                                .rate = args->rate,
                                                .rate_group = ""};
    job->list[job->n_disks++] = &d->target;
    return d->name && d->path && d->holes.list && d->doubts.list ? 0 : -1;
}

/* Disks that a salvage knows by their names only when it comes to them. */
static int add_unknown(struct extract_job *job, const char *name)
{
    const struct platter_archive_device d = {.size = sizeof d, .name = name, .unsized = true};
    for (unsigned i = 0; i < job->n_disks; i++)
        if (strcmp(job->disks[i].name, name) == 0)
            return 0;
    return job->n_disks < MOST_DISKS ? add_disk(job, &d) : -1;
}

static int choose_disks(struct extract_job *job)
{
    const struct args *args = job->args;
    struct platter_archive_device d = {.size = sizeof d};
    int r = 0;
    for (unsigned i = 0; !r && !platter_archive_device(job->archive, i, &d, NULL); i++)
        if (is_chosen(args, CHOOSE_DISK, d.name) && job->n_disks < MOST_DISKS)
            r = add_disk(job, &d);
    if (!r && job->lost_header && job->n_disks == 0 && args->n_actions == 0) {
        say("%s: its disks are not known before all of it was read, and it can be read only once: "
            "copy it to a file, or name them: -d device-1, and so on by their numbers",
            args->operands[0]);
        return -1;
    }
    /* What is not there is the library's to tell. */
    for (unsigned i = 0; !r && i < args->n_actions; i++)
        if (args->actions[i].action == CHOOSE_DISK)
            r = add_unknown(job, args->actions[i].value);
    return r;
}

static int choose_configs(struct extract_job *job)
{
    const struct args *args = job->args;
    const char *name;
    const void *bytes;
    size_t len;
    for (unsigned i = 0; !platter_archive_config(job->archive, i, &name, &bytes, &len, NULL); i++) {
        if (!is_chosen(args, CHOOSE_CONFIG, name) || job->n_configs == MOST_CONFIGS)
            continue;
        if (args->n_operands > 1 && job->n_configs > 0) {
            say("%s: has several configurations called \"%s\", and there is one target: "
                "platter vma config prints the first",
                args->operands[0], name);
            return -1;
        }
        struct extract_config *c = &job->configs[job->n_configs++];
        *c = (struct extract_config){.index = i, .name = name, .length = len};
        c->path = choose_path(job, "configuration", name, "");
        if (!c->path)
            return -1;
    }
    for (unsigned i = 0; i < args->n_actions; i++) {
        bool found = args->actions[i].action != CHOOSE_CONFIG;
        for (unsigned k = 0; k < job->n_configs && !found; k++)
            found = strcmp(job->configs[k].name, args->actions[i].value) == 0;
        if (!found) {
            say("%s: has no configuration called \"%s\"", name_title(args->operands[0]),
                args->actions[i].value);
            return -1;
        }
    }
    return 0;
}

int extract_choose(struct extract_job *job)
{
    return choose_configs(job) || choose_disks(job) ? -1 : 0;
}
