/* instance.yaml: reading with line numbers, writing, and replacing one key's lines. The file is one
 * flat mapping, so neither depth nor references exist; its size bounds everything.
 *
 * Spec: YAML 1.1 as libyaml reads it, without aliases, anchors and tags. Any thread. */
#include "base/fd.h"
#include "base/paths.h"
#include "store/config.h"

#include <errno.h>
#include <string.h>
#include <yaml.h>

enum { KEYS_MAX = 64 };

/** Where each key's value was found, by its place in config_keys; lines from 0. */
struct places {
    struct place {
        bool found;
        size_t first, end; /* lines [first, end) */
    } v[KEYS_MAX];
};

struct reader {
    yaml_parser_t parser;
    yaml_event_t event;
    bool has_event;
    const char *path;
    struct instance_config *config;
    struct places *places;
    struct error *err;
};

static int fail_at(struct reader *r, size_t line, const char *fmt, ...) printf_like(3, 4);

static int fail_at(struct reader *r, size_t line, const char *fmt, ...)
{
    char text[ERROR_TEXT_MAX];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    return error_set(r->err, EINVAL, "%s:%zu: %s", r->path, line + 1, text);
}

static size_t line_of(const struct reader *r)
{
    return r->event.start_mark.line;
}

static int next_event(struct reader *r)
{
    if (r->has_event)
        yaml_event_delete(&r->event);
    r->has_event = false;
    if (!yaml_parser_parse(&r->parser, &r->event)) {
        if (r->parser.error == YAML_MEMORY_ERROR)
            return error_set(r->err, ENOMEM, "out of memory");
        return fail_at(r, r->parser.problem_mark.line, "%s",
                       r->parser.problem ? r->parser.problem : "not YAML");
    }
    r->has_event = true;
    return 0;
}

/** The scalar at hand as a string; NULL with the error set. Borrowed from the event. */
static const char *scalar(struct reader *r, const char *what)
{
    const char *text = (const char *)r->event.data.scalar.value;

    if (r->event.type != YAML_SCALAR_EVENT)
        (void)fail_at(r, line_of(r), "%s: expected a single value", what);
    else if (r->event.data.scalar.anchor || r->event.data.scalar.tag)
        (void)fail_at(r, line_of(r), "%s: anchors and tags are not allowed", what);
    else if (strlen(text) != r->event.data.scalar.length)
        (void)fail_at(r, line_of(r), "%s: control characters are not allowed", what);
    else
        return text;
    return NULL;
}

static int set_at(struct reader *r, const struct config_key *k, const char *value, bool add)
{
    struct error why = {0};
    int rc = add ? config_add(r->config, k, value, &why) : config_set(r->config, k, value, &why);

    if (rc == -ENOMEM)
        return error_set(r->err, ENOMEM, "out of memory");
    return rc ? fail_at(r, line_of(r), "%s", error_text(&why)) : 0;
}

static int read_list(struct reader *r, const struct config_key *k)
{
    for (;;) {
        int rc = next_event(r);
        if (rc || r->event.type == YAML_SEQUENCE_END_EVENT)
            return rc;
        const char *value = scalar(r, k->name);
        rc = value ? set_at(r, k, value, true) : -EINVAL;
        if (rc)
            return rc;
    }
}

static int read_value(struct reader *r, const struct config_key *k)
{
    int rc = next_event(r);

    if (rc)
        return rc;
    if (k->kind == CONFIG_LIST && r->event.type == YAML_SEQUENCE_START_EVENT) {
        if (r->event.data.sequence_start.anchor || r->event.data.sequence_start.tag)
            return fail_at(r, line_of(r), "%s: anchors and tags are not allowed", k->name);
        return read_list(r, k);
    }
    const char *value = scalar(r, k->name);
    if (!value)
        return -EINVAL;
    bool empty = !*value && r->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    if (empty && k->kind != CONFIG_TEXT)
        return 0; /* "key:" alone is the default */
    return set_at(r, k, value, false);
}

