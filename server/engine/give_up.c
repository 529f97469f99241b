/* What lanes need of a log, by the store; the rest goes. */
#include "engine/give_up.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#include "core/error.h"
#include "lane/backlog.h"
#include "store/checkpoints.h"
#include "store/groups.h"
#include "store/lanes.h"

/* ---- What a lane needs ---- */

/* By its position and its checkpoints; one that was never begun needs all. */
static int find_stored(const struct segue_give_up *give_up, const struct segue_plan_spec *plan,
	struct segue_place place, uint64_t *needs)
{
	struct segue_lane_record record;
	struct segue_catalogue catalogue;
	int rc = segue_lanes_load(give_up->store, place, &record);

	*needs = 0;
	if (rc)
		return rc == SEGUE_ENOTFOUND ? 0 : rc;
	*needs = segue_backlog_needs(plan, record.position);
	free(record.position);
	rc = segue_catalogue_load(give_up->store, place, &catalogue);
	for (uint32_t i = 0; !rc && i < catalogue.count; i++)
		if (catalogue.entry[i].needs < *needs)
			*needs = catalogue.entry[i].needs;
	return rc;
}

/* ---- What can go ---- */

/* Up to where all is gone, or could not be removed: the next server does. */
static uint64_t gone(const struct segue_give_up *give_up)
{
	struct segue_log_stand stand;

	segue_log_look(give_up->log, &stand);
	return stand.first > give_up->tried ? stand.first : give_up->tried;
}

static int has_begun(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	(void)arg, (void)key, (void)key_size, (void)value, (void)value_size;
	return 1;
}

/* Those that count (engine/readers.h): from the one at `from` on. */
static int load_groups(
	const struct segue_give_up *give_up, struct segue_groups *groups, size_t *from)
{
	uint8_t key[8];
	int rc = segue_groups_load(give_up->store, give_up->stream, groups);

	*from = 0;
	if (rc || groups->count == 1)
		return rc;
	segue_key_put32(segue_key_put32(key, give_up->stream), groups->group[0].number);
	rc = segue_store_scan(
		give_up->store, SEGUE_TABLE_LANES, key, sizeof(key), has_begun, NULL, NULL);
	*from = rc == 0;
	return rc < 0 ? rc : 0;
}

/*
 * How far, and no further than *to, of these groups. Whoever held it back last is asked first: so a
 * lane that nobody serves costs no look at the others.
 */
static int find_among(
	struct segue_give_up *give_up, const struct segue_group *groups, size_t count, uint64_t *to)
{
	const struct segue_spec *spec = give_up->spec;
	struct segue_plan_spec plan = {.lanes = spec->lanes, .num_unroll = segue_spec_unroll(spec)};
	uint64_t first = gone(give_up), all = (uint64_t)count * spec->lanes, needs;
	uint64_t holder = give_up->holder;

	for (uint64_t i = 0; i < all; i++) {
		if (*to <= first)
			break;
		uint64_t at = (holder + i) % all;
		plan.lane = (uint32_t)(at % spec->lanes);
		const struct segue_place place = {
			give_up->stream, groups[at / spec->lanes].number, plan.lane};
		/* Before it: what is on its way now is stored later. */
		uint64_t unstored = give_up->needs_unstored(give_up->arg, place);
		int rc = find_stored(give_up, &plan, place, &needs);
		if (rc)
			return rc;
		needs = unstored < needs ? unstored : needs;
		needs = segue_log_floor(give_up->log, segue_mix_inserted(give_up->numbers, needs));
		if (needs < *to) {
			*to = needs;
			give_up->holder = at;
		}
	}
	return 0;
}

static int find(struct segue_give_up *give_up, uint64_t *to)
{
	struct segue_groups groups;
	size_t from;

	int rc = load_groups(give_up, &groups, &from);
	if (!rc)
		rc = find_among(give_up, groups.group + from, groups.count - from, to);
	segue_groups_finish(&groups);
	return rc;
}

struct giving {
	struct segue_give_up *give_up;
	uint64_t to; /* at most */
};

/* The next that refers to the log, in whichever transaction, sees it: so it is not taken back. */
static int add_given_up(void *arg, struct segue_ops *ops)
{
	struct giving *giving = arg;
	struct segue_give_up *give_up = giving->give_up;
	uint64_t before = give_up->first;
	int rc = find(give_up, &giving->to);

	if (rc)
		return rc;
	if (giving->to > before)
		give_up->first = giving->to;
	rc = give_up->put(give_up->arg, ops);
	if (rc)
		give_up->first = before;
	return rc;
}

/* A file that is closed to let go; -1: somebody copies it, who has read where it begins. */
static int hold(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static void remove_files(struct segue_give_up *give_up)
{
	give_up->tried = give_up->first;
	if (segue_log_give_up(give_up->log, give_up->first))
		fprintf(stderr, "segue: the next server removes what was given up: %s\n",
			segue_error_detail());
}

void segue_give_up(struct segue_give_up *give_up)
{
	const struct segue_log_retain *retain = &give_up->retain;
	struct giving giving = {.give_up = give_up};
	struct segue_change change = {.place = {.stream = give_up->stream, .lane = SEGUE_LANES_ALL},
		.build = add_given_up,
		.arg = &giving};

	if (!retain->sequences && !retain->bytes)
		return;
	giving.to = segue_log_retained(give_up->log, retain);
	uint64_t first = gone(give_up);
	/* Said before the look: whoever stores something since then has it looked again. */
	give_up->held_back = giving.to > first;
	int rc = giving.to > first ? find(give_up, &giving.to) : 0;
	if (rc || giving.to <= first)
		return;
	int held = hold(segue_log_path(give_up->log));
	if (held >= 0 && !segue_changes_make(give_up->changes, &change))
		remove_files(give_up);
	if (held >= 0)
		close(held);
}
