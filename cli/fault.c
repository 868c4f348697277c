/* SPDX-License-Identifier: MIT */
/* What is wrong with an archive, in lines and as JSON. */
#include <inttypes.h>
#include <string.h>

#include "cli.h"

enum {
    MOST_TOLD = 100,    /* lines of one kind */
    MOST_KEPT = 10000,  /* faults for JSON: with their sentences some 10 MiB */
    MOST_RANGES = 50000 /* of all disks: as much */
};

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

/* "kind", "archive-offset", "disk" with "offset" and "length" where there is one, and "text". */
static json_t *fault_json(const struct platter_fault *fault)
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

/* ---- all of them ------------------------------------------------------------------------------
 */

static size_t kind_of(const struct platter_fault *fault)
{
    return (size_t)fault->kind < FAULT_KINDS ? (size_t)fault->kind : PLATTER_FAULT_NOTE;
}

void fault_log_take(struct fault_log *log, const struct platter_fault *fault)
{
    uint64_t *told = &log->told[kind_of(fault)];
    log->n++;
    log->n_faults += fault->kind != PLATTER_FAULT_NOTE;
    if (log->faults && json_array_size(log->faults) < MOST_KEPT)
        json_array_append_new(log->faults, fault_json(fault));
    if (log->silent || ++*told > MOST_TOLD)
        return;
    if (log->progress)
        progress_clear(log->progress);
    say("%s", fault->text);
}

void fault_log_end(struct fault_log *log)
{
    for (unsigned kind = 0; kind < FAULT_KINDS; kind++)
        if (log->told[kind] > MOST_TOLD)
            say("... and %" PRIu64 " more of this kind: %s", log->told[kind] - MOST_TOLD,
                kind_name(kind));
    memset(log->told, 0, sizeof log->told);
}

static void set_number(json_t *o, const char *field, uint64_t n)
{
    json_object_set_new(o, field, json_integer((json_int_t)n));
}

void fault_log_describe(const struct fault_log *log, json_t *o)
{
    set_number(o, "fault-count", log->n_faults);
    if (log->n > json_array_size(log->faults))
        set_number(o, "faults-left-out", log->n - json_array_size(log->faults));
    json_object_set(o, "faults", log->faults);
}

/* ---- ranges ------------------------------------------------------------------------------------
 */

void fault_ranges_add(struct fault_log *log, struct fault_ranges *ranges,
                      const struct platter_fault *fault)
{
    size_t kept = json_array_size(ranges->list);
    bool goes_on = ranges->n && ranges->end == fault->offset;
    ranges->end = fault->offset + fault->length;
    ranges->bytes += fault->length;
    if (goes_on && kept == ranges->n) {
        json_t *last = json_object_get(json_array_get(ranges->list, kept - 1), "length");
        json_integer_set(last, json_integer_value(last) + (json_int_t)fault->length);
    }
    ranges->n += !goes_on;
    if (goes_on || kept + 1 != ranges->n || log->n_ranges == MOST_RANGES)
        return;
    json_array_append_new(ranges->list, json_pack("{s:I, s:I}", "offset", (json_int_t)fault->offset,
                                                  "length", (json_int_t)fault->length));
    log->n_ranges++;
}

void fault_ranges_describe(const struct fault_ranges *ranges, json_t *o, const char *field)
{
    char left_out[64];
    json_object_set_new(o, field, ranges->list ? json_incref(ranges->list) : json_array());
    snprintf(left_out, sizeof left_out, "%s-left-out", field);
    if (ranges->n > json_array_size(ranges->list))
        set_number(o, left_out, ranges->n - json_array_size(ranges->list));
}

bool fault_doubts(const struct platter_fault *fault)
{
    return fault->kind == PLATTER_FAULT_DOUBT || fault->kind == PLATTER_FAULT_DUPLICATE;
}
