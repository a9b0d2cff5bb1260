/* 16550A UART. */
#ifndef DEVICE_SERIAL_UART_H
#define DEVICE_SERIAL_UART_H

#include "base/loop.h"
#include "device/irq.h"
#include "mem/mem.h"

#define UART_SIZE     0x100ULL
#define UART_CLOCK_HZ 3686400u

struct state_in;
struct state_out;
struct uart;

/** The far end of the line. */
struct uart_backend {
    /** Bytes from the guest: returns how many are taken and never blocks. When not all are, call
     * uart_can_write() once there is room. Called with the UART's lock held, on any thread. NULL
     * discards. */
    size_t (*write)(void *arg, const void *data, size_t size);
    /** uart_receive() did not take everything and now would. Called with the UART's lock held: post
     * it to a loop. May be NULL. */
    void (*can_receive)(void *arg);
    void *arg;
};

struct uart_config {
    struct irq_line irq;
    uint64_t size;     /* of its window; 0 = UART_SIZE */
    struct loop *loop; /* runs the receive timeout; borrowed */
    struct uart_backend backend;
};

/** Add a UART at @base of @mem. *@ret is the caller's, freed after @mem. */
must_check int uart_new(struct mem *mem, gpa_t base, const struct uart_config *config,
                        struct uart **ret, struct error *err);
void uart_free(struct uart *u);
void uart_reset(struct uart *u);

/** Bytes for the guest: returns how many there was room for. Any thread. */
size_t uart_receive(struct uart *u, const void *data, size_t size);

/** The backend has room again. Any thread but inside backend calls. */
void uart_can_write(struct uart *u);

/** State for a snapshot: vCPUs and loops stand still. A failed load leaves the device in any state:
 * reset or free it. */
void uart_save(struct uart *u, struct state_out *out);
must_check int uart_load(struct uart *u, const struct state_in *in, struct error *err);

#endif
