/* Mirrors, Release files, downloads and their digests. */
#include "image/fetch.h"

#include "base/fd.h"
#include "base/paths.h"
#include "base/test.h"
#include "image/mirror.h"
#include "image/suite.h"
#include "image/unpack.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static void expect_mirror(const char *text, bool is_deb822, const char *want)
{
    char got[IMAGE_MIRROR_MAX] = "none";

    EXPECT_EQ(mirror_parse(slice_of(text), is_deb822, got), strcmp(want, "none") != 0);
    EXPECT_STR(got, want);
}

TEST(mirror_one_line_style)
{
    expect_mirror("# deb http://a/debian x main\ndeb-src http://b/debian x main\n"
                  "deb [arch=amd64 signed-by=/k] https://c.example/debian/ bookworm main\n",
                  false, "https://c.example/debian");
    expect_mirror("deb http://archive.ubuntu.com/ubuntu jammy main\n"
                  "deb http://x/debian-security bookworm-security main\n"
                  "deb cdrom:[Debian]/ bookworm main\ndeb [unclosed http://y/debian z\ndeb\n",
                  false, "none");
}

TEST(mirror_deb822_style)
{
    expect_mirror("Types: deb-src\nURIs: http://a/debian\n\nEnabled: no\nTypes: deb\n"
                  "URIs: http://b/debian\n\n# c\nTypes: deb deb-src\n"
                  "URIs: https://nodesource.example/x\n http://d/debian/\nSuites: bookworm\n",
                  true, "http://d/debian");
    expect_mirror("Types: deb\nSuites: x\n", true, "none");
}

TEST(mirror_default_without_apt)
{
    char got[IMAGE_MIRROR_MAX];

    mirror_of_host("/nonexistent", got);
    EXPECT_STR(got, "http://deb.debian.org/debian");
}

#define SUM   "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define SUM_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
static const char release_text[] =
    "Origin: Debian\nSuite: stable\nCodename: trixie\nValid-Until: Fri, 06 Nov 2026 08:08:01 UTC\n"
    "Acquire-By-Hash: yes\nArchitectures: all amd64 riscv64 s390x\n"
    "MD5Sum:\n aaaa 5 main/binary-riscv64/Packages.xz\n"
    "SHA256:\n " SUM " 7 main/binary-amd64/Packages.xz\n " SUM_B
    "  1234 main/binary-riscv64/Packages.xz\n " SUM " 9 main/binary-riscv64/Packages.gz\n";

TEST(release_file)
{
    struct release r;

    ASSERT_EQ(release_parse(slice_of(release_text), "trixie", "riscv64", &r, NULL), 0);
    EXPECT_STR(r.index_path, "main/binary-riscv64/Packages.xz");
    EXPECT_STR(r.index_sha256, SUM_B);
    EXPECT_EQ(r.index_bytes, 1234u);
    EXPECT_EQ(r.valid_until, 1793952481);
    EXPECT_TRUE(r.by_hash);
    EXPECT_EQ(release_parse(slice_of(release_text), "stable", "amd64", &r, NULL), 0);
}

TEST(release_file_of_another_suite_or_architecture)
{
    struct release r;
    struct error err = {0};

    EXPECT_EQ(release_parse(slice_of(release_text), "sid", "riscv64", &r, NULL), -EINVAL);
    EXPECT_EQ(release_parse(slice_of(release_text), "trixie", "mips", &r, &err), -ENOENT);
    EXPECT_TRUE(strstr(error_text(&err), "amd64 riscv64") != NULL);
    EXPECT_EQ(release_parse(slice_of(release_text), "trixie", "s390x", &r, NULL), -ENOENT);
    EXPECT_EQ(release_parse(slice_of("x"), "trixie", "riscv64", &r, NULL), -EINVAL);
}

/** A folder with a file "src" of 100,000 bytes. */
struct fixture {
    char dir[64], url[128], path[128];
    char sum[DIGEST_HEX_MAX];
};

