/* States by record key: asked for on a helper, changed by the committer. */
#include "stream/by_key.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/wait.h"
#include "engine/committer.h"
#include "session/request.h"
#include "session/upload.h"
#include "store/by_key_list.h"
#include "store/groups.h"
#include "stream/drop.h"
#include "stream/streams.h"

struct keyed {
	struct segue_request base;
	struct segue_server *server;
	enum segue_states_request what;
	char stream[SEGUE_NAME_MAX + 1], group[SEGUE_NAME_MAX + 1];
	struct segue_place place; /* of all lanes of the group */
	char key[SEGUE_KEY_MAX + 1];
	bool live, again;
	struct segue_upload *upload;    /* put; or NULL */
	struct segue_lane_known *known; /* owned: of each lane; NULL: the stream is not open */
	struct segue_holder asking;
	uint8_t *states; /* put; owned */
	size_t states_size;
	struct segue_keyed_page page; /* get, list */
};

static void destroy(struct keyed *keyed)
{
	segue_upload_destroy(keyed->upload);
	free(keyed->known);
	free(keyed->states);
	free(keyed->page.bytes);
	free(keyed);
}

/* ---- On a helper ---- */

static int read_page(struct keyed *keyed)
{
	struct segue_store *store = keyed->server->store;
	struct segue_stream_record stream;
	uint32_t group;

	int rc = segue_lanes_load_stream(store, keyed->stream, &stream);
	if (rc)
		return rc;
	rc = segue_groups_number(store, stream.id, keyed->stream, keyed->group, &group);
	if (!rc && keyed->what == SEGUE_STATES_REQUEST_GET)
		rc = segue_by_key_get(store, &stream, group, keyed->key, keyed->live, &keyed->page);
	else if (!rc)
		rc = segue_by_key_list(store, &stream, group, keyed->live, &keyed->page);
	if (!rc)
		rc = segue_keyed_page_finish(&keyed->page);
	segue_spec_destroy(stream.spec);
	return rc;
}

static int find_place(const struct keyed *keyed, struct segue_place *out)
{
	struct segue_store *store = keyed->server->store;

	int rc = segue_lanes_find_stream(store, keyed->stream, &out->stream);
	if (!rc)
		rc = segue_groups_number(
			store, out->stream, keyed->stream, keyed->group, &out->group);
	out->lane = SEGUE_LANES_ALL;
	return rc;
}

/* On the committer's thread. */
static int add_put(void *arg, struct segue_ops *ops)
{
	struct keyed *keyed = arg;
	const struct segue_by_key_put put = {
		.stream = keyed->stream,
		.group = keyed->place.group,
		.key = keyed->key,
		.key_size = strlen(keyed->key),
		.states = keyed->states,
		.row_size = keyed->states_size,
		.again = keyed->again,
		.known = keyed->known,
		.asking = &keyed->asking,
	};
	struct segue_place place;

	int rc = find_place(keyed, &place);
	if (!rc && !segue_place_same(place, keyed->place))
		rc = segue_fail(SEGUE_EBUSY,
			"group '%s' of stream '%s' was dropped and made anew just now: try again",
			keyed->group, keyed->stream);
	return rc ? rc : segue_by_key_put(ops, keyed->server->store, &put);
}

static int change(struct keyed *keyed)
{
	struct segue_change change = {.build = add_put, .arg = keyed};
	int rc = keyed->upload
			 ? segue_upload_read(keyed->upload, &keyed->states, &keyed->states_size)
			 : 0;

	if (!rc)
		rc = find_place(keyed, &keyed->place);
	change.place = keyed->place;
	return rc ? rc
		  : segue_changes_make(segue_committer_changes(keyed->server->committer), &change);
}

static int work(struct segue_request *base)
{
	struct keyed *keyed = (struct keyed *)base;
	bool reads =
		keyed->what == SEGUE_STATES_REQUEST_GET || keyed->what == SEGUE_STATES_REQUEST_LIST;

	return reads ? read_page(keyed) : change(keyed);
}

/* ---- On the loop ---- */

