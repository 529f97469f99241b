/* STATUS: the server, its sessions, users and open streams. */
#include "report/status.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/barrier.h"
#include "core/error.h"
#include "core/wait.h"
#include "engine/live.h"
#include "lane/course.h"
#include "report/json.h"
#include "report/values.h"
#include "stream/lag.h"
#include "stream/replica.h"
#include "stream/stream.h"

/* Of a stream with more, in all groups: those are left out that nobody has, or has begun. */
enum { LANES_SHOWN = 256 };

/* Runs on the loop's thread, like all that it looks at. */
static void put_sessions(struct segue_json *json, const struct segue_server *server)
{
	const struct segue_session *session;

	segue_json_begin(json, "sessions", '[');
	LIST_FOREACH(session, &server->sessions->all, link) {
		segue_json_begin(json, NULL, '{');
		segue_json_signed(json, "pid", session->holder.pid);
		segue_json_string(json, "program", session->program);
		segue_json_unsigned(json, "uid", segue_account_uid(session->account));
		segue_json_unsigned(json, "lanes", session->lanes);
		segue_json_bool(json, "paused", segue_session_is_paused(session));
		segue_json_end(json, '}');
	}
	segue_json_end(json, ']');
}

static void put_user(void *arg, uid_t uid, const uint64_t taken[SEGUE_LIMIT_COUNT])
{
	static const struct {
		enum segue_limit limit;
		const char *name;
	} shown[] = {{SEGUE_LIMIT_CONNECTIONS, "connections"}, {SEGUE_LIMIT_MEMORY, "ring_bytes"},
		{SEGUE_LIMIT_UPLOADS, "upload_bytes"}, {SEGUE_LIMIT_DESCRIPTORS, "descriptors"},
		{SEGUE_LIMIT_THREADS, "threads"}};
	struct segue_json *json = arg;

	segue_json_begin(json, NULL, '{');
	segue_json_unsigned(json, "uid", uid);
	for (size_t i = 0; i < sizeof(shown) / sizeof(shown[0]); i++)
		segue_json_unsigned(json, shown[i].name, taken[shown[i].limit]);
	segue_json_end(json, '}');
}

