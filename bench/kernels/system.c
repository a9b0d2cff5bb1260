/* What an operating system does all day: system calls, page faults, processes, pipes, code that is
 * written and run. */
#include "kernels.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static NOINLINE uint64_t system_calls(unsigned scale)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < 1000 * scale; i++)
        sum += syscall(SYS_getppid) >= 0;
    return sum;
}

static NOINLINE uint64_t page_faults(unsigned scale)
{
    enum { SIZE = 1 << 20 };
    uint64_t sum = 0;

    for (unsigned r = 0; r < scale; r++) {
        uint8_t *p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        for (unsigned i = 0; i < SIZE; i += 4096)
            p[i] = (uint8_t)(i >> 12);
        for (unsigned i = 0; i < SIZE; i += 4096)
            sum += p[i];
        munmap(p, SIZE);
    }
    return sum;
}

static NOINLINE uint64_t forks(unsigned scale)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < scale; i++) {
        pid_t pid = fork();
        int status;

        if (!pid)
            _exit((int)(i & 63));
        waitpid(pid, &status, 0);
        sum += (uint64_t)WEXITSTATUS(status);
    }
    return sum;
}

static NOINLINE uint64_t execs(unsigned scale)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < scale; i++) {
        pid_t pid = vfork();
        int status;

        if (!pid) {
            execl("/proc/self/exe", "kernels", "exit", (char *)NULL);
            execl("/init", "kernels", "exit", (char *)NULL);
            _exit(2);
        }
        waitpid(pid, &status, 0);
        sum += (uint64_t)WEXITSTATUS(status);
    }
    return sum;
}

static void echo(int in, int out)
{
    char c;

    while (read(in, &c, 1) == 1 && write(out, &c, 1) == 1)
        ;
    _exit(0);
}
static NOINLINE uint64_t pipes(unsigned scale)
{
    int to[2], from[2];
    uint64_t sum = 0;
    pid_t pid;

    if (pipe(to) || pipe(from))
        return 0;
    pid = fork();
    if (!pid) {
        close(to[1]);
        close(from[0]);
        echo(to[0], from[1]);
    }
    close(to[0]);
    close(from[1]);
    for (unsigned i = 0; i < 100 * scale; i++) {
        char c = (char)i;

        if (write(to[1], &c, 1) != 1 || read(from[0], &c, 1) != 1)
            return 0;
        sum += (uint8_t)c;
    }
    close(to[1]);
    close(from[0]);
    waitpid(pid, NULL, 0);
    return sum;
}

static NOINLINE uint64_t written_code(unsigned scale)
{
    uint8_t *p =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t sum = 0;

    if (p == MAP_FAILED)
        return 0;
    for (unsigned i = 0; i < 100 * scale; i++) {
        uint32_t v = i & 0x3ff;
#ifdef __riscv
        uint32_t code[2] = {0x00000513u | v << 20, 0x00008067u}; /* li a0, v; ret */

        memcpy(p, code, 8);
#else
        p[0] = 0xb8; /* mov eax, v; ret */
        memcpy(p + 1, &v, 4);
        p[5] = 0xc3;
#endif
        __builtin___clear_cache((char *)p, (char *)p + 8);
        sum += ((unsigned (*)(void))p)();
    }
    munmap(p, 4096);
    return sum;
}

/* Locks and counters as threads use them, without contention. */
static NOINLINE uint64_t locks(unsigned scale)
{
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static uint64_t counter;
    uint64_t sum = 0;

    for (unsigned i = 0; i < 10000 * scale; i++) {
        pthread_mutex_lock(&mutex);
        sum += __atomic_fetch_add(&counter, i, __ATOMIC_RELAXED);
        pthread_mutex_unlock(&mutex);
    }
    return sum;
}

const struct kernel system_kernels[] = {
    {"syscall",   system_calls, NULL, 200,  "system"},
    {"pagefault", page_faults,  NULL, 60,   "system"},
    {"fork",      forks,        NULL, 200,  "system"},
    {"exec",      execs,        NULL, 40,   "system"},
    {"pipe",      pipes,        NULL, 50,   "system"},
    {"smc",       written_code, NULL, 1000, "system"},
    {"locks",     locks,        NULL, 300,  "system"},
    {NULL,        NULL,         NULL, 0,    NULL    },
};
