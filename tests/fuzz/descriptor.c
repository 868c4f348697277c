/* SPDX-License-Identifier: MIT */
/* Parses the input as the text descriptor of a VMDK, alone and embedded. */
#include "format/vmdk/vmdk.h"

#include "fuzz/target.h"

static void parse(const uint8_t *data, size_t size, bool embedded)
{
    struct budget *budget = budget_new(FUZZ_MEMORY);
    struct descriptor *d;
    struct platter_error err = {0};
    if (!budget)
        return;
    if (descriptor_parse(budget, "fuzz", data, size, embedded, &d, &err) == 0) {
        descriptor_value(d, "createType");
        for (unsigned i = 0; i < d->n_lines; i++) {
            if (!descriptor_find(d, d->lines[i].key))
                fuzz_found("line %u is not found again", i);
        }
        descriptor_free(d);
    } else if (!err.message[0]) {
        fuzz_found("a descriptor was refused without a word");
    }
    budget_unref(budget);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > VMDK_MAX_DESCRIPTOR)
        return 0;
    parse(data, size, false);
    parse(data, size, true);
    return 0;
}
