/* SPDX-License-Identifier: MIT */
/*
 * The text descriptor, read: vmdk.md section 3.
 *
 * Tolerant of spelling (case, blanks, CRLF, unknown keys), strict about meaning: a line that is
 * neither a comment, a key nor an extent is an error, because skipping an extent would shift all
 * that follow. Invariant: words holds the text with NULs put in, and every string points into it.
 */
#include <ctype.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>

#include "format/vmdk/vmdk.h"

void descriptor_free(struct descriptor *d)
{
    if (!d)
        return;
    budget_free(d->budget, d->words, d->words_size);
    budget_free(d->budget, d->lines, d->max_lines * sizeof *d->lines);
    budget_free(d->budget, d->extents, d->max_extents * sizeof *d->extents);
    free(d);
}

const struct descriptor_line *descriptor_find(const struct descriptor *d, const char *key)
{
    for (unsigned i = 0; i < d->n_lines; i++)
        if (strcasecmp(d->lines[i].key, key) == 0)
            return &d->lines[i];
    return NULL;
}

const char *descriptor_value(const struct descriptor *d, const char *key)
{
    const struct descriptor_line *line = descriptor_find(d, key);
    return line ? line->value : NULL;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static char *skip_blanks(char *s)
{
    while (is_blank(*s))
        s++;
    return s;
}

static void trim_end(char *s)
{
    size_t n = strlen(s);
    while (n > 0 && (is_blank(s[n - 1]) || s[n - 1] == '\r'))
        s[--n] = 0;
}

/* Cuts the next word off *s, or returns NULL. */
static char *next_word(char **s)
{
    char *word = skip_blanks(*s), *end = word;
    while (*end && !is_blank(*end))
        end++;
    *s = *end ? end + 1 : end;
    *end = 0;
    return *word ? word : NULL;
}

/* ---- extent lines ---------------------------------------------------------------------------- */

static bool parse_decimal(const char *word, uint64_t *ret)
{
    uint64_t value = 0;
    if (!word || !*word)
        return false;
    for (; *word; word++)
        if (*word < '0' || *word > '9' || ckd_mul(&value, value, 10u) ||
            ckd_add(&value, value, (unsigned)(*word - '0')))
            return false;
    *ret = value;
    return true;
}

static bool parse_access(const char *word, enum access *ret)
{
    static const char *const words[] = {"NOACCESS", "RDONLY", "RW"};
    for (unsigned i = 0; i < 3; i++)
        if (strcasecmp(word, words[i]) == 0) {
            *ret = (enum access)i;
            return true;
        }
    return false;
}

static enum extent_type type_of(const char *word)
{
    static const char *const words[] = {"FLAT", "SPARSE", "ZERO", "VMFS"};
    for (unsigned i = 0; i < 4; i++)
        if (strcasecmp(word, words[i]) == 0)
            return (enum extent_type)i;
    return TYPE_OTHER;
}

/* Cuts "FILE" off *s; there is no escape inside the quotes. */
static bool parse_file(char **s, const char **ret)
{
    char *from = skip_blanks(*s);
    char *to = *from == '"' ? strchr(from + 1, '"') : NULL;
    if (!to || to == from + 1)
        return false;
    *to = 0;
    *s = to + 1;
    *ret = from + 1;
    for (const char *c = *ret; *c; c++)
        if (iscntrl((unsigned char)*c))
            return false;
    return true;
}

/* What stands behind the access word. */
static bool parse_extent_rest(char *s, struct descriptor_extent *e)
{
    if (!parse_decimal(next_word(&s), &e->sectors) || e->sectors > VMDK_MAX_SECTORS)
        return false;
    e->word = next_word(&s);
    if (!e->word)
        return false;
    e->type = type_of(e->word);
    if (e->type == TYPE_ZERO)
        return true;
    if (!parse_file(&s, &e->file))
        return false;
    const char *offset = next_word(&s);
    return !offset || (parse_decimal(offset, &e->offset) && e->offset <= VMDK_MAX_SECTORS);
}

/* ---- lines ----------------------------------------------------------------------------------- */

static void parse_key(struct descriptor *d, char *line, char *equals)
{
    char *value = skip_blanks(equals + 1);
    *equals = 0;
    trim_end(line);
    size_t n = strlen(value);
    if (n >= 2 && value[0] == '"' && value[n - 1] == '"') {
        value[n - 1] = 0;
        value++;
    }
    d->lines[d->n_lines++] =
        (struct descriptor_line){.key = line, .value = value, .pos = (size_t)(value - d->words)};
}

/* The beginning of a line, for a sentence. */
static void quote(const char *line, char *ret, size_t size)
{
    snprintf(ret, size, "%.*s", (int)size - 1, line);
    for (char *c = ret; *c; c++)
        if (!isprint((unsigned char)*c))
            *c = '?';
}

/* One line, without its end. */
static int parse_line(struct descriptor *d, const char *name, char *line, struct platter_error *err)
{
    char quoted[80];
    trim_end(line);
    line = skip_blanks(line);
    quote(line, quoted, sizeof quoted);
    if (*line == 0 || *line == '#')
        return 0;

    struct descriptor_extent extent = {0};
    char first[16];
    size_t n = strcspn(line, " \t");
    snprintf(first, sizeof first, "%.*s", (int)min_u64(n, sizeof first - 1), line);
    if (parse_access(first, &extent.access)) {
        if (d->n_extents == d->max_extents)
            return fail(err, PLATTER_ECORRUPT, "%s: the descriptor has more than %d extents", name,
                        VMDK_MAX_EXTENTS);
        if (!parse_extent_rest(line + n, &extent))
            return fail(err, PLATTER_ECORRUPT,
                        "%s: the descriptor's extent line \"%s\" is not "
                        "ACCESS SECTORS TYPE \"FILE\" OFFSET",
                        name, quoted);
        d->extents[d->n_extents++] = extent;
        return 0;
    }
    char *equals = strchr(line, '=');
    if (!equals || equals == line)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the descriptor's line \"%s\" is neither a key nor an extent", name,
                    quoted);
    parse_key(d, line, equals);
    return 0;
}

