/* Grants: from where a lane goes on, what is stored before anything is sent, what holders hear. */
#include "engine/grant.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "core/barrier.h"
#include "core/error.h"
#include "core/kept.h"
#include "engine/snapshot.h"
#include "holder.h"
#include "store/checkpoints.h"
#include "store/finals.h"
#include "store/lanes.h"
#include "store/token.h"

enum { ROWS = 2, STATES = 8 };

static struct segue_ground ground;
static struct segue_changes changes;
static struct segue_grant *grant;
static struct segue_grant_order order;
static int disk_says;

/* The committer: writes what is asked for at once. */
static void write_changes(void *arg)
{
	struct segue_change *list = segue_changes_take(&changes);

	(void)arg;
	segue_changes_build(list);
	const struct segue_ops *ops = segue_change_ops(list);
	if (!list->outcome.rc && disk_says)
		segue_outcome_take(&list->outcome, segue_fail(disk_says, "the disk says so"));
	else if (!list->outcome.rc)
		segue_outcome_take(
			&list->outcome, segue_store_apply(ground.store, ops->op, ops->count));
	segue_changes_answer(&changes, list);
}

/* Sequences of two segments each; lane 0 of two has 5 of them, in two rows: 6 steps. */
static void begin(void)
{
	segue_ground_begin(&ground, 10, 4, ROWS, 2);
	ground.spec.test.spec.keep_final = true;
	segue_changes_init(&changes, NULL, write_changes, NULL);
	order = segue_ground_order(&ground, &changes, 0);
}

static void leave(void)
{
	if (grant)
		segue_holder_end(grant);
	grant = NULL;
}

static void end(void)
{
	leave();
	segue_changes_finish(&changes);
	segue_ground_end(&ground);
}

static int check_token(const struct segue_grant_order *asked)
{
	uint64_t step;

	return segue_grant_check_token(asked, &step);
}

TestSuite(grant, .init = begin, .fini = end);

static int make(enum segue_attach_mode mode)
{
	leave();
	order.mode = mode;
	order.record.generation++;
	return segue_grant_make(&order, &grant);
}

