/* Fuzz target: kernel and firmware files of any content, and loading them into 4 MiB of RAM. */
#include "boot/boot_image.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct mem *mem; /* kept: mapping costs more than a run */
    uint8_t *copy = malloc(size ? size : 1);
    struct boot_image image;
    gpa_t entry;
    gpa_t end;

    if (!mem) {
        mem = mem_new();
        if (!mem || mem_add_ram(mem, GPA(0x80000000), 4 << 20, 0, "ram", NULL, NULL, NULL, NULL))
            abort();
    }
    if (!copy)
        abort();
    memcpy(copy, data, size);
    if (boot_image_parse(copy, size, true, &image, NULL))
        return 0;
    if (boot_image_load(&image, mem, GPA(0x80000000), &entry, &end, NULL) == 0 &&
        !mem_ptr(mem, GPA(end.v - 1), 1, true))
        abort();
    boot_image_done(&image);
    return 0;
}
