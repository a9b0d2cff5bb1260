/* Tests of hv/kvm on a fake kernel: what it asks of the kernel, and what it makes of the answers.
 * On the real one it runs in the suite `nested`. */
#include "base/test.h"
#include "base/thread.h"
#include "hv/kvm/fake_sys.h"
#include "state/test_state.h"

#include <errno.h>
#include <stdlib.h>

static struct fake_kernel fake;
static struct mem *mem, *ports;
static struct kvm *kvm;
static uint64_t port_value, register_value;

static enum bus_result port_read(void *dev, uint64_t offset, unsigned size, uint64_t *ret)
{
    *ret = 0x40 + offset;
    return BUS_OK;
}

static enum bus_result port_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    port_value = port_value << 8 | value;
    return BUS_OK;
}

static enum bus_result register_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    register_value = value;
    return BUS_OK;
}

static const struct mmio_ops port_ops = {.name = "port", .read = port_read, .write = port_write};
static const struct mmio_ops register_ops = {.name = "register", .write = register_write};

static int make(enum kvm_cpu cpu, unsigned cpus, struct error *err)
{
    struct kvm_config c = {.cpus = cpus, .cpu = cpu, .sys = &fake.sys};

    c.mem = mem = mem_new();
    c.ports = ports = mem_new();
    ASSERT_EQ(mem_add_ram(mem, GPA(0), 1 << 20, 0, "ram", NULL, NULL, NULL, NULL), 0);
    ASSERT_EQ(mem_add_ram(mem, GPA(0xfffff000), 4096, MEM_READONLY, "rom", NULL, NULL, NULL, NULL),
              0);
    ASSERT_EQ(mem_add_mmio(mem, GPA(0xd0000000), 4096, &register_ops, NULL, NULL), 0);
    ASSERT_EQ(mem_add_mmio(ports, GPA(0x300), 8, &port_ops, NULL, NULL), 0);
    mem_freeze(mem);
    mem_freeze(ports);
    return kvm_new(&c, &kvm, err);
}

static struct vcpu *vcpu(unsigned index)
{
    struct vcpu *v = NULL;
    struct error err = {0};

    if (kvm_new_vcpu(kvm, index, &v, &err)) {
        test_fail(__FILE__, __LINE__, "%s", err.text);
        test_abort();
    }
    return v;
}

static void end(struct vcpu *a, struct vcpu *b)
{
    vcpu_free(a);
    vcpu_free(b);
    kvm_free(kvm);
    mem_free(mem);
    mem_free(ports);
    EXPECT_EQ(fake.open_fds, 0);
}

static void expect_refusal(int code, const char *words)
{
    struct error err = {0};

    EXPECT_EQ(kvm_probe(&fake.sys, &err), -code);
    if (!strstr(err.text, words))
        test_fail(__FILE__, __LINE__, "'%s' does not say '%s'", err.text, words);
    EXPECT_EQ(fake.open_fds, 0);
}

TEST(every_way_in_which_kvm_is_missing_has_its_sentence)
{
    fake_kernel_init(&fake);
    EXPECT_EQ(kvm_probe(&fake.sys, NULL), 0);
    fake.open_rc = -ENOENT;
    expect_refusal(ENOENT, "there is no /dev/kvm");
    fake.open_rc = -EACCES;
    expect_refusal(EACCES, "may not be opened by this user");
    fake.open_rc = -ENODEV;
    expect_refusal(ENODEV, "the kernel has no KVM behind it");
    fake.open_rc = 0;
    fake.api = 11;
    expect_refusal(ENOTSUP, "version 11");
    fake.api = KVM_API_VERSION;
    fake.missing_cap = KVM_CAP_IMMEDIATE_EXIT;
    expect_refusal(ENOTSUP, "exits that cannot be lost");
    fake.missing_cap = -1;
    fake.vm_rc = -EBUSY;
    expect_refusal(EBUSY, "makes no machine");
    fake.vm_rc = 0;
    fake.vcpu_rc = -EINVAL;
    expect_refusal(ENODEV, "makes a machine but no processor");
    fake.vcpu_rc = 0;
    fake.no_extension = true;
    expect_refusal(ENODEV, "only emulates it in software");
    EXPECT_TRUE(*kvm_remedy(-ENOENT) && *kvm_remedy(-EACCES) && *kvm_remedy(-ENODEV));
}

