/* OVF descriptors from anywhere. */
#include "bundle/ovf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ovf o;
    struct error err = {0};

    if (!ovf_parse((const char *)data, size, &o, &err))
        ovf_done(&o);
    return 0;
}
