/* What is in memory when an amd64 machine starts: at creation checked, at every start and reset
 * loaded afresh from the files. With firmware that is its own reset vector and a copy of its end
 * below 1 MiB; else a kernel, entered as its file says, with the tables that firmware would make.
 *
 * Threads: one; vCPUs stand still. */
#include "boot/x86.h"
#include "vm/amd64.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define INITRD_MAX (2ULL << 30)

struct images {
    struct x86_kernel kernel;
    uint8_t *initrd;
    size_t initrd_size;
};

static int read_images(const struct vm_config *c, struct images *im, struct error *err)
{
    int rc = x86_kernel_open(c->kernel, &im->kernel, err);

    if (rc || !c->initrd)
        return rc;
    rc = boot_read_file(c->initrd, INITRD_MAX, &im->initrd, &im->initrd_size, err);
    if (!rc && !im->initrd_size)
        rc = error_set(err, EINVAL, "initrd '%s' is empty", c->initrd);
    return rc;
}

static int start_kernel(struct vm *vm, const struct images *im, struct error *err)
{
    struct x86_range ranges[X86_RANGES];
    uint8_t seed[32];
    bool has_seed = getrandom(seed, sizeof(seed), 0) == (ssize_t)sizeof(seed); /* only a help */
    struct x86_start start;
    struct x86_boot boot = {
        .cmdline = vm->config.append,
        .initrd = im->initrd,
        .initrd_size = im->initrd_size,
        .low_ram = pc_board_low_ram(vm->pc),
        .ranges = ranges,
        .range_count = pc_board_ranges(vm->pc, ranges),
        .seed = has_seed ? seed : NULL,
    };
    int rc = pc_board_put_tables(vm->pc, &boot.rsdp, err);

    if (!rc)
        rc = x86_load(&im->kernel, &boot, vm->mem, &start, err);
    if (rc) {
        error_prefix(err, "cannot boot '%s'", vm->config.kernel);
        return rc;
    }
    struct kvm_entry entry = {
        .long_mode = start.long_mode,
        .rip = start.rip,
        .rax = start.rax,
        .rbx = start.rbx,
        .rsi = start.rsi,
        .cr3 = start.cr3,
        .gdt = start.gdt,
        .gdt_limit = start.gdt_limit,
    };
    return kvm_vcpu_enter_at(vm->vcpus[0], &entry, err);
}

/** Disks in their order, then CD-ROMs, or the reverse. */
static int set_boot_order(struct vm *vm, struct error *err)
{
    const struct vm_config *c = &vm->config;
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);

    for (size_t i = 0; f && i < 2 * c->disk_count; i++) {
        const struct vm_disk *d = &vm->disks[i % c->disk_count];
        bool cdroms = c->boot_cdrom == (i < c->disk_count);

        if (c->disks[i % c->disk_count].is_cdrom != cdroms)
            continue;
        if (d->virtio)
            (void)fprintf(f, "/pci@i0cf8/scsi@%x/disk@0,0\n", d->slot);
        else
            (void)fprintf(f, "/pci@i0cf8/pci8086,2922@%x/drive@%x/disk@0\n", d->slot, d->port);
    }
    int rc = !f || fclose(f) ? error_set(err, ENOMEM, "out of memory")
                             : pc_board_set_boot_order(vm->pc, text, err);
    free(text);
    return rc;
}

int amd64_boot(struct vm *vm, struct error *err)
{
    const struct vm_config *c = &vm->config;
    struct images im = {0};

    if (!c->kernel && !c->firmware)
        return error_set(err, EINVAL, "there is nothing to boot: give a kernel or firmware");
    if (c->kernel && c->firmware)
        return error_set(err, EINVAL, "a kernel and firmware cannot be given together for amd64");
    for (unsigned i = 0; i < c->cpus; i++)
        vcpu_reset(vm->vcpus[i]);
    if (c->firmware) {
        pc_board_shadow_firmware(vm->pc);
        return set_boot_order(vm, err);
    }
    int rc = read_images(c, &im, err);
    if (!rc)
        rc = start_kernel(vm, &im, err);
    x86_kernel_done(&im.kernel);
    free(im.initrd);
    return rc;
}
