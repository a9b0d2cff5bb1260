/* Tests of whole machines with guests of a few instructions. */
#include "base/bits.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/test.h"
#include "disk/disk.h"
#include "state/test_state.h"
#include "vm/vm.h"

#include <errno.h>
#include <libfdt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECOND 1000000000LL

/* lui t0, 0x100; lui t1, 5; addi t1, t1, 0x555; sw t1, 0(t0); j . */
static const uint32_t code_poweroff[] = {0x001002b7, 0x00005337, 0x55530313, 0x0062a023,
                                         0x0000006f};

/* Echo UART bytes until 'q', then power off with failure code 7. */
static const uint32_t code_echo[] = {
    0x10000437, 0x07100493, 0x00544283, 0x0012f293, 0xfe028ce3, 0x00044503, 0x00544283, 0x0202f293,
    0xfe028ce3, 0x00a40023, 0xfe9510e3, 0x001002b7, 0x00073337, 0x33330313, 0x0062a023, 0x0000006f,
};

/* If the word at 0x80001000 is 0, set it and ask for a cold reboot (SRST); else shut down with
 * reason "system failure". */
static const uint32_t code_reboot[] = {
    0x800012b7, 0x02029293, 0x0202d293, 0x0002a303, 0x02031263, 0x00100313, 0x0062a023,
    0x535258b7, 0x35488893, 0x00000813, 0x00100513, 0x00000593, 0x00000073, 0x535258b7,
    0x35488893, 0x00000813, 0x00000513, 0x00100593, 0x00000073, 0x0000006f,
};

/* Hart 0 starts harts 1 to 3 (HSM), which add 1 to the word at 0x80001000 and stop; at 3 it powers
 * off. */
static const uint32_t code_smp[] = {
    0x00050413, 0x800014b7, 0x02049493, 0x0204d493, 0x004858b7, 0x34d88893, 0x04041663, 0x00100913,
    0x00090513, 0x00000597, 0xfdc58593, 0x00000613, 0x00000813, 0x00000073, 0x00190913, 0x00400293,
    0xfe5940e3, 0x4004a32f, 0x00300293, 0xfe531ce3, 0x001002b7, 0x00005337, 0x55530313, 0x0062a023,
    0x0000006f, 0x00100313, 0x0064a02f, 0x00100813, 0x00000073, 0x0000006f,
};

/* M-mode: print the first byte of fw_dynamic_info (a2) and of the device tree (a1) and 'M', power
 * off. Harts but 0 wait. */
static const uint32_t code_machine[] = {
    0xf1402473, 0x02041863, 0x100002b7, 0x00063303, 0x00628023, 0x0005a303, 0x00628023, 0x04d00393,
    0x00728023, 0x001002b7, 0x00005337, 0x55530313, 0x0062a023, 0x10500073, 0xffdff06f,
};

/* Ask the SBI's debug console for bytes until one is 'q', then power off. */
static const uint32_t code_sbi_console[] = {
    0x800014b7, 0x02049493, 0x0204d493, 0x07100913, 0x444248b7, 0x34e88893, 0x00100813,
    0x00100513, 0x00048593, 0x00000613, 0x00000073, 0xfe0586e3, 0x0004c283, 0xff2292e3,
    0x001002b7, 0x00005337, 0x55530313, 0x0062a023, 0x0000006f,
};

/* j . */
static const uint32_t code_spin[] = {0x0000006f};

static char path[64];
static struct error err;

static void write_file(const void *bytes, size_t size)
{
    (void)snprintf(path, sizeof(path), "/tmp/vm_test.%d", (int)getpid());
    FILE *f = fopen(path, "wb");
    ASSERT_TRUE(f && fwrite(bytes, 1, size, f) == size && fclose(f) == 0);
}

static struct vm_config config_for(unsigned cpus)
{
    return (struct vm_config){
        .name = "test",
        .cpus = cpus,
        .memory_bytes = 16 << 20,
        .engine = VM_ENGINE_INTERP,
        .console_in = -1,
        .console_out = -1,
        .console_uart = true,
    };
}

/* A config whose kernel is an Image of @code. */
static struct vm_config config_code(unsigned cpus, const uint32_t *code, size_t bytes)
{
    struct vm_config c = config_for(cpus);
    uint8_t image[512] = {0};

