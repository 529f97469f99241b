/* States by record key: read, and put. */
#include "store/by_key.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/layout.h"
#include "core/utf8.h"
#include "lane/lease.h"

/* ---- Live rows ---- */

struct live {
	const char *name;
	size_t name_size;
	uint64_t row_size;
	uint32_t lanes;
	struct segue_final_lane *known;
	bool copy; /* whether the row is wanted */
	bool some;
	struct segue_live_row newest;
};

static int keep(struct live *live, uint32_t lane, uint64_t number, const struct segue_row *row,
	const void *value, size_t size)
{
	live->some = true;
	live->newest.lane = lane;
	live->newest.number = number;
	if (!live->copy)
		return 0;
	live->newest.row = *row;
	return segue_row_own(&live->newest.row, value, size, &live->newest.value);
}

static int visit_live(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	struct live *live = arg;
	struct segue_row row;

	if (key_size != SEGUE_KEY_LANE + 8)
		return segue_fail(SEGUE_ESTORE, "a row's states have a key of %zu bytes", key_size);
	uint32_t lane = segue_key_get32((const uint8_t *)key + 8);
	uint64_t number = segue_key_get64((const uint8_t *)key + SEGUE_KEY_LANE);
	if (lane >= live->lanes)
		return segue_fail(SEGUE_ESTORE, "a row's states are of lane %u of a stream of %u",
			lane, live->lanes);
	int rc = segue_row_get(value, value_size, live->row_size, &row);
	if (rc)
		return rc;
	if (row.key_size != live->name_size || memcmp(row.key, live->name, row.key_size) != 0)
		return 0;
	if (live->known)
		segue_final_lane_note(&live->known[lane], number + 1, true);
	return live->some && number < live->newest.number
		       ? 0
		       : keep(live, lane, number, &row, value, value_size);
}

static int scan_live(struct segue_store *store, uint32_t stream, uint32_t group, struct live *live)
{
	uint8_t prefix[8];

	segue_key_put32(segue_key_put32(prefix, stream), group);
	int rc = segue_store_scan(
		store, SEGUE_TABLE_STATES, prefix, sizeof(prefix), visit_live, NULL, live);
	if (rc)
		free(live->newest.value);
	return rc;
}

static const char *printable(const char *key, size_t size)
{
	return segue_utf8_valid(key, size) ? key : "(not text)";
}

int segue_by_key_live(struct segue_store *store, const struct segue_stream_record *stream,
	uint32_t group, const char *name, size_t name_size, struct segue_live_row *out)
{
	struct live live = {.name = name,
		.name_size = name_size,
		.row_size = segue_row_size(stream->spec),
		.lanes = stream->spec->lanes,
		.copy = true};

	int rc = scan_live(store, stream->id, group, &live);
	if (rc)
		return rc;
	if (!live.some)
		return segue_fail(SEGUE_ENOTFOUND,
			"no sequence of the key '%s' goes on in stream '%s'",
			printable(name, name_size), stream->spec->name);
	const struct segue_place place = {
		.stream = stream->id, .group = group, .lane = live.newest.lane};
	rc = segue_lanes_load_step(store, place, &live.newest.step);
	if (rc)
		free(live.newest.value);
	else
		*out = live.newest;
	return rc;
}

/* ---- Putting ---- */

/* What is known of the key. */
struct survey {
	struct segue_final final;
	struct live live;
	struct segue_final_lane *known; /* owned: of each lane */
};

static int take_survey(struct segue_store *store, const struct segue_stream_record *stream,
	const struct segue_by_key_put *put, struct survey *survey)
{
	const struct segue_place place = {.stream = stream->id, .group = put->group};
	const struct segue_spec *spec = stream->spec;

	*survey = (struct survey){.known = calloc(spec->lanes, sizeof(*survey->known))};
	if (!survey->known)
		return segue_fail(SEGUE_ENOMEM, "no memory for %u lanes", spec->lanes);
	survey->live = (struct live){.name = put->key,
		.name_size = put->key_size,
		.row_size = segue_row_size(spec),
		.lanes = spec->lanes,
		.known = survey->known};
	int rc = scan_live(store, stream->id, put->group, &survey->live);
	return rc ? rc
		  : segue_finals_newest(store, place, spec->lanes, survey->live.row_size, put->key,
			    put->key_size, survey->known, &survey->final);
}

/* Whether one lane is known to have it: what was put of a key that had not come does not say. */
static bool comes(const struct survey *survey, uint32_t lanes)
{
	for (uint32_t lane = 0; lane < lanes; lane++)
		if (survey->known[lane].comes)
			return true;
	return false;
}

/* Directly above all of the key that the store knows. */
static uint64_t number_above(const struct survey *survey, uint32_t lanes)
{
	uint64_t above = 0;

	for (uint32_t lane = 0; lane < lanes; lane++)
		if (survey->known[lane].above > above)
			above = survey->known[lane].above;
	return above;
}

/*
 * Whether the newest version is what is to be there, and nothing of the key has come since. Where
 * each lane has its own, the newest says nothing of the others: it is put once more.
 */
static bool is_there(const struct survey *survey, const struct segue_by_key_put *put,
	const struct segue_spec *spec)
{
	const struct segue_final *final = &survey->final;

	if (spec->initial == SEGUE_INITIAL_KEPT ||
		final->number != number_above(survey, spec->lanes))
		return false;
	if (!put->states)
		return final->kind == SEGUE_FINAL_DELETED;
	return final->kind == SEGUE_FINAL_PUT &&
	       memcmp(final->row.states, put->states, segue_row_size(spec)) == 0;
}

