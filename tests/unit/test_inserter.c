/* Tests of the thread that writes to a log: what is answered is so, and who waits is woken. */
#include "engine/inserter.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "logwork.h"
#include "tmpdir.h"
#include "core/wait.h"

#define SOON_NS  INT64_C(10000000)
#define NEVER_NS INT64_C(1000000000000)
#define PATIENCE 30000 /* turns of a millisecond */

static struct segue_tmpdir tmp;
static char dir[SEGUE_TMPDIR_MAX];
static struct segue_log *segue_log;
static struct segue_inserter *inserter;
static struct segue_log_known known = {.id = "of the inserter"};

/* What the inserter calls, and what it is told. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t news = PTHREAD_COND_INITIALIZER;
static _Atomic uint64_t most = UINT64_MAX; /* sequences that the lanes take */
static uint64_t whole = UINT64_MAX;        /* with so many the input ends */
static _Atomic uint64_t grown_to, ended_after, stores, syncs;
static int store_code;
static bool store_synced;

static _Atomic unsigned times_full, times_idle;

static void pass_over(void *arg, const struct segue_producer *producer)
{
	(void)arg, (void)producer;
}

static bool is_full(void *arg, uint64_t count)
{
	(void)arg;
	if (count < most)
		return false;
	times_idle += !segue_inserter_look(inserter, pass_over, NULL);
	times_full++;
	return true;
}

static void grown(void *arg, uint64_t count)
{
	(void)arg;
	cr_assert_gt(count, grown_to);
	grown_to = count;
}

static void note_sync(void *arg)
{
	(void)arg;
	syncs++;
}

/* Whether the only file ends with its foot. */
static bool is_whole(void)
{
	uint8_t bytes[1 << 16];
	struct segue_seqfile_foot foot;
	char path[SEGUE_TMPDIR_MAX + 32];

	snprintf(path, sizeof(path), "%s/%020d.segue", dir, 0);
	FILE *file = fopen(path, "re");
	cr_assert(file);
	size_t size = fread(bytes, 1, sizeof(bytes), file);
	fclose(file);
	return size >= SEGUE_SEQFILE_FOOT &&
	       segue_seqfile_read_foot(bytes + size - SEGUE_SEQFILE_FOOT, size, &foot) == 0;
}

static int store(void *arg, const struct segue_log_end *end)
{
	struct segue_log_stand stand;

	(void)arg;
	segue_log_look(segue_log, &stand);
	store_synced = stand.synced.number == end->count;
	if (end->count > 0)
		cr_assert_eq(is_whole(), end->ended);
	return stores++ == 0 ? store_code : 0;
}

static void ended(void *arg, uint64_t count)
{
	(void)arg;
	cr_assert_geq(stores, 1, "it is told before it is stored");
	ended_after = count;
}

static void begin_with(bool commit, int64_t interval_ns)
{
	const struct segue_log_means means = {
		.dir = dir, .fields = segue_logwork_fields, .count = SEGUE_LOGWORK_FIELDS};
	struct segue_inserter_order order = {.commit = commit,
		.interval_ns = interval_ns,
		.expected = 2,
		.most = whole,
		.is_full = is_full,
		.grown = grown,
		.synced = note_sync,
		.store = store,
		.ended = ended};

	if (access("/dev/shm", W_OK) == 0)
		setenv("TMPDIR", "/dev/shm", 0);
	segue_tmpdir_make(&tmp, "inserter");
	segue_tmpdir_path(&tmp, "log", dir);
	cr_assert_eq(segue_log_create(&means, known.id, &segue_log), 0);
	order.log = segue_log;
	cr_assert_eq(segue_inserter_create(&order, &inserter), 0, "%s", segue_error_detail());
}

static void end(void)
{
	segue_inserter_destroy(inserter);
	segue_log_close(segue_log);
	segue_tmpdir_remove(&tmp);
}

TestSuite(inserter, .fini = end);

/* ---- Asking ---- */

struct asked {
	struct segue_ask ask;
	bool answered; /* under `lock` */
	uint64_t synced;
};

