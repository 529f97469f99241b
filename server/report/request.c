/* Reports: the server, the store, and the states under a key, as JSON. */
#include "report/request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "core/barrier.h"
#include "core/error.h"
#include "core/utf8.h"
#include "core/wait.h"
#include "report/json.h"
#include "report/verifier.h"
#include "store/checkpoints.h"
#include "store/finals.h"
#include "store/row.h"

/* Bytes of a key that a lane's memory is estimated with, when the data set is not open. */
enum { KEY_GUESS = 256 };
/* Of a stream with more lanes, STATUS leaves out those that nobody has and nobody has begun. */
enum { LANES_SHOWN = 256 };

static const char *const tails[] = {"shrink", "stop", "pad"};
static const char *const epoch_ends[] = {"continue", "drain"};
static const char *const on_errors[] = {"raise", "skip"};
static const char *const durabilities[] = {"interval", "commit"};

/* ---- Small values ---- */

static void put_date(struct segue_json *json, const char *name, int64_t unix_ms)
{
	time_t seconds = (time_t)(unix_ms / 1000);
	struct tm parts;
	char text[64];

	if (unix_ms > 0 && gmtime_r(&seconds, &parts) &&
		strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts))
		segue_json_string(json, name, text);
	else
		segue_json_null(json, name);
}

static void put_fingerprint(struct segue_json *json, const char *name, const uint64_t value[2])
{
	char text[40];

	snprintf(text, sizeof(text), "%016llx%016llx", (unsigned long long)value[1],
		(unsigned long long)value[0]);
	segue_json_string(json, name, text);
}

/* ---- Specs ---- */

static void put_shape(struct segue_json *json, const struct segue_field *field)
{
	segue_json_begin(json, "shape", '[');
	for (uint32_t i = 0; i < field->rank; i++)
		segue_json_unsigned(json, NULL, field->dims[i]);
	segue_json_end(json, ']');
}

static void put_fields(
	struct segue_json *json, const char *name, const struct segue_field *fields, size_t count)
{
	segue_json_begin(json, name, '[');
	for (size_t i = 0; i < count; i++) {
		segue_json_begin(json, NULL, '{');
		segue_json_string(json, "name", fields[i].name);
		segue_json_string(json, "dtype", segue_dtype_name(fields[i].dtype));
		put_shape(json, &fields[i]);
		segue_json_end(json, '}');
	}
	segue_json_end(json, ']');
}

static void put_option(struct segue_json *json, const struct segue_option *option, const void *spec)
{
	switch (option->kind) {
	case SEGUE_OPTION_FLAG:
		segue_json_bool(json, option->name, segue_option_get(option, spec));
		return;
	case SEGUE_OPTION_NUMBER:
		segue_json_unsigned(json, option->name, segue_option_get(option, spec));
		return;
	case SEGUE_OPTION_CHOICE:
		segue_json_string(
			json, option->name, option->choices[segue_option_get(option, spec)]);
		return;
	case SEGUE_OPTION_TEXT:
		if (segue_option_text(option, spec))
			segue_json_string(json, option->name, segue_option_text(option, spec));
		else
			segue_json_null(json, option->name);
	}
}

static void put_source(struct segue_json *json, const struct segue_spec_source *source)
{
	const struct segue_source_row *row = segue_source_row(source->kind);
	const struct segue_paths *paths = segue_source_paths(source);

	segue_json_begin(json, "source", '{');
	segue_json_string(json, "kind", row->name);
	if (paths) {
		segue_json_begin(json, "paths", '[');
		for (size_t i = 0; i < paths->count; i++)
			segue_json_string(json, NULL, paths->path[i]);
		segue_json_end(json, ']');
	}
	for (const struct segue_option *option = row->options; option->name; option++)
		put_option(json, option, source);
	segue_json_end(json, '}');
}

