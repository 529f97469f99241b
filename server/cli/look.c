/* A look at a server: read. */
#include "cli/look.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <json-c/json.h>

#include "cli/cli.h"
#include "cli/print.h"
#include "core/error.h"

/* ---- Values ---- */

static char *copy(const char *text)
{
	return segue_cli_need(strdup(text));
}

static char *text_of(struct json_object *object, const char *name)
{
	return copy(segue_cli_member(object, name));
}

/* Negative if it is null, or not there. */
static double number_of(struct json_object *object, const char *name)
{
	struct json_object *value = json_object_object_get(object, name);

	return value ? json_object_get_double(value) : -1;
}

static double date_of(struct json_object *object, const char *name)
{
	struct tm parts = {0};
	const char *end = strptime(segue_json_get_text(object, name), "%Y-%m-%dT%H:%M:%SZ", &parts);

	return end && !*end ? (double)timegm(&parts) : -1;
}

static void *grow(void *array, size_t count, size_t size)
{
	char *grown = segue_cli_need(reallocarray(array, count + 1, size));

	memset(grown + count * size, 0, size);
	return grown;
}

void segue_look_note(struct segue_look *look, const char *format, ...)
{
	va_list arguments;
	char *text;

	va_start(arguments, format);
	if (vasprintf(&text, format, arguments) < 0)
		text = NULL;
	va_end(arguments);
	look->note = grow(look->note, look->note_count, sizeof(*look->note));
	look->note[look->note_count++] = segue_cli_need(text);
}

double segue_look_padding(const struct segue_look_lane *lane)
{
	if (!lane->ring || !lane->steps || lane->steps_valid > lane->steps)
		return -1;
	return (double)(lane->steps - lane->steps_valid) / (double)lane->steps;
}

double segue_look_age(const struct segue_look *look, double at)
{
	double age = (double)look->at_ms / 1e3 - at;

	if (at < 0)
		return -1;
	return age > 0 ? age : 0;
}

/* ---- Reports ---- */

/* The name of a group; of one of several without names, as loaders of persist = false have them. */
static char *group_of(struct json_object *lane)
{
	const char *name = segue_json_get_text(lane, "group_name");

	if (*name || !segue_json_get_unsigned(lane, "group"))
		return text_of(lane, "group_name");
	return text_of(lane, "group");
}

static void read_ring(struct segue_look_lane *lane, struct json_object *from)
{
	lane->ring = json_object_object_get(from, "depth") != NULL;
	lane->published = segue_json_get_unsigned(from, "step_published");
	lane->depth = segue_json_get_unsigned(from, "depth");
	lane->ring_bytes = segue_json_get_unsigned(from, "ring_bytes");
	lane->ended = segue_json_get_bool(from, "ended");
	lane->steps = segue_json_get_unsigned(from, "steps");
	lane->steps_valid = segue_json_get_unsigned(from, "steps_valid");
	lane->worker_waits_s = number_of(from, "worker_waits_s");
	lane->server_waits_s = number_of(from, "server_waits_s");
	lane->behind = number_of(from, "behind");
	lane->epoch = number_of(from, "epoch");
	lane->epochs = number_of(from, "epochs");
	lane->sequences = number_of(from, "sequences");
	lane->sequences_done = number_of(from, "sequences_done");
}

/* Takes `group` over. */
static struct segue_look_lane *add_lane(
	struct segue_look *look, const char *stream, char *group, uint64_t number)
{
	look->lane = grow(look->lane, look->lane_count, sizeof(*look->lane));
	struct segue_look_lane *lane = &look->lane[look->lane_count++];

	*lane = (struct segue_look_lane){.stream = copy(stream),
		.group = group,
		.lane = number,
		.worker_waits_s = -1,
		.server_waits_s = -1,
		.behind = -1,
		.epoch = -1,
		.epochs = -1,
		.sequences = -1,
		.sequences_done = -1,
		.waits_s = -1,
		.batches_per_s = -1,
		.worker_waits = -1,
		.server_waits = -1,
		.eta_s = -1,
		.pace = -1,
		.left_script = copy("")};
	return lane;
}

static void take_holder(struct segue_look_lane *lane, int64_t pid, struct json_object *sessions)
{
	const char *program = "";

	for (size_t i = 0; pid && i < segue_json_count(sessions); i++) {
		struct json_object *session = segue_json_at(sessions, i);
		if ((int64_t)number_of(session, "pid") == pid)
			program = segue_cli_member(session, "program");
	}
	lane->holder = pid;
	lane->program = copy(program);
	lane->script = copy(program);
}

static void read_lane(struct segue_look *look, const char *stream, struct json_object *from,
	struct json_object *sessions)
{
	struct segue_look_lane *lane =
		add_lane(look, stream, group_of(from), segue_json_get_unsigned(from, "lane"));
	double pid = number_of(from, "holder_pid");

