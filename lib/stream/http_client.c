/* SPDX-License-Identifier: MIT */
/* The client's thread, which is the only one that calls curl's multi interface. See http.h. */
#include <string.h>

#include "base/awake.h"
#include "base/memory.h"
#include "base/signals.h"
#include "stream/http_inside.h"
#include "stream/http_stream.h"

enum { LOOK_AROUND_MS = 1000 /* the longest without a look at what is wanted */ };

const char *const http_version_names[] = {"auto", "off", "always", NULL};
const char *const http_auth_names[] = {"basic", "digest", "any", NULL};

void http_settings_of(const struct option_values *keys, struct http_settings *ret)
{
    ret->ca_file = options_string(keys, "ca_file");
    ret->cert = options_string(keys, "cert");
    ret->key = options_string(keys, "key");
    ret->key_password = options_string(keys, "key_password");
    ret->insecure = options_bool(keys, "insecure");
    ret->proxy = options_string(keys, "proxy");
    ret->http2 = (enum http_version)options_enum(keys, "http2");
    ret->connections = (unsigned)options_number(keys, "connections");
    ret->connect_timeout = (unsigned)options_number(keys, "connect_timeout");
    ret->timeout = (unsigned)options_number(keys, "timeout");
    ret->retries = (unsigned)options_number(keys, "retries");
    ret->retry_time = (unsigned)options_number(keys, "retry_time");
}

/* ---- settings ----------------------------------------------------------------------------------
 */

static void forget(const char *text)
{
    if (text)
        explicit_bzero((char *)(uintptr_t)text, strlen(text));
    free((void *)(uintptr_t)text);
}

static void settings_done(struct http_settings *s)
{
    const char *const texts[] = {s->user, s->password,     s->ca_file, s->cert,
                                 s->key,  s->key_password, s->proxy,   s->sigv4};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        forget(texts[i]);
    for (const char *const *h = s->headers; h && *h; h++)
        forget(*h);
    free((void *)(uintptr_t)s->headers);
}

/* NULL stays NULL; false: out of memory. */
static bool copy(const char **text)
{
    bool there = *text;
    *text = string_copy(*text);
    return *text || !there;
}

static bool copy_headers(struct http_settings *s)
{
    const char *const *from = s->headers;
    size_t n = 0;
    while (from && from[n])
        n++;
    const char **headers = calloc(n + 1, sizeof *headers);
    s->headers = headers;
    for (size_t i = 0; headers && i < n; i++) {
        headers[i] = from[i];
        if (!copy(&headers[i]))
            return false;
    }
    return headers;
}

/* All strings are copied, also where one of them fails: settings_done() takes them all. */
static bool settings_copy(const struct http_settings *from, struct http_settings *ret)
{
    *ret = *from;
    const char *trusted = getenv("CURL_CA_BUNDLE");
    if (!trusted || !*trusted)
        trusted = getenv("SSL_CERT_FILE");
    if (!ret->ca_file && trusted && *trusted)
        ret->ca_file = trusted;
    const char **texts[] = {&ret->user, &ret->password,     &ret->ca_file, &ret->cert,
                            &ret->key,  &ret->key_password, &ret->proxy,   &ret->sigv4};
    bool fine = true;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        fine = copy(texts[i]) && fine;
    return copy_headers(ret) && fine;
}

/* ---- the thread --------------------------------------------------------------------------------
 */

static bool unlist(struct transfer **list, const struct transfer *t)
{
    while (*list && *list != t)
        list = &(*list)->next;
    if (!*list)
        return false;
    *list = t->next;
    return true;
}

static void finish(struct http_client *c, struct transfer *t, CURLcode code)
{
    http_curl.multi_remove_handle(c->multi, t->easy);
    http_transfer_end(t, code);
    WITH_LOCK(&c->lock);
    if (unlist(&c->active, t))
        c->n_active--;
    else
        unlist(&c->queue, t);
    t->done = true;
    pthread_cond_signal(&t->finished);
}

/* Takes the next one that waits, while there may be more under way. */
static struct transfer *next_waiting(struct http_client *c)
{
    WITH_LOCK(&c->lock);
    struct transfer *t = c->n_active < c->settings.connections ? c->queue : NULL;
    if (t) {
        c->queue = t->next;
        t->next = c->active;
        c->active = t;
        c->n_active++;
    }
    return t;
}

static bool is_stopped(const struct transfer *t)
{
    return t->q->stop && atomic_load(t->q->stop);
}

