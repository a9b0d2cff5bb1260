/* Errors that a person will read. No allocation; truncates sentences past ERROR_TEXT_MAX. */
#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int error_set(struct error *err, int code, const char *fmt, ...)
{
    int saved_errno = errno;

    assert(code > 0);
    if (err && !err->code) {
        va_list ap;

        va_start(ap, fmt);
        (void)vsnprintf(err->text, sizeof(err->text), fmt, ap); /* truncation is fine */
        va_end(ap);
        err->code = code;
    }
    errno = saved_errno;
    return -code;
}

void error_prefix(struct error *err, const char *fmt, ...)
{
    char old[ERROR_TEXT_MAX];
    va_list ap;
    size_t n;

    if (!err || !err->code)
        return;
    memcpy(old, err->text, sizeof(old));
    va_start(ap, fmt);
    (void)vsnprintf(err->text, sizeof(err->text), fmt, ap);
    va_end(ap);
    n = strlen(err->text);
    (void)snprintf(err->text + n, sizeof(err->text) - n, ": %s", old);
}

const char *error_text(const struct error *err)
{
    return err && err->code ? err->text : "unknown error";
}
