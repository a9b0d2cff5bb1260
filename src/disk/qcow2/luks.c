/* Encrypted QCOW2 images. */
#include "disk/qcow2/qcow2.h"

#include <errno.h>

int qcow2_luks_open(struct qcow2 *q, const char *key_file, struct qcow2_luks **ret,
                    struct error *err)
{
    (void)q;
    (void)key_file;
    (void)ret;
    return error_set(err, ENOTSUP, "it is encrypted (LUKS), which is not supported");
}

void qcow2_luks_free(struct qcow2_luks *l)
{
    (void)l;
}
