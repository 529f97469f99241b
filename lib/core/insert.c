/* Sequences that are inserted: where everything lies, and whether it can be so. */
#include "core/insert.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "core/error.h"

#define BYTES_MAX (UINT64_C(1) << 48)

static uint64_t align_up(uint64_t at)
{
	return (at + 7) & ~UINT64_C(7);
}

/* ---- Fields ---- */

static void add_fields(const struct segue_field *field, size_t count,
	enum segue_seqfile_place place, struct segue_seqfile_head *head)
{
	for (size_t i = 0; i < count; i++) {
		struct segue_seqfile_field *to = &head->fields[head->count];

		if (place == SEGUE_SEQFILE_STATE && !field[i].from_data)
			continue;
		*to = (struct segue_seqfile_field){.place = place,
			.dtype = field[i].dtype,
			.rank = field[i].rank,
			.form = field[i].form};
		strncpy(to->name, field[i].name, sizeof(to->name) - 1);
		memcpy(to->dims, field[i].dims, sizeof(to->dims));
		head->count++;
	}
}

int segue_insert_fields(const struct segue_spec *spec, struct segue_seqfile_head *out)
{
	size_t most = spec->sequence_count + spec->context_count + spec->state_count;
	struct segue_seqfile_head head = {
		.fields = calloc(most + 1, sizeof(struct segue_seqfile_field))};

	if (!head.fields)
		return segue_fail(SEGUE_ENOMEM, "no memory for the features of a file");
	add_fields(spec->sequences, spec->sequence_count, SEGUE_SEQFILE_SEQUENCE, &head);
	add_fields(spec->contexts, spec->context_count, SEGUE_SEQFILE_CONTEXT, &head);
	add_fields(spec->states, spec->state_count, SEGUE_SEQFILE_STATE, &head);
	int rc = segue_seqfile_check_fields(&head);
	if (rc)
		segue_seqfile_free_head(&head);
	else
		*out = head;
	return rc;
}

int segue_insert_lay_out(const struct segue_seqfile_head *head,
	const struct segue_seqfile_entry *entry, uint64_t *columns, uint64_t *size)
{
	uint64_t at = 8 * (uint64_t)head->variable + entry->key_size + entry->stamp.cursor_size;

	for (uint32_t i = 0; i < head->count; i++) {
		uint64_t bytes = segue_seqfile_column_size(&head->fields[i], entry);

		at = align_up(at);
		columns[i] = at;
		if (bytes > BYTES_MAX || at > BYTES_MAX)
			return segue_fail(SEGUE_EINVAL,
				"%" PRIu64 " steps of \"%s\" are more than fits into a file",
				entry->steps, head->fields[i].name);
		at += bytes;
	}
	*size = align_up(at);
	return 0;
}

/* ---- Checking ---- */

static bool are_bools(const uint8_t *bytes, uint64_t size)
{
	uint8_t all = 0;

	for (uint64_t i = 0; i < size; i++)
		all |= bytes[i];
	return all <= 1;
}

static int check_column(const struct segue_seqfile_field *field,
	const struct segue_seqfile_entry *entry, const uint8_t *column)
{
	const char *in = segue_seqfile_place_name(field->place);
	uint64_t size = segue_seqfile_column_size(field, entry);
	uint64_t offsets = segue_seqfile_offsets_size(field, entry);

	if (offsets &&
		!segue_seqfile_offsets_fit(column, offsets, segue_seqfile_count(field, entry)))
		return segue_fail(SEGUE_EINVAL,
			"the offsets of %s[\"%s\"] do not begin at 0, or one is below that before "
			"it",
			in, field->name);
	if (segue_dtype_row(field->dtype)->number == SEGUE_NUMBER_BOOL &&
		!are_bools(column + offsets, size - offsets))
		return segue_fail(SEGUE_EINVAL, "%s[\"%s\"] has a bool that is neither 0 nor 1", in,
			field->name);
	return 0;
}

int segue_insert_check_total(
	const struct segue_spec *spec, const struct segue_seqfile_entry *entry, int code)
{
	uint64_t segments = (entry->steps + segue_spec_unroll(spec) - 1) / segue_spec_unroll(spec);

	if (entry->total_length == SEGUE_SEQFILE_NO_TOTAL ||
		entry->total_length <= segments * segue_spec_unroll(spec))
		return 0;
	return segue_fail(code,
		"its length is given as %" PRIu64 ", and it has %" PRIu64
		" steps: with num_unroll = %" PRIu32 " at most %" PRIu64 " fit",
		entry->total_length, entry->steps, segue_spec_unroll(spec),
		segments * segue_spec_unroll(spec));
}

static int check_lengths(const struct segue_spec *spec, const struct segue_seqfile_entry *entry)
{
	if (entry->steps == 0 || entry->steps > UINT32_MAX)
		return segue_fail(SEGUE_EINVAL,
			"the sequence has %" PRIu64 " steps, 1 to %" PRIu32 " are allowed",
			entry->steps, UINT32_MAX);
	bool too_long = segue_spec_is_too_long(spec, entry->steps);
	if (too_long && spec->on_too_long == SEGUE_ON_TOO_LONG_ERROR)
		return segue_fail(SEGUE_EDATA,
			"the sequence of key '%.*s' has %" PRIu64
			" steps, and maximum_length of the stream is %" PRIu32
			": leave it out, or give the stream on_too_long=\"truncate\"",
			(int)entry->key_size, entry->key, entry->steps, spec->maximum_length);
	if (!spec->pad && !too_long && segue_spec_cut(spec, entry->steps) % segue_spec_unroll(spec))
		return segue_fail(SEGUE_EINVAL,
			"the sequence has %" PRIu64
			" steps, which is no multiple of num_unroll = %" PRIu32
			"; consider pad=True",
			entry->steps, segue_spec_unroll(spec));
	return segue_insert_check_total(spec, entry, SEGUE_EINVAL);
}

int segue_insert_check(const struct segue_spec *spec, const struct segue_seqfile_head *head,
	const struct segue_seqfile_entry *entry, const uint8_t *const *column)
{
	int rc = check_lengths(spec, entry);

	for (uint32_t i = 0; !rc && i < head->count; i++)
		rc = check_column(&head->fields[i], entry, column[i]);
	return rc;
}
