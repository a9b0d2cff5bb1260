/* Shared between the parts of the user-mode network backend. */
#ifndef NET_USER_INTERNAL_H
#define NET_USER_INTERNAL_H

#include "base/loop.h"
#include "base/thread.h"
#include "net/net.h"

#include <slirp/libslirp.h>

/** Ethernet header and the largest IP packet. */
#define USER_FRAME_MAX (14u + 65535u)

/** A descriptor that slirp waits for. Kept until the backend goes, so that an event of a round in
 * which slirp closed it finds it still there. */
struct user_watch {
    struct loop_fd w;
    bool added;       /* known to the loop */
    uint32_t events;  /* what the loop watches for */
    uint32_t wanted;  /* what slirp wants as of the last fill */
    uint32_t revents; /* what was seen since the last poll */
};

struct user_fds {
    int *fds;
    size_t count, room;
};

/** A frame that waits, for the guest's buffers or for the loop's thread. */
struct user_frame {
    struct user_frame *next;
    size_t size;
    uint8_t data[];
};

struct user_queue {
    struct user_frame *first;
    struct user_frame **last;
    size_t bytes;
};

/** The host's addresses of the moment. */
struct user_hosts {
    struct in_addr v4[64];
    struct in6_addr v6[64];
    size_t count4, count6;
    int64_t fresh_until_ns;
};

/** All is [loop] unless tagged otherwise. */
struct user {
    struct net_backend base;
    struct loop *loop;  /* [init] */
    Slirp *slirp;       /* [init] */
    bool restrict_host; /* [init] */
    struct user_hosts hosts;
    struct net_client client;
    bool delivered;            /* frames since the client was last told that a burst ends */
    struct user_queue backlog; /* frames the guest had no room for */
    uint8_t *bounce;           /* USER_FRAME_MAX bytes, for frames in pieces */

    struct loop_hook hook;
    struct loop_timer timer;
    bool hooked;                 /* hook is with the loop */
    struct user_watch **watches; /* by descriptor */
    size_t watch_count;
    struct user_fds polled;   /* in the order of the last fill */
    struct user_fds previous; /* of the one before */
    int64_t timer_ns;         /* when the timer goes off, INT64_MAX = it is not set */
    bool ready;               /* a descriptor or the timer has fired since the last poll */
    bool dirty;               /* slirp has worked since the last fill */

    struct loop_fd wake; /* [init] an eventfd: look at the inbox and the backlog */
    struct mutex lock;
    struct user_queue inbox; /* [lock] frames sent on other threads */
    uint32_t guest_addr;     /* [atomic] relaxed: the guest's, host byte order; 0 = not seen yet */
};

/** End the burst of frames for the guest, if there was one. */
void user_flush(struct user *u);

/** Append a copy of a frame unless the queue would exceed @limit bytes. False: dropped. */
bool user_queue_add(struct user_queue *q, const struct iovec *iov, int iovcnt, size_t limit);
/** The first frame, or NULL; the caller frees it. */
struct user_frame *user_queue_take(struct user_queue *q);

/** Join slirp's descriptors and timers to the loop, and part them again (also when never joined).
 */
void user_poll_start(struct user *u);
void user_poll_stop(struct user *u);
/** slirp's timer and descriptor callbacks. */
void *user_timer_new(SlirpTimerCb cb, void *cb_opaque, void *opaque);
void user_timer_free(void *timer, void *opaque);
void user_timer_mod(void *timer, int64_t expire_ms, void *opaque);
void user_register_fd(int fd, void *opaque);
void user_unregister_fd(int fd, void *opaque);

/** The guest's address if this frame of the guest's (ARP) or for it (DHCPACK) tells it, else 0. */
uint32_t user_sees_sender(const uint8_t *frame, size_t size);
uint32_t user_sees_lease(const uint8_t *frame, size_t size);

/** May the guest, being kept from the host's own addresses, send this frame? Loop's thread. */
bool user_filter_allows(struct user_hosts *hosts, const uint8_t *frame, size_t size);

#endif
