/* The host's end of the serial console: descriptors on one side, UART and SBI on the other. (A
 * virtio console has its own.) */
#ifndef VM_CONSOLE_H
#define VM_CONSOLE_H

#include "base/error.h"
#include "base/loop.h"
#include "device/serial/uart.h"

struct vm_console;

/** Bytes from @in_fd go to the guest, those of the guest to @out_fd; -1 = none; both are borrowed.
 * *@ret is the caller's, freed when no vCPU and no loop runs. */
must_check int vm_console_new(struct loop *loop, int in_fd, int out_fd, struct vm_console **ret,
                              struct error *err);
void vm_console_free(struct vm_console *c);

/** For the UART. */
struct uart_backend vm_console_backend(struct vm_console *c);
/** Connect @uart's output and, with @input, its input (else only vm_console_read() gets that), and
 * start reading. */
void vm_console_attach(struct vm_console *c, struct uart *uart, bool input);

/** Output from the guest by another way than the UART; like uart_backend.write. Any thread. */
size_t vm_console_write(struct vm_console *c, const void *data, size_t size);
/** Input for the guest, taken by the guest itself. Any thread. */
size_t vm_console_read(struct vm_console *c, void *data, size_t size);
/** Input for the guest from elsewhere than in_fd: bytes taken. Any thread. */
size_t vm_console_type(struct vm_console *c, const void *data, size_t size);

/** Wait until all output is written or until CLOCK_MONOTONIC @deadline_ns. Not on the loop. */
void vm_console_drain(struct vm_console *c, int64_t deadline_ns);

#endif
