/* SPDX-License-Identifier: MIT */
/*
 * The text descriptor, changed: vmdk.md section 3.9.
 *
 * Works on the bytes of the text, a token at a time: all that is not asked for stays as it is.
 * Failure is sticky, like that of a cursor: changes after it do nothing, and it is reported once.
 */
#include <ctype.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>

#include "format/vmdk/vmdk.h"

struct descriptor_edit {
    struct budget *budget;
    char *name;     /* of the image, for sentences */
    char *encoding; /* value of the key, or NULL */
    char *text;     /* room bytes, len of them used */
    size_t len, room;
    const char *newline;
    size_t behind_extents; /* where one more was to be added last, if nothing happened since */
    int failed;            /* 0, or what `why` says */
    struct platter_error why;
};

/* ---- begin and end --------------------------------------------------------------------------- */

void descriptor_edit_drop(struct descriptor_edit *e)
{
    if (!e)
        return;
    budget_free(e->budget, e->text, e->room);
    free(e->name);
    free(e->encoding);
    free(e);
}

int descriptor_edit_result(const struct descriptor_edit *e, const char **ret_text, size_t *ret_len,
                           struct platter_error *err)
{
    *ret_text = e->text;
    *ret_len = e->len;
    if (e->failed < 0 && err)
        *err = e->why;
    return e->failed;
}

static struct text_span span_between(size_t from, size_t to)
{
    return (struct text_span){from, to - from};
}

static bool is_key(const struct descriptor_edit *e, const struct text_line *l, const char *key)
{
    return l->kind == TEXT_KEY && l->key.len == strlen(key) &&
           strncasecmp(e->text + l->key.at, key, l->key.len) == 0;
}

static size_t first_line(const struct descriptor_edit *e)
{
    return text_begin(e->text, e->len);
}

static bool find_key(const struct descriptor_edit *e, const char *key, struct text_line *ret)
{
    for (size_t at = first_line(e); text_line_at(e->text, e->len, at, ret); at = ret->next)
        if (is_key(e, ret, key))
            return true;
    return false;
}

/* What ends lines in this text, and which encoding it has. */
static int examine(struct descriptor_edit *e, struct platter_error *err)
{
    const char *end = memchr(e->text, '\n', e->len);
    e->newline = end && end > e->text && end[-1] == '\r' ? "\r\n" : "\n";
    struct text_line l;
    if (!find_key(e, "encoding", &l))
        return 0;
    e->encoding = string_format("%.*s", (int)l.value.len, e->text + l.value.at);
    return e->encoding ? 0 : fail_memory(err, "a VMDK descriptor");
}

int descriptor_edit_text(struct budget *budget, const char *name, const void *text, size_t len,
                         struct descriptor_edit **ret, struct platter_error *err)
{
    struct descriptor_edit *e = calloc(1, sizeof *e);
    if (!e)
        return fail_memory(err, "a VMDK descriptor");
    e->budget = budget;
    e->len = strnlen(text, len);
    e->room = e->len + 1024;
    e->name = string_copy(name);
    int r = e->name ? budget_alloc(budget, e->room, "a VMDK descriptor", &e->text, err)
                    : fail_memory(err, "a VMDK descriptor");
    if (r == 0) {
        memcpy(e->text, text, e->len);
        r = examine(e, err);
    }
    if (r < 0) {
        descriptor_edit_drop(e);
        return r;
    }
    *ret = e;
    return 0;
}

int descriptor_edit_begin(struct image *img, struct descriptor_edit **ret,
                          struct platter_error *err)
{
    const struct vmdk *v = vmdk_of(img);
    if (v->bare)
        return fail(err, ENOTSUP, "%s: one extent of a disk, which has no descriptor to change",
                    img->stream->name);
    char *text;
    int r = budget_alloc(img->budget, v->descriptor_len, "a VMDK descriptor", &text, err);
    if (r < 0)
        return r;
    r = stream_pread(img->stream, text, (size_t)v->descriptor_len, v->descriptor_off, err);
    if (r == 0)
        r = descriptor_edit_text(img->budget, img->stream->name, text, (size_t)v->descriptor_len,
                                 ret, err);
    budget_free(img->budget, text, v->descriptor_len);
    return r;
}

/* ---- bytes ----------------------------------------------------------------------------------- */

static bool make_room(struct descriptor_edit *e, size_t len)
{
    if (len > VMDK_MAX_DESCRIPTOR)
        e->failed = fail(&e->why, E2BIG, "%s: its descriptor would be longer than %d bytes",
                         e->name, VMDK_MAX_DESCRIPTOR);
    if (e->failed < 0 || len <= e->room)
        return e->failed == 0;
    char *text;
    size_t room = 2 * len;
    e->failed = budget_alloc(e->budget, room, "a VMDK descriptor", &text, &e->why);
    if (e->failed < 0)
        return false;
    memcpy(text, e->text, e->len);
    budget_free(e->budget, e->text, e->room);
    e->text = text;
    e->room = room;
    return true;
}