static void put_spec(struct segue_json *json, const struct segue_spec *spec)
{
	segue_json_begin(json, "spec", '{');
	put_source(json, &spec->source);
	put_fields(json, "sequences", spec->sequences, spec->sequence_count);
	put_fields(json, "contexts", spec->contexts, spec->context_count);
	put_fields(json, "states", spec->states, spec->state_count);
	segue_json_unsigned(json, "num_unroll", spec->num_unroll);
	segue_json_unsigned(json, "batch_size", spec->batch_size);
	segue_json_unsigned(json, "lanes", spec->lanes);
	segue_json_bool(json, "shuffle", spec->shuffle);
	segue_json_unsigned(json, "seed", spec->seed);
	if (spec->epochs)
		segue_json_unsigned(json, "epochs", spec->epochs);
	else
		segue_json_null(json, "epochs");
	segue_json_bool(json, "pad", spec->pad);
	segue_json_string(json, "tail", tails[spec->tail]);
	segue_json_string(json, "epoch_end", epoch_ends[spec->epoch_end]);
	segue_json_string(json, "on_error", on_errors[spec->on_error]);
	segue_json_bool(json, "keep_final", spec->keep_final);
	segue_json_bool(json, "persist", spec->persist);
	segue_json_unsigned(json, "depth", spec->depth);
	segue_json_unsigned(json, "num_threads", spec->num_threads);
	segue_json_string(json, "durability", durabilities[spec->durability]);
	segue_json_unsigned(json, "interval_ms", spec->interval_ms);
	segue_json_unsigned(json, "lease_timeout_ms", spec->lease_timeout_ms);
	segue_json_unsigned(json, "keep_checkpoints", spec->keep_checkpoints);
	segue_json_end(json, '}');
}

/* ---- STATUS ---- */

/* Runs on the loop's thread, like all that it looks at. */
static void put_sessions(struct segue_json *json, const struct segue_server *server)
{
	segue_json_begin(json, "sessions", '[');
	for (const struct segue_session *session = server->sessions; session;
		session = session->next) {
		segue_json_begin(json, NULL, '{');
		segue_json_signed(json, "pid", session->holder.pid);
		segue_json_string(json, "program", session->program);
		segue_json_unsigned(json, "uid", session->peer.uid);
		segue_json_unsigned(json, "lanes", session->lanes);
		segue_json_bool(json, "paused", session->paused);
		segue_json_end(json, '}');
	}
	segue_json_end(json, ']');
}

