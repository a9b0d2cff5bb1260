/* Paths in the notation of VHD and VHDX parents: UTF-16, Windows' separators. */
#ifndef DISK_VHD_UTF16_H
#define DISK_VHD_UTF16_H

#include "base/macros.h"

/** @bytes of UTF-16 up to the first NUL, as UTF-8 on the heap; what is no UTF-16 becomes U+FFFD.
 * NULL: out of memory. */
char *utf16_to_text(const uint8_t *p, size_t bytes, bool is_big_endian);

/** @text as UTF-16 without NUL. 0 and *@ret the bytes, -EILSEQ (no UTF-8), or -ENAMETOOLONG. */
must_check int utf16_from_text(const char *text, bool is_big_endian, uint8_t *dst, size_t dst_size,
                               size_t *ret);

/** Turn a Windows path into ours, in place: separators; "./" in front goes; of a path with a drive,
 * a server or a volume only the last component stays. */
void utf16_path_to_host(char *path);

/** The last component. */
const char *utf16_path_name(const char *path);

#endif
