/*
 * Messages and stored records to protobuf and back.
 */
#include "core/wire.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/position.h"
#include "core/utf8.h"
#include "core/wire_pb.h"
#include "core/wire_spec.h"

#define ROWS_MAX         (1u << 20)
#define RECORD_ARENA_MIN ((size_t)64 << 10)
#define RECORD_ARENA_MAX ((size_t)256 << 20)
/* Unpacked bytes that one byte of a stored record may ask for; an honest one needs less than 30. */
#define RECORD_ARENA_RATIO 64
/* For the texts of a message that is being packed. */
#define SCRATCH_TEXT (8u << 10)

/* ---- Arena ---- */

int segue_arena_init(struct segue_arena *arena, size_t size)
{
	uint8_t *base = calloc(1, size);

	if (!base)
		return segue_fail(SEGUE_ENOMEM, "no memory for messages (%zu bytes)", size);
	*arena = (struct segue_arena){.base = base, .size = size};
	return 0;
}

void segue_arena_reset(struct segue_arena *arena)
{
	memset(arena->base, 0, arena->used);
	arena->used = 0;
}

void segue_arena_finish(struct segue_arena *arena)
{
	free(arena->base);
	*arena = (struct segue_arena){.base = NULL};
}

/* Once it could not give, it gives no more: `used` then says that it was too small. */
static void *take(void *data, size_t size)
{
	struct segue_arena *arena = data;
	size_t begin = (arena->used + SEGUE_PB_ALIGN - 1) & ~(size_t)(SEGUE_PB_ALIGN - 1);

	if (begin > arena->size || size > arena->size - begin) {
		arena->used = arena->size;
		return NULL;
	}
	arena->used = begin + size;
	return arena->base + begin;
}

static void keep(void *data, void *bytes)
{
	(void)data;
	(void)bytes;
}

ProtobufCMessage *segue_pb_parse(const char *name, const ProtobufCMessageDescriptor *descriptor,
	const void *bytes, size_t size, struct segue_arena *arena)
{
	ProtobufCAllocator allocator = {.alloc = take, .free = keep, .allocator_data = arena};
	ProtobufCMessage *pb = protobuf_c_message_unpack(descriptor, &allocator, size, bytes);

	if (!pb && arena->used == arena->size)
		segue_fail(SEGUE_EPROTOCOL, "%s: %zu bytes need more than the %zu to unpack them",
			name, size, arena->size);
	else if (!pb)
		segue_fail(SEGUE_EPROTOCOL, "%s: %zu bytes are no such message", name, size);
	return pb;
}

/* ---- Checking fields ---- */

int segue_pb_check_range(const char *field, uint64_t value, uint64_t least, uint64_t most)
{
	if (value >= least && value <= most)
		return 0;
	return segue_fail(SEGUE_EPROTOCOL, "%s is %" PRIu64 ", expected %" PRIu64 " to %" PRIu64,
		field, value, least, most);
}

int segue_pb_check_text(const char *field, const char *text, size_t most)
{
	size_t length = strlen(text);

	if (length > most)
		return segue_fail(SEGUE_EPROTOCOL, "%s has %zu bytes, at most %zu are allowed",
			field, length, most);
	if (!segue_utf8_valid(text, length))
		return segue_fail(SEGUE_EPROTOCOL, "%s is not valid UTF-8", field);
	return 0;
}

int segue_pb_check_time(const char *field, int64_t value)
{
	if (value < 0)
		return segue_fail(SEGUE_EPROTOCOL, "%s is negative: %" PRId64, field, value);
	return 0;
}

int segue_pb_get_bytes(const char *field, const ProtobufCBinaryData *from, void *out, size_t size)
{
	if (from->len != size)
		return segue_fail(
			SEGUE_EPROTOCOL, "%s has %zu bytes, expected %zu", field, from->len, size);
	if (size > 0) /* else there may be no data to point to */
		memcpy(out, from->data, size);
	return 0;
}

int segue_pb_check_string(const char *field, const ProtobufCBinaryData *from, size_t most)
{
	if (from->len > most)
		return segue_fail(SEGUE_EPROTOCOL, "%s has %zu bytes, at most %zu are allowed",
			field, from->len, most);
	if (from->len > 0 && memchr(from->data, '\0', from->len))
		return segue_fail(SEGUE_EPROTOCOL, "%s has a NUL inside", field);
	return 0;
}

int segue_pb_fail_memory(void)
{
	return segue_fail(SEGUE_ENOMEM, "no memory for a record");
}

/* ---- Building fields ---- */

void *segue_pb_build(struct segue_arena *scratch, size_t count, size_t size)
{
	void *bytes = take(scratch, count * size);

	assert(bytes);
	return bytes;
}

char *segue_pb_put_text(struct segue_arena *scratch, const char *text, size_t most)
{
	size_t size = strlen(text), used = 0;
	char *out = segue_pb_build(scratch, (size < most ? size : most) + 1, 1);

	while (size > 0) {
		size_t length = segue_utf8_next(text, size);
		size_t step = length ? length : 1;

		if (used + step > most)
			break;
		if (length)
			memcpy(out + used, text, length);
		else
			out[used] = '?';
		used += step;
		text += step;
		size -= step;
	}
	return out;
}

