/* One table of options per command. It parses argv, and everything that describes the options
 * (--help, man pages, completion, JSON) is rendered from the same rows, so none of them can be out
 * of date.
 *
 *     struct run_values { uint64_t memory; bool json; };
 *     static const struct opt_def run_opts[] = {
 *         {.name = "memory", OPT_INTO_SIZE(struct run_values, memory), .short_name = 'm', .arg =
 * "SIZE", .def = "1G", .group = "Machine", .help = "Guest memory"},
 *         {.name = "json", OPT_INTO_FLAG(struct run_values, json), .group = "Output", .help =
 * "..."}, {0},
 *     };
 *
 * Accepted: --name VALUE, --name=VALUE, -n VALUE, -nVALUE, clustered flags (-ab), --no-NAME for a
 * flag that is on by default, options and operands in any order, `--` to end them. A
 * dash and a digit begin an operand ("-1G"), no option. No abbreviations. */
#ifndef BASE_OPT_H
#define BASE_OPT_H

#include "base/macros.h"

struct error;

enum { OPT_LIST_MAX = 256 };

enum opt_kind {
    OPT_FLAG,     /* bool: given or not */
    OPT_STRING,   /* const char *: NULL when not given and no default */
    OPT_CHOICE,   /* const char *: one word of .choices */
    OPT_INT,      /* int64_t: decimal or 0x hexadecimal, .min to .max */
    OPT_SIZE,     /* uint64_t: bytes */
    OPT_DURATION, /* int64_t: milliseconds */
    OPT_LIST,     /* struct opt_list: may be repeated */
};

/** The values of a repeated option, in order; borrowed from argv. */
struct opt_list {
    const char **v;
    size_t n;
};

struct opt_def {
    const char *name; /* long name without dashes; NULL ends a table */
    char short_name;  /* 0 = none */
    enum opt_kind kind;
    size_t offset;   /* of the value in the command's struct: use OPT_INTO_*() */
    const char *arg; /* what help calls the value, upper case: SIZE; FILE, DIR and IMAGE complete */
    const char *def; /* default as text, "on" for a flag; NULL = none */
    const char *choices; /* OPT_CHOICE: words separated by spaces */
    int64_t min, max;    /* OPT_INT, OPT_SIZE, OPT_DURATION: used when max > min; else any from 0 */
    const char *group;   /* heading in help */
    const char *help;    /* one or two sentences, no final full stop */
};

#define OPT_OFFSET_(s, field, type) (offsetof(s, field) + 0 * sizeof(&((s *)0)->field == (type *)0))
#define OPT_INTO_FLAG(s, field)     .kind = OPT_FLAG, .offset = OPT_OFFSET_(s, field, bool)
#define OPT_INTO_STRING(s, field)   .kind = OPT_STRING, .offset = OPT_OFFSET_(s, field, const char *)
#define OPT_INTO_CHOICE(s, field)   .kind = OPT_CHOICE, .offset = OPT_OFFSET_(s, field, const char *)
#define OPT_INTO_INT(s, field)      .kind = OPT_INT, .offset = OPT_OFFSET_(s, field, int64_t)
#define OPT_INTO_SIZE(s, field)     .kind = OPT_SIZE, .offset = OPT_OFFSET_(s, field, uint64_t)
#define OPT_INTO_DURATION(s, field) .kind = OPT_DURATION, .offset = OPT_OFFSET_(s, field, int64_t)
#define OPT_INTO_LIST(s, field)     .kind = OPT_LIST, .offset = OPT_OFFSET_(s, field, struct opt_list)

/** What is left of argv: operands in order, and what followed `--` (NULL-terminated, argv's own
 * end). */
struct opt_args {
    const char **v;
    size_t n;
    bool has_rest; /* a `--` was there, even with nothing behind it */
    char **rest;
    size_t rest_n;
};

/** Set every value of @values (the struct that @opts' offsets refer to, zeroed by the caller) to
 * its default, then parse argv[0..argc-1], which holds no command name. Strings are borrowed from
 * argv and the table. In all cases the caller ends with opt_done(). Errors: -EINVAL with a sentence
 * that names the option and what was expected; -ENOMEM. */
must_check int opt_parse(const struct opt_def *opts, void *values, int argc, char **argv,
                         struct opt_args *ret_args, struct error *err);

/** Free the lists in @values and @args; both may be zeroed or half filled. */
void opt_done(const struct opt_def *opts, void *values, struct opt_args *args);

/** The row named @name (no dashes), or NULL. */
const struct opt_def *opt_find(const struct opt_def *opts, const char *name);

/** A flag that is on by default: help spells it --[no-]name. */
bool opt_is_negatable(const struct opt_def *opt);

/** What a value of @opt must look like, "a size such as 512M or 2G (bytes without a suffix)", into
 * @buf; returns
 *  @buf. */
const char *opt_expected(const struct opt_def *opt, char *buf, size_t size);

/** Parse one size: a whole number, then nothing (bytes) or K, M, G, T (powers of 1024; KiB, kB...
 * are the same). */
must_check int opt_parse_size(const char *text, uint64_t *ret_bytes);

/** Parse one duration: a whole number, then nothing or s (seconds), ms, m (minutes), h (hours). */
must_check int opt_parse_duration(const char *text, int64_t *ret_ms);

/** Parse a whole number, decimal or 0x hexadecimal, with an optional minus sign; nothing may
 * follow. */
must_check int opt_parse_int(const char *text, int64_t *ret);

/** @bytes in the largest unit that divides it: "512M", "1000"; what opt_parse_size() reads back.
 * Returns @buf. */
const char *opt_format_size(uint64_t bytes, char *buf, size_t size);

/** Of the words that @next returns (NULL = no more), the nearest to @word if it is near enough to
 * be what was meant, else NULL. */
const char *opt_nearest(const char *word, const char *(*next)(void *arg), void *arg);

#endif
