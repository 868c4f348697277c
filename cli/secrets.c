/* SPDX-License-Identifier: MIT */
/*
 * Where the keys of encrypted images come from: files, the environment, objects as qemu-img has
 * them, or somebody at the terminal. Never the command line itself, which everybody can read.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

enum { PROMPTS = 3 /* how often somebody at the terminal may try */ };

/* ---- files ----------------------------------------------------------------------------------- */

static int read_all(int fd, const char *path, uint8_t *buffer, size_t *ret_length)
{
    size_t n = 0;
    for (;;) {
        uint8_t more;
        bool full = n == PLATTER_MAX_SECRET;
        ssize_t got = read(fd, full ? &more : buffer + n, full ? 1 : PLATTER_MAX_SECRET - n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            say("%s: cannot read the key: %s", path, strerror(errno));
            return -errno;
        }
        if (got > 0 && full) {
            say("%s: has more than the %d bytes that a key may have", path, PLATTER_MAX_SECRET);
            return -EFBIG;
        }
        if (got == 0)
            break;
        n += (size_t)got;
    }
    *ret_length = n;
    return 0;
}

static int read_file(const char *path, uint8_t *buffer, size_t *ret_length)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        say("%s: cannot open the key file: %s", path, strerror(errno));
        return -errno;
    }
    int r = read_all(fd, path, buffer, ret_length);
    close(fd);
    return r;
}

static int read_environment(const char *name, uint8_t *buffer, size_t *ret_length)
{
    const char *value = getenv(name);
    if (!value || strlen(value) > PLATTER_MAX_SECRET) {
        say(value ? "the environment variable %s is too long for a key"
                  : "there is no environment variable %s to hold a key",
            name);
        return -ENOENT;
    }
    *ret_length = strlen(value);
    memcpy(buffer, value, *ret_length);
    return 0;
}

/* ---- objects --------------------------------------------------------------------------------- */

