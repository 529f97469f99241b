/* segue inspect: what the store of a directory holds. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "core/error.h"

static void print_shape(const struct segue_json_value *field)
{
	const struct segue_json_value *shape = segue_json_get(field, "shape");

	putchar('[');
	for (const struct segue_json_value *dim = shape ? shape->first : NULL; dim; dim = dim->next)
		printf("%s%s", dim->text, dim->next ? ", " : "");
	putchar(']');
}

static void print_fields(const struct segue_json_value *spec, const char *name, const char *heading)
{
	const struct segue_json_value *fields = segue_json_get(spec, name);

	if (!fields || fields->count == 0)
		return;
	printf("  %-10s ", heading);
	for (const struct segue_json_value *field = fields->first; field; field = field->next) {
		char *text = segue_cli_text(field, "name");
		printf("%s %s", text, segue_json_get_text(field, "dtype"));
		print_shape(field);
		fputs(field->next ? ", " : "\n", stdout);
		free(text);
	}
}

static void print_paths(const struct segue_json_value *spec)
{
	const struct segue_json_value *source = segue_json_get(spec, "source");
	const struct segue_json_value *paths = source ? segue_json_get(source, "paths") : NULL;
	const struct segue_json_value *first = paths ? paths->first : NULL;
	char *text = segue_cli_printable(first ? first->text : "", first ? first->size : 0);

	printf("  data       %s", text);
	if (paths && paths->count > 1)
		printf(" and %zu more", paths->count - 1);
	putchar('\n');
	free(text);
}

static void print_spec(const struct segue_json_value *spec)
{
	const struct segue_json_value *epochs = segue_json_get(spec, "epochs");
	bool endless = !epochs || epochs->type == SEGUE_JSON_NULL;

	print_paths(spec);
	print_fields(spec, "sequences", "sequences");
	print_fields(spec, "contexts", "contexts");
	print_fields(spec, "states", "states");
	printf("  batches    %s rows x %s steps, lanes %s, shuffle %s, seed %s, epochs %s\n",
		segue_json_get_text(spec, "batch_size"), segue_json_get_text(spec, "num_unroll"),
		segue_json_get_text(spec, "lanes"),
		segue_json_get_bool(spec, "shuffle") ? "yes" : "no",
		segue_json_get_text(spec, "seed"), endless ? "endless" : epochs->text);
	printf("  rules      tail %s, epoch_end %s, on_error %s, pad %s, keep_final %s, "
	       "durability %s\n",
		segue_json_get_text(spec, "tail"), segue_json_get_text(spec, "epoch_end"),
		segue_json_get_text(spec, "on_error"),
		segue_json_get_bool(spec, "pad") ? "yes" : "no",
		segue_json_get_bool(spec, "keep_final") ? "yes" : "no",
		segue_json_get_text(spec, "durability"));
}

static void print_lanes(const struct segue_json_value *lanes)
{
	static const char *const headers[] = {"LANE", "GROUP", "STEP", "EPOCH", "ROWS", "COMMITTED",
		"GENERATION", "HELD", "HOLDER"};
	struct segue_cli_table table;

	segue_cli_table_init(&table, sizeof(headers) / sizeof(headers[0]), headers);
	for (const struct segue_json_value *lane = lanes->first; lane; lane = lane->next) {
		const struct segue_json_value *rows = segue_json_get(lane, "rows");
		segue_cli_table_value(&table, lane, "lane");
		segue_cli_table_value(&table, lane, "group");
		segue_cli_table_value(&table, lane, "step");
		segue_cli_table_value(&table, lane, "epoch");
		segue_cli_table_add(&table, "%zu", rows ? rows->count : 0);
		segue_cli_table_value(&table, lane, "committed");
		segue_cli_table_value(&table, lane, "generation");
		segue_cli_table_value(&table, lane, "held");
		/* The report keeps the last holder. */
		segue_cli_table_value(
			&table, segue_json_get_bool(lane, "held") ? lane : NULL, "holder_pid");
	}
	segue_cli_table_print(&table, 2);
}

