/* The tree of layers and snapshots: its text both ways, refusals, and random lives of an instance
 * against a model in which every layer's content is known. */
#include "base/fd.h"
#include "base/test.h"
#include "store/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

static struct error err;

#define ID_A      "00000000000000aa"
#define ID_B      "00000000000000bb"
#define ID_C      "00000000000000cc"
#define LAYER_A   "{\"id\":\"" ID_A "\",\"over\":{\"image\":\"/images/x\",\"format\":\"raw\"}}"
#define LAYER_B   "{\"id\":\"" ID_B "\",\"over\":{\"layer\":\"" ID_A "\"}}"
#define CURRENT_B "\"current\":{\"disks\":{\"root\":\"" ID_B "\"}}"

static struct tree *parse(const char *text)
{
    struct tree *t = NULL;

    err = (struct error){0};
    if (tree_parse(text, strlen(text), &t, &err))
        test_fail(__FILE__, __LINE__, "%s", err.text);
    ASSERT_TRUE(t);
    return t;
}

static void refuse(const char *text, int code, const char *says)
{
    struct tree *t = NULL;

    err = (struct error){0};
    EXPECT_EQ(tree_parse(text, strlen(text), &t, &err), -code);
    EXPECT_TRUE(!t);
    if (!strstr(err.text, says))
        test_fail(__FILE__, __LINE__, "'%s' does not say '%s'", err.text, says);
}

TEST(text_goes_both_ways)
{
    char *text = NULL;
    char *again = NULL;
    size_t size;
    struct tree *t = parse(
        "{\"version\":1,\"layers\":[" LAYER_A "," LAYER_B ",{\"id\":\"" ID_C
        "\",\"over\":{\"instance\":\"web\",\"layer\":\"" ID_A "\"}}],\"snapshots\":[{\"id\":\"" ID_C
        "\",\"name\":\"one\",\"description\":\"f\\u00fcr\",\"time\":17,\"disks\":{\"root\":\"" ID_A
        "\"},\"state\":\"" ID_B "\",\"config\":\"cpus: 1\\n\"}],\"current\":{\"parent\":\"" ID_C
        "\",\"disks\":{\"root\":\"" ID_B "\",\"data\":\"" ID_C "\"}}}");

    EXPECT_EQ(t->layer_count, 3);
    EXPECT_STR(t->layers[0].over.path, "/images/x");
    EXPECT_STR(t->layers[2].over.instance, "web");
    EXPECT_STR(tree_find_named(t, "one")->point.config, "cpus: 1\n");
    EXPECT_EQ(tree_find_named(t, "one")->time_s, 17);
    EXPECT_TRUE(tree_find_named(t, ID_C) == t->snapshots);
    EXPECT_STR(tree_find_disk(&t->current, "data")->layer, ID_C);
    EXPECT_EQ(tree_depth(t, ID_B), 2);
    ASSERT_EQ(tree_format(t, &text, &size, &err), 0);
    struct tree *copy = parse(text);
    ASSERT_EQ(tree_format(copy, &again, &size, &err), 0);
    EXPECT_STR(again, text);
    free(text);
    free(again);
    tree_free(t);
    tree_free(copy);
}

TEST(what_is_not_whole_is_refused)
{
    refuse("", EINVAL, "line 1");
    refuse("[]", EINVAL, "not an object");
    refuse("{\"version\":2}", ENOTSUP, "newer");
    refuse("{\"version\":\"1\"}", EINVAL, "version");
    refuse("{\"version\":1,\"layers\":[],\"snapshots\":[],\"current\":{},\"more\":1}", EINVAL,
           "unknown");
    refuse("{\"version\":1,\"version\":1}", EINVAL, "duplicate");
    refuse("{\"version\":1,\"layers\":[" LAYER_B "],\"snapshots\":[]," CURRENT_B "}", EINVAL,
           "does not exist");
    refuse("{\"version\":1,\"layers\":[" LAYER_A "," LAYER_A "],\"snapshots\":[],\"current\":{}}",
           EINVAL, "twice");
    refuse("{\"version\":1,\"layers\":[{\"id\":\"" ID_A "\",\"over\":{\"layer\":\"" ID_B
           "\"}}," LAYER_B "],\"snapshots\":[],\"current\":{}}",
           EINVAL, "circle");
    refuse(
        "{\"version\":1,\"layers\":[{\"id\":\"../../etc/passwd\"}],\"snapshots\":[],\"current\":{}}",
        EINVAL, "hexadecimal");
    refuse("{\"version\":1,\"layers\":[{\"id\":\"" ID_A
           "\",\"over\":{\"image\":\"x\",\"format\":\"raw\"}}],\"snapshots\":[],\"current\":{}}",
           EINVAL, "neither");
    refuse("{\"version\":1,\"layers\":[{\"id\":\"" ID_A
           "\",\"over\":{\"instance\":\"../x\",\"layer\":\"" ID_B
           "\"}}],\"snapshots\":[],\"current\":{}}",
           EINVAL, "name");
    refuse("{\"version\":1,\"layers\":[" LAYER_A "," LAYER_B
           "],\"snapshots\":[],\"current\":{\"disks\":{\"root\":\"" ID_A "\"}}}",
           EINVAL, "written to");
    refuse("{\"version\":1,\"layers\":[" LAYER_A "," LAYER_B "],\"snapshots\":[{\"id\":\"" ID_C
           "\",\"name\":\"s\",\"time\":1,\"disks\":{\"root\":\"" ID_B "\"}}]," CURRENT_B "}",
           EINVAL, "belongs to snapshot");
    refuse("{\"version\":1,\"layers\":[],\"snapshots\":[{\"id\":\"" ID_C "\",\"parent\":\"" ID_C
           "\",\"name\":\"s\",\"time\":1}],\"current\":{}}",
           EINVAL, "circle");
    refuse("{\"version\":1,\"layers\":[],\"snapshots\":[],\"current\":{\"config\":\"a\\u0000b\"}}",
           EINVAL, "");
}

