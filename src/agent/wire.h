/* Messages between the host and the agent in a guest, as both ends write and read them; compiled
 * into both. Protocol: docs/agent.md.
 *
 * A message is a header of 8 bytes (size of the body, 32 bits; kind, 8 bits; three zero bytes; all
 * little endian) and a body. A body is raw bytes, or fields: "key=value" and a NUL each. Neither
 * end believes the other: sizes are bounded, and what breaks a rule is -EPROTO.
 *
 * A struct wire belongs to one thread. Deadlines are CLOCK_MONOTONIC in ns, INT64_MAX for none. */
#ifndef AGENT_WIRE_H
#define AGENT_WIRE_H

#include "base/macros.h"

#include <stdint.h>
#include <sys/types.h>

enum {
    WIRE_PORT = 1024,           /* of the agent, in the guest's AF_VSOCK */
    WIRE_VERSION = 1,           /* of the protocol */
    WIRE_HEADER_BYTES = 8,      /* */
    WIRE_BODY_MAX = 1 << 20,    /* bytes of a body */
    WIRE_CHUNK = 64 << 10,      /* bytes of data that a message carries, by custom */
    WIRE_IN_WINDOW = 256 << 10, /* bytes of standard input that may be ahead of their reader */
};

enum wire_kind {
    WIRE_REQUEST = 1, /* to the guest: fields, the first of them verb */
    WIRE_REPLY = 2,   /* to the host: fields */
    WIRE_ERROR = 3,   /* fields: errno, text. Of whoever cannot go on */
    WIRE_IN = 4,      /* to the guest: bytes of standard input; none = its end */
    WIRE_OUT = 5,     /* to the host: bytes of standard output */
    WIRE_ERR = 6,     /* to the host: bytes of standard error */
    WIRE_CREDIT = 7,  /* to the host: fields: bytes of standard input that were consumed */
    WIRE_SIGNAL = 8,  /* to the guest: fields: signal */
    WIRE_RESIZE = 9,  /* to the guest: fields: columns, rows */
    WIRE_EXIT = 10,   /* to the host: fields: status or signal */
    WIRE_ENTRY = 11,  /* of a tree: fields, see tree.h */
    WIRE_DATA = 12,   /* bytes of the file that was begun */
    WIRE_HOLE = 13,   /* fields: bytes of it that are zero and not stored */
    WIRE_END = 14,    /* of the file or folder that was begun */
};

struct wire_frame {
    enum wire_kind kind;
    const uint8_t *body; /* borrowed until the wire is read from again */
    size_t size;
};

struct wire {
    int fd; /* a stream socket that does not block; owned */
    uint8_t *in;
    size_t in_room, in_at, in_size;
    uint8_t *out;
    size_t out_room, out_at, out_size;
    size_t begun;   /* where in out the message that is being made begins */
    int out_failed; /* -errno of making it */
};

/** Take socket @fd over. The caller ends with wire_done(). */
void wire_init(struct wire *w, int fd);
void wire_done(struct wire *w);

/** Sending: messages are gathered until they are flushed. Between wire_begin() and wire_end()
 * come fields or room for bytes; a failure on the way is wire_end()'s: -ENOMEM, or -E2BIG for a
 * body of more than WIRE_BODY_MAX (the message is dropped). */
void wire_begin(struct wire *w, enum wire_kind kind);
void wire_field(struct wire *w, const char *key, const char *value);
void wire_field_int(struct wire *w, const char *key, int64_t value);
/** Room for @size bytes, of which wire_grew() says how many came; NULL = no memory. */
void *wire_room(struct wire *w, size_t size);
void wire_grew(struct wire *w, size_t size);
must_check int wire_end(struct wire *w);

/** A whole message of bytes. */
must_check int wire_add(struct wire *w, enum wire_kind kind, const void *data, size_t size);
/** A whole message of one number field. */
must_check int wire_add_int(struct wire *w, enum wire_kind kind, const char *key, int64_t value);

/** Bytes that wait to be sent. */
size_t wire_pending(const struct wire *w);
/** Send what the socket takes now: 0, or -errno when the other end is gone. */
must_check int wire_flush(struct wire *w);
/** Send all. -ETIMEDOUT. */
must_check int wire_flush_all(struct wire *w, int64_t deadline_ns);

/** Read what is there: bytes, 0 for nothing now, -ECONNRESET when the other end has closed. */
must_check ssize_t wire_fill(struct wire *w);
/** The next whole message that was read: 1; 0 when there is none yet; -EPROTO; -ENOMEM. */
must_check int wire_next(struct wire *w, struct wire_frame *ret);
/** Wait for the next message: 0; -ETIMEDOUT; -ECONNRESET, -EPROTO... */
must_check int wire_recv(struct wire *w, int64_t deadline_ns, struct wire_frame *ret);
/** Is there something to read, or the end? Does not wait. */
bool wire_is_readable(const struct wire *w);
/** Wait until the socket is ready for @events of poll(). -ETIMEDOUT. */
must_check int wire_wait(const struct wire *w, short events, int64_t deadline_ns);

/** Are the fields of @f well formed: NUL-terminated, each with a key? Others below ask for that
 * to have been looked at. */
bool wire_has_fields(const struct wire_frame *f);
/** The value of the first field @key, or NULL. */
const char *wire_find(const struct wire_frame *f, const char *key);
/** Each value of fields @key in turn: *@at is NULL at first; NULL after the last. */
const char *wire_each(const struct wire_frame *f, const char *key, const char **at);
/** The number of field @key, which must be within @min..@max; @def when it is not there.
 * -EPROTO. */
must_check int wire_find_int(const struct wire_frame *f, const char *key, int64_t min, int64_t max,
                             int64_t def, int64_t *ret);

#endif
