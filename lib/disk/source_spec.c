/* SPDX-License-Identifier: MIT */
/*
 * The document of a source-spec. Sentences name the key that is wrong by its path ("stream.url"),
 * and never show a value: it may be a secret, or near one. For that reason the words of the JSON
 * parser, which quote the text, are not used either.
 */
#include "disk/source_spec.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A document that is read. */
struct doc {
    const char *title; /* the name of its file, or "source-spec" */
    const char *keys;  /* what else was said of the place */
    struct platter_error *err;
};

/* A part of it: where it stands, with the dot behind, and what it is. */
struct part {
    const struct doc *doc;
    char path[64];
    const json_t *object;
};

static int wrong(const struct part *part, int code, const char *key, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static int wrong(const struct part *part, int code, const char *key, const char *format, ...)
{
    char text[768];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (key)
        return fail(part->doc->err, code, "%s: %s%s: %s", part->doc->title, part->path, key, text);
    return fail(part->doc->err, code, "%s: %s%s%s", part->doc->title, part->path,
                *part->path ? " " : "", text);
}

/* ---- values ------------------------------------------------------------------------------------
 */

static const char *kind_of(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a number with a fraction";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    case JSON_NULL:
        break;
    }
    return "null";
}

static int wrong_kind(const struct part *part, const char *key, const char *wanted)
{
    return wrong(part, EINVAL, key, "must be %s, not %s", wanted,
                 kind_of(json_object_get(part->object, key)));
}

/* A key that may be there: NULL if it is not. */
static int get_string(const struct part *part, const char *key, const char **ret)
{
    const json_t *value = json_object_get(part->object, key);
    *ret = json_string_value(value);
    if (value && !*ret)
        return wrong_kind(part, key, "a string");
    return *ret && !**ret ? wrong(part, EINVAL, key, "is empty") : 0;
}

static int need_string(const struct part *part, const char *key, const char **ret)
{
    int r = get_string(part, key, ret);
    return r < 0 || *ret ? r : wrong(part, EINVAL, key, "is missing");
}

static int get_object(const struct part *part, const char *key, struct part *ret)
{
    *ret = (struct part){.doc = part->doc, .object = json_object_get(part->object, key)};
    if (snprintf(ret->path, sizeof ret->path, "%s%s.", part->path, key) >= (int)sizeof ret->path)
        return wrong(part, EINVAL, key, "stands too deep");
    if (!ret->object)
        return wrong(part, EINVAL, key, "is missing");
    return json_is_object(ret->object) ? 0 : wrong_kind(part, key, "an object");
}

static bool is_one_of(const char *key, const char *const *words)
{
    for (; *words; words++)
        if (strcmp(*words, key) == 0)
            return true;
    return false;
}

/* Every key is one of these. */
static int check_keys(const struct part *part, const char *const *known)
{
    char list[256] = "";
    const char *key;
    json_t *value;
    for (const char *const *k = known; *k; k++) {
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", used ? ", " : "", *k);
    }
    json_object_foreach ((json_t *)(uintptr_t)part->object, key, value) {
        (void)value;
        if (!is_one_of(key, known))
            return wrong(part, EINVAL, key, "is not known; what may stand here is %s", list);
    }
    return 0;
}

/* ---- keys of places ----------------------------------------------------------------------------
 */

static const struct option_def *find_key(const struct place_kind *kind, const char *key)
{
    const struct option_def *def = kind->keys;
    while (def->name && strcmp(def->name, key) != 0)
        def++;
    return def->name ? def : NULL;
}

static int unknown_key(const struct part *part, const struct place_kind *kind, const char *key)
{
    char known[512] = "type";
    for (const struct option_def *def = kind->keys; def->name; def++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, ", %s", def->name);
    }
    return wrong(part, EINVAL, key, "is not known; what may stand here is %s", known);
}

