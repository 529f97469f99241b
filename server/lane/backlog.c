/* What a lane has before it in a log. */
#include "lane/backlog.h"

#include "core/barrier.h"

/* Of the first `count` numbers those of the lane. */
static uint64_t share(const struct segue_plan_spec *plan, uint64_t count)
{
	return count > plan->lane ? (count - plan->lane - 1) / plan->lanes + 1 : 0;
}

uint64_t segue_backlog_unfinished(
	const struct segue_plan_spec *plan, const struct segue_position *position, uint64_t count)
{
	uint64_t inserted = share(plan, count);
	uint64_t unfinished = inserted > position->next ? inserted - position->next : 0;

	unfinished += position->waiting;
	for (uint32_t i = 0; i < segue_position_count(position); i++)
		unfinished += segue_plan_row_lives(plan, &position->row[i]);
	return unfinished;
}

uint64_t segue_backlog_floor(
	const struct segue_plan_spec *plan, const struct segue_position *position)
{
	uint64_t floor = position->next * plan->lanes + plan->lane;

	for (uint32_t i = 0; i < segue_position_count(position); i++) {
		const struct segue_plan_row *row = &position->row[i];

		if (segue_plan_row_lives(plan, row) && row->number < floor)
			floor = row->number;
	}
	/* Of those that wait the oldest is the first. */
	if (position->waiting > 0 && position->row[segue_position_count(position)].number < floor)
		floor = position->row[segue_position_count(position)].number;
	return floor;
}

uint64_t segue_backlog_seen(
	const struct segue_plan_spec *plan, const struct segue_position *position)
{
	return position->next ? (position->next - 1) * plan->lanes + plan->lane + 1 : 0;
}

uint64_t segue_backlog_needs(
	const struct segue_plan_spec *plan, const struct segue_position *position)
{
	uint64_t floor = segue_backlog_floor(plan, position);
	uint64_t seen = segue_backlog_seen(plan, position);

	return seen < floor && !SEGUE_MUTANT(place_given_up) ? seen : floor;
}

bool segue_backlog_is_covered(
	const struct segue_plan_spec *plan, const struct segue_position *position, uint64_t synced)
{
	return SEGUE_MUTANT(store_before_sync) || segue_backlog_seen(plan, position) <= synced;
}

bool segue_backlog_is_full(const struct segue_backlog_limits *limits, const uint64_t *unfinished,
	uint32_t lanes, uint64_t spooled, uint32_t *behind)
{
	bool full = true;
	uint32_t most = 0;

	for (uint32_t i = 0; i < lanes; i++) {
		full = full && unfinished[i] >= limits->capacity;
		if (unfinished[i] > unfinished[most])
			most = i;
	}
	if (!full && spooled < limits->spool)
		return false;
	*behind = most;
	return true;
}
