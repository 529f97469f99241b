/* A stream's data set: its record, files, fingerprint and ledgers, on the stream's own thread. */
#include "stream/dataset.h"

#include <inttypes.h>
#include <limits.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/error.h"
#include "core/progress.h"
#include "core/wait.h"
#include "engine/committer.h"
#include "engine/live_dir.h"
#include "os/random.h"
#include "source/kinds.h"
#include "store/index.h"
#include "store/lanes.h"
#include "store/token.h"
#include "stream/opening.h"

/* Bytes of a log from the first sequence that a lane needs: then inserting waits. */
#define SPOOL ((uint64_t)64 << 30)

/* Bytes of a log's file, at least, where little is retained: each costs some syncs. */
#define FILE_LEAST ((uint64_t)16 << 20)

/* ---- The index's place in the store ---- */

static int load_index(void *arg, const char *name, void **bytes, size_t *size)
{
	const struct segue_stream *stream = arg;

	if (stream->forget_index)
		return segue_fail(SEGUE_ENOTFOUND, "the index '%s' is made anew", name);
	return segue_store_index_load(stream->server->store, name, bytes, size);
}

static int save_index(void *arg, const char *name, const void *bytes, size_t size)
{
	const struct segue_stream *stream = arg;
	struct segue_ops ops = {0};

	int rc = segue_store_index_save(&ops, name, bytes, size);
	if (!rc)
		rc = segue_changes_apply(segue_committer_changes(stream->server->committer), &ops);
	segue_ops_finish(&ops);
	return rc;
}

/* ---- Progress ---- */

/* Progress goes to every session that waits for this stream. */
struct progress {
	struct segue_stream *stream;
	char what[32];
	uint64_t done, total;
};

static void send_progress(void *arg)
{
	struct progress *progress = arg;
	const struct segue_opening *opening;

	LIST_FOREACH(opening, &progress->stream->openings, of_stream) {
		if (opening->answered || !opening->session)
			continue;
		const struct segue_message message = {
			.type = SEGUE_MESSAGE_PROGRESS,
			.serial = opening->serial,
			.progress = {.what = progress->what,
				.done = progress->done,
				.total = progress->total},
		};
		segue_session_send(opening->session, &message, NULL, 0);
	}
	free(progress);
}

/* Who is told, and when it was last. */
struct listeners {
	struct segue_stream *stream;
	int64_t told_at;
};

static void report_progress(void *arg, const char *what, uint64_t done, uint64_t total)
{
	struct listeners *listeners = arg;
	int64_t now = segue_now_ns();

	/* Ten times a second, and the end. */
	if (now - listeners->told_at < 100000000 && done < total)
		return;
	listeners->told_at = now;
	struct progress *progress = calloc(1, sizeof(*progress));
	if (!progress)
		return;
	*progress = (struct progress){.stream = listeners->stream, .done = done, .total = total};
	strncpy(progress->what, what, sizeof(progress->what) - 1);
	segue_loop_post(listeners->stream->server->loop, send_progress, progress);
}

/* ---- The record ---- */

/* The stream's record, if the store has one: the spec is compared before anything long is begun. */
static int find_record(struct segue_stream *stream, bool *found)
{
	struct segue_stream_record record;

	*found = false;
	stream->plan.ends = SEGUE_ENDS(stream->spec->epochs);
	if (!stream->spec->persist)
		return 0;
	int rc = segue_lanes_load_stream(stream->server->store, stream->spec->name, &record);
	if (rc)
		return rc == SEGUE_ENOTFOUND ? 0 : rc;
	*found = true;
	stream->id = record.id;
	memcpy(stream->fingerprint, record.fingerprint, sizeof(stream->fingerprint));
	rc = segue_spec_compare(record.spec, stream->spec);
	stream->plan.ends = record.ends;
	stream->spec->epochs = record.spec->epochs;
	stream->moved =
		!rc && !segue_source_same_paths(&record.spec->source, &stream->spec->source);
	segue_spec_destroy(record.spec);
	return rc ? segue_fail_within(rc, "stream '%s'", stream->spec->name) : 0;
}

/* The stream's record, to be written. */
struct making {
	const struct segue_stream *stream;
	bool exists; /* another opening of that name has made one */
};

/* On the committer's thread. */
static int add_record(void *arg, struct segue_ops *ops)
{
	struct making *making = arg;
	const struct segue_stream *stream = making->stream;
	const struct segue_stream_record record = {
		.id = stream->id,
		.spec = stream->spec,
		.ends = stream->plan.ends,
		.fingerprint = {stream->fingerprint[0], stream->fingerprint[1]},
		.created_ms = segue_unix_ms(),
	};
	uint32_t id;

	int rc = segue_lanes_find_stream(stream->server->store, stream->spec->name, &id);
	if (rc != SEGUE_ENOTFOUND) {
		making->exists = !rc;
		return rc;
	}
	rc = segue_check_given_up(&stream->given_up);
	return rc ? rc : segue_lanes_put_stream(ops, &record);
}

