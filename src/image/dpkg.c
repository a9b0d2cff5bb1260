/* dpkg's database, written as dpkg itself leaves it after `dpkg --unpack`, but for conffiles: their
 * files are in place already and the status has their digests, which dpkg --configure accepts.
 * One thread. Format: dpkg's doc/ and deb-triggers(5), deb-conffiles(5). */
#include "image/dpkg_internal.h"

#include "base/fd.h"

#include <errno.h>
#include <string.h>

int dpkg_package_init(struct dpkg_package *p)
{
    *p = (struct dpkg_package){0};
    p->list = open_memstream(&p->list_text, &p->list_size);
    p->conffile_sums = open_memstream(&p->sums_text, &p->sums_size);
    if (!p->list || !p->conffile_sums) {
        dpkg_package_done(p);
        return -ENOMEM;
    }
    fputs("/.\n", p->list);
    return 0;
}

void dpkg_package_done(struct dpkg_package *p)
{
    for (size_t i = 0; i < p->file_count; i++) {
        free(p->files[i].name);
        free(p->files[i].data);
    }
    free(p->files);
    if (p->list)
        (void)fclose(p->list); /* memory only */
    if (p->conffile_sums)
        (void)fclose(p->conffile_sums);
    free(p->list_text);
    free(p->sums_text);
    *p = (struct dpkg_package){0};
}

int dpkg_package_add(struct dpkg_package *p, const char *name, const char *data, size_t size)
{
    struct dpkg_file *files = reallocarray(p->files, p->file_count + 1, sizeof(*files));

    if (!files)
        return -ENOMEM;
    p->files = files;
    struct dpkg_file *f = &files[p->file_count++];
    *f = (struct dpkg_file){strdup(name), malloc(size + 1), size};
    if (!f->name || !f->data)
        return -ENOMEM;
    memcpy(f->data, data, size);
    f->data[size] = 0;
    return 0;
}

struct slice dpkg_package_file(const struct dpkg_package *p, const char *name)
{
    for (size_t i = 0; i < p->file_count; i++)
        if (!strcmp(p->files[i].name, name))
            return (struct slice){p->files[i].data, p->files[i].size};
    return (struct slice){"", 0};
}

bool dpkg_package_is_conffile(const struct dpkg_package *p, const char *path)
{
    struct slice rest = dpkg_package_file(p, "conffiles");

    for (struct slice line; slice_cut(&rest, '\n', &line);) {
        line = slice_trim(line);
        if (line.n > 1 && line.p[0] == '/' && line.n - 1 == strlen(path) &&
            !memcmp(line.p + 1, path, line.n - 1))
            return true;
    }
    return false;
}

/** A field of the control file if it is a word that is safe in a file name. */
static bool control_word(const struct dpkg_package *p, const char *field, struct slice *ret)
{
    struct slice control = dpkg_package_file(p, "control"), stanza, value;

    if (!control_stanza(&control, &stanza) || !control_find(stanza, field, &value) || !value.n)
        return false;
    for (size_t i = 0; i < value.n; i++)
        if (!strchr("abcdefghijklmnopqrstuvwxyz0123456789+-.", value.p[i]) || !value.p[i])
            return false;
    *ret = value;
    return true;
}

char *dpkg_package_stem(const struct dpkg_package *p)
{
    struct slice name, arch, multi;
    char *stem = NULL;

    if (!control_word(p, "Package", &name) || !control_word(p, "Architecture", &arch))
        return NULL;
    bool same = control_word(p, "Multi-Arch", &multi) && slice_is(multi, "same");
    if (asprintf(&stem, "%.*s%s%.*s", (int)name.n, name.p, same ? ":" : "", same ? (int)arch.n : 0,
                 arch.p) < 0)
        return NULL;
    return stem;
}

int dpkg_db_init(struct dpkg_db *db)
{
    *db = (struct dpkg_db){0};
    db->status = open_memstream(&db->status_text, &db->status_size);
    db->file_triggers = open_memstream(&db->file_triggers_text, &db->file_triggers_size);
    if (!db->status || !db->file_triggers) {
        dpkg_db_done(db);
        return -ENOMEM;
    }
    return 0;
}

void dpkg_db_done(struct dpkg_db *db)
{
    if (db->status)
        (void)fclose(db->status); /* memory only */
    if (db->file_triggers)
        (void)fclose(db->file_triggers);
    for (size_t i = 0; i < db->trigger_count; i++) {
        free(db->triggers[i].name);
        free(db->triggers[i].package);
    }
    free(db->triggers);
    free(db->status_text);
    free(db->file_triggers_text);
    *db = (struct dpkg_db){0};
}

/** Trigger names are file names; Policy allows no more than these. */
static bool is_trigger_name(struct slice s)
{
    if (!s.n || s.n > 200 || s.p[0] == '.')
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] <= ' ' || s.p[i] > '~' || (s.p[i] == '/' && s.p[0] != '/'))
            return false;
    return true;
}

static int add_trigger(struct dpkg_db *db, const char *package, struct slice name, bool noawait)
{
    if (name.p[0] == '/') {
        fprintf(db->file_triggers, "%.*s %s%s\n", (int)name.n, name.p, package,
                noawait ? "/noawait" : "");
        return 0;
    }
    struct dpkg_trigger *t = reallocarray(db->triggers, db->trigger_count + 1, sizeof(*t));
    if (!t)
        return -ENOMEM;
    db->triggers = t;
    t = &db->triggers[db->trigger_count++];
    t->name = slice_dup(name);
    if (asprintf(&t->package, "%s%s", package, noawait ? "/noawait" : "") < 0)
        t->package = NULL;
    return t->name && t->package ? 0 : -ENOMEM;
}

static int add_triggers(struct dpkg_db *db, const struct dpkg_package *p, const char *stem)
{
    struct slice rest = dpkg_package_file(p, "triggers");
    int r = 0;

    for (struct slice line; !r && slice_cut(&rest, '\n', &line);) {
        struct slice verb, name;

        if (!slice_word(&line, &verb) || !slice_word(&line, &name) ||
            !slice_starts(verb, "interest") || !is_trigger_name(name))
            continue;
        r = add_trigger(db, stem, name, slice_is(verb, "interest-noawait"));
    }
    return r;
}

int dpkg_db_add(struct dpkg_db *db, const struct dpkg_package *p)
{
    struct slice control = dpkg_package_file(p, "control"), stanza, name, value;
    cleanup(freep) char *stem = dpkg_package_stem(p);

    if (!stem || !control_stanza(&control, &stanza))
        return -EBADMSG;
    while (control_field(&stanza, &name, &value)) {
        fprintf(db->status, "%.*s: %.*s\n", (int)name.n, name.p, (int)value.n, value.p);
        if (control_name_is(name, "Package"))
            fputs("Status: install ok unpacked\n", db->status);
    }
    if (fflush(p->conffile_sums))
        return -ENOMEM;
    if (p->sums_size)
        fprintf(db->status, "Conffiles:\n%s", p->sums_text);
    putc('\n', db->status);
    return add_triggers(db, p, stem);
}

char *dpkg_db_trigger_text(const struct dpkg_db *db, const char *name)
{
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);

    for (size_t i = 0; f && i < db->trigger_count; i++)
        if (!strcmp(db->triggers[i].name, name))
            fprintf(f, "%s\n", db->triggers[i].package);
    if (!f || fclose(f)) {
        free(text);
        return NULL;
    }
    return text;
}
