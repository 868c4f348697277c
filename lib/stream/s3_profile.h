/* SPDX-License-Identifier: MIT */
/* What the files say that the tools of Amazon keep below ~/.aws: sections of "name = value". */
#ifndef STREAM_S3_PROFILE_H
#define STREAM_S3_PROFILE_H

#include <stdbool.h>

#include "base/error.h"

/* A profile: a section of each of two files, with the whole of their text. */
struct s3_profile {
    char *name;
    char *credentials_path, *config_path;
    char *credentials, *config; /* NULL: there is no such file */
};

/* Reads both files, at the places that the environment says or the usual ones. `name` NULL: what
 * AWS_PROFILE says, or "default". ENOENT where it is named and in neither file. */
int s3_profile_load(const char *name, struct s3_profile *ret, struct platter_error *err);
void s3_profile_done(struct s3_profile *p);

/* The value of a key, malloc'ed in *ret, or NULL: "region", or "s3.addressing_style" for what is
 * indented below "s3 =". The file of credentials counts before the other. */
int s3_profile_value(const struct s3_profile *p, const char *key, char **ret,
                     struct platter_error *err);
/* The same of another section: that of [services NAME] has the endpoints of a profile. */
int s3_profile_service(const struct s3_profile *p, const char *services, const char *key,
                       char **ret, struct platter_error *err);

/* The last value of a key in the sections [KIND NAME] of a text (`kind` "": [NAME]), malloc'ed, or
 * NULL. *found (may be NULL): whether there is such a section. Pure. */
int s3_ini_value(const char *text, const char *kind, const char *name, const char *key, bool *found,
                 char **ret, struct platter_error *err);

#endif
