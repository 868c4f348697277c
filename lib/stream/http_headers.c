/* SPDX-License-Identifier: MIT */
/* Status lines and headers: see http_headers.h. */
#include "stream/http_headers.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/ckd.h"

/* ---- lines -------------------------------------------------------------------------------------
 */

void http_headers_done(struct http_headers *h)
{
    free(h->lines);
    *h = (struct http_headers){0};
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* "HTTP/1.1 206 Partial Content", "HTTP/2 206": *h is that answer from now on, without headers. */
static int begin(struct http_headers *h, const char *line, size_t len, struct platter_error *err)
{
    size_t at = 0;
    while (at < len && line[at] != ' ')
        at++;
    while (at < len && line[at] == ' ')
        at++;
    if (len - at < 3 || !is_digit(line[at]) || !is_digit(line[at + 1]) || !is_digit(line[at + 2]) ||
        (len - at > 3 && line[at + 3] != ' '))
        return fail(err, EPROTO, "the server's answer does not begin with a status");
    h->status = (unsigned)(100 * (line[at] - '0') + 10 * (line[at + 1] - '0') + line[at + 2] - '0');
    h->major = len > 5 && is_digit(line[5]) ? (unsigned)(line[5] - '0') : 0;
    h->len = 0;
    size_t n = 0;
    for (at += 3; at < len && n + 1 < sizeof h->reason; at++)
        if ((n > 0 || line[at] != ' ') && line[at] >= ' ' && line[at] < 0x7f)
            h->reason[n++] = line[at];
    h->reason[n] = '\0';
    return 0;
}

int http_headers_add(struct http_headers *h, const char *line, size_t len,
                     struct platter_error *err)
{
    while (len > 0 && strchr("\r\n \t", line[len - 1])) /* a 0 counts */
        len--;
    if (len >= 5 && memcmp(line, "HTTP/", 5) == 0)
        return begin(h, line, len, err);
    if (len == 0)
        return 0;
    if (len >= HTTP_MOST_HEADERS - h->len)
        return fail(err, EMSGSIZE, "the headers of the server's answer are longer than %d bytes",
                    HTTP_MOST_HEADERS);
    if (!h->lines && !(h->lines = malloc(HTTP_MOST_HEADERS)))
        return fail_memory(err, "headers");
    for (size_t i = 0; i < len; i++) /* each is a string */
        h->lines[h->len + i] = line[i] ? line[i] : ' ';
    h->len += len;
    h->lines[h->len++] = '\0';
    return 0;
}

/* The value in a line of that name; blanks in front are passed over. */
static const char *value_in(const char *line, const char *name)
{
    size_t n = strlen(name);
    if (strncasecmp(line, name, n) != 0 || line[n] != ':')
        return NULL;
    return line + n + 1 + strspn(line + n + 1, " \t");
}

const char *http_header(const struct http_headers *h, const char *name)
{
    for (size_t at = 0; at < h->len; at += strlen(h->lines + at) + 1) {
        const char *value = value_in(h->lines + at, name);
        if (value)
            return value;
    }
    return NULL;
}

unsigned http_header_count(const struct http_headers *h, const char *name)
{
    unsigned n = 0;
    for (size_t at = 0; at < h->len; at += strlen(h->lines + at) + 1)
        n += value_in(h->lines + at, name) != NULL;
    return n;
}

/* ---- values ------------------------------------------------------------------------------------
 */

/* A number in digits, as far as they go; false: there are none, or too many. */
static bool take_number(const char **p, uint64_t *ret)
{
    const char *from = *p;
    *ret = 0;
    for (; is_digit(**p); ++*p)
        if (ckd_mul(ret, *ret, 10u) || ckd_add(ret, *ret, (unsigned)(**p - '0')))
            return false;
    return *p > from;
}

bool http_number_parse(const char *value, uint64_t *ret)
{
    return take_number(&value, ret) && *value == '\0';
}

const char *http_coding(const struct http_headers *h)
{
    const char *coding = http_header(h, "Content-Encoding");
    if (coding && *coding && strcasecmp(coding, "identity") != 0)
        return coding;
    return http_header_count(h, "Content-Encoding") > 1 ? "more than one" : NULL;
}

bool http_length(const struct http_headers *h, uint64_t *ret)
{
    const char *length = http_header(h, "Content-Length");
    return length && http_header_count(h, "Content-Length") == 1 &&
           !http_header(h, "Transfer-Encoding") && http_number_parse(length, ret) &&
           *ret <= INT64_MAX;
}

bool http_range_parse(const char *value, struct http_range *ret)
{
    *ret = (struct http_range){0};
    if (strncasecmp(value, "bytes", 5) != 0 || (value[5] != ' ' && value[5] != '='))
        return false;
    const char *p = value + 6 + strspn(value + 6, " ");
    if (*p == '*') {
        p++;
    } else {
        if (!take_number(&p, &ret->first) || *p++ != '-' || !take_number(&p, &ret->last))
            return false;
        ret->has_range = true;
    }
    if (*p++ != '/')
        return false;
    if (*p == '*')
        p++;
    else if (!(ret->has_total = take_number(&p, &ret->total)))
        return false;
    if (*p || (!ret->has_range && !ret->has_total) || ret->total > INT64_MAX)
        return false;
    return !ret->has_range || (ret->first <= ret->last && ret->last < INT64_MAX &&
                               (!ret->has_total || ret->last < ret->total));
}

/* "Sun, 06 Nov 1994 08:49:37 GMT", in English whatever the locale. */
static bool date_parse(const char *value, time_t *ret)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    uint64_t day, year, hour, minute, second;
    const char *p = strchr(value, ',');
    if (!p || p[1] != ' ')
        return false;
    p += 2;
    if (!take_number(&p, &day) || *p++ != ' ' || strnlen(p, 4) < 4 || p[3] != ' ')
        return false;
    const char month[4] = {p[0], p[1], p[2], '\0'};
    const char *found = strstr(months, month);
    p += 4;
    if (!found || (found - months) % 3 != 0 || !take_number(&p, &year) || *p++ != ' ' ||
        !take_number(&p, &hour) || *p++ != ':' || !take_number(&p, &minute) || *p++ != ':' ||
        !take_number(&p, &second) || strcmp(p, " GMT") != 0)
        return false;
    if (day < 1 || day > 31 || year < 1970 || year > 9999 || hour > 23 || minute > 59 ||
        second > 60)
        return false;
    struct tm tm = {.tm_mday = (int)day,
                    .tm_mon = (int)(found - months) / 3,
                    .tm_year = (int)year - 1900,
                    .tm_hour = (int)hour,
                    .tm_min = (int)minute,
                    .tm_sec = (int)second};
    *ret = timegm(&tm);
    return true;
}

bool http_retry_after_parse(const char *value, time_t now, unsigned *ret_seconds)
{
    enum { MOST = 1000000 };
    uint64_t seconds;
    time_t when;
    if (!http_number_parse(value, &seconds)) {
        if (!date_parse(value, &when))
            return false;
        seconds = when > now ? (uint64_t)(when - now) : 0;
    }
    *ret_seconds = seconds < MOST ? (unsigned)seconds : MOST;
    return true;
}
