/*
 * The index of arrays: packed, read, and checked whole, so that who uses it need not look again.
 */
#include "core/array_index.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "core/error.h"
#include "core/options.h"
#include "core/sized.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers in the index are little-endian");

#define VALUE_MAX     ((uint64_t)1 << 32) /* bytes of a value, as of any feature */
#define END_MAX       ((uint64_t)1 << 62) /* no file is as long */
#define SEQUENCES_MAX ((uint64_t)1 << 40)

struct head_bytes {
	char magic[8];
	uint32_t version, columns;
	uint64_t required;
	uint32_t files, groups;
	uint64_t sequences;
	uint64_t key_bytes; /* 0: there are no keys */
	uint64_t reserved[2];
};

_Static_assert(sizeof(struct head_bytes) == 64, "docs/format.md");
_Static_assert(sizeof(struct segue_array_column) == 72, "docs/format.md");
_Static_assert(sizeof(struct segue_array_group) == 16, "docs/format.md");
_Static_assert(sizeof(struct segue_array_place) == 24, "docs/format.md");
_Static_assert(sizeof(struct segue_array_sequence) == 16, "docs/format.md");

static const char magic[8] = SEGUE_ARRAY_INDEX_MAGIC;

/* ---- Life ---- */

struct segue_array_index *segue_array_index_hold(struct segue_array_index *index)
{
	/* relaxed: who hands it on has it */
	atomic_fetch_add_explicit(&index->users, 1, memory_order_relaxed);
	return index;
}

void segue_array_index_drop(struct segue_array_index *index)
{
	if (!index || atomic_fetch_sub_explicit(&index->users, 1, memory_order_acq_rel) > 1)
		return;
	free(index->bytes);
	free(index);
}

bool segue_array_index_equal(
	const struct segue_array_index *one, const struct segue_array_index *other)
{
	return one == other || (one && other && one->size == other->size &&
				       memcmp(one->bytes, other->bytes, one->size) == 0);
}

/* ---- What follows from it ---- */

const struct segue_array_place *segue_array_index_place(
	const struct segue_array_index *index, uint32_t group, uint32_t column)
{
	return &index->array[(size_t)group * index->columns + column];
}

static uint64_t end_of_group(const struct segue_array_index *index, uint32_t group)
{
	return group + 1 < index->groups ? index->group[group + 1].first : index->sequences;
}

uint64_t segue_array_index_sequences(const struct segue_array_index *index, uint32_t group)
{
	return end_of_group(index, group) - index->group[group].first;
}

uint64_t segue_array_column_elements(const struct segue_array_column *column)
{
	uint64_t elements = 1;

	for (uint32_t i = 0; i < column->rank; i++)
		elements *= column->dims[i];
	return elements;
}

static uint64_t values_of(const struct segue_array_index *index, uint32_t group, uint32_t column)
{
	return index->column[column].context ? segue_array_index_sequences(index, group)
					     : index->group[group].steps;
}

/* UINT64_MAX: it would lie where no file reaches. */
static uint64_t find_end(const struct segue_array_place *place, uint64_t size, uint64_t values)
{
	uint64_t end;

	if (values == 0)
		return 0;
	if (__builtin_mul_overflow(values - 1, place->stride, &end) ||
		__builtin_add_overflow(end, place->offset, &end) ||
		__builtin_add_overflow(end, size, &end) || end > END_MAX)
		return UINT64_MAX;
	return end;
}

uint64_t segue_array_index_end(
	const struct segue_array_index *index, uint32_t group, uint32_t column)
{
	const struct segue_array_place *place = segue_array_index_place(index, group, column);
	uint64_t elements = segue_array_column_elements(&index->column[column]);

	return find_end(
		place, elements * segue_dtype_size(place->dtype), values_of(index, group, column));
}

/* ---- Checking ---- */

static int check_column(const struct segue_array_column *column, uint32_t i)
{
	uint64_t elements = 1;
	bool sound = column->context <= 1 && column->rank <= SEGUE_RANK_MAX &&
		     memcmp(column->reserved, (uint8_t[6]){0}, sizeof(column->reserved)) == 0;

	for (uint32_t d = 0; sound && d < SEGUE_RANK_MAX; d++) {
		uint64_t dim = column->dims[d];

		sound = d < column->rank ? dim && !__builtin_mul_overflow(elements, dim, &elements)
					 : dim == 0;
	}
	if (sound && elements <= VALUE_MAX)
		return 0;
	return segue_fail(
		SEGUE_EINVAL, "the shape of feature %" PRIu32 " of the arrays cannot be", i);
}

