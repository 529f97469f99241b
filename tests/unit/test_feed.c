/* A feed: when the next slot may be filled, who may join, what it remembers, who is woken. */
#include "lane/feed.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH  4
#define ROWS   2
#define UNROLL 1

static struct segue_field sequence = {.name = "x", .dtype = SEGUE_INT64, .elements = 1, .size = 8};
static struct segue_field state = {.name = "h", .dtype = SEGUE_INT64, .elements = 1, .size = 8};
static struct segue_spec spec = {
	.sequences = &sequence,
	.sequence_count = 1,
	.states = &state,
	.state_count = 1,
	.num_unroll = UNROLL,
	.batch_size = ROWS,
	.depth = DEPTH,
};
static const struct segue_plan_spec plan = {
	.records = 100, .ends = {1, {1}}, .lanes = 1, .batch_size = ROWS, .num_unroll = UNROLL};

static struct segue_geometry geometry;
static struct segue_ring_header *ring;
static struct segue_feed feed;

/* A lease: its memory, and the server's end. */
struct lease {
	struct segue_carry_header *words;
	struct segue_lease_page *page;
	struct segue_carry carry;
};
static struct lease a, b;

static int read_memory(void *arg, uint64_t offset, void *out, size_t size)
{
	memcpy(out, (const uint8_t *)arg + offset, size);
	return 0;
}

static void *segment(size_t size)
{
	void *memory = aligned_alloc(4096, size);

	cr_assert_not_null(memory);
	return memset(memory, 0, size);
}

/* A feed that begins at `step`, without subscribers. */
static void begin(uint64_t step, bool keep_final)
{
	struct segue_position *start = calloc(1, segue_position_size(ROWS));

	spec.keep_final = keep_final;
	cr_assert_eq(segue_geometry_init(&spec, spec.batch_size, 8, &geometry), 0);
	ring = segment(geometry.ring_size);
	start->step = step;
	cr_assert_eq(segue_feed_init(&feed, ring, &geometry, &plan, start, NULL, NULL, 0), 0);
	free(start);
}

static void join(struct lease *lease, uint64_t step)
{
	lease->words = segment(geometry.carry_size);
	lease->page = segment(geometry.lease_size);
	segue_carry_init(&lease->carry, lease->words, lease->page, &geometry, &spec, 1, step,
		read_memory, lease->words);
	cr_assert_eq(segue_feed_subscribe(&feed, &lease->carry), 0);
}

static void drop(struct lease *lease)
{
	if (lease->words)
		segue_carry_finish(&lease->carry);
	free(lease->words);
	free(lease->page);
}

static void finish(void)
{
	segue_feed_finish(&feed);
	drop(&a);
	drop(&b);
	segue_geometry_finish(&geometry);
	free(ring);
}

TestSuite(feed, .fini = finish);

/* Batch `published`: row 0 ends with it, row 1 goes on. */
static void publish(void)
{
	struct segue_position *after = calloc(1, segue_position_size(ROWS));
	struct segue_feed_key keys[ROWS] = {{0, 1}, {1, 2}};

	after->step = feed.published + 1;
	after->rows = ROWS;
	after->row[0] = (struct segue_plan_row){.number = feed.published, .array_steps = 1};
	after->row[1] = (struct segue_plan_row){.number = 1000, .array_steps = 99};
	cr_assert_eq(segue_feed_publish(&feed, after, keys, "abc", 3), 0);
	free(after);
}

static void publish_to(uint64_t step)
{
	while (feed.published < step)
		publish();
}

static void words(struct lease *lease, uint64_t committed, uint64_t released)
{
	atomic_store(&lease->words->committed, committed);
	atomic_store(&lease->words->released, released);
}

Test(feed, a_fresh_ring_says_where_it_begins)
{
	begin(7, false);
	cr_assert_eq(atomic_load(&ring->published), 7);
	cr_assert_eq(atomic_load(&ring->end), SEGUE_NEVER);
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_OVER, "nobody subscribes");
}

