/* A suite's index of packages (Packages), held in memory and searched by name. */
#ifndef IMAGE_INDEX_H
#define IMAGE_INDEX_H

#include "base/error.h"
#include "image/control.h"

/** One package; the slices point into the index's text. */
struct package {
    struct slice name, version, arch, filename, sha256;
    struct slice depends, pre_depends, provides;
    uint64_t size; /* of the .deb, in bytes */
    enum package_priority { PRIORITY_OTHER, PRIORITY_IMPORTANT, PRIORITY_REQUIRED } priority;
    bool essential;
    bool selected;        /* the resolver's mark */
    struct package *next; /* another version under the same name, or next in its bucket */
};

struct index;

/** Parse @text, which is now the index's (malloc'd, freed with it, also on failure). -EINVAL when
 * it holds no package; -ENOMEM. */
must_check int index_new(char *text, size_t size, struct index **ret, struct error *err);
void index_free(struct index *index);

/** The newest package called @name; NULL if there is none. */
struct package *index_find(struct index *index, struct slice name);

/** Call @fn for each package that provides the virtual package @name, with the version it provides
 * (empty: none), until it returns true. */
bool index_each_provider(struct index *index, struct slice name,
                         bool (*fn)(struct package *p, struct slice version, void *arg), void *arg);

/** All packages, in the order of the file. */
size_t index_count(const struct index *index);
struct package *index_at(struct index *index, size_t i);

/** One "name (op version)" of a relation. */
struct relation {
    struct slice name, op, version; /* op and version are empty when any version will do */
};

/** Parse one alternative: "name[:arch] [(op version)] [[archs]] [<profiles>]". False if malformed.
 */
bool relation_parse(struct slice text, struct relation *ret);

#endif
