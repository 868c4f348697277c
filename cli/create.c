/* SPDX-License-Identifier: MIT */
/* platter create: a new, empty image. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

/* What the "Formatting" line tells of a format, in qemu-img's order: a key with ! is told also
 * where it has its default. */
static const char *const told_orders[][2] = {
    {"qcow2", "encrypt.format encrypt.key-secret encrypt.cipher-alg encrypt.cipher-mode "
              "encrypt.ivgen-alg encrypt.ivgen-hash-alg encrypt.hash-alg encrypt.iter-time "
              "cluster_size! extended_l2! preallocation compression_type! size! backing_file "
              "backing_fmt compat data_file data_file_raw lazy_refcounts! refcount_bits!"},
    {"qcow", "size! backing_file backing_fmt encryption encrypt.format encrypt.key-secret"},
    {"vmdk", "size! backing_file backing_fmt adapter_type compat6! hwversion=undefined "
             "toolsversion subformat zeroed_grain"}};

static const char *told_order(const char *format)
{
    for (size_t i = 0; i < sizeof told_orders / sizeof *told_orders; i++)
        if (strcmp(format, told_orders[i][0]) == 0)
            return told_orders[i][1];
    return "size! preallocation";
}

/* The default of a creation option as text; NULL if it has none. */
static const json_t *option_default(const json_t *entry, const char *key, bool *ret_is_size)
{
    const json_t *option;
    size_t i;
    json_array_foreach (json_object_get(entry, "options"), i, option) {
        const char *name = json_string_value(json_object_get(option, "name"));
        const char *type = json_string_value(json_object_get(option, "type"));
        if (!name || strcmp(name, key) != 0)
            continue;
        *ret_is_size = type && strcmp(type, "size") == 0;
        return json_object_get(option, "default");
    }
    return NULL;
}

static void tell_pair(const char *key, const json_t *value, bool is_size)
{
    const char *text = json_string_value(value);
    uint64_t bytes;
    if (!text)
        return;
    printf(" %s=", key);
    if (is_size && size_parse(text, &bytes) == 0)
        printf("%" PRIu64, bytes);
    else
        put_text(stdout, text);
}

/* Tells one word of an order. What was given leaves `pairs`. */
static void tell_word(char *word, const json_t *entry, json_t *pairs)
{
    bool is_size = false;
    char *text = strchr(word, '='), *mark = strchr(word, '!');
    if (text)
        *text++ = '\0';
    if (mark)
        *mark = '\0';
    const json_t *standard = option_default(entry, word, &is_size);
    const json_t *given = json_object_get(pairs, word);
    if (given || mark)
        tell_pair(word, given ? given : standard, is_size);
    else if (text)
        printf(" %s=%s", word, text);
    json_object_del(pairs, word);
}

/* "Formatting 'name', fmt=... key=value ...". `pairs` holds what was given. */
static void tell_formatting(const char *name, const char *format, json_t *pairs)
{
    json_t *entry = format_entry(format), *value;
    char *order = strdup(told_order(format)), *save = NULL;
    const char *key;
    fputs("Formatting '", stdout);
    put_shown(stdout, name);
    printf("', fmt=%s", format);
    for (char *word = order ? strtok_r(order, " ", &save) : NULL; word;
         word = strtok_r(NULL, " ", &save))
        tell_word(word, entry, pairs);
    json_object_foreach (pairs, key, value)
        tell_pair(key, value, false);
    putchar('\n');
    free(order);
    json_decref(entry);
}

/* The size of the image that was just made, where the backing file decided. */
static uint64_t size_made(const struct args *args, const char *name, const char *format)
{
    struct platter_disk *disk = NULL;
    uint64_t size = args->disk_size;
    if (!args->has_disk_size &&
        image_open(args, name, format, PLATTER_OPEN_QUERY | PLATTER_OPEN_NO_BACKING, &disk) == 0)
        size = platter_size(disk);
    platter_close(disk, NULL);
    return size;
}

static void tell(const struct args *args, const char *name,
                 const struct platter_create_options *options)
{
    char size[32];
    if (args->quiet)
        return;
    json_t *pairs = creation_pairs(options->options);
    snprintf(size, sizeof size, "%" PRIu64, size_made(args, name, options->format));
    json_object_set_new(pairs, "size", json_string(size));
    if (options->backing)
        json_object_set_new(pairs, "backing_file", json_text(options->backing));
    if (options->backing_format)
        json_object_set_new(pairs, "backing_fmt", json_text(options->backing_format));
    tell_formatting(name, options->format, pairs);
    json_decref(pairs);
}

