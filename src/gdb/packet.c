/* Framing of the remote protocol: $payload#checksum, with '}' escapes. The client is hostile: every
 * length is bounded. */
#include "gdb/gdb_internal.h"

#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static const char hex_digits[] = "0123456789abcdef";

void gdb_put(struct gdb_buffer *b, const char *fmt, ...)
{
    size_t room = sizeof(b->data) - b->size;
    va_list ap;

    va_start(ap, fmt);
    int n = vsnprintf(b->data + b->size, room, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= room)
        b->overflow = true;
    else
        b->size += (size_t)n;
}

void gdb_put_hex(struct gdb_buffer *b, const void *data, size_t size)
{
    const uint8_t *p = data;

    if (size > (sizeof(b->data) - b->size) / 2) {
        b->overflow = true;
        return;
    }
    for (size_t i = 0; i < size; i++) {
        b->data[b->size++] = hex_digits[p[i] >> 4];
        b->data[b->size++] = hex_digits[p[i] & 15];
    }
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool gdb_number(const char **p, uint64_t *ret)
{
    uint64_t v = 0;
    unsigned digits = 0;

    for (; hex_value(**p) >= 0; (*p)++) {
        if (v >> 60)
            return false;
        v = v << 4 | (uint64_t)hex_value(**p);
        digits++;
    }
    if (!digits)
        return false;
    *ret = v;
    return true;
}

size_t gdb_unhex(const char *text, void *ret, size_t max)
{
    uint8_t *p = ret;
    size_t n = 0;

    while (n < max && hex_value(text[0]) >= 0 && hex_value(text[1]) >= 0) {
        p[n++] = (uint8_t)(hex_value(text[0]) << 4 | hex_value(text[1]));
        text += 2;
    }
    return n;
}

static void drop(struct gdb_server *g, size_t n)
{
    memmove(g->in, g->in + n, g->in_size - n);
    g->in_size -= n;
}

int gdb_take_packet(struct gdb_server *g, char *ret, size_t *ret_size)
{
    /* Acknowledgements and noise before a packet. */
    while (g->in_size && g->in[0] != '$') {
        bool interrupt = g->in[0] == 3;

        drop(g, 1);
        if (interrupt)
            return 2;
    }
    char *end = memchr(g->in, '#', g->in_size);
    if (!end || (size_t)(end - g->in) + 3 > g->in_size) {
        if (g->in_size == sizeof(g->in)) { /* longer than we ever promised to take */
            g->in_size = 0;
            return -EBADMSG;
        }
        return 0;
    }
    uint8_t sum = 0;
    size_t n = 0;
    for (char *p = g->in + 1; p < end; p++)
        sum = (uint8_t)(sum + (uint8_t)*p);
    for (char *p = g->in + 1; p < end && n < GDB_PACKET_MAX; p++) {
        if (*p == '}' && p + 1 < end)
            ret[n++] = (char)(*++p ^ 0x20);
        else
            ret[n++] = *p;
    }
    ret[n] = '\0';
    *ret_size = n;
    uint8_t want = 0;
    bool good = gdb_unhex(end + 1, &want, 1) == 1 && want == sum;
    drop(g, (size_t)(end - g->in) + 3);
    return good ? 1 : -EBADMSG;
}

/* Debugger traffic is small: a client that does not read for a second is dropped. */
static bool write_all(int fd, const char *data, size_t size)
{
    while (size) {
        ssize_t n = send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n > 0) {
            data += n;
            size -= (size_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            struct pollfd p = {.fd = fd, .events = POLLOUT};

            if (poll(&p, 1, 1000) <= 0)
                return false;
        } else if (n < 0 && errno != EINTR) {
            return false;
        }
    }
    return true;
}

void gdb_send(struct gdb_server *g)
{
    char frame[2 * GDB_PACKET_MAX + 8];
    uint8_t sum = 0;
    size_t n = 0;

    if (g->client.fd < 0)
        return;
    if (g->out.overflow) {
        g->out.size = 0;
        g->out.overflow = false;
        gdb_put(&g->out, "E0e");
    }
    frame[n++] = '$';
    for (size_t i = 0; i < g->out.size; i++) {
        char c = g->out.data[i];

        if (c == '$' || c == '#' || c == '}' || c == '*') {
            frame[n++] = '}';
            sum = (uint8_t)(sum + '}');
            c ^= 0x20;
        }
        frame[n++] = c;
        sum = (uint8_t)(sum + (uint8_t)c);
    }
    frame[n++] = '#';
    frame[n++] = hex_digits[sum >> 4];
    frame[n++] = hex_digits[sum & 15];
    if (!write_all(g->client.fd, frame, n))
        gdb_detach(g);
}
