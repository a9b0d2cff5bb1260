/* Doorbells: registers whose writes the board's host turns into an eventfd's signal by itself, so
 * that the vCPU does not leave it.
 *
 * Invariant: a doorbell is the host's, at address `at`, if and only if `at` is not PCI_UNMAPPED; it
 * is where the BAR is decoded then, in one of the memory windows. A write that the host does not
 * take, at a place that two want or while a BAR moves, reaches the device as any other.
 *
 * Threads: any; the host bridge's doorbell_lock guards them, is taken with a device's lock held,
 * and no other is taken inside. */
#include "device/pci/pci_internal.h"

#include <stdlib.h>
#include <string.h>

static bool in_window(const struct pci_host *host, uint64_t addr)
{
    const struct pci_host_config *c = &host->config;
    uint64_t ecam = __atomic_load_n(&host->ecam, __ATOMIC_RELAXED); /* see in_ecam() */

    if (ecam != PCI_UNMAPPED && addr - ecam < c->ecam_size)
        return false;
    return addr - c->mmio32.v < c->mmio32_size || addr - c->mmio64.v < c->mmio64_size;
}

static uint64_t wanted_place(const struct pci_function *f, const struct pci_doorbells *d, size_t i)
{
    const struct pci_bar_map *map = f->state->maps[d->bar];
    uint64_t base =
        __atomic_load_n(&map->base, __ATOMIC_RELAXED); /* who moves it comes here after */

    return base != PCI_UNMAPPED && in_window(f->host, base) ? base + d->bells[i].offset
                                                            : PCI_UNMAPPED;
}

static void move_locked(struct pci_function *f, struct pci_doorbells *d, size_t i, uint64_t to)
    REQUIRES(f->host->doorbell_lock)
{
    const struct pci_host_config *c = &f->host->config;

    if (d->at[i] == to)
        return;
    if (d->at[i] != PCI_UNMAPPED)
        (void)c->doorbell(c->arg, d->at[i], d->bells[i].fd, false); /* it is there */
    d->at[i] = PCI_UNMAPPED;
    if (to != PCI_UNMAPPED && !c->doorbell(c->arg, to, d->bells[i].fd, true))
        d->at[i] = to;
}

void pci_move_doorbells(struct pci_function *f)
{
    struct pci_doorbells *d = &f->state->doorbells;

    if (!f->host->config.doorbell)
        return;
    mutex_lock(&f->host->doorbell_lock);
    for (size_t i = 0; i < d->count; i++)
        move_locked(f, d, i, wanted_place(f, d, i));
    mutex_unlock(&f->host->doorbell_lock);
}

void pci_set_doorbells(struct pci_function *f, unsigned bar, const struct pci_doorbell *bells,
                       size_t count)
{
    struct pci_doorbells *d = &f->state->doorbells;

    assert(count <= PCI_DOORBELLS && f->state->maps[bar]);
    if (!f->host->config.doorbell)
        return;
    mutex_lock(&f->host->doorbell_lock);
    for (size_t i = 0; i < d->count; i++)
        move_locked(f, d, i, PCI_UNMAPPED);
    d->bar = bar;
    d->count = count;
    for (size_t i = 0; i < count; i++) {
        d->bells[i] = bells[i];
        d->at[i] = PCI_UNMAPPED;
        move_locked(f, d, i, wanted_place(f, d, i));
    }
    mutex_unlock(&f->host->doorbell_lock);
}
