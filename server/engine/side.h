/*
 * Side segments: what slots have beside the ring, for values whose number differs from batch to
 * batch. Each slot has one of its own, which stays with it and is exchanged for a larger one when
 * a batch does not fit; who reads the slot asks for it then (SIDE), once.
 *
 * Segments are not resized: they are sealed, and whoever has mapped one keeps what is in it.
 */
#ifndef SEGUE_ENGINE_SIDE_H
#define SEGUE_ENGINE_SIDE_H

#include <pthread.h>

#include "core/shm.h"
#include "source/sink.h"

/* Who pays for memory. `take` and `give` are called from any thread, one at a time. */
struct segue_purse {
	int (*take)(void *arg, uint64_t bytes); /* for a segment: 0, or SEGUE_ELIMIT */
	void (*give)(void *arg, uint64_t bytes);
	void *arg;
};

struct segue_sides {
	struct segue_side {
		struct segue_sink sink; /* over the segment; the filler's task's alone */
		struct segue_sides *sides;
		struct segue_shm shm; /* changed under `lock` */
		uint64_t number;      /* of the segment, from 1; 0: there is none */
	} * of_slot;
	uint32_t count;
	uint64_t numbers, largest; /* the last number; the size of a new one at least */
	struct segue_purse purse;  /* take NULL: nobody pays */
	pthread_mutex_t lock;
};

/* For `count` slots; segue_sides_finish() is due in any case. SEGUE_ENOMEM. */
int segue_sides_init(struct segue_sides *sides, uint32_t count);
/* Gives all of them back. */
void segue_sides_finish(struct segue_sides *sides);
/* A batch is written into slot `slot`: an empty sink over its side. */
struct segue_sink *segue_sides_begin(struct segue_sides *sides, uint32_t slot);
/*
 * The segment of a slot, from any thread: an fd of the caller's own. SEGUE_ENOTFOUND: it has none;
 * SEGUE_ESYSTEM.
 */
int segue_sides_get(
	struct segue_sides *sides, uint32_t slot, int *fd, uint64_t *number, uint64_t *size);

#endif
