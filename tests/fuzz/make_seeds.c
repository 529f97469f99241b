/*
 * Writes the first inputs of fuzz_example and fuzz_tfrecord: what lies in corpus/ was made so.
 *
 *	make_seeds DIR		makes DIR/example/<n> and DIR/tfrecord/<n>, in directories that exist
 */
#include "tfwrite.h"

#include <stdio.h>
#include <string.h>

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

int main(int argc, char **argv)
{
	static const uint8_t choices[] = {6, 7, 8, 9, 10, 11, 0x66, 0x2c, 0xe7, 22};
	struct segue_tfbytes stream = {0};

	if (argc != 2) {
		fprintf(stderr, "usage: make_seeds DIR\n");
		return 2;
	}
	for (int i = 0; i < 10; i++) {
		struct segue_tfbytes bytes = {0};

		segue_tfbytes_put(&bytes, &choices[i], 1);
		put_example(&bytes, choices[i], (enum segue_tfform)(i % 3));
		save(argv[1], "example", i, &bytes);
		segue_tfwrite_record(&stream, bytes.bytes, (size_t)i);
		segue_tfbytes_free(&bytes);
		if (i % 4 == 0)
			save(argv[1], "tfrecord", i, &stream);
	}
	segue_tfbytes_free(&stream);
	return 0;
}