Test(feed, fills_the_ring_and_no_further)
{
	begin(0, false);
	join(&a, 0);
	for (uint64_t step = 0; step < DEPTH; step++) {
		cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_GO);
		publish();
		cr_assert_eq(atomic_load(&ring->published), step + 1);
		cr_assert_eq(atomic_load(&ring->bell), step + 1, "each batch rings");
	}
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_FULL);
	words(&a, 3, 0);
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_FULL, "committed is not released");
	words(&a, 3, 1);
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_GO);
	publish();
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_FULL);
}

Test(feed, the_slowest_subscriber_decides)
{
	begin(0, false);
	join(&a, 0);
	join(&b, 0);
	publish_to(DEPTH);
	words(&a, 4, 4);
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_FULL);
	words(&b, 1, 1);
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_GO);
	publish();
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_FULL);
	segue_feed_unsubscribe(&feed, &b.carry);
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_GO);
	segue_feed_unsubscribe(&feed, &b.carry);
	segue_feed_unsubscribe(&feed, &a.carry);
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_OVER);
}

Test(feed, a_copy_of_any_subscriber_stops_it)
{
	begin(0, false);
	join(&a, 0);
	join(&b, 0);
	segue_carry_hold(&b.carry, feed.published);
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_HELD);
	segue_carry_let_go(&b.carry);
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_GO);
}

/* Batch t + depth + 1 writes over the states of batch t: published must not get past it. */
Test(feed, ended_rows_are_taken_before_their_buffer_is_written_anew)
{
	begin(0, true);
	join(&a, 0);
	publish_to(DEPTH);
	words(&a, DEPTH, DEPTH);
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_GO, "the carry has one buffer more");
	publish();
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_TAKE);
	cr_assert_eq(segue_feed_take(&feed), 0);
	cr_assert_eq(a.carry.taken, DEPTH, "all that is committed, in one go");
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_GO);
	uint64_t kept = 0;
	for (const struct segue_kept *row = a.carry.kept; row; row = row->next)
		cr_assert_eq(row->number, kept++);
	cr_assert_eq(kept, DEPTH);
}

Test(feed, joins_only_where_the_batch_is_still_there)
{
	begin(3, false);
	join(&a, 3);
	cr_assert(segue_feed_reaches(&feed, 3));
	cr_assert_not(segue_feed_reaches(&feed, 2), "before its first batch");
	cr_assert_not(segue_feed_reaches(&feed, 4), "not yet published");
	publish_to(3 + DEPTH - 1);
	cr_assert(segue_feed_reaches(&feed, 3));
	publish();
	cr_assert(segue_feed_reaches(&feed, 3), "somebody has it still");
	words(&a, 4, 4);
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_GO);
	cr_assert_not(segue_feed_reaches(&feed, 3), "its slot may be being written");
	cr_assert(segue_feed_reaches(&feed, 4));
	cr_assert(segue_feed_reaches(&feed, 3 + DEPTH));
	segue_feed_fail(&feed, SEGUE_EDATA, "damaged");
	cr_assert_not(segue_feed_reaches(&feed, 4));
}

Test(feed, keeps_what_is_reserved_for_who_is_to_come)
{
	begin(3, false);
	join(&a, 3);
	cr_assert(segue_feed_reserve(&feed, 5), "it is to be published");
	publish_to(5 + DEPTH - 2);
	words(&a, feed.published, feed.published);
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_GO);
	publish_to(5 + DEPTH);
	words(&a, feed.published, feed.published);
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_FULL, "batch 5 stays");
	cr_assert(segue_feed_sleep(&feed));
	cr_assert(segue_feed_reaches(&feed, 5));
	cr_assert_not(segue_feed_reaches(&feed, 4));
	cr_assert_not(segue_feed_reserve(&feed, 4), "it may be being written");
	cr_assert_eq(feed.reserved, 5);
	join(&b, 5);
	cr_assert(segue_feed_reserve(&feed, SEGUE_NEVER));
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_FULL, "now somebody has it");
	words(&b, 6, 6);
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_GO);
}

