/* Users and groups from /etc/passwd and /etc/group: a static program has no name service of the
 * guest's. See guest_agent.h. */
#include "guest_agent.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 4096 };

/** Cut @line at its colons. How many fields there are, at most @max. */
static unsigned cut(char *line, char **fields, unsigned max)
{
    unsigned n = 0;

    line[strcspn(line, "\n")] = '\0';
    while (line && n < max)
        fields[n++] = strsep(&line, ":");
    return n;
}

static bool parse_id(const char *text, unsigned *ret)
{
    char *end;

    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    unsigned long v = strtoul(text, &end, 10);
    if (errno || *end || v >= UINT32_MAX)
        return false;
    *ret = (unsigned)v;
    return true;
}

/** Fill @u from the line of passwd with that name, or that number. */
static bool find_passwd(struct user *u, const char *name, const unsigned *id)
{
    char line[LINE_MAX_BYTES], *fields[7];
    FILE *file = fopen("/etc/passwd", "re");
    bool found = false;

    while (file && !found && fgets(line, sizeof(line), file)) {
        unsigned uid, gid;

        if (cut(line, fields, 7) < 7 || !parse_id(fields[2], &uid) || !parse_id(fields[3], &gid))
            continue;
        if (id ? uid != *id : strcmp(fields[0], name) != 0)
            continue;
        (void)snprintf(u->name, sizeof(u->name), "%s", fields[0]);
        (void)snprintf(u->home, sizeof(u->home), "%s", fields[5]);
        (void)snprintf(u->shell, sizeof(u->shell), "%s", fields[6]);
        u->uid = uid;
        u->gid = gid;
        found = true;
    }
    if (file)
        (void)fclose(file); /* it was read only */
    return found;
}

static bool is_member(char *list, const char *name)
{
    char *word;

    while ((word = strsep(&list, ","))) {
        if (!strcmp(word, name))
            return true;
    }
    return false;
}

static void find_groups(struct user *u)
{
    char line[LINE_MAX_BYTES], *fields[4];
    FILE *file = fopen("/etc/group", "re");

    u->groups[u->group_count++] = u->gid;
    while (file && u->group_count < ARRAY_SIZE(u->groups) && fgets(line, sizeof(line), file)) {
        unsigned gid;

        if (cut(line, fields, 4) == 4 && parse_id(fields[2], &gid) && gid != u->gid &&
            is_member(fields[3], u->name))
            u->groups[u->group_count++] = gid;
    }
    if (file)
        (void)fclose(file); /* it was read only */
}

int user_find(struct user *u, const char *name, struct error *err)
{
    unsigned id = geteuid();
    bool is_id = !name || parse_id(name, &id);

    *u = (struct user){0};
    if (!find_passwd(u, name, is_id ? &id : NULL)) {
        if (!is_id)
            return error_set(err, EINVAL, "there is no user '%.60s' in the guest", name);
        u->uid = u->gid = id; /* a number need not have a name */
        (void)snprintf(u->name, sizeof(u->name), "%u", id);
    }
    if (!u->home[0])
        (void)snprintf(u->home, sizeof(u->home), "/");
    if (!u->shell[0])
        (void)snprintf(u->shell, sizeof(u->shell), "/bin/sh");
    find_groups(u);
    return 0;
}
