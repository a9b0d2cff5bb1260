/* posada disk: virtual disks. Each verb has a file of its own. */
#include "cli/disk.h"
#include "cli/verbs.h"

static const struct opt_def disk_opts[] = {
    CMD_COMMON_ROWS(struct disk_values),
};

static const struct cmd *const disk_subs[] = {
    &cmd_disk_create,  &cmd_disk_info,    &cmd_disk_convert,
    &cmd_disk_check,   &cmd_disk_map,     &cmd_disk_measure,
    &cmd_disk_compare, &cmd_disk_resize,  &cmd_disk_rebase,
    &cmd_disk_commit,  &cmd_disk_merge,   &cmd_disk_compact,
    &cmd_disk_bitmap,  &cmd_disk_bench,   &cmd_disk_serve,
    &cmd_disk_mount,   &cmd_disk_unmount, NULL,
};

static int run_disk(const struct cmd *cmd, void *values, struct opt_args *args)
{
    return cmd_usage(cmd, "a command is needed, such as 'posada disk info FILE'; 'posada disk "
                          "--help' lists them");
}

const struct cmd cmd_disk = {
    .path = "disk",
    .operands = "COMMAND [ARGUMENT...]",
    .summary = "make, convert, check and examine virtual disks",
    .description =
        "Work on virtual disks in the formats of several hypervisors: raw, QCOW2, VDI, VMDK, VHD and VHDX. "
        "Options are named as qemu-img's where it has them.\n\n"
        "Nothing is overwritten without --force; a new image gets its name only when it is whole; a disk that "
        "another process uses is refused.",
    .opts = disk_opts,
    .values_size = sizeof(struct disk_values),
    .subs = disk_subs,
    .run = run_disk,
};
