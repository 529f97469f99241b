/*
 * segue peek: TFRecord files, as they are or compressed by gzip or zlib, of tf.train.Example or
 * SequenceExample. No spec says what is in them.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

#include "cli/peek.h"
#include "core/crc32c.h"
#include "core/error.h"
#include "source/inflate.h"
#include "source/tfrecord/framing.h"
#include "source/tfrecord/message.h"

#define CHUNK      ((size_t)1 << 18)
#define RECORD_MAX ((uint64_t)1 << 30) /* bytes of a record that is looked into */

struct reader {
	struct segue_peek_found *found;
	int fd;
	bool packed;
	bool within; /* of what is compressed, not at the end of a member */
	z_stream stream;
	uint8_t *in;     /* CHUNK bytes of the file */
	uint64_t at;     /* in the file */
	uint64_t offset; /* in what it holds */
	uint8_t *record;
	size_t room;
	bool stepped; /* the record at hand has a sequence feature */
};

/* ---- Bytes ---- */

static int fail_read(void)
{
	return segue_fail_errno(SEGUE_ESOURCE, "cannot be read");
}

static int fill(struct reader *reader)
{
	ssize_t got = segue_read_at(reader->fd, reader->at, reader->in, CHUNK);

	if (got < 0)
		return fail_read();
	reader->stream.next_in = reader->in;
	reader->stream.avail_in = (unsigned)got;
	reader->at += (uint64_t)got;
	return 0;
}

static int inflate_some(struct reader *reader, uint8_t *bytes, size_t size, size_t *got)
{
	z_stream *stream = &reader->stream;

	stream->next_out = bytes;
	stream->avail_out = (unsigned)size;
	while (stream->avail_out > 0) {
		int rc = stream->avail_in == 0 ? fill(reader) : 0, end;

		if (rc)
			return rc;
		if (stream->avail_in == 0 && !reader->within)
			break;
		end = stream->avail_in == 0 ? Z_BUF_ERROR : inflate(stream, Z_NO_FLUSH);
		reader->within = end != Z_STREAM_END;
		/* Another member may follow. */
		if (end == Z_STREAM_END)
			end = inflateReset(stream);
		if (end != Z_OK)
			return segue_fail(SEGUE_EDATA, "what is compressed is damaged, or cut off");
	}
	*got = size - stream->avail_out;
	return 0;
}

/* Up to `size` bytes, at most 1 GiB; fewer at the end alone. */
static int take(struct reader *reader, void *bytes, size_t size, size_t *got)
{
	int rc = 0;

	if (reader->packed) {
		rc = inflate_some(reader, bytes, size, got);
	} else {
		ssize_t read = segue_read_at(reader->fd, reader->at, bytes, size);
		if (read < 0)
			return fail_read();
		*got = (size_t)read;
		reader->at += *got;
	}
	reader->offset += rc ? 0 : *got;
	return rc;
}

/* Room grows with what is there, not with what a length says. */
static int take_record(struct reader *reader, size_t size)
{
	size_t done = 0;

	while (done < size) {
		size_t part = size - done < 4 * CHUNK ? size - done : 4 * CHUNK, got;
		int rc;

		if (done + part > reader->room) {
			size_t room = 2 * (done + part);
			uint8_t *record = realloc(reader->record, room);
			if (!record)
				return segue_fail(SEGUE_ENOMEM, "no memory for a record");
			reader->record = record;
			reader->room = room;
		}
		rc = take(reader, reader->record + done, part, &got);
		if (rc)
			return rc;
		done += got;
		if (got < part)
			return segue_fail(SEGUE_EDATA, "the file ends within a record");
	}
	return 0;
}

/* ---- Messages ---- */

/* The bytes of field `number` of a message, one by one: 1; 0: no more; SEGUE_EDATA. */
static int next_of(struct segue_piece *message, uint64_t number, struct segue_piece *inner)
{
	while (message->at < message->end) {
		struct segue_part part = {0};
		int rc = segue_piece_take(message, &part);

		if (rc)
			return rc;
		if (part.number == number && part.wire == SEGUE_WIRE_BYTES) {
			*inner = part.inner;
			return 1;
		}
	}
	return 0;
}

/* How many values a list has, and how many bytes they are as they are read. */
static int count_values(
	enum segue_peek_values kind, struct segue_piece list, uint64_t *values, uint64_t *bytes)
{
	const unsigned width = kind == SEGUE_PEEK_FLOAT ? 4 : 8;
	uint64_t packed = *values;

