/* Renderings of the command table: for people, man, shells and programs. */
#ifndef CLI_HELP_H
#define CLI_HELP_H

#include <stdbool.h>
#include <stdio.h>

struct cmd;
struct opt_def;

/** --help of @cmd, filled to @width columns. */
void help_print(const struct cmd *cmd, unsigned width, FILE *out);

/** Columns to fill help to: the terminal's, at most 100; 80 when @fd is none. */
unsigned help_width(int fd);

/** man page of @cmd in roff (man(7)), section 1. */
void help_man(const struct cmd *cmd, FILE *out);

/** The whole tree from @root as one JSON object. */
void help_json(const struct cmd *root, FILE *out);

/** Completion script of the tree from @root for "bash", "zsh" or "fish". */
void help_bash(const struct cmd *root, FILE *out);
void help_zsh(const struct cmd *root, FILE *out);
void help_fish(const struct cmd *root, FILE *out);

/** Everything help says about the value of @opt after its text: " (from 1 to 16; default 1)" or "".
 * Returns @buf. */
const char *help_value_note(const struct opt_def *opt, char *buf, size_t size);

/** Call @fn for each group of @opts in the order in which they first appear. */
void help_each_group(const struct opt_def *opts, void (*fn)(const char *group, void *arg),
                     void *arg);

/** Call @fn for @root and every command below it, parents first. */
void help_each_cmd(const struct cmd *root, void (*fn)(const struct cmd *cmd, void *arg), void *arg);

/** Is @opt's group @group? */
bool help_in_group(const struct opt_def *opt, const char *group);

/** A paragraph of a text: [start, end) with kept lines when @verbatim. False at the end; advances
 * *@text. */
struct help_paragraph {
    const char *start;
    const char *end;
    bool verbatim;
};
bool help_next_paragraph(const char **text, struct help_paragraph *ret);

#endif