/* Puts `with` in the place of a span. */
static void splice(struct descriptor_edit *e, struct text_span s, const char *with)
{
    size_t n = strlen(with), behind = s.at + s.len;
    if (e->failed < 0 || !make_room(e, e->len - s.len + n))
        return;
    memmove(e->text + s.at + n, e->text + behind, e->len - behind);
    memcpy(e->text + s.at, with, n);
    e->len = e->len - s.len + n;
    e->behind_extents = 0;
}

/* A line of its own at `at`, where one begins or the text ends. */
static void insert_line(struct descriptor_edit *e, size_t at, const char *line)
{
    bool open = at > first_line(e) && at >= e->len && e->text[e->len - 1] != '\n';
    at = min_u64(at, e->len);
    auto_free char *whole =
        line ? string_format("%s%s%s", open ? e->newline : "", line, e->newline) : NULL;
    if (whole)
        splice(e, span_between(at, at), whole);
    else if (e->failed == 0)
        e->failed = fail_memory(&e->why, "a VMDK descriptor");
}

static void remove_line(struct descriptor_edit *e, const struct text_line *l, size_t from)
{
    splice(e, span_between(from, min_u64(l->next, e->len)), "");
}

/* ---- keys ------------------------------------------------------------------------------------ */

/* The text as it is stored; NULL, and failed: it cannot be. */
static char *stored(struct descriptor_edit *e, const char *what, const char *text)
{
    char *ret = NULL;
    if (e->failed < 0)
        return NULL;
    for (const char *c = text; *c && e->failed == 0; c++)
        if (*c == '"' || iscntrl((unsigned char)*c))
            e->failed = fail(&e->why, EINVAL,
                             "%s: %s \"%s\" has a quote or a control character, which a VMDK "
                             "descriptor cannot hold",
                             e->name, what, text);
    if (e->failed == 0 && (e->failed = encoding_encode(e->encoding, text, &ret, &e->why)) < 0)
        fail_in(&e->why, e->failed, "%s", e->name);
    return ret;
}

static bool is_ddb(const char *key)
{
    return strncasecmp(key, "ddb.", 4) == 0;
}

/* These stand without quotes: section 3.3. */
static bool is_bare_key(const char *key)
{
    static const char *const keys[] = {"version", "CID", "parentCID"};
    for (unsigned i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcasecmp(key, keys[i]) == 0)
            return true;
    return false;
}

/* Where a new key goes: behind the last of its like, header keys in front of the extents. CID must
 * precede parentCID, for readers that search for "CID". */
static size_t place_of_new(const struct descriptor_edit *e, const char *key)
{
    struct text_line l;
    size_t last = first_line(e), behind_last = 0;
    for (size_t at = last; text_line_at(e->text, e->len, at, &l); at = l.next) {
        if (!is_ddb(key) && strcasecmp(key, "CID") == 0 && is_key(e, &l, "parentCID"))
            return at;
        if (!is_ddb(key) && l.kind == TEXT_EXTENT)
            return behind_last ? behind_last : at;
        if (l.kind == TEXT_KEY)
            behind_last = l.next;
        last = l.next;
    }
    return is_ddb(key) || !behind_last ? last : behind_last;
}

void descriptor_edit_set(struct descriptor_edit *e, const char *key, const char *value)
{
    struct text_line l;
    auto_free char *bytes = stored(e, key, value);
    if (!bytes)
        return;
    if (find_key(e, key, &l)) {
        bool quote = !l.quoted && !is_bare_key(key);
        auto_free char *token = quote ? string_format("\"%s\"", bytes) : string_copy(bytes);
        if (token)
            splice(e, l.value, token);
        else
            e->failed = fail_memory(&e->why, "a VMDK descriptor");
        return;
    }
    auto_free char *line = string_format(is_ddb(key)        ? "%s = \"%s\""
                                         : is_bare_key(key) ? "%s=%s"
                                                            : "%s=\"%s\"",
                                         key, bytes);
    insert_line(e, place_of_new(e, key), line);
}

void descriptor_edit_set_cid(struct descriptor_edit *e, const char *key, uint32_t cid)
{
    char digits[9];
    snprintf(digits, sizeof digits, "%08" PRIx32, cid);
    descriptor_edit_set(e, key, digits);
}

/* In one pass: a text may have the key in tens of thousands of lines. */
void descriptor_edit_remove(struct descriptor_edit *e, const char *key)
{
    struct text_line l;
    size_t kept = first_line(e);
    if (e->failed < 0)
        return;
    for (size_t at = kept; text_line_at(e->text, e->len, at, &l); at = l.next) {
        size_t n = is_key(e, &l, key) ? 0 : min_u64(l.next, e->len) - at;
        memmove(e->text + kept, e->text + at, n);
        kept += n;
    }
    e->len = kept;
    e->behind_extents = 0;
}

