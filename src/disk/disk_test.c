/* Disks: raw files, refusals, locks, and the snapshot overlay against a model in memory. */
#include "base/bits.h"
#include "base/fd.h"
#include "base/test.h"
#include "base/thread.h"
#include "disk/disk.h"
#include "disk/disk_internal.h"
#include "disk/file_memory.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

static char path[64];
static struct error err;

static void remove_file(void)
{
    (void)unlink(path);
}

/** A file of @size bytes whose byte n is n * 7 >> 3, removed at the end of the test. */
static void make_file(size_t size)
{
    (void)snprintf(path, sizeof(path), "/tmp/disk_test-XXXXXX");
    cleanup(fd_closep) int fd = mkostemp(path, O_CLOEXEC);
    uint8_t *data = malloc(size + 1);

    ASSERT_TRUE(fd >= 0 && data);
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)(i * 7 >> 3);
    ASSERT_EQ(fd_write_all(fd, data, size), 0);
    free(data);
    (void)atexit(remove_file);
}

static struct disk *open_disk(unsigned flags)
{
    struct disk *d = NULL;

    err.code = 0;
    if (disk_open(path, &(struct disk_options){.flags = flags}, &d, &err))
        test_fail(__FILE__, __LINE__, "%s", err.text);
    ASSERT_TRUE(d);
    return d;
}

/** Open must fail with @code and a sentence that holds @text. */
static void expect_refusal(const char *name, const char *format, unsigned flags, int code,
                           const char *text)
{
    struct disk *d = NULL;

    err = (struct error){0};
    EXPECT_EQ(disk_open(name, &(struct disk_options){.format = format, .flags = flags}, &d, &err),
              -code);
    EXPECT_TRUE(!d);
    if (!strstr(err.text, text))
        test_fail(__FILE__, __LINE__, "'%s' does not say '%s'", err.text, text);
}

static uint8_t byte_at(struct disk *d, uint64_t offset)
{
    uint8_t b = 0xee;
    struct iovec iov = {&b, 1};

    EXPECT_EQ(disk_preadv(d, &iov, 1, offset), 0);
    return b;
}

static int put_bytes(struct disk *d, uint64_t offset, int value, size_t size)
{
    static uint8_t buf[1 << 20];
    struct iovec iov = {buf, size};

    memset(buf, value, size);
    return disk_pwritev(d, &iov, 1, offset);
}

TEST(raw_reads_and_writes)
{
    char a[3] = "abc";
    char b[5] = "defgh";
    char got[9] = {0};
    struct iovec w[] = {
        {a, 3},
        {b, 5},
    };
    struct iovec r[] = {
        {got,     1},
        {got + 1, 7},
    };

    make_file(8192);
    struct disk *d = open_disk(0);
    EXPECT_EQ(d->size_bytes, 8192);
    EXPECT_EQ(disk_pwritev(d, w, 2, 4093), 0);
    EXPECT_EQ(disk_flush(d), 0);
    EXPECT_EQ(disk_preadv(d, r, 2, 4093), 0);
    EXPECT_STR(got, "abcdefgh");
    EXPECT_EQ(byte_at(d, 4092), (uint8_t)(4092 * 7 >> 3));
    disk_close(d);
}

TEST(bounds)
{
    uint8_t buf[1024] = {0};
    struct iovec iov = {buf, 1024};

    make_file(4096);
    struct disk *d = open_disk(0);
    EXPECT_EQ(disk_preadv(d, &iov, 1, 3072), 0);
    EXPECT_EQ(disk_preadv(d, &iov, 1, 3073), -EINVAL);
    EXPECT_EQ(disk_pwritev(d, &iov, 1, 4096), -EINVAL);
    EXPECT_EQ(disk_pwritev(d, &iov, 1, UINT64_MAX), -EINVAL);
    EXPECT_EQ(disk_discard(d, 4096, 1), -EINVAL);
    EXPECT_EQ(disk_discard(d, 1, UINT64_MAX), -EINVAL);
    EXPECT_EQ(disk_write_zeroes(d, 0, 4097, false), -EINVAL);
    EXPECT_EQ(disk_write_zeroes(d, 4096, 0, false), 0);
    disk_close(d);
}

