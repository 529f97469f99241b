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

#include "logwork.h"
#include "tmpdir.h"
#include "core/array_index.h"
#include "core/layout.h"
#include "core/sequence_file.h"
#include "store/token.h"
#include "draft.h"

static const float floats[] = {1, -2, 0.5f, 0, 3, 4, 5, 6, 7, 8, -9, 10};
static const int64_t integers[] = {0, 1, 1, 0, 1, 0, 0, 1, 1, 1, 0, 0};

static void save(const char *dir, const char *name, int number, const struct segue_tfbytes *bytes)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/%s/%d", dir, name, number);
	segue_tfwrite_file(path, bytes->bytes, bytes->size);
}

enum { DTYPES = 13 };

/* Of a type's place in fuzz_example.c. */
static bool holds_floats(unsigned place)
{
	return place < 2 || place == 6 || place == 7;
}

/* Features as the spec that `choice` picks in fuzz_example.c has them. */
static void put_example(struct segue_tfbytes *to, uint8_t choice, enum segue_tfform form)
{
	bool is_float = holds_floats(choice % DTYPES), c_float = holds_floats(choice / 3 % DTYPES);
	enum segue_tfkind kind = is_float ? SEGUE_TF_FLOAT : SEGUE_TF_INT64;
	struct segue_tffeature contexts[] = {
		{"c", c_float ? SEGUE_TF_FLOAT : SEGUE_TF_INT64, form, 1, 1,
			c_float ? (const void *)floats : integers},
		{"k", SEGUE_TF_BYTES, form, 1, 3, "key"}};
	struct segue_tffeature sequences[] = {{"x", kind, form, 4, choice / DTYPES % 3,
						      is_float ? (const void *)floats : integers},
		{"y", SEGUE_TF_INT64, form, 4, 1, integers}};
	bool context = choice & 0x20, key = choice % 11 == 0;

	segue_tfwrite_example(
		to, contexts + !context, (size_t)context + key, sequences, choice & 0x40 ? 2 : 1);
}

/* The same as an Example; every third time x is raw bytes. */
static void put_plain_example(struct segue_tfbytes *to, uint8_t choice, enum segue_tfform form)
{
	bool is_float = holds_floats(choice % DTYPES), c_float = holds_floats(choice / 3 % DTYPES);
	enum segue_tfkind kind = is_float ? SEGUE_TF_FLOAT : SEGUE_TF_INT64;
	size_t each = 4 * (choice / DTYPES % 3 + 1u);
	struct segue_tffeature features[4] = {
		{"x", kind, form, 1, each, is_float ? (const void *)floats : integers}};
	size_t count = 1;

	if (choice % 3 == 0)
		features[0] =
			(struct segue_tffeature){"x", SEGUE_TF_BYTES, form, 1, 2 * each, integers};
	if (choice & 0x40)
		features[count++] =
			(struct segue_tffeature){"y", SEGUE_TF_INT64, form, 1, 4, integers};
	if (choice & 0x20)
		features[count++] =
			(struct segue_tffeature){"c", c_float ? SEGUE_TF_FLOAT : SEGUE_TF_INT64,
				form, 1, 1, c_float ? (const void *)floats : integers};
	if (choice % 11 == 0)
		features[count++] =
			(struct segue_tffeature){"k", SEGUE_TF_BYTES, form, 1, 3, "key"};
	segue_tfwrite_example(to, features, count, NULL, 0);
}

/* Features that are not dense, as that spec has them: x, y of bytes, c. */
static void put_variable(
	struct segue_tfbytes *to, uint8_t choice, enum segue_tfform form, bool plain)
{
	bool is_float = holds_floats(choice % DTYPES), ragged = choice % 2 && !plain;
	bool c_float = holds_floats(choice / 3 % DTYPES);
	struct segue_tffeature contexts[] = {
		choice % 2
			? (struct segue_tffeature){"c", SEGUE_TF_BYTES, form, 1, 5, "words"}
			: (struct segue_tffeature){"c", c_float ? SEGUE_TF_FLOAT : SEGUE_TF_INT64,
				  form, 1, 7, c_float ? (const void *)floats : integers},
		{"k", SEGUE_TF_BYTES, form, 1, 3, "key"}};
	struct segue_tffeature sequences[] = {
		{"x", SEGUE_TF_BYTES, form, plain ? 1 : 3, 4, integers},
		{"y", SEGUE_TF_BYTES, form, plain ? 1 : 3, 2, "sixtyn"}};
	bool context = choice & 0x20, key = choice % 11 == 0;
	size_t count = choice & 0x40 ? 2 : 1;

