/*
 * The store: what it promises against a model in memory, full disks, failing disks, damaged files.
 *
 * fdatasync, pwrite and fstatfs are defined here, so that LMDB and the store go through them and a
 * test can let them fail. Seeds come from SEGUE_TEST_SEED, or the clock, and are printed.
 */
/* LMDB calls pwrite: defining it must not make pwrite64 of it, as this would... */
#undef _FILE_OFFSET_BITS

#include "store/store.h"
#include "store/key.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <lmdb.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "tmpdir.h"

#if defined(__SANITIZE_ADDRESS__)
#define UNDER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define UNDER_ASAN 1
#endif
#endif
#ifndef UNDER_ASAN
#define UNDER_ASAN 0
#endif

/* ---- Faults --------------------------------------------------------------------------------- */

static int fail_sync_with, fail_meta_with; /* an errno, once; 0: none */
static uint32_t pretend_file_system;

int fdatasync(int fd)
{
	if (fail_sync_with) {
		errno = fail_sync_with;
		fail_sync_with = 0;
		return -1;
	}
	return (int)syscall(SYS_fdatasync, fd);
}

/* LMDB writes its meta page, and nothing else, to a file that is open with O_DSYNC. */
ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset)
{
	if (fail_meta_with && (fcntl(fd, F_GETFL) & O_DSYNC)) {
		errno = fail_meta_with;
		fail_meta_with = 0;
		return -1;
	}
	return syscall(SYS_pwrite64, fd, bytes, size, offset);
}

int fstatfs(int fd, struct statfs *out)
{
	int rc = (int)syscall(SYS_fstatfs, fd, out);
	if (rc == 0 && pretend_file_system)
		out->f_type = pretend_file_system;
	return rc;
}

/* ... while our own files, built with it, call this. */
int fstatfs64(int fd, struct statfs64 *out)
{
	return fstatfs(fd, (struct statfs *)out);
}

/* ---- Helpers -------------------------------------------------------------------------------- */

static uint64_t random_state;

static uint64_t next_random(void)
{
	uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15);
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static size_t below(size_t limit)
{
	return (size_t)(next_random() % limit);
}

static void seed_random(const char *test)
{
	const char *given = getenv("SEGUE_TEST_SEED");
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	random_state = given ? strtoull(given, NULL, 0) : (uint64_t)now.tv_nsec;
	fprintf(stderr, "%s: SEGUE_TEST_SEED=%llu\n", test, (unsigned long long)random_state);
}

static void skip(const char *why)
{
	fprintf(stderr, "SKIP: %s\n", why);
	cr_skip_test("%s", why);
}

static struct segue_tmpdir tmp;
static char dir[SEGUE_TMPDIR_MAX];  /* of the store; not there at first */
static char file[SEGUE_TMPDIR_MAX]; /* its data.mdb */

static void setup(void)
{
	segue_tmpdir_make(&tmp, "store");
	segue_tmpdir_path(&tmp, "run", dir);
	segue_tmpdir_path(&tmp, "run/store/data.mdb", file);
}

static void teardown(void)
{
	segue_tmpdir_remove(&tmp);
}

TestSuite(store, .init = setup, .fini = teardown);

#define assert_ok(call)                                                                            \
	do {                                                                                       \
		int rc_ = (call);                                                                  \
		cr_assert_eq(rc_, 0, "%s: %d %s", #call, rc_, segue_error_detail());               \
	} while (0)

/* Fails with the code, and the message holds the text. */
#define assert_fails(call, code, text)                                                             \
	do {                                                                                       \
		int rc_ = (call);                                                                  \
		cr_assert_eq(                                                                      \
			rc_, (code), "%s: %d %s", #call, rc_, rc_ ? segue_error_detail() : "");    \
		cr_assert_not_null(strstr(segue_error_detail(), (text)), "%s: message is '%s'",    \
			#call, segue_error_detail());                                              \
	} while (0)

static struct segue_store *open_store(enum segue_store_mode mode)
{
	struct segue_store *store = NULL;
	assert_ok(segue_store_open(dir, mode, &store));
	return store;
}

static int put(struct segue_store *store, const char *key, const void *value, size_t size)
{
	struct segue_store_op op = {.table = SEGUE_TABLE_STATES,
		.key = key,
		.key_size = strlen(key),
		.value = value,
		.value_size = size};
	return segue_store_apply(store, &op, 1);
}

static int put_text(struct segue_store *store, const char *key, const char *text)
{
	return put(store, key, text, strlen(text));
}

static void expect_text(struct segue_store *store, const char *key, const char *text)
{
	void *value;
	size_t size;
	assert_ok(segue_store_get(store, SEGUE_TABLE_STATES, key, strlen(key), &value, &size));
	cr_assert_eq(size, strlen(text));
	cr_assert_eq(memcmp(value, text, size), 0, "%s holds another value", key);
	segue_free(value);
}

static int get_code(struct segue_store *store, const char *key)
{
	void *value;
	size_t size;
	int rc = segue_store_get(store, SEGUE_TABLE_STATES, key, strlen(key), &value, &size);
	if (rc == 0)
		segue_free(value);
	return rc;
}

static struct segue_store_stats stats_of(struct segue_store *store)
{
	struct segue_store_stats stats;
	segue_store_stats(store, &stats);
	return stats;
}

static size_t read_file(const char *path, uint8_t **bytes)
{
	struct stat status;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	cr_assert(fd >= 0 && fstat(fd, &status) == 0, "%s: %s", path, strerror(errno));
	size_t size = (size_t)status.st_size;
	*bytes = malloc(size + 1);
	cr_assert(*bytes && pread(fd, *bytes, size, 0) == (ssize_t)size);
	close(fd);
	return size;
}

static void write_file(const char *path, const void *bytes, size_t size)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	cr_assert(fd >= 0 && write(fd, bytes, size) == (ssize_t)size, "%s: %s", path,
		strerror(errno));
	close(fd);
}

/* Runs `body` in a child; returns what wait gives. The child ends without any clean-up. */
static int run_child(int (*body)(void *arg), void *arg)
{
	fflush(NULL);
	pid_t pid = fork();
	cr_assert(pid >= 0);
	if (pid == 0) {
		static const int signals[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGALRM};
		for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
			signal(signals[i], SIG_DFL);
		alarm(60);
		_exit(body(arg));
	}
	int status;
	while (waitpid(pid, &status, 0) < 0)
		cr_assert_eq(errno, EINTR);
	return status;
}

#define CHILD_CHECK(condition)                                                                     \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__, #condition,        \
				segue_error_detail());                                             \
			return 1;                                                                  \
		}                                                                                  \
	} while (0)

