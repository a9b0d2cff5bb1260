/* Is the package mirror there? It is asked for the default suite's Release file, as an image build
 * would. The main thread. */
#include "base/error.h"
#include "base/fd.h"
#include "cli/doctor.h"
#include "image/fetch.h"
#include "image/image.h"
#include "image/mirror.h"

#include <stdio.h>

enum { RELEASE_MAX = 4 << 20 };

void doctor_mirror(struct doctor_result *r)
{
    char mirror[IMAGE_MIRROR_MAX];
    char url[IMAGE_MIRROR_MAX + 64];
    cleanup(freep) char *release = NULL;
    struct error err = {0};
    size_t size;

    mirror_of_host("", mirror);
    (void)snprintf(url, sizeof(url), "%s/dists/%s/Release", mirror, IMAGE_DEFAULT_SUITE);
    if (fetch_memory(url, RELEASE_MAX, &release, &size, &err))
        doctor_set(
            r, DOCTOR_WARN,
            "check the network, or name a mirror with --mirror; images that are built work without",
            "%.200s", error_text(&err));
    else
        doctor_set(r, DOCTOR_OK, NULL, "%.200s answers", mirror);
}
