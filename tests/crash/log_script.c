/*
 * Sequences that are functions of their number, appended to a log: script.h. Transaction n appends
 * sequence n - 1; it is acknowledged when it is synced, together with those before it. What stands
 * for the store is one file, replaced by rename, that names what the log was synced to.
 */
#include "script.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk.h"
#include "logwork.h"
#include "mutants.h"
#include "trace.h"
#include "source/log/disk.h"

#define FILE_BYTES 6000
#define KNOWN      "known"
#define EARLY      3 /* sequences of a producer that ends */
#define KEEP       7 /* sequences that are not given up */

static uint64_t last_number;

static void fail(const char *what, uint64_t n)
{
	fprintf(stderr, "log_script: %s (sequence %" PRIu64 "): %s\n", what, n,
		segue_error_detail());
	abort();
}

/* ---- What is inserted ---- */

static struct segue_logwork work_of(uint64_t n)
{
	struct segue_logwork work = {.what = n, .steps = n % 4 == 3 ? 320 : 0};

	if (n < EARLY) {
		work.producer = "early";
		work.serial = n + 1;
	} else {
		work.producer = n % 2 ? "odd" : "even";
		work.serial = (n - EARLY) / 2 + 1;
	}
	return work;
}

/* The serial of a producer's last among the first `count` sequences. */
static uint64_t serial_of(const char *producer, uint64_t count)
{
	uint64_t serial = 0;

	for (uint64_t n = 0; n < count; n++)
		if (strcmp(work_of(n).producer, producer) == 0)
			serial = work_of(n).serial;
	return serial;
}

static void init(uint64_t last)
{
	last_number = last;
}

/* ---- What stands for the store ---- */

static int load_known(struct segue_log_dir *dir, struct segue_log_known *known, bool *there)
{
	struct segue_log_file *file;
	uint64_t size = 0;
	int rc = segue_log_file_open(dir, KNOWN, false, &file);

	*there = !rc;
	if (rc) /* not there: nothing was acknowledged yet */
		return 0;
	rc = segue_log_file_size(file, &size);
	if (!rc && size != sizeof(*known))
		rc = SEGUE_ESTORE;
	if (!rc)
		rc = segue_log_file_read(file, 0, known, sizeof(*known));
	segue_log_file_close(file);
	return rc;
}

static int save_known(struct segue_log_dir *dir, const struct segue_log_known *known)
{
	struct segue_log_file *file;
	int rc = segue_log_file_open(dir, KNOWN "-new", true, &file);

	if (rc)
		return rc;
	rc = segue_log_file_write(file, 0, known, sizeof(*known));
	if (!rc)
		rc = segue_log_file_sync(file);
	segue_log_file_close(file);
	if (!rc)
		rc = segue_log_dir_rename(dir, KNOWN "-new", KNOWN);
	return rc ? rc : segue_log_dir_sync(dir);
}

/* ---- Opening ---- */

static int open_log(const char *dir, const struct segue_log_known *known, struct segue_log **log)
{
	static const uint8_t id[SEGUE_SEQLOG_ID] = "the script's log";
	char path[4096];
	const struct segue_log_means means = {.dir = path,
		.fields = segue_logwork_fields,
		.count = SEGUE_LOGWORK_FIELDS,
		.file_bytes = FILE_BYTES};

	snprintf(path, sizeof(path), "%s/log", dir);
	return known ? segue_log_open(&means, known, log) : segue_log_create(&means, id, log);
}

#define WRONG(...) (snprintf(why, ORACLE_WHY, __VA_ARGS__), false)

static bool right_producers(struct segue_log *log, uint64_t count, char *why)
{
	static const char *const names[] = {"early", "odd", "even"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const struct segue_seqlog_producer *producer =
			segue_seqlog_find(segue_log_producers(log), names[i], strlen(names[i]));
		uint64_t has = producer ? producer->serial : 0;

		if (has != serial_of(names[i], count))
			return WRONG("producer %s is at %" PRIu64 ", %" PRIu64
				     " sequences are there",
				names[i], has, count);
	}
	return true;
}

