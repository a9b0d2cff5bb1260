/* Tests of the store: creation, locks, removal, rests of killed commands. */
#include "base/fd.h"
#include "base/paths.h"
#include "base/test.h"
#include "disk/disk.h"
#include "store/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

static char home[64];

/** A folder of its own for this test's process. */
static void begin(void)
{
    strcpy(home, "/tmp/posada-store-XXXXXX");
    ASSERT_TRUE(mkdtemp(home));
    ASSERT_EQ(setenv("XDG_DATA_HOME", home, 1), 0);
    ASSERT_EQ(setenv("XDG_RUNTIME_DIR", home, 1), 0);
}

static void end(void)
{
    EXPECT_EQ(paths_remove(home), 0);
}

static char *in_home(const char *name)
{
    return paths_format(NULL, "%s/%s", home, name);
}

static int count_entries(const char *dir)
{
    cleanup(freep) char *path = in_home(dir);
    DIR *d = opendir(path);
    int n = 0;

    for (struct dirent *e; d && (e = readdir(d));)
        n += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
    if (d)
        closedir(d);
    return n;
}

/** An instance with a kernel, and with a disk of 1 MiB if @with_disk. */
static struct instance *create(const char *name, bool with_disk)
{
    cleanup(freep) char *kernel = in_home("kernel");
    cleanup(freep) char *disk = in_home("disk.raw");
    struct error err = {0};
    struct instance *in;
    struct instance_config c;
    struct instance_sources from = {.kernel = kernel, .disk = with_disk ? disk : NULL};

    if (access(kernel, F_OK)) {
        ASSERT_EQ(paths_write(kernel, "kernel", 6, &err), 0);
        cleanup(fd_closep) int fd = open(disk, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        ASSERT_EQ(fd_pwrite_all(fd, "disk", 4, 0), 0);
        ASSERT_EQ(ftruncate(fd, 1 << 20), 0);
    }
    ASSERT_EQ(instance_open(name, INSTANCE_CHANGE | INSTANCE_NEW, &in, &err), 0);
    ASSERT_EQ(config_init(&c, &err), 0);
    int r = instance_create(in, &c, &from, &err);
    config_done(&c);
    ASSERT_EQ(r, 0);
    return in;
}

static void expect_list(const char *want)
{
    char got[256] = "";
    struct error err = {0};
    char **names;
    size_t n;

    ASSERT_EQ(store_list(&names, &n, &err), 0);
    for (size_t i = 0; i < n; i++) {
        strcat(strcat(got, i ? " " : ""), names[i]);
        free(names[i]);
    }
    free(names);
    EXPECT_STR(got, want);
}

TEST(an_instance_is_created_listed_and_removed)
{
    begin();
    struct error err = {0};
    struct instance *in = create("web", true);
    struct instance_config c;

    expect_list("web");
    ASSERT_EQ(instance_config(in, &c, &err), 0);
    EXPECT_STR(c.kernel, "kernel");
    EXPECT_EQ(strlen(c.uuid), 36u);
    EXPECT_EQ(strlen(c.mac), 17u);
    config_done(&c);
    cleanup(freep) char *top = instance_top(in, "root", &err);
    ASSERT_TRUE(top);
    const struct disk_options options = {.format = "qcow2", .refs = DISK_REFS_ANY};
    struct disk *d;
    char data[5] = "";
    ASSERT_EQ(disk_open(top, &options, &d, &err), 0);
    EXPECT_EQ(d->size_bytes, 1u << 20);
    EXPECT_EQ(disk_pread(d, data, 4, 0), 0);
    EXPECT_STR(data, "disk");
    disk_close(d);
    EXPECT_EQ(instance_remove(in, &err), 0);
    instance_close(in);
    expect_list("");
    EXPECT_EQ(count_entries("posada/instances"), 0);
    EXPECT_EQ(count_entries("posada/bases"), 1); /* .lock */
    end();
}

TEST(the_image_may_go_and_instances_share_its_disk)
{
    begin();
    struct error err = {0};
    struct instance *a = create("a", true);
    struct instance *b = create("b", true);

    EXPECT_EQ(count_entries("posada/bases"), 2); /* .lock and one base */
    cleanup(freep) char *disk = in_home("disk.raw");
    ASSERT_EQ(unlink(disk), 0);
    EXPECT_EQ(instance_remove(a, &err), 0);
    EXPECT_EQ(count_entries("posada/bases"), 2);
    EXPECT_EQ(instance_remove(b, &err), 0);
    EXPECT_EQ(count_entries("posada/bases"), 1);
    instance_close(a);
    instance_close(b);
    end();
}

TEST(names_are_checked)
{
    static const char *const bad[] = {
        "",    "a/b",      "..",
        ".a",  "a.",       "-a",
        "a b", "\xc3\xa9", "0123456789012345678901234567890123456789012345678901234567890123"};

    begin();
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct error err = {0};
        struct instance *in;
        EXPECT_EQ(instance_open(bad[i], INSTANCE_CHANGE | INSTANCE_NEW, &in, &err), -EINVAL);
    }
    EXPECT_TRUE(instance_name_is_valid("a-1.b"));
    end();
}

