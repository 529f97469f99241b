/*
 * The server's end of a carry: words that are checked, ended rows that are kept, states in order.
 */
#include "lane/carry.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "lane/feed.h"

#define DEPTH  2
#define ROWS   2
#define UNROLL 1

static struct segue_field sequence = {.name = "x", .dtype = SEGUE_INT64, .elements = 1, .size = 8};
static struct segue_field states[] = {
	{.name = "h", .dtype = SEGUE_UINT8, .rank = 1, .dims = {3}, .elements = 3, .size = 3},
	{.name = "c", .dtype = SEGUE_INT32, .rank = 1, .dims = {2}, .elements = 2, .size = 8},
};
static struct segue_spec spec = {
	.sequences = &sequence,
	.sequence_count = 1,
	.states = states,
	.state_count = 2,
	.num_unroll = UNROLL,
	.batch_size = ROWS,
	.depth = DEPTH,
	.keep_final = true,
};
static const struct segue_plan_spec plan = {
	.records = 100, .ends = {1, {1}}, .lanes = 1, .batch_size = ROWS, .num_unroll = UNROLL};

static struct segue_geometry geometry;
static struct segue_carry_header *words;
static struct segue_lease_page *page;
static struct segue_ring_header *ring;
static struct segue_carry carry;
static struct segue_feed feed;
static int read_result;

static int read_memory(void *arg, uint64_t offset, void *out, size_t size)
{
	if (read_result)
		return read_result;
	memcpy(out, (const uint8_t *)arg + offset, size);
	return 0;
}

static void *segment(size_t size)
{
	void *memory = aligned_alloc(4096, size);

	cr_assert_not_null(memory);
	return memset(memory, 0, size);
}

/* A carry of generation 3, granted at `step`, and a feed that begins there. */
static void begin(uint64_t step)
{
	struct segue_position *start = calloc(1, segue_position_size(ROWS));

	cr_assert_eq(segue_geometry_init(&spec, spec.batch_size, 8, &geometry), 0);
	words = segment(geometry.carry_size);
	page = segment(geometry.lease_size);
	ring = segment(geometry.ring_size);
	start->step = step;
	cr_assert_eq(segue_feed_init(&feed, ring, &geometry, &plan, start, NULL, NULL, 0), 0);
	segue_carry_init(&carry, words, page, &geometry, &spec, 3, step, read_memory, words);
	cr_assert_eq(segue_feed_subscribe(&feed, &carry), 0);
	read_result = 0;
	free(start);
}

static void finish(void)
{
	segue_feed_finish(&feed);
	segue_carry_finish(&carry);
	segue_geometry_finish(&geometry);
	free(words);
	free(page);
	free(ring);
}

TestSuite(carry, .fini = finish);

/* Publishes the next batch; sequence number 10 * step + row, ended where `ended` has its bit. */
static void publish(unsigned ended)
{
	struct segue_position *after = calloc(1, segue_position_size(ROWS));
	struct segue_feed_key keys[ROWS] = {{0, 2}, {2, 3}};
	char heap[] = "k0key";

	after->step = feed.published + 1;
	after->rows = ROWS;
	for (uint32_t row = 0; row < ROWS; row++)
		after->row[row] = (struct segue_plan_row){
			.number = 10 * feed.published + row,
			.array_steps = ended & 1u << row ? 1 : 2,
		};
	heap[1] = (char)('0' + feed.published);
	cr_assert_eq(segue_feed_publish(&feed, after, keys, heap, 5), 0);
	free(after);
}

/* What a worker does: fills the buffer of batch `step` with a value, commits, releases. */
static void commit(uint64_t step, uint8_t value)
{
	memset((uint8_t *)words + segue_carry_offset(&geometry, step), value, geometry.buffer_size);
	atomic_store(&words->committed, step + 1);
}

Test(carry, a_fresh_one_stands_at_its_step)
{
	begin(6);
	cr_assert_eq(atomic_load(&words->committed), 6);
	cr_assert_eq(atomic_load(&words->released), 6);
	cr_assert_eq(atomic_load(&page->generation), 3);
	cr_assert_eq(atomic_load(&page->durable), 6);
	cr_assert_eq(atomic_load(&page->wake_at), SEGUE_NEVER);
	cr_assert_eq(carry.taken, 6);
	cr_assert(segue_carry_observe(&carry, 6));
}

Test(carry, honest_words_are_taken_over)
{
	begin(0);
	atomic_store(&words->committed, 2);
	atomic_store(&words->released, 1);
	cr_assert(segue_carry_observe(&carry, 2));
	cr_assert_eq(carry.committed, 2);
	cr_assert_eq(carry.released, 1);
}

