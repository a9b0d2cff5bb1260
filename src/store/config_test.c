/* Tests of instance.yaml: the schema, errors with lines, edits that keep the rest. */
#include "base/fd.h"
#include "base/test.h"
#include "store/config.h"

#include <errno.h>
#include <stdio.h>

static int parse(const char *text, struct instance_config *ret, struct error *err)
{
    *err = (struct error){0};
    return config_parse("f.yaml", text, strlen(text), ret, err);
}

TEST(a_file_fills_the_config_and_the_rest_is_default)
{
    struct instance_config c;
    struct error err;

    ASSERT_EQ(parse("# comment\ncpus: 4\nmemory: 2G\nnet: none\nautostart: yes\n"
                    "volumes:\n  - /a:/b\n  - \"/c:/d:ro\"\ndescription: \"a \\\"b\\\"\"\n",
                    &c, &err),
              0);
    EXPECT_EQ(c.cpus, 4);
    EXPECT_EQ(c.memory, 2ULL << 30);
    EXPECT_STR(c.net, "none");
    EXPECT_TRUE(c.autostart);
    EXPECT_TRUE(c.rng);
    EXPECT_STR(c.engine, "jit");
    EXPECT_STR(c.restart, "no");
    EXPECT_STR(c.description, "a \"b\"");
    ASSERT_EQ(c.volumes.n, 2u);
    EXPECT_STR(c.volumes.v[1], "/c:/d:ro");
    config_done(&c);
    ASSERT_EQ(parse("", &c, &err), 0);
    EXPECT_EQ(c.memory, 1ULL << 30);
    config_done(&c);
    ASSERT_EQ(parse("# nothing\n", &c, &err), 0);
    config_done(&c);
}

TEST(errors_name_file_and_line)
{
    static const struct {
        const char *text, *sentence;
    } bad[] = {
        {"cpus: 4\nmemroy: 2G\n",             "f.yaml:2: unknown key 'memroy'; did you mean 'memory'?"             },
        {"cpus: 99\n",                        "f.yaml:1: cpus: expected a number from 1 to 16, not '99'"           },
        {"\n\nmemory: 1000\n",
         "f.yaml:3: memory: expected whole mebibytes from 16M to 1T, not '1000'"                                   },
        {"engine: fast\n",                    "f.yaml:1: engine: expected one of: jit interp check kvm; not 'fast'"},
        {"cpus: 1\ncpus: 2\n",                "f.yaml:2: cpus is given twice"                                      },
        {"cpus: [1]\n",                       "f.yaml:1: cpus: expected a single value"                            },
        {"- cpus\n",                          "f.yaml:1: expected lines of 'key: value'"                           },
        {"volumes:\n  - /a:/b\n  - /a\n",
         "f.yaml:3: volumes: expected HOSTFOLDER:/GUEST/PATH[:ro], not '/a'"                                       },
        {"autostart: maybe\n",                "f.yaml:1: autostart: expected yes or no, not 'maybe'"               },
        {"net: &a user\n",                    "f.yaml:1: net: anchors and tags are not allowed"                    },
        {"net: none\npublish: [\"80:80\"]\n",
         "f.yaml: publish needs a network: it excludes net none"                                                   },
        {"cpus: 1\n---\ncpus: 2\n",           "f.yaml:2: there is more than one document"                          },
        {"restart: sometimes\n",              "f.yaml:1: restart: expected no, on-failure, on-failure:N, always "
                                 "or unless-stopped, not 'sometimes'"              },
        {"description: \"a\\0b\"\n",          "f.yaml:1: description: control characters are not allowed"          },
        {"description: \"a\\nb\"\n",          "f.yaml:1: description: control characters are not allowed"          },
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct instance_config c;
        struct error err;

        EXPECT_EQ(parse(bad[i].text, &c, &err), -EINVAL);
        EXPECT_STR(err.text, bad[i].sentence);
    }
}

