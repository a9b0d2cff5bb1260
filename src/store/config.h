/* The configuration of an instance: instance.yaml, which people may edit, and its struct.
 *
 * One table of keys (config_keys) is the schema: the file, `posada set`, `get`, JSON and the help
 * are all made from it. The file is one flat mapping; a value is a scalar or, for a key of kind
 * CONFIG_LIST, a list of scalars. A key that is not in the table, given twice, or of a value that
 * it does not take is an error with file and line. */
#ifndef STORE_CONFIG_H
#define STORE_CONFIG_H

#include "base/error.h"

#include <jansson.h>

enum {
    CONFIG_FILE_MAX = 65536, /* bytes of instance.yaml */
    CONFIG_TEXT_MAX = 4096,  /* of one value */
    CONFIG_LIST_MAX = 64,    /* values of a list */
};

struct config_list {
    char **v;
    size_t n;
};

/** Strings are heap and never NULL: absent is "". End with config_done(). */
struct instance_config {
    char *uuid, *description;
    char *image; /* the image's name it was made from; "" = files of its own */
    char *arch;
    int64_t cpus;
    uint64_t memory; /* bytes */
    char *engine, *cpu, *vlen;
    char *engine_reason;            /* why it has this engine; "" = the user chose */
    char *kernel, *initrd, *append; /* files: relative ones lie in the instance's folder */
    char *firmware, *payload, *flash;
    char *boot, *disk_bus;
    char *console;
    char *cloud_init; /* NoCloud seed disk */
    struct config_list disks, volumes, publish, oem_strings;
    char *net, *mac;
    bool rng, balloon;
    char *restart; /* config_restart() reads it */
    bool autostart;
};

enum config_kind {
    CONFIG_TEXT,   /* char * */
    CONFIG_CHOICE, /* char *: one word of .choices */
    CONFIG_INT,    /* int64_t, .min to .max */
    CONFIG_SIZE,   /* uint64_t bytes, .min to .max, whole MiB */
    CONFIG_FLAG,   /* bool */
    CONFIG_LIST,   /* struct config_list */
};

struct config_key {
    const char *name; /* NULL ends the table */
    enum config_kind kind;
    size_t offset;
    const char *def; /* as text; NULL = "" */
    const char *choices;
    int64_t min, max;
    /** What a text, or a list's element, must be; NULL = any. "expected ..., not '...'". */
    int (*check)(const char *value, struct error *err);
    bool always; /* written to a new file even at its default */
    bool fixed;  /* not for `set`: what the instance was made as */
    bool live;   /* a running machine need not be restarted for it */
    const char *help;
};

extern const struct config_key config_keys[];

/** Keys whose value is a file; NULL ends. */
extern const char *const config_files[];

/** The file of such a key if it lies in the instance's folder: its name there, borrowed; else
 * NULL. */
const char *config_own_file(const struct instance_config *c, const char *key);

/** Does such a key lead to a file elsewhere on the host? (A firmware's name does not.) */
bool config_names_host_file(const struct instance_config *c, const char *key);

/** The key called @name; NULL with @err set, which names the nearest. */
const struct config_key *config_find(const char *name, struct error *err);

/** All defaults. -ENOMEM. */
must_check int config_init(struct instance_config *ret, struct error *err);
void config_done(struct instance_config *c);

/** Make *@ret an independent copy. */
must_check int config_copy(const struct instance_config *from, struct instance_config *ret,
                           struct error *err);

/** Set a scalar, or all of a list to the one @value ("" = empty list). -EINVAL "KEY: expected
 * ...". On failure @c is as before. */
must_check int config_set(struct instance_config *c, const struct config_key *key,
                          const char *value, struct error *err);

/** Add to a list, or take from it (-ENOENT when it is not in it). */
must_check int config_add(struct instance_config *c, const struct config_key *key,
                          const char *value, struct error *err);
must_check int config_drop(struct instance_config *c, const struct config_key *key,
                           const char *value, struct error *err);

/** "KEY=VALUE", for lists also "KEY+=VALUE" and "KEY-=VALUE", as `posada set` takes it. *@ret_key
 * (may be NULL) is the key. A key that is fixed: -EPERM. */
must_check int config_assign(struct instance_config *c, const char *text,
                             const struct config_key **ret_key, struct error *err);

/** What one key alone cannot say. -EINVAL. */
must_check int config_check(const struct instance_config *c, struct error *err);

/** A value as text: a list's elements one a line; the caller frees it. NULL: no memory. */
char *config_get(const struct instance_config *c, const struct config_key *key);
/** As JSON: a number for sizes in bytes, a list. */
json_t *config_get_json(const struct instance_config *c, const struct config_key *key);
/** All of it, an object. */
json_t *config_json(const struct instance_config *c);

enum restart_policy { RESTART_NO, RESTART_ON_FAILURE, RESTART_ALWAYS, RESTART_UNLESS_STOPPED };
/** "no", "on-failure[:N]", "always", "unless-stopped"; *@ret_max = N, 0 = without limit. False: it
 * is none of these. */
bool config_restart(const char *text, enum restart_policy *ret, unsigned *ret_max);

/* config_yaml.c */

/** Parse a file's text, hostile; @path is for messages, "PATH:LINE: ...". *@ret is filled (defaults
 * where the file says nothing) and checked by config_check(). -EINVAL, -ENOMEM. */
must_check int config_parse(const char *path, const char *text, size_t size,
                            struct instance_config *ret, struct error *err);

/** A new file's text; the caller frees it. */
char *config_format(const struct instance_config *c, struct error *err);

/** @text, which config_parse() takes, with @key's lines as @c has it and all else (comments, order)
 * as it was; the caller frees it. */
char *config_replace(const char *text, const struct instance_config *c,
                     const struct config_key *key, struct error *err);

/** @text with all keys that differ as @c has them, those that are live only with @live; the rest as
 * it was; the caller frees it. */
char *config_rewrite(const char *text, const struct instance_config *c, bool live,
                     struct error *err);

/** The first key that is not live and not the same in both; NULL: none. */
const struct config_key *config_difference(const struct instance_config *a,
                                           const struct instance_config *b);

/** Read file @path. -ENOENT, -EINVAL. */
must_check int config_load(const char *path, struct instance_config *ret, struct error *err);

#endif
