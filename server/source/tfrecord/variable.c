/* Features that are ragged, or bytes: steps checked, counted, and appended to a sink. */
#include "source/tfrecord/variable.h"

#include <inttypes.h>

#include "core/dtype.h"
#include "core/error.h"
#include "source/source.h"
#include "source/tfrecord/feature.h"
#include "source/tfrecord/flow.h"
#include "source/tfrecord/message.h"

/* ---- One step: a Feature --------------------------------------------------------------------- */

static uint64_t count_plain(
	const struct segue_field *field, enum segue_kind kind, const uint8_t *bytes, size_t size)
{
	switch (kind) {
	case SEGUE_KIND_BYTES:
		return size / field->size;
	case SEGUE_KIND_FLOAT:
		return size / sizeof(float);
	case SEGUE_KIND_INT64:
		return segue_flow_integers(bytes, size);
	case SEGUE_KIND_NONE:
		break;
	}
	return 0;
}

/*
 * A Feature of the form that writers use, small enough to be looked at at once: 1; its values are
 * as those of a dense field that has so many. 0: another form, or another size.
 */
static int take_plain(const struct segue_flow *flow, struct segue_piece feature, uint64_t *count)
{
	struct segue_field field = *flow->field;
	size_t length = (size_t)segue_piece_size(&feature), size;
	enum segue_kind kind;
	const uint8_t *bytes;
	uint8_t *out;

	if (length > feature.window->blocks->block)
		return 0;
	int rc = segue_window_at(feature.window, feature.at, length, &bytes);
	if (rc)
		return rc;
	if (!segue_feature_plain(bytes, length, &kind, &size) ||
		(field.form == SEGUE_FORM_BYTES && kind != SEGUE_KIND_BYTES))
		return 0;
	bytes += length - size;
	field.elements = count_plain(&field, kind, bytes, size);
	field.size *= field.elements;
	if (flow->check && !segue_values_fit(&field, kind, bytes, size))
		return 0;
	*count = field.elements;
	if (!flow->sink || field.size == 0)
		return 1;
	rc = segue_sink_add(flow->sink, field.size, &out);
	if (rc)
		return rc;
	segue_values_decode(&field, kind, bytes, size, out);
	return 1;
}

/* Goes through all bytes values of a Feature, and back to the first; *count: how many there are. */
static int find_bytes(struct segue_flow *flow, uint64_t *count)
{
	struct segue_cursor *cursor = flow->cursor;
	uint64_t begin = 0, end = 0;

	*count = 0;
	while (!segue_flow_at_end(cursor)) {
		int rc = segue_flow_part(flow);

		if (rc < 0)
			return rc;
		if (rc == 0)
			continue;
		if ((*count)++ == 0) {
			begin = cursor->position;
			end = cursor->run;
		}
		cursor->position = cursor->run;
	}
	cursor->position = begin;
	cursor->run = end;
	return 0;
}

/* The bytes value at a cursor as values of what is ragged. */
static int check_raw(struct segue_flow *flow)
{
	const struct segue_field *field = flow->field;
	struct segue_cursor *cursor = flow->cursor;
	uint64_t begin = cursor->position, size = cursor->run - begin;

	if (size % field->size)
		return segue_fail(SEGUE_EMISFIT,
			"a bytes value of %" PRIu64 " bytes, no multiple of the %" PRIu64
			" of a value of %s",
			size, field->size, segue_dtype_name(field->dtype));
	if (segue_dtype_row(field->dtype)->number != SEGUE_NUMBER_BOOL)
		return 0;
	int rc = segue_flow_bools(flow);
	cursor->position = begin;
	return rc;
}

static int take_bytes(struct segue_flow *flow, uint64_t *count)
{
	const struct segue_field *field = flow->field;
	bool text = field->form == SEGUE_FORM_BYTES;
	uint64_t values = 0;

	int rc = find_bytes(flow, &values);
	if (rc)
		return rc;
	if (text && values != 1)
		return segue_fail(SEGUE_EMISFIT, "%" PRIu64 " bytes values, expected one", values);
	if (values > 1)
		return segue_fail(SEGUE_EMISFIT,
			"several bytes values; expected one, with all of the %s values",
			segue_dtype_name(field->dtype));
	*count = (flow->cursor->run - flow->cursor->position) / field->size;
	rc = flow->check ? check_raw(flow) : 0;
	return rc || !flow->sink ? rc : segue_flow_bytes(flow);
}

/* Any Feature: checked, or, if there is a sink, appended to it; *count: its values. */
static int take_feature(const struct segue_field *field, struct segue_piece feature,
	struct segue_sink *sink, uint64_t *count)
{
	struct segue_cursor place = {.kind = SEGUE_KIND_NONE};
	struct segue_flow flow = {.field = field,
		.cursor = &place,
		.window = feature.window,
		.check = !sink,
		.sink = sink,
		.most = UINT64_MAX};