static int check_place(const struct segue_array_index *index, uint32_t group, uint32_t column)
{
	const struct segue_array_place *place = segue_array_index_place(index, group, column);
	uint64_t size = segue_dtype_size(place->dtype);

	if (place->file >= index->files)
		return segue_fail(SEGUE_EINVAL,
			"group %" PRIu32 ", feature %" PRIu32 ": file %" PRIu32
			" is none of the %" PRIu32,
			group, column, place->file, index->files);
	if (!size)
		return segue_fail(SEGUE_EINVAL,
			"group %" PRIu32 ", feature %" PRIu32 ": dtype is %u, which is no dtype",
			group, column, place->dtype);
	if (place->stride == 0 || place->big_endian > 1 || place->reserved[0] || place->reserved[1])
		return segue_fail(SEGUE_EINVAL,
			"group %" PRIu32 ", feature %" PRIu32 ": stride or byte order cannot be",
			group, column);
	if (segue_array_index_end(index, group, column) == UINT64_MAX)
		return segue_fail(SEGUE_EINVAL,
			"group %" PRIu32 ", feature %" PRIu32 ": offset %" PRIu64
			" and stride %" PRIu64 " lead beyond any file",
			group, column, place->offset, place->stride);
	return 0;
}

static int check_group(const struct segue_array_index *index, uint32_t i)
{
	const struct segue_array_group *group = &index->group[i];
	int rc = 0;

	if ((i == 0 && group->first) || group->first > index->sequences ||
		end_of_group(index, i) < group->first)
		return segue_fail(SEGUE_EINVAL,
			"group %" PRIu32 ": its sequences are not behind those before", i);
	for (uint32_t column = 0; !rc && column < index->columns; column++)
		rc = check_place(index, i, column);
	return rc;
}

static int check_sequences(const struct segue_array_index *index, uint32_t group)
{
	uint64_t steps = index->group[group].steps;

	for (uint64_t i = index->group[group].first; i < end_of_group(index, group); i++) {
		const struct segue_array_sequence *sequence = &index->sequence[i];

		if (sequence->group != group)
			return segue_fail(SEGUE_EINVAL,
				"sequence %" PRIu64 " is of group %" PRIu32
				": sequences must come group by group",
				i, sequence->group);
		if (sequence->steps == 0)
			return segue_fail(SEGUE_EINVAL, "sequence %" PRIu64 " has no steps", i);
		if (sequence->first > steps || sequence->steps > steps - sequence->first)
			return segue_fail(SEGUE_EINVAL,
				"sequence %" PRIu64 ": %" PRIu32 " steps from step %" PRIu64
				" on, and the arrays of its group have %" PRIu64,
				i, sequence->steps, sequence->first, steps);
	}
	return 0;
}

static int check_keys(struct segue_array_index *index, uint64_t key_bytes)
{
	uint64_t begin = 0;

	for (uint64_t i = 0; index->key_end && i < index->sequences; i++) {
		uint64_t end = index->key_end[i];

		if (end <= begin || end - begin > SEGUE_KEY_MAX || end > key_bytes)
			return segue_fail(SEGUE_EINVAL,
				"the key of sequence %" PRIu64 ": 1 to %d bytes are allowed", i,
				SEGUE_KEY_MAX);
		if (end - begin > index->key_max)
			index->key_max = (uint32_t)(end - begin);
		begin = end;
	}
	if (begin != key_bytes)
		return segue_fail(SEGUE_EINVAL, "there are more bytes of keys than keys");
	return 0;
}

static int check(struct segue_array_index *index, uint64_t key_bytes)
{
	bool any = false;
	int rc = 0;

	for (uint32_t i = 0; !rc && i < index->columns; i++) {
		rc = check_column(&index->column[i], i);
		any = any || !index->column[i].context;
	}
	if (!rc && !any)
		rc = segue_fail(SEGUE_EINVAL, "the arrays have no sequence feature");
	for (uint32_t i = 0; !rc && i < index->groups; i++)
		rc = check_group(index, i);
	for (uint32_t i = 0; !rc && i < index->groups; i++)
		rc = check_sequences(index, i);
	return rc ? rc : check_keys(index, key_bytes);
}

/* ---- Layout ---- */

/* Where the parts begin; `keys` are the bytes of all keys. SEGUE_EINVAL: too many of something. */
struct parts {
	uint64_t columns, groups, arrays, sequences, key_ends, keys, end;
};

