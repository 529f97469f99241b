/* States by record key, as pages of entries. */
#include "store/by_key_list.h"

#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/layout.h"
#include "core/utf8.h"

enum {
	PAGE = 4 << 20,  /* bytes after which a page ends */
	KEYS = 256,      /* that are looked up at a time */
	LOOKS = 1 << 20, /* into a lane, about, after which a page ends: a second or two */
	ENOUGH = 1,
};

/* ---- Pages ---- */

static int make_room(struct segue_keyed_page *page, uint64_t more)
{
	size_t size = page->size ? page->size : SEGUE_KEYED_HEAD;

	if (page->bytes && size + more <= page->capacity)
		return 0;
	size_t capacity = 2 * page->capacity > size + more ? 2 * page->capacity : size + more;
	uint8_t *grown = realloc(page->bytes, capacity);
	if (!grown)
		return segue_fail(SEGUE_ENOMEM, "no memory for the states under a key");
	page->bytes = grown;
	page->capacity = capacity;
	page->size = size;
	return 0;
}

int segue_keyed_page_add(struct segue_keyed_page *page, const struct segue_states *states)
{
	int rc = make_room(page, segue_keyed_size(states));

	if (rc)
		return rc;
	segue_keyed_pack(states, page->bytes + page->size);
	page->size += segue_keyed_size(states);
	page->head.count++;
	return 0;
}

int segue_keyed_page_finish(struct segue_keyed_page *page)
{
	int rc = make_room(page, 0);

	if (!rc)
		memcpy(page->bytes, &page->head, sizeof(page->head));
	return rc;
}

static int add_row(struct segue_keyed_page *page, struct segue_states states,
	const struct segue_row *row, uint64_t row_size)
{
	states.key = row->key;
	states.key_size = row->key_size;
	states.bytes = row->states;
	states.bytes_size = row_size;
	return segue_keyed_page_add(page, &states);
}

static int add_final(
	struct segue_keyed_page *page, const struct segue_final *final, uint64_t row_size)
{
	const struct segue_states states = {
		.kind = final->kind == SEGUE_FINAL_PUT ? SEGUE_STATES_PUT : SEGUE_STATES_FINAL,
		.lane = final->lane,
		.step = final->step,
		.number = final->number};

	return add_row(page, states, &final->row, row_size);
}

/* ---- One key ---- */

static int get_live(struct segue_store *store, const struct segue_stream_record *stream,
	uint32_t group, const char *key, struct segue_keyed_page *page)
{
	struct segue_live_row live;

	int rc = segue_by_key_live(store, stream, group, key, strlen(key), &live);
	if (rc)
		return rc;
	const struct segue_states states = {.kind = SEGUE_STATES_LIVE,
		.lane = live.lane,
		.step = live.step,
		.number = live.number};
	rc = add_row(page, states, &live.row, segue_row_size(stream->spec));
	free(live.value);
	return rc;
}

int segue_by_key_get(struct segue_store *store, const struct segue_stream_record *stream,
	uint32_t group, const char *key, bool live, struct segue_keyed_page *page)
{
	const struct segue_place place = {.stream = stream->id, .group = group};
	uint64_t row_size = segue_row_size(stream->spec);
	struct segue_final final;

	if (live)
		return get_live(store, stream, group, key, page);
	int rc = segue_finals_load(
		store, place, stream->spec->lanes, row_size, key, strlen(key), &final);
	if (rc == SEGUE_ENOTFOUND)
		return segue_fail(rc, "stream '%s' keeps no states under the key '%s'%s",
			stream->spec->name, segue_utf8_valid(key, strlen(key)) ? key : "(not text)",
			stream->spec->keep_final ? "" : ": it was made without keep_final");
	if (rc)
		return rc;
	rc = add_final(page, &final, row_size);
	free(final.value);
	return rc;
}

/* ---- What is kept under all keys ---- */

/* Some keys of a lane: while they are looked for the store must not be asked. */
struct some_keys {
	size_t count;
	struct {
		uint8_t hash[SEGUE_KEY_HASH];
		char *bytes;
		uint32_t size;
	} key[KEYS];
};

static int note_key(void *arg, const uint8_t hash[SEGUE_KEY_HASH], const char *key, uint32_t size)
{
	struct some_keys *some = arg;

	if (some->count == KEYS)
		return ENOUGH;
	char *copy = malloc((size_t)size + 1);
	if (!copy)
		return segue_fail(SEGUE_ENOMEM, "no memory for a key");
	memcpy(copy, key, size);
	memcpy(some->key[some->count].hash, hash, SEGUE_KEY_HASH);
	some->key[some->count].bytes = copy;
	some->key[some->count++].size = size;
	return 0;
}

/* A key is told of the lane that has its newest version. */
static int add_if_newest(struct segue_store *store, const struct segue_stream_record *stream,
	uint32_t group, struct segue_keyed_page *page, const char *key, uint32_t size)
{
	const struct segue_place place = {
		.stream = stream->id, .group = group, .lane = page->head.lane};
	uint64_t row_size = segue_row_size(stream->spec);
	struct segue_final final;

	int rc = segue_finals_newest_here(
		store, place, stream->spec->lanes, row_size, key, size, &final);
	if (rc)
		return rc;
	if (final.kind == SEGUE_FINAL_ENDED || final.kind == SEGUE_FINAL_PUT)
		rc = add_final(page, &final, row_size);
	free(final.value);
	return rc;
}

