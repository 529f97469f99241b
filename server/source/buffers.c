/* Buffers in power-of-two classes, each with a list of free ones. */
#include "source/buffers.h"

#include <stdlib.h>
#include <string.h>

#define SMALLEST 4096

/* SEGUE_BUFFER_CLASSES: too large for any. */
static size_t class_of(size_t size)
{
	size_t class = 0;

	while (class < SEGUE_BUFFER_CLASSES && (size_t)SMALLEST << class < size)
		class ++;
	return class;
}

void segue_buffers_init(struct segue_buffers *buffers)
{
	memset(buffers, 0, sizeof(*buffers));
	pthread_mutex_init(&buffers->mutex, NULL);
}

void segue_buffers_finish(struct segue_buffers *buffers)
{
	for (size_t class = 0; class < SEGUE_BUFFER_CLASSES; class ++) {
		while (buffers->free[class]) {
			void *buffer = buffers->free[class];

			memcpy(&buffers->free[class], buffer, sizeof(void *));
			free(buffer);
		}
	}
	pthread_mutex_destroy(&buffers->mutex);
}

void *segue_buffers_take(struct segue_buffers *buffers, size_t size, size_t *capacity)
{
	size_t class = class_of(size);
	void *buffer = NULL;

	*capacity = class < SEGUE_BUFFER_CLASSES ? (size_t)SMALLEST << class : size;
	if (class < SEGUE_BUFFER_CLASSES) {
		pthread_mutex_lock(&buffers->mutex);
		buffer = buffers->free[class];
		if (buffer)
			memcpy(&buffers->free[class], buffer, sizeof(void *));
		pthread_mutex_unlock(&buffers->mutex);
	}
	return buffer ? buffer : malloc(*capacity);
}

void segue_buffers_give(struct segue_buffers *buffers, void *buffer, size_t capacity)
{
	size_t class = class_of(capacity);

	if (!buffer)
		return;
	if (class == SEGUE_BUFFER_CLASSES) {
		free(buffer);
		return;
	}
	pthread_mutex_lock(&buffers->mutex);
	memcpy(buffer, &buffers->free[class], sizeof(void *));
	buffers->free[class] = buffer;
	pthread_mutex_unlock(&buffers->mutex);
}
