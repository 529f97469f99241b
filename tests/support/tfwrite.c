/* Writes TFRecord files of SequenceExample. */
#include "tfwrite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

struct segue_tfwriter {
	FILE *plain;
	gzFile packed;
	uint64_t offset;
	struct segue_tfbytes data, record;
};

static void die(const char *what)
{
	perror(what);
	abort();
}

/* ---- Bytes ----------------------------------------------------------------------------------- */

void segue_tfbytes_free(struct segue_tfbytes *to)
{
	free(to->bytes);
	*to = (struct segue_tfbytes){0};
}

void segue_tfbytes_put(struct segue_tfbytes *to, const void *bytes, size_t size)
{
	if (to->size + size > to->capacity) {
		to->capacity = 2 * (to->size + size) + 256;
		to->bytes = realloc(to->bytes, to->capacity);
		if (!to->bytes)
			die("realloc");
	}
	if (size)
		memcpy(to->bytes + to->size, bytes, size);
	to->size += size;
}

void segue_tfbytes_varint(struct segue_tfbytes *to, uint64_t value)
{
	uint8_t byte;

	for (; value >= 128; value >>= 7) {
		byte = (uint8_t)(value | 128);
		segue_tfbytes_put(to, &byte, 1);
	}
	byte = (uint8_t)value;
	segue_tfbytes_put(to, &byte, 1);
}

void segue_tfbytes_field(struct segue_tfbytes *to, uint32_t number, const void *bytes, size_t size)
{
	segue_tfbytes_varint(to, number << 3 | 2);
	segue_tfbytes_varint(to, size);
	segue_tfbytes_put(to, bytes, size);
}

/* ---- Messages -------------------------------------------------------------------------------- */

static void put_value(
	struct segue_tfbytes *to, const struct segue_tffeature *feature, size_t i, bool tagged)
{
	if (feature->kind == SEGUE_TF_FLOAT) {
		if (tagged)
			segue_tfbytes_varint(to, 1 << 3 | 5);
		segue_tfbytes_put(to, (const float *)feature->values + i, sizeof(float));
	} else {
		if (tagged)
			segue_tfbytes_varint(to, 1 << 3 | 0);
		segue_tfbytes_varint(to, (uint64_t)((const int64_t *)feature->values)[i]);
	}
}

static void put_packed(
	struct segue_tfbytes *to, const struct segue_tffeature *feature, size_t first, size_t count)
{
	struct segue_tfbytes run = {0};

	for (size_t i = 0; i < count; i++)
		put_value(&run, feature, first + i, false);
	segue_tfbytes_field(to, 1, run.bytes, run.size);
	segue_tfbytes_free(&run);
}

static void put_list(struct segue_tfbytes *to, const struct segue_tffeature *feature, size_t step)
{
	size_t first = step * feature->each, end = first + feature->each;

	if (feature->kind == SEGUE_TF_BYTES) {
		segue_tfbytes_field(to, 1, (const uint8_t *)feature->values + first, feature->each);
		return;
	}
	if (feature->form == SEGUE_TF_PACKED) {
		put_packed(to, feature, first, feature->each);
		return;
	}
	while (first < end) {
		size_t run = 1;

		if (feature->form == SEGUE_TF_MIXED && random() % 2) {
			run = (size_t)random() % (end - first + 1);
			put_packed(to, feature, first, run);
		} else {
			put_value(to, feature, first, true);
		}
		first += run;
	}
}

void segue_tfwrite_feature(
	struct segue_tfbytes *to, const struct segue_tffeature *feature, size_t step)
{
	struct segue_tfbytes list = {0};

	put_list(&list, feature, step);
	segue_tfbytes_field(to, feature->kind, list.bytes, list.size);
	segue_tfbytes_free(&list);
}

static void put_entry(struct segue_tfbytes *to, const char *name, const struct segue_tfbytes *value)
{
	struct segue_tfbytes entry = {0};

	segue_tfbytes_field(&entry, 1, name, strlen(name));
	segue_tfbytes_field(&entry, 2, value->bytes, value->size);
	segue_tfbytes_field(to, 1, entry.bytes, entry.size);
	segue_tfbytes_free(&entry);
}

static void put_steps(struct segue_tfbytes *map, const struct segue_tffeature *feature)
{
	struct segue_tfbytes steps = {0}, step = {0};

	for (size_t i = 0; i < feature->steps; i++) {
		step.size = 0;
		segue_tfwrite_feature(&step, feature, i);
		segue_tfbytes_field(&steps, 1, step.bytes, step.size);
	}
	put_entry(map, feature->name, &steps);
	segue_tfbytes_free(&step);
	segue_tfbytes_free(&steps);
}

void segue_tfwrite_example(struct segue_tfbytes *to, const struct segue_tffeature *contexts,
	size_t context_count, const struct segue_tffeature *sequences, size_t sequence_count)
{
	struct segue_tfbytes map = {0}, feature = {0};

	for (size_t i = 0; i < context_count; i++) {
		feature.size = 0;
		segue_tfwrite_feature(&feature, &contexts[i], 0);
		put_entry(&map, contexts[i].name, &feature);
	}
	if (context_count)
		segue_tfbytes_field(to, 1, map.bytes, map.size);
	map.size = 0;
	for (size_t i = 0; i < sequence_count; i++)
		put_steps(&map, &sequences[i]);
	segue_tfbytes_field(to, 2, map.bytes, map.size);
	segue_tfbytes_free(&map);
	segue_tfbytes_free(&feature);
}

