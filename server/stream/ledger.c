/* Ledgers: loaded, found, swept. */
#include "stream/ledger.h"

#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "engine/readers.h"
#include "os/process.h"
#include "store/checkpoints.h"
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
	ledger->durable_ms = record.committed_ms;
	ledger->checkpoint_ms = segue_checkpoints_newest_ms(store, ledger->place);
	ledger->sized = record.position->sized;
	ledger->batch_size = record.position->batch_size;
	free(record.position);
	if (ledger->lease.state != SEGUE_LEASE_FREE)
		segue_ledger_use(ledgers, ledger);
	return 0;
}

int segue_ledgers_load(struct segue_ledgers *ledgers, struct segue_store *store, uint32_t stream,
	const struct segue_group *group, int64_t now)
{
	struct segue_ledger_group *made =
		calloc(1, sizeof(*made) + ledgers->lanes * sizeof(made->of_lane[0]));

	if (!made)
		return segue_fail(SEGUE_ENOMEM, "no memory for %u lanes", ledgers->lanes);
	made->number = group->number;
	memcpy(made->name, group->name, sizeof(made->name));
	LIST_INSERT_HEAD(&ledgers->groups, made, link);
	for (uint32_t lane = 0; lane < ledgers->lanes; lane++)
		init(&made->of_lane[lane], ledgers->stream,
			(struct segue_place){
				.stream = stream, .group = group->number, .lane = lane});
	for (uint32_t lane = 0; lane < ledgers->lanes; lane++) {
		int rc = load(ledgers, &made->of_lane[lane], store, now);
		if (rc) {
			segue_ledgers_remove_group(ledgers, made);
			return rc;
		}
	}
	return 0;
}

void segue_ledgers_finish(struct segue_ledgers *ledgers)
{
	struct segue_ledger *ledger, *next;

	LIST_FOREACH_SAFE(ledger, &ledgers->in_use, link, next) {
		segue_grant_destroy(ledger->grant);
		if (LIST_EMPTY(&ledgers->groups))
			free(ledger);
	}
	while (!LIST_EMPTY(&ledgers->groups))
		segue_ledgers_remove_group(ledgers, LIST_FIRST(&ledgers->groups));
}

void segue_ledger_note_checkpoint(struct segue_ledger *ledger, int64_t unix_ms)
{
	if (ledger->grant)
		ledger->grant->checkpoint_ms = unix_ms;
	else
		ledger->checkpoint_ms = unix_ms;
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

struct segue_ledger_group *segue_ledgers_group(const struct segue_ledgers *ledgers, uint32_t number)
{
	struct segue_ledger_group *group;

	LIST_FOREACH(group, &ledgers->groups, link) {
		if (group->number == number && !group->dropped)
			break;
	}
	return group;
}

struct segue_ledger *segue_ledgers_find(const struct segue_ledgers *ledgers,
	const struct segue_session *session, uint32_t group, uint32_t lane)
{
	struct segue_ledger_group *found = segue_ledgers_group(ledgers, group);
	struct segue_ledger *ledger;

	if (found)
		return lane < ledgers->lanes ? &found->of_lane[lane] : NULL;
	if (!LIST_EMPTY(&ledgers->groups))
		return NULL;
	LIST_FOREACH(ledger, &ledgers->in_use, link) {
		if (ledger->session == session && ledger->place.lane == lane)
			break;
	}
	return ledger;
}

struct segue_ledger_group *segue_ledgers_find_group(
	const struct segue_ledgers *ledgers, const char *name)
{
	struct segue_ledger_group *group;

	LIST_FOREACH(group, &ledgers->groups, link) {
		if (strcmp(group->name, name) == 0 && !group->dropped)
			break;
	}
	return group;
}

void segue_ledgers_remove_group(struct segue_ledgers *ledgers, struct segue_ledger_group *group)
{
	for (uint32_t lane = 0; lane < ledgers->lanes; lane++)
		if (group->of_lane[lane].in_use)
			LIST_REMOVE(&group->of_lane[lane], link);
	LIST_REMOVE(group, link);
	if (group->account)
		segue_account_give(group->account, SEGUE_LIMIT_MEMORY, group->memory);
	segue_account_release(group->account);
	free(group);
}

uint64_t segue_ledger_group_size(uint32_t lanes)
{
	return sizeof(struct segue_ledger_group) + sizeof(struct segue_readers_group) +
	       lanes * (sizeof(struct segue_ledger) + sizeof(struct segue_lane_reader));
}

void segue_ledger_group_own(
	struct segue_ledger_group *group, struct segue_account *account, uint64_t memory)
{
	group->account = segue_account_hold(account);
	group->memory = memory;
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
	       TAILQ_EMPTY(&ledger->loading) && ledger->checkpoints == 0 &&
	       LIST_EMPTY(&ledger->replicas.waiting);
}

void segue_ledgers_sweep(struct segue_ledgers *ledgers)
{
	struct segue_ledger *ledger, *next;

	LIST_FOREACH_SAFE(ledger, &ledgers->in_use, link, next) {
		if (!is_idle(ledger))
			continue;
		LIST_REMOVE(ledger, link);
		ledger->in_use = false;
		if (LIST_EMPTY(&ledgers->groups))
			free(ledger);
	}
}
