/* User-mode network: keeping a guest from the host's own addresses.
 *
 * libslirp's own switch (disable_host_loopback) covers its gateway alias only. A guest can as well
 * address 127.0.0.1, or the host's address on its LAN, and the connection would be made from this
 * process, so on the host.
 *
 * Threads: the loop's. The addresses are asked for again every second, since they change.
 */
#include "base/bits.h"
#include "base/clock.h"
#include "net/user_internal.h"

#include <ifaddrs.h>
#include <netinet/in.h>
#include <string.h>

#define ETHER_BYTES 14u
#define ETHER_IPV4  0x0800
#define ETHER_IPV6  0x86dd

#define REFRESH_NS 1000000000LL

static void refresh(struct user_hosts *hosts)
{
    struct ifaddrs *list = NULL;

    hosts->count4 = hosts->count6 = 0;
    hosts->fresh_until_ns = host_now_ns() + REFRESH_NS;
    if (getifaddrs(&list))
        return; /* loopback is refused all the same */
    for (const struct ifaddrs *i = list; i; i = i->ifa_next) {
        if (!i->ifa_addr)
            continue;
        if (i->ifa_addr->sa_family == AF_INET && hosts->count4 < ARRAY_SIZE(hosts->v4))
            memcpy(&hosts->v4[hosts->count4++],
                   &((const struct sockaddr_in *)(const void *)i->ifa_addr)->sin_addr, 4);
        else if (i->ifa_addr->sa_family == AF_INET6 && hosts->count6 < ARRAY_SIZE(hosts->v6))
            memcpy(&hosts->v6[hosts->count6++],
                   &((const struct sockaddr_in6 *)(const void *)i->ifa_addr)->sin6_addr, 16);
    }
    freeifaddrs(list);
}

static bool is_host4(const struct user_hosts *hosts, const uint8_t *addr)
{
    if (addr[0] == 127 || addr[0] == 0)
        return true;
    if (load_be32(addr) >> 8 == 0x0a0002) /* the virtual network: slirp's to judge */
        return false;
    for (size_t i = 0; i < hosts->count4; i++) {
        if (!memcmp(&hosts->v4[i], addr, 4))
            return true;
    }
    return false;
}

static bool is_host6(const struct user_hosts *hosts, const uint8_t *addr)
{
    static const uint8_t zeroes[16];
    static const uint8_t ours[8] = {0xfe, 0xc0};

    if (!memcmp(addr, zeroes, 15) && addr[15] <= 1)
        return true;
    if (!memcmp(addr, zeroes, 10) && addr[10] == 0xff && addr[11] == 0xff) /* IPv4 in disguise */
        return true;
    if (!memcmp(addr, ours, sizeof(ours)))
        return false;
    for (size_t i = 0; i < hosts->count6; i++) {
        if (!memcmp(&hosts->v6[i], addr, 16))
            return true;
    }
    return false;
}

bool user_filter_allows(struct user_hosts *hosts, const uint8_t *frame, size_t size)
{
    if (size < ETHER_BYTES)
        return false;
    if (host_now_ns() >= hosts->fresh_until_ns)
        refresh(hosts);
    switch (load_be16(frame + 12)) {
    case ETHER_IPV4:
        return size >= ETHER_BYTES + 20 && !is_host4(hosts, frame + ETHER_BYTES + 16);
    case ETHER_IPV6:
        return size >= ETHER_BYTES + 40 && !is_host6(hosts, frame + ETHER_BYTES + 24);
    default:
        return true; /* ARP and the like reach nobody */
    }
}
