/* Which virtio devices a configuration asks for, in the order of their PCI slots. */
#include "base/clock.h"
#include "device/virtio/balloon.h"
#include "device/virtio/blk.h"
#include "device/virtio/console.h"
#include "device/virtio/fs.h"
#include "device/virtio/net.h"
#include "device/virtio/rng.h"
#include "device/virtio/vsock.h"
#include "disk/disk.h"
#include "vm/vm_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define DRAIN_STEP_NS (100LL * 1000000)

/* Put @dev, just made, behind a transport; it is freed on failure. */
static int plug(struct vm *vm, struct virtio_device *dev, struct error *err)
{
    struct virtio_transport *t;

    assert(vm->transport_count < VM_MAX_DEVICES);
    int rc = virtio_pci_new(vm->board->pci, dev, &t, err);
    if (rc) {
        dev->ops->free(dev);
        return rc;
    }
    vm->transports[vm->transport_count++] = t;
    return 0;
}

static int add_console(struct vm *vm, struct error *err)
{
    struct virtio_console_config config = {
        .console = true,
        .console_in = vm->config.console_in,
        .console_out = vm->config.console_out,
    };
    struct virtio_device *dev;

    if (vm->config.console_uart)
        return 0;
    int rc = virtio_console_new(vm->mem, vm->io, &config, &dev, err);
    if (!rc)
        rc = plug(vm, dev, err);
    if (!rc)
        vm->console_device = dev;
    return rc;
}

static int add_ports(struct vm *vm, struct error *err)
{
    const struct vm_config *c = &vm->config;
    struct virtio_console_port ports[VM_MAX_PORTS];
    struct virtio_console_config config = {.ports = ports, .port_count = c->port_count};
    struct virtio_device *dev;

    if (!c->port_count)
        return 0;
    for (size_t i = 0; i < c->port_count; i++)
        ports[i] = (struct virtio_console_port){
            .name = c->ports[i].name,
            .in_fd = c->ports[i].in_fd,
            .out_fd = c->ports[i].out_fd,
        };
    int rc = virtio_console_new(vm->mem, vm->io, &config, &dev, err);
    if (!rc)
        rc = plug(vm, dev, err);
    if (!rc)
        vm->ports_device = dev;
    return rc;
}

/* A locally administered address that is the same for the same name: leases and names persist. */
static void derive_mac(const char *name, uint8_t mac[6])
{
    uint64_t hash = 0xcbf29ce484222325; /* FNV-1a */

    for (const char *p = name ? name : "posada"; *p; p++)
        hash = (hash ^ (uint8_t)*p) * 0x100000001b3;
    mac[0] = 0x52;
    mac[1] = 0x54;
    for (unsigned i = 2; i < 6; i++)
        mac[i] = (uint8_t)(hash >> (8 * i));
}

static int add_net(struct vm *vm, struct error *err)
{
    static const uint8_t none[6];
    const struct vm_config *c = &vm->config;
    struct net_user_config user = {
        .hostname = c->name,
        .forwards = c->forwards,
        .forward_count = c->forward_count,
    };
    struct virtio_net_config config = {0};
    struct net_backend *backend;
    struct virtio_device *dev;

    if (!c->net)
        return 0;
    memcpy(config.mac, c->mac, sizeof(config.mac));
    if (!memcmp(c->mac, none, sizeof(none)))
        derive_mac(c->name, config.mac);
    int rc = net_user_new(vm->io, &user, &backend, err);
    if (rc)
        return rc;
    rc = virtio_net_new(vm->mem, vm->io, &config, backend, &dev, err);
    if (rc) {
        backend->ops->free(backend);
        return rc;
    }
    rc = plug(vm, dev, err);
    if (!rc)
        vm->net = backend;
    return rc;
}

static void disk_full(void *arg, int code)
{
    const struct vm_disk *d = arg;

    vm_pause(d->vm);
    d->vm->config.disk_full(d->vm->config.disk_full_arg, d->index, code);
}

