/*
 * The store under SIGKILL: a child applies numbered transactions and reports each that was
 * acknowledged; the parent kills it at a random moment, opens the store and checks it.
 *
 *	test_store_kill [rounds [seed]]
 *
 * After each kill: the store opens without help, the lock is free, it holds the state after one
 * whole transaction n, and n is the last that was acknowledged or the one after. Every tenth round
 * begins with no store, so that its creation is killed too. The oracle is transaction_values():
 *what the store must hold is a function of n alone.
 */
#include "store/store.h"
#include "store/key.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tmpdir.h"

#define ROWS       6
#define BLOCK      16 /* values of FINALS that are removed at once, by prefix */
#define SIZE_MAX_V 9000
#define POSITION   "position"

static const char *dir;
static uint64_t random_state, seed;

static uint64_t next_random(void)
{
	uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15);
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static void die(const char *what, uint64_t n)
{
	fprintf(stderr, "FAIL: %s (%llu): %s; seed %llu\n", what, (unsigned long long)n,
		segue_error_detail(), (unsigned long long)seed);
	_exit(1);
}

/* The value of row `row` after transaction n: its size changes too. */
static size_t row_value(uint8_t *value, uint64_t n, uint32_t row)
{
	uint64_t hash = (n * 64 + row + 1) * UINT64_C(0xd6e8feb86659fd93);
	size_t size = row % 2 ? 100 + (hash >> 50) % 1500 : (hash >> 45) % SIZE_MAX_V;
	for (size_t i = 0; i < size; i++) {
		hash = hash * UINT64_C(6364136223846793005) + 1442695040888963407u;
		value[i] = (uint8_t)(hash >> 56);
	}
	return size;
}

static size_t final_key(uint8_t key[16], uint64_t n)
{
	segue_key_put64(segue_key_put64(key, n / BLOCK), n);
	return 16;
}

/* The first number whose final is still there after transaction n. */
static uint64_t first_final(uint64_t n)
{
	return n / BLOCK < 2 ? 1 : (n / BLOCK - 1) * BLOCK;
}

/* ---- The child ------------------------------------------------------------------------------ */

/* Transaction n: the position, every row, one final more; at times a whole block of finals less. */
static int apply(struct segue_store *store, uint64_t n)
{
	static uint8_t values[ROWS][SIZE_MAX_V];
	uint8_t row_keys[ROWS][4], key[16], old[8];
	struct segue_store_op ops[ROWS + 3];
	size_t count = 0;
	for (uint32_t row = 0; row < ROWS; row++) {
		segue_key_put32(row_keys[row], row);
		ops[count++] = (struct segue_store_op){.table = SEGUE_TABLE_STATES,
			.key = row_keys[row],
			.key_size = 4,
			.value = values[row],
			.value_size = row_value(values[row], n, row)};
	}
	ops[count++] = (struct segue_store_op){.table = SEGUE_TABLE_LANES,
		.key = POSITION,
		.key_size = strlen(POSITION),
		.value = &n,
		.value_size = sizeof(n)};
	ops[count++] = (struct segue_store_op){.table = SEGUE_TABLE_FINALS,
		.key = key,
		.key_size = final_key(key, n),
		.value = &n,
		.value_size = sizeof(n)};
	if (n % BLOCK == 0 && n / BLOCK >= 2) {
		segue_key_put64(old, n / BLOCK - 2);
		ops[count++] = (struct segue_store_op){.table = SEGUE_TABLE_FINALS,
			.remove = true,
			.prefix = true,
			.key = old,
			.key_size = 8};
	}
	return segue_store_apply(store, ops, count);
}

/* 0 if there is no position yet. */
static uint64_t position_of(struct segue_store *store)
{
	void *value;
	size_t size;
	uint64_t n;
	int rc = segue_store_get(
		store, SEGUE_TABLE_LANES, POSITION, strlen(POSITION), &value, &size);
	if (rc == SEGUE_ENOTFOUND)
		return 0;
	if (rc || size != sizeof(n))
		die("position", (uint64_t)-rc);
	memcpy(&n, value, sizeof(n));
	segue_free(value);
	return n;
}

static void work(int report)
{
	struct segue_store *store;
	if (segue_store_open(dir, SEGUE_STORE_SERVE, &store))
		die("open in the child", 0);
	for (uint64_t n = position_of(store) + 1;; n++) {
		if (apply(store, n))
			die("apply", n);
		if (write(report, &n, sizeof(n)) != sizeof(n))
			die("report", n);
	}
}

/* ---- The parent ----------------------------------------------------------------------------- */

struct seen {
	uint64_t n, next; /* the transaction; the key that must come next */
};

