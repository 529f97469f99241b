/* A filler: its states, its slots, what it does when data, memory or storage fail. */
#include "engine/filler.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/barrier.h"
#include "core/error.h"
#include "fakesource.h"
#include "work.h"

#define ROWS   3
#define UNROLL 2
#define STATES 8

static struct segue_fakesource source;
static struct segue_fakespec spec;
static struct segue_filler *filler;
static struct segue_carry carry;
static struct segue_carry_header *words;
static struct segue_lease_page *page;
static struct segue_task *queued; /* the pool: a task runs when a test says so */
static unsigned tasks;
static bool others; /* wait for a thread of the pool */
static int reading; /* what reading the carry says */

void segue_pool_run(struct segue_pool *pool, struct segue_task *task)
{
	(void)pool;
	cr_assert_null(queued, "one task at a time works for a filler");
	queued = task;
	tasks++;
}

bool segue_pool_waits(struct segue_pool *pool)
{
	(void)pool;
	return others;
}

static bool run(void)
{
	struct segue_task *task = queued;

	queued = NULL;
	if (task)
		task->work(task);
	return task;
}

static void kick(void)
{
	segue_filler_kick(filler);
	run();
}

static int read_carry(void *arg, uint64_t offset, void *out, size_t size)
{
	if (reading)
		return segue_fail(reading, "the carry cannot be read");
	memcpy(out, (const uint8_t *)arg + offset, size);
	return 0;
}

static void *segment(uint64_t size)
{
	void *memory = aligned_alloc(SEGUE_LINE, size);

	cr_assert_not_null(memory);
	return memset(memory, 0, size);
}

/* Records of 4 steps, that is two segments, but for record 1, which has one. */
static void prepare(uint32_t rows, uint64_t records)
{
	segue_fakesource_init(&source, records, 2 * UNROLL);
	source.length[1] = 1;
	segue_fakespec_init(&spec, &source, rows, UNROLL, STATES);
}

static int create(struct segue_image *image)
{
	int rc = segue_filler_create(
		&spec.test.spec, &spec.plan, &source.source, NULL, image, &filler);

	if (rc)
		return rc;
	words = segment(filler->geometry.carry_size);
	page = segment(filler->geometry.lease_size);
	segue_carry_init(&carry, words, page, &filler->geometry, &spec.test.spec, 1,
		image->position->step, read_carry, words);
	cr_assert_eq(segue_feed_subscribe(&filler->feed, &carry), 0);
	return 0;
}

static void start(void)
{
	struct segue_image *image = segue_image_create(&spec.plan, NULL, STATES);

	cr_assert_eq(create(image), 0, "%s", segue_error_detail());
	segue_image_destroy(image);
}

static void begin(void)
{
	prepare(ROWS, 7);
	start();
}

static void end(void)
{
	segue_filler_destroy(filler);
	if (words)
		segue_carry_finish(&carry);
	segue_fakesource_finish(&source);
	free(words);
	free(page);
}

TestSuite(filler, .init = begin, .fini = end);

/* The worker commits and releases all batches below `step`. */
static void commit(uint64_t step)
{
	segue_store_release(&words->committed, step);
	segue_store_release(&words->released, step);
}

static uint64_t published(void)
{
	return filler->feed.published;
}

static int told(void)
{
	return -(int)segue_load_acquire(&filler->feed.ring->error);
}

static const struct segue_slot *slot_of(uint64_t step)
{
	return segue_ring_slot(filler->ring.map, &filler->geometry, step);
}

/* Row by row: which sequence, from which step on; SEGUE_NO_SEQUENCE ends it. */
struct expected {
	uint64_t number, first_step;
	uint32_t previous;
};

