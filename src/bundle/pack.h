/* One file of several: a tar archive with checksums, written and read in one pass, so that a pipe
 * will do.
 *
 * The members' SHA-256 sums are themselves the last member, in the form of sha256sum(1), so that
 * anybody can check an archive by hand. What is read is hostile: names, sizes and kinds of members
 * are checked here, content by who takes it. One thread. */
#ifndef BUNDLE_PACK_H
#define BUNDLE_PACK_H

#include "base/error.h"
#include "base/macros.h"

enum {
    PACK_NAME_MAX = 255,      /* bytes of a member's name */
    PACK_MEMBERS_MAX = 20000, /* of an archive */
};

#define PACK_SUMS "SHA256SUMS"

enum pack_kind {
    PACK_TAR_ZSTD, /* POSIX tar, packed with zstd on all processors */
    PACK_TAR,      /* POSIX tar */
    PACK_USTAR,    /* the older form of tar that OVA asks for, as far as sizes allow */
};

/** Called with the bytes of members done so far; anything but 0 cancels with -ECANCELED. */
typedef int (*pack_progress)(void *arg, uint64_t done_bytes);

/* Writing. */

struct pack;

/** To @fd, which is borrowed. *@ret is for pack_free(). @progress may be NULL. */
must_check int pack_new(int fd, enum pack_kind kind, pack_progress progress, void *arg,
                        struct pack **ret, struct error *err);
/** A member with the @size bytes of @data. */
must_check int pack_data(struct pack *p, const char *name, const void *data, size_t size,
                         struct error *err);
/** A member with the content of the regular file @path, whose size must not change meanwhile. */
must_check int pack_file(struct pack *p, const char *name, const char *path, struct error *err);
/** The sums of all members so far, as sha256sum(1) prints them; the caller frees it. */
char *pack_sums(const struct pack *p, struct error *err);
/** The end. */
must_check int pack_finish(struct pack *p, struct error *err);
void pack_free(struct pack *p); /* takes NULL */

/** The SHA-256 sum of a file, as 64 hexadecimal digits and a NUL. */
must_check int pack_sum_file(const char *path, char ret[65], struct error *err);

/* Reading. */

struct unpack;

/** From @fd, which is borrowed: a tar archive, plain or packed with zstd, gzip or xz. */
must_check int unpack_new(int fd, pack_progress progress, void *arg, struct unpack **ret,
                          struct error *err);
/** The next member: its name, borrowed until the next call, and size. 1, 0 at the end, or an error:
 * -EINVAL for what is not a regular file with a plain relative name, or comes twice. */
must_check int unpack_next(struct unpack *u, const char **ret_name, uint64_t *ret_size,
                           struct error *err);
/** Its content, at most @max bytes, with a NUL behind; the caller frees it. */
must_check int unpack_text(struct unpack *u, size_t max, char **ret, size_t *ret_size,
                           struct error *err);
/** Its content into the new file @path, flushed to storage; blocks of zeroes are left out. */
must_check int unpack_file(struct unpack *u, const char *path, struct error *err);
/** Read it to its end for the sum alone. */
must_check int unpack_skip(struct unpack *u, struct error *err);
/** The sum of member @name that was read to its end; NULL: there was none. */
const char *unpack_sum(const struct unpack *u, const char *name);
/** Was the content of every member that was read the one that @text, as pack_sums() makes it, says?
 * @text itself is from the archive, its own member excepted. -EINVAL names the first that is wrong,
 * missing or not named. */
must_check int unpack_check(const struct unpack *u, const char *text, struct error *err);
void unpack_free(struct unpack *u); /* takes NULL */

#endif
