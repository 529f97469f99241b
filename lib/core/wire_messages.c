/* The messages: a table of each one's fields. What a field may be is said here and nowhere else. */
#include <assert.h>
#include <inttypes.h>
#include <limits.h>

#include "core/error.h"
#include "core/wire.h"
#include "core/wire_pb.h"
#include "core/wire_spec.h"

/* For the texts of a message that is being packed. */
#define SCRATCH_TEXT (8u << 10)

/* ---- Fields ---- */

#define NUMBER(pb, message, member, KIND, least, most)                                             \
	SEGUE_PB_NUMBER(pb, member, struct segue_message, message.member, KIND, least, most)
#define FIELD(pb, message, member, KIND, most)                                                     \
	SEGUE_PB_FIELD(pb, member, struct segue_message, message.member, KIND, 0, most)
#define END                                                                                        \
	{                                                                                          \
		.name = NULL                                                                       \
	}
#define ANY32(pb, message, member) NUMBER(pb, message, member, UINT32, 0, UINT32_MAX)
#define ANY64(pb, message, member) NUMBER(pb, message, member, UINT64, 0, UINT64_MAX)
#define OTHER64(pb, member, path)                                                                  \
	SEGUE_PB_FIELD(pb, member, struct segue_message, path, UINT64, 0, UINT64_MAX)
#define TIME(pb, message, member)       NUMBER(pb, message, member, TIME, 0, INT64_MAX)
#define LANE(pb, message)               NUMBER(pb, message, lane, UINT32, 0, SEGUE_LANES_MAX - 1)
#define TEXT(pb, message, member)       FIELD(pb, message, member, TEXT, SEGUE_NAME_MAX)
#define NAME(pb, message, member)       FIELD(pb, message, member, NAME, SEGUE_NAME_MAX)
#define ENUM(pb, message, member, a, b) NUMBER(pb, message, member, UINT32, a, b)
#define TOKEN(pb, message)              FIELD(pb, message, token, BYTES, SEGUE_TOKEN_BYTES)