/* A tmpfs over `path`, seen by this test's process alone. False where that is not allowed. */
static bool mount_tmpfs(const char *path, const char *options)
{
	return unshare(CLONE_NEWNS) == 0 &&
	       mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("tmpfs", path, "tmpfs", 0, options) == 0;
}

/* ---- A model of what the store should hold -------------------------------------------------- */

#define KEYS 60

/* Each value is a function of (table, key, version); version 0: there is none. */
struct model {
	uint32_t versions[SEGUE_TABLE_COUNT][KEYS];
};

static struct {
	uint8_t bytes[SEGUE_STORE_KEY_MAX];
	size_t size;
} keys[KEYS]; /* in the store's order, the same for each table */

static int compare_keys(const void *a, size_t a_size, const void *b, size_t b_size)
{
	int order = memcmp(a, b, a_size < b_size ? a_size : b_size);
	return order ? order : (a_size > b_size) - (a_size < b_size);
}

/* Random keys of few letters, so that many are prefixes of others; sorted by insertion. */
static void make_keys(void)
{
	static const uint8_t letters[] = {0, 'a', 'b', 255};
	size_t count = 0;
	while (count < KEYS) {
		uint8_t key[SEGUE_STORE_KEY_MAX];
		size_t size = 1 + below(below(4) ? 6 : SEGUE_STORE_KEY_MAX), at = 0;
		for (size_t i = 0; i < size; i++)
			key[i] = letters[below(sizeof(letters))];
		while (at < count && compare_keys(keys[at].bytes, keys[at].size, key, size) < 0)
			at++;
		if (at < count && compare_keys(keys[at].bytes, keys[at].size, key, size) == 0)
			continue;
		memmove(&keys[at + 1], &keys[at], (count - at) * sizeof(keys[0]));
		memcpy(keys[at].bytes, key, size);
		keys[at].size = size;
		count++;
	}
}

#define VALUE_SIZE_MAX 13000

/* The version stands first, so that an old value is recognised as one. */
static size_t fill_value(uint8_t *value, int table, size_t key, uint32_t version)
{
	static const size_t sizes[] = {
		8, 9, 100, 512, 1000, 1976, 1977, 2000, 4056, 4057, 8152, 12248};
	uint64_t hash = ((uint64_t)table << 56 | (uint64_t)key << 32 | version) *
			UINT64_C(0xd6e8feb86659fd93);
	size_t size = sizes[(hash >> 40) % (sizeof(sizes) / sizeof(sizes[0]))];
	memcpy(value, &version, sizeof(version));
	for (size_t i = sizeof(version); i < size; i++) {
		hash = hash * UINT64_C(6364136223846793005) + 1442695040888963407u;
		value[i] = (uint8_t)(hash >> 56);
	}
	return size;
}

static bool starts_with(size_t key, const void *prefix, size_t size)
{
	return keys[key].size >= size && memcmp(keys[key].bytes, prefix, size) == 0;
}

static void model_apply(
	struct model *model, const struct segue_store_op *op, size_t key, uint32_t version)
{
	for (size_t i = 0; i < KEYS; i++)
		if (i == key ||
			(op->remove && op->prefix && starts_with(i, op->key, op->key_size)) ||
			(op->remove && op->shared && starts_with(i, op->key, op->shared) &&
				compare_keys(keys[i].bytes, keys[i].size, op->key, op->key_size) <
					0))
			model->versions[op->table][i] = op->remove ? 0 : version;
}

/* One random transaction on the store and, if it took place, on the model. */
static void random_transaction(struct segue_store *store, struct model *model, uint32_t version)
{
	static uint8_t values[16][VALUE_SIZE_MAX];
	struct segue_store_op ops[16];
	size_t count = 1 + below(16);
	for (size_t i = 0; i < count; i++) {
		size_t key = below(KEYS), kind = below(20);
		ops[i] = (struct segue_store_op){
			.table = (enum segue_table)(1 + below(SEGUE_TABLE_COUNT - 1)),
			.remove = kind < 6,
			.prefix = kind < 1,
			.key = keys[key].bytes,
			.key_size = keys[key].size,
			.value = values[i],
		};
		if (ops[i].prefix)
			ops[i].key_size = 1 + below(keys[key].size);
		else if (ops[i].remove && kind < 3)
			ops[i].shared = 1 + below(keys[key].size);
		/* two puts of one key in a transaction must differ: the last one counts */
		uint32_t unique = version * 16 + (uint32_t)i;
		ops[i].value_size = fill_value(values[i], (int)ops[i].table, key, unique);
		bool range = ops[i].prefix || ops[i].shared;
		model_apply(model, &ops[i], range ? KEYS : key, unique);
	}
	assert_ok(segue_store_apply(store, ops, count));
}

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
	cr_assert_eq(verified.values, values + 3, "the store's own three records are counted too");
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
		good, good, good, good, good, good, good, good, good, good, good, good};
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

