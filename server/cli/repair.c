/* segue repair: closes a sequence file whose writer has not. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <json-c/json.h>

#include "cli/print.h"
#include "core/access.h"
#include "core/digest.h"
#include "core/error.h"
#include "source/seqfile/scan.h"

struct amount {
	uint64_t sequences, steps, bytes;
};

struct repair {
	const struct segue_cli_options *options;
	struct segue_cli_progress progress;
	const char *path;
	int fd;
	struct segue_seqfile_scan scan;
	struct segue_seqfile_indexed *index; /* of what is kept */
	size_t room;
	uint32_t key_max;
	struct segue_digest fingerprint;
	bool whole;
	struct amount kept, cut;
};

/* ---- Looking ---- */

static int open_file(struct repair *repair)
{
	struct stat info;
	int mode = repair->options->dry_run ? O_RDONLY : O_RDWR;

	repair->fd = open(repair->path, mode | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (repair->fd < 0 && errno == EACCES)
		return segue_fail_access(SEGUE_ESYSTEM, repair->path);
	if (repair->fd < 0 || fstat(repair->fd, &info) < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "%s", repair->path);
	if (!S_ISREG(info.st_mode))
		return segue_fail(SEGUE_ESYSTEM, "%s is no file", repair->path);
	return 0;
}

static int begin(struct repair *repair)
{
	struct stat info;
	int rc;

	if (fstat(repair->fd, &info) < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot be read");
	rc = segue_seqfile_scan_begin(&repair->scan, repair->fd, (uint64_t)info.st_size);
	return rc == SEGUE_EINVAL ? segue_fail_within(rc, "there is nothing to keep") : rc;
}

/*
 * From now on nobody writes it. A writer has its lock before the file has a head, so that one whose
 * head was read is locked, or has no writer.
 */
static int lock(struct repair *repair)
{
	struct stat info;

	if (flock(repair->fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno == EWOULDBLOCK)
			return segue_fail(SEGUE_EBUSY,
				"somebody is writing it: it is finished by its writer");
		if (errno != ENOLCK && errno != EOPNOTSUPP)
			return segue_fail_errno(SEGUE_ESYSTEM, "cannot be locked");
	}
	if (fstat(repair->fd, &info) < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot be read");
	repair->scan.size = (uint64_t)info.st_size;
	return 0;
}

/* Whether index and foot are there: true, and what the file holds is counted. */
static bool is_whole(struct repair *repair, int *rc)
{
	struct segue_seqfile_indexed *index;
	struct segue_seqfile_foot foot;

	*rc = segue_seqfile_scan_index(&repair->scan, &foot, &index);
	if (*rc == SEGUE_EINVAL || *rc == SEGUE_EDATA) {
		*rc = 0;
		return false;
	}
	if (*rc)
		return false;
	free(index);
	repair->kept = (struct amount){foot.entries, foot.steps, repair->scan.size};
	return true;
}

static void keep(struct repair *repair, const struct segue_seqfile_entry *entry)
{
	if (repair->kept.sequences == repair->room) {
		repair->room = repair->room ? 2 * repair->room : 1024;
		repair->index = segue_cli_need(
			reallocarray(repair->index, repair->room, sizeof(*repair->index)));
	}
	repair->index[repair->kept.sequences++] =
		(struct segue_seqfile_indexed){.offset = repair->scan.at - entry->size,
			.steps = (uint32_t)entry->steps,
			.crc = entry->crc};
	repair->kept.steps += entry->steps;
	if (entry->key_size > repair->key_max)
		repair->key_max = entry->key_size;
	segue_digest_bytes(&repair->fingerprint, repair->scan.header, entry->header_size);
}

/* All up to the first entry that is not sound, which is where repair->kept ends. */
static int find_sound(struct repair *repair)
{
	struct segue_seqfile_scan *scan = &repair->scan;
	struct segue_seqfile_entry entry;
	int rc = 0;

	segue_digest_init(&repair->fingerprint);
	segue_digest_bytes(&repair->fingerprint, scan->head_bytes, scan->head.size);
	while (!rc && scan->at < scan->size) {
		rc = segue_seqfile_scan_next(scan, &entry);
		if (!rc)
			keep(repair, &entry);
		segue_cli_show_progress(&repair->progress, "check", scan->at, scan->size);
	}
	repair->kept.bytes = scan->at;
	repair->cut.bytes = scan->size - scan->at;
	return rc == SEGUE_EDATA ? 0 : rc;
}

/*
 * What lies behind the first that is not sound, by its headers. A writer that was killed leaves
 * nothing there, so that whatever is found is more than the sequence that it was at.
 */
static int count_behind(struct repair *repair)
{
	struct segue_seqfile_scan *scan = &repair->scan;
	struct segue_seqfile_entry entry;
	struct segue_outcome why;
	char size[32];
	int rc = 0;

	segue_outcome_take(&why, SEGUE_EDATA);
	while (!rc && scan->at < scan->size) {
		rc = segue_seqfile_scan_find(scan, &entry);
		if (rc || scan->at - entry.size == repair->kept.bytes)
			continue;
		repair->cut.sequences++;
		repair->cut.steps += entry.steps;
	}
	if (rc && rc != SEGUE_ENOTFOUND)
		return rc;
	if (repair->cut.sequences == 0 || repair->options->force)
		return 0;
	segue_outcome_give(&why);
	segue_fail_within(SEGUE_EDATA, "sequence %" PRIu64 " (at byte %" PRIu64 ")",
		repair->kept.sequences, repair->kept.bytes);
	return segue_fail_within(SEGUE_EDATA,
		"behind a damaged sequence lie %" PRIu64 " more, of %" PRIu64 " steps (%s in all): "
		"with --force all of these are cut off, without it nothing is changed; the damage",
		repair->cut.sequences, repair->cut.steps, segue_cli_bytes(repair->cut.bytes, size));
}

/* ---- Closing ---- */

static int fail_write(void)
{
	return segue_fail_errno(errno == ENOSPC || errno == EDQUOT ? SEGUE_ENOSPACE : SEGUE_ESYSTEM,
		"cannot be closed; what is in it is as it was, and repair can be run again");
}

static int write_at(const struct repair *repair, const uint8_t *bytes, size_t size, uint64_t at)
{
	while (size > 0) {
		ssize_t done = pwrite(repair->fd, bytes, size, (off_t)at);

		if (done < 0 && errno == EINTR)
			continue;
		if (done == 0) /* of a regular file: never, and never for ever */
			errno = EIO;
		if (done <= 0)
			return fail_write();
		bytes += done;
		at += (uint64_t)done;
		size -= (size_t)done;
	}
	return fsync(repair->fd) < 0 ? fail_write() : 0;
}

/* The file has been renamed or made by a writer that has not come to this. */
static int sync_directory(const struct repair *repair)
{
	char *copy = segue_cli_need(strdup(repair->path));
	int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;

	free(copy);
	if (fd < 0 || (fsync(fd) < 0 && errno != EINVAL))
		rc = fail_write();
	if (fd >= 0)
		close(fd);
	return rc;
}

/*
 * As a writer ends: the foot comes when all that it speaks of is on disk. Killed anywhere here, the
 * file has no foot, and the same sequences.
 */
static int end_file(struct repair *repair)
{
	struct segue_seqfile_foot foot = {.entries = repair->kept.sequences,
		.index = repair->kept.bytes,
		.steps = repair->kept.steps,
		.key_max = repair->key_max,
		.head_size = repair->scan.head.size};
	size_t size = segue_seqfile_index_size(foot.entries);
	size_t used = foot.entries * sizeof(*repair->index);
	uint8_t *bytes = segue_cli_need(calloc(1, size + SEGUE_SEQFILE_FOOT));
	uint32_t crc = segue_seqfile_crc(repair->index, used);
	int rc = 0;

	if (used)
		memcpy(bytes, repair->index, used);
	memcpy(bytes + used, &crc, sizeof(crc));
	segue_digest_finish(&repair->fingerprint, foot.fingerprint);
	segue_seqfile_pack_foot(&foot, bytes + size);
	if (ftruncate(repair->fd, (off_t)foot.index) < 0 || fsync(repair->fd) < 0)
		rc = fail_write();
	if (!rc)
		rc = write_at(repair, bytes, size, foot.index);
	if (!rc)
		rc = write_at(repair, bytes + size, SEGUE_SEQFILE_FOOT, foot.index + size);
	free(bytes);
	return rc ? rc : sync_directory(repair);
}

static int mend(struct repair *repair)
{
	int rc = begin(repair);

	if (rc)
		return rc;
	repair->whole = is_whole(repair, &rc);
	if (rc || repair->whole)
		return rc;
	rc = lock(repair);
	/* Its writer may have finished it just now. */
	if (!rc)
		repair->whole = is_whole(repair, &rc);
	if (rc || repair->whole)
		return rc;
	rc = find_sound(repair);
	if (!rc && repair->cut.bytes > 0)
		rc = count_behind(repair);
	if (!rc && !repair->options->dry_run)
		rc = end_file(repair);
	return rc;
}

/* ---- What is said ---- */

static void put_amount(struct segue_json *json, const char *name, const struct amount *amount)
{
	segue_json_begin(json, name, '{');
	segue_json_unsigned(json, "sequences", amount->sequences);
	segue_json_unsigned(json, "steps", amount->steps);
	segue_json_unsigned(json, "bytes", amount->bytes);
	segue_json_end(json, '}');
}

static int report_on(const struct repair *repair, char **report)
{
	struct segue_json json = {0};

	segue_json_begin(&json, NULL, '{');
	segue_json_bytes(&json, "file", repair->path, strlen(repair->path));
	segue_json_bool(&json, "whole", repair->whole);
	segue_json_bool(&json, "changed", !repair->whole && !repair->options->dry_run);
	put_amount(&json, "kept", &repair->kept);
	put_amount(&json, "cut", &repair->cut);
	segue_json_end(&json, '}');
	return segue_json_take(&json, report);
}

/* "3 sequences of 120 steps". */
static void print_amount(struct json_object *amount)
{
	uint64_t sequences = segue_json_get_unsigned(amount, "sequences"),
		 steps = segue_json_get_unsigned(amount, "steps");

	printf("%" PRIu64 " sequence%s of %" PRIu64 " step%s", sequences, sequences == 1 ? "" : "s",
		steps, steps == 1 ? "" : "s");
}

static void print_report(const struct segue_cli_options *options, struct json_object *report)
{
	struct json_object *kept = json_object_object_get(report, "kept");
	struct json_object *cut = json_object_object_get(report, "cut");
	const char *would = options->dry_run ? "would be " : "";
	char bytes[32];

	printf("%s: ", segue_cli_member(report, "file"));
	if (segue_json_get_bool(report, "whole")) {
		printf("whole, with ");
		print_amount(kept);
		printf(" (%s): nothing to repair\n",
			segue_cli_bytes(segue_json_get_unsigned(kept, "bytes"), bytes));
		return;
	}
	print_amount(kept);
	printf(" (%s) %s%skept", segue_cli_bytes(segue_json_get_unsigned(kept, "bytes"), bytes),
		options->dry_run ? "" : "are ", would);
	if (segue_json_get_unsigned(cut, "bytes") > 0)
		printf(", %s %s%scut off behind them",
			segue_cli_bytes(segue_json_get_unsigned(cut, "bytes"), bytes),
			options->dry_run ? "" : "were ", would);
	if (segue_json_get_unsigned(cut, "sequences") > 0) {
		printf(", with ");
		print_amount(cut);
	}
	puts(options->dry_run ? "" : "; the file is closed");
}

static int run_repair(const struct segue_cli_options *options)
{
	struct repair repair = {.options = options, .path = options->dir, .fd = -1};
	char *report;
	int rc = open_file(&repair);

	if (!rc) {
		rc = mend(&repair);
		if (rc)
			segue_fail_within(rc, "%s", repair.path);
	}
	segue_cli_end_progress(&repair.progress);
	if (!rc)
		rc = report_on(&repair, &report);
	segue_seqfile_scan_finish(&repair.scan);
	free(repair.index);
	if (repair.fd >= 0)
		close(repair.fd);
	if (!rc)
		return segue_cli_show(options, report, print_report);
	segue_cli_fail();
	return rc == SEGUE_EDATA ? SEGUE_CLI_DAMAGED : SEGUE_CLI_WRONG;
}

const struct segue_cli_command segue_cli_repair = {
	.name = "repair",
	.operands = "FILE",
	.summary = "close a file whose writer was killed",
	.help = "Keeps all sequences up to the first that is not whole, every block of them\n"
		"checked, cuts off what lies behind, and writes index and foot: then streams\n"
		"read the file. What is cut is the sequence that its writer was at when it was\n"
		"killed. Where sequences lie behind the one that is not whole (after a power cut,\n"
		"or damage), nothing is changed without --force, and the message says how many.\n"
		"A file that is whole stays as it is; one that somebody writes is refused. Killed\n"
		"in the middle, it can be run again.\n\n"
		"Exit status: 0 closed, or whole already; 3 sequences would be lost; 1 no\n"
		"sequence file, somebody writes it, or it cannot be written; 2 wrong usage.\n",
	.takes = SEGUE_CLI_JSON | SEGUE_CLI_FORCE_CUT | SEGUE_CLI_DRY_RUN,
	.operands_min = 1,
	.operands_max = 1,
	.run = run_repair,
};
