/* Errors that a person will read. No allocation; truncates sentences past ERROR_TEXT_MAX. */
#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

void text_make_printable(char *text)
{
    for (unsigned char *c = (unsigned char *)text; *c; c++) {
        bool is_c1 = c[0] == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0;

        if (*c < ' ' || *c == 0x7f || is_c1)
            *c = '?';
        if (is_c1)
            *++c = '?';
    }
}

int error_set(struct error *err, int code, const char *fmt, ...)
{
    int saved_errno = errno;

    assert(code > 0);
    if (err && !err->code) {
        va_list ap;

        va_start(ap, fmt);
        (void)vsnprintf(err->text, sizeof(err->text), fmt, ap); /* truncation is fine */
        va_end(ap);
        text_make_printable(err->text);
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
    text_make_printable(err->text);
    n = strlen(err->text);
    (void)snprintf(err->text + n, sizeof(err->text) - n, ": %s", old);
}

const char *error_text(const struct error *err)
{
    return err && err->code ? err->text : "unknown error";
}
