/* SPDX-License-Identifier: MIT */
/* Creation options on the command line: "key=value,key=value", a comma in a value is doubled. */
#include <stdlib.h>
#include <string.h>

#include "cli.h"

/* The end of the pair that starts at `pair`: its comma or the end of the text. */
static const char *pair_end(const char *pair)
{
    for (; *pair; pair++) {
        if (*pair != ',')
            continue;
        if (pair[1] != ',')
            break;
        pair++;
    }
    return pair;
}

/* The value of a pair whose key ends at `from`, with doubled commas made single. */
static char *pair_value(const char *from, const char *end)
{
    if (from == end)
        return strdup("on");
    char *value = malloc((size_t)(end - from)), *to = value;
    if (!value)
        return NULL;
    for (from++; from < end; from++) {
        *to++ = *from;
        if (*from == ',')
            from++;
    }
    *to = '\0';
    return value;
}

static const char *key_end(const char *pair, const char *end)
{
    const char *equals = memchr(pair, '=', (size_t)(end - pair));
    return equals ? equals : end;
}

char *creation_take(char **options, const char *key)
{
    char *found = NULL;
    size_t len = strlen(key);
    for (char *pair = *options; pair && *pair;) {
        const char *end = pair_end(pair);
        const char *next = *end ? end + 1 : end;
        if ((size_t)(key_end(pair, end) - pair) != len || memcmp(pair, key, len) != 0) {
            pair += next - pair;
            continue;
        }
        free(found); /* the last one counts */
        found = pair_value(pair + len, end);
        memmove(pair, next, strlen(next) + 1);
    }
    size_t left = *options ? strlen(*options) : 0;
    if (found && left && (*options)[left - 1] == ',')
        (*options)[left - 1] = '\0';
    return found;
}

void creation_drop_size(char **options)
{
    char *size = creation_take(options, "size");
    if (size)
        say("-o size=%s has no effect: the size is that of the disk that is read", size);
    free(size);
}

json_t *creation_pairs(const char *options)
{
    json_t *pairs = json_object();
    for (const char *pair = options; pair && *pair;) {
        const char *end = pair_end(pair), *stop = key_end(pair, end);
        char *key = strndup(pair, (size_t)(stop - pair));
        char *value = pair_value(stop, end);
        if (key && value)
            json_object_set_new(pairs, key, json_text(value));
        free(key);
        free(value);
        pair = *end ? end + 1 : end;
    }
    return pairs;
}

bool creation_wants_help(const char *options)
{
    json_t *pairs = creation_pairs(options);
    bool wanted = json_object_get(pairs, "help") || json_object_get(pairs, "?");
    json_decref(pairs);
    return wanted;
}

json_t *format_entry(const char *format)
{
    struct platter_error err = {0};
    char *text = NULL;
    if (platter_formats(&text, &err)) {
        say_error(&err);
        return NULL;
    }
    json_t *all = json_loads(text, 0, NULL), *entry, *found = NULL;
    size_t i;
    json_array_foreach (all, i, entry) {
        const char *name = json_string_value(json_object_get(entry, "name"));
        if (name && strcmp(name, format) == 0)
            found = json_incref(entry);
    }
    json_decref(all);
    platter_free(text);
    if (!found)
        say("Unknown file format '%s'", format);
    return found;
}

static const char *type_title(const char *type)
{
    static const char *const titles[][2] = {
        {"bool", "bool (on/off)"}, {"size", "size"}, {"number", "num"}};
    for (size_t i = 0; type && i < sizeof titles / sizeof *titles; i++)
        if (strcmp(type, titles[i][0]) == 0)
            return titles[i][1];
    return "str";
}

static void print_values(const json_t *option)
{
    const json_t *values = json_object_get(option, "values"), *value;
    size_t i;
    if (!json_array_size(values))
        return;
    fputs(" (", stdout);
    json_array_foreach (values, i, value) {
        printf("%s%s", i ? ", " : "", json_string_value(value));
    }
    putchar(')');
}

static void print_option(const char *name, const char *type, const char *help)
{
    char left[64];
    snprintf(left, sizeof left, "%s=<%s>", name, type);
    printf("  %-22s - %s", left, help ? help : "");
}

static void print_option_line(const json_t *option)
{
    print_option(json_string_value(json_object_get(option, "name")),
                 type_title(json_string_value(json_object_get(option, "type"))),
                 json_string_value(json_object_get(option, "help")));
    print_values(option);
    putchar('\n');
}

static void print_options(const json_t *options)
{
    const json_t *option;
    size_t i;
    json_array_foreach (options, i, option) {
        print_option_line(option);
    }
}

/* The option whose name comes next after `name`; NULL: there is none. */
static const json_t *option_after(const json_t *options, const char *name)
{
    const json_t *option, *next = NULL;
    const char *best = NULL;
    size_t i;
    json_array_foreach (options, i, option) {
        const char *here = json_string_value(json_object_get(option, "name"));
        if (!here || strcmp(here, name) <= 0 || (best && strcmp(here, best) >= 0))
            continue;
        next = option;
        best = here;
    }
    return next;
}

int amendment_help(const char *format)
{
    json_t *entry = format_entry(format);
    if (!entry)
        return EXIT_FAILED;
    json_t *options = key_options(format);
    bool own = json_object_get(entry, "amend-options");
    if (own)
        json_array_extend(options, json_object_get(entry, "amend-options"));
    int code = json_array_size(options) ? EXIT_FINE : EXIT_FAILED;
    if (code == EXIT_FINE)
        printf("Amend options for '%s':\n", format);
    else
        say("Format driver '%s' does not support option amendment", format);
    const json_t *option = option_after(options, "");
    for (; option;
         option = option_after(options, json_string_value(json_object_get(option, "name"))))
        print_option_line(option);
    if (own)
        print_option("size", "size", "Virtual disk size\n");
    json_decref(options);
    json_decref(entry);
    return output_end(code);
}

int creation_help(const char *format, bool bare)
{
    json_t *entry = format_entry(format);
    if (!entry)
        return EXIT_FAILED;
    printf(bare ? "Supported %s options:\n" : "Supported options:\n", format);
    print_options(json_object_get(entry, "options"));
    if (json_is_true(json_object_get(entry, "backing"))) {
        print_option("backing_file", "str", "File name of a base image\n");
        print_option("backing_fmt", "str", "Image format of the base image\n");
    }
    print_option("size", "size", "Virtual disk size\n");
    json_decref(entry);
    return output_end(EXIT_FINE);
}
