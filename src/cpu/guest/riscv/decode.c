/* From bytes to struct insn: the generated decoders, and what depends on the hart's mode.
 *
 * 1. Every encoding decodes: what is illegal, by itself or in the present mode, becomes
 *    RV_OP_ILLEGAL with the encoding in imm, which is the trap value.
 * 2. A compressed instruction decodes to the op it expands to, with size 2.
 *
 * Any thread. Spec: Unprivileged ISA 20240411, section 1.5 (lengths). */
#include "base/bits.h"
#include "cpu/guest/riscv/hart.h"
#include "cpu/guest/riscv/rows.h"

enum { RM_DYNAMIC = 7, RM_LAST = 4 };

/** Does @mode allow what the encoding needs? */
static bool needs_met(unsigned needs, uint64_t mode, unsigned rm)
{
    unsigned cbo = (unsigned)(mode >> RV_MODE_CBO_SHIFT);

    if (needs & RV_NEED_ILLEGAL)
        return false;
    if ((needs & RV_NEED_FP) && !(mode & RV_MODE_FS))
        return false;
    if ((needs & RV_NEED_RM) && (rm == RM_DYNAMIC ? (mode & RV_MODE_FRM_BAD) != 0 : rm > RM_LAST))
        return false;
    if ((needs & RV_NEED_VECTOR) && !(mode & RV_MODE_VS))
        return false;
    if ((needs & RV_NEED_FRM) && (mode & RV_MODE_FRM_BAD))
        return false;
    if ((needs & RV_NEED_RVA23) && (mode & RV_MODE_RVA22))
        return false;
    if ((needs & RV_NEED_MAX) && (mode & (RV_MODE_RVA22 | RV_MODE_RVA23)))
        return false;
    if ((needs & RV_NEED_CBO_INVAL) && (cbo & 1))
        return false;
    if ((needs & RV_NEED_CBO_CLEAN) && !(cbo & 4))
        return false;
    return !((needs & RV_NEED_CBO_ZERO) && !(cbo & 8));
}

unsigned rv_decode(const struct cpu *c, const uint8_t *bytes, unsigned avail, struct insn *ret)
{
    unsigned needs, size;
    uint32_t w;

    if (avail < 2)
        return 0;
    w = load_le16(bytes);
    size = (w & 3) == 3 ? 4 : 2;
    if (avail < size)
        return 0;
    *ret = (struct insn){0};
    if (size == 4) {
        w = load_le32(bytes);
        needs = rv_decode32(w, ret);
    } else {
        needs = rv_decode16(w, ret);
    }
    if (unlikely(needs) && !needs_met(needs, c->mode, ret->extra))
        *ret = (struct insn){.op = RV_OP_ILLEGAL, .flags = INSN_END, .imm = (int32_t)w};
    else if (unlikely(ret->flags & INSN_SYSTEM) && rv_csr_in_line(ret, c->mode))
        ret->flags = 0;
    ret->size = (uint8_t)size;
    return size;
}