ProtobufCBinaryData segue_pb_put_bytes(const void *bytes, size_t size)
{
	return (ProtobufCBinaryData){.len = size, .data = (uint8_t *)(uintptr_t)bytes};
}

/* ---- Requests ------------------------------------------------------------------------------ */

static int put_hello(
	const struct segue_message *message, struct segue_arena *scratch, ProtobufCMessage *to)
{
	Segue__Pb__Hello *pb = (Segue__Pb__Hello *)to;

	pb->protocol = message->hello.protocol;
	pb->layout_version = message->hello.layout_version;
	pb->version = segue_pb_put_text(scratch, message->hello.version, SEGUE_NAME_MAX);
	pb->program = segue_pb_put_text(scratch, message->hello.program, SEGUE_NAME_MAX);
	return 0;
}

static int get_hello(
	const ProtobufCMessage *from, struct segue_arena *arena, struct segue_message *out)
{
	const Segue__Pb__Hello *pb = (const Segue__Pb__Hello *)from;
	int rc = segue_pb_check_text("hello.version", pb->version, SEGUE_NAME_MAX);

	(void)arena;
	if (rc == 0)
		rc = segue_pb_check_text("hello.program", pb->program, SEGUE_NAME_MAX);
	out->hello.protocol = pb->protocol;
	out->hello.layout_version = pb->layout_version;
	out->hello.version = pb->version;
	out->hello.program = pb->program;
	return rc;
}

static int put_stream_open(
	const struct segue_message *message, struct segue_arena *scratch, ProtobufCMessage *to)
{
	Segue__Pb__StreamOpen *pb = (Segue__Pb__StreamOpen *)to;

	pb->paths_upload = message->stream_open.paths_upload;
	pb->spec = segue_pb_put_spec(scratch, message->stream_open.spec, pb->paths_upload == 0);
	return 0;
}

static int get_stream_open(
	const ProtobufCMessage *from, struct segue_arena *arena, struct segue_message *out)
{
	const Segue__Pb__StreamOpen *pb = (const Segue__Pb__StreamOpen *)from;

	(void)arena;
	if (pb->paths_upload != 0 && segue_pb_spec_has_paths(pb->spec))
		return segue_fail(SEGUE_EPROTOCOL,
			"stream_open has paths in the spec and in upload %" PRIu64,
			pb->paths_upload);
	out->stream_open.paths_upload = pb->paths_upload;
	return segue_pb_get_spec(pb->spec, &out->stream_open.spec);
}

static int put_lane_attach(
	const struct segue_message *message, struct segue_arena *scratch, ProtobufCMessage *to)
{
	Segue__Pb__LaneAttach *pb = (Segue__Pb__LaneAttach *)to;

	(void)scratch;
	pb->stream = message->lane_attach.stream;
	pb->lane = message->lane_attach.lane;
	pb->group = message->lane_attach.group;
	pb->mode = message->lane_attach.mode;
	pb->upload = message->lane_attach.upload;
	pb->step = message->lane_attach.step;
	pb->lease = message->lane_attach.lease;
	pb->timeout_ns = message->lane_attach.timeout_ns;
	if (message->lane_attach.mode == SEGUE_ATTACH_OFFER)
		pb->token = segue_pb_put_bytes(message->lane_attach.token, SEGUE_TOKEN_BYTES);
	return 0;
}

static int get_lane_attach(
	const ProtobufCMessage *from, struct segue_arena *arena, struct segue_message *out)
{
	const Segue__Pb__LaneAttach *pb = (const Segue__Pb__LaneAttach *)from;
	size_t token = pb->mode == SEGUE_ATTACH_OFFER ? SEGUE_TOKEN_BYTES : 0;
	int rc = segue_pb_check_range(
		"lane_attach.mode", pb->mode, SEGUE_ATTACH_NONE, SEGUE_ATTACH_CHECK);

	(void)arena;
	if (rc == 0)
		rc = segue_pb_get_bytes(
			"lane_attach.token", &pb->token, out->lane_attach.token, token);
	if (rc == 0)
		rc = segue_pb_check_range("lane_attach.lane", pb->lane, 0, SEGUE_LANES_MAX - 1);
	if (rc == 0)
		rc = segue_pb_check_time("lane_attach.timeout_ns", pb->timeout_ns);
	out->lane_attach.stream = pb->stream;
	out->lane_attach.lane = pb->lane;
	out->lane_attach.group = pb->group;
	out->lane_attach.mode = pb->mode;
	out->lane_attach.upload = pb->upload;
	out->lane_attach.step = pb->step;
	out->lane_attach.lease = pb->lease;
	out->lane_attach.timeout_ns = pb->timeout_ns;
	return rc;
}

static int put_lane_detach(
	const struct segue_message *message, struct segue_arena *scratch, ProtobufCMessage *to)
{
	(void)scratch;
	((Segue__Pb__LaneDetach *)to)->lease = message->lane_detach.lease;
	return 0;
}

static int get_lane_detach(
	const ProtobufCMessage *from, struct segue_arena *arena, struct segue_message *out)
{
	(void)arena;
	out->lane_detach.lease = ((const Segue__Pb__LaneDetach *)from)->lease;
	return 0;
}

