/* SequenceExample: the scan over its maps and steps, and the cursors. */
#include "source/tfrecord/example.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "core/error.h"
#include "source/tfrecord/feature.h"

enum wire { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

/* Field numbers of SequenceExample. */
enum { CONTEXT = 1, FEATURE_LISTS = 2 };

/* A message, or what is left of one, in the record. */
struct span {
	struct segue_window *window;
	uint64_t at, end;
};

/* The bytes before a step's values, to be compared as two words. */
struct pattern {
	uint64_t words[2], masks[2];
	uint32_t header; /* 0: none, or too long */
	uint64_t stride;
	enum segue_kind kind;
};

struct scan {
	const struct segue_spec *spec;
	struct segue_window *window;
	struct segue_example *example;
	bool key_found;
	/* Where the next name is looked for first: records keep an order. */
	size_t next_sequence, next_context;
};

/* ---- Memory ---- */

static uint64_t context_size(const struct segue_spec *spec, uint64_t *offset)
{
	uint64_t size = 0;

	for (size_t i = 0; i < spec->context_count; i++) {
		if (offset)
			offset[i] = size;
		size += (spec->contexts[i].size + 7) / 8 * 8;
	}
	return size;
}

int segue_example_init(struct segue_example *example, const struct segue_spec *spec)
{
	memset(example, 0, sizeof(*example));
	/* One more than need be: malloc(0) may be NULL. */
	example->cursors = calloc(spec->sequence_count + 1, sizeof(example->cursors[0]));
	example->context_offset =
		calloc(spec->context_count + 1, sizeof(example->context_offset[0]));
	example->context_found = calloc(spec->context_count + 1, sizeof(bool));
	if (example->context_offset)
		example->context = malloc(context_size(spec, example->context_offset) + 1);
	if (example->cursors && example->context_found && example->context)
		return SEGUE_OK;
	segue_example_finish(example);
	return segue_fail(SEGUE_ENOMEM, "no memory for a record's features");
}

void segue_example_finish(struct segue_example *example)
{
	free(example->cursors);
	free(example->context);
	free(example->context_offset);
	free(example->context_found);
	memset(example, 0, sizeof(*example));
}

size_t segue_example_memory(const struct segue_spec *spec)
{
	return (spec->sequence_count + 1) * sizeof(struct segue_cursor) +
	       (spec->context_count + 1) * (sizeof(uint64_t) + sizeof(bool)) +
	       context_size(spec, NULL) + 1;
}

/* ---- The wire ---- */

static int take_varint(struct span *span, uint64_t *value)
{
	uint64_t left = span->end - span->at;
	size_t size = left < 10 ? (size_t)left : 10, used;
	const uint8_t *bytes;
	int rc = segue_window_at(span->window, span->at, size, &bytes);

	if (rc < 0)
		return rc;
	used = segue_varint(bytes, size, value);
	if (!used)
		return segue_fail(SEGUE_EDATA, "damaged message: a number does not end (byte %ju)",
			(uintmax_t)span->at);
	span->at += used;
	return SEGUE_OK;
}

/* Takes a length and makes *inner the bytes that it counts, which come next. */
static int take_length(struct span *span, struct span *inner)
{
	uint64_t begin = span->at, length;
	int rc = take_varint(span, &length);

	if (rc < 0)
		return rc;
	if (length > span->end - span->at)
		return segue_fail(SEGUE_EDATA,
			"damaged message: a length of %ju bytes goes beyond what it is in "
			"(byte %ju)",
			(uintmax_t)length, (uintmax_t)begin);
	*inner = (struct span){span->window, span->at, span->at + length};
	return SEGUE_OK;
}

/* Takes the next field's tag; if it holds bytes, *inner is them, and they are skipped. */
static int take_field(struct span *span, uint64_t *number, struct span *inner)
{
	uint64_t begin = span->at, tag, size;
	int rc = take_varint(span, &tag);

	if (rc < 0)
		return rc;
	if (tag > UINT32_MAX || tag < 8)
		return segue_fail(SEGUE_EDATA, "damaged message: no field begins at byte %ju",
			(uintmax_t)begin);
	*number = tag >> 3;
	*inner = (struct span){span->window, 0, 0};
	switch (tag & 7) {
	case WIRE_VARINT:
		return take_varint(span, &size);
	case WIRE_BYTES:
		rc = take_length(span, inner);
		if (rc == SEGUE_OK)
			span->at = inner->end;
		return rc;
	case WIRE_64:
	case WIRE_32:
		size = (tag & 7) == WIRE_64 ? 8 : 4;
		if (size > span->end - span->at)
			return segue_fail(SEGUE_EDATA, "damaged message: it ends within a number");
		span->at += size;
		return SEGUE_OK;
	default:
		return segue_fail(SEGUE_EDATA,
			"damaged message: field %ju at byte %ju has wire type %u",
			(uintmax_t)*number, (uintmax_t)begin, (unsigned)(tag & 7));
	}
}

/* The same, for fields that hold messages if their number is at most `known`. */
static int take_message(struct span *span, uint64_t known, uint64_t *number, struct span *inner)
{
	uint64_t begin = span->at;
	int rc = take_field(span, number, inner);

	if (rc < 0 || *number > known || inner->at)
		return rc;
	return segue_fail(SEGUE_EDATA,
		"damaged message: field %ju at byte %ju should hold bytes and holds a number",
		(uintmax_t)*number, (uintmax_t)begin);
}

static uint64_t span_size(const struct span *span)
{
	return span->end - span->at;
}

/* ---- Steps ---- */

/* A step of less than 128 bytes that is in the window already: true. */
static bool take_short_step(struct span *list, uint64_t *begin, const uint8_t **bytes, size_t *size)
{
	struct segue_window *window = list->window;
	uint64_t end = list->end < window->end ? list->end : window->end;
	const uint8_t *at;

	if (list->at < window->start || list->at + 2 > end)
		return false;
	at = window->bytes + (list->at - window->start);
	if (at[0] != 0x0a || at[1] > 127 || at[1] > end - list->at - 2)
		return false;
	*begin = list->at;
	*bytes = at + 2;
	*size = at[1];
	list->at += 2u + at[1];
	return true;
}

/*
 * Takes the next step's Feature: *bytes and *size; 1, or 0 at the end of the list. The bytes
 * before it, from `begin` on, are in the window too.
 */
static int take_step(
	struct span *list, uint64_t limit, uint64_t *begin, const uint8_t **bytes, size_t *size)
{
	if (take_short_step(list, begin, bytes, size))
		return 1;
	while (list->at < list->end) {
		struct span step;
		uint64_t number;
		int rc;

		*begin = list->at;
		rc = take_message(list, 1, &number, &step);
		if (rc < 0)
			return rc;
		if (number != 1)
			continue;
		*size = (size_t)span_size(&step);
		if (*size > limit)
			return segue_fail(SEGUE_EDATA,
				"%zu bytes, more than the declared values can take", *size);
		rc = segue_window_at(list->window, *begin, step.end - *begin, bytes);
		*bytes += step.at - *begin;
		return rc < 0 ? rc : 1;
	}
	return 0;
}

static uint64_t load64(const uint8_t *bytes)
{
	uint64_t word;

	memcpy(&word, bytes, sizeof(word));
	return word;
}

static uint64_t low_bytes(uint32_t count)
{
	return count >= 8 ? UINT64_MAX : (UINT64_C(1) << 8 * count) - 1;
}

/* The pattern of a plain step of `stride` bytes whose last `size` are its values. */
static struct pattern make_pattern(
	const uint8_t *bytes, uint64_t stride, size_t size, enum segue_kind kind)
{
	struct pattern pattern = {.stride = stride, .kind = kind};
	uint64_t header = stride - size;

	if (header > sizeof(pattern.words))
		return pattern;
	memcpy(pattern.words, bytes, header);
	pattern.header = (uint32_t)header;
	pattern.masks[0] = low_bytes(pattern.header);
	pattern.masks[1] = low_bytes(pattern.header > 8 ? pattern.header - 8 : 0);
	return pattern;
}

static bool pattern_matches(const struct pattern *pattern, const uint8_t *bytes)
{
	return (((load64(bytes) ^ pattern->words[0]) & pattern->masks[0]) |
		       ((load64(bytes + 8) ^ pattern->words[1]) & pattern->masks[1])) == 0;
}

/* Steps at `bytes` that have the pattern and whose values fit. */
static uint64_t count_alike(const struct segue_field *field, const struct pattern *pattern,
	const uint8_t *bytes, uint64_t size)
{
	uint64_t need = pattern->stride > 16 ? pattern->stride : 16;
	size_t values = (size_t)(pattern->stride - pattern->header);
	bool sized = pattern->kind != SEGUE_KIND_INT64 &&
		     segue_dtype_row(field->dtype)->number != SEGUE_NUMBER_BOOL;
	uint64_t count = 0;

	for (; size >= need; size -= pattern->stride, bytes += pattern->stride, count++) {
		if (!pattern_matches(pattern, bytes))
			break;
		/* The number of floats follows from the size, which the header fixes. */
		if (!sized &&
			!segue_values_fit(field, pattern->kind, bytes + pattern->header, values))
			break;
	}
	return count;
}

/* Passes over steps that are already in the window and look like the one before. */
static uint64_t pass_alike(
	const struct segue_field *field, const struct pattern *pattern, struct span *list)
{
	struct segue_window *window = list->window;
	uint64_t end = list->end < window->end ? list->end : window->end, count;

	if (!pattern->header || list->at < window->start || list->at >= end)
		return 0;
	count = count_alike(
		field, pattern, window->bytes + (list->at - window->start), end - list->at);
	list->at += count * pattern->stride;
	return count;
}

/* Checks one step and says how it looks (header 0: not plain). */
static int check_step(const struct segue_field *field, const uint8_t *begin, const uint8_t *bytes,
	size_t size, struct pattern *pattern)
{
	enum segue_kind kind;
	size_t values;

	if (!segue_feature_plain(bytes, size, &kind, &values) ||
		!segue_values_fit(field, kind, bytes + size - values, values)) {
		*pattern = (struct pattern){0};
		return segue_feature_decode(field, bytes, size, NULL);
	}
	*pattern = make_pattern(begin, (uint64_t)(bytes - begin) + size, values, kind);
	return SEGUE_OK;
}

static bool same_pattern(const struct pattern *a, const struct pattern *b)
{
	return a->header && a->header == b->header && a->stride == b->stride &&
	       a->words[0] == b->words[0] && a->words[1] == b->words[1];
}

static int scan_steps(
	const struct segue_field *field, struct segue_window *window, struct segue_cursor *cursor)
{
	struct span list = {window, cursor->begin, cursor->end};
	struct pattern first = {0}, last = {0};
	bool alike = true;

	for (;;) {
		const uint8_t *bytes = NULL;
		uint64_t begin;
		size_t size;
		int rc;

		cursor->steps += pass_alike(field, &last, &list);
		rc = take_step(&list, segue_feature_limit(field), &begin, &bytes, &size);
		if (rc == 0)
			break;
		if (rc > 0)
			rc = check_step(
				field, bytes - (list.at - size - begin), bytes, size, &last);
		if (rc < 0)
			return segue_fail_within(rc, "step %ju", (uintmax_t)cursor->steps);
		if (cursor->steps++ == 0)
			first = last;
		alike = alike && same_pattern(&first, &last);
	}
	/* Unknown fields between the steps would show as bytes too many. */
	if (!alike || cursor->steps * first.stride != cursor->end - cursor->begin)
		return SEGUE_OK;
	cursor->stride = first.stride;
	cursor->header = first.header;
	cursor->kind = first.kind;
	return SEGUE_OK;
}

/* ---- Names ---- */

struct name {
	char bytes[SEGUE_NAME_MAX + 1];
	size_t size; /* > SEGUE_NAME_MAX: `bytes` holds what fits */
};

static int take_name(struct span *span, struct name *name)
{
	size_t size = (size_t)span_size(span);
	size_t kept = size < SEGUE_NAME_MAX ? size : SEGUE_NAME_MAX;
	const uint8_t *bytes;
	int rc = segue_window_at(span->window, span->at, kept, &bytes);

	if (rc < 0)
		return rc;
	memcpy(name->bytes, bytes, kept);
	name->bytes[kept] = '\0';
	name->size = size;
	return SEGUE_OK;
}

/* The name as it can stand in a message. */
static const char *printable(const struct name *name, char text[SEGUE_NAME_MAX + 4])
{
	size_t kept = name->size < SEGUE_NAME_MAX ? name->size : SEGUE_NAME_MAX;

	for (size_t i = 0; i < kept; i++) {
		unsigned char c = (unsigned char)name->bytes[i];

		text[i] = c < 32 || c == 127 ? '?' : name->bytes[i];
	}
	strcpy(text + kept, name->size > kept ? "..." : "");
	return text;
}

static bool name_is(const struct name *name, const char *text)
{
	return strlen(text) == name->size && memcmp(text, name->bytes, name->size) == 0;
}

/* The field of that name, tried from *next on; `count` if there is none. */
static size_t find_field(
	const struct segue_field *fields, size_t count, const struct name *name, size_t *next)
{
	for (size_t i = 0; i < count; i++) {
		size_t at = (*next + i) % count;

		if (!name_is(name, fields[at].name))
			continue;
		*next = at + 1;
		return at;
	}
	return count;
}

static int surplus(const struct scan *scan, const char *what, const struct name *name)
{
	char text[SEGUE_NAME_MAX + 4];

	if (scan->spec->source.tfrecord.allow_surplus)
		return SEGUE_OK;
	return segue_fail(SEGUE_EDATA,
		"%s '%s': not declared; declare it, or allow surplus "
		"features",
		what, printable(name, text));
}

static int twice(const char *what, const struct name *name)
{
	char text[SEGUE_NAME_MAX + 4];

	return segue_fail(SEGUE_EDATA, "%s '%s': there twice", what, printable(name, text));
}

/* ---- Maps ---- */

static int scan_list(struct scan *scan, const struct name *name, struct span *value)
{
	const struct segue_spec *spec = scan->spec;
	size_t i = find_field(spec->sequences, spec->sequence_count, name, &scan->next_sequence);
	struct segue_cursor *cursor = &scan->example->cursors[i];
	int rc;

	if (i == spec->sequence_count)
		return surplus(scan, "feature", name);
	if (cursor->found)
		return twice("feature", name);
	*cursor = (struct segue_cursor){.found = true, .begin = value->at, .end = value->end};
	rc = scan_steps(&spec->sequences[i], scan->window, cursor);
	return rc < 0 ? segue_fail_within(rc, "feature '%s'", spec->sequences[i].name) : rc;
}

/* The Feature of a context entry, whole, in the window. */
static int take_context(struct span *value, uint64_t limit, const uint8_t **bytes, size_t *size)
{
	*size = (size_t)span_size(value);
	if (*size > limit)
		return segue_fail(
			SEGUE_EDATA, "%zu bytes, more than the declared values can take", *size);
	return segue_window_at(value->window, value->at, *size, bytes);
}

static int scan_key(struct scan *scan, struct span *value)
{
	struct segue_example *example = scan->example;
	const uint8_t *bytes = NULL, *text = NULL;
	size_t length, size = 0;
	int rc = take_context(value, 65536, &bytes, &length);

	if (rc == SEGUE_OK)
		rc = segue_feature_text(bytes, length, &text, &size);
	if (rc < 0)
		return rc;
	if (size < 1 || size > SEGUE_EXAMPLE_KEY_MAX)
		return segue_fail(SEGUE_EDATA, "a key of %zu bytes; allowed are 1 to %d", size,
			SEGUE_EXAMPLE_KEY_MAX);
	if (memchr(text, '\0', size))
		return segue_fail(SEGUE_EDATA, "a key must not contain a zero byte");
	memcpy(example->key, text, size);
	example->key_size = size;
	return SEGUE_OK;
}

static int scan_context_field(struct scan *scan, size_t i, struct span *value)
{
	const struct segue_field *field = &scan->spec->contexts[i];
	struct segue_example *example = scan->example;
	const uint8_t *bytes;
	size_t size;
	int rc;

	if (example->context_found[i])
		return segue_fail(SEGUE_EDATA, "there twice");
	example->context_found[i] = true;
	rc = take_context(value, segue_feature_limit(field), &bytes, &size);
	if (rc < 0)
		return rc;
	return segue_feature_decode(
		field, bytes, size, example->context + example->context_offset[i]);
}

static int scan_context(struct scan *scan, const struct name *name, struct span *value)
{
	const struct segue_spec *spec = scan->spec;
	size_t i = find_field(spec->contexts, spec->context_count, name, &scan->next_context);
	const char *key = spec->source.tfrecord.key_feature;
	bool is_key = key && name_is(name, key);
	int rc = SEGUE_OK;

	if (i == spec->context_count && !is_key)
		return surplus(scan, "context feature", name);
	if (is_key && scan->key_found)
		return twice("context feature", name);
	if (is_key) {
		scan->key_found = true;
		rc = scan_key(scan, value);
	}
	if (rc == SEGUE_OK && i < spec->context_count)
		rc = scan_context_field(scan, i, value);
	if (rc < 0) {
		char text[SEGUE_NAME_MAX + 4];

		return segue_fail_within(rc, "context feature '%s'", printable(name, text));
	}
	return SEGUE_OK;
}

/* One entry of a map: name and value, in either order. */
static int scan_entry(struct scan *scan, uint64_t map, struct span *entry)
{
	struct span name_at = {scan->window, 0, 0}, value = {scan->window, 0, 0};
	struct name name = {.size = 0};
	int rc = SEGUE_OK;

	while (entry->at < entry->end) {
		struct span inner, *to;
		uint64_t number;

		rc = take_message(entry, 2, &number, &inner);
		if (rc < 0)
			return rc;
		if (number > 2)
			continue;
		to = number == 1 ? &name_at : &value;
		if (to->at)
			return segue_fail(SEGUE_EDATA, "damaged message: a map entry with two %s",
				number == 1 ? "names" : "values");
		*to = inner;
		if (number == 1)
			rc = take_name(&inner, &name);
		if (rc < 0)
			return rc;
	}
	return map == CONTEXT ? scan_context(scan, &name, &value) : scan_list(scan, &name, &value);
}

static int scan_map(struct scan *scan, uint64_t map, struct span *span)
{
	while (span->at < span->end) {
		struct span entry;
		uint64_t number;
		int rc = take_message(span, 1, &number, &entry);

		if (rc == SEGUE_OK && number == 1)
			rc = scan_entry(scan, map, &entry);
		if (rc < 0)
			return rc;
	}
	return SEGUE_OK;
}

/* ---- The whole ---- */

static int check_all_found(const struct scan *scan)
{
	const struct segue_spec *spec = scan->spec;
	const char *key = spec->source.tfrecord.key_feature;

	for (size_t i = 0; i < spec->sequence_count; i++)
		if (!scan->example->cursors[i].found)
			return segue_fail(
				SEGUE_EDATA, "feature '%s': missing", spec->sequences[i].name);
	for (size_t i = 0; i < spec->context_count; i++)
		if (!scan->example->context_found[i])
			return segue_fail(SEGUE_EDATA, "context feature '%s': missing",
				spec->contexts[i].name);
	if (key && !scan->key_found)
		return segue_fail(SEGUE_EDATA,
			"context feature '%s': missing; it was named as the records' key", key);
	return SEGUE_OK;
}

static int unequal(const struct segue_spec *spec, const struct segue_cursor *cursors)
{
	char text[2048];
	size_t used = 0;

	for (size_t i = 0; i < spec->sequence_count && used < sizeof(text); i++)
		used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%s=%ju",
			i ? ", " : "", spec->sequences[i].name, (uintmax_t)cursors[i].steps);
	return segue_fail(SEGUE_EDATA, "its features have different numbers of steps: %s", text);
}

