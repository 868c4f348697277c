/* SPDX-License-Identifier: MIT */
/* What a server says in front of a body: status lines, headers and the values we make something of;
 * and the URLs that it may redirect to. The input is lines, the first of which is a URL. */
#include "stream/http.h"

#include <string.h>

#include "fuzz/target.h"

/* Whatever it parses as must make sense. */
static void check_range(const char *value)
{
    struct http_range r;
    if (!http_range_parse(value, &r))
        return;
    if (!r.has_range && !r.has_total)
        fuzz_found("a range of nothing: %s", value);
    if (r.has_range &&
        (r.first > r.last || r.last >= INT64_MAX || (r.has_total && r.last >= r.total)))
        fuzz_found("a range that ends before it begins, or behind the end: %s", value);
}

static void check_values(const struct http_headers *h)
{
    static const char *const names[] = {"Content-Range", "Retry-After", "ETag", "Content-Length"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = http_header(h, names[i]);
        unsigned seconds;
        uint64_t number;
        if (!value != !http_header_count(h, names[i]))
            fuzz_found("%s is there, or not", names[i]);
        if (!value)
            continue;
        check_range(value);
        http_number_parse(value, &number);
        if (http_retry_after_parse(value, 1000000000, &seconds) && seconds > 1000000)
            fuzz_found("a wait of %u seconds: %s", seconds, value);
    }
    uint64_t length;
    if (http_length(h, &length) && (length > INT64_MAX || http_header(h, "Transfer-Encoding")))
        fuzz_found("a length of %llu", (unsigned long long)length);
    if (h->status > 999 || strlen(h->reason) >= HTTP_MOST_REASON || h->len > HTTP_MOST_HEADERS)
        fuzz_found("status %u, %zu bytes", h->status, h->len);
    for (const char *p = h->reason; *p; p++)
        if (*p < ' ' || *p > '~')
            fuzz_found("the reason is not printable");
}

/* What is cleaned is clean, and says nothing of who we are. */
static void check_url(const char *text)
{
    char *clean, *again, *url, *user, *password;
    if (http_url_clean(text, &clean, NULL) < 0)
        return;
    for (const char *p = clean; *p; p++)
        if (*p <= ' ' || *p > '~')
            fuzz_found("byte %d in a URL", *p);
    if (http_url_clean(clean, &again, NULL) == 0) {
        if (strcmp(clean, again) != 0)
            fuzz_found("encoded twice: %s and %s", clean, again);
        free(again);
    }
    if (http_url_login(clean, &url, &user, &password, NULL) == 0) {
        if (!http_same_server(clean, url))
            fuzz_found("%s is elsewhere than %s", url, clean);
        free(url);
        free(user);
        free(password);
    }
    free(http_url_name(clean));
    free(clean);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data, *end = text + size;
    struct http_headers h = {0};
    const char *line_end = memchr(text, '\n', size);
    char *url = strndup(text, line_end ? (size_t)(line_end - text) : size);
    if (url)
        check_url(url);
    free(url);
    while (line_end && line_end < end) {
        const char *line = line_end + 1;
        line_end = memchr(line, '\n', (size_t)(end - line));
        size_t n = (size_t)((line_end ? line_end : end) - line);
        if (http_headers_add(&h, line, n, NULL) < 0)
            break;
        check_values(&h);
    }
    http_headers_done(&h);
    return 0;
}
