/* segue verify: every value of a store read and checked. */
#include <inttypes.h>
#include <stdio.h>

#include <json-c/json.h>

#include "cli/print.h"
#include "core/error.h"
#include "report/verifier.h"

static void print_report(const struct segue_cli_options *options, struct json_object *report)
{
	static const struct segue_cli_column columns[] = {
		{"TABLE", "table"}, {"KEY", "key"}, {"WHY", "why"}};
	struct json_object *damaged = json_object_object_get(report, "damaged");
	uint64_t count = segue_json_get_unsigned(report, "damaged_count");
	struct segue_cli_table table;
	char bytes[32];

	if (options->if_due && !segue_json_get_bool(report, "due")) {
		printf("%s: no verification is due\n", options->dir);
		return;
	}
	printf("%s: %s values are sound (%s)", options->dir, segue_cli_member(report, "values"),
		segue_cli_bytes(segue_json_get_unsigned(report, "bytes"), bytes));
	if (count == 0) {
		printf(", none is damaged\n");
		return;
	}
	printf(", %" PRIu64 " %s DAMAGED\n", count, count == 1 ? "is" : "are");
	segue_cli_table_init(&table, columns, 3);
	for (size_t i = 0; i < segue_json_count(damaged); i++)
		segue_cli_table_row(&table, segue_json_at(damaged, i), NULL);
	segue_cli_table_print(&table, 2);
	if (count > segue_json_count(damaged))
		printf("  ... and %" PRIu64 " more\n", count - segue_json_count(damaged));
	printf("The file is kept as it is: restore a backup, or move DIR/store away and begin "
	       "anew.\n");
}

static int run_verify(const struct segue_cli_options *options)
{
	struct segue_cli_progress progress = {.lines = options->progress};
	const struct segue_verifier how = {
		.if_due = options->if_due, .progress = segue_cli_show_progress, .arg = &progress};
	char *report;

	int rc = segue_verifier_run(options->dir, &how, &report);
	segue_cli_end_progress(&progress);
	if (rc && rc != SEGUE_ESTORE)
		return segue_cli_fail();
	int status = segue_cli_show(options, report, print_report);
	return status == SEGUE_CLI_FINE && rc ? SEGUE_CLI_DAMAGED : status;
}

const struct segue_cli_command segue_cli_verify = {
	.name = "verify",
	.operands = "DIR",
	.summary = "read and check every value of a store",
	.help = "Checks each value's checksum, that each is found under its key, and that none\n"
		"is missing or left over from an earlier time. Reads the store itself, in a\n"
		"process of its own, and may run beside a server: it takes no lock and changes\n"
		"nothing. The first 1000 faults are listed.\n\n"
		"With --if-due it reads nothing, unless the machine stopped while a server had\n"
		"the store, or a write failed: this is what a server does before it serves.\n\n"
		"Exit status: 0 sound, 3 damaged, 1 no store, or it cannot be read, 2 wrong\n"
		"usage.\n",
	.takes = SEGUE_CLI_JSON | SEGUE_CLI_IF_DUE | SEGUE_CLI_PROGRESS,
	.operands_min = 1,
	.operands_max = 1,
	.run = run_verify,
};