/** One key and its value; the key is at hand. */
static int read_pair(struct reader *r)
{
    struct error why = {0};
    const char *name = scalar(r, "key");
    size_t first = line_of(r);

    if (!name)
        return -EINVAL;
    const struct config_key *k = config_find(name, &why);
    if (!k)
        return fail_at(r, first, "%s", error_text(&why));
    struct place *p = &r->places->v[k - config_keys];
    if (p->found)
        return fail_at(r, first, "%s is given twice", k->name);
    int rc = read_value(r, k);
    if (rc)
        return rc;
    /* A block sequence "ends" where the next token begins; its last element's line is the one
     * before. */
    *p = (struct place){true, first, r->event.end_mark.line + (r->event.end_mark.column > 0)};
    return 0;
}

static int read_mapping(struct reader *r)
{
    if (r->event.type == YAML_SCALAR_EVENT && !r->event.data.scalar.length)
        return next_event(r); /* comments alone */
    if (r->event.type != YAML_MAPPING_START_EVENT)
        return fail_at(r, line_of(r), "expected lines of 'key: value'");
    if (r->event.data.mapping_start.anchor || r->event.data.mapping_start.tag)
        return fail_at(r, line_of(r), "anchors and tags are not allowed");
    for (;;) {
        int rc = next_event(r);
        if (rc)
            return rc;
        if (r->event.type == YAML_MAPPING_END_EVENT)
            return next_event(r);
        rc = read_pair(r);
        if (rc)
            return rc;
    }
}

static int read_stream(struct reader *r)
{
    int rc = next_event(r); /* stream start */

    if (!rc)
        rc = next_event(r);
    if (rc || r->event.type == YAML_STREAM_END_EVENT)
        return rc;
    rc = next_event(r); /* behind document start */
    if (!rc)
        rc = read_mapping(r);
    if (!rc)
        rc = next_event(r); /* behind document end */
    if (!rc && r->event.type != YAML_STREAM_END_EVENT)
        rc = fail_at(r, line_of(r), "there is more than one document");
    return rc;
}

static int parse(const char *path, const char *text, size_t size, struct instance_config *ret,
                 struct places *places, struct error *err)
{
    struct reader r = {.path = path, .config = ret, .places = places, .err = err};

    if (size > CONFIG_FILE_MAX)
        return error_set(err, EINVAL, "'%s' is larger than %d bytes", path, CONFIG_FILE_MAX);
    int rc = config_init(ret, err);
    if (rc)
        return rc;
    if (!yaml_parser_initialize(&r.parser)) {
        config_done(ret);
        return error_set(err, ENOMEM, "out of memory");
    }
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, size);
    rc = read_stream(&r);
    if (r.has_event)
        yaml_event_delete(&r.event);
    yaml_parser_delete(&r.parser);
    if (!rc) {
        rc = config_check(ret, err);
        if (rc)
            error_prefix(err, "%s", path);
    }
    if (rc)
        config_done(ret);
    return rc;
}

int config_parse(const char *path, const char *text, size_t size, struct instance_config *ret,
                 struct error *err)
{
    struct places places = {0};

    return parse(path, text, size, ret, &places, err);
}

int config_load(const char *path, struct instance_config *ret, struct error *err)
{
    cleanup(freep) char *text = NULL;
    size_t size;
    int r = paths_read(path, CONFIG_FILE_MAX, &text, &size, err);

    return r ? r : config_parse(path, text, size, ret, err);
}

/** A double-quoted scalar: what is not printable cannot be in a value. */
static void put_quoted(FILE *f, const char *value)
{
    (void)fputc('"', f);
    for (const char *p = value; *p; p++)
        (void)fprintf(f, "%s%c", *p == '"' || *p == '\\' ? "\\" : "", *p);
    (void)fputc('"', f);
}

static void put_key(FILE *f, const struct instance_config *c, const struct config_key *k)
{
    cleanup(freep) char *value = config_get(c, k);
    const struct config_list *l = (const void *)((const char *)c + k->offset);

    (void)fprintf(f, "%s:", k->name);
    if (k->kind == CONFIG_LIST) {
        (void)fprintf(f, "%s\n", l->n ? "" : " []");
        for (size_t i = 0; i < l->n; i++) {
            (void)fprintf(f, "  - ");
            put_quoted(f, l->v[i]);
            (void)fputc('\n', f);
        }
        return;
    }
    (void)fputc(' ', f);
    if (k->kind == CONFIG_TEXT)
        put_quoted(f, value ? value : "");
    else
        (void)fprintf(f, "%s", value ? value : "");
    (void)fputc('\n', f);
}