static const struct segue_pb_field hello[] = {
	ANY32(Hello, hello, protocol),
	ANY32(Hello, hello, layout_version),
	TEXT(Hello, hello, version),
	TEXT(Hello, hello, program),
	END,
};
/* And the spec. */
static const struct segue_pb_field stream_open[] = {
	ANY64(StreamOpen, stream_open, paths_upload),
	ANY64(StreamOpen, stream_open, index_upload),
	FIELD(StreamOpen, stream_open, again, BOOL, 0),
	FIELD(StreamOpen, stream_open, stored, BOOL, 0),
	END,
};
/* And the token of an offer. */
static const struct segue_pb_field lane_attach[] = {
	ANY64(LaneAttach, lane_attach, stream),
	LANE(LaneAttach, lane_attach),
	ANY32(LaneAttach, lane_attach, group),
	ENUM(LaneAttach, lane_attach, mode, SEGUE_ATTACH_NONE, SEGUE_ATTACH_RESIZE),
	ANY64(LaneAttach, lane_attach, upload),
	ANY64(LaneAttach, lane_attach, step),
	ANY64(LaneAttach, lane_attach, lease),
	TIME(LaneAttach, lane_attach, timeout_ns),
	FIELD(LaneAttach, lane_attach, take, BOOL, 0),
	ENUM(LaneAttach, lane_attach, any, SEGUE_ANY_NOT, SEGUE_ANY_CHOOSE),
	NUMBER(LaneAttach, lane_attach, batch_size, UINT32, 0, SEGUE_ROWS_MAX),
	NUMBER(LaneAttach, lane_attach, replicas, UINT32, 0, SEGUE_REPLICAS_MAX),
	OTHER64(LaneAttach, seen, lane_attach.seen.number),
	OTHER64(LaneAttach, seen_low, lane_attach.seen.hash[0]),
	OTHER64(LaneAttach, seen_high, lane_attach.seen.hash[1]),
	END,
};
static const struct segue_pb_field lane_follow[] = {
	ANY64(LaneFollow, lane_follow, stream),
	LANE(LaneFollow, lane_follow),
	ANY32(LaneFollow, lane_follow, group),
	NUMBER(LaneFollow, lane_follow, replica, UINT32, 1, SEGUE_REPLICAS_MAX - 1),
	NUMBER(LaneFollow, lane_follow, replicas, UINT32, 2, SEGUE_REPLICAS_MAX),
	ANY64(LaneFollow, lane_follow, step),
	ANY64(LaneFollow, lane_follow, generation),
	TIME(LaneFollow, lane_follow, timeout_ns),
	END,
};
static const struct segue_pb_field lane_detach[] = {
	ANY64(LaneDetach, lane_detach, lease),
	END,
};
static const struct segue_pb_field lane_flush[] = {
	ANY64(LaneFlush, lane_flush, lease),
	END,
};
static const struct segue_pb_field lane_side[] = {
	ANY64(LaneSide, lane_side, lease),
	ANY64(LaneSide, lane_side, step),
	END,
};
static const struct segue_pb_field upload[] = {
	ANY64(Upload, upload, size),
	END,
};
static const struct segue_pb_field checkpoint[] = {
	ANY64(Checkpoint, checkpoint, stream),
	LANE(Checkpoint, checkpoint),
	ANY32(Checkpoint, checkpoint, group),
	ANY64(Checkpoint, checkpoint, step),
	TIME(Checkpoint, checkpoint, timeout_ns),
	END,
};
static const struct segue_pb_field stored[] = {
	NAME(Stored, stored, stream),
	LANE(Stored, stored),
	ANY64(Stored, stored, id),
	FIELD(Stored, stored, remove, BOOL, 0),
	NAME(Stored, stored, group),
	END,
};
static const struct segue_pb_field report[] = {
	ENUM(Report, report, what, SEGUE_REPORT_STATUS, SEGUE_REPORT_BATCHES),
	NAME(Report, report, stream),
	FIELD(Report, report, key, STRING, SEGUE_KEY_MAX),
	END,
};
static const struct segue_pb_field states[] = {
	ENUM(States, states, what, SEGUE_STATES_REQUEST_GET, SEGUE_STATES_REQUEST_DELETE),
	NAME(States, states, stream),
	FIELD(States, states, key, STRING, SEGUE_KEY_MAX),
	FIELD(States, states, live, BOOL, 0),
	FIELD(States, states, again, BOOL, 0),
	ANY64(States, states, upload),
	LANE(States, states),
	OTHER64(States, high, states.at[0]),
	OTHER64(States, low, states.at[1]),
	NAME(States, states, group),
	END,
};
static const struct segue_pb_field group[] = {
	ANY64(Group, group, stream),
	NAME(Group, group, name),
	END,
};
static const struct segue_pb_field stream_close[] = {
	ANY64(StreamClose, stream_close, stream),
	END,
};
static const struct segue_pb_field stream_drop[] = {
	NAME(StreamDrop, stream_drop, stream),
	NAME(StreamDrop, stream_drop, group),
	END,
};
static const struct segue_pb_field stream_files[] = {
	NAME(StreamFiles, stream_files, stream),
	END,
};
static const struct segue_pb_field producer_open[] = {
	ANY64(ProducerOpen, producer_open, stream),
	ANY64(ProducerOpen, producer_open, ring),
	NAME(ProducerOpen, producer_open, producer),
	TOKEN(ProducerOpen, producer_open),
	FIELD(ProducerOpen, producer_open, takeover, BOOL, 0),
	END,
};
static const struct segue_pb_field insert[] = {
	ANY64(Insert, insert, producer),
	ANY64(Insert, insert, entry),
	ANY64(Insert, insert, upload),
	ANY64(Insert, insert, offset),
	ANY64(Insert, insert, bytes),
	NUMBER(Insert, insert, steps, UINT64, 1, UINT32_MAX),
	ANY64(Insert, insert, total_length),
	NUMBER(Insert, insert, key_size, UINT32, 1, SEGUE_KEY_MAX),
	NUMBER(Insert, insert, cursor_size, UINT32, 0, SEGUE_SEQLOG_CURSOR_MAX),
	END,
};
static const struct segue_pb_field producer_wait[] = {
	ANY64(ProducerWait, producer_wait, producer),
	ANY64(ProducerWait, producer_wait, entry),
	FIELD(ProducerWait, producer_wait, look, BOOL, 0),
	END,
};
static const struct segue_pb_field producer_leave[] = {
	ANY64(ProducerLeave, producer_leave, producer),
	FIELD(ProducerLeave, producer_leave, close, BOOL, 0),
	END,
};
static const struct segue_pb_field stream_end[] = {
	ANY64(StreamEnd, stream_end, stream),
	END,
};
static const struct segue_pb_field input_failed[] = {
	ANY64(InputFailed, input_failed, stream),
	FIELD(InputFailed, input_failed, reason, TEXT, SEGUE_DETAIL_MAX),
	END,
};
static const struct segue_pb_field producer_opened[] = {
	ANY64(ProducerOpened, producer_opened, producer),
	ANY64(ProducerOpened, producer_opened, entry),
	NUMBER(ProducerOpened, producer_opened, cursor_size, UINT32, 0, SEGUE_SEQLOG_CURSOR_MAX),
	END,
};
static const struct segue_pb_field grouped[] = {
	ANY32(Grouped, grouped, group),
	END,
};
static const struct segue_pb_field acknowledged[] = {
	ANY64(Acknowledged, acknowledged, entry),
	END,
};
static const struct segue_pb_field stream_find[] = {
	NAME(StreamFind, stream_find, stream),
	END,
};
static const struct segue_pb_field welcome[] = {
	ANY32(Welcome, welcome, protocol),
	ANY32(Welcome, welcome, layout_version),
	TEXT(Welcome, welcome, version),
	NUMBER(Welcome, welcome, pid, INT64, 0, 0),
	ANY64(Welcome, welcome, instance),
	FIELD(Welcome, welcome, dir, STRING, PATH_MAX),
	ANY64(Welcome, welcome, device),
	ANY64(Welcome, welcome, inode),
	END,
};
static const struct segue_pb_field opened[] = {
	ANY64(Opened, opened, stream),
	ANY64(Opened, opened, records),
	NUMBER(Opened, opened, key_max, UINT32, 0, SEGUE_KEY_MAX),
	ANY64(Opened, opened, layout_hash),
	END,
};
/* And the spec. */
static const struct segue_pb_field found[] = {END};
static const struct segue_pb_field attached[] = {
	ANY64(Attached, attached, lease),
	ANY64(Attached, attached, generation),
	TOKEN(Attached, attached),
	ANY64(Attached, attached, step),
	NUMBER(Attached, attached, rows, UINT32, 0, SEGUE_ROWS_MAX),
	NUMBER(Attached, attached, places, UINT32, 1, SEGUE_ROWS_MAX),
	NUMBER(Attached, attached, batch_size, UINT32, 0, SEGUE_ROWS_MAX),
	LANE(Attached, attached),
	END,
};
static const struct segue_pb_field following[] = {
	ANY64(Following, attached, lease),
	ANY64(Following, attached, generation),
	ANY64(Following, attached, step),
	NUMBER(Following, attached, rows, UINT32, 0, SEGUE_ROWS_MAX),
	NUMBER(Following, attached, places, UINT32, 1, SEGUE_ROWS_MAX),
	NUMBER(Following, attached, batch_size, UINT32, 0, SEGUE_ROWS_MAX),
	ANY32(Following, attached, taken),
	END,
};
static const struct segue_pb_field done[] = {END};
static const struct segue_pb_field bulk[] = {
	ANY64(Bulk, bulk, id),
	ANY64(Bulk, bulk, size),
	ANY64(Bulk, bulk, step),
	ANY64(Bulk, bulk, needs),
	ANY64(Bulk, bulk, first),
	END,
};
static const struct segue_pb_field progress[] = {
	TEXT(Progress, progress, what),
	ANY64(Progress, progress, done),
	ANY64(Progress, progress, total),
	END,
};
static const struct segue_pb_field failure[] = {
	FIELD(Failure, failure, code, CODE, 0),
	FIELD(Failure, failure, detail, TEXT, SEGUE_DETAIL_MAX),
	END,
};

