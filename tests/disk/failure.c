/* A host that fails in the middle: every format, with and without something below, is written to
 * while the file under it runs out of space (ENOSPC) or gives errors (EIO) from some call on, for a
 * while. The guest must get an error, never wrong data; afterwards the image works on, what was
 * written successfully is there, and a check finds no error (leaks are allowed).
 *
 *     failure [--rounds N] [--seed S] [FORMAT...]
 *
 * A sector holds its number and the number of the write. For each, the values it may have are kept:
 * a write that failed may have been done or not.
 */
#include "base/bits.h"
#include "base/error.h"
#include "base/macros.h"
#include "disk/disk.h"
#include "disk/file_memory.h"
#include "disk/format.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECTOR         512u
#define DISK_BYTES     (4u << 20)
#define SECTORS        (DISK_BYTES / SECTOR)
#define MAX_FILE_BYTES (512ULL << 20)
#define OPS            300
#define MAX_VALUES     8

struct sector {
    uint32_t v[MAX_VALUES];
    unsigned count; /* 0 = too many to remember: anything of this sector */
};

struct run {
    const struct disk_format *format;
    uint64_t random;
    struct sector sectors[SECTORS];
    unsigned failed; /* operations that failed */
    char wrong[300]; /* what is wrong; empty = nothing */
};

static uint8_t buffer[DISK_BYTES];

static uint64_t below(struct run *r, uint64_t n)
{
    r->random ^= r->random >> 12;
    r->random ^= r->random << 25;
    r->random ^= r->random >> 27;
    return (r->random * 0x2545f4914f6cdd1dULL >> 16) % n;
}

static void fill_sector(uint8_t *buf, uint32_t sector, uint32_t value)
{
    memset(buf, 0, SECTOR);
    for (unsigned i = 0; value && i < SECTOR; i += 8) {
        store_le32(buf + i, sector);
        store_le32(buf + i + 4, value);
    }
}

static void add_value(struct sector *s, uint32_t value)
{
    if (s->count && s->count < MAX_VALUES)
        s->v[s->count++] = value;
    else
        s->count = 0;
}

static void note(struct run *r, uint32_t first, uint32_t end, uint32_t value, bool certain)
{
    for (uint32_t s = first; s < end; s++) {
        if (certain)
            r->sectors[s] = (struct sector){.v = {value}, .count = 1};
        else
            add_value(&r->sectors[s], value);
    }
}

/** Are the sectors from @first on, as read into the buffer, what they may be? */
static void compare(struct run *r, uint32_t first, uint32_t end, const char *when)
{
    uint8_t want[SECTOR];

    for (uint32_t s = first; s < end && !*r->wrong; s++) {
        const uint8_t *got = buffer + (size_t)(s - first) * SECTOR;
        const struct sector *sector = &r->sectors[s];
        uint32_t value = load_le32(got + 4);
        bool good = !sector->count;

        for (unsigned i = 0; i < sector->count; i++)
            good = good || sector->v[i] == value;
        fill_sector(want, s, value);
        if (!good || memcmp(got, want, SECTOR) != 0)
            (void)snprintf(r->wrong, sizeof(r->wrong),
                           "sector %u holds value %u of sector %u, not %u%s, %s", s, value,
                           load_le32(got), sector->v[0],
                           sector->count > 1 ? " or what failed writes left" : "", when);
    }
}

/** One random operation. */
static void do_op(struct run *r, struct disk *d, uint32_t value, const char *when)
{
    uint64_t top = 1ULL << below(r, 11);
    uint32_t size = (uint32_t)(1 + below(r, top));
    uint32_t first = (uint32_t)below(r, below(r, 3) ? 1024 : SECTORS - size);
    uint64_t at = (uint64_t)first * SECTOR;
    uint64_t bytes = (uint64_t)size * SECTOR;
    uint64_t dice = below(r, 100);
    int rc;

    if (dice < 50) {
        for (uint32_t s = 0; s < size; s++)
            fill_sector(buffer + (size_t)s * SECTOR, first + s, value);
        rc = disk_pwrite(d, buffer, bytes, at);
        note(r, first, first + size, value, !rc);
    } else if (dice < 60) {
        rc = disk_write_zeroes(d, at, bytes, below(r, 2));
        note(r, first, first + size, 0, !rc);
    } else if (dice < 68) {
        rc = disk_discard(d, at, bytes);
        note(r, first, first + size, 0, false);
    } else if (dice < 80) {
        rc = disk_flush(d);
    } else {
        rc = disk_pread(d, buffer, bytes, at);
        if (!rc)
            compare(r, first, first + size, when);
    }
    r->failed += rc != 0;
}

static void say(void *arg, const char *text)
{
    struct run *r = arg;

    if (strlen(r->wrong) < 150)
        (void)snprintf(r->wrong + strlen(r->wrong), sizeof(r->wrong) - strlen(r->wrong), "; %s",
                       text);
}

/** What is in @image, which is taken, after all that. */
static void verify(struct run *r, struct file *image, struct disk *base)
{
    struct error err = {0};
    struct disk_check check = {0};
    struct disk *d = NULL;

    if (disk_open_file(image, r->format, 0, base, &d, &err)) {
        (void)snprintf(r->wrong, sizeof(r->wrong), "cannot be opened again: %.200s",
                       error_text(&err));
        file_close(image);
        return;
    }
    if (disk_pread(d, buffer, DISK_BYTES, 0))
        (void)snprintf(r->wrong, sizeof(r->wrong), "cannot be read after it was opened again");
    else
        compare(r, 0, SECTORS, "after it was opened again");
    int rc = *r->wrong ? 0 : disk_check(d, 0, &check, &err);
    if ((rc && rc != -ENOTSUP) || check.errors) {
        (void)snprintf(r->wrong, sizeof(r->wrong), "check: %d, %llu errors", rc,
                       (unsigned long long)check.errors);
        check = (struct disk_check){.report = say, .arg = r};
        if (disk_check(d, 0, &check, &err))
            say(r, error_text(&err));
    }
    d->below = NULL; /* the caller's */
    disk_close(d);
}

