/*
 * 'segue top', as far as it is pure: looks read from reports, what two of them say, the screen,
 * OpenMetrics, keys, scripts.
 */
#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/look.h"
#include "cli/openmetrics.h"
#include "cli/screen.h"
#include "cli/script.h"
#include "cli/terminal.h"
#include "segue/segue.h"

#define SECOND INT64_C(1000000000)
#define NOW_MS INT64_C(1767225600000) /* 2026-01-01T00:00:00Z */

/* ---- Reports by hand ---- */

struct text {
	char *bytes;
	size_t size;
	FILE *file;
};

static struct text *begin(struct text *text)
{
	*text = (struct text){0};
	text->file = open_memstream(&text->bytes, &text->size);
	cr_assert(text->file);
	return text;
}

static char *end(struct text *text)
{
	fclose(text->file);
	return text->bytes;
}

struct lane_case {
	int lane;
	int pid;              /* 0: nobody has it */
	int committed, ahead; /* of depth 4 */
	double worker_waits_s, server_waits_s, done;
	const char *more; /* members, each after a comma */
	int generation;
};

static void put_lane(FILE *file, const struct lane_case *one)
{
	fprintf(file,
		"{\"lane\":%d,\"group\":0,\"state\":\"%s\",\"generation\":%d,\"step_committed\":%d,"
		"\"step_durable\":%d,\"committed\":\"2025-12-31T23:59:58Z\",\"checkpoint\":"
		"\"2025-12-31T23:47:00Z\"%s",
		one->lane, one->pid ? "held" : "free", one->generation, one->committed,
		one->committed, one->more ? one->more : "");
	if (one->pid)
		fprintf(file,
			",\"holder_pid\":%d,\"step_published\":%d,\"depth\":4,\"ring_bytes\":4096,"
			"\"ended\":false,\"steps\":1000,\"steps_valid\":900,\"epoch\":1,\"epochs\":"
			"3,"
			"\"sequences\":1000,\"sequences_done\":%f,\"worker_waits_s\":%f,"
			"\"server_waits_s\":%f}",
			one->pid, one->committed + one->ahead, one->done, one->worker_waits_s,
			one->server_waits_s);
	else
		fprintf(file, ",\"holder_pid\":null,\"step_published\":null,\"depth\":null}");
}

static char *status_of(const struct lane_case *lanes, size_t count, const char *storage)
{
	struct text text;
	FILE *file = begin(&text)->file;

	fprintf(file,
		"{\"server\":{\"pid\":99,\"version\":\"0.1.0\",\"dir\":\"/data/run1\",\"uptime_s\":"
		"3725,\"embedded\":true,\"stopping\":false,\"storage\":\"%s\"},\"sessions\":["
		"{\"pid\":4711,\"program\":\"train\"},{\"pid\":4712,\"program\":\"eval\"}],"
		"\"memory\":{\"rss_bytes\":10485760},\"cpu_s\":1.5,\"store\":{\"file_bytes\":1,"
		"\"used_bytes\":1,\"transactions\":7,\"bytes_put\":8},\"streams\":[{\"name\":"
		"\"train\",\"state\":\"open\",\"persist\":true,\"skipped\":2,\"lanes\":[",
		storage);
	for (size_t i = 0; i < count; i++) {
		fputs(i ? "," : "", file);
		put_lane(file, &lanes[i]);
	}
	fputs("]}]}", file);
	return end(&text);
}

static struct segue_look read_at(const char *status, int64_t second)
{
	struct segue_look look;

	int rc = segue_look_read(status, second * SECOND, NOW_MS + second * 1000, &look);
	cr_assert_eq(rc, 0, "%s: %s", status, segue_error_detail());
	return look;
}

static struct segue_look look_at(
	const struct lane_case *lanes, size_t count, const char *storage, int64_t second)
{
	char *status = status_of(lanes, count, storage);
	struct segue_look look = read_at(status, second);

	free(status);
	return look;
}

/* Two looks at `count` lanes, a second apart, in which each does ten batches. */
static struct segue_look look_twice(size_t count)
{
	struct lane_case *lanes = calloc(count, sizeof(*lanes));

