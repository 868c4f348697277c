/* SPDX-License-Identifier: MIT */
/* See qemu_conf.h. */
#include "qemu_conf.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

#define MAP "#qmdump#map:"

/* A part of a text. */
struct word {
    const char *at;
    size_t len;
};

static struct word word_of(const char *text)
{
    return (struct word){text, strlen(text)};
}

static bool word_is(struct word w, const char *text)
{
    return w.len == strlen(text) && strncmp(w.at, text, w.len) == 0;
}

/* Takes the part of *rest in front of a sign; false: there is none left. */
static bool word_next(struct word *rest, char until, struct word *ret)
{
    if (!rest->at)
        return false;
    const char *end = memchr(rest->at, until, rest->len);
    *ret = (struct word){rest->at, end ? (size_t)(end - rest->at) : rest->len};
    rest->len -= ret->len + (end ? 1 : 0);
    rest->at = end ? end + 1 : NULL;
    return true;
}

/* ---- drives ------------------------------------------------------------------------------------
 */

static const struct bus {
    const char *name;
    unsigned n; /* drives of it, from 0 on */
} buses[] = {{"scsi", 31}, {"virtio", 16}, {"sata", 6},
             {"ide", 4},   {"efidisk", 1}, {"tpmstate", 1}};

/* Whether it is a drive that a machine can have: scsi0, virtio15. */
static bool is_drive(struct word w)
{
    for (size_t i = 0; i < sizeof buses / sizeof *buses; i++) {
        size_t len = strlen(buses[i].name), digits = w.len - len;
        const char *number = w.at + len;
        if (w.len <= len || strncmp(w.at, buses[i].name, len) != 0 || digits > 2 ||
            !isdigit((unsigned char)number[0]) || (digits == 2 && number[0] == '0') ||
            (digits == 2 && !isdigit((unsigned char)number[1])))
            continue;
        unsigned n = (unsigned)(number[0] - '0');
        if (digits == 2)
            n = n * 10 + (unsigned)(number[1] - '0');
        return n < buses[i].n;
    }
    return false;
}

/* The drive that a disk is called after: "drive-scsi0", "scsi0", "drive-tpmstate0-backup"; of no
 * length if it is not. */
static struct word drive_of_name(const char *name)
{
    static const char prefix[] = "drive-", suffix[] = "-backup";
    struct word w = word_of(name);
    if (strncmp(w.at, prefix, strlen(prefix)) == 0)
        w = (struct word){w.at + strlen(prefix), w.len - strlen(prefix)};
    if (w.len > strlen(suffix) && strcmp(w.at + w.len - strlen(suffix), suffix) == 0)
        w.len -= strlen(suffix);
    return is_drive(w) ? w : (struct word){w.at, 0};
}

/* ---- maps --------------------------------------------------------------------------------------
 */

struct map {
    struct word drive, disk, storage, format;
};

/* Four words with colons between them; the last two may be missing. */
static bool parse_map(struct word text, struct map *m)
{
    struct word more;
    *m = (struct map){.storage = word_of("local"), .format = word_of("raw")};
    return word_next(&text, ':', &m->drive) && word_next(&text, ':', &m->disk) &&
           (!word_next(&text, ':', &m->storage) || !word_next(&text, ':', &m->format) ||
            !word_next(&text, ':', &more) || (more.len == 0 && !text.at));
}

/* A restore takes only what it would have written itself: four words with a colon behind each
 * (section 9.3). */
static bool parse_map_line(struct word text, struct map *m)
{
    unsigned colons = 0;
    for (size_t i = 0; i < text.len; i++)
        colons += text.at[i] == ':';
    return colons == 4 && parse_map(text, m) && is_drive(m->drive);
}

static const struct conf_disk *find_disk(const struct conf_request *q, struct word name)
{
    for (unsigned i = 0; i < q->n_disks; i++)
        if (word_is(name, q->disks[i].name))
            return &q->disks[i];
    return NULL;
}

/* Makes sense of --map; prints if there is none. */
static int check_map(const struct conf_request *q, const char *text, struct map *m)
{
    if (!parse_map(word_of(text), m) || !is_drive(m->drive)) {
        say("--map %s: give VIRTDEV:DISK[:STORAGE[:FORMAT]], where VIRTDEV is one of scsi0 to "
            "scsi30, virtio0 to virtio15, sata0 to sata5, ide0 to ide3, efidisk0, tpmstate0",
            text);
        return EXIT_FAILED;
    }
    if (!find_disk(q, m->disk)) {
        say("--map %s: no disk of the archive is called %.*s", text, (int)m->disk.len, m->disk.at);
        return EXIT_FAILED;
    }
    for (const char *c = text; *c; c++)
        if ((unsigned char)*c <= ' ') {
            say("--map %s: no blanks or control characters can stand there", text);
            return EXIT_FAILED;
        }
    return EXIT_FINE;
}

