/* Requests for a report: STATUS is made at once, those of the store on a thread of the user's. */
#include "report/request.h"

#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "report/batches.h"
#include "report/contents.h"
#include "report/states.h"
#include "report/status.h"
#include "report/verifier.h"
#include "session/request.h"

int segue_report_store(struct segue_store *store, const char *dir, enum segue_report what,
	const char *stream, const char *key, char **out)
{
	return what == SEGUE_REPORT_GET ? segue_report_get(store, dir, stream, key, out)
					: segue_report_inspect(store, dir, stream, out);
}

/* A report of the store. */
struct request {
	struct segue_request base;
	struct segue_server *server;
	enum segue_report what;
	char *stream, *key;
	char *text; /* may be there in spite of an error: what VERIFY found */
};

static void destroy_request(struct request *request)
{
	free(request->stream);
	free(request->key);
	free(request->text);
	free(request);
}

static void answer(struct segue_task *task)
{
	struct request *request = (struct request *)task;

	/* What VERIFY found is told in spite of its error. */
	if (request->base.session && request->text)
		segue_session_send_bulk(request->base.session, request->base.serial, request->text,
			strlen(request->text));
	else
		segue_request_is_over(&request->base);
	segue_request_end(&request->base);
	destroy_request(request);
}

static int make_report(struct segue_request *base)
{
	struct request *request = (struct request *)base;
	const struct segue_verifier how = {.interrupt = segue_request_given_up, .arg = request};
	struct segue_server *server = request->server;

	if (request->what == SEGUE_REPORT_VERIFY)
		return segue_verifier_run(server->dir, &how, &request->text);
	return segue_report_store(server->store, server->dir, request->what, request->stream,
		request->key, &request->text);
}

static void answer_status(struct segue_session *session, const struct segue_message *message)
{
	char *text;

	int rc = segue_report_status(session->server, message->report.stream, &text);
	if (rc) {
		segue_session_fail(session, message->serial, rc);
		return;
	}
	segue_session_send_bulk(session, message->serial, text, strlen(text));
	free(text);
}

void segue_report_request(struct segue_session *session, const struct segue_message *message)
{
	if (message->report.what == SEGUE_REPORT_STATUS) {
		answer_status(session, message);
		return;
	}
	if (message->report.what == SEGUE_REPORT_BATCHES) {
		segue_report_batches(session, message);
		return;
	}
	struct request *request = calloc(1, sizeof(*request));
	int rc = 0;
	if (request)
		*request = (struct request){
			.base = {.is_long = true,
				.apart = message->report.what == SEGUE_REPORT_VERIFY},
			.server = session->server,
			.what = message->report.what,
			.stream = strdup(message->report.stream),
			.key = strdup(message->report.key),
		};
	if (!request || !request->stream || !request->key)
		rc = segue_fail(SEGUE_ENOMEM, "no memory for a report");
	if (!rc)
		rc = segue_request_run(
			&request->base, session, message->serial, make_report, answer);
	if (!rc)
		return;
	if (request)
		destroy_request(request);
	segue_session_fail(session, message->serial, rc);
}