	for (size_t i = 0; i < count; i++)
		lanes[i] = (struct lane_case){.lane = (int)i,
			.pid = 4711,
			.committed = 100,
			.ahead = 3,
			.worker_waits_s = 1,
			.server_waits_s = 2,
			.done = 300};
	struct segue_look before = look_at(lanes, count, "ok", 0);
	segue_look_compare(&before, NULL);
	for (size_t i = 0; i < count; i++) {
		lanes[i].committed += 10;
		lanes[i].worker_waits_s += 0.25 / (double)count;
		lanes[i].server_waits_s += 0.5;
		lanes[i].done += 2;
	}
	struct segue_look look = look_at(lanes, count, "ok", 1);
	segue_look_compare(&look, &before);
	segue_look_finish(&before);
	free(lanes);
	return look;
}

/* ---- Rates ---- */

Test(top, rates_are_between_two_looks)
{
	struct segue_look look = look_twice(2);
	const struct segue_look_lane *lane = &look.lane[1];

	cr_assert_eq(look.lane_count, 2);
	cr_assert_float_eq(lane->batches_per_s, 10, 1e-9);
	cr_assert_float_eq(lane->worker_waits, 0.125, 1e-9);
	cr_assert_float_eq(lane->server_waits, 0.5, 1e-9);
	cr_assert_float_eq(lane->eta_s, (1000 - 302) / 2.0, 1e-9);
	cr_assert_float_eq(segue_look_padding(lane), 0.1, 1e-9);
	cr_assert_float_eq(segue_look_age(&look, lane->committed_at), 3, 1e-9);
	cr_assert_float_eq(segue_look_age(&look, lane->checkpoint_at), 781, 1e-9);
	/* One worker has both lanes, and waits for the sum of both, for 20 batches. */
	cr_assert_eq(look.stream[0].worst, 4711);
	cr_assert_float_eq(look.stream[0].exposed_wait, 0.25, 1e-9);
	cr_assert_float_eq(look.stream[0].exposed_wait_s, 0.0125, 1e-9);
	cr_assert_float_eq(look.stream[0].padding, 0.1, 1e-9);
	segue_look_finish(&look);
}

Test(top, the_worst_worker_is_named)
{
	struct lane_case lanes[] = {
		{.lane = 0, .pid = 4711, .committed = 1}, {.lane = 1, .pid = 4712, .committed = 1}};
	struct segue_look before = look_at(lanes, 2, "ok", 0);

	lanes[0].worker_waits_s = 0.1;
	lanes[1].worker_waits_s = 0.75;
	lanes[1].committed = 4;
	struct segue_look look = look_at(lanes, 2, "ok", 1);
	segue_look_compare(&look, &before);
	cr_assert_eq(look.stream[0].worst, 4712);
	cr_assert_float_eq(look.stream[0].exposed_wait, 0.75, 1e-9);
	cr_assert_float_eq(look.stream[0].exposed_wait_s, 0.25, 1e-9);
	cr_assert_eq(look.note_count, 1);
	cr_assert_str_eq(look.note[0],
		"lane 1 of train is slower than its worker: process 4712 (eval) waits for data");
	segue_look_finish(&before);
	segue_look_finish(&look);
}

/* What went back is of another lease, or ring: no rate, and certainly none below 0. */
Test(top, sums_that_begin_anew_give_no_rate)
{
	struct lane_case lane = {
		.pid = 4711, .committed = 50, .worker_waits_s = 9, .server_waits_s = 9, .done = 90};
	struct segue_look before = look_at(&lane, 1, "ok", 0);

	lane.worker_waits_s = lane.server_waits_s = 0.5;
	lane.done = 10;
	struct segue_look look = look_at(&lane, 1, "ok", 1);
	segue_look_compare(&look, &before);
	cr_assert_float_eq(look.lane[0].batches_per_s, 0, 1e-9);
	cr_assert_lt(look.lane[0].worker_waits, 0);
	cr_assert_lt(look.lane[0].server_waits, 0);
	cr_assert_lt(look.lane[0].eta_s, 0);
	segue_look_finish(&look);

	lane.committed = 20; /* gone back to a checkpoint */
	look = look_at(&lane, 1, "ok", 1);
	segue_look_compare(&look, &before);
	cr_assert_lt(look.lane[0].batches_per_s, 0);
	segue_look_finish(&look);
	segue_look_finish(&before);
}

