/* Errors that a person will read: a sentence and an errno, on the caller's stack. */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include "base/macros.h"

#include <stdarg.h>

#define ERROR_TEXT_MAX 512

struct error {
    int code; /* positive errno, 0 = no error */
    char text[ERROR_TEXT_MAX];
};

/** Put '?' in place of the control characters in @text (C0, DEL, and C1 in UTF-8): a name out of a
 * file must not command the terminal that it is printed on, nor begin another line. */
void text_make_printable(char *text);

/** Set @err (NULL is allowed: the sentence is dropped) to errno value @code and a formatted
 * sentence without a final full stop or newline, which is made printable. An error that is already
 * set is kept: the first one is the cause. Returns -@code, so that `return error_set(err, errno,
 * "...")` reads well. Keeps errno. */
int error_set(struct error *err, int code, const char *fmt, ...) printf_like(3, 4);

/** Put "@fmt: " before the sentence that @err holds, to name the object that a lower layer did not
 * know. */
void error_prefix(struct error *err, const char *fmt, ...) printf_like(2, 3);

/** The sentence of @err, or a generic one when none was set; never NULL. */
const char *error_text(const struct error *err);

#endif