/* ---- Lock, marks, creation ------------------------------------------------------------------ */

struct holder {
	enum segue_store_mode mode;
	int ready; /* pipe end */
};

static int hold(void *arg)
{
	struct holder *holder = arg;
	struct segue_store *store;
	CHILD_CHECK(segue_store_open(dir, holder->mode, &store) == 0);
	CHILD_CHECK(holder->mode == SEGUE_STORE_READ || put_text(store, "held", "yes") == 0);
	CHILD_CHECK(write(holder->ready, "r", 1) == 1);
	for (;;)
		pause();
}

/* A process that runs `body` until it is killed; it has written a byte to `*ready`. */
static pid_t start_process(int (*body)(void *arg), void *arg, int *ready)
{
	int ends[2];
	char byte;
	cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
	fflush(NULL);
	*ready = ends[1];
	pid_t pid = fork();
	cr_assert(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(body(arg));
	}
	close(ends[1]);
	cr_assert_eq(read(ends[0], &byte, 1), 1, "the process did not open the store");
	close(ends[0]);
	return pid;
}

/* A process that has the store open, until it is killed. */
static pid_t start_holder(enum segue_store_mode mode)
{
	struct holder holder = {.mode = mode};
	return start_process(hold, &holder, &holder.ready);
}

static void kill_holder(pid_t pid)
{
	cr_assert_eq(kill(pid, SIGKILL), 0);
	cr_assert_eq(waitpid(pid, NULL, 0), pid);
}

Test(store, is_open_once)
{
	struct segue_store *store, *second;
	char other[SEGUE_TMPDIR_MAX], text[64];
	segue_tmpdir_path(&tmp, "other", other);
	store = open_store(SEGUE_STORE_SERVE);
	assert_fails(
		segue_store_open(dir, SEGUE_STORE_SERVE, &second), SEGUE_EBUSY, "this process");
	assert_fails(segue_store_open(dir, SEGUE_STORE_READ, &second), SEGUE_EBUSY, "this process");
	struct segue_store_verified verified;
	assert_fails(segue_store_verify(dir, NULL, NULL, &verified), SEGUE_EBUSY, "this process");
	assert_ok(segue_store_open(other, SEGUE_STORE_SERVE, &second));
	segue_store_close(second);
	segue_store_close(store);

	pid_t pid = start_holder(SEGUE_STORE_SERVE);
	snprintf(text, sizeof(text), "another segue server (pid %d) serves", (int)pid);
	assert_fails(segue_store_open(dir, SEGUE_STORE_SERVE, &store), SEGUE_EBUSY, text);
	assert_fails(segue_store_open(dir, SEGUE_STORE_READ, &store), SEGUE_EBUSY, text);
	assert_ok(segue_store_verify(dir, NULL, NULL, &verified)); /* beside a server: allowed */
	kill_holder(pid);
	store = open_store(SEGUE_STORE_SERVE);
	expect_text(store, "held", "yes");
	segue_store_close(store);

	pid = start_holder(SEGUE_STORE_READ);
	assert_fails(
		segue_store_open(dir, SEGUE_STORE_SERVE, &store), SEGUE_EBUSY, "command reads");
	store = open_store(SEGUE_STORE_READ);
	segue_store_close(store);
	kill_holder(pid);
}

Test(store, says_how_the_last_server_ended)
{
	struct segue_store *store = open_store(SEGUE_STORE_SERVE);
	segue_store_close(store);
	cr_assert_neq(access(segue_tmpdir_path(&tmp, "run/server.pid", file), F_OK), 0);
	store = open_store(SEGUE_STORE_SERVE);
	cr_assert(stats_of(store).was_clean && stats_of(store).same_boot);
	segue_store_close(store);
	for (int i = 0; i < 2; i++) {
		kill_holder(start_holder(SEGUE_STORE_SERVE));
		store = open_store(SEGUE_STORE_SERVE);
		cr_assert(!stats_of(store).was_clean && stats_of(store).same_boot);
		segue_store_close(store);
	}
	store = open_store(SEGUE_STORE_READ);
	cr_assert(stats_of(store).was_clean);
	segue_store_close(store);
}

static bool pretend_boot(const char *id)
{
	char path[SEGUE_TMPDIR_MAX];
	static bool alone;
	segue_tmpdir_path(&tmp, "boot", path);
	write_file(path, id, strlen(id));
	if (!alone)
		alone = unshare(CLONE_NEWNS) == 0 &&
			mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
	return alone && mount(path, "/proc/sys/kernel/random/boot_id", NULL, MS_BIND, NULL) == 0;
}

/* Until the file was verified, no start takes the machine's crash for a mere kill. */
Test(store, asks_for_trust_after_an_unclean_end_in_another_boot)
{
	if (!pretend_boot("00000000-0000-0000-0000-000000000001\n"))
		skip("cannot mount over /proc/sys/kernel/random/boot_id");
	kill_holder(start_holder(SEGUE_STORE_SERVE));
	cr_assert(pretend_boot("00000000-0000-0000-0000-000000000002\n"));
	for (int i = 0; i < 3; i++) { /* ended in order, killed, ended: all before a verification */
		struct segue_store *store = open_store(SEGUE_STORE_SERVE);
		cr_assert(!stats_of(store).was_clean && !stats_of(store).same_boot);
		segue_store_close(store);
		if (i == 1)
			kill_holder(start_holder(SEGUE_STORE_SERVE));
	}
	struct segue_store *store = open_store(SEGUE_STORE_SERVE);
	assert_ok(segue_store_trust(store));
	assert_ok(segue_store_trust(store));
	segue_store_close(store);
	store = open_store(SEGUE_STORE_SERVE);
	cr_assert(stats_of(store).was_clean);
	segue_store_close(store);
	cr_assert(pretend_boot("00000000-0000-0000-0000-000000000003\n"));
	store = open_store(SEGUE_STORE_SERVE);
	cr_assert(stats_of(store).was_clean && !stats_of(store).same_boot);
	segue_store_close(store);
	for (int i = 0; i < 3; i++)
		umount2("/proc/sys/kernel/random/boot_id", MNT_DETACH);
}

