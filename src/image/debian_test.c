/* What the host makes for a Debian image: partition table, tar stream, dpkg database, disk copies.
 */
#include "base/bits.h"
#include "base/fd.h"
#include "base/paths.h"
#include "base/test.h"
#include "image/gpt.h"
#include "image/image.h"
#include "image/payload.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static char dir[64];

static void use_temp_dir(void)
{
    (void)snprintf(dir, sizeof(dir), "/tmp/posada-test-XXXXXX");
    ASSERT_TRUE(mkdtemp(dir) != NULL);
}

static int open_disk(uint64_t size)
{
    char path[128];

    (void)snprintf(path, sizeof(path), "%s/disk", dir);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ASSERT_TRUE(fd >= 0);
    ASSERT_EQ(ftruncate(fd, (off_t)size), 0);
    return fd;
}

/** UEFI 2.10 §5.3.2: both headers are right by their own CRC and agree with each other. */
static void expect_header(int fd, uint64_t at, uint64_t other, uint64_t table_at)
{
    uint8_t h[512];
    static uint8_t table[128 * 128];

    ASSERT_EQ(fd_pread_all(fd, h, sizeof(h), (off_t)(at * 512)), 0);
    EXPECT_MEM(h, "EFI PART\0\0\1\0\x5c\0\0\0", 16);
    uint32_t crc = load_le32(h + 16);
    store_le32(h + 16, 0);
    EXPECT_EQ(gpt_crc32(h, 92), crc);
    EXPECT_EQ(load_le64(h + 24), at);
    EXPECT_EQ(load_le64(h + 32), other);
    EXPECT_EQ(load_le64(h + 72), table_at);
    ASSERT_EQ(fd_pread_all(fd, table, sizeof(table), (off_t)(table_at * 512)), 0);
    EXPECT_EQ(gpt_crc32(table, sizeof(table)), load_le32(h + 88));
    EXPECT_EQ(load_le64(table + 32), 2048u);
    EXPECT_EQ(load_le64(table + 40), 2048u + 8192 - 1);
    EXPECT_EQ(load_le64(table + 128 + 32), 2048u + 8192);
    EXPECT_EQ((load_le64(table + 128 + 40) + 1) % 2048, 0u);
    EXPECT_TRUE(load_le64(table + 128 + 40) <= load_le64(h + 48));
    EXPECT_MEM(table + 128 + 56, "r\0o\0o\0t\0\0", 9);
}

TEST(gpt_headers_and_entries)
{
    static const struct gpt_partition parts[] = {
        {GPT_ESP,        "ESP",  4 << 20},
        {GPT_LINUX_ROOT, "root", 0      }
    };
    uint64_t size = (64ULL << 20) + 512, sectors = size / 512;
    uint8_t mbr[512];

    use_temp_dir();
    EXPECT_EQ(gpt_crc32("123456789", 9), 0xcbf43926u); /* the check value of CRC-32/ISO-HDLC */
    cleanup(fd_closep) int fd = open_disk(size);
    ASSERT_EQ(gpt_write(fd, size, "riscv64", parts, 2, NULL), 0);
    expect_header(fd, 1, sectors - 1, 2);
    expect_header(fd, sectors - 1, 1, sectors - 33);
    ASSERT_EQ(fd_pread_all(fd, mbr, sizeof(mbr), 0), 0);
    EXPECT_EQ(mbr[450], 0xee);
    EXPECT_EQ(load_le32(mbr + 458), sectors - 1);
    EXPECT_EQ(load_le16(mbr + 510), 0xaa55);
    EXPECT_EQ(paths_remove(dir), 0);
}

TEST(gpt_that_does_not_fit)
{
    static const struct gpt_partition big[] = {
        {GPT_ESP,        "ESP",  63ULL << 20},
        {GPT_LINUX_ROOT, "root", 0          }
    };
    static const struct gpt_partition huge[] = {
        {GPT_ESP, "ESP", 1ULL << 62}
    };

    use_temp_dir();
    cleanup(fd_closep) int fd = open_disk(64 << 20);
    EXPECT_EQ(gpt_write(fd, 64 << 20, "riscv64", big, 2, NULL), -EINVAL);
    EXPECT_EQ(gpt_write(fd, 64 << 20, "riscv64", huge, 1, NULL), -EINVAL);
    EXPECT_EQ(gpt_write(fd, 1 << 20, "riscv64", huge, 1, NULL), -EINVAL);
    EXPECT_EQ(paths_remove(dir), 0);
}

