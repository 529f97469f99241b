/* Followers of a lease: what the gate makes of their words, and of nonsense. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "lane/feed.h"
#include "lane/follower.h"

#define DEPTH 4
#define ROWS  2

static struct segue_field sequence = {.name = "x", .dtype = SEGUE_INT64, .elements = 1, .size = 8};
static struct segue_spec spec = {
	.sequences = &sequence,
	.sequence_count = 1,
	.num_unroll = 1,
	.batch_size = ROWS,
	.depth = DEPTH,
};
static const struct segue_plan_spec plan = {
	.records = 100, .ends = {1, {1}}, .lanes = 1, .batch_size = ROWS, .num_unroll = 1};

static struct segue_geometry geometry;
static struct segue_ring_header *ring;
static struct segue_feed feed;
static struct segue_carry carry;
static struct segue_carry_header *words, *pages[2];
static struct segue_lease_page *lease;
static struct segue_follower followers[2];

static void *segment(size_t size)
{
	void *memory = aligned_alloc(4096, (size + 4095) & ~(size_t)4095);

	cr_assert_not_null(memory);
	return memset(memory, 0, size);
}

static void begin(void)
{
	struct segue_position *start = calloc(1, segue_position_size(ROWS));

	cr_assert_eq(segue_geometry_init(&spec, spec.batch_size, 8, &geometry), 0);
	ring = segment(geometry.ring_size);
	words = segment(geometry.carry_size);
	lease = segment(geometry.lease_size);
	cr_assert_eq(segue_feed_init(&feed, ring, &geometry, &plan, start, NULL, NULL, 0), 0);
	segue_carry_init(&carry, words, lease, &geometry, &spec, 1, 0, NULL, NULL);
	cr_assert_eq(segue_feed_subscribe(&feed, &carry), 0);
	for (int i = 0; i < 2; i++) {
		pages[i] = segment(SEGUE_FOLLOWER_SIZE);
		segue_followers_add(&carry, &followers[i], pages[i], 0);
	}
	free(start);
}

static void finish(void)
{
	segue_feed_finish(&feed);
	segue_carry_finish(&carry);
	segue_geometry_finish(&geometry);
	free(ring);
	free(words);
	free(lease);
	free(pages[0]);
	free(pages[1]);
}

TestSuite(follower, .init = begin, .fini = finish);

static void publish_to(uint64_t step)
{
	struct segue_position *after = calloc(1, segue_position_size(ROWS));

	for (; feed.published < step; after->rows = 0) {
		after->step = feed.published + 1;
		cr_assert_eq(segue_feed_publish(&feed, after, NULL, NULL, 0), 0);
	}
	free(after);
}

static void write_words(struct segue_carry_header *to, uint64_t committed, uint64_t released)
{
	to->committed = committed;
	to->released = released;
}

Test(follower, a_slot_is_free_when_all_have_let_go)
{
	publish_to(DEPTH);
	write_words(words, DEPTH, DEPTH);
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_FULL);
	write_words(pages[0], 2, 1);
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_FULL);
	write_words(pages[1], 1, 0);
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_FULL);
	write_words(pages[1], 1, 1);
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_GO);
	publish_to(DEPTH + 1);
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_FULL);
}

Test(follower, the_holder_is_waited_for_all_the_same)
{
	publish_to(DEPTH);
	write_words(pages[0], DEPTH, DEPTH);
	write_words(pages[1], DEPTH, DEPTH);
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_FULL);
}

Test(follower, one_that_has_gone_is_waited_for_no_more)
{
	publish_to(DEPTH);
	write_words(words, DEPTH, DEPTH);
	write_words(pages[1], 3, 3);
	segue_followers_remove(&carry, &followers[0]);
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_GO);
	segue_followers_remove(&carry, &followers[0]);
	segue_followers_remove(&carry, &followers[1]);
	cr_assert_eq(segue_followers_observe(&carry, feed.published), SEGUE_NEVER);
}

Test(follower, what_they_read_of_a_lease_that_is_over_stays)
{
	publish_to(DEPTH);
	write_words(words, DEPTH, DEPTH);
	write_words(pages[0], DEPTH, DEPTH);
	write_words(pages[1], 1, 0);
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_FULL);
	segue_feed_end_following(&feed, &carry);
	cr_assert_null(carry.followers);
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_FULL);
}

Test(follower, what_they_have_let_go_of_is_written_anew)
{
	publish_to(DEPTH);
	write_words(words, DEPTH, DEPTH);
	write_words(pages[0], DEPTH, DEPTH);
	write_words(pages[1], 2, 1);
	segue_feed_end_following(&feed, &carry);
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_GO);
	publish_to(DEPTH + 1);
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_FULL);
}

Test(follower, a_lease_without_any_ends_and_leaves_nothing)
{
	segue_followers_remove(&carry, &followers[0]);
	segue_followers_remove(&carry, &followers[1]);
	publish_to(DEPTH);
	segue_feed_end_following(&feed, &carry);
	write_words(words, 1, 1);
	cr_assert_eq(segue_feed_gate(&feed), SEGUE_FEED_GO);
}

Test(follower, nonsense_breaks_who_wrote_it)
{
	const uint64_t nonsense[][2] = {{DEPTH + 1, 0}, {UINT64_MAX, UINT64_MAX}, {1, 0}, {3, 1}};

	publish_to(DEPTH);
	write_words(words, 3, 3);
	for (size_t i = 0; i < sizeof(nonsense) / sizeof(nonsense[0]); i++) {
		segue_followers_remove(&carry, &followers[0]);
		segue_followers_add(&carry, &followers[0], pages[0], 2);
		write_words(pages[0], nonsense[i][0], nonsense[i][1]);
		segue_feed_gate(&feed);
		cr_expect(followers[0].broken, "case %zu", i);
		cr_expect(!carry.broken && !followers[1].broken);
		cr_expect_eq(segue_feed_gate(&feed), SEGUE_FEED_FULL);
	}
}

Test(follower, released_is_taken_as_far_as_it_can_be_true)
{
	publish_to(DEPTH);
	write_words(pages[0], 2, 4);
	write_words(pages[1], 3, 3);
	cr_assert_eq(segue_followers_observe(&carry, feed.published), 2);
	cr_assert(!followers[0].broken);
}

Test(follower, the_holder_is_told_who_is_there)
{
	segue_followers_tell(&carry, 2, "3, 4", NULL);
	cr_assert_eq(lease->followers, 2);
	cr_assert_eq(lease->gone, 0);
	cr_assert_str_eq(lease->missing_text, "3, 4");
	segue_followers_tell(&carry, 1, "2, 3, 4", "replica 2 has ended");
	cr_assert_eq(lease->followers, 1);
	cr_assert_eq(lease->gone, 1);
	cr_assert_str_eq(lease->gone_text, "replica 2 has ended");
}
