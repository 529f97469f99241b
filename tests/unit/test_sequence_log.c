/*
 * Tests of what a log's files say beyond others: it is where docs/format.md says, comes back as it
 * was, and what is hostile is refused. Each buffer has its exact size, so that a sanitizer sees a
 * byte too many.
 */
#include "core/sequence_file.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/crc32c.h"

static struct segue_seqfile_field some[] = {
	{.name = "x", .dtype = SEGUE_FLOAT32, .rank = 1, .dims = {3}},
	{.name = "c", .place = SEGUE_SEQFILE_CONTEXT, .dtype = SEGUE_UINT8},
};

static bool says(const char *words)
{
	return strstr(segue_error_detail(), words);
}

/* Makes the CRC32C at the end of the bytes right again. */
static void seal(uint8_t *bytes, size_t size)
{
	uint32_t crc = segue_crc32c(0, bytes, size - 4);

	memcpy(bytes + size - 4, &crc, 4);
}

static struct segue_seqlog_stamp stamp_of(
	const char *producer, uint64_t serial, const void *cursor, size_t cursor_size)
{
	return (struct segue_seqlog_stamp){.number = 0x0102,
		.serial = serial,
		.before = {0x1122334455667788, 0x99aabbccddeeff00},
		.producer = producer,
		.producer_size = (uint16_t)strlen(producer),
		.cursor = cursor,
		.cursor_size = (uint16_t)cursor_size};
}

static void note(struct segue_seqlog *log, const char *producer, uint64_t serial,
	const void *cursor, size_t cursor_size)
{
	const struct segue_seqlog_stamp stamp = stamp_of(producer, serial, cursor, cursor_size);

	cr_assert_eq(segue_seqlog_note(log, &stamp), 0, "%s", segue_error_detail());
}

/* A head of a log with two producers. */
static uint8_t *packed_head(struct segue_seqlog *log, size_t *size)
{
	struct segue_seqfile_head head = {.fields = some, .count = 2, .log = log};

	*log = (struct segue_seqlog){.first = 0x0203, .before = {7, 8}};
	memcpy(log->id, "0123456789abcdef", 16);
	note(log, "p", 5, "cur", 3);
	note(log, "producer-b", 6, NULL, 0);
	cr_assert_eq(segue_seqfile_check_fields(&head), 0, "%s", segue_error_detail());
	uint8_t *bytes = malloc(head.size);

	memset(bytes, 0x5a, head.size);
	segue_seqfile_pack_head(&head, bytes);
	*size = head.size;
	return bytes;
}

/* ---- The head ---- */

Test(sequence_log, head_by_hand_and_back)
{
	/* Behind 32 bytes and the fields: 8 + 8 + 8 of "x", 8 + 8 of "c". */
	enum { AT = 32 + 24 + 16 };
	static const uint8_t first[] = "0123456789abcdef\3\2\0\0\0\0\0\0"
				       "\7\0\0\0\0\0\0\0\10\0\0\0\0\0\0\0\2\0\0\0\0\0\0";
	static const uint8_t second[] =
		"\5\0\0\0\0\0\0\0\2\1\0\0\0\0\0\0\1\0\3\0\0\0\0\0pcur\0\0\0";
	static const uint8_t third[] = "\6\0\0\0\0\0\0\0\2\1\0\0\0\0\0\0\12\0\0\0\0\0\0\0"
				       "producer-b\0\0\0\0\0";
	struct segue_seqlog log;
	struct segue_seqfile_head back;
	size_t size;
	uint8_t *bytes = packed_head(&log, &size);

	cr_assert_eq(size, 256); /* 72 + 48 + 32 + 40 + 4 */
	cr_expect_arr_eq(bytes + 16, "\x10\0\0\0\0\0\0", 8);
	cr_expect_arr_eq(bytes + AT, first, sizeof(first));
	cr_expect_arr_eq(bytes + AT + 48, second, sizeof(second));
	cr_expect_arr_eq(bytes + AT + 48 + 32, third, sizeof(third));
	cr_assert_eq(segue_seqfile_read_head(bytes, size, &back), 0, "%s", segue_error_detail());
	cr_assert(back.log && back.count == 2 && back.size == size);
	cr_expect(back.log->first == log.first && back.log->count == 2);
	cr_expect_arr_eq(back.log->id, log.id, sizeof(log.id));
	cr_expect(back.log->before[0] == 7 && back.log->before[1] == 8);
	const struct segue_seqlog_producer *row = segue_seqlog_find(back.log, "p", 1);
	cr_assert(row && row->serial == 5 && row->number == 0x0102 && row->cursor_size == 3);
	cr_expect_arr_eq(row->cursor, "cur", 3);
	row = segue_seqlog_find(back.log, "producer-b", 10);
	cr_expect(row && row->serial == 6 && row->cursor_size == 0 && !row->cursor);
	cr_expect_null(segue_seqlog_find(back.log, "producer-", 9));
	segue_seqfile_free_head(&back);
	segue_seqlog_finish(&log);
	free(bytes);
}

