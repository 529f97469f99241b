/* Requests that are answered later. */
#include "session/request.h"

#include <stdatomic.h>

#include "core/error.h"

enum { LONG_REQUESTS_MAX = 256 };

int segue_request_begin(
	struct segue_request *request, struct segue_session *session, uint64_t serial)
{
	if (request->is_long && session->server->stopping) /* the client asks the next one */
		return segue_fail(SEGUE_EGONE, "the server is being stopped");
	if (request->is_long && session->long_requests >= LONG_REQUESTS_MAX)
		return segue_fail(SEGUE_ELIMIT,
			"%u reports and checkpoints that this connection has asked for are under "
			"way: the limit is %d; wait for some of them",
			session->long_requests, LONG_REQUESTS_MAX);
	session->long_requests += request->is_long;
	request->session = session;
	request->account = segue_account_hold(session->account);
	request->serial = serial;
	LIST_INSERT_HEAD(&session->requests, request, link);
	return 0;
}

/* The session knows it no more. */
static void leave_session(struct segue_request *request)
{
	if (!request->session)
		return;
	LIST_REMOVE(request, link);
	request->session->long_requests -= request->is_long;
	request->session = NULL;
}

static int run(struct segue_task *task)
{
	struct segue_request *request = (struct segue_request *)task;

	return segue_request_given_up(request)
		       ? segue_fail(SEGUE_EGONE, "the server is being stopped")
		       : request->work(request);
}

int segue_request_run(struct segue_request *request, struct segue_session *session, uint64_t serial,
	int (*work)(struct segue_request *request), void (*done)(struct segue_task *task))
{
	int rc = segue_request_begin(request, session, serial);

	if (rc)
		return rc;
	request->work = work;
	request->task.work = run;
	request->task.done = done;
	rc = segue_account_run(request->account, &request->task, request->apart);
	if (rc)
		segue_request_end(request);
	return rc;
}

bool segue_request_is_over(struct segue_request *request)
{
	const struct segue_outcome *outcome = &request->task.outcome;

	if (request->session && outcome->rc)
		segue_session_fail(request->session, request->serial, segue_outcome_give(outcome));
	return !request->session || outcome->rc;
}

static void mark_given_up(struct segue_request *request)
{
	/* relaxed: a hint */
	atomic_store_explicit(&request->given_up, true, memory_order_relaxed);
}

void segue_request_give_up(struct segue_request *request)
{
	mark_given_up(request);
	leave_session(request);
}

int segue_request_given_up(void *arg)
{
	struct segue_request *request = arg;

	return atomic_load_explicit(&request->given_up, memory_order_relaxed);
}

void segue_request_end(struct segue_request *request)
{
	leave_session(request);
	segue_account_release(request->account);
	request->account = NULL;
}

void segue_requests_session_gone(struct segue_session *session)
{
	while (!LIST_EMPTY(&session->requests))
		segue_request_give_up(LIST_FIRST(&session->requests));
}

void segue_requests_give_up(struct segue_server *server)
{
	struct segue_session *session;
	struct segue_request *request;

	LIST_FOREACH(session, &server->sessions->all, link) {
		LIST_FOREACH(request, &session->requests, link)
			mark_given_up(request);
	}
}