static void check_row(const struct segue_slot *slot, uint32_t row, const struct expected *expected)
{
	const uint8_t *base = (const uint8_t *)slot;
	const struct segue_geometry *geometry = &filler->geometry;
	const struct segue_slot_span *span =
		(const struct segue_slot_span *)(base + geometry->span_offset) + row;
	const int64_t *x =
		(const int64_t *)(base + geometry->sequence_offset[0]) + (uint64_t)row * UNROLL;
	char key[32];

	cr_assert_eq(span->number, expected->number);
	cr_assert_eq(span->first_step, expected->first_step);
	cr_assert_eq(span->previous_row, expected->previous);
	cr_assert_eq(
		((const uint32_t *)(base + geometry->previous_offset))[row], expected->previous);
	snprintf(key, sizeof(key), "record-%" PRIu64, expected->number);
	cr_assert_eq(span->key_size, strlen(key));
	cr_assert_arr_eq(base + geometry->heap_offset + span->key_offset, key, span->key_size);
	for (uint64_t i = 0; i < UNROLL; i++) {
		uint64_t step = expected->first_step + i;
		bool there = step < source.length[expected->number];
		cr_assert_eq(x[i], there ? (int64_t)(1000 * expected->number + step) : 0);
	}
}

static void check_slot(uint64_t step, const struct expected *expected, uint32_t rows)
{
	const struct segue_slot *slot = slot_of(step);

	cr_assert_lt(step, published());
	cr_assert_eq(slot->step, step);
	cr_assert_eq(slot->rows, rows);
	for (uint32_t row = 0; row < rows; row++)
		check_row(slot, row, &expected[row]);
}

#define NEW SEGUE_NO_ROW
/* Of 7 records, of which number 1 has one segment and the others two, in three rows. */
static const struct expected batches[][ROWS] = {
	{{0, 0, NEW}, {1, 0, NEW}, {2, 0, NEW}},
	{{0, 2, 0}, {3, 0, NEW}, {2, 2, 2}},
	{{4, 0, NEW}, {3, 2, 1}, {5, 0, NEW}},
	{{4, 2, 0}, {6, 0, NEW}, {5, 2, 2}},
	{{6, 2, 1}},
};
enum { BATCHES = sizeof(batches) / sizeof(batches[0]) };

static void check_batch(uint64_t step)
{
	check_slot(step, batches[step], step + 1 == BATCHES ? 1 : ROWS);
}

/* ---- What it makes ------------------------------------------------------------------------- */

Test(filler, fills_the_ring_and_goes_on_when_batches_are_released)
{
	kick();
	cr_assert_eq(published(), 2, "the ring has two slots");
	check_batch(0);
	check_batch(1);
	kick();
	cr_assert_eq(published(), 2);
	for (uint64_t step = 2; step < BATCHES; step++) {
		commit(step - 1);
		kick();
		cr_assert_eq(published(), step + 1);
		check_batch(step);
	}
	commit(BATCHES);
	kick();
	cr_assert_eq(segue_load_acquire(&filler->feed.ring->end), BATCHES);
	cr_assert_eq(source.admitted, 7, "each record is admitted once");
	cr_assert_eq(source.open, 1, "and let go in the batch after its last");
	cr_assert_eq(told(), 0);
}

/* A batch is as long as its longest length, and its tensors lie densely. */
Test(filler, cuts_batches_if_it_is_told_to)
{
	static const uint32_t steps[] = {2, 2, 1, 2, 2};
	static const int64_t first[] = {0, 2, 1000, 2000, 2002};

	end();
	prepare(1, 3);
	spec.test.spec.trim = true;
	start();
	for (uint64_t step = 0; step < 5; step++) {
		const struct segue_slot *slot = slot_of(step);

		kick();
		cr_assert_gt(published(), step);
		const int64_t *x = (const int64_t *)((const uint8_t *)slot +
						     filler->geometry.sequence_offset[0]);
		cr_assert_eq(slot->steps, steps[step], "batch %" PRIu64, step);
		cr_assert_eq(slot->valid, steps[step]);
		for (uint32_t i = 0; i < slot->steps; i++)
			cr_assert_eq(x[i], first[step] + i);
		commit(step + 1);
	}
	kick();
	cr_assert_eq(filler->steps_published, 9);
	cr_assert_eq(filler->valid_published, 9);
}

Test(filler, asks_to_be_woken_when_the_ring_is_full)
{
	kick();
	cr_assert_eq(segue_load_acquire(&page->wake_at), 1, "half of it free");
	cr_assert_eq(filler->state, SEGUE_FILLER_IDLE);
}

