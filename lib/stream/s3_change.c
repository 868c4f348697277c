/* SPDX-License-Identifier: MIT */
/* Requests that put objects to S3, whole or in parts: see s3.h. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "stream/s3.h"
#include "stream/s3_sign.h"

enum {
    MOST_ID = 1024,  /* bytes of what a server calls an upload */
    MOST_ENDS = 5,   /* times that an upload is told to be complete */
    MOST_ABORTS = 3, /* ... or to go: a part that was on its way may come after that */
    MOST_ETAG = 256
};

static struct http_request request_of(const struct s3_object *o, const struct http_hooks *hooks,
                                      const char *method, const char *url)
{
    return (struct http_request){.method = method, .url = url, .name = o->name, .hooks = hooks};
}

static const char *const no_headers[] = {NULL};
static const char *const only_new[] = {"If-None-Match: *", NULL};

static int fail_there(const struct s3_object *o, struct platter_error *err)
{
    return fail(err, EEXIST, "%s: exists already", o->name);
}

/* ---- objects -----------------------------------------------------------------------------------
 */

static bool says(const struct http_answer *a, const char *code)
{
    char said[64];
    return a->text && s3_xml_text(a->text, "Code", said, sizeof said) < sizeof said &&
           strcmp(said, code) == 0;
}

/* What tells an object from one that was there before: malloc'ed; NULL: out of memory. */
static char *version_of(const struct http_answer *a)
{
    const char *etag = http_header(&a->headers, "ETag");
    const char *date = http_header(&a->headers, "Last-Modified");
    return string_format("%s %s", etag ? etag : "", date ? date : "");
}

int s3_look(struct s3_object *o, char **ret_version, struct platter_error *err)
{
    struct http_hooks hooks = s3_object_hooks(o);
    struct http_answer a;
    char byte;
    struct http_request q = request_of(o, &hooks, "GET", o->url);
    q.ranged = true;
    q.len = 1;
    q.into = &byte;
    *ret_version = NULL;
    int r = http_send(o->server->client, &q, &a, err);
    if (r < 0)
        return r;
    unsigned status = a.headers.status;
    bool there = status == 200 || status == 206 || status == 416;
    bool absent = (status == 404 && !says(&a, "NoSuchBucket")) || says(&a, "AccessDenied");
    q.ranged = false; /* nobody wants that byte */
    if (!there && !absent)
        r = http_fail(&q, &a, "cannot be made", err);
    else if (there && !(*ret_version = version_of(&a)))
        r = fail_memory(err, "an object");
    http_answer_done(&a);
    return r;
}

int s3_put(struct s3_object *o, const void *bytes, size_t len, bool exclusive,
           const atomic_bool *stop, struct platter_error *err)
{
    struct http_hooks hooks = s3_object_hooks(o);
    struct http_answer a;
    struct http_request q = request_of(o, &hooks, "PUT", o->url);
    q.headers = exclusive ? only_new : no_headers;
    q.body = len > 0 ? bytes : "";
    q.body_len = len;
    q.stop = stop;
    int r = http_send(o->server->client, &q, &a, err);
    if (r < 0)
        return r;
    if (a.headers.status == 412 && exclusive)
        r = fail_there(o, err);
    else if (a.headers.status != 200)
        r = http_fail(&q, &a, "cannot be written", err);
    http_answer_done(&a);
    return r;
}

int s3_delete(struct s3_object *o, struct platter_error *err)
{
    struct http_hooks hooks = s3_object_hooks(o);
    struct http_answer a;
    struct http_request q = request_of(o, &hooks, "DELETE", o->url);
    int r = http_send(o->server->spare, &q, &a, err);
    if (r < 0)
        return r;
    if (a.headers.status / 100 != 2 && a.headers.status != 404)
        r = http_fail(&q, &a, "cannot be removed", err);
    http_answer_done(&a);
    return r;
}

/* ---- uploads in parts --------------------------------------------------------------------------
 */

