/* An instance's disk layers and snapshots: the content of its tree.json, and what follows from it.
 * docs/design/instances.md has the rules.
 *
 * A struct tree is plain data that its owner changes freely and then commits: the file is replaced
 * as a whole, and what it does not name any more is removed after (tree_sweep()). Who changes the
 * file holds the instance's lock; anybody may load it at any time. */
#ifndef STORE_TREE_H
#define STORE_TREE_H

#include "base/error.h"
#include "base/macros.h"

#define TREE_FILE          "tree.json" /* in the instance's folder */
#define TREE_ID_BYTES      17          /* 16 hexadecimal digits and a NUL */
#define TREE_NAME_BYTES    64          /* of a snapshot or a disk, with a NUL */
#define TREE_TEXT_BYTES    4096        /* of a description or a path, with a NUL */
#define TREE_CONFIG_BYTES  65536       /* of a configuration, with a NUL */
#define TREE_FILE_BYTES    (8u << 20)
#define TREE_DISKS_MAX     8
#define TREE_LAYERS_MAX    4096
#define TREE_SNAPSHOTS_MAX 1024
#define TREE_DEPTH_MAX     250 /* upon each other; below DISK_MAX_DEPTH */

enum tree_over_kind {
    TREE_OVER_NOTHING,
    TREE_OVER_LAYER,    /* `id`, of this instance */
    TREE_OVER_INSTANCE, /* layer `id` of instance `instance` */
    TREE_OVER_IMAGE,    /* the file `path` of format `format` */
};

/** What a layer lies on. */
struct tree_over {
    enum tree_over_kind kind;
    char id[TREE_ID_BYTES];
    char *instance; /* heap; NULL unless TREE_OVER_INSTANCE */
    char *path;     /* heap; NULL unless TREE_OVER_IMAGE; absolute */
    char *format;   /* heap; likewise */
};

/** A layer: the file disks/ID.qcow2. */
struct tree_layer {
    char id[TREE_ID_BYTES];
    struct tree_over over;
};

struct tree_disk {
    char name[TREE_NAME_BYTES]; /* "root", or as the configuration calls it */
    char layer[TREE_ID_BYTES];
};

/** What a machine is at one point: of a snapshot, or now. */
struct tree_point {
    struct tree_disk disks[TREE_DISKS_MAX];
    size_t disk_count;
    char state[TREE_ID_BYTES]; /* the file states/ID.state; "" = none: it is not running */
    char *config; /* heap. Of a snapshot: the text of instance.yaml then. Of the current
                     point: what instance.yaml is yet to become, by a restore that was
                     interrupted; NULL = nothing */
};

struct tree_snapshot {
    char id[TREE_ID_BYTES];
    char parent[TREE_ID_BYTES]; /* snapshot; "" = none */
    char name[TREE_NAME_BYTES];
    char *description; /* heap; NULL = none */
    int64_t time_s;    /* since 1970 */
    bool is_pending;   /* its state is still being written: if nobody does, it is to be dropped */
    struct tree_point point;
};

struct tree {
    struct tree_layer *layers; /* heap */
    size_t layer_count;
    struct tree_snapshot *snapshots; /* heap; in the order in which they were made */
    size_t snapshot_count;
    char parent[TREE_ID_BYTES]; /* the snapshot that the machine goes on from; "" = none */
    struct tree_point current;  /* each disk's layer is its top, which the machine writes to */
};

/* tree.c: the model */

/** An empty tree, the caller's; NULL: out of memory. */
struct tree *tree_new(void);
/** Takes NULL. */
void tree_free(struct tree *t);

/** A random identifier. -EIO: no randomness. */
must_check int tree_new_id(char ret[TREE_ID_BYTES], struct error *err);

bool tree_is_id(const char *text);
/** 1 to 63 of letters, digits, '-', '_' and '.'; the first a letter or digit. */
bool tree_name_is_valid(const char *name);

/** NULL = none. */
struct tree_layer *tree_find_layer(const struct tree *t, const char *id);
struct tree_snapshot *tree_find_snapshot(const struct tree *t, const char *id);
/** By name, or by identifier. */
struct tree_snapshot *tree_find_named(const struct tree *t, const char *name);
struct tree_disk *tree_find_disk(const struct tree_point *p, const char *name);

/** Add a layer over @over, whose texts are copied. The result lives until the tree changes. NULL:
 * too many, or out of memory; @err says. */
struct tree_layer *tree_add_layer(struct tree *t, const char *id, const struct tree_over *over,
                                  struct error *err);
/** Add an empty snapshot; likewise. */
struct tree_snapshot *tree_add_snapshot(struct tree *t, const char *id, struct error *err);
void tree_remove_layer(struct tree *t, const char *id);
/** Its children become its parent's. Its layers stay; see tree_next_step(). */
void tree_remove_snapshot(struct tree *t, const char *id);

/** Copy @from into @to, releasing what @to had. -ENOMEM. */
must_check int tree_over_copy(struct tree_over *to, const struct tree_over *from);
void tree_over_done(struct tree_over *o);
/** Replace a text on the heap by a copy of @text (NULL = none). -ENOMEM. */
must_check int tree_set_text(char **to, const char *text);

