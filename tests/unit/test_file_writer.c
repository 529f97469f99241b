/*
 * Tests of the writer of sequence files: what it wrote is read back by the functions of
 * core/sequence_file.h; a write that fails anywhere leaves whole sequences.
 */
#include "core/sequence_file.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "tmpdir.h"

static const struct segue_feature sequences[] = {
	{.name = "x", .dtype = SEGUE_FLOAT32, .rank = 1, .dims = {3}},
	{.name = "flag", .dtype = SEGUE_BOOL},
};
static const struct segue_feature contexts[] = {{.name = "id", .dtype = SEGUE_INT64}};
static const struct segue_feature states[] = {
	{.name = "h", .dtype = SEGUE_FLOAT64, .rank = 1, .dims = {5}}};

static const struct segue_file_spec spec = {.size = sizeof(spec),
	.sequences = sequences,
	.sequence_count = 2,
	.contexts = contexts,
	.context_count = 1,
	.states = states,
	.state_count = 1};

#define STEPS_MAX 200000
static float x[STEPS_MAX][3];
static bool flag[STEPS_MAX];
static int64_t id;
static double h[5];
static const void *const arrays[] = {x, flag, &id, h};

/* What sequence `n` holds. */
static struct segue_sequence nth(uint64_t n, uint64_t steps)
{
	for (uint64_t t = 0; t < steps; t++) {
		for (unsigned k = 0; k < 3; k++)
			x[t][k] = (float)(n * 1000 + t) + (float)k / 4;
		flag[t] = (t * 7 + n) % 3 == 0;
	}
	id = -(int64_t)n;
	for (unsigned k = 0; k < 5; k++)
		h[k] = (double)n / (k + 1);
	return (struct segue_sequence){.size = sizeof(struct segue_sequence),
		.steps = steps,
		.total_length = steps - n % 2,
		.has_total_length = n % 3 != 0,
		.arrays = arrays};
}

static uint8_t *read_file(const char *path, size_t *size)
{
	FILE *file = fopen(path, "rbe");
	struct stat info;

	cr_assert_not_null(file, "%s", path);
	cr_assert_eq(fstat(fileno(file), &info), 0);
	*size = (size_t)info.st_size;
	uint8_t *bytes = malloc(*size + 1);
	cr_assert_eq(fread(bytes, 1, *size, file), *size);
	fclose(file);
	return bytes;
}

/* Zeros up to the next multiple of 64. */
static size_t aligned(const uint8_t *bytes, size_t at)
{
	for (; at % 64; at++)
		cr_assert_eq(bytes[at], 0, "at %zu", at);
	return at;
}

/* Columns and tables of the entry at `at`; the arrays hold what it should have. */
static void check_columns(const uint8_t *bytes, size_t at, const struct segue_seqfile_head *head,
	const struct segue_seqfile_entry *entry)
{
	uint8_t *tables = malloc(entry->size);
	size_t size = 0;
	uint64_t columns[4];
	struct segue_seqfile_entry again = *entry;

	cr_assert_eq(segue_seqfile_lay_out(head, &again, columns), 0);
	aligned(bytes, at + entry->header_size);
	for (uint32_t i = 0; i < head->count; i++) {
		uint64_t column = segue_seqfile_column_size(&head->fields[i], entry);
		uint64_t table = 4 * segue_seqfile_blocks(column);

		cr_assert_eq(memcmp(bytes + at + columns[i], arrays[i], column), 0, "%s",
			head->fields[i].name);
		segue_seqfile_put_table(arrays[i], column, tables + size);
		cr_assert_eq(memcmp(bytes + at + columns[i] + column, tables + size, table), 0);
		aligned(bytes, at + columns[i] + column + table);
		size += table;
	}
	XXH128_hash_t hash = XXH3_128bits(tables, size);
	cr_assert(hash.low64 == entry->hash[0] && hash.high64 == entry->hash[1]);
	free(tables);
}

