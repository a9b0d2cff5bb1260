/* What a driver leaves for its network card to finish: checksums (VIRTIO 1.2 §5.1.6.2). */
#ifndef DEVICE_VIRTIO_NET_OFFLOAD_H
#define DEVICE_VIRTIO_NET_OFFLOAD_H

#include "base/macros.h"

/** struct virtio_net_hdr (§5.1.6), its fields in host order. */
struct net_header {
    uint8_t flags;
    uint8_t gso_type;
    uint16_t header_len;
    uint16_t gso_size;
    uint16_t csum_start;
    uint16_t csum_offset;
    uint16_t num_buffers;
};

#define NET_HEADER_BYTES 12u

enum {
    NET_NEEDS_CSUM = 1,
    NET_DATA_VALID = 2,
};

enum {
    NET_GSO_NONE = 0,
    NET_GSO_TCPV4 = 1,
    NET_GSO_TCPV6 = 4,
    NET_GSO_ECN = 0x80,
};

void net_header_load(struct net_header *h, const uint8_t *raw);
void net_header_store(const struct net_header *h, uint8_t *raw);

/** The Internet checksum's sum (RFC 1071) of @size bytes, folded to 16 bits but not complemented,
 * as a big-endian number; @sum is one to continue from (of an even number of bytes). */
uint16_t net_sum(const void *data, size_t size, uint16_t sum);

/** Finish the frame (Ethernet header first) as @h asks. False: the header does not fit the frame,
 * which must be dropped. A TCP packet that asks for segmentation keeps its length; only its
 * checksum is made. */
bool net_offload(const struct net_header *h, uint8_t *frame, size_t size);

#endif
