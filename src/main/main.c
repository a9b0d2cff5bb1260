/* One program, two names: posada, the command line, and posada-monitor, which runs one instance. */
#include "cli/cmd.h"
#include "monitor/daemon.h"

#include <string.h>

int main(int argc, char **argv)
{
    const char *slash = argc ? strrchr(argv[0], '/') : NULL;
    const char *name = slash ? slash + 1 : argc ? argv[0] : "";

    return strcmp(name, "posada-monitor") ? cli_main(argc, argv) : daemon_main(argc, argv);
}
