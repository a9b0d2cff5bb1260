/* A machine without a CPU, to test the command line alone: the "guest" is a line reader on the
 * console.
 *
 *   echo TEXT   prints TEXT        size     prints the console's COLUMNSxROWS
 *   off N       powers off with N  panic    ends with a guest failure of status 1
 *   fail        ends with an engine error   hang   ignores SysRq from now on
 *
 * Ctrl-O and a key is SysRq, as on a Linux console: o powers off.
 *
 * With a port posada.cmd it runs the script with the host's sh and powers off
 * (docs/guest-command.md). Threads: as vm/vm.h; all state is under lock. */
#include "base/clock.h"
#include "vm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct vm {
    const struct vm_config *config; /* [init] */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    enum vm_state state;     /* [lock] */
    struct vm_result result; /* [lock] */
    unsigned columns, rows;  /* [lock] */
    bool hangs;              /* [lock] */
    bool sysrq;              /* [lock] the next key is */
    char line[256];          /* [lock] */
    size_t line_size;        /* [lock] */
    int64_t started_ns;      /* [init] */
    pthread_t runner;
    bool has_runner;
};

bool vm_set_memory(struct vm *vm, uint64_t bytes)
{
    return true;
}

bool vm_guest_address(struct vm *vm, char ret[16])
{
    return false;
}

size_t vm_counters(struct vm *vm, struct counter *ret, size_t max)
{
    if (max)
        ret[0] = (struct counter){.name = "turns", .value = 7};
    return max > 0;
}

int vm_new(const struct vm_config *config, struct vm **ret, struct error *err)
{
    if (config->kernel && access(config->kernel, R_OK))
        return error_set(err, errno, "cannot open kernel '%s': %s", config->kernel,
                         strerror(errno));
    struct vm *vm = calloc(1, sizeof(*vm));
    if (!vm)
        return error_set(err, ENOMEM, "out of memory");
    vm->config = config;
    (void)pthread_mutex_init(&vm->mutex, NULL);
    (void)pthread_cond_init(&vm->changed, NULL);
    *ret = vm;
    return 0;
}

static void say(const struct vm *vm, const char *text)
{
    if (vm->config->console_out >= 0 && write(vm->config->console_out, text, strlen(text)) < 0)
        return; /* nobody reads the console any more */
}

static void stop_locked(struct vm *vm, enum vm_stop_reason reason, int status)
{
    if (vm->state == VM_STOPPED)
        return;
    vm->state = VM_STOPPED;
    vm->result.reason = reason;
    vm->result.status = status;
    vm->result.guest_instructions = 12345;
    vm->result.wall_ns = host_now_ns() - vm->started_ns;
    (void)pthread_cond_broadcast(&vm->changed);
}

static void stop(struct vm *vm, enum vm_stop_reason reason, int status)
{
    (void)pthread_mutex_lock(&vm->mutex);
    stop_locked(vm, reason, status);
    (void)pthread_mutex_unlock(&vm->mutex);
}

/** The descriptor of port @name: its guest-bound end with @in. -1 = there is none. */
static int port(const struct vm *vm, const char *name, bool in)
{
    for (size_t i = 0; i < vm->config->port_count; i++) {
        const struct vm_port_config *p = &vm->config->ports[i];
        if (!strcmp(p->name, name))
            return in ? p->in_fd : p->out_fd;
    }
    return -1;
}

/** The size line that precedes a script, read byte by byte: what follows is not ours. */
static size_t read_size(int fd)
{
    size_t n = 0;
    char c;

    while (read(fd, &c, 1) == 1 && c != '\n')
        n = n * 10 + (size_t)(c - '0');
    return n;
}

static void *run_script(void *arg)
{
    struct vm *vm = arg;
    int in = port(vm, "posada.cmd", true);
    size_t size = read_size(in);
    char *script = calloc(1, size + 1);
    int status = 0;

    for (size_t got = 0; script && got < size;) {
        ssize_t n = read(in, script + got, size - got);
        if (n <= 0)
            break;
        got += (size_t)n;
    }
    say(vm, "fake console\r\n");
    pid_t pid = fork();
    if (!pid) {
        (void)dup2(in, 0);
        (void)dup2(port(vm, "posada.out", false), 1);
        (void)dup2(port(vm, "posada.err", false), 2);
        (void)execl("/bin/sh", "sh", "-c", script, (char *)NULL);
        _exit(127);
    }
    free(script);
    (void)waitpid(pid, &status, 0);
    if (!WIFSIGNALED(status))
        (void)dprintf(port(vm, "posada.status", false), "%d\n", WEXITSTATUS(status));
    stop(vm, VM_STOP_POWEROFF, 0);
    return NULL;
}

int vm_start(struct vm *vm, struct error *err)
{
    vm->started_ns = host_now_ns();
    vm->state = VM_RUNNING;
    if (port(vm, "posada.cmd", true) >= 0) {
        vm->has_runner = !pthread_create(&vm->runner, NULL, run_script, vm);
        return 0;
    }
    say(vm, "ready\r\n");
    return 0;
}

