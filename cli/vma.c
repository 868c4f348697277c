/* SPDX-License-Identifier: MIT */
/* platter vma list and config: what an archive has, as Proxmox's program vma tells it. */
#include "vma.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

enum { CLUSTER = 65536 };

int vma_open(const struct args *args, platter_fault_fn fault, void *opaque,
             struct platter_archive **ret)
{
    struct platter_error err = {0};
    struct platter_archive_options options = {
        .size = sizeof options, .fault = fault, .opaque = opaque, .place = args->place};
    int r = platter_archive_open(args->operands[0], &options, ret, &err);
    if (r)
        say_error(&err);
    return r;
}

/* ---- the listing ----------------------------------------------------------------------------- */

static void print_configs(struct platter_archive *archive)
{
    const char *name;
    const void *bytes;
    size_t len;
    for (unsigned i = 0; !platter_archive_config(archive, i, &name, &bytes, &len, NULL); i++) {
        printf("CFG: size: %zu name: ", len);
        put_text(stdout, name);
        putchar('\n');
    }
}

static void print_devices(struct platter_archive *archive)
{
    struct platter_archive_device d = {.size = sizeof d};
    for (unsigned i = 0; !platter_archive_device(archive, i, &d, NULL); i++) {
        if (d.state) {
            printf("VMSTATE: dev_id=%u memory: %" PRIu64 "\n", d.id, d.length);
            continue;
        }
        printf("DEV: dev_id=%u size: %" PRIu64 " devname: ", d.id, d.length);
        put_text(stdout, d.name);
        putchar('\n');
    }
}

/* "Tue Nov 14 22:13:20 2023", in local time. */
static void print_ctime(int64_t ctime)
{
    struct tm parts;
    char text[64];
    time_t when = (time_t)ctime;
    if (localtime_r(&when, &parts) &&
        strftime(text, sizeof text, "%a %b %e %H:%M:%S %Y", &parts) > 0)
        printf("CTIME: %s\n", text);
    else
        printf("CTIME: @%" PRId64 "\n", ctime); /* no calendar goes so far */
}

int vma_print_listing(struct platter_archive *archive)
{
    struct platter_error err = {0};
    char *text = NULL;
    int r = platter_archive_info(archive, &text, &err);
    if (r) {
        say_error(&err);
        return r;
    }
    json_t *info = json_loads(text, 0, NULL);
    print_configs(archive);
    print_devices(archive);
    print_ctime(json_integer_value(json_object_get(info, "ctime")));
    json_decref(info);
    platter_free(text);
    return output_end(EXIT_FINE) ? -1 : 0;
}

static int list_run(const struct args *args)
{
    struct platter_archive *archive = NULL;
    if (args->n_operands != 1)
        return usage_error(&verb_vma_list, "Expecting one archive");
    int code = vma_open(args, NULL, NULL, &archive) || vma_print_listing(archive) ? EXIT_FAILED
                                                                                  : EXIT_FINE;
    platter_archive_close(archive);
    return output_end(code);
}

static const struct opt list_opts[] = {OPT_WHERE, OPT_END};

const struct verb verb_vma_list = {.name = "vma list",
                                   .summary = "list configurations and disks of an archive",
                                   .operands = "ARCHIVE",
                                   .opts = list_opts,
                                   .examples = "platter vma list vzdump-qemu-100.vma.zst\n",
                                   .run = list_run};

/* ---- config ---------------------------------------------------------------------------------- */

enum { EXIT_NO_CONFIG = 255 };

static int print_config(struct platter_archive *archive, const char *file, const char *wanted)
{
    const char *name;
    const void *bytes;
    size_t len;
    for (unsigned i = 0; !platter_archive_config(archive, i, &name, &bytes, &len, NULL); i++)
        if (strcmp(name, wanted) == 0) {
            fwrite(bytes, 1, len, stdout);
            return EXIT_FINE;
        }
    say("%s: has no configuration called \"%s\"", name_title(file), wanted);
    return EXIT_NO_CONFIG;
}

static int config_run(const struct args *args)
{
    struct platter_archive *archive = NULL;
    if (args->n_operands != 1)
        return usage_error(&verb_vma_config, "Expecting one archive");
    if (vma_open(args, NULL, NULL, &archive))
        return EXIT_FAILED;
    int code =
        print_config(archive, args->operands[0], args->config ? args->config : "qemu-server.conf");
    platter_archive_close(archive);
    return output_end(code);
}

static const struct opt config_opts[] = {
    OPT_TEXT('c', NULL, "NAME", OPT_STRING, config,
             "name of the configuration, qemu-server.conf if not given"),
    OPT_WHERE, OPT_END};

const struct verb verb_vma_config = {
    .name = "vma config",
    .summary = "print a configuration of an archive",
    .operands = "ARCHIVE",
    .opts = config_opts,
    .examples = "platter vma config vzdump-qemu-100.vma\n"
                "zstd -dc backup.vma.zst | platter vma config - -c qemu-server.fw\n",
    .run = config_run};

/* ---- progress -------------------------------------------------------------------------------- */

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

void vma_progress_start(struct vma_progress *p, bool shown)
{
    *p = (struct vma_progress){.shown = shown, .percent = -1, .started = seconds_now()};
}

double vma_progress_seconds(const struct vma_progress *p)
{
    return seconds_now() - p->started;
}

int vma_progress_tick(void *opaque, const struct platter_progress *now)
{
    struct vma_progress *p = opaque;
    int percent = now->total ? (int)(100.0 * (double)now->done / (double)now->total) : 100;
    if (signals_caught())
        return 1;
    if (!p->shown || percent == p->percent)
        return 0;
    p->percent = percent;
    /* Whole clusters, as the other program counts. */
    uint64_t bytes = (now->done + CLUSTER - 1) / CLUSTER * CLUSTER;
    printf("progress %d%% (read %" PRIu64 " bytes, duration %.0f sec)\n", percent, bytes,
           vma_progress_seconds(p));
    fflush(stdout);
    return 0;
}