void vm_retry_disks(struct vm *vm)
{
    for (size_t i = 0; i < vm->config.disk_count; i++) {
        if (vm->disks[i].virtio)
            virtio_blk_retry(vm->disks[i].virtio);
    }
}

static int open_disk(const struct vm_disk_config *d, struct disk **ret, struct error *err)
{
    struct disk_options options = {
        .format = d->format,
        .flags = (d->readonly ? DISK_READONLY : 0) | (d->snapshot ? DISK_SNAPSHOT : 0) |
                 (d->direct ? DISK_DIRECT : 0),
        .refs = d->refs,
        .key_file = d->key_file,
    };
    int rc = disk_open(d->path, &options, ret, err);

    return !rc && disk_limits_any(&d->limits) ? disk_throttle(*ret, &d->limits, ret, err) : rc;
}

/** Which port of the controller disk @index has: in their order. */
static unsigned sata_port(const struct vm *vm, size_t index)
{
    unsigned port = 0;

    for (size_t i = 0; i < index; i++)
        port += vm->config.disks[i].bus == VM_BUS_AHCI;
    return port;
}

static int add_sata_disk(struct vm *vm, size_t index, struct disk *disk, const char *serial,
                         struct error *err)
{
    unsigned ports = sata_port(vm, vm->config.disk_count);
    unsigned port = sata_port(vm, index);

    static_assert(VM_MAX_DISKS <= AHCI_PORTS, "there are enough");
    int rc = vm->ahci ? 0 : ahci_new(vm->board->pci, ports, &vm->ahci, err);
    vm->disks[index].port = port;
    return rc ? rc
              : ahci_attach(vm->ahci, port, disk, vm->config.disks[index].is_cdrom, serial, err);
}

static int add_virtio_disk(struct vm *vm, size_t index, struct disk *disk, const char *serial,
                           struct virtio_device **ret, struct error *err)
{
    struct virtio_blk_config config = {
        .queues = MIN(vm->config.cpus, (unsigned)VIRTIO_BLK_MAX_QUEUES),
        .serial = serial,
        .on_full = vm->config.disk_full ? disk_full : NULL,
        .arg = &vm->disks[index],
    };

    return virtio_blk_new(vm->mem, &config, disk, ret, err);
}

static int add_disk(struct vm *vm, size_t index, struct error *err)
{
    const struct vm_disk_config *d = &vm->config.disks[index];
    struct virtio_device *dev = NULL;
    struct disk *disk = NULL;
    char serial[32];
    int rc = open_disk(d, &disk, err);

    vm->disks[index] = (struct vm_disk){.vm = vm, .index = index};
    (void)snprintf(serial, sizeof(serial), "disk%u", (unsigned)index);
    if (!rc)
        rc = d->bus == VM_BUS_AHCI ? add_sata_disk(vm, index, disk, serial, err)
                                   : add_virtio_disk(vm, index, disk, serial, &dev, err);
    if (rc) {
        disk_close(disk);
        return rc;
    }
    if (dev)
        rc = plug(vm, dev, err);
    if (rc)
        return rc;
    vm->disks[index].virtio = dev;
    vm->disks[index].slot =
        dev ? virtio_pci_slot(vm->transports[vm->transport_count - 1]) : ahci_slot(vm->ahci);
    return 0;
}

void vm_disk_hold(struct vm *vm, size_t index)
{
    const struct vm_disk *d = &vm->disks[index];

    if (d->virtio)
        virtio_freeze(d->virtio);
    else
        ahci_hold(vm->ahci, d->port);
}

void vm_disk_release(struct vm *vm, size_t index)
{
    const struct vm_disk *d = &vm->disks[index];

    if (d->virtio)
        virtio_thaw(d->virtio);
    else
        ahci_release(vm->ahci, d->port);
}

struct disk *vm_disk(struct vm *vm, size_t index)
{
    const struct vm_disk *d = &vm->disks[index];

