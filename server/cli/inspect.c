/* segue inspect: what the store of a directory holds. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <json-c/json.h>

#include "cli/ask.h"
#include "cli/print.h"
#include "core/error.h"

static void print_fields(struct json_object *spec, const char *name)
{
	struct json_object *fields = json_object_object_get(spec, name);
	size_t count = segue_json_count(fields);

	for (size_t i = 0; i < count; i++) {
		struct json_object *field = segue_json_at(fields, i);
		if (i == 0)
			printf("  %-10s ", name);
		segue_cli_print_field(segue_cli_member(field, "name"), field);
		fputs(i + 1 < count ? ", " : "\n", stdout);
	}
}

static void print_list(struct json_object *source)
{
	struct json_object *paths = json_object_object_get(source, "paths");
	size_t count = segue_json_count(paths);

	printf("%s", segue_cli_text(segue_json_at(paths, 0)));
	if (count > 1)
		printf(" and %zu more", count - 1);
	putchar('\n');
}

static void print_paths(struct json_object *spec)
{
	struct json_object *source = json_object_object_get(spec, "source");
	struct json_object *parts = json_object_object_get(source, "parts");

	if (strcmp(segue_json_get_text(source, "kind"), "log") == 0) {
		printf("  data       what producers insert\n");
	} else if (!parts) {
		printf("  data       ");
		print_list(source);
	}
	for (size_t i = 0; i < segue_json_count(parts); i++) {
		struct json_object *part = segue_json_at(parts, i);

		printf("  %-10s %s, weight %s: ", i ? "" : "mix of", segue_cli_member(part, "name"),
			segue_cli_member(part, "weight"));
		print_list(part);
	}
}

/* The last end of its input, and the others where it has grown. */
static void print_ends(struct json_object *ends)
{
	size_t count = segue_json_count(ends);

	for (size_t i = count; i-- > 0;) {
		struct json_object *end = segue_json_at(ends, i);

		printf("%s%s",
			i + 1 == count   ? ""
			: i + 2 == count ? ", grown from "
					 : ", ",
			end ? segue_cli_text(end) : "endless");
	}
}

/* Where lengths are grouped. */
static void print_classes(struct json_object *spec)
{
	struct json_object *boundaries = json_object_object_get(spec, "bucket_boundaries");
	size_t count = segue_json_count(boundaries);

	if (count == 0)
		return;
	printf("  classes    bucket_boundaries ");
	for (size_t i = 0; i < count; i++)
		printf("%s%s", i ? ", " : "", segue_cli_text(segue_json_at(boundaries, i)));
	printf("; window %s\n", json_object_object_get(spec, "window")
					? segue_cli_member(spec, "window")
					: "16 batches");
}

static void print_spec(struct json_object *spec, struct json_object *ends)
{
	print_paths(spec);
	print_fields(spec, "sequences");
	print_fields(spec, "contexts");
	print_fields(spec, "states");
	uint64_t unroll = segue_json_get_unsigned(spec, "num_unroll");
	uint64_t most = segue_json_get_unsigned(spec, "maximum_length");
	char steps[32] = "whole sequences";

	if (unroll)
		snprintf(steps, sizeof(steps), "%" PRIu64 " steps", unroll);
	printf("  batches    %s rows x %s, lanes %s, shuffle %s, seed %s, epochs ",
		segue_cli_member(spec, "batch_size"), steps, segue_cli_member(spec, "lanes"),
		segue_cli_yes(spec, "shuffle"), segue_cli_member(spec, "seed"));
	print_ends(ends);
	printf("\n  rules      tail %s, epoch_end %s, on_error %s, pad %s, keep_final %s, "
	       "durability %s\n",
		segue_cli_member(spec, "tail"), segue_cli_member(spec, "epoch_end"),
		segue_cli_member(spec, "on_error"), segue_cli_yes(spec, "pad"),
		segue_cli_yes(spec, "keep_final"), segue_cli_member(spec, "durability"));
	print_classes(spec);
	if (most)
		printf("  lengths    up to %" PRIu64 " steps, on_too_long %s, trim %s\n", most,
			segue_cli_member(spec, "on_too_long"), segue_cli_yes(spec, "trim"));
	else if (segue_json_get_bool(spec, "trim"))
		printf("  lengths    trim yes\n");
}

static void print_log(struct json_object *log)
{
	struct json_object *closed = json_object_object_get(log, "closed");
	char bytes[32];

	if (!log)
		return;
	if (segue_json_get_unsigned(log, "files") == 0)
		printf("  log        MISSING: its files are not there\n");
	else
		printf("  log        files %s, %s\n", segue_cli_member(log, "files"),
			segue_cli_bytes(segue_json_get_unsigned(log, "bytes"), bytes));
	printf("  input      %s sequences are known to be on disk",
		segue_cli_member(log, "synced"));
	if (segue_json_get_unsigned(log, "first") > 0)
		printf(", those below %s are given up", segue_cli_member(log, "first"));
	printf("; it %s\n", segue_json_get_bool(log, "ended") ? "has ended" : "goes on");
	for (size_t i = 0; i < segue_json_count(closed); i++)
		printf("%s%s%s", i ? ", " : "  closed     ",
			segue_cli_text(segue_json_at(closed, i)),
			i + 1 == segue_json_count(closed) ? "\n" : "");
}

