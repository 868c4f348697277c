/* SPDX-License-Identifier: MIT */
/* platter formats: what this build can read and write. */
#include "cli.h"

static const char *yes_or_no(const json_t *entry, const char *field)
{
    return json_is_true(json_object_get(entry, field)) ? "yes" : "no";
}

static int formats_run(const struct args *args)
{
    struct platter_error err = {0};
    char *text = NULL;
    const json_t *entry;
    size_t i;
    if (args->n_operands)
        return usage_error(&verb_formats, "Unexpected argument: %s", args->operands[0]);
    if (platter_formats(&text, &err))
        return say_error(&err);
    json_t *all = json_loads(text, 0, NULL);
    platter_free(text);
    if (wants_json(args)) {
        print_json(all);
        return output_end(EXIT_FINE);
    }
    printf("%-10s%-8s%-8s%-8s%s\n", "FORMAT", "READ", "WRITE", "CREATE", "DESCRIPTION");
    json_array_foreach (all, i, entry) {
        const char *title = json_string_value(json_object_get(entry, "title"));
        printf("%-10s%-8s%-8s%-8s%s\n", json_string_value(json_object_get(entry, "name")),
               yes_or_no(entry, "read"), yes_or_no(entry, "write"), yes_or_no(entry, "create"),
               title ? title : "");
    }
    json_decref(all);
    return output_end(EXIT_FINE);
}

static const struct opt formats_opts[] = {OPT_OUTPUT, OPT_END};

const struct verb verb_formats = {.name = "formats",
                                  .summary = "list the formats that can be read and written",
                                  .operands = "",
                                  .opts = formats_opts,
                                  .examples = "platter formats\n"
                                              "platter formats --output=json\n",
                                  .run = formats_run};
