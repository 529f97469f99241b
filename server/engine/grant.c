/* What a lease consists of while it is in force: made, stored, taken down. */
#include "engine/grant.h"

#include <assert.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/barrier.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/kept.h"
#include "core/wait.h"
#include "engine/joining.h"
#include "engine/keeping.h"
#include "engine/offer.h"
#include "engine/size.h"
#include "store/checkpoints.h"
#include "store/finals.h"
#include "store/lanes.h"
#include "store/token.h"

/* What is being put together. */
struct making {
	const struct segue_grant_order *order;
	struct segue_image *image;    /* the lane as the grant will find it */
	struct segue_account account; /* the lane as the store has it */
	struct segue_kept *kept;      /* ended rows that an offer brings */
	bool replaced;                /* the image is not what the store has */
	int64_t committed_ms;         /* when the position was committed */
	uint64_t origin;              /* of the image, */
	uint64_t last_origin;         /* and of what the last lease has committed beyond it */
};

/*
 * Whether the lane can go on with a batch size of its own, should the position have one: what is
 * not stored is run anew from its beginning, with the stream's own.
 */
static int size_fits(const struct segue_grant_order *order, const struct segue_position *position)
{
	if (!position->sized)
		return 0;
	if (!order->spec->persist)
		return segue_fail(SEGUE_EINVAL,
			"with persist = false a lane has the stream's batch_size alone: open the "
			"stream with persist = true");
	return segue_size_check(
		order->spec, order->live, segue_plan_batch_size(&order->plan, position));
}

/* ---- Where the lane stands ---- */

static int empty_image(struct making *making)
{
	const struct segue_grant_order *order = making->order;

	segue_image_destroy(making->image);
	making->image = segue_image_create(&order->plan, NULL, segue_row_size(order->spec));
	return making->image ? 0 : segue_fail(SEGUE_ENOMEM, "no memory for a lane");
}

static int refuse_start(
	const struct segue_lane_record *record, const struct segue_spec *spec, uint32_t lane)
{
	time_t seconds = (time_t)(record->committed_ms / 1000);
	char date[64] = "?";
	struct tm parts;

	if (localtime_r(&seconds, &parts))
		strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &parts);
	return segue_fail(SEGUE_ESTART,
		"stream '%s', lane %u: the store already holds a position, step %" PRIu64
		", committed "
		"%s. "
		"Say what is meant: start=\"continue\" goes on from there, start=\"fresh\" drops "
		"position and states, load_state_dict() goes back to a checkpoint",
		spec->name, lane, record->position->step, date);
}

/* The lane as the store has it, or an empty one. */
static int load_stored(struct making *making)
{
	const struct segue_grant_order *order = making->order;
	struct segue_lane_record record;

	if (!order->spec->persist)
		return empty_image(making);
	int rc = segue_lanes_load(order->store, order->place, &record);
	if (rc == SEGUE_ENOTFOUND)
		return empty_image(making);
	if (rc)
		return rc;
	making->committed_ms = record.committed_ms;
	making->origin = record.origin;
	making->last_origin = segue_keeping_origin(order->spec, record.token);
	if (order->mode == SEGUE_ATTACH_NONE && record.position->step > 0)
		rc = refuse_start(&record, order->spec, order->place.lane);
	/* The states of rows that go need not be whole for that. */
	if (!rc && (order->mode == SEGUE_ATTACH_FRESH || order->mode == SEGUE_ATTACH_RESTORE))
		rc = segue_lanes_outline(
			&order->plan, record.position, segue_row_size(order->spec), &making->image);
	else if (!rc)
		rc = segue_lanes_load_image(order->store, order->place, &order->plan,
			record.position, segue_row_size(order->spec), &making->image);
	free(record.position);
	if (!rc)
		rc = segue_account_init(&making->account, making->image->live_count);
	if (!rc)
		segue_account_settle(&making->account, making->image);
	return rc;
}

/* ---- Tokens ---- */

/* Whether only the number of epochs that the two streams were made with differs. */
static bool made_otherwise(const struct segue_spec *spec, const struct segue_token_record *head)
{
	struct segue_spec as_that = *spec; /* what it points to is the other's */
	uint64_t hash[2];

	as_that.epochs = head->ends.epochs[0];
	segue_spec_hash(&as_that, hash);
	return head->ends.count > 0 && memcmp(hash, head->spec_hash, sizeof(hash)) == 0;
}

