/* Tests of archives with checksums: there and back, and damaged. */
#include "base/test.h"

#include "base/fd.h"
#include "bundle/pack.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

static uint8_t *slurp(int fd, size_t *ret_size)
{
    struct stat st;

    ASSERT_EQ(fstat(fd, &st), 0);
    uint8_t *data = malloc((size_t)st.st_size + 1);
    ASSERT_TRUE(data != NULL);
    ASSERT_EQ(fd_pread_all(fd, data, (size_t)st.st_size, 0), 0);
    *ret_size = (size_t)st.st_size;
    return data;
}

static int make(enum pack_kind kind, const char *second)
{
    int fd = memfd_create("pack", MFD_CLOEXEC);
    struct pack *p;

    ASSERT_EQ(pack_new(fd, kind, NULL, NULL, &p, NULL), 0);
    ASSERT_EQ(pack_data(p, "first", "one\n", 4, NULL), 0);
    ASSERT_EQ(pack_data(p, second, "", 0, NULL), 0);
    char *sums = pack_sums(p, NULL);
    ASSERT_TRUE(sums != NULL);
    ASSERT_EQ(pack_data(p, PACK_SUMS, sums, strlen(sums), NULL), 0);
    ASSERT_EQ(pack_finish(p, NULL), 0);
    free(sums);
    pack_free(p);
    ASSERT_EQ(lseek(fd, 0, SEEK_SET), 0);
    return fd;
}

/** Read all and check the sums: 0 or the first error. */
static int read_through(int fd, struct error *err)
{
    struct unpack *u = NULL;
    const char *name;
    uint64_t size;
    size_t n;
    char *sums = NULL;
    int rc = unpack_new(fd, NULL, NULL, &u, err);

    while (!rc && (rc = unpack_next(u, &name, &size, err)) > 0) {
        char *text = NULL;
        rc = unpack_text(u, 1000, &text, &n, err);
        if (!rc && !strcmp(name, PACK_SUMS)) {
            free(sums);
            sums = text;
        } else if (!rc) {
            free(text);
        }
    }
    if (!rc)
        rc = sums ? unpack_check(u, sums, err) : -ENOENT;
    free(sums);
    unpack_free(u);
    return rc;
}

TEST(archives_come_back_whole)
{
    for (enum pack_kind kind = PACK_TAR_ZSTD; kind <= PACK_USTAR; kind++) {
        int fd = make(kind, "folder/second");
        struct error err = {0};

        EXPECT_EQ(read_through(fd, &err), 0);

        fd_close(fd);
    }
}

TEST(files_keep_their_holes)
{
    char path[] = "/tmp/pack-XXXXXX";
    int file = mkostemp(path, O_CLOEXEC);
    int fd = memfd_create("pack", MFD_CLOEXEC);
    struct pack *p;
    struct unpack *u;
    const char *name;
    uint64_t size;
    struct stat st;
    uint8_t tail[3];
    char sum[65];

    ASSERT_TRUE(file >= 0);
    ASSERT_EQ(ftruncate(file, 8 << 20), 0);
    ASSERT_EQ(fd_pwrite_all(file, "end", 3, (8 << 20) - 3), 0);
    ASSERT_EQ(pack_new(fd, PACK_TAR_ZSTD, NULL, NULL, &p, NULL), 0);
    ASSERT_EQ(pack_file(p, "sparse", path, NULL), 0);
    ASSERT_EQ(pack_finish(p, NULL), 0);
    pack_free(p);
    ASSERT_EQ(pack_sum_file(path, sum, NULL), 0);
    fd_close(file);
    ASSERT_EQ(unlink(path), 0);

    ASSERT_EQ(lseek(fd, 0, SEEK_SET), 0);
    ASSERT_EQ(unpack_new(fd, NULL, NULL, &u, NULL), 0);
    ASSERT_EQ(unpack_next(u, &name, &size, NULL), 1);
    EXPECT_EQ(size, 8 << 20);
    ASSERT_EQ(unpack_file(u, path, NULL), 0);
    EXPECT_STR(unpack_sum(u, "sparse"), sum);
    unpack_free(u);
    file = open(path, O_RDONLY | O_CLOEXEC);
    ASSERT_EQ(fstat(file, &st), 0);
    EXPECT_EQ(st.st_size, 8 << 20);
    EXPECT_TRUE(st.st_blocks < 100);
    ASSERT_EQ(fd_pread_all(file, tail, 3, (8 << 20) - 3), 0);
    EXPECT_TRUE(!memcmp(tail, "end", 3));
    ASSERT_EQ(unlink(path), 0);
    fd_close(file);
    fd_close(fd);
}

TEST(damage_is_found_wherever_it_is)
{
    int whole = make(PACK_TAR, "folder/second");
    size_t size;
    uint8_t *data = slurp(whole, &size);
    unsigned unseen = 0;

    for (size_t at = 0; at < size; at += 3) {
        int fd = memfd_create("damaged", MFD_CLOEXEC);

        data[at] ^= 0x10;
        ASSERT_EQ(fd_pwrite_all(fd, data, size, 0), 0);
        ASSERT_EQ(lseek(fd, 0, SEEK_SET), 0);
        unseen += read_through(fd, NULL) == 0; /* in the padding alone */
        data[at] ^= 0x10;
        fd_close(fd);
    }
    EXPECT_TRUE(unseen < size / 3);
    for (size_t cut = 0; cut < size - 1024; cut += 64) { /* two empty blocks end an archive */
        int fd = memfd_create("cut", MFD_CLOEXEC);

        ASSERT_EQ(fd_pwrite_all(fd, data, cut, 0), 0);
        ASSERT_EQ(lseek(fd, 0, SEEK_SET), 0);
        if (cut < 3000)
            EXPECT_TRUE(read_through(fd, NULL) != 0);
        fd_close(fd);
    }
    free(data);
    fd_close(whole);
}

TEST(names_that_lead_elsewhere_are_refused)
{
    static const char *const names[] = {"../x", "/etc/passwd", "a/../b", "a//b", "./a", "first"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        int fd = make(PACK_TAR, names[i]);

        EXPECT_EQ(read_through(fd, NULL), -EINVAL);
        fd_close(fd);
    }
}

TEST(sums_must_name_all_members)
{
    int fd = memfd_create("pack", MFD_CLOEXEC);
    struct pack *p;
    struct error err = {0};

    ASSERT_EQ(pack_new(fd, PACK_TAR, NULL, NULL, &p, NULL), 0);
    ASSERT_EQ(pack_data(p, "first", "one\n", 4, NULL), 0);
    char *sums = pack_sums(p, NULL);
    ASSERT_EQ(pack_data(p, "second", "two\n", 4, NULL), 0);
    char twice[400];
    (void)snprintf(twice, sizeof(twice), "%s%s", sums, sums);
    ASSERT_EQ(pack_data(p, PACK_SUMS, twice, strlen(twice), NULL), 0);
    ASSERT_EQ(pack_finish(p, NULL), 0);
    pack_free(p);
    free(sums);
    ASSERT_EQ(lseek(fd, 0, SEEK_SET), 0);
    EXPECT_EQ(read_through(fd, &err), -EINVAL);
    EXPECT_TRUE(strstr(error_text(&err), "does not name all") != NULL);
    fd_close(fd);
}