static int lay_out(const struct head_bytes *head, struct parts *parts)
{
	uint64_t places = (uint64_t)head->groups * head->columns;

	if (head->columns == 0 || head->columns > SEGUE_FEATURES_MAX || head->files == 0 ||
		head->files > SEGUE_PATHS_MAX || head->groups == 0)
		return segue_fail(SEGUE_EINVAL,
			"arrays of %" PRIu32 " features in %" PRIu32 " groups and %" PRIu32
			" files: at least one of each, at most %d features and %u files",
			head->columns, head->groups, head->files, SEGUE_FEATURES_MAX,
			SEGUE_PATHS_MAX);
	if (head->sequences == 0 || head->sequences > SEQUENCES_MAX || head->key_bytes > END_MAX)
		return segue_fail(SEGUE_EINVAL,
			"arrays of %" PRIu64 " sequences: 1 to %" PRIu64 " are possible",
			head->sequences, SEQUENCES_MAX);
	parts->columns = sizeof(*head);
	parts->groups = parts->columns + head->columns * sizeof(struct segue_array_column);
	parts->arrays = parts->groups + (uint64_t)head->groups * sizeof(struct segue_array_group);
	parts->sequences = parts->arrays + places * sizeof(struct segue_array_place);
	parts->key_ends = parts->sequences + head->sequences * sizeof(struct segue_array_sequence);
	parts->keys = parts->key_ends + (head->key_bytes ? head->sequences * sizeof(uint64_t) : 0);
	parts->end = parts->keys + head->key_bytes;
	return 0;
}

static void point(
	struct segue_array_index *index, const struct head_bytes *head, const struct parts *parts)
{
	uint8_t *bytes = index->bytes;

	index->columns = head->columns;
	index->groups = head->groups;
	index->files = head->files;
	index->sequences = head->sequences;
	index->column = (void *)(bytes + parts->columns);
	index->group = (void *)(bytes + parts->groups);
	index->array = (void *)(bytes + parts->arrays);
	index->sequence = (void *)(bytes + parts->sequences);
	index->key_end = head->key_bytes ? (void *)(bytes + parts->key_ends) : NULL;
	index->keys = (char *)bytes + parts->keys;
}

static int read_head(const uint8_t *bytes, size_t size, struct head_bytes *head)
{
	if (size < sizeof(*head) || memcmp(bytes, magic, sizeof(magic)) != 0)
		return segue_fail(SEGUE_EINVAL, "this is no index of arrays");
	memcpy(head, bytes, sizeof(*head));
	if (head->version != SEGUE_ARRAY_INDEX_VERSION || head->required)
		return segue_fail(SEGUE_EFORMAT,
			"the index of arrays needs a later version of segue (format %" PRIu32
			", 0x%" PRIx64 ")",
			head->version, head->required);
	if (head->reserved[0] || head->reserved[1])
		return segue_fail(SEGUE_EINVAL, "the index of arrays is damaged");
	return 0;
}

/* The bytes, parts->end of them, are taken over in any case. */
static int adopt(uint8_t *bytes, const struct head_bytes *head, const struct parts *parts,
	struct segue_array_index **out)
{
	struct segue_array_index *index = calloc(1, sizeof(*index));

	if (!index) {
		free(bytes);
		return segue_fail(SEGUE_ENOMEM, "no memory for an index of arrays");
	}
	*index = (struct segue_array_index){.bytes = bytes, .size = parts->end, .users = 1};
	point(index, head, parts);
	int rc = check(index, head->key_bytes);
	if (rc)
		segue_array_index_drop(index);
	else
		*out = index;
	return rc;
}

int segue_array_index_read(const void *bytes, size_t size, struct segue_array_index **out)
{
	struct head_bytes head;
	struct parts parts;
	uint8_t *copy;
	int rc = read_head(bytes, size, &head);

	if (!rc)
		rc = lay_out(&head, &parts);
	if (rc)
		return rc;
	if (parts.end > size)
		return segue_fail(SEGUE_EINVAL,
			"the index of arrays has %" PRIu64 " bytes by its head, and %zu are there",
			parts.end, size);
	copy = malloc(parts.end);
	if (!copy)
		return segue_fail(SEGUE_ENOMEM, "no memory for an index of arrays");
	memcpy(copy, bytes, parts.end);
	return adopt(copy, &head, &parts, out);
}

/* ---- Packing ---- */