static void answered(struct segue_ask *ask)
{
	struct asked *asked = ask->arg;
	struct segue_log_stand stand;

	segue_log_look(segue_log, &stand);
	pthread_mutex_lock(&lock);
	asked->synced = stand.synced.number;
	asked->answered = true;
	pthread_cond_broadcast(&news);
	pthread_mutex_unlock(&lock);
}

static void ask(struct asked *asked)
{
	asked->ask.answer = answered;
	asked->ask.arg = asked;
	segue_inserter_ask(inserter, &asked->ask);
}

static bool is_answered(struct asked *asked)
{
	pthread_mutex_lock(&lock);
	bool is = asked->answered;
	pthread_mutex_unlock(&lock);
	return is;
}

/* Waits for the answer, and gives its code. */
static int result(struct asked *asked)
{
	pthread_mutex_lock(&lock);
	while (!asked->answered)
		pthread_cond_wait(&news, &lock);
	pthread_mutex_unlock(&lock);
	segue_log_entry_free(asked->ask.entry);
	asked->ask.entry = NULL;
	return segue_outcome_give(&asked->ask.outcome);
}

static void insert(struct asked *asked, const char *name, uint64_t session, uint64_t serial)
{
	const struct segue_logwork work = {
		.what = serial, .serial = serial, .producer = name, .steps = 3};

	*asked = (struct asked){.ask = {.what = SEGUE_ASKED_INSERT,
					.session = session,
					.serial = serial,
					.entry = segue_logwork_make(segue_log, &work)}};
	ask(asked);
}

static int insert_now(const char *name, uint64_t session, uint64_t serial)
{
	struct asked asked;

	insert(&asked, name, session, serial);
	return result(&asked);
}

static _Atomic uint64_t opened_synced; /* when the last session was answered */

static int open_now(const char *name, bool takeover, uint64_t *session, uint64_t *serial)
{
	struct asked asked = {.ask = {.what = SEGUE_ASKED_OPEN,
				      .asked = {.name = name,
					      .name_size = strlen(name),
					      .token = {(uint8_t)takeover},
					      .takeover = takeover}}};
	int rc;

	ask(&asked);
	rc = result(&asked);
	free(asked.ask.cursor);
	*session = asked.ask.session;
	*serial = asked.ask.serial;
	opened_synced = asked.synced;
	return rc;
}

static uint64_t must_open(const char *name)
{
	uint64_t session, serial;

	cr_assert_eq(open_now(name, false, &session, &serial), 0, "%s", segue_error_detail());
	return session;
}

static int end_now(enum segue_asked what, uint64_t session)
{
	struct asked asked = {.ask = {.what = what, .session = session}};

	ask(&asked);
	return result(&asked);
}

static uint64_t written(void)
{
	struct segue_log_stand stand;

	segue_log_look(segue_log, &stand);
	return stand.written.number;
}

static uint64_t synced(void)
{
	struct segue_log_stand stand;

	segue_log_look(segue_log, &stand);
	return stand.synced.number;
}

/* ---- Inserts ---- */

Test(inserter, answers_when_it_is_synced)
{
	struct asked asked[100];

	begin_with(true, NEVER_NS);
	uint64_t session = must_open("a");
	for (uint64_t i = 0; i < 100; i++)
		insert(&asked[i], "a", session, i + 1);
	for (uint64_t i = 0; i < 100; i++) {
		cr_assert_eq(result(&asked[i]), 0);
		cr_assert_gt(asked[i].synced, i, "it was answered before");
	}
	cr_assert_eq(written(), 100);
	/* Once more: it is there, and not twice. */
	cr_assert_eq(insert_now("a", session, 7), 0);
	cr_assert_eq(insert_now("a", session, 102), SEGUE_EINVAL);
	cr_assert_eq(written(), 100);
}

Test(inserter, answers_when_it_is_written_and_syncs_later)
{
	begin_with(false, SOON_NS);
	uint64_t session = must_open("a");

	for (uint64_t i = 1; i <= 20; i++)
		cr_assert_eq(insert_now("a", session, i), 0);
	for (int i = 0; i < PATIENCE && synced() < 20; i++)
		usleep(1000);
	cr_assert_eq(synced(), 20);
}

