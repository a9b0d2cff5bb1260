/* Power cuts: whatever instant the power goes at, what was flushed is there and the image is sound.
 *
 *     powercut                      every scenario, POINTS cuts each
 *     powercut --list               their names
 *     powercut --points N --seed S [NAME...]
 *
 * A random workload of writes, zeroes, discards and flushes runs on an image in a file that logs
 * what is done to it. Then, for many positions of the log, a disk after a power cut is made: all
 * that was done before the last flush of the file, and of what came after, up to the position,
 * everything, or a random part of it, whole or torn at 512 bytes. The image must open, check
 * without an error (leaks are allowed) and hold, in each sector, what it held at the guest's last
 * finished flush or what was put there since.
 *
 * Each sector written holds its number and the number of the write, so that a stray one is
 * recognized.
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
#define FINDINGS_BYTES 4096
#define MAX_FILE_BYTES (512ULL << 20)
#define OPS            600
#define RUN_POINTS     400 /* cuts of one workload, before another is made */

struct scenario {
    const char *name;
    const char *format;
    uint64_t size_bytes;
    bool over; /* something is below */
    const struct disk_create_value *values;
    bool fill; /* some writes copy from below instead (disk_fill()) */
};

static const struct disk_create_value v2[] = {
    {"compat", "0.10"},
    {0       }
};
static const struct disk_create_value tiny[] = {
    {"cluster_size", "512"},
    {0             }
};
static const struct disk_create_value narrow[] = {
    {"cluster_size", "1K"},
    {"refcount_bits",              "1"},
    {0}
};
static const struct disk_create_value wide[] = {
    {"cluster_size", "4K"},
    {"refcount_bits",              "64"},
    {0}
};
static const struct disk_create_value large[] = {
    {"cluster_size", "2M"},
    {0             }
};
static const struct disk_create_value extended[] = {
    {"extended_l2", "on"},
    {0            }
};
static const struct disk_create_value extended_16k[] = {
    {"extended_l2", "on"},
    {"cluster_size",             "16K"},
    {0}
};

static const struct disk_create_value zeroed_grain[] = {
    {"zeroed_grain", "on"},
    {0             }
};

static const struct scenario scenarios[] = {
    {"raw",         "raw",   2 << 20,        false,        NULL                          },
    {"vdi",         "vdi",   6 << 20,        false,        NULL                          },
    {"vdi-over",    "vdi",   4 << 20,        true,         NULL                          },
    {"vmdk",        "vmdk",  6 << 20,        false,        NULL                          },
    {"vmdk-over",   "vmdk",  4 << 20,        true,         NULL                          },
    {"vmdk-zeroed", "vmdk",  4 << 20,        true,         zeroed_grain                  },
    {"vhd",         "vhd",   6 << 20,        false,        NULL                          },
    {"vhd-over",    "vhd",   6 << 20,        true,         NULL                          },
    {"vhdx",        "vhdx",  6 << 20,        false,        NULL                          },
    {"vhdx-over",   "vhdx",  6 << 20,        true,         NULL                          },
    {"qcow2",       "qcow2", 8 << 20,        false,        NULL                          },
    {"qcow2-over",  "qcow2", 6 << 20,        true,         NULL                          },
    {"qcow2-fill",  "qcow2", 6 << 20,        true,         NULL,                           true},
    {"qcow2-fill-1k",             "qcow2",      4 << 20, true, narrow,                           true},
    {"qcow2-v2",         "qcow2",                6 << 20,                     false,                  v2},
    {"qcow2-v2-over",           "qcow2",                  6 << 20,                  true,v2  },
    {"qcow2-512",           "qcow2",                  4 << 20,                      false,                      tiny                         },
    {"qcow2-1k-rc1",         "qcow2",                4 << 20,                 false,narrow},
    {"qcow2-4k-rc64",       "qcow2",              4 << 20,              true,                     wide                                                       },
    {"qcow2-2m",         "qcow2",                6 << 20,                     false,large},
    {"qcow2-ext",        "qcow2",               6 << 20,                   false,                    extended                                                                              },
    {"qcow2-ext-over",     "qcow2",            6 << 20,           true,extended_16k},
};