	take_holder(lane, pid > 0 ? (int64_t)pid : 0, sessions);
	read_ring(lane, from);
	lane->generation = segue_json_get_unsigned(from, "generation");
	lane->state = text_of(from, "state");
	lane->committed = segue_json_get_unsigned(from, "step_committed");
	lane->durable = segue_json_get_unsigned(from, "step_durable");
	if (lane->published < lane->committed)
		lane->published = lane->committed;
	lane->committed_at = date_of(from, "committed");
	lane->checkpoint_at = date_of(from, "checkpoint");
	if (json_object_object_get(from, "waits_for_group"))
		lane->waits_for_group = text_of(from, "waits_for_group");
	lane->waits_s = number_of(from, "waits_s");
}

/* Those of a group that lag so far that the holder's ring is full of what they have not read. */
static void note_replicas(
	struct segue_look *look, const struct segue_look_lane *lane, struct json_object *from)
{
	struct json_object *replicas = json_object_object_get(from, "replicas");

	for (size_t i = 0; i < segue_json_count(replicas); i++) {
		struct json_object *one = segue_json_at(replicas, i);
		uint64_t step = segue_json_get_unsigned(one, "step");
		if (lane->ring && step + lane->depth <= lane->published)
			segue_look_note(look,
				"lane %ju of %s waits for replica %s, process %s (%s), which is at "
				"step %ju",
				(uintmax_t)lane->lane, lane->stream,
				segue_cli_member(one, "replica"), segue_cli_member(one, "pid"),
				segue_cli_member(one, "program"), (uintmax_t)step);
	}
}

static void read_log(
	struct segue_look *look, struct segue_look_stream *stream, struct json_object *log)
{
	const char *state = segue_json_get_text(log, "state");
	const char *waits = segue_json_get_text(log, "waits_for");

	stream->accepted = number_of(log, "accepted");
	stream->synced = number_of(log, "synced");
	if (strcmp(state, "failed") == 0)
		segue_look_note(look,
			"%s: THE LOG FAILED: nothing is accepted until the server is started again",
			stream->name);
	else if (*segue_json_get_text(log, "input_failure"))
		segue_look_note(look, "%s: NOBODY INSERTS: %s", stream->name,
			segue_cli_member(log, "input_failure"));
	else if (strcmp(waits, "capacity") == 0)
		segue_look_note(look, "%s: inserts wait: every lane has %s sequences before it",
			stream->name, segue_cli_member(log, "capacity"));
	else if (*waits)
		segue_look_note(look, "%s: inserts wait: the log is full", stream->name);
}

static void read_stream(
	struct segue_look *look, struct json_object *from, struct json_object *sessions)
{
	struct json_object *lanes = json_object_object_get(from, "lanes");
	struct json_object *log = json_object_object_get(from, "log");

	look->stream = grow(look->stream, look->stream_count, sizeof(*look->stream));
	struct segue_look_stream *stream = &look->stream[look->stream_count++];
	*stream = (struct segue_look_stream){.name = text_of(from, "name"),
		.state = text_of(from, "state"),
		.skipped = number_of(from, "skipped"),
		.accepted = -1,
		.synced = -1,
		.exposed_wait = -1,
		.exposed_wait_s = -1,
		.padding = -1};
	if (strcmp(stream->state, "opening") == 0)
		segue_look_note(look, "%s: opening (its index is built or read)", stream->name);
	if (log)
		read_log(look, stream, log);
	/* Another may have its name already. */
	bool dropped = strcmp(stream->state, "dropped") == 0;
	for (size_t i = 0; !dropped && i < segue_json_count(lanes); i++) {
		struct json_object *lane = segue_json_at(lanes, i);
		read_lane(look, stream->name, lane, sessions);
		look->lane[look->lane_count - 1].persist = segue_json_get_bool(from, "persist");
		note_replicas(look, &look->lane[look->lane_count - 1], lane);
	}
}

static void read_server(struct segue_look *look, struct json_object *report)
{
	struct json_object *server = json_object_object_get(report, "server");
	struct json_object *store = json_object_object_get(report, "store");

	look->pid = (int64_t)number_of(server, "pid");
	look->dir = text_of(server, "dir");
	look->version = text_of(server, "version");
	look->embedded = segue_json_get_bool(server, "embedded");
	look->stopping = segue_json_get_bool(server, "stopping");
	look->uptime_s = number_of(server, "uptime_s");
	look->cpu_s = number_of(report, "cpu_s");
	look->resident_bytes = number_of(json_object_object_get(report, "memory"), "rss_bytes");
	look->sessions = (double)segue_json_count(json_object_object_get(report, "sessions"));
	look->file_bytes = number_of(store, "file_bytes");
	look->used_bytes = number_of(store, "used_bytes");
	look->transactions = number_of(store, "transactions");
	look->bytes_put = number_of(store, "bytes_put");
	if (strcmp(segue_json_get_text(server, "storage"), "ok") != 0)
		look->trouble = text_of(server, "storage");
}