static int put_stream_close(
	const struct segue_message *message, struct segue_arena *scratch, ProtobufCMessage *to)
{
	(void)scratch;
	((Segue__Pb__StreamClose *)to)->stream = message->stream_close.stream;
	return 0;
}

static int get_stream_close(
	const ProtobufCMessage *from, struct segue_arena *arena, struct segue_message *out)
{
	(void)arena;
	out->stream_close.stream = ((const Segue__Pb__StreamClose *)from)->stream;
	return 0;
}

static int put_lane_flush(
	const struct segue_message *message, struct segue_arena *scratch, ProtobufCMessage *to)
{
	(void)scratch;
	((Segue__Pb__LaneFlush *)to)->lease = message->lane_flush.lease;
	return 0;
}

static int get_lane_flush(
	const ProtobufCMessage *from, struct segue_arena *arena, struct segue_message *out)
{
	(void)arena;
	out->lane_flush.lease = ((const Segue__Pb__LaneFlush *)from)->lease;
	return 0;
}

static int put_upload(
	const struct segue_message *message, struct segue_arena *scratch, ProtobufCMessage *to)
{
	(void)scratch;
	((Segue__Pb__Upload *)to)->size = message->upload.size;
	return 0;
}

static int get_upload(
	const ProtobufCMessage *from, struct segue_arena *arena, struct segue_message *out)
{
	(void)arena;
	out->upload.size = ((const Segue__Pb__Upload *)from)->size;
	return 0;
}

static int put_checkpoint(
	const struct segue_message *message, struct segue_arena *scratch, ProtobufCMessage *to)
{
	Segue__Pb__Checkpoint *pb = (Segue__Pb__Checkpoint *)to;

	(void)scratch;
	pb->stream = message->checkpoint.stream;
	pb->lane = message->checkpoint.lane;
	pb->group = message->checkpoint.group;
	pb->step = message->checkpoint.step;
	pb->timeout_ns = message->checkpoint.timeout_ns;
	return 0;
}

static int get_checkpoint(
	const ProtobufCMessage *from, struct segue_arena *arena, struct segue_message *out)
{
	const Segue__Pb__Checkpoint *pb = (const Segue__Pb__Checkpoint *)from;
	int rc = segue_pb_check_range("checkpoint.lane", pb->lane, 0, SEGUE_LANES_MAX - 1);

	(void)arena;
	if (rc == 0)
		rc = segue_pb_check_time("checkpoint.timeout_ns", pb->timeout_ns);
	out->checkpoint.stream = pb->stream;
	out->checkpoint.lane = pb->lane;
	out->checkpoint.group = pb->group;
	out->checkpoint.step = pb->step;
	out->checkpoint.timeout_ns = pb->timeout_ns;
	return rc;
}

static int put_stored(
	const struct segue_message *message, struct segue_arena *scratch, ProtobufCMessage *to)
{
	Segue__Pb__Stored *pb = (Segue__Pb__Stored *)to;

	(void)scratch;
	if (segue_pb_check_text("the name of the stream", message->stored.stream, SEGUE_NAME_MAX) <
		0)
		return SEGUE_EINVAL;
	pb->stream = (char *)(uintptr_t)message->stored.stream;
	pb->lane = message->stored.lane;
	pb->id = message->stored.id;
	pb->remove = message->stored.remove;
	return 0;
}

static int get_stored(
	const ProtobufCMessage *from, struct segue_arena *arena, struct segue_message *out)
{
	const Segue__Pb__Stored *pb = (const Segue__Pb__Stored *)from;
	int rc = segue_pb_check_text("stored.stream", pb->stream, SEGUE_NAME_MAX);

	(void)arena;
	if (rc == 0)
		rc = segue_pb_check_range("stored.lane", pb->lane, 0, SEGUE_LANES_MAX - 1);
	out->stored.stream = pb->stream;
	out->stored.lane = pb->lane;
	out->stored.id = pb->id;
	out->stored.remove = pb->remove;
	return rc;
}

/* Bytes as a C string in the arena. */
static int get_string(const char *field, const ProtobufCBinaryData *from, size_t most,
	struct segue_arena *arena, const char **out)
{
	int rc = segue_pb_check_string(field, from, most);
	if (rc < 0)
		return rc;
	char *text = take(arena, from->len + 1);
	if (!text)
		return segue_fail(SEGUE_EPROTOCOL, "%s: no room for %zu bytes", field, from->len);
	if (from->len > 0)
		memcpy(text, from->data, from->len);
	text[from->len] = '\0';
	*out = text;
	return 0;
}

/* What the user asks by must arrive as it is, so a name that cannot is refused here. */
static int put_report(
	const struct segue_message *message, struct segue_arena *scratch, ProtobufCMessage *to)
{
	Segue__Pb__Report *pb = (Segue__Pb__Report *)to;
	const char *stream = message->report.stream, *key = message->report.key;

	(void)scratch;
	if (segue_pb_check_text("the name of the stream", stream, SEGUE_NAME_MAX) < 0)
		return SEGUE_EINVAL;
	if (strlen(key) > SEGUE_KEY_MAX)
		return segue_fail(SEGUE_EINVAL, "the key has %zu bytes, at most %d are allowed",
			strlen(key), SEGUE_KEY_MAX);
	pb->what = message->report.what;
	pb->stream = (char *)(uintptr_t)stream;
	pb->key = segue_pb_put_bytes(key, strlen(key));
	return 0;
}

