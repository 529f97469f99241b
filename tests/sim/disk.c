/* The store of a run. */
#include "disk.h"

#include <string.h>

#include "core/error.h"
#include "machine.h"
#include "oracle.h"

struct sim_disk sim_disk;

enum kind { LANE, PUT, DROP, FINAL, REWIND, GROW };

struct sim_op {
	enum kind kind;
	uint32_t pair;
	struct segue_lane_record record; /* LANE */
	struct sim_disk_row row;         /* PUT, DROP, FINAL */
	uint64_t generation, step;       /* REWIND */
	uint32_t ends;                   /* GROW */
};

static const struct sim_ops *under_way;

/* ---- Operations ----------------------------------------------------------------------------- */

static struct sim_op *add(struct sim_ops *ops, enum kind kind, uint32_t pair)
{
	if (ops->count == ops->capacity) {
		ops->capacity = ops->capacity ? 2 * ops->capacity : 16;
		ops->op = realloc(ops->op, ops->capacity * sizeof(*ops->op));
	}
	struct sim_op *op = &ops->op[ops->count++];
	memset(op, 0, sizeof(*op));
	op->kind = kind;
	op->pair = pair;
	return op;
}

void sim_ops_finish(struct sim_ops *ops)
{
	for (size_t i = 0; i < ops->count; i++)
		free(ops->op[i].record.position);
	free(ops->op);
	*ops = (struct sim_ops){0};
}

static struct segue_position *copy_of(const struct segue_position *position)
{
	struct segue_position *copy = malloc(segue_position_size(SIM_ROWS + SIM_WINDOW));

	memcpy(copy, position, segue_position_size(segue_position_entries(position)));
	return copy;
}

void sim_ops_lane(struct sim_ops *ops, uint32_t pair, const struct segue_lane_record *record,
	const struct segue_position *position)
{
	struct sim_op *op = add(ops, LANE, pair);

	op->record = *record;
	op->record.position = copy_of(position);
}

static void set_row(struct sim_disk_row *row, uint64_t number, const char *key, uint32_t key_size,
	const uint8_t *states)
{
	row->number = number;
	row->key_size = key_size < SIM_KEY_MAX ? key_size : SIM_KEY_MAX;
	if (row->key_size)
		memcpy(row->key, key, row->key_size);
	memcpy(&row->states, states, sim_world.words * sizeof(uint64_t));
}

void sim_ops_rows(struct sim_ops *ops, uint32_t pair, const struct segue_image *image,
	struct segue_account *account)
{
	segue_account_compare(account, image);
	for (uint32_t i = 0; i < account->stored_count; i++)
		if (!account->stored[i].lives)
			add(ops, DROP, pair)->row.number = account->stored[i].number;
	for (uint32_t i = 0; i < image->live_count; i++) {
		uint32_t row = image->live[i];
		set_row(&add(ops, PUT, pair)->row, image->position->row[row].number,
			image->key[row].bytes, image->key[row].size,
			image->states + row * image->row_size);
	}
}

void sim_ops_final(struct sim_ops *ops, uint32_t pair, uint64_t number, const char *key,
	uint32_t key_size, const uint8_t *states)
{
	set_row(&add(ops, FINAL, pair)->row, number, key, key_size, states);
}

void sim_ops_rewind(struct sim_ops *ops, uint32_t pair, uint64_t generation, uint64_t step)
{
	struct sim_op *op = add(ops, REWIND, pair);

	op->generation = generation;
	op->step = step;
}

void sim_ops_grow(struct sim_ops *ops, uint32_t ends)
{
	add(ops, GROW, 0)->ends = ends;
}

/* ---- Transactions --------------------------------------------------------------------------- */

void sim_disk_begin(void)
{
	static const int64_t lags[] = {2, 20, 200, 2000};

	memset(&sim_disk, 0, sizeof(sim_disk));
	sim_disk.ends = 1;
	under_way = NULL;
	sim_disk.lag = lags[sim_below(sizeof(lags) / sizeof(lags[0]))];
}