/* What each user has taken, and the limits. */
static void put_users(struct segue_json *json, const struct segue_server *server)
{
	static const struct {
		enum segue_limit limit;
		const char *name;
	} shown[] = {{SEGUE_LIMIT_CONNECTIONS, "connections"}, {SEGUE_LIMIT_MEMORY, "ring_bytes"},
		{SEGUE_LIMIT_UPLOADS, "upload_bytes"}, {SEGUE_LIMIT_DESCRIPTORS, "descriptors"},
		{SEGUE_LIMIT_THREADS, "threads"}};

	segue_json_begin(json, "users", '[');
	for (const struct segue_user *user = server->users; user; user = user->next) {
		segue_json_begin(json, NULL, '{');
		segue_json_unsigned(json, "uid", user->uid);
		for (size_t i = 0; i < sizeof(shown) / sizeof(shown[0]); i++)
			segue_json_unsigned(json, shown[i].name, user->taken[shown[i].limit]);
		segue_json_end(json, '}');
	}
	segue_json_end(json, ']');
	segue_json_begin(json, "limits", '{');
	for (unsigned i = 0; i < SEGUE_LIMIT_COUNT; i++)
		segue_json_unsigned(
			json, segue_limit_info(i)->flag, server->options.limits.value[i]);
	segue_json_end(json, '}');
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* What the worker writes is shown as far as it can be true, and not taken over. */
static void put_ring(struct segue_json *json, struct segue_grant *grant)
{
	struct segue_filler *filler = grant->filler;
	struct segue_carry *carry = &grant->carry;

	pthread_mutex_lock(&filler->lock);
	uint64_t published = filler->feed.published;
	bool ended = filler->feed.ended;
	/* acquire: pairs with the worker's release stores of the same words */
	uint64_t committed = least(segue_load_acquire(&carry->words->committed), published);
	uint64_t released = least(segue_load_acquire(&carry->words->released), committed);
	uint64_t durable = segue_load_acquire(&carry->page->durable);
	pthread_mutex_unlock(&filler->lock);
	segue_json_unsigned(json, "step_published", published);
	segue_json_unsigned(json, "step_committed", committed);
	segue_json_unsigned(json, "step_released", released);
	segue_json_unsigned(json, "step_durable", durable);
	segue_json_unsigned(json, "depth", filler->geometry.depth);
	segue_json_unsigned(json, "ring_bytes", filler->geometry.ring_size);
	segue_json_unsigned(json, "held", committed - released);
	segue_json_bool(json, "ended", ended);
}

/* Nobody has the lane: it stands where the store has it, or, if it is not stored, nowhere. */
static void put_idle(struct segue_json *json, const struct segue_ledger *ledger)
{
	segue_json_null(json, "step_published");
	segue_json_unsigned(json, "step_committed", ledger->durable);
	segue_json_unsigned(json, "step_released", ledger->durable);
	segue_json_unsigned(json, "step_durable", ledger->durable);
	segue_json_null(json, "depth");
	segue_json_unsigned(json, "ring_bytes", 0);
	segue_json_unsigned(json, "held", 0);
	segue_json_null(json, "ended");
}

static void put_ledger(struct segue_json *json, const struct segue_ledger *ledger)
{
	segue_json_begin(json, NULL, '{');
	segue_json_unsigned(json, "lane", ledger->place.lane);
	segue_json_unsigned(json, "group", ledger->place.group);
	segue_json_string(json, "state", segue_lease_state_name(ledger->lease.state));
	segue_json_unsigned(json, "generation", ledger->lease.generation);
	if (ledger->lease.state == SEGUE_LEASE_FREE)
		segue_json_null(json, "holder_pid");
	else
		segue_json_signed(json, "holder_pid", ledger->lease.holder.pid);
	if (ledger->grant)
		put_ring(json, ledger->grant);
	else
		put_idle(json, ledger);
	segue_json_end(json, '}');
}

static void put_lanes(struct segue_json *json, const struct segue_stream *stream)
{
	segue_json_begin(json, "lanes", '[');
	for (uint32_t lane = 0; stream->ledgers && lane < stream->spec->lanes; lane++) {
		const struct segue_ledger *ledger = &stream->ledgers[lane];
		if (ledger->listed || ledger->durable || stream->spec->lanes <= LANES_SHOWN)
			put_ledger(json, ledger);
	}
	for (const struct segue_ledger *ledger = stream->in_use; ledger && !stream->ledgers;
		ledger = ledger->next)
		put_ledger(json, ledger);
	segue_json_end(json, ']');
}

static void put_source_stats(struct segue_json *json, const struct segue_source *source)
{
	struct segue_source_stats stats;

	segue_source_stats(source, &stats);
	segue_json_unsigned(json, "records", stats.records);
	segue_json_unsigned(json, "files", stats.files);
	segue_json_unsigned(json, "bytes", stats.bytes);
	segue_json_unsigned(json, "index_bytes", stats.index_memory);
	segue_json_string(json, "crc", stats.crc);
	segue_json_unsigned(json, "skipped", stats.skipped);
}

static void put_stream(struct segue_json *json, const struct segue_stream *stream)
{
	bool open = stream->state == SEGUE_STREAM_OPEN;

	segue_json_begin(json, NULL, '{');
	segue_json_string(json, "name", stream->spec->name);
	segue_json_string(json, "state", open ? "open" : "opening");
	segue_json_bool(json, "persist", stream->spec->persist);
	segue_json_unsigned(json, "batch_size", stream->spec->batch_size);
	segue_json_unsigned(json, "num_unroll", stream->spec->num_unroll);
	/* While it opens, the rest belongs to another thread. */
	if (open) {
		segue_json_unsigned(json, "id", stream->id);
		put_source_stats(json, stream->source);
		put_lanes(json, stream);
	}
	segue_json_end(json, '}');
}

/* False: a stream was named, and it is not open. */
static bool put_streams(
	struct segue_json *json, const struct segue_server *server, const char *name)
{
	bool found = !*name;

	segue_json_begin(json, "streams", '[');
	for (const struct segue_stream *stream = server->streams; stream; stream = stream->next) {
		if (stream->state == SEGUE_STREAM_FAILED ||
			(*name && strcmp(stream->spec->name, name) != 0))
			continue;
		put_stream(json, stream);
		found = true;
	}
	segue_json_end(json, ']');
	return found;
}

static void put_server(struct segue_json *json, const struct segue_server *server)
{
	int64_t uptime_ns = segue_now_ns() - server->started_ns;

	segue_json_begin(json, "server", '{');
	segue_json_signed(json, "pid", getpid());
	segue_json_string(json, "version", SEGUE_VERSION_STRING);
	segue_json_string(json, "dir", server->dir);
	segue_json_string(json, "socket", server->socket_path);
	put_date(json, "started", server->started_ms);
	segue_json_signed(json, "uptime_s", uptime_ns / 1000000000);
	segue_json_bool(json, "embedded", server->options.embedded);
	segue_json_bool(json, "stopping", server->stopping);
	segue_json_string(json, "storage",
		server->storage_error ? segue_strerror(server->storage_error) : "ok");
	segue_json_end(json, '}');
}

static void put_store(struct segue_json *json, const struct segue_store *store)
{
	struct segue_store_stats stats;

	segue_store_stats(store, &stats);
	segue_json_begin(json, "store", '{');
	segue_json_unsigned(json, "file_bytes", stats.file_bytes);
	segue_json_unsigned(json, "used_bytes", stats.used_bytes);
	segue_json_unsigned(json, "map_bytes", stats.map_bytes);
	segue_json_unsigned(json, "transactions", stats.transactions);
	segue_json_unsigned(json, "bytes_put", stats.bytes_put);
	put_date(json, "created", (int64_t)(stats.created_ns / 1000000));
	segue_json_string(json, "lmdb", stats.lmdb_version);
	segue_json_end(json, '}');
}

static uint64_t resident_bytes(void)
{
	unsigned long long total, resident = 0;
	FILE *file = fopen("/proc/self/statm", "re");

	if (file) {
		if (fscanf(file, "%llu %llu", &total, &resident) != 2)
			resident = 0;
		fclose(file);
	}
	return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static double seconds_of(struct timeval time)
{
	return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

static int report_status(const struct segue_server *server, const char *stream, char **out)
{
	struct segue_json json = {0};
	struct rusage usage;

	segue_json_begin(&json, NULL, '{');
	put_server(&json, server);
	put_sessions(&json, server);
	put_users(&json, server);
	if (!put_streams(&json, server, stream)) {
		segue_json_finish(&json);
		return segue_fail(SEGUE_ENOTFOUND, "no stream '%s' is open", stream);
	}
	put_store(&json, server->store);
	segue_json_begin(&json, "memory", '{');
	segue_json_unsigned(&json, "rss_bytes", resident_bytes());
	segue_json_end(&json, '}');
	getrusage(RUSAGE_SELF, &usage);
	segue_json_real(&json, "cpu_s", seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime), 6);
	segue_json_end(&json, '}');
	return segue_json_take(&json, out);
}

/* ---- What the store's tables hold ---- */

/* Records of one kind, collected: while the store is walked it must not be asked. */
struct stream_list {
	struct segue_stream_record *record;
	size_t count;
	const char *only; /* "": all */
};

static int take_stream(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	struct stream_list *list = arg;
	struct segue_stream_record record;

	(void)key;
	(void)key_size;
	int rc = segue_stream_record_unpack(value, value_size, &record);
	if (rc)
		return segue_fail_within(
			segue_unless_memory(rc, SEGUE_ESTORE), "the record of a stream");
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

static void finish_streams(struct stream_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		segue_spec_destroy(list->record[i].spec);
	free(list->record);
}

static int load_streams(
	struct segue_store *store, const char *dir, const char *only, struct stream_list *list)
{
	*list = (struct stream_list){.only = only};
	int rc = segue_store_scan(store, SEGUE_TABLE_STREAMS, "", 0, take_stream, NULL, list);
	if (!rc && *only && list->count == 0)
		rc = segue_fail(SEGUE_ENOTFOUND, "the store of %s has no stream '%s'", dir, only);
	if (rc)
		finish_streams(list);
	return rc;
}

struct lane_list {
	struct lane_entry {
		struct segue_place place;
		struct segue_lane_record record;
	} * entry;
	size_t count;
};

static int take_lane(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	struct lane_list *list = arg;
	const uint8_t *at = key;
	struct lane_entry *grown = realloc(list->entry, (list->count + 1) * sizeof(*grown));

	if (!grown)
		return segue_fail(SEGUE_ENOMEM, "no memory for a report");
	list->entry = grown;
	struct lane_entry *entry = &grown[list->count];
	if (key_size != 12)
		return segue_fail(
			SEGUE_ESTORE, "the record of a lane has a key of %zu bytes", key_size);
	entry->place = (struct segue_place){.stream = segue_key_get32(at),
		.group = segue_key_get32(at + 4),
		.lane = segue_key_get32(at + 8)};
	int rc = segue_lane_record_unpack(value, value_size, &entry->record);
	if (rc)
		return segue_fail_within(segue_unless_memory(rc, SEGUE_ESTORE),
			"the record of lane %u", entry->place.lane);
	list->count++;
	return 0;
}

static void finish_lanes(struct lane_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->entry[i].record.position);
	free(list->entry);
}

static int load_lanes(struct segue_store *store, uint32_t stream, struct lane_list *list)
{
	uint8_t prefix[4];

	segue_key_put32(prefix, stream);
	*list = (struct lane_list){0};
	int rc = segue_store_scan(
		store, SEGUE_TABLE_LANES, prefix, sizeof(prefix), take_lane, NULL, list);
	if (rc)
		finish_lanes(list);
	return rc;
}

/* ---- INSPECT ---- */

/* The keys of a lane's live rows, found by sequence number. */
struct key_search {
	const struct segue_position *position;
	uint64_t row_size;
	struct found_key {
		char *bytes; /* NULL: not in the store */
		uint32_t size;
	} * keys; /* position->rows */
};

static int take_key(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	struct key_search *search = arg;
	struct segue_row stored;

	if (key_size != 20)
		return segue_fail(SEGUE_ESTORE, "a row's states have a key of %zu bytes", key_size);
	uint64_t number = segue_key_get64((const uint8_t *)key + 12);
	int rc = segue_row_get(value, value_size, search->row_size, &stored);
	if (rc)
		return rc;
	for (uint32_t row = 0; row < search->position->rows; row++) {
		struct found_key *found = &search->keys[row];
		if (search->position->row[row].number != number || found->bytes)
			continue;
		found->bytes = malloc(stored.key_size + 1);
		if (!found->bytes)
			return segue_fail(SEGUE_ENOMEM, "no memory for a report");
		memcpy(found->bytes, stored.key, stored.key_size);
		found->size = stored.key_size;
	}
	return 0;
}

static void put_row(struct segue_json *json, const struct segue_spec *spec, uint32_t index,
	const struct segue_plan_row *row, const struct found_key *key)
{
	segue_json_begin(json, NULL, '{');
	segue_json_unsigned(json, "row", index);
	segue_json_unsigned(json, "number", row->number);
	segue_json_unsigned(json, "segment", row->segment);
	segue_json_unsigned(
		json, "segments", segue_plan_segments(row->array_steps, spec->num_unroll));
	if (key->bytes)
		segue_json_bytes(json, "key", key->bytes, key->size);
	else
		segue_json_null(json, "key");
	segue_json_end(json, '}');
}

/* The rows whose sequence goes on. */
static int put_rows(struct segue_json *json, struct segue_store *store,
	const struct segue_spec *spec, const struct lane_entry *lane)
{
	const struct segue_position *position = lane->record.position;
	const struct segue_plan_spec plan = {.num_unroll = spec->num_unroll};
	uint8_t prefix[12];
	struct key_search search = {
		.position = position,
		.row_size = segue_row_size(spec),
		.keys = calloc(position->rows + 1u, sizeof(struct found_key)),
	};

	if (!search.keys)
		return segue_fail(SEGUE_ENOMEM, "no memory for a report");
	segue_key_put32(
		segue_key_put32(segue_key_put32(prefix, lane->place.stream), lane->place.group),
		lane->place.lane);
	int rc = segue_store_scan(
		store, SEGUE_TABLE_STATES, prefix, sizeof(prefix), take_key, NULL, &search);
	segue_json_begin(json, "rows", '[');
	for (uint32_t row = 0; row < position->rows; row++) {
		if (segue_plan_row_lives(&plan, &position->row[row]))
			put_row(json, spec, row, &position->row[row], &search.keys[row]);
		free(search.keys[row].bytes);
	}
	segue_json_end(json, ']');
	free(search.keys);
	return rc;
}

static int put_checkpoints(
	struct segue_json *json, struct segue_store *store, struct segue_place place)
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
		put_date(json, "created", catalogue.entry[i].created_ms);
		segue_json_unsigned(json, "bytes", catalogue.entry[i].size);
		segue_json_end(json, '}');
	}
	segue_json_end(json, ']');
	return 0;
}