TEST(memory_becomes_slots_and_rom_is_read_only)
{
    fake_kernel_init(&fake);
    ASSERT_EQ(make(KVM_CPU_HOST, 1, NULL), 0);
    struct vcpu *v = vcpu(0);
    ASSERT_EQ(fake.slot_count, 2);
    EXPECT_EQ(fake.slots[0].memory_size, 1 << 20);
    EXPECT_EQ(fake.slots[0].flags, 0);
    EXPECT_EQ(fake.slots[1].guest_phys_addr, 0xfffff000);
    EXPECT_EQ(fake.slots[1].flags, KVM_MEM_READONLY);
    EXPECT_EQ(fake.slots[1].slot, 1);
    end(v, NULL);
    fake_kernel_init(&fake); /* a kernel with system management mode */
    fake.address_spaces = 2;
    ASSERT_EQ(make(KVM_CPU_HOST, 1, NULL), 0);
    v = vcpu(0);
    ASSERT_EQ(fake.slot_count, 4);
    EXPECT_EQ(fake.slots[1].slot, 0x10000);
    EXPECT_EQ(fake.slots[1].memory_size, 1 << 20);
    EXPECT_EQ(fake.slots[3].slot, 0x10001);
    end(v, NULL);
}

TEST(a_machine_half_made_leaves_nothing)
{
    struct vcpu *v = NULL;
    struct error err = {0};

    fake_kernel_init(&fake);
    ASSERT_EQ(make(KVM_CPU_HOST, 1, NULL), 0);
    fake.slot_rc = -EEXIST;
    EXPECT_EQ(kvm_new_vcpu(kvm, 0, &v, &err), -EEXIST);
    EXPECT_TRUE(strstr(err.text, "'ram'"));
    fake.slot_rc = 0;
    fake.vcpu_rc = -EINVAL;
    EXPECT_EQ(kvm_new_vcpu(kvm, 0, &v, NULL), -EINVAL);
    end(NULL, NULL);
}

/** All zeroes when it is not there. */
static struct kvm_cpuid_entry2 leaf(unsigned cpu, uint32_t function, uint32_t index)
{
    const struct fake_vcpu *v = &fake.vcpus[cpu];

    for (unsigned i = 0; i < v->cpuid_count; i++) {
        if (v->cpuid[i].function == function && v->cpuid[i].index == index)
            return v->cpuid[i];
    }
    return (struct kvm_cpuid_entry2){0};
}

TEST(host_features_without_nesting_and_with_a_topology)
{
    fake_kernel_init(&fake);
    ASSERT_EQ(make(KVM_CPU_HOST, 3, NULL), 0);
    struct vcpu *a = vcpu(0);
    struct vcpu *b = vcpu(2);
    EXPECT_EQ(leaf(0, 1, 0).ecx & (1u << 5), 0);          /* VMX */
    EXPECT_EQ(leaf(0, 0x80000001, 0).ecx & (1u << 2), 0); /* SVM */
    EXPECT_EQ(leaf(0, 0x8000000a, 0).function, 0);
    EXPECT_EQ(leaf(0, 1, 0).ebx, 4u << 16 | 0x5678); /* APIC ID 0, 4 IDs a package */
    EXPECT_EQ(leaf(2, 1, 0).ebx >> 24, 2);
    EXPECT_EQ(leaf(2, 0xb, 1).edx, 2);
    EXPECT_EQ(leaf(2, 0xb, 1).ebx, 3);
    EXPECT_EQ(leaf(2, 0xb, 1).eax, 2);
    EXPECT_EQ(leaf(0, 0x80000008, 0).ecx, 2u << 12 | 2);
    EXPECT_EQ(leaf(0, 0x40000000, 0).eax, 0x40000001);
    end(a, b);
}

