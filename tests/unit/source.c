/* SPDX-License-Identifier: MIT */
/* Source-specs: every key, what is wrong with every kind of document, and that no sentence shows a
 * value. Older states of raw disks, which are views. */
#include "unit.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/memory.h"
#include "config.h"
#include "disk/disk.h"
#include "disk/source.h"
#include "support/process.h"

/* ---- what is read ------------------------------------------------------------------------------
 */

struct reading {
    const char *name;
    const char *title, *format, *view; /* NULL: none */
    unsigned n_states;
    bool qcow, unpack;
};

#define FILE_AT(path) "\"stream\":{\"type\":\"file\",\"file_path\":\"" path "\"}"

static const struct reading readings[] = {
    {"a.raw", "a.raw", NULL, NULL, 0, false, false},
    {"file:///x/y", "/x/y", NULL, NULL, 0, false, false},
    {"-", "standard input", NULL, NULL, 0, false, false},
    {"json:{\"type\":\"raw\"," FILE_AT("a") "}", "a", "raw", NULL, 0, false, false},
    {"{\"type\":\"raw\"," FILE_AT("a") "}", "a", "raw", NULL, 0, false, false},
    {"json: \n{\"type\":\"raw\"," FILE_AT("a") "}", "a", "raw", NULL, 0, false, false},
    {"{\"type\":\"raw\",\"compressed\":true," FILE_AT("a.gz") "}", "a.gz", "raw", NULL, 0, false,
     true},
    {"{\"type\":\"raw\",\"compressed\":false,\"snapshots\":[]," FILE_AT("a") "}", "a", "raw", NULL,
     0, false, false},
    {"{\"type\":\"qcow\"," FILE_AT("a") "}", "a", NULL, NULL, 0, true, false},
    {"{\"type\":\"qcow2\",\"view\":\"mon\"," FILE_AT("a") "}", "a", "qcow2", "mon", 0, false,
     false},
    {"{\"type\":\"vmdk\"," FILE_AT("a") "}@mon", "a", "vmdk", "mon", 0, false, false},
    {"{\"type\":\"vma\",\"device\":\"drive-scsi0\"," FILE_AT("a") "}", "a", "vma", "drive-scsi0", 0,
     false, false},
    {"{\"type\":\"luks\"," FILE_AT("a") "}", "a", "luks", NULL, 0, false, false},
    {"{\"type\":\"raw\",\"stream\":{\"type\":\"file\",\"file_path\":\"a,b=c\",\"offset\":512,"
     "\"length\":\"1M\"}}",
     "a,b=c", "raw", NULL, 0, false, false},
    {"{\"type\":\"raw\"," FILE_AT("now") ",\"snapshots\":[{\"type\":\"raw\",\"name\":"
                                         "\"mon\"," FILE_AT("m") "},{\"type\":\"raw\"," FILE_AT(
                                             "t") "}]}",
     "now", "raw", NULL, 2, false, false},
    /* As QEMU has them. */
    {"json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"a\"}}", "a", "qcow2",
     NULL, 0, false, false},
    {"json:{\"driver\":\"vmdk\",\"file.driver\":\"file\",\"file.filename\":\"a\"}", "a", "vmdk",
     NULL, 0, false, false},
    {"json:{\"file.filename\":\"a\"}", "a", "raw", NULL, 0, false, false},
    {"json:{\"driver\":\"host_device\",\"filename\":\"/dev/x\"}", "/dev/x", "raw", NULL, 0, false,
     false},
#if HAVE_CURL
    {"{\"type\":\"qcow\",\"stream\":{\"type\":\"http\",\"url\":\"http://u:hunter2@h/a\"}}",
     "http://h/a", NULL, NULL, 0, true, false},
    {"{\"driver\":\"raw\",\"file\":{\"driver\":\"https\",\"url\":\"https://h/a\"}}", "https://h/a",
     "raw", NULL, 0, false, false},
#endif
#if HAVE_NBD
    {"{\"type\":\"raw\",\"stream\":{\"type\":\"nbd\",\"uri\":\"nbd://h/a\"}}", "nbd://h/a", "raw",
     NULL, 0, false, false},
#endif
#if HAVE_RBD
    {"{\"type\":\"native\",\"pool_name\":\"p\",\"image_name\":\"i\",\"snap_name\":\"s\"}",
     "rbd:p/i@s", "raw", NULL, 0, false, false},
    {"{\"type\":\"native\",\"pool_name\":\"p\",\"pool_namespace\":\"n\",\"image_name\":\"i\"}",
     "rbd:p/n/i", "raw", NULL, 0, false, false},
#endif
};