static struct disk *new_disk(struct run *r, struct disk *base, struct file **ret_file)
{
    struct error err = {0};
    struct disk *d = NULL;
    struct file *f = file_memory_new(NULL, 0, MAX_FILE_BYTES);
    struct disk_create c = {
        .size_bytes = DISK_BYTES,
        .backing = base,
        .backing_path = base ? "base.image" : NULL,
        .backing_format = base ? disk_format_name(r->format) : NULL,
    };

    if (disk_create_file(f, r->format, &c, &err) ||
        disk_open_file(f, r->format, 0, base, &d, &err)) {
        printf("Bail out! %s\n", error_text(&err));
        exit(1);
    }
    *ret_file = f;
    return d;
}

/** Of the disk's first half, every other 64 KiB is data of the base. */
static struct disk *new_base(struct run *r)
{
    struct file *f;
    struct disk *d = new_disk(r, NULL, &f);

    for (uint32_t s = 0; s < SECTORS / 2; s++) {
        if (s / 128 % 2)
            continue;
        fill_sector(buffer, s, 1);
        note(r, s, s + 1, 1, true);
        if (disk_pwrite(d, buffer, SECTOR, (uint64_t)s * SECTOR))
            exit(1);
    }
    if (disk_flush(d))
        exit(1);
    d->readonly = true;
    return d;
}

static void run_round(struct run *r, bool over)
{
    struct file *f;

    note(r, 0, SECTORS, 0, true);
    struct disk *base = over ? new_base(r) : NULL;
    struct disk *d = new_disk(r, base, &f);
    int code = below(r, 2) ? ENOSPC : EIO;
    bool reads = code == EIO && below(r, 2);
    uint32_t value = 1;

    for (int i = 0; i < OPS / 3; i++)
        do_op(r, d, ++value, "before anything failed");
    for (int times = 0; times < 3; times++) {
        file_memory_fail(f, below(r, 40), code, reads);
        for (int i = 0; i < OPS / 6; i++)
            do_op(r, d, ++value, "while the host fails");
        file_memory_fail(f, 0, 0, false);
        for (int i = 0; i < OPS / 6; i++)
            do_op(r, d, ++value, "after the host failed");
    }
    unsigned failed = r->failed;
    for (int i = 0; i < 20; i++)
        do_op(r, d, ++value, "at the end");
    if (!*r->wrong && r->failed != failed)
        (void)snprintf(r->wrong, sizeof(r->wrong), "goes on failing when the host does not");
    if (!*r->wrong && disk_flush(d))
        (void)snprintf(r->wrong, sizeof(r->wrong), "cannot be flushed at the end");
    struct file *copy = file_memory_copy(f);
    d->below = NULL;
    disk_close(d);
    if (*r->wrong)
        file_close(copy);
    else
        verify(r, copy, base);
    disk_close(base);
}

static bool run_format(const struct disk_format *format, bool over, unsigned rounds, uint64_t seed)
{
    unsigned failed = 0;

    for (unsigned i = 0; i < rounds; i++) {
        struct run *r = calloc(1, sizeof(*r));

        if (!r)
            abort();
        r->format = format;
        r->random = (seed + i) * 0x9e3779b97f4a7c15ULL;
        run_round(r, over);
        failed += r->failed;
        if (*r->wrong) {
            printf("# seed %llu: %s\n", (unsigned long long)(seed + i), r->wrong);
            free(r);
            return false;
        }
        free(r);
    }
    if (!failed)
        printf("# nothing failed at all: this shows nothing\n");
    return failed;
}

/** Can images of it stand over others, and be made in memory? */
static bool can_be_over(const struct disk_format *format)
{
    static const char *const names[] = {"qcow2", "vdi", "vmdk", "vhd", "vhdx"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (!strcmp(disk_format_name(format), names[i]))
            return true;
    }
    return false;
}

static bool is_chosen(const char *name, int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        if (!strcmp(argv[i], name))
            return true;
    }
    return argc == 0;
}

int main(int argc, char **argv)
{
    unsigned rounds = 20;
    uint64_t seed = 1;
    unsigned nr = 0;
    bool all_good = true;
    int arg = 1;

    setvbuf(stdout, NULL, _IOLBF, 0);
    for (; arg + 1 < argc && argv[arg][0] == '-'; arg += 2) {
        if (!strcmp(argv[arg], "--rounds"))
            rounds = (unsigned)strtoul(argv[arg + 1], NULL, 0);
        else if (!strcmp(argv[arg], "--seed"))
            seed = strtoull(argv[arg + 1], NULL, 0);
        else
            return fprintf(stderr, "usage: failure [--rounds N] [--seed S] [FORMAT...]\n"), 2;
    }
    for (const struct disk_format *const *f = disk_formats; *f; f++) {
        const char *name = disk_format_name(*f);

        for (int over = 0; over <= can_be_over(*f); over++) {
            if (!is_chosen(name, argc - arg, argv + arg))
                continue;
            bool good = run_format(*f, over, rounds, seed);

            printf("%sok %u - %s%s: the host fails, the disk does not\n", good ? "" : "not ", ++nr,
                   name, over ? " over another" : "");
            all_good = all_good && good;
        }
    }
    printf("1..%u\n", nr);
    return all_good && nr ? 0 : 1;
}