static int check_steps(const struct segue_spec *spec, struct segue_example *example)
{
	uint64_t steps = spec->sequence_count ? example->cursors[0].steps : 0;

	for (size_t i = 1; i < spec->sequence_count; i++)
		if (example->cursors[i].steps != steps)
			return unequal(spec, example->cursors);
	if (steps == 0)
		return segue_fail(SEGUE_EDATA, "empty sequence: its features have no steps");
	if (!spec->pad && steps % spec->num_unroll)
		return segue_fail(SEGUE_EDATA,
			"feature '%s': %ju steps, which is no multiple of num_unroll = %u; "
			"consider pad=True",
			spec->sequences[0].name, (uintmax_t)steps, spec->num_unroll);
	example->steps = steps;
	return SEGUE_OK;
}

int segue_example_scan(
	const struct segue_spec *spec, struct segue_window *window, struct segue_example *example)
{
	struct scan scan = {.spec = spec, .window = window, .example = example};
	struct span record = {window, 0, window->blocks->size};
	int rc;

	for (size_t i = 0; i < spec->sequence_count; i++)
		example->cursors[i] = (struct segue_cursor){.found = false};
	for (size_t i = 0; i < spec->context_count; i++)
		example->context_found[i] = false;
	example->key_size = 0;
	while (record.at < record.end) {
		struct span map;
		uint64_t number;

		rc = take_message(&record, FEATURE_LISTS, &number, &map);
		if (rc == SEGUE_OK && number <= FEATURE_LISTS)
			rc = scan_map(&scan, number, &map);
		if (rc < 0)
			return rc;
	}
	rc = check_all_found(&scan);
	if (rc == SEGUE_OK)
		rc = check_steps(spec, example);
	for (size_t i = 0; rc == SEGUE_OK && i < spec->sequence_count; i++)
		example->cursors[i].position = example->cursors[i].begin;
	return rc;
}

