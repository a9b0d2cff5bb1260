/* posada disk info */
#include "cli/disk.h"

#include "base/fd.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* clang-format off */
static const struct opt_def info_opts[] = {
    DISK_ROW_FORMAT(DISK_FORMAT_HELP),
    {.name = "backing-chain",
     OPT_INTO_FLAG(struct disk_values, chain),
     .group = "Image",
     .help = "Also about all images below it"},
    DISK_ROW_REFS,
    DISK_ROW_KEY,
    DISK_ROW_SHARE,
    DISK_ROWS_JSON,
    CMD_COMMON_ROWS(struct disk_values),
};
/* clang-format on */

static json_t *fact_json(const struct disk_fact *f)
{
    switch (f->kind) {
    case DISK_FACT_TEXT:
        return disk_cli_json_text(f->text);
    case DISK_FACT_NUMBER:
        return json_integer((json_int_t)f->number);
    case DISK_FACT_BOOL:
        return json_boolean(f->number != 0);
    }
    return json_null();
}

static json_t *snapshots_json(const struct disk_snapshot *s)
{
    json_t *array = json_array();

    for (; s; s = s->next)
        (void)json_array_append_new(
            array,
            json_pack("{s:o, s:o, s:I, s:I, s:I, s:I, s:I}", "id",
                      disk_cli_json_text(s->id ? s->id : ""), "name",
                      disk_cli_json_text(s->name ? s->name : ""), "vm-state-size",
                      (json_int_t)s->state_bytes, "date-sec", (json_int_t)s->date_s, "date-nsec",
                      (json_int_t)0, "vm-clock-sec", (json_int_t)(s->clock_ns / 1000000000),
                      "vm-clock-nsec", (json_int_t)(s->clock_ns % 1000000000)));
    return array;
}

static json_t *bitmaps_json(const struct disk_bitmap *b)
{
    json_t *array = json_array();

    for (; b; b = b->next) {
        json_t *flags = json_array();

        if (b->enabled)
            (void)json_array_append_new(flags, json_string("auto"));
        if (b->inconsistent)
            (void)json_array_append_new(flags, json_string("in-use"));
        (void)json_array_append_new(array, json_pack("{s:o, s:o, s:I}", "flags", flags, "name",
                                                     disk_cli_json_text(b->name), "granularity",
                                                     (json_int_t)b->granularity_bytes));
    }
    return array;
}

static json_t *specific_json(const struct disk *d, const struct disk_info *info)
{
    json_t *data = json_object();

    for (const struct disk_fact *f = info->facts; f; f = f->next)
        (void)json_object_set_new(data, f->name, fact_json(f));
    if (info->bitmaps)
        (void)json_object_set_new(data, "bitmaps", bitmaps_json(info->bitmaps));
    return json_pack("{s:s, s:o}", "type", disk_format_name(d->format), "data", data);
}

static json_t *layer_json(const struct disk *d, const struct disk_info *info)
{
    json_t *j =
        json_pack("{s:o, s:s, s:I, s:I, s:b}", "filename", disk_cli_json_text(d->path), "format",
                  disk_format_name(d->format), "virtual-size", (json_int_t)d->size_bytes,
                  "actual-size", (json_int_t)info->space_bytes, "dirty-flag", info->is_dirty);

    if (d->cluster_bytes)
        (void)json_object_set_new(j, "cluster-size", json_integer(d->cluster_bytes));
    if (info->is_encrypted)
        (void)json_object_set_new(j, "encrypted", json_true());
    if (info->is_packed)
        (void)json_object_set_new(j, "compressed", json_true());
    if (d->backing_path) {
        cleanup(freep) char *full = disk_path_beside(d->path, d->backing_path);

        (void)json_object_set_new(j, "backing-filename", disk_cli_json_text(d->backing_path));
        (void)json_object_set_new(j, "full-backing-filename", disk_cli_json_text(full ? full : ""));
    }
    if (d->backing_format)
        (void)json_object_set_new(j, "backing-filename-format",
                                  disk_cli_json_text(d->backing_format));
    if (info->snapshots)
        (void)json_object_set_new(j, "snapshots", snapshots_json(info->snapshots));
    if (info->facts || info->bitmaps)
        (void)json_object_set_new(j, "format-specific", specific_json(d, info));
    return j;
}

int disk_cli_info_json(struct disk *d, json_t **ret, struct error *err)
{
    struct disk_info info;
    int rc = disk_get_info(d, &info, err);

    if (rc)
        return rc;
    *ret = layer_json(d, &info);
    disk_info_done(&info);
    return 0;
}

