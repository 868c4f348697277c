/* SPDX-License-Identifier: MIT */
/* VMDK: the table of its operations, and how its files are recognised (vmdk.md section 2). */
#include <strings.h>

#include "format/vmdk/vmdk.h"

static bool has_word(const uint8_t *text, size_t len, const char *word)
{
    size_t n = strlen(word);
    for (size_t i = 0; i + n <= len; i++)
        if (strncasecmp((const char *)text + i, word, n) == 0)
            return true;
    return false;
}

/* Moves *i over characters of a set. */
static void skip(const uint8_t *text, size_t len, size_t *i, const char *set)
{
    while (*i < len && text[*i] && strchr(set, text[*i]))
        (*i)++;
}

/* Whether `version = 1` to 3 stands at i, or the signature, which is a comment. */
static bool is_first_line(const uint8_t *text, size_t len, size_t i)
{
    static const char signature[] = "# Disk DescriptorFile", key[] = "version";
    if (len - i >= sizeof signature - 1 &&
        strncasecmp((const char *)text + i, signature, sizeof signature - 1) == 0)
        return true;
    if (len - i < sizeof key - 1 || strncasecmp((const char *)text + i, key, sizeof key - 1) != 0)
        return false;
    i += sizeof key - 1;
    skip(text, len, &i, " \t");
    if (i == len || text[i++] != '=')
        return false;
    skip(text, len, &i, " \t\"");
    return i < len && text[i] >= '1' && text[i] <= '3';
}

bool descriptor_probe(const uint8_t *prefix, size_t len)
{
    len = strnlen((const char *)prefix, len);
    size_t i = text_begin(prefix, len);
    skip(prefix, len, &i, " \t\r\n");
    while (i < len && prefix[i] == '#' && !is_first_line(prefix, len, i)) {
        while (i < len && prefix[i] != '\n')
            i++;
        skip(prefix, len, &i, " \t\r\n");
    }
    return is_first_line(prefix, len, i) && has_word(prefix, len, "createType");
}

static enum probe vmdk_probe(const uint8_t *prefix, size_t len, uint64_t file_size)
{
    static const uint8_t sesparse[8] = {0xbe, 0xba, 0xfe, 0xca};
    (void)file_size;
    if (len >= 4 &&
        (hosted_magic(prefix) || memcmp(prefix, "kdmv", 4) == 0 || memcmp(prefix, "COWD", 4) == 0))
        return PROBE_SURE;
    if (len >= sizeof sesparse && memcmp(prefix, sesparse, sizeof sesparse) == 0)
        return PROBE_SURE;
    return descriptor_probe(prefix, len) ? PROBE_SURE : PROBE_NO;
}

const struct format format_vmdk = {
    .name = "vmdk",
    .title = "VMware virtual disk",
    .only_backing = "vmdk",
    .needs_file = true,
    .probe = vmdk_probe,
    .open = vmdk_open,
    .accept_backing = vmdk_accept_backing,
    .close = vmdk_close,
    .file = vmdk_file,
    .map = vmdk_map,
    .unpack = vmdk_unpack,
    .reserve = vmdk_reserve,
    .commit = vmdk_commit,
    .abandon = vmdk_abandon,
    .mark = vmdk_mark,
    .flush = vmdk_flush,
    .resize = vmdk_resize,
    .set_backing = vmdk_set_backing,
    .follow_backing = vmdk_follow_backing,
    .make_empty = vmdk_make_empty,
    .may_set_backing = vmdk_may_set_backing,
    .may_commit = vmdk_may_commit,
    .check = vmdk_check,
    .create_options = vmdk_options,
    .create = vmdk_create,
    .ordered = vmdk_ordered,
    .writer_open = vmdk_writer_open,
    .measure = vmdk_measure,
    .create_unit = vmdk_create_unit,
    .info = vmdk_info,
    .info_top = vmdk_info_top,
};