/* ---- Cursors ---- */

int segue_example_seek(struct segue_cursor *cursor, struct segue_window *window, uint64_t step)
{
	struct span list;

	if (cursor->stride) {
		cursor->position = cursor->begin + step * cursor->stride;
		cursor->step = step;
		return SEGUE_OK;
	}
	if (step < cursor->step) {
		cursor->position = cursor->begin;
		cursor->step = 0;
	}
	list = (struct span){window, cursor->position, cursor->end};
	while (cursor->step < step) {
		struct span inner;
		uint64_t number;
		int rc = take_field(&list, &number, &inner);

		if (rc < 0)
			return rc;
		cursor->step += number == 1;
		cursor->position = list.at;
	}
	return SEGUE_OK;
}

static void copy_at_stride(
	uint8_t *out, const uint8_t *bytes, uint64_t stride, size_t size, uint64_t steps)
{
	if (size == 4)
		for (uint64_t i = 0; i < steps; i++, bytes += stride)
			memcpy(out + 4 * i, bytes, 4);
	else
		for (; steps; steps--, bytes += stride, out += size)
			memcpy(out, bytes, size);
}

/* Decodes steps that look alike and lie in memory. */
static void decode_alike(const struct segue_field *field, const struct segue_cursor *cursor,
	const uint8_t *bytes, uint64_t steps, uint8_t *out)
{
	size_t values = (size_t)(cursor->stride - cursor->header);

	bytes += cursor->header;
	if (cursor->kind == SEGUE_KIND_BYTES ||
		(cursor->kind == SEGUE_KIND_FLOAT &&
			segue_dtype_is_float32(segue_dtype_row(field->dtype)))) {
		copy_at_stride(out, bytes, cursor->stride, values, steps);
		return;
	}
	for (; steps; steps--, bytes += cursor->stride, out += field->size)
		segue_values_decode(field, cursor->kind, bytes, values, out);
}

