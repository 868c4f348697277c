/* SPDX-License-Identifier: MIT */
/* What the library can do, in tables: for the README, for platter-places(7), for the completion. */
#include <errno.h>
#include <string.h>

#include "cli.h"

/* What a function of the library lists, or NULL (printed). */
static json_t *list_of(int (*fn)(char **, struct platter_error *))
{
    struct platter_error err = {0};
    char *text = NULL;
    if (fn(&text, &err)) {
        say_error(&err);
        return NULL;
    }
    json_t *list = json_loads(text, 0, NULL);
    platter_free(text);
    return list;
}

static bool is(const json_t *entry, const char *field)
{
    return json_is_true(json_object_get(entry, field));
}

static const char *word(const json_t *entry, const char *field)
{
    return json_string_value(json_object_get(entry, field));
}

/* ---- formats and places ------------------------------------------------------------------------
 */

/* A place of NULL is a pipe. */
static const char *cell_read(const json_t *format, const json_t *place)
{
    const char *name = word(format, "name");
    if (place)
        return "yes";
    return strcmp(name, "raw") == 0   ? "yes"
           : strcmp(name, "vma") == 0 ? "`extract`, `verify`; else `--spool`"
                                      : "`--spool`";
}

static const char *cell_write(const json_t *format, const json_t *place)
{
    if (!place || !is(place, "write") || !is(format, "write"))
        return "no";
    bool grows = word(place, "create");
    return grows || strcmp(word(format, "name"), "raw") == 0 ? "yes" : "as far as there is room";
}

static const char *cell_create(const json_t *format, const json_t *place)
{
    const char *create = place ? word(place, "create") : "in-order";
    if (strcmp(word(format, "name"), "vma") == 0)
        return create ? "`archive create`" : "no";
    if (!is(format, "create"))
        return "no";
    if (!create) /* what is there has its size */
        return is(place, "write") && !is(format, "needs-file") ? "over what is there" : "no";
    if (strcmp(create, "in-order") == 0)
        return is(format, "in-order") || (place && is(format, "header-last")) ? "front to back"
                                                                              : "no";
    return "yes";
}

static void print_row(const json_t *format, const char *what, const json_t *places,
                      const char *(*cell)(const json_t *, const json_t *))
{
    const json_t *place;
    size_t i;
    printf("| %s | %s |", word(format, "name"), what);
    json_array_foreach (places, i, place)
        printf(" %s |", cell(format, place));
    printf(" %s |\n", cell(format, NULL));
}

static void print_formats(const json_t *formats, const json_t *places)
{
    const json_t *entry;
    size_t i;
    fputs("| format | |", stdout);
    json_array_foreach (places, i, entry)
        printf(" %s |",
               strcmp(word(entry, "name"), "file") == 0 ? "file, device" : word(entry, "name"));
    fputs(" pipe |\n| --- | --- |", stdout);
    for (i = 0; i <= json_array_size(places); i++)
        fputs(" --- |", stdout);
    putchar('\n');
    json_array_foreach (formats, i, entry) {
        print_row(entry, "read", places, cell_read);
        print_row(entry, "write", places, cell_write);
        print_row(entry, "create", places, cell_create);
    }
}

int tables_markdown(void)
{
    json_t *formats = list_of(platter_formats), *places = list_of(platter_places);
    int code = formats && places ? EXIT_FINE : EXIT_FAILED;
    if (code == EXIT_FINE)
        print_formats(formats, places);
    json_decref(formats);
    json_decref(places);
    return output_end(code);
}

/* ---- keys --------------------------------------------------------------------------------------
 */

void print_place_keys(void)
{
    const json_t *place, *key;
    const char *between = "";
    json_t *places = list_of(platter_places), *seen = json_object();
    size_t i, k;
    json_array_foreach (places, i, place) {
        json_array_foreach (json_object_get(place, "keys"), k, key) {
            if (json_object_get(seen, word(key, "name")))
                continue;
            json_object_set_new(seen, word(key, "name"), json_true());
            printf("%s%s=", between, word(key, "name"));
            between = " ";
        }
    }
    json_decref(places);
    json_decref(seen);
}

static void page_key(const json_t *key)
{
    fputs(".TP\n.BI ", stdout);
    roff_text(word(key, "name"));
    printf("= %s\n", word(key, "type"));
    roff_text(word(key, "help"));
    if (word(key, "default")) {
        fputs("; ", stdout);
        roff_text(word(key, "default"));
        fputs(" if not given", stdout);
    }
    puts(".");
}

static void page_places(const json_t *places)
{
    const json_t *place, *item;
    size_t i, k;
    puts(".SH KINDS OF PLACES");
    json_array_foreach (places, i, place) {
        const char *create = word(place, "create");
        printf(".SS %s\nNames begin with", word(place, "name"));
        json_array_foreach (json_object_get(place, "prefixes"), k, item)
            printf("%s\n.B %s", k ? "\nor" : "", json_string_value(item));
        printf("\n(what is read%s%s%s%s). Its keys:\n",
               is(place, "write") ? ", and written in place" : "",
               !create                           ? ""
               : strcmp(create, "in-order") == 0 ? "; a new one is written front to back"
                                                 : "; new ones can be made",
               is(place, "extents") ? "; holes are known" : "",
               is(place, "snapshots") ? "; its snapshots are views" : "");
        json_array_foreach (json_object_get(place, "keys"), k, item)
            page_key(item);
    }
}

int places_page(const char *prose_path)
{
    char line[1024];
    FILE *prose = fopen(prose_path, "r");
    json_t *places = list_of(platter_places);
    if (!prose)
        say("%s: %s", prose_path, strerror(errno));
    if (prose && places) {
        printf(".TH platter\\-places 7 \"\" \"platter %s\" \"Miscellaneous\"\n", platter_version());
        while (fgets(line, sizeof line, prose))
            if (strcmp(line, "@PLACES@\n") == 0)
                page_places(places);
            else
                fputs(line, stdout);
    }
    int code = prose && places ? EXIT_FINE : EXIT_FAILED;
    if (prose)
        fclose(prose);
    json_decref(places);
    return output_end(code);
}
