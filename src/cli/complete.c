/* Completion scripts for bash, zsh and fish from the command table. What an option's value
 * completes to follows from the name of its argument: FILE and DISK files, DIR directories, IMAGE
 * images. No state. */
#include "cli/cmd.h"
#include "cli/help.h"

#include <string.h>

enum value_kind { VALUE_FILE, VALUE_DIR, VALUE_IMAGE, VALUE_CHOICE, VALUE_OTHER };

static enum value_kind value_kind(const struct opt_def *o)
{
    if (o->kind == OPT_CHOICE)
        return VALUE_CHOICE;
    if (!o->arg)
        return VALUE_OTHER;
    if (!strncmp(o->arg, "FILE", 4))
        return VALUE_FILE;
    if (!strncmp(o->arg, "DIR", 3))
        return VALUE_DIR;
    return strncmp(o->arg, "IMAGE", 5) ? VALUE_OTHER : VALUE_IMAGE;
}

static bool operand_is_image(const struct cmd *cmd)
{
    return cmd->operands && strstr(cmd->operands, "IMAGE");
}

/** Words that complete the first operand, as in "bash|zsh|fish"; NULL = none. */
static const char *operand_words(const struct cmd *cmd)
{
    return cmd->operands && strchr(cmd->operands, '|') && cmd->operands[0] >= 'a' ? cmd->operands
                                                                                  : NULL;
}

static void put_subs(const struct cmd *cmd, FILE *out)
{
    for (const struct cmd *const *s = cmd->subs; s && *s; s++)
        (void)fprintf(out, "%s%s", s == cmd->subs ? "" : " ", cmd_name(*s));
}

static void put_words(const char *words, char separator, FILE *out)
{
    for (; *words; words++)
        (void)fputc(*words == separator ? ' ' : *words, out);
}

/** Text inside single quotes. */
static void put_quoted(const char *text, const char *special, FILE *out)
{
    for (; *text; text++) {
        if (*text == '\'')
            (void)fputs("'\\''", out);
        else if (strchr(special, *text))
            (void)fprintf(out, "\\%c", *text);
        else
            (void)fputc(*text, out);
    }
}

static void bash_paths(const struct cmd *cmd, void *arg)
{
    FILE *out = arg;

    if (*cmd->path)
        (void)fprintf(out, "        \"%s\") path=\"%s\" ;;\n", cmd->path, cmd->path);
}

static void bash_values(const struct cmd *cmd, void *arg)
{
    FILE *out = arg;

    for (const struct opt_def *o = cmd->opts; o->name; o++) {
        if (o->kind == OPT_FLAG)
            continue;
        (void)fprintf(out, "    \"%s --%s\"", cmd->path, o->name);
        if (o->short_name)
            (void)fprintf(out, "|\"%s -%c\"", cmd->path, o->short_name);
        switch (value_kind(o)) {
        case VALUE_FILE:
            (void)fprintf(
                out,
                ") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- \"$cur\"); return ;;\n");
            break;
        case VALUE_DIR:
            (void)fprintf(
                out,
                ") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- \"$cur\"); return ;;\n");
            break;
        case VALUE_IMAGE:
            (void)fprintf(out, ") words=$(posada image list --quiet 2>/dev/null) ;;\n");
            break;
        case VALUE_CHOICE:
            (void)fprintf(out, ") words=\"%s\" ;;\n", o->choices);
            break;
        case VALUE_OTHER:
            (void)fprintf(out, ") return ;;\n");
            break;
        }
    }
}

static void bash_options(const struct cmd *cmd, void *arg)
{
    FILE *out = arg;

    (void)fprintf(out, "    \"%s\")\n        options=\"", cmd->path);
    for (const struct opt_def *o = cmd->opts; o->name; o++)
        (void)fprintf(out, "%s--%s%s", o == cmd->opts ? "" : " ", opt_is_negatable(o) ? "no-" : "",
                      o->name);
    (void)fprintf(out, "\"\n        operands=\"");
    const char *words = operand_words(cmd);
    if (words)
        put_words(words, '|', out);
    else
        put_subs(cmd, out);
    (void)fprintf(out, "\"\n");
    if (operand_is_image(cmd))
        (void)fprintf(out, "        operands=$(posada image list --quiet 2>/dev/null)\n");
    (void)fprintf(out, "        ;;\n");
}

