/* Registers, by number, as GDB knows an x86-64 processor; address translation; resets and first
 * states.
 *
 * Threads: the vCPU stands still. */
#include "base/bits.h"
#include "hv/kvm/kvm_internal.h"

#include <errno.h>
#include <string.h>

#define CORE     "org.gnu.gdb.i386.core"
#define SEGMENTS "org.gnu.gdb.i386.segments"
#define SYSTEM   "org.posada.x86.system"

enum {
    REG_GENERAL = 0,
    REG_RIP = 16,
    REG_EFLAGS = 17,
    REG_SELECTORS = 18, /* cs ss ds es fs gs */
    REG_ST = 24,
    REG_FPU_CONTROL = 32, /* fctrl fstat ftag fiseg fioff foseg fooff fop */
    REG_FS_BASE = 40,
    REG_GS_BASE = 41,
    REG_CR0 = 42,
    REG_CR2,
    REG_CR3,
    REG_CR4,
    REG_CR8,
    REG_EFER,
    REGS,
};

#define ROW(n, r_name, r_bits, r_group, r_feature) \
    [n] = {                                        \
        .name = (r_name), .group = (r_group), .feature = (r_feature), .bits = (r_bits), .id = (n)}

static const struct vcpu_reg rows[REGS] = {
    ROW(0, "rax", 64, "general", CORE),          ROW(1, "rbx", 64, "general", CORE),
    ROW(2, "rcx", 64, "general", CORE),          ROW(3, "rdx", 64, "general", CORE),
    ROW(4, "rsi", 64, "general", CORE),          ROW(5, "rdi", 64, "general", CORE),
    ROW(6, "rbp", 64, "general", CORE),          ROW(7, "rsp", 64, "general", CORE),
    ROW(8, "r8", 64, "general", CORE),           ROW(9, "r9", 64, "general", CORE),
    ROW(10, "r10", 64, "general", CORE),         ROW(11, "r11", 64, "general", CORE),
    ROW(12, "r12", 64, "general", CORE),         ROW(13, "r13", 64, "general", CORE),
    ROW(14, "r14", 64, "general", CORE),         ROW(15, "r15", 64, "general", CORE),
    ROW(16, "rip", 64, "general", CORE),         ROW(17, "eflags", 32, "general", CORE),
    ROW(18, "cs", 32, "general", CORE),          ROW(19, "ss", 32, "general", CORE),
    ROW(20, "ds", 32, "general", CORE),          ROW(21, "es", 32, "general", CORE),
    ROW(22, "fs", 32, "general", CORE),          ROW(23, "gs", 32, "general", CORE),
    ROW(24, "st0", 80, "float", CORE),           ROW(25, "st1", 80, "float", CORE),
    ROW(26, "st2", 80, "float", CORE),           ROW(27, "st3", 80, "float", CORE),
    ROW(28, "st4", 80, "float", CORE),           ROW(29, "st5", 80, "float", CORE),
    ROW(30, "st6", 80, "float", CORE),           ROW(31, "st7", 80, "float", CORE),
    ROW(32, "fctrl", 32, "float", CORE),         ROW(33, "fstat", 32, "float", CORE),
    ROW(34, "ftag", 32, "float", CORE),          ROW(35, "fiseg", 32, "float", CORE),
    ROW(36, "fioff", 32, "float", CORE),         ROW(37, "foseg", 32, "float", CORE),
    ROW(38, "fooff", 32, "float", CORE),         ROW(39, "fop", 32, "float", CORE),
    ROW(40, "fs_base", 64, "general", SEGMENTS), ROW(41, "gs_base", 64, "general", SEGMENTS),
    ROW(42, "cr0", 64, "csr", SYSTEM),           ROW(43, "cr2", 64, "csr", SYSTEM),
    ROW(44, "cr3", 64, "csr", SYSTEM),           ROW(45, "cr4", 64, "csr", SYSTEM),
    ROW(46, "cr8", 64, "csr", SYSTEM),           ROW(47, "efer", 64, "csr", SYSTEM),
};

const struct vcpu_reg *kvm_vcpu_registers(struct vcpu *vcpu, size_t *ret_count)
{
    *ret_count = REGS;
    return rows;
}

