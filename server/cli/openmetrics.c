/* OpenMetrics: one table of names, so that each figure has one. */
#include "cli/openmetrics.h"

#include <string.h>

/* ---- Text ---- */

static void put_label(FILE *file, const char *name, const char *value)
{
	fprintf(file, "%s=\"", name);
	for (; *value; value++) {
		if (*value == '\\' || *value == '"')
			fputc('\\', file);
		if (*value == '\n')
			fputs("\\n", file);
		else
			fputc(*value, file);
	}
	fputc('"', file);
}

struct metric {
	const char *name, *help;
	bool counter; /* else a gauge */
};

static void put_head(FILE *file, const struct metric *metric)
{
	fprintf(file, "# TYPE %s %s\n# HELP %s %s\n", metric->name,
		metric->counter ? "counter" : "gauge", metric->name, metric->help);
}

/*
 * Up to the labels that all have: of a machine's stores, which may be in files side by side, each
 * has its own.
 */
static void begin_sample(FILE *file, const struct metric *metric, const struct segue_look *look)
{
	fprintf(file, "%s%s{", metric->name, metric->counter ? "_total" : "");
	put_label(file, "dir", look->dir);
}

/* ---- The server ---- */

static double one(const struct segue_look *look)
{
	return look->served;
}

static double storage_ok(const struct segue_look *look)
{
	return look->served ? look->trouble == NULL : -1;
}

#define OF_SERVER(member)                                                                          \
	static double member(const struct segue_look *look)                                        \
	{                                                                                          \
		return look->served ? look->member : -1;                                           \
	}
OF_SERVER(uptime_s)
OF_SERVER(cpu_s)
OF_SERVER(resident_bytes)
OF_SERVER(sessions)
OF_SERVER(file_bytes)
OF_SERVER(used_bytes)
OF_SERVER(transactions)
OF_SERVER(bytes_put)

static const struct {
	struct metric metric;
	double (*value)(const struct segue_look *look);
} of_server[] = {
	{{"segue_up", "Whether a server answers.", false}, one},
	{{"segue_storage_ok", "Whether the last transaction was written.", false}, storage_ok},
	{{"segue_uptime_seconds", "Time since the server was started.", false}, uptime_s},
	{{"segue_cpu_seconds", "Processor time of the server.", true}, cpu_s},
	{{"segue_resident_bytes", "Memory of the server.", false}, resident_bytes},
	{{"segue_sessions", "Connections of clients, this one included.", false}, sessions},
	{{"segue_store_file_bytes", "Size of the store's file.", false}, file_bytes},
	{{"segue_store_used_bytes", "What of it is in use.", false}, used_bytes},
	{{"segue_store_transactions", "Transactions since the server was started.", true},
		transactions},
	{{"segue_store_written_bytes", "Keys and values that they put.", true}, bytes_put},
};

static void put_server(const struct segue_look *look, FILE *file)
{
	for (size_t i = 0; i < sizeof(of_server) / sizeof(of_server[0]); i++) {
		const struct metric *metric = &of_server[i].metric;
		double value = of_server[i].value(look);
		put_head(file, metric);
		if (value < 0)
			continue;
		begin_sample(file, metric, look);
		fprintf(file, "} %.15g\n", value);
	}
}

/* ---- Streams ---- */

static double skipped(const struct segue_look_stream *stream)
{
	return stream->skipped;
}

static double accepted(const struct segue_look_stream *stream)
{
	return stream->accepted;
}

static double synced(const struct segue_look_stream *stream)
{
	return stream->synced;
}

static const struct {
	struct metric metric;
	double (*value)(const struct segue_look_stream *stream);
} of_stream[] = {
	{{"segue_stream_skipped_records", "Records that were passed over.", true}, skipped},
	{{"segue_log_accepted_sequences", "Sequences inserted.", true}, accepted},
	{{"segue_log_synced_sequences", "Those of them that are on disk.", true}, synced},
};

/* Of one that is being dropped another may have the name already. */
static void put_streams(const struct segue_look *look, FILE *file)
{
	for (size_t i = 0; i < sizeof(of_stream) / sizeof(of_stream[0]); i++) {
		const struct metric *metric = &of_stream[i].metric;
		put_head(file, metric);
		for (size_t j = 0; j < look->stream_count; j++) {
			const struct segue_look_stream *stream = &look->stream[j];
			double value = of_stream[i].value(stream);
			if (value < 0 || strcmp(stream->state, "dropped") == 0)
				continue;
			begin_sample(file, metric, look);
			fputc(',', file);
			put_label(file, "stream", stream->name);
			fprintf(file, "} %.15g\n", value);
		}
	}
}

