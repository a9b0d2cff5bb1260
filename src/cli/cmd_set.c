/* posada set and get: the keys of an instance's configuration. */
#include "base/error.h"
#include "base/fd.h"
#include "base/paths.h"
#include "cli/remote.h"
#include "cli/verbs.h"
#include "image/image.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct set_values {
    struct cmd_common common;
    bool json;
};

/** What was set. */
struct assigned {
    const char *later; /* a key that a running machine does not see; NULL = none */
    bool live;         /* one that it does */
    uint64_t memory;   /* bytes; 0 = not that */
};

/** Do the assignments @args on @text. */
static int assign(const char *path, char **text, struct opt_args *args, struct assigned *ret,
                  struct error *err)
{
    struct instance_config c;
    int r = config_parse(path, *text, strlen(*text), &c, err);

    if (r)
        return r;
    for (size_t i = 1; !r && i < args->n; i++) {
        const struct config_key *k;
        r = config_assign(&c, args->v[i], &k, err);
        char *fresh = r ? NULL : config_replace(*text, &c, k, err);
        if (!fresh) {
            r = r ? r : -ENOMEM;
            break;
        }
        free(*text);
        *text = fresh;
        ret->live |= k->live;
        if (!strcmp(k->name, "memory"))
            ret->memory = c.memory; /* a running guest can do with less */
        else if (!k->live)
            ret->later = k->name;
    }
    if (!r)
        r = config_check(&c, err);
    if (!r && ret->memory)
        r = image_check_memory(c.image, c.memory, err);
    config_done(&c);
    return r;
}

/** A state that was saved fits the configuration that the machine had. */
static int check_unsaved(const struct instance *in, const char *key, struct error *err)
{
    struct tree *t;
    struct error ignored = {0};

    if (instance_is_running(in) || instance_tree(in, &t, &ignored))
        return 0; /* who needs the tree says what is wrong with it */
    bool saved = *t->current.state;
    tree_free(t);
    return saved ? error_set(
                       err, EBUSY,
                       "'%s' has a saved state, which needs '%s' as it is: start it and stop it "
                       "without saving first",
                       in->name, key)
                 : 0;
}

/** Tell its monitor; with @memory, what the guest is to do with. */
static int reload(const struct instance *in, uint64_t memory, struct error *err)
{
    json_t *now = NULL;
    int r = remote_call(in->name, "reload", NULL, REMOTE_TIMEOUT_MS, &now, err);

    if (!r && memory &&
        (uint64_t)json_integer_value(json_object_get(now, "memory_bytes")) != memory)
        (void)fprintf(stderr, "posada set: '%s' runs: memory is used from its next start on\n",
                      in->name);
    json_decref(now);
    return r;
}

static int set_keys(struct instance *in, struct opt_args *args, struct error *err)
{
    cleanup(freep) char *path = instance_path(in, err, "instance.yaml");
    cleanup(freep) char *text = NULL;
    struct assigned set = {0};
    size_t size;
    int r = path ? paths_read(path, CONFIG_FILE_MAX, &text, &size, err) : -ENOMEM;

    if (!r)
        r = assign(path, &text, args, &set, err);
    if (!r && (set.later || set.memory))
        r = check_unsaved(in, set.later ? set.later : "memory", err);
    if (!r)
        r = instance_write_config(in, text, err);
    if (r || !instance_is_running(in))
        return r;
    if (set.later)
        (void)fprintf(stderr, "posada set: '%s' runs: %s is used from its next start on\n",
                      in->name, set.later);
    return set.live || set.memory ? reload(in, set.memory, err) : 0;
}

static int run_set(const struct cmd *cmd, void *values, struct opt_args *args)
{
    struct instance *in;
    struct error err = {0};
    int r = instance_open(args->v[0], INSTANCE_CHANGE, &in, &err);

    if (!r) {
        r = set_keys(in, args, &err);
        instance_close(in);
    }
    return r ? cmd_fail(cmd, r == -EINVAL || r == -EPERM ? CLI_USAGE : CLI_ERROR, &err) : CLI_OK;
}

static int get_all(const struct instance_config *c, bool json)
{
    json_t *all = json ? config_json(c) : NULL;

    if (json)
        cmd_print_json(all);
    json_decref(all);
    for (const struct config_key *k = config_keys; !json && k->name; k++) {
        cleanup(freep) char *value = config_get(c, k);
        for (char *p = value; p && *p; p++)
            *p = (char)(*p == '\n' ? ' ' : *p);
        (void)printf("%-12s %s\n", k->name, value ? value : "");
    }
    return 0;
}

