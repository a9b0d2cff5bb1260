/* posada run: options to struct vm_config. Each parser names the option and what was expected. The
 * main thread. */
#include "base/fd.h"
#include "base/log.h"
#include "cli/run.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>

char *run_own(struct run *run, char *s, struct error *err)
{
    if (!s) {
        (void)error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    if (run->owned_count == RUN_MAX_OWNED) {
        free(s);
        (void)error_set(err, E2BIG, "too many options");
        return NULL;
    }
    return run->owned[run->owned_count++] = s;
}

/** A port number, 1 to 65535, of digits only up to @end. */
static bool parse_port(const char *text, const char *end, uint16_t *ret)
{
    unsigned v = 0;

    if (text == end || end - text > 5)
        return false;
    for (; text < end; text++) {
        if (!isdigit((unsigned char)*text))
            return false;
        v = v * 10 + (unsigned)(*text - '0');
    }
    *ret = (uint16_t)v;
    return v > 0 && v <= UINT16_MAX;
}

/** An IPv4 address, or an IPv6 address in brackets, from @text up to @end. */
static bool parse_address(const char *text, const char *end, char *ret, size_t size)
{
    char word[64];
    unsigned char binary[16];
    size_t n = (size_t)(end - text);
    bool brackets = n > 2 && text[0] == '[' && end[-1] == ']';

    if (brackets) {
        text++;
        n -= 2;
    }
    if (n >= sizeof(word) || n >= size)
        return false;
    memcpy(word, text, n);
    word[n] = '\0';
    if (inet_pton(brackets ? AF_INET6 : AF_INET, word, binary) != 1)
        return false;
    memcpy(ret, word, n + 1);
    return true;
}

/** "[ADDR:]HOSTPORT:GUESTPORT[/udp]" */
static int parse_forward(const char *text, struct net_forward *ret, struct error *err)
{
    struct net_forward f = {0};
    const char *end = text + strlen(text);
    const char *slash = strrchr(text, '/');

    if (slash) {
        f.udp = !strcmp(slash, "/udp");
        if (!f.udp && strcmp(slash, "/tcp") != 0)
            goto bad;
        end = slash;
    }
    const char *colon = memrchr(text, ':', (size_t)(end - text));
    if (!colon || !parse_port(colon + 1, end, &f.guest_port))
        goto bad;
    const char *host = memrchr(text, ':', (size_t)(colon - text));
    if (!parse_port(host ? host + 1 : text, colon, &f.host_port))
        goto bad;
    if (host && !parse_address(text, host, f.host_addr, sizeof(f.host_addr)))
        goto bad;
    *ret = f;
    return 0;
bad:
    return error_set(
        err, EINVAL,
        "--publish: expected [ADDRESS:]HOSTPORT:GUESTPORT[/udp], such as 8080:80, not '%s'", text);
}

static int configure_net(struct run *run, struct error *err)
{
    const struct run_values *v = run->v;
    struct vm_config *c = &run->config;

    c->net = !strcmp(v->net, "user");
    if (v->ports.n && !c->net)
        return error_set(err, EINVAL, "--publish needs a network: it excludes --net=none");
    if (v->ports.n > RUN_MAX_FORWARDS)
        return error_set(err, EINVAL, "--publish may be given at most %d times", RUN_MAX_FORWARDS);
    for (size_t i = 0; i < v->ports.n; i++) {
        int r = parse_forward(v->ports.v[i], &run->forwards[i], err);
        if (r)
            return r;
    }
    c->forwards = run->forwards;
    c->forward_count = v->ports.n;
    if (!v->mac)
        return 0;
    unsigned b[6];
    int used = 0;
    int n = sscanf(v->mac, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5],
                   &used);
    if (n != 6 || v->mac[used] || (b[0] & 1))
        return error_set(err, EINVAL,
                         "--mac: expected a unicast address such as 52:54:00:12:34:56, not '%s'",
                         v->mac);
    for (int i = 0; i < 6; i++)
        c->mac[i] = (uint8_t)b[i];
    return 0;
}

