/* The guest's address, read from what passes: its own ARP packets, and leases that are
 * acknowledged.
 *
 * Frames are the guest's and libslirp's: lengths are checked, nothing is believed but who it says
 * it is, which only people read. No state; any thread. Spec: RFC 826; RFC 2131 section 2 and RFC
 * 2132 section 9.6. */
#include "base/bits.h"
#include "net/user_internal.h"

#include <string.h>

enum {
    ETHER_BYTES = 14,
    ARP_BYTES = 28,
    UDP_BYTES = 8,
    BOOTP_BYTES = 240, /* with the cookie before the options */
    DHCP_TYPE = 53,
    DHCP_ACK = 5,
};

/** The address of a network of ours, or one that a guest gave itself; not 0.0.0.0, 127/8, or a
 * group. */
static uint32_t usable(uint32_t addr)
{
    uint32_t top = addr >> 24;

    return top && top != 127 && top < 224 ? addr : 0;
}

uint32_t user_sees_sender(const uint8_t *frame, size_t size)
{
    static const uint8_t ether_ip[6] = {0, 1, 8, 0, 6, 4};

    if (size < ETHER_BYTES + ARP_BYTES || load_be16(frame + 12) != 0x0806 ||
        memcmp(frame + ETHER_BYTES, ether_ip, sizeof(ether_ip)) != 0)
        return 0;
    return usable(load_be32(frame + ETHER_BYTES + 14)); /* 0 in a probe, RFC 5227 */
}

static bool is_ack(const uint8_t *options, size_t size)
{
    for (size_t i = 0; i < size && options[i] != 255;) {
        if (!options[i]) { /* padding */
            i++;
            continue;
        }
        if (size - i < 2 || size - i - 2 < options[i + 1])
            return false;
        if (options[i] == DHCP_TYPE)
            return options[i + 1] == 1 && options[i + 2] == DHCP_ACK;
        i += 2u + options[i + 1];
    }
    return false;
}

uint32_t user_sees_lease(const uint8_t *frame, size_t size)
{
    const uint8_t *ip = frame + ETHER_BYTES;

    if (size < ETHER_BYTES + 20 + UDP_BYTES + BOOTP_BYTES || load_be16(frame + 12) != 0x0800 ||
        ip[0] != 0x45 || ip[9] != 17)
        return 0;
    const uint8_t *udp = ip + 20;
    const uint8_t *bootp = udp + UDP_BYTES;
    if (load_be16(udp) != 67 || load_be16(udp + 2) != 68 ||
        !is_ack(bootp + BOOTP_BYTES, size - (size_t)(bootp + BOOTP_BYTES - frame)))
        return 0;
    return usable(load_be32(bootp + 16));
}
