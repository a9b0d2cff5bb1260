/* What exporting and importing share. */
#ifndef BUNDLE_BUNDLE_INTERNAL_H
#define BUNDLE_BUNDLE_INTERNAL_H

#include "bundle/bundle.h"
#include "bundle/pack.h"
#include "disk/tool/tool.h"
#include "store/store.h"

#define BUNDLE_HEAD    "posada.json" /* the first member */
#define BUNDLE_VERSION 1
#define BUNDLE_CONFIG  "instance.yaml"

enum { BUNDLE_HEAD_MAX = 4096 };

/** Make a new image at @path of what the chain whose top is @top shows. */
must_check int bundle_convert(const char *top, const char *top_format, enum disk_refs refs,
                              const char *path, const char *format,
                              const struct disk_create_value *values, const struct bundle_job *job,
                              struct error *err);

/** The OVA forms of bundle_export() and of the rest of an import, once the first member, the
 * descriptor, is known. */
struct export;
must_check int bundle_export_ova(struct export *x, int fd, struct error *err);

struct import;
must_check int bundle_import_ova(struct import *m, struct unpack *u, const char *name,
                                 struct error *err);

/** State of an export. */
struct export
{
    const struct instance *in;
    const struct bundle_export *options;
    const struct bundle_job *job;
    struct instance_config config;
    char *config_text;
    struct tree *tree;              /* the instance's */
    const struct tree_point *point; /* what is exported, unless it is the whole tree */
    char *stage;                    /* folder for what is made on the way */
};

/** The path of layer @id's file; heap. */
char *export_layer(const struct export *x, const char *id, struct error *err);

/** State of an import. */
struct import {
    const struct bundle_import *options;
    const struct bundle_job *job;
    struct instance *in; /* the new one, locked; NULL until its name is known */
    char *stage;         /* its folder to be */
};

/** Decide on the name, given the one of the file; lock it, make the folder. */
must_check int import_begin(struct import *m, const char *name, struct error *err);

/** Write the instance's configuration, without what leads to files of the host; with an identity of
 * its own. @text is what @config was parsed from, or NULL. */
must_check int import_config(struct import *m, struct instance_config *config, const char *text,
                             struct error *err);

/** Its tree and layers' files are there: check them, and give the instance its name. */
must_check int import_finish(struct import *m, const struct tree *t, struct error *err);

#endif
