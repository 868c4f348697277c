/* SPDX-License-Identifier: MIT */
/*
 * Requests to S3 as they are written and signed: signature version 4 (source-spec.md section 5).
 *
 * libcurl can sign as well, but that of Debian 12 also signs headers that it is told to leave out,
 * so that no upload could be sent; and which headers are signed, so that a proxy must not touch
 * them, differs between its versions.
 */
#ifndef STREAM_S3_SIGN_H
#define STREAM_S3_SIGN_H

#include <stdbool.h>
#include <stddef.h>
#include <time.h>

#include "base/error.h"

enum {
    S3_HASH_TEXT = 64 + 1, /* SHA-256 in hexadecimal digits, and a 0 */
    S3_DATE_TEXT = 16 + 1  /* 20260102T030405Z */
};
#define S3_UNSIGNED_PAYLOAD "UNSIGNED-PAYLOAD"

struct s3_header {
    const char *name; /* in small letters */
    const char *value;
};

struct s3_signing {
    const char *method;
    const char *url; /* s3_escape()d; its query sorted, each name with a "=" */
    const char *access_key, *secret_key, *region;
    time_t now;
    const char *payload;             /* what x-amz-content-sha256 says */
    const struct s3_header *headers; /* signed beside host, x-amz-content-sha256 and x-amz-date */
    size_t n_headers;
};

/* The value of the header Authorization, malloc'ed; `date` is that of x-amz-date. */
int s3_sign(const struct s3_signing *s, char date[static S3_DATE_TEXT], char **ret,
            struct platter_error *err);

/* SHA-256 of bytes, as text. */
void s3_hash(const void *bytes, size_t len, char ret[static S3_HASH_TEXT]);

/* Percent-encoded as signatures want it; `slashes`: they stay. malloc'ed; NULL: out of memory. */
char *s3_escape(const char *text, bool slashes);
/* Back, in place. False: a % without two digits, or one that means a 0. */
bool s3_unescape(char *text);

#endif
