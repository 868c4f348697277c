/* SPDX-License-Identifier: MIT */
/* platter verify: whether archives are whole, and where they are not. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

/* What is told of ranges of disks. */
enum { HOLES, DOUBTS, DAMAGE, RANGES, MOST_DISKS = 256 };

struct verified_disk {
    char *name;
    struct fault_ranges ranges[RANGES];
};

struct verifying {
    const struct args *args;
    const char *name;
    struct progress progress;
    struct fault_log log;
    struct verified_disk disks[MOST_DISKS]; /* of which something was told */
    unsigned n_disks;
    bool lost_header; /* what there should be is not known for sure */
};

/* ---- what is found ---------------------------------------------------------------------------
 */

static struct verified_disk *find_disk(struct verifying *v, const char *name)
{
    for (unsigned i = 0; i < v->n_disks; i++)
        if (strcmp(v->disks[i].name, name) == 0)
            return &v->disks[i];
    return NULL;
}

static void keep_range(struct verifying *v, unsigned which, const struct platter_fault *fault)
{
    struct verified_disk *d = find_disk(v, fault->disk);
    char *name = d || v->n_disks == MOST_DISKS ? NULL : strdup(fault->disk);
    if (name) {
        d = &v->disks[v->n_disks++];
        d->name = name;
        for (unsigned k = 0; k < RANGES; k++)
            d->ranges[k].list = json_array();
    }
    if (d)
        fault_ranges_add(&v->log, &d->ranges[which], fault);
}

/* What it tells of its range; RANGES: nothing. */
static unsigned range_of(const struct platter_fault *fault)
{
    if (!fault->disk)
        return RANGES;
    return fault->kind == PLATTER_FAULT_MISSING  ? HOLES
           : fault->kind == PLATTER_FAULT_DIGEST ? DAMAGE
           : fault_doubts(fault)                 ? DOUBTS
                                                 : RANGES;
}

static void take_fault(void *opaque, const struct platter_fault *fault)
{
    struct verifying *v = opaque;
    v->lost_header |= fault->kind == PLATTER_FAULT_HEADER;
    if (range_of(fault) != RANGES)
        keep_range(v, range_of(fault), fault);
    fault_log_take(&v->log, fault);
}

/* ---- the report ------------------------------------------------------------------------------ */

static const struct fault_ranges *ranges_of(struct verifying *v, const json_t *device,
                                            unsigned which)
{
    static const struct fault_ranges none;
    const char *name = json_string_value(json_object_get(device, "name"));
    const struct verified_disk *d = name ? find_disk(v, name) : NULL;
    return d ? &d->ranges[which] : &none;
}

static void complete_devices(struct verifying *v, json_t *info)
{
    static const char *const fields[RANGES] = {"holes", "doubts", "damaged"};
    size_t i;
    json_t *device;
    json_array_foreach (json_object_get(info, "devices"), i, device)
        for (unsigned k = 0; k < RANGES; k++)
            fault_ranges_describe(ranges_of(v, device, k), device, fields[k]);
}

/* The description of the archive, with what was found. */
static json_t *report(struct verifying *v, struct platter_archive *archive,
                      const struct platter_verification *found)
{
    char *text = NULL;
    json_t *o = NULL;
    if (archive && platter_archive_info(archive, &text, NULL) == 0)
        o = json_loads(text, 0, NULL);
    platter_free(text);
    if (!o)
        o = json_object();
    complete_devices(v, o);
    json_object_set_new(o, "filename", json_shown(v->name));
    json_object_set_new(o, "whole", json_boolean(v->log.n_faults == 0));
    json_object_set_new(o, "extents", json_integer((json_int_t)found->extents));
    json_object_set_new(o, "clusters", json_integer((json_int_t)found->clusters));
    json_object_set_new(o, "missing", json_integer((json_int_t)found->missing));
    json_object_set_new(o, "digests", json_boolean(found->digests));
    fault_log_describe(&v->log, o);
    return o;
}

static uint64_t number_of(const json_t *o, const char *field)
{
    return (uint64_t)json_integer_value(json_object_get(o, field));
}

/* Whether there are any; then so many bytes of the disk, which has `all`, are that. */
static bool print_ranges(const struct fault_ranges *r, uint64_t all, const char *what)
{
    char size[32];
    if (r->n)
        printf(", %s of it %s, in %" PRIu64 " %s",
               human_size(r->bytes < all ? r->bytes : all, size), what, r->n,
               r->n == 1 ? "range" : "ranges");
    return r->n;
}

static void print_device(struct verifying *v, const json_t *device)
{
    const char *name = json_string_value(json_object_get(device, "name"));
    bool state = json_is_true(json_object_get(device, "vmstate"));
    uint64_t size = number_of(device, "size"), present = number_of(device, "present");
    const bool unsized = state || size == 0;
    const uint64_t most = unsized ? UINT64_MAX : size;
    char text[32];

    put_shown(stdout, v->name);
    fputs(": ", stdout);
    put_text(stdout, name ? name : "");
    printf(": %s", human_size(unsized ? present : size, text));
    if (!print_ranges(ranges_of(v, device, HOLES), most, "missing"))
        fputs(v->lost_header ? ", nothing of it is known to be missing" : ", all there", stdout);
    print_ranges(ranges_of(v, device, DAMAGE), most, "damaged");
    print_ranges(ranges_of(v, device, DOUBTS), most, "in doubt");
    putchar('\n');
}

