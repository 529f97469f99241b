/* Lanes into the store, and out of it. */
#include "store/lanes.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/barrier.h"
#include "core/clock.h"
#include "core/error.h"
#include "os/process.h"
#include "store/checkpoints.h"
#include "store/finals.h"
#include "store/row.h"

enum {
	STATE = SEGUE_KEY_LANE + 8,
	GRACE_MS = 10000, /* for a holder that cannot be looked up */
};

static void state_key(struct segue_place place, uint64_t number, uint8_t key[STATE])
{
	segue_key_put64(segue_key_put_lane(key, place), number);
}

int segue_lanes_put(
	struct segue_ops *ops, struct segue_place place, const struct segue_lane_record *record)
{
	uint8_t key[SEGUE_KEY_LANE];
	void *value;
	size_t size;

	int rc = segue_lane_record_pack(record, &value, &size);
	if (rc)
		return rc;
	segue_key_put_lane(key, place);
	return segue_ops_put(ops, SEGUE_TABLE_LANES, key, sizeof(key), value, size);
}

static int add_rows(
	struct segue_ops *ops, struct segue_place place, const struct segue_image *image)
{
	uint8_t key[STATE];

	for (uint32_t i = 0; i < image->live_count; i++) {
		uint32_t row = image->live[i];
		state_key(place, image->position->row[row].number, key);
		const struct segue_row stored = {.key = image->key[row].bytes,
			.key_size = image->key[row].size,
			.states = image->states + row * image->row_size};
		int rc = segue_row_put(
			ops, SEGUE_TABLE_STATES, key, sizeof(key), &stored, image->row_size);
		if (rc)
			return rc;
	}
	return 0;
}

int segue_lanes_clear(struct segue_ops *ops, struct segue_place place)
{
	uint8_t key[SEGUE_KEY_LANE];

	segue_key_put_lane(key, place);
	return segue_ops_remove_prefix(ops, SEGUE_TABLE_STATES, key, sizeof(key));
}

static int add_drops(
	struct segue_ops *ops, struct segue_place place, const struct segue_account *account)
{
	uint8_t key[STATE];

	for (uint32_t i = 0; i < account->stored_count; i++) {
		if (account->stored[i].lives || SEGUE_MUTANT(rows_not_dropped))
			continue;
		state_key(place, account->stored[i].number, key);
		int rc = segue_ops_remove(ops, SEGUE_TABLE_STATES, key, sizeof(key));
		if (rc)
			return rc;
	}
	return 0;
}

int segue_lanes_put_image(struct segue_ops *ops, struct segue_place place,
	const struct segue_lane_record *record, const struct segue_image *image,
	struct segue_account *account)
{
	struct segue_lane_record moved = *record;
	size_t before = ops->count;
	int rc;

	moved.position = image->position;
	segue_account_compare(account, image);
	if ((rc = segue_lanes_put(ops, place, &moved)) || (rc = add_drops(ops, place, account)) ||
		(rc = add_rows(ops, place, image)))
		segue_ops_truncate(ops, before);
	return rc;
}

int segue_lanes_fresh(struct segue_ops *ops, struct segue_store *store, struct segue_place place)
{
	static const enum segue_table tables[] = {
		SEGUE_TABLE_STATES, SEGUE_TABLE_FINALS, SEGUE_TABLE_UNDO};
	size_t before = ops->count;
	uint8_t key[SEGUE_KEY_LANE];

	segue_key_put_lane(key, place);
	int rc = segue_checkpoints_clear(ops, store, place);
	for (size_t i = 0; !rc && i < sizeof(tables) / sizeof(tables[0]); i++)
		rc = segue_ops_remove_prefix(ops, tables[i], key, sizeof(key));
	if (rc)
		segue_ops_truncate(ops, before);
	return rc;
}

int segue_lanes_rewind(
	struct segue_ops *ops, struct segue_store *store, struct segue_place place, uint64_t step)
{
	struct segue_catalogue catalogue;
	size_t before = ops->count;

	int rc = segue_catalogue_load(store, place, &catalogue);
	if (!rc)
		rc = segue_finals_undo(ops, store, place, step, segue_catalogue_floor(&catalogue));
	if (!rc)
		rc = segue_checkpoints_rewind(ops, place, &catalogue, step);
	if (rc)
		segue_ops_truncate(ops, before);
	return rc;
}

int segue_lanes_load(
	struct segue_store *store, struct segue_place place, struct segue_lane_record *record)
{
	uint8_t key[SEGUE_KEY_LANE];
	void *value;
	size_t size;

	segue_key_put_lane(key, place);
	int rc = segue_store_get(store, SEGUE_TABLE_LANES, key, sizeof(key), &value, &size);
	if (rc)
		return rc;
	rc = segue_lane_record_unpack(value, size, record);
	free(value);
	return rc ? segue_fail_within(
			    segue_as_damage(rc, SEGUE_ESTORE), "record of lane %u", place.lane)
		  : 0;
}