    return d->virtio ? virtio_blk_disk(d->virtio) : ahci_disk(vm->ahci, d->port);
}

void vm_disk_set(struct vm *vm, size_t index, struct disk *disk)
{
    const struct vm_disk *d = &vm->disks[index];

    if (d->virtio)
        virtio_blk_set_disk(d->virtio, disk);
    else
        ahci_set_disk(vm->ahci, d->port, disk);
}

static int add_disks(struct vm *vm, struct error *err)
{
    int rc = 0;

    for (size_t i = 0; i < vm->config.disk_count && !rc; i++)
        rc = add_disk(vm, i, err);
    return rc;
}

static int add_rng(struct vm *vm, struct error *err)
{
    struct virtio_device *dev;

    if (vm->config.no_rng)
        return 0;
    int rc = virtio_rng_new(vm->mem, vm->io, &dev, err);
    return rc ? rc : plug(vm, dev, err);
}

static int add_balloon(struct vm *vm, struct error *err)
{
    struct virtio_device *dev;

    if (vm->config.no_balloon)
        return 0;
    int rc = virtio_balloon_new(vm->mem, vm->io, &dev, err);
    if (!rc)
        rc = plug(vm, dev, err);
    if (!rc)
        vm->balloon_device = dev;
    return rc;
}

static int add_shares(struct vm *vm, struct error *err)
{
    int rc = 0;

    for (size_t i = 0; i < vm->config.share_count && !rc; i++) {
        const struct vm_share_config *s = &vm->config.shares[i];
        struct virtio_fs_config config = {
            .tag = s->tag,
            .host_path = s->host_path,
            .readonly = s->readonly,
        };
        struct virtio_device *dev;

        rc = virtio_fs_new(vm->mem, &config, &dev, err);
        if (!rc)
            rc = plug(vm, dev, err);
    }
    return rc;
}

static int add_vsock(struct vm *vm, struct error *err)
{
    struct virtio_vsock_config config = {
        .cid = vm->config.vsock_cid,
        .dir = vm->config.vsock_dir,
    };
    struct virtio_device *dev;

    if (!vm->config.vsock_cid)
        return 0;
    int rc = virtio_vsock_new(vm->mem, vm->io, &config, &dev, err);
    return rc ? rc : plug(vm, dev, err);
}

int vm_add_devices(struct vm *vm, struct error *err)
{
    static int (*const add[])(struct vm * vm, struct error * err) = {
        add_console, add_ports, add_disks, add_net, add_rng, add_balloon, add_shares, add_vsock,
    };
    int rc = 0;

    for (size_t i = 0; i < ARRAY_SIZE(add) && !rc; i++)
        rc = add[i](vm, err);
    return rc;
}

void vm_remove_devices(struct vm *vm)
{
    while (vm->transport_count)
        virtio_transport_free(vm->transports[--vm->transport_count]);
    ahci_free(vm->ahci);
    vm->ahci = NULL;
    vm->console_device = NULL;
    vm->ports_device = NULL;
}

/* What a command has written is not lost because its reader is slow: without a limit, unless the
 * machine was stopped from outside, or is while we wait. */
static void drain_ports(struct vm *vm, int64_t deadline_ns)
{
    bool wait = vm->result.reason != VM_STOP_REQUEST; /* nobody writes to the result any more */

    while (!virtio_console_drain(vm->ports_device, host_now_ns() + DRAIN_STEP_NS)) {
        if (__atomic_load_n(&vm->abandon, __ATOMIC_RELAXED) ||
            (!wait && host_now_ns() > deadline_ns))
            return;
    }
}

void vm_drain_devices(struct vm *vm, int64_t deadline_ns)
{
    vm_console_drain(vm->console, deadline_ns);
    if (vm->console_device)
        (void)virtio_console_drain(vm->console_device, deadline_ns); /* as much as went */
    if (vm->ports_device)
        drain_ports(vm, deadline_ns);
}
