/*
 * Buffers in size classes that are used again: no malloc per record once the classes are filled.
 */
#ifndef SEGUE_SOURCE_BUFFERS_H
#define SEGUE_SOURCE_BUFFERS_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#define SEGUE_BUFFER_CLASSES 11 /* 4 KiB, 8 KiB, ... 4 MiB; larger ones are not kept */

struct segue_buffers {
	pthread_mutex_t mutex;
	void *free[SEGUE_BUFFER_CLASSES]; /* lists through the buffers' first words */
};

void segue_buffers_init(struct segue_buffers *buffers);
/* Frees what is kept; every buffer must have been given back. */
void segue_buffers_finish(struct segue_buffers *buffers);

/* A buffer of at least `size` bytes, *capacity in truth; NULL: out of memory. Any thread. */
void *segue_buffers_take(struct segue_buffers *buffers, size_t size, size_t *capacity);
/* Takes it back; `capacity` as take said. NULL is fine. */
void segue_buffers_give(struct segue_buffers *buffers, void *buffer, size_t capacity);

#endif
