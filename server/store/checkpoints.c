/* Stored checkpoints. */
#include "store/checkpoints.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/layout.h"

enum { CHECKPOINT = SEGUE_KEY_LANE + 8 };

static void checkpoint_key(struct segue_place place, uint64_t id, uint8_t key[CHECKPOINT])
{
	segue_key_put64(segue_key_put_lane(key, place), id);
}

static int fail_no_checkpoint(struct segue_place place, uint64_t id)
{
	return segue_fail(SEGUE_ENOTFOUND,
		"lane %u has no checkpoint of id %" PRIu64
		": 'segue checkpoint list' shows those that it has",
		place.lane, id);
}

int segue_catalogue_load(
	struct segue_store *store, struct segue_place place, struct segue_catalogue *out)
{
	uint8_t key[SEGUE_KEY_LANE];
	void *value;
	size_t size;

	segue_key_put_lane(key, place);
	int rc = segue_store_get(store, SEGUE_TABLE_CHECKPOINTS, key, sizeof(key), &value, &size);
	if (rc == SEGUE_ENOTFOUND) {
		*out = (struct segue_catalogue){.next_id = 1};
		return 0;
	}
	if (rc)
		return rc;
	rc = segue_catalogue_unpack(value, size, out);
	free(value);
	return rc ? segue_fail_within(segue_as_damage(rc, SEGUE_ESTORE), "lane %u", place.lane) : 0;
}

uint64_t segue_catalogue_floor(const struct segue_catalogue *catalogue)
{
	return catalogue->count ? catalogue->entry[0].step : SEGUE_NEVER;
}

int64_t segue_checkpoints_newest_ms(struct segue_store *store, struct segue_place place)
{
	struct segue_catalogue catalogue;
	int64_t newest = 0;

	/* For people to look at: who needs a catalogue that is damaged is told by what needs it. */
	if (segue_catalogue_load(store, place, &catalogue))
		return 0;
	for (uint32_t i = 0; i < catalogue.count; i++)
		if (catalogue.entry[i].created_ms > newest)
			newest = catalogue.entry[i].created_ms;
	return newest;
}

static int put_catalogue(
	struct segue_ops *ops, struct segue_place place, const struct segue_catalogue *catalogue)
{
	uint8_t key[SEGUE_KEY_LANE];
	void *value;
	size_t size;

	int rc = segue_catalogue_pack(catalogue, &value, &size);
	if (rc)
		return rc;
	segue_key_put_lane(key, place);
	return segue_ops_put(ops, SEGUE_TABLE_CHECKPOINTS, key, sizeof(key), value, size);
}

/* Strikes entry `i` off, and removes its token. */
static int drop_entry(struct segue_ops *ops, struct segue_place place,
	struct segue_catalogue *catalogue, uint32_t i)
{
	struct segue_catalogue_entry *entry = &catalogue->entry[i];
	uint8_t key[CHECKPOINT];

	checkpoint_key(place, entry->id, key);
	if (catalogue->ended_id == entry->id)
		catalogue->ended_id = catalogue->ended_at = 0;
	memmove(entry, entry + 1, (catalogue->count - i - 1) * sizeof(*entry));
	catalogue->count--;
	return segue_ops_remove(ops, SEGUE_TABLE_CHECKPOINTS, key, sizeof(key));
}

/* The one that was stored first: not always that of the least step. */
static uint32_t oldest_entry(const struct segue_catalogue *catalogue)
{
	uint32_t oldest = 0;

	for (uint32_t i = 1; i < catalogue->count; i++) {
		if (catalogue->entry[i].id < catalogue->entry[oldest].id)
			oldest = i;
	}
	return oldest;
}

/* Whether the entry's token is these bytes. One that cannot be read is not. */
static bool is_token(struct segue_store *store, struct segue_place place,
	const struct segue_catalogue_entry *entry, const void *token, size_t size)
{
	size_t stored_size;
	void *stored;

	if (entry->size != size ||
		segue_checkpoints_load(store, place, entry->id, &stored, &stored_size))
		return false;
	bool same = stored_size == size && memcmp(stored, token, size) == 0;
	free(stored);
	return same;
}

static int add_entry(struct segue_ops *ops, struct segue_place place,
	struct segue_catalogue *catalogue, uint32_t at, const struct segue_catalogue_entry *new,
	const void *token)
{
	struct segue_catalogue_entry *entry = &catalogue->entry[at];
	uint8_t key[CHECKPOINT];

	checkpoint_key(place, new->id, key);
	memmove(entry + 1, entry, (catalogue->count - at) * sizeof(*entry));
	*entry = *new;
	catalogue->count++;
	int rc = segue_ops_put_copy(
		ops, SEGUE_TABLE_CHECKPOINTS, key, sizeof(key), token, (size_t) new->size);
	return rc ? rc : put_catalogue(ops, place, catalogue);
}

