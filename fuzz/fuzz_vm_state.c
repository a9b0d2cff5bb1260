/* A machine's saved state from anywhere, loaded into a machine with a console, network, entropy,
 * balloon, disk and sockets. The checksum is made right first. What loads is saved and loaded
 * again, which must work. */
#include "base/bits.h"
#include "state/state.h"
#include "vm/vm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[] = "/tmp/fuzz_vm_state-XXXXXX";
static char disk_path[64];

static void clean_up(void)
{
    char path[96];

    (void)snprintf(path, sizeof(path), "%s/vsock.sock", folder);
    (void)unlink(path);
    (void)unlink(disk_path);
    (void)rmdir(folder);
}

static void set_up(void)
{
    if (!mkdtemp(folder))
        abort();
    (void)snprintf(disk_path, sizeof(disk_path), "%s/disk", folder);
    FILE *f = fopen(disk_path, "w");
    if (!f || ftruncate(fileno(f), 1 << 20) || fclose(f))
        abort();
    (void)atexit(clean_up);
}

static struct vm *make(void)
{
    struct error err = {0};
    struct vm *vm = NULL;
    struct vm_config c = {
        .name = "fuzz",
        .cpus = 1,
        .memory_bytes = 16 << 20,
        .engine = VM_ENGINE_INTERP,
        .console_in = -1,
        .console_out = -1,
        .no_boot = true,
        .net = true,
        .vsock_cid = 3,
        .vsock_dir = folder,
        .disk_count = 1,
    };

    c.disks[0] = (struct vm_disk_config){.path = disk_path, .format = "raw"};
    if (vm_new(&c, &vm, &err)) {
        fprintf(stderr, "cannot make a machine: %s\n", error_text(&err));
        abort();
    }
    return vm;
}

/** The state of @vm into another machine. */
static void again(struct vm *vm)
{
    struct state_out *out = state_out_new();
    struct state_in *in = NULL;
    struct error err = {0};
    uint8_t *data = NULL;
    size_t size = 0;

    if (vm_save(vm, out, &err) || state_out_take(out, &data, &size))
        abort();
    state_out_free(out);
    vm_free(vm);
    vm = make();
    if (state_in_new(data, size, &in, &err) || vm_load(vm, in, &err)) {
        fprintf(stderr, "what was saved does not load: %s\n", error_text(&err));
        abort();
    }
    state_in_free(in);
    vm_free(vm);
    if (getenv("FUZZ_SEED")) { /* how the corpus is made */
        FILE *f = fopen(getenv("FUZZ_SEED"), "w");
        if (!f || fwrite(data, 1, size, f) != size || fclose(f))
            abort();
    }
    free(data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool ready;
    struct state_in *in = NULL;
    struct error err = {0};

    if (!ready)
        set_up();
    ready = true;
    uint8_t *copy = malloc(size + 1);
    if (!copy)
        return 0;
    memcpy(copy, data, size);
    if (size >= 16) {
        memcpy(copy, "PSDSTATE", 8);
        store_le32(copy + 8, (uint32_t)size);
        store_le32(copy + 12, (uint32_t)crc32(0, copy + 16, (uInt)(size - 16)));
    }
    struct vm *vm = make();
    if (getenv("FUZZ_SEED"))
        again(vm);
    else if (state_in_new(copy, size, &in, &err) == 0 && vm_load(vm, in, &err) == 0)
        again(vm);
    else
        vm_free(vm);
    state_in_free(in);
    free(copy);
    return 0;
}