static int put_stored_lane(struct segue_json *json, struct segue_store *store,
	const struct segue_spec *spec, const struct lane_entry *lane)
{
	const struct segue_lane_record *record = &lane->record;

	segue_json_begin(json, NULL, '{');
	segue_json_unsigned(json, "lane", lane->place.lane);
	segue_json_unsigned(json, "group", lane->place.group);
	segue_json_unsigned(json, "step", record->position->step);
	/* Where epochs follow one another in the rows without a gap, a lane is in no single one. */
	if (spec->epoch_end == SEGUE_EPOCH_DRAIN)
		segue_json_unsigned(json, "epoch", record->position->epoch);
	else
		segue_json_null(json, "epoch");
	put_date(json, "committed", record->committed_ms);
	segue_json_unsigned(json, "generation", record->generation);
	segue_json_bool(json, "held", record->held);
	segue_json_signed(json, "holder_pid", record->holder.pid);
	int rc = put_checkpoints(json, store, lane->place);
	if (!rc)
		rc = put_rows(json, store, spec, lane);
	segue_json_end(json, '}');
	return rc;
}

/* Shared memory of a lane in use, about: how long the longest key is, only the data set tells. */
static uint64_t lane_bytes(const struct segue_spec *spec)
{
	struct segue_geometry geometry;

	if (segue_geometry_init(spec, KEY_GUESS, &geometry))
		return 0;
	uint64_t bytes = geometry.ring_size + geometry.carry_size + geometry.lease_size;
	segue_geometry_finish(&geometry);
	return bytes;
}