int s3_begin(struct s3_object *o, const atomic_bool *stop, char **ret_id, struct platter_error *err)
{
    struct http_hooks hooks = s3_object_hooks(o);
    struct http_answer a;
    char id[MOST_ID];
    auto_free char *url = string_format("%s?uploads=", o->url);
    if (!url)
        return fail_memory(err, "a URL");
    struct http_request q = request_of(o, &hooks, "POST", url);
    q.stop = stop;
    int r = http_send(o->server->client, &q, &a, err);
    if (r < 0)
        return r;
    size_t len = a.text ? s3_xml_text(a.text, "UploadId", id, sizeof id) : 0;
    if (a.headers.status != 200)
        r = http_fail(&q, &a, "no upload can be begun", err);
    else if (len == 0 || len >= sizeof id)
        r = fail(err, EPROTO, "%s: the server does not say what the upload is called", o->name);
    http_answer_done(&a);
    if (r == 0) {
        *ret_id = s3_escape(id, false);
        r = *ret_id ? 0 : fail_memory(err, "an upload");
    }
    return r;
}

static int keep_etag(const struct s3_object *o, const struct http_answer *a, unsigned number,
                     char **ret, struct platter_error *err)
{
    const char *etag = http_header(&a->headers, "ETag");
    if (!etag || strlen(etag) > MOST_ETAG || strpbrk(etag, "<>&"))
        return fail(err, EPROTO, "%s: the server does not say what part %u of the upload is",
                    o->name, number);
    *ret = string_copy(etag);
    return *ret ? 0 : fail_memory(err, "an upload");
}

int s3_put_part(struct s3_object *o, const char *id, unsigned number, const void *bytes, size_t len,
                const atomic_bool *stop, char **ret_etag, struct platter_error *err)
{
    struct http_hooks hooks = s3_object_hooks(o);
    struct http_answer a;
    auto_free char *url = string_format("%s?partNumber=%u&uploadId=%s", o->url, number, id);
    if (!url)
        return fail_memory(err, "a URL");
    struct http_request q = request_of(o, &hooks, "PUT", url);
    q.body = bytes;
    q.body_len = len;
    q.stop = stop;
    int r = http_send(o->server->client, &q, &a, err);
    if (r < 0)
        return r;
    char what[64];
    snprintf(what, sizeof what, "part %u of the upload cannot be written", number);
    if (a.headers.status == 200)
        r = keep_etag(o, &a, number, ret_etag, err);
    else
        r = http_fail(&q, &a, what, err);
    http_answer_done(&a);
    return r;
}

/* ---- the end of an upload ----------------------------------------------------------------------
 */

static int list_parts(char *const *etags, unsigned n, char **ret, size_t *ret_len,
                      struct platter_error *err)
{
    FILE *f = open_memstream(ret, ret_len);
    if (!f)
        return fail_memory(err, "a list of parts");
    fputs("<CompleteMultipartUpload>", f);
    for (unsigned i = 0; i < n; i++)
        fprintf(f, "<Part><PartNumber>%u</PartNumber><ETag>%s</ETag></Part>", i + 1, etags[i]);
    fputs("</CompleteMultipartUpload>", f);
    bool failed = ferror(f) != 0;
    failed |= fclose(f) != 0;
    if (failed)
        free(TAKE(*ret));
    return failed ? fail_memory(err, "a list of parts") : 0;
}

/* What is there now, for who was told nothing, or too little. False: nobody says. */
static bool look_again(struct s3_object *o, uint64_t *ret_size, char **ret_version,
                       bool *ret_in_parts, unsigned n)
{
    struct http_hooks hooks = s3_object_hooks(o);
    struct http_answer a;
    struct http_request q = request_of(o, &hooks, "HEAD", o->url);
    char end[32];
    if (http_send(o->server->client, &q, &a, NULL) < 0)
        return false;
    const char *size = http_header(&a.headers, "Content-Length");
    const char *etag = http_header(&a.headers, "ETag");
    snprintf(end, sizeof end, "-%u\"", n);
    *ret_in_parts = etag && strstr(etag, end);
    *ret_version = version_of(&a);
    bool said =
        a.headers.status == 200 && size && http_number_parse(size, ret_size) && *ret_version;
    http_answer_done(&a);
    return said;
}

/* Whether an upload of which nobody heard that it is complete is it: the object has its size and as
 * many parts, and is another than before. */
