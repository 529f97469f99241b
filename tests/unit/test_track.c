/* A worker's end of a lease: order, words, what is met, when the server is woken. */
#include "core/track.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "segue/segue.h"

#define DEPTH 3

static struct segue_ring_header ring;
static struct segue_carry_header carry;
static struct segue_lease_page page;
static struct segue_track track;

/* A lease of generation 7 at `step`, in a ring that has published batches below `published`. */
static void begin(uint64_t step, uint64_t published)
{
	memset(&ring, 0, sizeof(ring));
	memset(&carry, 0, sizeof(carry));
	memset(&page, 0, sizeof(page));
	atomic_store(&ring.published, published);
	atomic_store(&ring.end, SEGUE_NEVER);
	atomic_store(&carry.committed, step);
	atomic_store(&carry.released, step);
	atomic_store(&page.generation, 7);
	atomic_store(&page.wake_at, SEGUE_NEVER);
	segue_track_init(&track, &ring, &carry, &page, DEPTH, 7, step);
}

static void take_and_commit(uint64_t step)
{
	cr_assert_eq(segue_track_poll(&track), SEGUE_TRACK_READY);
	cr_assert_eq(segue_track_take(&track), step);
	cr_assert_eq(segue_track_commit(&track), 0);
}

Test(track, goes_through_batches_in_order)
{
	begin(5, 8);
	cr_assert_not(segue_track_open(&track));
	cr_assert_eq(segue_track_take(&track), 5);
	cr_assert(segue_track_open(&track));
	cr_assert_eq(atomic_load(&carry.committed), 5);
	cr_assert_eq(segue_track_commit(&track), 0);
	cr_assert_not(segue_track_open(&track));
	cr_assert_eq(atomic_load(&carry.committed), 6);
	cr_assert_eq(atomic_load(&carry.released), 5, "a committed batch is still held");
	segue_track_release(&track, 5);
	cr_assert_eq(atomic_load(&carry.released), 6);
	take_and_commit(6);
	take_and_commit(7);
	cr_assert_eq(atomic_load(&carry.committed), 8);
}

Test(track, releases_in_any_order_move_the_word_over_all_that_are_gone)
{
	begin(0, 3);
	take_and_commit(0);
	take_and_commit(1);
	take_and_commit(2);
	segue_track_release(&track, 1);
	cr_assert_eq(atomic_load(&carry.released), 0);
	segue_track_release(&track, 0);
	cr_assert_eq(atomic_load(&carry.released), 2);
	segue_track_release(&track, 2);
	cr_assert_eq(atomic_load(&carry.released), 3);
}

Test(track, a_batch_that_is_given_back_comes_again)
{
	begin(0, 2);
	take_and_commit(0);
	cr_assert_eq(segue_track_take(&track), 1);
	segue_track_put_back(&track);
	cr_assert_not(segue_track_open(&track));
	cr_assert_not(segue_track_release(&track, 1));
	cr_assert_eq(atomic_load(&carry.committed), 1);
	cr_assert_eq(atomic_load(&carry.released), 0);
	take_and_commit(1);
	cr_assert_eq(atomic_load(&carry.committed), 2);
}

Test(track, a_batch_that_comes_again_is_held_until_its_last_view_is_gone)
{
	begin(0, 2);
	cr_assert_eq(segue_track_take(&track), 0);
	segue_track_put_back(&track);
	take_and_commit(0);
	take_and_commit(1);
	segue_track_release(&track, 1);
	cr_assert_eq(atomic_load(&carry.released), 0);
	segue_track_release(&track, 0);
	cr_assert_eq(atomic_load(&carry.released), 2);
}

Test(track, released_never_passes_an_open_batch)
{
	begin(0, 2);
	take_and_commit(0);
	segue_track_take(&track);
	segue_track_release(&track, 0);
	cr_assert_eq(atomic_load(&carry.released), 1);
	cr_assert_eq(atomic_load(&carry.committed), 1);
}

Test(track, a_fenced_holder_commits_nothing)
{
	begin(0, 2);
	segue_track_take(&track);
	atomic_store(&page.generation, 8);
	cr_assert_eq(segue_track_commit(&track), SEGUE_EFENCED);
	cr_assert_eq(atomic_load(&carry.committed), 0);
	cr_assert(segue_track_open(&track));
	cr_assert_eq(segue_track_poll(&track), SEGUE_TRACK_FENCED);
}

Test(track, errors_show_only_when_the_ring_is_drained)
{
	begin(4, 5);
	atomic_store(&page.error, 21);
	atomic_store(&ring.error, 11);
	ring.error_step = 5;
	cr_assert_eq(segue_track_poll(&track), SEGUE_TRACK_READY);
	take_and_commit(4);
	cr_assert_eq(segue_track_poll(&track), SEGUE_TRACK_STORAGE);
	atomic_store(&page.error, 0);
	cr_assert_eq(segue_track_poll(&track), SEGUE_TRACK_ERROR);
	atomic_store(&ring.end, 5);
	cr_assert_eq(segue_track_poll(&track), SEGUE_TRACK_END);
	atomic_store(&page.generation, 9);
	cr_assert_eq(segue_track_poll(&track), SEGUE_TRACK_FENCED);
}

/* Batches that were published, and an error of the one after them, since the first look. */
Test(track, an_error_of_a_later_batch_is_none_of_this_one)
{
	begin(4, 4);
	ring.error_step = 5;
	atomic_store(&ring.error, 11);
	cr_assert_eq(segue_track_poll(&track), SEGUE_TRACK_WAIT);
	atomic_store(&ring.published, 5);
	take_and_commit(4);
	cr_assert_eq(segue_track_poll(&track), SEGUE_TRACK_ERROR);
}

