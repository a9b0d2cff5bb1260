/* What a request asks to run. See guest_agent.h, docs/agent.md. */
#include "guest_agent.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

enum { OWN_ENV = 6 };

static size_t count(const struct wire_frame *f, const char *key)
{
    const char *at = NULL;
    size_t n = 0;

    while (wire_each(f, key, &at))
        n++;
    return n;
}

/** Add NAME=VALUE, in place of one of that name. */
static int add_env(struct exec_spec *e, const char *text)
{
    size_t n = strcspn(text, "="), i;
    char *copy = strdup(text);

    if (!copy)
        return -ENOMEM;
    for (i = 0; i < e->env_count && (strncmp(e->env[i], text, n) || e->env[i][n] != '='); i++)
        ;
    if (i < e->env_count)
        free(e->env[i]);
    else
        e->env_count++;
    e->env[i] = copy;
    return 0;
}

static int add_own_env(struct exec_spec *e, const char *name, const char *value)
{
    char text[300];

    (void)snprintf(text, sizeof(text), "%s=%s", name, value);
    return add_env(e, text);
}

static int parse_env(struct exec_spec *e, const struct wire_frame *f, struct error *err)
{
    const char *at = NULL, *text;

    e->env = calloc(count(f, "env") + OWN_ENV + 1, sizeof(*e->env));
    if (!e->env || add_own_env(e, "PATH", DEFAULT_PATH) || add_own_env(e, "HOME", e->user.home) ||
        add_own_env(e, "USER", e->user.name) || add_own_env(e, "LOGNAME", e->user.name) ||
        add_own_env(e, "SHELL", e->user.shell) || (e->tty && add_own_env(e, "TERM", "linux")))
        return error_set(err, ENOMEM, "out of memory");
    while ((text = wire_each(f, "env", &at))) {
        if (*text == '=' || !strchr(text, '='))
            return error_set(err, EINVAL, "'%.40s' is no environment variable", text);
        if (add_env(e, text))
            return error_set(err, ENOMEM, "out of memory");
    }
    return 0;
}

/** A login shell is told by the dash before its name. */
static int use_shell(struct exec_spec *e, struct error *err)
{
    const char *slash;

    if (access(e->user.shell, X_OK))
        (void)snprintf(e->user.shell, sizeof(e->user.shell), "/bin/sh");
    slash = strrchr(e->user.shell, '/');
    (void)snprintf(e->login_name, sizeof(e->login_name), "-%.60s",
                   slash ? slash + 1 : e->user.shell);
    e->program = e->user.shell;
    e->argv[0] = e->login_name;
    return 0;
}

int exec_spec_parse(struct exec_spec *e, const struct wire_frame *f, struct error *err)
{
    const char *at = NULL, *text;
    int64_t tty, columns, rows;
    size_t n = 0;

    *e = (struct exec_spec){0};
    if (wire_find_int(f, "tty", 0, 1, 0, &tty) ||
        wire_find_int(f, "columns", 0, UINT16_MAX, 0, &columns) ||
        wire_find_int(f, "rows", 0, UINT16_MAX, 0, &rows))
        return error_set(err, EPROTO, "impossible numbers in a request");
    e->tty = tty;
    e->columns = (unsigned short)columns;
    e->rows = (unsigned short)rows;
    int rc = user_find(&e->user, wire_find(f, "user"), err);
    if (!rc)
        rc = parse_env(e, f, err);
    if (rc)
        return rc;
    e->cwd = wire_find(f, "cwd");
    e->argv = calloc(count(f, "arg") + 2, sizeof(*e->argv));
    if (!e->argv)
        return error_set(err, ENOMEM, "out of memory");
    while ((text = wire_each(f, "arg", &at)))
        e->argv[n++] = (char *)text; /* execve() does not write there */
    if (!n && wire_find(f, "shell"))
        return use_shell(e, err);
    if (!n || !*e->argv[0])
        return error_set(err, EINVAL, "there is no program to run");
    e->program = e->argv[0];
    return 0;
}

void exec_spec_done(struct exec_spec *e)
{
    for (size_t i = 0; i < e->env_count; i++)
        free(e->env[i]);
    free(e->env);
    free(e->argv);
}