/* Every byte of the log's part, changed in each of some ways and sealed: refused, or another head. */
Test(sequence_log, head_with_any_byte_changed)
{
	struct segue_seqlog log;
	size_t size, refused = 0;
	uint8_t *bytes = packed_head(&log, &size);

	for (size_t at = 72; at < size - 4; at++)
		for (unsigned change = 1; change < 256; change += change < 4 ? 1 : 59) {
			struct segue_seqfile_head back;
			uint8_t *again = malloc(size);

			bytes[at] ^= (uint8_t)change;
			seal(bytes, size);
			int rc = segue_seqfile_read_head(bytes, size, &back);
			if (!rc) {
				memset(again, 0, size);
				cr_assert_eq(back.size, size);
				segue_seqfile_pack_head(&back, again);
				cr_assert_arr_eq(again, bytes, size, "byte %zu", at);
				segue_seqfile_free_head(&back);
			} else {
				cr_assert(rc == SEGUE_EDATA, "byte %zu: %d", at, rc);
				refused++;
			}
			bytes[at] ^= (uint8_t)change;
			free(again);
		}
	cr_expect_gt(refused, 100);
	segue_seqlog_finish(&log);
	free(bytes);
}

/* A head that is sealed anew after it was cut and its size made smaller. */
Test(sequence_log, head_cut_short)
{
	struct segue_seqlog log;
	struct segue_seqfile_head back;
	size_t size;
	uint8_t *bytes = packed_head(&log, &size);

	for (uint32_t less = 64; less < size; less += 64) {
		uint8_t *cut = malloc(less);

		memcpy(cut, bytes, less);
		memcpy(cut + 12, &less, 4);
		seal(cut, less);
		cr_expect_eq(segue_seqfile_read_head(cut, less, &back), SEGUE_EDATA);
		free(cut);
	}
	segue_seqlog_finish(&log);
	free(bytes);
}

Test(sequence_log, other_bits_are_refused)
{
	struct segue_seqlog log;
	struct segue_seqfile_head back;
	size_t size;
	uint8_t *bytes = packed_head(&log, &size);

	bytes[17] = 0x80;
	seal(bytes, size);
	cr_expect_eq(segue_seqfile_read_head(bytes, size, &back), SEGUE_EFORMAT);
	cr_expect(says("0x8000"), "%s", segue_error_detail());
	segue_seqlog_finish(&log);
	free(bytes);
}

/* ---- The table ---- */

Test(sequence_log, a_producer_goes_on)
{
	struct segue_seqlog log = {0};

	note(&log, "a", 1, "0123456789", 10);
	cr_expect_eq(log.size, 24 + 16);
	note(&log, "a", 2, "8 bytes", 7);
	cr_expect_eq(log.size, 24 + 8);
	note(&log, "b", 1, NULL, 0);
	cr_expect_eq(log.size, 24 + 8 + 24 + 8);
	cr_assert_eq(log.count, 2);
	cr_expect_eq(segue_seqlog_find(&log, "a", 1)->serial, 2);
	cr_expect_arr_eq(segue_seqlog_find(&log, "a", 1)->cursor, "8 bytes", 7);
	segue_seqlog_finish(&log);
}

Test(sequence_log, as_many_producers_as_fit)
{
	struct segue_seqlog log = {0};
	char name[SEGUE_NAME_MAX + 1];
	struct segue_seqlog_stamp stamp;

	for (int i = 0; i < SEGUE_SEQLOG_PRODUCERS_MAX; i++) {
		snprintf(name, sizeof(name), "%0255d", i);
		note(&log, name, 1, NULL, 0);
	}
	stamp = stamp_of("one more", 1, NULL, 0);
	cr_expect_eq(segue_seqlog_note(&log, &stamp), SEGUE_ELIMIT);
	cr_expect(says("1024 producers"), "%s", segue_error_detail());
	cr_expect_eq(log.count, SEGUE_SEQLOG_PRODUCERS_MAX);
	segue_seqlog_finish(&log);
}

