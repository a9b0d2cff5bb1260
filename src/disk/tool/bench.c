/* Timing requests to a disk: `depth` threads, each with one request at a time. Threads: the
 * caller's, and its own, which share a counter. */
#include "base/clock.h"
#include "base/fd.h"
#include "base/thread.h"
#include "disk/tool/tool.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>

#define DEPTH_MAX 256
#define PATTERN   0xa5

struct bench {
    struct disk *d;
    const struct disk_bench *b;
    uint64_t places; /* requests until the disk's end is reached; then from the beginning again */
    uint64_t next;   /* [atomic] number of the next request */
    int rc;          /* [atomic] first failure */
};

/** Spread @n over all places, each once before any twice would need a table; random enough. */
static uint64_t scatter(uint64_t n)
{
    n = (n ^ n >> 30) * 0xbf58476d1ce4e5b9u;
    n = (n ^ n >> 27) * 0x94d049bb133111ebu;
    return n ^ n >> 31;
}

static int one_request(struct bench *x, uint64_t n, void *buf)
{
    const struct disk_bench *b = x->b;
    uint64_t place = (b->random ? scatter(n) : n) % x->places;
    uint64_t offset = b->offset + place * (b->step_bytes ? b->step_bytes : b->size_bytes);
    int rc = b->write ? disk_pwrite(x->d, buf, (size_t)b->size_bytes, offset)
                      : disk_pread(x->d, buf, (size_t)b->size_bytes, offset);

    if (!rc && b->write && b->flush_interval && (n + 1) % b->flush_interval == 0)
        rc = disk_flush(x->d);
    return rc;
}

static void *bench_main(void *arg)
{
    struct bench *x = arg;
    cleanup(freep) uint8_t *buf =
        aligned_alloc(4096, ((size_t)x->b->size_bytes + 4095) / 4096 * 4096);
    int rc = buf ? 0 : -ENOMEM;

    if (buf)
        memset(buf, PATTERN, (size_t)x->b->size_bytes);
    while (!rc && !__atomic_load_n(&x->rc, __ATOMIC_RELAXED)) {         /* a hint: all end alike */
        uint64_t n = __atomic_fetch_add(&x->next, 1, __ATOMIC_RELAXED); /* a number alone */

        if (n >= x->b->count)
            break;
        rc = one_request(x, n, buf);
    }
    if (rc)
        __atomic_store_n(&x->rc, rc, __ATOMIC_RELAXED); /* read after the threads have ended */
    return NULL;
}

static double seconds_of(const struct timeval *t)
{
    return (double)t->tv_sec + (double)t->tv_usec / 1e6;
}

static int run(struct bench *x)
{
    pthread_t threads[DEPTH_MAX];
    unsigned started = 0;
    int rc = 0;

    while (!rc && started + 1 < x->b->depth) {
        rc = thread_start(&threads[started], "disk-bench", bench_main, x);
        started += !rc;
    }
    if (rc)
        __atomic_store_n(&x->rc, rc, __ATOMIC_RELAXED);
    else
        (void)bench_main(x);
    while (started)
        thread_join(threads[--started]);
    rc = __atomic_load_n(&x->rc, __ATOMIC_RELAXED);
    return !rc && x->b->write ? disk_flush(x->d) : rc;
}

int disk_bench(struct disk *d, const struct disk_bench *b, struct disk_bench_result *ret,
               struct error *err)
{
    uint64_t step = b->step_bytes ? b->step_bytes : b->size_bytes;
    struct bench x = {.d = d, .b = b};
    struct rusage before;
    struct rusage after;

    if (!b->size_bytes || b->size_bytes > (64u << 20) || !b->depth || b->depth > DEPTH_MAX)
        return error_set(err, EINVAL, "requests are of 1 byte to 64M, 1 to %d at a time",
                         DEPTH_MAX);
    if (b->offset > d->size_bytes || b->size_bytes > d->size_bytes - b->offset)
        return error_set(err, EINVAL, "'%s' is too small for such requests", d->path);
    x.places = (d->size_bytes - b->offset - b->size_bytes) / step + 1;
    (void)getrusage(RUSAGE_SELF, &before); /* cannot fail */
    int64_t start = host_now_ns();
    int rc = run(&x);
    int64_t end = host_now_ns();
    (void)getrusage(RUSAGE_SELF, &after);
    if (rc)
        return error_set(err, -rc, "a request to '%s' failed: %s", d->path, strerror(-rc));
    *ret = (struct disk_bench_result){
        .seconds = (double)(end - start) / 1e9,
        .user_seconds = seconds_of(&after.ru_utime) - seconds_of(&before.ru_utime),
        .system_seconds = seconds_of(&after.ru_stime) - seconds_of(&before.ru_stime),
        .requests = b->count,
    };
    return 0;
}