static int get_report(
	const ProtobufCMessage *from, struct segue_arena *arena, struct segue_message *out)
{
	const Segue__Pb__Report *pb = (const Segue__Pb__Report *)from;
	int rc = segue_pb_check_range(
		"report.what", pb->what, SEGUE_REPORT_STATUS, SEGUE_REPORT_VERIFY);

	if (rc == 0)
		rc = segue_pb_check_text("report.stream", pb->stream, SEGUE_NAME_MAX);
	if (rc == 0)
		rc = get_string("report.key", &pb->key, SEGUE_KEY_MAX, arena, &out->report.key);
	out->report.what = pb->what;
	out->report.stream = pb->stream;
	return rc;
}

/* ---- Replies ------------------------------------------------------------------------------- */

static int put_welcome(
	const struct segue_message *message, struct segue_arena *scratch, ProtobufCMessage *to)
{
	Segue__Pb__Welcome *pb = (Segue__Pb__Welcome *)to;

	pb->protocol = message->welcome.protocol;
	pb->layout_version = message->welcome.layout_version;
	pb->version = segue_pb_put_text(scratch, message->welcome.version, SEGUE_NAME_MAX);
	pb->pid = message->welcome.pid;
	pb->instance = message->welcome.instance;
	if (message->welcome.dir)
		pb->dir = segue_pb_put_bytes(message->welcome.dir, strlen(message->welcome.dir));
	pb->device = message->welcome.device;
	pb->inode = message->welcome.inode;
	return 0;
}

static int get_welcome(
	const ProtobufCMessage *from, struct segue_arena *arena, struct segue_message *out)
{
	const Segue__Pb__Welcome *pb = (const Segue__Pb__Welcome *)from;
	int rc = segue_pb_check_text("welcome.version", pb->version, SEGUE_NAME_MAX);

	if (rc == 0)
		rc = get_string("welcome.dir", &pb->dir, PATH_MAX, arena, &out->welcome.dir);
	out->welcome.protocol = pb->protocol;
	out->welcome.layout_version = pb->layout_version;
	out->welcome.version = pb->version;
	out->welcome.pid = pb->pid;
	out->welcome.instance = pb->instance;
	out->welcome.device = pb->device;
	out->welcome.inode = pb->inode;
	return rc;
}

static int put_opened(
	const struct segue_message *message, struct segue_arena *scratch, ProtobufCMessage *to)
{
	Segue__Pb__Opened *pb = (Segue__Pb__Opened *)to;

	(void)scratch;
	pb->stream = message->opened.stream;
	pb->records = message->opened.records;
	pb->key_max = message->opened.key_max;
	pb->layout_hash = message->opened.layout_hash;
	return 0;
}

static int get_opened(
	const ProtobufCMessage *from, struct segue_arena *arena, struct segue_message *out)
{
	const Segue__Pb__Opened *pb = (const Segue__Pb__Opened *)from;

	(void)arena;
	out->opened.stream = pb->stream;
	out->opened.records = pb->records;
	out->opened.key_max = pb->key_max;
	out->opened.layout_hash = pb->layout_hash;
	return segue_pb_check_range("opened.key_max", pb->key_max, 0, SEGUE_KEY_MAX);
}

static int put_attached(
	const struct segue_message *message, struct segue_arena *scratch, ProtobufCMessage *to)
{
	Segue__Pb__Attached *pb = (Segue__Pb__Attached *)to;

	(void)scratch;
	pb->lease = message->attached.lease;
	pb->generation = message->attached.generation;
	pb->step = message->attached.step;
	pb->token = segue_pb_put_bytes(message->attached.token, SEGUE_TOKEN_BYTES);
	pb->state = message->attached.has_states;
	return 0;
}

static int get_attached(
	const ProtobufCMessage *from, struct segue_arena *arena, struct segue_message *out)
{
	const Segue__Pb__Attached *pb = (const Segue__Pb__Attached *)from;
	int rc = segue_pb_get_bytes(
		"attached.token", &pb->token, out->attached.token, SEGUE_TOKEN_BYTES);

	(void)arena;
	if (rc == 0)
		rc = segue_pb_check_range("attached.state", pb->state, 0, 1);
	out->attached.lease = pb->lease;
	out->attached.generation = pb->generation;
	out->attached.step = pb->step;
	out->attached.has_states = pb->state != 0;
	return rc;
}

static int put_done(
	const struct segue_message *message, struct segue_arena *scratch, ProtobufCMessage *to)
{
	(void)message;
	(void)scratch;
	(void)to;
	return 0;
}

static int get_done(
	const ProtobufCMessage *from, struct segue_arena *arena, struct segue_message *out)
{
	(void)from;
	(void)arena;
	(void)out;
	return 0;
}

static int put_bulk(
	const struct segue_message *message, struct segue_arena *scratch, ProtobufCMessage *to)
{
	Segue__Pb__Bulk *pb = (Segue__Pb__Bulk *)to;

	(void)scratch;
	pb->id = message->bulk.id;
	pb->size = message->bulk.size;
	pb->step = message->bulk.step;
	return 0;
}

