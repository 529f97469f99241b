/* Files of a store that were damaged: nothing of that is served. */
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store_fixture.h"
#include "store_model.h"

#define HISTORY 40

/* What came of reading a damaged file; the exit codes of the child. */
enum verdict {
	HARMLESS = 40,  /* all values as written, verified */
	REPORTED,       /* the open, a get or a scan says so */
	SEEN_BY_VERIFY, /* gets give older values or none; segue_store_verify() says so */
	OLDER,          /* the store as it was one transaction before, whole */
	SILENT,         /* none of these: what must not be */
	VERDICTS
};

static struct model history[HISTORY + 1]; /* after each transaction */

static void count_damage(
	void *arg, enum segue_table table, const void *key, size_t key_size, const char *why)
{
	(void)table, (void)key, (void)key_size;
	*(int *)arg += why != NULL;
}

static int visit_all(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	(void)arg, (void)key, (void)key_size, (void)value, (void)value_size;
	return 0;
}

struct readings {
	struct model versions; /* of what was read */
	int reported, wrong;
};

/* Reads every key; a value that is what was written under it at any time counts as its version. */
static void read_all(struct segue_store *store, struct readings *readings)
{
	static uint8_t expected[VALUE_SIZE_MAX];
	for (int table = 1; table < SEGUE_TABLE_COUNT; table++) {
		for (size_t key = 0; key < KEYS; key++) {
			uint8_t *value;
			size_t size;
			uint32_t version = 0;
			int rc = segue_store_get(store, (enum segue_table)table, keys[key].bytes,
				keys[key].size, (void **)&value, &size);
			readings->reported += rc != 0 && rc != SEGUE_ENOTFOUND;
			if (rc)
				continue;
			memcpy(&version, value, size < 4 ? size : 4);
			readings->wrong += version == 0 || version >= (HISTORY + 1) * 16 ||
					   size != fill_value(expected, table, key, version) ||
					   memcmp(value, expected, size) != 0;
			readings->versions.versions[table][key] = version;
			segue_free(value);
		}
		readings->reported += segue_store_scan(store, (enum segue_table)table, NULL, 0,
					      visit_all, NULL, NULL) != 0;
	}
}

static int judge(void *arg)
{
	struct segue_store *store;
	struct segue_store_verified verified;
	static struct readings readings;
	int damages = 0;
	(void)arg;
	if (!freopen("/dev/null", "w", stderr)) /* LMDB says there why it aborts */
		return SILENT;
	if (segue_store_open(dir, SEGUE_STORE_READ, &store))
		return REPORTED;
	read_all(store, &readings);
	segue_store_close(store);
	if (readings.wrong)
		return SILENT;
	if (readings.reported)
		return REPORTED;
	int rc = segue_store_verify(dir, count_damage, &damages, &verified);
	if (rc)
		return rc == SEGUE_ESTORE && damages ? SEEN_BY_VERIFY : REPORTED;
	if (memcmp(&readings.versions, &history[HISTORY], sizeof(struct model)) == 0)
		return HARMLESS;
	if (memcmp(&readings.versions, &history[HISTORY - 1], sizeof(struct model)) == 0)
		return OLDER;
	return SILENT;
}

/* A store with a history; `*older` is its file ten transactions before the end. */
static int write_history(void *arg)
{
	bool clean = arg != NULL;
	char path[SEGUE_TMPDIR_MAX];
	uint8_t *older;
	struct segue_store *store;
	CHILD_CHECK(segue_store_open(dir, SEGUE_STORE_SERVE, &store) == 0);
	struct model model = {0};
	for (uint32_t version = 1; version <= HISTORY; version++) {
		random_transaction(store, &model, version);
		if (version == HISTORY - 10) {
			size_t size = read_file(file, &older);
			write_file(segue_tmpdir_path(&tmp, "older", path), older, size);
		}
	}
	if (clean)
		segue_store_close(store);
	return 0;
}

