/* What the verbs of `posada disk` share. See cli/disk.h. The main thread. */
#include "cli/disk.h"

#include "base/fd.h"
#include "base/paths.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static enum disk_refs parse_refs(const char *word)
{
    if (word && !strcmp(word, "any"))
        return DISK_REFS_ANY;
    return word && !strcmp(word, "none") ? DISK_REFS_NONE : DISK_REFS_FOLDER;
}

struct disk_options disk_cli_options(const struct disk_values *v, const char *format,
                                     unsigned flags)
{
    return (struct disk_options){
        .format = format,
        .flags = flags | (v->force_share && flags & DISK_READONLY ? (unsigned)DISK_NO_LOCK : 0),
        .refs = parse_refs(v->refs),
        .key_file = v->key_file,
    };
}

/** Is @path the disk of an instance? Those name files of the store elsewhere, and no guest can
 * change what they name. It can what else lies there, such as its firmware's variables. */
static bool is_instances(const char *path)
{
    cleanup(freep) char *instances = paths_data("instances", NULL);
    cleanup(freep) char *store = instances ? realpath(instances, NULL) : NULL;
    cleanup(freep) char *real = realpath(path, NULL);
    size_t n = store ? strlen(store) : 0;
    size_t length = real ? strlen(real) : 0;

    if (!n || length <= n || strncmp(real, store, n) != 0 || real[n] != '/')
        return false;
    return strstr(real + n, "/disks/") && !strcmp(real + length - strlen(".qcow2"), ".qcow2");
}

int disk_cli_open(const struct disk_values *v, const char *path, const char *format, unsigned flags,
                  bool direct, struct disk **ret, struct error *err)
{
    struct disk_options options =
        disk_cli_options(v, format, flags | (direct ? (unsigned)DISK_DIRECT : 0));

    if (options.refs == DISK_REFS_FOLDER && is_instances(path))
        options.refs = DISK_REFS_ANY;
    return disk_open(path, &options, ret, err);
}

int disk_cli_format(const char *name, const char *path, const struct disk_format **ret,
                    struct error *err)
{
    const struct disk_format *f = name ? disk_format_find(name) : disk_format_of_name(path);

    if (!f && name) {
        char known[128] = "";

        for (const struct disk_format *const *k = disk_formats; *k; k++)
            (void)snprintf(known + strlen(known), sizeof(known) - strlen(known), "%s%s",
                           *known ? ", " : "", disk_format_name(*k));
        return error_set(err, EINVAL, "disk format '%s' is unknown; there are %s", name, known);
    }
    *ret = f ? f : disk_format_find("raw");
    return 0;
}

/** Next word of a list separated by commas, in place; ",," is a comma in it. */
static char *next_word(char **at)
{
    char *word = *at;
    char *to = word;

    if (!word || !*word)
        return NULL;
    while (**at && (**at != ',' || (*at)[1] == ',')) {
        *at += **at == ',';
        *to++ = *(*at)++;
    }
    *at += **at == ',';
    *to = 0;
    return word;
}

static int add_word(struct disk_cli_values *values, char *word, struct error *err)
{
    char *equals = strchr(word, '=');

    if (!equals)
        return error_set(err, EINVAL, "-o: expected KEY=VALUE, not '%s'", word);
    *equals = 0;
    if (!strcmp(word, "backing_file")) {
        values->backing = equals + 1;
        return 0;
    }
    if (!strcmp(word, "backing_fmt")) {
        values->backing_format = equals + 1;
        return 0;
    }
    struct disk_create_value *v = realloc(values->v, (values->n + 2) * sizeof(*v));
    if (!v)
        return error_set(err, ENOMEM, "out of memory");
    values->v = v;
    v[values->n++] = (struct disk_create_value){.name = word, .value = equals + 1};
    v[values->n] = (struct disk_create_value){0};
    return 0;
}

int disk_cli_values_init(struct disk_cli_values *values, const struct opt_list *list,
                         struct error *err)
{
    int rc = 0;

