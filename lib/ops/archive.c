/* SPDX-License-Identifier: MIT */
/* Opening an archive, and what is known from its beginning. */
#include "ops/archive.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "disk/source.h"

enum {
    MEMORY = 64 << 20, /* bytes of tables and buffers, where nobody says otherwise */
    UUID = 16
};

/* The kinds of faults have the same numbers in both headers. */
_Static_assert((int)ARCHIVE_FAULT_HEADER == (int)PLATTER_FAULT_HEADER &&
                   (int)ARCHIVE_FAULT_EXTENT == (int)PLATTER_FAULT_EXTENT &&
                   (int)ARCHIVE_FAULT_TRUNCATED == (int)PLATTER_FAULT_TRUNCATED &&
                   (int)ARCHIVE_FAULT_TRAILING == (int)PLATTER_FAULT_TRAILING &&
                   (int)ARCHIVE_FAULT_LOST == (int)PLATTER_FAULT_LOST &&
                   (int)ARCHIVE_FAULT_UNKNOWN == (int)PLATTER_FAULT_UNKNOWN &&
                   (int)ARCHIVE_FAULT_DUPLICATE == (int)PLATTER_FAULT_DUPLICATE &&
                   (int)ARCHIVE_FAULT_BEYOND == (int)PLATTER_FAULT_BEYOND &&
                   (int)ARCHIVE_FAULT_ORDER == (int)PLATTER_FAULT_ORDER &&
                   (int)ARCHIVE_FAULT_MISSING == (int)PLATTER_FAULT_MISSING &&
                   (int)ARCHIVE_FAULT_DIGEST == (int)PLATTER_FAULT_DIGEST &&
                   (int)ARCHIVE_FAULT_WRAPPER == (int)PLATTER_FAULT_WRAPPER &&
                   (int)ARCHIVE_FAULT_NOTE == (int)PLATTER_FAULT_NOTE &&
                   (int)ARCHIVE_FAULT_DOUBT == (int)PLATTER_FAULT_DOUBT &&
                   (int)ARCHIVE_FAULT_UNREADABLE == (int)PLATTER_FAULT_UNREADABLE,
               "kinds of faults");

/* ---- faults ------------------------------------------------------------------------------------
 */

void archive_tell(struct platter_archive *a, const struct archive_fault *fault)
{
    const struct platter_fault f = {.size = sizeof f,
                                    .kind = (enum platter_fault_kind)fault->kind,
                                    .archive_offset = fault->off,
                                    .disk = fault->disk ? fault->disk->name : NULL,
                                    .offset = fault->start,
                                    .length = fault->len,
                                    .text = fault->text,
                                    .archive_length = fault->span};
    WITH_LOCK(&a->lock);
    a->faults += fault->kind != ARCHIVE_FAULT_NOTE;
    if (a->watch)
        a->watch(a->watch_opaque, fault);
    if (a->fault)
        a->fault(a->opaque, &f);
}

static void tell(void *opaque, const struct archive_fault *fault)
{
    archive_tell(opaque, fault);
}

/* ---- what it is --------------------------------------------------------------------------------
 */

static int hex_digit(char c)
{
    const char *digits = "0123456789abcdef", *at = c ? strchr(digits, c | 0x20) : NULL;
    return at ? (int)(at - digits) : -1;
}

/* 32 digits, with dashes between them or without. */
static int parse_uuid(const char *text, uint8_t ret[UUID], struct platter_error *err)
{
    unsigned n = 0;
    for (const char *c = text; *c; c++) {
        int digit = hex_digit(*c);
        if (*c == '-' && n % 2 == 0)
            continue;
        if (digit < 0 || n == 2 * UUID)
            return fail(err, EINVAL, "%s is no uuid", text);
        ret[n / 2] = (uint8_t)(ret[n / 2] << 4 | digit);
        n++;
    }
    return n == 2 * UUID ? 0 : fail(err, EINVAL, "%s is no uuid: it has 32 digits", text);
}

static int find_format(struct stream *s, const struct format **ret, struct platter_error *err)
{
    auto_free uint8_t *prefix = malloc(STREAM_MOST_PEEK);
    size_t len = 0;

    if (!prefix)
        return fail_memory(err, "the beginning of an archive");
    /* What stands in front of damage is enough, if it tells: reading on comes to the damage again.
     */
    int r = stream_peek(s, prefix, STREAM_MOST_PEEK, &len, err);
    for (const struct format *const *f = formats; len && *f; f++)
        if ((*f)->archive && (*f)->probe && (*f)->probe(prefix, len, UINT64_MAX) != PROBE_NO) {
            *ret = *f;
            return 0;
        }
    return r < 0 ? r : fail(err, PLATTER_ENOFORMAT, "%s: is no archive that is known", s->name);
}

