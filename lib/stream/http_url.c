/* SPDX-License-Identifier: MIT */
/* URLs as text: RFC 3986, as far as it matters here. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/memory.h"
#include "stream/http.h"

int http_url_clean(const char *url, char **ret, struct platter_error *err)
{
    char *p = *ret = malloc(3 * strlen(url) + 1);
    if (!p)
        return fail_memory(err, "a URL");
    for (; *url && *url != '#'; url++) {
        unsigned char c = (unsigned char)*url;
        if (c > ' ' && c < 0x7f && !strchr("\"<>\\^`{|}", c))
            *p++ = *url;
        else
            p += sprintf(p, "%%%02X", c);
    }
    *p = '\0';
    return 0;
}

struct server {
    const char *host, *port;
    size_t scheme_len, host_len, port_len;
};

/* Where a URL's host and port stand; a port that is not written is the scheme's. */
static bool server_of(const char *url, struct server *ret)
{
    const char *colon = strstr(url, "://");
    if (!colon)
        return false;
    const char *host = colon + 3, *end = host + strcspn(host, "/?#");
    for (const char *p = host; p < end; p++)
        if (*p == '@')
            host = p + 1;
    const char *port = end;
    while (port > host && isdigit((unsigned char)port[-1]))
        port--;
    bool has_port = port > host && port[-1] == ':';
    *ret = (struct server){.host = host, .scheme_len = (size_t)(colon - url)};
    ret->host_len = (size_t)((has_port ? port - 1 : end) - host);
    ret->port = has_port && port < end ? port : ret->scheme_len == 5 ? "443" : "80";
    ret->port_len = has_port && port < end ? (size_t)(end - port) : strlen(ret->port);
    return true;
}

bool http_same_server(const char *a, const char *b)
{
    struct server x, y;
    return server_of(a, &x) && server_of(b, &y) && x.scheme_len == y.scheme_len &&
           strncasecmp(a, b, x.scheme_len) == 0 && x.host_len == y.host_len &&
           strncasecmp(x.host, y.host, x.host_len) == 0 && x.port_len == y.port_len &&
           strncmp(x.port, y.port, x.port_len) == 0;
}

static int hex(char c)
{
    return isdigit((unsigned char)c)    ? c - '0'
           : isxdigit((unsigned char)c) ? tolower(c) - 'a' + 10
                                        : -1;
}

/* %XX in the first n bytes put right. NULL: out of memory, or a 0 in it. */
static char *decode(const char *text, size_t n)
{
    char *ret = malloc(n + 1), *p = ret;
    for (size_t i = 0; ret && i < n; i++) {
        bool escaped =
            text[i] == '%' && n - i > 2 && hex(text[i + 1]) >= 0 && hex(text[i + 2]) >= 0;
        *p++ = escaped ? (char)(unsigned char)(hex(text[i + 1]) * 16 + hex(text[i + 2])) : text[i];
        i += escaped ? 2 : 0;
    }
    if (ret)
        *p = '\0';
    return ret;
}

int http_url_login(const char *url, char **ret_url, char **ret_user, char **ret_password,
                   struct platter_error *err)
{
    struct server at;
    *ret_url = *ret_user = *ret_password = NULL;
    if (!server_of(url, &at))
        return fail(err, EINVAL, "a URL begins with http:// or https://");
    const char *login = url + at.scheme_len + 3;
    if (at.host > login) {
        size_t n = (size_t)(at.host - login) - 1, user = strcspn(login, ":@");
        *ret_user = decode(login, user);
        if (user < n)
            *ret_password = decode(login + user + 1, n - user - 1);
        if (!*ret_user || (user < n && !*ret_password))
            goto no_memory;
    }
    *ret_url = string_format("%.*s%s", (int)at.scheme_len + 3, url, at.host);
    if (*ret_url)
        return 0;
no_memory:
    free(TAKE(*ret_user));
    free(TAKE(*ret_password));
    return fail_memory(err, "a URL");
}

char *http_url_name(const char *url)
{
    char *ret = malloc(strlen(url) * 4 + 1), *p = ret;
    struct server at;
    if (!ret)
        return NULL;
    if (server_of(url, &at)) { /* user and password stand in front of the host */
        p = mempcpy(p, url, at.scheme_len + 3);
        url = at.host;
    }
    size_t path = strcspn(url, "?#");
    p = mempcpy(p, url, path);
    for (url += path; *url && *url != '#';) {
        size_t word = 1 + strcspn(url + 1, "=&#"), value = strcspn(url + word, "&#");
        p = mempcpy(p, url, word);
        if (value > 0)
            p = mempcpy(p, "=...", 4);
        url += word + value;
    }
    *p = '\0';
    return ret;
}
