/* SPDX-License-Identifier: MIT */
/* Who we are to S3: see s3_login.h. */
#include "stream/s3_login.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "base/memory.h"
#include "stream/place.h"
#include "stream/s3_profile.h"

const char *const s3_style_names[] = {"auto", "path", "host", NULL};

static void wipe(char *text)
{
    if (text)
        explicit_bzero(text, strlen(text));
    free(text);
}

void s3_login_done(struct s3_login *l)
{
    wipe(TAKE(l->access_key));
    wipe(TAKE(l->secret_key));
    wipe(TAKE(l->token));
    free(TAKE(l->region));
    free(TAKE(l->endpoint));
    free(TAKE(l->ca_file));
}

static int copy(const char *value, char **ret, struct platter_error *err)
{
    *ret = string_copy(value);
    return *ret || !value ? 0 : fail_memory(err, "a login");
}

/* What the environment says; an empty value says nothing. */
static const char *said(const char *variable)
{
    const char *value = getenv(variable);
    return value && *value ? value : NULL;
}

/* ---- who we are --------------------------------------------------------------------------------
 */

static int key_secret(const struct option_values *keys, const char *name, const char *what,
                      char **ret, struct platter_error *err)
{
    const char *written = options_string(keys, name);
    if (!written)
        return 0;
    if (strncmp(written, "config://", 9) == 0)
        return fail(err, ENOTSUP,
                    "the %s of S3 stands in the store of Ceph's monitors, which is not asked: "
                    "write what \"ceph config-key get %s\" prints to a file, and file:PATH here",
                    what, written + 9);
    return place_secret(written, what, ret, err);
}

static int keys_of_options(const struct option_values *keys, struct s3_login *l,
                           struct platter_error *err)
{
    int r = key_secret(keys, "access_key", "access key", &l->access_key, err);
    if (r == 0)
        r = key_secret(keys, "secret_key", "secret key", &l->secret_key, err);
    if (r == 0)
        r = key_secret(keys, "security_token", "security token", &l->token, err);
    if (r == 0 && l->token && !l->access_key)
        r = fail(err, EINVAL, "a security_token of S3 needs the access_key that it belongs to");
    return r;
}

static int keys_of_environment(struct s3_login *l, struct platter_error *err)
{
    int r = copy(said("AWS_ACCESS_KEY_ID"), &l->access_key, err);
    if (r == 0)
        r = copy(said("AWS_SECRET_ACCESS_KEY"), &l->secret_key, err);
    if (r == 0)
        r = copy(said("AWS_SESSION_TOKEN"), &l->token, err);
    return r;
}

/* Ways of profiles to get keys that are others' work; the first of them count before keys that
 * stand there as well. */
static int check_profile(const struct s3_profile *p, bool has_keys, struct platter_error *err)
{
    static const char *const ways[] = {"role_arn", "sso_session", "sso_start_url", "login_session",
                                       "credential_process"};
    size_t n = has_keys ? 3 : sizeof ways / sizeof *ways;
    for (size_t i = 0; i < n; i++) {
        auto_free char *value = NULL;
        int r = s3_profile_value(p, ways[i], &value, err);
        if (r < 0)
            return r;
        if (value)
            return fail(err, ENOTSUP,
                        "the profile \"%s\" gets its keys for S3 by %s, which is not done here: "
                        "put what \"aws configure export-credentials --format env\" prints into "
                        "the environment",
                        p->name, ways[i]);
    }
    return 0;
}

static int keys_of_profile(const struct s3_profile *p, struct s3_login *l,
                           struct platter_error *err)
{
    int r = s3_profile_value(p, "aws_access_key_id", &l->access_key, err);
    if (r == 0)
        r = s3_profile_value(p, "aws_secret_access_key", &l->secret_key, err);
    if (r == 0)
        r = s3_profile_value(p, "aws_session_token", &l->token, err);
    return r == 0 ? check_profile(p, l->access_key, err) : r;
}

/* A profile that was asked for by name counts before keys of the environment. */
static int find_keys(const struct option_values *keys, const struct s3_profile *p,
                     struct s3_login *l, struct platter_error *err)
{
    bool anonymous = options_bool(keys, "anonymous");
    int r = keys_of_options(keys, l, err);
    if (r == 0 && anonymous && (l->access_key || l->secret_key))
        r = fail(err, EINVAL, "anonymous=on and an access_key contradict each other");
    if (r < 0 || anonymous)
        return r;
    bool by_name = options_given(keys, "profile");
    if (!l->access_key && !l->secret_key && !by_name)
        r = keys_of_environment(l, err);
    if (r == 0 && !l->access_key && !l->secret_key)
        r = keys_of_profile(p, l, err);
    if (r < 0)
        return r;
    if (!l->access_key && !l->secret_key)
        return fail(err, EACCES,
                    "there are no keys for S3: give access_key and secret_key, AWS_ACCESS_KEY_ID "
                    "and AWS_SECRET_ACCESS_KEY in the environment, or a profile in %s; "
                    "anonymous=on is for what everybody may read",
                    p->credentials_path);
    if (!l->access_key || !l->secret_key)
        return fail(err, EINVAL, "of the keys for S3 the %s key is missing",
                    l->access_key ? "secret" : "access");
    return 0;
}