/* A lane that has a later step has gone on: its input has grown, or its batch size was changed. */
static void forget_end(struct segue_catalogue *catalogue, uint64_t step)
{
	for (uint32_t i = 0; i < catalogue->count; i++)
		if (catalogue->entry[i].id == catalogue->ended_id &&
			catalogue->entry[i].step < step)
			catalogue->ended_id = catalogue->ended_at = 0;
}

int segue_checkpoints_put(struct segue_ops *ops, struct segue_store *store,
	struct segue_place place, const struct segue_catalogue_entry *entry, uint32_t ended_at,
	const void *token, uint32_t keep)
{
	struct segue_catalogue_entry new = *entry;
	struct segue_catalogue catalogue;
	size_t before = ops->count;
	uint32_t at = 0;

	int rc = segue_catalogue_load(store, place, &catalogue);
	if (rc)
		return rc;
	forget_end(&catalogue, new.step);
	while (at < catalogue.count && catalogue.entry[at].step < new.step)
		at++;
	if (at < catalogue.count && catalogue.entry[at].step == new.step) {
		uint64_t id = catalogue.entry[at].id;
		if (is_token(store, place, &catalogue.entry[at], token, new.size)) {
			if (!ended_at ||
				(catalogue.ended_id == id && catalogue.ended_at == ended_at))
				return 0;
			catalogue.ended_id = id;
			catalogue.ended_at = ended_at;
			return put_catalogue(ops, place, &catalogue);
		}
		rc = drop_entry(ops, place, &catalogue, at);
	}
	while (!rc && catalogue.count >= keep) {
		uint32_t oldest = oldest_entry(&catalogue);
		at -= oldest < at;
		rc = drop_entry(ops, place, &catalogue, oldest);
	}
	new.id = catalogue.next_id++;
	if (ended_at) {
		catalogue.ended_id = new.id;
		catalogue.ended_at = ended_at;
	}
	if (!rc)
		rc = add_entry(ops, place, &catalogue, at, &new, token);
	if (rc)
		segue_ops_truncate(ops, before);
	return rc;
}

int segue_checkpoints_remove(
	struct segue_ops *ops, struct segue_store *store, struct segue_place place, uint64_t id)
{
	struct segue_catalogue catalogue;
	size_t before = ops->count;
	bool found = id == 0;

	int rc = segue_catalogue_load(store, place, &catalogue);
	for (uint32_t i = catalogue.count; !rc && i-- > 0;) {
		if (id != 0 && catalogue.entry[i].id != id)
			continue;
		found = true;
		rc = drop_entry(ops, place, &catalogue, i);
	}
	if (!rc && !found)
		rc = fail_no_checkpoint(place, id);
	if (!rc && ops->count > before)
		rc = put_catalogue(ops, place, &catalogue);
	if (rc)
		segue_ops_truncate(ops, before);
	return rc;
}

int segue_checkpoints_load(struct segue_store *store, struct segue_place place, uint64_t id,
	void **token, size_t *size)
{
	uint8_t key[CHECKPOINT];

	checkpoint_key(place, id, key);
	int rc = segue_store_get(store, SEGUE_TABLE_CHECKPOINTS, key, sizeof(key), token, size);
	return rc == SEGUE_ENOTFOUND ? fail_no_checkpoint(place, id) : rc;
}

int segue_checkpoints_rewind(struct segue_ops *ops, struct segue_place place,
	struct segue_catalogue *catalogue, uint64_t step)
{
	uint32_t stored = catalogue->count;
	int rc = 0;

	while (!rc && catalogue->count > 0 && catalogue->entry[catalogue->count - 1].step > step)
		rc = drop_entry(ops, place, catalogue, catalogue->count - 1);
	return !rc && catalogue->count < stored ? put_catalogue(ops, place, catalogue) : rc;
}

int segue_checkpoints_clear(
	struct segue_ops *ops, struct segue_store *store, struct segue_place place)
{
	struct segue_catalogue catalogue;
	uint8_t key[SEGUE_KEY_LANE];

	int rc = segue_catalogue_load(store, place, &catalogue);
	if (rc)
		return rc;
	segue_key_put_lane(key, place);
	rc = segue_ops_remove_prefix(ops, SEGUE_TABLE_CHECKPOINTS, key, sizeof(key));
	catalogue.count = 0;
	catalogue.ended_id = catalogue.ended_at = 0;
	return !rc && catalogue.next_id > 1 ? put_catalogue(ops, place, &catalogue) : rc;
}
