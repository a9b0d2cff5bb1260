/* A running Linux is saved and goes on in a new machine, many times, under changing engines.
 *
 *     state_turn KERNEL INITRD ROUNDS
 *
 * The guest (the demo's: a shell on the console) counts on its console, while another process of it
 * writes to a disk and reads back what it wrote, and adds a line to a file of a shared folder,
 * which it keeps open. In each round the machine is frozen, its memory and state are copied, it is
 * thrown away, and a new one is made of the copy. The numbers must come without a gap or a
 * repetition, and the disk's checks must hold. TAP. */
#include "base/clock.h"
#include "base/fd.h"
#include "snapshot/snapshot.h"
#include "vm/vm.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define MEMORY_BYTES (256ULL << 20)
#define SECOND       1000000000LL

static int input[2];  /* to the guest's console */
static int output[2]; /* from it */
static int next_number;
static int disk_checks;
static char disk_path[] = "/tmp/state_turn-XXXXXX";
static char snapshot_path[64];
static char share_path[64];
static char log_path[80]; /* in the shared folder; the guest keeps it open */

static void clean_up(void)
{
    (void)unlink(disk_path);
    (void)unlink(snapshot_path);
    (void)unlink(log_path);
    (void)rmdir(share_path);
}

static _Noreturn void fail(const char *what, const struct error *err)
{
    printf("not ok 1 - %s%s%s\n1..1\n", what, err ? ": " : "", err ? error_text(err) : "");
    clean_up();
    exit(1);
}

static struct vm_config make_config(const char *kernel, const char *initrd, unsigned round)
{
    static const enum vm_engine engines[] = {VM_ENGINE_JIT, VM_ENGINE_JIT, VM_ENGINE_INTERP};
    struct vm_config c = {
        .name = "turn",
        .cpus = 2,
        .memory_bytes = MEMORY_BYTES,
        .engine = engines[round % 3],
        .kernel = kernel,
        .initrd = initrd,
        .append = "console=hvc0 quiet",
        .no_boot = round > 0,
        .console_in = input[0],
        .console_out = output[1],
        .net = true,
        .disk_count = 1,
        .share_count = 1,
    };

    c.disks[0] = (struct vm_disk_config){.path = disk_path, .format = "raw"};
    c.shares[0] =
        (struct vm_share_config){.host_path = share_path, .tag = "share0", .guest_path = "/s"};
    return c;
}

/** A line of the guest's console. */
static void take_line(const char *line)
{
    int number;

    if (strstr(line, "DISK-BAD") || strstr(line, "Oops") || strstr(line, "panic"))
        fail(line, NULL);
    if (strstr(line, "DISK-GOOD"))
        disk_checks++;
    const char *count = strstr(line, "count ");
    if (!count || sscanf(count, "count %d", &number) != 1)
        return;
    if (number != next_number) {
        printf("# %d after %d\n", number, next_number - 1);
        fail("the numbers have a gap or a repetition", NULL);
    }
    next_number++;
}

/** Read the console until @want has come in a line. */
static bool read_console(const char *want, int64_t deadline_ns)
{
    static char line[4096];
    static size_t size;

    for (;;) {
        struct pollfd p = {.fd = output[0], .events = POLLIN};
        char byte;

        if (poll(&p, 1, 100) <= 0 || host_now_ns() > deadline_ns) {
            if (host_now_ns() > deadline_ns)
                return false;
            continue;
        }
        if (read(output[0], &byte, 1) != 1)
            return false;
        if (size < sizeof(line) - 1 && byte != '\r' && byte != '\n')
            line[size++] = byte;
        line[size] = 0;
        bool found = strstr(line, want);
        if (byte == '\n') {
            take_line(line);
            size = 0;
        }
        if (found)
            return true;
    }
}

static void say(const char *text)
{
    if (fd_write_all(input[1], text, strlen(text)))
        fail("cannot write to the console", NULL);
}

static int64_t longest_pause_ns;
static uint64_t file_bytes, memory_bytes;

static void save(struct vm *vm, const char *path)
{
    struct error err = {0};
    struct snapshot_report report = {0};

    (void)unlink(path);
    if (snapshot_save(vm, path, NULL, &report, &err))
        fail("cannot save", &err);
    longest_pause_ns = MAX(longest_pause_ns, report.pause_ns);
    file_bytes = report.file_bytes;
    memory_bytes = report.memory_bytes;
}