/* ---- What is no plain field ---- */

static void put_stream_open(
	const struct segue_message *message, struct segue_arena *scratch, ProtobufCMessage *to)
{
	enum segue_pb_parts parts = message->stream_open.stored         ? SEGUE_PB_NO_SOURCE
				    : message->stream_open.paths_upload ? SEGUE_PB_NO_PATHS
									: SEGUE_PB_ALL;

	((Segue__Pb__StreamOpen *)to)->spec =
		segue_pb_put_spec(scratch, message->stream_open.spec, parts);
}

static int get_stream_open(const ProtobufCMessage *from, struct segue_message *out)
{
	const Segue__Pb__StreamOpen *pb = (const Segue__Pb__StreamOpen *)from;

	if (pb->paths_upload != 0 && segue_pb_spec_has_paths(pb->spec))
		return segue_fail(SEGUE_EPROTOCOL,
			"stream_open has paths in the spec and in upload %" PRIu64,
			pb->paths_upload);
	if (pb->stored && (pb->paths_upload || pb->index_upload))
		return segue_fail(SEGUE_EPROTOCOL,
			"stream_open has an upload for the source that the stream has");
	return segue_pb_get_spec(
		pb->spec, pb->stored ? SEGUE_PB_NO_SOURCE : SEGUE_PB_ALL, &out->stream_open.spec);
}

