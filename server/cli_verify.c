/* segue verify: every value of a store read and checked. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli.h"
#include "error.h"
#include "store.h"
#include "utf8.h"

/* Faults that are listed; all are counted. */
enum { FAULTS_LISTED = 1000, PROGRESS_MS = 1000 };

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

static void put_counts(struct segue_json *json, uint64_t values, uint64_t bytes, uint64_t damaged)
{
	segue_json_unsigned(json, "values", values);
	segue_json_unsigned(json, "bytes", bytes);
	segue_json_unsigned(json, "damaged_count", damaged);
	segue_json_end(json, '}');
}

/* 0 or SEGUE_ESTORE with a text; any other code without one. */
static int verify_here(const char *dir, char **out)
{
	struct segue_store_verified verified = {0};
	struct faults faults = {0};

	segue_json_begin(&faults.json, NULL, '{');
	segue_json_begin(&faults.json, "damaged", '[');
	int rc = segue_store_verify(dir, note_fault, &faults, &verified);
	if (rc && rc != SEGUE_ESTORE) {
		segue_json_finish(&faults.json);
		return rc;
	}
	/* So damaged that it could not be opened. */
	if (rc && faults.count == 0)
		note_fault(&faults, 0, NULL, 0, segue_error_detail());
	segue_json_end(&faults.json, ']');
	put_counts(&faults.json, verified.values, verified.bytes, faults.count);
	int taken = segue_json_take(&faults.json, out);
	return taken ? taken : rc;
}

/* What the child tells: its code, then the text of the report or of the failure. */
struct verdict {
	int code;
	char *text;
	size_t size;
};

static void write_all(int fd, const void *bytes, size_t size)
{
	const char *at = bytes;

	while (size > 0) {
		ssize_t written = write(fd, at, size);
		if (written < 0 && errno != EINTR)
			_exit(SEGUE_CLI_WRONG);
		at += written > 0 ? written : 0;
		size -= written > 0 ? (size_t)written : 0;
	}
}

static _Noreturn void run_child(const char *dir, int out)
{
	const struct rlimit no_core = {0, 0};
	char *text = NULL;

	setrlimit(RLIMIT_CORE, &no_core); /* it would have the map in it */
	int code = verify_here(dir, &text);
	const char *told = text ? text : segue_error_detail();
	write_all(out, &code, sizeof(code));
	write_all(out, told, strlen(told));
	_exit(SEGUE_CLI_FINE);
}

/* ---- In the process that waits for it ---- */

static void show_progress(const char *dir, uint64_t seconds)
{
	char *path = NULL, size[32], time[32];
	struct stat info = {0};

	if (asprintf(&path, "%s/store/data.mdb", dir) >= 0 && stat(path, &info) == 0)
		fprintf(stderr, "\rverifying %s, %s ...  ",
			segue_cli_bytes((uint64_t)info.st_size, size),
			segue_cli_duration(seconds, time));
	free(path);
}

/* Reads until the child has closed its end. */
static int listen_to(int fd, const char *dir, struct verdict *verdict)
{
	bool show = isatty(STDERR_FILENO) == 1;
	uint64_t seconds = 0;

	for (;;) {
		struct pollfd entry = {.fd = fd, .events = POLLIN};
		int ready = poll(&entry, 1, show ? PROGRESS_MS : -1);
		if (ready == 0)
			show_progress(dir, ++seconds);
		if (ready <= 0)
			continue;
		char *grown = realloc(verdict->text, verdict->size + 65537);
		if (!grown)
			return segue_fail(SEGUE_ENOMEM, "no memory for the report");
		verdict->text = grown;
		ssize_t got = read(fd, grown + verdict->size, 65536);
		if (got > 0)
			verdict->size += (size_t)got;
		else if (got == 0 || errno != EINTR)
			break;
	}
	if (seconds)
		fputs("\r\x1b[K", stderr);
	verdict->text[verdict->size] = '\0';
	return 0;
}

/* A process that ended without a verdict: that is one. */
static int judge_death(int status, struct verdict *verdict)
{
	struct segue_json json = {0};
	char why[160];

	if (WIFSIGNALED(status))
		snprintf(why, sizeof(why),
			"reading the file killed the process that verified it (signal %d, %s): it "
			"is cut short or damaged",
			WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		snprintf(why, sizeof(why),
			"the process that verified the file ended with status %d in the midst of "
			"it: the file is cut short or damaged",
			WEXITSTATUS(status));
	free(verdict->text);
	verdict->text = NULL;
	verdict->code = SEGUE_ESTORE;
	segue_json_begin(&json, NULL, '{');
	segue_json_begin(&json, "damaged", '[');
	segue_json_begin(&json, NULL, '{');
	segue_json_null(&json, "table");
	segue_json_null(&json, "key");
	segue_json_string(&json, "why", why);
	segue_json_end(&json, '}');
	segue_json_end(&json, ']');
	put_counts(&json, 0, 0, 1);
	return segue_json_take(&json, &verdict->text);
}

static int await_verdict(pid_t child, int fd, const char *dir, struct verdict *verdict)
{
	int status = 0, rc = listen_to(fd, dir, verdict);

	if (rc)
		kill(child, SIGKILL);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (rc)
		return rc;
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || verdict->size < sizeof(verdict->code))
		return judge_death(status, verdict);
	memcpy(&verdict->code, verdict->text, sizeof(verdict->code));
	memmove(verdict->text, verdict->text + sizeof(verdict->code),
		verdict->size - sizeof(verdict->code) + 1);
	return 0;
}

static int verify_in_child(const char *dir, struct verdict *verdict)
{
	int pipes[2];

	if (pipe2(pipes, O_CLOEXEC) < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot make a pipe");
	pid_t child = fork();
	if (child == 0)
		run_child(dir, pipes[1]);
	close(pipes[1]);
	int rc = child < 0 ? segue_fail_errno(SEGUE_ESYSTEM, "cannot fork")
			   : await_verdict(child, pipes[0], dir, verdict);
	close(pipes[0]);
	return rc;
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
	struct verdict verdict = {0};

	int rc = verify_in_child(options->dir, &verdict);
	if (!rc && verdict.code && verdict.code != SEGUE_ESTORE)
		rc = segue_fail(verdict.code, "%s", verdict.text);
	if (rc) {
		free(verdict.text);
		return segue_cli_fail();
	}
	int status = segue_cli_show(options, verdict.text, print_report);
	return status == SEGUE_CLI_FINE && verdict.code ? SEGUE_CLI_DAMAGED : status;
}

const struct segue_cli_command segue_cli_verify = {
	.name = "verify",
	.operands = "DIR",
	.summary = "read and check every value of a store",
	.help = "Checks each value's checksum, that each is found under its key, and that none is\n"
		"missing or left over from an earlier time. Reads the store itself, in a process\n"
		"of its own, and may run beside a server: it takes no lock and changes nothing.\n"
		"The first 1000 faults are listed.\n\n"
		"Exit status: 0 sound, 3 damaged, 1 no store, or it cannot be read, 2 wrong\n"
		"usage.\n",
	.takes = SEGUE_CLI_JSON,
	.operands_min = 1,
	.operands_max = 1,
	.run = run_verify,
};
