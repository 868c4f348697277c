/* SPDX-License-Identifier: MIT */
/* platter digest: one value for the bytes a guest sees, whatever the format. */
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

struct digest_job {
    struct progress progress;
    json_t *nodes; /* NULL: nodes are printed as they come */
};

static const char *hex(const uint8_t digest[32], char buf[65])
{
    for (int i = 0; i < 32; i++)
        snprintf(buf + 2 * i, 3, "%02x", digest[i]);
    return buf;
}

static int node_print(void *opaque, uint64_t offset, uint64_t length, const uint8_t digest[32])
{
    struct digest_job *job = opaque;
    char text[65];
    if (job->nodes)
        return json_array_append_new(
            job->nodes, json_pack("{s:I, s:I, s:s}", "offset", (json_int_t)offset, "length",
                                  (json_int_t)length, "digest", hex(digest, text)));
    printf("%" PRIu64 " %" PRIu64 " %s\n", offset, length, hex(digest, text));
    return 0;
}

static int job_tick(void *opaque, const struct platter_progress *now)
{
    struct digest_job *job = opaque;
    return progress_tick(&job->progress, now);
}

/* "hex  name", in the escaped spelling of sha256sum where the name would break the line. */
static void print_sum(const char *sum, const char *name)
{
    bool escape = strpbrk(name, "\n\r\\") != NULL;
    printf("%s%s  ", escape ? "\\" : "", sum);
    if (isatty(STDOUT_FILENO)) {
        put_text(stdout, name);
        name = "";
    }
    for (; *name; name++) {
        if (*name == '\n')
            fputs("\\n", stdout);
        else if (*name == '\r')
            fputs("\\r", stdout);
        else if (*name == '\\')
            fputs("\\\\", stdout);
        else
            putchar(*name);
    }
    putchar('\n');
}

static int digest_disk(const struct args *args, struct digest_job *job, struct platter_disk *disk,
                       const char *name, json_t *list)
{
    struct platter_error err = {0};
    bool tree = !args->algorithm || strcmp(args->algorithm, "tree") == 0;
    uint8_t digest[32];
    char text[65], title[4096];
    name = image_title(disk, name, title);
    struct platter_digest_options options = {.size = sizeof options,
                                             .algorithm =
                                                 tree ? PLATTER_DIGEST_TREE : PLATTER_DIGEST_SHA256,
                                             .workers = (unsigned)args->workers,
                                             .node = args->nodes ? node_print : NULL,
                                             .progress = job_tick,
                                             .opaque = job};
    progress_start(&job->progress, args, true);
    int r = platter_digest(disk, &options, digest, &err);
    progress_end(&job->progress, !r);
    if (r)
        return say_error(&err);
    if (!list) {
        print_sum(hex(digest, text), name);
        return EXIT_FINE;
    }
    json_t *entry = json_pack("{s:o, s:I, s:s, s:s}", "filename", json_text(name), "virtual-size",
                              (json_int_t)platter_size(disk), "algorithm", tree ? "tree" : "sha256",
                              "digest", hex(digest, text));
    if (job->nodes)
        json_object_set(entry, "nodes", job->nodes);
    return json_array_append_new(list, entry) ? EXIT_FAILED : EXIT_FINE;
}

static int digest_run(const struct args *args)
{
    int code = EXIT_FINE;
    json_t *list = wants_json(args) ? json_array() : NULL;
    if (args->n_operands < 1)
        return usage_error(&verb_digest, "Expecting at least one image file name");
    if (args->nodes && args->algorithm && strcmp(args->algorithm, "tree") != 0)
        return usage_error(&verb_digest, "--nodes needs --algorithm=tree");
    for (int i = 0; i < args->n_operands && !signals_caught(); i++) {
        struct digest_job job = {.nodes = list && args->nodes ? json_array() : NULL};
        struct platter_disk *disk = NULL;
        if (image_open(args, args->operands[i], args->format, PLATTER_OPEN_IN_ORDER, &disk) ||
            digest_disk(args, &job, disk, args->operands[i], list))
            code = EXIT_FAILED;
        platter_close(disk, NULL);
        json_decref(job.nodes);
    }
    if (list)
        print_json(list);
    return output_end(code);
}

static const struct opt digest_opts[] = {
    OPT_INPUT_FORMAT,
    OPT_TEXT(0, "algorithm", "tree|sha256", OPT_CHOICE, algorithm,
             "the tree of SHA-256, whose cost follows the data, or plain SHA-256 of all bytes"),
    OPT_FLAG_AT(0, "nodes", nodes, "print offset, length and digest of each 16 MiB first"),
    OPT_OUTPUT,
    OPT_PROGRESS,
    OPT_QUIET,
    OPT_WORKERS,
    OPT_SHARE,
    OPT_VIEW,
    OPT_ALLOWED,
    OPT_IMAGE_OPTS,
    OPT_END};

const struct verb verb_digest = {.name = "digest",
                                 .summary = "print one value for the content of a disk",
                                 .operands = "IMAGE...",
                                 .opts = digest_opts,
                                 .examples = "platter digest vm.raw vm.qcow2 vm.vmdk\n"
                                             "platter digest --algorithm=sha256 vm.qcow2\n"
                                             "platter digest --nodes vm.qcow2\n",
                                 .long_work = true,
                                 .run = digest_run};
