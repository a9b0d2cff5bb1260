/* posada edit: an instance's configuration in the user's editor. */
#include "base/error.h"
#include "base/fd.h"
#include "base/paths.h"
#include "cli/remote.h"
#include "cli/verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

struct edit_values {
    struct cmd_common common;
};

/** Have the user edit file @path. */
static int edit(const char *path, struct error *err)
{
    const char *editor = getenv("VISUAL");
    int status = 0;

    if (!editor || !*editor)
        editor = getenv("EDITOR");
    if (!editor || !*editor)
        editor = "vi";
    cleanup(freep) char *line = paths_format(err, "%s \"$1\"", editor);
    if (!line)
        return -ENOMEM;
    (void)fflush(NULL);
    pid_t pid = fork();
    if (!pid) {
        (void)execl("/bin/sh", "sh", "-c", line, "sh", path, (char *)NULL);
        _exit(127);
    }
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {
        /* again */
    }
    if (pid < 0 || status)
        return error_set(err, EIO, "the editor '%s' failed: nothing was changed", editor);
    return 0;
}

/** May we ask, and does the user want to edit again? */
static bool wants_again(const struct error *err)
{
    char answer[16] = "";

    if (isatty(STDIN_FILENO) != 1)
        return false;
    (void)fprintf(stderr, "%s\nedit again? [Y/n] ", error_text(err));
    return fgets(answer, sizeof(answer), stdin) && answer[0] != 'n' && answer[0] != 'N';
}

/** Edit the copy @copy until it is right. */
static int edit_until_right(const char *copy, char **ret, struct error *err)
{
    for (;;) {
        struct instance_config c;
        struct error why = {0};
        size_t size;
        int r = edit(copy, err);
        if (!r)
            r = paths_read(copy, CONFIG_FILE_MAX, ret, &size, err);
        if (r)
            return r;
        r = config_parse("instance.yaml", *ret, size, &c, &why);
        if (!r) {
            config_done(&c);
            return 0;
        }
        free(ptr_take(ret));
        if (!wants_again(&why))
            return error_set(err, why.code, "%s: nothing was changed", error_text(&why));
    }
}

/** Put @text in place of @old. What identifies the instance stays. */
static int replace(const char *name, const char *old, const char *text, struct error *err)
{
    struct instance *in;
    cleanup(freep) char *now = NULL;
    size_t size;
    int r = instance_open(name, INSTANCE_CHANGE, &in, err);

    if (r)
        return r;
    cleanup(freep) char *path = instance_path(in, err, "instance.yaml");
    r = path ? paths_read(path, CONFIG_FILE_MAX, &now, &size, err) : -ENOMEM;
    if (!r && strcmp(old, now) != 0)
        r = error_set(err, EBUSY,
                      "'%s' was changed by another command meanwhile: nothing was "
                      "changed",
                      name);
    if (!r)
        r = instance_write_config(in, text, err);
    if (!r && instance_is_running(in)) {
        (void)fprintf(stderr,
                      "posada edit: '%s' runs: most changes are used from its next start "
                      "on\n",
                      name);
        r = remote_call(name, "reload", NULL, REMOTE_TIMEOUT_MS, NULL, err);
    }
    instance_close(in);
    return r;
}

static int edit_instance(const char *name, struct error *err)
{
    char copy[] = "/tmp/posada-XXXXXX.yaml";
    cleanup(freep) char *old = NULL;
    cleanup(freep) char *text = NULL;
    struct instance *in;
    size_t size;
    int r = instance_open(name, 0, &in, err);

    if (r)
        return r;
    cleanup(freep) char *path = instance_path(in, err, "instance.yaml");
    instance_close(in);
    r = path ? paths_read(path, CONFIG_FILE_MAX, &old, &size, err) : -ENOMEM;
    if (r)
        return r;
    cleanup(fd_closep) int fd = mkostemps(copy, 5, O_CLOEXEC);
    if (fd < 0)
        return error_set(err, errno, "cannot create '%s': %s", copy, strerror(errno));
    r = fd_write_all(fd, old, size);
    if (r)
        r = error_set(err, -r, "cannot write '%s': %s", copy, strerror(-r));
    if (!r)
        r = edit_until_right(copy, &text, err);
    if (!r && strcmp(old, text) != 0)
        r = replace(name, old, text, err);
    (void)unlink(copy);
    return r;
}

static int run_edit(const struct cmd *cmd, void *values, struct opt_args *args)
{
    struct error err = {0};

    return edit_instance(args->v[0], &err) ? cmd_fail(cmd, CLI_ERROR, &err) : CLI_OK;
}

static const struct opt_def edit_opts[] = {
    CMD_COMMON_ROWS(struct edit_values),
};

const struct cmd cmd_edit = {
    .path = "edit",
    .operands = "NAME",
    .summary = "edit an instance's configuration",
    .description =
        "Open the configuration of an instance in $VISUAL, $EDITOR or vi. What comes back is checked; when "
        "it is wrong the error is shown with its line, and it can be edited again. 'posada help set' "
        "explains the keys.",
    .opts = edit_opts,
    .values_size = sizeof(struct edit_values),
    .min_operands = 1,
    .max_operands = 1,
    .run = run_edit,
};
