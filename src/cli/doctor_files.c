/* Checks of what Posada keeps on disk and fetches from the network. The main thread. */
#include "cli/doctor.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#define GIB          (1ULL << 30)
#define DIR_PATH_MAX 4096

/** $@variable/posada, or $HOME/@fallback/posada; false when neither variable is set. */
static bool xdg_dir(const char *variable, const char *fallback, char *path, size_t size)
{
    const char *base = getenv(variable);
    const char *home = getenv("HOME");
    int n;

    if (base && base[0] == '/')
        n = snprintf(path, size, "%s/posada", base);
    else if (home && home[0] == '/')
        n = snprintf(path, size, "%s/%s/posada", home, fallback);
    else
        return false;
    return n > 0 && (size_t)n < size;
}

/** Cut @path back to the nearest folder that exists. */
static void nearest_existing(char *path)
{
    while (path[1] && access(path, F_OK)) {
        char *slash = strrchr(path, '/');
        if (!slash)
            return;
        slash[slash == path] = '\0';
    }
}

static void check_dir(const char *variable, const char *fallback, uint64_t want,
                      struct doctor_result *r)
{
    char path[DIR_PATH_MAX];
    char existing[DIR_PATH_MAX];
    char remedy[128];
    struct statvfs fs;

    if (!xdg_dir(variable, fallback, path, sizeof(path))) {
        doctor_set(r, DOCTOR_FAIL, "set HOME to a folder of yours", "neither HOME nor %s is set",
                   variable);
        return;
    }
    memcpy(existing, path, sizeof(existing));
    nearest_existing(existing);
    (void)snprintf(remedy, sizeof(remedy), "make room, or set %s to a folder with more", variable);
    if (access(existing, W_OK | X_OK)) {
        (void)snprintf(remedy, sizeof(remedy), "set %s to a folder that you may write to",
                       variable);
        doctor_set(r, DOCTOR_FAIL, remedy, "%.150s cannot be written: %s", existing,
                   strerror(errno));
        return;
    }
    if (statvfs(existing, &fs)) {
        doctor_set(r, DOCTOR_WARN, remedy, "free space of %.150s is unknown: %s", existing,
                   strerror(errno));
        return;
    }
    uint64_t free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    bool enough = free_bytes >= want;
    doctor_set(r, enough ? DOCTOR_OK : DOCTOR_WARN, enough ? NULL : remedy, "%.150s, %.1f GiB free",
               path, (double)free_bytes / (double)GIB);
}

void doctor_cache(struct doctor_result *r)
{
    check_dir("XDG_CACHE_HOME", ".cache", GIB, r);
}

void doctor_data(struct doctor_result *r)
{
    check_dir("XDG_DATA_HOME", ".local/share", 4 * GIB, r);
}

static bool on_path(const char *tool)
{
    const char *path = getenv("PATH");
    char file[DIR_PATH_MAX];

    for (const char *p = path ? path : "/usr/bin:/bin"; *p;) {
        size_t n = strcspn(p, ":");
        (void)snprintf(file, sizeof(file), "%.*s/%s", (int)n, p, tool);
        if (!access(file, X_OK))
            return true;
        p += n + (p[n] == ':');
    }
    return false;
}

void doctor_tools(struct doctor_result *r)
{
    static const char keyring[] = "/usr/share/keyrings/debian-archive-keyring.gpg";

    if (!on_path("gpgv"))
        doctor_set(r, DOCTOR_FAIL, "apt-get install gpgv",
                   "gpgv is missing; it verifies the packages that images are built from");
    else if (access(keyring, R_OK))
        doctor_set(r, DOCTOR_FAIL, "apt-get install debian-archive-keyring",
                   "%s is missing; packages are verified with it", keyring);
    else
        doctor_set(r, DOCTOR_OK, NULL, "gpgv and Debian's archive keys are there");
}