	if (ragged)
		sequences[0] =
			(struct segue_tffeature){"x", is_float ? SEGUE_TF_FLOAT : SEGUE_TF_INT64,
				form, 3, 4, is_float ? (const void *)floats : integers};
	if (plain) {
		segue_tfwrite_example(to, sequences, count, NULL, 0);
		segue_tfwrite_example(to, contexts + !context, (size_t)context + key, NULL, 0);
	} else {
		segue_tfwrite_example(
			to, contexts + !context, (size_t)context + key, sequences, count);
	}
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
	/* All types, one or two values a step, all flags. */
	static const uint8_t choices[] = {
		13, 53, 67, 107, 134, 187, 214, 254, 21, 61, 75, 115, 142, 235};
	struct segue_tfbytes stream = {0}, packed = {0}, zlib = {0};

	for (int i = 0; i < (int)sizeof(choices); i++) {
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
			segue_tfwrite_zlib(&zlib, stream.bytes, stream.size);
			save(dir, "zlib", i, &zlib);
		}
	}
	segue_tfbytes_free(&stream);
	segue_tfbytes_free(&packed);
	segue_tfbytes_free(&zlib);
	for (int i = 0; i < (int)sizeof(choices); i++) {
		struct segue_tfbytes bytes = {0};

		segue_tfbytes_put(&bytes, &choices[i], 1);
		put_plain_example(&bytes, choices[i], (enum segue_tfform)(i % 3));
		save(dir, "plain_example", i, &bytes);
		segue_tfbytes_free(&bytes);
	}
	for (int i = 0; i < 2 * (int)sizeof(choices); i++) {
		const uint8_t head[] = {choices[i / 2], 0};
		struct segue_tfbytes bytes = {0};

		segue_tfbytes_put(&bytes, head, sizeof(head));
		put_variable(&bytes, head[0], (enum segue_tfform)(i / 2 % 3), i % 2);
		save(dir, i % 2 ? "plain_example" : "example", 20 + i / 2, &bytes);
		segue_tfbytes_free(&bytes);
	}
}

/* ---- What is stored ------------------------------------------------------------------------- */

static struct segue_image *make_image(uint32_t rows)
{
	const struct segue_plan_spec plan = {.num_unroll = 5};
	struct segue_position *position = calloc(1, segue_position_size(rows));

