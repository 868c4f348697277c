/* SPDX-License-Identifier: MIT */
/* The state of a migration: written by turns into two slots, so that a write that is cut off leaves
 * what was; and what becomes of one that is damaged, or that somebody made up. */
#include "migrate_kit.h"

#include <pthread.h>
#include <unistd.h>

#include "stream/place.h"
#include "support/log.h"

enum { SLOT = 256 << 10, SECTOR = 512 };

static const char path[] = "t.migration";

static void prepare(void)
{
    kit_source("s.raw", MIB, MIB);
    kit_prepare("s.raw", "t", "raw");
}

static int look(struct migrate_state *ret, struct platter_error *err)
{
    return migrate_state_open("t", NULL, NULL, false, ret, err);
}

/* What a state says when it is read: which of those that were written. */
static uint64_t sequence(void)
{
    struct migrate_state s;
    assert_works(look(&s, &err));
    uint64_t found = s.sequence;
    assert_int_equal(s.size, MIB);
    migrate_state_close(&s);
    return found;
}

static void write_again(void)
{
    struct migrate_state s;
    assert_works(migrate_state_open("t", NULL, NULL, true, &s, &err));
    assert_works(migrate_state_write(&s, &err));
    migrate_state_close(&s);
}

static void poke(uint64_t off, const void *bytes, size_t len)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    MUST(fd >= 0 && pwrite(fd, bytes, len, (off_t)off) == (ssize_t)len && close(fd) == 0);
}

static uint8_t peek(uint64_t off)
{
    uint8_t byte = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    MUST(fd >= 0 && pread(fd, &byte, 1, (off_t)off) >= 0 && close(fd) == 0);
    return byte;
}

static int prepare_another(const char *target, const char *format, struct platter_error *err)
{
    struct platter_open_options open = {.size = sizeof open, .format = "raw"};
    struct platter_migrate_prepare_options o = {
        .size = sizeof o, .format = format, .state = "t.migration"};
    return platter_migrate_prepare("s.raw", &open, target, &o, err);
}

/* A state that is used with another target than its own, by mistake or on purpose, removes nothing
 * there, and none of its bytes are taken for that one's. */
static void test_another_target(void **state)
{
    (void)state;
    struct migrate_state s;
    struct platter_migrate_options o = {.size = sizeof o, .state = "t.migration"};
    char *status = NULL;
    prepare();
    kit_source("mine", MIB, 0);
    kit_source("mine.part", MIB, 0);
    assert_fails(platter_migrate_status("mine", &o, &status, &err), ESTALE, "another target");
    assert_fails(platter_migrate_abort("mine", &o, &err), ESTALE, "another target");
    assert_works(migrate_state_open("t", NULL, NULL, true, &s, &err));
    s.phase = MIGRATE_PREPARING; /* a prepare that was killed when the target had its name */
    assert_works(migrate_state_write(&s, &err));
    migrate_state_close(&s);
    assert_fails(platter_migrate_status("mine", &o, &status, &err), ESTALE, "another target");
    assert_fails(platter_migrate_abort("mine", &o, &err), ESTALE, "another target");
    assert_fails(prepare_another("mine", "raw", &err), ESTALE, "another target");
    assert_fails(prepare_another("mine", "qcow2", &err), ESTALE, "another target");
    assert_int_equal(access("mine", F_OK), 0);
    assert_int_equal(access("mine.part", F_OK), 0);
    /* With its own it does what it says. */
    assert_works(platter_migrate_abort("t", &o, &err));
    assert_int_equal(access("t.part", F_OK), -1);
    assert_int_equal(access("t.migration", F_OK), -1);
}

/* What a prepare of "u" begins with, from the source of another one. */
static struct migrate_state preparing(const struct migrate_state *other)
{
    return (struct migrate_state){.phase = MIGRATE_PREPARING,
                                  .id = string_copy("u"),
                                  .format = string_copy("raw"),
                                  .place = string_copy("u.part"),
                                  .size = MIB,
                                  .part = true,
                                  .source = json_incref(other->source),
                                  .identity = json_incref(other->identity),
                                  .error = json_null()};
}

/* Two that prepare one target do not take it from each other; what a killed one left is in nobody's
 * way. */
