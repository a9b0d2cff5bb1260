/* Runs in a guest: asks the guest's own agent for something, through the loopback transport. It
 * must not be served. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

int main(void)
{
    static const char ping[] = "\x0a\0\0\0\1\0\0\0verb=ping"; /* and the string's own NUL */
    struct sockaddr_vm a = {
        .svm_family = AF_VSOCK,
        .svm_port = 1024,
        .svm_cid = VMADDR_CID_LOCAL,
    };
    char buf[64];
    int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a))) {
        printf("cannot connect: %s\n", strerror(errno));
        return 1;
    }
    (void)!send(fd, ping, sizeof(ping), MSG_NOSIGNAL);
    ssize_t n = recv(fd, buf, sizeof(buf), 0);
    printf("connected, then %s\n", n > 0 ? "served" : "closed without a word");
    return n > 0;
}