/* ---- Records and files ----------------------------------------------------------------------- */

uint32_t segue_tfwrite_crc(const void *bytes, size_t size)
{
	static uint32_t table[256];
	const uint8_t *at = bytes;
	uint32_t crc = UINT32_MAX;

	if (!table[1])
		for (uint32_t i = 0; i < 256; i++) {
			uint32_t value = i;

			for (int bit = 0; bit < 8; bit++)
				value = value & 1 ? value >> 1 ^ 0x82f63b78u : value >> 1;
			table[i] = value;
		}
	for (size_t i = 0; i < size; i++)
		crc = table[(crc ^ at[i]) & 255] ^ crc >> 8;
	crc = ~crc;
	return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

void segue_tfwrite_record(struct segue_tfbytes *to, const void *data, size_t size)
{
	uint64_t length = size;
	uint32_t crc = segue_tfwrite_crc(&length, sizeof(length));

	segue_tfbytes_put(to, &length, sizeof(length));
	segue_tfbytes_put(to, &crc, sizeof(crc));
	segue_tfbytes_put(to, data, size);
	crc = segue_tfwrite_crc(data, size);
	segue_tfbytes_put(to, &crc, sizeof(crc));
}

static void put_deflated(struct segue_tfbytes *to, const void *bytes, size_t size, int window_bits)
{
	uint8_t out[16384];
	z_stream stream = {0};
	int code;

	if (deflateInit2(&stream, 6, Z_DEFLATED, window_bits, 8, Z_DEFAULT_STRATEGY) != Z_OK)
		die("deflateInit2");
	stream.next_in = (Bytef *)(uintptr_t)bytes;
	stream.avail_in = (uInt)size;
	do {
		stream.next_out = out;
		stream.avail_out = sizeof(out);
		code = deflate(&stream, Z_FINISH);
		segue_tfbytes_put(to, out, sizeof(out) - stream.avail_out);
	} while (code != Z_STREAM_END);
	deflateEnd(&stream);
}

void segue_tfwrite_gzip(struct segue_tfbytes *to, const void *bytes, size_t size)
{
	put_deflated(to, bytes, size, 15 + 16);
}

void segue_tfwrite_zlib(struct segue_tfbytes *to, const void *bytes, size_t size)
{
	put_deflated(to, bytes, size, 15);
}

void segue_tfwrite_file(const char *path, const void *bytes, size_t size)
{
	FILE *file;

	unlink(path);
	file = fopen(path, "wbe");
	if (!file || (size && fwrite(bytes, 1, size, file) != size) || fclose(file) != 0)
		die(path);
}

struct segue_tfwriter *segue_tfwriter_open(const char *path, bool gzip)
{
	struct segue_tfwriter *writer = calloc(1, sizeof(*writer));

	if (!writer)
		die("calloc");
	unlink(path);
	if (gzip)
		writer->packed = gzopen(path, "wbe");
	else
		writer->plain = fopen(path, "wbe");
	if (!writer->packed && !writer->plain)
		die(path);
	return writer;
}

uint64_t segue_tfwriter_add(struct segue_tfwriter *writer, const struct segue_tffeature *contexts,
	size_t context_count, const struct segue_tffeature *sequences, size_t sequence_count)
{
	uint64_t offset = writer->offset;
	size_t size;

	writer->data.size = writer->record.size = 0;
	segue_tfwrite_example(&writer->data, contexts, context_count, sequences, sequence_count);
	segue_tfwrite_record(&writer->record, writer->data.bytes, writer->data.size);
	size = writer->record.size;
	if (writer->packed
			? gzwrite(writer->packed, writer->record.bytes, (unsigned)size) != (int)size
			: fwrite(writer->record.bytes, 1, size, writer->plain) != size)
		die("writing a record");
	writer->offset += size;
	return offset;
}

void segue_tfwriter_close(struct segue_tfwriter *writer)
{
	if (writer->packed ? gzclose(writer->packed) != Z_OK : fclose(writer->plain) != 0)
		die("closing a file of records");
	segue_tfbytes_free(&writer->data);
	segue_tfbytes_free(&writer->record);
	free(writer);
}

void segue_tfwrite_numbers(
	const char *path, uint64_t records, uint64_t (*steps_of)(uint64_t record))
{
	struct segue_tfwriter *writer = segue_tfwriter_open(path, false);
	int64_t values[100];

	for (uint64_t record = 0; record < records; record++) {
		uint64_t steps = steps_of(record);
		for (uint64_t i = 0; i < steps; i++)
			values[i] = (int64_t)(record * 100 + i);
		const struct segue_tffeature sequence = {.name = "x",
			.kind = SEGUE_TF_INT64,
			.steps = steps,
			.each = 1,
			.values = values};
		segue_tfwriter_add(writer, NULL, 0, &sequence, 1);
	}
	segue_tfwriter_close(writer);
}