	position->step = rows ? 3 : 0;
	position->next = position->rows = rows;
	for (uint32_t row = 0; row < rows; row++)
		position->row[row] = (struct segue_plan_row){
			.number = 2 * row + 1, .array_steps = 9, .total_length = 9, .segment = 1};
	struct segue_image *image = segue_image_create(&plan, position, 16);
	free(position);
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
	save_text(dir, 5, "0p--lane=4095\n--map-size\n64\n--root\n/x\n--max-lanes=3\nruns\nkey");
	save_text(dir, 6,
		"1{\"n\": [[[{\"x\": 1e999}], 99999999999999999999], \"\\u001b\\\\\"], \"\": -0}");
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

/* ---- Sequence files ------------------------------------------------------------------------ */

/* A file of two fields, a state and two sequences, at `path`. */
static void write_sequences(const char *path)
{
	static const struct segue_feature x = {
		.name = "x", .dtype = SEGUE_FLOAT32, .rank = 1, .dims = {2}};
	static const struct segue_feature c = {.name = "c", .dtype = SEGUE_UINT8};
	static const struct segue_state h = {.name = "h", .dtype = SEGUE_INT64};
	const struct segue_draft draft = {.sequences = &x,
		.sequence_count = 1,
		.contexts = &c,
		.context_count = 1,
		.states = &h,
		.state_count = 1};
	const void *const arrays[] = {floats, "c", integers};
	struct segue_sequence sequence = {.size = sizeof(sequence), .steps = 4, .arrays = arrays};
	struct segue_file_writer *writer;
	struct segue_spec *spec;

	if (segue_draft_tell(&draft, &spec) || segue_file_writer_create(path, spec, &writer) ||
		segue_file_writer_add(writer, &sequence))
		abort();
	segue_spec_destroy(spec);
	sequence.steps = 1;
	sequence.has_total_length = true;
	sequence.key = "key";
	sequence.key_size = 3;
	if (segue_file_writer_add(writer, &sequence) || segue_file_writer_close(writer))
		abort();
	segue_file_writer_destroy(writer);
}

/* One sequence that has ragged values and bytes. */
static void write_variable(const char *path)
{
	static const struct segue_feature sequences[] = {
		{.name = "w", .dtype = SEGUE_INT16, .form = SEGUE_FORM_RAGGED}};
	static const struct segue_feature context = {
		.name = "t", .dtype = SEGUE_UINT8, .form = SEGUE_FORM_BYTES};
	const struct segue_draft draft = {.sequences = sequences,
		.sequence_count = 1,
		.contexts = &context,
		.context_count = 1};
	static const int16_t w[] = {1, -2, 3};
	const void *arrays[] = {w, "text"};
	const int64_t w_offsets[] = {0, 2, 2, 3}, t_offsets[] = {0, 4};
	const int64_t *const offsets[] = {w_offsets, t_offsets};
	struct segue_sequence sequence = {
		.size = sizeof(sequence), .steps = 3, .arrays = arrays, .offsets = offsets};
	struct segue_file_writer *writer;
	struct segue_spec *spec;

	if (segue_draft_tell(&draft, &spec) || segue_file_writer_create(path, spec, &writer) ||
		segue_file_writer_add(writer, &sequence) || segue_file_writer_close(writer))
		abort();
	segue_spec_destroy(spec);
	segue_file_writer_destroy(writer);
}

/* Of the heads that fuzz_sequence_file.c has for entries. */
static void save_entry(
	const char *dir, int number, bool variable, const struct segue_seqlog_stamp *stamp)
{
	struct segue_seqfile_field fields[] = {
		{.name = "x", .dtype = SEGUE_FLOAT32, .rank = 1, .dims = {3}},
		{.name = "c", .place = SEGUE_SEQFILE_CONTEXT, .dtype = SEGUE_UINT8},
		{.name = "large", .dtype = SEGUE_UINT8, .rank = 1, .dims = {UINT64_C(1) << 32}},
		{.name = "w", .dtype = SEGUE_INT64, .form = SEGUE_FORM_RAGGED},
		{.name = "t",
			.place = SEGUE_SEQFILE_CONTEXT,
			.dtype = SEGUE_UINT8,
			.form = SEGUE_FORM_BYTES},
	};
	static const uint64_t counts[] = {7, 300};
	struct segue_seqfile_head head = {.fields = fields, .count = variable ? 5 : 3};
	struct segue_seqfile_entry entry = {.steps = 2,
		.total_length = 1,
		.key = "key",
		.key_size = 3,
		.counts = (const uint8_t *)counts,
		.stamp = *stamp};
	uint8_t bytes[SEGUE_SEQFILE_ENTRY_MAX];
	uint64_t columns[5];

	if (segue_seqfile_check_fields(&head) || segue_seqfile_lay_out(&head, &entry, columns))
		abort();
	segue_seqfile_pack_entry(&entry, bytes);
	save_bytes(dir, "sequence_file", number,
		(uint8_t)(1 + 4 + (variable ? 8 : 0) + (stamp->producer_size ? 16 : 0)), bytes,
		entry.header_size);
}

static void save_log_head(const char *dir, int number, const struct segue_seqlog_stamp *stamp)
{
	struct segue_seqfile_field field = {.name = "x", .dtype = SEGUE_FLOAT32};
	struct segue_seqlog log = {.first = 9};
	struct segue_seqfile_head head = {.fields = &field, .count = 1, .log = &log};
	uint8_t bytes[4096];

	if (segue_seqlog_note(&log, stamp) || segue_seqfile_check_fields(&head))
		abort();
	segue_seqfile_pack_head(&head, bytes);
	save_bytes(dir, "sequence_file", number, 4, bytes, head.size);
	segue_seqlog_finish(&log);
}

/* The bytes of a file of up to 4,096 that `write` makes. */
static size_t take_file(const char *dir, void (*write)(const char *path), uint8_t *bytes)
{
	char path[4096];
	FILE *file;
	size_t size;

	snprintf(path, sizeof(path), "%s/sequence_file/new", dir);
	write(path);
	file = fopen(path, "rbe");
	if (!file)
		abort();
	size = fread(bytes, 1, 4096, file);
	fclose(file);
	remove(path);
	return size;
}

/* The first byte says what it is a seed of (fuzz_sequence_file.c), with 4: make the checksums. */
static void make_sequence_files(const char *dir)
{
	static const struct segue_seqlog_stamp none, some = {.number = 7,
							     .serial = 3,
							     .producer = "p",
							     .producer_size = 1,
							     .cursor = (const uint8_t *)"cursor",
							     .cursor_size = 6};
	struct segue_seqfile_foot foot = {
		.entries = 1, .index = 192, .steps = 7, .key_max = 1, .head_size = 64};
	uint8_t bytes[4096], sized_foot[8 + SEGUE_SEQFILE_FOOT] = {0};
	size_t size = take_file(dir, write_sequences, bytes), head = bytes[12];

	save_bytes(dir, "sequence_file", 0, 3, bytes, size);
	save_bytes(dir, "sequence_file", 1, 3 + 4, bytes, size);
	save_bytes(dir, "sequence_file", 2, 4, bytes, head);
	save_entry(dir, 3, false, &none);
	sized_foot[0] = (192 + 64 + 128) % 256;
	sized_foot[1] = (192 + 64 + 128) / 256;
	segue_seqfile_pack_foot(&foot, sized_foot + 8);
	save_bytes(dir, "sequence_file", 4, 2 + 4, sized_foot, sizeof(sized_foot));
	size = take_file(dir, write_variable, bytes);
	save_bytes(dir, "sequence_file", 5, 3 + 4, bytes, size);
	save_entry(dir, 6, true, &none);
	save_entry(dir, 7, true, &some);
	save_log_head(dir, 8, &some);
}

/* A log of some sequences, open and finished: fuzz_log.c. */
static void make_logs(const char *dir)
{
	static uint8_t bytes[65536];
	char path[4096], name[4200];
	struct segue_log *log;
	uint64_t number;

	snprintf(path, sizeof(path), "%s/log/new", dir);
	const struct segue_log_means means = {
		.dir = path, .fields = segue_logwork_fields, .count = SEGUE_LOGWORK_FIELDS};
	if (segue_log_create(&means, (const uint8_t *)"fuzz-log-0123456", &log))
		abort();
	snprintf(name, sizeof(name), "%s/%020d.segue", path, 0);
	for (uint64_t n = 0; n < 2; n++) {
		const struct segue_logwork work = {
			.what = n, .serial = n + 1, .producer = "p", .steps = 3};

		if (segue_logwork_append(log, &work, &number))
			abort();
	}
	for (int finished = 0; finished < 2; finished++) {
		if (finished && segue_log_finish(log))
			abort();
		FILE *file = fopen(name, "rbe");
		size_t size = file ? fread(bytes, 1, sizeof(bytes), file) : 0;
		if (!file || size == sizeof(bytes))
			abort();
		fclose(file);
		save_bytes(dir, "log", 2 * finished, 0, bytes, size);
		save_bytes(dir, "log", 2 * finished + 1, 1, bytes, size);
	}
	segue_log_close(log);
	segue_tmpdir_remove_path(path);
}

/* One group with keys and context; two groups without. */
static void make_array_indexes(const char *dir)
{
	const struct segue_array_column columns[] = {{.rank = 1, .dims = {3}}, {.context = 1}};
	const struct segue_array arrays[] = {
		{.size = sizeof(struct segue_array), .offset = 128, .dtype = SEGUE_FLOAT32},
		{.size = sizeof(struct segue_array),
			.file = 1,
			.dtype = SEGUE_INT64,
			.stride = 16,
			.big_endian = true},
	};
	const struct segue_array_sequence sequences[] = {{0, 0, 4}, {4, 0, 6}};
	struct segue_arrays asked = {.group_steps = (uint64_t[]){10},
		.group_count = 1,
		.arrays = arrays,
		.sequences = sequences,
		.sequence_count = 2,
		.keys = "abb",
		.key_ends = (uint64_t[]){1, 3}};
	struct segue_array_index *index;

	if (segue_array_index_pack(&asked, 2, columns, 2, &index))
		abort();
	save_bytes(dir, "array_index", 0, index->bytes[0], index->bytes + 1, index->size - 1);
	segue_array_index_drop(index);
	asked.group_steps = (uint64_t[]){4, 7};
	asked.group_count = 2;
	asked.sequences = (struct segue_array_sequence[]){{0, 0, 4}, {0, 1, 7}};
	asked.key_ends = NULL;
	if (segue_array_index_pack(&asked, 2, columns, 1, &index))
		abort();
	save_bytes(dir, "array_index", 1, index->bytes[0], index->bytes + 1, index->size - 1);
	segue_array_index_drop(index);
}

/* ---- What a client says --------------------------------------------------------------------- */

#define PLACE "/segue-fuzz-data/segue-fuzz-data/segue-fuzz-data/segue-fuzz-data"

static struct segue_tfbytes talk;

static void put_byte(uint8_t byte)
{
	segue_tfbytes_put(&talk, &byte, 1);
}

static void put_message(uint8_t client, const struct segue_message *message)
{
	static uint8_t bytes[SEGUE_FRAME_MAX];
	size_t size;

	if (segue_message_pack(message, bytes, &size))
		abort();
	put_byte((uint8_t)(client << 7));
	put_byte((uint8_t)message->type);
	put_byte((uint8_t)size);
	put_byte((uint8_t)(size >> 8));
	segue_tfbytes_put(&talk, bytes, size);
}

static void put_hello(uint8_t client)
{
	const struct segue_message hello = {.type = SEGUE_MESSAGE_HELLO,
		.serial = 1,
		.hello = {.protocol = SEGUE_PROTOCOL,
			.layout_version = SEGUE_LAYOUT_VERSION,
			.version = "0",
			.program = "fuzz"}};

	put_message(client, &hello);
}

static const char *const place[] = {PLACE};
static const struct segue_draft_source tfrecord = {
	.kind = SEGUE_SOURCE_TFRECORD, .tfrecord = {.paths = place, .path_count = 1}};

static void put_open_of(
	uint8_t client, const struct segue_draft_source *source, enum segue_initial initial)
{
	static const struct segue_feature x[] = {{.name = "x", .dtype = SEGUE_FLOAT32}};
	static const struct segue_state h[] = {{.name = "h", .dtype = SEGUE_FLOAT32}};
	const struct segue_draft asked = {.name = "train",
		.source = *source,
		.sequences = x,
		.sequence_count = 1,
		.states = h,
		.state_count = 1,
		.num_unroll = 2,
		.batch_size = 2,
		.lanes = 1,
		.epochs = 1,
		.lanes_by = initial ? SEGUE_LANES_BY_RECORD : 0,
		.initial = initial,
		.keep_final = true};
	struct segue_message open = {.type = SEGUE_MESSAGE_STREAM_OPEN,
		.serial = 2,
		.stream_open = {.stored = source->kind == SEGUE_SOURCE_STORED}};

	if (segue_draft_make(&asked, &open.stream_open.spec))
		abort();
	put_message(client, &open);
	segue_spec_destroy(open.stream_open.spec);
	put_byte(6);
}

static void put_open(uint8_t client, const struct segue_draft_source *source)
{
	put_open_of(client, source, SEGUE_INITIAL_VALUE);
}

static void put_greeting(uint8_t client)
{
	put_hello(client);
	put_open(client, &tfrecord);
}

static void put_attach(uint8_t client, uint64_t stream, enum segue_attach_mode mode, uint64_t step,
	uint64_t upload)
{
	const struct segue_message attach = {.type = SEGUE_MESSAGE_LANE_ATTACH,
		.serial = 3,
		.lane_attach = {.stream = stream,
			.mode = mode,
			.step = step,
			.upload = upload,
			.timeout_ns = 1000000000}};

	put_message(client, &attach);
	put_byte(6);
}

static void save_talk(const char *dir, int number)
{
	save(dir, "dispatch", number, &talk);
	segue_tfbytes_free(&talk);
	talk = (struct segue_tfbytes){0};
}

/* Ids count from 1: opening, lease, upload, in the order in which they are given. */
static void make_talks(const char *dir)
{
	struct segue_message message = {.serial = 9};

	put_greeting(0);
	put_attach(0, 1, SEGUE_ATTACH_FRESH, 0, 0);
	put_byte(4), put_byte(0), put_byte(1); /* committed = 1 */
	put_byte(4), put_byte(1), put_byte(1); /* released = 1 */
	message.type = SEGUE_MESSAGE_CHECKPOINT;
	message.checkpoint.stream = 1;
	message.checkpoint.step = 1;
	message.checkpoint.timeout_ns = 1000000;
	put_message(0, &message);
	put_byte(6);
	message = (struct segue_message){.type = SEGUE_MESSAGE_LANE_ATTACH,
		.serial = 9,
		.lane_attach = {.stream = 1,
			.mode = SEGUE_ATTACH_RESIZE,
			.step = 1,
			.lease = 2,
			.batch_size = 1,
			.timeout_ns = 1000000000}};
	put_message(0, &message);
	put_byte(6);
	message = (struct segue_message){
		.type = SEGUE_MESSAGE_LANE_DETACH, .serial = 10, .lane_detach = {.lease = 3}};
	put_message(0, &message);
	put_byte(6);
	save_talk(dir, 0);

	/* Two that want the lane; the first goes. */
	put_greeting(0);
	put_greeting(1);
	put_attach(0, 1, SEGUE_ATTACH_FRESH, 0, 0);
	put_attach(1, 2, SEGUE_ATTACH_CONTINUE, 0, 0);
	put_byte(7);
	put_byte(6);
	save_talk(dir, 1);

	/* An upload, an offer and a token of nothing. */
	put_greeting(0);
	message = (struct segue_message){
		.type = SEGUE_MESSAGE_UPLOAD, .serial = 4, .upload = {.size = 64}};
	put_message(0, &message);
	put_byte(6);
	put_byte(5), put_byte(4), put_byte(0), put_byte('S'), put_byte('E'), put_byte('G'),
		put_byte('T');
	put_attach(0, 1, SEGUE_ATTACH_RESTORE, 0, 2);
	put_attach(0, 1, SEGUE_ATTACH_OFFER, 2, 0);
	for (int what = SEGUE_REPORT_STATUS; what <= SEGUE_REPORT_GET; what++) {
		message = (struct segue_message){.type = SEGUE_MESSAGE_REPORT,
			.serial = 5,
			.report = {.what = (enum segue_report)what, .stream = "train", .key = "k"}};
		put_message(0, &message);
		put_byte(6);
	}
	save_talk(dir, 2);
}

static void put_side(uint8_t client, uint64_t lease, uint64_t step)
{
	const struct segue_message side = {.type = SEGUE_MESSAGE_LANE_SIDE,
		.serial = 9,
		.lane_side = {.lease = lease, .step = step}};

	put_message(client, &side);
}

/* Mixes, arrays of which no index comes, streams by their names, side segments. */
static void make_talks_of_sources(const char *dir)
{
	const struct segue_draft_part parts[] = {
		{.name = "a", .source = tfrecord, .weight = 3, .epochs = 2},
		{.name = "b", .source = tfrecord, .weight = 1},
	};
	const struct segue_draft_source mix = {
		.kind = SEGUE_SOURCE_MIX, .mix = {.parts = parts, .part_count = 2}};
	const struct segue_draft_part without[] = {
		{.name = "a", .source = tfrecord, .weight = 1, .epochs = 1},
		{.name = "b",
			.source = {.kind = SEGUE_SOURCE_ARRAYS,
				.arrays = {.paths = place, .path_count = 1}},
			.weight = 1},
	};
	const struct segue_draft_source no_index = {
		.kind = SEGUE_SOURCE_MIX, .mix = {.parts = without, .part_count = 2}};
	const struct segue_draft_source stored = {.kind = SEGUE_SOURCE_STORED};
	const struct segue_message find = {
		.type = SEGUE_MESSAGE_STREAM_FIND, .serial = 8, .stream_find = {.stream = "train"}};

	put_hello(0);
	put_open(0, &mix);
	put_attach(0, 1, SEGUE_ATTACH_FRESH, 0, 0);
	put_side(0, 2, 0), put_side(0, 2, UINT64_MAX), put_side(0, 1, 0);
	put_byte(4), put_byte(0), put_byte(1); /* committed = 1 */
	put_byte(6);
	save_talk(dir, 3);

	put_hello(0);
	put_open(0, &stored);
	put_message(0, &find);
	put_open(0, &tfrecord);
	put_hello(1);
	put_message(1, &find);
	put_open(1, &stored);
	put_byte(7); /* the first goes */
	put_byte(6);
	put_open(1, &stored);
	put_byte(6);
	put_open(1, &no_index);
	save_talk(dir, 4);
}

static void put_states(uint8_t client, enum segue_states_request what, uint64_t upload, bool live)
{
	const struct segue_message states = {.type = SEGUE_MESSAGE_STATES,
		.serial = 6,
		.states = {.what = what,
			.stream = "train",
			.key = what == SEGUE_STATES_REQUEST_LIST ? "" : "d:0",
			.upload = upload,
			.live = live}};

	put_message(client, &states);
	put_byte(6);
}

/* States under a key: put, read, deleted; before a lane goes on, while one does, and after that. */
static void make_talk_of_keys(const char *dir, int number, enum segue_initial initial)
{
	const struct segue_message upload = {
		.type = SEGUE_MESSAGE_UPLOAD, .serial = 4, .upload = {.size = 4}};

	put_hello(0);
	put_open_of(0, &tfrecord, initial);
	put_message(0, &upload);
	put_byte(6);
	put_byte(5), put_byte(2), put_byte(0), put_byte(0x80), put_byte(0x3f);
	put_states(0, SEGUE_STATES_REQUEST_PUT, 2, false);
	put_states(0, SEGUE_STATES_REQUEST_GET, 0, false);
	put_attach(0, 1, SEGUE_ATTACH_FRESH, 0, 0);
	put_byte(4), put_byte(0), put_byte(2); /* committed = 2: one has ended */
	put_hello(1);
	put_states(1, SEGUE_STATES_REQUEST_DELETE, 0, false); /* held */
	put_byte(7);                                          /* the first goes */
	put_byte(6);
	put_states(1, SEGUE_STATES_REQUEST_LIST, 0, false);
	put_states(1, SEGUE_STATES_REQUEST_LIST, 0, true);
	put_states(1, SEGUE_STATES_REQUEST_GET, 0, true);
	put_states(1, SEGUE_STATES_REQUEST_DELETE, 0, false);
	put_states(1, SEGUE_STATES_REQUEST_GET, 0, false);
	save_talk(dir, number);
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
	make_talks(argv[1]);
	make_talks_of_sources(argv[1]);
	make_talk_of_keys(argv[1], 5, SEGUE_INITIAL_VALUE);
	make_talk_of_keys(argv[1], 6, SEGUE_INITIAL_KEPT);
	make_sequence_files(argv[1]);
	make_logs(argv[1]);
	make_array_indexes(argv[1]);
	return 0;
}