/* --- Random lives --- */

#define CELLS      6
#define MODEL_MAX  512
#define GENERATION 0 /* of a cell that reads as the image */

/** What the layers hold: a number for each cell, or -1. */
struct model {
    struct {
        char id[TREE_ID_BYTES];
        int cells[CELLS];
    } layers[MODEL_MAX];
    size_t count;
    struct {
        char id[TREE_ID_BYTES];
        int cells[2][CELLS];
    } snapshots[TREE_SNAPSHOTS_MAX];
    size_t snapshot_count;
    int next;
};

static int *cells_of(struct model *m, const char *id)
{
    for (size_t i = 0; i < m->count; i++) {
        if (!strcmp(m->layers[i].id, id))
            return m->layers[i].cells;
    }
    ASSERT_TRUE(m->count < MODEL_MAX);
    memcpy(m->layers[m->count].id, id, TREE_ID_BYTES);
    for (size_t i = 0; i < CELLS; i++)
        m->layers[m->count].cells[i] = -1;
    return m->layers[m->count++].cells;
}

static int read_cell(struct model *m, const struct tree *t, const char *id, size_t cell)
{
    for (const struct tree_layer *l = tree_find_layer(t, id); l;
         l = l->over.kind == TREE_OVER_LAYER ? tree_find_layer(t, l->over.id) : NULL) {
        int value = cells_of(m, l->id)[cell];

        if (value >= 0)
            return value;
    }
    return GENERATION;
}

static void read_point(struct model *m, const struct tree *t, const struct tree_point *p,
                       int ret[2][CELLS])
{
    for (size_t d = 0; d < 2; d++) {
        for (size_t c = 0; c < CELLS; c++)
            ret[d][c] = read_cell(m, t, p->disks[d].layer, c);
    }
}

/** Every snapshot reads as when it was made. */
static void check_snapshots(struct model *m, const struct tree *t)
{
    int now[2][CELLS];

    for (size_t i = 0; i < t->snapshot_count; i++) {
        for (size_t k = 0; k < m->snapshot_count; k++) {
            if (strcmp(m->snapshots[k].id, t->snapshots[i].id) != 0)
                continue;
            read_point(m, t, &t->snapshots[i].point, now);
            EXPECT_MEM(now, m->snapshots[k].cells, sizeof(now));
        }
    }
}

/** One step of cleaning up, as a command would do it. False: nothing is left to do. */
static bool step(struct model *m, struct tree *t, const struct tree_needs *needs)
{
    struct tree_step s;

    tree_next_step(t, needs, &s);
    if (s.kind == TREE_DONE)
        return false;
    EXPECT_TRUE(!tree_is_named(t, s.layer));
    EXPECT_TRUE(!tree_needed_by(t, needs, s.layer));
    if (s.kind == TREE_MERGE) {
        const int *from = cells_of(m, s.layer);
        int *to = cells_of(m, s.child);

        for (size_t c = 0; c < CELLS; c++)
            to[c] = to[c] < 0 ? from[c] : to[c];
    }
    EXPECT_EQ(tree_drop_layer(t, s.layer), 0);
    return true;
}

static void take(struct model *m, struct tree *t, unsigned number)
{
    struct tree_snapshot *s = NULL;
    char name[32];

    (void)snprintf(name, sizeof(name), "s%u", number);
    ASSERT_EQ(tree_take(t, name, "cpus: 1\n", NULL, &s, &err), 0);
    s = tree_find_named(t, name);
    memcpy(m->snapshots[m->snapshot_count].id, s->id, TREE_ID_BYTES);
    read_point(m, t, &s->point, m->snapshots[m->snapshot_count++].cells);
}