static void fixture_init(struct fixture *f)
{
    static char data[100000];

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (char)(i * 7);
    (void)snprintf(f->dir, sizeof(f->dir), "/tmp/posada-test-XXXXXX");
    ASSERT_TRUE(mkdtemp(f->dir) != NULL);
    (void)snprintf(f->path, sizeof(f->path), "%s/src", f->dir);
    ASSERT_EQ(paths_write(f->path, data, sizeof(data), NULL), 0);
    (void)snprintf(f->url, sizeof(f->url), "file://%s/src", f->dir);
    (void)snprintf(f->path, sizeof(f->path), "%s/dst", f->dir);
    ASSERT_EQ(digest_memory(data, sizeof(data), f->sum), 0);
}

static int fetch_fixture(struct fixture *f, uint64_t size, struct error *err)
{
    struct fetch file = {.url = f->url, .path = f->path, .size_bytes = size};

    memcpy(file.sha256, f->sum, sizeof(file.sha256));
    return fetch_all(&file, 1, NULL, NULL, err);
}

TEST(fetch_verifies_and_caches)
{
    struct fixture f;

    fixture_init(&f);
    EXPECT_EQ(fetch_fixture(&f, 100000, NULL), 0);
    (void)snprintf(f.url, sizeof(f.url), "file://%s/gone", f.dir);
    EXPECT_EQ(fetch_fixture(&f, 100000, NULL), 0); /* from the cache */
    ASSERT_EQ(truncate(f.path, 99999), 0);
    EXPECT_EQ(fetch_fixture(&f, 100000, NULL), -EIO); /* a damaged file is not taken */
    EXPECT_EQ(paths_remove(f.dir), 0);
    EXPECT_TRUE(access(f.dir, F_OK) != 0);
}

TEST(fetch_rejects_wrong_contents)
{
    struct fixture f;
    struct error err = {0};

    fixture_init(&f);
    EXPECT_EQ(fetch_fixture(&f, 99999, NULL), -EBADMSG);  /* too long */
    EXPECT_EQ(fetch_fixture(&f, 100001, NULL), -EBADMSG); /* too short */
    f.sum[0] = f.sum[0] == '0' ? '1' : '0';
    EXPECT_EQ(fetch_fixture(&f, 100000, &err), -EBADMSG);
    EXPECT_TRUE(strstr(error_text(&err), "/src'") != NULL);
    EXPECT_TRUE(access(f.path, F_OK) != 0);
    EXPECT_EQ(rmdir(f.dir), -1); /* only src is left: no temporary file */
    (void)snprintf(f.path, sizeof(f.path), "%s/src", f.dir);
    EXPECT_EQ(unlink(f.path), 0);
    EXPECT_EQ(rmdir(f.dir), 0);
}

TEST(unpack_limits_and_damage)
{
    /* printf hello | xz -9 --check=crc32 */
    static const unsigned char xz[] = {
        0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x01, 0x69, 0x22, 0xde, 0x36, 0x02, 0x00, 0x21,
        0x01, 0x1c, 0x00, 0x00, 0x00, 0x10, 0xcf, 0x58, 0xcc, 0x01, 0x00, 0x04, 0x68, 0x65, 0x6c,
        0x6c, 0x6f, 0x00, 0x00, 0x00, 0x00, 0x86, 0xa6, 0x10, 0x36, 0x00, 0x01, 0x19, 0x05, 0xbc,
        0xe8, 0xec, 0xcb, 0x90, 0x42, 0x99, 0x0d, 0x01, 0x00, 0x00, 0x00, 0x00, 0x01, 0x59, 0x5a,
    };
    char *out = NULL;
    size_t size = 0;

    ASSERT_EQ(unpack_memory(xz, sizeof(xz), 5, &out, &size, NULL), 0);
    EXPECT_EQ(size, 5u);
    EXPECT_STR(out, "hello");
    free(out);
    EXPECT_EQ(unpack_memory(xz, sizeof(xz), 4, &out, &size, NULL), -EFBIG);
    EXPECT_EQ(unpack_memory(xz, 36, 5, &out, &size, NULL), -EBADMSG);
    EXPECT_EQ(unpack_memory("", 0, 5, &out, &size, NULL), -EBADMSG);
}
