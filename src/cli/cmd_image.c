/* posada image: build, list, show and remove images. */
#include "base/error.h"
#include "cli/progress.h"
#include "cli/verbs.h"
#include "image/image.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>

struct image_values {
    struct cmd_common common;
    const char *arch, *mirror, *log, *keyring;
    bool rebuild, fresh, unsigned_ok, json, quiet;
    uint64_t disk_size;
    int64_t cpus;
};

#define IMAGE_ARCH_ROW                                                               \
    {                                                                                \
        .name = "arch", OPT_INTO_STRING(struct image_values, arch), .arg = "ARCH",   \
        .group = "Image", .help = "Architecture, by Debian's name. Default: riscv64" \
    }
#define IMAGE_JSON_ROW                                                               \
    {                                                                                \
        .name = "json", OPT_INTO_FLAG(struct image_values, json), .group = "Output", \
        .help = "Print JSON"                                                         \
    }

static const struct opt_def build_opts[] = {
    IMAGE_ARCH_ROW,
    {.name = "mirror",
      OPT_INTO_STRING(struct image_values,                                                                    mirror),
      .arg = "URL",
      .group = "Image",
      .help = "Package mirror. Default: the one that this host's apt uses"},
    {.name = "disk-size",
      OPT_INTO_SIZE(struct image_values,                                                                      disk_size),
      .arg = "SIZE",
      .min = 1LL << 30,
      .max = 1LL << 44,
      .group = "Image",
      .help =
         "Size of its disk, in bytes or with K, M, G. Default: 8G, of which only what is used takes space"},
    {.name = "keyring",
      OPT_INTO_STRING(struct image_values, keyring),
      .arg = "FILE",
      .group = "Image",
      .help = "OpenPGP keys of the mirror, binary. Default: Debian's archive keys"                                                       },
    {.name = "unsigned",
      OPT_INTO_FLAG(struct image_values,                         unsigned_ok),
      .group = "Image",
      .help = "Do not check the signature of the mirror's index"              },
    {.name = "rebuild",
      OPT_INTO_FLAG(struct image_values,                                                                                    rebuild),
      .group = "Build",
      .help = "Build even if there is one already, and replace it"                                                                     },
    {.name = "fresh",
      OPT_INTO_FLAG(struct image_values,                                                                      fresh),
      .group = "Build",
      .help = "Ask the mirror for its index even if the one at hand is less than a day old"},
    {.name = "cpus",
      .short_name = 'c',
      OPT_INTO_INT(struct image_values,                                                                                  cpus),
      .arg = "N",
      .def = "0",
      .min = 0,
      .max = 16,
      .group = "Build",
      .help = "Processors of the machine that sets the image up; 0: as this host has, at most 4"},
    {.name = "log",
      OPT_INTO_STRING(struct image_values,             log),
      .arg = "FILE",
      .group = "Build",
      .help = "Write the console of that machine there"        },
    CMD_COMMON_ROWS(struct image_values),
};

static const struct opt_def list_opts[] = {
    {.name = "quiet",
     .short_name = 'q',
     OPT_INTO_FLAG(struct image_values, quiet),
     .group = "Output",
     .help = "Print names only"},
    IMAGE_JSON_ROW,
    CMD_COMMON_ROWS(struct image_values),
};

static const struct opt_def info_opts[] = {
    IMAGE_ARCH_ROW,
    IMAGE_JSON_ROW,
    CMD_COMMON_ROWS(struct image_values),
};

static const struct opt_def remove_opts[] = {
    IMAGE_ARCH_ROW,
    CMD_COMMON_ROWS(struct image_values),
};

static const struct opt_def image_opts[] = {
    CMD_COMMON_ROWS(struct image_values),
};

static int fail(const struct cmd *cmd, int r, const struct error *err)
{
    return cmd_fail(cmd, r == -EINVAL ? CLI_USAGE : CLI_ERROR, err);
}

static json_t *image_json(const struct image *i)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s?, s:s?, s:s, s:s, s:I, s:I}", "name", i->name,
                     "arch", i->spec.arch, "suite", i->spec.suite, "mirror", i->spec.mirror,
                     "kernel", i->kernel, "initrd", i->initrd, "disk", i->disk, "append", i->append,
                     "kernel_release", i->kernel_release, "built", (json_int_t)i->built,
                     "size_bytes", (json_int_t)i->size_bytes);
}

static void print_json(json_t *j)
{
    (void)json_dumpf(j, stdout, JSON_INDENT(2));
    (void)putchar('\n');
    json_decref(j);
}

static void format_time(time_t t, char *buf, size_t size)
{
    struct tm tm;

    if (!localtime_r(&t, &tm) || !strftime(buf, size, "%Y-%m-%d %H:%M", &tm))
        (void)snprintf(buf, size, "-");
}

