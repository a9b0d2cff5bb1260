/* What the verbs of `posada disk` share: their option rows, opening, creation options, progress. */
#ifndef CLI_DISK_H
#define CLI_DISK_H

#include "base/error.h"
#include "cli/cmd.h"
#include "cli/progress.h"
#include "disk/disk.h"
#include "disk/tool/tool.h"

#include <jansson.h>
#include <string.h>

/** Values of every verb; each has rows for those it uses. */
struct disk_values {
    struct cmd_common common;
    const char *format, *output_format, *second_format, *backing, *backing_format;
    const char *cache, *source_cache, *refs, *key_file, *output, *repair, *source, *into;
    const char *preallocation;
    struct opt_list options;
    uint64_t size, sparse, step, offset;
    int64_t threads, count, depth, flush_interval;
    bool json, quiet, progress, force_share, force, unsafe, compress, no_create, chain, shrink;
    bool strict, drop, write, unordered, show_options, no_base;
    bool add, remove, clear, enable, disable;
    const char *merge;
    uint64_t granularity;
};

#define DISK_ROW_FORMAT(text)                                                             \
    {                                                                                     \
        .name = "format", .short_name = 'f', OPT_INTO_STRING(struct disk_values, format), \
        .arg = "FORMAT", .group = "Image", .help = text                                   \
    }
#define DISK_FORMAT_HELP                                                                                 \
    "Format of the image: raw, qcow2, vdi, vmdk, vhd (or vpc), vhdx. Default: by the file's beginning, " \
    "else raw"
#define DISK_ROW_KEY                                                                      \
    {                                                                                     \
        .name = "key-file", OPT_INTO_STRING(struct disk_values, key_file), .arg = "FILE", \
        .group = "Image", .help = "File with the passphrase of an encrypted image"        \
    }
#define DISK_ROW_REFS                                                                                  \
    {                                                                                                  \
        .name = "refs", OPT_INTO_CHOICE(struct disk_values, refs), .arg = "WHICH",                     \
        .choices = "folder any none", .def = "folder", .group = "Image",                               \
        .help =                                                                                        \
            "Which other files (backing, data, extents) the image may name: those in its own folder, " \
            "any, or none. Take any only for images that you trust"                                    \
    }
#define DISK_ROW_SHARE                                                                            \
    {                                                                                             \
        .name = "force-share", .short_name = 'U', OPT_INTO_FLAG(struct disk_values, force_share), \
        .group = "Image",                                                                         \
        .help = "Read though another process writes to it; what is read may be torn"              \
    }
#define DISK_ROW_CACHE                                                                     \
    {                                                                                      \
        .name = "cache", .short_name = 't', OPT_INTO_CHOICE(struct disk_values, cache),    \
        .arg = "CACHE", .choices = "writeback none", .def = "writeback", .group = "Image", \
        .help = "Through the host's page cache, or past it (none)"                         \
    }
#define DISK_ROW_SOURCE_CACHE                                              \
    {                                                                      \
        .name = "source-cache", .short_name = 'T',                         \
        OPT_INTO_CHOICE(struct disk_values, source_cache), .arg = "CACHE", \
        .choices = "writeback none", .def = "writeback", .group = "Image", \
        .help = "Likewise, for what is read"                               \
    }
#define DISK_ROWS_JSON                                                               \
    {.name = "json",                                                                 \
     OPT_INTO_FLAG(struct disk_values, json),                                        \
     .group = "Output",                                                              \
     .help = "Print JSON, with the keys of qemu-img"},                               \
    {                                                                                \
        .name = "output", OPT_INTO_CHOICE(struct disk_values, output), .arg = "HOW", \
        .choices = "human json", .def = "human", .group = "Output",                  \
        .help = "The same, as qemu-img spells it"                                    \
    }
#define DISK_ROW_QUIET                                                                \
    {                                                                                 \
        .name = "quiet", .short_name = 'q', OPT_INTO_FLAG(struct disk_values, quiet), \
        .group = "Output", .help = "Print errors only"                                \
    }
#define DISK_ROW_PROGRESS                                                                   \
    {                                                                                       \
        .name = "progress", .short_name = 'p', OPT_INTO_FLAG(struct disk_values, progress), \
        .group = "Output",                                                                  \
        .help = "Show progress also where standard error is no terminal: a line each tenth" \
    }
#define DISK_ROW_THREADS                                                                        \
    {                                                                                           \
        .name = "threads", .short_name = 'm', OPT_INTO_INT(struct disk_values, threads),        \
        .arg = "N", .def = "0", .min = 0, .max = DISK_JOB_MAX_THREADS, .group = "Work",         \
        .help = "Threads that read, compress and write; 0: as this host has processors, 2 to 8" \
    }
