/* SPDX-License-Identifier: MIT */
/*
 * "key=value,key=value" strings, parsed by a table that also makes --help, man pages and
 * completion. A comma inside a value is doubled, as qemu-img has it. A key alone means "on" for a
 * bool.
 */
#ifndef BASE_OPTIONS_H
#define BASE_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

enum option_type { OPTION_BOOL, OPTION_SIZE, OPTION_NUMBER, OPTION_ENUM, OPTION_STRING };

/* One key. A table ends with .name = NULL. */
struct option_def {
    const char *name;
    enum option_type type;
    const char *value;         /* default as text; NULL: none */
    const char *const *values; /* OPTION_ENUM: NULL-ended list of what it may be */
    uint64_t min, max;         /* OPTION_SIZE, OPTION_NUMBER: bounds, both inclusive */
    const char *help;          /* one line without a dot */
};

struct option_values; /* parsed; holds a value or the default for each key of its table */

/* Parses text (NULL: defaults only) by a table. Unknown keys are an error that lists the known
 * ones. *ret must be given to options_free(). */
int options_parse(const struct option_def *defs, const char *text, struct option_values **ret,
                  struct platter_error *err);
void options_free(struct option_values *v);

/* Appends ",key=value" to a text for options_parse(), with the commas of the value doubled; a value
 * of NULL appends nothing. *text is malloc'ed or NULL. */
int option_text(char **text, const char *key, const char *value, struct platter_error *err);

/* Appends those pairs of another text (NULL: there are none) whose key is wanted. */
int options_pick(char **text, const char *from, bool (*wanted)(const void *opaque, const char *key),
                 const void *opaque, struct platter_error *err);

/* Values by name; the name must be in the table and of that type. */
bool options_bool(const struct option_values *v, const char *name);
uint64_t options_number(const struct option_values *v, const char *name); /* SIZE and NUMBER */
const char *options_string(const struct option_values *v,
                           const char *name);                           /* STRING; may be NULL */
unsigned options_enum(const struct option_values *v, const char *name); /* index into values */
bool options_given(const struct option_values *v, const char *name);    /* set by the text itself */

/* "64K", "1.5G", "512" (suffixes b k K M G T P E, powers of 1024). */
int parse_size(const char *text, uint64_t *ret, struct platter_error *err);

#endif
