/* Replicas that follow a lease: served, watched, let go. */
#include "stream/replica.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "core/barrier.h"
#include "core/error.h"
#include "core/wait.h"
#include "lane/follower.h"
#include "session/request.h"
#include "stream/drop.h"
#include "stream/opening.h"

enum { FOLLOWER_DESCRIPTORS = 2, DEFAULT_TIMEOUT_S = 10, LOOK_MS = 20 };

struct segue_replica {
	LIST_ENTRY(segue_replica) link; /* waiting, or following */
	struct segue_ledger *ledger;
	struct segue_opening *opening; /* used */
	struct segue_session *session;
	uint32_t number, count;
	/* While it waits: */
	uint64_t serial, step, generation;
	int64_t deadline;
	/* When it follows: */
	uint64_t lease_id;
	struct segue_account *account; /* pays; held */
	struct segue_shm page;
	struct segue_watch event;
	struct segue_follower follower;
};

static const char *stream_name(const struct segue_replica *replica)
{
	return replica->ledger->stream->spec->name;
}

static void drop(struct segue_replica *replica)
{
	LIST_REMOVE(replica, link);
	replica->opening->uses--;
	replica->session->lanes--;
	free(replica);
}

static void refuse(struct segue_replica *replica, int code)
{
	segue_session_fail(replica->session, replica->serial, code);
	drop(replica);
}

/* " (NAME)": as it said itself, for it may have ended. */
static void name_program(const struct segue_replica *replica, char out[64])
{
	const char *name = replica->session->program;
	size_t length =
		(size_t)snprintf(out, 64, "%s%.50s%s", *name ? " (" : "", name, *name ? ")" : "");

	for (size_t i = 0; i < length; i++)
		out[i] = (char)((unsigned char)out[i] < ' ' || out[i] == 127 ? '?' : out[i]);
}

/* ---- One that follows goes ---- */

static const struct segue_replica *find_number(const struct segue_ledger *ledger, uint32_t number)
{
	const struct segue_replica *one;

	LIST_FOREACH(one, &ledger->replicas.following, link)
		if (one->number == number)
			break;
	return one;
}

/* Tells the holder who follows it, and who does not. */
static void tell_holder(struct segue_ledger *ledger, const char *gone)
{
	char missing[SEGUE_GONE_TEXT] = "";
	bool there[SEGUE_REPLICAS_MAX] = {false};
	const struct segue_replica *one;
	uint32_t count = 0;
	size_t used = 0;

	LIST_FOREACH(one, &ledger->replicas.following, link)
		there[one->number] = true;
	for (uint32_t i = 1; i < ledger->replicas.wanted; i++) {
		if (there[i])
			count++;
		else if (used < sizeof(missing))
			used += (size_t)snprintf(missing + used, sizeof(missing) - used,
				used ? ", %" PRIu32 : "%" PRIu32, i);
	}
	pthread_mutex_lock(&ledger->grant->filler->lock);
	segue_followers_tell(&ledger->grant->carry, count, missing, gone);
	pthread_mutex_unlock(&ledger->grant->filler->lock);
}

static void free_memory(struct segue_replica *replica)
{
	segue_account_give(replica->account, SEGUE_LIMIT_MEMORY, replica->page.size);
	segue_account_give(replica->account, SEGUE_LIMIT_DESCRIPTORS, FOLLOWER_DESCRIPTORS);
	segue_account_release(replica->account);
	segue_shm_destroy(&replica->page);
	if (replica->event.fd >= 0)
		close(replica->event.fd);
}