static void put_map(FILE *out, const struct map *m)
{
    fprintf(out, MAP "%.*s:%.*s:%.*s:%.*s:\n", (int)m->drive.len, m->drive.at, (int)m->disk.len,
            m->disk.at, (int)m->storage.len, m->storage.at, (int)m->format.len, m->format.at);
}

/* ---- a configuration that is there -------------------------------------------------------------
 */

/* Where its first section begins, or its end: what stands there is of snapshots. */
static size_t main_part(const char *text, size_t len)
{
    struct word rest = {text, len}, line;
    while (word_next(&rest, '\n', &line))
        if (line.len > 0 && line.at[0] == '[')
            return (size_t)(line.at - text);
    return len;
}

static int out_of_memory(void)
{
    say("out of memory");
    return EXIT_FAILED;
}

int conf_add_maps(const struct conf_request *q, const char *text, size_t len, char **ret_text,
                  size_t *ret_len)
{
    size_t front = main_part(text, len);
    FILE *out = open_memstream(ret_text, ret_len);
    if (!out)
        return out_of_memory();
    fwrite(text, 1, front, out);
    if (front > 0 && text[front - 1] != '\n')
        fputc('\n', out);
    int code = EXIT_FINE;
    for (unsigned i = 0; i < q->n_maps && code == EXIT_FINE; i++) {
        struct map m;
        code = check_map(q, q->maps[i], &m);
        if (code == EXIT_FINE)
            put_map(out, &m);
    }
    fwrite(text + front, 1, len - front, out);
    return fclose(out) ? out_of_memory() : code;
}

/* The line of the map that names a disk, or a drive. */
static bool find_map(const char *text, size_t len, const char *disk, struct map *ret)
{
    struct word rest = {text, main_part(text, len)}, line;
    while (word_next(&rest, '\n', &line)) {
        struct word map = {line.at + strlen(MAP), line.len - strlen(MAP)};
        if (line.len > strlen(MAP) && strncmp(line.at, MAP, strlen(MAP)) == 0 &&
            parse_map_line(map, ret) && word_is(ret->disk, disk))
            return true;
    }
    return false;
}

static bool has_key(const char *text, size_t len, struct word key)
{
    struct word rest = {text, main_part(text, len)}, line;
    while (word_next(&rest, '\n', &line))
        if (line.len > key.len && strncmp(line.at, key.at, key.len) == 0 && line.at[key.len] == ':')
            return true;
    return false;
}

void conf_warn(const struct conf_request *q, const char *text, size_t len)
{
    for (unsigned i = 0; i < q->n_disks; i++) {
        const char *name = q->disks[i].name;
        struct word drive = drive_of_name(name);
        struct map m;
        if (drive.len == 0)
            drive = word_of("VIRTDEV");
        if (!find_map(text, len, name, &m))
            say("warning: " QEMU_CONF " does not tell which drive %s is, so qmrestore refuses the "
                "archive. --map %.*s:%s adds the line that is missing: " MAP "%.*s:%s:local:raw:",
                name, (int)drive.len, drive.at, name, (int)drive.len, drive.at, name);
        else if (!has_key(text, len, m.drive))
            say("warning: " QEMU_CONF " maps %s to %.*s, of which it has no line \"%.*s: ...\": "
                "the disk would be restored but not be attached",
                name, (int)m.drive.len, m.drive.at, (int)m.drive.len, m.drive.at);
    }
}

/* ---- a new one ---------------------------------------------------------------------------------
 */