static int base64_digit(uint8_t c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

/* Decodes in place; blanks and line ends are passed over. */
static int decode_base64(const char *path, uint8_t *bytes, size_t *length)
{
    size_t out = 0, digits = 0, pads = 0;
    uint32_t bits = 0;
    for (size_t i = 0; i < *length; i++) {
        int digit = base64_digit(bytes[i]);
        if (strchr(" \t\r\n", bytes[i]) && bytes[i])
            continue;
        pads += bytes[i] == '=';
        if (bytes[i] != '=' && (digit < 0 || pads)) {
            say("%s: is no base64, as format=base64 says", path);
            return -EINVAL;
        }
        bits = bits << 6 | (uint32_t)(digit < 0 ? 0 : digit);
        if (++digits % 4 == 0) {
            bytes[out++] = (uint8_t)(bits >> 16);
            bytes[out++] = (uint8_t)(bits >> 8);
            bytes[out++] = (uint8_t)bits;
        }
    }
    if (digits % 4 || pads > 2) {
        say("%s: is no base64, as format=base64 says", path);
        return -EINVAL;
    }
    *length = out - pads;
    return 0;
}

static const char *pair_text(json_t *pairs, const char *key)
{
    return json_string_value(json_object_get(pairs, key));
}

static bool is_field(const char *key)
{
    static const char *const fields[] = {"secret", "qom-type", "id", "file", "format"};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (strcmp(key, fields[i]) == 0)
            return true;
    return false;
}

/* What is wrong with an object, or NULL. */
static const char *object_fault(json_t *pairs)
{
    const char *key, *format = pair_text(pairs, "format");
    json_t *value;
    if (!json_object_get(pairs, "secret") && strcmp(pair_text(pairs, "qom-type") ?: "", "secret"))
        return "only objects of type secret are known";
    if (!pair_text(pairs, "id"))
        return "a secret needs an id";
    if (json_object_get(pairs, "data"))
        return "a secret on the command line can be read by everybody: put it into a file, and "
               "give file=PATH";
    if (!pair_text(pairs, "file"))
        return "a secret needs file=PATH";
    if (format && strcmp(format, "raw") && strcmp(format, "base64"))
        return "the format of a secret is raw or base64";
    json_object_foreach (pairs, key, value)
        if (!is_field(key))
            return "a secret has id, file and format; encrypted ones (keyid, iv) are not known";
    return NULL;
}

int secrets_check(const struct verb *verb, const struct args *args)
{
    for (unsigned i = 0; i < args->n_objects; i++) {
        json_t *pairs = creation_pairs(args->objects[i]);
        const char *fault = object_fault(pairs);
        json_decref(pairs);
        if (fault)
            return usage_error(verb, "--object: %s", fault);
    }
    return 0;
}

/* The secret of object number i. */
static int read_object(const struct args *args, unsigned i, uint8_t *buffer, size_t *ret_length)
{
    json_t *pairs = creation_pairs(args->objects[i]);
    const char *path = pair_text(pairs, "file"), *format = pair_text(pairs, "format");
    int r = path ? read_file(path, buffer, ret_length) : -EINVAL;
    if (r == 0 && format && strcmp(format, "base64") == 0)
        r = decode_base64(path, buffer, ret_length);
    json_decref(pairs);
    return r;
}

static int read_named(const struct args *args, const char *id, uint8_t *buffer, size_t *ret_length)
{
    for (unsigned i = 0; i < args->n_objects; i++) {
        json_t *pairs = creation_pairs(args->objects[i]);
        const char *own = pair_text(pairs, "id");
        bool is = own && strcmp(own, id) == 0;
        json_decref(pairs);
        if (is)
            return read_object(args, i, buffer, ret_length);
    }
    say("No secret with id '%s'", id);
    return -ENOENT;
}

/* ---- the terminal ---------------------------------------------------------------------------- */

static int prompt(const struct platter_secret *q, uint8_t *buffer, size_t *ret_length)
{
    static const char *const prompts[] = {[PLATTER_SECRET_OPEN] = "Passphrase of",
                                          [PLATTER_SECRET_NEW] = "New passphrase of",
                                          [PLATTER_SECRET_REMOVE] = "Passphrase to be removed of"};
    if (!isatty(STDIN_FILENO) || q->attempt >= PROMPTS)
        return -ENOKEY;
    if (q->attempt)
        say("%s: that does not open it", q->image);
    int r = terminal_ask(prompts[q->kind], q->image, buffer, ret_length);
    if (r < 0 || q->kind != PLATTER_SECRET_NEW)
        return r;
    uint8_t *again = malloc(PLATTER_MAX_SECRET);
    size_t length = 0;
    r = again ? terminal_ask("Once more, that of", q->image, again, &length) : -ENOMEM;
    if (r == 0 && (length != *ret_length || memcmp(again, buffer, length) != 0)) {
        say("the two are not the same");
        r = -EINVAL;
    }
    if (again)
        explicit_bzero(again, PLATTER_MAX_SECRET);
    free(again);
    return r;
}

/* ---- which one ------------------------------------------------------------------------------- */

/* What --image-opts says of an image's key, or NULL. */
static const char *key_of_image(const struct args *args, const char *image)
{
    for (unsigned i = 0; i < args->n_named; i++)
        if (args->named[i].key && strcmp(args->named[i].file, image) == 0)
            return args->named[i].key;
    return NULL;
}

/* The keys that were given for whatever is opened, by number; -ENOKEY: there are not so many. */
static int read_given(const struct args *args, unsigned number, uint8_t *buffer, size_t *ret_length)
{
    bool only_objects = args->n_key_files == 0 && !args->key_env;
    if (number < args->n_key_files)
        return read_file(args->key_files[number], buffer, ret_length);
    number -= args->n_key_files;
    if (args->key_env && number == 0)
        return read_environment(args->key_env, buffer, ret_length);
    if (only_objects && number < args->n_objects)
        return read_object(args, number, buffer, ret_length);
    return -ENOKEY;
}

static bool any_given(const struct args *args)
{
    return args->n_key_files || args->key_env || args->n_objects;
}

static int tell_open(const struct args *args, const struct platter_secret *q, uint8_t *buffer,
                     size_t *ret_length)
{
    const char *id = key_of_image(args, q->image);
    if (id)
        return q->attempt == 0 ? read_named(args, id, buffer, ret_length) : -ENOKEY;
    if (any_given(args))
        return read_given(args, q->attempt, buffer, ret_length);
    return prompt(q, buffer, ret_length);
}

static int tell_new(const struct args *args, const struct platter_secret *q, uint8_t *buffer,
                    size_t *ret_length)
{
    if (q->id)
        return read_named(args, q->id, buffer, ret_length);
    if (args->new_key_file)
        return read_file(args->new_key_file, buffer, ret_length);
    if (args->new_key_env)
        return read_environment(args->new_key_env, buffer, ret_length);
    if (any_given(args) && !args->needs_new_key)
        return read_given(args, 0, buffer, ret_length);
    return prompt(q, buffer, ret_length);
}

static int tell_old(const struct args *args, const struct platter_secret *q, uint8_t *buffer,
                    size_t *ret_length)
{
    if (q->id)
        return read_named(args, q->id, buffer, ret_length);
    if (args->old_key_file)
        return read_file(args->old_key_file, buffer, ret_length);
    return prompt(q, buffer, ret_length);
}

int secrets_tell(void *opaque, const struct platter_secret *q, uint8_t *buffer, size_t *ret_length)
{
    const struct args *args = opaque;
    switch (q->kind) {
    case PLATTER_SECRET_OPEN:
        return tell_open(args, q, buffer, ret_length);
    case PLATTER_SECRET_NEW:
        return tell_new(args, q, buffer, ret_length);
    case PLATTER_SECRET_REMOVE:
        return tell_old(args, q, buffer, ret_length);
    }
    return -EINVAL;
}

/* ---- --image-opts ---------------------------------------------------------------------------- */

static int name_key(const struct verb *verb, const char *key, const char *text,
                    struct named_image *ret, const char **driver)
{
    const char **at = NULL;
    if (strcmp(key, "driver") == 0)
        at = driver;
    else if (strcmp(key, "file.filename") == 0 || strcmp(key, "filename") == 0)
        at = &ret->file;
    else if (strcmp(key, "encrypt.key-secret") == 0 || strcmp(key, "key-secret") == 0)
        at = &ret->key;
    else if ((strcmp(key, "encrypt.format") == 0 && text) ||
             (strcmp(key, "file.driver") == 0 && strcmp(text, "file") == 0))
        return 0;
    if (!at)
        return usage_error(verb,
                           "--image-opts: '%s=%s' is not known: an image has driver, "
                           "file.filename and encrypt.key-secret",
                           key, text);
    *at = text;
    return 0;
}

/* One operand; the strings belong to `ret->pairs`. */
static int name_image(const struct verb *verb, struct args *args, char **operand,
                      const char **format)
{
    const char *key, *driver = NULL;
    json_t *value;
    if (args->n_named == MAX_NAMED)
        return usage_error(verb, "--image-opts: more than %d images", MAX_NAMED);
    struct named_image *named = &args->named[args->n_named++];
    named->pairs = creation_pairs(*operand);
    json_object_foreach (named->pairs, key, value)
        if (name_key(verb, key, json_string_value(value), named, &driver))
            return EXIT_FAILED;
    if (!named->file)
        return usage_error(verb, "--image-opts: '%s' does not say file.filename=PATH", *operand);
    if (driver && *format && strcmp(driver, *format) != 0)
        return usage_error(verb, "--image-opts: all sources must be of one driver");
    if (driver)
        *format = driver;
    *operand = (char *)(uintptr_t)named->file;
    return EXIT_FINE;
}

int images_named(const struct verb *verb, struct args *args)
{
    for (int i = 0; args->image_opts && i < args->n_operands; i++) {
        char **operand = &args->operands[i];
        /* What is a size, or a new image, says nothing of the kind. */
        if (strncmp(*operand, "driver=", 7) != 0 && !strstr(*operand, "filename="))
            continue;
        bool second = verb == &verb_compare && i == 1;
        if (name_image(verb, args, operand, second ? &args->format2 : &args->format))
            return EXIT_FAILED;
    }
    if (args->image_opts && args->n_operands > 0 && args->n_named == 0)
        return usage_error(verb, "--image-opts: no operand says file.filename=PATH");
    return EXIT_FINE;
}

void images_forget(struct args *args)
{
    for (unsigned i = 0; i < args->n_named; i++)
        json_decref(args->named[i].pairs);
}
