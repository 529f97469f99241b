/* The records in the store and in tokens, as tables of their fields. */
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/options.h"
#include "core/position.h"
#include "core/wire.h"
#include "core/wire_pb.h"
#include "core/wire_spec.h"

#define RECORD_ARENA_MIN ((size_t)64 << 10)
#define RECORD_ARENA_MAX ((size_t)256 << 20)
/* Unpacked bytes that one byte of a stored record may ask for; an honest one needs less than 30. */
#define RECORD_ARENA_RATIO 64

#define END                                                                                        \
	{                                                                                          \
		.name = NULL                                                                       \
	}
#define NUMBER(pb, own, member, KIND, least, most)                                                 \
	SEGUE_PB_NUMBER(pb, member, struct own, member, KIND, least, most)
#define ANY64(pb, own, member)       NUMBER(pb, own, member, UINT64, 0, UINT64_MAX)
#define BYTES(pb, own, member, size) SEGUE_PB_FIELD(pb, member, struct own, member, BYTES, 0, size)

/* ---- Packing and unpacking ---- */

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

/* `get` checks the protobuf form and makes ours of it, which owns what it points to. */
static int unpack_record(const char *name, const ProtobufCMessageDescriptor *descriptor,
	const void *bytes, size_t size, int (*get)(const ProtobufCMessage *from, void *out),
	void *out)
{
	const ProtobufCMessage *pb;
	struct segue_arena arena;
	int rc = record_arena(&arena, size);

	if (rc)
		return rc;
	pb = segue_pb_parse(name, descriptor, bytes, size, &arena);
	if (!pb) {
		rc = SEGUE_EPROTOCOL;
	} else {
		rc = get(pb, out);
		if (rc)
			segue_fail_within(rc, "%s", name);
	}
	segue_arena_finish(&arena);
	return rc;
}

/* ---- Position ---- */

static const struct segue_pb_field position_fields[] = {
	ANY64(Position, segue_position, step),
	ANY64(Position, segue_position, next),
	ANY64(Position, segue_position, epoch),
	ANY64(Position, segue_position, epoch_step),
	ANY64(Position, segue_position, undelivered),
	ANY64(Position, segue_position, sized),
	NUMBER(Position, segue_position, batch_size, UINT32, 0, SEGUE_ROWS_MAX),
	NUMBER(Position, segue_position, parked, UINT32, 0, SEGUE_ROWS_MAX),
	NUMBER(Position, segue_position, waiting, UINT32, 0, SEGUE_WINDOW_MAX),
	END,
};
static const struct segue_pb_column position_rows[] = {
	SEGUE_PB_COLUMN(Position, number, struct segue_plan_row),
	SEGUE_PB_COLUMN(Position, array_steps, struct segue_plan_row),
	SEGUE_PB_COLUMN(Position, total_length, struct segue_plan_row),
	SEGUE_PB_COLUMN(Position, segment, struct segue_plan_row),
	END,
};

static size_t position_scratch(const struct segue_position *position)
{
	return sizeof(Segue__Pb__Position) + SEGUE_ARENA_ALIGN +
	       segue_pb_columns_scratch(position_rows, segue_position_entries(position));
}

static Segue__Pb__Position *put_position(
	struct segue_arena *scratch, const struct segue_position *position)
{
	Segue__Pb__Position *pb = segue_pb_build(scratch, 1, sizeof(*pb));

	segue__pb__position__init(pb);
	segue_pb_put(position_fields, position, scratch, &pb->base);
	segue_pb_put_columns(position_rows, position->row, sizeof(position->row[0]),
		segue_position_entries(position), scratch, &pb->base);
	return pb;
}

#define POSITION_REQUIRES (SEGUE_REQUIRES_SIZED | SEGUE_REQUIRES_CLASSES)

/* What a reader must know of a record with this position. */
static uint64_t position_requires(const struct segue_position *position)
{
	return (position->sized ? SEGUE_REQUIRES_SIZED : 0) |
	       (position->waiting ? SEGUE_REQUIRES_CLASSES : 0);
}

