/* The command table as JSON, for programs that drive or document Posada. No state. */
#include "cli/cmd.h"
#include "cli/help.h"

#include <jansson.h>
#include <string.h>

static const char *kind_name(enum opt_kind kind)
{
    switch (kind) {
    case OPT_FLAG:
        return "flag";
    case OPT_STRING:
        return "string";
    case OPT_CHOICE:
        return "choice";
    case OPT_INT:
        return "int";
    case OPT_SIZE:
        return "size";
    case OPT_DURATION:
        return "duration";
    case OPT_LIST:
        return "list";
    }
    return "string";
}

static json_t *choices_json(const char *choices)
{
    json_t *array = json_array();

    for (const char *p = choices; *p;) {
        size_t n = strcspn(p, " ");
        (void)json_array_append_new(array, json_stringn(p, n));
        p += n + (p[n] == ' ');
    }
    return array;
}

static json_t *option_json(const struct opt_def *o)
{
    char short_name[] = {o->short_name, '\0'};
    json_t *j = json_pack("{s:s, s:s, s:s, s:s}", "name", o->name, "kind", kind_name(o->kind),
                          "group", o->group ? o->group : "Options", "help", o->help);

    if (o->short_name)
        (void)json_object_set_new(j, "short", json_string(short_name));
    if (o->arg)
        (void)json_object_set_new(j, "argument", json_string(o->arg));
    if (o->def)
        (void)json_object_set_new(j, "default", json_string(o->def));
    if (o->choices)
        (void)json_object_set_new(j, "choices", choices_json(o->choices));
    if (o->max > o->min) {
        (void)json_object_set_new(j, "min", json_integer(o->min));
        (void)json_object_set_new(j, "max", json_integer(o->max));
    }
    return j;
}

static json_t *cmd_json(const struct cmd *cmd)
{
    json_t *options = json_array();
    json_t *subs = json_array();

    for (const struct opt_def *o = cmd->opts; o->name; o++)
        (void)json_array_append_new(options, option_json(o));
    for (const struct cmd *const *s = cmd->subs; s && *s; s++)
        (void)json_array_append_new(subs, cmd_json(*s));
    return json_pack("{s:s, s:s, s:s, s:s?, s:o, s:o}", "name", cmd_name(cmd), "path", cmd->path,
                     "summary", cmd->summary, "operands", cmd->operands, "options", options,
                     "commands", subs);
}

void help_json(const struct cmd *root, FILE *out)
{
    json_t *j = cmd_json(root);

    (void)json_object_set_new(j, "version", json_string(POSADA_VERSION));
    (void)json_dumpf(j, out, JSON_INDENT(2));
    (void)fputc('\n', out);
    json_decref(j);
}
