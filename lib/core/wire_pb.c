/* Protobuf messages as tables of their fields: packing and checking them. */
#include "core/wire_pb.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/utf8.h"

void *segue_pb_build(struct segue_arena *scratch, size_t count, size_t size)
{
	void *bytes = segue_arena_take(scratch, count * size);

	assert(bytes);
	return bytes;
}

static void *allocate(void *arena, size_t size)
{
	return segue_arena_take(arena, size);
}

static void keep(void *arena, void *bytes)
{
	(void)arena;
	(void)bytes;
}

ProtobufCMessage *segue_pb_parse(const char *name, const ProtobufCMessageDescriptor *descriptor,
	const void *bytes, size_t size, struct segue_arena *arena)
{
	ProtobufCAllocator allocator = {.alloc = allocate, .free = keep, .allocator_data = arena};
	ProtobufCMessage *pb = protobuf_c_message_unpack(descriptor, &allocator, size, bytes);

	if (!pb && arena->used == arena->size)
		segue_fail(SEGUE_EPROTOCOL, "%s: %zu bytes need more than the %zu to unpack them",
			name, size, arena->size);
	else if (!pb)
		segue_fail(SEGUE_EPROTOCOL, "%s: %zu bytes are no such message", name, size);
	return pb;
}

int segue_pb_fail_memory(void)
{
	return segue_fail(SEGUE_ENOMEM, "no memory for a record");
}

/* ---- Checking ---- */

int segue_pb_check_range(const char *field, uint64_t value, uint64_t least, uint64_t most)
{
	if (value >= least && value <= most)
		return 0;
	return segue_fail(SEGUE_EPROTOCOL, "%s is %" PRIu64 ", expected %" PRIu64 " to %" PRIu64,
		field, value, least, most);
}

static int check_length(const char *field, size_t length, size_t most)
{
	if (length <= most)
		return 0;
	return segue_fail(
		SEGUE_EPROTOCOL, "%s has %zu bytes, at most %zu are allowed", field, length, most);
}

int segue_pb_check_text(const char *field, const char *text, size_t most)
{
	size_t length = strlen(text);
	int rc = check_length(field, length, most);

	if (!rc && !segue_utf8_valid(text, length))
		rc = segue_fail(SEGUE_EPROTOCOL, "%s is not valid UTF-8", field);
	return rc;
}

