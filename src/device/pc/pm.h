/* The PC's power management as ACPI's fixed hardware has it: power key, sleep and power-off, the
 * power management timer; the reset registers; the ports by which a guest reports. */
#ifndef DEVICE_PC_PM_H
#define DEVICE_PC_PM_H

#include "base/clock.h"
#include "device/irq.h"
#include "mem/mem.h"

#define PM_PORT        0x600 /* where firmware for this chipset puts it, too */
#define PM_PORTS       0x80
#define PM_EVENT       0 /* status and enable, 2 bytes each */
#define PM_CONTROL     4
#define PM_TIMER       8
#define PM_GPE         0x20
#define PM_GPE_BYTES   16
#define PM_RESET_PORT  0xcf9
#define PM_RESET_VALUE 6
#define PM_EXIT_PORT   0xf4

struct pm;
struct state_in;
struct state_out;

struct pm_config {
    struct irq_line sci;
    const struct vclock *clock;
    void (*poweroff)(void *arg, unsigned code);
    void (*reset)(void *arg);
    void *arg;
};

/** Add the ports to @ports: PM_PORT, the keyboard controller's reset (0x60, 0x64), port 0x92, and
 * PM_EXIT_PORT, to which a guest writes a status to end with. The reset control register lies among
 * PCI's: pm_reset_control(). *@ret is the caller's, freed after @ports. */
must_check int pm_new(struct mem *ports, const struct pm_config *config, struct pm **ret,
                      struct error *err);
void pm_free(struct pm *p);
void pm_reset(struct pm *p);

/** A write to the reset control register, port 0xcf9. */
void pm_reset_control(struct pm *p, uint8_t value);

/** Somebody pressed the power key. False: the guest's system has not enabled it. Any thread. */
bool pm_press_power(struct pm *p);

/** General-purpose event @gpe, below 8 * PM_GPE_BYTES / 2, has happened: ACPI's tables say what it
 * means. Any thread. */
void pm_event(struct pm *p, unsigned gpe);

/** State for a snapshot: vCPUs and loops stand still. A failed load leaves any state. */
void pm_save(struct pm *p, struct state_out *out);
must_check int pm_load(struct pm *p, const struct state_in *in, struct error *err);

#endif