Test(inserter, is_synced_when_somebody_urges)
{
	begin_with(false, NEVER_NS);
	uint64_t session = must_open("a");

	cr_assert_eq(insert_now("a", session, 1), 0);
	cr_assert_eq(synced(), 0);
	uint64_t before = syncs;
	segue_inserter_urge(inserter);
	for (int i = 0; i < PATIENCE && syncs == before; i++)
		usleep(1000);
	cr_assert_eq(syncs, before + 1);
	cr_assert_eq(synced(), 1);
	segue_inserter_urge(inserter); /* nothing is new, and who waits hears of it all the same */
	for (int i = 0; i < PATIENCE && syncs == before + 1; i++)
		usleep(1000);
	cr_assert_eq(syncs, before + 2);
}

Test(inserter, a_session_opens_when_what_its_name_inserted_is_synced)
{
	uint64_t session, serial;

	begin_with(false, NEVER_NS);
	session = must_open("a");
	for (uint64_t i = 1; i <= 3; i++)
		cr_assert_eq(insert_now("a", session, i), 0);
	cr_assert_eq(synced(), 0);
	cr_assert_eq(open_now("a", true, &session, &serial), 0);
	cr_assert(serial == 3 && opened_synced == 3);
}

/* ---- Waiting ---- */

Test(inserter, waits_while_the_lanes_have_enough)
{
	struct asked blocked, behind, other;
	uint64_t session, serial, taken;

	begin_with(true, NEVER_NS);
	session = must_open("a");
	most = 1;
	cr_assert_eq(insert_now("a", session, 1), 0);
	insert(&blocked, "a", session, 2);
	insert(&behind, "a", session, 3);
	usleep(20000);
	cr_assert(!is_answered(&blocked) && !is_answered(&behind));
	/* It waits also while it is looked again whether it has to. */
	for (unsigned times = times_full; times_full < times + 5; usleep(1000))
		segue_inserter_kick(inserter);
	cr_assert_eq(times_idle, 1, "only before it is known that it has to wait");
	/* What is there already, and all but inserts, wait for nobody. */
	taken = must_open("b");
	cr_assert_eq(written(), 1);
	most = 2;
	segue_inserter_kick(inserter);
	cr_assert_eq(result(&blocked), 0);
	usleep(20000);
	cr_assert(!is_answered(&behind));
	/* Its session ends: nobody waits for it any more. */
	insert(&other, "b", taken, 1);
	segue_inserter_gone(inserter, session);
	cr_assert_eq(result(&behind), SEGUE_EFENCED);
	usleep(20000);
	cr_assert(!is_answered(&other));
	most = 3;
	segue_inserter_kick(inserter);
	cr_assert_eq(result(&other), 0);
	cr_assert_eq(open_now("a", false, &session, &serial), 0);
	cr_assert_eq(serial, 2);
}

Test(inserter, a_takeover_waits_for_no_insert)
{
	struct asked blocked;
	uint64_t session, serial, other;

	begin_with(true, NEVER_NS);
	session = must_open("a");
	most = 0;
	insert(&blocked, "a", session, 1);
	cr_assert_eq(open_now("a", true, &other, &serial), 0);
	cr_assert_eq(serial, 0);
	cr_assert_eq(result(&blocked), SEGUE_EFENCED);
	most = 9;
	cr_assert_eq(insert_now("a", other, 1), 0);
}

/* ---- Ends ---- */

Test(inserter, an_end_is_stored_before_it_is_told)
{
	struct asked blocked;

	begin_with(false, NEVER_NS);
	uint64_t session = must_open("a");
	most = 2;
	cr_assert_eq(insert_now("a", session, 1), 0);
	cr_assert_eq(insert_now("a", session, 2), 0);
	insert(&blocked, "a", session, 3);
	cr_assert_eq(end_now(SEGUE_ASKED_END, 0), 0);
	cr_assert(stores == 1 && store_synced && ended_after == 2);
	cr_assert_eq(result(&blocked), SEGUE_EEND);
	cr_assert_eq(insert_now("a", session, 2), 0, "it is in the log");
	cr_assert_eq(end_now(SEGUE_ASKED_END, 0), 0, "again");
	cr_assert_eq(stores, 1);
}

