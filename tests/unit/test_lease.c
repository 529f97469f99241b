/* Leases: who gets a lane, who is refused, what a start and a failed grant leave. */
#include "lane/lease.h"

#include <criterion/criterion.h>
#include <string.h>

static const uint8_t token_a[SEGUE_TOKEN_BYTES] = "token of grant a";
static const uint8_t token_b[SEGUE_TOKEN_BYTES] = "token of grant b";

static struct segue_holder process(int64_t pid)
{
	return (struct segue_holder){.boot_id = {1, 2, 3},
		.pid_namespace = 4,
		.pid = pid,
		.start_time = (uint64_t)pid * 10};
}

static struct segue_lease_request ask_for(int64_t pid, enum segue_attach_mode mode)
{
	return (struct segue_lease_request){.holder = process(pid), .mode = mode};
}

static struct segue_lease_request offer_of(
	int64_t pid, const uint8_t token[SEGUE_TOKEN_BYTES], uint64_t step)
{
	struct segue_lease_request request = ask_for(pid, SEGUE_ATTACH_OFFER);

	memcpy(request.token, token, SEGUE_TOKEN_BYTES);
	request.step = step;
	return request;
}

static enum segue_lease_answer ask(struct segue_lease *lease, struct segue_lease_request request)
{
	return segue_lease_ask(lease, &request, 10, token_b);
}

/* Held by process 1 under token b. */
static struct segue_lease held(void)
{
	struct segue_lease lease = {0};

	cr_assert_eq(ask(&lease, ask_for(1, SEGUE_ATTACH_CONTINUE)), SEGUE_LEASE_GRANT);
	segue_lease_granted(&lease, true);
	cr_assert_eq(lease.state, SEGUE_LEASE_HELD);
	return lease;
}

/* As a start finds it: granted to process 1 under token a. */
static struct segue_lease loaded(enum segue_presence presence)
{
	struct segue_lane_record record = {.generation = 5, .held = true, .holder = process(1)};
	struct segue_lease lease;

	memcpy(record.token, token_a, SEGUE_TOKEN_BYTES);
	segue_lease_load(&lease, &record, presence, 1000, 50);
	return lease;
}

Test(lease, a_grant_waits_for_the_disk)
{
	struct segue_lease lease = {0};

	cr_assert_eq(ask(&lease, ask_for(1, SEGUE_ATTACH_CONTINUE)), SEGUE_LEASE_GRANT);
	cr_assert_eq(lease.state, SEGUE_LEASE_GRANTING);
	cr_assert_eq(lease.generation, 1);
	cr_assert(lease.token_valid);
	cr_assert_arr_eq(lease.token, token_b, SEGUE_TOKEN_BYTES);
	cr_assert_eq(ask(&lease, ask_for(1, SEGUE_ATTACH_CONTINUE)), SEGUE_LEASE_WAIT);
	cr_assert_eq(ask(&lease, ask_for(2, SEGUE_ATTACH_CONTINUE)), SEGUE_LEASE_WAIT);
	segue_lease_granted(&lease, true);
	cr_assert_eq(lease.state, SEGUE_LEASE_HELD);
}

/* What an attach that a person asked for meets. */
Test(lease, who_asks_for_a_held_lane_waits_unless_it_takes_its_own)
{
	static const enum segue_attach_mode modes[] = {
		SEGUE_ATTACH_NONE, SEGUE_ATTACH_CONTINUE, SEGUE_ATTACH_FRESH, SEGUE_ATTACH_RESTORE};
	struct segue_lease lease = held();

	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		struct segue_lease_request own = ask_for(1, modes[i]), other = ask_for(2, modes[i]);
		cr_assert_eq(ask(&lease, own), SEGUE_LEASE_BUSY, "mode %d", (int)modes[i]);
		cr_assert_eq(ask(&lease, other), SEGUE_LEASE_BUSY, "mode %d", (int)modes[i]);
		own.take = other.take = true;
		cr_assert_eq(ask(&lease, own), SEGUE_LEASE_TAKE, "mode %d", (int)modes[i]);
		cr_assert_eq(ask(&lease, other), SEGUE_LEASE_BUSY, "mode %d", (int)modes[i]);
		own.take = other.take = false;
		own.holder_left = other.holder_left = true;
		cr_assert_eq(ask(&lease, own), SEGUE_LEASE_BUSY, "mode %d", (int)modes[i]);
		cr_assert_eq(ask(&lease, other), SEGUE_LEASE_BUSY, "mode %d", (int)modes[i]);
	}
	cr_assert_eq(lease.state, SEGUE_LEASE_HELD, "TAKE leaves it to the caller to end it");
	cr_assert_eq(lease.generation, 1, "only a grant raises it");
}