    ASSERT_TRUE(bytes <= sizeof(image) - 64);
    store_le32(image, 0x0400006f); /* j 64 */
    store_le64(image + 8, 0x200000);
    store_le64(image + 16, sizeof(image));
    memcpy(image + 56, "RSC\x05", 4);
    for (size_t i = 0; i < bytes / 4; i++)
        store_le32(image + 64 + 4 * i, code[i]);
    write_file(image, sizeof(image));
    c.kernel = path;
    return c;
}
#define CONFIG_CODE(cpus, code) config_code(cpus, code, sizeof(code))

static struct vm_result run(const struct vm_config *c)
{
    struct vm_result r = {0};
    struct vm *vm;

    ASSERT_EQ(vm_new(c, &vm, &err), 0);
    EXPECT_EQ(vm_get_state(vm), VM_CREATED);
    ASSERT_EQ(vm_start(vm, &err), 0);
    ASSERT_EQ(vm_wait(vm, host_now_ns() + 20 * SECOND, &r), 0);
    EXPECT_EQ(vm_get_state(vm), VM_STOPPED);
    vm_free(vm);
    (void)unlink(path);
    return r;
}

TEST(poweroff)
{
    struct vm_config c = CONFIG_CODE(1, code_poweroff);
    struct vm_result r = run(&c);

    EXPECT_EQ(r.reason, VM_STOP_POWEROFF);
    EXPECT_EQ(r.status, 0);
    EXPECT_TRUE(r.guest_instructions >= 5);
}

TEST(console_and_failure_code)
{
    struct vm_config c = CONFIG_CODE(1, code_echo);
    char out[16] = {0};
    int in[2];
    int o[2];

    ASSERT_TRUE(pipe(in) == 0 && pipe(o) == 0);
    ASSERT_EQ(fd_write_all(in[1], "Hello, q and more", 17), 0);
    c.console_in = in[0];
    c.console_out = o[1];
    struct vm_result r = run(&c);
    EXPECT_EQ(r.reason, VM_STOP_PANIC);
    EXPECT_EQ(r.status, 7);
    EXPECT_EQ(read(o[0], out, sizeof(out)), 8);
    EXPECT_STR(out, "Hello, q");
}

TEST(console_input_by_call_and_from_a_file)
{
    struct vm_config c = CONFIG_CODE(1, code_echo);
    struct vm_result r;
    struct vm *vm;

    ASSERT_EQ(vm_new(&c, &vm, &err), 0);
    ASSERT_EQ(vm_start(vm, &err), 0);
    EXPECT_EQ(vm_console_input(vm, "abcq", 4), 4);
    ASSERT_EQ(vm_wait(vm, host_now_ns() + 20 * SECOND, &r), 0);
    EXPECT_EQ(r.status, 7);
    vm_free(vm);

    FILE *f = tmpfile();
    ASSERT_TRUE(f != NULL);
    for (int i = 0; i < 10000; i++)
        fputc(i == 9999 ? 'q' : 'x', f);
    rewind(f);
    c.console_in = fileno(f);
    r = run(&c);
    EXPECT_EQ(r.status, 7);
}

TEST(input_goes_to_the_console_that_the_guest_reads)
{
    struct vm_config c = CONFIG_CODE(1, code_sbi_console);
    struct vm_result r;
    struct vm *vm;

    c.console_uart = false;
    ASSERT_EQ(vm_new(&c, &vm, &err), 0);
    ASSERT_EQ(vm_start(vm, &err), 0);
    int rc = -ETIMEDOUT;
    for (int i = 0; i < 2000 && rc; i++) {
        (void)vm_console_input(vm, "q", 1);
        rc = vm_wait(vm, host_now_ns() + SECOND / 100, &r);
    }
    ASSERT_EQ(rc, 0);
    EXPECT_EQ(r.reason, VM_STOP_POWEROFF);
    vm_free(vm);
    (void)unlink(path);
}

TEST(guest_reboots_and_reports_failure)
{
    struct vm_config c = CONFIG_CODE(2, code_reboot);
    struct vm_result r = run(&c);

    EXPECT_EQ(r.reason, VM_STOP_PANIC);
    EXPECT_EQ(r.status, 1);
}