static bool is_setting(const char *text)
{
    const char *equals = strchr(text, '=');
    if (!equals || equals == text || !islower((unsigned char)text[0]))
        return false;
    for (const char *c = text; c < equals; c++)
        if (!isalnum((unsigned char)*c) && *c != '_')
            return false;
    for (const char *c = equals; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            return false;
    return true;
}

/* The value of --set KEY=VALUE, the last one; NULL: not given. */
static const char *setting_of(const struct conf_request *q, const char *key)
{
    const char *found = NULL;
    size_t len = strlen(key);
    for (unsigned i = 0; i < q->n_settings; i++)
        if (strncmp(q->settings[i], key, len) == 0 && q->settings[i][len] == '=')
            found = q->settings[i] + len + 1;
    return found;
}

static void put_default(FILE *out, const struct conf_request *q, const char *key, const char *value)
{
    if (!setting_of(q, key))
        fprintf(out, "%s: %s\n", key, value);
}

/* The map that --map says of a disk, or that its name does. */
static int map_of(const struct conf_request *q, const struct conf_disk *disk, struct map *ret)
{
    for (unsigned i = 0; i < q->n_maps; i++) {
        int code = check_map(q, q->maps[i], ret);
        if (code != EXIT_FINE || word_is(ret->disk, disk->name))
            return code;
    }
    *ret = (struct map){.drive = drive_of_name(disk->name),
                        .disk = word_of(disk->name),
                        .storage = word_of("local"),
                        .format = word_of("raw")};
    if (ret->drive.len > 0)
        return EXIT_FINE;
    say("--generate-conf: nothing tells which drive the disk %s is: call it drive-scsi0 or the "
        "like, or give --map VIRTDEV:%s",
        disk->name, disk->name);
    return EXIT_FAILED;
}

/* A restore makes the volume and replaces its name; size and kind are kept. */
static void put_drive(FILE *out, const struct conf_request *q, const struct map *m, unsigned i)
{
    const char *more = strncmp(m->drive.at, "efidisk", 7) == 0    ? ",efitype=4m"
                       : strncmp(m->drive.at, "tpmstate", 8) == 0 ? ",version=v2.0"
                                                                  : "";
    fprintf(out, "%.*s: %.*s:vm-%s-disk-%u%s,size=%" PRIu64 "K\n", (int)m->drive.len, m->drive.at,
            (int)m->storage.len, m->storage.at, q->vmid ? q->vmid : "100", i, more,
            (q->disks[i].size + 1023) / 1024);
}

static int check_drives(const struct map *maps, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        for (unsigned k = 0; k < i; k++)
            if (maps[i].drive.len == maps[k].drive.len &&
                strncmp(maps[i].drive.at, maps[k].drive.at, maps[i].drive.len) == 0) {
                say("--generate-conf: the disks %.*s and %.*s are both %.*s: tell them apart with "
                    "--map",
                    (int)maps[k].disk.len, maps[k].disk.at, (int)maps[i].disk.len, maps[i].disk.at,
                    (int)maps[i].drive.len, maps[i].drive.at);
                return EXIT_FAILED;
            }
    return EXIT_FINE;
}

/* Keys in the order of the alphabet do not matter to whoever reads it; those with a default come
 * first, then what was given, then drives and maps. */
static void put_conf(FILE *out, const struct conf_request *q, const struct map *maps)
{
    const struct map *first = NULL;
    bool efi = false;
    for (unsigned i = 0; i < q->n_disks; i++) {
        bool firmware = strncmp(maps[i].drive.at, "efidisk", 7) == 0;
        efi |= firmware;
        if (!first && !firmware && strncmp(maps[i].drive.at, "tpmstate", 8) != 0)
            first = &maps[i];
    }
    if (efi)
        put_default(out, q, "bios", "ovmf");
    if (first && !setting_of(q, "boot"))
        fprintf(out, "boot: order=%.*s\n", (int)first->drive.len, first->drive.at);
    put_default(out, q, "cores", "1");
    put_default(out, q, "memory", "2048");
    put_default(out, q, "ostype", "other");
    put_default(out, q, "scsihw", "virtio-scsi-pci");
    for (unsigned i = 0; i < q->n_settings; i++) {
        int len = (int)strcspn(q->settings[i], "=");
        fprintf(out, "%.*s: %s\n", len, q->settings[i], q->settings[i] + len + 1);
    }
    for (unsigned i = 0; i < q->n_disks; i++)
        put_drive(out, q, &maps[i], i);
    for (unsigned i = 0; i < q->n_disks; i++)
        put_map(out, &maps[i]);
}

int conf_generate(const struct conf_request *q, char **ret_text, size_t *ret_len)
{
    for (unsigned i = 0; i < q->n_settings; i++)
        if (!is_setting(q->settings[i])) {
            say("--set %s: give KEY=VALUE, as in memory=4096 or name=web", q->settings[i]);
            return EXIT_FAILED;
        }
    struct map *maps = calloc(q->n_disks + 1, sizeof *maps);
    int code = maps ? EXIT_FINE : out_of_memory();
    for (unsigned i = 0; i < q->n_disks && code == EXIT_FINE; i++)
        code = map_of(q, &q->disks[i], &maps[i]);
    if (code == EXIT_FINE)
        code = check_drives(maps, q->n_disks);
    FILE *out = code == EXIT_FINE ? open_memstream(ret_text, ret_len) : NULL;
    if (code == EXIT_FINE && !out)
        code = out_of_memory();
    if (out) {
        put_conf(out, q, maps);
        if (fclose(out))
            code = out_of_memory();
    }
    free(maps);
    return code;
}
