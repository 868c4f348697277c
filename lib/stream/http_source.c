/* SPDX-License-Identifier: MIT */
/*
 * What lies under a URL, read by ranges. The first answer says what it is (its size, ETag and
 * date); every later one is asked for on that condition, and held against it, because servers
 * ignore conditions: source-spec.md section 4. A source that changes is never read on.
 *
 * The first request is for the first bytes, not for the one byte that would do to learn the size:
 * whoever opens an image wants them next, and they cost nothing more.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "base/memory.h"
#include "stream/cached.h"
#include "stream/http_stream.h"

enum {
    FIRST_BYTES = 64 << 10, /* kept as long as the stream */
    MUCH = 64 << 10         /* so much more makes up for the tries before */
};

struct http_source {
    struct stream head;
    struct http_client *client;
    struct http_hooks hooks;
    void (*release)(void *opaque);
    char *url;
    uint64_t size;
    char *etag, *modified; /* of the first answer; or NULL */
    char *condition;       /* the header by which later answers are of the same; or NULL */
    uint8_t *first;
    size_t first_len;
    atomic_bool stop, changed;
    pthread_mutex_t lock;
    char *url_now; /* where the last answer came from; under lock */
};

static struct http_source *source_of(struct stream *s)
{
    return (struct http_source *)s;
}

/* ---- what it is --------------------------------------------------------------------------------
 */

static int fail_changed(struct http_source *s, const char *what, const char *was, const char *now,
                        struct platter_error *err)
{
    atomic_store(&s->changed, true);
    if (!was)
        return fail(err, ESTALE,
                    "%s: the source changed on the server while it was read (%s): begin again",
                    s->head.name, what);
    return fail(err, ESTALE,
                "%s: the source changed on the server while it was read (its %s was %.80s and is "
                "%.80s): begin again",
                s->head.name, what, was, now ? now : "not told any more");
}

static bool is_weak(const char *etag)
{
    return strncmp(etag, "W/", 2) == 0;
}

/* Whether an answer is of what the first one was of. */
static int check_same(struct http_source *s, const struct http_answer *a, struct platter_error *err)
{
    const char *etag = http_header(&a->headers, "ETag");
    const char *modified = http_header(&a->headers, "Last-Modified");
    const char *range = http_header(&a->headers, "Content-Range");
    struct http_range r = {0};
    if (range && http_range_parse(range, &r) && r.has_total && r.total != s->size) {
        char was[32], now[32];
        snprintf(was, sizeof was, "%" PRIu64, s->size);
        snprintf(now, sizeof now, "%" PRIu64, r.total);
        return fail_changed(s, "size", was, now, err);
    }
    if (s->etag && (!etag || strcmp(etag, s->etag) != 0))
        return fail_changed(s, "ETag", s->etag, etag, err);
    if (s->modified && (!modified || strcmp(modified, s->modified) != 0))
        return fail_changed(s, "date", s->modified, modified, err);
    return 0;
}

/* Keeps what the first answer says of itself. A date says less than an ETag. */
static int keep_identity(struct http_source *s, const struct http_answer *a,
                         struct platter_error *err)
{
    const char *etag = http_header(&a->headers, "ETag");
    const char *modified = http_header(&a->headers, "Last-Modified");
    s->etag = string_copy(etag);
    s->modified = etag && !is_weak(etag) ? NULL : string_copy(modified);
    s->url_now = string_copy(a->url);
    if (s->etag && !is_weak(s->etag))
        s->condition = string_format("If-Match: %s", s->etag);
    else if (s->modified)
        s->condition = string_format("If-Unmodified-Since: %s", s->modified);
    bool strong = etag && !is_weak(etag), fine = s->url_now && (s->etag || !etag);
    fine = fine && (s->modified || !modified || strong) && (s->condition || !(strong || modified));
    return fine ? 0 : fail_memory(err, "a source");
}

/* ---- reading -----------------------------------------------------------------------------------
 */

/* Where signed links end, the URL that leads to new ones may go on. */
static bool go_back(struct http_source *s, const char *used, unsigned status)
{
    bool refused = status == 401 || status == 403 || status == 404 || status == 410;
    char *original = refused && strcmp(used, s->url) != 0 ? string_copy(s->url) : NULL;
    if (!original)
        return false;
    WITH_LOCK(&s->lock);
    free(s->url_now);
    s->url_now = original;
    return true;
}

static void remember(struct http_source *s, const char *url)
{
    WITH_LOCK(&s->lock);
    char *copy = strcmp(url, s->url_now) != 0 ? string_copy(url) : NULL;
    if (!copy)
        return;
    free(s->url_now);
    s->url_now = copy;
}

static int judge(struct http_source *s, const struct http_request *q, const struct http_answer *a,
                 struct platter_error *err)
{
    switch (a->headers.status) {
    case 206:
        return check_same(s, a, err);
    case 200:
        return fail_changed(s, "the server sends all of it where a part was asked for", NULL, NULL,
                            err);
    case 416:
        return fail_changed(s, "it has become shorter", NULL, NULL, err);
    case 412:
        return fail_changed(s, "412 Precondition Failed", NULL, NULL, err);
    }
    return http_fail(q, a, "cannot be read", err);
}