static void write_cells(struct model *m, const struct tree *t, unsigned *seed)
{
    for (size_t d = 0; d < 2; d++)
        cells_of(m, t->current.disks[d].layer)[(unsigned)rand_r(seed) % CELLS] = ++m->next;
}

static void check_clean(struct tree *t, const struct tree_needs *needs)
{
    size_t kept = 0;

    for (size_t i = 0; i < t->layer_count; i++) {
        const struct tree_layer *l = &t->layers[i];

        kept += !tree_is_named(t, l->id) && tree_children(t, l->id, NULL) <= 1;
    }
    if (!needs->count) {
        EXPECT_EQ(kept, 0);
        EXPECT_EQ(tree_unwanted(t, needs), 0);
    }
}

static void live(unsigned seed)
{
    struct model *m = calloc(1, sizeof(*m));
    struct tree_needs needs = {0};
    int now[2][CELLS];
    int before[2][CELLS];
    struct tree *t = parse("{\"version\":1,\"layers\":[" LAYER_A "," LAYER_B
                           "],\"snapshots\":[],\"current\":{\"disks\":{\"root\":\"" ID_B "\"}}}");

    ASSERT_TRUE(m);
    struct tree_layer *l = tree_add_layer(t, ID_C, &(struct tree_over){0}, &err);
    ASSERT_TRUE(l);
    t->current.disks[t->current.disk_count++] = (struct tree_disk){.name = "data", .layer = ID_C};
    for (unsigned i = 0; i < 60; i++) {
        size_t pick = t->snapshot_count ? (size_t)rand_r(&seed) % t->snapshot_count : 0;

        write_cells(m, t, &seed);
        read_point(m, t, &t->current, before);
        switch (rand_r(&seed) % 5) {
        case 0:
        case 1:
            take(m, t, i);
            break;
        case 2:
            if (t->snapshot_count &&
                !tree_needed_by(t, &needs, t->snapshots[pick].point.disks[0].layer))
                tree_remove_snapshot(t, t->snapshots[pick].id);
            break;
        case 3:
            if (!t->snapshot_count)
                break;
            ASSERT_EQ(tree_restore(t, t->snapshots[pick].id, &err), 0);
            EXPECT_STR(t->parent, t->snapshots[pick].id);
            read_point(m, t, &t->snapshots[pick].point, before);
            break;
        default: /* somebody makes a linked clone of a snapshot */
            if (t->snapshot_count && seed % 3 == 0) {
                struct tree other = {0};
                struct tree_over over = {.kind = TREE_OVER_INSTANCE, .instance = (char *)"me"};

                memcpy(over.id, t->snapshots[pick].point.disks[0].layer, TREE_ID_BYTES);
                ASSERT_TRUE(tree_add_layer(&other, ID_A, &over, &err));
                ASSERT_EQ(tree_needs_add(&needs, "me", "clone", &other), 0);
                ASSERT_EQ(tree_needs_add(&needs, "other", "clone", &other), 0);
                tree_over_done(&other.layers[0].over);
                free(other.layers);
            }
        }
        for (int k = rand_r(&seed) % 4; k && step(m, t, &needs); k--)
            ;
        EXPECT_EQ(tree_check(t, &err), 0);
        check_snapshots(m, t);
        read_point(m, t, &t->current, now);
        EXPECT_MEM(now, before, sizeof(now));
    }
    while (step(m, t, &needs))
        ;
    check_snapshots(m, t);
    check_clean(t, &needs);
    tree_needs_done(&needs); /* the clones are gone: all can go */
    while (step(m, t, &needs))
        check_snapshots(m, t);
    check_clean(t, &needs);
    tree_free(t);
    free(m);
}

TEST(random_lives)
{
    for (unsigned seed = 1; seed <= 200; seed++)
        live(seed);
}

