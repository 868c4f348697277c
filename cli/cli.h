/* SPDX-License-Identifier: MIT */
/*
 * The command line: prints and parses, through the public header only.
 *
 * A verb is one table entry: its options are the only source of parsing, --help, the man page's
 * synopsis and options, and completion. Whatever comes out of an image is escaped before it reaches
 * a terminal. Functions answer an exit code, or 0 / negative where they are named as fallible.
 */
#ifndef CLI_H
#define CLI_H

#include <platter/platter.h>

#include <jansson.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Exit codes; documented in platter(1). */
enum {
    EXIT_FINE = 0,
    EXIT_FAILED = 1,
    EXIT_DIFFERS = 1,         /* compare: the disks differ */
    EXIT_COMPARE_OPEN = 2,    /* compare: a disk could not be opened */
    EXIT_COMPARE_DAMAGED = 3, /* compare: an image says what cannot be true */
    EXIT_COMPARE_READ = 4,    /* compare: a disk could not be read */
    EXIT_HOLES = 4,           /* --salvage: done, but something is lost, or may be wrong */
    EXIT_UNREADABLE = 4,      /* migrate execute: parts of the source could not be read */
    EXIT_NOT_EXECUTED = 5,    /* migrate commit: the source is still needed */
    EXIT_SOURCE_CHANGED = 6,  /* migrate: the source is not what it was */
    EXIT_CORRUPT = 2,         /* check: the image is damaged */
    EXIT_LEAKS = 3,           /* check: it wastes space */
    EXIT_SKIPPED = 5,         /* cp: done, but for devices and the like */
    EXIT_NO_CHECK = 63        /* check: its format has nothing to check */
};

/* ---- arguments ------------------------------------------------------------------------------- */

enum {
    MAX_ALLOW = 64,    /* --allow options; far more than anybody types */
    MAX_KEYS = 16,     /* --key-file, and --object */
    MAX_NAMED = 64,    /* images that --image-opts describes */
    MAX_ACTIONS = 1024 /* disks, configurations and the like: an archive has up to 510 */
};

/* One of several options that are carried out in order. */
struct action {
    int action;
    const char *value; /* its argument, or NULL */
};

/* An image as --image-opts has it. */
struct named_image {
    const char *file;
    const char *key; /* id of its secret, or NULL */
    json_t *pairs;   /* owns both */
};

/* What the options of all verbs are parsed into. Strings point into argv, but for `creation`. */
struct args {
    const char *format, *format2; /* -f, -F of compare */
    const char *out_format;       /* -O */
    const char *backing, *backing_format;
    const char *view;
    const char *snapshot; /* -l, qemu-img's way to name a view */
    const char *output;   /* human or json */
    const char *progress_style;
    const char *cache, *source_cache;
    const char *algorithm;
    const char *preallocation;
    const char *create, *apply, *delete, *id; /* snapshot */
    const char *export_file, *import_file;
    const char *repair;                                         /* leaks or all */
    const char *count, *depth, *flush_interval, *pattern, *aio; /* bench: numbers, and a way */
    char *creation;             /* all -o, joined by commas; allocated */
    char *place, *target_place; /* all --place and --target-place, likewise */
    const char *spool;          /* a folder */
    const char *unnamed_format; /* of backing files */
    const char *compression;
    uint64_t level;
    bool exclusive;
    const char *allow[MAX_ALLOW + 1];
    unsigned n_allow;
    struct action actions[MAX_ACTIONS];
    unsigned n_actions;
    const char *source, *bitmap; /* bitmap -b; map --bitmap */
    const char *index_file;      /* archive index -o */
    uint64_t granularity;
    bool has_granularity, bitmaps, skip_broken_bitmaps;
    uint64_t start, length, disk_size, sparse_size, rate, memory, workers, buffer, step;
    bool has_length, has_disk_size, has_sparse_size, has_buffer, has_step;
    bool force_share, backing_chain, unsafe_backing, quiet, progress, compress, existing, unordered;
    bool probe_backing, ignore_cid, offload, target_is_zero, salvage, strict, nodes, data;
    bool list, summary, snapshots, no_vm_state;
    bool dry_run, zeros; /* compact */
    bool verbose;
    const char *config, *map_file, *disks;  /* vma */
    const char *folder, *uuid;              /* extract */
    const char *digest_file;                /* verify */
    const char *vmstate, *vmid, *time_text; /* archive create */
    bool generate_conf, reproducible, embed_digest, digest_beside;
    bool configs;
    const char *socket, *port, *bind, *exec, *tls_certificates, *tls_psk; /* serve */
    bool read_only, tcp, tls, tls_verify_peer;
    const char *state, *source_spec, *keep_writes; /* migrate */
    char *source_place;                            /* as target_place */
    bool migration, no_copy_on_read, execute, discard_writes;
    bool foreground;       /* mount */
    const char *partition; /* ls, cp: a number */
    bool recursive, preserve, owner, no_guest;
    bool shrink, keep, unsafe, write, random, no_drain, native;
    char **operands;
    int n_operands;
    /* Keys of encrypted images: see secrets.c. */
    const char *objects[MAX_KEYS], *key_files[MAX_KEYS];
    unsigned n_objects, n_key_files;
    const char *key_env, *new_key_file, *new_key_env, *old_key_file;
    const char *slot, *iter_time; /* key: numbers */
    uint64_t kdf_limit;
    bool image_opts, force;
    bool needs_new_key; /* what opens an image must not become its new key unasked */
    struct named_image named[MAX_NAMED];
    unsigned n_named;
};

