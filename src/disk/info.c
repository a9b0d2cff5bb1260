/* Facts about images. Any thread. */
#include "base/fd.h"
#include "disk/disk_internal.h"

#include <string.h>
#include <sys/stat.h>

static void append(struct disk_info *info, struct disk_fact fact, const char *name)
{
    struct disk_fact **end = &info->facts;
    struct disk_fact *f = malloc(sizeof(*f));

    fact.name = strdup(name);
    if (!f || !fact.name) {
        free(f);
        free(fact.name);
        free(fact.text);
        return;
    }
    *f = fact;
    while (*end)
        end = &(*end)->next;
    *end = f;
}

void disk_info_text(struct disk_info *info, const char *name, const char *text)
{
    char *copy = strdup(text);

    if (copy)
        append(info, (struct disk_fact){.kind = DISK_FACT_TEXT, .text = copy}, name);
}

void disk_info_number(struct disk_info *info, const char *name, uint64_t value)
{
    append(info, (struct disk_fact){.kind = DISK_FACT_NUMBER, .number = value}, name);
}

void disk_info_bool(struct disk_info *info, const char *name, bool value)
{
    append(info, (struct disk_fact){.kind = DISK_FACT_BOOL, .number = value}, name);
}

void disk_info_file(struct disk_info *info, struct file *file)
{
    uint64_t size = 0;
    struct stat st;

    if (!file_get_size(file, &size)) /* a size that cannot be found out is left out */
        info->file_bytes += size;
    if (file->fd >= 0 && !file->is_block && !fstat(file->fd, &st))
        info->space_bytes += (uint64_t)st.st_blocks * 512;
    else
        info->space_bytes += size;
}

void disk_info_done(struct disk_info *info)
{
    while (info->facts) {
        struct disk_fact *f = info->facts;

        info->facts = f->next;
        free(f->name);
        free(f->text);
        free(f);
    }
    while (info->snapshots) {
        struct disk_snapshot *s = info->snapshots;

        info->snapshots = s->next;
        free(s->id);
        free(s->name);
        free(s);
    }
    while (info->bitmaps) {
        struct disk_bitmap *b = info->bitmaps;

        info->bitmaps = b->next;
        free(b->name);
        free(b);
    }
    *info = (struct disk_info){0};
}

int disk_get_info(struct disk *d, struct disk_info *ret, struct error *err)
{
    struct disk_info info = {0};
    int rc = d->ops->get_info(d, &info, err);

    if (rc)
        disk_info_done(&info);
    else
        *ret = info;
    return rc;
}
