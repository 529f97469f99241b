/* Who has a lane: the state machine of leases. */
#include "lane/lease.h"

#include <assert.h>
#include <string.h>

#include "core/barrier.h"

const char *segue_lease_state_name(enum segue_lease_state state)
{
	static const char *const names[] = {"free", "reserved", "granting", "held", "ending"};

	return names[state];
}

bool segue_holder_same(const struct segue_holder *a, const struct segue_holder *b)
{
	bool known = a->pid && a->start_time && a->pid_namespace;

	if (SEGUE_MUTANT(unknown_is_same))
		known = true;
	return known && a->pid == b->pid && a->start_time == b->start_time &&
	       a->pid_namespace == b->pid_namespace &&
	       memcmp(a->boot_id, b->boot_id, sizeof(a->boot_id)) == 0;
}

void segue_lease_load(struct segue_lease *lease, const struct segue_lane_record *record,
	enum segue_presence presence, int64_t now, int64_t grace)
{
	*lease = (struct segue_lease){
		.state = SEGUE_LEASE_FREE,
		.generation = record->generation,
		.holder = record->holder,
		.token_valid = record->held,
	};
	memcpy(lease->token, record->token, SEGUE_TOKEN_BYTES);
	if (!record->held || presence == SEGUE_PRESENCE_GONE)
		return;
	lease->state = SEGUE_LEASE_RESERVED;
	lease->reserved_until = presence == SEGUE_PRESENCE_ALIVE ? INT64_MAX : now + grace;
}

static bool token_equal(const uint8_t *a, const uint8_t *b)
{
	unsigned differs = 0;

	/* Constant time: a token is a secret. */
	for (size_t i = 0; i < SEGUE_TOKEN_BYTES; i++)
		differs |= (unsigned)(a[i] ^ b[i]);
	return differs == 0;
}

/* Of a lane that somebody holds. */
static enum segue_lease_answer ask_of_held(
	const struct segue_lease *lease, const struct segue_lease_request *request, bool latest)
{
	bool same = segue_holder_same(&lease->holder, &request->holder);

	switch (request->mode) {
	case SEGUE_ATTACH_OFFER: /* of the lease itself, whose connection is lost */
		return latest ? SEGUE_LEASE_WAIT : SEGUE_LEASE_REFUSED;
	case SEGUE_ATTACH_RESUME:
		if (SEGUE_MUTANT(resume_takes) && same)
			return SEGUE_LEASE_TAKE;
		return same && request->holder_left ? SEGUE_LEASE_WAIT : SEGUE_LEASE_REFUSED;
	default:
		return same && request->take ? SEGUE_LEASE_TAKE : SEGUE_LEASE_BUSY;
	}
}

enum segue_lease_answer segue_lease_ask(struct segue_lease *lease,
	const struct segue_lease_request *request, uint64_t durable,
	const uint8_t fresh_token[SEGUE_TOKEN_BYTES])
{
	bool offer = request->mode == SEGUE_ATTACH_OFFER;
	bool by_library = offer || request->mode == SEGUE_ATTACH_RESUME;
	bool latest = lease->token_valid && token_equal(lease->token, request->token);

	if (SEGUE_MUTANT(offer_of_any_token))
		latest = true;

	switch (lease->state) {
	case SEGUE_LEASE_GRANTING:
	case SEGUE_LEASE_ENDING:
		return SEGUE_LEASE_WAIT;
	case SEGUE_LEASE_HELD:
		return ask_of_held(lease, request, latest);
	case SEGUE_LEASE_RESERVED:
		if (!(offer ? latest : segue_holder_same(&lease->holder, &request->holder)))
			return by_library ? SEGUE_LEASE_REFUSED : SEGUE_LEASE_BUSY;
		break;
	case SEGUE_LEASE_FREE:
		break;
	}
	if (offer && (!latest || request->step < durable))
		return SEGUE_LEASE_REFUSED;
	lease->before.state = lease->state;
	lease->before.token_valid = lease->token_valid;
	lease->before.holder = lease->holder;
	memcpy(lease->before.token, lease->token, SEGUE_TOKEN_BYTES);
	lease->state = SEGUE_LEASE_GRANTING;
	lease->generation++;
	lease->holder = request->holder;
	lease->token_valid = true;
	memcpy(lease->token, fresh_token, SEGUE_TOKEN_BYTES);
	if (SEGUE_MUTANT(grant_not_durable))
		lease->state = SEGUE_LEASE_HELD;
	return SEGUE_LEASE_GRANT;
}

void segue_lease_granted(struct segue_lease *lease, bool ok)
{
	assert(lease->state == SEGUE_LEASE_GRANTING || SEGUE_MUTANT(grant_not_durable));
	if (ok) {
		lease->state = SEGUE_LEASE_HELD;
		return;
	}
	lease->state = lease->before.state;
	lease->token_valid = lease->before.token_valid;
	lease->holder = lease->before.holder;
	memcpy(lease->token, lease->before.token, SEGUE_TOKEN_BYTES);
}

bool segue_lease_end(struct segue_lease *lease)
{
	if (lease->state != SEGUE_LEASE_HELD)
		return false;
	lease->state = SEGUE_LEASE_ENDING;
	return true;
}

void segue_lease_taken(struct segue_lease *lease)
{
	assert(lease->state == SEGUE_LEASE_ENDING);
	lease->state = SEGUE_LEASE_FREE;
	/* What it could offer has been taken: nothing newer can come from it. */
	lease->token_valid = false;
}

bool segue_lease_expire(struct segue_lease *lease, enum segue_presence presence, int64_t now)
{
	if (lease->state != SEGUE_LEASE_RESERVED)
		return false;
	if (presence != SEGUE_PRESENCE_GONE && now < lease->reserved_until)
		return false;
	lease->state = SEGUE_LEASE_FREE;
	return true;
}