static int check_sized(const struct segue_position *position, size_t rows)
{
	int rc = segue_pb_check_range("waiting", position->waiting, 0, rows);

	if (!rc)
		rc = segue_pb_check_range("parked", position->parked, 0, rows - position->waiting);
	if (!rc && !position->sized && (position->batch_size || position->parked))
		rc = segue_fail(SEGUE_EPROTOCOL,
			"position: batch_size %" PRIu32 ", %" PRIu32
			" parked, of a lane that was given none",
			position->batch_size, position->parked);
	return rc;
}

static int get_position(const Segue__Pb__Position *pb, struct segue_position **out)
{
	struct segue_position *position;
	size_t rows;
	int rc;

	if (!pb)
		return segue_fail(SEGUE_EPROTOCOL, "position is missing");
	/* As many as may wait come on top; that so many do is looked at below. */
	size_t most = SEGUE_ROWS_MAX;
	if (pb->waiting)
		most += pb->waiting < SEGUE_WINDOW_MAX ? pb->waiting : SEGUE_WINDOW_MAX;
	rc = segue_pb_count_rows(position_rows, "rows of position", most, &pb->base, &rows);
	if (rc)
		return rc;
	position = calloc(1, sizeof(*position) + rows * sizeof(position->row[0]));
	if (!position)
		return segue_pb_fail_memory();
	rc = segue_pb_get(position_fields, &pb->base, NULL, position);
	segue_pb_get_columns(
		position_rows, &pb->base, position->row, sizeof(position->row[0]), rows);
	if (!rc)
		rc = check_sized(position, rows);
	if (rc) {
		free(position);
		return rc;
	}
	position->rows = (uint32_t)rows - position->parked - position->waiting;
	*out = position;
	return 0;
}

/* ---- Ends of the input ---- */

static int get_ends(const uint64_t *from, size_t count, struct segue_ends *out)
{
	int rc = segue_pb_check_range("number of ends", count, 1, SEGUE_ENDS_MAX);

	if (rc)
		return rc;
	*out = (struct segue_ends){.count = (uint32_t)count};
	memcpy(out->epochs, from, count * sizeof(*from));
	return segue_ends_check(out) ? segue_fail_within(SEGUE_EPROTOCOL, "ends") : 0;
}

/* ---- Streams ---- */

#define STREAM_REQUIRES                                                                            \
	(SEGUE_REQUIRES_LENGTHS | SEGUE_REQUIRES_POLICY | SEGUE_REQUIRES_LANES_BY |                \
		SEGUE_REQUIRES_CLASSES | SEGUE_REQUIRES_KEPT)

/* What of a spec decides over batches, and readers that do not know it would pass over. */
static uint64_t stream_requires(const struct segue_spec *spec)
{
	uint64_t required = 0;

	if (spec->maximum_length || segue_spec_trims(spec))
		required |= SEGUE_REQUIRES_LENGTHS;
	for (size_t i = 0; i < spec->state_count; i++)
		if (spec->states[i].policy.kind != SEGUE_POLICY_CARRY)
			required |= SEGUE_REQUIRES_POLICY;
	if (spec->lanes_by != SEGUE_LANES_BY_SEQUENCE)
		required |= SEGUE_REQUIRES_LANES_BY;
	if (spec->boundaries.count)
		required |= SEGUE_REQUIRES_CLASSES;
	if (spec->initial != SEGUE_INITIAL_VALUE)
		required |= SEGUE_REQUIRES_KEPT;
	return required;
}

int segue_stream_record_pack(const struct segue_stream_record *record, void **out, size_t *size)
{
	Segue__Pb__StreamRecord pb = SEGUE__PB__STREAM_RECORD__INIT;
	struct segue_arena scratch;
	int rc = segue_arena_init(&scratch, segue_pb_spec_scratch(record->spec));

	if (rc)
		return rc;
	pb.required = stream_requires(record->spec);
	pb.id = record->id;
	pb.spec = segue_pb_put_spec(&scratch, record->spec, SEGUE_PB_ALL);
	pb.fingerprint_low = record->fingerprint[0];
	pb.fingerprint_high = record->fingerprint[1];
	pb.created_ms = record->created_ms;
	pb.n_ends = record->ends.count;
	pb.ends = (uint64_t *)(uintptr_t)record->ends.epochs;
	rc = pack_record(&pb.base, out, size);
	segue_arena_finish(&scratch);
	return rc;
}

