/* Starting programs: streams, terminal, user, signals. See guest_agent.h.
 *
 * Between fork and exec a child makes system calls only. What fails there comes back through a
 * pipe that closes at exec. */
#include "base/fd.h"
#include "guest_agent.h"

#include <fcntl.h>
#include <grp.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

enum { STEP_CWD, STEP_USER, STEP_EXEC };

/** What a child says that could not become its program. */
struct failure {
    int step, code;
};

/** The child's ends. */
struct ends {
    int in_fd, out_fd, err_fd;
    int failure_fd;
};

/** What a program is not to have from the agent. */
static void reset_process(void)
{
    sigset_t none;

    hurry(false);
    for (int i = 1; i < NSIG; i++)
        (void)signal(i, SIG_DFL); /* some cannot be set */
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static bool become(const struct user *u)
{
    if (u->uid == geteuid() && geteuid())
        return true; /* not root: it is itself already, and nobody else */
    return !setgroups(u->group_count, u->groups) && !setresgid(u->gid, u->gid, u->gid) &&
           !setresuid(u->uid, u->uid, u->uid);
}

_Noreturn static void child_main(const struct exec_spec *e, const struct ends *ends)
{
    struct failure failure = {.step = STEP_USER};

    (void)setsid(); /* a group of its own, for signals */
    if (e->tty)
        (void)ioctl(ends->in_fd, TIOCSCTTY, 0);
    if (dup2(ends->in_fd, 0) < 0 || dup2(ends->out_fd, 1) < 0 || dup2(ends->err_fd, 2) < 0)
        goto out;
    if (!become(&e->user))
        goto out;
    failure.step = STEP_CWD;
    if (chdir(e->cwd ? e->cwd : e->user.home) && (e->cwd || chdir("/")))
        goto out;
    failure.step = STEP_EXEC;
    reset_process();
    environ = e->env; /* its PATH is where the program is looked for */
    (void)execvp(e->program, e->argv);
out:
    failure.code = errno;
    (void)!write(ends->failure_fd, &failure, sizeof(failure)); /* else it has just vanished */
    _exit(127);
}

static int explain(const struct failure *f, const struct exec_spec *e, struct error *err)
{
    switch (f->step) {
    case STEP_CWD:
        return error_set(err, EINVAL, "cannot enter folder '%.200s': %s", e->cwd ? e->cwd : "/",
                         strerror(f->code));
    case STEP_USER:
        return error_set(err, EPERM, "cannot become user '%s': %s", e->user.name,
                         strerror(f->code));
    default:
        return error_set(err, f->code, "cannot run '%.200s': %s", e->program, strerror(f->code));
    }
}

/** Fork with the child's ends, and hear whether it has become its program. */
static int launch(struct child *c, const struct exec_spec *e, struct ends *ends, struct error *err)
{
    struct failure failure;
    int report[2];

    if (pipe2(report, O_CLOEXEC))
        return error_set(err, errno, "cannot make a pipe: %s", strerror(errno));
    ends->failure_fd = report[1];
    c->pid = fork();
    if (!c->pid)
        child_main(e, ends);
    fd_close(report[1]);
    if (c->pid < 0) {
        fd_close(report[0]);
        return error_set(err, errno, "cannot start a process: %s", strerror(errno));
    }
    ssize_t n = read(report[0], &failure, sizeof(failure));
    fd_close(report[0]);
    if (n != sizeof(failure))
        return 0;
    (void)waitpid(c->pid, NULL, 0);
    return explain(&failure, e, err);
}

/** A pipe whose end @ours does not block. */
static int make_pipe(int ends[2], int ours, struct error *err)
{
    if (pipe2(ends, O_CLOEXEC))
        return error_set(err, errno, "cannot make a pipe: %s", strerror(errno));
    (void)fcntl(ends[ours], F_SETFL, O_NONBLOCK);
    return 0;
}

static int start_on_pipes(struct child *c, const struct exec_spec *e, struct error *err)
{
    int in[2] = {-1, -1}, out[2] = {-1, -1}, errs[2] = {-1, -1};
    int rc = make_pipe(in, 1, err);

    if (!rc)
        rc = make_pipe(out, 0, err);
    if (!rc)
        rc = make_pipe(errs, 0, err);
    if (!rc) {
        struct ends ends = {.in_fd = in[0], .out_fd = out[1], .err_fd = errs[1]};

        rc = launch(c, e, &ends, err);
    }
    fd_close(in[0]);
    fd_close(out[1]);
    fd_close(errs[1]);
    c->in_fd = in[1];
    c->out_fd = out[0];
    c->err_fd = errs[0];
    return rc;
}

static int start_on_terminal(struct child *c, const struct exec_spec *e, struct error *err)
{
    struct winsize size = {.ws_col = e->columns, .ws_row = e->rows};
    int master, slave;

    if (openpty(&master, &slave, NULL, NULL, &size))
        return error_set(err, errno, "cannot make a terminal: %s", strerror(errno));
    (void)fcntl(master, F_SETFL, O_NONBLOCK);
    (void)fcntl(master, F_SETFD, FD_CLOEXEC);
    (void)fcntl(slave, F_SETFD, FD_CLOEXEC);
    (void)!fchown(slave, e->user.uid, (gid_t)-1); /* so that it can open /dev/tty by name */
    struct ends ends = {.in_fd = slave, .out_fd = slave, .err_fd = slave};
    c->slave_fd = slave;
    c->out_fd = master;
    c->in_fd = fcntl(master, F_DUPFD_CLOEXEC, 3);
    return c->in_fd < 0 ? error_set(err, errno, "cannot make a terminal: %s", strerror(errno))
                        : launch(c, e, &ends, err);
}

int child_start(struct child *c, const struct exec_spec *e, struct error *err)
{
    *c = (struct child){.pid = -1, .in_fd = -1, .out_fd = -1, .err_fd = -1, .slave_fd = -1};
    int rc = e->tty ? start_on_terminal(c, e, err) : start_on_pipes(c, e, err);
    if (rc) {
        fd_close(c->in_fd);
        fd_close(c->out_fd);
        fd_close(c->err_fd);
        fd_close(c->slave_fd);
    }
    return rc;
}

static pid_t start_quiet(const char *const argv[])
{
    pid_t pid = fork();

    if (pid)
        return pid;
    int null = open("/dev/null", O_RDWR);
    if (null >= 0) {
        (void)dup2(null, 0);
        (void)dup2(null, 1);
        (void)dup2(null, 2);
    }
    (void)setsid();
    (void)setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
    reset_process();
    (void)execvp(argv[0], (char *const *)argv); /* which it does not write to */
    _exit(127);
}

int command_run(const char *const argv[])
{
    int status;
    pid_t pid = start_quiet(argv);

    if (pid < 0)
        return -errno;
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR)
            return -errno;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -EINTR;
}

void command_start(const char *const argv[])
{
    (void)start_quiet(argv); /* the system's first process collects it, after this session */
}

bool command_exists(const char *name)
{
    static const char *const folders[] = {"/usr/sbin", "/usr/bin", "/sbin", "/bin"};
    char path[64];

    for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", folders[i], name);
        if (!access(path, X_OK))
            return true;
    }
    return false;
}
