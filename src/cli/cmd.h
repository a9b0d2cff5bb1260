/* A command of the command line: one table describes it, and parsing, help, man pages, completion
 * and JSON all come from that table. One verb, one file: the file defines a `const struct cmd
 * cmd_<verb>`, and cmd.c lists them.
 *
 * Texts are plain: paragraphs are separated by an empty line and filled; a line that starts with
 * two spaces is kept as it is (an example). */
#ifndef CLI_CMD_H
#define CLI_CMD_H

#include "base/opt.h"

#include <jansson.h>
#include <stdio.h>

struct error;

/** Exit statuses of `posada`. A guest's own status is passed on, so ours are where timeout(1) and
 * the shells put theirs. */
enum cli_status {
    CLI_OK = 0,
    CLI_FOUND = 1, /* doctor: a check failed */
    CLI_USAGE = 2,
    CLI_TIMEOUT = 124,
    CLI_ERROR = 125, /* Posada failed, not the guest */
};

/** First member of every command's values. */
struct cmd_common {
    bool help;
};

#define CMD_COMMON_ROWS(s)                \
    {.name = "help",                      \
     .short_name = 'h',                   \
     OPT_INTO_FLAG(s, common.help),       \
     .group = "Other",                    \
     .help = "Print this help and exit"}, \
    {                                     \
        0                                 \
    }

struct cmd_section {
    const char *title;
    const char *text;
};

struct cmd {
    const char *path;     /* "image build"; "" for posada itself */
    const char *operands; /* what follows the options in the usage line */
    const char *summary;  /* a phrase, no full stop */
    const char *description;
    const struct opt_def *opts;
    size_t values_size;
    const struct cmd *const *subs;      /* NULL-terminated; NULL = none */
    const struct cmd_section *sections; /* ends with a NULL title; may be NULL */
    size_t min_operands, max_operands;
    bool takes_rest; /* `-- COMMAND...` */
    int (*run)(const struct cmd *cmd, void *values, struct opt_args *args);
};

/** The whole tool: run argv, return the exit status. */
int cli_main(int argc, char **argv);

/** posada itself, the root of the tree. */
extern const struct cmd cmd_posada;

/** Last word of the path; "posada" for the root. */
const char *cmd_name(const struct cmd *cmd);

/** The command that the NULL-terminated or @n long @words lead to from the root, or NULL with @err
 * set. */
const struct cmd *cmd_find(const char *const *words, size_t n, struct error *err);

/** Print "posada <path>: <sentence>" to stderr; returns @status. */
int cmd_fail(const struct cmd *cmd, int status, const struct error *err);

enum { CLI_NAMES_MAX = 4096 };

/** The operands, or with @all the names of all instances, for remote_free_names(); none, unless the
 * exit status that is returned is CLI_OK. */
int cmd_names(const struct cmd *cmd, const struct opt_args *args, bool all, char ***ret,
              size_t *ret_n);

/** Call @fn for each operand, or with @all for each instance, telling of each that fails; the exit
 * status. */
int cmd_each(const struct cmd *cmd, const struct opt_args *args, bool all,
             int (*fn)(const char *name, struct error *err));

/** To stdout, for people and programs. */
void cmd_print_json(const json_t *j);

/** Like cmd_fail(CLI_USAGE), with a sentence of its own. */
int cmd_usage(const struct cmd *cmd, const char *fmt, ...) printf_like(2, 3);

#endif
