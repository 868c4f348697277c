/* SPDX-License-Identifier: MIT */
/*
 * What tells whether a stream still has the bytes that it had when another program, or this one
 * hours ago, read it: stream_identity().
 *
 * A stream that adds nothing to what it is unpacked from says so with one word, however it does it:
 * whether the bytes are unpacked where they are wanted or all at once depends on the machine.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "stream/inside.h"

/* What would end a word, or the line that it is shown in, stands as in a URI. */
static char *escape(const char *value)
{
    char *text = malloc(3 * strlen(value) + 1), *p = text;
    for (; text && *value; value++) {
        unsigned char c = (unsigned char)*value;
        if (c > ' ' && c < 0x7f && c != '%')
            *p++ = *value;
        else
            p += sprintf(p, "%%%02X", c);
    }
    if (text)
        *p = '\0';
    return text;
}

int identity_add(char **text, struct platter_error *err, const char *key, const char *format, ...)
{
    auto_free char *value = NULL;
    va_list args;
    va_start(args, format);
    int n = vasprintf(&value, format, args);
    va_end(args);
    if (n < 0)
        value = NULL;
    auto_free char *safe = n < 0 ? NULL : escape(value), *before = *text;
    *text = safe ? string_format("%s%s%s=%s", before ? before : "", before ? " " : "", key, safe)
                 : NULL;
    return *text ? 0 : fail_memory(err, "the identity of a source");
}

int identity_add_size(char **text, struct stream *s, struct platter_error *err)
{
    uint64_t size;
    int r = stream_size(s, &size, err);
    return r < 0 ? r : identity_add(text, err, "size", "%" PRIu64, size);
}

int stream_identity(struct stream *s, char **ret, struct platter_error *err)
{
    char *text = NULL;
    int r;
    if (s->ops->identity) {
        r = s->ops->identity(s, &text, err);
    } else if (s->base) {
        r = stream_identity(s->base, &text, err);
        if (r == 0)
            r = identity_add(&text, err, "unpacked", "yes");
    } else {
        r = fail(err, ENOTSUP,
                 "%s: nothing tells later whether a %s still has the same bytes: make a file of it",
                 s->name, s->ops->name);
    }
    if (r < 0)
        free(TAKE(text));
    *ret = text;
    return r;
}
