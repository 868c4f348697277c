/* SPDX-License-Identifier: MIT */
/* For tests of migrations in this process: a folder of their own, in which they are, and a raw
 * source. */
#ifndef UNIT_MIGRATE_KIT_H
#define UNIT_MIGRATE_KIT_H

#include "unit.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ops/migrate.h"
#include "platter/platter.h"
#include "support/must.h"

#define MIB (UINT64_C(1) << 20)

struct kit {
    char folder[64], before[4096];
};

/* Byte i of a source: no two units are alike, and none is zeros. */
static inline uint8_t kit_byte(uint64_t i)
{
    return (uint8_t)(1 + (i / 512 * 7 + i / 65536) % 251);
}

static inline int kit_enter(void **state)
{
    struct kit *kit = calloc(1, sizeof *kit);
    MUST(kit && getcwd(kit->before, sizeof kit->before));
    snprintf(kit->folder, sizeof kit->folder, "/tmp/platter-migrate-XXXXXX");
    MUST(mkdtemp(kit->folder) && chdir(kit->folder) == 0);
    *state = kit;
    return 0;
}

static inline int kit_unlink(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type, (void)at;
    return remove(path);
}

static inline int kit_leave(void **state)
{
    struct kit *kit = *state;
    MUST(chdir(kit->before) == 0);
    nftw(kit->folder, kit_unlink, 8, FTW_DEPTH | FTW_PHYS);
    free(kit);
    return 0;
}

/* Writes the source's bytes of [off, off + len). */
static inline void kit_write(const char *path, uint64_t off, uint64_t len)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    uint8_t *bytes = malloc(len);
    MUST(fd >= 0 && bytes);
    for (uint64_t i = 0; i < len; i++)
        bytes[i] = kit_byte(off + i);
    MUST(pwrite(fd, bytes, len, (off_t)off) == (ssize_t)len && close(fd) == 0);
    free(bytes);
}

/* A file of `size` bytes whose first `data` are the source's; behind them is a hole. */
static inline void kit_source(const char *path, uint64_t size, uint64_t data)
{
    kit_write(path, 0, data);
    MUST(truncate(path, (off_t)size) == 0);
}

static inline void kit_prepare_with(const char *source, const char *target,
                                    struct platter_migrate_prepare_options o)
{
    struct platter_open_options open = {.size = sizeof open, .format = "raw"};
    o.size = sizeof o;
    assert_works(platter_migrate_prepare(source, &open, target, &o, &err));
}

static inline void kit_prepare(const char *source, const char *target, const char *format)
{
    kit_prepare_with(source, target, (struct platter_migrate_prepare_options){.format = format});
}

static inline struct platter_migration *kit_open(const char *target)
{
    struct platter_migrate_options o = {.size = sizeof o};
    struct platter_migration *m = NULL;
    assert_works(platter_migrate_open(target, &o, &m, &err));
    return m;
}

static inline void kit_execute(const char *target)
{
    struct platter_migrate_options o = {.size = sizeof o};
    assert_works(platter_migrate_execute(target, &o, &err));
}

static inline void kit_commit(const char *target)
{
    struct platter_migrate_options o = {.size = sizeof o};
    assert_works(platter_migrate_commit(target, &o, &err));
}

static inline json_t *kit_status(const char *target)
{
    struct platter_migrate_options o = {.size = sizeof o};
    char *text = NULL;
    assert_works(platter_migrate_status(target, &o, &text, &err));
    json_t *status = json_loads(text, 0, NULL);
    assert_non_null(status);
    free(text);
    return status;
}

static inline void assert_state_is(const char *target, const char *state)
{
    json_t *status = kit_status(target);
    assert_string_equal(json_string_value(json_object_get(status, "state")), state);
    json_decref(status);
}

/* The disk has the first `data` bytes of a source, and zeros behind them. */
static inline void assert_content(struct platter_disk *disk, uint64_t data)
{
    uint64_t size = platter_size(disk);
    uint8_t *bytes = malloc(size);
    MUST(bytes);
    assert_works(platter_pread(disk, bytes, size, 0, &err));
    for (uint64_t i = 0; i < size; i++)
        if (bytes[i] != (i < data ? kit_byte(i) : 0))
            fail_msg("byte %llu is %u", (unsigned long long)i, bytes[i]);
    free(bytes);
}

static inline void assert_file_content(const char *path, const char *format, uint64_t size,
                                       uint64_t data)
{
    struct platter_open_options o = {.size = sizeof o, .format = format};
    struct platter_disk *disk;
    assert_works(platter_open(path, &o, &disk, &err));
    assert_int_equal(platter_size(disk), size);
    assert_content(disk, data);
    assert_works(platter_close(disk, &err));
}

#endif