static void assert_same(const char *name, const char *one, const char *other)
{
    if ((one == NULL) != (other == NULL) || (one && strcmp(one, other) != 0))
        fail_msg("%s: '%s' is not '%s'", name, one ? one : "(none)", other ? other : "(none)");
}

static void test_readings(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof readings / sizeof *readings; i++) {
        const struct reading *t = &readings[i];
        struct source s;
        assert_works(source_of(t->name, NULL, &s, &err));
        assert_same(t->name, source_name(&s), t->title);
        assert_same(t->name, s.format, t->format);
        assert_same(t->name, s.view, t->view);
        assert_int_equal(s.n_states, t->n_states);
        assert_int_equal(s.qcow, t->qcow);
        assert_int_equal(s.unpack, t->unpack);
        for (unsigned n = 0; n < s.n_states; n++)
            assert_true(strlen(s.states[n].name) == (n ? 36 : 3)); /* a UUID where there is none */
        source_done(&s);
    }
}

/* ---- what is wrong -----------------------------------------------------------------------------
 */

static const struct {
    const char *text;
    int code;
    const char *words;
} wrongs[] = {
    {"{", EBADMSG, "source-spec: ends too early (line 1, column 1)"},
    {"{\"type\":\"raw\"} x", EBADMSG, "something follows"},
    {"{\"type\":\"raw\"}@", EBADMSG, "something follows"},
    {"{\"type\":\"raw\",\"type\":\"raw\"}", EBADMSG, "has a key twice"},
    {"{\"type\":\"hunter2\\u0000\"}", EBADMSG, "NUL"},
    {"{\"type\":\"\xff\"}", EBADMSG, "UTF-8"},
    {"{hunter2:1}", EBADMSG, "is no JSON (line 1"},
    {"{\"a\":99999999999999999999}", EBADMSG, "too large"},
    {"{}", EINVAL, "type: is missing"},
    {"{\"type\":5}", EINVAL, "type: must be a string, not an integer"},
    {"{\"type\":\"\"}", EINVAL, "type: is empty"},
    {"{\"type\":null}", EINVAL, "type: must be a string, not null"},
    {"{\"type\":\"zip\"}", ENOSYS, "type: no format is called so; there are native, qcow2, qcow, "},
    {"{\"type\":\"file\"}", ENOSYS, "is a stream, which stands inside of a format"},
    {"{\"type\":\"raw\"}", EINVAL, "source-spec: stream: is missing"},
    {"{\"type\":\"raw\",\"stream\":\"hunter2\"}", EINVAL,
     "stream: must be an object, not a string"},
    {"{\"type\":\"raw\",\"stream\":[]}", EINVAL, "stream: must be an object, not an array"},
    {"{\"type\":\"raw\",\"stream\":{}}", EINVAL, "stream.type: is missing"},
    {"{\"type\":\"raw\",\"stream\":{\"type\":\"ftp\"}}", ENOSYS,
     "stream.type: no stream is called so; there are file"},
    {"{\"type\":\"raw\",\"stream\":{\"type\":\"file\"}}", EINVAL, "stream.file_path: is missing"},
    {"{\"type\":\"raw\",\"stream\":{\"type\":\"file\",\"filepath\":\"hunter2\"}}", EINVAL,
     "stream.filepath: is not known; what may stand here is type, file_path, offset, length"},
    {"{\"type\":\"raw\",\"stream\":{\"type\":\"file\",\"file_path\":1.5}}", EINVAL,
     "stream.file_path: must be a string, not a number with a fraction"},
    {"{\"type\":\"raw\",\"stream\":{\"type\":\"file\",\"file_path\":\"a\",\"offset\":true}}",
     EINVAL, "stream.offset: must be an integer, or a string such as \"1M\", not a boolean"},
    {"{\"type\":\"raw\",\"stream\":{\"type\":\"file\",\"file_path\":\"a\",\"offset\":-1}}", EINVAL,
     "stream.offset: must not be negative"},
    {"{\"type\":\"raw\",\"stream\":{\"type\":\"file\",\"file_path\":\"a\",\"length\":0}}", EINVAL,
     "stream.length: must be a number of bytes, or a string such as \"1M\", from 1 to "},
    {"{\"type\":\"raw\",\"stream\":{\"type\":\"file\",\"file_path\":\"a\",\"offset\":\"hunter2\"}}",
     EINVAL, "stream.offset: must be a number of bytes"},
    {"{\"type\":\"raw\",\"stream\":{\"type\":\"file\",\"file_path\":\"a\",\"offset\":"
     "\"99999999999999999999\"}}",
     EINVAL, "stream.offset: must be a number of bytes"},
    {"{\"type\":\"raw\",\"stream\":{\"type\":\"file\",\"file_path\":\"a\",\"offset\":"
     "9223372036854775808}}",
     EBADMSG, "too large"},
    {"{\"type\":\"raw\",\"stream\":{\"type\":\"file\",\"file_path\":\"a\",\"offset\":1e3}}", EINVAL,
     "stream.offset: must be an integer"},
    {"json:", EBADMSG, "neither a document"},
    {"json:[\"hunter2\"]", EBADMSG, "neither a document"},
    {"json:json:{\"key\":\"hunter2\"}", EBADMSG, "neither a document"},
    {" \n{\"key\":\"hunter2\"", EBADMSG, "source-spec: ends too early"},
    {"{\"type\":\"raw\",\"stream\":{\"type\":\"file\",\"file_path\":[\"a\\nb\"]}}", EINVAL,
     "stream.file_path: must be an array of strings of one line each"},
    {"{\"type\":\"raw\",\"device\":\"x\"," FILE_AT("a") "}", EINVAL,
     "device: is not known; what may stand here is type, stream, snapshots, compressed"},
    {"{\"type\":\"raw\",\"compressed\":\"yes\"," FILE_AT("a") "}", EINVAL,
     "compressed: must be true or false, not a string"},
    {"{\"type\":\"qcow\",\"snapshots\":[]," FILE_AT("a") "}", EINVAL, "snapshots: is not known"},
    {"{\"type\":\"qcow2\",\"view\":7," FILE_AT("a") "}", EINVAL, "view: must be a string"},
    {"{\"type\":\"qcow2\",\"view\":\"a\"," FILE_AT("a") "}@b", EINVAL,
     "view: names a view, and one"},
    {"{\"type\":\"vma\",\"view\":\"a\"," FILE_AT("a") "}", EINVAL, "view: is not known"},
    {"{\"type\":\"raw\",\"snapshots\":{}," FILE_AT("a") "}", EINVAL,
     "snapshots: must be an array, not an object"},
    {"{\"type\":\"raw\",\"snapshots\":[5]," FILE_AT("a") "}", EINVAL,
     "snapshots[0]: must be an object, not an integer"},
    {"{\"type\":\"raw\",\"snapshots\":[{\"type\":\"qcow2\"," FILE_AT("b") "}]," FILE_AT("a") "}",
     EINVAL, "snapshots[0].type: must be \"raw\""},
    {"{\"type\":\"raw\",\"snapshots\":[{\"type\":\"raw\"," FILE_AT(
         "b") "},{\"type\":\"raw\"}]," FILE_AT("a") "}",
     EINVAL, "snapshots[1].stream: is missing"},
    {"{\"type\":\"raw\",\"snapshots\":[{\"type\":\"raw\",\"snapshots\":[]," FILE_AT(
         "b") "}]," FILE_AT("a") "}",
     EINVAL, "snapshots[0].snapshots: is not known"},
    {"{\"type\":\"raw\",\"snapshots\":[{\"type\":\"raw\",\"name\":\"x\"," FILE_AT(
         "b") "},{\"type\":\"raw\",\"name\":\"x\"," FILE_AT("b") "}]," FILE_AT("a") "}",
     EINVAL, "snapshots[1].name: is that of snapshots[0] as well"},
    {"{\"type\":\"native\",\"stream\":{}}", EINVAL, "stream: must not be given for type native"},
    {"{\"driver\":\"qcow2\",\"file.filename\":\"a\",\"discard\":\"unmap\"}", EINVAL,
     "discard: of QEMU's descriptions only"},
    {"{\"driver\":\"qcow2\",\"file\":{\"driver\":\"ssh\",\"path\":\"hunter2\"}}", EINVAL,
     "file.driver: of QEMU's descriptions only"},
    {"{\"driver\":\"quorum\"}", EINVAL, "driver: of QEMU's"},
    {"json:/nonexistent/spec", ENOENT, "/nonexistent/spec: cannot open this source-spec"},
    {"word://hunter2", EPROTONOSUPPORT, "no kind of place is called \"word\""},
#if HAVE_CURL
    {"{\"type\":\"raw\",\"stream\":{\"type\":\"http\"}}", EINVAL, "stream.url: is missing"},
    {"{\"type\":\"raw\",\"stream\":{\"type\":\"http\",\"url\":\"http://h/\",\"insecure\":\"yes\"}}",
     EINVAL, "stream.insecure: must be true or false, not a string"},
    {"{\"type\":\"raw\",\"stream\":{\"type\":\"http\",\"url\":\"http://h/\",\"auth\":\"hunter2\"}}",
     EINVAL, "stream.auth: must be one of: basic, "},
    {"{\"type\":\"raw\",\"stream\":{\"type\":\"http\",\"url\":\"http://h/\",\"timeout\":0}}",
     EINVAL, "stream.timeout: must be a number, from 1 to"},
    {"{\"type\":\"raw\",\"stream\":{\"type\":\"http\",\"url\":\"http://h/\",\"password\":5}}",
     EINVAL, "stream.password: must be a string, not an integer"},
#endif
};

