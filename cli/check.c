/* SPDX-License-Identifier: MIT */
/* platter check: whether an image makes sense, and its repair; lines, JSON and exit codes of
 * qemu-img check. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "cli.h"

struct checking {
    struct progress progress; /* first: progress_tick() is given a pointer to it */
    const struct args *args;
    json_t *findings;
};

/* ---- findings -------------------------------------------------------------------------------- */

static const char *severity_word(enum platter_severity severity)
{
    static const char *const words[] = {[PLATTER_FINDING_NOTE] = "note",
                                        [PLATTER_FINDING_LEAK] = "leak",
                                        [PLATTER_FINDING_ERROR] = "error",
                                        [PLATTER_FINDING_UNSEEN] = "unseen"};
    return words[severity];
}

static void print_finding(void *opaque, const struct platter_finding *f)
{
    struct checking *c = opaque;
    const char *word = severity_word(f->severity);
    json_array_append_new(c->findings, json_pack("{s:s, s:b, s:o}", "severity", word, "mended",
                                                 f->mended, "text", json_text(f->text)));
    bool grave = f->severity == PLATTER_FINDING_ERROR || f->severity == PLATTER_FINDING_UNSEEN;
    if (c->args->quiet && !grave)
        return;
    progress_clear(&c->progress);
    say("%s%s: %s", word, f->mended ? ", mended" : "", f->text);
}

/* ---- the result ------------------------------------------------------------------------------ */

/* As qemu-img has it, what is zero is left out; but not check-errors. */
static void add_number(json_t *o, const char *field, uint64_t number)
{
    if (number)
        json_object_set_new(o, field, json_integer((json_int_t)number));
}

static void print_result_json(const struct platter_check_result *r, const char *name,
                              json_t *findings)
{
    json_t *o = json_object();
    add_number(o, "image-end-offset", r->image_end_offset);
    add_number(o, "total-clusters", r->total_clusters);
    add_number(o, "corruptions-fixed", r->corruptions_fixed);
    add_number(o, "corruptions", r->corruptions);
    json_object_set_new(o, "check-errors", json_integer((json_int_t)r->check_errors));
    add_number(o, "leaks-fixed", r->leaks_fixed);
    add_number(o, "leaks", r->leaks);
    add_number(o, "compressed-clusters", r->compressed_clusters);
    add_number(o, "fragmented-clusters", r->fragmented_clusters);
    add_number(o, "allocated-clusters", r->allocated_clusters);
    json_object_set_new(o, "filename", json_text(name));
    json_object_set_new(o, "format", json_string(r->format));
    if (json_array_size(findings))
        json_object_set(o, "findings", findings);
    print_json(o);
}

static double percent(uint64_t part, uint64_t whole)
{
    return (double)part * 100.0 / (double)whole;
}

static void print_result(const struct platter_check_result *r)
{
    if (r->corruptions_fixed || r->leaks_fixed)
        printf("The following inconsistencies were found and repaired:\n\n"
               "    %" PRIu64 " leaked clusters\n"
               "    %" PRIu64 " corruptions\n\n"
               "Double checking the fixed image now...\n",
               r->leaks_fixed, r->corruptions_fixed);
    if (!r->corruptions && !r->leaks && !r->check_errors)
        puts("No errors were found on the image.");
    if (r->corruptions)
        printf("\n%" PRIu64 " errors were found on the image.\n"
               "Data may be corrupted, or further writes to the image may corrupt it.\n",
               r->corruptions);
    if (r->leaks)
        printf("\n%" PRIu64 " leaked clusters were found on the image.\n"
               "This means waste of disk space, but no harm to data.\n",
               r->leaks);
    if (r->check_errors)
        printf("\n%" PRIu64 " internal errors have occurred during the check.\n", r->check_errors);
    if (r->total_clusters && r->allocated_clusters)
        printf("%" PRIu64 "/%" PRIu64
               " = %0.2f%% allocated, %0.2f%% fragmented, %0.2f%% compressed "
               "clusters\n",
               r->allocated_clusters, r->total_clusters,
               percent(r->allocated_clusters, r->total_clusters),
               percent(r->fragmented_clusters, r->allocated_clusters),
               percent(r->compressed_clusters, r->allocated_clusters));
    if (r->image_end_offset)
        printf("Image end offset: %" PRIu64 "\n", r->image_end_offset);
}

