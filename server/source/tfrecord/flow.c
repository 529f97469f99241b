/* Values of a Feature, found in whatever form, checked, and taken. */
#include "source/tfrecord/flow.h"

#include <inttypes.h>
#include <string.h>

#include "core/dtype.h"
#include "core/error.h"
#include "source/source.h"
#include "source/tfrecord/feature.h"
#include "source/tfrecord/message.h"

/* ---- Where values lie ------------------------------------------------------------------------ */

int segue_flow_begin(struct segue_flow *flow, struct segue_piece feature)
{
	struct segue_cursor *cursor = flow->cursor;
	struct segue_piece from = feature;

	int rc = segue_feature_lists(flow->field, feature, &cursor->kind, &from);
	if (rc)
		return rc;
	if (cursor->kind == SEGUE_KIND_NONE)
		from.at = feature.end;
	cursor->end = feature.end;
	cursor->position = cursor->run = cursor->list = from.at;
	return 0;
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

int segue_flow_part(struct segue_flow *flow)
{
	struct segue_cursor *cursor = flow->cursor;
	bool in_list = cursor->position < cursor->list;
	struct segue_piece left = {
		flow->window, cursor->position, in_list ? cursor->list : cursor->end};
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

int segue_flow_find(struct segue_flow *flow)
{
	const struct segue_cursor *cursor = flow->cursor;

	while (cursor->position >= cursor->run) {
		int rc = segue_flow_at_end(cursor) ? 0 : segue_flow_part(flow);

		if (rc < 0 || segue_flow_at_end(cursor))
			return rc < 0 ? rc : 0;
	}
	return 1;
}

/* ---- Values of a run ------------------------------------------------------------------------- */

/* Points *bytes at `size` bytes at the cursor, or at all that are left; *size: more, if there. */
static int look(const struct segue_flow *flow, size_t *size, const uint8_t **bytes)
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

/* Where the next `count` values go, as elements of *out from *at on; *out NULL: nowhere. */
static int find_place(const struct segue_flow *flow, uint64_t count, uint8_t **out, uint64_t *at)
{
	*out = flow->out;
	*at = flow->count;
	if (!flow->sink)
		return 0;
	*at = 0;
	return segue_sink_add(flow->sink, count * flow->field->size, out);
}

static int flow_floats(struct segue_flow *flow)
{
	const struct segue_dtype_row *dtype = segue_dtype_row(flow->field->dtype);
	uint64_t left = (flow->cursor->run - flow->cursor->position) / 4, at;
	size_t size = 4, count;
	const uint8_t *bytes;
	uint8_t *out;

	if (left > flow->most - flow->count)
		left = flow->most - flow->count;
	if (!flow->out && !flow->sink && (!flow->check || segue_dtype_takes_float32(dtype))) {
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
	rc = find_place(flow, count, &out, &at);
	if (rc)
		return rc;
	if (out)
		segue_dtype_put_floats(dtype, out, at, bytes, count);
	flow->cursor->position += 4 * count;
	flow->count += count;
	return 0;
}

/* Takes integers from `bytes` until the flow has `most`; *taken: the bytes that they are. */
static int take_integers(struct segue_flow *flow, const uint8_t *bytes, size_t size, uint64_t most,
	uint8_t *out, uint64_t place, size_t *taken)
{
	const struct segue_dtype_row *dtype = segue_dtype_row(flow->field->dtype);
	size_t at = 0;

	while (at < size && flow->count < most) {
		uint64_t value = bytes[at];
		size_t used = value < 128 ? 1 : segue_varint(bytes + at, size - at, &value);

		if (!used)
			break;
		if (flow->check && !segue_dtype_fits(dtype, value))
			return segue_feature_fail_integer(flow->field, value);
		if (out)
			segue_dtype_put_integer(dtype, out, place++, value);
		flow->count++;
		at += used;
	}
	*taken = at;
	return 0;
}

static int flow_integers(struct segue_flow *flow)
{
	uint64_t most = flow->most, place, ends;
	size_t size = 10, taken = 0;
	const uint8_t *bytes;
	uint8_t *out;

	int rc = look(flow, &size, &bytes);
	if (rc)
		return rc;
	/* A sink wants to know how many there will be. */
	ends = flow->sink ? segue_flow_integers(bytes, size) : 0;
	if (flow->sink && most - flow->count > ends)
		most = flow->count + ends;
	rc = find_place(flow, most - flow->count, &out, &place);
	if (!rc)
		rc = take_integers(flow, bytes, size, most, out, place, &taken);
	if (rc)
		return rc;
	/* One that goes on behind what the window has is looked at again. */
	if (taken == 0 || (flow->sink && flow->count < most))
		return segue_fail(SEGUE_EDATA, "damaged message: a packed integer does not end");
	flow->cursor->position += taken;
	return 0;
}

int segue_flow_run(struct segue_flow *flow)
{
	struct segue_cursor *cursor = flow->cursor;
	int rc = 0;

	while (!rc && cursor->position < cursor->run && flow->count < flow->most)
		rc = cursor->kind == SEGUE_KIND_FLOAT ? flow_floats(flow) : flow_integers(flow);
	return rc;
}

int segue_flow_all(struct segue_flow *flow)
{
	while (flow->count < flow->most) {
		int rc = segue_flow_find(flow);

		if (rc <= 0)
			return rc;
		rc = segue_flow_run(flow);
		if (rc)
			return rc;
	}
	return 0;
}

/* ---- Bytes ----------------------------------------------------------------------------------- */

int segue_flow_bytes(struct segue_flow *flow)
{
	struct segue_cursor *cursor = flow->cursor;

	while (cursor->position < cursor->run) {
		const uint8_t *bytes;
		size_t size = 1;
		uint8_t *out;

		int rc = look(flow, &size, &bytes);
		if (!rc)
			rc = segue_sink_add(flow->sink, size, &out);
		if (rc)
			return rc;
		memcpy(out, bytes, size);
		cursor->position += size;
	}
	return 0;
}

int segue_flow_bools(struct segue_flow *flow)
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
			return segue_fail(
				SEGUE_EMISFIT, "a byte that is neither 0 nor 1 does not fit bool");
	}
	return 0;
}