/* The file has these sequences, of so many steps, and nothing else. */
static void check_file(const char *path, const uint64_t *steps, uint64_t count)
{
	struct segue_seqfile_head head;
	struct segue_seqfile_foot foot;
	uint64_t sum = 0;
	size_t size, at;
	uint8_t *bytes = read_file(path, &size);
	uint8_t *headers = malloc(size);
	size_t header_size;
	uint32_t crc;

	cr_assert_eq(segue_seqfile_read_foot(bytes + size - SEGUE_SEQFILE_FOOT, size, &foot), 0,
		"%s", segue_error_detail());
	cr_assert_eq(segue_seqfile_read_head(bytes, size, &head), 0, "%s", segue_error_detail());
	cr_assert_eq(foot.entries, count);
	cr_assert_eq(foot.head_size, head.size);
	memcpy(headers, bytes, head.size);
	at = header_size = head.size;
	for (uint64_t n = 0; n < count; n++) {
		const struct segue_sequence sequence = nth(n, steps[n]);
		struct segue_seqfile_indexed indexed;
		struct segue_seqfile_entry entry;
		char key[300];

		cr_assert_eq(segue_seqfile_read_entry(&head, bytes + at, size - at, &entry), 0,
			"%s", segue_error_detail());
		memcpy(&indexed, bytes + foot.index + 16 * n, 16);
		cr_assert_eq(indexed.offset, at);
		cr_assert_eq(indexed.steps, steps[n]);
		cr_assert_eq(indexed.crc, entry.crc);
		cr_assert_eq(entry.steps, steps[n]);
		cr_assert_eq(entry.total_length,
			sequence.has_total_length ? sequence.total_length : SEGUE_SEQFILE_NO_TOTAL);
		snprintf(key, sizeof(key), "%s:%" PRIu64, strrchr(path, '/') + 1, n);
		cr_assert_eq(entry.key_size, strlen(key));
		cr_assert_eq(memcmp(entry.key, key, entry.key_size), 0);
		check_columns(bytes, at, &head, &entry);
		memcpy(headers + header_size, bytes + at, entry.header_size);
		header_size += entry.header_size;
		sum += steps[n];
		at += entry.size;
	}
	cr_assert_eq(foot.index, at);
	cr_assert_eq(foot.steps, sum);
	memcpy(&crc, bytes + at + 16 * count, 4);
	cr_assert_eq(crc, segue_seqfile_crc(bytes + at, 16 * count));
	cr_assert_eq(aligned(bytes, at + 16 * count + 4), size - SEGUE_SEQFILE_FOOT);
	XXH128_hash_t hash = XXH3_128bits(headers, header_size);
	cr_assert(hash.low64 == foot.fingerprint[0] && hash.high64 == foot.fingerprint[1]);
	segue_seqfile_free_head(&head);
	free(headers);
	free(bytes);
}

static struct segue_file_writer *create(const char *path)
{
	struct segue_file_writer *writer;

	cr_assert_eq(segue_file_writer_create(path, &spec, &writer), 0, "%s", segue_error_detail());
	return writer;
}

static struct segue_tmpdir dir;

static void make_directory(void)
{
	segue_tmpdir_make(&dir, "file-writer");
}

static void remove_directory(void)
{
	segue_tmpdir_remove(&dir);
}

TestSuite(file_writer, .init = make_directory, .fini = remove_directory, .timeout = 120);

static const char *path_in(const char *name)
{
	static char path[SEGUE_TMPDIR_MAX];

	return segue_tmpdir_path(&dir, name, path);
}

static bool says(const char *words)
{
	return strstr(segue_error_detail(), words);
}

/* ---- What is written ---- */

/* About the borders of blocks, of the buffer (1 MiB), and beyond it. */
static const uint64_t some_steps[] = {
	1, 2, 341, 342, 4095, 4096, 4097, 12288, 87380, 87381, 87382, STEPS_MAX, 3, 87300, 1};
#define SOME (sizeof(some_steps) / sizeof(some_steps[0]))

Test(file_writer, what_was_added_comes_back)
{
	const char *path = path_in("some.segue");
	struct segue_file_writer *writer = create(path);
	uint64_t count, steps, bytes, sum = 0;
	struct stat info;

	for (uint64_t n = 0; n < SOME; n++) {
		const struct segue_sequence sequence = nth(n, some_steps[n]);

		cr_assert_eq(
			segue_file_writer_add(writer, &sequence), 0, "%s", segue_error_detail());
		sum += some_steps[n];
	}
	segue_file_writer_written(writer, &count, &steps, NULL);
	cr_expect(count == SOME && steps == sum);
	cr_assert_eq(segue_file_writer_close(writer), 0, "%s", segue_error_detail());
	segue_file_writer_written(writer, NULL, NULL, &bytes);
	cr_assert_eq(stat(path, &info), 0);
	cr_expect_eq(bytes, (uint64_t)info.st_size);
	/* What was reserved ahead is given back. */
	cr_expect(info.st_blocks * 512 < info.st_size + 500000, "%ld blocks", (long)info.st_blocks);
	cr_expect_eq(segue_file_writer_close(writer), SEGUE_EINVAL);
	cr_expect(says("is closed"));
	cr_expect_eq(segue_file_writer_abort(writer), SEGUE_EINVAL);
	const struct segue_sequence more = nth(0, 1);
	cr_expect_eq(segue_file_writer_add(writer, &more), SEGUE_EINVAL);
	segue_file_writer_destroy(writer);
	check_file(path, some_steps, SOME);
}

