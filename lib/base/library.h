/* SPDX-License-Identifier: MIT */
/*
 * Shared libraries that are loaded when they are first needed. What talks to servers draws in
 * dozens of libraries, which a command that opens a local file should neither wait for nor have
 * installed.
 *
 *     static struct {
 *         typeof(curl_easy_init) *easy_init;
 *     } curl;
 *     static const struct library_symbol symbols[] = {{"curl_easy_init", &curl.easy_init}, {0}};
 *     static struct library libcurl = {"libcurl.so.4", "http, https and s3", symbols};
 *
 *     int r = library_load(&libcurl, err);
 */
#ifndef BASE_LIBRARY_H
#define BASE_LIBRARY_H

#include <stdbool.h>

#include "base/error.h"

/* Where the address of what is called `name` goes; a table ends with .name = NULL. */
struct library_symbol {
    const char *name;
    void *ret;
};

struct library {
    const char *file;    /* as the linker knows it: with the version of its interface */
    const char *purpose; /* what cannot be done without it, for a sentence */
    const struct library_symbol *symbols;
    bool loaded; /* of library_load() alone */
};

/* Fills in the table, unless it was before. The library stays until the process ends. Any thread.
 * ENOTSUP where it is not installed, or lacks a function. */
int library_load(struct library *lib, struct platter_error *err);

#endif