enum op_kind { OP_WRITE, OP_ZERO, OP_DISCARD, OP_FLUSH, OP_FILL };

struct op {
    enum op_kind kind;
    uint32_t first, end; /* sectors */
    size_t log_begin;    /* length of the file's log before and after it */
    size_t log_end;
};

struct run {
    const struct scenario *s;
    const struct disk_format *format;
    uint64_t random;
    struct file *file;  /* the recorded one */
    struct file *start; /* as it was before */
    struct disk *base;  /* what is below; NULL */
    struct op ops[OPS];
    uint32_t sectors;
};

static uint64_t next_random(uint64_t *state)
{
    /* xorshift64*: the tests must be repeatable from a seed. */
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1dULL;
}

static uint64_t below(struct run *r, uint64_t n)
{
    return (next_random(&r->random) >> 16) % n;
}

/** What write number @op puts into @sector; op 0 = what the base holds. */
static void fill_sector(uint8_t *buf, uint32_t sector, uint32_t op)
{
    for (unsigned i = 0; i < SECTOR; i += 8) {
        store_le32(buf + i, sector);
        store_le32(buf + i + 4, op + 1);
    }
}

static _Noreturn void die(const struct error *err, const char *what)
{
    printf("Bail out! %s: %s\n", what, error_text(err));
    exit(1);
}

static void must(int rc, const struct error *err, const char *what)
{
    if (rc)
        die(err, what);
}

static struct file *new_image(const struct run *r, struct disk *base)
{
    struct error err = {0};
    struct file *f = file_memory_new(NULL, 0, MAX_FILE_BYTES);
    struct disk_create c = {
        .size_bytes = r->s->size_bytes,
        .values = r->s->values,
        .backing = base,
        .backing_path = base ? "base.image" : NULL,
        .backing_format = base ? r->s->format : NULL,
    };

    must(disk_create_file(f, r->format, &c, &err), &err, "cannot create");
    return f;
}

/** A base whose every other 64 KiB hold data. */
static struct disk *new_base(const struct run *r)
{
    struct error err = {0};
    struct disk *d = NULL;
    struct file *f = new_image(r, NULL);
    uint8_t buf[SECTOR];

    must(disk_open_file(f, r->format, 0, NULL, &d, &err), &err, "cannot open the base");
    for (uint32_t s = 0; s < r->sectors; s++) {
        if (s / 128 % 2)
            continue;
        fill_sector(buf, s, 0);
        must(disk_pwrite(d, buf, SECTOR, (uint64_t)s * SECTOR), NULL, "cannot write the base");
    }
    must(disk_flush(d), NULL, "cannot flush the base");
    struct file *copy = file_memory_copy(f);
    disk_close(d);
    must(disk_open_file(copy, r->format, DISK_READONLY, NULL, &d, &err), &err,
         "cannot open the base");
    return d;
}

static void do_op(struct run *r, struct disk *d, struct op *op, uint32_t nr)
{
    static uint8_t buf[2048 * SECTOR];
    uint64_t offset = (uint64_t)op->first * SECTOR;
    uint64_t size = (uint64_t)(op->end - op->first) * SECTOR;
    int rc = 0;

    switch (op->kind) {
    case OP_WRITE:
        for (uint32_t s = op->first; s < op->end; s++)
            fill_sector(buf + (size_t)(s - op->first) * SECTOR, s, nr);
        rc = disk_pwrite(d, buf, size, offset);
        break;
    case OP_ZERO:
        rc = disk_write_zeroes(d, offset, size, below(r, 2));
        break;
    case OP_DISCARD:
        rc = disk_discard(d, offset, size);
        break;
    case OP_FLUSH:
        rc = disk_flush(d);
        break;
    case OP_FILL:
        rc = disk_fill(d, offset, size);
        break;
    }
    must(rc, NULL, "an operation failed");
}

