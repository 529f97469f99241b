/*
 * The store between threads: one writes transactions, two read, one asks for figures; meant for
 * ThreadSanitizer.
 *
 *	stress_store [transactions]
 *
 * A transaction gives every row its own number. A scan is one snapshot: all rows must show the same
 * number. None is older than what was acknowledged before, or was not begun.
 */
#include "store/store.h"
#include "store/key.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tmpdir.h"

#define ROWS 20

static struct segue_store *store;
static atomic_uint_fast64_t begun, done; /* transactions */
static atomic_bool ended;

static void die(const char *what)
{
	fprintf(stderr, "FAIL: %s: %s\n", what, segue_error_detail());
	abort();
}

/* Sizes differ, so that pages of all kinds move. */
static size_t size_of(uint64_t n, uint32_t row)
{
	return 8 * (1 + (n * 37 + row * 101) % 700);
}

static void *write_all(void *arg)
{
	static uint64_t values[ROWS][700];
	uint8_t keys[ROWS][4];
	struct segue_store_op ops[ROWS];
	uint64_t count = *(const uint64_t *)arg;
	for (uint64_t n = 1; n <= count; n++) {
		for (uint32_t row = 0; row < ROWS; row++) {
			segue_key_put32(keys[row], row);
			for (size_t i = 0; i < size_of(n, row) / 8; i++)
				values[row][i] = n;
			ops[row] = (struct segue_store_op){.table = SEGUE_TABLE_STATES,
				.key = keys[row],
				.key_size = 4,
				.value = values[row],
				.value_size = size_of(n, row)};
		}
		begun = n;
		if (segue_store_apply(store, ops, ROWS))
			die("apply");
		done = n;
	}
	ended = true;
	return NULL;
}

struct snapshot {
	uint64_t number;
	uint32_t rows;
};

static uint64_t number_of(const void *value, size_t size, uint32_t row)
{
	const uint64_t *words = value;
	uint64_t n, other;
	memcpy(&n, words, sizeof(n));
	if (size != size_of(n, row))
		die("the size is of another number");
	for (size_t i = 1; i < size / 8; i++) {
		memcpy(&other, words + i, sizeof(other));
		if (other != n)
			die("a value of two numbers");
	}
	return n;
}

static int visit(void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	struct snapshot *snapshot = arg;
	if (key_size != 4 || segue_key_get32(key) != snapshot->rows)
		die("a row is missing");
	uint64_t n = number_of(value, value_size, snapshot->rows);
	if (snapshot->rows && n != snapshot->number)
		die("a snapshot of two numbers");
	snapshot->number = n;
	snapshot->rows++;
	return 0;
}

static uint64_t read_one(uint32_t row)
{
	uint8_t key[4];
	void *value;
	size_t size;
	segue_key_put32(key, row);
	int rc = segue_store_get(store, SEGUE_TABLE_STATES, key, sizeof(key), &value, &size);
	if (rc == SEGUE_ENOTFOUND)
		return 0;
	if (rc)
		die("get");
	uint64_t n = number_of(value, size, row);
	segue_free(value);
	return n;
}

static void *read_all(void *arg)
{
	uint64_t *scans = arg;
	for (uint32_t turn = 0; !ended; turn++) {
		struct snapshot snapshot = {0};
		uint64_t low = done, n;
		if (turn % 2) {
			if (segue_store_scan(
				    store, SEGUE_TABLE_STATES, NULL, 0, visit, NULL, &snapshot))
				die("scan");
			n = snapshot.number;
		} else {
			n = read_one(turn % ROWS);
		}
		/*
		 * Not "never less than the last one": a reader of LMDB that is held up while it begins
		 * may see a commit that is being written, and the next reader the one before it.
		 */
		if (n < low)
			die("an acknowledged number is not there");
		if (n > begun)
			die("a number that was not begun");
		++*scans;
	}
	return NULL;
}

static void *ask_figures(void *arg)
{
	struct segue_store_stats stats;
	uint64_t low;
	(void)arg;
	while (!ended) {
		low = done;
		segue_store_stats(store, &stats);
		if (stats.transactions < low || stats.file_bytes == 0)
			die("figures");
	}
	return NULL;
}

int main(int argc, char **argv)
{
	struct segue_tmpdir tmp;
	char path[SEGUE_TMPDIR_MAX];
	pthread_t threads[4];
	uint64_t count = argc > 1 ? strtoull(argv[1], NULL, 0) : 1000, scans[2] = {0};
	struct segue_store_verified verified;
	segue_tmpdir_make(&tmp, "store-stress");
	segue_tmpdir_path(&tmp, "run", path);
	if (segue_store_open(path, SEGUE_STORE_SERVE, &store))
		die("open");
	if (pthread_create(&threads[0], NULL, write_all, &count) ||
		pthread_create(&threads[1], NULL, read_all, &scans[0]) ||
		pthread_create(&threads[2], NULL, read_all, &scans[1]) ||
		pthread_create(&threads[3], NULL, ask_figures, NULL))
		die("threads");
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	segue_store_close(store);
	if (segue_store_verify(path, NULL, NULL, &verified))
		die("verify");
	segue_tmpdir_remove(&tmp);
	if (scans[0] == 0 || scans[1] == 0)
		die("nobody has read beside the writer");
	printf("stress_store: %llu transactions, %llu and %llu reads beside them\n",
		(unsigned long long)count, (unsigned long long)scans[0],
		(unsigned long long)scans[1]);
	return 0;
}
