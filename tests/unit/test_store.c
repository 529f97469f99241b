/* The store: what it promises, against a model in memory and with many readers. */
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <lmdb.h>

#include "store/key.h"
#include "store_fixture.h"
#include "store_model.h"

/* ---- A model -------------------------------------------------------------------------------- */

static void check_gets(struct segue_store *store, const struct model *model)
{
	static uint8_t expected[VALUE_SIZE_MAX];
	for (int table = 1; table < SEGUE_TABLE_COUNT; table++) {
		for (size_t key = 0; key < KEYS; key++) {
			void *value;
			size_t size;
			uint32_t version = model->versions[table][key];
			int rc = segue_store_get(store, (enum segue_table)table, keys[key].bytes,
				keys[key].size, &value, &size);
			cr_assert_eq(rc, version ? 0 : SEGUE_ENOTFOUND, "table %d key %zu: %d %s",
				table, key, rc, rc ? segue_error_detail() : "");
			if (!version)
				continue;
			size_t right = fill_value(expected, table, key, version);
			cr_assert(size == right && memcmp(value, expected, size) == 0,
				"table %d key %zu holds another value", table, key);
			segue_free(value);
		}
	}
}

struct scan_check {
	const struct model *model;
	int table;
	size_t prefix_key, prefix_size, next;
};

static size_t skip_to_match(const struct scan_check *check, size_t key)
{
	while (key < KEYS &&
		(!check->model->versions[check->table][key] ||
			!starts_with(key, keys[check->prefix_key].bytes, check->prefix_size)))
		key++;
	return key;
}

static int scan_visit(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	static uint8_t expected[VALUE_SIZE_MAX];
	struct scan_check *check = arg;
	size_t at = check->next = skip_to_match(check, check->next);
	cr_assert_lt(at, (size_t)KEYS, "more keys than expected");
	cr_assert_eq(compare_keys(key, key_size, keys[at].bytes, keys[at].size), 0);
	size_t size =
		fill_value(expected, check->table, at, check->model->versions[check->table][at]);
	cr_assert(value_size == size && memcmp(value, expected, size) == 0);
	check->next++;
	return 0;
}

static void check_scan(struct segue_store *store, const struct model *model, int table)
{
	struct scan_check check = {.model = model, .table = table, .prefix_key = below(KEYS)};
	check.prefix_size = below(3) ? 1 + below(keys[check.prefix_key].size) : 0;
	assert_ok(segue_store_scan(store, (enum segue_table)table, keys[check.prefix_key].bytes,
		check.prefix_size, scan_visit, NULL, &check));
	cr_assert_eq(skip_to_match(&check, check.next), (size_t)KEYS, "the scan left out keys");
}

Test(store, equals_a_model)
{
	struct model model = {0};
	struct segue_store_verified verified;
	uint64_t values = 0, bytes = 0;
	static uint8_t scratch[VALUE_SIZE_MAX];
	seed_random("equals_a_model");
	make_keys();
	struct segue_store *store = open_store(SEGUE_STORE_SERVE);
	for (uint32_t version = 1; version <= 400; version++) {
		random_transaction(store, &model, version);
		check_scan(store, &model, 1 + (int)below(SEGUE_TABLE_COUNT - 1));
		if (version % 20 == 0)
			check_gets(store, &model);
		if (version % 100 == 0) {
			segue_store_close(store);
			assert_ok(segue_store_verify(dir, NULL, NULL, &verified));
			store = open_store(version % 200 ? SEGUE_STORE_SERVE : SEGUE_STORE_READ);
			check_gets(store, &model);
			segue_store_close(store);
			store = open_store(SEGUE_STORE_SERVE);
		}
	}
	check_gets(store, &model);
	for (int table = 1; table < SEGUE_TABLE_COUNT; table++) {
		for (size_t key = 0; key < KEYS; key++) {
			uint32_t version = model.versions[table][key];
			values += version != 0;
			bytes += version ? fill_value(scratch, table, key, version) : 0;
		}
	}
	segue_store_close(store);
	assert_ok(segue_store_verify(dir, NULL, NULL, &verified));
	cr_assert_eq(
		verified.values, values + 3, "the store's own three properties are counted too");
	cr_assert_gt(verified.bytes, bytes);
	cr_assert_eq(verified.damaged, 0u);
}

/* ---- Contract ------------------------------------------------------------------------------- */