static int shell(const char *command)
{
    char line[4096];

    (void)snprintf(line, sizeof(line), "cd %s && { %s\n} >/dev/null 2>&1", dir, command);
    return system(line);
}

/** Build NAME.deb in the test's folder from the shell lines @files (in data/) and @control (in
 * control/). */
static void make_deb(const char *name, const char *files, const char *control)
{
    char line[3000];

    (void)snprintf(line, sizeof(line),
                   "rm -rf data control && mkdir data control && (cd data && %s) && "
                   "(cd control && %s) && echo 2.0 >debian-binary && "
                   "tar --owner=0 --group=0 -C control -czf control.tar.gz . && "
                   "tar --owner=0 --group=0 --sort=name -C data -cJf data.tar.xz . && rm -f %s.deb "
                   "&& ar rc %s.deb debian-binary control.tar.gz data.tar.xz",
                   files, control, name, name);
    if (shell(line))
        test_skip("no ar, tar or xz to make packages with");
}

static void add_deb(struct payload *p, const char *name, const struct payload_tap *tap)
{
    char path[128];
    struct error err = {0};

    (void)snprintf(path, sizeof(path), "%s/%s.deb", dir, name);
    if (payload_add_deb(p, path, tap, &err))
        test_fail(__FILE__, __LINE__, "%s", error_text(&err));
}

/** The payload as another program unpacks it. */
static void unpack_payload(void)
{
    ASSERT_EQ(shell("mkdir root && tar -xf payload.tar -C root --no-same-owner"), 0);
}

static void expect_file(const char *name, const char *want)
{
    char path[256];
    cleanup(freep) char *text = NULL;
    size_t size = 0;
    struct error err = {0};

    (void)snprintf(path, sizeof(path), "%s/root/%s", dir, name);
    if (paths_read(path, 1 << 20, &text, &size, &err))
        test_fail(__FILE__, __LINE__, "%s", error_text(&err));
    else
        EXPECT_STR(text, want);
}

static bool tap_wants(const char *name, void *arg)
{
    return !strcmp(name, "lib/x/tapped") || !strcmp(name, "lib/x/link");
}

static int tap_take(const char *name, char *data, size_t size, const char *target, void *arg)
{
    char *seen = arg;

    (void)snprintf(seen + strlen(seen), 128 - strlen(seen), "%s=%s;", name, data ? data : target);
    free(data);
    return 0;
}