static int get_stream_record(const ProtobufCMessage *from, void *out)
{
	const Segue__Pb__StreamRecord *pb = (const Segue__Pb__StreamRecord *)from;
	struct segue_ends ends;
	struct segue_spec *spec;
	int rc = segue_required_check("it", pb->required & ~STREAM_REQUIRES);

	if (!rc)
		rc = segue_pb_get_spec(pb->spec, SEGUE_PB_ALL, &spec);
	if (rc)
		return rc;
	if (segue_spec_check(spec)) {
		segue_spec_destroy(spec);
		return segue_fail_within(SEGUE_EPROTOCOL, "spec");
	}
	ends = SEGUE_ENDS(spec->epochs);
	if (pb->n_ends > 0)
		rc = get_ends(pb->ends, pb->n_ends, &ends);
	if (!rc && ends.epochs[0] != spec->epochs)
		rc = segue_fail(SEGUE_EPROTOCOL,
			"the first end is %" PRIu64 ", of a spec with epochs = %" PRIu64,
			ends.epochs[0], spec->epochs);
	if (rc) {
		segue_spec_destroy(spec);
		return rc;
	}
	*(struct segue_stream_record *)out = (struct segue_stream_record){
		.id = pb->id,
		.spec = spec,
		.ends = ends,
		.fingerprint = {pb->fingerprint_low, pb->fingerprint_high},
		.created_ms = pb->created_ms,
	};
	return 0;
}

int segue_stream_record_unpack(const void *bytes, size_t size, struct segue_stream_record *out)
{
	return unpack_record("stream record", &segue__pb__stream_record__descriptor, bytes, size,
		get_stream_record, out);
}

/* ---- Lanes ---- */

static const struct segue_pb_field holder_fields[] = {
	BYTES(Holder, segue_holder, boot_id, sizeof(((struct segue_holder *)0)->boot_id)),
	ANY64(Holder, segue_holder, pid_namespace),
	NUMBER(Holder, segue_holder, pid, INT64, 0, 0),
	ANY64(Holder, segue_holder, start_time),
	END,
};
static const struct segue_pb_field lane_fields[] = {
	ANY64(LaneRecord, segue_lane_record, generation),
	BYTES(LaneRecord, segue_lane_record, token, SEGUE_TOKEN_BYTES),
	SEGUE_PB_FIELD(LaneRecord, held, struct segue_lane_record, held, BOOL, 0, 0),
	NUMBER(LaneRecord, segue_lane_record, committed_ms, INT64, 0, 0),
	ANY64(LaneRecord, segue_lane_record, origin),
	END,
};

int segue_lane_record_pack(const struct segue_lane_record *record, void **out, size_t *size)
{
	Segue__Pb__LaneRecord pb = SEGUE__PB__LANE_RECORD__INIT;
	Segue__Pb__Holder holder = SEGUE__PB__HOLDER__INIT;
	struct segue_arena scratch;
	int rc = segue_arena_init(&scratch, position_scratch(record->position));

	if (rc)
		return rc;
	segue_pb_put(holder_fields, &record->holder, &scratch, &holder.base);
	segue_pb_put(lane_fields, record, &scratch, &pb.base);
	pb.required = position_requires(record->position);
	pb.holder = &holder;
	pb.position = put_position(&scratch, record->position);
	rc = pack_record(&pb.base, out, size);
	segue_arena_finish(&scratch);
	return rc;
}