TEST(what_clones_need_is_left_alone)
{
    struct tree_needs needs = {0};
    struct tree_snapshot *s = NULL;
    struct tree_step next;
    char base[TREE_ID_BYTES];
    struct tree *t = parse("{\"version\":1,\"layers\":[" LAYER_A "," LAYER_B
                           "],\"snapshots\":[]," CURRENT_B "}");
    struct tree *clone = tree_new();
    struct tree_over over = {.kind = TREE_OVER_INSTANCE, .instance = (char *)"web"};

    ASSERT_EQ(tree_take(t, "one", "", NULL, &s, &err), 0);
    memcpy(over.id, s->point.disks[0].layer, TREE_ID_BYTES);
    memcpy(base, s->id, TREE_ID_BYTES);
    EXPECT_EQ(tree_take(t, "one", "", NULL, &s, &err), -EEXIST);
    EXPECT_EQ(tree_take(t, "a/b", "", NULL, &s, &err), -EINVAL);
    ASSERT_TRUE(clone && tree_add_layer(clone, ID_C, &over, &err));
    ASSERT_EQ(tree_needs_add(&needs, "web", "copy", clone), 0);
    EXPECT_STR(tree_needed_by(t, &needs, ID_B), "copy");
    EXPECT_STR(tree_needed_by(t, &needs, ID_A), "copy"); /* it is below */
    EXPECT_TRUE(!tree_needed_by(t, &needs, t->current.disks[0].layer));
    tree_remove_snapshot(t, base);
    tree_next_step(t, &needs, &next); /* A could go into B, if the clone had not B open */
    EXPECT_EQ(next.kind, TREE_DONE);
    EXPECT_EQ(tree_unwanted(t, &needs), 1);
    tree_needs_done(&needs);
    tree_next_step(t, &needs, &next);
    EXPECT_EQ(next.kind, TREE_MERGE);
    EXPECT_STR(next.layer, ID_B); /* the highest first */
    EXPECT_STR(next.child, t->current.disks[0].layer);
    tree_free(clone);
    tree_free(t);
}

TEST(too_many)
{
    struct tree *t = parse("{\"version\":1,\"layers\":[" LAYER_A "," LAYER_B
                           "],\"snapshots\":[]," CURRENT_B "}");
    struct tree_snapshot *s = NULL;
    char name[32];
    int rc = 0;
    int n = 0;

    err = (struct error){0};
    for (; !rc && n < 1000; n++) {
        (void)snprintf(name, sizeof(name), "s%d", n);
        rc = tree_take(t, name, "", NULL, &s, &err);
    }
    EXPECT_EQ(rc, -E2BIG);
    EXPECT_EQ(n, TREE_DEPTH_MAX - 1);
    tree_free(t);
}

/* --- Files --- */

static char folder[64];

static int make_folder(void)
{
    (void)snprintf(folder, sizeof(folder), "/tmp/tree_test-XXXXXX");
    ASSERT_TRUE(mkdtemp(folder) != NULL);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ASSERT_TRUE(fd >= 0);
    return fd;
}

static void touch(int dir, const char *path)
{
    int fd = openat(dir, path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

    ASSERT_TRUE(fd >= 0);
    fd_close(fd);
}

TEST(files)
{
    cleanup(fd_closep) int dir = make_folder();
    struct tree *t = parse("{\"version\":1,\"layers\":[" LAYER_A "," LAYER_B
                           "],\"snapshots\":[],\"current\":{\"disks\":{\"root\":\"" ID_B
                           "\"},\"state\":\"" ID_C "\"}}");
    struct tree *got = NULL;
    unsigned removed = 0;

    err = (struct error){0};
    EXPECT_EQ(tree_load(dir, &got, &err), -ENOENT);
    ASSERT_EQ(tree_store(dir, t, &err), 0);
    EXPECT_EQ(tree_prepare(dir, t, &err), 0);
    tree_abandon(dir);
    EXPECT_TRUE(faccessat(dir, "tree.json.new", F_OK, 0) != 0);
    EXPECT_EQ(tree_sweep(dir, t, &removed, &err), 0); /* no folders yet */
    ASSERT_TRUE(!mkdirat(dir, "disks", 0700) && !mkdirat(dir, "states", 0700));
    touch(dir, "disks/" ID_A ".qcow2");
    touch(dir, "disks/" ID_B ".qcow2");
    touch(dir, "disks/" ID_C ".qcow2");
    touch(dir, "disks/" ID_A ".state");
    touch(dir, "disks/x");
    touch(dir, "states/" ID_C ".state");
    touch(dir, "states/" ID_C ".state.part");
    touch(dir, "states/" ID_B ".state");
    ASSERT_EQ(tree_load(dir, &got, &err), 0);
    EXPECT_EQ(tree_sweep(dir, got, &removed, &err), 0);
    EXPECT_EQ(removed, 5);
    EXPECT_EQ(tree_sweep(dir, got, &removed, &err), 0);
    EXPECT_EQ(removed, 0);
    touch(dir, "tree.json.new");
    int fd = openat(dir, "tree.json", O_WRONLY | O_TRUNC | O_CLOEXEC);
    ASSERT_TRUE(fd >= 0);
    fd_close(fd);
    struct tree *none = NULL;
    err = (struct error){0};
    EXPECT_EQ(tree_load(dir, &none, &err), -EINVAL);
    EXPECT_TRUE(strstr(err.text, "tree.json") != NULL);
    tree_free(t);
    tree_free(got);
    char command[128];
    (void)snprintf(command, sizeof(command), "rm -r %s", folder);
    EXPECT_EQ(system(command), 0);
}
