/* segue get: the states that are kept under one key. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "core/error.h"

enum { VALUES_SHOWN = 16 };

static void print_state(const struct segue_json_value *state)
{
	const struct segue_json_value *shape = segue_json_get(state, "shape");
	const struct segue_json_value *values = segue_json_get(state, "values");
	char *name = segue_cli_printable(state->name, strlen(state->name));
	size_t shown = 0;

	printf("  %s %s[", name, segue_json_get_text(state, "dtype"));
	free(name);
	for (const struct segue_json_value *dim = shape ? shape->first : NULL; dim; dim = dim->next)
		printf("%s%s", dim->text, dim->next ? ", " : "");
	printf("] =");
	for (const struct segue_json_value *value = values ? values->first : NULL;
		value && shown < VALUES_SHOWN; value = value->next, shown++)
		printf(" %s", value->text);
	if (values && values->count > shown)
		printf(" ... (%zu values in all, --json prints them)", values->count);
	putchar('\n');
}

static void print_hit(const struct segue_json_value *hit)
{
	const struct segue_json_value *states = segue_json_get(hit, "states");
	char *text = segue_cli_text(hit, "stream");

	printf("stream %s, group %s, ", text, segue_json_get_text(hit, "group"));
	free(text);
	printf("%s: lane %s, sequence %s\n", segue_json_get_text(hit, "kind"),
		segue_json_get_text(hit, "lane"), segue_json_get_text(hit, "number"));
	for (const struct segue_json_value *state = states ? states->first : NULL; state;
		state = state->next)
		print_state(state);
}

static void print_report(
	const struct segue_cli_options *options, const struct segue_json_value *report)
{
	const struct segue_json_value *found = segue_json_get(report, "found");

	(void)options;
	for (const struct segue_json_value *hit = found ? found->first : NULL; hit; hit = hit->next)
		print_hit(hit);
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
	.help = "KEY is the key of a record, such as data.tfrecord:4096 (not that of a segment).\n"
		"Found are the states of sequences that go on (live), as they are on disk, and,\n"
		"in streams with keep_final, those of sequences that have ended (final). A record\n"
		"that is in use in several epochs, streams or groups is found several times.\n"
		"Works with and without a running server. 'segue get DIR -- KEY' takes a KEY that\n"
		"begins with '-'.\n\n"
		"Exit status: 0 found, 1 not found, or the store cannot be read, 2 wrong usage.\n",
	.takes = SEGUE_CLI_JSON | SEGUE_CLI_STREAM | SEGUE_CLI_SOCKET,
	.operands_min = 2,
	.operands_max = 2,
	.run = run_get,
};
