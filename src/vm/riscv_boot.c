/* What is in memory when a riscv64 machine starts: at creation checked, at every start and reset
 * loaded afresh from the files.
 *
 *     0x80000000  firmware, if any         (with the built-in SBI: free for the kernel)
 *     0x80200000  kernel or payload        (an Image says by how much it is offset)
 *        ...
 *                 initrd, up to
 *                 device tree, below the end of RAM or 3 GiB of it, 2 MiB aligned
 *
 * Specs: Linux Documentation/arch/riscv/boot.rst; OpenSBI docs/firmware/fw_dynamic.md. */
#include "base/bits.h"
#include "base/fd.h"
#include "boot/boot_image.h"
#include "vm/riscv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define PAYLOAD_OFFSET  (2ULL << 20)
#define DTB_ALIGN       (2ULL << 20)
#define DTB_LIMIT       (3ULL << 30) /* firmware and kernels reach the tree below this much RAM */
#define INITRD_MAX      (8ULL << 30)
#define RESET_DATA      24 /* offset of the words behind the reset code */
#define DYNAMIC_MAGIC   0x4942534fULL
#define DYNAMIC_VERSION 2
#define DYNAMIC_MODE_S  1

/* What the machine begins with. */
struct images {
    struct boot_image program; /* kernel with the built-in SBI, else firmware */
    struct boot_image payload; /* what the firmware starts */
    bool has_payload;
    uint8_t *initrd;
    size_t initrd_size;
    void *dtb;
    size_t dtb_size;
};

static void images_done(struct images *im)
{
    boot_image_done(&im->program);
    boot_image_done(&im->payload);
    free(im->initrd);
    free(im->dtb);
}

static int read_initrd(const struct vm_config *c, struct images *im, struct error *err)
{
    if (!c->initrd)
        return 0;
    int rc = boot_read_file(c->initrd, INITRD_MAX, &im->initrd, &im->initrd_size, err);
    if (!rc && !im->initrd_size)
        rc = error_set(err, EINVAL, "initrd '%s' is empty", c->initrd);
    return rc;
}

static int read_images(const struct vm_config *c, struct images *im, struct error *err)
{
    const char *payload = c->firmware_payload ? c->firmware_payload : c->kernel;
    int rc;

    if (!c->firmware && !c->kernel)
        return error_set(err, EINVAL, "there is nothing to boot: give a kernel or firmware");
    if (c->firmware && c->firmware_payload && c->kernel)
        return error_set(err, EINVAL, "a kernel and a firmware payload cannot be given together");
    if (!c->firmware)
        rc = boot_image_open(c->kernel, false, &im->program, err);
    else
        rc = boot_image_open(c->firmware, true, &im->program, err);
    if (!rc && c->firmware && payload) {
        im->has_payload = true;
        rc = boot_image_open(payload, c->firmware_payload != NULL, &im->payload, err);
    }
    return rc ? rc : read_initrd(c, im, err);
}

/* Place the initrd at the top; the tree needs its addresses, and its own size changes nothing. */
static int make_dtb(struct vm *vm, struct images *im, gpa_t *ret_dtb, gpa_t *ret_initrd,
                    struct error *err)
{
    uint64_t ram_end = VIRT_RAM_BASE + vm->config.memory_bytes;
    uint64_t top = MIN(ram_end, VIRT_RAM_BASE + DTB_LIMIT);
    struct virt_chosen chosen = {.bootargs = vm->config.append};

    top = align_down(top - DTB_ALIGN, DTB_ALIGN);
    *ret_dtb = GPA(top);
    *ret_initrd = GPA(0);
    if (im->initrd_size) {
        if (im->initrd_size > top - VIRT_RAM_BASE)
            return error_set(err, ENOSPC, "the initrd (%zu MiB) does not fit into the memory",
                             im->initrd_size >> 20);
        chosen.initrd_start = align_down(top - im->initrd_size, MEM_PAGE_SIZE);
        chosen.initrd_end = chosen.initrd_start + im->initrd_size;
        *ret_initrd = GPA(chosen.initrd_start);
    }
    if (getrandom(chosen.rng_seed, sizeof(chosen.rng_seed), 0) < 0)
        memset(chosen.rng_seed, 0, sizeof(chosen.rng_seed)); /* a seed is only a help */
    int rc = virt_board_fdt(&vm->virt_config, &chosen, &im->dtb, &im->dtb_size, err);
    if (!rc && im->dtb_size > DTB_ALIGN)
        rc = error_set(err, EFBIG, "the boot arguments are too long");
    return rc;
}

static int too_small(const struct vm *vm, struct error *err)
{
    return error_set(err, ENOSPC, "%llu MiB of memory are too little for kernel and initrd",
                     (unsigned long long)(vm->config.memory_bytes >> 20));
}