static bool is_complete(struct s3_object *o, const struct s3_end *end)
{
    auto_free char *version = NULL;
    uint64_t size;
    bool in_parts;
    return look_again(o, &size, &version, &in_parts, end->n) && in_parts && size == end->size &&
           !(end->before && strcmp(end->before, version) == 0);
}

/* Servers that have put it together wrongly have been seen. */
static int check_size(struct s3_object *o, const struct s3_end *end, struct platter_error *err)
{
    auto_free char *version = NULL;
    uint64_t size;
    bool in_parts;
    if (look_again(o, &size, &version, &in_parts, end->n) && size != end->size)
        return fail(err, EIO,
                    "%s: the server says that the upload is complete, but the object has %" PRIu64
                    " bytes, and %" PRIu64 " were sent: do not use it, and write it again",
                    o->name, size, end->size);
    return 0;
}

/* A success may turn out as a failure when its status was sent long ago. 1: to be told again. */
static int judge_end(struct s3_object *o, const struct http_request *q, const struct http_answer *a,
                     bool exclusive, struct platter_error *err)
{
    bool fine = a->headers.status == 200 && a->text;
    if (fine && strstr(a->text, "<CompleteMultipartUploadResult"))
        return 0;
    if (a->headers.status == 412 && exclusive)
        return fail_there(o, err);
    int r = http_fail(q, a, "the upload cannot be completed", err);
    return fine && q->hooks->passes(q->hooks->opaque, a) ? 1 : r;
}

int s3_complete(struct s3_object *o, const struct s3_end *end, const atomic_bool *stop,
                struct platter_error *err)
{
    struct http_hooks hooks = s3_object_hooks(o);
    struct http_patience patience = {0};
    auto_free char *url = string_format("%s?uploadId=%s", o->url, end->id), *list = NULL;
    size_t len;
    if (!url)
        return fail_memory(err, "a URL");
    int r = list_parts(end->etags, end->n, &list, &len, err);
    if (r < 0)
        return r;
    struct http_request q = request_of(o, &hooks, "POST", url);
    q.headers = end->exclusive ? only_new : no_headers;
    q.body = list;
    q.body_len = len;
    q.patience = &patience;
    q.stop = stop;
    r = 1;
    for (unsigned tries = 0; tries < MOST_ENDS && r == 1; tries++) {
        struct http_answer a;
        r = http_send(o->server->client, &q, &a, err);
        if (r < 0)
            break;
        r = judge_end(o, &q, &a, end->exclusive, err);
        http_answer_done(&a);
    }
    if (r == 0)
        return check_size(o, end, err);
    /* One that was heard, and its answer was not, is heard no second time. */
    bool heard = r != -ECANCELED && r != -EEXIST && is_complete(o, end);
    return heard ? 0 : r == 1 ? -EIO : r;
}

/* Whether an upload is still there. */
static bool has_parts(struct s3_object *o, const struct http_hooks *hooks, const char *url)
{
    struct http_answer a;
    auto_free char *list = string_format("%s?max-parts=1&%s", o->url, strchr(url, '?') + 1);
    if (!list)
        return false;
    struct http_request q = request_of(o, hooks, "GET", list);
    if (http_send(o->server->spare, &q, &a, NULL) < 0)
        return false;
    bool there = a.headers.status == 200;
    http_answer_done(&a);
    return there;
}

int s3_abort(struct s3_object *o, const char *id, struct platter_error *err)
{
    struct http_hooks hooks = s3_object_hooks(o);
    auto_free char *url = string_format("%s?uploadId=%s", o->url, id);
    if (!url)
        return fail_memory(err, "a URL");
    struct http_request q = request_of(o, &hooks, "DELETE", url);
    for (unsigned tries = 0; tries < MOST_ABORTS; tries++) {
        struct http_answer a;
        int r = http_send(o->server->spare, &q, &a, err);
        if (r < 0)
            return r;
        bool gone = a.headers.status == 404;
        if (!gone && a.headers.status / 100 != 2)
            r = http_fail(&q, &a, "the upload cannot be aborted", err);
        http_answer_done(&a);
        if (r < 0 || gone || !has_parts(o, &hooks, url))
            return r;
    }
    return fail(err, EIO, "%s: the upload is still there after it was aborted %d times", o->name,
                MOST_ABORTS);
}