static int parse_lines(struct descriptor *d, const char *name, struct platter_error *err)
{
    int r = 0;
    for (char *line = d->words, *next; line && r == 0; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = 0;
        r = parse_line(d, name, line, err);
    }
    return r;
}

/* ---- what must be there ---------------------------------------------------------------------- */

static int parse_cid(const struct descriptor *d, const char *name, const char *key, uint32_t *ret,
                     struct platter_error *err)
{
    const char *value = descriptor_value(d, key);
    if (!value)
        return fail(err, PLATTER_ECORRUPT, "%s: the descriptor has no %s", name, key);
    size_t n = strspn(value, "0123456789abcdefABCDEF");
    if (n < 1 || n > 8 || value[n] != 0)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the descriptor's %s is \"%.20s\", not 1 to 8 hexadecimal digits", name,
                    key, value);
    *ret = (uint32_t)strtoul(value, NULL, 16);
    return 0;
}

static int check_keys(struct descriptor *d, const char *name, struct platter_error *err)
{
    const char *version = descriptor_value(d, "version");
    if (!version)
        return fail(err, PLATTER_ECORRUPT, "%s: the descriptor has no version", name);
    if (strlen(version) != 1 || *version < '1' || *version > '3')
        return fail(err, ENOTSUP, "%s: descriptor version \"%.20s\" is not known (1 to 3 are)",
                    name, version);
    int r = parse_cid(d, name, "CID", &d->cid, err);
    if (r == 0)
        r = parse_cid(d, name, "parentCID", &d->parent_cid, err);
    if (r == 0 && !descriptor_find(d, "createType"))
        r = fail(err, PLATTER_ECORRUPT, "%s: the descriptor has no createType", name);
    if (r == 0 && d->n_extents == 0)
        r = fail(err, PLATTER_ECORRUPT, "%s: the descriptor names no extent", name);
    return r;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static size_t count_lines(const uint8_t *text, size_t len)
{
    size_t n = 1;
    for (size_t i = 0; i < len; i++)
        n += text[i] == '\n';
    return n;
}

/* Room for as many lines and extents as the text can have at most. */
static int make_room(struct descriptor *d, const char *name, const uint8_t *bytes, size_t len,
                     struct platter_error *err)
{
    size_t lines = count_lines(bytes, len);
    if (lines > VMDK_MAX_LINES)
        return fail(err, PLATTER_ECORRUPT, "%s: the descriptor has more than %d lines", name,
                    VMDK_MAX_LINES);
    d->words_size = len + 1;
    int r = budget_alloc(d->budget, d->words_size, "a VMDK descriptor", &d->words, err);
    if (r < 0)
        return r;
    memcpy(d->words, bytes, len);
    d->max_lines = (unsigned)lines;
    r = budget_alloc(d->budget, lines * sizeof *d->lines, "a VMDK descriptor", &d->lines, err);
    if (r < 0)
        return r;
    d->max_extents = (unsigned)min_u64(lines, VMDK_MAX_EXTENTS);
    return budget_alloc(d->budget, d->max_extents * sizeof *d->extents, "a VMDK descriptor",
                        &d->extents, err);
}

static size_t count_set(const uint8_t *bytes, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++)
        n += bytes[i] != 0;
    return n;
}

int descriptor_parse(struct budget *budget, const char *name, const uint8_t *bytes, size_t len,
                     bool embedded, struct descriptor **ret, struct platter_error *err)
{
    /* QEMU shortens a CID by up to seven digits in a text that it writes back over the longer one,
     * whose end is then left behind a NUL. */
    enum { LEFTOVER = 7 };
    size_t text = strnlen((const char *)bytes, len);
    if (!embedded && count_set(bytes + text, len - text) > LEFTOVER)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the descriptor has a NUL byte inside its text (offset %zu)", name, text);
    struct descriptor *d = calloc(1, sizeof *d);
    if (!d)
        return fail_memory(err, "a VMDK descriptor");
    d->budget = budget;
    int r = make_room(d, name, bytes, text, err);
    if (r == 0)
        r = parse_lines(d, name, err);
    if (r == 0)
        r = check_keys(d, name, err);
    if (r < 0) {
        descriptor_free(d);
        return r;
    }
    *ret = d;
    return 0;
}
