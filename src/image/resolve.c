/* Dependency resolver for a base system: closure over Pre-Depends and Depends, first choice wins.
 *
 * No backtracking: Debian's base packages need none, and a set that cannot be configured is
 * reported by dpkg itself. Conflicts are therefore not looked at. Work is linear in the relations
 * of chosen packages (a work list, no recursion), so hostile indices cannot make it loop. One
 * thread. Spec: Debian Policy §7. */
#include "image/resolve.h"

#include "image/version.h"

#include <errno.h>
#include <stdlib.h>

void package_set_done(struct package_set *set)
{
    free(set->list);
    *set = (struct package_set){0};
}

static int add(struct package_set *set, struct package *p, struct error *err)
{
    if (p->selected)
        return 0;
    if (set->count == set->room) {
        size_t room = set->room ? 2 * set->room : 128;
        struct package **list = reallocarray(set->list, room, sizeof(struct package *));

        if (!list)
            return error_set(err, ENOMEM, "out of memory");
        set->list = list;
        set->room = room;
    }
    p->selected = true;
    set->list[set->count++] = p;
    set->size_bytes += p->size;
    return 0;
}

static bool satisfies(const struct relation *r, struct slice version)
{
    return !r->op.n || (version.n && version_satisfies(version, r->op, r->version));
}

struct provider_search {
    const struct relation *relation;
    struct package *best;
};

/** A selected provider ends the search; else the one of the highest priority, the earlier name on a
 * tie (so that the result does not depend on the order of the index). */
static bool consider_provider(struct package *p, struct slice version, void *arg)
{
    struct provider_search *s = arg;

    if (!satisfies(s->relation, version))
        return false;
    if (p->selected) {
        s->best = p;
        return true;
    }
    if (!s->best || p->priority > s->best->priority ||
        (p->priority == s->best->priority && version_compare(p->name, s->best->name) < 0))
        s->best = p;
    return false;
}

static struct package *find_candidate(struct index *index, const struct relation *r)
{
    struct package *p = index_find(index, r->name);

    if (p && satisfies(r, p->version))
        return p;
    struct provider_search s = {.relation = r};
    (void)index_each_provider(index, r->name, consider_provider, &s); /* s.best has the result */
    return s.best;
}

/** Choose a package for the alternatives "a | b | c"; NULL if none exists. */
static struct package *choose(struct index *index, struct slice alternatives)
{
    struct package *first = NULL;

    for (struct slice one; slice_cut(&alternatives, '|', &one);) {
        struct relation r;

        if (!relation_parse(one, &r))
            continue;
        struct package *p = find_candidate(index, &r);
        if (p && p->selected)
            return p;
        if (!first)
            first = p;
    }
    return first;
}

static int add_relations(struct package_set *set, struct index *index, const struct package *of,
                         struct slice relations, struct error *err)
{
    for (struct slice one; slice_cut(&relations, ',', &one);) {
        one = slice_trim(one);
        if (!one.n)
            continue;
        struct package *p = choose(index, one);
        if (!p)
            return error_set(err, ENOENT,
                             "package '%.*s' needs '%.*s', which the mirror's index does not have",
                             (int)of->name.n, of->name.p, (int)MIN(one.n, 200u), one.p);
        int r = add(set, p, err);
        if (r)
            return r;
    }
    return 0;
}

int package_set_resolve(struct package_set *set, struct index *index, const char *const *names,
                        bool required, struct error *err)
{
    int r = 0;
    size_t next = set->count;

    for (; *names && !r; names++) {
        struct package *p = choose(index, slice_of(*names));

        if (!p)
            return error_set(err, ENOENT, "the mirror's index does not have package '%s'", *names);
        r = add(set, p, err);
    }
    for (size_t i = 0; required && i < index_count(index) && !r; i++) {
        struct package *p = index_at(index, i);

        if (p->essential || p->priority == PRIORITY_REQUIRED)
            r = add(set, index_find(index, p->name), err);
    }
    for (; next < set->count && !r; next++) {
        const struct package *p = set->list[next];

        r = add_relations(set, index, p, p->pre_depends, err);
        if (!r)
            r = add_relations(set, index, p, p->depends, err);
    }
    return r;
}