static void test_prepared_twice(void **state)
{
    (void)state;
    struct migrate_state s;
    struct platter_migrate_options o = {.size = sizeof o};
    char *status = NULL;
    prepare();
    assert_works(look(&s, &err));
    struct migrate_state first = preparing(&s), second = first;
    second.stream = NULL;
    assert_works(migrate_state_create("u", NULL, NULL, true, &first, &err));
    assert_fails(migrate_state_create("u", NULL, NULL, true, &second, &err), EBUSY,
                 "is being prepared, or given up");
    assert_fails(platter_migrate_abort("u", &o, &err), EBUSY, "is being prepared, or given up");
    assert_fails(platter_migrate_status("u", &o, &status, &err), EBUSY, "is being prepared");
    migrate_state_close(&first);
    assert_fails(platter_migrate_status("u", &o, &status, &err), EINVAL, "was cut off");
    /* Who removes what is left of one does so alone, and of what is there. */
    assert_works(migrate_state_claim("u", NULL, NULL, &first, &err));
    assert_fails(migrate_state_claim("u", NULL, NULL, &second, &err), EBUSY, "given up");
    migrate_state_close(&first);
    assert_works(platter_migrate_abort("u", &o, &err));
    assert_int_equal(access("u.migration", F_OK), -1);
    migrate_state_close(&s);
}

static void *abort_late(void *arg)
{
    struct platter_migrate_options o = {.size = sizeof o};
    *(int *)arg = platter_migrate_abort("u", &o, NULL);
    return NULL;
}

/* Who waited for what is removed meanwhile, and made anew, does not remove the new one. */
static void test_replaced(void **state)
{
    (void)state;
    struct migrate_state s;
    pthread_t late;
    int r = 0;
    prepare();
    assert_works(look(&s, &err));
    struct migrate_state old = preparing(&s), new = preparing(&s);
    assert_works(migrate_state_create("u", NULL, NULL, true, &old, &err));
    MUST(pthread_create(&late, NULL, abort_late, &r) == 0);
    usleep(300000); /* it has opened the old one, and waits */
    MUST(unlink("u.migration") == 0);
    assert_works(migrate_state_create("u", NULL, NULL, true, &new, &err));
    migrate_state_close(&old);
    pthread_join(late, NULL);
    assert_int_equal(r, -EBUSY);
    assert_int_equal(access("u.migration", F_OK), 0);
    migrate_state_close(&new);
    migrate_state_close(&s);
}

/* Whatever byte of the newer slot is another one, the older one counts; of both, none. */
static void test_damaged_slots(void **state)
{
    (void)state;
    prepare();
    for (unsigned round = 0; round < 2; round++) {
        write_again();
        uint64_t now = sequence(), at = now % 2 * SLOT;
        for (uint64_t off = 0; off < SECTOR + 300; off += off < 48 ? 1 : 37) {
            uint8_t was = peek(at + off), other = was ^ 1;
            poke(at + off, &other, 1);
            assert_int_equal(sequence(), now - 1);
            poke(at + off, &was, 1);
            assert_int_equal(sequence(), now);
        }
    }
    poke(0, "x", 1);
    poke(SLOT, "x", 1);
    struct migrate_state s;
    assert_fails(look(&s, &err), PLATTER_ECORRUPT, "neither");
}

/* A write that ended anywhere: the text is there in part, or the header is not. */
static void test_torn_write(void **state)
{
    (void)state;
    prepare();
    write_again();
    uint64_t now = sequence();
    uint8_t noise[4096];
    memset(noise, 0xa5, sizeof noise);
    /* The next one would go to the other slot. */
    for (size_t len = 1; len <= sizeof noise; len *= 4) {
        poke((now + 1) % 2 * SLOT + SECTOR, noise, len);
        assert_int_equal(sequence(), now);
    }
    poke((now + 1) % 2 * SLOT, noise, SECTOR);
    assert_int_equal(sequence(), now);
    write_again();
    assert_int_equal(sequence(), now + 1);
}

/* What a crash leaves is what was or what comes after it; and what was written stays. */
static void test_durable(void **state)
{
    (void)state;
    struct migrate_state s;
    struct write_log *log = write_log_new();
    struct log_state left = {0};
    prepare();
    assert_works(migrate_state_open("t", NULL, NULL, true, &s, &err));
    assert_works(stream_log_open(log, s.stream, &s.stream, &err));
    for (unsigned round = 0; round < 2; round++) {
        uint64_t before = s.sequence;
        size_t n = write_log_length(log);
        assert_works(migrate_state_write(&s, &err));
        assert_int_equal(s.sequence, before + 1);
        for (; n <= write_log_length(log); n++)
            for (uint64_t seed = 0; seed < 8; seed++) {
                bool done = n == write_log_length(log);
                write_log_crash(log, 0, n, seed, &left);
                assert_int_equal(log_state_save(&left, path), 0);
                uint64_t found = sequence();
                assert_true(found == before + 1 || (found == before && !done));
            }
    }
    log_state_free(&left);
    migrate_state_close(&s);
    write_log_free(log);
}

