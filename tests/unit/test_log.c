/*
 * Tests of a log's files on a disk: what was appended is there in its order, after every end and
 * every damage that a power cut can leave; what is known to be on disk is never given up in silence.
 */
#include "source/log/log.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "logwork.h"
#include "tmpdir.h"

static struct segue_tmpdir tmp;
static char dir[SEGUE_TMPDIR_MAX];
static const uint8_t id[SEGUE_SEQLOG_ID] = "0123456789abcde";

/* In memory, unless TMPDIR names another place: each opening syncs. */
static void make_directory(void)
{
	if (access("/dev/shm", W_OK) == 0)
		setenv("TMPDIR", "/dev/shm", 0);
	segue_tmpdir_make(&tmp, "log");
	segue_tmpdir_path(&tmp, "log", dir);
}

static void remove_directory(void)
{
	segue_tmpdir_remove(&tmp);
}

TestSuite(log, .init = make_directory, .fini = remove_directory);

static struct segue_log_means means(uint64_t file_bytes)
{
	return (struct segue_log_means){.dir = dir,
		.fields = segue_logwork_fields,
		.count = SEGUE_LOGWORK_FIELDS,
		.file_bytes = file_bytes};
}

static bool says(const char *words)
{
	return strstr(segue_error_detail(), words);
}

static struct segue_log *create(uint64_t file_bytes)
{
	const struct segue_log_means with = means(file_bytes);
	struct segue_log *log;

	cr_assert_eq(segue_log_create(&with, id, &log), 0, "%s", segue_error_detail());
	return log;
}

/* What the store would hold: the log is synced. */
static struct segue_log_known known_of(struct segue_log *log)
{
	struct segue_log_known known = {0};
	struct segue_log_stand stand;

	segue_log_look(log, &stand);
	memcpy(known.id, id, sizeof(id));
	known.first = stand.first;
	known.synced = stand.synced;
	return known;
}

static int reopen(const struct segue_log_known *known, uint64_t file_bytes, struct segue_log **out)
{
	const struct segue_log_means with = means(file_bytes);

	return segue_log_open(&with, known, out);
}

/* Sequence number n is work n, by producers that take turns. */
static void append(struct segue_log *log, uint64_t from, uint64_t to)
{
	static const char *const names[] = {"a", "producer b", "c"};

	for (uint64_t n = from; n < to; n++) {
		const struct segue_logwork work = {
			.what = n, .serial = n / 3 + 1, .producer = names[n % 3]};
		uint64_t number;

		cr_assert_eq(
			segue_logwork_append(log, &work, &number), 0, "%s", segue_error_detail());
		cr_assert_eq(number, n);
	}
}

/* All from `first` on is there, and nothing else. Returns how many. */
static uint64_t check_all(struct segue_log *log, uint64_t first)
{
	struct segue_log_stand stand;
	struct segue_log_entry *entry;
	uint64_t what;

	segue_log_look(log, &stand);
	cr_assert_leq(stand.first, first);
	for (uint64_t n = first; n < stand.written.number; n++) {
		uint64_t hash[2];

		cr_assert_eq(segue_log_read(log, n, &entry), 0, "%s", segue_error_detail());
		cr_assert(segue_logwork_tell(entry, &what) && what == n);
		cr_assert_eq(segue_log_hash(log, n, hash), 0);
		cr_assert_arr_eq(hash, entry->entry.stamp.before, sizeof(hash));
		segue_log_entry_free(entry);
	}
	cr_assert_eq(segue_log_read(log, stand.written.number, &entry), SEGUE_ENOTFOUND);
	for (uint64_t k = 0; k < 3; k++) {
		static const char *const names[] = {"a", "producer b", "c"};
		const struct segue_seqlog_producer *producer =
			segue_seqlog_find(segue_log_producers(log), names[k], strlen(names[k]));
		uint64_t serial = (stand.written.number + 2 - k) / 3;

		cr_assert_eq(producer ? producer->serial : 0, serial);
		if (producer)
			cr_assert_eq(producer->number, 3 * (serial - 1) + k);
	}
	return stand.written.number;
}

