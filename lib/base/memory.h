/* SPDX-License-Identifier: MIT */
/* Scope cleanup, ownership transfer, and memory that is counted against a budget. */
#ifndef BASE_MEMORY_H
#define BASE_MEMORY_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/error.h"

/* `auto_free char *p = NULL;` frees p at the end of the scope. */
static inline void auto_free_cleanup(void *p)
{
    free(*(void **)p);
}
#define auto_free __attribute__((cleanup(auto_free_cleanup)))

/* Takes a pointer out of a variable, leaving NULL: ownership moves on. */
#define TAKE(p)                                                                                    \
    ({                                                                                             \
        __typeof__(p) take_value = (p);                                                            \
        (p) = NULL;                                                                                \
        take_value;                                                                                \
    })

/* The structure of that type that has *pointer as its field `member`. */
#define container_of(pointer, type, member)                                                        \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* `WITH_LOCK(&mutex);` holds the mutex until the end of the scope. */
static inline pthread_mutex_t *with_lock_enter(pthread_mutex_t *mutex)
{
    pthread_mutex_lock(mutex);
    return mutex;
}
static inline void with_lock_leave(pthread_mutex_t **mutex)
{
    pthread_mutex_unlock(*mutex);
}
#define WITH_LOCK_NAME2(line) with_lock_##line
#define WITH_LOCK_NAME(line)  WITH_LOCK_NAME2(line)
#define WITH_LOCK(mutex)                                                                           \
    __attribute__((cleanup(with_lock_leave), unused)) pthread_mutex_t *WITH_LOCK_NAME(__LINE__) =  \
        with_lock_enter(mutex)

/* A copy of a string with malloc; NULL stays NULL. */
char *string_copy(const char *s);
/* printf into malloc'ed memory; NULL when out of memory. */
char *string_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

/*
 * A memory budget: all tables, caches and buffers whose size an image or a user decides draw on one
 * (rule 7). Shared by a chain of images through references. Thread-safe.
 */
struct budget;
struct budget *budget_new(uint64_t limit); /* bytes; NULL when out of memory; one reference */
struct budget *budget_ref(struct budget *b);
void budget_unref(struct budget *b);
uint64_t budget_limit(const struct budget *b);
/* Takes n bytes or fails with ENOMEM and a sentence that names `what` and the limit. */
int budget_take(struct budget *b, uint64_t n, const char *what, struct platter_error *err);
void budget_give(struct budget *b, uint64_t n);
/* malloc (zeroed, aligned to 4096 from 4096 bytes on) counted against the budget. */
int budget_alloc(struct budget *b, uint64_t n, const char *what, void *ret_memory,
                 struct platter_error *err);
/* ... not zeroed: for buffers that are written before they are read. */
int budget_alloc_buffer(struct budget *b, uint64_t n, const char *what, void *ret_memory,
                        struct platter_error *err);
/* Gives back what budget_alloc returned; n as asked then. NULL is fine. */
void budget_free(struct budget *b, void *memory, uint64_t n);

/* Whether n bytes are all zero. Fast. */
bool is_zero(const void *bytes, size_t n);

#endif
