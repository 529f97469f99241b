/* The numbers of sequences, by sequence or by record. */
#include "lane/numbers.h"

#include <inttypes.h>

#include "core/error.h"
#include "lane/permutation.h"

static uint64_t place_in(
	const struct segue_numbers *numbers, uint64_t order, uint64_t places, uint64_t index)
{
	struct segue_permutation permutation;

	if (!numbers->shuffle)
		return index;
	segue_permutation_init(&permutation, numbers->seed, order, places);
	return segue_permutation_apply(&permutation, index);
}

/* Places of a lane an epoch. */
static uint64_t places_of(const struct segue_numbers *numbers)
{
	return (numbers->records - 1) / numbers->lanes + 1;
}

uint64_t segue_numbers_an_epoch(const struct segue_numbers *numbers)
{
	return numbers->lanes_by == SEGUE_LANES_BY_RECORD ? places_of(numbers) * numbers->lanes
							  : numbers->records;
}

uint64_t segue_numbers_record(const struct segue_numbers *numbers, uint64_t number)
{
	uint64_t size = segue_numbers_an_epoch(numbers);
	uint64_t epoch = number / size, index = number % size;

	if (numbers->lanes_by != SEGUE_LANES_BY_RECORD)
		return place_in(numbers, epoch, size, index);
	/* Each lane has an order of its own. */
	uint64_t lane = index % numbers->lanes;
	uint64_t place = place_in(
		numbers, epoch * numbers->lanes + lane, places_of(numbers), index / numbers->lanes);
	uint64_t record = place * numbers->lanes + lane;
	return record < numbers->records ? record : SEGUE_NO_RECORD;
}

uint64_t segue_numbers_of_lane(const struct segue_numbers *numbers, uint32_t lane, uint64_t epochs)
{
	uint64_t all;

	if (__builtin_mul_overflow(epochs, segue_numbers_an_epoch(numbers), &all))
		all = UINT64_MAX;
	return all <= lane ? 0 : (all - lane - 1) / numbers->lanes + 1;
}

int segue_numbers_check(const struct segue_numbers *numbers, uint64_t first_epoch)
{
	uint64_t all;

	if (numbers->lanes_by == SEGUE_LANES_BY_RECORD && numbers->lanes > numbers->records)
		return segue_fail(SEGUE_EINVAL,
			"lanes is %" PRIu32 ", and there are %" PRIu64
			" records: with lanes_by=\"record\" each lane has records of its own; give "
			"at most as many lanes",
			numbers->lanes, numbers->records);
	if (__builtin_mul_overflow(first_epoch, segue_numbers_an_epoch(numbers), &all))
		return segue_fail(SEGUE_EINVAL,
			"first_epoch is %" PRIu64 ": %" PRIu64
			" records an epoch are more sequences than can be numbered: give a smaller "
			"one",
			first_epoch, numbers->records);
	return 0;
}
