/*
 * Writes the first inputs of the fuzz targets (those of fuzz_frame and fuzz_wire are made by
 * make_wire_seeds.py): what lies in corpus/ was made so.
 *
 *	make_seeds DIR		makes DIR/<target>/<n>, in directories that exist
 */
#include "tfwrite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "records.h"

static const float floats[] = {1, -2, 0.5f, 0, 3, 4, 5, 6};
static const int64_t integers[] = {0, 1, 1, 0};

static void save(const char *dir, const char *name, int number, const struct segue_tfbytes *bytes)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/%s/%d", dir, name, number);
	segue_tfwrite_file(path, bytes->bytes, bytes->size);
}

/* Features as the spec that `choice` picks in fuzz_example.c has them. */
static void put_example(struct segue_tfbytes *to, uint8_t choice, enum segue_tfform form)
{
	bool is_float = choice % 6 < 2, c_float = choice % 5 < 2;
	enum segue_tfkind kind = is_float ? SEGUE_TF_FLOAT : SEGUE_TF_INT64;
	struct segue_tffeature contexts[] = {
		{"c", c_float ? SEGUE_TF_FLOAT : SEGUE_TF_INT64, form, 1, 1,
			c_float ? (const void *)floats : integers},
		{"k", SEGUE_TF_BYTES, form, 1, 3, "key"}};
	struct segue_tffeature sequences[] = {
		{"x", kind, form, 4, choice / 6 % 3, is_float ? (const void *)floats : integers},
		{"y", SEGUE_TF_INT64, form, 4, 1, integers}};
	bool context = choice & 0x20, key = choice % 11 == 0;

	segue_tfwrite_example(
		to, contexts + !context, (size_t)context + key, sequences, choice & 0x40 ? 2 : 1);
}

static void save_bytes(const char *dir, const char *name, int number, uint8_t choice,
	const void *bytes, size_t size)
{
	struct segue_tfbytes all = {0};

	segue_tfbytes_put(&all, &choice, 1);
	segue_tfbytes_put(&all, bytes, size);
	save(dir, name, number, &all);
	segue_tfbytes_free(&all);
}

static void save_text(const char *dir, int number, const char *text)
{
	save_bytes(dir, "config", number, (uint8_t)text[0], text + 1, strlen(text + 1));
}

/* ---- Examples and their files --------------------------------------------------------------- */

static void make_examples(const char *dir)
{
	static const uint8_t choices[] = {6, 7, 8, 9, 10, 11, 0x66, 0x2c, 0xe7, 22};
	struct segue_tfbytes stream = {0}, packed = {0};

	for (int i = 0; i < 10; i++) {
		struct segue_tfbytes bytes = {0};

		segue_tfbytes_put(&bytes, &choices[i], 1);
		put_example(&bytes, choices[i], (enum segue_tfform)(i % 3));
		save(dir, "example", i, &bytes);
		segue_tfwrite_record(&stream, bytes.bytes, (size_t)i);
		segue_tfbytes_free(&bytes);
		if (i % 4 == 0)
			save(dir, "tfrecord", i, &stream);
		if (i % 3 == 0) { /* the last ones of several members */
			segue_tfwrite_gzip(&packed, stream.bytes, stream.size);
			save(dir, "gzip", i, &packed);
		}
	}
	segue_tfbytes_free(&stream);
	segue_tfbytes_free(&packed);
}

/* ---- What is stored ------------------------------------------------------------------------- */

static struct segue_image *make_image(uint32_t rows)
{
	struct segue_image *image = segue_image_create(4, rows, 16);

	image->position->step = rows ? 3 : 0;
	image->position->next = rows;
	for (uint32_t row = 0; row < rows; row++)
		image->position->row[row] = (struct segue_plan_row){
			.number = 2 * row + 1, .array_steps = 9, .total_length = 9, .segment = 1};
	return image;
}

static void make_tokens(const char *dir)
{
	for (uint32_t rows = 0; rows <= 4; rows += 2) {
		struct segue_image *image = make_image(rows);
		const struct segue_token_record head = {
			.stream = "train", .lanes = 2, .lane = 1, .batch_size = 4, .row_size = 16};
		void *bytes;
		size_t size;

		if (segue_token_encode(&head, image, &bytes, &size) == 0) {
			save_bytes(dir, "token", (int)rows, 0, bytes, size);
			/* The target makes the checksum. */
			save_bytes(dir, "token", (int)rows + 1, 3, bytes, size - 16);
			free(bytes);
		}
		segue_image_destroy(image);
	}
}

static void make_values(const char *dir)
{
	static const char row[] = "\x04\x03\0\0\0keyabcd";
	struct segue_image *image = make_image(4);
	const struct segue_lane_record lane = {.generation = 7, .position = image->position};
	void *bytes;
	size_t size;

	if (segue_lane_record_pack(&lane, &bytes, &size) == 0) {
		save_bytes(dir, "value", 0, 0, bytes, size);
		free(bytes);
	}
	save_bytes(dir, "value", 1, 2, row, sizeof(row) - 1);
	segue_image_destroy(image);
}

/* ---- What people write ---------------------------------------------------------------------- */

static void make_texts(const char *dir)
{
	/* First byte: which kind; of a command line the second says what it takes. */
	save_text(dir, 0, "0?runs/exp1\nkey\n--json");
	save_text(dir, 1, "0O--stream=train\n--socket\n/x\nruns");
	save_text(dir, 2, "0?--help");
	save_text(
		dir, 3, "1{\"n\": 12, \"b\": true, \"list\": [1.5e3, null, \"a\\u00e9\\udc80\"]}");
	save_text(dir, 4, "2\1\1\1\1\2\1\1\1\1\1\1\1\1");
}

static void make_segments(const char *dir)
{
	/* take, look, save, commit, release; then with something spoilt in between */
	static const uint8_t honest[] = {
		255, 1, 0, 0x08, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0x08, 0x1b, 0x0c, 0x0d, 0x0e, 0x1f};
	static const uint8_t spoilt[] = {255, 1, 0, 0x08, 0x09, 0, 1, 0x52, 12, 9, 0x0b, 0x0c, 0x09,
		0, 0, 0x32, 9, 0x0d, 0x0e, 0x0f, 0x08, 0x1b, 0x0c};

	save_bytes(dir, "segment", 0, honest[0], honest + 1, sizeof(honest) - 1);
	save_bytes(dir, "segment", 1, spoilt[0], spoilt + 1, sizeof(spoilt) - 1);
	save_bytes(dir, "segment", 2, 0, "\3\1", 2);
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: make_seeds DIR\n");
		return 2;
	}
	make_examples(argv[1]);
	make_tokens(argv[1]);
	make_values(argv[1]);
	make_texts(argv[1]);
	make_segments(argv[1]);
	return 0;
}