/* One request: *ret_got of the bytes. 1: to be asked again, elsewhere. */
static int ask(struct http_source *s, struct http_request *q, uint64_t *ret_got,
               struct platter_error *err)
{
    struct http_answer a;
    pthread_mutex_lock(&s->lock);
    auto_free char *url = string_copy(s->url_now);
    pthread_mutex_unlock(&s->lock);
    if (!url)
        return fail_memory(err, "a URL");
    q->url = url;
    int r = http_send(s->client, q, &a, err);
    if (r < 0)
        return r;
    if (go_back(s, a.url, a.headers.status)) {
        r = 1;
    } else {
        r = judge(s, q, &a, err);
        *ret_got = a.got;
    }
    if (r == 0)
        remember(s, a.url);
    http_answer_done(&a);
    return r;
}

static int read_range(struct http_source *s, uint8_t *buf, size_t len, hoff off,
                      struct platter_error *err)
{
    const char *const headers[] = {s->condition, NULL};
    struct http_patience patience = {0};
    struct http_request q = {.method = "GET",
                             .trusted = s->url,
                             .name = s->head.name,
                             .headers = headers,
                             .ranged = true,
                             .hooks = &s->hooks,
                             .patience = &patience,
                             .stop = &s->stop};
    bool went_back = false;
    for (size_t done = 0, idle = 0; done < len;) {
        uint64_t got = 0;
        q.off = off + done;
        q.len = len - done;
        q.into = buf + done;
        int r = ask(s, &q, &got, err);
        if (r == 1 && went_back)
            return fail(err, EACCES, "%s: the server refuses it, and redirects to who does",
                        s->head.name);
        if (r < 0)
            return r;
        went_back = r == 1;
        idle = got > 0 || r == 1 ? 0 : idle + 1;
        if (idle == 2)
            return fail(err, EIO,
                        "%s: the server sends nothing for %" PRIu64 " bytes at offset %" PRIu64,
                        s->head.name, q.len, q.off);
        if (got >= MUCH)
            patience = (struct http_patience){0};
        done += got;
    }
    return 0;
}

static int source_pread(struct stream *stream, void *buf, size_t len, hoff off,
                        struct platter_error *err)
{
    struct http_source *s = source_of(stream);
    if (!range_inside(off, len, s->size))
        return stream_fail_past_end(stream, off, len, s->size, err);
    if (atomic_load(&s->changed))
        return fail_changed(s, "as an earlier answer showed", NULL, NULL, err);
    size_t known = off < s->first_len ? (size_t)min_u64(len, s->first_len - off) : 0;
    if (known > 0)
        memcpy(buf, s->first + off, known);
    return known == len ? 0 : read_range(s, (uint8_t *)buf + known, len - known, off + known, err);
}

static int source_size(struct stream *s, uint64_t *ret_size, struct platter_error *err)
{
    (void)err;
    *ret_size = source_of(s)->size;
    return 0;
}

/* What changes while it is read makes reads fail, so that the first answer tells of all others. A
 * weak ETag stands in for a date only: servers make strong ones of them when time has passed. */
int http_identity(char **text, const char *etag, const char *modified, struct platter_error *err)
{
    if (etag && (!is_weak(etag) || !modified))
        return identity_add(text, err, "etag", "%s", etag);
    return modified ? identity_add(text, err, "modified", "%s", modified) : 0;
}

static int source_identity(struct stream *stream, char **text, struct platter_error *err)
{
    struct http_source *s = source_of(stream);
    if (atomic_load(&s->changed))
        return fail_changed(s, "as an earlier answer showed", NULL, NULL, err);
    int r = identity_add_size(text, stream, err);
    return r < 0 ? r : http_identity(text, s->etag, s->modified, err);
}

static void source_interrupt(struct stream *stream)
{
    struct http_source *s = source_of(stream);
    atomic_store(&s->stop, true);
    http_client_wake(s->client);
}

static const char *source_url(const struct stream *s)
{
    return ((const struct http_source *)s)->url;
}

static int source_sibling(struct stream *stream, const char *uri, unsigned flags,
                          struct stream **ret, struct platter_error *err)
{
    struct http_source *s = source_of(stream);
    if (s->hooks.sibling)
        return s->hooks.sibling(s->hooks.opaque, uri, flags, ret, err);
    if (flags & STREAM_FILE_WRITE)
        return http_fail_write(uri, err);
    auto_free char *url = NULL;
    int r = http_url_clean(uri, &url, err);
    return r < 0 ? r : stream_http_cached_open(s->client, url, uri, NULL, NULL, ret, err);
}

static void source_close(struct stream *stream)
{
    struct http_source *s = source_of(stream);
    http_client_unref(s->client);
    if (s->release)
        s->release(s->hooks.opaque);
    free(s->url);
    free(s->url_now);
    free(s->etag);
    free(s->modified);
    free(s->condition);
    free(s->first);
    pthread_mutex_destroy(&s->lock);
}

