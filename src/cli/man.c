/* Man pages from the command table, in the macros of man(7). No state. */
#include "cli/cmd.h"
#include "cli/help.h"

#include <ctype.h>
#include <string.h>

/** Text as roff: backslashes, dashes and quotes escaped, and no line that begins with a control
 * character. */
static void put_escaped(const char *p, const char *end, bool line_start, FILE *out)
{
    for (; p < end; p++) {
        if (line_start && (*p == '.' || *p == '\''))
            (void)fputs("\\&", out);
        line_start = *p == '\n';
        switch (*p) {
        case '\\':
            (void)fputs("\\e", out);
            break;
        case '-':
            (void)fputs("\\-", out);
            break;
        case '\'':
            (void)fputs("\\(aq", out);
            break;
        case '~':
            (void)fputs("\\(ti", out);
            break;
        case '^':
            (void)fputs("\\(ha", out);
            break;
        default:
            (void)fputc(*p, out);
        }
    }
}

static void put(const char *text, FILE *out)
{
    put_escaped(text, text + strlen(text), true, out);
}

/** Not at the start of a line. */
static void put_inline(const char *text, FILE *out)
{
    put_escaped(text, text + strlen(text), false, out);
}

/** Upper case, with @space for each space. */
static void put_upper(const char *text, char space, FILE *out)
{
    for (; *text; text++)
        (void)fputc(*text == ' ' ? space : toupper((unsigned char)*text), out);
}

static void put_text(const char *text, FILE *out)
{
    struct help_paragraph para;
    bool first = true;

    while (help_next_paragraph(&text, &para)) {
        if (!first)
            (void)fprintf(out, ".PP\n");
        first = false;
        if (para.verbatim)
            (void)fprintf(out, ".nf\n");
        put_escaped(para.start, para.end, true, out);
        (void)fprintf(out, para.verbatim ? "\n.fi\n" : "\n");
    }
}

/** "\-run" for the page of run, "" for posada's own. */
static void put_page_suffix(const struct cmd *cmd, FILE *out)
{
    for (const char *p = cmd->path; *p; p++) {
        if (p == cmd->path || *p == ' ')
            (void)fputs("\\-", out);
        if (*p != ' ')
            (void)fputc(*p, out);
    }
}

static void put_option(const struct opt_def *opt, FILE *out)
{
    char note[300];

    (void)fprintf(out, ".TP\n");
    if (opt->short_name)
        (void)fprintf(out, "\\fB\\-%c\\fR, ", opt->short_name);
    (void)fprintf(out, "\\fB\\-\\-");
    if (opt_is_negatable(opt))
        (void)fprintf(out, "\\fR[\\fBno\\-\\fR]\\fB");
    put_inline(opt->name, out);
    if (opt->kind != OPT_FLAG)
        (void)fprintf(out, "\\fR=\\fI%s", opt->arg);
    (void)fprintf(out, "\\fR\n");
    put(opt->help, out);
    put_inline(help_value_note(opt, note, sizeof(note)), out);
    (void)fprintf(out, ".\n");
}

struct put_group_arg {
    const struct cmd *cmd;
    FILE *out;
};

static void put_group(const char *group, void *arg)
{
    const struct put_group_arg *a = arg;

    (void)fprintf(a->out, ".SS %s\n", group);
    for (const struct opt_def *o = a->cmd->opts; o->name; o++) {
        if (help_in_group(o, group))
            put_option(o, a->out);
    }
}

static void put_see_also(const struct cmd *cmd, void *arg)
{
    FILE *out = arg;

    (void)fprintf(out, ".BR posada");
    put_page_suffix(cmd, out);
    (void)fprintf(out, " (1)\n");
}

void help_man(const struct cmd *cmd, FILE *out)
{
    struct put_group_arg arg = {.cmd = cmd, .out = out};

    (void)fprintf(out, ".TH POSADA%s", *cmd->path ? "\\-" : "");
    put_upper(cmd->path, '-', out);
    (void)fprintf(out, " 1 \"\" \"posada %s\" \"Posada manual\"\n.SH NAME\nposada", POSADA_VERSION);
    put_page_suffix(cmd, out);
    (void)fprintf(out, " \\- ");
    put_inline(cmd->summary, out);
    (void)fprintf(out, "\n.SH SYNOPSIS\n.B posada %s\n[\\fIOPTION\\fR...]", cmd->path);
    if (cmd->operands) {
        (void)fputc(' ', out);
        put_inline(cmd->operands, out);
    }
    (void)fprintf(out, "\n.SH DESCRIPTION\n");
    put_text(cmd->description, out);
    if (cmd->subs)
        (void)fprintf(out, ".SH COMMANDS\n");
    for (const struct cmd *const *s = cmd->subs; s && *s; s++) {
        (void)fprintf(out, ".TP\n\\fB%s\\fR\n", cmd_name(*s));
        put((*s)->summary, out);
        (void)fprintf(out, ".\n");
    }
    (void)fprintf(out, ".SH OPTIONS\n");
    help_each_group(cmd->opts, put_group, &arg);
    for (const struct cmd_section *s = cmd->sections; s && s->title; s++) {
        (void)fprintf(out, ".SH ");
        put_upper(s->title, ' ', out);
        (void)fputc('\n', out);
        put_text(s->text, out);
    }
    (void)fprintf(out, ".SH SEE ALSO\n");
    help_each_cmd(&cmd_posada, put_see_also, out);
}
