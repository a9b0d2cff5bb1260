/* Writing a snapshot while the machine runs on: the child of a capture (capture.c) writes chunks of
 * memory, compressed, into the file, and exits. It touches nothing of the machine but its memory.
 *
 * Threads: see snapshot.h. */
#include "base/bits.h"
#include "base/fd.h"
#include "mem/mem.h"
#include "snapshot/snapshot.h"
#include "snapshot/snapshot_internal.h"
#include "vm/vm.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <zlib.h>
#include <zstd.h>

#define PROGRESS_MS 100

/** What the child tells the parent, in memory that they share. */
struct shared {
    uint64_t done_bytes;  /* [atomic] of guest memory looked at */
    uint64_t saved_bytes; /* [atomic] */
    int rc;               /* set before the child exits */
};

struct save {
    struct capture capture;
    const struct snapshot_options *options;
    char temporary[PATH_MAX];
    int fd;
    struct shared *shared;
    uint64_t total_bytes;
};

/* --- The child --- */

struct writer {
    int fd;
    struct shared *shared;
    ZSTD_CCtx *zstd;
    int level;
    uint8_t head[SNAPSHOT_CHUNK_HEAD];
    uint8_t *pages; /* SNAPSHOT_CHUNK_BYTES */
    uint8_t *packed;
    size_t packed_room;
};

static bool is_zero(const uint8_t *page)
{
    const uint64_t *w = (const uint64_t *)(const void *)page;
    uint64_t any = 0;

    for (size_t i = 0; i < MEM_PAGE_SIZE / 8; i += 8) {
        any = w[i] | w[i + 1] | w[i + 2] | w[i + 3] | w[i + 4] | w[i + 5] | w[i + 6] | w[i + 7];
        if (any)
            return false;
    }
    return true;
}

/** Which pages of private memory at @at are present or swapped out: the others were never touched.
 */
static void find_touched(int pagemap_fd, const uint8_t *at, size_t pages, uint64_t *entries)
{
    size_t size = pages * sizeof(*entries);
    off_t offset = (off_t)((uintptr_t)at / MEM_PAGE_SIZE * sizeof(*entries));

    if (pagemap_fd < 0 || pread(pagemap_fd, entries, size, offset) != (ssize_t)size)
        memset(entries, 0xff, size); /* unknown: look at all */
}

static int write_chunk(struct writer *w, uint64_t gpa, const uint8_t *from, size_t pages,
                       const uint64_t *entries)
{
    const uint64_t touched =
        3ULL << 62; /* present, swapped: Documentation/admin-guide/mm/pagemap.rst */
    size_t count = 0;

    memset(w->head, 0, sizeof(w->head));
    for (size_t i = 0; i < pages; i++) {
        const uint8_t *page = from + i * MEM_PAGE_SIZE;

        if (!(entries[i] & touched) || is_zero(page))
            continue;
        w->head[16 + i / 8] |= (uint8_t)(1u << i % 8);
        memcpy(w->pages + count++ * MEM_PAGE_SIZE, page, MEM_PAGE_SIZE);
    }
    if (!count)
        return 0;
    size_t size = ZSTD_compressCCtx(w->zstd, w->packed, w->packed_room, w->pages,
                                    count * MEM_PAGE_SIZE, w->level);
    if (ZSTD_isError(size))
        return -EIO;
    store_le64(w->head, gpa);
    store_le32(w->head + 8, (uint32_t)size);
    store_le32(w->head + 12, (uint32_t)crc32(0, w->packed, (uInt)size));
    int rc = fd_write_all(w->fd, w->head, sizeof(w->head));
    if (!rc)
        rc = fd_write_all(w->fd, w->packed, size);
    __atomic_fetch_add(&w->shared->saved_bytes, count * MEM_PAGE_SIZE,
                       __ATOMIC_RELAXED); /* for progress alone */
    return rc;
}

static int write_region(struct writer *w, const struct mem_region *r, int pagemap_fd)
{
    uint64_t entries[SNAPSHOT_CHUNK_PAGES];
    int rc = 0;

    for (uint64_t at = 0; at < r->size && !rc; at += SNAPSHOT_CHUNK_BYTES) {
        size_t pages = (size_t)(MIN(r->size - at, (uint64_t)SNAPSHOT_CHUNK_BYTES) / MEM_PAGE_SIZE);

        find_touched(pagemap_fd, r->host + at, pages, entries);
        rc = write_chunk(w, r->base.v + at, r->host + at, pages, entries);
        __atomic_fetch_add(&w->shared->done_bytes, pages * MEM_PAGE_SIZE, __ATOMIC_RELAXED);
    }
    return rc;
}

static int write_memory(const struct save *s)
{
    struct writer w = {
        .fd = s->fd,
        .shared = s->shared,
        .zstd = ZSTD_createCCtx(),
        .level = s->options->level ? s->options->level : 1,
        .packed_room = ZSTD_compressBound(SNAPSHOT_CHUNK_BYTES),
    };
    uint8_t end[SNAPSHOT_CHUNK_HEAD] = {0};
    const struct mem_region *r;
    size_t i = 0;
    int pagemap_fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    int rc = 0;

    w.pages = malloc(SNAPSHOT_CHUNK_BYTES);
    w.packed = malloc(w.packed_room);
    if (!w.zstd || !w.pages || !w.packed)
        rc = -ENOMEM;
    while (!rc && (r = mem_next(vm_mem(s->capture.vm), &i))) {
        if (r->host)
            rc = write_region(&w, r, pagemap_fd);
    }
    store_le64(end, SNAPSHOT_END);
    if (!rc)
        rc = fd_write_all(s->fd, end, sizeof(end));
    if (!rc && fsync(s->fd))
        rc = -errno;
    return rc; /* the process ends: nothing to give back */
}