/** "KEY: TEXT", of a text out of an image. */
static void print_text(const char *key, const char *text)
{
    (void)printf("%s: ", key);
    disk_cli_print_text(text);
    (void)putchar('\n');
}

static void print_snapshots(const struct disk_snapshot *s)
{
    char text[64];

    if (s)
        (void)printf("snapshots:\n");
    for (; s; s = s->next) {
        char date[32] = "-";
        time_t t = (time_t)s->date_s;
        struct tm tm;

        if (localtime_r(&t, &tm))
            (void)strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
        (void)printf("  ");
        disk_cli_print_text(s->id ? s->id : "-");
        (void)putchar(' ');
        disk_cli_print_text(s->name ? s->name : "-");
        (void)printf(", %s, state of %s\n", date,
                     disk_cli_bytes(s->state_bytes, text, sizeof(text)));
    }
}

static void print_facts(const struct disk_info *info)
{
    for (const struct disk_fact *f = info->facts; f; f = f->next) {
        if (f == info->facts)
            (void)printf("of the format:\n");
        if (f->kind == DISK_FACT_TEXT) {
            (void)printf("  ");
            print_text(f->name, f->text);
        } else if (f->kind == DISK_FACT_NUMBER) {
            (void)printf("  %s: %" PRIu64 "\n", f->name, f->number);
        } else {
            (void)printf("  %s: %s\n", f->name, f->number ? "yes" : "no");
        }
    }
    for (const struct disk_bitmap *b = info->bitmaps; b; b = b->next) {
        if (b == info->bitmaps)
            (void)printf("bitmaps:\n");
        (void)printf("  ");
        disk_cli_print_text(b->name);
        (void)printf(": granularity %" PRIu64 "%s%s\n", b->granularity_bytes,
                     b->enabled ? "" : ", disabled", b->inconsistent ? ", inconsistent" : "");
    }
}

static void print_layer(const struct disk *d, const struct disk_info *info)
{
    char text[64];

    print_text("image", d->path);
    (void)printf("format: %s\n", disk_format_name(d->format));
    (void)printf("virtual size: %s\n", disk_cli_bytes(d->size_bytes, text, sizeof(text)));
    (void)printf("disk size: %s\n", disk_cli_bytes(info->space_bytes, text, sizeof(text)));
    if (d->cluster_bytes)
        (void)printf("cluster size: %s\n", disk_cli_bytes(d->cluster_bytes, text, sizeof(text)));
    if (d->backing_path)
        print_text("backing image", d->backing_path);
    if (d->backing_format)
        print_text("backing format", d->backing_format);
    if (info->is_encrypted)
        (void)printf("encrypted: yes\n");
    if (info->is_dirty)
        (void)printf("dirty: yes, it was not closed properly\n");
    if (info->is_corrupt)
        (void)printf("corrupt: yes; 'posada disk check' says more\n");
    print_snapshots(info->snapshots);
    print_facts(info);
}

static int run_info(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct disk_values *v = values;
    unsigned flags = DISK_READONLY | DISK_CHECK | (v->chain ? 0 : DISK_NO_BACKING);
    json_t *array = disk_cli_wants_json(v) ? json_array() : NULL;
    struct disk *top = NULL;
    struct error err = {0};
    int rc = disk_cli_open(v, args->v[0], v->format, flags, false, &top, &err);

    for (struct disk *d = top; !rc && d; d = d->below) {
        struct disk_info info;

        rc = disk_get_info(d, &info, &err);
        if (rc)
            break;
        if (array)
            (void)json_array_append_new(array, layer_json(d, &info));
        else
            print_layer(d, &info);
        if (!array && d->below)
            (void)putchar('\n');
        disk_info_done(&info);
    }
    if (array && !rc)
        disk_cli_print_json(v->chain ? json_incref(array) : json_incref(json_array_get(array, 0)));
    json_decref(array);
    disk_close(top);
    return rc ? cmd_fail(cmd, CLI_ERROR, &err) : CLI_OK;
}

const struct cmd cmd_disk_info = {
    .path = "disk info",
    .operands = "FILE",
    .summary = "what an image is",
    .description =
        "Print an image's format, sizes, backing image, snapshots, bitmaps, and what else its "
        "format knows about it. Nothing is written to it.",
    .opts = info_opts,
    .values_size = sizeof(struct disk_values),
    .min_operands = 1,
    .max_operands = 1,
    .run = run_info,
};
