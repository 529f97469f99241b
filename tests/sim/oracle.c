/* The oracle: lines of history, and what must agree with them. */
#include "oracle.h"

#include <string.h>

#include "disk.h"
#include "machine.h"

#define GENERATIONS 256

/* States after one batch, as they were handed over. */
struct node {
	struct sim_states states[SIM_ROWS];
};

struct line {
	bool sent, rollback;
	struct sim_owner owner;
	uint64_t granted;
	uint64_t next; /* the batch to be delivered */
	uint64_t due;  /* batches below it were committed before the lane was granted anew */
	/*
	 * Final states of earlier batches may be another history's: a checkpoint does not hold
	 * those of sequences that ended before it.
	 */
	uint64_t finals_from;
	struct node *after[SIM_STEPS];
};

static struct {
	struct line *line[GENERATIONS];
	uint64_t stored_generation, stored_step;
} pairs[SIM_PAIRS];

static const struct sim_lane_truth *truth_of(uint32_t pair)
{
	return &sim_world.truth[pair];
}

static struct line *line_of(uint32_t pair, uint64_t generation)
{
	struct line *line = generation < GENERATIONS ? pairs[pair].line[generation] : NULL;

	sim_check(line != NULL, "generation", "pair %u: generation %llu was never granted", pair,
		(unsigned long long)generation);
	return line;
}

void sim_oracle_begin(void)
{
	memset(pairs, 0, sizeof(pairs));
}

/* ---- Grants --------------------------------------------------------------------------------- */

void sim_oracle_granted(uint32_t pair, uint64_t generation, struct sim_line parent, uint64_t step,
	bool rollback, struct sim_owner owner)
{
	sim_check(generation > 0 && generation < GENERATIONS, "generation", "pair %u: %llu", pair,
		(unsigned long long)generation);
	struct line **line = &pairs[pair].line[generation];

	/* A grant that never reached the disk may be decided anew, unless somebody has it. */
	sim_check(!*line || !(*line)->sent, "generation",
		"pair %u: generation %llu is granted twice", pair, (unsigned long long)generation);
	if (!*line)
		*line = calloc(1, sizeof(**line));
	memset(*line, 0, sizeof(**line));
	(*line)->granted = (*line)->next = (*line)->due = step;
	(*line)->rollback = rollback;
	(*line)->owner = owner;
	(*line)->finals_from = rollback ? step : 0;
	if (step > 0)
		memcpy((*line)->after, line_of(parent.pair, parent.generation)->after,
			step * sizeof((*line)->after[0]));
	if (step > 0 && !rollback)
		(*line)->finals_from = line_of(parent.pair, parent.generation)->finals_from;
	for (uint64_t t = 0; t < step; t++)
		sim_check((*line)->after[t] != NULL, "gap",
			"pair %u: granted at step %llu, but %llu was not committed", pair,
			(unsigned long long)step, (unsigned long long)t);
}

bool sim_oracle_all_of(uint32_t pair, uint64_t from, uint64_t to, uint64_t handle)
{
	for (uint64_t g = from; g <= to && pairs[pair].line[g]; g++) {
		const struct line *line = line_of(pair, g);
		if (line->owner.handle != handle || (g > from && line->rollback))
			return false;
	}
	return true;
}

int64_t sim_oracle_process_after(uint32_t pair, uint64_t generation)
{
	const struct line *next = pairs[pair].line[generation + 1];

	return next ? next->owner.process : 0;
}

int64_t sim_oracle_process(uint32_t pair)
{
	const struct sim_disk_lane *stored = &sim_disk.lane[pair];

	return stored->exists ? line_of(pair, stored->record.generation)->owner.process : 0;
}

void sim_oracle_continues(
	uint32_t pair, uint64_t generation, uint64_t from, uint64_t step, bool unknown)
{
	const struct line *line = line_of(pair, generation), *old = line_of(pair, from);

	for (uint64_t g = from + 1; g <= generation; g++) {
		const struct line *between = line_of(pair, g);
		if (between->rollback || (unknown && between->owner.process != old->owner.process))
			return;
	}
	/* What it committed while somebody else of its process was being given the lane may not. */
	if (step > old->due)
		step = old->due;
	sim_check(line->granted >= step, "lost",
		"pair %u: lease %llu had committed %llu batches, taken over at step %llu", pair,
		(unsigned long long)from, (unsigned long long)step,
		(unsigned long long)line->granted);
	for (uint64_t t = 0; t < step; t++)
		sim_check(line->after[t] == old->after[t], "lost",
			"pair %u: batch %llu of lease %llu is another one after the takeover", pair,
			(unsigned long long)t, (unsigned long long)from);
}

