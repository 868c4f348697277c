/* SPDX-License-Identifier: MIT */
/*
 * A client of HTTP servers, over libcurl. One thread of its own moves all bytes; callers hand in a
 * request and wait for it, any number of them side by side. Connections are kept, up to a limit,
 * and with HTTP/2 requests share one.
 *
 * What http_send() does by itself: tries again what may pass (source-spec.md section 4, "retry"),
 * follows redirects, and says nothing about itself (user, password, headers, certificate) to any
 * other server than that of the request. What an answer means is the caller's affair.
 */
#ifndef STREAM_HTTP_H
#define STREAM_HTTP_H

#include <stdatomic.h>

#include "base/options.h"
#include "stream/http_headers.h"
#include "stream/stream.h"

/* ---- clients --------------------------------------------------------------------------------- */

enum http_version { HTTP_VERSION_AUTO, HTTP_VERSION_OFF, HTTP_VERSION_ALWAYS };
enum http_auth { HTTP_AUTH_BASIC, HTTP_AUTH_DIGEST, HTTP_AUTH_ANY };

/* Who we are, whom we trust, and how long we wait. Strings are copied; those that are NULL are what
 * curl's usual environment says: http_proxy, no_proxy, CURL_CA_BUNDLE, SSL_CERT_FILE ... */
struct http_settings {
    const char *user, *password; /* without secrets' prefixes: see place_secret() */
    enum http_auth auth;
    const char *const
        *headers; /* "Name: value" of every request to the server itself; NULL-ended */
    const char *ca_file, *cert, *key, *key_password;
    bool insecure; /* the server's certificate is not looked at */
    const char *proxy;
    const char *sigv4; /* for CURLOPT_AWS_SIGV4, with user and password as the keys */
    enum http_version http2;
    unsigned connections;         /* requests under way at the same time */
    unsigned connect_timeout;     /* seconds */
    unsigned timeout;             /* seconds in which next to nothing comes or goes */
    unsigned retries, retry_time; /* times and seconds after which a request is given up */
};

/* Entries of a table, where several tables share some of them. */
#define OPTION_KEY_TEXT(name, help)                                                                \
    {                                                                                              \
        name, OPTION_STRING, NULL, NULL, 0, 0, help                                                \
    }
#define OPTION_KEY_SWITCH(name, value, help)                                                       \
    {                                                                                              \
        name, OPTION_BOOL, value, NULL, 0, 0, help                                                 \
    }
#define OPTION_KEY_CHOICE(name, value, values, help)                                               \
    {                                                                                              \
        name, OPTION_ENUM, value, values, 0, 0, help                                               \
    }
#define OPTION_KEY_NUMBER(name, value, min, max, help)                                             \
    {                                                                                              \
        name, OPTION_NUMBER, value, NULL, min, max, help                                           \
    }

/* The keys of a place that fill it in: to be put into a table of keys. See http_settings_of(). */
#define HTTP_PLACE_KEYS                                                                            \
    OPTION_KEY_TEXT("ca_file", "file of the certificates that are trusted, PEM"),                  \
        OPTION_KEY_TEXT("cert", "file of our own certificate, PEM"),                               \
        OPTION_KEY_TEXT("key", "file of its key, PEM; as cert"),                                   \
        OPTION_KEY_TEXT("key_password", "passphrase of that key, env:NAME or file:PATH"),          \
        OPTION_KEY_SWITCH(                                                                         \
            "insecure", "off",                                                                     \
            "take any certificate: whoever is on the way may read and change everything"),         \
        OPTION_KEY_TEXT("proxy", "URL of a proxy, \"\" for none; as http_proxy and the like say"), \
        OPTION_KEY_CHOICE("http2", "auto", http_version_names,                                     \
                          "HTTP/2: where a https server has it, never, or also without TLS"),      \
        OPTION_KEY_NUMBER("connections", "8", 1, 64, "requests under way at the same time"),       \
        OPTION_KEY_NUMBER("connect_timeout", "10", 1, 3600, "seconds to connect in"),              \
        OPTION_KEY_NUMBER("timeout", "30", 1, 3600,                                                \
                          "seconds of less than 512 bytes each after which a request has failed"), \
        OPTION_KEY_NUMBER("retries", "8", 0, 1000,                                                 \
                          "times that a request which failed for a while is tried again"),         \
        OPTION_KEY_NUMBER("retry_time", "120", 0, 86400, "seconds after which that ends, too")
extern const char *const http_version_names[], *const http_auth_names[];

/* Fills in what HTTP_PLACE_KEYS are about; the strings are those of `keys`. */
void http_settings_of(const struct option_values *keys, struct http_settings *ret);

struct http_client;
/* ENOTSUP where libcurl is missing. The thread starts with the first request. */
int http_client_new(const struct http_settings *settings, struct http_client **ret,
                    struct platter_error *err);
struct http_client *http_client_ref(struct http_client *c);
/* The last one ends it; no request may be under way then. NULL is fine. */
void http_client_unref(struct http_client *c);
/* Has all who wait look at their request->stop again. */
void http_client_wake(struct http_client *c);

/* ---- requests -------------------------------------------------------------------------------- */

struct http_answer {
    struct http_headers headers; /* with the status; of the last answer */
    uint64_t got;                /* bytes that went into request->into or to its sink */
    char *text; /* of every other body: its beginning, with a 0 behind it; or NULL */
    size_t text_len;
    unsigned tries; /* it took, those before its last redirect included; 0: it was no failure */
    bool cut;       /* there was more of the body than was wanted, and it was not read */
    char *url;      /* who answered, malloc'ed: another than request->url after a redirect */
};
void http_answer_done(struct http_answer *a);

