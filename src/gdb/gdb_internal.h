/* The server's parts: packet.c frames, server.c connects, command.c answers, breakpoint.c keeps
 * stops. */
#ifndef GDB_GDB_INTERNAL_H
#define GDB_GDB_INTERNAL_H

#include "base/thread.h"
#include "gdb/gdb.h"

#define GDB_PACKET_MAX 16384
#define GDB_MAX_POINTS 256

struct gdb_buffer { /* an outgoing packet's payload */
    char data[GDB_PACKET_MAX];
    size_t size;
    bool overflow;
};

struct gdb_server {
    struct loop *loop;
    struct gdb_target target;
    char *unix_path; /* to unlink */
    struct loop_fd listener;
    struct loop_fd client; /* fd -1 = none */
    bool attached;         /* [atomic] relaxed: a hint for others */
    bool no_ack;
    bool running;       /* a continue or step awaits its stop reply */
    unsigned general;   /* vCPU that g, m, p mean */
    unsigned last_stop; /* vCPU of the last stop */
    struct vcpu_exit last_exit;
    bool interrupted; /* the last stop was the client's Ctrl-C */

    char in[GDB_PACKET_MAX + 8];
    size_t in_size;
    struct gdb_buffer out;

    gva_t breakpoints[GDB_MAX_POINTS];
    size_t breakpoint_count;
    struct vcpu_watchpoint watchpoints[GDB_MAX_POINTS];
    size_t watchpoint_count;

    struct mutex lock;
    bool stop_pending;          /* [lock] */
    unsigned stop_index;        /* [lock] */
    struct vcpu_exit stop_exit; /* [lock] */
};

/* packet.c */
void gdb_put(struct gdb_buffer *b, const char *fmt, ...) printf_like(2, 3);
void gdb_put_hex(struct gdb_buffer *b, const void *data, size_t size);
/** Hex number at *@p, moved behind it. False: no digit, or more than 64 bits. */
bool gdb_number(const char **p, uint64_t *ret);
/** Bytes from hex text: how many were read, at most @max. */
size_t gdb_unhex(const char *text, void *ret, size_t max);
/** Take one packet off the front of g->in: its payload, NUL-terminated and unescaped, into @ret
 * (GDB_PACKET_MAX + 1 bytes). 1: got one (*@ret_size); 2: an interrupt character; 0: need more;
 * -EBADMSG: bad checksum or framing, dropped. */
int gdb_take_packet(struct gdb_server *g, char *ret, size_t *ret_size);
/** Send g->out as a packet. */
void gdb_send(struct gdb_server *g);

/* command.c */
void gdb_command(struct gdb_server *g, const char *packet, size_t size);
void gdb_report_stop(struct gdb_server *g);

/* point.c */
/** Z and z packets; answers into g->out. */
void gdb_point_command(struct gdb_server *g, const char *packet);
/** Give the vCPUs their breakpoints; @step is the vCPU that steps, or -1. All stand still. */
void gdb_apply_points(struct gdb_server *g, int step);

/* features.c */
/** Render target.xml for vCPU 0's registers; malloc'd, NULL on no memory. */
char *gdb_target_xml(struct gdb_server *g);

/* server.c */
void gdb_detach(struct gdb_server *g);

#endif