TEST(one_that_is_not_there_leaves_no_lock)
{
    begin();
    struct error err = {0};
    struct instance *in;

    EXPECT_EQ(instance_open("nosuch", INSTANCE_CHANGE, &in, &err), -ENOENT);
    EXPECT_EQ(count_entries("posada/instances"), 0);
    ASSERT_EQ(instance_open("new", INSTANCE_CHANGE | INSTANCE_NEW, &in, &err), 0);
    EXPECT_TRUE(!in->exists);
    instance_close(in);
    EXPECT_EQ(count_entries("posada/instances"), 0);
    end();
}

TEST(a_second_command_waits_or_is_told_who)
{
    begin();
    struct error err = {0};
    struct instance *in = create("a", false);
    struct instance *other;
    char me[64];

    EXPECT_EQ(instance_open("a", INSTANCE_CHANGE | INSTANCE_NO_WAIT, &other, &err), -EBUSY);
    (void)snprintf(me, sizeof(me), "process %d ", (int)getpid());
    EXPECT_TRUE(strstr(err.text, me) != NULL);
    pid_t pid = fork();
    if (!pid) {
        struct error why = {0};
        fd_close(in->lock_fd); /* else the lock would be ours as well */
        _exit(instance_open("a", INSTANCE_CHANGE, &other, &why) ? 1 : 0);
    }
    (void)usleep(100000);
    EXPECT_EQ(waitpid(pid, NULL, WNOHANG), 0);
    instance_close(in);
    int status;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_EQ(status, 0);
    end();
}

TEST(who_runs_holds_the_run_lock)
{
    begin();
    struct error err = {0};
    struct instance *in = create("a", false);
    struct instance *other;

    EXPECT_TRUE(!instance_is_running(in));
    ASSERT_EQ(instance_take_run(in, &err), 0);
    instance_unlock(in);
    ASSERT_EQ(instance_open("a", INSTANCE_CHANGE, &other, &err), 0);
    EXPECT_TRUE(instance_is_running(other));
    EXPECT_EQ(instance_take_run(other, &err), -EBUSY);
    instance_close(in);
    EXPECT_TRUE(!instance_is_running(other));
    instance_close(other);
    end();
}

static void *look_all_the_time(void *arg)
{
    const bool *stop = arg;
    struct instance *in;

    ASSERT_EQ(instance_open("one", 0, &in, NULL), 0);
    while (!__atomic_load_n(stop, __ATOMIC_RELAXED))
        (void)instance_is_running(in);
    instance_close(in);
    return NULL;
}

