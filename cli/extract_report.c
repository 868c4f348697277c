/* SPDX-License-Identifier: MIT */
/* What platter extract tells: faults as they are found, and what came out of the archive. */
#include <inttypes.h>
#include <string.h>

#include "extract.h"

void extract_fault(void *opaque, const struct platter_fault *fault)
{
    struct extract_job *job = opaque;
    job->lost_header |= fault->kind == PLATTER_FAULT_HEADER;
    for (unsigned i = 0; fault->disk && i < job->n_disks; i++) {
        struct extract_disk *d = &job->disks[i];
        if (strcmp(d->name, fault->disk) != 0)
            continue;
        if (fault->kind == PLATTER_FAULT_MISSING)
            fault_ranges_add(&job->log, &d->holes, fault);
        else if (fault_doubts(fault))
            fault_ranges_add(&job->log, &d->doubts, fault);
    }
    fault_log_take(&job->log, fault);
}

static json_t *disk_json(const struct extract_disk *d)
{
    json_t *o = json_pack("{s:o, s:o}", "name", json_text(d->name), "target", json_shown(d->path));
    if (!d->unsized)
        json_object_set_new(o, "size", json_integer((json_int_t)d->length));
    fault_ranges_describe(&d->holes, o, "holes");
    fault_ranges_describe(&d->doubts, o, "doubts");
    return o;
}

static void report_json(const struct extract_job *job, uint64_t holes)
{
    json_t *disks = json_array(), *configs = json_array();
    for (unsigned i = 0; i < job->n_disks; i++)
        json_array_append_new(disks, disk_json(&job->disks[i]));
    for (unsigned i = 0; i < job->n_configs; i++) {
        const struct extract_config *c = &job->configs[i];
        json_array_append_new(configs,
                              json_pack("{s:o, s:o, s:I}", "name", json_text(c->name), "target",
                                        json_shown(c->path), "size", (json_int_t)c->length));
    }
    json_t *o = json_pack("{s:o, s:o, s:o, s:I}", "filename", json_shown(job->args->operands[0]),
                          "disks", disks, "configs", configs, "holes", (json_int_t)holes);
    fault_log_describe(&job->log, o);
    print_json(o);
}

static void report_line(const char *path, const char *what, const char *name)
{
    put_shown(stdout, path);
    printf(": %s ", what);
    put_text(stdout, name);
}

static void report_ranges(const struct fault_ranges *ranges, uint64_t all, const char *what)
{
    char size[32];
    if (ranges->n)
        printf(", %s of it %s", human_size(ranges->bytes < all ? ranges->bytes : all, size), what);
}

static void report_disk(const struct extract_disk *d)
{
    const uint64_t all = d->unsized ? UINT64_MAX : d->length;
    char size[32];
    report_line(d->path, "disk", d->name);
    if (!d->unsized)
        printf(", %s", human_size(d->length, size));
    report_ranges(&d->holes, all, "missing");
    report_ranges(&d->doubts, all, "in doubt");
    putchar('\n');
}

void extract_report(const struct extract_job *job, uint64_t holes)
{
    if (wants_json(job->args)) {
        report_json(job, holes);
        return;
    }
    for (unsigned i = 0; i < job->n_configs && !job->args->quiet; i++) {
        report_line(job->configs[i].path, "configuration", job->configs[i].name);
        putchar('\n');
    }
    for (unsigned i = 0; i < job->n_disks && !job->args->quiet; i++)
        report_disk(&job->disks[i]);
    if (holes)
        say("%" PRIu64 " range%s not in the archive and %s left as zeros", holes,
            holes == 1 ? " is" : "s are", holes == 1 ? "was" : "were");
    else if (job->log.n_faults)
        say("the archive is damaged: what was extracted may be wrong, or incomplete");
}