static int fail_made_otherwise(const struct segue_spec *spec, const struct segue_token_record *head)
{
	uint64_t made = head->ends.epochs[0];
	bool grows = made != 0 && (spec->epochs == 0 || spec->epochs > made);
	char ours[24], theirs[24];

	segue_epochs_print(spec->epochs, ours);
	segue_epochs_print(made, theirs);
	return segue_fail(SEGUE_ETOKEN,
		"the token is of stream '%s' with another spec: that was made with epochs=%s, and "
		"this one with epochs=%s: rows end where a stream ends, also if it grows later. "
		"Make a stream of "
		"another name with epochs=%s instead%s%s",
		head->stream, theirs, ours, theirs,
		grows ? ", and, to go on, open it again with epochs=" : "", grows ? ours : "");
}

/*
 * The token's position stands behind ends of its stream's input: they must be ours. Where each
 * epoch drains, they all end alike, and where the input ended makes no difference.
 */
static int ends_fit(const struct segue_grant_order *order, const struct segue_token_record *head,
	const struct segue_position *position)
{
	const struct segue_ends *ours = &order->plan.ends, *theirs = &head->ends;
	bool drains = order->plan.epoch_end == SEGUE_EPOCH_DRAIN;
	char texts[2][SEGUE_ENDS_TEXT], wanted[24];
	uint32_t next = ours->count < theirs->count ? ours->count : theirs->count - 1;

	if (theirs->count == 0 || segue_ends_agree(ours, theirs, theirs->count) ||
		(drains && position->epoch < segue_ends_last(ours)))
		return 0;
	segue_ends_print(theirs, texts[0]);
	segue_ends_print(ours, texts[1]);
	segue_epochs_print(theirs->epochs[drains ? theirs->count - 1 : next], wanted);
	if (drains || segue_ends_agree(ours, theirs, ours->count))
		return segue_fail(SEGUE_ETOKEN,
			"the token is of epoch %" PRIu64
			" of a stream whose epochs were %s, and here they are %s: open this "
			"stream with epochs=%s first%s",
			position->epoch, texts[0], texts[1], wanted,
			next + 1 < theirs->count && !drains ? ", then with the ones that follow"
							    : "");
	return segue_fail(SEGUE_ETOKEN,
		"the token is of a stream that grew otherwise: its epochs were %s, here they are "
		"%s, and what comes after such an end depends on it. A stream of another name "
		"that grows as that one did takes the token",
		texts[0], texts[1]);
}

static int token_fits(const struct segue_grant_order *order, const struct segue_token_record *head,
	const struct segue_position *position)
{
	const struct segue_spec *spec = order->spec;
	uint64_t hash[2];

	segue_spec_hash(spec, hash);
	if (memcmp(hash, head->spec_hash, sizeof(hash)) != 0 && made_otherwise(spec, head))
		return fail_made_otherwise(spec, head);
	if (memcmp(hash, head->spec_hash, sizeof(hash)) != 0)
		return segue_fail(SEGUE_ETOKEN,
			"the token is of stream '%s' with another spec (features, states and their "
			"initial values, num_unroll, shuffle, seed, first_epoch, the epochs that "
			"it was made with, pad, on_error, keep_final, key, allow_surplus or record "
			"differ): it belongs to a stream that is made as that one was",
			head->stream);
	if (memcmp(order->fingerprint, head->fingerprint, sizeof(head->fingerprint)) != 0)
		return segue_fail(SEGUE_ETOKEN,
			"the token was made over another data set (fingerprint %016" PRIx64
			"%016" PRIx64 ", here %016" PRIx64 "%016" PRIx64
			"): give the stream the files that it was made over, in their order then",
			head->fingerprint[1], head->fingerprint[0], order->fingerprint[1],
			order->fingerprint[0]);
	if (head->lanes != spec->lanes || head->lane != order->place.lane)
		return segue_fail(SEGUE_ETOKEN,
			"the token is of lane %u of %u, this is lane %u of %u: %s", head->lane,
			head->lanes, order->place.lane, spec->lanes,
			head->lanes == spec->lanes
				? "each lane has its own token"
				: "it belongs to a stream that is made with as many lanes");
	if (head->batch_size != spec->batch_size)
		return segue_fail(SEGUE_ETOKEN,
			"the token has batch_size %u, the stream %u: it belongs to a stream that "
			"is made with batch_size=%u",
			head->batch_size, spec->batch_size, head->batch_size);
	if (head->row_size != segue_row_size(spec))
		return segue_fail(SEGUE_ETOKEN,
			"the token has %" PRIu64
			" bytes of states a row, the stream %zu: it belongs to a stream with other "
			"states",
			(uint64_t)head->row_size, (size_t)segue_row_size(spec));
	return ends_fit(order, head, position);
}

