/* VERIFY: every value of a store read and checked, in a process of its own. */
#include "report/verifier.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "core/error.h"
#include "core/utf8.h"
#include "engine/live_dir.h"
#include "report/json.h"
#include "store/logs.h"

/* Faults that are listed; all are counted. */
enum { FAULTS_LISTED = 1000 };

struct faults {
	struct segue_json json;
	size_t count;
	uint32_t *log; /* streams of which the store knows a log */
	size_t logs;
};

/* ---- The report ---- */

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
	segue_json_string(&faults->json, "why", why);
	segue_json_end(&faults->json, '}');
}

static void begin_report(struct faults *faults)
{
	segue_json_begin(&faults->json, NULL, '{');
	segue_json_begin(&faults->json, "damaged", '[');
}

static int end_report(
	struct faults *faults, bool due, const struct segue_store_verified *verified, char **report)
{
	struct segue_json *json = &faults->json;

	segue_json_end(json, ']');
	segue_json_bool(json, "due", due);
	segue_json_unsigned(json, "values", verified->values);
	segue_json_unsigned(json, "bytes", verified->bytes);
	segue_json_unsigned(json, "damaged_count", faults->count);
	segue_json_end(json, '}');
	return segue_json_take(json, report);
}

/* ---- In the child ---- */

static int note_log(void *arg, enum segue_table table, const void *key, size_t key_size,
	const void *value, size_t value_size)
{
	struct faults *faults = arg;
	uint32_t stream;

	(void)value, (void)value_size;
	if (!segue_logs_is_known(table, key, key_size, &stream))
		return 0;
	void *grown = reallocarray(faults->log, faults->logs + 1, sizeof(*faults->log));
	if (!grown)
		return segue_fail(SEGUE_ENOMEM, "no memory for a report");
	faults->log = grown;
	faults->log[faults->logs++] = stream;
	return 0;
}

/* What lies in a log is checked when it is opened, and by a backup. */
static int look_for_logs(const char *dir, struct faults *faults)
{
	uint64_t files, bytes;
	char key[32], why[PATH_MAX + 64];
	int rc = 0;

	for (size_t i = 0; i < faults->logs; i++) {
		if (segue_live_measure(dir, faults->log[i], &files, &bytes) != SEGUE_ENOTFOUND)
			continue;
		snprintf(key, sizeof(key), "log.%08" PRIx32 ".known", faults->log[i]);
		snprintf(why, sizeof(why), "the log is missing: %s", segue_error_detail());
		note_fault(faults, SEGUE_TABLE_META, key, strlen(key), why);
		rc = SEGUE_ESTORE;
	}
	return rc;
}

int segue_verifier_work(char **arguments, char **report)
{
	struct segue_store_verified verified = {0};
	struct faults faults = {0};
	const struct segue_store_inspection inspection = {
		.damage = note_fault,
		.visit = note_log,
		.progress = segue_child_progress,
		.arg = &faults,
		.if_due = arguments[1] != NULL,
	};

	begin_report(&faults);
	int rc = segue_store_inspect(arguments[0], &inspection, &verified);
	/* A server begins without: only the stream that reads it cannot be opened. */
	if (!rc && !inspection.if_due)
		rc = look_for_logs(arguments[0], &faults);
	free(faults.log);
	if (rc && rc != SEGUE_ESTORE) {
		segue_json_finish(&faults.json);
		return rc;
	}
	/* So damaged that it could not be opened. */
	if (rc && faults.count == 0)
		note_fault(&faults, 0, NULL, 0, segue_error_detail());
	int taken = end_report(&faults, verified.due || rc, &verified, report);
	return taken ? taken : rc;
}

/* ---- In the process that waits for it ---- */

/* The child ended without a report: that is one. */
static int report_death(char **report)
{
	const struct segue_store_verified nothing = {0};
	struct faults faults = {0};

	begin_report(&faults);
	note_fault(&faults, 0, NULL, 0, segue_error_detail());
	return end_report(&faults, true, &nothing, report);
}

/* Where a fault is: in front of what is wrong there. */
static void describe_place(struct json_object *fault, char where[256])
{
	const char *table = segue_json_get_text(fault, "table");

	if (json_object_object_get(fault, "key"))
		snprintf(where, 256, "key %s in table %s: ", segue_json_get_text(fault, "key"),
			table);
	else
		snprintf(where, 256, *table ? "table %s: " : "%s", table);
}

/* With the first of the places that the report lists. */
static int fail_damaged(const char *dir, const char *json)
{
	struct json_object *report = NULL;
	char where[256], damaged[PATH_MAX + 32];

	int rc = segue_json_parse(json, &report);
	if (rc)
		return rc;
	struct json_object *fault = segue_json_at(json_object_object_get(report, "damaged"), 0);
	const char *why = segue_json_get_text(fault, "why");
	uint64_t count = segue_json_get_unsigned(report, "damaged_count");
	describe_place(fault, where);
	int size = snprintf(damaged, sizeof(damaged), "%s/store/data.mdb is damaged", dir);
	if (count > 1)
		rc = segue_fail(SEGUE_ESTORE,
			"%s/store/data.mdb is damaged (%" PRIu64 " faults, the first: %s%s)", dir,
			count, where, why);
	else if (strncmp(why, damaged, (size_t)size) == 0) /* it says that already */
		rc = segue_fail(SEGUE_ESTORE, "%s", why);
	else
		rc = segue_fail(
			SEGUE_ESTORE, "%s/store/data.mdb is damaged: %s%s", dir, where, why);
	json_object_put(report);
	return rc;
}

int segue_verifier_run(const char *dir, const struct segue_verifier *how, char **report)
{
	const char *const arguments[] = {"verify", dir, how->if_due ? "if due" : NULL, NULL};
	const struct segue_child child = {.arguments = arguments,
		.what = "verifying the store",
		.progress = how->progress,
		.interrupt = how->interrupt,
		.arg = how->arg};

	int rc = segue_child_run(&child, report);
	if (rc == SEGUE_ESTORE && !*report && (rc = report_death(report)) == 0)
		rc = SEGUE_ESTORE;
	return rc == SEGUE_ESTORE ? fail_damaged(dir, *report) : rc;
}