Test(store, removes_leftovers_of_a_killed_creation)
{
	char path[SEGUE_TMPDIR_MAX], kept[SEGUE_TMPDIR_MAX];
	struct segue_store *store;
	cr_assert_eq(mkdir(dir, 0700), 0);
	cr_assert_eq(mkdir(segue_tmpdir_path(&tmp, "run/.store-12ab34cd.new", path), 0700), 0);
	write_file(segue_tmpdir_path(&tmp, "run/.store-12ab34cd.new/data.mdb", kept), "x", 1);
	cr_assert_eq(mkdir(segue_tmpdir_path(&tmp, "run/.store-keep", kept), 0700), 0);
	assert_fails(segue_store_open(dir, SEGUE_STORE_READ, &store), SEGUE_ENOTFOUND, "no store");
	cr_assert_eq(access(path, F_OK), 0, "only a server cleans up");
	segue_store_close(open_store(SEGUE_STORE_SERVE));
	cr_assert_neq(access(path, F_OK), 0);
	cr_assert_eq(access(kept, F_OK), 0);
	cr_assert_eq(access(file, F_OK), 0);
}

/* ---- Files that cannot be served ------------------------------------------------------------ */

static void refuse_file(int code, const char *text, const void *bytes, size_t size)
{
	uint8_t *after;
	struct segue_store *store;
	if (bytes)
		write_file(file, bytes, size);
	assert_fails(segue_store_open(dir, SEGUE_STORE_SERVE, &store), code, text);
	assert_fails(segue_store_open(dir, SEGUE_STORE_READ, &store), code, text);
	if (!bytes)
		return;
	cr_assert_eq(read_file(file, &after), size, "the file was changed");
	cr_assert_eq(memcmp(bytes, after, size), 0, "the file was changed");
	free(after);
}

Test(store, never_takes_a_torn_file_for_an_empty_store)
{
	static const size_t sizes[] = {0, 1, 100, 4095, 4096, 4097, 8191};
	uint8_t *bytes;
	struct segue_store *store = open_store(SEGUE_STORE_SERVE);
	assert_ok(put_text(store, "k", "v"));
	segue_store_close(store);
	size_t size = read_file(file, &bytes);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		refuse_file(SEGUE_ESTORE, "store/data.mdb is damaged: it is cut short", bytes,
			sizes[i]);
	cr_assert_eq(unlink(file), 0);
	refuse_file(SEGUE_ESTORE, "data.mdb is missing", NULL, 0);
	write_file(file, bytes, size);
	store = open_store(SEGUE_STORE_SERVE);
	expect_text(store, "k", "v");
	segue_store_close(store);
	memset(bytes, 0, 8192);
	refuse_file(SEGUE_ESTORE, "the file is kept", bytes, size);
	free(bytes);
}

struct stored_header {
	uint32_t magic;
	uint16_t format, table;
	uint64_t length, sum;
};

/* The seal as store.h describes it: over 16 bytes of header, key and payload, all in a row. */
static uint64_t seal(const uint8_t *stored, const char *key, uint64_t length)
{
	uint8_t all[4096];
	size_t size = strlen(key);
	cr_assert_lt(16 + size + length, sizeof(all));
	memcpy(all, stored, 16);
	memcpy(all + 16, key, size);
	memcpy(all + 16 + size, stored + sizeof(struct stored_header), length);
	return XXH3_64bits(all, 16 + size + length);
}

Test(store, seals_values_as_documented)
{
	static const char text[] = "a payload that stands nowhere else";
	uint8_t *bytes;
	struct stored_header header;
	struct segue_store *store = open_store(SEGUE_STORE_SERVE);
	assert_ok(put_text(store, "the key", text));
	segue_store_close(store);
	size_t size = read_file(file, &bytes);
	uint8_t *payload = memmem(bytes, size, text, strlen(text));
	cr_assert_not_null(payload);
	memcpy(&header, payload - sizeof(header), sizeof(header));
	cr_assert_eq(memcmp(&header.magic, "SGV1", 4), 0);
	cr_assert_eq(header.format, SEGUE_STORE_FORMAT);
	cr_assert_eq(header.table, SEGUE_TABLE_STATES);
	cr_assert_eq(header.length, strlen(text));
	cr_assert_eq(header.sum, seal(payload - sizeof(header), "the key", header.length));
	free(bytes);
}

/* Changes the 32-bit word at `offset` of the format record, wherever it lies, and seals it anew. */
static void patch_format(uint8_t *bytes, size_t size, size_t offset, uint32_t value)
{
	static const uint64_t magic = UINT64_C(0x65726f7473677331);
	struct stored_header header;
	size_t found = 0;
	for (size_t at = sizeof(header); at + 48 <= size; at++) {
		if (memcmp(bytes + at, &magic, sizeof(magic)) != 0)
			continue;
		uint8_t *stored = bytes + at - sizeof(header);
		memcpy(&header, stored, sizeof(header));
		memcpy(bytes + at + offset, &value, sizeof(value));
		header.sum = seal(stored, "store.format", header.length);
		memcpy(stored, &header, sizeof(header));
		found++;
	}
	cr_assert_gt(found, 0u);
}