/* All that is there is what was inserted, from what was not given up to the last. */
static bool right_log(struct segue_log *log, uint64_t first, uint64_t *count, char *why)
{
	struct segue_log_stand stand;
	struct segue_log_entry *entry;
	uint64_t what;

	segue_log_look(log, &stand);
	*count = stand.written.number;
	if (stand.first > first)
		return WRONG("sequence %" PRIu64 " was not given up", first);
	if (stand.synced.number != *count)
		return WRONG("only %" PRIu64 " sequences are synced", stand.synced.number);
	for (uint64_t n = stand.first; n < *count; n++) {
		if (segue_log_read(log, n, &entry))
			return WRONG("%.150s", segue_error_detail());
		bool right = segue_logwork_tell(entry, &what) && what == n;
		segue_log_entry_free(entry);
		if (!right)
			return WRONG("sequence %" PRIu64 " is another one", n);
	}
	return right_producers(log, *count, why);
}

/* ---- Running ---- */

struct run {
	struct segue_log_dir *dir;
	struct segue_log *log;
	struct segue_log_known known;
	const char *mistake;
	int fd;
	uint64_t acknowledged;
};

static bool makes(const struct run *run, const char *mistake)
{
	return strcmp(run->mistake, mistake) == 0;
}

static void acknowledge(struct run *run, uint64_t number)
{
	if (number > run->acknowledged)
		trace_mark(run->fd, MARK_ACK, number, 0);
	run->acknowledged = number;
}

/* The store hears how far the log is synced, and what is given up; then that is. */
static int tell_store(struct run *run)
{
	struct segue_log_stand stand;

	segue_log_look(run->log, &stand);
	run->known.synced = makes(run, "known_before_sync") ? stand.written : stand.synced;
	if (stand.synced.number > KEEP)
		run->known.first = segue_log_floor(run->log, stand.synced.number - KEEP);
	if (makes(run, "given_up_first") && segue_log_give_up(run->log, run->known.first))
		return SEGUE_ESTORE;
	int rc = save_known(run->dir, &run->known);
	if (!rc)
		rc = segue_log_give_up(run->log, run->known.first);
	return rc;
}

static int append(struct run *run, uint64_t n)
{
	const struct segue_logwork work = work_of(n - 1);
	uint64_t number;

	trace_mark(run->fd, MARK_BEGIN, n, 0);
	int rc = segue_logwork_append(run->log, &work, &number);
	if (!rc && number != n - 1)
		fail("it has another number", n);
	if (!rc && makes(run, "ack_before_sync"))
		acknowledge(run, n);
	if (!rc && n % 6 == 5)
		rc = tell_store(run);
	if (!rc && disk_mix(3, n) % 3) {
		rc = segue_log_sync(run->log);
		if (!rc)
			acknowledge(run, n);
	}
	if (!rc && n % 3 == 0)
		rc = tell_store(run);
	return rc;
}

/* After a failure nothing more is taken, and what was there can be read. */
static void check_stopped(struct run *run, uint64_t n)
{
	struct segue_logwork work = work_of(n);
	struct segue_log_stand stand;
	struct segue_log_entry *entry;
	uint64_t what;

	segue_log_look(run->log, &stand);
	for (int i = 0; stand.failed && i < 2; i++)
		if (segue_logwork_append(run->log, &work, &what) != SEGUE_ESTORE ||
			segue_log_sync(run->log) != SEGUE_ESTORE)
			fail("a log that failed has taken something", n);
	for (uint64_t k = stand.first; k < stand.written.number; k++) {
		if (segue_log_read(run->log, k, &entry))
			fail("after a failure it cannot be read", k);
		if (!segue_logwork_tell(entry, &what) || what != k)
			fail("after a failure it is another one", k);
		segue_log_entry_free(entry);
	}
}