/* A list of strings is that of lines. */
static int join_lines(const struct part *part, const char *key, const json_t *list, char **ret)
{
    const json_t *line;
    size_t i;
    if (!(*ret = string_copy("")))
        return fail_memory(part->doc->err, "a source-spec");
    json_array_foreach (list, i, line) {
        const char *text = json_string_value(line);
        if (!text || strpbrk(text, "\r\n"))
            return wrong(part, EINVAL, key, "must be an array of strings of one line each");
        char *more = string_format("%s%s%s", *ret, i ? "\n" : "", text);
        free(*ret);
        if (!(*ret = more))
            return fail_memory(part->doc->err, "a source-spec");
    }
    return 0;
}

static int text_of_number(const struct part *part, const char *key, const json_t *value, char **ret)
{
    if (json_integer_value(value) < 0)
        return wrong(part, EINVAL, key, "must not be negative");
    *ret = string_format("%" JSON_INTEGER_FORMAT, json_integer_value(value));
    return *ret ? 0 : fail_memory(part->doc->err, "a source-spec");
}

/* A value as options_parse() has it; the kind of each is that of its key. */
static int text_of(const struct part *part, const struct option_def *def, const json_t *value,
                   char **ret)
{
    static const char *const wanted[] = {[OPTION_BOOL] = "true or false",
                                         [OPTION_SIZE] = "an integer, or a string such as \"1M\"",
                                         [OPTION_NUMBER] = "an integer, or a string of digits",
                                         [OPTION_ENUM] = "a string",
                                         [OPTION_STRING] = "a string"};
    const char *key = def->name;
    bool number = def->type == OPTION_SIZE || def->type == OPTION_NUMBER;
    if (number && json_is_integer(value))
        return text_of_number(part, key, value, ret);
    if (def->type == OPTION_STRING && json_is_array(value))
        return join_lines(part, key, value, ret);
    if (def->type == OPTION_BOOL ? !json_is_boolean(value) : !json_is_string(value))
        return wrong_kind(part, key, wanted[def->type]);
    const char *text =
        json_is_boolean(value) ? (json_is_true(value) ? "on" : "off") : json_string_value(value);
    *ret = string_copy(text);
    return *ret ? 0 : fail_memory(part->doc->err, "a source-spec");
}

/* What is expected, where options_parse() would also show what there is. */
static int wrong_value(const struct part *part, const struct option_def *def)
{
    char known[256] = "";
    for (const char *const *v = def->values; v && *v; v++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", used ? ", " : "", *v);
    }
    if (def->values)
        return wrong(part, EINVAL, def->name, "must be one of: %s", known);
    return wrong(part, EINVAL, def->name, "must be %s, from %" PRIu64 " to %" PRIu64,
                 def->type == OPTION_SIZE ? "a number of bytes, or a string such as \"1M\""
                                          : "a number",
                 def->min, def->max);
}

/* The values are secrets for all that is known. */
static void forget(char *text)
{
    if (text)
        explicit_bzero(text, strlen(text));
    free(text);
}

static int add_key(const struct part *part, const struct place_kind *kind, const char *key,
                   const json_t *value, char **keys)
{
    const struct option_def *def = find_key(kind, key);
    char *text = NULL;
    struct option_values *values = NULL;
    if (!def)
        return unknown_key(part, kind, key);
    int r = text_of(part, def, value, &text);
    /* Alone, so that what is wrong with it is told with its path. */
    char *alone = NULL;
    if (r == 0 && def->type != OPTION_STRING) {
        r = option_text(&alone, key, text, part->doc->err);
        if (r == 0)
            r = options_parse(kind->keys, alone, &values, part->doc->err);
        if (r < 0 && r != -ENOMEM)
            r = wrong_value(part, def);
        options_free(values);
    }
    if (r == 0)
        r = option_text(keys, key, text, part->doc->err);
    forget(alone);
    forget(text);
    return r;
}

/* The place that the keys of an object say, but for those that are the document's own. */
static int read_place(const struct part *part, const struct place_kind *kind,
                      const char *const *own, const char *more, struct place *ret)
{
    const char *key;
    json_t *value;
    char *keys = NULL;
    int r = 0;
    json_object_foreach ((json_t *)(uintptr_t)part->object, key, value) {
        if (r == 0 && !is_one_of(key, own))
            r = add_key(part, kind, key, value, &keys);
    }
    if (r == 0 && kind->needs && !json_object_get(part->object, kind->needs))
        r = wrong(part, EINVAL, kind->needs, "is missing");
    if (r == 0) {
        r = place_of_keys(kind->name, keys, more, ret, part->doc->err);
        if (r < 0)
            fail_in(part->doc->err, r, "%s", part->doc->title);
    }
    forget(keys);
    return r;
}

