/* Runs kernels: as a program, `kernels NAME...` or `kernels NAME=SCALE...`, or NAME=SCALE*N for as
 * many processes at once that do the same; as process 1 of a guest it reads such names from the
 * console, one a line, and switches the machine off at the end of input or at `quit`.
 *
 * Prints "BEGIN name", runs, prints "END name <checksum> <its own CPU time, s>". Each kernel runs
 * in a process of its own. */
#include "kernels.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t random_state;

void restart_random(void)
{
    random_state = 88172645463325252ULL;
}

uint64_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static const struct kernel *const groups[] = {integer_kernels, memory_kernels, float_kernels,
                                              system_kernels};

static const struct kernel *find(const char *name, size_t length)
{
    for (size_t g = 0; g < sizeof(groups) / sizeof(groups[0]); g++) {
        for (const struct kernel *k = groups[g]; k->name; k++) {
            if (strlen(k->name) == length && !memcmp(k->name, name, length))
                return k;
        }
    }
    return NULL;
}

static void list(void)
{
    for (size_t g = 0; g < sizeof(groups) / sizeof(groups[0]); g++) {
        for (const struct kernel *k = groups[g]; k->name; k++)
            printf("%s %s %u\n", k->name, k->group, k->scale);
    }
}

static double cpu_seconds(void)
{
    struct rusage a, b;

    getrusage(RUSAGE_SELF, &a);
    getrusage(RUSAGE_CHILDREN, &b);
    return (double)(a.ru_utime.tv_sec + a.ru_stime.tv_sec + b.ru_utime.tv_sec + b.ru_stime.tv_sec) +
           (double)(a.ru_utime.tv_usec + a.ru_stime.tv_usec + b.ru_utime.tv_usec +
                    b.ru_stime.tv_usec) *
               1e-6;
}

/** The kernel in @copies processes at once, of which this is one. */
static uint64_t run_copies(const struct kernel *k, unsigned scale, unsigned copies)
{
    uint64_t sum;

    for (unsigned n = 1; n < copies; n++) {
        if (fork() == 0) {
            (void)k->run(scale);
            _exit(0);
        }
    }
    sum = k->run(scale);
    while (wait(NULL) > 0)
        ;
    return sum;
}

static int run(const char *what)
{
    size_t length = strcspn(what, "=");
    const struct kernel *k = find(what, length);
    unsigned scale, copies = 1;
    char *end;
    uint64_t sum;
    double start;

    if (!k) {
        printf("UNKNOWN %s\n", what);
        return 1;
    }
    scale = k->scale;
    if (what[length]) {
        scale = (unsigned)strtoul(what + length + 1, &end, 10);
        if (*end == '*')
            copies = (unsigned)strtoul(end + 1, NULL, 10);
    }
    restart_random();
    if (k->prepare)
        k->prepare();
    printf("BEGIN %s\n", k->name);
    (void)usleep(30000); /* who measures from outside looks at its clock now, late on a busy host */
    start = cpu_seconds();
    sum = run_copies(k, scale, copies);
    printf("END %s %016llx %.6f\n", k->name, (unsigned long long)sum, cpu_seconds() - start);
    return 0;
}

static int run_apart(const char *what)
{
    int status;
    pid_t pid = fork();

    if (!pid)
        exit(run(what));
    return pid < 0 || waitpid(pid, &status, 0) != pid || status;
}

/* The init of a guest: what it has is a kernel and /dev/console. */
static void serve(void)
{
    char line[256];

    printf("READY\n");
    while (fgets(line, sizeof(line), stdin)) {
        line[strcspn(line, "\r\n")] = '\0';
        if (!strcmp(line, "quit"))
            break;
        if (line[0] && run_apart(line))
            printf("FAILED %s\n", line);
    }
    sync();
    reboot(RB_POWER_OFF);
}

int main(int argc, char **argv)
{
    int failed = 0;

    if (argc == 2 && !strcmp(argv[1], "exit")) /* what the kernel `exec` runs */
        return 1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (getpid() == 1)
        serve();
    if (argc < 2)
        list();
    for (int i = 1; i < argc; i++)
        failed |= run_apart(argv[i]);
    return failed;
}
