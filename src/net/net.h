/* Packet backends: what a network card is plugged into. */
#ifndef NET_NET_H
#define NET_NET_H

#include "base/error.h"
#include "base/macros.h"

#include <sys/uio.h>

struct net_backend;

/** The card's side. Called on the backend's loop thread. */
struct net_client {
    /** A frame for the guest. False: no room now; the backend drops it or keeps it until
     * net_can_receive(). */
    bool (*receive)(void *card, const void *frame, size_t size);
    /** A burst of frames ends here: the guest may be interrupted for it, once. */
    void (*flush)(void *card);
    void *card;
};

struct net_ops {
    const char *name;
    /** A frame from the guest (Ethernet header first, no FCS). Any thread; never blocks; drops when
     * it cannot send. */
    void (*send)(struct net_backend *b, const struct iovec *iov, int iovcnt);
    /** The card has buffers again. Any thread. */
    void (*can_receive)(struct net_backend *b);
    void (*set_client)(struct net_backend *b, const struct net_client *client);
    /** The IPv4 address that the guest has, as it was leased to it or as it says itself; the later
     * one counts. False: neither has been seen. Any thread. NULL: never known. */
    bool (*get_address)(struct net_backend *b, char ret[16]);
    /** No frame is delivered after it. Any thread, no lock held that a client's receive takes. */
    void (*free)(struct net_backend *b);
};

struct net_backend {
    const struct net_ops *ops; /* [init] */
    uint16_t best_mtu; /* [init] bytes of IP the backend carries at the lowest cost per byte */
};

struct net_forward {
    bool udp;
    char host_addr[46]; /* "" = 127.0.0.1 */
    uint16_t host_port;
    uint16_t guest_port;
};

struct loop;

struct net_user_config {
    const char *hostname;               /* given to the guest by DHCP; NULL = none */
    const struct net_forward *forwards; /* borrowed during the call */
    size_t forward_count;
    bool restrict_host; /* guest may not reach the host's own addresses */
};

/** User-mode NAT: IPv4 10.0.2.0/24 (gateway and DNS .2 and .3, guest .15) and IPv6 fec0::/64, by
 * libslirp on @loop's thread (which need not run yet). On success *@ret is the caller's, freed by
 * ops->free while the loop exists. Errors: -EADDRINUSE names the port. */
must_check int net_user_new(struct loop *loop, const struct net_user_config *config,
                            struct net_backend **ret, struct error *err);

#endif
