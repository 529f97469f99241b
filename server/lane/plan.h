/*
 * The plan: which segment of which sequence lies in which row of batch t of a lane.
 *
 * A pure state machine: no clock, no I/O, no threads. It knows sequences by number and length
 * alone; what it needs from the data it asks through struct segue_plan_input. The composition of
 * batch t depends on nothing but the spec and those lengths, never on the values of states, so the
 * server runs it ahead.
 *
 *	position at t --segue_plan_step()--> spans of batch t, position at t + 1
 *
 * A position is everything that there is to remember: it is what the store and the tokens hold.
 * Position(t).rows describes the rows of batch t - 1, the ones whose states buffer t - 1 holds;
 * ended rows are still in it (segment + 1 == count), and are replaced by the step that follows.
 *
 * The batch size is the spec's until a position is given another (segue_plan_set_batch_size), which
 * holds from its step on; it may be 0. If more sequences are on their way than there is room for,
 * the oldest stay in the batch and the others are parked: they lie behind the rows, do not go on,
 * and come back, oldest first, before a new one is taken. So each in the batch is older than each
 * that is parked, and nothing is taken while something is parked. Where the rows get fewer than in
 * the batch before, those that stay move up in their order.
 *
 * With boundaries a batch is of one class of lengths, by cohorts (lane/cohort.h): it may then be
 * smaller, or have empty rows (tail = pad), also before the input is used up. tail = stop does not
 * go with them: a cohort that drains has no full batch.
 *
 * The input is delivered in stretches. Each ends by the tail rule, and the next begins with full
 * rows: with epoch_end = drain each epoch is one; else what lies between two ends of the input
 * (core/ends.h). So an end that is added changes nothing of what comes before it, wherever a lane
 * stands: before the last end that there was, in its tail, or at it.
 */
#ifndef SEGUE_LANE_PLAN_H
#define SEGUE_LANE_PLAN_H

#include "core/layout.h"
#include "core/position.h"
#include "lane/plan_spec.h"

#define SEGUE_PLAN_SKIP 1

struct segue_plan_input {
	void *arg;
	/*
	 * Steps (n >= 1) and total length of sequence `number`, which is record `record` of the
	 * data set in epoch `epoch`. 0, or SEGUE_PLAN_SKIP to pass it over for good, or a negative
	 * code: the step is given up without effect and may be tried again.
	 */
	int (*admit)(void *arg, uint64_t number, uint64_t record, uint64_t *array_steps,
		uint64_t *total_length);
	/*
	 * tail = pad: the number of steps that the longest lane needs for the stretch that begins
	 * with `epoch`. Asked when this lane has nothing of it left to deliver. 0 or a negative
	 * code.
	 */
	int (*longest)(void *arg, uint64_t epoch, uint64_t *steps);
	/*
	 * Where batches are of one class: as `admit`, of a sequence that is looked at, and may be
	 * begun much later; `admit` is then asked for it as well. NULL: `admit` serves for both.
	 */
	int (*look)(void *arg, uint64_t number, uint64_t record, uint64_t *array_steps,
		uint64_t *total_length);
};

struct segue_plan {
	struct segue_plan_spec spec;
	struct segue_position *position; /* owned */
	struct segue_position *scratch;  /* owned: the next position while a step is being made */
	uint32_t *origin;               /* owned: of each row of `scratch`, its row in `position` */
	uint32_t places;                /* in each of the three, beside those that wait */
	struct segue_plan_row *waiting; /* owned: of `scratch`, spec.window at most */
	uint32_t waiting_count;
};

/* Of one that has so many entries (segue_position_entries). */
size_t segue_position_size(uint32_t entries);
bool segue_position_same(const struct segue_position *a, const struct segue_position *b);

/* Position 0, which has no rows. */
void segue_plan_start(const struct segue_plan_spec *spec, struct segue_position *out);
/* Rows that the next batch has if there is enough for them. */
uint32_t segue_plan_batch_size(
	const struct segue_plan_spec *spec, const struct segue_position *position);
