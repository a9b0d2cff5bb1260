/* In a build without src/vm there is no build machine. */
#include "image/machine.h"

#include <errno.h>

int image_machine_run(const struct image_machine *m, struct error *err)
{
    return error_set(err, ENOSYS, "this build of Posada cannot run machines for '%s'", m->arch);
}
