/* The image store, initramfs writer and kernel modules. */
#include "image/store.h"

#include "base/fd.h"
#include "base/paths.h"
#include "base/test.h"
#include "image/build_internal.h"
#include "image/cpio.h"
#include "image/modules.h"

#include <archive.h>
#include <archive_entry.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static char root[64];

/** A data folder of this test's own. */
static void use_temp_data(void)
{
    (void)snprintf(root, sizeof(root), "/tmp/posada-test-XXXXXX");
    ASSERT_TRUE(mkdtemp(root) != NULL);
    ASSERT_EQ(setenv("XDG_DATA_HOME", root, 1), 0);
}

static struct image_spec spec_of(const char *text)
{
    struct image_spec spec = {0};

    EXPECT_EQ(image_spec_parse(text, NULL, "http://m.example/debian", &spec, NULL), 0);
    return spec;
}

/** What image_build() does around assembling. */
static void put_image(const char *text, const char *append)
{
    struct image_spec spec = spec_of(text);
    struct store_meta meta = {
        .spec = &spec, .append = append, .kernel_release = "6.1-x", .has_initrd = true};
    cleanup(fd_closep) int lock = store_lock(&spec, true, NULL, NULL, NULL);
    cleanup(freep) char *dir = NULL;
    struct error err = {0};

    ASSERT_TRUE(lock >= 0);
    ASSERT_EQ(store_begin(&spec, &dir, &err), 0);
    if (store_commit(dir, &meta, &err))
        test_fail(__FILE__, __LINE__, "%s", error_text(&err));
    EXPECT_TRUE(access(dir, F_OK) != 0);
}

TEST(store_finds_lists_replaces_and_removes)
{
    struct image_spec tiny, sid;
    struct image *image = NULL, **list = NULL;
    struct error err = {0};
    size_t n = 0;

    use_temp_data();
    tiny = spec_of("tiny");
    sid = spec_of("debian:sid");
    EXPECT_EQ(image_find(&tiny, &image, &err), -ENOENT);
    EXPECT_TRUE(strstr(error_text(&err), "posada image build tiny") != NULL);
    put_image("tiny", "");
    put_image("debian:sid", "root=LABEL=x ro");
    put_image("debian:sid", "root=LABEL=y rw"); /* again: replaced */

    ASSERT_EQ(image_find(&sid, &image, NULL), 0);
    EXPECT_STR(image->name, "debian:sid");
    EXPECT_STR(image->append, "root=LABEL=y rw");
    EXPECT_STR(image->kernel_release, "6.1-x");
    EXPECT_STR(image->spec.mirror, "http://m.example/debian");
    EXPECT_TRUE(image->initrd && !image->disk && image->kernel[0] == '/');
    EXPECT_TRUE(image->built > 1700000000);
    image_free(image);

    ASSERT_EQ(image_list(&list, &n, NULL), 0);
    ASSERT_EQ(n, 2u);
    EXPECT_STR(list[0]->name, "debian:sid");
    EXPECT_STR(list[1]->name, "tiny");
    image_list_free(list, n);

    EXPECT_EQ(image_remove(&sid, NULL), 0);
    EXPECT_EQ(image_remove(&sid, NULL), -ENOENT);
    EXPECT_EQ(paths_remove(root), 0);
}

TEST(store_excludes_and_sweeps)
{
    struct image_spec spec;
    cleanup(freep) char *first = NULL, *second = NULL;

    use_temp_data();
    spec = spec_of("tiny");
    int lock = store_lock(&spec, true, NULL, NULL, NULL);
    ASSERT_TRUE(lock >= 0);
    EXPECT_EQ(store_lock(&spec, false, NULL, NULL, NULL), -EBUSY);
    EXPECT_EQ(image_remove(&spec, NULL), -EBUSY);
    ASSERT_EQ(store_begin(&spec, &first, NULL), 0);
    cleanup(freep) char *stale = paths_format(NULL, "%s9", first); /* as a killed process's */
    cleanup(freep) char *inside = paths_format(NULL, "%s/kernel", stale);
    ASSERT_EQ(rename(first, stale), 0);
    ASSERT_EQ(paths_write(inside, "x", 1, NULL), 0);
    ASSERT_EQ(store_begin(&spec, &second, NULL), 0);
    EXPECT_TRUE(access(stale, F_OK) != 0);
    EXPECT_TRUE(!access(second, F_OK));
    /* Nothing was built, so nothing stays; and who waited for the file that is gone holds nothing.
     */
    cleanup(freep) char *name =
        paths_format(NULL, "%s/posada/images/.tiny-trixie-riscv64.lock", root);
    EXPECT_EQ(access(name, F_OK), 0);
    cleanup(fd_closep) int old = open(name, O_RDWR | O_CLOEXEC);
    store_unlock(&spec, lock);
    EXPECT_TRUE(access(name, F_OK) && errno == ENOENT);
    lock = store_lock(&spec, false, NULL, NULL, NULL);
    EXPECT_TRUE(lock >= 0);
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    EXPECT_EQ(fcntl(old, F_OFD_SETLK, &whole), 0);
    EXPECT_EQ(store_lock(&spec, false, NULL, NULL, NULL), -EBUSY);
    store_unlock(&spec, lock);
    EXPECT_EQ(paths_remove(root), 0);
}

