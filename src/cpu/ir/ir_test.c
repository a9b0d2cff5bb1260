/* The IR's text form, verifier, and passes. The passes' tests are files, tests/ir/NAME.ir:
 *
 *     ; pass: forward|dead|loop|optimize          what to do with
 *     (a unit)                                    this, to get
 *     ; expect
 *     (another)                                   this, as printed
 */
#include "base/test.h"
#include "cpu/ir/ir.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

static struct ir_func *parse(const char *text)
{
    struct ir_func *f = ir_new(1000);
    struct error err = {0};

    ASSERT_TRUE(f != NULL);
    if (ir_parse(text, f, &err)) {
        test_fail(__FILE__, __LINE__, "%s", err.text);
        test_abort();
    }
    return f;
}

static char *print(const struct ir_func *f)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    ASSERT_TRUE(out != NULL);
    ir_print(f, out);
    fclose(out);
    return text;
}

TEST(text_prints_as_it_was_parsed)
{
    static const char text[] = "unit 0x104 mode 0x12\n"
                               "insn 0x104\n"
                               "    %1 = get.i64.8 [0x58]\n"
                               "    %2 = const.i32 -0x5\n"
                               "    %3 = loads.i64.4 m1 [%1 + -0x8]\n"
                               "    %4 = select.i64.8.ltu %1 %3 %1 %3\n"
                               "    %5 = amo.i32.4.maxu m0 [%1] %2\n"
                               "    store.8 m2 [%3] %4\n"
                               "    %7 = ftoi.i64 %8 #1\n"
                               "    branch.4.ne %5 %2 -> 0x200\n"
                               "    exit_direct #1 -> -0x10\n";
    static const char with_float[] = "unit 0x104 mode 0x12\n"
                                     "insn 0x104\n"
                                     "    %1 = get.f64.8 [0x58]\n"
                                     "    %2 = ftoi.i64 %1 #1\n"
                                     "    exit_indirect %2 #0\n";
    struct ir_func *f;
    struct error err = {0};
    char *again;

    f = parse(with_float);
    again = print(f);
    EXPECT_STR(again, with_float);
    EXPECT_EQ(ir_verify(f, NULL), 0);
    free(again);
    EXPECT_TRUE(ir_parse(text, f, &err) < 0);
    EXPECT_STR(err.text, "line 9: temp is not defined yet");
    ir_free(f);
}

TEST(bad_text_is_refused)
{
    static const char *const texts[] = {
        "frob",
        "%1 = add",
        "%1 = add.i64 %0 %1",
        "unit x",
        "%1 = get.i64 [0x8]",
        "%70000 = const.i64 1",
        "insn 0x0 0x1",
        "%1 = get.i64.8 [0x8",
        "%1 = setcc.i64.8.maybe %1 %1",
        "exit_direct #1 -> ",
        "%1 = const.i64 99999999999999999999999",
    };
    struct ir_func *f = ir_new(10);

    for (unsigned n = 0; n < ARRAY_SIZE(texts); n++)
        EXPECT_TRUE(ir_parse(texts[n], f, NULL) < 0);
    ir_free(f);
}

static void refused(const char *text, const char *why)
{
    struct ir_func *f = parse(text);
    struct error err = {0};

    EXPECT_TRUE(ir_verify(f, &err) < 0);
    EXPECT_STR(err.text, why);
    ir_free(f);
}

TEST(the_verifier_names_the_offence)
{
    refused("insn 0x0\n%1 = get.f64.8 [0x8]\n%2 = add.i64 %1 %1\nexit_direct #0 -> 0x4\n",
            "IR op 2 (add): an operand is not an integer, or too narrow");
    refused("insn 0x0\n%1 = const.i32 0x1\n%2 = add.i64 %1 %1\nexit_direct #0 -> 0x4\n",
            "IR op 2 (add): an operand is not an integer, or too narrow");
    refused("insn 0x0\n", "IR unit has no exit at its end");
    refused("exit_direct #0 -> 0x4\n", "IR op 0 (exit_direct): belongs to no guest instruction");
    refused("insn 0x0\nexit_direct #0 -> 0x4\ninsn 0x4\n", "IR op 2 (insn): follows the last exit");
    refused("insn 0x0\n%1 = const.i64 0x1\n%2 = load.i32.8 m0 [%1]\nexit_direct #0 -> 0x4\n",
            "IR op 2 (load): the size does not suit the type");
    refused("insn 0x0\n%1 = const.i64 0x1\n%2 = fcvt.f64 %1\nexit_direct #0 -> 0x4\n",
            "IR op 2 (fcvt): an operand is not a floating point number");
}

TEST(conditions_invert_and_swap)
{
    for (unsigned cc = 0; cc < IR_CCS; cc++) {
        EXPECT_EQ(ir_cc_not(ir_cc_not(cc)), cc);
        EXPECT_EQ(ir_cc_swap(ir_cc_swap(cc)), cc);
        EXPECT_TRUE(ir_cc_not(cc) != cc);
    }
}

TEST(a_full_unit_is_unusable)
{
    struct ir_func *f = ir_new(4);

    for (unsigned n = 0; n < 5; n++)
        ir_const(f, IR_I64, 1);
    EXPECT_TRUE(f->overflow);
    EXPECT_TRUE(ir_verify(f, NULL) < 0);
    ir_free(f);
}

/* --- Passes */

static char *read_file(const char *folder, const char *name)
{
    char path[1024], *text = calloc(1, 65536);
    FILE *in;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    in = fopen(path, "re");
    ASSERT_TRUE(in && text);
    EXPECT_TRUE(fread(text, 1, 65535, in) > 0);
    fclose(in);
    return text;
}

static void run_pass(const char *name, struct ir_func *f)
{
    if (strncmp(name, "forward\n", 8) == 0)
        ir_pass_forward(f);
    else if (strncmp(name, "dead\n", 5) == 0)
        ir_pass_dead(f);
    else if (strncmp(name, "loop\n", 5) == 0)
        ir_pass_loop(f);
    else if (strncmp(name, "optimize\n", 9) == 0)
        ir_optimize(f);
    else
        test_fail(__FILE__, __LINE__, "no such pass: %.20s", name);
}

static void check_file(const char *folder, const char *name)
{
    char *text = read_file(folder, name), *expect = strstr(text, "; expect\n"), *got;
    struct error err = {0};
    struct ir_func *f;

    if (!expect || strncmp(text, "; pass: ", 8) != 0) {
        test_fail(__FILE__, __LINE__, "%s: lacks '; pass:' or '; expect'", name);
        return;
    }
    *expect = '\0';
    f = parse(text);
    if (ir_verify(f, &err))
        test_fail(__FILE__, __LINE__, "%s: %s", name, err.text);
    run_pass(text + 8, f);
    got = print(f);
    if (strcmp(got, expect + 9) != 0)
        test_fail(__FILE__, __LINE__, "%s: got\n%swant\n%s", name, got, expect + 9);
    free(got);
    ir_free(f);
    free(text);
}

TEST(passes_do_what_the_files_say)
{
    const char *folder = getenv("IR_TEST_FILES");
    struct dirent *d;
    unsigned count = 0;
    DIR *dir;

    if (!folder)
        test_skip("IR_TEST_FILES is not set");
    dir = opendir(folder);
    ASSERT_TRUE(dir != NULL);
    while ((d = readdir(dir)))
        if (strstr(d->d_name, ".ir")) {
            check_file(folder, d->d_name);
            count++;
        }
    closedir(dir);
    EXPECT_TRUE(count > 0);
}
