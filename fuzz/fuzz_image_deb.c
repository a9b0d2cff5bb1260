/* A package file, as a mirror with a stolen key might serve it. */
#include "base/fd.h"
#include "image/unpack.h"

#include <stdio.h>
#include <sys/mman.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int control(const char *name, const char *data, size_t size, void *arg)
{
    assert(!data[size]);
    return 0;
}

static int entry(struct archive *a, struct archive_entry *e, const char *name, void *arg)
{
    char *data = NULL;
    size_t size = 0;

    assert(name[0] && name[0] != '/');
    if (!deb_read_entry(a, 1 << 20, &data, &size, NULL))
        free(data);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct deb_ops ops = {.control = control, .data = entry};
    char path[64];
    cleanup(fd_closep) int fd = memfd_create("deb", MFD_CLOEXEC);

    if (fd < 0 || fd_write_all(fd, data, size))
        return 0;
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    (void)!deb_read(path, &ops, NULL, NULL);
    return 0;
}
