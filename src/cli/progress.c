/* Progress of an image build. See cli/progress.h. The main thread; the signal handler only sets a
 * flag. */
#include "cli/progress.h"

#include "base/clock.h"
#include "cli/terminal.h"
#include "image/image.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BAR_CELLS = 24 };

static volatile sig_atomic_t cancel_wanted; /* a handler has no other place */

static void on_signal(int signo)
{
    cancel_wanted = 1;
}

static void handle(void (*fn)(int))
{
    struct sigaction sa = {.sa_handler = fn};

    (void)sigaction(SIGINT, &sa, NULL);
    (void)sigaction(SIGTERM, &sa, NULL);
}

void progress_init(struct progress *p)
{
    unsigned rows;

    *p = (struct progress){.tty = isatty(STDERR_FILENO) == 1, .width = 80};
    (void)terminal_size(STDERR_FILENO, &p->width, &rows); /* width stays 80 */
    cancel_wanted = 0;
    handle(on_signal);
}

static void wipe(struct progress *p)
{
    if (p->drawn)
        (void)fprintf(stderr, "\r\033[K");
    p->drawn = false;
}

/** "12.3 / 40.0 MiB", "3 / 12" or "". */
static void format_amount(const struct image_progress *s, char *buf, size_t size)
{
    const double mib = 1 << 20;

    if (s->is_bytes && s->total)
        (void)snprintf(buf, size, " %.1f / %.1f MiB", (double)s->done / mib,
                       (double)s->total / mib);
    else if (s->is_bytes)
        (void)snprintf(buf, size, " %.1f MiB", (double)s->done / mib);
    else if (s->total)
        (void)snprintf(buf, size, " %" PRIu64 " / %" PRIu64, s->done, s->total);
    else
        buf[0] = '\0';
}

static void draw(struct progress *p, const struct image_progress *s)
{
    char amount[64];
    char line[256];
    char bar[BAR_CELLS + 1];
    int64_t seconds = (host_now_ns() - p->stage_start_ns) / 1000000000;
    size_t full = s->total ? (size_t)(MIN(s->done, s->total) * BAR_CELLS / s->total) : 0;

    memset(bar, '#', full);
    memset(bar + full, '.', BAR_CELLS - full);
    bar[BAR_CELLS] = '\0';
    format_amount(s, amount, sizeof(amount));
    (void)snprintf(line, sizeof(line), "[%u/%u] %s%s%s%s%s %" PRId64 "s", s->stage_nr,
                   s->stage_count, s->stage, s->total ? " [" : "", s->total ? bar : "",
                   s->total ? "]" : "", amount, seconds);
    if (p->width && strlen(line) >= p->width)
        line[MIN(p->width - 1, (unsigned)sizeof(line) - 1)] = '\0';
    (void)fprintf(stderr, "\r\033[K%s", line);
    p->drawn = true;
}

int progress_report(const struct image_progress *step, void *arg)
{
    struct progress *p = arg;

    if (step->stage_nr != p->stage_nr) {
        p->stage_nr = step->stage_nr;
        p->stage_start_ns = host_now_ns();
        if (!p->tty)
            (void)fprintf(stderr, "[%u/%u] %s\n", step->stage_nr, step->stage_count, step->stage);
    }
    if (p->tty)
        draw(p, step);
    p->cancelled |= cancel_wanted != 0;
    return p->cancelled ? -1 : 0;
}

void progress_done(struct progress *p)
{
    wipe(p);
    handle(SIG_DFL);
}