/* Row by row only where one stream is asked for: there may be many. */
static void print_rows(const struct segue_json_value *lanes)
{
	static const char *const headers[] = {
		"LANE", "GROUP", "ROW", "SEQUENCE", "SEGMENT", "OF", "KEY"};
	struct segue_cli_table table;

	segue_cli_table_init(&table, sizeof(headers) / sizeof(headers[0]), headers);
	for (const struct segue_json_value *lane = lanes->first; lane; lane = lane->next) {
		const struct segue_json_value *rows = segue_json_get(lane, "rows");
		for (const struct segue_json_value *row = rows ? rows->first : NULL; row;
			row = row->next) {
			segue_cli_table_value(&table, lane, "lane");
			segue_cli_table_value(&table, lane, "group");
			segue_cli_table_value(&table, row, "row");
			segue_cli_table_value(&table, row, "number");
			segue_cli_table_value(&table, row, "segment");
			segue_cli_table_value(&table, row, "segments");
			segue_cli_table_value(&table, row, "key");
		}
	}
	segue_cli_table_print(&table, 2);
}

static void print_checkpoints(const struct segue_json_value *lanes)
{
	static const char *const headers[] = {"LANE", "CHECKPOINT", "STEP", "CREATED", "SIZE"};
	struct segue_cli_table table;
	char size[32];

	segue_cli_table_init(&table, sizeof(headers) / sizeof(headers[0]), headers);
	for (const struct segue_json_value *lane = lanes->first; lane; lane = lane->next) {
		const struct segue_json_value *stored = segue_json_get(lane, "checkpoints");
		for (const struct segue_json_value *one = stored ? stored->first : NULL; one;
			one = one->next) {
			segue_cli_table_value(&table, lane, "lane");
			segue_cli_table_value(&table, one, "id");
			segue_cli_table_value(&table, one, "step");
			segue_cli_table_value(&table, one, "created");
			segue_cli_table_add(&table, "%s",
				segue_cli_bytes(segue_json_get_unsigned(one, "bytes"), size));
		}
	}
	segue_cli_table_print(&table, 2);
}

static void print_stream(const struct segue_json_value *stream, bool rows)
{
	const struct segue_json_value *lanes = segue_json_get(stream, "lanes");
	char *text = segue_cli_text(stream, "name");

	printf("stream %s (id %s), made %s, data set %s\n", text, segue_json_get_text(stream, "id"),
		segue_json_get_text(stream, "created"), segue_json_get_text(stream, "fingerprint"));
	free(text);
	print_spec(segue_json_get(stream, "spec"));
	if (!lanes || lanes->count == 0) {
		printf("  no lane was used yet\n");
		return;
	}
	print_lanes(lanes);
	print_checkpoints(lanes);
	if (rows)
		print_rows(lanes);
}

static void print_report(
	const struct segue_cli_options *options, const struct segue_json_value *report)
{
	const struct segue_json_value *streams = segue_json_get(report, "streams");

	if (!streams || streams->count == 0)
		printf("the store has no stream\n");
	for (const struct segue_json_value *stream = streams ? streams->first : NULL; stream;
		stream = stream->next) {
		print_stream(stream, options->stream != NULL);
		if (stream->next)
			putchar('\n');
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
	.summary = "show what the store of a directory holds",
	.help = "Of each stream its spec; of each lane the step and epoch that are on disk, when\n"
		"they were committed, and whether a process has the lane; and the checkpoints\n"
		"that the store holds. With --stream also the rows: the sequences that go on, and\n"
		"the last segment committed of each. Works with and without a running server.\n\n"
		"Exit status: 0 fine, 1 no store, no such stream, or it cannot be read, 2 wrong\n"
		"usage.\n",
	.takes = SEGUE_CLI_JSON | SEGUE_CLI_STREAM | SEGUE_CLI_SOCKET,
	.operands_min = 1,
	.operands_max = 1,
	.run = run_inspect,
};
