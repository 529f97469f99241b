/* Ledgers: loaded, found, swept. */
#include "stream/ledger.h"

#include <stdlib.h>

#include "core/error.h"
#include "os/process.h"
#include "store/lanes.h"

enum { GRANT_DESCRIPTORS = 4 };

static void init(struct segue_ledger *ledger, struct segue_stream *stream, struct segue_place place)
{
	*ledger = (struct segue_ledger){.stream = stream, .place = place, .event.fd = -1};
	TAILQ_INIT(&ledger->waiting);
	TAILQ_INIT(&ledger->loading);
}

static int load(struct segue_ledgers *ledgers, struct segue_ledger *ledger,
	struct segue_store *store, int64_t now)
{
	struct segue_lane_record record;

	int rc = segue_lanes_load(store, ledger->place, &record);
	if (rc == SEGUE_ENOTFOUND)
		return 0;
	if (rc)
		return rc;
	segue_lease_load(&ledger->lease, &record, segue_process_presence(&record.holder), now,
		SEGUE_RECONNECT_GRACE_NS);
	ledger->durable = record.position->step;
	free(record.position);
	if (ledger->lease.state != SEGUE_LEASE_FREE)
		segue_ledger_use(ledgers, ledger);
	return 0;
}

int segue_ledgers_load(struct segue_ledgers *ledgers, struct segue_store *store, uint32_t stream,
	uint32_t lanes, int64_t now)
{
	ledgers->of_lane = calloc(lanes, sizeof(*ledgers->of_lane));
	if (!ledgers->of_lane)
		return segue_fail(SEGUE_ENOMEM, "no memory for %u lanes", lanes);
	ledgers->lanes = lanes;
	for (uint32_t lane = 0; lane < lanes; lane++) {
		struct segue_ledger *ledger = &ledgers->of_lane[lane];
		const struct segue_place place = {.stream = stream, .lane = lane};
		init(ledger, ledgers->stream, place);
		int rc = load(ledgers, ledger, store, now);
		if (rc)
			return rc;
	}
	return 0;
}

void segue_ledgers_finish(struct segue_ledgers *ledgers)
{
	struct segue_ledger *ledger, *next;

	LIST_FOREACH_SAFE(ledger, &ledgers->in_use, link, next) {
		segue_grant_destroy(ledger->grant);
		if (!ledgers->of_lane)
			free(ledger);
	}
	free(ledgers->of_lane);
}

void segue_ledger_use(struct segue_ledgers *ledgers, struct segue_ledger *ledger)
{
	if (!ledger->in_use)
		LIST_INSERT_HEAD(&ledgers->in_use, ledger, link);
	ledger->in_use = true;
}

struct segue_ledger *segue_ledgers_add(struct segue_ledgers *ledgers, struct segue_place place)
{
	struct segue_ledger *ledger = malloc(sizeof(*ledger));

	if (!ledger)
		return NULL;
	init(ledger, ledgers->stream, place);
	segue_ledger_use(ledgers, ledger);
	return ledger;
}

struct segue_ledger *segue_ledgers_find(
	const struct segue_ledgers *ledgers, const struct segue_session *session, uint32_t lane)
{
	struct segue_ledger *ledger;

	if (ledgers->of_lane)
		return lane < ledgers->lanes ? &ledgers->of_lane[lane] : NULL;
	LIST_FOREACH(ledger, &ledgers->in_use, link) {
		if (ledger->session == session && ledger->place.lane == lane)
			break;
	}
	return ledger;
}

int segue_ledger_pay(struct segue_ledger *ledger, struct segue_server *server,
	struct segue_account *account, uint64_t memory)
{
	int rc = segue_account_take(account, SEGUE_LIMIT_MEMORY, memory);

	if (rc)
		return rc;
	rc = segue_sessions_take(server, account, SEGUE_LIMIT_DESCRIPTORS, GRANT_DESCRIPTORS);
	if (rc) {
		segue_account_give(account, SEGUE_LIMIT_MEMORY, memory);
		return rc;
	}
	ledger->account = segue_account_hold(account);
	ledger->memory = memory;
	return 0;
}

static int take_more(void *arg, uint64_t bytes)
{
	struct segue_ledger *ledger = arg;

	int rc = segue_account_take(ledger->account, SEGUE_LIMIT_MEMORY, bytes);

	if (rc)
		return rc;
	rc = segue_account_take(ledger->account, SEGUE_LIMIT_DESCRIPTORS, 1);
	if (rc)
		segue_account_give(ledger->account, SEGUE_LIMIT_MEMORY, bytes);
	return rc;
}

static void give_some(void *arg, uint64_t bytes)
{
	struct segue_ledger *ledger = arg;

	segue_account_give(ledger->account, SEGUE_LIMIT_MEMORY, bytes);
	segue_account_give(ledger->account, SEGUE_LIMIT_DESCRIPTORS, 1);
}

struct segue_purse segue_ledger_purse(struct segue_ledger *ledger)
{
	return (struct segue_purse){take_more, give_some, ledger};
}

void segue_ledger_pay_back(struct segue_ledger *ledger)
{
	segue_account_give(ledger->account, SEGUE_LIMIT_DESCRIPTORS, GRANT_DESCRIPTORS);
	segue_account_give(ledger->account, SEGUE_LIMIT_MEMORY, ledger->memory);
	segue_account_release(ledger->account);
	ledger->account = NULL;
}

static bool is_idle(const struct segue_ledger *ledger)
{
	return ledger->lease.state == SEGUE_LEASE_FREE && TAILQ_EMPTY(&ledger->waiting) &&
	       TAILQ_EMPTY(&ledger->loading) && ledger->checkpoints == 0;
}

void segue_ledgers_sweep(struct segue_ledgers *ledgers)
{
	struct segue_ledger *ledger, *next;

	LIST_FOREACH_SAFE(ledger, &ledgers->in_use, link, next) {
		if (!is_idle(ledger))
			continue;
		LIST_REMOVE(ledger, link);
		ledger->in_use = false;
		if (!ledgers->of_lane)
			free(ledger);
	}
}