TEST(readonly)
{
    make_file(4096);
    struct disk *d = open_disk(DISK_READONLY);
    EXPECT_TRUE(d->readonly);
    EXPECT_EQ(put_bytes(d, 0, 1, 1), -EROFS);
    EXPECT_EQ(disk_discard(d, 0, 512), -EROFS);
    EXPECT_EQ(disk_write_zeroes(d, 0, 512, true), -EROFS);
    EXPECT_EQ(disk_flush(d), 0);
    EXPECT_EQ(byte_at(d, 100), 100 * 7 >> 3);
    disk_close(d);
}

/* 1000 bytes are a disk of two sectors. */
TEST(size_is_rounded_up)
{
    struct stat st;

    make_file(1000);
    struct disk *d = open_disk(0);
    EXPECT_EQ(d->size_bytes, 1024);
    EXPECT_EQ(byte_at(d, 999), (uint8_t)(999 * 7 >> 3));
    EXPECT_EQ(byte_at(d, 1000), 0);
    EXPECT_EQ(byte_at(d, 1023), 0);
    EXPECT_EQ(put_bytes(d, 1020, 9, 4), 0);
    EXPECT_EQ(byte_at(d, 1023), 9);
    disk_close(d);
    ASSERT_EQ(stat(path, &st), 0);
    EXPECT_EQ(st.st_size, 1024);
}

TEST(write_zeroes_and_discard)
{
    struct stat before;
    struct stat after;

    make_file(1 << 20);
    struct disk *d = open_disk(0);
    EXPECT_EQ(disk_write_zeroes(d, 1000, 200000, false), 0);
    EXPECT_EQ(byte_at(d, 999), (uint8_t)(999 * 7 >> 3));
    EXPECT_EQ(byte_at(d, 1000), 0);
    EXPECT_EQ(byte_at(d, 200999), 0);
    EXPECT_EQ(byte_at(d, 201000), (uint8_t)(201000u * 7 >> 3));
    ASSERT_EQ(stat(path, &before), 0);
    EXPECT_EQ(disk_write_zeroes(d, 0, 1 << 19, true), 0);
    EXPECT_EQ(disk_discard(d, 1 << 19, 1 << 19), 0);
    ASSERT_EQ(stat(path, &after), 0);
    EXPECT_TRUE(after.st_blocks < before.st_blocks);
    EXPECT_EQ(after.st_size, 1 << 20);
    EXPECT_EQ(byte_at(d, 5), 0);
    disk_close(d);
}

TEST(refuses_what_is_no_raw_disk)
{
    static const struct {
        const char *magic;
        int size, offset;
        const char *name;
    } cases[] = {
        {"QED\0",            4, 0, "QED"            },
        {"\xfd\x37zXZ",      6, 0, "unpack it first"},
        {"\x1f\x8b\x08\x00", 4, 0, "gzip"           },
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        make_file(4096);
        cleanup(fd_closep) int fd = open(path, O_WRONLY | O_CLOEXEC);
        ASSERT_EQ(fd_pwrite_all(fd, cases[i].magic, (size_t)cases[i].size, cases[i].offset), 0);
        expect_refusal(path, NULL, 0, EINVAL, cases[i].name);
        struct disk *d = NULL;
        ASSERT_EQ(disk_open(path, &(struct disk_options){.format = "raw"}, &d, NULL),
                  0); /* said so: fine */
        disk_close(d);
        remove_file();
    }
}

TEST(refuses_what_cannot_be_opened)
{
    expect_refusal("/nonexistent/disk", NULL, 0, ENOENT,
                   "'/nonexistent/disk' for writing: No such");
    expect_refusal("/tmp", NULL, DISK_READONLY, EINVAL, "neither a file nor a block device");
    expect_refusal("/tmp", NULL, 0, EISDIR, "directory");
    expect_refusal("/dev/null", NULL, 0, EINVAL, "neither a file nor a block device");
    make_file(0);
    expect_refusal(path, NULL, 0, EINVAL, "is empty");
    expect_refusal(path, "nonsense", 0, EINVAL, "is unknown");
}

TEST(does_not_wait_for_a_pipe)
{
    (void)snprintf(path, sizeof(path), "/tmp/disk_test-fifo-%d", (int)getpid());
    ASSERT_EQ(mkfifo(path, 0600), 0);
    (void)atexit(remove_file);
    expect_refusal(path, NULL, DISK_READONLY, EINVAL, "neither");
}