/*
 * `made`: its record has the fingerprint of its data set; else a log among it gets an id, which is
 * nobody else's.
 */
static int open_source(struct segue_stream *stream, bool made)
{
	struct segue_server *server = stream->server;
	struct listeners listeners = {.stream = stream};
	uint64_t log[2];
	char cache[4200];

	segue_random(log, sizeof(log));
	stream->keeper = (struct segue_index_keeper){stream, load_index, save_index};
	snprintf(cache, sizeof(cache), "%s/cache", server->dir);
	const struct segue_opener opener = segue_account_opener(stream->account, &stream->given_up);
	const struct segue_source_means means = {cache, &opener, &stream->keeper, report_progress,
		&listeners, made ? stream->fingerprint : NULL, log};
	return segue_source_driver(stream->spec)->open(stream->spec, &means, &stream->source);
}

static int check_fingerprint(const struct segue_stream *stream, const uint64_t fingerprint[2])
{
	if (memcmp(fingerprint, stream->fingerprint, sizeof(stream->fingerprint)) == 0)
		return 0;
	int rc = stream->source->ops->explain_change(stream->source, stream->fingerprint);
	return segue_fail_within(rc, "stream '%s': its data set has changed", stream->spec->name);
}

/*
 * Makes the stream's record, or takes the one that another opening of that name, which nobody waits
 * for any more, has made since this one looked: *found.
 */
static int bind_record(struct segue_stream *stream, bool *found)
{
	struct making making = {.stream = stream};
	/* The same place for all: a transaction takes one of them. */
	struct segue_change change = {.build = add_record, .arg = &making};

	int rc = segue_changes_make(segue_committer_changes(stream->server->committer), &change);
	return rc || !making.exists ? rc : find_record(stream, found);
}

/* On the committer's thread. */
static int move_record(void *arg, struct segue_ops *ops)
{
	const struct segue_stream *stream = arg;
	struct segue_spec_source source = {.kind = 0};
	struct segue_stream_record record;

	int rc = segue_lanes_load_stream(stream->server->store, stream->spec->name, &record);
	if (rc)
		return rc == SEGUE_ENOTFOUND ? 0 : rc;
	if (record.id == stream->id) {
		rc = segue_source_copy(&stream->spec->source, &source);
		segue_source_finish(&record.spec->source);
		record.spec->source = source;
		if (!rc)
			rc = segue_lanes_put_stream(ops, &record);
	}
	segue_spec_destroy(record.spec);
	return rc;
}

/* Who opens the stream by its name finds the data where they were found last. */
static int keep_place(struct segue_stream *stream)
{
	struct segue_change change = {.build = move_record, .arg = stream};

	return stream->moved ? segue_changes_make(
				       segue_committer_changes(stream->server->committer), &change)
			     : 0;
}

/* Binds the stream to its data set: for good, by the fingerprint in its record. */
static int settle_source(struct segue_stream *stream, bool found)
{
	struct segue_source_stats stats;

	int rc = open_source(stream, found);
	if (rc == SEGUE_ECHANGED && !found) {
		/* The kept index is of files that were there before; no stream of this name was. */
		stream->forget_index = true;
		rc = open_source(stream, found);
	}
	if (rc)
		return rc;
	segue_source_stats(stream->source, &stats);
	if (found) {
		rc = check_fingerprint(stream, stats.fingerprint);
		return rc ? rc : keep_place(stream);
	}
	memcpy(stream->fingerprint, stats.fingerprint, sizeof(stream->fingerprint));
	rc = stream->spec->persist ? bind_record(stream, &found) : 0;
	if (rc || !found)
		return rc;
	/* Its log is that of the record: so all is opened as the record says. */
	stream->source->ops->destroy(stream->source);
	stream->source = NULL;
	stream->forget_index = false;
	return settle_source(stream, found);
}

/* ---- A log ---- */

static void urge_committer(void *arg)
{
	segue_committer_urge(((struct segue_stream *)arg)->server->committer);
}

static uint64_t pinned(void *arg, struct segue_place place)
{
	return segue_committer_pinned(((struct segue_stream *)arg)->server->committer, place);
}

/* A log is given up by whole files: so they are no more than a quarter of what is retained. */
static uint64_t file_bytes(uint64_t retained)
{
	uint64_t bytes = retained / 4 > FILE_LEAST ? retained / 4 : FILE_LEAST;

	return retained && bytes < SEGUE_LOG_FILE_BYTES ? bytes : SEGUE_LOG_FILE_BYTES;
}