	while (list.at < list.end) {
		struct segue_part part = {0};
		int rc = segue_piece_take(&list, &part);

		if (rc)
			return rc;
		if (part.number != 1)
			continue;
		if (part.wire != SEGUE_WIRE_BYTES || kind == SEGUE_PEEK_BYTES) {
			*values += 1;
			*bytes += kind == SEGUE_PEEK_BYTES ? segue_piece_size(&part.inner) : 0;
		} else if (kind == SEGUE_PEEK_FLOAT) {
			*values += segue_piece_size(&part.inner) / 4;
		} else {
			const uint8_t *at = segue_piece_bytes(&part.inner);
			for (uint64_t i = 0; i < segue_piece_size(&part.inner); i++)
				*values += at[i] < 128;
		}
	}
	if (kind != SEGUE_PEEK_BYTES)
		*bytes += (*values - packed) * width;
	return 0;
}

/* A Feature: one list, of one of three kinds. */
static int take_feature(struct segue_peek_feature *feature, struct segue_piece message)
{
	enum segue_peek_values kind = SEGUE_PEEK_NONE;
	uint64_t values = 0, bytes = 0;

	while (message.at < message.end) {
		struct segue_part part = {0};
		int rc = segue_piece_take(&message, &part);

		if (!rc && part.wire == SEGUE_WIRE_BYTES && part.number >= SEGUE_PEEK_BYTES &&
			part.number <= SEGUE_PEEK_INT64) {
			kind = (enum segue_peek_values)part.number;
			rc = count_values(kind, part.inner, &values, &bytes);
		}
		if (rc)
			return rc;
	}
	if (!feature)
		return 0;
	feature->kinds |= 1u << kind;
	feature->values += values;
	feature->bytes += bytes;
	feature->least = values < feature->least ? values : feature->least;
	feature->most = values > feature->most ? values : feature->most;
	return 0;
}

/* An entry of a map: its name, and the value that counts, the last. */
static int take_entry(
	struct segue_piece entry, struct segue_piece *name, struct segue_piece *value, bool *has)
{
	*has = false;
	*name = *value = (struct segue_piece){entry.window, 0, 0};
	while (entry.at < entry.end) {
		struct segue_part part = {0};
		int rc = segue_piece_take(&entry, &part);

		if (rc)
			return rc;
		if (part.wire != SEGUE_WIRE_BYTES)
			continue;
		if (part.number == 1)
			*name = part.inner;
		if (part.number == 2) {
			*value = part.inner;
			*has = true;
		}
	}
	return 0;
}

static int take_list(struct segue_peek_feature *feature, struct segue_piece list, uint64_t *steps)
{
	struct segue_piece step;
	int rc;

	*steps = 0;
	while ((rc = next_of(&list, 1, &step)) == 1) {
		rc = take_feature(feature, step);
		if (rc)
			return rc;
		*steps += 1;
	}
	return rc;
}

/* Features, or FeatureLists: a map. Of lists, *steps is the most, and *differ is set. */
static int take_map(struct reader *reader, struct segue_piece map, enum segue_seqfile_place place,
	uint64_t *steps, bool *differ)
{
	struct segue_piece entry, name, value;
	int rc;

	while ((rc = next_of(&map, 1, &entry)) == 1) {
		struct segue_peek_feature *feature;
		uint64_t count = 0, before;
		bool has;

		rc = take_entry(entry, &name, &value, &has);
		if (rc)
			return rc;
		feature = segue_peek_feature(reader->found, place, segue_piece_bytes(&name),
			(size_t)segue_piece_size(&name));
		if (feature)
			feature->records++;
		if (place == SEGUE_SEQFILE_CONTEXT) {
			before = feature ? feature->values : 0;
			rc = has ? take_feature(feature, value) : 0;
			if (!rc && feature)
				segue_peek_count(reader->found, feature, feature->values - before);
		} else {
			rc = take_list(feature, value, &count);
			*differ = *differ || (reader->stepped && count != *steps);
			*steps = count > *steps ? count : *steps;
			reader->stepped = true;
		}
		if (rc)
			return rc;
	}
	return rc;
}

/* One record, whole in memory: both messages have their Features in field 1. */
static int take_example(struct reader *reader, size_t size)
{
	struct segue_window window = {
		.bytes = reader->record, .capacity = size, .start = 0, .end = size};
	struct segue_piece message = {&window, 0, size};
	uint64_t steps = 0;
	bool differ = false;

	reader->found->records++;
	reader->stepped = false;
	while (message.at < message.end) {
		struct segue_part part = {0};
		int rc = segue_piece_take(&message, &part);

		if (!rc && part.wire == SEGUE_WIRE_BYTES && (part.number == 1 || part.number == 2))
			rc = take_map(reader, part.inner,
				part.number == 1 ? SEGUE_SEQFILE_CONTEXT : SEGUE_SEQFILE_SEQUENCE,
				&steps, &differ);
		if (rc)
			return rc;
	}
	reader->found->sequences_differ += differ;
	reader->found->flat += !reader->stepped;
	segue_peek_length(reader->found, steps);
	return 0;
}

