/* A sequence feature of a plain Example: its values found in whatever form, checked, and read. */
#include "source/tfrecord/series.h"

#include <inttypes.h>

#include "core/dtype.h"
#include "core/error.h"
#include "source/source.h"
#include "source/tfrecord/feature.h"
#include "source/tfrecord/message.h"

/* Values on their way, from a cursor on. */
struct flow {
	const struct segue_field *field;
	struct segue_cursor *cursor;
	struct segue_window *window;
	bool check;
	uint8_t *out;         /* NULL: they are passed over */
	uint64_t count, most; /* values so far, and at which to stop */
};

/* ---- Where values lie ------------------------------------------------------------------------ */

/*
 * A place is between values within a run, between parts of a list behind it, and between lists of
 * the Feature behind that.
 */
static bool at_end(const struct segue_cursor *cursor)
{
	return cursor->position >= cursor->run && cursor->position >= cursor->list &&
	       cursor->position >= cursor->end;
}

static bool wire_fits(enum segue_kind kind, const struct segue_part *part)
{
	return part->wire == SEGUE_WIRE_BYTES ||
	       (part->wire == SEGUE_WIRE_32 && kind == SEGUE_KIND_FLOAT) ||
	       (part->wire == SEGUE_WIRE_VARINT && kind == SEGUE_KIND_INT64);
}

/* Into a part of a list: 1 if it is a run, of none or more values. */
static int enter_run(struct segue_cursor *cursor, const struct segue_part *part)
{
	if (part->number != 1)
		return 0;
	if (!wire_fits(cursor->kind, part))
		return segue_feature_fail_wire(part, cursor->kind);
	if (cursor->kind == SEGUE_KIND_FLOAT && segue_piece_size(&part->inner) % 4)
		return segue_fail(SEGUE_EDATA,
			"damaged message: %" PRIu64 " bytes of packed floats",
			segue_piece_size(&part->inner));
	cursor->position = part->inner.at;
	cursor->run = part->inner.end;
	return 1;
}

/* Goes on, at the end of a run that is not the end, by one part: 1 if that is a run. */
static int take_part(struct segue_cursor *cursor, struct segue_window *window)
{
	bool in_list = cursor->position < cursor->list;
	struct segue_piece left = {window, cursor->position, in_list ? cursor->list : cursor->end};
	struct segue_part part = {0};

	int rc = segue_piece_take(&left, &part);
	if (rc)
		return rc;
	cursor->position = cursor->run = left.at;
	if (in_list)
		return enter_run(cursor, &part);
	cursor->list = left.at;
	if (part.number != (uint64_t)cursor->kind)
		return 0;
	cursor->position = cursor->run = part.inner.at;
	cursor->list = part.inner.end;
	return 0;
}

/* Goes on to the next value: 1, or 0 at the end. */
static int find_value(struct segue_cursor *cursor, struct segue_window *window)
{
	while (cursor->position >= cursor->run) {
		int rc = at_end(cursor) ? 0 : take_part(cursor, window);

		if (rc < 0 || at_end(cursor))
			return rc < 0 ? rc : 0;
	}
	return 1;
}

static void rewind_cursor(struct segue_cursor *cursor)
{
	cursor->position = cursor->begin;
	cursor->run = cursor->first_run;
	cursor->list = cursor->first_list;
	cursor->step = 0;
}

/* ---- Values of a run ------------------------------------------------------------------------- */

/* Points *bytes at `size` bytes at the cursor, or at all that are left; *size: more, if there. */
static int look(const struct flow *flow, size_t *size, const uint8_t **bytes)
{
	const struct segue_cursor *cursor = flow->cursor;
	uint64_t left = cursor->run - cursor->position, there;

	if (left < *size)
		*size = (size_t)left;
	int rc = segue_window_at(flow->window, cursor->position, *size, bytes);
	if (rc)
		return rc;
	there = flow->window->end - cursor->position;
	*size = (size_t)(left < there ? left : there);
	return 0;
}

