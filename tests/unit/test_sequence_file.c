/*
 * Tests of the bytes of sequence files: what is packed comes back, and is where docs/format.md says;
 * what is hostile is refused. Each buffer has its exact size, so that a sanitizer sees a byte too
 * many.
 */
#include "core/sequence_file.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "core/crc32c.h"

#define FIELD(in, called, type, ...)                                                               \
	{                                                                                          \
		.name = called, .place = SEGUE_SEQFILE_##in, .dtype = SEGUE_##type, __VA_ARGS__    \
	}

static struct segue_seqfile_field some[] = {
	FIELD(SEQUENCE, "x", FLOAT32, .rank = 2, .dims = {3, 5}),
	FIELD(CONTEXT, "x", INT64, .rank = 0),
	FIELD(SEQUENCE, "flag-8-b", BOOL, .rank = 0),
	FIELD(STATE, "h", FLOAT64, .rank = 1, .dims = {7}),
};

static struct segue_seqfile_head some_head(void)
{
	struct segue_seqfile_head head = {.fields = some, .count = 4};

	cr_assert_eq(segue_seqfile_check_fields(&head), 0, "%s", segue_error_detail());
	return head;
}

static uint8_t *packed_head(struct segue_seqfile_head *head)
{
	*head = some_head();
	uint8_t *bytes = malloc(head->size);

	memset(bytes, 0x5a, head->size);
	segue_seqfile_pack_head(head, bytes);
	return bytes;
}

/* Makes the CRC32C at the end of the bytes right again. */
static void seal(uint8_t *bytes, size_t size)
{
	uint32_t crc = segue_crc32c(0, bytes, size - 4);

	memcpy(bytes + size - 4, &crc, 4);
}

static bool says(const char *words)
{
	return strstr(segue_error_detail(), words);
}

/* ---- Sizes ---- */

Test(sequence_file, blocks_at_each_border)
{
	static const struct {
		uint64_t size, blocks;
	} cases[] = {{1, 1}, {4095, 1}, {4096, 1}, {4097, 2}, {8191, 2}, {8192, 2}, {8193, 3},
		{UINT64_MAX, (UINT64_C(1) << 52)}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		cr_expect_eq(segue_seqfile_blocks(cases[i].size), cases[i].blocks, "%lu",
			(unsigned long)cases[i].size);
	cr_expect_eq(segue_seqfile_index_size(0), 64);
	cr_expect_eq(segue_seqfile_index_size(3), 64);
	cr_expect_eq(segue_seqfile_index_size(4), 128);
}

/* One of bytes: an entry of n steps is n bytes and their table, from 64 on. */
Test(sequence_file, layout_of_every_size)
{
	struct segue_seqfile_field bytes = FIELD(SEQUENCE, "b", UINT8, .rank = 0);
	struct segue_seqfile_head head = {.fields = &bytes, .count = 1};

	cr_assert_eq(segue_seqfile_check_fields(&head), 0);
	for (uint64_t steps = 1; steps < 3 * 4096 + 3; steps++) {
		struct segue_seqfile_entry entry = {.steps = steps, .key_size = 4};
		uint64_t column, end = 64 + steps + (steps + 4095) / 4096 * 4;

		cr_assert_eq(segue_seqfile_lay_out(&head, &entry, &column), 0);
		cr_assert_eq(entry.header_size, 64);
		cr_assert_eq(column, 64);
		cr_assert_eq(entry.size, (end + 63) / 64 * 64);
		entry.key_size = 5; /* one more, and it begins 64 later */
		cr_assert_eq(segue_seqfile_lay_out(&head, &entry, &column), 0);
		cr_assert_eq(column, 128);
	}
}

Test(sequence_file, layout_of_several_columns)
{
	struct segue_seqfile_head head = some_head();
	struct segue_seqfile_entry entry = {.steps = 100, .key_size = SEGUE_KEY_MAX};
	uint64_t columns[4];

	cr_assert_eq(segue_seqfile_lay_out(&head, &entry, columns), 0);
	cr_expect_eq(entry.header_size,
		SEGUE_SEQFILE_ENTRY_MAX - 8 * SEGUE_FEATURES_MAX - SEGUE_SEQLOG_STAMP_MAX);
	cr_expect_eq(entry.header_size, segue_seqfile_header_max(&head));
	cr_expect_eq(columns[0], 4160);        /* 4156 */
	cr_expect_eq(columns[1], 4160 + 6016); /* 6000 and two of 4 are 6008 */
	cr_expect_eq(columns[2], columns[1] + 64);
	cr_expect_eq(columns[3], columns[2] + 128); /* 100 + 4 */
	cr_expect_eq(entry.size, columns[3] + 64);  /* 56 + 4 */
}

Test(sequence_file, layouts_that_cannot_be)
{
	struct segue_seqfile_field wide[3] = {
		FIELD(SEQUENCE, "a", UINT8, .rank = 1, .dims = {UINT64_C(1) << 32}),
		FIELD(SEQUENCE, "b", UINT8, .rank = 1, .dims = {UINT64_C(1) << 32}),
		FIELD(SEQUENCE, "c", UINT8, .rank = 1, .dims = {UINT64_C(1) << 32})};
	struct segue_seqfile_head head = {.fields = wide, .count = 3};
	struct segue_seqfile_entry entry = {.steps = UINT32_MAX, .key_size = 1};
	uint64_t columns[3];

	cr_assert_eq(segue_seqfile_check_fields(&head), 0);
	cr_expect_eq(segue_seqfile_lay_out(&head, &entry, columns), SEGUE_EINVAL);
	entry.steps = UINT64_C(1) << 29; /* two fit, three do not */
	head.count = 1;
	cr_expect_eq(segue_seqfile_lay_out(&head, &entry, columns), 0);
	head.count = 3;
	cr_expect_eq(segue_seqfile_lay_out(&head, &entry, columns), SEGUE_EINVAL);
	cr_expect(says("4294967296") || says("536870912 steps of"), "%s", segue_error_detail());
	for (uint64_t steps = 0;; steps = UINT64_C(1) << 32) {
		entry.steps = steps;
		cr_expect_eq(segue_seqfile_lay_out(&head, &entry, columns), SEGUE_EINVAL);
		if (steps)
			break;
	}
	entry.steps = 1;
	entry.key_size = 0;
	cr_expect_eq(segue_seqfile_lay_out(&head, &entry, columns), SEGUE_EINVAL);
	entry.key_size = SEGUE_KEY_MAX + 1;
	cr_expect_eq(segue_seqfile_lay_out(&head, &entry, columns), SEGUE_EINVAL);
}

Test(sequence_file, table_at_each_border)
{
	static const uint64_t sizes[] = {1, 2, 4095, 4096, 4097, 8191, 8192, 8193, 40000};
	uint8_t bytes[40000];

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 7 + i / 251);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint64_t blocks = segue_seqfile_blocks(sizes[i]);
		uint8_t *table = malloc(blocks * 4 + 1), *data = malloc(sizes[i]);

		memcpy(data, bytes, sizes[i]);
		segue_seqfile_put_table(data, sizes[i], table + 1);
		for (uint64_t k = 0; k < blocks; k++) {
			uint64_t left = sizes[i] - k * 4096, size = left < 4096 ? left : 4096;
			uint32_t crc = segue_seqfile_crc(bytes + k * 4096, size);

			cr_assert_eq(memcmp(table + 1 + 4 * k, &crc, 4), 0, "%lu, block %lu",
				(unsigned long)sizes[i], (unsigned long)k);
		}
		free(table);
		free(data);
	}
}

