/* SPDX-License-Identifier: MIT */
/* A migration in one process: what it keeps of what it was given, by which names it is found, and
 * what is done with it at the same time. */
#include <pthread.h>
#include <stdatomic.h>

#include "migrate_kit.h"

#include "disk/inside.h"
#include "support/log.h"

static const char *const kinds[] = {"qcow2", "raw", NULL};

/* ---- what it keeps ----------------------------------------------------------------------------
 */

/* Who opens one may let go of all that he gave. */
static void test_options_are_kept(void **state)
{
    (void)state;
    kit_source("s.raw", 4 * MIB, 3 * MIB);
    struct platter_migrate_prepare_options p = {.state = "kept"};
    kit_prepare_with("s.raw", "t.qcow2", p);
    assert_int_equal(rename("s.raw", "moved.raw"), 0);

    char *texts[] = {strdup("kept"), strdup("moved.raw"), strdup("/nowhere"), strdup("t.qcow2")};
    const char **allow = calloc(2, sizeof *allow);
    MUST(allow && texts[0] && texts[1] && texts[2] && texts[3]);
    allow[0] = texts[2];
    struct platter_migrate_options o = {
        .size = sizeof o, .state = texts[0], .source = texts[1], .allow = allow};
    struct platter_migration *m;
    assert_works(platter_migrate_open(texts[3], &o, &m, &err));
    for (int i = 0; i < 4; i++)
        free(texts[i]);
    free(allow);

    struct platter_migrate_options later = {.size = sizeof later, .state = "kept"};
    assert_works(platter_migrate_execute("t.qcow2", &later, &err));
    assert_works(platter_migrate_commit("t.qcow2", &later, &err));
    assert_int_equal(access("kept", F_OK), -1);
    assert_content(platter_migrate_disk(m), 3 * MIB);
    assert_works(platter_migrate_close(m, &err));
    assert_file_content("t.qcow2", "qcow2", 4 * MIB, 3 * MIB);
}

/* ---- names ------------------------------------------------------------------------------------
 */

static void test_other_folder(void **state)
{
    struct kit *kit = *state;
    for (const char *const *format = kinds; *format; format++) {
        MUST(mkdir(*format, 0700) == 0 && chdir(*format) == 0);
        kit_source("s.raw", 2 * MIB, MIB);
        kit_prepare("s.raw", "t", *format);
        MUST(chdir(kit->folder) == 0);
        char name[64], to[64];
        snprintf(name, sizeof name, "%s/t", *format);
        assert_state_is(name, "prepared");
        kit_execute(name);
        kit_commit(name);
        snprintf(to, sizeof to, "%s/t", *format);
        assert_file_content(to, *format, 2 * MIB, MIB);
    }
}

static void test_named_as_file(void **state)
{
    (void)state;
    kit_source("s:1.raw", 2 * MIB, MIB);
    kit_prepare("file:s:1.raw", "file:t:1.raw", "raw");
    assert_int_equal(access("t:1.raw.part", F_OK), 0);
    kit_execute("./t:1.raw");
    kit_commit("file:t:1.raw");
    assert_file_content("file:t:1.raw", "raw", 2 * MIB, MIB);
    assert_int_equal(access("file:t:1.raw", F_OK), -1);
}

/* Whoever takes the target for any other image is told what it is. */
static void test_opened_as_an_image(void **state)
{
    (void)state;
    kit_source("s.raw", 2 * MIB, MIB);
    kit_prepare("s.raw", "t", "qcow2");
    struct platter_open_options o = {.size = sizeof o};
    struct platter_disk *disk;
    for (unsigned i = 0; i < 3; i++) {
        o.format = i == 1 ? "qcow2" : NULL;
        o.flags = i == 2 ? PLATTER_OPEN_WRITE : 0;
        assert_fails(platter_open("t", &o, &disk, &err), EBUSY, "platter migrate serve");
    }
    o = (struct platter_open_options){.size = sizeof o,
                                      .flags = PLATTER_OPEN_QUERY | PLATTER_OPEN_NO_BACKING};
    assert_works(platter_open("t", &o, &disk, &err));
    assert_works(platter_close(disk, &err));

    /* Not all of it would be in a snapshot, and its state knows its size. */
    struct platter_snapshot_options snapshot = {.size = sizeof snapshot, .name = "s"};
    o.flags = PLATTER_OPEN_WRITE | PLATTER_OPEN_NO_BACKING;
    assert_works(platter_open("t", &o, &disk, &err));
    assert_fails(platter_snapshot_create(disk, &snapshot, NULL, &err), EBUSY, "live migration");
    assert_works(platter_close(disk, &err));
    struct platter_migration *m = kit_open("t");
    assert_fails(
        platter_resize(platter_migrate_disk(m), 4 * MIB, 0, PLATTER_PREALLOCATION_OFF, &err), EBUSY,
        "live migration");
    assert_works(platter_migrate_close(m, &err));
}