Test(file_writer, no_sequences_and_many)
{
	uint64_t *steps = calloc(5000, sizeof(*steps));

	for (uint64_t count = 0; count <= 5000; count += 2500) {
		char name[32];

		snprintf(name, sizeof(name), "%" PRIu64, count);
		const char *path = path_in(name);
		struct segue_file_writer *writer = create(path);
		for (uint64_t n = 0; n < count; n++) {
			steps[n] = 1 + n % 5;
			const struct segue_sequence sequence = nth(n, steps[n]);
			cr_assert_eq(segue_file_writer_add(writer, &sequence), 0);
		}
		cr_assert_eq(segue_file_writer_close(writer), 0);
		segue_file_writer_destroy(writer);
		check_file(path, steps, count);
	}
	free(steps);
}

Test(file_writer, keys)
{
	const char *path = path_in("keys");
	struct segue_file_writer *writer = create(path);
	struct segue_sequence sequence = nth(0, 1);
	static char key[SEGUE_KEY_MAX + 1];
	struct segue_seqfile_head head;
	struct segue_seqfile_entry entry;
	struct segue_seqfile_foot foot;
	size_t size;

	memset(key, 0xff, sizeof(key));
	key[7] = '\0';
	sequence.key = key;
	sequence.key_size = 0;
	cr_expect_eq(segue_file_writer_add(writer, &sequence), SEGUE_EINVAL);
	sequence.key_size = sizeof(key);
	cr_expect_eq(segue_file_writer_add(writer, &sequence), SEGUE_EINVAL);
	cr_expect(says("the key has 4097 bytes"), "%s", segue_error_detail());
	sequence.key_size = (size_t)UINT32_MAX + 2;
	cr_expect_eq(segue_file_writer_add(writer, &sequence), SEGUE_EINVAL);
	sequence.key_size = SEGUE_KEY_MAX;
	cr_expect_eq(segue_file_writer_add(writer, &sequence), 0);
	cr_expect_eq(segue_file_writer_close(writer), 0);
	segue_file_writer_destroy(writer);

	uint8_t *bytes = read_file(path, &size);
	cr_assert_eq(segue_seqfile_read_head(bytes, size, &head), 0);
	cr_assert_eq(segue_seqfile_read_entry(&head, bytes + head.size, size, &entry), 0);
	cr_expect_eq(entry.key_size, SEGUE_KEY_MAX);
	cr_expect_eq(memcmp(entry.key, key, SEGUE_KEY_MAX), 0);
	cr_assert_eq(segue_seqfile_read_foot(bytes + size - SEGUE_SEQFILE_FOOT, size, &foot), 0);
	cr_expect_eq(foot.key_max, SEGUE_KEY_MAX);
	segue_seqfile_free_head(&head);
	free(bytes);
}

/* ---- What is refused ---- */

Test(file_writer, sequences_that_cannot_be)
{
	const char *path = path_in("refused");
	struct segue_file_writer *writer = create(path);
	const void *missing[] = {x, flag, NULL, h};
	struct segue_sequence good = nth(0, 100), bad;
	const uint64_t steps[] = {100, 100};

	cr_assert_eq(segue_file_writer_add(writer, &good), 0);
#define REFUSED(words)                                                                             \
	cr_expect_eq(segue_file_writer_add(writer, &bad), SEGUE_EINVAL);                           \
	cr_expect(says(words), "%s", segue_error_detail())
	bad = good;
	bad.size = 0;
	REFUSED("size of struct segue_sequence is 0");
	bad = good;
	bad.steps = 0;
	REFUSED("0 steps");
	bad.steps = (uint64_t)UINT32_MAX + 1;
	REFUSED("4294967296 steps");
	bad = good;
	bad.has_total_length = true;
	bad.total_length = bad.steps + UINT32_MAX + 1;
	REFUSED("the total length is");
	bad.total_length = UINT64_MAX;
	REFUSED("the total length is");
	bad = good;
	bad.arrays = NULL;
	REFUSED("arrays is missing");
	bad.arrays = missing;
	REFUSED("context[\"id\"] is missing");
	bad.arrays = arrays;
	for (size_t at = 0; at < 100; at++) {
		((uint8_t *)flag)[at] ^= 2;
		REFUSED("sequences[\"flag\"] has a bool that is neither 0 nor 1");
		((uint8_t *)flag)[at] ^= 2;
	}
	good = nth(1, 100);
	cr_assert_eq(segue_file_writer_add(writer, &good), 0);
	cr_assert_eq(segue_file_writer_close(writer), 0);
	segue_file_writer_destroy(writer);
	check_file(path, steps, 2);
}