/** "TYPE MODE NAME[=contents or target];" of every entry, as libarchive reads it. */
static void list_cpio(const char *path, char *ret, size_t room)
{
    struct archive *a = archive_read_new();
    struct archive_entry *e;
    size_t n = 0;

    ASSERT_EQ(archive_read_support_format_cpio(a), ARCHIVE_OK);
    ASSERT_EQ(archive_read_open_filename(a, path, 4096), ARCHIVE_OK);
    while (archive_read_next_header(a, &e) == ARCHIVE_OK) {
        char data[256] = "";
        const char *link = archive_entry_symlink(e);

        if (archive_entry_filetype(e) == AE_IFREG)
            EXPECT_TRUE(archive_read_data(a, data, sizeof(data) - 1) >= 0);
        if (archive_entry_filetype(e) == AE_IFCHR)
            (void)snprintf(data, sizeof(data), "%u,%u", (unsigned)archive_entry_rdevmajor(e),
                           (unsigned)archive_entry_rdevminor(e));
        n += (size_t)snprintf(ret + n, room - n, "%o %s=%s;", (unsigned)archive_entry_mode(e),
                              archive_entry_pathname(e), link ? link : data);
    }
    EXPECT_EQ(archive_read_free(a), ARCHIVE_OK);
}

TEST(cpio_is_read_by_others)
{
    char path[128], got[1024] = "";

    use_temp_data();
    (void)snprintf(path, sizeof(path), "%s/c", root);
    struct cpio *c = cpio_new(path, NULL);
    ASSERT_TRUE(c != NULL);
    EXPECT_EQ(cpio_add_file(c, "a/b/f", 0755, "hello", 5), 0);
    EXPECT_EQ(cpio_add_link(c, "a/l", "b/f"), 0);
    EXPECT_EQ(cpio_add_dir(c, "a/b", 0700), 0); /* is there already */
    EXPECT_EQ(cpio_add_char_device(c, "dev/console", 0600, 5, 1), 0);
    EXPECT_EQ(cpio_add_file(c, "empty", 0644, "", 0), 0);
    ASSERT_EQ(cpio_finish(c, NULL), 0);
    list_cpio(path, got, sizeof(got));
    EXPECT_STR(got, "40755 a=;40755 a/b=;100755 a/b/f=hello;120777 a/l=b/f;40755 dev=;"
                    "20600 dev/console=5,1;100644 empty=;");
    EXPECT_EQ(paths_remove(root), 0);
}

/** Each of these is a guest's first program; a folder that is not there is an error. */
TEST(every_initramfs_has_its_init)
{
    static const char *const folders[] = {"tiny/", "initrd/", "builder/"};
    static char got[65536];
    char path[128];

    use_temp_data();
    for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
        (void)snprintf(path, sizeof(path), "%s/%zu", root, i);
        struct cpio *c = cpio_new(path, NULL);
        ASSERT_TRUE(c != NULL);
        EXPECT_EQ(build_add_embedded(c, folders[i]), 0);
        ASSERT_EQ(cpio_finish(c, NULL), 0);
        list_cpio(path, got, sizeof(got));
        if (!strstr(got, "100755 init=#!/bin/busybox sh\n"))
            test_fail(__FILE__, __LINE__, "'%s' has no init: %s", folders[i], got);
    }
    (void)snprintf(path, sizeof(path), "%s/none", root);
    struct cpio *c = cpio_new(path, NULL);
    ASSERT_TRUE(c != NULL);
    EXPECT_EQ(build_add_embedded(c, "absent/"), -ENOENT);
    cpio_abandon(c);
    EXPECT_EQ(paths_remove(root), 0);
}

TEST(cpio_reports_a_full_disk)
{
    static char data[1 << 16];
    struct error err = {0};
    struct cpio *c = cpio_new("/dev/full", NULL);

    if (!c)
        test_skip("no /dev/full");
    (void)cpio_add_file(c, "f", 0644, data, sizeof(data));
    EXPECT_EQ(cpio_finish(c, &err), -ENOSPC);
}