int segue_lanes_load_step(struct segue_store *store, struct segue_place place, uint64_t *step)
{
	struct segue_lane_record record;

	int rc = segue_lanes_load(store, place, &record);
	if (rc)
		return rc == SEGUE_ENOTFOUND ? (*step = 0, 0) : rc;
	*step = record.position->step;
	free(record.position);
	return 0;
}

bool segue_lanes_may_be_held(const struct segue_lane_record *record)
{
	if (!record->held)
		return false;
	switch (segue_process_presence(&record->holder)) {
	case SEGUE_PRESENCE_GONE:
		return false;
	case SEGUE_PRESENCE_ALIVE:
		return true;
	case SEGUE_PRESENCE_UNKNOWN:
		break;
	}
	return segue_unix_ms() - record->committed_ms < GRACE_MS;
}

int segue_lanes_load_row(struct segue_store *store, struct segue_place place, uint64_t number,
	uint64_t row_size, void **value, struct segue_row *row)
{
	uint8_t key[STATE];
	size_t size;

	state_key(place, number, key);
	int rc = segue_store_get(store, SEGUE_TABLE_STATES, key, sizeof(key), value, &size);
	if (rc)
		return rc;
	rc = segue_row_get(*value, size, row_size, row);
	if (rc)
		free(*value);
	return rc;
}

static int load_row(struct segue_store *store, struct segue_place place, struct segue_image *image,
	uint32_t row)
{
	const uint64_t number = image->position->row[row].number;
	struct segue_row stored;
	void *value;

	int rc = segue_lanes_load_row(store, place, number, image->row_size, &value, &stored);
	if (rc == SEGUE_ENOTFOUND)
		return segue_fail(SEGUE_ESTORE,
			"the states of sequence %" PRIu64
			" of lane %u are missing in the store: go back to a checkpoint with "
			"load_state_dict(), or restore a backup",
			number, place.lane);
	if (rc)
		return rc;
	memcpy(image->states + row * image->row_size, stored.states, image->row_size);
	rc = segue_image_set_key(image, row, stored.key, stored.key_size);
	free(value);
	return rc;
}

int segue_lanes_outline(const struct segue_plan_spec *plan, const struct segue_position *position,
	uint64_t row_size, struct segue_image **out)
{
	if (!position->sized && position->rows > plan->batch_size)
		return segue_fail(SEGUE_ESTORE,
			"the position of lane %u in the store has %u rows, a batch of the stream "
			"%u: restore a backup",
			plan->lane, position->rows, plan->batch_size);
	struct segue_image *image = segue_image_create(plan, position, row_size);
	if (!image)
		return segue_fail(SEGUE_ENOMEM, "no memory for the states of a lane");
	*out = image;
	return 0;
}

int segue_lanes_load_image(struct segue_store *store, struct segue_place place,
	const struct segue_plan_spec *plan, const struct segue_position *position,
	uint64_t row_size, struct segue_image **out)
{
	struct segue_image *image;

	int outlined = segue_lanes_outline(plan, position, row_size, &image);
	if (outlined)
		return outlined;
	for (uint32_t i = 0; i < image->live_count; i++) {
		int rc = load_row(store, place, image, image->live[i]);
		if (rc) {
			segue_image_destroy(image);
			return rc;
		}
	}
	*out = image;
	return 0;
}

int segue_lanes_put_stream(struct segue_ops *ops, const struct segue_stream_record *record)
{
	uint8_t hash[SEGUE_STORE_KEY_MAX];
	size_t key_size, size;
	void *value;

	int rc = segue_stream_record_pack(record, &value, &size);
	if (rc)
		return rc;
	const void *key = segue_key_stream(record->spec->name, hash, &key_size);
	return segue_ops_put(ops, SEGUE_TABLE_STREAMS, key, key_size, value, size);
}

int segue_lanes_load_stream(
	struct segue_store *store, const char *name, struct segue_stream_record *record)
{
	uint8_t hash[SEGUE_STORE_KEY_MAX];
	size_t key_size, size;
	void *value;

	if (!*name)
		return segue_fail(SEGUE_ENOTFOUND, "no stream is named");
	const void *key = segue_key_stream(name, hash, &key_size);
	int rc = segue_store_get(store, SEGUE_TABLE_STREAMS, key, key_size, &value, &size);
	if (rc == SEGUE_ENOTFOUND)
		return segue_fail(SEGUE_ENOTFOUND,
			"the store has no stream '%s': 'segue inspect' shows those that it has",
			name);
	if (rc)
		return rc;
	rc = segue_stream_record_unpack(value, size, record);
	free(value);
	return rc ? segue_fail_within(segue_as_damage(rc, SEGUE_ESTORE),
			    "what the store has of stream '%s'", name)
		  : 0;
}

int segue_lanes_find_stream(struct segue_store *store, const char *name, uint32_t *id)
{
	struct segue_stream_record record;

	int rc = segue_lanes_load_stream(store, name, &record);
	if (rc)
		return rc;
	*id = record.id;
	segue_spec_destroy(record.spec);
	return 0;
}
