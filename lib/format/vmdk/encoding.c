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
    while (*text && (unsigned char)*text < 0x80)
        text++;
    return *text == 0;
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

static bool is_utf8(const char *encoding)
{
    return !encoding || !*encoding || strcasecmp(encoding, "UTF-8") == 0 ||
           strcasecmp(encoding, "UTF8") == 0 || code_page(encoding) == 65001;
}

/* Whether ASCII is always itself in a code page, and nothing in a text changes how the rest is
 * read. It is the image that chooses, and what else iconv knows (EBCDIC, ISO-2022) makes slashes
 * and control characters of other bytes, and has crashed programs before. */
static bool is_plain_page(unsigned page)
{
    static const unsigned pages[] = {437,  737,  775,  850,  852,  855,  857,  858,  860, 861,
                                     862,  863,  865,  866,  869,  874,  932,  936,  949, 950,
                                     1250, 1251, 1252, 1253, 1254, 1255, 1256, 1257, 1258};
    for (unsigned i = 0; i < sizeof pages / sizeof *pages; i++)
        if (pages[i] == page)
            return true;
    return false;
}

/* The name that iconv has for an encoding; false: none that may be in a descriptor. */
static bool name_for_iconv(const char *encoding, char *ret, size_t size)
{
    static const char *const others[] = {"GB18030", "KOI8-R", "KOI8-U"};
    static const char iso[] = "ISO-8859-";
    const size_t n = sizeof iso - 1;
    unsigned page = code_page(encoding);
    if (page != 0) {
        snprintf(ret, size, "CP%u", page);
        return is_plain_page(page);
    }
    /* What follows a slash would be orders to iconv. */
    snprintf(ret, size, "%s", encoding);
    if (strncasecmp(encoding, iso, n) == 0)
        return encoding[n] != 0 && encoding[n + strspn(encoding + n, "0123456789")] == 0;
    for (unsigned i = 0; i < sizeof others / sizeof *others; i++)
        if (strcasecmp(encoding, others[i]) == 0)
            return true;
    return false;
}

static iconv_t open_conversion(const char *encoding, bool decode)
{
    char name[16];
    if (!name_for_iconv(encoding, name, sizeof name))
        return (iconv_t)-1;
    return decode ? iconv_open("UTF-8", name) : iconv_open(name, "UTF-8");
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
        return fail(err, ENOTSUP,
                    "the descriptor's encoding \"%.40s\" is not known here (code pages of Windows "
                    "are), and "
                    "a name in it is not plain ASCII",
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
