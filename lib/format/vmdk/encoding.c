/* SPDX-License-Identifier: MIT */
/*
 * Names in other encodings than UTF-8: vmdk.md sections 3.2 and 3.3.
 *
 * A host of Windows writes a descriptor in its code page and says which. Plain ASCII is the same in
 * all of them. Without the key, or with UTF-8, bytes stay as they are, for file names are bytes.
 */
#include <iconv.h>
#include <string.h>
#include <strings.h>

#include "format/vmdk/vmdk.h"

static bool is_ascii(const char *text)
{
    while (*text > 0)
        text++;
    return *text == 0;
}

static bool is_utf8(const char *encoding)
{
    return !encoding || !*encoding || strcasecmp(encoding, "UTF-8") == 0 ||
           strcasecmp(encoding, "UTF8") == 0;
}

/* The code page of Windows that is meant: "windows-936", "cp936", "x-ms949", or one by the name
 * that stands for it; 0: none that we know of. */
static unsigned code_page(const char *encoding)
{
    static const struct {
        const char *name;
        unsigned page;
    } names[] = {{"Shift_JIS", 932}, {"SJIS", 932}, {"GBK", 936}, {"GB2312", 936}, {"Big5", 950}};
    static const char *const prefixes[] = {"windows-", "x-windows-", "cp", "ms", "x-ms", "x-cp"};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (strcasecmp(encoding, names[i].name) == 0)
            return names[i].page;
    for (unsigned i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        size_t n = strlen(prefixes[i]),
               digits = strspn(encoding + strnlen(encoding, n), "0123456789");
        if (strncasecmp(encoding, prefixes[i], n) == 0 && digits > 0 && digits < 6 &&
            encoding[n + digits] == 0)
            return (unsigned)strtoul(encoding + n, NULL, 10);
    }
    return 0;
}

/* Opens a conversion between UTF-8 and the encoding, by the name that iconv has for it. */
static iconv_t open_conversion(const char *encoding, bool decode)
{
    char page[16], name[64];
    snprintf(page, sizeof page, "CP%u", code_page(encoding));
    /* What follows a slash are orders to iconv, which a file has no business to give. */
    snprintf(name, sizeof name, "%.*s", (int)strcspn(encoding, "/"), encoding);
    const char *const names[] = {page, name};
    iconv_t ret = (iconv_t)-1;
    for (unsigned i = code_page(encoding) ? 0 : 1; i < 2 && ret == (iconv_t)-1 && *names[i]; i++)
        ret = decode ? iconv_open("UTF-8", names[i]) : iconv_open(names[i], "UTF-8");
    return ret;
}

/* Converts all of a text or fails with EILSEQ. */
static int run_conversion(iconv_t conversion, const char *text, char **ret)
{
    size_t in_len = strlen(text), room = 4 * in_len + 16, out_len = room;
    char *in = (char *)(uintptr_t)text, *out = malloc(room + 1), *start = out;
    if (!out)
        return -ENOMEM;
    if (iconv(conversion, &in, &in_len, &out, &out_len) == (size_t)-1 || in_len > 0 ||
        iconv(conversion, NULL, NULL, &out, &out_len) == (size_t)-1 ||
        memchr(start, 0, room - out_len)) {
        free(start);
        return -EILSEQ;
    }
    *out = 0;
    *ret = start;
    return 0;
}

static int convert(const char *encoding, const char *text, bool decode, char **ret,
                   struct platter_error *err)
{
    if (is_utf8(encoding) || is_ascii(text)) {
        *ret = string_copy(text);
        return *ret ? 0 : fail_memory(err, "a name in a VMDK descriptor");
    }
    iconv_t conversion = open_conversion(encoding, decode);
    if (conversion == (iconv_t)-1)
        return fail(
            err, ENOTSUP,
            "the descriptor's encoding \"%.40s\" is not known here, and a name in it is not "
            "plain ASCII",
            encoding);
    int r = run_conversion(conversion, text, ret);
    iconv_close(conversion);
    if (r == -EILSEQ)
        return fail(err, EILSEQ, "the name \"%.200s\" cannot be %s the descriptor's encoding %.40s",
                    decode ? "..." : text, decode ? "read in" : "written in", encoding);
    return r < 0 ? fail_memory(err, "a name in a VMDK descriptor") : 0;
}

int encoding_decode(const char *encoding, const char *bytes, char **ret, struct platter_error *err)
{
    return convert(encoding, bytes, true, ret, err);
}

int encoding_encode(const char *encoding, const char *utf8, char **ret, struct platter_error *err)
{
    return convert(encoding, utf8, false, ret, err);
}