static int put_stored_stream(struct segue_json *json, struct segue_store *store,
	const struct segue_stream_record *record)
{
	struct lane_list lanes;

	int rc = load_lanes(store, record->id, &lanes);
	if (rc)
		return rc;
	segue_json_begin(json, NULL, '{');
	segue_json_string(json, "name", record->spec->name);
	segue_json_unsigned(json, "id", record->id);
	put_date(json, "created", record->created_ms);
	put_fingerprint(json, "fingerprint", record->fingerprint);
	segue_json_unsigned(json, "lane_bytes", lane_bytes(record->spec));
	put_spec(json, record->spec);
	segue_json_begin(json, "lanes", '[');
	for (size_t i = 0; !rc && i < lanes.count; i++)
		rc = put_stored_lane(json, store, record->spec, &lanes.entry[i]);
	segue_json_end(json, ']');
	segue_json_end(json, '}');
	finish_lanes(&lanes);
	return rc;
}

static int report_inspect(
	struct segue_store *store, const char *dir, const char *stream, char **out)
{
	struct segue_json json = {0};
	struct stream_list streams;

	int rc = load_streams(store, dir, stream, &streams);
	if (rc)
		return rc;
	segue_json_begin(&json, NULL, '{');
	segue_json_begin(&json, "streams", '[');
	for (size_t i = 0; !rc && i < streams.count; i++)
		rc = put_stored_stream(&json, store, &streams.record[i]);
	segue_json_end(&json, ']');
	segue_json_end(&json, '}');
	finish_streams(&streams);
	if (rc) {
		segue_json_finish(&json);
		return rc;
	}
	return segue_json_take(&json, out);
}