static int exit_code(const struct platter_check_result *r)
{
    if (r->check_errors)
        return EXIT_FAILED;
    if (r->corruptions)
        return EXIT_CORRUPT;
    return r->leaks ? EXIT_LEAKS : EXIT_FINE;
}

/* ---- the check ------------------------------------------------------------------------------- */

static unsigned check_flags(const struct args *args)
{
    unsigned flags = args->data ? PLATTER_CHECK_DATA : 0;
    if (args->repair)
        flags |= strcmp(args->repair, "all") == 0 ? PLATTER_CHECK_REPAIR_ALL
                                                  : PLATTER_CHECK_REPAIR_LEAKS;
    return flags;
}

static int check_image(struct checking *c, const char *name, struct platter_check_result *ret)
{
    const struct args *args = c->args;
    struct platter_error err = {0};
    struct platter_open_options open =
        image_options(args, args->format, args->format ? 0 : PLATTER_OPEN_ALLOW_RAW);
    open.memory_limit = args->memory; /* buffers as well */
    struct platter_check_options options = {.size = sizeof options,
                                            .flags = check_flags(args),
                                            .open = &open,
                                            .workers = (unsigned)args->workers,
                                            .finding = print_finding,
                                            .progress = progress_tick,
                                            .opaque = c};
    if (!args->repair)
        signals_end_at_once(true);
    progress_start(&c->progress, args, wants_json(args));
    int r = platter_check(name, &options, ret, &err);
    progress_end(&c->progress, !r);
    if (r)
        say_error(&err);
    if (!args->format && ret->format && strcmp(ret->format, "raw") == 0)
        say("%s: no known format: taken as raw", name);
    return r == -ENOTSUP && ret->format ? EXIT_NO_CHECK : r ? EXIT_FAILED : EXIT_FINE;
}

static int check_run(const struct args *args)
{
    struct platter_check_result result = {.size = sizeof result};
    struct checking c = {.args = args, .findings = json_array()};
    if (args->n_operands != 1)
        return usage_error(&verb_check, "Expecting one image file name");
    int code = check_image(&c, args->operands[0], &result);
    if (code == EXIT_FINE) {
        if (wants_json(args))
            print_result_json(&result, name_title(args->operands[0]), c.findings);
        else if (!args->quiet)
            print_result(&result);
        code = exit_code(&result);
    }
    json_decref(c.findings);
    return output_end(code);
}

static const struct opt check_opts[] = {
    OPT_INPUT_FORMAT,
    OPT_OUTPUT,
    OPT_TEXT('r', NULL, "leaks|all", OPT_CHOICE, repair,
             "give back wasted space, or mend all that can be mended"),
    OPT_FLAG_AT(0, "data", data, "unpack and verify what is stored compressed"),
    OPT_SOURCE_CACHE,
    OPT_PROGRESS,
    OPT_QUIET,
    OPT_WORKERS,
    {0, "memory", "SIZE", OPT_SIZE, offsetof(struct args, memory), 0,
     "most memory for tables and buffers, 64M if not given"},
    OPT_SHARE,
    OPT_ALLOWED,
    OPT_IMAGE_OPTS,
    OPT_END};

const struct verb verb_check = {.name = "check",
                                .summary = "tell whether an image makes sense, and repair it",
                                .operands = "IMAGE",
                                .opts = check_opts,
                                .examples = "platter check vm.vmdk\n"
                                            "platter check --data --output=json stream.vmdk\n"
                                            "platter check -r all vm.vmdk\n",
                                .long_work = true,
                                .in_place = true,
                                .run = check_run};
