/*
 * Openings: a session's handle of a stream. The same stream for all, its own runtime options.
 *
 * An opening is there until the tick finds that neither its session nor a lease needs it.
 */
#ifndef SEGUE_STREAM_OPENING_H
#define SEGUE_STREAM_OPENING_H

#include "stream/stream.h"

struct segue_opening {
	struct segue_stream *stream;
	LIST_ENTRY(segue_opening) of_stream;
	struct segue_session *session; /* NULL: it has left */
	LIST_ENTRY(segue_opening) of_session;
	uint64_t id;
	struct segue_spec *spec;
	uint32_t ends;   /* of the input, that it knows: when it was answered, or attached last */
	uint64_t serial; /* of the request, until it is answered */
	bool again;      /* its client had the stream open before, on another connection */
	bool answered;
	unsigned uses; /* of its spec: by a lease, a request for one, a checkpoint, a feed */
};

/* What a session asks for. */
struct segue_opening_order {
	struct segue_session *session;
	uint64_t serial;
	struct segue_spec *spec;
	bool again;
};

/* Opens the stream for a session. order->spec is taken over. SEGUE_ENOMEM: it is not. */
int segue_opening_create(struct segue_stream *stream, const struct segue_opening_order *order,
	struct segue_opening **out);
/*
 * Answers what waits for the stream: what it is, or why it could not be opened (`rc` with this
 * thread's detail); then, or if the session has asked for another stream than this, the session
 * leaves it. If the stream is to grow for it, that is done first, and the answer comes later.
 */
void segue_opening_answer(struct segue_opening *opening, int rc);
/* An answered opening of this session. SEGUE_EPROTOCOL: there is none such. */
int segue_opening_find(struct segue_session *session, uint64_t id, struct segue_opening **out);
/* Its session has closed it, or is gone. */
void segue_opening_leave(struct segue_opening *opening);
/* Looks whether anybody still wants what the stream's threads read. */
void segue_openings_judge(struct segue_stream *stream);
/* Frees those that nothing needs. Nobody may look at one just then. */
void segue_openings_sweep(struct segue_stream *stream);

#endif