/* A column that lies in two places has the table of one that lies in one. */
Test(sequence_file, table_of_two_parts)
{
	static const uint64_t sizes[] = {0, 1, 8, 4088, 4095, 4096, 4097, 9000};
	uint8_t bytes[18000], tables[2][24];

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 7 + i / 251);
	for (size_t i = 0; i < 8 * 8; i++) {
		const uint64_t size[2] = {sizes[i / 8], sizes[i % 8]};
		const void *const part[2] = {bytes, bytes + size[0]};

		memset(tables, 0x5a, sizeof(tables));
		segue_seqfile_put_table(bytes, size[0] + size[1], tables[0]);
		segue_seqfile_put_table_of(part, size, tables[1]);
		cr_assert_arr_eq(tables[0], tables[1], sizeof(tables[0]), "%zu", i);
		cr_assert_eq(tables[0][4 * segue_seqfile_blocks(size[0] + size[1])], 0x5a);
	}
}

Test(sequence_file, offsets_that_fit)
{
	static const struct {
		int64_t offsets[4];
		uint64_t count;
		bool fit;
	} cases[] = {
		{{0, 0, 0, 0}, 0, true}, {{0, 2, 2, 7}, 7, true}, {{0, 2, 2, 7}, 8, false},
		{{1, 2, 2, 7}, 7, false}, {{0, 3, 2, 7}, 7, false}, {{0, -1, 2, 7}, 7, false},
		{{0, 2, 9, 7}, 7, false},
		{{0, 0, INT64_MAX, INT64_MIN}, (uint64_t)INT64_MIN, true}, /* its size cannot be */
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		cr_expect_eq(segue_seqfile_offsets_fit(cases[i].offsets, 32, cases[i].count),
			cases[i].fit, "case %zu", i);
	cr_expect_not(segue_seqfile_offsets_fit(cases[0].offsets, 0, 0));
}

/* ---- Head ---- */

/* docs/format.md, written out. */
Test(sequence_file, head_by_hand)
{
	static const uint8_t expected[] = "SEGUESEQ\1\0\0\0\x80\0\0\0"
					  "\0\0\0\0\0\0\0\0\4\0\0\0\0\0\0\0"
					  "\0\0\1\2\1\0\0\0\3\0\0\0\0\0\0\0"
					  "\5\0\0\0\0\0\0\0x\0\0\0\0\0\0\0"
					  "\1\0\4\0\1\0\0\0x\0\0\0\0\0\0\0"
					  "\0\0\6\0\10\0\0\0flag-8-b"
					  "\2\0\2\1\1\0\0\0\7\0\0\0\0\0\0\0"
					  "h\0\0\0\0\0\0\0";
	struct segue_seqfile_head head;
	uint8_t *bytes = packed_head(&head);

	cr_assert_eq(head.size, 128);
	cr_assert_arr_eq(bytes, expected, sizeof(expected) - 1);
	for (size_t i = sizeof(expected) - 1; i < 124; i++)
		cr_assert_eq(bytes[i], 0);
	uint32_t crc = segue_crc32c(0, bytes, 124);
	cr_assert_eq(memcmp(bytes + 124, &crc, 4), 0);
	free(bytes);
}

Test(sequence_file, head_comes_back)
{
	struct segue_seqfile_head head, back;
	uint8_t *bytes = packed_head(&head);

	cr_assert_eq(
		segue_seqfile_read_head(bytes, head.size, &back), 0, "%s", segue_error_detail());
	cr_assert_eq(back.count, head.count);
	cr_assert_eq(back.size, head.size);
	for (uint32_t i = 0; i < head.count; i++) {
		cr_expect_str_eq(back.fields[i].name, some[i].name);
		cr_expect_eq(back.fields[i].place, some[i].place);
		cr_expect_eq(back.fields[i].dtype, some[i].dtype);
		cr_expect_eq(back.fields[i].rank, some[i].rank);
		cr_expect_eq(back.fields[i].size, some[i].size);
		cr_expect_arr_eq(back.fields[i].dims, some[i].dims, 8 * some[i].rank);
	}
	cr_expect_eq(back.fields[0].size, 60);
	segue_seqfile_free_head(&back);
	segue_seqfile_free_head(&back);
	segue_seqfile_free_head(NULL);
	free(bytes);
}

/* A part of it asks for more, and for no more than there is. */
Test(sequence_file, head_in_parts)
{
	struct segue_seqfile_head head, back;
	uint8_t *bytes = packed_head(&head);

	for (size_t size = 0; size < head.size; size++) {
		uint8_t *part = malloc(size ? size : 1);

		memcpy(part, bytes, size);
		back.size = 0;
		cr_assert_eq(segue_seqfile_read_head(part, size, &back), 1, "%zu", size);
		cr_assert(back.size > size && back.size <= head.size, "%zu", size);
		free(part);
	}
	free(bytes);
}

Test(sequence_file, each_flip_of_a_head_is_seen)
{
	struct segue_seqfile_head head, back;
	uint8_t *bytes = packed_head(&head);

	for (size_t i = 0; i < 8 * head.size; i++) {
		int rc;

		bytes[i / 8] ^= (uint8_t)(1 << i % 8);
		rc = segue_seqfile_read_head(bytes, head.size, &back);
		/* A size that is larger asks for more. */
		cr_assert(rc == (i / 8 < 8 ? SEGUE_EINVAL : SEGUE_EDATA) ||
				  (rc == 1 && i / 8 >= 12 && i / 8 < 16),
			"bit %zu: %d", i, rc);
		bytes[i / 8] ^= (uint8_t)(1 << i % 8);
	}
	free(bytes);
}

/* What has a right checksum and is wrong all the same. */
Test(sequence_file, hostile_heads)
{
	static const struct {
		size_t at;
		uint8_t value;
		int rc;
		const char *says;
	} cases[] = {
		{8, 2, SEGUE_EFORMAT, "the version is 2"},
		{16, 1, SEGUE_EDATA, "requires another thing than its fields do"},
		{16, 2, SEGUE_EFORMAT, "(bits 0x2)"},
		{23, 0x80, SEGUE_EFORMAT, "0x8000000000000000"},
		{24, 0, SEGUE_EDATA, "number of its fields"},
		{24, 3, SEGUE_EDATA, "longer than its fields"},
		{24, 5, SEGUE_EDATA, "beyond its end"},
		{26, 1, SEGUE_EDATA, "number of its fields"},
		{28, 1, SEGUE_EFORMAT, "reserved"},
		{32, 3, SEGUE_EFORMAT, "place of a field is 3"},
		{33, 1, SEGUE_EDATA, "is ragged, and then has no shape"},
		{33, 3, SEGUE_EFORMAT, "form of a field is 3"},
		{34, 0, SEGUE_EFORMAT, "dtype of a field is 0"},
		{34, 255, SEGUE_EFORMAT, "dtype of a field is 255"},
		{35, 9, SEGUE_EFORMAT, "rank of a field is 9"},
		{35, 8, SEGUE_EFORMAT, "place of a field"},
		{36, 0, SEGUE_EFORMAT, "place of a field"},
		{36, 2, SEGUE_EDATA, "NUL"},
		{37, 1, SEGUE_EDATA, "name is too long"},
		{36, 255, SEGUE_EDATA, "beyond its end"},
		{38, 1, SEGUE_EFORMAT, "reserved"},
		{40, 0, SEGUE_EDATA, "is 0"},
		{46, 1, SEGUE_EDATA, "bytes at shape[0]"},
		{47, 0xff, SEGUE_EDATA, "bytes at shape[0]"},
		{56, ':', SEGUE_EDATA, "':'"},
		{56, 0x80, SEGUE_EDATA, "UTF-8"},
		{57, 'y', SEGUE_EDATA, "behind a name"},
		{64, 0, SEGUE_EDATA, "sequences[\"x\"] is there twice"},
		{100, 255, SEGUE_EDATA, "beyond its end"},
		{120, 1, SEGUE_EDATA, "longer than its fields"},
	};
	struct segue_seqfile_head head, back;
	uint8_t *bytes = packed_head(&head);

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint8_t was = bytes[cases[i].at];

		bytes[cases[i].at] = cases[i].value;
		seal(bytes, head.size);
		cr_expect_eq(segue_seqfile_read_head(bytes, head.size, &back), cases[i].rc,
			"case %zu: %s", i, segue_error_detail());
		cr_expect(says(cases[i].says), "case %zu: %s", i, segue_error_detail());
		bytes[cases[i].at] = was;
	}
	seal(bytes, head.size);
	cr_expect_eq(segue_seqfile_read_head(bytes, head.size, &back), 0);
	segue_seqfile_free_head(&back);
	free(bytes);
}