static const struct stream_ops source_ops = {
    .name = "http",
    .pread = source_pread,
    .interrupt = source_interrupt,
    .size = source_size,
    .identity = source_identity,
    .url = source_url,
    .sibling = source_sibling,
    .close = source_close,
};

/* ---- opening -----------------------------------------------------------------------------------
 */

/* The size by other means than a range: for servers that do not tell the whole in one. */
static int ask_size(struct http_source *s, struct platter_error *err)
{
    struct http_answer a;
    struct http_request q = {.method = "HEAD",
                             .url = s->url,
                             .name = s->head.name,
                             .hooks = &s->hooks,
                             .stop = &s->stop};
    int r = http_send(s->client, &q, &a, err);
    if (r < 0)
        return r;
    const char *etag = http_header(&a.headers, "ETag");
    if (a.headers.status != 200)
        r = http_fail(&q, &a, "its size cannot be had", err);
    else if (etag && s->etag && strcmp(etag, s->etag) != 0)
        r = fail_changed(s, "ETag", s->etag, etag, err);
    else if (http_coding(&a.headers) || !http_length(&a.headers, &s->size))
        r = fail(err, EPROTO, "%s: the server does not say how large it is", s->head.name);
    http_answer_done(&a);
    return r;
}

/* Of the answer to the request for the first bytes. 1: the server has no ranges. */
static int take_first(struct http_source *s, const struct http_request *q,
                      const struct http_answer *a, struct platter_error *err)
{
    const char *value = http_header(&a->headers, "Content-Range");
    struct http_range range = {0};
    bool parsed = value && http_range_parse(value, &range);
    bool none = a->headers.status == 416 && parsed && range.has_total && range.total == 0;
    uint64_t length;
    int r;
    /* Of nothing some servers say that it is not there, others that this is all there is. */
    if (none || (a->headers.status == 200 && http_length(&a->headers, &length) && length == 0))
        return keep_identity(s, a, err);
    if (a->headers.status == 200)
        return 1;
    if (a->headers.status != 206 && a->headers.status != 416)
        return http_fail(q, a, "cannot be read", err);
    r = keep_identity(s, a, err);
    if (r == 0 && parsed && range.has_total)
        s->size = range.total;
    else if (r == 0)
        r = ask_size(s, err);
    if (r == 0 && a->headers.status == 416 && s->size > 0) /* S3 has no Content-Range there */
        r = http_fail(q, a, "cannot be read", err);
    s->first_len = a->headers.status == 206 ? (size_t)min_u64(a->got, s->size) : 0;
    return r;
}

static int open_first(struct http_source *s, struct platter_error *err)
{
    struct http_answer a;
    struct http_request q = {.method = "GET",
                             .url = s->url,
                             .name = s->head.name,
                             .ranged = true,
                             .len = FIRST_BYTES,
                             .into = s->first,
                             .hooks = &s->hooks,
                             .stop = &s->stop};
    int r = http_send(s->client, &q, &a, err);
    if (r < 0)
        return r;
    r = take_first(s, &q, &a, err);
    http_answer_done(&a);
    return r;
}

static int open_sequential(struct http_source *s, struct stream **ret, struct platter_error *err)
{
    const struct http_front front = {.client = s->client,
                                     .url = s->url,
                                     .name = s->head.name,
                                     .hooks = &s->hooks,
                                     .release = TAKE(s->release)};
    return stream_http_sequential_open(&front, ret, err);
}

int stream_http_cached_open(struct http_client *c, const char *url, const char *name,
                            const struct http_hooks *hooks, void (*release)(void *opaque),
                            struct stream **ret, struct platter_error *err)
{
    struct stream *s;
    unsigned n = http_client_connections(c);
    int r = stream_http_open(c, url, name, hooks, release, &s, err);
    if (r == 0 && !s->sequential) {
        r = stream_cached_open(s, n - n / 4, ret, err);
        if (r < 0)
            stream_close(s);
    } else if (r == 0) {
        *ret = s;
    }
    return r;
}

int stream_http_open(struct http_client *c, const char *url, const char *name,
                     const struct http_hooks *hooks, void (*release)(void *opaque),
                     struct stream **ret, struct platter_error *err)
{
    struct http_source *s = stream_new(sizeof *s, &source_ops, name, err);
    if (!s) {
        if (release)
            release(hooks->opaque);
        return -ENOMEM;
    }
    s->client = http_client_ref(c);
    s->hooks = hooks ? *hooks : (struct http_hooks){0};
    s->release = release;
    s->head.depth = http_client_connections(c);
    s->url = string_copy(url);
    s->first = malloc(FIRST_BYTES);
    pthread_mutex_init(&s->lock, NULL);
    int r = s->url && s->first ? open_first(s, err) : fail_memory(err, "a source");
    if (r == 0) {
        *ret = &s->head;
        return 0;
    }
    if (r == 1)
        r = open_sequential(s, ret, err);
    stream_close(&s->head);
    return r;
}
