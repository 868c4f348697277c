/* SPDX-License-Identifier: MIT */
/* What the parts of the client share: http_client.c (the thread), http_transfer.c (one transfer, as
 * libcurl sees it), http_send.c (tries and redirects). */
#ifndef STREAM_HTTP_INSIDE_H
#define STREAM_HTTP_INSIDE_H

#include <curl/curl.h>
#include <pthread.h>

#include "stream/http.h"

/* libcurl, loaded when it is first needed. */
extern struct http_curl {
    typeof(curl_global_init) *global_init;
    typeof(curl_easy_init) *easy_init;
    typeof(curl_easy_cleanup) *easy_cleanup;
    typeof(curl_easy_setopt) *easy_setopt;
    typeof(curl_easy_getinfo) *easy_getinfo;
    typeof(curl_easy_pause) *easy_pause;
    typeof(curl_easy_strerror) *easy_strerror;
    typeof(curl_multi_init) *multi_init;
    typeof(curl_multi_cleanup) *multi_cleanup;
    typeof(curl_multi_setopt) *multi_setopt;
    typeof(curl_multi_add_handle) *multi_add_handle;
    typeof(curl_multi_remove_handle) *multi_remove_handle;
    typeof(curl_multi_perform) *multi_perform;
    typeof(curl_multi_poll) *multi_poll;
    typeof(curl_multi_wakeup) *multi_wakeup;
    typeof(curl_multi_info_read) *multi_info_read;
    typeof(curl_multi_strerror) *multi_strerror;
    typeof(curl_slist_append) *slist_append;
    typeof(curl_slist_free_all) *slist_free_all;
} http_curl;
int http_curl_load(struct platter_error *err);

struct http_lines {
    struct curl_slist *list;
};

struct http_client {
    atomic_uint refs;
    struct http_settings settings; /* strings are the client's */
    CURLM *multi;
    atomic_bool answered; /* some server did, ever */

    pthread_mutex_t lock; /* everything below */
    pthread_cond_t woken; /* http_client_wake() */
    pthread_t thread;
    bool running, quitting;
    struct transfer *queue, *active; /* not yet given to curl; under way */
    unsigned n_active;
};

enum body { BODY_OPEN, BODY_INTO, BODY_SINK, BODY_TEXT };

/* One sending of a request. */
struct transfer {
    const struct http_request *q;
    struct http_answer *a;
    CURL *easy;
    struct http_lines lines;
    char why[CURL_ERROR_SIZE];
    enum body body;
    uint64_t expected; /* BODY_INTO: bytes that the answer's range has */
    bool began;        /* q->begin() was called */
    unsigned n_answers;
    CURLcode code;
    long tunnel; /* what a proxy answered to CONNECT; 0: nothing */
    int result;  /* negative: what came was refused, with `error` */
    struct platter_error error;

    struct transfer *next;
    pthread_cond_t finished;
    bool done, resume, stopped; /* under the client's lock */
};

/* Makes it ready for http_transfer_run(). `own`: it goes to the server that it is meant for. */
int http_transfer_new(struct http_client *c, const struct http_request *q, const char *url,
                      bool own, struct http_answer *a, struct transfer **ret,
                      struct platter_error *err);
void http_transfer_free(struct transfer *t);
/* Nothing more comes: what of the answer is left to do. On the client's thread. */
void http_transfer_end(struct transfer *t, CURLcode code);
/* Has the client's thread do it, and waits for its end. */
int http_transfer_run(struct http_client *c, struct transfer *t, struct platter_error *err);

#endif