Test(filler, goes_on_from_a_position)
{
	kick();
	commit(2);
	const struct segue_feed_entry *entry = segue_feed_entry(&filler->feed, 2);
	struct segue_image *image = segue_image_create(&spec.plan, entry->position, STATES);
	segue_filler_destroy(filler);
	free(words);
	free(page);
	cr_assert_eq(create(image), 0, "%s", segue_error_detail());
	cr_assert_eq(image->key[1].size, strlen("record-3"), "the one row that goes on has a key");
	cr_assert_arr_eq(image->key[1].bytes, "record-3", image->key[1].size);
	cr_assert_eq(image->key[0].size, 0);
	kick();
	check_batch(2);
	check_batch(3);
	/* The data set has changed meanwhile. */
	source.length[3] = 3;
	struct segue_filler *other;
	cr_assert_eq(segue_filler_create(
			     &spec.test.spec, &spec.plan, &source.source, NULL, image, &other),
		SEGUE_ECHANGED);
	segue_image_destroy(image);
}

/* Behind the rows come what waits, with its key and no data; its record stays open. */
Test(filler, parked_rows_lie_behind_the_batch)
{
	static const struct expected one[] = {{0, 2, 0}};
	static const struct expected three[] = {{2, 2, 1}, {3, 0, NEW}, {4, 0, NEW}};

	kick();
	commit(1);
	const struct segue_feed_entry *entry = segue_feed_entry(&filler->feed, 1);
	struct segue_image *image = segue_image_create(&spec.plan, entry->position, STATES);
	segue_filler_destroy(filler);
	free(words);
	free(page);
	cr_assert_eq(segue_plan_set_batch_size(&spec.plan, image->position, 1), 0);
	cr_assert_eq(create(image), 0, "%s", segue_error_detail());
	segue_image_destroy(image);
	cr_assert_eq(filler->geometry.places, ROWS);
	kick();
	check_slot(1, one, 1);
	cr_assert_eq(slot_of(1)->spans, 2);
	const uint8_t *base = (const uint8_t *)slot_of(1);
	const struct segue_slot_span *span =
		(const struct segue_slot_span *)(base + filler->geometry.span_offset) + 1;
	cr_assert_eq(span->number, 2);
	cr_assert_eq(span->flags, SEGUE_SPAN_PARKED);
	cr_assert_eq(span->length, 0);
	cr_assert_eq(span->previous_row, 2);
	cr_assert_eq(((const uint32_t *)(base + filler->geometry.previous_offset))[1], 2);
	cr_assert_arr_eq(base + filler->geometry.heap_offset + span->key_offset, "record-2", 8);
	entry = segue_feed_entry(&filler->feed, 2);
	cr_assert_eq(entry->position->parked, 1);
	cr_assert_eq(entry->key[1].size, strlen("record-2"));
	/* It goes on where it was, beside those that begin. */
	image = segue_image_create(&spec.plan, entry->position, STATES);
	segue_filler_destroy(filler);
	free(words);
	free(page);
	cr_assert_eq(segue_plan_set_batch_size(&spec.plan, image->position, 3), 0);
	cr_assert_eq(create(image), 0, "%s", segue_error_detail());
	segue_image_destroy(image);
	kick();
	check_slot(2, three, 3);
}

Test(filler, a_step_that_passes_over_epochs_admits_more_than_it_places)
{
	end();
	prepare(4, 3); /* never a full batch in an epoch of three */
	spec.test.spec.tail = SEGUE_TAIL_STOP;
	spec.test.spec.epoch_end = SEGUE_EPOCH_DRAIN;
	spec.test.spec.epochs = 5;
	segue_fakespec_plan(&spec, &source);
	start();
	kick();
	cr_assert_eq(published(), 0);
	cr_assert_eq(segue_load_acquire(&filler->feed.ring->end), 0);
	cr_assert_eq(source.admitted, 15);
	cr_assert_eq(source.open, 0);
}