static const char *path_of(uint64_t first)
{
	static char path[SEGUE_TMPDIR_MAX + 40];

	snprintf(path, sizeof(path), "%s/%020" PRIu64 ".segue", dir, first);
	return path;
}

static uint8_t *load(const char *path, size_t *size)
{
	FILE *file = fopen(path, "rbe");
	struct stat status;

	cr_assert(file && fstat(fileno(file), &status) == 0);
	uint8_t *bytes = malloc((size_t)status.st_size + 1);
	*size = fread(bytes, 1, (size_t)status.st_size, file);
	fclose(file);
	return bytes;
}

static void save(const char *path, const uint8_t *bytes, size_t size)
{
	FILE *file = fopen(path, "wbe");

	cr_assert(file && fwrite(bytes, 1, size, file) == size);
	fclose(file);
}

/* ---- In order ---- */

Test(log, a_new_one_is_empty)
{
	struct segue_log *log = create(0);
	struct segue_log_known known = known_of(log);

	cr_expect_eq(check_all(log, 0), 0);
	segue_log_close(log);
	cr_assert_eq(reopen(&known, 0, &log), 0, "%s", segue_error_detail());
	cr_expect_eq(check_all(log, 0), 0);
	segue_log_close(log);
}

/* Of any number of sequences, in files of any size, synced or not. */
Test(log, goes_on_after_each_close)
{
	for (uint64_t file_bytes = 1; file_bytes < 40000; file_bytes = 7 * file_bytes + 900) {
		struct segue_log *log = create(file_bytes);
		struct segue_log_known known = known_of(log);

		for (uint64_t n = 0, round = 0; n < 60; n = check_all(log, 0), round++) {
			append(log, n, n + 1 + round % 5);
			if (round % 2) {
				cr_assert_eq(segue_log_sync(log), 0);
				known = known_of(log);
			}
			if (round % 7 == 6)
				cr_assert_eq(segue_log_finish(log), 0);
			segue_log_close(log);
			cr_assert_eq(
				reopen(&known, file_bytes, &log), 0, "%s", segue_error_detail());
			struct segue_log_stand stand;
			segue_log_look(log, &stand);
			cr_assert_eq(stand.written.number, n + 1 + round % 5);
			cr_assert_eq(stand.synced.number, stand.written.number);
		}
		segue_log_close(log);
		segue_tmpdir_remove_path(dir);
	}
}

/* A finished file is a sequence file as any: foot, index, fingerprint. */
Test(log, finished_files_are_sequence_files)
{
	struct segue_log *log = create(1);
	size_t size;

	append(log, 0, 4);
	cr_assert_eq(segue_log_finish(log), 0);
	segue_log_close(log);
	for (uint64_t n = 0; n < 4; n++) {
		uint8_t *bytes = load(path_of(n), &size);
		struct segue_seqfile_head head;
		struct segue_seqfile_foot foot;
		struct segue_seqfile_entry entry;
		struct segue_seqfile_indexed indexed;

		cr_assert_eq(segue_seqfile_read_head(bytes, size, &head), 0);
		cr_assert_eq(
			segue_seqfile_read_foot(bytes + size - SEGUE_SEQFILE_FOOT, size, &foot), 0,
			"%s", segue_error_detail());
		cr_expect(foot.entries == 1 && foot.head_size == head.size);
		memcpy(&indexed, bytes + foot.index, sizeof(indexed));
		cr_assert_eq(segue_seqfile_read_entry(
				     &head, bytes + indexed.offset, size - indexed.offset, &entry),
			0);
		cr_expect(entry.crc == indexed.crc && entry.steps == indexed.steps);
		cr_expect_eq(entry.size, foot.index - head.size);
		cr_expect(head.log->count == (n < 3 ? n : 3) && head.log->first == n);
		segue_seqfile_free_head(&head);
		free(bytes);
	}
}

