/* What one element group of vector cryptography comes to, by instruction: what the handlers of
 * interp_v_crypto.c call. One table for any host, another for hosts with instructions of their own.
 * Any thread. */
#ifndef CPU_GUEST_RISCV_VEC_CRYPTO_H
#define CPU_GUEST_RISCV_VEC_CRYPTO_H

/** A group of four elements: vd (in and out), vs2, vs1, the immediate. None overlap, none need be
 * aligned. */
typedef void rv_vc_fn(void *d, const void *a, const void *b, unsigned imm);

/* clang-format off */
#define RV_VC_ALL(X) \
    X(aesem) X(aesef) X(aesdm) X(aesdf) X(sha2ms32) X(sha2ch32) X(sha2cl32) X(ghsh) X(gmul)
/* clang-format on */

struct rv_vc_table {
#define RV_VC_MEMBER(name) rv_vc_fn *name;
    RV_VC_ALL(RV_VC_MEMBER)
#undef RV_VC_MEMBER
};

extern const struct rv_vc_table rv_vc_any;

/** The fastest table that this host can run. */
const struct rv_vc_table *rv_vc_best(void);

#endif
