/* segue status: the running server of a directory, its sessions, streams and lanes. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <json-c/json.h>

#include "cli/ask.h"
#include "cli/openmetrics.h"
#include "cli/print.h"
#include "cli/top.h"
#include "core/error.h"

static void print_server(struct json_object *report)
{
	struct json_object *server = json_object_object_get(report, "server");
	struct json_object *store = json_object_object_get(report, "store");
	struct json_object *memory = json_object_object_get(report, "memory");
	const char *storage = segue_cli_member(server, "storage");
	char up[32], rss[32], file[32];

	printf("server   segue %s, pid %s, %s%s\n", segue_cli_member(server, "version"),
		segue_cli_member(server, "pid"),
		segue_json_get_bool(server, "embedded") ? "embedded" : "on its own",
		segue_json_get_bool(server, "stopping") ? ", stopping" : "");
	printf("dir      %s\n", segue_cli_member(server, "dir"));
	printf("socket   %s\n", segue_cli_member(server, "socket"));
	printf("up       %s, processor time %s s, memory %s\n",
		segue_cli_duration(segue_json_get_unsigned(server, "uptime_s"), up),
		segue_cli_member(report, "cpu_s"),
		segue_cli_bytes(segue_json_get_unsigned(memory, "rss_bytes"), rss));
	printf("storage  %s%s, %s on disk, %s transactions\n",
		strcmp(storage, "ok") == 0 ? "" : "FAILED: ", storage,
		segue_cli_bytes(segue_json_get_unsigned(store, "file_bytes"), file),
		segue_cli_member(store, "transactions"));
}

static void print_sessions(struct json_object *report)
{
	static const struct segue_cli_column columns[] = {
		{"PID", "pid"}, {"PROGRAM", "program"}, {"UID", "uid"}};
	struct json_object *sessions = json_object_object_get(report, "sessions");
	struct segue_cli_table table;

	printf("\nsessions: %zu\n", segue_json_count(sessions));
	segue_cli_table_init(&table, columns, 3);
	for (size_t i = 0; i < segue_json_count(sessions); i++)
		segue_cli_table_row(&table, segue_json_at(sessions, i), NULL);
	segue_cli_table_print(&table, 2);
}

/* What of the steps of a lane's batches does not count, if there are batches. */
static void add_padding(struct json_object *lane, struct json_object *more)
{
	uint64_t steps = segue_json_get_unsigned(lane, "steps");
	uint64_t valid = segue_json_get_unsigned(lane, "steps_valid");
	char text[16] = "-";

	if (steps)
		snprintf(text, sizeof(text), "%.0f%%",
			100.0 * (double)(steps - valid) / (double)steps);
	json_object_object_add(more, "padding", json_object_new_string(text));
}

static void print_lanes(struct json_object *lanes, bool of_log)
{
	static const struct segue_cli_column columns[] = {{"GROUP", "group_name"}, {"LANE", "lane"},
		{"LEASE", "state"}, {"HOLDER", "holder_pid"}, {"BATCH", "batch_size"},
		{"STEP", "step_committed"}, {"DURABLE", "step_durable"}, {"AHEAD", "ahead"},
		{"DEPTH", "depth"}, {"HELD", "held"}, {"RING", "ring_bytes", true},
		{"ENDED", "ended"}, {"PAD", "padding"}};
	/* They have no groups; and a line is to fit a terminal. */
	static const struct segue_cli_column columns_of_log[] = {{"LANE", "lane"},
		{"LEASE", "state"}, {"HOLDER", "holder_pid"}, {"STEP", "step_committed"},
		{"DURABLE", "step_durable"}, {"BEHIND", "behind"}, {"AHEAD", "ahead"},
		{"DEPTH", "depth"}, {"HELD", "held"}, {"ENDED", "ended"}, {"PAD", "padding"}};
	struct segue_cli_table table;

	if (of_log)
		segue_cli_table_init(
			&table, columns_of_log, sizeof(columns_of_log) / sizeof(columns_of_log[0]));
	else
		segue_cli_groups_init(&table, columns, sizeof(columns) / sizeof(columns[0]), lanes);
	for (size_t i = 0; i < segue_json_count(lanes); i++) {
		struct json_object *lane = segue_json_at(lanes, i);
		uint64_t published = segue_json_get_unsigned(lane, "step_published");
		uint64_t committed = segue_json_get_unsigned(lane, "step_committed");
		struct json_object *more = segue_cli_need(json_object_new_object());
		json_object_object_add(more, "ahead",
			json_object_new_uint64(published > committed ? published - committed : 0));
		add_padding(lane, more);
		segue_cli_table_row(&table, lane, more);
		json_object_put(more);
	}
	segue_cli_table_print(&table, 2);
}

