/* INSPECT: the streams and lanes that the store's tables hold. */
#include "report/contents.h"

#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/layout.h"
#include "engine/live_dir.h"
#include "report/json.h"
#include "report/values.h"
#include "store/checkpoints.h"
#include "store/groups.h"
#include "store/logs.h"
#include "store/row.h"

/* Bytes of a key that a lane's memory is estimated with, when the data set is not open. */
enum { KEY_GUESS = 256 };

static int take_stream(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	struct segue_report_streams *list = arg;
	struct segue_stream_record record;

	(void)key;
	(void)key_size;
	int rc = segue_stream_record_unpack(value, value_size, &record);
	if (rc)
		return segue_fail_within(
			segue_as_damage(rc, SEGUE_ESTORE), "what the store has of a stream");
	if (*list->only && strcmp(record.spec->name, list->only) != 0) {
		segue_spec_destroy(record.spec);
		return 0;
	}
	struct segue_stream_record *grown =
		realloc(list->record, (list->count + 1) * sizeof(*grown));
	if (!grown) {
		segue_spec_destroy(record.spec);
		return segue_fail(SEGUE_ENOMEM, "no memory for a report");
	}
	list->record = grown;
	list->record[list->count++] = record;
	return 0;
}

void segue_report_finish_streams(struct segue_report_streams *list)
{
	for (size_t i = 0; i < list->count; i++)
		segue_spec_destroy(list->record[i].spec);
	free(list->record);
}

int segue_report_load_streams(struct segue_store *store, const char *dir, const char *only,
	struct segue_report_streams *list)
{
	*list = (struct segue_report_streams){.only = only};
	int rc = segue_store_scan(store, SEGUE_TABLE_STREAMS, "", 0, take_stream, NULL, list);
	if (!rc && *only && list->count == 0)
		rc = segue_fail(SEGUE_ENOTFOUND, "the store of %s has no stream '%s'", dir, only);
	if (rc)
		segue_report_finish_streams(list);
	return rc;
}

static int take_lane(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	struct segue_report_lanes *list = arg;
	const uint8_t *at = key;
	struct segue_report_lane *grown = realloc(list->entry, (list->count + 1) * sizeof(*grown));

	if (!grown)
		return segue_fail(SEGUE_ENOMEM, "no memory for a report");
	list->entry = grown;
	struct segue_report_lane *entry = &grown[list->count];
	if (key_size != 12)
		return segue_fail(SEGUE_ESTORE,
			"what the store has of a lane has a key of %zu bytes", key_size);
	entry->place = (struct segue_place){.stream = segue_key_get32(at),
		.group = segue_key_get32(at + 4),
		.lane = segue_key_get32(at + 8)};
	int rc = segue_lane_record_unpack(value, value_size, &entry->record);
	if (rc)
		return segue_fail_within(segue_as_damage(rc, SEGUE_ESTORE),
			"what the store has of lane %u", entry->place.lane);
	list->count++;
	return 0;
}

void segue_report_finish_lanes(struct segue_report_lanes *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->entry[i].record.position);
	free(list->entry);
}

int segue_report_load_lanes(
	struct segue_store *store, uint32_t stream, struct segue_report_lanes *list)
{
	uint8_t prefix[4];

	segue_key_put32(prefix, stream);
	*list = (struct segue_report_lanes){0};
	int rc = segue_store_scan(
		store, SEGUE_TABLE_LANES, prefix, sizeof(prefix), take_lane, NULL, list);
	if (rc)
		segue_report_finish_lanes(list);
	return rc;
}

/* ---- The report ---- */

/* Its key is null where its states are not in the store. */
static int put_row(struct segue_json *json, struct segue_store *store,
	const struct segue_spec *spec, const struct segue_report_lane *lane, uint32_t index)
{
	const struct segue_plan_row *row = &lane->record.position->row[index];
	struct segue_row stored;
	void *value = NULL;

	int rc = segue_lanes_load_row(
		store, lane->place, row->number, segue_row_size(spec), &value, &stored);
	if (rc && rc != SEGUE_ENOTFOUND)
		return rc;
	segue_json_begin(json, NULL, '{');
	segue_json_unsigned(json, "row", index);
	segue_json_unsigned(json, "number", row->number);
	segue_json_unsigned(json, "segment", row->segment);
	segue_json_unsigned(
		json, "segments", segue_plan_segments(row->array_steps, segue_spec_unroll(spec)));
	if (rc == 0)
		segue_json_bytes(json, "key", stored.key, stored.key_size);
	else
		segue_json_null(json, "key");
	segue_json_end(json, '}');
	free(value);
	return 0;
}

