/* Calls on files that are begun again where a signal has cut them short. */
#ifndef SEGUE_OS_FILE_H
#define SEGUE_OS_FILE_H

#include <stddef.h>

/* Writes all of it where the file stands. -1: errno says why, and some may be written. */
int segue_file_write(int fd, const void *bytes, size_t size);
/* As flock(2), waiting: LOCK_SH or LOCK_EX. -1: errno says why. */
int segue_file_lock(int fd, int how);

#endif
