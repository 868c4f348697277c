/* SPDX-License-Identifier: MIT */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int fail(struct platter_error *err, int code, const char *format, ...)
{
    if (err) {
        va_list args;
        va_start(args, format);
        err->code = code;
        vsnprintf(err->message, sizeof err->message, format, args);
        va_end(args);
    }
    return -code;
}

int fail_errno(struct platter_error *err, int code, const char *format, ...)
{
    if (err) {
        char reason[128];
        va_list args;
        va_start(args, format);
        err->code = code;
        vsnprintf(err->message, sizeof err->message, format, args);
        va_end(args);
        size_t used = strlen(err->message);
        snprintf(err->message + used, sizeof err->message - used, ": %s",
                 strerror_r(code, reason, sizeof reason));
    }
    return -code;
}

int fail_in(struct platter_error *err, int code, const char *format, ...)
{
    if (err) {
        char whole[sizeof err->message];
        va_list args;
        va_start(args, format);
        vsnprintf(whole, sizeof whole, format, args);
        va_end(args);
        size_t used = strlen(whole);
        snprintf(whole + used, sizeof whole - used, ": %.*s", (int)(sizeof whole - used),
                 err->message);
        memcpy(err->message, whole, sizeof whole);
    }
    return code;
}

int fail_besides(struct platter_error *err, int code, const char *format, ...)
{
    if (err) {
        char besides[sizeof err->message];
        va_list args;
        va_start(args, format);
        vsnprintf(besides, sizeof besides, format, args);
        va_end(args);
        size_t used = strlen(err->message);
        snprintf(err->message + used, sizeof err->message - used, "; %s", besides);
        err->code = code;
    }
    return -code;
}

int fail_memory(struct platter_error *err, const char *what)
{
    return fail(err, ENOMEM, "out of memory for %s", what);
}
