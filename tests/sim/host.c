/* Memory of a run: a list of all blocks. The mutexes are in machine.c. */
#include "host.h"

/* The real ones. */
#undef malloc
#undef calloc
#undef realloc
#undef free

#include <stdalign.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct block {
	struct block *next, **link;
	alignas(max_align_t) char bytes[];
};

static struct block *blocks;

static void *enter(struct block *block)
{
	if (!block)
		abort();
	block->next = blocks;
	block->link = &blocks;
	if (blocks)
		blocks->link = &block->next;
	blocks = block;
	return block->bytes;
}

static struct block *leave(void *bytes)
{
	struct block *block = (struct block *)((char *)bytes - offsetof(struct block, bytes));

	*block->link = block->next;
	if (block->next)
		block->next->link = block->link;
	return block;
}

void *sim_malloc(size_t size)
{
	return enter(malloc(sizeof(struct block) + size));
}

void *sim_calloc(size_t count, size_t size)
{
	return enter(calloc(1, sizeof(struct block) + count * size));
}

void *sim_realloc(void *bytes, size_t size)
{
	return enter(realloc(bytes ? leave(bytes) : NULL, sizeof(struct block) + size));
}

void sim_free(void *bytes)
{
	if (bytes)
		free(leave(bytes));
}

void sim_free_all(void)
{
	while (blocks)
		sim_free(blocks->bytes);
}