void sim_oracle_sent(uint32_t pair, uint64_t generation, uint64_t step)
{
	struct line *line = line_of(pair, generation);
	const struct sim_disk_lane *stored = &sim_disk.lane[pair];

	sim_check(!line->sent, "two_holders", "pair %u: generation %llu is held twice", pair,
		(unsigned long long)generation);
	sim_check(stored->exists && stored->record.held && stored->record.generation == generation,
		"grant_durable", "pair %u: generation %llu is used, but %llu is on disk (held: %d)",
		pair, (unsigned long long)generation, (unsigned long long)stored->record.generation,
		stored->record.held);
	sim_check(step == line->granted, "grant_step", "pair %u: granted at %llu, sent at %llu",
		pair, (unsigned long long)line->granted, (unsigned long long)step);
	line->sent = true;
}

/* ---- Batches -------------------------------------------------------------------------------- */

static const struct sim_states *left_of(const struct line *line, const struct sim_left *left)
{
	return &line->after[left->step]->states[left->row];
}

/* What a row is handed; policies draw by sequence and segment alone. */
static struct sim_states states_in(
	const struct sim_lane_truth *truth, const struct line *line, uint64_t step, uint32_t row)
{
	const struct segue_slot_span *span = &truth->span[step][row];
	struct sim_states initial =
		sim_world_initial(segue_plan_record(&truth->plan, span->number));

	if (truth->left[step][row].step < SIM_STEPS)
		return *left_of(line, &truth->left[step][row]);
	if (span->flags & SEGUE_SPAN_FIRST)
		return initial;
	struct sim_states states = line->after[step - 1]->states[span->previous_row];
	for (size_t i = 0; i < sim_world.spec.state_count; i++) {
		const struct segue_field *state = &sim_world.state[i];
		if (!segue_policy_zeroes(
			    &state->policy, sim_world.spec.seed, i, span->number, span->segment))
			continue;
		memcpy(sim_state_of(&states, i), sim_state_of(&initial, i), state->size);
		sim_happened[SIM_ZEROED]++;
		sim_happened[SIM_ZEROED_AGAIN] += step == line->granted;
	}
	return states;
}

void sim_oracle_delivered(
	uint32_t pair, uint64_t generation, uint64_t step, const struct sim_states *in)
{
	const struct sim_lane_truth *truth = truth_of(pair);
	struct line *line = line_of(pair, generation);

	sim_check(step == line->next, "order", "pair %u: batch %llu delivered instead of %llu",
		pair, (unsigned long long)step, (unsigned long long)line->next);
	for (uint32_t row = 0; row < truth->rows[step]; row++) {
		if (truth->span[step][row].flags & SEGUE_SPAN_EMPTY)
			continue;
		struct sim_states expected = states_in(truth, line, step, row);
		sim_check(sim_states_equal(&in[row], &expected), "state_in",
			"pair %u: row %u of batch %llu comes with other states than were committed",
			pair, row, (unsigned long long)step);
	}
}

void sim_oracle_commits(
	uint32_t pair, uint64_t generation, uint64_t step, const struct sim_states *out)
{
	struct line *line = line_of(pair, generation);

	sim_check(step == line->next && !line->after[step], "twice",
		"pair %u: batch %llu is committed twice under generation %llu", pair,
		(unsigned long long)step, (unsigned long long)generation);
	const struct sim_lane_truth *truth = truth_of(pair);
	struct node *node = line->after[step] = calloc(1, sizeof(struct node));
	memcpy(node->states, out, truth->rows[step] * sizeof(struct sim_states));
	/* Those that are parked keep what they have. */
	for (uint32_t row = truth->rows[step]; row < truth->spans[step]; row++)
		node->states[row] =
			line->after[step - 1]->states[truth->span[step][row].previous_row];
	line->next++;
	if (!pairs[pair].line[generation + 1])
		line->due = line->next;
}

void sim_oracle_withdrawn(uint32_t pair, uint64_t generation, uint64_t step)
{
	struct line *line = line_of(pair, generation);

	line->after[step] = NULL;
	line->next--;
	if (line->due > line->next)
		line->due = line->next;
}