Test(file_writer, offsets_that_cannot_be)
{
	static const struct segue_feature ragged[] = {
		{.name = "w", .dtype = SEGUE_INT16, .form = SEGUE_FORM_RAGGED},
		{.name = "flags", .dtype = SEGUE_BOOL, .form = SEGUE_FORM_RAGGED}};
	const struct segue_file_spec ragged_spec = {
		.size = sizeof(ragged_spec), .sequences = ragged, .sequence_count = 2};
	static const int16_t w[] = {1, 2, 3};
	static uint8_t flags[] = {0, 1};
	const void *of[] = {w, flags};
	int64_t w_offsets[] = {0, 2, 3}, flags_offsets[] = {0, 0, 2};
	const int64_t *offsets[] = {w_offsets, flags_offsets};
	struct segue_sequence good = {.size = sizeof(good),
				      .steps = 2,
				      .arrays = of,
				      .offsets = offsets},
			      bad = good;
	struct segue_file_writer *writer;

	cr_assert_eq(segue_file_writer_create(path_in("ragged"), &ragged_spec, &writer), 0);
	bad.offsets = NULL;
	REFUSED("the offsets of sequences[\"w\"] are missing");
	bad = good;
	bad.steps = UINT64_MAX;
	REFUSED("the sequence has 18446744073709551615 steps");
	bad = good;
	w_offsets[0] = 1;
	REFUSED("the offsets of sequences[\"w\"] do not begin at 0");
	w_offsets[0] = 0;
	w_offsets[1] = 4;
	REFUSED("or one is below that before it");
	w_offsets[1] = w_offsets[2] = -1;
	REFUSED("or one is below that before it");
	w_offsets[1] = 2;
	w_offsets[2] = INT64_MAX;
	REFUSED("2 steps of \"w\" are more than fits");
	w_offsets[2] = 3;
	flags[1] = 2;
	REFUSED("sequences[\"flags\"] has a bool that is neither 0 nor 1");
	flags[1] = 1;
	of[0] = NULL;
	REFUSED("the array of sequences[\"w\"] is missing");
	w_offsets[1] = w_offsets[2] = 0; /* of no values, none is needed */
	cr_expect_eq(segue_file_writer_add(writer, &good), 0, "%s", segue_error_detail());
	cr_expect_eq(segue_file_writer_close(writer), 0);
	segue_file_writer_destroy(writer);
}

static int try_create(const char *path, const struct segue_file_spec *given)
{
	struct segue_file_writer *writer;
	int rc = segue_file_writer_create(path, given, &writer);

	if (!rc)
		segue_file_writer_destroy(writer);
	return rc;
}