static int fail_held(const struct segue_by_key_put *put, uint32_t lane, int64_t pid)
{
	return segue_fail(SEGUE_EBUSY,
		"stream '%s': the states under the key '%s' cannot be changed while lane %u, in "
		"which that key may come, is held, or reserved, by process %ld: close its loader, "
		"or end that process (if that is done, try again)",
		put->stream, printable(put->key, put->key_size), lane, (long)pid);
}

static int check_lane(
	struct segue_store *store, const struct segue_by_key_put *put, struct segue_place place)
{
	const struct segue_lane_known *known = put->known ? &put->known[place.lane] : NULL;
	struct segue_lane_record record;

	if (known && known->held)
		return fail_held(put, place.lane, known->pid);
	int rc = segue_lanes_load(store, place, &record);
	if (rc)
		return rc == SEGUE_ENOTFOUND ? 0 : rc;
	free(record.position);
	/* A grant that is newer than what the server knew when asked: also one of our own. */
	bool held = known ? record.held && record.generation > known->generation
			  : segue_lanes_may_be_held(&record) &&
				    !segue_holder_same(&record.holder, put->asking);
	return held ? fail_held(put, place.lane, record.holder.pid) : 0;
}

/*
 * Nobody has a lane in which the key may come; marks those at whose step it counts: the lane of the
 * newest that is there. Where rows begin with what their own lane has kept, all in which it may
 * come.
 */
static int find_lanes(struct segue_store *store, const struct segue_stream_record *stream,
	const struct segue_by_key_put *put, const struct survey *survey, bool *counts)
{
	const struct segue_spec *spec = stream->spec;
	bool known = spec->lanes_by == SEGUE_LANES_BY_RECORD && comes(survey, spec->lanes);
	struct segue_place place = {.stream = stream->id, .group = put->group};
	bool lives = survey->live.some && survey->live.newest.number >= survey->final.number;
	int rc = 0;

	for (; !rc && place.lane < spec->lanes; place.lane++) {
		if (known && !survey->known[place.lane].comes)
			continue;
		rc = check_lane(store, put, place);
		counts[place.lane] = spec->initial == SEGUE_INITIAL_KEPT;
	}
	counts[known ? lives ? survey->live.newest.lane : survey->final.lane : 0] = true;
	return rc;
}

static int add_to_lanes(struct segue_ops *ops, struct segue_store *store,
	const struct segue_stream_record *stream, const struct segue_by_key_put *put,
	const struct survey *survey, const bool *counts)
{
	const struct segue_row row = {
		.key = put->key, .key_size = (uint32_t)put->key_size, .states = put->states};
	uint32_t lanes = stream->spec->lanes;
	bool alone = stream->spec->initial == SEGUE_INITIAL_KEPT;
	struct segue_place place = {.stream = stream->id, .group = put->group};
	size_t before = ops->count;
	uint64_t step;
	int rc = 0;

	for (; place.lane < lanes && !rc; place.lane++) {
		if (!counts[place.lane])
			continue;
		uint64_t number =
			alone ? survey->known[place.lane].above : number_above(survey, lanes);
		rc = segue_lanes_load_step(store, place, &step);
		if (!rc)
			rc = segue_finals_set(ops, place, alone ? 0 : lanes,
				segue_row_size(stream->spec), &row, number, step);
	}
	if (rc)
		segue_ops_truncate(ops, before);
	return rc;
}

static int add(struct segue_ops *ops, struct segue_store *store,
	const struct segue_stream_record *stream, const struct segue_by_key_put *put,
	const struct survey *survey)
{
	if (put->again && is_there(survey, put, stream->spec))
		return 0;
	bool *counts = calloc(stream->spec->lanes, sizeof(bool));
	if (!counts)
		return segue_fail(SEGUE_ENOMEM, "no memory for %u lanes", stream->spec->lanes);
	int rc = find_lanes(store, stream, put, survey, counts);
	/* Where each lane has its own, that of the highest number says nothing of the others. */
	bool deleted = survey->final.kind == SEGUE_FINAL_DELETED &&
		       stream->spec->initial != SEGUE_INITIAL_KEPT;
	bool nothing = !survey->live.some && (survey->final.kind == SEGUE_FINAL_NONE || deleted);
	if (!rc && (put->states || !nothing))
		rc = add_to_lanes(ops, store, stream, put, survey, counts);
	free(counts);
	return rc;
}

static int check(const struct segue_stream_record *stream, const struct segue_by_key_put *put)
{
	const struct segue_spec *spec = stream->spec;

	if (!spec->keep_final)
		return segue_fail(SEGUE_ESPEC,
			"stream '%s' was made without keep_final: it keeps no states under the "
			"keys "
			"of its records, so none can be put there or deleted; make one with "
			"keep_final",
			spec->name);
	if (spec->state_count == 0)
		return segue_fail(SEGUE_ESPEC,
			"stream '%s' has no states that could be put under a key", spec->name);
	if (put->states && put->row_size != segue_row_size(spec))
		return segue_fail(SEGUE_ESTATE,
			"all states of a row of stream '%s' have %" PRIu64 " bytes: %" PRIu64
			" came for the key '%s'",
			spec->name, segue_row_size(spec), put->row_size,
			printable(put->key, put->key_size));
	return 0;
}

int segue_by_key_put(
	struct segue_ops *ops, struct segue_store *store, const struct segue_by_key_put *put)
{
	struct segue_stream_record stream;
	struct survey survey = {.known = NULL};

	int rc = segue_lanes_load_stream(store, put->stream, &stream);
	if (rc)
		return rc;
	rc = check(&stream, put);
	if (!rc)
		rc = take_survey(store, &stream, put, &survey);
	if (!rc) {
		rc = add(ops, store, &stream, put, &survey);
		free(survey.final.value);
	}
	free(survey.known);
	segue_spec_destroy(stream.spec);
	return rc;
}