static bool is_default(const struct instance_config *c, const struct config_key *k)
{
    cleanup(freep) char *value = config_get(c, k);

    return value && !strcmp(value, k->def ? k->def : "");
}

/** Close @f; its text, or NULL with @err set. */
static char *finish(FILE *f, char **text, struct error *err)
{
    if (f && !ferror(f) && !fclose(f))
        return *text;
    free(*text);
    (void)error_set(err, ENOMEM, "out of memory");
    return NULL;
}

char *config_format(const struct instance_config *c, struct error *err)
{
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);

    if (f)
        (void)fprintf(f, "# An instance of Posada. 'man posada-set' explains the keys; changes are "
                         "used from the next start on.\n");
    for (const struct config_key *k = config_keys; f && k->name; k++) {
        if (k->always || !is_default(c, k))
            put_key(f, c, k);
    }
    return finish(f, &text, err);
}

/** The beginning of line @n, counted from 0, or the end of @text. */
static const char *line_at(const char *text, size_t n)
{
    while (n-- && *text) {
        const char *eol = strchr(text, '\n');
        text = eol ? eol + 1 : text + strlen(text);
    }
    return text;
}

/** Does @text say what @c says? */
static bool says(const char *text, const struct instance_config *c)
{
    struct instance_config got;

    if (config_parse("instance.yaml", text, strlen(text), &got, NULL))
        return false;
    json_t *a = config_json(&got);
    json_t *b = config_json(c);
    bool same = json_equal(a, b);
    json_decref(a);
    json_decref(b);
    config_done(&got);
    return same;
}

char *config_replace(const char *text, const struct instance_config *c, const struct config_key *k,
                     struct error *err)
{
    struct instance_config old;
    struct places places = {0};
    char *result = NULL;
    size_t size;

    if (parse("instance.yaml", text, strlen(text), &old, &places, err))
        return NULL;
    config_done(&old);
    const struct place *p = &places.v[k - config_keys];
    const char *first = p->found ? line_at(text, p->first) : text + strlen(text);
    const char *end = p->found ? line_at(text, p->end) : first;
    /* a block list ends where the next key begins: comments in between are not its own */
    while (p->found && end > first && end[-1] == '\n') {
        const char *line = end - 1;
        while (line > first && line[-1] != '\n')
            line--;
        const char *word = line + strspn(line, " \t");
        if (line == first || (*word != '#' && *word != '\n'))
            break;
        end = line;
    }
    FILE *f = open_memstream(&result, &size);
    if (f) {
        (void)fwrite(text, 1, (size_t)(first - text), f);
        if (first > text && first[-1] != '\n')
            (void)fputc('\n', f);
        put_key(f, c, k);
        (void)fputs(end, f);
    }
    cleanup(freep) char *replaced = finish(f, &result, err);
    if (!replaced)
        return NULL;
    /* keys that share a line cannot be replaced one by one: then all is written anew */
    return says(replaced, c) ? ptr_take(&replaced) : config_format(c, err);
}

static bool is_same(const struct instance_config *a, const struct instance_config *b,
                    const struct config_key *k)
{
    cleanup(freep) char *x = config_get(a, k);
    cleanup(freep) char *y = config_get(b, k);

    return x && y && !strcmp(x, y);
}

const struct config_key *config_difference(const struct instance_config *a,
                                           const struct instance_config *b)
{
    for (const struct config_key *k = config_keys; k->name; k++) {
        if (!k->live && !is_same(a, b, k))
            return k;
    }
    return NULL;
}

char *config_rewrite(const char *text, const struct instance_config *c, bool live,
                     struct error *err)
{
    struct instance_config was;
    char *now = strdup(text);

    if (!now || config_parse("instance.yaml", text, strlen(text), &was, err)) {
        free(now);
        return NULL;
    }
    for (const struct config_key *k = config_keys; now && k->name; k++) {
        if ((k->live && !live) || is_same(&was, c, k))
            continue;
        char *next = config_replace(now, c, k, err);
        free(now);
        now = next;
    }
    config_done(&was);
    return now;
}
