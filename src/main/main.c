/* posada: the command line. */
#include "cli/cmd.h"

int main(int argc, char **argv)
{
    return cli_main(argc, argv);
}
