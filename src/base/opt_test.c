/* Tests of base/opt: what is accepted, and what the sentence says when it is not. */
#include "base/error.h"
#include "base/opt.h"
#include "base/test.h"

#include <errno.h>
#include <stdlib.h>

struct values {
    bool json;
    bool rng;
    const char *name;
    const char *engine;
    int64_t cpus;
    uint64_t memory;
    int64_t timeout;
    struct opt_list disks;
};

static const struct opt_def opts[] = {
    {.name = "json",                 .short_name = 'j', OPT_INTO_FLAG(struct values, json), .help = "x"},
    {.name = "rng",   OPT_INTO_FLAG(struct values, rng), .def = "on", .help = "x"},
    {.name = "name",                   .short_name = 'n', OPT_INTO_STRING(struct values, name), .arg = "NAME"},
    {.name = "engine",
     OPT_INTO_CHOICE(struct values, engine),
     .arg = "ENGINE",
     .choices = "interp jit check",
     .def = "jit"},
    {.name = "cpus",
     OPT_INTO_INT(struct values, cpus),
     .arg = "N",
     .def = "1",
     .min = 1,
     .max = 16},
    {.name = "memory",
     .short_name = 'm',
     OPT_INTO_SIZE(struct values, memory),
     .arg = "SIZE",
     .def = "1G",
     .min = 16 << 20,
     .max = 1LL << 40},
    {.name = "timeout",                 OPT_INTO_DURATION(struct values, timeout), .arg = "TIME"},
    {.name = "disk", OPT_INTO_LIST(struct values, disks), .arg = "FILE"},
    {0                },
};

static struct values v;
static struct opt_args args;
static struct error err;

/** Parse a NULL-terminated list of words. */
static int parse(const char **words)
{
    static char *argv[OPT_LIST_MAX + 2]; /* outlives the call: args.rest points into it */
    int argc = 0;

    for (; words[argc]; argc++)
        argv[argc] = (char *)words[argc];
    argv[argc] = NULL;
    opt_done(opts, &v, &args);
    v = (struct values){0};
    err = (struct error){0};
    return opt_parse(opts, &v, argc, argv, &args, &err);
}
#define PARSE(...) parse((const char *[]){__VA_ARGS__, NULL})

TEST(defaults_apply)
{
    EXPECT_EQ(parse((const char *[]){NULL}), 0);
    EXPECT_TRUE(!v.json);
    EXPECT_TRUE(v.rng);
    EXPECT_TRUE(!v.name);
    EXPECT_STR(v.engine, "jit");
    EXPECT_EQ(v.cpus, 1);
    EXPECT_EQ(v.memory, 1ULL << 30);
    EXPECT_EQ(args.n, 0u);
    EXPECT_TRUE(!args.has_rest);
    opt_done(opts, &v, &args);
}

TEST(every_spelling_is_read)
{
    EXPECT_EQ(PARSE("--cpus=4", "tiny", "-jm", "512M", "--name", "a=b", "--no-rng", "--timeout",
                    "5m", "--disk=a", "--disk", "b", "-", "--", "--cpus", "x"),
              0);
    EXPECT_EQ(v.cpus, 4);
    EXPECT_TRUE(v.json);
    EXPECT_TRUE(!v.rng);
    EXPECT_EQ(v.memory, 512u << 20);
    EXPECT_STR(v.name, "a=b");
    EXPECT_EQ(v.timeout, 300000);
    ASSERT_TRUE(v.disks.n == 2);
    EXPECT_STR(v.disks.v[0], "a");
    EXPECT_STR(v.disks.v[1], "b");
    ASSERT_TRUE(args.n == 2);
    EXPECT_STR(args.v[0], "tiny");
    EXPECT_STR(args.v[1], "-");
    EXPECT_TRUE(args.has_rest);
    ASSERT_TRUE(args.rest_n == 2);
    EXPECT_STR(args.rest[0], "--cpus");
    EXPECT_EQ(PARSE("-m1G", "-nx", "-1G"), 0); /* a number is an operand, also a negative one */
    EXPECT_EQ(v.memory, 1u << 30);
    EXPECT_STR(v.name, "x");
    ASSERT_TRUE(args.n == 1);
    EXPECT_STR(args.v[0], "-1G");
    opt_done(opts, &v, &args);
}

#define EXPECT_ERROR(sentence, ...)             \
    do {                                        \
        EXPECT_EQ(PARSE(__VA_ARGS__), -EINVAL); \
        EXPECT_STR(error_text(&err), sentence); \
        opt_done(opts, &v, &args);              \
    } while (0)