/** Layers from @id down, within this instance. */
unsigned tree_depth(const struct tree *t, const char *id);

/* tree_json.c: the text */

/** From the @size bytes of a file's content, which is hostile. On success *@ret is the caller's.
 * -EINVAL with a sentence about what is wrong; -ENOTSUP: of a newer Posada. */
must_check int tree_parse(const char *text, size_t size, struct tree **ret, struct error *err);

/** Is it whole: no cycles, everything named exists, nothing that is written to is shared? What
 * tree_parse() returns is, and tree_format() asserts nothing less. -EINVAL with a sentence. */
must_check int tree_check(const struct tree *t, struct error *err);

/** *@ret is heap text. -EINVAL if the tree is not whole: it is not written then. */
must_check int tree_format(const struct tree *t, char **ret, size_t *ret_size, struct error *err);

/** A deep copy. */
must_check int tree_clone(const struct tree *t, struct tree **ret, struct error *err);

/* tree_plan.c: what follows */

/** Who, apart from the instance itself, needs its layers: one entry for each layer of another
 * instance that lies directly on one of its own. */
struct tree_need {
    char layer[TREE_ID_BYTES];
    char *instance; /* heap: the other's name */
};

struct tree_needs {
    struct tree_need *items; /* heap */
    size_t count;
};

/** Add what @other, instance @other_name, needs of instance @name. -ENOMEM. */
must_check int tree_needs_add(struct tree_needs *needs, const char *name, const char *other_name,
                              const struct tree *other);
void tree_needs_done(struct tree_needs *needs);

/** An instance that needs layer @id or one above it; NULL = none. Borrowed from @needs. */
const char *tree_needed_by(const struct tree *t, const struct tree_needs *needs, const char *id);

/** Does a snapshot name it, or is it a top that the machine writes to? */
bool tree_is_named(const struct tree *t, const char *id);
/** How many layers of this instance lie on it; *@ret (may be NULL) is the last of them. */
size_t tree_children(const struct tree *t, const char *id, const struct tree_layer **ret);

enum tree_step_kind {
    TREE_DONE,   /* every layer is wanted, or cannot go yet */
    TREE_REMOVE, /* `layer` has no child, and nobody names it: take it from the tree, then remove
                    its file */
    TREE_MERGE,  /* copy what `child` lacks from `layer`, put it on what `layer` lies on, then as
                    above */
};

struct tree_step {
    enum tree_step_kind kind;
    char layer[TREE_ID_BYTES];
    char child[TREE_ID_BYTES];
};

/** What is to be done first about layers that are not wanted any more. A layer is left alone while
 * another instance needs it or any layer above it: a running clone has those open. */
void tree_next_step(const struct tree *t, const struct tree_needs *needs, struct tree_step *ret);

/** Layers that only wait to go: `list` and `info` say how many. */
size_t tree_unwanted(const struct tree *t, const struct tree_needs *needs);

/* tree_change.c: what the commands do to a tree. On failure it is half changed: throw it away. */

/** Give each disk of the current point a new top over what it has, with a new identifier; what it
 * had stays for who names it. */
must_check int tree_push_tops(struct tree *t, struct error *err);

/** Add snapshot @name of the current point, which goes on from it with new tops. @config is the
 * text of instance.yaml, @state the identifier of its state (NULL = none); the rest is the caller's
 * to fill in.
 * *@ret lives until the tree changes. -EEXIST, -EINVAL (the name), -E2BIG. */
must_check int tree_take(struct tree *t, const char *name, const char *config, const char *state,
                         struct tree_snapshot **ret, struct error *err);

/** Make the current point that of snapshot @id: new tops over its layers, its configuration, its
 * state. -ENOENT. */
must_check int tree_restore(struct tree *t, const char *id, struct error *err);

/** Layer @id is merged into its only child, or has none: it goes. -ENOMEM. */
must_check int tree_drop_layer(struct tree *t, const char *id);

/* tree_file.c: the file, and the files that it names */

/** Load @dir_fd's tree.json. -ENOENT: there is none. Errors begin with the path below the folder.
 */
must_check int tree_load(int dir_fd, struct tree **ret, struct error *err);

/** Write and flush the new content beside the old one. Then tree_commit() puts it in its place,
 * which is the moment of the change and survives a power cut when it returns; or tree_abandon().
 * The instance's lock is held. */
must_check int tree_prepare(int dir_fd, const struct tree *t, struct error *err);
must_check int tree_commit(int dir_fd, struct error *err);
void tree_abandon(int dir_fd);
/** Both. */
must_check int tree_store(int dir_fd, const struct tree *t, struct error *err);

/** "disks/ID.qcow2", "states/ID.state" in @ret. */
#define TREE_PATH_BYTES 40
void tree_layer_path(char ret[TREE_PATH_BYTES], const char *id);
void tree_state_path(char ret[TREE_PATH_BYTES], const char *id);

/** Remove the files of disks/ and states/ that @t does not name: what interrupted commands left.
 * Nobody is making any: the lock is held, and no machine of the instance runs, or it is the
 * caller's.
 * *@ret_count (may be NULL) says how many. */
must_check int tree_sweep(int dir_fd, const struct tree *t, unsigned *ret_count, struct error *err);

#endif
