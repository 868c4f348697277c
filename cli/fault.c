/* SPDX-License-Identifier: MIT */
/* What is wrong with an archive, as JSON. */
#include "cli.h"

static const char *kind_name(enum platter_fault_kind kind)
{
    static const char *const names[] = {[PLATTER_FAULT_HEADER] = "header",
                                        [PLATTER_FAULT_EXTENT] = "extent",
                                        [PLATTER_FAULT_TRUNCATED] = "truncated",
                                        [PLATTER_FAULT_TRAILING] = "trailing",
                                        [PLATTER_FAULT_LOST] = "lost",
                                        [PLATTER_FAULT_UNKNOWN] = "unknown-disk",
                                        [PLATTER_FAULT_DUPLICATE] = "duplicate",
                                        [PLATTER_FAULT_BEYOND] = "beyond-end",
                                        [PLATTER_FAULT_ORDER] = "order",
                                        [PLATTER_FAULT_MISSING] = "missing",
                                        [PLATTER_FAULT_DIGEST] = "digest",
                                        [PLATTER_FAULT_WRAPPER] = "wrapper",
                                        [PLATTER_FAULT_NOTE] = "note",
                                        [PLATTER_FAULT_DOUBT] = "doubtful",
                                        [PLATTER_FAULT_UNREADABLE] = "unreadable"};
    return (size_t)kind < sizeof names / sizeof *names ? names[kind] : "other";
}

json_t *fault_json(const struct platter_fault *fault)
{
    json_t *o = json_pack("{s:s, s:I}", "kind", kind_name(fault->kind), "archive-offset",
                          (json_int_t)fault->archive_offset);
    if (fault->archive_length)
        json_object_set_new(o, "archive-length", json_integer((json_int_t)fault->archive_length));
    if (fault->disk) {
        json_object_set_new(o, "disk", json_text(fault->disk));
        json_object_set_new(o, "offset", json_integer((json_int_t)fault->offset));
        json_object_set_new(o, "length", json_integer((json_int_t)fault->length));
    }
    json_object_set_new(o, "text", json_text(fault->text));
    return o;
}

json_t *range_json(const struct platter_fault *fault)
{
    return json_pack("{s:I, s:I}", "offset", (json_int_t)fault->offset, "length",
                     (json_int_t)fault->length);
}

uint64_t ranges_length(const json_t *ranges)
{
    uint64_t n = 0;
    size_t i;
    json_t *range;
    json_array_foreach (ranges, i, range)
        n += (uint64_t)json_integer_value(json_object_get(range, "length"));
    return n;
}

bool fault_doubts(const struct platter_fault *fault)
{
    return fault->kind == PLATTER_FAULT_DOUBT || fault->kind == PLATTER_FAULT_DUPLICATE;
}
