/* SPDX-License-Identifier: MIT */
/* What platter info says of an archive, for people. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli.h"

static long long integer(const json_t *object, const char *field)
{
    return json_integer_value(json_object_get(object, field));
}

static const char *name_of(const json_t *object)
{
    const char *name = json_string_value(json_object_get(object, "name"));
    return name ? name : "";
}

static void print_name(const char *name, size_t width)
{
    put_text(stdout, name);
    for (size_t n = strlen(name); n < width; n++)
        putchar(' ');
}

static void print_created(const json_t *specific)
{
    time_t when = (time_t)integer(specific, "ctime");
    char date[64];
    struct tm tm;
    if (localtime_r(&when, &tm) && strftime(date, sizeof date, "%Y-%m-%d %H:%M:%S", &tm) > 0)
        printf("created: %s\n", date);
    else
        printf("created: %lld seconds after 1970\n", (long long)when);
}

/* Whether all of a disk is there. */
static void print_coverage(const json_t *disk)
{
    const json_t *missing = json_object_get(disk, "missing-clusters");
    long long n = json_integer_value(missing);
    if (json_is_true(json_object_get(disk, "vmstate")))
        puts("state of the machine");
    else if (!missing)
        puts("unknown");
    else if (n == 0)
        puts("complete");
    else
        printf("%lld cluster%s missing\n", n, n == 1 ? " is" : "s are");
}

static void print_disks(const json_t *disks)
{
    char size[32];
    size_t i, width = 16;
    const json_t *disk;
    if (json_array_size(disks) == 0)
        return;
    json_array_foreach (disks, i, disk) {
        size_t n = strlen(name_of(disk));
        width = n > width && n < 64 ? n : width;
    }
    printf("Disks:\n%3s  %-*s  %10s  %s\n", "ID", (int)width, "NAME", "SIZE", "DATA");
    json_array_foreach (disks, i, disk) {
        printf("%3lld  ", integer(disk, "id"));
        print_name(name_of(disk), width);
        printf("  %10s  ", human_size((uint64_t)integer(disk, "size"), size));
        print_coverage(disk);
    }
}

static void print_configs(const json_t *configs)
{
    const json_t *config;
    size_t i;
    if (json_array_size(configs) == 0)
        return;
    puts("Configurations:");
    json_array_foreach (configs, i, config) {
        fputs("     ", stdout);
        print_name(name_of(config), 0);
        printf(" (%lld bytes%s)\n", integer(config, "size"),
               json_is_true(json_object_get(config, "displaced"))
                   ? ", found where an old writer put it by mistake"
                   : "");
    }
}

void print_archive(const json_t *specific)
{
    const char *uuid = json_string_value(json_object_get(specific, "uuid"));
    print_created(specific);
    if (uuid)
        printf("uuid: %s\n", uuid);
    if (json_object_get(specific, "extents"))
        printf("extents: %lld%s\n", integer(specific, "extents"),
               json_is_true(json_object_get(specific, "indexed")) ? " (from the index beside it)"
                                                                  : "");
    print_disks(json_object_get(specific, "devices"));
    print_configs(json_object_get(specific, "configs"));
}