static int get_lane_record(const ProtobufCMessage *from, void *out)
{
	const Segue__Pb__LaneRecord *pb = (const Segue__Pb__LaneRecord *)from;
	struct segue_lane_record record = {.generation = 0};
	int rc = segue_required_check("it", pb->required & ~POSITION_REQUIRES);

	if (!rc)
		rc = segue_pb_get(lane_fields, from, NULL, &record);
	if (!rc && !pb->holder)
		rc = segue_fail(SEGUE_EPROTOCOL, "holder is missing");
	if (!rc && (rc = segue_pb_get(holder_fields, &pb->holder->base, NULL, &record.holder)))
		segue_fail_within(rc, "holder");
	if (!rc)
		rc = get_position(pb->position, &record.position);
	if (!rc)
		*(struct segue_lane_record *)out = record;
	return rc;
}

int segue_lane_record_unpack(const void *bytes, size_t size, struct segue_lane_record *out)
{
	return unpack_record("lane record", &segue__pb__lane_record__descriptor, bytes, size,
		get_lane_record, out);
}

/* ---- Catalogues of checkpoints ---- */

#define CATALOGUE_COLUMNS                                                                          \
	SEGUE_PB_COLUMN(CatalogueRecord, id, struct segue_catalogue_entry),                        \
		SEGUE_PB_COLUMN(CatalogueRecord, step, struct segue_catalogue_entry),              \
		SEGUE_PB_COLUMN(CatalogueRecord, size, struct segue_catalogue_entry),              \
		SEGUE_PB_COLUMN(CatalogueRecord, created_ms, struct segue_catalogue_entry)

static const struct segue_pb_column catalogue_entries[] = {CATALOGUE_COLUMNS, END};
/* Of a lane that reads a log. */
static const struct segue_pb_column catalogue_log_entries[] = {CATALOGUE_COLUMNS,
	SEGUE_PB_COLUMN(CatalogueRecord, needs, struct segue_catalogue_entry), END};

static const struct segue_pb_column *catalogue_columns(bool needs)
{
	return needs ? catalogue_log_entries : catalogue_entries;
}

static bool needs_some(const struct segue_catalogue *catalogue)
{
	bool some = false;

	for (uint32_t i = 0; i < catalogue->count; i++)
		some = some || catalogue->entry[i].needs;
	return some;
}

int segue_catalogue_pack(const struct segue_catalogue *catalogue, void **out, size_t *size)
{
	const struct segue_pb_column *columns = catalogue_columns(needs_some(catalogue));
	Segue__Pb__CatalogueRecord pb = SEGUE__PB__CATALOGUE_RECORD__INIT;
	struct segue_arena scratch;
	int rc;

	assert(catalogue->count <= SEGUE_CHECKPOINTS_MAX);
	rc = segue_arena_init(&scratch, segue_pb_columns_scratch(columns, catalogue->count));
	if (rc)
		return rc;
	pb.next_id = catalogue->next_id;
	pb.ended_id = catalogue->ended_id;
	pb.ended_at = catalogue->ended_at;
	segue_pb_put_columns(columns, catalogue->entry, sizeof(catalogue->entry[0]),
		catalogue->count, &scratch, &pb.base);
	rc = pack_record(&pb.base, out, size);
	segue_arena_finish(&scratch);
	return rc;
}

static int get_catalogue(const ProtobufCMessage *from, void *out)
{
	const Segue__Pb__CatalogueRecord *pb = (const Segue__Pb__CatalogueRecord *)from;
	const struct segue_pb_column *columns = catalogue_columns(pb->n_needs > 0);
	struct segue_catalogue catalogue = {.next_id = pb->next_id,
		.ended_id = pb->ended_id,
		.ended_at = pb->ended_id && !pb->ended_at ? 1 : pb->ended_at};
	const struct segue_catalogue_entry *entry = catalogue.entry;
	size_t count;
	int rc = segue_required_check("it", pb->required);

	if (!rc)
		rc = segue_pb_count_rows(
			columns, "checkpoints of a lane", SEGUE_CHECKPOINTS_MAX, from, &count);
	if (rc)
		return rc;
	if (catalogue.next_id < 1)
		return segue_fail(SEGUE_EPROTOCOL, "the next id is 0");
	segue_pb_get_columns(columns, from, catalogue.entry, sizeof(catalogue.entry[0]), count);
	for (size_t i = 0; i < count; i++) {
		if (entry[i].id < 1 || entry[i].id >= catalogue.next_id)
			return segue_fail(SEGUE_EPROTOCOL,
				"id %" PRIu64 ", and the next is %" PRIu64, entry[i].id,
				catalogue.next_id);
		if (i > 0 && entry[i].step <= entry[i - 1].step)
			return segue_fail(SEGUE_EPROTOCOL, "steps do not rise");
	}
	catalogue.count = (uint32_t)count;
	*(struct segue_catalogue *)out = catalogue;
	return 0;
}

