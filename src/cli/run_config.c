/* posada run: from options to what the machine is to be. Errors name the option. The main thread.
 */
#include "base/fd.h"
#include "base/log.h"
#include "cli/run.h"
#include "vm/firmware.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/** "NAME=VALUE", NAME as sh has it. */
static int check_env(const struct opt_list *env, struct error *err)
{
    for (size_t i = 0; i < env->n; i++) {
        const char *p = env->v[i];
        while (*p == '_' || isalpha((unsigned char)*p) ||
               (p > env->v[i] && isdigit((unsigned char)*p)))
            p++;
        if (p == env->v[i] || *p != '=')
            return error_set(err, EINVAL, "--env: expected NAME=VALUE, not '%s'", env->v[i]);
    }
    return 0;
}

/** A PC with something to boot from, and nothing said of how, does it as PCs always have. */
static const char *choose_firmware(const struct run *run)
{
    const struct run_values *v = run->v;
    const struct guest_values *g = &v->guest;
    bool may_be_pc = !g->arch || !strcmp(g->arch, "amd64");

    if (v->firmware || run->args->n || v->kernel || !may_be_pc)
        return v->firmware;
    return g->disks.n + g->cdroms.n ? "seabios" : NULL;
}

static int configure_boot(struct run *run, struct error *err)
{
    const struct run_values *v = run->v;
    const char *firmware = choose_firmware(run);
    const struct {
        const char *option, *value;
    } only_files[] = {
        {"kernel",   v->kernel },
        {"initrd",   v->initrd },
        {"firmware", firmware  },
        {"payload",  v->payload},
        {"flash",    v->flash  }
    };

    for (size_t i = 0; run->args->n && i < ARRAY_SIZE(only_files); i++) {
        if (only_files[i].value)
            return error_set(err, EINVAL, "--%s excludes an image, but '%s' was given",
                             only_files[i].option, run->args->v[0]);
    }
    if (!run->args->n && !v->kernel && !firmware && !v->flash)
        return error_set(err, EINVAL,
                         "nothing to boot: give an image, such as 'tiny', or --kernel");
    if (!run->args->n && run_has_command(run))
        return error_set(err, EINVAL, "a command after '--' needs an image, such as 'tiny'");
    if (v->initrd && !v->kernel)
        return error_set(err, EINVAL, "--initrd needs --kernel");
    if (v->payload && !v->firmware)
        return error_set(err, EINVAL, "--payload needs --firmware");
    if (v->env.n && !run_has_command(run))
        return error_set(err, EINVAL, "--env needs a command: posada run IMAGE -- COMMAND");
    for (size_t i = 0; i < ARRAY_SIZE(only_files); i++) {
        const struct config_key *k = config_find(only_files[i].option, err);
        int r = !k                     ? -EINVAL
                : !only_files[i].value ? 0
                                       : config_set(&run->guest, k, only_files[i].value, err);
        if (r)
            return r;
    }
    return 0;
}

/** Of a machine without an image: an image's is known later. */
static int choose_arch(struct run *run, struct error *err)
{
    const struct guest_values *g = &run->v->guest;
    const char *arch = g->arch                                    ? g->arch
                       : g->engine && !strcmp(g->engine, "kvm")   ? "amd64"
                       : vm_firmware_is_name(run->guest.firmware) ? "amd64"
                                                                  : "riscv64";

    if (run->args->n)
        return 0;
    if (strcmp(arch, "riscv64") != 0 && strcmp(arch, "amd64") != 0)
        return error_set(err, EINVAL, "--arch: expected riscv64 or amd64, not '%s'", arch);
    return config_set(&run->guest, config_find("arch", err), arch, err);
}

static int configure_vsock(struct run *run, struct error *err)
{
    const char *dir = run->v->vsock;
    struct stat st;

    if (!dir)
        return 0;
    if (stat(dir, &st) || !S_ISDIR(st.st_mode))
        return error_set(err, EINVAL, "--vsock: '%s' is not a folder", dir);
    run->config.vsock_cid = 3;
    run->config.vsock_dir = dir;
    return 0;
}

/** Open a file that the run writes to, for --trace-file and --dump-file. */
static int open_output(const char *option, const char *path, int *ret_fd, struct error *err)
{
    if (!path)
        return 0;
    *ret_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (*ret_fd < 0)
        return error_set(err, errno, "--%s: cannot write '%s': %s", option, path, strerror(errno));
    return 0;
}

static int configure_debug(struct run *run, struct error *err)
{
    const struct run_values *v = run->v;
    int r = open_output("trace-file", v->trace_file, &run->trace_fd, err);

    if (!r)
        r = open_output("dump-file", v->dump_file, &run->dump_fd, err);
    if (r)
        return r;
    if (run->trace_fd >= 0)
        trace_set_fd(run->trace_fd);
    for (size_t i = 0; i < v->trace.n; i++) {
        if (!trace_enable(v->trace.v[i]))
            return error_set(err, EINVAL, "--trace: no trace event matches '%s'", v->trace.v[i]);
    }
    if (v->gdb_wait && !v->gdb)
        return error_set(err, EINVAL, "--gdb-wait needs --gdb");
    run->config.gdb = v->gdb;
    run->config.gdb_wait = v->gdb_wait;
    run->config.stats = v->stats || v->json;
    run->config.cache_bytes = v->translation_cache;
    run->config.perf_map = v->perf_map;
    run->config.gdb_jit = v->gdb_jit;
    run->config.dump_elf = v->dump_elf;
    run->config.dump = v->dump;
    run->config.dump_fd = run->dump_fd >= 0 ? run->dump_fd : STDERR_FILENO;
    run->config.dump_dtb = v->dump_dtb;
    return 0;
}

int run_configure(struct run *run, struct error *err)
{
    const struct run_values *v = run->v;

    if (v->name && !instance_name_is_valid(v->name))
        return error_set(err, EINVAL,
                         "--name: expected up to 63 letters, digits, dashes and dots, not '%s'",
                         v->name);
    (void)snprintf(run->name, sizeof(run->name), "%s", v->name ? v->name : "posada");
    int r = config_init(&run->guest, err);
    if (!r)
        r = configure_boot(run, err);
    if (!r)
        r = check_env(&v->env, err);
    if (!r)
        r = choose_arch(run, err);
    if (!r)
        r = guest_apply(&v->guest, &run->guest, false, err);
    if (!r && !run->args->n)
        r = config_check(&run->guest, err);
    if (!r)
        r = configure_vsock(run, err);
    return r ? r : configure_debug(run, err);
}

void run_adjust(const struct run *run, struct vm_config *c)
{
    const struct vm_config *own = &run->config;

    c->gdb = own->gdb;
    c->gdb_wait = own->gdb_wait;
    c->dump = own->dump;
    c->dump_fd = own->dump_fd;
    c->dump_dtb = own->dump_dtb;
    c->stats = own->stats;
    c->cache_bytes = own->cache_bytes;
    c->perf_map = own->perf_map;
    c->gdb_jit = own->gdb_jit;
    c->dump_elf = own->dump_elf;
    c->no_reboot = own->no_reboot;
    memcpy(c->ports, own->ports, sizeof(c->ports));
    c->port_count = own->port_count;
    if (own->vsock_cid) {
        c->vsock_cid = own->vsock_cid;
        c->vsock_dir = own->vsock_dir;
    }
}