TEST(guest_that_must_not_reboot_stops)
{
    uint32_t code[ARRAY_SIZE(code_reboot)];

    memcpy(code, code_reboot, sizeof(code));
    code[17] = 0x00000593; /* li a1, 0: after the reboot, shut down without failure */
    struct vm_config c = CONFIG_CODE(2, code);
    struct vm_result r = run(&c);
    EXPECT_EQ(r.reason, VM_STOP_POWEROFF);
    c = CONFIG_CODE(2, code);
    c.no_reboot = true;
    r = run(&c);
    EXPECT_EQ(r.reason, VM_STOP_PANIC);
    EXPECT_EQ(r.status, 1);
}

TEST(harts_are_started_by_the_guest)
{
    for (int i = 0; i < 5; i++) {
        struct vm_config c = CONFIG_CODE(4, code_smp);
        struct vm_result r = run(&c);

        EXPECT_EQ(r.reason, VM_STOP_POWEROFF);
    }
}

TEST(firmware_runs_in_machine_mode)
{
    struct vm_config c = config_for(3);
    uint8_t out[8];
    int o[2];

    write_file(code_machine, sizeof(code_machine));
    c.firmware = path;
    ASSERT_EQ(pipe(o), 0);
    c.console_out = o[1];
    struct vm_result r = run(&c);
    EXPECT_EQ(r.reason, VM_STOP_POWEROFF);
    EXPECT_EQ(read(o[0], out, sizeof(out)), 3);
    EXPECT_MEM(out, "O\xd0M", 3);
}

TEST(stop_pause_resume_and_reset)
{
    struct vm_config c = CONFIG_CODE(2, code_echo);
    struct vm_result r;
    struct vm *vm;
    char byte = 0;
    int o[2];

    ASSERT_EQ(pipe(o), 0);
    c.console_out = o[1];
    ASSERT_EQ(vm_new(&c, &vm, &err), 0);
    ASSERT_EQ(vm_start(vm, &err), 0);
    EXPECT_EQ(vm_console_input(vm, "x", 1), 1);
    ASSERT_EQ(read(o[0], &byte, 1), 1); /* it runs: on a busy host that takes its time */
    EXPECT_EQ(byte, 'x');
    EXPECT_EQ(vm_wait(vm, host_now_ns(), &r), -ETIMEDOUT);
    for (int i = 0; i < 3; i++) {
        vm_pause(vm);
        EXPECT_EQ(vm_get_state(vm), VM_PAUSED);
        vm_pause(vm);
        vm_reset(vm);
        vm_resume(vm);
        EXPECT_EQ(vm_get_state(vm), VM_RUNNING);
        vm_reset(vm);
    }
    vm_pause(vm);
    vm_stop(vm);
    ASSERT_EQ(vm_wait(vm, host_now_ns() + 20 * SECOND, &r), 0);
    EXPECT_EQ(r.reason, VM_STOP_REQUEST);
    EXPECT_TRUE(r.guest_instructions > 0);
    vm_stop(vm);
    vm_pause(vm);
    vm_reset(vm);
    EXPECT_EQ(vm_get_state(vm), VM_STOPPED);
    vm_free(vm);
    ASSERT_EQ(vm_new(&c, &vm, &err), 0); /* never started */
    vm_free(vm);
    (void)unlink(path);
}

TEST(free_while_it_runs)
{
    struct vm_config c = CONFIG_CODE(4, code_spin);
    struct vm *vm;

    c.console_uart = false;
    c.net = true;
    for (int i = 0; i < 3; i++) {
        ASSERT_EQ(vm_new(&c, &vm, &err), 0);
        ASSERT_EQ(vm_start(vm, &err), 0);
        vm_free(vm);
    }
    (void)unlink(path);
}

static void expect_refusal(const struct vm_config *c, const char *word)
{
    struct vm *vm;

    err = (struct error){0};
    EXPECT_TRUE(vm_new(c, &vm, &err) < 0);
    if (!strstr(err.text, word))
        test_fail(__FILE__, __LINE__, "'%s' does not say '%s'", err.text, word);
}

