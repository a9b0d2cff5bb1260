/* The host's end of "run one command in the guest" and of shared folders' mount points.
 * Format: docs/guest-command.md. Any thread. */
#include "base/fd.h"
#include "image/image.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define COMMAND_MAX (1u << 20) /* the guest holds the script in memory */

/** Append @s as one single-quoted word of sh: ' becomes '\''. */
static void put_quoted(FILE *f, const char *s)
{
    putc('\'', f);
    for (; *s; s++) {
        if (*s == '\'')
            fputs("'\\''", f);
        else
            putc(*s, f);
    }
    putc('\'', f);
}

/** K of "K=V" must be a name of sh. */
static bool is_env(const char *s)
{
    if (!isalpha((unsigned char)*s) && *s != '_')
        return false;
    while (isalnum((unsigned char)*s) || *s == '_')
        s++;
    return *s == '=';
}

static void put_script(FILE *f, const char *const *argv, const char *const *env, const char *cwd)
{
    for (; env && *env; env++) {
        const char *value = strchr(*env, '=') + 1;

        fprintf(f, "export %.*s", (int)(value - *env), *env);
        put_quoted(f, value);
        putc('\n', f);
    }
    if (cwd) {
        fputs("cd ", f);
        put_quoted(f, cwd);
        fputs(" || exit 126\n", f);
    }
    /* Through env, so that a name is never taken for a builtin or a keyword of sh. */
    fputs("exec env --", f);
    for (; *argv; argv++) {
        putc(' ', f);
        put_quoted(f, *argv);
    }
    putc('\n', f);
}

int image_command_encode(const char *const *argv, const char *const *env, const char *cwd,
                         char **ret, size_t *ret_size, struct error *err)
{
    cleanup(freep) char *script = NULL;
    size_t script_size = 0;

    assert(argv && *argv);
    for (const char *const *e = env; e && *e; e++)
        if (!is_env(*e))
            return error_set(err, EINVAL,
                             "'%.200s' is not an environment setting: expected NAME=VALUE", *e);
    FILE *f = open_memstream(&script, &script_size);
    if (!f)
        return error_set(err, ENOMEM, "out of memory");
    put_script(f, argv, env, cwd);
    if (fclose(f))
        return error_set(err, ENOMEM, "out of memory");
    if (script_size > COMMAND_MAX)
        return error_set(err, E2BIG, "the command and its environment take more than %u KiB",
                         COMMAND_MAX >> 10);

    char *out = NULL;
    int n = asprintf(&out, "%zu\n%s", script_size, script);
    if (n < 0)
        return error_set(err, ENOMEM, "out of memory");
    *ret = out;
    *ret_size = (size_t)n;
    return 0;
}

char *image_mount_argument(const char *tag, const char *path, bool read_only)
{
    char *out = NULL;
    size_t size = 0;

    if (path[0] != '/' || !*tag)
        return NULL;
    for (const char *t = tag; *t; t++)
        if (!isalnum((unsigned char)*t) && !strchr("._-", *t))
            return NULL;
    FILE *f = open_memstream(&out, &size);
    if (!f)
        return NULL;
    fprintf(f, "posada.mount=%s:", tag);
    for (const unsigned char *p = (const unsigned char *)path; *p; p++) {
        if (isalnum(*p) || strchr("/._-+@,", *p))
            putc(*p, f);
        else
            fprintf(f, "%%%03o", *p);
    }
    if (read_only)
        fputs(":ro", f);
    if (fclose(f)) {
        free(out);
        return NULL;
    }
    return out;
}