TEST(a_baseline_hides_what_is_beyond_it_and_needs_what_it_has)
{
    struct error err = {0};

    fake_kernel_init(&fake);
    ASSERT_EQ(make(KVM_CPU_X86_64_V2, 1, NULL), 0);
    struct vcpu *v = vcpu(0);
    EXPECT_EQ(leaf(0, 1, 0).ecx & (1u << 28), 0); /* AVX */
    EXPECT_EQ(leaf(0, 1, 0).ecx & (1u << 20), 1u << 20);
    EXPECT_EQ(leaf(0, 1, 0).ecx & (1u << 31), 1u << 31); /* hypervisor */
    EXPECT_EQ(leaf(0, 7, 0).ebx & (1u << 5), 0);         /* AVX2 */
    EXPECT_EQ(leaf(0, 7, 0).ebx & (1u << 20), 1u << 20); /* SMAP */
    EXPECT_EQ(leaf(0, 0x40000001, 0).eax, 0x01007efb);   /* steal time, EOI, clock and the like */
    end(v, NULL);
    ASSERT_EQ(make(KVM_CPU_X86_64_V3, 1, NULL), 0);
    v = vcpu(0);
    EXPECT_EQ(leaf(0, 7, 0).ebx & (1u << 5), 1u << 5);
    end(v, NULL);
    EXPECT_EQ(make(KVM_CPU_X86_64_V4, 1, &err), -ENOTSUP); /* the fake has no AVX-512F */
    EXPECT_TRUE(strstr(err.text, "'avx512f'") && strstr(err.text, "x86-64-v4"));
    mem_free(mem);
    mem_free(ports);
}

static int script_step;