static void print_groups(struct json_object *groups)
{
	size_t count = segue_json_count(groups);

	for (size_t i = 0; i < count; i++)
		printf("%s%s%s", i ? ", " : "  groups     ",
			segue_cli_member(segue_json_at(groups, i), "group_name"),
			i + 1 == count ? "\n" : "");
}

static void print_lanes(struct json_object *lanes)
{
	static const struct segue_cli_column columns[] = {{"GROUP", "group_name"}, {"LANE", "lane"},
		{"STEP", "step"}, {"EPOCH", "epoch"}, {"BATCH", "batch_size"}, {"ROWS", "rows"},
		{"PARKED", "parked"}, {"COMMITTED", "committed"}, {"GENERATION", "generation"},
		{"HELD", "held"}, {"HOLDER", "holder_pid"}};
	struct json_object *nobody = segue_cli_need(json_object_new_object());
	struct segue_cli_table table;

	/* The report keeps the last holder. */
	json_object_object_add(nobody, "holder_pid", NULL);
	segue_cli_groups_init(&table, columns, sizeof(columns) / sizeof(columns[0]), lanes);
	for (size_t i = 0; i < segue_json_count(lanes); i++) {
		struct json_object *lane = segue_json_at(lanes, i);
		bool held = segue_json_get_bool(lane, "held");
		segue_cli_table_row(&table, held ? lane : nobody, lane);
	}
	segue_cli_table_print(&table, 2);
	json_object_put(nobody);
}

/* A row for each of what the lanes have under that name. */
static void print_parts(struct json_object *lanes, const char *name,
	const struct segue_cli_column column[], size_t columns)
{
	struct segue_cli_table table;

	segue_cli_groups_init(&table, column, columns, lanes);
	for (size_t i = 0; i < segue_json_count(lanes); i++) {
		struct json_object *lane = segue_json_at(lanes, i);
		struct json_object *parts = json_object_object_get(lane, name);
		for (size_t part = 0; part < segue_json_count(parts); part++)
			segue_cli_table_row(&table, segue_json_at(parts, part), lane);
	}
	segue_cli_table_print(&table, 2);
}

/* `rows`: also row by row, of which there may be many. */
static void print_stream(struct json_object *stream, bool rows)
{
	static const struct segue_cli_column of_checkpoint[] = {{"GROUP", "group_name"},
		{"LANE", "lane"}, {"CHECKPOINT", "id"}, {"STEP", "step"}, {"CREATED", "created"},
		{"SIZE", "bytes", true}};
	static const struct segue_cli_column of_row[] = {{"GROUP", "group_name"}, {"LANE", "lane"},
		{"ROW", "row"}, {"SEQUENCE", "number"}, {"SEGMENT", "segment"}, {"OF", "segments"},
		{"KEY", "key"}};
	struct json_object *lanes = json_object_object_get(stream, "lanes");

	printf("stream %s (id %s), made %s, data set %s\n", segue_cli_member(stream, "name"),
		segue_cli_member(stream, "id"), segue_cli_member(stream, "created"),
		segue_cli_member(stream, "fingerprint"));
	print_spec(json_object_object_get(stream, "spec"), json_object_object_get(stream, "ends"));
	print_log(json_object_object_get(stream, "log"));
	print_groups(json_object_object_get(stream, "groups"));
	if (segue_json_count(lanes) == 0)
		printf("  no lane was used yet\n");
	print_lanes(lanes);
	print_parts(lanes, "checkpoints", of_checkpoint, 6);
	if (rows)
		print_parts(lanes, "rows", of_row, 7);
}

static void print_report(const struct segue_cli_options *options, struct json_object *report)
{
	struct json_object *streams = json_object_object_get(report, "streams");

	if (segue_json_count(streams) == 0)
		printf("the store has no stream\n");
	for (size_t i = 0; i < segue_json_count(streams); i++) {
		if (i)
			putchar('\n');
		print_stream(segue_json_at(streams, i), options->stream != NULL);
	}
}

static int run_inspect(const struct segue_cli_options *options)
{
	char *json;

	if (segue_cli_report(options, SEGUE_REPORT_INSPECT, &json))
		return segue_cli_fail();
	return segue_cli_show(options, json, print_report);
}

const struct segue_cli_command segue_cli_inspect = {
	.name = "inspect",
	.operands = "DIR",
	.summary = "show what a store holds",
	.help = "Of each stream its options and the names of its groups; of each lane (of each\n"
		"GROUP, where one has a name) the step and epoch that are on disk,\n"
		"the rows of its batches from there on (BATCH), the sequences that go on (ROWS)\n"
		"and how many of them wait because a smaller batch size was set (PARKED), when\n"
		"that was committed, and whether a process has the lane (HELD, HOLDER);\n"
		"and the checkpoints that the store holds. With --stream also the rows: the\n"
		"sequences that go on, and the last segment committed of each. Works with and\n"
		"without a running server.\n\n"
		"Exit status: 0 fine, 1 no store, no such stream, or it cannot be read,\n"
		"2 wrong usage.\n",
	.takes = SEGUE_CLI_JSON | SEGUE_CLI_STREAM | SEGUE_CLI_SOCKET,
	.operands_min = 1,
	.operands_max = 1,
	.run = run_inspect,
};
