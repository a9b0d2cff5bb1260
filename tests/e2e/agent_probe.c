/* What no verb of the command line asks of an agent yet, for tests of real guests:
 *
 *     agent_probe DIR ping N               median and largest µs of connect and ping
 *     agent_probe DIR exec N               the same of connect and running true to its end
 *     agent_probe DIR info
 *     agent_probe DIR freeze MS            "frozen N"; a line on stdin thaws: "thawed", or the
 * error agent_probe DIR identity KEY=VALUE...  hostname, machine_id, ssh_keys, later, mac=FROM,TO
 *     agent_probe DIR set-time NS | reseed | poweroff | reboot */
#include "agent/agent.h"
#include "base/clock.h"
#include "base/fd.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static const char *dir;
static struct error err;

static int64_t soon(void)
{
    return host_now_ns() + 120000000000;
}

static struct agent *open_agent(void)
{
    struct agent *a;

    return agent_connect(dir, soon(), &a, &err) ? NULL : a;
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static int run_true(struct agent *a)
{
    const struct agent_exec e = {
        .argv = (const char *const[]){"true", NULL}
    };
    const struct agent_streams s = {.in_fd = -1, .out_fd = -1, .err_fd = -1, .event_fd = -1};
    struct agent_exit x;
    int rc = agent_exec_start(a, &e, soon(), &err);

    return rc ? rc : agent_exec_run(a, &s, &x, &err);
}

static int measure(bool exec, int n)
{
    cleanup(freep) int64_t *us = calloc((size_t)n, sizeof(*us));
    int rc = us ? 0 : -ENOMEM;

    for (int i = 0; i < n && !rc; i++) {
        int64_t start = host_now_ns();
        struct agent *a = open_agent();

        rc = !a ? -1 : exec ? run_true(a) : agent_ping(a, soon(), &err);
        us[i] = (host_now_ns() - start) / 1000;
        agent_close(a);
    }
    if (rc)
        return rc;
    qsort(us, (size_t)n, sizeof(*us), compare);
    (void)printf("median %" PRId64 " us, largest %" PRId64 " us\n", us[n / 2], us[n - 1]);
    return 0;
}

static int print_info(struct agent *a)
{
    struct agent_info *i = calloc(1, sizeof(*i));
    int rc = i ? agent_get_info(a, soon(), i, &err) : -ENOMEM;

    if (!rc) {
        (void)printf("hostname %s\nos_id %s\nos_name %s\nkernel %s\nmachine_id %s\nversion %s\n",
                     i->hostname, i->os_id, i->os_name, i->kernel, i->machine_id, i->version);
        for (size_t n = 0; n < i->address_count; n++)
            (void)printf("address %s %s %s\n", i->addresses[n].interface, i->addresses[n].mac,
                         i->addresses[n].address);
        for (size_t n = 0; n < i->user_count; n++)
            (void)printf("user %s %s\n", i->users[n].name, i->users[n].terminal);
    }
    free(i);
    return rc;
}

static int freeze(struct agent *a, int64_t timeout_ms)
{
    unsigned count;
    int rc = agent_freeze(a, timeout_ms, soon(), &count, &err);

    if (rc)
        return rc;
    (void)printf("frozen %u\n", count);
    (void)fflush(stdout);
    (void)getchar();
    rc = agent_thaw(a, soon(), &err);
    if (!rc)
        (void)printf("thawed\n");
    return rc;
}

static int set_identity(struct agent *a, int n, char **words)
{
    struct agent_identity id = {0};

    for (int i = 0; i < n; i++) {
        char *value = strchr(words[i], '=');

        if (!value)
            return -EINVAL;
        *value++ = '\0';
        if (!strcmp(words[i], "hostname"))
            id.hostname = value;
        if (!strcmp(words[i], "machine_id"))
            id.machine_id = value;
        if (!strcmp(words[i], "ssh_keys"))
            id.ssh_keys = true;
        if (!strcmp(words[i], "later"))
            id.later = true;
        if (!strcmp(words[i], "mac")) {
            id.macs[0].from = strtok(value, ",");
            id.macs[0].to = strtok(NULL, ",");
            id.mac_count = 1;
        }
    }
    return agent_set_identity(a, &id, soon(), &err);
}

static int reseed(struct agent *a)
{
    unsigned char bytes[64];

    if (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
        return -errno;
    return agent_reseed(a, bytes, sizeof(bytes), soon(), &err);
}

static int run(const char *verb, int argc, char **argv)
{
    const char *number = argc ? argv[0] : "1";

    if (!strcmp(verb, "ping") || !strcmp(verb, "exec"))
        return measure(!strcmp(verb, "exec"), atoi(number));
    struct agent *a = open_agent();
    int rc = -EINVAL;

    if (!a)
        return -1;
    if (!strcmp(verb, "info"))
        rc = print_info(a);
    else if (!strcmp(verb, "freeze"))
        rc = freeze(a, atoll(number));
    else if (!strcmp(verb, "identity"))
        rc = set_identity(a, argc, argv);
    else if (!strcmp(verb, "set-time"))
        rc = agent_set_time(a, atoll(number), soon(), &err);
    else if (!strcmp(verb, "reseed"))
        rc = reseed(a);
    else if (!strcmp(verb, "poweroff"))
        rc = agent_shutdown(a, AGENT_POWER_OFF, false, soon(), &err);
    else if (!strcmp(verb, "reboot"))
        rc = agent_shutdown(a, AGENT_REBOOT, false, soon(), &err);
    agent_close(a);
    return rc;
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    dir = argv[1];
    int rc = run(argv[2], argc - 3, argv + 3);
    if (rc)
        (void)fprintf(stderr, "agent_probe: %s\n", error_text(&err));
    return rc ? 1 : 0;
}