/* The largest table, beside the most fields with the longest names: a head that can be read. */
Test(sequence_log, the_largest_head)
{
	struct segue_seqlog log = {.first = 1 << 20};
	static uint8_t cursor[SEGUE_SEQLOG_CURSOR_MAX];
	struct segue_seqfile_head head = {
		.count = SEGUE_FEATURES_MAX + SEGUE_STATES_MAX, .log = &log};
	struct segue_seqfile_head back;
	char name[SEGUE_NAME_MAX + 1];
	struct segue_seqlog_stamp stamp;
	int rc = 0;

	for (int i = 0; !rc; i++) {
		snprintf(name, sizeof(name), "%0255d", i);
		stamp = stamp_of(name, 1, cursor, i % 3 ? sizeof(cursor) : 1);
		rc = segue_seqlog_note(&log, &stamp);
	}
	cr_expect_eq(rc, SEGUE_ELIMIT);
	cr_expect(says("at most 786432"), "%s", segue_error_detail());
	cr_expect_gt(log.size, SEGUE_SEQLOG_TABLE_MAX - sizeof(cursor) - 300);
	/* One that is there can still have a smaller cursor. */
	snprintf(name, sizeof(name), "%0255d", 1);
	note(&log, name, 2, NULL, 0);
	head.fields = calloc(head.count, sizeof(*head.fields));
	for (uint32_t i = 0; i < head.count; i++) {
		head.fields[i] = (struct segue_seqfile_field){.dtype = SEGUE_UINT8,
			.rank = SEGUE_RANK_MAX,
			.dims = {1, 1, 1, 1, 1, 1, 1, 1},
			.place = i < SEGUE_FEATURES_MAX ? SEGUE_SEQFILE_SEQUENCE
							: SEGUE_SEQFILE_STATE};
		snprintf(head.fields[i].name, SEGUE_NAME_MAX + 1, "%0255u", i);
	}
	cr_assert_eq(segue_seqfile_check_fields(&head), 0, "%s", segue_error_detail());
	cr_assert_leq(head.size, SEGUE_SEQFILE_HEAD_MAX);
	uint8_t *bytes = malloc(head.size);
	segue_seqfile_pack_head(&head, bytes);
	cr_expect_eq(
		segue_seqfile_read_head(bytes, head.size, &back), 0, "%s", segue_error_detail());
	cr_expect_eq(back.log->count, log.count);
	segue_seqfile_free_head(&back);
	free(bytes);
	free(head.fields);
	segue_seqlog_finish(&log);
}

/* ---- Entries ---- */

static uint8_t *packed_entry(
	const struct segue_seqfile_head *head, struct segue_seqfile_entry *entry)
{
	uint64_t columns[2];

	*entry = (struct segue_seqfile_entry){.steps = 2,
		.total_length = 1,
		.key = "a:7",
		.key_size = 3,
		.hash = {1, 2},
		.stamp = stamp_of("prod", 0x0304, "cursor", 6)};
	cr_assert_eq(segue_seqfile_lay_out(head, entry, columns), 0);
	cr_assert_eq(columns[0], 128);
	uint8_t *bytes = malloc(entry->header_size);

	memset(bytes, 0x5a, entry->header_size);
	segue_seqfile_pack_entry(entry, bytes);
	return bytes;
}

Test(sequence_log, entry_by_hand_and_back)
{
	static const uint8_t expected[] =
		"a:7\2\1\0\0\0\0\0\0\4\3\0\0\0\0\0\0"
		"\x88\x77\x66\x55\x44\x33\x22\x11"
		"\0\xff\xee\xdd\xcc\xbb\xaa\x99\4\0\6\0\0\0\0\0prodcursor";
	struct segue_seqlog log = {0};
	const struct segue_seqfile_head head = {.fields = some, .count = 2, .log = &log};
	struct segue_seqfile_head plain = {.fields = some, .count = 2};
	struct segue_seqfile_entry entry, back;

	cr_assert_eq(segue_seqfile_check_fields(&plain), 0);
	uint8_t *bytes = packed_entry(&head, &entry);
	cr_assert_eq(entry.header_size, 56 + 3 + 40 + 10 + 4);
	cr_expect_arr_eq(bytes + 56, expected, sizeof(expected) - 1);
	for (size_t size = 0; size < entry.header_size; size++) {
		uint8_t *part = malloc(size + 1);

		memcpy(part, bytes, size);
		back.header_size = 0;
		cr_assert_eq(segue_seqfile_read_entry(&head, part, size, &back), 1);
		cr_assert(back.header_size > size && back.header_size <= entry.header_size);
		free(part);
	}
	cr_assert_eq(segue_seqfile_read_entry(&head, bytes, entry.header_size, &back), 0, "%s",
		segue_error_detail());
	cr_expect(back.stamp.number == 0x0102 && back.stamp.serial == 0x0304);
	cr_expect(back.stamp.producer_size == 4 && back.stamp.cursor_size == 6);
	cr_expect_eq(back.stamp.producer, (char *)bytes + 56 + 3 + 40);
	cr_expect_eq(back.stamp.cursor, bytes + 56 + 3 + 40 + 4);
	cr_expect_arr_eq(back.stamp.before, entry.stamp.before, 16);
	/* Under the head of another file it is damaged, and so is another's under this one. */
	cr_expect_eq(
		segue_seqfile_read_entry(&plain, bytes, entry.header_size, &back), SEGUE_EDATA);
	free(bytes);
	entry.stamp = (struct segue_seqlog_stamp){0};
	uint64_t columns[2];
	cr_assert_eq(segue_seqfile_lay_out(&plain, &entry, columns), 0);
	uint8_t other[256] = {0};
	segue_seqfile_pack_entry(&entry, other);
	cr_expect_eq(segue_seqfile_read_entry(&head, other, sizeof(other), &back), SEGUE_EDATA);
}

