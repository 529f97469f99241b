/* segue backup, segue restore: a whole copy of a store, and back. */
#include "cli/backup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <json-c/json.h>

#include "cli/ask.h"
#include "cli/backup_log.h"
#include "cli/print.h"
#include "core/error.h"
#include "core/wire.h"
#include "engine/live_dir.h"
#include "os/tree.h"
#include "report/child.h"
#include "store/dump.h"
#include "store/ops.h"

/* A transaction of the copy. */
enum { COPY_BYTES = 32 << 20, COPY_VALUES = 4096 };
enum { WORKPLACE_TRIES = 10 };

/* ---- Copying, in a process of its own ---- */

struct copying {
	const char *from, *to;   /* store directories; or files */
	const char *target;      /* what `to` becomes, for messages */
	struct segue_dump *dump; /* `to` is a file; else: */
	struct segue_store *store;
	struct segue_ops ops;
	size_t bytes;
	bool restore; /* the copy begins a life of its own */
	struct segue_backup_logs logs;
	uint64_t saved; /* bytes that it has less than the original */
	struct count {
		uint64_t values, bytes;
	} visited; /* but for what a store has of its own, and files */
};

/* An error of the copy's disk is not damage of the original. */
static int fail_copy(const struct copying *copying, int rc)
{
	return segue_fail_within(rc == SEGUE_ESTORE ? SEGUE_ESYSTEM : rc,
		"the copy for %s cannot be written", copying->target);
}

static int write_out(struct copying *copying)
{
	int rc = segue_store_apply(copying->store, copying->ops.op, copying->ops.count);

	if (rc)
		rc = fail_copy(copying, rc);
	segue_ops_finish(&copying->ops);
	copying->ops = (struct segue_ops){0};
	copying->bytes = 0;
	return rc;
}

/*
 * Nobody holds a lane of a restored store: not the workers of the original, which may live. `value`
 * is malloc'd, and replaced.
 */
static int release_lane(void **value, size_t *size)
{
	struct segue_lane_record record;
	size_t released_size;
	void *released;

	int rc = segue_lane_record_unpack(*value, *size, &record);
	if (rc)
		return segue_as_damage(rc, SEGUE_ESTORE);
	record.held = false;
	rc = segue_lane_record_pack(&record, &released, &released_size);
	free(record.position);
	if (rc)
		return rc;
	free(*value);
	*value = released;
	*size = released_size;
	return 0;
}

static int copy_value(void *arg, enum segue_table table, const void *key, size_t key_size,
	const void *value, size_t value_size)
{
	struct copying *copying = arg;

	if (table == SEGUE_DUMP_FILE)
		return segue_backup_logs_unpack(copying->to, key, key_size, value, value_size);
	copying->visited.values++;
	copying->visited.bytes += value_size;
	int rc = segue_backup_logs_note(&copying->logs, table, key, key_size, value, value_size);
	if (rc)
		return rc;
	if (copying->dump) {
		rc = segue_dump_put(copying->dump, table, key, key_size, value, value_size);
		return rc ? fail_copy(copying, rc) : 0;
	}
	void *copy = malloc(value_size ? value_size : 1);
	if (!copy)
		return segue_fail(SEGUE_ENOMEM, "no memory for a value of %zu bytes", value_size);
	if (value_size)
		memcpy(copy, value, value_size);
	size_t size = value_size;
	rc = copying->restore && table == SEGUE_TABLE_LANES ? release_lane(&copy, &size) : 0;
	if (rc) {
		free(copy);
		return rc;
	}
	copying->saved += value_size - size;
	rc = segue_ops_put(&copying->ops, table, key, key_size, copy, size);
	if (rc)
		return rc;
	copying->bytes += size;
	if (copying->bytes < COPY_BYTES && copying->ops.count < COPY_VALUES)
		return 0;
	return write_out(copying);
}

static int report_copy(
	const struct copying *copying, const struct segue_store_verified *verified, char **report)
{
	struct segue_json json = {0};

	segue_json_begin(&json, NULL, '{');
	segue_json_string(&json, "from", copying->from);
	segue_json_unsigned(&json, "values", verified->values);
	segue_json_unsigned(&json, "bytes", verified->bytes);
	segue_json_unsigned(&json, "logs", copying->logs.copied);
	segue_json_unsigned(&json, "sequences", copying->logs.sequences);
	segue_json_unsigned(&json, "log_bytes", copying->logs.bytes);
	segue_json_end(&json, '}');
	return segue_json_take(&json, report);
}

