/*
 * What the simulator of the log puts in place of the host: memory that is forgotten as a whole when
 * a run ends, so that a server that was killed leaks nothing. One thread: mutexes stay.
 *
 * Included before every source of the simulator (cc -include), the files under test as well.
 */
#ifndef SEGUE_SIM_LOG_HOST_H
#define SEGUE_SIM_LOG_HOST_H

#include <stdlib.h>
#include <string.h>

void *simlog_alloc(size_t align, size_t size); /* zeroed */
void *simlog_realloc(void *block, size_t size);
void simlog_forget_all(void);

#define malloc(size)                     simlog_alloc(64, size)
#define calloc(count, size)              simlog_alloc(64, (count) * (size))
#define aligned_alloc(align, size)       simlog_alloc(align, size)
#define realloc                          simlog_realloc
#define reallocarray(block, count, size) simlog_realloc(block, (count) * (size))
#define free(block)                      ((void)(block))

#endif