static int check_lists(const struct segue_arrays *asked)
{
	const struct {
		const char *what;
		const void *list;
		size_t count;
	} lists[] = {
		{"arrays.group_steps", asked->group_steps, asked->group_count},
		{"arrays.arrays", asked->arrays, asked->group_count},
		{"arrays.sequences", asked->sequences, asked->sequence_count},
		{"arrays.keys", asked->keys, asked->key_ends ? asked->sequence_count : 0},
	};

	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
		if (lists[i].count > 0 && !lists[i].list)
			return segue_fail(
				SEGUE_EINVAL, "%s is NULL and should not be", lists[i].what);
	if (asked->key_ends && asked->sequence_count &&
		asked->key_ends[asked->sequence_count - 1] == 0)
		return segue_fail(SEGUE_EINVAL, "arrays.key_ends ends with 0: keys are not empty");
	if (asked->group_count > UINT32_MAX)
		return segue_fail(
			SEGUE_EINVAL, "%zu groups of arrays are too many", asked->group_count);
	return 0;
}

static struct segue_array_place pack_place(
	const struct segue_array *array, const struct segue_array_column *column)
{
	uint64_t size = segue_dtype_size(array->dtype);

	return (struct segue_array_place){
		.offset = array->offset,
		/* Of no dtype, or one that is too large, the check speaks. */
		.stride = array->stride ? array->stride
			  : size        ? size * segue_array_column_elements(column)
					: 1,
		.file = array->file,
		.dtype = array->dtype <= UINT8_MAX ? (uint8_t)array->dtype : 0,
		.big_endian = array->big_endian,
	};
}

/* The arrays of all groups, one struct behind the other, each as long as the first. */
static int pack_places(const struct segue_arrays *asked, const struct segue_array_column *column,
	const struct head_bytes *head, struct segue_array_place *place)
{
	const char *at = (const char *)asked->arrays;
	struct segue_array array;

	for (uint64_t i = 0; i < (uint64_t)head->groups * head->columns; i++, place++) {
		int rc = segue_sized_take("segue_array", at, sizeof(array), &array);

		if (!rc && memcmp(at, &asked->arrays->size, sizeof(array.size)) != 0)
			rc = segue_fail(SEGUE_EINVAL,
				"array %" PRIu64 " has another size than the first", i);
		if (rc)
			return rc;
		*place = pack_place(&array, &column[i % head->columns]);
		at += asked->arrays->size;
	}
	return 0;
}

static int pack(const struct segue_arrays *asked, const struct segue_array_column *column,
	const struct head_bytes *head, const struct parts *parts, uint8_t *bytes)
{
	struct segue_array_group *group = (void *)(bytes + parts->groups);
	uint64_t sequence = 0;

	memcpy(bytes, head, sizeof(*head));
	memcpy(bytes + parts->columns, column, head->columns * sizeof(*column));
	for (uint32_t i = 0; i < head->groups; i++) {
		group[i] = (struct segue_array_group){asked->group_steps[i], sequence};
		while (sequence < head->sequences && asked->sequences[sequence].group == i)
			sequence++;
	}
	memcpy(bytes + parts->sequences, asked->sequences,
		head->sequences * sizeof(asked->sequences[0]));
	if (head->key_bytes) {
		memcpy(bytes + parts->key_ends, asked->key_ends,
			head->sequences * sizeof(asked->key_ends[0]));
		memcpy(bytes + parts->keys, asked->keys, head->key_bytes);
	}
	return pack_places(asked, column, head, (void *)(bytes + parts->arrays));
}

int segue_array_index_pack(const struct segue_arrays *asked, uint32_t files,
	const struct segue_array_column *column, uint32_t columns, struct segue_array_index **out)
{
	struct head_bytes head = {
		.version = SEGUE_ARRAY_INDEX_VERSION,
		.columns = columns,
		.files = files,
		.groups = (uint32_t)asked->group_count,
		.sequences = asked->sequence_count,
	};
	struct parts parts;
	uint8_t *bytes;

	memcpy(head.magic, magic, sizeof(magic));
	int rc = check_lists(asked);
	if (rc)
		return rc;
	if (asked->key_ends && asked->sequence_count)
		head.key_bytes = asked->key_ends[asked->sequence_count - 1];
	rc = lay_out(&head, &parts);
	if (rc)
		return rc;
	bytes = parts.end <= SIZE_MAX ? calloc(1, parts.end) : NULL;
	if (!bytes)
		return segue_fail(SEGUE_ENOMEM,
			"no memory for an index of arrays of %" PRIu64 " bytes", parts.end);
	rc = pack(asked, column, &head, &parts, bytes);
	if (rc) {
		free(bytes);
		return rc;
	}
	return adopt(bytes, &head, &parts, out);
}
