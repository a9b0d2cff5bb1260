/* Snapshots of a machine that does not run: what is refused, and that nothing is left. Running
 * ones: tests/e2e. */
#include "base/fd.h"
#include "base/test.h"
#include "mem/mem.h"
#include "snapshot/snapshot.h"
#include "vm/vm.h"

#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>

static char path[64];
static struct error err;

static struct vm *make(unsigned memory_mib)
{
    struct vm *vm = NULL;
    struct vm_config c = {
        .name = "test",
        .cpus = 1,
        .memory_bytes = (uint64_t)memory_mib << 20,
        .engine = VM_ENGINE_INTERP,
        .console_in = -1,
        .console_out = -1,
        .no_boot = true,
    };

    err = (struct error){0};
    if (vm_new(&c, &vm, &err))
        test_fail(__FILE__, __LINE__, "%s", error_text(&err));
    ASSERT_TRUE(vm);
    return vm;
}

static void remove_file(void)
{
    (void)unlink(path);
}

/** A machine whose memory holds something, saved. */
static struct vm *save(struct snapshot_report *report)
{
    struct vm *vm = make(32);

    (void)snprintf(path, sizeof(path), "/tmp/snapshot_test.%d", (int)getpid());
    (void)atexit(remove_file);
    ASSERT_EQ(mem_copy_out(vm_mem(vm), GPA(0x80123000), "hello", 6), 0);
    if (snapshot_save(vm, path, NULL, report, &err))
        test_fail(__FILE__, __LINE__, "%s", error_text(&err));
    return vm;
}

TEST(memory_comes_back)
{
    struct snapshot_report report = {0};
    char got[6] = "";

    vm_free(save(&report));
    EXPECT_TRUE(report.memory_bytes >= 4096 && report.memory_bytes < 1 << 20);
    struct vm *vm = make(32);
    if (snapshot_load(vm, path, &err))
        test_fail(__FILE__, __LINE__, "%s", error_text(&err));
    EXPECT_EQ(mem_copy_in(vm_mem(vm), GPA(0x80123000), got, 6), 0);
    EXPECT_STR(got, "hello");
    vm_free(vm);
}

TEST(an_existing_file_stays)
{
    struct snapshot_report report;
    struct vm *vm = save(&report);

    EXPECT_EQ(snapshot_save(vm, path, NULL, NULL, &err), -EEXIST);
    EXPECT_TRUE(!access(path, F_OK));
    vm_free(vm);
}

TEST(every_truncation_is_refused)
{
    struct snapshot_report report = {0};
    struct stat st;

    vm_free(save(&report));
    ASSERT_EQ(stat(path, &st), 0);
    struct vm *vm = make(32);
    for (off_t n = st.st_size - 1; n >= 0; n -= n > 200 ? 997 : 1) {
        ASSERT_EQ(truncate(path, n), 0);
        err = (struct error){0};
        if (!EXPECT_EQ(snapshot_load(vm, path, &err), -EINVAL))
            break;
        EXPECT_TRUE(err.text[0]);
    }
    vm_free(vm);
}

TEST(another_machine_is_refused)
{
    struct snapshot_report report;

    vm_free(save(&report));
    struct vm *vm = make(64);
    EXPECT_EQ(snapshot_load(vm, path, &err), -EINVAL);
    EXPECT_TRUE(strstr(err.text, "of a machine with other memory"));
    err = (struct error){0};
    EXPECT_EQ(snapshot_load(vm, "/nonexistent", &err), -ENOENT);
    err = (struct error){0};
    EXPECT_EQ(snapshot_load(vm, "/dev/null", &err), -EINVAL);
    vm_free(vm);
}

TEST(a_full_disk_leaves_nothing)
{
    struct rlimit limit = {.rlim_cur = 8192, .rlim_max = RLIM_INFINITY};
    struct vm *vm = make(32);
    char part[80];

    (void)snprintf(path, sizeof(path), "/tmp/snapshot_test.%d", (int)getpid());
    (void)snprintf(part, sizeof(part), "%s.part", path);
    (void)signal(SIGXFSZ, SIG_IGN);
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    EXPECT_EQ(snapshot_save(vm, path, NULL, NULL, &err), -EFBIG);
    EXPECT_STR(err.text, "cannot write the snapshot: File too large");
    EXPECT_TRUE(access(path, F_OK) && access(part, F_OK));
    vm_free(vm);
}

static int cancel(void *arg, uint64_t done_bytes, uint64_t total_bytes)
{
    return 1;
}

TEST(cancelled_it_leaves_nothing)
{
    struct snapshot_options options = {.progress = cancel};
    struct vm *vm = make(512);

    (void)snprintf(path, sizeof(path), "/tmp/snapshot_test.%d", (int)getpid());
    (void)atexit(remove_file);
    int rc = snapshot_save(vm, path, &options, NULL, &err);
    EXPECT_TRUE(rc == -ECANCELED || rc == 0); /* it may have been quicker */
    EXPECT_EQ(access(path, F_OK) == 0, rc == 0);
    vm_free(vm);
}