/** Sizes from one sector to a megabyte, the small ones more often; places that are near each other.
 */
static void choose_op(struct run *r, struct op *op)
{
    uint64_t dice = below(r, 100);
    uint32_t max = MIN(r->sectors, 2048u);
    uint64_t top = 1ULL << below(r, 12);
    uint32_t size = (uint32_t)(1 + below(r, MIN((uint64_t)max, top)));

    op->kind = dice < 60 ? OP_WRITE : dice < 70 ? OP_ZERO : dice < 80 ? OP_DISCARD : OP_FLUSH;
    if (r->s->fill && op->kind == OP_WRITE && below(r, 3) == 0)
        op->kind = OP_FILL;
    op->first = (uint32_t)below(r, r->sectors - size + 1);
    if (below(r, 3)) /* a corner of the disk */
        op->first = (uint32_t)below(r, MIN(r->sectors - size + 1, 512u));
    if (below(r, 4) == 0) { /* whole clusters */
        op->first = (uint32_t)align_down(op->first, 128);
        size = (uint32_t)align_up(size, 128);
        size = MIN(size, r->sectors - op->first);
        size = MIN(size, max);
    }
    op->end = op->first + size;
}

static void run_workload(struct run *r)
{
    struct error err = {0};
    struct disk *d = NULL;

    r->base = r->s->over ? new_base(r) : NULL;
    r->file = new_image(r, r->base);
    r->start = file_memory_copy(r->file);
    file_memory_record(r->file);
    must(disk_open_file(r->file, r->format, 0, r->base, &d, &err), &err, "cannot open");
    const struct file_memory_log *log = file_memory_get_log(r->file);
    for (uint32_t i = 0; i < OPS; i++) {
        choose_op(r, &r->ops[i]);
        r->ops[i].log_begin = log->count;
        do_op(r, d, &r->ops[i], i + 1);
        r->ops[i].log_end = log->count;
    }
    /* Not closed until the end: the power goes while it is in use. */
    d->below = NULL; /* the base is ours */
    r->file = file_memory_take_log(r->file);
    disk_close(d);
}

/** Which values sector @s may hold when the log is cut at @cut: calls allow(value) for each. */
struct verdict {
    uint32_t got; /* op + 1, 0 = zeroes */
    bool allowed;
};

static void allow(struct verdict *v, uint32_t value)
{
    v->allowed = v->allowed || v->got == value;
}

/** Last operation that has finished a flush when the log is cut at @cut, or -1. */
static int find_flush(const struct run *r, size_t cut)
{
    int last = -1;

    for (int i = 0; i < OPS && r->ops[i].log_end <= cut; i++) {
        if (r->ops[i].kind == OP_FLUSH)
            last = i;
    }
    return last;
}

static uint32_t initial_value(const struct run *r, uint32_t sector)
{
    return r->s->over && !(sector / 128 % 2) ? 1 : 0;
}

static bool is_allowed(const struct run *r, uint32_t sector, uint32_t got, size_t cut, int flushed)
{
    struct verdict v = {.got = got};
    bool settled = false; /* the value at the flush is known: older ones do not count */
    int begun = 0;

    while (begun < OPS && r->ops[begun].log_begin <= cut)
        begun++;
    for (int i = begun - 1; i >= 0 && !settled; i--) {
        const struct op *op = &r->ops[i];

        if (op->kind == OP_FLUSH || op->kind == OP_FILL || sector < op->first || sector >= op->end)
            continue;
        allow(&v, op->kind == OP_WRITE ? (uint32_t)i + 2 : 0);
        settled = i < flushed && op->kind != OP_DISCARD; /* a discard may have done nothing */
    }
    if (!settled)
        allow(&v, initial_value(r, sector));
    return v.allowed;
}

