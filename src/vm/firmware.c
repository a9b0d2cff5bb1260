/* Firmware by name. See vm/firmware.h. No state. */
#include "vm/firmware.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/** In the order of preference; paths of Debian, Fedora, Arch. */
static const struct {
    const char *name, *code, *vars;
} places[] = {
    {"seabios", "/usr/share/seabios/bios-256k.bin",    NULL                                 },
    {"seabios", "/usr/share/seabios/bios.bin",         NULL                                 },
    {"seabios", "/usr/share/qemu/bios-256k.bin",       NULL                                 },
    {"ovmf",    "/usr/share/OVMF/OVMF_CODE_4M.fd",     "/usr/share/OVMF/OVMF_VARS_4M.fd"    },
    {"ovmf",    "/usr/share/OVMF/OVMF_CODE.fd",        "/usr/share/OVMF/OVMF_VARS.fd"       },
    {"ovmf",    "/usr/share/edk2/ovmf/OVMF_CODE.fd",   "/usr/share/edk2/ovmf/OVMF_VARS.fd"  },
    {"ovmf",    "/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"},
};

bool vm_firmware_is_name(const char *text)
{
    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        if (!strcmp(places[i].name, text))
            return true;
    }
    return false;
}

int vm_firmware_find(const char *name, const char **ret_code, const char **ret_vars,
                     struct error *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        if (strcmp(places[i].name, name) != 0 || access(places[i].code, R_OK) ||
            (places[i].vars && access(places[i].vars, R_OK)))
            continue;
        *ret_code = places[i].code;
        *ret_vars = places[i].vars;
        return 0;
    }
    return error_set(err, ENOENT, "firmware '%s' is not installed: install the package '%s'", name,
                     name);
}
