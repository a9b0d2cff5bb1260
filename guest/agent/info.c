/* What the guest tells about itself. See guest_agent.h, docs/agent.md. */
#include "guest_agent.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netpacket/packet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#define SESSIONS "/run/systemd/sessions"

enum { SMALL = 4096 };

/** The value of NAME= in a file of shell assignments, without quotes; false: it has none. */
static bool find_value(const char *text, const char *name, char *buf, size_t room)
{
    size_t n = strlen(name), i = 0;

    for (const char *line = text; line; line = strchr(line, '\n'), line += line != NULL) {
        if (strncmp(line, name, n) || line[n] != '=')
            continue;
        for (const char *p = line + n + 1; *p && *p != '\n' && i < room - 1; p++) {
            if (*p != '"' && *p != '\'' && *p != '\\')
                buf[i++] = *p;
        }
        buf[i] = '\0';
        return true;
    }
    return false;
}

static void add_os(struct wire *w)
{
    static const char *const names[][2] = {
        {"PRETTY_NAME", "os_name"   },
        {"ID",          "os_id"     },
        {"VERSION_ID",  "os_version"},
    };
    char text[SMALL], value[128];

    if (!file_read("/etc/os-release", text, sizeof(text)))
        return;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (find_value(text, names[i][0], value, sizeof(value)))
            wire_field(w, names[i][1], value);
    }
}

static void add_file(struct wire *w, const char *key, const char *path)
{
    char text[SMALL];

    if (file_read(path, text, sizeof(text)) && *text)
        wire_field(w, key, text);
}

/** The hardware address of interface @name as text; "-" for none. */
static void find_mac(const struct ifaddrs *list, const char *name, char *buf, size_t room)
{
    (void)snprintf(buf, room, "-");
    for (const struct ifaddrs *i = list; i; i = i->ifa_next) {
        if (!i->ifa_addr || i->ifa_addr->sa_family != AF_PACKET || strcmp(i->ifa_name, name) != 0)
            continue;
        const struct sockaddr_ll *l = (const void *)i->ifa_addr;
        const uint8_t *m = l->sll_addr;
        if (l->sll_halen == 6)
            (void)snprintf(buf, room, "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4],
                           m[5]);
    }
}

/** How many bits of a netmask of @size bytes are set. */
static int prefix_length(const void *mask, size_t size)
{
    const uint8_t *p = mask;
    int n = 0;

    for (size_t i = 0; i < size; i++)
        n += __builtin_popcount(p[i]);
    return n;
}

static void add_addresses(struct wire *w)
{
    struct ifaddrs *list;

    if (getifaddrs(&list))
        return;
    for (const struct ifaddrs *i = list; i; i = i->ifa_next) {
        char address[INET6_ADDRSTRLEN], mac[24], text[160];
        int family = i->ifa_addr ? i->ifa_addr->sa_family : AF_UNSPEC, bits;

        if ((family != AF_INET && family != AF_INET6) || (i->ifa_flags & IFF_LOOPBACK) ||
            !i->ifa_netmask)
            continue;
        const struct sockaddr_in *a4 = (const void *)i->ifa_addr;
        const struct sockaddr_in *m4 = (const void *)i->ifa_netmask;
        const struct sockaddr_in6 *a6 = (const void *)i->ifa_addr;
        const struct sockaddr_in6 *m6 = (const void *)i->ifa_netmask;
        const void *raw =
            family == AF_INET ? (const void *)&a4->sin_addr : (const void *)&a6->sin6_addr;
        bits =
            family == AF_INET ? prefix_length(&m4->sin_addr, 4) : prefix_length(&m6->sin6_addr, 16);
        if (!inet_ntop(family, raw, address, sizeof(address)))
            continue;
        find_mac(list, i->ifa_name, mac, sizeof(mac));
        (void)snprintf(text, sizeof(text), "%s %s %s/%d", i->ifa_name, mac, address, bits);
        wire_field(w, "address", text);
    }
    freeifaddrs(list);
}

static void add_user(struct wire *w, const char *name, const char *terminal)
{
    char text[256];

    (void)snprintf(text, sizeof(text), "%s %s", name, terminal);
    wire_field(w, "user", text);
}