TEST(what_is_not_yaml_is_refused_with_its_line)
{
    struct instance_config c;
    struct error err;

    EXPECT_EQ(parse("cpus: 1\n\t- {\n", &c, &err), -EINVAL);
    EXPECT_TRUE(!strncmp(err.text, "f.yaml:2: ", 10));
    EXPECT_EQ(parse("cpus: *a\n", &c, &err), -EINVAL);
}

/** The text of @c, read back, says the same. */
static void expect_round_trip(const struct instance_config *c)
{
    struct error err = {0};
    struct instance_config back;
    cleanup(freep) char *text = config_format(c, &err);

    ASSERT_TRUE(text);
    ASSERT_EQ(parse(text, &back, &err), 0);
    json_t *a = config_json(c);
    json_t *b = config_json(&back);
    EXPECT_TRUE(json_equal(a, b));
    json_decref(a);
    json_decref(b);
    config_done(&back);
}

TEST(what_is_written_is_read_back)
{
    struct instance_config c, copy;
    struct error err = {0};

    ASSERT_EQ(config_init(&c, &err), 0);
    expect_round_trip(&c);
    ASSERT_EQ(
        config_assign(&c, "description=\"quotes\" \\ back # no: comment 'x' \xc3\xa9", NULL, &err),
        0);
    ASSERT_EQ(config_assign(&c, "publish+=8080:80", NULL, &err), 0);
    ASSERT_EQ(config_assign(&c, "publish+=[::1]:8081:81/udp", NULL, &err), 0);
    ASSERT_EQ(config_assign(&c, "mac=52:54:00:12:34:56", NULL, &err), 0);
    ASSERT_EQ(config_assign(&c, "restart=on-failure:3", NULL, &err), 0);
    ASSERT_EQ(config_assign(&c, "rng=no", NULL, &err), 0);
    expect_round_trip(&c);
    ASSERT_EQ(config_copy(&c, &copy, &err), 0);
    expect_round_trip(&copy);
    EXPECT_EQ(copy.publish.n, 2u);
    config_done(&copy);
    config_done(&c);
}

TEST(assignments_change_lists_and_refuse_what_is_fixed)
{
    struct instance_config c;
    struct error err = {0};
    const struct config_key *k;

    ASSERT_EQ(config_init(&c, &err), 0);
    ASSERT_EQ(config_assign(&c, "publish+=8080:80", &k, &err), 0);
    EXPECT_STR(k->name, "publish");
    ASSERT_EQ(config_assign(&c, "publish+=8081:81", NULL, &err), 0);
    ASSERT_EQ(config_assign(&c, "publish-=8080:80", NULL, &err), 0);
    ASSERT_EQ(c.publish.n, 1u);
    EXPECT_STR(c.publish.v[0], "8081:81");
    EXPECT_EQ(config_assign(&c, "publish-=1:1", NULL, &err), -ENOENT);
    ASSERT_EQ(config_assign(&c, "publish=", NULL, &err), 0);
    EXPECT_EQ(c.publish.n, 0u);
    EXPECT_EQ(config_assign(&c, "cpus+=1", NULL, &err), -EINVAL);
    EXPECT_EQ(config_assign(&c, "cpus", NULL, &err), -EINVAL);
    EXPECT_EQ(config_assign(&c, "=1", NULL, &err), -EINVAL);
    err = (struct error){0};
    EXPECT_EQ(config_assign(&c, "uuid=x", NULL, &err), -EPERM);
    EXPECT_EQ(config_assign(&c, "cpus=0", NULL, &err), -EINVAL);
    EXPECT_EQ(c.cpus, 1);
    for (int i = 0; i < CONFIG_LIST_MAX; i++)
        ASSERT_EQ(config_assign(&c, "publish+=1:1", NULL, &err), 0);
    EXPECT_EQ(config_assign(&c, "publish+=1:1", NULL, &err), -E2BIG);
    config_done(&c);
}

