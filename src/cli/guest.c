/* From options and an image to an instance. The main thread. */
#include "cli/guest.h"

#include "base/fd.h"
#include "base/paths.h"
#include "cli/progress.h"
#include "store/seed.h"
#include "vm/vm.h"
#include "vm/words.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

const char guest_disk_help[] =
    "Add a disk, in any format of 'posada disk' (format=NAME; else by its beginning): bus=ahci: by Serial ATA, "
    "for guests that know no virtio when they start; readonly=on; "
    "snapshot=on: what the guest writes is dropped; cache=none: past the host's page cache; "
    "refs=folder|any|none: which other files the image may name; key-file=FILE: with the passphrase of "
    "an encrypted image; bps=SIZE and iops=N: at most so many "
    "bytes and requests a second, of reads alone with bps-rd, of writes with bps-wr, and with "
    "bps-burst so many at once after a rest; iops likewise. May be repeated";

const char guest_volume_help[] =
    "Share folder DIR of the host with the guest. An image's guest finds it at /PATH; others mount the "
    "virtiofs tags share0, share1... May be repeated";

static int set(struct instance_config *c, const char *key, const char *option, const char *value,
               struct error *err)
{
    struct error why = {0};
    const struct config_key *k = config_find(key, err);

    if (!value || !k)
        return value ? -EINVAL : 0;
    if (k->check && k->check(value, &why))
        return error_set(err, EINVAL, "--%s: %s", option, error_text(&why));
    return k->kind == CONFIG_LIST ? config_add(c, k, value, err) : config_set(c, k, value, err);
}

/** The folder that @text shares is there. */
static int check_volume(const char *text, struct error *err)
{
    cleanup(freep) char *copy = strdup(text);
    struct vm_share_config s;
    struct stat st;

    if (!copy)
        return error_set(err, ENOMEM, "out of memory");
    int r = vm_parse_share(copy, &s, err);
    if (!r && stat(s.host_path, &st))
        r = error_set(err, EINVAL, "cannot share '%s': %s", s.host_path, strerror(errno));
    else if (!r && !S_ISDIR(st.st_mode))
        r = error_set(err, EINVAL, "cannot share '%s': it is not a folder", s.host_path);
    if (r)
        error_prefix(err, "--volume");
    return r;
}

/** Add @list to @key, each with @suffix; every element begins with the name of a file. */
static int set_files(struct instance_config *c, const char *key, const char *option,
                     const struct opt_list *list, const char *suffix, bool absolute,
                     struct error *err)
{
    cleanup(freep) char *cwd = get_current_dir_name();
    int r = 0;

    for (size_t i = 0; !r && i < list->n; i++) {
        const char *text = list->v[i];
        bool prefix = absolute && *text && *text != '/';
        cleanup(freep) char *full = paths_format(err, "%s%s%s%s", prefix && cwd ? cwd : "",
                                                 prefix ? "/" : "", text, suffix);
        r = full ? set(c, key, option, full, err) : -ENOMEM;
    }
    return r;
}

static int apply_lists(const struct guest_values *v, struct instance_config *c, bool absolute,
                       struct error *err)
{
    int r = 0;

    if (v->volumes.n > VM_MAX_SHARES)
        return error_set(err, EINVAL, "--volume may be given at most %d times", VM_MAX_SHARES);
    if (v->disks.n + v->cdroms.n > VM_MAX_DISKS - 2)
        return error_set(err, EINVAL, "--disk and --cdrom may be given at most %d times",
                         VM_MAX_DISKS - 2);
    if (v->ports.n > CONFIG_LIST_MAX)
        return error_set(err, EINVAL, "--publish may be given at most %d times", CONFIG_LIST_MAX);
    if (v->oem.n > CONFIG_LIST_MAX)
        return error_set(err, EINVAL, "--oem-string may be given at most %d times",
                         CONFIG_LIST_MAX);
    for (size_t i = 0; !r && i < v->oem.n; i++)
        r = set(c, "oem-strings", "oem-string", v->oem.v[i], err);
    if (r)
        return r;
    r = set_files(c, "volumes", "volume", &v->volumes, "", absolute, err);
    for (size_t i = 0; !r && i < v->volumes.n; i++)
        r = check_volume(v->volumes.v[i], err);
    if (!r)
        r = set_files(c, "disks", "disk", &v->disks, "", absolute, err);
    if (!r)
        r = set_files(c, "disks", "cdrom", &v->cdroms, ",media=cdrom", absolute, err);
    for (size_t i = 0; !r && i < v->ports.n; i++)
        r = set(c, "publish", "publish", v->ports.v[i], err);
    return r;
}

const char *guest_arch(const struct guest_values *v, const char *image, struct error *ret_why)
{
    *ret_why = (struct error){0};
    if (v->arch || strchr(image, '/'))
        return v->arch;
    if (v->engine)
        return !strcmp(v->engine, "kvm") ? "amd64" : NULL;
    if (vm_kvm_check(ret_why))
        return NULL;
    (void)error_set(ret_why, 0, "KVM works on this host");
    return "amd64";
}