enum opt_kind {
    OPT_FLAG,     /* sets a bool */
    OPT_STRING,   /* any text */
    OPT_FILE,     /* text that names a file, for completion */
    OPT_FORMAT,   /* text that names a format */
    OPT_CHOICE,   /* one of the words of `arg`, which are separated by | */
    OPT_SIZE,     /* bytes, with suffixes */
    OPT_NUMBER,   /* 1 .. 64 */
    OPT_CREATION, /* joined by commas */
    OPT_PLACE,    /* the same, of keys of places */
    OPT_ALLOW,    /* one more of args.allow */
    OPT_OBJECT,   /* one more of args.objects */
    OPT_KEY_FILE, /* one more of args.key_files */
    OPT_ACTION,   /* one more of args.actions: number `at`, with or without an argument */
    OPT_REFUSED   /* known from qemu-img; `help` says why it is not taken */
};

struct opt {
    char letter;      /* 0: only a long name */
    const char *name; /* NULL: only a letter */
    const char *arg;  /* what the argument is called; NULL: none */
    enum opt_kind kind;
    size_t at;        /* offset of the field in struct args */
    size_t given;     /* OPT_SIZE: offset of a bool that is set as well, or 0 */
    const char *help; /* what it does, without a dot; OPT_REFUSED: a whole sentence */
};

struct verb {
    const char *name;
    const char *summary;    /* one line without a dot */
    const char *operands;   /* as --help shows them */
    const struct opt *opts; /* ends with .help = NULL */
    const char *examples;   /* lines of commands */
    bool long_work;         /* has a progress callback, which can cancel */
    bool in_place;          /* changes an image where it stands: a cancel has to come to its end */
    bool signed_operand;    /* the last operand may be a size with a minus */
    int (*run)(const struct args *args);
};

extern const struct verb verb_vma_repack;
extern const struct verb verb_key, verb_compact, verb_archive_index, verb_archive_create;
extern const struct verb verb_bitmap, verb_amend, verb_dd, verb_info, verb_create, verb_convert,
    verb_map, verb_compare, verb_digest, verb_measure, verb_resize, verb_commit, verb_rebase,
    verb_check, verb_snapshot, verb_bench, verb_formats;
extern const struct verb verb_verify, verb_serve, verb_mount, verb_ls, verb_cp;
extern const struct verb verb_migrate_prepare, verb_migrate_serve, verb_migrate_execute,
    verb_migrate_status, verb_migrate_commit, verb_migrate_abort;
extern const struct verb verb_extract, verb_vma_list, verb_vma_config, verb_vma_create,
    verb_vma_extract, verb_vma_verify;
extern const struct verb *const verbs[]; /* NULL-ended */
const struct verb *verb_find(const char *name);

/* Verbs of two words: "vma list" is one of the group "vma". */
struct group {
    const char *name;
    const char *summary;
};
extern const struct group groups[]; /* ends with .name = NULL */
const struct group *group_find(const char *name);
/* The second word of a verb of the group; NULL: it is none of it. A group of NULL has the verbs of
 * one word. */