Test(store, refuses_other_formats_and_machines)
{
	uint8_t *bytes, *copy;
	segue_store_close(open_store(SEGUE_STORE_SERVE));
	size_t size = read_file(file, &bytes);
	copy = malloc(size);
	cr_assert_not_null(copy);
	memcpy(copy, bytes, size);
	patch_format(copy, size, 8, 4);
	refuse_file(SEGUE_EFORMAT, "has format 4; this program (0.1.0) knows formats up to 3", copy,
		size);
	memcpy(copy, bytes, size);
	patch_format(copy, size, 8, 2);
	refuse_file(SEGUE_EFORMAT, "has format 2, of an earlier segue", copy, size);
	memcpy(copy, bytes, size);
	patch_format(copy, size, 12, 4);
	refuse_file(SEGUE_EFORMAT, "another kind of machine", copy, size);
	memcpy(copy, bytes, size);
	patch_format(copy, size, 16, 65536);
	refuse_file(SEGUE_EFORMAT, "another kind of machine", copy, size);
	memcpy(copy, bytes, size);
	for (size_t at = 16; at <= 4096 + 16; at += 4096) {
		uint32_t magic;
		memcpy(&magic, copy + at, sizeof(magic));
		magic = __builtin_bswap32(magic);
		memcpy(copy + at, &magic, sizeof(magic));
	}
	refuse_file(SEGUE_EFORMAT, "another kind of machine", copy, size);
	free(copy);
	free(bytes);
}

Test(store, lies_on_file_systems_of_one_machine_alone)
{
	/* Lustre, GPFS, BeeGFS, CephFS, FUSE, OCFS2, PanFS; and one that nobody knows */
	static const uint32_t shared[] = {NFS_SUPER_MAGIC, CIFS_SUPER_MAGIC, SMB_SUPER_MAGIC,
		0xfe534d42, V9FS_MAGIC, AFS_SUPER_MAGIC, AFS_FS_MAGIC, 0x0bd00bd0, 0x47504653,
		0x19830326, 0x00c36400, 0x65735546, 0x7461636f, 0xaad7aaea, 0x12345678};
	static const uint32_t local[] = {EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC,
		F2FS_SUPER_MAGIC, 0x2fc12fc1, 0xca451a4e, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC};
	struct segue_store *store;
	unsetenv("SEGUE_ASSUME_LOCAL");
	segue_store_close(open_store(SEGUE_STORE_SERVE));
	for (size_t i = 0; i < sizeof(shared) / sizeof(shared[0]); i++) {
		pretend_file_system = shared[i];
		assert_fails(segue_store_open(dir, SEGUE_STORE_SERVE, &store), SEGUE_ESYSTEM,
			"shared with other machines");
		assert_fails(segue_store_open(dir, SEGUE_STORE_READ, &store), SEGUE_ESYSTEM,
			"SEGUE_ASSUME_LOCAL=1");
		setenv("SEGUE_ASSUME_LOCAL", "0", 1);
		assert_fails(segue_store_open(dir, SEGUE_STORE_SERVE, &store), SEGUE_ESYSTEM, dir);
		setenv("SEGUE_ASSUME_LOCAL", "1", 1);
		segue_store_close(open_store(SEGUE_STORE_SERVE));
		unsetenv("SEGUE_ASSUME_LOCAL");
	}
	for (size_t i = 0; i < sizeof(local) / sizeof(local[0]); i++) {
		pretend_file_system = local[i];
		segue_store_close(open_store(SEGUE_STORE_SERVE));
	}
	pretend_file_system = 0;
}

/* ---- What others put in the place of its files ---------------------------------------------- */

/* Every way to open it is refused, and says `text`. */
static void refuse_all(const char *text)
{
	struct segue_store_verified verified;
	struct segue_store *store;
	assert_fails(segue_store_open(dir, SEGUE_STORE_SERVE, &store), SEGUE_ESYSTEM, text);
	assert_fails(segue_store_open(dir, SEGUE_STORE_READ, &store), SEGUE_ESYSTEM, text);
	assert_fails(segue_store_verify(dir, NULL, NULL, &verified), SEGUE_ESYSTEM, text);
}

Test(store, follows_no_links)
{
	static const char *const names[] = {
		"run/store/data.mdb", "run/store/lock.mdb", "run/store"};
	char victim[SEGUE_TMPDIR_MAX], missing[SEGUE_TMPDIR_MAX], path[SEGUE_TMPDIR_MAX],
		aside[SEGUE_TMPDIR_MAX];
	uint8_t *after;
	segue_store_close(open_store(SEGUE_STORE_SERVE));
	write_file(segue_tmpdir_path(&tmp, "victim", victim), "precious", 8);
	segue_tmpdir_path(&tmp, "missing", missing);
	segue_tmpdir_path(&tmp, "aside", aside);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const char *const targets[] = {victim, missing, aside};
		cr_assert_eq(rename(segue_tmpdir_path(&tmp, names[i], path), aside), 0);
		for (int t = 0; t < 3; t++) {
			cr_assert_eq(symlink(targets[t], path), 0);
			refuse_all("a symbolic link");
			cr_assert_eq(unlink(path), 0);
		}
		cr_assert_eq(rename(aside, path), 0);
	}
	cr_assert_neq(access(missing, F_OK), 0);
	cr_assert_eq(read_file(victim, &after), 8u);
	cr_assert_eq(memcmp(after, "precious", 8), 0);
	free(after);
	segue_store_close(open_store(SEGUE_STORE_SERVE));
}

