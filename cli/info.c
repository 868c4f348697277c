/* SPDX-License-Identifier: MIT */
/* platter info: the fields and lines of qemu-img info. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli.h"

/* "key: text" where the field is there. */
static void print_field(const json_t *info, const char *field, const char *title)
{
    const char *text = json_string_value(json_object_get(info, field));
    if (!text)
        return;
    printf("%s: ", title);
    put_text(stdout, text);
    putchar('\n');
}

static void print_backing(const json_t *info)
{
    const char *name = json_string_value(json_object_get(info, "backing-filename"));
    const char *full = json_string_value(json_object_get(info, "full-backing-filename"));
    if (!name)
        return;
    fputs("backing file: ", stdout);
    put_text(stdout, name);
    if (full && strcmp(full, name) != 0) {
        fputs(" (actual path: ", stdout);
        put_text(stdout, full);
        putchar(')');
    }
    putchar('\n');
    print_field(info, "backing-filename-format", "backing file format");
}

static long long integer(const json_t *object, const char *field)
{
    return json_integer_value(json_object_get(object, field));
}

static void print_padded(const char *text, int width)
{
    put_text(stdout, text);
    for (int n = (int)strlen(text); n < width; n++)
        putchar(' ');
}

static void print_snapshot(const json_t *s)
{
    char size[32], date[32] = "", clock[64], icount[32] = "";
    const char *id = json_string_value(json_object_get(s, "id"));
    const char *name = json_string_value(json_object_get(s, "name"));
    time_t when = (time_t)integer(s, "date-sec");
    struct tm tm;
    if (localtime_r(&when, &tm))
        strftime(date, sizeof date, "%Y-%m-%d %H:%M:%S", &tm);
    long long clock_s = integer(s, "vm-clock-sec");
    snprintf(clock, sizeof clock, "%02lld:%02lld:%02lld.%03lld", clock_s / 3600, clock_s / 60 % 60,
             clock_s % 60, integer(s, "vm-clock-nsec") / 1000000);
    if (json_object_get(s, "icount"))
        snprintf(icount, sizeof icount, "%lld", integer(s, "icount"));
    print_padded(id ? id : "", 9);
    putchar(' ');
    print_padded(name ? name : "", 16);
    printf(" %8s%20s%13s%11s\n", human_size((uint64_t)integer(s, "vm-state-size"), size), date,
           clock, icount);
}

void print_snapshots(const json_t *list)
{
    const json_t *s;
    size_t i;
    if (!json_array_size(list))
        return;
    puts("Snapshot list:");
    printf("%-9s %-16s %8s%20s%13s%11s\n", "ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT");
    json_array_foreach (list, i, s) {
        print_snapshot(s);
    }
}

static void print_value(const json_t *value, int depth);

/* "key:" with the words of the key apart, then its value. */
static void print_member(const char *key, const json_t *value, int depth)
{
    printf("%*s", depth * 4, "");
    char *title = strdup(key);
    for (char *c = title; c && *c; c++)
        *c = *c == '-' ? ' ' : *c;
    put_text(stdout, title ? title : key);
    putchar(':');
    free(title);
    print_value(value, depth);
}

static void print_value(const json_t *value, int depth)
{
    const char *key;
    json_t *member;
    size_t i;
    if (json_is_object(value) || json_is_array(value))
        putchar('\n');
    else
        putchar(' ');
    if (json_is_object(value)) {
        json_object_foreach ((json_t *)value, key, member)
            print_member(key, member, depth + 1);
    } else if (json_is_array(value)) {
        json_array_foreach (value, i, member) {
            char name[32];
            snprintf(name, sizeof name, "[%zu]", i);
            print_member(name, member, depth + 1);
        }
    } else if (json_is_string(value)) {
        put_text(stdout, json_string_value(value));
        putchar('\n');
    } else if (json_is_integer(value)) {
        printf("%lld\n", (long long)json_integer_value(value));
    } else {
        puts(json_is_true(value) ? "true" : "false");
    }
}

static void print_human(const json_t *info)
{
    char size[32];
    long long bytes = integer(info, "virtual-size");
    print_field(info, "filename", "image");
    print_field(info, "format", "file format");
    printf("virtual size: %s (%lld bytes)\n", human_size((uint64_t)bytes, size), bytes);
    if (json_object_get(info, "actual-size"))
        printf("disk size: %s\n", human_size((uint64_t)integer(info, "actual-size"), size));
    else
        puts("disk size: unavailable");
    print_field(info, "compression", "compressed with");
    if (json_is_true(json_object_get(info, "encrypted")))
        puts("encrypted: yes");
    if (json_object_get(info, "cluster-size"))
        printf("cluster_size: %lld\n", integer(info, "cluster-size"));
    if (json_is_true(json_object_get(info, "dirty-flag")))
        puts("cleanly shut down: no");
    print_backing(info);
    print_snapshots(json_object_get(info, "snapshots"));
    const json_t *specific = json_object_get(json_object_get(info, "format-specific"), "data");
    if (json_object_get(specific, "devices")) {
        print_archive(specific);
    } else if (json_object_size(specific)) {
        fputs("Format specific information:", stdout);
        print_value(specific, 0);
    }
    const json_t *place = json_object_get(info, "place");
    if (json_object_size(place)) {
        fputs("Place specific information:", stdout);
        print_value(place, 0);
    }
}