/* Where it comes from, and what it is. */
struct origin {
    struct stream *stream;
    enum wrapper wrapper;
    const struct format *format;
};

static int choose_format(const struct platter_archive *a, const char *name, struct origin *s,
                         struct platter_error *err)
{
    s->format = name ? format_find(name) : NULL;
    if (name && (!s->format || !s->format->archive))
        return fail(err, EINVAL, "%s is no format of archives; there is vma", name);
    if (s->format)
        return 0;
    int r = find_format(s->stream, &s->format, err);
    /* What has lost its beginning is taken for what there is; so is what cannot be read there,
     * which the reader will meet again, as it will any other trouble. */
    if (r < 0 && a->flags & PLATTER_ARCHIVE_SALVAGE) {
        s->format = &format_vma;
        return 0;
    }
    return r;
}

static int open_source(const struct platter_archive *a, const char *format, struct origin *ret,
                       struct platter_error *err)
{
    struct stream *s;
    int r = source_stream(a->name, a->place, &s, err);
    if (r == 0)
        r = stream_unwrap(s, a->budget, &ret->stream, &ret->wrapper, err);
    return r < 0 ? r : choose_format(a, format, ret, err);
}

/* ---- disks that no beginning tells of ----------------------------------------------------------
 */

/* Reads all of it, and notes how long each disk is as far as it is there. */
static int find_disks(struct archive_reader *reader, struct budget *budget,
                      struct archive_listing *ret, struct platter_error *err)
{
    struct archive_batch batch = {0};
    struct archive_disk *disks;

    int r = budget_alloc(budget, reader->batch_bytes, "parts of an archive", &batch.room, err);
    while (r == 0 && (r = reader->ops->next(reader, &batch, err)) > 0)
        r = 0;
    budget_free(budget, batch.room, reader->batch_bytes);
    if (r < 0)
        return r;
    disks = calloc(reader->listing.n_disks + 1, sizeof *disks);
    if (!disks)
        return fail_memory(err, "the disks of an archive");
    for (unsigned i = 0; i < reader->listing.n_disks; i++) {
        disks[i] = reader->listing.disks[i];
        disks[i].name = NULL; /* the reader's */
        disks[i].size = reader->ops->have(reader, &reader->listing.disks[i]);
    }
    ret->disks = disks;
    ret->n_disks = reader->listing.n_disks;
    return 0;
}

/* An archive whose beginning is lost is looked through, where it can be read twice. */
static int look_through(const struct platter_archive *a, const char *format,
                        const struct archive_request *request, struct archive_listing *ret,
                        struct platter_error *err)
{
    struct archive_request quiet = *request;
    struct archive_reader *reader = NULL;
    struct origin s = {0};
    struct stat st;

    if (strcmp(a->name, "-") == 0 || stat(a->name, &st) < 0 ||
        !(S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)))
        return 0;
    quiet.fault = NULL;
    quiet.flags |= ARCHIVE_HEADERS;
    int r = open_source(a, format, &s, err);
    quiet.stream = s.stream;
    if (r == 0)
        r = s.format->archive->reader_open(&quiet, &reader, err);
    if (r == 0 && reader->lost_header)
        r = find_disks(reader, a->budget, ret, err);
    if (reader)
        reader->ops->close(reader);
    stream_close(s.stream);
    return r;
}

/* ---- open --------------------------------------------------------------------------------------
 */

static int open_archive(struct platter_archive *a, const struct platter_archive_options *o,
                        struct platter_error *err)
{
    uint8_t uuid[UUID];
    struct origin s = {0};
    struct archive_listing found = {0};
    struct archive_request request = {.budget = a->budget, .fault = tell, .opaque = a};

    int r = o->uuid ? parse_uuid(o->uuid, uuid, err) : 0;
    if (r < 0)
        return r;
    request.uuid = o->uuid ? uuid : NULL;
    if (a->flags & PLATTER_ARCHIVE_SALVAGE) {
        request.flags = ARCHIVE_SALVAGE;
        request.found = &found;
        r = look_through(a, o->format, &request, &found, err);
    }
    if (r == 0)
        r = open_source(a, o->format, &s, err);
    request.stream = a->stream = s.stream;
    a->wrapper = s.wrapper;
    if (r == 0)
        r = s.format->archive->reader_open(&request, &a->reader, err);
    free((void *)(uintptr_t)found.disks);
    return r;
}