static void put_found(
	const struct segue_message *message, struct segue_arena *scratch, ProtobufCMessage *to)
{
	((Segue__Pb__Found *)to)->spec =
		segue_pb_put_spec(scratch, message->found.spec, SEGUE_PB_NO_SOURCE);
}

static int get_found(const ProtobufCMessage *from, struct segue_message *out)
{
	return segue_pb_get_spec(
		((const Segue__Pb__Found *)from)->spec, SEGUE_PB_NO_SOURCE, &out->found.spec);
}

/* The lease's token is a secret: it goes with an offer alone. */
static void put_lane_attach(
	const struct segue_message *message, struct segue_arena *scratch, ProtobufCMessage *to)
{
	Segue__Pb__LaneAttach *pb = (Segue__Pb__LaneAttach *)to;

	(void)scratch;
	if (message->lane_attach.mode == SEGUE_ATTACH_OFFER)
		pb->token = segue_pb_put_bytes(message->lane_attach.token, SEGUE_TOKEN_BYTES);
	pb->kept = segue_pb_put_bytes(message->lane_attach.kept, message->lane_attach.kept_size);
}

static int get_lane_attach(const ProtobufCMessage *from, struct segue_message *out)
{
	const Segue__Pb__LaneAttach *pb = (const Segue__Pb__LaneAttach *)from;
	bool offer = out->lane_attach.mode == SEGUE_ATTACH_OFFER;

	out->lane_attach.kept = pb->kept.data;
	out->lane_attach.kept_size = pb->kept.len;
	int rc = segue_pb_check_range(
		"lane_attach.kept", pb->kept.len, 0, (SEGUE_LANES_MAX + 7) / 8);
	return rc ? rc
		  : segue_pb_get_bytes("lane_attach.token", &pb->token, out->lane_attach.token,
			    offer ? SEGUE_TOKEN_BYTES : 0);
}

/* ---- Messages ---- */

static const struct codec {
	enum segue_message_type type;
	const char *name;
	const ProtobufCMessageDescriptor *descriptor;
	const struct segue_pb_field *fields;
	void (*put)(const struct segue_message *message, struct segue_arena *scratch,
		ProtobufCMessage *to);
	int (*get)(const ProtobufCMessage *from, struct segue_message *out);
} codecs[] = {
#define MESSAGE(TYPE, name) SEGUE_MESSAGE_##TYPE, #name, &segue__pb__##name##__descriptor, name
	/* Requests: client to server. */
	{MESSAGE(HELLO, hello)},
	{MESSAGE(STREAM_OPEN, stream_open), put_stream_open, get_stream_open},
	{MESSAGE(LANE_ATTACH, lane_attach), put_lane_attach, get_lane_attach},
	{MESSAGE(LANE_FOLLOW, lane_follow)},
	{MESSAGE(LANE_DETACH, lane_detach)},
	{MESSAGE(LANE_FLUSH, lane_flush)},
	{MESSAGE(LANE_SIDE, lane_side)},
	{MESSAGE(UPLOAD, upload)},
	{MESSAGE(CHECKPOINT, checkpoint)},
	{MESSAGE(STORED, stored)},
	{MESSAGE(REPORT, report)},
	{MESSAGE(STREAM_CLOSE, stream_close)},
	{MESSAGE(STREAM_DROP, stream_drop)},
	{MESSAGE(PRODUCER_OPEN, producer_open)},
	{MESSAGE(INSERT, insert)},
	{MESSAGE(PRODUCER_WAIT, producer_wait)},
	{MESSAGE(PRODUCER_LEAVE, producer_leave)},
	{MESSAGE(STREAM_END, stream_end)},
	{MESSAGE(INPUT_FAILED, input_failed)},
	{MESSAGE(STREAM_FIND, stream_find)},
	{MESSAGE(STREAM_FILES, stream_files)},
	{MESSAGE(STATES, states)},
	{MESSAGE(GROUP, group)},
	/* Replies: server to client. */
	{MESSAGE(WELCOME, welcome)},
	{MESSAGE(OPENED, opened)},
	{MESSAGE(FOUND, found), put_found, get_found},
	{MESSAGE(ATTACHED, attached)},
	{MESSAGE(FOLLOWING, following)},
	{MESSAGE(DONE, done)},
	{MESSAGE(BULK, bulk)},
	{MESSAGE(PROGRESS, progress)},
	{MESSAGE(FAILURE, failure)},
	{MESSAGE(PRODUCER_OPENED, producer_opened)},
	{MESSAGE(ACKNOWLEDGED, acknowledged)},
	{MESSAGE(GROUPED, grouped)},
};