#define OK(call) cr_assert_eq((call), 0, "%s: %s", #call, segue_error_detail())
#define REFUSED(call, code, text)                                                                  \
	do {                                                                                       \
		cr_assert_eq((call), (code), "%s: %s", #call, segue_error_detail());               \
		cr_assert_not_null(                                                                \
			strstr(segue_error_detail(), (text)), "%s", segue_error_detail());         \
	} while (0)

static struct segue_image *take_image(void)
{
	struct segue_image *image;
	uint64_t committed;

	OK(segue_snapshot(grant->filler, &grant->carry, SEGUE_NEVER, &committed, &image));
	return image;
}

/* Puts what the holder has committed on disk. */
static void write_lane(void)
{
	struct segue_image *image = take_image();
	struct segue_ops ops = {0};

	OK(segue_lanes_put_image(&ops, order.place, &grant->record, image, &grant->account));
	OK(segue_finals_put(&ops, order.place, STATES, grant->carry.kept, grant->account.durable,
		image->position->step));
	OK(segue_store_apply(ground.store, ops.op, ops.count));
	segue_account_settle(&grant->account, image);
	segue_ops_finish(&ops);
	segue_image_destroy(image);
}

static struct segue_lane_record stored(void)
{
	struct segue_lane_record record;

	OK(segue_lanes_load(ground.store, order.place, &record));
	free(record.position);
	return record;
}

static uint64_t stored_step(void)
{
	struct segue_lane_record record;

	OK(segue_lanes_load(ground.store, order.place, &record));
	uint64_t step = record.position->step;
	free(record.position);
	return step;
}

/* The byte that all states of a row of batch `step` are, as the carry has it. */
static int state_of(uint64_t step, uint32_t row)
{
	const struct segue_geometry *geometry = &grant->filler->geometry;
	const uint8_t *buffer =
		(const uint8_t *)grant->carry.words + segue_carry_offset(geometry, step);

	return buffer[geometry->state_offset[0] + row * STATES];
}

/* Whether sequence `number`, or any if SEGUE_NO_SEQUENCE, has final states of `life`. */
static bool has_final(uint64_t record, uint8_t state)
{
	struct segue_final final;
	char key[32];

	snprintf(key, sizeof(key), "record-%u", (unsigned)record);
	if (segue_finals_load(ground.store, order.place, 2, segue_row_size(order.spec), key,
		    strlen(key), &final))
		return false;
	bool same = final.row.states[segue_row_size(order.spec) - 1] == state;
	free(final.value);
	return same;
}

/* ---- Going on ------------------------------------------------------------------------------- */

Test(grant, a_lane_that_nobody_had_begins_at_its_beginning)
{
	OK(make(SEGUE_ATTACH_NONE));
	cr_assert_eq(grant->step, 0);
	cr_assert_eq(grant->state, SEGUE_GRANT_MADE);
	cr_assert(stored().held, "it is on disk before anybody hears of it");
	cr_assert_eq(stored().generation, order.record.generation);
	segue_holder_commit(grant, 6, 1);
	cr_assert_eq(grant->filler->feed.published, 6);
}

Test(grant, a_lane_goes_on_where_it_was_written_last)
{
	OK(make(SEGUE_ATTACH_CONTINUE));
	segue_holder_commit(grant, 1, 100);
	write_lane();
	segue_holder_commit(grant, 2, 100);
	OK(make(SEGUE_ATTACH_CONTINUE));
	cr_assert_eq(grant->step, 1, "what was not written comes again");
	cr_assert_eq(state_of(0, 0), 100);
	cr_assert_eq(state_of(0, 1), 101);
	cr_assert_eq(grant->account.durable, 1);
	cr_assert_eq(grant->account.stored_count, 2);
	segue_holder_commit(grant, 2, 50);
	cr_assert_eq(grant->carry.committed, 1, "words are looked at by the server alone");
	cr_assert(segue_carry_observe(&grant->carry, grant->filler->feed.published));
	cr_assert_eq(grant->carry.committed, 2);
}

Test(grant, where_a_position_is_stored_its_step_must_be_meant)
{
	OK(make(SEGUE_ATTACH_NONE));
	OK(make(SEGUE_ATTACH_NONE));
	segue_holder_commit(grant, 1, 1);
	write_lane();
	REFUSED(make(SEGUE_ATTACH_NONE), SEGUE_ESTART, "step 1");
	cr_assert_eq(stored_step(), 1);
}

Test(grant, a_fresh_start_forgets_all)
{
	struct segue_catalogue catalogue;

	OK(make(SEGUE_ATTACH_NONE));
	segue_holder_commit(grant, 2, 1);
	write_lane();
	cr_assert(has_final(0, 2), "sequence 0 ended in batch 1");
	OK(make(SEGUE_ATTACH_FRESH));
	cr_assert_eq(grant->step, 0);
	cr_assert_eq(stored_step(), 0);
	cr_assert_not(has_final(0, 2));
	OK(segue_catalogue_load(ground.store, order.place, &catalogue));
	cr_assert_eq(catalogue.count, 0);
}

Test(grant, a_stream_that_is_not_stored_leaves_no_trace)
{
	struct segue_lane_record record;

	ground.spec.test.spec.persist = false;
	OK(make(SEGUE_ATTACH_NONE));
	cr_assert_eq(segue_lanes_load(ground.store, order.place, &record), SEGUE_ENOTFOUND);
}

/* ---- Tokens --------------------------------------------------------------------------------- */

static void *token;
static size_t token_size;
static struct segue_token_record head;

/* Of the lane as it stands. */
static void take_token(void)
{
	struct segue_image *image = take_image();

	head = (struct segue_token_record){
		.fingerprint = {7, 8}, .lanes = 2, .batch_size = ROWS, .row_size = STATES};
	strcpy(head.stream, "fake");
	segue_spec_hash(order.spec, head.spec_hash);
	OK(segue_token_encode(&head, image, &token, &token_size));
	segue_image_destroy(image);
	order.bulk = token;
	order.bulk_size = token_size;
}

Test(grant, a_token_takes_the_lane_back)
{
	struct segue_ops ops = {0};

	OK(make(SEGUE_ATTACH_NONE));
	segue_holder_commit(grant, 1, 100);
	take_token();
	const struct segue_catalogue_entry entry = {.step = 1, .size = token_size};
	OK(segue_checkpoints_put(&ops, ground.store, order.place, &entry, 0, token, 4));
	OK(segue_store_apply(ground.store, ops.op, ops.count));
	segue_ops_finish(&ops);
	segue_holder_commit(grant, 2, 100);
	write_lane();
	cr_assert(has_final(0, 101));
	OK(check_token(&order));
	OK(make(SEGUE_ATTACH_RESTORE));
	cr_assert_eq(grant->step, 1);
	cr_assert_eq(stored_step(), 1);
	cr_assert_eq(state_of(0, 1), 101);
	cr_assert_not(has_final(0, 101), "what ended since has not ended");
	cr_assert_eq(grant->account.durable, 1);
	free(token);
}

/* Its head with one field more: the bits of what a reader must know. */
Test(grant, a_token_that_requires_what_is_not_known)
{
	struct segue_grant_order other;
	uint64_t head_size;

	OK(make(SEGUE_ATTACH_NONE));
	segue_holder_commit(grant, 1, 100);
	take_token();
	write_lane();
	uint8_t *longer = malloc(token_size + 2), *old = token;
	memcpy(&head_size, old + 8, sizeof(head_size));
	size_t at = 16 + head_size;
	memcpy(longer, old, at);
	longer[at] = 15 << 3;
	longer[at + 1] = 0x40;
	memcpy(longer + at + 2, old + at, token_size - at - 16);
	head_size += 2;
	memcpy(longer + 8, &head_size, sizeof(head_size));
	XXH128_canonicalFromHash((XXH128_canonical_t *)(longer + token_size + 2 - 16),
		XXH3_128bits(longer, token_size + 2 - 16));
	other = order;
	other.bulk = longer;
	other.bulk_size = token_size + 2;
	REFUSED(check_token(&other), SEGUE_EFORMAT,
		"requires what this version of segue (0.1.0) does not know (bits 0x40)");
	order.bulk = longer;
	order.bulk_size = token_size + 2;
	cr_assert_eq(make(SEGUE_ATTACH_RESTORE), SEGUE_EFORMAT);
	cr_assert_eq(stored_step(), 1, "nothing has changed");
	free(longer);
	free(token);
}

Test(grant, a_token_of_something_else_is_refused)
{
	struct segue_grant_order other;
	struct segue_spec wide = *order.spec, seeded = *order.spec;

	OK(make(SEGUE_ATTACH_NONE));
	segue_holder_commit(grant, 1, 100);
	take_token();
	write_lane();
	other = order;
	other.place.lane = 1;
	REFUSED(check_token(&other), SEGUE_ETOKEN, "lane 0 of 2, this is lane 1");
	other = order;
	other.fingerprint[1]++;
	REFUSED(check_token(&other), SEGUE_ETOKEN, "another data set");
	other = order;
	seeded.seed++;
	other.spec = &seeded;
	REFUSED(check_token(&other), SEGUE_ETOKEN, "another spec");
	other = order;
	wide.batch_size++;
	other.spec = &wide;
	REFUSED(check_token(&other), SEGUE_ETOKEN, "batch_size 2, the stream 3");
	other = order;
	other.bulk_size--;
	REFUSED(check_token(&other), SEGUE_ETOKEN, "lane 0");
	other = order;
	other.plan.records = 2; /* the position is beyond it */
	REFUSED(check_token(&other), SEGUE_ETOKEN, "the token cannot be of this stream");
	order.fingerprint[0]++;
	cr_assert_eq(make(SEGUE_ATTACH_RESTORE), SEGUE_ETOKEN);
	cr_assert_eq(stored_step(), 1, "the store is as before");
	free(token);
}

/* The same token of a stream whose input has ended so far after `ends`. */
static void take_token_of(struct segue_ends ends, const struct segue_spec *spec)
{
	struct segue_image *image;
	struct segue_token_record again = head, decoded;

	OK(segue_token_decode(&order.plan, token, token_size, &decoded, &image));
	free(decoded.position);
	free(token);
	again.ends = ends;
	segue_spec_hash(spec, again.spec_hash);
	OK(segue_token_encode(&again, image, &token, &token_size));
	segue_image_destroy(image);
	order.bulk = token;
	order.bulk_size = token_size;
}

/* The position is in the first stretch, or, where epochs drain, in epoch 0. */
Test(grant, a_token_fits_where_the_ends_before_it_are_the_same)
{
	struct segue_spec longer = *order.spec, shorter = *order.spec;

	OK(make(SEGUE_ATTACH_NONE));
	segue_holder_commit(grant, 1, 100);
	take_token();
	OK(check_token(&order)); /* an older one, without ends */
	take_token_of(SEGUE_ENDS(1), order.spec);
	OK(check_token(&order));
	order.plan.ends = SEGUE_ENDS(1, 5);
	OK(check_token(&order));
	take_token_of(SEGUE_ENDS(1, 3), order.spec);
	REFUSED(check_token(&order), SEGUE_ETOKEN, "grew otherwise");
	order.plan.epoch_end = SEGUE_EPOCH_DRAIN;
	OK(check_token(&order));
	order.plan.epoch_end = SEGUE_EPOCH_CONTINUE;
	order.plan.ends = SEGUE_ENDS(1);
	REFUSED(check_token(&order), SEGUE_ETOKEN, "open this stream with epochs=3 first");
	take_token_of(SEGUE_ENDS(1, 3, 0), order.spec);
	REFUSED(check_token(&order), SEGUE_ETOKEN, "epochs were 1, 3, None");
	REFUSED(check_token(&order), SEGUE_ETOKEN,
		"with epochs=3 first, then with the ones that follow");
	longer.epochs = 4;
	take_token_of(SEGUE_ENDS(4), &longer);
	REFUSED(check_token(&order), SEGUE_ETOKEN,
		"made with epochs=4, and this one with epochs=1");
	REFUSED(check_token(&order), SEGUE_ETOKEN, "another name with epochs=4 instead");
	take_token_of(SEGUE_ENDS(1), order.spec);
	order.spec = &longer;
	REFUSED(check_token(&order), SEGUE_ETOKEN,
		"epochs=1 instead, and, to go on, open it again with epochs=4");
	shorter.seed++;
	take_token_of(SEGUE_ENDS(1), &shorter);
	REFUSED(check_token(&order), SEGUE_ETOKEN, "another spec");
	free(token);
}

/* ---- Offers --------------------------------------------------------------------------------- */

static uint8_t offer[256];

/* States of `rows` rows, and one row that ended in batch 1: sequence 0. */
static void make_offer(uint64_t step, uint32_t rows)
{
	const struct segue_kept_row kept = {
		.step = 1, .number = 0, .key_size = 8, .key = "record-0"};

	order.step = step;
	for (uint32_t row = 0; row < rows; row++)
		memset(offer + row * STATES, 200 + (int)row, STATES);
	uint8_t *states = segue_kept_row_pack(&kept, offer + rows * STATES);
	memset(states, 77, STATES);
	order.bulk = offer;
	order.bulk_size = (size_t)(states + STATES - offer);
}

static void begin_lane(void)
{
	OK(make(SEGUE_ATTACH_NONE));
	segue_holder_commit(grant, 1, 100);
	write_lane();
}

Test(grant, an_offer_takes_the_lane_to_where_its_holder_was)
{
	begin_lane();
	make_offer(3, ROWS);
	uint64_t admitted = ground.source.admitted;
	OK(make(SEGUE_ATTACH_OFFER));
	cr_assert_eq(grant->step, 3);
	cr_assert_eq(stored_step(), 3);
	cr_assert_eq(state_of(2, 0), 200);
	cr_assert_eq(state_of(2, 1), 201);
	cr_assert(has_final(0, 77));
	cr_assert_eq(ground.source.admitted, admitted + 4, "two on the way, two to go on with");
	leave();
	cr_assert_eq(ground.source.open, 0, "no record is left open");
}

Test(grant, an_offer_of_what_is_stored_changes_nothing)
{
	begin_lane();
	make_offer(1, ROWS);
	OK(make(SEGUE_ATTACH_OFFER));
	cr_assert_eq(grant->step, 1);
	cr_assert_eq(state_of(0, 0), 100, "not what it says");
}

Test(grant, offers_that_cannot_be_are_refused)
{
	begin_lane();
	make_offer(0, ROWS);
	REFUSED(make(SEGUE_ATTACH_OFFER), SEGUE_EFENCED, "step 0 is offered where 1 is stored");
	make_offer(7, ROWS);
	REFUSED(make(SEGUE_ATTACH_OFFER), SEGUE_EPROTOCOL, "ends at 6");
	make_offer(3, ROWS);
	order.bulk_size = ROWS * STATES - 1;
	REFUSED(make(SEGUE_ATTACH_OFFER), SEGUE_EPROTOCOL, "15 bytes where 16 are due");
	make_offer(3, ROWS);
	order.bulk_size--;
	REFUSED(make(SEGUE_ATTACH_OFFER), SEGUE_EPROTOCOL, "cut short");
	cr_assert_eq(stored_step(), 1);
	cr_assert_not(has_final(0, 77));
	cr_assert_null(grant);
}

/* ---- Nothing half-way ------------------------------------------------------------------------ */

Test(grant, who_is_gone_gets_nothing_stored)
{
	struct segue_lane_record record;

	ground.given_up = true;
	cr_assert_eq(make(SEGUE_ATTACH_NONE), SEGUE_EGONE);
	cr_assert_eq(segue_lanes_load(ground.store, order.place, &record), SEGUE_ENOTFOUND);
	ground.given_up = false;
	begin_lane();
	ground.given_up = true;
	make_offer(3, ROWS);
	REFUSED(make(SEGUE_ATTACH_OFFER), SEGUE_EGONE, "nobody waits for the offer");
	cr_assert_eq(stored_step(), 1);
}

Test(grant, what_the_disk_does_not_take_is_not_granted)
{
	disk_says = SEGUE_ENOSPACE;
	cr_assert_eq(make(SEGUE_ATTACH_NONE), SEGUE_ENOSPACE);
	cr_assert_null(grant);
	disk_says = 0;
	OK(make(SEGUE_ATTACH_NONE));
}

Test(grant, a_record_that_has_gone_bad_is_not_granted)
{
	begin_lane();
	leave();
	ground.source.failing = 0;
	ground.source.admit_code = SEGUE_ESOURCE;
	ground.source.failures = 1;
	cr_assert_eq(make(SEGUE_ATTACH_CONTINUE), SEGUE_ESOURCE);
	OK(make(SEGUE_ATTACH_CONTINUE));
}

/* ---- In force ------------------------------------------------------------------------------- */

Test(grant, its_holder_hears_of_storage_and_that_it_works_again)
{
	char text[SEGUE_ERROR_TEXT];

	OK(make(SEGUE_ATTACH_NONE));
	cr_assert_eq(segue_grant_failure(grant, text), 0);
	uint32_t bell = segue_load_acquire(&grant->filler->feed.ring->bell);
	segue_grant_storage(grant, SEGUE_ENOSPACE, "full");
	cr_assert_eq(segue_grant_failure(grant, text), SEGUE_ENOSPACE);
	cr_assert_str_eq(text, "full");
	cr_assert_neq(segue_load_acquire(&grant->filler->feed.ring->bell), bell);
	cr_assert(grant->filler->stalled);
	segue_grant_storage(grant, 0, "");
	cr_assert_eq(segue_grant_failure(grant, text), 0);
	segue_holder_await(grant, 1);
}

Test(grant, what_is_refused_stays_so)
{
	char text[SEGUE_ERROR_TEXT];

	OK(make(SEGUE_ATTACH_NONE));
	const _Atomic uint32_t *bell = &grant->carry.page->bell;
	uint32_t before = segue_load_acquire(bell);
	segue_grant_remind(grant);
	cr_assert_eq(segue_load_acquire(bell), before, "there is nothing to say");
	segue_grant_refuse(grant, SEGUE_ELIMIT, "too large");
	segue_grant_storage(grant, SEGUE_ENOSPACE, "full");
	segue_grant_storage(grant, 0, "");
	cr_assert_eq(segue_grant_failure(grant, text), SEGUE_ELIMIT);
	cr_assert_str_eq(text, "too large");
	cr_assert(grant->filler->stalled);
	before = segue_load_acquire(bell);
	segue_grant_remind(grant);
	cr_assert_neq(segue_load_acquire(bell), before);
}

/* One that is destroyed before it was ever whole. */
Test(grant, none_is_fine)
{
	segue_grant_destroy(NULL);
}

/* ---- Its ways ------------------------------------------------------------------------------- */

Test(grant, goes_from_made_to_forgotten)
{
	struct segue_grant one = {0}, other = {0};

	segue_grant_go(&one, SEGUE_GRANT_WATCHED);
	segue_grant_go(&one, SEGUE_GRANT_ENDING);
	segue_grant_go(&one, SEGUE_GRANT_FORGOTTEN);
	segue_grant_go(&other, SEGUE_GRANT_WATCHED);
	segue_grant_go(&other, SEGUE_GRANT_LEAVING);
	segue_grant_go(&other, SEGUE_GRANT_FORGOTTEN);
	cr_assert_eq(other.state, SEGUE_GRANT_FORGOTTEN);
}

Test(grant, is_not_ended_before_it_is_watched, .signal = SIGABRT)
{
	struct segue_grant one = {0};

	segue_grant_go(&one, SEGUE_GRANT_ENDING);
}

Test(grant, is_not_ended_twice, .signal = SIGABRT)
{
	struct segue_grant one = {.state = SEGUE_GRANT_LEAVING};

	segue_grant_go(&one, SEGUE_GRANT_ENDING);
}
