/* SPDX-License-Identifier: MIT */
#include "format/old_aes.h"

#include <string.h>

#include "base/secret.h"

enum { AES_KEY = 16 };

/* The passphrase is the key, cut or filled with zeros; whether it is the right one nobody can tell.
 */
int old_aes_open(struct image *img, struct cipher **ret, struct platter_error *err)
{
    const struct platter_secret question = {
        .size = sizeof question, .kind = PLATTER_SECRET_OPEN, .image = img->stream->name};
    struct secret secret;

    int r = secret_new(&secret, err);
    if (r == 0)
        r = ask_secret(img->opener, &question, &secret, err);
    if (r == 0) {
        memset(secret.bytes + secret.len, 0, secret.len < AES_KEY ? AES_KEY - secret.len : 0);
        r = cipher_new("aes", "cbc-plain64", secret.bytes, AES_KEY, ret, err);
    }
    secret_wipe(&secret);
    if (r == 0)
        r = image_doubt(img, err,
                        "%s: is encrypted with the AES of old, which protects little and cannot "
                        "tell a wrong key: convert it to %s with encrypt.format=luks",
                        img->stream->name,
                        strcmp(img->format->name, "qcow2") == 0 ? "one" : "a qcow2");
    return r;
}