static void answer(struct segue_task *task)
{
	struct keyed *keyed = (struct keyed *)task;
	struct segue_session *session = keyed->base.session;
	uint64_t serial = keyed->base.serial;

	if (!segue_request_is_over(&keyed->base)) {
		if (keyed->page.bytes)
			segue_session_send_bulk(
				session, serial, keyed->page.bytes, keyed->page.size);
		else
			segue_session_send_done(session, serial);
	}
	segue_request_end(&keyed->base);
	destroy(keyed);
}

/* Of an open stream its ledgers say who has which lane: the store may say less, or more. */
static int note_lanes(struct keyed *keyed)
{
	const struct segue_stream *stream = segue_streams_find(keyed->server, keyed->stream);
	struct segue_ledger_group *group;

	if (!stream || stream->state != SEGUE_STREAM_OPEN || !stream->spec->persist)
		return 0;
	group = segue_ledgers_find_group(&stream->ledgers, keyed->group);
	if (!group) /* the store says whether there is one */
		return 0;
	keyed->known = calloc(stream->ledgers.lanes, sizeof(*keyed->known));
	if (!keyed->known)
		return segue_fail(SEGUE_ENOMEM, "no memory for %u lanes", stream->ledgers.lanes);
	for (uint32_t lane = 0; lane < stream->ledgers.lanes; lane++) {
		struct segue_lease *lease = &group->of_lane[lane].lease;
		if (lease->state == SEGUE_LEASE_RESERVED)
			segue_lease_expire(
				lease, segue_process_presence(&lease->holder), segue_now_ns());
		bool own = lease->state == SEGUE_LEASE_RESERVED &&
			   segue_holder_same(&lease->holder, &keyed->asking);
		keyed->known[lane].generation = lease->generation;
		keyed->known[lane].held = lease->state != SEGUE_LEASE_FREE && !own;
		keyed->known[lane].pid = lease->holder.pid;
	}
	return 0;
}

static int start(
	struct segue_session *session, const struct segue_message *message, struct keyed *keyed)
{
	bool puts = keyed->what == SEGUE_STATES_REQUEST_PUT;
	bool changes = puts || keyed->what == SEGUE_STATES_REQUEST_DELETE;
	bool one = keyed->what != SEGUE_STATES_REQUEST_LIST;

	int rc = segue_upload_take(session, message->states.upload, &keyed->upload);
	if (!rc && puts != (keyed->upload != NULL))
		rc = segue_fail(
			SEGUE_EPROTOCOL, "states are put with an upload, and nothing else is");
	if (!rc && one != (keyed->key[0] != '\0'))
		rc = segue_fail(SEGUE_EPROTOCOL, "a key is given, or a list is asked for");
	if (!rc)
		rc = segue_drops_check(session->server, keyed->stream, keyed->group);
	if (!rc && changes)
		rc = note_lanes(keyed);
	return rc ? rc : segue_request_run(&keyed->base, session, message->serial, work, answer);
}

void segue_by_key_request(struct segue_session *session, const struct segue_message *message)
{
	struct keyed *keyed = calloc(1, sizeof(*keyed));

	if (!keyed) {
		segue_session_fail(session, message->serial,
			segue_fail(SEGUE_ENOMEM, "no memory for the states under a key"));
		return;
	}
	keyed->base.is_long = true;
	keyed->server = session->server;
	keyed->what = message->states.what;
	keyed->asking = session->holder;
	keyed->live = message->states.live;
	keyed->again = message->states.again;
	keyed->page.head.lane = message->states.lane;
	memcpy(keyed->page.head.at, message->states.at, sizeof(message->states.at));
	snprintf(keyed->stream, sizeof(keyed->stream), "%s", message->states.stream);
	snprintf(keyed->group, sizeof(keyed->group), "%s", message->states.group);
	snprintf(keyed->key, sizeof(keyed->key), "%s", message->states.key);
	int rc = start(session, message, keyed);
	if (rc) {
		segue_session_fail(session, message->serial, rc);
		destroy(keyed);
	}
}