static int script(struct fake_kernel *f, struct fake_vcpu *v)
{
    struct kvm_run *r = v->run;
    uint8_t *data = (uint8_t *)r + 4096;

    switch (script_step++) {
    case 0: /* outsb: three bytes to port 0x300 */
        r->exit_reason = KVM_EXIT_IO;
        r->io.direction = KVM_EXIT_IO_OUT;
        r->io.size = 1;
        r->io.count = 3;
        r->io.port = 0x300;
        r->io.data_offset = 4096;
        memcpy(data, "\x01\x02\x03", 3);
        return 0;
    case 1: /* inw from the odd port 0x303 */
        r->exit_reason = KVM_EXIT_IO;
        r->io.direction = KVM_EXIT_IO_IN;
        r->io.size = 2;
        r->io.count = 1;
        r->io.port = 0x303;
        return 0;
    case 2:
        EXPECT_MEM(data, "\x43\x44", 2);
        r->io.port = 0x500; /* nobody */
        return 0;
    case 3:
        EXPECT_MEM(data, "\xff\xff", 2);
        r->exit_reason = KVM_EXIT_MMIO;
        r->mmio.phys_addr = 0xd0000010;
        r->mmio.len = 4;
        r->mmio.is_write = 1;
        memcpy(r->mmio.data, "\x78\x56\x34\x12", 4);
        return 0;
    case 4:
        r->mmio.phys_addr = 0xfffffffffffffff1; /* nobody, and not aligned */
        r->mmio.len = 8;
        r->mmio.is_write = 0;
        return 0;
    case 5:
        EXPECT_MEM(r->mmio.data, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
        return -EAGAIN;
    default:
        r->exit_reason = KVM_EXIT_SHUTDOWN;
        return 0;
    }
}

/** Of one vCPU; UINT64_MAX: there is no such row. */
static uint64_t counter(struct vcpu *v, const char *name)
{
    struct counter rows[VCPU_MAX_COUNTERS];
    size_t count = vcpu_counters(v, rows, ARRAY_SIZE(rows));

    for (size_t i = 0; i < count; i++) {
        if (!strcmp(rows[i].name, name))
            return rows[i].value;
    }
    return UINT64_MAX;
}

TEST(exits_reach_ports_and_registers_and_a_triple_fault_resets)
{
    struct vcpu_exit exit = {0};

    fake_kernel_init(&fake);
    fake.run = script;
    script_step = 0;
    ASSERT_EQ(make(KVM_CPU_HOST, 1, NULL), 0);
    struct vcpu *v = vcpu(0);
    vcpu_run(v, &exit);
    EXPECT_EQ(exit.reason, VCPU_EXIT_RESET);
    EXPECT_EQ(port_value, 0x010203);
    EXPECT_EQ(register_value, 0x12345678);
    EXPECT_EQ(counter(v, "kvm_io_exits"), 3);
    EXPECT_EQ(counter(v, "kvm_runs"), 7);
    end(v, NULL);
}

/** Two rows as the kernel describes them: of a name that is shown, and of another. */
static void make_stats(uint32_t count, uint32_t name_size)
{
    const struct kvm_stats_header h = {
        .name_size = name_size, .num_desc = count, .desc_offset = 32, .data_offset = 200};
    const struct kvm_stats_desc strange = {.size = 1, .offset = 8};
    const struct kvm_stats_desc exits = {.size = 1, .offset = 16};
    uint64_t value = 4711;

    memcpy(fake.stats, &h, sizeof(h));
    memcpy(fake.stats + 32, &strange, sizeof(strange));
    memcpy(fake.stats + 32 + sizeof(strange), "strange", 8);
    memcpy(fake.stats + 32 + sizeof(exits) + 16, &exits, sizeof(exits));
    memcpy(fake.stats + 32 + 2 * sizeof(exits) + 16, "exits", 6);
    memcpy(fake.stats + 216, &value, sizeof(value));
}

TEST(what_the_kernel_counts_is_shown_as_far_as_it_does)
{
    fake_kernel_init(&fake);
    ASSERT_EQ(make(KVM_CPU_HOST, 1, NULL), 0);
    struct vcpu *v = vcpu(0);
    make_stats(2, 16);
    EXPECT_EQ(counter(v, "kvm_all_exits"), 4711);
    EXPECT_EQ(counter(v, "kvm_halts"), 0); /* which this kernel does not count */
    make_stats(2000, 16);
    EXPECT_EQ(counter(v, "kvm_all_exits"), 0);
    make_stats(2, 3000);
    EXPECT_EQ(counter(v, "kvm_all_exits"), 0);
    fake.no_stats = true;
    EXPECT_EQ(counter(v, "kvm_all_exits"), UINT64_MAX);
    EXPECT_EQ(counter(v, "kvm_runs"), 0);
    end(v, NULL);
}

static int fail_entry(struct fake_kernel *f, struct fake_vcpu *v)
{
    v->run->exit_reason = f->runs == 1 ? KVM_EXIT_FAIL_ENTRY : KVM_EXIT_INTERNAL_ERROR;
    v->run->internal.suberror = KVM_INTERNAL_ERROR_EMULATION;
    return 0;
}

TEST(what_cannot_go_on_is_an_error_with_the_place)
{
    struct vcpu_exit exit = {0};

    fake_kernel_init(&fake);
    fake.run = fail_entry;
    fake.vcpus[0].regs.rip = 0x1234;
    ASSERT_EQ(make(KVM_CPU_HOST, 1, NULL), 0);
    struct vcpu *v = vcpu(0);
    vcpu_run(v, &exit);
    EXPECT_EQ(exit.reason, VCPU_EXIT_ERROR);
    EXPECT_TRUE(strstr(exit.error.text, "rip 0x1234"));
    exit = (struct vcpu_exit){0};
    vcpu_run(v, &exit);
    EXPECT_EQ(exit.reason, VCPU_EXIT_ERROR);
    EXPECT_TRUE(strstr(exit.error.text, "cannot emulate"));
    end(v, NULL);
}

static void *run_once(void *arg)
{
    struct vcpu_exit exit = {0};

    vcpu_run(arg, &exit);
    EXPECT_EQ(exit.reason, VCPU_EXIT_KICK);
    return NULL;
}

TEST(a_kick_before_during_and_between_runs_is_not_lost)
{
    struct vcpu_exit exit = {0};
    pthread_t thread;

    fake_kernel_init(&fake);
    ASSERT_EQ(make(KVM_CPU_HOST, 1, NULL), 0);
    struct vcpu *v = vcpu(0);
    vcpu_kick(v);
    vcpu_run(v, &exit);
    EXPECT_EQ(exit.reason, VCPU_EXIT_KICK);
    EXPECT_EQ(fake.runs, 0); /* the kernel was not entered */
    for (int i = 0; i < 50; i++) {
        ASSERT_EQ(thread_start(&thread, "vcpu", run_once, v), 0);
        vcpu_kick(v);
        thread_join(thread);
    }
    end(v, NULL);
}

TEST(lines_messages_and_nmi)
{
    fake_kernel_init(&fake);
    ASSERT_EQ(make(KVM_CPU_HOST, 1, NULL), 0);
    struct vcpu *v = vcpu(0);
    kvm_set_gsi(kvm, 16, true);
    EXPECT_EQ(fake.gsi[16], 1);
    kvm_set_gsi(kvm, 16, false);
    EXPECT_EQ(fake.gsi[16], 0);
    kvm_signal_msi(kvm, 0xfee01000, 0x4041);
    EXPECT_EQ(fake.msi.address_lo, 0xfee01000);
    EXPECT_EQ(fake.msi.data, 0x4041);
    vcpu_set_irq(v, KVM_INPUT_NMI, true);
    vcpu_set_irq(v, KVM_INPUT_NMI, false);
    EXPECT_EQ(fake.vcpus[0].nmis, 1);
    end(v, NULL);
}

TEST(registers_by_number)
{
    uint64_t value = 0;
    size_t count;

    fake_kernel_init(&fake);
    ASSERT_EQ(make(KVM_CPU_HOST, 1, NULL), 0);
    struct vcpu *v = vcpu(0);
    const struct vcpu_reg *regs = vcpu_registers(v, &count);
    for (size_t i = 0; i < count; i++) {
        EXPECT_EQ(regs[i].id, i);
        EXPECT_EQ(vcpu_get_reg(v, regs[i].id, &value), 0);
    }
    EXPECT_EQ(vcpu_get_reg(v, 16, &value), 0);
    EXPECT_EQ(value, 0xfff0);
    EXPECT_EQ(vcpu_set_reg(v, 3, 77), 0);
    EXPECT_EQ(fake.vcpus[0].regs.rdx, 77);
    EXPECT_EQ(vcpu_set_reg(v, 44, 0x5000), 0);
    EXPECT_EQ(fake.vcpus[0].sregs.cr3, 0x5000);
    EXPECT_EQ(vcpu_set_reg(v, 25, 0x8000000000000000), 0);
    EXPECT_EQ(vcpu_set_reg(v, VCPU_REG_HIGH | 25, 0x3fff), 0);
    EXPECT_EQ(vcpu_get_reg(v, VCPU_REG_HIGH | 25, &value), 0);
    EXPECT_EQ(value, 0x3fff);
    EXPECT_EQ(vcpu_get_reg(v, (unsigned)count, &value), -ENOENT);
    EXPECT_EQ(vcpu_get_reg(v, VCPU_REG_HIGH | 3, &value), -ENOENT);
    end(v, NULL);
}

TEST(four_points_are_hardware_and_more_are_steps)
{
    static const gva_t at[5] = {{0x1000}, {0x2000}, {0x3000}, {0x4000}, {0x5000}};
    const struct vcpu_watchpoint watch = {.addr = GVA(0x6000), .size = 8, .kind = VCPU_WATCH_WRITE};
    struct vcpu_debug d = {.breakpoints = at, .breakpoint_count = 3};
    struct vcpu_exit exit = {0};

    fake_kernel_init(&fake);
    ASSERT_EQ(make(KVM_CPU_HOST, 1, NULL), 0);
    struct vcpu *v = vcpu(0);
    d.watchpoints = &watch;
    d.watchpoint_count = 1;
    vcpu_set_debug(v, &d);
    const struct kvm_guest_debug *g = &fake.vcpus[0].debug;
    EXPECT_EQ(g->control, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP);
    EXPECT_EQ(g->arch.debugreg[0], 0x6000);
    EXPECT_EQ(g->arch.debugreg[3], 0x3000);
    EXPECT_EQ(g->arch.debugreg[7], 0x904aa); /* 0: write, 8 bytes; 1-3: execute; GE off */
    d.breakpoint_count = 5;
    vcpu_set_debug(v, &d);
    EXPECT_EQ(g->control & KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_SINGLESTEP);
    fake.vcpus[0].run->debug.arch.pc = 0x1234;
    fake.vcpus[0].run->debug.arch.dr6 = 1 << 14;
    fake.vcpus[0].run->debug.arch.exception = 1;
    EXPECT_TRUE(!kvm_debug_exit(kvm_vcpu_of(v), &exit));
    fake.vcpus[0].run->debug.arch.pc = 0x5000;
    EXPECT_TRUE(kvm_debug_exit(kvm_vcpu_of(v), &exit));
    EXPECT_EQ(exit.debug.cause, VCPU_DEBUG_BREAK);
    fake.vcpus[0].run->debug.arch.dr6 = 1;
    EXPECT_TRUE(kvm_debug_exit(kvm_vcpu_of(v), &exit));
    EXPECT_EQ(exit.debug.cause, VCPU_DEBUG_WATCH);
    d = (struct vcpu_debug){0};
    vcpu_set_debug(v, &d);
    EXPECT_EQ(g->control, 0);
    end(v, NULL);
}

TEST(state_of_processor_and_chips_comes_back)
{
    struct state_out *out = state_out_new();
    struct error err = {0};

    fake_kernel_init(&fake);
    ASSERT_EQ(make(KVM_CPU_HOST, 2, NULL), 0);
    struct vcpu *a = vcpu(0);
    struct vcpu *b = vcpu(1);
    struct fake_vcpu *f = &fake.vcpus[1];
    f->regs.rax = 0x1122334455667788;
    f->xsave[4095] = 9;
    f->msrs[3] = 0xffffffff81000000;
    f->lapic.regs[17] = 5;
    fake.chips[2].chip.ioapic.id = 3;
    fake.clock.clock = 123456;
    kvm_pause(kvm);
    fake.clock.clock = 999999;
    vcpu_save(a, out);
    vcpu_save(b, out);
    kvm_save(kvm, out);
    struct state_in *in = test_state_turn(out);
    vcpu_reset(b);
    kvm_reset_chips(kvm);
    EXPECT_EQ(f->regs.rax, 0);
    EXPECT_EQ(f->msrs[3], 0);
    EXPECT_EQ(f->mp.mp_state, KVM_MP_STATE_UNINITIALIZED);
    EXPECT_EQ(fake.chips[2].chip.ioapic.id, 0);
    fake.readonly_msr = 0x174; /* its value is the same: no error */
    if (vcpu_load(a, in, &err) || vcpu_load(b, in, &err) || kvm_load(kvm, in, &err))
        test_fail(__FILE__, __LINE__, "%s", err.text);
    kvm_resume(kvm);
    EXPECT_EQ(f->regs.rax, 0x1122334455667788);
    EXPECT_EQ(f->xsave[4095], 9);
    EXPECT_EQ(f->msrs[3], 0xffffffff81000000);
    EXPECT_EQ(f->lapic.regs[17], 5);
    EXPECT_EQ(fake.chips[2].chip.ioapic.id, 3);
    EXPECT_EQ(fake.clock.clock, 123456);
    f->msrs[1] = 1; /* the read-only one now differs */
    EXPECT_EQ(vcpu_load(b, in, &err), -EINVAL);
    EXPECT_TRUE(strstr(err.text, "0x174"));
    state_in_free(in);
    end(a, b);
}

/** Where the fake keeps its time stamp counter. */
enum { TSC_AT = 2 };

TEST(clock_and_counters_stand_still_together)
{
    struct state_out *out = state_out_new();
    struct error err = {0};

    fake_kernel_init(&fake);
    ASSERT_EQ(make(KVM_CPU_HOST, 2, NULL), 0);
    struct vcpu *a = vcpu(0);
    struct vcpu *b = vcpu(1);
    fake.clock.clock = 1000;
    fake.vcpus[0].msrs[TSC_AT] = 5000;
    fake.vcpus[1].msrs[TSC_AT] = 5100; /* the guest wanted it so */
    fake.vcpus[1].msrs[0] = 9000;      /* a deadline */
    kvm_pause(kvm);
    fake.clock.clock = 70000;
    fake.vcpus[0].msrs[TSC_AT] += 60000;
    fake.vcpus[1].msrs[TSC_AT] += 60000;
    vcpu_save(a, out);
    vcpu_save(b, out);
    kvm_save(kvm, out);
    fake.clock_step = 30; /* ns, as many ticks at the fake's 1 GHz */
    kvm_resume(kvm);
    EXPECT_EQ(fake.clock.clock, 1030);
    EXPECT_EQ(fake.vcpus[0].msrs[TSC_AT], 5030);
    EXPECT_EQ(fake.vcpus[1].msrs[TSC_AT], 5130);
    EXPECT_EQ(fake.vcpus[1].msrs[0], 9000);

    struct state_in *in = test_state_turn(out);
    if (vcpu_load(a, in, &err) || vcpu_load(b, in, &err) || kvm_load(kvm, in, &err))
        test_fail(__FILE__, __LINE__, "%s", err.text);
    EXPECT_EQ(fake.vcpus[1].msrs[TSC_AT], 5100); /* of the moment of the pause, not of the save */
    fake.vcpus[0].msrs[TSC_AT] += 444;
    fake.vcpus[1].msrs[TSC_AT] += 444;
    kvm_resume(kvm);
    EXPECT_EQ(fake.vcpus[0].msrs[TSC_AT], 5030);
    EXPECT_EQ(fake.vcpus[1].msrs[TSC_AT], 5130);
    state_in_free(in);

    fake.no_offsets = true; /* an older kernel: they run on */
    kvm_pause(kvm);
    fake.vcpus[0].msrs[TSC_AT] = 8000;
    kvm_resume(kvm);
    EXPECT_EQ(fake.vcpus[0].msrs[TSC_AT], 8000);
    end(a, b);
}

TEST(newer_system_registers_are_used_where_both_kernels_have_them)
{
    struct state_out *out = state_out_new();
    struct error err = {0};

    fake_kernel_init(&fake);
    fake.has_sregs2 = true;
    ASSERT_EQ(make(KVM_CPU_HOST, 1, NULL), 0);
    struct vcpu *v = vcpu(0);
    fake.vcpus[0].sregs.cr3 = 1;
    fake.vcpus[0].sregs2.cr3 = 2;
    vcpu_save(v, out);
    struct state_in *in = test_state_turn(out);
    memset(&fake.vcpus[0].sregs2, 0, sizeof(fake.vcpus[0].sregs2));
    fake.vcpus[0].sregs.cr3 = 7;
    if (vcpu_load(v, in, &err))
        test_fail(__FILE__, __LINE__, "%s", err.text);
    EXPECT_EQ(fake.vcpus[0].sregs2.cr3, 2);
    EXPECT_EQ(fake.vcpus[0].sregs.cr3, 7);
    kvm_vcpu_of(v)->kvm->has_sregs2 = false; /* as on an older host */
    if (vcpu_load(v, in, &err))
        test_fail(__FILE__, __LINE__, "%s", err.text);
    EXPECT_EQ(fake.vcpus[0].sregs.cr3, 1);
    state_in_free(in);
    end(v, NULL);
}

TEST(a_state_of_unknown_registers_is_refused)
{
    struct kvm_msr_entry strange = {.index = 0xdead, .data = 1};
    struct state_out *out = state_out_new();
    struct error err = {0};
    uint8_t zero[4096] = {0};

    fake_kernel_init(&fake);
    ASSERT_EQ(make(KVM_CPU_HOST, 1, NULL), 0);
    struct vcpu *v = vcpu(0);
    state_begin(out, "kvm-vcpu", 0, 1);
    state_put_bytes(out, "regs", zero, sizeof(struct kvm_regs));
    state_put_bytes(out, "sregs", zero, sizeof(struct kvm_sregs));
    state_put_bytes(out, "xcrs", zero, sizeof(struct kvm_xcrs));
    state_put_bytes(out, "debugregs", zero, sizeof(struct kvm_debugregs));
    state_put_bytes(out, "events", zero, sizeof(struct kvm_vcpu_events));
    state_put_bytes(out, "mp", zero, sizeof(struct kvm_mp_state));
    state_put_bytes(out, "lapic", zero, sizeof(struct kvm_lapic_state));
    state_put_bytes(out, "msrs", &strange, sizeof(strange));
    state_put_bytes(out, "xsave", zero, 4096);
    state_end(out);
    struct state_in *in = test_state_turn(out);
    EXPECT_EQ(vcpu_load(v, in, &err), -EINVAL);
    EXPECT_TRUE(strstr(err.text, "0xdead"));
    state_in_free(in);
    end(v, NULL);
}

TEST(first_states_of_linux_and_of_pvh)
{
    const struct kvm_entry linux64 = {.long_mode = true,
                                      .rip = 0x100200,
                                      .rsi = 0x7000,
                                      .cr3 = 0x9000,
                                      .gdt = 0x500,
                                      .gdt_limit = 39};
    const struct kvm_entry pvh = {.rip = 0x1000000, .rbx = 0x6000, .gdt = 0x500, .gdt_limit = 39};

    fake_kernel_init(&fake);
    ASSERT_EQ(make(KVM_CPU_HOST, 1, NULL), 0);
    struct vcpu *v = vcpu(0);
    const struct fake_vcpu *f = &fake.vcpus[0];
    ASSERT_EQ(kvm_vcpu_enter_at(v, &linux64, NULL), 0);
    EXPECT_EQ(f->sregs.cs.l, 1);
    EXPECT_EQ(f->sregs.efer, 0x500);
    EXPECT_EQ(f->sregs.cr3, 0x9000);
    EXPECT_EQ(f->regs.rsi, 0x7000);
    vcpu_reset(v);
    ASSERT_EQ(kvm_vcpu_enter_at(v, &pvh, NULL), 0);
    EXPECT_EQ(f->sregs.cs.l, 0);
    EXPECT_EQ(f->sregs.cs.db, 1);
    EXPECT_EQ(f->sregs.cr0, 0x11);
    EXPECT_EQ(f->regs.rbx, 0x6000);
    end(v, NULL);
}