#define DISK_ROW_OPTIONS                                                                 \
    {                                                                                    \
        .name = "option", .short_name = 'o', OPT_INTO_LIST(struct disk_values, options), \
        .arg = "KEY=VALUE,...", .group = "New image",                                    \
        .help = "Options of the new image's format; '-o help' lists them"                \
    }
#define DISK_ROWS_BACKING                                                                \
    {.name = "backing",                                                                  \
     .short_name = 'b',                                                                  \
     OPT_INTO_STRING(struct disk_values, backing),                                       \
     .arg = "FILE",                                                                      \
     .group = "New image",                                                               \
     .help = "Backing image: what the new one shows where nothing was written to it"},   \
    {                                                                                    \
        .name = "backing-format", .short_name = 'F',                                     \
        OPT_INTO_STRING(struct disk_values, backing_format), .arg = "FORMAT",            \
        .group = "New image", .help = "Format of the backing image; it is never guessed" \
    }

static inline bool disk_cli_wants_json(const struct disk_values *v)
{
    return v->json || (v->output && !strcmp(v->output, "json"));
}

/** The rows of @v as disk_open() takes them; @format may be NULL. */
struct disk_options disk_cli_options(const struct disk_values *v, const char *format,
                                     unsigned flags);

/** Open @path by the rows of @v; @format may be NULL. @direct: --cache=none was given for it. */
must_check int disk_cli_open(const struct disk_values *v, const char *path, const char *format,
                             unsigned flags, bool direct, struct disk **ret, struct error *err);

/** --cache and --source-cache as flags: is direct I/O wanted? */
static inline bool disk_cli_is_direct(const char *cache)
{
    return cache && !strcmp(cache, "none");
}

/** The format named @name; NULL: by the suffix of @path, else raw. */
must_check int disk_cli_format(const char *name, const char *path, const struct disk_format **ret,
                               struct error *err);

/** The words of all -o, as disk_create() takes them. */
struct disk_cli_values {
    struct disk_create_value *v; /* ends with a NULL name */
    char **texts;                /* owned */
    size_t n;
    const char *backing, *backing_format; /* backing_file=, backing_fmt= */
};

must_check int disk_cli_values_init(struct disk_cli_values *values, const struct opt_list *list,
                                    struct error *err);
void disk_cli_values_done(struct disk_cli_values *values);

/** Was `-o help` given? Then it is printed. */
bool disk_cli_print_options(const struct disk_values *v, const struct disk_format *format);

/** Open what an image at @path may name as its backing image @name: relative to its folder. NULL
 * @format is refused: -EINVAL. */
must_check int disk_cli_open_backing(const struct disk_values *v, const char *path,
                                     const char *name, const char *format, struct disk **ret,
                                     struct error *err);

/** A job whose progress is shown by the rows of @v, on @title. Ended by disk_cli_job_done(), also
 * before an error is printed. */
struct disk_cli_job {
    struct disk_job job;
    struct progress progress;
    const char *title;
    bool shown;
};

void disk_cli_job_init(struct disk_cli_job *j, const struct disk_values *v, const char *title);
void disk_cli_job_done(struct disk_cli_job *j);

/** Print and free. */
void disk_cli_print_json(json_t *j);

/** What `disk info --json` says of @d, its top layer; the caller's. */
must_check int disk_cli_info_json(struct disk *d, json_t **ret, struct error *err);

/** Print @text, a name out of an image, without its control characters. */
void disk_cli_print_text(const char *text);

/** @text as JSON; what is no UTF-8 in it becomes U+FFFD. */
json_t *disk_cli_json_text(const char *text);

/** "1.5 GiB (1610612736 bytes)"; returns @buf. */
const char *disk_cli_bytes(uint64_t bytes, char *buf, size_t size);

extern const struct cmd cmd_disk_bench;
extern const struct cmd cmd_disk_bitmap;
extern const struct cmd cmd_disk_check;
extern const struct cmd cmd_disk_commit;
extern const struct cmd cmd_disk_compact;
extern const struct cmd cmd_disk_compare;
extern const struct cmd cmd_disk_convert;
extern const struct cmd cmd_disk_create;
extern const struct cmd cmd_disk_info;
extern const struct cmd cmd_disk_map;
extern const struct cmd cmd_disk_measure;
extern const struct cmd cmd_disk_merge;
extern const struct cmd cmd_disk_rebase;
extern const struct cmd cmd_disk_resize;
extern const struct cmd cmd_disk_mount;
extern const struct cmd cmd_disk_serve;
extern const struct cmd cmd_disk_unmount;

#endif