/* ---- GET ---- */

struct get {
	struct segue_json json;
	const struct segue_spec *spec;
	const char *key;
	size_t key_size;
	size_t hits;
};

static void put_value(struct segue_json *json, enum segue_dtype dtype, const uint8_t *at)
{
	union {
		float f32;
		double f64;
		int32_t i32;
		int64_t i64;
	} value;

	memcpy(&value, at, segue_dtype_size(dtype));
	switch (dtype) {
	case SEGUE_FLOAT32:
		segue_json_real(json, NULL, (double)value.f32, 9);
		break;
	case SEGUE_FLOAT64:
		segue_json_real(json, NULL, value.f64, 17);
		break;
	case SEGUE_INT32:
		segue_json_signed(json, NULL, value.i32);
		break;
	case SEGUE_INT64:
		segue_json_signed(json, NULL, value.i64);
		break;
	case SEGUE_UINT8:
		segue_json_unsigned(json, NULL, *at);
		break;
	case SEGUE_BOOL:
		segue_json_bool(json, NULL, *at != 0);
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
		size_t size = segue_dtype_size(field->dtype);
		segue_json_begin(json, field->name, '{');
		segue_json_string(json, "dtype", segue_dtype_name(field->dtype));
		put_shape(json, field);
		segue_json_begin(json, "values", '[');
		for (uint64_t n = 0; n < field->elements; n++)
			put_value(json, field->dtype, states + n * size);
		segue_json_end(json, ']');
		segue_json_end(json, '}');
		states += field->size;
	}
	segue_json_end(json, '}');
}

