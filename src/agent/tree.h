/* Files, folders and links on their way between host and guest; compiled into both ends, either of
 * which may be the sender. Protocol: docs/agent.md.
 *
 * A tree is one entry: a file (its data, then WIRE_END), a folder (its entries, then WIRE_END) or
 * a symbolic link. Entries have names, not paths, so there is nothing that could lead out of where
 * the receiver puts them. Hard links become files of their own; sockets, pipes and devices are left
 * out; extended attributes are not sent. */
#ifndef AGENT_TREE_H
#define AGENT_TREE_H

#include "agent/wire.h"
#include "base/error.h"

enum {
    TREE_NESTING_MAX = 256, /* folders in folders; the receiver has each open */
};

struct tree_result {
    uint64_t entries, bytes, left_out;
};

struct tree_options {
    bool keep_owners;   /* receiver: owners and set-id bits as they are, not the receiver's */
    uint64_t max_bytes; /* receiver: -EFBIG beyond; 0 = any */
    int64_t silence_ms; /* how long the other end may do nothing */
    /* Called with the bytes so far now and then; non-zero cancels. May be NULL. */
    int (*progress)(const struct tree_result *so_far, void *arg);
    void *arg;
};

/** Send the tree at @path (of a link, what it leads to). On -EPIPE the other end has said
 * something meanwhile, which the caller reads. Everything has left when it returns 0. Other errors:
 * the host's, with @err set; the stream cannot be used on, but for one WIRE_ERROR. */
must_check int tree_send(struct wire *w, const char *path, const struct tree_options *o,
                         struct tree_result *ret, struct error *err);

/** Where a tree is to be put. */
struct tree_target {
    int dir_fd; /* owned; -1 when there is none */
    char name[256];
};

/** For a tree whose own name is @name: into the folder @path, or as @path when there is no such
 * folder. -ENOENT: nor is there a folder it could be in. */
must_check int tree_target_open(struct tree_target *t, const char *path, const char *name,
                                struct error *err);
void tree_target_close(struct tree_target *t);

/** Receive one tree into @t. What is there already is replaced: files at once, when their data is
 * complete; folders are kept and added to. Links are never followed. -EREMOTEIO: the sender has
 * given up, @err says why. After another failure, with @err set, the stream has the rest of the
 * tree still in it. */
must_check int tree_receive(struct wire *w, const struct tree_target *t,
                            const struct tree_options *o, struct tree_result *ret,
                            struct error *err);

/** What @f, a WIRE_ERROR, says, as far as it can be printed: sets @err, returns its errno
 * negated. */
int wire_error_take(const struct wire_frame *f, const char *who, struct error *err);

/** Send @err, whose code it has. */
must_check int wire_error_send(struct wire *w, const struct error *err, int64_t deadline_ns);

#endif
