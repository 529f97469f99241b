/* A source in memory. */
#include "fakesource.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"

enum { KEY_MAX = 32 };

struct record {
	struct segue_record base;
	struct segue_fakesource *fake;
	uint64_t number, at;
	char key[KEY_MAX];
};

static bool fails(struct segue_fakesource *fake, uint64_t number, int code)
{
	if (!code || !fake->failures || number != fake->failing)
		return false;
	fake->failures--;
	return true;
}

static const char *record_key(const struct segue_record *base, size_t *size)
{
	const struct record *record = (const struct record *)base;

	*size = strlen(record->key);
	return record->key;
}

static int record_seek(struct segue_record *base, uint64_t step)
{
	((struct record *)base)->at = step;
	return 0;
}

static int record_read(struct segue_record *base, size_t feature, uint64_t steps, void *out)
{
	struct record *record = (struct record *)base;
	int64_t *values = out;

	(void)feature;
	if (fails(record->fake, record->number, record->fake->read_code))
		return segue_fail(record->fake->read_code, "record %" PRIu64 " cannot be read",
			record->number);
	for (uint64_t i = 0; i < steps; i++)
		values[i] = (int64_t)(1000 * record->number + record->at++);
	return 0;
}

static int record_read_variable(struct segue_record *base, size_t feature, uint64_t steps,
	int64_t *offsets, struct segue_sink *sink)
{
	struct record *record = (struct record *)base;
	uint8_t *out;

	(void)feature;
	for (uint64_t i = 0; i < steps; i++, record->at++) {
		uint64_t count = (record->number + record->at) * record->fake->scale;
		int64_t value = (int64_t)(1000 * record->number + record->at);
		int rc = segue_sink_add(sink, count * sizeof(value), &out);

		if (rc)
			return rc;
		for (uint64_t k = 0; k < count; k++)
			memcpy(out + k * sizeof(value), &value, sizeof(value));
		offsets[i + 1] = offsets[i] + (int64_t)count;
	}
	return 0;
}

static int record_context(struct segue_record *base, size_t feature, void *out)
{
	(void)base;
	(void)feature;
	(void)out;
	return SEGUE_EINVAL;
}

static size_t record_memory(const struct segue_record *base)
{
	(void)base;
	return sizeof(struct record);
}

static void record_release(struct segue_record *base)
{
	((struct record *)base)->fake->open--;
	free(base);
}

static const struct segue_record_ops record_ops = {
	.key = record_key,
	.seek = record_seek,
	.read = record_read,
	.read_variable = record_read_variable,
	.context = record_context,
	.memory = record_memory,
	.release = record_release,
};

static uint64_t source_records(const struct segue_source *base)
{
	return ((const struct segue_fakesource *)base)->records;
}

static uint32_t source_key_max(const struct segue_source *base)
{
	return ((const struct segue_fakesource *)base)->key_max;
}

/* Without printf, so that who counts instructions counts others'. */
static void make_key(uint64_t number, char *key)
{
	char digits[KEY_MAX];
	size_t count = 0;

	do {
		digits[count++] = (char)('0' + number % 10);
	} while (number /= 10);
	memcpy(key, "record-", 7);
	for (key += 7; count; key++)
		*key = digits[--count];
}

static int source_admit(struct segue_source *base, uint64_t number, struct segue_record **out,
	struct segue_admitted *admitted)
{
	struct segue_fakesource *fake = (struct segue_fakesource *)base;

	if (fake->admitting)
		fake->admitting();
	if (number >= fake->inserted)
		return SEGUE_ENOTYET;
	if (fails(fake, number, fake->admit_code))
		return segue_fail(
			fake->admit_code, "record %" PRIu64 " cannot be admitted", number);
	struct record *record = calloc(1, sizeof(*record));
	if (!record)
		return segue_fail(SEGUE_ENOMEM, "no memory for a record");
	*record = (struct record){.base = {&record_ops}, .fake = fake, .number = number};
	make_key(number, record->key);
	fake->admitted++;
	fake->open++;
	*out = &record->base;
	*admitted = (struct segue_admitted){fake->length[number], fake->length[number]};
	return 0;
}

static int source_find_lengths(
	struct segue_source *base, segue_progress_fn *progress, void *arg, uint32_t *lengths)
{
	const struct segue_fakesource *fake = (const struct segue_fakesource *)base;

	(void)progress;
	(void)arg;
	memcpy(lengths, fake->length, fake->records * sizeof(lengths[0]));
	return 0;
}

static void source_destroy(struct segue_source *base)
{
	(void)base;
}

static const struct segue_source_ops source_ops = {
	.records = source_records,
	.key_max = source_key_max,
	.admit = source_admit,
	.find_lengths = source_find_lengths,
	.destroy = source_destroy,
};

void segue_fakesource_init(struct segue_fakesource *fake, uint64_t records, uint32_t length)
{
	*fake = (struct segue_fakesource){
		.records = records, .key_max = KEY_MAX, .inserted = records};
	segue_source_base_init(
		&fake->source, &source_ops, &(struct segue_spec){.on_error = SEGUE_ON_ERROR_RAISE});
	fake->length = malloc(records * sizeof(*fake->length));
	for (uint64_t i = 0; i < records; i++)
		fake->length[i] = length;
}

void segue_fakesource_finish(struct segue_fakesource *fake)
{
	segue_source_base_finish(&fake->source);
	free(fake->length);
}

void segue_fakespec_plan(struct segue_fakespec *fake, const struct segue_fakesource *source)
{
	const struct segue_spec *spec = &fake->test.spec;

	fake->plan = (struct segue_plan_spec){
		.records = source->records,
		.ends = {1, {spec->epochs}},
		.first_epoch = spec->first_epoch,
		.seed = spec->seed,
		.lanes = spec->lanes,
		.batch_size = spec->batch_size,
		.num_unroll = spec->num_unroll,
		.tail = spec->tail,
		.epoch_end = spec->epoch_end,
		.shuffle = spec->shuffle,
	};
}

void segue_fakespec_init(struct segue_fakespec *fake, const struct segue_fakesource *source,
	uint32_t batch_size, uint32_t num_unroll, uint32_t state_size)
{
	static char name[] = "fake", h[] = "h";
	struct segue_spec *spec = &fake->test.spec;

	memset(fake, 0, sizeof(*fake));
	segue_testspec_init(&fake->test);
	segue_testspec_sequence(&fake->test, "x", SEGUE_INT64, 1);
	spec->name = name;
	spec->num_unroll = num_unroll;
	spec->batch_size = batch_size;
	spec->lanes = 1;
	spec->epochs = 1;
	spec->tail = SEGUE_TAIL_SHRINK;
	spec->depth = 2;
	spec->interval_ms = 1000;
	spec->persist = true;
	if (state_size) {
		fake->state = (struct segue_field){.name = h,
			.dtype = SEGUE_UINT8,
			.rank = 1,
			.dims = {state_size},
			.elements = state_size,
			.size = state_size};
		spec->states = &fake->state;
		spec->state_count = 1;
		spec->init_hash = fake->state_hash;
	}
	segue_fakespec_plan(fake, source);
}