static int write_header(const struct save *s)
{
    uint8_t header[SNAPSHOT_HEADER] = SNAPSHOT_MAGIC;
    uint8_t regions[SNAPSHOT_REGIONS_MAX * SNAPSHOT_REGION];
    const struct mem_region *r;
    size_t i = 0;
    uint32_t count = 0;

    while ((r = mem_next(vm_mem(s->capture.vm), &i))) {
        if (!r->host)
            continue;
        if (count == SNAPSHOT_REGIONS_MAX)
            return -E2BIG;
        store_le64(regions + (size_t)count * SNAPSHOT_REGION, r->base.v);
        store_le64(regions + (size_t)count++ * SNAPSHOT_REGION + 8, r->size);
    }
    store_le32(header + 8, SNAPSHOT_VERSION);
    store_le32(header + 12, count);
    store_le64(header + 16, s->capture.state_size);
    store_le32(header + 24, (uint32_t)crc32(0, regions, count * SNAPSHOT_REGION));
    store_le32(header + 28, (uint32_t)crc32(0, header, 28));
    int rc = fd_write_all(s->fd, header, sizeof(header));
    if (!rc)
        rc = fd_write_all(s->fd, s->capture.state, s->capture.state_size);
    return rc ? rc : fd_write_all(s->fd, regions, (size_t)count * SNAPSHOT_REGION);
}

/* --- The parent --- */

static void child_main(struct capture *c)
{
    struct save *s = container_of(c, struct save, capture);

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* a file that nobody would name is not worth writing */
    if (getppid() == c->parent) {
        int rc = write_header(s);

        s->shared->rc = rc ? rc : write_memory(s);
        _exit(0);
    }
    _exit(1);
}

static int at_rest(void *arg, struct error *err)
{
    const struct snapshot_options *o = arg;

    return o->at_rest ? o->at_rest(o->arg, err) : 0;
}

/** Until the child has ended, reporting progress. */
static int wait_for_child(struct save *s, pid_t child, struct error *err)
{
    bool cancelled = false;
    int status = 0;
    pid_t ended;

    while ((ended = waitpid(child, &status, s->options->progress ? WNOHANG : 0)) <= 0) {
        if (ended < 0 && errno != EINTR)
            return error_set(err, errno, "the snapshot's process is lost: %s", strerror(errno));
        if (ended < 0)
            continue;
        uint64_t done = __atomic_load_n(&s->shared->done_bytes, __ATOMIC_RELAXED);
        if (!cancelled && s->options->progress(s->options->arg, done, s->total_bytes)) {
            cancelled = true;
            (void)kill(child, SIGKILL); /* it is ours and not yet waited for */
        }
        (void)usleep(PROGRESS_MS * 1000); /* a signal makes it shorter: no harm */
    }
    if (cancelled)
        return error_set(err, ECANCELED, "the snapshot was cancelled");
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        return error_set(err, EIO, "the process that wrote the snapshot ended with signal %d",
                         WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    return s->shared->rc ? error_set(err, -s->shared->rc, "cannot write the snapshot: %s",
                                     strerror(-s->shared->rc))
                         : 0;
}

static int open_file(struct save *s, const char *path, struct error *err)
{
    if (snprintf(s->temporary, sizeof(s->temporary), "%s.part", path) >= (int)sizeof(s->temporary))
        return error_set(err, ENAMETOOLONG, "the path '%.100s...' is too long", path);
    s->fd = open(s->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (s->fd < 0)
        return error_set(err, errno, "cannot make '%s': %s", s->temporary, strerror(errno));
    s->shared =
        mmap(NULL, sizeof(*s->shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (s->shared == MAP_FAILED) {
        s->shared = NULL;
        return error_set(err, ENOMEM, "out of memory");
    }
    return 0;
}

static int finish(struct save *s, const char *path, struct snapshot_report *report,
                  struct error *err)
{
    struct stat st;

    if (fstat(s->fd, &st) || link(s->temporary, path)) /* link, not rename: what is there stays */
        return error_set(err, errno, "cannot make '%s': %s", path, strerror(errno));
    report->file_bytes = (uint64_t)st.st_size;
    report->memory_bytes = __atomic_load_n(&s->shared->saved_bytes, __ATOMIC_RELAXED);
    return 0;
}

int snapshot_save(struct vm *vm, const char *path, const struct snapshot_options *options,
                  struct snapshot_report *ret, struct error *err)
{
    static const struct snapshot_options none;
    struct save s = {
        .capture = {.vm = vm, .at_rest = at_rest, .child_main = child_main},
        .options = options ? options : &none,
        .fd = -1,
    };
    struct snapshot_report report = {0};
    const struct mem_region *r;
    size_t i = 0;

    s.capture.arg = (void *)(uintptr_t)s.options;
    while ((r = mem_next(vm_mem(vm), &i)))
        s.total_bytes += r->host ? r->size : 0;
    int rc = open_file(&s, path, err);

    if (!rc)
        rc = capture(&s.capture, err);
    report.pause_ns = s.capture.pause_ns;
    if (!rc)
        rc = wait_for_child(&s, s.capture.child, err);
    if (!rc)
        rc = finish(&s, path, &report, err);
    if (s.fd >= 0)
        (void)unlink(s.temporary); /* its other name stays, if all went well */
    fd_close(s.fd);
    if (s.shared)
        (void)munmap(s.shared, sizeof(*s.shared)); /* ours, so it cannot fail */
    if (!rc && ret)
        *ret = report;
    return rc;
}
