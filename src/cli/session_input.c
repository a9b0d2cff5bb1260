/* From the user's keys to the guest's console, and the menu behind the escape key. The main thread.
 */
#include "base/clock.h"
#include "base/log.h"
#include "cli/session.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#define EOF_REPEAT_NS 500000000LL

void session_say(const struct session *s, const char *fmt, ...)
{
    const char *eol = s->terminal.is_raw ? "\r\n" : "\n";
    char line[512];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    (void)fprintf(stderr, "%s%s%s", s->terminal.is_raw ? "\r\n" : "", line, eol);
}

static void menu_help(const struct session *s)
{
    session_say(
        s,
        "posada: q power off   k stop at once   r reset   p pause or resume   i info   ] send Ctrl-]"
        "   any other key: back");
}

static void menu_info(const struct session *s)
{
    static const char *const states[] = {"created", "running", "paused", "stopped"};
    static const char *const engines[] = {"jit", "interp", "check", "kvm"};
    const struct vm_config *c = &s->run->config;
    char memory[32];

    session_say(
        s, "posada: '%s', %s, engine %s, %u cpus, %s memory, process %d, %" PRIu64 " guest errors",
        c->name, states[vm_get_state(s->vm)], engines[c->engine], c->cpus,
        opt_format_size(c->memory_bytes, memory, sizeof(memory)), (int)getpid(),
        guest_error_count());
}

static void menu_pause(const struct session *s)
{
    if (vm_get_state(s->vm) == VM_PAUSED) {
        vm_resume(s->vm);
        session_say(s, "posada: running");
    } else {
        vm_pause(s->vm);
        session_say(s, "posada: paused; Ctrl-] p resumes");
    }
}

static void menu_power_off(struct session *s)
{
    if (session_ask_power_off(s, host_now_ns()))
        session_say(s, "posada: asking the guest's kernel to power off; Ctrl-] k stops it at once");
    else
        session_say(
            s,
            "posada: this guest cannot be asked; power it off from inside, or Ctrl-] k stops it at once");
}

/** One key of the menu. True: the key is for the guest after all. */
static bool menu_key(struct session *s, char key)
{
    s->in_menu = false;
    switch (key) {
    case 'q':
        menu_power_off(s);
        break;
    case 'k':
        session_request_stop(s, SESSION_USER, 0);
        break;
    case 'r':
        vm_reset(s->vm);
        session_say(s, "posada: reset");
        break;
    case 'p':
        menu_pause(s);
        break;
    case 'i':
        menu_info(s);
        break;
    case 'h':
    case '?':
        menu_help(s);
        s->in_menu = true;
        break;
    case ']':
    case TERMINAL_ESCAPE:
        return true;
    default:
        session_say(s, "posada: back in the guest");
    }
    return false;
}

/** Take escape sequences for the menu out of @n bytes at @buf; returns how many are left. */
static size_t filter_keys(struct session *s, char *buf, size_t n)
{
    size_t kept = 0;

    for (size_t i = 0; i < n; i++) {
        if (s->in_menu) {
            if (menu_key(s, buf[i]))
                buf[kept++] = TERMINAL_ESCAPE;
        } else if (buf[i] == TERMINAL_ESCAPE) {
            s->in_menu = true;
            menu_help(s);
        } else {
            buf[kept++] = buf[i];
        }
    }
    return kept;
}

bool session_push_input(struct session *s)
{
    while (s->input_at < s->input_size) {
        size_t n = vm_console_input(s->vm, s->input + s->input_at, s->input_size - s->input_at);
        if (!n)
            return false;
        s->input_at += n;
    }
    s->input_at = s->input_size = 0;
    return true;
}

/** Put @n bytes behind what waits; what does not fit is lost, as on any terminal whose reader is
 * away. */
static void queue_input(struct session *s, const char *data, size_t n)
{
    memmove(s->input, s->input + s->input_at, s->input_size - s->input_at);
    s->input_size -= s->input_at;
    s->input_at = 0;
    n = MIN(n, sizeof(s->input) - s->input_size);
    memcpy(s->input + s->input_size, data, n);
    s->input_size += n;
}

void session_read_input(struct session *s)
{
    char buf[SESSION_INPUT_MAX];
    ssize_t n = read(STDIN_FILENO, buf, sizeof(buf));

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n > 0) {
        s->stdin_had_data = true;
        queue_input(s, buf, s->stdin_is_tty ? filter_keys(s, buf, (size_t)n) : (size_t)n);
    } else {
        s->reads_stdin = false;
        if (!n && s->stdin_had_data && !s->stdin_is_tty)
            s->eof_at_ns = 0;
    }
    (void)session_push_input(s); /* what is left waits for room */
}

void session_type_eof(struct session *s, int64_t now_ns)
{
    static const char end_of_transmission = 0x04;

    if (now_ns < s->eof_at_ns || s->input_size)
        return;
    queue_input(s, &end_of_transmission, 1);
    s->eof_at_ns = now_ns + EOF_REPEAT_NS;
}

/** Linux takes SysRq from the virtio console as Ctrl-O and a key. The kernel does each on its own
 * time, so we give it some between sync, read-only, and off. (Documentation/admin-guide/sysrq.rst;
 * Debian allows these three.) */
static const struct {
    char key;
    int64_t pause_ns;
} power_keys[] = {
    {'s', 300000000},
    {'u', 500000000},
    {'o', 0        }
};

bool session_ask_power_off(struct session *s, int64_t now_ns)
{
    const struct vm_config *c = &s->run->config;

    if (!c->kernel || c->console_uart)
        return false;
    if (vm_get_state(s->vm) == VM_PAUSED)
        vm_resume(s->vm);
    if (s->power_at_ns == INT64_MAX) {
        s->power_step = 0;
        s->power_at_ns = now_ns;
    }
    return true;
}

void session_type_power_off(struct session *s, int64_t now_ns)
{
    if (now_ns < s->power_at_ns || s->input_size)
        return;
    const char keys[] = {0x0f, power_keys[s->power_step].key};
    queue_input(s, keys, sizeof(keys));
    (void)session_push_input(s);
    s->power_at_ns = now_ns + power_keys[s->power_step].pause_ns;
    if (++s->power_step == ARRAY_SIZE(power_keys))
        s->power_at_ns = INT64_MAX;
}
