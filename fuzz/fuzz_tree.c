/* tree.json: whatever it holds, it is read in bounded time or refused; what is read is whole, stays
 * the same when it is written and read again, and can be cleaned up to the end. */
#include "store/tree.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void clean_up(struct tree *t)
{
    const struct tree_needs none = {0};
    struct tree_step s;
    size_t steps = t->layer_count + 1;

    for (tree_next_step(t, &none, &s); s.kind != TREE_DONE; tree_next_step(t, &none, &s)) {
        assert(steps--);
        assert(!tree_drop_layer(t, s.layer));
        assert(!tree_check(t, NULL));
    }
    assert(!tree_unwanted(t, &none));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    struct tree *t = NULL;
    struct tree *again = NULL;
    char *text = NULL;
    char *second = NULL;
    size_t length;

    if (tree_parse((const char *)data, size, &t, &err)) {
        assert(*err.text && !t);
        return 0;
    }
    if (!tree_format(t, &text, &length, &err)) {
        assert(!tree_parse(text, length, &again, &err));
        assert(!tree_format(again, &second, &length, &err));
        assert(!strcmp(text, second));
    }
    if (t->snapshot_count && !tree_restore(t, t->snapshots[size % t->snapshot_count].id, &err)) {
        assert(!tree_check(t, &err));
        tree_remove_snapshot(t, t->snapshots[size % t->snapshot_count].id);
        assert(!tree_check(t, &err));
    }
    if (t->layer_count < 100)
        clean_up(t);
    free(text);
    free(second);
    tree_free(t);
    tree_free(again);
    return 0;
}
