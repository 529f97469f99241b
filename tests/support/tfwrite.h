/*
 * Writes TFRecord files of SequenceExample for tests and benchmarks.
 *
 * Shares no code with the server that reads them: wire format and CRC are its own, plain and slow.
 * A fault here (no memory, no file) prints and aborts.
 */
#ifndef SEGUE_TEST_TFWRITE_H
#define SEGUE_TEST_TFWRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes that grow. */
struct segue_tfbytes {
	uint8_t *bytes;
	size_t size, capacity;
};

void segue_tfbytes_free(struct segue_tfbytes *to);
void segue_tfbytes_put(struct segue_tfbytes *to, const void *bytes, size_t size);
void segue_tfbytes_varint(struct segue_tfbytes *to, uint64_t value);
/* A field that holds bytes: tag, length, bytes. */
void segue_tfbytes_field(struct segue_tfbytes *to, uint32_t number, const void *bytes, size_t size);

enum segue_tfkind { SEGUE_TF_BYTES = 1, SEGUE_TF_FLOAT = 2, SEGUE_TF_INT64 = 3 };

enum segue_tfform {
	SEGUE_TF_PACKED,
	SEGUE_TF_UNPACKED,
	SEGUE_TF_MIXED, /* some packed runs, some single values, at random (random()) */
};

/*
 * A feature: `steps` times `each` values from `values`: float, int64_t, or for bytes
 * `each` bytes that are one value. In a context there is one step.
 */
struct segue_tffeature {
	const char *name;
	enum segue_tfkind kind;
	enum segue_tfform form;
	size_t steps, each;
	const void *values;
};

/* The Feature message of one step. */
void segue_tfwrite_feature(
	struct segue_tfbytes *to, const struct segue_tffeature *feature, size_t step);
/* A SequenceExample. */
void segue_tfwrite_example(struct segue_tfbytes *to, const struct segue_tffeature *contexts,
	size_t context_count, const struct segue_tffeature *sequences, size_t sequence_count);
/* A record: header, data, footer. */
void segue_tfwrite_record(struct segue_tfbytes *to, const void *data, size_t size);
/* CRC32C as TFRecord stores it. */
uint32_t segue_tfwrite_crc(const void *bytes, size_t size);

/* Appends what gzip, or zlib, makes of the bytes: one member. */
void segue_tfwrite_gzip(struct segue_tfbytes *to, const void *bytes, size_t size);
void segue_tfwrite_zlib(struct segue_tfbytes *to, const void *bytes, size_t size);
/* Makes a file of these bytes; what was there is gone (another file, not another content). */
void segue_tfwrite_file(const char *path, const void *bytes, size_t size);

/* A file that is written record by record. */
struct segue_tfwriter;
struct segue_tfwriter *segue_tfwriter_open(const char *path, bool gzip);
/* Adds a SequenceExample; returns the offset of its record in the uncompressed stream. */
uint64_t segue_tfwriter_add(struct segue_tfwriter *writer, const struct segue_tffeature *contexts,
	size_t context_count, const struct segue_tffeature *sequences, size_t sequence_count);
void segue_tfwriter_close(struct segue_tfwriter *writer);

/*
 * A whole file of records with one int64 sequence feature, "x": step i of record r is 100 r + i.
 * `steps_of` says how many steps a record has: up to 100.
 */
void segue_tfwrite_numbers(
	const char *path, uint64_t records, uint64_t (*steps_of)(uint64_t record));

#endif