/* The same transactions on the model alone: random numbers in step with write_history(). */
static void replay_history(uint64_t from)
{
	struct segue_store *store;
	char path[SEGUE_TMPDIR_MAX];
	random_state = from;
	memset(history, 0, sizeof(history));
	segue_tmpdir_path(&tmp, "replay", path);
	assert_ok(segue_store_open(path, SEGUE_STORE_SERVE, &store));
	for (uint32_t version = 1; version <= HISTORY; version++) {
		history[version] = history[version - 1];
		random_transaction(store, &history[version], version);
	}
	segue_store_close(store);
	segue_tmpdir_remove_path(path);
}

struct image {
	uint8_t *bytes, *older;
	size_t size, older_size;
};

static void make_image(struct image *image, bool clean)
{
	char path[SEGUE_TMPDIR_MAX];
	segue_tmpdir_remove_path(dir);
	uint64_t from = random_state;
	cr_assert_eq(run_child(write_history, clean ? &clean : NULL), 0);
	replay_history(from);
	image->size = read_file(file, &image->bytes);
	image->older_size = read_file(segue_tmpdir_path(&tmp, "older", path), &image->older);
	int status = run_child(judge, NULL);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == HARMLESS,
		"the undamaged file: status %x", status);
}

static void free_image(struct image *image)
{
	free(image->bytes);
	free(image->older);
}

static void copy_bytes(uint8_t *to, const uint8_t *from, size_t size)
{
	memmove(to, from, size);
}

/* One random damage to `bytes`; returns its name. */
static const char *mutate(const struct image *image, uint8_t *bytes)
{
	size_t pages = image->size / 4096, page = 4096 * below(pages), size;
	size_t shared = image->older_size < image->size ? image->older_size : image->size;
	switch (below(9)) {
	case 0:
		bytes[below(image->size)] ^= (uint8_t)(1u << below(8));
		return "bit";
	case 1:
		bytes[page + below(160)] ^= (uint8_t)(1 + below(255));
		return "byte at the head of a page";
	case 2:
		size = 1 + below(512);
		page += below(4096 - size);
		for (size_t i = 0; i < size; i++)
			bytes[page + i] = (uint8_t)next_random();
		return "run of noise";
	case 3:
		memset(bytes + page, 0, 4096);
		return "zeroed page";
	case 4:
		copy_bytes(bytes + page, image->bytes + 4096 * below(pages), 4096);
		return "copy of another page";
	case 5:
		page = 4096 * below(shared / 4096);
		copy_bytes(bytes + page, image->older + page, 4096);
		return "older page";
	case 6:
		page = 512 * below(shared / 512);
		copy_bytes(bytes + page, image->older + page, 512);
		return "older sector";
	case 7:
		bytes[4096 * below(2) + 16 + below(140)] ^= (uint8_t)(1u << below(8));
		return "bit of a meta page";
	default:
		size = 4096 * (1 + below(8));
		size = size < image->size - page ? size : image->size - page;
		memset(bytes + page, 0, size);
		return "zeroed run of pages";
	}
}

struct tally {
	unsigned int verdicts[VERDICTS], signals, hangs;
};

/* Judges the file as it is now. */
static void judge_file(struct tally *tally, const char *damage)
{
	int status = run_child(judge, NULL);
	if (WIFSIGNALED(status)) {
		tally->signals++;
		tally->hangs += WTERMSIG(status) == SIGALRM;
		cr_assert_neq(WTERMSIG(status), SIGALRM, "%s: reading does not end", damage);
		return;
	}
	int code = WEXITSTATUS(status);
	cr_assert(code >= HARMLESS && code < VERDICTS, "%s: exit code %d", damage, code);
	cr_assert_neq(code, SILENT, "%s: wrong values, and nothing says so", damage);
	tally->verdicts[code]++;
}

static void report(const char *what, const struct tally *tally)
{
	fprintf(stderr,
		"%s: %u harmless, %u reported, %u seen by verify alone, %u ended by a signal, %u "
		"show the store one transaction before, 0 silent\n",
		what, tally->verdicts[HARMLESS], tally->verdicts[REPORTED],
		tally->verdicts[SEEN_BY_VERIFY], tally->signals, tally->verdicts[OLDER]);
}

