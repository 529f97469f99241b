/*
 * What wire_spec.c, wire_messages.c and wire_records.c are made of, the only files that see
 * protobuf-c: tables that say of each field of a protobuf message where it lies there and here, and
 * what it may be; and pieces for what is no plain field.
 *
 * A check that fails is SEGUE_EPROTOCOL and names the field.
 */
#ifndef SEGUE_CORE_WIRE_PB_H
#define SEGUE_CORE_WIRE_PB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/arena.h"
#include "segue.pb-c.h"

#if PROTOBUF_C_VERSION_NUMBER < 1004001
#error "protobuf-c before 1.4.1 reads beyond its input (CVE-2022-48468)"
#endif

/* The kinds of fields, and what is checked of one that was unpacked (SEGUE_EPROTOCOL). */
enum segue_pb_kind {
	SEGUE_PB_UINT32, /* also enums: from `least` to `most` */
	SEGUE_PB_UINT64, /* from `least` to `most` */
	SEGUE_PB_INT64,
	SEGUE_PB_TIME, /* an int64 that is not negative */
	SEGUE_PB_CODE, /* an int32 that is negative */
	SEGUE_PB_BOOL,
	/* Text, UTF-8, of `most` bytes at most, here a const char *. */
	SEGUE_PB_TEXT,       /* for people: cut when packed, '?' for what is not UTF-8 */
	SEGUE_PB_NAME,       /* refused when packed if it is too long or not UTF-8: SEGUE_EINVAL */
	SEGUE_PB_NAME_ARRAY, /* packed as it is; here in an array of `most` + 1 */
	/* Any bytes without a NUL, `most` at most, here a const char *; NULL when packed: none. */
	SEGUE_PB_STRING,
	SEGUE_PB_BYTES, /* exactly `most` bytes, here in an array of as many */
};

struct segue_pb_field {
	const char *name; /* "report.stream": for messages */
	enum segue_pb_kind kind;
	uint16_t there, here; /* offsets in the protobuf struct, and in ours */
	uint64_t least, most;
};

/* A row of a table. `path` is the member of our struct, `member` that of protobuf's. */
#define SEGUE_PB_FIELD(pb, member, own, path, KIND, least_, most_)                                 \
	{                                                                                          \
		.name = #path, .kind = SEGUE_PB_##KIND,                                            \
		.there = offsetof(Segue__Pb__##pb, member), .here = offsetof(own, path),           \
		.least = (least_), .most = (most_)                                                 \
	}
/* One of a number, whose sizes must be the same: the compiler looks. */
#define SEGUE_PB_NUMBER(pb, member, own, path, KIND, least_, most_)                                \
	{                                                                                          \
		.name = #path, .kind = SEGUE_PB_##KIND,                                            \
		.there = offsetof(Segue__Pb__##pb, member) +                                       \
			 0 * sizeof(char[sizeof(((Segue__Pb__##pb *)0)->member) ==                 \
							 sizeof(((own *)0)->path)                  \
						 ? 1                                               \
						 : -1]),                                           \
		.here = offsetof(own, path), .least = (least_), .most = (most_)                    \
	}

/*
 * Fills the zeroed protobuf form in: what it points to lies in `own` or in the scratch. Rows of the
 * table with a `name` of NULL end it.
 */
int segue_pb_put(const struct segue_pb_field *fields, const void *own, struct segue_arena *scratch,
	ProtobufCMessage *pb);
/* Checks the protobuf form and takes it over; texts stay in `pb`, strings lie in the arena. */
int segue_pb_get(const struct segue_pb_field *fields, const ProtobufCMessage *pb,
	struct segue_arena *arena, void *own);

/*
 * Repeated fields of 64 bits that are parallel there, and here a member each of an array's structs.
 */
struct segue_pb_column {
	const char *name;
	uint16_t count, there,
		here; /* offsets: n_x and x in the protobuf struct; in an element of ours */
};
#define SEGUE_PB_COLUMN(pb, member, own)                                                           \
	{                                                                                          \
		.name = #member, .count = offsetof(Segue__Pb__##pb, n_##member),                   \
		.there = offsetof(Segue__Pb__##pb, member) +                                       \
			 0 * sizeof(char[sizeof(*((Segue__Pb__##pb *)0)->member) == 8 ? 1 : -1]),  \
		.here = offsetof(own, member) +                                                    \
			0 * sizeof(char[sizeof(((own *)0)->member) == 8 ? 1 : -1])                 \
	}
/* Bytes of scratch that they take. */
size_t segue_pb_columns_scratch(const struct segue_pb_column *columns, size_t rows);
void segue_pb_put_columns(const struct segue_pb_column *columns, const void *base, size_t stride,
	size_t rows, struct segue_arena *scratch, ProtobufCMessage *pb);
/* How many rows they have. SEGUE_EPROTOCOL: not all as many, or more than `most`. */
int segue_pb_count_rows(const struct segue_pb_column *columns, const char *what, size_t most,
	const ProtobufCMessage *pb, size_t *rows);
void segue_pb_get_columns(const struct segue_pb_column *columns, const ProtobufCMessage *pb,
	void *base, size_t stride, size_t rows);

/* Unpacks into the arena. NULL: SEGUE_EPROTOCOL, and the detail says why. */
ProtobufCMessage *segue_pb_parse(const char *name, const ProtobufCMessageDescriptor *descriptor,
	const void *bytes, size_t size, struct segue_arena *arena);

/* ---- Pieces, for what is no plain field ---- */

/* `count` zeroed things of `size` bytes, from a scratch sized for what is packed: never NULL. */
void *segue_pb_build(struct segue_arena *scratch, size_t count, size_t size);
/* SEGUE_ENOMEM, with a detail. */
int segue_pb_fail_memory(void);
/* Points to `bytes`. */
ProtobufCBinaryData segue_pb_put_bytes(const void *bytes, size_t size);
/* Exactly `size` bytes into `out`. */
int segue_pb_get_bytes(const char *field, const ProtobufCBinaryData *from, void *out, size_t size);
int segue_pb_check_range(const char *field, uint64_t value, uint64_t least, uint64_t most);
int segue_pb_check_text(const char *field, const char *text, size_t most);
/* Bytes that are to become a C string. */
int segue_pb_check_string(const char *field, const ProtobufCBinaryData *from, size_t most);
int segue_pb_fail_memory(void);

#endif