/* The rows whose sequence goes on. */
static int put_rows(struct segue_json *json, struct segue_store *store,
	const struct segue_spec *spec, const struct segue_report_lane *lane)
{
	const struct segue_position *position = lane->record.position;
	const struct segue_plan_spec plan = {.num_unroll = segue_spec_unroll(spec)};
	int rc = 0;

	segue_json_begin(json, "rows", '[');
	for (uint32_t row = 0; !rc && row < segue_position_count(position); row++) {
		if (segue_plan_row_lives(&plan, &position->row[row]))
			rc = put_row(json, store, spec, lane, row);
	}
	segue_json_end(json, ']');
	return rc;
}

/* Totals of epochs after which the input ended, or ends; null: never. */
static void put_ends(struct segue_json *json, const struct segue_ends *ends)
{
	segue_json_begin(json, "ends", '[');
	for (uint32_t i = 0; i < ends->count; i++) {
		if (ends->epochs[i] == 0)
			segue_json_null(json, NULL);
		else
			segue_json_unsigned(json, NULL, ends->epochs[i]);
	}
	segue_json_end(json, ']');
}

/* `ends`: how many its input has. A lane that ended by fewer goes on. */
static int put_checkpoints(
	struct segue_json *json, struct segue_store *store, struct segue_place place, uint32_t ends)
{
	struct segue_catalogue catalogue;

	int rc = segue_catalogue_load(store, place, &catalogue);
	if (rc)
		return rc;
	segue_json_begin(json, "checkpoints", '[');
	for (uint32_t i = 0; i < catalogue.count; i++) {
		segue_json_begin(json, NULL, '{');
		segue_json_unsigned(json, "id", catalogue.entry[i].id);
		segue_json_unsigned(json, "step", catalogue.entry[i].step);
		segue_report_put_date(json, "created", catalogue.entry[i].created_ms);
		segue_json_unsigned(json, "bytes", catalogue.entry[i].size);
		segue_json_bool(json, "ended",
			catalogue.entry[i].id == catalogue.ended_id && catalogue.ended_at == ends);
		segue_json_end(json, '}');
	}
	segue_json_end(json, ']');
	return 0;
}

static int put_stored_lane(struct segue_json *json, struct segue_store *store,
	const struct segue_stream_record *stream, const struct segue_groups *groups,
	const struct segue_report_lane *lane)
{
	const char *name = segue_groups_name(groups, lane->place.group);
	const struct segue_lane_record *record = &lane->record;
	const struct segue_spec *spec = stream->spec;

	segue_json_begin(json, NULL, '{');
	segue_json_unsigned(json, "lane", lane->place.lane);
	segue_json_unsigned(json, "group", lane->place.group);
	if (*name)
		segue_json_string(json, "group_name", name);
	segue_json_unsigned(json, "step", record->position->step);
	/* Where epochs follow one another in the rows without a gap, a lane is in no single one. */
	if (spec->epoch_end == SEGUE_EPOCH_DRAIN)
		segue_json_unsigned(json, "epoch", record->position->epoch);
	else
		segue_json_null(json, "epoch");
	segue_json_unsigned(json, "batch_size",
		record->position->sized ? record->position->batch_size : spec->batch_size);
	segue_json_unsigned(json, "parked", record->position->parked);
	segue_report_put_date(json, "committed", record->committed_ms);
	segue_json_unsigned(json, "generation", record->generation);
	segue_json_bool(json, "held", record->held);
	segue_json_signed(json, "holder_pid", record->holder.pid);
	segue_json_unsigned(json, "waiting", record->position->waiting);
	segue_json_unsigned(json, "next", record->position->next * spec->lanes + lane->place.lane);
	int rc = put_checkpoints(json, store, lane->place, stream->ends.count);
	if (!rc)
		rc = put_rows(json, store, spec, lane);
	segue_json_end(json, '}');
	return rc;
}

