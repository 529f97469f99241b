/* Final states: versions, and what takes them back. */
#include "store/finals.h"

#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "store/row.h"

enum {
	VERSIONS = SEGUE_KEY_LANE + SEGUE_KEY_HASH, /* all versions of one record in one lane */
	FINAL = VERSIONS + 8,
	UNDO = SEGUE_KEY_LANE + 16,
};

static void final_key(struct segue_place place, const uint8_t hash[SEGUE_KEY_HASH], uint64_t number,
	uint8_t key[FINAL])
{
	segue_key_put_lane(key, place);
	memcpy(key + SEGUE_KEY_LANE, hash, SEGUE_KEY_HASH);
	segue_key_put64(key + VERSIONS, number);
}

static void undo_key(struct segue_place place, uint64_t step, uint64_t number, uint8_t key[UNDO])
{
	segue_key_put64(segue_key_put64(segue_key_put_lane(key, place), step), number);
}

int segue_finals_put(struct segue_ops *ops, struct segue_place place, uint64_t row_size,
	const struct segue_kept *kept, uint64_t from, uint64_t below)
{
	uint8_t hash[SEGUE_KEY_HASH], key[FINAL], undo[UNDO];
	size_t before = ops->count;
	int rc = 0;

	for (; kept && !rc; kept = kept->next) {
		if (kept->step < from || kept->step >= below)
			continue;
		segue_key_put_hash(hash, kept->key, kept->key_size);
		final_key(place, hash, kept->number, key);
		undo_key(place, kept->step, kept->number, undo);
		const struct segue_row row = {
			.key = kept->key, .key_size = kept->key_size, .states = kept->states};
		rc = segue_row_put(ops, SEGUE_TABLE_FINALS, key, sizeof(key), &row, row_size);
		if (!rc)
			rc = segue_ops_put_copy(
				ops, SEGUE_TABLE_UNDO, undo, sizeof(undo), hash, SEGUE_KEY_HASH);
	}
	if (rc)
		segue_ops_truncate(ops, before);
	return rc;
}

/* A walk over the undo entries of a lane. */
struct undoing {
	struct segue_ops *ops;
	struct segue_place place;
	uint32_t lanes;
	uint64_t floor; /* entries below this step: their versions stay */
	size_t left;
	int (*each)(struct undoing *undoing, uint64_t step, uint64_t number, const uint8_t *hash);
};

enum { ENOUGH = 1 };

static int visit_undo(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	struct undoing *undoing = arg;
	const uint8_t *at = key;

	if (key_size != UNDO || value_size != SEGUE_KEY_HASH)
		return segue_fail(
			SEGUE_ESTORE, "an undo entry of %zu and %zu bytes", key_size, value_size);
	uint64_t step = segue_key_get64(at + SEGUE_KEY_LANE),
		 number = segue_key_get64(at + SEGUE_KEY_LANE + 8);
	int rc = undoing->each(undoing, step, number, value);
	return rc ? rc : segue_ops_remove(undoing->ops, SEGUE_TABLE_UNDO, key, key_size);
}

/* Takes all entries from `step` on; all their operations, or none. */
static int walk_undo(struct undoing *undoing, struct segue_store *store, uint64_t step)
{
	size_t before = undoing->ops->count;
	uint8_t from[UNDO];

	undo_key(undoing->place, step, 0, from);
	int rc = segue_store_scan_from(
		store, SEGUE_TABLE_UNDO, from, sizeof(from), SEGUE_KEY_LANE, visit_undo, undoing);
	if (rc == ENOUGH)
		return 0;
	if (rc)
		segue_ops_truncate(undoing->ops, before);
	return rc;
}

static int settle_version(
	struct undoing *undoing, uint64_t step, uint64_t number, const uint8_t *hash)
{
	struct segue_place place = undoing->place;
	uint8_t key[FINAL];
	int rc = 0;

	if (step >= undoing->floor || undoing->left-- == 0)
		return ENOUGH;
	for (place.lane = 0; place.lane < undoing->lanes && !rc; place.lane++) {
		final_key(place, hash, number, key);
		rc = segue_ops_remove_below(
			undoing->ops, SEGUE_TABLE_FINALS, key, sizeof(key), VERSIONS);
	}
	return rc;
}

int segue_finals_settle(struct segue_ops *ops, struct segue_store *store, struct segue_place place,
	uint32_t lanes, uint64_t below, size_t limit)
{
	struct undoing undoing = {.ops = ops,
		.place = place,
		.lanes = lanes,
		.floor = below,
		.left = limit,
		.each = settle_version};

	return walk_undo(&undoing, store, 0);
}

static int undo_version(
	struct undoing *undoing, uint64_t step, uint64_t number, const uint8_t *hash)
{
	uint8_t key[FINAL];

	if (step < undoing->floor)
		return 0;
	final_key(undoing->place, hash, number, key);
	return segue_ops_remove(undoing->ops, SEGUE_TABLE_FINALS, key, sizeof(key));
}

/*
 * Going back behind the oldest checkpoint takes all entries, so that none is left of versions that
 * stay: how far they were settled by chance must not show.
 */
int segue_finals_undo(struct segue_ops *ops, struct segue_store *store, struct segue_place place,
	uint64_t step, uint64_t floor)
{
	struct undoing undoing = {.ops = ops, .place = place, .floor = floor, .each = undo_version};

	return walk_undo(&undoing, store, step < floor ? 0 : step);
}

struct newest {
	uint32_t lane;
	uint64_t number;
	void *value; /* NULL: none yet */
	size_t size;
};

static int visit_version(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	struct newest *newest = arg;

	if (key_size != FINAL)
		return segue_fail(SEGUE_ESTORE, "the final states of a row have a key of %zu bytes",
			key_size);
	uint64_t number = segue_key_get64((const uint8_t *)key + VERSIONS);
	if (newest->value && number <= newest->number)
		return 0;
	void *copy = malloc(value_size ? value_size : 1);
	if (!copy)
		return segue_fail(SEGUE_ENOMEM, "no memory for the states of a row");
	memcpy(copy, value, value_size);
	free(newest->value);
	*newest = (struct newest){
		segue_key_get32((const uint8_t *)key + 8), number, copy, value_size};
	return 0;
}

int segue_finals_load(struct segue_store *store, struct segue_place *place, uint32_t lanes,
	const char *name, size_t name_size, uint64_t *number, void **value, size_t *size)
{
	struct segue_place here = *place;
	struct newest newest = {0};
	uint8_t hash[SEGUE_KEY_HASH], key[FINAL];

	segue_key_put_hash(hash, name, name_size);
	for (here.lane = 0; here.lane < lanes; here.lane++) {
		final_key(here, hash, 0, key);
		int rc = segue_store_scan(
			store, SEGUE_TABLE_FINALS, key, VERSIONS, visit_version, NULL, &newest);
		if (rc) {
			free(newest.value);
			return rc;
		}
	}
	if (!newest.value)
		return segue_fail(SEGUE_ENOTFOUND, "no final states are kept under that key");
	place->lane = newest.lane;
	*number = newest.number;
	*value = newest.value;
	*size = newest.size;
	return 0;
}
