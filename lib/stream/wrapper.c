/* SPDX-License-Identifier: MIT */
/* Which wrappers there are, and by what they are known. */
#include "stream/wrapper.h"

#include <string.h>

#include "base/cursor.h"
#include "config.h"
#include "stream/unzip.h"

static const struct kind {
    const char *name;
    const char *magic;
    size_t len;
    bool built;
} kinds[] = {
    [WRAP_NONE] = {"", NULL, 0, false},
    [WRAP_ZSTD] = {"zstd", "\x28\xB5\x2F\xFD", 4, HAVE_ZSTD},
    [WRAP_GZIP] = {"gzip", "\x1F\x8B\x08", 3, true},
    [WRAP_LZOP] = {"lzop", "\x89LZO\0\r\n\x1A\n", 9, true},
    [WRAP_BZIP2] = {"bzip2", "BZh", 3, HAVE_BZIP2},
    [WRAP_XZ] = {"xz", "\xFD\x37zXZ\0", 6, HAVE_XZ},
};

enum { KINDS = sizeof kinds / sizeof *kinds };

/* A frame of zstd that holds nothing: the tools that work with several threads begin with one. */
static bool is_skippable(const uint8_t *prefix, size_t len)
{
    return len >= 4 && (get_le(prefix, 4) & ~UINT64_C(15)) == ZSTD_SKIPPABLE;
}

enum wrapper wrapper_probe(const uint8_t *prefix, size_t len)
{
    for (unsigned w = WRAP_NONE + 1; w < KINDS; w++) {
        const struct kind *k = &kinds[w];
        if (len < k->len || memcmp(prefix, k->magic, k->len) != 0)
            continue;
        /* "BZh" is text, too; the level follows. */
        if (w == WRAP_BZIP2 && (len < 4 || prefix[3] < '1' || prefix[3] > '9'))
            continue;
        return w;
    }
    return is_skippable(prefix, len) ? WRAP_ZSTD : WRAP_NONE;
}

const char *wrapper_name(enum wrapper w)
{
    return kinds[w].name;
}

enum wrapper wrapper_find(const char *name)
{
    for (unsigned w = WRAP_NONE + 1; w < KINDS; w++)
        if (strcmp(name, kinds[w].name) == 0)
            return w;
    return WRAP_NONE;
}

int unzip_check(enum wrapper w, struct platter_error *err)
{
    if (w == WRAP_NONE)
        return fail(err, EINVAL, "nothing to unpack");
    if (!kinds[w].built)
        return fail(err, ENOTSUP, "this build does not know %s: build it with -D%s=enabled",
                    kinds[w].name, kinds[w].name);
    return 0;
}

int stream_unwrap(struct stream *s, struct budget *budget, struct stream **ret,
                  enum wrapper *ret_wrapper, struct platter_error *err)
{
    uint8_t prefix[WRAP_PROBE];
    size_t len;

    /* What cannot be read will not be read later either, or is salvaged: then it is no wrapper. */
    if (stream_peek(s, prefix, sizeof prefix, &len, NULL) < 0)
        len = 0;
    *ret_wrapper = wrapper_probe(prefix, len);
    if (*ret_wrapper != WRAP_NONE)
        return stream_unzip_open(s, *ret_wrapper, budget, ret, err);
    *ret = s;
    return 0;
}

int stream_unwrapped_open(const char *name, struct budget *budget, struct stream **ret,
                          enum wrapper *ret_wrapper, struct platter_error *err)
{
    struct stream *s;
    int r = stream_source_open(name, &s, err);
    return r < 0 ? r : stream_unwrap(s, budget, ret, ret_wrapper, err);
}