/* ---- streams -----------------------------------------------------------------------------------
 */

static int unknown_stream(const struct part *part, const char *type)
{
    char known[256] = "";
    struct place none;
    struct platter_error why = {0};
    /* Of what this build was made without, a better sentence. */
    if (place_of_keys(type, NULL, NULL, &none, &why) == -ENOTSUP)
        return wrong(part, ENOTSUP, "type", "%s", why.message);
    for (const struct place_kind *const *k = place_kinds; *k; k++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", used ? ", " : "", (*k)->name);
    }
    return wrong(part, ENOSYS, "type", "no stream is called so; there are %s", known);
}

static int read_stream(const struct part *of, const char *more, struct place *ret)
{
    static const char *const own[] = {"type", NULL};
    struct part part;
    const char *type = NULL;
    int r = get_object(of, "stream", &part);
    if (r == 0)
        r = need_string(&part, "type", &type);
    if (r < 0)
        return r;
    const struct place_kind *kind = place_kind_find(type);
    return kind ? read_place(&part, kind, own, more, ret) : unknown_stream(&part, type);
}

/* ---- formats -----------------------------------------------------------------------------------
 */

static const char *const native_keys[] = {"type", NULL};
static const char *const raw_keys[] = {"type", "stream", "snapshots", "compressed", NULL};
static const char *const state_keys[] = {"type", "stream", "name", NULL};
static const char *const vma_keys[] = {"type", "stream", "device", NULL};
static const char *const other_keys[] = {"type", "stream", "view", NULL};

static char *random_name(void)
{
    uint8_t b[16];
    if (getentropy(b, sizeof b) < 0)
        return NULL;
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40); /* a UUID of version 4: RFC 9562 */
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    return string_format("%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
                         b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11],
                         b[12], b[13], b[14], b[15]);
}

static int check_name(const struct part *part, const struct source *s, const char *name)
{
    for (unsigned i = 0; name && i < s->n_states; i++)
        if (strcmp(s->states[i].name, name) == 0)
            return wrong(part, EINVAL, "name", "is that of snapshots[%u] as well", i);
    return 0;
}

static int read_state(const struct part *part, struct source *ret)
{
    const char *type, *name = NULL;
    int r = check_keys(part, state_keys);
    if (r == 0)
        r = need_string(part, "type", &type);
    if (r == 0 && strcmp(type, "raw") != 0)
        r = wrong(part, EINVAL, "type",
                  "must be \"raw\": no other format may stand in a list of "
                  "snapshots");
    if (r == 0)
        r = get_string(part, "name", &name);
    if (r == 0)
        r = check_name(part, ret, name);
    struct source_state *state = &ret->states[ret->n_states];
    if (r == 0)
        r = read_stream(part, NULL, &state->place);
    if (r < 0)
        return r;
    ret->n_states++;
    state->name = name ? string_copy(name) : random_name();
    return state->name ? 0 : fail_memory(part->doc->err, "a source-spec");
}

static int read_states(const struct part *of, struct source *ret)
{
    const json_t *list = json_object_get(of->object, "snapshots"), *state;
    size_t i;
    int r = 0;
    if (!list)
        return 0;
    if (!json_is_array(list))
        return wrong_kind(of, "snapshots", "an array");
    if (json_array_size(list) > SPEC_MOST_SNAPSHOTS)
        return wrong(of, EINVAL, "snapshots", "has %zu of them; %d is the most that is allowed",
                     json_array_size(list), SPEC_MOST_SNAPSHOTS);
    ret->states = calloc(json_array_size(list) + 1, sizeof *ret->states);
    if (!ret->states)
        return fail_memory(of->doc->err, "a source-spec");
    json_array_foreach (list, i, state) {
        struct part part = {.doc = of->doc, .object = state};
        snprintf(part.path, sizeof part.path, "snapshots[%zu].", i);
        if (r == 0 && !json_is_object(state))
            r = wrong(of, EINVAL, NULL, "snapshots[%zu]: must be an object, not %s", i,
                      kind_of(state));
        if (r == 0)
            r = read_state(&part, ret);
    }
    return r;
}