/* ---- Lanes ---- */

static double held(const struct segue_look_lane *lane)
{
	return strcmp(lane->state, "held") == 0;
}

static double batches(const struct segue_look_lane *lane)
{
	return (double)lane->committed;
}

static double durable(const struct segue_look_lane *lane)
{
	return (double)lane->durable;
}

static double ring(const struct segue_look_lane *lane)
{
	return lane->ring ? (double)(lane->published - lane->committed) : -1;
}

static double depth(const struct segue_look_lane *lane)
{
	return lane->ring ? (double)lane->depth : -1;
}

static double ring_bytes(const struct segue_look_lane *lane)
{
	return lane->ring ? (double)lane->ring_bytes : -1;
}

static double steps(const struct segue_look_lane *lane)
{
	return lane->ring ? (double)lane->steps : -1;
}

static double padding(const struct segue_look_lane *lane)
{
	return segue_look_padding(lane) < 0 ? -1 : (double)(lane->steps - lane->steps_valid);
}

static double ended(const struct segue_look_lane *lane)
{
	return lane->ring ? lane->ended : -1;
}

#define OF_LANE(member)                                                                            \
	static double member(const struct segue_look_lane *lane)                                   \
	{                                                                                          \
		return lane->member;                                                               \
	}
OF_LANE(worker_waits_s)
OF_LANE(server_waits_s)
OF_LANE(behind)
OF_LANE(epoch)
OF_LANE(sequences)
OF_LANE(sequences_done)
OF_LANE(committed_at)
OF_LANE(checkpoint_at)

static const struct {
	struct metric metric;
	double (*value)(const struct segue_look_lane *lane);
} of_lane[] = {
	{{"segue_lane_held", "Whether a worker has the lane.", false}, held},
	{{"segue_lane_batches", "Batches committed: the lane's step.", true}, batches},
	{{"segue_lane_durable_batches", "Batches whose commit is on disk.", true}, durable},
	{{"segue_lane_epoch", "Epoch of the oldest sequence on its way, from 0.", false}, epoch},
	{{"segue_lane_sequences", "Sequences in all; not there if that is not known.", false},
		sequences},
	{{"segue_lane_done_sequences", "Sequences done, with parts of those on their way.", false},
		sequences_done},
	{{"segue_lane_ended", "Whether its last batch is filled.", false}, ended},
	{{"segue_lane_worker_wait_seconds", "Time that the worker has waited for batches.", true},
		worker_waits_s},
	{{"segue_lane_server_wait_seconds", "Time that the ring was full.", true}, server_waits_s},
	{{"segue_lane_ring_batches", "Batches filled and not committed.", false}, ring},
	{{"segue_lane_ring_depth_batches", "Batches that there is room for.", false}, depth},
	{{"segue_lane_ring_bytes", "Shared memory of the ring.", false}, ring_bytes},
	{{"segue_lane_steps", "Rows times time steps of the batches filled.", true}, steps},
	{{"segue_lane_padding_steps", "Those of them that are padding.", true}, padding},
	{{"segue_lane_behind_sequences", "Sequences inserted and not finished.", false}, behind},
	{{"segue_lane_last_commit_timestamp_seconds", "When what is on disk was committed.", false},
		committed_at},
	{{"segue_lane_last_checkpoint_timestamp_seconds",
		 "When the newest stored checkpoint was made.", false},
		checkpoint_at},
};

static void put_lanes(const struct segue_look *look, FILE *file)
{
	for (size_t i = 0; i < sizeof(of_lane) / sizeof(of_lane[0]); i++) {
		const struct metric *metric = &of_lane[i].metric;
		put_head(file, metric);
		for (size_t j = 0; j < look->lane_count; j++) {
			const struct segue_look_lane *lane = &look->lane[j];
			double value = of_lane[i].value(lane);
			if (value < 0)
				continue;
			begin_sample(file, metric, look);
			fputc(',', file);
			put_label(file, "stream", lane->stream);
			fputc(',', file);
			put_label(file, "group", lane->group);
			fprintf(file, ",lane=\"%ju\"} %.15g\n", (uintmax_t)lane->lane, value);
		}
	}
}

void segue_openmetrics_write(const struct segue_look *look, FILE *file)
{
	put_server(look, file);
	if (look->served) {
		put_streams(look, file);
		put_lanes(look, file);
	}
	fputs("# EOF\n", file);
}
