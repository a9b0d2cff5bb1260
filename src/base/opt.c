/* Parse argv by a table of options. See base/opt.h.
 *
 * Invariants: (1) a value is stored only after it was checked whole; (2) every error names the
 * option as the user wrote it and says what was expected; (3) nothing is copied from argv, so
 * nothing but the arrays is freed. No state; any thread. */
#include "base/opt.h"

#include "base/error.h"
#include "base/fd.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/** argv on the way through. */
struct cursor {
    char **argv;
    int argc;
    int at; /* next word */
};

static bool has_range(const struct opt_def *opt)
{
    return opt->max > opt->min;
}

bool opt_is_negatable(const struct opt_def *opt)
{
    return opt->kind == OPT_FLAG && opt->def;
}

const struct opt_def *opt_find(const struct opt_def *opts, const char *name)
{
    for (const struct opt_def *o = opts; o && o->name; o++) {
        if (!strcmp(o->name, name))
            return o;
    }
    return NULL;
}

static const struct opt_def *find_short(const struct opt_def *opts, char c)
{
    for (const struct opt_def *o = opts; o && o->name; o++) {
        if (o->short_name == c)
            return o;
    }
    return NULL;
}

/** " from 64M to 1T" for a size or a number; empty without a range. */
static void describe_range(const struct opt_def *opt, char *buf, size_t size)
{
    char low[32];
    char high[32];

    buf[0] = '\0';
    if (!has_range(opt))
        return;
    if (opt->kind == OPT_SIZE)
        (void)snprintf(buf, size, " from %s to %s",
                       opt_format_size((uint64_t)opt->min, low, sizeof(low)),
                       opt_format_size((uint64_t)opt->max, high, sizeof(high)));
    else
        (void)snprintf(buf, size, " from %" PRId64 " to %" PRId64, opt->min, opt->max);
}

static void describe_choices(const struct opt_def *opt, char *buf, size_t size)
{
    size_t at = (size_t)snprintf(buf, size, "one of ");

    for (const char *p = opt->choices; *p && at + 3 < size; p++) {
        if (*p == ' ')
            buf[at++] = ',';
        buf[at++] = *p;
    }
    buf[at] = '\0';
}

const char *opt_expected(const struct opt_def *opt, char *buf, size_t size)
{
    char range[80];

    switch (opt->kind) {
    case OPT_FLAG:
        (void)snprintf(buf, size, "no value");
        break;
    case OPT_STRING:
    case OPT_LIST:
        (void)snprintf(buf, size, "%s", opt->arg);
        break;
    case OPT_CHOICE:
        describe_choices(opt, buf, size);
        break;
    case OPT_INT:
        describe_range(opt, range, sizeof(range));
        (void)snprintf(buf, size, "a whole number%s", range);
        break;
    case OPT_SIZE:
        describe_range(opt, range, sizeof(range));
        (void)snprintf(buf, size, "a size%s such as 512M or 2G (bytes without a suffix)", range);
        break;
    case OPT_DURATION:
        (void)snprintf(buf, size, "a duration such as 500ms, 30s or 5m (seconds without a suffix)");
        break;
    }
    return buf;
}

static bool is_choice(const char *choices, const char *word)
{
    size_t n = strlen(word);

    for (const char *p = choices; *p;) {
        size_t len = strcspn(p, " ");
        if (len == n && n && !memcmp(p, word, n))
            return true;
        p += len + (p[len] == ' ');
    }
    return false;
}

/** Store @text as the value of @opt. -EINVAL, -ERANGE: not a value of its kind; -E2BIG: one too
 * many in a list. */
static int store(const struct opt_def *opt, void *values, const char *text)
{
    void *at = (char *)values + opt->offset;
    uint64_t size;
    int64_t number;
    int r;

    switch (opt->kind) {
    case OPT_FLAG:
        *(bool *)at = !strcmp(text, "on");
        return 0;
    case OPT_STRING:
        *(const char **)at = text;
        return 0;
    case OPT_CHOICE:
        if (!is_choice(opt->choices, text))
            return -EINVAL;
        *(const char **)at = text;
        return 0;
    case OPT_INT:
    case OPT_DURATION:
        r = opt->kind == OPT_INT ? opt_parse_int(text, &number) : opt_parse_duration(text, &number);
        if (r)
            return r;
        if (has_range(opt) ? number < opt->min || number > opt->max : number < 0)
            return -ERANGE;
        *(int64_t *)at = number;
        return 0;
    case OPT_SIZE:
        r = opt_parse_size(text, &size);
        if (r)
            return r;
        if (has_range(opt) && (size < (uint64_t)opt->min || size > (uint64_t)opt->max))
            return -ERANGE;
        *(uint64_t *)at = size;
        return 0;
    case OPT_LIST: {
        struct opt_list *list = at;
        if (list->n == OPT_LIST_MAX)
            return -E2BIG;
        const char **v = realloc(list->v, (list->n + 1) * sizeof(*v));
        if (!v)
            return -ENOMEM;
        v[list->n++] = text;
        list->v = v;
        return 0;
    }
    }
    return -EINVAL;
}