static void test_wrongs(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof wrongs / sizeof *wrongs; i++) {
        struct source s;
        struct platter_error why = {0};
        assert_fails(source_of(wrongs[i].text, NULL, &s, &err), wrongs[i].code, wrongs[i].words);
        source_of(wrongs[i].text, NULL, &s, &why);
        if (strstr(why.message, "hunter2"))
            fail_msg("a value is shown: %s", why.message);
    }
}

/* Cut off anywhere, a document is an error and nothing else. */
static void test_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof readings / sizeof *readings; i++) {
        const char *text = readings[i].name, *end = strrchr(text, '}');
        for (size_t n = 1; end && text + n <= end; n++) {
            auto_free char *cut = string_format("%.*s", (int)n, text);
            struct source s;
            if (place_is_spec(cut) && source_of(cut, NULL, &s, NULL) == 0)
                fail_msg("'%s' is taken", cut);
        }
    }
}

static void test_large(void **state)
{
    (void)state;
    struct source s;
    auto_free char *text = malloc((2 << 20) + 1);
    memset(text, '[', 2 << 20);
    memcpy(text, "{\"a\":", 5);
    text[100000] = '\0';
    assert_fails(source_of(text, NULL, &s, &err), EBADMSG, "source-spec: ");
    text[100000] = ' ';
    text[2 << 20] = '\0';
    assert_fails(source_of(text, NULL, &s, &err), EFBIG, "1048576");
    auto_free char *path = scratch_path("large.json");
    FILE *f = fopen(path, "w");
    assert_true(f && fputs(text, f) >= 0 && fclose(f) == 0);
    auto_free char *name = string_format("json:%s", path);
    assert_fails(source_of(name, NULL, &s, &err), EFBIG, path);
    unlink(path);
}