Test(store, waits_for_no_fifo, .timeout = 30)
{
	static const char *const names[] = {"run/store/data.mdb", "run/store/lock.mdb"};
	char path[SEGUE_TMPDIR_MAX], aside[SEGUE_TMPDIR_MAX];
	segue_store_close(open_store(SEGUE_STORE_SERVE));
	segue_tmpdir_path(&tmp, "aside", aside);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		cr_assert_eq(rename(segue_tmpdir_path(&tmp, names[i], path), aside), 0);
		cr_assert_eq(mkfifo(path, 0600), 0);
		refuse_all("no plain file");
		cr_assert_eq(unlink(path), 0);
		cr_assert_eq(rename(aside, path), 0);
	}
	cr_assert_eq(mkfifo(segue_tmpdir_path(&tmp, "run/server.pid", path), 0600), 0);
	cr_assert_eq(mkfifo(segue_tmpdir_path(&tmp, "run/suspect", path), 0600), 0);
	struct segue_store *store = open_store(SEGUE_STORE_SERVE);
	cr_assert(!stats_of(store).was_clean, "a suspect is a suspect, whatever it is");
	fail_sync_with = EIO;
	assert_fails(segue_store_trust(store), SEGUE_ESTORE, "not known");
	segue_store_close(store);
}

/* The pid is for messages: what stands in its place is not written to. */
Test(store, writes_its_pid_to_a_file_of_its_own)
{
	char victim[SEGUE_TMPDIR_MAX], path[SEGUE_TMPDIR_MAX];
	uint8_t *after;
	write_file(segue_tmpdir_path(&tmp, "victim", victim), "precious", 8);
	cr_assert_eq(mkdir(dir, 0700), 0);
	segue_tmpdir_path(&tmp, "run/server.pid", path);
	for (int hard = 0; hard < 2; hard++) {
		cr_assert_eq(hard ? link(victim, path) : symlink(victim, path), 0);
		segue_store_close(open_store(SEGUE_STORE_SERVE));
		cr_assert_neq(access(path, F_OK), 0);
		cr_assert_eq(read_file(victim, &after), 8u);
		cr_assert_eq(memcmp(after, "precious", 8), 0);
		free(after);
	}
}

static int open_as_a_stranger(void *arg)
{
	struct segue_store *store;
	(void)arg;
	CHILD_CHECK(setresuid(4711, 4711, 4711) == 0);
	CHILD_CHECK(segue_store_open(dir, SEGUE_STORE_READ, &store) == SEGUE_ESYSTEM);
	CHILD_CHECK(strstr(segue_error_detail(), "neither you nor the owner") != NULL);
	return 0;
}

Test(store, belongs_to_one_owner)
{
	char store_dir[SEGUE_TMPDIR_MAX], lock[SEGUE_TMPDIR_MAX];
	struct stat status;
	if (geteuid() != 0)
		skip("needs root");
	segue_store_close(open_store(SEGUE_STORE_SERVE));
	segue_tmpdir_path(&tmp, "run/store", store_dir);
	segue_tmpdir_path(&tmp, "run/store/lock.mdb", lock);
	cr_assert_eq(chown(lock, 12345, 12345), 0);
	refuse_all("lock.mdb belongs to user 12345");
	cr_assert_eq(chown(store_dir, 12345, 12345), 0);
	refuse_all("data.mdb belongs to user 0");
	/* All is another user's: root has that user's rights, and what it makes is theirs. */
	cr_assert_eq(chown(file, 12345, 12345), 0);
	cr_assert_eq(unlink(lock), 0);
	segue_store_close(open_store(SEGUE_STORE_READ));
	cr_assert_eq(setfsuid((uid_t)-1), 0, "root is itself again");
	cr_assert_eq(stat(lock, &status), 0);
	cr_assert_eq(status.st_uid, 12345u);
	/* Another user does not open what a third one has put where all may write. */
	cr_assert_eq(chmod(tmp.root, 0755) | chmod(dir, 0777) | chmod(store_dir, 0777), 0);
	cr_assert_eq(chmod(file, 0666) | chmod(lock, 0666), 0);
	cr_assert_eq(run_child(open_as_a_stranger, NULL), 0);
	struct segue_store *store = open_store(SEGUE_STORE_SERVE);
	assert_ok(put_text(store, "k", "v"));
	segue_store_close(store);
	cr_assert_eq(stat(file, &status), 0);
	cr_assert_eq(status.st_uid, 12345u);
}

/* As 'cp -al' leaves it: another directory, the same file. */
Test(store, is_open_once_by_whatever_name)
{
	char other[SEGUE_TMPDIR_MAX], path[SEGUE_TMPDIR_MAX], names[2][SEGUE_TMPDIR_MAX];
	struct segue_store *store, *second;
	segue_store_close(open_store(SEGUE_STORE_SERVE));
	cr_assert_eq(mkdir(segue_tmpdir_path(&tmp, "other", other), 0700), 0);
	cr_assert_eq(mkdir(segue_tmpdir_path(&tmp, "other/store", path), 0700), 0);
	cr_assert_eq(link(file, segue_tmpdir_path(&tmp, "other/store/data.mdb", names[0])), 0);
	cr_assert_eq(link(segue_tmpdir_path(&tmp, "run/store/lock.mdb", path),
			     segue_tmpdir_path(&tmp, "other/store/lock.mdb", names[1])),
		0);

	pid_t pid = start_holder(SEGUE_STORE_SERVE);
	assert_fails(segue_store_open(other, SEGUE_STORE_SERVE, &second), SEGUE_EBUSY,
		"open under another name");
	assert_fails(segue_store_open(other, SEGUE_STORE_READ, &second), SEGUE_EBUSY,
		"open under another name");
	kill_holder(pid);
	pid = start_holder(SEGUE_STORE_READ);
	assert_fails(
		segue_store_open(other, SEGUE_STORE_SERVE, &second), SEGUE_EBUSY, "command reads");
	kill_holder(pid);

	store = open_store(SEGUE_STORE_SERVE);
	assert_fails(
		segue_store_open(other, SEGUE_STORE_SERVE, &second), SEGUE_EBUSY, "this process");
	assert_ok(put_text(store, "k", "v"));
	segue_store_close(store);
	assert_ok(segue_store_open(other, SEGUE_STORE_SERVE, &second));
	expect_text(second, "k", "v");
	segue_store_close(second);
}

