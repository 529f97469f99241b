/* How far those are who read a log. */
#include "engine/readers.h"

#include <inttypes.h>
#include <stdlib.h>

#include "core/error.h"
#include "engine/filler.h"
#include "lane/backlog.h"
#include "store/groups.h"
#include "store/lanes.h"

/* ---- Groups ---- */

struct segue_readers_group *segue_readers_find(const struct segue_readers *readers, uint32_t group)
{
	struct segue_readers_group *found;

	LIST_FOREACH(found, &readers->groups, link)
		if (found->number == group)
			break;
	return found;
}

int segue_readers_add(struct segue_readers *readers, uint32_t group)
{
	uint32_t lanes = readers->spec->lanes;
	struct segue_readers_group *made;

	if (segue_readers_find(readers, group))
		return 0;
	made = calloc(1, sizeof(*made) + lanes * sizeof(made->lane[0]));
	if (!made)
		return segue_fail(SEGUE_ENOMEM, "no memory for %" PRIu32 " lanes", lanes);
	made->number = group;
	made->begun = group > 0;
	for (uint32_t lane = 0; lane < lanes; lane++)
		made->lane[lane].floor = lane;
	LIST_INSERT_HEAD(&readers->groups, made, link);
	readers->count++;
	return 0;
}

void segue_readers_remove(struct segue_readers *readers, uint32_t group)
{
	struct segue_readers_group *found = segue_readers_find(readers, group);

	if (!found)
		return;
	LIST_REMOVE(found, link);
	readers->count--;
	free(found);
}

bool segue_readers_count(
	const struct segue_readers *readers, const struct segue_readers_group *group)
{
	return group->begun || readers->count == 1;
}

static void note_position(struct segue_lane_reader *reader, const struct segue_plan_spec *plan,
	const struct segue_position *position)
{
	reader->next = position->next;
	reader->rows = position->waiting;
	for (uint32_t i = 0; i < segue_position_count(position); i++)
		reader->rows += segue_plan_row_lives(plan, &position->row[i]);
	reader->floor = segue_backlog_floor(plan, position);
}

static int load_lanes(struct segue_readers_group *group, struct segue_store *store, uint32_t stream,
	const struct segue_spec *spec)
{
	struct segue_plan_spec plan = {.lanes = spec->lanes, .num_unroll = segue_spec_unroll(spec)};
	int rc = 0;

	for (; !rc && plan.lane < spec->lanes; plan.lane++) {
		const struct segue_place place = {stream, group->number, plan.lane};
		struct segue_lane_record record;

		rc = segue_lanes_load(store, place, &record);
		if (!rc) {
			note_position(&group->lane[plan.lane], &plan, record.position);
			group->begun = true;
			free(record.position);
		}
		rc = rc == SEGUE_ENOTFOUND ? 0 : rc;
	}
	return rc;
}

int segue_readers_load(struct segue_readers *readers, struct segue_store *store, uint32_t stream,
	const struct segue_spec *spec)
{
	struct segue_groups groups;

	*readers = (struct segue_readers){.spec = spec};
	int rc = segue_groups_load(store, stream, &groups);
	for (size_t i = 0; !rc && i < groups.count; i++) {
		rc = segue_readers_add(readers, groups.group[i].number);
		if (!rc)
			rc = load_lanes(LIST_FIRST(&readers->groups), store, stream, spec);
	}
	segue_groups_finish(&groups);
	return rc;
}

void segue_readers_finish(struct segue_readers *readers)
{
	struct segue_readers_group *group;

	while ((group = LIST_FIRST(&readers->groups))) {
		LIST_REMOVE(group, link);
		free(group);
	}
	readers->count = 0;
}

/* ---- Those in force ---- */

void segue_lane_reader_look(struct segue_lane_reader *reader)
{
	struct segue_filler *filler = reader->filler;

	if (!filler)
		return;
	pthread_mutex_lock(&filler->lock);
	if (segue_carry_observe(reader->carry, filler->feed.published)) {
		const struct segue_feed_entry *entry =
			segue_feed_entry(&filler->feed, reader->carry->committed);
		if (entry)
			note_position(reader, &filler->plan_spec, entry->position);
	}
	pthread_mutex_unlock(&filler->lock);
}

void segue_readers_kick(const struct segue_readers *readers, uint32_t lane)
{
	const struct segue_readers_group *group;

	LIST_FOREACH(group, &readers->groups, link)
		if (group->lane[lane].filler)
			segue_filler_kick(group->lane[lane].filler);
}

void segue_readers_end(const struct segue_readers *readers, uint64_t records)
{
	const struct segue_readers_group *group;

	LIST_FOREACH(group, &readers->groups, link)
		for (uint32_t lane = 0; lane < readers->spec->lanes; lane++)
			if (group->lane[lane].filler)
				segue_filler_end(group->lane[lane].filler, records);
}

void segue_readers_leave(struct segue_readers *readers, const struct segue_carry *carry)
{
	struct segue_readers_group *group;

	LIST_FOREACH(group, &readers->groups, link) {
		for (uint32_t lane = 0; lane < readers->spec->lanes; lane++) {
			struct segue_lane_reader *reader = &group->lane[lane];

			if (reader->carry != carry)
				continue;
			segue_lane_reader_look(reader);
			reader->filler = NULL;
			reader->carry = NULL;
		}
	}
}

/* A batch that was committed can become a checkpoint while its states can still be copied. */
uint64_t segue_lane_reader_needs(const struct segue_lane_reader *reader, uint64_t pinned)
{
	struct segue_filler *filler = reader->filler;

	if (!filler)
		return UINT64_MAX;
	const struct segue_feed *feed = &filler->feed;
	uint64_t depth = filler->geometry.depth;

	pthread_mutex_lock(&filler->lock);
	uint64_t oldest = feed->published > depth ? feed->published - depth : 0;
	oldest = oldest < feed->first ? feed->first : oldest;
	const struct segue_feed_entry *entry = segue_feed_entry(feed, oldest);
	uint64_t needs = entry && pinned >= oldest
				 ? segue_backlog_needs(&filler->plan_spec, entry->position)
				 : 0;
	pthread_mutex_unlock(&filler->lock);
	return needs;
}