TEST(who_looks_is_in_nobodys_way)
{
    pthread_t looker;
    bool stop = false;

    begin();
    instance_close(create("one", false));
    ASSERT_EQ(pthread_create(&looker, NULL, look_all_the_time, &stop), 0);
    for (int i = 0; i < 300; i++) {
        struct error err = {0};
        struct instance *in;

        ASSERT_EQ(instance_open("one", 0, &in, NULL), 0);
        EXPECT_EQ(instance_take_run(in, &err), 0);
        instance_close(in);
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    ASSERT_EQ(pthread_join(looker, NULL), 0);
    end();
}

TEST(rests_of_killed_commands_are_swept)
{
    static const char *const rests[] = {"posada/instances/.a.new/disks",
                                        "posada/instances/.b.gone"};

    begin();
    struct error err = {0};
    instance_close(create("a", false));
    for (size_t i = 0; i < ARRAY_SIZE(rests); i++) {
        cleanup(freep) char *path = in_home(rests[i]);
        ASSERT_EQ(paths_make(path, &err), 0);
    }
    static const char *const locks[] = {"posada/instances/.c.lock", "posada/instances/.c.run",
                                        "posada/instances/.d.e.lock"};
    for (size_t i = 0; i < ARRAY_SIZE(locks); i++) {
        cleanup(freep) char *lock = in_home(locks[i]);
        ASSERT_EQ(paths_write(lock, "", 0, &err), 0);
    }
    cleanup(freep) char *part = in_home("posada/instances/a/instance.yaml.12.part");
    ASSERT_EQ(paths_write(part, "x", 1, &err), 0);
    expect_list("a");
    EXPECT_TRUE(access(part, F_OK) != 0);
    EXPECT_EQ(count_entries("posada/instances"), 2); /* a, .a.lock */
    end();
}

TEST(a_layer_whose_file_took_its_childs_name_is_forgotten)
{
    struct error err = {0};
    struct tree *t;
    char lower[TREE_PATH_BYTES], upper[TREE_PATH_BYTES];

    begin();
    struct instance *in = create("a", true);
    ASSERT_EQ(instance_tree(in, &t, &err), 0);
    tree_layer_path(lower, t->layers[0].id);
    ASSERT_EQ(tree_push_tops(t, &err), 0);
    tree_layer_path(upper, t->layers[1].id);
    int dir = open(in->dir, O_RDONLY | O_DIRECTORY);
    ASSERT_EQ(renameat(dir, lower, dir, upper), 0);
    ASSERT_EQ(tree_store(dir, t, &err), 0);
    tree_free(t);
    close(dir);
    instance_close(in);
    ASSERT_EQ(instance_open("a", INSTANCE_CHANGE, &in, &err), 0);
    ASSERT_EQ(instance_tree(in, &t, &err), 0);
    EXPECT_EQ(t->layer_count, 1);
    EXPECT_EQ(t->layers[0].over.kind, TREE_OVER_IMAGE);
    tree_layer_path(lower, t->layers[0].id);
    EXPECT_STR(lower, upper);
    tree_free(t);
    instance_close(in);
    end();
}

TEST(rename_moves_and_refuses_a_name_in_use)
{
    begin();
    struct error err = {0};
    struct instance *in = create("a", true);
    instance_close(create("b", false));

    EXPECT_EQ(instance_rename(in, "b", &err), -EEXIST);
    ASSERT_EQ(instance_rename(in, "c", &err), 0);
    instance_close(in);
    expect_list("b c");
    end();
}

TEST(an_old_layout_is_refused_with_a_sentence)
{
    begin();
    struct error err = {0};
    struct instance *in;
    cleanup(freep) char *dir = in_home("posada/instances/old");
    cleanup(freep) char *image = in_home("posada/instances/old/image");

    ASSERT_EQ(paths_make(dir, &err), 0);
    ASSERT_EQ(paths_write(image, "debian", 6, &err), 0);
    EXPECT_EQ(instance_open("old", INSTANCE_CHANGE, &in, &err), -ENOTSUP);
    EXPECT_TRUE(strstr(err.text, "/old/disk") != NULL);
    end();
}