static bool is_file(const char *path)
{
	struct stat info;

	return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

/* Reads, and checks, every value of a store or of a file. */
static int read_values(const char *from, const struct segue_store_inspection *how,
	struct segue_store_verified *verified)
{
	if (!is_file(from))
		return segue_store_inspect(from, how, verified);
	int fd = open(from, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot open %s", from);
	int rc = segue_dump_read(fd, from, how, verified);
	close(fd);
	return rc;
}

/* Behind the values: what these say of a log is then in it. Those of a dump have come with it. */
static int copy_logs(struct copying *copying, const char *to)
{
	int rc = is_file(copying->from) ? 0
					: segue_backup_logs_copy(&copying->logs, copying->from, to);

	return rc ? rc : segue_backup_logs_check(&copying->logs, to);
}

/* They are checked before they are packed, which takes a copy beside that file. */
static int pack_logs(struct copying *copying)
{
	char *to;

	if (asprintf(&to, "%s.logs", copying->to) < 0)
		return segue_fail(SEGUE_ENOMEM, "no memory for a path");
	int rc = mkdir(to, 0700) < 0 ? segue_fail_errno(SEGUE_ESYSTEM, "cannot make %s", to)
				     : copy_logs(copying, to);
	if (!rc)
		rc = segue_backup_logs_pack(&copying->logs, to, copying->dump);
	free(to);
	return rc;
}

static int copy_to_store(struct copying *copying, const struct segue_store_inspection *read,
	struct segue_store_verified *verified)
{
	int rc = segue_store_open(copying->to, SEGUE_STORE_SERVE, &copying->store);

	if (rc)
		return fail_copy(copying, rc);
	rc = read_values(copying->from, read, verified);
	if (!rc && copying->ops.count)
		rc = write_out(copying);
	segue_ops_finish(&copying->ops);
	segue_store_close(copying->store);
	return rc ? rc : copy_logs(copying, copying->to);
}

static int copy_to_file(struct copying *copying, const struct segue_store_inspection *read,
	struct segue_store_verified *verified)
{
	int fd = open(copying->to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot make %s", copying->to);
	int rc = segue_dump_create(fd, copying->target, &copying->dump);
	if (!rc) {
		rc = read_values(copying->from, read, verified);
		if (!rc)
			rc = pack_logs(copying);
		int end = rc ? 0 : segue_dump_end(copying->dump);
		if (end)
			rc = fail_copy(copying, end);
		segue_dump_destroy(copying->dump);
	}
	close(fd);
	return rc;
}

static int count_value(void *arg, enum segue_table table, const void *key, size_t key_size,
	const void *value, size_t value_size)
{
	struct count *count = arg;

	(void)key, (void)key_size, (void)value;
	if (table == SEGUE_DUMP_FILE)
		return 0;
	count->values++;
	count->bytes += value_size;
	return 0;
}

/*
 * Every value is read from one snapshot, checked, and written to a new store, or to a file: the
 * copy is compact, and a server may go on writing to the original.
 */
static int copy_values(struct copying *copying, bool portable, char **report)
{
	const struct segue_store_inspection read = {
		.visit = copy_value, .progress = segue_child_progress, .arg = copying};
	struct count copied = {0};
	const struct segue_store_inspection again = {
		.visit = count_value, .progress = segue_child_progress, .arg = &copied};
	struct segue_store_verified verified, reread;

	int rc = segue_backup_logs_hold(&copying->logs, copying->from);
	if (!rc)
		rc = portable ? copy_to_file(copying, &read, &verified)
			      : copy_to_store(copying, &read, &verified);
	if (rc)
		return rc;
	rc = read_values(copying->to, &again, &reread);
	if (rc && rc != SEGUE_ESTORE)
		return segue_fail_within(rc, "the copy for %s cannot be verified", copying->target);
	if (rc || copied.values != copying->visited.values ||
		copied.bytes + copying->saved != copying->visited.bytes)
		return segue_fail(SEGUE_ESYSTEM,
			"the copy in %s is not what was written: is the "
			"disk sound?",
			copying->to);
	/* What 'segue verify' finds: a store counts what it has of its own, which no file holds. */
	return report_copy(copying, portable ? &verified : &reread, report);
}

int segue_cli_copy(char **arguments, char **report)
{
	struct copying copying = {.from = arguments[0],
		.to = arguments[1],
		.target = arguments[2],
		.restore = arguments[3] && strcmp(arguments[3], "restore") == 0};

	int rc = copy_values(
		&copying, arguments[3] && strcmp(arguments[3], "portable") == 0, report);
	segue_backup_logs_finish(&copying.logs);
	return rc;
}

/* ---- Files ---- */

/* Removes what our own commands that were killed left in `dir`; one at work holds a lock. */
static void sweep(const char *dir, const char *prefix)
{
	DIR *stream = opendir(dir);
	struct stat info;

	if (!stream)
		return;
	for (struct dirent *entry; (entry = readdir(stream));) {
		if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0)
			continue;
		int fd = openat(dirfd(stream), entry->d_name,
			O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd >= 0 && fstat(fd, &info) == 0 && info.st_uid == geteuid() &&
			flock(fd, LOCK_EX | LOCK_NB) == 0)
			segue_tree_remove(dirfd(stream), entry->d_name);
		if (fd >= 0)
			close(fd);
	}
	closedir(stream);
}

/*
 * Where a copy is made: a store directory in a directory, locked until the copy has its name.
 * The store has a lock of its own, but only while it is written.
 */
struct workplace {
	char *path, *copy; /* owned: <dir>/<prefix><random>, and a name in it */
	int lock;
};

/* One attempt. SEGUE_EBUSY: a sweep has it that met it before it was locked. */
static int try_workplace(const char *dir, const char *prefix, struct workplace *place)
{
	uint32_t random = 0;
	struct stat info;

	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot get a random number");
	if (asprintf(&place->path, "%s/%s%08x", dir, prefix, random) < 0)
		place->path = NULL;
	if (!place->path || asprintf(&place->copy, "%s/copy", place->path) < 0) {
		place->copy = NULL;
		return segue_fail(SEGUE_ENOMEM, "no memory for a path");
	}
	if (mkdir(place->path, 0700) < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot make %s", place->path);
	place->lock = open(place->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (place->lock < 0 || flock(place->lock, LOCK_EX | LOCK_NB) < 0 ||
		fstat(place->lock, &info) < 0 || info.st_nlink == 0)
		return segue_fail(SEGUE_EBUSY,
			"%s was taken away by another backup or restore: try again", place->path);
	return 0;
}

static void finish_workplace(struct workplace *place)
{
	if (place->path)
		segue_tree_remove(AT_FDCWD, place->path);
	if (place->lock >= 0)
		close(place->lock);
	free(place->path);
	free(place->copy);
}

static int make_workplace(const char *dir, const char *prefix, struct workplace *place)
{
	int rc = SEGUE_EBUSY;

	for (int i = 0; rc == SEGUE_EBUSY && i < WORKPLACE_TRIES; i++) {
		*place = (struct workplace){.lock = -1};
		rc = try_workplace(dir, prefix, place);
		if (rc)
			finish_workplace(place);
	}
	return rc;
}

static void print_copy(const struct segue_cli_options *options, struct json_object *report)
{
	uint64_t logs = segue_json_get_unsigned(report, "logs");
	char bytes[32];

	printf("%s: %s values (%s) from %s\n", options->key, segue_cli_member(report, "values"),
		segue_cli_bytes(segue_json_get_unsigned(report, "bytes"), bytes),
		segue_cli_member(report, "from"));
	if (logs)
		printf("%s sequences (%s) of %" PRIu64 " log%s\n",
			segue_cli_member(report, "sequences"),
			segue_cli_bytes(segue_json_get_unsigned(report, "log_bytes"), bytes), logs,
			logs == 1 ? "" : "s");
}

/*
 * Runs the copy; `how`: "restore", "portable" or NULL. Prints why it failed. An exit status; FINE
 * writes *report.
 */
static int run_copy(const char *from, const char *to, const char *target, const char *how,
	bool lines, char **report)
{
	const char *const arguments[] = {"copy", from, to, target, how, NULL};
	bool restore = how && strcmp(how, "restore") == 0;
	struct segue_cli_progress progress = {.lines = lines};
	const struct segue_child child = {.arguments = arguments,
		.what = restore ? "restoring the store" : "copying the store",
		.progress = segue_cli_show_progress,
		.arg = &progress};

	int rc = segue_child_run(&child, report);
	segue_cli_end_progress(&progress);
	if (rc == 0)
		return SEGUE_CLI_FINE;
	if (rc == SEGUE_ESTORE && is_file(from))
		segue_fail_within(rc, "the backup is not sound, nothing was restored");
	else if (rc == SEGUE_ESTORE)
		segue_fail_within(rc,
			"%s is not sound, nothing was copied ('segue verify' lists the places)",
			from);
	segue_cli_fail();
	return rc == SEGUE_ESTORE ? SEGUE_CLI_DAMAGED : SEGUE_CLI_WRONG;
}

/* ---- Backup ---- */

/* What LMDB and the directories need; a file is on disk. */
static int settle_store(const char *made)
{
	char store[4096], lock[4096];

	snprintf(store, sizeof(store), "%s/store", made);
	snprintf(lock, sizeof(lock), "%s/store/lock.mdb", made);
	unlink(lock); /* of processes that are gone */
	int rc = segue_cli_sync(store, false);
	return rc ? rc : segue_cli_sync(made, false);
}

/* The copy gets its name when it is whole and on disk. */
static int publish(const char *made, const char *target, const char *parent)
{
	int rc = is_file(made) ? 0 : settle_store(made);

	if (!rc && renameat2(AT_FDCWD, made, AT_FDCWD, target, RENAME_NOREPLACE) < 0)
		rc = segue_fail_errno(SEGUE_ESYSTEM, "cannot rename the copy to %s", target);
	if (rc)
		return rc;
	rc = segue_cli_sync(parent, false);
	return rc ? segue_fail_within(rc, "%s is whole, but may be lost in a power cut", target)
		  : 0;
}

static int back_up(const struct segue_cli_options *options, const char *target, const char *parent,
	const char *name)
{
	struct stat info;
	char prefix[300], *report;
	struct workplace place;

	bool there = lstat(target, &info) == 0;
	if (there || errno != ENOENT) {
		if (!there && errno == ENOTDIR)
			segue_fail_no_directory(target);
		else if (!there)
			segue_fail_errno(SEGUE_ESYSTEM, "cannot look at %s", target);
		else
			segue_fail(SEGUE_EINVAL,
				"%s exists: a backup does not write over anything, give another "
				"name",
				target);
		return segue_cli_fail();
	}
	snprintf(prefix, sizeof(prefix), ".%.255s.backup-", name);
	sweep(parent, prefix);
	if (make_workplace(parent, prefix, &place))
		return segue_cli_fail();
	int status = run_copy(options->dir, place.copy, target,
		options->portable ? "portable" : NULL, options->progress, &report);
	if (status == SEGUE_CLI_FINE && publish(place.copy, target, parent)) {
		status = segue_cli_fail();
		free(report);
	}
	if (status == SEGUE_CLI_FINE)
		status = segue_cli_show(options, report, print_copy);
	finish_workplace(&place);
	return status;
}

static int run_backup(const struct segue_cli_options *options)
{
	char *target = segue_cli_absolute(options->key), *parent = target ? strdup(target) : NULL;
	int status;

	if (parent) {
		char *name = strdup(basename(parent));
		strcpy(parent, target);
		status = name ? back_up(options, target, dirname(parent), name) : SEGUE_CLI_WRONG;
		free(name);
	} else {
		segue_fail(SEGUE_ENOMEM, "no memory for a path");
		status = segue_cli_fail();
	}
	free(parent);
	free(target);
	return status;
}

const struct segue_cli_command segue_cli_backup = {
	.name = "backup",
	.operands = "DIR TARGET",
	.summary = "copy a store, also while it is served",
	.help = "Reads every value of the store from one moment, checks it, and writes it to a\n"
		"new store directory TARGET, which must not exist; then verifies the copy. A\n"
		"server may run, and goes on: while the copy is made its file can grow. The\n"
		"copy is under a temporary name beside TARGET until it is whole and on disk.\n\n"
		"All is copied that DIR/store holds: streams, positions, states, checkpoints,\n"
		"the index of the data; and DIR/log, what was inserted, at least as far as the\n"
		"store refers to it. Not the data themselves, nor DIR/cache, which is made\n"
		"again. Commits that are not on disk yet are not in it: call Loader.flush()\n"
		"before.\n\n"
		"With --portable TARGET is one file, in a format of its own: 'segue restore'\n"
		"takes it also where segue was built with another version of LMDB, whose\n"
		"files differ.\n\n"
		"Exit status: 0 done, 3 the store is damaged, 1 anything else, 2 wrong usage.\n"
		"In the last three cases there is no TARGET, or the message says that it may\n"
		"be lost in a power cut.\n",
	.takes = SEGUE_CLI_JSON | SEGUE_CLI_PROGRESS | SEGUE_CLI_PORTABLE,
	.operands_min = 2,
	.operands_max = 2,
	.run = run_backup,
};

/* ---- Restore ---- */

/* By errno; `rc`: what was said of it. */
static int fail_directory(const char *dir, int rc)
{
	return errno == ENOTDIR ? segue_fail_no_directory(dir) : rc;
}

/* Nobody serves the directory, or will while this lasts. *made: it was not there before. */
static int lock_directory(const char *dir, bool *made, int *out)
{
	long pid = 0;

	*made = mkdir(dir, 0700) == 0;
	if (!*made && errno != EEXIST)
		return fail_directory(dir, segue_fail_errno(SEGUE_ESYSTEM, "cannot make %s", dir));
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return fail_directory(dir, segue_fail_errno(SEGUE_ESYSTEM, "cannot open %s", dir));
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		segue_cli_lock_holder(dir, &pid);
		close(fd);
		return pid ? segue_fail(SEGUE_EBUSY,
				     "a server (pid %ld) serves %s: end its workers, then the "
				     "server",
				     pid, dir)
			   : segue_fail(SEGUE_EBUSY,
				     "another process has %s open: try again when it has ended",
				     dir);
	}
	*out = fd;
	return 0;
}

/* What is in the way, and where it is put: a name each, in DIR. */
struct aside {
	char date[32];
	bool store, log;
};

/*
 * Puts `made`/`name` into DIR. What is there keeps its place until that takes it, in one step, and
 * is kept after. Nothing was made: what is there is only put aside.
 */
static int put_one(int dir, const char *dir_name, const char *made, const char *name,
	const char *date, bool *moved)
{
	char from[PATH_MAX], aside[64];
	int rc = 0;

	snprintf(from, sizeof(from), "%s/%s", made, name);
	snprintf(aside, sizeof(aside), "%s.before-%s", name, date);
	bool is_made = access(from, F_OK) == 0;
	*moved = faccessat(dir, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
	if (*moved && !is_made) {
		if (renameat2(dir, name, dir, aside, RENAME_NOREPLACE) < 0)
			rc = segue_fail_errno(
				SEGUE_ESYSTEM, "cannot rename to %s/%s", dir_name, aside);
	} else if (*moved) {
		if (renameat2(AT_FDCWD, from, dir, aside, RENAME_NOREPLACE) < 0)
			rc = segue_fail_errno(
				SEGUE_ESYSTEM, "cannot rename to %s/%s", dir_name, aside);
		else if (renameat2(dir, aside, dir, name, RENAME_EXCHANGE) < 0)
			rc = segue_fail_errno(SEGUE_ESYSTEM,
				"cannot exchange %s/%s for the backup (it lies in %s/%s now: move "
				"them by hand)",
				dir_name, name, dir_name, aside);
	} else if (is_made && renameat2(AT_FDCWD, from, dir, name, RENAME_NOREPLACE) < 0) {
		rc = segue_fail_errno(SEGUE_ESYSTEM, "cannot rename to %s/%s", dir_name, name);
	}
	return rc;
}

/*
 * The logs first: if that is all that comes about, the store that is there does not find what it
 * refers to, and is refused, as long as nobody restores again.
 */
static int put_in_place(int dir, const char *dir_name, const char *made, struct aside *aside)
{
	time_t now = time(NULL);
	struct tm parts;
	char from[PATH_MAX];

	snprintf(from, sizeof(from), "%s/store", made);
	int rc = segue_cli_sync(from, false);
	gmtime_r(&now, &parts);
	strftime(aside->date, sizeof(aside->date), "%Y%m%dT%H%M%SZ", &parts);
	if (!rc)
		rc = put_one(dir, dir_name, made, SEGUE_LIVE_DIR, aside->date, &aside->log);
	if (!rc)
		rc = put_one(dir, dir_name, made, "store", aside->date, &aside->store);
	if (rc)
		return rc;
	unlinkat(dir, SEGUE_STORE_SUSPECT, 0); /* said of the store that went */
	return fsync(dir) < 0 ? segue_fail_errno(SEGUE_ESYSTEM,
					"%s/store is the backup, but may be lost in a power cut: "
					"cannot sync %s",
					dir_name, dir_name)
			      : 0;
}

static void print_aside(const char *dir_name, const struct aside *aside)
{
	if (aside->store)
		printf("the store that was there is kept as %s/store.before-%s\n", dir_name,
			aside->date);
	if (aside->log)
		printf("the logs that were there are kept as %s/" SEGUE_LIVE_DIR ".before-%s\n",
			dir_name, aside->date);
}

static int restore_into(const struct segue_cli_options *options, const char *dir_name, int dir)
{
	struct aside aside = {.store = false};
	struct workplace place;
	char *report;

	if (!options->force && faccessat(dir, "store", F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
		segue_fail(SEGUE_EINVAL,
			"%s has a store: with --force it is kept as %s/store.before-<date>, and "
			"the "
			"backup takes its place",
			dir_name, dir_name);
		return segue_cli_fail();
	}
	sweep(dir_name, ".restore-");
	if (make_workplace(dir_name, ".restore-", &place))
		return segue_cli_fail();
	int status =
		run_copy(options->dir, place.copy, dir_name, "restore", options->progress, &report);
	if (status == SEGUE_CLI_FINE && put_in_place(dir, dir_name, place.copy, &aside)) {
		status = segue_cli_fail();
		free(report);
	} else if (status == SEGUE_CLI_FINE) {
		if (!options->json)
			print_aside(dir_name, &aside);
		status = segue_cli_show(options, report, print_copy);
	}
	finish_workplace(&place);
	return status;
}

static int run_restore(const struct segue_cli_options *options)
{
	bool made;
	int dir = -1;

	if (lock_directory(options->key, &made, &dir))
		return segue_cli_fail();
	int status = restore_into(options, options->key, dir);
	if (made && status != SEGUE_CLI_FINE)
		rmdir(options->key); /* unless something is in it */
	close(dir);
	return status;
}

const struct segue_cli_command segue_cli_restore = {
	.name = "restore",
	.operands = "BACKUP DIR",
	.summary = "put a backup in the place of a store",
	.help = "Checks every value of the backup (a directory, or a file of --portable) and\n"
		"copies it into DIR, which is made if need be; no server may run there. A store\n"
		"that is there is an error, or, with --force, kept as DIR/store.before-<date>,\n"
		"and its logs as DIR/log.before-<date>: until the copy is whole and on disk they\n"
		"stay in their place. BACKUP is not changed, and may be restored again.\n\n"
		"Workers go on with start=\"continue\" at what the backup holds, or with a\n"
		"token. Nobody holds a lane of the restored store: a worker of the old one\n"
		"that still lives gets FencedError, and what it committed after the backup is\n"
		"not taken.\n\n"
		"Exit status: 0 done, 3 the backup is damaged, 1 anything else, 2 wrong usage.\n"
		"In the last three cases DIR/store is as before, or the message says that the\n"
		"backup is in its place but may be lost in a power cut.\n",
	.takes = SEGUE_CLI_JSON | SEGUE_CLI_PROGRESS | SEGUE_CLI_FORCE,
	.operands_min = 2,
	.operands_max = 2,
	.run = run_restore,
};