/* Of a transaction that had no room the sequence may be there already. */
static int append_again(struct run *run, uint64_t n)
{
	struct segue_log_stand stand;
	int rc = SEGUE_ENOSPACE;

	for (int tries = 0; rc == SEGUE_ENOSPACE && tries < 3; tries++) {
		segue_log_look(run->log, &stand);
		if (stand.written.number < n)
			rc = append(run, n);
		else
			rc = tell_store(run);
		if (rc)
			trace_mark(run->fd, MARK_FAILED, n, (uint64_t)-rc);
	}
	return rc;
}

static int begin(struct run *run, const char *dir)
{
	bool there;
	int rc = segue_log_dir_open(dir, &run->dir);

	if (!rc)
		rc = load_known(run->dir, &run->known, &there);
	if (!rc)
		rc = open_log(dir, there ? &run->known : NULL, &run->log);
	if (!rc && !there) {
		memcpy(run->known.id, segue_log_producers(run->log)->id, SEGUE_SEQLOG_ID);
		rc = tell_store(run);
	}
	return rc;
}

static int run_script(const char *dir, uint64_t last, uint64_t more, int fd, const char *mistake)
{
	struct run run = {.mistake = mistake, .fd = fd};
	char why[ORACLE_WHY];
	uint64_t n = 0;
	int rc = begin(&run, dir);

	if (!rc && !right_log(run.log, run.known.first, &n, why)) {
		fprintf(stderr, "log_script: at the start: %s\n", why);
		abort();
	}
	if (!rc)
		trace_mark(fd, MARK_START, n, 0);
	while (!rc && n < last && more-- > 0) {
		rc = append_again(&run, ++n);
		if (rc && rc != SEGUE_ENOSPACE)
			check_stopped(&run, n);
	}
	if (!rc)
		rc = segue_log_sync(run.log);
	if (!rc)
		acknowledge(&run, n);
	segue_log_close(run.log);
	segue_log_dir_close(run.dir);
	return rc;
}

/* ---- The oracle ---- */

static enum verdict check(const char *path, uint64_t seq[ORACLE_LINES], char why[ORACLE_WHY])
{
	struct segue_log_known known = {0};
	struct segue_log *log = NULL;
	struct segue_log_dir *dir;
	bool there = false;

	seq[0] = 0;
	int rc = segue_log_dir_open(path, &dir);
	if (!rc) {
		rc = load_known(dir, &known, &there);
		segue_log_dir_close(dir);
	}
	if (!rc)
		rc = open_log(path, there ? &known : NULL, &log);
	if (rc) {
		snprintf(why, ORACLE_WHY, "%.150s", segue_error_detail());
		return VERDICT_REFUSED;
	}
	bool right = right_log(log, known.first, &seq[0], why) && seq[0] <= last_number;
	segue_log_close(log);
	return right ? VERDICT_GOOD : VERDICT_WRONG;
}

static const struct oracle oracle = {.name = "log", .lines = 1, .check = check};

static const struct script_mutant mutants[] = {
	{MUTANT_LIE, "no_fdatasync", "fdatasync does nothing"},
	{MUTANT_LIE, "no_dir_sync", "fsync of a directory does nothing"},
	{MUTANT_LIE, "retried_sync",
		"a sync fails and drops what was to be written, its retry is believed"},
	{MUTANT_MISTAKE, "ack_before_sync", "a sequence is acknowledged before it is synced"},
	{MUTANT_MISTAKE, "known_before_sync",
		"the store names a place before the log is synced as far"},
	{MUTANT_MISTAKE, "given_up_first",
		"files are removed before the store has that they are given up"},
#define X(name, what) {MUTANT_CODE, #name, what},
	LOG_MUTANTS(X)
#undef X
		{0},
};

const struct script script = {
	.oracle = &oracle,
	.mutants = mutants,
	.init = init,
	.run = run_script,
};