static int get_bulk(
	const ProtobufCMessage *from, struct segue_arena *arena, struct segue_message *out)
{
	const Segue__Pb__Bulk *pb = (const Segue__Pb__Bulk *)from;

	(void)arena;
	out->bulk.id = pb->id;
	out->bulk.size = pb->size;
	out->bulk.step = pb->step;
	return 0;
}

static int put_progress(
	const struct segue_message *message, struct segue_arena *scratch, ProtobufCMessage *to)
{
	Segue__Pb__Progress *pb = (Segue__Pb__Progress *)to;

	pb->what = segue_pb_put_text(scratch, message->progress.what, SEGUE_NAME_MAX);
	pb->done = message->progress.done;
	pb->total = message->progress.total;
	return 0;
}

static int get_progress(
	const ProtobufCMessage *from, struct segue_arena *arena, struct segue_message *out)
{
	const Segue__Pb__Progress *pb = (const Segue__Pb__Progress *)from;

	(void)arena;
	out->progress.what = pb->what;
	out->progress.done = pb->done;
	out->progress.total = pb->total;
	return segue_pb_check_text("progress.what", pb->what, SEGUE_NAME_MAX);
}

static int put_failure(
	const struct segue_message *message, struct segue_arena *scratch, ProtobufCMessage *to)
{
	Segue__Pb__Failure *pb = (Segue__Pb__Failure *)to;

	pb->code = message->failure.code;
	pb->detail = segue_pb_put_text(scratch, message->failure.detail, SEGUE_DETAIL_MAX);
	return 0;
}

static int get_failure(
	const ProtobufCMessage *from, struct segue_arena *arena, struct segue_message *out)
{
	const Segue__Pb__Failure *pb = (const Segue__Pb__Failure *)from;

	(void)arena;
	/* A code that this side does not know stays a failure; zero would be taken for success. */
	if (pb->code >= 0)
		return segue_fail(SEGUE_EPROTOCOL,
			"failure.code is %" PRId32 ", expected a negative code", pb->code);
	out->failure.code = pb->code;
	out->failure.detail = pb->detail;
	return segue_pb_check_text("failure.detail", pb->detail, SEGUE_DETAIL_MAX);
}

/* ---- Messages ------------------------------------------------------------------------------ */

struct codec {
	enum segue_message_type type;
	const char *name;
	const ProtobufCMessageDescriptor *descriptor;
	/* Fills the zeroed protobuf form in; what it points to lies in the scratch. */
	int (*put)(const struct segue_message *message, struct segue_arena *scratch,
		ProtobufCMessage *to);
	/* Checks the protobuf form and takes it over; may take more from the arena. */
	int (*get)(
		const ProtobufCMessage *from, struct segue_arena *arena, struct segue_message *out);
};

static const struct codec codecs[] = {
	{SEGUE_MESSAGE_HELLO, "hello", &segue__pb__hello__descriptor, put_hello, get_hello},
	{SEGUE_MESSAGE_STREAM_OPEN, "stream_open", &segue__pb__stream_open__descriptor,
		put_stream_open, get_stream_open},
	{SEGUE_MESSAGE_LANE_ATTACH, "lane_attach", &segue__pb__lane_attach__descriptor,
		put_lane_attach, get_lane_attach},
	{SEGUE_MESSAGE_LANE_DETACH, "lane_detach", &segue__pb__lane_detach__descriptor,
		put_lane_detach, get_lane_detach},
	{SEGUE_MESSAGE_LANE_FLUSH, "lane_flush", &segue__pb__lane_flush__descriptor, put_lane_flush,
		get_lane_flush},
	{SEGUE_MESSAGE_UPLOAD, "upload", &segue__pb__upload__descriptor, put_upload, get_upload},
	{SEGUE_MESSAGE_CHECKPOINT, "checkpoint", &segue__pb__checkpoint__descriptor, put_checkpoint,
		get_checkpoint},
	{SEGUE_MESSAGE_REPORT, "report", &segue__pb__report__descriptor, put_report, get_report},
	{SEGUE_MESSAGE_STORED, "stored", &segue__pb__stored__descriptor, put_stored, get_stored},
	{SEGUE_MESSAGE_STREAM_CLOSE, "stream_close", &segue__pb__stream_close__descriptor,
		put_stream_close, get_stream_close},
	{SEGUE_MESSAGE_WELCOME, "welcome", &segue__pb__welcome__descriptor, put_welcome,
		get_welcome},
	{SEGUE_MESSAGE_OPENED, "opened", &segue__pb__opened__descriptor, put_opened, get_opened},
	{SEGUE_MESSAGE_ATTACHED, "attached", &segue__pb__attached__descriptor, put_attached,
		get_attached},
	{SEGUE_MESSAGE_DONE, "done", &segue__pb__done__descriptor, put_done, get_done},
	{SEGUE_MESSAGE_BULK, "bulk", &segue__pb__bulk__descriptor, put_bulk, get_bulk},
	{SEGUE_MESSAGE_PROGRESS, "progress", &segue__pb__progress__descriptor, put_progress,
		get_progress},
	{SEGUE_MESSAGE_FAILURE, "failure", &segue__pb__failure__descriptor, put_failure,
		get_failure},
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
SERIAL(Welcome);
SERIAL(Opened);
SERIAL(Attached);
SERIAL(Done);
SERIAL(Bulk);
SERIAL(Progress);
SERIAL(Failure);

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
	rc = codec->put(message, scratch, pb);
	if (rc < 0)
		return rc;
	packed = protobuf_c_message_get_packed_size(pb);
	if (packed > SEGUE_FRAME_MAX)
		return segue_fail(SEGUE_ELIMIT, "the message %s has %zu bytes, a frame takes %d%s",
			codec->name, packed, SEGUE_FRAME_MAX,
			message->type == SEGUE_MESSAGE_STREAM_OPEN
				? "; paths can travel in an upload"
				: "");
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
	rc = segue_arena_init(&scratch, room);
	if (rc < 0)
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
	rc = codec->get(pb, arena, &message);
	if (rc == 0)
		*out = message;
	return rc;
}