static int read_alike(const struct segue_field *field, struct segue_cursor *cursor,
	struct segue_window *window, uint64_t steps, uint8_t *out)
{
	while (steps) {
		const uint8_t *bytes;
		uint64_t count;
		int rc = segue_window_at(window, cursor->position, cursor->stride, &bytes);

		if (rc < 0)
			return rc;
		count = (window->end - cursor->position) / cursor->stride;
		if (count > steps)
			count = steps;
		decode_alike(field, cursor, bytes, count, out);
		out += count * field->size;
		cursor->position += count * cursor->stride;
		cursor->step += count;
		steps -= count;
	}
	return SEGUE_OK;
}

static int decode_step(
	const struct segue_field *field, const uint8_t *bytes, size_t size, uint8_t *out)
{
	enum segue_kind kind;
	size_t values;

	if (!segue_feature_plain(bytes, size, &kind, &values) || kind != segue_field_kind(field) ||
		(kind == SEGUE_KIND_FLOAT && values != 4 * field->elements))
		return segue_feature_decode(field, bytes, size, out);
	segue_values_decode(field, kind, bytes + size - values, values, out);
	return SEGUE_OK;
}

static int read_any(const struct segue_field *field, struct segue_cursor *cursor,
	struct segue_window *window, uint64_t steps, uint8_t *out)
{
	struct span list = {window, cursor->position, cursor->end};

	for (; steps; steps--, out += field->size) {
		const uint8_t *bytes;
		uint64_t begin;
		size_t size;
		int rc = take_step(&list, segue_feature_limit(field), &begin, &bytes, &size);

		if (rc > 0)
			rc = decode_step(field, bytes, size, out);
		if (rc < 0)
			return rc;
		cursor->position = list.at;
		cursor->step++;
	}
	return SEGUE_OK;
}

int segue_example_read(const struct segue_field *field, struct segue_cursor *cursor,
	struct segue_window *window, uint64_t steps, void *out)
{
	if (cursor->stride)
		return read_alike(field, cursor, window, steps, out);
	return read_any(field, cursor, window, steps, out);
}
