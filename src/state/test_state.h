/* For tests of what saves and loads: from one to the other. Header only. */
#ifndef STATE_TEST_STATE_H
#define STATE_TEST_STATE_H

#include "base/test.h"
#include "state/state.h"

#include <stdlib.h>

/** Data that states borrow, until the test's process ends. */
struct test_state_data {
    struct test_state_data *next;
    uint8_t *data;
};
static struct test_state_data *test_state_kept;

/** What was put into @out, ready to load. Frees @out; the data stays until the test's process ends.
 */
static inline struct state_in *test_state_turn(struct state_out *out)
{
    struct state_in *in = NULL;
    struct error err = {0};
    uint8_t *data = NULL;
    size_t size = 0;

    ASSERT_EQ(state_out_take(out, &data, &size), 0);
    state_out_free(out);
    struct test_state_data *keep = malloc(sizeof(*keep));
    ASSERT_TRUE(keep);
    *keep = (struct test_state_data){.next = test_state_kept, .data = data};
    test_state_kept = keep;
    if (state_in_new(data, size, &in, &err))
        test_fail(__FILE__, __LINE__, "%s", error_text(&err));
    ASSERT_TRUE(in);
    return in;
}

#endif
