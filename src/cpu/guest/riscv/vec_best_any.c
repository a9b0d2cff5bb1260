/* Which vector kernels to use on hosts without special ones. Any thread. */
#include "cpu/guest/riscv/vec_kernels.h"

const struct rv_vk_table *rv_vk_best(void)
{
    return &rv_vk_any;
}

/** Flags and rounding modes of the host's unit are not known here. */
bool rv_vk_run_float(rv_vk_fn *fn, void *d, const void *a, const void *b, size_t n, unsigned rm,
                     struct rv_vk_env *env, uint8_t *ret_flags)
{
    return false;
}
