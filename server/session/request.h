/*
 * A request that is answered later: when other threads have worked for it, or its time has come.
 * The first member of what it is about.
 */
#ifndef SEGUE_SESSION_REQUEST_H
#define SEGUE_SESSION_REQUEST_H

#include "session/session.h"

struct segue_request {
	struct segue_task task;
	int (*work)(struct segue_request *request);
	LIST_ENTRY(segue_request) link; /* of the session */
	struct segue_session *session;  /* that waits for the answer; NULL: nobody does */
	struct segue_account *account;  /* of the session; held */
	uint64_t serial;
	_Atomic bool given_up; /* by the loop: nobody waits, or the server is being stopped */
	/* Set by who makes it: */
	bool is_long; /* a connection may have only so many of these */
	bool apart;   /* its work may last for minutes */
};

/*
 * It is under way: the session forgets it when it goes. SEGUE_ELIMIT: the session has too many that
 * are long; SEGUE_EGONE: it is long and the server is being stopped. Nothing is begun then.
 */
int segue_request_begin(
	struct segue_request *request, struct segue_session *session, uint64_t serial);
/*
 * Begins it, and has it done on a thread of the account's: `work`, if nobody has given it up by
 * then, and on the loop's thread `done`, which must end it. Also SEGUE_ENOMEM, SEGUE_ESYSTEM.
 */
int segue_request_run(struct segue_request *request, struct segue_session *session, uint64_t serial,
	int (*work)(struct segue_request *request), void (*done)(struct segue_task *task));
/*
 * Whether nothing is left to be said when its task is done: nobody waits, or the task has failed,
 * which the session is told here.
 */
bool segue_request_is_over(struct segue_request *request);
/* Nobody waits for it any more: what works for it may stop. */
void segue_request_give_up(struct segue_request *request);
/* A segue_interrupt_fn for `work`; `arg` is the request. */
int segue_request_given_up(void *arg);
/* It has been answered, or never will be: the last that is done with it. */
void segue_request_end(struct segue_request *request);

/* The session is gone: nobody waits for any of its requests. */
void segue_requests_session_gone(struct segue_session *session);
/* The server is being stopped: what works for them may stop; they are answered still. */
void segue_requests_give_up(struct segue_server *server);

#endif
