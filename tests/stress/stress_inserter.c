/*
 * Many insert into one log, others read what is there meanwhile: for the thread sanitizer.
 *
 *	stress_inserter [sequences a producer]
 *
 * Each producer has several inserts on their way; one of them is taken over now and then, and goes
 * on behind what the session before it inserted. In the end each serial of each is there once, in
 * its order.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "logwork.h"
#include "tmpdir.h"
#include "engine/inserter.h"

enum { PRODUCERS = 4, READERS = 2, WINDOW = 6, FILE_BYTES = 40000 };

static struct segue_log *segue_log;
static struct segue_inserter *inserter;
static _Atomic uint64_t there, read_to[READERS];
static _Atomic uint64_t syncs;
static _Atomic bool over;
static uint64_t each = 2000;

static void die(const char *what)
{
	fprintf(stderr, "FAIL: %s: %s\n", what, segue_error_detail());
	_exit(1);
}

/* ---- What the inserter calls ---- */

static bool is_full(void *arg, uint64_t count)
{
	uint64_t least = read_to[0] < read_to[1] ? read_to[0] : read_to[1];

	(void)arg;
	return count > least + 64;
}

static void grown(void *arg, uint64_t count)
{
	(void)arg;
	there = count;
}

static void note_sync(void *arg)
{
	(void)arg;
	syncs++;
}

static int store(void *arg, const struct segue_log_end *end)
{
	(void)arg;
	return end->count == there ? 0 : SEGUE_ESTORE;
}

static void ended(void *arg, uint64_t count)
{
	(void)arg;
	if (count != there)
		die("it ended after others");
}

/* ---- Producers ---- */

struct asked {
	struct segue_ask ask;
	pthread_mutex_t lock;
	pthread_cond_t answered;
	bool is;
};

static void answered(struct segue_ask *ask)
{
	struct asked *asked = ask->arg;

	pthread_mutex_lock(&asked->lock);
	asked->is = true;
	pthread_cond_signal(&asked->answered);
	pthread_mutex_unlock(&asked->lock);
}

static void ask(struct asked *asked)
{
	asked->is = false;
	asked->ask.answer = answered;
	asked->ask.arg = asked;
	segue_inserter_ask(inserter, &asked->ask);
}

static int result(struct asked *asked)
{
	pthread_mutex_lock(&asked->lock);
	while (!asked->is)
		pthread_cond_wait(&asked->answered, &asked->lock);
	pthread_mutex_unlock(&asked->lock);
	segue_log_entry_free(asked->ask.entry);
	asked->ask.entry = NULL;
	return segue_outcome_give(&asked->ask.outcome);
}

static uint64_t open_session(struct asked *asked, const char *name, uint64_t *serial)
{
	asked->ask = (struct segue_ask){.what = SEGUE_ASKED_OPEN,
		.asked = {.name = name, .name_size = strlen(name), .takeover = true}};
	ask(asked);
	if (result(asked))
		die("a session does not open");
	*serial = asked->ask.serial;
	free(asked->ask.cursor);
	return asked->ask.session;
}

static void insert(struct asked *asked, const char *name, uint64_t session, uint64_t serial)
{
	const struct segue_logwork work = {.what = serial, .serial = serial, .producer = name};

	asked->ask = (struct segue_ask){.what = SEGUE_ASKED_INSERT,
		.session = session,
		.serial = serial,
		.entry = segue_logwork_make(segue_log, &work)};
	ask(asked);
}

static void *produce(void *arg)
{
	const char *name = arg;
	struct asked asked[WINDOW];
	uint64_t serial, session;

	for (int i = 0; i < WINDOW; i++) {
		asked[i] = (struct asked){.is = true};
		pthread_mutex_init(&asked[i].lock, NULL);
		pthread_cond_init(&asked[i].answered, NULL);
	}
	session = open_session(&asked[0], name, &serial);
	for (unsigned round = 1; serial < each; round++) {
		uint64_t first = serial;

		for (int i = 0; i < WINDOW; i++)
			insert(&asked[i], name, session, first + 1 + (uint64_t)i);
		if (round % 16 == 0) /* whatever is on its way */
			segue_inserter_gone(inserter, session);
		for (int i = 0; i < WINDOW; i++) {
			int rc = result(&asked[i]);

			if (rc && !(rc == SEGUE_EFENCED && round % 16 == 0))
				die("an insert");
		}
		if (round % 16 == 0)
			session = open_session(&asked[0], name, &serial);
		else
			serial = first + WINDOW;
	}
	return NULL;
}