/* The size, given as an operand or as -o size=, in *args. */
static int take_size(struct args *args, const char *option)
{
    const char *operand = args->n_operands > 1 ? args->operands[1] : NULL;
    const char *text = operand ? operand : option;
    if (operand && option)
        return usage_error(&verb_create, "The image size must be specified only once");
    if (text && size_parse(text, &args->disk_size))
        return usage_error(&verb_create,
                           "Invalid image size '%s': give bytes, or a number with k, M, G, T, P "
                           "or E, below 8 EiB",
                           text);
    args->has_disk_size = text != NULL;
    return EXIT_FINE;
}

static int create_image(struct args *args, const char *size, const char *backing,
                        const char *backing_format)
{
    struct platter_error err = {0};
    const char *name = args->operands[0];
    if (take_size(args, size))
        return EXIT_FAILED;
    if (backing && !backing_format)
        return usage_error(&verb_create,
                           "%s: Backing file specified without backing format: give it with -F",
                           name);
    if (!backing && !args->has_disk_size)
        return usage_error(&verb_create, "%s: Image creation needs a size parameter", name);
    struct platter_create_options options = {
        .size = sizeof options,
        .flags = (args->unsafe_backing ? PLATTER_CREATE_UNSAFE_BACKING : 0u) |
                 (args->probe_backing ? PLATTER_CREATE_PROBE_BACKING : 0u),
        .format = args->format ? args->format : "raw",
        .has_disk_size = args->has_disk_size,
        .disk_size = args->disk_size,
        .options = args->creation,
        .backing = backing,
        .backing_format = backing_format,
        .below_format = args->unnamed_format,
        .allow = args->n_allow ? args->allow : NULL,
        .secret = secrets_tell,
        .secret_opaque = args,
        .target_place = args->target_place};
    if (platter_create(name, &options, &err))
        return say_error(&err);
    tell(args, name, &options);
    if (backing)
        image_warn_gated(args, name, options.format);
    return EXIT_FINE;
}

static int create_run(const struct args *given)
{
    struct args args = *given;
    if (creation_wants_help(args.creation))
        return creation_help(args.format ? args.format : "raw", args.n_operands == 0);
    if (args.n_operands < 1)
        return usage_error(&verb_create, "Expecting image file name");
    if (args.n_operands > 2)
        return usage_error(&verb_create, "Unexpected argument: %s", args.operands[2]);
    char *size = creation_take(&args.creation, "size");
    char *backing = creation_take(&args.creation, "backing_file");
    char *backing_format = creation_take(&args.creation, "backing_fmt");
    int code = create_image(&args, size, args.backing ? args.backing : backing,
                            args.backing_format ? args.backing_format : backing_format);
    free(size);
    free(backing);
    free(backing_format);
    return output_end(code);
}

static const struct opt create_opts[] = {
    OPT_TEXT('f', NULL, "FMT", OPT_FORMAT, format, "format of the new image; raw if not given"),
    OPT_TEXT('b', NULL, "FILE", OPT_FILE, backing, "name of its backing file"),
    OPT_TEXT('F', NULL, "FMT", OPT_FORMAT, backing_format, "format of the backing file"),
    OPT_FLAG_AT('u', NULL, unsafe_backing, "do not look at the backing file; it may not exist yet"),
    OPT_TEXT('o', NULL, "OPTIONS", OPT_CREATION, creation,
             "creation options, key=value,...; -o help lists those of the format"),
    OPT_WHERE_TO,
    OPT_ALLOW_PATH,
    OPT_UNNAMED,
    OPT_QUIET,
    OPT_KEYS,
    OPT_NEW_KEY,
    OPT_END};

const struct verb verb_create = {
    .name = "create",
    .summary = "make a new, empty image",
    .operands = "IMAGE [SIZE]",
    .opts = create_opts,
    .examples = "platter create -f qcow2 vm.qcow2 40G\n"
                "platter create -f qcow2 -o cluster_size=2M,preallocation=metadata vm.qcow2 1T\n"
                "platter create -f qcow2 -b base.qcow2 -F qcow2 overlay.qcow2\n"
                "platter create -f vmdk -o subformat=twoGbMaxExtentSparse vm.vmdk 40G\n"
                "platter create -f vmdk -o help\n",
    .run = create_run};