Test(log, bytes_and_floors)
{
	struct segue_log *log = create(1);
	struct segue_log_stand stand;
	uint64_t all = segue_log_bytes_from(log, 0);

	cr_expect_eq(all, 0);
	append(log, 0, 3);
	all = segue_log_bytes_from(log, 0);
	cr_expect_gt(all, segue_log_bytes_from(log, 1));
	cr_expect_gt(segue_log_bytes_from(log, 1), segue_log_bytes_from(log, 2));
	cr_expect_gt(segue_log_bytes_from(log, 2), 0);
	cr_expect_eq(segue_log_bytes_from(log, 3), 0);
	for (uint64_t n = 0; n < 3; n++)
		cr_expect_eq(segue_log_floor(log, n), n);
	cr_expect_eq(segue_log_floor(log, 9), 2);
	segue_log_look(log, &stand);
	cr_expect_eq(stand.files, 3);
	segue_log_close(log);
}

/* ---- Exactly once ---- */

/* A file a sequence. */
Test(log, what_is_to_be_retained)
{
	struct segue_log *log = create(1);
	uint64_t of[7];

	cr_expect_eq(segue_log_retained(log, &(struct segue_log_retain){1, 1}), 0);
	append(log, 0, 6);
	/* Nothing is synced beyond what files that are finished have. */
	cr_expect_eq(segue_log_retained(log, &(struct segue_log_retain){1, 0}), 4);
	cr_assert_eq(segue_log_sync(log), 0);
	for (uint64_t n = 0; n <= 6; n++)
		of[n] = segue_log_bytes_from(log, n);
	for (uint64_t n = 1; n <= 6; n++) {
		cr_expect_eq(
			segue_log_retained(log, &(struct segue_log_retain){6 - n + 1, 0}), n - 1);
		cr_expect_eq(
			segue_log_retained(log, &(struct segue_log_retain){0, of[n] + 1}), n - 1);
		if (n < 6)
			cr_expect_eq(
				segue_log_retained(log, &(struct segue_log_retain){0, of[n]}), n);
		cr_expect_eq(segue_log_retained(log, &(struct segue_log_retain){7 - n, of[3]}),
			n - 1 < 3 ? n - 1 : 3);
	}
	cr_expect_eq(segue_log_retained(log, &(struct segue_log_retain){100, 0}), 0);
	cr_expect_eq(segue_log_retained(log, &(struct segue_log_retain){0, UINT64_MAX}), 0);
	segue_log_close(log);
}

Test(log, serials_follow_one_another)
{
	struct segue_log *log = create(0);
	struct segue_logwork work = {.what = 0, .serial = 1, .producer = "a"};
	uint64_t number;

	cr_assert_eq(segue_logwork_append(log, &work, &number), 0);
	cr_expect_eq(segue_logwork_append(log, &work, &number), SEGUE_EINVAL);
	cr_expect(says("serial 1 does not follow 1"), "%s", segue_error_detail());
	work.serial = 3;
	cr_expect_eq(segue_logwork_append(log, &work, &number), SEGUE_EINVAL);
	work.producer = "b";
	cr_expect_eq(segue_logwork_append(log, &work, &number), SEGUE_EINVAL);
	work.serial = 1;
	cr_expect_eq(segue_logwork_append(log, &work, &number), 0);
	cr_expect_eq(number, 1);
	segue_log_close(log);
}

/* Of a producer all of whose sequences were given up, serial and cursor stay. */
Test(log, producers_outlive_their_files)
{
	struct segue_log *log = create(1);
	struct segue_logwork work = {.what = 0, .serial = 1, .producer = "early"};
	const struct segue_seqlog_producer *producer;
	struct segue_log_known known;
	struct segue_log_stand stand;
	struct segue_log_entry *entry;
	uint64_t number;

	cr_assert_eq(segue_logwork_append(log, &work, &number), 0);
	for (work = (struct segue_logwork){1, 1, "late", 0}; work.what < 9; work.what++) {
		cr_assert_eq(segue_logwork_append(log, &work, &number), 0);
		work.serial++;
	}
	cr_assert_eq(segue_log_sync(log), 0);
	known = known_of(log);
	known.first = segue_log_floor(log, 8);
	cr_assert_eq(segue_log_give_up(log, known.first), 0);
	segue_log_look(log, &stand);
	cr_expect(stand.first == 8 && stand.files == 1);
	cr_expect_eq(segue_log_read(log, 7, &entry), SEGUE_ENOTFOUND);
	cr_expect_eq(access(path_of(7), F_OK), -1);
	segue_log_close(log);
	cr_assert_eq(reopen(&known, 1, &log), 0, "%s", segue_error_detail());
	producer = segue_seqlog_find(segue_log_producers(log), "early", 5);
	cr_assert(producer && producer->serial == 1 && producer->number == 0);
	cr_expect_arr_eq(producer->cursor, "0", 1);
	work = (struct segue_logwork){0, 1, "early", 0};
	cr_expect_eq(segue_logwork_append(log, &work, &number), SEGUE_EINVAL);
	cr_assert_eq(segue_log_read(log, 8, &entry), 0);
	segue_log_entry_free(entry);
	segue_log_close(log);
}