Test(feed, remembers_positions_and_keys_of_a_ring_and_two)
{
	begin(0, false);
	publish_to(10);
	for (uint64_t step = 10 - DEPTH - 1; step <= 10; step++) {
		const struct segue_feed_entry *entry = segue_feed_entry(&feed, step);
		cr_assert_not_null(entry, "step %llu", (unsigned long long)step);
		cr_assert_eq(entry->position->step, step);
		cr_assert_eq(entry->position->row[0].number, step - 1);
		cr_assert_arr_eq(entry->heap + entry->key[1].offset, "bc", entry->key[1].size);
	}
	cr_assert_null(segue_feed_entry(&feed, 10 - DEPTH - 2));
	cr_assert_null(segue_feed_entry(&feed, 11));
}

Test(feed, begins_with_the_keys_it_was_given)
{
	struct segue_position *start = calloc(1, segue_position_size(ROWS));
	struct segue_feed_key keys[ROWS] = {{0, 0}, {0, 5}};

	cr_assert_eq(segue_geometry_init(&spec, spec.batch_size, 8, &geometry), 0);
	ring = segment(geometry.ring_size);
	start->step = 6;
	start->rows = ROWS;
	start->row[1].number = 17;
	cr_assert_eq(segue_feed_init(&feed, ring, &geometry, &plan, start, keys, "hello", 5), 0);
	start->row[1].number = 0;
	const struct segue_feed_entry *entry = segue_feed_entry(&feed, 6);
	cr_assert_eq(entry->position->row[1].number, 17, "a copy");
	cr_assert_arr_eq(entry->heap + entry->key[1].offset, "hello", 5);
	cr_assert_eq(entry->key[0].size, 0);
	free(start);
}

Test(feed, sleep_asks_for_half_a_ring)
{
	begin(0, false);
	join(&a, 0);
	cr_assert_not(segue_feed_sleep(&feed), "there is room");
	publish_to(DEPTH);
	cr_assert(segue_feed_sleep(&feed));
	cr_assert_eq(atomic_load(&a.page->wake_at), DEPTH / 2);
	words(&a, 1, 1);
	cr_assert_not(segue_feed_sleep(&feed), "released while it was about to");
}

Test(feed, sleep_asks_the_last_alone)
{
	begin(0, false);
	join(&a, 0);
	join(&b, 0);
	publish_to(DEPTH);
	words(&a, 1, 1);
	cr_assert(segue_feed_sleep(&feed));
	cr_assert_eq(atomic_load(&b.page->wake_at), DEPTH / 2);
	cr_assert_eq(atomic_load(&a.page->wake_at), SEGUE_NEVER);
	words(&b, 1, 1);
	publish();
	cr_assert(segue_feed_sleep(&feed));
	cr_assert_eq(atomic_load(&b.page->wake_at), 1 + DEPTH / 2, "of both the one as before");
	cr_assert_eq(atomic_load(&a.page->wake_at), SEGUE_NEVER);
	words(&b, 4, 4);
	cr_assert(segue_feed_sleep(&feed));
	cr_assert_eq(atomic_load(&a.page->wake_at), 1 + DEPTH / 2);
}

Test(feed, does_not_sleep_over_a_copy_or_ended_rows)
{
	begin(0, true);
	join(&a, 0);
	segue_carry_hold(&a.carry, 0);
	cr_assert_not(segue_feed_sleep(&feed));
	segue_carry_let_go(&a.carry);
	publish_to(DEPTH + 1);
	words(&a, DEPTH, DEPTH);
	cr_assert_not(segue_feed_sleep(&feed));
}

Test(feed, the_end_is_told)
{
	begin(0, false);
	join(&a, 0);
	publish_to(2);
	segue_feed_end(&feed, 5);
	cr_assert_eq(atomic_load(&ring->end), 2);
	cr_assert_eq(ring->undelivered, 5);
	cr_assert_eq(atomic_load(&ring->bell), 3);
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_OVER);
	cr_assert(segue_feed_reaches(&feed, 2), "who comes now learns of the end");
}

Test(feed, a_batch_that_cannot_be_made_is_told)
{
	char text[2 * SEGUE_ERROR_TEXT];

	begin(0, false);
	join(&a, 0);
	publish();
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	segue_feed_fail(&feed, SEGUE_EDATA, text);
	cr_assert_eq(atomic_load(&ring->error), (uint32_t)-SEGUE_EDATA);
	cr_assert_eq(ring->error_step, 1);
	cr_assert_eq(strlen(ring->error_text), SEGUE_ERROR_TEXT - 1);
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_OVER);
}

