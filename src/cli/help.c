/* --help for people, and what all renderings of the command table share. No state. */
#include "cli/help.h"

#include "cli/cmd.h"

#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { HELP_COLUMN = 30, HELP_WIDTH_MIN = 50, HELP_WIDTH_MAX = 100, HELP_WIDTH_DEFAULT = 80 };

/** Where output stands, to fill lines. */
struct fill {
    FILE *out;
    unsigned width;
    unsigned indent; /* of continuation lines */
    unsigned column;
};

unsigned help_width(int fd)
{
    struct winsize ws;

    if (ioctl(fd, TIOCGWINSZ, &ws) || !ws.ws_col)
        return HELP_WIDTH_DEFAULT;
    return (unsigned)MAX((int)HELP_WIDTH_MIN, MIN((int)ws.ws_col, (int)HELP_WIDTH_MAX));
}

static void fill_newline(struct fill *f, unsigned indent)
{
    (void)fprintf(f->out, "\n%*s", (int)indent, "");
    f->column = indent;
}

/** Put the words of [p, end) at the current column, breaking lines before the width. */
static void fill_text(struct fill *f, const char *p, const char *end)
{
    bool fresh = true;

    while (p < end) {
        p += strspn(p, " \n");
        if (p >= end)
            break;
        unsigned len = (unsigned)MIN(strcspn(p, " \n"), (size_t)(end - p));
        if (!fresh && f->column + 1 + len > f->width) {
            fill_newline(f, f->indent);
        } else if (!fresh) {
            (void)fputc(' ', f->out);
            f->column++;
        }
        (void)fwrite(p, 1, len, f->out);
        f->column += len;
        fresh = false;
        p += len;
    }
}

bool help_next_paragraph(const char **text, struct help_paragraph *ret)
{
    const char *p = *text + strspn(*text, "\n");

    if (!*p)
        return false;
    const char *end = strstr(p, "\n\n");
    *ret = (struct help_paragraph){
        .start = p, .end = end ? end : p + strlen(p), .verbatim = !strncmp(p, "  ", 2)};
    *text = ret->end;
    return true;
}

static void print_text(const char *text, unsigned width, unsigned indent, FILE *out)
{
    struct help_paragraph para;
    bool first = true;

    while (help_next_paragraph(&text, &para)) {
        if (!first)
            (void)fputc('\n', out);
        first = false;
        if (para.verbatim) {
            (void)fwrite(para.start, 1, (size_t)(para.end - para.start), out);
        } else {
            struct fill f = {.out = out, .width = width, .indent = indent, .column = indent};
            (void)fprintf(out, "%*s", (int)indent, "");
            fill_text(&f, para.start, para.end);
        }
        (void)fputc('\n', out);
    }
}

bool help_in_group(const struct opt_def *opt, const char *group)
{
    return !strcmp(opt->group ? opt->group : "Options", group);
}

void help_each_group(const struct opt_def *opts, void (*fn)(const char *group, void *arg),
                     void *arg)
{
    for (const struct opt_def *o = opts; o && o->name; o++) {
        const char *group = o->group ? o->group : "Options";
        bool seen = false;
        for (const struct opt_def *p = opts; p < o; p++)
            seen |= help_in_group(p, group);
        if (!seen)
            fn(group, arg);
    }
}

void help_each_cmd(const struct cmd *root, void (*fn)(const struct cmd *cmd, void *arg), void *arg)
{
    fn(root, arg);
    for (const struct cmd *const *s = root->subs; s && *s; s++)
        help_each_cmd(*s, fn, arg);
}

const char *help_value_note(const struct opt_def *opt, char *buf, size_t size)
{
    char expected[256] = "";
    const char *what = "";
    const char *def = opt->def;

    if (opt->kind == OPT_CHOICE || (opt->kind == OPT_INT && opt->max > opt->min))
        what = opt_expected(opt, expected, sizeof(expected));
    if (!strncmp(what, "a whole number ", 15))
        what += 15;
    buf[0] = '\0';
    if (*what && def)
        (void)snprintf(buf, size, " (%s; default %s)", what, def);
    else if (*what || def)
        (void)snprintf(buf, size, " (%s%s)", def ? "default " : "", def ? def : what);
    return buf;
}

/** "-m, --memory=SIZE" */
static unsigned print_spelling(const struct opt_def *opt, FILE *out)
{
    int n = opt->short_name ? fprintf(out, "  -%c, ", opt->short_name) : fprintf(out, "      ");

    n += fprintf(out, "--%s%s", opt_is_negatable(opt) ? "[no-]" : "", opt->name);
    if (opt->kind != OPT_FLAG)
        n += fprintf(out, "=%s", opt->arg);
    return n > 0 ? (unsigned)n : 0;
}

static void print_option(const struct opt_def *opt, unsigned width, FILE *out)
{
    char note[300];
    struct fill f = {.out = out, .width = width, .indent = HELP_COLUMN};

    f.column = print_spelling(opt, out);
    if (f.column + 2 > HELP_COLUMN) {
        fill_newline(&f, HELP_COLUMN);
    } else {
        (void)fprintf(out, "%*s", (int)(HELP_COLUMN - f.column), "");
        f.column = HELP_COLUMN;
    }
    fill_text(&f, opt->help, opt->help + strlen(opt->help));
    help_value_note(opt, note, sizeof(note));
    if (*note && f.column + strcspn(note + 1, " ") + 1 > width)
        fill_newline(&f, HELP_COLUMN);
    else if (*note)
        f.column += (unsigned)fprintf(out, " ");
    fill_text(&f, note, note + strlen(note));
    (void)fputc('\n', out);
}

struct print_group_arg {
    const struct cmd *cmd;
    unsigned width;
    FILE *out;
};

static void print_group(const char *group, void *arg)
{
    const struct print_group_arg *a = arg;

    (void)fprintf(a->out, "\n%s:\n", group);
    for (const struct opt_def *o = a->cmd->opts; o->name; o++) {
        if (help_in_group(o, group))
            print_option(o, a->width, a->out);
    }
}

void help_print(const struct cmd *cmd, unsigned width, FILE *out)
{
    struct print_group_arg arg = {.cmd = cmd, .width = width, .out = out};

    (void)fprintf(out, "Usage: posada %s%s[OPTION...]%s%s\n\n", cmd->path, *cmd->path ? " " : "",
                  cmd->operands ? " " : "", cmd->operands ? cmd->operands : "");
    print_text(cmd->description, width, 0, out);
    if (cmd->subs)
        (void)fprintf(out, "\nCommands:\n");
    for (const struct cmd *const *s = cmd->subs; s && *s; s++)
        (void)fprintf(out, "  %-14s%s\n", cmd_name(*s), (*s)->summary);
    help_each_group(cmd->opts, print_group, &arg);
    for (const struct cmd_section *s = cmd->sections; s && s->title; s++) {
        (void)fprintf(out, "\n%s:\n", s->title);
        print_text(s->text, width, 2, out);
    }
}