/* A hit if the row's key is the one asked for. */
static int put_hit(struct get *get, const char *kind, struct segue_place place, uint64_t number,
	const void *value, size_t size)
{
	struct segue_row row;

	int rc = segue_row_get(value, size, segue_row_size(get->spec), &row);
	if (rc)
		return rc;
	if (row.key_size != get->key_size || memcmp(row.key, get->key, row.key_size) != 0)
		return 0;
	get->hits++;
	segue_json_begin(&get->json, NULL, '{');
	segue_json_string(&get->json, "stream", get->spec->name);
	segue_json_string(&get->json, "kind", kind);
	segue_json_unsigned(&get->json, "group", place.group);
	segue_json_unsigned(&get->json, "lane", place.lane);
	segue_json_unsigned(&get->json, "number", number);
	put_states(&get->json, get->spec, row.states);
	segue_json_end(&get->json, '}');
	return 0;
}

static int visit_live(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	const uint8_t *at = key;

	if (key_size != 20)
		return segue_fail(SEGUE_ESTORE, "a row's states have a key of %zu bytes", key_size);
	const struct segue_place place = {
		segue_key_get32(at), segue_key_get32(at + 4), segue_key_get32(at + 8)};
	return put_hit(arg, "live", place, segue_key_get64(at + 12), value, value_size);
}

static int get_final(struct get *get, struct segue_store *store, struct segue_place place)
{
	uint64_t number;
	void *value;
	size_t size;

	int rc = segue_finals_load(
		store, &place, get->spec->lanes, get->key, get->key_size, &number, &value, &size);
	if (rc)
		return rc == SEGUE_ENOTFOUND ? 0 : rc;
	rc = put_hit(get, "final", place, number, value, size);
	free(value);
	return rc;
}

/* Live rows, then the final states of each group that has a lane here. */
static int get_in_stream(
	struct get *get, struct segue_store *store, const struct segue_stream_record *record)
{
	struct lane_list lanes;
	uint8_t prefix[4];

	get->spec = record->spec;
	segue_key_put32(prefix, record->id);
	int rc = segue_store_scan(
		store, SEGUE_TABLE_STATES, prefix, sizeof(prefix), visit_live, NULL, get);
	if (rc)
		return rc;
	rc = load_lanes(store, record->id, &lanes);
	if (rc)
		return rc;
	/* Ordered by group, then lane. */
	for (size_t i = 0; !rc && i < lanes.count; i++) {
		if (i == 0 || lanes.entry[i].place.group != lanes.entry[i - 1].place.group)
			rc = get_final(get, store, lanes.entry[i].place);
	}
	finish_lanes(&lanes);
	return rc;
}

static int fail_no_key(const struct get *get, const char *stream)
{
	return segue_fail(SEGUE_ENOTFOUND,
		"nothing is kept under the key '%s'%s%s%s: states are kept of sequences that go "
		"on, and, with keep_final, of those that have ended",
		segue_utf8_valid(get->key, get->key_size) ? get->key : "(not text)",
		*stream ? " in stream '" : "", stream, *stream ? "'" : "");
}

