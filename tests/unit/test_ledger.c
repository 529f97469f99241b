/* Ledgers by themselves: loaded at a given time, found, paid for, swept. */
#include <criterion/criterion.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/error.h"
#include "os/process.h"
#include "store/lanes.h"
#include "testserver.h"

enum { STREAM = 7, LANES = 3 };
#define NOW INT64_C(1000000000000) /* of a clock that is ours */

static struct segue_testserver test;
static struct segue_ledgers ledgers;

static void start(void)
{
	segue_testserver_init(&test, "ledger");
	segue_testserver_start(&test);
}

static void stop(void)
{
	segue_ledgers_finish(&ledgers);
	segue_testserver_stop(&test);
	segue_testserver_finish(&test);
}

TestSuite(ledger, .init = start, .fini = stop, .timeout = 20);

/* What the store says of a lane: held by this process since some step. */
static void store_lane(uint32_t lane, pid_t pid, uint64_t step)
{
	struct segue_position *position = calloc(1, sizeof(*position));
	const struct segue_place place = {.stream = STREAM, .lane = lane};
	struct segue_lane_record record = {
		.generation = 4, .held = true, .token = {1, 2, 3}, .position = position};
	struct segue_ops ops = {0};

	position->step = step;
	segue_process_identify(pid, &record.holder);
	cr_assert_eq(segue_lanes_put(&ops, place, &record), 0);
	cr_assert_eq(segue_store_apply(test.server.store, ops.op, ops.count), 0);
	segue_ops_finish(&ops);
	free(position);
}

static void load(void)
{
	const struct segue_group group = {.number = 0};

	ledgers.lanes = LANES;
	cr_assert_eq(segue_ledgers_load(&ledgers, test.server.store, STREAM, &group, NOW), 0);
}

static size_t count_in_use(void)
{
	const struct segue_ledger *ledger;
	size_t count = 0;

	LIST_FOREACH(ledger, &ledgers.in_use, link)
		count++;
	return count;
}

Test(ledger, lanes_that_nobody_has_begun_are_free)
{
	load();
	for (uint32_t lane = 0; lane < LANES; lane++) {
		const struct segue_ledger *ledger = segue_ledgers_find(&ledgers, NULL, 0, lane);
		cr_assert_eq(ledger->lease.state, SEGUE_LEASE_FREE);
		cr_assert_eq(ledger->place.stream, STREAM);
		cr_assert_eq(ledger->place.lane, lane);
		cr_assert_eq(ledger->durable, 0);
	}
	cr_assert_null(segue_ledgers_find(&ledgers, NULL, 0, LANES));
	cr_assert_eq(count_in_use(), 0);
}

Test(ledger, a_lane_stays_reserved_for_a_process_that_lives)
{
	store_lane(1, getpid(), 20);
	load();
	struct segue_ledger *ledger = segue_ledgers_find(&ledgers, NULL, 0, 1);
	cr_assert_eq(ledger->lease.state, SEGUE_LEASE_RESERVED);
	cr_assert_eq(ledger->lease.generation, 4);
	cr_assert_eq(ledger->durable, 20);
	cr_assert_eq(count_in_use(), 1);
	segue_ledgers_sweep(&ledgers);
	cr_assert_eq(count_in_use(), 1, "it is not idle");
	cr_assert_not(segue_lease_expire(&ledger->lease, SEGUE_PRESENCE_ALIVE, INT64_MAX - 1));
}

Test(ledger, one_of_a_process_that_is_gone_is_free)
{
	pid_t pid = fork();

	if (pid == 0)
		pause();
	store_lane(0, pid, 6);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	load();
	const struct segue_ledger *ledger = segue_ledgers_find(&ledgers, NULL, 0, 0);
	cr_assert_eq(ledger->lease.state, SEGUE_LEASE_FREE);
	cr_assert_eq(ledger->durable, 6);
	cr_assert_eq(count_in_use(), 0);
}

Test(ledger, one_whose_process_cannot_be_known_has_its_time)
{
	struct segue_position position = {.step = 3};
	const struct segue_place place = {.stream = STREAM};
	struct segue_lane_record record = {.generation = 1, .held = true, .position = &position};
	struct segue_ops ops = {0};

	segue_process_identify(getpid(), &record.holder);
	record.holder.pid_namespace++;
	cr_assert_eq(segue_lanes_put(&ops, place, &record), 0);
	cr_assert_eq(segue_store_apply(test.server.store, ops.op, ops.count), 0);
	segue_ops_finish(&ops);
	load();
	struct segue_lease *lease = &segue_ledgers_find(&ledgers, NULL, 0, 0)->lease;
	cr_assert_eq(lease->state, SEGUE_LEASE_RESERVED);
	int64_t until = NOW + SEGUE_RECONNECT_GRACE_NS;
	cr_assert_not(segue_lease_expire(lease, SEGUE_PRESENCE_UNKNOWN, until - 1));
	cr_assert(segue_lease_expire(lease, SEGUE_PRESENCE_UNKNOWN, until));
}