Test(file_writer, specs_that_cannot_be)
{
	const char *path = path_in("refused");
	static char name[SEGUE_NAME_MAX + 2];
	struct segue_feature bad = {.name = NULL, .dtype = SEGUE_INT32};
	struct segue_file_spec given;
	struct {
		struct segue_file_spec known;
		char later[8];
	} larger = {.known = spec};

#define NOT(rc, words)                                                                             \
	cr_expect_eq(try_create(path, &given), rc);                                                \
	cr_expect(says(words), "%s", segue_error_detail());                                        \
	cr_expect(access(path, F_OK) < 0)
	given = spec;
	given.size--;
	NOT(SEGUE_EINVAL, "set it to sizeof(struct segue_file_spec)");
	given = spec;
	given.sequence_count = 0;
	NOT(SEGUE_EINVAL, "at least one sequence feature");
	given.sequence_count = SIZE_MAX;
	NOT(SEGUE_EINVAL, "at most 512 fit");
	given = spec;
	given.states = NULL;
	NOT(SEGUE_EINVAL, "states is NULL and should have 1 entries");
	given = spec;
	given.contexts = &bad;
	NOT(SEGUE_EINVAL, "context[0].name is missing");
	memset(name, 'n', SEGUE_NAME_MAX + 1);
	bad.name = name;
	NOT(SEGUE_EINVAL, "context[0].name has 256 bytes");
	bad.name = "a:b";
	NOT(SEGUE_EINVAL, "':'");
	bad.name = "id";
	bad.dtype = 0;
	NOT(SEGUE_EINVAL, "context[\"id\"]: dtype is 0");
	cr_expect_eq(try_create(NULL, &spec), SEGUE_EINVAL);
	cr_expect_eq(try_create(path, NULL), SEGUE_EINVAL);

	larger.known.size = sizeof(larger);
	larger.later[7] = 1;
	cr_expect_eq(try_create(path, &larger.known), SEGUE_EINVAL);
	cr_expect(says("does not know"), "%s", segue_error_detail());
	larger.later[7] = 0; /* a caller of a later version that asks for nothing new */
	cr_expect_eq(try_create(path, &larger.known), 0);
}

Test(file_writer, paths_that_cannot_be)
{
	char long_name[400];

	cr_expect_eq(try_create("", &spec), SEGUE_EINVAL);
	cr_expect_eq(try_create(path_in(""), &spec), SEGUE_EINVAL);
	cr_expect_eq(try_create(path_in("none/x"), &spec), SEGUE_ESYSTEM);
	cr_expect(says("the directory of"), "%s", segue_error_detail());
	cr_expect_eq(try_create(path_in("x"), &spec), 0);
	cr_expect_eq(try_create(path_in("x"), &spec), SEGUE_ESYSTEM);
	cr_expect(says("is there already"), "%s", segue_error_detail());
	cr_expect_eq(try_create(path_in("x/y"), &spec), SEGUE_ESYSTEM);
	cr_expect(says("is no directory"), "%s", segue_error_detail());
	memset(long_name, 'n', sizeof(long_name) - 1);
	long_name[sizeof(long_name) - 1] = '\0';
	cr_expect_eq(try_create(path_in(long_name), &spec), SEGUE_ESYSTEM);
	cr_expect_eq(symlink("nowhere", path_in("link")), 0);
	cr_expect_eq(try_create(path_in("link"), &spec), SEGUE_ESYSTEM);
	cr_expect(says("is there already"), "%s", segue_error_detail());
}

/* ---- Ends that are none ---- */

/* Head and whole entries are there, and no foot. */
static void check_unfinished(const char *path, uint64_t count)
{
	struct segue_seqfile_head head;
	struct segue_seqfile_foot foot;
	size_t size;
	uint8_t *bytes = read_file(path, &size);

	cr_assert_eq(segue_seqfile_read_head(bytes, size, &head), 0);
	size_t at = head.size;
	for (uint64_t n = 0; n < count; n++) {
		struct segue_seqfile_entry entry;

		cr_assert_eq(segue_seqfile_read_entry(&head, bytes + at, size - at, &entry), 0);
		at += entry.size;
	}
	cr_assert_eq(at, size);
	cr_assert_eq(segue_seqfile_read_foot(bytes + size - SEGUE_SEQFILE_FOOT, size, &foot),
		SEGUE_EINVAL);
	cr_expect(says("no foot"));
	segue_seqfile_free_head(&head);
	free(bytes);
}

Test(file_writer, not_closed_and_aborted)
{
	const char *path = path_in("unfinished");
	struct segue_file_writer *writer = create(path);
	struct segue_sequence sequence = nth(0, 50);

	check_unfinished(path, 0);
	cr_assert_eq(segue_file_writer_add(writer, &sequence), 0);
	cr_assert_eq(segue_file_writer_add(writer, &sequence), 0);
	segue_file_writer_destroy(writer);
	check_unfinished(path, 2);
	cr_assert_eq(unlink(path), 0);

	writer = create(path);
	cr_assert_eq(segue_file_writer_add(writer, &sequence), 0);
	cr_assert_eq(segue_file_writer_abort(writer), 0);
	cr_expect(access(path, F_OK) < 0);
	cr_expect_eq(segue_file_writer_add(writer, &sequence), SEGUE_EINVAL);
	cr_expect_eq(segue_file_writer_close(writer), SEGUE_EINVAL);
	segue_file_writer_destroy(writer);
	segue_file_writer_destroy(NULL);

	/* Another file that has come in its place stays. */
	writer = create(path);
	cr_assert_eq(unlink(path), 0);
	close(open(path, O_CREAT | O_WRONLY, 0666));
	cr_assert_eq(segue_file_writer_abort(writer), 0);
	segue_file_writer_destroy(writer);
	cr_expect_eq(access(path, F_OK), 0);
}