Test(sequence_file, hostile_sizes_of_a_head)
{
	static const uint32_t sizes[] = {
		0, 32, 63, 65, 127, 129, SEGUE_SEQFILE_HEAD_MAX + 64, UINT32_MAX};
	struct segue_seqfile_head head, back;
	uint8_t *bytes = packed_head(&head);

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		memcpy(bytes + 12, &sizes[i], 4);
		cr_expect_eq(segue_seqfile_read_head(bytes, head.size, &back), SEGUE_EDATA);
		cr_expect(says("size is impossible"));
	}
	/* 64 bytes that are sound, and 64 too many. */
	memcpy(bytes + 12, &(uint32_t){64}, 4);
	seal(bytes, 64);
	cr_expect_eq(segue_seqfile_read_head(bytes, head.size, &back), SEGUE_EDATA);
	free(bytes);
	bytes = calloc(1, 256);
	head = some_head();
	segue_seqfile_pack_head(&head, bytes);
	memset(bytes + 124, 0, 4);
	memcpy(bytes + 12, &(uint32_t){256}, 4);
	seal(bytes, 256);
	cr_expect_eq(segue_seqfile_read_head(bytes, 256, &back), SEGUE_EDATA);
	cr_expect(says("longer than its fields"));
	free(bytes);
}

