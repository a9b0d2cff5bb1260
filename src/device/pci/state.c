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

static const struct state_field function_fields[] = {
    STATE_ARRAY(struct pci_state, config),
    STATE_FIELD(struct pci_state, intx_level),
    STATE_FIELD(struct pci_state, msix_pending),
    {0},
};
static const struct state_field msix_fields[] = {
    STATE_FIELD(struct pci_msix_entry, addr),
    STATE_FIELD(struct pci_msix_entry, data),
    STATE_FIELD(struct pci_msix_entry, control),
    {0},
};

static void save_function(struct pci_function *f, struct state_out *out)
{
    struct pci_state *s = f->state;

    mutex_lock(&s->lock);
    state_save(out, "pci", s->slot, 1, function_fields, s);
    for (unsigned i = 0; i < f->info->msix_vectors; i++)
        state_save(out, "msix", s->slot * PCI_MSIX_MAX + i, 1, msix_fields, &s->msix[i]);
    mutex_unlock(&s->lock);
}

void pci_host_save(struct pci_host *host, struct state_out *out)
{
    for (unsigned i = 0; i < PCI_SLOTS; i++) {
        if (host->slots[i])
            save_function(host->slots[i], out);
    }
}

static int load_registers_locked(struct pci_function *f, const struct state_in *in,
                                 struct error *err) REQUIRES(f->state->lock)
{
    struct pci_state *s = f->state;
    uint8_t own[PCI_CONFIG_SIZE];

    memcpy(own, s->config, sizeof(own));
    int rc = state_load(in, "pci", s->slot, 1, function_fields, s, err);
    if (!rc && memcmp(s->config, own, PCI_COMMAND) != 0) /* vendor and device */
        rc = error_set(err, EINVAL, "the saved state has another device in PCI slot %u", s->slot);
    for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++)
        s->config[i] = (uint8_t)((own[i] & ~s->mask[i]) | (s->config[i] & s->mask[i]));
    for (unsigned i = 0; i < f->info->msix_vectors && !rc; i++) {
        rc = state_load(in, "msix", s->slot * PCI_MSIX_MAX + i, 1, msix_fields, &s->msix[i], err);
        s->msix[i].addr &= ~3ULL;
        s->msix[i].control &= 1;
    }
    s->msix_pending &= MASK(f->info->msix_vectors);
    pci_update_decoding_locked(s, f->info);
    return rc;
}

static int load_function(struct pci_function *f, const struct state_in *in, struct error *err)
{
    struct pci_state *s = f->state;

    mutex_lock(&s->lock);
    int rc = load_registers_locked(f, in, err);
    bool level = s->intx_level;
    s->intx_level = !level; /* so that the pin is driven */
    mutex_unlock(&s->lock);
    pci_set_intx(f, level);
    return rc;
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