TEST(bad_configurations_are_refused_in_a_sentence)
{
    struct vm_config good = CONFIG_CODE(1, code_poweroff);
    struct vm_config c = good;
    char empty[] = "/tmp/vm_test_none.XXXXXX";
    cleanup(fd_closep) int fd = mkstemp(empty);

    ASSERT_TRUE(fd >= 0);
    c.cpus = 17;
    expect_refusal(&c, "17");
    c = good;
    c.memory_bytes = 8 << 20;
    expect_refusal(&c, "memory");
    c = good;
    c.kernel = "/nonexistent/k";
    expect_refusal(&c, "/nonexistent/k");
    c = good;
    c.kernel = "/proc/self/exe";
    expect_refusal(&c, "not a riscv64");
    c = good;
    c.initrd = "/nonexistent/i";
    expect_refusal(&c, "/nonexistent/i");
    c = good;
    c.initrd = empty;
    expect_refusal(&c, "empty");
    c = good;
    c.initrd = "/proc/self/exe"; /* an ELF of some size; make memory the problem */
    c.kernel = NULL;
    expect_refusal(&c, "nothing to boot");
    c = good;
    c.dump = "guest,nonsense";
    expect_refusal(&c, "nonsense");
    c = good;
    c.disks[0].path = "/nonexistent/d";
    c.disk_count = 1;
    expect_refusal(&c, "/nonexistent/d");
    c = good;
    c.flash = "/nonexistent/f";
    expect_refusal(&c, "/nonexistent/f");
    (void)unlink(empty);
    (void)unlink(path);
}

TEST(device_tree_is_written_without_a_kernel)
{
    struct vm_config c = config_for(2);
    char blob[65536];
    struct vm_result r;
    struct vm *vm;

    write_file("", 0);
    c.dump_dtb = path;
    ASSERT_EQ(vm_new(&c, &vm, &err), 0);
    ASSERT_EQ(vm_start(vm, &err), 0);
    ASSERT_EQ(vm_wait(vm, INT64_MAX, &r), 0);
    EXPECT_EQ(r.status, 0);
    vm_free(vm);
    FILE *f = fopen(path, "rb");
    ASSERT_TRUE(f != NULL);
    size_t n = fread(blob, 1, sizeof(blob), f);
    fclose(f);
    EXPECT_EQ(fdt_check_full(blob, n), 0);
    EXPECT_TRUE(fdt_path_offset(blob, "/cpus/cpu@1") >= 0);
    (void)unlink(path);
}

static const char *temporary_disk(char name[64], char letter)
{
    (void)snprintf(name, 64, "/tmp/vm_test.%d.%c", (int)getpid(), letter);
    FILE *f = fopen(name, "wb");
    ASSERT_TRUE(f && ftruncate(fileno(f), 1 << 20) == 0 && fclose(f) == 0);
    return name;
}

TEST(drives_of_serial_ata_are_held_saved_and_loaded)
{
    struct vm_config c = CONFIG_CODE(1, code_spin);
    struct state_out *save = state_out_new();
    char disk[64];
    char cdrom[64];
    struct vm *vm;

    c.disks[0] = (struct vm_disk_config){
        .path = temporary_disk(disk, 'a'), .format = "raw", .bus = VM_BUS_AHCI};
    c.disks[1] = (struct vm_disk_config){.path = temporary_disk(cdrom, 'b'),
                                         .format = "raw",
                                         .bus = VM_BUS_AHCI,
                                         .is_cdrom = true,
                                         .readonly = true};
    c.disk_count = 2;
    ASSERT_EQ(vm_new(&c, &vm, &err), 0);
    vm_disk_hold(vm, 0);
    EXPECT_STR(vm_disk(vm, 0)->path, disk);
    vm_disk_release(vm, 0);
    vm_freeze(vm);
    ASSERT_EQ(vm_save(vm, save, &err), 0);
    vm_thaw(vm);
    vm_free(vm);
    struct state_in *load = test_state_turn(save);

    c.no_boot = true;
    ASSERT_EQ(vm_new(&c, &vm, &err), 0);
    EXPECT_EQ(vm_load(vm, load, &err), 0);
    vm_free(vm);
    c.disks[1].is_cdrom = false; /* another drive than the state has */
    ASSERT_EQ(vm_new(&c, &vm, &err), 0);
    EXPECT_EQ(vm_load(vm, load, &err), -EINVAL);
    vm_free(vm);
    state_in_free(load);
    (void)unlink(path);
    (void)unlink(disk);
    (void)unlink(cdrom);
}