Test(carry, released_counts_no_further_than_committed)
{
	begin(0);
	atomic_store(&words->committed, 1);
	atomic_store(&words->released, 2);
	cr_assert(segue_carry_observe(&carry, 2));
	cr_assert_eq(carry.released, 1);
}

Test(carry, nonsense_breaks_it_for_good)
{
	static const struct {
		uint64_t committed, released, published;
	} nonsense[] = {
		{5, 2, 4},           /* beyond what was published */
		{1, 1, 4},           /* committed went back */
		{3, 0, 4},           /* released went back */
		{SEGUE_NEVER, 2, 4}, /* as far as it goes */
	};

	for (size_t i = 0; i < sizeof(nonsense) / sizeof(nonsense[0]); i++) {
		begin(2);
		atomic_store(&words->released, nonsense[i].released);
		atomic_store(&words->committed, nonsense[i].committed);
		cr_assert_not(segue_carry_observe(&carry, nonsense[i].published), "case %zu", i);
		cr_assert_eq(carry.committed, 2, "the last good value stays");
		atomic_store(&words->released, 2);
		atomic_store(&words->committed, 2);
		cr_assert_not(segue_carry_observe(&carry, 4), "case %zu", i);
		cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_FULL, "it releases nothing");
		if (i + 1 < sizeof(nonsense) / sizeof(nonsense[0]))
			finish();
	}
}

Test(carry, is_overdue_when_a_batch_lies_there_uncommitted_for_too_long)
{
	begin(0);
	/* Nothing to do: however long it takes. */
	cr_assert_not(segue_carry_overdue(&carry, 0, 1000, 100));
	cr_assert_not(segue_carry_overdue(&carry, 0, 5000, 100));
	/* A batch at 5000. */
	cr_assert_not(segue_carry_overdue(&carry, 2, 5050, 100));
	cr_assert_not(segue_carry_overdue(&carry, 2, 5099, 100));
	atomic_store(&words->committed, 1);
	cr_assert_not(segue_carry_overdue(&carry, 2, 5150, 100), "it has committed one");
	cr_assert_not(segue_carry_overdue(&carry, 4, 5249, 100), "more batches change nothing");
	cr_assert(segue_carry_overdue(&carry, 4, 5250, 100));
	atomic_store(&words->committed, 4);
	cr_assert_not(segue_carry_overdue(&carry, 4, 5251, 100));
	cr_assert_not(segue_carry_overdue(&carry, 4, 9000, 100), "all are committed");
	atomic_store(&words->committed, 9);
	cr_assert_not(segue_carry_overdue(&carry, 4, 9999, 100), "broken is another matter");
	cr_assert(carry.broken);
}

Test(carry, keeps_all_when_it_lets_go_of_none_of_a_full_ring_that_others_wait_for)
{
	uint64_t depth;

	begin(0);
	depth = carry.geometry->depth;
	atomic_store(&words->committed, depth);
	cr_assert(segue_carry_observe(&carry, depth));
	/* Alone, however long it takes; and the time begins when another waits. */
	cr_assert_not(segue_carry_keeps_all(&carry, depth, false, 1000, 100));
	cr_assert_not(segue_carry_keeps_all(&carry, depth, true, 5000, 100));
	cr_assert_not(segue_carry_keeps_all(&carry, depth, true, 5099, 100));
	cr_assert(segue_carry_keeps_all(&carry, depth, true, 5100, 100));
	cr_assert_not(segue_carry_keeps_all(&carry, depth - 1, true, 5101, 100), "there is room");
	cr_assert_not(segue_carry_keeps_all(&carry, depth, true, 5102, 100));
	atomic_store(&words->released, 1);
	cr_assert(segue_carry_observe(&carry, depth + 1));
	cr_assert_not(
		segue_carry_keeps_all(&carry, depth + 1, true, 5250, 100), "one is let go of");
	cr_assert(segue_carry_keeps_all(&carry, depth + 1, true, 5350, 100));
}

Test(carry, a_hold_stops_publication_until_all_have_let_go)
{
	begin(0);
	publish(0);
	commit(0, 1);
	cr_assert_eq(segue_carry_hold(&carry, feed.published), 1);
	cr_assert_eq(segue_carry_hold(&carry, feed.published), 1);
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_HELD);
	segue_carry_let_go(&carry);
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_HELD);
	segue_carry_let_go(&carry);
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_GO);
}