const char *group_word(const struct group *group, const struct verb *verb);

/* Whether the program was called as vma, by a link: the group vma is all it has then, and wrong
 * usage, or -h, is answered by a text on standard output and exit code 1, as the program of that
 * name does. */
bool called_as_vma(void);

/* Options that several verbs have. */
#define OPT_FLAG_AT(l, n, field, text)                                                             \
    {                                                                                              \
        l, n, NULL, OPT_FLAG, offsetof(struct args, field), 0, text                                \
    }
#define OPT_TEXT(l, n, a, k, field, text)                                                          \
    {                                                                                              \
        l, n, a, k, offsetof(struct args, field), 0, text                                          \
    }
#define OPT_INPUT_FORMAT                                                                           \
    OPT_TEXT('f', NULL, "FMT", OPT_FORMAT, format,                                                 \
             "format of the image; found by content if not given")
#define OPT_OUTPUT                                                                                 \
    OPT_TEXT(0, "output", "human|json", OPT_CHOICE, output, "how to print the result")
#define OPT_SHARE                                                                                  \
    OPT_FLAG_AT('U', "force-share", force_share, "open although a program is writing to the image")
#define OPT_SALVAGE                                                                                \
    OPT_FLAG_AT(0, "salvage", salvage,                                                             \
                "where tables are lost look for the data itself; what is not found is zeros")
#define OPT_VIEW                                                                                   \
    OPT_TEXT(0, "view", "NAME", OPT_STRING, view,                                                  \
             "read this view of the image (an internal snapshot), as IMAGE@NAME does")
#define OPT_PARTITION                                                                              \
    OPT_TEXT(                                                                                      \
        0, "partition", "N", OPT_STRING, partition,                                                \
        "partition, by its number in platter ls (0: there is no table), or /dev/GROUP/VOLUME"),    \
        OPT_FLAG_AT(0, "no-libguestfs", no_guest, "read only what takes no machine to be started")
#define OPT_ALLOW_PATH                                                                             \
    OPT_TEXT(0, "allow", "PATH", OPT_ALLOW, allow,                                                 \
             "file or folder that names inside images may lead to; may be repeated")
#define OPT_WHERE                                                                                  \
    OPT_TEXT(0, "place", "KEY=VALUE", OPT_PLACE, place,                                            \
             "more about a URI that is read, KEY=VALUE,...: see platter-places(7)")
#define OPT_WHERE_TO                                                                               \
    OPT_TEXT(0, "target-place", "KEY=VALUE", OPT_PLACE, target_place,                              \
             "more about a URI that is written, as --place")
#define OPT_UNNAMED                                                                                \
    OPT_TEXT(0, "backing-format", "FMT", OPT_FORMAT, unnamed_format,                               \
             "format of backing files where the image does not name it; FMT,FMT,...: top first"),  \
        OPT_FLAG_AT(0, "probe-backing", probe_backing,                                             \
                    "guess the format of backing files where the image does not name it")
#define OPT_ALLOWED                                                                                \
    OPT_WHERE, OPT_ALLOW_PATH, OPT_UNNAMED,                                                        \
        OPT_FLAG_AT(0, "ignore-cid", ignore_cid,                                                   \
                    "take the parent of a VMDK even if it was changed or is another one"),         \
        OPT_TEXT(0, "spool", "DIR", OPT_FILE, spool,                                               \
                 "folder for a temporary copy of what is compressed, or can only be read once")
#define OPT_PROGRESS                                                                               \
    OPT_FLAG_AT('p', NULL, progress, "show how far the work has come"),                            \
        OPT_TEXT(0, "progress", "text|json", OPT_CHOICE, progress_style,                           \
                 "the same as -p, or as JSON lines on standard error")
#define OPT_QUIET   OPT_FLAG_AT('q', NULL, quiet, "print nothing but errors")
#define OPT_WORKERS OPT_TEXT('m', NULL, "N", OPT_NUMBER, workers, "threads at work, 1 to 64")
#define OPT_RATE    OPT_TEXT('r', NULL, "RATE", OPT_SIZE, rate, "most bytes a second to write")
#define OPT_CACHE_IGNORED                                                                          \
    OPT_TEXT('t', NULL, "CACHE", OPT_STRING, cache, "accepted, and without effect")