/* The most fields, with the longest names and the most dimensions: they come back. */
Test(sequence_file, the_most_fields)
{
	uint32_t count = SEGUE_FEATURES_MAX + SEGUE_STATES_MAX;
	struct segue_seqfile_field *fields = calloc(count + 1, sizeof(*fields));
	struct segue_seqfile_head head = {.fields = fields, .count = count}, back;

	for (uint32_t i = 0; i <= count; i++) {
		struct segue_seqfile_field *field = &fields[i];

		memset(field->name, 'n', SEGUE_NAME_MAX);
		field->name[i % 16] = (char)('A' + i / 16 % 16);
		field->name[16] = (char)('A' + i / 256);
		field->place = i < 200   ? SEGUE_SEQFILE_SEQUENCE
			       : i < 256 ? SEGUE_SEQFILE_CONTEXT
					 : SEGUE_SEQFILE_STATE;
		field->dtype = SEGUE_UINT8;
		field->rank = SEGUE_RANK_MAX;
		for (uint32_t d = 0; d < SEGUE_RANK_MAX; d++)
			field->dims[d] = 16; /* 2^32 bytes: the most */
	}
	cr_assert_eq(segue_seqfile_check_fields(&head), 0, "%s", segue_error_detail());
	cr_assert(head.size <= SEGUE_SEQFILE_HEAD_MAX);
	uint8_t *bytes = malloc(head.size);
	segue_seqfile_pack_head(&head, bytes);
	cr_assert_eq(
		segue_seqfile_read_head(bytes, head.size, &back), 0, "%s", segue_error_detail());
	cr_expect_eq(memcmp(back.fields, fields, count * sizeof(*fields)), 0);
	segue_seqfile_free_head(&back);
	free(bytes);

	fields[0].dims[0] = 17;
	cr_expect_eq(segue_seqfile_check_fields(&head), SEGUE_EINVAL);
	fields[0].dims[0] = 16;
	fields[300].place = SEGUE_SEQFILE_CONTEXT;
	cr_expect_eq(segue_seqfile_check_fields(&head), SEGUE_EINVAL);
	cr_expect(says("together at most 256"), "%s", segue_error_detail());
	fields[300].place = SEGUE_SEQFILE_STATE;
	fields[255].place = SEGUE_SEQFILE_STATE;
	cr_expect_eq(segue_seqfile_check_fields(&head), SEGUE_EINVAL);
	cr_expect(says("1025 states"), "%s", segue_error_detail());
	fields[255].place = SEGUE_SEQFILE_CONTEXT;
	head.count++;
	cr_expect_eq(segue_seqfile_check_fields(&head), SEGUE_EINVAL);
	cr_expect(says("at most 1280"), "%s", segue_error_detail());
	free(fields);
}

