/* Devices as people write them. See vm/words.h. No state. */
#include "vm/words.h"

#include "base/error.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/** A port number, 1 to 65535, of digits only up to @end. */
static bool parse_port(const char *text, const char *end, uint16_t *ret)
{
    unsigned v = 0;

    if (text == end || end - text > 5)
        return false;
    for (; text < end; text++) {
        if (!isdigit((unsigned char)*text))
            return false;
        v = v * 10 + (unsigned)(*text - '0');
    }
    *ret = (uint16_t)v;
    return v > 0 && v <= UINT16_MAX;
}

/** An IPv4 address, or an IPv6 address in brackets, from @text up to @end. */
static bool parse_address(const char *text, const char *end, char *ret, size_t size)
{
    char word[64];
    unsigned char binary[16];
    size_t n = (size_t)(end - text);
    bool brackets = n > 2 && text[0] == '[' && end[-1] == ']';

    if (brackets) {
        text++;
        n -= 2;
    }
    if (n >= sizeof(word) || n >= size)
        return false;
    memcpy(word, text, n);
    word[n] = '\0';
    if (inet_pton(brackets ? AF_INET6 : AF_INET, word, binary) != 1)
        return false;
    memcpy(ret, word, n + 1);
    return true;
}

int vm_parse_forward(const char *text, struct net_forward *ret, struct error *err)
{
    struct net_forward f = {0};
    const char *end = text + strlen(text);
    const char *slash = strrchr(text, '/');

    if (slash) {
        f.udp = !strcmp(slash, "/udp");
        if (!f.udp && strcmp(slash, "/tcp") != 0)
            goto bad;
        end = slash;
    }
    const char *colon = memrchr(text, ':', (size_t)(end - text));
    if (!colon || !parse_port(colon + 1, end, &f.guest_port))
        goto bad;
    const char *host = memrchr(text, ':', (size_t)(colon - text));
    if (!parse_port(host ? host + 1 : text, colon, &f.host_port))
        goto bad;
    if (host && !parse_address(text, host, f.host_addr, sizeof(f.host_addr)))
        goto bad;
    *ret = f;
    return 0;
bad:
    return error_set(err, EINVAL,
                     "expected [ADDRESS:]HOSTPORT:GUESTPORT[/udp], such as 8080:80, not '%s'",
                     text);
}

int vm_parse_share(char *text, struct vm_share_config *ret, struct error *err)
{
    char *guest = strchr(text, ':');

    if (!guest || guest == text || guest[1] != '/')
        return error_set(err, EINVAL, "expected HOSTFOLDER:/GUEST/PATH[:ro], not '%s'", text);
    *guest++ = '\0';
    char *mode = strrchr(guest, ':');
    bool has_mode = mode && (!strcmp(mode, ":ro") || !strcmp(mode, ":rw"));
    ret->readonly = has_mode && mode[2] == 'o';
    if (has_mode)
        *mode = '\0';
    ret->host_path = text;
    ret->guest_path = guest;
    return 0;
}

int vm_parse_mac(const char *text, uint8_t ret[6], struct error *err)
{
    unsigned b[6];
    int used = 0;
    int n =
        sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &used);

    if (n != 6 || text[used] || (b[0] & 1))
        return error_set(err, EINVAL,
                         "expected a unicast address such as 52:54:00:12:34:56, not '%s'", text);
    for (int i = 0; i < 6; i++)
        ret[i] = (uint8_t)b[i];
    return 0;
}

static const char *after(const char *word, const char *prefix)
{
    size_t n = strlen(prefix);

    return strncmp(word, prefix, n) ? NULL : word + n;
}

/** @word is one of @words; *@ret its place among them. */
static bool parse_word(const char *word, const char *const *words, int *ret)
{
    for (int i = 0; words[i]; i++) {
        if (!strcmp(word, words[i])) {
            *ret = i;
            return true;
        }
    }
    return false;
}

/** One word of a disk after the file's name. */
static bool parse_disk_word(struct vm_disk_config *d, const char *word)
{
    static const char *const off_on[] = {"off", "on", NULL};
    static const char *const buses[] = {[VM_BUS_VIRTIO] = "virtio", [VM_BUS_AHCI] = "ahci", NULL};
    static const char *const media[] = {"disk", "cdrom", NULL};
    static const char *const caches[] = {"writeback", "none", NULL};
    static const char *const refs[] = {
        [DISK_REFS_FOLDER] = "folder", [DISK_REFS_ANY] = "any", [DISK_REFS_NONE] = "none", NULL};
    const char *value;
    int n;

    if (!strcmp(word, "ro") || !strcmp(word, "readonly"))
        return d->readonly = true;
    if (!strcmp(word, "snapshot"))
        return d->snapshot = true;
    if ((value = after(word, "format=")))
        return *(d->format = value) != 0;
    if ((value = after(word, "key-file=")))
        return *(d->key_file = value) != 0;
    if ((value = after(word, "readonly=")) && parse_word(value, off_on, &n)) {
        d->readonly = n;
        return true;
    }
    if ((value = after(word, "snapshot=")) && parse_word(value, off_on, &n)) {
        d->snapshot = n;
        return true;
    }
    if ((value = after(word, "cache=")) && parse_word(value, caches, &n)) {
        d->direct = n;
        return true;
    }
    if ((value = after(word, "bus=")) && parse_word(value, buses, &n)) {
        d->bus = (enum vm_bus)n;
        return true;
    }
    if ((value = after(word, "media=")) && parse_word(value, media, &n)) {
        d->is_cdrom = n;
        return true;
    }
    if ((value = after(word, "refs=")) && parse_word(value, refs, &n)) {
        d->refs = (enum disk_refs)n;
        return true;
    }
    return disk_limits_parse(&d->limits, word) > 0;
}

int vm_parse_disk(char *text, struct vm_disk_config *ret, struct error *err)
{
    struct vm_disk_config d = {.path = text};
    char *save = NULL;
    /* a comma may be part of the file's name: then there is a file of that name */
    char *comma = access(text, F_OK) ? strchr(text, ',') : NULL;

    if (comma)
        *comma++ = '\0';
    for (char *word = comma ? strtok_r(comma, ",", &save) : NULL; word;
         word = strtok_r(NULL, ",", &save)) {
        if (!parse_disk_word(&d, word))
            return error_set(
                err, EINVAL,
                "expected FILE[,format=NAME][,bus=virtio|ahci][,media=disk|cdrom][,readonly=on|off][,snapshot=on|off]"
                "[,cache=writeback|none][,refs=folder|any|none][,key-file=FILE][,bps[-rd|-wr][-burst]=SIZE]"
                "[,iops[-rd|-wr][-burst]=N], not '%s'",
                word);
    }
    if (d.format && !disk_format_find(d.format))
        return error_set(err, EINVAL, "disk format '%s' is unknown", d.format);
    if (d.is_cdrom) {
        d.bus = VM_BUS_AHCI;
        d.readonly = true;
        d.format =
            d.format ? d.format : "raw"; /* what its first sectors hold is the guest's matter */
    }
    if (!*text)
        return error_set(err, EINVAL, "expected FILE[,WORD...], not an empty name");
    *ret = d;
    return 0;
}