#define OPT_SOURCE_CACHE                                                                           \
    OPT_TEXT('T', NULL, "CACHE", OPT_STRING, source_cache, "accepted, and without effect")
#define OPT_KEYS                                                                                   \
    OPT_TEXT(0, "key-file", "PATH", OPT_KEY_FILE, key_files,                                       \
             "file whose bytes, all of them, open encrypted images; may be repeated"),             \
        OPT_TEXT(0, "key-env", "NAME", OPT_STRING, key_env,                                        \
                 "environment variable that opens encrypted images"),                              \
        OPT_TEXT(0, "object", "OBJECT", OPT_OBJECT, objects,                                       \
                 "secret,id=ID,file=PATH[,format=raw|base64]: a key, as qemu-img has it"),         \
        OPT_TEXT(0, "kdf-limit", "N", OPT_SIZE, kdf_limit,                                         \
                 "most iterations that trying a key may take, 100 million if not given")
#define OPT_NEW_KEY                                                                                \
    OPT_TEXT(0, "new-key-file", "PATH", OPT_FILE, new_key_file,                                    \
             "file whose bytes, all of them, are the new key"),                                    \
        OPT_TEXT(0, "new-key-env", "NAME", OPT_STRING, new_key_env,                                \
                 "environment variable that is the new key")
#define OPT_IMAGE_OPTS                                                                             \
    OPT_KEYS, OPT_FLAG_AT(0, "image-opts", image_opts,                                             \
                          "images are given as driver=FMT,file.filename=PATH,"                     \
                          "encrypt.key-secret=ID")
/* Where a server listens, and what runs beside it. */
#define OPT_LISTEN                                                                                 \
    OPT_TEXT('k', "socket", "PATH", OPT_FILE, socket,                                              \
             "the Unix socket to serve at; one in a new folder if not given"),                     \
        OPT_FLAG_AT(0, "tcp", tcp, "serve at a TCP port instead: see -p and -b"),                  \
        OPT_TEXT('p', "port", "N", OPT_STRING, port, "the TCP port, 10809 if not given"),          \
        OPT_TEXT('b', "bind", "ADDRESS", OPT_STRING, bind,                                         \
                 "the address to listen at, localhost if not given"),                              \
        OPT_FLAG_AT(0, "tls", tls,                                                                 \
                    "take clients with TLS alone; the other options of TLS mean it as well"),      \
        OPT_TEXT(0, "tls-certificates", "DIR", OPT_FILE, tls_certificates,                         \
                 "folder with ca-cert.pem, server-cert.pem and server-key.pem"),                   \
        OPT_TEXT(0, "tls-psk", "FILE", OPT_FILE, tls_psk,                                          \
                 "keys that are shared with clients, instead"),                                    \
        OPT_FLAG_AT(0, "tls-verify-peer", tls_verify_peer,                                         \
                    "take clients with a certificate alone"),                                      \
        OPT_TEXT(0, "exec", "COMMAND", OPT_STRING, exec,                                           \
                 "run this by the shell, with $uri, and stop serving when it ends")
#define OPT_END                                                                                    \
    {                                                                                              \
        .help = NULL                                                                               \
    }

/* Parses the arguments behind the verb. 0, or an exit code + 1 when the program is to end (an error
 * was printed, or --help). */
