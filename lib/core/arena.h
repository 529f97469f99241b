/*
 * A block of memory that unpacking takes from: zeroed, never beyond its size. What was taken dies
 * when it is reset.
 */
#ifndef SEGUE_CORE_ARENA_H
#define SEGUE_CORE_ARENA_H

#include <stddef.h>
#include <stdint.h>

/* What each thing taken is aligned to. */
#define SEGUE_ARENA_ALIGN 16

struct segue_arena {
	uint8_t *base;
	size_t size, used;
};

/* SEGUE_ENOMEM. */
int segue_arena_init(struct segue_arena *arena, size_t size);
void segue_arena_reset(struct segue_arena *arena);
void segue_arena_finish(struct segue_arena *arena);
/* NULL: it is too small, and `used` says so: from then on it gives nothing. */
void *segue_arena_take(struct segue_arena *arena, size_t size);

#endif