Test(filler, lets_go_what_a_step_admitted_and_did_not_place)
{
	static const struct expected first[] = {{0, 0, NEW}, {1, 0, NEW}};

	end();
	prepare(2, 3); /* the third of each epoch is alone, and left out */
	spec.test.spec.tail = SEGUE_TAIL_STOP;
	spec.test.spec.epoch_end = SEGUE_EPOCH_DRAIN;
	spec.test.spec.epochs = 2;
	for (int i = 0; i < 3; i++)
		source.length[i] = 2;
	segue_fakespec_plan(&spec, &source);
	start();
	kick();
	check_slot(0, first, 2);
	cr_assert_eq(published(), 2);
	cr_assert_eq(slot_of(1)->rows, 2);
	const struct segue_slot_span *span =
		(const struct segue_slot_span *)((const uint8_t *)slot_of(1) +
						 filler->geometry.span_offset);
	for (unsigned row = 0; row < 2; row++)
		cr_assert_eq(span[row].number, 3 + row);
	cr_assert_eq(source.admitted, 5);
	cr_assert_eq(source.open, 2);
}

/* ---- Input that goes on --------------------------------------------------------------------- */

/* The same records, inserted one by one; how many there will be is not known. */
static void begin_live(void)
{
	end();
	prepare(ROWS, 7);
	source.inserted = 0;
	spec.plan.records = SEGUE_PLAN_LIVE;
	start();
}

Test(filler, waits_for_what_is_not_inserted_yet)
{
	begin_live();
	kick();
	for (uint64_t inserted = 1; inserted <= 7; inserted++) {
		/* Batch b needs so many: see `batches`. */
		static const uint64_t needs[] = {3, 4, 6, 7, 8};
		uint64_t batch = 0;

		cr_assert_eq(filler->state, SEGUE_FILLER_IDLE);
		source.inserted = inserted;
		kick();
		while (needs[batch] <= inserted)
			batch++;
		commit(published());
		kick();
		cr_assert_eq(published(), batch, "%" PRIu64 " inserted", inserted);
		if (batch)
			check_batch(batch - 1);
		cr_assert_eq(source.admitted, inserted, "each record is admitted once");
	}
	cr_assert_eq(told(), 0);
	cr_assert_eq(segue_load_acquire(&filler->feed.ring->end), SEGUE_NEVER);
	segue_filler_end(filler, 7);
	run();
	commit(published());
	kick();
	for (uint64_t step = 3; step < BATCHES; step++)
		cr_assert_eq(slot_of(step)->step, step);
	cr_assert_eq(segue_load_acquire(&filler->feed.ring->end), BATCHES);
	check_batch(BATCHES - 1);
	cr_assert_eq(source.admitted, 7);
	cr_assert_eq(segue_filler_plan(filler).records, 7);
}

static unsigned looks;

/* Something is inserted when it has just looked; what it finds, it finds by looking once more. */
static void insert_behind_its_back(void)
{
	if (looks++ == 0)
		segue_filler_kick(filler);
	else
		source.inserted = ROWS;
}

Test(filler, an_insert_before_it_sleeps)
{
	begin_live();
	source.admitting = insert_behind_its_back;
	segue_filler_kick(filler);
	run();
	cr_assert_eq(published(), 1);
	check_batch(0);
	cr_assert_eq(filler->state, SEGUE_FILLER_IDLE);
	cr_assert_eq(tasks, 1);
}

Test(filler, what_is_passed_over_is_counted_once_though_it_waits)
{
	begin_live();
	source.source.on_error = SEGUE_ON_ERROR_SKIP;
	source.failing = 1;
	source.admit_code = SEGUE_EDATA;
	source.failures = 1;
	for (source.inserted = 2; source.inserted < 4; source.inserted++) {
		kick();
		cr_assert_eq(published(), 0);
	}
	kick();
	cr_assert_eq(published(), 2, "0, 2 and 3, of two segments each");
	cr_assert_eq(segue_load_acquire(&filler->feed.ring->skipped), 1);
	cr_assert_eq(source.source.skipped, 1);
	cr_assert_eq(source.admitted, 3);
	cr_assert_eq(source.open, 3);
}

Test(filler, lets_go_what_waits_when_it_is_destroyed)
{
	begin_live();
	source.inserted = 2;
	kick();
	cr_assert_eq(source.open, 2);
	segue_filler_destroy(filler);
	filler = NULL;
	cr_assert_eq(source.open, 0);
}

