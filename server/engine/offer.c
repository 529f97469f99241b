/* Commits that a worker offers: followed from what is stored. */
#include "engine/offer.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/kept.h"
#include "core/wait.h"

/* For running the plan to an offered step: the client waits no longer. */
enum { OFFER_WITHIN_S = 15 };

/* Runs the plan from the stored position to the offered step. */
static int run_to(const struct segue_grant_order *order, const struct segue_position *from,
	struct segue_plan *plan)
{
	struct segue_input source = {order->source, order->spec, &order->plan, 0, 0};
	const struct segue_plan_input input = segue_input_of_plan(&source);
	struct segue_slot_span *spans =
		calloc(segue_plan_places(&order->plan, from), sizeof(*spans));
	int64_t until = segue_now_ns() + OFFER_WITHIN_S * INT64_C(1000000000);
	uint32_t rows;
	int rc = spans ? segue_plan_seek(plan, from) : SEGUE_ENOMEM;

	while (!rc && plan->position->step < order->step) {
		/* The step is the peer's word, and may be far beyond anything. relaxed: a hint */
		if (atomic_load_explicit(order->given_up, memory_order_relaxed)) {
			rc = segue_fail(SEGUE_EGONE, "nobody waits for the offer any more");
			break;
		}
		if (segue_now_ns() >= until) {
			rc = segue_fail(SEGUE_ELIMIT,
				"lane %u: step %" PRIu64
				" is offered, which this worker has committed, and the store has "
				"step %" PRIu64 ": following it led to step %" PRIu64
				" only in %d s. Go back to a checkpoint with load_state_dict()",
				order->place.lane, order->step, from->step, plan->position->step,
				OFFER_WITHIN_S);
			break;
		}
		rc = segue_plan_step(plan, &input, spans, &rows);
		if (rc == 0)
			rc = segue_fail(SEGUE_EPROTOCOL,
				"step %" PRIu64 " is offered of a lane that ends at %" PRIu64,
				order->step, plan->position->step);
		else if (rc > 0)
			rc = 0;
	}
	free(spans);
	return rc;
}

/* Takes the kept rows that follow the states in an offer. */
static int take_kept(struct segue_kept **tail, uint64_t row_size, const uint8_t *at, size_t left)
{
	while (left > 0) {
		struct segue_kept_row row;
		uint64_t size = segue_kept_row_unpack(at, left, row_size, &row);
		if (size == 0)
			return segue_fail(SEGUE_EPROTOCOL, "a kept row of an offer is cut short");
		struct segue_kept *kept = malloc(sizeof(*kept) + row_size + row.key_size);
		if (!kept)
			return segue_fail(SEGUE_ENOMEM, "no memory for a lane's last commits");
		*kept = (struct segue_kept){
			.step = row.step,
			.number = row.number,
			.key_size = row.key_size,
			.states = kept->bytes,
			.key = (char *)kept->bytes + row_size,
		};
		memcpy(kept->key, row.key, row.key_size);
		memcpy(kept->states, row.states, row_size);
		*tail = kept;
		tail = &kept->next;
		at += size;
		left -= size;
	}
	return 0;
}

/*
 * After a sync that failed, sequences can be gone that were read, and others in their place. What
 * is offered that is not stored may be behind them.
 */
static int check_seen(const struct segue_grant_order *order)
{
	const struct segue_log_place *seen = &order->seen;
	uint64_t hash[2];

	if (!order->live || seen->number == 0) /* none that it has seen can be lost */
		return 0;
	int rc = order->source->ops->hash(order->source, seen->number, hash);
	if (rc && rc != SEGUE_ENOTFOUND)
		return rc;
	if (!rc && memcmp(hash, seen->hash, sizeof(hash)) == 0)
		return 0;
	return segue_fail(SEGUE_ECHANGED,
		"lane %u: step %" PRIu64
		" is offered, which this worker has committed, and of the %" PRIu64
		" sequences that it had seen the log has lost some, or has others in their place. "
		"Go back to a checkpoint with load_state_dict()",
		order->place.lane, order->step, seen->number);
}

/* The position that the plan has come to has seen as much as its worker says. */
static int check_reached(
	const struct segue_grant_order *order, const struct segue_position *position)
{
	uint64_t seen = segue_backlog_seen(&order->plan, position);

	if (!order->live || seen == order->seen.number)
		return 0;
	return segue_fail(SEGUE_EPROTOCOL,
		"step %" PRIu64 " is offered as one that has seen %" PRIu64
		" sequences, where it has seen %" PRIu64,
		order->step, order->seen.number, seen);
}

static int make_image(const struct segue_grant_order *order, const struct segue_position *position,
	uint64_t row_size, struct segue_image **out, struct segue_kept **kept)
{
	uint64_t states = segue_position_count(position) * row_size;

	if (order->bulk_size < states)
		return segue_fail(SEGUE_EPROTOCOL,
			"an offer of %zu bytes where %" PRIu64 " are due", order->bulk_size,
			states);
	*out = segue_image_create(&order->plan, position, row_size);
	if (!*out)
		return segue_fail(SEGUE_ENOMEM, "no memory for a lane's last commits");
	if (states) /* a stream may have none, and then there are no bytes */
		memcpy((*out)->states, order->bulk, states);
	return take_kept(kept, row_size, order->bulk + states, order->bulk_size - states);
}

int segue_offer_follow(const struct segue_grant_order *order, const struct segue_image *stored,
	struct segue_image **out, struct segue_kept **kept)
{
	struct segue_plan plan = {0};

	*out = NULL;
	if (order->step == stored->position->step)
		return 0; /* nothing is newer than what is stored */
	if (order->step < stored->position->step)
		return segue_fail(SEGUE_EFENCED,
			"lane %u: step %" PRIu64 " is offered where %" PRIu64
			" is stored: somebody else has taken it further. Go back to a checkpoint "
			"with load_state_dict()",
			order->place.lane, order->step, stored->position->step);
	int rc = check_seen(order);
	if (!rc)
		rc = segue_plan_init(&plan, &order->plan);
	if (!rc)
		rc = run_to(order, stored->position, &plan);
	if (!rc)
		rc = check_reached(order, plan.position);
	if (!rc)
		rc = make_image(order, plan.position, stored->row_size, out, kept);
	segue_plan_finish(&plan);
	return rc;
}