/* Places that this position and those that follow from it need, for rows and parked ones. */
uint32_t segue_plan_places(
	const struct segue_plan_spec *spec, const struct segue_position *position);
/*
 * From the position's step on batches have `batch_size` rows. Nothing changes where that is so
 * already. SEGUE_EINVAL: tail = pad, or more than SEGUE_ROWS_MAX.
 */
int segue_plan_set_batch_size(
	const struct segue_plan_spec *spec, struct segue_position *position, uint32_t batch_size);
/* A plan at step 0. SEGUE_EINVAL for a spec that segue_spec_check would refuse, SEGUE_ENOMEM. */
int segue_plan_init(struct segue_plan *plan, const struct segue_plan_spec *spec);
/* Makes room for so many places. SEGUE_ENOMEM. */
int segue_plan_make_room(struct segue_plan *plan, uint32_t places);
/* A zeroed plan is fine. */
void segue_plan_finish(struct segue_plan *plan);

/*
 * Sets the plan to a stored position, after checking it against the spec (rows, numbers of this
 * lane, segments below their count, next beyond every row, ...): SEGUE_EPROTOCOL says what is
 * impossible. Copies it. SEGUE_ENOMEM.
 */
int segue_plan_seek(struct segue_plan *plan, const struct segue_position *position);

/*
 * Makes batch position->step: writes its spans (segue_plan_places at most; in row order, then those
 * of the parked ones, of which the new position says how many; key fields are left 0) and moves the
 * position on. 1: a batch of *rows rows, none of them if the batch size is 0; 0: the lane has ended
 * at position->step, unless another end is added; negative: what the input said, nothing changed.
 */
int segue_plan_step(struct segue_plan *plan, const struct segue_plan_input *input,
	struct segue_slot_span *spans, uint32_t *rows);

/*
 * Input that went on has ended, and has so many records: from now on rows may run out. Batches that
 * were made stay as they are. SEGUE_EPROTOCOL: the position has taken more; nothing has changed.
 */
int segue_plan_end(struct segue_plan *plan, uint64_t records);

/* Segments of a sequence: ceil(array_steps / num_unroll). */
uint64_t segue_plan_segments(uint64_t array_steps, uint32_t num_unroll);
/* The record that sequence `number` is, or SEGUE_NO_RECORD (lane/numbers.h): it is passed over. */
uint64_t segue_plan_record(const struct segue_plan_spec *spec, uint64_t number);
/* True if row `row` of the position still has a segment to come. */
bool segue_plan_row_lives(const struct segue_plan_spec *spec, const struct segue_plan_row *row);

/*
 * Steps that the longest of all lanes needs for the stretch that begins with `epoch`, from the
 * lengths alone: lengths[record] = array steps, 0 for a record that is passed over. For tail = pad.
 * Runs in O(sequences * log batch_size). SEGUE_ENOMEM; SEGUE_EINVAL: there is no such stretch, or
 * it has no end.
 */
int segue_plan_longest(const struct segue_plan_spec *spec, uint64_t epoch, const uint32_t *lengths,
	uint64_t *steps);

/* Sequences, or lanes if they are more, over all epochs: a few seconds. */
#define SEGUE_PLAN_COUNTED_MAX 100000000

/* Whether segue_plan_count may be asked. SEGUE_EINVAL: the input has no end, or is too long. */
int segue_plan_check_countable(const struct segue_plan_spec *spec);
/*
 * Steps of each lane from the first to its end, with the spec's batch size, by lengths as above:
 * writes one number a lane. SEGUE_ENOMEM; SEGUE_EGONE once `given_up` is set (NULL: never).
 */
int segue_plan_count(const struct segue_plan_spec *spec, const uint32_t *lengths,
	const _Atomic bool *given_up, uint64_t *steps);

#endif