/* ---- Records ------------------------------------------------------------------------------- */

static int pack_record(const ProtobufCMessage *pb, void **out, size_t *size)
{
	size_t packed = protobuf_c_message_get_packed_size(pb);
	/* An empty record is still a pointer that can be freed. */
	uint8_t *bytes = malloc(packed ? packed : 1);

	if (!bytes)
		return segue_pb_fail_memory();
	*size = protobuf_c_message_pack(pb, bytes);
	*out = bytes;
	return 0;
}

/* An arena in proportion to the input: a small record cannot ask for much. */
static int record_arena(struct segue_arena *arena, size_t size)
{
	size_t room = RECORD_ARENA_MAX;

	if (size < RECORD_ARENA_MAX / RECORD_ARENA_RATIO)
		room = size * RECORD_ARENA_RATIO;
	return segue_arena_init(arena, room > RECORD_ARENA_MIN ? room : RECORD_ARENA_MIN);
}

static size_t position_scratch(const struct segue_position *position)
{
	return sizeof(Segue__Pb__Position) + 8 * SEGUE_PB_ALIGN +
	       position->rows * 4 * sizeof(uint64_t);
}

static Segue__Pb__Position *put_position(
	struct segue_arena *scratch, const struct segue_position *position)
{
	Segue__Pb__Position *pb = segue_pb_build(scratch, 1, sizeof(*pb));
	size_t rows = position->rows;

	segue__pb__position__init(pb);
	pb->step = position->step;
	pb->next = position->next;
	pb->epoch = position->epoch;
	pb->epoch_step = position->epoch_step;
	pb->undelivered = position->undelivered;
	pb->n_number = pb->n_array_steps = pb->n_total_length = pb->n_segment = rows;
	pb->number = segue_pb_build(scratch, rows, sizeof(uint64_t));
	pb->array_steps = segue_pb_build(scratch, rows, sizeof(uint64_t));
	pb->total_length = segue_pb_build(scratch, rows, sizeof(uint64_t));
	pb->segment = segue_pb_build(scratch, rows, sizeof(uint64_t));
	for (size_t i = 0; i < rows; i++) {
		pb->number[i] = position->row[i].number;
		pb->array_steps[i] = position->row[i].array_steps;
		pb->total_length[i] = position->row[i].total_length;
		pb->segment[i] = position->row[i].segment;
	}
	return pb;
}

static int get_position(const Segue__Pb__Position *pb, struct segue_position **out)
{
	struct segue_position *position;
	size_t rows;
	int rc;

	if (!pb)
		return segue_fail(SEGUE_EPROTOCOL, "position is missing");
	rows = pb->n_number;
	rc = segue_pb_check_range("rows of position", rows, 0, ROWS_MAX);
	if (rc < 0)
		return rc;
	if (pb->n_array_steps != rows || pb->n_total_length != rows || pb->n_segment != rows)
		return segue_fail(SEGUE_EPROTOCOL,
			"position has %zu numbers, %zu array_steps, %zu total_lengths, %zu "
			"segments; they should be as many",
			rows, pb->n_array_steps, pb->n_total_length, pb->n_segment);
	position = calloc(1, sizeof(*position) + rows * sizeof(position->row[0]));
	if (!position)
		return segue_pb_fail_memory();
	position->step = pb->step;
	position->next = pb->next;
	position->epoch = pb->epoch;
	position->epoch_step = pb->epoch_step;
	position->undelivered = pb->undelivered;
	position->rows = (uint32_t)rows;
	for (size_t i = 0; i < rows; i++)
		position->row[i] = (struct segue_plan_row){
			.number = pb->number[i],
			.array_steps = pb->array_steps[i],
			.total_length = pb->total_length[i],
			.segment = pb->segment[i],
		};
	*out = position;
	return 0;
}

int segue_stream_record_pack(const struct segue_stream_record *record, void **out, size_t *size)
{
	Segue__Pb__StreamRecord pb = SEGUE__PB__STREAM_RECORD__INIT;
	struct segue_arena scratch;
	int rc = segue_arena_init(&scratch, segue_pb_spec_scratch(record->spec));

	if (rc < 0)
		return rc;
	pb.id = record->id;
	pb.spec = segue_pb_put_spec(&scratch, record->spec, true);
	pb.fingerprint_low = record->fingerprint[0];
	pb.fingerprint_high = record->fingerprint[1];
	pb.created_ms = record->created_ms;
	rc = pack_record(&pb.base, out, size);
	segue_arena_finish(&scratch);
	return rc;
}