int archive_open(const char *name, const struct platter_archive_options *options,
                 struct platter_archive **ret, struct platter_error *err)
{
    struct platter_archive *a = calloc(1, sizeof *a);
    if (!a)
        return fail_memory(err, "an archive");
    pthread_mutex_init(&a->lock, NULL);
    a->name = string_copy(name);
    a->place = string_copy(options->place);
    a->budget = budget_new(options->memory_limit ? options->memory_limit : MEMORY);
    a->flags = options->flags;
    a->fault = options->fault;
    a->opaque = options->opaque;
    int r =
        a->name && a->budget && (a->place || !options->place) ? 0 : fail_memory(err, "an archive");
    if (r == 0)
        r = open_archive(a, options, err);
    if (r < 0)
        archive_close(a);
    else
        *ret = a;
    return r;
}

void archive_close(struct platter_archive *a)
{
    if (!a)
        return;
    if (a->reader)
        a->reader->ops->close(a->reader);
    stream_close(a->stream);
    if (a->budget)
        budget_unref(a->budget);
    pthread_mutex_destroy(&a->lock);
    free(a->name);
    free(a->place);
    free(a);
}

int archive_use(struct platter_archive *a, struct platter_error *err)
{
    if (a->used)
        return fail(err, EINVAL, "%s: an archive is read once: open it again", a->stream->name);
    a->used = true;
    return 0;
}

/* ---- what is known of it -----------------------------------------------------------------------
 */

int archive_find(const struct platter_archive *a, const char *name, const struct archive_disk **ret,
                 struct platter_error *err)
{
    const struct archive_listing *l = &a->reader->listing;
    *ret = NULL;
    for (unsigned i = 0; i < l->n_disks; i++) {
        if (strcmp(l->disks[i].name, name) != 0)
            continue;
        if (*ret)
            return fail(err, EINVAL,
                        "%s: devices %u and %u have the same name, %s: salvaging tells them apart",
                        a->stream->name, (*ret)->id, l->disks[i].id, name);
        *ret = &l->disks[i];
    }
    return 0;
}

static json_t *describe_configs(const struct archive_listing *l)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < l->n_configs; i++)
        json_array_append_new(list, json_pack("{s:o, s:I}", "name", json_name(l->configs[i].name),
                                              "size", (json_int_t)l->configs[i].size));
    return list;
}

/* With what came of it, once it was read. */
static json_t *describe_disk(struct platter_archive *a, const struct archive_disk *d)
{
    json_t *o = json_pack("{s:i, s:o, s:I, s:b}", "id", (int)d->id, "name", json_name(d->name),
                          "size", (json_int_t)d->size, "vmstate", (int)d->state);
    if (o && a->used)
        json_object_set_new(o, "present",
                            json_integer((json_int_t)a->reader->ops->have(a->reader, d)));
    return o;
}

int archive_info(struct platter_archive *a, char **ret_json, struct platter_error *err)
{
    const struct archive_listing *l = &a->reader->listing;
    const char *wrapper = wrapper_name(a->wrapper);
    json_t *disks = json_array();
    char uuid[2 * UUID + 5], *out = uuid;

    for (unsigned i = 0; i < UUID; i++)
        out += sprintf(out, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", l->uuid[i]);
    for (unsigned i = 0; i < l->n_disks; i++)
        json_array_append_new(disks, describe_disk(a, &l->disks[i]));
    json_t *o =
        json_pack("{s:o, s:s, s:s?, s:s, s:I, s:o, s:o}", "filename", json_name(a->stream->name),
                  "format", l->format->name, "compression", *wrapper ? wrapper : NULL, "uuid", uuid,
                  "ctime", (json_int_t)l->ctime, "configs", describe_configs(l), "devices", disks);
    *ret_json = o ? json_dumps(o, JSON_INDENT(4)) : NULL;
    json_decref(o);
    return *ret_json ? 0 : fail_memory(err, "a description in JSON");
}

int archive_config(struct platter_archive *a, unsigned index, const char **ret_name,
                   const void **ret_bytes, size_t *ret_length, struct platter_error *err)
{
    const struct archive_listing *l = &a->reader->listing;
    if (index >= l->n_configs)
        return fail(err, ENOENT, "%s: there is no configuration %u, but %u of them, from 0 on",
                    a->stream->name, index, l->n_configs);
    *ret_name = l->configs[index].name;
    *ret_bytes = l->configs[index].bytes;
    *ret_length = l->configs[index].size;
    return 0;
}
