/* What a stream that exists is: asked of the server by its name. */
#ifndef SEGUE_CLIENT_FIND_H
#define SEGUE_CLIENT_FIND_H

#include "client/client.h"

/*
 * The spec of the stream: checked, without its source (SEGUE_SOURCE_STORED), `epochs` in all; the
 * caller destroys it. SEGUE_EINVAL: no name; SEGUE_ENOTFOUND: there is no such stream.
 */
int segue_client_find(struct segue_client *client, const char *name, struct segue_spec **out);
/* Whether a state has one initial value for all that is not zeros: of which this is not told. */
bool segue_client_wants_init(const struct segue_spec *spec, size_t state);

#endif
