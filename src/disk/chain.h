/* Changing the chain of a disk that is open and in use: a new top, and the merging of a layer into
 * the one above it. docs/design/instances.md says when.
 *
 * "Stands still": no request to the disk is under way and none begins (a frozen machine, a held
 * device). A disk that disk_throttle() wraps may be given: its top is meant. */
#ifndef DISK_CHAIN_H
#define DISK_CHAIN_H

#include "disk/disk.h"

struct disk_push;
struct disk_merge;
struct disk_sink;

/** Get ready to put image @path, made over @d's top (which it names as its backing image) and
 * empty, on top. The disk stands still from here to the end: it is flushed, and what it is now is
 * opened anew for reading. On success *@ret is for disk_push_finish() or disk_push_abort(). The
 * top's own path must still lead to it. -EINVAL: not such an image. */
must_check int disk_push_prepare(struct disk *d, const char *path, struct disk_push **ret,
                                 struct error *err);

/** Put it there: the disk to use from now on, *@d itself if it is a throttle. The old top is one
 * that others may open, too, as soon as *@ret_old is closed, which the caller does, without hurry.
 */
struct disk *disk_push_finish(struct disk_push *p, struct disk **ret_old);
void disk_push_abort(struct disk_push *p); /* takes NULL */

/** Begin to merge the layer @depth + 1 below @d's top into the one @depth below it, whose file is
 * @path (needed if @depth > 0: then the disk stands still, and the layer is opened for writing).
 * Nobody but this disk has the child open. On success *@ret is for disk_merge_end(). */
must_check int disk_merge_begin(struct disk *d, unsigned depth, const char *path,
                                struct disk_merge **ret, struct error *err);

/** Copy what the child lacks, while the disk is used. @progress may be NULL; other than 0 breaks it
 * off
 * (-ECANCELED). Can be begun again. */
must_check int disk_merge_copy(struct disk_merge *m,
                               int (*progress)(void *arg, uint64_t done, uint64_t total), void *arg,
                               struct error *err);

/** All is copied: let the child's file name what the merged layer lay on, @backing of @format (NULL
 * = nothing). Flushed. The merged layer's file is then needed by this opening alone. */
must_check int disk_merge_link(struct disk_merge *m, const char *backing, const char *format,
                               struct error *err);

/** The disk stands still. If disk_merge_link() has been done, the merged layer leaves the chain,
 * and is
 * *@ret_old, for the caller to close (NULL: it was not). A child below the top is for reading
 * again. */
void disk_merge_end(struct disk_merge *m, struct disk **ret_old);

/** Begin to merge the other way: the layer @depth below @d's top into the one below it, whose file
 * is @path, and on which nothing else lies. If that is the top and open for writing, the disk
 * stands still from here to the end. On success *@ret is for disk_sink_end(). -ENOTSUP: they are
 * not of one size. */
must_check int disk_sink_begin(struct disk *d, unsigned depth, const char *path,
                               struct disk_sink **ret, struct error *err);

/** Copy what the upper layer holds, and flush; as disk_merge_copy(). */
must_check int disk_sink_copy(struct disk_sink *s,
                              int (*progress)(void *arg, uint64_t done, uint64_t total), void *arg,
                              struct error *err);

/** The lower layer's file, by now at @path in the place of the upper one's, becomes the chain's in
 * place of both. The disk stands still. *@ret is the disk to use from now on, another one only if
 * the top was merged and is not throttled: the old one is closed by disk_sink_end(). On failure the
 * chain is as before, and reads right. */
must_check int disk_sink_finish(struct disk_sink *s, const char *path, struct disk **ret,
                                struct error *err);
void disk_sink_end(struct disk_sink *s); /* takes NULL */

#endif
