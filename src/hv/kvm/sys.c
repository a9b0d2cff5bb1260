/* The host's kernel, as hv/kvm reaches it. Threads: any. */
#include "hv/kvm/kvm_internal.h"

#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

static int sys_open(void *arg, const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);

    return fd < 0 ? -errno : fd;
}

static int sys_ioctl(void *arg, int fd, unsigned long request, uintptr_t value)
{
    int rc = ioctl(fd, request, value);

    return rc < 0 ? -errno : rc;
}

static int sys_map(void *arg, int fd, size_t size, void **ret)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (p == MAP_FAILED)
        return -errno;
    /* A live clone is a fork of this process: with the window it would keep the whole machine in
     * the kernel for as long as it lives. If it cannot be left out, that is all the harm. */
    (void)madvise(p, size, MADV_DONTFORK);
    *ret = p;
    return 0;
}

static void sys_unmap(void *arg, void *p, size_t size)
{
    (void)munmap(p, size); /* ours, so it cannot fail */
}

static void sys_close(void *arg, int fd)
{
    if (fd >= 0)
        (void)close(fd); /* nothing was written through it */
}

static int sys_read(void *arg, int fd, void *buf, size_t size, uint64_t offset)
{
    ssize_t n = pread(fd, buf, size, (off_t)offset);

    return n == (ssize_t)size ? 0 : n < 0 ? -errno : -EIO;
}

static bool sys_has_extension(void *arg)
{
    unsigned a;
    unsigned b;
    unsigned c;
    unsigned d;

    if (__get_cpuid(1, &a, &b, &c, &d) && c & 1u << 5)
        return true;
    return __get_cpuid(0x80000001, &a, &b, &c, &d) && c & 1u << 2;
}

const struct kvm_sys kvm_sys_host = {
    .open = sys_open,
    .ioctl = sys_ioctl,
    .map = sys_map,
    .unmap = sys_unmap,
    .close = sys_close,
    .read = sys_read,
    .has_extension = sys_has_extension,
};