Test(sequence_log, entry_with_any_byte_changed)
{
	struct segue_seqlog log = {0};
	struct segue_seqfile_head head = {.fields = some, .count = 2, .log = &log};
	struct segue_seqfile_entry entry, back;

	cr_assert_eq(segue_seqfile_check_fields(&head), 0);
	uint8_t *bytes = packed_entry(&head, &entry), again[SEGUE_SEQFILE_ENTRY_MAX];
	for (size_t at = 0; at < entry.header_size; at++)
		for (unsigned bit = 0; bit < 8; bit++) {
			bytes[at] ^= (uint8_t)(1u << bit);
			cr_assert_neq(
				segue_seqfile_read_entry(&head, bytes, entry.header_size, &back), 0,
				"byte %zu", at);
			seal(bytes, entry.header_size);
			int rc = segue_seqfile_read_entry(&head, bytes, entry.header_size, &back);
			cr_assert(rc == 0 || rc == 1 || rc == SEGUE_EDATA || rc == SEGUE_EFORMAT);
			if (!rc) {
				segue_seqfile_pack_entry(&back, again);
				cr_assert_arr_eq(again, bytes, entry.header_size);
			}
			bytes[at] ^= (uint8_t)(1u << bit);
			seal(bytes, entry.header_size);
		}
	free(bytes);
}

Test(sequence_log, stamps_that_cannot_be)
{
	struct segue_seqlog_stamp stamp = stamp_of("a", 1, NULL, 0);

	cr_expect_eq(segue_seqlog_check_stamp(&stamp), 0);
	stamp.serial = 0;
	cr_expect_eq(segue_seqlog_check_stamp(&stamp), SEGUE_EINVAL);
	cr_expect(says("they begin at 1"), "%s", segue_error_detail());
	stamp = stamp_of("", 1, NULL, 0);
	cr_expect_eq(segue_seqlog_check_stamp(&stamp), SEGUE_EINVAL);
	stamp = stamp_of("a", 1, NULL, SEGUE_SEQLOG_CURSOR_MAX + 1);
	cr_expect_eq(segue_seqlog_check_stamp(&stamp), SEGUE_EINVAL);
	cr_expect(says("at most 4096"), "%s", segue_error_detail());
	stamp = stamp_of("a\nb", 1, NULL, 0);
	cr_expect_eq(segue_seqlog_check_stamp(&stamp), SEGUE_EINVAL);
	stamp = stamp_of("abc", 1, NULL, 0);
	stamp.producer = "a\0c";
	cr_expect_eq(segue_seqlog_check_stamp(&stamp), SEGUE_EINVAL);
	cr_expect(says("NUL"));
	stamp.producer_size = SEGUE_NAME_MAX + 1;
	cr_expect_eq(segue_seqlog_check_stamp(&stamp), SEGUE_EINVAL);
}

/* ---- The running hash ---- */

/* It tells logs, numbers and contents apart. */
Test(sequence_log, running_hash)
{
	struct segue_seqlog log = {0};
	const struct segue_seqfile_head head = {.fields = some, .count = 2, .log = &log};
	struct segue_seqfile_entry entry;
	uint64_t hash[2], other[2];
	uint8_t *bytes = packed_entry(&head, &entry);

	segue_seqlog_begin((const uint8_t *)"0123456789abcdef", hash);
	segue_seqlog_begin((const uint8_t *)"0123456789abcdeg", other);
	cr_expect_neq(hash[0], other[0]);
	segue_seqlog_go_on(bytes, entry.header_size, hash);
	free(bytes);
	entry.stamp.before[1]++; /* all entries before it count */
	bytes = malloc(entry.header_size);
	segue_seqfile_pack_entry(&entry, bytes);
	segue_seqlog_go_on(bytes, entry.header_size, other);
	cr_expect(hash[0] != other[0] && hash[1] != other[1]);
	free(bytes);
}