/* Shared memory of a lane in use, about: how long the longest key is, only the data set tells. */
static uint64_t lane_bytes(const struct segue_spec *spec)
{
	struct segue_geometry geometry;

	if (segue_geometry_init(spec, spec->batch_size, KEY_GUESS, &geometry))
		return 0;
	uint64_t bytes = geometry.ring_size + geometry.carry_size + geometry.lease_size;
	segue_geometry_finish(&geometry);
	return bytes;
}

/* What is known of the log that it reads, and how much lies there; nothing, if it reads none. */
static int put_log(
	struct segue_json *json, struct segue_store *store, const char *dir, uint32_t stream)
{
	struct segue_stored_log log;
	uint64_t files, bytes;

	int rc = segue_logs_load(store, stream, &log);
	if (rc)
		return rc == SEGUE_ENOTFOUND ? 0 : rc;
	segue_live_measure(dir, stream, &files, &bytes);
	segue_json_begin(json, "log", '{');
	segue_json_unsigned(json, "files", files);
	segue_json_unsigned(json, "bytes", bytes);
	segue_json_unsigned(json, "first", log.known.first);
	segue_json_unsigned(json, "synced", log.known.synced.number);
	segue_json_bool(json, "ended", log.end.ended);
	segue_json_begin(json, "closed", '[');
	for (uint32_t i = 0; i < log.end.closed_count; i++)
		segue_json_string(json, NULL, log.end.closed[i]);
	segue_json_end(json, ']');
	segue_json_end(json, '}');
	segue_stored_log_finish(&log);
	return 0;
}

/* Those that have a name. */
static void put_groups(struct segue_json *json, const struct segue_groups *groups)
{
	segue_json_begin(json, "groups", '[');
	for (size_t i = 0; i < groups->count; i++) {
		const struct segue_group *group = &groups->group[i];
		if (!*group->name)
			continue;
		segue_json_begin(json, NULL, '{');
		segue_json_unsigned(json, "group", group->number);
		segue_json_string(json, "group_name", group->name);
		segue_json_end(json, '}');
	}
	segue_json_end(json, ']');
}

static int put_stored_stream(struct segue_json *json, struct segue_store *store, const char *dir,
	const struct segue_stream_record *record)
{
	struct segue_report_lanes lanes;
	struct segue_groups groups;

	int rc = segue_report_load_lanes(store, record->id, &lanes);
	if (rc)
		return rc;
	rc = segue_groups_load(store, record->id, &groups);
	if (rc) {
		segue_report_finish_lanes(&lanes);
		return rc;
	}
	segue_json_begin(json, NULL, '{');
	segue_json_string(json, "name", record->spec->name);
	segue_json_unsigned(json, "id", record->id);
	segue_report_put_date(json, "created", record->created_ms);
	segue_report_put_fingerprint(json, "fingerprint", record->fingerprint);
	segue_json_unsigned(json, "lane_bytes", lane_bytes(record->spec));
	segue_report_put_spec(json, record->spec);
	put_ends(json, &record->ends);
	rc = put_log(json, store, dir, record->id);
	put_groups(json, &groups);
	segue_json_begin(json, "lanes", '[');
	for (size_t i = 0; !rc && i < lanes.count; i++)
		if (segue_groups_have(&groups, lanes.entry[i].place.group))
			rc = put_stored_lane(json, store, record, &groups, &lanes.entry[i]);
	segue_json_end(json, ']');
	segue_json_end(json, '}');
	segue_groups_finish(&groups);
	segue_report_finish_lanes(&lanes);
	return rc;
}

int segue_report_inspect(struct segue_store *store, const char *dir, const char *stream, char **out)
{
	struct segue_json json = {0};
	struct segue_report_streams streams;

	int rc = segue_report_load_streams(store, dir, stream, &streams);
	if (rc)
		return rc;
	segue_json_begin(&json, NULL, '{');
	segue_json_begin(&json, "streams", '[');
	for (size_t i = 0; !rc && i < streams.count; i++)
		rc = put_stored_stream(&json, store, dir, &streams.record[i]);
	segue_json_end(&json, ']');
	segue_json_end(&json, '}');
	segue_report_finish_streams(&streams);
	if (rc) {
		segue_json_finish(&json);
		return rc;
	}
	return segue_json_take(&json, out);
}