/* What each user has taken, and the limits. */
static void put_users(struct segue_json *json, const struct segue_server *server)
{
	segue_json_begin(json, "users", '[');
	segue_guard_visit(server->guard, put_user, json);
	segue_json_end(json, ']');
	segue_json_begin(json, "limits", '{');
	for (unsigned i = 0; i < SEGUE_LIMIT_COUNT; i++)
		segue_json_unsigned(
			json, segue_limit_info(i)->flag, segue_guard_limit(server->guard, i));
	segue_json_end(json, '}');
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static void put_seconds(struct segue_json *json, const char *name, double ns)
{
	segue_json_real(json, name, ns / 1e9, 9);
}

/* Where the lane is in its input; NULL: nobody knows just now. */
static void put_course(struct segue_json *json, const struct segue_course *course)
{
	static const char *const names[] = {"epoch", "epochs", "sequences", "sequences_done"};

	for (size_t i = 0; !course && i < sizeof(names) / sizeof(names[0]); i++)
		segue_json_null(json, names[i]);
	if (!course)
		return;
	segue_json_unsigned(json, "epoch", course->epoch);
	if (course->epochs)
		segue_json_unsigned(json, "epochs", course->epochs);
	else
		segue_json_null(json, "epochs");
	if (course->sequences)
		segue_json_unsigned(json, "sequences", course->sequences);
	else
		segue_json_null(json, "sequences");
	segue_json_real(json, "sequences_done", course->done, 9);
}

/* What the worker writes is shown as far as it can be true, and not taken over. */
static void put_ring(struct segue_json *json, struct segue_grant *grant)
{
	struct segue_filler *filler = grant->filler;
	struct segue_carry *carry = &grant->carry;

	pthread_mutex_lock(&filler->lock);
	uint64_t published = filler->feed.published;
	bool ended = filler->feed.ended;
	uint64_t parked = 0;
	/*
	 * acquire: pairs with segue_track_commit (core/track.c), segue_track_release
	 * (core/track.c), segue_track_waited (core/track.c), segue_carry_set_durable
	 * (lane/carry.c)
	 */
	uint64_t committed = least(segue_load_acquire(&carry->words->committed), published);
	uint64_t released = least(segue_load_acquire(&carry->words->released), committed);
	uint64_t waited = segue_load_acquire(&carry->words->waited);
	uint64_t durable = segue_load_acquire(&carry->page->durable);
	const struct segue_feed_entry *entry = segue_feed_entry(&filler->feed, committed);
	struct segue_course course;
	if (entry) {
		parked = entry->position->parked;
		course = segue_course_of(&filler->plan_spec, entry->position);
	}
	uint64_t steps = filler->steps_published, valid = filler->valid_published;
	int64_t full = segue_stopwatch_read(&filler->full), durable_ms = grant->durable_ms;
	pthread_mutex_unlock(&filler->lock);
	segue_json_unsigned(json, "batch_size", grant->batch_size);
	segue_json_unsigned(json, "parked", parked);
	segue_json_unsigned(json, "step_published", published);
	segue_json_unsigned(json, "step_committed", committed);
	segue_json_unsigned(json, "step_released", released);
	segue_json_unsigned(json, "step_durable", durable);
	segue_json_unsigned(json, "depth", filler->geometry.depth);
	segue_json_unsigned(json, "ring_bytes", filler->geometry.ring_size);
	segue_json_unsigned(json, "held", committed - released);
	segue_json_bool(json, "ended", ended);
	segue_json_unsigned(json, "steps", steps);
	segue_json_unsigned(json, "steps_valid", valid);
	put_course(json, entry ? &course : NULL);
	put_seconds(json, "worker_waits_s", (double)waited);
	put_seconds(json, "server_waits_s", (double)full);
	segue_report_put_date(json, "committed", durable_ms);
	segue_report_put_date(json, "checkpoint", grant->checkpoint_ms);
}

/* Nobody has the lane: it stands where the store has it, or, if it is not stored, nowhere. */
static void put_idle(struct segue_json *json, const struct segue_ledger *ledger)
{
	segue_json_unsigned(json, "batch_size",
		ledger->sized ? ledger->batch_size : ledger->stream->spec->batch_size);
	segue_json_null(json, "parked");
	segue_json_null(json, "step_published");
	segue_json_unsigned(json, "step_committed", ledger->durable);
	segue_json_unsigned(json, "step_released", ledger->durable);
	segue_json_unsigned(json, "step_durable", ledger->durable);
	segue_json_null(json, "depth");
	segue_json_unsigned(json, "ring_bytes", 0);
	segue_json_unsigned(json, "held", 0);
	segue_json_null(json, "ended");
	segue_json_null(json, "steps");
	segue_json_null(json, "steps_valid");
	put_course(json, NULL);
	segue_json_null(json, "worker_waits_s");
	segue_json_null(json, "server_waits_s");
	segue_report_put_date(json, "committed", ledger->durable_ms);
	segue_report_put_date(json, "checkpoint", ledger->checkpoint_ms);
}

static void put_replica(void *arg, const struct segue_replica_view *view)
{
	struct segue_json *json = arg;

	segue_json_begin(json, NULL, '{');
	segue_json_unsigned(json, "replica", view->replica);
	segue_json_signed(json, "pid", view->pid);
	segue_json_string(json, "program", view->program);
	segue_json_unsigned(json, "step", view->step);
	segue_json_unsigned(json, "lag", view->lag);
	segue_json_end(json, '}');
}

/* Those that follow the holder, if there are to be any. */
static void put_replicas(struct segue_json *json, const struct segue_ledger *ledger)
{
	if (ledger->replicas.wanted < 2)
		return;
	segue_json_begin(json, "replicas", '[');
	segue_replicas_visit(ledger, put_replica, json);
	segue_json_end(json, ']');
}

/* Where another group has kept it waiting since a while. */
static void put_waiting(struct segue_json *json, const struct segue_ledger *ledger)
{
	int64_t since;
	const char *group = segue_lag_waits_for(ledger, &since);

	if (!group)
		return;
	segue_json_string(json, "waits_for_group", group);
	segue_json_real(json, "waits_s", (double)(segue_now_ns() - since) / 1e9, 3);
}

static void put_ledger(
	struct segue_json *json, const struct segue_ledger *ledger, const char *group)
{
	struct segue_live *live = ledger->stream->live;

	segue_json_begin(json, NULL, '{');
	segue_json_unsigned(json, "lane", ledger->place.lane);
	segue_json_unsigned(json, "group", ledger->place.group);
	if (*group)
		segue_json_string(json, "group_name", group);
	segue_json_string(json, "state", segue_lease_state_name(ledger->lease.state));
	segue_json_unsigned(json, "generation", ledger->lease.generation);
	if (ledger->lease.state == SEGUE_LEASE_FREE)
		segue_json_null(json, "holder_pid");
	else
		segue_json_signed(json, "holder_pid", ledger->lease.holder.pid);
	if (ledger->grant)
		put_ring(json, ledger->grant);
	else
		put_idle(json, ledger);
	put_waiting(json, ledger);
	put_replicas(json, ledger);
	if (live)
		segue_json_unsigned(json, "behind",
			segue_live_behind(live, ledger->place.group, ledger->place.lane));
	segue_json_end(json, '}');
}

static void put_lanes(struct segue_json *json, const struct segue_stream *stream)
{
	const struct segue_ledgers *ledgers = &stream->ledgers;
	const struct segue_ledger_group *group;
	const struct segue_ledger *ledger;
	uint64_t count = 0;

	LIST_FOREACH(group, &ledgers->groups, link)
		count += ledgers->lanes;
	segue_json_begin(json, "lanes", '[');
	LIST_FOREACH(group, &ledgers->groups, link) {
		for (uint32_t lane = 0; !group->dropped && lane < ledgers->lanes; lane++) {
			ledger = &group->of_lane[lane];
			if (ledger->in_use || ledger->durable || count <= LANES_SHOWN)
				put_ledger(json, ledger, group->name);
		}
	}
	if (!stream->spec->persist) {
		LIST_FOREACH(ledger, &ledgers->in_use, link)
			put_ledger(json, ledger, "");
	}
	segue_json_end(json, ']');
}

static void put_producer(void *arg, const struct segue_producer *producer)
{
	static const char *const states[] = {
		[SEGUE_CLOSING_OPEN] = "open",
		[SEGUE_CLOSING_CLOSING] = "closing",
		[SEGUE_CLOSING_CLOSED] = "closed",
	};
	struct segue_json *json = arg;

	segue_json_begin(json, NULL, '{');
	segue_json_string(json, "name", producer->name);
	segue_json_bool(json, "session", producer->session != 0);
	segue_json_unsigned(json, "inserted", producer->accepted);
	segue_json_unsigned(json, "safe", producer->durable);
	segue_json_string(json, "state", states[producer->closing]);
	segue_json_end(json, '}');
}

static void put_limit(struct segue_json *json, const char *name, uint64_t limit)
{
	if (limit == UINT64_MAX)
		segue_json_null(json, name);
	else
		segue_json_unsigned(json, name, limit);
}

/* What an insert that waits waits for. */
static const char *limit_of(const struct segue_live_look *look, uint32_t lanes)
{
	for (uint32_t i = 0; i < lanes; i++)
		if (look->unfinished[i] < look->limits.capacity)
			return "spool";
	return "capacity";
}

static void put_log(struct segue_json *json, const struct segue_stream *stream,
	const struct segue_live_look *look)
{
	segue_json_begin(json, "log", '{');
	segue_json_string(json, "state",
		look->log.failed ? "failed"
		: look->ended    ? "ended"
				 : "open");
	segue_json_unsigned(json, "first", look->log.first);
	segue_json_unsigned(json, "accepted", look->log.written.number);
	segue_json_unsigned(json, "synced", look->log.synced.number);
	put_limit(json, "capacity", look->limits.capacity);
	put_limit(json, "spool_bytes", look->limits.spool);
	segue_json_begin(json, "producers", '[');
	bool waits = segue_inserter_look(segue_live_inserter(stream->live), put_producer, json);
	segue_json_end(json, ']');
	if (waits)
		segue_json_string(json, "waits_for", limit_of(look, stream->spec->lanes));
	else
		segue_json_null(json, "waits_for");
	if (stream->input_failure)
		segue_json_string(json, "input_failure", stream->input_failure);
	else
		segue_json_null(json, "input_failure");
	segue_json_end(json, '}');
}

static void put_source_stats(struct segue_json *json, const struct segue_source *source)
{
	struct segue_source_stats stats;

	segue_source_stats(source, &stats);
	segue_json_unsigned(json, "records", stats.records);
	segue_json_unsigned(json, "files", stats.files);
	segue_json_unsigned(json, "bytes", stats.bytes);
	segue_json_unsigned(json, "index_bytes", stats.index_memory);
	segue_json_string(json, "crc", stats.crc);
	segue_json_unsigned(json, "skipped", stats.skipped);
}

static uint64_t count_feeds(const struct segue_stream *stream)
{
	const struct segue_stream_feed *feed;
	uint64_t count = 0;

	LIST_FOREACH(feed, &stream->feeds.all, link)
		count++;
	return count;
}

static void put_stream(struct segue_json *json, const struct segue_stream *stream)
{
	bool open = stream->state == SEGUE_STREAM_OPEN;

	segue_json_begin(json, NULL, '{');
	segue_json_string(json, "name", stream->spec->name);
	segue_json_string(json, "state", stream->dropped ? "dropped" : open ? "open" : "opening");
	segue_json_bool(json, "persist", stream->spec->persist);
	segue_json_unsigned(json, "batch_size", stream->spec->batch_size);
	if (stream->spec->num_unroll)
		segue_json_unsigned(json, "num_unroll", stream->spec->num_unroll);
	else
		segue_json_null(json, "num_unroll");
	/* While it opens, the rest belongs to another thread. */
	if (open) {
		segue_json_unsigned(json, "id", stream->id);
		segue_json_unsigned(json, "feeds", count_feeds(stream));
		put_source_stats(json, stream->source);
		struct segue_live_look *look = stream->live ? segue_live_look(stream->live) : NULL;
		if (look)
			put_log(json, stream, look);
		put_lanes(json, stream);
		free(look);
	}
	segue_json_end(json, '}');
}

/* False: a stream was named, and it is not open. */
static bool put_streams(
	struct segue_json *json, const struct segue_server *server, const char *name)
{
	const struct segue_stream *stream;
	bool found = !*name;

	segue_json_begin(json, "streams", '[');
	LIST_FOREACH(stream, &server->streams->all, link) {
		if (stream->state == SEGUE_STREAM_FAILED ||
			(*name && strcmp(stream->spec->name, name) != 0))
			continue;
		put_stream(json, stream);
		found = true;
	}
	segue_json_end(json, ']');
	return found;
}

static void put_server(struct segue_json *json, const struct segue_server *server)
{
	int64_t uptime_ns = segue_now_ns() - server->started_ns;

	segue_json_begin(json, "server", '{');
	segue_json_signed(json, "pid", getpid());
	segue_json_string(json, "version", SEGUE_VERSION_STRING);
	segue_json_string(json, "dir", server->dir);
	segue_json_string(json, "socket", server->socket_path);
	segue_report_put_date(json, "started", server->started_ms);
	segue_json_signed(json, "uptime_s", uptime_ns / 1000000000);
	segue_json_bool(json, "embedded", server->embedded);
	segue_json_bool(json, "stopping", server->stopping);
	segue_json_string(
		json, "storage", server->storage.rc ? segue_strerror(server->storage.rc) : "ok");
	segue_json_end(json, '}');
}

static void put_store(struct segue_json *json, const struct segue_store *store)
{
	struct segue_store_stats stats;

	segue_store_stats(store, &stats);
	segue_json_begin(json, "store", '{');
	segue_json_unsigned(json, "file_bytes", stats.file_bytes);
	segue_json_unsigned(json, "used_bytes", stats.used_bytes);
	segue_json_unsigned(json, "map_bytes", stats.map_bytes);
	segue_json_unsigned(json, "transactions", stats.transactions);
	segue_json_unsigned(json, "bytes_put", stats.bytes_put);
	segue_report_put_date(json, "created", (int64_t)(stats.created_ns / 1000000));
	segue_json_string(json, "lmdb", stats.lmdb_version);
	segue_json_end(json, '}');
}

static uint64_t resident_bytes(void)
{
	uint64_t total, resident = 0;
	FILE *file = fopen("/proc/self/statm", "re");

	if (file) {
		if (fscanf(file, "%" SCNu64 " %" SCNu64, &total, &resident) != 2)
			resident = 0;
		fclose(file);
	}
	return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static double seconds_of(struct timeval time)
{
	return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

int segue_report_status(const struct segue_server *server, const char *stream, char **out)
{
	struct segue_json json = {0};
	struct rusage usage;

	segue_json_begin(&json, NULL, '{');
	put_server(&json, server);
	put_sessions(&json, server);
	put_users(&json, server);
	if (!put_streams(&json, server, stream)) {
		segue_json_finish(&json);
		return segue_fail(SEGUE_ENOTFOUND,
			"no stream '%s' is open ('segue inspect' shows what the store has)",
			stream);
	}
	put_store(&json, server->store);
	segue_json_begin(&json, "memory", '{');
	segue_json_unsigned(&json, "rss_bytes", resident_bytes());
	segue_json_end(&json, '}');
	getrusage(RUSAGE_SELF, &usage);
	segue_json_real(&json, "cpu_s", seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime), 6);
	segue_json_end(&json, '}');
	return segue_json_take(&json, out);
}