/* `why`: what it did, for its holder; NULL: the lease itself is over. */
static void part(struct segue_replica *replica, const char *why)
{
	struct segue_ledger *ledger = replica->ledger;
	struct segue_filler *filler = ledger->grant->filler;
	char text[SEGUE_GONE_TEXT], program[64];

	if (why) {
		name_program(replica, program);
		snprintf(text, sizeof(text), "replica %" PRIu32 ", process %ld%s, %s",
			replica->number, (long)replica->session->holder.pid, program, why);
	}
	segue_loop_remove(ledger->stream->server->loop, &replica->event);
	pthread_mutex_lock(&filler->lock);
	segue_followers_remove(&ledger->grant->carry, &replica->follower);
	pthread_mutex_unlock(&filler->lock);
	free_memory(replica);
	drop(replica);
	tell_holder(ledger, why ? text : NULL);
	segue_filler_kick(filler); /* it may have been waited for */
}

static void tell_operator(const struct segue_replica *replica, const char *what)
{
	char program[64];

	name_program(replica, program);
	fprintf(stderr, "segue: lane %u of stream '%s': replica %" PRIu32 ", process %ld%s, %s\n",
		replica->ledger->place.lane, stream_name(replica), replica->number,
		(long)replica->session->holder.pid, program, what);
}

/* ---- One that waits is served ---- */

/* Of what serving one says: it may be otherwise in a moment. */
static bool may_pass(int rc)
{
	return rc == SEGUE_EREPLICA || rc == SEGUE_EBUSY;
}

/* Of the lane that nobody holds: what is known of who had it. */
static const char *name_absent(const struct segue_ledger *ledger, char out[96])
{
	const struct segue_lease *lease = &ledger->lease;
	enum segue_presence presence = segue_process_presence(&lease->holder);
	long pid = (long)lease->holder.pid;

	if (lease->state == SEGUE_LEASE_GRANTING || !TAILQ_EMPTY(&ledger->waiting))
		return "a process asks for the lane, and does not have it yet";
	if (lease->state == SEGUE_LEASE_ENDING)
		return "the lane is being given back";
	if (pid == 0)
		return "no process has ever taken the lane";
	snprintf(out, 96, "process %ld, which had the lane last, %s", pid,
		lease->state == SEGUE_LEASE_RESERVED ? "has not come back to this server"
		: presence == SEGUE_PRESENCE_GONE    ? "has ended"
		: presence == SEGUE_PRESENCE_ALIVE   ? "has given it back"
						     : "has ended, or given it back");
	return out;
}

/* Whether there is what it is to follow. */
static int check_lease(const struct segue_replica *replica)
{
	const struct segue_ledger *ledger = replica->ledger;
	const struct segue_replica *other = find_number(ledger, replica->number);
	uint32_t lane = ledger->place.lane;

	if (ledger->lease.state != SEGUE_LEASE_HELD || !ledger->grant) {
		char absent[96];
		const struct segue_ledger_group *group =
			segue_ledgers_group(&ledger->stream->ledgers, ledger->place.group);
		const char *name = group ? group->name : "";
		return segue_fail(SEGUE_EREPLICA,
			"replica %" PRIu32 " of lane %u of stream '%s'%s%s%s waits for replica 0: "
			"%s. Start it, or look why it has ended",
			replica->number, lane, stream_name(replica), *name ? ", group '" : "", name,
			*name ? "'" : "", name_absent(ledger, absent));
	}
	if (ledger->replicas.wanted != replica->count)
		return segue_fail(SEGUE_EREPLICA,
			"lane %u of stream '%s' is held by process %ld with replicas=%" PRIu32
			", replica %" PRIu32 " was made with replicas=%" PRIu32
			": give all ranks the same",
			lane, stream_name(replica), (long)ledger->lease.holder.pid,
			ledger->replicas.wanted, replica->number, replica->count);
	if (other) {
		char program[64];
		name_program(other, program);
		return segue_fail(SEGUE_EBUSY,
			"replica %" PRIu32 " of lane %u of stream '%s' is process %ld%s: give "
			"each rank its own number, or close that loader",
			replica->number, lane, stream_name(replica),
			(long)other->session->holder.pid, program);
	}
	if (replica->opening->spec->depth != ledger->grant->filler->geometry.depth)
		return segue_fail(SEGUE_EINVAL,
			"replica %" PRIu32 " of stream '%s' was opened with depth=%" PRIu32
			", replica 0 with depth=%" PRIu32 ": open it alike in all ranks",
			replica->number, stream_name(replica), replica->opening->spec->depth,
			ledger->grant->filler->geometry.depth);
	return 0;
}

