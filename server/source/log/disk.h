/*
 * All that a log asks of a disk: the one place of its system calls, so that a test can put a model
 * of a disk here. Failures say which file it was.
 *
 * One thread writes and syncs a file; any may read it meanwhile.
 */
#ifndef SEGUE_SOURCE_LOG_DISK_H
#define SEGUE_SOURCE_LOG_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "segue/segue.h"

struct segue_log_dir;
struct segue_log_file;

/*
 * The directory, which is made if it is not there, and whose own name is then on disk. SEGUE_ESTORE
 * (no directory; what the system says), SEGUE_ENOSPACE, SEGUE_ENOMEM.
 */
int segue_log_dir_open(const char *path, struct segue_log_dir **out);
/* NULL is fine. */
void segue_log_dir_close(struct segue_log_dir *dir);
const char *segue_log_dir_path(const struct segue_log_dir *dir);
/* Visits each name, in no order. What `visit` returns, if not 0, ends it; SEGUE_ESTORE. */
int segue_log_dir_list(
	struct segue_log_dir *dir, int (*visit)(void *arg, const char *name), void *arg);
/* Gives a file another name, in the place of one that has it. SEGUE_ENOSPACE, SEGUE_ESTORE. */
int segue_log_dir_rename(struct segue_log_dir *dir, const char *from, const char *to);
/* What is not there is fine. SEGUE_ESTORE. */
int segue_log_dir_remove(struct segue_log_dir *dir, const char *name);
/* The names are on disk. SEGUE_ESTORE. */
int segue_log_dir_sync(struct segue_log_dir *dir);

/*
 * Opens a file to read and to write; `make`: an empty one, in the place of one that has the name.
 * SEGUE_ESTORE, SEGUE_ENOSPACE, SEGUE_ENOMEM.
 */
int segue_log_file_open(
	struct segue_log_dir *dir, const char *name, bool make, struct segue_log_file **out);
/* NULL is fine. */
void segue_log_file_close(struct segue_log_file *file);
int segue_log_file_size(struct segue_log_file *file, uint64_t *size);
/* SEGUE_ESTORE: what the system says, or the file ends before. */
int segue_log_file_read(struct segue_log_file *file, uint64_t at, void *bytes, size_t size);
/*
 * SEGUE_ENOSPACE (also a quota, a limit on the size of files), SEGUE_ESTORE: a part of it may have
 * been written.
 */
int segue_log_file_write(struct segue_log_file *file, uint64_t at, const void *bytes, size_t size);
/* Cuts off what lies behind. SEGUE_ESTORE. */
int segue_log_file_cut(struct segue_log_file *file, uint64_t size);
/* What was written is on disk. SEGUE_ESTORE: what is there is not known. */
int segue_log_file_sync(struct segue_log_file *file);
/*
 * The same, and what is read from now on is what the disk has, as far as the system can be had to
 * ask it: after a sync that failed, its cache has what was never written, and says that it was.
 */
int segue_log_file_refresh(struct segue_log_file *file);

#endif
