/* UTF-16 and Windows paths. Pure functions, any thread. */
#include "disk/vhd/utf16.h"
#include "base/bits.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint16_t get_unit(const uint8_t *p, bool big)
{
    return big ? load_be16(p) : load_le16(p);
}

static void put_unit(uint8_t *p, bool big, uint32_t v)
{
    if (big)
        store_be16(p, (uint16_t)v);
    else
        store_le16(p, (uint16_t)v);
}

static size_t put_utf8(char *out, uint32_t c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

char *utf16_to_text(const uint8_t *p, size_t bytes, bool is_big_endian)
{
    char *text = malloc(bytes / 2 * 3 + 1);
    size_t n = 0;

    for (size_t i = 0; text && i + 2 <= bytes; i += 2) {
        uint32_t c = get_unit(p + i, is_big_endian);
        uint32_t low = i + 4 <= bytes ? get_unit(p + i + 2, is_big_endian) : 0;

        if (!c)
            break;
        if (c >= 0xd800 && c < 0xdc00 && low >= 0xdc00 && low < 0xe000) {
            c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
            i += 2;
        } else if (c >= 0xd800 && c < 0xe000) {
            c = 0xfffd;
        }
        n += put_utf8(text + n, c);
    }
    if (text)
        text[n] = 0;
    return text;
}

/** One character of UTF-8; its length, or 0: there is none. */
static size_t get_utf8(const uint8_t *p, uint32_t *ret)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = p[0] < 0x80 ? 1 : p[0] >> 5 == 6 ? 2 : p[0] >> 4 == 14 ? 3 : p[0] >> 3 == 30 ? 4 : 0;
    uint32_t c = n == 1 ? p[0] : n ? p[0] & (0x7fu >> n) : 0;

    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3f);
    }
    if (!n || c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
        return 0;
    *ret = c;
    return n;
}

int utf16_from_text(const char *text, bool is_big_endian, uint8_t *dst, size_t dst_size,
                    size_t *ret)
{
    const uint8_t *p = (const uint8_t *)text;
    size_t n = 0;

    while (*p) {
        uint32_t c;
        size_t used = get_utf8(p, &c);

        if (!used)
            return -EILSEQ;
        p += used;
        if (dst_size - n < 4)
            return -ENAMETOOLONG;
        if (c >= 0x10000) {
            put_unit(dst + n, is_big_endian, 0xd800 + ((c - 0x10000) >> 10));
            n += 2;
            c = 0xdc00 + ((c - 0x10000) & 0x3ff);
        }
        put_unit(dst + n, is_big_endian, c);
        n += 2;
    }
    *ret = n;
    return 0;
}

const char *utf16_path_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

void utf16_path_to_host(char *path)
{
    char *from = path;

    for (char *p = path; *p; p++)
        *p = *p == '\\' ? '/' : *p;
    if ((path[0] && path[1] == ':') || (path[0] == '/' && path[1] == '/'))
        from = path + (utf16_path_name(path) - path);
    while (from[0] == '.' && from[1] == '/') {
        from += 2;
        from += strspn(from, "/");
    }
    memmove(path, from, strlen(from) + 1);
}
