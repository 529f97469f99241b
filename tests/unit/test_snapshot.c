/* Snapshots: which step, whose states, and that publication waits no longer than it must. */
#include "engine/snapshot.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "core/barrier.h"
#include "core/error.h"
#include "fakesource.h"

enum { ROWS = 2, UNROLL = 2, STATES = 8 };

static struct segue_fakesource source;
static struct segue_fakespec spec;
static struct segue_filler *filler;
static struct segue_carry carry;
static struct segue_carry_header *words;
static struct segue_lease_page *page;
static struct segue_task *queued;
static unsigned holds_seen; /* while states are read */
static uint64_t published_meanwhile;
static int reading;

void segue_pool_run(struct segue_pool *pool, struct segue_task *task)
{
	(void)pool;
	queued = task;
}

bool segue_pool_waits(struct segue_pool *pool)
{
	(void)pool;
	return false;
}

static void run(void)
{
	struct segue_task *task = queued;

	queued = NULL;
	if (task)
		task->work(task);
}

/* Meanwhile the filler tries to go on. */
static int read_carry(void *arg, uint64_t offset, void *out, size_t size)
{
	if (reading)
		return segue_fail(reading, "the carry cannot be read");
	memcpy(out, (const uint8_t *)arg + offset, size);
	holds_seen = carry.holds;
	if (pthread_mutex_trylock(&filler->lock) == 0) { /* else ended rows are being taken */
		pthread_mutex_unlock(&filler->lock);
		segue_filler_kick(filler);
		run();
		published_meanwhile = filler->feed.published;
	}
	return 0;
}

static void *segment(uint64_t size)
{
	void *memory = aligned_alloc(SEGUE_LINE, size);

	cr_assert_not_null(memory);
	return memset(memory, 0, size);
}

/* Sequences of two segments each, a ring of two slots, two batches in it. */
static void begin(void)
{
	segue_fakesource_init(&source, 20, 2 * UNROLL);
	segue_fakespec_init(&spec, &source, ROWS, UNROLL, STATES);
	spec.test.spec.keep_final = true;
	struct segue_image *image = segue_image_create(&spec.plan, NULL, STATES);
	cr_assert_eq(segue_filler_create(
			     &spec.test.spec, &spec.plan, &source.source, NULL, image, &filler),
		0, "%s", segue_error_detail());
	segue_image_destroy(image);
	words = segment(filler->geometry.carry_size);
	page = segment(filler->geometry.lease_size);
	segue_carry_init(
		&carry, words, page, &filler->geometry, &spec.test.spec, 1, 0, read_carry, words);
	cr_assert_eq(segue_feed_subscribe(&filler->feed, &carry), 0);
	segue_filler_kick(filler);
	run();
}

static void end(void)
{
	segue_filler_destroy(filler);
	segue_carry_finish(&carry);
	segue_fakesource_finish(&source);
	free(words);
	free(page);
}

TestSuite(snapshot, .init = begin, .fini = end);

/* Saves, commits and releases batches: all states of batch t, row r, are 10 t + r + 1. */
static void commit(uint64_t step)
{
	for (uint64_t t = segue_load_relaxed(&words->committed); t < step; t++) {
		uint8_t *buffer = (uint8_t *)words + segue_carry_offset(&filler->geometry, t) +
				  filler->geometry.state_offset[0];
		for (unsigned row = 0; row < ROWS; row++)
			memset(buffer + row * STATES, (int)(10 * t + row + 1), STATES);
		segue_store_release(&words->committed, t + 1);
		segue_store_release(&words->released, t + 1);
		if (t + 1 < step) {
			segue_filler_kick(filler);
			run();
		}
	}
}

static int take(uint64_t step, uint64_t *committed, struct segue_image **image)
{
	*image = NULL;
	int rc = segue_snapshot(filler, &carry, step, committed, image);
	cr_assert_eq(carry.holds, 0, "publication goes on");
	cr_assert_eq(rc == 0, *image != NULL);
	return rc;
}

