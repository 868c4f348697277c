/* SPDX-License-Identifier: MIT */
/*
 * Parses the input as the text descriptor of a VMDK, alone and embedded, and changes it: the text
 * that comes out must say what was asked for, and all else that it said before.
 */
#include <strings.h>

#include "format/vmdk/vmdk.h"

#include "fuzz/target.h"

/* The text of an edit, taken apart; NULL: the change was refused. */
static struct descriptor *parse_edit(struct budget *budget, struct descriptor_edit *e)
{
    const char *text;
    size_t len;
    struct descriptor *d = NULL;
    struct platter_error err = {0};
    if (descriptor_edit_result(e, &text, &len, &err) == 0 &&
        descriptor_parse(budget, "fuzz", (const uint8_t *)text, len, true, &d, &err) < 0 &&
        err.code != ENOMEM && len <= VMDK_MAX_DESCRIPTOR / 2)
        fuzz_found("a changed text is none any more: %s", err.message);
    descriptor_edit_drop(e);
    return d;
}

static void expect_value(const struct descriptor *d, const char *key, const char *value)
{
    const char *got = descriptor_value(d, key);
    bool same = got && value ? strcmp(got, value) == 0 : got == value;
    if (!same)
        fuzz_found("%s is %s, not %s", key, got ? got : "not there", value ? value : "nothing");
}

static bool is_changed_key(const char *key)
{
    static const char *const keys[] = {"CID", "parentCID", "parentFileNameHint", "ddb.comment"};
    for (unsigned i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcasecmp(keys[i], key) == 0)
            return true;
    return false;
}

static void expect_rest(const struct descriptor *before, const struct descriptor *d)
{
    for (unsigned i = 0; i < before->n_lines; i++)
        if (!is_changed_key(before->lines[i].key))
            expect_value(d, before->lines[i].key, descriptor_value(before, before->lines[i].key));
    if (d->n_extents != before->n_extents + 1)
        fuzz_found("%u extents became %u", before->n_extents, d->n_extents);
    for (unsigned i = 1; i < before->n_extents; i++) {
        const struct descriptor_extent *x = &before->extents[i], *y = &d->extents[i];
        if (x->access != y->access || x->type != y->type || x->sectors != y->sectors ||
            x->offset != y->offset || !x->file != !y->file ||
            (x->file && strcmp(x->file, y->file) != 0))
            fuzz_found("extent %u is another one", i);
    }
}

static void change(struct budget *budget, const struct descriptor *before, const uint8_t *data,
                   size_t size)
{
    struct descriptor_edit *e;
    struct platter_error err = {0};
    if (before->n_extents == VMDK_MAX_EXTENTS ||
        descriptor_edit_text(budget, "fuzz", data, size, &e, &err) < 0)
        return;
    struct descriptor_extent x = {ACCESS_WRITE, TYPE_FLAT, NULL, 12345, "new.vmdk", 0};
    descriptor_edit_set_cid(e, "CID", 0xabcdef01);
    descriptor_edit_set(e, "parentCID", "0000000f");
    descriptor_edit_set(e, "parentFileNameHint", "a longer name.vmdk");
    descriptor_edit_remove(e, "ddb.comment");
    descriptor_edit_sectors(e, 0, 777);
    descriptor_edit_add_extent(e, &x);
    struct descriptor *d = parse_edit(budget, e);
    if (!d)
        return;
    expect_value(d, "CID", "abcdef01");
    expect_value(d, "parentCID", "0000000f");
    expect_value(d, "parentFileNameHint", "a longer name.vmdk");
    expect_value(d, "ddb.comment", NULL);
    expect_rest(before, d);
    if (d->extents[0].sectors != 777 || strcmp(d->extents[d->n_extents - 1].file, "new.vmdk") != 0)
        fuzz_found("the extents are not what they were made");
    descriptor_free(d);
}

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
        change(budget, d, data, size);
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
