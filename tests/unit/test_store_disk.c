/* The store on disks that are full or fail. */
#include <errno.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store_fixture.h"

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