    *values = (struct disk_cli_values){.texts = calloc(list->n + 1, sizeof(char *))};
    if (!values->texts)
        return error_set(err, ENOMEM, "out of memory");
    for (size_t i = 0; !rc && i < list->n; i++) {
        char *at = values->texts[i] = strdup(list->v[i]);
        char *word;

        if (!at)
            rc = error_set(err, ENOMEM, "out of memory");
        while (!rc && (word = next_word(&at)))
            rc = add_word(values, word, err);
    }
    if (rc)
        disk_cli_values_done(values);
    return rc;
}

void disk_cli_values_done(struct disk_cli_values *values)
{
    for (char **t = values->texts; t && *t; t++)
        free(*t);
    free(values->texts);
    free(values->v);
    *values = (struct disk_cli_values){0};
}

bool disk_cli_print_options(const struct disk_values *v, const struct disk_format *format)
{
    bool wanted = false;

    for (size_t i = 0; i < v->options.n; i++)
        wanted |= !strcmp(v->options.v[i], "help") || !strcmp(v->options.v[i], "?");
    if (!wanted)
        return false;
    const struct disk_create_option *o = disk_format_options(format);
    if (!o || !o->name)
        (void)printf("%s disks have no options\n", disk_format_title(format));
    for (; o && o->name; o++)
        (void)printf("  %s=%-*s  %s\n", o->name, MAX(28 - (int)strlen(o->name), 1), o->arg,
                     o->help);
    return true;
}

int disk_cli_open_backing(const struct disk_values *v, const char *path, const char *name,
                          const char *format, struct disk **ret, struct error *err)
{
    cleanup(freep) char *beside = disk_path_beside(path, name);

    if (!beside)
        return error_set(err, ENOMEM, "out of memory");
    if (!format)
        return error_set(err, EINVAL, "the format of backing image '%s' is needed: give it with -F",
                         name);
    return disk_cli_open(v, beside, format, DISK_READONLY, false, ret, err);
}

static int report(void *arg, uint64_t done, uint64_t total)
{
    struct disk_cli_job *j = arg;

    return progress_bytes(&j->progress, j->title, done, total);
}

void disk_cli_job_init(struct disk_cli_job *j, const struct disk_values *v, const char *title)
{
    *j = (struct disk_cli_job){
        .job = {.progress = report, .arg = j, .threads = (unsigned)v->threads},
        .title = title,
    };
    progress_init(&j->progress);
    j->progress.lines = v->progress && !j->progress.tty;
    if (v->quiet)
        j->progress.tty = false;
}

void disk_cli_job_done(struct disk_cli_job *j)
{
    progress_done(&j->progress);
}

void disk_cli_print_json(json_t *j)
{
    (void)json_dumpf(j, stdout, JSON_INDENT(4));
    (void)putchar('\n');
    json_decref(j);
}

void disk_cli_print_text(const char *text)
{
    cleanup(freep) char *copy = strdup(text);

    if (copy) {
        text_make_printable(copy);
        (void)fputs(copy, stdout);
    }
}

json_t *disk_cli_json_text(const char *text)
{
    json_t *j = json_string(text);
    cleanup(freep) char *copy = j ? NULL : calloc(strlen(text) + 1, 3);
    char *to = copy;

    for (; copy && *text; text++) {
        if ((unsigned char)*text < 0x80)
            *to++ = *text;
        else
            to = stpcpy(to, "\ufffd");
    }
    return j || !copy ? j : json_string(copy);
}

const char *disk_cli_bytes(uint64_t bytes, char *buf, size_t size)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    unsigned u = 0;

    while (value >= 1024 && u + 1 < ARRAY_SIZE(units)) {
        value /= 1024;
        u++;
    }
    if (!u)
        (void)snprintf(buf, size, "%" PRIu64 " bytes", bytes);
    else
        (void)snprintf(buf, size, "%.4g %s (%" PRIu64 " bytes)", value, units[u], bytes);
    return buf;
}
