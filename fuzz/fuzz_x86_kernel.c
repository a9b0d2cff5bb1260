/* Fuzz target: kernels for x86-64 machines of any content, and loading them into 4 MiB of RAM. */
#include "boot/x86.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct x86_range ranges[] = {
        {0, 4 << 20, X86_RAM}
    };
    static struct mem *mem; /* kept: mapping costs more than a run */
    struct x86_boot b = {.cmdline = "quiet",
                         .initrd = (const uint8_t *)"initrd",
                         .initrd_size = 6,
                         .low_ram = 4 << 20,
                         .ranges = ranges,
                         .range_count = 1};
    uint8_t *copy = malloc(size ? size : 1);
    struct x86_kernel k;
    struct x86_start start;

    if (!mem) {
        mem = mem_new();
        if (!mem || mem_add_ram(mem, GPA(0), 4 << 20, 0, "ram", NULL, NULL, NULL, NULL))
            abort();
        mem_freeze(mem);
    }
    if (!copy)
        abort();
    memcpy(copy, data, size);
    if (x86_kernel_parse(copy, size, &k, NULL))
        return 0;
    if (x86_load(&k, &b, mem, &start, NULL) == 0 && k.protocol != X86_LINUX64 && start.long_mode)
        abort();
    x86_kernel_done(&k);
    return 0;
}