/* The order in which qemu-img prints the fields; programs that read lines rely on it. */
#define IN_ORDER(name, ...) static const char *const name[] = {__VA_ARGS__, NULL}
IN_ORDER(info_order, "snapshots", "backing-filename-format", "virtual-size", "filename",
         "cluster-size", "format", "actual-size", "format-specific", "encrypted",
         "full-backing-filename", "backing-filename", "dirty-flag");
IN_ORDER(snapshot_order, "icount", "vm-clock-nsec", "name", "date-sec", "date-nsec", "vm-clock-sec",
         "id", "vm-state-size");
IN_ORDER(data_order, "compat", "compression-type", "lazy-refcounts", "bitmaps", "refcount-bits",
         "encrypt", "data-file", "data-file-raw", "corrupt", "extended-l2");

/* Puts the fields of an object into an order; others stay behind them. */
static void put_in_order(json_t *object, const char *const *order)
{
    json_t *rest = json_copy(object), *sorted = json_object();
    for (; rest && sorted && *order; order++) {
        json_t *value = json_object_get(rest, *order);
        if (value)
            json_object_set(sorted, *order, value);
    }
    json_object_update_missing(sorted, rest);
    json_object_clear(object);
    json_object_update(object, sorted);
    json_decref(sorted);
    json_decref(rest);
}

/* The description of one image of the chain; NULL and printed if that fails. */
static json_t *describe(struct platter_disk *disk, unsigned layer)
{
    struct platter_error err = {0};
    json_error_t where;
    json_t *snapshot;
    size_t i;
    char *text = NULL;
    if (platter_info(disk, layer, &text, &err)) {
        say_error(&err);
        return NULL;
    }
    json_t *info = json_loads(text, 0, &where);
    platter_free(text);
    if (!info) {
        say("the description of an image cannot be read: %s", where.text);
        return NULL;
    }
    json_array_foreach (json_object_get(info, "snapshots"), i, snapshot) {
        put_in_order(snapshot, snapshot_order);
    }
    json_t *data = json_object_get(json_object_get(info, "format-specific"), "data");
    if (data)
        put_in_order(data, data_order);
    put_in_order(info, info_order);
    return info;
}

static json_t *describe_all(struct platter_disk *disk, bool chain)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < (chain ? platter_depth(disk) : 1); i++) {
        json_t *info = describe(disk, i);
        if (!info) {
            json_decref(list);
            return NULL;
        }
        json_array_append_new(list, info);
    }
    return list;
}

static int info_run(const struct args *args)
{
    struct platter_disk *disk = NULL;
    if (args->n_operands != 1)
        return usage_error(&verb_info, "Expecting one image file name");
    unsigned flags = PLATTER_OPEN_QUERY | (args->backing_chain ? 0u : PLATTER_OPEN_NO_BACKING);
    if (image_open(args, args->operands[0], args->format, flags, &disk))
        return EXIT_FAILED;
    json_t *list = describe_all(disk, args->backing_chain), *info;
    size_t i;
    platter_close(disk, NULL);
    if (!list)
        return EXIT_FAILED;
    if (wants_json(args)) {
        print_json(args->backing_chain ? json_incref(list) : json_incref(json_array_get(list, 0)));
    } else {
        json_array_foreach (list, i, info) {
            if (i)
                putchar('\n');
            print_human(info);
        }
    }
    json_decref(list);
    return output_end(EXIT_FINE);
}

static const struct opt info_opts[] = {
    OPT_INPUT_FORMAT,
    OPT_OUTPUT,
    OPT_FLAG_AT(0, "backing-chain", backing_chain, "describe the backing files as well"),
    OPT_SALVAGE,
    OPT_SHARE,
    OPT_VIEW,
    OPT_ALLOWED,
    OPT_IMAGE_OPTS,
    OPT_END};

const struct verb verb_info = {.name = "info",
                               .summary = "describe an image",
                               .operands = "IMAGE",
                               .opts = info_opts,
                               .examples = "platter info vm.qcow2\n"
                                           "platter info --output=json --backing-chain vm.qcow2\n",
                               .run = info_run};