/** @text with @assignment done. */
static char *replace(const char *text, const char *assignment)
{
    struct instance_config c;
    struct error err;
    const struct config_key *k = NULL;

    if (parse(text, &c, &err) || config_assign(&c, assignment, &k, &err))
        return NULL;
    char *fresh = config_replace(text, &c, k, &err);
    config_done(&c);
    return fresh;
}

TEST(replacing_a_key_keeps_comments_and_order)
{
    static const struct {
        const char *text, *assignment, *want;
    } cases[] = {
        {"# a\ncpus: 1 # few\n# b\nmemory: 1G\n",    "cpus=2",       "# a\ncpus: 2\n# b\nmemory: 1G\n"},
        {"cpus: 1\nmemory: 1G\n",                    "memory=2G",    "cpus: 1\nmemory: 2G\n"          },
        {"cpus: 1",                                  "memory=2G",    "cpus: 1\nmemory: 2G\n"          },
        {"publish:\n- 1:1\n- 2:2\n\n# c\ncpus: 1\n", "publish-=1:1",
         "publish:\n  - \"2:2\"\n\n# c\ncpus: 1\n"                                                    },
        {"publish:\n  - 1:1\ncpus: 1\n",             "publish=",     "publish: []\ncpus: 1\n"         },
        {"publish: [1:1,\n  2:2]\ncpus: 1\n",        "publish+=3:3",
         "publish:\n  - \"1:1\"\n  - \"2:2\"\n  - \"3:3\"\ncpus: 1\n"                                 },
        {"",                                         "cpus=2",       "cpus: 2\n"                      },
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        cleanup(freep) char *got = replace(cases[i].text, cases[i].assignment);
        EXPECT_STR(got, cases[i].want);
    }
}

TEST(keys_that_share_a_line_are_written_anew)
{
    cleanup(freep) char *got = replace("{cpus: 2, memory: 2G, net: none}\n", "cpus=4");
    struct instance_config c;
    struct error err;

    ASSERT_TRUE(got);
    ASSERT_EQ(parse(got, &c, &err), 0);
    EXPECT_EQ(c.cpus, 4);
    EXPECT_EQ(c.memory, 2ULL << 30);
    EXPECT_STR(c.net, "none");
    config_done(&c);
}

TEST(texts_that_would_not_be_read_back_are_refused)
{
    static const char *const bad[] = {
        "\xff",         "a\xc3",        "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
        "\xe2\x80\xa8", "\xe2\x80\xa9", "\xc2\x85", "\xef\xbb\xbf", "\xef\xbf\xbf",
        "\x7f",         "\t",           "\n",
    };
    struct instance_config c;
    struct error err = {0};

    ASSERT_EQ(config_init(&c, &err), 0);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        EXPECT_EQ(config_set(&c, config_find("description", NULL), bad[i], &err), -EINVAL);
    EXPECT_EQ(config_set(&c, config_find("description", NULL), "\xf0\x9f\x90\xa7 \xc2\xa0", NULL),
              0);
    expect_round_trip(&c);
    config_done(&c);
}

TEST(restart_policies)
{
    enum restart_policy p;
    unsigned max;

    EXPECT_TRUE(config_restart("no", &p, &max) && p == RESTART_NO);
    EXPECT_TRUE(config_restart("on-failure", &p, &max) && p == RESTART_ON_FAILURE && !max);
    EXPECT_TRUE(config_restart("on-failure:7", &p, &max) && max == 7);
    EXPECT_TRUE(config_restart("always", &p, &max) && p == RESTART_ALWAYS);
    EXPECT_TRUE(config_restart("unless-stopped", &p, &max) && p == RESTART_UNLESS_STOPPED);
    EXPECT_TRUE(!config_restart("on-failure:0", &p, &max));
    EXPECT_TRUE(!config_restart("always:1", &p, &max));
    EXPECT_TRUE(!config_restart("", &p, &max));
}