int segue_catalogue_unpack(const void *bytes, size_t size, struct segue_catalogue *out)
{
	return unpack_record("catalogue of checkpoints", &segue__pb__catalogue_record__descriptor,
		bytes, size, get_catalogue, out);
}

/* ---- Tokens ---- */

static const struct segue_pb_field token_fields[] = {
	SEGUE_PB_FIELD(TokenRecord, stream, struct segue_token_record, stream, NAME_ARRAY, 0,
		SEGUE_NAME_MAX),
	SEGUE_PB_FIELD(TokenRecord, spec_low, struct segue_token_record, spec_hash[0], UINT64, 0,
		UINT64_MAX),
	SEGUE_PB_FIELD(TokenRecord, spec_high, struct segue_token_record, spec_hash[1], UINT64, 0,
		UINT64_MAX),
	SEGUE_PB_FIELD(TokenRecord, fingerprint_low, struct segue_token_record, fingerprint[0],
		UINT64, 0, UINT64_MAX),
	SEGUE_PB_FIELD(TokenRecord, fingerprint_high, struct segue_token_record, fingerprint[1],
		UINT64, 0, UINT64_MAX),
	NUMBER(TokenRecord, segue_token_record, lanes, UINT32, 1, SEGUE_LANES_MAX),
	NUMBER(TokenRecord, segue_token_record, lane, UINT32, 0, SEGUE_LANES_MAX - 1),
	NUMBER(TokenRecord, segue_token_record, batch_size, UINT32, 1, SEGUE_ROWS_MAX),
	ANY64(TokenRecord, segue_token_record, row_size),
	ANY64(TokenRecord, segue_token_record, origin),
	SEGUE_PB_FIELD(TokenRecord, log_low, struct segue_token_record, log_hash[0], UINT64, 0,
		UINT64_MAX),
	SEGUE_PB_FIELD(TokenRecord, log_high, struct segue_token_record, log_hash[1], UINT64, 0,
		UINT64_MAX),
	END,
};

int segue_token_record_pack(const struct segue_token_record *record, void **out, size_t *size)
{
	Segue__Pb__TokenRecord pb = SEGUE__PB__TOKEN_RECORD__INIT;
	struct segue_arena scratch;
	int rc = segue_arena_init(&scratch, position_scratch(record->position));

	if (rc)
		return rc;
	rc = segue_pb_put(token_fields, record, &scratch, &pb.base);
	if (!rc) {
		pb.n_ends = record->ends.count;
		pb.ends = (uint64_t *)(uintptr_t)record->ends.epochs;
		pb.required = position_requires(record->position);
		pb.position = put_position(&scratch, record->position);
		rc = pack_record(&pb.base, out, size);
	}
	segue_arena_finish(&scratch);
	return rc;
}

static int get_token_record(const ProtobufCMessage *from, void *out)
{
	const Segue__Pb__TokenRecord *pb = (const Segue__Pb__TokenRecord *)from;
	struct segue_token_record record = {.lanes = 0};
	int rc = segue_required_check("it", pb->required & ~POSITION_REQUIRES);

	if (!rc)
		rc = segue_pb_get(token_fields, from, NULL, &record);
	if (!rc && pb->n_ends > 0)
		rc = get_ends(pb->ends, pb->n_ends, &record.ends);
	if (!rc)
		rc = segue_pb_check_range("lane", record.lane, 0, record.lanes - 1);
	if (!rc)
		rc = get_position(pb->position, &record.position);
	if (!rc)
		*(struct segue_token_record *)out = record;
	return rc;
}

