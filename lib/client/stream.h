/* A stream: a shape, and the stream's id on the connection of its epoch. */
#ifndef SEGUE_CLIENT_STREAM_H
#define SEGUE_CLIENT_STREAM_H

#include "client/client.h"
#include "client/shape.h"

struct segue_stream {
	struct segue_client *client;
	unsigned users; /* the handle, and each lane */
	struct segue_shape *shape;
	uint64_t epoch; /* of the connection on which `id` is valid */
	uint64_t id;
	uint64_t records;
	uint64_t token_needs, token_first; /* of the last token: segue_stream_token_needs() */
	bool as_it_is; /* its epochs are those that it had: if it has grown since, that is fine */
};

/* segue_stream_open() of a spec whose epochs are those that the stream was found with. */
int segue_stream_open_as_it_is(
	struct segue_client *client, const struct segue_spec *spec, struct segue_stream **out);

/* One user less; the last frees it. */
void segue_stream_drop(struct segue_stream *stream);
/* Within an attempt: opens the stream on this connection if that is not done yet. */
int segue_stream_ready(struct segue_stream *stream);

#endif