Test(lease, what_the_library_asks_of_a_held_lane_never_takes)
{
	struct segue_lease lease = held();

	for (unsigned i = 0; i < 8; i++) {
		bool own = i & 1, left = i & 2, take = i & 4;
		struct segue_lease_request resume = ask_for(own ? 1 : 2, SEGUE_ATTACH_RESUME);
		resume.holder_left = left;
		resume.take = take;
		cr_assert_eq(ask(&lease, resume),
			own && left ? SEGUE_LEASE_WAIT : SEGUE_LEASE_REFUSED, "own %d, left %d",
			own, left);
		struct segue_lease_request offer =
			offer_of(own ? 1 : 2, left ? token_b : token_a, 12);
		offer.take = take;
		cr_assert_eq(ask(&lease, offer), left ? SEGUE_LEASE_WAIT : SEGUE_LEASE_REFUSED,
			"own %d, latest %d", own, left);
	}
	cr_assert_eq(lease.state, SEGUE_LEASE_HELD);
}

Test(lease, taken_over_it_goes_to_the_newer_handle_when_all_is_taken)
{
	struct segue_lease lease = held();
	struct segue_lease_request newer = ask_for(1, SEGUE_ATTACH_CONTINUE);

	newer.take = true;
	cr_assert_eq(ask(&lease, newer), SEGUE_LEASE_TAKE);
	cr_assert(segue_lease_end(&lease));
	cr_assert_eq(ask(&lease, newer), SEGUE_LEASE_WAIT);
	cr_assert_eq(ask(&lease, ask_for(1, SEGUE_ATTACH_RESUME)), SEGUE_LEASE_WAIT);
	segue_lease_taken(&lease);
	cr_assert_eq(ask(&lease, newer), SEGUE_LEASE_GRANT);
	cr_assert_eq(ask(&lease, offer_of(1, token_b, 12)), SEGUE_LEASE_WAIT, "until it is known");
	segue_lease_granted(&lease, true);
	cr_assert_eq(ask(&lease, ask_for(1, SEGUE_ATTACH_RESUME)), SEGUE_LEASE_REFUSED);
	cr_assert_eq(lease.generation, 2);
}

Test(lease, ends_once_and_is_free_when_all_is_taken)
{
	struct segue_lease lease = held();

	cr_assert(segue_lease_end(&lease));
	cr_assert_eq(lease.state, SEGUE_LEASE_ENDING);
	cr_assert_not(segue_lease_end(&lease));
	cr_assert_eq(ask(&lease, ask_for(2, SEGUE_ATTACH_CONTINUE)), SEGUE_LEASE_WAIT);
	segue_lease_taken(&lease);
	cr_assert_eq(lease.state, SEGUE_LEASE_FREE);
	cr_assert_eq(ask(&lease, offer_of(1, token_b, 20)), SEGUE_LEASE_REFUSED,
		"all that it could offer was taken");
	cr_assert_eq(ask(&lease, ask_for(2, SEGUE_ATTACH_CONTINUE)), SEGUE_LEASE_GRANT);
	cr_assert_eq(lease.generation, 2);
}