/* Of an image whose sequences the source has lost. */
Test(filler, what_was_there_before_and_is_not)
{
	kick();
	const struct segue_feed_entry *entry = segue_feed_entry(&filler->feed, 2);
	struct segue_image *image = segue_image_create(&spec.plan, entry->position, STATES);
	struct segue_filler *other;

	source.inserted = 3;
	cr_assert_eq(segue_filler_create(
			     &spec.test.spec, &spec.plan, &source.source, NULL, image, &other),
		SEGUE_ESOURCE);
	cr_assert(strstr(segue_error_detail(), "sequence 3 is not in the log"), "%s",
		segue_error_detail());
	segue_image_destroy(image);
}

/* ---- Its states ---------------------------------------------------------------------------- */

static unsigned closes;

static void closed(void *arg)
{
	cr_assert_eq(arg, &closes);
	cr_assert_eq(filler->state, SEGUE_FILLER_CLOSED);
	closes++;
}

static void kick_while_it_works(void)
{
	source.admitting = NULL;
	segue_filler_kick(filler);
	cr_assert_eq(filler->state, SEGUE_FILLER_AGAIN);
	segue_filler_kick(filler);
	cr_assert_eq(filler->state, SEGUE_FILLER_AGAIN);
}

Test(filler, a_kick_while_it_works_has_it_look_again)
{
	source.admitting = kick_while_it_works;
	segue_filler_kick(filler);
	cr_assert_eq(filler->state, SEGUE_FILLER_RUNNING);
	cr_assert_eq(published(), 0, "all is done in the task");
	run();
	cr_assert_eq(filler->state, SEGUE_FILLER_IDLE);
	cr_assert_eq(tasks, 1);
	cr_assert_null(queued);
	kick();
	cr_assert_eq(tasks, 2, "it can be started again");
}

Test(filler, makes_way_after_each_batch_for_what_waits)
{
	others = true;
	kick();
	cr_assert_eq(published(), 1, "not all that the ring has room for");
	cr_assert_eq(filler->state, SEGUE_FILLER_RUNNING, "it is queued again");
	cr_assert_eq(tasks, 2);
	run();
	cr_assert_eq(published(), 2);
	cr_assert_eq(tasks, 3);
	run();
	cr_assert_eq(filler->state, SEGUE_FILLER_IDLE, "with nothing to do it is no task");
	commit(1);
	kick();
	segue_filler_close(filler, closed, &closes);
	cr_assert_eq(closes, 0, "it is queued");
	run();
	cr_assert_eq(closes, 1);
	cr_assert_eq(published(), 3);
}

Test(filler, closes_at_once_when_it_is_idle)
{
	kick();
	segue_filler_close(filler, closed, &closes);
	cr_assert_eq(closes, 1);
	segue_filler_kick(filler);
	cr_assert_null(queued);
	cr_assert_eq(filler->state, SEGUE_FILLER_CLOSED);
}

Test(filler, closes_when_its_job_has_ended)
{
	segue_filler_kick(filler);
	segue_filler_close(filler, closed, &closes);
	cr_assert_eq(filler->state, SEGUE_FILLER_CLOSING);
	segue_filler_kick(filler);
	segue_filler_stall(filler, false);
	cr_assert_eq(closes, 0);
	run();
	cr_assert_eq(closes, 1);
	cr_assert_eq(published(), 0, "nothing was made for nobody");
}

static void close_while_it_works(void)
{
	source.admitting = NULL;
	segue_filler_kick(filler);
	segue_filler_close(filler, closed, &closes);
	cr_assert_eq(closes, 0);
}

Test(filler, a_job_that_is_to_look_again_closes_instead)
{
	source.admitting = close_while_it_works;
	kick();
	cr_assert_eq(closes, 1);
	cr_assert_eq(published(), 0);
}

Test(filler, publishes_nothing_while_storage_fails)
{
	segue_filler_stall(filler, true);
	kick();
	cr_assert_eq(published(), 0);
	segue_filler_stall(filler, false);
	cr_assert(run(), "it goes on by itself");
	check_batch(1);
}

static void stall_while_it_works(void)
{
	source.admitting = NULL;
	segue_filler_stall(filler, true);
}

