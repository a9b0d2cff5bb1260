/* A new identity for a clone: names, keys, addresses. See guest_agent.h, docs/agent.md.
 *
 * What is not asked for stays. All is checked before the first thing is changed.
 *
 * A live clone is to be of use at once, so it asks for what takes time to be done later: a process
 * of its own waits until the commands that the clone was made for have begun, and then flushes the
 * files and gives the network its new address, which keeps a guest of systemd busy for a second. */
#include "guest_agent.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netpacket/packet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { ID_DIGITS = 32, MACS_MAX = 8, HOSTS_MAX = 64 << 10, LATER_MS = 500 };

struct mac {
    uint8_t b[6];
};

static bool is_hostname(const char *name)
{
    size_t n = strlen(name);

    if (!n || n > 64 || !isalnum((unsigned char)name[0]) || !isalnum((unsigned char)name[n - 1]))
        return false;
    for (; *name; name++) {
        if (!isalnum((unsigned char)*name) && *name != '-' && *name != '.')
            return false;
    }
    return true;
}

static bool is_machine_id(const char *id)
{
    return strlen(id) == ID_DIGITS && strspn(id, "0123456789abcdef") == ID_DIGITS;
}

static bool parse_mac(const char *text, struct mac *ret)
{
    unsigned b[6];
    int end = 0;

    if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &end) !=
            6 ||
        end != 17)
        return false;
    for (int i = 0; i < 6; i++)
        ret->b[i] = (uint8_t)b[i];
    return !(b[0] & 1); /* no group address */
}

/** "FROM TO" */
static bool parse_pair(const char *text, struct mac *from, struct mac *to)
{
    char first[24] = "", second[24] = "";

    return strlen(text) == 35 && sscanf(text, "%17s %17s", first, second) == 2 &&
           parse_mac(first, from) && parse_mac(second, to);
}

/** The line that gives the machine its own name names the new one, as sudo and others want it. */
static int change_hosts(const char *hostname, bool flush, struct error *err)
{
    char *text = malloc(HOSTS_MAX), *out = malloc(HOSTS_MAX + 128), *save = NULL;
    bool found = false;
    size_t n = 0;
    int rc = 0;

    if (text && out && file_read("/etc/hosts", text, HOSTS_MAX)) {
        for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
            bool is_own = !strncmp(line, "127.0.1.1", 9) && isspace((unsigned char)line[9]);

            n += (size_t)sprintf(out + n, is_own && !found ? "127.0.1.1 %s\n" : "%s\n",
                                 is_own && !found ? hostname : line);
            found |= is_own;
        }
        rc = found ? file_write("/etc/hosts", out, 0644, flush, err) : 0;
    }
    free(text);
    free(out);
    return rc;
}

static int set_hostname(const char *name, bool flush, struct error *err)
{
    char line[80];

    (void)snprintf(line, sizeof(line), "%s\n", name);
    if (sethostname(name, strlen(name)))
        return error_set(err, errno, "cannot set the host name: %s", strerror(errno));
    int rc = file_write("/etc/hostname", line, 0644, flush, err);
    return rc ? rc : change_hosts(name, flush, err);
}

static int set_machine_id(const char *id, bool flush, struct error *err)
{
    char line[ID_DIGITS + 2];
    uint8_t random[ID_DIGITS / 2];
    struct stat st;

    if (*id) {
        (void)snprintf(line, sizeof(line), "%s\n", id);
    } else {
        if (getrandom(random, sizeof(random), 0) != sizeof(random))
            return error_set(err, errno, "no random numbers: %s", strerror(errno));
        random[6] = (random[6] & 0x0f) | 0x40; /* machine-id(5): formed as a UUID, version 4 */
        random[8] = (random[8] & 0x3f) | 0x80;
        for (size_t i = 0; i < sizeof(random); i++)
            (void)sprintf(line + 2 * i, "%02x", random[i]);
        line[ID_DIGITS] = '\n';
        line[ID_DIGITS + 1] = '\0';
    }
    int rc = file_write("/etc/machine-id", line, 0444, flush, err);
    if (!rc && !lstat("/var/lib/dbus/machine-id", &st) && S_ISREG(st.st_mode))
        rc = file_write("/var/lib/dbus/machine-id", line, 0444, flush, err);
    return rc;
}

static int renew_ssh_keys(struct error *err)
{
    const char *const make[] = {"ssh-keygen", "-A", NULL};
    const char *const restart[] = {"systemctl", "--no-block", "try-restart", "ssh.service", NULL};
    glob_t g;

    if (glob("/etc/ssh/ssh_host_*_key*", 0, NULL, &g))
        return 0; /* there are none: then none are shared */
    for (size_t i = 0; i < g.gl_pathc; i++)
        (void)unlink(g.gl_pathv[i]); /* one that stays makes ssh-keygen leave it */
    globfree(&g);
    int status = command_run(make);
    if (status)
        return error_set(err, EIO, "ssh-keygen has failed (%d)", status);
    if (!access("/run/systemd/system", F_OK))
        (void)command_run(restart);
    return 0;
}

static bool find_interface(const struct mac *m, char name[IFNAMSIZ])
{
    struct ifaddrs *list;
    bool found = false;

    if (getifaddrs(&list))
        return false;
    for (const struct ifaddrs *i = list; i && !found; i = i->ifa_next) {
        const struct sockaddr_ll *l = (const void *)i->ifa_addr;

        if (!l || l->sll_family != AF_PACKET || l->sll_halen != 6 ||
            memcmp(l->sll_addr, m->b, 6) != 0)
            continue;
        (void)snprintf(name, IFNAMSIZ, "%s", i->ifa_name);
        found = true;
    }
    freeifaddrs(list);
    return found;
}