Test(file_writer, a_child_has_nothing_of_it)
{
	const char *path = path_in("forked");
	struct segue_file_writer *writer = create(path);
	const struct segue_sequence first = nth(0, 10);
	const uint64_t steps[] = {10, 20};
	int status;

	cr_assert_eq(segue_file_writer_add(writer, &first), 0);
	pid_t child = fork();
	if (child == 0) {
		bool right = segue_file_writer_add(writer, &first) == SEGUE_EFORKED &&
			     segue_file_writer_close(writer) == SEGUE_EFORKED &&
			     segue_file_writer_abort(writer) == SEGUE_EFORKED;
		segue_file_writer_destroy(writer);
		_exit(right ? 0 : 1);
	}
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert_eq(status, 0);
	const struct segue_sequence second = nth(1, 20);
	cr_assert_eq(segue_file_writer_add(writer, &second), 0);
	cr_assert_eq(segue_file_writer_close(writer), 0);
	segue_file_writer_destroy(writer);
	check_file(path, steps, 2);
}

/* ---- Writes that fail ---- */

static void limit_files(rlim_t size)
{
	struct rlimit limit;

	cr_assert_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
	limit.rlim_cur = size < limit.rlim_max ? size : limit.rlim_max;
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void check_no_foot(const char *path)
{
	struct segue_seqfile_foot foot;
	size_t size;
	uint8_t *bytes = read_file(path, &size);
	size_t end = size < SEGUE_SEQFILE_FOOT ? 0 : size - SEGUE_SEQFILE_FOOT;

	cr_assert_eq(segue_seqfile_read_foot(bytes + end, size, &foot), SEGUE_EINVAL);
	free(bytes);
}

/*
 * The file may grow to `size` bytes: a write that goes beyond is cut short, and the next one fails.
 * Sequences that do not fit are taken back, smaller ones are added; then the limit goes, and the
 * file can be closed.
 */
static void write_within(const char *path, rlim_t size, const uint64_t *all, uint64_t count)
{
	uint64_t added[SOME], n = 0;
	struct segue_file_writer *writer = create(path);
	unsigned failed = 0;

	limit_files(size);
	for (uint64_t i = 0; i < count; i++) {
		const struct segue_sequence sequence = nth(n, all[i]);
		int rc = segue_file_writer_add(writer, &sequence);

		cr_assert(rc == 0 || rc == SEGUE_ESYSTEM, "%s", segue_error_detail());
		if (rc == 0)
			added[n++] = all[i];
		failed += rc != 0;
	}
	if (segue_file_writer_close(writer) != 0) {
		failed++;
		limit_files(RLIM_INFINITY);
		check_no_foot(path);
		cr_assert_eq(segue_file_writer_close(writer), 0, "%s", segue_error_detail());
	}
	limit_files(RLIM_INFINITY);
	segue_file_writer_destroy(writer);
	check_file(path, added, n);
	cr_assert(failed || n == count);
	cr_assert_eq(unlink(path), 0);
}

Test(file_writer, no_room_for_the_head)
{
	const char *path = path_in("head");

	signal(SIGXFSZ, SIG_IGN);
	limit_files(100);
	cr_expect_eq(try_create(path, &spec), SEGUE_ESYSTEM);
	limit_files(RLIM_INFINITY);
	cr_expect(says("cannot be written: File too large"), "%s", segue_error_detail());
	cr_expect(access(path, F_OK) < 0);
}

Test(file_writer, cut_anywhere)
{
	static const uint64_t small[] = {50, 90000, 100, 87382, 7};
	const char *path = path_in("cut");
	const char *given = getenv("SEGUE_TEST_SEED");
	unsigned seed = given ? (unsigned)atoi(given) : (unsigned)getpid();

	printf("seed %u\n", seed);
	srandom(seed);
	signal(SIGXFSZ, SIG_IGN);
	for (unsigned i = 0; i < 60; i++)
		write_within(path, (rlim_t)(random() % 2400000) + 256, small, 5);
}
