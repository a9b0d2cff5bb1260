/* Debian package versions. */
#ifndef IMAGE_VERSION_H
#define IMAGE_VERSION_H

#include "image/control.h"

/** <0, 0, >0 as @a is earlier than, the same as, or later than @b. Any bytes are ordered somehow.
 */
int version_compare(struct slice a, struct slice b);

/** Does @version satisfy "@op @wanted" (<<, <=, =, >=, >>; older < and > too)? Unknown: false. */
bool version_satisfies(struct slice version, struct slice op, struct slice wanted);

#endif