TEST(writers_exclude_others)
{
    make_file(4096);
    struct disk *d = open_disk(0);
    expect_refusal(path, NULL, 0, EBUSY, "is given twice");
    expect_refusal(path, NULL, DISK_READONLY, EBUSY, "is given twice");
    pid_t pid = fork();
    if (pid == 0) {
        struct disk *other = NULL;

        _exit(disk_open(path, NULL, &other, NULL) == -EBUSY && !other ? 0 : 1);
    }
    int status = -1;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_EQ(status, 0);
    disk_close(d);
    disk_close(open_disk(0));
}

TEST(names_the_holder)
{
    int ready[2];
    char want[64];
    char byte = 0;

    make_file(4096);
    ASSERT_EQ(pipe2(ready, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct disk *d = open_disk(0);

        (void)!write(ready[1], "x", 1);
        pause();
        disk_close(d);
        _exit(0);
    }
    ASSERT_EQ(read(ready[0], &byte, 1), 1);
    (void)snprintf(want, sizeof(want), "in use by process %d", (int)pid);
    expect_refusal(path, NULL, 0, EBUSY, want);
    expect_refusal(path, NULL, DISK_READONLY, EBUSY, want);
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
    disk_close(open_disk(0));
}

TEST(readers_share)
{
    make_file(4096);
    struct disk *a = open_disk(DISK_READONLY);
    struct disk *b = open_disk(DISK_SNAPSHOT);
    expect_refusal(path, NULL, 0, EBUSY, "given twice");
    disk_close(a);
    disk_close(b);
    disk_close(open_disk(0));
}

TEST(snapshot_leaves_the_file_alone)
{
    make_file(10000);
    struct disk *d = open_disk(DISK_SNAPSHOT);
    EXPECT_TRUE(!d->readonly);
    EXPECT_EQ(put_bytes(d, 5000, 0x55, 10), 0);
    EXPECT_EQ(byte_at(d, 4999), (uint8_t)(4999 * 7 >> 3));
    EXPECT_EQ(byte_at(d, 5000), 0x55);
    EXPECT_EQ(byte_at(d, 5010), (uint8_t)(5010 * 7 >> 3));
    EXPECT_EQ(disk_flush(d), 0);
    disk_close(d);
    d = open_disk(0);
    EXPECT_EQ(byte_at(d, 5000), (uint8_t)(5000 * 7 >> 3));
    disk_close(d);
}

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state >> 8;
}

/** Compare all of @d with @model. */
static void compare(struct disk *d, const uint8_t *model, size_t size)
{
    uint8_t *buf = malloc(size);
    struct iovec iov[3] = {
        {buf,        100        },
        {buf + 100,  5000       },
        {buf + 5100, size - 5100},
    };

    ASSERT_TRUE(buf);
    EXPECT_EQ(disk_preadv(d, iov, 3, 0), 0);
    ASSERT_TRUE(!memcmp(buf, model, size));
    free(buf);
}

/* Random writes, zeroes and discards of every alignment, against a copy in memory. */
static void against_model(unsigned flags)
{
    enum { SIZE = 300 * 512 };
    static uint8_t model[SIZE];
    uint32_t seed = 1;

    make_file(SIZE);
    struct disk *d = open_disk(flags);
    struct iovec iov = {model, SIZE};
    ASSERT_EQ(disk_preadv(d, &iov, 1, 0), 0);
    for (int i = 0; i < 2000; i++) {
        uint32_t at = next_random(&seed) % SIZE;
        uint32_t size = next_random(&seed) % (i % 3 ? 600 : 20000);
        size = MIN(size, SIZE - at);
        uint8_t value = (uint8_t)next_random(&seed);
        switch (next_random(&seed) % 6) {
        case 0:
            ASSERT_EQ(disk_write_zeroes(d, at, size, value & 1), 0);
            memset(model + at, 0, size);
            break;
        case 1: /* leaves old bytes or zeroes */
            ASSERT_EQ(disk_discard(d, at, size), 0);
            iov = (struct iovec){model + at, size};
            ASSERT_EQ(disk_preadv(d, &iov, 1, at), 0);
            break;
        default:
            ASSERT_EQ(put_bytes(d, at, value, size), 0);
            memset(model + at, value, size);
        }
        if (i % 50 == 0)
            compare(d, model, SIZE);
    }
    compare(d, model, SIZE);
    disk_close(d);
}