static int read_raw(const struct part *part, struct source *ret)
{
    const json_t *unpack = json_object_get(part->object, "compressed");
    int r = check_keys(part, raw_keys);
    if (r == 0 && unpack && !json_is_boolean(unpack))
        r = wrong_kind(part, "compressed", "true or false");
    ret->unpack = json_is_true(unpack);
    if (r == 0)
        r = read_stream(part, part->doc->keys, &ret->place);
    return r < 0 ? r : read_states(part, ret);
}

/* An image in a Ceph cluster: the format is the stream. */
static int read_native(const struct part *part, struct source *ret)
{
    const struct place_kind *kind = place_kind_find("rbd");
    struct place none;
    struct platter_error why = {0};
    if (json_object_get(part->object, "stream"))
        return wrong(part, EINVAL, "stream",
                     "must not be given for type native, which reads an "
                     "image of a Ceph cluster itself");
    if (!kind) {
        place_of_keys("rbd", NULL, NULL, &none, &why);
        return wrong(part, ENOTSUP, "type", "%s", why.message);
    }
    ret->format = "raw";
    return read_place(part, kind, native_keys, part->doc->keys, &ret->place);
}

/* A view, under the key that it has in this format. */
static int read_view(const struct part *part, const char *key, struct source *ret)
{
    const char *view;
    int r = get_string(part, key, &view);
    if (r < 0 || !view)
        return r;
    if (ret->view)
        return wrong(part, EINVAL, key, "names a view, and one is given with the name as well");
    ret->view = string_copy(view);
    return ret->view ? 0 : fail_memory(part->doc->err, "a source-spec");
}

static int unknown_format(const struct part *part, const char *type)
{
    char known[256] = "native";
    if (place_kind_find(type))
        return wrong(part, ENOSYS, "type",
                     "\"%s\" is a stream, which stands inside of a format: {\"type\": \"raw\", "
                     "\"stream\": {\"type\": \"%s\", ...}}",
                     type, type);
    for (const struct format *const *f = formats; *f; f++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, ", %s", (*f)->name);
    }
    return wrong(part, ENOSYS, "type", "no format is called so; there are %s", known);
}

static int read_image(const struct part *part, const char *type, struct source *ret)
{
    const struct format *format = format_find(type);
    if (!format)
        return unknown_format(part, type);
    if (format == &format_raw) {
        ret->format = "raw";
        return read_raw(part, ret);
    }
    /* Ceph's "qcow" is any version. */
    ret->qcow = strcmp(type, "qcow") == 0;
    ret->format = ret->qcow ? NULL : format->name;
    int r = check_keys(part, format->archive ? vma_keys : other_keys);
    if (r == 0)
        r = read_view(part, format->archive ? "device" : "view", ret);
    return r < 0 ? r : read_stream(part, part->doc->keys, &ret->place);
}

static int read_document(const struct doc *doc, const json_t *root, struct source *ret)
{
    struct part part = {.doc = doc, .object = root};
    const char *type;
    json_t *other = NULL;
    int r = 0;
    if (!json_is_object(root))
        return wrong(&part, EINVAL, NULL, "must be an object, not %s", kind_of(root));
    if (!json_object_get(root, "type"))
        r = source_of_qemu(root, doc->title, &other, doc->err);
    if (other)
        part.object = other;
    if (r == 0)
        r = need_string(&part, "type", &type);
    if (r == 0)
        r = strcmp(type, "native") == 0 ? read_native(&part, ret) : read_image(&part, type, ret);
    json_decref(other);
    return r;
}

/* ---- text --------------------------------------------------------------------------------------
 */

