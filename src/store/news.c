/* What an instance's guest does not know of itself yet: the file `introduce`, a line for each. Made
 * with the instance, removed when its guest has been told. Any thread. */
#include "base/fd.h"
#include "base/paths.h"
#include "store/store.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define NEWS_FILE "introduce"

enum { NEWS_MAX = 256 };

static const struct {
    unsigned flag;
    const char *line;
} lines[] = {
    {INSTANCE_NEW_NAME,     "name"    },
    {INSTANCE_NEW_IDENTITY, "identity"},
};

int instance_mark_new(const char *dir, unsigned what, struct error *err)
{
    cleanup(freep) char *path = paths_format(err, "%s/" NEWS_FILE, dir);
    char text[NEWS_MAX] = "";

    for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
        if (what & lines[i].flag)
            (void)strcat(strcat(text, lines[i].line), "\n"); /* a few words of ours */
    }
    return path ? paths_write_safe(path, text, strlen(text), err) : -ENOMEM;
}

unsigned instance_introduction(const struct instance *in)
{
    cleanup(freep) char *path = instance_path(in, NULL, NEWS_FILE);
    cleanup(freep) char *text = NULL;
    struct error absent = {0};
    unsigned what = 0;
    size_t size;

    if (!path || paths_read(path, NEWS_MAX, &text, &size, &absent))
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
        if (strstr(text, lines[i].line))
            what |= lines[i].flag;
    }
    return what;
}

int instance_introduced(const struct instance *in, struct error *err)
{
    cleanup(freep) char *path = instance_path(in, err, NEWS_FILE);

    if (!path)
        return -ENOMEM;
    if (unlink(path) && errno != ENOENT)
        return error_set(err, errno, "cannot remove '%s': %s", path, strerror(errno));
    return paths_sync_dir(in->dir, err);
}
