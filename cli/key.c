/* SPDX-License-Identifier: MIT */
/* platter key: the key slots of an encrypted image; and what amend says of them, as qemu-img does.
 */
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static int parse_slot(const struct verb *verb, const char *text,
                      struct platter_key_options *options)
{
    if (!text)
        return EXIT_FINE;
    if (text[0] < '0' || text[0] > '7' || text[1])
        return usage_error(verb, "key slots have the numbers 0 to 7, not '%s'", text);
    options->has_slot = true;
    options->slot = (unsigned)(text[0] - '0');
    return EXIT_FINE;
}

static int parse_time(const struct verb *verb, const char *text,
                      struct platter_key_options *options)
{
    char *end = NULL;
    if (!text)
        return EXIT_FINE;
    unsigned long milliseconds = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || milliseconds < 1 || milliseconds > 3600000)
        return usage_error(verb, "the time for trying a key is 1 to 3600000 milliseconds, not '%s'",
                           text);
    options->iter_time = milliseconds;
    return EXIT_FINE;
}

/* ---- list ------------------------------------------------------------------------------------ */

/* The slots, a new reference; NULL and printed if there are none. */
static json_t *slots_of(const struct args *args, const char *name)
{
    struct platter_error err = {0};
    struct platter_disk *disk = NULL;
    char *text = NULL;
    if (image_open(args, name, args->format, PLATTER_OPEN_QUERY | PLATTER_OPEN_NO_BACKING, &disk))
        return NULL;
    int r = platter_info(disk, 0, &text, &err);
    platter_close(disk, NULL);
    if (r) {
        say_error(&err);
        return NULL;
    }
    json_t *info = json_loads(text, 0, NULL);
    platter_free(text);
    json_t *data = json_object_get(json_object_get(info, "format-specific"), "data");
    json_t *slots = json_object_get(json_object_get(data, "encrypt"), "slots");
    slots = json_incref(slots ? slots : json_object_get(data, "slots"));
    json_decref(info);
    if (!slots)
        say("%s: is not encrypted with LUKS, and has no key slots", name_title(name));
    return slots;
}

static int list(const struct args *args, const char *name)
{
    json_t *slots = slots_of(args, name), *slot;
    size_t i;
    if (!slots)
        return EXIT_FAILED;
    if (wants_json(args)) {
        print_json(slots);
        return EXIT_FINE;
    }
    puts("SLOT    STATE       ITERATIONS");
    json_array_foreach (slots, i, slot) {
        bool active = json_is_true(json_object_get(slot, "active"));
        printf("%-8zu%s", i, active ? "active      " : "free\n");
        if (active)
            printf("%lld\n", (long long)json_integer_value(json_object_get(slot, "iters")));
    }
    json_decref(slots);
    return EXIT_FINE;
}

/* ---- changes --------------------------------------------------------------------------------- */

static int change(const struct args *args, const char *name, struct platter_key_options *options)
{
    static const char *const done[] = {[PLATTER_KEY_ADD] = "added",
                                       [PLATTER_KEY_REMOVE] = "removed",
                                       [PLATTER_KEY_CHANGE] = "changed; the new one is"};
    struct platter_error err = {0};
    struct platter_open_options open = image_options(args, args->format, 0);
    unsigned slot = 0;
    options->size = sizeof *options;
    options->open = &open;
    if (platter_key(name, options, &slot, &err))
        return say_error(&err);
    if (wants_json(args))
        print_json(json_pack("{s:i}", "slot", (int)slot));
    else if (!args->quiet)
        printf("Key %s in slot %u.\n", done[options->action], slot);
    return EXIT_FINE;
}

static int action_of(const char *word)
{
    static const char *const words[] = {[PLATTER_KEY_ADD] = "add",
                                        [PLATTER_KEY_REMOVE] = "remove",
                                        [PLATTER_KEY_CHANGE] = "change"};
    for (int i = PLATTER_KEY_ADD; i <= PLATTER_KEY_CHANGE; i++)
        if (strcmp(word, words[i]) == 0)
            return i;
    return 0;
}

static int key_run(const struct args *given)
{
    struct args args = *given;
    const struct verb *verb = &verb_key;
    struct platter_key_options options = {.flags = args.force ? PLATTER_KEY_FORCE : 0};
    if (args.n_operands != 2)
        return usage_error(verb, "Expecting list, add, change or remove, and one image file name");
    if (strcmp(args.operands[0], "list") == 0)
        return output_end(list(&args, args.operands[1]));
    int action = action_of(args.operands[0]);
    if (!action)
        return usage_error(verb, "'%s' is none of list, add, change and remove", args.operands[0]);
    if (parse_slot(verb, args.slot, &options) || parse_time(verb, args.iter_time, &options))
        return EXIT_FAILED;
    options.action = (enum platter_key_action)action;
    args.needs_new_key = true;
    return output_end(change(&args, args.operands[1], &options));
}

