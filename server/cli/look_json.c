/* A look at a server as JSON. */
#include "cli/look.h"
#include "report/json.h"
#include "report/values.h"

static void put(struct segue_json *json, const char *name, double value)
{
	if (value < 0)
		segue_json_null(json, name);
	else
		segue_json_real(json, name, value, 9);
}

static void put_process(struct segue_json *json, const char *name, int64_t pid)
{
	if (pid > 0)
		segue_json_signed(json, name, pid);
	else
		segue_json_null(json, name);
}

static void put_lane(
	struct segue_json *json, const struct segue_look *look, const struct segue_look_lane *lane)
{
	segue_json_begin(json, NULL, '{');
	segue_json_string(json, "stream", lane->stream);
	segue_json_string(json, "group", lane->group);
	segue_json_unsigned(json, "lane", lane->lane);
	segue_json_string(json, "state", lane->state);
	put_process(json, "pid", lane->holder);
	segue_json_string(json, "script", lane->script);
	put(json, "epoch", lane->epoch);
	put(json, "epochs", lane->epochs);
	segue_json_unsigned(json, "step", lane->committed);
	segue_json_unsigned(json, "step_durable", lane->durable);
	put(json, "batches_per_s", lane->batches_per_s);
	put(json, "worker_waits", lane->worker_waits);
	put(json, "server_waits", lane->server_waits);
	put(json, "ring", lane->ring ? (double)(lane->published - lane->committed) : -1);
	put(json, "depth", lane->ring ? (double)lane->depth : -1);
	put(json, "commit_age_s", segue_look_age(look, lane->committed_at));
	put(json, "checkpoint_age_s", segue_look_age(look, lane->checkpoint_at));
	put(json, "eta_s", lane->eta_s);
	segue_json_bool(json, "ended", lane->ended);
	segue_json_end(json, '}');
}

static void put_stream(struct segue_json *json, const struct segue_look_stream *stream)
{
	segue_json_begin(json, NULL, '{');
	segue_json_string(json, "name", stream->name);
	segue_json_string(json, "state", stream->state);
	put(json, "padding", stream->padding);
	put(json, "exposed_wait", stream->exposed_wait);
	put(json, "exposed_wait_s", stream->exposed_wait_s);
	put_process(json, "exposed_wait_pid", stream->worst);
	segue_json_end(json, '}');
}

static void put_server(struct segue_json *json, const struct segue_look *look)
{
	if (!look->served) {
		segue_json_null(json, "server");
		return;
	}
	segue_json_begin(json, "server", '{');
	segue_json_signed(json, "pid", look->pid);
	segue_json_string(json, "version", look->version);
	put(json, "uptime_s", look->uptime_s);
	put(json, "cpu_s", look->cpu_s);
	put(json, "rss_bytes", look->resident_bytes);
	segue_json_end(json, '}');
}

int segue_look_json(const struct segue_look *look, char **out)
{
	struct segue_json json = {0};

	segue_json_begin(&json, NULL, '{');
	segue_report_put_date(&json, "time", look->at_ms);
	segue_json_string(&json, "dir", look->dir);
	put_server(&json, look);
	if (look->trouble)
		segue_json_string(&json, "trouble", look->trouble);
	else
		segue_json_null(&json, "trouble");
	segue_json_begin(&json, "streams", '[');
	for (size_t i = 0; i < look->stream_count; i++)
		put_stream(&json, &look->stream[i]);
	segue_json_end(&json, ']');
	segue_json_begin(&json, "lanes", '[');
	for (size_t i = 0; i < look->lane_count; i++)
		put_lane(&json, look, &look->lane[i]);
	segue_json_end(&json, ']');
	segue_json_begin(&json, "notes", '[');
	for (size_t i = 0; i < look->note_count; i++)
		segue_json_string(&json, NULL, look->note[i]);
	segue_json_end(&json, ']');
	segue_json_end(&json, '}');
	return segue_json_take(&json, out);
}
