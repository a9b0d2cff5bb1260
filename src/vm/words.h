/* Devices as people write them: on the command line and in an instance's configuration. Errors are
 * "expected ..., not '...'"; the caller names the option or key before. Any thread. */
#ifndef VM_WORDS_H
#define VM_WORDS_H

#include "vm/config.h"

struct error;

/** "[ADDR:]HOSTPORT:GUESTPORT[/udp]". -EINVAL. */
must_check int vm_parse_forward(const char *text, struct net_forward *ret, struct error *err);

/** "HOSTFOLDER:/GUEST/PATH[:ro]"; whether there is such a folder is not looked at. @text is cut to
 * pieces, to which @ret points; tag is left alone. -EINVAL. */
must_check int vm_parse_share(char *text, struct vm_share_config *ret, struct error *err);

/** "FILE[,WORD...]": see docs/disks.md. @text is cut to pieces, to which @ret points. A comma is
 * part of the name if there is a file of that name. -EINVAL. */
must_check int vm_parse_disk(char *text, struct vm_disk_config *ret, struct error *err);

/** A unicast address, "52:54:00:12:34:56". -EINVAL. */
must_check int vm_parse_mac(const char *text, uint8_t ret[6], struct error *err);

#endif