int args_parse(const struct verb *verb, int argc, char **argv, struct args *ret);
/* Prints "platter: message" and where to look; returns EXIT_FAILED. */
int usage_error(const struct verb *verb, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* "64K", "1.5G", "0x200". 0, -EINVAL or -ERANGE (from 2^63 on). */
int size_parse(const char *text, uint64_t *ret);

/* The generated texts: --help, the page of a man page, the completion of bash. */
void help_overview(FILE *out);
void help_verb(const struct verb *verb, FILE *out);
void help_group(const struct group *group, FILE *out);
int man_page(const char *name, const char *prose_path);
int completion_bash(void);
/* The tables of the README, in Markdown, and the page platter-places(7). */
int tables_markdown(void);
int places_page(const char *prose_path);
/* "key= key= ...", for the completion. */
void print_place_keys(void);
/* Text of a line of a man page. */
void roff_text(const char *text);

/* Whether a name of a cache mode (NULL: none was given) is one that qemu-img has; prints if not. */
bool cache_check(const struct verb *verb, const char *cache, const char *what);

/* ---- images ---------------------------------------------------------------------------------- */

/* What the arguments say of opening an image, whichever it is. */
struct platter_open_options image_options(const struct args *args, const char *format,
                                          unsigned flags);
/* Opens `name`, which may be IMAGE@VIEW where no file has that literal name. Prints what fails, and
 * a notice where the file is taken as raw only because nothing was recognised. 0 or negative. */
int image_open(const struct args *args, const char *name, const char *format, unsigned flags,
               struct platter_disk **ret);
/* Where `name` is no file but IMAGE@VIEW with an IMAGE that is: that, to be freed, and the view;
 * else NULL. */
char *image_of_view(const char *name, const char **ret_view);
/* The same of a URI, which must be known to be called otherwise. */
char *uri_of_view(const char *name, const char **ret_view);
/* What a disk is called where it is shown: the name as it was given, but for what may hold secrets.
 * In `buf`, or the name itself. */
const char *image_title(struct platter_disk *disk, const char *name, char buf[4096]);
/* ... where no disk is open. */
const char *name_title(const char *name);
/* The same for a view by its name alone, whatever the name of the file looks like. */
int view_open(const struct args *args, const char *image, const char *view, unsigned flags,
              struct platter_disk **ret);
/* Warns of an image that was given a backing file which the gate (rule 6) will not let it open. */
void image_warn_gated(const struct args *args, const char *name, const char *format);
/* Warns of an image with internal snapshots, of which only the disk itself stays what it is. */
void image_warn_snapshots(const struct args *args, const char *name, const char *why);

/* ---- snapshots (snapshot.c, snapshot_state.c) ------------------------------------------------ */

struct progress;
/* Ends what showed progress; `r` and err are what it gave. An exit code. */
int snapshot_end(struct progress *progress, int r, const struct platter_error *err);
/* Writes the machine's state of a snapshot to --export, or makes one with that of --import. */
int snapshot_state(const struct args *args, const char *image, const char *name);

/* ---- archives (fault.c) ---------------------------------------------------------------------- */

enum { FAULT_KINDS = PLATTER_FAULT_UNREADABLE + 1 };

/* What was told of an archive. A hostile one has no end of faults, so that only so many are kept.
 */
struct fault_log {
    const struct args *args;
    struct progress *progress; /* cleared before a line is printed; or NULL */
    bool silent;               /* nothing is printed */
    json_t *faults;            /* those that are kept: for JSON, or NULL */
    uint64_t n;                /* all there were, notes too */
    uint64_t n_faults;         /* ... and without them */
    uint64_t told[FAULT_KINDS];
    uint64_t n_ranges; /* that are kept, of all disks */
};

/* Ranges of a disk that have something in common. */
struct fault_ranges {
    json_t *list;           /* objects with "offset" and "length", as far as they are kept */
    uint64_t n, bytes, end; /* of all of them; where the last one ends */
};

/* Prints it, unless very many of its kind were, and keeps it for JSON. */
void fault_log_take(struct fault_log *log, const struct platter_fault *fault);
/* Prints how many more there were of each kind. */
void fault_log_end(struct fault_log *log);
/* "fault-count" and "faults", and how many of these were left out, if any were. */
void fault_log_describe(const struct fault_log *log, json_t *o);
/* The range of a fault; one that goes on where the last one ends becomes a part of it. */
void fault_ranges_add(struct fault_log *log, struct fault_ranges *ranges,
                      const struct platter_fault *fault);
/* o[field], and o[field-left-out] where that is not all. */
void fault_ranges_describe(const struct fault_ranges *ranges, json_t *o, const char *field);
/* Whether its range of a disk is there, and may be wrong. */
bool fault_doubts(const struct platter_fault *fault);

/* ---- servers (serve.c) ------------------------------------------------------------------------
 */

/* Serves the first operand until a signal comes, or args->exec ends. An exit code; that of
 * args->exec does not count where `may_be_told` and a signal to us ended it. */
int serve_image(const struct args *args, bool may_be_told);
/* Whether the place to listen at makes sense; prints if not. */
bool serve_place_check(const struct verb *verb, const struct args *args);

/* ---- keys (secrets.c) ------------------------------------------------------------------------ */

/* Whether the objects make sense; prints if not. 0, or EXIT_FAILED. */
int secrets_check(const struct verb *verb, const struct args *args);
/* A platter_secret_fn over a struct args. */
int secrets_tell(void *opaque, const struct platter_secret *question, uint8_t *buffer,
                 size_t *ret_length);
/* A line that is typed at the terminal, which standard input is, and not shown. Negative if there
 * is none. */
int terminal_ask(const char *prompt, const char *image, uint8_t *buffer, size_t *ret_length);
/* Where -o of amend is about key slots, does that (*ret_mine). An exit code. */
int key_amend(struct args *args, bool *ret_mine);
/* What such an -o can say for a format, as platter_formats() lists options; a new reference. */
json_t *key_options(const char *format);
/* Turns operands that --image-opts describes into file names. 0, or EXIT_FAILED (printed). */
int images_named(const struct verb *verb, struct args *args);
void images_forget(struct args *args);

/* "key=value,key=value" with commas in values doubled. Takes `key` out of *options: its value, to
 * be freed, or NULL if it is not there. */
char *creation_take(char **options, const char *key);
/* Takes "size" out where the disk has its size from elsewhere, with a notice, as qemu-img ignores
 * it. */
void creation_drop_size(char **options);
/* The pairs as an object, in their order; a key alone is "on". */
json_t *creation_pairs(const char *options);
/* Whether options ask for the list of options. */
bool creation_wants_help(const char *options);
/* Prints the creation options of a format. `bare` is whether no target was named. */
int creation_help(const char *format, bool bare);
/* The same for what amend can change. */
int amendment_help(const char *format);
/* The entry of a format in platter_formats(), a new reference; NULL (and printed) if unknown. */
json_t *format_entry(const char *format);

/* ---- output ---------------------------------------------------------------------------------- */

/* "platter: message" on standard error, escaped. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same for a failed call of the library; returns EXIT_FAILED. */
int say_error(const struct platter_error *err);
/* The same, but where a signal of the user's ended it, only what became of what was half done. */
int say_end(const struct platter_error *err, const char *half_done);
/* Writes text with control characters (and those that turn the direction of text) as \xNN. */
void put_text(FILE *out, const char *text);
/* A name that the user gave, escaped like that, without what may be a secret: the query of a URI.
 */
void put_shown(FILE *out, const char *name);
json_t *json_shown(const char *name);
/* "1.5 GiB", three digits as qemu-img has it. Returns `buf`. */
char *human_size(uint64_t bytes, char buf[32]);
/* A JSON string of any bytes; what is no UTF-8 becomes U+FFFD. */
json_t *json_text(const char *text);
/* Prints a value and a newline, indented by four. Consumes it. */
void print_json(json_t *value);
/* The table of snapshots of qemu-img, if there are any. */
void print_snapshots(const json_t *list);
/* What the description of an archive has beside that of any image. */
void print_archive(const json_t *specific);
/* Whether --output=json was given. */
bool wants_json(const struct args *args);
/* Flushes standard output; returns `code`, or EXIT_FAILED (printed) if something was lost. */
int output_end(int code);

/* ---- progress and signals -------------------------------------------------------------------- */

struct progress {
    FILE *out; /* where the line goes; NULL: shown only when SIGUSR1 asks */
    bool json;
    bool shown;     /* the line stands on the terminal */
    double started; /* seconds of the monotonic clock */
    double last;    /* when the line was written */
    struct platter_progress now;
};

/* `stdout_taken`: the disk goes to standard output, the line must not. */
void progress_start(struct progress *p, const struct args *args, bool stdout_taken);
/* A platter_progress_fn over a struct progress; cancels after a signal that ends the program. */
int progress_tick(void *opaque, const struct platter_progress *now);
/* The last line. */
void progress_end(struct progress *p, bool complete);
/* Clears the line, so that a message can be written. */
void progress_clear(struct progress *p);

/* From here SIGINT, SIGTERM and SIGHUP cancel, and SIGUSR1 shows progress; a second one, and the
 * first where nothing can be cancelled, ends the program. New files that are not complete go either
 * way. */
void signals_catch(bool can_cancel);
/* Whether the first one ends the program all the same, until progress_tick() is called: while there
 * is nothing to take back in order, and images are opened, for which a server may let one wait.
 * What was so before is the answer. */
bool signals_end_at_once(bool now);
/* Whether one came that cancels. */
bool signals_caught(void);
/* Ends the program by the signal that was caught, if one was. */
void signals_raise(void);

#endif