Test(carry, copies_the_buffer_of_a_step)
{
	uint8_t *copy;

	begin(0);
	copy = malloc(geometry.buffer_size);
	commit(0, 0x11);
	commit(1, 0x22);
	commit(3, 0x33); /* the buffer of batch 0 again */
	cr_assert_eq(segue_carry_copy(&carry, 1, copy), 0);
	cr_assert_eq(copy[0], 0x22);
	cr_assert_eq(segue_carry_copy(&carry, 3, copy), 0);
	cr_assert_eq(copy[geometry.buffer_size - 1], 0x33);
	read_result = SEGUE_ESYSTEM;
	cr_assert_eq(segue_carry_copy(&carry, 1, copy), SEGUE_ESYSTEM);
	free(copy);
}

Test(carry, takes_the_ended_rows_with_their_keys)
{
	begin(0);
	publish(1u << 1);
	commit(0, 0x41);
	publish(1u << 0 | 1u << 1);
	commit(1, 0x42);
	cr_assert(segue_carry_observe(&carry, feed.published));
	cr_assert_eq(segue_feed_take_of(&feed, &carry, 2), 0);
	cr_assert_eq(carry.taken, 2);

	static const struct {
		uint64_t step, number;
		const char *key;
		uint8_t value;
	} expected[] = {{0, 1, "key", 0x41}, {1, 10, "k1", 0x42}, {1, 11, "key", 0x42}};
	const struct segue_kept *kept = carry.kept;
	for (size_t i = 0; i < 3; i++, kept = kept->next) {
		cr_assert_not_null(kept);
		cr_assert_eq(kept->step, expected[i].step);
		cr_assert_eq(kept->number, expected[i].number);
		cr_assert_eq(kept->key_size, strlen(expected[i].key));
		cr_assert_arr_eq(kept->key, expected[i].key, kept->key_size);
		for (size_t byte = 0; byte < segue_row_size(&spec); byte++)
			cr_assert_eq(kept->states[byte], expected[i].value);
	}
	cr_assert_null(kept);
	cr_assert_eq(segue_feed_take_of(&feed, &carry, 2), 0, "nothing is taken twice");
	cr_assert_null(carry.kept->next->next->next);
}

Test(carry, a_failed_read_takes_nothing_of_that_batch)
{
	begin(0);
	publish(0);
	publish(3);
	read_result = SEGUE_ESYSTEM;
	cr_assert_eq(segue_feed_take_of(&feed, &carry, 2), SEGUE_ESYSTEM);
	cr_assert_eq(carry.taken, 1, "batch 0 had nothing to take");
	cr_assert_null(carry.kept);
	read_result = 0;
	cr_assert_eq(segue_feed_take_of(&feed, &carry, 2), 0);
	cr_assert_eq(carry.taken, 2);
	cr_assert_not_null(carry.kept->next);
}

Test(carry, forgets_what_is_on_disk)
{
	begin(0);
	publish(1);
	publish(1);
	cr_assert_eq(segue_feed_take_of(&feed, &carry, 2), 0);
	segue_carry_forget(&carry, 1);
	cr_assert_eq(carry.kept->step, 1);
	cr_assert_null(carry.kept->next);
	segue_carry_forget(&carry, 2);
	cr_assert_null(carry.kept);
	publish(1);
	cr_assert_eq(segue_feed_take_of(&feed, &carry, 3), 0, "the list can be begun again");
	cr_assert_eq(carry.kept->step, 2);
}

Test(carry, without_keep_final_nothing_is_taken)
{
	begin(0);
	struct segue_spec forgetful = spec;
	forgetful.keep_final = false;
	carry.spec = &forgetful;
	publish(3);
	cr_assert_eq(segue_feed_take_of(&feed, &carry, 1), 0);
	cr_assert_null(carry.kept);
	carry.spec = &spec;
}

Test(carry, what_is_no_longer_known_cannot_be_taken)
{
	begin(0);
	for (int i = 0; i <= DEPTH + 2; i++)
		publish(1);
	cr_assert_eq(segue_feed_take_of(&feed, &carry, 1), SEGUE_EPROTOCOL);
}

Test(carry, the_holder_is_told)
{
	begin(4);
	segue_carry_set_durable(&carry, 9);
	cr_assert_eq(atomic_load(&page->durable), 9);
	cr_assert_eq(atomic_load(&page->bell), 1);
	segue_carry_storage_failed(&carry, SEGUE_ENOSPACE, "the disk is full");
	cr_assert_eq(atomic_load(&page->error), (uint32_t)-SEGUE_ENOSPACE);
	cr_assert_str_eq(page->error_text, "the disk is full");
	segue_carry_fence(&carry);
	cr_assert_neq(atomic_load(&page->generation), 3);
	cr_assert_eq(atomic_load(&page->bell), 3);
}
