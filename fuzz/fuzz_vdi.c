/* A VDI image from anywhere, read, written, checked, mended and resized. */
#include "disk_image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_image(&vdi_format, data, size);
    return 0;
}