static const char *verify_content(const struct run *r, struct disk *d, size_t cut)
{
    static char text[200];
    static uint8_t *content;
    uint8_t want[SECTOR];
    int flushed = find_flush(r, cut);

    content = realloc(content, r->s->size_bytes);
    if (!content || disk_pread(d, content, r->s->size_bytes, 0))
        return "cannot be read";
    for (uint32_t s = 0; s < r->sectors; s++) {
        const uint8_t *got = content + (size_t)s * SECTOR;
        uint32_t value = load_le32(got + 4);

        memset(want, 0, SECTOR);
        if (value)
            fill_sector(want, s, value - 1);
        bool whole = !memcmp(got, want, SECTOR);
        if (whole && is_allowed(r, s, value, cut, flushed))
            continue;
        if (!value && whole)
            (void)snprintf(text, sizeof(text), "lost sector %u: zeroes (last flush: operation %d)",
                           s, flushed);
        else
            (void)snprintf(
                text, sizeof(text),
                "holds in sector %u %s of operation %d, sector %u (last flush: operation %d)", s,
                whole ? "that" : "a mixture, as", (int)value - 2, load_le32(got), flushed);
        return text;
    }
    return NULL;
}

/** Findings are kept and printed only if they are what fails: leaks are not. */
static void say(void *arg, const char *text)
{
    char *kept = arg;
    size_t size = strlen(kept);

    (void)snprintf(kept + size, FINDINGS_BYTES - size, "# check: %s\n",
                   text); /* the first ones do */
}

/** Open, check and compare; takes @image. NULL or what is wrong. */
static const char *verify(struct run *r, struct file *image, size_t cut)
{
    static char text[ERROR_TEXT_MAX + 100];
    struct error err = {0};
    struct disk *d = NULL;
    char findings[FINDINGS_BYTES] = "";
    struct disk_check check = {.report = say, .arg = findings};

    if (disk_open_file(image, r->format, 0, r->base, &d, &err)) {
        file_close(image);
        (void)snprintf(text, sizeof(text), "cannot be opened: %s", error_text(&err));
        return text;
    }
    const char *wrong = verify_content(r, d, cut);
    int rc = wrong ? 0 : disk_check(d, 0, &check, &err);
    if (rc && rc != -ENOTSUP)
        wrong = "cannot be checked";
    else if (check.errors)
        wrong = "has errors";
    if (!wrong && below(r, 4) == 0) { /* and it can be used on */
        uint8_t buf[SECTOR] = {1};

        if (disk_pwrite(d, buf, SECTOR, below(r, r->sectors) * SECTOR) || disk_flush(d))
            wrong = "cannot be written to";
        check.errors = 0;
        rc = disk_check(d, 0, &check, &err);
        if (!wrong && ((rc && rc != -ENOTSUP) || check.errors))
            wrong = "has errors after a write";
    }
    d->below = NULL;
    disk_close(d);
    if (wrong)
        fputs(findings, stdout);
    return wrong;
}

enum cut_kind { CUT_PREFIX, CUT_SUBSET, CUT_TORN, CUT_ALL_BUT_ONE, CUT_LAST_ONLY, CUT_KINDS };

static const char *const cut_names[] = {"a prefix", "a part", "a torn part", "all but one",
                                        "the last alone"};

/** Do of the operations [from, to), which no flush separates, those that the cut lets through. */
static void apply_tail(struct run *r, struct file *image, const struct file_memory_log *log,
                       size_t from, size_t to, enum cut_kind kind)
{
    size_t odd = from < to ? from + below(r, to - from) : 0;

    for (size_t i = from; i < to; i++) {
        const struct file_memory_op *op = &log->v[i];
        uint64_t sectors = (op->size + SECTOR - 1) / SECTOR;
        uint64_t first = 0;
        uint64_t end = UINT64_MAX;

        if ((kind == CUT_SUBSET || kind == CUT_TORN) && below(r, 2))
            continue;
        if ((kind == CUT_ALL_BUT_ONE && i == odd) || (kind == CUT_LAST_ONLY && i + 1 != to))
            continue;
        if (kind == CUT_TORN && sectors > 1 && below(r, 2)) {
            first = below(r, sectors);
            end = first + 1 + below(r, sectors - first);
        }
        file_memory_apply(image, op, first, end);
    }
}