static void damage_images(bool clean)
{
	const char *wanted = getenv("SEGUE_TEST_DAMAGES"); /* more than in a short run */
	int rounds = wanted ? atoi(wanted) : 400;
	struct image image;
	struct tally tally = {0};
	make_image(&image, clean);
	uint8_t *bytes = malloc(image.size);
	cr_assert_not_null(bytes);
	for (int i = 0; i < rounds; i++) {
		memcpy(bytes, image.bytes, image.size);
		const char *damage = mutate(&image, bytes);
		if (below(4) == 0)
			damage = mutate(&image, bytes);
		write_file(file, bytes, image.size);
		judge_file(&tally, damage);
	}
	fprintf(stderr, "%d damages\n", rounds);
	report(clean ? "ended in order" : "killed", &tally);
	cr_assert_gt(10 * (tally.verdicts[REPORTED] + tally.signals), (unsigned)rounds,
		"the damage has no effect");
	/* the mark of a clean end is the last transaction: without it nothing is missing */
	if (clean)
		cr_assert_eq(tally.verdicts[OLDER], 0u);
	free(bytes);
	free_image(&image);
}

Test(store, damage_is_never_served_after_a_clean_end)
{
	seed_random("damage_is_never_served_after_a_clean_end");
	make_keys();
	damage_images(true);
}

Test(store, damage_is_never_served_after_a_kill)
{
	seed_random("damage_is_never_served_after_a_kill");
	make_keys();
	damage_images(false);
}

Test(store, a_file_cut_short_is_never_served)
{
	struct image image;
	struct tally tally = {0};
	seed_random("a_file_cut_short_is_never_served");
	make_keys();
	make_image(&image, true);
	for (size_t size = 0; size < image.size; size += 4096) {
		write_file(file, image.bytes, size);
		judge_file(&tally, "cut at a page");
		if (size / 4096 % 4)
			continue;
		write_file(file, image.bytes, size + 1 + below(4095));
		judge_file(&tally, "cut inside a page");
	}
	report("cut short", &tally);
	cr_assert_gt(tally.verdicts[REPORTED] + tally.signals, 20u);
	free_image(&image);
}

struct found {
	int values, tables;
	char why[200];
};

static void note_damage(
	void *arg, enum segue_table table, const void *key, size_t key_size, const char *why)
{
	struct found *found = arg;
	cr_assert_eq(table, SEGUE_TABLE_STATES);
	if (key)
		found->values += key_size == 3 && memcmp(key, "bad", 3) == 0;
	else
		found->tables++;
	snprintf(found->why, sizeof(found->why), "%s", why);
}

/* One bit of one payload: named by get, scan and verify; all other values stay readable. */
Test(store, names_the_value_that_is_damaged)
{
	uint8_t *bytes;
	struct found found = {0};
	struct segue_store_verified verified;
	struct segue_store *store = open_store(SEGUE_STORE_SERVE);
	assert_ok(put_text(store, "bad", "this one will be hit"));
	assert_ok(put_text(store, "good", "and this one will not"));
	segue_store_close(store);
	size_t size = read_file(file, &bytes), hits = 0;
	for (uint8_t *at = bytes; (at = memmem(at, size - (size_t)(at - bytes), "will be hit", 11));
		at++, hits++)
		*at ^= 4;
	cr_assert_gt(hits, 0u);
	write_file(file, bytes, size);
	free(bytes);
	assert_fails(segue_store_verify(dir, note_damage, &found, &verified), SEGUE_ESTORE,
		"in 1 place (");
	cr_assert(found.values == 1 && found.tables == 0 && verified.damaged == 1);
	cr_assert_str_eq(found.why, "its checksum is wrong");
	store = open_store(SEGUE_STORE_READ);
	expect_text(store, "good", "and this one will not");
	cr_assert_eq(get_code(store, "bad"), SEGUE_ESTORE);
	cr_assert_not_null(strstr(segue_error_detail(), "key bad in table states"));
	cr_assert_not_null(strstr(segue_error_detail(), "store/data.mdb"));
	assert_fails(segue_store_scan(store, SEGUE_TABLE_STATES, NULL, 0, visit_all, NULL, NULL),
		SEGUE_ESTORE, "key bad");
	assert_ok(segue_store_scan(
		store, SEGUE_TABLE_STATES, NULL, 0, visit_all, note_damage, &found));
	cr_assert_eq(found.values, 2);
	segue_store_close(store);
}