/* First code of a hart in M-mode: a0 = hart ID, a1 = device tree, a2 = fw_dynamic_info. */
static void write_reset_code(struct vm *vm, gpa_t entry, gpa_t dtb, gpa_t next)
{
    static const uint32_t code[] = {
        0x00000297, /* auipc t0, 0 */
        0x02828613, /* addi  a2, t0, 40 */
        0xf1402573, /* csrr  a0, mhartid */
        0x0202b583, /* ld    a1, 32(t0) */
        0x0182b283, /* ld    t0, 24(t0) */
        0x00028067, /* jr    t0 */
    };
    const uint64_t words[] = {
        entry.v, dtb.v,          DYNAMIC_MAGIC,   DYNAMIC_VERSION,
        next.v,  DYNAMIC_MODE_S, 0 /* options */, 0 /* boot hart */,
    };
    uint8_t *rom = virt_board_rom(vm->virt);

    static_assert(sizeof(code) == RESET_DATA, "the code addresses the words behind it");
    for (size_t i = 0; i < ARRAY_SIZE(code); i++)
        store_le32(rom + 4 * i, code[i]);
    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        store_le64(rom + RESET_DATA + 8 * i, words[i]);
    mem_written(vm->mem, GPA(VIRT_ROM_BASE), RESET_DATA + sizeof(words));
}

static int load_programs(struct vm *vm, struct images *im, gpa_t *ret_entry, gpa_t *ret_next,
                         gpa_t *ret_end, struct error *err)
{
    const struct vm_config *c = &vm->config;
    int rc = boot_image_load(&im->program, vm->mem, GPA(VIRT_RAM_BASE), ret_entry, ret_end, err);

    if (rc) {
        error_prefix(err, "cannot boot '%s'", c->firmware ? c->firmware : c->kernel);
        return rc;
    }
    *ret_next = GPA(0);
    if (!im->has_payload)
        return 0;
    /* An Image brings its own offset from the start of RAM, anything else goes where firmware
     * looks for it. */
    bool is_image = im->payload.format == BOOT_IMAGE;
    gpa_t end = *ret_end;
    rc =
        boot_image_load(&im->payload, vm->mem, GPA(VIRT_RAM_BASE + (is_image ? 0 : PAYLOAD_OFFSET)),
                        ret_next, ret_end, err);
    if (rc)
        error_prefix(err, "cannot load '%s'",
                     c->firmware_payload ? c->firmware_payload : c->kernel);
    else if (end.v > VIRT_RAM_BASE + PAYLOAD_OFFSET)
        rc = error_set(err, EFBIG,
                       "firmware '%s' is larger than 2 MiB and leaves no room for what it starts",
                       c->firmware);
    return rc;
}

static void reset_harts(struct vm *vm, gpa_t entry, gpa_t dtb)
{
    for (unsigned i = 0; i < vm->config.cpus; i++)
        vcpu_reset(vm->vcpus[i]);
    if (vm->sbi) {
        int64_t deadline_ns;

        sbi_reset(vm->sbi, entry, dtb.v);
        /* A debugger that looks before the first instruction sees hart 0 at the kernel's entry. */
        (void)sbi_hart_ready(vm->sbi, 0, &deadline_ns);
    }
}

static int boot_images(struct vm *vm, struct images *im, struct error *err)
{
    gpa_t entry;
    gpa_t next;
    gpa_t end;
    gpa_t dtb;
    gpa_t initrd;
    int rc = read_images(&vm->config, im, err);

    if (!rc)
        rc = make_dtb(vm, im, &dtb, &initrd, err);
    if (!rc)
        rc = load_programs(vm, im, &entry, &next, &end, err);
    if (rc)
        return rc;
    if (end.v > (im->initrd_size ? initrd.v : dtb.v))
        return too_small(vm, err);
    if (im->initrd_size && mem_copy_out(vm->mem, initrd, im->initrd, im->initrd_size))
        return too_small(vm, err);
    if (mem_copy_out(vm->mem, dtb, im->dtb, im->dtb_size))
        return too_small(vm, err);
    write_reset_code(vm, entry, dtb, next);
    reset_harts(vm, entry, dtb);
    return 0;
}

int riscv_boot(struct vm *vm, struct error *err)
{
    struct images im = {0};
    int rc = boot_images(vm, &im, err);

    images_done(&im);
    return rc;
}

int riscv_dump_dtb(struct vm *vm, struct error *err)
{
    const char *path = vm->config.dump_dtb;
    struct images im = {0};
    gpa_t dtb;
    gpa_t initrd;
    int rc = read_initrd(&vm->config, &im, err);

    if (!rc)
        rc = make_dtb(vm, &im, &dtb, &initrd, err);
    if (!rc) {
        cleanup(fd_closep) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

        rc = fd < 0 ? -errno : fd_write_all(fd, im.dtb, im.dtb_size);
        if (rc)
            error_set(err, -rc, "cannot write '%s': %s", path, strerror(-rc));
    }
    images_done(&im);
    return rc;
}