/** One workload and @points cuts of it. False and a diagnosis if one fails. */
static bool run_cuts(struct run *r, unsigned points)
{
    const struct file_memory_log *log = file_memory_get_log(r->file);
    size_t durable = 0; /* operations of the log that are in `start` */
    bool good = true;

    for (unsigned p = 0; p < points && good; p++) {
        size_t cut =
            (size_t)((uint64_t)p * log->count / points + below(r, log->count / points + 1));
        enum cut_kind kind = (enum cut_kind)below(r, CUT_KINDS);
        size_t flush = durable;

        cut = MIN(MAX(cut, durable), log->count);
        for (size_t i = durable; i < cut; i++) {
            if (log->v[i].kind == FILE_MEMORY_FLUSH)
                flush = i + 1;
        }
        while (durable < flush)
            file_memory_apply(r->start, &log->v[durable++], 0, UINT64_MAX);
        struct file *image = file_memory_copy(r->start);
        apply_tail(r, image, log, durable, cut, kind);
        const char *wrong = verify(r, image, cut);
        if (wrong) {
            printf(
                "# cut at %zu of %zu, %s of the %zu operations since the last flush of the file: the image %s\n",
                cut, log->count, cut_names[kind], cut - durable, wrong);
            good = false;
        }
    }
    return good;
}

static bool run_scenario(const struct scenario *s, unsigned points, uint64_t seed)
{
    unsigned done = 0;
    bool good = true;

    for (unsigned round = 0; done < points && good; round++) {
        struct run *r = calloc(1, sizeof(*r));
        unsigned now = MIN(points - done, (unsigned)RUN_POINTS);

        if (!r)
            abort();
        r->s = s;
        r->random = (seed + round + 1) * 0x9e3779b97f4a7c15ULL;
        r->format = disk_format_find(s->format);
        r->sectors = (uint32_t)(s->size_bytes / SECTOR);
        if (!r->format) {
            printf("# no format '%s'\n", s->format);
            free(r);
            return false;
        }
        run_workload(r);
        good = run_cuts(r, now);
        if (!good)
            printf("# again: powercut --points %u --seed %llu %s\n", now,
                   (unsigned long long)(seed + round), s->name);
        done += now;
        file_close(r->file);
        file_close(r->start);
        disk_close(r->base);
        free(r);
    }
    return good;
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
    unsigned points = 400;
    uint64_t seed = 1;
    unsigned nr = 0;
    int arg = 1;
    bool all_good = true;

    setvbuf(stdout, NULL, _IOLBF, 0);
    for (; arg < argc && argv[arg][0] == '-'; arg++) {
        if (!strcmp(argv[arg], "--list")) {
            for (size_t i = 0; i < ARRAY_SIZE(scenarios); i++)
                puts(scenarios[i].name);
            return 0;
        }
        if (arg + 1 < argc && !strcmp(argv[arg], "--points"))
            points = (unsigned)strtoul(argv[++arg], NULL, 0);
        else if (arg + 1 < argc && !strcmp(argv[arg], "--seed"))
            seed = strtoull(argv[++arg], NULL, 0);
        else
            return fprintf(stderr, "usage: powercut [--list] [--points N] [--seed S] [NAME...]\n"),
                   2;
    }
    for (size_t i = 0; i < ARRAY_SIZE(scenarios); i++) {
        if (!is_chosen(scenarios[i].name, argc - arg, argv + arg))
            continue;
        bool good = run_scenario(&scenarios[i], points, seed);

        printf("%sok %u - %s: %u power cuts\n", good ? "" : "not ", ++nr, scenarios[i].name,
               points);
        all_good = all_good && good;
    }
    printf("1..%u\n", nr);
    return all_good && nr ? 0 : 1;
}
