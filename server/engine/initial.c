/* Initial values of rows: from the data, or what was kept; the spec's own the library has. */
#include "engine/initial.h"

#include <stdlib.h>
#include <string.h>

#include "core/barrier.h"
#include "core/error.h"

int segue_initial_init(
	struct segue_initials *initial, const struct segue_spec *spec, uint32_t places)
{
	if (spec->initial != SEGUE_INITIAL_KEPT)
		return 0;
	initial->row_size = segue_row_size(spec);
	initial->key = calloc(places, sizeof(*initial->key));
	initial->row = calloc(places, sizeof(*initial->row));
	initial->states = calloc(places, initial->row_size ? initial->row_size : 1);
	return initial->key && initial->row && initial->states
		       ? 0
		       : segue_fail(SEGUE_ENOMEM, "no memory for the states of %u rows", places);
}

void segue_initial_finish(struct segue_initials *initial)
{
	free(initial->key);
	free(initial->row);
	free(initial->states);
	*initial = (struct segue_initials){.row_size = 0};
}

void segue_initial_note(
	struct segue_initials *initial, uint32_t row, const struct segue_record *record)
{
	struct segue_again_key *key = &initial->key[initial->count];

	key->bytes = record->ops->key(record, &key->size);
	key->hash = segue_again_hash(key->bytes, key->size);
	initial->row[initial->count++] = (struct segue_initials_row){.row = row};
}

/* Those that are in memory. With the lock. */
static int find_in_memory(struct segue_initials *initial, struct segue_feed *feed)
{
	if (feed->subscriber_count != 1)
		return SEGUE_ENOTYET; /* its lease is over, or has not begun */
	struct segue_carry *carry = feed->subscribers[0];
	segue_carry_observe(carry, feed->published);
	uint64_t step = segue_feed_awaits(feed, carry, initial->key, initial->count);
	if (step > carry->committed && !segue_feed_await(feed, carry, step))
		return SEGUE_ENOTYET;
	int rc = segue_feed_take_of(feed, carry, carry->committed);
	for (uint32_t k = 0; k < initial->count && !rc; k++) {
		const struct segue_kept *kept = segue_again_find(&carry->again, &initial->key[k]);
		if (!kept)
			continue;
		initial->row[k].found = true;
		initial->row[k].number = kept->number;
		memcpy(initial->states + initial->row[k].row * initial->row_size, kept->states,
			initial->row_size);
	}
	return rc;
}

/*
 * What has left the memory is on disk: so it is looked for there after that. What was put there, or
 * deleted, at a number stands below the sequence of that number.
 */
static int find_in_store(struct segue_initials *initial, uint32_t k)
{
	const struct segue_again_key *key = &initial->key[k];
	struct segue_initials_row *row = &initial->row[k];
	struct segue_initials_found found;
	int rc = initial->store.load(initial->store.arg, key->bytes, key->size, &found);

	if (rc)
		return rc == SEGUE_ENOTFOUND ? 0 : rc;
	if (!row->found || row->number < found.number) {
		row->found = found.states != NULL;
		row->number = found.number;
		if (row->found)
			memcpy(initial->states + row->row * initial->row_size, found.states,
				initial->row_size);
	}
	free(found.value);
	return 0;
}

int segue_initial_find(struct segue_initials *initial, struct segue_feed *feed,
	pthread_mutex_t *lock, struct segue_slot_span *spans)
{
	if (initial->count == 0)
		return 0;
	pthread_mutex_lock(lock);
	int rc = find_in_memory(initial, feed);
	pthread_mutex_unlock(lock);
	for (uint32_t k = 0; k < initial->count && !rc; k++) {
		rc = find_in_store(initial, k);
		if (!rc && initial->row[k].found)
			spans[initial->row[k].row].flags |= SEGUE_SPAN_KEPT;
	}
	return rc;
}

int segue_initial_fill(const struct segue_initials *initial, const struct segue_spec *spec,
	const struct segue_geometry *geometry, const struct segue_slot_span *span, uint32_t i,
	struct segue_record *record, uint8_t *slot)
{
	const uint8_t *kept = initial->states;
	bool begins = span->previous_row == SEGUE_NO_ROW;
	int rc = 0;

	if (kept)
		kept += i * initial->row_size;
	for (size_t s = 0; s < spec->state_count && !rc; s++) {
		uint64_t size = spec->states[s].size;
		uint8_t *out = slot + geometry->initial_offset[s] + i * size;
		bool read = begins ||
			    (segue_state_zeroed(spec, s, span) && !SEGUE_MUTANT(zeroed_not_read));
		if (span->flags & SEGUE_SPAN_KEPT)
			memcpy(out, kept, size);
		else if (read && spec->states[s].from_data && record)
			rc = record->ops->initial(record, s, out);
		else if (read && spec->states[s].from_data)
			memset(out, 0, size);
		if (kept)
			kept += size;
	}
	return rc;
}