/* ---- amend ----------------------------------------------------------------------------------- */

/* Takes a key of slots out of -o, under the name it has for a qcow2 or for a volume of LUKS. */
static char *take(struct args *args, const char *key)
{
    char name[64];
    snprintf(name, sizeof name, "encrypt.%s", key);
    char *value = creation_take(&args->creation, name);
    return value ? value : creation_take(&args->creation, key);
}

json_t *key_options(const char *format)
{
    static const char *const options[][3] = {
        {"iter-time", "number", "milliseconds that trying the new secret is to take"},
        {"keyslot", "number", "the key slot, 0 to 7"},
        {"new-secret", "string", "id of the secret that is to open the image as well"},
        {"old-secret", "string", "id of a secret that is to open it no more"},
        {"state", "string", "active fills a key slot, inactive empties what is said"}};
    bool inside = strcmp(format, "qcow2") == 0;
    json_t *list = json_array();
    char name[64];
    if (!inside && strcmp(format, "luks") != 0)
        return list;
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        snprintf(name, sizeof name, "%s%s", inside ? "encrypt." : "", options[i][0]);
        json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "name", name, "type",
                                              options[i][1], "help", options[i][2]));
    }
    return list;
}

struct amendment {
    char *state, *slot, *time, *new_secret, *old_secret;
};

static int amend(struct args *args, const struct amendment *a)
{
    const struct verb *verb = &verb_amend;
    bool active = a->state && strcmp(a->state, "active") == 0;
    struct platter_key_options options = {.action = active ? PLATTER_KEY_ADD : PLATTER_KEY_REMOVE,
                                          .flags = args->force ? PLATTER_KEY_FORCE : 0,
                                          .new_secret = a->new_secret,
                                          .old_secret = a->old_secret};
    if (args->creation && *args->creation)
        return usage_error(verb, "key slots are amended alone, not with -o %s", args->creation);
    if (!a->state || (!active && strcmp(a->state, "inactive") != 0))
        return usage_error(verb, "encrypt.state must be active or inactive");
    if (active && (!a->new_secret || a->old_secret))
        return usage_error(verb, "encrypt.state=active needs encrypt.new-secret, and goes without "
                                 "encrypt.old-secret");
    if (!active && (a->new_secret || a->time))
        return usage_error(verb, "encrypt.state=inactive goes without encrypt.new-secret and "
                                 "encrypt.iter-time");
    if (!active && !a->slot == !a->old_secret)
        return usage_error(verb, "encrypt.state=inactive needs encrypt.keyslot or "
                                 "encrypt.old-secret, and one of them only");
    if (parse_slot(verb, a->slot, &options) || parse_time(verb, a->time, &options))
        return EXIT_FAILED;
    args->quiet = true;
    return change(args, args->operands[0], &options);
}

int key_amend(struct args *args, bool *ret_mine)
{
    struct amendment a = {.state = take(args, "state"),
                          .slot = take(args, "keyslot"),
                          .time = take(args, "iter-time"),
                          .new_secret = take(args, "new-secret"),
                          .old_secret = take(args, "old-secret")};
    *ret_mine = a.state || a.slot || a.time || a.new_secret || a.old_secret;
    int code = *ret_mine ? amend(args, &a) : EXIT_FINE;
    free(a.state);
    free(a.slot);
    free(a.time);
    free(a.new_secret);
    free(a.old_secret);
    return code;
}

static const struct opt key_opts[] = {
    OPT_INPUT_FORMAT,
    OPT_OUTPUT,
    OPT_TEXT(0, "slot", "N", OPT_STRING, slot,
             "the key slot, 0 to 7; the first free one, or those that the key opens, if not given"),
    OPT_KEYS,
    OPT_NEW_KEY,
    OPT_TEXT(0, "old-key-file", "PATH", OPT_FILE, old_key_file,
             "file whose bytes are the key to be removed"),
    OPT_TEXT(0, "iter-time", "MS", OPT_STRING, iter_time,
             "milliseconds that trying the new key is to take, 2000 if not given"),
    OPT_FLAG_AT(0, "force", force,
                "overwrite a slot that is in use; remove the last one, after which the data is "
                "lost"),
    OPT_QUIET,
    OPT_END};

const struct verb verb_key = {
    .name = "key",
    .summary = "list and change the keys of an encrypted image",
    .operands = "list|add|change|remove IMAGE",
    .opts = key_opts,
    .examples = "platter key list vm.qcow2\n"
                "platter key add --key-file old.key --new-key-file new.key vm.qcow2\n"
                "platter key change vm.qcow2\n"
                "platter key remove --key-file new.key --old-key-file old.key vm.qcow2\n"
                "platter key remove --key-file new.key --slot 0 vm.qcow2\n",
    .run = key_run};
