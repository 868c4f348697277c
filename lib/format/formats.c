/* SPDX-License-Identifier: MIT */
/* The table of formats: one line each. */
#include "format/format.h"

#include <string.h>

const struct format *const formats[] = {
    &format_qcow2,
    &format_vmdk,
    &format_raw,
    NULL,
};

const struct format *format_find(const char *name)
{
    for (const struct format *const *f = formats; *f; f++)
        if (strcmp((*f)->name, name) == 0)
            return *f;
    return NULL;
}

int image_poison(struct image *img, int code)
{
    int expected = 0;
    atomic_compare_exchange_strong(&img->poison, &expected, code);
    return code;
}
