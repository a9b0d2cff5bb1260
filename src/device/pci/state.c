/* Saved state of PCI functions: what the guest has written into configuration space, MSI-X vectors,
 * INTx.
 *
 * Read-only bytes are not taken from the state: they must be those of the function that is there.
 *
 * Threads: vCPUs and loops stand still. */
#include "state/state.h"
#include "base/bits.h"
#include "device/pci/pci_internal.h"

#include <errno.h>
#include <string.h>

/** What is saved of a function. */
struct saved {
    uint8_t config[PCI_CONFIG_SIZE];
    bool intx_level;
    uint64_t msix_pending;
    uint64_t msix_addr[PCI_MSIX_MAX];
    uint32_t msix_data[PCI_MSIX_MAX], msix_control[PCI_MSIX_MAX];
};

static const struct state_field function_fields[] = {
    STATE_ARRAY(struct saved, config),
    STATE_FIELD(struct saved, intx_level),
    STATE_FIELD(struct saved, msix_pending),
    STATE_ARRAY(struct saved, msix_addr),
    STATE_ARRAY(struct saved, msix_data),
    STATE_ARRAY(struct saved, msix_control),
    {0},
};

static void save_function(struct pci_function *f, struct state_out *out)
{
    struct pci_state *s = f->state;
    struct saved saved = {0};

    mutex_lock(&s->lock);
    memcpy(saved.config, s->config, sizeof(saved.config));
    saved.intx_level = s->intx_level;
    saved.msix_pending = s->msix_pending;
    for (unsigned i = 0; i < PCI_MSIX_MAX; i++) {
        saved.msix_addr[i] = s->msix[i].addr;
        saved.msix_data[i] = s->msix[i].data;
        saved.msix_control[i] = s->msix[i].control;
    }
    mutex_unlock(&s->lock);
    state_save(out, "pci", s->slot, 1, function_fields, &saved);
}

void pci_host_save(struct pci_host *host, struct state_out *out)
{
    for (unsigned i = 0; i < PCI_SLOTS; i++) {
        if (host->slots[i])
            save_function(host->slots[i], out);
    }
}

static void load_locked(struct pci_function *f, struct pci_state *s, const struct saved *saved)
    REQUIRES(s->lock)
{
    for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++)
        s->config[i] = (uint8_t)((s->config[i] & ~s->mask[i]) | (saved->config[i] & s->mask[i]));
    for (unsigned i = 0; i < PCI_MSIX_MAX; i++)
        s->msix[i] = (struct pci_msix_entry){
            .addr = saved->msix_addr[i] & ~3ULL,
            .data = saved->msix_data[i],
            .control = saved->msix_control[i] & 1,
        };
    s->msix_pending = saved->msix_pending & MASK(f->info->msix_vectors);
    s->intx_level = !saved->intx_level; /* so that the pin is driven */
    pci_update_decoding_locked(s, f->info);
}

static int load_function(struct pci_function *f, const struct state_in *in, struct error *err)
{
    struct pci_state *s = f->state;
    struct saved saved;
    int rc = state_load(in, "pci", s->slot, 1, function_fields, &saved, err);

    if (rc)
        return rc;
    mutex_lock(&s->lock);
    bool same = !memcmp(saved.config, s->config, PCI_COMMAND); /* vendor and device */
    if (same)
        load_locked(f, s, &saved);
    mutex_unlock(&s->lock);
    if (!same)
        return error_set(err, EINVAL, "the saved state has another device in PCI slot %u", s->slot);
    pci_move_doorbells(f);
    pci_set_intx(f, saved.intx_level);
    return 0;
}

int pci_host_load(struct pci_host *host, const struct state_in *in, struct error *err)
{
    int rc = 0;

    for (unsigned i = 0; i < PCI_SLOTS && !rc; i++) {
        if (host->slots[i])
            rc = load_function(host->slots[i], in, err);
        else if (state_has(in, "pci", i))
            rc = error_set(err, EINVAL,
                           "the saved state has a device in PCI slot %u, and this machine has none",
                           i);
    }
    return rc;
}