/* Those that follow who has a lane. */
static void print_replicas(struct json_object *lanes)
{
	static const struct segue_cli_column columns[] = {{"GROUP", "group_name"}, {"LANE", "lane"},
		{"REPLICA", "replica"}, {"PID", "pid"}, {"PROGRAM", "program"}, {"STEP", "step"},
		{"LAG", "lag"}};
	struct segue_cli_table table;

	segue_cli_groups_init(&table, columns, sizeof(columns) / sizeof(columns[0]), lanes);
	for (size_t i = 0; i < segue_json_count(lanes); i++) {
		struct json_object *lane = segue_json_at(lanes, i);
		struct json_object *replicas = json_object_object_get(lane, "replicas");
		for (size_t j = 0; j < segue_json_count(replicas); j++)
			segue_cli_table_row(&table, segue_json_at(replicas, j), lane);
	}
	segue_cli_table_print(&table, 2);
}

/* The lane with the most before it. */
static struct json_object *find_last(struct json_object *lanes)
{
	struct json_object *last = segue_json_at(lanes, 0);

	for (size_t i = 1; i < segue_json_count(lanes); i++) {
		struct json_object *lane = segue_json_at(lanes, i);
		if (segue_json_get_unsigned(lane, "behind") >
			segue_json_get_unsigned(last, "behind"))
			last = lane;
	}
	return last;
}

static void print_log(struct json_object *stream)
{
	static const struct segue_cli_column columns[] = {{"PRODUCER", "name"}, {"STATE", "state"},
		{"SESSION", "session"}, {"INSERTED", "inserted"}, {"SAFE", "safe"}};
	struct json_object *log = json_object_object_get(stream, "log");
	struct json_object *producers = json_object_object_get(log, "producers");
	struct json_object *last = find_last(json_object_object_get(stream, "lanes"));
	const char *state = segue_json_get_text(log, "state");
	const char *waits = segue_json_get_text(log, "waits_for");
	struct segue_cli_table table;
	char bytes[32];

	printf("  log: %s sequences accepted, %s synced; files %s, %s\n",
		segue_cli_member(log, "accepted"), segue_cli_member(log, "synced"),
		segue_cli_member(stream, "files"),
		segue_cli_bytes(segue_json_get_unsigned(stream, "bytes"), bytes));
	if (strcmp(state, "failed") == 0)
		printf("  FAILED: nothing more is accepted until the server is started again\n");
	else if (strcmp(state, "ended") == 0)
		printf("  the input has ended\n");
	else if (*segue_json_get_text(log, "input_failure"))
		printf("  NOBODY INSERTS: %s\n", segue_cli_member(log, "input_failure"));
	else if (strcmp(waits, "capacity") == 0)
		printf("  INSERTS WAIT: lane %s has %s sequences before it (capacity %s)\n",
			segue_cli_member(last, "lane"), segue_cli_member(last, "behind"),
			segue_cli_member(log, "capacity"));
	else if (*waits)
		printf("  INSERTS WAIT: the log is full (%s); lane %s has %s sequences before it\n",
			segue_cli_bytes(segue_json_get_unsigned(log, "spool_bytes"), bytes),
			segue_cli_member(last, "lane"), segue_cli_member(last, "behind"));
	segue_cli_table_init(&table, columns, sizeof(columns) / sizeof(columns[0]));
	for (size_t i = 0; i < segue_json_count(producers); i++)
		segue_cli_table_row(&table, segue_json_at(producers, i), NULL);
	segue_cli_table_print(&table, 2);
}

static void print_stream(struct json_object *stream)
{
	bool of_log = json_object_object_get(stream, "log");
	uint64_t unroll = segue_json_get_unsigned(stream, "num_unroll");
	char index[32], steps[32] = "whole sequences";

	if (unroll)
		snprintf(steps, sizeof(steps), "%" PRIu64 " steps", unroll);
	printf("\nstream %s: ", segue_cli_member(stream, "name"));
	if (strcmp(segue_json_get_text(stream, "state"), "open") != 0) {
		printf("opening (its index is built or read)\n");
		return;
	}
	if (!of_log) /* else they are told below */
		printf("%s records, files %s, ", segue_cli_member(stream, "records"),
			segue_cli_member(stream, "files"));
	printf("index %s, CRC %s, %s skipped; batches of %s x %s%s\n",
		segue_cli_bytes(segue_json_get_unsigned(stream, "index_bytes"), index),
		segue_cli_member(stream, "crc"), segue_cli_member(stream, "skipped"),
		segue_cli_member(stream, "batch_size"), steps,
		segue_json_get_bool(stream, "persist") ? "" : "; not stored");
	if (of_log)
		print_log(stream);
	print_lanes(json_object_object_get(stream, "lanes"), of_log);
	print_replicas(json_object_object_get(stream, "lanes"));
}

