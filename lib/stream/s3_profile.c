/* SPDX-License-Identifier: MIT */
/* Profiles: see s3_profile.h. */
#include "stream/s3_profile.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/memory.h"

enum { MOST_FILE = 1 << 20 };

/* ---- lines -------------------------------------------------------------------------------------
 */

/* A run of characters, without blanks around it. */
struct word {
    const char *at;
    size_t len;
};

static struct word trim(const char *at, size_t len)
{
    while (len > 0 && strchr(" \t\r", at[len - 1]))
        len--;
    while (len > 0 && strchr(" \t", *at))
        at++, len--;
    return (struct word){at, len};
}

static bool is_word(struct word w, const char *text)
{
    return w.len == strlen(text) && strncmp(w.at, text, w.len) == 0;
}

static bool is_name(struct word w, const char *text, size_t len)
{
    return w.len == len && strncasecmp(w.at, text, len) == 0;
}

/* "[profile \"my name\"]", or "[default]" for either kind. */
static bool is_section(struct word line, const char *kind, const char *name)
{
    const char *end = memchr(line.at, ']', line.len);
    if (!end)
        return false;
    struct word inside = trim(line.at + 1, (size_t)(end - line.at - 1));
    size_t n = strlen(kind);
    bool of_kind =
        n > 0 && inside.len > n && strncmp(inside.at, kind, n) == 0 && strchr(" \t", inside.at[n]);
    if (of_kind)
        inside = trim(inside.at + n, inside.len - n);
    else if (n > 0 && !(strcmp(kind, "profile") == 0 && strcmp(name, "default") == 0))
        return false;
    if (inside.len >= 2 && *inside.at == '"' && inside.at[inside.len - 1] == '"')
        inside = (struct word){inside.at + 1, inside.len - 2};
    return is_word(inside, name);
}

/* Whether "name" of a line, below `parent` if it is indented, is the key "parent.name" or "name",
 * in letters of any size. */
static bool is_key(struct word name, struct word parent, bool indented, const char *key)
{
    const char *dot = strchr(key, '.');
    if (!dot || !indented)
        return !dot && !indented && is_name(name, key, strlen(key));
    return is_name(parent, key, (size_t)(dot - key)) && is_name(name, dot + 1, strlen(dot + 1));
}

static int take(struct word w, char **ret, struct platter_error *err)
{
    free(*ret);
    *ret = string_format("%.*s", (int)w.len, w.at);
    return *ret ? 0 : fail_memory(err, "a profile");
}

int s3_ini_value(const char *text, const char *kind, const char *name, const char *key, bool *found,
                 char **ret, struct platter_error *err)
{
    struct word parent = {"", 0};
    size_t parent_indent = 0;
    bool inside = false;
    int r = 0;
    *ret = NULL;
    for (size_t len; *text && r == 0; text += len + (text[len] == '\n')) {
        len = strcspn(text, "\n");
        struct word line = trim(text, len);
        if (line.len == 0 || strchr("#;", *line.at))
            continue;
        if (*line.at == '[') {
            inside = is_section(line, kind, name);
            parent.len = 0;
            if (inside && found)
                *found = true;
            continue;
        }
        size_t name_len = 0, indent = strspn(text, " \t");
        while (name_len < line.len && !strchr("=:", line.at[name_len]))
            name_len++;
        if (!inside || name_len >= line.len)
            continue;
        bool indented = parent.len > 0 && indent > parent_indent;
        struct word left = trim(line.at, name_len);
        struct word right = trim(line.at + name_len + 1, line.len - name_len - 1);
        if (is_key(left, parent, indented, key) && right.len > 0)
            r = take(right, ret, err);
        if (!indented) {
            parent = left;
            parent_indent = indent;
        }
    }
    if (r < 0)
        free(TAKE(*ret));
    return r;
}

/* ---- files -------------------------------------------------------------------------------------
 */