/* Whether the log went on as it did when the token was made. */
static int log_fits(const struct segue_grant_order *order, const struct segue_token_record *head,
	const struct segue_position *position)
{
	uint64_t hash[2];

	if (!order->live)
		return 0;
	int rc = segue_live_holds(order->live, &order->plan, position);
	if (!rc)
		rc = segue_live_hash(order->live, &order->plan, position, hash);
	if (rc && rc != SEGUE_ENOTFOUND)
		return rc;
	if (rc)
		return segue_fail_within(
			SEGUE_ETOKEN, "the token refers to sequences that the log does not have");
	return memcmp(hash, head->log_hash, sizeof(hash)) == 0
		       ? 0
		       : segue_fail(SEGUE_ETOKEN,
				 "the token was made of a log that went on otherwise: other "
				 "sequences have been inserted since than those that the lane had "
				 "seen. It belongs to the store that it was made in");
}

static int read_token(
	const struct segue_grant_order *order, struct segue_image **out, uint64_t *origin)
{
	struct segue_token_record head;
	struct segue_image *image = NULL;

	int rc = segue_token_decode(&order->plan, order->bulk, order->bulk_size, &head, &image);
	if (!rc) {
		free(head.position);
		rc = token_fits(order, &head, image->position);
		if (!rc)
			rc = log_fits(order, &head, image->position);
		if (!rc)
			rc = segue_keeping_fits(order, &head, image->position->step);
		if (!rc && size_fits(order, image->position))
			rc = segue_fail_within(SEGUE_ETOKEN,
				"the token is of a lane that was given another batch_size");
	}
	if (rc) {
		segue_image_destroy(image);
		return segue_fail_within(
			rc, "stream '%s', lane %u", order->spec->name, order->place.lane);
	}
	*out = image;
	*origin = head.origin;
	return 0;
}

int segue_grant_check_token(const struct segue_grant_order *order, uint64_t *step)
{
	struct segue_plan plan = {0};
	struct segue_image *image;
	uint64_t origin;
	int rc = read_token(order, &image, &origin);

	if (rc)
		return rc;
	rc = segue_plan_init(&plan, &order->plan);
	if (!rc)
		rc = segue_plan_seek(&plan, image->position);
	if (rc == SEGUE_EPROTOCOL)
		rc = segue_fail_within(SEGUE_ETOKEN,
			"stream '%s', lane %u: the token cannot be of this stream and its data (is "
			"tail or epoch_end another?)",
			order->spec->name, order->place.lane);
	segue_plan_finish(&plan);
	*step = image->position->step;
	segue_image_destroy(image);
	return rc;
}

static int from_token(struct making *making)
{
	segue_image_destroy(making->image);
	making->image = NULL;
	making->replaced = true;
	return read_token(making->order, &making->image, &making->origin);
}

/* ---- Offers, and another batch size ---- */

static int from_offer(struct making *making)
{
	struct segue_image *image = NULL;
	int rc = segue_offer_follow(making->order, making->image, &image, &making->kept);

	if (!image)
		return rc;
	segue_image_destroy(making->image);
	making->image = image;
	making->replaced = true;
	making->origin = making->last_origin;
	return rc;
}

/* The lane as the store has it, to be put with its position alone. */
static int resize(struct making *making)
{
	const struct segue_grant_order *order = making->order;
	struct segue_position *position = making->image->position;

	if (order->step != position->step)
		return segue_fail(SEGUE_EFENCED,
			"lane %u: another batch_size is asked for at step %" PRIu64
			" where %" PRIu64
			" is stored: somebody else has had it. Make a new loader, or go back to a "
			"checkpoint with load_state_dict()",
			order->place.lane, order->step, position->step);
	return segue_plan_set_batch_size(&order->plan, position, order->batch_size);
}

/* ---- The grant itself ---- */

static int find_image(struct making *making)
{
	int rc = load_stored(making);

	if (rc)
		return rc;
	switch (making->order->mode) {
	case SEGUE_ATTACH_NONE:
	case SEGUE_ATTACH_CONTINUE:
	case SEGUE_ATTACH_RESUME:
		return 0;
	case SEGUE_ATTACH_FRESH:
		making->replaced = true;
		making->origin = 0;
		return empty_image(making);
	case SEGUE_ATTACH_RESTORE:
		return from_token(making);
	case SEGUE_ATTACH_OFFER:
		return from_offer(making);
	case SEGUE_ATTACH_RESIZE:
		return resize(making);
	case SEGUE_ATTACH_CHECK:
		break;
	}
	return segue_fail(SEGUE_EPROTOCOL, "attach mode %d", making->order->mode);
}

