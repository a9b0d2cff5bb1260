/* A running Linux is cloned, live, many times.
 *
 *     live_clone KERNEL INITRD COUNT
 *
 * The guest is the demo's: a shell on the console. Each clone must answer at once, keep what was
 * set before it was made, and keep to itself what is set in it afterwards, as must the original,
 * and have its kernel reseed its random numbers. Prints the time from asking for a clone to its
 * first answer, and the memory that each has for itself. TAP. */
#include "base/clock.h"
#include "base/fd.h"
#include "snapshot/snapshot.h"
#include "vm/vm.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#define MEMORY_BYTES (512ULL << 20)
#define SECOND       1000000000LL

enum { MAX_CLONES = 200 };

/** One machine's console, as seen from outside. */
struct seat {
    int input[2], output[2];
    pid_t process;
    int64_t answer_ns, cpu_ns, pause_ns;
};

static struct seat seats[MAX_CLONES + 1]; /* the original's first */
static const char *kernel, *initrd;
static size_t seat_count;

static _Noreturn void fail(const char *what, size_t seat, const struct error *err)
{
    printf("not ok 1 - machine %zu: %s%s%s\n1..1\n", seat, what, err ? ": " : "",
           err ? error_text(err) : "");
    for (size_t i = 1; i < seat_count; i++)
        (void)kill(seats[i].process, SIGKILL);
    exit(1);
}

static struct vm_config make_config(const struct seat *s)
{
    return (struct vm_config){
        .name = "original",
        .cpus = 2,
        .memory_bytes = MEMORY_BYTES,
        .kernel = kernel,
        .initrd = initrd,
        .append = "console=hvc0 quiet",
        .console_in = s->input[0],
        .console_out = s->output[1],
        .net = true,
    };
}

static void open_seat(struct seat *s)
{
    if (pipe2(s->input, O_CLOEXEC) || pipe2(s->output, O_CLOEXEC))
        fail("no pipes", (size_t)(s - seats), NULL);
}

/** Type @command and read until @want comes: the whole of what was read is in *@ret. */
static bool ask(const struct seat *s, const char *command, const char *want, char *ret, size_t room,
                int seconds)
{
    int64_t deadline_ns = host_now_ns() + seconds * SECOND;
    size_t size = 0;

    if (fd_write_all(s->input[1], command, strlen(command)))
        return false;
    while (host_now_ns() < deadline_ns && size < room - 1) {
        struct pollfd p = {.fd = s->output[0], .events = POLLIN};

        if (poll(&p, 1, 100) <= 0)
            continue;
        ssize_t n = read(s->output[0], ret + size, room - 1 - size);
        if (n <= 0)
            return false;
        size += (size_t)n;
        ret[size] = 0;
        if (strstr(ret, want))
            return true;
    }
    return false;
}

static void expect(size_t seat, const char *command, const char *want)
{
    char text[4096] = "";

    if (!ask(&seats[seat], command, want, text, sizeof(text), 60)) {
        printf("# machine %zu was asked: %s# it said: %s\n", seat, command, text);
        fail("it does not answer as it should", seat, NULL);
    }
}

/** The clone's process. */
static int run_clone(void *arg, const struct snapshot_seed *seed)
{
    struct vm_config config = make_config(arg);
    struct error err = {0};
    struct vm_result result;
    struct vm *vm;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (snapshot_grow(seed, &config, &vm, &err) || vm_start(vm, &err)) {
        fprintf(stderr, "clone: %s\n", error_text(&err));
        return 1;
    }
    return vm_wait(vm, INT64_MAX, &result);
}

/** Processor time of a process so far. */
static int64_t cpu_ns(pid_t process)
{
    clockid_t clock;
    struct timespec t = {0};

    if (!clock_getcpuclockid(process, &clock))
        (void)clock_gettime(clock, &t); /* else the process has ended: 0 */
    return (int64_t)t.tv_sec * SECOND + t.tv_nsec;
}