/* The name of a file that the environment gives, or one below ~/.aws. */
static int path_of(const char *variable, const char *name, char **ret, struct platter_error *err)
{
    const char *value = getenv(variable), *home = getenv("HOME");
    if (value && strncmp(value, "~/", 2) != 0)
        *ret = string_copy(value);
    else if (value)
        *ret = string_format("%s/%s", home ? home : "", value + 2);
    else
        *ret = string_format("%s/.aws/%s", home ? home : "", name);
    return *ret ? 0 : fail_memory(err, "a file name");
}

/* *ret is NULL where there is no such file. */
static int read_text(const char *path, char **ret, struct platter_error *err)
{
    *ret = NULL;
    FILE *f = fopen(path, "re");
    if (!f)
        return errno == ENOENT || errno == ENOTDIR
                   ? 0
                   : fail_errno(err, errno, "%s: cannot read the profiles of S3", path);
    char *text = calloc(1, MOST_FILE + 1);
    size_t n = text ? fread(text, 1, MOST_FILE, f) : 0;
    int failed = ferror(f) ? errno : 0;
    bool more = fgetc(f) != EOF;
    fclose(f);
    if (!text)
        return fail_memory(err, "a file of profiles");
    *ret = text;
    if (strncmp(text, "\xef\xbb\xbf", 3) == 0) /* what some editors put in front of UTF-8 */
        memset(text, ' ', 3);
    int r = 0;
    if (failed)
        r = fail_errno(err, failed, "%s: cannot read the profiles of S3", path);
    else if (more || strlen(text) < n)
        r = fail(err, EINVAL, "%s: is no file of profiles: it is %s", path,
                 more ? "longer than 1 MiB" : "no text");
    return r;
}

static void wipe(char *text)
{
    if (text)
        explicit_bzero(text, strlen(text));
    free(text);
}

void s3_profile_done(struct s3_profile *p)
{
    free(TAKE(p->name));
    free(TAKE(p->credentials_path));
    free(TAKE(p->config_path));
    wipe(TAKE(p->credentials));
    wipe(TAKE(p->config));
}

static int check_found(const struct s3_profile *p, struct platter_error *err)
{
    bool found = false;
    char *nothing = NULL;
    int r = 0;
    if (p->credentials)
        r = s3_ini_value(p->credentials, "", p->name, "", &found, &nothing, err);
    free(TAKE(nothing));
    if (r == 0 && p->config)
        r = s3_ini_value(p->config, "profile", p->name, "", &found, &nothing, err);
    free(nothing);
    if (r == 0 && !found)
        r = fail(err, ENOENT, "there is no profile \"%s\" for S3 in %s nor in %s", p->name,
                 p->credentials_path, p->config_path);
    return r;
}

int s3_profile_load(const char *name, struct s3_profile *ret, struct platter_error *err)
{
    const char *said = getenv("AWS_PROFILE");
    if (!name)
        name = said && *said ? said : NULL;
    *ret = (struct s3_profile){.name = string_copy(name ? name : "default")};
    int r = ret->name ? 0 : fail_memory(err, "a profile");
    if (r == 0)
        r = path_of("AWS_SHARED_CREDENTIALS_FILE", "credentials", &ret->credentials_path, err);
    if (r == 0)
        r = path_of("AWS_CONFIG_FILE", "config", &ret->config_path, err);
    if (r == 0)
        r = read_text(ret->credentials_path, &ret->credentials, err);
    if (r == 0)
        r = read_text(ret->config_path, &ret->config, err);
    if (r == 0 && name)
        r = check_found(ret, err);
    if (r < 0)
        s3_profile_done(ret);
    return r;
}

int s3_profile_value(const struct s3_profile *p, const char *key, char **ret,
                     struct platter_error *err)
{
    *ret = NULL;
    int r = 0;
    if (p->credentials)
        r = s3_ini_value(p->credentials, "", p->name, key, NULL, ret, err);
    if (r == 0 && !*ret && p->config)
        r = s3_ini_value(p->config, "profile", p->name, key, NULL, ret, err);
    return r;
}

int s3_profile_service(const struct s3_profile *p, const char *services, const char *key,
                       char **ret, struct platter_error *err)
{
    *ret = NULL;
    return p->config ? s3_ini_value(p->config, "services", services, key, NULL, ret, err) : 0;
}
