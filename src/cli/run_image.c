/* posada run IMAGE: from an image's name to kernel, initrd, disk and kernel arguments.
 *
 * A guest with a disk keeps it, as an instance (instance.h). With --rm no instance is made, and
 * what the guest writes is gone with it. The main thread. */
#include "base/fd.h"
#include "cli/progress.h"
#include "cli/run.h"
#include "image/image.h"
#include "image/paths.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/** Find the image, or build it with a progress bar. */
static int find_or_build(struct run *run, const struct image_spec *spec, struct error *err)
{
    struct progress progress;
    struct image_build_opts opts = {.progress = progress_report, .arg = &progress};
    char name[IMAGE_NAME_MAX];
    struct error absent = {0};
    int r = image_find(spec, &run->image, &absent);

    if (r != -ENOENT) {
        if (r)
            *err = absent;
        return r;
    }
    image_spec_name(spec, name);
    (void)fprintf(stderr, "building image '%s', which is kept for the next time\n", name);
    progress_init(&progress);
    r = image_build(spec, &opts, &run->image, err);
    progress_done(&progress);
    return r;
}

/** Take or make the instance, which stays locked until the end of the run. */
static int open_instance(struct run *run, const struct image_spec *spec, struct error *err)
{
    struct instance *in = &run->instance;
    char wanted[IMAGE_NAME_MAX];
    int r = instance_open(in, run->config.name, err);

    if (r == -EBUSY) {
        *err = (struct error){0};
        return error_set(err, EBUSY,
                         "'%s' is running already; --name starts another, --rm a temporary one",
                         run->config.name);
    }
    image_spec_name(spec, wanted);
    if (!r && in->made_from && strcmp(in->made_from, wanted) != 0)
        return error_set(err, EEXIST, "'%s' exists and was made from image '%s', not '%s'",
                         in->name, in->made_from, wanted);
    if (!r && !in->made_from) {
        r = find_or_build(run, spec, err);
        if (!r)
            r = instance_create(in, run->image, run->v->disk_size, err);
    } else if (!r && run->v->disk_size) {
        r = instance_grow(in, run->v->disk_size, err);
    }
    if (r)
        return r;
    run->config.kernel = in->kernel;
    run->config.initrd = access(in->initrd, F_OK) ? NULL : in->initrd;
    run->config.append = in->append_text;
    run->config.disks[0] = (struct vm_disk_config){.path = in->disk, .format = "raw"};
    return 0;
}

/** The name of an instance that was given none: the image's, as a file and host name. */
static int default_name(struct run *run, const struct image_spec *spec, struct error *err)
{
    char name[IMAGE_NAME_MAX];

    image_spec_name(spec, name);
    for (char *p = name; *p; p++) {
        if (*p == ':' || *p == '/')
            *p = '-';
    }
    run->config.name = run_own(run, strdup(name), err);
    return run->config.name ? 0 : -ENOMEM;
}

/** Is "console=" one of the words of @text? */
static bool has_console(const char *text)
{
    for (const char *p = text; p && (p = strstr(p, "console=")); p++) {
        if (p == text || p[-1] == ' ')
            return true;
    }
    return false;
}

/** Kernel arguments: the image's, the mounts', then the user's, which win. */
static int compose_append(struct run *run, struct error *err)
{
    struct vm_config *c = &run->config;
    const char *user = run->v->append;
    const char *image = run->args->n ? c->append : NULL;
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    bool good = f != NULL;

    if (!f)
        return error_set(err, ENOMEM, "out of memory");
    if (run_has_command(run)) { /* nobody watches: a guest that dies has failed, at once */
        (void)fprintf(f, "panic=-1 ");
        c->no_reboot = true;
    }
    if (!has_console(user))
        (void)fprintf(f, "console=%s ", c->console_uart ? "ttyS0" : "hvc0");
    (void)fprintf(f, "%s", image ? image : "");
    for (size_t i = 0; run->args->n && i < c->share_count; i++) {
        cleanup(freep) char *mount =
            image_mount_argument(c->shares[i].tag, c->shares[i].guest_path, c->shares[i].readonly);
        good &= mount != NULL;
        (void)fprintf(f, " %s", mount ? mount : "");
    }
    (void)fprintf(f, "%s%s", image && user ? " " : "", user ? user : "");
    good &= !fclose(f);
    if (!good) {
        free(text);
        return error_set(err, ENOMEM, "out of memory");
    }
    c->append = run_own(run, text, err);
    return c->append ? 0 : -ENOMEM;
}

int run_prepare_image(struct run *run, struct error *err)
{
    const struct run_values *v = run->v;
    struct vm_config *c = &run->config;
    struct image_spec spec;
    int r;

    if (!run->args->n)
        return c->kernel ? compose_append(run, err) : 0;
    r = image_spec_parse(run->args->v[0], v->arch, v->mirror, &spec, err);
    if (!r && !v->name)
        r = default_name(run, &spec, err);
    if (r)
        return r;
    bool has_disk = spec.kind != IMAGE_TINY;
    if (v->disk_size && (!has_disk || v->rm))
        return error_set(err, EINVAL,
                         "--disk-size needs an image with a disk of its own to keep, without --rm");
    if (has_disk) {
        memmove(&c->disks[1], &c->disks[0], c->disk_count * sizeof(c->disks[0]));
        c->disk_count++;
    }
    if (has_disk && !v->rm) {
        r = open_instance(run, &spec, err);
        return r ? r : compose_append(run, err);
    }
    r = find_or_build(run, &spec, err);
    if (r)
        return r;
    c->kernel = run->image->kernel;
    c->initrd = run->image->initrd;
    c->append = run->image->append;
    if (has_disk)
        c->disks[0] =
            (struct vm_disk_config){.path = run->image->disk, .format = "raw", .snapshot = true};
    return compose_append(run, err);
}