static void test_cut_short(void **state)
{
    (void)state;
    struct migrate_state s;
    const off_t lengths[] = {0, 1, 511, 512, 600, SLOT, SLOT + 100};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        prepare();
        if (sequence() % 2 == 0) /* slot A is the newer one: it is made the older */
            write_again();
        MUST(truncate(path, lengths[i]) == 0);
        if (lengths[i] >= SLOT)
            assert_int_equal(sequence() % 2, 0);
        else
            assert_fails(look(&s, &err), PLATTER_ECORRUPT, "no state");
        MUST(unlink(path) == 0 && unlink("t.part") == 0);
    }
}

/* Whoever made this up knows the checksums as well. */
static void forge(json_t *changes)
{
    struct migrate_state s;
    const char *text;
    json_t *value;
    assert_works(migrate_state_open("t", NULL, NULL, true, &s, &err));
    json_object_foreach (changes, text, value) {
        if (strcmp(text, "format") == 0) {
            free(s.format);
            s.format = strdup(json_string_value(value));
        } else if (strcmp(text, "size") == 0) {
            s.size = (uint64_t)json_integer_value(value);
        } else if (strcmp(text, "source") == 0) {
            json_decref(s.source);
            s.source = json_incref(value);
        } else if (strcmp(text, "identity") == 0) {
            json_decref(s.identity);
            s.identity = json_incref(value);
        }
    }
    assert_works(migrate_state_write(&s, &err));
    migrate_state_close(&s);
    json_decref(changes);
}

static void test_made_up(void **state)
{
    (void)state;
    struct platter_migrate_options o = {.size = sizeof o};
    struct platter_migration *m;
    struct migrate_state s;
    char *text;
    json_t *changes[] = {json_pack("{s:s}", "format", "vmdk"),
                         json_pack("{s:I}", "size", (json_int_t)-1), json_pack("{s:[]}", "source"),
                         json_pack("{s:{}}", "identity"), json_pack("{s:i}", "source", 7)};
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        prepare();
        forge(changes[i]);
        assert_fails(look(&s, &err), PLATTER_ECORRUPT, "no state");
        MUST(unlink(path) == 0 && unlink("t.part") == 0);
    }
    prepare();
    forge(json_pack("{s:I}", "size", (json_int_t)2 * MIB));
    assert_fails(platter_migrate_open("t", &o, &m, &err), ESTALE, "another size");
    MUST(unlink(path) == 0 && unlink("t.part") == 0);
    /* A source without a name, or of other types: the target opens, and what comes from it fails.
     */
    prepare();
    forge(json_pack("{s:{s:i, s:s, s:[i, n], s:{}}}", "source", "name", 5, "flags", "x", "allow", 1,
                    "format"));
    assert_works(platter_migrate_status("t", &o, &text, &err));
    assert_non_null(strstr(text, "failed"));
    free(text);
    assert_fails(platter_migrate_execute("t", &o, &err), PLATTER_ECORRUPT, "does not name");
}

/* It may hold secrets. */
static void test_rights(void **state)
{
    (void)state;
    struct stat st;
    prepare();
    MUST(stat(path, &st) == 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    kit_execute("t");
    assert_state_is("t", "executed");

    /* Who could write to it could have anything opened. */
    struct platter_migrate_options o = {.size = sizeof o};
    MUST(unlink(path) == 0 && unlink("t.part") == 0);
    prepare();
    MUST(chmod(path, 0620) == 0);
    assert_fails(platter_migrate_execute("t", &o, &err), EPERM, "not opened");
    MUST(chmod(path, 0600) == 0);
    kit_execute("t");
}

/* What status shows of a source. */
static void test_shown(void **state)
{
    (void)state;
    const char *const names[][2] = {
        {"http://me:secret@host/a@b:c?sig=x", "http://host/a@b:c"},
        {"https://host:80/x", "https://host:80/x"},
        {"nbds://me@host/x", "nbds://me@host/x"},
        {"nbd+unix:///x?socket=/s", "nbd+unix:///x"},
        {"json:{\"type\":\"raw\"}", "source-spec"},
        {"/a?b", "/a?b"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *shown = place_shown(names[i][0]);
        assert_string_equal(shown, names[i][1]);
        free(shown);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_prepared_twice, kit_enter, kit_leave),
        cmocka_unit_test_setup_teardown(test_another_target, kit_enter, kit_leave),
        cmocka_unit_test_setup_teardown(test_replaced, kit_enter, kit_leave),
        cmocka_unit_test_setup_teardown(test_damaged_slots, kit_enter, kit_leave),
        cmocka_unit_test_setup_teardown(test_torn_write, kit_enter, kit_leave),
        cmocka_unit_test_setup_teardown(test_durable, kit_enter, kit_leave),
        cmocka_unit_test_setup_teardown(test_cut_short, kit_enter, kit_leave),
        cmocka_unit_test_setup_teardown(test_made_up, kit_enter, kit_leave),
        cmocka_unit_test_setup_teardown(test_rights, kit_enter, kit_leave),
        cmocka_unit_test(test_shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
