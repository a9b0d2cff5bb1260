/* Rewriting an image without what it does not need.
 *
 * The new image is of the same format and variant: each of the format's creation options is looked
 * up among the facts that the old image tells about itself. Threads: as disk_convert(). */
#include "base/fd.h"
#include "disk/format.h"
#include "disk/tool/tool.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define OPTIONS_MAX 32

struct option_texts {
    struct disk_create_value v[OPTIONS_MAX + 1];
    char text[OPTIONS_MAX][64];
    unsigned count;
};

/** Is fact "lazy-refcounts" option "lazy_refcounts"? */
static bool is_same_name(const char *fact, const char *option)
{
    for (; *fact && *option; fact++, option++) {
        if (*fact != *option && !(*fact == '-' && *option == '_'))
            return false;
    }
    return !*fact && !*option;
}

static const struct disk_fact *find_fact(const struct disk_info *info, const char *option)
{
    for (const struct disk_fact *f = info->facts; f; f = f->next) {
        if (is_same_name(f->name, option) ||
            (!strcmp(option, "subformat") && !strcmp(f->name, "create-type")))
            return f;
    }
    return NULL;
}

/** Would the option take @text? Of "a|b|c" only one of the words. */
static bool is_allowed(const struct disk_create_option *o, const char *text)
{
    size_t n = strlen(text);

    if (!strchr(o->arg, '|'))
        return true;
    for (const char *p = o->arg; p; p = strchr(p, '|')) {
        p += *p == '|';
        if (!strncmp(p, text, n) && (p[n] == '|' || !p[n]))
            return true;
    }
    return false;
}

/** The options with which an image such as @d is made. */
static void find_options(const struct disk *d, const struct disk_info *info,
                         struct option_texts *ret)
{
    const struct disk_create_option *o = disk_format_options(d->format);

    for (; o && o->name && ret->count < OPTIONS_MAX; o++) {
        const struct disk_fact *f = find_fact(info, o->name);
        char *text = ret->text[ret->count];

        if (f && f->kind == DISK_FACT_TEXT)
            (void)snprintf(text, sizeof(ret->text[0]), "%s", f->text);
        else if (f && f->kind == DISK_FACT_NUMBER)
            (void)snprintf(text, sizeof(ret->text[0]), "%llu", (unsigned long long)f->number);
        else if (f)
            (void)snprintf(text, sizeof(ret->text[0]), "%s", f->number ? "on" : "off");
        else if (!strcmp(o->name, "cluster_size") && d->cluster_bytes)
            (void)snprintf(text, sizeof(ret->text[0]), "%u", d->cluster_bytes);
        else
            continue;
        if (!is_allowed(o, text))
            continue; /* such as a differencing VHD, which its backing image makes one */
        ret->v[ret->count++] = (struct disk_create_value){.name = o->name, .value = text};
    }
}

static int refuse_losses(const struct disk *d, const struct disk_info *info, struct error *err)
{
    if (info->snapshots)
        return error_set(err, ENOTSUP, "'%s' holds snapshots, which would be lost", d->path);
    if (info->bitmaps)
        return error_set(err, ENOTSUP, "'%s' holds bitmaps, which would be lost", d->path);
    if (info->is_encrypted)
        return error_set(err, ENOTSUP, "'%s' is encrypted, and the new one would not be", d->path);
    return 0;
}

int disk_compact(const char *path, const struct disk_options *options, const struct disk_job *job,
                 struct error *err)
{
    struct disk_options o = *options;
    struct option_texts texts = {.count = 0};
    struct disk_info info = {0};
    struct disk *d = NULL;

    o.flags |= DISK_READONLY;
    int rc = disk_open(path, &o, &d, err);
    if (rc)
        return rc;
    rc = disk_get_info(d, &info, err);
    if (!rc)
        rc = refuse_losses(d, &info, err);
    if (!rc) {
        find_options(d, &info, &texts);
        struct disk_convert c = {
            .source = d,
            .path = path,
            .format = d->format,
            .create = {.size_bytes = d->size_bytes,
                       .values = texts.v,
                       .backing = d->below,
                       .backing_path = d->below ? d->backing_path : NULL,
                       .backing_format = d->below ? d->backing_format : NULL},
            .packing = d->ops->pack ? DISK_PACK_KEEP : DISK_PACK_NONE,
            .sparse_bytes = DISK_SPARSE_DEFAULT,
            .in_place = true,
        };
        rc = disk_convert(&c, job, err);
    }
    disk_info_done(&info);
    disk_close(d);
    return rc;
}