Test(store, on_a_read_only_disk_is_read_only)
{
	struct segue_store *store;
	bool root = geteuid() == 0;
	cr_assert_eq(mkdir(dir, 0700), 0);
	if (root && !mount_tmpfs(dir, "size=4m"))
		skip("cannot mount a tmpfs");
	store = open_store(SEGUE_STORE_SERVE);
	assert_ok(put_text(store, "k", "v"));
	segue_store_close(store);
	cr_assert_eq(
		root ? mount(NULL, dir, NULL, MS_REMOUNT | MS_RDONLY, NULL) : chmod(dir, 0500), 0);
	assert_fails(segue_store_open(dir, SEGUE_STORE_SERVE, &store), SEGUE_EREADONLY, dir);
	store = open_store(SEGUE_STORE_READ);
	expect_text(store, "k", "v");
	segue_store_close(store);
	cr_assert_eq(root ? umount2(dir, MNT_DETACH) : chmod(dir, 0700), 0);
}

/* ---- Disks that are full or fail ------------------------------------------------------------ */

/* Puts k0, k1, ... until there is no room; returns how many there are. */
static int fill_up(struct segue_store *store, int from, size_t size, const char *why)
{
	char key[16];
	char *value = calloc(1, size);
	int count = from, rc;
	for (;; count++) {
		snprintf(key, sizeof(key), "k%d", count);
		memset(value, count, size);
		rc = put(store, key, value, size);
		if (rc || count == 100000)
			break;
	}
	if (rc != SEGUE_ENOSPACE || !strstr(segue_error_detail(), why)) {
		fprintf(stderr, "after %d values: %d %s\n", count, rc, segue_error_detail());
		count = -1;
	}
	free(value);
	return count;
}

/* k0 .. k<count-1> are there and whole, and no other. */
static bool holds_all(struct segue_store *store, int count, size_t size)
{
	for (int i = 0; i <= count; i++) {
		char key[16], *value;
		size_t got;
		snprintf(key, sizeof(key), "k%d", i);
		int rc = segue_store_get(
			store, SEGUE_TABLE_STATES, key, strlen(key), (void **)&value, &got);
		if (i == count)
			return rc == SEGUE_ENOTFOUND;
		if (rc || got != size || value[0] != (char)i || value[size - 1] != (char)i)
			return false;
		segue_free(value);
	}
	return false;
}

Test(store, a_full_disk_costs_nothing_that_was_stored)
{
	struct segue_store *store;
	cr_assert_eq(mkdir(dir, 0700), 0);
	if (!mount_tmpfs(dir, "size=2m"))
		skip("cannot mount a tmpfs");
	store = open_store(SEGUE_STORE_SERVE);
	int count = fill_up(store, 0, 10000, "make room");
	cr_assert_gt(count, 50);
	cr_assert(holds_all(store, count, 10000));
	cr_assert_eq(fill_up(store, count, 10000, "make room"), count, "still full");
	cr_assert_eq(mount(NULL, dir, NULL, MS_REMOUNT, "size=4m"), 0);
	int more = fill_up(store, count, 10000, "make room");
	cr_assert_gt(more, count + 50, "goes on without being opened again");
	cr_assert(holds_all(store, more, 10000));
	cr_assert_eq(mount(NULL, dir, NULL, MS_REMOUNT, "size=5m"), 0);
	segue_store_close(store);
	store = open_store(SEGUE_STORE_SERVE);
	cr_assert(stats_of(store).was_clean);
	cr_assert(holds_all(store, more, 10000));
	segue_store_close(store);
	struct segue_store_verified verified;
	assert_ok(segue_store_verify(dir, NULL, NULL, &verified));
	cr_assert_eq(umount2(dir, MNT_DETACH), 0);
}

Test(store, creation_on_a_full_disk_leaves_nothing)
{
	struct segue_store *store;
	cr_assert_eq(mkdir(dir, 0700), 0);
	if (!mount_tmpfs(dir, "size=16k,nr_inodes=20"))
		skip("cannot mount a tmpfs");
	assert_fails(segue_store_open(dir, SEGUE_STORE_SERVE, &store), SEGUE_ENOSPACE, dir);
	cr_assert_eq(mount(NULL, dir, NULL, MS_REMOUNT, "size=2m"), 0);
	cr_assert_neq(access(file, F_OK), 0);
	segue_store_close(open_store(SEGUE_STORE_SERVE));
	cr_assert_eq(umount2(dir, MNT_DETACH), 0);
}

static int fill_to_file_limit(void *arg)
{
	struct rlimit limit = {1 << 20, RLIM_INFINITY};
	struct segue_store *store;
	(void)arg;
	signal(SIGXFSZ, SIG_IGN);
	CHILD_CHECK(segue_store_open(dir, SEGUE_STORE_SERVE, &store) == 0);
	CHILD_CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
	int count = fill_up(store, 0, 10000, "make room");
	CHILD_CHECK(count > 20 && holds_all(store, count, 10000));
	limit.rlim_cur = 2 << 20;
	CHILD_CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
	int more = fill_up(store, count, 10000, "make room");
	CHILD_CHECK(more > count + 20 && holds_all(store, more, 10000));
	return 0;
}

Test(store, a_file_size_limit_is_a_full_disk)
{
	cr_assert_eq(run_child(fill_to_file_limit, NULL), 0);
}