TEST(errors_name_the_option_and_what_was_expected)
{
    EXPECT_ERROR("--cpus: expected a whole number from 1 to 16, not '17'", "--cpus=17");
    EXPECT_ERROR("--cpus: expected a whole number from 1 to 16, not 'two'", "--cpus", "two");
    EXPECT_ERROR("--cpus: expected a whole number from 1 to 16, not ''", "--cpus=");
    EXPECT_ERROR(
        "-m: expected a size from 16M to 1T such as 512M or 2G (bytes without a suffix), not '512'",
        "-m", "512");
    EXPECT_ERROR(
        "--timeout: expected a duration such as 500ms, 30s or 5m (seconds without a suffix), not '5d'",
        "--timeout=5d");
    EXPECT_ERROR("--engine: expected one of interp, jit, check, not 'ji'", "--engine=ji");
    EXPECT_ERROR("--name needs a value: NAME", "--name");
    EXPECT_ERROR("-n needs a value: NAME", "-jn", "--", "x");
    EXPECT_ERROR("--json takes no value, but 'yes' was given", "--json=yes");
    EXPECT_ERROR("unknown option '--memroy'; did you mean '--memory'?", "--memroy=2G");
    EXPECT_ERROR("unknown option '--xyzzy'", "--xyzzy");
    EXPECT_ERROR("unknown option '--no-json'", "--no-json");
    EXPECT_ERROR("unknown option '-x'", "-jx");
}

TEST(lists_have_a_limit)
{
    const char *argv[OPT_LIST_MAX + 2] = {0};

    for (int i = 0; i < OPT_LIST_MAX + 1; i++)
        argv[i] = "--disk=d";
    EXPECT_EQ(parse(argv), -EINVAL);
    EXPECT_STR(error_text(&err), "--disk may be given at most 256 times");
    opt_done(opts, &v, &args);
}

TEST(sizes)
{
    static const struct {
        const char *text;
        int r;
        uint64_t bytes;
    } rows[] = {
        {"0",                    0,       0           },
        {"4096",                 0,       4096        },
        {"1k",                   0,       1024        },
        {"512M",                 0,       512ULL << 20},
        {"2GiB",                 0,       2ULL << 30  },
        {"3TB",                  0,       3ULL << 40  },
        {"",                     -EINVAL, 0           },
        {"M",                    -EINVAL, 0           },
        {"-1",                   -EINVAL, 0           },
        {" 1",                   -EINVAL, 0           },
        {"1Mx",                  -EINVAL, 0           },
        {"1.5G",                 -EINVAL, 0           },
        {"0x10",                 -EINVAL, 0           },
        {"16777216T",            -ERANGE, 0           },
        {"18446744073709551615", 0,       UINT64_MAX  },
        {"18446744073709551616", -ERANGE, 0           },
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        uint64_t got = 0;
        if (!EXPECT_EQ(opt_parse_size(rows[i].text, &got), rows[i].r) ||
            !EXPECT_EQ(got, rows[i].bytes))
            test_fail(__FILE__, __LINE__, "for '%s'", rows[i].text);
    }
}

TEST(durations_and_numbers)
{
    int64_t n = 0;

    EXPECT_EQ(opt_parse_duration("30", &n), 0);
    EXPECT_EQ(n, 30000);
    EXPECT_EQ(opt_parse_duration("500ms", &n), 0);
    EXPECT_EQ(n, 500);
    EXPECT_EQ(opt_parse_duration("2h", &n), 0);
    EXPECT_EQ(n, 7200000);
    EXPECT_EQ(opt_parse_duration("9223372036854775807", &n), -ERANGE);
    EXPECT_EQ(opt_parse_duration("1d", &n), -EINVAL);
    EXPECT_EQ(opt_parse_int("-12", &n), 0);
    EXPECT_EQ(n, -12);
    EXPECT_EQ(opt_parse_int("0xfF", &n), 0);
    EXPECT_EQ(n, 255);
    EXPECT_EQ(opt_parse_int("0x", &n), -EINVAL);
    EXPECT_EQ(opt_parse_int("9223372036854775808", &n), -ERANGE);
    EXPECT_EQ(opt_parse_int("1 ", &n), -EINVAL);
}

TEST(sizes_print_as_they_are_read)
{
    char buf[32];

    EXPECT_STR(opt_format_size(0, buf, sizeof(buf)), "0");
    EXPECT_STR(opt_format_size(1000, buf, sizeof(buf)), "1000");
    EXPECT_STR(opt_format_size(1536ULL << 20, buf, sizeof(buf)), "1536M");
    EXPECT_STR(opt_format_size(2ULL << 40, buf, sizeof(buf)), "2T");
}

static const char *next_word(void *arg)
{
    static const char *const words[] = {"run", "image", "doctor", "version", NULL};
    size_t *i = arg;

    return words[*i] ? words[(*i)++] : NULL;
}

static const char *nearest(const char *word)
{
    size_t i = 0;

    return opt_nearest(word, next_word, &i);
}

TEST(nearest_word)
{
    char long_word[200];

    EXPECT_STR(nearest("rnu"), "run");
    EXPECT_STR(nearest("docter"), "doctor");
    EXPECT_STR(nearest("imgae"), "image");
    EXPECT_STR(nearest("verison"), "version");
    EXPECT_TRUE(!nearest("xyz"));
    EXPECT_TRUE(!nearest("a"));
    memset(long_word, 'a', sizeof(long_word) - 1);
    long_word[sizeof(long_word) - 1] = '\0';
    EXPECT_TRUE(!nearest(long_word));
}