	*count = 0;
	int rc = take_plain(&flow, feature, count);
	if (rc)
		return rc < 0 ? rc : 0;
	rc = segue_flow_begin(&flow, feature);
	if (rc)
		return rc;
	if (field->form == SEGUE_FORM_BYTES || place.kind == SEGUE_KIND_BYTES)
		return take_bytes(&flow, count);
	rc = segue_flow_all(&flow);
	*count = flow.count;
	return rc;
}

/* ---- Steps of a SequenceExample -------------------------------------------------------------- */

/* The next step's Feature: 1, or 0 at the end of the list. */
static int next_step(struct segue_piece *list, struct segue_piece *feature)
{
	while (list->at < list->end) {
		uint64_t number;

		int rc = segue_piece_take_message(list, 1, &number, feature);
		if (rc)
			return rc;
		if (number == 1)
			return 1;
	}
	return 0;
}

int segue_variable_scan(
	const struct segue_field *field, struct segue_window *window, struct segue_cursor *cursor)
{
	struct segue_piece list = {window, cursor->begin, cursor->end}, feature;
	uint64_t count;

	for (;; cursor->steps++) {
		int rc = next_step(&list, &feature);

		if (rc == 0)
			return 0;
		if (rc > 0)
			rc = take_feature(field, feature, NULL, &count);
		if (rc < 0)
			return segue_fail_within(rc, "step %" PRIu64, cursor->steps);
	}
}

int segue_variable_read(const struct segue_field *field, struct segue_cursor *cursor,
	struct segue_window *window, uint64_t steps, int64_t *offsets, struct segue_sink *sink)
{
	struct segue_piece list = {window, cursor->position, cursor->end}, feature;

	for (uint64_t k = 0; k < steps; k++) {
		uint64_t count = 0;

		int rc = next_step(&list, &feature);
		if (rc > 0)
			rc = take_feature(field, feature, sink, &count);
		if (rc < 0)
			return rc;
		offsets[k + 1] = offsets[k] + (int64_t)count;
		cursor->position = list.at;
		cursor->step++;
	}
	return 0;
}

/* ---- Context --------------------------------------------------------------------------------- */

int segue_variable_scan_context(
	const struct segue_field *field, struct segue_window *window, struct segue_cursor *cursor)
{
	uint64_t count;

	return take_feature(
		field, (struct segue_piece){window, cursor->begin, cursor->end}, NULL, &count);
}

int segue_variable_read_context(const struct segue_field *field, const struct segue_cursor *cursor,
	struct segue_window *window, int64_t *offsets, struct segue_sink *sink)
{
	uint64_t count = 0;

	int rc = take_feature(
		field, (struct segue_piece){window, cursor->begin, cursor->end}, sink, &count);
	offsets[1] = offsets[0] + (int64_t)count;
	return rc;
}

/* ---- Bytes of a plain Example ---------------------------------------------------------------- */

static void rewind_series(struct segue_cursor *cursor)
{
	cursor->position = cursor->run = cursor->list = cursor->begin;
	cursor->step = 0;
}

/* Goes on to the next bytes value, which may be empty: 1, or 0 at the end. */
static int next_bytes(struct segue_flow *flow)
{
	struct segue_cursor *cursor = flow->cursor;

	cursor->position = cursor->run;
	while (!segue_flow_at_end(cursor)) {
		int rc = segue_flow_part(flow);

		if (rc)
			return rc;
	}
	return 0;
}

int segue_variable_scan_series(
	const struct segue_field *field, struct segue_window *window, struct segue_cursor *cursor)
{
	struct segue_flow flow = {.field = field, .cursor = cursor, .window = window};

	int rc = segue_flow_begin(&flow, (struct segue_piece){window, cursor->begin, cursor->end});
	if (rc)
		return rc;
	cursor->begin = cursor->position;
	while ((rc = next_bytes(&flow)) > 0)
		cursor->steps++;
	if (rc < 0)
		return segue_fail_within(rc, "step %" PRIu64, cursor->steps);
	rewind_series(cursor);
	return 0;
}

int segue_variable_seek_series(const struct segue_field *field, struct segue_cursor *cursor,
	struct segue_window *window, uint64_t step)
{
	struct segue_flow flow = {.field = field, .cursor = cursor, .window = window};

	if (step < cursor->step)
		rewind_series(cursor);
	for (; cursor->step < step; cursor->step++) {
		int rc = next_bytes(&flow);

		if (rc < 0)
			return rc;
	}
	return 0;
}

int segue_variable_read_series(const struct segue_field *field, struct segue_cursor *cursor,
	struct segue_window *window, uint64_t steps, int64_t *offsets, struct segue_sink *sink)
{
	struct segue_flow flow = {.field = field, .cursor = cursor, .window = window, .sink = sink};

	for (uint64_t k = 0; k < steps; k++) {
		int rc = next_bytes(&flow);

		if (rc < 0)
			return rc;
		offsets[k + 1] = offsets[k] + (int64_t)(cursor->run - cursor->position);
		rc = segue_flow_bytes(&flow);
		if (rc)
			return rc;
		cursor->step++;
	}
	return 0;
}
