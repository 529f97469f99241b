/*
 * The cache of a store: the inflated copies of compressed files, in a directory of their own.
 *
 * One copy a file, named by its path: that of an older version of it is replaced. Whatever lies
 * there may be removed while no server runs.
 */
#ifndef SEGUE_SOURCE_CACHE_H
#define SEGUE_SOURCE_CACHE_H

#include "core/progress.h"
#include "source/inflate.h"

/* Where the copy of a file is, malloc'd; NULL: out of memory. */
char *segue_cache_place(const char *cache_dir, const char *path);

/*
 * Makes the directory and locks it, so that of several streams one inflates, and the others wait
 * and find its work: its fd, to be closed, or SEGUE_ESYSTEM. What killed servers left half made is
 * removed; *keep_free is what must stay free on its file system, a twentieth.
 */
int segue_cache_lock(const char *cache_dir, uint64_t *keep_free);

/* Copies in a cache and the bytes that they take; a directory that is not there has none. */
void segue_cache_measure(const char *cache_dir, uint64_t *copies, uint64_t *bytes);

#endif
