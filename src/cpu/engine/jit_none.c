/* A build without a code generator: every block is interpreted. */
#include "cpu/engine/engine_internal.h"

#include <errno.h>

int jit_new(struct engine *e, struct error *err)
{
    return error_set(err, ENOSYS,
                     "this build has no code generator for this host: use --engine=interp");
}

void jit_free(struct engine *e)
{
}

void jit_trim(struct engine *e)
{
}

int jit_share(struct engine *e, struct error *err)
{
    return 0;
}

bool jit_fits(const struct engine *e, const struct engine *from)
{
    return true;
}

int jit_inherit(struct engine *e, struct engine *from, struct error *err)
{
    return 0;
}

enum jit_result jit_translate(struct engine_cpu *ec, struct block *b)
{
    return JIT_REFUSED;
}

const struct host_code *jit_code(const struct block *b)
{
    return NULL;
}

void jit_check_region(struct engine_cpu *ec, struct block *b)
{
}

void jit_entered_often(struct engine_cpu *ec, struct block *b)
{
    (void)ec;
    (void)b;
}

enum cpu_status jit_run(struct engine_cpu *ec, struct cpu *c, struct block *b, bool chain)
{
    return CPU_OK;
}

void jit_unlink(struct engine *e, struct block *b)
{
}

void jit_reset(struct engine *e)
{
}

void jit_usage(struct engine *e, struct cache_usage *ret)
{
}