/** An ELF file with section names and a .modinfo holding @info (NULs as ';'). */
static char *make_module(const char *info, size_t *ret_size)
{
    static const char names[] = "\0.modinfo\0.shstrtab";
    size_t info_size = strlen(info), size = sizeof(Elf64_Ehdr) + 3 * sizeof(Elf64_Shdr);
    Elf64_Ehdr eh = {
        .e_shoff = sizeof(eh), .e_shentsize = sizeof(Elf64_Shdr), .e_shnum = 3, .e_shstrndx = 2};
    Elf64_Shdr sh[3] = {{0}};

    memcpy(eh.e_ident, ELFMAG "\2\1\1", 7);
    sh[1] = (Elf64_Shdr){.sh_name = 1, .sh_offset = size, .sh_size = info_size};
    sh[2] = (Elf64_Shdr){.sh_name = 10, .sh_offset = size + info_size, .sh_size = sizeof(names)};
    char *file = calloc(1, size + info_size + sizeof(names));
    ASSERT_TRUE(file != NULL);
    memcpy(file, &eh, sizeof(eh));
    memcpy(file + sizeof(eh), sh, sizeof(sh));
    for (size_t i = 0; i < info_size; i++)
        file[size + i] = info[i] == ';' ? 0 : info[i];
    memcpy(file + size + info_size, names, sizeof(names));
    *ret_size = size + info_size + sizeof(names);
    return file;
}

static void add_module(struct modules *m, const char *name, const char *info)
{
    char path[128];
    size_t size;
    char *file = make_module(info, &size);

    (void)snprintf(path, sizeof(path), "usr/lib/modules/6.1/kernel/x/%s.ko", name);
    ASSERT_TRUE(modules_is_path(path));
    ASSERT_EQ(modules_add(m, path, file, size), 0);
}

TEST(modules_in_order_of_their_dependencies)
{
    const char *names[] = {"top", "built-in", NULL};
    char path[128], got[4096] = "";
    struct modules *m = modules_new();

    use_temp_data();
    (void)snprintf(path, sizeof(path), "%s/c", root);
    struct cpio *c = cpio_new(path, NULL);
    ASSERT_TRUE(m && c);
    add_module(m, "top", "license=GPL;depends=low-1,mid;alias=virtio:d1;");
    add_module(m, "low-1", "depends=;softdep=pre: crc;");
    add_module(m, "mid", "depends=low-1;alias=fs-x;alias=y;");
    add_module(m, "other", "depends=top;");
    ASSERT_EQ(modules_write(m, names, "6.1", c, NULL), 0);
    ASSERT_EQ(cpio_finish(c, NULL), 0);
    list_cpio(path, got, sizeof(got));
    EXPECT_TRUE(strstr(got, "lib/modules/6.1/low_1.ko=") != NULL);
    EXPECT_TRUE(!strstr(got, "other.ko"));
    EXPECT_TRUE(strstr(got, "modules.dep=top.ko: mid.ko low_1.ko\nlow_1.ko:\n"
                            "mid.ko: low_1.ko\n;") != NULL);
    EXPECT_TRUE(strstr(got, "alias=alias virtio:d1 top\nalias fs-x mid\nalias y mid\n;") != NULL);
    EXPECT_TRUE(strstr(got, "softdep=softdep low_1 pre: crc\n;") != NULL);
    modules_free(m);
    EXPECT_EQ(paths_remove(root), 0);
}

/** Every truncation and every damaged byte of the headers gives an answer inside the file. */
TEST(modinfo_of_damaged_files)
{
    size_t size, info_size;
    char *file = make_module("depends=a;", &size);
    const char *info;

    ASSERT_EQ(modules_modinfo(file, size, &info, &info_size), 0);
    EXPECT_TRUE(info_size == 10 && !memcmp(info, "depends=a", 9));
    for (size_t n = 0; n < size; n++) {
        char *cut = malloc(n + 1);

        ASSERT_TRUE(cut != NULL);
        memcpy(cut, file, n);
        EXPECT_EQ(modules_modinfo(cut, n, &info, &info_size), -EBADMSG);
        free(cut);
    }
    for (size_t at = 0; at < sizeof(Elf64_Ehdr) + 3 * sizeof(Elf64_Shdr); at++) {
        char saved = file[at];

        file[at] = (char)0xff;
        if (!modules_modinfo(file, size, &info, &info_size))
            EXPECT_TRUE(info >= file && info_size <= size && info + info_size <= file + size);
        file[at] = saved;
    }
    free(file);
}