/* ---- files of documents, and keys beside a name ------------------------------------------------
 */

static void test_file(void **state)
{
    (void)state;
    struct source s;
    auto_free char *path = scratch_path("spec.json");
    FILE *f = fopen(path, "w");
    assert_true(f && fputs("\n {\"type\":\"qcow2\"," FILE_AT("a") "}\n", f) >= 0 && fclose(f) == 0);
    auto_free char *name = string_format("json:%s", path);
    auto_free char *view = string_format("json:%s@mon@day", path);
    assert_works(source_of(name, NULL, &s, &err));
    assert_same(name, source_name(&s), "a");
    assert_null(s.view);
    source_done(&s);
    auto_free char *simple = string_format("json:%s@monday", path);
    assert_works(source_of(simple, NULL, &s, &err));
    assert_same(simple, s.view, "monday");
    source_done(&s);
    assert_fails(source_of(view, NULL, &s, &err), ENOENT, "mon: cannot open this source-spec");
    f = fopen(path, "w");
    assert_true(f && fputs("{\"type\":\"raw\"," FILE_AT("a") "} hunter2", f) >= 0 &&
                fclose(f) == 0);
    assert_fails(source_of(name, NULL, &s, &err), EBADMSG, path);
    unlink(path);
}

static void test_keys(void **state)
{
    (void)state;
    struct source s;
    assert_works(source_of("a", "offset=512,length=1k", &s, &err));
    assert_true(options_number(s.place.keys, "offset") == 512);
    source_done(&s);
    assert_works(source_of("{\"type\":\"raw\"," FILE_AT("a") "}", "offset=1M", &s, &err));
    assert_true(options_number(s.place.keys, "offset") == 1 << 20);
    source_done(&s);
    assert_fails(source_of("a", "ofset=512", &s, &err), EINVAL, "unknown option 'ofset'");
    assert_fails(source_of("a", "offset", &s, &err), EINVAL, "needs a value");
    assert_fails(source_of("-", "ofset=512", &s, &err), EINVAL, "unknown option 'ofset'");
#if HAVE_CURL
    assert_works(source_of("a", "ca_file=x,,y,insecure", &s, &err)); /* of others: passed over */
    source_done(&s);
    assert_works(source_of("https://h/a", "ca_file=x,,y,offset=5", &s, &err));
    assert_same("ca_file", options_string(s.place.keys, "ca_file"), "x,y");
    source_done(&s);
#endif
}

