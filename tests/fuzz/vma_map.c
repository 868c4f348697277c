/* SPDX-License-Identifier: MIT */
/*
 * Parses the input as a line that tells where a disk goes (vma.md section 8.2). What it understands
 * stands inside of the line, and written down in its usual form is understood the same way again.
 */
#include <stdio.h>
#include <string.h>

#include "../../cli/vma_map.h"
#include "base/memory.h"
#include "fuzz/target.h"

static void check_inside(const char *line, size_t size, const char *text)
{
    if (text && (text < line || text > line + size))
        fuzz_found("a part of the line that is not in it");
}

static bool is_same(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static char *usual_form(const struct map_line *m)
{
    if (m->skip)
        return string_format("skip=%s", m->name);
    auto_free char *bps =
        m->bps ? string_format("throttling.bps=%llu:", (unsigned long long)m->bps) : NULL;
    return string_format(
        "%s%s%s%s%s%s%s%s%s%s%c:%s=%s", m->cache ? "cache=" : "", m->cache ? m->cache : "",
        m->cache ? ":" : "", m->group ? "throttling.group=" : "", m->group ? m->group : "",
        m->group ? ":" : "", bps ? bps : "", m->format ? "format=" : "", m->format ? m->format : "",
        m->format ? ":" : "", m->write_zeros ? '1' : '0', m->name, m->path);
}

static void check_again(const struct map_line *m)
{
    struct map_line again;
    const char *why = NULL;
    auto_free char *line = usual_form(m);
    if (!line)
        abort();
    if (map_line_parse(line, &again, &why) != 0)
        fuzz_found("is not understood again: %s", why);
    if (again.skip != m->skip || again.write_zeros != m->write_zeros || again.bps != m->bps ||
        !is_same(again.name, m->name) || !is_same(again.path, m->path) ||
        !is_same(again.format, m->format) || !is_same(again.group, m->group) ||
        !is_same(again.cache, m->cache))
        fuzz_found("is understood as something else");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct map_line m;
    const char *why = NULL;
    auto_free char *line = malloc(size + 1);
    if (!line)
        abort();
    memcpy(line, data, size);
    line[size] = '\0';
    int r = map_line_parse(line, &m, &why);
    if ((r < 0) != (why != NULL) || r > 0)
        fuzz_found("%d, and %s", r, why ? why : "no reason");
    if (r < 0)
        return 0;
    check_inside(line, size, m.name);
    check_inside(line, size, m.path);
    check_inside(line, size, m.format);
    check_inside(line, size, m.group);
    check_inside(line, size, m.cache);
    if (!m.name || !*m.name || m.skip != !m.path)
        fuzz_found("a line without a name, or a path");
    check_again(&m);
    return 0;
}