TEST(raw_against_model)
{
    against_model(0);
}

TEST(snapshot_against_model)
{
    against_model(DISK_SNAPSHOT);
}

TEST(slices)
{
    char buf[30];
    struct iovec in[] = {
        {buf,      10},
        {buf + 10, 0 },
        {buf + 10, 20},
    };
    struct iovec out[3];

    EXPECT_EQ(iov_slice(out, in, 3, 5, 10), 2);
    EXPECT_TRUE(out[0].iov_base == buf + 5 && out[0].iov_len == 5);
    EXPECT_TRUE(out[1].iov_base == buf + 10 && out[1].iov_len == 5);
    EXPECT_EQ(iov_slice(in, in, 3, 12, 100), 1); /* in place */
    EXPECT_TRUE(in[0].iov_base == buf + 12 && in[0].iov_len == 18);
    EXPECT_EQ(iov_slice(out, in, 1, 18, 1), 0);
}

TEST(a_file_in_memory_replays_its_log)
{
    struct file *f = file_memory_new(NULL, 4096, 1 << 20);
    struct file *copy = file_memory_copy(f);
    uint8_t buf[1536];
    uint8_t got[2048];

    file_memory_record(f);
    memset(buf, 0x5a, sizeof(buf));
    ASSERT_EQ(file_pwrite(f, buf, sizeof(buf), 100000), 0);
    ASSERT_EQ(file_flush(f), 0);
    ASSERT_EQ(file_write_zeroes(f, 100100, 10, true), 0);
    ASSERT_EQ(file_truncate(f, 101000), 0);
    EXPECT_EQ(file_pwrite(f, buf, sizeof(buf), (1 << 20) - 1), -ENOSPC);
    const struct file_memory_log *log = file_memory_get_log(f);
    ASSERT_EQ(log->count, 4);
    for (size_t i = 0; i < log->count; i++)
        file_memory_apply(copy, &log->v[i], i == 0,
                          UINT64_MAX); /* the first write lost its first sector */
    uint64_t size = 0;
    ASSERT_EQ(file_get_size(copy, &size), 0);
    EXPECT_EQ(size, 101000);
    ASSERT_EQ(file_pread(copy, got, sizeof(got), 99999), 0);
    EXPECT_EQ(got[1], 0);          /* lost */
    EXPECT_EQ(got[1 + 512], 0x5a); /* kept */
    EXPECT_EQ(got[1 + 1000], 0);   /* beyond the truncation */
    file_memory_fail(f, 1, EIO, false);
    EXPECT_EQ(file_flush(f), 0);
    EXPECT_EQ(file_flush(f), -EIO);
    file_close(f);
    file_close(copy);
}

TEST(a_disk_over_another_shows_zeroes_beyond_its_end)
{
    uint8_t byte = 7;
    uint8_t got[2048];
    struct disk *below = NULL;
    struct disk *d = NULL;

    ASSERT_EQ(disk_open_file(file_memory_new(NULL, 1024, 4096), &raw_format, 0, NULL, &below, NULL),
              0);
    ASSERT_EQ(disk_open_file(file_memory_new(NULL, 4096, 4096), &raw_format, 0, below, &d, NULL),
              0);
    ASSERT_EQ(disk_pwrite(below, &byte, 1, 1023), 0);
    memset(got, 0xee, sizeof(got));
    struct iovec iov = {got, sizeof(got)};
    ASSERT_EQ(disk_below_preadv(d, &iov, 1, 512), 0);
    EXPECT_EQ(got[511], 7);
    EXPECT_EQ(got[512], 0);
    EXPECT_EQ(got[2047], 0);
    disk_close(d);
}