Test(sequence_file, fields_that_cannot_be)
{
	struct segue_seqfile_field field = FIELD(CONTEXT, "x", FLOAT32, .rank = 0);
	struct segue_seqfile_head head = {.fields = &field, .count = 1};

	cr_expect_eq(segue_seqfile_check_fields(&head), SEGUE_EINVAL);
	cr_expect(says("at least one sequence feature"));
	head.count = 0;
	cr_expect_eq(segue_seqfile_check_fields(&head), SEGUE_EINVAL);
	head.count = 1;
	field.place = SEGUE_SEQFILE_SEQUENCE;
	field.name[0] = '\0';
	cr_expect_eq(segue_seqfile_check_fields(&head), SEGUE_EINVAL);
	cr_expect(says("the name of field 0 (sequences) is empty"), "%s", segue_error_detail());
	field.name[0] = 'x';
	field.dtype = (enum segue_dtype)99;
	cr_expect_eq(segue_seqfile_check_fields(&head), SEGUE_EINVAL);
	cr_expect(says("sequences[\"x\"]: dtype is 99"), "%s", segue_error_detail());
	field.dtype = SEGUE_FLOAT32;
	field.rank = UINT32_MAX;
	cr_expect_eq(segue_seqfile_check_fields(&head), SEGUE_EINVAL);
	field.rank = 2;
	field.dims[0] = field.dims[1] = UINT64_C(1) << 31;
	cr_expect_eq(segue_seqfile_check_fields(&head), SEGUE_EINVAL);
	field.rank = 0;
	field.place = (enum segue_seqfile_place)3;
	cr_expect_eq(segue_seqfile_check_fields(&head), SEGUE_EINVAL);
	memset(field.name, 'n', sizeof(field.name)); /* not ended: it is read no further */
	field.place = SEGUE_SEQFILE_SEQUENCE;
	cr_expect_eq(segue_seqfile_check_fields(&head), 0);
}

/* ---- Entries ---- */

static uint8_t *packed_entry(
	const struct segue_seqfile_head *head, struct segue_seqfile_entry *entry)
{
	uint64_t columns[4];

	*entry = (struct segue_seqfile_entry){.steps = 0x10203,
		.total_length = 0x10200,
		.key = "a:7",
		.key_size = 3,
		.hash = {0x1122334455667788, 0x99aabbccddeeff00}};
	cr_assert_eq(segue_seqfile_lay_out(head, entry, columns), 0);
	uint8_t *bytes = malloc(entry->header_size);

	memset(bytes, 0x5a, entry->header_size);
	segue_seqfile_pack_entry(entry, bytes);
	return bytes;
}

Test(sequence_file, entry_by_hand_and_back)
{
	static const uint8_t expected[] = "ENTR\x3f\0\0\0";
	static const uint8_t rest[] =
		"\3\2\1\0\0\0\0\0\0\2\1\0\0\0\0\0"
		"\x88\x77\x66\x55\x44\x33\x22\x11\0\xff\xee\xdd\xcc\xbb\xaa\x99"
		"\3\0\0\0\0\0\0\0a:7";
	struct segue_seqfile_head head = some_head();
	struct segue_seqfile_entry entry, back;
	uint8_t *bytes = packed_entry(&head, &entry);
	uint32_t crc = segue_crc32c(0, bytes, 59);

	cr_assert_eq(entry.header_size, 63);
	cr_assert_arr_eq(bytes, expected, 8);
	cr_assert_eq(memcmp(bytes + 8, &entry.size, 8), 0);
	cr_assert_arr_eq(bytes + 16, rest, sizeof(rest) - 1);
	cr_assert_eq(memcmp(bytes + 59, &crc, 4), 0);
	cr_assert_eq(entry.crc, crc);

	cr_assert_eq(
		segue_seqfile_read_entry(&head, bytes, 63, &back), 0, "%s", segue_error_detail());
	cr_expect_eq(back.key, (char *)bytes + 56);
	cr_expect(back.steps == entry.steps && back.total_length == entry.total_length);
	cr_expect(back.key_size == 3 && back.header_size == 63 && back.size == entry.size);
	cr_expect(back.hash[0] == entry.hash[0] && back.hash[1] == entry.hash[1]);
	cr_expect_eq(back.crc, crc);
	free(bytes);
}

Test(sequence_file, entry_in_parts)
{
	struct segue_seqfile_head head = some_head();
	struct segue_seqfile_entry entry, back;
	uint8_t *bytes = packed_entry(&head, &entry);

	for (size_t size = 0; size < entry.header_size; size++) {
		uint8_t *part = malloc(size ? size : 1);

		memcpy(part, bytes, size);
		cr_assert_eq(segue_seqfile_read_entry(&head, part, size, &back), 1, "%zu", size);
		cr_assert(back.header_size > size && back.header_size <= entry.header_size);
		free(part);
	}
	free(bytes);
}

Test(sequence_file, each_flip_of_an_entry_is_seen)
{
	struct segue_seqfile_head head = some_head();
	struct segue_seqfile_entry entry, back;
	uint8_t *bytes = packed_entry(&head, &entry);

	for (size_t i = 0; i < 8 * entry.header_size; i++) {
		bytes[i / 8] ^= (uint8_t)(1 << i % 8);
		cr_assert_eq(segue_seqfile_read_entry(&head, bytes, entry.header_size, &back),
			SEGUE_EDATA, "bit %zu", i);
		bytes[i / 8] ^= (uint8_t)(1 << i % 8);
	}
	free(bytes);
}