static void make_clone(struct vm *vm, size_t i)
{
    struct seat *s = &seats[i];
    char command[64];
    char want[32];
    struct error err = {0};

    open_seat(s);
    int keep[] = {s->input[0], s->output[1]};
    struct snapshot_clone options = {
        .main = run_clone, .arg = s, .keep_fds = keep, .keep_count = 2};
    int64_t start_ns = host_now_ns();
    if (snapshot_clone(vm, &options, &s->process, &s->pause_ns, &err))
        fail("cannot be made", i, &err);
    seat_count = i + 1;
    (void)snprintf(command, sizeof(command), "echo $x-$((%zu*3)); x=${x}%zu\n", i, i);
    (void)snprintf(want, sizeof(want), "origin-%zu\r", i * 3);
    expect(i, command, want);
    s->answer_ns = host_now_ns() - start_ns;
    s->cpu_ns = cpu_ns(s->process);
}

/** KiB that the process shares with nobody. */
static long private_kib(pid_t process)
{
    char path[64];
    char line[256];
    long total = 0;
    long kib;

    (void)snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", process);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f)) {
        if (sscanf(line, "Private_Clean: %ld", &kib) == 1 ||
            sscanf(line, "Private_Dirty: %ld", &kib) == 1)
            total += kib;
    }
    if (f)
        (void)fclose(f); /* only read */
    return total;
}

static int compare_longs(const void *a, const void *b)
{
    const int64_t *x = a;
    const int64_t *y = b;

    return *x < *y ? -1 : *x > *y;
}

static void report(size_t count)
{
    int64_t answers[MAX_CLONES];
    int64_t cpus[MAX_CLONES];
    int64_t pauses[MAX_CLONES];
    int64_t kib[MAX_CLONES];

    for (size_t i = 0; i < count; i++) {
        answers[i] = seats[i + 1].answer_ns;
        cpus[i] = seats[i + 1].cpu_ns;
        pauses[i] = seats[i + 1].pause_ns;
        kib[i] = private_kib(seats[i + 1].process);
    }
    qsort(answers, count, sizeof(*answers), compare_longs);
    qsort(cpus, count, sizeof(*cpus), compare_longs);
    qsort(pauses, count, sizeof(*pauses), compare_longs);
    qsort(kib, count, sizeof(*kib), compare_longs);
    printf(
        "# %zu clones: first answer after %.1f ms (median; worst %.1f), %.1f ms of processor time; "
        "pause %.1f ms (worst %.1f), own memory %.1f MiB each\n",
        count, (double)answers[count / 2] / 1e6, (double)answers[count - 1] / 1e6,
        (double)cpus[count / 2] / 1e6, (double)pauses[count / 2] / 1e6,
        (double)pauses[count - 1] / 1e6, (double)kib[count / 2] / 1024);
}

int main(int argc, char **argv)
{
    struct error err = {0};
    struct vm *vm = NULL;
    char text[65536];

    if (argc != 4)
        return fprintf(stderr, "usage: live_clone KERNEL INITRD COUNT\n"), 2;
    kernel = argv[1];
    initrd = argv[2];
    size_t count = MIN((size_t)strtoul(argv[3], NULL, 0), (size_t)MAX_CLONES);
    open_seat(&seats[0]);
    struct vm_config config = make_config(&seats[0]);
    if (vm_new(&config, &vm, &err) || vm_start(vm, &err))
        fail("cannot start", 0, &err);
    if (!ask(&seats[0], "", "# ", text, sizeof(text), 120))
        fail("no prompt", 0, NULL);
    expect(0, "x=ori''gin; echo $x-0\n", "origin-0\r");
    for (size_t i = 1; i <= count; i++)
        make_clone(vm, i);
    expect(0, "echo $x-orig''inal\n", "origin-original\r");
    for (size_t i = 1; i <= count; i++) {
        char want[32];

        (void)snprintf(want, sizeof(want), "origin%zu-again\r", i);
        expect(i, "echo $x-ag''ain\n", want);
        expect(i, "echo reseeded-$(dmesg | grep -c 'crng reseeded due to virtual machine fork')\n",
               "reseeded-1\r");
    }
    report(count);
    for (size_t i = 1; i <= count; i++) {
        (void)kill(seats[i].process, SIGKILL);
        (void)waitpid(seats[i].process, NULL, 0);
    }
    vm_free(vm);
    printf("ok 1 - a running guest and its %zu live clones go their own ways\n1..1\n", count);
    return 0;
}
