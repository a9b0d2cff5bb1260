/* What the files of store share. */
#ifndef STORE_STORE_INTERNAL_H
#define STORE_STORE_INTERNAL_H

#include "store/store.h"

/* base.c */

/** A flushed copy of file @from, under the new name @to. */
must_check int store_copy(const char *from, const char *to, struct error *err);

/** Keep all bases until the descriptor is closed: a tree that names one is about to be. -errno. */
must_check int store_lock_bases(struct error *err);

/** Make the raw disk @from a base; *@ret is its path, the caller's. store_lock_bases() is held. */
must_check int store_add_base(const char *from, char **ret, struct error *err);

/** Remove the folder @dir, which was an instance's, and the bases that only it needed. Killed in
 * between, it leaves the folder, so that it is done again. 0 or -errno. */
int store_remove_rest(const char *dir);

/** Remove the bases that no tree names. What cannot be removed now stays for the next time. */
void store_sweep_bases(void);

#endif