/* The key itself is hit: the value is not found, but neither scan nor verify goes past it. */
Test(store, a_damaged_key_does_not_end_a_scan_quietly)
{
	uint8_t *bytes;
	struct found found = {0};
	struct segue_store_verified verified;
	struct segue_store *store = open_store(SEGUE_STORE_SERVE);
	assert_ok(put_text(store, "lane/1", "x"));
	assert_ok(put_text(store, "lane/2", "y"));
	assert_ok(put_text(store, "lane/3", "z"));
	segue_store_close(store);
	size_t size = read_file(file, &bytes), hits = 0;
	for (uint8_t *at = bytes; (at = memmem(at, size - (size_t)(at - bytes), "lane/2", 6));
		at++, hits++)
		at[0] = 'm'; /* no longer under the prefix */
	cr_assert_gt(hits, 0u);
	write_file(file, bytes, size);
	free(bytes);
	store = open_store(SEGUE_STORE_READ);
	assert_fails(segue_store_scan(store, SEGUE_TABLE_STATES, "lane/", 5, visit_all, NULL, NULL),
		SEGUE_ESTORE, "mane/2");
	segue_store_close(store);
	assert_fails(
		segue_store_verify(dir, note_damage, &found, &verified), SEGUE_ESTORE, "damaged");
}

static int remove_range(void *arg)
{
	struct segue_store_op op = {.table = SEGUE_TABLE_STATES,
		.remove = true,
		.prefix = true,
		.key = arg,
		.key_size = strlen(arg)};
	struct segue_store *store;
	CHILD_CHECK(segue_store_open(dir, SEGUE_STORE_SERVE, &store) == 0);
	CHILD_CHECK(segue_store_apply(store, &op, 1) == SEGUE_ESTORE);
	CHILD_CHECK(strstr(segue_error_detail(), "nothing of this write took place"));
	return 0;
}

/* A cursor meets the first key of a leaf that the branch above it leads past. */
Test(store, a_damaged_branch_does_not_hold_a_removal_for_ever)
{
	uint8_t *bytes;
	char text[100][8], value[500] = {0}, *key = NULL;
	struct segue_store_op ops[100] = {0};
	struct segue_store *store = open_store(SEGUE_STORE_SERVE);
	for (int i = 0; i < 100; i++) {
		snprintf(text[i], sizeof(text[i]), "key-%03d", i);
		ops[i] = (struct segue_store_op){.table = SEGUE_TABLE_STATES,
			.key = text[i],
			.key_size = 7,
			.value = value,
			.value_size = sizeof(value)};
	}
	assert_ok(segue_store_apply(store, ops, 100));
	segue_store_close(store);
	size_t size = read_file(file, &bytes);
	for (size_t page = 8192; page + 4096 <= size; page += 4096) {
		struct { /* of LMDB 0.9 */
			uint64_t number;
			uint16_t pad, flags, lower, upper;
		} head;
		memcpy(&head, bytes + page, sizeof(head));
		if (head.flags != 1 || head.upper >= 4096)
			continue; /* no branch */
		uint8_t *at = memmem(bytes + page + head.upper, 4096 - head.upper, "key-", 4);
		cr_assert(at && !key, "one branch page is expected");
		key = text[(at[4] - '0') * 100 + (at[5] - '0') * 10 + at[6] - '0'];
		at[6]++;
	}
	cr_assert_not_null(key);
	write_file(file, bytes, size);
	free(bytes);
	cr_assert_eq(run_child(remove_range, key), 0);
}

static uint8_t *page_of(uint8_t *bytes, size_t size, const char *text)
{
	uint8_t *at = memmem(bytes, size, text, strlen(text));
	cr_assert_not_null(at, "no page holds '%s'", text);
	return bytes + (size_t)(at - bytes) / 4096 * 4096;
}

