/* SPDX-License-Identifier: MIT */
/* What platter extract tells: faults as they are found, and what came out of the archive. */
#include <inttypes.h>
#include <string.h>

#include "extract.h"

enum { KEPT = 100000 /* faults and holes in a report; a hostile archive has no end of them */ };

static void keep_range(struct extract_job *job, const struct platter_fault *fault)
{
    for (unsigned i = 0; i < job->n_disks; i++) {
        struct extract_disk *d = &job->disks[i];
        json_t *list = fault->kind == PLATTER_FAULT_MISSING ? d->holes : d->doubts;
        if (strcmp(d->name, fault->disk) == 0 && json_array_size(list) < KEPT)
            json_array_append_new(list, range_json(fault));
    }
}

void extract_fault(void *opaque, const struct platter_fault *fault)
{
    struct extract_job *job = opaque;
    job->n_faults += fault->kind != PLATTER_FAULT_NOTE;
    job->lost_header |= fault->kind == PLATTER_FAULT_HEADER;
    if (fault->disk && (fault->kind == PLATTER_FAULT_MISSING || fault_doubts(fault)))
        keep_range(job, fault);
    if (wants_json(job->args) && json_array_size(job->faults) < KEPT)
        json_array_append_new(job->faults, fault_json(fault));
    if (wants_json(job->args) || job->args->quiet)
        return;
    progress_clear(&job->progress);
    say("%s", fault->text);
}

static json_t *disk_json(const struct extract_disk *d)
{
    json_t *o = json_pack("{s:o, s:o}", "name", json_text(d->name), "target", json_text(d->path));
    if (!d->unsized)
        json_object_set_new(o, "size", json_integer((json_int_t)d->length));
    json_object_set(o, "holes", d->holes);
    json_object_set(o, "doubts", d->doubts);
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
                                        json_text(c->path), "size", (json_int_t)c->length));
    }
    print_json(json_pack("{s:o, s:o, s:o, s:I, s:I, s:O}", "filename",
                         json_text(job->args->operands[0]), "disks", disks, "configs", configs,
                         "holes", (json_int_t)holes, "fault-count", (json_int_t)job->n_faults,
                         "faults", job->faults));
}

static void report_line(const char *path, const char *what, const char *name)
{
    put_text(stdout, path);
    printf(": %s ", what);
    put_text(stdout, name);
}

static void report_ranges(const json_t *list, const char *what)
{
    char size[32];
    if (json_array_size(list))
        printf(", %s of it %s", human_size(ranges_length(list), size), what);
}

static void report_disk(const struct extract_disk *d)
{
    char size[32];
    report_line(d->path, "disk", d->name);
    if (!d->unsized)
        printf(", %s", human_size(d->length, size));
    report_ranges(d->holes, "missing");
    report_ranges(d->doubts, "in doubt");
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
    else if (job->n_faults)
        say("the archive is damaged: what was extracted may be wrong, or incomplete");
}