/*
 * With the filler's lock: the step at which it begins, or goes on. A batch that its holder has open
 * when the lease changes comes again to both.
 */
static int find_step(const struct segue_replica *replica, uint64_t *step)
{
	const struct segue_grant *grant = replica->ledger->grant;
	uint64_t committed = grant->carry.committed;
	bool same = replica->generation == grant->record.generation;

	if (replica->step == SEGUE_NEVER)
		*step = committed;
	else if (same)
		*step = replica->step;
	else if (replica->step < grant->step)
		*step = grant->step;
	else
		*step = replica->step > committed ? committed : replica->step;
	uint64_t at = replica->step == SEGUE_NEVER ? *step : replica->step;
	if (at > committed + 1 || !segue_feed_reaches(&grant->filler->feed, *step))
		return segue_fail(SEGUE_ESTALE,
			"replica %" PRIu32 " of lane %u of stream '%s' stands at step %" PRIu64
			", and replica 0 at step %" PRIu64
			", which it was set to: give all ranks the same token "
			"(load_state_dict), or make new loaders",
			replica->number, replica->ledger->place.lane, stream_name(replica), at,
			committed);
	return 0;
}

static int make_memory(struct segue_replica *replica)
{
	const struct segue_geometry *geometry = &replica->ledger->grant->filler->geometry;
	struct segue_account *account = replica->session->account;

	replica->page = SEGUE_SHM_NONE;
	replica->event.fd = -1;
	int rc = segue_shm_create(
		"segue-follower", SEGUE_FOLLOWER_SIZE, SEGUE_SHM_WRITE, &replica->page);
	if (rc)
		return rc;
	rc = segue_account_take(account, SEGUE_LIMIT_MEMORY, replica->page.size);
	if (!rc) {
		rc = segue_sessions_take(replica->session->server, account, SEGUE_LIMIT_DESCRIPTORS,
			FOLLOWER_DESCRIPTORS);
		if (rc)
			segue_account_give(account, SEGUE_LIMIT_MEMORY, replica->page.size);
	}
	if (rc) {
		segue_shm_destroy(&replica->page);
		return rc;
	}
	replica->account = segue_account_hold(account);
	struct segue_carry_header *words = replica->page.map;
	segue_segment_init(&words->segment, SEGUE_SEGMENT_FOLLOWER, SEGUE_FOLLOWER_SIZE, geometry);
	replica->event.fd = segue_event_create();
	if (replica->event.fd >= 0)
		return 0;
	rc = replica->event.fd;
	free_memory(replica);
	return rc;
}

/* The follower has released enough, or is about to sleep. */
static void event_ready(struct segue_watch *watch, uint32_t events)
{
	struct segue_replica *replica = SEGUE_CONTAINER(watch, struct segue_replica, event);
	struct segue_filler *filler = replica->ledger->grant->filler;

	(void)events;
	segue_event_clear(watch->fd);
	/* Words that cannot be are seen here: the tick that follows throws it out. */
	pthread_mutex_lock(&filler->lock);
	segue_followers_observe(&replica->ledger->grant->carry, filler->feed.published);
	pthread_mutex_unlock(&filler->lock);
	segue_filler_kick(filler);
}

/* Where one begins. */
struct beginning {
	uint64_t step;
	uint32_t rows, taken;
};

