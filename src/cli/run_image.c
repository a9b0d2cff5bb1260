/* posada run IMAGE: the instance or the temporary machine.
 *
 * A guest with a disk keeps it, as an instance (store/store.h). With --rm, and of an image without
 * a disk, none is made, and what the guest writes is gone with it. The main thread. */
#include "base/fd.h"
#include "base/paths.h"
#include "cli/run.h"
#include "disk/disk.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/** Grow the root disk of an instance, which does not run. */
static int grow(const struct instance *in, uint64_t disk_bytes, struct error *err)
{
    const struct disk_options options = {.format = "qcow2", .refs = DISK_REFS_ANY};
    cleanup(freep) char *top = instance_top(in, "root", err);
    struct disk *d;
    int r = top ? disk_open(top, &options, &d, err) : -ENOENT;

    if (r)
        return r;
    if (disk_bytes < d->size_bytes)
        r = error_set(err, EINVAL, "the disk of '%s' has %" PRIu64 "M and cannot shrink", in->name,
                      d->size_bytes >> 20);
    else if (disk_bytes > d->size_bytes)
        r = disk_resize(d, disk_bytes, false, err);
    disk_close(d);
    return r;
}

/** Put @text before the kernel arguments. */
static int prepend(struct run *run, const char *text, struct error *err)
{
    cleanup(freep) char *append =
        paths_format(err, "%s%s%s", text, *run->guest.append ? " " : "", run->guest.append);

    return append ? config_set(&run->guest, config_find("append", err), append, err) : -ENOMEM;
}

/** For a command, nobody watches the console: a guest that dies has failed, at once. */
static int fail_at_once(struct run *run, struct error *err)
{
    run->config.no_reboot = true;
    return prepend(run, "panic=-1", err);
}

/** The configuration of an instance that is there already, with what was given for this run. */
static int read_instance(struct run *run, const char *wanted, struct error *err)
{
    struct instance_config config;
    int r = instance_config(run->instance, &config, err);

    if (r)
        return r;
    if (strcmp(config.image, wanted) != 0)
        r = error_set(err, EEXIST, "'%s' exists and was made from image '%s', not '%s'",
                      run->instance->name, config.image, wanted);
    if (!r)
        r = guest_apply(&run->v->guest, &config, false, err);
    if (r) {
        config_done(&config);
        return r;
    }
    config_done(&run->guest);
    run->guest = config;
    return run_has_command(run) ? fail_at_once(run, err) : 0;
}

/** Take or make the instance. Its lock is held until the machine has started, its run lock until
 * the end of the run. */
static int open_instance(struct run *run, const struct image_spec *spec, struct error *err)
{
    const struct guest_values *v = &run->v->guest;
    char wanted[IMAGE_NAME_MAX];
    int r = instance_open(run->name, INSTANCE_CHANGE | INSTANCE_NEW, &run->instance, err);

    if (r)
        return r;
    struct instance *in = run->instance;
    if (instance_take_run(in, err)) {
        *err = (struct error){0};
        return error_set(err, EBUSY,
                         "'%s' is running already; --name starts another, --rm a temporary one",
                         in->name);
    }
    image_spec_name(spec, wanted);
    if (!in->exists)
        r = guest_create(in, spec, v, &run->why, err);
    else if (v->disk_size)
        r = grow(in, v->disk_size, err);
    return r ? r : read_instance(run, wanted, err);
}

/** A machine of the image itself. */
static int prepare_temporary(struct run *run, const struct image_spec *spec, struct error *err)
{
    const struct {
        const char *key, *value;
    } files[] = {
        {"arch",   run->image->spec.arch                       },
        {"kernel", run->image->kernel                          },
        {"initrd", run->image->initrd ? run->image->initrd : ""},
        {"image",  run->image->name                            },
    };
    int r = *run->image->append ? prepend(run, run->image->append, err) : 0;

    if (!r && run_has_command(run))
        r = fail_at_once(run, err);
    for (size_t i = 0; !r && i < ARRAY_SIZE(files); i++)
        r = config_set(&run->guest, config_find(files[i].key, err), files[i].value, err);
    if (!r && !run->v->guest.engine && !strcmp(run->guest.arch, "amd64"))
        r = config_set(&run->guest, config_find("engine", err), "kvm", err);
    if (!r)
        r = config_check(&run->guest, err);
    if (!r)
        r = machine_init(&run->machine, run->name, &run->guest, NULL, true, err);
    if (r || !run->image->disk)
        return r;
    struct vm_config *c = &run->machine.config;
    if (c->disk_count == VM_MAX_DISKS)
        return error_set(err, EINVAL, "at most %d disks are possible", VM_MAX_DISKS);
    memmove(&c->disks[1], &c->disks[0], c->disk_count++ * sizeof(c->disks[0]));
    c->disks[0] =
        (struct vm_disk_config){.path = run->image->disk, .format = "raw", .snapshot = true};
    return 0;
}

int run_prepare_image(struct run *run, struct error *err)
{
    const struct run_values *v = run->v;
    struct image_spec spec;
    int r;

    if (!run->args->n)
        return machine_init(&run->machine, run->name, &run->guest, NULL, false, err);
    r = image_spec_parse(run->args->v[0], guest_arch(&v->guest, run->args->v[0], &run->why),
                         v->guest.mirror, &spec, err);
    if (r)
        return r;
    if (!v->name)
        guest_default_name(&spec, run->name);
    bool keeps = spec.kind != IMAGE_TINY && !v->rm;
    if (v->guest.disk_size && !keeps)
        return error_set(err, EINVAL,
                         "--disk-size needs an image with a disk of its own to keep, without --rm");
    if (keeps)
        return open_instance(run, &spec, err);
    r = guest_find_image(&spec, &run->image, err);
    if (!r &&
        isatty(STDERR_FILENO) == 1) /* a program that reads it wants the guest's words alone */
        guest_say_choice(run->image->spec.arch, &run->why);
    return r ? r : prepare_temporary(run, &spec, err);
}