/*
 * The page's first words on one page of memory, its error on the next, which cannot be read at
 * first.
 */
static char *late_words;

static void publish_and_fail(int signal)
{
	(void)signal;
	mprotect(late_words, 4096, PROT_READ | PROT_WRITE);
	atomic_store(&ring.published, 5);
	struct segue_lease_page *late =
		(void *)(late_words - offsetof(struct segue_lease_page, durable));
	atomic_store(&late->error, 21);
}

Test(track, batches_published_just_before_storage_failed_come_first)
{
	char *memory = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq((void *)memory, MAP_FAILED);
	begin(4, 4);
	late_words = memory + 4096;
	struct segue_lease_page *late =
		(void *)(late_words - offsetof(struct segue_lease_page, durable));
	atomic_store(&late->generation, 7);
	track.page = late;
	signal(SIGSEGV, publish_and_fail);
	mprotect(late_words, 4096, PROT_NONE);
	cr_assert_eq(segue_track_poll(&track), SEGUE_TRACK_READY);
	track.next = 5;
	cr_assert_eq(segue_track_poll(&track), SEGUE_TRACK_STORAGE);
	signal(SIGSEGV, SIG_DFL);
}

Test(track, holding_the_whole_ring_is_told_apart_from_waiting)
{
	begin(0, DEPTH);
	for (uint64_t step = 0; step < DEPTH; step++)
		take_and_commit(step);
	cr_assert_eq(segue_track_poll(&track), SEGUE_TRACK_HELD);
	segue_track_release(&track, 1);
	cr_assert_eq(segue_track_poll(&track), SEGUE_TRACK_HELD, "the oldest is what counts");
	segue_track_release(&track, 0);
	cr_assert_eq(segue_track_poll(&track), SEGUE_TRACK_WAIT);
}

Test(track, the_server_is_woken_once_when_released_gets_there)
{
	begin(0, 3);
	atomic_store(&page.wake_at, 2);
	for (uint64_t step = 0; step < 3; step++)
		take_and_commit(step);
	cr_assert_not(segue_track_release(&track, 0));
	cr_assert(segue_track_release(&track, 1));
	cr_assert_not(segue_track_release(&track, 2), "the same wish is met once");
	atomic_store(&ring.published, 5);
	atomic_store(&page.wake_at, 4);
	take_and_commit(3);
	cr_assert(segue_track_release(&track, 3), "a new wish");
}

Test(track, sleeps_only_if_there_is_nothing)
{
	uint32_t seen = 0;

	begin(0, 0);
	atomic_store(&ring.bell, 41);
	cr_assert(segue_track_sleep_begin(&track, &seen));
	cr_assert_eq(seen, 41);
	cr_assert_eq(atomic_load(&carry.sleeping), 1);
	segue_track_sleep_end(&track);
	cr_assert_eq(atomic_load(&carry.sleeping), 0);
	atomic_store(&ring.published, 1);
	cr_assert_not(segue_track_sleep_begin(&track, &seen));
	cr_assert_eq(atomic_load(&carry.sleeping), 0, "the flag is down again");
}

Test(track, depth_of_the_bit_mask_is_usable_to_the_end)
{
	begin(0, SEGUE_DEPTH_MAX);
	segue_track_init(&track, &ring, &carry, &page, SEGUE_DEPTH_MAX, 7, 0);
	for (uint64_t step = 0; step < SEGUE_DEPTH_MAX; step++)
		take_and_commit(step);
	cr_assert_eq(segue_track_poll(&track), SEGUE_TRACK_HELD);
	for (uint64_t step = SEGUE_DEPTH_MAX; step-- > 0;)
		segue_track_release(&track, step);
	cr_assert_eq(atomic_load(&carry.released), SEGUE_DEPTH_MAX);
}

/* What the words should say, kept as a list of flags a step. */
struct model {
	uint64_t next, committed;
	bool held[512];
};

static uint64_t model_released(const struct model *model)
{
	uint64_t step = 0;

	while (step < model->committed && !model->held[step])
		step++;
	return step;
}

static void random_act(struct model *model)
{
	bool open = model->next > model->committed;
	uint64_t step = (uint64_t)rand() % (model->next + 1);

	if (rand() % 2 && !open && segue_track_poll(&track) == SEGUE_TRACK_READY) {
		cr_assert_eq(segue_track_take(&track), model->next);
		model->held[model->next++] = true;
	} else if (rand() % 2 && open) {
		cr_assert_eq(segue_track_commit(&track), 0);
		model->committed = model->next;
	} else if (rand() % 8 == 0 && open) { /* what was read of it is still looked at */
		segue_track_put_back(&track);
		model->next = model->committed;
	} else if (step <= model->committed && model->held[step]) {
		if (step == model->committed && open)
			segue_track_put_back(&track);
		segue_track_release(&track, step);
		model->held[step] = false;
		if (step == model->committed)
			model->next = step;
	}
	atomic_store(&ring.published, model_released(model) + DEPTH);
}

Test(track, agrees_with_a_list_of_flags)
{
	struct model model = {0};
	unsigned seed = (unsigned)time(NULL);

	cr_log_info("seed %u", seed);
	srand(seed);
	begin(0, DEPTH);
	for (int i = 0; i < 5000 && model.next < 500; i++) {
		random_act(&model);
		cr_assert_eq(atomic_load(&carry.committed), model.committed, "seed %u", seed);
		cr_assert_eq(atomic_load(&carry.released), model_released(&model), "seed %u", seed);
	}
}
