/* A sequence feature of a plain Example: its values found in whatever form, checked, and read. */
#include "source/tfrecord/series.h"

#include <inttypes.h>

#include "core/dtype.h"
#include "core/error.h"
#include "source/source.h"
#include "source/tfrecord/feature.h"
#include "source/tfrecord/flow.h"

static void rewind_cursor(struct segue_cursor *cursor)
{
	cursor->position = cursor->begin;
	cursor->run = cursor->first_run;
	cursor->list = cursor->first_list;
	cursor->step = 0;
}

/* ---- The scan -------------------------------------------------------------------------------- */

static int scan_numbers(struct segue_flow *flow)
{
	const struct segue_field *field = flow->field;
	struct segue_cursor *cursor = flow->cursor;
	uint64_t first = 0, width;

	int rc = segue_flow_find(flow);
	cursor->begin = cursor->position;
	cursor->first_run = cursor->run;
	cursor->first_list = cursor->list;
	if (rc > 0)
		rc = segue_flow_run(flow);
	first = flow->count;
	if (!rc)
		rc = segue_flow_all(flow);
	if (rc < 0)
		return segue_fail_within(rc, "step %" PRIu64, flow->count / field->elements);
	if (flow->count % field->elements)
		return segue_fail(SEGUE_EMISFIT,
			"%" PRIu64 " values, no multiple of the %" PRIu64
			" of a step (its declared shape)",
			flow->count, field->elements);
	cursor->steps = flow->count / field->elements;
	width = cursor->kind == SEGUE_KIND_FLOAT ? 4 : 1;
	if (first == flow->count && cursor->first_run - cursor->begin == width * first)
		cursor->stride = width * field->elements;
	return 0;
}

static int check_bools(struct segue_flow *flow)
{
	int rc = segue_flow_bools(flow);

	if (rc != SEGUE_EMISFIT)
		return rc;
	return segue_fail_within(rc, "step %" PRIu64,
		(flow->cursor->position - flow->cursor->begin) / flow->field->size);
}

static int check_bytes(struct segue_flow *flow)
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

static int scan_bytes(struct segue_flow *flow)
{
	struct segue_cursor *cursor = flow->cursor;
	bool found = false;

	while (!segue_flow_at_end(cursor)) {
		int rc = segue_flow_part(flow);

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
	struct segue_flow flow = {.field = field,
		.cursor = cursor,
		.window = window,
		.check = true,
		.most = UINT64_MAX};

	cursor->steps = 0;
	int rc = segue_flow_begin(&flow, (struct segue_piece){window, cursor->begin, cursor->end});
	if (rc || cursor->kind == SEGUE_KIND_NONE)
		return rc;
	rc = cursor->kind == SEGUE_KIND_BYTES ? scan_bytes(&flow) : scan_numbers(&flow);
	if (!rc)
		rewind_cursor(cursor);
	return rc;
}

/* ---- Cursors --------------------------------------------------------------------------------- */

int segue_series_seek(const struct segue_field *field, struct segue_cursor *cursor,
	struct segue_window *window, uint64_t step)
{
	struct segue_flow flow = {.field = field, .cursor = cursor, .window = window};

	if (cursor->stride)
		return segue_steps_seek(cursor, window, step);
	if (step < cursor->step)
		rewind_cursor(cursor);
	flow.most = (step - cursor->step) * field->elements;
	int rc = segue_flow_all(&flow);
	if (!rc)
		cursor->step = step;
	return rc;
}

int segue_series_read(const struct segue_field *field, struct segue_cursor *cursor,
	struct segue_window *window, uint64_t steps, void *out)
{
	struct segue_flow flow = {.field = field,
		.cursor = cursor,
		.window = window,
		.out = out,
		.most = steps * field->elements};

	if (cursor->stride)
		return segue_steps_read(field, cursor, window, steps, out);
	int rc = segue_flow_all(&flow);
	if (!rc)
		cursor->step += steps;
	return rc;
}