/* ---- Readers ---- */

static void *read_all(void *arg)
{
	_Atomic uint64_t *to = arg;
	struct segue_log_entry *entry;
	struct segue_log_stand stand;

	while (!over || *to < there) {
		uint64_t n = *to, hash[2], what;

		if (n == there) {
			usleep(50);
			continue;
		}
		if (segue_log_read(segue_log, n, &entry) || !segue_logwork_tell(entry, &what))
			die("what was inserted cannot be read");
		if (segue_log_hash(segue_log, n, hash) || segue_log_bytes_from(segue_log, n) == 0)
			die("where it is");
		segue_log_entry_free(entry);
		segue_log_look(segue_log, &stand);
		if (stand.written.number <= n || segue_log_floor(segue_log, n) > n)
			die("where the log stands");
		*to = n + 1;
		segue_inserter_kick(inserter);
		if (n % 50 == 0)
			segue_inserter_urge(inserter);
	}
	return NULL;
}

/* ---- All of it ---- */

static void check(void)
{
	const struct segue_seqlog *producers = segue_log_producers(segue_log);
	uint64_t last[PRODUCERS] = {0};
	struct segue_log_entry *entry;

	for (uint64_t n = 0; n < there; n++) {
		if (segue_log_read(segue_log, n, &entry))
			die("a sequence is not there");
		int who = entry->entry.stamp.producer[0] - 'a';
		if (entry->entry.stamp.serial != ++last[who])
			die("a serial is missing, or there twice");
		segue_log_entry_free(entry);
	}
	for (uint32_t i = 0; i < PRODUCERS; i++)
		if (last[producers->producer[i].name[0] - 'a'] != producers->producer[i].serial)
			die("a producer has another serial");
}

int main(int argc, char **argv)
{
	static char names[PRODUCERS][2] = {"a", "b", "c", "d"};
	static const uint8_t id[SEGUE_SEQLOG_ID] = "of the stress";
	char path[SEGUE_TMPDIR_MAX];
	const struct segue_log_means means = {.dir = path,
		.fields = segue_logwork_fields,
		.count = SEGUE_LOGWORK_FIELDS,
		.file_bytes = FILE_BYTES};
	struct segue_inserter_order order = {.commit = true,
		.interval_ns = 1000000,
		.most = UINT64_MAX,
		.is_full = is_full,
		.grown = grown,
		.synced = note_sync,
		.store = store,
		.ended = ended};
	pthread_t producer[PRODUCERS], reader[READERS];
	struct segue_tmpdir tmp;

	if (argc > 1)
		each = strtoull(argv[1], NULL, 10);
	if (access("/dev/shm", W_OK) == 0)
		setenv("TMPDIR", "/dev/shm", 0);
	segue_tmpdir_make(&tmp, "stress-inserter");
	segue_tmpdir_path(&tmp, "log", path);
	if (segue_log_create(&means, id, &segue_log))
		die("a log");
	order.log = segue_log;
	if (segue_inserter_create(&order, &inserter))
		die("an inserter");
	for (int i = 0; i < READERS; i++)
		pthread_create(&reader[i], NULL, read_all, &read_to[i]);
	for (int i = 0; i < PRODUCERS; i++)
		pthread_create(&producer[i], NULL, produce, names[i]);
	for (int i = 0; i < PRODUCERS; i++)
		pthread_join(producer[i], NULL);
	over = true;
	for (int i = 0; i < READERS; i++)
		pthread_join(reader[i], NULL);
	segue_inserter_destroy(inserter);
	check();
	printf("inserter: %" PRIu64 " sequences\n", there);
	segue_log_close(segue_log);
	segue_tmpdir_remove(&tmp);
	return 0;
}