static int send_following(struct segue_replica *replica, const struct beginning *at)
{
	const struct segue_grant *grant = replica->ledger->grant;
	const struct segue_filler *filler = grant->filler;
	const struct segue_message message = {
		.type = SEGUE_MESSAGE_FOLLOWING,
		.serial = replica->serial,
		.attached =
			{
				.lease = replica->lease_id,
				.generation = grant->record.generation,
				.step = at->step,
				.rows = at->rows,
				.taken = at->taken,
				.places = filler->geometry.places,
				.batch_size = grant->batch_size,
			},
	};
	int reader, rc = segue_shm_reader(&grant->carry_shm, &reader);

	if (rc)
		return rc;
	const int fds[5] = {
		filler->ring.fd, reader, grant->page_shm.fd, replica->event.fd, replica->page.fd};
	segue_session_send(replica->session, &message, fds, 5);
	close(reader);
	return 0;
}

/*
 * How often the holder, as it says itself, had taken batch `step` when it had taken all below
 * `taken`. It takes none until all are there, so what it takes for this one comes after this look.
 */
static uint32_t times_taken(const struct segue_carry_header *words, uint64_t step, uint64_t taken)
{
	const _Atomic uint32_t *again = &words->again[step % SEGUE_DEPTH_MAX];
	/* acquire: pairs with segue_follow_tell (client/follow.c) */
	uint32_t times = segue_load_acquire(again);

	return taken <= step ? 0 : times < UINT32_MAX ? times + 1 : times;
}

/* Adds it to those that the gate waits for. */
static int join(struct segue_replica *replica, struct beginning *at)
{
	struct segue_grant *grant = replica->ledger->grant;
	struct segue_filler *filler = grant->filler;

	pthread_mutex_lock(&filler->lock);
	/* acquire: pairs with segue_follow_tell (client/follow.c); before `committed` is read */
	uint64_t taken = segue_load_acquire(&grant->carry.words->taken);
	segue_carry_observe(&grant->carry, filler->feed.published);
	int rc = find_step(replica, &at->step);
	if (!rc) {
		const struct segue_feed_entry *entry = segue_feed_entry(&filler->feed, at->step);
		at->rows = entry ? segue_position_count(entry->position) : 0;
		at->taken = replica->step == SEGUE_NEVER
				    ? times_taken(grant->carry.words, at->step, taken)
				    : 0;
		segue_followers_add(&grant->carry, &replica->follower, replica->page.map, at->step);
	}
	pthread_mutex_unlock(&filler->lock);
	return rc;
}

/* 0: it follows, or has been told why it does not. */
static int serve(struct segue_replica *replica)
{
	struct segue_ledger *ledger = replica->ledger;
	struct segue_server *server = ledger->stream->server;
	struct beginning at;

	int rc = check_lease(replica);
	if (!rc)
		rc = make_memory(replica);
	if (rc)
		return rc;
	rc = join(replica, &at);
	if (rc) {
		free_memory(replica);
		return rc;
	}
	LIST_REMOVE(replica, link);
	LIST_INSERT_HEAD(&ledger->replicas.following, replica, link);
	replica->lease_id = ++server->last_id;
	replica->event.ready = event_ready;
	rc = segue_loop_add(server->loop, &replica->event, EPOLLIN);
	if (!rc)
		rc = send_following(replica, &at);
	if (rc) {
		segue_session_fail(replica->session, replica->serial, rc);
		part(replica, NULL);
		return 0;
	}
	tell_holder(ledger, NULL);
	return 0;
}

/* Serves it, lets it wait, or refuses it. `now`: 0 if its time cannot be up. */
static void look_at_waiting(struct segue_replica *replica, int64_t now)
{
	struct segue_loop *loop = replica->ledger->stream->server->loop;
	int rc = serve(replica);

	if (rc && (!may_pass(rc) || now >= replica->deadline))
		refuse(replica, rc);
	else if (rc)
		segue_loop_tick_within(loop, segue_now_ns() + LOOK_MS * INT64_C(1000000));
}

/* ---- Requests ---- */