/* ---- Records ---- */

static void note_key(struct reader *reader, uint64_t offset)
{
	const char *path = segue_peek_file(reader->found)->path, *slash = strrchr(path, '/');
	char key[SEGUE_DETAIL_MAX];
	int size = snprintf(key, sizeof(key), "%s:%" PRIu64, slash ? slash + 1 : path, offset);

	if (size > 0 && (size_t)size < sizeof(key))
		segue_peek_key(reader->found, key, (size_t)size);
}

/* The header; 0 bytes of *length with *end: the file ends here. */
static int take_header(struct reader *reader, uint64_t *length, bool *end)
{
	uint8_t header[SEGUE_TFRECORD_HEADER];
	size_t got;
	int rc = take(reader, header, sizeof(header), &got);

	if (rc)
		return rc;
	*end = got == 0;
	if (*end)
		return 0;
	if (got < sizeof(header))
		return segue_fail(SEGUE_EDATA, "the file ends within a record");
	if (!segue_tfrecord_length(header, length))
		return segue_fail(SEGUE_EDATA, "the checksum of its length is wrong");
	if (*length > RECORD_MAX)
		return segue_fail(SEGUE_EDATA,
			"it has %" PRIu64 " bytes, and one of more than 1 GiB is not looked into",
			*length);
	return 0;
}

/* A record that is damaged is counted, and the next looked at. */
static int take_one(struct reader *reader, bool *end)
{
	uint64_t offset = reader->offset, length = 0;
	uint32_t crc;
	int rc = take_header(reader, &length, end);

	if (!rc && !*end)
		rc = take_record(reader, (size_t)length + SEGUE_TFRECORD_FOOTER);
	if (rc) {
		segue_fail_within(rc, "record at byte %" PRIu64, offset);
		return rc;
	}
	if (*end)
		return 0;
	memcpy(&crc, reader->record + length, sizeof(crc));
	if (crc != segue_crc32c_mask(segue_crc32c(0, reader->record, (size_t)length)))
		rc = segue_fail(SEGUE_EDATA, "the checksum of its data is wrong");
	if (!rc)
		rc = take_example(reader, (size_t)length);
	if (rc) {
		segue_fail_within(rc, "record at byte %" PRIu64, offset);
		segue_peek_trouble(reader->found);
		segue_peek_file(reader->found)->damaged++;
	} else {
		note_key(reader, offset);
	}
	return 0;
}

static int take_records(struct reader *reader)
{
	struct segue_peek_file *file = segue_peek_file(reader->found);
	uint64_t looked = 0;
	bool end = false;

	while (!end && (reader->found->every || looked < SEGUE_PEEK_RECORDS)) {
		int rc = take_one(reader, &end);

		if (rc)
			return rc;
		looked++;
		segue_cli_show_progress(
			reader->found->progress, file->path, reader->at, file->bytes);
	}
	file->all = end || (!reader->packed && reader->at == file->bytes);
	return 0;
}

static int begin(struct reader *reader)
{
	uint8_t first[SEGUE_TFRECORD_HEADER];
	ssize_t got = segue_read_at(reader->fd, 0, first, sizeof(first));
	const struct segue_packing *packing;

	if (got < 0)
		return fail_read();
	packing = segue_packing_of(first, (size_t)got);
	if (!packing || segue_tfrecord_format.begins(first, (size_t)got))
		return 0;
	segue_peek_file(reader->found)->packed = packing->name;
	/* 32: gzip's format, or zlib's. */
	if (inflateInit2(&reader->stream, 15 + 32) != Z_OK)
		return segue_fail(SEGUE_ENOMEM, "no memory to inflate a file");
	reader->packed = true;
	return 0;
}

int segue_peek_tfrecord(struct segue_peek_found *found, int fd)
{
	struct reader reader = {.found = found, .fd = fd, .in = segue_cli_need(malloc(CHUNK))};
	int rc = begin(&reader);

	if (!rc)
		rc = take_records(&reader);
	if (rc && rc != SEGUE_ENOMEM) {
		segue_peek_trouble(found);
		rc = 0;
	}
	if (reader.packed)
		inflateEnd(&reader.stream);
	free(reader.in);
	free(reader.record);
	return rc;
}
