/* Shutting down, the clock, the kernel's random numbers. See guest_agent.h. */
#include "base/fd.h"
#include "guest_agent.h"

#include <fcntl.h>
#include <linux/random.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <time.h>

enum { RESEED_MAX = 4096 };

int shutdown_serve(struct session *s, const struct wire_frame *f, struct error *err)
{
    const char *how = wire_find(f, "how");
    int64_t force;

    if (!how || (strcmp(how, "poweroff") && strcmp(how, "reboot")) ||
        wire_find_int(f, "force", 0, 1, 0, &force))
        return error_set(err, EINVAL, "shut down how?");
    int rc = session_reply(s);
    if (!rc)
        rc = wire_flush_all(&s->wire, INT64_MAX);
    if (rc)
        return -ECONNRESET;
    if (force) {
        sync();
        (void)reboot(!strcmp(how, "reboot") ? RB_AUTOBOOT : RB_POWER_OFF);
    }
    /* systemd's programs of these names, and busybox's, tell the first process. */
    const char *const command[] = {how, NULL};
    (void)command_run(command);
    return 0;
}

int set_time_serve(struct session *s, const struct wire_frame *f, struct error *err)
{
    int64_t ns;

    if (!wire_find(f, "time_ns") || wire_find_int(f, "time_ns", 0, INT64_MAX, 0, &ns))
        return error_set(err, EINVAL, "set the clock to what?");
    struct timespec t = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    if (clock_settime(CLOCK_REALTIME, &t))
        return error_set(err, errno, "cannot set the clock: %s", strerror(errno));
    return session_reply(s);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int reseed_serve(struct session *s, const struct wire_frame *f, struct error *err)
{
    union {
        struct rand_pool_info info;
        unsigned char room[sizeof(struct rand_pool_info) + RESEED_MAX]; /* for its array */
    } pool = {0};
    const char *hex = wire_find(f, "bytes");
    size_t n = hex ? strlen(hex) / 2 : 0;

    if (!hex || strlen(hex) % 2 || !n || n > RESEED_MAX)
        return error_set(err, EINVAL, "1 to %d random bytes, in hexadecimal", RESEED_MAX);
    for (size_t i = 0; i < n; i++) {
        int high = hex_digit(hex[2 * i]), low = hex_digit(hex[2 * i + 1]);

        if (high < 0 || low < 0)
            return error_set(err, EINVAL, "random bytes must be in hexadecimal");
        pool.room[sizeof(pool.info) + i] = (unsigned char)(high << 4 | low);
    }
    pool.info.buf_size = (int)n;
    pool.info.entropy_count = (int)n * 8;
    cleanup(fd_closep) int fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, RNDADDENTROPY, &pool) || ioctl(fd, RNDRESEEDCRNG))
        return error_set(err, errno, "cannot reseed: %s", strerror(errno));
    return session_reply(s);
}
