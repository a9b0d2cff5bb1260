/* Checks of the host's CPU, kernel and memory. Each tries the thing itself rather than guess from
 * versions. The main thread; a check that could change this process runs in a child. */
#include "cli/doctor.h"

#include "base/fd.h"
#include "vm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#define GIB (1ULL << 30)

void doctor_cpu(struct doctor_result *r)
{
    struct utsname host = {0};

    (void)uname(&host); /* fails only on a bad address */
#ifdef __x86_64__
    char missing[128] = "";
#define CPU_NEEDS(feature)                    \
    do {                                      \
        if (!__builtin_cpu_supports(feature)) \
            strcat(missing, " " feature);     \
    } while (0)
    CPU_NEEDS("sse4.2");
    CPU_NEEDS("popcnt");
    CPU_NEEDS("avx2");
    CPU_NEEDS("fma");
    CPU_NEEDS("bmi");
    CPU_NEEDS("bmi2");
#undef CPU_NEEDS
    if (*missing)
        doctor_set(r, DOCTOR_WARN,
                   "expect less speed; in a virtual machine, give it the host's CPU model",
                   "x86-64 without%s, which translated code likes to use", missing);
    else
        doctor_set(r, DOCTOR_OK, NULL, "x86-64 with AVX2, FMA, BMI2");
#else
    doctor_set(r, DOCTOR_WARN, "use an x86-64 host for the translating engine",
               "%s: only the interpreter runs here", host.machine);
#endif
}

void doctor_kvm(struct doctor_result *r)
{
    struct error err = {0};
    int rc = vm_kvm_check(&err);

    if (!rc)
        doctor_set(r, DOCTOR_OK, NULL, "amd64 machines run under KVM");
    else
        doctor_set(r, DOCTOR_WARN, vm_kvm_remedy(rc),
                   "amd64 machines do not run (riscv64 ones do): %.180s", error_text(&err));
}

/** A "Name:   123 kB" line of /proc/meminfo, in bytes; 0 when it is not there. */
static uint64_t meminfo(const char *name)
{
    char line[128];
    uint64_t kib = 0;
    FILE *f = fopen("/proc/meminfo", "re");

    while (f && fgets(line, sizeof(line), f)) {
        size_t n = strlen(name);
        if (!strncmp(line, name, n) && line[n] == ':') {
            (void)sscanf(line + n + 1, "%" SCNu64, &kib); /* kib stays 0 */
            break;
        }
    }
    if (f)
        (void)fclose(f); /* only read */
    return kib << 10;
}

void doctor_memory(struct doctor_result *r)
{
    uint64_t available = meminfo("MemAvailable");
    struct rlimit as;
    double gib = (double)available / (double)GIB;

    if (!getrlimit(RLIMIT_AS, &as) && as.rlim_cur != RLIM_INFINITY && as.rlim_cur < 8 * GIB)
        doctor_set(r, DOCTOR_WARN, "raise it: ulimit -v unlimited",
                   "address space is limited to %.1f GiB", (double)as.rlim_cur / (double)GIB);
    else if (available < GIB / 2)
        doctor_set(r, DOCTOR_FAIL, "free some memory, or add swap",
                   "%.1f GiB available; the smallest useful guest takes about 0.5 GiB", gib);
    else if (available < 2 * GIB)
        doctor_set(r, DOCTOR_WARN, "give guests less than the default: --memory 512M",
                   "%.1f GiB available", gib);
    else
        doctor_set(r, DOCTOR_OK, NULL, "%.1f GiB available", gib);
}

/** Map a memfd twice, write code through one mapping and run it through the other. */
static const char *run_from_memfd(void)
{
    static const unsigned char code[] = {0xb8, 0x2a, 0, 0, 0, 0xc3}; /* mov eax, 42; ret */
    cleanup(fd_closep) int fd = memfd_create("posada-doctor", MFD_CLOEXEC);

    if (fd < 0 || ftruncate(fd, 4096))
        return "memfd_create";
    unsigned char *w = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (w == MAP_FAILED)
        return "mapping memory to write";
    memcpy(w, code, sizeof(code));
    void *x = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    (void)munmap(w, 4096);
    if (x == MAP_FAILED)
        return "mapping memory to execute";
    int got = 42;
#ifdef __x86_64__
    int (*fn)(void);
    memcpy(&fn, &x, sizeof(fn));
    got = fn();
#endif
    (void)munmap(x, 4096);
    return got == 42 ? NULL : "running code";
}

void doctor_code_memory(struct doctor_result *r)
{
    const char *failed = run_from_memfd();

    if (failed)
        doctor_set(r, DOCTOR_FAIL,
                   "allow it in the security policy (SELinux, seccomp) or use --engine=interp",
                   "%s failed: %s; translated code needs it", failed, strerror(errno));
    else
        doctor_set(r, DOCTOR_OK, NULL, "generated code runs, and is never writable where it runs");
}

void doctor_descriptors(struct doctor_result *r)
{
    struct rlimit n;

    if (!getrlimit(RLIMIT_NOFILE, &n) && n.rlim_cur < 256)
        doctor_set(r, DOCTOR_WARN, "raise it: ulimit -n 1024", "at most %llu open files",
                   (unsigned long long)n.rlim_cur);
    else
        doctor_set(r, DOCTOR_OK, NULL, "at most %llu open files", (unsigned long long)n.rlim_cur);
}

void doctor_user_namespaces(struct doctor_result *r)
{
    int status = 0;
    pid_t pid = fork();

    if (!pid)
        _exit(unshare(CLONE_NEWUSER) ? 1 : 0);
    if (pid < 0 || waitpid(pid, &status, 0) < 0 || status)
        doctor_set(
            r, DOCTOR_WARN,
            "as root: sysctl kernel.unprivileged_userns_clone=1 "
            "kernel.apparmor_restrict_unprivileged_userns=0",
            "user namespaces cannot be made; shared folders then cannot keep several owners");
    else
        doctor_set(r, DOCTOR_OK, NULL, "user namespaces can be made");
}

void doctor_io_uring(struct doctor_result *r)
{
    struct io_uring_params params = {0};
    int fd = (int)syscall(SYS_io_uring_setup, 4, &params);

    if (fd < 0)
        doctor_set(r, DOCTOR_OK, NULL, "no io_uring (%s); disks use threads instead",
                   strerror(errno));
    else
        doctor_set(r, DOCTOR_OK, NULL, "io_uring works");
    fd_close(fd);
}
