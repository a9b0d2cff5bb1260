/* An interrupt line, as a device sees it: something to raise and lower. Header only. */
#ifndef DEVICE_IRQ_H
#define DEVICE_IRQ_H

#include <stdbool.h>
#include <stddef.h>

/** A level-triggered wire into an interrupt controller. @set runs on any thread and must be quick;
 * it may take the controller's lock, so call it with no lock that the controller's owner may hold
 * (see docs/locking.md). */
struct irq_line {
    void (*set)(void *controller, unsigned input, bool level);
    void *controller;
    unsigned input;
};

/** Raise or lower; a zeroed line is not connected and ignores it. */
static inline void irq_set(const struct irq_line *line, bool level)
{
    if (line->set)
        line->set(line->controller, line->input, level);
}

#endif