/** "HOST:GUEST[:ro]" into the next share. */
static int parse_volume(struct run *run, const char *text, struct error *err)
{
    struct vm_share_config *s = &run->config.shares[run->config.share_count];
    char *host = run_own(run, strdup(text), err);
    struct stat st;
    char *tag = NULL;

    if (!host)
        return -ENOMEM;
    char *guest = strchr(host, ':');
    if (guest)
        *guest++ = '\0';
    char *mode = guest ? strrchr(guest, ':') : NULL;
    if (mode && (!strcmp(mode, ":ro") || !strcmp(mode, ":rw"))) {
        s->readonly = mode[2] == 'o';
        *mode = '\0';
    }
    if (!guest || !*host || guest[0] != '/')
        return error_set(err, EINVAL, "--volume: expected HOSTFOLDER:/GUEST/PATH[:ro], not '%s'",
                         text);
    if (stat(host, &st))
        return error_set(err, EINVAL, "--volume: cannot share '%s': %s", host, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return error_set(err, EINVAL, "--volume: cannot share '%s': it is not a folder", host);
    if (asprintf(&tag, "share%zu", run->config.share_count) < 0)
        tag = NULL;
    s->tag = run_own(run, tag, err);
    s->host_path = host;
    s->guest_path = guest;
    run->config.share_count++;
    return s->tag ? 0 : -ENOMEM;
}

static const char *after(const char *word, const char *prefix)
{
    size_t n = strlen(prefix);

    return strncmp(word, prefix, n) ? NULL : word + n;
}

/** @word is one of @words; *@ret its place among them. */
static bool parse_word(const char *word, const char *const *words, int *ret)
{
    for (int i = 0; words[i]; i++) {
        if (!strcmp(word, words[i])) {
            *ret = i;
            return true;
        }
    }
    return false;
}

/** One word of --disk after the file's name. */
static bool parse_disk_word(struct vm_disk_config *d, const char *word)
{
    static const char *const off_on[] = {"off", "on", NULL};
    static const char *const caches[] = {"writeback", "none", NULL};
    static const char *const refs[] = {
        [DISK_REFS_FOLDER] = "folder", [DISK_REFS_ANY] = "any", [DISK_REFS_NONE] = "none", NULL};
    const char *value;
    int n;

    if (!strcmp(word, "ro") || !strcmp(word, "readonly"))
        return d->readonly = true;
    if (!strcmp(word, "snapshot"))
        return d->snapshot = true;
    if ((value = after(word, "format=")))
        return *(d->format = value) != 0;
    if ((value = after(word, "readonly=")) && parse_word(value, off_on, &n)) {
        d->readonly = n;
        return true;
    }
    if ((value = after(word, "snapshot=")) && parse_word(value, off_on, &n)) {
        d->snapshot = n;
        return true;
    }
    if ((value = after(word, "cache=")) && parse_word(value, caches, &n)) {
        d->direct = n;
        return true;
    }
    if ((value = after(word, "refs=")) && parse_word(value, refs, &n)) {
        d->refs = (enum disk_refs)n;
        return true;
    }
    return disk_limits_parse(&d->limits, word) > 0;
}

/** "FILE[,WORD...]" into the next disk. */
static int parse_disk(struct run *run, const char *text, struct error *err)
{
    struct vm_disk_config *d = &run->config.disks[run->config.disk_count];
    char *path = run_own(run, strdup(text), err);
    char *save = NULL;

    if (!path)
        return -ENOMEM;
    /* a comma may be part of the file's name: then there is a file of that name */
    char *comma = access(path, F_OK) ? strchr(path, ',') : NULL;
    if (comma)
        *comma++ = '\0';
    for (char *word = comma ? strtok_r(comma, ",", &save) : NULL; word;
         word = strtok_r(NULL, ",", &save)) {
        if (!parse_disk_word(d, word))
            return error_set(
                err, EINVAL,
                "--disk: expected FILE[,format=NAME][,readonly=on|off][,snapshot=on|off]"
                "[,cache=writeback|none][,refs=folder|any|none][,bps[-rd|-wr][-burst]=SIZE]"
                "[,iops[-rd|-wr][-burst]=N], not '%s' in '%s'",
                word, text);
    }
    if (d->format && !disk_format_find(d->format))
        return error_set(err, EINVAL, "--disk: disk format '%s' is unknown", d->format);
    d->path = path;
    run->config.disk_count++;
    return 0;
}

static int configure_devices(struct run *run, struct error *err)
{
    const struct run_values *v = run->v;
    struct vm_config *c = &run->config;

    if (v->volumes.n > VM_MAX_SHARES)
        return error_set(err, EINVAL, "--volume may be given at most %d times", VM_MAX_SHARES);
    if (v->disks.n > VM_MAX_DISKS - 1)
        return error_set(err, EINVAL, "--disk may be given at most %d times", VM_MAX_DISKS - 1);
    for (size_t i = 0; i < v->volumes.n; i++) {
        int r = parse_volume(run, v->volumes.v[i], err);
        if (r)
            return r;
    }
    for (size_t i = 0; i < v->disks.n; i++) {
        int r = parse_disk(run, v->disks.v[i], err);
        if (r)
            return r;
    }
    c->no_rng = !v->rng;
    c->no_balloon = !v->balloon;
    if (v->vsock) {
        struct stat st;
        if (stat(v->vsock, &st) || !S_ISDIR(st.st_mode))
            return error_set(err, EINVAL, "--vsock: '%s' is not a folder", v->vsock);
        c->vsock_cid = 3;
        c->vsock_dir = v->vsock;
    }
    return configure_net(run, err);
}

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

static int configure_boot(struct run *run, struct error *err)
{
    const struct run_values *v = run->v;
    struct vm_config *c = &run->config;
    const struct {
        const char *option, *value;
    } only_files[] = {
        {"kernel",   v->kernel  },
        {"initrd",   v->initrd  },
        {"firmware", v->firmware},
        {"payload",  v->payload },
        {"flash",    v->flash   }
    };

    for (size_t i = 0; run->args->n && i < ARRAY_SIZE(only_files); i++) {
        if (only_files[i].value)
            return error_set(err, EINVAL, "--%s excludes an image, but '%s' was given",
                             only_files[i].option, run->args->v[0]);
    }
    if (!run->args->n && !v->kernel && !v->firmware && !v->flash)
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
    c->kernel = v->kernel;
    c->initrd = v->initrd;
    c->append = v->append;
    c->firmware = v->firmware;
    c->firmware_payload = v->payload;
    c->flash = v->flash;
    /* firmware speaks on the UART; a kernel alone finds virtio-console faster */
    c->console_uart = v->console ? !strcmp(v->console, "uart") : v->firmware || v->flash;
    return 0;
}

static int configure_memory(struct run *run, struct error *err)
{
    uint64_t bytes = run->v->memory;
    struct sysinfo host;
    char text[32];

    if (bytes % (1 << 20))
        return error_set(err, EINVAL, "--memory: expected whole mebibytes, not %" PRIu64 " bytes",
                         bytes);
    if (!sysinfo(&host)) {
        uint64_t most = ((uint64_t)host.totalram + host.totalswap) * host.mem_unit;
        if (bytes > most)
            return error_set(err, ENOMEM, "--memory %s is more than this host has (%" PRIu64 "M)",
                             opt_format_size(bytes, text, sizeof(text)), most >> 20);
    }
    run->config.memory_bytes = bytes;
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
    run->config.dump = v->dump;
    run->config.dump_fd = run->dump_fd >= 0 ? run->dump_fd : STDERR_FILENO;
    run->config.dump_dtb = v->dump_dtb;
    return 0;
}

int run_configure(struct run *run, struct error *err)
{
    static const struct {
        const char *name;
        enum vm_engine engine;
    } engines[] = {
        {"jit",    VM_ENGINE_JIT   },
        {"interp", VM_ENGINE_INTERP},
        {"check",  VM_ENGINE_CHECK }
    };
    static const struct {
        const char *name;
        enum vm_cpu cpu;
    } cpus[] = {
        {"max",   VM_CPU_MAX  },
        {"rva23", VM_CPU_RVA23},
        {"rva22", VM_CPU_RVA22},
    };
    const struct run_values *v = run->v;

    if (v->name && !instance_name_is_valid(v->name))
        return error_set(err, EINVAL,
                         "--name: expected up to 63 letters, digits, dashes and dots, not '%s'",
                         v->name);
    run->config.name = v->name ? v->name : "posada";
    run->config.cpus = (unsigned)v->cpus;
    run->config.console_in = run->config.console_out = -1;
    for (size_t i = 0; i < ARRAY_SIZE(engines); i++) {
        if (!strcmp(engines[i].name, v->engine))
            run->config.engine = engines[i].engine;
    }
    for (size_t i = 0; i < ARRAY_SIZE(cpus); i++) {
        if (!strcmp(cpus[i].name, v->cpu))
            run->config.cpu = cpus[i].cpu;
    }
    run->config.vlen = (unsigned)strtoul(v->vlen, NULL, 10); /* a choice, so it is one */
    int r = configure_boot(run, err);
    if (!r)
        r = check_env(&v->env, err);
    if (!r)
        r = configure_memory(run, err);
    if (!r)
        r = configure_devices(run, err);
    return r ? r : configure_debug(run, err);
}
