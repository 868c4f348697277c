/* SPDX-License-Identifier: MIT */
/* What the checks of all formats share: counting findings and telling of them. */
#include <stdarg.h>
#include <stdio.h>

#include "format/format.h"

enum { MOST_TOLD = 1000 }; /* sentences; a damaged table may be good for millions */

static void count(struct check *c, enum platter_severity severity, bool mended, uint64_t n)
{
    struct platter_check_result *r = &c->result;
    switch (severity) {
    case PLATTER_FINDING_NOTE:
        break;
    case PLATTER_FINDING_LEAK:
        *(mended ? &r->leaks_fixed : &r->leaks) += n;
        break;
    case PLATTER_FINDING_ERROR:
        *(mended ? &r->corruptions_fixed : &r->corruptions) += n;
        break;
    case PLATTER_FINDING_UNSEEN:
        r->check_errors += n;
        break;
    }
}

static void tell(struct check *c, enum platter_severity severity, bool mended, const char *text)
{
    struct platter_finding f = {
        .size = sizeof f, .severity = severity, .mended = mended, .again = c->again, .text = text};
    if (c->finding)
        c->finding(c->opaque, &f);
}

void check_found(struct check *c, enum platter_severity severity, bool mended, uint64_t n,
                 const char *format, ...)
{
    char text[sizeof(((struct platter_error *)0)->message)];
    count(c, severity, mended, n);
    if (c->told++ == MOST_TOLD)
        tell(c, PLATTER_FINDING_NOTE, false, "there is more, which is only counted");
    if (c->told > MOST_TOLD)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    tell(c, severity, mended, text);
}

void check_failed(struct check *c, int code, const struct platter_error *err)
{
    bool damage = code == -PLATTER_ECORRUPT;
    check_found(c, damage ? PLATTER_FINDING_ERROR : PLATTER_FINDING_UNSEEN, false, 1, "%s",
                err->message);
}

int check_progress(struct check *c, uint64_t done, uint64_t total, struct platter_error *err)
{
    struct platter_progress p = {.size = sizeof p, .done = done, .total = total, .moved = done};
    if (c->progress && c->progress(c->opaque, &p))
        return fail(err, ECANCELED, "cancelled");
    return 0;
}
