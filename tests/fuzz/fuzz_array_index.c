/*
 * Fuzzes indexes of arrays as clients send them: what is taken must be what a server relies on. For
 * libFuzzer, or with replay_main.c as a program that runs files.
 */
#include "core/array_index.h"

#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool holds)
{
	if (!holds)
		abort();
}

/* Every array has a place in a file, and none leads beyond what a file can be. */
static void check_group(const struct segue_array_index *index, uint32_t group)
{
	uint64_t sequences = segue_array_index_sequences(index, group);

	expect(sequences <= index->sequences &&
		index->group[group].first <= index->sequences - sequences);
	for (uint32_t i = 0; i < index->columns; i++) {
		const struct segue_array_place *place = segue_array_index_place(index, group, i);
		uint64_t values = index->column[i].context ? sequences : index->group[group].steps;
		uint64_t size = segue_array_column_elements(&index->column[i]) *
				segue_dtype_size(place->dtype);
		uint64_t end = segue_array_index_end(index, group, i);

		expect((const uint8_t *)(place + 1) <= index->bytes + index->size);
		expect(place->file < index->files && size > 0 && place->stride > 0);
		expect(end <= UINT64_C(1) << 62 && (values == 0) == (end == 0));
		expect(values == 0 || end == place->offset + (values - 1) * place->stride + size);
	}
}

static void check_sequence(const struct segue_array_index *index, uint64_t i)
{
	const struct segue_array_sequence *sequence = &index->sequence[i];

	expect((const uint8_t *)(sequence + 1) <= index->bytes + index->size);
	expect(sequence->group < index->groups && sequence->steps > 0);
	expect(sequence->first + sequence->steps <= index->group[sequence->group].steps);
	expect(i >= index->group[sequence->group].first);
	expect(i - index->group[sequence->group].first <
		segue_array_index_sequences(index, sequence->group));
	if (!index->key_end)
		return;
	uint64_t begin = i ? index->key_end[i - 1] : 0, end = index->key_end[i];

	expect(begin < end && end - begin <= index->key_max && index->key_max <= SEGUE_KEY_MAX);
	expect((const uint8_t *)index->keys + end <= index->bytes + index->size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct segue_array_index *index;
	int rc = segue_array_index_read(data, size, &index);

	expect(rc == 0 || rc == SEGUE_EINVAL || rc == SEGUE_EFORMAT || rc == SEGUE_ENOMEM);
	if (rc)
		return 0;
	expect(index->size <= size && memcmp(index->bytes, data, index->size) == 0);
	expect(index->sequences > 0 && index->groups > 0 && index->columns > 0);
	for (uint32_t i = 0; i < index->groups; i++)
		check_group(index, i);
	for (uint64_t i = 0; i < index->sequences; i++)
		check_sequence(index, i);
	segue_array_index_drop(index);
	return 0;
}
