/* SPDX-License-Identifier: MIT */
/* Values stand in the order of their table; a value that was not given holds the table's default.
 */
#include "base/options.h"

#include <assert.h>
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/ckd.h"
#include "base/memory.h"

struct option_value {
    bool given;
    uint64_t number; /* BOOL: 0 or 1; SIZE, NUMBER; ENUM: index */
    char *string;    /* STRING; NULL: none */
};

struct option_values {
    const struct option_def *defs;
    struct option_value values[]; /* one for each of defs */
};

/* ---- sizes ----------------------------------------------------------------------------------- */

static int fail_size(const char *text, struct platter_error *err)
{
    return fail(
        err, EINVAL,
        "'%s' is not a size: a number of bytes is expected, or one with a suffix k, M, G, T, "
        "P or E (powers of 1024)",
        text);
}

/* Digits to a number; *text moves behind them. False: there are none, or too many. */
static bool parse_digits(const char **text, unsigned base, uint64_t *ret)
{
    const char *p = *text;
    *ret = 0;
    for (; isxdigit((unsigned char)*p); p++) {
        unsigned digit = isdigit((unsigned char)*p)
                             ? (unsigned)(*p - '0')
                             : (unsigned)(tolower((unsigned char)*p) - 'a' + 10);
        if (digit >= base)
            break;
        if (ckd_mul(ret, *ret, (uint64_t)base) || ckd_add(ret, *ret, (uint64_t)digit))
            return false;
    }
    bool any = p != *text;
    *text = p;
    return any;
}

/* The power of 1024 that a suffix stands for, or -1. */
static int suffix_power(char c)
{
    static const char suffixes[] = "bkmgtpe";
    const char *p = c ? strchr(suffixes, tolower((unsigned char)c)) : suffixes;
    return p ? (int)(p - suffixes) : -1;
}

/* ".75" as digits (75) over a scale (100). */
static bool parse_fraction(const char **text, uint64_t *ret_digits, uint64_t *ret_scale)
{
    const char *p = ++*text;
    *ret_scale = 1;
    if (!parse_digits(text, 10, ret_digits))
        return false;
    for (; p < *text; p++)
        if (ckd_mul(ret_scale, *ret_scale, (uint64_t)10))
            return false;
    return true;
}

int parse_size(const char *text, uint64_t *ret, struct platter_error *err)
{
    const char *p = text;
    uint64_t whole, fraction = 0, scale = 1;
    bool hex = p[0] == '0' && (p[1] == 'x' || p[1] == 'X');
    p += hex ? 2 : 0;
    if (!parse_digits(&p, hex ? 16 : 10, &whole))
        return fail_size(text, err);
    if (!hex && *p == '.' && !parse_fraction(&p, &fraction, &scale))
        return fail_size(text, err);
    int power = suffix_power(*p);
    if (power < 0 || (*p && p[1]) || (hex && *p) || (power == 0 && scale != 1))
        return fail_size(text, err);
    uint64_t unit = 1ull << (10 * power);
    uint64_t part = (uint64_t)((unsigned __int128)fraction * unit / scale);
    if (ckd_mul(&whole, whole, unit) || ckd_add(&whole, whole, part) || whole > INT64_MAX)
        return fail(err, ERANGE, "'%s' is too large a size: less than 8E is expected", text);
    *ret = whole;
    return 0;
}

/* ---- single values --------------------------------------------------------------------------- */

static int parse_bool(const struct option_def *def, const char *text, uint64_t *ret,
                      struct platter_error *err)
{
    static const char *const words[] = {"off", "on", "no", "yes", "false", "true", "n", "y"};
    for (unsigned i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcmp(text, words[i]) == 0) {
            *ret = i % 2;
            return 0;
        }
    }
    return fail(err, EINVAL, "option %s: 'on' or 'off' is expected, not '%s'", def->name, text);
}

static int parse_enum(const struct option_def *def, const char *text, uint64_t *ret,
                      struct platter_error *err)
{
    char known[256] = "";
    for (unsigned i = 0; def->values[i]; i++) {
        if (strcmp(text, def->values[i]) == 0) {
            *ret = i;
            return 0;
        }
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", def->values[i]);
    }
    return fail(err, EINVAL, "option %s: '%s' is none of: %s", def->name, text, known);
}

static int parse_number(const struct option_def *def, const char *text, uint64_t *ret,
                        struct platter_error *err)
{
    const char *end = text;
    if (def->type == OPTION_SIZE) {
        int r = parse_size(text, ret, err);
        if (r < 0)
            return fail_in(err, r, "option %s", def->name);
    } else if (!parse_digits(&end, 10, ret) || *end) {
        return fail(err, EINVAL, "option %s: a number is expected, not '%s'", def->name, text);
    }
    if (*ret < def->min || *ret > def->max)
        return fail(err, EINVAL,
                    "option %s: %" PRIu64 " is out of range: %" PRIu64 " to %" PRIu64
                    " is expected",
                    def->name, *ret, def->min, def->max);
    return 0;
}

