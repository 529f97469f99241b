/* Removing directories. */
#ifndef SEGUE_OS_TREE_H
#define SEGUE_OS_TREE_H

/*
 * Removes what is named so in the directory `at`, eight directories deep, as far as it can be.
 * Nothing is removed that a link leads to, also if one is put there meanwhile.
 */
void segue_tree_remove(int at, const char *name);

#endif
