/* GDB remote serial protocol server over the vCPU contract: one client at a time, every vCPU a
 * thread (ID = index + 1), all-stop. Spec: "Debugging with GDB", appendix E. */
#ifndef GDB_GDB_H
#define GDB_GDB_H

#include "base/error.h"
#include "base/loop.h"
#include "vcpu/vcpu.h"

struct gdb_server;

/** Whose registers the vCPUs have. */
enum gdb_arch { GDB_RISCV64, GDB_X86_64 };

/** What the server needs of the machine. Called on the server's loop thread. */
struct gdb_target {
    enum gdb_arch arch;
    struct mem *mem;
    struct vcpu **vcpus; /* borrowed */
    unsigned vcpu_count;
    void (*stop)(void *arg);                  /* returns when every vCPU stands still; idempotent */
    void (*resume)(void *arg, uint64_t mask); /* let the vCPUs in @mask run; the others stay */
    void (*kill)(void *arg);                  /* end the machine */
    void (*reset)(void *arg);                 /* `monitor reset` */
    void *arg;
};

/** Listen at @address ("PORT" on 127.0.0.1, "ADDR:PORT", or a unix socket's path, which contains
 * '/'). The machine should start with its vCPUs stopped if a debugger is to see the first
 * instruction. *@ret is the caller's. Errors: -EADDRINUSE and others name the address. */
must_check int gdb_new(struct loop *loop, const char *address, const struct gdb_target *target,
                       struct gdb_server **ret, struct error *err);

/** vCPU @index returned VCPU_EXIT_DEBUG and stands still. Any thread. */
void gdb_stopped(struct gdb_server *g, unsigned index, const struct vcpu_exit *exit);

/** The machine has ended with @status: tell the client. On the loop's thread, or when it has
 * stopped. */
void gdb_exited(struct gdb_server *g, int status);

/** Is a client attached? Any thread (may lag). */
bool gdb_is_attached(const struct gdb_server *g);

/** On the loop's thread, or when it has stopped. NULL is allowed. */
void gdb_free(struct gdb_server *g);

#endif