/* Where they have risen all the same: the ring of another lease. */
Test(top, another_lease_gives_no_rate)
{
	struct lane_case lane = {.pid = 4711, .committed = 50, .generation = 1};
	struct segue_look before = look_at(&lane, 1, "ok", 0);

	lane.committed = 60;
	lane.worker_waits_s = lane.server_waits_s = 0.5;
	lane.generation = 2;
	struct segue_look look = look_at(&lane, 1, "ok", 1);
	segue_look_compare(&look, &before);
	cr_assert_lt(look.lane[0].batches_per_s, 0);
	cr_assert_lt(look.lane[0].worker_waits, 0);
	cr_assert_lt(look.lane[0].server_waits, 0);
	segue_look_finish(&look);
	segue_look_finish(&before);
}

/* A second without a batch does not make it "never". */
Test(top, the_pace_is_a_mean)
{
	struct lane_case lane = {.pid = 4711, .done = 0};
	struct segue_look before = look_at(&lane, 1, "ok", 0);

	segue_look_compare(&before, NULL);
	for (int second = 1; second <= 100; second++) {
		lane.done += second % 2 ? 4 : 0;
		struct segue_look look = look_at(&lane, 1, "ok", second);
		segue_look_compare(&look, &before);
		segue_look_finish(&before);
		before = look;
		if (second == 2)
			cr_assert_float_eq(before.lane[0].pace, 2, 1e-9);
	}
	cr_assert_float_eq(before.lane[0].pace, 2, 0.1);
	cr_assert_float_eq(before.lane[0].eta_s, 800 / before.lane[0].pace, 1e-6);
	segue_look_finish(&before);
}

/* ---- The screen ---- */

static int width_of(const char *line, size_t size)
{
	int width = 0;

	for (size_t i = 0; i < size; i++)
		width += ((unsigned char)line[i] & 0xc0) != 0x80;
	return width;
}

static char *draw(const struct segue_look *look, struct segue_screen *screen)
{
	char *text = segue_screen_draw(look, screen);
	int lines = 0;

	for (const char *line = text, *stop; *line; line = stop + 1, lines++) {
		stop = strchr(line, '\n');
		cr_assert(stop, "a line without an end: %s", line);
		if (!screen->colour)
			cr_assert_leq(
				width_of(line, (size_t)(stop - line)), screen->columns, "%s", text);
	}
	if (screen->rows)
		cr_assert_leq(lines, screen->rows, "%s", text);
	return text;
}

static void expect_screen(
	const struct segue_look *look, int columns, int rows, const char *const expected)
{
	struct segue_screen screen = {.columns = columns, .rows = rows};
	char *text = draw(look, &screen);

	cr_assert_str_eq(text, expected);
	free(text);
}

Test(top, one_lane_at_80_columns)
{
	struct segue_look look = look_twice(1);

	expect_screen(&look, 80, 24,
		"segue top  /data/run1  pid 99, embedded, up 1 h 2 min, memory 10.0 MiB\n"
		"LANE WORKER     EPOCH STEP  B/S WWAIT SWAIT RING       COMM CKPT ETA\n"
		"   0 4711 train   2/3  110 10.0   25%   50% |###.| 3/4   3s  13m  5m\n"
		"train: padding 10%; exposed data wait 25 ms a batch, 25% of the time (worst:\n"
		"process 4711)\n");
	segue_look_finish(&look);
}

Test(top, of_a_long_path_the_end)
{
	struct segue_look look = look_twice(1);

	look.served = true;
	free(look.dir);
	look.dir = strdup("/home/somebody/a long way/\u00e4\u00f6\u00fc/to run1");
	expect_screen(&look, 80, 1,
		"segue top  ...g way/\u00e4\u00f6\u00fc/to run1  pid 99, embedded, up 1 h 2 min, "
		"memory 10.0 MiB\n");
	segue_look_finish(&look);
}

