/* dpkg's database, as text in memory, for payload.c. */
#ifndef IMAGE_DPKG_INTERNAL_H
#define IMAGE_DPKG_INTERNAL_H

#include "base/error.h"
#include "image/control.h"

#include <stdio.h>

struct dpkg_file {
    char *name; /* "postinst" */
    char *data;
    size_t size;
};

/** One package while its .deb is read. */
struct dpkg_package {
    struct dpkg_file *files; /* of the control archive */
    size_t file_count;
    FILE *list; /* grows list_text: "/.\n/usr\n..." */
    char *list_text;
    size_t list_size;
    FILE *conffile_sums; /* grows sums_text: " /etc/x MD5\n" */
    char *sums_text;
    size_t sums_size;
};

struct dpkg_trigger {
    char *name, *package;
};

/** The parts of the database that all packages share. */
struct dpkg_db {
    FILE *status;
    char *status_text;
    size_t status_size;
    FILE *file_triggers; /* triggers/File */
    char *file_triggers_text;
    size_t file_triggers_size;
    struct dpkg_trigger *triggers; /* triggers/NAME */
    size_t trigger_count;
};

must_check int dpkg_package_init(struct dpkg_package *p);
void dpkg_package_done(struct dpkg_package *p);

/** Keep a copy of a control file. */
must_check int dpkg_package_add(struct dpkg_package *p, const char *name, const char *data,
                                size_t size);

/** A control file's text; an empty one if there is none. */
struct slice dpkg_package_file(const struct dpkg_package *p, const char *name);

/** Is "/@path" one of the package's conffiles? */
bool dpkg_package_is_conffile(const struct dpkg_package *p, const char *path);

/** What the package's files in info/ begin with: "libc6:riscv64", "bash". The caller frees it. NULL
 * if the control file is not one. */
char *dpkg_package_stem(const struct dpkg_package *p);

must_check int dpkg_db_init(struct dpkg_db *db);
void dpkg_db_done(struct dpkg_db *db);

/** Enter the package: state "install ok unpacked", and its triggers. -EBADMSG, -ENOMEM. */
must_check int dpkg_db_add(struct dpkg_db *db, const struct dpkg_package *p);

/** The text of triggers/@name; the caller frees it. */
char *dpkg_db_trigger_text(const struct dpkg_db *db, const char *name);

#endif
