/* Checks of what Posada keeps on disk and fetches from the network. The main thread. */
#include "cli/doctor.h"

#include "base/error.h"
#include "base/fd.h"
#include "base/paths.h"
#include "image/mirror.h"
#include "vm/firmware.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#define GIB           (1ULL << 30)
#define FILE_PATH_MAX 4096

static void check_dir(const char *variable, const char *dir, const struct error *err, uint64_t want,
                      struct doctor_result *r)
{
    char remedy[128];
    struct statvfs fs;

    (void)snprintf(remedy, sizeof(remedy), "set %s to a folder that you may write to", variable);
    if (!dir) {
        doctor_set(r, DOCTOR_FAIL, remedy, "%s", error_text(err));
        return;
    }
    if (access(dir, W_OK | X_OK)) {
        doctor_set(r, DOCTOR_FAIL, remedy, "%.150s cannot be written: %s", dir, strerror(errno));
        return;
    }
    (void)snprintf(remedy, sizeof(remedy), "make room, or set %s to a folder with more", variable);
    if (statvfs(dir, &fs)) {
        doctor_set(r, DOCTOR_WARN, remedy, "free space of %.150s is unknown: %s", dir,
                   strerror(errno));
        return;
    }
    uint64_t free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    bool enough = free_bytes >= want;
    doctor_set(r, enough ? DOCTOR_OK : DOCTOR_WARN, enough ? NULL : remedy, "%.150s, %.1f GiB free",
               dir, (double)free_bytes / (double)GIB);
}

void doctor_cache(struct doctor_result *r)
{
    struct error err = {0};
    cleanup(freep) char *dir = paths_cache("packages", &err);

    check_dir("XDG_CACHE_HOME", dir, &err, GIB, r);
}

void doctor_data(struct doctor_result *r)
{
    struct error err = {0};
    cleanup(freep) char *dir = paths_data("instances", &err);

    check_dir("XDG_DATA_HOME", dir, &err, 4 * GIB, r);
}

void doctor_firmware(struct doctor_result *r)
{
    static const char *const names[] = {"seabios", "ovmf"};
    const char *code;
    const char *vars;
    char there[32] = "";
    char missing[32] = "";
    char remedy[96];

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        struct error err = {0};
        char *list = vm_firmware_find(names[i], &code, &vars, &err) ? missing : there;

        (void)snprintf(list + strlen(list), sizeof(there) - strlen(list), "%s%s",
                       *list ? " and " : "", names[i]);
    }
    (void)snprintf(remedy, sizeof(remedy), "install %s", missing);
    if (*missing)
        doctor_set(
            r, DOCTOR_WARN, remedy,
            "amd64 machines do not boot from CD-ROMs and disks by %s (kernels and images do)",
            missing);
    else
        doctor_set(r, DOCTOR_OK, NULL, "%s: amd64 machines boot from CD-ROMs and disks", there);
}

static bool on_path(const char *tool)
{
    const char *path = getenv("PATH");
    char file[FILE_PATH_MAX];

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