Test(feed, a_bell_without_a_batch)
{
	begin(0, false);
	join(&a, 0);
	segue_feed_ring(&feed);
	cr_assert_eq(atomic_load(&ring->bell), 1);
	cr_assert_eq(atomic_load(&ring->published), 0);
}

/* ---- Keys that come again ---- */

static struct segue_again_key key_of(const char *text)
{
	return (struct segue_again_key){text, strlen(text), segue_again_hash(text, strlen(text))};
}

/* In `publish` row 0, of key "a", ends in each batch, and "bc" goes on. */
Test(feed, a_key_awaits_the_last_batch_that_it_ended_in)
{
	const struct segue_again_key ended = key_of("a"), other[] = {key_of("bc"), key_of("b")};

	begin(0, true);
	join(&a, 0);
	cr_assert_eq(segue_feed_awaits(&feed, &a.carry, &ended, 1), 0, "nothing has ended");
	publish_to(3);
	cr_assert_eq(segue_feed_awaits(&feed, &a.carry, &ended, 1), 3);
	cr_assert_eq(segue_feed_awaits(&feed, &a.carry, other, 2), 0);
	cr_assert_not(segue_feed_await(&feed, &a.carry, 3));
	cr_assert_eq(atomic_load(&a.page->wake_at), 3);
	words(&a, 2, 2);
	cr_assert_not(segue_feed_await(&feed, &a.carry, 3));
	cr_assert_eq(segue_feed_awaits(&feed, &a.carry, &ended, 1), 3);
	words(&a, 3, 2);
	cr_assert(segue_feed_await(&feed, &a.carry, 3), "committed while it was about to wait");
	cr_assert_eq(segue_feed_awaits(&feed, &a.carry, &ended, 1), 3);
	cr_assert_eq(segue_feed_awaits(&feed, &a.carry, other, 2), 3);
}

Test(feed, what_a_key_left_is_found_until_it_is_forgotten)
{
	enum { BATCHES = 300 }; /* more than there are buckets at first */
	const struct segue_again_key key = key_of("a"), other = key_of("bc");

	spec.initial = SEGUE_INITIAL_KEPT;
	begin(0, true);
	join(&a, 0);
	cr_assert_null(segue_again_find(&a.carry.again, &key));
	for (uint64_t step = 0; step < BATCHES; step++) {
		int64_t *states =
			(void *)((uint8_t *)a.words + segue_carry_offset(&geometry, step));
		states[0] = 1000 + (int64_t)step;
		publish();
		words(&a, step + 1, step + 1);
		cr_assert(segue_carry_observe(&a.carry, feed.published));
		cr_assert_eq(segue_feed_take_of(&feed, &a.carry, step + 1), 0);
		const struct segue_kept *kept = segue_again_find(&a.carry.again, &key);
		cr_assert_eq(kept->number, step);
		cr_assert_eq(*(int64_t *)(void *)kept->states, 1000 + (int64_t)step);
		cr_assert_null(segue_again_find(&a.carry.again, &other));
	}
	segue_carry_forget(&a.carry, BATCHES - 1);
	cr_assert_eq(a.carry.again.count, 1);
	cr_assert_eq(segue_again_find(&a.carry.again, &key)->number, BATCHES - 1);
	segue_carry_forget(&a.carry, BATCHES);
	cr_assert_null(segue_again_find(&a.carry.again, &key));
}

/* Not that which came last. */
Test(feed, of_a_key_the_highest_number_is_found)
{
	static const uint64_t numbers[] = {3, 9, 4};
	struct segue_again again = {0};
	struct segue_kept kept[3] = {0};
	struct segue_again_key key = key_of("k");

	cr_assert_eq(segue_again_reserve(&again, 3), 0);
	for (size_t i = 0; i < 3; i++) {
		kept[i] = (struct segue_kept){.number = numbers[i], .key = "k", .key_size = 1};
		segue_again_add(&again, &kept[i]);
	}
	cr_assert_eq(segue_again_find(&again, &key)->number, 9);
	segue_again_remove(&again, &kept[1]);
	cr_assert_eq(segue_again_find(&again, &key)->number, 4);
	segue_again_finish(&again);
}
