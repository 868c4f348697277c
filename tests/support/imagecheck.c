/* SPDX-License-Identifier: MIT */
/* What the checkers of images share: imagecheck.h. */
#include "support/imagecheck.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "support/esx.h"

void report_error(struct image_report *r, const char *format, ...)
{
    if (r->errors++ > 0)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(r->first, sizeof r->first, format, args);
    va_end(args);
}

void report_leak(struct image_report *r, const char *format, ...)
{
    if (r->leaks++ > 0 || r->errors > 0)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(r->first, sizeof r->first, format, args);
    va_end(args);
}

void image_check(const char *format, const uint8_t *bytes, uint64_t size, struct image_report *ret)
{
    *ret = (struct image_report){0};
    if (strcmp(format, "qcow2") == 0)
        qcow2_judge(bytes, size, ret);
    else if (strcmp(format, "qcow") == 0)
        qcow_judge(bytes, size, ret);
    else if (strcmp(format, "vmdk") == 0 && esx_kind_of(bytes, size) != ESX_NONE)
        esx_judge(bytes, size, ret);
    else if (strcmp(format, "vmdk") == 0)
        vmdk_judge(bytes, size, ret);
}