/* ---- extents --------------------------------------------------------------------------------- */

/* Finds line i of the extents, or fails; *ret_at is where it begins. */
static bool find_extent(struct descriptor_edit *e, unsigned i, struct text_line *ret,
                        size_t *ret_at)
{
    unsigned n = 0;
    for (*ret_at = first_line(e); e->failed == 0 && text_line_at(e->text, e->len, *ret_at, ret);
         *ret_at = ret->next)
        if (ret->kind == TEXT_EXTENT && n++ == i)
            return true;
    if (e->failed == 0)
        e->failed = fail(&e->why, EINVAL, "%s: its descriptor has no extent %u", e->name, i);
    return false;
}

void descriptor_edit_sectors(struct descriptor_edit *e, unsigned i, uint64_t sectors)
{
    struct text_line l;
    size_t at;
    char digits[21];
    snprintf(digits, sizeof digits, "%" PRIu64, sectors);
    if (find_extent(e, i, &l, &at))
        splice(e, l.sectors, digits);
}

void descriptor_edit_file(struct descriptor_edit *e, unsigned i, const char *file)
{
    struct text_line l;
    size_t at;
    auto_free char *bytes = stored(e, "file name", file);
    if (!bytes || !find_extent(e, i, &l, &at))
        return;
    if (l.file.at != 0)
        splice(e, l.file, bytes);
    else
        e->failed =
            fail(&e->why, EINVAL, "%s: extent %u of its descriptor has no file", e->name, i);
}

/* How QEMU wants them: the offset for FLAT and for nothing else (section 3.5). */
static char *extent_line(const struct descriptor_extent *x, const char *file)
{
    const char *access = access_words[x->access], *type = type_words[x->type];
    if (x->type == TYPE_ZERO)
        return string_format("%s %" PRIu64 " %s", access, x->sectors, type);
    if (x->type == TYPE_FLAT || x->offset != 0)
        return string_format("%s %" PRIu64 " %s \"%s\" %" PRIu64, access, x->sectors, type, file,
                             x->offset);
    return string_format("%s %" PRIu64 " %s \"%s\"", access, x->sectors, type, file);
}

/* Behind the last extent line, or where header keys end. */
static size_t place_of_extent(const struct descriptor_edit *e)
{
    struct text_line l;
    size_t behind_key = first_line(e), behind_extent = 0;
    for (size_t at = behind_key; text_line_at(e->text, e->len, at, &l); at = l.next) {
        if (l.kind == TEXT_EXTENT)
            behind_extent = l.next;
        if (l.kind == TEXT_KEY && !is_ddb(e->text + l.key.at))
            behind_key = l.next;
    }
    return behind_extent ? behind_extent : behind_key;
}

void descriptor_edit_add_extent(struct descriptor_edit *e, const struct descriptor_extent *x)
{
    auto_free char *file = stored(e, "file name", x->file ? x->file : "");
    auto_free char *line = file ? extent_line(x, file) : NULL;
    if (!file)
        return;
    size_t at = e->behind_extents ? e->behind_extents : place_of_extent(e), before = e->len;
    insert_line(e, at, line);
    e->behind_extents = min_u64(at, before) + (e->len - before);
}

void descriptor_edit_remove_extent(struct descriptor_edit *e, unsigned i)
{
    struct text_line l;
    size_t at;
    if (find_extent(e, i, &l, &at))
        remove_line(e, &l, at);
}

/* ---- storing --------------------------------------------------------------------------------- */

/* The new text must be a descriptor before it may replace one. */
static int parse_result(const struct descriptor_edit *e, struct descriptor **ret,
                        struct platter_error *err)
{
    const char *text;
    size_t len;
    int r = descriptor_edit_result(e, &text, &len, err);
    return r < 0 ? r
                 : descriptor_parse(e->budget, e->name, (const uint8_t *)text, len, true, ret, err);
}

int descriptor_edit_try(struct image *img, const struct descriptor_edit *e,
                        struct platter_error *err)
{
    struct descriptor *d = NULL;
    int r = parse_result(e, &d, err);
    if (r == 0)
        r = descriptor_fits(img, e->text, e->len, err);
    descriptor_free(d);
    return r;
}

int descriptor_edit_store(struct image *img, struct descriptor_edit *e, struct platter_error *err)
{
    struct vmdk *v = vmdk_of(img);
    struct descriptor *d = NULL;
    int r = parse_result(e, &d, err);
    if (r == 0)
        r = descriptor_write(img, e->text, e->len, err);
    if (r == 0) {
        WITH_LOCK(&img->lock);
        d->older = v->descriptor;
        v->descriptor = TAKE(d);
    }
    descriptor_free(d);
    descriptor_edit_drop(e);
    return r;
}