Test(lease, a_start_reserves_it_while_the_holder_lives)
{
	struct segue_lease lease = loaded(SEGUE_PRESENCE_ALIVE);

	cr_assert_eq(lease.state, SEGUE_LEASE_RESERVED);
	cr_assert_eq(lease.generation, 5);
	cr_assert_not(segue_lease_expire(&lease, SEGUE_PRESENCE_ALIVE, INT64_MAX - 1));
	cr_assert_eq(ask(&lease, ask_for(2, SEGUE_ATTACH_FRESH)), SEGUE_LEASE_BUSY);
	cr_assert(segue_lease_expire(&lease, SEGUE_PRESENCE_GONE, 1001));
	cr_assert_eq(lease.state, SEGUE_LEASE_FREE);
	cr_assert_not(segue_lease_expire(&lease, SEGUE_PRESENCE_GONE, 1002));
	cr_assert_eq(ask(&lease, ask_for(2, SEGUE_ATTACH_CONTINUE)), SEGUE_LEASE_GRANT);
	cr_assert_eq(lease.generation, 6);
}

Test(lease, a_start_frees_it_at_once_when_the_holder_is_gone)
{
	cr_assert_eq(loaded(SEGUE_PRESENCE_GONE).state, SEGUE_LEASE_FREE);
}

Test(lease, grace_is_for_holders_that_cannot_be_looked_up)
{
	struct segue_lease lease = loaded(SEGUE_PRESENCE_UNKNOWN);

	cr_assert_eq(lease.state, SEGUE_LEASE_RESERVED);
	cr_assert_not(segue_lease_expire(&lease, SEGUE_PRESENCE_UNKNOWN, 1049));
	cr_assert(segue_lease_expire(&lease, SEGUE_PRESENCE_UNKNOWN, 1050));
}

Test(lease, a_lane_that_was_given_back_is_free_after_a_start)
{
	struct segue_lane_record record = {.generation = 5, .held = false, .holder = process(1)};
	struct segue_lease lease;

	segue_lease_load(&lease, &record, SEGUE_PRESENCE_ALIVE, 0, 50);
	cr_assert_eq(lease.state, SEGUE_LEASE_FREE);
	cr_assert_not(lease.token_valid);
	cr_assert_eq(ask(&lease, ask_for(2, SEGUE_ATTACH_CONTINUE)), SEGUE_LEASE_GRANT);
	cr_assert_eq(lease.generation, 6);
}

Test(lease, the_reservation_is_its_process_to_use)
{
	static const enum segue_attach_mode modes[] = {
		SEGUE_ATTACH_RESTORE, SEGUE_ATTACH_CONTINUE, SEGUE_ATTACH_RESUME};

	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		struct segue_lease lease = loaded(SEGUE_PRESENCE_ALIVE);
		struct segue_lease_request other = ask_for(2, modes[i]);
		other.take = other.holder_left = true;
		cr_assert_eq(ask(&lease, other),
			modes[i] == SEGUE_ATTACH_RESUME ? SEGUE_LEASE_REFUSED : SEGUE_LEASE_BUSY);
		cr_assert_eq(ask(&lease, ask_for(1, modes[i])), SEGUE_LEASE_GRANT);
	}
}

/* By the token, or when the grace is over. */
Test(lease, one_that_cannot_be_looked_up_is_nobodys_twin)
{
	struct segue_lease_request unknown = {.mode = SEGUE_ATTACH_CONTINUE, .take = true};
	struct segue_lease lease = {0};

	cr_assert_eq(ask(&lease, unknown), SEGUE_LEASE_GRANT);
	segue_lease_granted(&lease, true);
	cr_assert_eq(ask(&lease, unknown), SEGUE_LEASE_BUSY);
	unknown.holder_left = true;
	unknown.mode = SEGUE_ATTACH_RESUME;
	cr_assert_eq(ask(&lease, unknown), SEGUE_LEASE_REFUSED);
	cr_assert_eq(ask(&lease, offer_of(0, token_b, 12)), SEGUE_LEASE_WAIT);

	struct segue_lane_record record = {.generation = 5, .held = true};
	memcpy(record.token, token_a, SEGUE_TOKEN_BYTES);
	segue_lease_load(&lease, &record, SEGUE_PRESENCE_UNKNOWN, 1000, 50);
	cr_assert_eq(ask(&lease, unknown), SEGUE_LEASE_REFUSED);
	unknown.mode = SEGUE_ATTACH_CONTINUE;
	cr_assert_eq(ask(&lease, unknown), SEGUE_LEASE_BUSY);
	struct segue_lease offered = lease;
	cr_assert_eq(ask(&offered, offer_of(0, token_a, 12)), SEGUE_LEASE_GRANT);
	cr_assert(segue_lease_expire(&lease, SEGUE_PRESENCE_UNKNOWN, 1050));
	cr_assert_eq(ask(&lease, unknown), SEGUE_LEASE_GRANT);
}

