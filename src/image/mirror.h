/* Which package mirror to use. */
#ifndef IMAGE_MIRROR_H
#define IMAGE_MIRROR_H

#include "image/control.h"
#include "image/image.h"

#define MIRROR_DEFAULT "http://deb.debian.org/debian"

/** The first Debian archive named by one apt source file's @text: one-line style, or deb822 style
 * with @is_deb822. A source counts if it is enabled, has binary packages, is fetched by http or
 * https and its path ends in "/debian". False if there is none. */
bool mirror_parse(struct slice text, bool is_deb822, char ret[IMAGE_MIRROR_MAX]);

/** The mirror that the apt configuration under @root ("" = this host's) uses, else
 * MIRROR_DEFAULT. */
void mirror_of_host(const char *root, char ret[IMAGE_MIRROR_MAX]);

#endif
