/* The main() of every unit test program. See base/test.h. */
#include "base/test.h"

#include <fnmatch.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STATUS_OK = 0, STATUS_FAILED = 1, STATUS_SKIPPED = 77 };

static struct test_case *cases;
static struct test_case **cases_end = &cases;
static int failures;

void test_register(struct test_case *t)
{
    *cases_end = t;
    cases_end = &t->next;
}

void test_fail(const char *file, int line, const char *fmt, ...)
{
    va_list ap;

    failures++;
    printf("# %s:%d: ", file, line);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
}

void test_abort(void)
{
    fflush(NULL);
    _exit(STATUS_FAILED);
}

void test_skip(const char *fmt, ...)
{
    va_list ap;

    printf("# skipped: ");
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
    fflush(NULL);
    _exit(STATUS_SKIPPED);
}

static int run_forked(struct test_case *t)
{
    fflush(NULL);
    pid_t pid = fork();

    if (!pid) {
        t->fn();
        fflush(NULL);
        /* exit(), not _exit(): the leak checker runs at exit */
        exit(failures ? STATUS_FAILED : STATUS_OK);
    }
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) < 0)
        return STATUS_FAILED;
    if (WIFSIGNALED(status)) {
        printf("# killed by signal %d\n", WTERMSIG(status));
        return STATUS_FAILED;
    }
    return WEXITSTATUS(status);
}

static bool selected(const char *name, int argc, char **argv)
{
    if (argc < 1)
        return true;
    for (int i = 0; i < argc; i++) {
        if (!fnmatch(argv[i], name, 0))
            return true;
    }
    return false;
}

int main(int argc, char **argv)
{
    bool list = argc > 1 && !strcmp(argv[1], "-l");
    bool no_fork = argc > 1 && !strcmp(argv[1], "-1");
    int first = list || no_fork ? 2 : 1;
    int n = 0;
    int bad = 0;

    for (struct test_case *t = cases; t; t = t->next) {
        if (!selected(t->name, argc - first, argv + first))
            continue;
        if (list) {
            printf("%s\n", t->name);
            continue;
        }
        int status;
        if (no_fork) {
            failures = 0;
            t->fn();
            status = failures ? STATUS_FAILED : STATUS_OK;
        } else {
            status = run_forked(t);
        }
        bad += status != STATUS_OK && status != STATUS_SKIPPED;
        printf("%s %d - %s%s\n", status == STATUS_OK || status == STATUS_SKIPPED ? "ok" : "not ok",
               ++n, t->name, status == STATUS_SKIPPED ? " # SKIP" : "");
    }
    if (!list)
        printf("1..%d\n", n);
    return bad ? 1 : 0;
}