static int fill_map(void *arg)
{
	struct rlimit limit;
	struct segue_store *store;
	unsigned long pages;
	FILE *statm = fopen("/proc/self/statm", "re");
	(void)arg;
	CHILD_CHECK(statm && fscanf(statm, "%lu", &pages) == 1);
	fclose(statm);
	limit.rlim_cur = pages * 4096 + (100u << 20);
	limit.rlim_max = RLIM_INFINITY;
	CHILD_CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
	CHILD_CHECK(segue_store_open(dir, SEGUE_STORE_SERVE, &store) == 0);
	CHILD_CHECK(stats_of(store).map_bytes == UINT64_C(1) << 26);
	int count = fill_up(store, 0, 4000000, "map of 64 MiB");
	CHILD_CHECK(count >= 10 && holds_all(store, count, 4000000));
	struct segue_store_op drop = {.table = SEGUE_TABLE_STATES,
		.remove = true,
		.prefix = true,
		.key = "k",
		.key_size = 1};
	CHILD_CHECK(segue_store_apply(store, &drop, 1) == 0);
	CHILD_CHECK(put_text(store, "k0", "small") == 0);
	segue_store_close(store);
	return 0;
}

Test(store, a_small_address_space_gives_a_small_map)
{
	if (UNDER_ASAN)
		skip("the address sanitizer needs all of the address space");
	cr_assert_eq(run_child(fill_map, NULL), 0);
}

struct checked {
	int calls, result;
};

static int check_first(void *arg)
{
	struct checked *checked = arg;
	checked->calls++;
	return checked->result;
}

static bool is_due(void)
{
	const struct segue_store_inspection inspection = {.if_due = true};
	struct segue_store_verified verified;
	assert_ok(segue_store_inspect(dir, &inspection, &verified));
	cr_assert_eq(verified.values > 0, verified.due, "nothing is read that need not be");
	return verified.due;
}

Test(store, is_checked_before_it_is_served)
{
	struct checked checked = {0};
	const struct segue_store_serving serving = {.check = check_first, .arg = &checked};
	char path[SEGUE_TMPDIR_MAX];
	struct segue_store *store;
	assert_ok(segue_store_serve(dir, &serving, &store));
	cr_assert_eq(checked.calls, 0, "a new store");
	segue_store_close(store);
	cr_assert(!is_due());
	assert_ok(segue_store_serve(dir, &serving, &store));
	cr_assert_eq(checked.calls, 1);
	segue_store_close(store);
	write_file(segue_tmpdir_path(&tmp, "run/" SEGUE_STORE_SUSPECT, path), "", 0);
	cr_assert(is_due());
	checked.result = SEGUE_ESTORE;
	cr_assert_eq(segue_store_serve(dir, &serving, &store), SEGUE_ESTORE);
	checked.result = 0;
	for (int i = 0; i < 2; i++) { /* until it is trusted */
		assert_ok(segue_store_serve(dir, &serving, &store));
		cr_assert(!stats_of(store).was_clean && !stats_of(store).same_boot);
		if (i)
			assert_ok(segue_store_trust(store));
		segue_store_close(store);
	}
	cr_assert_neq(access(path, F_OK), 0);
	cr_assert(!is_due());
}

/* A write failed in a way that leaves its outcome open: reads go on, writes do not. */
static void expect_poisoned(struct segue_store *store)
{
	expect_text(store, "old", "1");
	assert_fails(put_text(store, "new", "3"), SEGUE_ESTORE, "an earlier write");
	expect_text(store, "old", "1");
	segue_store_close(store);
	store = open_store(SEGUE_STORE_SERVE);
	cr_assert(!stats_of(store).was_clean, "a store that failed is not marked clean");
	cr_assert(!stats_of(store).same_boot, "a store that failed is to be verified first");
	expect_text(store, "old", "1");
	int rc = get_code(store, "new");
	cr_assert(rc == 0 || rc == SEGUE_ENOTFOUND);
	if (rc == 0)
		expect_text(store, "new", "2");
	assert_ok(put_text(store, "new", "4"));
	expect_text(store, "new", "4");
	segue_store_close(store);
	struct segue_store_verified verified;
	assert_ok(segue_store_verify(dir, NULL, NULL, &verified));
}

Test(store, a_failed_sync_stops_all_writing)
{
	struct segue_store *store = open_store(SEGUE_STORE_SERVE);
	assert_ok(put_text(store, "old", "1"));
	fail_sync_with = EIO;
	assert_fails(put_text(store, "new", "2"), SEGUE_ESTORE, "not known");
	cr_assert_eq(fail_sync_with, 0, "LMDB went past fdatasync here");
	expect_poisoned(store);
}

Test(store, a_failed_meta_page_stops_all_writing)
{
	static const int errors[] = {EIO, ENOSPC};
	for (size_t i = 0; i < 2; i++) {
		struct segue_store *store = open_store(SEGUE_STORE_SERVE);
		assert_ok(put_text(store, "old", "1"));
		fail_meta_with = errors[i];
		assert_fails(put_text(store, "new", "2"), SEGUE_ESTORE, "not known");
		cr_assert_eq(fail_meta_with, 0);
		expect_poisoned(store);
		segue_tmpdir_remove_path(dir);
	}
}

Test(store, no_room_at_the_sync_leaves_the_store_as_it_was)
{
	struct segue_store *store = open_store(SEGUE_STORE_SERVE);
	assert_ok(put_text(store, "old", "1"));
	fail_sync_with = ENOSPC;
	assert_fails(put_text(store, "new", "2"), SEGUE_ENOSPACE, "make room");
	cr_assert_eq(get_code(store, "new"), SEGUE_ENOTFOUND);
	assert_ok(put_text(store, "new", "3"));
	expect_text(store, "new", "3");
	segue_store_close(store);
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

/* ---- Damage --------------------------------------------------------------------------------- */

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
	assert_fails(
		segue_store_verify(dir, note_damage, &found, &verified), SEGUE_ESTORE, "1 places");
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
