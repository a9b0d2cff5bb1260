/* Names, and what is sent to a guest to run a command. */
#include "image/image.h"

#include "base/fd.h"
#include "base/test.h"

#include <stdio.h>
#include <sys/wait.h>

static struct image_spec parse_ok(const char *text, const char *arch, const char *mirror)
{
    struct image_spec spec = {0};
    struct error err = {0};

    if (image_spec_parse(text, arch, mirror, &spec, &err))
        test_fail(__FILE__, __LINE__, "'%s': %s", text, error_text(&err));
    return spec;
}

TEST(spec_defaults)
{
    struct image_spec s = parse_ok("debian", NULL, NULL);

    EXPECT_EQ(s.kind, IMAGE_DEBIAN);
    EXPECT_STR(s.suite, "trixie");
    EXPECT_STR(s.arch, "riscv64");
    EXPECT_STR(s.mirror, "");
    EXPECT_EQ(s.disk_bytes, 8ULL << 30);
    EXPECT_EQ(parse_ok("tiny", NULL, NULL).kind, IMAGE_TINY);
}

TEST(spec_words)
{
    struct image_spec s = parse_ok("debian:sid", "arm64", "http://m.example/debian//");

    EXPECT_STR(s.suite, "sid");
    EXPECT_STR(s.arch, "arm64");
    EXPECT_STR(s.mirror, "http://m.example/debian");
    EXPECT_STR(parse_ok("tiny:forky/amd64", NULL, NULL).arch, "amd64");
}

TEST(spec_rejects)
{
    static const char *const bad[] = {
        "",
        "tin",
        "debian:",
        "debian/",
        "debian:../x",
        "debian:a/b/c",
        "debian:A",
        "debian:-a",
        "debian:a b",
        "debian:a\nb",
        "alpine",
        "./tiny",
        "debian:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    };
    struct image_spec s = {.suite = "kept"};

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct error err = {0};

        EXPECT_EQ(image_spec_parse(bad[i], NULL, NULL, &s, &err), -EINVAL);
        EXPECT_TRUE(err.code == EINVAL);
        EXPECT_TRUE(!image_spec_is_valid(bad[i]));
    }
    EXPECT_EQ(image_spec_parse("tiny", "Risc V", NULL, &s, NULL), -EINVAL);
    EXPECT_EQ(image_spec_parse("tiny", NULL, "ftp://x/y", &s, NULL), -EINVAL);
    EXPECT_EQ(image_spec_parse("tiny", NULL, "http://x/a b", &s, NULL), -EINVAL);
    EXPECT_EQ(image_spec_parse("tiny", NULL, "file:///", &s, NULL), -EINVAL);
    EXPECT_STR(s.suite, "kept");
}

TEST(spec_names)
{
    static const char *const names[] = {"tiny", "tiny:sid", "debian:trixie", "debian:sid/arm64"};
    char name[IMAGE_NAME_MAX];

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        struct image_spec s = parse_ok(names[i], NULL, NULL);

        image_spec_name(&s, name);
        EXPECT_STR(name, names[i]);
    }
}

/** The encoded script, run by the host's sh, must give back exactly the arguments. */
TEST(command_survives_a_shell)
{
    const char *argv[] = {"printf", "<%s>",       "a b", "it's", "$HOME `x` \\ \"q\"",
                          "",       "line\nline", NULL};
    const char *env[] = {"X=1 '2'", NULL};
    cleanup(freep) char *bytes = NULL;
    size_t size = 0;
    char out[256] = "";
    char cmd[2048];
    int skip = 0;
    unsigned length = 0;

    ASSERT_EQ(image_command_encode(argv, env, "/", &bytes, &size, NULL), 0);
    ASSERT_EQ(sscanf(bytes, "%u\n%n", &length, &skip), 1);
    EXPECT_EQ((size_t)skip + length, size);

    char path[] = "/tmp/posada-test-XXXXXX";
    int fd = mkstemp(path);
    ASSERT_TRUE(fd >= 0);
    ASSERT_EQ(fd_write_all(fd, bytes + skip, length), 0);
    fd_close(fd);
    (void)snprintf(cmd, sizeof(cmd), "sh %s", path);
    FILE *p = popen(cmd, "r");
    ASSERT_TRUE(p != NULL);
    size_t n = fread(out, 1, sizeof(out) - 1, p);
    out[n] = 0;
    EXPECT_EQ(pclose(p), 0);
    (void)unlink(path);
    EXPECT_STR(out, "<a b><it's><$HOME `x` \\ \"q\"><><line\nline>");
    EXPECT_TRUE(strstr(bytes, "export X='1 '\\''2'\\'''\n") != NULL);
}

TEST(command_rejects_bad_env)
{
    const char *argv[] = {"true", NULL};
    const char *bad[] = {"1A=b", "A", "A B=c", "=x", "A;reboot=1"};
    char *bytes = NULL;
    size_t size;

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        const char *env[] = {bad[i], NULL};

        EXPECT_EQ(image_command_encode(argv, env, NULL, &bytes, &size, NULL), -EINVAL);
    }
    EXPECT_TRUE(!bytes);
}

TEST(mount_argument)
{
    cleanup(freep) char *plain = image_mount_argument("share0", "/mnt/x", false);
    cleanup(freep) char *odd = image_mount_argument("s", "/a b:c\"%", true);

    EXPECT_STR(plain, "posada.mount=share0:/mnt/x");
    EXPECT_STR(odd, "posada.mount=s:/a%040b%072c%042%045:ro");
    EXPECT_TRUE(!image_mount_argument("a:b", "/x", false));
    EXPECT_TRUE(!image_mount_argument("a", "x", false));
}