static int get_keys(const struct instance_config *c, bool json, struct opt_args *args,
                    struct error *err)
{
    json_t *all = json_object();
    int r = 0;

    for (size_t i = 1; !r && i < args->n; i++) {
        const struct config_key *k = config_find(args->v[i], err);
        cleanup(freep) char *value = k ? config_get(c, k) : NULL;
        if (!k)
            r = -EINVAL;
        else if (json)
            (void)json_object_set_new(all, k->name, config_get_json(c, k));
        else
            (void)printf("%s\n", value ? value : "");
    }
    if (!r && json)
        cmd_print_json(all);
    json_decref(all);
    return r;
}

static int run_get(const struct cmd *cmd, void *values, struct opt_args *args)
{
    const struct set_values *v = values;
    struct instance *in;
    struct instance_config c;
    struct error err = {0};
    int r = instance_open(args->v[0], 0, &in, &err);

    if (r)
        return cmd_fail(cmd, CLI_ERROR, &err);
    r = instance_config(in, &c, &err);
    instance_close(in);
    if (r)
        return cmd_fail(cmd, CLI_ERROR, &err);
    r = args->n == 1 ? get_all(&c, v->json) : get_keys(&c, v->json, args, &err);
    config_done(&c);
    return r ? cmd_fail(cmd, CLI_USAGE, &err) : CLI_OK;
}

static const struct opt_def set_opts[] = {
    CMD_COMMON_ROWS(struct set_values),
};

static const struct opt_def get_opts[] = {
    {.name = "json",
     OPT_INTO_FLAG(struct set_values, json),
     .group = "Output",
     .help = "Print JSON: an object with the keys"},
    CMD_COMMON_ROWS(struct set_values),
};

static const struct cmd_section set_sections[] = {
    {"Keys",
     "  description  a line about it\n"
     "  cpus         processors, 1 to 16\n"
     "  memory       such as 2G: whole mebibytes\n"
     "  engine       jit, interp or check\n"
     "  cpu          max, rva23 or rva22\n"
     "  vlen         128, 256 or 512: bits of a vector register\n"
     "  kernel, initrd, append, firmware, payload, flash\n"
     "               what it boots; relative names of files are in its folder\n"
     "  console      auto, virtio or uart\n"
     "  cloud-init   the file of its NoCloud disk\n"
     "  disks        more disks, FILE[,WORD...], as 'posada run --disk' has them; a list\n"
     "  volumes      shared folders, DIR:/PATH[:ro]; a list\n"
     "  net          user or none\n"
     "  mac          address of the network card\n"
     "  publish      forwarded ports, [ADDR:]PORT:PORT[/udp]; a list\n"
     "  rng, balloon yes or no\n"
     "  restart      when the guest ends by itself: no, on-failure[:N] (N times at most), always,\n"
     "               unless-stopped (the same, and 'posada autostart' starts it if nobody stopped it)\n"
     "  autostart    yes: 'posada autostart' starts it\n\n"
     "The file is instance.yaml in the folder that 'posada info' names; comments and order in it are kept. "
     "uuid, image and arch are what it was made as, and stay."},
    {"Examples",                                                        "  posada set web cpus=4 memory=2G\n"
                 "  posada set web publish+=8443:443 publish-=8080:80\n"
                 "  posada set web restart=on-failure:5"},
    {0}
};

const struct cmd cmd_set = {
    .path = "set",
    .operands = "NAME KEY=VALUE...",
    .summary = "change an instance's configuration",
    .description =
        "Change keys of an instance's configuration: all of them, or none when one is wrong. For lists, "
        "KEY+=VALUE adds and KEY-=VALUE removes. A running machine sees description, restart and autostart "
        "at once; its guest is asked to do with less memory than it was started with at once, too (by the balloon device, at "
        "its own pace); the others are used from its next start on. With a saved state, only those that act at once can be set.",
    .opts = set_opts,
    .values_size = sizeof(struct set_values),
    .sections = set_sections,
    .min_operands = 2,
    .max_operands = CLI_NAMES_MAX,
    .run = run_set,
};

const struct cmd cmd_get = {
    .path = "get",
    .operands = "NAME [KEY...]",
    .summary = "print an instance's configuration",
    .description =
        "Print the values of keys, one a line, or all of them with their names. A list's are one a line.",
    .opts = get_opts,
    .values_size = sizeof(struct set_values),
    .min_operands = 1,
    .max_operands = CLI_NAMES_MAX,
    .run = run_get,
};