static void put_row(struct sim_disk_lane *lane, const struct sim_disk_row *row)
{
	uint32_t i = 0;

	while (i < lane->rows && lane->row[i].number != row->number)
		i++;
	if (i == lane->rows)
		lane->rows++;
	sim_check(i < 2 * SIM_ROWS, "rows", "%u rows are stored of a lane", lane->rows);
	lane->row[i] = *row;
}

static void drop_row(struct sim_disk_lane *lane, uint64_t number)
{
	for (uint32_t i = 0; i < lane->rows; i++) {
		if (lane->row[i].number == number) {
			lane->row[i] = lane->row[--lane->rows];
			return;
		}
	}
}

static void perform(const struct sim_op *op)
{
	struct sim_disk_lane *lane = &sim_disk.lane[op->pair];

	switch (op->kind) {
	case LANE:
		free(lane->record.position);
		lane->record = op->record;
		lane->record.position = copy_of(op->record.position);
		lane->exists = true;
		break;
	case PUT:
		put_row(lane, &op->row);
		break;
	case DROP:
		drop_row(lane, op->row.number);
		break;
	case FINAL:
		sim_check(op->row.number < SIM_NUMBERS, "finals", "number %llu",
			(unsigned long long)op->row.number);
		sim_disk.final[sim_group_of(op->pair)][op->row.number] = op->row;
		break;
	case REWIND:
		sim_oracle_rewinds(op->pair, op->generation, op->step);
		break;
	case GROW:
		sim_disk.ends = op->ends;
		break;
	}
}

static void perform_all(const struct sim_ops *ops)
{
	for (size_t i = 0; i < ops->count; i++)
		perform(&ops->op[i]);
	for (uint32_t pair = 0; pair < sim_world.pairs; pair++)
		for (size_t i = 0; i < ops->count; i++)
			if (ops->op[i].kind == LANE && ops->op[i].pair == pair)
				sim_oracle_stored(pair);
}

static void pass_time(void)
{
	sim_stop(sim_now() + sim_below((uint32_t)sim_disk.lag));
	sim_point();
}

int sim_disk_apply(const struct sim_ops *ops)
{
	int rc = sim_disk.fail_next;

	if (!rc && sim_now() < sim_disk.full_until) {
		sim_happened[SIM_DISK_FULL_AGAIN]++;
		rc = SEGUE_ENOSPACE;
	}
	if (rc)
		sim_happened[rc == SEGUE_ENOSPACE ? SIM_DISK_FULL : SIM_DISK_FAILED]++;
	sim_disk.fail_next = 0;
	sim_progress();
	pass_time();
	if (rc == SEGUE_ENOSPACE) {
		sim_trace("the disk is full");
		return segue_fail(rc, "the disk is full");
	}
	under_way = ops;
	pass_time();
	under_way = NULL;
	if (!rc || sim_one_in(2))
		perform_all(ops);
	sim_trace("transaction of %zu: %d", ops->count, rc);
	pass_time();
	return rc ? segue_fail(rc, "the disk failed") : 0;
}

void sim_disk_crash(void)
{
	if (under_way && sim_one_in(2)) {
		sim_trace("the transaction under way made it");
		perform_all(under_way);
	}
	under_way = NULL;
	sim_disk.fail_next = 0;
}

struct segue_image *sim_disk_image(uint32_t pair)
{
	const struct sim_disk_lane *lane = &sim_disk.lane[pair];
	const struct segue_position *position = lane->record.position;
	uint64_t row_size = sim_world.words * sizeof(uint64_t);
	struct segue_image *image =
		segue_image_create(&sim_world.truth[pair].plan, position, row_size);

	if (!position)
		return image;
	for (uint32_t row = 0; row < segue_position_count(position); row++) {
		for (uint32_t i = 0; i < lane->rows; i++) {
			const struct sim_disk_row *stored = &lane->row[i];
			if (stored->number != position->row[row].number)
				continue;
			memcpy(image->states + row * row_size, &stored->states, row_size);
			segue_image_set_key(image, row, stored->key, stored->key_size);
		}
	}
	return image;
}
