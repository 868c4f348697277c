/* SPDX-License-Identifier: MIT */
/* What a server says in front of a body, and what we make of it: RFC 9110. Pure, and bounded. */
#ifndef STREAM_HTTP_HEADERS_H
#define STREAM_HTTP_HEADERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/error.h"

enum {
    HTTP_MOST_HEADERS = 64 << 10, /* bytes of all lines in front of one body */
    HTTP_MOST_REASON = 64
};

/* The lines in front of a body. Zeroed: none yet. */
struct http_headers {
    unsigned major;                /* HTTP/major */
    unsigned status;               /* of the status line: 200 */
    char reason[HTTP_MOST_REASON]; /* ... and its text, printable; may be empty */
    char *lines; /* "name: value" without line ends, each with a 0 behind it; malloc'ed */
    size_t len;
};

/* One more line, with or without its end. A status line begins anew. EMSGSIZE: too many; EPROTO: a
 * status line that is none. */
int http_headers_add(struct http_headers *h, const char *line, size_t len,
                     struct platter_error *err);
void http_headers_done(struct http_headers *h);

/* The value of the first header of that name, in any case, without blanks around it. NULL: none. */
const char *http_header(const struct http_headers *h, const char *name);
/* How many there are of that name. */
unsigned http_header_count(const struct http_headers *h, const char *name);

/* The value of a Content-Range: "bytes 0-9/100", "bytes 0-9/\*", "bytes *\/100". */
struct http_range {
    bool has_range, has_total;
    uint64_t first, last; /* inclusive, as there */
    uint64_t total;
};
/* False: it is none, or makes no sense. */
bool http_range_parse(const char *value, struct http_range *ret);

/* The value of a Retry-After, seconds or a date, as seconds from now on. False: it is neither. */
bool http_retry_after_parse(const char *value, time_t now, unsigned *ret_seconds);

/* A number in decimal digits and nothing else. */
bool http_number_parse(const char *value, uint64_t *ret);

/* How the body is encoded: "gzip". NULL: it is what lies there. */
const char *http_coding(const struct http_headers *h);

/* How long the body is, as the Content-Length says. False: nobody says, or not in one way only (RFC
 * 9112 section 6.3). */
bool http_length(const struct http_headers *h, uint64_t *ret);

#endif
