/* Files of guest/image, and the guests' programs that the build makes, compiled in
 * (tools/gen/embed.py writes the table). */
#ifndef IMAGE_EMBEDDED_H
#define IMAGE_EMBEDDED_H

#include <stddef.h>

struct embedded_file {
    const char *path; /* below guest/image: "tiny/init"; of a program: "arch/riscv64/..." */
    unsigned mode;    /* 0644 or 0755 */
    const unsigned char *data;
    size_t size;
};

extern const struct embedded_file embedded_files[];
extern const size_t embedded_file_count;

#endif