int segue_pb_check_string(const char *field, const ProtobufCBinaryData *from, size_t most)
{
	int rc = check_length(field, from->len, most);

	if (!rc && from->len > 0 && memchr(from->data, '\0', from->len))
		rc = segue_fail(SEGUE_EPROTOCOL, "%s has a NUL inside", field);
	return rc;
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

/* ---- Fields out ---- */

/* A text for people: cut to `most` bytes, and '?' for what is not UTF-8 (names of files can be). */
static char *put_text(struct segue_arena *scratch, const char *text, size_t most)
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

/* "report.stream" -> "stream": the word that the user knows. */
static const char *last_name(const char *name)
{
	const char *dot = strrchr(name, '.');

	return dot ? dot + 1 : name;
}

/* What the user asks by must arrive as it is, so a name that cannot is refused here. */
static int put_name(const struct segue_pb_field *field, const char *name, void *there)
{
	char what[64];

	snprintf(what, sizeof(what), "the name of the %s", last_name(field->name));
	if (segue_pb_check_text(what, name, field->most))
		return SEGUE_EINVAL;
	*(char **)there = (char *)(uintptr_t)name;
	return 0;
}

static int put_string(const struct segue_pb_field *field, const char *string, void *there)
{
	size_t size = string ? strlen(string) : 0;

	if (size > field->most)
		return segue_fail(SEGUE_EINVAL,
			"the %s has %zu bytes, at most %" PRIu64 " are allowed",
			last_name(field->name), size, field->most);
	if (string)
		*(ProtobufCBinaryData *)there = segue_pb_put_bytes(string, size);
	return 0;
}

static size_t number_size(enum segue_pb_kind kind)
{
	return kind == SEGUE_PB_UINT32 || kind == SEGUE_PB_CODE ? 4 : 8;
}

static int put_field(const struct segue_pb_field *field, const void *here,
	struct segue_arena *scratch, void *there)
{
	switch (field->kind) {
	case SEGUE_PB_UINT32:
	case SEGUE_PB_UINT64:
	case SEGUE_PB_INT64:
	case SEGUE_PB_TIME:
	case SEGUE_PB_CODE:
		memcpy(there, here, number_size(field->kind));
		return 0;
	case SEGUE_PB_BOOL:
		*(protobuf_c_boolean *)there = *(const bool *)here;
		return 0;
	case SEGUE_PB_TEXT:
		*(char **)there = put_text(scratch, *(const char *const *)here, field->most);
		return 0;
	case SEGUE_PB_NAME:
		return put_name(field, *(const char *const *)here, there);
	case SEGUE_PB_NAME_ARRAY:
		*(const char **)there = here;
		return 0;
	case SEGUE_PB_STRING:
		return put_string(field, *(const char *const *)here, there);
	case SEGUE_PB_BYTES:
		*(ProtobufCBinaryData *)there = segue_pb_put_bytes(here, field->most);
		return 0;
	}
	return 0;
}

int segue_pb_put(const struct segue_pb_field *fields, const void *own, struct segue_arena *scratch,
	ProtobufCMessage *pb)
{
	int rc = 0;

	for (const struct segue_pb_field *field = fields; !rc && field->name; field++)
		rc = put_field(
			field, (const char *)own + field->here, scratch, (char *)pb + field->there);
	return rc;
}

/* ---- Fields in ---- */

/* A failure's code that is not known here stays a failure; zero would be taken for success. */
static int get_number(const struct segue_pb_field *field, const void *there, void *here)
{
	union {
		uint32_t u32;
		int32_t i32;
		uint64_t u64;
		int64_t i64;
	} value;
	size_t size = number_size(field->kind);

	memcpy(&value, there, size);
	memcpy(here, &value, size);
	if (field->kind == SEGUE_PB_TIME && value.i64 < 0)
		return segue_fail(
			SEGUE_EPROTOCOL, "%s is negative: %" PRId64, field->name, value.i64);
	if (field->kind == SEGUE_PB_CODE && value.i32 >= 0)
		return segue_fail(SEGUE_EPROTOCOL, "%s is %" PRId32 ", expected a negative code",
			field->name, value.i32);
	if (field->kind != SEGUE_PB_UINT32 && field->kind != SEGUE_PB_UINT64)
		return 0;
	return segue_pb_check_range(
		field->name, size == 4 ? value.u32 : value.u64, field->least, field->most);
}

static int get_name_array(const struct segue_pb_field *field, const char *text, void *here)
{
	int rc = segue_pb_check_text(field->name, text, field->most);

	if (!rc)
		memcpy(here, text, strlen(text) + 1);
	return rc;
}

/* Bytes as a C string in the arena. */
static int get_string(const struct segue_pb_field *field, const ProtobufCBinaryData *from,
	struct segue_arena *arena, const char **here)
{
	int rc = segue_pb_check_string(field->name, from, field->most);
	char *text;

	if (rc)
		return rc;
	text = segue_arena_take(arena, from->len + 1);
	if (!text)
		return segue_fail(
			SEGUE_EPROTOCOL, "%s: no room for %zu bytes", field->name, from->len);
	if (from->len > 0)
		memcpy(text, from->data, from->len);
	text[from->len] = '\0';
	*here = text;
	return 0;
}

static int get_field(const struct segue_pb_field *field, const void *there,
	struct segue_arena *arena, void *here)
{
	switch (field->kind) {
	case SEGUE_PB_UINT32:
	case SEGUE_PB_UINT64:
	case SEGUE_PB_INT64:
	case SEGUE_PB_TIME:
	case SEGUE_PB_CODE:
		return get_number(field, there, here);
	case SEGUE_PB_BOOL:
		*(bool *)here = *(const protobuf_c_boolean *)there != 0;
		return 0;
	case SEGUE_PB_TEXT:
	case SEGUE_PB_NAME:
		*(const char **)here = *(char *const *)there;
		return segue_pb_check_text(field->name, *(char *const *)there, field->most);
	case SEGUE_PB_NAME_ARRAY:
		return get_name_array(field, *(char *const *)there, here);
	case SEGUE_PB_STRING:
		return get_string(field, there, arena, here);
	case SEGUE_PB_BYTES:
		return segue_pb_get_bytes(field->name, there, here, field->most);
	}
	return 0;
}

int segue_pb_get(const struct segue_pb_field *fields, const ProtobufCMessage *pb,
	struct segue_arena *arena, void *own)
{
	int rc = 0;

	for (const struct segue_pb_field *field = fields; !rc && field->name; field++)
		rc = get_field(
			field, (const char *)pb + field->there, arena, (char *)own + field->here);
	return rc;
}

/* ---- Columns ---- */

size_t segue_pb_columns_scratch(const struct segue_pb_column *columns, size_t rows)
{
	size_t size = 0;

	for (; columns->name; columns++)
		size += rows * sizeof(uint64_t) + SEGUE_ARENA_ALIGN;
	return size;
}

void segue_pb_put_columns(const struct segue_pb_column *columns, const void *base, size_t stride,
	size_t rows, struct segue_arena *scratch, ProtobufCMessage *pb)
{
	for (; columns->name; columns++) {
		uint64_t *values = segue_pb_build(scratch, rows, sizeof(*values));

		for (size_t i = 0; i < rows; i++)
			memcpy(&values[i], (const char *)base + i * stride + columns->here,
				sizeof(values[i]));
		*(size_t *)((char *)pb + columns->count) = rows;
		*(uint64_t **)((char *)pb + columns->there) = values;
	}
}

static size_t count_of(const struct segue_pb_column *column, const ProtobufCMessage *pb)
{
	return *(const size_t *)((const char *)pb + column->count);
}

int segue_pb_count_rows(const struct segue_pb_column *columns, const char *what, size_t most,
	const ProtobufCMessage *pb, size_t *rows)
{
	const struct segue_pb_column *first = columns;
	int rc = segue_pb_check_range(what, count_of(first, pb), 0, most);

	while (!rc && (++columns)->name) {
		if (count_of(columns, pb) != count_of(first, pb))
			rc = segue_fail(SEGUE_EPROTOCOL,
				"%s: %zu of %s, %zu of %s; they should be as many", what,
				count_of(first, pb), first->name, count_of(columns, pb),
				columns->name);
	}
	if (!rc)
		*rows = count_of(first, pb);
	return rc;
}

void segue_pb_get_columns(const struct segue_pb_column *columns, const ProtobufCMessage *pb,
	void *base, size_t stride, size_t rows)
{
	for (; columns->name; columns++) {
		const uint64_t *values = *(uint64_t *const *)((const char *)pb + columns->there);

		for (size_t i = 0; i < rows; i++)
			memcpy((char *)base + i * stride + columns->here, &values[i],
				sizeof(values[i]));
	}
}
