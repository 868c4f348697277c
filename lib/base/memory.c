/* SPDX-License-Identifier: MIT */
#include "base/memory.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/ckd.h"

char *string_copy(const char *s)
{
    return s ? strdup(s) : NULL;
}

char *string_format(const char *format, ...)
{
    char *text;
    va_list args;
    va_start(args, format);
    int r = vasprintf(&text, format, args);
    va_end(args);
    return r < 0 ? NULL : text;
}

struct budget {
    atomic_uint refs;
    uint64_t limit;
    _Atomic uint64_t used;
};

struct budget *budget_new(uint64_t limit)
{
    struct budget *b = malloc(sizeof *b);
    if (!b)
        return NULL;
    atomic_init(&b->refs, 1);
    atomic_init(&b->used, 0);
    b->limit = limit;
    return b;
}

struct budget *budget_ref(struct budget *b)
{
    atomic_fetch_add(&b->refs, 1);
    return b;
}

void budget_unref(struct budget *b)
{
    if (b && atomic_fetch_sub(&b->refs, 1) == 1)
        free(b);
}

uint64_t budget_limit(const struct budget *b)
{
    return b->limit;
}

int budget_take(struct budget *b, uint64_t n, const char *what, struct platter_error *err)
{
    uint64_t used = atomic_load(&b->used);
    do {
        if (n > b->limit - used)
            return fail(err, ENOMEM,
                        "%s needs %" PRIu64 " bytes, but of the memory limit of %" PRIu64
                        " bytes only %" PRIu64 " are left: raise the limit",
                        what, n, b->limit, b->limit - used);
    } while (!atomic_compare_exchange_weak(&b->used, &used, used + n));
    return 0;
}

void budget_give(struct budget *b, uint64_t n)
{
    atomic_fetch_sub(&b->used, n);
}

int budget_alloc_buffer(struct budget *b, uint64_t n, const char *what, void *ret_memory,
                        struct platter_error *err)
{
    int r = budget_take(b, n, what, err);
    if (r < 0)
        return r;
    void *memory = NULL;
    uint64_t rounded;
    if (n < 4096)
        memory = calloc(1, n ? n : 1);
    else if (!ckd_round_up(&rounded, n, 4096))
        memory = aligned_alloc(4096, rounded);
    if (!memory) {
        budget_give(b, n);
        return fail_memory(err, what);
    }
    *(void **)ret_memory = memory;
    return 0;
}

int budget_alloc(struct budget *b, uint64_t n, const char *what, void *ret_memory,
                 struct platter_error *err)
{
    int r = budget_alloc_buffer(b, n, what, ret_memory, err);
    if (r == 0 && n >= 4096)
        memset(*(void **)ret_memory, 0, n);
    return r;
}

void budget_free(struct budget *b, void *memory, uint64_t n)
{
    if (!memory)
        return;
    free(memory);
    budget_give(b, n);
}

bool is_zero(const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    if (n == 0)
        return true;
    /* A byte that is zero and a range that equals itself shifted by one is all zero; data mostly
     * differs in the first bytes, so look there first without a call. */
    for (size_t i = 0; i < 16 && i < n; i++)
        if (p[i])
            return false;
    return n <= 16 || memcmp(p, p + 16, n - 16) == 0;
}