/* What was given up is gone, however many of the files are still there. */
Test(log, given_up_files_that_are_left)
{
	for (unsigned left = 0; left < 16; left++) {
		struct segue_log *log = create(1);
		struct segue_log_known known;
		struct segue_log_stand stand;

		append(log, 0, 6);
		cr_assert_eq(segue_log_sync(log), 0);
		known = known_of(log);
		known.first = 4;
		segue_log_close(log);
		for (unsigned n = 0; n < 4; n++)
			if (!(left & 1u << n))
				cr_assert_eq(unlink(path_of(n)), 0);
		cr_assert_eq(reopen(&known, 1, &log), 0, "%s", segue_error_detail());
		segue_log_look(log, &stand);
		cr_expect_eq(stand.first, 4);
		cr_expect_eq(check_all(log, 4), 6);
		for (unsigned n = 0; n < 4; n++)
			cr_expect_eq(access(path_of(n), F_OK), -1);
		segue_log_close(log);
		segue_tmpdir_remove_path(dir);
	}
}

/* ---- What a power cut leaves ---- */

/* Numbers and ends of the entries of the one file. */
static size_t find_ends(struct segue_log *log, const uint8_t *bytes, size_t size, uint64_t *end)
{
	struct segue_seqfile_head head;
	struct segue_seqfile_entry entry;
	uint64_t at;
	size_t count = 0;

	(void)log;
	cr_assert_eq(segue_seqfile_read_head(bytes, size, &head), 0);
	for (at = head.size; at < size; at += entry.size) {
		cr_assert_eq(segue_seqfile_read_entry(&head, bytes + at, size - at, &entry), 0);
		end[count++] = at + entry.size;
	}
	segue_seqfile_free_head(&head);
	return count;
}

/* A log of a few sequences, of which some are known; returns its one file. */
static uint8_t *make_few(uint64_t synced, uint64_t written, struct segue_log_known *known,
	size_t *size, uint64_t *end)
{
	struct segue_log *log = create(0);

	append(log, 0, synced);
	cr_assert_eq(segue_log_sync(log), 0);
	*known = known_of(log);
	append(log, synced, written);
	uint8_t *bytes = load(path_of(0), size);
	cr_assert_eq(find_ends(log, bytes, *size, end), written);
	segue_log_close(log);
	return bytes;
}

/* It opens with so many, takes more, and these are there when it is opened again. */
static void expect_left(const struct segue_log_known *known, uint64_t count)
{
	struct segue_log_known then;
	struct segue_log *log;

	cr_assert_eq(reopen(known, 0, &log), 0, "%s", segue_error_detail());
	cr_assert_eq(check_all(log, 0), count);
	append(log, count, count + 2);
	cr_assert_eq(segue_log_sync(log), 0);
	then = known_of(log);
	segue_log_close(log);
	cr_assert_eq(reopen(&then, 0, &log), 0, "%s", segue_error_detail());
	cr_assert_eq(check_all(log, 0), count + 2);
	segue_log_close(log);
}

