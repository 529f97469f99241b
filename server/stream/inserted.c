/* The files of a log whose input has ended. */
#include "stream/inserted.h"

#include <dirent.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "engine/live_dir.h"
#include "session/request.h"
#include "source/log/log.h"
#include "store/lanes.h"
#include "store/logs.h"
#include "stream/streams.h"

struct inserted {
	struct segue_request base;
	struct segue_server *server;
	char stream[SEGUE_NAME_MAX + 1];
	char *paths;
	size_t size;
};

static int fail_no_log(const char *name)
{
	return segue_fail(SEGUE_EINVAL,
		"stream '%s' reads files or arrays as it is: nothing is inserted into it", name);
}

/* Whether it is a data set by now: what has ended stays as it is. */
static int check(const char *name, const struct segue_stored_log *log)
{
	if (!log->end.ended)
		return segue_fail(SEGUE_EINVAL,
			"the input of stream '%s' goes on: end it first (end_input(), "
			"segue_stream_end_input(), or close all of its producers)",
			name);
	if (log->known.first)
		return segue_fail(SEGUE_EINVAL,
			"%" PRIu64 " sequences of stream '%s' were given up: keep all, without "
			"retain_sequences and retain_bytes, to read them again",
			log->known.first, name);
	if (!log->known.synced.number)
		return segue_fail(SEGUE_EINVAL, "nothing was inserted into stream '%s'", name);
	return 0;
}

static int is_file(const struct dirent *entry)
{
	uint64_t first;

	return segue_log_is_name(entry->d_name, &first);
}

/* Their names are numbers of one length. */
static int by_name(const struct dirent **one, const struct dirent **other)
{
	return strcmp((*one)->d_name, (*other)->d_name);
}

static int list(struct inserted *inserted, uint32_t stream)
{
	struct dirent **entry;
	char path[PATH_MAX];
	FILE *out;

	segue_live_path(inserted->server->dir, stream, path);
	int count = scandir(path, &entry, is_file, by_name);
	if (count < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot read %s", path);
	out = open_memstream(&inserted->paths, &inserted->size);
	for (int i = 0; i < count; i++) {
		if (out)
			fprintf(out, "%s/%s%c", path, entry[i]->d_name, '\0');
		free(entry[i]);
	}
	free(entry);
	if (!out || fclose(out) != 0)
		return segue_fail(SEGUE_ENOMEM, "no memory for a list of paths");
	return 0;
}

static int find(struct segue_request *base)
{
	struct inserted *inserted = (struct inserted *)base;
	struct segue_store *store = inserted->server->store;
	struct segue_stored_log log = {0};
	uint32_t stream;

	int rc = segue_lanes_find_stream(store, inserted->stream, &stream);
	if (!rc) {
		rc = segue_logs_load(store, stream, &log);
		if (rc == SEGUE_ENOTFOUND)
			rc = fail_no_log(inserted->stream);
		else if (!rc)
			rc = check(inserted->stream, &log);
		if (!rc)
			rc = list(inserted, stream);
		segue_stored_log_finish(&log);
	}
	return rc;
}

static void answer(struct segue_task *task)
{
	struct inserted *inserted = (struct inserted *)task;

	if (!segue_request_is_over(&inserted->base))
		segue_session_send_bulk(inserted->base.session, inserted->base.serial,
			inserted->paths, inserted->size);
	segue_request_end(&inserted->base);
	free(inserted->paths);
	free(inserted);
}

void segue_inserted_request(struct segue_session *session, const struct segue_message *message)
{
	const char *name = message->stream_files.stream;
	const struct segue_stream *stream = segue_streams_find(session->server, name);
	struct inserted *inserted = NULL;
	int rc = 0;

	if (stream && !stream->spec->persist)
		rc = fail_no_log(name);
	if (!rc && !(inserted = calloc(1, sizeof(*inserted))))
		rc = segue_fail(SEGUE_ENOMEM, "no memory for a list of paths");
	if (!rc) {
		inserted->base.is_long = true;
		inserted->server = session->server;
		snprintf(inserted->stream, sizeof(inserted->stream), "%s", name);
		rc = segue_request_run(&inserted->base, session, message->serial, find, answer);
	}
	if (!rc)
		return;
	free(inserted);
	segue_session_fail(session, message->serial, rc);
}