/* The next page begins behind the key of that hash. */
static void go_behind(struct segue_keyed_head *head, const uint8_t hash[SEGUE_KEY_HASH])
{
	head->at[0] = segue_key_get64(hash);
	head->at[1] = segue_key_get64(hash + 8) + 1;
	head->at[0] += head->at[1] == 0;
	if (head->at[0] == 0 && head->at[1] == 0)
		head->lane++;
}

static int list_some(struct segue_store *store, const struct segue_stream_record *stream,
	uint32_t group, struct segue_keyed_page *page, struct some_keys *some)
{
	const struct segue_place place = {
		.stream = stream->id, .group = group, .lane = page->head.lane};
	uint8_t from[SEGUE_KEY_HASH];
	size_t i;

	segue_key_put64(segue_key_put64(from, page->head.at[0]), page->head.at[1]);
	int rc = segue_finals_keys(store, place, from, note_key, some);
	bool more = rc == ENOUGH;
	rc = more ? 0 : rc;
	for (i = 0; !rc && i < some->count && page->size < PAGE; i++)
		rc = add_if_newest(
			store, stream, group, page, some->key[i].bytes, some->key[i].size);
	if (i == some->count && !more) {
		page->head.lane++;
		page->head.at[0] = page->head.at[1] = 0;
	} else if (i > 0) {
		go_behind(&page->head, some->key[i - 1].hash);
	}
	return rc;
}

static int list_kept(struct segue_store *store, const struct segue_stream_record *stream,
	uint32_t group, struct segue_keyed_page *page)
{
	struct some_keys *some = calloc(1, sizeof(*some));
	uint64_t looks = 0;
	int rc = some ? 0 : segue_fail(SEGUE_ENOMEM, "no memory for a key");

	while (!rc && page->size < PAGE && looks < LOOKS && page->head.lane < stream->spec->lanes) {
		rc = list_some(store, stream, group, page, some);
		looks += 1 + some->count * (uint64_t)stream->spec->lanes;
		while (some->count)
			free(some->key[--some->count].bytes);
	}
	free(some);
	page->head.done = page->head.lane >= stream->spec->lanes;
	return rc;
}

/* ---- Sequences that go on ---- */

struct live_page {
	struct segue_keyed_page *page;
	const uint64_t *step; /* of each lane, as it was before the rows were looked at */
	uint64_t row_size;
	uint32_t lanes;
};

static int visit_live(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	struct live_page *live = arg;
	struct segue_keyed_page *page = live->page;
	const uint8_t *at = key;
	struct segue_row row;

	if (key_size != SEGUE_KEY_LANE + 8)
		return segue_fail(SEGUE_ESTORE, "a row's states have a key of %zu bytes", key_size);
	struct segue_states states = {.kind = SEGUE_STATES_LIVE,
		.lane = segue_key_get32(at + 8),
		.number = segue_key_get64(at + SEGUE_KEY_LANE)};
	if (page->size >= PAGE) {
		page->head.lane = states.lane;
		page->head.at[0] = states.number;
		return ENOUGH;
	}
	int rc = segue_row_get(value, value_size, live->row_size, &row);
	if (rc)
		return rc;
	states.step = states.lane < live->lanes ? live->step[states.lane] : 0;
	return add_row(page, states, &row, live->row_size);
}

static int load_steps(struct segue_store *store, const struct segue_stream_record *stream,
	uint32_t group, uint64_t *step)
{
	struct segue_place place = {.stream = stream->id, .group = group};
	int rc = 0;

	for (; !rc && place.lane < stream->spec->lanes; place.lane++)
		rc = segue_lanes_load_step(store, place, &step[place.lane]);
	return rc;
}

static int list_live(struct segue_store *store, const struct segue_stream_record *stream,
	uint32_t group, struct segue_keyed_page *page)
{
	const struct segue_place place = {
		.stream = stream->id, .group = group, .lane = page->head.lane};
	uint64_t *step = calloc(stream->spec->lanes, sizeof(*step));
	uint8_t from[SEGUE_KEY_LANE + 8];

	if (!step)
		return segue_fail(SEGUE_ENOMEM, "no memory for %u lanes", stream->spec->lanes);
	struct live_page live = {page, step, segue_row_size(stream->spec), stream->spec->lanes};
	segue_key_put64(segue_key_put_lane(from, place), page->head.at[0]);
	int rc = load_steps(store, stream, group, step);
	if (!rc)
		rc = segue_store_scan_from(
			store, SEGUE_TABLE_STATES, from, sizeof(from), 8, visit_live, &live);
	free(step);
	page->head.done = rc == 0;
	return rc == ENOUGH ? 0 : rc;
}

int segue_by_key_list(struct segue_store *store, const struct segue_stream_record *stream,
	uint32_t group, bool live, struct segue_keyed_page *page)
{
	return live ? list_live(store, stream, group, page) : list_kept(store, stream, group, page);
}
