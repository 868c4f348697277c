/* SPDX-License-Identifier: MIT */
/* Checked arithmetic for every number that comes from a file: true means it did not fit. */
#ifndef BASE_CKD_H
#define BASE_CKD_H

#include <stdbool.h>
#include <stdint.h>

#define ckd_add(result, a, b) __builtin_add_overflow(a, b, result)
#define ckd_sub(result, a, b) __builtin_sub_overflow(a, b, result)
#define ckd_mul(result, a, b) __builtin_mul_overflow(a, b, result)

/* Rounding by a power of two. round_up() may wrap: bound the value first, or use ckd_round_up(). */
static inline uint64_t round_down(uint64_t value, uint64_t align)
{
    return value & ~(align - 1);
}

static inline uint64_t round_up(uint64_t value, uint64_t align)
{
    return (value + align - 1) & ~(align - 1);
}

static inline bool ckd_round_up(uint64_t *result, uint64_t value, uint64_t align)
{
    uint64_t sum;
    if (ckd_add(&sum, value, align - 1))
        return true;
    *result = round_down(sum, align);
    return false;
}

/* Integer division that rounds up, for any divisor but 0, without overflow. */
static inline uint64_t div_up(uint64_t value, uint64_t by)
{
    return value / by + (value % by != 0);
}

static inline bool is_power_of_2(uint64_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

/* Whether [off, off + len) lies inside [0, size). */
static inline bool range_inside(uint64_t off, uint64_t len, uint64_t size)
{
    return off <= size && len <= size - off;
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

#endif