Test(top, four_lanes_at_160_columns)
{
	struct segue_look look = look_twice(4);

	expect_screen(&look, 160, 24,
		"segue top  /data/run1  pid 99, embedded, up 1 h 2 min, memory 10.0 MiB\n"
		"LANE  WORKER      EPOCH  STEP  BATCHES/S  WORKER WAITS  SERVER WAITS  RING        "
		"COMMITTED  CHECKPOINT  ETA\n"
		"   0  4711 train    2/3   110       10.0            6%           50%  |###.| 3/4  "
		"       3s         13m   5m\n"
		"   1  4711 train    2/3   110       10.0            6%           50%  |###.| 3/4  "
		"       3s         13m   5m\n"
		"   2  4711 train    2/3   110       10.0            6%           50%  |###.| 3/4  "
		"       3s         13m   5m\n"
		"   3  4711 train    2/3   110       10.0            6%           50%  |###.| 3/4  "
		"       3s         13m   5m\n"
		"train: padding 10%; exposed data wait 6.25 ms a batch, 25% of the time (worst: "
		"process 4711)\n");
	segue_look_finish(&look);
}

Test(top, more_lanes_than_rows)
{
	struct segue_look look = look_twice(64);
	struct segue_screen screen = {.columns = 80, .rows = 24};
	char *text = draw(&look, &screen);

	cr_assert_eq(screen.seen, 19);
	cr_assert_eq(screen.last_first, 45);
	cr_assert(strstr(text, "\n   0 4711"));
	cr_assert(strstr(text, "\n  18 4711"));
	cr_assert_not(strstr(text, "\n  19 4711"));
	cr_assert(strstr(text, "\n+ 0 more above, 45 below (arrows, page keys)\ntrain: padding"));
	free(text);

	screen.first = 1000; /* no further than to the last */
	text = draw(&look, &screen);
	cr_assert_not(strstr(text, "\n  44 4711"));
	cr_assert(strstr(text, "\n  45 4711"));
	cr_assert(strstr(text, "\n  63 4711"));
	cr_assert(strstr(text, "\n+ 45 more above, 0 below"));
	free(text);

	screen = (struct segue_screen){.columns = 160}; /* no terminal: all of them */
	text = draw(&look, &screen);
	cr_assert(strstr(text, "\n  63  4711"));
	cr_assert_not(strstr(text, "more above"));
	free(text);
	segue_look_finish(&look);
}

/* Whatever the size and the number: no line too long, none too many (draw() looks). */
Test(top, every_size)
{
	static const size_t counts[] = {0, 1, 4, 64};

	for (size_t i = 0; i < 4; i++) {
		struct segue_look look = look_twice(counts[i]);
		for (int columns = 1; columns <= 200; columns += columns < 40 ? 1 : 7)
			for (int rows = 1; rows <= 80; rows++) {
				struct segue_screen screen = {
					.columns = columns, .rows = rows, .first = rows / 2};
				free(draw(&look, &screen));
			}
		segue_look_finish(&look);
	}
}

/* What goes first where it is narrow; lane, worker, step and rate stay. */
Test(top, columns_go_by_priority)
{
	struct segue_look look = look_twice(1);
	static const char *const gone[] = {
		"CKPT", "EPOCH", "ETA", "COMM", "RING", "SWAIT", "WWAIT"};
	size_t missing = 0;

	for (int columns = 80; columns >= 28; columns--) {
		struct segue_screen screen = {.columns = columns};
		char *text = draw(&look, &screen), *header = strchr(text, '\n') + 1;
		*strchr(header, '\n') = '\0';
		while (missing < 7 && !strstr(header, gone[missing]))
			missing++;
		for (size_t i = 0; i < 7; i++)
			cr_assert_eq(strstr(header, gone[i]) == NULL, i < missing, "%d: %s",
				columns, header);
		cr_assert(strstr(header, "LANE WORKER") && strstr(header, "STEP"), "%s", header);
		free(text);
	}
	cr_assert_eq(missing, 7);
	segue_look_finish(&look);
}

Test(top, a_worker_that_died)
{
	struct lane_case lanes[] = {
		{.lane = 0, .pid = 4711, .committed = 7}, {.lane = 1, .pid = 4712, .committed = 7}};
	struct segue_look before = look_at(lanes, 2, "ok", 0);

	lanes[1].pid = 0;
	for (int second = 1; second < 4; second++) { /* it is remembered */
		struct segue_look look = look_at(lanes, 2, "ok", second);
		segue_look_compare(&look, &before);
		segue_look_finish(&before);
		before = look;
	}
	expect_screen(&before, 80, 24,
		"segue top  /data/run1  pid 99, embedded, up 1 h 2 min, memory 10.0 MiB\n"
		"LANE WORKER          EPOCH STEP  B/S WWAIT SWAIT RING       COMM CKPT ETA\n"
		"   0 4711 train        2/3    7 0.00    0%    0% |....| 0/4   5s  13m   -\n"
		"   1 gone: 4712 eval     -    7    -     -     - -            5s  13m   -\n"
		"lane 1 of train has no worker: process 4712 (eval), which had it, has ended or\n"
		"given it back at step 7\n"
		"train: padding 10%; exposed data wait 0% of the time (worst: process 4711)\n");
	segue_look_finish(&before);
}

