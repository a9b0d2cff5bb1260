/* A client of the NBD server: the input is all that it ever sends. The first byte says whether
 * requests go to workers. */
#include "disk/disk.h"
#include "disk/file_memory.h"
#include "disk/format.h"
#include "nbd/nbd_internal.h"

#include <string.h>

#define DISK_BYTES (256u << 10)

struct input {
    struct nbd_stream s; /* must be first */
    const uint8_t *data;
    size_t left;
};

static ssize_t input_recv(struct nbd_stream *s, void *buf, size_t size)
{
    struct input *in = (struct input *)s;
    size_t n = MIN(size, in->left);

    if (n)
        memcpy(buf, in->data, n);
    in->data += n;
    in->left -= n;
    return (ssize_t)n;
}

static int input_send(struct nbd_stream *s, const void *buf, size_t size)
{
    uint8_t sum = 0;

    for (size_t i = 0; i < size; i++) /* all of it must be ours to read */
        sum ^= ((const uint8_t *)buf)[i];
    (void)s;
    return sum == 0 && size == SIZE_MAX;
}

static bool input_has_more(struct nbd_stream *s)
{
    return ((struct input *)s)->left;
}

static void input_nothing(struct nbd_stream *s)
{
    (void)s;
}

static const struct nbd_stream_ops input_ops = {
    .recv = input_recv,
    .send = input_send,
    .has_more = input_has_more,
    .shutdown = input_nothing,
    .close = input_nothing,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct disk *d = NULL;
    struct nbd_server *server = NULL;
    struct file *file = file_memory_new(NULL, DISK_BYTES, 4 * DISK_BYTES);
    struct input in = {.s.ops = &input_ops, .data = data + 1, .left = size - 1};

    if (size && !disk_open_file(file, &raw_format, 0, NULL, &d, NULL)) {
        struct nbd_config config = {.disk = d, .name = "x", .description = "y", .max_clients = 1};

        if (!nbd_server_new(&config, &server, NULL)) {
            struct nbd_conn *c = nbd_conn_new(server, &in.s);

            if (c) {
                c->alone = data[0] % 4 ? 1000 : 0;
                nbd_conn_run(c);
                nbd_conn_free(c);
            }
        }
        nbd_server_free(server);
        disk_close(d);
    } else {
        file_close(file);
    }
    return 0;
}