static int report_get(
	struct segue_store *store, const char *dir, const char *stream, const char *key, char **out)
{
	struct get get = {.key = key, .key_size = strlen(key)};
	struct stream_list streams;

	int rc = load_streams(store, dir, stream, &streams);
	if (rc)
		return rc;
	segue_json_begin(&get.json, NULL, '{');
	segue_json_string(&get.json, "key", key);
	segue_json_begin(&get.json, "found", '[');
	for (size_t i = 0; !rc && i < streams.count; i++)
		rc = get_in_stream(&get, store, &streams.record[i]);
	segue_json_end(&get.json, ']');
	segue_json_end(&get.json, '}');
	finish_streams(&streams);
	if (!rc && get.hits == 0)
		rc = fail_no_key(&get, stream);
	if (rc) {
		segue_json_finish(&get.json);
		return rc;
	}
	return segue_json_take(&get.json, out);
}

/* ---- VERIFY ---- */

static int report_verify(const char *dir, char **out)
{
	static const struct segue_verifier plain;

	return segue_verifier_run(dir, &plain, out);
}

int segue_report_store(struct segue_store *store, const char *dir, enum segue_report what,
	const char *stream, const char *key, char **out)
{
	switch (what) {
	case SEGUE_REPORT_INSPECT:
		return report_inspect(store, dir, stream, out);
	case SEGUE_REPORT_GET:
		return report_get(store, dir, stream, key, out);
	case SEGUE_REPORT_VERIFY:
		return report_verify(dir, out);
	default:
		return segue_fail(SEGUE_EINVAL, "report %d is not one of the store", (int)what);
	}
}

/* ---- Requests ---- */

/* A report of the store. */
struct request {
	struct segue_errand errand;
	struct segue_server *server;
	enum segue_report what;
	char *stream, *key;
	char *text; /* may be there in spite of an error: what VERIFY found */
};

static void destroy_request(struct request *request)
{
	free(request->stream);
	free(request->key);
	free(request->text);
	free(request);
}

static void answer(struct segue_task *task)
{
	struct request *request = (struct request *)task;
	const struct segue_errand *errand = &request->errand;
	struct segue_session *session = segue_errand_end(&request->errand);

	if (session && request->text)
		segue_session_send_bulk(
			session, errand->serial, 0, request->text, strlen(request->text));
	else if (session)
		segue_session_fail_text(session, errand->serial, errand->rc, errand->detail);
	destroy_request(request);
}

static int make_report(struct segue_errand *errand)
{
	struct request *request = (struct request *)errand;
	const struct segue_verifier how = {.interrupt = segue_errand_given_up, .arg = errand};
	struct segue_server *server = request->server;

	if (request->what == SEGUE_REPORT_VERIFY)
		return segue_verifier_run(server->dir, &how, &request->text);
	return segue_report_store(server->store, server->dir, request->what, request->stream,
		request->key, &request->text);
}

static void answer_status(struct segue_session *session, const struct segue_message *message)
{
	char *text;

	int rc = report_status(session->server, message->report.stream, &text);
	if (rc) {
		segue_session_fail(session, message->serial, rc);
		return;
	}
	segue_session_send_bulk(session, message->serial, 0, text, strlen(text));
	free(text);
}

void segue_report_request(struct segue_session *session, const struct segue_message *message)
{
	if (message->report.what == SEGUE_REPORT_STATUS) {
		answer_status(session, message);
		return;
	}
	struct request *request = calloc(1, sizeof(*request));
	int rc = 0;
	if (request)
		*request = (struct request){
			.errand.task.apart = message->report.what == SEGUE_REPORT_VERIFY,
			.server = session->server,
			.what = message->report.what,
			.stream = strdup(message->report.stream),
			.key = strdup(message->report.key),
		};
	if (!request || !request->stream || !request->key)
		rc = segue_fail(SEGUE_ENOMEM, "no memory for a report");
	if (!rc)
		rc = segue_errand_run(
			session, message->serial, &request->errand, make_report, answer);
	if (!rc)
		return;
	if (request)
		destroy_request(request);
	segue_session_fail(session, message->serial, rc);
}
