/* SPDX-License-Identifier: MIT */
#include "base/secret.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "base/ckd.h"

enum { PAGE = 4096 };

void *secret_alloc(size_t n)
{
    size_t room = (size_t)round_up(n, PAGE);
    void *memory = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    /* Few processes may lock much; a key in swap is less bad than no disk. */
    (void)mlock(memory, room);
    (void)madvise(memory, room, MADV_DONTDUMP);
    return memory;
}

void secret_free(void *memory, size_t n)
{
    if (!memory)
        return;
    size_t room = (size_t)round_up(n, PAGE);
    explicit_bzero(memory, room);
    munmap(memory, room);
}

int secret_new(struct secret *s, struct platter_error *err)
{
    *s = (struct secret){.bytes = secret_alloc(PLATTER_MAX_SECRET)};
    return s->bytes ? 0 : fail_memory(err, "a key");
}

void secret_wipe(struct secret *s)
{
    secret_free(s->bytes, PLATTER_MAX_SECRET);
    *s = (struct secret){0};
}

int random_bytes(void *bytes, size_t n, struct platter_error *err)
{
    for (size_t done = 0; done < n;) {
        ssize_t got = getrandom((uint8_t *)bytes + done, n - done, 0);
        if (got < 0 && errno != EINTR)
            return fail_errno(err, errno, "no random numbers for a key");
        done += got > 0 ? (size_t)got : 0;
    }
    return 0;
}