/** A register of struct kvm_regs, or NULL. */
static __u64 *general(struct kvm_regs *r, unsigned id)
{
    __u64 *const in_order[] = {&r->rax, &r->rbx, &r->rcx, &r->rdx, &r->rsi, &r->rdi,
                               &r->rbp, &r->rsp, &r->r8,  &r->r9,  &r->r10, &r->r11,
                               &r->r12, &r->r13, &r->r14, &r->r15, &r->rip, &r->rflags};

    return id < ARRAY_SIZE(in_order) ? in_order[id] : NULL;
}

/** A register of struct kvm_sregs, or NULL. */
static __u64 *system_register(struct kvm_sregs *s, unsigned id)
{
    switch (id) {
    case REG_FS_BASE:
        return &s->fs.base;
    case REG_GS_BASE:
        return &s->gs.base;
    case REG_CR0:
        return &s->cr0;
    case REG_CR2:
        return &s->cr2;
    case REG_CR3:
        return &s->cr3;
    case REG_CR4:
        return &s->cr4;
    case REG_CR8:
        return &s->cr8;
    case REG_EFER:
        return &s->efer;
    default:
        return NULL;
    }
}

static __u16 *selector(struct kvm_sregs *s, unsigned id)
{
    struct kvm_segment *const in_order[] = {&s->cs, &s->ss, &s->ds, &s->es, &s->fs, &s->gs};

    return id - REG_SELECTORS < ARRAY_SIZE(in_order) ? &in_order[id - REG_SELECTORS]->selector
                                                     : NULL;
}

static uint64_t fpu_register(const struct kvm_fpu *f, unsigned id)
{
    uint64_t value = 0;

    if (id >= (REG_ST | VCPU_REG_HIGH))
        memcpy(&value, f->fpr[(id & 7)] + 8, 2);
    else if (id < REG_FPU_CONTROL)
        memcpy(&value, f->fpr[id - REG_ST], 8);
    else if (id == REG_FPU_CONTROL)
        value = f->fcw;
    else if (id == REG_FPU_CONTROL + 1)
        value = f->fsw;
    else if (id == REG_FPU_CONTROL + 2)
        value = f->ftwx;
    else if (id == REG_FPU_CONTROL + 4)
        value = (uint32_t)f->last_ip;
    else if (id == REG_FPU_CONTROL + 6)
        value = (uint32_t)f->last_dp;
    else if (id == REG_FPU_CONTROL + 7)
        value = f->last_opcode;
    return value;
}

static bool is_fpu(unsigned id)
{
    unsigned low = id & ~(unsigned)VCPU_REG_HIGH;

    return id & VCPU_REG_HIGH ? low >= REG_ST && low < REG_FPU_CONTROL
                              : id >= REG_ST && id < REG_FS_BASE;
}

int kvm_vcpu_get_reg(struct vcpu *vcpu, unsigned id, uint64_t *ret)
{
    struct kvm_vcpu *v = kvm_vcpu_of(vcpu);
    struct kvm_regs r;
    struct kvm_sregs s;
    struct kvm_fpu f;

    if (general(&r, id)) {
        if (kvm_vcpu_ioctl(v, KVM_GET_REGS, (uintptr_t)&r) < 0)
            return -ENOENT;
        *ret = *general(&r, id);
        return 0;
    }
    if (is_fpu(id)) {
        if (kvm_vcpu_ioctl(v, KVM_GET_FPU, (uintptr_t)&f) < 0)
            return -ENOENT;
        *ret = fpu_register(&f, id);
        return 0;
    }
    const __u16 *narrow = selector(&s, id);
    const __u64 *wide = system_register(&s, id);
    if ((!narrow && !wide) || kvm_vcpu_ioctl(v, KVM_GET_SREGS, (uintptr_t)&s) < 0)
        return -ENOENT;
    if (wide)
        *ret = *wide;
    else if (narrow)
        *ret = *narrow;
    return 0;
}

static int set_fpu(struct kvm_vcpu *v, unsigned id, uint64_t value)
{
    struct kvm_fpu f;

    if (kvm_vcpu_ioctl(v, KVM_GET_FPU, (uintptr_t)&f) < 0)
        return -ENOENT;
    if (id & VCPU_REG_HIGH)
        memcpy(f.fpr[id & 7] + 8, &value, 2);
    else if (id < REG_FPU_CONTROL)
        memcpy(f.fpr[id - REG_ST], &value, 8);
    else if (id == REG_FPU_CONTROL)
        f.fcw = (uint16_t)value;
    else if (id == REG_FPU_CONTROL + 1)
        f.fsw = (uint16_t)value;
    else
        return 0; /* what the last instruction was stays so */
    return kvm_vcpu_ioctl(v, KVM_SET_FPU, (uintptr_t)&f) < 0 ? -EINVAL : 0;
}