static int run_build(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct image_values *v = values;
    struct progress progress;
    struct image_build_opts opts = {.progress = progress_report,
                                    .arg = &progress,
                                    .rebuild = v->rebuild,
                                    .fresh = v->fresh,
                                    .unsigned_ok = v->unsigned_ok,
                                    .keyring = v->keyring,
                                    .cpus = (unsigned)v->cpus,
                                    .log_path = v->log};
    struct image_spec spec;
    struct image *image;
    struct error err = {0};
    int r = image_spec_parse(args->v[0], v->arch, v->mirror, &spec, &err);

    if (r)
        return fail(cmd, r, &err);
    if (v->disk_size)
        spec.disk_bytes = v->disk_size;
    progress_init(&progress);
    r = image_build(&spec, &opts, &image, &err);
    progress_done(&progress);
    if (r)
        return fail(cmd, r == -EINVAL ? -EIO : r, &err);
    (void)printf("%s: kernel %s, %" PRIu64 " MiB; 'posada run %s' starts it\n", image->name,
                 image->kernel_release, image->size_bytes >> 20, image->name);
    image_free(image);
    return CLI_OK;
}

static void print_list(struct image *const *images, size_t n)
{
    char built[32];

    if (n)
        (void)printf("%-24s %-24s %9s  %s\n", "NAME", "KERNEL", "SIZE", "BUILT");
    for (size_t i = 0; i < n; i++) {
        format_time(images[i]->built, built, sizeof(built));
        (void)printf("%-24s %-24s %5" PRIu64 " MiB  %s\n", images[i]->name,
                     images[i]->kernel_release, images[i]->size_bytes >> 20, built);
    }
}

static int run_list(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct image_values *v = values;
    struct image **images;
    struct error err = {0};
    size_t n;
    int r = image_list(&images, &n, &err);

    if (r)
        return fail(cmd, r, &err);
    if (v->json) {
        json_t *array = json_array();
        for (size_t i = 0; i < n; i++)
            (void)json_array_append_new(array, image_json(images[i]));
        print_json(array);
    } else if (v->quiet) {
        for (size_t i = 0; i < n; i++)
            (void)printf("%s\n", images[i]->name);
    } else {
        print_list(images, n);
    }
    image_list_free(images, n);
    return CLI_OK;
}

static int run_info(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct image_values *v = values;
    struct image_spec spec;
    struct image *image;
    struct error err = {0};
    char built[32];
    int r = image_spec_parse(args->v[0], v->arch, NULL, &spec, &err);

    if (!r)
        r = image_find(&spec, &image, &err);
    if (r)
        return fail(cmd, r, &err);
    if (v->json) {
        print_json(image_json(image));
    } else {
        format_time(image->built, built, sizeof(built));
        (void)printf("name:    %s\narch:    %s\nmirror:  %s\nkernel:  %s (%s)\n", image->name,
                     image->spec.arch, image->spec.mirror, image->kernel, image->kernel_release);
        (void)printf("initrd:  %s\ndisk:    %s\nappend:  %s\nbuilt:   %s\nsize:    %" PRIu64
                     " MiB\n",
                     image->initrd ? image->initrd : "-", image->disk ? image->disk : "-",
                     image->append, built, image->size_bytes >> 20);
    }
    image_free(image);
    return CLI_OK;
}

static int run_remove(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct image_values *v = values;
    struct image_spec spec;
    struct error err = {0};
    int r = image_spec_parse(args->v[0], v->arch, NULL, &spec, &err);

    if (!r)
        r = image_remove(&spec, &err);
    return r ? fail(cmd, r, &err) : CLI_OK;
}

static int run_image(const struct cmd *cmd, void *values, struct opt_args *args)
{
    return cmd_usage(cmd, "a command is needed: build, list, info or remove");
}

static const struct cmd cmd_image_build = {
    .path = "image build",
    .operands = "IMAGE",
    .summary = "build an image from Debian packages",
    .description =
        "Build an image without root: download its packages, verify them, and set them up inside a machine.\n\n"
        "IMAGE is tiny, debian, or debian:SUITE, such as debian:sid.",
    .opts = build_opts,
    .values_size = sizeof(struct image_values),
    .min_operands = 1,
    .max_operands = 1,
    .run = run_build,
};

static const struct cmd cmd_image_list = {
    .path = "image list",
    .summary = "list images",
    .description = "List the images that were built.",
    .opts = list_opts,
    .values_size = sizeof(struct image_values),
    .run = run_list,
};

static const struct cmd cmd_image_info = {
    .path = "image info",
    .operands = "IMAGE",
    .summary = "show an image's files",
    .description = "Show what an image consists of.",
    .opts = info_opts,
    .values_size = sizeof(struct image_values),
    .min_operands = 1,
    .max_operands = 1,
    .run = run_info,
};

static const struct cmd cmd_image_remove = {
    .path = "image remove",
    .operands = "IMAGE",
    .summary = "remove an image",
    .description = "Remove an image. Instances made from it keep their disks and go on working.",
    .opts = remove_opts,
    .values_size = sizeof(struct image_values),
    .min_operands = 1,
    .max_operands = 1,
    .run = run_remove,
};

static const struct cmd *const image_subs[] = {&cmd_image_build, &cmd_image_list, &cmd_image_info,
                                               &cmd_image_remove, NULL};

const struct cmd cmd_image = {
    .path = "image",
    .operands = "COMMAND",
    .summary = "build, list and remove images",
    .description = "Images are what guests start from: 'posada run' builds one when it needs it.",
    .opts = image_opts,
    .values_size = sizeof(struct image_values),
    .subs = image_subs,
    .run = run_image,
};