static int store_or_explain(const struct opt_def *opt, const char *spelled, void *values,
                            const char *text, struct error *err)
{
    char expected[256];
    int r = store(opt, values, text);

    if (!r)
        return 0;
    if (r == -ENOMEM)
        return error_set(err, ENOMEM, "out of memory");
    if (r == -E2BIG)
        return error_set(err, EINVAL, "%s may be given at most %d times", spelled, OPT_LIST_MAX);
    return error_set(err, EINVAL, "%s: expected %s, not '%s'", spelled,
                     opt_expected(opt, expected, sizeof(expected)), text);
}

/** The value of @opt: @inline_value if there is one, else the next word. */
static int take_value(struct cursor *c, const struct opt_def *opt, const char *spelled,
                      const char *inline_value, void *values, struct error *err)
{
    char expected[256];
    const char *text = inline_value;

    if (!text && c->at < c->argc)
        text = c->argv[c->at++];
    if (!text || (!inline_value && !strcmp(text, "--")))
        return error_set(err, EINVAL, "%s needs a value: %s", spelled,
                         opt_expected(opt, expected, sizeof(expected)));
    return store_or_explain(opt, spelled, values, text, err);
}

static const char *next_name(void *arg)
{
    const struct opt_def **o = arg;

    return (*o)->name ? (*o)++->name : NULL;
}

static int unknown_long(const struct opt_def *opts, const char *name, struct error *err)
{
    const struct opt_def *o = opts;
    const char *near = opts ? opt_nearest(name, next_name, &o) : NULL;

    if (near)
        return error_set(err, EINVAL, "unknown option '--%s'; did you mean '--%s'?", name, near);
    return error_set(err, EINVAL, "unknown option '--%s'", name);
}

/** @word is what follows the two dashes. */
static int parse_long(const struct opt_def *opts, struct cursor *c, const char *word, void *values,
                      struct error *err)
{
    const char *equals = strchr(word, '=');
    cleanup(freep) char *name = strndup(word, equals ? (size_t)(equals - word) : strlen(word));
    char spelled[128];

    if (!name)
        return error_set(err, ENOMEM, "out of memory");
    (void)snprintf(spelled, sizeof(spelled), "--%s", name);
    const struct opt_def *opt = opt_find(opts, name);
    const char *flag_value = "on";
    if (!opt && !strncmp(name, "no-", 3)) {
        opt = opt_find(opts, name + 3);
        flag_value = "off";
        if (opt && !opt_is_negatable(opt))
            opt = NULL;
    }
    if (!opt)
        return unknown_long(opts, name, err);
    if (opt->kind != OPT_FLAG)
        return take_value(c, opt, spelled, equals ? equals + 1 : NULL, values, err);
    if (equals)
        return error_set(err, EINVAL, "%s takes no value, but '%s' was given", spelled, equals + 1);
    return store(opt, values, flag_value);
}

/** @word is what follows the dash: flags, the last of which may be an option with a value. */
static int parse_short(const struct opt_def *opts, struct cursor *c, const char *word, void *values,
                       struct error *err)
{
    for (const char *p = word; *p; p++) {
        const struct opt_def *opt = find_short(opts, *p);
        char spelled[] = {'-', *p, '\0'};

        if (!opt)
            return error_set(err, EINVAL, "unknown option '%s'", spelled);
        if (opt->kind != OPT_FLAG)
            return take_value(c, opt, spelled, p[1] ? p + 1 : NULL, values, err);
        int r = store(opt, values, "on");
        if (r)
            return r;
    }
    return 0;
}

static int set_defaults(const struct opt_def *opts, void *values, struct error *err)
{
    for (const struct opt_def *o = opts; o && o->name; o++) {
        int r = o->def ? store_or_explain(o, o->name, values, o->def, err) : 0;
        if (r)
            return r;
    }
    return 0;
}

int opt_parse(const struct opt_def *opts, void *values, int argc, char **argv,
              struct opt_args *ret_args, struct error *err)
{
    struct cursor c = {.argv = argv, .argc = argc};
    int r = set_defaults(opts, values, err);

    *ret_args = (struct opt_args){.rest = argv + argc};
    if (r)
        return r;
    ret_args->v = calloc((size_t)argc + 1, sizeof(*ret_args->v));
    if (!ret_args->v)
        return error_set(err, ENOMEM, "out of memory");
    while (!r && c.at < c.argc) {
        char *word = c.argv[c.at++];
        if (!strcmp(word, "--")) {
            ret_args->has_rest = true;
            ret_args->rest = argv + c.at;
            ret_args->rest_n = (size_t)(argc - c.at);
            break;
        }
        if (!strncmp(word, "--", 2))
            r = parse_long(opts, &c, word + 2, values, err);
        else if (word[0] == '-' && word[1] && !(word[1] >= '0' && word[1] <= '9'))
            r = parse_short(opts, &c, word + 1, values, err);
        else
            ret_args->v[ret_args->n++] = word;
    }
    return r;
}

void opt_done(const struct opt_def *opts, void *values, struct opt_args *args)
{
    for (const struct opt_def *o = opts; values && o && o->name; o++) {
        if (o->kind == OPT_LIST) {
            void *at = (char *)values + o->offset;
            struct opt_list *list = at;
            free(list->v);
            *list = (struct opt_list){0};
        }
    }
    free(args->v);
    *args = (struct opt_args){0};
}
