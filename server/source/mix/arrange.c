/* The arithmetic of a mix. */
#include "source/mix/arrange.h"

#include <string.h>

#include "lane/permutation.h"

void segue_mix_shape_init(
	struct segue_mix_shape *shape, const struct segue_spec_mix *mix, uint64_t seed)
{
	*shape = (struct segue_mix_shape){.seed = seed, .count = (uint32_t)mix->count};
	segue_mix_quotas(mix, shape->quota);
}

/* Blocks have an order of their own: no data set of a block's size has the same. */
static void order_of(
	const struct segue_mix_shape *shape, uint64_t block, struct segue_permutation *out)
{
	segue_permutation_init(out, ~shape->seed, block, SEGUE_MIX_BLOCK);
}

static uint32_t part_at(const struct segue_mix_shape *shape, uint64_t slot)
{
	uint32_t part = 0;

	for (uint64_t end = shape->quota[0]; slot >= end && part + 1 < shape->count;)
		end += shape->quota[++part];
	return part;
}

uint32_t segue_mix_part(const struct segue_mix_shape *shape, uint64_t number)
{
	struct segue_permutation order;

	order_of(shape, number / SEGUE_MIX_BLOCK, &order);
	return part_at(shape, segue_permutation_apply(&order, number % SEGUE_MIX_BLOCK));
}

void segue_mix_arrange(
	const struct segue_mix_shape *shape, uint64_t number, struct segue_mix_block *block)
{
	uint16_t count[SEGUE_PARTS_MAX] = {0};
	struct segue_permutation order;

	block->number = number;
	order_of(shape, number, &order);
	for (uint32_t i = 0; i < SEGUE_MIX_BLOCK; i++) {
		uint32_t part = part_at(shape, segue_permutation_apply(&order, i));

		block->part[i] = (uint8_t)part;
		block->rank[i] = count[part]++;
	}
}

uint64_t segue_mix_place(
	const struct segue_mix_shape *shape, const struct segue_mix_block *block, uint64_t number)
{
	uint64_t i = number % SEGUE_MIX_BLOCK;

	return block->number * shape->quota[block->part[i]] + block->rank[i];
}

uint64_t segue_mix_number(const struct segue_mix_shape *shape, uint32_t part, uint64_t place)
{
	uint64_t block = place / shape->quota[part], before = place % shape->quota[part], i = 0;
	struct segue_permutation order;

	order_of(shape, block, &order);
	while (part_at(shape, segue_permutation_apply(&order, i)) != part || before-- > 0)
		i++;
	return block * SEGUE_MIX_BLOCK + i;
}

uint64_t segue_mix_below(const struct segue_mix_shape *shape, uint32_t part, uint64_t count)
{
	uint64_t below = count / SEGUE_MIX_BLOCK * shape->quota[part];
	struct segue_permutation order;

	order_of(shape, count / SEGUE_MIX_BLOCK, &order);
	for (uint64_t i = 0; i < count % SEGUE_MIX_BLOCK; i++)
		below += part_at(shape, segue_permutation_apply(&order, i)) == part;
	return below;
}

uint64_t segue_mix_record(const struct segue_mix_shape *shape, uint32_t part, uint64_t place,
	uint64_t records, bool shuffle)
{
	struct segue_permutation order;

	if (!shuffle)
		return place % records;
	segue_permutation_init(&order, shape->seed + part, place / records, records);
	return segue_permutation_apply(&order, place % records);
}

uint64_t segue_mix_there(const struct segue_mix_log *log, uint64_t inserted)
{
	uint64_t number = inserted;

	if (log->shape.count > 1)
		number = inserted < SEGUE_MIX_PLACES
				 ? segue_mix_number(&log->shape, log->part, inserted)
				 : UINT64_MAX;
	return number < log->end ? number : log->end;
}

uint64_t segue_mix_inserted(const struct segue_mix_log *log, uint64_t count)
{
	return log->shape.count > 1 ? segue_mix_below(&log->shape, log->part, count) : count;
}
