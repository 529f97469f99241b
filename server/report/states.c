/* GET: the states that the store keeps under one key. */
#include "report/states.h"

#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "core/error.h"
#include "core/layout.h"
#include "core/utf8.h"
#include "report/contents.h"
#include "report/json.h"
#include "report/values.h"
#include "store/finals.h"
#include "store/groups.h"
#include "store/row.h"

struct get {
	struct segue_json json;
	const struct segue_spec *spec;
	const struct segue_report_lanes *lanes; /* of that stream */
	struct segue_groups groups;             /* the same; owned */
	const char *key;
	size_t key_size;
	size_t hits;
};

static void put_value(
	struct segue_json *json, const struct segue_dtype_row *dtype, const uint8_t *at)
{
	switch (dtype->number) {
	case SEGUE_NUMBER_FLOAT:
		segue_json_real(json, NULL, segue_dtype_get_float(dtype, at), dtype->digits);
		break;
	case SEGUE_NUMBER_SIGNED:
		segue_json_signed(json, NULL, segue_dtype_get_integer(dtype, at));
		break;
	case SEGUE_NUMBER_UNSIGNED:
		segue_json_unsigned(json, NULL, (uint64_t)segue_dtype_get_integer(dtype, at));
		break;
	case SEGUE_NUMBER_BOOL:
		segue_json_bool(json, NULL, *at != 0);
		break;
	case SEGUE_NUMBER_NONE:
		break;
	}
}

/* A row's states lie side by side, in the order of the spec, without padding. */
static void put_states(
	struct segue_json *json, const struct segue_spec *spec, const uint8_t *states)
{
	segue_json_begin(json, "states", '{');
	for (size_t i = 0; i < spec->state_count; i++) {
		const struct segue_field *field = &spec->states[i];
		const struct segue_dtype_row *dtype = segue_dtype_row(field->dtype);
		segue_json_begin(json, field->name, '{');
		segue_json_string(json, "dtype", dtype->name);
		segue_report_put_shape(json, field);
		segue_json_begin(json, "values", '[');
		for (uint64_t n = 0; n < field->elements; n++)
			put_value(json, dtype, states + n * dtype->size);
		segue_json_end(json, ']');
		segue_json_end(json, '}');
		states += field->size;
	}
	segue_json_end(json, '}');
}

static void put_hit(struct get *get, const char *kind, struct segue_place place, uint64_t number,
	uint64_t step, const uint8_t *states)
{
	const char *group = segue_groups_name(&get->groups, place.group);

	get->hits++;
	segue_json_begin(&get->json, NULL, '{');
	segue_json_string(&get->json, "stream", get->spec->name);
	segue_json_string(&get->json, "kind", kind);
	segue_json_unsigned(&get->json, "group", place.group);
	if (*group)
		segue_json_string(&get->json, "group_name", group);
	segue_json_unsigned(&get->json, "lane", place.lane);
	segue_json_unsigned(&get->json, "number", number);
	if (step != SEGUE_NEVER)
		segue_json_unsigned(&get->json, "step", step);
	put_states(&get->json, get->spec, states);
	segue_json_end(&get->json, '}');
}

/* Of the lane as it was loaded before its rows are visited; SEGUE_NEVER: it was not there. */
static uint64_t step_of(const struct segue_report_lanes *lanes, struct segue_place place)
{
	for (size_t i = 0; i < lanes->count; i++)
		if (lanes->entry[i].place.group == place.group &&
			lanes->entry[i].place.lane == place.lane)
			return lanes->entry[i].record.position->step;
	return SEGUE_NEVER;
}

/* A hit if the row's key is the one asked for. */
static int visit_live(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	struct get *get = arg;
	const uint8_t *at = key;
	struct segue_row row;

	if (key_size != 20)
		return segue_fail(SEGUE_ESTORE, "a row's states have a key of %zu bytes", key_size);
	const struct segue_place place = {
		segue_key_get32(at), segue_key_get32(at + 4), segue_key_get32(at + 8)};
	if (!segue_groups_have(&get->groups, place.group))
		return 0;
	int rc = segue_row_get(value, value_size, segue_row_size(get->spec), &row);
	if (!rc && row.key_size == get->key_size && memcmp(row.key, get->key, row.key_size) == 0)
		put_hit(get, "live", place, segue_key_get64(at + 12), step_of(get->lanes, place),
			row.states);
	return rc;
}

static int get_final(struct get *get, struct segue_store *store, struct segue_place place)
{
	struct segue_final final;

	int rc = segue_finals_load(store, place, get->spec->lanes, segue_row_size(get->spec),
		get->key, get->key_size, &final);
	if (rc)
		return rc == SEGUE_ENOTFOUND ? 0 : rc;
	place.lane = final.lane;
	put_hit(get, final.kind == SEGUE_FINAL_PUT ? "put" : "final", place, final.number,
		final.step, final.row.states);
	free(final.value);
	return 0;
}

/* Live rows, then the final states of each group. */
static int get_in_stream(
	struct get *get, struct segue_store *store, const struct segue_stream_record *record)
{
	struct segue_place place = {.stream = record->id};
	struct segue_report_lanes lanes;
	uint8_t prefix[4];

	get->spec = record->spec;
	get->lanes = &lanes;
	segue_key_put32(prefix, record->id);
	int rc = segue_report_load_lanes(store, record->id, &lanes);
	if (rc)
		return rc;
	rc = segue_groups_load(store, record->id, &get->groups);
	if (!rc)
		rc = segue_store_scan(
			store, SEGUE_TABLE_STATES, prefix, sizeof(prefix), visit_live, NULL, get);
	for (size_t i = 0; !rc && i < get->groups.count; i++) {
		place.group = get->groups.group[i].number;
		rc = get_final(get, store, place);
	}
	segue_groups_finish(&get->groups);
	segue_report_finish_lanes(&lanes);
	return rc;
}

static int fail_no_key(const struct get *get, const char *stream)
{
	return segue_fail(SEGUE_ENOTFOUND,
		"nothing is kept under the key '%s'%s%s%s: states are kept of sequences that go "
		"on, and, with keep_final, of those that have ended, or were put there",
		segue_utf8_valid(get->key, get->key_size) ? get->key : "(not text)",
		*stream ? " in stream '" : "", stream, *stream ? "'" : "");
}

int segue_report_get(
	struct segue_store *store, const char *dir, const char *stream, const char *key, char **out)
{
	struct get get = {.key = key, .key_size = strlen(key)};
	struct segue_report_streams streams;

	int rc = segue_report_load_streams(store, dir, stream, &streams);
	if (rc)
		return rc;
	segue_json_begin(&get.json, NULL, '{');
	segue_json_string(&get.json, "key", key);
	segue_json_begin(&get.json, "found", '[');
	for (size_t i = 0; !rc && i < streams.count; i++)
		rc = get_in_stream(&get, store, &streams.record[i]);
	segue_json_end(&get.json, ']');
	segue_json_end(&get.json, '}');
	segue_report_finish_streams(&streams);
	if (!rc && get.hits == 0)
		rc = fail_no_key(&get, stream);
	if (rc) {
		segue_json_finish(&get.json);
		return rc;
	}
	return segue_json_take(&get.json, out);
}
