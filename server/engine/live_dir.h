/* Where the logs of a store's streams are: each in a directory of its own, beside the store. */
#ifndef SEGUE_ENGINE_LIVE_DIR_H
#define SEGUE_ENGINE_LIVE_DIR_H

#include <limits.h>
#include <stdint.h>

/* Where the log of a stream is, in the directory of the store. */
#define SEGUE_LIVE_DIR "log"
void segue_live_path(const char *dir, uint32_t stream, char path[PATH_MAX]);
/*
 * Its files, and their bytes, as they lie there. SEGUE_ENOTFOUND: there is none; SEGUE_ESYSTEM. Not
 * that of a stream that is open: segue_log_look().
 */
int segue_live_measure(const char *dir, uint32_t stream, uint64_t *files, uint64_t *bytes);
/* Makes the directory that the logs of a store are in, unless it is there. SEGUE_ESTORE. */
int segue_live_make_dir(const char *dir, char path[PATH_MAX]);
/* Removes it, as far as it can be: the store does not know it any more. */
void segue_live_remove(const char *dir, uint32_t stream);

#endif