/* So that lanes of one stream lie side by side, and a lane is found where it was. */
static int compare_lanes(const void *one, const void *other)
{
	const struct segue_look_lane *a = one, *b = other;
	int order = strcmp(a->stream, b->stream);

	if (!order)
		order = strcmp(a->group, b->group);
	return order ? order : (a->lane > b->lane) - (a->lane < b->lane);
}

static void sort_lanes(struct segue_look *look)
{
	if (look->lane_count)
		qsort(look->lane, look->lane_count, sizeof(*look->lane), compare_lanes);
}

void segue_look_keep(struct segue_look *look, const struct segue_look_lane *lane)
{
	struct segue_look_lane *kept = add_lane(look, lane->stream, copy(lane->group), lane->lane);

	take_holder(kept, 0, NULL);
	kept->state = copy("closed");
	kept->persist = lane->persist;
	kept->committed = lane->committed;
	kept->durable = lane->durable;
	kept->committed_at = lane->committed_at;
	kept->checkpoint_at = lane->checkpoint_at;
	sort_lanes(look);
}

int segue_look_read(const char *status, int64_t now_ns, int64_t now_ms, struct segue_look *out)
{
	struct json_object *report;

	*out = (struct segue_look){.at_ns = now_ns, .at_ms = now_ms, .served = true};
	int rc = segue_json_parse(status, &report);
	if (rc)
		return rc;
	struct json_object *streams = json_object_object_get(report, "streams");
	read_server(out, report);
	for (size_t i = 0; i < segue_json_count(streams); i++)
		read_stream(
			out, segue_json_at(streams, i), json_object_object_get(report, "sessions"));
	sort_lanes(out);
	json_object_put(report);
	return 0;
}

static void read_stored(struct segue_look *look, const char *stream, struct json_object *from)
{
	struct segue_look_lane *lane =
		add_lane(look, stream, group_of(from), segue_json_get_unsigned(from, "lane"));
	struct json_object *checkpoints = json_object_object_get(from, "checkpoints");

	take_holder(lane, 0, NULL);
	lane->state = copy("stored");
	lane->persist = true;
	lane->committed = lane->durable = segue_json_get_unsigned(from, "step");
	lane->committed_at = date_of(from, "committed");
	lane->checkpoint_at = -1;
	for (size_t i = 0; i < segue_json_count(checkpoints); i++) {
		double made = date_of(segue_json_at(checkpoints, i), "created");
		if (made > lane->checkpoint_at)
			lane->checkpoint_at = made;
	}
}

int segue_look_read_store(const char *inspect, const char *dir, const char *trouble, int64_t now_ns,
	int64_t now_ms, struct segue_look *out)
{
	struct json_object *report = NULL;

	*out = (struct segue_look){.at_ns = now_ns,
		.at_ms = now_ms,
		.dir = segue_cli_printable(dir, strlen(dir)),
		.trouble = segue_cli_printable(trouble, strlen(trouble)),
		.version = copy("")};
	int rc = inspect ? segue_json_parse(inspect, &report) : 0;
	if (rc)
		return rc;
	struct json_object *streams = json_object_object_get(report, "streams");
	for (size_t i = 0; i < segue_json_count(streams); i++) {
		struct json_object *stream = segue_json_at(streams, i);
		struct json_object *lanes = json_object_object_get(stream, "lanes");
		for (size_t j = 0; j < segue_json_count(lanes); j++)
			read_stored(out, segue_cli_member(stream, "name"), segue_json_at(lanes, j));
	}
	sort_lanes(out);
	json_object_put(report);
	return 0;
}

void segue_look_finish(struct segue_look *look)
{
	for (size_t i = 0; i < look->lane_count; i++) {
		struct segue_look_lane *lane = &look->lane[i];
		free(lane->stream);
		free(lane->group);
		free(lane->state);
		free(lane->program);
		free(lane->script);
		free(lane->waits_for_group);
		free(lane->left_script);
	}
	for (size_t i = 0; i < look->stream_count; i++) {
		free(look->stream[i].name);
		free(look->stream[i].state);
	}
	for (size_t i = 0; i < look->note_count; i++)
		free(look->note[i]);
	free(look->lane);
	free(look->stream);
	free(look->note);
	free(look->dir);
	free(look->trouble);
	free(look->version);
	*look = (struct segue_look){0};
}
