/* segue get: the states that are kept under one key. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "cli/ask.h"
#include "cli/print.h"
#include "core/error.h"

enum { VALUES_SHOWN = 16 };

static void print_state(const char *name, struct json_object *state)
{
	struct json_object *values = json_object_object_get(state, "values");
	char *shown = segue_cli_printable(name, strlen(name));
	size_t count = segue_json_count(values);

	printf("  ");
	segue_cli_print_field(shown, state);
	free(shown);
	printf(" =");
	for (size_t i = 0; i < count && i < VALUES_SHOWN; i++)
		printf(" %s", segue_cli_text(segue_json_at(values, i)));
	if (count > VALUES_SHOWN)
		printf(" ... (%zu values in all, --json prints them)", count);
	putchar('\n');
}

static void print_hit(struct json_object *hit)
{
	struct json_object *states = json_object_object_get(hit, "states");

	printf("stream %s, ", segue_cli_member(hit, "stream"));
	if (json_object_object_get(hit, "group_name"))
		printf("group %s, ", segue_cli_member(hit, "group_name"));
	printf("%s: lane %s, sequence %s", segue_cli_member(hit, "kind"),
		segue_cli_member(hit, "lane"), segue_cli_member(hit, "number"));
	if (json_object_object_get(hit, "step"))
		printf(", step %s", segue_cli_member(hit, "step"));
	putchar('\n');
	if (json_object_is_type(states, json_type_object)) {
		json_object_object_foreach(states, name, state) print_state(name, state);
	}
}

static void print_report(const struct segue_cli_options *options, struct json_object *report)
{
	struct json_object *found = json_object_object_get(report, "found");

	(void)options;
	for (size_t i = 0; i < segue_json_count(found); i++)
		print_hit(segue_json_at(found, i));
}

static int run_get(const struct segue_cli_options *options)
{
	char *json;

	if (!*options->key) {
		segue_fail(SEGUE_EINVAL, "KEY is empty");
		return segue_cli_fail();
	}
	if (segue_cli_report(options, SEGUE_REPORT_GET, &json))
		return segue_cli_fail();
	return segue_cli_show(options, json, print_report);
}

const struct segue_cli_command segue_cli_get = {
	.name = "get",
	.operands = "DIR KEY",
	.summary = "show the states kept under a key",
	.help = "KEY is the key of a record, such as data.tfrecord:4096 (not that of a\n"
		"segment); 'segue inspect --stream NAME' shows the keys of the rows. Found\n"
		"are the states of sequences that go on (live), as they are on disk, and, in\n"
		"streams with keep_final, those of sequences that have ended (final) or, if\n"
		"they are newer, that were put there (put). From the step of the lane on that is\n"
		"printed they are there. A record that is in use in several epochs, streams or\n"
		"groups is found several times.\n"
		"Works with and without a running server. 'segue get DIR -- KEY' takes a KEY that\n"
		"begins with '-'.\n\n"
		"Exit status: 0 found, 1 not found, or the store cannot be read, 2 wrong usage.\n",
	.takes = SEGUE_CLI_JSON | SEGUE_CLI_STREAM | SEGUE_CLI_SOCKET,
	.operands_min = 2,
	.operands_max = 2,
	.run = run_get,
};