/* Its stream is closed then, if it was the last that had one of its lanes. */
Test(top, the_last_worker_of_a_stream_died)
{
	static const char nothing[] = "{\"server\":{\"storage\":\"ok\"},\"streams\":[]}";
	struct lane_case lane = {.pid = 4711, .committed = 7};
	struct segue_look before = look_at(&lane, 1, "ok", 0), look;

	for (int second = 1; second < 4; second++) {
		look = read_at(nothing, second);
		segue_look_compare(&look, &before);
		segue_look_finish(&before);
		before = look;
		cr_assert_eq(before.lane_count, 1);
		cr_assert_eq(before.lane[0].left, 4711);
		cr_assert_eq(before.lane[0].committed, 7);
		cr_assert_eq(before.note_count, 1);
	}
	lane.pid = 4712; /* and another has it */
	look = look_at(&lane, 1, "ok", 4);
	segue_look_compare(&look, &before);
	cr_assert_eq(look.lane_count, 1);
	cr_assert_eq(look.lane[0].holder, 4712);
	cr_assert_eq(look.note_count, 0);
	segue_look_finish(&before);
	/* One that has come to its end is not missed. */
	look.lane[0].ended = true;
	before = read_at(nothing, 5);
	segue_look_compare(&before, &look);
	cr_assert_eq(before.lane_count, 0);
	segue_look_finish(&before);
	segue_look_finish(&look);
}

Test(top, a_worker_that_stands_still)
{
	struct lane_case lane = {.pid = 4711, .committed = 7, .ahead = 3};
	struct segue_look before = look_at(&lane, 1, "ok", 0);

	for (int second = 1; second <= 6; second++) {
		lane.server_waits_s = second;
		struct segue_look look = look_at(&lane, 1, "ok", second);
		segue_look_compare(&look, &before);
		segue_look_finish(&before);
		before = look;
		cr_assert_eq(before.note_count, second >= 5);
	}
	cr_assert_str_eq(before.note[0], "lane 0 of train waits for its worker: process 4711 "
					 "(train) has committed nothing for "
					 "6 s, and its ring is full");
	segue_look_finish(&before);
}

Test(top, a_full_disk)
{
	struct lane_case lane = {.pid = 4711, .committed = 7};
	struct segue_look look = look_at(&lane, 1, "no space left on the device", 0);
	struct segue_screen screen = {.columns = 100, .rows = 24, .colour = true};

	segue_look_compare(&look, NULL);
	char *text = draw(&look, &screen);
	cr_assert(strstr(text, "\n\x1b[1;31mTHE STORE CANNOT BE WRITTEN: no space left on the "
			       "device. What was "),
		"%s", text);
	cr_assert(strstr(text, "batch is published until it can be written\x1b[0m\n"), "%s", text);
	free(text);
	segue_look_finish(&look);
}

static const char stored[] =
	"{\"streams\":[{\"name\":\"train\",\"lanes\":[{\"lane\":0,\"group\":0,\"step\":12,"
	"\"committed\":\"2025-12-31T23:59:00Z\",\"checkpoints\":[{\"created\":"
	"\"2025-12-31T23:00:00Z\"},{\"created\":\"2025-12-31T23:50:00Z\"}]}]}]}";

Test(top, no_server)
{
	struct segue_look look;

	cr_assert_eq(segue_look_read_store(stored, "/data/run1", "no server runs for /data/run1", 0,
			     NOW_MS, &look),
		0);
	segue_look_compare(&look, NULL);
	expect_screen(&look, 80, 24,
		"segue top  /data/run1\n"
		"NO SERVER: no server runs for /data/run1\n"
		"In the store, which the next server goes on from:\n"
		"LANE STEP COMM CKPT\n"
		"   0   12  60s  10m\n");
	segue_look_finish(&look);
	cr_assert_eq(
		segue_look_read_store(NULL, "/data/run1", "it does not answer", 0, NOW_MS, &look),
		0);
	expect_screen(&look, 80, 24, "segue top  /data/run1\nNO SERVER: it does not answer\n");
	segue_look_finish(&look);
}