TEST(direct_transfers_of_any_alignment)
{
    struct disk *d = NULL;
    uint8_t buf[5000];

    make_file(20000);
    err = (struct error){0};
    int rc = disk_open(path, &(struct disk_options){.flags = DISK_DIRECT}, &d, &err);
    if (rc == -EINVAL && strstr(err.text, "without direct I/O"))
        test_skip("no direct I/O on /tmp");
    ASSERT_EQ(rc, 0);
    memset(buf, 0x77, sizeof(buf));
    ASSERT_EQ(disk_pwrite(d, buf, sizeof(buf), 4000), 0);
    EXPECT_EQ(byte_at(d, 3999), (uint8_t)(3999 * 7 >> 3));
    EXPECT_EQ(byte_at(d, 4000), 0x77);
    EXPECT_EQ(byte_at(d, 8999), 0x77);
    EXPECT_EQ(byte_at(d, 9000), (uint8_t)(9000 * 7 >> 3));
    EXPECT_EQ(byte_at(d, 20479), 0);
    disk_close(d);
}

/* The file ends within a block of direct I/O: writing there makes it no longer than the disk. */
TEST(direct_writes_at_the_end_keep_the_size)
{
    struct disk *d = NULL;
    uint8_t buf[1024];
    struct stat st;

    make_file(21000);
    err = (struct error){0};
    int rc = disk_open(path, &(struct disk_options){.flags = DISK_DIRECT}, &d, &err);
    if (rc == -EINVAL && strstr(err.text, "without direct I/O"))
        test_skip("no direct I/O on /tmp");
    ASSERT_EQ(rc, 0);
    memset(buf, 0x77, sizeof(buf));
    ASSERT_EQ(disk_pwrite(d, buf, 512, 20480), 0);
    ASSERT_EQ(stat(path, &st), 0);
    EXPECT_EQ(st.st_size, 21000);
    ASSERT_EQ(disk_pwrite(d, buf, 1024, 20480), 0);
    ASSERT_EQ(stat(path, &st), 0);
    EXPECT_EQ(st.st_size, 21504);
    EXPECT_EQ(byte_at(d, 20479), (uint8_t)(20479 * 7 >> 3));
    EXPECT_EQ(byte_at(d, 20480), 0x77);
    EXPECT_EQ(byte_at(d, 21503), 0x77);
    disk_close(d);
}

TEST(a_new_file_appears_whole_or_not_at_all)
{
    struct disk_create c = {.size_bytes = 1 << 20};
    struct disk *d = NULL;

    (void)snprintf(path, sizeof(path), "/tmp/disk_test-new-%d", (int)getpid());
    (void)atexit(remove_file);
    ASSERT_EQ(disk_create(path, &raw_format, &c, &err), 0);
    ASSERT_EQ(disk_open(path, NULL, &d, &err), 0);
    EXPECT_EQ(d->size_bytes, 1 << 20);
    err = (struct error){0};
    EXPECT_EQ(disk_create(path, &raw_format, &c, &err), -EEXIST);
    c.force = true;
    err = (struct error){0};
    EXPECT_EQ(disk_create(path, &raw_format, &c, &err), -EBUSY);
    disk_close(d);
    EXPECT_EQ(disk_create(path, &raw_format, &c, NULL), 0);
    static const struct disk_create_value wrong[] = {
        {"colour", "red"},
        {0       }
    };
    c.values = wrong;
    err = (struct error){0};
    EXPECT_EQ(disk_create(path, &raw_format, &c, &err), -EINVAL);
    EXPECT_TRUE(strstr(err.text, "no option 'colour'"));
}

TEST(guard_waits_for_requests_that_may_know_a_place)
{
    struct disk d = {0};

    uint64_t idle = disk_io_stamp(&d);
    EXPECT_TRUE(disk_io_is_past(&d, idle)); /* nobody is there */

    unsigned before = disk_io_begin(&d);
    uint64_t freed = disk_io_stamp(&d);
    unsigned after = disk_io_begin(&d); /* may still have been told of it */
    EXPECT_TRUE(!disk_io_is_past(&d, freed));
    unsigned late = disk_io_begin(&d); /* the epoch may have moved once: does not count */
    disk_io_end(&d, before);
    EXPECT_TRUE(!disk_io_is_past(&d, freed));
    disk_io_end(&d, after);
    if (late != after) /* began in the next epoch, and so after the stamp */
        EXPECT_TRUE(disk_io_is_past(&d, freed));
    disk_io_end(&d, late);
    EXPECT_TRUE(disk_io_is_past(&d, freed));

    freed = disk_io_stamp(&d);
    unsigned old = disk_io_begin(&d);
    EXPECT_TRUE(!disk_io_is_past(&d, freed));
    for (int i = 0; i < 10; i++) { /* others that come and go neither help nor hinder */
        unsigned t = disk_io_begin(&d);
        disk_io_end(&d, t);
        EXPECT_TRUE(!disk_io_is_past(&d, freed));
    }
    disk_io_end(&d, old);
    EXPECT_TRUE(disk_io_is_past(&d, freed));
    EXPECT_EQ(d.guard.in_flight[0], 0);
    EXPECT_EQ(d.guard.in_flight[1], 0);
}