Test(ledger, idle_ones_are_swept_and_no_others)
{
	load();
	for (uint32_t lane = 0; lane < LANES; lane++)
		segue_ledger_use(&ledgers, segue_ledgers_find(&ledgers, NULL, 0, lane));
	segue_ledger_use(&ledgers, segue_ledgers_find(&ledgers, NULL, 0, 0));
	cr_assert_eq(count_in_use(), LANES);
	segue_ledgers_find(&ledgers, NULL, 0, 1)->checkpoints = 1;
	segue_ledgers_find(&ledgers, NULL, 0, 2)->lease.state = SEGUE_LEASE_ENDING;
	segue_ledgers_sweep(&ledgers);
	cr_assert_eq(count_in_use(), 2);
	cr_assert_not(segue_ledgers_find(&ledgers, NULL, 0, 0)->in_use);
	segue_ledgers_find(&ledgers, NULL, 0, 1)->checkpoints = 0;
	segue_ledgers_find(&ledgers, NULL, 0, 2)->lease.state = SEGUE_LEASE_FREE;
	segue_ledgers_sweep(&ledgers);
	cr_assert_eq(count_in_use(), 0);
	segue_ledger_use(&ledgers, segue_ledgers_find(&ledgers, NULL, 0, 0));
	cr_assert_eq(count_in_use(), 1, "and listed anew");
}

Test(ledger, without_a_store_each_session_finds_its_own)
{
	struct segue_session *one = (struct segue_session *)&test, *two = one + 1;
	struct segue_ledger *first = segue_ledgers_add(&ledgers, (struct segue_place){.lane = 1});
	struct segue_ledger *second = segue_ledgers_add(&ledgers, (struct segue_place){.lane = 1});

	first->session = one;
	second->session = two;
	first->lease.state = second->lease.state = SEGUE_LEASE_HELD;
	cr_assert_eq(segue_ledgers_find(&ledgers, one, 0, 1), first);
	cr_assert_eq(segue_ledgers_find(&ledgers, two, 0, 1), second);
	cr_assert_null(segue_ledgers_find(&ledgers, one, 0, 0));
	first->lease.state = SEGUE_LEASE_FREE;
	segue_ledgers_sweep(&ledgers); /* and freed: the sanitizer says if not */
	cr_assert_null(segue_ledgers_find(&ledgers, one, 0, 1));
	cr_assert_eq(segue_ledgers_find(&ledgers, two, 0, 1), second);
}

Test(ledger, a_grant_is_paid_for_whole_or_not_at_all)
{
	struct segue_testpeer peer;
	uint64_t *limit = test.rules.limits.value;

	segue_testpeer_connect(&peer, &test);
	load();
	struct segue_ledger *ledger = segue_ledgers_find(&ledgers, NULL, 0, 0);
	struct segue_account *account = peer.session->account;
	limit[SEGUE_LIMIT_MEMORY] = 1000;
	cr_assert_eq(segue_ledger_pay(ledger, &test.server, account, 1001), SEGUE_ELIMIT);
	cr_assert_null(ledger->account);
	uint64_t descriptors = limit[SEGUE_LIMIT_DESCRIPTORS];
	limit[SEGUE_LIMIT_DESCRIPTORS] = 8; /* 6 are the connection's */
	cr_assert_eq(segue_ledger_pay(ledger, &test.server, account, 1000), SEGUE_ELIMIT);
	cr_assert_null(ledger->account);
	limit[SEGUE_LIMIT_DESCRIPTORS] = descriptors;
	cr_assert_eq(segue_ledger_pay(ledger, &test.server, account, 1000), 0);
	cr_assert_eq(ledger->account, account);
	cr_assert_eq(segue_account_take(account, SEGUE_LIMIT_MEMORY, 1), SEGUE_ELIMIT);
	segue_ledger_pay_back(ledger);
	cr_assert_null(ledger->account);
	cr_assert_eq(segue_account_take(account, SEGUE_LIMIT_MEMORY, 1000), 0);
	segue_account_give(account, SEGUE_LIMIT_MEMORY, 1000);
	segue_testpeer_close(&peer);
}