Test(log, cut_at_every_byte)
{
	struct segue_log_known known;
	struct segue_log *log;
	uint64_t end[8];
	size_t size, all;
	uint8_t *bytes = make_few(2, 5, &known, &all, end), *after;

	for (size_t cut = all; cut > end[1] - 70; cut--) {
		uint64_t left = 0;

		save(path_of(0), bytes, cut);
		while (left < 5 && end[left] <= cut)
			left++;
		if (left >= 2) {
			expect_left(&known, left);
			continue;
		}
		cr_assert_eq(reopen(&known, 0, &log), SEGUE_ESTORE);
		after = load(path_of(0), &size);
		cr_assert(size == cut && memcmp(after, bytes, cut) == 0, "it was changed");
		free(after);
	}
	free(bytes);
}

/* A sector or a page that is missing, in what is not known: all before it stays, nothing behind. */
Test(log, holes_before_the_tail)
{
	struct segue_log_known known;
	uint64_t end[40];
	size_t all;
	uint8_t *bytes = make_few(3, 30, &known, &all, end);

	for (size_t unit = 64; unit <= 4096; unit *= 8)
		for (size_t hole = end[2] / unit * unit; hole < all; hole += unit) {
			size_t from = hole < end[2] ? end[2] : hole;
			size_t to = hole + unit < all ? hole + unit : all;
			uint8_t *torn = malloc(all);
			uint64_t left = 0;

			memcpy(torn, bytes, all);
			memset(torn + from, 0, to - from);
			while (end[left] <= from)
				left++;
			/* Zeros between columns are no loss. */
			while (left < 30 && memcmp(torn, bytes, end[left]) == 0)
				left++;
			save(path_of(0), torn, all);
			expect_left(&known, left);
			free(torn);
		}
	free(bytes);
}

/* In what is known each byte of a header counts; of values their reading sees it. */
Test(log, damage_in_what_is_known)
{
	struct segue_log_known known;
	struct segue_log_entry *entry;
	struct segue_log *log;
	uint64_t end[8], refused = 0, seen = 0;
	size_t all;
	uint8_t *bytes = make_few(4, 4, &known, &all, end);

	for (size_t at = 0; at < all; at++) {
		bytes[at] ^= 0x11;
		save(path_of(0), bytes, all);
		bytes[at] ^= 0x11;
		int rc = reopen(&known, 0, &log);
		if (rc) {
			cr_assert(
				rc == SEGUE_ESTORE || rc == SEGUE_EFORMAT, "byte %zu: %d", at, rc);
			refused++;
			continue;
		}
		for (uint64_t n = 0; n < 4; n++) {
			rc = segue_log_read(log, n, &entry);
			cr_assert(rc == 0 || rc == SEGUE_EDATA);
			seen += rc != 0;
			uint64_t what;
			if (!rc)
				cr_assert(segue_logwork_tell(entry, &what) && what == n);
			if (!rc)
				segue_log_entry_free(entry);
		}
		segue_log_close(log);
	}
	cr_expect_gt(refused, 500);
	cr_expect_gt(seen, 500);
	free(bytes);
}

/* Old entries that come to lie behind new ones are not theirs: the running hash says so. */
Test(log, an_older_tail_comes_back)
{
	struct segue_log_known known;
	struct segue_log *log;
	uint64_t end[8], number;
	size_t all, size;
	uint8_t *bytes = make_few(2, 5, &known, &all, end), *after;

	save(path_of(0), bytes, end[1]);
	cr_assert_eq(reopen(&known, 0, &log), 0);
	/* Another one of the same size in the place of number 2. */
	const struct segue_logwork other = {.what = 2, .serial = 1, .producer = "d"};
	cr_assert_eq(segue_logwork_append(log, &other, &number), 0);
	segue_log_close(log);
	after = load(path_of(0), &size);
	cr_assert_eq(size, end[2], "it should be as long as the one before");
	memcpy(bytes, after, size);
	save(path_of(0), bytes, all);
	cr_assert_eq(reopen(&known, 0, &log), 0, "%s", segue_error_detail());
	struct segue_log_stand stand;
	segue_log_look(log, &stand);
	cr_expect_eq(stand.written.number, 3);
	segue_log_close(log);
	free(after);
	free(bytes);
}

