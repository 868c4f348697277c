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
    while (d) {
        struct descriptor *older = d->older;
        budget_free(d->budget, d->words, d->words_size);
        budget_free(d->budget, d->lines, d->max_lines * sizeof *d->lines);
        budget_free(d->budget, d->extents, d->max_extents * sizeof *d->extents);
        free(d);
        d = older;
    }
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

/* ---- one line -------------------------------------------------------------------------------- */

const char *const access_words[] = {"NOACCESS", "RDONLY", "RW"};
const char *const type_words[] = {"FLAT",       "SPARSE",   "ZERO",    "VMFS",
                                  "VMFSSPARSE", "SESPARSE", "VMFSRDM", "VMFSRAW"};

/* Which of n words the span is, whatever its case; n: none of them. */
static unsigned word_of(const char *text, struct text_span s, const char *const words[], unsigned n)
{
    unsigned i = 0;
    while (i < n && (strlen(words[i]) != s.len || strncasecmp(text + s.at, words[i], s.len) != 0))
        i++;
    return i;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static size_t skip_blanks(const char *text, size_t at, size_t end)
{
    while (at < end && is_blank(text[at]))
        at++;
    return at;
}

static size_t trim_end(const char *text, size_t start, size_t end)
{
    while (end > start && (is_blank(text[end - 1]) || text[end - 1] == '\r'))
        end--;
    return end;
}

/* Cuts the next word off [*at, end). */
static struct text_span next_word(const char *text, size_t *at, size_t end)
{
    struct text_span word = {.at = skip_blanks(text, *at, end)};
    for (*at = word.at; *at < end && !is_blank(text[*at]);)
        ++*at;
    word.len = *at - word.at;
    return word;
}

/* Cuts "FILE" off; there is no escape inside the quotes. */
static struct text_span next_quoted(const char *text, size_t *at, size_t end)
{
    size_t from = skip_blanks(text, *at, end);
    const char *to =
        from < end && text[from] == '"' ? memchr(text + from + 1, '"', end - from - 1) : NULL;
    if (!to)
        return (struct text_span){0};
    *at = (size_t)(to - text) + 1;
    return (struct text_span){.at = from + 1, .len = *at - from - 2};
}

static void scan_key(const char *text, size_t equals, struct text_line *l)
{
    size_t value = skip_blanks(text, equals + 1, l->end);
    l->kind = TEXT_KEY;
    l->key = (struct text_span){l->start, trim_end(text, l->start, equals) - l->start};
    l->value = (struct text_span){value, l->end - value};
    l->quoted = l->value.len >= 2 && text[value] == '"' && text[l->end - 1] == '"';
    if (l->quoted)
        l->value = (struct text_span){value + 1, l->value.len - 2};
}

size_t text_begin(const void *text, size_t len)
{
    return len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
}

bool text_line_at(const char *text, size_t len, size_t at, struct text_line *ret)
{
    if (at >= len)
        return false;
    const char *newline = memchr(text + at, '\n', len - at);
    size_t stop = newline ? (size_t)(newline - text) : len;
    *ret = (struct text_line){.start = skip_blanks(text, at, stop), .next = stop + 1};
    ret->end = trim_end(text, ret->start, stop);
    if (ret->start == ret->end || text[ret->start] == '#')
        return true;

    size_t pos = ret->start;
    struct text_span first = next_word(text, &pos, ret->end);
    const char *equals = memchr(text + ret->start, '=', ret->end - ret->start);
    if (word_of(text, first, access_words, 3) < 3) {
        ret->kind = TEXT_EXTENT;
        ret->access = first;
        ret->sectors = next_word(text, &pos, ret->end);
        ret->type = next_word(text, &pos, ret->end);
        ret->file = next_quoted(text, &pos, ret->end);
        ret->offset = next_word(text, &pos, ret->end);
    } else if (equals && equals != text + ret->start &&
               !memchr(text + ret->start, '"', (size_t)(equals - text) - ret->start)) {
        scan_key(text, (size_t)(equals - text), ret);
    } else {
        ret->kind = TEXT_NONSENSE;
    }
    return true;
}

/* ---- extent lines ---------------------------------------------------------------------------- */

static bool parse_decimal(const char *text, struct text_span s, uint64_t *ret)
{
    uint64_t value = 0;
    for (size_t i = 0; i < s.len; i++) {
        char c = text[s.at + i];
        if (c < '0' || c > '9' || ckd_mul(&value, value, 10u) ||
            ckd_add(&value, value, (unsigned)(c - '0')))
            return false;
    }
    *ret = value;
    return s.len > 0 && value <= VMDK_MAX_SECTORS;
}

/* A string that ends where its span does: what follows is never part of another. */
static const char *cut(char *text, struct text_span s)
{
    text[s.at + s.len] = 0;
    return text + s.at;
}

/* Takes the numbers first: cutting a string puts a NUL behind it. */
static bool parse_extent(char *text, const struct text_line *l, struct descriptor_extent *e)
{
    *e = (struct descriptor_extent){
        .access = (enum access)word_of(text, l->access, access_words, 3),
        .type = (enum extent_type)word_of(text, l->type, type_words, TYPE_OTHER),
    };
    bool fine = parse_decimal(text, l->sectors, &e->sectors) && l->type.len > 0;
    if (fine && e->type != TYPE_ZERO) {
        fine =
            l->file.len > 0 && (l->offset.len == 0 || parse_decimal(text, l->offset, &e->offset));
        for (size_t i = 0; i < l->file.len; i++)
            fine = fine && !iscntrl((unsigned char)text[l->file.at + i]);
    }
    if (!fine)
        return false;
    e->word = cut(text, l->type);
    if (e->type != TYPE_ZERO)
        e->file = cut(text, l->file);
    return true;
}

/* ---- lines ----------------------------------------------------------------------------------- */

/* The beginning of a line, for a sentence. */
static void quote(const char *text, const struct text_line *l, char *ret, size_t size)
{
    snprintf(ret, size, "%.*s", (int)min_u64(l->end - l->start, size - 1), text + l->start);
    for (char *c = ret; *c; c++)
        if (!isprint((unsigned char)*c))
            *c = '?';
}

static int parse_line(struct descriptor *d, const char *name, const struct text_line *l,
                      struct platter_error *err)
{
    char quoted[80];
    quote(d->words, l, quoted, sizeof quoted);
    switch (l->kind) {
    case TEXT_BLANK:
        return 0;
    case TEXT_KEY:
        d->lines[d->n_lines++] = (struct descriptor_line){
            .key = cut(d->words, l->key), .value = cut(d->words, l->value), .pos = l->value.at};
        return 0;
    case TEXT_EXTENT:
        if (d->n_extents == d->max_extents)
            return fail(err, PLATTER_ECORRUPT, "%s: the descriptor has more than %d extents", name,
                        VMDK_MAX_EXTENTS);
        if (!parse_extent(d->words, l, &d->extents[d->n_extents++]))
            return fail(err, PLATTER_ECORRUPT,
                        "%s: the descriptor's extent line \"%s\" is not "
                        "ACCESS SECTORS TYPE \"FILE\" OFFSET",
                        name, quoted);
        return 0;
    case TEXT_NONSENSE:
        break;
    }
    return fail(err, PLATTER_ECORRUPT,
                "%s: the descriptor's line \"%s\" is neither a key nor an extent", name, quoted);
}

static int parse_lines(struct descriptor *d, const char *name, struct platter_error *err)
{
    int r = 0;
    struct text_line l;
    for (size_t at = text_begin(d->words, d->words_size - 1);
         r == 0 && text_line_at(d->words, d->words_size - 1, at, &l); at = l.next)
        r = parse_line(d, name, &l, err);
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