void sim_oracle_acknowledged(uint32_t pair, uint64_t generation, uint64_t step)
{
	const struct sim_disk_lane *stored = &sim_disk.lane[pair];
	const struct line *line = line_of(pair, stored->record.generation);

	/* It may just have been taken over, with all that it had committed. */
	for (uint64_t g = generation + 1; g <= stored->record.generation; g++)
		if (line_of(pair, g)->rollback)
			return;
	sim_check(stored->record.position->step >= step &&
			  line->after[step - 1] == line_of(pair, generation)->after[step - 1],
		"acknowledged", "pair %u: durable to %llu it says, but %llu is on disk", pair,
		(unsigned long long)step,
		(unsigned long long)(stored->exists ? stored->record.position->step : 0));
}

void sim_oracle_sized(uint32_t pair, uint64_t generation, uint64_t step)
{
	const struct segue_lane_record *stored = &sim_disk.lane[pair].record;

	for (uint64_t g = generation + 1; g <= stored->generation; g++)
		if (line_of(pair, g)->rollback)
			return;
	sim_check(stored->position->step > step || stored->position->sized == step + 1, "sized",
		"pair %u: another batch size from step %llu on it says, and that is not on disk",
		pair, (unsigned long long)step);
}

/* ---- Images --------------------------------------------------------------------------------- */

static bool position_right(const struct segue_position *position, const struct segue_position *is)
{
	if (position->step != is->step || position->next != is->next ||
		position->epoch != is->epoch || position->epoch_step != is->epoch_step ||
		position->undelivered != is->undelivered || position->rows != is->rows ||
		position->parked != is->parked || position->sized != is->sized ||
		position->batch_size != is->batch_size || position->waiting != is->waiting)
		return false;
	return memcmp(position->row, is->row, segue_position_entries(is) * sizeof(is->row[0])) == 0;
}

/* With the batch size that the lane has from there on. */
static bool is_sized(const struct sim_lane_truth *truth, const struct segue_position *position)
{
	const struct segue_position *sized = truth->sized[position->step];

	return sized && position_right(position, sized);
}

static void check_position(
	uint32_t pair, const struct line *line, const struct segue_position *position)
{
	const struct sim_lane_truth *truth = truth_of(pair);
	uint64_t step = position->step;

	sim_check(step <= truth->end && (position_right(position, truth->position[step]) ||
						is_sized(truth, position)),
		"position", "pair %u: the position is not that of step %llu", pair,
		(unsigned long long)step);
	sim_check(step == 0 || line->after[step - 1], "uncommitted",
		"pair %u: position %llu, but that batch was never committed", pair,
		(unsigned long long)step);
}

static void check_states(uint32_t pair, const struct line *line, uint64_t step, uint32_t row,
	const struct sim_states *states)
{
	sim_check(sim_states_equal(states, &line->after[step - 1]->states[row]), "states",
		"pair %u: states of row %u at step %llu are not those committed with it", pair, row,
		(unsigned long long)step);
}

void sim_oracle_image(uint32_t pair, uint64_t generation, const struct segue_image *image)
{
	const struct line *line = line_of(pair, generation);
	const struct segue_position *position = image->position;
	struct sim_states states;

	check_position(pair, line, position);
	for (uint32_t row = 0; row < segue_position_count(position); row++) {
		if (!segue_plan_row_lives(&truth_of(pair)->plan, &position->row[row]))
			continue;
		memset(&states, 0, sizeof(states));
		memcpy(&states, image->states + row * image->row_size, image->row_size);
		check_states(pair, line, position->step, row, &states);
	}
}

/* ---- The store ------------------------------------------------------------------------------ */

static const struct sim_disk_row *row_of(const struct sim_disk_lane *lane, uint64_t number)
{
	for (uint32_t i = 0; i < lane->rows; i++)
		if (lane->row[i].number == number)
			return &lane->row[i];
	return NULL;
}

static bool key_right(uint32_t pair, const struct sim_disk_row *row)
{
	char key[SIM_KEY_MAX];
	uint32_t size = sim_world_key(segue_plan_record(&truth_of(pair)->plan, row->number), key);

	return row->key_size == size && memcmp(row->key, key, size) == 0;
}