TEST(payload_is_what_dpkg_would_have_unpacked)
{
    char path[128], seen[128] = "";
    struct payload_tap tap = {tap_wants, tap_take, seen};
    struct error err = {0};

    use_temp_dir();
    make_deb("base-files",
             "mkdir -p usr/bin usr/lib tmp && chmod 1777 tmp && ln -s usr/bin bin && "
             "ln -s usr/lib lib",
             "printf 'Package: base-files\\nArchitecture: riscv64\\nVersion: 1\\n' >control");
    make_deb("lib",
             "mkdir -p lib/x etc tmp && echo tapped >lib/x/tapped && ln -s tapped lib/x/link "
             "&& ln lib/x/tapped lib/x/zhard && printf abc >etc/lib.conf",
             "printf 'Package: lib\\nArchitecture: riscv64\\nMulti-Arch: same\\nVersion: 1:2\\n"
             "Description: d\\n more\\n' >control && printf '#!/bin/sh\\n' >preinst && "
             "echo /etc/lib.conf >conffiles && "
             "printf '# c\\ninterest-noawait /usr/lib/x\\ninterest rebuild\\nactivate q\\n"
             "interest ../../evil\\n' >triggers");
    (void)snprintf(path, sizeof(path), "%s/payload.tar", dir);
    struct payload *p = payload_new(path, &err);
    ASSERT_TRUE(p != NULL);
    add_deb(p, "base-files", NULL);
    add_deb(p, "lib", &tap);
    EXPECT_STR(payload_preinsts(p), "lib:riscv64\n");
    ASSERT_EQ(payload_finish(p, &err), 0);
    payload_free(p);
    EXPECT_STR(seen, "lib/x/link=tapped;lib/x/tapped=tapped\n;");
    unpack_payload();

    expect_file("usr/lib/x/zhard", "tapped\n"); /* through the merged /usr */
    EXPECT_EQ(shell("[ -L root/lib ] && [ -L root/bin ] && [ -k root/tmp ]"), 0);
    expect_file("var/lib/dpkg/status",
                "Package: base-files\nStatus: install ok unpacked\nArchitecture: riscv64\n"
                "Version: 1\n\n"
                "Package: lib\nStatus: install ok unpacked\nArchitecture: riscv64\n"
                "Multi-Arch: same\nVersion: 1:2\nDescription: d\n more\n"
                "Conffiles:\n /etc/lib.conf 900150983cd24fb0d6963f7d28e17f72\n\n");
    expect_file("var/lib/dpkg/info/lib:riscv64.list",
                "/.\n/etc\n/etc/lib.conf\n/lib\n/lib/x\n/lib/x/link\n/lib/x/tapped\n/lib/x/zhard\n"
                "/tmp\n");
    expect_file("var/lib/dpkg/info/lib:riscv64.conffiles", "/etc/lib.conf\n");
    expect_file("var/lib/dpkg/triggers/File", "/usr/lib/x lib:riscv64/noawait\n");
    expect_file("var/lib/dpkg/triggers/rebuild", "lib:riscv64\n");
    EXPECT_EQ(shell("[ -x root/var/lib/dpkg/info/lib:riscv64.preinst ] && [ ! -e evil ]"), 0);
    EXPECT_EQ(paths_remove(dir), 0);
}

TEST(payload_refuses_forbidden_names)
{
    char path[128];
    struct error err = {0};

    use_temp_dir();
    make_deb("evil", "echo x >f", "printf 'Package: e\\nArchitecture: all\\n' >control");
    if (shell("tar -C data --transform 's,./f,../../f,' -P -cf data.tar ./f && xz -f data.tar && "
              "rm evil.deb && ar rc evil.deb debian-binary control.tar.gz data.tar.xz"))
        test_skip("no ar, tar or xz to make packages with");
    (void)snprintf(path, sizeof(path), "%s/payload.tar", dir);
    struct payload *p = payload_new(path, NULL);
    ASSERT_TRUE(p != NULL);
    (void)snprintf(path, sizeof(path), "%s/evil.deb", dir);
    EXPECT_EQ(payload_add_deb(p, path, NULL, &err), -EBADMSG);
    EXPECT_TRUE(strstr(error_text(&err), "forbidden name") != NULL);
    payload_free(p);
    EXPECT_EQ(paths_remove(dir), 0);
}

TEST(clone_keeps_data_and_holes)
{
    char from[128], to[128], byte = 0;
    struct image image = {.disk = from};
    struct stat st;

    use_temp_dir();
    (void)snprintf(from, sizeof(from), "%s/disk", dir);
    (void)snprintf(to, sizeof(to), "%s/copy", dir);
    int fd = open_disk(256 << 20);
    ASSERT_EQ(fd_pwrite_all(fd, "x", 1, 100 << 20), 0);
    fd_close(fd);
    ASSERT_EQ(image_clone_disk(&image, to, 300 << 20, NULL), 0);
    EXPECT_EQ(image_clone_disk(&image, to, 0, NULL), -EEXIST);
    ASSERT_EQ(stat(to, &st), 0);
    EXPECT_EQ(st.st_size, 300 << 20);
    EXPECT_TRUE(st.st_blocks * 512 < 8 << 20);
    fd = open(to, O_RDONLY | O_CLOEXEC);
    EXPECT_EQ(fd_pread_all(fd, &byte, 1, 100 << 20), 0);
    EXPECT_EQ(byte, 'x');
    fd_close(fd);
    image.disk = NULL;
    EXPECT_EQ(image_clone_disk(&image, "/nonexistent", 0, NULL), -EINVAL);
    EXPECT_EQ(paths_remove(dir), 0);
}
