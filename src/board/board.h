/* What every machine model has in common, as vm sees it: a PCI host that takes devices, a serial
 * line, and things done to all of it at once. A model's own calls are in its own header. */
#ifndef BOARD_BOARD_H
#define BOARD_BOARD_H

#include "base/error.h"

struct board;
struct pci_host;
struct state_in;
struct state_out;
struct uart;

struct board_ops {
    const char *name;
    /** Power-on state of every device; PCI functions too. vCPUs stand still. */
    void (*reset)(struct board *b);
    /** State for a snapshot of every device of the board, and of its PCI functions' registers (not
     * of what is behind them). vCPUs and loops stand still. A failed load (-EINVAL) leaves any
     * state: reset or free it. */
    void (*save)(struct board *b, struct state_out *out);
    int (*load)(struct board *b, const struct state_in *in, struct error *err);
    /** The guest clock stands still, or runs again. */
    void (*pause)(struct board *b); /* may be NULL */
    void (*resume)(struct board *b);
    /** The machine goes on from a saved state that was loaded: tell the guest, which reseeds. */
    void (*changed_generation)(struct board *b); /* may be NULL */
    void (*free)(struct board *b);
};

/** The first member of every model's struct. */
struct board {
    const struct board_ops *ops; /* [init] */
    struct pci_host *pci;        /* [init] */
    struct uart *uart;           /* [init] */
};

static inline void board_reset(struct board *b)
{
    b->ops->reset(b);
}

static inline void board_save(struct board *b, struct state_out *out)
{
    b->ops->save(b, out);
}

must_check static inline int board_load(struct board *b, const struct state_in *in,
                                        struct error *err)
{
    return b->ops->load(b, in, err);
}

static inline void board_pause(struct board *b)
{
    if (b->ops->pause)
        b->ops->pause(b);
}

static inline void board_resume(struct board *b)
{
    b->ops->resume(b);
}

static inline void board_changed_generation(struct board *b)
{
    if (b->ops->changed_generation)
        b->ops->changed_generation(b);
}

static inline void board_free(struct board *b)
{
    if (b)
        b->ops->free(b);
}

#endif
