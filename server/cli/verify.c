/* segue verify: every value of a store read and checked. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "core/error.h"
#include "core/utf8.h"
#include "store/store.h"

/* Faults that are listed; all are counted. */
enum { FAULTS_LISTED = 1000 };

/* ---- In a process of its own, which a damaged file may kill ---- */

struct faults {
	struct segue_json json;
	size_t count;
};

/* A key as text if it is one, else in hexadecimal; null for a whole table. */
static void put_key(struct segue_json *json, const uint8_t *key, size_t size)
{
	char text[2 * SEGUE_STORE_KEY_MAX + 3] = "0x";
	bool printable = segue_utf8_valid((const char *)key, size);

	for (size_t i = 0; i < size && i < SEGUE_STORE_KEY_MAX; i++) {
		printable = printable && key[i] > ' ' && key[i] != 0x7f;
		sprintf(text + 2 + 2 * i, "%02x", key[i]);
	}
	if (!key)
		segue_json_null(json, "key");
	else if (printable && size)
		segue_json_bytes(json, "key", key, size);
	else
		segue_json_string(json, "key", text);
}

/* The report gives the advice once, after all that is wrong. */
static void put_why(struct segue_json *json, const char *why)
{
	const char *advice = strstr(why, SEGUE_STORE_ADVICE);

	if (advice)
		segue_json_bytes(json, "why", why, (size_t)(advice - why));
	else
		segue_json_string(json, "why", why);
}

static void note_fault(
	void *arg, enum segue_table table, const void *key, size_t key_size, const char *why)
{
	struct faults *faults = arg;

	if (faults->count++ >= FAULTS_LISTED)
		return;
	segue_json_begin(&faults->json, NULL, '{');
	if (table > 0 && table < SEGUE_TABLE_COUNT)
		segue_json_string(&faults->json, "table", segue_table_name(table));
	else
		segue_json_null(&faults->json, "table");
	put_key(&faults->json, key, key_size);
	put_why(&faults->json, why);
	segue_json_end(&faults->json, '}');
}

static void put_counts(struct segue_json *json, uint64_t values, uint64_t bytes, uint64_t damaged)
{
	segue_json_unsigned(json, "values", values);
	segue_json_unsigned(json, "bytes", bytes);
	segue_json_unsigned(json, "damaged_count", damaged);
	segue_json_end(json, '}');
}

/* 0 or SEGUE_ESTORE with a report; any other code without one. */
static int verify_here(void *arg, char **out)
{
	const struct segue_cli_options *options = arg;
	struct segue_store_verified verified = {0};
	struct faults faults = {0};
	const struct segue_store_inspection inspection = {
		.damage = note_fault,
		.progress = segue_cli_progress,
		.arg = &faults,
		.if_due = options->if_due,
	};

	segue_json_begin(&faults.json, NULL, '{');
	segue_json_begin(&faults.json, "damaged", '[');
	int rc = segue_store_inspect(options->dir, &inspection, &verified);
	if (rc && rc != SEGUE_ESTORE) {
		segue_json_finish(&faults.json);
		return rc;
	}
	/* So damaged that it could not be opened. */
	if (rc && faults.count == 0)
		note_fault(&faults, 0, NULL, 0, segue_error_detail());
	segue_json_end(&faults.json, ']');
	segue_json_bool(&faults.json, "due", verified.due || rc);
	put_counts(&faults.json, verified.values, verified.bytes, faults.count);
	int taken = segue_json_take(&faults.json, out);
	return taken ? taken : rc;
}

/* The child ended without a report: that is one. */
static int report_death(char **out)
{
	struct segue_json json = {0};

	segue_json_begin(&json, NULL, '{');
	segue_json_begin(&json, "damaged", '[');
	segue_json_begin(&json, NULL, '{');
	segue_json_null(&json, "table");
	segue_json_null(&json, "key");
	segue_json_string(&json, "why", segue_error_detail());
	segue_json_end(&json, '}');
	segue_json_end(&json, ']');
	segue_json_bool(&json, "due", true);
	put_counts(&json, 0, 0, 1);
	return segue_json_take(&json, out);
}

/* ---- Printing ---- */

static void print_report(
	const struct segue_cli_options *options, const struct segue_json_value *report)
{
	static const char *const headers[] = {"TABLE", "KEY", "WHY"};
	const struct segue_json_value *damaged = segue_json_get(report, "damaged");
	uint64_t count = segue_json_get_unsigned(report, "damaged_count");
	struct segue_cli_table table;
	char bytes[32];

	if (options->if_due && !segue_json_get_bool(report, "due")) {
		printf("%s: no verification is due\n", options->dir);
		return;
	}
	printf("%s: %s values are sound (%s)", options->dir, segue_json_get_text(report, "values"),
		segue_cli_bytes(segue_json_get_unsigned(report, "bytes"), bytes));
	if (count == 0) {
		printf(", none is damaged\n");
		return;
	}
	printf(", %llu %s DAMAGED\n", (unsigned long long)count, count == 1 ? "is" : "are");
	segue_cli_table_init(&table, 3, headers);
	for (const struct segue_json_value *fault = damaged ? damaged->first : NULL; fault;
		fault = fault->next) {
		segue_cli_table_value(&table, fault, "table");
		segue_cli_table_value(&table, fault, "key");
		segue_cli_table_value(&table, fault, "why");
	}
	segue_cli_table_print(&table, 2);
	if (damaged && count > damaged->count)
		printf("  ... and %llu more\n", (unsigned long long)(count - damaged->count));
	printf("The file is kept as it is: restore a backup, or move DIR/store away and begin "
	       "anew.\n");
}

static int run_verify(const struct segue_cli_options *options)
{
	char *report = NULL;
	const struct segue_cli_task task = {
		.what = "verifying the store",
		.run = verify_here,
		.arg = (void *)(uintptr_t)options,
		.lines = options->progress,
	};

	int rc = segue_cli_child(&task, &report);
	bool damaged = rc == SEGUE_ESTORE;
	if (damaged && !report)
		rc = report_death(&report);
	if (rc && !(damaged && report))
		return segue_cli_fail();
	int status = segue_cli_show(options, report, print_report);
	return status == SEGUE_CLI_FINE && damaged ? SEGUE_CLI_DAMAGED : status;
}

const struct segue_cli_command segue_cli_verify = {
	.name = "verify",
	.operands = "DIR",
	.summary = "read and check every value of a store",
	.help = "Checks each value's checksum, that each is found under its key, and that none is\n"
		"missing or left over from an earlier time. Reads the store itself, in a process\n"
		"of its own, and may run beside a server: it takes no lock and changes nothing.\n"
		"The first 1000 faults are listed.\n\n"
		"With --if-due nothing is read if the last server ended in order, or was killed\n"
		"since this machine started: what a server asks before it serves.\n\n"
		"Exit status: 0 sound, 3 damaged, 1 no store, or it cannot be read, 2 wrong\n"
		"usage.\n",
	.takes = SEGUE_CLI_JSON | SEGUE_CLI_IF_DUE | SEGUE_CLI_PROGRESS,
	.operands_min = 1,
	.operands_max = 1,
	.run = run_verify,
};
