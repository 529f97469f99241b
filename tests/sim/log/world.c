/* Server, producers, lanes, store, and the oracle of what was promised to them. */
#include "world.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "disk.h"
#include "logwork.h"
#include "core/barrier.h"
#include "core/error.h"
#include "lane/backlog.h"
#include "source/log/producers.h"

#define NAMES     3
#define LANES     2
#define NUMBERS   4096
#define SERIALS   512
#define TOKENS    8
#define NONE      UINT64_MAX
#define EVENTS    220
#define FILE_SIZE 5000

uint64_t simlog_happened[SIMLOG_EVENT_KINDS];

/* Who inserts: a process under a name; `twin` is one that was taken over and does not know it. */
struct client {
	bool alive, connected;
	uint64_t writer, session;
	uint64_t made, acknowledged; /* serials: those between are kept, to be sent again */
	uint64_t sent;               /* on this connection */
	bool closing, closed;
};

struct lane {
	bool alive;
	uint64_t next;          /* lane-local count, as in a position */
	uint64_t read[NUMBERS]; /* what it was given as each number */
	uint64_t hash[2];       /* of the log as far as it has seen */
};

/* One value of the store's: replaced as a whole. */
struct stored {
	bool made;
	struct segue_log_known known;
	uint64_t next[LANES], checkpoint[LANES];
	bool has_end, ended;
	uint64_t end_count, closed; /* a bit a name */
};

struct token {
	uint64_t number, hash[2];
};

static struct {
	uint64_t random;
	const char *mutant;
	bool trace, failed, faults;
	struct simlog_failure failure;
	jmp_buf over;
	struct stored stored;
	/* The server; gone after a kill. */
	bool up;
	struct segue_log *log;
	struct segue_producers producers;
	/* The others. */
	struct client client[NAMES], twin[NAMES];
	struct lane lane[LANES];
	uint64_t writers;
	/* What is in the log now: number -> what, and name, serial -> number. */
	uint64_t what[NUMBERS], number[NAMES][SERIALS];
	uint64_t count;
	/* What was told outside: number -> what, for good. */
	uint64_t fixed[NUMBERS];
	struct token token[TOKENS];
	unsigned tokens;
	uint64_t ended; /* after how many, as somebody was told; NONE: not */
	bool closed[NAMES];
} world;

static const char *const names[NAMES] = {"a", "producer b", "c"};

int segue_sim_mutant(const char *name);
int segue_sim_mutant(const char *name)
{
	return world.mutant && strcmp(world.mutant, name) == 0;
}

/* ---- Chance, failure ---- */

static uint64_t below(uint64_t most)
{
	uint64_t z = world.random += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return most ? (z ^ (z >> 31)) % most : 0;
}

