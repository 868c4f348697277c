/* SPDX-License-Identifier: MIT */
/* Who we are to a server of S3, and where it is: from keys of a place, the environment that the
 * tools of Amazon know, and their profiles, in this order. */
#ifndef STREAM_S3_LOGIN_H
#define STREAM_S3_LOGIN_H

#include "stream/http.h" /* OPTION_KEY_TEXT() and the like */

enum s3_style { S3_STYLE_AUTO, S3_STYLE_PATH, S3_STYLE_HOST };
extern const char *const s3_style_names[];

struct s3_login {
    char *access_key, *secret_key, *token; /* access_key NULL: anonymous; token may be NULL */
    char *region;
    char *endpoint; /* "https://host", without a slash behind it; NULL: Amazon's of the region */
    enum s3_style style;
    char *ca_file; /* certificates that are trusted where no key of the place says so; or NULL */
};

/* The keys of a place that it looks at. */
#define S3_LOGIN_KEYS                                                                              \
    OPTION_KEY_TEXT(                                                                               \
        "endpoint",                                                                                \
        "URL of the server, as AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL; that of Amazon"),            \
        OPTION_KEY_TEXT("region",                                                                  \
                        "region of the bucket, as AWS_REGION, AWS_DEFAULT_REGION; us-east-1"),     \
        OPTION_KEY_TEXT("access_key", "who we are, env:NAME or file:PATH; as AWS_ACCESS_KEY_ID"),  \
        OPTION_KEY_TEXT(                                                                           \
            "secret_key",                                                                          \
            "... and the secret of that, env:NAME or file:PATH; as AWS_SECRET_ACCESS_KEY"),        \
        OPTION_KEY_TEXT("security_token",                                                          \
                        "of keys for a while, env:NAME or file:PATH; as AWS_SESSION_TOKEN"),       \
        OPTION_KEY_TEXT(                                                                           \
            "profile",                                                                             \
            "of ~/.aws/credentials and ~/.aws/config, for all of these; as AWS_PROFILE"),          \
        OPTION_KEY_SWITCH("anonymous", "off", "say nothing of who we are"),                        \
        OPTION_KEY_CHOICE(                                                                         \
            "style", "auto", s3_style_names,                                                       \
            "where the bucket stands in URLs: its path, or in front of the host's name")

/* `endpoint`: where the name of the place has one, or NULL. */
int s3_login_find(const struct option_values *keys, const char *endpoint, struct s3_login *ret,
                  struct platter_error *err);
void s3_login_done(struct s3_login *l);

#endif