Test(sequence_file, hostile_entries)
{
	struct segue_seqfile_head head = some_head();
	struct segue_seqfile_entry entry, back;
	uint8_t *bytes = packed_entry(&head, &entry);
	const struct {
		size_t at;
		uint64_t value;
		int rc;
		const char *says;
	} cases[] = {
		{8, 0, SEGUE_EDATA, "its size is not that"},
		{8, entry.size + 64, SEGUE_EDATA, "its size is not that"},
		{8, UINT64_MAX, SEGUE_EDATA, "its size is not that"},
		{16, 0, SEGUE_EDATA, "0 steps"},
		{16, 1, SEGUE_EDATA, "its size is not that"},
		{16, UINT64_C(1) << 32, SEGUE_EDATA, "4294967296 steps"},
		{16, UINT64_MAX, SEGUE_EDATA, "steps, 1 to"},
		{24, entry.steps + UINT32_MAX, 0, ""},
		{24, entry.steps + UINT32_MAX + 1, SEGUE_EDATA, "total length"},
		{24, UINT64_MAX - 1, SEGUE_EDATA, "total length"},
		{24, UINT64_MAX, 0, ""},
		{24, 0, 0, ""},
		{48, 0, SEGUE_EDATA, "size of its key"},
		{48, 4, SEGUE_EDATA, "its own size"},
		{48, SEGUE_KEY_MAX, SEGUE_EDATA, "its own size"},
		{48, SEGUE_KEY_MAX + 1, SEGUE_EDATA, "size of its key"},
		{48, UINT32_MAX, SEGUE_EDATA, "size of its key"},
		{48, (UINT64_C(1) << 32) + 3, SEGUE_EFORMAT, "reserved"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t was;

		memcpy(&was, bytes + cases[i].at, 8);
		memcpy(bytes + cases[i].at, &cases[i].value, 8);
		seal(bytes, entry.header_size);
		cr_expect_eq(segue_seqfile_read_entry(&head, bytes, entry.header_size, &back),
			cases[i].rc, "case %zu: %s", i, segue_error_detail());
		cr_expect(says(cases[i].says), "case %zu: %s", i, segue_error_detail());
		memcpy(bytes + cases[i].at, &was, 8);
	}
	seal(bytes, entry.header_size);
	head.count--; /* of another head */
	cr_expect_eq(segue_seqfile_read_entry(&head, bytes, entry.header_size, &back), SEGUE_EDATA);
	free(bytes);
}

/* ---- Columns of variable size ---- */

static struct segue_seqfile_field variable[] = {
	FIELD(SEQUENCE, "x", FLOAT32, .rank = 0),
	FIELD(SEQUENCE, "w", INT16, .form = SEGUE_FORM_RAGGED),
	FIELD(CONTEXT, "t", UINT8, .form = SEGUE_FORM_BYTES),
};

static struct segue_seqfile_head variable_head(void)
{
	struct segue_seqfile_head head = {.fields = variable, .count = 3};

	cr_assert_eq(segue_seqfile_check_fields(&head), 0, "%s", segue_error_detail());
	return head;
}

Test(sequence_file, a_head_with_variable_fields)
{
	static const uint8_t expected[] = "SEGUESEQ\1\0\0\0\x80\0\0\0"
					  "\1\0\0\0\0\0\0\0\3\0\0\0\0\0\0\0"
					  "\0\0\1\0\1\0\0\0x\0\0\0\0\0\0\0"
					  "\0\1\12\0\1\0\0\0w\0\0\0\0\0\0\0"
					  "\1\2\5\0\1\0\0\0t\0\0\0\0\0\0\0";
	struct segue_seqfile_head head = variable_head(), back;
	uint8_t *bytes = malloc(head.size);

	cr_assert_eq(head.variable, 2);
	cr_assert_eq(variable[2].variable, 1);
	segue_seqfile_pack_head(&head, bytes);
	cr_assert_eq(head.size, 128);
	cr_assert_arr_eq(bytes, expected, sizeof(expected) - 1);
	cr_assert_eq(segue_seqfile_read_head(bytes, head.size, &back), 0);
	cr_assert_eq(back.variable, 2);
	for (uint32_t i = 0; i < 3; i++) {
		cr_expect_eq(back.fields[i].form, (enum segue_form)i);
		cr_expect_eq(back.fields[i].size, i == 0 ? 4 : 3 - i);
		cr_expect_eq(back.fields[i].variable, i == 2);
	}
	segue_seqfile_free_head(&back);
	bytes[16] = 0; /* an older reader would take it for one of its own */
	seal(bytes, head.size);
	cr_expect_eq(segue_seqfile_read_head(bytes, head.size, &back), SEGUE_EDATA);
	cr_expect(says("requires another thing"), "%s", segue_error_detail());
	free(bytes);
}

Test(sequence_file, variable_fields_that_cannot_be)
{
	struct segue_seqfile_field fields[] = {
		FIELD(SEQUENCE, "x", FLOAT32, .rank = 0), FIELD(SEQUENCE, "w", INT16, .rank = 0)};
	struct segue_seqfile_head head = {.fields = fields, .count = 2};

	fields[1].form = 3;
	cr_expect_eq(segue_seqfile_check_fields(&head), SEGUE_EINVAL);
	cr_expect(says("sequences[\"w\"]: form is 3"), "%s", segue_error_detail());
	fields[1].form = SEGUE_FORM_BYTES;
	cr_expect_eq(segue_seqfile_check_fields(&head), SEGUE_EINVAL);
	cr_expect(says("dtype of bytes is uint8 (5), not int16"), "%s", segue_error_detail());
	fields[1].form = SEGUE_FORM_RAGGED;
	fields[1].place = SEGUE_SEQFILE_STATE;
	cr_expect_eq(segue_seqfile_check_fields(&head), SEGUE_EINVAL);
	cr_expect(says("a state is dense"), "%s", segue_error_detail());
}

Test(sequence_file, an_entry_with_counts)
{
	uint64_t counts[2] = {5, 3}, columns[3];
	struct segue_seqfile_head head = variable_head();
	struct segue_seqfile_entry back,
		entry = {.steps = 3, .key = "key", .key_size = 3, .counts = (uint8_t *)counts};

	cr_assert_eq(segue_seqfile_lay_out(&head, &entry, columns), 0);
	cr_assert_eq(entry.header_size, 56 + 16 + 3 + 4);
	cr_expect_eq(columns[0], 128);
	cr_expect_eq(segue_seqfile_offsets_size(&variable[0], &entry), 0);
	cr_expect_eq(segue_seqfile_column_size(&variable[0], &entry), 12);
	cr_expect_eq(columns[1], 192);
	cr_expect_eq(segue_seqfile_offsets_size(&variable[1], &entry), 32);
	cr_expect_eq(segue_seqfile_column_size(&variable[1], &entry), 32 + 10);
	cr_expect_eq(columns[2], 256);
	cr_expect_eq(segue_seqfile_column_size(&variable[2], &entry), 16 + 3);
	cr_expect_eq(entry.size, 320);
	uint8_t *bytes = malloc(entry.header_size);
	segue_seqfile_pack_entry(&entry, bytes);
	cr_assert_arr_eq(bytes + 56, "\5\0\0\0\0\0\0\0\3\0\0\0\0\0\0\0key", 19);
	for (size_t size = 0; size < entry.header_size; size++) {
		cr_assert_eq(segue_seqfile_read_entry(&head, bytes, size, &back), 1, "%zu", size);
		cr_assert(back.header_size > size && back.header_size <= entry.header_size);
	}
	cr_assert_eq(segue_seqfile_read_entry(&head, bytes, entry.header_size, &back), 0, "%s",
		segue_error_detail());
	cr_expect_eq(memcmp(back.key, "key", 3), 0);
	cr_expect_eq(segue_seqfile_count(&head.fields[1], &back), 5);
	cr_expect_eq(segue_seqfile_count(&head.fields[2], &back), 3);
	for (size_t i = 56; i < 72; i++) { /* other counts, and those that overflow */
		bytes[i] ^= 0xff;
		seal(bytes, entry.header_size);
		cr_expect_eq(segue_seqfile_read_entry(&head, bytes, entry.header_size, &back),
			SEGUE_EDATA, "%zu", i);
		bytes[i] ^= 0xff;
	}
	memset(bytes + 56, 0xff, 8);
	seal(bytes, entry.header_size);
	cr_expect_eq(segue_seqfile_read_entry(&head, bytes, entry.header_size, &back), SEGUE_EDATA);
	free(bytes);
}

/* ---- Foot ---- */

static const struct segue_seqfile_foot a_foot = {.entries = 3,
	.index = 64 * 20,
	.steps = 1000,
	.key_max = 9,
	.head_size = 192,
	.fingerprint = {0x0102030405060708, 0x1112131415161718}};

#define A_FILE (64 * 20 + 64 + 128) /* bytes of the file that it ends */

Test(sequence_file, foot_by_hand_and_back)
{
	static const uint8_t expected[] = "SEGUEEND\1\0\0\0\xc0\0\0\0"
					  "\3\0\0\0\0\0\0\0\0\5\0\0\0\0\0\0"
					  "\xe8\3\0\0\0\0\0\0\x09\0\0\0\0\0\0\0"
					  "\x08\7\6\5\4\3\2\1\x18\x17\x16\x15\x14\x13\x12\x11";
	struct segue_seqfile_foot back;
	uint8_t bytes[SEGUE_SEQFILE_FOOT];

	segue_seqfile_pack_foot(&a_foot, bytes);
	cr_assert_arr_eq(bytes, expected, sizeof(expected) - 1);
	for (size_t i = sizeof(expected) - 1; i < 124; i++)
		cr_assert_eq(bytes[i], 0);
	cr_assert_eq(segue_seqfile_read_foot(bytes, A_FILE, &back), 0, "%s", segue_error_detail());
	cr_assert_eq(memcmp(&back, &a_foot, sizeof(back)), 0);
}

Test(sequence_file, each_flip_of_a_foot_is_seen)
{
	struct segue_seqfile_foot back;
	uint8_t bytes[SEGUE_SEQFILE_FOOT];

	segue_seqfile_pack_foot(&a_foot, bytes);
	for (size_t i = 0; i < 8 * sizeof(bytes); i++) {
		bytes[i / 8] ^= (uint8_t)(1 << i % 8);
		cr_assert_eq(segue_seqfile_read_foot(bytes, A_FILE, &back),
			i / 8 < 8 ? SEGUE_EINVAL : SEGUE_EDATA, "bit %zu", i);
		bytes[i / 8] ^= (uint8_t)(1 << i % 8);
	}
}

Test(sequence_file, feet_of_other_files)
{
	struct segue_seqfile_foot back;
	uint8_t bytes[SEGUE_SEQFILE_FOOT];

	segue_seqfile_pack_foot(&a_foot, bytes);
	for (uint64_t size = 0; size < 2 * A_FILE; size++)
		if (size != A_FILE)
			cr_assert_eq(segue_seqfile_read_foot(bytes, size, &back),
				size < 192 ? SEGUE_EINVAL : SEGUE_EDATA, "%lu",
				(unsigned long)size);
	cr_assert_eq(segue_seqfile_read_foot(bytes, UINT64_MAX, &back), SEGUE_EDATA);
}

Test(sequence_file, hostile_feet)
{
	static const struct {
		size_t at;
		uint64_t value;
		int rc;
	} cases[] = {
		{8, UINT64_C(192) << 32 | 2, SEGUE_EFORMAT},
		{8, 1, SEGUE_EDATA},
		{8, UINT64_C(200) << 32 | 1, SEGUE_EDATA},
		{8, UINT64_C(1344) << 32 | 1, SEGUE_EDATA},
		{8, UINT64_C(0x100040) << 32 | 1, SEGUE_EDATA},
		{16, 0, SEGUE_EDATA},
		{16, 2, 0},
		{16, 4, SEGUE_EDATA},
		{16, UINT64_MAX, SEGUE_EDATA},
		{16, UINT64_C(1) << 60, SEGUE_EDATA},
		{24, 64 * 19, SEGUE_EDATA},
		{24, 64 * 20 + 1, SEGUE_EDATA},
		{24, UINT64_MAX - 63, SEGUE_EDATA},
		{32, 2, SEGUE_EDATA},
		{32, 3, 0},
		{32, 3 * (uint64_t)UINT32_MAX, 0},
		{32, UINT64_MAX, SEGUE_EDATA},
		{40, 0, SEGUE_EDATA},
		{40, SEGUE_KEY_MAX, 0},
		{40, SEGUE_KEY_MAX + 1, SEGUE_EDATA},
		{40, UINT64_C(1) << 32 | 9, SEGUE_EFORMAT},
		{64, 1, SEGUE_EFORMAT},
		{112, 1, SEGUE_EFORMAT},
	};
	struct segue_seqfile_foot back;
	uint8_t bytes[SEGUE_SEQFILE_FOOT];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		segue_seqfile_pack_foot(&a_foot, bytes);
		memcpy(bytes + cases[i].at, &cases[i].value, 8);
		seal(bytes, sizeof(bytes));
		cr_expect_eq(segue_seqfile_read_foot(bytes, A_FILE, &back), cases[i].rc,
			"case %zu: %s", i, segue_error_detail());
	}
}