void help_bash(const struct cmd *root, FILE *out)
{
    (void)fprintf(out, "# bash completion for posada, printed by 'posada completion bash'\n"
                       "_posada()\n"
                       "{\n"
                       "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n"
                       "    local path=\"\" words=\"\" options=\"\" operands=\"\" i\n"
                       "    COMPREPLY=()\n"
                       "    if [[ $cur == = ]]; then\n"
                       "        cur=\"\"\n"
                       "    elif [[ $prev == = ]]; then\n"
                       "        prev=${COMP_WORDS[COMP_CWORD-2]}\n"
                       "    fi\n"
                       "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
                       "        [[ ${COMP_WORDS[i]} == -- ]] && return\n"
                       "        case \"${path:+$path }${COMP_WORDS[i]}\" in\n");
    help_each_cmd(root, bash_paths, out);
    (void)fprintf(out, "        esac\n"
                       "    done\n"
                       "    case \"$path $prev\" in\n");
    help_each_cmd(root, bash_values, out);
    (void)fprintf(out, "    esac\n"
                       "    if [[ -n $words ]]; then\n"
                       "        mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
                       "        return\n"
                       "    fi\n"
                       "    case \"$path\" in\n");
    help_each_cmd(root, bash_options, out);
    (void)fprintf(out, "    esac\n"
                       "    if [[ $cur == -* ]]; then\n"
                       "        mapfile -t COMPREPLY < <(compgen -W \"$options\" -- \"$cur\")\n"
                       "    else\n"
                       "        mapfile -t COMPREPLY < <(compgen -W \"$operands\" -- \"$cur\")\n"
                       "    fi\n"
                       "}\n"
                       "complete -F _posada posada\n");
}

/** One _arguments specification. */
static void zsh_option(const struct opt_def *o, FILE *out)
{
    (void)fprintf(out, "        '");
    if (o->kind == OPT_LIST)
        (void)fprintf(out, "*");
    (void)fprintf(out, "--%s%s%s[", opt_is_negatable(o) ? "no-" : "", o->name,
                  o->kind == OPT_FLAG ? "" : "=");
    put_quoted(o->help, "[]:\\", out);
    (void)fprintf(out, "]");
    if (o->kind != OPT_FLAG)
        (void)fprintf(out, ":%s:", o->arg);
    switch (value_kind(o)) {
    case VALUE_FILE:
        (void)fprintf(out, "_files");
        break;
    case VALUE_DIR:
        (void)fprintf(out, "_files -/");
        break;
    case VALUE_IMAGE:
        (void)fprintf(out, "_posada_images");
        break;
    case VALUE_CHOICE:
        (void)fprintf(out, "(%s)", o->choices);
        break;
    case VALUE_OTHER:
        break;
    }
    (void)fprintf(out, "'%s\n", o[1].name ? " \\" : "");
}

/** The function of one command: _posada, _posada_run, _posada_image_build... */
static void zsh_name(const struct cmd *cmd, FILE *out)
{
    (void)fprintf(out, "_posada%s", *cmd->path ? "_" : "");
    for (const char *p = cmd->path; *p; p++)
        (void)fputc(*p == ' ' ? '_' : *p, out);
}

