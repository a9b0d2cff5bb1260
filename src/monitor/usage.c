/* How much of the host's memory this process uses. Any thread.
 * Source: proc(5), /proc/pid/smaps_rollup and /proc/pid/statm. */
#include "monitor/monitor_internal.h"

#include <stdio.h>
#include <unistd.h>

uint64_t usage_shared_bytes(void)
{
    FILE *f = fopen("/proc/self/smaps_rollup", "re");
    unsigned long kib = 0;
    char line[128];

    while (f && fgets(line, sizeof(line), f) && sscanf(line, "Pss_Anon: %lu", &kib) != 1) {
        /* the next */
    }
    if (f)
        (void)fclose(f);
    return (uint64_t)kib << 10;
}

uint64_t usage_private_bytes(void)
{
    unsigned long size, resident, shared;
    FILE *f = fopen("/proc/self/statm", "re");
    int n = f ? fscanf(f, "%lu %lu %lu", &size, &resident, &shared) : 0;

    if (f)
        (void)fclose(f);
    return n == 3 ? (uint64_t)(resident - shared) * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}