/* One that somebody has something to say to: that it ends, or can go on. */
static struct transfer *next_called(struct http_client *c, bool *ret_stop)
{
    WITH_LOCK(&c->lock);
    for (struct transfer *t = c->active; t; t = t->next) {
        *ret_stop = is_stopped(t);
        if (*ret_stop || t->resume) {
            t->resume = false;
            return t;
        }
    }
    *ret_stop = true;
    for (struct transfer *t = c->queue; t; t = t->next)
        if (is_stopped(t))
            return t;
    return NULL;
}

static void look_around(struct http_client *c)
{
    bool stop;
    for (struct transfer *t; (t = next_called(c, &stop));) {
        t->stopped = stop;
        if (stop)
            finish(c, t, CURLE_ABORTED_BY_CALLBACK);
        else
            http_curl.easy_pause(t->easy, CURLPAUSE_CONT);
    }
    for (struct transfer *t; (t = next_waiting(c));)
        if (http_curl.multi_add_handle(c->multi, t->easy) != CURLM_OK)
            finish(c, t, CURLE_FAILED_INIT);
}

/* Whether one came to its end, so that another can begin. */
static bool gather(struct http_client *c)
{
    int left;
    bool ret = false;
    for (CURLMsg *m; (m = http_curl.multi_info_read(c->multi, &left));) {
        struct transfer *t = NULL;
        CURLcode code = m->data.result;
        http_curl.easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&t);
        if (m->msg == CURLMSG_DONE && t) {
            finish(c, t, code);
            ret = true;
        }
    }
    return ret;
}

static void *client_main(void *arg)
{
    struct http_client *c = arg;
    for (;;) {
        int running;
        pthread_mutex_lock(&c->lock);
        bool end = c->quitting && !c->queue && !c->active;
        pthread_mutex_unlock(&c->lock);
        if (end)
            return NULL;
        look_around(c);
        http_curl.multi_perform(c->multi, &running);
        if (!gather(c))
            http_curl.multi_poll(c->multi, NULL, 0, LOOK_AROUND_MS, NULL);
    }
}

static int start(struct http_client *c, struct platter_error *err)
{
    if (c->running)
        return 0;
    int code = thread_start(&c->thread, client_main, c);
    if (code)
        return fail_errno(err, code, "no thread for what is read over the network");
    c->running = true;
    return 0;
}

int http_transfer_run(struct http_client *c, struct transfer *t, struct platter_error *err)
{
    WITH_LOCK(&c->lock);
    int r = start(c, err);
    if (r < 0)
        return r;
    struct transfer **last = &c->queue;
    while (*last)
        last = &(*last)->next;
    *last = t;
    http_curl.multi_wakeup(c->multi);
    while (!t->done)
        pthread_cond_wait(&t->finished, &c->lock);
    return 0;
}

/* ---- clients -----------------------------------------------------------------------------------
 */

static void client_free(struct http_client *c)
{
    if (c->multi)
        http_curl.multi_cleanup(c->multi);
    settings_done(&c->settings);
    pthread_cond_destroy(&c->woken);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

int http_client_new(const struct http_settings *settings, struct http_client **ret,
                    struct platter_error *err)
{
    int r = http_curl_load(err);
    if (r < 0)
        return r;
    struct http_client *c = calloc(1, sizeof *c);
    if (!c)
        return fail_memory(err, "a client of servers");
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&c->woken, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&c->lock, NULL);
    atomic_init(&c->refs, 1);
    if (!settings_copy(settings, &c->settings) || !(c->multi = http_curl.multi_init())) {
        client_free(c);
        return fail_memory(err, "a client of servers");
    }
    http_curl.multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, (long)c->settings.connections);
    *ret = c;
    return 0;
}

struct http_client *http_client_ref(struct http_client *c)
{
    atomic_fetch_add(&c->refs, 1);
    return c;
}

void http_client_unref(struct http_client *c)
{
    if (!c || atomic_fetch_sub(&c->refs, 1) > 1)
        return;
    if (c->running) {
        pthread_mutex_lock(&c->lock);
        c->quitting = true;
        pthread_mutex_unlock(&c->lock);
        http_curl.multi_wakeup(c->multi);
        pthread_join(c->thread, NULL);
    }
    client_free(c);
}

void http_client_wake(struct http_client *c)
{
    WITH_LOCK(&c->lock);
    pthread_cond_broadcast(&c->woken);
    http_curl.multi_wakeup(c->multi);
}

void http_resume(struct http_client *c, const struct http_request *q)
{
    WITH_LOCK(&c->lock);
    for (struct transfer *t = c->active; t; t = t->next)
        if (t->q == q)
            t->resume = true;
    http_curl.multi_wakeup(c->multi);
}

unsigned http_client_connections(const struct http_client *c)
{
    return c->settings.connections;
}