Test(lease, an_offer_needs_the_latest_token_and_a_step_that_is_not_too_old)
{
	struct segue_lease lease = loaded(SEGUE_PRESENCE_ALIVE);

	cr_assert_eq(ask(&lease, offer_of(1, token_b, 12)), SEGUE_LEASE_REFUSED);
	cr_assert_eq(ask(&lease, offer_of(1, token_a, 9)), SEGUE_LEASE_REFUSED);
	cr_assert_eq(lease.state, SEGUE_LEASE_RESERVED, "a refusal changes nothing");
	cr_assert_eq(ask(&lease, offer_of(1, token_a, 10)), SEGUE_LEASE_GRANT);
	segue_lease_granted(&lease, true);
	lease = loaded(SEGUE_PRESENCE_GONE);
	cr_assert_eq(ask(&lease, offer_of(1, token_a, 12)), SEGUE_LEASE_GRANT,
		"the token proves it, whatever the process looks like");
}

Test(lease, a_token_that_differs_in_its_last_byte_is_refused)
{
	struct segue_lease lease = loaded(SEGUE_PRESENCE_ALIVE);
	uint8_t near[SEGUE_TOKEN_BYTES];

	memcpy(near, token_a, sizeof(near));
	near[SEGUE_TOKEN_BYTES - 1] ^= 1;
	cr_assert_eq(ask(&lease, offer_of(1, near, 12)), SEGUE_LEASE_REFUSED);
}

/* A full disk, say: the offer may be made again. */
Test(lease, a_grant_that_fails_leaves_the_offer_good)
{
	struct segue_lease lease = loaded(SEGUE_PRESENCE_ALIVE);

	cr_assert_eq(ask(&lease, offer_of(1, token_a, 12)), SEGUE_LEASE_GRANT);
	segue_lease_granted(&lease, false);
	cr_assert_eq(lease.state, SEGUE_LEASE_RESERVED);
	cr_assert_eq(
		lease.generation, 6, "a generation that may have been written is not used again");
	cr_assert_eq(ask(&lease, ask_for(2, SEGUE_ATTACH_CONTINUE)), SEGUE_LEASE_BUSY);
	cr_assert_eq(ask(&lease, offer_of(1, token_a, 12)), SEGUE_LEASE_GRANT);
	cr_assert_eq(lease.generation, 7);
}

Test(lease, holders_are_the_same_only_in_every_part)
{
	struct segue_holder a = process(1), b = a;

	cr_assert(segue_holder_same(&a, &b));
	b.start_time++;
	cr_assert_not(segue_holder_same(&a, &b), "a pid that is used again");
	b = a;
	b.boot_id[15] = 9;
	cr_assert_not(segue_holder_same(&a, &b), "another boot");
	b = a;
	b.pid_namespace++;
	cr_assert_not(segue_holder_same(&a, &b), "another container");
	b = a;
	b.pid++;
	cr_assert_not(segue_holder_same(&a, &b));
}

Test(lease, holders_of_which_something_is_not_known_are_the_same_as_none)
{
	struct segue_holder a = process(1);

	a.pid = 0;
	cr_assert_not(segue_holder_same(&a, &a));
	a = process(1);
	a.start_time = 0;
	cr_assert_not(segue_holder_same(&a, &a));
	a = process(1);
	a.pid_namespace = 0;
	cr_assert_not(segue_holder_same(&a, &a));
}

Test(lease, states_have_names)
{
	cr_assert_str_eq(segue_lease_state_name(SEGUE_LEASE_FREE), "free");
	cr_assert_str_eq(segue_lease_state_name(SEGUE_LEASE_ENDING), "ending");
}