Test(store, refuses_what_does_not_fit_and_changes_nothing)
{
	static char key[SEGUE_STORE_KEY_MAX + 1];
	struct segue_store *store = open_store(SEGUE_STORE_SERVE);
	struct segue_store_op good = {.table = SEGUE_TABLE_STATES,
		.key = "k",
		.key_size = 1,
		.value = "new",
		.value_size = 3};
	struct segue_store_op bad[] = {
		good, good, good, good, good, good, good, good, good, good, good, good, good, good};
	bad[0].table = (enum segue_table)0;
	bad[1].table = SEGUE_TABLE_COUNT;
	bad[2].key_size = 0;
	bad[3].key = key;
	bad[3].key_size = sizeof(key);
	bad[4].value = NULL;
	bad[5].value_size = (size_t)SEGUE_STORE_VALUE_MAX + 1;
	bad[6].table = bad[7].table = bad[8].table = SEGUE_TABLE_META;
	bad[6].key = "store.mark";
	bad[6].key_size = 10;
	bad[7].key = "sto"; /* a prefix that takes the store's own records in */
	bad[7].key_size = 3;
	bad[7].remove = bad[7].prefix = true;
	bad[8].key = NULL;
	bad[9].remove = bad[10].remove = bad[11].remove = true;
	bad[9].shared = 2; /* of a key of one byte */
	bad[10].shared = 1;
	bad[10].prefix = true;
	bad[11].table = SEGUE_TABLE_META; /* a range that takes the store's own records in */
	bad[11].key = "sz";
	bad[11].key_size = 2;
	bad[11].shared = 1;
	bad[12].limit = 1; /* where no range is removed */
	bad[13].remove = true;
	bad[13].limit = 1;
	assert_ok(put_text(store, "k", "old"));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct segue_store_op ops[] = {good, bad[i]};
		assert_fails(segue_store_apply(store, ops, 2), SEGUE_EINVAL, "operation 1");
		expect_text(store, "k", "old");
	}
	assert_ok(segue_store_apply(store, NULL, 0));
	cr_assert_eq(get_code(store, "none"), SEGUE_ENOTFOUND);
	bad[7].key_size = 1;
	bad[7].prefix = false; /* the key "s" itself is free */
	assert_ok(segue_store_apply(store, &bad[7], 1));
	assert_ok(put(store, "empty", NULL, 0));
	expect_text(store, "empty", "");
	segue_store_close(store);
	segue_store_close(NULL);
}

Test(store, keys_of_numbers_keep_their_order)
{
	static const uint64_t numbers[] = {0, 1, 255, 256, 65535, 1u << 31, UINT32_MAX,
		UINT64_C(1) << 32, UINT64_C(1) << 63, UINT64_MAX};
	uint8_t before[12], here[12];
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		uint8_t *end = segue_key_put64(segue_key_put32(here, 7), numbers[i]);
		cr_assert_eq(end, here + 12);
		cr_assert_eq(segue_key_get32(here), 7u);
		cr_assert_eq(segue_key_get64(here + 4), numbers[i]);
		if (i)
			cr_assert_lt(memcmp(before, here, 12), 0);
		memcpy(before, here, 12);
	}
}

static int visit_stop(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	(void)key, (void)key_size, (void)value, (void)value_size;
	return ++*(int *)arg == 2 ? 77 : 0;
}

Test(store, scan_ends_when_the_visitor_says_so_and_hides_own_records)
{
	int visited = 0;
	struct segue_store *store = open_store(SEGUE_STORE_SERVE);
	assert_ok(put_text(store, "a", "1"));
	assert_ok(put_text(store, "b", "2"));
	assert_ok(put_text(store, "c", "3"));
	cr_assert_eq(
		segue_store_scan(store, SEGUE_TABLE_STATES, NULL, 0, visit_stop, NULL, &visited),
		77);
	cr_assert_eq(visited, 2);
	visited = 10;
	assert_ok(segue_store_scan(store, SEGUE_TABLE_META, NULL, 0, visit_stop, NULL, &visited));
	cr_assert_eq(visited, 10);
	assert_fails(
		segue_store_scan(store, SEGUE_TABLE_COUNT, NULL, 0, visit_stop, NULL, &visited),
		SEGUE_EINVAL, "no table");
	segue_store_close(store);
}

Test(store, stats_count)
{
	static char value[100000];
	struct segue_store *store = open_store(SEGUE_STORE_SERVE);
	struct segue_store_stats before = stats_of(store);
	cr_assert(before.was_clean && before.same_boot);
	cr_assert_eq(before.transactions, 0u);
	assert_ok(put(store, "k", value, sizeof(value)));
	struct segue_store_stats after = stats_of(store);
	cr_assert_eq(after.transactions, 1u);
	cr_assert_eq(after.bytes_put, sizeof(value));
	cr_assert_geq(after.used_bytes, before.used_bytes + sizeof(value));
	cr_assert_geq(after.file_bytes, after.used_bytes);
	cr_assert_geq(after.map_bytes, UINT64_C(1) << 26);
	cr_assert_not_null(strstr(after.lmdb_version, "LMDB"));
	segue_store_close(store);
	store = open_store(SEGUE_STORE_READ);
	struct segue_store_stats again = stats_of(store);
	cr_assert_eq(again.created_ns, after.created_ns);
	cr_assert_lt(again.created_ns / 1000000000u - (uint64_t)time(NULL) + 600, 1200u);
	segue_store_close(store);
}