/* A server that comes back is not measured against what the store said. */
Test(top, from_store_to_server)
{
	struct segue_look before, look;
	struct lane_case lane = {.pid = 4711, .committed = 20};

	segue_look_read_store(stored, "/data/run1", "", 0, NOW_MS, &before);
	segue_look_compare(&before, NULL);
	look = look_at(&lane, 1, "ok", 1);
	segue_look_compare(&look, &before);
	cr_assert_lt(look.lane[0].batches_per_s, 0);
	segue_look_finish(&before);
	segue_look_finish(&look);
}

Test(top, who_waits_for_whom)
{
	struct lane_case lanes[] = {
		{.lane = 0,
			.pid = 4711,
			.committed = 7,
			.more = ",\"waits_for_group\":\"slow\",\"waits_s\":12.4,"
				"\"replicas\":[{\"replica\":1,\"pid\":5,"
				"\"program\":\"p\",\"step\":3}]"},
		{.lane = 1, .pid = 4711, .committed = 7, .more = ",\"group_name\":\"slow\""}};
	struct segue_look look = look_at(lanes, 2, "ok", 0);

	segue_look_compare(&look, NULL);
	cr_assert_eq(look.note_count, 2);
	cr_assert_str_eq(look.note[0],
		"lane 0 of train waits for replica 1, process 5 (p), which is at step 3");
	cr_assert_str_eq(look.note[1],
		"lane 0 of train has waited 12 s for group slow, which shares its ring");
	segue_look_finish(&look);
}

/* Whatever a server says: nothing that a terminal would obey. */
Test(top, nothing_plays_with_the_terminal)
{
	struct lane_case lane = {
		.pid = 4711, .committed = 7, .more = ",\"group_name\":\"a\\u001b[2Jb\\u009b1m\""};
	struct segue_look look = look_at(&lane, 1, "\\u001b]0;x\\u0007", 0);
	struct segue_screen screen = {.columns = 300};

	char *text = draw(&look, &screen);
	cr_assert_not(strchr(text, '\x1b'), "%s", text);
	cr_assert(strstr(text, "\\x1b[2Jb\\xc2\\x9b1m"), "%s", text);
	cr_assert(strstr(text, "\\x1b]0;x\\x07"), "%s", text);
	free(text);
	segue_look_finish(&look);
}

/* ---- JSON, OpenMetrics ---- */

Test(top, as_json)
{
	struct segue_look look = look_twice(1), again;
	char *json;

	cr_assert_eq(segue_look_json(&look, &json), 0);
	cr_assert(strstr(json, "\"batches_per_s\":10,\"worker_waits\":0.25,\"server_waits\":0.5,"
			       "\"ring\":3,\"depth\":4,\"commit_age_s\":3,"),
		"%s", json);
	cr_assert(strstr(json, "\"script\":\"train\",\"epoch\":1,\"epochs\":3,\"step\":110,"), "%s",
		json);
	free(json);
	segue_look_finish(&look);
	segue_look_read_store(NULL, "d", "gone", 0, NOW_MS, &again);
	cr_assert_eq(segue_look_json(&again, &json), 0);
	cr_assert_str_eq(json, "{\"time\":\"2026-01-01T00:00:00Z\",\"dir\":\"d\",\"server\":null,"
			       "\"trouble\":\"gone\",\"streams\":[],\"lanes\":[],\"notes\":[]}");
	free(json);
	segue_look_finish(&again);
}

static char *metrics_of(const struct segue_look *look)
{
	struct text text;

	segue_openmetrics_write(look, begin(&text)->file);
	return end(&text);
}