/* Exactly the live rows are stored, with the states of the stored step. */
static void check_rows(uint32_t pair, const struct line *line)
{
	const struct sim_disk_lane *lane = &sim_disk.lane[pair];
	const struct segue_position *position = lane->record.position;
	uint32_t live = 0;

	for (uint32_t row = 0; row < segue_position_count(position); row++) {
		if (!segue_plan_row_lives(&truth_of(pair)->plan, &position->row[row]))
			continue;
		const struct sim_disk_row *stored = row_of(lane, position->row[row].number);
		sim_check(stored != NULL, "rows", "pair %u: row %u of step %llu is not stored",
			pair, row, (unsigned long long)position->step);
		sim_check(key_right(pair, stored), "key", "pair %u: row %u has another key", pair,
			row);
		check_states(pair, line, position->step, row, &stored->states);
		live++;
	}
	sim_check(live == lane->rows, "rows", "pair %u: %u rows are stored, %u are alive", pair,
		lane->rows, live);
}

/* Each sequence that ended in batch `step` has its last states. */
static void check_finals(uint32_t pair, const struct line *line, uint64_t step)
{
	const struct sim_lane_truth *truth = truth_of(pair);

	for (uint32_t row = 0; row < truth->rows[step] && step >= line->finals_from; row++) {
		const struct segue_slot_span *span = &truth->span[step][row];
		if (!(span->flags & SEGUE_SPAN_LAST))
			continue;
		const struct sim_disk_row *final =
			&sim_disk.final[sim_group_of(pair)][span->number];
		sim_check(final->key_size > 0, "finals",
			"pair %u: sequence %llu ended in batch %llu, its final states are missing",
			pair, (unsigned long long)span->number, (unsigned long long)step);
		sim_check(key_right(pair, final), "key", "pair %u: final under another key", pair);
		sim_check(sim_states_equal(&final->states, &line->after[step]->states[row]),
			"finals",
			"pair %u: final states of sequence %llu are not those of batch %llu", pair,
			(unsigned long long)span->number, (unsigned long long)step);
	}
}

void sim_oracle_stored(uint32_t pair)
{
	const struct segue_lane_record *record = &sim_disk.lane[pair].record;
	const struct line *line = line_of(pair, record->generation);
	uint64_t step = record->position->step, from = pairs[pair].stored_step;
	bool same = record->generation == pairs[pair].stored_generation;

	sim_trace("pair %u: generation %llu, step %llu on disk, held %d", pair,
		(unsigned long long)record->generation, (unsigned long long)step, record->held);
	sim_check(record->generation >= pairs[pair].stored_generation, "generation",
		"pair %u: generation %llu is stored over %llu", pair,
		(unsigned long long)record->generation,
		(unsigned long long)pairs[pair].stored_generation);
	sim_check(step >= from || (!same && line->rollback), "lost",
		"pair %u: step %llu was on disk, now it is %llu", pair, (unsigned long long)from,
		(unsigned long long)step);
	check_position(pair, line, record->position);
	check_rows(pair, line);
	for (uint64_t t = same ? from : 0; t < step; t++)
		check_finals(pair, line, t);
	pairs[pair].stored_generation = record->generation;
	pairs[pair].stored_step = step;
}

void sim_oracle_rewinds(uint32_t pair, uint64_t generation, uint64_t step)
{
	const struct sim_lane_truth *truth = truth_of(pair);
	const struct line *line = step > 0 ? line_of(pair, generation) : NULL;

	for (uint64_t t = 0; t < truth->end; t++)
		for (uint32_t row = 0; row < truth->rows[t]; row++) {
			const struct segue_slot_span *span = &truth->span[t][row];
			if (!(span->flags & SEGUE_SPAN_LAST)) /* empty rows have no number */
				continue;
			struct sim_disk_row *final =
				&sim_disk.final[sim_group_of(pair)][span->number];
			if (t >= step) {
				final->key_size = 0;
				continue;
			}
			final->number = span->number;
			final->key_size = sim_world_key(
				segue_plan_record(&truth->plan, span->number), final->key);
			final->states = line->after[t]->states[row];
		}
}

void sim_oracle_end(void)
{
	for (uint32_t pair = 0; pair < sim_world.pairs; pair++) {
		const struct segue_lane_record *record = &sim_disk.lane[pair].record;
		const struct line *line = line_of(pair, record->generation);
		sim_check(record->position->step == truth_of(pair)->end, "end",
			"pair %u ended at step %llu of %llu", pair,
			(unsigned long long)record->position->step,
			(unsigned long long)truth_of(pair)->end);
		for (uint64_t t = 0; t < truth_of(pair)->end; t++) {
			sim_check(line->after[t] != NULL, "gap", "pair %u: batch %llu is missing",
				pair, (unsigned long long)t);
			check_finals(pair, line, t);
		}
	}
}
