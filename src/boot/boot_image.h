/* Reading of kernels and firmware: RISC-V Image, compressed Image, EFI zboot, ELF, raw binary. */
#ifndef BOOT_BOOT_IMAGE_H
#define BOOT_BOOT_IMAGE_H

#include "base/error.h"
#include "mem/mem.h"

#define BOOT_MAX_BYTES (1ULL << 30) /* of a file and of what it unpacks to */
#define BOOT_ALIGN     (2ULL << 20)
#define BOOT_SEGMENTS  16

enum boot_format { BOOT_IMAGE, BOOT_ELF, BOOT_RAW };

/** A part of the program: @size bytes at @offset of data go to @addr, zeroes up to @memory_size
 * follow. */
struct boot_segment {
    uint64_t addr;
    uint64_t offset, size, memory_size;
};

struct boot_image {
    enum boot_format format;
    uint8_t *data; /* the unpacked file */
    size_t size;
    struct boot_segment segments[BOOT_SEGMENTS]; /* addr: from the load base, or for ELF with
                                                        addresses of its own, physical */
    size_t segment_count;
    uint64_t entry;    /* like the segments' addr */
    bool absolute;     /* addresses are physical */
    uint64_t end_addr; /* first address behind all segments */
};

/** What @size bytes at @data hold; they are malloc'ed and become *@ret's, also on failure they are
 * freed. With @allow_raw, unknown content is a raw binary for the load base. Errors: -ENOEXEC (no
 * kernel, or of another architecture), -EINVAL (damaged), -EFBIG, -ENOMEM. */
must_check int boot_image_parse(uint8_t *data, size_t size, bool allow_raw, struct boot_image *ret,
                                struct error *err);

/** Read the file @path and parse it. The sentence in @err names the file. */
must_check int boot_image_open(const char *path, bool allow_raw, struct boot_image *ret,
                               struct error *err);
void boot_image_done(struct boot_image *k);

/** Copy @k to guest RAM: relative addresses count from @base. *@ret_entry and *@ret_end are
 * physical. -ENOSPC if a segment is not wholly in RAM. */
must_check int boot_image_load(const struct boot_image *k, struct mem *mem, gpa_t base,
                               gpa_t *ret_entry, gpa_t *ret_end, struct error *err);

/** Read the whole file @path, at most @max bytes. *@ret is for free(). */
must_check int boot_read_file(const char *path, uint64_t max, uint8_t **ret, size_t *ret_size,
                              struct error *err);

#endif