static void tell(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void tell(const char *format, ...)
{
	va_list list;

	if (!world.trace)
		return;
	va_start(list, format);
	vprintf(format, list);
	va_end(list);
	printf("\n");
}

static void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
static void fail(const char *format, ...)
{
	va_list list;

	va_start(list, format);
	vsnprintf(world.failure.text, sizeof(world.failure.text), format, list);
	va_end(list);
	world.failure.failed = true;
	longjmp(world.over, 1);
}

static void happens(enum simlog_event event)
{
	simlog_happened[event]++;
}

/* ---- What is promised ---- */

static uint64_t what_of(unsigned name, uint64_t writer, uint64_t serial)
{
	return (uint64_t)name << 48 | writer << 24 | serial;
}

/* Number n is what it is now for good: somebody was told. */
static void fix(uint64_t n, const char *who)
{
	if (n >= world.count)
		fail("%s refers to sequence %" PRIu64 ", which is not in the log", who, n);
	if (world.fixed[n] != NONE && world.fixed[n] != world.what[n])
		fail("%s refers to sequence %" PRIu64 ", which was another before", who, n);
	world.fixed[n] = world.what[n];
}

/* All that was told is still so; reads the log anew. */
static void check_log(void)
{
	struct segue_log_stand stand;
	struct segue_log_entry *entry;
	uint64_t before = world.count;

	segue_log_look(world.log, &stand);
	world.count = stand.written.number;
	for (uint64_t n = world.count; n < before; n++) {
		if (world.fixed[n] != NONE)
			fail("sequence %" PRIu64 " is lost, of which somebody was told", n);
		happens(SIMLOG_CUT_BACK);
	}
	/* One that was cut back because the disk was full can be there again, and the one that took its
	 * place not: first all that is known of those behind the first is forgotten. */
	for (uint64_t n = stand.first; n < before; n++)
		world.number[world.what[n] >> 48][world.what[n] & 0xffffff] = NONE;
	for (uint64_t n = stand.first; n < world.count; n++) {
		uint64_t what;

		if (segue_log_read(world.log, n, &entry) || !segue_logwork_tell(entry, &what))
			fail("sequence %" PRIu64 " is not sound: %s", n, segue_error_detail());
		unsigned name = (unsigned)(what >> 48);
		uint64_t serial = what & 0xffffff;
		if (entry->entry.stamp.serial != serial || name >= NAMES ||
			(n < before && world.fixed[n] != NONE && world.fixed[n] != what))
			fail("sequence %" PRIu64 " is another one", n);
		world.what[n] = what;
		world.number[name][serial] = n;
	}
}

/* Each serial of each producer is in the log once, from the first to its last. */
static void check_serials(void)
{
	uint64_t last[NAMES] = {0};

	for (uint64_t n = 0; n < world.count; n++) {
		unsigned name = (unsigned)(world.what[n] >> 48);
		uint64_t serial = world.what[n] & 0xffffff;

		if (serial != last[name] + 1)
			fail("serial %" PRIu64 " of '%s' comes behind %" PRIu64, serial,
				names[name], last[name]);
		last[name] = serial;
	}
}

/* ---- The store ---- */

/* A transaction: it is there or not if the server is killed in it. */
static void store(const struct stored *stored)
{
	simdisk_call();
	world.stored = *stored;
	simdisk_call();
}

static struct segue_plan_spec plan_of(uint32_t lane)
{
	return (struct segue_plan_spec){.records = UINT64_C(1) << 63,
		.ends = {1, {0}},
		.lanes = LANES,
		.lane = lane,
		.batch_size = 1,
		.num_unroll = 1};
}

static uint64_t seen(uint32_t lane, uint64_t next)
{
	const struct segue_plan_spec plan = plan_of(lane);
	const struct segue_position position = {.next = next};

	return segue_backlog_seen(&plan, &position);
}

static bool is_covered(uint32_t lane, uint64_t synced)
{
	const struct segue_plan_spec plan = plan_of(lane);
	const struct segue_position position = {.next = world.lane[lane].next};

	return segue_backlog_is_covered(&plan, &position, synced);
}

static uint64_t needs_of(uint32_t lane, uint64_t next)
{
	const struct segue_plan_spec plan = plan_of(lane);
	const struct segue_position position = {.next = next};

	return segue_backlog_needs(&plan, &position);
}

/* ---- The server ---- */

static void acknowledge(void *arg, uint64_t session, uint64_t serial)
{
	(void)arg;
	for (unsigned name = 0; name < NAMES; name++) {
		struct client *client = &world.client[name];

		if (client->session != session || !client->connected)
			continue;
		if (below(5) == 0) { /* the answer is lost, with the connection */
			client->connected = false;
			segue_producers_gone(&world.producers, session);
			continue;
		}
		for (uint64_t s = client->acknowledged + 1; s <= serial; s++) {
			uint64_t n = world.number[name][s];

			if (n == NONE || world.what[n] != what_of(name, client->writer, s))
				fail("serial %" PRIu64
				     " of '%s' is acknowledged, and is not in the log",
					s, names[name]);
			fix(n, "an acknowledgement");
			happens(SIMLOG_ACKNOWLEDGED);
		}
		client->acknowledged =
			serial > client->acknowledged ? serial : client->acknowledged;
	}
}

/* The log is synced, and who inserted is told. */
static int sync_log(void)
{
	struct segue_log_stand stand;
	int rc = segue_log_sync(world.log);

	segue_log_look(world.log, &stand);
	if (!rc)
		segue_producers_durable(&world.producers, stand.synced.number, acknowledge, NULL);
	return rc;
}

static void server_open(void)
{
	static const uint8_t id[SEGUE_SEQLOG_ID] = "a log of the sim";
	const struct segue_log_means means = {.dir = "log",
		.fields = segue_logwork_fields,
		.count = SEGUE_LOGWORK_FIELDS,
		.file_bytes = FILE_SIZE};
	struct stored stored = world.stored;
	struct segue_log_stand stand;
	char closed[NAMES][SEGUE_NAME_MAX + 1] = {{0}};
	struct segue_log_end end = {.closed = closed};
	int rc = stored.made ? segue_log_open(&means, &stored.known, &world.log)
			     : segue_log_create(&means, id, &world.log);

	if (rc && !simdisk_struck())
		fail("the log does not open: %s", segue_error_detail());
	if (rc)
		return;
	world.up = true;
	segue_log_look(world.log, &stand);
	if (!stored.made) {
		memcpy(stored.known.id, id, sizeof(id));
		stored.known.synced = stand.synced;
		stored.made = true;
		store(&stored);
	}
	check_log();
	end.count = stored.end_count;
	end.ended = stored.ended;
	for (unsigned name = 0; name < NAMES; name++)
		if (stored.closed & 1u << name)
			memcpy(closed[end.closed_count++], names[name], strlen(names[name]));
	if (segue_producers_init(&world.producers, segue_log_producers(world.log),
		    stand.written.number, stored.has_end ? &end : NULL, NAMES))
		fail("the producers do not begin: %s", segue_error_detail());
}

static void lanes_offer(void)
{
	for (uint32_t lane = 0; lane < LANES; lane++) {
		struct lane *own = &world.lane[lane];
		uint64_t saw = seen(lane, own->next), hash[2];

		if (own->alive && own->next > world.stored.next[lane]) {
			bool fits = saw <= world.count && !segue_log_hash(world.log, saw, hash) &&
				    memcmp(hash, own->hash, sizeof(hash)) == 0;

			happens(fits ? SIMLOG_OFFERED : SIMLOG_REFUSED);
			if (fits || SEGUE_MUTANT(offer_not_checked))
				continue;
		}
		own->alive = true;
		own->next = world.stored.next[lane];
	}
}

static void server_start(void)
{
	tell("the server starts");
	server_open();
	if (world.up)
		lanes_offer();
}

static void server_gone(void)
{
	world.up = false;
	for (unsigned name = 0; name < NAMES; name++)
		world.client[name].connected = world.twin[name].connected = false;
}

/* ---- Producers ---- */

/* Answered when all that the name has inserted is synced: who goes on behind it counts on it. */
static void connect_client(unsigned name, bool takeover)
{
	struct client *client = &world.client[name];
	const struct segue_producer_asked asked = {.name = names[name],
		.name_size = strlen(names[name]),
		.token = {(uint8_t)client->writer, (uint8_t)(client->writer >> 8)},
		.takeover = takeover};
	uint64_t session, serial;

	int rc = segue_producers_open(&world.producers, &asked, &session, &serial);
	if (rc == SEGUE_EEND && world.producers.input)
		return;
	if (rc)
		fail("a producer cannot connect: %s", segue_error_detail());
	if (!SEGUE_MUTANT(resume_before_sync))
		rc = sync_log();
	if (rc) {
		segue_producers_gone(&world.producers, session);
		return;
	}
	if (client->made < serial) { /* a new process: it goes on where the log says */
		client->made = client->acknowledged = serial;
		for (uint64_t s = 1; s <= serial; s++)
			fix(world.number[name][s], "a producer that resumed");
	}
	client->sent = client->acknowledged;
	client->session = session;
	client->connected = true;
}

static void insert(unsigned name, struct client *client, uint64_t serial)
{
	const struct segue_logwork work = {.what = what_of(name, client->writer, serial),
		.serial = serial,
		.producer = names[name],
		.steps = below(6) == 0 ? 400 : 0};
	uint64_t session = client->session, n;

	if (SEGUE_MUTANT(taken_over_goes_on) && world.client[name].connected)
		session = world.client[name].session;
	int rc = segue_producers_offer(&world.producers, session, serial);
	if (rc == SEGUE_PRODUCERS_AGAIN) {
		happens(SIMLOG_AGAIN);
		client->sent = serial;
		acknowledge(NULL, client->session,
			segue_producers_acknowledged(&world.producers, session));
		return;
	}
	if (rc == SEGUE_EFENCED) {
		if (client == &world.client[name])
			fail("the newest producer of '%s' is fenced", names[name]);
		happens(SIMLOG_FENCED);
		client->alive = client->connected = false;
		return;
	}
	if (rc == SEGUE_EEND &&
		(world.producers.input || segue_producers_closing(&world.producers, session)))
		return;
	if (rc)
		fail("'%s' cannot insert serial %" PRIu64 ": %s", names[name], serial,
			segue_error_detail());
	if (segue_producers_reserve(&world.producers))
		fail("no memory");
	rc = segue_logwork_append(world.log, &work, &n);
	if (rc == SEGUE_ENOSPACE)
		happens(SIMLOG_FULL);
	if (rc)
		return;
	segue_producers_accepted(&world.producers, names[name], strlen(names[name]), n);
	client->sent = serial;
	if (world.ended != NONE)
		fail("sequence %" PRIu64 " is accepted after the end", n);
	if (world.closed[name])
		fail("sequence %" PRIu64 " is of a producer that was closed", n);
	world.what[n] = work.what;
	world.number[name][serial] = n;
	world.count = n + 1;
	if (SEGUE_MUTANT(ack_before_sync))
		segue_producers_durable(&world.producers, world.count, acknowledge, NULL);
}

/* Sends the next, or one that is not acknowledged once more. */
static void client_inserts(unsigned name, struct client *client)
{
	if (!client->alive || client->closed || world.count + 2 >= NUMBERS)
		return;
	if (!client->connected) {
		if (client == &world.client[name])
			connect_client(name, false);
		return;
	}
	if (below(9) == 0)
		client->sent = client->acknowledged;
	if (client->sent == client->made && (client->closing || client->made + 2 >= SERIALS))
		return;
	if (client->sent == client->made)
		client->made++;
	insert(name, client, client->sent + 1);
}

static void client_dies(unsigned name)
{
	struct client *client = &world.client[name];
	bool takeover = world.up && client->connected && below(2);

	tell("producer '%s' dies%s", names[name], takeover ? ", and goes on as a ghost" : "");
	if (takeover)
		world.twin[name] = *client;
	else if (world.up && client->connected)
		segue_producers_gone(&world.producers, client->session);
	*client = (struct client){.alive = true, .writer = ++world.writers};
	happens(SIMLOG_DIED);
	if (!takeover)
		return;
	connect_client(name, true);
	happens(SIMLOG_TAKEN_OVER);
}

/* ---- Ends ---- */

static void close_client(unsigned name)
{
	struct client *client = &world.client[name];

	if (!client->connected)
		return;
	client->closing = true;
	if (client->acknowledged < client->made)
		return;
	segue_producers_close(&world.producers, client->session);
}

static void hear_ends(void)
{
	for (unsigned name = 0; name < NAMES; name++) {
		struct client *client = &world.client[name];

		if (!client->connected || !client->closing || client->closed ||
			segue_producers_closing(&world.producers, client->session) !=
				SEGUE_CLOSING_CLOSED)
			continue;
		client->closed = world.closed[name] = true;
		happens(SIMLOG_CLOSED);
	}
	if (segue_producers_closing(&world.producers, 0) == SEGUE_CLOSING_CLOSED) {
		if (world.ended == NONE)
			happens(SIMLOG_ENDED);
		if (world.ended != NONE && world.ended != world.count)
			fail("the input has ended after %" PRIu64 ", and then after %" PRIu64,
				world.ended, world.count);
		world.ended = world.count;
		for (uint64_t n = 0; n < world.count; n++)
			fix(n, "the end");
	}
}

static void store_ends(void)
{
	struct stored stored = world.stored;
	struct segue_log_end end;

	if (segue_producers_unstored(&world.producers, &end) != 1)
		return;
	if (!SEGUE_MUTANT(end_before_sync) && sync_log())
		return;
	stored.has_end = true;
	stored.ended = end.ended;
	stored.end_count = end.count;
	for (uint32_t i = 0; i < end.closed_count; i++)
		for (unsigned name = 0; name < NAMES; name++)
			if (strcmp(end.closed[i], names[name]) == 0)
				stored.closed |= 1u << name;
	store(&stored);
	segue_producers_stored(&world.producers, &end);
}

/* ---- Lanes ---- */

static void lane_reads(uint32_t lane)
{
	struct lane *own = &world.lane[lane];
	uint64_t n = own->next * LANES + lane;
	struct segue_log_entry *entry;

	if (!own->alive || n >= world.count)
		return;
	if (segue_log_read(world.log, n, &entry) || !segue_logwork_tell(entry, &own->read[n]))
		fail("lane %u cannot read sequence %" PRIu64 ": %s", lane, n, segue_error_detail());
	own->next++;
	if (segue_log_hash(world.log, seen(lane, own->next), own->hash))
		fail("lane %u has seen what is not there: %s", lane, segue_error_detail());
}

/* What a lane has seen is in the store from now on. */
static void fix_lane(uint32_t lane, uint64_t from, uint64_t to)
{
	for (uint64_t i = from; i < to; i++) {
		uint64_t n = i * LANES + lane;

		fix(n, "a stored position");
		if (world.lane[lane].read[n] != world.what[n])
			fail("lane %u was given another sequence %" PRIu64, lane, n);
	}
}

/* Lanes and checkpoints belong to the log by its running hash where they stand. */
static void check_places(const struct stored *stored)
{
	uint64_t hash[2];

	for (uint32_t lane = 0; lane < LANES; lane++)
		if (segue_log_hash(world.log, seen(lane, stored->next[lane]), hash) ||
			segue_log_hash(world.log, seen(lane, stored->checkpoint[lane]), hash))
			fail("the place where lane %u stands was given up", lane);
}

static void commit(void)
{
	struct stored stored = world.stored;
	struct segue_log_stand stand;
	uint64_t floor = NONE;

	segue_log_look(world.log, &stand);
	stored.known.synced = stand.synced;
	for (uint32_t lane = 0; lane < LANES; lane++) {
		if (is_covered(lane, stand.synced.number))
			stored.next[lane] = world.lane[lane].next;
		else
			happens(SIMLOG_LEFT_OUT);
		if (below(4) == 0)
			stored.checkpoint[lane] = stored.next[lane];
		uint64_t needs = SEGUE_MUTANT(checkpoint_not_counted) ? stored.next[lane]
								      : stored.checkpoint[lane];
		needs = needs_of(lane, needs);
		floor = needs < floor ? needs : floor;
	}
	floor = floor < stand.synced.number ? floor : stand.synced.number;
	stored.known.first = segue_log_floor(world.log, floor);
	if (SEGUE_MUTANT(given_up_first) && segue_log_give_up(world.log, stored.known.first))
		return;
	struct stored before = world.stored;
	store(&stored);
	happens(SIMLOG_STORED);
	for (uint32_t lane = 0; lane < LANES; lane++)
		fix_lane(lane, before.next[lane], stored.next[lane]);
	if (stored.known.first > stand.first)
		happens(SIMLOG_GIVEN_UP);
	segue_log_give_up(world.log, stored.known.first);
	check_places(&stored);
}

/* A lane goes back to its checkpoint: all that it needs is there. */
static void restore_checkpoint(uint32_t lane)
{
	struct stored stored = world.stored;
	struct segue_log_stand stand;

	segue_log_look(world.log, &stand);
	stored.next[lane] = stored.checkpoint[lane];
	if (needs_of(lane, stored.next[lane]) < stand.first)
		fail("a checkpoint of lane %u needs what was given up", lane);
	store(&stored);
	world.lane[lane].next = stored.next[lane];
}

static void take_token(uint32_t lane)
{
	struct token token = {.number = seen(lane, world.lane[lane].next)};
	struct segue_log_stand stand;

	if (segue_log_hash(world.log, token.number, token.hash))
		return;
	segue_log_look(world.log, &stand);
	if (!SEGUE_MUTANT(token_before_sync) && stand.synced.number < token.number && sync_log())
		return;
	world.token[world.tokens++ % TOKENS] = token;
	happens(SIMLOG_TOKEN);
	for (uint64_t n = 0; n < token.number; n++)
		fix(n, "a token");
}

static void bring_token(void)
{
	const struct token *token = &world.token[below(TOKENS)];
	struct segue_log_stand stand;
	uint64_t hash[2];

	if (world.tokens < TOKENS)
		return;
	segue_log_look(world.log, &stand);
	if (segue_log_hash(world.log, token->number, hash)) {
		if (token->number >= stand.first)
			fail("the log has not what a token refers to");
		happens(SIMLOG_EXPIRED);
		return;
	}
	if (memcmp(hash, token->hash, sizeof(hash)) != 0)
		fail("a token does not fit any more");
	uint64_t other[2] = {hash[0] + 1 + below(5), hash[1]};
	if (memcmp(hash, other, sizeof(hash)) == 0)
		fail("a token of another log fits");
	happens(SIMLOG_RESTORED);
}

/* ---- Histories ---- */

static void server_works(void)
{
	unsigned name = (unsigned)below(NAMES);
	uint32_t lane = (uint32_t)below(LANES);

	switch (below(14)) {
	case 0:
	case 1:
	case 2:
	case 3:
		client_inserts(name, &world.client[name]);
		break;
	case 4:
		client_inserts(name, &world.twin[name]);
		break;
	case 5:
	case 6:
		sync_log();
		break;
	case 7:
	case 8:
	case 9:
		lane_reads(lane);
		break;
	case 10:
	case 11:
		commit();
		break;
	case 12:
		if (below(8) == 0)
			restore_checkpoint(lane);
		else
			take_token(lane);
		break;
	default:
		bring_token();
		store_ends();
		hear_ends();
	}
}

static void power_cut(void)
{
	tell("the power is cut");
	happens(SIMLOG_POWER_CUT);
	server_gone();
	simdisk_cut_power();
	for (uint32_t lane = 0; lane < LANES; lane++)
		world.lane[lane].alive = false;
	for (unsigned name = 0; name < NAMES; name++) {
		world.twin[name].alive = false;
		world.client[name] = (struct client){.alive = true, .writer = ++world.writers};
	}
}

static void something_happens(bool ending)
{
	struct segue_log_stand stand;

	if (world.faults && below(12) == 0)
		simdisk_fault((enum simdisk_fault)(1 + below(3)), 1 + below(12));
	if (world.faults && below(60) == 0) {
		power_cut();
		return;
	}
	if (!world.up) {
		server_start();
		return;
	}
	segue_log_look(world.log, &stand);
	if (stand.failed || (world.faults && below(50) == 0)) {
		happens(stand.failed ? SIMLOG_FAILED : SIMLOG_STOPPED);
		server_gone();
		return;
	}
	if (world.faults && below(25) == 0)
		client_dies((unsigned)below(NAMES));
	else if (ending && below(8) == 0)
		close_client((unsigned)below(NAMES));
	else if (ending && below(120) == 0) /* whatever is on its way */
		segue_producers_end(&world.producers);
	else
		server_works();
}

/* One event; the server may be killed in it. */
static void step(bool ending)
{
	if (setjmp(simdisk_killed) == 0) {
		something_happens(ending);
	} else {
		tell("the server is killed");
		happens(SIMLOG_KILLED);
		server_gone();
	}
}

/* Nothing strikes any more: all is inserted, acknowledged, delivered, ended. */
static void finish(void)
{
	bool done = false;

	world.faults = false;
	simdisk_fault(SIMDISK_NONE, 0);
	for (int i = 0; i < 3000 && !done; i++) {
		step(true);
		done = world.up && world.ended != NONE;
		for (uint32_t lane = 0; lane < LANES; lane++)
			done = done && seen(lane, world.stored.next[lane] + 1) > world.count;
	}
	if (!done)
		fail("it does not come to its end");
	check_log();
	check_serials();
}

struct simlog_failure simlog_run(uint64_t seed, const char *mutant, bool trace)
{
	memset(&world, 0, sizeof(world));
	world.random = seed;
	world.mutant = mutant;
	world.trace = trace;
	world.faults = true;
	world.ended = NONE;
	memset(world.fixed, 0xff, sizeof(world.fixed));
	memset(world.number, 0xff, sizeof(world.number));
	simlog_forget_all();
	simdisk_begin(below);
	for (unsigned name = 0; name < NAMES; name++)
		world.client[name] = (struct client){.alive = true, .writer = ++world.writers};
	if (setjmp(world.over) == 0) {
		for (int i = 0; i < EVENTS; i++)
			step(i > EVENTS / 2);
		finish();
	}
	return world.failure;
}