Test(filler, keeps_a_batch_that_was_filled_when_storage_failed)
{
	source.admitting = stall_while_it_works;
	kick();
	cr_assert_eq(published(), 0);
	cr_assert_eq(filler->batch, SEGUE_FILLER_FILLED);
	segue_filler_stall(filler, false);
	run();
	check_batch(0);
	check_batch(1);
}

/* ---- What goes wrong ----------------------------------------------------------------------- */

static void break_admission(uint64_t record, int code, unsigned failures)
{
	source.failing = record;
	source.admit_code = code;
	source.failures = failures;
}

Test(filler, a_damaged_record_ends_the_lane_before_its_batch)
{
	break_admission(3, SEGUE_EDATA, 1);
	kick();
	cr_assert_eq(published(), 1);
	check_batch(0);
	cr_assert_eq(told(), SEGUE_EDATA);
	cr_assert_eq(filler->feed.ring->error_step, 1);
	cr_assert_not_null(strstr(filler->feed.ring->error_text, "record 3 cannot be admitted"));
	commit(1);
	kick();
	cr_assert_eq(published(), 1, "for good");
}

Test(filler, what_was_given_up_is_no_error)
{
	break_admission(3, SEGUE_EGONE, 1);
	kick();
	cr_assert_eq(published(), 1);
	cr_assert_eq(told(), 0);
	cr_assert(filler->stalled);
}

Test(filler, memory_that_was_missing_once_is_nobodys_news)
{
	break_admission(3, SEGUE_ENOMEM, 2);
	kick();
	cr_assert_eq(told(), 0);
	check_batch(0);
	check_batch(1);
}

/* Record 1 is damaged, and the first time there is no memory for record 2 behind it. */
static void damaged_then_no_memory(void)
{
	looks++;
	if (looks == 2 || looks == 5)
		break_admission(1, SEGUE_EDATA, 1);
	else
		break_admission(2, SEGUE_ENOMEM, looks == 3);
}

Test(filler, what_is_passed_over_is_counted_once_though_memory_was_missing)
{
	source.source.on_error = SEGUE_ON_ERROR_SKIP;
	source.admitting = damaged_then_no_memory;
	kick();
	cr_assert_eq(published(), 2);
	cr_assert_eq(source.source.skipped, 2, "it was met twice");
	cr_assert_eq(segue_load_acquire(&filler->feed.ring->skipped), 1);
}

Test(filler, memory_that_is_missing_again_and_again_is_told_and_tried_again)
{
	break_admission(3, SEGUE_ENOMEM, 5);
	kick();
	cr_assert_eq(published(), 1);
	cr_assert_eq(told(), SEGUE_ENOMEM);
	cr_assert_eq(filler->feed.ring->error_step, 1);
	cr_assert_eq(source.failures, 2, "not for ever at once");
	cr_assert_eq(filler->state, SEGUE_FILLER_IDLE);
	uint32_t bell = segue_load_acquire(&filler->feed.ring->bell);
	kick();
	cr_assert_eq(source.failures, 1, "once a kick");
	cr_assert_eq(segue_load_acquire(&filler->feed.ring->bell), bell, "that is not news");
	kick();
	cr_assert_eq(source.failures, 0);
	kick();
	check_batch(1);
	/* Another shortage, later, is told again. */
	break_admission(6, SEGUE_ENOMEM, 3);
	commit(2);
	kick();
	cr_assert_eq(published(), 3);
	cr_assert_eq(source.failures, 0);
	cr_assert_eq(filler->feed.ring->error_step, 3);
	kick();
	check_batch(2);
	check_batch(3);
}

Test(filler, a_slot_that_was_filled_in_part_is_filled_from_its_beginning)
{
	source.failing = 2; /* the last row of the first two batches */
	source.read_code = SEGUE_ENOMEM;
	source.failures = 4;
	kick();
	cr_assert_eq(published(), 0);
	cr_assert_eq(filler->batch, SEGUE_FILLER_FORMED);
	kick();
	cr_assert_eq(published(), 0);
	kick();
	check_batch(0);
	check_batch(1);
	cr_assert_eq(source.admitted, 4, "its rows are decided once");
	segue_filler_destroy(filler);
	filler = NULL;
	cr_assert_eq(source.open, 0, "no record is left open");
}

