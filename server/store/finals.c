/* Final states: versions, and what takes them back. */
#include "store/finals.h"

#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "store/row.h"

enum {
	VERSIONS = SEGUE_KEY_LANE + SEGUE_KEY_HASH, /* all versions of one record in one lane */
	FINAL = VERSIONS + 8,
	PUT = FINAL + 1 + 8, /* of what was put: FINAL, 1, step */
	UNDO = SEGUE_KEY_LANE + 16,
	UNDO_PUT = UNDO + 1 + SEGUE_KEY_HASH,
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

static void put_key(struct segue_place place, const uint8_t hash[SEGUE_KEY_HASH], uint64_t number,
	uint64_t step, uint8_t key[PUT])
{
	final_key(place, hash, number, key);
	key[FINAL] = 1;
	segue_key_put64(key + FINAL + 1, step);
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
		const struct segue_row row = {.key = kept->key,
			.key_size = kept->key_size,
			.states = kept->states,
			.step = kept->step + 1};
		rc = segue_row_put(ops, SEGUE_TABLE_FINALS, key, sizeof(key), &row, row_size);
		if (!rc)
			rc = segue_ops_put_copy(
				ops, SEGUE_TABLE_UNDO, undo, sizeof(undo), hash, SEGUE_KEY_HASH);
	}
	if (rc)
		segue_ops_truncate(ops, before);
	return rc;
}

/* ---- Undo entries ---- */

struct entry {
	uint64_t step, number;
	const uint8_t *hash;
	bool put;
};

/* A walk over the undo entries of a lane. */
struct undoing {
	struct segue_ops *ops;
	struct segue_place place;
	uint32_t lanes;
	uint64_t floor; /* entries below this step: their versions stay */
	size_t left;
	int (*each)(struct undoing *undoing, const struct entry *entry);
};

enum { ENOUGH = 1 };