static void zsh_function(const struct cmd *cmd, void *arg)
{
    FILE *out = arg;

    zsh_name(cmd, out);
    (void)fprintf(out, "() {\n");
    if (cmd->subs) {
        (void)fprintf(out, "    if (( CURRENT > 2 )); then\n"
                           "        shift words; (( CURRENT-- ))\n"
                           "        case ${words[1]} in\n");
        for (const struct cmd *const *s = cmd->subs; *s; s++) {
            (void)fprintf(out, "        %s) ", cmd_name(*s));
            zsh_name(*s, out);
            (void)fprintf(out, " ;;\n");
        }
        (void)fprintf(out, "        esac\n        return\n    fi\n    local -a commands=(\n");
        for (const struct cmd *const *s = cmd->subs; *s; s++) {
            (void)fprintf(out, "        '%s:", cmd_name(*s));
            put_quoted((*s)->summary, ":\\", out);
            (void)fprintf(out, "'\n");
        }
        (void)fprintf(out, "    )\n    _describe command commands\n");
    }
    (void)fprintf(out, "    _arguments -S \\\n");
    if (operand_is_image(cmd))
        (void)fprintf(out, "        '1:image:_posada_images' \\\n");
    const char *words = operand_words(cmd);
    if (words) {
        (void)fprintf(out, "        '1:operand:(");
        put_words(words, '|', out);
        (void)fprintf(out, ")' \\\n");
    }
    for (const struct opt_def *o = cmd->opts; o->name; o++)
        zsh_option(o, out);
    (void)fprintf(out, "}\n");
}

void help_zsh(const struct cmd *root, FILE *out)
{
    (void)fprintf(out, "#compdef posada\n"
                       "# zsh completion for posada, printed by 'posada completion zsh'\n"
                       "_posada_images() {\n"
                       "    compadd -- ${(f)\"$(posada image list --quiet 2>/dev/null)\"}\n"
                       "}\n");
    help_each_cmd(root, zsh_function, out);
    (void)fprintf(out, "compdef _posada posada\n");
}

/** The condition "the command so far is @cmd", quoted for -n. */
static void fish_condition(const struct cmd *cmd, FILE *out)
{
    (void)fprintf(out, "complete -c posada -n '__posada_at \"%s\"'", cmd->path);
}

static void fish_cmd(const struct cmd *cmd, void *arg)
{
    FILE *out = arg;

    for (const struct cmd *const *s = cmd->subs; s && *s; s++) {
        fish_condition(cmd, out);
        (void)fprintf(out, " -f -a %s -d '", cmd_name(*s));
        put_quoted((*s)->summary, "\\", out);
        (void)fprintf(out, "'\n");
    }
    if (operand_is_image(cmd)) {
        fish_condition(cmd, out);
        (void)fprintf(out, " -f -a '(posada image list --quiet 2>/dev/null)'\n");
    }
    const char *words = operand_words(cmd);
    if (words) {
        fish_condition(cmd, out);
        (void)fprintf(out, " -f -a '");
        put_words(words, '|', out);
        (void)fprintf(out, "'\n");
    }
    for (const struct opt_def *o = cmd->opts; o->name; o++) {
        enum value_kind kind = value_kind(o);
        fish_condition(cmd, out);
        (void)fprintf(out, " -l %s%s", opt_is_negatable(o) ? "no-" : "", o->name);
        if (o->short_name)
            (void)fprintf(out, " -s %c", o->short_name);
        if (o->kind != OPT_FLAG)
            (void)fprintf(out, kind == VALUE_FILE || kind == VALUE_DIR ? " -r" : " -x");
        if (kind == VALUE_CHOICE)
            (void)fprintf(out, " -a '%s'", o->choices);
        (void)fprintf(out, " -d '");
        put_quoted(o->help, "\\", out);
        (void)fprintf(out, "'\n");
    }
}

static void fish_path(const struct cmd *cmd, void *arg)
{
    if (*cmd->path)
        (void)fprintf(arg, " \"%s\"", cmd->path);
}

void help_fish(const struct cmd *root, FILE *out)
{
    (void)fprintf(out, "# fish completion for posada, printed by 'posada completion fish'\n"
                       "function __posada_at\n"
                       "    set -l path\n"
                       "    for word in (commandline -opc)[2..]\n"
                       "        switch (string join ' ' $path $word)\n"
                       "            case");
    help_each_cmd(root, fish_path, out);
    (void)fprintf(out, "\n"
                       "                set path $path $word\n"
                       "        end\n"
                       "    end\n"
                       "    test \"$path\" = \"$argv[1]\"\n"
                       "end\n");
    help_each_cmd(root, fish_cmd, out);
}