static int find_ledger(struct segue_session *session, const struct segue_message *message,
	const struct segue_opening *opening, struct segue_ledger **out)
{
	struct segue_stream *stream = opening->stream;
	uint32_t lane = message->lane_follow.lane;

	int rc = segue_drop_check_stream(stream);
	if (rc)
		return rc;
	if (!stream->spec->persist)
		return segue_fail(SEGUE_EINVAL,
			"stream '%s': with persist=False nothing is shared: each loader is by "
			"itself, and has no replicas",
			stream->spec->name);
	if (lane >= stream->spec->lanes)
		return segue_fail(SEGUE_EINVAL, "stream '%s' has lanes 0 to %u, not %u",
			stream->spec->name, stream->spec->lanes - 1, lane);
	*out = segue_ledgers_find(&stream->ledgers, session, message->lane_follow.group, lane);
	if (!*out)
		return segue_drop_fail_group(stream, lane);
	if (message->lane_follow.replica >= message->lane_follow.replicas)
		return segue_fail(SEGUE_EINVAL, "replica %u of %u", message->lane_follow.replica,
			message->lane_follow.replicas);
	return segue_guard_check(session->server->guard, SEGUE_LIMIT_LANES, session->lanes, 1);
}

void segue_follow_request(struct segue_session *session, const struct segue_message *message)
{
	int64_t timeout = message->lane_follow.timeout_ns, now = segue_now_ns();
	struct segue_replica *replica = calloc(1, sizeof(*replica));
	struct segue_opening *opening;
	struct segue_ledger *ledger = NULL;

	int rc = replica ? 0 : segue_fail(SEGUE_ENOMEM, "no memory for a lane");
	if (!rc)
		rc = segue_opening_find(session, message->lane_follow.stream, &opening);
	if (!rc)
		rc = find_ledger(session, message, opening, &ledger);
	if (rc) {
		segue_session_fail(session, message->serial, rc);
		free(replica);
		return;
	}
	if (timeout <= 0)
		timeout = DEFAULT_TIMEOUT_S * INT64_C(1000000000);
	replica->ledger = ledger;
	replica->opening = opening;
	replica->session = session;
	replica->number = message->lane_follow.replica;
	replica->count = message->lane_follow.replicas;
	replica->serial = message->serial;
	replica->step = message->lane_follow.step;
	replica->generation = message->lane_follow.generation;
	replica->deadline = timeout > INT64_MAX - now ? INT64_MAX : now + timeout;
	opening->uses++;
	session->lanes++;
	segue_ledger_use(&opening->stream->ledgers, ledger);
	LIST_INSERT_HEAD(&ledger->replicas.waiting, replica, link);
	look_at_waiting(replica, 0);
}

static struct segue_replica *find_lease(const struct segue_session *session, uint64_t lease)
{
	const struct segue_opening *opening;
	struct segue_ledger *ledger;
	struct segue_replica *one;

	LIST_FOREACH(opening, &session->openings, of_session) {
		if (!opening->answered)
			continue;
		LIST_FOREACH(ledger, &opening->stream->ledgers.in_use, link)
			LIST_FOREACH(one, &ledger->replicas.following, link)
				if (one->lease_id == lease && one->session == session)
					return one;
	}
	return NULL;
}

struct segue_ledger *segue_replicas_find(const struct segue_session *session, uint64_t lease)
{
	const struct segue_replica *found = find_lease(session, lease);

	return found ? found->ledger : NULL;
}

void segue_replicas_give_back(struct segue_session *session, uint64_t lease)
{
	struct segue_replica *found = find_lease(session, lease);

	if (found)
		part(found, "was closed");
}

void segue_replicas_visit(const struct segue_ledger *ledger,
	void (*visit)(void *arg, const struct segue_replica_view *view), void *arg)
{
	struct segue_grant *grant = ledger->grant;
	const struct segue_replica *one;

	if (!grant)
		return;
	LIST_FOREACH(one, &ledger->replicas.following, link) {
		pthread_mutex_lock(&grant->filler->lock);
		uint64_t published = grant->filler->feed.published;
		segue_carry_observe(&grant->carry, published);
		segue_followers_observe(&grant->carry, published);
		uint64_t step = one->follower.committed, ahead = grant->carry.committed;
		pthread_mutex_unlock(&grant->filler->lock);
		const struct segue_replica_view view = {
			.replica = one->number,
			.pid = one->session->holder.pid,
			.program = one->session->program,
			.step = step,
			.lag = ahead > step ? ahead - step : 0,
		};
		visit(arg, &view);
	}
}

