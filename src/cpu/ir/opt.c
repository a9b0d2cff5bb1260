#include "cpu/ir/ir.h"
void ir_optimize(struct ir_func *f)
{
}