/** One place that is freed and used again, and readers that must never see the next user's value.
 */
struct guard_race {
    struct disk d;
    unsigned place[2]; /* [atomic] which of the two slots is the current one: slot and generation */
    unsigned slot[2];  /* [atomic] content: the generation it was taken for */
    bool stop;         /* [atomic] */
    unsigned wrong;    /* [atomic] */
};

static void *guard_reader(void *arg)
{
    struct guard_race *r = arg;

    while (!__atomic_load_n(&r->stop, __ATOMIC_ACQUIRE)) {
        unsigned t = disk_io_begin(&r->d);
        unsigned place = __atomic_load_n(&r->place[0], __ATOMIC_SEQ_CST);
        for (int i = 0; i < 50; i++) {
            if (__atomic_load_n(&r->slot[place & 1], __ATOMIC_SEQ_CST) != place)
                __atomic_fetch_add(&r->wrong, 1, __ATOMIC_RELAXED); /* a count alone */
        }
        disk_io_end(&r->d, t);
    }
    return NULL;
}

TEST(guard_keeps_places_from_readers_on_other_threads)
{
    static struct guard_race r;
    pthread_t thread[2];
    uint64_t freed = 0;
    unsigned changes = 0;

    for (int i = 0; i < 2; i++)
        ASSERT_EQ(thread_start(&thread[i], "reader", guard_reader, &r), 0);
    while (changes < 5000) {
        unsigned next = r.place[0] + 1; /* the other slot, of the next generation */

        if (changes && !disk_io_is_past(&r.d, freed)) {
            (void)sched_yield(); /* to the reader in the way */
            continue;
        }
        __atomic_store_n(&r.slot[next & 1], next, __ATOMIC_SEQ_CST);
        __atomic_store_n(&r.place[0], next, __ATOMIC_SEQ_CST);
        freed = disk_io_stamp(&r.d);
        changes++;
    }
    __atomic_store_n(&r.stop, true, __ATOMIC_RELEASE);
    for (int i = 0; i < 2; i++)
        thread_join(thread[i]);
    EXPECT_EQ(r.wrong, 0);
}

TEST(cached_reads_are_right_or_refused)
{
    uint8_t got[6000];
    uint8_t want[6000];

    make_file(100000);
    struct disk *d = open_disk(0);
    EXPECT_EQ(disk_pread(d, want, sizeof(want), 5000), 0);
    struct iovec parts[] = {
        {got,        1000},
        {got + 1000, 5000},
    };
    int rc = disk_preadv_cached(d, parts, 2, 5000); /* not every file system can */
    EXPECT_TRUE(rc == 0 || rc == -EAGAIN);
    EXPECT_TRUE(rc || !memcmp(got, want, sizeof(got)));
    EXPECT_EQ(disk_preadv_cached(d, parts, 2, d->size_bytes - 5999), -EINVAL);
    disk_close(d);

    struct file *f = file_memory_new(want, 4096, 4096); /* no descriptor: cannot tell */
    ASSERT_EQ(disk_open_file(f, &raw_format, 0, NULL, &d, &err), 0);
    EXPECT_EQ(disk_preadv_cached(d, &(struct iovec){got, 4096}, 1, 0), -EAGAIN);
    disk_close(d);
}

/** Half of a block each, and all of it, at the same time: whoever comes last, none is undone by the
 * copy of the base. */
struct overlay_race {
    struct disk *d;
    unsigned thread;
};

#define RACE_BLOCKS 4000u

static void *race(void *arg)
{
    const struct overlay_race *r = arg;
    uint8_t buf[4096];

    memset(buf, 0xee, sizeof(buf));
    for (uint64_t b = 0; b < RACE_BLOCKS; b++) {
        size_t size = r->thread ? 4096 : 512;

        if (disk_pwrite(r->d, buf, size, b * 4096))
            return (void *)r;
    }
    return NULL;
}