/* A foot that is torn is none; a file that lost it is not the last one's. */
Test(log, torn_feet)
{
	struct segue_log *log = create(0);
	struct segue_log_known known;
	uint64_t end[8];
	size_t all, size;

	append(log, 0, 5);
	cr_assert_eq(segue_log_sync(log), 0);
	known = known_of(log);
	uint8_t *bytes = load(path_of(0), &all);
	find_ends(log, bytes, all, end);
	free(bytes);
	cr_assert_eq(segue_log_finish(log), 0);
	segue_log_close(log);
	bytes = load(path_of(0), &all);
	for (size_t cut = all - 1; cut >= end[4]; cut--) {
		save(path_of(0), bytes, cut);
		expect_left(&known, 5);
	}
	for (size_t at = end[4]; at < all; at++) {
		bytes[at] ^= 0x40;
		save(path_of(0), bytes, all);
		bytes[at] ^= 0x40;
		cr_assert_eq(reopen(&known, 0, &log), 0, "byte %zu: %s", at, segue_error_detail());
		cr_assert_eq(check_all(log, 0), 5);
		segue_log_close(log);
	}
	/* One more file behind it: then it must be whole. */
	save(path_of(0), bytes, all);
	cr_assert_eq(reopen(&known, 0, &log), 0);
	append(log, 5, 6);
	segue_log_close(log);
	save(path_of(0), bytes, end[4]);
	cr_expect_eq(reopen(&known, 0, &log), SEGUE_ESTORE);
	cr_expect(says("was not finished"), "%s", segue_error_detail());
	free(bytes);
	bytes = load(path_of(5), &size);
	free(bytes);
}

/* ---- Not the log that the store knows ---- */

Test(log, another_one_is_refused)
{
	struct segue_log *log = create(2000);
	struct segue_log_known known, other;

	append(log, 0, 30);
	cr_assert_eq(segue_log_sync(log), 0);
	known = known_of(log);
	segue_log_close(log);
	other = known;
	other.id[0]++;
	cr_expect_eq(reopen(&other, 0, &log), SEGUE_ESTORE);
	cr_expect(says("another one than the store has"), "%s", segue_error_detail());
	other = known;
	other.synced.hash[1]++;
	cr_expect_eq(reopen(&other, 0, &log), SEGUE_ESTORE);
	cr_expect(says("not the one that the store refers to"), "%s", segue_error_detail());
	other = known;
	other.synced.number++;
	cr_expect_eq(reopen(&other, 0, &log), SEGUE_ESTORE);
	cr_expect(says("ends before sequence 30"), "%s", segue_error_detail());
	cr_assert_eq(unlink(path_of(0)), 0);
	cr_expect_eq(reopen(&known, 0, &log), SEGUE_ESTORE);
	cr_expect(says("files are missing"), "%s", segue_error_detail());
}

/* Any one file removed, or exchanged for another: seen, and nothing is changed. */
Test(log, files_missing_or_exchanged)
{
	struct segue_log *log = create(1);
	struct segue_log_known known;
	size_t size;

	append(log, 0, 6);
	cr_assert_eq(segue_log_sync(log), 0);
	known = known_of(log);
	segue_log_close(log);
	for (uint64_t n = 0; n < 6; n++) {
		uint8_t *bytes = load(path_of(n), &size);

		cr_assert_eq(unlink(path_of(n)), 0);
		cr_expect_eq(reopen(&known, 1, &log), SEGUE_ESTORE, "file %" PRIu64, n);
		for (uint64_t other = 0; other < 6; other++) {
			size_t other_size;
			uint8_t *others;

			if (other == n)
				continue;
			others = load(path_of(other), &other_size);
			save(path_of(n), others, other_size);
			cr_expect_eq(reopen(&known, 1, &log), SEGUE_ESTORE);
			free(others);
		}
		save(path_of(n), bytes, size);
		free(bytes);
	}
	cr_assert_eq(reopen(&known, 1, &log), 0, "%s", segue_error_detail());
	cr_expect_eq(check_all(log, 0), 6);
	segue_log_close(log);
}

