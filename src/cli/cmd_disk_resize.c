/* posada disk resize */
#include "cli/disk.h"

#include "base/fd.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum { ZERO_CHUNK = 1 << 20 };

/* clang-format off */
static const struct opt_def resize_opts[] = {
    DISK_ROW_FORMAT(DISK_FORMAT_HELP),
    {.name = "shrink",
     OPT_INTO_FLAG(struct disk_values, shrink),
     .group = "Work",
     .help = "Allow a smaller size: what lies beyond is lost"},
    { .name = "preallocation",
     OPT_INTO_CHOICE(struct disk_values, preallocation),
     .arg = "HOW", .choices = "off full",
     .def = "off",
     .group = "Work",
     .help = "Give the new part its space now (full), by writing zeroes"},
    DISK_ROW_REFS,
    DISK_ROW_KEY,
    DISK_ROW_QUIET,
    CMD_COMMON_ROWS(struct disk_values),
};
/* clang-format on */

/** "10G", "+10G" or "-512M" on a disk of @now bytes. */
static int parse_size(const char *text, uint64_t now, uint64_t *ret, struct error *err)
{
    bool relative = *text == '+' || *text == '-';
    uint64_t size;

    if (opt_parse_size(text + relative, &size))
        return error_set(err, EINVAL, "expected a size such as 10G, +10G or -512M, not '%s'", text);
    if (*text == '-' && size >= now)
        return error_set(err, EINVAL, "nothing is left of a disk of %" PRIu64 " bytes by '%s'", now,
                         text);
    if (*text == '-')
        size = now - size;
    else if (*text == '+' && !checked_add(now, size, &size))
        return error_set(err, EINVAL, "'%s' makes the disk too large", text);
    *ret = size > UINT64_MAX - 511 ? size : (size + 511) / 512 * 512;
    return 0;
}

static int write_zeroes(struct disk *d, uint64_t from, uint64_t end, struct error *err)
{
    cleanup(freep) uint8_t *zeroes = calloc(1, ZERO_CHUNK);
    int rc = zeroes ? 0 : -ENOMEM;

    for (; !rc && from < end; from += ZERO_CHUNK)
        rc = disk_pwrite(d, zeroes, (size_t)MIN(end - from, (uint64_t)ZERO_CHUNK), from);
    return rc ? error_set(err, -rc, "cannot write '%s': %s", d->path, strerror(-rc)) : 0;
}

static int resize(const struct disk_values *v, struct disk *d, const char *size_text,
                  struct error *err)
{
    uint64_t old = d->size_bytes;
    uint64_t size = 0;
    char text[64];
    int rc = parse_size(size_text, old, &size, err);

    if (!rc && size < old && !v->shrink)
        return error_set(err, EINVAL,
                         "'%s' is larger than that: --shrink allows to lose what lies beyond",
                         d->path);
    if (!rc)
        rc = disk_resize(d, size, v->shrink, err);
    if (!rc && !strcmp(v->preallocation, "full"))
        rc = write_zeroes(d, old, size, err);
    if (!rc) {
        rc = disk_flush(d);
        if (rc)
            (void)error_set(err, -rc, "cannot write '%s': %s", d->path, strerror(-rc));
    }
    if (!rc && !v->quiet)
        (void)printf("'%s': %s\n", d->path, disk_cli_bytes(d->size_bytes, text, sizeof(text)));
    return rc;
}

static int run_resize(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct disk_values *v = values;
    struct disk *d = NULL;
    struct error err = {0};
    int rc = disk_cli_open(v, args->v[0], v->format, 0, false, &d, &err);

    if (!rc)
        rc = resize(v, d, args->v[1], &err);
    disk_close(d);
    return rc ? cmd_fail(cmd, CLI_ERROR, &err) : CLI_OK;
}

const struct cmd cmd_disk_resize = {
    .path = "disk resize",
    .operands = "FILE [+-]SIZE",
    .summary = "make a disk larger or smaller",
    .description =
        "Change a disk's size, to SIZE or by it. What is new reads as zeroes. Partitions and file systems are "
        "the guest's: enlarge them there after, make them smaller there before.\n\n"
        "  posada disk resize disk.qcow2 +10G\n"
        "  posada disk resize --shrink disk.raw -1G",
    .opts = resize_opts,
    .values_size = sizeof(struct disk_values),
    .min_operands = 2,
    .max_operands = 2,
    .run = run_resize,
};