static int get_stream_record(const Segue__Pb__StreamRecord *pb, struct segue_stream_record *out)
{
	struct segue_spec *spec;
	int rc = segue_pb_get_spec(pb->spec, &spec);

	if (rc < 0)
		return rc;
	if (segue_spec_check(spec) < 0) {
		segue_spec_destroy(spec);
		return segue_fail_within(SEGUE_EPROTOCOL, "spec");
	}
	*out = (struct segue_stream_record){
		.id = pb->id,
		.spec = spec,
		.fingerprint = {pb->fingerprint_low, pb->fingerprint_high},
		.created_ms = pb->created_ms,
	};
	return 0;
}

int segue_stream_record_unpack(const void *bytes, size_t size, struct segue_stream_record *out)
{
	const ProtobufCMessage *pb;
	struct segue_arena arena;
	int rc = record_arena(&arena, size);

	if (rc < 0)
		return rc;
	pb = segue_pb_parse(
		"stream record", &segue__pb__stream_record__descriptor, bytes, size, &arena);
	rc = pb ? get_stream_record((const Segue__Pb__StreamRecord *)pb, out) : SEGUE_EPROTOCOL;
	segue_arena_finish(&arena);
	if (rc < 0 && pb)
		segue_fail_within(rc, "stream record");
	return rc;
}

int segue_lane_record_pack(const struct segue_lane_record *record, void **out, size_t *size)
{
	Segue__Pb__LaneRecord pb = SEGUE__PB__LANE_RECORD__INIT;
	Segue__Pb__Holder holder = SEGUE__PB__HOLDER__INIT;
	struct segue_arena scratch;
	int rc = segue_arena_init(&scratch, position_scratch(record->position));

	if (rc < 0)
		return rc;
	holder.boot_id = segue_pb_put_bytes(record->holder.boot_id, sizeof(record->holder.boot_id));
	holder.pid_namespace = record->holder.pid_namespace;
	holder.pid = record->holder.pid;
	holder.start_time = record->holder.start_time;
	pb.generation = record->generation;
	pb.token = segue_pb_put_bytes(record->token, sizeof(record->token));
	pb.held = record->held;
	pb.holder = &holder;
	pb.committed_ms = record->committed_ms;
	pb.position = put_position(&scratch, record->position);
	rc = pack_record(&pb.base, out, size);
	segue_arena_finish(&scratch);
	return rc;
}

static int get_lane_record(const Segue__Pb__LaneRecord *pb, struct segue_lane_record *out)
{
	struct segue_lane_record record = {
		.generation = pb->generation, .held = pb->held, .committed_ms = pb->committed_ms};
	int rc = segue_pb_get_bytes("token", &pb->token, record.token, sizeof(record.token));

	if (rc < 0)
		return rc;
	if (!pb->holder)
		return segue_fail(SEGUE_EPROTOCOL, "holder is missing");
	rc = segue_pb_get_bytes("holder.boot_id", &pb->holder->boot_id, record.holder.boot_id,
		sizeof(record.holder.boot_id));
	if (rc < 0)
		return rc;
	record.holder.pid_namespace = pb->holder->pid_namespace;
	record.holder.pid = pb->holder->pid;
	record.holder.start_time = pb->holder->start_time;
	rc = get_position(pb->position, &record.position);
	if (rc == 0)
		*out = record;
	return rc;
}

int segue_lane_record_unpack(const void *bytes, size_t size, struct segue_lane_record *out)
{
	const ProtobufCMessage *pb;
	struct segue_arena arena;
	int rc = record_arena(&arena, size);

	if (rc < 0)
		return rc;
	pb = segue_pb_parse(
		"lane record", &segue__pb__lane_record__descriptor, bytes, size, &arena);
	rc = pb ? get_lane_record((const Segue__Pb__LaneRecord *)pb, out) : SEGUE_EPROTOCOL;
	segue_arena_finish(&arena);
	if (rc < 0 && pb)
		segue_fail_within(rc, "lane record");
	return rc;
}

int segue_catalogue_pack(const struct segue_catalogue *catalogue, void **out, size_t *size)
{
	Segue__Pb__CatalogueRecord pb = SEGUE__PB__CATALOGUE_RECORD__INIT;
	uint64_t id[SEGUE_CHECKPOINTS_MAX], step[SEGUE_CHECKPOINTS_MAX];
	uint64_t sizes[SEGUE_CHECKPOINTS_MAX];
	int64_t created[SEGUE_CHECKPOINTS_MAX];

	assert(catalogue->count <= SEGUE_CHECKPOINTS_MAX);
	for (uint32_t i = 0; i < catalogue->count; i++) {
		id[i] = catalogue->entry[i].id;
		step[i] = catalogue->entry[i].step;
		sizes[i] = catalogue->entry[i].size;
		created[i] = catalogue->entry[i].created_ms;
	}
	pb.next_id = catalogue->next_id;
	pb.n_id = pb.n_step = pb.n_size = pb.n_created_ms = catalogue->count;
	pb.id = id;
	pb.step = step;
	pb.size = sizes;
	pb.created_ms = created;
	return pack_record(&pb.base, out, size);
}