/* ---- after a commit ---------------------------------------------------------------------------
 */

/* The first change that a guest makes may come when there is no state any more. */
static void test_first_write_after_commit(void **state)
{
    (void)state;
    for (const char *const *format = kinds; *format; format++) {
        kit_source("s.raw", 2 * MIB, MIB);
        kit_prepare("s.raw", *format, *format);
        struct platter_migration *m = kit_open(*format);
        struct platter_disk *disk = platter_migrate_disk(m);
        kit_execute(*format);
        kit_commit(*format);
        uint8_t bytes[512];
        for (unsigned i = 0; i < sizeof bytes; i++)
            bytes[i] = kit_byte(MIB + i);
        assert_works(platter_pwrite(disk, bytes, sizeof bytes, MIB, &err));
        assert_works(platter_flush(disk, &err));
        assert_content(disk, MIB + 512);
        assert_works(platter_migrate_close(m, &err));
        assert_file_content(*format, *format, 2 * MIB, MIB + 512);
    }
}

struct asker {
    struct platter_migration *m;
    pthread_t thread;
    atomic_bool over;
    unsigned odd;
};

/* A guest, and who asks how far it is. */
static void *ask(void *opaque)
{
    struct asker *a = opaque;
    uint8_t bytes[4096];
    for (uint64_t at = 0; !atomic_load(&a->over); at = (at + 65536) % (4 * MIB)) {
        json_t *status = NULL;
        struct platter_extent extent = {.size = sizeof extent};
        struct platter_disk *disk = platter_migrate_disk(a->m);
        a->odd += migration_status(a->m, &status, NULL) != 0;
        a->odd += json_array_size(json_object_get(status, "missing")) != 0;
        json_decref(status);
        a->odd += platter_pread(disk, bytes, sizeof bytes, at, NULL) != 0;
        a->odd += bytes[0] != (at < 3 * MIB ? kit_byte(at) : 0);
        a->odd += platter_map(disk, at, 4096, &extent, NULL) != 0;
        a->odd += extent.file && strlen(extent.file) == 0;
    }
    return NULL;
}

static void test_asked_while_it_ends(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 20; i++) {
        const char *format = kinds[i % 2];
        kit_source("s.raw", 4 * MIB, 3 * MIB);
        kit_prepare("s.raw", "t", format);
        struct platter_migration *m = kit_open("t");
        struct asker askers[2];
        for (unsigned k = 0; k < 2; k++) {
            askers[k] = (struct asker){.m = m};
            MUST(pthread_create(&askers[k].thread, NULL, ask, &askers[k]) == 0);
        }
        kit_execute("t");
        kit_commit("t");
        for (unsigned k = 0; k < 2; k++) {
            atomic_store(&askers[k].over, true);
            pthread_join(askers[k].thread, NULL);
            assert_int_equal(askers[k].odd, 0);
        }
        assert_works(platter_migrate_close(m, &err));
        MUST(unlink("t") == 0);
    }
}

/* The name of a file that a caller was told of lives as long as the disk. */
static void test_names_outlive_the_source(void **state)
{
    (void)state;
    kit_source("s.raw", MIB, MIB);
    kit_prepare("s.raw", "t", "qcow2");
    struct platter_migration *m = kit_open("t");
    struct platter_extent extent = {.size = sizeof extent};
    assert_works(platter_map(platter_migrate_disk(m), 0, MIB, &extent, &err));
    assert_int_equal(extent.depth, 1);
    const char *file = extent.file;
    kit_execute("t");
    assert_non_null(strstr(file, "s.raw"));
    assert_works(platter_migrate_close(m, &err));
}

