/* Snapshot files from anywhere. Checksums are made right first, as far as the file's own lengths
 * lead. */
#include "base/bits.h"
#include "base/fd.h"
#include "snapshot/snapshot_internal.h"
#include "vm/vm.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <zlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fix_chunks(uint8_t *p, size_t left)
{
    while (left >= SNAPSHOT_CHUNK_HEAD && load_le64(p) != SNAPSHOT_END) {
        uint32_t n = load_le32(p + 8);

        if (n > left - SNAPSHOT_CHUNK_HEAD)
            return;
        store_le32(p + 12, (uint32_t)crc32(0, p + SNAPSHOT_CHUNK_HEAD, n));
        p += SNAPSHOT_CHUNK_HEAD + n;
        left -= SNAPSHOT_CHUNK_HEAD + n;
    }
}

static void fix(uint8_t *p, size_t size)
{
    if (size < SNAPSHOT_HEADER)
        return;
    memcpy(p, SNAPSHOT_MAGIC, 8);
    store_le32(p + 8, SNAPSHOT_VERSION);
    uint64_t state = load_le64(p + 16);
    uint64_t regions = load_le32(p + 12) * (uint64_t)SNAPSHOT_REGION;
    if (state <= size - SNAPSHOT_HEADER && regions <= size - SNAPSHOT_HEADER - state) {
        uint8_t *s = p + SNAPSHOT_HEADER;

        if (state >= 16) {
            memcpy(s, "PSDSTATE", 8);
            store_le32(s + 8, (uint32_t)state);
            store_le32(s + 12, (uint32_t)crc32(0, s + 16, (uInt)(state - 16)));
        }
        store_le32(p + 24, (uint32_t)crc32(0, s + state, (uInt)regions));
        fix_chunks(s + state + regions, size - SNAPSHOT_HEADER - state - regions);
    }
    store_le32(p + 28, (uint32_t)crc32(0, p, 28));
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
        .no_balloon = true,
    };

    if (vm_new(&c, &vm, &err)) {
        fprintf(stderr, "cannot make a machine: %s\n", error_text(&err));
        abort();
    }
    return vm;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    char path[64];
    uint8_t *copy = malloc(size + 1);
    cleanup(fd_closep) int fd = memfd_create("fuzz", MFD_CLOEXEC);

    if (!copy || fd < 0)
        abort();
    memcpy(copy, data, size);
    fix(copy, size);
    if (fd_write_all(fd, copy, size))
        abort();
    free(copy);
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    struct vm *vm = make();
    if (getenv("FUZZ_SEED") &&
        snapshot_save(vm, getenv("FUZZ_SEED"), NULL, NULL, &err)) /* how the corpus is made */
        abort();
    if (snapshot_load(vm, path, &err) && !err.text[0])
        abort(); /* refused without a word */
    vm_free(vm);
    return 0;
}