static void print_report(const struct segue_cli_options *options, struct json_object *report)
{
	struct json_object *streams = json_object_object_get(report, "streams");

	(void)options;
	print_server(report);
	print_sessions(report);
	if (segue_json_count(streams) == 0)
		printf("\nno stream is open\n");
	for (size_t i = 0; i < segue_json_count(streams); i++)
		print_stream(segue_json_at(streams, i));
}

/* Nobody answers: is that because nobody is there? */
static int no_server(const struct segue_cli_options *options)
{
	long pid = 0;

	if (options->json)
		puts("{\"server\":null}");
	int held = segue_cli_lock_holder(options->dir, &pid);
	if (held == SEGUE_ENOTFOUND)
		segue_fail(
			SEGUE_EGONE, "no server runs for %s, which does not exist", options->dir);
	else if (held == 1 && pid)
		segue_fail(SEGUE_EGONE,
			"a server (pid %ld) has %s but does not answer at %s%s: give its socket "
			"with --socket",
			pid, options->dir, options->socket ? options->socket : options->dir,
			options->socket ? "" : "/segue.sock");
	else if (held == 1)
		segue_fail(SEGUE_EGONE,
			"no server answers, and another process has %s open: try again when it has "
			"ended",
			options->dir);
	else
		segue_fail(SEGUE_EGONE, "no server runs for %s", options->dir);
	return segue_cli_fail();
}

/* Without a server, too: what reads it must see that. */
static int print_openmetrics(const struct segue_cli_options *options)
{
	struct segue_look look;
	char *inspect = NULL;

	if (options->json || options->stream) {
		fputs("segue status: --openmetrics goes with neither --json nor --stream\n",
			stderr);
		return segue_cli_usage(&segue_cli_status);
	}
	int rc = segue_top_look(options, NULL, &inspect, &look);
	segue_free(inspect);
	if (rc)
		return segue_cli_fail();
	segue_openmetrics_write(&look, stdout);
	bool served = look.served;
	segue_look_finish(&look);
	return served ? SEGUE_CLI_FINE : no_server(options);
}

static int run_status(const struct segue_cli_options *options)
{
	char *json;

	if (options->openmetrics)
		return print_openmetrics(options);
	int rc = segue_cli_report(options, SEGUE_REPORT_STATUS, &json);
	if (rc)
		return rc == SEGUE_EGONE ? no_server(options) : segue_cli_fail();
	return segue_cli_show(options, json, print_report);
}

const struct segue_cli_command segue_cli_status = {
	.name = "status",
	.operands = "DIR",
	.summary = "show the running server of a directory",
	.help = "Of each lane (of each GROUP, where one has a name): the state of its LEASE and\n"
		"the process that has it (HOLDER), the rows of its next batches (BATCH), the\n"
		"steps committed (STEP) and on disk (DURABLE), how many batches are filled ahead\n"
		"of the worker (AHEAD) of how many there is room for (DEPTH), how many committed\n"
		"batches it has not released yet (HELD), its shared memory (RING), whether its\n"
		"last batch is filled (ENDED), and how much of what was filled since the lane was\n"
		"taken is padding (PAD). Where there are replicas, those that follow who has a\n"
		"lane: how many batches each is done with (STEP), and behind (LAG). Of a stream\n"
		"whose sequences are inserted: who inserts, how many of each name were INSERTED,\n"
		"up to which they are acknowledged (SAFE), whether inserts wait; and of each lane\n"
		"how many sequences it has not finished (BEHIND).\n\n"
		"With --openmetrics the figures of 'segue top' as text that Prometheus reads;\n"
		"where no server runs that is segue_up 0.\n\n"
		"Exit status: 0 a server answered, 1 none runs or it could not be asked,\n"
		"2 wrong usage.\n",
	.takes = SEGUE_CLI_JSON | SEGUE_CLI_STREAM | SEGUE_CLI_SOCKET | SEGUE_CLI_OPENMETRICS,
	.operands_min = 1,
	.operands_max = 1,
	.run = run_status,
};
