/* Archives from anywhere: members into memory, their list of sums checked. */
#include "bundle/pack.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    struct unpack *u = NULL;
    struct error err = {0};
    const char *name;
    uint64_t bytes;
    char *last = NULL;
    size_t n;

    if (fd < 0 || write(fd, data, size) != (ssize_t)size || lseek(fd, 0, SEEK_SET))
        abort();
    if (!unpack_new(fd, NULL, NULL, &u, &err)) {
        while (unpack_next(u, &name, &bytes, &err) > 0) {
            char *text;
            if (unpack_text(u, 1 << 16, &text, &n, &err))
                break;
            free(last);
            last = text;
        }
        if (last && unpack_check(u, last, &err) > 0)
            abort();
    }
    free(last);
    unpack_free(u);
    close(fd);
    return 0;
}
