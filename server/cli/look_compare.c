/* What follows from two looks: rates, who waits for whom, who has gone. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/look.h"

#define PACE_OVER_S  30.0 /* the pace is a mean over about so long */
#define STILL_S      5.0  /* a worker that commits nothing for so long is told of */
#define WAITS_MUCH   0.5  /* so is one that waits for so much of its time */
#define WAITS_ALWAYS 0.9

/* ---- A lane ---- */

static const struct segue_look_lane *find(
	const struct segue_look *look, const struct segue_look_lane *lane)
{
	for (size_t i = 0; look && i < look->lane_count; i++) {
		const struct segue_look_lane *found = &look->lane[i];
		if (found->lane == lane->lane && strcmp(found->stream, lane->stream) == 0 &&
			strcmp(found->group, lane->group) == 0)
			return found;
	}
	return NULL;
}

/* Of a sum of seconds; negative where it did not go on from what it was. */
static double share(double now, double before, double seconds)
{
	double spent = (now - before) / seconds;

	if (now < 0 || before < 0 || spent < 0)
		return -1;
	return spent < 1 ? spent : 1;
}

/* A mean at first, then one that forgets. */
static void set_pace(
	struct segue_look_lane *lane, const struct segue_look_lane *before, double seconds)
{
	double done = lane->sequences_done - before->sequences_done;

	if (lane->sequences_done < 0 || before->sequences_done < 0 || done < 0)
		return;
	double known = before->pace < 0 ? 0 : before->paced_s, all = known + seconds;
	all = all < PACE_OVER_S ? all : PACE_OVER_S;
	lane->pace = known > 0 ? before->pace + (done / seconds - before->pace) * seconds / all
			       : done / seconds;
	lane->paced_s = all;
	if (lane->sequences >= 0 && lane->pace > 0)
		lane->eta_s = (lane->sequences - lane->sequences_done) / lane->pace;
}

/* They are of one lease, and of a ring that both have seen. */
static void compare_ring(
	struct segue_look_lane *lane, const struct segue_look_lane *before, double seconds)
{
	if (!lane->ring || !before->ring || lane->generation != before->generation ||
		lane->committed < before->committed)
		return;
	lane->batches_per_s = (double)(lane->committed - before->committed) / seconds;
	lane->worker_waits = share(lane->worker_waits_s, before->worker_waits_s, seconds);
	lane->server_waits = share(lane->server_waits_s, before->server_waits_s, seconds);
	set_pace(lane, before, seconds);
	if (lane->committed == before->committed && lane->server_waits >= WAITS_ALWAYS)
		lane->still_s = before->still_s + seconds;
}

/* Who had it, and has it no more. */
static void remember(struct segue_look_lane *lane, const struct segue_look_lane *before)
{
	const char *script = before->holder ? before->script : before->left_script;

	if (lane->holder)
		return;
	lane->ended = before->ended && lane->committed == before->committed;
	lane->left = before->holder ? before->holder : before->left;
	free(lane->left_script);
	lane->left_script = segue_cli_need(strdup(script));
}

/* A stream that nobody has any more is not open: who has left it is to be seen all the same. */
static void keep_lanes(struct segue_look *look, const struct segue_look *before)
{
	for (size_t i = 0; look->served && i < before->lane_count; i++) {
		const struct segue_look_lane *lane = &before->lane[i];
		bool open = false;

		for (size_t j = 0; j < look->stream_count; j++)
			open |= strcmp(look->stream[j].name, lane->stream) == 0;
		if (!open && lane->persist && !lane->ended && (lane->holder || lane->left))
			segue_look_keep(look, lane);
	}
}

/* ---- A stream ---- */

static bool is_of(const struct segue_look_lane *lane, const char *stream)
{
	return strcmp(lane->stream, stream) == 0;
}

static void set_padding(const struct segue_look *look, struct segue_look_stream *stream)
{
	uint64_t steps = 0, valid = 0;

	for (size_t i = 0; i < look->lane_count; i++) {
		const struct segue_look_lane *lane = &look->lane[i];
		if (!is_of(lane, stream->name) || segue_look_padding(lane) < 0)
			continue;
		steps += lane->steps;
		valid += lane->steps_valid;
	}
	if (steps)
		stream->padding = (double)(steps - valid) / (double)steps;
}

