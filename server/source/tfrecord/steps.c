/* The steps of a sequence feature: their scan, at full speed where they look alike, and cursors. */
#include "source/tfrecord/steps.h"

#include <inttypes.h>
#include <string.h>

#include "core/dtype.h"
#include "core/error.h"
#include "source/source.h"
#include "source/tfrecord/feature.h"
#include "source/tfrecord/message.h"

/* The bytes before a step's values, to be compared as two words. */
struct pattern {
	uint64_t words[2], masks[2];
	uint32_t header; /* 0: none, or too long */
	uint64_t stride;
	enum segue_kind kind;
};

/* ---- The scan ---- */

/* A step of less than 128 bytes that is in the window already: true. */
static bool take_short_step(
	struct segue_piece *list, uint64_t *begin, const uint8_t **bytes, size_t *size)
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
static int take_step(struct segue_piece *list, uint64_t limit, uint64_t *begin,
	const uint8_t **bytes, size_t *size)
{
	if (take_short_step(list, begin, bytes, size))
		return 1;
	while (list->at < list->end) {
		struct segue_piece step;
		uint64_t number;
		int rc;

		*begin = list->at;
		rc = segue_piece_take_message(list, 1, &number, &step);
		if (rc)
			return rc;
		if (number != 1)
			continue;
		*size = (size_t)segue_piece_size(&step);
		if (*size > limit)
			return segue_fail(SEGUE_EMISFIT,
				"%zu bytes, more than the declared values can take; is the shape "
				"right?",
				*size);
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
	const struct segue_dtype_row *dtype = segue_dtype_row(field->dtype);
	/* Of other values all are good, and the header fixes their number. */
	bool each = pattern->kind == SEGUE_KIND_INT64 || dtype->number == SEGUE_NUMBER_BOOL ||
		    (pattern->kind == SEGUE_KIND_FLOAT && !segue_dtype_takes_float32(dtype));
	uint64_t count = 0;

	for (; size >= need; size -= pattern->stride, bytes += pattern->stride, count++) {
		if (!pattern_matches(pattern, bytes))
			break;
		if (each &&
			!segue_values_fit(field, pattern->kind, bytes + pattern->header, values))
			break;
	}
	return count;
}

/* Passes over steps that are already in the window and look like the one before. */
static uint64_t pass_alike(
	const struct segue_field *field, const struct pattern *pattern, struct segue_piece *list)
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

/* The Feature that a list has just given. */
static struct segue_piece taken(const struct segue_piece *list, size_t size)
{
	return (struct segue_piece){list->window, list->at - size, list->at};
}

/* Checks the step that was taken, from `begin` on, and says how it looks (header 0: not plain). */
static int check_step(const struct segue_field *field, const struct segue_piece *list,
	uint64_t begin, const uint8_t *bytes, size_t size, struct pattern *pattern)
{
	uint64_t stride = list->at - begin;
	enum segue_kind kind;
	size_t values;

	if (!segue_feature_plain(bytes, size, &kind, &values) ||
		!segue_values_fit(field, kind, bytes + size - values, values)) {
		*pattern = (struct pattern){0};
		return segue_feature_decode(field, taken(list, size), NULL);
	}
	*pattern = make_pattern(bytes + size - stride, stride, values, kind);
	return 0;
}

static bool same_pattern(const struct pattern *a, const struct pattern *b)
{
	return a->header && a->header == b->header && a->stride == b->stride &&
	       a->words[0] == b->words[0] && a->words[1] == b->words[1];
}

int segue_steps_scan(
	const struct segue_field *field, struct segue_window *window, struct segue_cursor *cursor)
{
	struct segue_piece list = {window, cursor->begin, cursor->end};
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
			rc = check_step(field, &list, begin, bytes, size, &last);
		if (rc < 0)
			return segue_fail_within(rc, "step %" PRIu64, cursor->steps);
		if (cursor->steps++ == 0)
			first = last;
		alike = alike && same_pattern(&first, &last);
	}
	/* Unknown fields between the steps would show as bytes too many. */
	if (!alike || cursor->steps * first.stride != cursor->end - cursor->begin)
		return 0;
	cursor->stride = first.stride;
	cursor->header = first.header;
	cursor->kind = first.kind;
	return 0;
}

/* ---- Cursors ---- */

int segue_steps_seek(struct segue_cursor *cursor, struct segue_window *window, uint64_t step)
{
	struct segue_piece list;

	if (cursor->stride) {
		cursor->position = cursor->begin + step * cursor->stride;
		cursor->step = step;
		return 0;
	}
	if (step < cursor->step) {
		cursor->position = cursor->begin;
		cursor->step = 0;
	}
	list = (struct segue_piece){window, cursor->position, cursor->end};
	while (cursor->step < step) {
		struct segue_part part;
		int rc = segue_piece_take(&list, &part);

		if (rc < 0)
			return rc;
		cursor->step += part.number == 1;
		cursor->position = list.at;
	}
	return 0;
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
	if (cursor->header == 0 &&
		cursor->kind != SEGUE_KIND_INT64) { /* of a series: side by side */
		segue_values_decode(field, cursor->kind, bytes, steps * values, out);
		return;
	}
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

		if (rc)
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
	return 0;
}

static int decode_step(const struct segue_field *field, const struct segue_piece *list,
	const uint8_t *bytes, size_t size, uint8_t *out)
{
	enum segue_kind kind;
	size_t values;

	if (!segue_feature_plain(bytes, size, &kind, &values) || kind != segue_field_kind(field) ||
		(kind == SEGUE_KIND_FLOAT && values != 4 * field->elements))
		return segue_feature_decode(field, taken(list, size), out);
	segue_values_decode(field, kind, bytes + size - values, values, out);
	return 0;
}

static int read_any(const struct segue_field *field, struct segue_cursor *cursor,
	struct segue_window *window, uint64_t steps, uint8_t *out)
{
	struct segue_piece list = {window, cursor->position, cursor->end};

	for (; steps; steps--, out += field->size) {
		const uint8_t *bytes;
		uint64_t begin;
		size_t size;
		int rc = take_step(&list, segue_feature_limit(field), &begin, &bytes, &size);

		if (rc > 0)
			rc = decode_step(field, &list, bytes, size, out);
		if (rc < 0)
			return rc;
		cursor->position = list.at;
		cursor->step++;
	}
	return 0;
}

int segue_steps_read(const struct segue_field *field, struct segue_cursor *cursor,
	struct segue_window *window, uint64_t steps, void *out)
{
	if (cursor->stride)
		return read_alike(field, cursor, window, steps, out);
	return read_any(field, cursor, window, steps, out);
}