/** As a sentence for people; "" when the user chose. */
static void choice(const char *arch, const struct error *why, char *ret, size_t size)
{
    bool kvm = !strcmp(arch, "amd64");

    if (!*why->text)
        *ret = '\0';
    else
        (void)snprintf(ret, size, "%s: %s%s", kvm ? "amd64 under KVM" : "riscv64 by translation",
                       kvm ? "" : "no KVM here, for ", why->text);
}

void guest_say_choice(const char *arch, const struct error *why)
{
    char text[sizeof(why->text) + 64];

    choice(arch, why, text, sizeof(text));
    if (*text)
        (void)fprintf(stderr, "%s\n", text);
}

int guest_apply(const struct guest_values *v, struct instance_config *c, bool absolute,
                struct error *err)
{
    const struct {
        const char *key, *value;
    } words[] = {
        {"engine",      v->engine                  },
        {"cpu",         v->cpu                     },
        {"vlen",        v->vlen                    },
        {"net",         v->net                     },
        {"mac",         v->mac                     },
        {"console",     v->console                 },
        {"boot",        v->boot                    },
        {"restart",     v->restart                 },
        {"description", v->description             },
        {"rng",         v->rng ? NULL : "no"       },
        {"balloon",     v->balloon ? NULL : "no"   },
        {"autostart",   v->autostart ? "yes" : NULL},
    };
    int r = 0;

    if (v->memory % (1 << 20))
        return error_set(err, EINVAL, "--memory: expected whole mebibytes, not %" PRIu64 " bytes",
                         v->memory);
    if (v->memory)
        c->memory = v->memory;
    if (v->cpus)
        c->cpus = v->cpus;
    for (size_t i = 0; !r && i < ARRAY_SIZE(words); i++)
        r = set(c, words[i].key, words[i].key, words[i].value, err);
    if (!r && !v->engine && !strcmp(c->arch, "amd64"))
        r = set(c, "engine", "engine", "kvm", err);
    if (!r)
        r = apply_lists(v, c, absolute, err);
    if (!r && c->publish.n && !strcmp(c->net, "none"))
        r = error_set(err, EINVAL, "--publish needs a network: it excludes --net=none");
    if (r || !v->append)
        return r;
    cleanup(freep) char *append =
        paths_format(err, "%s%s%s", c->append, *c->append ? " " : "", v->append);
    return append ? set(c, "append", "append", append, err) : -ENOMEM;
}

int guest_find_image(const struct image_spec *spec, struct image **ret, struct error *err)
{
    struct progress progress;
    struct image_build_opts opts = {.progress = progress_report, .arg = &progress};
    char name[IMAGE_NAME_MAX];
    struct error absent = {0};
    int r = image_find(spec, ret, &absent);

    if (r != -ENOENT) {
        if (r)
            *err = absent;
        return r;
    }
    image_spec_name(spec, name);
    (void)fprintf(stderr, "building image '%s', which is kept for the next time\n", name);
    progress_init(&progress);
    r = image_build(spec, &opts, ret, err);
    progress_done(&progress);
    return r;
}

void guest_default_name(const struct image_spec *spec, char ret[IMAGE_NAME_MAX])
{
    image_spec_name(spec, ret);
    for (char *p = ret; *p; p++) {
        if (*p == ':' || *p == '/')
            *p = '-';
    }
}

/** The configuration of a new instance of @image. */
static int new_config(const struct image *image, const struct guest_values *v,
                      const struct error *why, struct instance_config *ret, struct error *err)
{
    char text[sizeof(why->text) + 64];
    int r = config_init(ret, err);

    if (r)
        return r;
    r = set(ret, "image", "image", image->name, err);
    if (!r)
        r = set(ret, "arch", "arch", image->spec.arch, err);
    choice(image->spec.arch, why, text, sizeof(text));
    if (!r)
        r = set(ret, "engine-reason", "engine", text, err);
    if (!r)
        r = set(ret, "append", "append", image->append, err);
    if (!r)
        r = guest_apply(v, ret, true, err);
    if (!r)
        r = image_check_memory(image->name, ret->memory, err);
    if (r)
        config_done(ret);
    return r;
}

int guest_create(struct instance *in, const struct image_spec *spec, const struct guest_values *v,
                 const struct error *why, struct error *err)
{
    struct instance_config config;
    struct image *image;
    cleanup(fd_closep) int seed = -1;
    char path[32];
    int r = guest_find_image(spec, &image, err);

    if (r)
        return r;
    if (!r)
        r = new_config(image, v, why, &config, err);
    if (r)
        goto out;
    struct instance_sources from = {.kernel = image->kernel,
                                    .initrd = image->initrd,
                                    .disk = image->disk,
                                    .disk_bytes = v->disk_size};
    if (v->cloud_init) {
        r = seed_make(v->cloud_init, in->name, &seed, err);
        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", seed);
        from.seed = path;
    }
    if (!r)
        r = instance_create(in, &config, &from, err);
    if (!r)
        guest_say_choice(image->spec.arch, why);
    config_done(&config);
out:
    image_free(image);
    return r;
}