static int visit_final(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	struct seen *seen = arg;
	uint8_t expected[16];
	size_t size = final_key(expected, seen->next);
	if (key_size != size || memcmp(key, expected, size) != 0 || value_size != 8 ||
		memcmp(value, &seen->next, 8) != 0)
		die("a final is not the one that comes next", seen->next);
	seen->next++;
	return 0;
}

static int visit_row(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	static uint8_t expected[SIZE_MAX_V];
	struct seen *seen = arg;
	if (key_size != 4 || segue_key_get32(key) != seen->next)
		die("a row is missing", seen->next);
	size_t size = row_value(expected, seen->n, (uint32_t)seen->next);
	if (value_size != size || memcmp(value, expected, size) != 0)
		die("a row is not of the transaction that the position tells", seen->n);
	seen->next++;
	return 0;
}

/* The store holds exactly what transaction n leaves; returns n. */
static uint64_t check(uint64_t acknowledged, uint64_t floor)
{
	struct segue_store *store;
	struct segue_store_stats stats;
	struct segue_store_verified verified;
	if (segue_store_open(dir, SEGUE_STORE_SERVE, &store))
		die("open after the kill", acknowledged);
	segue_store_stats(store, &stats);
	uint64_t n = position_of(store), low = acknowledged > floor ? acknowledged : floor;
	if (n < low)
		die("an acknowledged transaction is lost", n);
	if (n > low + 1)
		die("a transaction that was never begun", n);
	if (n > floor && stats.was_clean)
		die("the end was not clean", n);
	struct seen rows = {n, 0}, finals = {n, n ? first_final(n) : 1};
	if (segue_store_scan(store, SEGUE_TABLE_STATES, NULL, 0, visit_row, NULL, &rows) ||
		segue_store_scan(store, SEGUE_TABLE_FINALS, NULL, 0, visit_final, NULL, &finals))
		die("scan", n);
	if (rows.next != (n ? ROWS : 0) || finals.next != n + 1)
		die("rows or finals are missing", n);
	segue_store_close(store);
	if (segue_store_verify(dir, NULL, NULL, &verified))
		die("verify", n);
	return n;
}

static void pause_for(uint64_t nanoseconds)
{
	struct timespec time = {
		(time_t)(nanoseconds / 1000000000), (long)(nanoseconds % 1000000000)};
	while (nanosleep(&time, &time) < 0 && errno == EINTR)
		;
}

/* One life of a child. Returns the last number that it reported; 0: none. */
static uint64_t live_and_die(uint64_t nanoseconds)
{
	int ends[2], status;
	uint64_t n, last = 0;
	if (pipe2(ends, O_CLOEXEC) < 0)
		die("pipe", 0);
	pid_t pid = fork();
	if (pid < 0)
		die("fork", 0);
	if (pid == 0)
		work(ends[1]);
	close(ends[1]);
	pause_for(nanoseconds);
	kill(pid, SIGKILL);
	if (waitpid(pid, &status, 0) != pid)
		die("wait", 0);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		die("the child ended by itself", 0);
	while (read(ends[0], &n, sizeof(n)) == sizeof(n))
		last = n;
	close(ends[0]);
	return last;
}

int main(int argc, char **argv)
{
	struct segue_tmpdir tmp;
	char path[SEGUE_TMPDIR_MAX];
	struct timespec now;
	uint64_t floor = 0, lives = 0, unacknowledged = 0, creations = 0;
	unsigned long rounds = argc > 1 ? strtoul(argv[1], NULL, 0) : 300;
	clock_gettime(CLOCK_REALTIME, &now);
	random_state = seed =
		argc > 2 ? strtoull(argv[2], NULL, 0)
			 : (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
	printf("test_store_kill: %lu rounds, seed %llu\n", rounds, (unsigned long long)seed);
	fflush(stdout);
	segue_tmpdir_make(&tmp, "store-kill");
	dir = segue_tmpdir_path(&tmp, "run", path);
	for (unsigned long round = 0; round < rounds; round++) {
		bool fresh = round % 10 == 0;
		if (fresh) {
			segue_tmpdir_remove_path(dir);
			floor = 0;
		}
		/* a creation takes some ten milliseconds, a transaction a few */
		uint64_t last = live_and_die(next_random() % (fresh ? 40000000 : 30000000));
		creations += fresh && last == 0;
		uint64_t n = check(last, floor);
		unacknowledged += n > (last > floor ? last : floor);
		lives += n - floor;
		floor = n;
	}
	segue_tmpdir_remove(&tmp);
	printf("test_store_kill: %lu kills, %llu of them before the first transaction of a new "
	       "store, "
	       "%llu transactions, %llu on disk though not acknowledged; all as they should be\n",
		rounds, (unsigned long long)creations, (unsigned long long)lives,
		(unsigned long long)unacknowledged);
	return 0;
}