Test(snapshot, is_of_the_committed_step)
{
	struct segue_image *image;
	uint64_t committed;

	commit(1);
	cr_assert_eq(take(SEGUE_NEVER, &committed, &image), 0, "%s", segue_error_detail());
	cr_assert_eq(committed, 1);
	cr_assert_eq(image->position->step, 1);
	cr_assert_eq(image->live_count, 2);
	for (unsigned row = 0; row < ROWS; row++) {
		cr_assert_eq(image->position->row[row].number, row);
		cr_assert_eq(image->states[row * STATES], row + 1);
		cr_assert_eq(image->states[row * STATES + STATES - 1], row + 1);
		cr_assert_eq(image->key[row].size, 8);
		cr_assert_arr_eq(image->key[row].bytes, row ? "record-1" : "record-0", 8);
	}
	segue_image_destroy(image);
}

Test(snapshot, holds_publication_while_it_copies_and_no_longer)
{
	struct segue_image *image;
	uint64_t committed;

	commit(1);
	cr_assert_eq(filler->feed.published, 2);
	cr_assert_eq(take(1, &committed, &image), 0);
	cr_assert_eq(holds_seen, 1);
	cr_assert_eq(published_meanwhile, 2, "batch 3 would write the states of batch 0 over");
	run();
	cr_assert_eq(filler->feed.published, 3, "it is kicked at the end");
	segue_image_destroy(image);
}

Test(snapshot, takes_the_ended_rows_that_are_to_be_kept)
{
	struct segue_image *image;
	uint64_t committed;

	commit(2);
	cr_assert_eq(take(SEGUE_NEVER, &committed, &image), 0, "%s", segue_error_detail());
	cr_assert_eq(image->live_count, 0, "both have ended in batch 1");
	cr_assert_eq(carry.taken, 2);
	cr_assert_eq(carry.kept->number, 0);
	cr_assert_eq(carry.kept->states[0], 11);
	cr_assert_eq(carry.kept->next->number, 1);
	segue_image_destroy(image);
}

Test(snapshot, of_the_first_step_has_no_rows)
{
	struct segue_image *image;
	uint64_t committed;

	cr_assert_eq(take(0, &committed, &image), 0);
	cr_assert_eq(image->position->rows, 0);
	segue_image_destroy(image);
}

Test(snapshot, waits_for_no_commit)
{
	struct segue_image *image;
	uint64_t committed;

	commit(1);
	cr_assert_eq(take(2, &committed, &image), SEGUE_ETIMEOUT);
	cr_assert_eq(committed, 1, "what was seen is told all the same");
}

Test(snapshot, cannot_go_back_further_than_the_states)
{
	struct segue_image *image;
	uint64_t committed;

	commit(2);
	cr_assert_eq(filler->feed.published, 3);
	cr_assert_eq(take(1, &committed, &image), 0, "its buffer is whole");
	segue_image_destroy(image);
	segue_filler_kick(filler);
	run();
	cr_assert_eq(filler->feed.published, 4);
	cr_assert_eq(take(1, &committed, &image), SEGUE_ELIMIT, "batch 3 may write it over");
	cr_assert_eq(committed, 2);
}

Test(snapshot, of_words_that_cannot_be_is_refused)
{
	struct segue_image *image;
	uint64_t committed;

	segue_store_release(&words->committed, 100);
	cr_assert_eq(take(SEGUE_NEVER, &committed, &image), SEGUE_EPROTOCOL);
}

Test(snapshot, that_cannot_be_read_leaves_nothing_held)
{
	struct segue_image *image;
	uint64_t committed;

	commit(1);
	reading = SEGUE_ESYSTEM;
	cr_assert_eq(take(SEGUE_NEVER, &committed, &image), SEGUE_ESYSTEM);
	reading = 0;
	cr_assert_eq(take(SEGUE_NEVER, &committed, &image), 0);
	segue_image_destroy(image);
}
