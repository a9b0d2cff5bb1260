/* A statistic as it is shown: rows of name, unit and value, whoever counted. */
#ifndef BASE_COUNTER_H
#define BASE_COUNTER_H

#include <stdint.h>

enum counter_unit { COUNTER_NUMBER, COUNTER_BYTES, COUNTER_NS };

struct counter {
    const char *name; /* of lower case words and underscores; a constant */
    enum counter_unit unit;
    uint64_t value;
};

#endif
