/* Loops over whole arrays of vector elements, by operation and element width: what the vector
 * handlers call. One table for any host, others for hosts that can do better (vec_kernels.c is
 * compiled for each).
 *
 * A kernel computes all @n elements, masked or not: the caller keeps the results it wants. Operands
 * may be the same array, but must not overlap otherwise. Any thread. */
#ifndef CPU_GUEST_RISCV_VEC_KERNELS_H
#define CPU_GUEST_RISCV_VEC_KERNELS_H

#include "cpu/fp/fp.h"

#include <stddef.h>
#include <stdint.h>

/** What a kernel reads and reports beside its operands. */
struct rv_vk_env {
    uint8_t vxrm;
    uint8_t vxsat;     /* set to 1 when a result saturated */
    bool nan;          /* floating point on the host: set when a result is a NaN: the caller starts
                          again with exact arithmetic */
    struct fp_env *fp; /* floating point in software */
};

/** d[i] = a[i] op b[i]; some operations also read d. */
typedef void rv_vk_fn(void *d, const void *a, const void *b, size_t n, struct rv_vk_env *env);

/** By log2 of the bytes of SEW; NULL where there is none. */
typedef rv_vk_fn *rv_vk[4];

/* clang-format off */
/** Same width. */
#define RV_VK_SAME(X)                                                                      \
    X(add) X(sub) X(rsub) X(and) X(or) X(xor) X(minu) X(min) X(maxu) X(max)               \
    X(mul) X(mulh) X(mulhu) X(mulhsu) X(divu) X(div) X(remu) X(rem) X(sll) X(srl) X(sra)  \
    X(macc) X(nmsac) X(madd) X(nmsub) X(mov)                                               \
    X(saddu) X(sadd) X(ssubu) X(ssub) X(aaddu) X(aadd) X(asubu) X(asub) X(smul) X(ssrl) X(ssra) \
    X(andn) X(rol) X(ror) X(brev) X(brev8) X(rev8) X(clz) X(ctz) X(cpop)
/** Results (and with _w, a) twice as wide. */
#define RV_VK_WIDEN(X)                                                                     \
    X(waddu) X(wadd) X(wsubu) X(wsub) X(waddu_w) X(wadd_w) X(wsubu_w) X(wsub_w)           \
    X(wmul) X(wmulu) X(wmulsu) X(wmacc) X(wmaccu) X(wmaccsu) X(wmaccus) X(wsll)
/** a twice as wide. */
#define RV_VK_NARROW(X) X(nsrl) X(nsra) X(nclipu) X(nclip)
/** Results are bytes, 0 or 1. */
#define RV_VK_COMPARE(X) X(seq) X(sne) X(sltu) X(slt) X(sleu) X(sle) X(sgtu) X(sgt)
/** Floating point, rounded as the host is set: of widths 4 and 8 only. */
#define RV_VK_FLOAT(X)                                                                     \
    X(fadd) X(fsub) X(frsub) X(fmul) X(fdiv) X(frdiv) X(fsqrt) \
    X(fmacc) X(fnmacc) X(fmsac) X(fnmsac) X(fmadd) X(fnmadd) X(fmsub) X(fnmsub)
/* clang-format on */

struct rv_vk_table {
    const char *name;
#define RV_VK_MEMBER(name) rv_vk name;
    RV_VK_SAME(RV_VK_MEMBER)
    RV_VK_WIDEN(RV_VK_MEMBER)
    RV_VK_NARROW(RV_VK_MEMBER)
    RV_VK_COMPARE(RV_VK_MEMBER)
    RV_VK_FLOAT(RV_VK_MEMBER)
#undef RV_VK_MEMBER
};

extern const struct rv_vk_table rv_vk_any, rv_vk_avx2;

/** The best table for the host that runs this. */
const struct rv_vk_table *rv_vk_best(void);

/** Run floating-point kernel @fn with the host's unit rounding as @rm; the flags it raises, as
 * enum fp_flag, into *@ret_flags. False, having done nothing, if the host has no such mode. */
bool rv_vk_run_float(rv_vk_fn *fn, void *d, const void *a, const void *b, size_t n, unsigned rm,
                     struct rv_vk_env *env, uint8_t *ret_flags);

#endif