/* What is sent beside the request's own headers. */
struct http_lines;
int http_lines_add(struct http_lines *l, struct platter_error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

struct http_request;

/* What a kind of servers has of its own. All are called by the thread that sends, and may be NULL.
 */
struct http_hooks {
    void *opaque;
    /* Before each time it is sent: adds lines, such as a signature of these very bytes to this URL.
     * `own`: it goes to the server that the request was meant for. */
    int (*sign)(void *opaque, const struct http_request *q, const char *url, bool own,
                struct http_lines *lines, struct platter_error *err);
    /* What an answer that is a failure says: the beginning of a sentence, "NoSuchKey (request
     * 17)", malloc'ed. NULL: nothing but its status. */
    char *(*explain)(void *opaque, const struct http_answer *a);
    /* Whether an answer passes, beside those that always do: "SlowDown". */
    bool (*passes)(void *opaque, const struct http_answer *a);
    /* Whether a redirect is not followed, and is an answer like others. */
    bool (*stays)(void *opaque, const struct http_answer *a);
    /* Of stream_http_open(): as its stream's operation. NULL: without hooks, by the same client. */
    int (*sibling)(void *opaque, const char *uri, unsigned flags, struct stream **ret,
                   struct platter_error *err);
};

/* How often and since when something was tried: for who sends several requests for one thing.
 * Zeroed: not yet. */
struct http_patience {
    unsigned tries;
    uint64_t since_ns;
};

struct http_request {
    const char *method;         /* "GET", "HEAD", "PUT", "POST", "DELETE" */
    const char *url;            /* as it is sent: percent-encoded, without user and password */
    const char *trusted;        /* the URL whose server is told who we are; NULL: url */
    const char *name;           /* for sentences */
    const char *const *headers; /* "Name: value", NULL-ended; NULL: none */
    bool ranged;                /* GET: Range: bytes=off-(off+len-1) */
    uint64_t off, len;
    const void *body; /* of PUT and POST */
    size_t body_len;
    /* Where a body goes: of 206, if its range begins at off, `len` bytes of room; of 200 to a sink.
     * Every other body is answer->text, up to 1 MiB. */
    void *into;
    /* On the client's thread, must not wait: takes all, or nothing and answers false; then
     * http_resume() is to be called when it can go on. */
    bool (*sink)(void *opaque, const void *bytes, size_t len);
    /* ... once, when a body for it begins, or `answer` is complete without one. */
    void (*begin)(void *opaque, const struct http_headers *headers);
    void *opaque;
    const struct http_hooks *hooks; /* NULL: none */
    struct http_patience *patience; /* NULL: this request's own */
    const atomic_bool *stop;        /* set, and http_client_wake(): ECANCELED. NULL: never */
    bool keep_redirects;            /* 3xx are answers like others */
    bool once;                      /* never tried again */
};

/*
 * Sends and waits. 0: a server answered; with what status is the caller's to see, failures that
 * pass and did not among them. Also 0 where the connection broke after some bytes had come into
 * request->into: answer->got tells how many, and it is worth asking for the rest. Negative: nobody
 * answered, or what makes no sense. *ret is the caller's after a success, for http_answer_done().
 */
int http_send(struct http_client *c, struct http_request *q, struct http_answer *ret,
              struct platter_error *err);
/* From any thread: the sink of this request can take bytes again. */
void http_resume(struct http_client *c, const struct http_request *q);

/* The sentence for an answer that is a failure, and its code: EACCES for 401 and 403, ENOENT for
 * 404 and 410, ESTALE for 412, else EIO. `what`: "cannot be read"; with `len`, "for N bytes at
 * offset M" is added. */
int http_fail(const struct http_request *q, const struct http_answer *a, const char *what,
              struct platter_error *err);

/* ---- URLs ------------------------------------------------------------------------------------ */

/* A URL as it is sent: what no URL may hold is percent-encoded, the fragment is cut off. */
int http_url_clean(const char *url, char **ret, struct platter_error *err);
/* Whether two lead to the same server: scheme, host and port. */
bool http_same_server(const char *a, const char *b);
/* Takes user:password out of a URL: *ret_url, and the two, decoded, or NULL. All malloc'ed. */
int http_url_login(const char *url, char **ret_url, char **ret_user, char **ret_password,
                   struct platter_error *err);
/* A URL for sentences: without user, password and the values of its query. NULL: out of memory. */
char *http_url_name(const char *url);

/* ---- objects --------------------------------------------------------------------------------- */

/*
 * What lies under a URL as a stream that is only read: each answer is checked to be of the same
 * object (source-spec.md section 4, "identity"). Without ranges it is sequential. It takes a
 * reference of the client's; hooks are copied, hooks->opaque must live as long as the stream, and
 * is given to `release` (may be NULL) in the end, also if this fails.
 */
int stream_http_open(struct http_client *c, const char *url, const char *name,
                     const struct http_hooks *hooks, void (*release)(void *opaque),
                     struct stream **ret, struct platter_error *err);
/* ... with stream_cached_open() over it, where it has ranges. */
int stream_http_cached_open(struct http_client *c, const char *url, const char *name,
                            const struct http_hooks *hooks, void (*release)(void *opaque),
                            struct stream **ret, struct platter_error *err);

#endif