/* Of the log: it may have been given up since, or before, of a lane that nobody waited for. */
static int add_place(const struct making *making, struct segue_ops *ops)
{
	const struct segue_grant_order *order = making->order;
	int rc = segue_live_holds(order->live, &order->plan, making->image->position);

	if (rc == SEGUE_ENOTFOUND)
		return segue_fail_within(
			order->mode == SEGUE_ATTACH_RESTORE ? SEGUE_ETOKEN : SEGUE_ESTART,
			"stream '%s', lane %u", order->spec->name, order->place.lane);
	return rc ? rc : segue_live_put(order->live, ops);
}

/* The lane as the store will have it. On the committer's thread. */
static int add_grant(void *arg, struct segue_ops *ops)
{
	struct making *making = arg;
	const struct segue_grant_order *order = making->order;
	const struct segue_image *image = making->image;
	struct segue_lane_record record = order->record;
	int rc;

	record.held = true;
	record.origin = making->origin;
	if (making->replaced)
		making->committed_ms = segue_unix_ms();
	record.committed_ms = making->committed_ms;
	/* Who asked is gone: then nothing has happened. relaxed: a hint, and the last look at it */
	if (atomic_load_explicit(order->given_up, memory_order_relaxed))
		return segue_fail(SEGUE_EGONE, "nobody waits for the lane any more");
	record.position = image->position;
	rc = order->live ? add_place(making, ops) : 0;
	if (rc)
		return rc;
	if (!making->replaced)
		return segue_lanes_put(ops, order->place, &record);
	if (order->mode == SEGUE_ATTACH_FRESH)
		rc = segue_lanes_fresh(ops, order->store, order->place);
	else
		rc = segue_lanes_clear(ops, order->place);
	if (!rc && order->mode == SEGUE_ATTACH_RESTORE)
		rc = segue_lanes_rewind(ops, order->store, order->place, image->position->step);
	if (!rc)
		rc = segue_finals_put(ops, order->place, image->row_size, making->kept,
			making->account.durable, image->position->step);
	return rc ? rc : segue_lanes_put_image(ops, order->place, &record, image, &making->account);
}

/* Puts the grant, and the image where it is new, on disk: nothing of it is sent before. */
static int store_grant(struct making *making)
{
	struct segue_change change = {
		.place = making->order->place, .build = add_grant, .arg = making};

	if (!making->order->spec->persist)
		return 0;
	if (making->order->live && making->replaced) {
		int rc = segue_live_await(
			making->order->live, &making->order->plan, making->image->position);
		if (rc)
			return rc;
	}
	int rc = segue_changes_make(making->order->changes, &change);
	if (!rc && making->order->live)
		segue_live_stored(making->order->live);
	return rc;
}

static int build(struct making *making, struct segue_grant *grant)
{
	const struct segue_grant_order *order = making->order;

	uint32_t places = segue_plan_places(&order->plan, making->image->position);

	int rc = segue_account_init(&grant->account, places);
	if (!rc)
		rc = segue_size_pay(order->spec, places, order->source->ops->key_max(order->source),
			&grant->purse, &grant->paid);
	if (!rc)
		rc = segue_grant_find_feed(order, making->image, places, grant);
	if (!rc)
		rc = store_grant(making);
	if (!rc)
		segue_account_settle(&grant->account, making->image);
	return rc;
}

