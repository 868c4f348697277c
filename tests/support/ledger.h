/* SPDX-License-Identifier: MIT */
/*
 * What a guest did to a disk, and so what each sector may hold afterwards: when the power failed in
 * between, or when some calls failed.
 *
 * Every write of the ledger stamps its sectors with its own number and theirs, so that a sector
 * tells which write it came from, and foreign or stale bytes show. What was flushed must be there;
 * what was not may be any of the writes since, each sector for itself. A write that failed may have
 * happened in part, and stays possible until a later one that succeeded covers it.
 *
 * Positions are lengths of a write log: what began at position p can only show in states made of
 * more than p entries. Where there is no log, 0 will do for all of them and SIZE_MAX for the check.
 */
#ifndef SUPPORT_LEDGER_H
#define SUPPORT_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SECTOR = 512 };

enum ledger_kind {
    LEDGER_WRITE,
    LEDGER_ZERO,
    LEDGER_DISCARD, /* zeros become possible; what was there before stays so */
    LEDGER_FLUSH
};

struct ledger;

/* A disk of `sectors` that holds `initial` (kept, not copied). */
struct ledger *ledger_new(uint64_t sectors, const uint8_t *initial, uint32_t max_ops);
void ledger_free(struct ledger *l);
/* Forgets all that was done. */
void ledger_reset(struct ledger *l);
/* Whether max_ops were begun: nothing more fits. */
bool ledger_full(const struct ledger *l);

/* A call begins; returns its number. */
uint32_t ledger_begin(struct ledger *l, enum ledger_kind kind, uint64_t first, uint64_t sectors,
                      size_t position);
void ledger_end(struct ledger *l, uint32_t op, bool ok, size_t position);

/* What write number op puts into `sectors` from `first` on. */
void ledger_stamp(uint8_t *out, uint32_t op, uint64_t first, uint64_t sectors);

/* The last flush that was over with `position` entries of the log written: what ended before it
 * must be there. 0: there was none. */
uint32_t ledger_last_flush(const struct ledger *l, size_t position);

/* Whether a disk that reads as `content` may have come of this, with `position` entries of the log
 * written. If not, `why` says which sector. */
bool ledger_allows(const struct ledger *l, const uint8_t *content, size_t position, char *why,
                   size_t why_size);

#endif
