/* What client and server share. */
#ifndef API_INTERNAL_H
#define API_INTERNAL_H

#include "api/api.h"

#include <sys/socket.h>
#include <sys/un.h>

/** The address of @path, however long it is: *@ret_dir_fd (or -1) must stay open as long as the
 * address is used, and be closed then. -errno. In server.c. */
must_check int api_address(const char *path, struct sockaddr_un *ret, socklen_t *ret_size,
                           int *ret_dir_fd);

/** Is the other end of our own user, or root? */
bool api_peer_is_ours(int fd);

#endif