int segue_grant_make(const struct segue_grant_order *order, struct segue_grant **out)
{
	struct making making = {.order = order};
	struct segue_grant *grant = calloc(1, sizeof(*grant));

	making.committed_ms = segue_unix_ms();
	if (!grant)
		return segue_fail(SEGUE_ENOMEM, "no memory for a lane");
	*grant = (struct segue_grant){
		.carry_shm = SEGUE_SHM_NONE,
		.page_shm = SEGUE_SHM_NONE,
		.event = -1,
		.record = order->record,
		.place = order->place,
		.keeping = {order->store, order->place, segue_row_size(order->spec)},
		.spec = order->spec,
		.live = order->live,
		.purse = order->purse,
	};
	grant->record.position = NULL;
	grant->record.held = true;
	int rc = find_image(&making);
	if (!rc)
		rc = size_fits(order, making.image->position);
	if (!rc)
		rc = build(&making, grant);
	if (!rc) {
		grant->step = making.image->position->step;
		grant->origin = making.origin;
		grant->durable_ms = order->spec->persist ? making.committed_ms : 0;
		grant->checkpoint_ms = order->spec->persist ? segue_checkpoints_newest_ms(
								      order->store, order->place)
							    : 0;
		grant->rows = segue_position_count(making.image->position);
		grant->batch_size = segue_plan_batch_size(&order->plan, making.image->position);
	}
	segue_image_destroy(making.image);
	segue_account_finish(&making.account);
	while (making.kept) {
		struct segue_kept *next = making.kept->next;
		free(making.kept);
		making.kept = next;
	}
	if (rc) {
		segue_grant_destroy(grant);
		return rc;
	}
	*out = grant;
	return 0;
}

void segue_grant_go(struct segue_grant *grant, enum segue_grant_state to)
{
	static const unsigned ways[] = {
		[SEGUE_GRANT_MADE] = 1u << SEGUE_GRANT_WATCHED,
		[SEGUE_GRANT_WATCHED] = 1u << SEGUE_GRANT_ENDING | 1u << SEGUE_GRANT_LEAVING,
		[SEGUE_GRANT_ENDING] = 1u << SEGUE_GRANT_FORGOTTEN,
		[SEGUE_GRANT_LEAVING] = 1u << SEGUE_GRANT_FORGOTTEN,
		[SEGUE_GRANT_FORGOTTEN] = 0,
	};

	assert(ways[grant->state] & 1u << to);
	grant->state = to;
}

/* One that is refused stays so, whatever becomes of the storage. */
static void tell_holder(struct segue_grant *grant, int code, const char *detail, bool for_good)
{
	pthread_mutex_lock(&grant->filler->lock);
	bool settled = grant->refused, shared = grant->filler->feed.subscriber_count > 1;
	grant->refused = settled || for_good;
	if (!settled) {
		segue_carry_storage_failed(&grant->carry, code, detail);
		segue_feed_ring(&grant->filler->feed);
	}
	pthread_mutex_unlock(&grant->filler->lock);
	/* What the store says of one lane of one group does not hold up the others. */
	if (!settled && !(for_good && shared))
		segue_filler_stall(grant->filler, code != 0);
}

void segue_grant_storage(struct segue_grant *grant, int code, const char *detail)
{
	tell_holder(grant, code, detail, false);
}

void segue_grant_refuse(struct segue_grant *grant, int code, const char *detail)
{
	tell_holder(grant, code, detail, true);
}

int segue_grant_failure(struct segue_grant *grant, char text[SEGUE_ERROR_TEXT])
{
	pthread_mutex_lock(&grant->filler->lock);
	/* no pair: the server's own word, under the lock */
	int code = -(int)segue_load_relaxed(&grant->carry.page->error);
	memcpy(text, grant->carry.page->error_text, SEGUE_ERROR_TEXT);
	pthread_mutex_unlock(&grant->filler->lock);
	text[SEGUE_ERROR_TEXT - 1] = '\0';
	return code;
}

bool segue_grant_owes(struct segue_grant *grant)
{
	pthread_mutex_lock(&grant->filler->lock);
	bool sound = segue_carry_observe(&grant->carry, grant->filler->feed.published);
	/* no pair: the server's own word, under the lock */
	bool owes =
		sound && grant->carry.committed > segue_load_relaxed(&grant->carry.page->durable);
	pthread_mutex_unlock(&grant->filler->lock);
	return owes;
}

uint64_t segue_grant_origin(const struct segue_grant *grant, uint64_t step)
{
	return step > grant->step ? segue_keeping_origin(grant->spec, grant->record.token)
				  : grant->origin;
}

void segue_grant_remind(struct segue_grant *grant)
{
	pthread_mutex_lock(&grant->filler->lock);
	if (grant->refused)
		segue_carry_ring(&grant->carry);
	pthread_mutex_unlock(&grant->filler->lock);
}

void segue_grant_destroy(struct segue_grant *grant)
{
	if (!grant)
		return;
	segue_grant_leave_feed(grant);
	segue_grant_finish_memory(grant);
	if (grant->paid)
		grant->purse.give(grant->purse.arg, grant->paid);
	segue_account_finish(&grant->account);
	free(grant);
}
