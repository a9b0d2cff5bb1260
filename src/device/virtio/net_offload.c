/* Checksums a driver leaves to its network card. Spec: VIRTIO 1.2 §5.1.6.2, RFC 1071.
 *
 * The guest is emulated: a checksum made here costs a small part of one made there. Packets to be
 * segmented are not: libslirp takes TCP segments of any length an IP packet can have.
 *
 * Threads: no state.
 */
#include "device/virtio/net_offload.h"
#include "base/bits.h"

#define ETHER_BYTES 14u

typedef uint64_t lanes __attribute__((vector_size(32)));

void net_header_load(struct net_header *h, const uint8_t *raw)
{
    *h = (struct net_header){
        .flags = raw[0],
        .gso_type = raw[1],
        .header_len = load_le16(raw + 2),
        .gso_size = load_le16(raw + 4),
        .csum_start = load_le16(raw + 6),
        .csum_offset = load_le16(raw + 8),
        .num_buffers = load_le16(raw + 10),
    };
}

void net_header_store(const struct net_header *h, uint8_t *raw)
{
    raw[0] = h->flags;
    raw[1] = h->gso_type;
    store_le16(raw + 2, h->header_len);
    store_le16(raw + 4, h->gso_size);
    store_le16(raw + 6, h->csum_start);
    store_le16(raw + 8, h->csum_offset);
    store_le16(raw + 10, h->num_buffers);
}

static uint16_t fold(uint64_t sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

uint16_t net_sum(const void *data, size_t size, uint16_t sum)
{
    const uint8_t *p = data;
    lanes even = {0};
    lanes odd = {0};
    uint64_t total = 0;

    /* A one's complement sum does not care how the 16-bit words are grouped, nor for their byte
     * order until the end. 32-bit halves summed in 64 bits cannot overflow within any packet. */
    for (; size >= sizeof(lanes); size -= sizeof(lanes), p += sizeof(lanes)) {
        lanes v;

        memcpy(&v, p, sizeof(v));
        even += v & 0xffffffff;
        odd += v >> 32;
    }
    for (unsigned i = 0; i < 4; i++)
        total += even[i] + odd[i];
    for (; size >= 2; size -= 2, p += 2) {
        uint16_t v;

        memcpy(&v, p, sizeof(v));
        total += v;
    }
    if (size)
        total += htole16(*p);
    return fold((uint64_t)be16toh(fold(total)) + sum);
}

/** Where TCP begins and the sum of its pseudo-header; 0 if this is not what the GSO type says. */
static size_t find_tcp(const struct net_header *h, const uint8_t *frame, size_t size,
                       uint16_t *ret_sum)
{
    const uint8_t *ip = frame + ETHER_BYTES;
    uint8_t pseudo[4] = {0, 6};
    size_t start;

    if ((h->gso_type & ~NET_GSO_ECN) == NET_GSO_TCPV4) {
        if (size < ETHER_BYTES + 20 || load_be16(frame + 12) != 0x0800 || ip[9] != 6)
            return 0;
        start = ETHER_BYTES + 4u * (ip[0] & 15u);
    } else {
        if (size < ETHER_BYTES + 40 || load_be16(frame + 12) != 0x86dd || ip[6] != 6)
            return 0;
        start = ETHER_BYTES + 40;
    }
    if (start < ETHER_BYTES + 20 || size < start + 20)
        return 0;
    store_be16(pseudo + 2, (uint16_t)(size - start));
    uint16_t sum = net_sum(pseudo, sizeof(pseudo), 0);
    *ret_sum = start == ETHER_BYTES + 40 && load_be16(frame + 12) == 0x86dd
                   ? net_sum(ip + 8, 32, sum)
                   : net_sum(ip + 12, 8, sum);
    return start;
}

bool net_offload(const struct net_header *h, uint8_t *frame, size_t size)
{
    size_t start = h->csum_start;
    size_t at = start + h->csum_offset;
    uint16_t sum = 0;

    if (h->gso_type != NET_GSO_NONE) {
        /* Drivers differ in what length they leave in the pseudo-header's sum: make our own. */
        start = find_tcp(h, frame, size, &sum);
        at = start + 16;
        if (!start)
            return false;
        store_be16(frame + at, sum);
    } else if (!(h->flags & NET_NEEDS_CSUM)) {
        return true;
    } else if (start < ETHER_BYTES || at + 2 > size) {
        return false;
    }
    sum = (uint16_t)~net_sum(frame + start, size - start, 0);
    store_be16(frame + at, sum ? sum : 0xffff); /* 0 would mean "none" for UDP; TCP takes both */
    return true;
}