Test(inserter, an_end_waits_for_room_in_the_store)
{
	begin_with(true, NEVER_NS);
	store_code = SEGUE_ENOSPACE;
	must_open("a");
	int64_t began = segue_now_ns();
	cr_assert_eq(end_now(SEGUE_ASKED_END, 0), 0);
	cr_assert_eq(stores, 2);
	cr_assert_gt(segue_now_ns() - began, INT64_C(900000000));
}

Test(inserter, an_end_that_the_store_refuses)
{
	begin_with(true, NEVER_NS);
	store_code = SEGUE_ESTORE;
	must_open("a");
	cr_assert_eq(end_now(SEGUE_ASKED_END, 0), SEGUE_ESTORE);
	cr_assert_eq(ended_after, 0);
}

Test(inserter, the_last_of_those_that_are_expected_ends_it)
{
	begin_with(true, NEVER_NS);
	uint64_t a = must_open("a"), b = must_open("b");

	cr_assert_eq(insert_now("a", a, 1), 0);
	cr_assert_eq(end_now(SEGUE_ASKED_CLOSE, a), 0);
	cr_assert_eq(insert_now("a", a, 2), SEGUE_EEND);
	cr_assert_eq(ended_after, 0);
	cr_assert_eq(insert_now("b", b, 1), 0);
	cr_assert_eq(end_now(SEGUE_ASKED_CLOSE, b), 0);
	cr_assert(ended_after == 2 && stores == 2);
	cr_assert_eq(end_now(SEGUE_ASKED_CLOSE, 4711), SEGUE_EFENCED);
}

Test(inserter, it_ends_by_itself_with_the_last_that_is_read)
{
	struct asked asked[4];

	whole = 3;
	begin_with(false, NEVER_NS);
	uint64_t session = must_open("a");
	for (uint64_t i = 0; i < 4; i++)
		insert(&asked[i], "a", session, i + 1);
	for (uint64_t i = 0; i < 4; i++)
		cr_assert_eq(result(&asked[i]), i < 3 ? 0 : SEGUE_EEND);
	cr_assert_eq(end_now(SEGUE_ASKED_END, 0), 0, "that is over then");
	cr_assert(stores == 1 && store_synced && ended_after == 3 && written() == 3);
}

Test(inserter, it_ends_at_once_if_nothing_of_it_is_read)
{
	uint64_t session, serial;

	whole = 0;
	store_code = SEGUE_ENOSPACE; /* once */
	begin_with(true, NEVER_NS);
	cr_assert_eq(open_now("a", false, &session, &serial), SEGUE_EEND);
	cr_assert_eq(end_now(SEGUE_ASKED_END, 0), 0);
	cr_assert(stores == 2 && written() == 0);
}

/* ---- Trouble ---- */

Test(inserter, a_full_disk_refuses_inserts_alone)
{
	const struct rlimit full = {100, RLIM_INFINITY}, none = {RLIM_INFINITY, RLIM_INFINITY};

	begin_with(true, NEVER_NS);
	signal(SIGXFSZ, SIG_IGN);
	uint64_t session = must_open("a");
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &full), 0);
	cr_assert_eq(insert_now("a", session, 1), SEGUE_ENOSPACE);
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &none), 0);
	cr_assert_eq(insert_now("a", session, 1), 0);
	cr_assert_eq(written(), 1);
}

Test(inserter, what_waits_when_it_stops_is_answered)
{
	struct asked blocked;

	begin_with(false, NEVER_NS);
	uint64_t session = must_open("a");
	cr_assert_eq(insert_now("a", session, 1), 0);
	most = 1;
	insert(&blocked, "a", session, 2);
	segue_inserter_destroy(inserter);
	inserter = NULL;
	cr_assert_eq(result(&blocked), SEGUE_EGONE);
	cr_assert_eq(synced(), 1, "what was written is synced");
}