Test(top, as_openmetrics)
{
	struct lane_case lane = {.pid = 4711,
		.committed = 7,
		.ahead = 2,
		.worker_waits_s = 1.5,
		.more = ",\"group_name\":\"a\\\"b\\\\c\\nd\""};
	struct segue_look look = look_at(&lane, 1, "ok", 0);
	char *text = metrics_of(&look);

#define OF "dir=\"/data/run1\",stream=\"train\",group=\"a\\\"b\\\\c\\\\x0ad\",lane=\"0\"} "
	cr_assert(strstr(text, "# TYPE segue_lane_batches counter\n"));
	cr_assert(strstr(text, "\nsegue_lane_batches_total{" OF "7\n"), "%s", text);
	cr_assert(strstr(text, "\nsegue_lane_worker_wait_seconds_total{" OF "1.5\n"));
	cr_assert(strstr(text, "\nsegue_lane_ring_batches{" OF "2\n"));
	cr_assert(strstr(text, "\nsegue_lane_padding_steps_total{" OF "100\n"));
	cr_assert(strstr(text, "\nsegue_lane_last_commit_timestamp_seconds{" OF "1767225598\n"));
	cr_assert(strstr(text,
		"\nsegue_stream_skipped_records_total{dir=\"/data/run1\",stream=\"train\"} 2\n"));
	cr_assert(strstr(text, "\nsegue_storage_ok{dir=\"/data/run1\"} 1\n"));
	cr_assert(strstr(text, "\nsegue_up{dir=\"/data/run1\"} 1\n"));
	cr_assert_str_eq(text + strlen(text) - 7, "\n# EOF\n");
	free(text);
	segue_look_finish(&look);

	look = look_at(&lane, 1, "no space", 0);
	text = metrics_of(&look);
	cr_assert(strstr(text, "\nsegue_storage_ok{dir=\"/data/run1\"} 0\n"));
	free(text);
	segue_look_finish(&look);

	segue_look_read_store(stored, "d", "gone", 0, NOW_MS, &look);
	text = metrics_of(&look);
	cr_assert(strstr(text, "\nsegue_up{dir=\"d\"} 0\n"));
	cr_assert_not(strstr(text, "segue_lane"));
	free(text);
	segue_look_finish(&look);
}

/* ---- Keys, scripts ---- */

static void expect_key(const char *bytes, enum segue_key key, size_t taken)
{
	size_t found;

	cr_assert_eq(segue_terminal_parse(bytes, strlen(bytes), &found), key, "%s", bytes + 1);
	cr_assert_eq(found, taken, "%s", bytes + 1);
}

Test(top, keys)
{
	expect_key("q", SEGUE_KEY_QUIT, 1);
	expect_key("\x1b[Aq", SEGUE_KEY_UP, 3);
	expect_key("\x1bOB", SEGUE_KEY_DOWN, 3);
	expect_key("\x1b[5~", SEGUE_KEY_PAGE_UP, 4);
	expect_key("\x1b[6~\x1b[6~", SEGUE_KEY_PAGE_DOWN, 4);
	expect_key("\x1b[1~", SEGUE_KEY_HOME, 4);
	expect_key("\x1b[F", SEGUE_KEY_END, 3);
	expect_key("x", SEGUE_KEY_NONE, 1);
	expect_key("\x1b", SEGUE_KEY_NONE, 1);
	expect_key("\x1b[1;5Cq", SEGUE_KEY_NONE, 6); /* the q is a key of its own */
	expect_key("", SEGUE_KEY_NONE, 0);
}

#define expect_script(line, program, expected)                                                     \
	do {                                                                                       \
		char *found = segue_script_of(line, sizeof(line) - 1, program);                    \
		cr_assert(found &&strcmp(found, expected) == 0, "%s", found ? found : "none");     \
		free(found);                                                                       \
	} while (0)
#define expect_no_script(line, program)                                                            \
	cr_assert_null(segue_script_of(line, sizeof(line) - 1, program))

Test(top, scripts)
{
	expect_script(
		"/usr/bin/python3\0-u\0/home/me/train.py\0--lr\0001\0", "python3", "train.py");
	expect_script("python\0-W\0error\0-X\0dev\0t.py\0", "python", "t.py");
	expect_script("python3\0-m\0ipykernel_launcher\0-f\0x\0", "python3", "ipykernel_launcher");
	expect_no_script("python3\0-c\0import x\0", "python3");
	expect_no_script("python3\0", "python3");
	expect_no_script("python3\0-m\0", "python3");
	expect_no_script("./train\0data\0", "train");
	expect_no_script("/usr/bin/python3\0t.py\0", "python"); /* another process has its number */
	expect_no_script("", "python3");
	expect_no_script("python3\0cut of", "python3");
	expect_no_script("python3", "python3");
}