/* A page of the past in the place of the present one: every value on it is sound, but old. */
Test(store, verify_sees_values_of_another_time)
{
	uint8_t *bytes;
	struct found found = {0};
	struct segue_store_verified verified;
	struct segue_store *store = open_store(SEGUE_STORE_SERVE);
	assert_ok(put_text(store, "k", "the value as it was at first"));
	assert_ok(put_text(store, "k", "the value as it is at last"));
	segue_store_close(store);
	size_t size = read_file(file, &bytes);
	memcpy(page_of(bytes, size, "as it is at last"), page_of(bytes, size, "as it was at first"),
		4096);
	write_file(file, bytes, size);
	free(bytes);
	store = open_store(SEGUE_STORE_READ);
	expect_text(store, "k", "the value as it was at first"); /* get cannot know */
	segue_store_close(store);
	assert_fails(
		segue_store_verify(dir, note_damage, &found, &verified), SEGUE_ESTORE, "damaged");
	cr_assert(found.values == 0 && found.tables == 1 && verified.damaged == 1);
	cr_assert_str_eq(found.why, "a value is not the last that was written");
}

/* The page that holds all roots, as it was some transactions ago: a whole store of the past. */
Test(store, a_root_of_the_past_is_not_served)
{
	uint8_t *bytes, *older;
	struct segue_store *store = open_store(SEGUE_STORE_SERVE);
	uint64_t roots[2];
	for (int i = 0; i < 2; i++) {
		uint64_t newest = 0, transaction;
		assert_ok(put_text(store, "k", i ? "new" : "old"));
		size_t size = read_file(file, i ? &bytes : &older);
		cr_assert_gt(size, 8192u);
		for (size_t page = 0; page < 8192; page += 4096) { /* struct MDB_meta of LMDB 0.9 */
			uint8_t *meta = (i ? bytes : older) + page + 16;
			memcpy(&transaction, meta + 128, 8);
			if (transaction > newest)
				memcpy(&roots[i], meta + 24 + 48 + 40, 8);
			newest = transaction > newest ? transaction : newest;
		}
	}
	segue_store_close(store);
	cr_assert_neq(roots[0], roots[1]);
	memcpy(bytes + 4096 * roots[1], older + 4096 * roots[0], 4096);
	cr_assert_eq(memcmp(bytes + 4096 * roots[0], older + 4096 * roots[0], 4096), 0);
	size_t size = 4096 * (1 + (roots[0] > roots[1] ? roots[0] : roots[1]));
	int fd = open(file, O_WRONLY | O_CLOEXEC);
	/* the file as it was after the second transaction, with the root of the first */
	cr_assert(fd >= 0 && pwrite(fd, bytes, size, 0) == (ssize_t)size);
	close(fd);
	free(bytes);
	free(older);
	assert_fails(
		segue_store_open(dir, SEGUE_STORE_READ, &store), SEGUE_ESTORE, "the file is kept");
}

Test(store, verify_sees_values_that_are_missing)
{
	uint8_t *bytes;
	struct found found = {0};
	struct segue_store_verified verified;
	struct segue_store *store = open_store(SEGUE_STORE_SERVE);
	assert_ok(put_text(store, "k1", "the only value at first"));
	assert_ok(put_text(store, "k2", "the one that came later"));
	segue_store_close(store);
	size_t size = read_file(file, &bytes);
	uint8_t *both = page_of(bytes, size, "the one that came later");
	uint8_t *alone = page_of(bytes, size, "the only value at first");
	while (memmem(alone, 4096, "the one that came later", 23)) {
		alone += 4096;
		alone = page_of(alone, size - (size_t)(alone - bytes), "the only value at first");
	}
	memcpy(both, alone, 4096);
	write_file(file, bytes, size);
	free(bytes);
	store = open_store(SEGUE_STORE_READ);
	cr_assert_eq(get_code(store, "k2"), SEGUE_ENOTFOUND); /* get cannot know */
	segue_store_close(store);
	assert_fails(
		segue_store_verify(dir, note_damage, &found, &verified), SEGUE_ESTORE, "damaged");
	cr_assert(found.values == 0 && found.tables == 1);
	cr_assert_str_eq(found.why, "values are missing, or there are too many");
}