TEST(overlay_writes_of_one_block_at_once)
{
    uint8_t got[4096];
    pthread_t thread[2];

    make_file(RACE_BLOCKS * 4096);
    struct disk *d = open_disk(DISK_SNAPSHOT);
    struct overlay_race races[2] = {
        {d, 0},
        {d, 1},
    };
    for (unsigned i = 0; i < 2; i++)
        ASSERT_EQ(thread_start(&thread[i], "race", race, &races[i]), 0);
    for (unsigned i = 0; i < 2; i++) {
        void *failed = NULL;

        (void)pthread_join(thread[i], &failed);
        EXPECT_TRUE(!failed);
    }
    for (uint64_t b = 0; b < RACE_BLOCKS; b++) { /* both wrote the same value: it is all there is */
        ASSERT_EQ(disk_pread(d, got, sizeof(got), b * 4096), 0);
        for (size_t i = 0; i < sizeof(got); i++)
            ASSERT_EQ(got[i], 0xee);
    }
    disk_close(d);
}

TEST(overlay_says_where_its_blocks_are)
{
    struct disk_extent e;

    make_file(100000);
    struct disk *d = open_disk(DISK_SNAPSHOT);
    ASSERT_EQ(put_bytes(d, 8192, 7, 8192), 0);
    ASSERT_EQ(disk_map(d, 0, 90000, &e), 0);
    EXPECT_TRUE(e.kind == DISK_DATA && e.depth == 1 && e.size == 8192 && e.file_offset == 0);
    ASSERT_EQ(disk_map(d, 9000, 80000, &e), 0);
    EXPECT_TRUE(e.kind == DISK_DATA && e.depth == 0 && e.size == 16384 - 9000);
    EXPECT_EQ(e.file_offset, 9000);
    ASSERT_EQ(disk_place(d, 9000, 100, &e), 0);
    EXPECT_TRUE(e.kind == DISK_DATA && e.size == 100);
    ASSERT_EQ(disk_place(d, 100, 100, &e), 0);
    EXPECT_TRUE(e.kind != DISK_DATA);
    disk_close(d);
}

/** One thread makes the file longer by zeroes, the other by data behind them. */
struct growth {
    struct file *f;
    uint64_t base; /* [atomic] where this round begins; 0 = none yet */
    uint64_t done; /* [atomic] rounds of the thread that writes data */
};

#define GROWTH_ROUNDS 3000u
#define GROWTH_STEP   16384u

static void *grow_by_data(void *arg)
{
    struct growth *g = arg;
    uint8_t block[4096];

    memset(block, 0xd5, sizeof(block));
    for (uint64_t round = 1; round <= GROWTH_ROUNDS; round++) {
        while (__atomic_load_n(&g->base, __ATOMIC_ACQUIRE) != round * GROWTH_STEP)
            (void)sched_yield();
        if (file_pwrite(g->f, block, sizeof(block), round * GROWTH_STEP + 8192))
            break;
        __atomic_store_n(&g->done, round, __ATOMIC_RELEASE);
    }
    return NULL;
}

TEST(zeroes_beyond_the_end_cut_off_nobodys_data)
{
    static struct growth g;
    pthread_t thread;
    unsigned lost = 0;

    make_file(4096);
    ASSERT_EQ(file_open(AT_FDCWD, path, FILE_WRITE, &g.f, &err), 0);
    ASSERT_EQ(thread_start(&thread, "grower", grow_by_data, &g), 0);
    for (uint64_t round = 1; round <= GROWTH_ROUNDS; round++) {
        uint8_t byte = 0;

        __atomic_store_n(&g.base, round * GROWTH_STEP, __ATOMIC_RELEASE);
        ASSERT_EQ(file_write_zeroes(g.f, round * GROWTH_STEP, 4096, true), 0);
        while (__atomic_load_n(&g.done, __ATOMIC_ACQUIRE) != round)
            (void)sched_yield();
        ASSERT_EQ(file_pread(g.f, &byte, 1, round * GROWTH_STEP + 8192), 0);
        lost += byte != 0xd5;
    }
    thread_join(thread);
    EXPECT_EQ(lost, 0);
    file_close(g.f);
}
