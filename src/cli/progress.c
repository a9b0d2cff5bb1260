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

/** "3.2 GiB" of rates and amounts. */
static void format_bytes(double bytes, char *buf, size_t size)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    unsigned u = 0;

    for (; bytes >= 1024 && u + 1 < ARRAY_SIZE(units); u++)
        bytes /= 1024;
    (void)snprintf(buf, size, u ? "%.1f %s" : "%.0f %s", bytes, units[u]);
}

/** Keep the line within the terminal, and show it. */
static void show_line(struct progress *p, char *line, size_t size, int64_t now)
{
    if (p->width && strlen(line) >= p->width)
        line[MIN(p->width - 1, (unsigned)size - 1)] = '\0';
    (void)fprintf(stderr, "\r\033[K%s", line);
    p->drawn = true;
    p->drawn_ns = now;
}

static void draw_bytes(struct progress *p, const char *verb, uint64_t done, uint64_t total,
                       int64_t now)
{
    double seconds = (double)(now - p->start_ns) / 1e9;
    double rate = seconds > 0 ? (double)done / seconds : 0;
    size_t full = total ? (size_t)((double)done * BAR_CELLS / (double)total) : 0;
    char bar[BAR_CELLS + 1];
    char line[256];
    char amount[3][32];

    memset(bar, '#', full);
    memset(bar + full, '.', BAR_CELLS - full);
    bar[BAR_CELLS] = '\0';
    format_bytes((double)done, amount[0], sizeof(amount[0]));
    format_bytes((double)total, amount[1], sizeof(amount[1]));
    format_bytes(rate, amount[2], sizeof(amount[2]));
    if (!total) {
        (void)snprintf(line, sizeof(line), "%s %s, %s/s", amount[0], verb, amount[2]);
        show_line(p, line, sizeof(line), now);
        return;
    }
    int n =
        snprintf(line, sizeof(line), "%3.0f%% [%s] %s of %s %s, %s/s",
                 100.0 * (double)done / (double)total, bar, amount[0], amount[1], verb, amount[2]);
    if (rate > 0 && seconds > 1 && n > 0 && n < (int)sizeof(line))
        (void)snprintf(line + n, sizeof(line) - (size_t)n, ", %.0f s left",
                       (double)(total - done) / rate);
    show_line(p, line, sizeof(line), now);
}

int progress_bytes(struct progress *p, const char *verb, uint64_t done, uint64_t total)
{
    const int64_t step_ns = 100000000;
    int64_t now = p->tty ? host_now_ns() : 0;
    unsigned tenth = total ? (unsigned)((double)done * 10 / (double)total) : 0;

    if (p->verb != verb) {
        p->verb = verb;
        p->start_ns = 0;
        p->tenth = 0;
    }
    if (p->tty && !p->start_ns) {
        p->start_ns = now;
    } else if (p->tty && now - MAX(p->drawn_ns, p->start_ns) >= step_ns) {
        draw_bytes(p, verb, done, total, now);
    } else if (p->lines && tenth != p->tenth) {
        (void)fprintf(stderr, "%u%% %s\n", tenth * 10, verb);
        p->tenth = tenth;
    }
    p->cancelled |= cancel_wanted != 0;
    return p->cancelled ? -1 : 0;
}

void progress_done(struct progress *p)
{
    wipe(p);
    handle(SIG_DFL);
}