/* Of the lanes that one process has of a stream: it waits for one after the other. */
static double waits_of(
	const struct segue_look *look, const char *stream, int64_t holder, double *batches_per_s)
{
	double waits = -1;

	*batches_per_s = 0;
	for (size_t i = 0; i < look->lane_count; i++) {
		const struct segue_look_lane *lane = &look->lane[i];
		if (!is_of(lane, stream) || lane->holder != holder || lane->worker_waits < 0)
			continue;
		waits = (waits < 0 ? 0 : waits) + lane->worker_waits;
		*batches_per_s += lane->batches_per_s;
	}
	return waits < 1 ? waits : 1;
}

static void set_worst(const struct segue_look *look, struct segue_look_stream *stream)
{
	for (size_t i = 0; i < look->lane_count; i++) {
		const struct segue_look_lane *lane = &look->lane[i];
		double batches;

		if (!is_of(lane, stream->name) || !lane->holder || lane->ended)
			continue;
		double waits = waits_of(look, stream->name, lane->holder, &batches);
		if (waits <= stream->exposed_wait)
			continue;
		stream->worst = lane->holder;
		stream->exposed_wait = waits;
		stream->exposed_wait_s = batches > 0 ? waits / batches : -1;
	}
}

/* ---- Notes ---- */

/* "lane 3 of train", or with the group "lane 3 of train (slow)". */
static void note_of(struct segue_look *look, const struct segue_look_lane *lane, const char *text)
{
	bool named = *lane->group;

	segue_look_note(look, "lane %ju of %s%s%s%s %s", (uintmax_t)lane->lane, lane->stream,
		named ? " (" : "", lane->group, named ? ")" : "", text);
}

static void note_holder(struct segue_look *look, const struct segue_look_lane *lane)
{
	char text[512];

	if (lane->waits_for_group)
		snprintf(text, sizeof(text), "has waited %.0f s for %s%s, which shares its ring",
			lane->waits_s,
			*lane->waits_for_group ? "group " : "the group without a name",
			lane->waits_for_group);
	else if (strcmp(lane->state, "reserved") == 0)
		snprintf(text, sizeof(text),
			"is kept for process %jd (%s), which had it and has not come back",
			(intmax_t)lane->holder, lane->script);
	else if (lane->still_s >= STILL_S)
		snprintf(text, sizeof(text),
			"waits for its worker: process %jd (%s) has committed nothing for %.0f s, "
			"and its ring is full",
			(intmax_t)lane->holder, lane->script, lane->still_s);
	else if (lane->worker_waits >= WAITS_MUCH && lane->behind == 0)
		snprintf(text, sizeof(text), "waits for sequences that are inserted");
	else if (lane->worker_waits >= WAITS_MUCH && !lane->ended)
		snprintf(text, sizeof(text),
			"is slower than its worker: process %jd (%s) waits for data",
			(intmax_t)lane->holder, lane->script);
	else
		return;
	note_of(look, lane, text);
}

static void note_lane(struct segue_look *look, const struct segue_look_lane *lane)
{
	char text[512];

	if (lane->holder) {
		note_holder(look, lane);
		return;
	}
	if (!lane->left || lane->ended)
		return;
	snprintf(text, sizeof(text),
		"has no worker: process %jd (%s), which had it, has ended or given it back at "
		"step %ju",
		(intmax_t)lane->left, lane->left_script, (uintmax_t)lane->committed);
	note_of(look, lane, text);
}

void segue_look_compare(struct segue_look *look, const struct segue_look *before)
{
	double seconds = before ? (double)(look->at_ns - before->at_ns) / 1e9 : 0;

	if (before)
		keep_lanes(look, before);
	for (size_t i = 0; i < look->lane_count; i++) {
		struct segue_look_lane *lane = &look->lane[i];
		const struct segue_look_lane *found = find(before, lane);

		if (!found || seconds <= 0)
			continue;
		compare_ring(lane, found, seconds);
		remember(lane, found);
	}
	for (size_t i = 0; i < look->stream_count; i++) {
		set_padding(look, &look->stream[i]);
		set_worst(look, &look->stream[i]);
	}
	for (size_t i = 0; i < look->lane_count; i++)
		note_lane(look, &look->lane[i]);
}
