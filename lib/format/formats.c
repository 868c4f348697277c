/* SPDX-License-Identifier: MIT */
/* The table of formats: one line each. */
#include "base/secret.h"
#include "format/format.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const struct format *const formats[] = {
    &format_qcow2, &format_qcow, &format_vmdk, &format_vma, &format_luks, &format_raw, NULL,
};

const struct format *format_find(const char *name)
{
    for (const struct format *const *f = formats; *f; f++)
        if (strcmp((*f)->name, name) == 0)
            return *f;
    return NULL;
}

const char *format_foreign(const uint8_t *prefix, size_t len)
{
    static const struct {
        size_t at;
        const char *magic;
        const char *what;
    } known[] = {{0, "vhdxfile", "a VHDX image"},
                 {0, "conectix", "a VHD image"},
                 {64, "\x7f\x10\xda\xbe", "a VDI image"},
                 {0, "WithoutFreeSpace", "a Parallels image"},
                 {0, "WithouFreSpacExt", "a Parallels image"},
                 {0, "QED\0", "a QED image"},
                 {0, "\x1f\x8b\x08\0", "a gzip file (unpack it first)"},
                 {0, "\x1f\x8b\x08\x08", "a gzip file (unpack it first)"},
                 {257, "ustar", "a tar archive (an OVA is one: unpack it first)"}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        /* The shortest magics end in a zero byte that strlen() does not see: it is compared too. */
        size_t n = strlen(known[i].magic) < 4 ? 4 : strlen(known[i].magic);
        if (len >= known[i].at + n && memcmp(prefix + known[i].at, known[i].magic, n) == 0)
            return known[i].what;
    }
    return NULL;
}

json_t *json_name(const char *name)
{
    json_t *valid = json_string(name);
    if (valid != NULL)
        return valid;
    auto_free char *latin = malloc(strlen(name) * 2 + 1);
    if (latin == NULL)
        return NULL;
    char *out = latin;
    for (const unsigned char *in = (const unsigned char *)name; *in != '\0'; in++) {
        if (*in >= 0x80)
            *out++ = (char)(0xc0 | *in >> 6);
        *out++ = (char)(*in >= 0x80 ? 0x80 | (*in & 0x3f) : *in);
    }
    *out = '\0';
    return json_string(latin);
}

int image_read_backing_name(struct image *img, hoff off, size_t len, struct platter_error *err)
{
    img->backing_name = calloc(1, len + 1);
    if (!img->backing_name)
        return fail_memory(err, "the backing file's name");
    int r = stream_pread(img->stream, img->backing_name, len, off, err);
    if (r < 0)
        return fail_in(err, r, "%s: the backing file's name", img->stream->name);
    if (strlen(img->backing_name) != len)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the backing file's name at %" PRIu64 " has a zero byte inside",
                    img->stream->name, off);
    img->has_backing = true;
    return 0;
}

int image_doubt(struct image *img, struct platter_error *err, const char *format, ...)
{
    auto_free char *before = TAKE(img->doubt);
    auto_free char *doubt = NULL;
    va_list args;
    va_start(args, format);
    if (vasprintf(&doubt, format, args) < 0)
        doubt = NULL;
    va_end(args);
    if (doubt)
        img->doubt = before ? string_format("%s; %s", before, doubt) : TAKE(doubt);
    return img->doubt ? 0 : fail_memory(err, "a sentence");
}

const struct snapshot_ops *image_snapshots(const struct image *img)
{
    const struct snapshot_ops *ops = img->format->snapshots;
    return ops && ops->there && !ops->there(img) ? NULL : ops;
}

int image_poison(struct image *img, int code)
{
    int expected = 0;
    atomic_compare_exchange_strong(&img->poison, &expected, code);
    return code;
}

int call_secret(platter_secret_fn fn, void *opaque, const struct platter_secret *question,
                struct secret *ret, struct platter_error *err)
{
    static const char *const missing[] = {
        [PLATTER_SECRET_OPEN] = "is encrypted, and its key was not given",
        [PLATTER_SECRET_NEW] = "no new key was given",
        [PLATTER_SECRET_REMOVE] = "the key that is to be removed was not given"};
    ret->len = 0;
    if (!fn)
        return fail(err, ENOKEY, "%s: is encrypted, and no key was given (--key-file)",
                    question->image);
    if (fn(opaque, question, ret->bytes, &ret->len) != 0)
        return fail(err, ENOKEY, "%s: %s", question->image, missing[question->kind]);
    if (ret->len > PLATTER_MAX_SECRET)
        return fail(err, EINVAL, "%s: a key has more than %d bytes", question->image,
                    PLATTER_MAX_SECRET);
    if (ret->len == 0 && question->kind == PLATTER_SECRET_NEW)
        return fail(err, EINVAL, "%s: the new key is empty, and would let everybody in",
                    question->image);
    return 0;
}

int ask_secret(const struct name_opener *opener, const struct platter_secret *question,
               struct secret *ret, struct platter_error *err)
{
    return opener && opener->secret ? opener->secret(opener, question, ret, err)
                                    : call_secret(NULL, NULL, question, ret, err);
}
