/* SPDX-License-Identifier: MIT */
/* platter migrate status. */
#include <inttypes.h>
#include <string.h>

#include "migrate.h"

static void print_text(const char *title, const char *text)
{
    printf("%-14s", title);
    put_text(stdout, text);
    putchar('\n');
}

/* "1.5 GiB (1610612736 bytes)" */
static void print_bytes(const char *title, const json_t *status, const char *key)
{
    char size[32];
    const json_t *value = json_object_get(status, key);
    uint64_t bytes = (uint64_t)json_integer_value(value);
    if (json_is_integer(value))
        printf("%-14s%s (%" PRIu64 " bytes)\n", title, human_size(bytes, size), bytes);
    else
        printf("%-14snot known\n", title);
}

static void print_missing(const json_t *status)
{
    const json_t *list = json_object_get(status, "missing"), *range;
    json_int_t all = json_integer_value(json_object_get(status, "missing-ranges"));
    size_t i;
    if (json_array_size(list) == 0)
        return;
    printf("missing:      %" JSON_INTEGER_FORMAT " range%s that the source does not give\n", all,
           all == 1 ? "" : "s");
    json_array_foreach (list, i, range)
        printf("    offset %" JSON_INTEGER_FORMAT ", length %" JSON_INTEGER_FORMAT "\n",
               json_integer_value(json_object_get(range, "start")),
               json_integer_value(json_object_get(range, "length")));
    if (all > (json_int_t)json_array_size(list))
        printf("    and %" JSON_INTEGER_FORMAT " more\n", all - (json_int_t)json_array_size(list));
}

static void print_status(const json_t *status)
{
    char rate[32];
    const char *error = json_string_value(json_object_get(status, "error"));
    const json_t *owner = json_object_get(status, "owner");
    const json_t *written = json_object_get(status, "written");
    json_int_t failed = json_integer_value(json_object_get(status, "failed-reads"));
    json_int_t speed = json_integer_value(json_object_get(status, "rate"));
    const char *texts[][2] = {
        {"target:", "target"}, {"format:", "format"}, {"source:", "source"}, {"state:", "state"}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const char *text = json_string_value(json_object_get(status, texts[i][1]));
        print_text(texts[i][0], text ? text : "not known");
    }
    if (json_is_integer(owner))
        printf("owner:        process %" JSON_INTEGER_FORMAT "\n", json_integer_value(owner));
    if (json_is_true(json_object_get(status, "native")))
        printf("copied by:    Ceph, %" JSON_INTEGER_FORMAT " %%\n",
               json_integer_value(json_object_get(status, "percent")));
    print_bytes("virtual size:", status, "virtual-size");
    print_bytes("copied:", status, "copied");
    print_bytes("left:", status, "left");
    if (speed > 0)
        printf("rate:         %s/s\n", human_size((uint64_t)speed, rate));
    printf("written to:   %s\n", json_is_true(written)   ? "yes"
                                 : json_is_null(written) ? "not known"
                                                         : "no");
    if (failed > 0)
        printf("failed reads: %" JSON_INTEGER_FORMAT "\n", failed);
    if (error)
        print_text("error:", error);
    print_missing(status);
}

static int status_run(const struct args *args)
{
    struct platter_error err = {0};
    struct platter_migrate_options options = migrate_options(args);
    char *text = NULL;
    if (args->n_operands != 1)
        return usage_error(&verb_migrate_status, "Expecting one target");
    int r = platter_migrate_status(args->operands[0], &options, &text, &err);
    if (r < 0)
        return migrate_failed(&err, NULL);
    json_t *status = json_loads(text, 0, NULL);
    platter_free(text);
    if (args->output && !wants_json(args))
        print_status(status);
    else
        print_json(json_incref(status));
    json_decref(status);
    return output_end(EXIT_FINE);
}

static const struct opt status_opts[] = {OPT_TEXT(0, "output", "human|json", OPT_CHOICE, output,
                                                  "how to print the result, json if not given"),
                                         OPT_MIGRATION, OPT_KEYS, OPT_END};

const struct verb verb_migrate_status = {.name = "migrate status",
                                         .summary = "tell how far a migration has come",
                                         .operands = "TARGET",
                                         .opts = status_opts,
                                         .examples =
                                             "platter migrate status vm.qcow2\n"
                                             "platter migrate status --output=human vm.qcow2\n",
                                         .run = status_run};