Test(store, reading_writes_nothing)
{
	uint8_t *before, *after;
	struct segue_store *store;
	assert_fails(segue_store_open(dir, SEGUE_STORE_READ, &store), SEGUE_ENOTFOUND, "run");
	cr_assert_eq(mkdir(dir, 0700), 0);
	assert_fails(segue_store_open(dir, SEGUE_STORE_READ, &store), SEGUE_ENOTFOUND, "no store");
	store = open_store(SEGUE_STORE_SERVE);
	assert_ok(put_text(store, "k", "v"));
	segue_store_close(store);
	size_t size = read_file(file, &before);
	store = open_store(SEGUE_STORE_READ);
	expect_text(store, "k", "v");
	assert_fails(put_text(store, "k", "w"), SEGUE_EREADONLY, "open to read");
	assert_fails(segue_store_trust(store), SEGUE_EREADONLY, "open to read");
	segue_store_close(store);
	cr_assert(read_file(file, &after) == size && memcmp(before, after, size) == 0);
	free(before);
	free(after);
}

/* ---- Many readers --------------------------------------------------------------------------- */

#define MANY_READERS 200

struct raw {
	bool fill; /* takes all the slots for readers that LMDB has */
	int ready;
};

/* LMDB without our settings: its lock file then has 126 slots. */
static int read_raw(void *arg)
{
	const struct raw *raw = arg;
	char path[SEGUE_TMPDIR_MAX];
	MDB_env *env;
	MDB_txn *txn;
	int rc;
	CHILD_CHECK(mdb_env_create(&env) == 0);
	CHILD_CHECK(mdb_env_open(env, segue_tmpdir_path(&tmp, "run/store", path),
			    MDB_RDONLY | MDB_NOTLS, 0600) == 0);
	while ((rc = mdb_txn_begin(env, NULL, MDB_RDONLY, &txn)) == 0 && raw->fill)
		;
	CHILD_CHECK(rc == (raw->fill ? MDB_READERS_FULL : 0));
	CHILD_CHECK(write(raw->ready, "r", 1) == 1);
	for (;;)
		pause();
}

static pid_t start_raw(bool fill)
{
	struct raw raw = {.fill = fill};
	return start_process(read_raw, &raw, &raw.ready);
}

static int visit_slowly(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	(void)arg, (void)key, (void)key_size, (void)value, (void)value_size;
	usleep(50000);
	return 0;
}

static void *scan_slowly(void *arg)
{
	struct segue_store *store = arg;
	int rc = segue_store_scan(store, SEGUE_TABLE_STATES, NULL, 0, visit_slowly, NULL, NULL);
	if (rc)
		fprintf(stderr, "%s\n", segue_error_detail());
	return (void *)(intptr_t)rc;
}

static void read_and_write(void)
{
	pthread_t reader[MANY_READERS];
	struct segue_store *store = open_store(SEGUE_STORE_SERVE);
	assert_ok(put_text(store, "old", "1"));
	for (size_t i = 0; i < MANY_READERS; i++)
		cr_assert_eq(pthread_create(&reader[i], NULL, scan_slowly, store), 0);
	for (int i = 0; i < 20; i++)
		assert_ok(put_text(store, "new", "2"));
	for (size_t i = 0; i < MANY_READERS; i++) {
		void *rc;
		pthread_join(reader[i], &rc);
		cr_assert_null(rc);
	}
	segue_store_close(store);
}

Test(store, more_readers_than_slots_hold_nobody_up)
{
	char path[SEGUE_TMPDIR_MAX];
	struct stat status;
	read_and_write();
	/* ... and beside a process that has made the lock file as small as LMDB does */
	cr_assert_eq(unlink(segue_tmpdir_path(&tmp, "run/store/lock.mdb", path)), 0);
	pid_t pid = start_raw(false);
	read_and_write();
	cr_assert(stat(path, &status) == 0 && status.st_size < 10000);
	kill_holder(pid);
	/* it grows where it is left over */
	read_and_write();
	cr_assert(stat(path, &status) == 0 && status.st_size > 30000);
}

Test(store, slots_that_others_hold_are_a_want_that_passes)
{
	struct segue_store *store = open_store(SEGUE_STORE_SERVE);
	assert_ok(put_text(store, "old", "1"));
	pid_t pid = start_raw(true);
	assert_fails(put_text(store, "new", "2"), SEGUE_ENOMEM, "MDB_READERS_FULL");
	cr_assert_eq(get_code(store, "old"), SEGUE_ENOMEM);
	kill_holder(pid); /* its slots stay taken until somebody looks */
	assert_ok(put_text(store, "new", "3"));
	expect_text(store, "new", "3");
	segue_store_close(store);
	store = open_store(SEGUE_STORE_SERVE);
	cr_assert(stats_of(store).was_clean);
	segue_store_close(store);
}
