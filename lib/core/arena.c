/* A block of memory that unpacking takes from. */
#include "core/arena.h"

#include <stdlib.h>
#include <string.h>

#include "core/error.h"

int segue_arena_init(struct segue_arena *arena, size_t size)
{
	uint8_t *base = calloc(1, size);

	if (!base)
		return segue_fail(SEGUE_ENOMEM, "no memory for messages (%zu bytes)", size);
	*arena = (struct segue_arena){.base = base, .size = size};
	return 0;
}

void segue_arena_reset(struct segue_arena *arena)
{
	memset(arena->base, 0, arena->used);
	arena->used = 0;
}

void segue_arena_finish(struct segue_arena *arena)
{
	free(arena->base);
	*arena = (struct segue_arena){.base = NULL};
}

/* Once it could not give, it gives no more: `used` then says that it was too small. */
void *segue_arena_take(struct segue_arena *arena, size_t size)
{
	size_t begin = (arena->used + SEGUE_ARENA_ALIGN - 1) & ~(size_t)(SEGUE_ARENA_ALIGN - 1);

	if (begin > arena->size || size > arena->size - begin) {
		arena->used = arena->size;
		return NULL;
	}
	arena->used = begin + size;
	return arena->base + begin;
}