static void print_report(struct verifying *v, const json_t *o)
{
    size_t i;
    json_t *device;
    json_array_foreach (json_object_get(o, "devices"), i, device)
        print_device(v, device);
    put_shown(stdout, v->name);
    if (v->log.n_faults)
        printf(": damaged: %" PRIu64 " %s\n", v->log.n_faults,
               v->log.n_faults == 1 ? "fault was found" : "faults were found");
    else
        printf(": no faults were found; %s\n", json_is_true(json_object_get(o, "digests"))
                                                   ? "the data is what its digests are of"
                                                   : "there are no digests of the data");
}

/* ---- verifying ------------------------------------------------------------------------------- */

/* What cannot even be opened may be damaged, which is a finding like others. */
static int not_opened(struct verifying *v, int code, const struct platter_error *err)
{
    struct platter_fault f = {.size = sizeof f, .kind = PLATTER_FAULT_HEADER, .text = err->message};
    if (code != -PLATTER_ECORRUPT)
        return say_error(err);
    take_fault(v, &f);
    return EXIT_FINE;
}

static int verify_archive(struct verifying *v, struct platter_archive **ret,
                          struct platter_verification *found)
{
    const struct args *args = v->args;
    struct platter_error err = {0};
    struct platter_archive_options open = {.size = sizeof open,
                                           .flags = args->salvage ? PLATTER_ARCHIVE_SALVAGE : 0,
                                           .uuid = args->uuid,
                                           .memory_limit = args->memory,
                                           .fault = take_fault,
                                           .opaque = v,
                                           .place = args->place};
    struct platter_verify_options options = {.size = sizeof options,
                                             .flags = args->data ? PLATTER_VERIFY_DATA : 0,
                                             .digest = args->digest_file,
                                             .workers = (unsigned)args->workers,
                                             .progress = progress_tick,
                                             .opaque = &v->progress};
    progress_start(&v->progress, args, wants_json(args));
    int r = platter_archive_open(v->name, &open, ret, &err);
    if (r) {
        progress_end(&v->progress, false);
        return not_opened(v, r, &err);
    }
    r = platter_archive_verify(*ret, &options, found, &err);
    progress_end(&v->progress, !r);
    return r ? say_error(&err) : EXIT_FINE;
}

static void verifying_free(struct verifying *v)
{
    for (unsigned i = 0; i < v->n_disks; i++) {
        free(v->disks[i].name);
        for (unsigned k = 0; k < RANGES; k++)
            json_decref(v->disks[i].ranges[k].list);
    }
    json_decref(v->log.faults);
    free(v);
}

/* One archive: its report goes to `list`, or is printed. */
static int verify_one(const struct args *args, const char *name, json_t *list)
{
    struct verifying *v = calloc(1, sizeof *v);
    if (!v)
        return usage_error(NULL, "out of memory");
    v->args = args;
    v->name = name;
    v->log = (struct fault_log){.args = args,
                                .progress = &v->progress,
                                .silent = list || args->quiet,
                                .faults = list ? json_array() : NULL};
    struct platter_verification found = {.size = sizeof found};
    struct platter_archive *archive = NULL;

    int code = verify_archive(v, &archive, &found);
    fault_log_end(&v->log);
    if (code == EXIT_FINE) {
        json_t *o = report(v, archive, &found);
        if (!list && !args->quiet)
            print_report(v, o);
        if (list)
            json_array_append(list, o);
        json_decref(o);
        code = v->log.n_faults ? EXIT_CORRUPT : EXIT_FINE;
    }
    platter_archive_close(archive);
    verifying_free(v);
    return code;
}

static int verify_run(const struct args *args)
{
    json_t *list = wants_json(args) ? json_array() : NULL;
    int code = EXIT_FINE;

    if (args->n_operands < 1)
        return usage_error(&verb_verify, "Expecting at least one archive");
    if (args->uuid && !args->salvage)
        return usage_error(&verb_verify, "--uuid is for archives that are salvaged (--salvage)");
    if (args->digest_file && args->n_operands > 1)
        return usage_error(&verb_verify, "--digest is for one archive");
    for (int i = 0; i < args->n_operands && !signals_caught(); i++) {
        int one = verify_one(args, args->operands[i], list);
        /* Damage is what matters most. */
        code = one == EXIT_CORRUPT || code == EXIT_FINE ? one : code;
    }
    if (list && args->n_operands > 1)
        print_json(json_incref(list));
    else if (json_array_size(list))
        print_json(json_incref(json_array_get(list, 0)));
    json_decref(list);
    return output_end(code);
}

static const struct opt verify_opts[] = {
    OPT_FLAG_AT(0, "salvage", salvage,
                "go on behind damage of any size, and without the beginning of an archive"),
    OPT_TEXT(0, "uuid", "UUID", OPT_STRING, uuid,
             "with --salvage: of an archive that has lost its beginning; found out if not given"),
    OPT_FLAG_AT(0, "data", data, "read the data as well, though there is no digest of it"),
    OPT_TEXT(0, "digest", "FILE", OPT_FILE, digest_file,
             "digests of the data; if not given those in the archive or ARCHIVE.platter.digest"),
    OPT_OUTPUT,
    OPT_PROGRESS,
    OPT_QUIET,
    OPT_WORKERS,
    {0, "memory", "SIZE", OPT_SIZE, offsetof(struct args, memory), 0,
     "most memory for tables and buffers, 64M if not given"},
    OPT_WHERE,
    OPT_END};

const struct verb verb_verify = {
    .name = "verify",
    .summary = "tell whether archives are whole, and where they are not",
    .operands = "ARCHIVE...",
    .opts = verify_opts,
    .examples = "platter verify vzdump-qemu-100.vma.zst\n"
                "platter verify --salvage --output=json broken.vma\n"
                "ssh backup cat vm.vma.zst | platter verify --digest vm.vma.platter.digest -\n",
    .long_work = true,
    .run = verify_run};