Test(filler, a_slot_whose_record_cannot_be_read_ends_the_lane)
{
	source.failing = 2;
	source.read_code = SEGUE_ESOURCE;
	source.failures = 1;
	kick();
	kick();
	cr_assert_eq(published(), 0);
	cr_assert_eq(told(), SEGUE_ESOURCE);
}

Test(filler, ended_rows_are_taken_when_there_is_memory)
{
	spec.test.spec.keep_final = true;
	kick();
	commit(2);
	reading = SEGUE_ENOMEM;
	kick();
	cr_assert_eq(published(), 3, "batch 3 would have the states of sequence 1 written over");
	cr_assert_eq(told(), SEGUE_ENOMEM);
	reading = 0;
	kick();
	cr_assert_eq(published(), 4);
	cr_assert_eq(carry.kept->number, 1);
}

Test(filler, ended_rows_that_cannot_be_taken_end_the_lane)
{
	spec.test.spec.keep_final = true;
	kick();
	commit(2);
	reading = SEGUE_ESYSTEM;
	kick();
	reading = 0;
	kick();
	cr_assert_eq(published(), 3);
	cr_assert_eq(told(), SEGUE_ESYSTEM);
}

/* ---- Side segments ------------------------------------------------------------------------ */

static struct {
	uint64_t paid, segments, takes, most; /* most: that may be paid */
} account;

static int take_memory(void *arg, uint64_t bytes)
{
	(void)arg;
	if (account.paid + bytes > account.most)
		return segue_fail(SEGUE_ELIMIT, "no more than %ju", (uintmax_t)account.most);
	account.paid += bytes;
	account.segments++;
	account.takes++;
	return 0;
}

static void give_memory(void *arg, uint64_t bytes)
{
	(void)arg;
	cr_assert_leq(bytes, account.paid);
	account.paid -= bytes;
	account.segments--;
}

/* The feature is ragged: of batches that need more and more. */
static void begin_ragged(void)
{
	struct segue_field *field;

	end(); /* the suite's */
	prepare(ROWS, 40);
	field = &spec.test.sequences[0];
	field->form = SEGUE_FORM_RAGGED;
	field->rank = 0;
	source.scale = 300;
	start();
	memset(&account, 0, sizeof(account));
	account.most = UINT64_MAX;
	filler->sides.purse = (struct segue_purse){take_memory, give_memory, NULL};
}

/* Offsets and values of a batch are those of its spans, as who has got the segment sees them. */
static void check_ragged(uint64_t step)
{
	const struct segue_geometry *geometry = &filler->geometry;
	const char *slot = (char *)segue_ring_slot(filler->ring.map, geometry, step);
	const struct segue_slot_span *spans = (const void *)(slot + geometry->span_offset);
	const int64_t *offsets = (const void *)(slot + geometry->sequence_offset[0]);
	const uint64_t *table = (const void *)(slot + geometry->side_offset);
	struct segue_shm side = SEGUE_SHM_NONE;
	uint64_t number, size;
	int64_t at = 0;
	int fd;

	cr_assert_eq(segue_sides_get(&filler->sides, (uint32_t)(step % geometry->depth), &fd,
			     &number, &size),
		0, "%s", segue_error_detail());
	cr_assert_eq(number, table[0]);
	cr_assert_eq(table[1], 0);
	cr_assert_eq(segue_shm_map(fd, size, SEGUE_SHM_READ, &side), 0);
	for (uint32_t row = 0; row < ((const struct segue_slot *)(const void *)slot)->rows; row++)
		for (uint64_t k = 0; k < UNROLL; k++) {
			uint64_t at_step = spans[row].first_step + k;
			uint64_t count = (spans[row].number + at_step) * source.scale;

			if (at_step >= spans[row].array_steps)
				count = 0;
			cr_assert_eq(offsets[row * (UNROLL + 1) + k], at);
			for (uint64_t i = 0; i < count; i++)
				cr_assert_eq(((const int64_t *)side.map)[at + (int64_t)i],
					(int64_t)(1000 * spans[row].number + at_step));
			at += (int64_t)count;
			cr_assert_eq(offsets[row * (UNROLL + 1) + k + 1], at);
		}
	cr_assert_leq((uint64_t)at * sizeof(int64_t), size);
	segue_shm_destroy(&side);
}