/* ---- a target that is longer ------------------------------------------------------------------
 */

/* What stands in the place of a unit that was never complete is nobody's. */
static void test_longer_target(void **state)
{
    (void)state;
    const uint64_t sizes[] = {MIB + 512, MIB - 512, 640 * 1024};
    for (unsigned i = 0; i < 6; i++) {
        uint64_t data = i < 3 ? sizes[i] - 512 : 512 * 1024;
        kit_source("s.raw", sizes[i % 3], data);
        struct platter_migrate_prepare_options p = {
            .format = "raw", .has_disk_size = true, .disk_size = 2 * MIB};
        kit_prepare_with("s.raw", "t", p);
        kit_write("t.part", 0, 2 * MIB); /* writes that were cut off */
        kit_execute("t");
        kit_commit("t");
        assert_file_content("t", "raw", 2 * MIB, data);
        MUST(unlink("t") == 0 && unlink("s.raw") == 0);
    }
}

/* ---- given up ---------------------------------------------------------------------------------
 */

/* Has the state say something else, as if a process had ended right after that. */
static void set_phase(const char *target, enum migrate_phase phase)
{
    struct migrate_state s;
    assert_works(migrate_state_open(target, NULL, NULL, true, &s, &err));
    s.phase = phase;
    assert_works(migrate_state_write(&s, &err));
    migrate_state_close(&s);
}

static int give_up(const char *target, struct platter_error *err)
{
    struct platter_migrate_options o = {.size = sizeof o, .flags = PLATTER_MIGRATE_DISCARD_WRITES};
    return platter_migrate_abort(target, &o, err);
}

/* What is committed as far as the target goes may be in use: it is not taken for one to give up. */
static void test_abort_of_a_commit(void **state)
{
    (void)state;
    for (const char *const *format = kinds; *format; format++) {
        kit_source("s.raw", 2 * MIB, MIB);
        kit_prepare("s.raw", *format, *format);
        kit_execute(*format);
        set_phase(*format, MIGRATE_COMMITTING);
        assert_fails(give_up(*format, &err), EINVAL, "commit it");
        kit_commit(*format);
        assert_file_content(*format, *format, 2 * MIB, MIB);
    }
}

/* An abort that was cut off before its first file went, and behind it. */
static void test_abort_cut_off(void **state)
{
    (void)state;
    struct platter_migrate_options o = {.size = sizeof o};
    struct platter_migration *m;
    for (unsigned i = 0; i < 4; i++) {
        const char *format = kinds[i % 2], *file = i % 2 ? "t.part" : "t";
        kit_source("s.raw", 2 * MIB, MIB);
        kit_prepare("s.raw", "t", format);
        set_phase("t", MIGRATE_PREPARING);
        if (i >= 2)
            MUST(unlink(file) == 0);
        assert_fails(platter_migrate_open("t", &o, &m, &err), EINVAL, "abort");
        assert_works(give_up("t", &err));
        assert_int_equal(access(file, F_OK), -1);
        assert_int_equal(access("t.migration", F_OK), -1);
        assert_fails(give_up("t", &err), ENOENT, "not being migrated");
        kit_prepare("s.raw", "t", format);
        assert_works(give_up("t", &err));
    }
}

/* Of a target that a preparation did not come to make, or that is another one by now. */
static void test_abort_spares_others(void **state)
{
    (void)state;
    struct platter_migrate_options o = {.size = sizeof o};
    kit_source("s.raw", 2 * MIB, MIB);
    kit_prepare("s.raw", "t", "qcow2");
    set_phase("t", MIGRATE_PREPARING);
    kit_source("t", MIB, MIB);
    assert_works(give_up("t", &err));
    assert_file_content("t", "raw", MIB, MIB);

    MUST(unlink("t") == 0);
    kit_prepare("s.raw", "t", "qcow2");
    struct platter_migration *m = kit_open("t");
    assert_fails(give_up("t", &err), EBUSY, "");
    assert_works(platter_migrate_close(m, &err));
    assert_works(platter_migrate_abort("t", &o, &err));
}

