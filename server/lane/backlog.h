/*
 * How far a lane is behind a log that grows: what it has still to finish, so what must be kept, and
 * whether more is to be inserted.
 *
 * Pure. The sequences of a lane are the numbers lane, lane + lanes, ...; one is finished when its
 * last batch is committed: so positions here are those of commits.
 */
#ifndef SEGUE_LANE_BACKLOG_H
#define SEGUE_LANE_BACKLOG_H

#include "lane/plan.h"

/* Sequences of the lane among the first `count` of the log that are not finished. */
uint64_t segue_backlog_unfinished(
	const struct segue_plan_spec *plan, const struct segue_position *position, uint64_t count);
/* The lowest number that the lane still needs: all below it are finished, or another lane's. */
uint64_t segue_backlog_floor(
	const struct segue_plan_spec *plan, const struct segue_position *position);
/*
 * All below it may be given up: the lane has finished them, and the place up to which it has seen
 * the log, by which a token of it belongs to the log, is still there.
 */
uint64_t segue_backlog_needs(
	const struct segue_plan_spec *plan, const struct segue_position *position);
/*
 * So many sequences of the log must be there, as whoever is at that position has seen them: what a
 * log has to be synced to before the position is stored, or given to anybody.
 */
uint64_t segue_backlog_seen(
	const struct segue_plan_spec *plan, const struct segue_position *position);
/* Whether the position may be: so many sequences of the log are synced. */
bool segue_backlog_is_covered(
	const struct segue_plan_spec *plan, const struct segue_position *position, uint64_t synced);

struct segue_backlog_limits {
	uint64_t capacity; /* unfinished sequences of a lane; UINT64_MAX: any */
	uint64_t spool;    /* bytes of the log from the first unfinished one on; likewise */
};
/*
 * Whether whoever inserts has to wait: every lane has `capacity` unfinished sequences, or the spool
 * is full. So a lane that nobody serves starves none of the others while there is spool. *behind is
 * then the lane with the most.
 */
bool segue_backlog_is_full(const struct segue_backlog_limits *limits, const uint64_t *unfinished,
	uint32_t lanes, uint64_t spooled, uint32_t *behind);

#endif