static int visit_undo(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	struct undoing *undoing = arg;
	const uint8_t *at = key;

	if ((key_size != UNDO && key_size != UNDO_PUT) || value_size != SEGUE_KEY_HASH)
		return segue_fail(
			SEGUE_ESTORE, "an undo entry of %zu and %zu bytes", key_size, value_size);
	const struct entry entry = {.step = segue_key_get64(at + SEGUE_KEY_LANE),
		.number = segue_key_get64(at + SEGUE_KEY_LANE + 8),
		.hash = value,
		.put = key_size == UNDO_PUT};
	int rc = undoing->each(undoing, &entry);
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

/* Versions with lower numbers, of the same record: in all lanes; `lanes` 0: in that lane alone. */
static int remove_older(struct segue_ops *ops, struct segue_place place, uint32_t lanes,
	const uint8_t *hash, uint64_t number)
{
	uint32_t end = lanes ? lanes : place.lane + 1;
	uint8_t key[FINAL];
	int rc = 0;

	for (place.lane = lanes ? 0 : place.lane; place.lane < end && !rc; place.lane++) {
		final_key(place, hash, number, key);
		rc = segue_ops_remove_below(ops, SEGUE_TABLE_FINALS, key, sizeof(key), VERSIONS);
	}
	return rc;
}

/* What was put before, directly below the same number. */
static int remove_older_put(struct segue_ops *ops, struct segue_place place, const uint8_t *hash,
	uint64_t number, uint64_t step)
{
	uint8_t key[PUT];

	put_key(place, hash, number, step, key);
	return segue_ops_remove_below(ops, SEGUE_TABLE_FINALS, key, sizeof(key), FINAL + 1);
}

static int settle_version(struct undoing *undoing, const struct entry *entry)
{
	if (entry->step >= undoing->floor || undoing->left-- == 0)
		return ENOUGH;
	int rc = remove_older(
		undoing->ops, undoing->place, undoing->lanes, entry->hash, entry->number);
	return !rc && entry->put ? remove_older_put(undoing->ops, undoing->place, entry->hash,
					   entry->number, entry->step + 1)
				 : rc;
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

static int undo_version(struct undoing *undoing, const struct entry *entry)
{
	uint8_t key[PUT];

	if (entry->step < undoing->floor)
		return 0;
	put_key(undoing->place, entry->hash, entry->number, entry->step + 1, key);
	return segue_ops_remove(undoing->ops, SEGUE_TABLE_FINALS, key, entry->put ? PUT : FINAL);
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

/* ---- What is put ---- */

static int add_undo_put(struct segue_ops *ops, struct segue_place place, const uint8_t *hash,
	uint64_t number, uint64_t step)
{
	uint8_t undo[UNDO_PUT];

	undo_key(place, step - 1, number, undo);
	undo[UNDO] = 1;
	memcpy(undo + UNDO + 1, hash, SEGUE_KEY_HASH);
	return segue_ops_put_copy(ops, SEGUE_TABLE_UNDO, undo, sizeof(undo), hash, SEGUE_KEY_HASH);
}

int segue_finals_set(struct segue_ops *ops, struct segue_place place, uint32_t lanes,
	uint64_t row_size, const struct segue_row *row, uint64_t number, uint64_t step)
{
	const struct segue_row put = {
		.key = row->key, .key_size = row->key_size, .states = row->states};
	uint8_t hash[SEGUE_KEY_HASH], key[PUT];
	size_t before = ops->count;

	segue_key_put_hash(hash, row->key, row->key_size);
	put_key(place, hash, number, step, key);
	int rc = segue_row_put(
		ops, SEGUE_TABLE_FINALS, key, sizeof(key), &put, row->states ? row_size : 0);
	if (!rc && step > 0)
		rc = add_undo_put(ops, place, hash, number, step);
	else if (!rc)
		rc = remove_older(ops, place, lanes, hash, number);
	if (rc)
		segue_ops_truncate(ops, before);
	return rc;
}

/* ---- Reading ---- */

struct newest {
	uint64_t row_size;
	const char *name;
	size_t name_size;
	struct segue_final_lane *known;
	struct segue_final final;
};

/* Which of two versions counts: at the same number the sequence itself. */
static bool is_newer(const struct segue_final *a, const struct segue_final *b)
{
	bool a_ended = a->kind == SEGUE_FINAL_ENDED, b_ended = b->kind == SEGUE_FINAL_ENDED;

	if (b->kind == SEGUE_FINAL_NONE || a->number != b->number)
		return b->kind == SEGUE_FINAL_NONE || a->number > b->number;
	return a_ended != b_ended ? a_ended : a->step > b->step;
}

/* A version as it lies in the store; its row points into `value`. */
static int read_version(const uint8_t *key, size_t key_size, const void *value, size_t size,
	uint64_t row_size, struct segue_final *out)
{
	if (key_size != FINAL && key_size != PUT)
		return segue_fail(SEGUE_ESTORE, "the final states of a row have a key of %zu bytes",
			key_size);
	struct segue_final final = {
		.lane = segue_key_get32(key + 8), .number = segue_key_get64(key + VERSIONS)};
	int rc = segue_row_get(value, size, row_size, &final.row);
	final.kind = key_size == PUT ? SEGUE_FINAL_PUT : SEGUE_FINAL_ENDED;
	if (rc && key_size == PUT) {
		rc = segue_row_get(value, size, 0, &final.row);
		final.kind = SEGUE_FINAL_DELETED;
		final.row.states = NULL;
	}
	if (rc)
		return rc;
	final.step = key_size == PUT ? segue_key_get64(key + FINAL + 1) : final.row.step;
	if (key_size == FINAL && !final.step)
		final.step = SEGUE_NEVER;
	*out = final;
	return 0;
}

static int keep(struct newest *newest, struct segue_final *final, const void *value, size_t size)
{
	final->value = newest->final.value;
	int rc = segue_row_own(&final->row, value, size, &final->value);
	if (!rc)
		newest->final = *final;
	return rc;
}

/* What was put when a sequence of the key was known stands below a number that is not 0. */
static void note(struct segue_final_lane *known, const struct segue_final *final)
{
	bool ended = final->kind == SEGUE_FINAL_ENDED;

	segue_final_lane_note(known, final->number + ended, ended || final->number > 0);
}

static int visit_version(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	struct newest *newest = arg;
	struct segue_final final;

	int rc = read_version(key, key_size, value, value_size, newest->row_size, &final);
	if (rc)
		return rc;
	if (final.row.key_size != newest->name_size ||
		memcmp(final.row.key, newest->name, newest->name_size) != 0)
		return 0;
	if (newest->known)
		note(&newest->known[final.lane], &final);
	return is_newer(&final, &newest->final) ? keep(newest, &final, value, value_size) : 0;
}

int segue_finals_newest(struct segue_store *store, struct segue_place place, uint32_t end,
	uint64_t row_size, const char *name, size_t name_size, struct segue_final_lane *known,
	struct segue_final *out)
{
	struct newest newest = {
		.row_size = row_size, .name = name, .name_size = name_size, .known = known};
	uint8_t hash[SEGUE_KEY_HASH], key[FINAL];

	segue_key_put_hash(hash, name, name_size);
	for (; place.lane < end; place.lane++) {
		final_key(place, hash, 0, key);
		int rc = segue_store_scan(
			store, SEGUE_TABLE_FINALS, key, VERSIONS, visit_version, NULL, &newest);
		if (rc) {
			free(newest.final.value);
			return rc;
		}
	}
	*out = newest.final;
	return 0;
}

int segue_finals_newest_here(struct segue_store *store, struct segue_place place, uint32_t lanes,
	uint64_t row_size, const char *name, size_t name_size, struct segue_final *out)
{
	const uint32_t here = place.lane;
	struct segue_final final, other;
	bool newest = true;

	int rc = segue_finals_newest(
		store, place, here + 1, row_size, name, name_size, NULL, &final);
	if (rc)
		return rc;
	for (place.lane = 0; !rc && newest && place.lane < lanes; place.lane++) {
		if (place.lane == here)
			continue;
		rc = segue_finals_newest(
			store, place, place.lane + 1, row_size, name, name_size, NULL, &other);
		if (rc)
			break;
		newest = place.lane < here ? is_newer(&final, &other) : !is_newer(&other, &final);
		free(other.value);
	}
	if (rc || !newest) {
		free(final.value);
		final = (struct segue_final){.kind = SEGUE_FINAL_NONE};
	}
	*out = final;
	return rc;
}

int segue_finals_load(struct segue_store *store, struct segue_place place, uint32_t end,
	uint64_t row_size, const char *name, size_t name_size, struct segue_final *out)
{
	struct segue_final final;

	int rc = segue_finals_newest(store, place, end, row_size, name, name_size, NULL, &final);
	if (rc)
		return rc;
	if (final.kind == SEGUE_FINAL_NONE || final.kind == SEGUE_FINAL_DELETED) {
		free(final.value);
		return segue_fail(SEGUE_ENOTFOUND, "no final states are kept under that key");
	}
	*out = final;
	return 0;
}

struct keys {
	int (*visit)(void *arg, const uint8_t *hash, const char *key, uint32_t size);
	void *arg;
	uint8_t last[SEGUE_KEY_HASH];
	bool some;
};

static int visit_key(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	const uint8_t *hash = (const uint8_t *)key + SEGUE_KEY_LANE;
	struct keys *keys = arg;
	uint32_t size = 0;

	if (key_size < FINAL)
		return segue_fail(SEGUE_ESTORE, "the final states of a row have a key of %zu bytes",
			key_size);
	if (keys->some && memcmp(hash, keys->last, SEGUE_KEY_HASH) == 0)
		return 0;
	if (value_size >= sizeof(size))
		memcpy(&size, value, sizeof(size));
	if (value_size < sizeof(size) || value_size - sizeof(size) < size)
		return segue_fail(SEGUE_ESTORE, "a row of %zu bytes is stored where its key has %u",
			value_size, size);
	memcpy(keys->last, hash, SEGUE_KEY_HASH);
	keys->some = true;
	return keys->visit(keys->arg, hash, (const char *)value + sizeof(size), size);
}

int segue_finals_keys(struct segue_store *store, struct segue_place place,
	const uint8_t from[SEGUE_KEY_HASH],
	int (*visit)(void *arg, const uint8_t hash[SEGUE_KEY_HASH], const char *key, uint32_t size),
	void *arg)
{
	struct keys keys = {.visit = visit, .arg = arg};
	uint8_t key[FINAL];

	final_key(place, from, 0, key);
	return segue_store_scan_from(
		store, SEGUE_TABLE_FINALS, key, VERSIONS, SEGUE_KEY_LANE, visit_key, &keys);
}