int vm_wait(struct vm *vm, int64_t deadline_ns, struct vm_result *ret)
{
    (void)pthread_mutex_lock(&vm->mutex);
    while (vm->state != VM_STOPPED && host_now_ns() < deadline_ns) {
        struct timespec at;
        (void)clock_gettime(CLOCK_REALTIME, &at);
        at.tv_sec += 1; /* then it looks at the deadline again */
        if (deadline_ns == INT64_MAX)
            (void)pthread_cond_wait(&vm->changed, &vm->mutex);
        else
            (void)pthread_cond_timedwait(&vm->changed, &vm->mutex, &at);
    }
    bool stopped = vm->state == VM_STOPPED;
    *ret = vm->result;
    (void)pthread_mutex_unlock(&vm->mutex);
    return stopped ? 0 : -ETIMEDOUT;
}

void vm_stop(struct vm *vm)
{
    stop(vm, VM_STOP_REQUEST, 1);
}

void vm_reset(struct vm *vm)
{
    say(vm, "ready\r\n");
}

static void set_state(struct vm *vm, enum vm_state from, enum vm_state to)
{
    (void)pthread_mutex_lock(&vm->mutex);
    if (vm->state == from)
        vm->state = to;
    (void)pthread_mutex_unlock(&vm->mutex);
}

void vm_pause(struct vm *vm)
{
    set_state(vm, VM_RUNNING, VM_PAUSED);
}

void vm_resume(struct vm *vm)
{
    set_state(vm, VM_PAUSED, VM_RUNNING);
}

enum vm_state vm_get_state(struct vm *vm)
{
    (void)pthread_mutex_lock(&vm->mutex);
    enum vm_state state = vm->state;
    (void)pthread_mutex_unlock(&vm->mutex);
    return state;
}

void vm_console_resize(struct vm *vm, unsigned columns, unsigned rows)
{
    (void)pthread_mutex_lock(&vm->mutex);
    vm->columns = columns;
    vm->rows = rows;
    (void)pthread_mutex_unlock(&vm->mutex);
}

static void run_line_locked(struct vm *vm)
{
    char text[300];

    if (!strncmp(vm->line, "echo ", 5)) {
        (void)snprintf(text, sizeof(text), "%s\r\n", vm->line + 5);
        say(vm, text);
    } else if (!strcmp(vm->line, "size")) {
        (void)snprintf(text, sizeof(text), "%ux%u\r\n", vm->columns, vm->rows);
        say(vm, text);
    } else if (!strncmp(vm->line, "off ", 4)) {
        stop_locked(vm, VM_STOP_POWEROFF, atoi(vm->line + 4));
    } else if (!strcmp(vm->line, "panic")) {
        stop_locked(vm, VM_STOP_PANIC, 1);
    } else if (!strcmp(vm->line, "fail")) {
        (void)error_set(&vm->result.error, EIO, "the engine gave up");
        stop_locked(vm, VM_STOP_ERROR, 1);
    } else if (!strcmp(vm->line, "hang")) {
        vm->hangs = true;
        say(vm, "hanging\r\n");
    } else if (!strcmp(vm->line, "crash")) {
        abort();
    }
}

/** Takes at most 7 bytes at a time, as a guest with a small buffer does. */
size_t vm_console_input(struct vm *vm, const void *data, size_t size)
{
    size_t taken = MIN(size, (size_t)7);

    (void)pthread_mutex_lock(&vm->mutex);
    if (vm->state == VM_PAUSED)
        taken = 0;
    for (size_t i = 0; i < taken; i++) {
        char c = ((const char *)data)[i];
        if (vm->sysrq || c == 0x0f) {
            if (vm->sysrq && c == 'o' && !vm->hangs)
                stop_locked(vm, VM_STOP_POWEROFF, 0);
            vm->sysrq = c == 0x0f;
        } else if (c == 0x04) {
            stop_locked(vm, VM_STOP_POWEROFF, 0);
        } else if (c == '\r' || c == '\n') {
            vm->line[vm->line_size] = '\0';
            vm->line_size = 0;
            run_line_locked(vm);
        } else if (c == 0x03 || c == 0x1d) {
            say(vm, c == 0x03 ? "got ^C\r\n" : "got ^]\r\n");
        } else if (vm->line_size < sizeof(vm->line) - 1) {
            vm->line[vm->line_size++] = c;
        }
    }
    (void)pthread_mutex_unlock(&vm->mutex);
    return taken;
}

void vm_free(struct vm *vm)
{
    if (!vm)
        return;
    stop(vm, VM_STOP_REQUEST, 0);
    if (vm->has_runner)
        (void)pthread_join(vm->runner, NULL);
    (void)pthread_cond_destroy(&vm->changed);
    (void)pthread_mutex_destroy(&vm->mutex);
    free(vm);
}

int vm_kvm_check(struct error *err)
{
    return error_set(err, ENOENT, "the fake machine has no KVM");
}

const char *vm_kvm_remedy(int rc)
{
    return "";
}