static int get_catalogue(const Segue__Pb__CatalogueRecord *pb, struct segue_catalogue *out)
{
	struct segue_catalogue catalogue = {.next_id = pb->next_id};
	int rc = segue_pb_check_range("checkpoints of a lane", pb->n_id, 0, SEGUE_CHECKPOINTS_MAX);

	if (rc < 0)
		return rc;
	if (pb->n_step != pb->n_id || pb->n_size != pb->n_id || pb->n_created_ms != pb->n_id)
		return segue_fail(SEGUE_EPROTOCOL,
			"%zu ids, %zu steps, %zu sizes, %zu dates; they should be as many",
			pb->n_id, pb->n_step, pb->n_size, pb->n_created_ms);
	for (size_t i = 0; i < pb->n_id; i++) {
		if (pb->id[i] < 1 || pb->id[i] >= pb->next_id)
			return segue_fail(SEGUE_EPROTOCOL,
				"id %" PRIu64 ", and the next is %" PRIu64, pb->id[i], pb->next_id);
		if (i > 0 && pb->step[i] <= pb->step[i - 1])
			return segue_fail(SEGUE_EPROTOCOL, "steps do not rise");
		catalogue.entry[i] = (struct segue_catalogue_entry){
			pb->id[i], pb->step[i], pb->size[i], pb->created_ms[i]};
	}
	catalogue.count = (uint32_t)pb->n_id;
	if (catalogue.next_id < 1)
		return segue_fail(SEGUE_EPROTOCOL, "the next id is 0");
	*out = catalogue;
	return 0;
}

int segue_catalogue_unpack(const void *bytes, size_t size, struct segue_catalogue *out)
{
	const ProtobufCMessage *pb;
	struct segue_arena arena;
	int rc = record_arena(&arena, size);

	if (rc < 0)
		return rc;
	pb = segue_pb_parse(
		"catalogue", &segue__pb__catalogue_record__descriptor, bytes, size, &arena);
	rc = pb ? get_catalogue((const Segue__Pb__CatalogueRecord *)pb, out) : SEGUE_EPROTOCOL;
	segue_arena_finish(&arena);
	if (rc < 0 && pb)
		segue_fail_within(rc, "catalogue of checkpoints");
	return rc;
}

int segue_token_record_pack(const struct segue_token_record *record, void **out, size_t *size)
{
	Segue__Pb__TokenRecord pb = SEGUE__PB__TOKEN_RECORD__INIT;
	struct segue_arena scratch;
	int rc = segue_arena_init(&scratch, position_scratch(record->position));

	if (rc < 0)
		return rc;
	pb.stream = (char *)(uintptr_t)record->stream;
	pb.spec_low = record->spec_hash[0];
	pb.spec_high = record->spec_hash[1];
	pb.fingerprint_low = record->fingerprint[0];
	pb.fingerprint_high = record->fingerprint[1];
	pb.lanes = record->lanes;
	pb.lane = record->lane;
	pb.batch_size = record->batch_size;
	pb.row_size = record->row_size;
	pb.position = put_position(&scratch, record->position);
	rc = pack_record(&pb.base, out, size);
	segue_arena_finish(&scratch);
	return rc;
}

static int get_token_record(const Segue__Pb__TokenRecord *pb, struct segue_token_record *out)
{
	struct segue_token_record record = {
		.spec_hash = {pb->spec_low, pb->spec_high},
		.fingerprint = {pb->fingerprint_low, pb->fingerprint_high},
		.lanes = pb->lanes,
		.lane = pb->lane,
		.batch_size = pb->batch_size,
		.row_size = pb->row_size,
	};
	int rc = segue_pb_check_text("stream", pb->stream, SEGUE_NAME_MAX);

	if (rc == 0)
		rc = segue_pb_check_range("lanes", pb->lanes, 1, SEGUE_LANES_MAX);
	if (rc == 0)
		rc = segue_pb_check_range("lane", pb->lane, 0, pb->lanes - 1);
	if (rc == 0)
		rc = segue_pb_check_range("batch_size", pb->batch_size, 1, ROWS_MAX);
	if (rc == 0)
		rc = get_position(pb->position, &record.position);
	if (rc < 0)
		return rc;
	memcpy(record.stream, pb->stream, strlen(pb->stream) + 1);
	*out = record;
	return 0;
}

int segue_token_record_unpack(const void *bytes, size_t size, struct segue_token_record *out)
{
	const ProtobufCMessage *pb;
	struct segue_arena arena;
	int rc = record_arena(&arena, size);

	if (rc < 0)
		return rc;
	pb = segue_pb_parse("token", &segue__pb__token_record__descriptor, bytes, size, &arena);
	rc = pb ? get_token_record((const Segue__Pb__TokenRecord *)pb, out) : SEGUE_EPROTOCOL;
	segue_arena_finish(&arena);
	if (rc < 0 && pb)
		segue_fail_within(rc, "token");
	return rc;
}