static struct vm *turn(struct vm *vm, const struct vm_config *c)
{
    struct error err = {0};

    save(vm, snapshot_path); /* while it runs: it goes on, and nobody wants the file */
    vm_pause(vm);
    save(vm, snapshot_path);
    vm_free(vm);
    if (vm_new(c, &vm, &err) || snapshot_load(vm, snapshot_path, &err) || vm_start(vm, &err))
        fail("cannot go on", &err);
    return vm;
}

/** Lines 1, 2, 3... without a gap; how many. */
static int check_log(void)
{
    FILE *f = fopen(log_path, "r");
    int lines = 0;
    int number;

    if (!f)
        fail("nothing came into the shared folder", NULL);
    while (fscanf(f, "%d", &number) == 1) {
        if (number != ++lines)
            fail("a line of the shared folder's file is lost or there twice", NULL);
    }
    (void)fclose(f); /* only read */
    return lines;
}

int main(int argc, char **argv)
{
    struct error err = {0};
    struct vm *vm = NULL;

    if (argc != 4)
        return fprintf(stderr, "usage: state_turn KERNEL INITRD ROUNDS\n"), 2;
    unsigned rounds = (unsigned)strtoul(argv[3], NULL, 0);
    int fd = mkostemp(disk_path, O_CLOEXEC);
    if (fd < 0 || ftruncate(fd, 64 << 20) || pipe2(input, O_CLOEXEC) || pipe2(output, O_CLOEXEC))
        fail("no files", NULL);
    fd_close(fd);
    (void)snprintf(snapshot_path, sizeof(snapshot_path), "%s.snapshot", disk_path);
    (void)snprintf(share_path, sizeof(share_path), "%s.share", disk_path);
    (void)snprintf(log_path, sizeof(log_path), "%s/log", share_path);
    if (mkdir(share_path, 0755))
        fail("no folder", NULL);
    struct vm_config c = make_config(argv[1], argv[2], 0);
    if (vm_new(&c, &vm, &err) || vm_start(vm, &err))
        fail("cannot start", &err);
    if (!read_console("# ", host_now_ns() + 120 * SECOND))
        fail("no prompt", NULL);
    /* The shell shows what is typed: quotes keep that from looking like output. */
    say("modprobe virtio_blk; mdev -s; mkdir /s; mount -t virtiofs share0 /s; exec 5>>/s/log; (n=0; while true; do n=$((n+1)); "
        "dd if=/dev/urandom of=/tmp/x bs=64k count=16 2>/dev/null; "
        "dd if=/tmp/x of=/dev/vda bs=64k seek=$((n % 60 * 16)) conv=fsync 2>/dev/null; "
        "echo 3 > /proc/sys/vm/drop_caches; "
        "dd if=/dev/vda bs=64k skip=$((n % 60 * 16)) count=16 2>/dev/null | cmp - /tmp/x && "
        "echo DISK-'GOOD' || echo DISK-'BAD'; echo $n >&5; done) & "
        "i=0; while true; do echo count $i; i=$((i+1)); done\n");
    for (unsigned round = 1; round <= rounds; round++) {
        int before = next_number;

        if (!read_console("count ", host_now_ns() + 60 * SECOND))
            fail("the guest has stopped counting", NULL);
        (void)read_console("no such line",
                           host_now_ns() + (int64_t)(50 + round * 37 % 400) * 1000000);
        c = make_config(argv[1], argv[2], round);
        vm = turn(vm, &c);
        if (next_number == before)
            printf("# round %u: nothing was counted\n", round);
    }
    int turned = next_number;
    (void)read_console("no such line", host_now_ns() + 5 * SECOND);
    if (next_number <= turned)
        fail("the guest does not count after the last turn", NULL);
    vm_free(vm);
    int lines = check_log();
    clean_up();
    printf("# %d lines in the shared folder\n", lines);
    printf("# %d numbers, %d disk checks; longest pause %.1f ms, %.0f MiB of memory in %.1f MiB\n",
           next_number, disk_checks, (double)longest_pause_ns / 1e6, (double)memory_bytes / 1048576,
           (double)file_bytes / 1048576);
    if (disk_checks && !lines)
        disk_checks = 0; /* fails */
    printf("%sok 1 - a running guest goes on in %u new machines\n1..1\n", disk_checks ? "" : "not ",
           rounds);
    return disk_checks ? 0 : 1;
}