Test(log, other_features_are_refused)
{
	struct segue_log *log = create(0);
	struct segue_log_known known = known_of(log);
	struct segue_seqfile_field fields[SEGUE_LOGWORK_FIELDS];
	struct segue_log_means with = means(0);

	segue_log_close(log);
	memcpy(fields, segue_logwork_fields, sizeof(fields));
	fields[2].dims[0]++;
	with.fields = fields;
	cr_expect_eq(segue_log_open(&with, &known, &log), SEGUE_ESTORE);
	cr_expect(says("its features are others"), "%s", segue_error_detail());
}

Test(log, made_where_something_lies)
{
	struct segue_log *log = create(0);
	const struct segue_log_means with = means(0);
	static const uint8_t other[SEGUE_SEQLOG_ID] = "other";

	segue_log_close(log);
	cr_assert_eq(segue_log_create(&with, other, &log), 0, "%s", segue_error_detail());
	append(log, 0, 1);
	segue_log_close(log);
	cr_expect_eq(segue_log_create(&with, id, &log), SEGUE_ESTORE);
	cr_expect(
		says("a log lies there that the store does not know"), "%s", segue_error_detail());
}

/* ---- A full disk ---- */

/* A limit on the size of files stands for it. */
Test(log, a_full_disk_refuses_and_goes_on)
{
	struct segue_log *log = create(0);
	const struct rlimit none = {RLIM_INFINITY, RLIM_INFINITY};
	struct segue_log_known known;
	struct segue_logwork work = {.what = 3, .serial = 2, .producer = "a", .steps = 2000};
	uint64_t number;
	struct stat before, after;

	signal(SIGXFSZ, SIG_IGN);
	append(log, 0, 3);
	cr_assert_eq(stat(path_of(0), &before), 0);
	for (rlim_t room = 0; room < 20000; room += 600) {
		const struct rlimit limit = {(rlim_t)before.st_size + room, RLIM_INFINITY};

		cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
		cr_assert_eq(segue_logwork_append(log, &work, &number), SEGUE_ENOSPACE, "%s",
			segue_error_detail());
		cr_assert_eq(stat(path_of(0), &after), 0);
		cr_assert_eq(after.st_size, before.st_size, "it is not cut back");
		cr_assert_eq(segue_log_finish(log), SEGUE_ENOSPACE * (room < 200));
		if (room >= 200) {
			cr_assert_eq(segue_log_sync(log), 0);
			break;
		}
	}
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &none), 0);
	append(log, 3, 20);
	cr_assert_eq(segue_log_sync(log), 0);
	known = known_of(log);
	segue_log_close(log);
	cr_assert_eq(reopen(&known, 0, &log), 0);
	cr_expect_eq(check_all(log, 0), 20);
	segue_log_close(log);
}

/* ---- What cannot be ---- */

Test(log, sequences_that_cannot_be)
{
	struct segue_log *log = create(0);
	struct segue_log_entry *entry;
	const struct segue_log_sequence good = {.key = "key",
		.key_size = 3,
		.steps = 1,
		.total_length = SEGUE_SEQFILE_NO_TOTAL,
		.producer = "a",
		.producer_size = 1,
		.serial = 1};
	struct segue_log_sequence bad = good;

	cr_assert_eq(segue_log_entry_make(log, &good, &entry), 0);
	segue_log_entry_free(entry);
	bad.steps = 0;
	cr_expect_eq(segue_log_entry_make(log, &bad, &entry), SEGUE_EINVAL);
	bad.steps = UINT64_MAX;
	cr_expect_eq(segue_log_entry_make(log, &bad, &entry), SEGUE_EINVAL);
	bad = good;
	bad.key_size = 0;
	cr_expect_eq(segue_log_entry_make(log, &bad, &entry), SEGUE_EINVAL);
	bad = good;
	bad.producer_size = 65537;
	cr_expect_eq(segue_log_entry_make(log, &bad, &entry), SEGUE_EINVAL);
	bad = good;
	bad.cursor_size = 65536;
	cr_expect_eq(segue_log_entry_make(log, &bad, &entry), SEGUE_EINVAL);
	bad = good;
	bad.total_length = UINT64_MAX - 1;
	cr_expect_eq(segue_log_entry_make(log, &bad, &entry), SEGUE_EINVAL);
	segue_log_close(log);
}