/* ---- where it is -------------------------------------------------------------------------------
 */

static bool is_region(const char *text)
{
    for (const char *p = text; *p; p++)
        if (!isalnum((unsigned char)*p) && !strchr("-_", *p))
            return false;
    return *text && strlen(text) < 64;
}

static int find_region(const struct option_values *keys, const struct s3_profile *p,
                       struct s3_login *l, struct platter_error *err)
{
    const char *value = options_string(keys, "region");
    value = value ? value : said("AWS_REGION");
    value = value ? value : said("AWS_DEFAULT_REGION");
    int r = value ? copy(value, &l->region, err) : s3_profile_value(p, "region", &l->region, err);
    if (r == 0 && !l->region)
        r = copy("us-east-1", &l->region, err);
    if (r == 0 && !is_region(l->region))
        r = fail(err, EINVAL, "\"%s\" is not the name of a region of S3", l->region);
    return r;
}

/* endpoint_url of a profile: in the section of its services, or its own. */
static int endpoint_of_profile(const struct s3_profile *p, char **ret, struct platter_error *err)
{
    auto_free char *services = NULL;
    int r = s3_profile_value(p, "services", &services, err);
    if (r == 0 && services)
        r = s3_profile_service(p, services, "s3.endpoint_url", ret, err);
    if (r == 0 && !*ret)
        r = s3_profile_value(p, "endpoint_url", ret, err);
    return r;
}

/* Scheme and host, of which no more is known; a scheme that is not there is https. Signatures are
 * about the host in small letters, and some servers take what was sent for that. */
static int tidy_endpoint(struct s3_login *l, struct platter_error *err)
{
    if (!strstr(l->endpoint, "://")) {
        char *longer = string_format("https://%s", l->endpoint);
        if (!longer)
            return fail_memory(err, "a login");
        free(l->endpoint);
        l->endpoint = longer;
    }
    char *end = l->endpoint + strlen(l->endpoint);
    while (end > l->endpoint && end[-1] == '/')
        *--end = '\0';
    const char *host = strstr(l->endpoint, "://");
    bool known =
        strncasecmp(l->endpoint, "http://", 7) == 0 || strncasecmp(l->endpoint, "https://", 8) == 0;
    for (const char *p = l->endpoint; *p && known; p++)
        known = *p > ' ' && *p < 0x7f;
    if (!known || !host || !host[3] || strpbrk(host + 3, "@?#\\"))
        return fail(err, EINVAL,
                    "the endpoint of S3 is to be http://HOST[:PORT] or https://HOST[:PORT], "
                    "without user and query");
    size_t server = (size_t)(host + 3 - l->endpoint) + strcspn(host + 3, "/");
    for (size_t i = 0; i < server; i++)
        l->endpoint[i] = (char)tolower((unsigned char)l->endpoint[i]);
    return 0;
}

static int find_endpoint(const struct option_values *keys, const struct s3_profile *p,
                         const char *given, struct s3_login *l, struct platter_error *err)
{
    const char *value = given ? given : options_string(keys, "endpoint");
    value = value ? value : said("AWS_ENDPOINT_URL_S3");
    value = value ? value : said("AWS_ENDPOINT_URL");
    int r = value ? copy(value, &l->endpoint, err) : endpoint_of_profile(p, &l->endpoint, err);
    return r == 0 && l->endpoint ? tidy_endpoint(l, err) : r;
}

static int find_style(const struct option_values *keys, const struct s3_profile *p,
                      struct s3_login *l, struct platter_error *err)
{
    auto_free char *value = NULL;
    l->style = (enum s3_style)options_enum(keys, "style");
    if (l->style != S3_STYLE_AUTO)
        return 0;
    int r = s3_profile_value(p, "s3.addressing_style", &value, err);
    if (r == 0 && value && strcmp(value, "path") == 0)
        l->style = S3_STYLE_PATH;
    if (r == 0 && value && strcmp(value, "virtual") == 0)
        l->style = S3_STYLE_HOST;
    return r;
}

/* Whom the tools of Amazon trust; NULL: that is nothing of its own. */
static int find_trust(const struct s3_profile *p, struct s3_login *l, struct platter_error *err)
{
    const char *value = said("AWS_CA_BUNDLE");
    return value ? copy(value, &l->ca_file, err)
                 : s3_profile_value(p, "ca_bundle", &l->ca_file, err);
}

int s3_login_find(const struct option_values *keys, const char *endpoint, struct s3_login *ret,
                  struct platter_error *err)
{
    struct s3_profile p;
    *ret = (struct s3_login){0};
    int r = s3_profile_load(options_string(keys, "profile"), &p, err);
    if (r < 0)
        return r;
    r = find_keys(keys, &p, ret, err);
    if (r == 0)
        r = find_region(keys, &p, ret, err);
    if (r == 0)
        r = find_endpoint(keys, &p, endpoint, ret, err);
    if (r == 0)
        r = find_style(keys, &p, ret, err);
    if (r == 0)
        r = find_trust(&p, ret, err);
    s3_profile_done(&p);
    if (r < 0)
        s3_login_done(ret);
    return r;
}