/* Of a mix with a log its other parts are open: the log joins them. */
static int open_live(struct segue_stream *stream)
{
	const struct segue_spec *spec = stream->spec;
	const struct segue_spec_log *log = segue_source_find_log(&spec->source);
	uint64_t least = segue_spec_least_capacity(spec);
	uint64_t id[2] = {stream->fingerprint[0], stream->fingerprint[1]};
	char path[PATH_MAX];
	struct segue_live_order order = {
		.spec = spec,
		.dir = path,
		.numbers = SEGUE_MIX_LOG_ALONE,
		.stream = stream->id,
		.store = stream->server->store,
		.changes = segue_committer_changes(stream->server->committer),
		.limits = {.capacity = log->capacity ? log->capacity : least, .spool = SPOOL},
		.file_bytes = file_bytes(log->retain_bytes),
		.retain = {log->retain_sequences, log->retain_bytes},
		.producers = log->producers,
		.covered = urge_committer,
		.pinned = pinned,
		.arg = stream,
	};

	if (stream->source)
		stream->source->ops->log(stream->source, id, &order.numbers);
	_Static_assert(sizeof(order.id) == sizeof(id), "it is the log's id");
	memcpy(order.id, id, sizeof(order.id));
	int rc = segue_live_make_dir(stream->server->dir, path);
	if (rc)
		return rc;
	segue_live_path(stream->server->dir, stream->id, path);
	rc = segue_live_open(&order, &stream->live);
	if (rc)
		return segue_fail_within(rc, "stream '%s'", spec->name);
	if (stream->source)
		stream->source->ops->join(stream->source, segue_live_source(stream->live));
	else
		stream->source = segue_live_source(stream->live);
	return 0;
}

/*
 * A log has nothing before it is made: its id is the stream's fingerprint, by which tokens belong
 * to it. The record comes first; a log that it has and the store knows nothing of is made then.
 */
static int settle_log(struct segue_stream *stream, bool found)
{
	if (found)
		return 0;
	segue_random(stream->fingerprint, sizeof(stream->fingerprint));
	return bind_record(stream, &found);
}

static void set_plan(struct segue_stream *stream)
{
	const struct segue_spec *spec = stream->spec;

	stream->plan = (struct segue_plan_spec){
		.records = stream->source->ops->records(stream->source),
		.ends = stream->plan.ends,
		.first_epoch = spec->first_epoch,
		.seed = spec->seed,
		.lanes = spec->lanes,
		.batch_size = spec->batch_size,
		.num_unroll = segue_spec_unroll(spec),
		.tail = spec->tail,
		.epoch_end = spec->epoch_end,
		.shuffle = spec->shuffle && !segue_source_driver(spec)->orders,
		.lanes_by = spec->lanes_by,
		.boundaries = spec->boundaries,
		.window = segue_spec_window(spec),
	};
}

/* A lane that is too large for a checkpoint is not one to begin a training with. */
static int check_tokens(const struct segue_spec *spec)
{
	uint64_t size = segue_token_max(spec, spec->batch_size);

	if (!spec->persist || size <= SEGUE_STORE_VALUE_MAX)
		return 0;
	return segue_fail(SEGUE_EINVAL,
		"stream '%s': the states of a row have %" PRIu64 " bytes, which with batch_size "
		"%" PRIu32 " makes checkpoints of a lane of up to %" PRIu64
		" bytes; the store takes %" PRIu32 ": give a smaller batch_size, and more lanes "
		"(or persist=False, which "
		"stores nothing)",
		spec->name, segue_row_size(spec), spec->batch_size, size, SEGUE_STORE_VALUE_MAX);
}

static int load_ledgers(struct segue_stream *stream)
{
	struct segue_groups groups;
	int rc = segue_groups_load(stream->server->store, stream->id, &groups);

	stream->ledgers.lanes = stream->spec->lanes;
	for (size_t i = 0; !rc && i < groups.count; i++)
		rc = segue_ledgers_load(&stream->ledgers, stream->server->store, stream->id,
			&groups.group[i], segue_now_ns());
	segue_groups_finish(&groups);
	return rc;
}

int segue_dataset_open(struct segue_task *task)
{
	struct segue_stream *stream = (struct segue_stream *)task;
	bool found;

	int rc = check_tokens(stream->spec);
	if (!rc)
		rc = find_record(stream, &found);
	if (!rc)
		rc = segue_source_driver(stream->spec)->live ? settle_log(stream, found)
							     : settle_source(stream, found);
	if (!rc && segue_source_find_log(&stream->spec->source))
		rc = open_live(stream);
	if (!rc)
		set_plan(stream);
	if (!rc && stream->spec->persist)
		rc = load_ledgers(stream);
	malloc_trim(0); /* an index that was just built has left holes */
	return rc;
}