/* ---- older states ------------------------------------------------------------------------------
 */

enum { NOW = 1 << 20, OLD = 700000 };

static void write_file(const char *path, size_t len, int first, int rest)
{
    FILE *f = fopen(path, "w");
    auto_free char *bytes = malloc(len);
    memset(bytes, rest, len);
    memset(bytes, first, 4096);
    assert_true(f && fwrite(bytes, 1, len, f) == len && fclose(f) == 0);
}

static void test_states(void **state)
{
    (void)state;
    auto_free char *now = scratch_path("now.raw"), *old = scratch_path("old.raw");
    write_file(now, NOW, 1, 2);
    write_file(old, OLD, 3, 2);
    auto_free char *name = string_format(
        "{\"type\":\"raw\",\"stream\":{\"type\":\"file\",\"file_path\":\"%s\"},\"snapshots\":[{"
        "\"type\":\"raw\",\"name\":\"mon\",\"stream\":{\"type\":\"file\",\"file_path\":\"%s\"}}]}",
        now, old);
    auto_free char *view = string_format("%s@mon", name);
    struct platter_open_options o = {.size = sizeof o};
    struct platter_disk *disk;
    uint8_t byte;
    assert_works(platter_open(name, &o, &disk, &err));
    assert_true(platter_size(disk) == NOW);
    auto_free char *views = NULL;
    assert_works(platter_views(disk, &views, &err));
    assert_non_null(strstr(views, "\"mon\""));
    assert_non_null(strstr(views, "700000"));

    struct disk_diff d;
    struct snapshot_difference x;
    assert_works(disk_snapshot_diff_open(disk, "mon", NULL, &d, &err));
    assert_int_equal(disk_snapshot_diff_next(&d, 0, &x, NULL), 1);
    assert_true(x.off == 0 && x.len == 65536); /* where the first 4096 bytes are in */
    uint64_t at = OLD; /* all behind the end of the old one, in any number of pieces */
    for (uint64_t off = x.len; at < NOW; off = at = x.off + x.len) {
        assert_int_equal(disk_snapshot_diff_next(&d, off, &x, NULL), 1);
        assert_true(x.off == at && x.len > 0);
    }
    assert_int_equal(disk_snapshot_diff_next(&d, NOW, &x, NULL), 0);
    disk_snapshot_diff_close(&d);
    assert_fails(disk_snapshot_diff_open(disk, "tue", NULL, &d, &err), ENOENT, "tue");
    platter_close(disk, NULL);

    assert_works(platter_open(view, &o, &disk, &err));
    assert_true(platter_size(disk) == OLD);
    assert_works(platter_pread(disk, &byte, 1, 0, &err));
    assert_int_equal(byte, 3);
    platter_close(disk, NULL);

    o.view = "mon";
    assert_works(platter_open(name, &o, &disk, &err));
    assert_true(platter_size(disk) == OLD);
    platter_close(disk, NULL);
    assert_fails(platter_open(view, &o, &disk, &err), EINVAL, "two views");
    o.view = "tue";
    assert_fails(platter_open(name, &o, &disk, &err), ENOENT, "no snapshot is called \"tue\"");
    o = (struct platter_open_options){.size = sizeof o, .flags = PLATTER_OPEN_WRITE};
    assert_fails(platter_open(name, &o, &disk, &err), ENOTSUP, "can only be read");
    o = (struct platter_open_options){.size = sizeof o, .format = "qcow2"};
    assert_fails(platter_open(name, &o, &disk, &err), EINVAL, "says that it is raw");
    o.format = NULL;
    unlink(old);
    assert_fails(platter_open(name, &o, &disk, &err), ENOENT, "snapshot \"mon\"");
    unlink(now);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_readings), cmocka_unit_test(test_wrongs), cmocka_unit_test(test_cut),
        cmocka_unit_test(test_large),    cmocka_unit_test(test_file),   cmocka_unit_test(test_keys),
        cmocka_unit_test(test_states),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