/** Down, new address, up: what runs the network sees the link go and come, and begins anew. */
static int change_mac(const char *name, const struct mac *to, struct error *err)
{
    struct ifreq flags = {0}, address = {0};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    (void)snprintf(flags.ifr_name, sizeof(flags.ifr_name), "%s", name);
    address = flags;
    address.ifr_hwaddr.sa_family = ARPHRD_ETHER;
    memcpy(address.ifr_hwaddr.sa_data, to->b, 6);
    int rc = fd < 0 || ioctl(fd, SIOCGIFFLAGS, &flags) ? -errno : 0;
    short old = flags.ifr_flags;
    flags.ifr_flags = (short)(old & ~IFF_UP);
    if (!rc && (ioctl(fd, SIOCSIFFLAGS, &flags) || ioctl(fd, SIOCSIFHWADDR, &address)))
        rc = -errno;
    flags.ifr_flags = old;
    if (fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &flags) && !rc)
        rc = -errno;
    if (fd >= 0)
        (void)close(fd); /* a socket without data */
    return rc ? error_set(err, -rc, "cannot change the address of '%s': %s", name, strerror(-rc))
              : 0;
}

/** Ask for a lease again, without waiting for it. networkd is started anew after a new machine-id,
 * from which it makes what it calls itself before DHCP servers. */
static void renew_lease(const char *name)
{
    const char *const networkd[] = {"systemctl", "--no-block", "restart",
                                    "systemd-networkd.service", NULL};
    const char *const udhcpc[] = {"udhcpc", "-q", "-n", "-i", name, "-s", "/usr/lib/posada/dhcp",
                                  NULL};
    const char *const dhclient[] = {"dhclient", "-nw", name, NULL};

    if (!access("/run/systemd/netif", F_OK))
        command_start(networkd);
    else if (command_exists("udhcpc") && !access("/usr/lib/posada/dhcp", X_OK))
        command_start(udhcpc);
    else if (command_exists("dhclient"))
        command_start(dhclient);
}

static int check(const struct wire_frame *f, struct error *err)
{
    const char *hostname = wire_find(f, "hostname"), *id = wire_find(f, "machine_id");
    const char *at = NULL, *pair;
    struct mac from, to;
    unsigned n = 0;

    if (hostname && !is_hostname(hostname))
        return error_set(err, EINVAL, "'%.80s' is no host name", hostname);
    if (id && *id && !is_machine_id(id))
        return error_set(err, EINVAL, "a machine-id has 32 lower case hexadecimal digits");
    while ((pair = wire_each(f, "mac", &at))) {
        char name[IFNAMSIZ];

        if (!parse_pair(pair, &from, &to) || n++ == MACS_MAX)
            return error_set(err, EINVAL, "'%.40s' are not two hardware addresses", pair);
        if (!find_interface(&from, name) && !find_interface(&to, name))
            return error_set(err, ENODEV, "no interface has the address %.17s", pair);
    }
    return 0;
}

/** The interfaces' new addresses, and leases for them. */
static int change_network(const struct wire_frame *f, struct error *err)
{
    const char *at = NULL, *pair;
    char name[IFNAMSIZ] = "";
    struct mac from, to;
    int rc = 0;

    while (!rc && (pair = wire_each(f, "mac", &at))) {
        if (parse_pair(pair, &from, &to) && find_interface(&from, name)) /* else it has it */
            rc = change_mac(name, &to, err);
        if (!rc && *name)
            renew_lease(name);
    }
    if (!rc && wire_find(f, "machine_id") && !*name)
        renew_lease(name); /* the name it goes by before DHCP servers has changed */
    return rc;
}

/** Start the process that does the rest, after the answer. */
static int do_later(struct session *s, const struct wire_frame *f, struct error *err)
{
    static const char *const files[] = {"/etc/hostname", "/etc/hosts", "/etc/machine-id",
                                        "/var/lib/dbus/machine-id"};
    const struct timespec delay = {.tv_nsec = LATER_MS * 1000000L};
    pid_t pid = fork();

    if (pid < 0)
        return error_set(err, errno, "cannot start a process: %s", strerror(errno));
    if (pid) /* the system's first process collects it, after this session */
        return session_reply(s);
    (void)close(s->wire.fd); /* which ends when the session does */
    hurry(false);
    (void)nanosleep(&delay, NULL);
    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        int fd = open(files[i], O_RDONLY | O_CLOEXEC);

        if (fd >= 0)
            (void)fsync(fd); /* nobody is there to be told */
    }
    if (change_network(f, err))
        (void)fprintf(stderr, "posada-agent: %s\n", error_text(err));
    _exit(0);
}

int identity_serve(struct session *s, const struct wire_frame *f, struct error *err)
{
    const char *hostname = wire_find(f, "hostname"), *id = wire_find(f, "machine_id");
    bool later = wire_find(f, "later");
    int rc = check(f, err);

    if (!rc && hostname)
        rc = set_hostname(hostname, !later, err);
    if (!rc && id)
        rc = set_machine_id(id, !later, err);
    if (!rc && wire_find(f, "ssh_keys"))
        rc = renew_ssh_keys(err);
    if (!rc && later)
        return do_later(s, f, err);
    if (!rc)
        rc = change_network(f, err);
    return rc ? rc : session_reply(s);
}
