/* segue status: the running server of a directory, its sessions, streams and lanes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "core/error.h"

static void print_server(const struct segue_json_value *report)
{
	const struct segue_json_value *server = segue_json_get(report, "server");
	const struct segue_json_value *store = segue_json_get(report, "store");
	const char *storage = segue_json_get_text(server, "storage");
	char up[32], memory[32], file[32];

	printf("server   segue %s, pid %s, %s%s\n", segue_json_get_text(server, "version"),
		segue_json_get_text(server, "pid"),
		segue_json_get_bool(server, "embedded") ? "embedded" : "on its own",
		segue_json_get_bool(server, "stopping") ? ", stopping" : "");
	printf("dir      %s\n", segue_json_get_text(server, "dir"));
	printf("socket   %s\n", segue_json_get_text(server, "socket"));
	printf("up       %s, processor time %s s, memory %s\n",
		segue_cli_duration(segue_json_get_unsigned(server, "uptime_s"), up),
		segue_json_get_text(report, "cpu_s"),
		segue_cli_bytes(
			segue_json_get_unsigned(segue_json_get(report, "memory"), "rss_bytes"),
			memory));
	printf("storage  %s%s, %s on disk, %s transactions\n",
		strcmp(storage, "ok") == 0 ? "" : "FAILED: ", storage,
		segue_cli_bytes(segue_json_get_unsigned(store, "file_bytes"), file),
		segue_json_get_text(store, "transactions"));
}

static void print_sessions(const struct segue_json_value *report)
{
	static const char *const headers[] = {"PID", "PROGRAM", "UID"};
	const struct segue_json_value *sessions = segue_json_get(report, "sessions");
	struct segue_cli_table table;

	segue_cli_table_init(&table, 3, headers);
	for (const struct segue_json_value *session = sessions ? sessions->first : NULL; session;
		session = session->next) {
		segue_cli_table_value(&table, session, "pid");
		segue_cli_table_value(&table, session, "program");
		segue_cli_table_value(&table, session, "uid");
	}
	printf("\nsessions: %zu\n", sessions ? sessions->count : 0);
	segue_cli_table_print(&table, 2);
}

static void print_lanes(const struct segue_json_value *lanes)
{
	static const char *const headers[] = {"LANE", "GROUP", "LEASE", "HOLDER", "COMMITTED",
		"DURABLE", "AHEAD", "DEPTH", "HELD", "RING", "ENDED"};
	struct segue_cli_table table;
	char ring[32];

	segue_cli_table_init(&table, sizeof(headers) / sizeof(headers[0]), headers);
	for (const struct segue_json_value *lane = lanes ? lanes->first : NULL; lane;
		lane = lane->next) {
		uint64_t published = segue_json_get_unsigned(lane, "step_published");
		uint64_t committed = segue_json_get_unsigned(lane, "step_committed");
		segue_cli_table_value(&table, lane, "lane");
		segue_cli_table_value(&table, lane, "group");
		segue_cli_table_value(&table, lane, "state");
		segue_cli_table_value(&table, lane, "holder_pid");
		segue_cli_table_value(&table, lane, "step_committed");
		segue_cli_table_value(&table, lane, "step_durable");
		segue_cli_table_add(&table, "%llu",
			(unsigned long long)(published > committed ? published - committed : 0));
		segue_cli_table_value(&table, lane, "depth");
		segue_cli_table_value(&table, lane, "held");
		segue_cli_table_add(&table, "%s",
			segue_cli_bytes(segue_json_get_unsigned(lane, "ring_bytes"), ring));
		segue_cli_table_value(&table, lane, "ended");
	}
	segue_cli_table_print(&table, 2);
}

static void print_stream(const struct segue_json_value *stream)
{
	char *text = segue_cli_text(stream, "name");
	char index[32];

	printf("\nstream %s: ", text);
	free(text);
	if (strcmp(segue_json_get_text(stream, "state"), "open") != 0) {
		printf("opening (its index is built or read)\n");
		return;
	}
	printf("%s records, files %s, index %s, CRC %s, %s skipped; batches of %s x %s steps%s\n",
		segue_json_get_text(stream, "records"), segue_json_get_text(stream, "files"),
		segue_cli_bytes(segue_json_get_unsigned(stream, "index_bytes"), index),
		segue_json_get_text(stream, "crc"), segue_json_get_text(stream, "skipped"),
		segue_json_get_text(stream, "batch_size"),
		segue_json_get_text(stream, "num_unroll"),
		segue_json_get_bool(stream, "persist") ? "" : "; not stored");
	print_lanes(segue_json_get(stream, "lanes"));
}

static void print_report(
	const struct segue_cli_options *options, const struct segue_json_value *report)
{
	const struct segue_json_value *streams = segue_json_get(report, "streams");

	(void)options;
	print_server(report);
	print_sessions(report);
	if (!streams || streams->count == 0)
		printf("\nno stream is open\n");
	for (const struct segue_json_value *stream = streams ? streams->first : NULL; stream;
		stream = stream->next)
		print_stream(stream);
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
		segue_fail(
			SEGUE_EGONE, "no server answers, and another process has %s", options->dir);
	else
		segue_fail(SEGUE_EGONE, "no server runs for %s", options->dir);
	return segue_cli_fail();
}

static int run_status(const struct segue_cli_options *options)
{
	char *json;

	int rc = segue_cli_report(options, SEGUE_REPORT_STATUS, &json);
	if (rc)
		return rc == SEGUE_EGONE ? no_server(options) : segue_cli_fail();
	return segue_cli_show(options, json, print_report);
}

const struct segue_cli_command segue_cli_status = {
	.name = "status",
	.operands = "DIR",
	.summary = "show the running server of a directory",
	.help = "Of each lane: who has it, the steps committed and on disk, how many batches are\n"
		"filled ahead of the worker (AHEAD) of how many there is room for (DEPTH), and\n"
		"how many committed batches it has not released yet (HELD).\n\n"
		"Exit status: 0 a server answered, 1 none runs or it could not be asked, 2 wrong\n"
		"usage.\n",
	.takes = SEGUE_CLI_JSON | SEGUE_CLI_STREAM | SEGUE_CLI_SOCKET,
	.operands_min = 1,
	.operands_max = 1,
	.run = run_status,
};