/* What the foot says of a file that ends where its index and the foot do. */
static int read_own(const struct segue_seqfile_foot *foot)
{
	struct segue_seqfile_foot back;
	uint8_t bytes[SEGUE_SEQFILE_FOOT];

	segue_seqfile_pack_foot(foot, bytes);
	return segue_seqfile_read_foot(bytes,
		foot->index + segue_seqfile_index_size(foot->entries) + SEGUE_SEQFILE_FOOT, &back);
}

Test(sequence_file, feet_that_fit_their_file)
{
	struct segue_seqfile_foot empty = {.index = 192, .head_size = 192};
	struct segue_seqfile_foot full = {
		.entries = 2, .index = 192 + 256, .steps = 9, .key_max = 1, .head_size = 192};
	struct segue_seqfile_foot foot = empty;

	cr_expect_eq(read_own(&empty), 0);
	foot.steps = 1;
	cr_expect_eq(read_own(&foot), SEGUE_EDATA);
	foot = empty;
	foot.key_max = 1;
	cr_expect_eq(read_own(&foot), SEGUE_EDATA);
	foot = empty;
	foot.index += 64;
	cr_expect_eq(read_own(&foot), SEGUE_EDATA);
	foot.index = foot.head_size = SEGUE_SEQFILE_HEAD_MAX;
	cr_expect_eq(read_own(&foot), 0);
	foot.index = foot.head_size += 64;
	cr_expect_eq(read_own(&foot), SEGUE_EDATA);
	cr_expect_eq(read_own(&full), 0);
	full.entries++; /* no room for three */
	cr_expect_eq(read_own(&full), SEGUE_EDATA);
}
