/* SPDX-License-Identifier: MIT */
/* The input is the document of a source-spec, of which no file is opened: it is parsed, or refused
 * in words. */
#include "disk/source.h"

#include <string.h>

#include "fuzz/target.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct platter_error err = {0};
    struct source s;
    char *text = malloc(size + 2);
    if (!text)
        return 0;
    text[0] = '{'; /* anything else would be the name of a file */
    if (size)
        memcpy(text + 1, data, size);
    text[size + 1] = '\0';
    if (source_of(text, NULL, &s, &err) == 0) {
        if (!source_name(&s) || (!s.format && !s.qcow))
            fuzz_found("a document says nothing");
        source_done(&s);
    } else if (err.code <= 0 || err.message[0] == '\0') {
        fuzz_found("a document is refused without a word");
    }
    free(text);
    return 0;
}