static int value_set(struct option_value *v, const struct option_def *def, const char *text,
                     struct platter_error *err)
{
    switch (def->type) {
    case OPTION_BOOL:
        return parse_bool(def, text, &v->number, err);
    case OPTION_ENUM:
        return parse_enum(def, text, &v->number, err);
    case OPTION_SIZE:
    case OPTION_NUMBER:
        return parse_number(def, text, &v->number, err);
    case OPTION_STRING:
        break;
    }
    free(v->string);
    v->string = string_copy(text);
    return v->string ? 0 : fail_memory(err, "an option");
}

/* ---- the whole text -------------------------------------------------------------------------- */

static int fail_unknown(const struct option_def *defs, const char *key, struct platter_error *err)
{
    char known[768] = "";
    for (; defs->name; defs++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", used ? ", " : "", defs->name);
    }
    return fail(err, EINVAL, "unknown option '%s': %s%s", key,
                *known ? "those known here are " : "there are none here", known);
}

/* Takes "key=value" (or "key") apart from the front of *text: copies it to item, where doubled
 * commas become one, and moves behind its comma. */
static void next_item(const char **text, char *item)
{
    const char *p = *text;
    while (*p && (*p != ',' || p[1] == ',')) {
        p += *p == ',';
        *item++ = *p++;
    }
    *item = '\0';
    *text = *p ? p + 1 : p;
}

static int set_item(struct option_values *v, char *item, struct platter_error *err)
{
    char *equals = strchr(item, '=');
    if (equals)
        *equals = '\0';
    size_t i = 0;
    while (v->defs[i].name && strcmp(v->defs[i].name, item) != 0)
        i++;
    const struct option_def *def = &v->defs[i];
    if (!def->name)
        return fail_unknown(v->defs, item, err);
    if (!equals && def->type != OPTION_BOOL)
        return fail(err, EINVAL, "option %s: needs a value, as in %s=...", def->name, def->name);
    v->values[i].given = true;
    return value_set(&v->values[i], def, equals ? equals + 1 : "on", err);
}

static int set_items(struct option_values *v, const char *text, struct platter_error *err)
{
    auto_free char *item = malloc(strlen(text) + 1);
    if (!item)
        return fail_memory(err, "options");
    int r = 0;
    while (*text && r == 0) {
        next_item(&text, item);
        if (*item)
            r = set_item(v, item, err);
    }
    return r;
}

int options_parse(const struct option_def *defs, const char *text, struct option_values **ret,
                  struct platter_error *err)
{
    size_t n = 0;
    while (defs[n].name)
        n++;
    struct option_values *v = calloc(1, sizeof *v + n * sizeof *v->values);
    if (!v)
        return fail_memory(err, "options");
    v->defs = defs;
    int r = 0;
    for (size_t i = 0; i < n && r == 0; i++)
        if (defs[i].value)
            r = value_set(&v->values[i], &defs[i], defs[i].value, err);
    if (r == 0 && text)
        r = set_items(v, text, err);
    if (r < 0) {
        options_free(v);
        return r;
    }
    *ret = v;
    return 0;
}

void options_free(struct option_values *v)
{
    if (!v)
        return;
    for (size_t i = 0; v->defs[i].name; i++)
        free(v->values[i].string);
    free(v);
}

int option_text(char **text, const char *key, const char *value, struct platter_error *err)
{
    if (!value)
        return 0;
    size_t used = *text ? strlen(*text) : 0, room = used + strlen(key) + 2 * strlen(value) + 3;
    char *more = realloc(*text, room);
    if (!more)
        return fail_memory(err, "options");
    *text = more;
    char *p = more + used + sprintf(more + used, "%s%s=", used ? "," : "", key);
    for (; *value; value++) {
        *p++ = *value;
        if (*value == ',')
            *p++ = ',';
    }
    *p = '\0';
    return 0;
}

int options_pick(char **text, const char *from, bool (*wanted)(const void *opaque, const char *key),
                 const void *opaque, struct platter_error *err)
{
    auto_free char *item = malloc(from ? strlen(from) + 1 : 1);
    int r = item ? 0 : fail_memory(err, "options");
    while (r == 0 && from && *from) {
        next_item(&from, item);
        char *value = strchr(item, '=');
        if (value)
            *value++ = '\0';
        if (!*item || !wanted(opaque, item))
            continue;
        if (value) {
            r = option_text(text, item, value, err);
            continue;
        }
        char *more = string_format("%s%s%s", *text ? *text : "", *text ? "," : "", item);
        free(*text);
        *text = more;
        r = more ? 0 : fail_memory(err, "options");
    }
    return r;
}

/* ---- asking ---------------------------------------------------------------------------------- */

static const struct option_value *value_of(const struct option_values *v, const char *name)
{
    size_t i = 0;
    while (v->defs[i].name && strcmp(v->defs[i].name, name) != 0)
        i++;
    assert(v->defs[i].name);
    return &v->values[i];
}

bool options_bool(const struct option_values *v, const char *name)
{
    return value_of(v, name)->number != 0;
}

uint64_t options_number(const struct option_values *v, const char *name)
{
    return value_of(v, name)->number;
}

const char *options_string(const struct option_values *v, const char *name)
{
    return value_of(v, name)->string;
}

unsigned options_enum(const struct option_values *v, const char *name)
{
    return (unsigned)value_of(v, name)->number;
}

bool options_given(const struct option_values *v, const char *name)
{
    return value_of(v, name)->given;
}