int kvm_vcpu_set_reg(struct vcpu *vcpu, unsigned id, uint64_t value)
{
    struct kvm_vcpu *v = kvm_vcpu_of(vcpu);
    struct kvm_regs r;
    struct kvm_sregs s;

    if (general(&r, id)) {
        if (kvm_vcpu_ioctl(v, KVM_GET_REGS, (uintptr_t)&r) < 0)
            return -ENOENT;
        *general(&r, id) = value;
        return kvm_vcpu_ioctl(v, KVM_SET_REGS, (uintptr_t)&r) < 0 ? -EINVAL : 0;
    }
    if (is_fpu(id))
        return set_fpu(v, id, value);
    if (selector(&s, id))
        return 0; /* a selector without its segment would make no sense */
    if (!system_register(&s, id) || kvm_vcpu_ioctl(v, KVM_GET_SREGS, (uintptr_t)&s) < 0)
        return -ENOENT;
    *system_register(&s, id) = value;
    return kvm_vcpu_ioctl(v, KVM_SET_SREGS, (uintptr_t)&s) < 0 ? -EINVAL : 0;
}

int kvm_vcpu_translate(struct vcpu *vcpu, gva_t va, enum vcpu_access access, gpa_t *ret)
{
    struct kvm_translation t = {.linear_address = va.v};

    if (kvm_vcpu_ioctl(kvm_vcpu_of(vcpu), KVM_TRANSLATE, (uintptr_t)&t) < 0 || !t.valid)
        return -EFAULT;
    *ret = GPA(t.physical_address);
    return 0;
}

void kvm_vcpu_reset(struct vcpu *vcpu)
{
    struct kvm_vcpu *v = kvm_vcpu_of(vcpu);

    if (kvm_image_set(v, v->initial, true, NULL))
        return; /* it came from this kernel, for this processor: it cannot be refused */
}

static struct kvm_segment flat(uint16_t selector_value, unsigned type, bool is_code, bool long_mode)
{
    return (struct kvm_segment){
        .base = 0,
        .limit = 0xffffffff,
        .selector = selector_value,
        .type = (uint8_t)type,
        .present = 1,
        .db = !(is_code && long_mode),
        .s = 1,
        .l = is_code && long_mode,
        .g = 1,
    };
}

int kvm_vcpu_enter_at(struct vcpu *vcpu, const struct kvm_entry *entry, struct error *err)
{
    struct kvm_vcpu *v = kvm_vcpu_of(vcpu);
    struct kvm_regs r = {
        .rip = entry->rip,
        .rax = entry->rax,
        .rbx = entry->rbx,
        .rsi = entry->rsi,
        .rflags = 2,
    };
    struct kvm_sregs s;
    int rc = kvm_vcpu_ioctl(v, KVM_GET_SREGS, (uintptr_t)&s);

    if (rc >= 0) {
        s.cs = flat(KVM_ENTRY_CS, 11, true, entry->long_mode);
        s.ds = s.es = s.fs = s.gs = s.ss = flat(KVM_ENTRY_DS, 3, false, false);
        s.tr = (struct kvm_segment){
            .selector = KVM_ENTRY_TSS, .limit = 0x67, .type = 11, .present = 1};
        s.gdt = (struct kvm_dtable){.base = entry->gdt, .limit = entry->gdt_limit};
        s.idt = (struct kvm_dtable){0};
        s.cr0 = BIT(0) | BIT(4); /* PE, ET */
        if (entry->long_mode) {
            s.cr0 |= BIT(31);          /* PG */
            s.cr4 = BIT(5);            /* PAE */
            s.efer = BIT(8) | BIT(10); /* LME, LMA */
            s.cr3 = entry->cr3;
        }
        rc = kvm_vcpu_ioctl(v, KVM_SET_SREGS, (uintptr_t)&s);
    }
    if (rc >= 0)
        rc = kvm_vcpu_ioctl(v, KVM_SET_REGS, (uintptr_t)&r);
    return rc < 0 ? error_set(err, -rc, "KVM does not take the first state of the processor: %s",
                              strerror(-rc))
                  : 0;
}