int segue_token_record_unpack(const void *bytes, size_t size, struct segue_token_record *out)
{
	return unpack_record(
		"token", &segue__pb__token_record__descriptor, bytes, size, get_token_record, out);
}

/* ---- Logs ---- */

static const struct segue_pb_field log_fields[] = {
	BYTES(LogRecord, segue_log_known, id, SEGUE_SEQLOG_ID),
	ANY64(LogRecord, segue_log_known, first),
	SEGUE_PB_NUMBER(
		LogRecord, number, struct segue_log_known, synced.number, UINT64, 0, UINT64_MAX),
	SEGUE_PB_NUMBER(
		LogRecord, hash_low, struct segue_log_known, synced.hash[0], UINT64, 0, UINT64_MAX),
	SEGUE_PB_NUMBER(LogRecord, hash_high, struct segue_log_known, synced.hash[1], UINT64, 0,
		UINT64_MAX),
	END,
};

int segue_log_known_pack(const struct segue_log_known *known, void **out, size_t *size)
{
	Segue__Pb__LogRecord pb = SEGUE__PB__LOG_RECORD__INIT;
	int rc = segue_pb_put(log_fields, known, NULL, &pb.base);

	return rc ? rc : pack_record(&pb.base, out, size);
}

static int get_log_known(const ProtobufCMessage *from, void *out)
{
	const Segue__Pb__LogRecord *pb = (const Segue__Pb__LogRecord *)from;
	struct segue_log_known known;
	int rc = segue_required_check("it", pb->required);

	if (!rc)
		rc = segue_pb_get(log_fields, from, NULL, &known);
	if (!rc && known.first > known.synced.number)
		rc = segue_fail(SEGUE_EPROTOCOL,
			"sequences below %" PRIu64 " are given up, of %" PRIu64, known.first,
			known.synced.number);
	if (!rc)
		*(struct segue_log_known *)out = known;
	return rc;
}

int segue_log_known_unpack(const void *bytes, size_t size, struct segue_log_known *out)
{
	return unpack_record(
		"log", &segue__pb__log_record__descriptor, bytes, size, get_log_known, out);
}

int segue_log_end_pack(const struct segue_log_end *end, void **out, size_t *size)
{
	Segue__Pb__LogEndRecord pb = SEGUE__PB__LOG_END_RECORD__INIT;
	char **names = calloc(end->closed_count + 1, sizeof(*names));

	if (!names)
		return segue_pb_fail_memory();
	for (uint32_t i = 0; i < end->closed_count; i++)
		names[i] = end->closed[i];
	pb.count = end->count;
	pb.ended = end->ended;
	pb.closed = names;
	pb.n_closed = end->closed_count;
	int rc = pack_record(&pb.base, out, size);
	free(names);
	return rc;
}

static int get_log_end(const ProtobufCMessage *from, void *out)
{
	const Segue__Pb__LogEndRecord *pb = (const Segue__Pb__LogEndRecord *)from;
	struct segue_log_end end = {.count = pb->count, .ended = pb->ended};
	int rc = segue_required_check("it", pb->required);

	if (!rc)
		rc = segue_pb_check_range(
			"number of closed producers", pb->n_closed, 0, SEGUE_SEQLOG_PRODUCERS_MAX);
	for (size_t i = 0; !rc && i < pb->n_closed; i++)
		if (segue_name_check("name of a closed producer", pb->closed[i], true))
			rc = segue_fail_within(SEGUE_EPROTOCOL, "closed");
	if (rc)
		return rc;
	end.closed = calloc(pb->n_closed + 1, sizeof(*end.closed));
	if (!end.closed)
		return segue_pb_fail_memory();
	for (; end.closed_count < pb->n_closed; end.closed_count++)
		strcpy(end.closed[end.closed_count], pb->closed[end.closed_count]);
	*(struct segue_log_end *)out = end;
	return 0;
}

int segue_log_end_unpack(const void *bytes, size_t size, struct segue_log_end *out)
{
	return unpack_record("end of a log", &segue__pb__log_end_record__descriptor, bytes, size,
		get_log_end, out);
}