Test(filler, a_small_batch_has_room_beside_a_large_one)
{
	struct segue_sides sides;
	uint8_t *out;

	cr_assert_eq(segue_sides_init(&sides, 3), 0);
	account.most = (1 << 20) + 2 * (1 << 16);
	sides.purse = (struct segue_purse){take_memory, give_memory, NULL};
	cr_assert_eq(segue_sink_add(segue_sides_begin(&sides, 0), 1 << 20, &out), 0);
	for (uint32_t slot = 1; slot < 3; slot++)
		cr_assert_eq(segue_sink_add(segue_sides_begin(&sides, slot), 100, &out), 0, "%s",
			segue_error_detail());
	cr_assert_eq(account.paid, account.most);
	cr_assert_eq(segue_sink_add(segue_sides_begin(&sides, 1), 1 << 17, &out), SEGUE_ELIMIT);
	segue_sides_finish(&sides);
	cr_assert(account.paid == 0 && account.segments == 0);
}

Test(filler, sides_grow_and_are_paid_for, .init = begin_ragged)
{
	uint64_t step = 0;

	for (kick(); published() > step; kick())
		for (; step < published(); step++) {
			check_ragged(step);
			commit(step + 1);
		}
	cr_assert_gt(step, 20);
	cr_assert_eq(filler->feed.ring->end, step);
	cr_assert_eq(account.segments, 2, "one a slot");
	cr_assert(account.takes > 2 && account.takes < 12, "by doubling: %ju",
		(uintmax_t)account.takes);
	cr_assert_eq(account.paid,
		filler->sides.of_slot[0].shm.size + filler->sides.of_slot[1].shm.size);
	segue_sides_finish(&filler->sides);
	cr_assert_eq(account.paid, 0);
	cr_assert_eq(account.segments, 0);
	cr_assert_eq(segue_sides_init(&filler->sides, 0), 0);
}

Test(filler, a_side_that_cannot_be_paid_for, .init = begin_ragged)
{
	uint64_t step = 0;

	account.most = 1 << 20;
	for (kick(); published() > step; kick())
		for (; step < published(); step++) {
			check_ragged(step);
			commit(step + 1);
		}
	cr_assert_gt(step, 4);
	cr_assert_eq(told(), SEGUE_ELIMIT);
	cr_assert_leq(account.paid, account.most);
}

Test(filler, a_slot_without_a_side)
{
	uint64_t number, size;
	int fd;

	kick();
	cr_assert_eq(segue_sides_get(&filler->sides, 0, &fd, &number, &size), SEGUE_ENOTFOUND);
	cr_assert_eq(segue_sides_get(&filler->sides, 2, &fd, &number, &size), SEGUE_ENOTFOUND);
}

/* ---- Many rows ----------------------------------------------------------------------------- */

Test(filler, keys_must_lie_where_32_bits_reach)
{
	struct segue_filler *other;
	struct segue_image *image = segue_image_create(&spec.plan, NULL, STATES);

	spec.test.spec.batch_size = spec.plan.batch_size = 1u << 20;
	source.key_max = 8192;
	cr_assert_eq(segue_filler_create(
			     &spec.test.spec, &spec.plan, &source.source, NULL, image, &other),
		SEGUE_ELIMIT);
	cr_assert_not_null(strstr(segue_error_detail(), "4 GiB"));
	segue_image_destroy(image);
}

/* What two batches take, of which the second has new sequences in every other row. */
static uint64_t work_of(uint32_t rows)
{
	end();
	prepare(rows, 2 * rows);
	for (uint32_t i = 0; i < rows; i += 2)
		source.length[i] = 1;
	start();
	uint64_t before = segue_work();
	kick();
	cr_assert_eq(published(), 2);
	return segue_work() - before;
}

Test(filler, many_rows_are_as_much_work_as_there_are_rows)
{
	uint64_t some = work_of(100), many = work_of(10000);

	cr_assert_gt(some, 100, "nothing is counted");
	cr_assert_lt(many, 110 * some, "%" PRIu64 " blocks for 100 rows, %" PRIu64 " for 10,000",
		some, many);
}
