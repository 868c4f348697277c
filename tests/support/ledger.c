/* SPDX-License-Identifier: MIT */
/* The ledger of a guest's calls: ledger.h. */
#include "support/ledger.h"

#include "base/cursor.h"
#include "base/memory.h"
#include "support/must.h"

struct ledger_op {
    enum ledger_kind kind;
    bool ok;
    uint64_t first, sectors;
    size_t begun, ended;
};

struct ledger {
    uint64_t sectors;
    const uint8_t *initial;
    uint32_t n, max; /* ops[0] stands for what was there at first */
    struct ledger_op *ops;
    uint32_t *settled; /* per sector: the last write that surely happened, while allows() runs */
};

struct ledger *ledger_new(uint64_t sectors, const uint8_t *initial, uint32_t max_ops)
{
    struct ledger *l = calloc(1, sizeof *l);
    MUST(l);
    *l = (struct ledger){.sectors = sectors, .initial = initial, .n = 1, .max = max_ops + 1};
    l->ops = calloc(l->max, sizeof *l->ops);
    l->settled = calloc(sectors, sizeof *l->settled);
    MUST(l->ops && l->settled);
    return l;
}

void ledger_free(struct ledger *l)
{
    if (!l)
        return;
    free(l->ops);
    free(l->settled);
    free(l);
}

void ledger_reset(struct ledger *l)
{
    l->n = 1;
}

bool ledger_full(const struct ledger *l)
{
    return l->n == l->max;
}

uint32_t ledger_begin(struct ledger *l, enum ledger_kind kind, uint64_t first, uint64_t sectors,
                      size_t position)
{
    MUST(l->n < l->max && first + sectors <= l->sectors);
    l->ops[l->n] = (struct ledger_op){
        .kind = kind, .first = first, .sectors = sectors, .begun = position, .ended = SIZE_MAX};
    return l->n++;
}

void ledger_end(struct ledger *l, uint32_t op, bool ok, size_t position)
{
    l->ops[op].ok = ok;
    l->ops[op].ended = position;
}

void ledger_stamp(uint8_t *out, uint32_t op, uint64_t first, uint64_t sectors)
{
    for (uint64_t i = 0; i < sectors; i++) {
        uint64_t stamp = (uint64_t)op << 32 | (first + i);
        for (unsigned word = 0; word < SECTOR / 8; word++)
            put_le(out + i * SECTOR + word * 8, 8, stamp);
    }
}

uint32_t ledger_last_flush(const struct ledger *l, size_t position)
{
    for (uint32_t i = l->n; i-- > 1;) {
        const struct ledger_op *op = &l->ops[i];
        if (op->kind == LEDGER_FLUSH && op->ok && op->ended <= position)
            return i;
    }
    return 0;
}

static void settle(const struct ledger *l, size_t position)
{
    memset(l->settled, 0, l->sectors * sizeof *l->settled);
    uint32_t flush = ledger_last_flush(l, position);
    for (uint32_t i = 1; i < flush; i++) {
        const struct ledger_op *op = &l->ops[i];
        if (!op->ok || (op->kind != LEDGER_WRITE && op->kind != LEDGER_ZERO))
            continue;
        for (uint64_t s = op->first; s < op->first + op->sectors; s++)
            l->settled[s] = i;
    }
}

/* Whether op may have left its mark on the sector. */
static bool possible(const struct ledger *l, uint32_t i, uint64_t sector, size_t position)
{
    const struct ledger_op *op = &l->ops[i];
    return i >= l->settled[sector] && op->begun < position && sector >= op->first &&
           sector < op->first + op->sectors;
}

static bool sector_allowed(const struct ledger *l, const uint8_t *bytes, uint64_t sector,
                           size_t position)
{
    if (l->settled[sector] == 0 && memcmp(bytes, l->initial + sector * SECTOR, SECTOR) == 0)
        return true;
    if (!is_zero(bytes, SECTOR)) {
        uint64_t op = get_le(bytes, 8) >> 32;
        uint8_t stamp[8];
        if (op == 0 || op >= l->n || l->ops[op].kind != LEDGER_WRITE)
            return false;
        put_le(stamp, 8, op << 32 | sector);
        bool whole = memcmp(bytes, stamp, 8) == 0 && memcmp(bytes, bytes + 8, SECTOR - 8) == 0;
        return whole && possible(l, (uint32_t)op, sector, position);
    }
    for (uint32_t i = l->n; i-- > 1;) {
        enum ledger_kind kind = l->ops[i].kind;
        if ((kind == LEDGER_ZERO || kind == LEDGER_DISCARD) && possible(l, i, sector, position))
            return true;
    }
    return false;
}

bool ledger_allows(const struct ledger *l, const uint8_t *content, size_t position, char *why,
                   size_t why_size)
{
    settle(l, position);
    for (uint64_t s = 0; s < l->sectors; s++) {
        const uint8_t *bytes = content + s * SECTOR;
        if (sector_allowed(l, bytes, s, position))
            continue;
        uint64_t stamp = get_le(bytes, 8);
        snprintf(why, why_size,
                 "sector %llu holds write %llu of sector %llu; settled is write %u of %u",
                 (unsigned long long)s, (unsigned long long)(stamp >> 32),
                 (unsigned long long)(stamp & UINT32_MAX), l->settled[s], l->n);
        return false;
    }
    return true;
}
