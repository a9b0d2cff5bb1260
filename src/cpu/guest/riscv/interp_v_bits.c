/* Interpreter handlers: Zvbb and Zvbc. See vector.h.
 * Spec: Vector Cryptography 1.0 (Unprivileged ISA 20240411, §34). */
#include "cpu/guest/riscv/vector.h"

RV_V_VX(vandn, andn, SAME)
RV_V_VX(vrol, rol, SAME)
RV_V_VXI(vror, ror, SAME)
RV_V_OP(vbrev, v, brev, SAME, V)
RV_V_OP(vbrev8, v, brev8, SAME, V)
RV_V_OP(vrev8, v, rev8, SAME, V)
RV_V_OP(vclz, v, clz, SAME, V)
RV_V_OP(vctz, v, ctz, SAME, V)
RV_V_OP(vcpop, v, cpop, SAME, V)
RV_V_VXI(vwsll, wsll, WIDE)

static unsigned __int128 multiply(uint64_t a, uint64_t b)
{
    unsigned __int128 product = 0;

    for (unsigned bit = 0; bit < 64; bit++)
        if (b >> bit & 1)
            product ^= (unsigned __int128)a << bit;
    return product;
}

static void clmul_64(void *d, const void *a, const void *b, size_t n, struct rv_vk_env *env)
{
    for (size_t i = 0; i < n; i++)
        rv_v_put(d, 3, i, (uint64_t)multiply(rv_v_get(a, 3, i), rv_v_get(b, 3, i)));
}

static void clmulh_64(void *d, const void *a, const void *b, size_t n, struct rv_vk_env *env)
{
    for (size_t i = 0; i < n; i++)
        rv_v_put(d, 3, i, (uint64_t)(multiply(rv_v_get(a, 3, i), rv_v_get(b, 3, i)) >> 64));
}

/* Of SEW 64 only. */
static const rv_vk clmul = {[3] = clmul_64}, clmulh = {[3] = clmulh_64};

RV_VECTOR(vclmul_vv, rv_v_run(h, i, clmul, RV_V_SAME, RV_V_VV))
RV_VECTOR(vclmul_vx, rv_v_run(h, i, clmul, RV_V_SAME, RV_V_VX))
RV_VECTOR(vclmulh_vv, rv_v_run(h, i, clmulh, RV_V_SAME, RV_V_VV))
RV_VECTOR(vclmulh_vx, rv_v_run(h, i, clmulh, RV_V_SAME, RV_V_VX))
