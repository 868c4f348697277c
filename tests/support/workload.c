/* SPDX-License-Identifier: MIT */
/* What a guest does to a specimen, kept in a ledger: specimen.h. */
#include "base/ckd.h"
#include "support/log.h"
#include "support/specimen.h"

static size_t position(const struct workload *w)
{
    return w->log ? write_log_length(w->log) : 0;
}

static int done(struct workload *w, uint32_t op, int r)
{
    ledger_end(w->ledger, op, r == 0, position(w));
    w->failed += r != 0;
    return r;
}

int workload_write(struct workload *w, uint64_t first, uint64_t n)
{
    uint32_t op = ledger_begin(w->ledger, LEDGER_WRITE, first, n, position(w));
    ledger_stamp(w->scratch, op, first, n);
    return done(w, op, disk_write(w->disk, w->scratch, n * SECTOR, first * SECTOR, NULL));
}

int workload_zero(struct workload *w, uint64_t first, uint64_t n, bool unmap)
{
    uint32_t op = ledger_begin(w->ledger, LEDGER_ZERO, first, n, position(w));
    return done(w, op, disk_zero(w->disk, first * SECTOR, n * SECTOR, unmap, NULL));
}

/* What reads as zeros after a discard must stay so: it is kept as if zeros had been written. */
static void settle_discard(struct workload *w, uint64_t first, uint64_t n, size_t begun)
{
    if (disk_read(w->disk, w->scratch, n * SECTOR, first * SECTOR, NULL) != 0)
        return;
    for (uint64_t i = 0, run; i < n && !ledger_full(w->ledger); i += run) {
        bool zero = is_zero(w->scratch + i * SECTOR, SECTOR);
        for (run = 1; i + run < n; run++) {
            if (is_zero(w->scratch + (i + run) * SECTOR, SECTOR) != zero)
                break;
        }
        if (zero) {
            uint32_t op = ledger_begin(w->ledger, LEDGER_ZERO, first + i, run, begun);
            ledger_end(w->ledger, op, true, position(w));
        }
    }
}

int workload_discard(struct workload *w, uint64_t first, uint64_t n)
{
    size_t begun = position(w);
    uint32_t op = ledger_begin(w->ledger, LEDGER_DISCARD, first, n, begun);
    int r = done(w, op, disk_discard(w->disk, first * SECTOR, n * SECTOR, NULL));
    if (r == 0)
        settle_discard(w, first, n, begun);
    return r;
}

int workload_flush(struct workload *w)
{
    uint32_t op = ledger_begin(w->ledger, LEDGER_FLUSH, 0, 0, position(w));
    int r = done(w, op, disk_flush(w->disk, NULL));
    w->failed_flushes += r != 0;
    return r;
}

void workload_script(struct workload *w)
{
    uint64_t c = w->cluster, all = w->sectors, half = all / 2;
    workload_write(w, 1, all / 16);
    workload_flush(w);
    /* One sector in every eighth of the disk: table after table is made, where compressed clusters
     * stood until the flush, if there were any. */
    for (uint64_t i = 0; i < 8; i++)
        workload_write(w, i * all / 8 + 3, 1);
    workload_write(w, half - c, 2 * c);
    workload_flush(w);
    /* What is freed and what is allocated at once, with no flush between (rule 3). */
    workload_discard(w, half - c, 2 * c);
    workload_write(w, all - 3 * c, 3 * c);
    workload_zero(w, half, c, true);
    workload_write(w, c, 2 * c);
    workload_flush(w);
    workload_zero(w, 0, 4 * c, false);
    workload_write(w, c + 1, c);
    workload_discard(w, 0, half);
    workload_write(w, 0, half / 2);
    workload_flush(w);
    workload_write(w, half / 4, half);
    workload_zero(w, half / 4 + 1, half / 2, true);
    workload_write(w, half / 4 + c, 3);
}

/* A length of the kinds that matter: some sectors, whole clusters, across several. */
static uint64_t pick_length(struct workload *w)
{
    switch (prng_below(&w->prng, 6)) {
    case 0:
    case 1:
        return 1 + prng_below(&w->prng, 4);
    case 2:
    case 3:
        return w->cluster * (1 + prng_below(&w->prng, 3));
    case 4:
        return 1 + prng_below(&w->prng, 6 * w->cluster);
    default:
        return 1 + prng_below(&w->prng, w->sectors / 8);
    }
}

void workload_step(struct workload *w)
{
    uint64_t first = prng_below(&w->prng, w->sectors);
    if (prng_chance(&w->prng, 60))
        first = round_down(first, w->cluster);
    uint64_t n = min_u64(pick_length(w), w->sectors - first);
    uint64_t dice = prng_below(&w->prng, 100);
    if (dice < 60)
        workload_write(w, first, n);
    else if (dice < 70)
        workload_zero(w, first, n, false);
    else if (dice < 78)
        workload_zero(w, first, n, true);
    else if (dice < 90)
        workload_discard(w, first, n);
    else
        workload_flush(w);
}
