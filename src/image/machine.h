/* The build machine: what image_build() needs from whoever runs a guest for it. */
#ifndef IMAGE_MACHINE_H
#define IMAGE_MACHINE_H

#include "base/error.h"

#define IMAGE_MACHINE_DISKS 4

/** A machine to boot and to wait for. Disks are virtio-blk, in this order (vda, vdb...). */
struct image_machine {
    const char *arch;
    const char *kernel;
    const char *initrd;
    const char *append; /* without console= */
    struct {
        const char *path; /* raw file */
        bool read_only;
    } disks[IMAGE_MACHINE_DISKS];
    unsigned disk_count;
    unsigned cpus;
    uint64_t memory_bytes;
    const char *console_path; /* console output is written to this file */
    /** Called on the waiting thread several times a second; anything but 0 stops the machine and
     * makes the run fail with -ECANCELED. */
    int (*tick)(void *arg);
    void *arg;
};

/** Can the build machine of architecture @arch run on this host? 0, or -errno with a sentence of
 * what it would take. */
must_check int image_machine_check(const char *arch, struct error *err);

/** Run @m as a Posada machine until the guest powers off. 0, or -errno when it could not start, was
 * cancelled or crashed. */
must_check int image_machine_run(const struct image_machine *m, struct error *err);

#endif