static int flow_floats(struct flow *flow)
{
	const struct segue_dtype_row *dtype = segue_dtype_row(flow->field->dtype);
	uint64_t left = (flow->cursor->run - flow->cursor->position) / 4;
	size_t size = 4, count;
	const uint8_t *bytes;

	if (left > flow->most - flow->count)
		left = flow->most - flow->count;
	if (!flow->out && (!flow->check || segue_dtype_takes_float32(dtype))) {
		flow->cursor->position += 4 * left;
		flow->count += left;
		return 0;
	}
	int rc = look(flow, &size, &bytes);
	if (rc)
		return rc;
	count = size / 4 < left ? size / 4 : (size_t)left;
	if (flow->check) {
		size_t misfit = segue_dtype_find_misfit(dtype, bytes, count);

		if (misfit < count) {
			flow->count += misfit;
			return segue_feature_fail_float(flow->field, bytes + 4 * misfit);
		}
	}
	if (flow->out)
		segue_dtype_put_floats(dtype, flow->out, flow->count, bytes, count);
	flow->cursor->position += 4 * count;
	flow->count += count;
	return 0;
}

static int flow_integers(struct flow *flow)
{
	const struct segue_dtype_row *dtype = segue_dtype_row(flow->field->dtype);
	size_t size = 10, at = 0;
	const uint8_t *bytes;

	int rc = look(flow, &size, &bytes);
	if (rc)
		return rc;
	while (at < size && flow->count < flow->most) {
		uint64_t value = bytes[at];
		size_t used = value < 128 ? 1 : segue_varint(bytes + at, size - at, &value);

		if (!used)
			break;
		if (flow->check && !segue_dtype_fits(dtype, value))
			return segue_feature_fail_integer(flow->field, value);
		if (flow->out)
			segue_dtype_put_integer(dtype, flow->out, flow->count, value);
		flow->count++;
		at += used;
	}
	/* One that goes on behind what the window has is looked at again. */
	if (at == 0)
		return segue_fail(SEGUE_EDATA, "damaged message: a packed integer does not end");
	flow->cursor->position += at;
	return 0;
}

static int flow_run(struct flow *flow)
{
	struct segue_cursor *cursor = flow->cursor;
	int rc = 0;

	while (!rc && cursor->position < cursor->run && flow->count < flow->most)
		rc = cursor->kind == SEGUE_KIND_FLOAT ? flow_floats(flow) : flow_integers(flow);
	return rc;
}

/* All that are wanted, or all that there are. */
static int flow_all(struct flow *flow)
{
	while (flow->count < flow->most) {
		int rc = find_value(flow->cursor, flow->window);

		if (rc <= 0)
			return rc;
		rc = flow_run(flow);
		if (rc)
			return rc;
	}
	return 0;
}

/* ---- The scan -------------------------------------------------------------------------------- */

static int scan_numbers(struct flow *flow)
{
	const struct segue_field *field = flow->field;
	struct segue_cursor *cursor = flow->cursor;
	uint64_t first = 0, width;

	int rc = find_value(cursor, flow->window);
	cursor->begin = cursor->position;
	cursor->first_run = cursor->run;
	cursor->first_list = cursor->list;
	if (rc > 0)
		rc = flow_run(flow);
	first = flow->count;
	if (!rc)
		rc = flow_all(flow);
	if (rc < 0)
		return segue_fail_within(rc, "step %" PRIu64, flow->count / field->elements);
	if (flow->count % field->elements)
		return segue_fail(SEGUE_EMISFIT,
			"%" PRIu64 " values, no multiple of the %" PRIu64 " of a step (its shape)",
			flow->count, field->elements);
	cursor->steps = flow->count / field->elements;
	width = cursor->kind == SEGUE_KIND_FLOAT ? 4 : 1;
	if (first == flow->count && cursor->first_run - cursor->begin == width * first)
		cursor->stride = width * field->elements;
	return 0;
}