/* An image with the name of the target, which is the target of another migration. */
static void test_another_image(void **state)
{
    (void)state;
    struct platter_migrate_options o = {.size = sizeof o};
    struct platter_migration *m;
    kit_source("s.raw", 2 * MIB, MIB);
    kit_prepare("s.raw", "t", "qcow2");
    kit_prepare("s.raw", "u", "qcow2");
    MUST(rename("t", "kept") == 0 && rename("u", "t") == 0);
    assert_fails(platter_migrate_open("t", &o, &m, &err), ESTALE, "is not the image that");
    assert_fails(platter_migrate_execute("t", &o, &err), ESTALE, "is not the image that");
    MUST(rename("kept", "t") == 0);
    kit_execute("t");
    kit_commit("t");
    assert_file_content("t", "qcow2", 2 * MIB, MIB);
}

/* A source that was looked at a moment ago is looked at again when all of it is there. */
static void test_source_changes_at_the_end(void **state)
{
    (void)state;
    for (const char *const *format = kinds; *format; format++) {
        const struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
        kit_source("s.raw", 2 * MIB, MIB);
        kit_prepare("s.raw", *format, *format);
        struct platter_migration *m = kit_open(*format);
        MUST(utimensat(AT_FDCWD, "s.raw", times, 0) == 0);
        assert_fails(migration_execute(m, 0, 0, NULL, NULL, &err), ESTALE, "has changed");
        assert_int_equal(m->state.phase, MIGRATE_PREPARED);
        assert_works(platter_migrate_close(m, &err));
    }
}

/* The state says that all is there when all of it is durable, and not before. */
static void test_durable_before_it_is_said(void **state)
{
    (void)state;
    struct write_log *log = write_log_new();
    size_t covered = 0, last = 0, said = 0;
    struct platter_migrate_prepare_options p = {
        .format = "raw", .has_disk_size = true, .disk_size = 2 * MIB};
    kit_source("s.raw", MIB, MIB);
    kit_prepare_with("s.raw", "t", p);
    kit_write("t.part", 0, 2 * MIB); /* so that zeros have to be written behind the source */
    struct platter_migration *m = kit_open("t");
    struct image *top = disk_top(m->disk);
    assert_works(stream_log_open(log, top->stream, &top->stream, &err));
    assert_works(stream_log_open(log, m->state.stream, &m->state.stream, &err));
    assert_works(migration_execute(m, 0, 0, NULL, NULL, &err));
    for (size_t i = 0; i < write_log_length(log); i++) {
        struct log_entry e = write_log_entry(log, i);
        if (e.stream == 0 && e.kind == LOG_FLUSH)
            covered = e.covers > covered ? e.covers : covered;
        else if (e.stream == 0)
            last = i + 1;
        else if (e.kind == LOG_WRITE) {
            assert_true(last <= covered);
            said = i;
        }
    }
    assert_true(last > 0 && said > last);
    assert_works(platter_migrate_close(m, &err));
    write_log_free(log);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_options_are_kept, kit_enter, kit_leave),
        cmocka_unit_test_setup_teardown(test_other_folder, kit_enter, kit_leave),
        cmocka_unit_test_setup_teardown(test_named_as_file, kit_enter, kit_leave),
        cmocka_unit_test_setup_teardown(test_opened_as_an_image, kit_enter, kit_leave),
        cmocka_unit_test_setup_teardown(test_first_write_after_commit, kit_enter, kit_leave),
        cmocka_unit_test_setup_teardown(test_asked_while_it_ends, kit_enter, kit_leave),
        cmocka_unit_test_setup_teardown(test_names_outlive_the_source, kit_enter, kit_leave),
        cmocka_unit_test_setup_teardown(test_longer_target, kit_enter, kit_leave),
        cmocka_unit_test_setup_teardown(test_abort_of_a_commit, kit_enter, kit_leave),
        cmocka_unit_test_setup_teardown(test_abort_cut_off, kit_enter, kit_leave),
        cmocka_unit_test_setup_teardown(test_abort_spares_others, kit_enter, kit_leave),
        cmocka_unit_test_setup_teardown(test_another_image, kit_enter, kit_leave),
        cmocka_unit_test_setup_teardown(test_source_changes_at_the_end, kit_enter, kit_leave),
        cmocka_unit_test_setup_teardown(test_durable_before_it_is_said, kit_enter, kit_leave),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
