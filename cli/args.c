/* SPDX-License-Identifier: MIT */
/* Arguments, parsed by a verb's table of options; options may follow operands, as in qemu-img. */
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

enum {
    MAX_OPTS = 48,
    LONG_BASE = 256, /* getopt's value of an option's long name: this + its place in the table */
    HELP = LONG_BASE + MAX_OPTS
};

int usage_error(const struct verb *verb, const char *format, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, format);
    int n = vasprintf(&text, format, args);
    va_end(args);
    say("%s", n < 0 ? format : text);
    if (n >= 0)
        free(text);
    if (called_as_vma()) {
        help_group(group_find("vma"), stdout);
        return output_end(EXIT_FAILED);
    }
    fprintf(stderr, "Try 'platter%s%s --help' for more information\n", verb ? " " : "",
            verb ? verb->name : "");
    return EXIT_FAILED;
}

int size_parse(const char *text, uint64_t *ret)
{
    static const char suffixes[] = "bkmgtpe";
    if (!isdigit((unsigned char)text[0]))
        return -EINVAL;
    bool hex = text[0] == '0' && tolower((unsigned char)text[1]) == 'x';
    char *end;
    errno = 0;
    unsigned long long whole = strtoull(text, &end, hex ? 16 : 10);
    if (errno || (hex && *end))
        return errno ? -ERANGE : -EINVAL;
    double fraction = 0, scale = 0.1;
    if (*end == '.')
        for (end++; isdigit((unsigned char)*end); end++, scale /= 10)
            fraction += scale * (*end - '0');
    unsigned shift = 0;
    if (*end) {
        const char *suffix = strchr(suffixes, tolower((unsigned char)*end));
        if (!suffix || end[1])
            return -EINVAL;
        shift = (unsigned)(suffix - suffixes) * 10;
    }
    if (fraction > 0 && shift == 0)
        return -EINVAL;
    if (whole > (uint64_t)INT64_MAX >> shift)
        return -ERANGE;
    *ret = ((uint64_t)whole << shift) + (uint64_t)(fraction * (double)(1ull << shift));
    return 0;
}

static bool choice_fits(const char *choices, const char *value)
{
    size_t len = strlen(value);
    for (const char *c = choices; c; c = strchr(c, '|') ? strchr(c, '|') + 1 : NULL)
        if (strncmp(c, value, len) == 0 && (c[len] == '|' || c[len] == '\0') && len > 0)
            return true;
    return false;
}

static const char *opt_title(const struct opt *o, char buf[32])
{
    if (o->name)
        snprintf(buf, 32, "--%s", o->name);
    else
        snprintf(buf, 32, "-%c", o->letter);
    return buf;
}

static int store_size(const struct verb *verb, const struct opt *o, const char *value,
                      struct args *ret)
{
    char title[32];
    uint64_t number = 0;
    int r = size_parse(value, &number);
    if (r == -ERANGE)
        return usage_error(verb, "%s: '%s' is too large: the limit is %lld bytes",
                           opt_title(o, title), value, (long long)INT64_MAX);
    if (r)
        return usage_error(verb,
                           "%s: '%s' is no size: give bytes, or a number with k, M, G, T, P or E",
                           opt_title(o, title), value);
    *(uint64_t *)(void *)((char *)ret + o->at) = number;
    if (o->given)
        *((bool *)ret + o->given) = true;
    return 0;
}

static int store_number(const struct verb *verb, const struct opt *o, const char *value,
                        struct args *ret)
{
    char title[32], *end;
    unsigned long number = strtoul(value, &end, 10);
    if (!isdigit((unsigned char)value[0]) || *end || number < 1 || number > 64)
        return usage_error(verb, "%s: '%s' is no number between 1 and 64", opt_title(o, title),
                           value);
    *(uint64_t *)(void *)((char *)ret + o->at) = number;
    return 0;
}

static int store_joined(const char *value, char **list)
{
    char *joined;
    if (asprintf(&joined, "%s%s%s", *list ? *list : "", *list ? "," : "", value) < 0)
        return usage_error(NULL, "out of memory");
    free(*list);
    *list = joined;
    return 0;
}

/* One more of a list. */
static int store_more(const struct verb *verb, const struct opt *o, const char *value,
                      const char **list, unsigned *n, unsigned max)
{
    char title[32];
    if (*n == max)
        return usage_error(verb, "%s may be given %u times at most", opt_title(o, title), max);
    list[(*n)++] = value;
    return 0;
}

