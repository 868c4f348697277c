/* SPDX-License-Identifier: MIT */
/* What reaches the terminal: sentences, sizes, JSON; nothing out of an image gets there unescaped.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

/* The length of the valid UTF-8 sequence at s, its character in *ret; 0 if there is none. */
static size_t utf8_decode(const unsigned char *s, uint32_t *ret)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (s[0] < 0x80) {
        *ret = s[0];
        return 1;
    }
    size_t n = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4)
        return 0;
    uint32_t c = s[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (s[i] & 0x3f);
    }
    if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return 0;
    *ret = c;
    return n;
}

/* Characters that a terminal obeys instead of showing, or that make text read as what it is not. */
static bool is_unsafe(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0x200e && c <= 0x200f) ||
           (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
}

void put_text(FILE *out, const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    while (*s) {
        uint32_t c = 0;
        size_t n = utf8_decode(s, &c);
        if (n && !is_unsafe(c)) {
            fwrite(s, 1, n, out);
            s += n;
            continue;
        }
        for (size_t i = 0; i < (n ? n : 1); i++)
            fprintf(out, "\\x%02x", *s++);
    }
}

void say(const char *format, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, format);
    int n = vasprintf(&text, format, args);
    va_end(args);
    /* A line is written at once: standard error has no buffer, and there may be a million lines. */
    char *line = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&line, &len), *out = f ? f : stderr;
    fputs(called_as_vma() ? "vma: " : "platter: ", out);
    put_text(out, n < 0 ? format : text);
    putc('\n', out);
    if (f && fclose(f) == 0)
        fwrite(line, 1, len, stderr);
    free(line);
    if (n >= 0)
        free(text);
}

/* "s3://bucket/key?secret_key=...", "rbd:pool/image:key=..." */
static char *without_query(const char *name)
{
    name = name_title(name);
    if (strncasecmp(name, "rbd:", 4) == 0)
        return strndup(name, 4 + strcspn(name + 4, "?:"));
    return strndup(name, strstr(name, "://") ? strcspn(name, "?#") : strlen(name));
}

void put_shown(FILE *out, const char *name)
{
    char *shown = without_query(name);
    put_text(out, shown ? shown : "");
    free(shown);
}

json_t *json_shown(const char *name)
{
    char *shown = without_query(name);
    json_t *text = json_text(shown ? shown : "");
    free(shown);
    return text;
}

int say_error(const struct platter_error *err)
{
    say("%s", err->message);
    return EXIT_FAILED;
}

int say_end(const struct platter_error *err, const char *half_done)
{
    if (signals_caught())
        say("interrupted: %s", err->code == ECANCELED ? half_done : err->message);
    else
        say_error(err);
    return EXIT_FAILED;
}

char *human_size(uint64_t bytes, char buf[32])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    unsigned unit = 0;
    /* A unit starts at 1000 of the one before, so that three digits are always enough. */
    for (; value >= 1000 && unit < 6; unit++)
        value /= 1024;
    snprintf(buf, 32, "%.3g %s", value, units[unit]);
    return buf;
}

json_t *json_text(const char *text)
{
    json_t *whole = json_string(text);
    if (whole)
        return whole;
    size_t len = strlen(text);
    char *copy = malloc(len * 3 + 1), *to = copy;
    if (!copy)
        return NULL;
    for (const unsigned char *s = (const unsigned char *)text; *s;) {
        uint32_t c;
        size_t n = utf8_decode(s, &c);
        memcpy(to, n ? (const char *)s : "\xef\xbf\xbd", n ? n : 3);
        to += n ? n : 3;
        s += n ? n : 1;
    }
    *to = '\0';
    whole = json_string(copy);
    free(copy);
    return whole;
}

void print_json(json_t *value)
{
    if (!value || json_dumpf(value, stdout, JSON_INDENT(4) | JSON_ENSURE_ASCII | JSON_ENCODE_ANY))
        say("out of memory while printing JSON");
    putchar('\n');
    json_decref(value);
}

bool wants_json(const struct args *args)
{
    return args->output && strcmp(args->output, "json") == 0;
}

int output_end(int code)
{
    errno = 0;
    bool failed = fflush(stdout) != 0;
    int cause = errno;
    if (!failed && !ferror(stdout))
        return code;
    say("standard output: cannot write the result%s%s", cause ? ": " : "",
        cause ? strerror(cause) : "");
    return code ? code : EXIT_FAILED;
}