static int fail_json(const struct doc *doc, const json_error_t *where)
{
    static const struct {
        int code;
        const char *what;
    } told[] = {{json_error_premature_end_of_input, "ends too early"},
                {json_error_duplicate_key, "has a key twice"},
                {json_error_invalid_utf8, "is not UTF-8"},
                {json_error_null_character, "has a NUL character"},
                {json_error_null_byte_in_key, "has a NUL character"},
                {json_error_stack_overflow, "is nested too deep"},
                {json_error_numeric_overflow, "has a number that is too large"},
                {json_error_out_of_memory, "does not fit into memory"}};
    const char *what = "is no JSON";
    for (size_t i = 0; i < sizeof told / sizeof *told; i++)
        if ((int)json_error_code(where) == told[i].code)
            what = told[i].what;
    return fail(doc->err, EBADMSG, "%s: %s (line %d, column %d)", doc->title, what, where->line,
                where->column);
}

/* What follows the document: a view, or nothing. */
static int take_rest(const struct doc *doc, const char *rest, struct source *ret)
{
    if (!*rest)
        return 0;
    if (rest[0] != '@' || !rest[1])
        return fail(doc->err, EBADMSG, "%s: something follows the JSON, which is not @VIEW",
                    doc->title);
    ret->view = string_copy(rest + 1);
    return ret->view ? 0 : fail_memory(doc->err, "the name of a view");
}

/* `len` bytes; `view`: one may follow. */
static int parse_text(const struct doc *doc, const char *text, size_t len, bool view,
                      struct source *ret)
{
    json_error_t where;
    size_t flags = JSON_REJECT_DUPLICATES | (view ? JSON_DISABLE_EOF_CHECK : 0);
    if (len > SPEC_MOST_BYTES)
        return fail(doc->err, EFBIG, "%s: has more than the %d bytes that are allowed", doc->title,
                    SPEC_MOST_BYTES);
    json_t *root = json_loadb(text, len, flags, &where);
    if (!root)
        return fail_json(doc, &where);
    int r = view ? take_rest(doc, text + where.position, ret) : 0;
    if (r == 0)
        r = read_document(doc, root, ret);
    json_decref(root);
    return r;
}

/* ---- files -------------------------------------------------------------------------------------
 */

static int read_file(const struct doc *doc, FILE *f, struct source *ret)
{
    char *text = calloc(1, SPEC_MOST_BYTES + 2);
    if (!text)
        return fail_memory(doc->err, "a source-spec");
    size_t n = fread(text, 1, SPEC_MOST_BYTES + 1, f);
    int r = ferror(f) ? fail_errno(doc->err, errno, "%s: cannot read", doc->title)
                      : parse_text(doc, text, n, false, ret);
    explicit_bzero(text, n);
    free(text);
    return r;
}

/* FILE, or FILE@VIEW where no file has that name. */
static int parse_file(struct doc *doc, const char *name, struct source *ret)
{
    const char *at = access(name, F_OK) < 0 ? strrchr(name, '@') : NULL;
    auto_free char *path =
        at && at > name ? string_format("%.*s", (int)(at - name), name) : string_copy(name);
    if (!path)
        return fail_memory(doc->err, "a file name");
    bool input = strcmp(path, "-") == 0;
    FILE *f = input ? stdin : fopen(path, "re");
    doc->title = input ? "source-spec on standard input" : path;
    if (!f && (!*path || strpbrk(path, "{[\""))) /* it may be a document, which is not shown */
        return fail(doc->err, EBADMSG,
                    "source-spec: what follows \"json:\" is neither a document, which begins with "
                    "{, nor the name of a file that is there");
    if (!f)
        return fail_errno(doc->err, errno, "%s: cannot open this source-spec", path);
    int r = at && at > name ? take_rest(doc, at, ret) : 0;
    if (r == 0)
        r = read_file(doc, f, ret);
    if (!input)
        fclose(f);
    return r;
}

int spec_parse(const char *name, const char *keys, struct source *ret, struct platter_error *err)
{
    struct doc doc = {.title = "source-spec", .keys = keys, .err = err};
    const char *text = strncmp(name, "json:", 5) == 0 ? name + 5 : name;
    ret->spec = true;
    return text[strspn(text, " \t\r\n")] == '{' ? parse_text(&doc, text, strlen(text), true, ret)
                                                : parse_file(&doc, text, ret);
}
