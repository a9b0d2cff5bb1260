/* Debian control files (deb822): stanzas of "Name: value" lines, as in Packages, Release, *.sources
 * and a .deb's control file. Nothing is copied: results point into the text. */
#ifndef IMAGE_CONTROL_H
#define IMAGE_CONTROL_H

#include "base/macros.h"

/** Borrowed text, not NUL-terminated; p is never NULL. */
struct slice {
    const char *p;
    size_t n;
};

struct slice slice_of(const char *s);
bool slice_equal(struct slice a, struct slice b);
bool slice_is(struct slice a, const char *s);
bool slice_starts(struct slice a, const char *prefix);

/** Without blanks (space, tab, CR, LF) at both ends. */
struct slice slice_trim(struct slice a);

/** Cut off and return what precedes the first @sep (all of it if there is none); *@rest keeps what
 * follows. False when *@rest is used up. */
bool slice_cut(struct slice *rest, char sep, struct slice *ret);

/** Cut off the next word between blanks. False if none is left. */
bool slice_word(struct slice *rest, struct slice *ret);

/** A decimal number and nothing else; false on anything else or past 2^63. */
bool slice_number(struct slice a, uint64_t *ret);

/** A new NUL-terminated copy; NULL: no memory. */
char *slice_dup(struct slice a);

/** Cut the next stanza off *@text: lines up to an empty one. Comment lines ('#') stay in. False at
 * the end. */
bool control_stanza(struct slice *text, struct slice *ret);

/** Cut the next field off *@stanza. The value is trimmed and may span lines (each continuation with
 * its leading blank). Lines that are no field are passed over. False at the end. */
bool control_field(struct slice *stanza, struct slice *ret_name, struct slice *ret_value);

/** The value of field @name (ASCII case ignored); false if @stanza has none. */
bool control_find(struct slice stanza, const char *name, struct slice *ret);

/** Are @a and @name the same field name? ASCII case is ignored. */
bool control_name_is(struct slice a, const char *name);

#endif