static int store(const struct verb *verb, const struct opt *o, const char *value, struct args *ret)
{
    char title[32];
    char *field = (char *)ret + o->at;
    switch (o->kind) {
    case OPT_FLAG:
        *(bool *)field = true;
        return 0;
    case OPT_CHOICE:
        if (!choice_fits(o->arg, value))
            return usage_error(verb, "%s must be used with %s as argument, not '%s'",
                               opt_title(o, title), o->arg, value);
        *(const char **)(void *)field = value;
        return 0;
    case OPT_STRING:
    case OPT_FILE:
    case OPT_FORMAT:
        *(const char **)(void *)field = value;
        return 0;
    case OPT_SIZE:
        return store_size(verb, o, value, ret);
    case OPT_NUMBER:
        return store_number(verb, o, value, ret);
    case OPT_CREATION:
    case OPT_PLACE:
        return store_joined(value, (char **)(void *)field);
    case OPT_ALLOW:
        return store_more(verb, o, value, ret->allow, &ret->n_allow, MAX_ALLOW);
    case OPT_OBJECT:
        return store_more(verb, o, value, ret->objects, &ret->n_objects, MAX_KEYS);
    case OPT_KEY_FILE:
        return store_more(verb, o, value, ret->key_files, &ret->n_key_files, MAX_KEYS);
    case OPT_ACTION:
        if (ret->n_actions == MAX_ACTIONS)
            return usage_error(verb, "%s: there are more than %d actions", opt_title(o, title),
                               MAX_ACTIONS);
        ret->actions[ret->n_actions++] = (struct action){(int)o->at, value};
        return 0;
    case OPT_REFUSED:
        break;
    }
    return usage_error(verb, "%s", o->help);
}

/* getopt's two descriptions of a table. */
static void describe(const struct opt *opts, char *letters, struct option *longs)
{
    *letters++ = ':';
    *letters++ = 'h';
    for (int i = 0; opts[i].help && i < MAX_OPTS; i++) {
        if (opts[i].letter) {
            *letters++ = opts[i].letter;
            if (opts[i].arg)
                *letters++ = ':';
        }
        if (opts[i].name)
            *longs++ = (struct option){opts[i].name, opts[i].arg ? required_argument : no_argument,
                                       NULL, LONG_BASE + i};
    }
    *letters = '\0';
    *longs++ = (struct option){"help", no_argument, NULL, HELP};
    *longs = (struct option){NULL, 0, NULL, 0};
}

static const struct opt *opt_of(const struct verb *verb, int value)
{
    if (value >= LONG_BASE)
        return &verb->opts[value - LONG_BASE];
    const struct opt *o = verb->opts;
    while (o->help && o->letter != value)
        o++;
    return o;
}

bool cache_check(const struct verb *verb, const char *cache, const char *what)
{
    static const char *const modes[] = {"none",         "off",        "writeback",
                                        "writethrough", "directsync", "unsafe"};
    for (size_t i = 0; cache && i < sizeof modes / sizeof *modes; i++)
        if (strcmp(cache, modes[i]) == 0)
            return true;
    if (cache)
        usage_error(verb,
                    "Invalid %s option: %s; it is one of none, writeback, writethrough, "
                    "directsync, unsafe",
                    what, cache);
    return !cache;
}

/* "-1G" at the end, which is no option there. */
static bool ends_with_negative(const struct verb *verb, int argc, char **argv)
{
    const char *last = argc > 1 ? argv[argc - 1] : "";
    return verb->signed_operand && last[0] == '-' && isdigit((unsigned char)last[1]);
}

/* -h */
static int verb_help(const struct verb *verb)
{
    if (called_as_vma())
        help_group(group_find("vma"), stdout);
    else
        help_verb(verb, stdout);
    return output_end(called_as_vma() ? EXIT_FAILED : EXIT_FINE);
}

int args_parse(const struct verb *verb, int argc, char **argv, struct args *ret)
{
    bool negative = ends_with_negative(verb, argc, argv);
    argc -= negative;
    char letters[2 * MAX_OPTS + 3];
    struct option longs[MAX_OPTS + 2];
    describe(verb->opts, letters, longs);
    opterr = 0;
    optind = 1;
    for (int value; (value = getopt_long(argc, argv, letters, longs, NULL)) != -1;) {
        if (value == 'h' || value == HELP)
            return verb_help(verb) + 1;
        if (value == ':')
            return usage_error(verb, "missing argument for option '%s'", argv[optind - 1]) + 1;
        if (value == '?' && optopt > ' ' && optopt < LONG_BASE)
            return usage_error(verb, "unrecognized option '-%c'", optopt) + 1;
        if (value == '?')
            return usage_error(verb, "unrecognized option '%s'", argv[optind - 1]) + 1;
        if (store(verb, opt_of(verb, value), optarg, ret))
            return EXIT_FAILED + 1;
    }
    ret->operands = argv + optind;
    ret->n_operands = argc - optind + negative;
    return 0;
}