/** logind's sessions of people, not of services. False: it knows none, or is not told (by PAM). */
static bool add_users_of_logind(struct wire *w, DIR *dir)
{
    const struct dirent *e;
    bool any = false;

    while ((e = readdir(dir))) {
        char path[320], text[SMALL], class[32], name[64], terminal[64] = "";

        (void)snprintf(path, sizeof(path), SESSIONS "/%s", e->d_name);
        if (!isalnum((unsigned char)e->d_name[0]) || strchr(e->d_name, '.') ||
            !file_read(path, text, sizeof(text)) ||
            !find_value(text, "CLASS", class, sizeof(class)) || strncmp(class, "user", 4) ||
            !find_value(text, "USER", name, sizeof(name)))
            continue;
        if (!strncmp(class, "manager", 7))
            continue;
        (void)find_value(text, "TTY", terminal, sizeof(terminal)); /* it may have none */
        add_user(w, name, terminal);
        any = true;
    }
    return any;
}

/** Is process @pid the leader of a session on a terminal, and does somebody work there, other than
 * who waits for a login? Then its user and terminal. */
static bool find_leader(const char *pid, struct user *u, char *terminal, size_t room)
{
    char path[64], text[SMALL];
    int session, tty;
    struct stat st;

    (void)snprintf(path, sizeof(path), "/proc/%.20s/stat", pid);
    if (!file_read(path, text, sizeof(text)) || stat(path, &st))
        return false;
    const char *rest = strrchr(text, ')'); /* the program's name may have anything in it */
    if (!rest || sscanf(rest, ") %*c %*d %*d %d %d", &session, &tty) != 2 || session != atoi(pid) ||
        !tty || strstr(text, "getty)") || strstr(text, "(login)"))
        return false;
    (void)snprintf(path, sizeof(path), "/proc/%.20s/fd/0", pid);
    ssize_t n = readlink(path, terminal, room - 1);
    terminal[MAX(n, (ssize_t)0)] = '\0';
    if (n > 5 && !strncmp(terminal, "/dev/", 5))
        memmove(terminal, terminal + 5, (size_t)n - 4);
    char number[16];
    (void)snprintf(number, sizeof(number), "%u", st.st_uid);
    return !user_find(u, number, NULL);
}

/** Where logind knows of none: who has a session on a terminal. */
static void add_users_of_terminals(struct wire *w)
{
    DIR *dir = opendir("/proc");
    const struct dirent *e;

    while (dir && (e = readdir(dir))) {
        struct user u;
        char terminal[128];

        if (isdigit((unsigned char)e->d_name[0]) &&
            find_leader(e->d_name, &u, terminal, sizeof(terminal)))
            add_user(w, u.name, terminal);
    }
    if (dir)
        (void)closedir(dir); /* it was read only */
}

static void add_users(struct wire *w)
{
    DIR *dir = opendir(SESSIONS);

    if (!dir || !add_users_of_logind(w, dir))
        add_users_of_terminals(w);
    if (dir)
        (void)closedir(dir); /* it was read only */
}

int info_serve(struct session *s, const struct wire_frame *f, struct error *err)
{
    struct utsname u;
    struct timespec up = {0};
    struct wire *w = &s->wire;

    if (uname(&u))
        return error_set(err, errno, "cannot ask the kernel: %s", strerror(errno));
    (void)clock_gettime(CLOCK_BOOTTIME, &up);
    wire_begin(w, WIRE_REPLY);
    wire_field(w, "version", POSADA_VERSION);
    wire_field_int(w, "protocol", WIRE_VERSION);
    wire_field(w, "hostname", u.nodename);
    wire_field(w, "kernel", u.release);
    wire_field(w, "machine", u.machine);
    wire_field_int(w, "uptime_ms", up.tv_sec * 1000 + up.tv_nsec / 1000000);
    add_file(w, "machine_id", "/etc/machine-id");
    add_file(w, "boot_id", "/proc/sys/kernel/random/boot_id");
    add_os(w);
    add_addresses(w);
    add_users(w);
    return wire_end(w);
}
