/* SPDX-License-Identifier: MIT */
/* Parses the input as creation options of every format, and as a size. */
#include "base/options.h"

#include <string.h>

#include "fuzz/target.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    if (!text)
        return 0;
    if (size)
        memcpy(text, data, size);
    text[size] = '\0';
    for (const struct format *const *f = formats; *f; f++) {
        struct option_values *values;
        struct platter_measurement measurement = {.size = sizeof measurement};
        if (!(*f)->create_options || options_parse((*f)->create_options, text, &values, NULL) != 0)
            continue;
        if ((*f)->measure)
            (*f)->measure(1 << 30, 1 << 20, values, &measurement, NULL);
        if ((*f)->create_unit)
            (*f)->create_unit(values);
        options_free(values);
    }
    uint64_t bytes;
    parse_size(text, &bytes, NULL);
    free(text);
    return 0;
}