bool segue_replicas_await(const struct segue_ledger *ledger)
{
	const struct segue_carry *carry = &ledger->grant->carry;
	uint32_t there = 1;
	const struct segue_replica *one;

	LIST_FOREACH(one, &ledger->replicas.following, link)
		there++;
	/* no pair: a hint, by which it keeps its own lane */
	return there < ledger->replicas.wanted &&
	       segue_load_acquire(&carry->words->taken) <= carry->committed;
}

/* ---- What befalls a ledger ---- */

void segue_replicas_granted(struct segue_ledger *ledger, uint32_t wanted)
{
	ledger->replicas.wanted = wanted > 1 ? wanted : 1;
	if (wanted > 1)
		tell_holder(ledger, NULL);
	segue_replicas_look(ledger, 0);
}

void segue_replicas_end(struct segue_ledger *ledger)
{
	struct segue_filler *filler = ledger->grant->filler;

	pthread_mutex_lock(&filler->lock);
	segue_feed_end_following(&filler->feed, &ledger->grant->carry);
	pthread_mutex_unlock(&filler->lock);
	while (!LIST_EMPTY(&ledger->replicas.following))
		part(LIST_FIRST(&ledger->replicas.following), NULL);
	ledger->replicas.wanted = 0;
}

/*
 * Who has written nonsense need not have rung. It holds up nobody before its holder waits, who
 * rings: so it is looked for here, in the tick that follows.
 */
static void throw_out(struct segue_ledger *ledger)
{
	struct segue_grant *grant = ledger->grant;
	struct segue_replica *one, *next;

	if (LIST_EMPTY(&ledger->replicas.following))
		return;
	pthread_mutex_lock(&grant->filler->lock);
	segue_followers_observe(&grant->carry, grant->filler->feed.published);
	pthread_mutex_unlock(&grant->filler->lock);
	LIST_FOREACH_SAFE(one, &ledger->replicas.following, link, next) {
		pthread_mutex_lock(&grant->filler->lock);
		bool broken = one->follower.broken;
		pthread_mutex_unlock(&grant->filler->lock);
		if (!broken)
			continue;
		tell_operator(one, "wrote what cannot be into its page: it follows no more");
		part(one, "wrote what cannot be into its page");
	}
}

void segue_replicas_look(struct segue_ledger *ledger, int64_t now)
{
	struct segue_replica *one, *next;

	throw_out(ledger);
	LIST_FOREACH_SAFE(one, &ledger->replicas.waiting, link, next)
		look_at_waiting(one, now);
}

/* Those of `session`, or that came through `opening`. */
static void let_go(struct segue_ledger *ledger, const struct segue_session *session,
	const struct segue_opening *opening)
{
	struct segue_replica *one, *next;

	LIST_FOREACH_SAFE(one, &ledger->replicas.waiting, link, next) {
		if (one->session == session)
			drop(one);
		else if (one->opening == opening)
			refuse(one, segue_fail(SEGUE_EINVAL,
					    "stream '%s' was closed while a lane of it was asked "
					    "for",
					    stream_name(one)));
	}
	LIST_FOREACH_SAFE(one, &ledger->replicas.following, link, next) {
		if (one->session == session) {
			tell_operator(one, "has ended");
			part(one, "has ended");
		} else if (one->opening == opening) {
			part(one, "was closed");
		}
	}
}

void segue_replicas_session_gone(struct segue_ledger *ledger, const struct segue_session *session)
{
	let_go(ledger, session, NULL);
}

void segue_replicas_closed(struct segue_ledger *ledger, const struct segue_opening *opening)
{
	let_go(ledger, NULL, opening);
}