/* Every message begins so. */
struct with_serial {
	ProtobufCMessage base;
	uint64_t serial;
};

#define SERIAL(type)                                                                               \
	_Static_assert(                                                                            \
		offsetof(Segue__Pb__##type, serial) == offsetof(struct with_serial, serial),       \
		"serial of " #type)
SERIAL(Hello);
SERIAL(StreamOpen);
SERIAL(LaneAttach);
SERIAL(LaneDetach);
SERIAL(LaneFlush);
SERIAL(Upload);
SERIAL(Checkpoint);
SERIAL(Report);
SERIAL(Stored);
SERIAL(StreamClose);
SERIAL(StreamDrop);
SERIAL(StreamFind);
SERIAL(StreamFiles);
SERIAL(States);
SERIAL(Welcome);
SERIAL(Opened);
SERIAL(Found);
SERIAL(Attached);
SERIAL(Done);
SERIAL(Bulk);
SERIAL(Progress);
SERIAL(Failure);
SERIAL(ProducerOpen);
SERIAL(Insert);
SERIAL(ProducerWait);
SERIAL(ProducerLeave);
SERIAL(StreamEnd);
SERIAL(InputFailed);
SERIAL(ProducerOpened);
SERIAL(Acknowledged);

static const struct codec *find(unsigned type)
{
	for (size_t i = 0; i < sizeof(codecs) / sizeof(codecs[0]); i++)
		if ((unsigned)codecs[i].type == type)
			return &codecs[i];
	return NULL;
}

static int pack_with(const struct codec *codec, const struct segue_message *message,
	struct segue_arena *scratch, uint8_t *out, size_t *size)
{
	ProtobufCMessage *pb = segue_pb_build(scratch, 1, codec->descriptor->sizeof_message);
	size_t packed;
	int rc;

	protobuf_c_message_init(codec->descriptor, pb);
	((struct with_serial *)pb)->serial = message->serial;
	rc = segue_pb_put(codec->fields, message, scratch, pb);
	if (rc)
		return rc;
	if (codec->put)
		codec->put(message, scratch, pb);
	packed = protobuf_c_message_get_packed_size(pb);
	if (packed > SEGUE_FRAME_MAX)
		return segue_fail(SEGUE_ELIMIT,
			message->type == SEGUE_MESSAGE_STREAM_OPEN
				? "%s: all that says what the stream is has %zu bytes, at most %d "
				  "are allowed: give its features and states shorter names"
				: "the message %s has %zu bytes, a frame takes %d",
			codec->name, packed, SEGUE_FRAME_MAX);
	*size = protobuf_c_message_pack(pb, out);
	return 0;
}

int segue_message_pack(const struct segue_message *message, uint8_t *out, size_t *size)
{
	const struct codec *codec = find(message->type);
	struct segue_arena scratch;
	size_t room = SCRATCH_TEXT;
	int rc;

	assert(codec);
	if (message->type == SEGUE_MESSAGE_STREAM_OPEN)
		room += segue_pb_spec_scratch(message->stream_open.spec);
	if (message->type == SEGUE_MESSAGE_FOUND)
		room += segue_pb_spec_scratch(message->found.spec);
	rc = segue_arena_init(&scratch, room);
	if (rc)
		return rc;
	rc = pack_with(codec, message, &scratch, out, size);
	segue_arena_finish(&scratch);
	return rc;
}

int segue_message_unpack(
	const struct segue_frame *frame, struct segue_arena *arena, struct segue_message *out)
{
	const struct codec *codec = find(frame->type);
	struct segue_message message = {.serial = 0};
	const ProtobufCMessage *pb;
	int rc;

	segue_arena_reset(arena);
	if (!codec)
		return segue_fail(
			SEGUE_EPROTOCOL, "a frame of type %u, which is no message", frame->type);
	pb = segue_pb_parse(codec->name, codec->descriptor, frame->payload, frame->size, arena);
	if (!pb)
		return SEGUE_EPROTOCOL;
	message.type = codec->type;
	message.serial = ((const struct with_serial *)pb)->serial;
	rc = segue_pb_get(codec->fields, pb, arena, &message);
	if (!rc && codec->get)
		rc = codec->get(pb, &message);
	if (!rc)
		*out = message;
	return rc;
}

void segue_message_finish(struct segue_message *message)
{
	if (message->type == SEGUE_MESSAGE_STREAM_OPEN)
		segue_spec_destroy(message->stream_open.spec);
	if (message->type == SEGUE_MESSAGE_FOUND)
		segue_spec_destroy(message->found.spec);
}