static int check_bools(struct flow *flow)
{
	struct segue_cursor *cursor = flow->cursor;

	while (cursor->position < cursor->run) {
		const uint8_t *bytes;
		size_t size = 1, at = 0;

		int rc = look(flow, &size, &bytes);
		if (rc)
			return rc;
		while (at < size && bytes[at] <= 1)
			at++;
		cursor->position += at;
		if (at < size)
			return segue_fail_within(
				segue_fail(SEGUE_EMISFIT,
					"a byte that is neither 0 nor 1 does not fit bool"),
				"step %" PRIu64,
				(cursor->position - cursor->begin) / flow->field->size);
	}
	return 0;
}

static int check_bytes(struct flow *flow)
{
	const struct segue_field *field = flow->field;
	struct segue_cursor *cursor = flow->cursor;
	uint64_t size = cursor->first_run - cursor->begin;

	if (size % field->size)
		return segue_fail(SEGUE_EMISFIT,
			"a bytes value of %" PRIu64 " bytes, no multiple of the %" PRIu64
			" of a step (%" PRIu64 " values of %s)",
			size, field->size, field->elements, segue_dtype_name(field->dtype));
	cursor->steps = size / field->size;
	cursor->stride = field->size;
	if (segue_dtype_row(field->dtype)->number != SEGUE_NUMBER_BOOL)
		return 0;
	rewind_cursor(cursor);
	return check_bools(flow);
}

static int scan_bytes(struct flow *flow)
{
	struct segue_cursor *cursor = flow->cursor;
	bool found = false;

	while (!at_end(cursor)) {
		int rc = take_part(cursor, flow->window);

		if (rc < 0)
			return rc;
		if (rc && found)
			return segue_fail(SEGUE_EMISFIT,
				"several bytes values; expected one, with the %s values of all "
				"steps",
				segue_dtype_name(flow->field->dtype));
		if (!rc)
			continue;
		found = true;
		cursor->begin = cursor->position;
		cursor->first_run = cursor->run;
		cursor->first_list = cursor->list;
		cursor->position = cursor->run;
	}
	return found ? check_bytes(flow) : 0;
}

int segue_series_scan(
	const struct segue_field *field, struct segue_window *window, struct segue_cursor *cursor)
{
	struct flow flow = {.field = field,
		.cursor = cursor,
		.window = window,
		.check = true,
		.most = UINT64_MAX};
	struct segue_piece from;

	cursor->steps = 0;
	int rc = segue_feature_lists(field,
		(struct segue_piece){window, cursor->begin, cursor->end}, &cursor->kind, &from);
	if (rc || cursor->kind == SEGUE_KIND_NONE)
		return rc;
	cursor->position = cursor->run = cursor->list = from.at;
	rc = cursor->kind == SEGUE_KIND_BYTES ? scan_bytes(&flow) : scan_numbers(&flow);
	if (!rc)
		rewind_cursor(cursor);
	return rc;
}

/* ---- Cursors --------------------------------------------------------------------------------- */

int segue_series_seek(const struct segue_field *field, struct segue_cursor *cursor,
	struct segue_window *window, uint64_t step)
{
	struct flow flow = {.field = field, .cursor = cursor, .window = window};

	if (cursor->stride)
		return segue_steps_seek(cursor, window, step);
	if (step < cursor->step)
		rewind_cursor(cursor);
	flow.most = (step - cursor->step) * field->elements;
	int rc = flow_all(&flow);
	if (!rc)
		cursor->step = step;
	return rc;
}

int segue_series_read(const struct segue_field *field, struct segue_cursor *cursor,
	struct segue_window *window, uint64_t steps, void *out)
{
	struct flow flow = {.field = field,
		.cursor = cursor,
		.window = window,
		.out = out,
		.most = steps * field->elements};

	if (cursor->stride)
		return segue_steps_read(field, cursor, window, steps, out);
	int rc = flow_all(&flow);
	if (!rc)
		cursor->step += steps;
	return rc;
}
