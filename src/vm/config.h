/* What a machine is to be: filled by the command line (later by an instance's file), read by vm.
 * Plain data. */
#ifndef VM_CONFIG_H
#define VM_CONFIG_H

#include "disk/disk.h"
#include "disk/throttle.h"
#include "net/net.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** What a machine is: the architecture of its processors, and with it its board. */
enum vm_machine { VM_RISCV64, VM_AMD64 };

/** What executes it: riscv64 machines by one of the first three, amd64 ones by KVM. */
enum vm_engine { VM_ENGINE_JIT, VM_ENGINE_INTERP, VM_ENGINE_CHECK, VM_ENGINE_KVM };

/** VM_CPU_MAX: all there is, for amd64 the host's; then profiles of riscv64, levels of amd64. */
enum vm_cpu {
    VM_CPU_MAX,
    VM_CPU_RVA23,
    VM_CPU_RVA22,
    VM_CPU_X86_64_V2,
    VM_CPU_X86_64_V3,
    VM_CPU_X86_64_V4,
};

/** How the guest sees a disk. */
enum vm_bus { VM_BUS_VIRTIO, VM_BUS_AHCI };

struct vm_disk_config {
    const char *path;
    enum vm_bus bus;
    bool is_cdrom;      /* a drive with removable media, on AHCI */
    const char *format; /* NULL: see disk_open() */
    bool readonly;
    bool snapshot;
    bool direct; /* past the host's page cache */
    enum disk_refs refs;
    const char *key_file; /* NULL: see disk_open() */
    struct disk_limits limits;
};

struct vm_share_config {
    const char *host_path;
    const char *tag; /* virtio-fs tag: "share0"... */
    const char *guest_path;
    bool readonly;
};

/** A named port of the console device; the monitor's end is a descriptor pair. */
struct vm_port_config {
    const char *name; /* "posada.cmd" */
    int in_fd;        /* host → guest, read by the monitor; -1 = none; borrowed */
    int out_fd;       /* guest → host; -1 = none; borrowed */
};

#define VM_MAX_CPUS   16
#define VM_MAX_DISKS  8
#define VM_MAX_SHARES 8
#define VM_MAX_PORTS  8
#define VM_MAX_OEM    64

struct vm;

/** All strings are borrowed and must live as long as the vm. */
struct vm_config {
    const char *name;
    uint8_t uuid[16];            /* amd64: told by SMBIOS, as are the name and these strings */
    const char *oem[VM_MAX_OEM]; /* for whoever looks for them in the guest */
    size_t oem_count;
    unsigned cpus;         /* 1..VM_MAX_CPUS */
    uint64_t memory_bytes; /* multiple of 1 MiB, at least 16 MiB */
    enum vm_machine machine;
    enum vm_engine engine;
    enum vm_cpu cpu;    /* the extensions that the guest's processors have */
    unsigned vlen;      /* bits of their vector registers; 0 = default */
    const char *kernel; /* Image (also gzip, or inside an EFI zboot), ELF; amd64: bzImage, ELF with
                           a PVH entry or for multiboot; NULL: boot by firmware */
    const char *initrd;
    const char *append;
    const char *firmware; /* NULL: built-in SBI; amd64: none, the kernel is started directly */
    const char
        *firmware_payload; /* S-mode program for the firmware (U-Boot), NULL: the kernel or none */
    bool boot_cdrom;       /* amd64 firmware: look at CD-ROMs before disks */
    const char *flash;     /* second flash bank's file, NULL: none */
    struct vm_disk_config disks[VM_MAX_DISKS];
    size_t disk_count;
    bool net;
    uint8_t mac[6]; /* all zero: derived from the name */
    const struct net_forward *forwards;
    size_t forward_count;
    struct vm_share_config shares[VM_MAX_SHARES];
    size_t share_count;
    struct vm_port_config ports[VM_MAX_PORTS];
    size_t port_count;
    int console_in; /* guest console input, -1 = none; borrowed */
    int console_out;
    bool console_uart;  /* the console is the UART (firmware speaks there) and not virtio-console
                           (hvc0) */
    bool no_reboot;     /* a guest that resets its machine stops it: VM_STOP_PANIC */
    bool warm_is_panic; /* riscv64: so does one that asks the SBI for a warm reset, as a Linux that
                           was told reboot=panic_warm does when it panics and never else */
    bool no_balloon;
    bool no_rng;
    uint32_t vsock_cid;    /* 0 = no vsock device */
    const char *vsock_dir; /* unix sockets <dir>/<port> for host-initiated and guest-initiated
                              connections */
    const char *gdb;       /* "PORT" or "ADDR:PORT" or unix path; NULL = none */
    bool gdb_wait;         /* do not start the vCPUs until a debugger continues */
    const char *dump;      /* --dump=guest,ir,opt,regs,host; NULL = none */
    int dump_fd;
    bool stats;             /* measure where time goes, for vm_counters() */
    uint64_t cache_bytes;   /* translation cache bound, 0 = default */
    bool perf_map, gdb_jit; /* name generated code for perf, for gdb */
    const char *dump_elf;   /* write generated code to this ELF file in the end; NULL = no */
    /** The host has no room for what the guest writes to disk @index: the machine has been paused,
     * and vm_resume() tries again. Any thread. NULL: the guest gets an error. */
    void (*disk_full)(void *arg, size_t index, int code);
    void *disk_full_arg;
    bool no_boot;         /* load nothing: a saved state comes before the start */
    struct vm *adopt;     /* in a child of vm_fork(): its RAM, and what was translated, become this
                             machine's; with no_boot; NULL = none */
    const char *dump_dtb; /* write the device tree blob there and stop; NULL = no */
};

#endif
